//! The records of a batch, compressed as Kafka's Java client does it.

use clap::ValueEnum;
use flate2::write::GzEncoder;
use std::io::{self, Write};

/// What precedes the blocks of Snappy as Kafka frames them (snappy-java): magic, version, least compatible version.
const SNAPPY_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes of such a block.
const SNAPPY_BLOCK: usize = 32 << 10;
/// The zstd level of Kafka's default.
const ZSTD_LEVEL: i32 = 3;

/// How records are compressed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Codec {
    /// They are not.
    None,
    /// RFC 1952.
    Gzip,
    /// In blocks as of snappy-java.
    Snappy,
    /// The frame format.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// The bits of a batch's attributes.
    pub(crate) fn attribute(self) -> i16 {
        match self {
            Codec::None => 0,
            Codec::Gzip => 1,
            Codec::Snappy => 2,
            Codec::Lz4 => 3,
            Codec::Zstd => 4,
        }
    }

    /// The bytes compressed.
    pub(crate) fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Codec::None => Ok(bytes.to_vec()),
            Codec::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Codec::Snappy => {
                let mut out = SNAPPY_HEADER.to_vec();
                for block in bytes.chunks(SNAPPY_BLOCK) {
                    let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
                Ok(out)
            }
            Codec::Lz4 => {
                let mut encoder =
                    lz4::EncoderBuilder::new().block_mode(lz4::BlockMode::Independent).build(Vec::new())?;
                encoder.write_all(bytes)?;
                let (out, ended) = encoder.finish();
                ended.map(|()| out)
            }
            Codec::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        }
    }
}
