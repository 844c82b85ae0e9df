//! What every metadata store must do, as checks that any implementation runs: the tests of [`super::memory`] and
//! [`super::embedded`], the simulator's stores, etcd later.
//!
//! [`leases`] needs a clock that the store's leases run out by, and waits for that. Each check works under a key prefix of its own, so that all may run against one store that other keys live in.
//! A check panics with what it found. Unknown outcomes have no check here: a store that loses answers is the caller's
//! to make (the simulator's); what it may do then is guarantee 4 of [`super`].

use super::{
    Change, Compare, KeptAlive, Key, LeaseId, MAX_TXN_BYTES, MAX_TXN_OPS, MetaStore, Op, Revision, Txn, TxnOutcome,
    Versioned, WatchError, WatchStream,
};
use crate::env::Env;
use crate::store_error::{Certainty, FailureKind};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use std::collections::BTreeMap;
use std::time::Duration;

/// Runs every check but [`a_watch_behind_the_history_is_told`], which needs to know how long the history is.
pub async fn all(store: &dyn MetaStore, prefix: &str) {
    the_cluster_id_stays_the_same(store).await;
    a_transaction_is_all_or_nothing(store, &format!("{prefix}atomic/")).await;
    every_comparison_decides(store, &format!("{prefix}compare/")).await;
    only_changes_take_a_revision(store, &format!("{prefix}revision/")).await;
    limits_are_refused_without_effect(store, &format!("{prefix}limits/")).await;
    of_racing_transactions_one_wins(store, &format!("{prefix}race/")).await;
    a_read_is_of_one_revision(store, &format!("{prefix}get/")).await;
    pages_cover_a_prefix_once(store, &format!("{prefix}list/")).await;
    a_watch_delivers_every_change_in_order(store, &format!("{prefix}watch/")).await;
    a_watch_resumes_behind_a_revision(store, &format!("{prefix}resume/")).await;
}

/// Runs every check of leases. `ttl`: how long they shall live, a few seconds for a store that is told in seconds.
pub async fn leases(store: &dyn MetaStore, env: &Env, ttl: Duration, prefix: &str) {
    a_lease_that_nobody_keeps_alive_ends_with_its_keys(store, env, ttl, &format!("{prefix}lapsed/")).await;
    a_lease_that_is_kept_alive_holds_its_keys(store, env, ttl, &format!("{prefix}kept/")).await;
    a_lease_lets_go_of_what_is_put_again(store, ttl, &format!("{prefix}moved/")).await;
    a_lease_that_never_was_has_ended(store, &format!("{prefix}unknown/")).await;
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}

async fn commit(store: &dyn MetaStore, ops: Vec<Op>) -> Revision {
    match store.txn(Txn { compares: Vec::new(), ops }).await {
        Ok(TxnOutcome::Committed(revision)) => revision,
        other => panic!("a transaction without comparisons ended with {other:?}"),
    }
}

async fn value(store: &dyn MetaStore, key: &str) -> Option<Versioned> {
    store.get(vec![key.to_owned()]).await.expect("the read works").values.remove(0)
}

/// The cluster id does not change between questions.
pub async fn the_cluster_id_stays_the_same(store: &dyn MetaStore) {
    let first = store.cluster_id().await.expect("it answers");
    assert_eq!(store.cluster_id().await.expect("it answers again"), first);
}

/// One comparison that fails stops every operation.
pub async fn a_transaction_is_all_or_nothing(store: &dyn MetaStore, prefix: &str) {
    let (a, b) = (format!("{prefix}a"), format!("{prefix}b"));
    let before = commit(store, vec![put(&a, "1")]).await;
    let txn = Txn { compares: vec![Compare::Absent(b.clone()), Compare::Absent(a.clone())], ops: vec![put(&b, "2")] };
    let Ok(TxnOutcome::Conflict(at)) = store.txn(txn).await else { panic!("a false comparison is a conflict") };
    assert!(at >= before);
    assert_eq!(value(store, &b).await, None);
    commit(store, vec![put(&b, "2"), Op::Delete(a.clone())]).await;
    assert_eq!(value(store, &a).await, None);
    assert_eq!(value(store, &b).await.expect("it was put").value, "2");
}

/// Each kind of comparison holds when it should, and only then.
pub async fn every_comparison_decides(store: &dyn MetaStore, prefix: &str) {
    let (here, gone) = (format!("{prefix}here"), format!("{prefix}gone"));
    let first = commit(store, vec![put(&here, "x")]).await;
    let second = commit(store, vec![put(&here, "x")]).await;
    let text = Bytes::from_static;
    for (compare, holds) in [
        (Compare::Absent(gone.clone()), true),
        (Compare::Absent(here.clone()), false),
        (Compare::Value(here.clone(), text(b"x")), true),
        (Compare::Value(here.clone(), text(b"xx")), false),
        (Compare::Value(here.clone(), text(b"")), false),
        (Compare::Value(gone.clone(), text(b"")), false),
        (Compare::ModifiedAt(here.clone(), second), true),
        (Compare::ModifiedAt(here.clone(), first), false),
        (Compare::ModifiedAt(gone.clone(), second), false),
    ] {
        let txn = Txn { compares: vec![compare.clone()], ops: Vec::new() };
        let committed = matches!(store.txn(txn).await.expect("it is decided"), TxnOutcome::Committed(_));
        assert_eq!(committed, holds, "{compare:?}");
    }
}

/// Revisions grow with changes (a put of the same value is one) and stay with everything else.
pub async fn only_changes_take_a_revision(store: &dyn MetaStore, prefix: &str) {
    let key = format!("{prefix}key");
    let first = commit(store, vec![put(&key, "x")]).await;
    let same_value = commit(store, vec![put(&key, "x")]).await;
    assert!(same_value > first);
    assert_eq!(value(store, &key).await.expect("it was put").modified, same_value);
    assert_eq!(commit(store, vec![]).await, same_value);
    assert_eq!(commit(store, vec![Op::Delete(format!("{prefix}missing"))]).await, same_value);
    assert!(commit(store, vec![Op::Delete(key.clone())]).await > same_value);
}

/// The largest transaction works; larger ones, and two changes of a key, are refused and leave nothing behind.
pub async fn limits_are_refused_without_effect(store: &dyn MetaStore, prefix: &str) {
    let many = |count: usize| (0..count).map(|i| put(&format!("{prefix}{i:04}"), "v")).collect::<Vec<_>>();
    commit(store, many(MAX_TXN_OPS)).await;
    let big = Op::Put(format!("{prefix}big"), Bytes::from(vec![b'v'; MAX_TXN_BYTES]));
    let twice = vec![put(&format!("{prefix}twice"), "1"), Op::Delete(format!("{prefix}twice"))];
    for ops in [many(MAX_TXN_OPS + 1), vec![big], twice] {
        let refused = store.txn(Txn { compares: Vec::new(), ops }).await.expect_err("it is beyond a limit");
        assert_eq!(refused.certainty, Certainty::NotDone);
    }
    let keys: Vec<Key> = (0..=MAX_TXN_OPS).map(|i| format!("{prefix}{i:04}")).collect();
    store.get(keys.clone()).await.expect_err("a read of too many keys");
    let first = store.get(keys[..MAX_TXN_OPS].to_vec()).await.expect("the largest read works");
    assert!(first.values.iter().all(Option::is_some));
    for key in [&keys[MAX_TXN_OPS], &format!("{prefix}big"), &format!("{prefix}twice")] {
        assert_eq!(value(store, key).await, None);
    }
}

/// Transactions sent together that exclude each other: exactly one commits, and the value is its.
pub async fn of_racing_transactions_one_wins(store: &dyn MetaStore, prefix: &str) {
    let key = format!("{prefix}key");
    let racers = (0..64)
        .map(|i| store.txn(Txn { compares: vec![Compare::Absent(key.clone())], ops: vec![put(&key, &i.to_string())] }));
    let outcomes = join_all(racers).await;
    let winners: Vec<usize> = (0..64).filter(|&i| matches!(outcomes[i], Ok(TxnOutcome::Committed(_)))).collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    assert_eq!(value(store, &key).await.expect("one put it").value, winners[0].to_string());
}

/// A read sees what was answered before it, all keys at one revision, in the order asked for.
pub async fn a_read_is_of_one_revision(store: &dyn MetaStore, prefix: &str) {
    let (a, b) = (format!("{prefix}a"), format!("{prefix}b"));
    let revision = commit(store, vec![put(&a, "1"), put(&b, "2")]).await;
    let snapshot = store.get(vec![b.clone(), format!("{prefix}none"), a.clone(), b.clone()]).await.expect("it reads");
    assert!(snapshot.revision >= revision);
    let texts: Vec<Option<Bytes>> = snapshot.values.into_iter().map(|v| v.map(|v| v.value)).collect();
    let text = |t: &'static str| Some(Bytes::from_static(t.as_bytes()));
    assert_eq!(texts, [text("2"), None, text("1"), text("2")]);
}

/// Paging through a prefix gives each key once, in order, and nothing of its neighbours.
pub async fn pages_cover_a_prefix_once(store: &dyn MetaStore, prefix: &str) {
    let inside: Vec<Key> = (0..25).map(|i| format!("{prefix}p/{i:02}")).collect();
    let mut ops: Vec<Op> = inside.iter().map(|key| put(key, "v")).collect();
    ops.extend([put(&format!("{prefix}p"), "before"), put(&format!("{prefix}p0"), "after")]);
    commit(store, ops).await;
    for limit in [1, 7, 25, 26, 1_000_000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = store.list(&format!("{prefix}p/"), after.clone(), limit).await.expect("it lists");
            assert!(page.entries.len() <= limit);
            seen.extend(page.entries.into_iter().map(|(key, _)| key));
            if !page.more {
                break;
            }
            after = seen.last().cloned();
        }
        assert_eq!(seen, inside, "limit {limit}");
    }
    let none = store.list(&format!("{prefix}nothing/"), None, 10).await.expect("an empty prefix is no error");
    assert!(none.entries.is_empty() && !none.more);
}

/// Changes of one transaction come together, transactions in order, other prefixes not at all.
pub async fn a_watch_delivers_every_change_in_order(store: &dyn MetaStore, prefix: &str) {
    let start = commit(store, vec![put(&format!("{prefix}x/before"), "0")]).await;
    let mut watch = store.watch(&format!("{prefix}x/"), start);
    let mut expected = Vec::new();
    for i in 0..20 {
        let (key, other) = (format!("{prefix}x/{i}"), format!("{prefix}y/{i}"));
        let gone = format!("{prefix}x/before");
        let ops = if i == 5 {
            vec![put(&key, "v"), Op::Delete(gone.clone())]
        } else {
            vec![put(&key, "v"), put(&other, "w")]
        };
        let revision = commit(store, ops).await;
        let mut changes = vec![Change { key, value: Some(Bytes::from_static(b"v")), revision }];
        if i == 5 {
            changes.push(Change { key: gone, value: None, revision });
        }
        expected.push(changes);
        commit(store, vec![put(&format!("{prefix}y/alone"), "w")]).await;
    }
    for mut changes in expected {
        let mut seen = watch.next().await.expect("the watch goes on").expect("nothing is compacted");
        // A store may order the changes of one transaction as it likes.
        seen.sort_by(|a, b| a.key.cmp(&b.key));
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(seen, changes);
    }
}

/// A watch that starts at an earlier revision gets what came since, and then what comes.
pub async fn a_watch_resumes_behind_a_revision(store: &dyn MetaStore, prefix: &str) {
    let mut revisions = Vec::new();
    for i in 0..5 {
        revisions.push(commit(store, vec![put(&format!("{prefix}key"), &i.to_string())]).await);
    }
    let mut watch = store.watch(prefix, revisions[1]);
    for revision in &revisions[2..] {
        let seen = watch.next().await.expect("the watch goes on").expect("nothing is compacted");
        assert_eq!(seen[0].revision, *revision);
    }
    let (seen, revision) = futures::join!(watch.next(), commit(store, vec![put(&format!("{prefix}key"), "later")]));
    assert_eq!(seen.expect("the watch goes on").expect("nothing is compacted")[0].revision, revision);
}

/// A watch that `transactions` left behind, or that asks for what they pushed out, ends with `Compacted`; a new one from
/// the revision that it names goes on.
pub async fn a_watch_behind_the_history_is_told(store: &dyn MetaStore, prefix: &str, transactions: usize) {
    let key = format!("{prefix}key");
    let start = commit(store, vec![put(&key, "first")]).await;
    let mut slow = store.watch(prefix, start);
    for i in 0..transactions {
        commit(store, vec![put(&key, &i.to_string())]).await;
    }
    let mut late = store.watch(prefix, start);
    for watch in [&mut slow, &mut late] {
        let Some(Err(WatchError::Compacted(floor))) = watch.next().await else { panic!("the history is over") };
        assert!(floor > start);
        assert!(watch.next().await.is_none(), "an ended watch stays ended");
        let seen = store.watch(prefix, floor).next().await.expect("it goes on").expect("the rest is there");
        assert!(seen[0].revision > floor);
    }
}

async fn next(watch: &mut WatchStream) -> Vec<Change> {
    let mut seen = watch.next().await.expect("the watch goes on").expect("nothing is compacted");
    seen.sort_by(|a, b| a.key.cmp(&b.key));
    seen
}

/// A transaction that names an ended lease is refused, and none of it happens.
async fn is_refused(store: &dyn MetaStore, lease: LeaseId, prefix: &str) {
    let [leased, plain, absent] = ["leased", "plain", "absent"].map(|name| format!("{prefix}refused/{name}"));
    let ops = vec![put(&plain, "v"), Op::PutLeased(leased.clone(), Bytes::from_static(b"v"), lease)];
    for compares in [vec![], vec![Compare::Absent(absent.clone())], vec![Compare::Value(absent, Bytes::new())]] {
        let refused = store.txn(Txn { compares, ops: ops.clone() }).await.expect_err("its lease has ended");
        assert_eq!((refused.certainty, refused.kind), (Certainty::NotDone, FailureKind::LeaseEnded), "{refused}");
    }
    assert_eq!((value(store, &leased).await, value(store, &plain).await), (None, None));
}

/// Without keep-alives a lease ends, not before its time; watches see its keys go at one revision, and nothing puts
/// under it any more.
pub async fn a_lease_that_nobody_keeps_alive_ends_with_its_keys(
    store: &dyn MetaStore,
    env: &Env,
    ttl: Duration,
    prefix: &str,
) {
    let asked = env.now();
    let lease = store.grant(ttl).await.expect("it grants");
    assert!(lease.ttl >= ttl);
    let [a, b, plain] = ["a", "b", "plain"].map(|name| format!("{prefix}{name}"));
    let leased = |key: &str| Op::PutLeased(key.to_owned(), Bytes::from_static(b"v"), lease.id);
    let start = commit(store, vec![leased(&a), put(&plain, "v"), leased(&b)]).await;
    let gone = next(&mut store.watch(prefix, start)).await;
    assert!(env.now().since(asked) >= ttl, "it ended early");
    let revision = gone[0].revision;
    assert!(revision > start);
    let deleted = |key: &str| Change { key: key.to_owned(), value: None, revision };
    assert_eq!(gone, [deleted(&a), deleted(&b)]);
    assert_eq!((value(store, &a).await, value(store, &b).await), (None, None));
    assert!(value(store, &plain).await.is_some());
    assert_eq!(store.keep_alive(lease.id).await, Ok(KeptAlive::Ended));
    is_refused(store, lease.id, prefix).await;
    assert_eq!(store.revoke(lease.id).await, Ok(()), "the end of one that has ended is no error");
}

/// Keep-alives hold a lease beyond its time; revoking it ends it at once.
pub async fn a_lease_that_is_kept_alive_holds_its_keys(store: &dyn MetaStore, env: &Env, ttl: Duration, prefix: &str) {
    let lease = store.grant(ttl).await.expect("it grants");
    let key = format!("{prefix}key");
    let start = commit(store, vec![Op::PutLeased(key.clone(), Bytes::new(), lease.id)]).await;
    let end = env.now().plus(lease.ttl * 2);
    while env.now() < end {
        env.sleep(lease.ttl / 4).await;
        let kept = store.keep_alive(lease.id).await;
        let Ok(KeptAlive::For(left)) = kept else { panic!("kept alive in time, it is {kept:?}") };
        assert!(left > lease.ttl / 2 && left <= lease.ttl, "{left:?} of {:?}", lease.ttl);
    }
    assert_eq!(value(store, &key).await.expect("it is held").modified, start);
    store.revoke(lease.id).await.expect("it revokes");
    let gone = next(&mut store.watch(prefix, start)).await;
    assert_eq!((gone.len(), &gone[0].key, &gone[0].value), (1, &key, &None));
    assert_eq!(store.keep_alive(lease.id).await, Ok(KeptAlive::Ended));
    is_refused(store, lease.id, prefix).await;
}

/// A key that is put again stays when its first lease ends, also where it was deleted between.
pub async fn a_lease_lets_go_of_what_is_put_again(store: &dyn MetaStore, ttl: Duration, prefix: &str) {
    let [first, second] = [store.grant(ttl).await, store.grant(ttl).await].map(|lease| lease.expect("it grants").id);
    assert_ne!(first, second);
    let leased = |name: &str, lease| Op::PutLeased(format!("{prefix}{name}"), Bytes::new(), lease);
    let (plain, again) = (format!("{prefix}plain"), format!("{prefix}again"));
    commit(store, ["held", "moved", "plain", "again"].map(|name| leased(name, first)).into()).await;
    commit(store, vec![leased("moved", second), put(&plain, "v"), Op::Delete(again.clone())]).await;
    let start = commit(store, vec![put(&again, "v")]).await;
    store.revoke(first).await.expect("it revokes");
    let mut watch = store.watch(prefix, start);
    let names = |changes: Vec<Change>| changes.into_iter().map(|change| change.key).collect::<Vec<_>>();
    assert_eq!(names(next(&mut watch).await), [format!("{prefix}held")]);
    store.revoke(second).await.expect("it revokes");
    assert_eq!(names(next(&mut watch).await), [format!("{prefix}moved")]);
    assert!(value(store, &plain).await.is_some() && value(store, &again).await.is_some());
}

/// A name that the store never gave a lease is treated like one that has ended.
pub async fn a_lease_that_never_was_has_ended(store: &dyn MetaStore, prefix: &str) {
    let unknown = LeaseId(0x0fab_1e00_0000_0001);
    assert_eq!(store.keep_alive(unknown).await, Ok(KeptAlive::Ended));
    assert_eq!(store.revoke(unknown).await, Ok(()));
    is_refused(store, unknown, prefix).await;
}

/// Runs `txns` against the store and against a plain map: outcomes, values, revisions and listings must agree.
pub async fn agrees_with_a_plain_map(store: &dyn MetaStore, prefix: &str, txns: Vec<Txn>) {
    let mut model: BTreeMap<Key, Versioned> = BTreeMap::new();
    for txn in txns {
        let hold = txn.compares.iter().all(|compare| match compare {
            Compare::Absent(key) => !model.contains_key(key),
            Compare::Value(key, value) => model.get(key).is_some_and(|found| found.value == *value),
            Compare::ModifiedAt(key, at) => model.get(key).is_some_and(|found| found.modified == *at),
        });
        match store.txn(txn.clone()).await.expect("it is decided") {
            TxnOutcome::Conflict(_) => assert!(!hold, "{txn:?} conflicted"),
            TxnOutcome::Committed(revision) => {
                assert!(hold, "{txn:?} committed");
                for op in txn.ops {
                    match op {
                        Op::Put(key, value) | Op::PutLeased(key, value, _) => {
                            drop(model.insert(key, Versioned { value, modified: revision }))
                        }
                        Op::Delete(key) => drop(model.remove(&key)),
                    }
                }
            }
        }
    }
    let page = store.list(prefix, None, super::MAX_PAGE).await.expect("it lists");
    assert_eq!(page.entries, model.into_iter().collect::<Vec<_>>());
}
