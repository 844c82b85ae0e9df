//! What clients of the append-and-poll workload did and were told, in the order in which it happened: kept, written to a file
//! and read back, so that a run can be judged again.
//!
//! 1. An append is in the history before its bytes leave, its outcome after it was read: between two events of which one was
//!    over before the other began, the order of the history is the order of time.
//! 2. A file holds everything that the judgement needs, one event a line; the number in front is milliseconds since the start,
//!    for people.

use crate::trouble::Trouble;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

/// First line of a file.
const HEADER: &str = "millrace-history 1";

/// A value that was appended: whose, and which of that writer's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Value {
    pub(crate) writer: u32,
    pub(crate) number: u64,
}

/// How a writer appends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// With a producer id and sequences, again until it is acknowledged: exactly once.
    Idempotent,
    /// Without, and only once: it may be lost if nobody acknowledged it.
    Plain,
}

/// Neighbouring records of one writer that count up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    pub(crate) offset: i64,
    pub(crate) first: Value,
    pub(crate) count: u32,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// A writer of this kind begins.
    Writer { writer: u32, kind: Kind },
    /// A process is about to append values that count up from `first`; a process does one thing at a time.
    Append { process: u32, partition: u32, first: Value, count: u32 },
    /// The process's append was acknowledged at this offset.
    Appended { process: u32, base: i64 },
    /// Nobody knows what became of the process's append, and nobody will try it again.
    Unknown { process: u32 },
    /// Records of a partition as one fetch from `from` on gave them.
    Polled { process: u32, partition: u32, from: i64, records: Vec<Run> },
    /// A position up to which everything had been read does not exist.
    OutOfRange { process: u32, partition: u32, from: i64 },
    /// A record whose bytes are not those of any value.
    Garbled { process: u32, partition: u32, offset: i64 },
    /// All appends are over and the log ends here; what is polled of it from now on is the final read.
    End { partition: u32, end: i64 },
    /// For people.
    Note(String),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Writer { writer, kind } => {
                write!(f, "writer {writer} {}", if *kind == Kind::Idempotent { "idempotent" } else { "plain" })
            }
            Event::Append { process, partition, first, count } => {
                write!(f, "append {process} {partition} {} {} {count}", first.writer, first.number)
            }
            Event::Appended { process, base } => write!(f, "appended {process} {base}"),
            Event::Unknown { process } => write!(f, "unknown {process}"),
            Event::Polled { process, partition, from, records } => {
                write!(f, "polled {process} {partition} {from}")?;
                let mut runs = records.iter();
                runs.try_for_each(|Run { offset, first, count }| {
                    write!(f, " {offset} {} {} {count}", first.writer, first.number)
                })
            }
            Event::OutOfRange { process, partition, from } => write!(f, "out-of-range {process} {partition} {from}"),
            Event::Garbled { process, partition, offset } => write!(f, "garbled {process} {partition} {offset}"),
            Event::End { partition, end } => write!(f, "end {partition} {end}"),
            Event::Note(text) => write!(f, "note {text}"),
        }
    }
}

impl FromStr for Event {
    type Err = Trouble;

    fn from_str(line: &str) -> Result<Self, Trouble> {
        parse(line).ok_or_else(|| Trouble::proof(format!("no event of a history: {line:?}")))
    }
}

fn parse(line: &str) -> Option<Event> {
    let (what, rest) = line.split_once(' ')?;
    if what == "note" {
        return Some(Event::Note(rest.to_owned()));
    }
    let mut words = rest.split(' ');
    let event = match what {
        "writer" => {
            let writer = next(&mut words)?;
            let kind = match words.next()? {
                "idempotent" => Kind::Idempotent,
                "plain" => Kind::Plain,
                _ => return None,
            };
            Event::Writer { writer, kind }
        }
        "append" => Event::Append {
            process: next(&mut words)?,
            partition: next(&mut words)?,
            first: Value { writer: next(&mut words)?, number: next(&mut words)? },
            count: next(&mut words)?,
        },
        "appended" => Event::Appended { process: next(&mut words)?, base: next(&mut words)? },
        "unknown" => Event::Unknown { process: next(&mut words)? },
        "polled" => {
            let (process, partition, from) = (next(&mut words)?, next(&mut words)?, next(&mut words)?);
            let mut records = Vec::new();
            while let Some(offset) = words.next() {
                let first = Value { writer: next(&mut words)?, number: next(&mut words)? };
                records.push(Run { offset: offset.parse().ok()?, first, count: next(&mut words)? });
            }
            Event::Polled { process, partition, from, records }
        }
        "out-of-range" => {
            Event::OutOfRange { process: next(&mut words)?, partition: next(&mut words)?, from: next(&mut words)? }
        }
        "garbled" => {
            Event::Garbled { process: next(&mut words)?, partition: next(&mut words)?, offset: next(&mut words)? }
        }
        "end" => Event::End { partition: next(&mut words)?, end: next(&mut words)? },
        _ => return None,
    };
    words.next().is_none().then_some(event)
}

fn next<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

/// Joins what one fetch gave.
pub(crate) fn runs(records: impl Iterator<Item = (i64, Value)>) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for (offset, value) in records {
        match found.last_mut() {
            Some(last)
                if last.offset + i64::from(last.count) == offset
                    && last.first.writer == value.writer
                    && last.first.number + u64::from(last.count) == value.number =>
            {
                last.count += 1;
            }
            _ => found.push(Run { offset, first: value, count: 1 }),
        }
    }
    found
}

/// A history in the making, told by many threads.
pub(crate) struct Recorder {
    began: Instant,
    events: Mutex<Vec<(u64, Event)>>,
}

impl Recorder {
    /// Empty, from now on.
    pub(crate) fn new() -> Self {
        Recorder { began: Instant::now(), events: Mutex::new(Vec::new()) }
    }

    fn events(&self) -> MutexGuard<'_, Vec<(u64, Event)>> {
        self.events.lock().expect("a thread that panicked has ended the proof")
    }

    /// Adds an event.
    pub(crate) fn tell(&self, event: Event) {
        let mut events = self.events();
        let at = self.began.elapsed().as_millis() as u64;
        events.push((at, event));
    }

    /// Everything so far.
    pub(crate) fn told(&self) -> Vec<Event> {
        self.events().iter().map(|(_, event)| event.clone()).collect()
    }

    /// Writes everything so far to a file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Trouble> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "{HEADER}")?;
        for (at, event) in self.events().iter() {
            writeln!(file, "{at} {event}")?;
        }
        file.flush()?;
        Ok(())
    }
}

/// Reads what [`Recorder::write`] wrote.
pub(crate) fn read(path: &Path) -> Result<Vec<Event>, Trouble> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    if lines.next().transpose()?.as_deref() != Some(HEADER) {
        return Err(Trouble::proof(format!("{} does not begin with {HEADER:?}", path.display())));
    }
    let event = |line: Result<String, std::io::Error>| {
        let line = line?;
        let (_, event) = line.split_once(' ').unwrap_or(("", &line));
        event.parse()
    };
    lines.map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_back_as_it_was_written() {
        let first = Value { writer: 3, number: 70 };
        let told = vec![
            Event::Writer { writer: 3, kind: Kind::Idempotent },
            Event::Writer { writer: 4, kind: Kind::Plain },
            Event::Append { process: 1, partition: 2, first, count: 2 },
            Event::Appended { process: 1, base: 12 },
            Event::Unknown { process: 1 },
            Event::Polled { process: 5, partition: 2, from: 9, records: Vec::new() },
            Event::Polled { process: 5, partition: 2, from: 12, records: vec![Run { offset: 12, first, count: 2 }] },
            Event::OutOfRange { process: 5, partition: 2, from: 14 },
            Event::Garbled { process: 5, partition: 2, offset: 14 },
            Event::Note("kill 1, then nothing".to_owned()),
            Event::End { partition: 2, end: 14 },
        ];
        let recorder = Recorder::new();
        told.iter().for_each(|event| recorder.tell(event.clone()));
        assert_eq!(recorder.told(), told);
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        recorder.write(file.path()).expect("written");
        assert_eq!(read(file.path()).expect("read"), told);
    }

    #[test]
    fn lines_that_are_no_events_are_refused() {
        for line in ["", "append 1 2 3", "append 1 2 3 4 5 6", "polled 1 2 3 4", "writer 1 other", "bake 1"] {
            assert!(line.parse::<Event>().is_err(), "{line}");
        }
    }

    #[test]
    fn neighbours_that_count_up_are_one_run() {
        let value = |writer, number| Value { writer, number };
        let records = [(5, value(1, 7)), (6, value(1, 8)), (8, value(1, 9)), (9, value(2, 10)), (10, value(2, 12))];
        let found = runs(records.into_iter());
        let short: Vec<_> = found.iter().map(|run| (run.offset, run.first.number, run.count)).collect();
        assert_eq!(short, [(5, 7, 2), (8, 9, 1), (9, 10, 1), (10, 12, 1)]);
    }
}
