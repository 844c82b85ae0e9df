//! The planner against random traffic and an executor that finishes effects late, in any order, or not at all.

use super::retention::Retention;
use super::tiers::segments_limit;
use super::{Effect, Event, Led, Load, Moment, Planner, PlannerConfig, Segment};
use crate::env::{Mono, WallMs};
use crate::ids::{Offset, TopicId, TopicPartition};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

fn partition(index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(7)), index }
}

fn at(seconds: u64) -> Moment {
    Moment { mono: Mono(0).plus(Duration::from_secs(seconds)), wall: WallMs(seconds as i64 * 1000) }
}

fn empty(retention: Retention) -> Led {
    let none = Offset(0);
    Led { log_start: none, covered: none, uncovered: Vec::new(), segments: Vec::new(), retention }
}

fn keep_all() -> Retention {
    Retention { delete: true, ms: None, bytes: None }
}

fn planner(partitions: u32, config: PlannerConfig) -> Planner {
    let mut planner = Planner::new(config, 7);
    for index in 0..partitions {
        planner.handle(at(0), Event::Led(partition(index), empty(keep_all())));
    }
    planner
}

fn commit(planner: &mut Planner, seconds: u64, index: u32, end: i64, bytes: u64) {
    planner.handle(at(seconds), Event::Committed { partition: partition(index), end: Offset(end), bytes });
}

/// What the manifests would hold.
#[derive(Default)]
struct Manifests {
    covered: BTreeMap<TopicPartition, Offset>,
}

impl Manifests {
    /// What the executor reports once `effect` is done.
    fn finish(&mut self, now: Moment, effect: Effect) -> Event {
        match effect {
            Effect::Roll { partition, through, bytes } => {
                let base = self.covered.insert(partition, through).unwrap_or_default();
                assert!(base < through, "a roll covers something");
                let last = through.plus(-1);
                Event::Rolled(partition, Segment { base, last, bytes, max_timestamp: now.wall.0, created: now.wall })
            }
            Effect::Merge { partition, segments } => {
                assert!(segments.windows(2).all(|pair| pair[0].last.plus(1) == pair[1].base), "neighbours");
                let last = segments[segments.len() - 1];
                let bytes = segments.iter().map(|each| each.bytes).sum();
                Event::Merged(partition, Segment { base: segments[0].base, bytes, ..last })
            }
        }
    }
}

fn name(effect: &Effect) -> TopicPartition {
    match effect {
        Effect::Roll { partition, .. } | Effect::Merge { partition, .. } => *partition,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_comes_and_fails_all_is_covered_in_the_end_by_a_bounded_number_of_segments(
        steps in prop::collection::vec((0_u32..5, 1_u64..5000, 0_u64..40, 0_usize..4, 0_u32..10), 1..400),
    ) {
        let config = PlannerConfig { roll_bytes: 1 << 14, effects: 3, effect_bytes: 1 << 15, ..PlannerConfig::default() };
        let mut planner = planner(5, config.clone());
        let (mut manifests, mut under_way) = (Manifests::default(), Vec::<Effect>::new());
        let (mut ends, mut now, mut total) = ([0; 5], 0, [0_u64; 5]);
        for (index, bytes, pause, which, luck) in steps {
            now += pause;
            ends[index as usize] += 1;
            total[index as usize] += bytes;
            commit(&mut planner, now, index, ends[index as usize], bytes);
            while let Some(effect) = planner.next(at(now)) {
                prop_assert!(under_way.iter().all(|each| name(each) != name(&effect)), "one of a partition at a time");
                under_way.push(effect);
            }
            prop_assert!(under_way.len() <= config.effects);
            if which < under_way.len() {
                let effect = under_way.remove(which);
                let event = if luck == 0 { Event::Failed(name(&effect)) } else { manifests.finish(at(now), effect) };
                planner.handle(at(now), event);
            }
        }
        now += 24 * 3600;
        loop {
            under_way.extend(std::iter::from_fn(|| planner.next(at(now))));
            let Some(effect) = under_way.pop() else { break };
            let event = manifests.finish(at(now), effect);
            planner.handle(at(now), event);
        }
        let limits = keep_all().limits(config.fan_in, config.roll_bytes, at(now).wall);
        for index in 0..5 {
            let covered = manifests.covered.get(&partition(index)).copied().unwrap_or_default();
            prop_assert_eq!(covered, Offset(ends[index as usize]));
        }
        let limit: u64 = total.iter().map(|&total| segments_limit(total, 1, &limits)).sum();
        prop_assert!(planner.segments() as u64 <= limit);
    }
}

#[test]
fn a_record_is_rolled_when_it_is_old_enough_and_the_oldest_first() {
    let mut planner = planner(3, PlannerConfig { effects: 1, ..PlannerConfig::default() });
    commit(&mut planner, 5, 2, 1, 100);
    commit(&mut planner, 9, 0, 1, 100);
    assert_eq!(planner.next(at(64)), None);
    let roll = Effect::Roll { partition: partition(2), through: Offset(1), bytes: 100 };
    assert_eq!(planner.next(at(80)), Some(roll));
    assert_eq!(planner.next(at(80)), None, "one at a time, as configured");
}

#[test]
fn what_is_large_is_rolled_at_once_and_only_up_to_about_the_size() {
    let mut planner = planner(1, PlannerConfig { roll_bytes: 800, ..PlannerConfig::default() });
    for end in 1..=30 {
        commit(&mut planner, 1, 0, end, 50);
    }
    let roll = Effect::Roll { partition: partition(0), through: Offset(16), bytes: 800 };
    assert_eq!(planner.next(at(1)), Some(roll));
}

#[test]
fn near_a_limit_of_the_log_age_does_not_count() {
    let mut planner = planner(1, PlannerConfig::default());
    commit(&mut planner, 1, 0, 1, 100);
    planner.handle(at(1), Event::Load(Load { uncovered_objects: 49_151, ..Load::default() }));
    assert_eq!(planner.next(at(1)), None);
    planner.handle(at(1), Event::Load(Load { uncovered_objects: 49_152, ..Load::default() }));
    assert!(matches!(planner.next(at(1)), Some(Effect::Roll { .. })));
}

#[test]
fn a_failed_effect_is_tried_again_after_ever_longer_pauses_and_loses_nothing() {
    let mut planner = planner(1, PlannerConfig::default());
    commit(&mut planner, 0, 0, 1, 100);
    let first = planner.next(at(60));
    let mut seconds = 60;
    for failure in 0..12 {
        planner.handle(at(seconds), Event::Failed(partition(0)));
        let longest = (1 << failure).min(300);
        assert_eq!(planner.next(at(seconds + longest / 2 - u64::from(longest == 300))), None);
        seconds += longest;
        assert_eq!(planner.next(at(seconds)), first);
    }
    let Some(done) = first.map(|effect| Manifests::default().finish(at(seconds), effect)) else { panic!("a roll") };
    planner.handle(at(seconds), done);
    commit(&mut planner, seconds, 0, 2, 64 << 20);
    assert!(planner.next(at(seconds)).is_some());
}

#[test]
fn a_partition_led_again_starts_nothing_before_what_was_under_way_is_reported() {
    let mut planner = planner(1, PlannerConfig::default());
    commit(&mut planner, 0, 0, 1, 100);
    assert!(planner.next(at(60)).is_some());
    planner.handle(at(60), Event::Lost(partition(0)));
    let led = Led { uncovered: vec![(Offset(1), 100)], ..empty(keep_all()) };
    planner.handle(at(60), Event::Led(partition(0), led));
    assert_eq!(planner.next(at(200)), None);
    let begun_before =
        Segment { base: Offset(0), last: Offset(0), bytes: 100, max_timestamp: -1, created: at(60).wall };
    planner.handle(at(200), Event::Rolled(partition(0), begun_before));
    assert_eq!(planner.segments(), 0, "what is led now was read from the manifest");
    assert!(planner.next(at(300)).is_some());
}

#[test]
fn what_lies_below_the_log_start_is_neither_rolled_nor_merged() {
    let mut planner = planner(1, PlannerConfig::default());
    commit(&mut planner, 0, 0, 10, 100);
    let roll = planner.next(at(60)).expect("due");
    let rolled = Manifests::default().finish(at(60), roll);
    planner.handle(at(60), rolled);
    commit(&mut planner, 61, 0, 20, 100);
    planner.handle(at(62), Event::LogStart(partition(0), Offset(20)));
    assert_eq!((planner.next(at(900)), planner.segments()), (None, 0));
}

#[test]
fn what_the_manifest_names_is_merged_whoever_wrote_it_and_one_merge_at_a_time() {
    let mut planner = planner(2, PlannerConfig::default());
    let segment = |at: i64| Segment {
        base: Offset(at * 10),
        last: Offset(at * 10 + 9),
        bytes: 100,
        max_timestamp: -1,
        created: WallMs(0),
    };
    let named: Vec<_> = (0..9).map(segment).collect();
    planner.handle(at(1), Event::LogStart(partition(0), Offset(15)));
    for index in 0..2 {
        planner.handle(at(1), Event::Named(partition(index), named.clone()));
    }
    let first = planner.next(at(1)).expect("due");
    assert_eq!(first, Effect::Merge { partition: partition(0), segments: named[1..].to_vec() }, "none below the start");
    assert_eq!((planner.next(at(1)), planner.mergeable()), (None, 1));
    let merged = Segment { base: Offset(10), last: Offset(89), bytes: 800, ..segment(0) };
    planner.handle(at(2), Event::Merged(partition(0), merged));
    let second = Effect::Merge { partition: partition(1), segments: named.clone() };
    assert_eq!(planner.next(at(2)), Some(second.clone()));
    // Somebody else merged them: what stands is looked at anew.
    planner.handle(at(3), Event::Named(partition(1), vec![Segment { last: Offset(89), bytes: 900, ..named[0] }]));
    planner.handle(at(3), Event::Covered(partition(1), Offset(90)));
    assert_eq!((planner.next(at(3)), planner.segments(), planner.mergeable()), (None, 2, 0));
}

#[test]
fn what_a_new_leader_finds_is_rolled_in_pieces() {
    let mut planner = Planner::new(PlannerConfig { roll_bytes: 800, ..PlannerConfig::default() }, 7);
    let uncovered = (1..=30).map(|end| (Offset(end), 50)).collect();
    planner.handle(at(0), Event::Led(partition(0), Led { uncovered, ..empty(keep_all()) }));
    let roll = Effect::Roll { partition: partition(0), through: Offset(16), bytes: 800 };
    assert_eq!(planner.next(at(1)), Some(roll));
}

#[test]
fn the_rolls_of_a_trickle_are_bounded_by_its_write_ahead_objects() {
    let config = PlannerConfig::default();
    let mut planner = planner(100, config.clone());
    let mut manifests = Manifests::default();
    let (mut rolls, mut objects) = (0, 0);
    for second in 1..=3600_u32 {
        objects += 8;
        for index in 0..100 {
            commit(&mut planner, second.into(), index, second.into(), 100);
        }
        let load = Load { committed_objects: objects, uncovered_objects: 100, ..Load::default() };
        planner.handle(at(second.into()), Event::Load(load));
        while let Some(effect) = planner.next(at(second.into())) {
            rolls += u64::from(matches!(effect, Effect::Roll { .. }));
            let done = manifests.finish(at(second.into()), effect);
            planner.handle(at(second.into()), done);
        }
    }
    assert!(rolls <= config.burst + objects / config.objects_per_roll, "{rolls}");
    assert!(rolls >= objects / config.objects_per_roll - 1, "what is earned is used: {rolls}");
    assert!(manifests.covered.len() == 100, "and everybody gets a turn");
}

#[test]
fn without_credit_a_record_waits_for_the_deadline() {
    let mut planner = planner(1, PlannerConfig { burst: 0, ..PlannerConfig::default() });
    let day = Retention { delete: true, ms: Some(24 * 3_600_000), bytes: None };
    planner.handle(at(0), Event::Led(partition(1), empty(day)));
    commit(&mut planner, 0, 0, 1, 100);
    commit(&mut planner, 0, 1, 1, 100);
    assert_eq!(planner.next(at(3 * 3600 - 1)), None);
    let roll = |index| Some(Effect::Roll { partition: partition(index), through: Offset(1), bytes: 100 });
    assert_eq!(planner.next(at(3 * 3600)), roll(1), "a cell of its retention");
    assert_eq!(planner.next(at(24 * 3600 - 1)), None);
    assert_eq!(planner.next(at(24 * 3600)), roll(0));
}

#[test]
fn what_exceeds_the_memory_is_rolled_from_the_largest_on() {
    let mut planner = planner(3, PlannerConfig { held_bytes: 1000, ..PlannerConfig::default() });
    for (index, bytes) in [(0, 300), (1, 500), (2, 200)] {
        commit(&mut planner, 0, index, 1, bytes);
    }
    assert_eq!(planner.next(at(0)), None);
    commit(&mut planner, 1, 2, 2, 1);
    assert_eq!(planner.next(at(1)), Some(Effect::Roll { partition: partition(1), through: Offset(1), bytes: 500 }));
    assert_eq!(planner.next(at(1)), None, "what is being rolled does not wait");
}

#[test]
fn a_decision_looks_only_at_what_changed_or_at_whose_time_has_come() {
    let mut planner = planner(100_000, PlannerConfig::default());
    assert_eq!(planner.next(at(0)), None);
    assert_eq!(planner.looked, 100_000);
    for second in 0..100 {
        commit(&mut planner, second, 5, second as i64 + 1, 100);
        planner.next(at(second));
    }
    assert_eq!(planner.looked, 100_000);
    planner.handle(at(100), Event::Settings(partition(7), Retention::default()));
    planner.next(at(100));
    assert_eq!(planner.looked, 100_001);
}
