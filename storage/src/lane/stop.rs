//! Graceful stop (PROTOCOL.md section 4): drain, fence the own log, checkpoint, seal.
//!
//! Invariants:
//! 1. The fence is put at the next sequence only when everything sealed is committed and nothing is undecided.
//! 2. SEALED is written only after a fence was seen at that sequence.

use super::config::backoff;
use super::core::LaneCore;
use super::events::Effect;
use super::inflight::{Stands, judge};
use super::leadership::{AfterDrain, Role};
use super::messages::LaneReport;
use crate::env::Mono;
use crate::format::object::{ObjectHeader, ObjectKind, encode_header};
use crate::ids::{Seq, TopicPartition};
use crate::store_error::StoreError;
use crate::wal::PutOutcome;
use crate::wrong::{Wrong, wrong};
use bytes::Bytes;

/// How far a stop is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Draining,
    Fencing,
    Looking,
    RetryAt(Mono),
    FenceSeen,
}

/// A graceful stop under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stop {
    stage: Stage,
    attempts: u32,
}

impl Stop {
    /// Whether a fence was seen at the end.
    pub(super) fn fence_seen(&self) -> bool {
        self.stage == Stage::FenceSeen
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.stage {
            Stage::RetryAt(at) => Some(at),
            _ => None,
        }
    }

    fn fences(&self) -> bool {
        matches!(self.stage, Stage::Fencing | Stage::Looking)
    }
}

impl LaneCore {
    /// The control task wants the lane to stop.
    pub(super) fn on_stop(&mut self) {
        if self.stop.is_some() {
            return;
        }
        self.stop = Some(Stop { stage: Stage::Draining, attempts: 0 });
        self.wanted.clear();
        self.births.clear();
        if !self.is_open() {
            return self.stopped(false);
        }
        let led: Vec<TopicPartition> = self.partitions.keys().copied().collect();
        for partition in led {
            if self.partitions[&partition].role == Role::Leader {
                self.drain(partition, AfterDrain::Stop);
            }
        }
    }

    fn quiet(&self) -> bool {
        let settled = |role: Role| {
            matches!(role, Role::Draining { then: AfterDrain::Stop, drained: true } | Role::Released { .. })
        };
        let drained = self.moving.iter().all(|p| self.partitions.get(p).is_none_or(|led| settled(led.role)));
        self.joining.is_empty()
            && (self.flights.is_empty() || wrong(Wrong::GracefulSealBeforeDrained))
            // A look under way would find the fence that is to be put.
            && self.probing.is_none()
            && self.claimable.is_empty()
            && self.transactions.is_empty()
            && !self.checkpointing.under_way()
            && (drained || wrong(Wrong::GracefulSealBeforeDrained))
    }

    /// Goes on with the stop.
    pub(super) fn advance_stop(&mut self) {
        let Some(stop) = self.stop else { return };
        match stop.stage {
            Stage::Draining if self.quiet() => {
                // Read and never claimed: the last checkpoint need not hold it, unless this log still does. (Then it
                // was released and is being taken back; at epoch + 1 in a checkpoint it can be acquired as well.)
                let own = self.wid;
                self.partitions.retain(|_, led| led.role != Role::Read || led.record.wid == own);
                self.start_checkpoint(true);
                self.put_fence();
            }
            Stage::RetryAt(at) if at <= self.now.mono => self.put_fence(),
            _ => {}
        }
    }

    fn put_fence(&mut self) {
        let Some(stop) = &mut self.stop else { return };
        stop.stage = Stage::Fencing;
        stop.attempts += 1;
        let seq = self.flights.next_seq();
        let header = ObjectHeader {
            kind: ObjectKind::Fence,
            wid: self.wid,
            writer: self.identity.writer(),
            seq,
            sealed_at: self.now.wall,
        };
        self.effects.push_back(Effect::PutWal {
            wid: self.wid,
            seq,
            slices: vec![encode_header(&header)],
            hedge: false,
        });
    }

    /// Whether answers about `seq` belong to the fence of the stop.
    pub(super) fn is_own_fence(&self, seq: Seq) -> bool {
        self.stop.is_some_and(|stop| stop.fences()) && seq == self.flights.next_seq()
    }

    /// The put of the fence ended.
    pub(super) fn on_fence_put(&mut self, seq: Seq, result: &Result<PutOutcome, StoreError>) {
        let retry = self.now.mono.plus(backoff(self.stop.map_or(1, |stop| stop.attempts), self.random()));
        let Some(stop) = &mut self.stop else { return };
        match result {
            Ok(PutOutcome::Stored) => stop.stage = Stage::FenceSeen,
            Ok(PutOutcome::AlreadyExists) => {
                stop.stage = Stage::Looking;
                self.effects.push_back(Effect::ReadHeader { wid: self.wid, seq });
            }
            Err(_) => stop.stage = Stage::RetryAt(retry),
        }
    }

    /// The header at the fence's place was read.
    pub(super) fn on_fence_header(&mut self, seq: Seq, result: &Result<Option<Bytes>, StoreError>) {
        let retry = self.now.mono.plus(backoff(self.stop.map_or(1, |stop| stop.attempts), self.random()));
        let me = self.identity.writer();
        let Some(stop) = &mut self.stop else { return };
        let Ok(header) = result else {
            stop.stage = Stage::RetryAt(retry);
            return;
        };
        match judge(self.wid, seq, me, header.as_ref()) {
            Stands::Fence => stop.stage = Stage::FenceSeen,
            Stands::Nothing => stop.stage = Stage::RetryAt(retry),
            Stands::Ours => self.abort(format!("own data at {seq}, which was never sent")),
            Stands::Foreign(what) => self.abort(format!("{}/{seq} holds {what}", self.wid)),
        }
    }

    /// The stop is over.
    pub(super) fn stopped(&mut self, sealed: bool) {
        self.ended = true;
        self.report(LaneReport::Stopped { sealed });
    }
}
