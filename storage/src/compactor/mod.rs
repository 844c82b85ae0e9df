//! Carries out what [`crate::compaction`] plans (PROTOCOL.md section 4, COMPACT): writes segments under unique names, then
//! commits the manifest that names them. Only after that may anything be deleted that the segments replace.
//!
//! Every step may be broken off: what was put and not committed is litter under a name that nobody else will use.

pub mod background;
pub mod collect;
pub mod expire;
pub mod manifest;
pub mod roll;
#[cfg(all(test, feature = "sim"))]
mod roll_tests;
