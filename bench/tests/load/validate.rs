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

/// Writes 200 batches of eight identified records, reads them back once, and gives whether that went well, and what was said.
fn replayed(manner: Manner, more: &[&str]) -> (bool, String) {
    let broker = Broker::start(manner);
    let (output, text) = run(broker, "produce", &["--identify", "9", "--rate", "200"]);
    assert!(output.status.success(), "{text}");
    let (output, text) = run(broker, "replay", more);
    (output.status.success(), text)
}

#[test]
fn a_replay_reads_what_is_there_once_and_its_digest_is_that_of_any_broker_with_the_same_records() {
    let digest = |threads| {
        let (success, text) = replayed(Manner::Answers, &["--identify", "9", "--threads", threads]);
        assert!(success && text.contains("validated   1600.000 records\n"), "{text}");
        number(text.split("digest ").nth(1).unwrap(), " \n")
    };
    assert_eq!(digest("1"), digest("2"));
}

#[test]
fn a_replay_finds_what_a_broker_lost_doubled_or_changed() {
    for (manner, found) in
        [(Manner::Loses, "records lost"), (Manner::Doubles, "records doubled"), (Manner::Corrupts, "records corrupted")]
    {
        let (success, text) = replayed(manner, &["--identify", "9"]);
        assert!(!success && text.contains(found), "{manner:?}: {text}");
    }
}

#[test]
fn a_replay_without_a_look_at_records_counts_them_and_again_goes_on_until_the_time_is_over() {
    let (success, text) = replayed(Manner::Answers, &[]);
    assert!(success && number(&text, " records/s") > 0.0 && !text.contains("validated"), "{text}");
    let (success, text) = replayed(Manner::Answers, &["--again", "--readers", "2"]);
    assert!(success && number(text.split("to their end ").nth(1).unwrap(), " \n") > 2.0, "{text}");
}
