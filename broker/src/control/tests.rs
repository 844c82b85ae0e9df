//! The control core against real in-memory stores with scripted failures and lanes that do as they are told; then the
//! pump on a small executor, from an empty store to a graceful stop.

mod alterations;
mod at_once;
mod cluster_records;
mod draining;
mod group_settings;
mod party;
mod slots;

use super::core::{ControlConfig, ControlCore, LANES_STOP_WITHIN};
use super::effects::{Effect, StoreAnswer, StoreCall};
use super::messages::*;
use super::start::{self, Identity, Loaded, Process, StartError};
use super::{producer_ids, topic_object};
use bytes::Bytes;
use futures::executor::block_on;
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::env::{Env, Mono, Runtime, WallMs};
use millrace_storage::ids::{BootId, LeaderEpoch, ShardIndex, TopicId, TopicPartition, Wid};
use millrace_storage::lane::{LaneCommand, LaneReport, ToLead};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::meta::records::{PartitionRecord, Record, TopicRecord, TopicState};
use millrace_storage::meta::{MetaStore, Op, Txn, keys};
use millrace_storage::object::ObjectStore;
use millrace_storage::object::memory::{MemoryHandle, MemoryStore};
use millrace_storage::store_error::{FailureKind, StoreError};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

const SHARDS: u16 = 2;

/// An environment whose clock stands still unless somebody sleeps.
struct StillWorld {
    now: Cell<u64>,
    drawn: Cell<u64>,
}

impl Runtime for StillWorld {
    fn now(&self) -> Mono {
        Mono(self.now.get())
    }
    fn wall(&self) -> WallMs {
        WallMs(0)
    }
    fn random(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get().wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }
    fn spawn(&self, name: &'static str, _task: futures::future::LocalBoxFuture<'static, ()>) {
        panic!("the control task starts no tasks, but {name} was asked for");
    }
    fn sleep_until(&self, at: Mono) -> futures::future::LocalBoxFuture<'static, ()> {
        self.now.set(self.now.get().max(at.0));
        Box::pin(futures::future::ready(()))
    }
}

fn still_env() -> Env {
    Env::new(Rc::new(StillWorld { now: Cell::new(0), drawn: Cell::new(0) }))
}

fn new_objects() -> Rc<MemoryHandle> {
    Rc::new(MemoryStore::new().handle(still_env()))
}

/// What happens to a store call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Works,
    /// It happens, the answer is lost.
    AnswerLost,
    /// It does not happen, and nobody knows.
    RequestLost,
}

/// A core, its stores, its lanes.
struct Desk {
    core: ControlCore,
    meta: MemoryMeta,
    objects: Rc<MemoryHandle>,
    now: Mono,
    fate: Box<dyn FnMut(&StoreCall) -> Fate>,
    /// Whether lanes lead what they are told to.
    lanes_lead: bool,
    commands: Vec<(u16, LaneCommand)>,
    messages: Vec<(ShardIndex, FromControl)>,
    stopped: Option<bool>,
}

fn config(lanes: u16) -> ControlConfig {
    let node = |shard: u16| Node {
        id: i32::from(shard) + 1,
        host: "localhost".to_owned(),
        port: 9092 + shard,
        rack: None,
        shard: Some(ShardIndex(shard)),
    };
    ControlConfig {
        broker: "b".to_owned(),
        boot: BootId(5),
        cluster_id: "c".to_owned(),
        nodes: (0..SHARDS).map(node).collect(),
        lanes,
        shared_port: false,
        default_partitions: 4,
        max_partitions: 20,
        cluster: None,
    }
}

impl Desk {
    fn on(meta: MemoryMeta, objects: Rc<MemoryHandle>) -> Desk {
        let loaded = block_on(start::load(&still_env(), &meta)).expect("memory answers");
        let mut last: u128 = block_on(meta.list("/topic/", None, 1000)).unwrap().revision.0.unsigned_abs().into();
        let new_id = Box::new(move || {
            last += 1u128;
            TopicId(Uuid::from_u128(last << 32))
        });
        let core = ControlCore::new(Mono(0), config(1), loaded, new_id);
        let (commands, messages) = (Vec::new(), Vec::new());
        let fate = Box::new(|_: &StoreCall| Fate::Works);
        Desk { core, meta, objects, now: Mono(0), fate, lanes_lead: true, commands, messages, stopped: None }
    }

    fn new() -> Desk {
        let mut desk = Desk::on(MemoryMeta::new(Uuid::from_u128(1)), new_objects());
        desk.settle();
        desk.report(LaneReport::Opened { wid: Wid(1) });
        desk
    }

    fn report(&mut self, report: LaneReport) {
        self.core.on_lane(self.now, 0, report);
        self.settle();
    }

    fn ask(&mut self, shard: u16, question: ToControl) {
        self.core.on_shard(self.now, ShardIndex(shard), question);
        self.settle();
    }

    /// Carries out effects until there are none.
    fn settle(&mut self) {
        loop {
            let effects = self.core.take_effects();
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                self.carry_out(effect);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Call(id, call) => {
                let fate = (self.fate)(&call);
                let answer = answer(&self.meta, &self.objects, call, fate);
                self.core.on_store(self.now, id, answer);
            }
            Effect::Lane(lane, command) => {
                if let (LaneCommand::Lead { partitions }, true) = (&command, self.lanes_lead) {
                    for &ToLead { partition, shard, .. } in partitions {
                        let epoch = LeaderEpoch(1);
                        self.core.on_lane(self.now, lane, LaneReport::Leading { partition, shard, epoch });
                    }
                }
                self.commands.push((lane, command));
            }
            Effect::Shard(shard, message) => self.messages.push((shard, message)),
            Effect::Watch(..) | Effect::Seal(_) | Effect::Ping(_) | Effect::Replaced => {
                panic!("a process alone has no need of it")
            }
            Effect::Stopped { sealed } => self.stopped = Some(sealed),
        }
    }

    /// Lets time pass to the next deadline.
    fn wait(&mut self) {
        self.now = self.core.next_deadline().expect("something waits for time");
        self.core.on_time(self.now);
        self.settle();
    }

    fn image(&self) -> Arc<ClusterImage> {
        let images = self.messages.iter().rev().filter_map(|(_, message)| match message {
            FromControl::Image(image) => Some(image.clone()),
            _ => None,
        });
        { images }.next().expect("an image was published")
    }

    fn create(&mut self, token: u64, names: &[&str], auto: bool) {
        let topic = |name: &&str| NewTopic { name: (*name).to_owned(), partitions: None, settings: BTreeMap::new() };
        let topics = names.iter().map(topic).collect();
        self.ask(0, ToControl::CreateTopics { token: Token(token), topics, validate_only: false, auto });
    }

    fn delete(&mut self, token: u64, name: &str) {
        self.ask(
            0,
            ToControl::DeleteTopics {
                token: Token(token),
                topics: vec![TopicDeletion { name: name.to_owned(), id: None }],
            },
        );
    }

    fn topics_answered(&self, token: u64) -> Option<Vec<ErrorCode>> {
        self.messages.iter().find_map(|(_, message)| match message {
            FromControl::Topics { token: found, topics } if found.0 == token => {
                Some(topics.iter().map(|topic| topic.error).collect())
            }
            _ => None,
        })
    }

    fn persisted(&self, token: u64) -> Option<Result<(), ErrorCode>> {
        self.messages.iter().find_map(|(_, message)| match message {
            FromControl::Persisted { token: found, result } if found.0 == token => Some(*result),
            _ => None,
        })
    }

    fn grants(&self, slot: u16) -> Vec<(u64, usize, usize)> {
        let grants = self.messages.iter().filter_map(|(_, message)| match message {
            FromControl::SlotGranted { slot: found, slot_epoch, groups, offsets } if *found == slot => {
                Some((*slot_epoch, groups.len(), offsets.len()))
            }
            _ => None,
        });
        grants.collect()
    }

    fn topic(&self, name: &str) -> Option<TopicRecord> {
        read(&self.meta, &keys::topic(name)).map(|value| TopicRecord::decode(&value).expect("ours"))
    }
}

fn read(meta: &MemoryMeta, key: &str) -> Option<Bytes> {
    let mut snapshot = block_on(meta.get(vec![key.to_owned()])).expect("memory answers");
    snapshot.values.remove(0).map(|found| found.value)
}

fn put(meta: &MemoryMeta, key: &str, value: Bytes) {
    let txn = Txn { compares: Vec::new(), ops: vec![Op::Put(key.to_owned(), value)] };
    block_on(meta.txn(txn)).expect("memory answers");
}

fn answer(meta: &MemoryMeta, objects: &MemoryHandle, call: StoreCall, fate: Fate) -> StoreAnswer {
    macro_rules! met {
        ($variant:ident, $future:expr) => {{
            let lost = || Err(StoreError::unknown(FailureKind::Timeout, "lost"));
            StoreAnswer::$variant(match fate {
                Fate::Works => block_on($future),
                Fate::AnswerLost => block_on($future).and_then(|_| lost()),
                Fate::RequestLost => lost(),
            })
        }};
    }
    match call {
        StoreCall::Txn(txn) => met!(Txn, meta.txn(txn)),
        StoreCall::Get(keys) => met!(Get, meta.get(keys)),
        StoreCall::List { prefix, after, limit } => met!(List, meta.list(&prefix, after, limit)),
        StoreCall::Grant(ttl) => met!(Grant, meta.grant(ttl)),
        StoreCall::KeepAlive(lease) => met!(KeepAlive, meta.keep_alive(lease)),
        StoreCall::Revoke(lease) => met!(Revoke, meta.revoke(lease)),
        StoreCall::PutObject { key, bytes } => met!(PutObject, objects.put_if_absent(&key, vec![bytes])),
        StoreCall::GetObject { key } => met!(GetObject, objects.get(&key)),
        StoreCall::ReplaceObject { key, bytes, version } => {
            met!(ReplaceObject, objects.put_if_match(&key, bytes, version))
        }
    }
}

#[test]
fn the_first_image_has_every_topic_without_leaders_before_any_lane_opens() {
    let mut before = Desk::new();
    before.create(1, &["t"], false);
    let mut desk = Desk::on(before.meta.clone(), before.objects.clone());
    let first = desk.core.take_effects();
    let image = first.iter().find_map(|effect| match effect {
        Effect::Shard(_, FromControl::Image(image)) => Some(image.clone()),
        _ => None,
    });
    let image = image.expect("the first turn publishes");
    assert!(image.topics["t"].partitions.iter().all(|partition| partition.leader.is_none()));
    assert!(!image.ready);
    first.into_iter().for_each(|effect| desk.carry_out(effect));
    desk.settle();
    assert!(!desk.image().ready, "slots are granted, but nothing is led");
    desk.report(LaneReport::Opened { wid: Wid(2) });
    assert!(desk.image().ready);
    assert!(desk.image().topics["t"].partitions.iter().all(|partition| partition.leader.is_some()));
}

#[test]
fn a_created_topic_is_described_live_led_and_shown_before_its_answer() {
    let mut desk = Desk::new();
    desk.create(1, &["a", "b"], false);
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None; 2]));
    let record = desk.topic("a").expect("it is stored");
    assert_eq!((record.state, record.partitions), (TopicState::Live, 4));
    let object = block_on(desk.objects.get(&topic_object::key(record.id))).unwrap().expect("it is described");
    assert!(!topic_object::TopicObject::is_tombstone(&object.bytes));
    let answered = desk.messages.iter().position(|(_, m)| matches!(m, FromControl::Topics { .. })).unwrap();
    let shown = desk.messages.iter().position(|(_, m)| match m {
        FromControl::Image(image) => {
            image.topics.get("b").is_some_and(|t| t.partitions.iter().all(|p| p.leader.is_some()))
        }
        _ => false,
    });
    assert!(shown.expect("it is shown") < answered);
    let leaders: Vec<i32> = desk.image().topics["a"].partitions.iter().filter_map(|p| p.leader).collect();
    assert_eq!(leaders.iter().filter(|leader| **leader == 1).count(), 2, "spread evenly: {leaders:?}");
}

#[test]
fn names_that_exist_or_collide_are_refused_as_kafka_refuses_them() {
    let mut desk = Desk::new();
    desk.create(1, &["a.b"], false);
    desk.create(2, &["a.b", "a_b", "ok", "no/slash"], false);
    use ErrorCode::{InvalidTopicException as Invalid, None, TopicAlreadyExists as Exists};
    assert_eq!(desk.topics_answered(2), Some(vec![Exists, Invalid, None, Invalid]));
}

#[test]
fn topics_beyond_the_greatest_number_of_partitions_are_refused_until_others_are_gone() {
    let mut desk = Desk::new();
    use ErrorCode::{None, PolicyViolation as Refused};
    desk.create(1, &["a", "b", "c", "d", "e", "f"], false);
    assert_eq!(desk.topics_answered(1), Some(vec![None, None, None, None, None, Refused]));
    desk.create(2, &["f"], true);
    assert_eq!(desk.topics_answered(2), Some(vec![Refused]));
    desk.create(3, &["a"], true);
    assert_eq!(desk.topics_answered(3), Some(vec![None]), "what exists is no new topic");
    desk.delete(4, "b");
    assert_eq!(desk.topics_answered(4), Some(vec![None]));
    desk.create(5, &["f"], false);
    assert_eq!(desk.topics_answered(5), Some(vec![None]));
}

#[test]
fn auto_creation_of_an_existing_or_growing_topic_is_success() {
    let mut desk = Desk::new();
    desk.lanes_lead = false;
    desk.create(1, &["t"], true);
    desk.create(2, &["t"], true);
    assert_eq!((desk.topics_answered(1), desk.topics_answered(2)), (None, None), "nobody leads it yet");
    let id = desk.topic("t").expect("it is live").id;
    for index in 0..4 {
        let partition = TopicPartition { topic: id, index };
        desk.report(LaneReport::Leading { partition, shard: ShardIndex(0), epoch: LeaderEpoch(1) });
    }
    desk.create(3, &["t"], true);
    for token in 1..=3 {
        assert_eq!(desk.topics_answered(token), Some(vec![ErrorCode::None]));
    }
}

#[test]
fn validation_only_leaves_nothing_behind() {
    let mut desk = Desk::new();
    let topics = vec![NewTopic { name: "t".to_owned(), partitions: Some(3), settings: BTreeMap::new() }];
    desk.ask(0, ToControl::CreateTopics { token: Token(1), topics, validate_only: true, auto: false });
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None]));
    assert_eq!(desk.topic("t"), None);
}

/// Every store call of a creation and of a deletion, one at a time, loses its answer or is itself lost.
#[test]
fn a_topic_is_created_and_deleted_whatever_single_call_is_lost() {
    for fate in [Fate::AnswerLost, Fate::RequestLost] {
        for unlucky in 0..10 {
            let mut desk = Desk::new();
            let mut count = 0;
            desk.fate = Box::new(move |_| {
                count += 1;
                if count == unlucky + 1 { fate } else { Fate::Works }
            });
            desk.create(1, &["t"], false);
            while desk.topics_answered(1).is_none() {
                desk.wait();
            }
            let id = desk.topic("t").expect("it is created").id;
            put(&desk.meta, &keys::partition(TopicPartition { topic: id, index: 0 }), Bytes::from_static(b"record"));
            desk.delete(2, "t");
            while desk.topics_answered(2).is_none() {
                desk.wait();
            }
            assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::None]), "{fate:?} {unlucky}");
            assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None]), "{fate:?} {unlucky}");
            assert_eq!(desk.topic("t"), None);
            assert_eq!(read(&desk.meta, &keys::partition(TopicPartition { topic: id, index: 0 })), None);
            let object = block_on(desk.objects.get(&topic_object::key(id))).unwrap().expect("tombstones stay");
            assert!(topic_object::TopicObject::is_tombstone(&object.bytes));
            assert!(desk.commands.contains(&(0, LaneCommand::Forget { topic: id })));
            assert!(!desk.image().topics.contains_key("t"));
            desk.create(3, &["t"], false);
            assert_eq!(desk.topics_answered(3), Some(vec![ErrorCode::None]), "the name is free again");
        }
    }
}

/// The process dies after any number of store calls; the next one finishes what it finds.
#[test]
fn the_next_process_completes_what_the_last_one_left_half_done() {
    for calls in 0..12 {
        let mut desk = Desk::new();
        let mut left = calls;
        desk.fate = Box::new(move |_| {
            left -= i32::from(left > 0);
            if left > 0 { Fate::Works } else { Fate::RequestLost }
        });
        desk.create(1, &["t"], false);
        desk.delete(2, "t");
        let mut next = Desk::on(desk.meta.clone(), desk.objects.clone());
        next.settle();
        next.report(LaneReport::Opened { wid: Wid(2) });
        match next.topic("t") {
            Some(record) => assert_eq!(record.state, TopicState::Live, "after {calls} calls"),
            None => assert!(!next.image().topics.contains_key("t"), "after {calls} calls"),
        }
        next.create(3, &["t"], true);
        assert_eq!(next.topics_answered(3), Some(vec![ErrorCode::None]), "after {calls} calls");
        assert!(next.image().ready);
    }
}

#[test]
fn a_reservation_applied_long_after_its_topic_was_deleted_brings_nothing_back() {
    for restarts in [false, true] {
        let mut desk = Desk::new();
        desk.create(1, &["t"], false);
        let live = desk.topic("t").expect("it is created");
        desk.delete(2, "t");
        let late = TopicRecord { state: TopicState::Creating, ..live.clone() };
        put(&desk.meta, &keys::topic("t"), late.encode());
        if restarts {
            desk = Desk::on(desk.meta.clone(), desk.objects.clone());
            desk.settle();
            assert_eq!(desk.topic("t"), None);
            desk.report(LaneReport::Opened { wid: Wid(2) });
        }
        desk.create(3, &["t"], false);
        while desk.topics_answered(3).is_none() {
            desk.wait();
        }
        assert_eq!(desk.topics_answered(3), Some(vec![ErrorCode::None]));
        assert_ne!(desk.topic("t").expect("it is created").id, live.id, "ids are never used again");
    }
}

#[test]
fn waiting_creators_are_told_when_the_store_stays_silent_and_the_topic_comes_later() {
    let mut desk = Desk::new();
    let silent = Rc::new(Cell::new(true));
    let is_silent = silent.clone();
    desk.fate = Box::new(move |_| if is_silent.get() { Fate::RequestLost } else { Fate::Works });
    desk.create(1, &["t"], false);
    while desk.topics_answered(1).is_none() {
        desk.wait();
    }
    assert_eq!(desk.topics_answered(1), Some(vec![ErrorCode::RequestTimedOut]));
    silent.set(false);
    desk.wait();
    assert_eq!(desk.topic("t").expect("it goes on").state, TopicState::Live);
}

#[test]
fn a_fence_takes_every_leader_away_and_the_reopened_lane_gets_all_back() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    desk.report(LaneReport::Fenced);
    assert!(desk.image().topics["t"].partitions.iter().all(|partition| partition.leader.is_none()));
    desk.commands.clear();
    desk.report(LaneReport::Opened { wid: Wid(2) });
    let [(0, LaneCommand::Lead { partitions })] = &desk.commands[..] else {
        panic!("one command: {:?}", desk.commands)
    };
    assert_eq!(partitions.len(), 4);
    assert!(desk.image().topics["t"].partitions.iter().all(|partition| partition.leader.is_some()));
}

#[test]
fn a_lost_partition_is_asked_for_again_and_a_damaged_one_is_not() {
    let mut desk = Desk::new();
    desk.create(1, &["t"], false);
    let topic = desk.topic("t").expect("it is live").id;
    let (lost, damaged) = (TopicPartition { topic, index: 0 }, TopicPartition { topic, index: 1 });
    desk.commands.clear();
    desk.report(LaneReport::NotLeading { partition: lost });
    desk.report(LaneReport::Alarm { partition: Some(damaged), detail: "a gap".to_owned() });
    assert_eq!(desk.image().topics["t"].partitions[0].leader, None);
    desk.wait();
    let [(0, LaneCommand::Lead { partitions })] = &desk.commands[..] else {
        panic!("one command: {:?}", desk.commands)
    };
    assert_eq!(partitions.iter().map(|lead| lead.partition).collect::<Vec<_>>(), [lost]);
    assert!(desk.image().topics["t"].partitions[0].leader.is_some());
    assert_eq!(desk.image().topics["t"].partitions[1].leader, None);
}

#[test]
fn a_deletion_waits_until_no_birth_is_undecided() {
    let mut desk = Desk::new();
    desk.lanes_lead = false;
    desk.create(1, &["t"], false);
    desk.delete(2, "t");
    let topic = desk.topic("t").expect("it is live").id;
    assert_eq!(desk.topic("t").map(|record| record.state), Some(TopicState::Live));
    for index in 0..4 {
        let partition = TopicPartition { topic, index };
        desk.report(LaneReport::Leading { partition, shard: ShardIndex(0), epoch: LeaderEpoch(1) });
    }
    assert_eq!(desk.topics_answered(2), Some(vec![ErrorCode::None]));
    assert_eq!(desk.topic("t"), None);
}

#[test]
fn producer_id_blocks_never_overlap_whatever_is_lost() {
    let mut desk = Desk::new();
    let mut count = 0u32;
    desk.fate = Box::new(move |_| {
        count += 1;
        [Fate::Works, Fate::AnswerLost, Fate::RequestLost, Fate::Works, Fate::Works][count as usize % 5]
    });
    for token in 0..20 {
        desk.ask((token % 2) as u16, ToControl::ProducerIds { token: Token(token) });
    }
    let blocks = |desk: &Desk| {
        let firsts = desk.messages.iter().filter_map(|(_, message)| match message {
            FromControl::ProducerIds { first, .. } => Some(first.expect("single losses are overcome")),
            _ => None,
        });
        let mut firsts: Vec<i64> = firsts.collect();
        firsts.sort_unstable();
        firsts
    };
    while blocks(&desk).len() < 20 {
        desk.wait();
    }
    let firsts = blocks(&desk);
    assert!(firsts.windows(2).all(|pair| pair[1] - pair[0] >= producer_ids::BLOCK_IDS), "{firsts:?}");
    let high = firsts.last().unwrap() + producer_ids::BLOCK_IDS;
    assert!(desk.commands.iter().any(|(_, c)| *c == LaneCommand::ProducerIdHighWater(high)));
}

fn persist(token: u64, slot: u16, slot_epoch: u64, writes: Vec<(String, Option<Bytes>)>) -> ToControl {
    ToControl::Persist { token: Token(token), slot, slot_epoch, writes }
}

fn group(slot: u16, number: usize, value: &'static str) -> (String, Option<Bytes>) {
    (keys::group(slot, &format!("g{number}")), Some(Bytes::from_static(value.as_bytes())))
}

#[test]
fn writes_of_a_slot_are_durable_in_order_and_survive_the_process() {
    let mut desk = Desk::new();
    assert_eq!(desk.grants(3), [(1, 0, 0)]);
    desk.ask(1, persist(1, 3, 1, (0..300).map(|i| group(3, i, "first")).collect()));
    desk.ask(1, persist(2, 3, 1, vec![group(3, 0, "second"), (keys::group(3, "g1"), None)]));
    assert_eq!((desk.persisted(1), desk.persisted(2)), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(read(&desk.meta, &keys::group(3, "g0")).as_deref(), Some(&b"second"[..]));
    let mut next = Desk::on(desk.meta.clone(), desk.objects.clone());
    next.settle();
    assert_eq!(next.grants(3), [(2, 299, 0)]);
    desk.ask(1, persist(3, 3, 1, vec![group(3, 5, "zombie")]));
    assert_eq!(desk.persisted(3), Some(Err(ErrorCode::NotCoordinator)), "the new process has the slot");
    assert_eq!(read(&desk.meta, &keys::group(3, "g5")).as_deref(), Some(&b"first"[..]));
}

#[test]
fn a_slot_whose_write_ended_unknown_is_revoked_and_granted_from_what_is_durable() {
    for (fate, groups) in [(Fate::AnswerLost, 1), (Fate::RequestLost, 0)] {
        let mut desk = Desk::new();
        let mut first = true;
        desk.fate = Box::new(move |_| if std::mem::take(&mut first) { fate } else { Fate::Works });
        desk.ask(1, persist(1, 3, 1, vec![group(3, 0, "value")]));
        assert_eq!(desk.persisted(1), Some(Err(ErrorCode::CoordinatorNotAvailable)));
        assert!(desk.messages.contains(&(ShardIndex(1), FromControl::SlotRevoked { slot: 3 })));
        assert_eq!(desk.image().slots[3], None);
        desk.ask(1, persist(2, 3, 1, vec![group(3, 1, "late")]));
        assert_eq!(desk.persisted(2), Some(Err(ErrorCode::NotCoordinator)));
        desk.wait();
        assert_eq!(desk.grants(3), [(1, 0, 0), (2, groups, 0)]);
        assert_eq!(desk.image().slots[3], Some(2));
    }
}

#[test]
fn a_write_too_large_for_any_transaction_is_refused_alone() {
    let mut desk = Desk::new();
    let large = vec![(keys::group(3, "g"), Some(Bytes::from(vec![0; 1 << 20])))];
    desk.ask(1, persist(1, 3, 1, large));
    desk.ask(1, persist(2, 3, 1, vec![group(3, 0, "small")]));
    assert_eq!((desk.persisted(1), desk.persisted(2)), (Some(Err(ErrorCode::MessageTooLarge)), Some(Ok(()))));
}

#[test]
fn a_stop_reaches_shards_then_lanes_and_ends_when_all_are_done() {
    let mut desk = Desk::new();
    desk.core.on_stop(desk.now);
    desk.settle();
    assert!(desk.messages.contains(&(ShardIndex(1), FromControl::Stopping)));
    assert!(!desk.commands.contains(&(0, LaneCommand::Stop)));
    desk.ask(0, ToControl::Drained);
    desk.ask(1, ToControl::Drained);
    assert!(desk.commands.contains(&(0, LaneCommand::Stop)));
    desk.report(LaneReport::Stopped { sealed: true });
    assert_eq!(desk.stopped, Some(true));
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let mut desk = Desk::new();
    let begin = desk.now;
    desk.core.on_stop(desk.now);
    while desk.stopped.is_none() {
        desk.wait();
    }
    assert_eq!(desk.stopped, Some(false));
    assert!(desk.now.since(begin) <= LANES_STOP_WITHIN + Duration::from_secs(2));
}

fn process(name: &str) -> Process {
    let addresses = vec![("h".to_owned(), 9092), ("h".to_owned(), 9093)];
    Process { name: name.to_owned(), addresses, zone: None }
}

fn identify(meta: &MemoryMeta, objects: &MemoryHandle, name: &str) -> Result<Identity, StartError> {
    block_on(start::identify(&still_env(), meta, objects, &process(name)))
}

#[test]
fn identity_is_kept_over_restarts_and_node_ids_are_never_shared() {
    let (meta, objects) = (MemoryMeta::new(Uuid::from_u128(1)), new_objects());
    let first = identify(&meta, &objects, "one").expect("it starts");
    assert_eq!(first.cluster_id.len(), 22);
    assert_eq!(identify(&meta, &objects, "one"), Ok(first.clone()));
    let other = identify(&meta, &objects, "two").expect("it starts");
    assert_eq!(other.cluster_id, first.cluster_id);
    assert!(first.nodes.iter().all(|node| other.nodes.iter().all(|theirs| theirs.id != node.id)));
}

#[test]
fn a_prefix_of_another_metadata_store_is_refused() {
    let objects = new_objects();
    identify(&MemoryMeta::new(Uuid::from_u128(1)), &objects, "one").expect("it starts");
    let refused = identify(&MemoryMeta::new(Uuid::from_u128(2)), &objects, "one");
    assert!(matches!(refused, Err(StartError::OtherMetadata { .. })), "{refused:?}");
}

#[test]
fn records_of_topics_that_are_gone_are_removed_at_start() {
    let meta = MemoryMeta::new(Uuid::from_u128(1));
    let partition = TopicPartition { topic: TopicId(Uuid::from_u128(9)), index: 0 };
    let record =
        PartitionRecord { v: 1, epoch: LeaderEpoch(1), wid: Wid(1), shard: ShardIndex(0), born: 0, released: None };
    put(&meta, &keys::partition(partition), record.encode());
    assert_eq!(block_on(start::load(&still_env(), &meta)), Ok(Loaded::default()));
    assert_eq!(read(&meta, &keys::partition(partition)), None);
}
