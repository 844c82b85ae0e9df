//! How many idempotent producers a shard remembers over all of its partitions.
//!
//! 1. The count is that of the partitions' tables; it exceeds the bound only by what was recovered.
//! 2. Room is made from those silent for longest, and only from those that no client can still be retrying for: a
//!    producer that was forgotten would have its retry taken for something new, and stored twice. Who is refused
//!    instead is told to try again, and nothing of it is appended.

use millrace_storage::env::WallMs;
use millrace_storage::partition::ProducerTable;

/// Milliseconds of silence after which a producer may be forgotten for want of memory. Clients give a batch up before:
/// Java after `delivery.timeout.ms` (2 minutes), librdkafka after `message.timeout.ms` (5 minutes).
pub(crate) const SILENT_MS: i64 = 5 * 60 * 1_000;

/// Milliseconds until the tables are looked through again after nobody silent was found.
const LOOK_AGAIN_MS: i64 = 10_000;

/// The share of the bound that makes room at once, so that the cost of choosing is spread.
const SHARE: usize = 8;

/// What there is and may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerRoom {
    most: usize,
    count: usize,
    look_again: WallMs,
}

impl ProducerRoom {
    /// Room for as many as `bytes` hold, counted twice because the lane keeps one of each too.
    pub(crate) fn new(bytes: usize) -> ProducerRoom {
        let most = (bytes / (2 * ProducerTable::BYTES_EACH)).max(1);
        ProducerRoom { most, count: 0, look_again: WallMs(i64::MIN) }
    }

    /// A table that had `before` producers has `after`.
    pub(crate) fn changed(&mut self, before: usize, after: usize) {
        self.count = self.count + after - before;
    }

    /// Every table is gone.
    pub(crate) fn forget_all(&mut self) {
        self.count = 0;
    }

    /// Whether a producer that is not known is too many.
    pub(crate) fn is_full(&self) -> bool {
        self.count >= self.most
    }

    /// Whether it is time to look for producers to forget.
    pub(crate) fn should_look(&self, now: WallMs) -> bool {
        self.is_full() && now >= self.look_again
    }

    /// Of the silent ones found (time of the newest batch, and whose), leaves those to forget: the oldest.
    pub(crate) fn choose<T: Ord>(&mut self, now: WallMs, silent: &mut Vec<(WallMs, T)>) {
        let wanted = self.count - self.most + (self.most / SHARE).max(1);
        if silent.len() < wanted {
            self.look_again = WallMs(now.0.saturating_add(LOOK_AGAIN_MS));
        }
        silent.sort_unstable();
        silent.truncate(wanted);
    }
}
