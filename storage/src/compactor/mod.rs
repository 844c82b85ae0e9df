//! Carries out what [`crate::compaction`] plans (PROTOCOL.md section 4, COMPACT): writes segments under unique names, then
//! commits the manifest that names them. Only after that may anything be deleted that the segments replace.
//!
//! Every step may be broken off: what was put and not committed is litter under a name that nobody else will use.

pub mod background;
pub mod collect;
pub mod expire;
pub mod manifest;
pub mod merge;
#[cfg(all(test, feature = "sim"))]
mod merge_tests;
pub mod roll;
#[cfg(all(test, feature = "sim"))]
mod roll_tests;

use crate::compaction::Segment;
use crate::format::manifest::Manifest;
use crate::ids::Offset;

/// What segments hold of a partition, as its leader must know it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage {
    /// First offset that none holds, nor held.
    pub covered: Offset,
    /// All of them, in offset order.
    pub segments: Vec<Segment>,
}

impl From<&Manifest> for Coverage {
    fn from(manifest: &Manifest) -> Coverage {
        let segments = manifest.segments.iter().map(|named| named.segment).collect();
        Coverage { covered: manifest.covered, segments }
    }
}
