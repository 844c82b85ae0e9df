//! How a group becomes durable: whole, one write at a time; what changes meanwhile goes into the next.
//!
//! 1. An answer leaves when the write that holds all that it tells of is durable.
//! 2. After a failed write the group is what was durable last, of whichever protocol; everyone whose answer waits gets the
//!    error.

use super::super::coordinator::{Coordinator, Purpose, WriteToken};
use super::super::group::{Group, GroupState};
use super::super::record::decode_group;
use super::super::{Answer, JoinAnswer, SyncAnswer, Ticket};
use super::{HeartbeatAnswer, Refusal, record};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::meta::keys;

/// Requests whose answers wait for a write.
pub(in super::super) type Parked = Vec<(Ticket, Answer)>;

/// What is answered instead when that which `answer` tells of did not become durable.
pub(in super::super) fn refused(answer: Answer, error: ErrorCode) -> Answer {
    match answer {
        Answer::ConsumerHeartbeat(_) => Answer::ConsumerHeartbeat(HeartbeatAnswer::failed(Refusal::new(error, ""))),
        Answer::Join(join) => Answer::Join(JoinAnswer::failed(error, join.member)),
        Answer::Sync(_) => Answer::Sync(SyncAnswer::failed(error)),
        Answer::Leave(_) | Answer::Code(_) => Answer::Code(error),
    }
}

/// What of a group is durable, and what is on its way.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in super::super) struct Journal {
    /// The record to go back to; `None`: the group has no members then.
    pub(super) durable: Option<Bytes>,
    writing: Option<WriteToken>,
    /// Changed since the write under way was begun, or without one.
    dirty: bool,
    parked: Parked,
}

impl Journal {
    /// A group that is stored as this.
    pub(super) fn of(durable: Bytes) -> Journal {
        Journal { durable: Some(durable), ..Journal::default() }
    }

    /// Whether a write is under way.
    pub(in super::super) fn is_busy(&self) -> bool {
        self.writing.is_some()
    }

    /// Bytes that it keeps.
    pub(in super::super) fn memory(&self) -> usize {
        self.durable.as_ref().map_or(0, Bytes::len)
    }

    /// Takes the requests that wait for the next write.
    pub(in super::super) fn take_parked(&mut self) -> Parked {
        std::mem::take(&mut self.parked)
    }
}

impl Coordinator {
    /// Answers once everything that the group is now is durable.
    pub(super) fn answer_change(&mut self, slot: u16, name: &str, changed: bool, (ticket, answer): (Ticket, Answer)) {
        let journal = &mut self.consumer_mut(slot, name).expect("its member asks").journal;
        journal.dirty |= changed;
        if journal.dirty {
            journal.parked.push((ticket, answer));
            return self.begin_write(slot, name);
        }
        match journal.writing {
            None => self.answer(ticket, answer),
            Some(token) => match self.purpose_mut(token) {
                Purpose::Consumer { answers, .. } => answers.push((ticket, answer)),
                other => unreachable!("a consumer group's write is for {other:?}"),
            },
        }
    }

    /// The group changed while nobody asked.
    pub(super) fn store_change(&mut self, slot: u16, name: &str) {
        self.consumer_mut(slot, name).expect("what changed exists").journal.dirty = true;
        self.begin_write(slot, name);
    }

    fn begin_write(&mut self, slot: u16, name: &str) {
        let consumer = self.consumer_mut(slot, name).expect("looked at by the caller");
        if !consumer.journal.dirty || consumer.journal.writing.is_some() {
            return;
        }
        let value = record::encode(consumer);
        consumer.journal.dirty = false;
        let answers = consumer.journal.take_parked();
        let purpose = Purpose::Consumer { group: name.to_owned(), record: value.clone(), answers };
        let token = self.write(slot, vec![(keys::group(slot, name), Some(value))], purpose);
        self.consumer_mut(slot, name).expect("looked at above").journal.writing = Some(token);
    }

    /// Writes the record of a group that is about to become a classic one, or already may be one in all but form: what
    /// is read of it after a crash is this. `more` leaves with the answers that wait.
    pub(super) fn write_last(&mut self, slot: u16, name: &str, more: Option<(Ticket, Answer)>) {
        let consumer = self.consumer_mut(slot, name).expect("looked at by the caller");
        let value = record::encode(consumer);
        let mut answers = consumer.journal.take_parked();
        answers.extend(more);
        self.write(slot, vec![(keys::group(slot, name), Some(value))], Purpose::ChangedOver { answers });
    }

    /// A write of a group ended.
    pub(in super::super) fn on_consumer_written(
        &mut self,
        now: Mono,
        (slot, name): (u16, &str),
        token: WriteToken,
        (record, mut answers): (Bytes, Parked),
        result: Result<(), ErrorCode>,
    ) {
        let consumer = self.consumer_mut(slot, name);
        // The group may have changed its protocol meanwhile: then what it is now is being written after this.
        let Some(consumer) = consumer.filter(|consumer| consumer.journal.writing == Some(token)) else {
            return self.answer_parked(answers, result);
        };
        consumer.journal.writing = None;
        if result.is_ok() {
            consumer.journal.durable = Some(record);
        } else {
            answers.append(&mut consumer.journal.take_parked());
            let durable = consumer.journal.durable.take();
            self.restore(now, slot, name, durable);
        }
        self.answer_parked(answers, result);
        if self.consumer_mut(slot, name).is_some() {
            self.begin_write(slot, name);
        }
        self.reschedule(slot, name);
    }

    /// Answers who waited for a write.
    pub(in super::super) fn answer_parked(&mut self, answers: Parked, result: Result<(), ErrorCode>) {
        for (ticket, answer) in answers {
            let answer = match result {
                Ok(()) => answer,
                Err(error) => refused(answer, error),
            };
            self.answer(ticket, answer);
        }
    }

    /// The group is again what was durable last. Classic members that were in it then join anew.
    fn restore(&mut self, now: Mono, slot: u16, name: &str, durable: Option<Bytes>) {
        let session = self.limits.consumer_session;
        let group = self.group_mut(slot, name).expect("looked at by the caller");
        let Some(value) = durable else {
            group.consumer = None;
            return;
        };
        let before = decode_group(now, session, &value).expect("we wrote this record ourselves");
        let (offsets, counted) = (std::mem::take(&mut group.offsets), group.counted);
        *group = Group { offsets, counted, ..before };
        if group.state == GroupState::Stable {
            self.prepare_rebalance(now, slot, name);
        }
    }
}
