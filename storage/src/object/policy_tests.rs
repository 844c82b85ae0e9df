//! What is decided, in virtual time: bounds that hold whatever happens, and what experience changes.

use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Mono {
    Mono(0).plus(Duration::from_millis(ms))
}

fn error(kind: FailureKind) -> StoreError {
    StoreError::unknown(kind, "as asked")
}

const PART: Asked = Asked::Part(1_000);

/// Has seen reads of 1 to 100 ms, and may hedge `percent` of a hundred.
fn experienced(percent: u32) -> Policy {
    let mut policy = Policy::new(percent);
    for n in 0..112 {
        let call = policy.begin(at(0), PART);
        policy.done(at(1 + n * 37 % 100), &call, at(0));
    }
    policy
}

/// When the call is hedged and given up, in milliseconds.
fn plan(policy: &Policy, call: &Call) -> (Option<u128>, u128) {
    let Plan { give_up, hedge } = policy.send(at(0), call);
    (hedge.map(|hedge| hedge.since(at(0)).as_millis()), give_up.since(at(0)).as_millis())
}

#[test]
fn without_experience_there_is_no_hedge_and_all_the_patience() {
    let mut policy = Policy::new(100);
    let call = policy.begin(at(0), PART);
    assert_eq!(plan(&policy, &call), (None, CALL_LIMIT.as_millis()));
}

#[test]
fn a_read_is_hedged_when_nearly_all_others_were_answered_and_other_sizes_know_nothing_of_it() {
    let mut policy = experienced(5);
    let call = policy.begin(at(0), PART);
    let (hedge, give_up) = plan(&policy, &call);
    assert!((98..=106).contains(&hedge.unwrap()), "twice the half of 1 to 100 ms: {hedge:?}");
    assert_eq!(give_up, PART.floor().as_millis());
    let large = policy.begin(at(0), Asked::Part(8 << 20));
    assert_eq!(plan(&policy, &large), (None, CALL_LIMIT.as_millis()));
}

#[test]
fn what_gains_nothing_from_a_second_request_gets_none() {
    let mut policy = Policy::new(100);
    for asked in [Asked::List, Asked::Delete, Asked::Whole, Asked::Own(10)] {
        for _ in 0..32 {
            let call = policy.begin(at(0), asked);
            policy.done(at(10), &call, at(0));
        }
        let call = policy.begin(at(0), asked);
        assert_eq!(policy.send(at(0), &call).hedge.is_some(), asked.may_be_hedged(), "{asked:?}");
    }
}

#[test]
fn hedges_are_a_share_of_the_calls() {
    let mut policy = experienced(5);
    while policy.pay_hedge(at(0)) {
        policy.hedge_ended();
    }
    let mut sent = 0;
    for _ in 0..1_000 {
        policy.begin(at(0), PART);
        if policy.pay_hedge(at(0)) {
            sent += 1;
            policy.hedge_ended();
        }
    }
    assert!((49..=50).contains(&sent), "{sent}");
}

#[test]
fn a_store_that_is_slow_as_a_whole_gets_two_hedges_and_no_storm() {
    let mut policy = experienced(100);
    let calls: Vec<Call> = (0..1_000).map(|_| policy.begin(at(0), PART)).collect();
    let hedged = calls.iter().filter(|call| policy.send(at(0), call).hedge.is_some() && policy.pay_hedge(at(200)));
    assert_eq!(hedged.count(), HEDGES_AT_ONCE as usize, "they are not answered either");
}

#[test]
fn after_a_refusal_or_a_time_out_no_hedge_is_sent_for_a_while() {
    for kind in [FailureKind::Throttled, FailureKind::Timeout] {
        let mut policy = experienced(100);
        let mut call = policy.begin(at(0), PART);
        policy.failed(at(1_000), &mut call, at(0), &error(kind), 0);
        assert!(!policy.pay_hedge(at(10_999)));
        assert!(policy.pay_hedge(at(11_000)));
    }
}

#[test]
fn an_answer_is_waited_for_longer_with_each_attempt_and_once_many_were_late() {
    let mut policy = experienced(0);
    let mut call = policy.begin(at(0), PART);
    let mut patience = vec![plan(&policy, &call).1];
    while patience.len() < 5 {
        assert_ne!(policy.failed(at(1), &mut call, at(0), &error(FailureKind::Unavailable), 0), Verdict::Failed);
        patience.push(plan(&policy, &call).1);
    }
    assert_eq!(patience, [2_000, 4_000, 8_000, 16_000, 20_000]);
    // The store answers after 3 s from now on: given up at first, then not.
    for _ in 0..32 {
        let mut call = policy.begin(at(0), PART);
        policy.failed(at(2_000), &mut call, at(0), &error(FailureKind::Timeout), 0);
    }
    let call = policy.begin(at(0), PART);
    assert_eq!(plan(&policy, &call).1, 8_000, "four times what those took at least");
}

/// The pauses, in milliseconds, until a call that always fails like this is over.
fn pauses(error: &StoreError, random: u64) -> Vec<u128> {
    let mut policy = Policy::new(0);
    let mut call = policy.begin(at(0), PART);
    let (mut now, mut pauses) = (at(0), Vec::new());
    while let Verdict::Again(next) = policy.failed(now, &mut call, now, error, random) {
        pauses.push(next.since(now).as_millis());
        now = next;
    }
    pauses
}

#[test]
fn pauses_grow_and_a_bad_minute_is_outlasted_but_a_wrong_address_is_not() {
    // The longest that chance gives.
    let throttled = pauses(&error(FailureKind::Throttled), 99_999_999_999_999);
    assert_eq!(throttled[..2], [100, 200]);
    assert!(throttled.iter().sum::<u128>() > 100_000 && throttled.len() > 50, "{throttled:?}");
    let unavailable = pauses(&error(FailureKind::Unavailable), 99_999_999_999_999);
    assert!((20_000..=30_000).contains(&unavailable.iter().sum::<u128>()), "{unavailable:?}");
    let refused = StoreError::not_done(FailureKind::Unavailable, "nobody listens");
    assert_eq!(pauses(&refused, 0), [1, 1, 1]);
    assert_eq!(pauses(&error(FailureKind::Denied), 0), [0; 0]);
}

#[test]
fn retries_of_a_crowd_are_spread_over_time() {
    let mut policy = Policy::new(0);
    let mut calls: Vec<Call> = (0..500).map(|_| policy.begin(at(0), PART)).collect();
    let mut again: Vec<u64> = Vec::new();
    for call in &mut calls {
        if let Verdict::Again(next) = policy.failed(at(0), call, at(0), &error(FailureKind::Unavailable), 0) {
            again.push(next.since(at(0)).as_millis() as u64);
        }
    }
    let within = |ms: u64| again.iter().filter(|again| **again <= ms).count() as u64;
    assert!(within(1_000) <= RETRIES_SAVED + RETRIES_PER_SECOND, "{}", within(1_000));
    assert!(within(10_000) <= RETRIES_SAVED + 10 * RETRIES_PER_SECOND, "{}", within(10_000));
    assert_eq!(again.len(), 500, "all are paid for within the window");
}

proptest! {
    #[test]
    fn every_call_ends_and_bounds_hold_whatever_happens(
        events in proptest::collection::vec((0..6_u8, 0..30_000_u64, any::<u64>(), 0..5_u8), 1..300),
    ) {
        let mut policy = Policy::new(5);
        let mut now = at(0);
        let (mut calls, mut paid, mut retries) = (0_u64, 0_u64, 0_u64);
        let mut under_way = 0;
        let mut call: Option<Call> = None;
        for (event, took, random, asked) in events {
            let asked = [PART, Asked::Whole, Asked::List, Asked::Delete, Asked::Own(1 << 22)][usize::from(asked)];
            let mut current = *call.get_or_insert_with(|| {
                calls += 1;
                policy.begin(now, asked)
            });
            let plan = policy.send(now, &current);
            let patience = plan.give_up.since(now);
            prop_assert!(patience >= current.asked.floor() && patience <= current.asked.ceiling());
            prop_assert!(plan.hedge.is_none_or(|hedge| hedge >= now.plus(LEAST_HEDGE_DELAY)));
            let sent = now;
            now = now.plus(Duration::from_millis(took)).min(plan.give_up);
            if plan.hedge.is_some_and(|hedge| hedge <= now) && policy.pay_hedge(now) {
                paid += 1;
                under_way += 1;
            }
            prop_assert!(under_way <= HEDGES_AT_ONCE);
            if random % 3 == 0 && under_way > 0 {
                under_way -= 1;
                policy.hedge_ended();
            }
            let kind = match event {
                0 => FailureKind::Throttled,
                1 => FailureKind::Timeout,
                2 => FailureKind::Unavailable,
                3 => FailureKind::Denied,
                _ => {
                    policy.done(now, &current, sent);
                    call = None;
                    continue;
                }
            };
            call = match policy.failed(now, &mut current, sent, &error(kind), random) {
                Verdict::Failed => None,
                Verdict::Again(next) => {
                    prop_assert!(next > now, "with a pause");
                    prop_assert!(next <= current.begun.plus(Duration::from_secs(120)));
                    retries += 1;
                    now = next;
                    Some(current)
                }
            };
        }
        prop_assert!(paid <= calls * 5 / 100 + HEDGES_SAVED);
        let seconds = now.since(at(0)).as_secs() + 1;
        prop_assert!(retries <= RETRIES_SAVED + calls / 10 + seconds * RETRIES_PER_SECOND);
    }
}
