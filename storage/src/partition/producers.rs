//! Idempotent producers: what the log holds of each (KIP-98).

/// One of the last five batches of a producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommittedBatch {}

/// One producer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerState {}

/// Producers by id, with a cap and expiry by broker time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProducerTable {}
