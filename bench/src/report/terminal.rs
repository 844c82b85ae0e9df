//! A result as lines of text.

use super::{QUANTILES, Report, figures};
use crate::result::{RunResult, Series};
use crate::usage::Usage;
use std::fmt;

/// Prints a report.
pub(crate) struct Summary<'a>(pub &'a Report);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = &self.0.result;
        for series in &result.series {
            if result.series.len() > 1 {
                writeln!(f, "{}", series.name)?;
            }
            show_series(f, series, result.window.as_secs_f64())?;
        }
        for finding in &result.findings {
            writeln!(f, "{:<11} {:.3} {}", finding.name, finding.value, finding.unit)?;
        }
        result.retries.iter().try_for_each(|(why, times)| writeln!(f, "retries     {times} × {why}"))?;
        result.details.iter().try_for_each(|line| writeln!(f, "            {line}"))?;
        if result.errors.is_empty() {
            writeln!(f, "errors      none")?;
        }
        result.errors.iter().try_for_each(|(what, times)| writeln!(f, "errors      {times} × {what}"))?;
        if let Some(broker) = &result.broker {
            show_usage(f, "broker", broker, result)?;
        }
        show_usage(f, "client", &result.own, result)?;
        show_store(f, self.0)?;
        show_ack_share(f, self.0)
    }
}

fn show_series(f: &mut fmt::Formatter<'_>, series: &Series, seconds: f64) -> fmt::Result {
    let total = &series.total;
    let mib = total.bytes as f64 / f64::from(1 << 20);
    writeln!(
        f,
        "throughput  {:.1} MiB/s  {:.0} records/s  {:.0} requests/s  ({seconds:.0} s, {mib:.1} MiB)",
        mib / seconds,
        total.records as f64 / seconds,
        total.requests as f64 / seconds,
    )?;
    write!(f, "latency ms ")?;
    for (name, quantile) in QUANTILES {
        write!(f, " {name} {:.3}", total.latency.value_at_quantile(quantile) as f64 / 1e6)?;
    }
    writeln!(f, "  of {} requests", total.latency.len())
}

fn show_usage(f: &mut fmt::Formatter<'_>, who: &str, usage: &Usage, result: &RunResult) -> fmt::Result {
    let cpu = usage.cpu_seconds();
    let (requests, bytes) = figures::traffic(result);
    writeln!(
        f,
        "{who:<11} {cpu:.2} CPU-s ({:.2} user, {:.2} kernel)  {:.3} CPU-s/GiB  {:.2} µs/request  {:.2} cores  resident {} MiB (peak {})",
        usage.user_seconds,
        usage.system_seconds,
        cpu / (bytes as f64 / f64::from(1 << 30)),
        cpu * 1e6 / requests as f64,
        cpu / result.window.as_secs_f64(),
        usage.resident >> 20,
        usage.peak >> 20
    )?;
    write!(
        f,
        "            {} threads  {} + {} context switches",
        usage.threads, usage.voluntary_switches, usage.involuntary_switches
    )?;
    if let Some(wait) = usage.longest_wait {
        write!(f, "  run-queue wait at most {:.3} ms", wait.as_secs_f64() * 1e3)?;
    }
    if let Some(io) = &usage.io {
        write!(f, "  disk {} MiB read, {} MiB written", io.disk_read_bytes >> 20, io.disk_written_bytes >> 20)?;
    }
    writeln!(f)
}

fn show_store(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let Some(store) = &report.store else { return Ok(()) };
    writeln!(
        f,
        "store       {} PUTs ({:.0}/GiB)  {} GETs  {} LISTs  {} MiB sent  {} MiB received  in {:.0} s with {} MiB produced",
        store.puts,
        store.puts as f64 / (store.produced_bytes as f64 / f64::from(1 << 30)),
        store.gets,
        store.lists,
        store.sent_bytes >> 20,
        store.received_bytes >> 20,
        store.seconds,
        store.produced_bytes >> 20
    )?;
    let Some(money) = report.prices.money(store) else { return Ok(()) };
    let currency = &report.prices.currency;
    writeln!(
        f,
        "money       {:.6} {currency}/GiB for requests  {:.2} {currency}/month for them  {:.2} {currency}/month to keep a month ({})",
        money.requests_per_gib, money.requests_per_month, money.storage_per_month, report.prices.name
    )
}

fn show_ack_share(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let Some(share) = &report.ack_share else { return Ok(()) };
    write!(f, "ack share   the broker's own, in ms at most ")?;
    for (name, ms) in [("p50", share.p50_ms), ("p99", share.p99_ms), ("p99.9", share.p999_ms)] {
        match ms {
            Some(ms) => write!(f, " {name} {ms:.3}")?,
            None => write!(f, " {name} above all buckets")?,
        }
    }
    writeln!(f, "  of {} seals", share.seals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_summary_names_every_series_the_quantiles_the_processes_and_the_money() {
        let text = Summary(&samples::report()).to_string();
        assert!(
            text.starts_with("produce\nthroughput  64.0 MiB/s  63000 records/s  1000 requests/s  (2 s, 128.0 MiB)\n")
        );
        for part in ["end to end\n", "p99.99 ", "errors      none\n", "broker      0.75 CPU-s (0.50 user, 0.25 kernel)"]
        {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
        assert!(text.contains("store       64 PUTs (256/GiB)  2 GETs") && text.contains("USD/GiB"), "{text}");
        assert!(text.ends_with("p50 0.050 p99 0.700 p99.9 above all buckets  of 500 seals\n"), "{text}");
    }

    #[test]
    fn errors_and_retries_are_told_with_their_causes() {
        let mut report = samples::report();
        report.result.errors.insert("no answer".to_owned(), 3);
        report.result.retries.insert("NotLeaderOrFollower".to_owned(), 2);
        let text = Summary(&report).to_string();
        assert!(text.contains("errors      3 × no answer\n") && text.contains("retries     2 × NotLeader"), "{text}");
        assert!(!text.contains("errors      none"));
    }
}
