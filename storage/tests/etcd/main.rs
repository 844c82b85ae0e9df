//! The metadata store over real etcd processes: the conformance suite, and what only a store does that is elsewhere.

mod budget;
mod server;

use bytes::Bytes;
use futures::StreamExt;
use millrace_storage::env::Env;
use millrace_storage::meta::etcd::{Credentials, EtcdAddress, EtcdMeta, EtcdSettings};
use millrace_storage::meta::{
    Change, Compare, KeptAlive, MetaStore, Op, Revision, Txn, TxnOutcome, WatchError, WatchStream, conformance,
};
use millrace_storage::side::{SideRuntime, block_on_local};
use millrace_storage::store_error::{Certainty, FailureKind, StoreError};
use server::{Etcd, ID, http, is_missing, open};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use uuid::Uuid;

/// Longest time in which another endpoint answers.
const SOON: Duration = Duration::from_secs(8);

fn run<F: Future<Output = ()>>(test: impl FnOnce(SideRuntime, Env) -> F) {
    let side = SideRuntime::start().unwrap();
    block_on_local(|env| test(side, env)).unwrap();
}

fn put(key: &str, value: &str) -> Txn {
    Txn { compares: Vec::new(), ops: vec![Op::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))] }
}

async fn commit(store: &EtcdMeta, txn: Txn) -> Revision {
    match store.txn(txn).await {
        Ok(TxnOutcome::Committed(revision)) => revision,
        other => panic!("a transaction without comparisons ended with {other:?}"),
    }
}

/// Sends it again until it is known to have been done.
async fn commit_patiently(env: &Env, store: &EtcdMeta, txn: Txn) -> Revision {
    let end = env.now().plus(Duration::from_secs(30));
    loop {
        match store.txn(txn.clone()).await {
            Ok(TxnOutcome::Committed(revision)) => return revision,
            Err(error) if env.now() < end => drop(error),
            other => panic!("{other:?}"),
        }
    }
}

async fn next(watch: &mut WatchStream) -> Vec<Change> {
    watch.next().await.expect("the watch goes on").expect("nothing is compacted")
}

#[test]
fn the_etcd_store_conforms() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let store = etcd.open("suite", &side);
        conformance::all(&store, "/suite/").await;
        conformance::leases(&store, &env, Duration::from_secs(2), "/lease/").await;
    });
}

#[test]
fn random_transactions_leave_an_etcd_like_a_plain_map() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let store = etcd.open("map", &side);
        for round in 0..12 {
            let prefix = format!("/m{round}/");
            let txns = (0..40).map(|_| random_txn(&env, &prefix)).collect();
            conformance::agrees_with_a_plain_map(&store, &prefix, txns).await;
        }
    });
}

fn random_txn(env: &Env, prefix: &str) -> Txn {
    let below = |limit: u64| env.random() % limit;
    let key = || format!("{prefix}{}", below(6));
    let value = || Bytes::from(vec![1; usize::try_from(below(3)).unwrap()]);
    let compares = (0..below(2)).map(|_| match below(3) {
        0 => Compare::Absent(key()),
        1 => Compare::Value(key(), value()),
        _ => Compare::ModifiedAt(key(), Revision(i64::try_from(below(40)).unwrap())),
    });
    let compares = compares.collect();
    let changed: std::collections::BTreeSet<String> = (0..below(4)).map(|_| key()).collect();
    let op = |key: String| if below(3) == 0 { Op::Delete(key) } else { Op::Put(key, value()) };
    Txn { compares, ops: changed.into_iter().map(op).collect() }
}

#[test]
fn two_namespaces_of_one_etcd_know_nothing_of_each_other() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&[]);
    run(|side, _| async move {
        let (one, other) = (etcd.open("one", &side), etcd.open("one.more", &side));
        let mut watch = other.watch("/", Revision(0));
        commit(&one, put("/a", "one")).await;
        let at = commit(&other, put("/a", "other")).await;
        let seen = next(&mut watch).await;
        assert_eq!(seen, [Change { key: "/a".to_owned(), value: Some(Bytes::from("other")), revision: at }]);
        let listed = one.list("/", None, 10).await.unwrap().entries;
        assert_eq!(
            listed.iter().map(|(key, found)| (&**key, &*found.value)).collect::<Vec<_>>(),
            [("/a", &b"one"[..])]
        );
        let again = EtcdAddress::parse(&etcd.address("one")).unwrap();
        let new_id = Uuid::from_u128(1);
        let again = EtcdMeta::open(&again, &EtcdSettings::default(), &side, Some(new_id), Arc::new(|_| {})).unwrap();
        assert_eq!(again.cluster_id().await, Ok(ID), "the id is given once");
    });
}

#[test]
fn a_watch_outlives_a_killed_etcd_and_misses_nothing() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let store = etcd.open("watch", &side);
        let mut watch = store.watch("/w/", Revision(0));
        let mut sent = Vec::new();
        let mut seen = Vec::new();
        for round in 0..3 {
            for number in 0..5 {
                sent.push(commit_patiently(&env, &store, put("/w/key", &format!("{round}.{number}"))).await);
            }
            if round == 0 {
                // One that waits for the restart in the middle of what is sent.
                seen.push(next(&mut watch).await[0].revision);
            }
            etcd.kill();
            etcd.run();
        }
        sent.push(commit_patiently(&env, &store, put("/w/key", "last")).await);
        while seen.last() != sent.last() {
            let changes = next(&mut watch).await;
            assert_eq!(changes.len(), 1);
            seen.push(changes[0].revision);
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "each once, in order");
        assert!(sent.iter().all(|revision| seen.contains(revision)), "sent {sent:?}, seen {seen:?}");
    });
}

#[test]
fn revisions_too_large_for_one_answer_are_delivered_whole() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&[]);
    run(|side, _| async move {
        let store = etcd.open("large", &side);
        let start = commit(&store, put("/w/first", "v")).await;
        let mut sent = Vec::new();
        for round in 0..6u8 {
            let ops = (0..20).map(|key| Op::Put(format!("/w/{key:02}"), Bytes::from(vec![round; 60_000])));
            sent.push(commit(&store, Txn { compares: Vec::new(), ops: ops.collect() }).await);
        }
        let mut watch = store.watch("/w/", start);
        for (round, revision) in (0..).zip(sent) {
            let changes = next(&mut watch).await;
            assert_eq!(changes.len(), 20);
            let whole = changes
                .iter()
                .all(|one| one.revision == revision && one.value.as_ref().is_some_and(|value| value[0] == round));
            assert!(whole);
        }
    });
}

#[test]
fn a_watch_whose_changes_were_compacted_is_told() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let [near, far] = [0, 1].map(|port| {
            let address = format!("etcd://127.0.0.1:{}/compacted", etcd.ports[port]);
            open(&address, &EtcdSettings::default(), &side).expect("it opens")
        });
        let start = commit(&near, put("/w/key", "0")).await;
        let mut cut_off = near.watch("/w/", start);
        let first = commit(&near, put("/w/key", "1")).await;
        assert_eq!(next(&mut cut_off).await[0].revision, first);
        // One handle reaches the etcd, the other does not.
        etcd.kill();
        let port = etcd.ports[1];
        etcd.run_on(port);
        let mut last = first;
        for number in 0..5 {
            last = commit_patiently(&env, &far, put("/w/key", &number.to_string())).await;
        }
        far.compact(last).await.unwrap();
        etcd.kill();
        etcd.run();
        let late = far.watch("/w/", start);
        for mut watch in [cut_off, late] {
            let Some(Err(WatchError::Compacted(floor))) = watch.next().await else { panic!("its changes are gone") };
            assert_eq!(floor, last);
            assert!(watch.next().await.is_none(), "an ended watch stays ended");
        }
        let mut goes_on = far.watch("/w/", last);
        let after = commit_patiently(&env, &far, put("/w/key", "after")).await;
        assert_eq!(next(&mut goes_on).await[0].revision, after);
    });
}

#[test]
fn a_deletion_at_the_revision_of_a_compaction_is_not_missed() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&[]);
    run(|side, _| async move {
        let store = etcd.open("tombstone", &side);
        let before = commit(&store, put("/w/key", "v")).await;
        let delete = Txn { compares: Vec::new(), ops: vec![Op::Delete("/w/key".to_owned())] };
        let deleted = commit(&store, delete).await;
        commit(&store, put("/other", "v")).await;
        store.compact(deleted).await.unwrap();
        let mut watch = store.watch("/w/", before);
        // Either it comes, or the watcher is told to list again.
        match watch.next().await.expect("it says something") {
            Ok(changes) => assert_eq!((changes[0].revision, changes[0].value.clone()), (deleted, None)),
            Err(error) => assert_eq!(error, WatchError::Compacted(deleted)),
        }
    });
}

#[test]
fn a_member_that_dies_or_hangs_is_left_for_another() {
    if is_missing() {
        return;
    }
    let mut members = Etcd::three();
    run(|side, env| async move {
        let hosts: Vec<String> = members.iter().map(|member| format!("127.0.0.1:{}", member.ports[0])).collect();
        let address = format!("etcd://{}/three", hosts.join(","));
        let store = open(&address, &EtcdSettings::default(), &side).expect("it opens");
        let mut watch = store.watch("/w/", Revision(0));
        let mut sent = vec![commit(&store, put("/w/key", "all")).await];
        members[0].kill();
        let start = env.now();
        store.get(vec!["/w/key".to_owned()]).await.expect("another one answers");
        assert!(env.now().since(start) < SOON);
        sent.push(commit_patiently(&env, &store, put("/w/key", "without the first")).await);
        members[0].run();
        for number in [1, 2] {
            members[number].signal("STOP");
            let start = env.now();
            let read = loop {
                match store.get(vec!["/w/key".to_owned()]).await {
                    // A hung leader has a successor after an election.
                    Err(error) if env.now().since(start) < SOON * 2 => drop(error),
                    read => break read,
                }
            };
            read.expect("another one answers");
            sent.push(commit_patiently(&env, &store, put("/w/key", &number.to_string())).await);
            members[number].signal("CONT");
        }
        let mut seen = Vec::new();
        while seen.last() != sent.last() {
            seen.extend(next(&mut watch).await.into_iter().map(|change| change.revision));
        }
        assert!(sent.iter().all(|revision| seen.contains(revision)), "sent {sent:?}, seen {seen:?}");
    });
}

#[test]
fn nobody_there_is_said_in_time_and_never_done() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let store = etcd.open("gone", &side);
        commit(&store, put("/a", "1")).await;
        etcd.kill();
        let start = env.now();
        // The first may still have gone out on the old connection.
        drop(store.txn(put("/a", "2")).await);
        let refused = store.txn(put("/a", "3")).await.expect_err("nobody is there");
        assert_eq!((refused.certainty, refused.kind), (Certainty::NotDone, FailureKind::Unavailable), "{refused}");
        assert!(env.now().since(start) < SOON);
        etcd.run();
        commit_patiently(&env, &store, put("/a", "4")).await;
    });
}

#[test]
fn a_lease_outlives_a_restart_of_etcd_and_not_its_holder() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let store = etcd.open("lease", &side);
        let lease = store.grant(Duration::from_secs(3)).await.unwrap();
        let born =
            Txn { compares: Vec::new(), ops: vec![Op::PutLeased("/broker/1".to_owned(), Bytes::new(), lease.id)] };
        let start = commit(&store, born).await;
        etcd.kill();
        etcd.run();
        let kept = loop {
            match store.keep_alive(lease.id).await {
                Err(error) => assert_eq!(error.kind, FailureKind::Unavailable, "{error}"),
                Ok(kept) => break kept,
            }
        };
        assert_eq!(kept, KeptAlive::For(lease.ttl));
        assert!(store.get(vec!["/broker/1".to_owned()]).await.unwrap().values[0].is_some());
        let gone = next(&mut store.watch("/broker/", start)).await;
        assert_eq!((gone.len(), &gone[0].value), (1, &None));
        assert_eq!(store.keep_alive(lease.id).await, Ok(KeptAlive::Ended));
        let _ = env;
    });
}

/// A handle that counts how often it was told of another etcd.
fn guarded(etcd: &Etcd, namespace: &str, side: &SideRuntime) -> (EtcdMeta, Arc<AtomicUsize>) {
    let told = Arc::new(AtomicUsize::new(0));
    let count = told.clone();
    let on_other = Arc::new(move |error: &StoreError| {
        assert_eq!(error.kind, FailureKind::NotTheSame);
        count.fetch_add(1, Ordering::SeqCst);
    });
    let address = EtcdAddress::parse(&etcd.address(namespace)).unwrap();
    (EtcdMeta::open(&address, &EtcdSettings::default(), side, Some(ID), on_other).unwrap(), told)
}

async fn is_over(env: &Env, store: &EtcdMeta, told: &AtomicUsize) {
    let end = env.now().plus(Duration::from_secs(20));
    let error = loop {
        match store.get(vec!["/a".to_owned()]).await {
            Err(error) if error.kind == FailureKind::NotTheSame => break error,
            Err(error) if env.now() < end => drop(error),
            other => panic!("an etcd that lost what it had answered gave {other:?}"),
        }
    };
    assert_eq!(told.load(Ordering::SeqCst), 1, "{error}");
    for again in [store.txn(put("/a", "2")).await.err(), store.cluster_id().await.err()] {
        assert_eq!(again.map(|error| error.kind), Some(FailureKind::NotTheSame), "it stays so");
    }
    assert_eq!(told.load(Ordering::SeqCst), 1, "it is told once");
}

#[test]
fn an_etcd_restored_from_a_backup_is_found_out_by_its_first_answer() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let (store, told) = guarded(&etcd, "backup", &side);
        commit(&store, put("/a", "0")).await;
        etcd.kill();
        let backup = etcd.backup();
        etcd.run();
        commit_patiently(&env, &store, put("/a", "1")).await;
        etcd.kill();
        // A restart alone is none of this.
        etcd.run();
        commit_patiently(&env, &store, put("/a", "1")).await;
        etcd.kill();
        etcd.restore(&backup);
        etcd.run();
        is_over(&env, &store, &told).await;
    });
}

#[test]
fn an_etcd_made_anew_is_found_out_and_a_copy_of_the_old_namespace_in_it_refused() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    run(|side, env| async move {
        let (store, told) = guarded(&etcd, "anew", &side);
        commit(&store, put("/a", "0")).await;
        etcd.kill();
        etcd.forget();
        etcd.more_arguments(&["--initial-cluster-token", "another"]);
        etcd.run();
        is_over(&env, &store, &told).await;
        // What a tool copied key by key names the etcd that it was made in.
        let record = format!(r#"{{"v":1,"id":"{ID}","etcd":"abc"}}"#);
        let body = format!(r#"{{"key":"{}","value":"{}"}}"#, base64("/anew@store"), base64(&record));
        let answer = http(etcd.ports[0], "POST", "/v3/kv/put", &body).expect("the gateway answers");
        assert!(answer.contains("200 OK"), "{answer}");
        let refused = open(&etcd.address("anew"), &EtcdSettings::default(), &side).err().expect("it is refused");
        assert!(refused.problem.contains("was made in the etcd cluster abc"), "{refused}");
    });
}

#[test]
fn a_full_etcd_says_what_to_do() {
    if is_missing() {
        return;
    }
    let etcd = Etcd::start(&["--quota-backend-bytes", "4194304"]);
    run(|side, _| async move {
        let store = etcd.open("full", &side);
        let value = "v".repeat(500_000);
        let mut number = 0;
        let refused = loop {
            match store.txn(put(&format!("/{number}"), &value)).await {
                Ok(_) => number += 1,
                Err(refused) => break refused,
            }
            assert!(number < 50);
        };
        assert_eq!((refused.certainty, refused.kind), (Certainty::NotDone, FailureKind::Full));
        assert!(refused.detail.contains("alarm disarm"), "{refused}");
        store.get(vec!["/0".to_owned()]).await.expect("it is still read");
    });
}

fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for part in text.as_bytes().chunks(3) {
        let bits = part.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - part.len()));
        for place in 0..4 {
            let letter = LETTERS[usize::try_from((bits >> (18 - 6 * place)) & 63).unwrap()];
            out.push(if place > part.len() { '=' } else { char::from(letter) });
        }
    }
    out
}

fn as_user(user: &str, password: &str) -> EtcdSettings {
    let credentials = Credentials { user: user.to_owned(), password: password.to_owned() };
    EtcdSettings { credentials: Some(credentials), ..EtcdSettings::default() }
}

#[test]
fn users_sign_in_and_strangers_are_told_what_they_lack() {
    if is_missing() {
        return;
    }
    let mut etcd = Etcd::start(&[]);
    let port = etcd.ports[0];
    let ask = |path: &str, body: &str| {
        let answer = http(port, "POST", path, body).expect("the gateway answers");
        assert!(answer.contains("200 OK"), "{path}: {answer}");
    };
    let (begin, end) = (base64("/auth"), base64("/auti"));
    ask("/v3/auth/role/add", r#"{"name":"root"}"#);
    ask("/v3/auth/user/add", r#"{"name":"root","password":"top"}"#);
    ask("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    ask("/v3/auth/role/add", r#"{"name":"broker"}"#);
    let granted =
        format!(r#"{{"name":"broker","perm":{{"permType":"READWRITE","key":"{begin}","range_end":"{end}"}}}}"#);
    ask("/v3/auth/role/grant", &granted);
    ask("/v3/auth/user/add", r#"{"name":"millrace","password":"secret"}"#);
    ask("/v3/auth/user/grant", r#"{"user":"millrace","role":"broker"}"#);
    ask("/v3/auth/enable", "{}");
    run(|side, env| async move {
        let store = open(&etcd.address("auth"), &as_user("millrace", "secret"), &side).expect("it opens");
        conformance::all(&store, "/suite/").await;
        conformance::leases(&store, &env, Duration::from_secs(2), "/lease/").await;
        let mut watch = store.watch("/w/", Revision(0));
        // Its tokens are gone with it.
        etcd.kill();
        etcd.run();
        let after = commit_patiently(&env, &store, put("/w/key", "v")).await;
        assert_eq!(next(&mut watch).await.last().map(|change| change.revision), Some(after));
        for settings in [EtcdSettings::default(), as_user("millrace", "wrong")] {
            let refused = open(&etcd.address("auth"), &settings, &side).err().expect("it is refused");
            assert!(refused.fix.contains("--etcd-user"), "{refused}");
        }
        let foreign = open(&etcd.address("elsewhere"), &as_user("millrace", "secret"), &side);
        assert!(foreign.err().expect("it is refused").problem.contains("permission denied"));
    });
}

#[test]
#[ignore = "takes as long as it is told to; ci/prove metadata runs it"]
fn the_metadata_of_100_000_partitions_fit_an_etcd() {
    if is_missing() {
        return;
    }
    let seconds = std::env::var("MILLRACE_METADATA_SECONDS").map_or(30, |text| text.parse().expect("seconds"));
    let etcd = Etcd::start(&[]);
    run(|side, env| async move { budget::prove(&etcd, side, env, seconds).await });
}

fn openssl(directory: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let output = output.expect("openssl makes the certificates");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn certificates_are_checked_both_ways() {
    if is_missing() {
        return;
    }
    let certificates = tempfile::tempdir().unwrap();
    let path = |name: &str| certificates.path().join(name);
    let request = "req -newkey rsa:2048 -nodes -keyout";
    openssl(certificates.path(), &format!("{request} ca.key -x509 -days 2 -subj /CN=ca -out ca.pem"));
    std::fs::write(path("san"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n").unwrap();
    for name in ["server", "client"] {
        openssl(certificates.path(), &format!("{request} {name}.key -subj /CN={name} -out {name}.csr"));
        let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san";
        openssl(certificates.path(), &format!("{sign} -in {name}.csr -out {name}.pem"));
    }
    let file = |name: &str| path(name).display().to_string();
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let etcd =
        Etcd::start_tls(&["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"]);
    run(|side, _| async move {
        let known = EtcdSettings {
            ca: Some(path("ca.pem")),
            cert: Some(path("client.pem")),
            key: Some(path("client.key")),
            credentials: None,
        };
        // Opening waits until it is up.
        let store = open(&etcd.address("tls"), &known, &side).expect("it opens");
        conformance::all(&store, "/suite/").await;
        let half = EtcdSettings { key: None, ..known.clone() };
        assert!(open(&etcd.address("tls"), &half, &side).err().unwrap().problem.contains("one is missing"));
        let stranger = EtcdSettings { cert: None, key: None, ..known };
        assert!(open(&etcd.address("tls"), &stranger, &side).is_err(), "a client without a certificate is refused");
    });
}
