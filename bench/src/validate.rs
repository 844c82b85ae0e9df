//! Proof that what was acknowledged is what is read: every record carries who it is, and its checksum. Pure.
//!
//! 1. A record counts as read once: the first time. Each further time it is doubled.
//! 2. Within a producer and partition records are read in the order in which they were sent; one that comes after a later
//!    one is reordered, and not lost.
//! 3. [`Checker::digest`] is the sum of what every record read well is: whose, where, and with which bytes. Neither the order in
//!    which partitions are read nor who reads which changes it.
//! 4. What is remembered is bounded by [`MOST_MISSING`] for each producer and partition and [`MOST_LISTED`] in all.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes at the start of a value: run, producer, partition, sequence, CRC-32C of all of the value but itself.
pub(crate) const IDENTITY_BYTES: usize = 28;
const CRC_AT: usize = IDENTITY_BYTES - 4;
/// Records of a producer and partition that are remembered as not yet seen.
const MOST_MISSING: usize = 100_000;
/// Failures that are told one by one.
const MOST_LISTED: usize = 100;

/// Who a record is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Identity {
    /// Which run.
    pub run: u64,
    /// Which of its producers.
    pub producer: u32,
    /// To which partition.
    pub partition: u32,
    /// The how manieth of this producer there, from 0.
    pub sequence: u64,
}

impl Identity {
    /// Writes it and the checksum to the start of a value.
    pub(crate) fn write(&self, value: &mut [u8]) {
        value[..8].copy_from_slice(&self.run.to_be_bytes());
        value[8..12].copy_from_slice(&self.producer.to_be_bytes());
        value[12..16].copy_from_slice(&self.partition.to_be_bytes());
        value[16..CRC_AT].copy_from_slice(&self.sequence.to_be_bytes());
        let crc = checksum(value);
        value[CRC_AT..IDENTITY_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads it; `None` unless the checksum is right.
    pub(crate) fn read(value: &[u8]) -> Option<Identity> {
        let head: &[u8; IDENTITY_BYTES] = value.first_chunk()?;
        let four = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let eight = |at: usize| u64::from(four(at)) << 32 | u64::from(four(at + 4));
        let identity = Identity { run: eight(0), producer: four(8), partition: four(12), sequence: eight(16) };
        (checksum(value) == four(CRC_AT)).then_some(identity)
    }
}

fn checksum(value: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&value[..CRC_AT]);
    digest.update(&value[IDENTITY_BYTES..]);
    u32::try_from(digest.finalize()).expect("a checksum of 32 bits")
}

/// What a producer was told about one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    /// Who.
    pub producer: u32,
    /// Where.
    pub partition: u32,
    /// Records that were sent: sequences 0 up to this.
    pub records: u64,
}

#[derive(Debug, Default)]
struct Seen {
    next: u64,
    missing: BTreeSet<u64>,
    /// Left out beyond what is remembered.
    forgotten: u64,
}

/// Checks what is read of one run.
#[derive(Debug)]
pub(crate) struct Checker {
    run: u64,
    seen: BTreeMap<(u32, u32), Seen>,
    /// How often each kind of failure was found.
    pub failures: BTreeMap<&'static str, u64>,
    /// The first of them, one by one.
    pub listed: Vec<String>,
    /// Records read well.
    pub records: u64,
    /// The sum of them.
    pub digest: u64,
}

impl Checker {
    /// Knows the run that it belongs to.
    pub(crate) fn new(run: u64) -> Checker {
        Checker { run, seen: BTreeMap::new(), failures: BTreeMap::new(), listed: Vec::new(), records: 0, digest: 0 }
    }

    fn fail(&mut self, kind: &'static str, times: u64, what: impl FnOnce() -> String) {
        if times == 0 {
            return;
        }
        *self.failures.entry(kind).or_default() += times;
        if self.listed.len() < MOST_LISTED {
            self.listed.push(format!("{kind}: {}", what()));
        }
    }

    /// A value was read at `offset` of `partition`.
    pub(crate) fn read(&mut self, partition: u32, offset: i64, value: &[u8]) {
        let place = || format!("partition {partition} offset {offset}");
        let Some(identity) = Identity::read(value) else {
            return self.fail("records corrupted", 1, place);
        };
        if identity.run != self.run || identity.partition != partition {
            return self.fail("records of others", 1, place);
        }
        let Identity { producer, sequence, .. } = identity;
        let seen = self.seen.entry((producer, partition)).or_default();
        if sequence >= seen.next {
            let left_out = seen.next..sequence;
            let room = (MOST_MISSING - seen.missing.len()) as u64;
            let remembered = (left_out.end - left_out.start).min(room);
            seen.missing.extend(left_out.start..left_out.start + remembered);
            seen.forgotten += left_out.end - left_out.start - remembered;
            seen.next = sequence + 1;
            self.read_well(value);
        } else if seen.missing.remove(&sequence) {
            self.read_well(value);
            self.fail("records reordered", 1, || format!("{} producer {producer} sequence {sequence}", place()));
        } else {
            self.fail("records doubled", 1, || format!("{} producer {producer} sequence {sequence}", place()));
        }
    }

    fn read_well(&mut self, value: &[u8]) {
        self.records += 1;
        // The checksum that the value carries has been found right: it stands for its bytes.
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
        digest.update(&value[..IDENTITY_BYTES]);
        digest.update(&value.len().to_be_bytes());
        self.digest = self.digest.wrapping_add(digest.finalize());
    }

    /// Everything was read that there is, and nobody tells how much was sent: what lies before the last record of each
    /// producer must be there.
    pub(crate) fn finish_as_read(&mut self) {
        let read =
            |(&(producer, partition), seen): (&(u32, u32), &Seen)| Sent { producer, partition, records: seen.next };
        let sent: Vec<Sent> = self.seen.iter().map(read).collect();
        self.finish(&sent);
    }

    /// Everything was read: what was sent and not read is lost.
    pub(crate) fn finish(&mut self, sent: &[Sent]) {
        for Sent { producer, partition, records } in sent {
            let seen = self.seen.remove(&(*producer, *partition)).unwrap_or_default();
            let who = || format!("partition {partition} producer {producer}");
            for sequence in seen.missing.range(..records) {
                self.fail("records lost", 1, || format!("{} sequence {sequence}", who()));
            }
            self.fail("records lost", seen.forgotten, || format!("{} {} more", who(), seen.forgotten));
            let rest = records.saturating_sub(seen.next);
            self.fail("records lost", rest, || format!("{} sequences {} to {}", who(), seen.next, records - 1));
            let never_sent = seen.next.saturating_sub(*records);
            self.fail("records never sent", never_sent, || format!("{} sequences from {records}", who()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SENT: Sent = Sent { producer: 1, partition: 2, records: 10 };

    fn value(sequence: u64) -> Vec<u8> {
        let mut value = vec![7; 40];
        Identity { run: 5, producer: 1, partition: 2, sequence }.write(&mut value);
        value
    }

    /// What is found when these sequences are read and ten were sent.
    fn found(sequences: &[u64]) -> Vec<(&'static str, u64)> {
        let mut checker = Checker::new(5);
        sequences.iter().for_each(|sequence| checker.read(2, 0, &value(*sequence)));
        checker.finish(&[SENT]);
        checker.failures.into_iter().collect()
    }

    #[test]
    fn each_failure_is_told_from_the_others() {
        assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]), []);
        assert_eq!(found(&[0, 1, 2, 4, 5, 6, 7, 8, 9]), [("records lost", 1)]);
        assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6]), [("records lost", 3)]);
        assert_eq!(found(&[]), [("records lost", 10)]);
        assert_eq!(found(&[0, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9]), [("records doubled", 1)]);
        assert_eq!(found(&[0, 2, 1, 3, 4, 5, 6, 7, 8, 9]), [("records reordered", 1)]);
        assert_eq!(found(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), [("records never sent", 1)]);
    }

    #[test]
    fn foreign_and_corrupted_records_are_found_and_listed() {
        let mut checker = Checker::new(6);
        checker.read(2, 3, &value(0));
        assert_eq!(checker.failures["records of others"], 1);
        let mut checker = Checker::new(5);
        checker.read(3, 3, &value(0));
        assert_eq!(checker.failures["records of others"], 1);
        checker.read(2, 4, &value(0)[..20]);
        assert_eq!(
            checker.listed,
            ["records of others: partition 3 offset 3", "records corrupted: partition 2 offset 4"]
        );
    }

    #[test]
    fn the_digest_is_of_what_was_read_and_not_of_who_read_it_when() {
        let digest = |sequences: &[u64]| {
            let mut checker = Checker::new(5);
            sequences.iter().for_each(|sequence| checker.read(2, 0, &value(*sequence)));
            checker.finish_as_read();
            (checker.digest, checker.failures)
        };
        assert_eq!(digest(&[0, 1, 2]).0, digest(&[1, 0, 2]).0);
        assert_ne!(digest(&[0, 1, 2]).0, digest(&[0, 1]).0);
        assert_eq!(digest(&[0]).0.wrapping_add(digest(&[1]).0), digest(&[0, 1]).0);
        assert_eq!(digest(&[0, 1]).1, BTreeMap::new());
        assert_eq!(digest(&[0, 2]).1, BTreeMap::from([("records lost", 1)]));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_found(bit in 0..40 * 8_usize) {
            let mut bytes = value(3);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Identity::read(&bytes), None);
        }

        #[test]
        fn whatever_is_read_lost_and_read_add_up(sequences in prop::collection::vec(0..10_u64, 0..40)) {
            let mut checker = Checker::new(5);
            sequences.iter().for_each(|sequence| checker.read(2, 0, &value(*sequence)));
            checker.finish(&[SENT]);
            let distinct = sequences.iter().collect::<BTreeSet<_>>().len() as u64;
            let failures = |kind| checker.failures.get(kind).copied().unwrap_or(0);
            prop_assert_eq!(checker.records, distinct);
            prop_assert_eq!(failures("records lost"), 10 - distinct);
            prop_assert_eq!(failures("records doubled"), sequences.len() as u64 - distinct);
        }
    }
}
