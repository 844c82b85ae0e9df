//! What manifests and segments hold, against what logs say of the same partitions (PROTOCOL.md I8, COMPACT). Pure.
//!
//! Invariants:
//! 1. Of a manifest only its bounds and epochs are kept, of what it does not name a key each: what an audit needs for
//!    segments does not grow with their number.
//! 2. Nobody knows since when nothing refers to a segment. It is taken to be so since the latest time that it could be: the
//!    file that holds its offsets now was written, else the manifest was committed, else its topic was deleted.

use super::findings::Finding;
use crate::format::manifest::{Manifest, manifest_key};
use crate::ids::{LeaderEpoch, Offset, TopicPartition, Wid};
use crate::object::ListedObject;
use crate::partition::{CommittedPartition, EpochHistory};
use crate::segment::{data_key, index_key};
use std::collections::{BTreeMap, BTreeSet};

/// What the stores hold of one partition beside its logs.
#[derive(Clone, PartialEq, Debug)]
pub struct SeenPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// All objects in its folder of segments; listed before the manifest was read.
    pub listed: Vec<ListedObject>,
    /// Its manifest, or why it can't be read; `None` if there is none.
    pub manifest: Option<Result<Manifest, String>>,
    /// Bytes of the manifest.
    pub manifest_bytes: u64,
}

/// What is kept of a manifest.
#[derive(Clone, PartialEq, Debug)]
struct Held {
    log_start: Offset,
    covered: Offset,
    epochs: EpochHistory,
}

/// Something that nothing refers to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Litter {
    partition: TopicPartition,
    key: String,
    bytes: u64,
    /// Since when at the latest,
    since_ms: i64,
    /// or since the manifest was committed, if that is later.
    or_commit: bool,
}

/// All partitions' segments.
#[derive(Default)]
pub(super) struct Segments {
    held: BTreeMap<TopicPartition, Held>,
    /// Partitions whose manifest can't be read: told of already.
    unreadable: BTreeSet<TopicPartition>,
    litter: Vec<Litter>,
    /// When manifests were committed, or later; Unix milliseconds by the store's clock.
    committed_ms: BTreeMap<TopicPartition, i64>,
    /// Segments that manifests of live partitions name,
    pub(super) count: u64,
    /// their bytes with those of their indexes and of all else found beside them,
    pub(super) bytes: u64,
    /// and how many objects that is.
    pub(super) objects: u64,
    /// When the newest of them was written.
    pub(super) newest_ms: i64,
}

impl Segments {
    /// Takes one partition in. `deleted_ms`: when its topic was deleted, if it was.
    pub(super) fn add(&mut self, seen: SeenPartition, deleted_ms: Option<i64>) -> Option<Finding> {
        let SeenPartition { partition, listed, manifest, manifest_bytes } = seen;
        let key = manifest_key(partition);
        self.objects += listed.len() as u64 + u64::from(manifest.is_some());
        self.bytes += listed.iter().map(|one| one.size).sum::<u64>() + manifest_bytes;
        let newest = listed.iter().map(|one| one.modified_ms).max().unwrap_or(0);
        self.newest_ms = self.newest_ms.max(newest);
        if let Some(deleted_ms) = deleted_ms {
            let objects = listed.into_iter().map(|one| (one.key, one.size, one.modified_ms));
            let all = objects.chain(manifest.map(|_| (key, manifest_bytes, 0)));
            self.litter.extend(all.map(|(key, bytes, modified_ms)| Litter {
                partition,
                key,
                bytes,
                since_ms: modified_ms.max(deleted_ms),
                or_commit: false,
            }));
            return None;
        }
        let manifest = match manifest {
            // One that can't be read may name all of them.
            Some(Err(detail)) => {
                self.unreadable.insert(partition);
                return Some(Finding::Damaged { key, detail });
            }
            Some(Ok(manifest)) if manifest.partition != partition => {
                self.unreadable.insert(partition);
                let detail = format!("it is the manifest of {}", manifest.partition);
                return Some(Finding::Damaged { key, detail });
            }
            Some(Ok(manifest)) => manifest,
            None => Manifest::empty(partition),
        };
        self.count += manifest.segments.len() as u64;
        self.litter.extend(unnamed(&manifest, &listed));
        let Manifest { log_start, covered, epochs, .. } = manifest;
        // A partition without a manifest and one with an empty one are the same.
        if covered > Offset(0) {
            self.held.insert(partition, Held { log_start, covered, epochs });
        }
        None
    }

    /// A manifest was committed at `ms` or before.
    pub(super) fn committed(&mut self, partition: TopicPartition, ms: i64) {
        self.newest_ms = self.newest_ms.max(ms);
        self.committed_ms.insert(partition, ms);
    }

    /// First offset that no segment of the partition holds.
    pub(super) fn covered(&self, partition: TopicPartition) -> Offset {
        self.held.get(&partition).map_or(Offset(0), |held| held.covered)
    }

    /// Keys that nothing refers to, their bytes, and since when.
    pub(super) fn unreferenced(&self) -> impl Iterator<Item = (&str, u64, i64)> {
        self.litter.iter().map(|one| {
            let commit = self.committed_ms.get(&one.partition).filter(|_| one.or_commit);
            (one.key.as_str(), one.bytes, one.since_ms.max(commit.copied().unwrap_or(i64::MIN)))
        })
    }

    /// Compares with what the logs say of live partitions.
    pub(super) fn compare(&self, states: &BTreeMap<TopicPartition, (Wid, CommittedPartition)>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (&partition, (wid, state)) in states {
            let about = manifest_key(partition);
            match self.held.get(&partition) {
                Some(held) => findings.extend(held.contradiction(*wid, state, about)),
                None if state.covered > Offset(0) && !self.unreadable.contains(&partition) => {
                    let needed_by = format!("offsets up to {} of partition {partition}", state.covered);
                    findings.push(Finding::Missing { key: about, needed_by });
                }
                None => {}
            }
        }
        let unknown = self.held.iter().filter(|(partition, _)| !states.contains_key(partition));
        findings.extend(unknown.map(|(partition, held)| Finding::Contradiction {
            about: manifest_key(*partition),
            detail: format!("it covers offsets up to {}, and no log leads to that partition", held.covered),
        }));
        findings
    }
}

impl Held {
    /// How the manifest and the log contradict each other, if they do.
    fn contradiction(&self, wid: Wid, state: &CommittedPartition, about: String) -> Option<Finding> {
        let detail = if self.covered < state.covered {
            format!("it covers offsets up to {}, by log {wid} up to {}", self.covered, state.covered)
        } else if self.covered > state.end || self.log_start > state.end {
            format!("it covers offsets from {} to {} of a log that ends at {}", self.log_start, self.covered, state.end)
        } else {
            let (epoch, ours, theirs) = self.other_epoch(state)?;
            format!("epoch {epoch} starts at {ours}, by log {wid} at {theirs}")
        };
        Some(Finding::Contradiction { about, detail })
    }

    /// An epoch that starts elsewhere by the log; where retention has cut one of the histories they may differ.
    fn other_epoch(&self, state: &CommittedPartition) -> Option<(LeaderEpoch, Offset, Offset)> {
        let cut = self.log_start.max(state.log_start);
        let theirs = state.epochs.starts();
        self.epochs.starts().iter().filter(|ours| ours.start > cut).find_map(|ours| {
            let at = theirs.binary_search_by_key(&ours.epoch, |one| one.epoch).ok()?;
            (theirs[at].start != ours.start).then_some((ours.epoch, ours.start, theirs[at].start))
        })
    }
}

/// What the manifest does not name.
fn unnamed(manifest: &Manifest, listed: &[ListedObject]) -> Vec<Litter> {
    let partition = manifest.partition;
    let mut named = BTreeSet::new();
    for one in &manifest.segments {
        named.insert(data_key(partition, one.name, one.segment.base));
        named.insert(index_key(partition, one.name, one.segment.base));
    }
    let written: BTreeMap<&str, i64> = listed.iter().map(|one| (one.key.as_str(), one.modified_ms)).collect();
    // When the file was written that holds the same offsets now.
    let replaced = |key: &str| {
        let base = base_of(key)?;
        let at = manifest.segments.partition_point(|one| one.segment.last < base);
        let holder = manifest.segments.get(at).filter(|one| one.segment.base <= base)?;
        written.get(data_key(partition, holder.name, holder.segment.base).as_str()).copied()
    };
    let litter = listed.iter().filter(|one| !named.contains(&one.key)).map(|one| {
        let replaced = replaced(&one.key);
        Litter {
            partition,
            key: one.key.clone(),
            bytes: one.size,
            since_ms: one.modified_ms.max(replaced.unwrap_or(i64::MIN)),
            or_commit: replaced.is_none(),
        }
    });
    litter.collect()
}

/// The base offset that a segment's key names.
fn base_of(key: &str) -> Option<Offset> {
    let (_, name) = key.rsplit_once("/segment-")?;
    let (base, _) = name.split_once('.')?;
    base.parse().ok().map(Offset)
}
