//! Appended state: what the shard gave offsets to, committed or not. Answers whether a batch may follow.

/// How a batch relates to what was appended before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequenced {}

/// Why a batch can't follow; maps to Kafka's OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH, …
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendError {}

/// A partition as its leading shard appends to it.
#[derive(Clone, PartialEq, Debug)]
pub struct AppendedPartition {}
