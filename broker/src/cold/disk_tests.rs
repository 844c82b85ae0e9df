//! The blocks of one shard on a real disk, in virtual time (what is done aside is done at once there).

use super::*;
use crate::cold::reader::File as Segment;
use millrace_storage::format::manifest::SegmentName;
use millrace_storage::ids::{Offset, TopicId, TopicPartition, Wid};
use millrace_storage::sim::{Ended, ProcessId, Sim};
use std::path::Path;
use std::time::Duration;

const SHAPE: Shape = Shape { slots: 3, block_bytes: 100 };

fn run<F: Future<Output = ()> + 'static>(scenario: impl FnOnce(Env, PathBuf) -> F + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let sim = Sim::new(1, false);
    let env = sim.env(ProcessId::WORLD);
    assert_eq!(sim.run(100_000, scenario(env, directory.path().join("blocks"))), Ended::Done);
    sim.shut_down();
}

/// Opened, and ready.
async fn open(env: &Env, path: &Path) -> Rc<DiskBlocks> {
    let plan = DiskPlan { path: path.to_owned(), shape: SHAPE, store: "s3://b".to_owned() };
    let blocks = DiskBlocks::open(env, plan);
    settle(env).await;
    blocks
}

/// Lets everything end that was begun.
async fn settle(env: &Env) {
    env.sleep(Duration::from_millis(1)).await;
}

fn key(number: u64) -> BlockKey {
    let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(9)), index: 2 };
    (Segment { partition, name: SegmentName { wid: Wid(5), number: 7 }, base: Offset(0), bytes: 9_999 }, number)
}

fn block(number: u64) -> Bytes {
    Bytes::from(vec![number as u8; 50])
}

#[test]
fn the_blocks_used_last_stay_also_over_a_restart() {
    run(async |env: Env, path: PathBuf| {
        let blocks = open(&env, &path).await;
        for number in 0..3 {
            blocks.keep(key(number), block(number));
            settle(&env).await;
        }
        assert_eq!(blocks.read(&key(0), 50).await, Some(block(0)));
        blocks.keep(key(3), block(3));
        settle(&env).await;
        assert_eq!(blocks.read(&key(1), 50).await, None, "used least recently");
        assert_eq!(blocks.totals(), DiskTotals { hits: 1, writes: 4, ..DiskTotals::default() });
        drop(blocks);
        let blocks = open(&env, &path).await;
        for number in [0, 2, 3] {
            assert_eq!(blocks.read(&key(number), 50).await, Some(block(number)));
        }
        assert_eq!(blocks.read(&key(1), 50).await, None);
    });
}

#[test]
fn a_torn_block_is_a_miss_and_its_slot_is_used_again() {
    run(async |env: Env, path: PathBuf| {
        let blocks = open(&env, &path).await;
        for number in 0..3 {
            blocks.keep(key(number), block(number));
            settle(&env).await;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(50).position(|window| window == block(1)).expect("it is in the file");
        bytes[at + 40] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(blocks.read(&key(1), 50).await, None);
        assert_eq!(blocks.read(&key(1), 50).await, None, "forgotten");
        assert_eq!(blocks.totals().damaged, 1);
        blocks.keep(key(1), block(1));
        settle(&env).await;
        for number in 0..3 {
            assert_eq!(blocks.read(&key(number), 50).await, Some(block(number)));
        }
    });
}

#[test]
fn a_block_of_another_length_than_is_asked_for_is_a_miss() {
    run(async |env: Env, path: PathBuf| {
        let blocks = open(&env, &path).await;
        blocks.keep(key(0), block(0));
        settle(&env).await;
        assert_eq!(blocks.read(&key(0), 51).await, None);
    });
}

#[test]
fn no_more_are_written_at_once_than_may_be() {
    run(async |env: Env, path: PathBuf| {
        let blocks = open(&env, &path).await;
        (0..WRITES as u64 + 2).for_each(|number| blocks.keep(key(number), block(number)));
        settle(&env).await;
        // Three have slots; the fourth found none that was not being written into.
        assert_eq!((blocks.totals().writes, blocks.totals().stopped), (3, 0));
    });
}

#[test]
fn a_disk_that_is_full_takes_no_more_and_gives_what_it_has() {
    run(async |env: Env, path: PathBuf| {
        let blocks = open(&env, &path).await;
        blocks.keep(key(0), block(0));
        settle(&env).await;
        // Every write to this device ends with "no space left".
        let full = BlockFile::over(std::fs::File::options().write(true).open("/dev/full").unwrap(), SHAPE);
        let file = blocks.file.replace(Some(Arc::new(full)));
        for number in 1..3 {
            blocks.keep(key(number), block(number));
            settle(&env).await;
        }
        blocks.file.replace(file);
        assert_eq!(blocks.read(&key(0), 50).await, Some(block(0)));
        assert_eq!(blocks.read(&key(1), 50).await, None);
        blocks.keep(key(2), block(2));
        settle(&env).await;
        assert_eq!(blocks.totals(), DiskTotals { hits: 1, writes: 1, stopped: 1, ..DiskTotals::default() });
    });
}

#[test]
fn a_file_that_can_not_be_opened_is_no_error() {
    run(async |env: Env, path: PathBuf| {
        std::fs::create_dir(&path).unwrap();
        let blocks = open(&env, &path).await;
        blocks.keep(key(0), block(0));
        assert_eq!((blocks.read(&key(0), 50).await, blocks.totals().stopped), (None, 1));
    });
}
