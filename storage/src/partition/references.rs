//! Where committed batches lie in write-ahead objects.

use crate::ids::{Offset, Seq, Wid};

/// One entry of one write-ahead object: offsets `[base, last]` of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reference {
    /// The log.
    pub wid: Wid,
    /// The object.
    pub seq: Seq,
    /// First byte within it.
    pub position: u32,
    /// Bytes.
    pub length: u32,
    /// First offset.
    pub base: Offset,
    /// Last offset, inclusive.
    pub last: Offset,
    /// Largest timestamp of its batches, Unix milliseconds; −1 if none.
    pub max_timestamp: i64,
}

/// References in offset order, in immutable chunks shared by pointer plus a short tail: a clone is cheap.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct References {}
