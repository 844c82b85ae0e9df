//! A disk that is full, and has room again.

use crate::kafka::{Client, batch, produce_request};
use crate::program::{Broker, directory, until};
use millrace_protocol::error_code::ErrorCode;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of the small file system.
const SIZE: &str = "size=96m";
/// Bytes of a batch.
const BATCH: usize = 512 << 10;
/// How long a producer waits for the disk, milliseconds.
const PRODUCE_MS: i32 = 2_000;
/// Bytes written at a time to fill it up.
const FILL: usize = 64 << 10;

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this process may not mount.
    fn mount(at: &Path) -> Option<SmallDisk> {
        fs::create_dir(at).expect("it can be made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_produce_and_serves_fetch_until_there_is_room_again() {
    let (directory, _data) = directory();
    let Some(disk) = SmallDisk::mount(&directory.path().join("disk")) else {
        eprintln!("SKIPPED: this process may not mount a file system, so no disk can be filled");
        return;
    };
    let broker = Broker::start(&disk.0.join("data"), &["--shards", "1"]);
    let mut client = Client::new(broker.bootstrap());
    client.create_topic("t", 1);
    client.write("t", 0, &["first"]);
    let filler = disk.0.join("filler");
    fill(&filler);
    let value = "x".repeat(BATCH);
    // What was given to the log before the disk was full may still take some.
    let (mut written, mut unknown) = (1, 0);
    until("produce is refused", || {
        let mut request = produce_request("t", 0, -1, batch(&[&value]));
        request.timeout_ms = PRODUCE_MS;
        let answer = client.leader("t", 0).ask(&request, 11);
        match answer.responses[0].partition_responses[0].error_code {
            ErrorCode::None => {
                written += 1;
                None
            }
            // The record is in the log and waits for room, which is what this code means.
            ErrorCode::RequestTimedOut => {
                unknown += 1;
                None
            }
            // Nothing of it is in the log.
            ErrorCode::KafkaStorageError => Some(()),
            other => panic!("{other:?}"),
        }
    });
    let kept = client.read("t", 0, 0);
    assert_eq!((kept.len(), kept[0].as_str()), (written, "first"));
    assert_eq!(broker.get("/healthz").0, 200);
    let said = |text: &str| broker.process.err().lines().filter(|line| line.contains(text)).count();
    until("the log says what is wrong", || (said("takes nothing") > 0).then_some(()));
    assert!(broker.process.err().contains("No space left on device"), "{}", broker.process.err());
    fs::remove_file(&filler).expect("it is there");
    assert!((1..=2).contains(&unknown), "one waits; another may have come before the lane told of it: {unknown}");
    let base = until("produce goes on", || {
        let answer = client.produce("t", 0, batch(&["after"]));
        (answer.error_code == ErrorCode::None).then_some(answer.base_offset)
    });
    until("the log says that it is over", || (said("takes writes again") > 0).then_some(()));
    assert_eq!(said("takes nothing"), 1, "once, not per write: {}", broker.process.err());
    let last = client.read("t", 0, base);
    assert_eq!(last, ["after"]);
    // What was appended is there once there is room, what was refused is not.
    let before = client.read("t", 0, 0);
    assert_eq!(before.len(), written + unknown + 1);
    broker.kill();
    let broker = Broker::start(&disk.0.join("data"), &["--shards", "1"]);
    assert_eq!(Client::new(broker.bootstrap()).read("t", 0, 0), before);
    broker.stop();
}

/// Writes until nothing fits.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("there is room for a name");
    for size in [FILL, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
