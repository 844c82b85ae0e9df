//! How a group becomes durable: whole, one write at a time; what changes meanwhile goes into the next.
//!
//! 1. An answer leaves when the write that holds all that it tells of is durable.
//! 2. After a failed write the group is what was durable last; everyone whose answer waits gets the error.

use super::super::coordinator::{Coordinator, Purpose, WriteToken};
use super::super::{Answer, Ticket};
use super::{HeartbeatAnswer, Refusal, record};
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::Mono;
use millrace_storage::meta::keys;

/// Requests whose answers wait for a write.
pub(in super::super) type Parked = Vec<(Ticket, HeartbeatAnswer)>;

/// What of a group is durable, and what is on its way.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in super::super) struct Journal {
    /// The record; `None` if none of this protocol was ever stored.
    pub(super) durable: Option<Bytes>,
    writing: Option<WriteToken>,
    /// Changed since the write under way was begun, or without one.
    dirty: bool,
    parked: Parked,
}

impl Journal {
    /// A group that was just read.
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
    pub(super) fn answer_change(
        &mut self,
        slot: u16,
        name: &str,
        changed: bool,
        (ticket, answer): (Ticket, HeartbeatAnswer),
    ) {
        let journal = &mut self.consumer_mut(slot, name).expect("its member asks").journal;
        journal.dirty |= changed;
        if journal.dirty {
            journal.parked.push((ticket, answer));
            return self.begin_write(slot, name);
        }
        match journal.writing {
            None => self.answer(ticket, Answer::ConsumerHeartbeat(answer)),
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

    /// A write of a group ended.
    pub(in super::super) fn on_consumer_written(
        &mut self,
        now: Mono,
        slot: u16,
        name: &str,
        (record, mut answers): (Bytes, Parked),
        result: Result<(), ErrorCode>,
    ) {
        let session = self.limits.consumer_session;
        let group = self.group_mut(slot, name).expect("a group with a write under way stays");
        let consumer = group.consumer.as_mut().expect("and keeps its protocol");
        consumer.journal.writing = None;
        match result {
            Ok(()) => consumer.journal.durable = Some(record),
            Err(error) => {
                answers.append(&mut consumer.journal.take_parked());
                let durable = consumer.journal.durable.take();
                group.consumer =
                    durable.map(|value| record::decode(now, session, &value).expect("we wrote this record ourselves"));
                for (_, answer) in &mut answers {
                    *answer = HeartbeatAnswer::failed(Refusal::new(error, String::new()));
                }
            }
        }
        for (ticket, answer) in answers {
            self.answer(ticket, Answer::ConsumerHeartbeat(answer));
        }
        if self.consumer_mut(slot, name).is_some() {
            self.begin_write(slot, name);
        }
        self.reschedule(slot, name);
    }
}
