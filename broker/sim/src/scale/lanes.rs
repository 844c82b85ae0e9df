//! What the lanes of a fleet's brokers write, by PROTOCOL.md: births, releases, and for an acquisition its checkpoint and its
//! claims, in transactions of the size that a lane makes.
//!
//! Their reads and the objects in the bucket are left out: it is what others see of them that matters here.

use futures::executor::block_on;
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, ShardIndex, TopicPartition, Wid};
use millrace_storage::meta::records::{PartitionRecord, RECORD_VERSION, Record, Released, WalRecord, WalState};
use millrace_storage::meta::{Compare, MAX_TXN_OPS, MetaStore, Op, Txn, TxnOutcome, keys};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Partitions in a transaction: each takes a comparison and a write, one comparison is of the log's record.
const PER_TXN: usize = (MAX_TXN_OPS - 1) / 2;

/// Milliseconds since 1970, as long as a number of today.
const BORN: i64 = 1_700_000_000_000;

/// The only lane of a broker.
struct Lane {
    record: WalRecord,
    alive: bool,
    leads: BTreeSet<TopicPartition>,
    claims: Vec<TopicPartition>,
    releases: Vec<TopicPartition>,
}

/// What a lane has done, for its control task.
pub(super) enum Done {
    Leads { lane: usize, partition: TopicPartition, shard: ShardIndex, epoch: LeaderEpoch },
    Left { lane: usize, partition: TopicPartition },
}

/// See the module.
pub(super) struct Lanes {
    store: Rc<dyn MetaStore>,
    lanes: Vec<Lane>,
    names: BTreeMap<String, usize>,
    records: BTreeMap<TopicPartition, PartitionRecord>,
    /// Who shall lead what.
    wanted: BTreeMap<TopicPartition, (usize, ShardIndex)>,
    ready: VecDeque<usize>,
}

fn wid_of(lane: usize) -> Wid {
    // As long as a random one.
    Wid((0xfeed_0000_0000_0000_u128 << 64) + lane as u128)
}

impl Lanes {
    pub(super) fn new(store: Rc<dyn MetaStore>) -> Lanes {
        let (names, records, wanted) = Default::default();
        Lanes { store, lanes: Vec::new(), names, records, wanted, ready: VecDeque::new() }
    }

    fn write(&self, txn: Txn) {
        let outcome = block_on(self.store.txn(txn));
        assert!(matches!(outcome, Ok(TxnOutcome::Committed(_))), "nobody else writes it: {outcome:?}");
    }

    /// OPEN, by the lane of the next broker; its log.
    pub(super) fn open(&mut self, broker: &str, boot: BootId) -> Wid {
        let wid = wid_of(self.lanes.len());
        let (state, lw) = (WalState::Open, Seq(0));
        let (v, lane, ck) = (RECORD_VERSION, 0, 0);
        let record = WalRecord { v, broker: broker.to_owned(), boot, lane, state, ck, lw, emptied: None };
        let key = keys::wal(wid);
        self.write(Txn { compares: vec![Compare::Absent(key.clone())], ops: vec![Op::Put(key, record.encode())] });
        self.names.insert(broker.to_owned(), self.lanes.len());
        self.lanes.push(Lane { record, alive: true, leads: BTreeSet::new(), claims: Vec::new(), releases: Vec::new() });
        wid
    }

    fn change_log(&mut self, lane: usize, change: impl FnOnce(&mut WalRecord)) {
        let before = self.lanes[lane].record.encode();
        change(&mut self.lanes[lane].record);
        let (key, after) = (keys::wal(wid_of(lane)), self.lanes[lane].record.encode());
        self.write(Txn { compares: vec![Compare::Value(key.clone(), before)], ops: vec![Op::Put(key, after)] });
    }

    /// Writes no more.
    pub(super) fn kill(&mut self, lane: usize) {
        self.lanes[lane].alive = false;
    }

    /// SEAL, by whoever does it: what it led can be had.
    pub(super) fn seal(&mut self, wid: Wid) {
        let lane = (0..self.lanes.len()).find(|lane| wid_of(*lane) == wid).expect("a log of one of them");
        self.change_log(lane, |record| record.state = WalState::Fencing);
        self.change_log(lane, |record| record.state = WalState::Sealed { end: Seq(1) });
        let led = std::mem::take(&mut self.lanes[lane].leads);
        led.into_iter().for_each(|partition| self.is_free(partition));
    }

    /// What a lane leads.
    pub(super) fn led_by(&self, lane: usize) -> usize {
        self.lanes[lane].leads.len()
    }

    /// What all living ones lead.
    pub(super) fn led(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.alive).map(|lane| lane.leads.len()).sum()
    }

    /// The lane of a broker of this name.
    pub(super) fn of(&self, broker: &str) -> Option<usize> {
        self.names.get(broker).copied()
    }

    /// Who leads a partition, or may.
    pub(super) fn owner(&self, partition: TopicPartition) -> Option<usize> {
        let record = self.records.get(&partition).filter(|record| record.released.is_none())?;
        let lane = usize::try_from(record.wid.0 - wid_of(0).0).expect("a log of one of them");
        let sealed = matches!(self.lanes[lane].record.state, WalState::Sealed { .. });
        (!sealed).then_some(lane)
    }

    /// A lane shall lead a partition for this shard, once that is free; `asks`: its owner is asked to let go of it.
    pub(super) fn lead(
        &mut self,
        lane: usize,
        partition: TopicPartition,
        shard: ShardIndex,
        asks: impl Fn(usize) -> bool,
    ) {
        self.wanted.insert(partition, (lane, shard));
        match self.owner(partition) {
            None => self.is_free(partition),
            Some(owner) if owner == lane && self.records[&partition].shard == shard => {}
            Some(owner) if owner == lane || asks(owner) => self.release(owner, partition),
            Some(_) => {}
        }
    }

    /// No other lane is to lead a partition; this one is once it is told to.
    pub(super) fn keep_for(&mut self, lane: usize, partition: TopicPartition) {
        if self.wanted.get(&partition).is_some_and(|(of, _)| *of != lane) {
            self.wanted.remove(&partition);
        }
    }

    /// A lane shall let go of a partition.
    pub(super) fn release(&mut self, lane: usize, partition: TopicPartition) {
        if self.lanes[lane].alive && self.lanes[lane].leads.contains(&partition) {
            self.lanes[lane].releases.push(partition);
            self.ready.push_back(lane);
        }
    }

    fn is_free(&mut self, partition: TopicPartition) {
        let Some(&(lane, _)) = self.wanted.get(&partition) else { return };
        if self.lanes[lane].alive {
            self.lanes[lane].claims.push(partition);
            self.ready.push_back(lane);
        }
    }

    /// The next of those that have something to write does; `None`: none has.
    pub(super) fn work(&mut self) -> Option<Vec<Done>> {
        let lane = self.ready.pop_front()?;
        let mut done = Vec::new();
        let mut releases = std::mem::take(&mut self.lanes[lane].releases);
        let mut claims = std::mem::take(&mut self.lanes[lane].claims);
        for named in [&mut releases, &mut claims] {
            named.sort_unstable();
            named.dedup();
        }
        if !self.lanes[lane].alive {
            return Some(done);
        }
        releases.chunks(PER_TXN).for_each(|some| self.write_releases(lane, some, &mut done));
        // What is born needs no checkpoint.
        if claims.iter().any(|partition| self.records.contains_key(partition)) {
            self.change_log(lane, |record| record.ck += 1);
        }
        claims.chunks(PER_TXN).for_each(|some| self.write_claims(lane, some, &mut done));
        Some(done)
    }

    fn write_records(&mut self, lane: usize, records: &[(TopicPartition, PartitionRecord)]) {
        let mut compares = vec![Compare::Value(keys::wal(wid_of(lane)), self.lanes[lane].record.encode())];
        let mut ops = Vec::new();
        for (partition, record) in records {
            let key = keys::partition(*partition);
            compares.push(match self.records.get(partition) {
                Some(before) => Compare::Value(key.clone(), before.encode()),
                None => Compare::Absent(key.clone()),
            });
            ops.push(Op::Put(key, record.encode()));
        }
        self.write(Txn { compares, ops });
        self.records.extend(records.iter().cloned());
    }

    fn write_releases(&mut self, lane: usize, partitions: &[TopicPartition], done: &mut Vec<Done>) {
        let released = Some(Released { seq: Seq(1), end: Offset(0) });
        let record = |partition: &TopicPartition| PartitionRecord { released, ..self.records[partition].clone() };
        let records: Vec<_> = partitions.iter().map(|partition| (*partition, record(partition))).collect();
        self.write_records(lane, &records);
        for &partition in partitions {
            self.lanes[lane].leads.remove(&partition);
            done.push(Done::Left { lane, partition });
            self.is_free(partition);
        }
    }

    fn write_claims(&mut self, lane: usize, partitions: &[TopicPartition], done: &mut Vec<Done>) {
        let mut records = Vec::new();
        for &partition in partitions {
            let Some(&(of, shard)) = self.wanted.get(&partition) else { continue };
            if of != lane || self.owner(partition).is_some() {
                continue;
            }
            let epoch = LeaderEpoch(self.records.get(&partition).map_or(0, |record| record.epoch.0) + 1);
            let (v, wid, born) = (RECORD_VERSION, wid_of(lane), BORN);
            records.push((partition, PartitionRecord { v, epoch, wid, shard, born, released: None }));
        }
        if records.is_empty() {
            return;
        }
        self.write_records(lane, &records);
        for (partition, PartitionRecord { shard, epoch, .. }) in records {
            self.lanes[lane].leads.insert(partition);
            done.push(Done::Leads { lane, partition, shard, epoch });
        }
    }
}
