//! Record batches of magic 2 (KIP-98), as views over the bytes that travel and are stored.
//!
//! [`RecordBatch`] reads a batch where it stands, [`check_produced`] is everything that is asked of a producer's, and
//! [`Produced::patch`] makes it the broker's own in place. Compressed records are passed through unopened; only
//! [`RecordTimes`] looks into them.

mod batch;
mod builder;
mod compress;
mod error;
mod produced;
mod record;
#[cfg(test)]
mod tests;
mod times;

pub use batch::{
    Attributes, Batches, Compression, HEADER_BYTES, LENGTH_OVERHEAD, RecordBatch, TimestampType, set_leader_epoch,
};
pub use builder::BatchBuilder;
pub use error::BatchError;
pub use produced::{BatchProducer, ProduceRules, Produced, check_produced, only_batch};
pub use record::{Headers, Record, Records};
pub use times::{RecordTime, RecordTimes, TimesError};
