//! Joining: seals of the lane's shards become write-ahead objects, and the flush governor says when.
//!
//! Invariants:
//! 1. Seals leave in the order in which they came, each whole in one object.
//! 2. An object exceeds `object_limit_bytes` only if a single seal does.
//! 3. A token is spent for every object that is not due by size; the bucket never holds more than its burst.

use super::config::LaneConfig;
use super::messages::{BatchDescription, Seal};
use crate::env::Mono;
use crate::format::{BatchEntry, Footer, HEADER_BYTES, LogStartEntry, PartitionEntry};
use crate::ids::{LeaderEpoch, Offset, ShardIndex, TopicPartition};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What one object shall hold.
#[derive(Debug)]
pub(super) struct Joined {
    /// Body slices in the order of the footer.
    pub body: Vec<Bytes>,
    /// The footer; positions count the header.
    pub footer: Footer,
    /// Per shard the number of its last seal in this object, plus one.
    pub through: BTreeMap<ShardIndex, u64>,
}

struct Waiting {
    shard: ShardIndex,
    seal: Seal,
    bytes: usize,
    since: Mono,
}

/// Seals and log starts that wait for an object, and the token bucket.
pub(super) struct Joining {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    log_starts: BTreeMap<TopicPartition, Offset>,
    log_starts_since: Mono,
    /// In thousandths of a token.
    tokens: u64,
    refilled: Mono,
}

struct Run {
    base: Offset,
    batches: Vec<BatchDescription>,
    slices: Vec<Bytes>,
}

impl Joining {
    pub(super) fn new(config: &LaneConfig, now: Mono) -> Joining {
        Joining {
            waiting: VecDeque::new(),
            bytes: 0,
            log_starts: BTreeMap::new(),
            log_starts_since: now,
            tokens: u64::from(config.put_burst) * 1000,
            refilled: now,
        }
    }

    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.log_starts.is_empty()
    }

    /// Drops everything (the write-ahead log ended).
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.log_starts.clear();
        self.bytes = 0;
    }

    /// Adds a checked seal.
    pub(super) fn push(&mut self, now: Mono, shard: ShardIndex, seal: Seal) {
        let bytes = seal.entries.iter().flat_map(|entry| &entry.slices).map(Bytes::len).sum();
        self.bytes += bytes;
        self.waiting.push_back(Waiting { shard, seal, bytes, since: now });
    }

    /// Adds a log start; the highest of a partition counts.
    pub(super) fn raise(&mut self, now: Mono, partition: TopicPartition, offset: Offset) {
        if self.log_starts.is_empty() {
            self.log_starts_since = now;
        }
        let start = self.log_starts.entry(partition).or_insert(offset);
        *start = (*start).max(offset);
    }

    /// Drops the log start of a partition that the lane no longer leads.
    pub(super) fn forget(&mut self, partition: TopicPartition) {
        self.log_starts.remove(&partition);
    }

    fn oldest(&self) -> Option<Mono> {
        let starts = (!self.log_starts.is_empty()).then_some(self.log_starts_since);
        self.waiting.front().map(|first| first.since).into_iter().chain(starts).min()
    }

    fn refill(&mut self, config: &LaneConfig, now: Mono) {
        let Some(rate) = config.puts_per_second else { return };
        let elapsed_ms = now.since(self.refilled).as_millis();
        let gained = u64::try_from(elapsed_ms * u128::from(rate)).unwrap_or(u64::MAX);
        if gained > 0 {
            self.tokens = self.tokens.saturating_add(gained).min(u64::from(config.put_burst) * 1000);
            self.refilled = now;
        }
    }

    /// The next object if it is to be put now. `idle`: nothing is in flight. The caller checked the window.
    pub(super) fn next(&mut self, config: &LaneConfig, now: Mono, idle: bool) -> Option<Joined> {
        self.refill(config, now);
        let oldest = self.oldest()?;
        let by_size = self.bytes >= config.object_bytes;
        if !by_size {
            let lingered = now.since(oldest) >= config.linger;
            let metered = config.puts_per_second.is_some();
            if !(idle || lingered) || (metered && self.tokens < 1000) {
                return None;
            }
            if metered {
                self.tokens -= 1000;
            }
        }
        Some(self.join(config))
    }

    /// When `next` may give an object without further events; `None` if nothing waits.
    pub(super) fn deadline(&self, config: &LaneConfig, idle: bool) -> Option<Mono> {
        let oldest = self.oldest()?;
        let due = if idle || self.bytes >= config.object_bytes { oldest } else { oldest.plus(config.linger) };
        let Some(rate) = config.puts_per_second.filter(|_| self.tokens < 1000 && self.bytes < config.object_bytes)
        else {
            return Some(due);
        };
        let missing_ms = (1000 - self.tokens).div_ceil(u64::from(rate.max(1)));
        Some(due.max(self.refilled.plus(std::time::Duration::from_millis(missing_ms))))
    }

    fn join(&mut self, config: &LaneConfig) -> Joined {
        let mut runs: BTreeMap<(TopicPartition, LeaderEpoch), Run> = BTreeMap::new();
        let mut through = BTreeMap::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            if bytes >= config.object_bytes || (bytes > 0 && bytes + next.bytes > config.object_limit_bytes) {
                break;
            }
            let next = self.waiting.pop_front().expect("just seen");
            bytes += next.bytes;
            through.insert(next.shard, next.seal.number + 1);
            for entry in next.seal.entries {
                let run = runs.entry((entry.partition, entry.epoch)).or_insert_with(|| Run {
                    base: entry.base,
                    batches: Vec::new(),
                    slices: Vec::new(),
                });
                run.batches.extend(entry.batches);
                run.slices.extend(entry.slices);
            }
        }
        self.bytes -= bytes;
        let log_starts = std::mem::take(&mut self.log_starts);
        let mut footer = Footer {
            partitions: Vec::with_capacity(runs.len()),
            log_starts: log_starts.into_iter().map(|(partition, offset)| LogStartEntry { partition, offset }).collect(),
        };
        let mut body = Vec::new();
        let mut position = u32::try_from(HEADER_BYTES).expect("64");
        for ((partition, epoch), run) in runs {
            let entry = describe(partition, epoch, run.base, position, &run.batches);
            position += entry.length;
            footer.partitions.push(entry);
            body.extend(run.slices);
        }
        Joined { body, footer, through }
    }
}

fn describe(
    partition: TopicPartition,
    epoch: LeaderEpoch,
    base: Offset,
    position: u32,
    batches: &[BatchDescription],
) -> PartitionEntry {
    let (mut offset_delta, mut position_delta, mut max_timestamp) = (0, 0, -1);
    let mut entries = Vec::with_capacity(batches.len());
    for batch in batches {
        entries.push(BatchEntry {
            offset_delta,
            position_delta,
            count: batch.count,
            producer: batch.producer,
            flags: 0,
        });
        offset_delta += batch.count;
        position_delta += batch.length;
        max_timestamp = max_timestamp.max(batch.max_timestamp);
    }
    PartitionEntry {
        partition,
        epoch,
        base,
        last: base.plus(i64::from(offset_delta) - 1),
        position,
        length: position_delta,
        max_timestamp,
        batches: entries,
    }
}
