//! A lane that may have been replaced looks at its next sequence: a FENCE there is the end of its log (PROTOCOL.md
//! section 5). It has no safety role; it ends stale reads by consumers of a broker nobody produces to, and tells shards
//! that ask whether an offset that they do not have can be somebody else's.
//!
//! 1. A shard is told that the log had not ended by a look that began after its question came and found no fence, or once an
//!    object is durable that was sent after it: whoever takes partitions over has a fence at or below that sequence first,
//!    at the first one that is no data.
//! 2. A question is answered once, unless FENCED comes first.

use super::core::LaneCore;
use super::events::Effect;
use super::inflight::{Stands, judge};
use super::messages::ToShard;
use crate::ids::{Seq, ShardIndex};
use crate::store_error::StoreError;
use bytes::Bytes;
use std::collections::BTreeMap;

/// What shards ask.
#[derive(Default)]
pub(super) struct Looks {
    asked: BTreeMap<ShardIndex, Asked>,
}

struct Asked {
    /// The first sequence that was not yet sent then.
    next: Seq,
    /// The look that is under way began after it.
    begun: bool,
}

impl Looks {
    pub(super) fn clear(&mut self) {
        self.asked.clear();
    }
}

impl LaneCore {
    /// Looks, unless what is in flight will tell as well.
    pub(super) fn probe(&mut self) {
        if self.is_open() && self.stop.is_none() && self.flights.is_empty() && self.probing.is_none() {
            let seq = self.flights.next_seq();
            self.probing = Some(seq);
            self.looks.asked.values_mut().for_each(|asked| asked.begun = true);
            self.effects.push_back(Effect::ReadHeader { wid: self.wid, seq });
        }
    }

    /// Whether an answer about `seq` may be that of a look.
    pub(super) fn is_probe(&self, seq: Seq) -> bool {
        self.probing == Some(seq)
    }

    /// The look ended. Anything but a fence decides nothing for the log: what was put there meanwhile has an answer of its
    /// own.
    pub(super) fn on_probed(&mut self, seq: Seq, result: &Result<Option<Bytes>, StoreError>) {
        self.probing = None;
        let me = self.identity.writer();
        let stands = result.as_ref().map(|header| judge(self.wid, seq, me, header.as_ref()));
        if matches!(stands, Ok(Stands::Fence)) {
            return self.fenced();
        }
        let unfenced = matches!(stands, Ok(Stands::Nothing | Stands::Ours));
        self.answer_looks(|asked| asked.begun.then_some(unfenced));
    }

    /// A shard asks.
    pub(super) fn on_look(&mut self, shard: ShardIndex, generation: u64) {
        if generation == self.generation {
            self.looks.asked.insert(shard, Asked { next: self.flights.next_seq(), begun: false });
        }
    }

    /// Answers what can be answered, and looks for the others.
    pub(super) fn advance_looks(&mut self) {
        if self.looks.asked.is_empty() {
            return;
        }
        let stops = self.stop.is_some();
        let durable = self.flights.commit_point();
        self.answer_looks(|asked| (durable > asked.next).then_some(true).or(stops.then_some(false)));
        if !self.looks.asked.is_empty() {
            self.probe();
        }
    }

    fn answer_looks(&mut self, answer: impl Fn(&Asked) -> Option<bool>) {
        let effects = &mut self.effects;
        self.looks.asked.retain(|&shard, asked| {
            let Some(unfenced) = answer(asked) else { return true };
            effects.push_back(Effect::ToShard(shard, ToShard::Looked { unfenced }));
            false
        });
    }
}
