//! One topic's way from CREATING to LIVE, from DELETING to gone (PROTOCOL.md sections 3 and 4), or from one LIVE record to
//! another with more partitions or other settings, one store call at a time. Creations and deletions are completed once
//! begun, now or by the next process that finds them half-done; an alteration that a process leaves half-done is not,
//! and nobody was told of it.
//!
//! | step | what is durable after it |
//! |---|---|
//! | reserve | `/topic/{name}` CREATING |
//! | describe, check object | the object `meta/topics/{id}`, from which a rebuild knows the topic |
//! | go live | `/topic/{name}` LIVE; lanes may bear the partitions |
//! | mark | `/topic/{name}` DELETING; produce is refused |
//! | read object, bury | the object says deleted: a rebuild does not bring the topic back |
//! | list, remove | the partition records are gone, page by page |
//! | let go | `/topic/{name}` is gone: the name is free |
//! | look up, rewrite | the object says what the topic shall be |
//! | alter | `/topic/{name}` is LIVE with the new contents |
//!
//! Invariants:
//! 1. The record moves by transactions that compare the value before. One whose outcome is unknown is read back: the
//!    new value is success; the old value decides nothing, so the same transaction is sent again.
//! 2. The topic's name is free only after its tombstone and the removal of its records.
//! 3. A reservation applied late, after its topic was deleted, brings nothing back: the tombstone says so to whoever
//!    finds it, and a new topic of that name takes its place.
//! 4. An alteration changes the object before the record: what a client was told survives the loss of either.

use super::effects::{Owner, Sink, StoreAnswer, StoreCall};
use super::topic_object::{self, TopicObject};
use bytes::Bytes;
use millrace_storage::meta::records::{Record, TopicRecord, TopicState};
use millrace_storage::meta::{Compare, Key, MAX_TXN_OPS, Op, Page, Revision, Txn, TxnOutcome, keys};
use millrace_storage::object::{MatchOutcome, Object};
use millrace_storage::wal::PutOutcome;

/// Partition records removed in one transaction: room for the comparison.
const REMOVED_AT_ONCE: usize = MAX_TXN_OPS - 1;

/// What the change came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// Nothing for others to do yet.
    Under,
    /// A store call failed and is tried again after a pause.
    Failed,
    /// The record is LIVE.
    Live,
    /// The record is DELETING.
    Marked,
    /// The partition records are removed; the lanes may forget the topic.
    Removed,
    /// The record is gone.
    Gone,
    /// The record is LIVE with the new contents.
    Altered,
    /// The record is neither what it was nor what it should become: somebody else writes it.
    Foreign,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Reserve,
    Describe,
    CheckObject,
    GoLive,
    Mark,
    ReadObject,
    Bury,
    List,
    Remove,
    LetGo,
    LookUp,
    Rewrite,
    Alter,
}

/// How the call under way began.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Call {
    /// Nothing is under way: the timer, or whoever drives the change, goes on.
    None,
    /// The step's own call.
    First,
    /// The record is read back after a transaction that failed or conflicted.
    ReadBack,
}

/// A creation, deletion or alteration under way.
pub(super) struct TopicChange {
    name: String,
    record: TopicRecord,
    /// What an alteration makes of the record.
    altered: Option<TopicRecord>,
    step: Step,
    call: Call,
    /// Failures since the last success.
    failures: u32,
    /// A reservation of the name that came to nothing and is replaced.
    replaces: Option<Bytes>,
    /// The object to bury and its version.
    found: Option<Object>,
    /// The partition records to remove.
    page: Vec<Key>,
    /// Whether others change topics too: then what is found half-done is theirs.
    shared: bool,
    /// The revision of the record's last change that is known: one of its prefix, which a watch will show.
    known_at: Revision,
    /// What somebody else made of the record.
    foreign: Option<TopicRecord>,
}

impl TopicChange {
    fn at(name: String, record: TopicRecord, step: Step) -> TopicChange {
        let (altered, call, replaces, found, page) = (None, Call::None, None, None, Vec::new());
        let (shared, known_at, foreign) = (false, Revision(0), None);
        TopicChange { name, record, altered, step, call, failures: 0, replaces, found, page, shared, known_at, foreign }
    }

    /// The same where other processes change topics too.
    pub(super) fn among_others(self, shared: bool) -> TopicChange {
        TopicChange { shared, ..self }
    }

    /// The revision of the record's last change that is known.
    pub(super) fn known_at(&self) -> Revision {
        self.known_at
    }

    /// After [`Progress::Foreign`]: the record of this topic that somebody else left, if one stands.
    pub(super) fn foreign(&self) -> Option<&TopicRecord> {
        self.foreign.as_ref().filter(|record| record.id == self.record.id)
    }

    /// Whether nothing of a creation is durable yet.
    pub(super) fn is_reservation(&self) -> bool {
        self.step == Step::Reserve
    }

    /// A topic that nobody knows yet: `record` is CREATING.
    pub(super) fn create(name: String, record: TopicRecord) -> TopicChange {
        assert_eq!(record.state, TopicState::Creating);
        TopicChange::at(name, record, Step::Reserve)
    }

    /// Deletes a LIVE topic.
    pub(super) fn delete(name: String, record: TopicRecord) -> TopicChange {
        assert_eq!(record.state, TopicState::Live);
        TopicChange::at(name, record, Step::Mark)
    }

    /// Makes `altered` of a LIVE topic.
    pub(super) fn alter(name: String, record: TopicRecord, altered: TopicRecord) -> TopicChange {
        assert_eq!((record.state, altered.state), (TopicState::Live, TopicState::Live));
        TopicChange { altered: Some(altered), ..TopicChange::at(name, record, Step::LookUp) }
    }

    /// Whether it makes an end of a topic.
    pub(super) fn is_deletion(&self) -> bool {
        matches!(self.step, Step::Mark | Step::ReadObject | Step::Bury | Step::List | Step::Remove | Step::LetGo)
    }

    /// Whether the topic stays LIVE throughout: its partitions are led as ever.
    pub(super) fn is_alteration(&self) -> bool {
        self.altered.is_some()
    }

    /// Goes on with what a former process left; `None`: nothing is half-done.
    pub(super) fn resume(name: String, record: TopicRecord) -> Option<TopicChange> {
        let step = match record.state {
            TopicState::Creating => Step::Describe,
            TopicState::Live => return None,
            TopicState::Deleting => Step::ReadObject,
        };
        Some(TopicChange::at(name, record, step))
    }

    /// The record as it is durable now (or about to be: CREATING during the reservation).
    pub(super) fn record(&self) -> &TopicRecord {
        &self.record
    }

    /// Failures since the last success.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    fn owner(&self) -> Owner {
        Owner::Topic(self.record.id)
    }

    /// Makes the call of the current step. Called at the beginning, after each [`Progress`] that leaves work to others,
    /// and by the timer.
    pub(super) fn go_on(&mut self, sink: &mut Sink) {
        if self.call != Call::None {
            return;
        }
        self.call = Call::First;
        let key = topic_object::key(self.record.id);
        let call = match self.step {
            Step::Reserve | Step::GoLive | Step::Mark | Step::LetGo | Step::Alter => StoreCall::Txn(self.move_record()),
            Step::Describe => StoreCall::PutObject { key, bytes: self.object() },
            Step::ReadObject | Step::CheckObject | Step::LookUp => StoreCall::GetObject { key },
            Step::Bury | Step::Rewrite => match &self.found {
                Some(found) => StoreCall::ReplaceObject { key, bytes: self.object(), version: found.version.clone() },
                None => StoreCall::PutObject { key, bytes: self.object() },
            },
            Step::List => {
                StoreCall::List { prefix: keys::partitions_of(self.record.id), after: None, limit: REMOVED_AT_ONCE }
            }
            Step::Remove => {
                let compare = Compare::Value(keys::topic(&self.name), self.record.encode());
                let ops = self.page.iter().cloned().map(Op::Delete).collect();
                StoreCall::Txn(Txn { compares: vec![compare], ops })
            }
        };
        sink.call(self.owner(), call);
    }

    /// The call under way ended.
    pub(super) fn on_store(&mut self, answer: StoreAnswer, sink: &mut Sink) -> Progress {
        let call = std::mem::replace(&mut self.call, Call::None);
        match (self.step, answer) {
            (Step::Reserve | Step::GoLive | Step::Mark | Step::LetGo | Step::Alter, StoreAnswer::Txn(outcome)) => {
                match outcome {
                    Ok(TxnOutcome::Committed(revision)) => {
                        self.known_at = revision;
                        self.moved(sink)
                    }
                    // Both may hide an earlier try that succeeded.
                    Ok(TxnOutcome::Conflict(_)) | Err(_) => self.read_back(sink),
                }
            }
            (_, StoreAnswer::Get(Ok(mut snapshot))) => {
                assert_eq!(call, Call::ReadBack, "only a record is read by key");
                let found = snapshot.values.remove(0);
                self.known_at = found.as_ref().map_or(self.known_at, |found| found.modified);
                let found = found.map(|found| found.value);
                self.judge(found, sink)
            }
            (Step::Describe, StoreAnswer::PutObject(Ok(PutOutcome::Stored))) => self.next(Step::GoLive, sink),
            (Step::Describe, StoreAnswer::PutObject(Ok(PutOutcome::AlreadyExists))) => {
                self.next(Step::CheckObject, sink)
            }
            // An earlier try of this change (ids are random), unless the topic was deleted since (invariant 3).
            (Step::CheckObject, StoreAnswer::GetObject(Ok(found))) => {
                let buried = found.is_some_and(|object| TopicObject::is_tombstone(&object.bytes));
                self.next(if buried { Step::LetGo } else { Step::GoLive }, sink)
            }
            (Step::ReadObject, StoreAnswer::GetObject(Ok(found))) => {
                let buried = found.as_ref().is_some_and(|object| TopicObject::is_tombstone(&object.bytes));
                self.found = found;
                self.next(if buried { Step::List } else { Step::Bury }, sink)
            }
            // What is there now decides, whoever put it.
            (Step::Bury, StoreAnswer::PutObject(Ok(_)) | StoreAnswer::ReplaceObject(Ok(MatchOutcome::Changed))) => {
                self.next(Step::ReadObject, sink)
            }
            (Step::Bury, StoreAnswer::ReplaceObject(Ok(MatchOutcome::Stored(_)))) => self.next(Step::List, sink),
            (Step::LookUp, StoreAnswer::GetObject(Ok(found))) => self.looked_up(found, sink),
            (Step::Rewrite, StoreAnswer::PutObject(Ok(_)) | StoreAnswer::ReplaceObject(Ok(MatchOutcome::Changed))) => {
                self.next(Step::LookUp, sink)
            }
            (Step::Rewrite, StoreAnswer::ReplaceObject(Ok(MatchOutcome::Stored(_)))) => self.next(Step::Alter, sink),
            (Step::List, StoreAnswer::List(Ok(page))) => self.listed(page, sink),
            (Step::Remove, StoreAnswer::Txn(Ok(TxnOutcome::Committed(_)))) => self.next(Step::List, sink),
            (Step::Remove, StoreAnswer::Txn(Ok(TxnOutcome::Conflict(_)))) => Progress::Foreign,
            // It may have happened: the next try reads first.
            (step @ (Step::Bury | Step::Rewrite), StoreAnswer::ReplaceObject(Err(_))) => {
                self.step = if step == Step::Bury { Step::ReadObject } else { Step::LookUp };
                self.pause(sink)
            }
            (
                _,
                StoreAnswer::Txn(Err(_))
                | StoreAnswer::Get(Err(_))
                | StoreAnswer::List(Err(_))
                | StoreAnswer::PutObject(Err(_))
                | StoreAnswer::GetObject(Err(_)),
            ) => self.pause(sink),
            (step, other) => unreachable!("{step:?} never asked for {other:?}"),
        }
    }

    fn next(&mut self, step: Step, sink: &mut Sink) -> Progress {
        self.step = step;
        self.failures = 0;
        self.go_on(sink);
        Progress::Under
    }

    fn pause(&mut self, sink: &mut Sink) -> Progress {
        self.failures += 1;
        sink.retry(self.owner(), self.failures);
        Progress::Failed
    }

    fn listed(&mut self, page: Page, sink: &mut Sink) -> Progress {
        self.page = page.entries.into_iter().map(|(key, _)| key).collect();
        if self.page.is_empty() {
            self.step = Step::LetGo;
            return Progress::Removed;
        }
        self.next(Step::Remove, sink)
    }

    fn looked_up(&mut self, found: Option<Object>, sink: &mut Sink) -> Progress {
        match &found {
            Some(object) if object.bytes == self.object() => return self.next(Step::Alter, sink),
            // Nobody else deletes topics while this process lives.
            Some(object) if TopicObject::is_tombstone(&object.bytes) => return Progress::Foreign,
            _ => {}
        }
        self.found = found;
        self.next(Step::Rewrite, sink)
    }

    /// The record after the current step; `None`: no record.
    fn goal(&self) -> Option<TopicRecord> {
        let within = |state| Some(TopicRecord { state, ..self.record.clone() });
        match self.step {
            Step::Reserve => within(TopicState::Creating),
            Step::GoLive => within(TopicState::Live),
            Step::Mark => within(TopicState::Deleting),
            Step::Alter => self.altered.clone(),
            Step::LetGo => None,
            other => unreachable!("{other:?} does not move the record"),
        }
    }

    /// The record's value before the current step, and after it.
    fn ends(&self) -> (Option<Bytes>, Option<Bytes>) {
        let before = if self.step == Step::Reserve { self.replaces.clone() } else { Some(self.record.encode()) };
        (before, self.goal().map(|record| record.encode()))
    }

    fn move_record(&self) -> Txn {
        let key = keys::topic(&self.name);
        let (before, after) = self.ends();
        let compare = match before {
            Some(value) => Compare::Value(key.clone(), value),
            None => Compare::Absent(key.clone()),
        };
        let op = match after {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        Txn { compares: vec![compare], ops: vec![op] }
    }

    fn read_back(&mut self, sink: &mut Sink) -> Progress {
        self.call = Call::ReadBack;
        sink.call(self.owner(), StoreCall::Get(vec![keys::topic(&self.name)]));
        Progress::Under
    }

    fn judge(&mut self, found: Option<Bytes>, sink: &mut Sink) -> Progress {
        let (before, after) = self.ends();
        if found == after {
            return self.moved(sink);
        }
        let reserved = |value: &Bytes| TopicRecord::decode(value).is_ok_and(|r| r.state == TopicState::Creating);
        let may_replace = |value: &Bytes| !self.shared && reserved(value);
        if self.step == Step::Reserve && found.as_ref().is_none_or(may_replace) {
            self.replaces = found;
        } else if self.step == Step::Alter
            && !self.shared
            && let Some(late) = found.as_deref().and_then(|value| self.late_alteration(value))
        {
            self.record = late;
        } else if found != before {
            self.foreign = found.and_then(|value| TopicRecord::decode(&value).ok());
            return Progress::Foreign;
        }
        self.pause(sink)
    }

    /// An alteration that a former process sent and that took effect after this one had read the record. Nobody was told
    /// of it, so that the one under way may take its place, unless that took partitions away.
    fn late_alteration(&self, value: &[u8]) -> Option<TopicRecord> {
        let late = TopicRecord::decode(value).ok()?;
        let altered = self.altered.as_ref()?;
        let same = late.id == self.record.id && late.state == TopicState::Live;
        (same && late != self.record && late.partitions <= altered.partitions).then_some(late)
    }

    fn moved(&mut self, sink: &mut Sink) -> Progress {
        self.failures = 0;
        let Some(record) = self.goal() else { return Progress::Gone };
        self.record = record;
        match self.record.state {
            TopicState::Creating => self.next(Step::Describe, sink),
            TopicState::Live if self.is_alteration() => Progress::Altered,
            TopicState::Live => Progress::Live,
            TopicState::Deleting => {
                self.step = Step::ReadObject;
                Progress::Marked
            }
        }
    }

    /// The object as this change leaves it.
    fn object(&self) -> Bytes {
        let record = self.altered.as_ref().unwrap_or(&self.record);
        TopicObject::encode(&self.name, record, record.state == TopicState::Deleting)
    }
}
