//! What a fuzzer or a test of mutated frames runs on arbitrary bytes.
//!
//! 1. No bytes make reading panic.
//! 2. What is read can be written, and is read back equal.
//! 3. The produce view accepts what the declared request accepts, but for its bound on elements without a batch, and
//!    says the same.

use crate::api::ApiKey;
use crate::codec::Message;
use crate::frame::RequestHeader;
use crate::messages::produce_view::ProduceView;
use crate::messages::{self, ProduceRequest};
use crate::wire::{DecodeErrorKind, Reader, Writer};
use bytes::Bytes;

/// Reads `bytes` as a request frame without its length prefix, and asserts the invariants above.
pub fn fuzz_request(bytes: &[u8]) {
    let frame = Bytes::copy_from_slice(bytes);
    let mut reader = Reader::new(&frame);
    let Ok(header) = RequestHeader::decode(&mut reader) else { return };
    if header.api_key == ApiKey::Produce {
        check_produce_view(reader.clone(), header.api_version, &frame);
    }
    messages::check_body(&header, &mut reader);
}

/// Reads a body and asserts that it survives being written and read again.
pub(crate) fn check_message<M: Message>(reader: &mut Reader<'_>, version: i16) {
    let Ok(message) = M::decode(reader, version) else { return };
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("invariant 2: what was read can be written");
    let again = writer.concat();
    let mut reader = Reader::new(&again);
    assert_eq!(M::decode(&mut reader, version).as_ref(), Ok(&message), "invariant 2");
    assert_eq!(reader.remaining(), 0, "invariant 2: all that was written is read");
}

fn check_produce_view(mut reader: Reader<'_>, version: i16, frame: &Bytes) {
    let request = ProduceRequest::decode(&mut reader, version);
    let view = ProduceView::decode(frame);
    match (request, view) {
        (Ok(request), Ok(view)) => assert!(view.agrees_with(&request, frame), "invariant 3"),
        (Err(_), Err(_)) => {}
        // The one bound that the declared request does not have.
        (Ok(_), Err(error)) if matches!(error.kind, DecodeErrorKind::WithoutBatch(_)) => {}
        (request, view) => panic!("invariant 3: {request:?} and {view:?}"),
    }
}
