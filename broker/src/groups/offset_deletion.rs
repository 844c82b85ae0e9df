//! Offsets taken from a group: gone once that is durable (KIP-496).

use super::coordinator::{Coordinator, Purpose};
use super::group::{Group, GroupState};
use super::{Answer, Ticket};
use bytes::{Buf, Bytes};
use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::TopicPartition;
use millrace_storage::meta::keys;
use std::collections::BTreeSet;

/// The type of groups whose members say in their metadata which topics they subscribe to.
pub(super) const CONSUMERS: &str = "consumer";

impl Coordinator {
    /// Deletes offsets; one answer for all of them. Partitions without one are no error.
    pub fn delete_offsets(&mut self, ticket: Ticket, name: &str, partitions: Vec<TopicPartition>) {
        let partitions: BTreeSet<TopicPartition> = partitions.into_iter().collect();
        let slot = match self.check_offset_deletion(name) {
            Ok(slot) => slot,
            Err(error) => return self.answer(ticket, Answer::Code(error)),
        };
        let offsets = &mut self.group_mut(slot, name).expect("checked above").offsets;
        let present: Vec<_> = partitions.into_iter().filter(|p| offsets.committed(*p).is_some()).collect();
        if present.is_empty() {
            return self.answer(ticket, Answer::Code(ErrorCode::None));
        }
        offsets.begin();
        let writes = present.iter().map(|p| (keys::offset(slot, name, *p), None)).collect();
        self.write(
            slot,
            writes,
            Purpose::OffsetDeletion { ticket: Some(ticket), group: name.to_owned(), partitions: present },
        );
    }

    fn check_offset_deletion(&mut self, name: &str) -> Result<u16, ErrorCode> {
        let slot = self.slot_for(name)?;
        let group = self.group_mut(slot, name).ok_or(ErrorCode::GroupIdNotFound)?;
        let is_consumers = group.protocol_type.as_deref() == Some(CONSUMERS);
        if group.state != GroupState::Empty && !is_consumers {
            return Err(ErrorCode::NonEmptyGroup);
        }
        if self.is_behind() {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        Ok(slot)
    }

    /// Whether a member of the group subscribes to the topic, or may: nothing says what members of consumers subscribe to
    /// that have not chosen an assignor yet, or whose metadata can't be read. False for groups of other types.
    pub fn subscribes(&self, group: &str, topic: &str) -> bool {
        self.find(group).ok().flatten().is_some_and(|group| group.subscribes(topic))
    }
}

impl Group {
    pub(super) fn subscribes(&self, topic: &str) -> bool {
        if let Some(consumer) = &self.consumer {
            return consumer.subscribes(topic);
        }
        if self.protocol_type.as_deref() != Some(CONSUMERS) {
            return false;
        }
        let Some(protocol) = self.protocol.as_deref() else { return !self.members.is_empty() };
        self.members.values().any(|member| is_subscription_to(member.metadata(protocol), topic).unwrap_or(true))
    }
}

/// Whether `metadata` is that of a consumer (version, topics, more) that lists `topic`; `None` if it is none.
fn is_subscription_to(mut metadata: Bytes, topic: &str) -> Option<bool> {
    metadata.try_get_i16().ok()?;
    let count = metadata.try_get_i32().ok().filter(|count| *count >= 0)?;
    let mut is_listed = false;
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if length > metadata.len() {
            return None;
        }
        is_listed |= *metadata.split_to(length) == *topic.as_bytes();
    }
    Some(is_listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_found_and_of_damaged_metadata_nothing_is_known() {
        let metadata = Bytes::from_static(&[0, 1, 0, 0, 0, 2, 0, 1, b'a', 0, 2, b'b', b'c', 0, 0, 0, 0]);
        for (topic, found) in [("a", true), ("bc", true), ("b", false), ("", false)] {
            assert_eq!(is_subscription_to(metadata.clone(), topic), Some(found), "{topic}");
        }
        for length in 0..11 {
            assert_eq!(is_subscription_to(metadata.slice(..length), "bc"), None, "{length}");
        }
        let giant = Bytes::from_static(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(is_subscription_to(giant, "a"), None);
        let negative = Bytes::from_static(&[0, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert_eq!(is_subscription_to(negative, "a"), None);
    }
}
