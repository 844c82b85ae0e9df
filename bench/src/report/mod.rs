//! A result with what is needed to believe it, and its forms: lines for a terminal ([`terminal`]), JSON ([`json`]), HTML
//! ([`html`]) and HdrHistogram's interval log ([`log`]). [`figures`] names the numbers that several of them show, once.
//!
//! 1. Every form states the command line.
//! 2. No form leaves out errors: a result with errors says so first.

pub(crate) mod figures;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod log;
mod plot;
pub(crate) mod terminal;

use crate::ack_share::AckShare;
use crate::machine::Machine;
use crate::metrics::StoreUse;
use crate::prices::Prices;
use crate::result::RunResult;
use clap::Args;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The quantiles that are shown, with their names.
pub(crate) const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0)];

/// What a run gives besides its summary.
#[derive(Args, Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Output {
    /// Write the result as JSON.
    #[arg(long, global = true, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a self-contained HTML report.
    #[arg(long, global = true, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a HdrHistogram interval log (nanoseconds, a tag for each series).
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What is measured, with its version: Kafka's protocol does not tell.
    #[arg(long, global = true, value_name = "TEXT")]
    pub label: Option<String>,
    /// Millrace's metrics, for requests to its store and its own share of acks: http://HOST:PORT/metrics.
    #[arg(long, global = true, value_name = "URL")]
    pub metrics: Option<String>,
    /// Prices of the store's requests as TOML (default: those of bench/prices.toml).
    #[arg(long, global = true, value_name = "FILE")]
    pub prices: Option<PathBuf>,
}

/// A result and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    /// What was measured.
    pub label: String,
    /// The whole command line.
    pub command: String,
    /// When the window began.
    pub started: SystemTime,
    /// Where the client ran, before the run.
    pub machine: Machine,
    /// What was counted.
    pub result: RunResult,
    /// What the broker asked of its store, if its metrics were named.
    pub store: Option<StoreUse>,
    /// The broker's own share of acknowledgements, if its metrics were named and there were any.
    pub ack_share: Option<AckShare>,
    /// What that costs.
    pub prices: Prices,
}

impl Report {
    /// This program's version.
    pub(crate) fn version() -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// Unix seconds at which the window began.
    pub(crate) fn started_seconds(&self) -> f64 {
        self.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

/// The command line of this process, fit for a shell.
pub(crate) fn command_line() -> String {
    let quoted = |word: String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@+%".contains(&byte);
        if !word.is_empty() && word.bytes().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    // The path of the program says something about a machine, not about the run.
    let words = std::env::args().skip(1).map(quoted);
    std::iter::once("millrace-bench".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Writes the forms that were asked for.
///
/// # Errors
/// When a file can't be written, with its name.
pub(crate) fn write(report: &Report, output: &Output) -> io::Result<()> {
    if let Some(file) = &output.json {
        write_file(file, &json::text(&json::report(report)))?;
    }
    if let Some(file) = &output.html {
        write_file(file, &html::run_page(report))?;
    }
    if let Some(file) = &output.log {
        write_file(file, &log::interval_log(report))?;
    }
    Ok(())
}

/// Writes a file.
///
/// # Errors
/// With its name.
pub(crate) fn write_file(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(path, text).map_err(|error| io::Error::other(format!("{}: {error}", path.display())))
}

#[cfg(test)]
pub(crate) mod samples {
    //! A report for tests of its forms.

    use super::*;
    use crate::result::{Counts, Interval, Series};
    use crate::usage::Usage;
    use std::collections::BTreeMap;
    use std::time::Duration;

    /// Two seconds of two series: latencies from 1 to 1,000 µs in the first, twice that in the second.
    pub(crate) fn report() -> Report {
        let counts = |factor: u64| {
            let mut counts = Counts::new();
            (1..=1_000).for_each(|micros| counts.latency.saturating_record(micros * factor * 1_000));
            (counts.requests, counts.records, counts.bytes) = (1_000, 63_000, 64 << 20);
            counts
        };
        let interval = |second: u64, factor| Interval {
            start: Duration::from_secs(second),
            end: Duration::from_secs(second + 1),
            counts: counts(factor),
        };
        let series = |name: &str, factor| {
            let intervals = vec![interval(0, factor), interval(1, factor)];
            let mut total = Counts::new();
            intervals.iter().for_each(|interval| total.add(&interval.counts));
            Series { name: name.to_owned(), total, intervals }
        };
        let usage = Usage { user_seconds: 0.5, system_seconds: 0.25, resident: 32 << 20, ..Usage::default() };
        let result = RunResult {
            workload: "produce".to_owned(),
            settings: vec![("partitions".to_owned(), "12".to_owned())],
            window: Duration::from_secs(2),
            series: vec![series("produce", 1), series("end to end", 2)],
            findings: Vec::new(),
            errors: BTreeMap::new(),
            retries: BTreeMap::new(),
            details: Vec::new(),
            own: usage,
            broker: Some(usage),
        };
        Report {
            label: "broker 1.0".to_owned(),
            command: "millrace-bench produce --label 'a <b>'".to_owned(),
            started: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500_000_000_250),
            machine: Machine {
                kernel: "Linux 6.1 x86_64".to_owned(),
                cpu: Some("a & b".to_owned()),
                usable_cores: 2,
                cores: Some(4),
                memory_bytes: Some(8 << 30),
                load_average: Some([0.5, 0.25, 0.125]),
                governor: None,
            },
            result,
            ack_share: Some(AckShare { seals: 500, p50_ms: Some(0.05), p99_ms: Some(0.7), p999_ms: None }),
            store: Some(StoreUse {
                seconds: 2.0,
                produced_bytes: 256 << 20,
                puts: 64,
                gets: 2,
                lists: 0,
                sent_bytes: 257 << 20,
                received_bytes: 1 << 20,
            }),
            prices: Prices::load(None).unwrap(),
        }
    }
}
