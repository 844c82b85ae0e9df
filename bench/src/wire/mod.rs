//! Frames in and out of non-blocking sockets.

pub(crate) mod input;
pub(crate) mod output;
