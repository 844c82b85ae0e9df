//! Records that lie in segments only as far as the process can tell: over its death and over the loss of its metadata.

use crate::kafka::{Client, EARLIEST, LATEST};
use crate::program::{Broker, directory, run, until};
use millrace_storage::format::manifest::Manifest;
use std::fs;
use std::path::Path;

const ROLLING: [&str; 6] = ["--shards", "2", "--roll-segments", "true", "--roll-after-ms", "1"];
const PARTITIONS: i32 = 2;

/// Records that the manifests cover.
fn covered(directory: &Path) -> i64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let below = |path: &Path| match fs::read(path) {
        Ok(bytes) => Manifest::decode(&bytes).map_or(0, |manifest| manifest.covered.0),
        Err(_) => covered(path),
    };
    entries.filter_map(Result::ok).map(|entry| below(&entry.path())).sum()
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
    let manifests = data.join("log/man");
    let broker = Broker::start(&data, &ROLLING);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", PARTITIONS);
    for (count, values) in [(2, ["a", "b"]), (4, ["c", "d"])] {
        for partition in 0..PARTITIONS {
            client.write("t", partition, &values);
        }
        let all = i64::from(count * PARTITIONS);
        until("segments hold everything", || (covered(&manifests) == all).then_some(()));
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
