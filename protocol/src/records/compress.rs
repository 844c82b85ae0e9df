//! Compression of records as Kafka's Java client does it, for clients of tests and the bench: the broker compresses
//! nothing.

use super::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};

/// What precedes the blocks of Snappy as Kafka frames them (snappy-java): magic, version, least compatible version.
const SNAPPY_HEADER: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// Bytes of such a block.
const SNAPPY_BLOCK: usize = 32 << 10;
/// The zstd level of Kafka's default.
const ZSTD_LEVEL: i32 = 3;

impl Compression {
    /// All codecs, by their bits in a batch's attributes.
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// Its bits in a batch's attributes.
    pub fn attribute(self) -> i16 {
        self as i16
    }

    /// The bytes compressed.
    ///
    /// # Errors
    /// What the libraries say of 2 GiB and more.
    pub fn compress(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Compression::None => Ok(bytes.to_vec()),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Compression::Snappy => {
                let mut out = SNAPPY_HEADER.to_vec();
                for block in bytes.chunks(SNAPPY_BLOCK) {
                    let block = snap::raw::Encoder::new().compress_vec(block).map_err(io::Error::other)?;
                    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
                    out.extend_from_slice(&block);
                }
                Ok(out)
            }
            Compression::Lz4 => {
                let mut encoder =
                    lz4::EncoderBuilder::new().block_mode(lz4::BlockMode::Independent).build(Vec::new())?;
                encoder.write_all(bytes)?;
                let (out, ended) = encoder.finish();
                ended.map(|()| out)
            }
            Compression::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        }
    }
}
