//! What consumers say to each other inside the classic protocol: subscriptions and assignments (the schemas
//! `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment` of the protocol guide, versions 0 to 3).
//!
//! A later version is read as the last one known here: its fields come first. What a client's own assignor adds in bytes
//! of its own is not looked into.

use super::Partitions;
use crate::control::ClusterImage;
use bytes::Bytes;
use millrace_protocol::StrBytes;
use millrace_protocol::wire::{DecodeError, Reader, Writer};
use millrace_storage::ids::TopicPartition;
use std::collections::{BTreeMap, BTreeSet};

/// First version that says which partitions the member has,
const OWNED: i16 = 1;
/// of which generation it has them,
const GENERATION: i16 = 2;
/// and where it is.
const RACK: i16 = 3;

/// What bytes are that are neither.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Malformed
    }
}

/// A member's subscription.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Subscription {
    /// Topics by name.
    pub(super) topics: BTreeSet<String>,
    /// What it has, by name.
    pub(super) owned: Vec<(String, i32)>,
    /// Its rack.
    pub(super) rack: Option<String>,
}

/// A member's assignment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Assignment {
    /// What it is to have, by name.
    pub(super) partitions: Vec<(String, i32)>,
    /// Whether an assignor of the client's own put something beside it.
    pub(super) has_user_data: bool,
}

/// Reads a subscription.
pub(super) fn subscription(bytes: &Bytes) -> Result<Subscription, Malformed> {
    let mut reader = Reader::new(bytes);
    let r = &mut reader;
    let version = version(r)?;
    let mut read = Subscription::default();
    for _ in 0..r.count(false, 2)?.ok_or(Malformed)? {
        read.topics.insert(text(r)?);
    }
    r.nullable_bytes(false)?;
    if version >= OWNED {
        read.owned = partitions(r)?;
    }
    if version >= GENERATION {
        r.i32()?;
    }
    if version >= RACK {
        read.rack = r.nullable_string(false)?.map(|rack| rack.as_str().to_owned()).filter(|rack| !rack.is_empty());
    }
    Ok(read)
}

/// Reads an assignment; no bytes at all are none.
pub(super) fn assignment(bytes: &Bytes) -> Result<Assignment, Malformed> {
    if bytes.is_empty() {
        return Ok(Assignment::default());
    }
    let mut reader = Reader::new(bytes);
    let r = &mut reader;
    version(r)?;
    let partitions = partitions(r)?;
    let has_user_data = r.nullable_bytes(false)?.is_some_and(|data| !data.is_empty());
    Ok(Assignment { partitions, has_user_data })
}

/// Writes an assignment in the version that the member's subscription has. Topics that are gone have no name, and are
/// left out.
pub(super) fn encode(partitions: &Partitions, like: &Bytes, image: &ClusterImage) -> Bytes {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        if let Some(name) = image.names.get(&partition.topic) {
            let index = i32::try_from(partition.index).expect("a topic has at most 2^31 partitions");
            by_topic.entry(name).or_default().push(index);
        }
    }
    const FITS: &str = "names come from topics, counts from their partitions";
    let mut w = Writer::new();
    w.i16(version(&mut Reader::new(like)).unwrap_or(0));
    w.length(Some(by_topic.len()), false).expect(FITS);
    for (name, indexes) in by_topic {
        w.string(Some(&StrBytes::from(name)), false).expect(FITS);
        w.length(Some(indexes.len()), false).expect(FITS);
        indexes.into_iter().for_each(|index| w.i32(index));
    }
    w.bytes(None, false).expect(FITS);
    w.concat()
}

/// Those of named partitions that are of topics that exist.
pub(super) fn resolve(named: &[(String, i32)], image: &ClusterImage) -> Partitions {
    let resolved = named.iter().filter_map(|(name, index)| {
        let topic = image.topics.get(name)?.id;
        Some(TopicPartition { topic, index: u32::try_from(*index).ok()? })
    });
    resolved.collect()
}

fn version(r: &mut Reader<'_>) -> Result<i16, Malformed> {
    let version = r.i16()?;
    if version < 0 { Err(Malformed) } else { Ok(version.min(RACK)) }
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    Ok(r.nullable_string(false)?.ok_or(Malformed)?.as_str().to_owned())
}

fn partitions(r: &mut Reader<'_>) -> Result<Vec<(String, i32)>, Malformed> {
    let mut read = Vec::new();
    for _ in 0..r.count(false, 6)?.ok_or(Malformed)? {
        let name = text(r)?;
        for _ in 0..r.count(false, 4)?.ok_or(Malformed)? {
            read.push((name.clone(), r.i32()?));
        }
    }
    Ok(read)
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A subscription as clients write it in version 3.
    pub(in super::super::super) fn subscribed(topics: &[&str], owned: &[(&str, &[i32])]) -> Bytes {
        const FITS: &str = "short";
        let mut w = Writer::new();
        w.i16(3);
        w.length(Some(topics.len()), false).expect(FITS);
        topics.iter().for_each(|topic| w.string(Some(&StrBytes::from(*topic)), false).expect(FITS));
        w.bytes(None, false).expect(FITS);
        w.length(Some(owned.len()), false).expect(FITS);
        for (topic, indexes) in owned {
            w.string(Some(&StrBytes::from(*topic)), false).expect(FITS);
            w.length(Some(indexes.len()), false).expect(FITS);
            indexes.iter().for_each(|index| w.i32(*index));
        }
        w.i32(7);
        w.string(Some(&StrBytes::from("r")), false).expect(FITS);
        w.concat()
    }

    #[test]
    fn a_subscription_of_each_version_is_read_and_one_that_is_cut_is_malformed() {
        let whole = subscribed(&["a", "bc"], &[("a", &[0, 2])]);
        let topics = BTreeSet::from(["a".to_owned(), "bc".to_owned()]);
        let owned = vec![("a".to_owned(), 0), ("a".to_owned(), 2)];
        let read = Subscription { topics: topics.clone(), owned: owned.clone(), rack: Some("r".into()) };
        assert_eq!(subscription(&whole), Ok(read.clone()));
        for length in 0..whole.len() {
            assert_eq!(subscription(&whole.slice(..length)), Err(Malformed), "cut at {length}");
        }
        for (version, owned, rack) in
            [(0, vec![], None), (1, owned.clone(), None), (2, owned.clone(), None), (9, owned, read.rack.clone())]
        {
            let mut bytes = whole.to_vec();
            bytes[1] = version;
            assert_eq!(subscription(&bytes.into()), Ok(Subscription { topics: topics.clone(), owned, rack }));
        }
        assert_eq!(subscription(&Bytes::from_static(&[0xff, 0xff, 0, 0, 0, 0])), Err(Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_read_or_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = (subscription(&bytes), assignment(&bytes));
        }
    }
}
