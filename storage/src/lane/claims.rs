//! BIRTH, ACQUIRE and RELEASE: how partitions come to this lane and leave it (PROTOCOL.md section 4).
//!
//! Invariants:
//! 1. A claim is sent only after the transaction of a checkpoint that holds the partition at epoch + 1, and until it is
//!    decided no other checkpoint is started.
//! 2. A move between shards of this lane takes the frozen committed state; it is a release and an acquisition like any other.
//! 3. Only the live lane itself releases, and only what it drained.
//! 4. A partition is born only while its topic's record is LIVE with this id: after a deletion has removed the records of
//!    its topic, nothing makes one again. (A claim needs no such comparison: it changes a record that is there.)

use super::config::{LOOK_AGAIN, backoff};
use super::core::LaneCore;
use super::events::{Effect, Found, Token};
use super::leadership::{AfterDrain, Led, Role};
use super::messages::{LaneReport, ToLead, TopicSeen};
use super::transactions::{Change, Kind, Purpose};
use crate::env::Mono;
use crate::ids::{LeaderEpoch, ShardIndex, TopicId, TopicPartition};
use crate::meta::MAX_TXN_OPS;
use crate::meta::records::{PartitionRecord, RECORD_VERSION, Released};
use crate::store_error::StoreError;
use crate::wrong::{Wrong, wrong};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Partitions per transaction: each takes a comparison and a write, one comparison is of the `/wal` record.
const PER_TXN: usize = (MAX_TXN_OPS - 1) / 2;

/// A partition that the lane was told to lead and does not lead yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub shard: ShardIndex,
    pub topic: Arc<TopicSeen>,
    pub look_at: Mono,
}

/// A partition without a record, whose birth is not sent yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unborn {
    shard: ShardIndex,
    topic: Arc<TopicSeen>,
}

impl LaneCore {
    /// The control task wants these led.
    pub(super) fn on_lead(&mut self, partitions: Vec<ToLead>) {
        for ToLead { partition, shard, topic } in partitions {
            if self.stop.is_some() || self.forgotten.contains(&partition.topic) {
                self.report(LaneReport::NotLeading { partition });
                continue;
            }
            match self.partitions.get(&partition).map(|led| (led.shard, led.role, led.committed.epoch)) {
                Some((led_for, Role::Leader, epoch)) if led_for == shard => {
                    self.wanted.remove(&partition);
                    self.report(LaneReport::Leading { partition, shard, epoch });
                }
                Some((_, Role::Leader, _)) => {
                    self.want(partition, shard, topic);
                    self.drain(partition, AfterDrain::Release);
                }
                _ => self.want(partition, shard, topic),
            }
        }
    }

    fn want(&mut self, partition: TopicPartition, shard: ShardIndex, topic: Arc<TopicSeen>) {
        self.unwanted.remove(&partition);
        self.wanted.insert(partition, Wanted { shard, topic, look_at: self.now.mono });
    }

    /// The control task wants these given up.
    pub(super) fn on_release(&mut self, partitions: &[TopicPartition]) {
        for &partition in partitions {
            self.wanted.remove(&partition);
            match self.partitions.get(&partition).map(|led| led.role) {
                // It may be in a checkpoint at the epoch to come, and its claim under way: finished, then released.
                Some(Role::Read | Role::Claimable | Role::Claiming) => drop(self.unwanted.insert(partition)),
                Some(_) => self.drain(partition, AfterDrain::Release),
                None if self.births.remove(&partition).is_some() => self.partition_lost(partition),
                None if self.being_born.contains(&partition) => drop(self.unwanted.insert(partition)),
                None => self.report(LaneReport::NotLeading { partition }),
            }
        }
    }

    /// Takes what is wanted: from the own frozen state, or by reading.
    pub(super) fn advance_wanted(&mut self) {
        if self.stop.is_some() {
            return;
        }
        let now = self.now.mono;
        let frozen: Vec<(TopicPartition, ShardIndex)> = self
            .wanted
            .iter()
            .filter(|(p, _)| self.partitions.get(p).is_some_and(|led| matches!(led.role, Role::Released { .. })))
            .map(|(&partition, wanted)| (partition, wanted.shard))
            .collect();
        for (partition, shard) in frozen {
            self.wanted.remove(&partition);
            self.take_frozen(partition, shard);
        }
        if self.looking.is_some() {
            return;
        }
        let partitions: Vec<TopicPartition> = self
            .wanted
            .iter()
            .filter(|(partition, wanted)| wanted.look_at <= now && self.is_elsewhere(partition))
            .map(|(&partition, _)| partition)
            .collect();
        if !partitions.is_empty() {
            self.look_up(partitions);
        }
    }

    /// Whether this lane knows nothing of the partition: only then is its record looked at for being wanted.
    fn is_elsewhere(&self, partition: &TopicPartition) -> bool {
        !self.partitions.contains_key(partition) && !self.being_born.contains(partition)
    }

    fn look_up(&mut self, partitions: Vec<TopicPartition>) {
        let token = self.token();
        self.looking = Some((token, partitions.clone()));
        self.effects.push_back(Effect::LookUp { token, partitions });
    }

    fn take_frozen(&mut self, partition: TopicPartition, shard: ShardIndex) {
        let led = self.partitions.get_mut(&partition).expect("released partitions are in the map");
        led.shard = shard;
        led.committed = led.committed.next_epoch();
        led.role = Role::Read;
        self.moving.remove(&partition);
        if wrong(Wrong::MoveBumpsEpochOnly) {
            led.role = Role::Claimable;
            self.claimable.insert(partition);
        } else {
            self.checkpointing.wanted_to_acquire = true;
        }
    }

    /// Records, and the state of what can be had, were read.
    pub(super) fn on_looked_up(&mut self, token: Token, result: Result<BTreeMap<TopicPartition, Found>, StoreError>) {
        let Some((_, asked)) = self.looking.take_if(|(asked, _)| *asked == token) else { return };
        let again = self.now.mono.plus(LOOK_AGAIN);
        let found = match result {
            Ok(found) => {
                self.look_attempts = 0;
                found
            }
            Err(error) => {
                tracing::warn!(%error, partitions = asked.len(), "records or state cannot be read yet");
                self.look_attempts += 1;
                let at = self.now.mono.plus(backoff(self.look_attempts, self.random()));
                for partition in &asked {
                    if let Some(wanted) = self.wanted.get_mut(partition) {
                        wanted.look_at = at;
                    }
                }
                return;
            }
        };
        for (partition, found) in found {
            if self.partitions.contains_key(&partition) {
                self.on_released_seen(partition, &found);
                continue;
            }
            let Some(wanted) = self.wanted.get_mut(&partition) else { continue };
            let shard = wanted.shard;
            match found {
                Found::Held { .. } => wanted.look_at = again,
                Found::Unborn => {
                    let topic = Arc::clone(&wanted.topic);
                    self.wanted.remove(&partition);
                    self.births.insert(partition, Unborn { shard, topic });
                    self.being_born.insert(partition);
                }
                Found::Alarm { detail } => {
                    self.wanted.remove(&partition);
                    self.report(LaneReport::Alarm { partition: Some(partition), detail });
                }
                Found::State { record, state } => {
                    self.wanted.remove(&partition);
                    let led = Led::new(shard, Role::Read, state.next_epoch(), record, self.wid);
                    self.partitions.insert(partition, led);
                    self.checkpointing.wanted_to_acquire = true;
                }
            }
        }
    }

    /// The record of a released partition was read again: taken by another, or still waiting.
    fn on_released_seen(&mut self, partition: TopicPartition, found: &Found) {
        let again = self.now.mono.plus(LOOK_AGAIN);
        let Some(led) = self.partitions.get_mut(&partition) else { return };
        let Role::Released { look_at, .. } = &mut led.role else { return };
        *look_at = again;
        let (Found::Held { record } | Found::State { record, .. }) = found else { return };
        if record.wid != self.wid {
            let first_own = led.first_own;
            self.partitions.remove(&partition);
            self.moving.remove(&partition);
            self.depart(partition, first_own);
        }
    }

    /// Looks after released partitions: has somebody taken them, is it time to take them back?
    pub(super) fn advance_released(&mut self) {
        let now = self.now.mono;
        let (mut look, mut back) = (Vec::new(), Vec::new());
        for &partition in &self.moving {
            let Some(led) = self.partitions.get(&partition) else { continue };
            let Role::Released { since, look_at } = led.role else { continue };
            if now.since(since) >= led.patience(self.config.take_back_after) && self.stop.is_none() {
                back.push((partition, led.shard));
            } else if look_at <= now {
                look.push(partition);
            }
        }
        for (partition, shard) in back {
            self.partitions.get_mut(&partition).expect("just looked at").taken_back += 1;
            self.take_frozen(partition, shard);
        }
        if !look.is_empty() && self.looking.is_none() {
            self.look_up(look);
        }
    }

    /// Sends births and claims, as far as the gate of `/wal` transactions lets them.
    pub(super) fn advance_ownership(&mut self) {
        if !self.checkpointing.holds_gate() && self.stop.is_none() {
            while !self.births.is_empty() && self.transactions.may_share() {
                self.bear_some();
            }
        }
        while !self.claimable.is_empty() && self.transactions.may_share() {
            let batch: Vec<TopicPartition> = self.claimable.iter().copied().take(PER_TXN).collect();
            let mut changes = BTreeMap::new();
            for partition in batch {
                self.claimable.remove(&partition);
                let Some(led) = self.partitions.get_mut(&partition) else { continue };
                led.role = Role::Claiming;
                let (shard, before) = (led.shard, led.record.clone());
                let after = self.record_for(LeaderEpoch(before.epoch.0 + 1), shard, before.born);
                changes.insert(partition, Change { shard, before: Some(before), after });
            }
            if !changes.is_empty() {
                self.start_txn(Purpose::Partitions(Kind::Claim, changes, BTreeMap::new()));
            }
        }
    }

    /// BIRTH of as many as fit: the record of each of their topics is compared too.
    fn bear_some(&mut self) {
        let (mut changes, mut topics) = (BTreeMap::new(), BTreeMap::<TopicId, Arc<TopicSeen>>::new());
        while let Some(next) = self.births.first_entry() {
            let partition = *next.key();
            let compared = topics.len() + usize::from(!topics.contains_key(&partition.topic));
            if 1 + compared + 2 * (changes.len() + 1) > MAX_TXN_OPS {
                break;
            }
            let Unborn { shard, topic } = next.remove();
            topics.entry(partition.topic).or_insert(topic);
            let after = self.record_for(LeaderEpoch(1), shard, self.now.wall.0);
            changes.insert(partition, Change { shard, before: None, after });
        }
        self.start_txn(Purpose::Partitions(Kind::Birth, changes, topics));
    }

    fn record_for(&self, epoch: LeaderEpoch, shard: ShardIndex, born: i64) -> PartitionRecord {
        PartitionRecord { v: RECORD_VERSION, epoch, wid: self.wid, shard, born, released: None }
    }

    /// RELEASE of drained partitions, batched.
    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        for batch in partitions.chunks(PER_TXN) {
            if self.checkpointing.holds_gate() || !self.transactions.may_share() {
                return;
            }
            let mut changes = BTreeMap::new();
            for &partition in batch {
                let led = self.partitions.get_mut(&partition).expect("draining partitions are in the map");
                led.role = Role::Releasing;
                let released = Released { seq: self.flights.commit_point(), end: led.committed.end };
                let after = PartitionRecord { released: Some(released), ..led.record.clone() };
                changes.insert(partition, Change { shard: led.shard, before: Some(led.record.clone()), after });
            }
            self.start_txn(Purpose::Partitions(Kind::Release, changes, BTreeMap::new()));
        }
    }

    /// When something here wants a look without an event.
    pub(super) fn ownership_deadline(&self) -> Option<Mono> {
        if self.looking.is_some() {
            return None;
        }
        let wanted =
            self.wanted.iter().filter(|(partition, _)| self.is_elsewhere(partition)).map(|(_, wanted)| wanted.look_at);
        let stopping = self.stop.is_some();
        let take_back_after = self.config.take_back_after;
        let at = |led: &Led| match led.role {
            Role::Released { look_at, .. } if stopping => Some(look_at),
            Role::Released { look_at, since } => Some(look_at.min(since.plus(led.patience(take_back_after)))),
            _ => None,
        };
        let released = self.moving.iter().filter_map(|partition| at(self.partitions.get(partition)?));
        if stopping { released.min() } else { wanted.chain(released).min() }
    }
}
