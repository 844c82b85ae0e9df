//! What the control task does besides where many processes serve one log (`docs/decisions/080-membership.md`).
//!
//! [`view`] is what the metadata store says of all, [`membership`] this process's own lease, [`observer`] whether others
//! answer, [`loads`] what partitions cost here, [`planner`] where things shall be, [`controller`] what the one does that is
//! controller, [`costs`] what it knows of loads. This file lists and watches, and tells the rest of the core what concerns
//! this process: [`Home`] of each partition and slot.
//!
//! Invariants:
//! 1. A prefix is watched from the revision at which its listing began; a watch that ends is listed anew.
//! 2. Nothing is told before every prefix was listed once.

pub(in crate::control) mod controller;
pub(in crate::control) mod costs;
pub(in crate::control) mod loads;
pub(in crate::control) mod membership;
pub mod observer;
pub mod planner;
mod spread;
#[cfg(test)]
mod tests;
pub mod view;

use super::effects::{Effect, Owner, Sink, StoreAnswer, StoreCall};
use super::messages::Node;
use super::placement::lane_of;
use controller::Controller;
use loads::Loads;
use membership::{Membership, Standing};
use millrace_storage::env::Mono;
use millrace_storage::ids::{BootId, LeaderEpoch, ShardIndex, TopicPartition, Wid};
use millrace_storage::meta::records::{BrokerRecord, RECORD_VERSION, Record, ShardRecord, SlotRecord, TopicRecord};
use millrace_storage::meta::{Change, Compare, Key, MAX_PAGE, TxnOutcome, WatchError, keys};
use observer::{Observer, Pong};
use std::time::Duration;
use view::{Place, Touched, View, WATCHED};

/// How a process takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterConfig {
    /// Where it stands.
    pub zone: Option<String>,
    /// How long the others wait for it.
    pub lease: Duration,
    /// How long a graceful stop waits until the others have taken what it has.
    pub drain: Duration,
    /// Host and port where it tells of itself over HTTP.
    pub admin: Option<String>,
}

/// Where a partition is and shall be, for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Home {
    /// The shard of this process that shall lead it.
    pub(super) own: Option<ShardIndex>,
    /// Nobody else may be leading it, so that it can be had.
    pub(super) is_free: bool,
    /// The Kafka node that leads it, or will in a moment.
    pub(super) leader: Option<i32>,
    /// By its record.
    pub(super) epoch: LeaderEpoch,
}

/// Where a slot's coordinator is and shall be, for this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SlotHome {
    /// The shard of this process that shall coordinate it.
    pub(super) own: Option<ShardIndex>,
    /// The Kafka node of another process that does.
    pub(super) elsewhere: Option<i32>,
    /// The epoch of its record, 0 if it has none.
    pub(super) epoch: u64,
    /// Its record, if that is of this life and does not say that it was let go.
    pub(super) held: Option<SlotRecord>,
}

/// The record of a process with these nodes.
pub fn broker_record(config: &ClusterConfig, boot: BootId, nodes: &[Node], shared_port: bool) -> BrokerRecord {
    let shard = |node: &Node| ShardRecord { node: node.id, host: node.host.clone(), port: node.port };
    BrokerRecord {
        v: RECORD_VERSION,
        boot,
        shards: nodes.iter().map(shard).collect(),
        shared_port,
        zone: config.zone.clone(),
        lease_ms: u64::try_from(config.lease.as_millis()).unwrap_or(u64::MAX),
        admin: config.admin.clone(),
    }
}

/// What lanes compare when they open a log: that the process is registered.
pub fn registration(name: &str, record: &BrokerRecord) -> Compare {
    Compare::Value(keys::broker(name), record.encode())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Listing,
    Pausing,
    Watching,
}

struct Listed {
    step: Step,
    after: Option<Key>,
    failures: u32,
}

/// See the module.
pub(super) struct Cluster {
    name: String,
    boot: BootId,
    lanes: u16,
    view: View,
    membership: Membership,
    observer: Observer,
    loads: Loads,
    controller: Controller,
    listed: Vec<Listed>,
    was_complete: bool,
}

impl Cluster {
    /// Begins to join and to look.
    pub(super) fn new((name, boot): (String, BootId), record: &BrokerRecord, lanes: u16, sink: &mut Sink) -> Cluster {
        let shards = u16::try_from(record.shards.len()).expect("the number of shards is a small setting");
        let membership = Membership::new((name.clone(), boot), record, (shards, lanes), sink);
        let observer = Observer::new(name.clone(), Duration::from_millis(record.lease_ms), sink);
        let loads = Loads::new(name.clone(), sink);
        let listed = WATCHED.iter().map(|_| Listed { step: Step::Pausing, after: None, failures: 0 });
        let mut cluster = Cluster {
            name,
            boot,
            lanes,
            view: View::default(),
            membership,
            observer,
            loads,
            controller: Controller::default(),
            listed: listed.collect(),
            was_complete: false,
        };
        (0..WATCHED.len()).for_each(|place| cluster.list(place, sink));
        cluster
    }

    /// What the store says.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// Whether the view is whole.
    pub(super) fn is_complete(&self) -> bool {
        self.view.is_complete()
    }

    /// Whether this process is controller, as far as the view shows.
    pub(super) fn is_controller(&self) -> bool {
        self.membership.as_controller(&self.view).is_some()
    }

    /// Whether a later life has this one's name.
    pub(super) fn is_replaced(&self) -> bool {
        self.membership.standing() == Standing::Replaced
    }

    // ---- listing and watching ----

    fn list(&mut self, place: usize, sink: &mut Sink) {
        self.view.begin_listing(WATCHED[place]);
        self.listed[place].after = None;
        self.next_page(place, sink);
    }

    fn next_page(&mut self, place: usize, sink: &mut Sink) {
        let listed = &mut self.listed[place];
        listed.step = Step::Listing;
        let (prefix, after) = (WATCHED[place].to_owned(), listed.after.clone());
        sink.call(owner_of(place), StoreCall::List { prefix, after, limit: MAX_PAGE });
    }

    fn on_page(&mut self, place: usize, answer: StoreAnswer, sink: &mut Sink) {
        let StoreAnswer::List(answer) = answer else { unreachable!("a listing is not answered with {answer:?}") };
        match answer {
            Ok(page) => {
                let last = page.entries.last().map(|(key, _)| key.clone());
                if let Err(error) = self.view.on_page(WATCHED[place], page.revision, page.entries) {
                    tracing::error!(%error, "a record of the metadata store can't be read and is ignored");
                }
                if page.more {
                    self.listed[place].after = last;
                    return self.next_page(place, sink);
                }
                let revision = self.view.end_listing(WATCHED[place]);
                (self.listed[place].step, self.listed[place].failures) = (Step::Watching, 0);
                sink.effect(Effect::Watch(WATCHED[place], revision));
            }
            Err(error) => {
                tracing::warn!(%error, prefix = WATCHED[place], "a listing failed; it begins anew");
                self.pause(place, sink);
            }
        }
    }

    fn pause(&mut self, place: usize, sink: &mut Sink) {
        let listed = &mut self.listed[place];
        (listed.step, listed.failures) = (Step::Pausing, listed.failures + 1);
        sink.retry(owner_of(place), listed.failures);
    }

    /// A watch delivers, or has ended.
    pub(super) fn on_watch(&mut self, prefix: &'static str, changes: Result<Vec<Change>, WatchError>, sink: &mut Sink) {
        let place = WATCHED.iter().position(|watched| *watched == prefix).expect("only these are watched");
        match changes {
            Ok(changes) => {
                if let Err(error) = self.view.on_changes(prefix, changes) {
                    tracing::error!(%error, "a record of the metadata store can't be read and is ignored");
                }
            }
            Err(error) => {
                tracing::debug!(%error, prefix, "a watch ended; its prefix is listed anew");
                self.pause(place, sink);
            }
        }
    }

    // ---- calls and timers ----

    /// A store call of a part of the cluster ended.
    pub(super) fn on_store(&mut self, owner: Owner, answer: StoreAnswer, sink: &mut Sink) {
        match owner {
            Owner::Listing(place) => self.on_page(usize::from(place), answer, sink),
            Owner::Lease => self.membership.on_granted(answer, sink),
            Owner::KeepAlive(place) => self.membership.on_kept(place, answer, sink),
            Owner::Register => {
                self.membership.on_registering(answer, sink);
                self.membership.stand(&self.view, sink);
            }
            Owner::Election => self.membership.on_election(),
            Owner::Leaving => self.membership.on_said(),
            Owner::Suspicions => self.observer.on_written(),
            Owner::Loads => {
                let done = matches!(answer, StoreAnswer::Txn(Ok(TxnOutcome::Committed(_))));
                self.loads.on_written(done);
            }
            Owner::Wishes => self.controller.on_written(&self.view, &self.membership, &answer, sink),
            Owner::CheckDead => self.controller.on_checked(&self.view, answer, sink),
            Owner::Costs => self.controller.on_costs(&self.view, answer, sink),
            other => unreachable!("{other:?} is no part of the cluster"),
        }
    }

    /// A timer of a part of the cluster is due; topics that others left half-done come out.
    pub(super) fn on_timer(&mut self, owner: Owner, sink: &mut Sink) -> Vec<(String, TopicRecord)> {
        match owner {
            Owner::Listing(place) if self.listed[usize::from(place)].step == Step::Pausing => {
                self.list(usize::from(place), sink);
            }
            Owner::Listing(_) => {}
            Owner::Membership => {
                self.membership.on_tick(sink);
                if self.view.is_complete() {
                    self.membership.stand(&self.view, sink);
                    self.membership.say_so(&self.view, sink);
                    self.controller.even_loads_now_and_then(&self.view, &self.membership, sink);
                    return self.controller.find_half_done(&self.view, &self.membership, sink);
                }
            }
            Owner::Loads => self.loads.on_look(self.membership.registered(), sink),
            Owner::Observe => self.observer.on_look(&self.view, self.membership.registered(), sink),
            Owner::Plan => self.controller.on_look(&self.view, &self.membership, sink),
            Owner::SealAgain => self.controller.check_next(sink),
            other => unreachable!("{other:?} is no part of the cluster"),
        }
        Vec::new()
    }

    /// A shard tells what its partitions cost.
    pub(super) fn on_loads(&mut self, shard: ShardIndex, bytes: &[(TopicPartition, u64)], now: Mono) {
        self.loads.on_loads(shard, bytes, now);
    }

    /// Another broker answered, or did not.
    pub(super) fn on_pong(&mut self, broker: &str, boot: BootId, pong: Pong, now: Mono) {
        self.observer.on_pong(broker, boot, pong, now);
    }

    /// A log was ended, or could not be.
    pub(super) fn on_sealed(&mut self, wid: Wid, sealed: bool, sink: &mut Sink) {
        self.controller.on_sealed(wid, sealed, sink);
    }

    /// From now on others are to take what this process has.
    pub(super) fn begin_to_leave(&mut self, sink: &mut Sink) {
        self.membership.begin_to_leave(&self.view, sink);
    }

    /// Whether another process lives that does not leave: whoever leaves can hand over what it has.
    pub(super) fn others_stay(&self) -> bool {
        let stays = |name: &String| *name != self.name && !self.view.is_leaving(name) && !self.view.is_suspected(name);
        self.view.is_complete() && self.view.brokers().any(|(name, _)| stays(name))
    }

    /// Whether a partition's record says that this life has it, or had it until nobody has taken it.
    pub(super) fn is_own_by_record(&self, partition: TopicPartition) -> bool {
        self.view.is_named_by(partition, &self.name, Some(self.boot))
    }

    /// The number of slots whose records say so.
    pub(super) fn own_slots_by_record(&self) -> usize {
        self.view.slots_of(&self.name, Some(self.boot)).count()
    }

    /// Gives the lease back; whether an answer will come.
    pub(super) fn leave(&mut self, sink: &mut Sink) -> bool {
        self.membership.leave(sink)
    }

    // ---- what concerns this process ----

    /// What changed since the last time this was asked; everything, the first time that the view is whole.
    pub(super) fn take_touched(&mut self, sink: &mut Sink) -> Touched {
        if !self.view.is_complete() {
            return Touched::default();
        }
        let mut touched = self.view.take_touched();
        if !std::mem::replace(&mut self.was_complete, true) {
            touched.brokers = true;
        }
        if touched.is_empty() {
            return touched;
        }
        if touched.members || touched.brokers {
            self.membership.on_view(&self.view, sink);
        }
        self.controller.touch(self.view.partition_count(), sink);
        touched
    }

    /// Where a partition is and shall be.
    pub(super) fn home(&self, partition: TopicPartition) -> Home {
        let owner = self.view.owner(partition);
        let home = self.view.home(partition);
        let own = home.as_ref().filter(|home| home.broker == self.name).map(|home| home.shard);
        let own_lane = |shard| Some((self.boot, lane_of(shard, self.lanes)));
        let is_free = owner.as_ref().is_none_or(|owner| {
            !owner.is_held || own.is_some_and(|shard| owner.life.is_some() && owner.life == own_lane(shard))
        });
        // What is released, or about to be by this process: whoever has it next leads it at the next epoch at least, so that
        // clients that are told already believe it.
        let moves = owner.as_ref().is_some_and(|owner| {
            let is_own = owner.life.is_some_and(|(boot, _)| boot == self.boot);
            let is_home = |home: &Place| owner.broker.as_ref() == Some(&home.broker) && owner.shard == home.shard;
            owner.released.is_some() || (is_own && owner.is_held && home.as_ref().is_some_and(|home| !is_home(home)))
        });
        let epoch = owner.as_ref().map_or(LeaderEpoch(0), |owner| owner.epoch);
        if moves {
            let leader = home.and_then(|home| self.view.node(&home.broker, None, home.shard));
            return Home { own, is_free, leader, epoch: LeaderEpoch(epoch.0.saturating_add(1)) };
        }
        Home { own, is_free, leader: owner.and_then(|owner| owner.leader), epoch }
    }

    /// Where a slot's coordinator is and shall be.
    pub(super) fn slot_home(&self, slot: u16) -> SlotHome {
        let home = self.view.slot_home(slot);
        let record = self.view.slot(slot);
        let is_own = record.is_some_and(|record| record.broker == self.name && record.boot == self.boot);
        let (own, other): (Option<Place>, Option<Place>) = match home {
            Some(home) if home.broker == self.name => (Some(home), None),
            other => (None, other),
        };
        // Who shall have it next has it in a moment.
        let next = || other.and_then(|other| self.view.node(&other.broker, None, other.shard));
        let is_released = record.is_some_and(|record| record.released);
        SlotHome {
            own: own.map(|home| home.shard),
            elsewhere: if is_released {
                next()
            } else if is_own {
                None
            } else {
                self.view.coordinator(slot)
            },
            epoch: record.map_or(0, |record| record.epoch),
            held: record.filter(|record| is_own && !record.released).cloned(),
        }
    }

    /// The nodes of all brokers that live, this one's own as `own` says.
    pub(super) fn nodes(&self, own: &[Node]) -> Vec<Node> {
        let mut nodes = own.to_vec();
        for (_, record) in self.view.brokers().filter(|(name, _)| **name != self.name) {
            let told = if record.shared_port { 1 } else { record.shards.len() };
            nodes.extend(record.shards.iter().take(told).map(|shard| Node {
                id: shard.node,
                host: shard.host.clone(),
                port: shard.port,
                rack: record.zone.clone(),
                shard: None,
            }));
        }
        nodes
    }
}

fn owner_of(place: usize) -> Owner {
    Owner::Listing(u8::try_from(place).expect("a dozen prefixes"))
}
