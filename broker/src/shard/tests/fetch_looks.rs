//! Fetches beyond a log's end, among other processes: answered once the lane has looked for a fence.

use super::*;
use crate::control::Freshness;
use std::time::Duration;

/// A shard among others with a fresh lease, which proves nothing here, and one committed record in partition 0.
fn world() -> World {
    let mut world = World::new();
    let (at, wall, lease) = (world.now.mono, world.now.wall, Duration::from_secs(5));
    let until = at.plus(lease);
    world.core.on_control(world.now, FromControl::Fresh(Freshness { until, at, wall, lease }));
    world.write(0, BatchOf::plain(1, 10));
    world
}

impl World {
    /// The questions to the lane since the last time, by generation.
    fn questions(&mut self) -> Vec<u64> {
        let asked = std::mem::take(&mut self.to_lane).into_iter().map(|message| match message {
            ToLane::Look { generation } => generation,
            other => panic!("no question: {other:?}"),
        });
        asked.collect()
    }

    fn looked(&mut self, unfenced: bool) {
        self.lane(ToShard::Looked { unfenced });
    }

    fn error(&self, to: ReplyTo) -> Option<ErrorCode> {
        Some(self.fetched(to)?[0].error_code)
    }
}

#[test]
fn the_lane_looks_before_a_client_is_told_that_there_is_no_such_offset() {
    let mut world = world();
    for (unfenced, error) in [(true, ErrorCode::OffsetOutOfRange), (false, ErrorCode::NotLeaderOrFollower)] {
        let to = world.fetch(&Ask { wait_ms: 500, ..Ask::from(7) });
        assert_eq!((world.questions(), world.error(to)), (vec![0], None));
        world.looked(unfenced);
        assert_eq!(world.error(to), Some(error));
    }
    assert_eq!((world.questions(), world.core.next_deadline()), (vec![], None));
}

#[test]
fn no_look_is_needed_for_what_nobody_else_can_have_or_where_the_epoch_says_it() {
    let mut world = world();
    for ask in [Ask { epoch: 1, ..Ask::from(7) }, Ask::from(-1)] {
        assert_eq!(world.read(&ask).error_code, ErrorCode::OffsetOutOfRange);
    }
    world.raise_log_start(1);
    assert_eq!(world.read(&Ask::from(0)).error_code, ErrorCode::OffsetOutOfRange);
    assert_eq!(world.read(&Ask::from(1)).error_code, ErrorCode::None);
    assert!(world.questions().is_empty());
}

#[test]
fn a_fetch_that_comes_behind_a_question_waits_for_the_next_one() {
    let mut world = world();
    let first = world.fetch(&Ask::from(7));
    let (second, third) = (world.fetch(&Ask::from(7)), world.fetch(&Ask::from(8)));
    assert_eq!(world.questions(), [0], "one at a time");
    world.looked(true);
    assert_eq!(world.error(first), Some(ErrorCode::OffsetOutOfRange));
    assert_eq!((world.error(second), world.error(third)), (None, None));
    assert_eq!(world.questions(), [0]);
    world.looked(false);
    for to in [second, third] {
        assert_eq!(world.error(to), Some(ErrorCode::NotLeaderOrFollower));
    }
    assert!(world.questions().is_empty());
}

#[test]
fn what_has_come_meanwhile_is_read() {
    let mut world = world();
    let to = world.fetch(&Ask::from(2));
    world.write(0, BatchOf::plain(2, 10));
    world.looked(true);
    let data = &world.fetched(to).unwrap()[0];
    assert_eq!((data.error_code, bases(data)), (ErrorCode::None, vec![1]));
}

#[test]
fn a_lane_that_does_not_answer_is_not_waited_for_without_end() {
    let mut world = world();
    let to = world.fetch(&Ask::from(7));
    world.pass(999);
    assert_eq!(world.error(to), None);
    world.pass(1);
    assert_eq!(world.error(to), Some(ErrorCode::NotLeaderOrFollower));
    let later = world.fetch(&Ask::from(7));
    assert_eq!(world.questions(), [0], "it is still under way");
    world.looked(true);
    assert_eq!((world.questions(), world.error(later)), (vec![0], None));
    world.looked(true);
    assert_eq!(world.error(later), Some(ErrorCode::OffsetOutOfRange));
}

#[test]
fn who_lost_the_log_or_hands_it_over_is_not_the_one_to_say() {
    let mut world = world();
    let (to, behind) = (world.fetch(&Ask::from(7)), world.fetch(&Ask::from(7)));
    world.lane(ToShard::Fenced { generation: 1 });
    for to in [to, behind] {
        assert_eq!(world.error(to), Some(ErrorCode::NotLeaderOrFollower));
    }
    world.questions();
    let state = world.committed[&partition(0)].next_epoch();
    world.acquire(partition(0), state);
    let to = world.fetch(&Ask::from(7));
    assert_eq!(world.questions(), [1], "the question of before it is not answered");
    world.lane(ToShard::Drain { partition: partition(0), epoch: LeaderEpoch(2) });
    world.looked(true);
    assert_eq!(world.error(to), Some(ErrorCode::NotLeaderOrFollower));
}
