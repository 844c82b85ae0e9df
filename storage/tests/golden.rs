//! The stored formats, version 1: golden bytes in `golden/` that every later version must still read, round trips of
//! random values, and mutated bytes.
//!
//! `MILLRACE_WRITE_GOLDEN=1 cargo test -p millrace-storage --test golden` writes files that are missing; it never
//! changes one.

use bytes::Bytes;
use millrace_storage::compaction::Segment;
use millrace_storage::env::WallMs;
use millrace_storage::format::checkpoint::{Checkpoint, ReferenceChunk};
use millrace_storage::format::manifest::{Manifest, NamedSegment, SegmentName};
use millrace_storage::format::object::{
    ObjectHeader, ObjectKind, decode_footer, decode_header, decode_object, decode_trailer, encode_header, encode_object,
};
use millrace_storage::format::{BatchEntry, Footer, HEADER_BYTES, LogStartEntry, PartitionEntry, TRAILER_BYTES};
use millrace_storage::ids::{BootId, LeaderEpoch, Offset, Seq, TopicId, TopicPartition, Wid, WriterId};
use millrace_storage::partition::{CommittedPartition, ObjectPlace, ProducerStamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, bytes).unwrap();
    }
    std::fs::read(&path).unwrap()
}

fn partition(topic: u128, index: u32) -> TopicPartition {
    TopicPartition { topic: TopicId(Uuid::from_u128(topic)), index }
}

fn header(kind: ObjectKind) -> ObjectHeader {
    let writer = WriterId { boot: BootId(0x0102_0304_0506_0708), lane: 3 };
    let wid = Wid(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
    ObjectHeader { kind, wid, writer, seq: Seq(42), sealed_at: WallMs(1_700_000_000_123) }
}

fn sample_entry(base: i64, position: u32) -> PartitionEntry {
    let producer = Some(ProducerStamp { id: 4000, epoch: 2, first_sequence: i32::MAX });
    PartitionEntry {
        partition: partition(0x1234, 7),
        epoch: LeaderEpoch(9),
        base: Offset(base),
        last: Offset(base + 12),
        position,
        length: 300,
        max_timestamp: 1_700_000_000_000,
        batches: vec![
            BatchEntry { offset_delta: 0, position_delta: 0, count: 10, producer, flags: 0 },
            BatchEntry { offset_delta: 10, position_delta: 200, count: 3, producer: None, flags: 0 },
        ],
    }
}

fn sample_footer() -> Footer {
    let log_starts = vec![LogStartEntry { partition: partition(0x1234, 8), offset: Offset(77) }];
    Footer { partitions: vec![sample_entry(1_000_000, 64)], log_starts }
}

fn sample_object() -> Vec<u8> {
    let body: Vec<u8> = (0..300u32).map(|n| n as u8).collect();
    let body = vec![Bytes::copy_from_slice(&body[..100]), Bytes::copy_from_slice(&body[100..])];
    encode_object(&header(ObjectKind::Data), body, &sample_footer(), 5).concat()
}

fn sample_state() -> CommittedPartition {
    let mut state = CommittedPartition::born(LeaderEpoch(8)).next_epoch();
    for n in 0..4u64 {
        let place = ObjectPlace { wid: Wid(n.into()), seq: Seq(100 - n), sealed_at: WallMs(1_700_000_000_000) };
        state.fold(place, &sample_entry(n as i64 * 13, 64)).unwrap();
    }
    state.fold_log_start(Offset(20));
    state.next_epoch()
}

fn sample_chunk() -> ReferenceChunk {
    ReferenceChunk { partitions: BTreeMap::from([(partition(0x1234, 7), sample_state().references.iter().collect())]) }
}

fn sample_checkpoint() -> Checkpoint {
    Checkpoint {
        wid: Wid(0xabcd),
        number: 6,
        s: Seq(1000),
        lw: Seq(17),
        producer_id_high_water: 5000,
        chunks: vec![sample_chunk().encode(6).0],
        partitions: BTreeMap::from([(partition(0x1234, 7), sample_state())]),
    }
}

fn sample_manifest() -> Manifest {
    let named = |number, base, last, max_timestamp, created| NamedSegment {
        name: SegmentName { wid: Wid(0xabcd), number },
        segment: Segment { base: Offset(base), last: Offset(last), bytes: 1 << 26, max_timestamp, created },
        records: 900,
    };
    Manifest {
        partition: partition(0x1234, 7),
        log_start: Offset(20),
        covered: Offset(5000),
        epochs: sample_state().epochs,
        segments: vec![
            named(300, 13, 999, 1_700_000_000_000, WallMs(1_700_000_060_000)),
            named(2, 1000, 4999, -1, WallMs(1_700_000_050_000)),
        ],
    }
}

#[test]
fn a_fence_is_the_golden_64_bytes() {
    let bytes = encode_header(&header(ObjectKind::Fence));
    assert_eq!(bytes.len(), HEADER_BYTES);
    assert_eq!(golden("fence.v1", &bytes), bytes);
    assert_eq!(decode_header(&bytes), Ok(header(ObjectKind::Fence)));
}

#[test]
fn an_object_is_its_golden_bytes_and_folds_from_its_end_alone() {
    let bytes = sample_object();
    assert_eq!(golden("object.v1", &bytes), bytes);
    assert_eq!(decode_object(&bytes), Ok((header(ObjectKind::Data), sample_footer(), 5)));
    let trailer = decode_trailer(&bytes[bytes.len() - TRAILER_BYTES..]).unwrap();
    let suffix = &bytes[bytes.len() - trailer.suffix_bytes() as usize..];
    let footer = &suffix[..trailer.footer_length as usize];
    assert_eq!(decode_footer(footer, &trailer), Ok((header(ObjectKind::Data), sample_footer())));
}

#[test]
fn a_checkpoint_is_its_golden_bytes() {
    let bytes = sample_checkpoint().encode();
    assert_eq!(golden("checkpoint.v1", &bytes), bytes);
    let mut read = Checkpoint::decode(&bytes).unwrap();
    assert!(read.check_attached().is_err());
    read.attach(&sample_chunk()).unwrap();
    assert_eq!(read.check_attached(), Ok(()));
    assert_eq!(read, sample_checkpoint());
}

#[test]
fn a_reference_chunk_is_its_golden_bytes() {
    let (name, bytes) = sample_chunk().encode(6);
    assert_eq!(golden("references.v1", &bytes), bytes);
    assert_eq!(ReferenceChunk::decode(&bytes, &name), Ok(sample_chunk()));
    let mut other = name;
    other.crc ^= 1;
    assert!(ReferenceChunk::decode(&bytes, &other).is_err(), "not the chunk that the checkpoint names");
}

#[test]
fn a_manifest_is_its_golden_bytes() {
    let bytes = sample_manifest().encode();
    assert_eq!(golden("manifest.v1", &bytes), bytes);
    assert_eq!(Manifest::decode(&bytes), Ok(sample_manifest()));
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let (name, chunk) = sample_chunk().encode(6);
    let (object, checkpoint, manifest) = (sample_object(), sample_checkpoint().encode(), sample_manifest().encode());
    type Refuses<'a> = Box<dyn Fn(&[u8]) -> bool + 'a>;
    let formats: [(&[u8], Refuses<'_>); 4] = [
        (&object, Box::new(|bytes| decode_object(bytes).is_err())),
        (&checkpoint, Box::new(|bytes| Checkpoint::decode(bytes).is_err())),
        (&manifest, Box::new(|bytes| Manifest::decode(bytes).is_err())),
        (&chunk, Box::new(|bytes| ReferenceChunk::decode(bytes, &name).is_err())),
    ];
    for (bytes, refuses) in formats {
        for at in 0..bytes.len() {
            let mut changed = bytes.to_vec();
            changed[at] ^= 0x10;
            assert!(refuses(&changed), "byte {at} changed");
            assert!(refuses(&bytes[..at]), "cut at {at}");
        }
    }
}

/// Random bytes in place of some, the closing CRC made right again: only the decoder itself stands in the way.
fn mutated(bytes: &[u8], changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes[..bytes.len() - 4].to_vec();
    for (index, value) in changes {
        let at = 9 + index.index(bytes.len() - 9);
        bytes[at] = *value;
    }
    let crc = crc_fast::crc32_iscsi(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

proptest! {
    #[test]
    fn mutated_bytes_with_a_right_crc_never_panic(changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..5)) {
        if let Ok(checkpoint) = Checkpoint::decode(&mutated(&sample_checkpoint().encode(), &changes)) {
            prop_assert!(Checkpoint::decode(&checkpoint.encode()).is_ok(), "what is read can be written");
        }
        if let Ok(manifest) = Manifest::decode(&mutated(&sample_manifest().encode(), &changes)) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest), "what is read can be written");
        }
        let (mut name, bytes) = sample_chunk().encode(6);
        let bytes = mutated(&bytes, &changes);
        name.crc = u32::from_le_bytes(*bytes.last_chunk().unwrap());
        if let Ok(chunk) = ReferenceChunk::decode(&bytes, &name) {
            let _ = sample_checkpoint().attach(&chunk);
        }
    }

    #[test]
    fn mutated_footers_with_a_right_crc_never_panic(changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..5)) {
        let bytes = sample_object();
        let at = bytes.len() - TRAILER_BYTES;
        let mut trailer = decode_trailer(&bytes[at..]).unwrap();
        let mut footer = bytes[trailer.footer_position as usize..at].to_vec();
        for (index, value) in &changes {
            let at = HEADER_BYTES + index.index(footer.len() - HEADER_BYTES);
            footer[at] = *value;
        }
        trailer.footer_crc = crc_fast::crc32_iscsi(&[&footer[..], &bytes[at..at + 20]].concat());
        if let Ok((header, footer)) = decode_footer(&footer, &trailer) {
            let body = vec![Bytes::from(vec![0; 300])];
            let again = encode_object(&header, body, &footer, 5).concat();
            prop_assert_eq!(decode_object(&again), Ok((header, footer, 5)));
        }
    }

    #[test]
    fn random_objects_come_back(
        seq: u64,
        entries in proptest::collection::vec((any::<u128>(), 0..i64::from(i32::MAX), proptest::collection::vec((1..2000u32, 61..5000u32, any::<bool>()), 1..8)), 0..6),
    ) {
        let (mut footer, mut body) = (Footer::default(), Vec::new());
        for (topic, base, batches) in entries {
            let position = HEADER_BYTES as u32 + body.iter().map(Bytes::len).sum::<usize>() as u32;
            let (mut offset_delta, mut position_delta, mut list) = (0, 0, Vec::new());
            for (count, length, idempotent) in batches {
                let producer = idempotent.then_some(ProducerStamp { id: base, epoch: 0, first_sequence: count as i32 });
                list.push(BatchEntry { offset_delta, position_delta, count, producer, flags: 0 });
                offset_delta += count;
                position_delta += length;
                body.push(Bytes::from(vec![count as u8; length as usize]));
            }
            footer.partitions.push(PartitionEntry {
                partition: partition(topic, 0),
                epoch: LeaderEpoch(1),
                base: Offset(base),
                last: Offset(base + i64::from(offset_delta) - 1),
                position,
                length: position_delta,
                max_timestamp: -1,
                batches: list,
            });
        }
        let header = ObjectHeader { seq: Seq(seq), ..header(ObjectKind::Data) };
        let bytes = encode_object(&header, body, &footer, seq).concat();
        prop_assert_eq!(decode_object(&bytes), Ok((header, footer, seq)));
    }
}
