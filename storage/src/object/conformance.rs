//! What every [`ObjectStore`] must do. Each implementation's tests call [`check`]; so does the simulator's.

use super::{MatchOutcome, ObjectStore, Version};
use crate::wal::PutOutcome;
use bytes::Bytes;
use futures::future::join_all;

/// Runs the whole suite on `store`, under keys that start with `folder`.
///
/// # Panics
/// When the store breaks a guarantee.
pub async fn check(store: &dyn ObjectStore, folder: &str) {
    what_is_not_there_reads_as_nothing(store, &format!("{folder}/none")).await;
    an_object_reads_back_whole_and_in_parts(store, &format!("{folder}/parts/a")).await;
    of_racing_creations_one_wins(store, &format!("{folder}/create")).await;
    of_racing_replacements_one_wins(store, &format!("{folder}/replace")).await;
    listings_are_sorted_and_relative(store, &format!("{folder}/list")).await;
    a_deleted_object_is_gone_and_may_be_written_again(store, &format!("{folder}/delete/deep/key")).await;
}

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn create(store: &dyn ObjectStore, key: &str, slices: Vec<Bytes>) -> PutOutcome {
    store.put_if_absent(key, slices).await.expect("a healthy store takes a put")
}

async fn what_is_not_there_reads_as_nothing(store: &dyn ObjectStore, key: &str) {
    assert_eq!(store.get(key).await.unwrap(), None);
    assert_eq!(store.get_range(key, 0..5).await.unwrap(), None);
    assert_eq!(store.get_range(key, 5..5).await.unwrap(), None);
    assert_eq!(store.get_suffix(key, 5).await.unwrap(), None);
    assert_eq!(store.get_suffix(key, 0).await.unwrap(), None);
    assert_eq!(store.list(&format!("{key}/")).await.unwrap(), vec![]);
    assert_eq!(store.list_directories(&format!("{key}/")).await.unwrap(), Vec::<String>::new());
    let version = Version("\"0123\"".to_owned());
    assert_eq!(store.put_if_match(key, text("x"), version).await.unwrap(), MatchOutcome::Changed);
    store.delete(vec![key.to_owned()]).await.expect("deleting nothing is success");
}

async fn an_object_reads_back_whole_and_in_parts(store: &dyn ObjectStore, key: &str) {
    assert_eq!(create(store, key, vec![text("0123"), text(""), text("456789")]).await, PutOutcome::Stored);
    assert_eq!(store.get(key).await.unwrap().unwrap().bytes, text("0123456789"));
    let range = async |range| store.get_range(key, range).await.unwrap().unwrap();
    assert_eq!(range(2..5).await, text("234"));
    assert_eq!(range(8..50).await, text("89"), "cut at the end");
    assert_eq!(range(10..12).await, text(""), "starts at the end");
    assert_eq!(range(99..100).await, text(""), "starts beyond the end");
    assert_eq!(range(3..3).await, text(""), "an empty range");
    let suffix = async |length| store.get_suffix(key, length).await.unwrap().unwrap();
    assert_eq!((suffix(3).await.size, suffix(3).await.bytes), (10, text("789")));
    assert_eq!((suffix(30).await.size, suffix(30).await.bytes), (10, text("0123456789")));
    assert_eq!((suffix(0).await.size, suffix(0).await.bytes), (10, text("")));
    let empty = format!("{key}-empty");
    assert_eq!(create(store, &empty, vec![]).await, PutOutcome::Stored);
    assert_eq!(store.get(&empty).await.unwrap().unwrap().bytes, text(""));
    let suffix = store.get_suffix(&empty, 5).await.unwrap().unwrap();
    assert_eq!((suffix.size, suffix.bytes), (0, text("")));
}

async fn of_racing_creations_one_wins(store: &dyn ObjectStore, key: &str) {
    let racers = 16u8;
    let puts = (0..racers).map(|racer| create(store, key, vec![Bytes::from(vec![racer; 100])]));
    let winners: Vec<u8> = (0..racers)
        .zip(join_all(puts).await)
        .filter(|(_, outcome)| *outcome == PutOutcome::Stored)
        .map(|(racer, _)| racer)
        .collect();
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    assert_eq!(create(store, key, vec![text("late")]).await, PutOutcome::AlreadyExists);
    assert_eq!(store.get(key).await.unwrap().unwrap().bytes, vec![winners[0]; 100]);
}

async fn of_racing_replacements_one_wins(store: &dyn ObjectStore, key: &str) {
    create(store, key, vec![text("first")]).await;
    let first = store.get(key).await.unwrap().unwrap().version;
    let racers = 8u8;
    let puts = (0..racers).map(|racer| store.put_if_match(key, Bytes::from(vec![racer; 50]), first.clone()));
    let mut winners = Vec::new();
    for (racer, outcome) in (0..racers).zip(join_all(puts).await) {
        if let MatchOutcome::Stored(version) = outcome.expect("a healthy store takes a put") {
            winners.push((racer, version));
        }
    }
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    let object = store.get(key).await.unwrap().unwrap();
    assert_eq!((object.bytes, object.version), (Bytes::from(vec![winners[0].0; 50]), winners[0].1.clone()));
    let stale = store.put_if_match(key, text("stale"), first).await.unwrap();
    assert_eq!(stale, MatchOutcome::Changed);
    let next = store.put_if_match(key, text("next"), winners[0].1.clone()).await.unwrap();
    assert!(matches!(next, MatchOutcome::Stored(_)));
}

async fn listings_are_sorted_and_relative(store: &dyn ObjectStore, folder: &str) {
    for (key, size) in [("b/2", 2), ("a/1", 1), ("b/1", 3), ("ab", 4), ("b/deep/er", 5)] {
        create(store, &format!("{folder}/{key}"), vec![Bytes::from(vec![7; size])]).await;
    }
    let listed = store.list(&format!("{folder}/")).await.unwrap();
    let found: Vec<(&str, u64)> = listed.iter().map(|object| (&object.key[folder.len() + 1..], object.size)).collect();
    assert_eq!(found, [("a/1", 1), ("ab", 4), ("b/1", 3), ("b/2", 2), ("b/deep/er", 5)]);
    let below = store.list(&format!("{folder}/b/")).await.unwrap();
    assert_eq!(below.len(), 3);
    assert!(listed.iter().all(|object| object.modified_ms > 1_600_000_000_000), "dated by a real or simulated clock");
    assert_eq!(store.list_directories(&format!("{folder}/")).await.unwrap(), ["a", "b"]);
    assert_eq!(store.list_directories(&format!("{folder}/b/")).await.unwrap(), ["deep"]);
}

async fn a_deleted_object_is_gone_and_may_be_written_again(store: &dyn ObjectStore, key: &str) {
    create(store, key, vec![text("one")]).await;
    store.delete(vec![key.to_owned(), format!("{key}-never-there")]).await.unwrap();
    assert_eq!(store.get(key).await.unwrap(), None);
    let folder = key.split_once("/deep").expect("the key of this test").0;
    assert_eq!(store.list_directories(&format!("{folder}/")).await.unwrap(), Vec::<String>::new());
    assert_eq!(create(store, key, vec![text("two")]).await, PutOutcome::Stored);
    assert_eq!(store.get(key).await.unwrap().unwrap().bytes, text("two"));
}
