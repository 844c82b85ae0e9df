//! Blocks of producer ids from `/pid`: each id is given out once, by whatever process.
//!
//! Invariants:
//! 1. A block is given to a shard only after the transaction that took it is known to have happened. A block whose
//!    transaction ended unknown is never given out: numbers are lost, not repeated.
//! 2. Lanes learn the high water before a shard learns its block, so that a checkpoint can't fall behind it.

use super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::messages::{FromControl, Token};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::ShardIndex;
use millrace_storage::lane::LaneCommand;
use millrace_storage::meta::{Compare, Op, Txn, TxnOutcome, keys};
use std::collections::VecDeque;

/// Ids in a block.
pub(super) const BLOCK_IDS: i64 = 1_000;

/// Failed tries after which those who wait are told so.
const TRIES: u32 = 4;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    /// Reading `/pid`.
    Reading,
    /// Taking this many blocks from `next` on.
    Taking(usize),
    /// Until the timer.
    Pausing,
}

/// The part of the core that takes blocks.
pub(super) struct ProducerIds {
    /// First id not given out, as last read or written.
    next: i64,
    stored: Option<Bytes>,
    step: Step,
    failures: u32,
    waiting: VecDeque<(ShardIndex, Token)>,
    lanes: u16,
}

impl ProducerIds {
    /// Starts from the value of `/pid`; says it to the lanes.
    pub(super) fn new(stored: Option<Bytes>, lanes: u16, sink: &mut Sink) -> ProducerIds {
        let mut ids =
            ProducerIds { next: 0, stored: None, step: Step::Idle, failures: 0, waiting: VecDeque::new(), lanes };
        ids.read(stored);
        ids.tell_lanes(sink);
        ids
    }

    /// How many questions wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// A shard wants a block.
    pub(super) fn ask(&mut self, shard: ShardIndex, token: Token, sink: &mut Sink) {
        self.waiting.push_back((shard, token));
        self.go_on(sink);
    }

    fn go_on(&mut self, sink: &mut Sink) {
        if self.step != Step::Idle || self.waiting.is_empty() {
            return;
        }
        let blocks = self.waiting.len();
        let after = self.next + BLOCK_IDS * i64::try_from(blocks).expect("bounded by the mailboxes");
        let key = keys::PRODUCER_IDS.to_owned();
        let compare = match &self.stored {
            Some(value) => Compare::Value(key.clone(), value.clone()),
            None => Compare::Absent(key.clone()),
        };
        sink.txn(Owner::ProducerIds, Txn { compares: vec![compare], ops: vec![Op::Put(key, decimal(after))] });
        self.step = Step::Taking(blocks);
    }

    /// The call that was under way ended.
    pub(super) fn on_store(&mut self, answer: StoreAnswer, sink: &mut Sink) {
        match (self.step, answer) {
            (Step::Taking(blocks), StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => self.took(blocks, sink),
            (Step::Taking(_), StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => self.read_again(sink),
            (Step::Reading, StoreAnswer::Get(Ok(mut snapshot))) => {
                self.read(snapshot.values.remove(0).map(|found| found.value));
                self.step = Step::Idle;
                self.go_on(sink);
            }
            (_, StoreAnswer::Txn(Err(_)) | StoreAnswer::Get(Err(_))) => self.failed(sink),
            (_, other) => unreachable!("producer ids never asked for {other:?}"),
        }
    }

    fn took(&mut self, blocks: usize, sink: &mut Sink) {
        let mut first = self.next;
        self.next += BLOCK_IDS * i64::try_from(blocks).expect("bounded by the mailboxes");
        self.stored = Some(decimal(self.next));
        self.failures = 0;
        self.tell_lanes(sink);
        for (shard, token) in self.waiting.drain(..blocks) {
            sink.answer(shard, FromControl::ProducerIds { token, first: Ok(first) });
            first += BLOCK_IDS;
        }
        self.step = Step::Idle;
        self.go_on(sink);
    }

    fn failed(&mut self, sink: &mut Sink) {
        self.failures += 1;
        if self.failures >= TRIES {
            for (shard, token) in self.waiting.drain(..) {
                let first = Err(ErrorCode::CoordinatorNotAvailable);
                sink.answer(shard, FromControl::ProducerIds { token, first });
            }
        }
        self.step = Step::Pausing;
        sink.retry(Owner::ProducerIds, self.failures);
    }

    /// The pause is over.
    pub(super) fn on_timer(&mut self, sink: &mut Sink) {
        if self.step == Step::Pausing {
            self.read_again(sink);
        }
    }

    fn read_again(&mut self, sink: &mut Sink) {
        sink.call(Owner::ProducerIds, StoreCall::Get(vec![keys::PRODUCER_IDS.to_owned()]));
        self.step = Step::Reading;
    }

    fn read(&mut self, stored: Option<Bytes>) {
        self.next = stored.as_deref().map_or(0, |value| {
            let text = std::str::from_utf8(value).ok();
            text.and_then(|text| text.parse().ok()).expect("/pid holds a number: only control tasks write it")
        });
        self.stored = stored;
    }

    fn tell_lanes(&self, sink: &mut Sink) {
        for lane in 0..self.lanes {
            sink.lane(lane, LaneCommand::ProducerIdHighWater(self.next));
        }
    }
}

fn decimal(number: i64) -> Bytes {
    Bytes::from(number.to_string())
}
