//! Who writes how much when: partitions with steady rates, and some that burst.

/// Bytes of a record with its share of a batch.
pub(crate) const RECORD_BYTES: u64 = 1 << 10;
/// What producers gather for a request where their rate allows it.
const REQUEST_BYTES: u64 = 64 << 10;
/// A stream's requests of one partition in a second at most: what a producer's own linger leaves.
const REQUESTS_PER_SECOND: u64 = 100;
/// Partitions of every mixture.
pub(crate) const PARTITIONS: u32 = 1000;

/// How one partition is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rate {
    /// Never.
    Empty,
    /// One record in so many seconds.
    Every(u64),
    /// So many records in each second.
    Records(u64),
    /// So many records in each second of ten minutes of each day.
    Burst(u64),
}

/// A thousand partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mixture {
    /// All kinds, one of them a stream of 100 MiB/s.
    All,
    /// All kinds but streams.
    Slow,
    /// One record a second each.
    Seconds,
    /// One record a minute each.
    Minutes,
    /// One record an hour each.
    Hours,
}

impl Mixture {
    /// In the order of the report.
    pub(crate) const ALL: [Mixture; 5] =
        [Mixture::All, Mixture::Slow, Mixture::Seconds, Mixture::Minutes, Mixture::Hours];

    /// A heading.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mixture::All => "Everything at once",
            Mixture::Slow => "The same without what exceeds 100 KiB/s",
            Mixture::Seconds => "A thousand partitions with one record a second each",
            Mixture::Minutes => "A thousand partitions with one record a minute each",
            Mixture::Hours => "A thousand partitions with one record an hour each",
        }
    }

    /// The rate of a partition.
    pub(crate) fn rate(self, index: u32) -> Rate {
        match (self, index) {
            (Mixture::Seconds, _) => Rate::Every(1),
            (Mixture::Minutes, _) => Rate::Every(60),
            (Mixture::Hours, _) => Rate::Every(3600),
            (_, 0..300) => Rate::Every(3600),
            (_, 300..600) => Rate::Every(60),
            (_, 600..800) => Rate::Every(1),
            (_, 800..850) => Rate::Records(20),
            (_, 850..870) => Rate::Records(100),
            (Mixture::All, 870..880) => Rate::Records(1 << 10),
            (Mixture::All, 880) => Rate::Records(100 << 10),
            (Mixture::All, 881..900) => Rate::Burst(10 << 10),
            _ => Rate::Empty,
        }
    }
}

/// What one partition got in a span of time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Arrived {
    /// Records.
    pub(crate) records: u64,
    /// Produce requests that held one of them.
    pub(crate) requests: u64,
    /// Quarters of a second in which one came.
    pub(crate) lingers: u64,
}

impl Rate {
    /// What comes to partition `index` from second `from` up to `to`.
    pub(crate) fn arrived(self, index: u32, from: u64, to: u64) -> Arrived {
        let steady = |per_second: u64, seconds: u64| {
            let records = per_second * seconds;
            let full = (records * RECORD_BYTES).div_ceil(REQUEST_BYTES);
            let requests = full.max(records.min(seconds * REQUESTS_PER_SECOND));
            Arrived { records, requests, lingers: records.min(4 * seconds) }
        };
        match self {
            Rate::Empty => Arrived::default(),
            Rate::Every(seconds) => {
                // Each partition at a second of its own.
                let phase = u64::from(index) * 7919 % seconds;
                let count = |until: u64| (until + seconds - 1 - phase) / seconds;
                let records = count(to) - count(from);
                Arrived { records, requests: records, lingers: records }
            }
            Rate::Records(per_second) => steady(per_second, to - from),
            Rate::Burst(per_second) => {
                let start = u64::from(index) * 7919 % 85_800;
                let of_day = |second: u64| (second % 86_400).clamp(start, start + 600) - start;
                let seconds = if to.is_multiple_of(86_400) { 600 - of_day(from) } else { of_day(to) - of_day(from) };
                steady(per_second, seconds)
            }
        }
    }
}
