//! What a store operation can end with other than success.
//!
//! Every error says which of two it is: the operation surely did **not** happen, or nobody knows. (That it happened
//! is no error.) Callers never guess: an unknown PUT is sent again with the same bytes, an unknown transaction is read back.

use thiserror::Error;

/// Whether a failed operation may have taken effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Certainty {
    /// It did not and never will.
    NotDone,
    /// It may have, or may yet.
    Unknown,
}

/// What kind of failure, for metrics and for pacing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// 503 SlowDown and its like: slow down.
    Throttled,
    /// No answer in time.
    Timeout,
    /// Connection refused or broken, 5xx, 409.
    Unavailable,
    /// Credentials or policy. A skewed clock too (its outcome is unknown).
    Denied,
    /// The device or quota is full.
    Full,
    /// Bytes that are not what was written.
    Corrupt,
    /// The lease that it named has ended, or never was.
    LeaseEnded,
    /// The store is not the one that it was: another one answers, or an older state of it. Nothing that rests on it may
    /// be acknowledged any more; the process ends.
    NotTheSame,
    /// Anything else.
    Other,
}

impl FailureKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [FailureKind; 9] = [
        FailureKind::Throttled,
        FailureKind::Timeout,
        FailureKind::Unavailable,
        FailureKind::Denied,
        FailureKind::Full,
        FailureKind::Corrupt,
        FailureKind::LeaseEnded,
        FailureKind::NotTheSame,
        FailureKind::Other,
    ];

    /// Its label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Throttled => "throttled",
            FailureKind::Timeout => "timeout",
            FailureKind::Unavailable => "unavailable",
            FailureKind::Denied => "denied",
            FailureKind::Full => "full",
            FailureKind::Corrupt => "corrupt",
            FailureKind::LeaseEnded => "lease_ended",
            FailureKind::NotTheSame => "not_the_same",
            FailureKind::Other => "other",
        }
    }
}

/// A failed store operation.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("{kind:?} ({certainty:?}): {detail}")]
pub struct StoreError {
    /// Whether it may have happened.
    pub certainty: Certainty,
    /// What failed.
    pub kind: FailureKind,
    /// For people.
    pub detail: String,
}

impl StoreError {
    /// An error whose outcome nobody knows.
    pub fn unknown(kind: FailureKind, detail: impl Into<String>) -> Self {
        StoreError { certainty: Certainty::Unknown, kind, detail: detail.into() }
    }
    /// An error that surely left nothing behind.
    pub fn not_done(kind: FailureKind, detail: impl Into<String>) -> Self {
        StoreError { certainty: Certainty::NotDone, kind, detail: detail.into() }
    }
}

impl StoreError {
    /// A failed file operation named `what`.
    pub fn from_io(certainty: Certainty, what: &str, error: &std::io::Error) -> StoreError {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => FailureKind::Full,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FailureKind::Denied,
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => FailureKind::Corrupt,
            _ => FailureKind::Other,
        };
        StoreError { certainty, kind, detail: format!("{what}: {error}") }
    }
}
