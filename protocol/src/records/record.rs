//! The records of an uncompressed batch, where they stand.
//!
//! 1. Every length is compared with the bytes left in its record, so that no record reaches into the next one.
//! 2. Iteration allocates nothing, and ends at the first error.

use super::{BatchError, RecordBatch, TimestampType};

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, Unix milliseconds; −1 if none.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// The headers of a record: an iterator of keys and values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<'a> {
    bytes: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let mut fields = Fields { bytes: self.bytes };
        let header = fields.header().expect("read once when the record was");
        self.bytes = fields.bytes;
        Some(header)
    }
}

/// The records of an uncompressed batch in order. An error is the last item.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    batch: RecordBatch<'a>,
    rest: Fields<'a>,
    index: u32,
    failed: bool,
}

impl<'a> Records<'a> {
    pub(super) fn new(batch: RecordBatch<'a>) -> Records<'a> {
        Records { batch, rest: Fields { bytes: batch.payload() }, index: 0, failed: false }
    }

    fn read(&mut self) -> Result<Record<'a>, &'static str> {
        let length = self.rest.signed32()?;
        let length = usize::try_from(length).map_err(|_| "negative length")?;
        let mut fields = Fields { bytes: self.rest.take(length)? };
        fields.take(1)?; // attributes, unused so far
        let timestamp_delta = fields.signed64()?;
        let offset_delta = fields.signed32()?;
        let key = fields.nullable()?;
        let value = fields.nullable()?;
        let headers = fields.signed32()?;
        let headers = u32::try_from(headers).map_err(|_| "negative number of headers")?;
        let bytes = fields.bytes;
        for _ in 0..headers {
            fields.header()?;
        }
        if !fields.bytes.is_empty() {
            return Err("longer than its fields");
        }
        let timestamp = match self.batch.attributes().timestamp_type() {
            TimestampType::CreateTime => self.batch.base_timestamp().wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => self.batch.max_timestamp(),
        };
        let offset = self.batch.base_offset().wrapping_add(offset_delta.into());
        Ok(Record { offset, timestamp, key, value, headers: Headers { bytes } })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = u32::try_from(self.batch.count()).unwrap_or(0);
        if self.failed || (self.index == count && self.rest.bytes.is_empty()) {
            return None;
        }
        let record = if self.index == count { Err("bytes after the last record") } else { self.read() };
        let item = record.map_err(|detail| BatchError::Record { index: self.index, detail });
        self.failed = item.is_err();
        self.index += 1;
        Some(item)
    }
}

/// The fields of a record, read one after the other.
#[derive(Clone, Copy, Debug)]
struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("shorter than its fields")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn nullable(&mut self) -> Result<Option<&'a [u8]>, &'static str> {
        let length = self.signed32()?;
        // Kafka takes every negative length for null.
        usize::try_from(length).ok().map(|length| self.take(length)).transpose()
    }

    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), &'static str> {
        let key = self.nullable()?.ok_or("header without a key")?;
        Ok((key, self.nullable()?))
    }

    fn signed32(&mut self) -> Result<i32, &'static str> {
        let value = self.varint(5)?;
        let value = u32::try_from(value).map_err(|_| "varint beyond 32 bits")?;
        Ok((value >> 1) as i32 ^ -((value & 1) as i32))
    }

    fn signed64(&mut self) -> Result<i64, &'static str> {
        let value = self.varint(10)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// An unsigned varint of at most `most` bytes.
    fn varint(&mut self, most: usize) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes.iter().take(most).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
        }
        Err("varint without an end")
    }
}
