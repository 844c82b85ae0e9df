//! What was acknowledged and what was read, and whether the log agrees: the judgement of every proof.
//!
//! 1. An acknowledged record stands in the log at the offset that was answered, for ever.
//! 2. No record stands in the log twice, and none that was not sent.
//! 3. An offset has one record: for acknowledgements, for every reader, at every time.
//! 4. In each partition the records of a producer stand in the order in which it sent them.
//!
//! What was read and found right can be settled: it is forgotten, so that a proof may go on for ever.
//!
//! Does no I/O: producers and readers tell it.

use crate::batch::Identity;
use std::collections::BTreeMap;
use std::fmt;

/// Findings kept word for word; more are only counted.
const KEPT_FINDINGS: usize = 20;

/// How often the log was found wrong, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Verdict {
    /// Acknowledged records that are not where they were acknowledged.
    pub(crate) lost: u64,
    /// Records that stand in the log more than once.
    pub(crate) duplicates: u64,
    /// Offsets acknowledged for two different records.
    pub(crate) given_twice: u64,
    /// Records read that later were gone or different.
    pub(crate) vanished: u64,
    /// Anything else: records never sent, wrong order, gaps, answers that no client expects.
    pub(crate) other: u64,
}

impl Verdict {
    /// Whether nothing was found.
    pub(crate) fn is_clean(&self) -> bool {
        *self == Verdict::default()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { lost, duplicates, given_twice, vanished, other } = self;
        write!(
            f,
            "acknowledged lost {lost}, duplicates {duplicates}, offsets given twice {given_twice}, \
             vanished after read {vanished}, other {other}"
        )
    }
}

/// Records acknowledged together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ack {
    /// The first of them; the others count up.
    pub(crate) first: Identity,
    /// How many.
    pub(crate) count: u32,
}

impl Ack {
    fn record(&self, index: i64) -> Identity {
        Identity { number: self.first.number + index as u64, ..self.first }
    }
}

#[derive(Default)]
struct Partition {
    /// By base offset.
    acks: BTreeMap<i64, Ack>,
    /// What live readers saw, from `settled` on without gap.
    read: Vec<Identity>,
    /// Everything below this offset was found right and forgotten.
    settled: i64,
}

impl Partition {
    /// Behind the last record that was acknowledged.
    fn acknowledged_end(&self) -> i64 {
        self.acks.last_key_value().map_or(self.settled, |(base, ack)| base + i64::from(ack.count))
    }
}

/// Set of small numbers.
#[derive(Default)]
struct Numbers(Vec<u64>);

impl Numbers {
    /// Adds one; false if it was there.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        new
    }

    fn len(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }
}

/// Everything known of one topic.
pub(crate) struct Ledger {
    partitions: Vec<Partition>,
    /// Records made by each producer so far.
    sent: Vec<u64>,
    /// Of those, how many were found and settled.
    settled: Vec<u64>,
    acknowledged: u64,
    verdict: Verdict,
    findings: Vec<String>,
}

impl Ledger {
    /// Of a topic with so many partitions, written by so many producers.
    pub(crate) fn new(partitions: usize, producers: usize) -> Self {
        Ledger {
            partitions: (0..partitions).map(|_| Partition::default()).collect(),
            sent: vec![0; producers],
            settled: vec![0; producers],
            acknowledged: 0,
            verdict: Verdict::default(),
            findings: Vec::new(),
        }
    }

    /// Partitions of the topic.
    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// What was found so far.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The first findings, in words.
    pub(crate) fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Records acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// A finding that fits no other kind.
    pub(crate) fn other(&mut self, finding: String) {
        self.verdict.other += 1;
        self.keep(finding);
    }

    fn keep(&mut self, finding: String) {
        if self.findings.len() < KEPT_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// A producer is about to send records up to `number`, excluded.
    pub(crate) fn sent(&mut self, producer: u32, number: u64) {
        self.sent[producer as usize] = number;
    }

    /// The broker acknowledged a batch with this base offset.
    pub(crate) fn acknowledged_at(&mut self, partition: usize, base: i64, ack: Ack) {
        self.acknowledged += u64::from(ack.count);
        let acks = &mut self.partitions[partition].acks;
        let end = base + i64::from(ack.count);
        let before = acks.range(..end).next_back().map(|(&at, &other)| (at, other));
        acks.insert(base, ack);
        if let Some((at, other)) = before
            && at + i64::from(other.count) > base
        {
            self.verdict.given_twice += (end.min(at + i64::from(other.count)) - base.max(at)) as u64;
            self.keep(format!("partition {partition}: {ack:?} at {base}, but {other:?} at {at}"));
        }
    }

    /// A live reader saw this record.
    pub(crate) fn read_at(&mut self, partition: usize, offset: i64, record: Identity) {
        let Partition { read, settled, .. } = &mut self.partitions[partition];
        let place = offset - *settled;
        match usize::try_from(place).ok().and_then(|place| read.get(place)) {
            None if place == read.len() as i64 => read.push(record),
            Some(known) if *known == record => {}
            None => self.other(format!("partition {partition}: a reader skipped to offset {offset}")),
            Some(&known) => {
                self.verdict.vanished += 1;
                self.keep(format!("partition {partition} offset {offset}: read {known:?}, then {record:?}"));
            }
        }
    }

    /// A live reader was told that its position does not exist any more.
    pub(crate) fn read_position_gone(&mut self, partition: usize, offset: i64) {
        self.verdict.vanished += 1;
        self.keep(format!("partition {partition}: offset {offset} is out of range, all below was read"));
    }

    /// Compares the log of all partitions from these offsets on with everything known. To be called while no batch is
    /// under way. `logs[p]` holds the records of partition p from `from[p]` on.
    pub(crate) fn compare(&mut self, from: &[i64], logs: &[Vec<Identity>]) {
        let mut seen: Vec<Numbers> = self.sent.iter().map(|_| Numbers::default()).collect();
        for (partition, log) in logs.iter().enumerate() {
            self.compare_acks(partition, from[partition], log);
            self.compare_reads(partition, from[partition], log);
            self.compare_order(partition, from[partition], log, &mut seen);
        }
        if from.iter().all(|&offset| offset == 0) {
            let (sent, found) = (self.sent.iter().sum::<u64>(), seen.iter().map(Numbers::len).sum::<u64>());
            if sent != found || sent != self.acknowledged {
                let acknowledged = self.acknowledged;
                self.other(format!("{sent} records sent, {acknowledged} acknowledged, {found} in the log"));
            }
        }
    }

    /// Records that were acknowledged and that the reader has not seen.
    pub(crate) fn unread(&self) -> i64 {
        let unread = |each: &Partition| each.acknowledged_end() - each.settled - each.read.len() as i64;
        self.partitions.iter().map(|each| unread(each).max(0)).sum()
    }

    /// Holds what one reader saw since the last time against what was sent and acknowledged, and forgets both. To be called
    /// while no batch is under way and nothing is unread.
    pub(crate) fn settle(&mut self) {
        let mut seen: Vec<Numbers> = self.sent.iter().map(|_| Numbers::default()).collect();
        for partition in 0..self.partitions.len() {
            let from = self.partitions[partition].settled;
            let log = std::mem::take(&mut self.partitions[partition].read);
            self.compare_acks(partition, from, &log);
            self.compare_order(partition, from, &log, &mut seen);
            let known = &mut self.partitions[partition];
            known.acks.clear();
            known.settled = from + log.len() as i64;
        }
        for (producer, found) in seen.iter().enumerate() {
            let (sent, settled) = (self.sent[producer], self.settled[producer]);
            if found.len() != sent - settled {
                self.other(format!("producer {producer}: {} of {} records were read", found.len(), sent - settled));
            }
        }
        self.settled.clone_from(&self.sent);
    }

    fn compare_acks(&mut self, partition: usize, from: i64, log: &[Identity]) {
        let mut lost = 0;
        let mut findings = Vec::new();
        for (&base, ack) in self.partitions[partition].acks.range(from..) {
            for index in 0..i64::from(ack.count) {
                let found = log.get((base + index - from) as usize);
                if found != Some(&ack.record(index)) {
                    lost += 1;
                    let record = ack.record(index);
                    findings.push(format!(
                        "partition {partition} offset {}: {record:?} acknowledged, {found:?} found",
                        base + index
                    ));
                }
            }
        }
        self.verdict.lost += lost;
        findings.into_iter().take(KEPT_FINDINGS).for_each(|finding| self.keep(finding));
    }

    fn compare_reads(&mut self, partition: usize, from: i64, log: &[Identity]) {
        let read = &self.partitions[partition].read;
        let known = read.get(from as usize..).unwrap_or_default();
        let Some(at) = (0..known.len()).find(|&index| log.get(index) != Some(&known[index])) else { return };
        let differing = (at..known.len()).filter(|&index| log.get(index) != Some(&known[index])).count();
        let (was, is) = (known[at], log.get(at).copied());
        self.verdict.vanished += differing as u64;
        self.keep(format!("partition {partition} offset {}: {was:?} was read, {is:?} found", from + at as i64));
    }

    fn compare_order(&mut self, partition: usize, from: i64, log: &[Identity], seen: &mut [Numbers]) {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        for (index, record) in log.iter().enumerate() {
            let at = format_args!("partition {partition} offset {}", from + index as i64).to_string();
            let Some(&sent) = self.sent.get(record.producer as usize) else {
                self.other(format!("{at}: {record:?} of no producer"));
                continue;
            };
            if record.number >= sent {
                self.other(format!("{at}: {record:?} was never sent"));
            } else if record.number < self.settled[record.producer as usize]
                || !seen[record.producer as usize].insert(record.number - self.settled[record.producer as usize])
            {
                self.verdict.duplicates += 1;
                self.keep(format!("{at}: {record:?} stands in the log twice"));
            } else if last.insert(record.producer, record.number).is_some_and(|before| before > record.number) {
                self.other(format!("{at}: {record:?} after a later one of its producer"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: u64) -> Identity {
        Identity { producer: 0, number }
    }

    /// Ten records sent, acknowledged in two batches and read.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(1, 1);
        ledger.sent(0, 10);
        ledger.acknowledged_at(0, 0, Ack { first: record(0), count: 5 });
        ledger.acknowledged_at(0, 5, Ack { first: record(5), count: 5 });
        (0..10).for_each(|number| ledger.read_at(0, number as i64, record(number)));
        ledger
    }

    fn verdict_of(numbers: impl Iterator<Item = u64>) -> Verdict {
        let mut ledger = ledger();
        ledger.compare(&[0], &[numbers.map(record).collect()]);
        assert_eq!(ledger.verdict().is_clean(), ledger.findings().is_empty());
        ledger.verdict()
    }

    #[test]
    fn a_log_that_holds_what_was_said_is_clean() {
        assert!(verdict_of(0..10).is_clean());
    }

    #[test]
    fn a_missing_tail_is_lost_and_vanished() {
        let verdict = verdict_of(0..8);
        assert_eq!((verdict.lost, verdict.vanished, verdict.duplicates), (2, 2, 0));
    }

    #[test]
    fn a_record_that_stands_twice_is_a_duplicate() {
        let verdict = verdict_of((0..10).chain([9]));
        assert_eq!((verdict.lost, verdict.vanished, verdict.duplicates), (0, 0, 1));
    }

    #[test]
    fn records_never_sent_and_in_wrong_order_are_found() {
        assert_eq!(verdict_of((0..10).chain([10])).other, 1);
        let mut ledger = Ledger::new(1, 1);
        ledger.sent(0, 2);
        ledger.acknowledged_at(0, 0, Ack { first: record(1), count: 1 });
        ledger.acknowledged_at(0, 1, Ack { first: record(0), count: 1 });
        ledger.compare(&[0], &[vec![record(1), record(0)]]);
        assert_eq!(ledger.verdict().other, 1);
    }

    #[test]
    fn an_offset_acknowledged_for_two_records_is_given_twice() {
        let mut ledger = ledger();
        ledger.acknowledged_at(0, 4, Ack { first: record(20), count: 3 });
        assert_eq!(ledger.verdict().given_twice, 2);
    }

    #[test]
    fn a_reader_that_sees_another_record_at_an_offset_finds_it_vanished() {
        let mut ledger = ledger();
        ledger.read_at(0, 3, record(3));
        assert!(ledger.verdict().is_clean());
        ledger.read_at(0, 3, record(8));
        assert_eq!(ledger.verdict().vanished, 1);
    }

    #[test]
    fn what_is_settled_is_forgotten_and_must_not_come_again() {
        let mut ledger = ledger();
        assert_eq!(ledger.unread(), 0);
        ledger.settle();
        assert!(ledger.verdict().is_clean());
        ledger.sent(0, 12);
        ledger.acknowledged_at(0, 10, Ack { first: record(10), count: 2 });
        assert_eq!(ledger.unread(), 2);
        ledger.read_at(0, 10, record(10));
        ledger.read_at(0, 11, record(11));
        ledger.settle();
        assert!(ledger.verdict().is_clean(), "{:?}", ledger.findings());
        ledger.read_at(0, 12, record(3));
        ledger.settle();
        assert_eq!(ledger.verdict().duplicates, 1);
    }

    #[test]
    fn what_is_lost_or_left_out_is_found_when_the_rest_is_settled() {
        let mut ledger = Ledger::new(1, 1);
        ledger.sent(0, 3);
        ledger.acknowledged_at(0, 0, Ack { first: record(0), count: 3 });
        ledger.read_at(0, 0, record(0));
        ledger.read_at(0, 1, record(2));
        ledger.read_at(0, 2, record(2));
        ledger.settle();
        let verdict = ledger.verdict();
        assert_eq!((verdict.lost, verdict.duplicates, verdict.other), (1, 1, 1), "{:?}", ledger.findings());
    }

    #[test]
    fn a_later_part_of_the_log_is_compared_with_what_is_known_of_it() {
        let mut ledger = ledger();
        ledger.compare(&[5], &[(5..10).map(record).collect()]);
        assert!(ledger.verdict().is_clean());
        ledger.compare(&[5], &[(5..9).map(record).collect()]);
        assert_eq!((ledger.verdict().lost, ledger.verdict().vanished), (1, 1));
    }
}
