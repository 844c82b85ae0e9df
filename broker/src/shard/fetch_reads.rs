//! The reads of fetches: asked for, charged, and joined to what the fetch is answered with.
//!
//! 1. Every read that was asked for ends once; its charge is given back then, or with its fetch's answer.
//! 2. A write-ahead object that is gone has been covered meanwhile: its offsets are read from segments.

use super::core::ShardCore;
use super::events::{Effect, Now, ReadToken, ReplyTo};
use super::fetches::{FetchSlot, PendingFetch, Phase, SlotState};
use super::fetching::{self, PlannedRead, Walked};
use super::partition_log::PartitionLog;
use crate::cold::reader::{ColdError, ColdRead};
use crate::handlers::errors::PartitionError;
use bytes::Bytes;
use millrace_protocol::record_set::RecordSet;
use millrace_storage::ids::{Offset, TopicPartition};
use millrace_storage::store_error::StoreError;

/// A read and what came of it.
pub(crate) struct Part {
    read: PlannedRead,
    bytes: Option<Bytes>,
}

/// Whose read it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOwner {
    fetch: ReplyTo,
    slot: usize,
    part: usize,
    /// What it is charged.
    bytes: usize,
}

impl ShardCore {
    pub(super) fn start_reads(&mut self, fetch: &mut PendingFetch) {
        fetch.phase = Phase::Reading;
        self.fetches.charged += fetch.charged;
        let request = fetch.context.reply_to;
        for (slot_at, slot) in fetch.slots.iter_mut().enumerate() {
            let bytes = planned_bytes(slot, self.config().block_bytes);
            match &slot.state {
                SlotState::Planned { reads, allotted, oversized } => {
                    let parts: Vec<Part> = reads.iter().map(|&read| Part { read, bytes: None }).collect();
                    for (part_at, part) in parts.iter().enumerate() {
                        let bytes = part.read.length as usize;
                        fetch.outstanding += 1;
                        self.ask_store(ReadOwner { fetch: request, slot: slot_at, part: part_at, bytes }, part.read);
                    }
                    slot.state = SlotState::Reading { parts, allotted: *allotted, oversized: *oversized };
                }
                SlotState::ColdPlanned { allotted, oversized } => {
                    let (allotted, oversized) = (*allotted, *oversized);
                    fetch.outstanding += 1;
                    let owner = ReadOwner { fetch: request, slot: slot_at, part: 0, bytes };
                    self.ask_segments(owner, slot, allotted, oversized);
                }
                SlotState::Failed(_)
                | SlotState::Idle
                | SlotState::Reading { .. }
                | SlotState::ColdReading
                | SlotState::ColdFailed(_)
                | SlotState::Ready(_) => {}
            }
            fetch.outstanding_bytes += bytes;
        }
    }

    fn token(&mut self, owner: ReadOwner) -> ReadToken {
        let token = ReadToken(self.fetches.next_token);
        self.fetches.next_token += 1;
        self.fetches.reads.insert(token, owner);
        token
    }

    fn ask_segments(&mut self, owner: ReadOwner, slot: &mut FetchSlot, most: usize, oversized: bool) {
        let token = self.token(owner);
        self.counters.cold_reads += 1;
        let partition = slot.partition.expect("a slot without a partition has failed");
        slot.state = SlotState::ColdReading;
        let below = self.logs.get(&partition).map_or(slot.from, PartitionLog::high_watermark);
        let read = ColdRead { partition, from: slot.from, most, oversized, below };
        self.effects.push(Effect::ColdRead { token, read });
    }

    fn ask_store(&mut self, owner: ReadOwner, read: PlannedRead) {
        let token = self.token(owner);
        self.counters.store_reads += 1;
        let start = u64::from(read.start);
        self.effects.push(Effect::Read {
            token,
            wid: read.reference.wid,
            seq: read.reference.seq,
            range: start..start + u64::from(read.length),
        });
    }

    /// A read of a write-ahead object ended.
    pub(crate) fn finish_read(&mut self, now: Now, token: ReadToken, result: Result<Option<Bytes>, StoreError>) {
        let Some((owner, mut fetch)) = self.end_read(now, token) else { return };
        let slot = &mut fetch.slots[owner.slot];
        let block_bytes = self.config().block_bytes;
        if let SlotState::Reading { allotted, oversized, .. } = slot.state
            && owner.part == 0
            && matches!(result, Ok(None))
        {
            let bytes = cold_bytes(allotted, block_bytes);
            self.ask_segments(ReadOwner { bytes, ..owner }, slot, allotted, oversized);
            self.charge_more(&mut fetch, bytes);
        } else if let Some(read) = take_read(slot, owner.part, result) {
            let bytes = read.length as usize;
            self.ask_store(ReadOwner { bytes, ..owner }, read);
            self.charge_more(&mut fetch, bytes);
        }
        self.go_on(now, fetch);
    }

    /// A read of segments ended.
    pub(crate) fn finish_cold_read(&mut self, now: Now, token: ReadToken, result: Result<RecordSet, ColdError>) {
        let Some((owner, mut fetch)) = self.end_read(now, token) else { return };
        fetch.slots[owner.slot].state = match result {
            Ok(records) => {
                self.counters.fetched_cold_bytes += records.len() as u64;
                SlotState::Ready(records)
            }
            Err(error) => SlotState::ColdFailed(error),
        };
        self.go_on(now, fetch);
    }

    /// Whose read it was, and the fetch; `None` if that was answered without it.
    fn end_read(&mut self, now: Now, token: ReadToken) -> Option<(ReadOwner, PendingFetch)> {
        let owner = self.fetches.reads.remove(&token).expect("only reads that were asked for end");
        let Some(mut fetch) = self.fetches.by_request.remove(&owner.fetch) else {
            // It left us its charge.
            self.fetches.charged -= owner.bytes;
            self.start_queued(now);
            return None;
        };
        fetch.outstanding -= 1;
        fetch.outstanding_bytes -= owner.bytes;
        Some((owner, fetch))
    }

    /// One more read of `fetch` is under way.
    fn charge_more(&mut self, fetch: &mut PendingFetch, bytes: usize) {
        fetch.outstanding += 1;
        fetch.outstanding_bytes += bytes;
        fetch.charged += bytes;
        self.fetches.charged += bytes;
    }

    /// Answers once no read is under way.
    fn go_on(&mut self, now: Now, fetch: PendingFetch) {
        if fetch.outstanding == 0 {
            return self.finish_fetch(now, fetch);
        }
        self.fetches.by_request.insert(fetch.context.reply_to, fetch);
    }

    pub(super) fn slot_result(&mut self, slot: &FetchSlot) -> Result<RecordSet, PartitionError> {
        let result = self.gathered(slot);
        if let (Ok(records), Some(partition)) = (&result, slot.partition)
            && let Some(log) = self.logs.get_mut(&partition)
        {
            log.served(records.len());
        }
        result
    }

    fn gathered(&mut self, slot: &FetchSlot) -> Result<RecordSet, PartitionError> {
        if let SlotState::Failed(error) = slot.state {
            return Err(error);
        }
        let partition = slot.partition.expect("a slot without a partition has failed");
        // The leadership may have ended while the reads were under way.
        self.leading(partition, slot.current_epoch)?;
        match &slot.state {
            SlotState::Failed(error) => Err(*error),
            SlotState::Idle => Ok(RecordSet::new()),
            SlotState::Ready(records) => Ok(records.clone()),
            SlotState::Planned { .. } | SlotState::ColdPlanned { .. } | SlotState::ColdReading => {
                Err(PartitionError::Storage)
            }
            SlotState::ColdFailed(error) => Err(self.cold_error(partition, slot.from, error)),
            SlotState::Reading { parts, allotted, oversized } => {
                let assembled = self.assemble(partition, slot.from, parts, *allotted, *oversized);
                // What retention removed while it was being read is not missing.
                let removed = self.leading(partition, slot.current_epoch)?.log_start() > slot.from;
                let records = assembled.map_err(|error| if removed { PartitionError::OutOfRange } else { error })?;
                self.counters.fetched_from_store_bytes += records.len() as u64;
                Ok(records)
            }
        }
    }

    /// What the client is told of a read of segments that failed.
    fn cold_error(&mut self, partition: TopicPartition, from: Offset, error: &ColdError) -> PartitionError {
        let log = self.logs.get_mut(&partition).expect("the caller saw that it is led");
        // What retention removed while it was being read is not missing.
        if log.log_start() > from || *error == ColdError::Removed {
            return PartitionError::OutOfRange;
        }
        if matches!(error, ColdError::Missing(_)) && log.raise_alarm() {
            tracing::error!(%partition, %from, %error, "records that must be in segments can't be read");
        }
        PartitionError::Storage
    }

    /// Joins what the reads of one partition brought, as far as it is whole and fits.
    fn assemble(
        &mut self,
        partition: TopicPartition,
        mut from: Offset,
        parts: &[Part],
        allotted: usize,
        oversized: bool,
    ) -> Result<RecordSet, PartitionError> {
        let mut records = RecordSet::new();
        for Part { read, bytes } in parts {
            let Some(bytes) = bytes else {
                return if records.is_empty() { Err(PartitionError::Storage) } else { Ok(records) };
            };
            let left = allotted.saturating_sub(records.len());
            match fetching::walk(bytes, from, left, oversized && records.is_empty()) {
                Walked::Batches { start, end, next } => {
                    records.push(fetching::slice_of(bytes, start, end));
                    from = next;
                    let position = read.start + u32::try_from(end).expect("an object is smaller than 4 GiB");
                    if position < read.reference.position + read.reference.length {
                        if let Some(log) = self.logs.get_mut(&partition) {
                            log.remember_place(next, position);
                        }
                        break;
                    }
                }
                Walked::TooLarge | Walked::Cut { .. } | Walked::Below(_) if !records.is_empty() => break,
                Walked::TooLarge => break,
                Walked::Cut { .. } | Walked::Below(_) | Walked::Broken => return Err(PartitionError::Storage),
            }
        }
        Ok(records)
    }

    /// Starts the fetches at the front of the queue that the budget now allows.
    pub(super) fn start_queued(&mut self, _now: Now) {
        while let Some(&request) = self.fetches.queue.front() {
            let mut fetch = self.fetches.by_request.remove(&request).expect("who queues is in the table");
            let fits = self.fetches.charged == 0 || self.fetches.charged + fetch.charged <= self.config().read_bytes;
            if fits {
                self.fetches.queue.pop_front();
                self.start_reads(&mut fetch);
            }
            self.fetches.by_request.insert(request, fetch);
            if !fits {
                return;
            }
        }
    }
}

/// What the reads planned for a slot are charged.
pub(super) fn planned_bytes(slot: &FetchSlot, block_bytes: usize) -> usize {
    match &slot.state {
        SlotState::Planned { reads, .. } => reads.iter().map(|read| read.length as usize).sum(),
        SlotState::ColdPlanned { allotted, .. } => cold_bytes(*allotted, block_bytes),
        SlotState::Failed(_)
        | SlotState::Idle
        | SlotState::Reading { .. }
        | SlotState::ColdReading
        | SlotState::ColdFailed(_)
        | SlotState::Ready(_) => 0,
    }
}

/// What a read of segments is charged: whole blocks at both ends.
fn cold_bytes(allotted: usize, block_bytes: usize) -> usize {
    allotted + 2 * block_bytes
}

/// Keeps the result of a read. Gives the read that must follow if the first batch to give was not in it.
fn take_read(slot: &mut FetchSlot, part_at: usize, result: Result<Option<Bytes>, StoreError>) -> Option<PlannedRead> {
    let SlotState::Reading { parts, allotted, oversized } = &mut slot.state else { return None };
    let part = &mut parts[part_at];
    let Ok(Some(bytes)) = result else {
        // Said to the client as a storage error unless earlier parts have something to give.
        part.bytes = None;
        return None;
    };
    let PlannedRead { reference, start, length } = part.read;
    let end = reference.position + reference.length;
    let whole = bytes.len() == length as usize;
    let walked = fetching::walk(&bytes, slot.from, *allotted, *oversized);
    part.bytes = Some(bytes);
    if part_at > 0 || !whole {
        return None;
    }
    let (skip, wanted) = match walked {
        Walked::Cut { start, needs } => (start, needs),
        Walked::Below(skip) => (skip, length as usize),
        Walked::Batches { .. } | Walked::TooLarge | Walked::Broken => return None,
    };
    let next = start.checked_add(u32::try_from(skip).ok()?)?;
    let wanted = u32::try_from(wanted).ok()?.min(end.checked_sub(next)?);
    // An entry that ends before its batch does is broken; reading it again would not help.
    if wanted == 0 || (next == start && wanted <= length) {
        return None;
    }
    part.read = PlannedRead { reference, start: next, length: wanted };
    part.bytes = None;
    Some(part.read)
}
