//! Validation: an honest broker passes, and each lie is found.

use crate::broker::{Broker, Manner, number, run};

fn validated(manner: Manner) -> (bool, String) {
    let more = ["--validate", "--rate", "200", "--threads", "2", "--connections", "2"];
    let (output, text) = run(Broker::start(manner), "produce", &more);
    (output.status.success(), text)
}

#[test]
fn everything_that_an_honest_broker_acknowledged_is_read_back() {
    let (success, text) = validated(Manner::Answers);
    assert!(success, "{text}");
    // 200 batches of eight records
    assert_eq!(number(&text, " records\n"), 1_600.0, "{text}");
}

#[test]
fn a_lie_about_one_batch_or_record_fails_the_run_and_is_listed() {
    for (manner, found) in [
        (Manner::Loses, "8 × records lost"),
        (Manner::Doubles, "8 × records doubled"),
        (Manner::Swaps, "1 × records reordered"),
        (Manner::Corrupts, "1 × records corrupted"),
    ] {
        let (success, text) = validated(manner);
        assert!(!success && text.contains(found), "{manner:?}: {text}");
        let kind = found.split(" × ").nth(1).unwrap();
        assert!(text.contains(&format!("{kind}: partition ")), "{manner:?}: {text}");
    }
}

#[test]
fn full_speed_and_idempotent_producers_whose_leader_changes_are_proved_too() {
    let more = ["--validate", "--idempotent", "--connections", "3"];
    let (output, text) = run(Broker::start(Manner::Moves), "produce", &more);
    assert!(output.status.success(), "{text}");
    assert!(number(&text, " records\n") > 240.0, "{text}");
}
