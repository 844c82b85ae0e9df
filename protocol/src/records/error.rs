//! What can be wrong with a record batch, and Kafka's code for it.

use crate::error_code::ErrorCode;

/// A batch, or a record in it, that is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// No whole batch is there.
    #[error("no record batch")]
    Missing,
    /// More than one batch for a partition in one produce request.
    #[error("more than one record batch for a partition")]
    MoreThanOne,
    /// A message set of Kafka before 0.11.
    #[error("magic {0}: only record batches of magic 2 are accepted")]
    OldMagic(i8),
    /// The length or magic byte cannot be of any batch.
    #[error("record batch with length {length} and magic {magic}")]
    Framing {
        /// Its length field.
        length: i32,
        /// Its magic byte; −1 if it was not looked at.
        magic: i8,
    },
    /// The bytes are not those that were sent.
    #[error("CRC-32C {found:08x} where {stored:08x} is stored")]
    Crc {
        /// In the batch.
        stored: u32,
        /// Of its bytes.
        found: u32,
    },
    /// Larger than `max.message.bytes`.
    #[error("batch of {bytes} bytes where at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A producer sends base offset 0.
    #[error("base offset {0} where a producer sends 0")]
    BaseOffset(i64),
    /// The number of records and the last offset do not belong together.
    #[error("{count} records with last offset delta {last_offset_delta}")]
    Counts {
        /// Records by the header.
        count: i32,
        /// Last offset delta by the header.
        last_offset_delta: i32,
    },
    /// Attributes name a codec that does not exist.
    #[error("unknown compression codec {0}")]
    UnknownCompression(u8),
    /// Only brokers write control batches.
    #[error("clients may not write control batches")]
    Control,
    /// Transactions are not served.
    #[error("transactional batch")]
    Transactional,
    /// A producer id without a valid epoch and sequence.
    #[error("producer id with epoch {epoch} and sequence {sequence}")]
    ProducerFields {
        /// Producer epoch.
        epoch: i16,
        /// Base sequence.
        sequence: i32,
    },
    /// Log append time is the broker's to set.
    #[error("timestamp type LogAppendTime in a produced batch")]
    TimestampType,
    /// A timestamp too far from the broker's clock.
    #[error("timestamp {timestamp} outside [{earliest}, {latest}]")]
    Timestamp {
        /// Unix milliseconds.
        timestamp: i64,
        /// The earliest that is accepted.
        earliest: i64,
        /// The latest that is accepted.
        latest: i64,
    },
    /// A compacted topic needs keys.
    #[error("record {0} has no key, which a compacted topic needs")]
    MissingKey(u32),
    /// Records are not what the header says, or their fields are not what their lengths say.
    #[error("record {index}: {detail}")]
    Record {
        /// Index within the batch.
        index: u32,
        /// What is wrong.
        detail: &'static str,
    },
}

impl BatchError {
    /// The code that Kafka 4 answers for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            BatchError::Framing { .. } | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
            BatchError::TooLarge { .. } => ErrorCode::MessageTooLarge,
            BatchError::UnknownCompression(_) => ErrorCode::UnsupportedCompressionType,
            BatchError::Transactional => ErrorCode::TransactionalIdAuthorizationFailed,
            BatchError::TimestampType | BatchError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            BatchError::Missing
            | BatchError::MoreThanOne
            | BatchError::OldMagic(_)
            | BatchError::BaseOffset(_)
            | BatchError::Counts { .. }
            | BatchError::Control
            | BatchError::ProducerFields { .. }
            | BatchError::MissingKey(_)
            | BatchError::Record { .. } => ErrorCode::InvalidRecord,
        }
    }
}
