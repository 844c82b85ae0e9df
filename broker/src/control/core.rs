//! The control task as a pure state machine: answers of stores, reports of lanes, questions of shards and time go in;
//! store calls, lane commands and messages to shards come out.
//!
//! It is made of parts that don't know of each other: `topics`, `slots`, `producer_ids`, `group_settings`,
//! `cluster_records`. This file hands events to them, publishes the image that they amount to, and stops the process in
//! order.
//!
//! Invariants:
//! 1. One image per turn at most ([`ControlCore::take_effects`]), only if something changed, before the turn's answers.
//! 2. `ready` rises once, when every partition known at start-up is led or damaged and every slot granted.
//! 3. Nothing waits without a bound: [`ControlCore::wants_questions`] is false while as many questions wait as may.

use super::cluster_records::{ClusterRecords, Wish};
use super::effects::{CallId, Effect, Owner, Sink, StoreAnswer};
use super::group_settings::GroupSettings;
use super::messages::{ClusterImage, FromControl, Node, ToControl};
use super::producer_ids::ProducerIds;
use super::slots::Slots;
use super::start::Loaded;
use super::topics::{Counts, PartitionNumbers, Topics};
use millrace_storage::env::Mono;
use millrace_storage::ids::{BootId, ShardIndex, TopicId};
use millrace_storage::lane::{LaneCommand, LaneReport};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

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
}

#[derive(Clone, PartialEq, Eq)]
enum Phase {
    Running,
    /// Shards were told; those that are not done yet.
    StoppingShards(BTreeSet<ShardIndex>),
    /// Lanes were told; those that are not done yet, and whether all others sealed.
    StoppingLanes(BTreeSet<u16>, bool),
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
    image: ClusterImage,
    /// Whether the image was never published.
    first: bool,
    phase: Phase,
}

impl ControlCore {
    /// Begins with what was found in the store; `new_id` gives random topic ids.
    pub fn new(now: Mono, config: ControlConfig, loaded: Loaded, new_id: Box<dyn FnMut() -> TopicId>) -> ControlCore {
        let shards = u16::try_from(config.nodes.len()).expect("the number of shards is a small setting");
        assert!(shards > 0 && config.lanes > 0, "a process has a shard and a lane");
        let mut sink = Sink::default();
        sink.now = now;
        let numbers = PartitionNumbers { default: config.default_partitions, most: config.max_partitions };
        let mut topics = Topics::new(Counts { shards, lanes: config.lanes }, numbers, new_id);
        for (name, record) in loaded.topics {
            topics.load(name, record, &loaded.partitions, &mut sink);
        }
        let producer_ids = ProducerIds::new(loaded.producer_ids, config.lanes, &mut sink);
        let cluster_records = ClusterRecords::new(loaded.quotas, loaded.settings);
        let slots = Slots::new(config.broker, config.boot, shards, &mut sink);
        let first = &config.nodes[0];
        let told = if config.shared_port { std::slice::from_ref(first) } else { &config.nodes };
        let image = ClusterImage {
            cluster_id: config.cluster_id,
            controller: first.id,
            default_partitions: config.default_partitions,
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
            group_settings: GroupSettings::new(loaded.group_settings),
            cluster_records,
            image,
            first: true,
            phase: Phase::Running,
        }
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
            ToControl::DeleteTopics { token, names } => self.topics.delete((shard, token), names, sink),
            ToControl::ProducerIds { token } => self.producer_ids.ask(shard, token, sink),
            ToControl::Persist { token, slot, slot_epoch, writes } => {
                self.slots.persist(shard, token, (slot, slot_epoch), writes, sink);
            }
            ToControl::Drained => self.shard_drained(shard),
        }
    }

    /// A lane reports.
    pub fn on_lane(&mut self, now: Mono, lane: u16, report: LaneReport) {
        self.sink.now = now;
        let stopped = match report {
            LaneReport::Stopped { sealed } => Some(sealed),
            _ => None,
        };
        self.topics.on_lane(lane, report, &mut self.sink);
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
            Owner::LeadAgain | Owner::StopLanes | Owner::StopNow => unreachable!("these make no store calls"),
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
                Owner::StopLanes => self.stop_lanes(),
                Owner::StopNow => self.end(false),
            }
        }
    }

    /// When [`ControlCore::on_time`] has something to do.
    pub fn next_deadline(&self) -> Option<Mono> {
        self.sink.next_deadline()
    }

    // ---- stopping ----

    /// Stop gracefully: shards first, then lanes. A second call changes nothing.
    pub fn on_stop(&mut self, now: Mono) {
        self.sink.now = now;
        if self.phase != Phase::Running {
            return;
        }
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

    fn end(&mut self, sealed: bool) {
        if self.phase != Phase::Stopped {
            self.phase = Phase::Stopped;
            self.sink.stopped(sealed);
        }
    }

    // ---- the image ----

    /// What is to be done, in order; the image and then the answers come last.
    pub fn take_effects(&mut self) -> Vec<Effect> {
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
        let mut changed = std::mem::take(&mut self.first);
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
            let nodes = &self.nodes;
            self.image.slots = self.slots.granted().map(|slot| slot.map(|shard| nodes[usize::from(shard.0)])).collect();
        }
        if let Some(settings) = self.group_settings.take_changed() {
            changed = true;
            self.image.group_settings = settings;
        }
        if let Some((quotas, settings)) = self.cluster_records.take_changed() {
            changed = true;
            (self.image.quotas, self.image.node_settings) = (quotas, settings);
        }
        if !self.image.ready && self.topics.all_decided() && self.slots.all_granted() {
            changed = true;
            self.image.ready = true;
        }
        changed
    }
}
