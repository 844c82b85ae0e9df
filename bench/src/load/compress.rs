//! The codecs that the bench's clients offer.

use clap::ValueEnum;
use millrace_protocol::records::Compression;

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
    /// As the protocol names it.
    pub(crate) fn compression(self) -> Compression {
        match self {
            Codec::None => Compression::None,
            Codec::Gzip => Compression::Gzip,
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd,
        }
    }
}
