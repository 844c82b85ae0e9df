//! Byte permits: memory is promised before a frame's body is read.

/// A promise of memory for one frame; dropping it gives the bytes back.
#[derive(Debug)]
pub struct Permit(());
