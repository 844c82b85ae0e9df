//! Whether it is still the same etcd that answers (PROTOCOL.md section 5): a pure check of every answer's header.
//!
//! Invariants:
//! 1. The first answer says which cluster it is; any answer of another one is an end.
//! 2. A linearizable request that was sent after an answer of revision r had arrived is answered at r or later. Less means
//!    that etcd lost what it had acknowledged: it was restored from a backup, or its data were replaced.
//! 3. Once it was not the same, nothing is asked or answered any more.
//!
//! Not compared: revisions of watches, of leases and of requests that were under way together.

use super::proto::Header;
use crate::store_error::{FailureKind, StoreError};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Called once, before the answer that shows it is given to anybody.
pub type OnOther = Arc<dyn Fn(&StoreError) + Send + Sync>;

/// What is known of the etcd.
pub(super) struct Guard {
    /// 0: no answer yet.
    cluster: AtomicU64,
    /// The highest revision that a linearizable answer had.
    revision: AtomicI64,
    other: OnceLock<StoreError>,
    on_other: OnOther,
}

/// The least that the answer to a request may say.
#[derive(Clone, Copy)]
pub(super) struct AtLeast(i64);

/// How an answer's revision is to be taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Of a linearizable request.
    Linearizable,
    /// It need not be the newest.
    Any,
}

impl Guard {
    pub(super) fn new(on_other: OnOther) -> Guard {
        Guard { cluster: AtomicU64::new(0), revision: AtomicI64::new(0), other: OnceLock::new(), on_other }
    }

    /// To be called before a request is sent.
    pub(super) fn asking(&self) -> Result<AtLeast, StoreError> {
        match self.other.get() {
            Some(other) => Err(other.clone()),
            None => Ok(AtLeast(self.revision.load(Ordering::SeqCst))),
        }
    }

    /// To be called with every answer before anything is concluded from it.
    pub(super) fn answered(&self, header: Option<&Header>, at_least: AtLeast, order: Order) -> Result<(), StoreError> {
        let Some(header) = header else {
            return Err(StoreError::unknown(FailureKind::Corrupt, "an answer has no header; is this an etcd?"));
        };
        let known = match self.cluster.compare_exchange(0, header.cluster_id, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => header.cluster_id,
            Err(known) => known,
        };
        if known != header.cluster_id {
            return Err(self.is_other(format!(
                "cluster {:x} answers where {known:x} did; its endpoints belong to several etcds, or it was made anew",
                header.cluster_id
            )));
        }
        if order == Order::Linearizable {
            if header.revision < at_least.0 {
                return Err(self.is_other(format!(
                    "member {:x} answers at revision {}, but {} was answered before; it was restored from a backup or \
                     lost its data",
                    header.member_id, header.revision, at_least.0
                )));
            }
            self.revision.fetch_max(header.revision, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The cluster that answers; 0 before the first answer.
    pub(super) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::SeqCst)
    }

    /// The newest revision seen.
    pub(super) fn revision(&self) -> i64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// From now on it is not the same.
    pub(super) fn is_other(&self, detail: String) -> StoreError {
        let mut first = false;
        let error = self.other.get_or_init(|| {
            first = true;
            // What the request itself did is not known: the answer is that of a stranger.
            StoreError::unknown(FailureKind::NotTheSame, format!("the etcd is not the one that it was: {detail}"))
        });
        if first {
            (self.on_other)(error);
        }
        error.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn header(cluster_id: u64, revision: i64) -> Header {
        Header { cluster_id, member_id: 1, revision }
    }

    fn guard() -> (Guard, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        (
            Guard::new(Arc::new(move |_| {
                counted.fetch_add(1, Ordering::SeqCst);
            })),
            calls,
        )
    }

    fn ends(guard: &Guard, calls: &AtomicUsize, header: Header, at_least: AtLeast, order: Order) {
        let error = guard.answered(Some(&header), at_least, order).unwrap_err();
        assert_eq!(error.kind, FailureKind::NotTheSame);
        assert_eq!(guard.asking().err().map(|error| error.kind), Some(FailureKind::NotTheSame), "it stays so");
        guard.is_other("again".to_owned());
        assert_eq!(calls.load(Ordering::SeqCst), 1, "it is told once");
    }

    #[test]
    fn an_answer_of_another_cluster_is_the_end() {
        let (guard, calls) = guard();
        let sent = guard.asking().unwrap();
        assert_eq!(guard.answered(Some(&header(7, 10)), sent, Order::Any), Ok(()));
        ends(&guard, &calls, header(8, 10), sent, Order::Any);
    }

    #[test]
    fn an_answer_older_than_one_that_arrived_before_the_request_was_sent_is_the_end() {
        let (guard, calls) = guard();
        let before = guard.asking().unwrap();
        assert_eq!(guard.answered(Some(&header(7, 10)), before, Order::Linearizable), Ok(()));
        let after = guard.asking().unwrap();
        assert_eq!(guard.answered(Some(&header(7, 9)), before, Order::Linearizable), Ok(()), "under way together");
        assert_eq!(guard.answered(Some(&header(7, 9)), after, Order::Any), Ok(()), "a lease's or a watch's");
        assert_eq!(guard.answered(Some(&header(7, 10)), after, Order::Linearizable), Ok(()), "nothing changed");
        ends(&guard, &calls, header(7, 9), after, Order::Linearizable);
    }

    #[test]
    fn an_answer_without_a_header_decides_nothing() {
        let (guard, calls) = guard();
        let sent = guard.asking().unwrap();
        assert_eq!(guard.answered(None, sent, Order::Any).unwrap_err().kind, FailureKind::Corrupt);
        assert!(guard.asking().is_ok());
        assert_eq!(calls.load(Ordering::SeqCst), 0);
    }
}
