//! Transactions of a lane: every one compares the lane's own `/wal` record, and none is believed to have failed before
//! what it wrote was read back.
//!
//! Invariants:
//! 1. A transaction that changes `/wal/{wid}` runs alone; those that only compare it run side by side, bounded.
//! 2. After a conflict or an unknown outcome the keys are read: what stands there decides each part as won or lost, and
//!    an unchanged record decides nothing (the transaction may still be under way), so it is sent again.
//! 3. `/wal/{wid}` seen not OPEN decides everything: the lane is fenced.
//! 4. A birth whose record is absent is lost once its topic's record is seen not to be LIVE with this id: it never is again,
//!    so that no try under way can succeed. Where the topic was only altered the birth is sent again, comparing what was seen.

use super::config::{SHARED_TXNS, backoff};
use super::core::LaneCore;
use super::events::{Effect, Token};
use super::messages::TopicSeen;
use crate::env::Mono;
use crate::ids::{ShardIndex, TopicId, TopicPartition, Wid};
use crate::meta::records::{PartitionRecord, Record, RecordError, TopicRecord, TopicState, WalRecord, WalState};
use crate::meta::{Compare, Key, Op, Snapshot, Txn, TxnOutcome, Versioned, keys};
use crate::store_error::StoreError;
use crate::wrong::{Wrong, wrong};
use std::collections::BTreeMap;
use std::sync::Arc;

/// One partition's part of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Change {
    /// For whom.
    pub shard: ShardIndex,
    /// The record as it was read; `None`: absent.
    pub before: Option<PartitionRecord>,
    /// The record to write.
    pub after: PartitionRecord,
}

type Changes = BTreeMap<TopicPartition, Change>;
type Topics = BTreeMap<TopicId, Arc<TopicSeen>>;

/// What a transaction is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// OPEN.
    Open(WalRecord),
    /// BIRTH, the claims of ACQUIRE, RELEASE; of births the topics too, as they were seen.
    Partitions(Kind, Changes, Topics),
    /// CHECKPOINT, or the seal of a graceful stop: the `/wal` record to write.
    Wal(WalRecord),
}

/// Which step changes partition records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Birth,
    Claim,
    Release,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Sent,
    Reading,
    ReadAt(Mono),
    SendAt(Mono),
}

#[derive(Debug)]
struct Undecided {
    purpose: Purpose,
    phase: Phase,
    attempts: u32,
}

/// Transactions whose outcome is not known.
#[derive(Default)]
pub(super) struct Transactions {
    undecided: BTreeMap<Token, Undecided>,
}

impl Transactions {
    pub(super) fn clear(&mut self) {
        self.undecided.clear();
    }
    pub(super) fn is_empty(&self) -> bool {
        self.undecided.is_empty()
    }
    /// Whether one more that only compares the `/wal` record may start.
    pub(super) fn may_share(&self) -> bool {
        self.undecided.len() < SHARED_TXNS
            && self.undecided.values().all(|one| matches!(one.purpose, Purpose::Partitions(..)))
    }
    /// Whether a claim or a birth is undecided.
    pub(super) fn ownership_undecided(&self) -> bool {
        self.undecided.values().any(|one| matches!(one.purpose, Purpose::Partitions(Kind::Claim | Kind::Birth, ..)))
    }
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.undecided
            .values()
            .filter_map(|one| match one.phase {
                Phase::ReadAt(at) | Phase::SendAt(at) => Some(at),
                Phase::Sent | Phase::Reading => None,
            })
            .min()
    }
}

/// What a read-back says about one part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Won,
    Lost,
    Undecided,
}

fn verdict(change: &Change, stands: Option<&PartitionRecord>) -> Verdict {
    if stands == Some(&change.after) {
        Verdict::Won
    } else if stands == change.before.as_ref() && !wrong(Wrong::UnchangedRecordTakenForLost) {
        Verdict::Undecided
    } else {
        Verdict::Lost
    }
}

/// Changes records of partitions while the lane's own `/wal` record stands, and those of their topics where they are named.
fn partitions_txn((wid, own): (Wid, &WalRecord), kind: Kind, changes: &Changes, topics: &Topics) -> Txn {
    let unguarded = match kind {
        Kind::Birth => wrong(Wrong::BirthWithoutWal),
        Kind::Claim => wrong(Wrong::ClaimWithoutOwnWal) || wrong(Wrong::ClaimsBeforeCheckpointTxn),
        Kind::Release => false,
    };
    let mut txn = Txn::default();
    if !unguarded {
        txn.compares.push(Compare::Value(keys::wal(wid), own.encode()));
    }
    for (&partition, change) in changes {
        let key = keys::partition(partition);
        txn.compares.push(match &change.before {
            None => Compare::Absent(key.clone()),
            Some(record) => Compare::Value(key.clone(), record.encode()),
        });
        txn.ops.push(Op::Put(key, change.after.encode()));
    }
    if !wrong(Wrong::BirthWithoutTopic) {
        let seen = topics.values().map(|topic| Compare::Value(keys::topic(&topic.name), topic.record.clone()));
        txn.compares.extend(seen);
    }
    txn
}

/// Those of `topics` that are LIVE still, as they stand now.
fn live(topics: Topics, stand: Vec<Option<Versioned>>) -> Result<Topics, RecordError> {
    let mut left = Topics::new();
    for ((id, seen), found) in topics.into_iter().zip(stand) {
        let Some(found) = found else { continue };
        let record = TopicRecord::decode(&found.value)?;
        if record.id == id && record.state == TopicState::Live {
            left.insert(id, Arc::new(TopicSeen { name: seen.name.clone(), record: found.value }));
        }
    }
    Ok(left)
}

impl LaneCore {
    /// Starts a transaction.
    pub(super) fn start_txn(&mut self, purpose: Purpose) {
        let token = self.token();
        self.transactions.undecided.insert(token, Undecided { purpose, phase: Phase::Sent, attempts: 0 });
        self.send_txn(token);
    }

    fn send_txn(&mut self, token: Token) {
        let Some(one) = self.transactions.undecided.get_mut(&token) else { return };
        one.phase = Phase::Sent;
        one.attempts += 1;
        let txn = match &one.purpose {
            Purpose::Open(record) => {
                let absent = (!wrong(Wrong::WidReopened)).then(|| Compare::Absent(keys::wal(self.wid)));
                Txn {
                    compares: absent.into_iter().chain(self.config.registered.clone()).collect(),
                    ops: vec![Op::Put(keys::wal(self.wid), record.encode())],
                }
            }
            Purpose::Wal(record) => {
                let compare = Compare::Value(keys::wal(self.wid), self.record.encode());
                let anyhow = wrong(Wrong::CheckpointTxnGoesBack);
                Txn {
                    compares: if anyhow { vec![] } else { vec![compare] },
                    ops: vec![Op::Put(keys::wal(self.wid), record.encode())],
                }
            }
            Purpose::Partitions(kind, changes, topics) => {
                partitions_txn((self.wid, &self.record), *kind, changes, topics)
            }
        };
        self.effects.push_back(Effect::Txn(token, txn));
    }

    fn read_back(&mut self, token: Token) {
        let Some(one) = self.transactions.undecided.get_mut(&token) else { return };
        one.phase = Phase::Reading;
        let mut read: Vec<Key> = vec![keys::wal(self.wid)];
        if let Purpose::Partitions(_, changes, topics) = &one.purpose {
            read.extend(changes.keys().map(|&partition| keys::partition(partition)));
            read.extend(topics.values().map(|topic| keys::topic(&topic.name)));
        }
        self.effects.push_back(Effect::ReadMeta(token, read));
    }

    /// Sends and reads again what waited long enough.
    pub(super) fn advance_txns(&mut self) {
        let now = self.now.mono;
        let due: Vec<(Token, Phase)> = self
            .transactions
            .undecided
            .iter()
            .filter(|(_, one)| matches!(one.phase, Phase::ReadAt(at) | Phase::SendAt(at) if at <= now))
            .map(|(&token, one)| (token, one.phase))
            .collect();
        for (token, phase) in due {
            match phase {
                Phase::ReadAt(_) => self.read_back(token),
                Phase::SendAt(_) => self.send_txn(token),
                Phase::Sent | Phase::Reading => {}
            }
        }
    }

    /// A transaction was answered.
    pub(super) fn on_txn(&mut self, token: Token, result: &Result<TxnOutcome, StoreError>) {
        let random = self.random();
        let Some(one) = self.transactions.undecided.get_mut(&token) else { return };
        match result {
            Ok(TxnOutcome::Committed(_)) => {
                let one = self.transactions.undecided.remove(&token).expect("just seen");
                match one.purpose {
                    Purpose::Open(record) => self.opened(record),
                    Purpose::Wal(record) => self.wal_changed(record),
                    Purpose::Partitions(kind, changes, _) => {
                        for (partition, change) in changes {
                            self.partition_changed(kind, partition, change);
                        }
                    }
                }
            }
            Ok(TxnOutcome::Conflict(_)) => self.read_back(token),
            Err(_) => one.phase = Phase::ReadAt(self.now.mono.plus(backoff(one.attempts, random))),
        }
    }

    /// The keys of a transaction were read back.
    pub(super) fn on_meta_read(&mut self, token: Token, result: Result<Snapshot, StoreError>) {
        let random = self.random();
        let Some(one) = self.transactions.undecided.get_mut(&token) else { return };
        one.attempts += 1;
        let again = self.now.mono.plus(backoff(one.attempts, random));
        let Ok(snapshot) = result else {
            one.phase = Phase::ReadAt(again);
            return;
        };
        let mut values = snapshot.values.into_iter();
        let wal = match values.next().flatten().map(|found| WalRecord::decode(&found.value)).transpose() {
            Ok(wal) => wal,
            Err(error) => return self.abort(error.to_string()),
        };
        let open = wal.as_ref().is_some_and(|record| record.state == WalState::Open);
        let one = self.transactions.undecided.remove(&token).expect("just seen");
        match one.purpose {
            Purpose::Open(record) => match wal {
                Some(found) if found == record => self.opened(record),
                Some(_) => self.name_again(),
                None => self.try_later(token, Purpose::Open(record), one.attempts, again),
            },
            Purpose::Wal(record) if wal.as_ref() == Some(&record) => self.wal_changed(record),
            _ if !open => self.fenced(),
            Purpose::Wal(record) => self.try_later(token, Purpose::Wal(record), one.attempts, again),
            Purpose::Partitions(kind, changes, topics) => {
                let stand: Vec<_> = values.by_ref().take(changes.len()).collect();
                let left =
                    self.judge(kind, changes, stand).and_then(|left| Ok((left, live(topics, values.collect())?)));
                match left {
                    Ok((left, topics)) => self.go_on_with(kind, left, topics, (token, one.attempts, again)),
                    Err(error) => self.abort(error.to_string()),
                }
            }
        }
    }

    /// Takes each part as what stands says; gives those that are undecided.
    fn judge(&mut self, kind: Kind, changes: Changes, stand: Vec<Option<Versioned>>) -> Result<Changes, RecordError> {
        let mut left = BTreeMap::new();
        for ((partition, change), found) in changes.into_iter().zip(stand) {
            let stands = found.map(|found| PartitionRecord::decode(&found.value)).transpose()?;
            match verdict(&change, stands.as_ref()) {
                Verdict::Won => self.partition_changed(kind, partition, change),
                Verdict::Lost => self.partition_lost(partition),
                Verdict::Undecided => drop(left.insert(partition, change)),
            }
        }
        Ok(left)
    }

    /// Sends again what is undecided; births only of `topics`, which are LIVE, the others are lost.
    fn go_on_with(
        &mut self,
        kind: Kind,
        mut left: Changes,
        mut topics: Topics,
        (token, attempts, at): (Token, u32, Mono),
    ) {
        if kind == Kind::Birth && !wrong(Wrong::BirthWithoutTopic) {
            let refused: Vec<TopicPartition> =
                left.keys().filter(|partition| !topics.contains_key(&partition.topic)).copied().collect();
            for partition in refused {
                left.remove(&partition);
                self.partition_lost(partition);
            }
        }
        topics.retain(|topic, _| left.keys().any(|partition| partition.topic == *topic));
        if !left.is_empty() {
            self.try_later(token, Purpose::Partitions(kind, left, topics), attempts, at);
        }
    }

    fn try_later(&mut self, token: Token, purpose: Purpose, attempts: u32, at: Mono) {
        self.transactions.undecided.insert(token, Undecided { purpose, phase: Phase::SendAt(at), attempts });
    }
}
