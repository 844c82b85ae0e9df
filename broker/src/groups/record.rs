//! Stored forms of groups and offsets: version u16, then fields in order on the protocol's writer (flexible form).
//! Groups of the consumer protocol stand under the same keys with versions of their own (`consumer::record`).
//! Version N reads N − 1; a group of a later version is an error, never skipped.

use super::consumer::record as consumer_record;
use super::group::{Group, GroupState, Member, Protocol};
use super::offsets::{CommittedOffset, GroupOffsets};
use bytes::Bytes;
use millrace_protocol::string::StrBytes;
use millrace_protocol::wire::{DecodeError, Reader, Writer};
use millrace_storage::env::Mono;
use millrace_storage::meta::{Key, keys};
use std::collections::BTreeMap;
use std::time::Duration;

/// Version of both records.
const VERSION: i16 = 1;
/// Version of the record of an offset that says when it shall go: as version 1, and that.
const EXPIRING_VERSION: i16 = 2;
/// Version of the record of a classic group without members: as version 1, and since when that is so. (Those between are
/// groups of the consumer protocol.)
const EMPTY_VERSION: i16 = 4;

/// A stored record that can't be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("coordinator record {key}: {detail}")]
pub struct RecordError {
    /// Where it is stored.
    pub key: Key,
    /// What is wrong.
    pub detail: String,
}

const LENGTHS_FIT: &str = "bounded by the coordinator's limits";

/// A group with its generation and members.
pub(super) fn encode_group(group: &Group) -> Bytes {
    let empty_since = group.empty_since.filter(|_| group.members.is_empty());
    let mut w = Writer::new();
    w.i16(if empty_since.is_some() { EMPTY_VERSION } else { VERSION });
    w.i32(group.generation);
    put_text(&mut w, group.protocol_type.as_deref());
    put_text(&mut w, group.protocol.as_deref());
    put_text(&mut w, group.leader.as_deref());
    w.length(Some(group.members.len()), true).expect(LENGTHS_FIT);
    for (id, member) in &group.members {
        put_text(&mut w, Some(id));
        put_text(&mut w, member.instance.as_deref());
        put_text(&mut w, Some(&member.client_id));
        put_text(&mut w, Some(&member.client_host));
        put_time(&mut w, member.session_timeout);
        put_time(&mut w, member.rebalance_timeout);
        w.length(Some(member.protocols.len()), true).expect(LENGTHS_FIT);
        for protocol in &member.protocols {
            put_text(&mut w, Some(&protocol.name));
            w.bytes(Some(&protocol.metadata), true).expect(LENGTHS_FIT);
        }
        w.bytes(Some(member.proposed.as_ref().unwrap_or(&member.assignment)), true).expect(LENGTHS_FIT);
    }
    if let Some(since) = empty_since {
        w.i64(since);
    }
    w.concat()
}

/// A committed offset.
pub(super) fn encode_offset(offset: &CommittedOffset) -> Bytes {
    let mut w = Writer::new();
    w.i16(if offset.expires_at.is_some() { EXPIRING_VERSION } else { VERSION });
    w.i64(offset.offset);
    w.i32(offset.leader_epoch);
    put_text(&mut w, Some(&offset.metadata));
    w.i64(offset.committed_at);
    if let Some(at) = offset.expires_at {
        w.i64(at);
    }
    w.concat()
}

/// The groups of a slot from what is stored of it.
pub(super) fn load(
    now: Mono,
    consumer_session: Duration,
    groups: &[(Key, Bytes)],
    offsets: &[(Key, Bytes)],
) -> Result<BTreeMap<String, Group>, RecordError> {
    let mut loaded: BTreeMap<String, Group> = BTreeMap::new();
    for (key, value) in groups {
        let error = |detail: String| RecordError { key: key.clone(), detail };
        let name = key.splitn(4, '/').nth(3).and_then(keys::decode).ok_or_else(|| error("not a group's key".into()))?;
        loaded.insert(name, decode_group(now, consumer_session, value).map_err(error)?);
    }
    let mut by_group: BTreeMap<String, BTreeMap<_, _>> = BTreeMap::new();
    for (key, value) in offsets {
        let error = |detail: String| RecordError { key: key.clone(), detail };
        let (name, partition) = keys::parse_offset(key).ok_or_else(|| error("not an offset's key".into()))?;
        let offset = decode_offset(value).map_err(|e| error(e.to_string()))?;
        by_group.entry(name).or_default().insert(partition, offset);
    }
    for (name, offsets) in by_group {
        loaded.entry(name).or_insert_with(Group::new).offsets = GroupOffsets::from_durable(offsets);
    }
    Ok(loaded)
}

pub(super) fn decode_group(now: Mono, consumer_session: Duration, value: &Bytes) -> Result<Group, String> {
    let mut group = Group::new();
    if Reader::new(value).i16().is_ok_and(|version| consumer_record::VERSIONS.contains(&version)) {
        group.consumer = Some(consumer_record::decode(now, consumer_session, value)?);
        return Ok(group);
    }
    let mut reader = Reader::new(value);
    let r = &mut reader;
    let version = check_version(r, &[VERSION, EMPTY_VERSION])?;
    let mut read = || -> Result<(), DecodeError> {
        group.generation = r.i32()?;
        group.protocol_type = text(r)?;
        group.protocol = text(r)?;
        group.leader = text(r)?;
        for _ in 0..r.count(true, 1)?.unwrap_or(0) {
            let id = text(r)?.unwrap_or_default();
            let member = read_member(r, now)?;
            if let Some(instance) = &member.instance {
                group.statics.insert(instance.clone(), id.clone());
            }
            group.members.insert(id, member);
        }
        if version == EMPTY_VERSION {
            group.empty_since = Some(r.i64()?);
        }
        Ok(())
    };
    read().map_err(|e| e.to_string())?;
    // Only assignments and empty groups are stored.
    group.state = if group.members.is_empty() { GroupState::Empty } else { GroupState::Stable };
    Ok(group)
}

fn read_member(r: &mut Reader<'_>, now: Mono) -> Result<Member, DecodeError> {
    let instance = text(r)?;
    let client_id = text(r)?.unwrap_or_default();
    let client_host = text(r)?.unwrap_or_default();
    let session_timeout = time(r)?;
    let rebalance_timeout = time(r)?;
    let mut protocols = Vec::new();
    for _ in 0..r.count(true, 2)?.unwrap_or(0) {
        let name = text(r)?.unwrap_or_default();
        protocols.push(Protocol { name, metadata: r.nullable_bytes(true)?.unwrap_or_default() });
    }
    Ok(Member {
        instance,
        client_id,
        client_host,
        session_timeout,
        rebalance_timeout,
        protocols,
        assignment: r.nullable_bytes(true)?.unwrap_or_default(),
        proposed: None,
        joining: None,
        syncing: None,
        is_new: false,
        expires: now.plus(session_timeout),
    })
}

fn decode_offset(value: &Bytes) -> Result<CommittedOffset, String> {
    let mut reader = Reader::new(value);
    let version = check_version(&mut reader, &[VERSION, EXPIRING_VERSION])?;
    let mut read = || -> Result<CommittedOffset, DecodeError> {
        let r = &mut reader;
        Ok(CommittedOffset {
            offset: r.i64()?,
            leader_epoch: r.i32()?,
            metadata: text(r)?.unwrap_or_default(),
            committed_at: r.i64()?,
            expires_at: if version == EXPIRING_VERSION { Some(r.i64()?) } else { None },
        })
    };
    read().map_err(|e| e.to_string())
}

fn check_version(r: &mut Reader<'_>, known: &[i16]) -> Result<i16, String> {
    let version = r.i16().map_err(|e| e.to_string())?;
    if known.contains(&version) { Ok(version) } else { Err(format!("version {version}, this program reads {known:?}")) }
}

pub(super) fn put_text(w: &mut Writer, text: Option<&str>) {
    w.string(text.map(StrBytes::from).as_ref(), true).expect(LENGTHS_FIT);
}

pub(super) fn put_time(w: &mut Writer, time: Duration) {
    w.i64(i64::try_from(time.as_millis()).expect("timeouts come as 32-bit milliseconds"));
}

pub(super) fn text(r: &mut Reader<'_>) -> Result<Option<String>, DecodeError> {
    Ok(r.nullable_string(true)?.map(|text| text.as_str().to_owned()))
}

pub(super) fn time(r: &mut Reader<'_>) -> Result<Duration, DecodeError> {
    Ok(Duration::from_millis(u64::try_from(r.i64()?).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &Bytes) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn an_offset_of_either_version_reads_back_as_it_was_stored() {
        let kept = CommittedOffset {
            offset: 7,
            leader_epoch: 3,
            metadata: "m".into(),
            committed_at: 0x0102,
            expires_at: None,
        };
        let expiring = CommittedOffset { expires_at: Some(0x0304), ..kept.clone() };
        let golden = [
            (kept, "0001000000000000000700000003026d0000000000000102"),
            (expiring, "0002000000000000000700000003026d00000000000001020000000000000304"),
        ];
        for (offset, bytes) in golden {
            let encoded = encode_offset(&offset);
            assert_eq!(hex(&encoded), bytes);
            assert_eq!(decode_offset(&encoded), Ok(offset));
            for length in 0..encoded.len() {
                assert!(decode_offset(&encoded.slice(..length)).is_err(), "cut at {length}");
            }
        }
        assert!(decode_offset(&Bytes::from_static(&[0, 3])).is_err(), "a later version");
    }

    #[test]
    fn an_empty_group_of_either_version_reads_back_as_it_was_stored() {
        let mut group = Group::new();
        group.generation = 5;
        group.protocol_type = Some("consumer".into());
        // As version 1 stored it.
        let old = encode_group(&group);
        assert_eq!(hex(&old), "00010000000509636f6e73756d6572000001");
        let read = decode_group(Mono(0), Duration::ZERO, &old).expect("our own bytes");
        assert_eq!((read.generation, read.empty_since), (5, None));
        group.empty_since = Some(0x0102_0304_0506);
        let new = encode_group(&group);
        assert_eq!(hex(&new), "00040000000509636f6e73756d65720000010000010203040506");
        let read = decode_group(Mono(0), Duration::ZERO, &new).expect("our own bytes");
        assert_eq!(read, group);
        for length in 0..new.len() {
            assert!(decode_group(Mono(0), Duration::ZERO, &new.slice(..length)).is_err(), "cut at {length}");
        }
        assert!(decode_group(Mono(0), Duration::ZERO, &Bytes::from_static(&[0, 5])).is_err(), "a later version");
    }
}
