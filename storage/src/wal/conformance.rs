//! What every [`WalStore`] must do. Each implementation's tests call [`check`]; so does the simulator's.

use super::{Listed, PutOutcome, WalStore};
use crate::format::HEADER_BYTES;
use crate::ids::{Seq, Wid};
use bytes::Bytes;
use futures::future::join_all;

/// Runs the whole suite on `wal`. `salt` keeps the logs of several runs on one store apart.
///
/// # Panics
/// When the store breaks a guarantee.
pub async fn check(wal: &dyn WalStore, salt: u128) {
    let wid = |number: u128| Wid(salt.wrapping_mul(1_000).wrapping_add(number));
    what_is_not_there_reads_as_nothing(wal, wid(1)).await;
    an_object_reads_back_whole_and_in_parts(wal, wid(2)).await;
    of_racing_puts_one_wins_and_its_bytes_stay(wal, wid(3)).await;
    sequences_may_arrive_out_of_order(wal, wid(4)).await;
    logs_do_not_mix(wal, wid(5), wid(6)).await;
    deleting_below_keeps_what_is_not_below(wal, wid(7)).await;
    collecting_a_sealed_log_keeps_its_fence(wal, wid(8)).await;
    without_its_fence_nothing_of_a_log_is_deleted(wal, wid(9)).await;
}

fn bytes(fill: u8, length: usize) -> Bytes {
    Bytes::from(vec![fill; length])
}

async fn put(wal: &dyn WalStore, wid: Wid, seq: u64, slices: Vec<Bytes>) -> PutOutcome {
    wal.put_if_absent(wid, Seq(seq), slices).await.expect("a healthy store takes a put")
}

async fn whole(wal: &dyn WalStore, wid: Wid, seq: u64) -> Option<Bytes> {
    wal.read(wid, Seq(seq), 0..u64::MAX).await.expect("a healthy store answers a read")
}

async fn sequences(wal: &dyn WalStore, wid: Wid, from: u64) -> Vec<u64> {
    wal.list(wid, Seq(from)).await.expect("a healthy store lists").iter().map(|listed| listed.seq.0).collect()
}

async fn what_is_not_there_reads_as_nothing(wal: &dyn WalStore, wid: Wid) {
    assert_eq!(wal.header(wid, Seq(0)).await.unwrap(), None);
    assert_eq!(wal.read(wid, Seq(0), 0..10).await.unwrap(), None);
    assert_eq!(wal.suffix(wid, Seq(0), 10).await.unwrap(), None);
    assert_eq!(wal.list(wid, Seq(0)).await.unwrap(), vec![]);
    wal.delete_below(wid, Seq(5)).await.unwrap();
    wal.sync_below(wid, Seq(5)).await.unwrap();
    assert!(!wal.list_wids().await.unwrap().contains(&wid));
}

async fn an_object_reads_back_whole_and_in_parts(wal: &dyn WalStore, wid: Wid) {
    let slices = vec![bytes(1, 40), bytes(2, 100), Bytes::new(), bytes(3, 60)];
    let all = Bytes::from(slices.concat());
    assert_eq!(put(wal, wid, 0, slices).await, PutOutcome::Stored);
    assert_eq!(whole(wal, wid, 0).await.unwrap(), all);
    assert_eq!(wal.header(wid, Seq(0)).await.unwrap().unwrap(), all.slice(..HEADER_BYTES));
    assert_eq!(wal.read(wid, Seq(0), 30..50).await.unwrap().unwrap(), all.slice(30..50));
    assert_eq!(wal.read(wid, Seq(0), 190..300).await.unwrap().unwrap(), all.slice(190..), "cut at the end");
    assert_eq!(wal.read(wid, Seq(0), 200..300).await.unwrap().unwrap(), Bytes::new(), "starts at the end");
    assert_eq!(wal.read(wid, Seq(0), 900..901).await.unwrap().unwrap(), Bytes::new(), "starts beyond the end");
    assert_eq!(wal.read(wid, Seq(0), 7..7).await.unwrap().unwrap(), Bytes::new(), "an empty range");
    let suffix = wal.suffix(wid, Seq(0), 32).await.unwrap().unwrap();
    assert_eq!((suffix.size, suffix.bytes), (200, all.slice(168..)));
    let suffix = wal.suffix(wid, Seq(0), 1_000).await.unwrap().unwrap();
    assert_eq!((suffix.size, suffix.bytes), (200, all), "a suffix longer than the object is the object");
    assert!(wal.list_wids().await.unwrap().contains(&wid));
}

async fn of_racing_puts_one_wins_and_its_bytes_stay(wal: &dyn WalStore, wid: Wid) {
    let racers = 8;
    let outcomes = join_all((0..racers).map(|racer| put(wal, wid, 0, vec![bytes(racer, 100)]))).await;
    let winners: Vec<u8> = (0..racers)
        .zip(outcomes)
        .filter(|(_, outcome)| *outcome == PutOutcome::Stored)
        .map(|(racer, _)| racer)
        .collect();
    assert_eq!(winners.len(), 1, "winners: {winners:?}");
    assert_eq!(whole(wal, wid, 0).await.unwrap(), bytes(winners[0], 100));
    assert_eq!(put(wal, wid, 0, vec![bytes(99, 7)]).await, PutOutcome::AlreadyExists);
    assert_eq!(whole(wal, wid, 0).await.unwrap(), bytes(winners[0], 100));
}

async fn sequences_may_arrive_out_of_order(wal: &dyn WalStore, wid: Wid) {
    for seq in [2, 0, 5, 1] {
        assert_eq!(put(wal, wid, seq, vec![bytes(seq as u8, 64 + seq as usize)]).await, PutOutcome::Stored);
    }
    let listed = wal.list(wid, Seq(1)).await.unwrap();
    let expected = [1, 2, 5].map(|seq| Listed { seq: Seq(seq), size: 64 + seq });
    assert_eq!(listed, expected, "ascending, from the sequence asked for");
    assert_eq!(whole(wal, wid, 5).await.unwrap(), bytes(5, 69));
    assert_eq!(whole(wal, wid, 3).await, None);
}

async fn logs_do_not_mix(wal: &dyn WalStore, one: Wid, other: Wid) {
    put(wal, one, 0, vec![bytes(1, 64)]).await;
    put(wal, other, 0, vec![bytes(2, 64)]).await;
    put(wal, other, 1, vec![bytes(3, 64)]).await;
    assert_eq!(whole(wal, one, 0).await.unwrap(), bytes(1, 64));
    assert_eq!(sequences(wal, one, 0).await, [0]);
    let wids = wal.list_wids().await.unwrap();
    assert!(wids.contains(&one) && wids.contains(&other));
    wal.retain_only_fence(other, Seq(1)).await.unwrap();
    assert_eq!(sequences(wal, one, 0).await, [0]);
}

async fn deleting_below_keeps_what_is_not_below(wal: &dyn WalStore, wid: Wid) {
    for seq in 0..6 {
        put(wal, wid, seq, vec![bytes(seq as u8, 64)]).await;
    }
    wal.delete_below(wid, Seq(3)).await.unwrap();
    let left = sequences(wal, wid, 3).await;
    assert_eq!(left, [3, 4, 5]);
    for seq in left {
        assert_eq!(whole(wal, wid, seq).await.unwrap(), bytes(seq as u8, 64));
    }
    assert_eq!(put(wal, wid, 6, vec![bytes(6, 64)]).await, PutOutcome::Stored, "the log goes on");
}

async fn collecting_a_sealed_log_keeps_its_fence(wal: &dyn WalStore, wid: Wid) {
    for seq in 0..3 {
        put(wal, wid, seq, vec![bytes(seq as u8, 1_000)]).await;
    }
    put(wal, wid, 3, vec![bytes(77, HEADER_BYTES)]).await;
    // A stray of the fencer's volley.
    put(wal, wid, 4, vec![bytes(78, HEADER_BYTES)]).await;
    wal.retain_only_fence(wid, Seq(3)).await.unwrap();
    assert_eq!(sequences(wal, wid, 0).await, [3]);
    assert_eq!(wal.header(wid, Seq(3)).await.unwrap().unwrap(), bytes(77, HEADER_BYTES));
    assert_eq!(put(wal, wid, 3, vec![bytes(1, 64)]).await, PutOutcome::AlreadyExists);
    wal.retain_only_fence(wid, Seq(3)).await.unwrap();
    assert_eq!(sequences(wal, wid, 0).await, [3], "collecting twice is once");
}

async fn without_its_fence_nothing_of_a_log_is_deleted(wal: &dyn WalStore, wid: Wid) {
    for seq in 0..2 {
        put(wal, wid, seq, vec![bytes(seq as u8, 1_000)]).await;
    }
    for end in [1, 2] {
        assert!(wal.retain_only_fence(wid, Seq(end)).await.is_err(), "what stands at {end} is no fence");
        assert_eq!(sequences(wal, wid, 0).await, [0, 1]);
    }
}
