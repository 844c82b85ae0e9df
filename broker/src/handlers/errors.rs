//! The one mapping from what can go wrong here to Kafka's error codes. Matched without a catch-all, so that a new
//! error can't get a code by accident. (What is wrong with a batch has its code in the protocol crate, beside the checks.)

use crate::shard::search::SearchError;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::partition::AppendError;

/// Why a partition does not do what a request asks of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PartitionError {
    /// No topic of this name, or no such partition.
    UnknownName,
    /// No topic with this id.
    UnknownId,
    /// This shard does not lead it.
    NotLeader,
    /// The client's leader epoch is older than ours.
    FencedEpoch,
    /// The client's leader epoch is newer than ours: we may have been replaced.
    UnknownEpoch,
    /// No such offset.
    OutOfRange,
    /// The store failed, has no room, or has other bytes than it should.
    Storage,
    /// Its settings forbid it.
    Policy,
    /// The request's time was over.
    TimedOut,
    /// Records that are not what their batch says.
    Broken,
    /// A batch that inflates to more than is looked through.
    TooLarge,
}

/// The code of a partition's refusal.
pub fn partition_error(error: PartitionError) -> ErrorCode {
    match error {
        PartitionError::UnknownName => ErrorCode::UnknownTopicOrPartition,
        PartitionError::UnknownId => ErrorCode::UnknownTopicId,
        PartitionError::NotLeader => ErrorCode::NotLeaderOrFollower,
        PartitionError::FencedEpoch => ErrorCode::FencedLeaderEpoch,
        PartitionError::UnknownEpoch => ErrorCode::UnknownLeaderEpoch,
        PartitionError::OutOfRange => ErrorCode::OffsetOutOfRange,
        PartitionError::Storage => ErrorCode::KafkaStorageError,
        PartitionError::Policy => ErrorCode::PolicyViolation,
        PartitionError::TimedOut => ErrorCode::RequestTimedOut,
        PartitionError::Broken => ErrorCode::CorruptMessage,
        // Clients do not try this one again, and take the offset for unknown.
        PartitionError::TooLarge => ErrorCode::UnsupportedForMessageFormat,
    }
}

impl From<SearchError> for PartitionError {
    fn from(error: SearchError) -> PartitionError {
        match error {
            SearchError::Store(_) | SearchError::Missing => PartitionError::Storage,
            SearchError::Broken => PartitionError::Broken,
            SearchError::TooLarge => PartitionError::TooLarge,
        }
    }
}

/// The code for a batch that can't follow what its producer wrote before.
pub fn append_error(error: AppendError) -> ErrorCode {
    match error {
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::StaleEpoch { .. } => ErrorCode::InvalidProducerEpoch,
    }
}
