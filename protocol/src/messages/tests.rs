//! What holds for every message: round trips, truncated and mutated bytes, claims of giant counts.

use super::{MessageVisitor, visit_messages};
use crate::api::{ADVERTISED, ApiKey};
use crate::codec::sample::{Sample, Sampler};
use crate::codec::{Message, Request, Version};
use crate::frame::{LENGTH_BYTES, RequestHeader, decode_response, request_frame, response_frame};
use crate::fuzz::fuzz_request;
use crate::messages::fetch::{FetchTopic, FetchableTopicResponse, PartitionData};
use crate::messages::*;
use crate::wire::{DecodeErrorKind, EncodeErrorKind, Reader, Writer};
use bytes::Bytes;
use proptest::prelude::*;

fn versions<M: Message>() -> impl Iterator<Item = Version> {
    M::VERSIONS.map(|number| Version { number, flexible: M::KEY.is_flexible(number) })
}

fn encode<M: Message>(message: &M, version: Version) -> Bytes {
    let mut writer = Writer::new();
    message.encode(&mut writer, version.number).expect("a sample has a form in its version");
    writer.concat()
}

struct RoundTrip;

impl MessageVisitor for RoundTrip {
    fn visit<M: Message + Sample>(&mut self) {
        for version in versions::<M>() {
            for seed in 0..50 {
                let message = M::sample(&mut Sampler(seed), version);
                let bytes = encode(&message, version);
                let mut reader = Reader::new(&bytes);
                assert_eq!(M::decode(&mut reader, version.number), Ok(message));
                assert_eq!(reader.remaining(), 0);
                assert!(bytes.len() >= M::min_size(version), "min_size is a lower bound");
            }
        }
    }
}

#[test]
fn every_message_is_read_back_as_it_was_written_in_every_version() {
    visit_messages(&mut RoundTrip);
}

struct Truncate;

impl MessageVisitor for Truncate {
    fn visit<M: Message + Sample>(&mut self) {
        for version in versions::<M>() {
            let bytes = encode(&M::sample(&mut Sampler(3), version), version);
            for length in 0..bytes.len() {
                let cut = bytes.slice(..length);
                assert!(M::decode(&mut Reader::new(&cut), version.number).is_err(), "{:?} {version:?}", M::KEY);
            }
        }
    }
}

#[test]
fn every_message_cut_short_anywhere_is_refused() {
    visit_messages(&mut Truncate);
}

struct Mutate(Sampler);

impl MessageVisitor for Mutate {
    fn visit<M: Message + Sample>(&mut self) {
        for version in versions::<M>() {
            for _ in 0..100 {
                let mut bytes = encode(&M::sample(&mut self.0, version), version).to_vec();
                for _ in 0..=self.0.below(4) {
                    if !bytes.is_empty() {
                        let at = self.0.below(bytes.len());
                        bytes[at] = self.0.next() as u8;
                    }
                }
                let bytes = Bytes::from(bytes);
                crate::fuzz::check_message::<M>(&mut Reader::new(&bytes), version.number);
            }
        }
    }
}

#[test]
fn mutated_messages_never_panic_and_what_is_read_can_be_written() {
    visit_messages(&mut Mutate(Sampler(5)));
}

struct Advertised(Vec<(ApiKey, i16, i16)>);

impl MessageVisitor for Advertised {
    fn visit<M: Message + Sample>(&mut self) {
        self.0.push((M::KEY, *M::VERSIONS.start(), *M::VERSIONS.end()));
    }
}

#[test]
fn every_advertised_version_is_declared_except_produce_before_three() {
    let mut declared = Advertised(Vec::new());
    visit_messages(&mut declared);
    for api in ADVERTISED {
        let messages: Vec<_> = declared.0.iter().filter(|(key, ..)| *key == api.key).collect();
        assert_eq!(messages.len(), 2, "request and response of {:?}", api.key);
        for (key, min, max) in messages {
            let served_from = if *key == ApiKey::Produce { 3 } else { api.min };
            assert_eq!(*min, served_from, "{key:?}");
            assert!(*max >= api.max, "{key:?}");
        }
    }
}

#[test]
fn an_eight_byte_body_that_claims_giant_counts_is_refused_before_allocation() {
    // Two billion brokers in version 0, 2^28 topics in version 12.
    let classic = Bytes::from_static(&[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let compact = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    let kind = |frame: &Bytes, version| MetadataRequest::decode(&mut Reader::new(frame), version).unwrap_err().kind;
    assert_eq!(kind(&classic, 0), DecodeErrorKind::TooMany { count: i32::MAX as usize, left: 4 });
    assert_eq!(kind(&compact, 12), DecodeErrorKind::TooMany { count: (1 << 28) - 2, left: 4 });
    // A count of tagged fields.
    let tags = Bytes::from_static(&[0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(matches!(kind(&tags, 12), DecodeErrorKind::TooMany { .. }));
}

#[test]
fn a_frame_of_empty_strings_is_refused_before_it_grows_many_times() {
    let count = 4 << 20;
    let mut writer = Writer::new();
    writer.uvarint(count + 1);
    let mut bytes = writer.concat().to_vec();
    bytes.resize(bytes.len() + count as usize, 1);
    let frame = Bytes::from(bytes);
    let error = DeleteGroupsRequest::decode(&mut Reader::new(&frame), 2).unwrap_err();
    assert!(matches!(error.kind, DecodeErrorKind::TooLarge { .. }), "{error}");
}

#[test]
fn a_fetch_response_of_many_empty_partitions_is_within_the_bound() {
    let partitions = vec![PartitionData::default(); 100_000];
    let topic = FetchableTopicResponse { partitions, ..FetchableTopicResponse::default() };
    let response = FetchResponse { responses: vec![topic], ..FetchResponse::default() };
    for number in [4, 12, 18] {
        let frame = Bytes::from(response_frame(&response, number, 1).unwrap().concat()).slice(LENGTH_BYTES..);
        assert!(decode_response::<FetchResponse>(&frame, number).is_ok());
    }
}

#[test]
fn a_value_in_a_field_that_the_version_lacks_is_refused_unless_it_may_be_ignored() {
    let request = FetchRequest { rack_id: "a".into(), ..FetchRequest::default() };
    let mut writer = Writer::new();
    assert_eq!(request.encode(&mut writer, 4), Ok(()), "rack_id is ignorable");
    let request = FetchRequest { replica_id: 5, ..FetchRequest::default() };
    let error = request.encode(&mut Writer::new(), 15).unwrap_err();
    assert_eq!((error.kind, error.field), (EncodeErrorKind::NotInVersion(15), "FetchRequest.replica_id"));
    let error = FetchRequest::default().encode(&mut Writer::new(), 19).unwrap_err();
    assert_eq!(error.kind, EncodeErrorKind::Version(19));
}

#[test]
fn null_is_refused_in_versions_that_have_none() {
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    assert_eq!(request.encode(&mut Writer::new(), 0).unwrap_err().kind, EncodeErrorKind::Null);
    assert_eq!(request.encode(&mut Writer::new(), 1), Ok(()));
    let null = Bytes::from_static(&[0xff; 4]);
    assert_eq!(MetadataRequest::decode(&mut Reader::new(&null), 0).unwrap_err().kind, DecodeErrorKind::Null);
    assert_eq!(MetadataRequest::decode(&mut Reader::new(&null), 1).unwrap().topics, None);
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    // HeartbeatResponse 4: throttle 0, no error, tags {9: 3 bytes}.
    let frame = Bytes::from_static(&[0, 0, 0, 0, 0, 0, 1, 9, 3, b'x', b'y', b'z']);
    let mut reader = Reader::new(&frame);
    assert_eq!(HeartbeatResponse::decode(&mut reader, 4), Ok(HeartbeatResponse::default()));
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn a_tagged_field_of_another_length_than_announced_is_refused() {
    // ApiVersionsResponse 3: no error, no keys, throttle 0, tag 1 (an INT64) with a length of 7 and of 9.
    for length in [7u8, 9] {
        let mut bytes = vec![0, 0, 1, 0, 0, 0, 0, 1, 1, length];
        bytes.extend_from_slice(&[0; 9]);
        let frame = Bytes::from(bytes);
        let error = ApiVersionsResponse::decode(&mut Reader::new(&frame), 3).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::TagLength);
    }
}

#[test]
fn strings_and_records_share_the_frame() {
    let response = FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "orders".into(),
            partitions: vec![PartitionData {
                records: Some(Bytes::from(vec![7; 5000]).into()),
                ..PartitionData::default()
            }],
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    };
    let parts = response_frame(&response, 12, 1).unwrap();
    assert_eq!(parts.len(), 3, "what comes before the records, the records, what comes after");
    let frame = Bytes::from(parts.concat()).slice(LENGTH_BYTES..);
    let (_, read) = decode_response::<FetchResponse>(&frame, 12).unwrap();
    let within = |slice: &[u8]| frame.as_ptr_range().contains(&slice.as_ptr());
    assert!(within(read.responses[0].topic.as_bytes()));
    assert!(within(&read.responses[0].partitions[0].records.as_ref().unwrap().slices()[0]));
}

#[test]
fn golden_fetch_request_version_4() {
    let request = FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1024,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![fetch::FetchPartition {
                partition: 2,
                fetch_offset: 3,
                partition_max_bytes: 4,
                ..fetch::FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let frame = request_frame(&request, 4, 9, Some("me".into())).unwrap().concat();
    #[rustfmt::skip]
    let golden = [
        0, 0, 0, 56, // length
        0, 1, 0, 4, 0, 0, 0, 9, 0, 2, b'm', b'e', // key, version, correlation id, client id
        0xff, 0xff, 0xff, 0xff, 0, 0, 1, 0xf4, 0, 0, 0, 1, 0, 0, 4, 0, 0, // replica, wait, bytes, isolation
        0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, // one topic of one partition
        0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 4, // index, offset, bytes
    ];
    assert_eq!(frame, golden);
}

/// Requests of every API as frames without their length.
fn request_frames(sampler: &mut Sampler) -> Vec<Vec<u8>> {
    fn frames_of<R: Request + Sample>(sampler: &mut Sampler, frames: &mut Vec<Vec<u8>>) {
        for version in versions::<R>() {
            let request = R::sample(sampler, version);
            let frame = request_frame(&request, version.number, 1, Some("client".into())).unwrap();
            frames.push(frame.concat()[LENGTH_BYTES..].to_vec());
        }
    }
    let mut frames = Vec::new();
    frames_of::<ProduceRequest>(sampler, &mut frames);
    frames_of::<FetchRequest>(sampler, &mut frames);
    frames_of::<MetadataRequest>(sampler, &mut frames);
    frames_of::<JoinGroupRequest>(sampler, &mut frames);
    frames_of::<OffsetFetchRequest>(sampler, &mut frames);
    frames_of::<CreateTopicsRequest>(sampler, &mut frames);
    frames
}

#[test]
fn headers_are_read_back_in_every_version() {
    for frame in request_frames(&mut Sampler(11)) {
        let frame = Bytes::from(frame);
        let mut reader = Reader::new(&frame);
        let header = RequestHeader::decode(&mut reader).unwrap();
        assert_eq!(header.correlation_id, 1);
        assert_eq!(header.client_id.as_deref(), Some("client"));
    }
}

#[test]
fn mutated_request_frames_keep_the_invariants_of_the_fuzzer() {
    let mut sampler = Sampler(13);
    for _ in 0..200 {
        for mut frame in request_frames(&mut sampler) {
            for _ in 0..=sampler.below(3) {
                let at = sampler.below(frame.len());
                frame[at] = sampler.next() as u8;
            }
            fuzz_request(&frame);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_keep_the_invariants_of_the_fuzzer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_request(&bytes);
    }

    #[test]
    fn arbitrary_bodies_of_served_apis_keep_the_invariants_of_the_fuzzer(
        api in prop::sample::select(ADVERTISED),
        version in -1i16..20,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = Vec::new();
        frame.extend_from_slice(&api.key.code().to_be_bytes());
        frame.extend_from_slice(&version.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0]);
        frame.extend_from_slice(&body);
        fuzz_request(&frame);
    }
}
