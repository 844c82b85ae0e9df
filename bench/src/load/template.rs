//! The requests of a run, encoded once: one per partition, with one batch each. What differs by request is set in a short
//! head; the rest leaves from where it was encoded.
//!
//! 1. A frame is its head, its rest and the [`TRAILER`]; no byte of the rest changes, except where every record carries its identity:
//!    there the head holds the whole batch.

use crate::arguments::Load;
use crate::load::compress::Codec;
use crate::load::keys::{Draw, key, partition_of, xorshift};
use crate::load::patch::Patch;
use crate::validate::{IDENTITY_BYTES, Identity};
use bytes::Bytes;
use millrace_protocol::frame::{LENGTH_BYTES, request_frame};
use millrace_protocol::messages::ProduceRequest;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::records::{BatchBuilder, BatchProducer, HEADER_BYTES, LENGTH_OVERHEAD, RecordBatch};
use millrace_protocol::string::StrBytes;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Version of Produce that is spoken: the newest that names topics and knows no leader hints.
pub(crate) const PRODUCE_VERSION: i16 = 9;
/// What a broker may take to answer a request.
const TIMEOUT_MS: i32 = 30_000;
/// Where the correlation id stands: behind length, API key and version.
const CORRELATION: Range<usize> = LENGTH_BYTES + 4..LENGTH_BYTES + 8;
/// Where in a batch its length, its CRC, what the CRC covers, and its producer's id, epoch and sequence stand.
const BATCH_LENGTH: Range<usize> = 8..12;
const CRC: Range<usize> = 17..21;
const COVERED: usize = 21;
const PRODUCER: Range<usize> = 43..57;
/// What follows every batch: three empty sets of tagged fields.
pub(crate) const TRAILER: &[u8] = &[0; 3];
/// An upper estimate of what the varints of later records take beyond those of the first.
const GROWTH_BYTES: usize = 8;
/// Keys drawn to learn how often each partition is written to and with which keys.
const DRAWS: usize = 1 << 17;
/// Entries of the order in which partitions are written to if keys choose them.
const ORDER: usize = 1 << 12;
/// What payloads start from.
const PAYLOAD_SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// Bytes of a stamp at the start of a batch's first value.
pub(crate) const STAMP_BYTES: usize = 8;

/// What records carry beside what the settings say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Nothing.
    Plain,
    /// The first value of a batch starts with the moment at which the request was due, nanoseconds, big-endian.
    Stamped,
    /// Every value starts with an [`Identity`].
    Identified,
}

/// What a request gets of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variables {
    /// Correlation id.
    pub correlation: i32,
    /// Id, epoch and sequence of an idempotent producer.
    pub producer: Option<BatchProducer>,
    /// When it was due, nanoseconds.
    pub stamp: u64,
    /// Of its first record.
    pub identity: Identity,
}

/// A request to one partition.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    head: Bytes,
    /// What follows every head, before the [`TRAILER`]. Partitions with the same batch share it.
    pub rest: Bytes,
    /// Records of the batch.
    pub records: u32,
    /// Bytes of the batch.
    pub bytes: usize,
    batch: usize,
    crc: u32,
    producer: Option<Arc<Patch<14>>>,
    stamp: Option<(usize, Arc<Patch<8>>)>,
    /// Of values in the frame; empty unless they carry identities.
    values: Vec<Range<usize>>,
}

impl Template {
    /// Writes the head of a request into `head`, which is empty.
    pub(crate) fn fill(&self, head: &mut Vec<u8>, variables: &Variables) {
        head.extend_from_slice(&self.head);
        head[CORRELATION].copy_from_slice(&variables.correlation.to_be_bytes());
        let mut crc = self.crc;
        if let (Some(patch), Some(producer)) = (&self.producer, &variables.producer) {
            let mut field = [0; 14];
            field[..8].copy_from_slice(&producer.id.to_be_bytes());
            field[8..10].copy_from_slice(&producer.epoch.to_be_bytes());
            field[10..].copy_from_slice(&producer.base_sequence.to_be_bytes());
            self.field(head, PRODUCER).copy_from_slice(&field);
            crc ^= patch.effect(&field);
        }
        if let Some((at, patch)) = &self.stamp {
            let field = variables.stamp.to_be_bytes();
            head[*at..*at + STAMP_BYTES].copy_from_slice(&field);
            crc ^= patch.effect(&field);
        }
        if !self.values.is_empty() {
            for (value, number) in self.values.iter().zip(0_u64..) {
                let sequence = variables.identity.sequence + number;
                Identity { sequence, ..variables.identity }.write(&mut head[value.clone()]);
            }
            crc = crc_fast::crc32_iscsi(&head[self.batch + COVERED..self.batch + self.bytes]);
        }
        if self.head.len() > self.batch {
            self.field(head, CRC).copy_from_slice(&crc.to_be_bytes());
        }
    }

    fn field<'a>(&self, head: &'a mut [u8], field: Range<usize>) -> &'a mut [u8] {
        &mut head[self.batch..][field]
    }
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub(crate) struct Templates {
    /// By partition; `None` if no key goes there.
    pub partitions: Vec<Option<Template>>,
    /// Partitions in the order in which they are written to, over and over.
    pub order: Vec<u32>,
}

impl Templates {
    /// Batches of at most `batch_bytes` before compression, at least one record each.
    ///
    /// # Errors
    /// When a codec fails.
    pub(crate) fn encode(load: &Load, content: Content, timestamp_ms: i64) -> io::Result<Templates> {
        let partitions = load.partitions;
        let mut maker = Maker { load, content, timestamp_ms, producers: BTreeMap::new(), stamps: BTreeMap::new() };
        let Some(draw) = Draw::new(load.keys) else {
            let batch = maker.batch(&[])?;
            let all =
                (0..partitions).map(|index| maker.template(index, &batch).map(Some)).collect::<io::Result<_>>()?;
            return Ok(Templates { partitions: all, order: (0..partitions).collect() });
        };
        let mut keys = vec![Vec::new(); partitions as usize];
        let mut order = Vec::new();
        for number in draw.take(DRAWS) {
            let key = key(number);
            let partition = partition_of(&key, partitions);
            keys[partition as usize].push(key);
            if order.len() < ORDER.max(partitions as usize) {
                order.push(partition);
            }
        }
        let make = |(keys, index): (&Vec<Vec<u8>>, u32)| {
            if keys.is_empty() {
                return Ok(None);
            }
            let batch = maker.batch(keys)?;
            maker.template(index, &batch).map(Some)
        };
        let all = keys.iter().zip(0..).map(make).collect::<io::Result<_>>()?;
        Ok(Templates { partitions: all, order })
    }
}

struct Batch {
    bytes: Bytes,
    records: u32,
    /// Where values start and end, in an uncompressed batch.
    values: Vec<Range<usize>>,
}

struct Maker<'a> {
    load: &'a Load,
    content: Content,
    timestamp_ms: i64,
    producers: BTreeMap<usize, Arc<Patch<14>>>,
    stamps: BTreeMap<(usize, usize), Arc<Patch<8>>>,
}

impl Maker<'_> {
    fn batch(&self, keys: &[Vec<u8>]) -> io::Result<Batch> {
        let load = self.load;
        let limit = load.batch_bytes as usize;
        let mut keys = keys.iter().map(Vec::as_slice).cycle();
        let mut values =
            Payload { state: PAYLOAD_SEED, size: load.record_size as usize, percent: load.compressibility };
        let set = match self.content {
            Content::Plain => 0,
            Content::Stamped => STAMP_BYTES,
            Content::Identified => IDENTITY_BYTES,
        };
        if values.size < set {
            return Err(io::Error::other(format!("--record-size is below {set}")));
        }
        let mut builder = BatchBuilder::new(self.timestamp_ms).attributes(load.compression.compression().attribute());
        if load.idempotent {
            builder = builder.producer(BatchProducer { id: 0, epoch: 0, base_sequence: 0 });
        }
        let empty = builder.size();
        builder.push(keys.next(), Some(&values.next(set)));
        let record = builder.size() - empty + GROWTH_BYTES;
        while builder.size() + record <= limit {
            builder.push(keys.next(), Some(&values.next(set)));
        }
        let records = builder.count();
        let bytes = builder.finish();
        if load.compression != Codec::None {
            return Ok(Batch { bytes: compressed(&bytes, load.compression)?, records, values: Vec::new() });
        }
        let (batch, _) = RecordBatch::split(&bytes).expect("just built").expect("just built");
        let value = |record: millrace_protocol::records::Record<'_>| {
            let value = record.value.expect("every record has one");
            let at = value.as_ptr().addr() - bytes.as_ptr().addr();
            at..at + value.len()
        };
        let values = batch.records().map(|record| value(record.expect("just built"))).collect();
        Ok(Batch { bytes: Bytes::from(bytes), records, values })
    }

    fn template(&mut self, index: u32, batch: &Batch) -> io::Result<Template> {
        let index = i32::try_from(index).expect("the command line bounds it");
        let partition = PartitionProduceData { index, records: Some(batch.bytes.clone()) };
        let topic = TopicProduceData {
            name: StrBytes::from(self.load.topic.as_str()),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        let acks = self.load.acks.code();
        let request =
            ProduceRequest { acks, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..ProduceRequest::default() };
        let client = Some(StrBytes::from_static("millrace-bench"));
        let slices = request_frame(&request, PRODUCE_VERSION, 0, client).map_err(io::Error::other)?;
        let frame = Bytes::from(slices.concat());
        let length = batch.bytes.len();
        let at = frame.len() - TRAILER.len() - length;
        assert!(
            frame[at..at + length] == batch.bytes && &frame[at + length..] == TRAILER,
            "a batch is last but for tags"
        );
        let covered = length - COVERED;
        let producer = self.load.idempotent.then(|| {
            let patch = || Arc::new(Patch::new(covered, PRODUCER.start - COVERED));
            self.producers.entry(length).or_insert_with(patch).clone()
        });
        let stamp = (self.content == Content::Stamped && !batch.values.is_empty()).then(|| {
            let value = batch.values[0].start;
            let patch = || Arc::new(Patch::new(covered, value - COVERED));
            (at + value, self.stamps.entry((length, value)).or_insert_with(patch).clone())
        });
        let identified = self.content == Content::Identified;
        let cut = match &stamp {
            _ if identified => at + length,
            Some((at, _)) => at + STAMP_BYTES,
            None if producer.is_some() => at + HEADER_BYTES,
            None => at,
        };
        let values = if identified { batch.values.clone() } else { Vec::new() };
        let crc = u32::from_be_bytes(batch.bytes[CRC].try_into().expect("four bytes"));
        Ok(Template {
            head: frame.slice(..cut),
            rest: batch.bytes.slice(cut - at..),
            records: batch.records,
            bytes: length,
            batch: at,
            crc,
            producer,
            stamp,
            values: values.into_iter().map(|value| at + value.start..at + value.end).collect(),
        })
    }
}

/// The batch with its records compressed.
fn compressed(batch: &[u8], codec: Codec) -> io::Result<Bytes> {
    let mut out = batch[..HEADER_BYTES].to_vec();
    out.extend_from_slice(&codec.compression().compress(&batch[HEADER_BYTES..])?);
    let length = i32::try_from(out.len() - LENGTH_OVERHEAD).map_err(io::Error::other)?;
    out[BATCH_LENGTH].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&out[COVERED..]);
    out[CRC].copy_from_slice(&crc.to_be_bytes());
    Ok(Bytes::from(out))
}

/// Values that differ from each other and are the same in every run.
struct Payload {
    state: u64,
    size: usize,
    /// Of a value, how many bytes in a hundred are zeros; the others do not compress.
    percent: u32,
}

impl Payload {
    /// The next value; its first `set` bytes are zeros, to be set later.
    fn next(&mut self, set: usize) -> Vec<u8> {
        let zeros = self.size * self.percent as usize / 100;
        let mut value = vec![0; self.size];
        for byte in value.iter_mut().take(self.size - zeros).skip(set) {
            *byte = xorshift(&mut self.state).to_le_bytes()[3];
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use millrace_protocol::codec::Message;
    use millrace_protocol::frame::RequestHeader;
    use millrace_protocol::records::Batches;
    use millrace_protocol::wire::Reader;

    fn load(more: &[&str]) -> Load {
        #[derive(Parser)]
        struct Only {
            #[command(flatten)]
            load: Load,
        }
        let arguments = ["bench", "--partitions", "3", "--topic", "t"];
        Only::parse_from(arguments.iter().chain(more)).load
    }

    /// The batch of a request as a broker reads it; the CRC is checked.
    fn batch(template: &Template, variables: &Variables, index: i32) -> Vec<u8> {
        let mut head = Vec::new();
        template.fill(&mut head, variables);
        let frame = [&head, &template.rest[..], TRAILER].concat();
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let frame = Bytes::from(frame).slice(4..);
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader).unwrap();
        assert_eq!((header.correlation_id, header.api_version), (variables.correlation, PRODUCE_VERSION));
        let request = ProduceRequest::decode(&mut reader, PRODUCE_VERSION).unwrap();
        let partition = &request.topic_data[0].partition_data[0];
        assert_eq!((partition.index, request.acks), (index, -1));
        let records = partition.records.clone().unwrap();
        let found: Vec<_> = Batches::new(&records).map(Result::unwrap).collect();
        assert_eq!((found.len(), found[0].crc()), (1, found[0].computed_crc()));
        records.to_vec()
    }

    fn variables() -> Variables {
        let producer = BatchProducer { id: 7, epoch: 3, base_sequence: 1_000_000 };
        let identity = Identity { run: 5, producer: 1, partition: 2, sequence: 40 };
        Variables { correlation: 77, producer: Some(producer), stamp: 0x0102_0304_0506_0708, identity }
    }

    #[test]
    fn a_request_is_a_valid_batch_of_at_most_the_size_with_what_is_its_own() {
        let templates = Templates::encode(&load(&["--idempotent"]), Content::Stamped, 5).unwrap();
        assert_eq!(templates.order, [0, 1, 2]);
        let template = templates.partitions[2].as_ref().unwrap();
        assert_eq!(template.records, 63);
        assert!(template.bytes <= 65_536 && template.bytes > 64_000);
        let bytes = batch(template, &variables(), 2);
        let (batch, _) = RecordBatch::split(&bytes).unwrap().unwrap();
        assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (7, 3, 1_000_000));
        let value = batch.records().next().unwrap().unwrap().value.unwrap();
        assert_eq!(value[..STAMP_BYTES], [1, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn every_record_has_its_identity() {
        let templates = Templates::encode(&load(&["--record-size", "50"]), Content::Identified, 5).unwrap();
        let bytes = batch(templates.partitions[2].as_ref().unwrap(), &variables(), 2);
        let (batch, _) = RecordBatch::split(&bytes).unwrap().unwrap();
        for (record, sequence) in batch.records().zip(40..) {
            let identity = Identity::read(record.unwrap().value.unwrap()).unwrap();
            assert_eq!(identity, Identity { sequence, ..variables().identity });
        }
    }

    #[test]
    fn keyed_batches_hold_the_keys_of_their_partition_alone() {
        let templates = Templates::encode(&load(&["--keys", "uniform:2"]), Content::Plain, 5).unwrap();
        let mut keys = 0;
        for (template, index) in templates.partitions.iter().zip(0..) {
            let Some(template) = template else { continue };
            let bytes = batch(template, &variables(), index);
            let (batch, _) = RecordBatch::split(&bytes).unwrap().unwrap();
            for record in batch.records() {
                keys += 1;
                assert_eq!(partition_of(record.unwrap().key.unwrap(), 3), index as u32);
            }
            assert!(templates.order.contains(&(index as u32)));
        }
        assert!(keys > 0 && templates.order.len() == ORDER);
    }

    #[test]
    fn a_batch_compresses_as_much_as_its_values_may() {
        for (percent, least, most) in [("0", 64_000, 66_000), ("50", 30_000, 36_000)] {
            for codec in ["gzip", "zstd"] {
                let load = load(&["--compression", codec, "--compressibility", percent]);
                let bytes = Templates::encode(&load, Content::Plain, 5).unwrap().partitions[0].as_ref().unwrap().bytes;
                assert!((least..most).contains(&bytes), "{codec} {percent}: {bytes}");
            }
        }
    }

    #[test]
    fn a_record_larger_than_the_batch_goes_alone_and_one_without_room_for_its_stamp_is_refused() {
        let small = load(&["--record-size", "100", "--batch-bytes", "1"]);
        assert_eq!(Templates::encode(&small, Content::Plain, 5).unwrap().partitions[0].as_ref().unwrap().records, 1);
        assert!(Templates::encode(&load(&["--record-size", "7"]), Content::Stamped, 5).is_err());
    }
}
