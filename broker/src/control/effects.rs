//! What the control core asks for, and the sink that its parts ask through.
//!
//! Invariant: an owner (a topic, a slot, the producer ids, the settings of groups, the cluster's records) has at most one
//! store call under way, so that its own step says what an answer means.

use super::cluster::observer::Ping;
use super::messages::FromControl;
use bytes::Bytes;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, ToLead, TopicSeen};
use millrace_storage::meta::records::{Record, TopicRecord};
use millrace_storage::meta::{KeptAlive, Key, Lease, LeaseId, Page, Revision, Snapshot, Txn, TxnOutcome};
use millrace_storage::object::{MatchOutcome, Object, Version};
use millrace_storage::store_error::StoreError;
use millrace_storage::wal::PutOutcome;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Names a store call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// A store operation to carry out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreCall {
    /// [`millrace_storage::meta::MetaStore::txn`].
    Txn(Txn),
    /// [`millrace_storage::meta::MetaStore::get`].
    Get(Vec<Key>),
    /// [`millrace_storage::meta::MetaStore::list`].
    List {
        /// The prefix.
        prefix: Key,
        /// Where the page before this one ended.
        after: Option<Key>,
        /// Keys at most.
        limit: usize,
    },
    /// [`millrace_storage::meta::MetaStore::grant`].
    Grant(Duration),
    /// [`millrace_storage::meta::MetaStore::keep_alive`].
    KeepAlive(LeaseId),
    /// [`millrace_storage::meta::MetaStore::revoke`].
    Revoke(LeaseId),
    /// [`millrace_storage::object::ObjectStore::put_if_absent`].
    PutObject {
        /// The object's key.
        key: String,
        /// Its bytes.
        bytes: Bytes,
    },
    /// [`millrace_storage::object::ObjectStore::get`].
    GetObject {
        /// The object's key.
        key: String,
    },
    /// [`millrace_storage::object::ObjectStore::put_if_match`].
    ReplaceObject {
        /// The object's key.
        key: String,
        /// The new bytes.
        bytes: Bytes,
        /// The version to replace.
        version: Version,
    },
}

/// What a call was answered with: the variant of the call.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the variants are those of StoreCall")]
pub enum StoreAnswer {
    Txn(Result<TxnOutcome, StoreError>),
    Get(Result<Snapshot, StoreError>),
    List(Result<Page, StoreError>),
    Grant(Result<Lease, StoreError>),
    KeepAlive(Result<KeptAlive, StoreError>),
    Revoke(Result<(), StoreError>),
    PutObject(Result<PutOutcome, StoreError>),
    GetObject(Result<Option<Object>, StoreError>),
    ReplaceObject(Result<MatchOutcome, StoreError>),
}

/// What is to be done, in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Run a store operation, answer with `ControlCore::on_store`. Calls may run side by side.
    Call(CallId, StoreCall),
    /// To a lane.
    Lane(u16, LaneCommand),
    /// To a shard.
    Shard(ShardIndex, FromControl),
    /// Watch this prefix from this revision on, instead of whatever was watched of it: `ControlCore::on_watch`.
    Watch(&'static str, Revision),
    /// SEAL this log, answer with `ControlCore::on_sealed`.
    Seal(Wid),
    /// Ask another broker whether it lives, answer with `ControlCore::on_pong`.
    Ping(Ping),
    /// A later life has this process's name: it must end. Nothing comes after it.
    Replaced,
    /// The graceful stop is over (`sealed`: every lane sealed its write-ahead log). Nothing comes after it.
    Stopped {
        /// Whether a restart finds nothing to fence.
        sealed: bool,
    },
}

/// Whose store call or timer it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Owner {
    Topic(TopicId),
    Slot(u16),
    ProducerIds,
    GroupSettings,
    ClusterRecords,
    /// Granting a lease.
    Lease,
    /// One of several keep-alives.
    KeepAlive(u8),
    Revoke,
    Register,
    Election,
    /// Says that this process leaves.
    Leaving,
    /// Says who does not answer.
    Suspicions,
    /// Tells what partitions cost; also a timer.
    Loads,
    /// What partitions cost all: its listing.
    Costs,
    /// A watched prefix, by its place: its listing.
    Listing(u8),
    Wishes,
    CheckDead,
    /// Timer only: look after the lease.
    Membership,
    /// Timer only: ask the others.
    Observe,
    /// Timer only: plan.
    Plan,
    /// Timer only: a log may be ended now.
    SealAgain,
    /// Timer only: there was time enough to give the lease back.
    Revoked,
    /// Timer only: others had time enough to take what this process has.
    DrainOver,
    /// Timer only: lead again what was lost.
    LeadAgain,
    /// Timer only: shards had time enough to stop.
    StopLanes,
    /// Timer only: lanes had time enough to stop.
    StopNow,
}

/// First pause before a failed store call is made again; doubles with every further failure.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// Longest such pause.
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Collects what the parts of the core want done in one turn.
#[derive(Default)]
pub(super) struct Sink {
    pub(super) now: Mono,
    pub(super) wall: WallMs,
    /// Whether a thread of this process is stuck, so that its lease is neither taken nor kept.
    pub(super) is_stuck: bool,
    next_call: u64,
    calls: BTreeMap<CallId, Owner>,
    timers: BTreeSet<(Mono, Owner)>,
    effects: Vec<Effect>,
    /// Answers that may leave only after the image that shows what they say.
    answers: Vec<Effect>,
    leads: BTreeMap<u16, Vec<ToLead>>,
    releases: BTreeMap<u16, Vec<TopicPartition>>,
}

impl Sink {
    /// Asks for a store operation.
    pub(super) fn call(&mut self, owner: Owner, call: StoreCall) {
        let id = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(id, owner);
        self.effects.push(Effect::Call(id, call));
    }

    /// Asks for a transaction.
    pub(super) fn txn(&mut self, owner: Owner, txn: Txn) {
        self.call(owner, StoreCall::Txn(txn));
    }

    /// Whose call it was that ended.
    pub(super) fn ended(&mut self, id: CallId) -> Owner {
        self.calls.remove(&id).expect("every call is answered once")
    }

    /// Wakes `owner` after its `attempt`th failure (from 1).
    pub(super) fn retry(&mut self, owner: Owner, attempt: u32) {
        let doubled = RETRY_FIRST.saturating_mul(1 << attempt.saturating_sub(1).min(16));
        self.wake_after(owner, doubled.min(RETRY_LONGEST));
    }

    /// Wakes `owner` after some time.
    pub(super) fn wake_after(&mut self, owner: Owner, after: Duration) {
        self.timers.insert((self.now.plus(after), owner));
    }

    /// When the next timer is due.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// The next timer that is due.
    pub(super) fn due(&mut self) -> Option<Owner> {
        let (at, owner) = *self.timers.first()?;
        (at <= self.now).then(|| {
            self.timers.pop_first();
            owner
        })
    }

    /// Anything else.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// Has a lane lead a partition of a topic; the partitions of one turn go in one command.
    pub(super) fn lead(
        &mut self,
        lane: u16,
        (partition, shard): (TopicPartition, ShardIndex),
        (name, record): (&str, &TopicRecord),
    ) {
        let leads = self.leads.entry(lane).or_default();
        // Those of one topic mostly come one after the other.
        let topic = match leads.last() {
            Some(last) if last.partition.topic == partition.topic => Arc::clone(&last.topic),
            _ => Arc::new(TopicSeen { name: name.to_owned(), record: record.encode() }),
        };
        leads.push(ToLead { partition, shard, topic });
    }

    /// Has a lane release a partition; likewise, before the leads.
    pub(super) fn release(&mut self, lane: u16, partition: TopicPartition) {
        self.releases.entry(lane).or_default().push(partition);
    }

    /// To a lane, at once.
    pub(super) fn lane(&mut self, lane: u16, command: LaneCommand) {
        self.effects.push(Effect::Lane(lane, command));
    }

    /// To a shard, before this turn's image.
    pub(super) fn shard(&mut self, shard: ShardIndex, message: FromControl) {
        self.effects.push(Effect::Shard(shard, message));
    }

    /// To a shard, after this turn's image.
    pub(super) fn answer(&mut self, shard: ShardIndex, message: FromControl) {
        self.answers.push(Effect::Shard(shard, message));
    }

    /// The last effect of a process that another one has replaced.
    pub(super) fn replaced(&mut self) {
        self.answers.push(Effect::Replaced);
    }

    /// The last effect of the process.
    pub(super) fn stopped(&mut self, sealed: bool) {
        self.answers.push(Effect::Stopped { sealed });
    }

    /// Everything that this turn asked for: calls and messages, leads, the image, then the answers.
    pub(super) fn drain(&mut self, image: Vec<Effect>) -> Vec<Effect> {
        let mut all = std::mem::take(&mut self.effects);
        let releases = std::mem::take(&mut self.releases).into_iter();
        all.extend(releases.map(|(lane, partitions)| Effect::Lane(lane, LaneCommand::Release { partitions })));
        let leads = std::mem::take(&mut self.leads);
        all.extend(leads.into_iter().map(|(lane, partitions)| Effect::Lane(lane, LaneCommand::Lead { partitions })));
        all.extend(image);
        all.append(&mut self.answers);
        all
    }
}
