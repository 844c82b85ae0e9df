//! Producing.

use crate::broker::{Broker, Manner, number, run};

#[test]
fn a_rate_is_kept_and_every_answer_counted() {
    let pid = std::process::id().to_string();
    let more = ["--rate", "500", "--pid", &pid, "--connections", "3", "--threads", "2"];
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(output.status.success(), "{text}");
    assert_eq!(number(&text, " requests\n"), 500.0, "{text}");
    assert!(text.contains("errors      none") && text.contains("broker "), "{text}");
}

#[test]
fn without_a_rate_it_sends_as_fast_as_it_is_answered() {
    let more = ["--connections", "3", "--in-flight", "2", "--threads", "2"];
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(output.status.success(), "{text}");
    assert!(number(&text, " requests/s") > 0.0, "{text}");
}

#[test]
fn idempotent_producers_send_sequences_that_a_broker_accepts() {
    let more = ["--idempotent", "--in-flight", "12", "--keys", "zipf:100:1"];
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("errors      none"), "{text}");
}

#[test]
fn every_codec_gives_batches_that_a_broker_accepts() {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        let more = ["--compression", codec, "--compressibility", "50", "--idempotent", "--rate", "50"];
        let (output, text) = run(Broker::start(Manner::Answers), "produce", &more);
        assert!(output.status.success(), "{codec}: {text}");
    }
}

#[test]
fn without_answers_what_is_sent_counts() {
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &["--acks", "none", "--connections", "1"]);
    assert!(output.status.success(), "{text}");
    assert!(number(&text, " requests/s") > 0.0, "{text}");
}

#[test]
fn refused_requests_fail_the_run_and_are_counted() {
    let (output, text) = run(Broker::start(Manner::Refuses), "produce", &["--rate", "90", "--connections", "1"]);
    assert!(!output.status.success());
    assert!(text.contains("30 × InvalidRecord"), "{text}");
}

#[test]
fn partitions_are_followed_to_their_new_leader_and_nothing_is_lost() {
    for idempotent in [&[][..], &["--idempotent"]] {
        let more = [&["--rate", "200", "--connections", "2", "--in-flight", "10"], idempotent].concat();
        let (output, text) = run(Broker::start(Manner::Moves), "produce", &more);
        assert!(output.status.success(), "{text}");
        assert_eq!(number(&text, " requests\n"), 200.0, "{text}");
        assert!(text.contains("× NotLeaderOrFollower") && text.contains("errors      none"), "{text}");
    }
}

#[test]
fn a_lost_connection_is_opened_again_and_what_it_owed_is_sent_again() {
    let more = ["--rate", "100", "--connections", "1", "--in-flight", "100", "--idempotent"];
    let (output, text) = run(Broker::start(Manner::Leaves), "produce", &more);
    assert!(output.status.success(), "{text}");
    assert_eq!(number(&text, " requests\n"), 100.0, "{text}");
    assert!(text.contains("× connection lost") && text.contains("errors      none"), "{text}");
}

#[test]
fn a_topic_with_another_number_of_partitions_is_refused_before_anything_is_sent() {
    let (output, text) = run(Broker::start(Manner::Answers), "produce", &["--partitions", "3"]);
    assert!(!output.status.success());
    assert!(text.contains("it has 2 partitions, not 3"), "{text}");
}

#[test]
fn settings_that_exclude_each_other_are_refused() {
    for (workload, more) in [
        ("produce", &["--idempotent", "--acks", "none"][..]),
        ("produce", &["--validate", "--compression", "zstd"]),
        ("end-to-end", &["--acks", "none"]),
        ("end-to-end", &["--record-size", "7"]),
        ("fan-out", &["--validate"]),
        ("cold-start", &["--command", "true", "--acks", "none"]),
    ] {
        let (output, text) = run(Broker::start(Manner::Answers), workload, more);
        assert!(!output.status.success() && text.starts_with("millrace-bench: "), "{workload} {more:?}: {text}");
    }
}
