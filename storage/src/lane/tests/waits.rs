//! What the shards are told about waiting: for the governor, for the window, for the store.

use super::core::{Bare, outage, puts, waits};
use super::world::{entry, partition};
use crate::lane::{LaneConfig, SealEntry};
use crate::wal::PutOutcome::Stored;
use std::time::Duration;

fn one(base: i64) -> SealEntry {
    entry(partition(0), 1, base, 1, "abc")
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn lingering_and_the_store_are_waited_for_and_a_late_timer_is_the_lanes_own() {
    let mut bare = Bare::leading(LaneConfig { linger: ms(5), ..LaneConfig::default() });
    bare.seal(one(0));
    bare.pass(ms(2));
    bare.seal(one(1));
    // Due at 7 ms, put at 8.
    bare.pass(ms(6));
    bare.pass(ms(4));
    assert_eq!(waits(&bare.put(1, Ok(Stored))), []);
    bare.pass(ms(8));
    assert_eq!(waits(&bare.put(0, Ok(Stored))), [(0, ms(20)), (1, ms(5) + ms(12))]);
}

#[test]
fn a_place_in_the_window_is_waited_for_until_the_store_has_made_it() {
    let mut bare = Bare::leading(LaneConfig { in_flight_objects: 1, linger: Duration::ZERO, ..LaneConfig::default() });
    bare.seal(one(0));
    bare.pass(ms(1));
    bare.seal(one(1));
    bare.pass(ms(9));
    assert_eq!(waits(&bare.put(0, Ok(Stored))), [(0, ms(10))]);
    bare.pass(ms(3));
    assert_eq!(waits(&bare.put(1, Ok(Stored))), [(1, ms(9) + ms(3))]);
}

#[test]
fn tokens_are_waited_for_until_they_have_come() {
    let linger = Duration::ZERO;
    let mut bare =
        Bare::leading(LaneConfig { puts_per_second: Some(100), put_burst: 1, linger, ..LaneConfig::default() });
    bare.seal(one(0));
    bare.put(0, Ok(Stored));
    bare.seal(one(1));
    // The next token comes at 10 ms; the lane looks 2 ms later.
    bare.pass(ms(12));
    assert_eq!(waits(&bare.put(1, Ok(Stored))), [(1, ms(10))]);
}

#[test]
fn shards_hear_of_what_is_durable_before_the_next_object_is_made() {
    let mut bare = Bare::leading(LaneConfig { in_flight_objects: 1, linger: Duration::ZERO, ..LaneConfig::default() });
    bare.seal(one(0));
    bare.seal(one(1));
    let told = bare.commit_put(0, Ok(Stored));
    assert_eq!((waits(&told).len(), puts(&told).len()), (1, 0));
    assert_eq!(puts(&bare.pass(Duration::ZERO)).len(), 1);
}

#[test]
fn all_attempts_are_the_stores() {
    let mut bare = Bare::leading(LaneConfig::default());
    bare.seal(one(0));
    bare.pass(ms(7));
    bare.put(0, Err(outage()));
    let retry = bare.sleeps();
    bare.pass(retry);
    bare.pass(ms(3));
    assert_eq!(waits(&bare.put(0, Ok(Stored))), [(0, ms(10) + retry)]);
}
