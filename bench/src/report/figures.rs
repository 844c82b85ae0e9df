//! The numbers of a result that are worth a comparison, each with its unit and which way is better.
//!
//! 1. A figure that was not measured is missing, never zero: no process named, no CPU; no requests, no latency.
//! 2. CPU per GiB and per request counts what went through the broker, of all series together.

use super::Report;
use crate::result::RunResult;
use serde::Serialize;

const MIB: f64 = (1_u64 << 20) as f64;
const GIB: f64 = (1_u64 << 30) as f64;

/// Which way is better.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// More.
    Higher,
    /// Less.
    Lower,
}

/// One number.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub(crate) struct Figure {
    /// What it is; begins with the name of its series if there are several.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
}

/// All of them, in the order in which they are shown.
pub(crate) fn figures(report: &Report) -> Vec<Figure> {
    let result = &report.result;
    let mut figures = Vec::new();
    let mut add = |name: String, value: f64, unit, better| figures.push(Figure { name, value, unit, better });
    let seconds = result.window.as_secs_f64();
    for series in &result.series {
        let prefix = if result.series.len() > 1 { format!("{}: ", series.name) } else { String::new() };
        let name = |what: &str| format!("{prefix}{what}");
        let total = &series.total;
        add(name("throughput"), total.bytes as f64 / MIB / seconds, "MiB/s", Better::Higher);
        add(name("records"), total.records as f64 / seconds, "1/s", Better::Higher);
        add(name("requests"), total.requests as f64 / seconds, "1/s", Better::Higher);
        if !total.latency.is_empty() {
            for (quantile, at) in super::QUANTILES {
                add(name(quantile), total.latency.value_at_quantile(at) as f64 / 1e6, "ms", Better::Lower);
            }
        }
    }
    let (requests, bytes) = traffic(result);
    if let Some(broker) = &result.broker {
        let cpu = broker.cpu_seconds();
        if bytes > 0 {
            add("broker CPU per GiB".to_owned(), cpu / (bytes as f64 / GIB), "s", Better::Lower);
        }
        if requests > 0 {
            add("broker CPU per request".to_owned(), cpu * 1e6 / requests as f64, "µs", Better::Lower);
        }
        add("broker cores".to_owned(), cpu / seconds, "", Better::Lower);
        add("broker resident".to_owned(), broker.resident as f64 / MIB, "MiB", Better::Lower);
        if let Some(wait) = broker.longest_wait {
            add("broker run-queue wait, at most".to_owned(), wait.as_secs_f64() * 1e3, "ms", Better::Lower);
        }
    }
    if let Some(store) = report.store.filter(|store| store.produced_bytes > 0) {
        let per_gib = |count: u64| count as f64 / (store.produced_bytes as f64 / GIB);
        add("store PUTs per GiB".to_owned(), per_gib(store.puts), "", Better::Lower);
        add("store GETs per GiB".to_owned(), per_gib(store.gets), "", Better::Lower);
    }
    if let Some(share) = report.ack_share {
        let quantiles = [("p50", share.p50_ms), ("p99", share.p99_ms), ("p99.9", share.p999_ms)];
        for (name, ms) in quantiles.into_iter().filter_map(|(name, ms)| Some((name, ms?))) {
            add(format!("broker's own share of an ack, {name}, at most"), ms, "ms", Better::Lower);
        }
    }
    figures
}

/// Requests and bytes of all series.
pub(crate) fn traffic(result: &RunResult) -> (u64, u64) {
    let add = |(requests, bytes), total: &crate::result::Counts| (requests + total.requests, bytes + total.bytes);
    result.series.iter().map(|series| &series.total).fold((0, 0), add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(figures: &[Figure], name: &str) -> Option<f64> {
        figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
    }

    #[test]
    fn each_figure_is_of_its_own_unit() {
        let figures = figures(&super::super::samples::report());
        assert_eq!(value(&figures, "produce: throughput"), Some(64.0));
        assert_eq!(value(&figures, "end to end: records"), Some(63_000.0));
        assert_eq!(value(&figures, "broker CPU per GiB"), Some(3.0)); // 0.75 s, 256 MiB
        assert_eq!(value(&figures, "broker CPU per request"), Some(187.5));
        assert_eq!(value(&figures, "broker resident"), Some(32.0));
        assert_eq!(value(&figures, "store PUTs per GiB"), Some(256.0));
        assert_eq!(value(&figures, "broker's own share of an ack, p99, at most"), Some(0.7));
        assert_eq!(value(&figures, "broker's own share of an ack, p99.9, at most"), None);
        let p50 = value(&figures, "produce: p50").unwrap();
        assert!((p50 / 0.5 - 1.0).abs() < 0.002, "{p50}");
    }

    #[test]
    fn what_was_not_measured_is_missing() {
        let mut report = super::super::samples::report();
        (report.store, report.ack_share) = (None, None);
        report.result.broker = None;
        report.result.series.truncate(1);
        report.result.series[0].total = crate::result::Counts::new();
        let figures = figures(&report);
        let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
        assert_eq!(names, ["throughput", "records", "requests"]);
    }
}
