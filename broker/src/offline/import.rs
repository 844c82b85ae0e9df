//! `millrace segment import`: segments under KafScale's own keys become a new topic of a Millrace log, offsets preserved.
//!
//! Invariants:
//! 1. Every file is read whole and checked before anything counts; files that leave a gap or overlap are refused.
//! 2. Memory is bounded: one segment and one piece of a file.
//!
//! Not here: how the new topic comes to be, all or nothing ([`super::new_topic`]).

use super::OfflineError;
use super::kafscale::{self, Place, TransferError};
use super::new_topic::{self, Ground, Writer, put_tombstone};
use crate::control::messages::NewTopic;
use crate::settings::Settings;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::Offset;
use millrace_storage::object::ObjectStore;
use millrace_storage::object::url::StoreUrl;
use millrace_storage::segment::{SegmentIndex, SegmentReader};
use millrace_storage::side::{SideRuntime, block_on_local};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// What is to be imported, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Import {
    /// The topic there.
    pub topic: String,
    /// KafScale's namespace there.
    pub namespace: String,
    /// The other place.
    pub source: StoreUrl,
    /// The new topic; without partitions: as many as there are files for.
    pub new: NewTopic,
    /// Take what there is where files are missing or unfinished.
    pub gaps: bool,
}

/// What was imported of a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ImportedPartition {
    /// The partition.
    pub index: u32,
    /// First offset.
    pub start: Offset,
    /// First offset behind the last.
    pub end: Offset,
    /// Records.
    pub records: u64,
    /// Files that were left out.
    pub left_out: Vec<String>,
}

/// Imports into the store that `settings` name, which no broker serves from.
///
/// # Errors
/// See [`OfflineError`]. There is no new topic then.
pub fn import(settings: &Settings, asked: &Import) -> Result<Vec<ImportedPartition>, OfflineError> {
    let place = Place::new(&asked.namespace, &asked.topic)?;
    let ground = Ground::lock(settings)?;
    let side = SideRuntime::start()?;
    let source = kafscale::source(&asked.source, &side)?;
    block_on_local(async |env| {
        let stores = ground.open(&env, settings, &side).await?;
        // Nobody reads what it counts.
        let source = source.handle(&env, &Arc::default());
        let files = place.all(&*source).await?;
        let Some((last, _)) = files.last_key_value() else {
            let what = format!("segment under {}", place.topic());
            return Err(TransferError::Nothing { what, place: asked.source.to_string() }.into());
        };
        let record = new_topic::record(&env, &stores, &asked.new, last.saturating_add(1)).await?;
        let (id, name) = (record.id, &asked.new.name);
        let copy = Copy { source, place, gaps: asked.gaps };
        let mut writer = Writer::new(&env, &stores, id);
        match copy.all(&files, &mut writer).await {
            Ok(copied) => {
                writer.commit(name, &record, copied.iter().map(|one| &one.manifest)).await?;
                Ok(copied.into_iter().filter_map(Copied::imported).collect())
            }
            Err(error) => {
                // The next import does the same if this fails.
                let _ = put_tombstone(&stores, id, name).await;
                Err(error)
            }
        }
    })?
}

/// The copy of a topic.
struct Copy {
    source: Rc<dyn ObjectStore>,
    place: Place,
    gaps: bool,
}

/// What became of one partition.
struct Copied {
    manifest: Manifest,
    left_out: Vec<String>,
}

impl Copied {
    /// For people; `None` if there is nothing in it.
    fn imported(self) -> Option<ImportedPartition> {
        let Copied { manifest, left_out } = self;
        let (index, start, end) = (manifest.partition.index, manifest.log_start, manifest.covered);
        let records = manifest.segments.iter().map(|named| named.records).sum();
        (!manifest.segments.is_empty()).then_some(ImportedPartition { index, start, end, records, left_out })
    }
}

impl Copy {
    /// Segments and manifests of all partitions.
    async fn all(
        &self,
        files: &BTreeMap<u32, Vec<Offset>>,
        writer: &mut Writer<'_>,
    ) -> Result<Vec<Copied>, OfflineError> {
        let mut copied = Vec::new();
        for (&index, bases) in files {
            copied.push(self.partition(index, bases, writer).await?);
        }
        Ok(copied)
    }

    async fn partition(&self, number: u32, bases: &[Offset], writer: &mut Writer<'_>) -> Result<Copied, OfflineError> {
        let mut left_out = Vec::new();
        let mut writing = writer.partition(number, Offset(0));
        let mut next: Option<Offset> = None;
        for &base in bases {
            let key = self.place.data_key(number, base);
            let index = match self.source.get(&self.place.index_key(number, base)).await? {
                Some(found) => SegmentIndex::decode(&found.bytes).map_err(|error| damaged(&key, &error))?,
                None if self.gaps => {
                    left_out.push(key);
                    continue;
                }
                None => return Err(TransferError::NoIndex(key).into()),
            };
            self.follows(&key, base, next)?;
            let opened = SegmentReader::open(&*self.source, key.clone(), Some(&index)).await;
            let mut reader = opened.map_err(|error| damaged(&key, &error))?;
            while let Some(batches) = reader.next().await.map_err(|error| damaged(&key, &error))? {
                for batch in batches {
                    writer.push(&mut writing, &key, batch).await?;
                }
            }
            let scanned = reader.finish().map_err(|error| damaged(&key, &error))?;
            if scanned.base != base {
                return Err(damaged(&key, &format!("it begins at offset {}", scanned.base)).into());
            }
            next = Some(scanned.last.plus(1));
        }
        Ok(Copied { manifest: writer.finish(writing).await?, left_out })
    }

    fn follows(&self, key: &str, base: Offset, next: Option<Offset>) -> Result<(), TransferError> {
        let key = key.to_owned();
        match next {
            Some(end) if base < end => Err(TransferError::Overlap { key, found: base, end }),
            Some(expected) if base > expected && !self.gaps => Err(TransferError::Gap { key, expected, found: base }),
            _ => Ok(()),
        }
    }
}

fn damaged(key: &str, error: &dyn ToString) -> TransferError {
    TransferError::Damaged { key: key.to_owned(), detail: error.to_string() }
}
