//! The reader on a simulated bucket: any log, cut into any segments, is given back whole; and what faults do to it.

use super::*;
use crate::cold::testing::{Batch, Log, batches};
use crate::shard::fetching::batch_extent;
use futures::future::join_all;
use millrace_storage::sim::{Ended, Faults, ProcessId, Sim, SimBucket};
use proptest::prelude::*;
use std::time::Duration;

/// Longest way to the bucket and back, when nothing fails.
const ROUND_TRIP: Duration = Duration::from_millis(40);

/// Runs `scenario` with a reader of small blocks on a bucket that holds `log`.
fn run<F: Future<Output = ()> + 'static>(log: Log, block_bytes: usize, scenario: impl FnOnce(World) -> F + 'static) {
    let sim = Sim::new(1, false);
    let env = sim.env(ProcessId::WORLD);
    let bucket = SimBucket::new(&sim, Faults::none());
    let reader = ColdReader::with_blocks(&env, Rc::new(bucket.clone()), 1 << 20, block_bytes, None);
    let world = World { env, bucket, reader, log };
    let task = async move {
        world.log.write(&world.bucket).await;
        scenario(world).await;
    };
    assert_eq!(sim.run(1_000_000, task), Ended::Done);
}

struct World {
    env: Env,
    bucket: SimBucket,
    reader: ColdReader,
    log: Log,
}

/// What is asked for, without a bound.
fn ask(log: &Log, from: Offset, most: usize) -> ColdRead {
    ColdRead { partition: log.partition, from, most, oversized: true, below: Offset(i64::MAX) }
}

impl World {
    fn ask(&self, from: Offset, most: usize) -> ColdRead {
        ask(&self.log, from, most)
    }

    async fn read(&self, from: Offset, most: usize) -> Result<RecordSet, ColdError> {
        self.reader.read(&self.ask(from, most)).await
    }

    /// The batches that a read must give, if nothing but its limit stops it.
    fn expected(&self, from: Offset, most: usize) -> Vec<&Batch> {
        let mut bytes = 0;
        let holds = self.log.batches.partition_point(|batch| batch.last < from);
        let fit = self.log.batches[holds..].iter().take_while(|batch| {
            let first = bytes == 0;
            bytes += batch.bytes.len();
            first || bytes <= most
        });
        fit.collect()
    }

    async fn replace(&self, log: &Log) {
        let old = self.bucket.keys("seg/");
        log.write(&self.bucket).await;
        self.bucket.delete(old).await.unwrap();
    }
}

proptest! {
    #[test]
    fn every_read_gives_the_whole_batches_from_the_one_that_holds_the_offset(
        sizes in proptest::collection::vec((1..5u32, 0..400usize), 1..40),
        lengths in proptest::collection::vec(1..10usize, 0..6),
        reads in proptest::collection::vec((any::<proptest::sample::Index>(), 1..5000usize), 1..10),
        block_bytes in 61..1500usize,
    ) {
        let log = Log::new(batches(&sizes), &lengths);
        run(log, block_bytes, move |world| async move {
            for (at, most) in reads {
                let from = Offset(at.index(world.log.manifest.covered.0 as usize) as i64);
                let records = world.read(from, most).await.unwrap();
                let expected = world.expected(from, most);
                let given = records.concat();
                let whole: Vec<u8> = expected.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
                assert!(!given.is_empty() && whole.starts_with(&given), "from {from}, {most} bytes");
                if world.log.manifest.segments.len() <= SEGMENTS_PER_READ {
                    assert_eq!(given.len(), whole.len(), "from {from}, {most} bytes");
                }
            }
        });
    }

    #[test]
    fn a_reader_that_goes_on_where_it_was_sees_every_byte_once(
        sizes in proptest::collection::vec((1..5u32, 0..400usize), 1..40),
        lengths in proptest::collection::vec(1..4usize, 0..20),
        most in 1..3000usize,
        block_bytes in 61..1500usize,
    ) {
        let log = Log::new(batches(&sizes), &lengths);
        run(log, block_bytes, move |world| async move {
            let (mut next, mut seen) = (Offset(0), Vec::new());
            while next < world.log.manifest.covered {
                let given = world.read(next, most).await.unwrap().concat();
                seen.extend_from_slice(&given);
                let read = world.log.batches.iter().scan(0, |bytes, batch| {
                    *bytes += batch.bytes.len();
                    Some((*bytes, batch.last))
                });
                let last = read.take_while(|(bytes, _)| *bytes <= seen.len()).last().expect("it gets on").1;
                next = last.plus(1);
            }
            let whole: Vec<u8> = world.log.batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(seen, whole);
            // One manifest, and no block twice: nothing had to leave the cache. Who starts at the beginning needs no index.
            let blocks: u64 = world.log.manifest.segments.iter().map(|s| s.segment.bytes.div_ceil(block_bytes as u64)).sum();
            assert!(world.reader.totals().gets <= 1 + blocks, "{:?}", world.reader.totals());
        });
    }

    #[test]
    fn a_search_that_goes_on_as_it_must_sees_every_batch_of_a_segment_from_the_one_that_holds_the_offset(
        sizes in proptest::collection::vec((1..5u32, 0..400usize), 1..40),
        lengths in proptest::collection::vec(1..10usize, 0..6),
        at in any::<proptest::sample::Index>(),
        block_bytes in 61..1500usize,
    ) {
        let log = Log::new(batches(&sizes), &lengths);
        run(log, block_bytes, move |world| async move {
            let from = Offset(at.index(world.log.manifest.covered.0 as usize) as i64);
            let named = world.log.manifest.segments.iter().find(|named| named.segment.last >= from).expect("covered");
            let (mut seen, mut position, mut needs) = (Vec::new(), None, 0);
            while position != Some(batches_end(named)) {
                let found = world.reader.batches_at(world.log.partition, named, position, needs, from).await.unwrap();
                let (start, bytes) = found.expect("it is there");
                assert!(position.is_none_or(|position| position == start) && bytes.len() >= needs);
                let mut at = 0;
                needs = 0;
                while at < bytes.len() && needs == 0 {
                    let header = bytes[at..].first_chunk::<HEADER_BYTES>();
                    match header.map(|header| batch_extent(header).expect("a header")) {
                        Some(extent) if extent.bytes <= bytes.len() - at => {
                            if extent.last >= from {
                                seen.extend_from_slice(&bytes[at..at + extent.bytes]);
                            }
                            at += extent.bytes;
                        }
                        Some(extent) => needs = extent.bytes,
                        None => needs = HEADER_BYTES,
                    }
                }
                position = Some(start + at as u64);
            }
            let expected = world.log.batches.iter().filter(|batch| from <= batch.last && batch.last <= named.segment.last);
            let whole: Vec<u8> = expected.flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(seen, whole, "from {from}");
        });
    }
}

/// A log of `count` batches of about 1 KiB in `segments` segments.
fn plain_log(count: usize, segments: usize) -> Log {
    Log::evenly(batches(&vec![(1, 1000); count]), segments)
}

#[test]
fn many_readers_of_one_place_cause_one_request_each_for_manifest_index_and_block() {
    // So large that each stands in the index.
    let large = Log::evenly(batches(&[(1, 140_000); 40]), 1);
    run(large, 64 << 10, |world| async move {
        let reads = (0..20).map(|_| world.read(Offset(30), 500));
        let all = join_all(reads).await;
        assert!(all.iter().all(|read| read == &all[0] && !read.as_ref().unwrap().is_empty()));
        assert_eq!(world.reader.totals().gets, 1 + 1 + 3, "the batch spans three blocks");
    });
}

#[test]
fn blocks_are_loaded_ahead_of_one_who_reads_on() {
    run(plain_log(40, 2), 4096, |world| async move {
        let mut asked = Vec::new();
        for from in 0..8 {
            world.read(Offset(from), 100).await.unwrap();
            asked.push(world.reader.totals().gets);
        }
        let blocks = world.reader.0.blocks.ahead();
        assert!(blocks > 1, "{asked:?}");
        assert!(world.read(Offset(39), 100).await.is_ok());
    });
}

#[test]
fn segments_that_were_replaced_are_found_through_the_manifest_that_stands_now() {
    run(plain_log(40, 4), 256, |world| async move {
        world.read(Offset(0), 100).await.unwrap();
        world.replace(&plain_log(40, 1)).await;
        for from in 1..40 {
            let records = world.read(Offset(from), 100).await.unwrap();
            assert_eq!(records.concat(), world.log.batches[from as usize].bytes);
        }
    });
}

#[test]
fn a_read_ends_where_the_asker_says_though_the_next_segments_hold_more() {
    run(plain_log(40, 4), 256, |world| async move {
        for (from, below) in [(5, 10), (5, 12), (9, 10), (12, 15)] {
            let read = ColdRead { below: Offset(below), ..world.ask(Offset(from), 1 << 20) };
            let given = world.reader.read(&read).await.unwrap().concat();
            let whole = world.log.batches[from as usize..below as usize].iter().flat_map(|batch| batch.bytes.to_vec());
            assert_eq!(given, whole.collect::<Vec<u8>>(), "{from} to {below}");
        }
    });
}

#[test]
fn what_is_covered_since_the_manifest_was_read_is_found() {
    let whole = plain_log(40, 4);
    let half = whole.first_segments(2);
    run(half, 256, move |world| async move {
        world.read(Offset(0), 100).await.unwrap();
        whole.write(&world.bucket).await;
        assert_eq!(world.read(Offset(39), 100).await.unwrap().concat(), whole.batches[39].bytes);
    });
}

#[test]
fn a_segment_that_is_missing_is_an_alarm() {
    run(plain_log(40, 4), 256, |world| async move {
        world.bucket.delete(world.bucket.keys("seg/")).await.unwrap();
        assert!(matches!(world.read(Offset(0), 100).await, Err(ColdError::Missing(_))));
        assert!(matches!(world.read(Offset(40), 100).await, Err(ColdError::Missing(_))), "beyond what is covered");
    });
}

#[test]
fn what_has_expired_is_removed_and_no_alarm() {
    let mut expired = plain_log(40, 4);
    expired.manifest.log_start = Offset(15);
    run(expired, 256, |world| async move {
        assert_eq!(world.read(Offset(14), 100).await, Err(ColdError::Removed));
        assert!(world.read(Offset(15), 100).await.is_ok());
    });
}

#[test]
fn a_store_that_gives_nothing_for_a_while_is_no_alarm_and_is_asked_again() {
    run(plain_log(40, 4), 256, |world| async move {
        let outage = Duration::from_secs(10);
        world.bucket.outage(outage);
        for from in [0, 25] {
            assert!(matches!(world.read(Offset(from), 100).await, Err(ColdError::Store(_))));
        }
        world.env.sleep(outage).await;
        for from in 0..40 {
            assert_eq!(world.read(Offset(from), 100).await.unwrap().concat(), world.log.batches[from as usize].bytes);
        }
    });
}

#[test]
fn a_damaged_object_is_an_error_and_nothing_of_it_is_given() {
    run(plain_log(8, 1), 256, |world| async move {
        let key = world.bucket.keys("seg/").into_iter().find(|key| key.ends_with(".kfs")).unwrap();
        let whole = world.bucket.peek(&key).unwrap();
        world.bucket.delete(vec![key.clone()]).await.unwrap();
        world.bucket.put_if_absent(&key, vec![whole.slice(..whole.len() / 2)]).await.unwrap();
        assert!(world.read(Offset(0), 100).await.is_ok(), "the first half is whole");
        assert!(matches!(world.read(Offset(7), 100).await, Err(ColdError::Store(_))));
    });
    run(plain_log(8, 1), 256, |world| async move {
        let key = world.bucket.keys("seg/").into_iter().find(|key| key.ends_with(".kfs")).unwrap();
        let mut flipped = world.bucket.peek(&key).unwrap().to_vec();
        flipped[5_000] ^= 1;
        world.bucket.delete(vec![key.clone()]).await.unwrap();
        world.bucket.put_if_absent(&key, vec![flipped.into()]).await.unwrap();
        for _ in 0..2 {
            assert!(world.read(Offset(3), 100).await.is_ok(), "another batch");
            assert!(matches!(world.read(Offset(4), 100).await, Err(ColdError::Missing(_))));
            assert_eq!(world.read(Offset(3), 9_000).await.unwrap().concat(), world.log.batches[3].bytes);
        }
    });
}

#[test]
fn a_search_in_a_segment_that_was_replaced_is_told_so_and_one_with_a_newer_manifest_finds_the_other() {
    let log = plain_log(40, 4);
    run(log, 1000, |world| async move {
        let partition = world.log.partition;
        let stale = world.reader.manifest_after(partition, None).await.unwrap();
        world.replace(&Log::evenly(world.log.batches.clone(), 2)).await;
        let again = world.reader.manifest_after(partition, None).await.unwrap();
        assert!(Rc::ptr_eq(&stale, &again), "from the cache");
        let gone = world.reader.batches_at(partition, &stale.segments[1], None, 0, Offset(15)).await;
        assert_eq!(gone, Ok(None));
        let newer = world.reader.manifest_after(partition, Some(stale)).await.unwrap();
        assert_eq!(newer.segments.len(), 2);
        let found = world.reader.batches_at(partition, &newer.segments[0], None, 0, Offset(0)).await.unwrap();
        assert_eq!(found.expect("it is there").0, segment::HEADER_BYTES as u64);
    });
}

#[test]
fn the_blocks_of_one_read_are_asked_for_at_once() {
    run(plain_log(64, 1), 4096, |world| async move {
        world.read(Offset(0), 1).await.unwrap();
        let begun = world.env.now();
        // From the middle of a block that is not here to the end of the sixteenth after it.
        world.read(Offset(8), 15 * 4096).await.unwrap();
        let took = world.env.now().since(begun);
        // Index, blocks, and the rest of the last batch. One after the other they would take five times as long.
        assert!(took <= 3 * ROUND_TRIP && world.reader.totals().gets >= 17, "{took:?}");
    });
}

/// Runs `scenario` with readers of 4 KiB blocks in a few KiB of memory, over `slots` blocks on disk.
fn run_on_disk<F: Future<Output = ()> + 'static>(slots: u32, scenario: impl FnOnce(DiskWorld) -> F + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("blocks");
    let sim = Sim::new(1, false);
    let env = sim.env(ProcessId::WORLD);
    let bucket = SimBucket::new(&sim, Faults::none());
    let log = plain_log(64, 1);
    let task = async move {
        log.write(&bucket).await;
        scenario(DiskWorld { env, bucket, log, path, slots }).await;
    };
    assert_eq!(sim.run(1_000_000, task), Ended::Done);
    sim.shut_down();
}

struct DiskWorld {
    env: Env,
    bucket: SimBucket,
    log: Log,
    path: std::path::PathBuf,
    slots: u32,
}

impl DiskWorld {
    /// A reader that knows nothing but what is on disk.
    async fn reader(&self) -> ColdReader {
        use crate::cold::disk_file::Shape;
        let shape = Shape { slots: self.slots, block_bytes: 4096 };
        let plan = DiskPlan { path: self.path.clone(), shape, store: "s3://bucket".to_owned() };
        let memory = 32 << 10;
        let reader = ColdReader::with_blocks(
            &self.env,
            Rc::new(self.bucket.clone()),
            memory + entries_bytes(self.slots),
            4096,
            Some(plan),
        );
        self.env.sleep(Duration::from_millis(1)).await;
        reader
    }

    /// Reads the whole log, batch by batch, and what that took: requests to the store.
    async fn read_all(&self, reader: &ColdReader) -> u64 {
        let before = reader.totals().gets;
        for (from, batch) in (0..).zip(&self.log.batches) {
            let read = ask(&self.log, Offset(from), 1);
            assert_eq!(reader.read(&read).await.unwrap().concat(), batch.bytes);
        }
        // What is loaded ahead ends too.
        self.env.sleep(Duration::from_secs(1)).await;
        reader.totals().gets - before
    }

    fn blocks(&self) -> u64 {
        self.log.manifest.segments.iter().map(|s| s.segment.bytes.div_ceil(4096)).sum()
    }
}

#[test]
fn what_has_left_memory_is_read_from_disk_without_a_request_also_after_a_restart() {
    run_on_disk(64, async |world: DiskWorld| {
        let reader = world.reader().await;
        let first = world.read_all(&reader).await;
        assert!(first > world.blocks(), "the manifest and every block: {first}");
        let again = world.read_all(&reader).await;
        assert!(
            again <= 1,
            "the manifest at most, of {} blocks in {} bytes of memory: {again}",
            world.blocks(),
            reader.used()
        );
        assert!(reader.disk_totals().hits >= world.blocks() / 2, "{:?}", reader.disk_totals());
        drop(reader);
        let reader = world.reader().await;
        let restarted = world.read_all(&reader).await;
        assert!(restarted <= 2, "manifest and index: {restarted}");
    });
}

#[test]
fn what_is_torn_on_disk_is_read_from_the_store_and_kept_anew() {
    run_on_disk(64, async |world: DiskWorld| {
        world.read_all(&world.reader().await).await;
        let mut bytes = std::fs::read(&world.path).unwrap();
        // The first page and the table stay; the blocks behind them are not what they were.
        let table = 4096 + 64 * 128;
        bytes[table..].iter_mut().for_each(|byte| *byte ^= 0x55);
        std::fs::write(&world.path, bytes).unwrap();
        let reader = world.reader().await;
        assert!(world.read_all(&reader).await >= world.blocks());
        let totals = reader.disk_totals();
        assert!(totals.damaged >= world.blocks() && totals.writes >= world.blocks(), "{totals:?}");
        assert!(world.read_all(&reader).await <= 1);
    });
}

#[test]
fn a_disk_of_few_blocks_keeps_to_them() {
    run_on_disk(4, async |world: DiskWorld| {
        let reader = world.reader().await;
        let length = std::fs::metadata(&world.path).unwrap().len();
        for _ in 0..2 {
            world.read_all(&reader).await;
        }
        assert!(reader.disk_totals().writes > world.blocks(), "{:?}", reader.disk_totals());
        assert_eq!(std::fs::metadata(&world.path).unwrap().len(), length);
        assert!(length <= 2 * 4096 + 4 * (4096 + 128) + 4096);
    });
}
