//! [`RecordSet`]: the batches of one partition as they leave in a fetch response.
//!
//! 1. The slices are never joined: they go from the tail or a write-ahead object to the socket as they are.
//!
//! Does not look into batches: see `records`.

use crate::codec::{Nullable, Version, Wire};
use crate::wire::{DecodeError, DecodeErrorKind, EncodeError, Reader, Writer};
use bytes::Bytes;
use smallvec::SmallVec;

/// Bytes in slices; equal to another if the bytes are, however they are cut.
#[derive(Clone, Default, Debug)]
pub struct RecordSet {
    /// No slice is empty.
    slices: SmallVec<[Bytes; 2]>,
    bytes: usize,
}

impl RecordSet {
    /// No batch.
    pub fn new() -> Self {
        RecordSet::default()
    }

    /// Appends whole batches.
    pub fn push(&mut self, batches: Bytes) {
        if !batches.is_empty() {
            self.bytes += batches.len();
            self.slices.push(batches);
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The slices in order.
    pub fn slices(&self) -> &[Bytes] {
        &self.slices
    }

    /// The bytes in one piece: copied unless there is one slice.
    pub fn concat(&self) -> Bytes {
        match self.slices.as_slice() {
            [one] => one.clone(),
            slices => slices.concat().into(),
        }
    }
}

impl From<Bytes> for RecordSet {
    fn from(batches: Bytes) -> Self {
        let mut set = RecordSet::new();
        set.push(batches);
        set
    }
}

impl FromIterator<Bytes> for RecordSet {
    fn from_iter<I: IntoIterator<Item = Bytes>>(slices: I) -> Self {
        let mut set = RecordSet::new();
        for slice in slices {
            set.push(slice);
        }
        set
    }
}

impl PartialEq for RecordSet {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.slices.iter().flatten().eq(other.slices.iter().flatten())
    }
}

impl Eq for RecordSet {}

impl Nullable for RecordSet {
    fn min_nullable_size(version: Version) -> usize {
        Bytes::min_nullable_size(version)
    }

    fn read_nullable(reader: &mut Reader<'_>, version: Version) -> Result<Option<Self>, DecodeError> {
        Ok(reader.nullable_bytes(version.flexible)?.map(RecordSet::from))
    }

    fn write_nullable(value: Option<&Self>, writer: &mut Writer, version: Version) -> Result<(), EncodeError> {
        writer.length(value.map(RecordSet::len), version.flexible)?;
        for slice in value.into_iter().flat_map(RecordSet::slices) {
            writer.raw(slice);
        }
        Ok(())
    }
}

crate::codec::not_null! {
    [] RecordSet;
}

#[cfg(test)]
mod tests {
    use super::RecordSet;
    use crate::codec::{Version, Wire};
    use crate::wire::{Reader, Writer};
    use bytes::Bytes;

    #[test]
    fn long_slices_leave_without_a_copy() {
        let first = Bytes::from(vec![1; 4096]);
        let second = Bytes::from(vec![2; 4096]);
        let set: RecordSet = [first.clone(), Bytes::new(), second.clone()].into_iter().collect();
        let version = Version { number: 12, flexible: true };
        let mut writer = Writer::new();
        set.write(&mut writer, version).unwrap();
        let parts = writer.finish();
        assert_eq!(parts.len(), 3, "length, first, second");
        assert_eq!(parts[1].as_ptr(), first.as_ptr());
        assert_eq!(parts[2].as_ptr(), second.as_ptr());
        let frame = Bytes::from(parts.concat());
        assert_eq!(RecordSet::read(&mut Reader::new(&frame), version).unwrap(), set);
    }
}
