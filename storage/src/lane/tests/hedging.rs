//! A put that takes long is sent a second time: what either answer leads to.

use super::core::{Bare, WID, a_header, committed, fenced, fencer, me, outage, puts};
use super::world::{entry, partition};
use crate::format::object::ObjectKind;
use crate::ids::Seq;
use crate::lane::LaneConfig;
use crate::lane::events::{Effect, Event};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::PutOutcome;
use std::collections::VecDeque;
use std::time::Duration;

const STORED: Result<PutOutcome, StoreError> = Ok(PutOutcome::Stored);
/// Objects that were stored before one takes longer: half of them in ten milliseconds, half in nine.
const BEFORE: u64 = 32;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A lane that knows its store, with sequence [`BEFORE`] under way; the effects are those of its put.
fn one_under_way(hedge_percent: u32) -> (Bare, VecDeque<Effect>) {
    let config = LaneConfig { hedge_percent, checkpoint_every: Duration::from_secs(1_000), ..LaneConfig::default() };
    let mut bare = Bare::leading(config);
    for seq in 0..BEFORE {
        bare.seal(entry(partition(0), 1, i64::try_from(seq).expect("few"), 1, "x"));
        bare.pass(ms(if seq < BEFORE / 2 { 10 } else { 9 }));
        bare.put(seq, STORED);
    }
    let sent = bare.seal(entry(partition(0), 1, i64::try_from(BEFORE).expect("few"), 1, "slow"));
    assert_eq!(puts(&sent).len(), 1);
    (bare, sent)
}

fn hedged() -> Bare {
    let (mut bare, _) = one_under_way(100);
    assert_eq!(puts(&bare.pass(ms(10))).len(), 1, "the hedge");
    bare
}

fn answer_hedge(bare: &mut Bare, result: Result<PutOutcome, StoreError>) -> VecDeque<Effect> {
    bare.give(Event::WalPut { wid: WID, seq: Seq(BEFORE), hedge: true, result })
}

#[test]
fn a_put_that_takes_longer_than_most_is_sent_again_once_with_the_same_bytes() {
    let (mut bare, sent) = one_under_way(100);
    assert!(puts(&bare.pass(ms(9))).is_empty(), "others took ten");
    let again = bare.pass(ms(1));
    assert_eq!(puts(&again), puts(&sent));
    assert!(matches!(again.front(), Some(Effect::PutWal { hedge: true, .. })), "{again:?}");
    assert!(puts(&bare.pass(ms(5_000))).is_empty(), "not a third time before patience ends");
    assert_eq!(bare.totals().hedges, 1);
}

#[test]
fn without_a_budget_nothing_is_sent_again() {
    let (mut bare, _) = one_under_way(0);
    assert!(puts(&bare.pass(ms(5_000))).is_empty());
    let (mut bare, _) = one_under_way(3);
    assert!(puts(&bare.pass(ms(5_000))).is_empty(), "33 puts at 3 in a hundred are less than one");
}

#[test]
fn whichever_is_stored_first_commits_and_the_other_answer_is_nothing() {
    let mut bare = hedged();
    assert_eq!(committed(&answer_hedge(&mut bare, STORED)), Some((BEFORE + 1, 1)));
    assert!(bare.put(BEFORE, Ok(PutOutcome::AlreadyExists)).is_empty());
    assert_eq!(bare.totals().hedges_won, 1);

    let mut bare = hedged();
    assert_eq!(committed(&bare.put(BEFORE, STORED)), Some((BEFORE + 1, 1)));
    assert!(answer_hedge(&mut bare, Ok(PutOutcome::AlreadyExists)).is_empty());
    assert_eq!(bare.totals().hedges_won, 0);
}

#[test]
fn a_hedge_that_finds_the_first_put_stored_commits_by_the_header() {
    let mut bare = hedged();
    let looks = answer_hedge(&mut bare, Ok(PutOutcome::AlreadyExists));
    assert!(matches!(looks.front(), Some(Effect::ReadHeader { .. })), "{looks:?}");
    let known = bare.header(BEFORE, a_header(ObjectKind::Data, me(), BEFORE));
    assert_eq!(committed(&known), Some((BEFORE + 1, 1)));
    assert!(bare.put(BEFORE, STORED).is_empty(), "the first answer comes late");
}

#[test]
fn a_hedge_that_comes_after_a_fence_ends_the_log() {
    let mut bare = hedged();
    answer_hedge(&mut bare, Ok(PutOutcome::AlreadyExists));
    assert!(fenced(&bare.header(BEFORE, a_header(ObjectKind::Fence, fencer(), BEFORE))));
    assert_eq!(committed(&bare.put(BEFORE, STORED)), None, "of a log that is given up");
}

#[test]
fn when_one_of_the_two_fails_the_other_is_waited_for() {
    for hedge_fails in [true, false] {
        let mut bare = hedged();
        let failed = Err(outage());
        if hedge_fails {
            answer_hedge(&mut bare, failed);
        } else {
            bare.put(BEFORE, failed);
        }
        assert!(puts(&bare.pass(ms(5_000))).is_empty());
        let stored = if hedge_fails { bare.put(BEFORE, STORED) } else { answer_hedge(&mut bare, STORED) };
        assert_eq!(committed(&stored), Some((BEFORE + 1, 1)));
    }
}

#[test]
fn when_both_fail_the_same_bytes_are_sent_again() {
    let mut bare = hedged();
    answer_hedge(&mut bare, Err(outage()));
    bare.put(BEFORE, Err(outage()));
    assert_eq!(puts(&bare.pass(ms(100))).len(), 1);
}

#[test]
fn a_store_that_says_slow_down_gets_no_hedges() {
    let (mut bare, _) = one_under_way(100);
    bare.put(BEFORE, Err(StoreError::not_done(FailureKind::Throttled, "SlowDown")));
    assert_eq!(puts(&bare.pass(ms(50))).len(), 1, "the refused put is sent again");
    bare.seal(entry(partition(0), 1, i64::try_from(BEFORE + 1).expect("few"), 1, "y"));
    assert_eq!(puts(&bare.pass(ms(50))).len(), 1, "its own put, lingered");
    assert!(puts(&bare.pass(ms(5_000))).is_empty(), "and no second one");
}

#[test]
fn the_lane_wakes_for_a_hedge() {
    let (mut bare, _) = one_under_way(100);
    assert_eq!(bare.sleeps(), ms(10));
    bare.pass(ms(10));
    assert!(bare.sleeps() > ms(1_000));
}
