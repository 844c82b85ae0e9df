//! Offsets and timestamps of the records of a batch, compressed or not, without keeping their keys and values.
//!
//! 1. Records are inflated as a stream and skipped over, never more than the caller's bound and one read buffer.
//! 2. A buffer that a length in the payload asks for is granted only as far as Snappy could have made it of that input.
//! 3. Iteration ends at the first error. LogAppendTime needs no look inside: all records have the batch's timestamp.

use super::{BatchError, Compression, RecordBatch, TimestampType};
use flate2::read::MultiGzDecoder;
use std::io::{self, BufReader, Cursor, Read};

/// What Kafka's producer (snappy-java) writes before its blocks: a magic and two version numbers.
const SNAPPY_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const SNAPPY_HEADER_BYTES: usize = 16;
/// Snappy's densest element copies 64 bytes and takes three.
const SNAPPY_MOST_RATIO: usize = 22;
/// Largest window of a zstd frame that is taken, as a power of two: 8 MiB, what RFC 8878 asks decoders for.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Where a record stands in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordTime {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds; −1 if none.
    pub timestamp: i64,
}

/// Why the times of a batch could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TimesError {
    /// The batch's header is wrong.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The records are larger than they may become.
    #[error("records inflate to more than {0} bytes")]
    TooLarge(usize),
    /// The payload cannot be inflated, or ends before its last record.
    #[error("records cannot be inflated: {0}")]
    Inflate(#[from] io::Error),
    /// A record's fields are not what its length says.
    #[error("record {index}: {detail}")]
    Record {
        /// Index within the batch.
        index: u32,
        /// What is wrong.
        detail: &'static str,
    },
}

/// The times of a batch's records in order. An error is the last item.
pub struct RecordTimes<'a> {
    batch: RecordBatch<'a>,
    /// `None` where the header says it all.
    inflated: Option<io::Take<BufReader<Box<dyn Read + 'a>>>>,
    limit: usize,
    index: u32,
    count: u32,
}

impl<'a> RecordTimes<'a> {
    /// Starts at the first record; at most `limit` bytes are inflated.
    ///
    /// # Errors
    /// An unknown codec, a negative count, or a payload that does not begin as its codec's does.
    pub fn new(batch: RecordBatch<'a>, limit: usize) -> Result<RecordTimes<'a>, TimesError> {
        let counts = BatchError::Counts { count: batch.count(), last_offset_delta: batch.last_offset_delta() };
        let count = u32::try_from(batch.count()).map_err(|_| counts)?;
        let compression = batch.attributes().compression()?;
        let inflated = match batch.attributes().timestamp_type() {
            TimestampType::LogAppendTime => None,
            // One byte more than allowed, so that the end of the bound and that of the records are told apart.
            TimestampType::CreateTime => Some(
                BufReader::new(inflate(compression, batch.payload(), limit)?).take((limit as u64).saturating_add(1)),
            ),
        };
        Ok(RecordTimes { batch, inflated, limit, index: 0, count })
    }

    fn read(&mut self) -> Result<RecordTime, TimesError> {
        let Some(bytes) = &mut self.inflated else {
            let offset = self.batch.base_offset().wrapping_add(self.index.into());
            return Ok(RecordTime { offset, timestamp: self.batch.max_timestamp() });
        };
        let wrong = |detail| TimesError::Record { index: self.index, detail };
        let read = (|| {
            let (length, _) = signed(bytes, 5)?;
            let length = u64::try_from(length).map_err(|_| wrong("negative length"))?;
            let mut attributes = [0];
            bytes.read_exact(&mut attributes)?;
            let (timestamp_delta, timestamp_bytes) = signed(bytes, 10)?;
            let (offset_delta, offset_bytes) = signed(bytes, 5)?;
            let fields = 1 + timestamp_bytes + offset_bytes;
            let rest = length.checked_sub(fields).ok_or_else(|| wrong("shorter than its fields"))?;
            if io::copy(&mut bytes.by_ref().take(rest), &mut io::sink())? < rest {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            Ok(RecordTime {
                offset: self.batch.base_offset().wrapping_add(offset_delta),
                timestamp: self.batch.base_timestamp().wrapping_add(timestamp_delta),
            })
        })();
        if bytes.limit() == 0 { Err(TimesError::TooLarge(self.limit)) } else { read }
    }
}

impl Iterator for RecordTimes<'_> {
    type Item = Result<RecordTime, TimesError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            return None;
        }
        let time = self.read();
        self.index = if time.is_ok() { self.index + 1 } else { self.count };
        Some(time)
    }
}

fn inflate<'a>(codec: Compression, payload: &'a [u8], limit: usize) -> Result<Box<dyn Read + 'a>, TimesError> {
    Ok(match codec {
        Compression::None => Box::new(payload),
        Compression::Gzip => Box::new(MultiGzDecoder::new(payload)),
        Compression::Lz4 => Box::new(lz4::Decoder::new(payload)?),
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(payload)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Compression::Snappy if payload.starts_with(SNAPPY_MAGIC) => {
            let blocks = payload.get(SNAPPY_HEADER_BYTES..).ok_or_else(cut)?;
            Box::new(SnappyBlocks { rest: blocks, block: Cursor::default(), limit })
        }
        Compression::Snappy => Box::new(Cursor::new(unsnap(payload, limit)?)),
    })
}

/// snappy-java's blocks: each a length of four bytes and as much raw Snappy.
struct SnappyBlocks<'a> {
    rest: &'a [u8],
    block: Cursor<Vec<u8>>,
    limit: usize,
}

impl Read for SnappyBlocks<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(into)?;
            if read > 0 || into.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let length = usize::try_from(u32::from_be_bytes(*length)).map_err(io::Error::other)?;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
            self.rest = rest;
            self.block = Cursor::new(unsnap(block, self.limit).map_err(io::Error::other)?);
        }
    }
}

/// One block of raw Snappy, which says its size before its bytes.
fn unsnap(block: &[u8], limit: usize) -> Result<Vec<u8>, TimesError> {
    let size = snap::raw::decompress_len(block).map_err(io::Error::other)?;
    if size > limit {
        return Err(TimesError::TooLarge(limit));
    }
    if size > block.len().saturating_mul(SNAPPY_MOST_RATIO) {
        return Err(io::Error::other("a Snappy block says that it is larger than it can be").into());
    }
    Ok(snap::raw::Decoder::new().decompress_vec(block).map_err(io::Error::other)?)
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// A zigzag varint of at most `most` bytes, and how many it took.
fn signed(bytes: &mut impl Read, most: u64) -> io::Result<(i64, u64)> {
    let mut value = 0u64;
    for index in 0..most {
        let mut byte = [0];
        bytes.read_exact(&mut byte)?;
        value |= u64::from(byte[0] & 0x7f) << (7 * index);
        if byte[0] < 0x80 {
            return Ok(((value >> 1) as i64 ^ -((value & 1) as i64), index + 1));
        }
    }
    Err(io::Error::other("varint without an end"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::{BatchBuilder, HEADER_BYTES};
    use proptest::prelude::*;

    /// Codes of all codecs; the last stands for Snappy in snappy-java's blocks.
    const CODECS: [i16; 6] = [0, 1, 2, 3, 4, 5];

    fn packed(codec: i16, plain: &[u8]) -> Vec<u8> {
        let snappy = |bytes: &[u8]| snap::raw::Encoder::new().compress_vec(bytes).unwrap();
        match codec {
            2 => snappy(plain),
            0..5 => Compression::ALL[codec as usize].compress(plain).unwrap(),
            _ => {
                let mut out = [SNAPPY_MAGIC.as_slice(), &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
                for block in plain.chunks(50) {
                    let block = snappy(block);
                    out.extend((block.len() as u32).to_be_bytes());
                    out.extend(block);
                }
                out
            }
        }
    }

    fn batch(codec: i16, attributes: i16, times: &[i64], value: &[u8]) -> Vec<u8> {
        let attributes = attributes | if codec == 5 { 2 } else { codec };
        let mut builder = BatchBuilder::new(times[0]).attributes(attributes);
        times.iter().for_each(|&time| builder.push_record(time, Some(b"k"), Some(value), &[(b"h", None)]));
        let mut batch = builder.finish();
        let payload = packed(codec, &batch.split_off(HEADER_BYTES));
        batch.extend(payload);
        let length = (batch.len() - 12) as u32;
        batch[8..12].copy_from_slice(&length.to_be_bytes());
        batch[..8].copy_from_slice(&1000i64.to_be_bytes());
        batch
    }

    fn times(bytes: &[u8], limit: usize) -> Result<Vec<RecordTime>, TimesError> {
        let (batch, _) = RecordBatch::split(bytes)?.expect("whole");
        RecordTimes::new(batch, limit)?.collect()
    }

    proptest! {
        #[test]
        fn every_codec_gives_each_record_its_time(wanted in proptest::collection::vec(-1..i64::MAX / 2, 1..40)) {
            for codec in CODECS {
                let found = times(&batch(codec, 0, &wanted, b"value"), 1 << 20).unwrap();
                let at = |(index, &timestamp): (usize, &i64)| RecordTime { offset: 1000 + index as i64, timestamp };
                prop_assert_eq!(found, wanted.iter().enumerate().map(at).collect::<Vec<_>>());
            }
        }

        #[test]
        fn changed_payloads_never_panic(
            codec in 0..6i16,
            at in any::<proptest::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = batch(codec, 0, &[5, 6, 7], b"a value that is there");
            let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
            if cut {
                bytes.truncate(at);
                let length = (at - 12) as u32;
                bytes[8..12].copy_from_slice(&length.to_be_bytes());
            } else {
                bytes[at] = byte;
            }
            let _ = times(&bytes, 1 << 16);
        }
    }

    #[test]
    fn a_bomb_is_an_error_of_its_own() {
        for codec in CODECS {
            let bytes = batch(codec, 0, &[1, 2], &vec![0; 1 << 20]);
            let error = times(&bytes, 1 << 16).unwrap_err();
            let said = error.to_string();
            assert!(said.contains("inflate to more than 65536 bytes"), "codec {codec}: {said}");
        }
    }

    #[test]
    fn records_of_exactly_the_bound_are_read() {
        let plain = batch(0, 0, &[1, 2], b"value");
        let size = plain.len() - HEADER_BYTES;
        assert_eq!(times(&plain, size).unwrap().len(), 2);
        assert!(matches!(times(&plain, size - 1), Err(TimesError::TooLarge(_))));
    }

    #[test]
    fn log_append_time_is_that_of_all_records_and_nothing_is_inflated() {
        let mut bytes = batch(1, crate::records::Attributes::LOG_APPEND_TIME, &[5, 9, 7], b"value");
        bytes[HEADER_BYTES..].fill(0xff);
        let found = times(&bytes, 0).unwrap();
        let expected: Vec<_> = (1000..1003).map(|offset| RecordTime { offset, timestamp: 9 }).collect();
        assert_eq!(found, expected);
    }
}
