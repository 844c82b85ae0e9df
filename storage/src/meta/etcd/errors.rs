//! What a failed call says: whether it may have been done, of what kind it is, and what to do with the endpoint.

use crate::store_error::{Certainty, FailureKind, StoreError};
use std::error::Error;
use tonic::{Code, ConnectError, Status};

/// A failed call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failed {
    pub(super) error: StoreError,
    /// What may help.
    pub(super) remedy: Remedy,
}

/// What may help against a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Remedy {
    /// Another endpoint.
    OtherEndpoint,
    /// A new token: the call was refused before anything was done.
    NewToken,
    /// A shorter answer.
    AskForLess,
    /// Nothing.
    None,
}

/// etcd's words for a token that it does not know (any more), and for one from before a change of users.
const STALE_TOKEN: [&str; 2] = ["invalid auth token", "revision of auth store is old"];

/// etcd's words for a name and password that are wrong, and for none where they are needed.
const NO_USER: [&str; 2] = ["authentication failed", "user name is empty"];

/// The crate's words for an answer that is larger than we take.
const TOO_LARGE: &str = "message length too large";

/// Reads the failure of a call to `endpoint`.
pub(super) fn of_status(status: &Status, endpoint: &str) -> Failed {
    use Certainty::{NotDone, Unknown};
    let never_sent = never_sent(status);
    let text = status.message();
    let (certainty, kind, remedy) = match status.code() {
        _ if never_sent => (NotDone, FailureKind::Unavailable, Remedy::OtherEndpoint),
        _ if STALE_TOKEN.iter().any(|words| text.contains(words)) => (NotDone, FailureKind::Denied, Remedy::NewToken),
        Code::OutOfRange if text.contains(TOO_LARGE) => (Unknown, FailureKind::Other, Remedy::AskForLess),
        Code::ResourceExhausted if text.contains("database space exceeded") => {
            (NotDone, FailureKind::Full, Remedy::None)
        }
        // etcd has too much under way and refused before it began.
        Code::ResourceExhausted => (NotDone, FailureKind::Throttled, Remedy::OtherEndpoint),
        Code::PermissionDenied | Code::Unauthenticated => (NotDone, FailureKind::Denied, Remedy::None),
        Code::InvalidArgument if NO_USER.iter().any(|words| text.contains(words)) => {
            (NotDone, FailureKind::Denied, Remedy::None)
        }
        Code::NotFound if text.contains("lease not found") => (NotDone, FailureKind::LeaseEnded, Remedy::None),
        Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::Unimplemented => (NotDone, FailureKind::Other, Remedy::None),
        Code::DeadlineExceeded => (Unknown, FailureKind::Timeout, Remedy::OtherEndpoint),
        // A broken connection, a member that lost its leader or stops: what was sent may have been proposed.
        Code::Ok
        | Code::Unavailable
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => (Unknown, FailureKind::Unavailable, Remedy::OtherEndpoint),
    };
    let detail = format!("etcd at {endpoint}: {}{}", said(status), advice(kind, text));
    Failed { error: StoreError { certainty, kind, detail }, remedy }
}

/// A call to `endpoint` that was not answered in time.
pub(super) fn silent(endpoint: &str, limit: std::time::Duration) -> Failed {
    let detail = format!("etcd at {endpoint} gave no answer in {limit:?}");
    Failed { error: StoreError::unknown(FailureKind::Timeout, detail), remedy: Remedy::OtherEndpoint }
}

/// Whether there was no connection to send the call on.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The message with what caused it.
fn said(status: &Status) -> String {
    let mut text = format!("{:?} {}", status.code(), status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

fn advice(kind: FailureKind, text: &str) -> &'static str {
    match kind {
        FailureKind::Full => {
            "; it takes no writes until space is made: compact and defragment it, raise --quota-backend-bytes, then clear \
             the alarm (etcdctl alarm disarm)"
        }
        FailureKind::Denied if text.contains("user name is empty") => "; give --etcd-user and its password",
        FailureKind::Denied => "; check --etcd-user, its password and the permissions of its roles on the namespace",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: Code, text: &str) -> (Certainty, FailureKind, Remedy) {
        let failed = of_status(&Status::new(code, text), "a:1");
        (failed.error.certainty, failed.error.kind, failed.remedy)
    }

    #[test]
    fn etcds_refusals_are_not_done_and_everything_unclear_is_unknown() {
        use Certainty::{NotDone, Unknown};
        use FailureKind::{Denied, Full, LeaseEnded, Other, Throttled, Timeout, Unavailable};
        for (code, text, expected) in [
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", (NotDone, Full, Remedy::None)),
            (Code::ResourceExhausted, "etcdserver: too many requests", (NotDone, Throttled, Remedy::OtherEndpoint)),
            (Code::Unauthenticated, "etcdserver: invalid auth token", (NotDone, Denied, Remedy::NewToken)),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old", (NotDone, Denied, Remedy::NewToken)),
            (Code::InvalidArgument, "etcdserver: user name is empty", (NotDone, Denied, Remedy::None)),
            (Code::InvalidArgument, "etcdserver: request is too large", (NotDone, Other, Remedy::None)),
            (Code::PermissionDenied, "etcdserver: permission denied", (NotDone, Denied, Remedy::None)),
            (Code::NotFound, "etcdserver: requested lease not found", (NotDone, LeaseEnded, Remedy::None)),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9",
                (Unknown, Other, Remedy::AskForLess),
            ),
            (Code::Unavailable, "etcdserver: leader changed", (Unknown, Unavailable, Remedy::OtherEndpoint)),
            (Code::Unavailable, "etcdserver: request timed out", (Unknown, Unavailable, Remedy::OtherEndpoint)),
            (Code::DeadlineExceeded, "", (Unknown, Timeout, Remedy::OtherEndpoint)),
            (Code::Internal, "h2 protocol error", (Unknown, Unavailable, Remedy::OtherEndpoint)),
        ] {
            assert_eq!(failed(code, text), expected, "{code:?} {text}");
        }
    }

    #[test]
    fn a_full_database_is_told_with_what_to_do() {
        let status = Status::new(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        let detail = of_status(&status, "a:1").error.detail;
        assert!(detail.contains("a:1") && detail.contains("alarm disarm"), "{detail}");
    }
}
