//! The memory store when it is full.

use crate::kafka::{Client, EARLIEST, LATEST, batch};
use crate::program::{Broker, directory, until};
use millrace_protocol::error_code::ErrorCode;

/// The least that `--memory-mib` takes.
const MEMORY_MIB: &str = "64";
/// Bytes of a batch.
const BATCH: usize = 512 << 10;
/// Batches: twice what the store keeps.
const BATCHES: i64 = 256;

#[test]
fn the_oldest_records_go_and_produce_is_never_refused() {
    let (_directory, data) = directory();
    let settings = ["--shards", "1", "--object-store", "memory:", "--memory-mib", MEMORY_MIB];
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    let value = "x".repeat(BATCH);
    for number in 0..BATCHES {
        let answer = client.produce("t", 0, batch(&[&value]));
        assert_eq!((answer.error_code, answer.base_offset), (ErrorCode::None, number), "{answer:?}");
    }
    let start = until("the log start rises", || Some(client.offset("t", 0, EARLIEST)).filter(|start| *start > 0));
    assert!(start < BATCHES, "the newest are kept: {start}");
    assert_eq!(client.offset("t", 0, LATEST), BATCHES);
    // 64 MiB hold 128 batches; an eighth goes at a time.
    assert!((BATCHES - start) >= 100, "{start}");
    let kept = client.read("t", 0, start);
    assert_eq!(i64::try_from(kept.len()), Ok(BATCHES - start));
    assert_eq!(client.fetch("t", 0, 0).error_code, ErrorCode::OffsetOutOfRange);
    broker.stop();
}
