//! What is counted, and how often.

use super::*;
use crate::ids::{Seq, Wid};
use crate::object::SharedObjects;
use crate::object::memory::MemoryStore;
use crate::side::block_on_local;
use crate::wal::counted::CountedWal;
use crate::wal::memory::MemoryWal;
use crate::wal::{PutOutcome, WalStore};
use bytes::Bytes;
use std::rc::Rc;

fn counts(meter: &StoreMeter) -> [u64; 4] {
    Operation::ALL.map(|operation| meter.requests(operation))
}

#[test]
fn requests_are_counted_with_their_bytes_and_the_time_of_puts() {
    let meter = Arc::new(StoreMeter::default());
    let counted = meter.clone();
    block_on_local(|env| async move {
        let store = SharedObjects::Memory(MemoryStore::new()).handle(&env, &counted);
        let put = || store.put_if_absent("a/b", vec![Bytes::from("four"), Bytes::from("five5")]);
        assert_eq!(put().await.unwrap(), PutOutcome::Stored);
        // A second try is a request as well, and finding the object there is no failure.
        assert_eq!(put().await.unwrap(), PutOutcome::AlreadyExists);
        assert_eq!(store.get_range("a/b", 1..3).await.unwrap().unwrap(), "ou");
        assert!(store.get("a/none").await.unwrap().is_none());
        assert_eq!(store.list("a/").await.unwrap().len(), 1);
        store.delete(vec!["a/b".to_owned(); PAGE + 1]).await.unwrap();
    })
    .unwrap();
    assert_eq!(counts(&meter), [2, 2, 1, 2]);
    assert_eq!((meter.sent_bytes(), meter.received_bytes()), (18, 2));
    assert_eq!(meter.puts().snapshot().count(), 2);
    assert_eq!(meter.failures(Operation::Put, FailureKind::Other), 0);
}

#[test]
fn a_log_that_is_no_object_store_is_counted_alike() {
    let meter = Arc::new(StoreMeter::default());
    let counting = meter.clone();
    block_on_local(|env| async move {
        let wal = CountedWal::new(Rc::new(MemoryWal::new(1 << 20)), Counting::new(counting, env));
        let wid = Wid(1);
        wal.put_if_absent(wid, Seq(0), vec![Bytes::from_static(&[0; 100])]).await.unwrap();
        assert_eq!(wal.read(wid, Seq(0), 0..10).await.unwrap().unwrap().len(), 10);
        assert_eq!(wal.suffix(wid, Seq(0), 7).await.unwrap().unwrap().bytes.len(), 7);
        wal.list(wid, Seq(0)).await.unwrap();
        wal.delete_below(wid, Seq(1)).await.unwrap();
    })
    .unwrap();
    assert_eq!(counts(&meter), [1, 2, 1, 1]);
    assert_eq!((meter.sent_bytes(), meter.received_bytes()), (100, 17));
}
