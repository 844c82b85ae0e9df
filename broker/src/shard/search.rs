//! Looks through batches for a record by its timestamp. Pure, and slow where much is compressed: pumps do it beside the
//! shard's thread.
//!
//! 1. A batch that cannot hold the record by what its header says is passed over unopened, its payload need not be there.
//! 2. Of one batch at most [`INFLATED_BYTES`] are inflated, as a stream; of Snappy, whose blocks are inflated whole, at
//!    most [`SNAPPY_BYTES`].
//! 3. Every step gets on: at least one batch is passed over, or else the bytes that it needs are said.
//! 4. A batch is opened only if it has the checksum that it states.
//!
//! A header's largest timestamp is believed, as in Kafka. (The broker does not open what producers compress: a
//! producer that lies there misleads searches for its own records.)

use super::fetching::batch_extent;
use crate::cold::reader::ColdError;
use millrace_protocol::records::{Compression, HEADER_BYTES, RecordBatch, RecordTimes, TimesError};
use millrace_storage::ids::Offset;
use millrace_storage::store_error::StoreError;

/// Bytes that one batch may inflate to: a batch of Kafka's default `max.message.bytes` at gzip's greatest ratio.
pub const INFLATED_BYTES: usize = 1 << 30;
/// Bytes that one batch of Snappy may inflate to.
pub const SNAPPY_BYTES: usize = 64 << 20;
/// Where the largest timestamp stands in a batch.
const MAX_TIMESTAMP_AT: usize = 35;

/// Which of the records that are new enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The one with the lowest offset.
    First,
    /// The one with the largest timestamp, the lowest offset of equals.
    Newest,
}

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seek {
    /// Which record,
    pub pick: Pick,
    /// of those with this timestamp or a larger one, Unix milliseconds,
    pub least: i64,
    /// and this offset or a higher one,
    pub from: Offset,
    /// but lower than this.
    pub below: Offset,
}

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp, Unix milliseconds; −1 if none.
    pub timestamp: i64,
    /// Epoch of the leader that took it, −1 if its batch does not say.
    pub leader_epoch: i32,
}

/// How far a search came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Searched {
    /// What was found. With [`Pick::First`] the search is over, with [`Pick::Newest`] it is the best up to `next`.
    pub found: Option<Found>,
    /// Where to go on in the object: where a batch begins or the log ends. May lie beyond the bytes searched.
    pub next: u64,
    /// Bytes that are needed from there, as far as that is known; 0 if not.
    pub needs: usize,
}

/// Why bytes could not be searched.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// They could not be read.
    #[error("batches could not be read: {0}")]
    Store(StoreError),
    /// There is no such object, or it is shorter than it should be.
    #[error("batches are missing in the store")]
    Missing,
    /// They are not batches, or a batch's records are not what its header says.
    #[error("a batch is broken")]
    Broken,
    /// A batch is larger than is inflated for a search.
    #[error("a batch inflates to more than is searched")]
    TooLarge,
}

impl From<ColdError> for SearchError {
    fn from(error: ColdError) -> SearchError {
        match error {
            ColdError::Store(error) => SearchError::Store(error),
            // Of offsets nobody asked: a part that is gone is looked for by the next manifest.
            ColdError::Removed | ColdError::Missing(_) => SearchError::Missing,
        }
    }
}

impl From<TimesError> for SearchError {
    fn from(error: TimesError) -> SearchError {
        match error {
            TimesError::TooLarge(_) => SearchError::TooLarge,
            TimesError::Batch(_) | TimesError::Inflate(_) | TimesError::Record { .. } => SearchError::Broken,
        }
    }
}

impl Seek {
    /// Goes over the batches in `bytes`, which begin with one and stand at `start` of their object.
    ///
    /// # Errors
    /// [`SearchError::Broken`] and [`SearchError::TooLarge`].
    pub fn search(mut self, start: u64, bytes: &[u8]) -> Result<Searched, SearchError> {
        let (mut at, mut found) = (0, None);
        let place = |at: usize| start + at as u64;
        while let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) {
            let extent = batch_extent(header).ok_or(SearchError::Broken)?;
            let end = at + extent.bytes;
            if extent.last >= self.from && max_timestamp(header) >= self.least {
                let Some(batch) = bytes.get(at..end) else {
                    return Ok(Searched { found, next: place(at), needs: extent.bytes });
                };
                if let Some(record) = self.look_into(batch)? {
                    found = Some(record);
                    let newer = record.timestamp.checked_add(1).filter(|_| self.pick == Pick::Newest);
                    let Some(newer) = newer else { return Ok(Searched { found, next: place(end), needs: 0 }) };
                    self.least = newer;
                }
            }
            at = end;
        }
        Ok(Searched { found, next: place(at), needs: if at < bytes.len() { HEADER_BYTES } else { 0 } })
    }

    /// The record in this one batch.
    fn look_into(&self, batch: &[u8]) -> Result<Option<Found>, SearchError> {
        let split = RecordBatch::split(batch).map_err(|_| SearchError::Broken)?;
        let (batch, _) = split.filter(|(batch, _)| batch.computed_crc() == batch.crc()).ok_or(SearchError::Broken)?;
        let snappy = batch.attributes().compression() == Ok(Compression::Snappy);
        let limit = if snappy { SNAPPY_BYTES } else { INFLATED_BYTES };
        let offsets = batch.base_offset()..=batch.last_offset();
        let mut found: Option<Found> = None;
        for time in RecordTimes::new(batch, limit)? {
            let time = time?;
            if !offsets.contains(&time.offset) {
                return Err(SearchError::Broken);
            }
            let newer = found.is_none_or(|found| time.timestamp > found.timestamp);
            if !newer || time.timestamp < self.least || !(self.from..self.below).contains(&Offset(time.offset)) {
                continue;
            }
            let (offset, timestamp) = (Offset(time.offset), time.timestamp);
            found = Some(Found { offset, timestamp, leader_epoch: batch.leader_epoch() });
            if self.pick == Pick::First {
                break;
            }
        }
        Ok(found)
    }
}

fn max_timestamp(header: &[u8; HEADER_BYTES]) -> i64 {
    i64::from_be_bytes(*header[MAX_TIMESTAMP_AT..].first_chunk().expect("within the header"))
}
