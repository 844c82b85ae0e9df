//! Looks into Millrace's store for the segments of a log.

use crate::pair::{Pair, pause};
use millrace_storage::format::manifest::{Manifest, manifest_key};
use millrace_storage::ids::{TopicId, TopicPartition};
use std::io;
use std::path::Path;

/// Looks at the store before giving up.
const LOOKS: usize = 1_200;

/// Waits until a part of a log is in segments.
pub(super) fn await_some(pair: &mut Pair, store: &Path, topic: &str, index: i32) -> io::Result<()> {
    let index = u32::try_from(index).expect("no negative partition");
    let partition = TopicPartition { topic: TopicId(pair.right.id(topic)), index };
    let path = store.join(manifest_key(partition));
    for _ in 0..LOOKS {
        match std::fs::read(&path) {
            Ok(bytes) => {
                let manifest = Manifest::decode(&bytes).map_err(io::Error::other)?;
                if !manifest.segments.is_empty() {
                    eprintln!("{topic}-{index}: {} segments up to {}", manifest.segments.len(), manifest.covered);
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        pause();
    }
    Err(io::Error::other(format!("nothing of {topic}-{index} is in a segment: {} does not exist", path.display())))
}
