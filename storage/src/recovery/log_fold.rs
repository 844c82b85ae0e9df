//! What the bucket alone says of partitions (PROTOCOL.md section 7), pure: the fold of each log, and the best of them.
//!
//! Invariants:
//! 1. A log's fold starts at its newest checkpoint and takes every entry from S on, in order. A partition that the
//!    checkpoint lacks starts only at an entry of epoch 1 and offset 0.
//! 2. Of all logs the state with the highest (epoch, end) counts, of equals the one with the highest log start.
//! 3. An entry that can't follow what was folded is kept as a flaw of its partition, and counts unless another log holds
//!    the partition at a higher epoch.

use crate::format::Footer;
use crate::format::checkpoint::Checkpoint;
use crate::ids::{LeaderEpoch, Offset, Seq, TopicPartition, Wid};
use crate::partition::{CommittedPartition, ObjectPlace};
use std::collections::BTreeMap;

/// An entry of a log that does not follow the ones before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// The epoch that can't be trusted from there on.
    pub epoch: LeaderEpoch,
    /// Where, and what is wrong.
    pub detail: String,
}

/// The fold of one log.
#[derive(Clone, PartialEq, Debug)]
pub struct LogFold {
    wid: Wid,
    next: Seq,
    partitions: BTreeMap<TopicPartition, CommittedPartition>,
    flaws: BTreeMap<TopicPartition, Flaw>,
    producer_ids: i64,
}

impl LogFold {
    /// Starts at a log's newest checkpoint, its references attached.
    pub fn new(checkpoint: Checkpoint) -> LogFold {
        let Checkpoint { wid, s, partitions, producer_id_high_water, .. } = checkpoint;
        LogFold { wid, next: s, partitions, flaws: BTreeMap::new(), producer_ids: producer_id_high_water }
    }

    /// Starts at a checkpoint whose references can't be had: so it is of a log that was being collected, whose partitions
    /// are elsewhere at higher epochs, or each of them has a flaw.
    pub fn without_references(checkpoint: Checkpoint, detail: &str) -> LogFold {
        let flaw = |state: CommittedPartition| Flaw { epoch: state.epoch, detail: detail.to_owned() };
        let mut log = LogFold::new(checkpoint);
        log.flaws = std::mem::take(&mut log.partitions).into_iter().map(|(p, state)| (p, flaw(state))).collect();
        log
    }

    /// The sequence to fold next.
    pub fn next(&self) -> Seq {
        self.next
    }

    /// Folds the object at [`LogFold::next`].
    pub fn fold(&mut self, place: ObjectPlace, footer: &Footer) {
        assert!(place.wid == self.wid && place.seq == self.next, "invariant 1: in order, none passed over");
        self.next = self.next.next();
        for entry in &footer.partitions {
            let partition = entry.partition;
            let ids = entry.batches.iter().filter_map(|batch| batch.producer).map(|stamp| stamp.id.saturating_add(1));
            self.producer_ids = ids.fold(self.producer_ids, i64::max);
            if self.flaws.contains_key(&partition) {
                continue;
            }
            if entry.epoch == LeaderEpoch(1) && entry.base == Offset(0) {
                self.partitions.entry(partition).or_insert_with(|| CommittedPartition::born(entry.epoch));
            }
            let folded = match self.partitions.get_mut(&partition) {
                Some(state) => state.fold(place, entry).map(drop).map_err(|error| error.to_string()),
                None => Err(format!("an entry at {} of epoch {} of an unknown partition", entry.base, entry.epoch)),
            };
            if let Err(detail) = folded {
                let detail = format!("{}/{}: {detail}", place.wid, place.seq);
                self.flaws.insert(partition, Flaw { epoch: entry.epoch, detail });
            }
        }
        for start in &footer.log_starts {
            if let Some(state) = self.partitions.get_mut(&start.partition) {
                state.fold_log_start(start.offset);
            }
        }
    }
}

/// The best states of all logs so far.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Best {
    /// By partition: the log that leads to it, and the state.
    pub partitions: BTreeMap<TopicPartition, (Wid, CommittedPartition)>,
    /// First producer id above every one that any log knows of.
    pub producer_ids: i64,
    flaws: BTreeMap<TopicPartition, Flaw>,
}

impl Best {
    /// Takes the fold of one log in, which has come to its end.
    pub fn add(&mut self, log: LogFold) {
        self.producer_ids = self.producer_ids.max(log.producer_ids);
        for (partition, state) in log.partitions {
            let rank = |state: &CommittedPartition| (state.epoch, state.end, state.log_start);
            let best = self.partitions.get(&partition).is_none_or(|(_, known)| rank(known) < rank(&state));
            if best {
                self.partitions.insert(partition, (log.wid, state));
            }
        }
        for (partition, flaw) in log.flaws {
            let newest = self.flaws.get(&partition).is_none_or(|known| known.epoch < flaw.epoch);
            if newest {
                self.flaws.insert(partition, flaw);
            }
        }
    }

    /// Flaws that count (invariant 3).
    pub fn flaws(&self) -> impl Iterator<Item = (TopicPartition, &Flaw)> {
        let counts = |partition: &TopicPartition, flaw: &Flaw| {
            self.partitions.get(partition).is_none_or(|(_, state)| state.epoch <= flaw.epoch)
        };
        self.flaws.iter().filter(move |(partition, flaw)| counts(partition, flaw)).map(|(p, flaw)| (*p, flaw))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::WallMs;
    use crate::format::{LogStartEntry, PartitionEntry};
    use crate::ids::TopicId;

    const W: Wid = Wid(1);
    const V: Wid = Wid(2);

    fn partition() -> TopicPartition {
        TopicPartition { topic: TopicId(uuid::Uuid::from_u128(9)), index: 0 }
    }

    fn footer(epoch: i32, base: i64, last: i64) -> Footer {
        let entry = PartitionEntry {
            partition: partition(),
            epoch: LeaderEpoch(epoch),
            base: Offset(base),
            last: Offset(last),
            position: 64,
            length: 10,
            max_timestamp: -1,
            batches: Vec::new(),
        };
        Footer { partitions: vec![entry], log_starts: Vec::new() }
    }

    fn fold(mut log: LogFold, footers: &[Footer]) -> LogFold {
        for footer in footers {
            let place = ObjectPlace { wid: log.wid, seq: log.next(), sealed_at: WallMs(0) };
            log.fold(place, footer);
        }
        log
    }

    fn held(wid: Wid, epoch: i32, end: i64) -> Checkpoint {
        let state = CommittedPartition { end: Offset(end), ..CommittedPartition::born(LeaderEpoch(epoch)) };
        Checkpoint { partitions: BTreeMap::from([(partition(), state)]), ..Checkpoint::empty(wid) }
    }

    fn best(logs: impl IntoIterator<Item = LogFold>) -> Best {
        let mut best = Best::default();
        logs.into_iter().for_each(|log| best.add(log));
        best
    }

    #[test]
    fn births_leave_no_checkpoint_and_are_found_by_their_first_entry() {
        let log = fold(LogFold::new(Checkpoint::empty(W)), &[footer(1, 0, 4), footer(1, 5, 5)]);
        let best = best([log]);
        assert_eq!(best.partitions[&partition()].1.end, Offset(6));
        assert_eq!(best.flaws().count(), 0);
    }

    #[test]
    fn the_highest_epoch_and_end_count_in_whatever_order_the_logs_come() {
        let older = fold(LogFold::new(held(W, 2, 10)), &[footer(2, 10, 30)]);
        let newer = LogFold::new(held(V, 3, 20));
        for logs in [[older.clone(), newer.clone()], [newer, older]] {
            let best = best(logs);
            let (wid, state) = &best.partitions[&partition()];
            assert_eq!((*wid, state.end), (V, Offset(20)));
        }
    }

    #[test]
    fn of_equals_the_highest_log_start_counts() {
        let raised = Footer {
            log_starts: vec![LogStartEntry { partition: partition(), offset: Offset(7) }],
            ..Footer::default()
        };
        let with = fold(LogFold::new(held(W, 2, 10)), &[raised]);
        let without = LogFold::new(held(V, 2, 10));
        assert_eq!(best([without, with]).partitions[&partition()].1.log_start, Offset(7));
    }

    #[test]
    fn a_checkpoint_without_references_counts_against_what_no_other_log_leads() {
        let broken = || LogFold::without_references(held(W, 2, 10), "its chunk is gone");
        assert_eq!(best([broken()]).flaws().count(), 1);
        assert_eq!(best([broken(), LogFold::new(held(V, 3, 10))]).flaws().count(), 0);
    }

    #[test]
    fn an_entry_that_leaves_a_gap_is_a_flaw_unless_another_log_went_on() {
        let gap = fold(LogFold::new(held(W, 2, 10)), &[footer(2, 12, 13), footer(2, 10, 11)]);
        let alone = best([gap.clone()]);
        assert_eq!(alone.flaws().count(), 1);
        assert_eq!(alone.partitions[&partition()].1.end, Offset(10), "nothing is folded behind a gap");
        assert_eq!(best([gap, LogFold::new(held(V, 3, 10))]).flaws().count(), 0);
        let unknown = fold(LogFold::new(Checkpoint::empty(W)), &[footer(2, 10, 11)]);
        assert_eq!(best([unknown]).flaws().count(), 1, "missing with epoch 2 or above");
    }
}
