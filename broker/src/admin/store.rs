//! The text form of what is asked of the store, and of times in buckets.

use millrace_storage::meta::etcd::EtcdGauges;
use millrace_storage::meter::{BOUNDS, Extra, Operation, Snapshot, StoreMeter};
use millrace_storage::store_error::FailureKind;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt::Error;
use std::sync::atomic::Ordering;

/// Name, help text and value of a count.
type StoreCounter = (&'static str, &'static str, fn(&StoreMeter) -> u64);

const COUNTERS: [StoreCounter; 8] = [
    ("store_puts", "Objects sent to the store, failed attempts and hedges included", |store| {
        store.requests(Operation::Put)
    }),
    ("store_gets", "Objects or parts of them asked for, failed attempts included", |store| {
        store.requests(Operation::Get)
    }),
    ("store_lists", "Listings, one for each 1,000 names", |store| store.requests(Operation::List)),
    ("store_deletes", "Deletions, one for each 1,000 objects", |store| store.requests(Operation::Delete)),
    ("store_sent_bytes", "Bytes of the objects sent, failed attempts and hedges included", StoreMeter::sent_bytes),
    ("store_received_bytes", "Bytes read", StoreMeter::received_bytes),
    (
        "metadata_transactions",
        "Transactions of the embedded metadata store that changed something",
        StoreMeter::metadata_transactions,
    ),
    ("metadata_commits", "Commits that these shared, a sync of the disk each", StoreMeter::metadata_commits),
];

/// Writes everything that the meter holds.
pub(super) fn encode(store: &StoreMeter, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    for (name, help, read) in COUNTERS {
        let counter = ConstCounter::new(read(store));
        counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)?;
    }
    if let Some(etcd) = store.etcd() {
        encode_etcd(etcd, encoder)?;
    }
    let help = "Requests to the store that failed, by how";
    let mut family = encoder.encode_descriptor("store_failures", help, None, MetricType::Counter)?;
    for operation in Operation::ALL {
        for kind in FailureKind::ALL {
            let counter = ConstCounter::new(store.failures(operation, kind));
            counter.encode(family.encode_family(&[("operation", operation.name()), ("kind", kind.name())])?)?;
        }
    }
    for (name, help, extra) in EXTRAS {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for operation in Operation::ALL {
            let counter = ConstCounter::new(store.extras(operation, extra));
            counter.encode(family.encode_family(&[("operation", operation.name())])?)?;
        }
    }
    let help = "How long puts took that the store answered without an error";
    let metric = encoder.encode_descriptor("store_put_seconds", help, None, MetricType::Histogram)?;
    encode_histogram(&store.puts().snapshot(), metric)?;
    let help = "How long reads took that the store answered without an error";
    let metric = encoder.encode_descriptor("store_get_seconds", help, None, MetricType::Histogram)?;
    encode_histogram(&store.gets().snapshot(), metric)
}

/// Writes how large the etcd is.
fn encode_etcd(etcd: &EtcdGauges, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let gauges = [
        ("etcd_file_bytes", "Size of etcd's file, which its quota is about", &etcd.file),
        ("etcd_used_bytes", "Bytes of it in use; the rest is used again, or given back by defragmenting", &etcd.used),
        ("etcd_quota_bytes", "Size of the file from which etcd takes no more writes", &etcd.quota),
    ];
    for (name, help, value) in gauges {
        let gauge = ConstGauge::new(i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
    }
    let help = "Compactions of etcd's history that this process asked for";
    let counter = ConstCounter::new(etcd.compactions.load(Ordering::Relaxed));
    counter.encode(encoder.encode_descriptor("etcd_compactions", help, None, counter.metric_type())?)
}

/// Name, help text and kind of what is done beyond sending each request once.
const EXTRAS: [(&str, &str, Extra); Extra::ALL.len()] = [
    ("store_retries", "Requests sent again after a failure; those of write-ahead uploads are the lane's", Extra::Retry),
    (
        "store_hedges",
        "Second requests beside ones that took long; those of write-ahead uploads are the lane's",
        Extra::Hedge,
    ),
    ("store_hedges_won", "Of those, how many were answered first", Extra::HedgeWon),
    (
        "store_given_up",
        "Requests whose answer was not waited for, since it took far longer than others",
        Extra::GivenUp,
    ),
    ("store_waits", "Requests that waited for others, since the store had said that it is asked too much", Extra::Wait),
];

/// Writes one histogram.
pub(super) fn encode_histogram(times: &Snapshot, mut metric: MetricEncoder<'_>) -> Result<(), Error> {
    // The last bound is written as +Inf.
    let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(times.buckets).collect();
    metric.encode_histogram::<NoLabelSet>(times.seconds, times.count(), &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::{EtcdGauges, Ordering, StoreMeter};
    use crate::admin::{Cells, Exposition};
    use crate::control::ticks::Ticks;
    use bytes::Bytes;
    use millrace_storage::env::{Mono, WallMs};
    use millrace_storage::object::SharedObjects;
    use millrace_storage::object::memory::MemoryStore;
    use millrace_storage::side::block_on_local;
    use std::sync::Arc;

    /// What is shown of a process with this store.
    fn shown(store: Arc<StoreMeter>) -> String {
        let all = Exposition {
            shards: vec![Cells::new(0, Mono(0))],
            lanes: vec![],
            store,
            jobs: Arc::default(),
            ticks: Ticks::default(),
            started: WallMs(0),
        };
        all.text()
    }

    #[test]
    fn the_size_of_an_etcd_is_shown_where_there_is_one() {
        let etcd = Arc::new(EtcdGauges::default());
        etcd.file.store(7, Ordering::Relaxed);
        assert!(shown(Arc::new(StoreMeter::with_etcd(etcd))).contains("\nmillrace_etcd_file_bytes 7\n"));
        assert!(!shown(Arc::default()).contains("etcd"));
    }

    #[test]
    fn requests_bytes_failures_and_times_are_shown() {
        let store = Arc::default();
        let meter = Arc::clone(&store);
        block_on_local(|env| async move {
            let objects = SharedObjects::Memory(MemoryStore::new()).handle(&env, &meter);
            objects.put_if_absent("k", vec![Bytes::from_static(b"seven b")]).await.unwrap();
            objects.get("k").await.unwrap();
        })
        .unwrap();
        let text = shown(store);
        for line in [
            "millrace_store_puts_total 1",
            "millrace_store_gets_total 1",
            "millrace_store_deletes_total 0",
            "millrace_store_sent_bytes_total 7",
            "millrace_store_received_bytes_total 7",
            "millrace_store_failures_total{operation=\"list\",kind=\"timeout\"} 0",
            "millrace_store_retries_total{operation=\"get\"} 0",
            "millrace_store_hedges_total{operation=\"put\"} 0",
            "millrace_store_hedges_won_total{operation=\"get\"} 0",
            "millrace_store_given_up_total{operation=\"get\"} 0",
            "millrace_store_waits_total{operation=\"delete\"} 0",
            "millrace_store_get_seconds_count 1",
            "millrace_store_put_seconds_bucket{le=\"+Inf\"} 1",
            "millrace_store_put_seconds_count 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }
}
