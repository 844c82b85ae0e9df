//! The line that shows how a run goes, on a terminal: rewritten in place, gone when the run is over.

use crate::result::{Progress, Stage};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// Erases the line and goes to its start (ECMA-48: EL).
const CLEAR: &str = "\r\x1b[2K";

/// The line. Shows nothing when standard error is no terminal.
pub(crate) struct LiveLine {
    on: bool,
    before: String,
}

impl LiveLine {
    /// A line that begins with `before`.
    pub(crate) fn new(before: &str) -> LiveLine {
        LiveLine { on: io::stderr().is_terminal(), before: before.to_owned() }
    }

    /// Shows this.
    pub(crate) fn show(&self, progress: &Progress) {
        if self.on {
            // A terminal that is gone is no reason to end a run.
            let _ = write!(io::stderr(), "{CLEAR}{}{}", self.before, line(progress));
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        if self.on {
            let _ = write!(io::stderr(), "{CLEAR}");
        }
    }
}

fn line(progress: &Progress) -> String {
    let stage = match progress.stage {
        Stage::WarmUp => "warm-up",
        Stage::Window => "measuring",
        Stage::Drain => "last answers",
    };
    let mut line = format!("{stage} {:.0}/{:.0} s", progress.elapsed.as_secs_f64(), progress.whole.as_secs_f64());
    for (name, counts) in &progress.series {
        let ms = |quantile| counts.latency.value_at_quantile(quantile) as f64 / 1e6;
        let mib = counts.bytes as f64 / f64::from(1 << 20);
        write!(
            line,
            " | {name} {mib:.1} MiB {} records p50 {:.2} p99 {:.2} max {:.2} ms",
            counts.records,
            ms(0.5),
            ms(0.99),
            ms(1.0)
        )
        .expect("writing to a string");
    }
    for (count, what) in [(progress.errors, "errors"), (progress.retries, "retries")] {
        if count > 0 {
            write!(line, " | {count} {what}").expect("writing to a string");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::Counts;
    use std::time::Duration;

    #[test]
    fn a_line_says_where_the_run_is_what_it_does_and_what_went_wrong() {
        let mut counts = Counts::new();
        counts.latency.saturating_record(2_000_000);
        (counts.records, counts.bytes) = (7, 3 << 20);
        let mut progress = Progress {
            stage: Stage::Window,
            elapsed: Duration::from_secs(3),
            whole: Duration::from_secs(10),
            series: vec![("produce".to_owned(), counts)],
            errors: 0,
            retries: 0,
        };
        let text = line(&progress);
        assert!(text.starts_with("measuring 3/10 s | produce 3.0 MiB 7 records p50 2.00 p99 2.00"), "{text}");
        assert!(!text.contains("errors"), "{text}");
        progress.errors = 4;
        assert!(line(&progress).ends_with(" | 4 errors"));
    }
}
