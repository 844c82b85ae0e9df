//! The stored form of a group of the consumer protocol: version u16, then fields in order on the protocol's writer
//! (flexible form). It stands under the same key as a classic group's; the version tells them apart: version 2 has members
//! of this protocol only, version 3 says of each member what it said of itself in the classic protocol, if it speaks that.
//! A group is written in the lowest version that holds it.

use super::super::record::{put_text, put_time, text, time};
use super::Partitions;
use super::assignors::Assignor;
use super::journal::Journal;
use super::state::{ClassicSide, ConsumerGroup, ConsumerMember, Step};
use crate::groups::group::Protocol;
use bytes::Bytes;
use millrace_protocol::wire::{DecodeError, Reader, Writer};
use millrace_storage::env::Mono;
use millrace_storage::ids::{TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// Version of the record of a group all of whose members speak the consumer protocol. Classic groups have 1.
const VERSION: i16 = 2;
/// Version of the record of a group with members of both protocols.
const MIXED_VERSION: i16 = 3;
/// The versions of groups of the consumer protocol.
pub(in super::super) const VERSIONS: RangeInclusive<i16> = VERSION..=MIXED_VERSION;

const LENGTHS_FIT: &str = "bounded by the coordinator's limits";

/// A group.
pub(super) fn encode(group: &ConsumerGroup) -> Bytes {
    let is_mixed = group.members.values().any(|member| member.classic.is_some());
    let mut w = Writer::new();
    w.i16(if is_mixed { MIXED_VERSION } else { VERSION });
    w.i32(group.epoch);
    w.i32(group.assignment_epoch);
    put_text(&mut w, Some(group.assignor.name()));
    w.length(Some(group.counts.len()), true).expect(LENGTHS_FIT);
    for (topic, count) in &group.counts {
        w.uuid(topic.0);
        w.i32(i32::try_from(*count).expect("a topic has at most 2^31 partitions"));
    }
    w.length(Some(group.members.len()), true).expect(LENGTHS_FIT);
    for (id, member) in &group.members {
        put_text(&mut w, Some(id));
        put_member(&mut w, member);
        if is_mixed {
            put_classic_side(&mut w, member.classic.as_ref());
        }
    }
    w.concat()
}

fn put_classic_side(w: &mut Writer, classic: Option<&ClassicSide>) {
    w.bool(classic.is_some());
    let Some(classic) = classic else { return };
    put_time(w, classic.session_timeout);
    w.length(Some(classic.protocols.len()), true).expect(LENGTHS_FIT);
    for protocol in &classic.protocols {
        put_text(w, Some(&protocol.name));
        w.bytes(Some(&protocol.metadata), true).expect(LENGTHS_FIT);
    }
}

fn put_member(w: &mut Writer, member: &ConsumerMember) {
    put_text(w, member.instance.as_deref());
    put_text(w, member.rack.as_deref());
    put_text(w, Some(&member.client_id));
    put_text(w, Some(&member.client_host));
    put_time(w, member.rebalance_timeout);
    w.length(Some(member.topics.len()), true).expect(LENGTHS_FIT);
    member.topics.iter().for_each(|topic| put_text(w, Some(topic)));
    put_text(w, member.regex.as_deref());
    put_text(w, member.assignor.as_deref());
    w.i32(member.epoch);
    w.i32(member.previous_epoch);
    w.i8(match member.step {
        Step::Stable => 0,
        Step::Revoking => 1,
        Step::Waiting => 2,
    });
    for partitions in [&member.assigned, &member.revoking, &member.target] {
        w.length(Some(partitions.len()), true).expect(LENGTHS_FIT);
        for partition in partitions {
            w.uuid(partition.topic.0);
            w.i32(i32::try_from(partition.index).expect("a topic has at most 2^31 partitions"));
        }
    }
}

/// The group of a record; its members get a full session, and their time to give partitions up, from `now` on.
///
/// # Errors
/// In words, when the bytes are not such a record.
pub(in super::super) fn decode(now: Mono, session: Duration, value: &Bytes) -> Result<ConsumerGroup, String> {
    let mut reader = Reader::new(value);
    let r = &mut reader;
    let version = r.i16().map_err(|e| e.to_string())?;
    if !VERSIONS.contains(&version) {
        return Err(format!("version {version}, a consumer group has {VERSION} or {MIXED_VERSION}"));
    }
    let mut group = read_group(r, version, now.plus(session)).map_err(|e| e.to_string())?;
    for member in group.members.values_mut() {
        member.expires = now.plus(member.session(session));
        if member.step == Step::Revoking && member.classic.is_none() {
            member.revoke_by = Some(now.plus(member.rebalance_timeout));
        }
    }
    group.journal = Journal::of(value.clone());
    Ok(group)
}

fn read_group(r: &mut Reader<'_>, version: i16, expires: Mono) -> Result<ConsumerGroup, DecodeError> {
    let mut group = ConsumerGroup::new(r.i32()?);
    group.assignment_epoch = r.i32()?;
    group.assignor = text(r)?.and_then(|name| Assignor::by_name(&name)).unwrap_or(Assignor::Uniform);
    let mut counts = BTreeMap::new();
    for _ in 0..r.count(true, 20)?.unwrap_or(0) {
        let topic = TopicId(r.uuid()?);
        counts.insert(topic, u32::try_from(r.i32()?).unwrap_or(0));
    }
    group.counts = counts;
    for _ in 0..r.count(true, 1)?.unwrap_or(0) {
        let id = text(r)?.unwrap_or_default();
        let mut member = read_member(r, expires)?;
        if version >= MIXED_VERSION {
            member.classic = read_classic_side(r)?;
        }
        group.insert(id, member);
    }
    Ok(group)
}

fn read_member(r: &mut Reader<'_>, expires: Mono) -> Result<ConsumerMember, DecodeError> {
    let mut member = ConsumerMember::new(expires);
    member.instance = text(r)?;
    member.rack = text(r)?;
    member.client_id = text(r)?.unwrap_or_default();
    member.client_host = text(r)?.unwrap_or_default();
    member.rebalance_timeout = time(r)?;
    let mut topics = BTreeSet::new();
    for _ in 0..r.count(true, 1)?.unwrap_or(0) {
        topics.insert(text(r)?.unwrap_or_default());
    }
    member.topics = topics;
    member.regex = text(r)?;
    member.assignor = text(r)?;
    member.epoch = r.i32()?;
    member.previous_epoch = r.i32()?;
    member.step = match r.i8()? {
        0 => Step::Stable,
        1 => Step::Revoking,
        _ => Step::Waiting,
    };
    member.assigned = read_partitions(r)?;
    member.revoking = read_partitions(r)?;
    member.target = read_partitions(r)?;
    Ok(member)
}

fn read_classic_side(r: &mut Reader<'_>) -> Result<Option<ClassicSide>, DecodeError> {
    if !r.bool()? {
        return Ok(None);
    }
    let session_timeout = time(r)?;
    let mut protocols = Vec::new();
    for _ in 0..r.count(true, 2)?.unwrap_or(0) {
        let name = text(r)?.unwrap_or_default();
        protocols.push(Protocol { name, metadata: r.nullable_bytes(true)?.unwrap_or_default() });
    }
    Ok(Some(ClassicSide { session_timeout, protocols }))
}

fn read_partitions(r: &mut Reader<'_>) -> Result<Partitions, DecodeError> {
    let mut partitions = Partitions::new();
    for _ in 0..r.count(true, 20)?.unwrap_or(0) {
        let topic = TopicId(r.uuid()?);
        partitions.insert(TopicPartition { topic, index: u32::try_from(r.i32()?).unwrap_or(0) });
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group as version 2 stores it: every field of a member is set, and differs from its neighbours.
    fn group() -> ConsumerGroup {
        let topic = TopicId(uuid::Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10));
        let partitions =
            |indexes: &[u32]| indexes.iter().map(|index| TopicPartition { topic, index: *index }).collect();
        let mut group = ConsumerGroup::new(9);
        group.assignment_epoch = 8;
        group.counts.insert(topic, 4);
        let member = ConsumerMember {
            instance: Some("i".into()),
            rack: Some("r".into()),
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout: Duration::from_millis(500),
            topics: BTreeSet::from(["t".to_owned()]),
            regex: Some("x.*".into()),
            assignor: Some("range".into()),
            epoch: 7,
            previous_epoch: 6,
            step: Step::Revoking,
            assigned: partitions(&[0]),
            revoking: partitions(&[1, 2]),
            target: partitions(&[0, 3]),
            ..ConsumerMember::new(Mono(0))
        };
        group.insert("m".into(), member);
        group
    }

    #[test]
    fn version_2_keeps_its_bytes_and_reads_back() {
        let golden = concat!(
            "0002000000090000000808756e69666f726d020102030405060708090a0b0c0d0e0f100000000402026d0269",
            "02720263032f6800000000000001f402027404782e2a0672616e676500000007000000060102010203040506",
            "0708090a0b0c0d0e0f1000000000030102030405060708090a0b0c0d0e0f1000000001010203040506070809",
            "0a0b0c0d0e0f1000000002030102030405060708090a0b0c0d0e0f10000000000102030405060708090a0b0c",
            "0d0e0f1000000003",
        );
        let encoded = encode(&group());
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        let read = decode(Mono(0), Duration::ZERO, &encoded).expect("our own bytes");
        assert_eq!(encode(&read), encoded);
        assert_eq!(read.members["m"].revoke_by, Some(Mono(0).plus(Duration::from_millis(500))));
        for length in 0..encoded.len() {
            assert!(decode(Mono(0), Duration::ZERO, &encoded.slice(..length)).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn version_3_says_of_each_member_what_it_said_in_the_classic_protocol() {
        let mut group = group();
        let side = ClassicSide {
            session_timeout: Duration::from_millis(600),
            protocols: vec![Protocol { name: "p".into(), metadata: Bytes::from_static(b"ab") }],
        };
        let member = ConsumerMember { classic: Some(side), ..ConsumerMember::new(Mono(0)) };
        group.insert("n".into(), member);
        let encoded = encode(&group);
        let hex: String = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
        let golden = concat!(
            "0003000000090000000808756e69666f726d020102030405060708090a0b0c0d0e0f100000000403026d0269",
            "02720263032f6800000000000001f402027404782e2a0672616e676500000007000000060102010203040506",
            "0708090a0b0c0d0e0f1000000000030102030405060708090a0b0c0d0e0f1000000001010203040506070809",
            "0a0b0c0d0e0f1000000002030102030405060708090a0b0c0d0e0f10000000000102030405060708090a0b0c",
            "0d0e0f100000000300026e000001010000000000000000010000000000000000000000010101010000000000",
            "000258020270036162",
        );
        assert_eq!(hex, golden);
        let read = decode(Mono(0), Duration::ZERO, &encoded).expect("our own bytes");
        assert_eq!(encode(&read), encoded);
        assert_eq!(read.members["n"].expires, Mono(0).plus(Duration::from_millis(600)), "its own session");
        for length in 0..encoded.len() {
            assert!(decode(Mono(0), Duration::ZERO, &encoded.slice(..length)).is_err(), "cut at {length}");
        }
    }
}
