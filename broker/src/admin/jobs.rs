//! What the background jobs have come to, those of lanes and shards too, for `/metrics`.

use super::Cells;
use millrace_storage::compactor::collect::CollectedSegments;
use millrace_storage::env::WallMs;
use millrace_storage::lane::LaneCells;
use millrace_storage::recovery::Collected;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of the jobs of the control thread: written by them, read by the endpoint.
#[derive(Debug, Default)]
pub struct JobCells {
    logs_at: AtomicU64,
    segments_at: AtomicU64,
    journal_at: AtomicU64,
    waiting: AtomicU64,
    oldest: AtomicU64,
    held_back: AtomicU64,
}

impl JobCells {
    /// The collector of sealed logs has gone through without an error.
    pub fn logs_collected(&self, now: WallMs, done: &Collected) {
        self.logs_at.store(now.seconds(), Ordering::Relaxed);
        self.held_back.store((done.held_back + done.damaged) as u64, Ordering::Relaxed);
    }

    /// So has the collector of segments.
    pub fn segments_collected(&self, now: WallMs, done: &CollectedSegments) {
        self.segments_at.store(now.seconds(), Ordering::Relaxed);
        self.waiting.store(done.waiting as u64, Ordering::Relaxed);
        self.oldest.store(done.oldest.as_secs(), Ordering::Relaxed);
    }

    /// Offsets and groups are in the store as of now.
    pub fn journaled(&self, now: WallMs) {
        self.journal_at.store(now.seconds(), Ordering::Relaxed);
    }

    pub(super) fn encode(
        &self,
        lanes: &[Arc<LaneCells>],
        shards: &[Arc<Cells>],
        encoder: &mut DescriptorEncoder<'_>,
    ) -> Result<(), fmt::Error> {
        let value = |cell: &AtomicU64| gauge(cell.load(Ordering::Relaxed));
        let help = "Unix seconds at which a background job last ended without an error; 0 before";
        let metric = ConstGauge::new(0_i64);
        let kind = metric.metric_type();
        let mut family = encoder.encode_descriptor("job_last_success_seconds", help, None, kind)?;
        let jobs =
            [("collect-logs", &self.logs_at), ("collect-segments", &self.segments_at), ("journal", &self.journal_at)];
        for (job, cell) in jobs {
            value(cell).encode(family.encode_family(&[("job", job)])?)?;
        }
        for (number, cells) in lanes.iter().enumerate() {
            let totals = cells.totals();
            for (job, at) in [("checkpoint", totals.checkpoint_at), ("roll", totals.rolled_at)] {
                let labels = [("job", job.to_owned()), ("lane", number.to_string())];
                gauge(at).encode(family.encode_family(&labels)?)?;
            }
        }
        for cells in shards {
            let labels = [("job", "retention".to_owned()), ("shard", cells.shard().to_string())];
            gauge(cells.retention_at()).encode(family.encode_family(&labels)?)?;
        }
        for (name, help, since) in UNDELETED {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (number, cells) in lanes.iter().enumerate() {
                gauge(since(cells)).encode(family.encode_family(&[("lane", number)])?)?;
            }
        }
        let help =
            "Sealed logs that stay because something is wrong with them or with a checkpoint that may refer to them";
        value(&self.held_back).encode(encoder.encode_descriptor("logs_held_back", help, None, kind)?)?;
        let help = "Segments that no manifest names and that are not yet deleted";
        value(&self.waiting).encode(encoder.encode_descriptor("segments_unnamed", help, None, kind)?)?;
        let help = "Seconds for which the oldest of them has been known";
        value(&self.oldest).encode(encoder.encode_descriptor("segments_unnamed_oldest_seconds", help, None, kind)?)
    }
}

/// What waits to be deleted, since when.
type Undeleted = (&'static str, &'static str, fn(&LaneCells) -> u64);
const UNDELETED: [Undeleted; 2] = [
    (
        "wal_undeleted_since_seconds",
        "Unix seconds since which the oldest write-ahead objects that nothing needs wait to be deleted; 0: none do",
        LaneCells::objects_undeleted_since,
    ),
    (
        "checkpoints_undeleted_since_seconds",
        "Unix seconds since which the oldest checkpoint that another replaced waits to be deleted; 0: none does",
        LaneCells::checkpoints_undeleted_since,
    ),
];

fn gauge(value: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
}
