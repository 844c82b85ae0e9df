//! The key schema of the metadata store, whole (PROTOCOL.md section 2).
//!
//! | key | value ([`super::records`]) | who writes |
//! |---|---|---|
//! | `/cluster` | cluster id (Kafka's), store prefix id | first start |
//! | `/broker/{name}`, leased | [`super::records::BrokerRecord`]: who lives, constant for a life | control task |
//! | `/controller`, leased | [`super::records::ControllerRecord`]: who places things; no safety role | control task |
//! | `/drain/{name}`, leased if it has a value | empty: an operator wants that broker left; else [`super::records::DrainRecord`]: that life leaves | an operator, control task |
//! | `/suspect/{name}/{observer}`, leased | [`super::records::SuspectRecord`]: does not answer that observer | control task |
//! | `/load/{name}`, leased | [`super::records::LoadRecord`]: what partitions cost that broker | control task |
//! | `/wal/{wid}` | [`super::records::WalRecord`] | its lane while OPEN, then fencers |
//! | `/partition/{topic id}/{index:010}` | [`super::records::PartitionRecord`] | lanes |
//! | `/wish/{topic id}/{index:010}` | [`super::records::WishRecord`]: desired shard | the controller |
//! | `/topic/{name}` | [`super::records::TopicRecord`] | control task |
//! | `/node/{name}/{shard}` | node id, decimal | control task |
//! | `/next-node` | first node id not yet given out, decimal | control task |
//! | `/pid` | first producer id not yet given out, decimal | control task |
//! | `/journal` | last number given out to a snapshot or mark in the bucket, decimal | whoever writes one |
//! | `/recovering` | id of the store that a rebuild is making of this one; gone when it is whole | `millrace recover` |
//! | `/slot/{slot:02}` | [`super::records::SlotRecord`]: coordinator slot | control task |
//! | `/slot-wish/{slot:02}` | [`super::records::WishRecord`]: desired coordinator | the controller |
//! | `/quota/{user}/{client id}` | [`super::records::QuotaRecord`]: what clients may send and receive | control task |
//! | `/setting/{node}` | [`super::records::SettingRecord`]: settings changed while brokers run | control task |
//! | `/group/{slot:02}/{group}` | group state, opaque to storage | coordinators |
//! | `/group-settings/{group}` | [`super::records::GroupSettingsRecord`] | control task |
//! | `/offset/{slot:02}/{group}/{topic id}/{index:010}` | committed offset, opaque to storage | coordinators |
//!
//! Names of groups, users and clients are percent-encoded so that `/` and control characters can't break a key. In
//! `/quota/` and `/setting/` a `*` stands for the default, and nothing for a part that an entity does not have.

use super::Key;
use super::records::{QuotaEntity, QuotaPart};
use crate::ids::{ShardIndex, TopicId, TopicPartition, Wid};
use std::fmt::Write;

/// `/cluster`.
pub const CLUSTER: &str = "/cluster";
/// `/next-node`.
pub const NEXT_NODE: &str = "/next-node";
/// `/pid`.
pub const PRODUCER_IDS: &str = "/pid";
/// `/journal`.
pub const JOURNAL: &str = "/journal";
/// `/recovering`.
pub const RECOVERING: &str = "/recovering";
/// Prefix of all keys.
pub const ALL: &str = "/";
/// Prefix of all brokers.
pub const BROKERS: &str = "/broker/";
/// `/controller`.
pub const CONTROLLER: &str = "/controller";
/// Prefix of the brokers that are to be left.
pub const DRAINS: &str = "/drain/";
/// Prefix of what observers suspect.
pub const SUSPECTS: &str = "/suspect/";
/// Prefix of what partitions cost each broker.
pub const LOADS: &str = "/load/";
/// Prefix of all write-ahead log records.
pub const WALS: &str = "/wal/";
/// Prefix of all partition records.
pub const PARTITIONS: &str = "/partition/";
/// Prefix of all topic records.
pub const TOPICS: &str = "/topic/";
/// Prefix of all wishes.
pub const WISHES: &str = "/wish/";
/// Prefix of all node ids.
pub const NODES: &str = "/node/";
/// Prefix of the states of all groups.
pub const GROUPS: &str = "/group/";
/// Prefix of all committed offsets.
pub const OFFSETS: &str = "/offset/";
/// Prefix of the settings of all groups.
pub const GROUP_SETTINGS: &str = "/group-settings/";
/// Prefix of all coordinator slots.
pub const SLOTS: &str = "/slot/";
/// Prefix of the wishes for coordinator slots.
pub const SLOT_WISHES: &str = "/slot-wish/";

/// Prefix of all quotas.
pub const QUOTAS: &str = "/quota/";
/// Prefix of all settings that were changed while brokers ran.
pub const SETTINGS: &str = "/setting/";

/// `/broker/{name}`.
pub fn broker(name: &str) -> Key {
    format!("{BROKERS}{}", encode(name))
}
/// The name of a `/broker/` key.
pub fn parse_broker(key: &str) -> Option<String> {
    decode(key.strip_prefix(BROKERS)?)
}
/// `/drain/{name}`.
pub fn drain(name: &str) -> Key {
    format!("{DRAINS}{}", encode(name))
}
/// The name of a `/drain/` key.
pub fn parse_drain(key: &str) -> Option<String> {
    decode(key.strip_prefix(DRAINS)?)
}
/// `/suspect/{name}/{observer}`.
pub fn suspect(name: &str, observer: &str) -> Key {
    format!("{SUSPECTS}{}/{}", encode(name), encode(observer))
}
/// Who is suspected and by whom, of a `/suspect/` key.
pub fn parse_suspect(key: &str) -> Option<(String, String)> {
    let (name, observer) = key.strip_prefix(SUSPECTS)?.split_once('/')?;
    Some((decode(name)?, decode(observer)?))
}
/// `/load/{name}`.
pub fn load(name: &str) -> Key {
    format!("{LOADS}{}", encode(name))
}
/// The name of a `/load/` key.
pub fn parse_load(key: &str) -> Option<String> {
    decode(key.strip_prefix(LOADS)?)
}
/// `/wal/{wid}`.
pub fn wal(wid: Wid) -> Key {
    format!("{WALS}{wid}")
}
/// The wid of a `/wal/` key.
pub fn parse_wal(key: &str) -> Option<Wid> {
    key.strip_prefix(WALS)?.parse().ok()
}
/// `/partition/{topic id}/{index}`.
pub fn partition(p: TopicPartition) -> Key {
    format!("{PARTITIONS}{}/{:010}", p.topic, p.index)
}
/// The partition of a `/partition/` key.
pub fn parse_partition(key: &str) -> Option<TopicPartition> {
    parse_topic_partition(key.strip_prefix(PARTITIONS)?)
}
fn parse_topic_partition(text: &str) -> Option<TopicPartition> {
    let (topic, index) = text.split_once('/')?;
    Some(TopicPartition { topic: TopicId(uuid::Uuid::try_parse(topic).ok()?), index: index.parse().ok()? })
}
/// Prefix of the partition records of one topic.
pub fn partitions_of(topic: TopicId) -> Key {
    format!("{PARTITIONS}{topic}/")
}
/// `/wish/{topic id}/{index}`.
pub fn wish(p: TopicPartition) -> Key {
    format!("{WISHES}{}/{:010}", p.topic, p.index)
}
/// The partition of a `/wish/` key.
pub fn parse_wish(key: &str) -> Option<TopicPartition> {
    parse_topic_partition(key.strip_prefix(WISHES)?)
}
/// `/topic/{name}`. Topic names are `[a-zA-Z0-9._-]+`, so they need no encoding.
pub fn topic(name: &str) -> Key {
    format!("{TOPICS}{name}")
}
/// `/node/{name}/{shard}`.
pub fn node(name: &str, shard: ShardIndex) -> Key {
    format!("{NODES}{}/{shard}", encode(name))
}
/// `/slot/{slot}`.
pub fn slot(slot: u16) -> Key {
    format!("{SLOTS}{slot:02}")
}
/// The slot of a `/slot/` key.
pub fn parse_slot(key: &str) -> Option<u16> {
    key.strip_prefix(SLOTS)?.parse().ok()
}
/// `/slot-wish/{slot}`.
pub fn slot_wish(slot: u16) -> Key {
    format!("{SLOT_WISHES}{slot:02}")
}
/// The slot of a `/slot-wish/` key.
pub fn parse_slot_wish(key: &str) -> Option<u16> {
    key.strip_prefix(SLOT_WISHES)?.parse().ok()
}
/// Prefix of the group states of one slot.
pub fn groups_of(slot: u16) -> Key {
    format!("/group/{slot:02}/")
}
/// `/group/{slot}/{group}`.
pub fn group(slot: u16, group: &str) -> Key {
    format!("/group/{slot:02}/{}", encode(group))
}
/// `/group-settings/{group}`.
pub fn group_settings(group: &str) -> Key {
    format!("{GROUP_SETTINGS}{}", encode(group))
}
/// The group of a `/group-settings/` key.
pub fn parse_group_settings(key: &str) -> Option<String> {
    decode(key.strip_prefix(GROUP_SETTINGS)?)
}
/// Prefix of the committed offsets of one slot.
pub fn offsets_of(slot: u16) -> Key {
    format!("/offset/{slot:02}/")
}
/// `/offset/{slot}/{group}/{topic id}/{index}`.
pub fn offset(slot: u16, group: &str, p: TopicPartition) -> Key {
    format!("/offset/{slot:02}/{}/{}/{:010}", encode(group), p.topic, p.index)
}
/// Group and partition of an `/offset/` key.
pub fn parse_offset(key: &str) -> Option<(String, TopicPartition)> {
    let mut parts = key.strip_prefix("/offset/")?.splitn(4, '/').skip(1);
    let group = decode(parts.next()?)?;
    let topic = TopicId(uuid::Uuid::try_parse(parts.next()?).ok()?);
    Some((group, TopicPartition { topic, index: parts.next()?.parse().ok()? }))
}

/// `/quota/{user}/{client id}`.
pub fn quota(entity: &QuotaEntity) -> Key {
    let part = |part: &QuotaPart| match part {
        QuotaPart::Absent => String::new(),
        QuotaPart::Default => DEFAULT.to_owned(),
        QuotaPart::Named(name) => encode(name),
    };
    format!("{QUOTAS}{}/{}", part(&entity.user), part(&entity.client_id))
}
/// The entity of a `/quota/` key.
pub fn parse_quota(key: &str) -> Option<QuotaEntity> {
    let part = |text: &str| match text {
        "" => Some(QuotaPart::Absent),
        DEFAULT => Some(QuotaPart::Default),
        name => decode(name).map(QuotaPart::Named),
    };
    let (user, client_id) = key.strip_prefix(QUOTAS)?.split_once('/')?;
    Some(QuotaEntity { user: part(user)?, client_id: part(client_id)? })
}
/// `/setting/{node}`; `None`: of all nodes.
pub fn setting(node: Option<i32>) -> Key {
    node.map_or_else(|| format!("{SETTINGS}{DEFAULT}"), |node| format!("{SETTINGS}{node}"))
}
/// The node of a `/setting/` key; `None` if it is none, `Some(None)` for all nodes.
pub fn parse_setting(key: &str) -> Option<Option<i32>> {
    match key.strip_prefix(SETTINGS)? {
        DEFAULT => Some(None),
        node => node.parse().ok().map(Some),
    }
}

/// What stands for the default. Encoded names have no such character.
const DEFAULT: &str = "*";

/// Percent-encodes everything but `[a-zA-Z0-9._-]`.
pub fn encode(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-') {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    out
}

/// The opposite of [`encode`]; `None` if the text was not made by it.
pub fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_what_it_was_made_from() {
        let p = TopicPartition { topic: TopicId(uuid::Uuid::from_u128(7)), index: 42 };
        assert_eq!(parse_partition(&partition(p)), Some(p));
        assert_eq!(parse_offset(&offset(3, "a/ü %x", p)), Some(("a/ü %x".to_owned(), p)));
        assert_eq!(parse_wal(&wal(Wid(9))), Some(Wid(9)));
        assert_eq!(parse_wish(&wish(p)), Some(p));
        assert_eq!((parse_slot(&slot(7)), parse_slot_wish(&slot_wish(63))), (Some(7), Some(63)));
        assert_eq!(parse_broker(&broker("a/ü %x")), Some("a/ü %x".to_owned()));
        assert_eq!(parse_load(&load("a/ü %x")), Some("a/ü %x".to_owned()));
        assert_eq!(parse_drain(&drain("a/ü %x")), Some("a/ü %x".to_owned()));
        assert_eq!(parse_suspect(&suspect("a/b", "c d")), Some(("a/b".to_owned(), "c d".to_owned())));
        assert_eq!(parse_group_settings(&group_settings("a/ü %x")), Some("a/ü %x".to_owned()));
        for part in [QuotaPart::Absent, QuotaPart::Default, QuotaPart::Named("a/* ü".to_owned())] {
            let entity = QuotaEntity { user: part.clone(), client_id: QuotaPart::Default };
            assert_eq!(parse_quota(&quota(&entity)), Some(entity));
            let entity = QuotaEntity { user: QuotaPart::Named("*".to_owned()), client_id: part };
            assert_eq!(parse_quota(&quota(&entity)), Some(entity));
        }
        assert_eq!((parse_setting(&setting(None)), parse_setting(&setting(Some(7)))), (Some(None), Some(Some(7))));
    }

    #[test]
    fn damaged_percent_encoding_is_refused() {
        assert_eq!(decode("a%"), None);
        assert_eq!(decode("a%4"), None);
        assert_eq!(decode("a%zz"), None);
        assert_eq!(decode("%ff"), None);
    }
}
