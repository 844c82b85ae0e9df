//! The control task as a pure state machine: answers of stores, reports of lanes, questions of shards and time go in;
//! store calls, lane commands and messages to shards come out.
//!
//! It is made of parts that don't know of each other: `topics`, `slots`, `producer_ids`, `group_settings`,
//! `cluster_records`, and where many processes serve one log `cluster`. This file hands events to them, publishes the
//! image that they amount to, and stops the process in order.
//!
//! Invariants:
//! 1. One image per turn at most ([`ControlCore::take_effects`]), only if something changed, before the turn's answers.
//! 2. `ready` rises once, when every partition known at start-up is led or damaged and every slot granted.
//!    Among other processes: when the view is whole, and what it says is for this one is led, and every slot coordinated.
//! 3. Nothing waits without a bound: [`ControlCore::wants_questions`] is false while as many questions wait as may.
//! 4. A graceful stop among others first serves on until they have taken all that is here, at most for
//!    [`ClusterConfig::drain`], and only while somebody is there who could.

use super::cluster::membership::REVOKE_WITHIN;
use super::cluster::observer::{Ping, Pong};
use super::cluster::view::Touched;
use super::cluster::{self, Cluster, ClusterConfig};
use super::cluster_records::{ClusterRecords, Wish};
use super::effects::{CallId, Effect, Owner, Sink, StoreAnswer};
use super::group_settings::GroupSettings;
use super::messages::{COORDINATOR_SLOTS, ClusterImage, FromControl, Node, ToControl};
use super::producer_ids::ProducerIds;
use super::slots::Slots;
use super::start::Loaded;
use super::topics::{Counts, PartitionNumbers, Topics};
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{BootId, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport};
use millrace_storage::meta::{Change, WatchError, keys};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Questions (topics counted singly) that may wait; above it no more are taken from the shards' mailboxes.
pub const QUESTIONS_LIMIT: usize = 4_096;

/// How long shards have to send what they appended once they were told to stop.
pub const SHARDS_STOP_WITHIN: Duration = Duration::from_secs(1);

/// How long lanes have to drain and seal after that; what is left is for the next start to fence.
pub const LANES_STOP_WITHIN: Duration = Duration::from_secs(10);

/// What the core must know of its process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlConfig {
    /// Name of the broker process.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// The node of each shard, by shard index: at least one.
    pub nodes: Vec<Node>,
    /// Whether clients are told of the first of them alone, which then stands for all shards.
    pub shared_port: bool,
    /// Lanes; shard i is served by lane i modulo this.
    pub lanes: u16,
    /// Partitions of a topic that is created without a number.
    pub default_partitions: u32,
    /// Partitions of all topics together (`--max-partitions`).
    pub max_partitions: u32,
    /// How it takes part where many processes serve one log; `None`: it is alone.
    pub cluster: Option<ClusterConfig>,
}

#[derive(Clone, PartialEq, Eq)]
enum Phase {
    Running,
    /// Others are to take what is here first.
    Draining,
    /// Shards were told; those that are not done yet.
    StoppingShards(BTreeSet<ShardIndex>),
    /// Lanes were told; those that are not done yet, and whether all others sealed.
    StoppingLanes(BTreeSet<u16>, bool),
    /// The lease is being given back; whether all lanes sealed.
    Leaving(bool),
    Stopped,
}

/// The state machine.
pub struct ControlCore {
    nodes: Vec<i32>,
    lanes: u16,
    sink: Sink,
    topics: Topics,
    slots: Slots,
    producer_ids: ProducerIds,
    group_settings: GroupSettings,
    cluster_records: ClusterRecords,
    cluster: Option<Cluster>,
    /// This process's own nodes, as clients are told.
    own: Vec<Node>,
    image: ClusterImage,
    /// Whether the image was never published.
    first: bool,
    nodes_changed: bool,
    /// Times that partitions were placed or born, or logs opened.
    placements: u64,
    phase: Phase,
    /// How long a graceful stop waits for others.
    drain: Duration,
    /// What was found last that still waits for one of them.
    left_here: TopicPartition,
}

impl ControlCore {
    /// Begins with what was found in the store; `new_id` gives random topic ids.
    pub fn new(now: Mono, config: ControlConfig, loaded: Loaded, new_id: Box<dyn FnMut() -> TopicId>) -> ControlCore {
        let shards = u16::try_from(config.nodes.len()).expect("the number of shards is a small setting");
        assert!(shards > 0 && config.lanes > 0, "a process has a shard and a lane");
        let mut sink = Sink::default();
        sink.now = now;
        let numbers = PartitionNumbers { default: config.default_partitions, most: config.max_partitions };
        let record = config
            .cluster
            .as_ref()
            .map(|cluster| cluster::broker_record(cluster, config.boot, &config.nodes, config.shared_port));
        let identity = (config.broker.clone(), config.boot);
        let cluster = record.map(|record| Cluster::new(identity, &record, config.lanes, &mut sink));
        let counts = Counts { shards, lanes: config.lanes };
        let mut topics = Topics::new(counts, numbers, cluster.is_some(), new_id);
        for (name, record) in loaded.topics {
            topics.load(name, record, &loaded.partitions, &mut sink);
        }
        let producer_ids = ProducerIds::new(loaded.producer_ids, config.lanes, &mut sink);
        let cluster_records = ClusterRecords::new(loaded.quotas, loaded.settings);
        let group_settings = GroupSettings::new(loaded.group_settings);
        let slots = match &cluster {
            Some(_) => Slots::among_others(config.broker, config.boot),
            None => Slots::new(config.broker, config.boot, shards, &mut sink),
        };
        let first = &config.nodes[0];
        let told = if config.shared_port { std::slice::from_ref(first) } else { &config.nodes };
        let own = told.to_vec();
        let image = ClusterImage {
            cluster_id: config.cluster_id,
            controller: first.id,
            default_partitions: config.default_partitions,
            may_lack_topics: cluster.is_some(),
            nodes: told.iter().map(|node| (node.id, node.clone())).collect(),
            ..ClusterImage::default()
        };
        ControlCore {
            nodes: config.nodes.iter().map(|node| if config.shared_port { first.id } else { node.id }).collect(),
            lanes: config.lanes,
            sink,
            topics,
            slots,
            producer_ids,
            group_settings: if cluster.is_some() { group_settings.among_others() } else { group_settings },
            cluster_records: if cluster.is_some() { cluster_records.among_others() } else { cluster_records },
            cluster,
            own,
            image,
            first: true,
            nodes_changed: false,
            placements: 0,
            phase: Phase::Running,
            drain: config.cluster.map_or(Duration::ZERO, |cluster| cluster.drain),
            left_here: TopicPartition { topic: TopicId(Uuid::nil()), index: 0 },
        }
    }

    /// Whether this process does what one of all does: it is alone, or controller.
    pub fn is_controller(&self) -> bool {
        self.cluster.as_ref().is_none_or(Cluster::is_controller)
    }

    /// Rises whenever the metadata store says something new of where partitions are.
    pub fn placements(&self) -> u64 {
        self.placements
    }

    /// Whether a question of a shard may be handed in.
    pub fn wants_questions(&self) -> bool {
        let others = self.producer_ids.waiting() + self.group_settings.waiting() + self.cluster_records.waiting();
        self.topics.under_way() + self.slots.waiting() + others < QUESTIONS_LIMIT
    }

    /// A shard asks.
    pub fn on_shard(&mut self, now: Mono, shard: ShardIndex, question: ToControl) {
        self.sink.now = now;
        let sink = &mut self.sink;
        match question {
            ToControl::CreateTopics { token, topics, validate_only, auto } => {
                self.topics.create((shard, token), topics, validate_only, auto, sink);
            }
            ToControl::AlterTopics { token, alterations, validate_only } => {
                self.topics.alter((shard, token), alterations, validate_only, sink);
            }
            ToControl::AlterGroups { token, alterations, validate_only } => {
                self.group_settings.alter((shard, token), alterations, validate_only, sink);
            }
            ToControl::AlterQuotas { token, alterations, validate_only } => {
                let wishes = alterations.into_iter().map(Wish::Quota);
                self.cluster_records.alter((shard, token), wishes, validate_only, sink);
            }
            ToControl::AlterNodes { token, alterations, validate_only } => {
                let wishes = alterations.into_iter().map(Wish::Node);
                self.cluster_records.alter((shard, token), wishes, validate_only, sink);
            }
            ToControl::DeleteTopics { token, topics } => self.topics.delete((shard, token), topics, sink),
            ToControl::ProducerIds { token } => self.producer_ids.ask(shard, token, sink),
            ToControl::Persist { token, slot, slot_epoch, writes } => {
                self.slots.persist(shard, token, (slot, slot_epoch), writes, sink);
            }
            ToControl::SlotLeft { slot } => self.slots.left(slot, sink),
            ToControl::Loads { bytes } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.on_loads(shard, &bytes, now);
                }
            }
            ToControl::Drained => self.shard_drained(shard),
        }
        self.settle();
    }

    /// A lane reports.
    pub fn on_lane(&mut self, now: Mono, lane: u16, report: LaneReport) {
        self.sink.now = now;
        let stopped = match report {
            LaneReport::Stopped { sealed } => Some(sealed),
            _ => None,
        };
        self.placements += 1;
        self.topics.on_lane(lane, report, &mut self.sink);
        self.settle();
        if let (Some(sealed), Phase::StoppingLanes(left, all_sealed)) = (stopped, &mut self.phase) {
            left.remove(&lane);
            *all_sealed &= sealed;
            if left.is_empty() {
                let all_sealed = *all_sealed;
                self.end(all_sealed);
            }
        }
    }

    /// A store call ended.
    pub fn on_store(&mut self, now: Mono, call: CallId, answer: StoreAnswer) {
        self.sink.now = now;
        match self.sink.ended(call) {
            Owner::Topic(id) => self.topics.on_store(id, answer, &mut self.sink),
            Owner::Slot(slot) => self.slots.on_store(slot, answer, &mut self.sink),
            Owner::ProducerIds => self.producer_ids.on_store(answer, &mut self.sink),
            Owner::GroupSettings => self.group_settings.on_store(answer, &mut self.sink),
            Owner::ClusterRecords => self.cluster_records.on_store(answer, &mut self.sink),
            Owner::Revoke => self.left(),
            owner @ (Owner::Listing(_)
            | Owner::Lease
            | Owner::KeepAlive(_)
            | Owner::Register
            | Owner::Election
            | Owner::Leaving
            | Owner::Suspicions
            | Owner::Loads
            | Owner::Wishes
            | Owner::Costs
            | Owner::CheckDead) => {
                if owner == Owner::Lease && matches!(answer, StoreAnswer::Grant(Ok(_))) {
                    self.slots.doubt_all(&mut self.sink);
                }
                let cluster = self.cluster.as_mut().expect("only a cluster makes these calls");
                cluster.on_store(owner, answer, &mut self.sink);
                if cluster.is_replaced() && self.phase != Phase::Stopped {
                    self.phase = Phase::Stopped;
                    self.sink.replaced();
                }
            }
            Owner::LeadAgain
            | Owner::DrainOver
            | Owner::StopLanes
            | Owner::StopNow
            | Owner::Membership
            | Owner::Observe
            | Owner::Plan
            | Owner::SealAgain
            | Owner::Revoked => unreachable!("these make no store calls"),
        }
        self.settle();
    }

    /// A watch asked for by [`Effect::Watch`] delivers, or has ended.
    pub fn on_watch(&mut self, now: Mono, prefix: &'static str, changes: Result<Vec<Change>, WatchError>) {
        self.sink.now = now;
        let cluster = self.cluster.as_mut().expect("only a cluster watches");
        // What follows is looked at once a turn: many changes come together, and one of a broker concerns every partition.
        cluster.on_watch(prefix, changes, &mut self.sink);
    }

    /// A question asked for by [`Effect::Ping`] came to its end.
    pub fn on_pong(&mut self, now: Mono, ping: &Ping, pong: Pong) {
        self.sink.now = now;
        let cluster = self.cluster.as_mut().expect("only a cluster asks");
        cluster.on_pong(&ping.broker, ping.boot, pong, now);
    }

    /// A log asked for by [`Effect::Seal`] was ended, or could not be.
    pub fn on_sealed(&mut self, now: Mono, wid: Wid, sealed: bool) {
        self.sink.now = now;
        let cluster = self.cluster.as_mut().expect("only a cluster seals");
        cluster.on_sealed(wid, sealed, &mut self.sink);
    }

    /// What the wall clock shows: to be said before every event.
    pub fn set_wall(&mut self, wall: WallMs) {
        self.sink.wall = wall;
    }

    /// Whether a thread of this process is stuck: to be said before every event.
    pub fn set_stuck(&mut self, is_stuck: bool) {
        self.sink.is_stuck = is_stuck;
    }

    /// Hands on what the view, or the end of something of one's own, makes different here.
    fn settle(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        if !cluster.is_complete() || !matches!(self.phase, Phase::Running | Phase::Draining) {
            return;
        }
        loop {
            let touched = cluster.take_touched(&mut self.sink);
            let unsettled = self.topics.take_unsettled();
            let Touched { topics: mut names, mut partitions, mut slots, settings, brokers, .. } = touched;
            for key in settings {
                let (value, through) = cluster.view().setting(&key);
                match keys::parse_group_settings(&key) {
                    Some(group) => self.group_settings.learn(&group, value, through),
                    None => self.cluster_records.learn(&key, value, through),
                }
            }
            self.placements += u64::from(!partitions.is_empty());
            names.extend(unsettled.names);
            partitions.extend(unsettled.partitions);
            let through = cluster.view().through(keys::TOPICS);
            for name in names {
                self.topics.learn(&name, cluster.view().topic(&name), through, &mut self.sink);
            }
            partitions.append(&mut self.topics.take_unsettled().partitions);
            if brokers {
                partitions.extend(self.topics.all_partitions());
                slots.extend(0..COORDINATOR_SLOTS);
                self.image.nodes = cluster.nodes(&self.own).into_iter().map(|node| (node.id, node)).collect();
                self.nodes_changed = true;
            }
            if partitions.is_empty() && slots.is_empty() {
                return;
            }
            for partition in partitions {
                self.topics.place(partition, cluster.home(partition), &mut self.sink);
            }
            for slot in slots {
                self.slots.place(slot, cluster.slot_home(slot), &mut self.sink);
            }
        }
    }

    /// Time passed: call at or after [`ControlCore::next_deadline`].
    pub fn on_time(&mut self, now: Mono) {
        self.sink.now = now;
        while let Some(owner) = self.sink.due() {
            match owner {
                Owner::Topic(id) => self.topics.on_timer(id, &mut self.sink),
                Owner::Slot(slot) => self.slots.on_timer(slot, &mut self.sink),
                Owner::ProducerIds => self.producer_ids.on_timer(&mut self.sink),
                Owner::GroupSettings => self.group_settings.on_timer(&mut self.sink),
                Owner::ClusterRecords => self.cluster_records.on_timer(&mut self.sink),
                Owner::LeadAgain => self.topics.lead_again(&mut self.sink),
                Owner::DrainOver => self.drained(true),
                Owner::StopLanes => self.stop_lanes(),
                Owner::StopNow => self.end(false),
                Owner::Revoked => self.left(),
                owner @ (Owner::Listing(_)
                | Owner::Membership
                | Owner::Observe
                | Owner::Loads
                | Owner::Plan
                | Owner::SealAgain) => {
                    let cluster = self.cluster.as_mut().expect("only a cluster has these timers");
                    for (name, record) in cluster.on_timer(owner, &mut self.sink) {
                        self.topics.finish_change(&name, &record, &mut self.sink);
                    }
                }
                Owner::Lease
                | Owner::KeepAlive(_)
                | Owner::Revoke
                | Owner::Register
                | Owner::Election
                | Owner::Leaving
                | Owner::Suspicions
                | Owner::Wishes
                | Owner::Costs
                | Owner::CheckDead => unreachable!("these have no timers"),
            }
        }
        self.settle();
    }

    /// When [`ControlCore::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.sink.next_deadline()
    }

    // ---- stopping ----

    /// Stop gracefully: others take what is here, then shards stop, then lanes. A second call changes nothing.
    pub fn on_stop(&mut self, now: Mono) {
        self.sink.now = now;
        if self.phase != Phase::Running {
            return;
        }
        self.phase = Phase::Draining;
        if let Some(cluster) = self.cluster.as_mut().filter(|_| !self.drain.is_zero()) {
            cluster.begin_to_leave(&mut self.sink);
            self.sink.wake_after(Owner::DrainOver, self.drain);
            self.drained(false);
        } else {
            self.stop_shards();
        }
    }

    /// Goes on with the stop once nothing is left here that another process could take, or the time for it is over.
    fn drained(&mut self, is_over: bool) {
        let Some(cluster) = self.cluster.as_ref().filter(|_| self.phase == Phase::Draining) else { return };
        if cluster.others_stay() {
            let slots = self.slots.here().max(cluster.own_slots_by_record());
            let is_named = |partition| cluster.is_own_by_record(partition);
            let mut left = self.topics.left_here(self.left_here, is_named);
            if is_over {
                let partitions = left.count();
                if partitions + slots > 0 {
                    tracing::warn!(partitions, slots, "not all was taken by others in time");
                }
            } else if slots > 0 {
                return;
            } else if let Some(found) = left.next() {
                self.left_here = found;
                return;
            }
        }
        self.stop_shards();
    }

    fn stop_shards(&mut self) {
        let shards: BTreeSet<ShardIndex> = self.shards().collect();
        shards.iter().for_each(|&shard| self.sink.shard(shard, FromControl::Stopping));
        self.phase = Phase::StoppingShards(shards);
        self.sink.wake_after(Owner::StopLanes, SHARDS_STOP_WITHIN);
    }

    fn shards(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..u16::try_from(self.nodes.len()).expect("checked when it was made")).map(ShardIndex)
    }

    fn shard_drained(&mut self, shard: ShardIndex) {
        if let Phase::StoppingShards(left) = &mut self.phase {
            left.remove(&shard);
            if left.is_empty() {
                self.stop_lanes();
            }
        }
    }

    fn stop_lanes(&mut self) {
        if matches!(self.phase, Phase::StoppingShards(_)) {
            (0..self.lanes).for_each(|lane| self.sink.lane(lane, LaneCommand::Stop));
            self.phase = Phase::StoppingLanes((0..self.lanes).collect(), true);
            self.sink.wake_after(Owner::StopNow, LANES_STOP_WITHIN);
        }
    }

    /// All that is left is to say that this process is gone, so that nobody waits for the end of its lease.
    fn end(&mut self, sealed: bool) {
        if matches!(self.phase, Phase::Stopped | Phase::Leaving(_)) {
            return;
        }
        self.phase = Phase::Leaving(sealed);
        if self.cluster.as_mut().is_some_and(|cluster| cluster.leave(&mut self.sink)) {
            self.sink.wake_after(Owner::Revoked, REVOKE_WITHIN);
        } else {
            self.left();
        }
    }

    fn left(&mut self) {
        if let Phase::Leaving(sealed) = self.phase {
            self.phase = Phase::Stopped;
            self.sink.stopped(sealed);
        }
    }

    // ---- the image ----

    /// What is to be done, in order; the image and then the answers come last.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        self.settle();
        self.drained(false);
        let image = if self.renew_image() {
            let image = Arc::new(self.image.clone());
            self.shards().map(|shard| Effect::Shard(shard, FromControl::Image(image.clone()))).collect()
        } else {
            Vec::new()
        };
        self.sink.drain(image)
    }

    /// Brings the image up to date; whether it changed.
    fn renew_image(&mut self) -> bool {
        let mut changed = std::mem::take(&mut self.first) | std::mem::take(&mut self.nodes_changed);
        let (topics, removed) = self.topics.take_changed(&self.nodes);
        changed |= !topics.is_empty() || !removed.is_empty();
        for (id, name) in removed {
            // The name may already belong to a successor.
            if self.image.topics.get(&name).is_some_and(|topic| topic.id == id) {
                self.image.topics.remove(&name);
            }
            self.image.names.remove(&id);
        }
        for topic in topics {
            self.image.names.insert(topic.id, topic.name.clone());
            self.image.topics.insert(topic.name.clone(), Arc::new(topic));
        }
        if self.slots.take_changed() {
            changed = true;
            self.image.slots = self.slots.coordinators(&self.nodes).collect();
        }
        if let Some(settings) = self.group_settings.take_changed() {
            changed = true;
            self.image.group_settings = settings;
        }
        if let Some((quotas, settings)) = self.cluster_records.take_changed() {
            changed = true;
            (self.image.quotas, self.image.node_settings) = (quotas, settings);
        }
        let knows_all = self.cluster.as_ref().is_none_or(Cluster::is_complete);
        if !self.image.ready && knows_all && self.topics.all_decided() && self.slots.all_granted() {
            changed = true;
            self.image.ready = true;
        }
        changed
    }
}
