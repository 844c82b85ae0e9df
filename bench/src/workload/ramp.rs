//! The highest rate that holds a given p99: doubled until it does not, then bisected.

use super::{RunError, produce};
use crate::arguments::Ramp;
use crate::result::{Finding, Progress, RunResult};
use std::time::Duration;

/// Requests a second of the first step.
const FIRST_RATE: u64 = 1_000;
/// No rate is higher.
const MOST_RATE: u64 = 10_000_000;
/// Steps at most.
const MOST_STEPS: u32 = 40;
/// Answers are awaited after a step for this long and the p99 asked for.
const LEAST_DRAIN: Duration = Duration::from_secs(1);
/// The search ends when the lowest rate that fails is at most this much above the highest that holds, in hundredths.
const PRECISION: u64 = 5;
/// Of the requests asked for, how many in a hundred must be answered within the window.
const ANSWERED: u64 = 98;

/// What is known so far.
#[derive(Debug, Default)]
struct Search {
    /// The highest rate that holds.
    holds: Option<u64>,
    /// The lowest one that does not.
    fails: Option<u64>,
}

impl Search {
    fn tried(&mut self, rate: u64, held: bool) {
        if held {
            self.holds = self.holds.max(Some(rate));
        } else {
            self.fails = Some(self.fails.map_or(rate, |fails| fails.min(rate)));
        }
    }

    /// The next rate to try; `None` when the answer is known.
    fn next(&self, first: u64) -> Option<u64> {
        match (self.holds, self.fails) {
            (None, None) => Some(first),
            (Some(holds), None) => (holds < MOST_RATE).then(|| (holds * 2).min(MOST_RATE)),
            (None, Some(fails)) => (fails > 1).then_some(fails / 2),
            (Some(holds), Some(fails)) => {
                let middle = holds.midpoint(fails);
                (fails * 100 > holds * (100 + PRECISION) && middle > holds).then_some(middle)
            }
        }
    }
}

/// Runs it: the result is that of the highest rate that held, with a finding for each step.
pub(crate) fn run(name: &str, asked: &Ramp, show: &mut dyn FnMut(&Progress)) -> Result<RunResult, RunError> {
    let mut load = asked.load.clone();
    let first = load.rate.unwrap_or(FIRST_RATE);
    // What piled up beyond what the p99 allows decides nothing any more.
    let drain = Duration::from_secs_f64(asked.p99_ms / 1e3) + LEAST_DRAIN;
    let (mut search, mut best, mut steps) = (Search::default(), None, Vec::new());
    for step in 1..=MOST_STEPS {
        let Some(rate) = search.next(first) else { break };
        load.rate = Some(rate);
        let result = produce::run(name, &load, Some(drain), show)?;
        let total = &result.series[0].total;
        let p99_ms = total.latency.value_at_quantile(0.99) as f64 / 1e6;
        let answered = total.requests * 100 >= rate * load.seconds * ANSWERED;
        let held = answered && p99_ms <= asked.p99_ms && result.errors.is_empty();
        let verdict = if held { "holds" } else { "does not hold" };
        eprintln!("step {step}: {rate} requests/s, {} answered, p99 {p99_ms:.3} ms: {verdict}", total.requests);
        steps.push(Finding { name: format!("p99 at {rate}/s ({verdict})"), value: p99_ms, unit: "ms" });
        search.tried(rate, held);
        if held && search.holds == Some(rate) {
            best = Some(result);
        }
    }
    let mut result = best.ok_or(RunError::Settings("no rate holds this p99"))?;
    let value = search.holds.expect("the best step held") as f64;
    result.settings.push(("p99-ms".to_owned(), asked.p99_ms.to_string()));
    result.findings.push(Finding { name: "highest rate".to_owned(), value, unit: "requests/s" });
    result.findings.extend(steps);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_highest_rate_is_found_within_its_precision(first in 1..=MOST_RATE, highest in 1..MOST_RATE) {
            let mut search = Search::default();
            let mut steps = 0;
            while let Some(rate) = search.next(first) {
                search.tried(rate, rate <= highest);
                steps += 1;
            }
            let found = search.holds.unwrap();
            prop_assert!(found <= highest && steps <= MOST_STEPS);
            prop_assert!(found + 1 + found * PRECISION / 100 >= highest, "{found} for {highest}");
        }
    }

    #[test]
    fn a_search_ends_when_nothing_or_everything_holds() {
        for held in [false, true] {
            let mut search = Search::default();
            while let Some(rate) = search.next(1_000) {
                search.tried(rate, held);
            }
            assert_eq!(search.holds, held.then_some(MOST_RATE));
        }
    }
}
