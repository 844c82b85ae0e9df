//! What the background jobs of the control thread have come to, for `/metrics`.

use millrace_storage::compactor::collect::CollectedSegments;
use millrace_storage::env::WallMs;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the jobs, read by the endpoint.
#[derive(Debug, Default)]
pub struct JobCells {
    logs_at: AtomicU64,
    segments_at: AtomicU64,
    waiting: AtomicU64,
    oldest: AtomicU64,
}

impl JobCells {
    /// The collector of sealed logs has gone through without an error.
    pub fn logs_collected(&self, now: WallMs) {
        self.logs_at.store(seconds(now), Ordering::Relaxed);
    }

    /// So has the collector of segments.
    pub fn segments_collected(&self, now: WallMs, done: &CollectedSegments) {
        self.segments_at.store(seconds(now), Ordering::Relaxed);
        self.waiting.store(done.waiting as u64, Ordering::Relaxed);
        self.oldest.store(done.oldest.as_secs(), Ordering::Relaxed);
    }

    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let value = |cell: &AtomicU64| ConstGauge::new(i64::try_from(cell.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        let help = "Unix seconds at which a background job last ended without an error; 0 before";
        let metric = ConstGauge::new(0_i64);
        let kind = metric.metric_type();
        let mut family = encoder.encode_descriptor("job_last_success_seconds", help, None, kind)?;
        for (job, cell) in [("collect-logs", &self.logs_at), ("collect-segments", &self.segments_at)] {
            value(cell).encode(family.encode_family(&[("job", job)])?)?;
        }
        let help = "Segments that no manifest names and that are not yet deleted";
        value(&self.waiting).encode(encoder.encode_descriptor("segments_unnamed", help, None, kind)?)?;
        let help = "Seconds for which the oldest of them has been known";
        value(&self.oldest).encode(encoder.encode_descriptor("segments_unnamed_oldest_seconds", help, None, kind)?)
    }
}

fn seconds(now: WallMs) -> u64 {
    u64::try_from(now.0 / 1_000).unwrap_or(0)
}
