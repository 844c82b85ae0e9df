//! Records that lie in segments only as far as the process can tell: over its death and over the loss of its metadata.

use crate::kafka::{Client, EARLIEST, LATEST};
use crate::program::{Broker, directory, run, until};
use millrace_protocol::messages::DeleteTopicsRequest;
use millrace_storage::format::manifest::Manifest;
use std::fs;
use std::path::{Path, PathBuf};

const ROLLING: [&str; 6] = ["--shards", "2", "--roll-segments", "true", "--roll-after-ms", "1"];
/// Segments that nothing names go soon.
const COLLECTING: [&str; 4] = ["--segment-check-ms", "100", "--segment-grace-ms", "300"];
const PARTITIONS: i32 = 2;

/// Files below.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn manifests(data: &Path) -> Vec<Manifest> {
    let read = |path: PathBuf| Manifest::decode(&fs::read(path).ok()?).ok();
    files(&data.join("log/man")).into_iter().filter_map(read).collect()
}

/// Records that the manifests cover.
fn covered(data: &Path) -> i64 {
    manifests(data).iter().map(|manifest| manifest.covered.0).sum()
}

#[track_caller]
fn succeeds(name: &str, data: &Path) {
    let output = run(&[name, "--data-dir", data.to_str().expect("a plain path")]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// Reads what was written from every offset on.
fn assert_readable(client: &mut Client, written: &[&str]) {
    for partition in 0..PARTITIONS {
        for (from, offset) in (0..written.len()).zip(0..) {
            assert_eq!(client.read("t", partition, offset), written[from..]);
        }
        let end = i64::try_from(written.len()).expect("few");
        assert_eq!((client.offset("t", partition, EARLIEST), client.offset("t", partition, LATEST)), (0, end));
    }
}

#[test]
fn what_was_rolled_is_read_after_a_kill_and_after_the_metadata_are_lost() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &ROLLING);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    for (count, values) in [(2, ["a", "b"]), (4, ["c", "d"])] {
        for partition in 0..PARTITIONS {
            client.write("t", partition, &values);
        }
        let all = i64::from(count * PARTITIONS);
        until("segments hold everything", || (covered(&data) == all).then_some(()));
    }
    broker.kill();
    succeeds("audit", &data);
    let broker = Broker::start(&data, &ROLLING);
    let mut client = Client::new(broker.bootstrap());
    assert_readable(&mut client, &["a", "b", "c", "d"]);
    for partition in 0..PARTITIONS {
        client.write("t", partition, &["e"]);
    }
    broker.kill();
    succeeds("audit", &data);
    fs::remove_dir_all(data.join("metadata")).expect("it was there");
    succeeds("recover", &data);
    succeeds("audit", &data);
    let broker = Broker::start(&data, &ROLLING);
    assert_readable(&mut Client::new(broker.bootstrap()), &["a", "b", "c", "d", "e"]);
    broker.stop();
    succeeds("audit", &data);
}

/// Rolls all the time.
const ROLLING_SMALL: [&str; 8] =
    ["--shards", "2", "--roll-segments", "true", "--roll-bytes", "65536", "--roll-after-ms", "1"];

/// Files of write-ahead logs.
fn extents(directory: &Path) -> Vec<PathBuf> {
    let is_extent = |path: &PathBuf| path.extension().is_some_and(|name| name == "extent");
    files(directory).into_iter().filter(is_extent).collect()
}

/// Writes further values to each partition.
fn write_more(client: &mut Client, written: &mut [Vec<String>], values: usize, bytes: usize) {
    for _ in 0..values {
        for (partition, before) in (0..).zip(&mut *written) {
            let value = format!("{}-{partition}-{}", before.len(), "x".repeat(bytes));
            client.write("t", partition, &[&value]);
            before.push(value);
        }
    }
}

#[test]
fn kills_amid_rolls_lose_nothing_though_the_log_below_them_is_deleted() {
    let (_directory, data) = directory();
    let log = data.join("log");
    let mut written = vec![Vec::new(); PARTITIONS as usize];
    let broker = Broker::start(&data, &ROLLING_SMALL);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    // More than a file of the write-ahead log holds.
    write_more(&mut client, &mut written, 40, 900_000);
    let first = extents(&log).into_iter().min().expect("it was written to");
    until("the file below the low-water mark is gone", || (!first.exists()).then_some(()));
    assert!(broker.metric("millrace_rolls_total") > 0);
    write_more(&mut client, &mut written, 3, 10_000);
    broker.kill();
    succeeds("audit", &data);
    for _ in 0..3 {
        let broker = Broker::start(&data, &ROLLING_SMALL);
        let mut client = Client::new(broker.bootstrap());
        write_more(&mut client, &mut written, 20, 5_000);
        broker.kill();
        succeeds("audit", &data);
    }
    let broker = Broker::start(&data, &ROLLING_SMALL);
    let mut client = Client::new(broker.bootstrap());
    for (partition, written) in (0..).zip(&written) {
        let read = client.read("t", partition, 0);
        assert!(read == *written, "partition {partition}: {} of {} values", read.len(), written.len());
    }
    write_more(&mut client, &mut written, 1, 100);
    until("what is small is rolled from memory", || {
        (broker.metric("millrace_roll_held_bytes_total") > 0).then_some(())
    });
    broker.stop();
    succeeds("audit", &data);
}

#[test]
fn rolls_write_each_byte_once_more_and_read_next_to_nothing() {
    let (_directory, data) = directory();
    let settings = ["--shards", "1", "--roll-segments", "true", "--roll-bytes", "1000000", "--roll-after-ms", "5000"];
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    let value = "x".repeat(20_000);
    for _ in 0..200 {
        for partition in 0..PARTITIONS {
            client.write("t", partition, &[&value]);
        }
    }
    until("segments hold everything", || (covered(&data) == 400).then_some(()));
    let count = |name: &str| broker.metric(&format!("millrace_{name}_total"));
    // A segment is counted before its manifest is put, and its roll after that.
    until("the last one is counted", || (count("rolls") == count("segments")).then_some(()));
    let [rolls, held, read, bytes] = ["rolls", "roll_held_bytes", "roll_read_bytes", "segment_bytes"].map(count);
    println!("{rolls} rolls, {held} bytes from memory, {read} read in {}, {bytes} written", count("roll_reads"));
    assert!((4..60).contains(&rolls), "8 MB by a MB or more, and what was left every five seconds: {rolls}");
    assert_eq!((count("segments"), bytes), (rolls, held + read + 48 * rolls), "header and footer");
    assert!(read * 10 < held, "{read} bytes read, {held} from memory");
    broker.stop();
}

#[test]
fn small_segments_are_merged_and_those_that_were_replaced_go_and_of_a_deleted_topic_all() {
    let (_directory, data) = directory();
    let settings = [&ROLLING[..], &COLLECTING].concat();
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    client.create_topic("gone", 1);
    let values = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s"];
    for (value, count) in values.iter().zip(1..) {
        for (topic, partition) in [("t", 0), ("t", 1), ("gone", 0)] {
            client.write(topic, partition, &[value]);
        }
        // Each record is rolled by itself.
        until("segments hold everything", || (covered(&data) == count * 3).then_some(()));
    }
    let named = || manifests(&data).iter().map(|manifest| manifest.segments.len()).sum::<usize>();
    until("they are merged", || (named() < 3 * 9).then_some(()));
    assert!(broker.metric("millrace_merges_total") >= 3);
    assert!(broker.metric("millrace_merge_last_success_seconds") > 0);
    let delete = DeleteTopicsRequest { topic_names: vec!["gone".into()], timeout_ms: 10_000, ..Default::default() };
    let deleted = client.any().ask(&delete, 5);
    assert!(deleted.responses[0].error_code.is_none(), "{deleted:?}");
    let stored = || files(&data.join("log/seg")).len();
    until("what nothing names is deleted", || {
        let settled = manifests(&data).len() == 2 && broker.metric("millrace_segments_unnamed") == 0;
        (settled && stored() == 2 * named()).then_some(())
    });
    assert_readable(&mut client, &values);
    broker.stop();
    succeeds("audit", &data);
    let output = run(&["gc", "--dry-run", "--data-dir", data.to_str().expect("a plain path")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("orphans       0 segments in 0 bytes\n"), "{text}");
    let broker = Broker::start(&data, &settings);
    assert_readable(&mut Client::new(broker.bootstrap()), &values);
    broker.kill();
    succeeds("audit", &data);
}

#[test]
fn a_reader_at_the_end_causes_no_request_while_what_it_read_is_rolled() {
    let (_directory, data) = directory();
    let broker = Broker::start(&data, &ROLLING);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    for value in 0..200 {
        let value = value.to_string();
        let offset = client.write("t", 0, &[&value]);
        assert_eq!(client.read("t", 0, offset), [value]);
    }
    until("segments hold everything", || (covered(&data) == 200).then_some(()));
    until("what was read is counted", || (broker.metric("millrace_fetched_bytes_total") > 200 * 61).then_some(()));
    for counter in ["cold_reads", "store_reads", "segment_gets"] {
        assert_eq!(broker.metric(&format!("millrace_{counter}_total")), 0, "{counter}");
    }
    broker.stop();
}

#[test]
fn what_was_read_of_segments_is_read_from_the_local_disk_after_a_restart() {
    let (directory, data) = directory();
    let store = format!("file://{}/store", directory.path().display());
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../perf/models/s3-express.toml");
    let blocks = directory.path().join("blocks");
    let mut settings = ROLLING.to_vec();
    let blocks_text = blocks.to_str().expect("a plain path");
    settings.extend(["--object-store", &store, "--store-model", model, "--cold-cache-dir", blocks_text]);
    let broker = Broker::start(&data, &settings);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    (0..PARTITIONS).for_each(|partition| _ = client.write("t", partition, &["a", "b", "c"]));
    let folder = directory.path().join("store/modelled/man");
    let covered = || -> i64 {
        let read = |path: PathBuf| Manifest::decode(&fs::read(path).ok()?).ok();
        files(&folder).into_iter().filter_map(read).map(|manifest| manifest.covered.0).sum()
    };
    until("segments hold everything", || (covered() == 3 * i64::from(PARTITIONS)).then_some(()));
    // With the checkpoint of its end, nothing is read from write-ahead objects any more.
    broker.stop();
    let counted = |broker: &Broker, name: &str| broker.metric(&format!("millrace_segment_{name}_total"));
    // A segment of three records is one block; manifests are always of the store.
    let broker = Broker::start(&data, &settings);
    assert_readable(&mut Client::new(broker.bootstrap()), &["a", "b", "c"]);
    until("both blocks are on disk", || (counted(&broker, "disk_writes") == 2).then_some(()));
    let gets = counted(&broker, "gets");
    broker.kill();
    let broker = Broker::start(&data, &settings);
    assert_readable(&mut Client::new(broker.bootstrap()), &["a", "b", "c"]);
    until("both blocks came from disk", || (counted(&broker, "disk_hits") == 2).then_some(()));
    let again = counted(&broker, "gets");
    assert_eq!(again + 2, gets, "all but those of the two blocks");
    broker.stop();
}
