//! Judges a history of appends and polls from the history alone.
//!
//! 1. What was acknowledged stands in the log at the offset that was answered, and is there in the final read.
//! 2. A value stands in a partition's log once at most; one of an idempotent writer that was acknowledged, exactly once.
//! 3. An offset has one value: for acknowledgements, for every poll, at every time.
//! 4. An append stands behind everything that was acknowledged or polled of its partition before it began.
//! 5. The values of an idempotent writer stand in each partition in the order of their numbers.
//! 6. A poll gives neighbouring offsets from its position on, and nothing that was not being appended by then.
//! 7. What was polled once is there in the final read.
//!
//! A poll may be behind: another process may have told more already.

use crate::history::{self, Event, Kind, Run, Value};
use crate::trouble::Trouble;
use clap::Args;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Findings kept word for word; more are only counted.
const KEPT_FINDINGS: usize = 20;

/// Which history to judge.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// A file that `faults --history` wrote.
    file: PathBuf,
}

/// Judges a file.
pub(crate) fn run(options: &Options) -> Result<(), Trouble> {
    let judgement = check(&history::read(&options.file)?);
    println!("check: {judgement}");
    judgement.outcome()
}

/// What can be wrong with a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Wrong {
    /// Acknowledged, and not in the final read where it was acknowledged.
    Lost,
    /// A value at two offsets.
    Doubled,
    /// Before something that was there when it began, or before an earlier one of its idempotent writer.
    Reordered,
    /// Two values at one offset.
    TwoValues,
    /// Polled, and not appended by anybody before.
    Phantom,
    /// A poll that leaves offsets out.
    Gap,
    /// Polled once, and not in the final read.
    Vanished,
    /// No history: an outcome of nothing, a partition that was never read to its end.
    Malformed,
}

/// What a history showed.
#[derive(Default, Debug)]
pub(crate) struct Judgement {
    appends: u64,
    acknowledged: u64,
    unknown: u64,
    polls: u64,
    polled: u64,
    wrong: BTreeMap<Wrong, u64>,
    findings: Vec<String>,
}

impl Judgement {
    /// Success, or everything found.
    pub(crate) fn outcome(&self) -> Result<(), Trouble> {
        if self.wrong.is_empty() {
            return Ok(());
        }
        Err(Trouble::proof(format!("the history is not one of a log:\n{}", self.findings.join("\n"))))
    }

    /// Values that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    fn found(&mut self, wrong: Wrong, text: String) {
        *self.wrong.entry(wrong).or_default() += 1;
        if self.findings.len() < KEPT_FINDINGS {
            self.findings.push(format!("{wrong:?}: {text}"));
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Judgement { appends, acknowledged, unknown, polls, polled, wrong, .. } = self;
        write!(
            f,
            "{appends} appends, {acknowledged} values acknowledged, {unknown} appends of unknown outcome, {polls} polls of \
             {polled} records; "
        )?;
        let count = |kind| wrong.get(&kind).copied().unwrap_or(0);
        write!(
            f,
            "lost {}, doubled {}, reordered {}, two values at an offset {}, phantom {}, gaps {}, vanished {}, malformed {}",
            count(Wrong::Lost),
            count(Wrong::Doubled),
            count(Wrong::Reordered),
            count(Wrong::TwoValues),
            count(Wrong::Phantom),
            count(Wrong::Gap),
            count(Wrong::Vanished),
            count(Wrong::Malformed),
        )
    }
}

/// Judges a history.
pub(crate) fn check(history: &[Event]) -> Judgement {
    let mut checker = Checker::default();
    history.iter().for_each(|event| checker.take(event));
    checker.finish()
}

/// An append that began.
#[derive(Clone, Copy)]
struct Begun {
    partition: u32,
    first: Value,
    count: u32,
    /// Everything below was there when it began.
    floor: i64,
}

/// What is known of an offset.
#[derive(Clone, Copy)]
struct Known {
    value: Value,
    acknowledged: bool,
    /// By the final read.
    finally: bool,
}

#[derive(Default)]
struct Partition {
    known: BTreeMap<i64, Known>,
    /// Behind everything that was acknowledged or polled.
    floor: i64,
    end: Option<i64>,
}

#[derive(Default)]
struct Checker {
    judgement: Judgement,
    kinds: BTreeMap<u32, Kind>,
    /// By process.
    pending: BTreeMap<u32, Begun>,
    /// By the first value.
    begun: BTreeMap<Value, Begun>,
    partitions: BTreeMap<u32, Partition>,
    /// Where each value was seen or acknowledged first.
    places: BTreeMap<Value, i64>,
}

impl Checker {
    fn take(&mut self, event: &Event) {
        match event {
            Event::Writer { writer, kind } => {
                self.kinds.insert(*writer, *kind);
            }
            Event::Append { process, partition, first, count } => self.begin(*process, *partition, *first, *count),
            Event::Appended { process, base } => self.acknowledge(*process, *base),
            Event::Unknown { process } => {
                self.judgement.unknown += 1;
                if self.pending.remove(process).is_none() {
                    self.malformed(format!("process {process} did not append"));
                }
            }
            Event::Polled { partition, from, records, .. } => self.poll(*partition, *from, records),
            Event::OutOfRange { process, partition, from } => {
                let text = format!("process {process}: partition {partition} has no offset {from} any more");
                self.judgement.found(Wrong::Vanished, text);
            }
            Event::Garbled { partition, offset, .. } => {
                let text = format!("partition {partition} offset {offset}: bytes of no value");
                self.judgement.found(Wrong::Phantom, text);
            }
            Event::End { partition, end } => self.partitions.entry(*partition).or_default().end = Some(*end),
            Event::Note(_) => {}
        }
    }

    fn malformed(&mut self, text: String) {
        self.judgement.found(Wrong::Malformed, text);
    }

    fn begin(&mut self, process: u32, partition: u32, first: Value, count: u32) {
        self.judgement.appends += 1;
        let floor = self.partitions.entry(partition).or_default().floor;
        let begun = Begun { partition, first, count, floor };
        let known_before = self.append_of(last_of(first, count)).is_some() || self.append_of(first).is_some();
        if count == 0 || known_before || !self.kinds.contains_key(&first.writer) {
            self.malformed(format!("{first:?}: appended twice, empty, or of no writer"));
        }
        if self.pending.insert(process, begun).is_some() {
            self.malformed(format!("process {process} does two things at once"));
        }
        self.begun.insert(first, begun);
    }

    /// The append that a value is of, if it has begun.
    fn append_of(&self, value: Value) -> Option<Begun> {
        let (_, begun) = self.begun.range(..=value).next_back()?;
        let is_of = begun.first.writer == value.writer && value.number - begun.first.number < u64::from(begun.count);
        is_of.then_some(*begun)
    }

    fn acknowledge(&mut self, process: u32, base: i64) {
        let Some(begun) = self.pending.remove(&process) else {
            return self.malformed(format!("process {process} did not append"));
        };
        self.judgement.acknowledged += u64::from(begun.count);
        if base < begun.floor {
            let text = format!(
                "partition {} offset {base}: {:?}, which began when all below {} was there",
                begun.partition, begun.first, begun.floor
            );
            self.judgement.found(Wrong::Reordered, text);
        }
        for index in 0..begun.count {
            let value = Value { number: begun.first.number + u64::from(index), ..begun.first };
            self.stands(begun.partition, base + i64::from(index), value, true);
        }
        let end = base + i64::from(begun.count);
        let partition = self.partitions.entry(begun.partition).or_default();
        partition.floor = partition.floor.max(end);
    }

    fn poll(&mut self, partition: u32, from: i64, records: &[Run]) {
        self.judgement.polls += 1;
        let mut next = from;
        for run in records {
            if run.offset != next {
                let text = format!("partition {partition}: offset {} follows where {next} should", run.offset);
                self.judgement.found(Wrong::Gap, text);
            }
            for index in 0..run.count {
                let value = Value { number: run.first.number + u64::from(index), ..run.first };
                self.judgement.polled += 1;
                if self.append_of(value).is_none_or(|begun| begun.partition != partition) {
                    let text = format!("partition {partition} offset {}: {value:?} was not appended", run.offset);
                    self.judgement.found(Wrong::Phantom, text);
                }
                self.stands(partition, run.offset + i64::from(index), value, false);
            }
            next = run.offset + i64::from(run.count);
        }
        let partition = self.partitions.entry(partition).or_default();
        partition.floor = partition.floor.max(next);
    }

    /// Somebody was told that this value stands at this offset.
    fn stands(&mut self, partition: u32, offset: i64, value: Value, acknowledged: bool) {
        let of = self.partitions.entry(partition).or_default();
        let finally = of.end.is_some() && !acknowledged;
        let known = of.known.entry(offset).or_insert(Known { value, acknowledged, finally });
        known.acknowledged |= acknowledged;
        known.finally |= finally;
        if known.value != value {
            let text = format!("partition {partition} offset {offset}: {:?} and {value:?}", known.value);
            self.judgement.found(Wrong::TwoValues, text);
        }
        let place = *self.places.entry(value).or_insert(offset);
        if place != offset {
            let text = format!("partition {partition}: {value:?} at {place} and at {offset}");
            self.judgement.found(Wrong::Doubled, text);
        }
    }

    fn finish(mut self) -> Judgement {
        for (index, partition) in std::mem::take(&mut self.partitions) {
            self.finish_partition(index, &partition);
        }
        self.judgement
    }

    fn finish_partition(&mut self, index: u32, partition: &Partition) {
        let Some(end) = partition.end else {
            return self.malformed(format!("partition {index} was not read to its end"));
        };
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        let mut next = 0;
        for (&offset, known) in &partition.known {
            let Known { value, acknowledged, finally } = *known;
            if !finally || offset >= end {
                let wrong = if acknowledged { Wrong::Lost } else { Wrong::Vanished };
                let text = format!("partition {index} offset {offset}: {value:?} is not there at the end ({end})");
                self.judgement.found(wrong, text);
            }
            if offset > next && next < end {
                self.judgement
                    .found(Wrong::Gap, format!("partition {index}: nothing was read from {next} to {offset}"));
            }
            next = offset + 1;
            let before = last.insert(value.writer, value.number);
            let is_idempotent = self.kinds.get(&value.writer) == Some(&Kind::Idempotent);
            if is_idempotent && before.is_some_and(|before| before > value.number) {
                let text = format!("partition {index} offset {offset}: {value:?} after a later one of its writer");
                self.judgement.found(Wrong::Reordered, text);
            }
        }
        if next < end {
            self.judgement
                .found(Wrong::Gap, format!("partition {index}: nothing was read from {next} to the end ({end})"));
        }
    }
}

fn last_of(first: Value, count: u32) -> Value {
    Value { number: first.number + u64::from(count.max(1)) - 1, ..first }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
