//! KafScale's own keys, `{namespace}/{topic}/{partition}/segment-{base:020}.kfs` and `.index`: where segments are exported to
//! and imported from (DESIGN.md section 5).
//!
//! Invariants:
//! 1. What is read here is left as it is; what is written here is whole under its name, an index before its file.

use super::OfflineError;
use crate::control::topic_rules;
use crate::process::open::DirectoryLock;
use millrace_storage::ids::Offset;
use millrace_storage::object::local::LocalStore;
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ObjectStore, OpenError, SharedObjects};
use millrace_storage::segment::FOOTER_BYTES;
use millrace_storage::side::SideRuntime;
use std::collections::BTreeMap;

/// Bytes of batches after which a segment ends. What is copied needs about as much memory.
pub(super) const SEGMENT_BYTES: u64 = 16 << 20;

/// Why segments can't be copied, besides the stores.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransferError {
    /// Neither side could hold a folder or topic of that name.
    #[error("the name \"{name}\" can't be used: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such topic, partition or folder.
    #[error("there is no {what} in {place}")]
    Nothing {
        /// What was asked for.
        what: String,
        /// Where it was looked for.
        place: String,
    },
    /// The topic is there already.
    #[error("there is a topic {0} already; delete it first, or give another name with --as")]
    TopicExists(String),
    /// A value that no topic may have.
    #[error("{0}")]
    Refused(String),
    /// A file can't be read, or is not what its name says.
    #[error("{key}: {detail}")]
    Damaged {
        /// Its key.
        key: String,
        /// What is wrong.
        detail: String,
    },
    /// A file does not go on where the one before it ended.
    #[error("{key} begins at offset {found} where {expected} was to come; --allow-gaps takes what there is")]
    Gap {
        /// Its key.
        key: String,
        /// The offset that was to come.
        expected: Offset,
        /// The offset that came.
        found: Offset,
    },
    /// Two files hold the same offsets.
    #[error("{key} begins at offset {found}, but the file before it ends at {end}")]
    Overlap {
        /// Its key.
        key: String,
        /// Its first offset.
        found: Offset,
        /// The end of the one before.
        end: Offset,
    },
    /// KafScale takes such a file for one that was never finished.
    #[error("{0} has no index beside it: its upload did not end; --allow-gaps leaves it out")]
    NoIndex(String),
    /// The target holds something else.
    #[error("{folder} ends at offset {end}, which does not fit offsets from {start}; export to another place")]
    OtherTarget {
        /// The folder of the partition.
        folder: String,
        /// Where it ends.
        end: Offset,
        /// The first offset that was to be exported, or the end of the log.
        start: Offset,
    },
    /// Whether it was committed is not known.
    #[error("{key}: the batch at offset {offset} belongs to a transaction, which Millrace does not have")]
    Transactional {
        /// Its key.
        key: String,
        /// Of the batch.
        offset: Offset,
    },
}

/// The folder of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    folder: String,
}

impl Place {
    /// # Errors
    /// A name that no topic can have, or that begins with a dot, as no directory of ours does.
    pub(super) fn new(namespace: &str, topic: &str) -> Result<Place, TransferError> {
        for name in [namespace, topic] {
            let dot = name.starts_with('.').then(|| "it begins with a dot".to_owned());
            let why = dot.or_else(|| topic_rules::check_name(name).err().map(|refusal| refusal.message));
            if let Some(why) = why {
                return Err(TransferError::Name { name: name.to_owned(), why });
            }
        }
        Ok(Place { folder: format!("{namespace}/{topic}") })
    }

    /// The folder of the topic.
    pub(super) fn topic(&self) -> &str {
        &self.folder
    }

    /// The folder of a partition, with its slash.
    pub(super) fn partition(&self, index: u32) -> String {
        format!("{}/{index}/", self.folder)
    }

    /// A segment's file.
    pub(super) fn data_key(&self, index: u32, base: Offset) -> String {
        format!("{}segment-{:020}.kfs", self.partition(index), base.0)
    }

    /// Its index.
    pub(super) fn index_key(&self, index: u32, base: Offset) -> String {
        format!("{}segment-{:020}.index", self.partition(index), base.0)
    }

    /// Bases of the files of a partition, in order.
    pub(super) async fn files(&self, objects: &dyn ObjectStore, index: u32) -> Result<Vec<Offset>, OfflineError> {
        let folder = self.partition(index);
        let listed = objects.list(&folder).await?;
        let mut bases: Vec<Offset> = listed.iter().filter_map(|one| base(one.key.strip_prefix(&folder)?)).collect();
        bases.sort_unstable();
        Ok(bases)
    }

    /// The files of all partitions that have any.
    pub(super) async fn all(&self, objects: &dyn ObjectStore) -> Result<BTreeMap<u32, Vec<Offset>>, OfflineError> {
        let mut all = BTreeMap::new();
        for name in objects.list_directories(&format!("{}/", self.folder)).await? {
            let Some(index) = name.parse().ok().filter(|index: &u32| index.to_string() == name) else { continue };
            let files = self.files(objects, index).await?;
            if !files.is_empty() {
                all.insert(index, files);
            }
        }
        Ok(all)
    }

    /// The first offset behind the files of a partition, by the footer of the last; `None` if there is none.
    pub(super) async fn end(&self, objects: &dyn ObjectStore, index: u32) -> Result<Option<Offset>, OfflineError> {
        let Some(base) = self.files(objects, index).await?.pop() else { return Ok(None) };
        let key = self.data_key(index, base);
        let found = objects.get_suffix(&key, FOOTER_BYTES as u64).await?;
        let footer = found.and_then(|found| <[u8; FOOTER_BYTES]>::try_from(&found.bytes[..]).ok());
        let last = footer
            .filter(|footer| footer[12..] == *b"END!")
            .map(|footer| Offset(i64::from_be_bytes(*footer[4..].first_chunk().expect("a footer is longer"))));
        let cut = || TransferError::Damaged { key, detail: "no footer: the file is cut off".to_owned() };
        let last = last.filter(|last| *last >= base && last.0 < i64::MAX).ok_or_else(cut)?;
        Ok(Some(last.plus(1)))
    }
}

/// The base offset in a file's name, written as it is written here.
fn base(name: &str) -> Option<Offset> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".kfs")?;
    let base = digits.parse().ok().filter(|base: &i64| *base >= 0)?;
    (format!("{base:020}") == digits).then_some(Offset(base))
}

/// Opens what is read.
pub(super) fn source(url: &StoreUrl, side: &SideRuntime) -> Result<SharedObjects, OpenError> {
    match url {
        StoreUrl::File(root) if root.is_dir() => Ok(SharedObjects::Local(LocalStore::existing(root, side))),
        StoreUrl::File(_) => Err(OpenError::new(format!("{url} is no directory"), "name another with --source")),
        StoreUrl::Memory => Err(memory("--source")),
        StoreUrl::Bucket { .. } => SharedObjects::open(url, side),
    }
}

/// Opens what is written. A directory is this process's own as long as its lock is held.
pub(super) fn target(url: &StoreUrl, side: &SideRuntime) -> Result<(SharedObjects, Option<DirectoryLock>), OpenError> {
    let lock = match url {
        StoreUrl::File(root) => Some(DirectoryLock::take(root, "--target")?),
        StoreUrl::Memory => return Err(memory("--target")),
        StoreUrl::Bucket { .. } => None,
    };
    Ok((SharedObjects::open(url, side)?, lock))
}

fn memory(flag: &str) -> OpenError {
    OpenError::new("a memory: store ends with its process", format!("name another with {flag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kafscales_and_read_back() {
        let place = Place::new("default", "orders.v1").unwrap();
        let key = place.data_key(3, Offset(42));
        assert_eq!(key, "default/orders.v1/3/segment-00000000000000000042.kfs");
        assert_eq!(place.index_key(3, Offset(42)), "default/orders.v1/3/segment-00000000000000000042.index");
        assert_eq!(base(key.strip_prefix(&place.partition(3)).unwrap()), Some(Offset(42)));
        for odd in [
            "segment-42.kfs",
            "segment-00000000000000000042.index",
            "segment-.kfs",
            "x",
            "segment--0000000000000000042.kfs",
        ] {
            assert_eq!(base(odd), None, "{odd}");
        }
    }

    #[test]
    fn names_that_are_no_folder_are_refused() {
        for (namespace, topic) in [("a/b", "t"), ("n", ".hidden"), ("", "t"), ("n", "..")] {
            assert!(Place::new(namespace, topic).is_err(), "{namespace} {topic}");
        }
    }
}
