//! Groups of the consumer protocol (KIP-848): the coordinator assigns, each member follows at its own pace.
//!
//! Every change of members, subscriptions or topics makes a new *group epoch*; the assignor makes a *target* for it; each
//! member is led to its part of the target through its heartbeats, in steps: it gives up what it must, then takes what the
//! others have given up.
//!
//! 1. A partition is held by at most one member: what one has not yet given up is in nobody else's assignment.
//! 2. A member's epoch never falls, and equals the target's once it has given up all that it must.
//! 3. What an answer says is durable before it leaves; what could not be stored is undone, and whoever asked is told.
//!
//! [`assignors`] and [`state`] are pure; [`heartbeat`] and [`journal`] are the coordinator's part. [`classic`] serves the
//! members of such a group that speak the classic protocol, and [`migration`] changes groups from one protocol to the
//! other while their members stay.

mod assignors;
mod classic;
mod embedded;
pub(super) mod heartbeat;
pub(super) mod journal;
mod migration;
pub(super) mod record;
pub(super) mod state;
mod subscription;
#[cfg(test)]
mod tests;
pub mod view;

use millrace_protocol::error_code::ErrorCode;
use millrace_storage::ids::TopicPartition;
use std::collections::BTreeSet;
use std::time::Duration;

/// The type of the groups that members of this protocol can be in.
pub(super) const CONSUMERS: &str = "consumer";

/// Partitions of any topics.
pub type Partitions = BTreeSet<TopicPartition>;

/// The epoch with which a member joins,
pub(super) const JOINS: i32 = 0;
/// with which it leaves,
pub(super) const LEAVES: i32 = -1;
/// and with which a static member leaves that will be back.
pub(super) const PAUSES: i32 = -2;

/// A ConsumerGroupHeartbeat request. `None`: unchanged since the member last said so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group: String,
    /// The member's id.
    pub member: String,
    /// Whether the member must bring its id (version 1).
    pub brings_id: bool,
    /// Its epoch; 0 joins, −1 leaves, −2 leaves for a while.
    pub epoch: i32,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Its rack.
    pub rack: Option<String>,
    /// How long it may take to give partitions up.
    pub rebalance_timeout: Option<Duration>,
    /// Topics by name.
    pub topics: Option<BTreeSet<String>>,
    /// Topics by a regular expression.
    pub regex: Option<String>,
    /// The assignor it prefers.
    pub assignor: Option<String>,
    /// What it owns; partitions that can't exist are left out.
    pub owned: Option<Partitions>,
    /// From the request's header.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
}

/// The answer to a [`ConsumerHeartbeat`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeartbeatAnswer {
    /// NONE or why not.
    pub error: ErrorCode,
    /// The error in words.
    pub message: Option<String>,
    /// The member's id; none with errors.
    pub member: Option<String>,
    /// Its epoch.
    pub epoch: i32,
    /// How soon it shall come again; 0 with errors and to those who left.
    pub interval: Duration,
    /// What it shall own, if that is news to it.
    pub assignment: Option<Partitions>,
}

/// Why a heartbeat is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) error: ErrorCode,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(error: ErrorCode, message: impl Into<String>) -> Refusal {
        Refusal { error, message: message.into() }
    }
}

impl HeartbeatAnswer {
    /// An answer that tells of an error only.
    pub(super) fn failed(Refusal { error, message }: Refusal) -> HeartbeatAnswer {
        let message = if message.is_empty() { None } else { Some(message) };
        HeartbeatAnswer { error, message, member: None, epoch: 0, interval: Duration::ZERO, assignment: None }
    }
}
