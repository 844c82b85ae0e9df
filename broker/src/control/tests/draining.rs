//! Processes that leave others: what they had is taken before they stop.

use super::party::{DRAIN, Party};
use super::*;

#[test]
fn who_stops_serves_on_until_others_have_taken_what_it_has_and_nobody_is_told_of_no_leader() {
    let mut party = Party::of(&["a", "b"]);
    party.create("t", 150);
    assert_eq!(party.led(), [75, 75]);
    party.members.iter_mut().for_each(|member| member.leaderless.clear());
    party.stop(0);
    party.pass(Duration::from_secs(5));
    assert_eq!(party.members[0].left_behind, Some((0, 0)), "when its shards were told to stop");
    assert_eq!(party.members[0].stopped, Some(true));
    assert_eq!(party.led(), [0, 150]);
    for member in &party.members {
        assert!(member.leaderless.is_empty(), "{} saw no leader of {:?}", member.name, member.leaderless);
    }
    assert_eq!(read(&party.meta, &keys::drain("a")), None, "that was for one life");
}

#[test]
fn who_waits_in_vain_for_others_stops_when_its_time_is_over() {
    let mut party = Party::of(&["a", "b"]);
    party.create("t", 4);
    party.members[1].obeys = false;
    party.stop(0);
    party.pass(DRAIN - Duration::from_millis(1));
    assert_eq!(party.members[0].left_behind, None);
    party.pass(Duration::from_secs(1));
    assert_eq!((party.members[0].left_behind, party.members[0].stopped), (Some((2, 0)), Some(true)));
}

#[test]
fn who_is_alone_and_who_is_among_those_that_leave_too_waits_for_nobody() {
    let mut party = Party::of(&["a"]);
    party.create("t", 4);
    party.stop(0);
    assert_eq!(party.members[0].stopped, Some(true));
    let mut party = Party::of(&["a", "b"]);
    party.create("t", 4);
    party.put(&keys::drain("b"), Bytes::new());
    party.pass(Duration::from_secs(1));
    assert_eq!(party.led(), [4, 0]);
    party.stop(0);
    assert_eq!(party.members[0].stopped, Some(true), "b takes nothing");
}

#[test]
fn what_an_operator_wants_left_is_left_until_it_is_undone() {
    let mut party = Party::of(&["a", "b", "c"]);
    party.create("t", 90);
    assert_eq!(party.led(), [30, 30, 30]);
    party.put(&keys::drain("b"), Bytes::new());
    party.pass(Duration::from_secs(5));
    assert_eq!(party.led(), [45, 0, 45]);
    party.create("u", 2);
    assert_eq!(party.led(), [46, 0, 46], "it is given nothing new");
    party.delete(&keys::drain("b"));
    party.pass(Duration::from_secs(5));
    assert_eq!(party.led().iter().sum::<usize>(), 92);
    assert!(party.led().iter().all(|led| (30..=32).contains(led)), "{:?}", party.led());
}
