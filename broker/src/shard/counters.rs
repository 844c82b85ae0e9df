//! What a shard counts: plain numbers that it alone writes, copied out for `/metrics` and for tests that guard the
//! cost of the produce path.

/// Totals since the shard started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Requests taken, of any API.
    pub requests: u64,
    /// Requests that ended by closing their connection.
    pub refused_connections: u64,
    /// Batches appended.
    pub batches: u64,
    /// Records appended, as their batches count them.
    pub records: u64,
    /// Bytes of batches appended.
    pub produced_bytes: u64,
    /// Batches that were duplicates of appended ones.
    pub duplicates: u64,
    /// Bytes of batches in fetch responses.
    pub fetched_bytes: u64,
    /// Of those, bytes that came from write-ahead objects instead of the tail.
    pub fetched_from_store_bytes: u64,
    /// Seals handed to the lane.
    pub seals: u64,
    /// Bytes of small batches copied together at seal time.
    pub copied_at_seal_bytes: u64,
    /// Reads of write-ahead objects asked for.
    pub store_reads: u64,
    /// Produce requests that ended with REQUEST_TIMED_OUT.
    pub produce_timeouts: u64,
    /// Fetches parked because there was not enough to read.
    pub parked_fetches: u64,
}
