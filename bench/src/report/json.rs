//! A result as JSON. Units are part of the names; `null` is what was not measured.

use super::{QUANTILES, Report, figures, log};
use crate::result::{Counts, Series};
use crate::usage::Usage;
use serde_json::{Map, Value, json};

/// Name and version of the form. A reader checks it; a change that breaks readers raises the version.
const FORMAT: &str = "millrace-bench run 1";

/// A value as text, indented.
pub(crate) fn text(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The whole report.
pub(crate) fn report(report: &Report) -> Value {
    let result = &report.result;
    let seconds = result.window.as_secs_f64();
    let findings = result
        .findings
        .iter()
        .map(|finding| json!({ "name": finding.name, "value": finding.value, "unit": finding.unit }));
    let money = report.store.as_ref().and_then(|store| report.prices.money(store));
    json!({
        "format": FORMAT,
        "label": report.label,
        "command": report.command,
        "bench_version": Report::version(),
        "started_unix_seconds": report.started_seconds(),
        "machine": report.machine,
        "workload": result.workload,
        "settings": strings(&result.settings),
        "window_seconds": seconds,
        "series": result.series.iter().map(|one| series(one, seconds)).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
        "figures": figures::figures(report),
        "errors": result.errors,
        "retries": result.retries,
        "details": result.details,
        "broker": result.broker.as_ref().map(usage),
        "client": usage(&result.own),
        "store": report.store,
        "ack_share": report.ack_share,
        "money": money,
        "prices": report.prices,
    })
}

fn strings(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect::<Map<_, _>>().into()
}

fn series(series: &Series, seconds: f64) -> Value {
    let intervals = series.intervals.iter().map(|interval| {
        let mut value = counts(&interval.counts, (interval.end - interval.start).as_secs_f64());
        value["start_seconds"] = interval.start.as_secs_f64().into();
        value["end_seconds"] = interval.end.as_secs_f64().into();
        value
    });
    let mut value = counts(&series.total, seconds);
    value["name"] = series.name.clone().into();
    value["intervals"] = intervals.collect::<Vec<_>>().into();
    value["histogram"] = log::payload(&series.total.latency).into();
    value
}

fn counts(counts: &Counts, seconds: f64) -> Value {
    let latency = &counts.latency;
    let quantile = |&(name, at): &(&str, f64)| (name.to_owned(), latency.value_at_quantile(at).into());
    let quantiles = if latency.is_empty() {
        Value::Null
    } else {
        let mut all: Map<String, Value> = QUANTILES.iter().map(quantile).collect();
        all.insert("mean".to_owned(), latency.mean().into());
        all.into()
    };
    json!({
        "requests": counts.requests,
        "records": counts.records,
        "bytes": counts.bytes,
        "bytes_per_second": counts.bytes as f64 / seconds,
        "records_per_second": counts.records as f64 / seconds,
        "latencies": latency.len(),
        "latency_nanos": quantiles,
    })
}

fn usage(usage: &Usage) -> Value {
    json!({
        "user_cpu_seconds": usage.user_seconds,
        "system_cpu_seconds": usage.system_seconds,
        "resident_bytes": usage.resident,
        "peak_resident_bytes": usage.peak,
        "threads": usage.threads,
        "voluntary_context_switches": usage.voluntary_switches,
        "involuntary_context_switches": usage.involuntary_switches,
        "longest_run_queue_wait_at_most_seconds": usage.longest_wait.map(|wait| wait.as_secs_f64()),
        "io": usage.io.map(|io| json!({
            "read_bytes": io.read_bytes,
            "written_bytes": io.written_bytes,
            "reads": io.reads,
            "writes": io.writes,
            "disk_read_bytes": io.disk_read_bytes,
            "disk_written_bytes": io.disk_written_bytes,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_result_says_what_it_ran_where_and_what_came_of_it() {
        let value: Value = serde_json::from_str(&text(&report(&samples::report()))).unwrap();
        assert_eq!(value["format"], FORMAT);
        assert_eq!(value["settings"]["partitions"], "12");
        assert_eq!(value["machine"]["usable_cores"], 2);
        assert_eq!(value["series"][1]["name"], "end to end");
        assert_eq!(value["series"][0]["intervals"][1]["start_seconds"], 1.0);
        assert_eq!(value["series"][0]["requests"], 2_000);
        assert_eq!(value["broker"]["io"], Value::Null);
        assert_eq!(value["store"]["puts"], 64);
        assert_eq!((&value["ack_share"]["p99_ms"], &value["ack_share"]["p999_ms"]), (&json!(0.7), &Value::Null));
        assert!(value["money"]["requests_per_gib"].as_f64().unwrap() > 0.0);
        assert!(value["series"][0]["histogram"].as_str().unwrap().starts_with("HISTFAAA"));
    }

    #[test]
    fn a_series_without_an_answer_has_no_latency() {
        let value = counts(&Counts::new(), 1.0);
        assert_eq!((&value["latency_nanos"], &value["requests"]), (&Value::Null, &json!(0)));
    }
}
