//! What sends and counts.

pub(crate) mod recorder;
