//! Logs for the tests of this folder.

use bytes::Bytes;
use millrace_protocol::records::BatchBuilder;
use millrace_storage::ids::Offset;

/// One batch of a log.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    /// Its last offset.
    pub(super) last: Offset,
    /// All of it.
    pub(super) bytes: Bytes,
}

/// A log from offset 0 whose batches have so many records of so many bytes.
pub(super) fn batches(sizes: &[(u32, usize)]) -> Vec<Batch> {
    let mut base = 0i64;
    let one = |&(count, size): &(u32, usize)| {
        let mut builder = BatchBuilder::new(0);
        (0..count).for_each(|_| builder.push(None, Some(&vec![b'v'; size])));
        let mut bytes = builder.finish();
        bytes[..8].copy_from_slice(&base.to_be_bytes());

        base += i64::from(count);
        Batch { last: Offset(base - 1), bytes: bytes.into() }
    };
    sizes.iter().map(one).collect()
}
