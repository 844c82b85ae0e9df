//! Checks of produced batches against what Apache Kafka 4.4 answered for the same bytes, the kafka-protocol crate as
//! oracle for reading and writing, and mutated bytes.

use super::*;
use crate::error_code::ErrorCode;
use proptest::prelude::*;

const NOW: i64 = 1_700_000_000_000;

fn two_records() -> BatchBuilder {
    let mut builder = BatchBuilder::new(NOW);
    builder.push(Some(b"k"), Some(b"v"));
    builder.push_record(NOW + 5, None, None, &[(b"h", Some(b"1")), (b"", None)]);
    builder
}

fn check(bytes: &[u8]) -> Result<Produced, BatchError> {
    check_produced(bytes, &ProduceRules::default(), NOW)
}

fn code_of(bytes: &[u8]) -> Option<ErrorCode> {
    check(bytes).err().map(|error| error.code())
}

/// Changes header bytes of a good batch and makes its CRC right again.
fn with_bytes(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = two_records().finish();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc_fast::crc32_iscsi(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[test]
fn a_good_batch_is_described() {
    let producer = BatchProducer { id: 7, epoch: 1, base_sequence: 3 };
    let batch = two_records().producer(producer).finish();
    let expected = Produced {
        length: batch.len(),
        count: 2,
        max_timestamp: NOW + 5,
        producer: Some(producer),
        compression: Compression::None,
    };
    assert_eq!(check(&batch), Ok(expected));
    let (view, rest) = RecordBatch::split(&batch).unwrap().unwrap();
    assert!(rest.is_empty());
    let records: Vec<_> = view.records().map(Result::unwrap).collect();
    assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!((records[1].offset, records[1].timestamp, records[1].key), (1, NOW + 5, None));
    assert_eq!(records[1].headers.collect::<Vec<_>>(), [(&b"h"[..], Some(&b"1"[..])), (&b""[..], None)]);
}

#[test]
fn framing_is_judged_as_kafka_does() {
    let good = two_records().finish();
    assert_eq!(code_of(b""), Some(ErrorCode::InvalidRecord), "no batch");
    assert_eq!(code_of(&good[..good.len() - 1]), Some(ErrorCode::InvalidRecord), "a cut batch is no batch");
    assert_eq!(code_of(&[&good[..], &good].concat()), Some(ErrorCode::InvalidRecord), "two batches");
    assert_eq!(check(&[&good[..], &good[..20]].concat()).map(|ok| ok.length), Ok(good.len()), "the rest is trimmed");
    for magic in [0, 1] {
        assert_eq!(code_of(&with_bytes(16, &[magic])), Some(ErrorCode::InvalidRecord), "magic {magic}");
    }
    assert_eq!(code_of(&with_bytes(16, &[3])), Some(ErrorCode::CorruptMessage), "magic 3");
    for length in [-1, 13, 20, 48] {
        assert_eq!(code_of(&with_bytes(8, &i32::to_be_bytes(length))), Some(ErrorCode::CorruptMessage), "{length}");
    }
    let mut bad_crc = good.clone();
    bad_crc[17] ^= 1;
    assert_eq!(code_of(&bad_crc), Some(ErrorCode::CorruptMessage));
}

#[test]
fn header_fields_are_judged_as_kafka_does() {
    let invalid = Some(ErrorCode::InvalidRecord);
    assert_eq!(code_of(&with_bytes(0, &5i64.to_be_bytes())), invalid, "base offset");
    assert_eq!(code_of(&with_bytes(12, &7i32.to_be_bytes())), None, "leader epoch is not looked at");
    assert_eq!(code_of(&with_bytes(57, &3i32.to_be_bytes())), invalid, "count");
    assert_eq!(code_of(&with_bytes(23, &2i32.to_be_bytes())), invalid, "last offset delta");
    assert_eq!(code_of(&with_bytes(21, &[0, 0x20])), invalid, "control");
    assert_eq!(code_of(&with_bytes(21, &[0, 0x10])), Some(ErrorCode::TransactionalIdAuthorizationFailed));
    assert_eq!(code_of(&with_bytes(21, &[0, 5])), Some(ErrorCode::UnsupportedCompressionType));
    assert_eq!(code_of(&with_bytes(21, &[0, 8])), Some(ErrorCode::InvalidTimestamp), "LogAppendTime");
    assert_eq!(code_of(&with_bytes(43, &5i64.to_be_bytes())), invalid, "a producer id without a sequence");
    assert_eq!(code_of(&with_bytes(43, &(-2i64).to_be_bytes())), None, "a negative id is none");
    let small = ProduceRules { max_batch_bytes: 70, ..ProduceRules::default() };
    let error = check_produced(&two_records().finish(), &small, NOW).unwrap_err();
    assert_eq!(error.code(), ErrorCode::MessageTooLarge);
}

#[test]
fn records_are_judged_as_kafka_does() {
    let mut future = BatchBuilder::new(NOW + 3_600_001);
    future.push(None, None);
    let future = future.finish();
    assert_eq!(code_of(&future), Some(ErrorCode::InvalidTimestamp));
    let append_time = ProduceRules { timestamp_type: TimestampType::LogAppendTime, ..ProduceRules::default() };
    assert!(check_produced(&future, &append_time, NOW).is_ok());
    let mut none = BatchBuilder::new(-1);
    none.push(None, None);
    assert_eq!(check(&none.finish()).map(|ok| ok.max_timestamp), Ok(-1));
    let compacted = ProduceRules { keys_required: true, ..ProduceRules::default() };
    assert_eq!(check_produced(&two_records().finish(), &compacted, NOW), Err(BatchError::MissingKey(1)));
    assert_eq!(code_of(&with_bytes(HEADER_BYTES, &[0x40])), Some(ErrorCode::InvalidRecord), "length of a record");
    let offset_delta = HEADER_BYTES + 3;
    assert_eq!(code_of(&with_bytes(offset_delta, &[2])), Some(ErrorCode::InvalidRecord), "offset delta");
}

#[test]
fn patching_keeps_the_crc_right() {
    let mut batch = two_records().finish();
    let crc = batch[17..21].to_vec();
    let produced = check(&batch).unwrap();
    assert_eq!(produced.patch(&mut batch, 1000, 7, None), NOW + 5);
    assert_eq!(batch[17..21], crc, "offset and epoch are outside the CRC");
    let (view, _) = RecordBatch::split(&batch).unwrap().unwrap();
    assert_eq!((view.base_offset(), view.last_offset(), view.leader_epoch()), (1000, 1001, 7));
    assert_eq!(produced.patch(&mut batch, 1000, 7, Some(NOW + 99)), NOW + 99);
    let (view, _) = RecordBatch::split(&batch).unwrap().unwrap();
    assert_eq!(view.computed_crc(), view.crc());
    assert_eq!(view.attributes().timestamp_type(), TimestampType::LogAppendTime);
    assert!(view.records().all(|record| record.unwrap().timestamp == NOW + 99));
}

#[test]
fn a_max_timestamp_that_the_records_do_not_have_is_put_right() {
    let mut batch = with_bytes(35, &(NOW + 7_200_000).to_be_bytes());
    let produced = check(&batch).unwrap();
    assert_eq!(produced.patch(&mut batch, 0, 1, None), NOW + 5);
    let (view, _) = RecordBatch::split(&batch).unwrap().unwrap();
    assert_eq!((view.max_timestamp(), view.computed_crc()), (NOW + 5, view.crc()));
}

type AnyRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn any_records() -> impl Strategy<Value = Vec<AnyRecord>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    proptest::collection::vec((NOW - 10_000..NOW + 10_000, bytes(), bytes()), 1..20)
}

proptest! {
    #[test]
    fn what_the_builder_writes_is_read_here_and_by_the_oracle(records in any_records()) {
        let mut builder = BatchBuilder::new(records[0].0);
        for (timestamp, key, value) in &records {
            builder.push_record(*timestamp, key.as_deref(), value.as_deref(), &[]);
        }
        let batch = builder.finish();
        prop_assert!(check(&batch).is_ok());
        let (view, _) = RecordBatch::split(&batch).unwrap().unwrap();
        let ours: Vec<AnyRecord> = view.records().map(|record| {
            let record = record.unwrap();
            (record.timestamp, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec))
        }).collect();
        prop_assert_eq!(&ours, &records);
        let mut bytes = bytes::Bytes::from(batch);
        let set = kafka_protocol::records::RecordBatchDecoder::decode(&mut bytes).unwrap();
        let theirs: Vec<AnyRecord> = set.records.into_iter().map(|record| {
            (record.timestamp, record.key.map(|key| key.to_vec()), record.value.map(|value| value.to_vec()))
        }).collect();
        prop_assert_eq!(&theirs, &records);
    }

    #[test]
    fn mutated_batches_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), fix_crc: bool) {
        let mut batch = two_records().finish();
        for (index, value) in flips {
            let at = index.index(batch.len());
            batch[at] = value;
        }
        if fix_crc {
            let crc = crc_fast::crc32_iscsi(&batch[21..]);
            batch[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        let _ = check(&batch);
        for batch in Batches::new(&batch).flatten() {
            let _ = batch.records().flatten().flat_map(|record| record.headers).count();
        }
    }
}
