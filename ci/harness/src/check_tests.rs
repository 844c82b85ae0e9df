use super::*;

const IDEMPOTENT: u32 = 0;
const PLAIN: u32 = 1;

fn value(writer: u32, number: u64) -> Value {
    Value { writer, number }
}

fn append(process: u32, first: Value, count: u32) -> Event {
    Event::Append { process, partition: 0, first, count }
}

fn appended(process: u32, base: i64) -> Event {
    Event::Appended { process, base }
}

/// A poll from `from` on that found these values one behind the other.
fn polled(from: i64, values: &[Value]) -> Event {
    let records = history::runs((from..).zip(values.iter().copied()));
    Event::Polled { process: 9, partition: 0, from, records }
}

/// The log of [`history`] in the end.
fn log() -> Vec<Value> {
    vec![value(IDEMPOTENT, 0), value(IDEMPOTENT, 1), value(PLAIN, 0), value(PLAIN, 1), value(IDEMPOTENT, 2)]
}

/// Two appends of an idempotent writer, two of a plain one of which the second has no known outcome, polls in between.
fn history() -> Vec<Event> {
    vec![
        Event::Writer { writer: IDEMPOTENT, kind: Kind::Idempotent },
        Event::Writer { writer: PLAIN, kind: Kind::Plain },
        append(0, value(IDEMPOTENT, 0), 2),
        append(1, value(PLAIN, 0), 1),
        polled(0, &[value(IDEMPOTENT, 0), value(IDEMPOTENT, 1)]),
        appended(0, 0),
        appended(1, 2),
        append(1, value(PLAIN, 1), 1),
        append(0, value(IDEMPOTENT, 2), 1),
        polled(2, &[value(PLAIN, 0)]),
        Event::Unknown { process: 1 },
        appended(0, 4),
        polled(1, &[value(IDEMPOTENT, 1)]),
        Event::End { partition: 0, end: 5 },
    ]
}

/// The history with this as its final read.
fn with_final_read(values: &[Value]) -> Vec<Event> {
    history().into_iter().chain([polled(0, values)]).collect()
}

/// The history, read to its end as it is, with events put in before the end.
fn with(events: impl IntoIterator<Item = Event>) -> Vec<Event> {
    let mut all = with_final_read(&log());
    let end = all.iter().position(|event| matches!(event, Event::End { .. })).expect("it ends");
    all.splice(end..end, events);
    all
}

/// What is found wrong, and how often.
fn wrong(history: &[Event]) -> Vec<(Wrong, u64)> {
    let judgement = check(history);
    assert_eq!(judgement.outcome().is_ok(), judgement.wrong.is_empty());
    judgement.wrong.into_iter().collect()
}

#[test]
fn a_history_of_a_log_is_clean_whether_or_not_an_unknown_append_is_there() {
    assert_eq!(wrong(&with_final_read(&log())), []);
    let judgement = check(&with_final_read(&log()));
    let counts = (judgement.appends, judgement.acknowledged, judgement.unknown, judgement.polls, judgement.polled);
    assert_eq!(counts, (4, 4, 1, 4, 9));

    let mut without: Vec<Event> = history().into_iter().filter(|event| *event != appended(0, 4)).collect();
    let end = without.len() - 1;
    without[end] = Event::End { partition: 0, end: 4 };
    without.insert(end, appended(0, 3));
    let log = [value(IDEMPOTENT, 0), value(IDEMPOTENT, 1), value(PLAIN, 0), value(IDEMPOTENT, 2)];
    without.push(polled(0, &log));
    assert_eq!(wrong(&without), []);
}

#[test]
fn an_acknowledged_tail_that_is_not_read_at_the_end_is_lost() {
    let mut cut = with_final_read(&log()[..4]);
    assert_eq!(wrong(&cut), [(Wrong::Lost, 1)]);
    // The log itself says that it ends before.
    let end = cut.iter().position(|event| matches!(event, Event::End { .. })).expect("it ends");
    cut[end] = Event::End { partition: 0, end: 4 };
    assert_eq!(wrong(&cut), [(Wrong::Lost, 1)]);
}

#[test]
fn an_acknowledged_value_that_another_replaced_is_found() {
    let mut replaced = log();
    replaced[2] = value(PLAIN, 1);
    replaced[3] = value(PLAIN, 0);
    let found = wrong(&with_final_read(&replaced));
    assert_eq!(found, [(Wrong::Doubled, 1), (Wrong::TwoValues, 1)]);
}

#[test]
fn a_value_at_two_offsets_is_doubled() {
    let mut doubled = log();
    doubled[3] = value(IDEMPOTENT, 0);
    assert_eq!(wrong(&with_final_read(&doubled)), [(Wrong::Doubled, 1), (Wrong::Reordered, 1)]);
    // An acknowledgement at another offset than where it stands counts, too.
    let all = with([append(0, value(IDEMPOTENT, 3), 1), polled(5, &[value(IDEMPOTENT, 3)]), appended(0, 6)]);
    assert!(wrong(&all).contains(&(Wrong::Doubled, 1)));
}

#[test]
fn an_append_before_what_was_acknowledged_or_polled_when_it_began_is_reordered() {
    let mut all = with_final_read(&log());
    let began = all.iter().position(|event| *event == append(0, value(IDEMPOTENT, 2), 1)).expect("it began");
    let late = all.remove(began);
    let acknowledged = all.iter().position(|event| *event == appended(0, 4)).expect("it was acknowledged");
    all.insert(acknowledged, late.clone());
    assert_eq!(wrong(&all), [], "nothing of 3 and 4 was known by then");
    all.insert(acknowledged, polled(2, &[value(PLAIN, 0), value(PLAIN, 1), value(IDEMPOTENT, 2)]));
    assert_eq!(wrong(&all), [(Wrong::Reordered, 1), (Wrong::Phantom, 1)]);
}

#[test]
fn values_of_an_idempotent_writer_in_another_order_than_it_sent_them_are_reordered() {
    let all = [
        Event::Writer { writer: IDEMPOTENT, kind: Kind::Idempotent },
        append(0, value(IDEMPOTENT, 0), 1),
        append(1, value(IDEMPOTENT, 1), 1),
        appended(1, 0),
        appended(0, 1),
        Event::End { partition: 0, end: 2 },
        polled(0, &[value(IDEMPOTENT, 1), value(IDEMPOTENT, 0)]),
    ];
    assert_eq!(wrong(&all), [(Wrong::Reordered, 1)]);
}

#[test]
fn two_polls_that_disagree_are_two_values_at_an_offset() {
    let all = with([polled(2, &[value(PLAIN, 1)])]);
    assert!(wrong(&all).contains(&(Wrong::TwoValues, 1)));
}

#[test]
fn a_value_that_nobody_appended_yet_or_there_is_a_phantom() {
    assert_eq!(wrong(&with([polled(5, &[value(PLAIN, 7)])])), [(Wrong::Phantom, 1), (Wrong::Vanished, 1)]);
    let mut early = with_final_read(&log());
    early.insert(2, polled(0, &[value(IDEMPOTENT, 0)]));
    assert!(wrong(&early).contains(&(Wrong::Phantom, 1)));
    let elsewhere = Event::Polled {
        process: 9,
        partition: 1,
        from: 0,
        records: vec![Run { offset: 0, first: value(PLAIN, 0), count: 1 }],
    };
    assert!(wrong(&with([elsewhere])).contains(&(Wrong::Phantom, 1)));
    assert_eq!(wrong(&with([Event::Garbled { process: 9, partition: 0, offset: 3 }])), [(Wrong::Phantom, 1)]);
}

#[test]
fn a_poll_that_leaves_offsets_out_is_a_gap() {
    assert_eq!(wrong(&with([polled(0, &log()[..1])])), []);
    let skipping = vec![Run { offset: 2, first: value(PLAIN, 0), count: 1 }];
    let skipping = Event::Polled { process: 9, partition: 0, from: 1, records: skipping };
    assert_eq!(wrong(&with([skipping])), [(Wrong::Gap, 1)]);
}

#[test]
fn what_was_polled_and_is_not_there_at_the_end_vanished() {
    let unknown = [append(1, value(PLAIN, 5), 1), Event::Unknown { process: 1 }, polled(5, &[value(PLAIN, 5)])];
    assert_eq!(wrong(&with(unknown)), [(Wrong::Vanished, 1)]);
    let gone = Event::OutOfRange { process: 9, partition: 0, from: 4 };
    assert_eq!(wrong(&with([gone])), [(Wrong::Vanished, 1)]);
}

#[test]
fn a_history_that_cannot_be_judged_is_not_clean() {
    assert_eq!(wrong(&with([appended(7, 5)])), [(Wrong::Malformed, 1)]);
    assert_eq!(wrong(&with([append(5, value(PLAIN, 1), 1)])), [(Wrong::Malformed, 1)]);
    let unread: Vec<Event> = history().into_iter().filter(|event| !matches!(event, Event::End { .. })).collect();
    assert_eq!(wrong(&unread), [(Wrong::Malformed, 1)]);
}
