//! Logs for the tests of this folder.

use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use millrace_storage::env::WallMs;
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName, manifest_key};
use millrace_storage::ids::{Offset, TopicId, TopicPartition, Wid};
use millrace_storage::object::ObjectStore;
use millrace_storage::segment::{self, SegmentWriter, WrittenSegment};
use millrace_storage::sim::SimBucket;

/// One batch of a log.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Its last offset.
    pub(super) last: Offset,
    /// All of it.
    pub(super) bytes: Bytes,
}

/// A log from offset 0 whose batches have so many records of so many bytes.
pub(super) fn batches(sizes: &[(u32, usize)]) -> Vec<Batch> {
    let mut base = 0i64;
    let one = |&(count, size): &(u32, usize)| {
        let mut builder = BatchBuilder::new(0);
        (0..count).for_each(|_| builder.push(None, Some(&vec![b'v'; size])));
        let mut bytes = builder.finish();
        bytes[..8].copy_from_slice(&base.to_be_bytes());

        base += i64::from(count);
        Batch { last: Offset(base - 1), bytes: bytes.into() }
    };
    sizes.iter().map(one).collect()
}

/// A log in segments.
pub(super) struct Log {
    /// Whose.
    pub(super) partition: TopicPartition,
    /// All batches, from offset 0.
    pub(super) batches: Vec<Batch>,
    /// Which segments hold them.
    pub(super) manifest: Manifest,
    /// The objects of the segments, by key.
    files: Vec<(String, Bytes)>,
}

impl Log {
    /// A log whose segments hold so many batches each, the last one the rest. Logs of different numbers of segments name them differently.
    pub(super) fn new(batches: Vec<Batch>, lengths: &[usize]) -> Log {
        let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(9)), index: 2 };
        let (mut manifest, mut files) = (Manifest::empty(partition), Vec::new());
        let mut rest = &batches[..];
        for number in 0.. {
            if rest.is_empty() {
                break;
            }
            let length = lengths.get(number).copied().unwrap_or(rest.len()).clamp(1, rest.len());
            let (part, after) = rest.split_at(length);
            rest = after;
            let name = SegmentName { wid: Wid(5), number: (100 * lengths.len() + number) as u64 };
            let base = manifest.covered;
            let mut writer = SegmentWriter::new(base);
            part.iter().for_each(|batch| writer.push(batch.bytes.clone()).unwrap());
            let WrittenSegment { file, index, segment, records } =
                writer.finish(WallMs(0)).expect("at least one batch");
            manifest.segments.push(NamedSegment { name, segment, records });
            manifest.covered = segment.last.plus(1);
            files.push((segment::data_key(partition, name, base), file.concat().into()));
            files.push((segment::index_key(partition, name, base), index));
        }
        Log { partition, batches, manifest, files }
    }

    /// In segments of about equal numbers of batches.
    pub(super) fn evenly(batches: Vec<Batch>, segments: usize) -> Log {
        let length = batches.len().div_ceil(segments);
        Log::new(batches, &vec![length; segments])
    }

    /// The same before the later ones of its segments were made.
    pub(super) fn first_segments(&self, count: usize) -> Log {
        let mut manifest = self.manifest.clone();
        manifest.segments.truncate(count);
        manifest.covered = manifest.segments[count - 1].segment.last.plus(1);
        let batches = self.batches.iter().filter(|batch| batch.last < manifest.covered).cloned().collect();
        Log { partition: self.partition, batches, manifest, files: self.files[..2 * count].to_vec() }
    }

    /// Puts its objects; the manifest in place of what was there.
    pub(super) async fn write(&self, bucket: &SimBucket) {
        let objects: &dyn ObjectStore = bucket;
        for (key, bytes) in &self.files {
            objects.put_if_absent(key, vec![bytes.clone()]).await.unwrap();
        }
        let key = manifest_key(self.partition);
        match objects.get(&key).await.unwrap() {
            Some(there) => drop(objects.put_if_match(&key, self.manifest.encode(), there.version).await.unwrap()),
            None => drop(objects.put_if_absent(&key, vec![self.manifest.encode()]).await.unwrap()),
        }
    }
}
