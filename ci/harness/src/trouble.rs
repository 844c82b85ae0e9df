//! Why a proof could not go on.

use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::wire::{DecodeError, EncodeError};
use std::io;

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The socket or a file.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker sent bytes that are no answer.
    #[error("unreadable answer: {0}")]
    Unreadable(#[from] DecodeError),
    /// A request of ours that has no form in its version.
    #[error("request without a form: {0}")]
    Unwritable(#[from] EncodeError),
    /// The broker answered with an error.
    #[error("{0:?}")]
    Code(ErrorCode),
    /// What was to be shown does not hold, or a deadline passed.
    #[error("{0}")]
    Proof(String),
}

impl Trouble {
    /// A proof that does not hold.
    pub(crate) fn proof(text: impl Into<String>) -> Self {
        Trouble::Proof(text.into())
    }
}

/// Whether the same request may succeed later, as clients see it.
pub(crate) fn is_retriable(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::LeaderNotAvailable
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::RequestTimedOut
            | ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::KafkaStorageError
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::UnknownLeaderEpoch
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::NotController
            | ErrorCode::ThrottlingQuotaExceeded
            | ErrorCode::OffsetNotAvailable
    )
}
