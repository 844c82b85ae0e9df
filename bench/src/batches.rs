//! The requests of a run, encoded once: one per partition, with one batch each.

use bytes::Bytes;
use millrace_protocol::frame::{LENGTH_BYTES, request_frame};
use millrace_protocol::messages::ProduceRequest;
use millrace_protocol::messages::produce::{PartitionProduceData, TopicProduceData};
use millrace_protocol::records::BatchBuilder;
use millrace_protocol::string::StrBytes;

/// Version of Produce that is spoken: the newest that names topics and knows no leader hints.
pub(crate) const PRODUCE_VERSION: i16 = 9;
/// What a broker may take to answer a request.
const TIMEOUT_MS: i32 = 30_000;
/// Length, API key and version of a frame; the correlation id is next.
const FRONT_BYTES: usize = LENGTH_BYTES + 4;
/// Bytes up to where a frame is the same for every request to its partition.
pub(crate) const HEAD_BYTES: usize = FRONT_BYTES + 4;
/// An upper estimate of what the varints of later records take beyond those of the first.
const GROWTH_BYTES: usize = 8;

/// A request to one partition.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    front: [u8; FRONT_BYTES],
    /// All behind the correlation id.
    pub rest: Bytes,
}

impl Encoded {
    /// What goes before `rest`.
    pub(crate) fn head(&self, correlation: i32) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[..FRONT_BYTES].copy_from_slice(&self.front);
        head[FRONT_BYTES..].copy_from_slice(&correlation.to_be_bytes());
        head
    }
}

/// The requests of a run.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    /// By partition.
    pub requests: Vec<Encoded>,
    /// Records of a batch.
    pub records: u64,
    /// Bytes of a batch.
    pub bytes: u64,
}

impl Batches {
    /// Batches of at most `batch_bytes` with records of `record_size` incompressible bytes, at least one each.
    pub(crate) fn encode(
        topic: &str,
        partitions: u32,
        acks: i16,
        (batch_bytes, record_size): (usize, usize),
        timestamp_ms: i64,
    ) -> Batches {
        let (batch, records) = build(batch_bytes, record_size, timestamp_ms);
        let batch = Bytes::from(batch);
        let request = |index| {
            let partition = PartitionProduceData { index, records: Some(batch.clone()) };
            let topic = TopicProduceData {
                name: StrBytes::from(topic),
                partition_data: vec![partition],
                ..TopicProduceData::default()
            };
            let request =
                ProduceRequest { acks, timeout_ms: TIMEOUT_MS, topic_data: vec![topic], ..ProduceRequest::default() };
            let client = Some(StrBytes::from_static("millrace-bench"));
            let slices = request_frame(&request, PRODUCE_VERSION, 0, client).expect("has a form in this version");
            let frame = Bytes::from(slices.concat());
            let front = frame[..FRONT_BYTES].try_into().expect("that many");
            Encoded { front, rest: frame.slice(HEAD_BYTES..) }
        };
        let partitions = i32::try_from(partitions).expect("the command line bounds it");
        Batches { requests: (0..partitions).map(request).collect(), records, bytes: batch.len() as u64 }
    }
}

fn build(limit: usize, record_size: usize, timestamp_ms: i64) -> (Vec<u8>, u64) {
    let value = noise(record_size);
    let mut builder = BatchBuilder::new(timestamp_ms);
    let empty = builder.size();
    builder.push(None, Some(&value));
    let record = builder.size() - empty + GROWTH_BYTES;
    while builder.size() + record <= limit {
        builder.push(None, Some(&value));
    }
    let records = u64::from(builder.count());
    (builder.finish(), records)
}

/// Bytes that do not compress, always the same.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_protocol::codec::Message;
    use millrace_protocol::frame::RequestHeader;
    use millrace_protocol::records::Batches as Walk;
    use millrace_protocol::wire::Reader;

    #[test]
    fn a_request_is_a_valid_batch_of_at_most_the_size_with_its_correlation_id() {
        let batches = Batches::encode("t", 3, -1, (65_536, 1024), 5);
        assert_eq!(batches.records, 63);
        assert!(batches.bytes <= 65_536 && batches.bytes > 64_000);
        let frame = [&batches.requests[2].head(77)[..], &batches.requests[2].rest].concat();
        assert_eq!(u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize, frame.len() - 4);
        let frame = Bytes::from(frame).slice(4..);
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader).unwrap();
        assert_eq!((header.correlation_id, header.api_version), (77, PRODUCE_VERSION));
        let request = ProduceRequest::decode(&mut reader, PRODUCE_VERSION).unwrap();
        let partition = &request.topic_data[0].partition_data[0];
        assert_eq!((partition.index, request.acks), (2, -1));
        let records = partition.records.clone().unwrap();
        let found: Vec<_> = Walk::new(&records).map(|batch| batch.unwrap().base_offset()).collect();
        assert_eq!(found, [0]);
    }

    #[test]
    fn a_record_larger_than_the_batch_goes_alone() {
        let batches = Batches::encode("t", 1, 1, (1, 100), 5);
        assert_eq!(batches.records, 1);
        assert!(batches.bytes > 100);
    }
}
