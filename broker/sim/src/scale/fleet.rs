//! A cluster whose first two brokers have real control tasks (the controller, and one that is nothing special), and whose
//! others write what they would: their keys, and by their lanes ([`super::lanes`]) what the controller's wishes come to.
//!
//! The store answers at once, so virtual time is that of timers alone.

use super::counted::{Amount, Counted, Counts, kind_of};
use super::lanes::{Done, Lanes};
use super::seen::{Computed, Seen, Wanted, thread_time};
use futures::StreamExt as _;
use futures::executor::block_on;
use millrace_broker::control::cluster::{ClusterConfig, broker_record};
use millrace_broker::control::core::{ControlConfig, ControlCore};
use millrace_broker::control::start::{Loaded, kafka_uuid};
use millrace_broker::control::{COORDINATOR_SLOTS, Node};
use millrace_broker::handlers::metadata;
use millrace_protocol::frame::response_frame;
use millrace_storage::env::Mono;
use millrace_storage::ids::{BootId, ShardIndex, TopicId};
use millrace_storage::lane::{LaneCommand, LaneReport, ToLead};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::meta::records::{RECORD_VERSION, Record, SlotRecord, TopicRecord, TopicState, WishRecord};
use millrace_storage::meta::{LeaseId, MAX_PAGE, MetaStore, Op, Revision, Txn, TxnOutcome, WatchStream, keys};
use millrace_storage::sim::Dice;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use uuid::Uuid;

/// Shards of a broker.
const SHARDS: u16 = 2;
/// Zones, dealt in turn.
const ZONES: usize = 3;
/// Real ones.
const SEEN: usize = 2;
const LEASE: Duration = Duration::from_secs(5);
/// Virtual time that an event may take.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Lanes that write before the control tasks have a turn.
const WRITERS_PER_TURN: usize = 16;
/// Topics whose records are put by one transaction.
const TOPICS_PER_TXN: usize = 100;
/// Version of Metadata.
const METADATA: i16 = 12;
/// More changes than any event makes: none is missed for being slow.
const HISTORY: usize = 4_000_000;

/// What an event came to.
pub struct Event {
    /// What it was.
    pub name: &'static str,
    /// Partitions that have another leader.
    pub moved: usize,
    /// Until all was as it shall be.
    pub virtual_time: Duration,
    /// What the controller computed.
    pub controller: Computed,
    /// What another broker did.
    pub bystander: Computed,
    /// What was written.
    pub counts: Counts,
}

struct Broker {
    name: String,
    boot: BootId,
    lease: Option<LeaseId>,
    alive: bool,
}

/// See the module.
pub struct Fleet {
    now: Mono,
    dice: Dice,
    memory: MemoryMeta,
    store: Rc<dyn MetaStore>,
    counts: Counts,
    size: usize,
    brokers: Vec<Broker>,
    seen: Vec<Seen>,
    lanes: Lanes,
    wishes: Vec<WatchStream>,
    slots: BTreeMap<u16, (Option<SlotRecord>, Option<WishRecord>)>,
    moved: usize,
    topics: u32,
    partitions: usize,
}

impl Fleet {
    /// So many brokers, none of which has joined.
    pub fn new(brokers: u16) -> Fleet {
        let memory = MemoryMeta::with_history(Uuid::from_u128(1), HISTORY);
        let counts = Counts::default();
        let store: Rc<dyn MetaStore> = Rc::new(Counted::new(Rc::new(memory.clone()), &counts));
        let followed = [keys::WISHES, keys::SLOT_WISHES, keys::SLOTS];
        let wishes = followed.iter().map(|prefix| memory.watch(prefix, Revision(0))).collect();
        Fleet {
            now: Mono(0),
            dice: Dice::new(1),
            lanes: Lanes::new(store.clone()),
            memory,
            store,
            counts,
            size: usize::from(brokers),
            brokers: Vec::new(),
            seen: Vec::new(),
            wishes,
            slots: BTreeMap::new(),
            moved: 0,
            topics: 0,
            partitions: 0,
        }
    }

    fn write(&self, ops: Vec<Op>) {
        let outcome = block_on(self.store.txn(Txn { compares: Vec::new(), ops }));
        assert!(matches!(outcome, Ok(TxnOutcome::Committed(_))), "{outcome:?}");
    }

    fn id(&mut self) -> Uuid {
        kafka_uuid(|| (u128::from(self.dice.bits()) << 64) | u128::from(self.dice.bits()))
    }

    // ---- brokers ----

    fn join(&mut self) {
        let number = self.brokers.len();
        let (name, boot) = (format!("millrace-{number:04}"), BootId(self.dice.bits()));
        let first = i32::try_from(number * usize::from(SHARDS) + 1).expect("thousands");
        let zone = Some(format!("eu-central-1{}", ["a", "b", "c"][number % ZONES]));
        let node = |shard: u16| Node {
            id: first + i32::from(shard),
            host: format!("{name}.millrace.svc.cluster.local"),
            port: 9_092 + shard,
            rack: zone.clone(),
            shard: Some(ShardIndex(shard)),
        };
        let nodes: Vec<Node> = (0..SHARDS).map(node).collect();
        for (node, shard) in nodes.iter().zip((0..SHARDS).map(ShardIndex)) {
            let next = Op::Put(keys::NEXT_NODE.to_owned(), (node.id + 1).to_string().into());
            self.write(vec![Op::Put(keys::node(&name, shard), node.id.to_string().into()), next]);
        }
        let cluster = ClusterConfig { zone, lease: LEASE, drain: Duration::ZERO, admin: None };
        let mut broker = Broker { name: name.clone(), boot, lease: None, alive: true };
        let wid = self.lanes.open(&name, boot);
        if self.seen.len() < SEEN {
            let config = ControlConfig {
                broker: name,
                boot,
                cluster_id: "scale".to_owned(),
                nodes,
                shared_port: false,
                lanes: 1,
                default_partitions: 4,
                max_partitions: u32::MAX,
                cluster: Some(cluster),
            };
            let new_id = Box::new(|| -> TopicId { unreachable!("no topic is made through it") });
            let core = ControlCore::new(self.now, config, Loaded::default(), new_id);
            let mut seen = Seen::new(core, self.store.clone());
            seen.on_lane(self.now, LaneReport::Opened { wid });
            self.seen.push(seen);
        } else {
            let lease = block_on(self.store.grant(LEASE)).expect("memory answers").id;
            let record = broker_record(&cluster, boot, &nodes, false).encode();
            self.write(vec![Op::PutLeased(keys::broker(&broker.name), record, lease)]);
            broker.lease = Some(lease);
        }
        self.brokers.push(broker);
    }

    /// The last of those that are not seen.
    fn last(&self) -> usize {
        let living = self.brokers.iter().enumerate().filter(|(_, broker)| broker.alive);
        living.map(|(number, _)| number).next_back().filter(|number| *number >= SEEN).expect("more than two live")
    }

    // ---- events ----

    fn begin(&mut self) {
        self.settle();
        self.counts.take();
        for seen in &mut self.seen {
            seen.take_computed();
        }
        self.moved = 0;
    }

    fn event(&mut self, name: &'static str, act: impl FnOnce(&mut Fleet), is_done: impl Fn(&Fleet) -> bool) -> Event {
        self.begin();
        let began = self.now;
        act(self);
        self.settle();
        while !is_done(self) {
            assert!(self.now.since(began) < PATIENCE, "{name} comes to no end");
            self.step(began.plus(PATIENCE));
        }
        let virtual_time = self.now.since(began);
        // What follows of itself: the controller looks once more and finds nothing.
        self.pass(
            Duration::from_secs(1) + Duration::from_micros(5) * u32::try_from(self.partitions).unwrap_or(u32::MAX),
        );
        let (controller, bystander) = (self.seen[0].take_computed(), self.seen[1].take_computed());
        Event { name, moved: self.moved, virtual_time, controller, bystander, counts: self.counts.take() }
    }

    /// All brokers come at once.
    pub fn join_all(&mut self) -> Event {
        let join = |fleet: &mut Fleet| {
            // The first is controller before others look for one.
            fleet.join();
            fleet.settle();
            (1..fleet.size).for_each(|_| fleet.join());
        };
        let have_coordinators = |fleet: &Fleet| {
            let taken = fleet.slots.values().filter(|(record, _)| record.is_some());
            taken.count() == usize::from(COORDINATOR_SLOTS)
        };
        self.event("all join", join, have_coordinators)
    }

    /// Topics are there at once, of which nothing was placed.
    pub fn place_first(&mut self, topics: u32, partitions: u32) -> Event {
        let create = |fleet: &mut Fleet| {
            let numbers: Vec<u32> = (fleet.topics..fleet.topics + topics).collect();
            for some in numbers.chunks(TOPICS_PER_TXN) {
                let topic = |number: &u32| {
                    let (v, id, settings) = (RECORD_VERSION, TopicId(fleet.id()), BTreeMap::new());
                    let record = TopicRecord { v, id, state: TopicState::Live, partitions, settings };
                    Op::Put(keys::topic(&format!("orders-of-region-{number:05}")), record.encode())
                };
                let ops = some.iter().map(topic).collect();
                fleet.write(ops);
            }
            fleet.topics += topics;
            fleet.partitions += usize::try_from(topics * partitions).expect("millions");
        };
        self.event("first placement", create, Fleet::all_led)
    }

    /// The lease of one broker ends.
    pub fn kill_one(&mut self) -> Event {
        let kill = |fleet: &mut Fleet| {
            let killed = fleet.last();
            fleet.brokers[killed].alive = false;
            fleet.lanes.kill(killed);
            let lease = fleet.brokers[killed].lease.expect("it has joined");
            block_on(fleet.store.revoke(lease)).expect("memory answers");
            let slots: Vec<u16> = fleet.slots.keys().copied().collect();
            slots.into_iter().for_each(|slot| fleet.settle_slot(slot));
        };
        self.event("one is killed", kill, Fleet::all_led)
    }

    /// An operator has one broker left.
    pub fn drain_one(&mut self) -> Event {
        let drained = self.last();
        let key = keys::drain(&self.brokers[drained].name);
        let drain = |fleet: &mut Fleet| fleet.write(vec![Op::Put(key.clone(), bytes::Bytes::new())]);
        let event = self.event("one is drained", drain, |fleet| fleet.all_led() && fleet.lanes.led_by(drained) == 0);
        let leave = |fleet: &mut Fleet| {
            fleet.brokers[drained].alive = false;
            fleet.lanes.kill(drained);
            let lease = fleet.brokers[drained].lease.expect("it has joined");
            block_on(fleet.store.revoke(lease)).expect("memory answers");
            fleet.write(vec![Op::Delete(key.clone())]);
        };
        self.event("it ends", leave, Fleet::all_led);
        event
    }

    /// One broker more.
    pub fn add_one(&mut self) -> Event {
        let added = self.brokers.len();
        let living = self.brokers.iter().filter(|broker| broker.alive).count() + 1;
        let share = self.partitions / (living * usize::from(SHARDS)) * usize::from(SHARDS);
        let is_done = |fleet: &Fleet| fleet.all_led() && fleet.lanes.led_by(added) >= share;
        self.event("one is added", Fleet::join, is_done)
    }

    fn all_led(&self) -> bool {
        self.lanes.led() == self.partitions
    }

    // ---- what there is ----

    /// Keys of all kinds.
    pub fn contents(&self) -> BTreeMap<String, Amount> {
        let (mut all, mut after): (BTreeMap<String, Amount>, _) = (BTreeMap::new(), None);
        loop {
            let page = block_on(self.memory.list(keys::ALL, after, MAX_PAGE)).expect("memory answers");
            for (key, found) in &page.entries {
                let bytes = key.len() + found.value.len();
                all.entry(kind_of(key).to_owned()).or_default().add(1, bytes as u64);
            }
            after = page.entries.last().map(|(key, _)| key.clone());
            if !page.more {
                return all;
            }
        }
    }

    /// Bytes of what a client is told that asks for all topics, and how long that takes.
    pub fn metadata_response(&self) -> (usize, Duration) {
        let image = self.seen[1].image.clone().expect("it has told its shards of the cluster");
        let before = thread_time();
        let response = metadata::of_all(&image);
        let frame = response_frame(&response, METADATA, 1).expect("a response of a version that has it");
        (frame.iter().map(bytes::Bytes::len).sum(), thread_time().saturating_sub(before))
    }

    // ---- time ----

    fn pass(&mut self, time: Duration) {
        let until = self.now.plus(time);
        while self.now < until {
            self.step(until);
        }
    }

    /// To the next timer, or `until`.
    fn step(&mut self, until: Mono) {
        let next = self.seen.iter().filter_map(Seen::next_deadline).min();
        self.now = next.map_or(until, |next| next.min(until)).max(self.now);
        let now = self.now;
        for seen in self.seen.iter_mut().filter(|seen| seen.next_deadline().is_some_and(|at| at <= now)) {
            seen.on_time(now);
        }
        self.settle();
    }

    /// Carries out whatever is asked for, until nothing is.
    fn settle(&mut self) {
        let mut progress = true;
        while std::mem::take(&mut progress) {
            for number in 0..self.seen.len() {
                progress |= self.turn(number);
            }
            progress |= self.follow_wishes();
            for _ in 0..WRITERS_PER_TURN {
                let Some(done) = self.lanes.work() else { break };
                progress = true;
                done.into_iter().for_each(|done| self.on_done(&done));
            }
        }
    }

    fn turn(&mut self, number: usize) -> bool {
        let brokers = &self.brokers;
        let answers = |name: &str| brokers.iter().any(|broker| broker.name == name && broker.alive);
        let (progress, wanted) = self.seen[number].turn(self.now, answers);
        for wanted in wanted {
            match wanted {
                Wanted::Lane(LaneCommand::Lead { partitions }) => {
                    for ToLead { partition, shard, .. } in partitions {
                        self.lanes.lead(number, partition, shard, |_| false);
                    }
                }
                Wanted::Lane(LaneCommand::Release { partitions }) => {
                    partitions.into_iter().for_each(|partition| self.lanes.release(number, partition));
                }
                Wanted::Lane(_) => {}
                Wanted::Seal(wid) => {
                    self.lanes.seal(wid);
                    self.seen[number].on_sealed(self.now, wid);
                }
            }
        }
        progress
    }

    fn on_done(&mut self, done: &Done) {
        match *done {
            Done::Leads { lane, partition, shard, epoch } => {
                self.moved += 1;
                if let Some(seen) = self.seen.get_mut(lane) {
                    seen.on_lane(self.now, LaneReport::Leading { partition, shard, epoch });
                }
            }
            Done::Left { lane, partition } => {
                if let Some(seen) = self.seen.get_mut(lane) {
                    seen.on_lane(self.now, LaneReport::NotLeading { partition });
                }
            }
        }
    }

    // ---- what those do that are not seen ----

    fn follow_wishes(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut changes = Vec::new();
        for watch in &mut self.wishes {
            while let Poll::Ready(Some(some)) = watch.poll_next_unpin(&mut cx) {
                changes.extend(some.expect("the history is long enough"));
            }
        }
        let progress = !changes.is_empty();
        for change in changes {
            let value = change.value.as_deref();
            let wish = || value.map(|value| WishRecord::decode(value).expect("a record of ours"));
            if let Some(partition) = keys::parse_wish(&change.key) {
                let Some(wish) = wish() else { continue };
                let lane = self.lanes.of(&wish.broker).expect("one of the fleet");
                if lane >= SEEN {
                    self.lanes.lead(lane, partition, wish.shard, |owner| owner >= SEEN);
                } else {
                    self.lanes.keep_for(lane, partition);
                    if let Some(owner) = self.lanes.owner(partition).filter(|owner| *owner >= SEEN) {
                        self.lanes.release(owner, partition);
                    }
                }
            } else if let Some(slot) = keys::parse_slot_wish(&change.key) {
                self.slots.entry(slot).or_default().1 = wish();
                self.settle_slot(slot);
            } else if let Some(slot) = keys::parse_slot(&change.key) {
                let record = value.map(|value| SlotRecord::decode(value).expect("a record of ours"));
                self.slots.entry(slot).or_default().0 = record;
                self.settle_slot(slot);
            }
        }
        progress
    }

    fn living(&self, name: &str) -> Option<usize> {
        self.lanes.of(name).filter(|number| self.brokers[*number].alive)
    }

    /// Takes a slot for the broker that it is wished to, or lets go of it.
    fn settle_slot(&mut self, slot: u16) {
        let Some((record, Some(wish))) = self.slots.get(&slot).cloned() else { return };
        let Some(wished) = self.living(&wish.broker) else { return };
        let holder = record.as_ref().filter(|record| !record.released).and_then(|record| self.living(&record.broker));
        let after = match (holder, record) {
            (None, record) if wished >= SEEN => {
                let epoch = record.map_or(0, |record| record.epoch) + 1;
                let (v, boot, broker) = (RECORD_VERSION, self.brokers[wished].boot, wish.broker.clone());
                SlotRecord { v, epoch, broker, boot, shard: wish.shard, released: false }
            }
            (Some(holder), Some(record)) if holder >= SEEN && holder != wished => {
                SlotRecord { released: true, ..record }
            }
            _ => return,
        };
        self.write(vec![Op::Put(keys::slot(slot), after.encode())]);
    }
}
