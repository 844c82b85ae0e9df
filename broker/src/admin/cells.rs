//! Numbers that a thread publishes for others to read, and their text form.

use super::jobs::JobCells;
use super::store::encode_histogram;
use crate::admin::pools::{POOLS, PoolCells, PoolLevels};
use crate::control::ticks::{Last, Ticks};
use crate::shard::counters::Counters;
use millrace_storage::compactor::background::SegmentTotals;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::lane::{LaneCells, LaneTotals};
use millrace_storage::meter::{Histogram, StoreMeter};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often a thread publishes.
pub const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// A thread that has not published for so long is stuck.
pub const PULSE_LIMIT: Duration = Duration::from_secs(5);

/// Name, help text and value of something that a lane tells.
type LaneValue = (&'static str, &'static str, fn(&LaneTotals) -> u64);
const LANE_COUNTERS: [LaneValue; 7] = [
    ("objects", "Write-ahead objects put, each once however often it was sent", |totals| totals.objects),
    ("object_bytes", "Their bytes", |totals| totals.object_bytes),
    ("hedged_puts", "Second puts of objects whose first took longer than most", |totals| totals.hedges),
    ("hedged_puts_won", "Of those, how many were stored before the first", |totals| totals.hedges_won),
    ("merges", "Merges of segments", |totals| totals.merges),
    ("merge_read_bytes", "Bytes of the segments that they replaced", |totals| totals.merge_read_bytes),
    ("merge_written_bytes", "Bytes of the segments that they made", |totals| totals.merge_written_bytes),
];
const LANE_GAUGES: [LaneValue; 5] = [
    ("uncovered_bytes", "Bytes of committed records that are in no segment yet; 0 where none are made", |totals| {
        totals.uncovered_bytes
    }),
    ("merge_last_success_seconds", "Unix seconds at which the last merge was done; 0 before", |totals| {
        totals.merged_at
    }),
    ("put_last_success_seconds", "Unix seconds at which a write-ahead object was last stored; 0 before", |totals| {
        totals.put_at
    }),
    (
        "damaged_partitions",
        "Partitions that are not served here because data of theirs is missing or contradicts itself; the log says which",
        |totals| totals.damaged,
    ),
    ("merges_due", "Partitions of which segments wait to be merged", |totals| totals.merges_due),
];

/// The same of what its rolls did.
type SegmentCounter = (&'static str, &'static str, fn(&SegmentTotals) -> u64);
const SEGMENT_COUNTERS: [SegmentCounter; 7] = [
    ("rolls", "Rolls of committed records into a segment that ended well", |totals| totals.rolls),
    ("roll_held_bytes", "Bytes that rolls found in memory", |totals| totals.roll_held_bytes),
    ("roll_read_bytes", "Bytes that rolls read from write-ahead objects", |totals| totals.roll_read_bytes),
    ("roll_reads", "Reads that this took", |totals| totals.roll_reads),
    ("segments", "Segments put, each with its index", |totals| totals.segments),
    ("segment_bytes", "Their bytes, without indexes", |totals| totals.segment_bytes),
    ("manifests", "Manifests put that name a further segment", |totals| totals.manifests),
];

const FIELDS: usize = Counters::NAMES.len();

/// What one shard publishes. Single numbers are current; together they may be of two moments.
#[derive(Debug)]
pub struct Cells {
    shard: u16,
    pulse: AtomicU64,
    ready: AtomicBool,
    connections: AtomicU64,
    counters: [AtomicU64; FIELDS],
    pools: PoolCells,
    acks: Arc<Histogram>,
    retention_at: AtomicU64,
}

impl Cells {
    /// Cells of a shard that has not published yet; it counts as alive from `now` on.
    pub fn new(shard: u16, now: Mono) -> Arc<Cells> {
        Arc::new(Cells {
            shard,
            pulse: AtomicU64::new(now.0),
            ready: AtomicBool::new(false),
            connections: AtomicU64::new(0),
            counters: [const { AtomicU64::new(0) }; FIELDS],
            pools: PoolCells::default(),
            acks: Arc::default(),
            retention_at: AtomicU64::new(0),
        })
    }

    /// Its number.
    pub(super) fn shard(&self) -> u16 {
        self.shard
    }

    /// All logs of the shard were looked at for records that have expired.
    pub fn looked_for_expired(&self, now: WallMs) {
        self.retention_at.store(now.seconds(), Ordering::Relaxed);
    }

    /// When that was last, Unix seconds; 0: never.
    pub(super) fn retention_at(&self) -> u64 {
        self.retention_at.load(Ordering::Relaxed)
    }

    /// Where the shard records the broker's own share of acknowledgements.
    pub fn acks(&self) -> Arc<Histogram> {
        self.acks.clone()
    }

    /// Publishes. `ready`: the shard knows that the process has recovered everything.
    pub fn publish(&self, now: Mono, ready: bool, connections: usize, counters: &Counters, pools: &PoolLevels) {
        self.pools.store(pools);
        for (cell, value) in self.counters.iter().zip(counters.values()) {
            cell.store(value, Ordering::Relaxed);
        }
        self.connections.store(connections as u64, Ordering::Relaxed);
        self.ready.store(ready, Ordering::Relaxed);
        self.pulse.store(now.0, Ordering::Relaxed);
    }
}

/// Everything that the endpoint shows.
#[derive(Clone, Debug)]
pub struct Exposition {
    /// The shards.
    pub shards: Vec<Arc<Cells>>,
    /// The lanes, by index.
    pub lanes: Vec<Arc<LaneCells>>,
    /// What is asked of the store.
    pub store: Arc<StoreMeter>,
    /// The background jobs.
    pub jobs: Arc<JobCells>,
    /// When each thread turned last.
    pub ticks: Ticks,
    /// When the process started.
    pub started: WallMs,
}

impl Exposition {
    /// Whether every shard has published lately, and every thread that has begun has turned.
    pub fn is_healthy(&self, now: Mono) -> bool {
        let fresh = |cells: &Arc<Cells>| now.since(Mono(cells.pulse.load(Ordering::Relaxed))) < PULSE_LIMIT;
        let turns = |last: Last| match last {
            Last::At(at) => now.since(at) < PULSE_LIMIT,
            Last::NotBegun | Last::Ended => true,
        };
        self.shards.iter().all(fresh) && self.ticks.read().all(|(_, last)| turns(last))
    }

    /// Whether it is healthy and everything has been recovered.
    pub fn is_ready(&self, now: Mono) -> bool {
        self.is_healthy(now) && self.shards.iter().all(|cells| cells.ready.load(Ordering::Relaxed))
    }

    /// OpenMetrics text.
    pub fn text(&self) -> String {
        let mut registry = Registry::with_prefix("millrace");
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("writing to a string cannot fail");
        text
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (index, (name, help)) in Counters::NAMES.iter().enumerate() {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for cells in &self.shards {
                let value = ConstCounter::new(cells.counters[index].load(Ordering::Relaxed));
                value.encode(family.encode_family(&[("shard", cells.shard)])?)?;
            }
        }
        for (name, help, read) in LANE_COUNTERS {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for (lane, cells) in self.lanes.iter().enumerate() {
                ConstCounter::new(read(&cells.totals())).encode(family.encode_family(&[("lane", lane)])?)?;
            }
        }
        for (name, help, read) in SEGMENT_COUNTERS {
            let counter = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            for (lane, cells) in self.lanes.iter().enumerate() {
                let value = ConstCounter::new(read(&cells.segments().totals()));
                value.encode(family.encode_family(&[("lane", lane)])?)?;
            }
        }
        let held = ConstGauge::new(0_i64);
        let help = "Memory of rolls under way and of committed batches that wait for theirs";
        let mut family = encoder.encode_descriptor("roll_memory_bytes", help, None, held.metric_type())?;
        for (lane, cells) in self.lanes.iter().enumerate() {
            let held = i64::try_from(cells.totals().held_bytes).unwrap_or(i64::MAX);
            ConstGauge::new(held).encode(family.encode_family(&[("lane", lane)])?)?;
        }
        for (name, help, read) in LANE_GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (lane, cells) in self.lanes.iter().enumerate() {
                let value = i64::try_from(read(&cells.totals())).unwrap_or(i64::MAX);
                ConstGauge::new(value).encode(family.encode_family(&[("lane", lane)])?)?;
            }
        }
        super::store::encode(&self.store, &mut encoder)?;
        let help =
            "Of acknowledgements, what is neither the store's time nor waiting for a larger object; one for each seal";
        let mut family = encoder.encode_descriptor("ack_share_seconds", help, None, MetricType::Histogram)?;
        for cells in &self.shards {
            encode_histogram(&cells.acks.snapshot(), family.encode_family(&[("shard", cells.shard)])?)?;
        }
        self.jobs.encode(&self.lanes, &self.shards, &mut encoder)?;
        super::threads::encode(&mut encoder)?;
        let gauge = ConstGauge::new(0_i64);
        let mut family = encoder.encode_descriptor("connections", "Open connections", None, gauge.metric_type())?;
        for cells in &self.shards {
            let open = i64::try_from(cells.connections.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            ConstGauge::new(open).encode(family.encode_family(&[("shard", cells.shard)])?)?;
        }
        let gauges = [
            ("pool_bytes", "Bytes that a pool of memory holds; of groups, producers and references by estimate"),
            ("pool_bound_bytes", "Bytes that a pool of memory may hold"),
        ];
        for (which, (name, help)) in gauges.into_iter().enumerate() {
            let mut family = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for cells in &self.shards {
                for (pool, level) in POOLS.iter().zip(cells.pools.load()) {
                    let value = ConstGauge::new(i64::try_from(level[which]).unwrap_or(i64::MAX));
                    let labels = [("shard", cells.shard.to_string()), ("pool", (*pool).to_owned())];
                    value.encode(family.encode_family(&labels)?)?;
                }
            }
        }
        let resident = ConstGauge::new(resident_bytes());
        resident.encode(encoder.encode_descriptor(
            "resident_bytes",
            "Resident memory",
            None,
            resident.metric_type(),
        )?)?;
        let started = ConstGauge::new(self.started.0 / 1_000);
        let help = "Unix seconds at which the process started";
        started.encode(encoder.encode_descriptor("start_time_seconds", help, None, started.metric_type())?)
    }
}

/// Resident memory of this process; 0 where the kernel does not say.
fn resident_bytes() -> i64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1)?.parse::<i64>().ok())
        .unwrap_or(0);
    pages * i64::try_from(rustix::param::page_size()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::pools::PoolLevel;

    #[test]
    fn a_thread_that_stops_publishing_is_unhealthy_and_one_that_recovers_is_not_ready() {
        let cells = Cells::new(0, Mono(0));
        let all = Exposition {
            shards: vec![cells.clone()],
            lanes: vec![],
            store: Arc::default(),
            jobs: Arc::default(),
            ticks: Ticks::default(),
            started: WallMs(0),
        };
        let second = |n: u64| Mono(n * 1_000_000_000);
        assert!(all.is_healthy(second(1)) && !all.is_ready(second(1)));
        cells.publish(second(4), true, 0, &Counters::default(), &PoolLevels::default());
        assert!(all.is_ready(second(8)));
        assert!(!all.is_healthy(second(9)) && !all.is_ready(second(9)));
    }

    #[test]
    fn metrics_name_every_counter_and_pool_by_shard() {
        let cells = Cells::new(3, Mono(0));
        let counters = Counters { requests: 7, ..Counters::default() };
        let mut pools = PoolLevels::default();
        pools[2] = PoolLevel { bytes: 5, bound: 9 };
        cells.publish(Mono(1), true, 2, &counters, &pools);
        cells.acks().record(Duration::from_micros(40));
        cells.looked_for_expired(WallMs(4_999));
        let lanes = vec![Arc::default()];
        let all = Exposition {
            shards: vec![cells],
            lanes,
            store: Arc::default(),
            jobs: Arc::default(),
            ticks: Ticks::default(),
            started: WallMs(5_000),
        };
        let text = all.text();
        assert!(text.contains("millrace_requests_total{shard=\"3\"} 7"), "{text}");
        assert!(text.contains("millrace_hedged_puts_total{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_roll_reads_total{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_roll_memory_bytes{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_merges_total{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_merges_due{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_damaged_partitions{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_uncovered_bytes{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_put_last_success_seconds{lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_store_puts_total 0"), "{text}");
        assert!(text.contains("millrace_ack_share_seconds_bucket{le=\"0.00005\",shard=\"3\"} 1"), "{text}");
        assert!(text.contains("millrace_run_queue_seconds_total{thread="), "{text}");
        assert!(text.contains("millrace_connections{shard=\"3\"} 2"), "{text}");
        assert!(text.contains("millrace_pool_bytes{shard=\"3\",pool=\"tail\"} 5"), "{text}");
        assert!(text.contains("millrace_pool_bound_bytes{shard=\"3\",pool=\"tail\"} 9"), "{text}");
        assert!(text.contains("millrace_start_time_seconds 5"), "{text}");
        assert!(text.contains("millrace_job_last_success_seconds{job=\"retention\",shard=\"3\"} 4"), "{text}");
        assert!(text.contains("millrace_job_last_success_seconds{job=\"roll\",lane=\"0\"} 0"), "{text}");
        assert!(text.contains("millrace_wal_undeleted_since_seconds{lane=\"0\"} 0"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
