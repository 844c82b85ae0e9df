//! Joining: seals of the lane's shards become write-ahead objects, and the flush governor says when.
//!
//! Invariants:
//! 1. Seals leave in the order in which they came, each whole in one object.
//! 2. An object exceeds `object_limit_bytes` only if a single seal does.
//! 3. Tokens are spent for every object by how much it is smaller than `put_bytes`; the bucket never holds more than its
//!    burst. So the requests of a trickle are bounded by the second, those of a stream by the byte.

use super::config::LaneConfig;
use super::messages::{BatchDescription, Seal, SealWait};
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
    /// The seals in it, in the order in which they came, with how long the governor and the window kept each.
    pub seals: Vec<(ShardIndex, SealWait)>,
}

/// What the governor must know of the sequences in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Whether there are none.
    pub idle: bool,
    /// When the last one left.
    pub moved: Mono,
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
        let elapsed_ms = u64::try_from(now.since(self.refilled).as_millis()).unwrap_or(u64::MAX);
        let gained = elapsed_ms.saturating_mul(u64::from(rate));
        self.tokens = self.tokens.saturating_add(gained).min(u64::from(config.put_burst) * 1000);
        // The part of a millisecond that is left counts the next time: many looks earn what one does.
        self.refilled = self.refilled.plus(std::time::Duration::from_millis(elapsed_ms));
    }

    /// What an object of all that waits costs, in thousandths of a token.
    fn price(&self, config: &LaneConfig) -> u64 {
        if config.puts_per_second.is_none() {
            return 0;
        }
        let missing = config.put_bytes.saturating_sub(self.bytes);
        (missing as u64 * 1000).div_ceil(config.put_bytes.max(1) as u64)
    }

    /// The next object if it is to be put now. The caller checked that the window has room.
    pub(super) fn next(&mut self, config: &LaneConfig, now: Mono, window: Window) -> Option<Joined> {
        let free = self.free(config, window)?;
        self.refill(config, now);
        let oldest = self.oldest()?;
        let by_size = self.bytes >= config.object_bytes;
        if !by_size {
            let lingered = now.since(oldest) >= config.linger;
            let price = self.price(config);
            if !(window.idle || lingered) || self.tokens < price {
                return None;
            }
            self.tokens -= price;
        }
        Some(self.join(config, free.min(now)))
    }

    /// When `next` may give an object without further events; `None` if nothing waits.
    pub(super) fn deadline(&self, config: &LaneConfig, idle: bool) -> Option<Mono> {
        let oldest = self.oldest()?;
        let due = if idle || self.bytes >= config.object_bytes { oldest } else { oldest.plus(config.linger) };
        let missing = self.price(config).saturating_sub(self.tokens);
        let Some(rate) = config.puts_per_second.filter(|_| missing > 0) else { return Some(due) };
        let missing_ms = missing.div_ceil(u64::from(rate.max(1)));
        Some(due.max(self.refilled.plus(std::time::Duration::from_millis(missing_ms))))
    }

    /// Since when neither the governor nor the window keeps what waits: what passes from then on is the lane's own.
    /// To be asked before the bucket is refilled, since it counts from the last time.
    fn free(&self, config: &LaneConfig, window: Window) -> Option<Mono> {
        let due = self.deadline(config, window.idle)?;
        // Bytes end these two waits, so that the seal that brought them did.
        let by_bytes = self.bytes >= config.object_bytes || config.puts_per_second.is_some();
        let newest = self.waiting.back().filter(|_| by_bytes).map_or(Mono(0), |newest| newest.since);
        Some(due.max(window.moved).max(newest))
    }

    /// `free`: since when it is kept by nothing.
    fn join(&mut self, config: &LaneConfig, free: Mono) -> Joined {
        let mut runs: BTreeMap<(TopicPartition, LeaderEpoch), Run> = BTreeMap::new();
        let mut seals = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.waiting.front() {
            if bytes >= config.object_bytes || (bytes > 0 && bytes + next.bytes > config.object_limit_bytes) {
                break;
            }
            let next = self.waiting.pop_front().expect("just seen");
            bytes += next.bytes;
            seals.push((next.shard, SealWait { number: next.seal.number, waited: free.since(next.since) }));
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
        Joined { body, footer, seals }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TopicId;
    use crate::lane::SealEntry;
    use std::time::Duration;

    const IDLE: Window = Window { idle: true, moved: Mono(0) };

    fn seal(number: u64, bytes: usize) -> Seal {
        let partition = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 };
        let length = u32::try_from(bytes).expect("a small seal");
        let batch = BatchDescription { length, count: 1, max_timestamp: -1, producer: None };
        let base = Offset(i64::try_from(number).expect("a small number"));
        let slices = vec![Bytes::from(vec![0; bytes])];
        let entry = SealEntry { partition, epoch: LeaderEpoch(1), base, batches: vec![batch], slices };
        Seal { number, generation: 0, entries: vec![entry] }
    }

    fn metered() -> LaneConfig {
        LaneConfig { linger: Duration::ZERO, puts_per_second: Some(8), put_burst: 2, ..LaneConfig::default() }
    }

    /// Objects put in a second when a seal of `bytes` comes every millisecond and answers come at once.
    fn puts_in_a_second(config: &LaneConfig, bytes: usize) -> usize {
        let at = |ms: u64| Mono(ms * 1_000_000);
        let mut joining = Joining::new(config, at(0));
        let mut puts = 0;
        for ms in 0..1000 {
            joining.push(at(ms), ShardIndex(0), seal(ms, bytes));
            while joining.next(config, at(ms), IDLE).is_some() {
                puts += 1;
            }
        }
        puts
    }

    #[test]
    fn a_trickle_is_bounded_by_the_second_and_a_stream_by_the_byte() {
        let config = metered();
        let trickle = puts_in_a_second(&config, 100);
        assert!((8..=10).contains(&trickle), "a burst of 2 and 8 a second: {trickle}");
        let stream = puts_in_a_second(&config, 64 << 10);
        assert!((240..=270).contains(&stream), "one for every four seals of 64 KiB, and the tokens: {stream}");
        assert_eq!(puts_in_a_second(&config, 256 << 10), 1000, "each pays for itself");
    }

    #[test]
    fn without_a_rate_every_seal_goes_at_once() {
        assert_eq!(puts_in_a_second(&LaneConfig { puts_per_second: None, ..metered() }, 100), 1000);
    }

    #[test]
    fn the_deadline_is_when_the_missing_part_of_a_token_has_come() {
        let config = metered();
        let mut joining = Joining::new(&config, Mono(0));
        for number in 0..2 {
            joining.push(Mono(0), ShardIndex(0), seal(number, 0));
            assert!(joining.next(&config, Mono(0), IDLE).is_some(), "the burst");
        }
        joining.push(Mono(0), ShardIndex(0), seal(2, 128 << 10));
        assert!(joining.next(&config, Mono(0), IDLE).is_none());
        let due = joining.deadline(&config, true).expect("something waits");
        assert_eq!(due, Mono(0).plus(Duration::from_millis(63)), "half a token at 8 a second");
        assert!(joining.next(&config, due, IDLE).is_some());
    }
}
