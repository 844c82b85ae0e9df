//! Kafka's wire protocol: frames, messages, record batches, error codes.

pub mod api;
pub mod error_code;
pub mod frame;
pub mod messages;
pub mod records;
pub mod wire;
