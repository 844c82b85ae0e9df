//! `millrace segment export`: a topic's batches as segments under KafScale's own keys.
//!
//! Invariants:
//! 1. The batches are the log's, byte for byte, each once and in order: whole batches, so that the first may begin below
//!    the offset that was asked for.
//! 2. Files appear whole and in order. So an export that was cut off, or a log that has grown, is gone on with where the
//!    last file ends; nothing that is there is replaced.
//! 3. Memory is bounded: one segment, one piece of a file, one entry of a write-ahead object.

use super::OfflineError;
use super::batches::{self, Take};
use super::kafscale::{self, Place, SEGMENT_BYTES, TransferError};
use super::read_only::ReadOnly;
use super::topics::Topics;
use crate::control::start::kafka_uuid;
use crate::settings::Settings;
use bytes::Bytes;
use millrace_protocol::records::RecordBatch;
use millrace_storage::compactor::manifest;
use millrace_storage::env::Env;
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::meta::memory::MemoryMeta;
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{ObjectStore, OpenError};
use millrace_storage::partition::CommittedPartition;
use millrace_storage::recovery::{Stores, observe, put_object};
use millrace_storage::segment::{SegmentCutter, WrittenSegment};
use millrace_storage::side::{SideRuntime, block_on_local};
use std::ops::{ControlFlow, Range};
use std::rc::Rc;
use std::sync::Arc;

/// What is to be exported, and where to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// The topic.
    pub topic: String,
    /// The partition; `None`: all.
    pub partition: Option<u32>,
    /// Offsets of each partition.
    pub offsets: Range<Offset>,
    /// The other place.
    pub target: StoreUrl,
    /// KafScale's namespace there.
    pub namespace: String,
}

/// What was exported of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportedPartition {
    /// The partition.
    pub index: u32,
    /// Where what the target holds of it ends now.
    pub end: Offset,
    /// Files written by this run.
    pub files: usize,
    /// Records in them.
    pub records: u64,
}

/// Exports from the store that `settings` name. Nothing of it is changed.
///
/// # Errors
/// See [`OfflineError`]. What was written so far is whole, and the same export goes on behind it.
pub fn export(settings: &Settings, asked: &Export) -> Result<Vec<ExportedPartition>, OfflineError> {
    let place = Place::new(&asked.namespace, &asked.topic)?;
    let side = SideRuntime::start()?;
    let mut opened = ReadOnly::open(settings, &side)?;
    if opened.url == asked.target {
        let problem = format!("{} is the store that is read", asked.target);
        return Err(OpenError::new(problem, "name another with --target").into());
    }
    let (target, _lock) = kafscale::target(&asked.target, &side)?;
    block_on_local(async |env| {
        let read = opened.handles(&env).await?;
        // What is observed does not come from metadata.
        let meta = Rc::new(MemoryMeta::new(kafka_uuid(|| env.random_u128())));
        let stores = Stores { wal: read.wal, objects: read.objects, meta };
        // Nobody reads what it counts.
        let target = target.handle(&env, &Arc::default());
        let topics = Topics::read(&*stores.objects).await?;
        let nothing = |what: String| TransferError::Nothing { what, place: opened.url.to_string() };
        let topic = topics.alive().find(|topic| topic.name == asked.topic);
        let topic = topic.ok_or_else(|| nothing(format!("topic {}", asked.topic)))?;
        let all = match asked.partition {
            Some(index) if index >= topic.partitions => return Err(nothing(format!("partition {index}")).into()),
            Some(index) => index..index + 1,
            None => 0..topic.partitions,
        };
        let wanted = |one: TopicPartition| one.topic == topic.id && all.contains(&one.index);
        let states = observe(&stores, wanted).await?;
        let mut exported = Vec::new();
        for (partition, state) in &states {
            let copy = Copy { env: &env, target: &*target, place: &place, index: partition.index };
            exported.push(copy.partition(&stores, *partition, state, asked.offsets.clone()).await?);
        }
        Ok(exported)
    })?
}

/// The copy of one partition.
struct Copy<'a> {
    env: &'a Env,
    target: &'a dyn ObjectStore,
    place: &'a Place,
    index: u32,
}

impl Copy<'_> {
    async fn partition(
        &self,
        stores: &Stores,
        partition: TopicPartition,
        state: &CommittedPartition,
        asked: Range<Offset>,
    ) -> Result<ExportedPartition, OfflineError> {
        let manifest = manifest::read(&*stores.objects, partition).await?.manifest;
        let log_end = state.end.max(manifest.covered);
        let range = self.left(asked, state.log_start.max(manifest.log_start), log_end).await?;
        let writing = Writing { cutter: SegmentCutter::new(SEGMENT_BYTES), range: range.clone(), files: 0, records: 0 };
        let mut taking = Taking { copy: self, writing };
        let _ = batches::give(stores, partition, (&manifest, state), range, &mut taking).await?;
        let mut writing = taking.writing;
        let last = writing.cutter.finish(self.env.wall());
        self.put(&mut writing, last).await?;
        let Writing { range, files, records, .. } = writing;
        Ok(ExportedPartition { index: self.index, end: range.start, files, records })
    }

    /// What of `asked` the target does not hold yet.
    async fn left(
        &self,
        asked: Range<Offset>,
        log_start: Offset,
        log_end: Offset,
    ) -> Result<Range<Offset>, OfflineError> {
        let (start, end) = (asked.start.max(log_start), asked.end.min(log_end));
        let Some(held) = self.place.end(self.target, self.index).await? else { return Ok(start..end.max(start)) };
        if held < start || held > log_end {
            let start = if held < start { start } else { log_end };
            return Err(
                TransferError::OtherTarget { folder: self.place.partition(self.index), end: held, start }.into()
            );
        }
        Ok(held..end.max(held))
    }

    async fn put(&self, writing: &mut Writing, written: Option<WrittenSegment>) -> Result<(), OfflineError> {
        let Some(written) = written else { return Ok(()) };
        let base = written.segment.base;
        let index = self.place.index_key(self.index, base);
        // Of a run that was cut off before the file came: this file may be another.
        self.target.delete(vec![index.clone()]).await?;
        put_object(self.env, self.target, index, vec![written.index]).await?;
        put_object(self.env, self.target, self.place.data_key(self.index, base), written.file).await?;
        writing.files += 1;
        writing.records += written.records;
        Ok(())
    }
}

/// Takes the batches of a partition.
struct Taking<'a> {
    copy: &'a Copy<'a>,
    writing: Writing,
}

impl Take for Taking<'_> {
    async fn take(&mut self, key: &str, bytes: Bytes) -> Result<ControlFlow<()>, OfflineError> {
        let Taking { copy, writing } = self;
        let (batch, _) = RecordBatch::split(&bytes).ok().flatten().expect("whoever gives it found it whole");
        let last = Offset(batch.last_offset());
        let damaged = |detail: String| TransferError::Damaged { key: key.to_owned(), detail };
        let written = writing.cutter.push(bytes, copy.env.wall()).map_err(|error| damaged(error.to_string()))?;
        writing.range.start = last.plus(1);
        copy.put(writing, written).await?;
        Ok(ControlFlow::Continue(()))
    }
}

/// Where the copy of a partition is.
struct Writing {
    cutter: SegmentCutter,
    /// What is left: it starts behind the last batch taken.
    range: Range<Offset>,
    files: usize,
    records: u64,
}
