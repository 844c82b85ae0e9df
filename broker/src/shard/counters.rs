//! What a shard counts: plain numbers that it alone writes, copied out for `/metrics` and for tests that guard the
//! cost of the produce path.

/// Declares the counters once: fields, names and help texts for `/metrics`.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $name:ident,)*) => {
        /// Totals since the shard started.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters {
            $($(#[doc = $help])+ pub $name: u64,)*
        }

        impl Counters {
            /// Name and help text of each counter.
            pub const NAMES: &[(&str, &str)] = &[$((stringify!($name), concat!($($help),+).trim_ascii())),*];

            /// The numbers, in the order of [`Counters::NAMES`].
            pub fn values(&self) -> [u64; Counters::NAMES.len()] {
                [$(self.$name),*]
            }
        }
    };
}

counters! {
    /// Requests taken, of any API
    requests,
    /// Requests after which their client was held back by a quota
    throttled,
    /// Requests that ended by closing their connection
    refused_connections,
    /// Batches appended
    batches,
    /// Records appended, as their batches count them
    records,
    /// Bytes of batches appended
    produced_bytes,
    /// Batches that were duplicates of appended ones
    duplicates,
    /// Bytes of batches in fetch responses
    fetched_bytes,
    /// Of those, bytes that came from write-ahead objects instead of the tail
    fetched_from_store_bytes,
    /// Bytes of batches in fetch responses that came from segments
    fetched_cold_bytes,
    /// Seals handed to the lane
    seals,
    /// Bytes of small batches copied together at seal time
    copied_at_seal_bytes,
    /// Reads of write-ahead objects asked for
    store_reads,
    /// Reads of segments asked for
    cold_reads,
    /// Requests to the object store for segments, their indexes and manifests
    segment_gets,
    /// Bytes that those brought
    segment_get_bytes,
    /// Blocks of segments given from the local disk instead
    segment_disk_hits,
    /// Blocks of segments written to the local disk
    segment_disk_writes,
    /// Blocks on the local disk that were torn or could not be read
    segment_disk_damaged,
    /// Blocks not kept on the local disk because too many were being written
    segment_disk_skipped,
    /// 1 once the local disk takes no blocks any more, since it is full or broken
    segment_disk_stopped,
    /// Searches of batches for a record by its timestamp
    searches,
    /// Batches of unknown producers refused because there are too many producers
    producers_refused,
    /// Silent producers forgotten because there were too many
    producers_forgotten,
    /// Produce requests that ended with REQUEST_TIMED_OUT
    produce_timeouts,
    /// Batches refused because the store had no room
    refused_full,
    /// Looks at all logs for records that have expired
    retention_looks,
    /// Log starts that retention asked for
    log_starts_raised,
    /// Fetches parked because there was not enough to read
    parked_fetches,
}
