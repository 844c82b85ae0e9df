//! The conformance suite against both stores, random transactions against a plain map, and what only the embedded
//! store promises: everything is there after the file was opened again.

use super::conformance;
use super::embedded::EmbeddedMeta;
use super::memory::MemoryMeta;
use super::{Change, Compare, MAX_TXN_OPS, MetaStore, Op, Revision, Txn, TxnOutcome, WatchError, WatchStream};
use crate::side::block_on_local;
use bytes::Bytes;
use futures::StreamExt;
use futures::executor::block_on;
use futures::future::join_all;
use proptest::prelude::*;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

const ID: Uuid = Uuid::from_u128(77);

fn open(directory: &Path) -> EmbeddedMeta {
    EmbeddedMeta::open(directory, ID).expect("the store opens")
}

fn put(key: &str, value: &'static str) -> Txn {
    Txn { compares: Vec::new(), ops: vec![Op::Put(key.to_owned(), Bytes::from_static(value.as_bytes()))] }
}

fn run(store: &EmbeddedMeta, txn: Txn) -> Revision {
    match block_on(store.txn(txn)) {
        Ok(TxnOutcome::Committed(revision)) => revision,
        other => panic!("a transaction without comparisons ended with {other:?}"),
    }
}

#[test]
fn the_memory_store_conforms() {
    block_on(async {
        conformance::all(&MemoryMeta::new(ID), "/suite/").await;
        let short = MemoryMeta::with_history(ID, 10);
        conformance::a_watch_behind_the_history_is_told(&short, "/suite/", 15).await;
    });
}

#[test]
fn the_embedded_store_conforms() {
    let directory = tempfile::tempdir().unwrap();
    block_on(conformance::all(&open(directory.path()), "/suite/"));
    let short = EmbeddedMeta::open_with_history(directory.path(), ID, 10).expect("the store opens again");
    block_on(conformance::a_watch_behind_the_history_is_told(&short, "/suite/", 15));
}

#[test]
fn leases_of_the_memory_store_conform() {
    block_on_local(|env| async move {
        let ttl = Duration::from_millis(40);
        conformance::leases(&MemoryMeta::new(ID).timed(&env), &env, ttl, "/suite/").await;
        // Without a clock they stay until they are revoked.
        let untimed = MemoryMeta::new(ID);
        conformance::a_lease_lets_go_of_what_is_put_again(&untimed, ttl, "/moved/").await;
        conformance::a_lease_that_never_was_has_ended(&untimed, "/unknown/").await;
    })
    .unwrap();
}

#[test]
fn leases_of_the_embedded_store_conform() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    block_on_local(|env| async move {
        conformance::leases(&store, &env, Duration::from_millis(200), "/suite/").await;
    })
    .unwrap();
}

#[test]
fn several_handles_on_one_memory_store_see_the_end_of_each_others_leases() {
    let store = MemoryMeta::new(ID);
    block_on_local(|env| async move {
        let [one, other] = [store.timed(&env), store.timed(&env)];
        let mut watch = other.watch("/broker/", Revision(0));
        let lease = one.grant(Duration::from_millis(20)).await.unwrap().id;
        let ops = vec![Op::PutLeased("/broker/1".to_owned(), Bytes::new(), lease)];
        let (born, seen) = futures::join!(one.txn(Txn { compares: Vec::new(), ops }), watch.next());
        assert_eq!((born, seen.unwrap().unwrap()[0].revision), (Ok(TxnOutcome::Committed(Revision(1))), Revision(1)));
        // The watch sleeps when the lease ends, and nobody else looks at the store.
        drop(one);
        assert_eq!(watch.next().await.unwrap().unwrap()[0].value, None);
    })
    .unwrap();
}

#[test]
fn the_next_life_deletes_what_the_leases_of_the_last_one_held() {
    let directory = tempfile::tempdir().unwrap();
    let leased = {
        let store = open(directory.path());
        let lease = block_on(store.grant(Duration::from_secs(3_600))).unwrap().id;
        let ops = vec![Op::PutLeased("/broker/1".to_owned(), Bytes::new(), lease)];
        run(&store, Txn { compares: Vec::new(), ops });
        run(&store, put("/a", "1"))
    };
    let store = open(directory.path());
    let gone = block_on(store.watch("/", leased).next()).unwrap().unwrap();
    assert_eq!(gone, [Change { key: "/broker/1".to_owned(), value: None, revision: Revision(leased.0 + 1) }]);
    assert_eq!(block_on(store.list("/", None, 10)).unwrap().entries.len(), 1);
}

#[test]
fn what_was_answered_is_there_after_the_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = {
        let store = open(directory.path());
        (run(&store, put("/a", "1")), run(&store, put("/b", "2")))
    };
    let store = EmbeddedMeta::open(directory.path(), Uuid::from_u128(1)).expect("the store opens again");
    assert_eq!(block_on(store.cluster_id()), Ok(ID), "the id is given once");
    let snapshot = block_on(store.get(vec!["/a".to_owned(), "/b".to_owned()])).unwrap();
    assert_eq!(snapshot.revision, second);
    let modified: Vec<Revision> = snapshot.values.into_iter().map(|v| v.expect("it was put").modified).collect();
    assert_eq!(modified, [first, second]);
    assert_eq!(run(&store, put("/c", "3")), Revision(second.0 + 1), "revisions go on");
}

#[test]
fn a_watch_from_before_the_restart_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let before = run(&open(directory.path()), put("/a", "1"));
    let last = run(&open(directory.path()), put("/a", "2"));
    let store = open(directory.path());
    let mut watch = store.watch("/", before);
    assert_eq!(block_on(watch.next()), Some(Err(WatchError::Compacted(last))));
}

#[test]
fn a_store_that_is_in_use_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let _first = open(directory.path());
    let Err(refused) = EmbeddedMeta::open(directory.path(), ID) else { panic!("two stores on one file") };
    assert!(refused.problem.contains("another process uses"), "{refused}");
    assert!(!refused.fix.is_empty());
}

#[test]
fn a_store_whose_making_was_cut_off_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    // What a process leaves that is killed before redb has written the first page.
    std::fs::write(directory.path().join("0.unfinished"), [0; 4096]).unwrap();
    let revision = run(&open(directory.path()), put("/a", "1"));
    assert_eq!(run(&open(directory.path()), put("/a", "2")), Revision(revision.0 + 1), "made once");
    let names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [super::embedded::FILE_NAME]);
}

#[test]
fn a_file_that_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(super::embedded::FILE_NAME);
    let text = b"somebody's notes".repeat(1_000);
    std::fs::write(&path, &text).unwrap();
    assert!(EmbeddedMeta::open(directory.path(), ID).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), text);
}

#[test]
fn watches_end_when_the_last_handle_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut watch: WatchStream = store.watch("/", Revision(0));
    drop(store);
    assert!(matches!(block_on(watch.next()), Some(Err(WatchError::Store(_)))));
    assert_eq!(block_on(watch.next()), None);
}

#[test]
fn a_thousand_records_sent_at_once_are_all_decided() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let keys: Vec<String> = (0..1_000).map(|i| format!("/partition/{i:05}")).collect();
    let births = keys.chunks(MAX_TXN_OPS / 2).map(|chunk| {
        store.txn(Txn {
            compares: chunk.iter().map(|key| Compare::Absent(key.clone())).collect(),
            ops: chunk.iter().map(|key| Op::Put(key.clone(), Bytes::from_static(&[b'r'; 150]))).collect(),
        })
    });
    for outcome in block_on(join_all(births)) {
        assert!(matches!(outcome, Ok(TxnOutcome::Committed(_))), "{outcome:?}");
    }
    let page = block_on(store.list("/partition/", None, 1_000)).unwrap();
    assert_eq!(page.entries.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
}

/// Set in the process that writes until it is killed: directory and prefix of its keys.
const WRITER: &str = "MILLRACE_TEST_METADATA_WRITER";

/// Writes one key after the other and says each number once it is answered.
fn write_until_killed(directory: &Path, prefix: &str) {
    let store = open(directory);
    for number in 0.. {
        run(&store, put(&format!("{prefix}{number:08}"), "v"));
        println!("answered {number}");
    }
}

#[test]
fn what_was_answered_survives_a_killed_process() {
    if let Ok(task) = std::env::var(WRITER) {
        let (directory, prefix) = task.split_once('|').expect("as set below");
        return write_until_killed(Path::new(directory), prefix);
    }
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let prefix = format!("/round/{round}/");
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "meta::tests::what_was_answered_survives_a_killed_process", "--nocapture"])
            .env(WRITER, format!("{}|{prefix}", directory.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
        let number = |line: String| line.rsplit_once("answered ").map(|(_, number)| number.parse::<usize>().unwrap());
        let seen = lines.by_ref().filter_map(number).take(25 + round).count();
        writer.kill().unwrap();
        let answered = seen + lines.filter_map(number).count();
        writer.wait().unwrap();
        let store = open(directory.path());
        let page = block_on(store.list(&prefix, None, 1_000)).unwrap();
        assert!(page.entries.len() >= answered.min(1_000), "{} of {answered} are there", page.entries.len());
        assert!(page.entries.len() <= answered + 1 || page.more, "only one was under way");
    }
}

fn txn() -> impl Strategy<Value = Txn> {
    let key = || (0..6u8).prop_map(|i| format!("/m/{i}"));
    let value = || (0..3u8).prop_map(|i| Bytes::from(vec![i; usize::from(i)]));
    let compare = prop_oneof![
        key().prop_map(Compare::Absent),
        (key(), value()).prop_map(|(key, value)| Compare::Value(key, value)),
        (key(), 0..20i64).prop_map(|(key, at)| Compare::ModifiedAt(key, Revision(at))),
    ];
    let ops = prop::collection::btree_map(key(), prop::option::of(value()), 0..4);
    (prop::collection::vec(compare, 0..2), ops).prop_map(|(compares, ops)| {
        let op = |(key, value): (String, Option<Bytes>)| match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        Txn { compares, ops: ops.into_iter().map(op).collect() }
    })
}

proptest! {
    #[test]
    fn random_transactions_leave_the_memory_store_like_a_plain_map(txns in prop::collection::vec(txn(), 0..40)) {
        block_on(conformance::agrees_with_a_plain_map(&MemoryMeta::new(ID), "/m/", txns));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_transactions_leave_the_embedded_store_like_a_plain_map(txns in prop::collection::vec(txn(), 0..40)) {
        let directory = tempfile::tempdir().unwrap();
        block_on(conformance::agrees_with_a_plain_map(&open(directory.path()), "/m/", txns));
    }
}
