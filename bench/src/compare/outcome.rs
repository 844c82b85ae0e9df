//! What came of a comparison, as a table, JSON and HTML.

use super::Compare;
use super::ratio::{Ratio, median, ratio};
use crate::report::figures::{Better, Figure, figures};
use crate::report::{Report, command_line, html, json};
use serde_json::{Value, json};
use std::fmt::{self, Write as _};

/// Name and version of the JSON form.
const FORMAT: &str = "millrace-bench compare 1";

/// One run of one side.
pub(super) struct Run {
    /// Which side.
    pub side: usize,
    /// Whether it is past the warm-up.
    pub counts: bool,
    /// What it gave.
    pub report: Report,
}

/// All runs, in the order in which they ran.
pub(super) struct Outcome {
    title: String,
    names: Vec<String>,
    rounds: u32,
    warm_up_rounds: u32,
    runs: Vec<Run>,
}

/// One figure over all rounds.
struct Row {
    name: String,
    unit: &'static str,
    better: Better,
    /// By side, the values of its rounds.
    values: Vec<Vec<f64>>,
    /// By side but the first, to the first.
    ratios: Vec<Option<Ratio>>,
}

impl Outcome {
    /// Nothing ran yet.
    pub(super) fn new(compare: &Compare, label: Option<String>) -> Outcome {
        let names: Vec<String> = compare.sides.iter().map(|side| side.name.clone()).collect();
        Outcome {
            title: label.unwrap_or_else(|| format!("{}: {}", names.join(" / "), compare.workload.join(" "))),
            names,
            rounds: compare.rounds,
            warm_up_rounds: compare.warm_up_rounds,
            runs: Vec::new(),
        }
    }

    /// A run has ended.
    pub(super) fn add(&mut self, run: Run) {
        self.runs.push(run);
    }

    /// Errors of all runs.
    pub(super) fn errors(&self) -> u64 {
        self.runs.iter().flat_map(|run| run.report.result.errors.values()).sum()
    }

    /// The reports of a side that count, by round.
    fn reports(&self, side: usize) -> impl Iterator<Item = &Report> {
        self.runs.iter().filter(move |run| run.counts && run.side == side).map(|run| &run.report)
    }

    /// The figures that every run of some side has, as the first of its runs orders them.
    fn rows(&self) -> Vec<Row> {
        let all: Vec<Vec<Vec<Figure>>> =
            (0..self.names.len()).map(|side| self.reports(side).map(figures).collect()).collect();
        let mut known: Vec<&Figure> = Vec::new();
        for figure in all.iter().filter_map(|rounds| rounds.first()).flatten() {
            if !known.iter().any(|other| other.name == figure.name) {
                known.push(figure);
            }
        }
        let row = |figure: &&Figure| {
            let value = |round: &Vec<Figure>| round.iter().find(|other| other.name == figure.name).map(|f| f.value);
            // A side that lacks it in one round has no series to pair.
            let of = |rounds: &Vec<Vec<Figure>>| rounds.iter().map(value).collect::<Option<Vec<f64>>>();
            let values: Vec<Vec<f64>> = all.iter().map(|rounds| of(rounds).unwrap_or_default()).collect();
            let to_first =
                |side: &Vec<f64>| ratio(&values[0].iter().copied().zip(side.iter().copied()).collect::<Vec<_>>());
            let ratios = values[1..].iter().map(to_first).collect();
            Row { name: figure.name.clone(), unit: figure.unit, better: figure.better, values, ratios }
        };
        known.iter().map(row).collect()
    }

    fn explained(&self) -> String {
        let confidence = self.rows().iter().flat_map(|row| &row.ratios).flatten().map(|ratio| ratio.confidence).next();
        format!(
            "{} rounds after {} of warm-up, in turn. Values are medians. Ratios are to {}, of the runs of one round: their \
             median, [lowest and highest], and the interval of the median by the sign test ({:.1} % confidence).",
            self.rounds,
            self.warm_up_rounds,
            self.names[0],
            confidence.unwrap_or(0.0) * 100.0
        )
    }

    /// Names of the columns, and rows of text.
    fn table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut head = vec!["figure".to_owned()];
        head.extend(self.names.iter().cloned());
        head.extend(self.names[1..].iter().map(|name| format!("{name} / {}", self.names[0])));
        let text = |row: Row| {
            let mut cells = vec![if row.unit.is_empty() { row.name } else { format!("{}, {}", row.name, row.unit) }];
            cells.extend(row.values.iter().map(|values| median(values).map_or("-".to_owned(), number)));
            cells.extend(row.ratios.iter().map(|ratio| ratio.map_or("-".to_owned(), show)));
            cells
        };
        (head, self.rows().into_iter().map(text).collect())
    }

    /// All that was measured.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            let sides = row.values.iter().zip(&self.names);
            let sides = sides.map(|(values, name)| json!({ "name": name, "median": median(values), "rounds": values }));
            let ratios = row.ratios.iter().zip(&self.names[1..]);
            let ratios = ratios.map(|(ratio, name)| json!({ "name": name, "to": self.names[0], "ratio": ratio }));
            json!({
                "name": row.name,
                "unit": row.unit,
                "better": row.better,
                "sides": sides.collect::<Vec<_>>(),
                "ratios": ratios.collect::<Vec<_>>(),
            })
        };
        let run = |run: &Run| json!({ "counts": run.counts, "report": json::report(&run.report) });
        json!({
            "format": FORMAT,
            "command": command_line(),
            "title": self.title,
            "rounds": self.rounds,
            "warm_up_rounds": self.warm_up_rounds,
            "errors": self.errors(),
            "figures": self.rows().iter().map(row).collect::<Vec<_>>(),
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
        })
    }

    /// The page: the table, then the last round of each side in the same plots.
    pub(super) fn page(&self) -> String {
        let mut body = String::new();
        self.runs.iter().for_each(|run| html::errors(&mut body, &run.report));
        writeln!(body, "<p>{}</p>", html::text(&self.explained())).expect("writing to a string");
        let (head, rows) = self.table();
        html::columns(&mut body, &head, &rows);
        let last: Vec<(&str, &Report)> = (0..self.names.len())
            .filter_map(|side| Some((self.names[side].as_str(), self.reports(side).last()?)))
            .collect();
        body.push_str("<p>Below, the last round of each.</p>\n");
        html::plots(&mut body, &last);
        if let Some((_, report)) = last.first() {
            html::facts(&mut body, report);
        }
        html::page(&self.title, &command_line(), &body)
    }
}

/// With about three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

fn show(ratio: Ratio) -> String {
    let Ratio { median, least, most, low, high, .. } = ratio;
    format!("{median:.2} [{least:.2} {most:.2}] ({low:.2} to {high:.2})")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (head, rows) = self.table();
        let width =
            |column: usize| rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in [&head].into_iter().chain(&rows) {
            write!(f, "{:<1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "{}", self.explained())?;
        for run in &self.runs {
            for (what, times) in &run.report.result.errors {
                writeln!(f, "errors      {}: {times} × {what}", self.names[run.side])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    fn outcome() -> Outcome {
        let names = ["a", "b"].map(str::to_owned).to_vec();
        let mut outcome = Outcome { title: "t".to_owned(), names, rounds: 2, warm_up_rounds: 1, runs: Vec::new() };
        for round in 0..3 {
            for side in 0..2 {
                let mut report = samples::report();
                report.result.series.truncate(1);
                // The warm-up, of which nothing may show, is far off.
                report.result.series[0].total.bytes *= if round == 0 { 1_000 } else { 1 + side as u64 };
                outcome.add(Run { side, counts: round > 0, report });
            }
        }
        outcome
    }

    #[test]
    fn each_figure_has_a_median_for_each_side_and_the_ratio_to_the_first() {
        let text = outcome().to_string();
        let line = text.lines().find(|line| line.starts_with("throughput, MiB/s")).unwrap();
        let words: Vec<&str> = line.split_whitespace().skip(2).collect();
        assert_eq!(words, ["64.00", "128", "2.00", "[2.00", "2.00]", "(2.00", "to", "2.00)"], "{text}");
        assert!(text.contains("2 rounds after 1 of warm-up"), "{text}");
        assert!(text.contains("(50.0 % confidence)"), "{text}");
    }

    #[test]
    fn json_holds_every_run_and_says_which_count() {
        let value = outcome().json();
        assert_eq!(value["runs"].as_array().unwrap().len(), 6);
        assert_eq!((&value["runs"][0]["counts"], &value["runs"][2]["counts"]), (&false.into(), &true.into()));
        let throughput = &value["figures"][0];
        assert_eq!(throughput["ratios"][0]["ratio"]["median"], 2.0);
        assert_eq!(throughput["sides"][1]["rounds"], json!([128.0, 128.0]));
    }

    #[test]
    fn a_figure_that_one_side_lacks_has_no_ratio() {
        let mut outcome = outcome();
        outcome.runs.iter_mut().filter(|run| run.side == 1).for_each(|run| run.report.result.broker = None);
        let text = outcome.to_string();
        let line = text.lines().find(|line| line.starts_with("broker CPU per GiB")).unwrap();
        assert!(line.trim_end().ends_with('-'), "{text}");
    }

    #[test]
    fn errors_of_the_warm_up_are_told_too_and_the_page_shows_both_sides() {
        let mut outcome = outcome();
        outcome.runs[0].report.result.errors.insert("no answer".to_owned(), 3);
        assert_eq!(outcome.errors(), 3);
        assert!(outcome.to_string().ends_with("errors      a: 3 × no answer\n"));
        let page = outcome.page();
        assert!(page.contains("a: MiB/s") && page.contains("b: MiB/s") && page.contains("<th>b / a</th>"), "{page}");
    }
}
