//! Retention: now and then every log that this shard leads is looked at, and what has expired goes the way of
//! DeleteRecords (decision 055).
//!
//! 1. A log start rises only by what its lane commits; until then the next look asks again.
//! 2. A manifest is read only of a partition whose settings let something expire, one GET in a leadership.

use super::core::ShardCore;
use super::events::{Effect, Now};
use crate::cold::reader::ColdError;
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::{LeaderEpoch, TopicPartition};
use millrace_storage::lane::ToLane;

impl ShardCore {
    /// Looks at every log.
    pub fn expire(&mut self, now: Now) {
        let partitions: Vec<TopicPartition> = self.logs.keys().copied().collect();
        for partition in partitions {
            self.expire_of(now, partition);
        }
        self.counters.retention_looks += 1;
    }

    /// A manifest asked for by [`Effect::ReadManifest`] was read.
    pub fn on_manifest(
        &mut self,
        now: Now,
        (partition, epoch): (TopicPartition, LeaderEpoch),
        result: Result<&Manifest, ColdError>,
    ) {
        self.manifest_came(partition, result.as_ref().ok().copied());
        let Some(log) = self.logs.get_mut(&partition).filter(|log| log.epoch() == epoch) else { return };
        match result {
            Ok(manifest) => {
                log.learn_segments(manifest);
                if log.knows_segments() {
                    self.expire_of(now, partition);
                }
            }
            Err(error) => tracing::warn!(%partition, %error, "what its segments hold is not known yet"),
        }
    }

    fn expire_of(&mut self, now: Now, partition: TopicPartition) {
        let log = &self.logs[&partition];
        let retention = log.settings.retention;
        if !retention.limits_anything() || log.draining() || log.log_start() == log.high_watermark() {
            return;
        }
        let Some(pieces) = log.pieces() else {
            let epoch = log.epoch();
            return self.effects.push(Effect::ReadManifest { partition, epoch });
        };
        if let Some(offset) = retention.start(pieces, now.wall).filter(|offset| *offset > log.log_start()) {
            self.counters.log_starts_raised += 1;
            self.effects.push(Effect::ToLane(ToLane::LogStart { partition, offset }));
        }
    }
}
