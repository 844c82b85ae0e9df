//! [`BatchBuilder`]: writes batches, for clients of tests, the bench and the simulator.

use super::batch::{CRC, HEADER_BYTES, LENGTH_OVERHEAD};
use super::{BatchProducer, Compression};

/// Builds one batch of magic 2 as a producer sends it: base offset 0, leader epoch −1.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    producer: Option<BatchProducer>,
    attributes: i16,
    compression: Compression,
    base_timestamp: i64,
    max_timestamp: i64,
    count: i32,
    records: Vec<u8>,
    record: Vec<u8>,
}

impl BatchBuilder {
    /// Starts a batch whose first record has this timestamp, Unix milliseconds.
    pub fn new(base_timestamp: i64) -> BatchBuilder {
        BatchBuilder {
            producer: None,
            attributes: 0,
            compression: Compression::None,
            base_timestamp,
            max_timestamp: -1,
            count: 0,
            records: Vec::new(),
            record: Vec::new(),
        }
    }

    /// Makes it idempotent.
    #[must_use]
    pub fn producer(mut self, producer: BatchProducer) -> BatchBuilder {
        self.producer = Some(producer);
        self
    }

    /// Compresses its records.
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> BatchBuilder {
        self.compression = compression;
        self
    }

    /// Sets attribute bits.
    #[must_use]
    pub fn attributes(mut self, attributes: i16) -> BatchBuilder {
        self.attributes = attributes;
        self
    }

    /// Adds a record at the batch's base timestamp and without headers.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.push_record(self.base_timestamp, key, value, &[]);
    }

    /// Adds a record.
    pub fn push_record(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let record = &mut self.record;
        record.clear();
        record.push(0);
        put_signed(record, timestamp.wrapping_sub(self.base_timestamp));
        put_signed(record, self.count.into());
        put_nullable(record, key);
        put_nullable(record, value);
        put_signed(record, headers.len() as i64);
        for (key, value) in headers {
            put_nullable(record, Some(key));
            put_nullable(record, *value);
        }
        put_signed(&mut self.records, record.len() as i64);
        self.records.extend_from_slice(record);
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count.unsigned_abs()
    }

    /// Bytes of the batch so far, uncompressed.
    pub fn size(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch. The builder is then empty and starts the next one with the same settings.
    pub fn finish(&mut self) -> Vec<u8> {
        if self.compression != Compression::None {
            self.records = self.compression.compress(&self.records).expect("memory takes it");
        }
        let mut out = Vec::with_capacity(self.size());
        let length = i32::try_from(self.size() - LENGTH_OVERHEAD).expect("a batch stays below 2 GiB");
        out.extend_from_slice(&0i64.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.push(2);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.attributes | self.compression.attribute()).to_be_bytes());
        out.extend_from_slice(&(self.count - 1).to_be_bytes());
        out.extend_from_slice(&self.base_timestamp.to_be_bytes());
        out.extend_from_slice(&self.max_timestamp.to_be_bytes());
        let none = BatchProducer { id: -1, epoch: -1, base_sequence: -1 };
        let producer = self.producer.unwrap_or(none);
        out.extend_from_slice(&producer.id.to_be_bytes());
        out.extend_from_slice(&producer.epoch.to_be_bytes());
        out.extend_from_slice(&producer.base_sequence.to_be_bytes());
        out.extend_from_slice(&self.count.to_be_bytes());
        out.append(&mut self.records);
        let crc = crc_fast::crc32_iscsi(&out[CRC.end..]);
        out[CRC].copy_from_slice(&crc.to_be_bytes());
        (self.count, self.max_timestamp) = (0, -1);
        out
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_signed(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    let mut value = ((value << 1) ^ (value >> 63)) as u64;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
