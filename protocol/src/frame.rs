//! Frames: the length prefix, the headers, a whole request or response.
//!
//! 1. A length is checked against a limit before a byte is allocated for it.
//! 2. A frame that leaves is a list of slices that begins with its 4-byte length.

use crate::api::ApiKey;
use crate::codec::{Message, Request};
use crate::string::StrBytes;
use crate::wire::{Cursor, DecodeError, DecodeErrorKind, EncodeError, Reader, Writer};
use bytes::Bytes;
use std::ops::Range;
use thiserror::Error;

/// Bytes of the length before a frame.
pub const LENGTH_BYTES: usize = 4;

/// Bytes that [`peek`] needs: key, version, correlation id. No request is shorter.
pub const PEEK_BYTES: usize = 8;

/// Room for the small fields of a usual frame, in bytes.
const SMALL_FIELDS: usize = 256;

/// A length prefix that no request of ours has. The connection closes: where the next frame begins is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FrameError {
    /// Shorter than the fixed part of a request header, or negative.
    #[error("frame length {0} is too small")]
    TooSmall(i32),
    /// Above the limit.
    #[error("frame length {length} is above the limit of {limit}")]
    TooLarge {
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
}

/// The length that a request's prefix announces, prefix not included.
///
/// # Errors
/// When it is below [`PEEK_BYTES`] or above `limit` bytes.
pub fn request_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, FrameError> {
    let announced = i32::from_be_bytes(prefix);
    match usize::try_from(announced) {
        Ok(length) if length > limit => Err(FrameError::TooLarge { length, limit }),
        Ok(length) if length >= PEEK_BYTES => Ok(length),
        _ => Err(FrameError::TooSmall(announced)),
    }
}

/// What the first bytes of a request say, before its body is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peek {
    /// The API, as yet unchecked: see [`ApiKey::from_code`].
    pub api_key: i16,
    /// The version of the request.
    pub api_version: i16,
    /// What the response must repeat.
    pub correlation_id: i32,
}

/// Reads the fixed part of a request header.
pub fn peek(bytes: &[u8; PEEK_BYTES]) -> Peek {
    let [k0, k1, v0, v1, c0, c1, c2, c3] = *bytes;
    Peek {
        api_key: i16::from_be_bytes([k0, k1]),
        api_version: i16::from_be_bytes([v0, v1]),
        correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
    }
}

/// What goes before a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestHeader {
    /// The API.
    pub api_key: ApiKey,
    /// The version of request and response.
    pub api_version: i16,
    /// What the response must repeat.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
}

impl RequestHeader {
    /// Reads the header; the body is next in the reader. The version need not be one that we serve.
    ///
    /// # Errors
    /// When the bytes are no header or the API is unknown.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (api_key, api_version, correlation_id) = fixed_header(reader)?;
        let client_id = reader.nullable_string(false)?;
        if api_key.is_flexible(api_version) {
            reader.skip_tags()?;
        }
        Ok(RequestHeader { api_key, api_version, correlation_id, client_id })
    }

    /// Goes over a header in borrowed bytes; says where its client id stands, if it has one.
    ///
    /// # Errors
    /// When the bytes are no header or the API is unknown.
    pub fn skip(cursor: &mut Cursor<'_>) -> Result<(Peek, Option<Range<usize>>), DecodeError> {
        let (api_key, api_version, correlation_id) = fixed_header(cursor)?;
        let client_id = cursor.nullable_str(false)?;
        let client_id = client_id.map(|text| cursor.position() - text.len()..cursor.position());
        if api_key.is_flexible(api_version) {
            cursor.skip_tags()?;
        }
        Ok((Peek { api_key: api_key.code(), api_version, correlation_id }, client_id))
    }

    /// Writes the header.
    ///
    /// # Errors
    /// When the client id is too long.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.enter("RequestHeader");
        writer.i16(self.api_key.code());
        writer.i16(self.api_version);
        writer.i32(self.correlation_id);
        // Not compact in either header version: a broker must be able to read it before it knows the version.
        writer.string(self.client_id.as_ref(), false)?;
        if self.api_key.is_flexible(self.api_version) {
            writer.uvarint(0);
        }
        Ok(())
    }
}

fn fixed_header(cursor: &mut Cursor<'_>) -> Result<(ApiKey, i16, i32), DecodeError> {
    cursor.enter("RequestHeader");
    let code = cursor.i16()?;
    let key = ApiKey::from_code(code).ok_or_else(|| cursor.error(DecodeErrorKind::ApiKey(code)))?;
    Ok((key, cursor.i16()?, cursor.i32()?))
}

/// A whole request frame, length included.
///
/// # Errors
/// When the request has no form in `version`.
pub fn request_frame<R: Request>(
    request: &R,
    version: i16,
    correlation_id: i32,
    client_id: Option<StrBytes>,
) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = begin_frame();
    RequestHeader { api_key: R::KEY, api_version: version, correlation_id, client_id }.encode(&mut writer)?;
    request.encode(&mut writer, version)?;
    Ok(end_frame(writer))
}

/// A whole response frame, length included.
///
/// # Errors
/// When the response has no form in `version`.
pub fn response_frame<M: Message>(response: &M, version: i16, correlation_id: i32) -> Result<Vec<Bytes>, EncodeError> {
    let mut writer = begin_response(M::KEY, version, correlation_id);
    response.encode(&mut writer, version)?;
    Ok(end_frame(writer))
}

/// Starts a response frame that is written by hand: length to be filled in by [`end_frame`], then the header.
pub fn begin_response(key: ApiKey, version: i16, correlation_id: i32) -> Writer {
    let mut writer = begin_frame();
    writer.i32(correlation_id);
    if key.response_header_version(version) == 1 {
        writer.uvarint(0);
    }
    writer
}

/// Reads a response frame whose length is off: the correlation id and the message.
///
/// # Errors
/// When the bytes are not such a response.
pub fn decode_response<M: Message>(frame: &Bytes, version: i16) -> Result<(i32, M), DecodeError> {
    let mut reader = Reader::new(frame);
    reader.enter("ResponseHeader");
    let correlation_id = reader.i32()?;
    if M::KEY.response_header_version(version) == 1 {
        reader.skip_tags()?;
    }
    Ok((correlation_id, M::decode(&mut reader, version)?))
}

fn begin_frame() -> Writer {
    let mut writer = Writer::with_capacity(SMALL_FIELDS);
    writer.i32(0);
    writer
}

/// Fills in the length and gives the frame's slices.
pub fn end_frame(mut writer: Writer) -> Vec<Bytes> {
    let length = i32::try_from(writer.len() - LENGTH_BYTES).expect("responses are bounded far below 2 GiB");
    writer.set_i32(0, length);
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse};

    #[test]
    fn lengths_that_are_negative_tiny_or_above_the_limit_are_refused() {
        let of = |length: i32| request_length(length.to_be_bytes(), 1000);
        assert_eq!(of(8), Ok(8));
        assert_eq!(of(1000), Ok(1000));
        assert_eq!(of(1001), Err(FrameError::TooLarge { length: 1001, limit: 1000 }));
        assert_eq!(of(i32::MAX), Err(FrameError::TooLarge { length: i32::MAX as usize, limit: 1000 }));
        for length in [i32::MIN, -1, 0, 7] {
            assert_eq!(of(length), Err(FrameError::TooSmall(length)));
        }
    }

    #[test]
    fn the_first_bytes_say_key_version_and_correlation_id() {
        let peeked = peek(&[0, 18, 0, 3, 0, 0, 1, 0]);
        assert_eq!(peeked, Peek { api_key: 18, api_version: 3, correlation_id: 256 });
    }

    #[test]
    fn golden_heartbeat_frames_with_both_header_versions() {
        let request = HeartbeatRequest { group_id: "g".into(), member_id: "m".into(), ..HeartbeatRequest::default() };
        let classic = request_frame(&request, 0, 5, None).unwrap().concat();
        let flexible = request_frame(&request, 4, 5, Some("c".into())).unwrap().concat();
        assert_eq!(classic, b"\0\0\0\x14\0\x0c\0\0\0\0\0\x05\xff\xff\0\x01g\0\0\0\0\0\x01m");
        assert_eq!(flexible, b"\0\0\0\x16\0\x0c\0\x04\0\0\0\x05\0\x01c\0\x02g\0\0\0\0\x02m\0\0");
        let response = HeartbeatResponse::default();
        assert_eq!(response_frame(&response, 0, 5).unwrap().concat(), [0, 0, 0, 6, 0, 0, 0, 5, 0, 0]);
        assert_eq!(
            response_frame(&response, 4, 5).unwrap().concat(),
            [0, 0, 0, 12, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn a_response_to_api_versions_has_no_tags_in_its_header() {
        let frame = Bytes::from(response_frame(&ApiVersionsResponse::default(), 3, 5).unwrap().concat());
        let frame = frame.slice(LENGTH_BYTES..);
        assert_eq!(frame.as_ref(), [0, 0, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(decode_response(&frame, 3), Ok((5, ApiVersionsResponse::default())));
    }

    #[test]
    fn a_header_of_an_unknown_api_is_refused_and_one_of_an_unknown_version_is_read() {
        let unknown = Bytes::from_static(&[0, 95, 0, 0, 0, 0, 0, 5, 0xff, 0xff]);
        let error = RequestHeader::decode(&mut Reader::new(&unknown)).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::ApiKey(95));
        let future = Bytes::from_static(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xff, 0]);
        let header = RequestHeader::decode(&mut Reader::new(&future)).unwrap();
        assert_eq!((header.api_key, header.api_version), (ApiKey::ApiVersions, 99));
    }
}
