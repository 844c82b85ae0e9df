//! Kafka's wire protocol: frames, messages, record batches, error codes.
//!
//! A frame comes in as [`frame`] cuts it from the stream, its header and message are read by [`messages`] on the
//! primitives of [`wire`], and a reply leaves as a list of slices.

pub mod api;
pub mod codec;
pub mod double;
pub mod error_code;
pub mod frame;
pub mod fuzz;
pub mod messages;
pub mod record_set;
pub mod records;
pub mod string;
pub mod wire;

pub use double::Double;
pub use record_set::RecordSet;
pub use string::StrBytes;
