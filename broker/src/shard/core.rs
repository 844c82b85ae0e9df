//! The state machine of one shard.
//!
//! Every event brings the time; what is to be done comes out through [`ShardCore::take_effects`] and
//! [`ShardCore::take_seal`]. Nothing in here blocks, reads a clock or draws a random number.
//!
//! 1. Every request ends with exactly one [`Effect::Reply`], in whatever order; connections put replies in order.
//! 2. Answers to acks −1 and readable offsets follow committed objects only (PROTOCOL.md I2).
//! 3. Seals are numbered from 0 over all fence generations; what was appended before a fence is in no later seal.
//! 4. The same events at the same times give the same effects in the same order.

use super::ack_share::AckShare;
use super::counters::Counters;
use super::deadlines::{Deadlines, Due};
use super::deletions::Deletions;
use super::events::{ConnectionId, Effect, LookupToken, Now, ReadToken, Reply, ReplyTo, RequestNumber};
use super::fetch_sessions::FetchSessions;
use super::fetches::Fetches;
use super::lookups::Lookups;
use super::partition_log::{Gather, PartitionLog, Waiting};
use super::producer_room::{ProducerRoom, SILENT_MS};
use super::produces::Produces;
use super::search::{SearchError, Searched};
use super::split::{PartId, Splits};
use super::stored_bytes::StoredBytes;
use super::tail::TailBudget;
use super::topic_settings::TopicSettings;
use crate::cold::reader::ColdError;
use crate::control::{ClusterImage, Freshness, FromControl, ToControl};
use crate::handlers::errors::PartitionError;
use crate::handlers::group_desk::GroupDesk;
use crate::handlers::questions::Questions;
use crate::handlers::{self, init_producer_id, produce};
use crate::net::budget::Permit;
use crate::net::frame::Frame;
use crate::quotas::ledger::Ledger;
use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::compaction::retention::Retention;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::ids::{BootId, ShardIndex, TopicPartition};
use millrace_storage::lane::{CommittedObject, Seal, ToLane, ToShard};
use millrace_storage::meter::Histogram;
use millrace_storage::partition::CommittedPartition;
use millrace_storage::store_error::StoreError;
use millrace_storage::wrong::{Wrong, wrong};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of batches in one seal, unless a single batch is larger: what the lane makes a full object of.
pub const SEAL_BYTES: usize = 4 * 1024 * 1024;

/// Batches that leave the tail at a time when requests find no memory.
const SHED_BATCHES: usize = 256;

/// What a shard must know of its process.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard of the process it is.
    pub shard: ShardIndex,
    /// Its Kafka node id.
    pub node: i32,
    /// How many shards share one port and node id with this one among them; `None`: each has its own.
    pub sharing_port: Option<u16>,
    /// Bytes of memory that recently committed batches may pin.
    pub tail_bytes: usize,
    /// Bytes that reads of write-ahead objects and segments may have under way or waiting to be answered.
    pub read_bytes: usize,
    /// Bytes of a block, in which segments are read.
    pub block_bytes: usize,
    /// Bytes that may be searched at a time for records by their timestamps.
    pub lookup_bytes: usize,
    /// Bytes of batches in one answer, whatever the client allows. Its first batch may exceed it.
    pub response_bytes: usize,
    /// Bytes that the producers of its partitions may take, at the lane too.
    pub producer_bytes: usize,
    /// Bytes that its groups may take.
    pub group_bytes: usize,
    /// Whether Metadata creates topics that do not exist.
    pub auto_create: bool,
    /// Random, new for every process life: makes the ids of group members unique.
    pub boot: BootId,
}

/// One shard's partitions, requests in progress, and what it knows of the cluster.
pub struct ShardCore {
    config: ShardConfig,
    pub(crate) image: Arc<ClusterImage>,
    pub(crate) logs: BTreeMap<TopicPartition, PartitionLog>,
    pub(crate) produces: Produces,
    pub(crate) fetches: Fetches,
    pub(crate) fetch_sessions: FetchSessions,
    pub(crate) lookups: Lookups,
    pub(crate) deletions: Deletions,
    pub(crate) stored_bytes: StoredBytes,
    pub(crate) questions: Questions,
    pub(crate) producer_ids: init_producer_id::ProducerIds,
    pub(crate) groups: GroupDesk,
    /// What has to do with other shards; `None`: each has a port of its own.
    pub(crate) splits: Option<Splits>,
    peers: BTreeMap<ConnectionId, IpAddr>,
    /// The settings of topics that have none of their own.
    topic_defaults: TopicSettings,
    /// What clients sent and received, where they have quotas.
    pub(crate) quotas: Ledger,
    pub(crate) deadlines: Deadlines,
    pub(crate) effects: Vec<Effect>,
    pub(crate) counters: Counters,
    /// Partitions with unsealed batches, each once, in the order in which they are sealed.
    pub(crate) unsealed: VecDeque<TopicPartition>,
    pub(crate) ack_share: AckShare,
    tail: TailBudget,
    pub(crate) producer_room: ProducerRoom,
    generation: u64,
    next_seal: u64,
    stopping: bool,
    /// The lane's store takes nothing until it has room again.
    store_full: bool,
    /// How long nobody else was put in this process's place; `None`: nobody ever is.
    freshness: Option<Freshness>,
}

impl ShardCore {
    /// A shard that leads nothing and knows of no topic.
    pub fn new(config: ShardConfig) -> ShardCore {
        ShardCore {
            tail: TailBudget::new(config.tail_bytes),
            producer_room: ProducerRoom::new(config.producer_bytes),
            groups: GroupDesk::new(config.boot.0, config.group_bytes),
            fetch_sessions: FetchSessions::new(config.boot.0),
            splits: config.sharing_port.map(Splits::new),
            config,
            image: Arc::default(),
            logs: BTreeMap::new(),
            produces: Produces::default(),
            fetches: Fetches::default(),
            lookups: Lookups::default(),
            deletions: Deletions::default(),
            stored_bytes: StoredBytes::default(),
            questions: Questions::default(),
            producer_ids: Default::default(),
            peers: BTreeMap::new(),
            topic_defaults: TopicSettings::default(),
            quotas: Ledger::default(),
            deadlines: Deadlines::default(),
            effects: Vec::new(),
            counters: Counters::default(),
            unsealed: VecDeque::new(),
            ack_share: AckShare::default(),
            generation: 0,
            next_seal: 0,
            stopping: false,
            store_full: false,
            freshness: None,
        }
    }

    /// Whether other processes may be put in this one's place.
    pub(crate) fn is_among_others(&self) -> bool {
        self.freshness.is_some()
    }

    /// Whether what this shard alone knows is sure to be the newest: nobody was put in its place.
    pub(crate) fn is_fresh(&self, now: Now) -> bool {
        self.freshness.is_none_or(|freshness| freshness.holds(now.mono, now.wall))
    }

    /// How many fences it has seen.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Records the broker's own share of acknowledgements in `histogram` from now on.
    pub fn record_acks_in(&mut self, histogram: Arc<Histogram>) {
        self.ack_share.record_in(histogram);
    }

    /// A client connected.
    pub fn on_connection(&mut self, _now: Now, connection: ConnectionId, peer: SocketAddr) {
        self.peers.insert(connection, peer.ip());
    }

    /// A request arrived. It ends with exactly one [`Effect::Reply`] to `reply_to`. `permit` (of a produce request) is
    /// given back once its batches are committed or refused.
    pub fn on_request(&mut self, now: Now, reply_to: ReplyTo, frame: Frame, permit: Option<Permit>) {
        handlers::dispatch(self, now, reply_to, frame, permit);
    }

    /// The reply to a later request of this connection is ready and waits behind `request`: a parked fetch ends now.
    pub fn on_queued_behind(&mut self, now: Now, connection: ConnectionId, request: RequestNumber) {
        self.hurry_fetch(now, ReplyTo { connection, request }, false);
    }

    /// A connection is gone. Its requests still end, with replies that nobody sends.
    pub fn on_disconnect(&mut self, now: Now, connection: ConnectionId) {
        self.peers.remove(&connection);
        self.quotas.forget(connection);
        self.drop_waiting_of(connection);
        self.drop_parts_of(now, connection);
    }

    /// A message of this shard's lane.
    pub fn on_lane(&mut self, now: Now, message: ToShard) {
        match message {
            ToShard::Committed { through, objects, waits } => {
                assert!(through <= self.next_seal, "the lane commits only what was sealed");
                let mut woken = BTreeSet::new();
                for object in objects {
                    self.committed(&object, &mut woken);
                }
                // Once each, however many of its partitions rose, and before the tail is trimmed, so that nobody who
                // waited for these bytes has to read them from the store.
                for fetch in woken {
                    self.wake_fetch(now, fetch);
                }
                self.ack_share.committed(now.mono, &waits);
                while let Some(owner) = self.tail.evict() {
                    self.logs.get_mut(&owner).expect("a lost partition's tail is forgotten").evict();
                }
            }
            ToShard::Acquired { partition, epoch, state } => {
                assert_eq!(epoch, state.epoch, "the state is that of the epoch acquired");
                self.acquired(now, partition, *state);
            }
            ToShard::Drain { partition, epoch } => {
                if let Some(log) = self.logs.get_mut(&partition) {
                    log.drain();
                }
                // The pump sends it behind the seals of everything appended before.
                self.effects.push(Effect::ToLane(ToLane::Drain { partition, epoch }));
            }
            ToShard::Revoked { partition } => self.lose(now, partition),
            ToShard::Covered { partition, epoch, covered } => {
                if let Some(log) = self.logs.get_mut(&partition).filter(|log| log.epoch() == epoch) {
                    log.cover(covered);
                }
            }
            ToShard::StoreFull(full) => self.store_full = full,
            ToShard::Looked { unfenced } => self.lane_looked(now, unfenced),
            ToShard::Fenced { generation } => {
                self.generation = generation;
                self.store_full = false;
                self.tail.forget_all();
                self.producer_room.forget_all();
                self.unsealed.clear();
                self.ack_share.forget_all();
                let logs = std::mem::take(&mut self.logs);
                self.end_leaderships(now, logs.into_values());
                self.forget_looks(now);
            }
        }
    }

    /// A message of the control task.
    pub fn on_control(&mut self, now: Now, message: FromControl) {
        match message {
            FromControl::Image(image) => self.set_image(image),
            FromControl::Topics { token, topics } => self.topics_answered(now, token, Some(topics)),
            FromControl::Altered { token, results } => self.altered(token, results),
            FromControl::ProducerIds { token, first } => init_producer_id::answered(self, token, first),
            FromControl::Fresh(freshness) => self.freshness = Some(freshness),
            FromControl::Stopping => self.stopping = true,
            FromControl::Persisted { token, result } => self.group_written(now, token, result),
            FromControl::SlotGranted { slot, slot_epoch, groups, offsets } => {
                self.slot_granted(now, slot, slot_epoch, &groups, &offsets);
            }
            FromControl::SlotRevoked { slot } => self.slot_revoked(slot),
        }
    }

    /// A read asked for by [`Effect::Read`] ended; `None`: no such object.
    pub fn on_read(&mut self, now: Now, token: ReadToken, result: Result<Option<Bytes>, StoreError>) {
        self.finish_read(now, token, result);
    }

    /// A read asked for by [`Effect::ColdRead`] ended.
    pub fn on_cold_read(&mut self, now: Now, token: ReadToken, result: Result<RecordSet, ColdError>) {
        self.finish_cold_read(now, token, result);
    }

    /// A search asked for by [`Effect::Search`] ended.
    pub fn on_searched(&mut self, _now: Now, token: LookupToken, result: Result<Searched, SearchError>) {
        self.searched(token, result);
    }

    /// Time passed: call at or after [`ShardCore::next_deadline`].
    pub fn on_time(&mut self, now: Now) {
        while let Some(due) = self.deadlines.take_due(now.mono) {
            match due {
                Due::Produce(request) => produce::time_out(self, request),
                Due::Fetch(request) => self.hurry_fetch(now, request, true),
                Due::Lookups(request) => self.time_out_lookups(request),
                Due::Deletion(request) => self.time_out_deletion(request),
                Due::StoredBytes(request) => self.end_stored_bytes(request),
                Due::Question(token) => self.topics_answered(now, token, None),
            }
        }
        self.groups_on_time(now);
    }

    /// When [`ShardCore::on_time`] has something to do; `None` while nothing waits for time.
    pub fn next_deadline(&self) -> Option<Mono> {
        [self.deadlines.next(), self.groups.coordinator.next_deadline()].into_iter().flatten().min()
    }

    /// Tells the control task what partitions cost. Not in the course of a stop, which has a last message.
    pub fn tell_loads(&mut self, _now: Now) {
        if self.stopping {
            return;
        }
        let moved = self.logs.values_mut().map(|log| (log.partition(), log.take_moved()));
        let bytes = moved.filter(|(_, bytes)| *bytes > 0).collect();
        self.effects.push(Effect::ToControl(ToControl::Loads { bytes }));
    }

    /// Keeps a committed offset that nobody uses for so long.
    pub fn keep_offsets_for(&mut self, retention: Duration) {
        self.groups.coordinator.keep_offsets_for(retention);
    }

    /// Moves what is to be done to the end of `into`, in order.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// What was appended since the last seal, if anything: to be called, until it gives nothing, when the lane's
    /// mailbox has a place.
    pub fn take_seal(&mut self, _now: Now) -> Option<Seal> {
        let mut chosen = Vec::new();
        let (mut room, mut small) = (SEAL_BYTES, 0);
        for partition in &self.unsealed {
            let log = self.logs.get(partition).expect("a partition that is lost leaves the list");
            let (taken, copied) = log.unsealed_bytes(room);
            chosen.push((*partition, room));
            small += copied;
            room = room.saturating_sub(taken);
            if room == 0 {
                break;
            }
        }
        if chosen.is_empty() {
            return None;
        }
        let mut gather = Gather::new(small);
        let mut entries = Vec::with_capacity(chosen.len());
        for (partition, room) in chosen {
            let log = self.logs.get_mut(&partition).expect("looked at above");
            let Some(entry) = log.seal(room, entries.is_empty(), &mut gather) else { break };
            entries.push(entry);
            self.unsealed.pop_front();
            if log.has_unsealed() {
                // Behind the others: a partition with a backlog of several seals must not keep them waiting.
                self.unsealed.push_back(partition);
                break;
            }
        }
        self.counters.seals += 1;
        self.counters.copied_at_seal_bytes += gather.copied() as u64;
        let number = self.next_seal;
        self.next_seal += 1;
        self.ack_share.sealed(number);
        Some(Seal { number, generation: self.generation, entries })
    }

    /// Requests find no memory because a few live bytes keep whole chunks: drops the oldest batches of the tail, at most
    /// [`SHED_BATCHES`]. Readers find them in the store.
    pub fn shed_tail(&mut self) {
        for _ in 0..SHED_BATCHES {
            let Some(owner) = self.tail.evict_oldest() else { return };
            self.logs.get_mut(&owner).expect("a lost partition's tail is forgotten").evict();
        }
    }

    /// Bytes that the tail keeps.
    pub fn tail_bytes(&self) -> usize {
        self.tail.used()
    }

    /// Bytes read from write-ahead objects and segments, or being read, for answers not yet made.
    pub fn read_bytes(&self) -> usize {
        self.fetches.charged()
    }

    /// Bytes that are searched for records by their timestamps.
    pub fn lookup_bytes(&self) -> usize {
        self.lookups.charged()
    }

    /// Bytes that its groups take, by estimate.
    pub fn group_bytes(&self) -> usize {
        self.groups.coordinator.bytes()
    }

    /// Bytes of its groups' writes under way.
    pub fn group_writing_bytes(&self) -> usize {
        self.groups.coordinator.writing_bytes()
    }

    /// Bytes that the producers of its partitions take, here and at the lane, by estimate.
    pub fn producer_bytes(&self) -> usize {
        self.logs.values().map(|log| 2 * log.appended.producers().memory()).sum()
    }

    /// Bytes that the references of its partitions take, here and at the lane, by estimate.
    pub fn reference_bytes(&self) -> usize {
        self.logs.values().map(|log| 2 * log.references().memory()).sum()
    }

    /// Whether one more producer can be remembered, if need be instead of others that have long been silent.
    pub(crate) fn has_room_for_producer(&mut self, now: Now) -> bool {
        if self.producer_room.should_look(now.wall) {
            self.forget_silent_producers(now);
        }
        !self.producer_room.is_full()
    }

    /// Forgets those silent for longest, at the lane too.
    fn forget_silent_producers(&mut self, now: Now) {
        let before = WallMs(now.wall.0.saturating_sub(SILENT_MS));
        let of = |(partition, log): (&TopicPartition, &PartitionLog)| {
            let partition = *partition;
            log.appended.silent_producers(before).map(move |(at, id)| (at, (partition, id))).collect::<Vec<_>>()
        };
        let mut silent: Vec<(WallMs, (TopicPartition, i64))> = self.logs.iter().flat_map(of).collect();
        self.producer_room.choose(now.wall, &mut silent);
        let mut by_partition: BTreeMap<TopicPartition, Vec<i64>> = BTreeMap::new();
        for (_, (partition, id)) in silent {
            by_partition.entry(partition).or_default().push(id);
        }
        for (partition, producers) in by_partition {
            let log = self.logs.get_mut(&partition).expect("looked through above");
            let before = log.appended.producers().len();
            producers.iter().for_each(|id| log.appended.forget_producer(*id));
            self.producer_room.changed(before, log.appended.producers().len());
            self.counters.producers_forgotten += producers.len() as u64;
            let epoch = log.epoch();
            self.effects.push(Effect::ToLane(ToLane::ForgetProducers { partition, epoch, producers }));
        }
    }

    /// What this shard counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Which shard this is.
    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    /// Whether everything known at start-up has been recovered, as far as this shard has heard.
    pub fn is_ready(&self) -> bool {
        self.image.ready && !self.stopping
    }

    /// Whether no produce request waits and nothing is unsealed: a stopping process may end its connections.
    pub fn is_drained(&self) -> bool {
        self.produces.is_empty() && self.unsealed.is_empty()
    }

    /// This shard's node id.
    pub(crate) fn node(&self) -> i32 {
        self.config.node
    }

    /// Whether all shards share one port.
    pub(crate) fn shares_port(&self) -> bool {
        self.splits.is_some()
    }

    /// Whether the process stops.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether new batches are refused because the store has no room for those before them.
    pub(crate) fn store_full(&self) -> bool {
        self.store_full
    }

    /// Address of a connection's client, as Kafka spells it.
    pub(crate) fn host_of(&self, connection: ConnectionId) -> String {
        self.peers.get(&connection).map_or_else(String::new, |address| format!("/{address}"))
    }

    /// Reads nothing more of a connection for so long; what its client is told, in milliseconds (KIP-219).
    pub(crate) fn hold_back(&mut self, now: Now, connection: ConnectionId, pause: Duration) -> i32 {
        if pause.is_zero() {
            return 0;
        }
        self.counters.throttled += 1;
        self.effects.push(Effect::Mute { connection, until: now.mono.plus(pause) });
        // At least one, so that a client which is held back is told so.
        i32::try_from(pause.as_millis().max(1)).unwrap_or(i32::MAX)
    }

    /// The same, as it is.
    pub(crate) fn address_of(&self, connection: ConnectionId) -> Option<IpAddr> {
        self.peers.get(&connection).copied()
    }

    /// Does something for a client of another shard, whose address is known meanwhile.
    pub(crate) fn with_address(
        &mut self,
        connection: ConnectionId,
        address: Option<IpAddr>,
        act: impl FnOnce(&mut ShardCore),
    ) {
        if let Some(address) = address {
            self.peers.insert(connection, address);
        }
        act(self);
        self.peers.remove(&connection);
    }

    /// Ends a request.
    pub(crate) fn end(&mut self, reply_to: ReplyTo, reply: Reply) {
        match reply_to.connection.home() {
            None => self.effects.push(Effect::Reply(reply_to, reply)),
            Some(home) => self.answer_part(home, PartId(reply_to.request.0), reply),
        }
    }

    /// The log of a partition that this shard leads, if the client's leader epoch (−1: not said) is ours (KIP-320).
    pub(crate) fn leading(&self, partition: TopicPartition, epoch: i32) -> Result<&PartitionLog, PartitionError> {
        let log = self.logs.get(&partition).ok_or(PartitionError::NotLeader)?;
        match epoch {
            ..0 => Ok(log),
            epoch if epoch < log.epoch().0 => Err(PartitionError::FencedEpoch),
            epoch if epoch > log.epoch().0 => Err(PartitionError::UnknownEpoch),
            _ => Ok(log),
        }
    }

    /// Raises high watermarks and answers whom they answer; who reads there is put into `woken`.
    fn committed(&mut self, object: &Arc<CommittedObject>, woken: &mut BTreeSet<ReplyTo>) {
        for start in &object.footer.log_starts {
            if let Some(log) = self.logs.get_mut(&start.partition) {
                log.raise_log_start(start.offset);
                self.log_start_rose(start.partition);
            }
        }
        for entry in &object.footer.partitions {
            // Entries of other shards, and of leaderships that are over.
            let Some(log) = self.logs.get_mut(&entry.partition).filter(|log| log.epoch() == entry.epoch) else {
                continue;
            };
            let before = log.high_watermark();
            log.commit(object, entry, &mut self.tail);
            let now = log.high_watermark();
            woken.extend(log.parked());
            let mut answered: SmallVec<[Waiting; 8]> = SmallVec::new();
            while let Some(waiting) = log.next_answered() {
                answered.push(waiting);
            }
            for waiting in answered {
                produce::decide(self, waiting, ErrorCode::None);
            }
            self.ask_for_log_starts(entry.partition, before, now);
        }
    }

    fn acquired(&mut self, now: Now, partition: TopicPartition, state: CommittedPartition) {
        self.lose(now, partition);
        let settings = self.settings_of(partition);
        self.producer_room.changed(0, state.producers.len());
        self.tell_retention(partition, Retention::default(), settings.retention);
        self.logs.insert(partition, PartitionLog::acquired(partition, state, settings));
    }

    /// The lane merges nothing that is not to expire together.
    fn tell_retention(&mut self, partition: TopicPartition, known: Retention, retention: Retention) {
        if known != retention {
            self.effects.push(Effect::ToLane(ToLane::Retention { partition, retention }));
        }
    }

    /// The leadership of `partition` is over.
    fn lose(&mut self, now: Now, partition: TopicPartition) {
        let Some(log) = self.logs.remove(&partition) else { return };
        self.tail.forget(partition, log.tail_pinned());
        self.producer_room.changed(log.appended.producers().len(), 0);
        if log.has_unsealed() {
            self.unsealed.retain(|other| *other != partition);
        }
        self.end_leaderships(now, std::iter::once(log));
    }

    /// These logs were taken out: whoever waits for them is told, what they appended is dropped.
    fn end_leaderships(&mut self, now: Now, logs: impl Iterator<Item = PartitionLog>) {
        let mut woken = BTreeSet::new();
        for mut log in logs {
            for waiting in log.take_waiting() {
                let trusts = wrong(Wrong::LeaseTrusted) && self.is_among_others() && self.is_fresh(now);
                let error = if trusts { ErrorCode::None } else { ErrorCode::NotLeaderOrFollower };
                produce::decide(self, waiting, error);
            }
            woken.extend(log.parked());
            self.end_deletions_of(log.partition());
        }
        for fetch in woken {
            self.wake_fetch(now, fetch);
        }
    }

    fn set_image(&mut self, image: Arc<ClusterImage>) {
        self.groups.coordinator.on_image(image.clone());
        self.quotas.set_table(&image.quotas);
        self.topic_defaults = TopicSettings::of_node(&image.node_settings, self.config.node);
        self.image = image;
        self.settle_groups();
        let partitions: Vec<TopicPartition> = self.logs.keys().copied().collect();
        for partition in partitions {
            let settings = self.settings_of(partition);
            let log = self.logs.get_mut(&partition).expect("listed just now");
            let before = std::mem::replace(&mut log.settings, settings);
            self.tell_retention(partition, before.retention, settings.retention);
        }
    }

    fn settings_of(&self, partition: TopicPartition) -> TopicSettings {
        let topic = self.image.names.get(&partition.topic).and_then(|name| self.image.topics.get(name));
        topic.map_or(self.topic_defaults, |topic| self.topic_defaults.of_topic(&topic.settings))
    }
}
