//! What an audit can find, and what it sums up.

use crate::ids::{Offset, Seq, TopicPartition, Wid};
use std::collections::BTreeSet;
use std::fmt;

/// Something that is not as it must be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Finding {
    /// Bytes are not what was written: a checksum, a format or a name does not fit.
    Damaged {
        /// Which object.
        key: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Something that must exist does not.
    Missing {
        /// Which object.
        key: String,
        /// Who needs it.
        needed_by: String,
    },
    /// I3: a log has ended, and the fence that says so for ever is not there.
    NoFence {
        /// The log.
        wid: Wid,
        /// Where the fence must stand.
        end: Seq,
    },
    /// The offsets of a partition's log are not dense.
    Gap {
        /// The partition.
        partition: TopicPartition,
        /// Where, and what was expected.
        detail: String,
    },
    /// Two facts that can't both be true.
    Contradiction {
        /// What they are about.
        about: String,
        /// What they say.
        detail: String,
    },
    /// I10: the bucket alone leads to another end than the metadata store.
    Rebuilt {
        /// The partition.
        partition: TopicPartition,
        /// Its end by the metadata store.
        end: Offset,
        /// Its end by the bucket alone, if that knows it at all.
        rebuilt: Option<Offset>,
    },
    /// Nothing refers to it, for longer than the grace.
    Unreferenced {
        /// Which object.
        key: String,
        /// Its size.
        bytes: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Damaged { key, detail } => write!(f, "damaged: {key}: {detail}"),
            Finding::Missing { key, needed_by } => write!(f, "missing: {key}, needed by {needed_by}"),
            Finding::NoFence { wid, end } => write!(f, "missing: the fence at {end} of log {wid}"),
            Finding::Gap { partition, detail } => write!(f, "gap: partition {partition}: {detail}"),
            Finding::Contradiction { about, detail } => write!(f, "contradiction: {about}: {detail}"),
            Finding::Rebuilt { partition, end, rebuilt: Some(rebuilt) } => {
                write!(f, "contradiction: partition {partition} ends at {end}, by the bucket alone at {rebuilt}")
            }
            Finding::Rebuilt { partition, end, rebuilt: None } => {
                write!(f, "contradiction: partition {partition} ends at {end}, the bucket alone does not know it")
            }
            Finding::Unreferenced { key, bytes } => write!(f, "unreferenced: {key} ({bytes} bytes)"),
        }
    }
}

/// What an audit came to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// What is wrong, in order.
    pub findings: BTreeSet<Finding>,
    /// Partitions whose log was followed.
    pub partitions: u64,
    /// Offsets from log start to log end, of all of them.
    pub records: u64,
    /// Bytes of those that no segment holds yet.
    pub record_bytes: u64,
    /// Segments that hold the others.
    pub segments: u64,
    /// Write-ahead logs of which anything exists.
    pub logs: u64,
    /// Objects looked at, fences included.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Objects that nothing refers to, however young.
    pub unreferenced: u64,
    /// Their bytes.
    pub unreferenced_bytes: u64,
    /// Of them, those of segments.
    pub unreferenced_segments: u64,
    /// Of them, write-ahead objects.
    pub unreferenced_wal: u64,
    /// Of them, checkpoints and their chunks.
    pub unreferenced_checkpoints: u64,
}

impl Report {
    /// What a later audit of the same store found again: beside a live process only that counts.
    #[must_use]
    pub fn confirmed_by(&self, later: Report) -> Report {
        let findings = later.findings.intersection(&self.findings).cloned().collect();
        Report { findings, ..later }
    }
}
