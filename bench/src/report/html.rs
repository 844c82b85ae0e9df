//! A result as one HTML page that needs nothing else: no network, no script; inline style and pictures, light and dark.
//!
//! Several runs lie over each other in the same plots, one colour for each; in a plot of quantiles over time, the dashes
//! tell the quantile.

use super::plot::{Line, Plot, Scale, escaped};
use super::{QUANTILES, Report, figures};
use crate::result::Series;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const MIB: f64 = (1_u64 << 20) as f64;
const WRITES: &str = "writing to a string";
/// Points of a percentile line for each power of ten.
const POINTS_PER_DECADE: u32 = 24;

/// The page of one run.
pub(crate) fn run_page(report: &Report) -> String {
    let mut body = String::new();
    errors(&mut body, report);
    plots(&mut body, &[(report.label.as_str(), report)]);
    summary(&mut body, report);
    facts(&mut body, report);
    page(&format!("{}: {}", report.label, report.result.workload), &report.command, &body)
}

/// A page around `body`, with the command line above everything.
pub(crate) fn page(title: &str, command: &str, body: &str) -> String {
    let (title, command) = (escaped(title), escaped(command));
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<h1>{title}</h1>\n<pre>{command}</pre>\n{body}</body>\n</html>\n"
    )
}

/// What went wrong, if anything did.
pub(crate) fn errors(out: &mut String, report: &Report) {
    for (what, times) in &report.result.errors {
        let (label, what) = (escaped(&report.label), escaped(what));
        writeln!(out, "<p class=\"bad\"><b>{label}: {times} × {what}</b></p>").expect(WRITES);
    }
    for line in &report.result.details {
        writeln!(out, "<p class=\"bad\">{}</p>", escaped(line)).expect(WRITES);
    }
}

/// The plots of runs of one workload, for each series that any of them has.
pub(crate) fn plots(out: &mut String, runs: &[(&str, &Report)]) {
    let mut names: Vec<&str> = Vec::new();
    for (_, report) in runs {
        for series in &report.result.series {
            if !names.contains(&series.name.as_str()) {
                names.push(&series.name);
            }
        }
    }
    for name in names {
        let found: Vec<(&str, &Series)> = runs
            .iter()
            .filter_map(|(label, report)| {
                Some((*label, report.result.series.iter().find(|series| series.name == name)?))
            })
            .collect();
        writeln!(out, "<h2>{}</h2>", escaped(name)).expect(WRITES);
        out.push_str(&percentiles(&found));
        out.push_str(&throughput(&found));
        out.push_str(&latency_over_time(&found));
    }
}

fn percentiles(runs: &[(&str, &Series)]) -> String {
    let line = |(colour, (label, series)): (usize, &(&str, &Series))| {
        let latency = &series.total.latency;
        // The last point that stands for at least one latency.
        let decades = (latency.len().max(1) as f64).log10();
        let count = (decades * f64::from(POINTS_PER_DECADE)).floor() as u32;
        let point = |n: u32| {
            let x = 10_f64.powf(f64::from(n) / f64::from(POINTS_PER_DECADE));
            (x, latency.value_at_quantile(1.0 - 1.0 / x) as f64 / 1e6)
        };
        let points = if latency.is_empty() { Vec::new() } else { (0..=count).map(point).collect() };
        Line { name: (*label).to_owned(), colour, dash: 0, points }
    };
    let lines = runs.iter().enumerate().map(line).collect();
    Plot { title: "latency by percentile", x: ("percentile", Scale::Quantile), y: ("ms", Scale::Log), lines }.svg()
}

fn throughput(runs: &[(&str, &Series)]) -> String {
    let line = |(colour, (label, series)): (usize, &(&str, &Series))| {
        let points = series.intervals.iter().map(|interval| {
            let seconds = (interval.end - interval.start).as_secs_f64();
            (interval.end.as_secs_f64(), interval.counts.bytes as f64 / MIB / seconds)
        });
        Line { name: format!("{label}: MiB/s"), colour, dash: 0, points: points.collect() }
    };
    let lines = runs.iter().enumerate().map(line).collect();
    Plot { title: "throughput over time", x: ("s", Scale::Linear), y: ("MiB/s", Scale::Linear), lines }.svg()
}

fn latency_over_time(runs: &[(&str, &Series)]) -> String {
    let mut lines = Vec::new();
    for (colour, (label, series)) in runs.iter().enumerate() {
        for (dash, (name, quantile)) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)].into_iter().enumerate() {
            let answered = series.intervals.iter().filter(|interval| !interval.counts.latency.is_empty());
            let points = answered.map(|interval| {
                (interval.end.as_secs_f64(), interval.counts.latency.value_at_quantile(quantile) as f64 / 1e6)
            });
            lines.push(Line { name: format!("{label}: {name}"), colour, dash, points: points.collect() });
        }
    }
    Plot { title: "latency over time", x: ("s", Scale::Linear), y: ("ms", Scale::Log), lines }.svg()
}

fn summary(out: &mut String, report: &Report) {
    out.push_str("<h2>Latency, ms</h2>\n<div class=\"wide\"><table><tr><th></th>");
    for (name, _) in QUANTILES {
        write!(out, "<th>{name}</th>").expect(WRITES);
    }
    out.push_str("<th>requests</th></tr>\n");
    for series in &report.result.series {
        write!(out, "<tr><td>{}</td>", escaped(&series.name)).expect(WRITES);
        let latency = &series.total.latency;
        for (_, quantile) in QUANTILES {
            write!(out, "<td>{:.3}</td>", latency.value_at_quantile(quantile) as f64 / 1e6).expect(WRITES);
        }
        writeln!(out, "<td>{}</td></tr>", latency.len()).expect(WRITES);
    }
    out.push_str("</table></div>\n");
    let figures = figures::figures(report);
    let quantile = |name: &str| QUANTILES.iter().any(|(each, _)| name.ends_with(each));
    let rows = figures.iter().filter(|figure| !quantile(&figure.name));
    let rows = rows.map(|figure| (figure.name.clone(), format!("{:.3} {}", figure.value, figure.unit)));
    let findings = report.result.findings.iter();
    let findings = findings.map(|finding| (finding.name.clone(), format!("{:.3} {}", finding.value, finding.unit)));
    table(out, "Figures", rows.chain(findings));
}

/// What ran, and where.
pub(crate) fn facts(out: &mut String, report: &Report) {
    table(out, "Settings", report.result.settings.iter().cloned());
    let machine = &report.machine;
    let or_unknown = |value: Option<String>| value.unwrap_or_else(|| "not told".to_owned());
    let rows = [
        ("kernel", machine.kernel.clone()),
        ("processor", or_unknown(machine.cpu.clone())),
        ("cores, of them usable by the client", {
            format!("{}, {}", or_unknown(machine.cores.map(|cores| cores.to_string())), machine.usable_cores)
        }),
        ("memory, MiB", or_unknown(machine.memory_bytes.map(|bytes| (bytes >> 20).to_string()))),
        (
            "load average before",
            or_unknown(machine.load_average.map(|load| format!("{:.2} {:.2} {:.2}", load[0], load[1], load[2]))),
        ),
        ("governor", or_unknown(machine.governor.clone())),
        ("millrace-bench", Report::version().to_owned()),
        ("began, Unix seconds", format!("{:.0}", report.started_seconds())),
    ];
    table(out, "Machine", rows.map(|(name, value)| (name.to_owned(), value)).into_iter());
}

/// Text as HTML.
pub(crate) fn text(text: &str) -> String {
    escaped(text)
}

/// A table with named columns.
pub(crate) fn columns(out: &mut String, head: &[String], rows: &[Vec<String>]) {
    let line = |tag: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    out.push_str("<div class=\"wide\"><table>\n");
    out.push_str(&line("th", head));
    rows.iter().for_each(|row| out.push_str(&line("td", row)));
    out.push_str("</table></div>\n");
}

fn table(out: &mut String, title: &str, rows: impl Iterator<Item = (String, String)>) {
    writeln!(out, "<h2>{title}</h2>\n<div class=\"wide\"><table>").expect(WRITES);
    for (name, value) in rows {
        writeln!(out, "<tr><td>{}</td><td>{}</td></tr>", escaped(&name), escaped(&value)).expect(WRITES);
    }
    out.push_str("</table></div>\n");
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_page_stands_alone_and_states_its_command_with_nothing_unescaped() {
        let page = run_page(&samples::report());
        assert!(page.contains("<pre>millrace-bench produce --label &#39;a &lt;b&gt;&#39;</pre>"), "{page}");
        assert!(page.contains("a &amp; b"), "{page}");
        for foreign in ["http://", "https://", "<script", "url(", "@import", "src="] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        // Three plots of each of two series, and nothing that is no number in them.
        assert_eq!(page.matches("role=\"img\"").count(), 6);
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn errors_come_before_everything() {
        let mut report = samples::report();
        report.result.errors.insert("no <answer>".to_owned(), 3);
        let page = run_page(&report);
        let (before, _) = page.split_once("<h2>").unwrap();
        assert!(before.contains("3 × no &lt;answer&gt;"), "{before}");
    }

    #[test]
    fn runs_share_their_plots_and_differ_in_colour() {
        let report = samples::report();
        let mut out = String::new();
        plots(&mut out, &[("one", &report), ("two", &report)]);
        assert_eq!(out.matches("role=\"img\"").count(), 6);
        assert!(out.contains("two: p99") && out.contains("line s1 d1"), "{out}");
    }
}
