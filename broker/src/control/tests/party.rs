//! Several processes on one store: cores as they are, lanes and shards that do as they are told at once. Time passes when
//! a test says so, on one clock for all.

use super::super::cluster::ClusterConfig;
use super::super::cluster::observer::Pong;
use super::*;
use futures::StreamExt;
use millrace_storage::ids::{Offset, Seq};
use millrace_storage::meta::WatchStream;
use millrace_storage::meta::records::{RECORD_VERSION, Released, SlotRecord, WalRecord, WalState};
use std::collections::BTreeSet;
use std::task::{Context, Poll};

const LEASE: Duration = Duration::from_secs(5);

pub(super) const DRAIN: Duration = Duration::from_secs(30);

/// A process: its core, and what the test plays of it.
pub(super) struct Member {
    pub(super) name: &'static str,
    number: u16,
    core: ControlCore,
    watches: Vec<(&'static str, WatchStream)>,
    leads: BTreeSet<TopicPartition>,
    /// Whether its lane leads what it is told to.
    pub(super) obeys: bool,
    pub(super) answers: Vec<FromControl>,
    pub(super) image: Option<Arc<ClusterImage>>,
    /// Partitions without a leader in any image since this was emptied.
    pub(super) leaderless: BTreeSet<TopicPartition>,
    /// What was still its own when its shards were told to stop.
    pub(super) left_behind: Option<(usize, usize)>,
    pub(super) stopped: Option<bool>,
}

pub(super) struct Party {
    pub(super) meta: MemoryMeta,
    pub(super) objects: Rc<MemoryHandle>,
    now: Mono,
    pub(super) members: Vec<Member>,
}

impl Party {
    /// Processes of two shards each, joined.
    pub(super) fn of(names: &[&'static str]) -> Party {
        let meta = MemoryMeta::new(Uuid::from_u128(1));
        let mut party = Party { meta, objects: new_objects(), now: Mono(0), members: Vec::new() };
        names.iter().for_each(|name| party.join(name));
        party.pass(Duration::from_secs(1));
        party
    }

    pub(super) fn join(&mut self, name: &'static str) {
        let number = u16::try_from(self.members.len() + 1).expect("a few");
        let node = |shard: u16| Node {
            id: i32::from(10 * number + shard),
            host: name.to_owned(),
            port: 9092 + shard,
            rack: None,
            shard: Some(ShardIndex(shard)),
        };
        let config = ControlConfig {
            broker: name.to_owned(),
            boot: BootId(number.into()),
            nodes: (0..SHARDS).map(node).collect(),
            max_partitions: 1_000,
            cluster: Some(ClusterConfig { zone: None, lease: LEASE, drain: DRAIN, admin: None }),
            ..config(1)
        };
        let mut last = u128::from(number) << 64;
        let new_id = Box::new(move || {
            last += 1;
            TopicId(Uuid::from_u128(last))
        });
        let core = ControlCore::new(self.now, config, Loaded::default(), new_id);
        let member = Member {
            name,
            number,
            core,
            watches: Vec::new(),
            leads: BTreeSet::new(),
            obeys: true,
            answers: Vec::new(),
            image: None,
            leaderless: BTreeSet::new(),
            left_behind: None,
            stopped: None,
        };
        put(&self.meta, &keys::wal(member.wid()), member.wal(WalState::Open));
        self.members.push(member);
        let (now, member) = (self.now, self.members.last_mut().expect("just put there"));
        member.core.on_lane(now, 0, LaneReport::Opened { wid: member.wid() });
        self.settle();
    }

    pub(super) fn ask(&mut self, member: usize, question: ToControl) {
        self.tell(member, question);
        self.settle();
    }

    /// The same, so that others are asked before anything comes of it.
    pub(super) fn tell(&mut self, member: usize, question: ToControl) {
        self.members[member].core.on_shard(self.now, ShardIndex(0), question);
    }

    pub(super) fn stop(&mut self, member: usize) {
        self.members[member].core.on_stop(self.now);
        self.settle();
    }

    pub(super) fn create(&mut self, name: &str, partitions: u32) {
        let topics = vec![NewTopic { name: name.to_owned(), partitions: Some(partitions), settings: BTreeMap::new() }];
        self.ask(0, ToControl::CreateTopics { token: Token(1), topics, validate_only: false, auto: false });
        self.pass(Duration::from_secs(1));
        assert_eq!(self.members[0].topics_answered(1), Some(vec![ErrorCode::None]));
    }

    pub(super) fn put(&self, key: &str, value: Bytes) {
        put(&self.meta, key, value);
    }

    pub(super) fn delete(&self, key: &str) {
        let txn = Txn { compares: Vec::new(), ops: vec![Op::Delete(key.to_owned())] };
        block_on(self.meta.txn(txn)).expect("memory answers");
    }

    /// How many partitions each leads.
    pub(super) fn led(&self) -> Vec<usize> {
        self.members.iter().map(|member| member.leads.len()).collect()
    }

    /// Carries out whatever is asked for, until nothing is.
    pub(super) fn settle(&mut self) {
        let wall = WallMs(i64::try_from(self.now.0 / 1_000_000).expect("a short time"));
        let mut progress = true;
        while std::mem::take(&mut progress) {
            for member in self.members.iter_mut().filter(|member| member.stopped.is_none()) {
                member.core.set_wall(wall);
                progress |= member.hear_changes(self.now);
                let effects = member.core.take_effects();
                progress |= !effects.is_empty();
                for effect in effects {
                    member.carry_out(effect, self.now, &self.meta, &self.objects);
                }
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now.plus(time);
        loop {
            self.settle();
            let living = self.members.iter_mut().filter(|member| member.stopped.is_none());
            let Some(next) = living.filter_map(|member| member.core.next_deadline()).min().filter(|at| *at <= until)
            else {
                self.now = until;
                return;
            };
            self.now = self.now.max(next);
            let due = |member: &&mut Member| member.core.next_deadline().is_some_and(|at| at <= next);
            let living = self.members.iter_mut().filter(|member| member.stopped.is_none());
            living.filter(due).for_each(|member| member.core.on_time(next));
        }
    }
}

impl Member {
    fn wid(&self) -> Wid {
        Wid(self.number.into())
    }

    fn wal(&self, state: WalState) -> Bytes {
        let (broker, boot) = (self.name.to_owned(), BootId(self.number.into()));
        WalRecord { v: RECORD_VERSION, broker, boot, lane: 0, state, ck: 0, lw: Seq(0), emptied: None }.encode()
    }

    pub(super) fn topics_answered(&self, token: u64) -> Option<Vec<ErrorCode>> {
        self.answers.iter().find_map(|answer| match answer {
            FromControl::Topics { token: found, topics } if found.0 == token => {
                Some(topics.iter().map(|topic| topic.error).collect())
            }
            _ => None,
        })
    }

    fn hear_changes(&mut self, now: Mono) -> bool {
        let mut heard = false;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for (prefix, watch) in &mut self.watches {
            while let Poll::Ready(Some(changes)) = watch.poll_next_unpin(&mut cx) {
                self.core.on_watch(now, prefix, changes);
                heard = true;
            }
        }
        heard
    }

    fn carry_out(&mut self, effect: Effect, now: Mono, meta: &MemoryMeta, objects: &MemoryHandle) {
        match effect {
            Effect::Call(id, call) => self.core.on_store(now, id, answer(meta, objects, call, Fate::Works)),
            Effect::Lane(0, command) => self.command(command, now, meta),
            Effect::Shard(_, FromControl::Image(image)) => self.look_at(image),
            Effect::Shard(shard, FromControl::Stopping) => {
                let left = self.own_by_records(meta);
                self.left_behind.get_or_insert(left);
                self.core.on_shard(now, shard, ToControl::Drained);
            }
            Effect::Shard(shard, FromControl::SlotRevoked { slot }) => {
                self.core.on_shard(now, shard, ToControl::SlotLeft { slot });
            }
            Effect::Shard(_, message) => self.answers.push(message),
            Effect::Watch(prefix, after) => {
                self.watches.retain(|(watched, _)| *watched != prefix);
                self.watches.push((prefix, meta.watch(prefix, after)));
            }
            // All reach each other.
            Effect::Ping(ping) => self.core.on_pong(now, &ping, Pong::Answered),
            Effect::Stopped { sealed } => self.stopped = Some(sealed),
            other => panic!("{other:?}"),
        }
    }

    fn look_at(&mut self, image: Arc<ClusterImage>) {
        for topic in image.topics.values() {
            for (index, _) in (0..).zip(&topic.partitions).filter(|(_, partition)| partition.leader.is_none()) {
                self.leaderless.insert(TopicPartition { topic: topic.id, index });
            }
        }
        self.image = Some(image);
    }

    /// What a lane does.
    fn command(&mut self, command: LaneCommand, now: Mono, meta: &MemoryMeta) {
        match command {
            LaneCommand::Lead { partitions } if self.obeys => {
                for ToLead { partition, shard, .. } in partitions {
                    self.lead(partition, shard, now, meta);
                }
            }
            LaneCommand::Release { partitions } => {
                for partition in partitions {
                    if self.leads.remove(&partition) {
                        let record = record_of(meta, partition).expect("what is led has a record");
                        let released = Some(Released { seq: Seq(1), end: Offset(0) });
                        put(meta, &keys::partition(partition), PartitionRecord { released, ..record }.encode());
                    }
                    self.core.on_lane(now, 0, LaneReport::NotLeading { partition });
                }
            }
            LaneCommand::Stop => {
                put(meta, &keys::wal(self.wid()), self.wal(WalState::Sealed { end: Seq(9) }));
                self.core.on_lane(now, 0, LaneReport::Stopped { sealed: true });
            }
            LaneCommand::Lead { .. }
            | LaneCommand::Forget { .. }
            | LaneCommand::Probe
            | LaneCommand::ProducerIdHighWater(_) => {}
        }
    }

    fn lead(&mut self, partition: TopicPartition, shard: ShardIndex, now: Mono, meta: &MemoryMeta) {
        let before = record_of(meta, partition);
        let held = before.as_ref().filter(|record| record.released.is_none() && record.wid != self.wid());
        assert!(held.is_none_or(|record| is_sealed(meta, record.wid)), "{} takes what is held", self.name);
        let epoch = LeaderEpoch(before.map_or(0, |record| record.epoch.0) + 1);
        let record = PartitionRecord { v: RECORD_VERSION, epoch, wid: self.wid(), shard, born: 0, released: None };
        put(meta, &keys::partition(partition), record.encode());
        self.leads.insert(partition);
        self.core.on_lane(now, 0, LaneReport::Leading { partition, shard, epoch });
    }

    /// Partitions whose records name its log, and slots whose records name it.
    fn own_by_records(&self, meta: &MemoryMeta) -> (usize, usize) {
        let values = |prefix| block_on(meta.list(prefix, None, 1_000)).expect("memory answers").entries;
        let partitions = values(keys::PARTITIONS)
            .into_iter()
            .filter(|(_, found)| PartitionRecord::decode(&found.value).expect("a record of ours").wid == self.wid());
        let slots = values(keys::SLOTS)
            .into_iter()
            .filter(|(_, found)| SlotRecord::decode(&found.value).expect("a record of ours").broker == self.name);
        (partitions.count(), slots.count())
    }
}

fn record_of(meta: &MemoryMeta, partition: TopicPartition) -> Option<PartitionRecord> {
    read(meta, &keys::partition(partition)).map(|value| PartitionRecord::decode(&value).expect("a record of ours"))
}

fn is_sealed(meta: &MemoryMeta, wid: Wid) -> bool {
    let record = read(meta, &keys::wal(wid)).map(|value| WalRecord::decode(&value).expect("a record of ours"));
    record.is_some_and(|record| matches!(record.state, WalState::Sealed { .. }))
}
