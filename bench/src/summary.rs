//! A result as lines of text.

use crate::result::{RunResult, Series};
use crate::usage::Usage;
use std::fmt;

/// Prints a result.
pub(crate) struct Summary<'a>(pub &'a RunResult);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = self.0;
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
        show_usage(f, "client", &result.own, result)
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
    for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)] {
        write!(f, " {name} {:.3}", total.latency.value_at_quantile(quantile) as f64 / 1e6)?;
    }
    writeln!(f, "  of {} requests", total.latency.len())
}

fn show_usage(f: &mut fmt::Formatter<'_>, who: &str, usage: &Usage, result: &RunResult) -> fmt::Result {
    let cpu = usage.cpu_seconds();
    let bytes: u64 = result.series.iter().map(|series| series.total.bytes).sum();
    let requests: u64 = result.series.iter().map(|series| series.total.requests).sum();
    writeln!(
        f,
        "{who:<11} {cpu:.2} CPU-s  {:.3} CPU-s/GiB  {:.2} µs/request  {:.2} cores  resident {} MiB (peak {})",
        cpu / (bytes as f64 / f64::from(1 << 30)),
        cpu * 1e6 / requests as f64,
        cpu / result.window.as_secs_f64(),
        usage.resident >> 20,
        usage.peak >> 20
    )
}
