//! The replies of one connection, put in request order. Pure.
//!
//! Invariants:
//! 1. Replies come out in the order in which their requests were opened, each once.
//! 2. Nothing comes out behind a [`Reply::Close`].
//! 3. Every request is answered exactly once; an answer to none that is open is a broken invariant.

use crate::shard::events::{Reply, RequestNumber};
use bytes::Bytes;
use std::collections::VecDeque;

/// What a connection still owes.
#[derive(Debug, Default)]
pub struct Replies {
    /// Number of the request at the front of `slots`.
    first: u64,
    /// Open requests by number; `Some` once answered.
    slots: VecDeque<Option<Reply>>,
    /// Answered ones among the slots.
    answered: usize,
    /// Bytes of those.
    waiting_bytes: usize,
    /// Front request that was already reported as blocking.
    reported: Option<RequestNumber>,
    /// Set once a close came out.
    closed: Option<&'static str>,
}

impl Replies {
    /// Opens the next request.
    pub fn open(&mut self) -> RequestNumber {
        let number = self.first + self.slots.len() as u64;
        self.slots.push_back(None);
        RequestNumber(number)
    }

    /// Answers a request.
    ///
    /// # Panics
    /// If it is not open or was answered before (invariant 3).
    pub fn answer(&mut self, request: RequestNumber, reply: Reply) {
        let index = request.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let slot = index.and_then(|index| self.slots.get_mut(index)).expect("only open requests are answered");
        assert!(slot.is_none(), "a request is answered once");
        self.waiting_bytes += length(&reply);
        self.answered += 1;
        *slot = Some(reply);
    }

    /// Moves the slices of all replies that may leave to `out`, in order, and says how many bytes those are.
    pub fn take_ready(&mut self, out: &mut VecDeque<Bytes>) -> usize {
        let mut taken = 0;
        while self.closed.is_none() && matches!(self.slots.front(), Some(Some(_))) {
            let reply = self.slots.pop_front().flatten().expect("just looked");
            self.first += 1;
            self.answered -= 1;
            let bytes = length(&reply);
            self.waiting_bytes -= bytes;
            taken += bytes;
            match reply {
                Reply::Frame(slices) => out.extend(slices.into_iter().filter(|slice| !slice.is_empty())),
                Reply::Silent => {}
                Reply::Close(why) => self.closed = Some(why),
            }
        }
        taken
    }

    /// The oldest open request, if a later one has its reply ready and waits for it: reported once per request.
    /// A parked fetch ends early then.
    pub fn newly_blocking(&mut self) -> Option<RequestNumber> {
        let front = RequestNumber(self.first);
        let blocks = self.answered > 0 && matches!(self.slots.front(), Some(None));
        if !blocks || self.reported == Some(front) {
            return None;
        }
        self.reported = Some(front);
        Some(front)
    }

    /// Requests that are open or whose reply has not come out.
    pub fn in_flight(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of replies that wait for earlier ones.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Why the connection closes after what came out so far, once it does.
    pub fn closed(&self) -> Option<&'static str> {
        self.closed
    }
}

/// Bytes that a reply sends.
fn length(reply: &Reply) -> usize {
    match reply {
        Reply::Frame(slices) => slices.iter().map(Bytes::len).sum(),
        Reply::Silent | Reply::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(text: &str) -> Reply {
        Reply::Frame(vec![Bytes::copy_from_slice(text.as_bytes())])
    }

    #[test]
    fn nothing_leaves_behind_a_close() {
        let mut replies = Replies::default();
        let [a, b, c] = [replies.open(), replies.open(), replies.open()];
        replies.answer(c, frame("late"));
        replies.answer(b, Reply::Close("broken request"));
        let mut out = VecDeque::new();
        assert_eq!(replies.take_ready(&mut out), 0);
        replies.answer(a, frame("first"));
        assert_eq!(replies.take_ready(&mut out), 5);
        assert_eq!(out, [Bytes::from_static(b"first")]);
        assert_eq!(replies.closed(), Some("broken request"));
        assert_eq!(replies.take_ready(&mut out), 0);
    }

    #[test]
    fn a_blocking_request_is_reported_once_and_so_is_the_next() {
        let mut replies = Replies::default();
        let [a, b, c] = [replies.open(), replies.open(), replies.open()];
        assert_eq!(replies.newly_blocking(), None);
        replies.answer(c, Reply::Silent);
        assert_eq!(replies.newly_blocking(), Some(a));
        assert_eq!(replies.newly_blocking(), None);
        replies.answer(a, Reply::Silent);
        replies.take_ready(&mut VecDeque::new());
        assert_eq!(replies.newly_blocking(), Some(b));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Open,
        Answer(prop::sample::Index, u8),
        Take,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Open),
            (any::<prop::sample::Index>(), 0..4_u8).prop_map(|(which, kind)| Step::Answer(which, kind)),
            Just(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn replies_leave_in_request_order_whatever_the_order_of_answers(steps in prop::collection::vec(step(), 0..200)) {
            let mut replies = Replies::default();
            let mut unanswered = Vec::new();
            let mut silent = std::collections::BTreeSet::new();
            let mut out = VecDeque::new();
            for step in steps {
                match step {
                    Step::Open => unanswered.push(replies.open()),
                    Step::Answer(which, kind) if !unanswered.is_empty() => {
                        let request = unanswered.remove(which.index(unanswered.len()));
                        if kind == 0 {
                            silent.insert(request);
                            replies.answer(request, Reply::Silent);
                        } else {
                            let slices = vec![Bytes::copy_from_slice(&request.0.to_be_bytes()), Bytes::new()];
                            replies.answer(request, Reply::Frame(slices));
                        }
                    }
                    Step::Answer(..) => {}
                    Step::Take => {
                        replies.take_ready(&mut out);
                    }
                }
            }
            for request in unanswered {
                replies.answer(request, Reply::Silent);
                silent.insert(request);
            }
            replies.take_ready(&mut out);
            prop_assert_eq!((replies.in_flight(), replies.waiting_bytes()), (0, 0));
            let opened = replies.open().0;
            let expected: Vec<u64> = (0..opened).filter(|n| !silent.contains(&RequestNumber(*n))).collect();
            let left: Vec<u64> = out.iter().map(|slice| u64::from_be_bytes(slice[..].try_into().unwrap())).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
