//! Appended state against a model of Kafka's rules, and against the fold of what was appended.

use super::*;
use crate::env::WallMs;
use crate::format::{BatchEntry, PartitionEntry};
use crate::ids::{LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid};
use proptest::prelude::*;
use std::collections::HashMap;
use uuid::Uuid;

const PARTITION: TopicPartition = TopicPartition { topic: TopicId(Uuid::from_u128(1)), index: 0 };
const LARGEST: i64 = i32::MAX as i64 + 1;

/// What a producer sends next, relative to what it sent before.
#[derive(Clone, Copy, Debug)]
enum Send {
    /// The next sequence.
    Next { count: u32 },
    /// Its `back`-th last batch again.
    Again { back: usize },
    /// A sequence `by` too high.
    Gap { by: i64, count: u32 },
    /// The next epoch, with sequence 0.
    Bump { count: u32 },
    /// The epoch before.
    Stale { count: u32 },
    /// Everything so far is committed.
    Commit,
}

fn sends() -> impl Strategy<Value = Vec<(i64, Send)>> {
    let send = prop_oneof![
        8 => (1..50u32).prop_map(|count| Send::Next { count }),
        4 => (1..8usize).prop_map(|back| Send::Again { back }),
        1 => (1..9i64, 1..9u32).prop_map(|(by, count)| Send::Gap { by, count }),
        1 => (1..9u32).prop_map(|count| Send::Bump { count }),
        1 => (1..9u32).prop_map(|count| Send::Stale { count }),
        2 => Just(Send::Commit),
    ];
    proptest::collection::vec((0..3i64, send), 1..120)
}

/// One producer as a plain list of everything it ever wrote: (epoch, first sequence, count, base).
#[derive(Clone, Default)]
struct Model {
    written: Vec<(i16, i64, u32, i64)>,
}

impl Model {
    fn epoch(&self) -> i16 {
        self.written.last().map_or(0, |last| last.0)
    }
    fn next_sequence(&self, start: i64) -> i64 {
        self.written.last().map_or(start, |last| (last.1 + i64::from(last.2)) % LARGEST)
    }
    fn stamp_of(&self, id: i64, start: i64, send: Send) -> Option<(ProducerStamp, u32)> {
        let stamp = |epoch, sequence: i64| ProducerStamp { id, epoch, first_sequence: sequence as i32 };
        Some(match send {
            Send::Next { count } => (stamp(self.epoch(), self.next_sequence(start)), count),
            Send::Gap { by, count } => (stamp(self.epoch(), (self.next_sequence(start) + by) % LARGEST), count),
            Send::Bump { count } => (stamp(self.epoch() + 1, 0), count),
            Send::Stale { count } => (stamp(self.epoch().checked_sub(1).filter(|epoch| *epoch >= 0)?, 0), count),
            Send::Again { back } => {
                let (epoch, sequence, count, _) = *self.written.iter().rev().nth(back - 1)?;
                (stamp(epoch, sequence), count)
            }
            Send::Commit => return None,
        })
    }
    /// Base of the original, if it is among the last five of the current epoch.
    fn duplicate_of(&self, stamp: ProducerStamp, count: u32) -> Option<i64> {
        let current = self.written.iter().rev().take_while(|each| each.0 == self.epoch()).take(WINDOW);
        let same = |each: &&(i16, i64, u32, i64)| {
            (each.0, each.1, each.2) == (stamp.epoch, i64::from(stamp.first_sequence), count)
        };
        current.filter(same).map(|each| each.3).next()
    }
    fn follows(&self, stamp: ProducerStamp) -> bool {
        match self.written.is_empty() {
            true => true,
            false if stamp.epoch > self.epoch() => stamp.first_sequence == 0,
            false => stamp.epoch == self.epoch() && i64::from(stamp.first_sequence) == self.next_sequence(0),
        }
    }
}

fn entry(base: i64, batches: &[(Option<ProducerStamp>, u32)]) -> PartitionEntry {
    let (mut offset_delta, mut entries) = (0, Vec::new());
    for &(producer, count) in batches {
        let position_delta = entries.len() as u32 * 100;
        entries.push(BatchEntry { offset_delta, position_delta, count, producer, flags: 0 });
        offset_delta += count;
    }
    PartitionEntry {
        partition: PARTITION,
        epoch: LeaderEpoch(1),
        base: Offset(base),
        last: Offset(base + i64::from(offset_delta) - 1),
        position: 64,
        length: entries.len() as u32 * 100,
        max_timestamp: -1,
        batches: entries,
    }
}

fn place(seq: u64, at: i64) -> ObjectPlace {
    ObjectPlace { wid: Wid(1), seq: Seq(seq), sealed_at: WallMs(at) }
}

proptest! {
    #[test]
    fn appended_state_follows_the_model_and_equals_committed_state_once_all_is_folded(
        sends in sends(),
        start in prop_oneof![Just(0), LARGEST - 60..LARGEST],
    ) {
        let mut committed = CommittedPartition::born(LeaderEpoch(1));
        let mut appended = AppendedPartition::new(&committed);
        let mut models: HashMap<i64, Model> = HashMap::new();
        let (mut unfolded, mut seq, now) = (Vec::new(), 0, WallMs(1000));
        for (id, send) in sends.into_iter().chain([(0, Send::Commit)]) {
            if matches!(send, Send::Commit) && !unfolded.is_empty() {
                let folded = committed.fold(place(seq, now.0), &entry(committed.end.0, &unfolded));
                prop_assert_eq!(folded, Ok(Folded::Advanced));
                appended.commit_through(committed.end);
                unfolded.clear();
                seq += 1;
            }
            let model = models.entry(id).or_default();
            let Some((stamp, count)) = model.stamp_of(id, start, send) else { continue };
            let verdict = appended.check(Some(stamp), count, now);
            if let Some(base) = model.duplicate_of(stamp, count) {
                let (base, last) = (Offset(base), Offset(base + i64::from(count) - 1));
                let durable = last < committed.end;
                let expected = if durable { Sequenced::DuplicateCommitted { base, last } } else { Sequenced::DuplicateInFlight { base, last } };
                prop_assert_eq!(verdict, Ok(expected));
            } else if model.follows(stamp) {
                prop_assert_eq!(verdict, Ok(Sequenced::Append));
                let base = appended.append(Some(stamp), count, now);
                model.written.push((stamp.epoch, stamp.first_sequence.into(), count, base.0));
                unfolded.push((Some(stamp), count));
            } else if !model.written.is_empty() && stamp.epoch < model.epoch() {
                let stale = matches!(verdict, Err(AppendError::StaleEpoch { .. }));
                prop_assert!(stale, "{verdict:?}");
            } else {
                let out_of_order = matches!(verdict, Err(AppendError::OutOfOrderSequence { .. }));
                prop_assert!(out_of_order, "{verdict:?}");
            }
        }
        prop_assert_eq!(&appended, &AppendedPartition::new(&committed));
        let restored = crate::format::checkpoint::tests::round_trip(PARTITION, &committed);
        prop_assert_eq!(&restored, &committed);
    }
}

#[test]
fn an_unknown_or_expired_producer_may_start_with_any_sequence() {
    let mut appended = AppendedPartition::new(&CommittedPartition::born(LeaderEpoch(1)));
    let stamp = |first_sequence| Some(ProducerStamp { id: 7, epoch: 0, first_sequence });
    assert_eq!(appended.check(stamp(77), 1, WallMs(0)), Ok(Sequenced::Append));
    appended.append(stamp(77), 1, WallMs(0));
    assert!(appended.check(stamp(500), 1, WallMs(PRODUCER_EXPIRY_MS - 1)).is_err());
    assert_eq!(appended.check(stamp(500), 1, WallMs(PRODUCER_EXPIRY_MS)), Ok(Sequenced::Append));
}

#[test]
fn a_new_epoch_must_start_with_sequence_zero() {
    let mut appended = AppendedPartition::new(&CommittedPartition::born(LeaderEpoch(1)));
    let stamp = |epoch, first_sequence| Some(ProducerStamp { id: 7, epoch, first_sequence });
    appended.append(stamp(0, 0), 1, WallMs(0));
    let refused = AppendError::OutOfOrderSequence { producer: 7, expected: 0, found: 3 };
    assert_eq!(appended.check(stamp(1, 3), 1, WallMs(0)), Err(refused));
    assert_eq!(appended.check(stamp(1, 0), 1, WallMs(0)), Ok(Sequenced::Append));
    appended.append(stamp(1, 0), 1, WallMs(0));
    let stale = AppendError::StaleEpoch { producer: 7, current: 1, found: 0 };
    assert_eq!(appended.check(stamp(0, 0), 1, WallMs(0)), Err(stale), "even a retry of what was written");
}

#[test]
fn entries_of_another_epoch_change_nothing() {
    let mut state = CommittedPartition::born(LeaderEpoch(2));
    let before = state.clone();
    assert_eq!(state.fold(place(0, 0), &entry(0, &[(None, 5)])), Ok(Folded::OtherEpoch));
    assert_eq!(state, before);
}

#[test]
fn a_gap_between_entries_is_an_error() {
    let mut state = CommittedPartition::born(LeaderEpoch(1));
    state.fold(place(0, 0), &entry(0, &[(None, 5)])).unwrap();
    let error = FoldError { base: Offset(6), end: Offset(5), epoch: LeaderEpoch(1) };
    assert_eq!(state.fold(place(1, 0), &entry(6, &[(None, 5)])), Err(error));
    assert_eq!(state.end, Offset(5));
}

#[test]
fn the_log_start_rises_to_the_end_at_most_and_takes_references_and_epochs_along() {
    let mut state = CommittedPartition::born(LeaderEpoch(1));
    for n in 0..4 {
        state.fold(place(n, 0), &entry(n as i64 * 5, &[(None, 5)])).unwrap();
    }
    state.fold_log_start(Offset(7));
    assert_eq!((state.log_start, state.references.len()), (Offset(7), 3));
    state.fold_log_start(Offset(3));
    assert_eq!(state.log_start, Offset(7));
    let mut next = state.next_epoch();
    assert_eq!(next.epochs.end_of(LeaderEpoch(1), next.end).map(|found| found.end), Some(Offset(20)));
    next.fold_log_start(Offset(99));
    assert_eq!((next.log_start, next.references.len()), (Offset(20), 0));
    assert_eq!(next.epochs.starts(), [EpochStart { epoch: LeaderEpoch(2), start: Offset(20) }]);
}
