//! Groups of the consumer protocol as operators and offset requests see them.

use super::super::Caller;
use super::super::coordinator::Coordinator;
use super::state::{ConsumerGroup, ConsumerMember};
use super::{PAUSES, Partitions};
use millrace_protocol::error_code::ErrorCode;

/// A group as ConsumerGroupDescribe shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerGroupView {
    /// State, by Kafka's name.
    pub state: &'static str,
    /// The group's epoch.
    pub epoch: i32,
    /// The epoch of the target.
    pub assignment_epoch: i32,
    /// The assignor.
    pub assignor: &'static str,
    /// Members.
    pub members: Vec<ConsumerMemberView>,
}

/// A member as ConsumerGroupDescribe shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerMemberView {
    /// Id.
    pub member: String,
    /// Instance.
    pub instance: Option<String>,
    /// Rack.
    pub rack: Option<String>,
    /// Epoch.
    pub epoch: i32,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
    /// Client id.
    pub client_id: String,
    /// Client's address.
    pub client_host: String,
    /// Topics by name.
    pub topics: Vec<String>,
    /// Topics by expression.
    pub regex: Option<String>,
    /// What it has.
    pub assigned: Partitions,
    /// What it shall have.
    pub target: Partitions,
}

impl ConsumerGroup {
    fn view(&self) -> ConsumerGroupView {
        let member = |(id, member): (&String, &ConsumerMember)| ConsumerMemberView {
            member: id.clone(),
            instance: member.instance.clone(),
            rack: member.rack.clone(),
            epoch: member.epoch,
            is_classic: member.classic.is_some(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            topics: member.topics.iter().cloned().collect(),
            regex: member.regex.clone(),
            assigned: member.assigned.clone(),
            target: member.target.clone(),
        };
        ConsumerGroupView {
            state: self.state_name(),
            epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor: self.assignor.name(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Whether offsets may be committed by this caller: a member at its epoch, or an operator while nobody is there.
    pub(in super::super) fn check_commit(&self, caller: &Caller, knows_epochs: bool) -> Result<(), ErrorCode> {
        if caller.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&caller.member).ok_or(ErrorCode::UnknownMemberId)?;
        if !knows_epochs && member.classic.is_none() {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if caller.generation == PAUSES {
            return Err(ErrorCode::StaleMemberEpoch);
        }
        self.check_epoch_of(&caller.member, caller.generation)
    }
}

impl Coordinator {
    /// Describes a group of the consumer protocol.
    ///
    /// # Errors
    /// NOT_COORDINATOR, or GROUP_ID_NOT_FOUND with Kafka's words.
    pub fn describe_consumers(&self, name: &str) -> Result<ConsumerGroupView, (ErrorCode, Option<String>)> {
        let missing = |message| (ErrorCode::GroupIdNotFound, Some(message));
        if name.is_empty() {
            return Err((ErrorCode::InvalidGroupId, None));
        }
        let group = self.find(name).map_err(|error| (error, None))?;
        let group = group.ok_or_else(|| missing(format!("Group {name} not found.")))?;
        let consumer = group.consumer.as_ref();
        Ok(consumer.ok_or_else(|| missing(format!("Group {name} is not a consumer group.")))?.view())
    }

    /// Whether the group is one of the consumer protocol.
    pub fn has_consumer_protocol(&self, name: &str) -> bool {
        self.find(name).ok().flatten().is_some_and(|group| group.consumer.is_some())
    }

    /// Whether the offsets of a group may be read by this member (none: by an operator).
    ///
    /// # Errors
    /// UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH and ILLEGAL_GENERATION of groups of the consumer protocol.
    pub fn check_offset_fetch(&self, name: &str, member: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        let consumer = self.find(name)?.and_then(|group| group.consumer.as_ref());
        let Some(consumer) = consumer.filter(|_| member.is_some() || epoch >= 0) else { return Ok(()) };
        consumer.check_epoch_of(member.unwrap_or_default(), epoch)
    }
}
