//! What was measured, kept in a file over several runs of the program, and the table that is made of it.

use super::Kind;
use crate::trouble::Trouble;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

/// One run: for each partition that the fault hit, how long it was not served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sample {
    pub(crate) kind: Kind,
    /// Until a produce was accepted.
    pub(crate) produce: Vec<Duration>,
    /// Until a fetch brought a record.
    pub(crate) fetch: Vec<Duration>,
}

/// p50, p99 and the largest, by nearest rank.
fn quantiles(mut times: Vec<Duration>) -> Option<[Duration; 3]> {
    times.sort();
    let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).max(1) - 1).copied();
    Some([at(50)?, at(99)?, at(100)?])
}

/// The table of these runs, one line for each kind of fault.
pub(crate) fn table(samples: &[Sample]) -> String {
    let mut kinds: BTreeMap<Kind, Vec<&Sample>> = BTreeMap::new();
    samples.iter().for_each(|sample| kinds.entry(sample.kind).or_default().push(sample));
    let mut table =
        "fault            runs  partitions   produce, s: p50    p99    max     fetch, s: p50    p99    max\n"
            .to_owned();
    for (kind, runs) in kinds {
        writeln!(table, "{}", row_of(kind, &runs)).expect("a string takes it");
    }
    table
}

/// One run in one line.
pub(crate) fn row(sample: &Sample) -> String {
    row_of(sample.kind, &[sample])
}

fn row_of(kind: Kind, runs: &[&Sample]) -> String {
    let all = |of: fn(&Sample) -> &Vec<Duration>| {
        let times: Vec<Duration> = runs.iter().flat_map(|run| of(run)).copied().collect();
        let text = |time: Duration| format!("{:>7.2}", time.as_secs_f64());
        (times.len(), quantiles(times).map_or_else(String::new, |three| three.map(text).concat()))
    };
    let ((count, produce), (_, fetch)) = (all(|run| &run.produce), all(|run| &run.fetch));
    let line = format!("{:<16}{:>5}{count:>12}        {produce}          {fetch}", kind.name(), runs.len());
    line.trim_end().to_owned()
}

/// Adds a run to a file.
pub(crate) fn append(path: &Path, sample: &Sample) -> Result<(), Trouble> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let ms = |times: &[Duration]| times.iter().map(|time| time.as_millis().to_string()).collect::<Vec<_>>().join(" ");
    writeln!(file, "{};{};{}", sample.kind.name(), ms(&sample.produce), ms(&sample.fetch))?;
    Ok(())
}

/// All runs of a file; none if it is not there yet.
pub(crate) fn read(path: &Path) -> Result<Vec<Sample>, Trouble> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read?,
    };
    let unreadable = |line: &str| Trouble::proof(format!("{}: no run: {line:?}", path.display()));
    text.lines().map(|line| parse(line).ok_or_else(|| unreadable(line))).collect()
}

fn parse(line: &str) -> Option<Sample> {
    let mut parts = line.split(';');
    let kind = Kind::by_name(parts.next()?)?;
    let mut times = || {
        let words = parts.next()?.split_whitespace();
        words.map(|word| word.parse().ok().map(Duration::from_millis)).collect::<Option<Vec<_>>>()
    };
    let (produce, fetch) = (times()?, times()?);
    parts.next().is_none().then_some(Sample { kind, produce, fetch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind, ms: impl Iterator<Item = u64>) -> Sample {
        let times: Vec<Duration> = ms.map(Duration::from_millis).collect();
        Sample { kind, produce: times.clone(), fetch: times }
    }

    #[test]
    fn quantiles_are_of_all_partitions_of_all_runs() {
        let samples = [sample(Kind::Kill, 1..51), sample(Kind::Kill, 51..101), sample(Kind::Drain, 700..701)];
        let of = |samples: &[Sample]| quantiles(samples.iter().flat_map(|run| run.produce.clone()).collect());
        assert_eq!(of(&samples[..2]), Some([50, 99, 100].map(Duration::from_millis)));
        assert_eq!(of(&samples[2..]), Some([700; 3].map(Duration::from_millis)));
        assert_eq!(of(&[]), None);
        let table = table(&samples);
        let rows: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["kill", "-9", "2", "100", "0.05", "0.10", "0.10", "0.05", "0.10", "0.10"]);
        assert_eq!(rows[1], ["SIGTERM", "1", "1", "0.70", "0.70", "0.70", "0.70", "0.70", "0.70"]);
    }

    #[test]
    fn runs_are_read_back_from_the_file_that_they_were_added_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("samples");
        assert_eq!(read(&path).expect("none yet"), []);
        let samples = [sample(Kind::Rolling, 3..9), sample(Kind::Pause, 1..2)];
        samples.iter().for_each(|sample| append(&path, sample).expect("added"));
        assert_eq!(read(&path).expect("two"), samples);
        fs::write(&path, "kill -9;1 x;2\n").expect("written");
        assert!(read(&path).is_err());
    }
}
