//! Consumer groups, of the classic protocol and ([`consumer`]) of KIP-848's: a pure coordinator (events and `now` in, answers and writes out).
//!
//! Every group lies in one of the coordinator slots; a shard coordinates the groups of the slots that it was granted.
//! A request names itself by a [`Ticket`]; its answer comes out later under the same ticket, at once where nothing has
//! to wait.
//!
//! Invariants:
//! 1. What an answer tells a member to rely on (a generation's assignment, a committed offset) is durable first, so a
//!    restart of the coordinator needs no rebalance.
//! 2. Every ticket is answered exactly once; a slot that is revoked answers all of its tickets NOT_COORDINATOR.
//! 3. Writes of one slot leave in the order in which they were decided.
//! 4. Members, pending members, metadata and offsets of a shard's groups have bounds ([`Limits`]), and so has the
//!    memory that all of them take together.
//!
//! The states and their moves are Apache Kafka's (its group coordinator and KIP-62, 134, 345, 394, 800, 814); who sends
//! the bytes is no business of this module.

pub mod consumer;
mod coordinator;
mod group;
mod join;
mod membership;
mod memory;
mod offset_deletion;
mod offset_expiry;
mod offsets;
mod record;
mod sync;
#[cfg(test)]
mod tests;

pub use coordinator::{Coordinator, Output, WriteToken, slot_of};
pub use group::{GroupState, Protocol};
pub use membership::{GroupView, Leaver, ListedGroup, MemberView};
pub use offsets::CommittedOffset;
pub use record::RecordError;

use bytes::Bytes;
use millrace_protocol::error_code::ErrorCode;
use std::time::Duration;

/// Names a request that waits for its answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// Bounds and delays; the names of Kafka's settings are in the comments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// `group.min.session.timeout.ms`.
    pub min_session: Duration,
    /// `group.max.session.timeout.ms`.
    pub max_session: Duration,
    /// `group.initial.rebalance.delay.ms`: how long the first members of an empty group wait for more.
    pub initial_rebalance_delay: Duration,
    /// `group.consumer.session.timeout.ms`.
    pub consumer_session: Duration,
    /// `group.consumer.heartbeat.interval.ms`.
    pub consumer_interval: Duration,
    /// `group.max.size` and `group.consumer.max.size`: members of one group, pending ones included.
    pub members: usize,
    /// Groups that one shard coordinates.
    pub groups: usize,
    /// Bytes of one member's subscription and of one assignment.
    pub member_bytes: usize,
    /// `offset.metadata.max.bytes`.
    pub offset_metadata_bytes: usize,
    /// `offsets.retention.minutes`: how long an offset is kept that nobody uses.
    pub offset_retention: Duration,
    /// Offsets that one group may have committed.
    pub offsets: usize,
    /// Bytes that the groups of one shard may take, by estimate; as many again may be on their way to the store.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            min_session: Duration::from_secs(6),
            max_session: Duration::from_secs(1_800),
            initial_rebalance_delay: Duration::from_secs(3),
            consumer_session: Duration::from_secs(45),
            consumer_interval: Duration::from_secs(5),
            members: 10_000,
            groups: 100_000,
            member_bytes: 1 << 20,
            offset_metadata_bytes: 4_096,
            offset_retention: Duration::from_secs(7 * 86_400),
            offsets: 100_000,
            bytes: 16 << 20,
        }
    }
}

/// How long a member that is new, and waits for its first generation, may stay silent.
pub const NEW_MEMBER_JOIN_TIMEOUT: Duration = Duration::from_secs(300);

/// A JoinGroup request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// Empty for a member that has none yet.
    pub member: String,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance: Option<String>,
    /// From the request's header.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// Silence after which the member is out.
    pub session_timeout: Duration,
    /// How long members may take to rejoin.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, …
    pub protocol_type: String,
    /// Assignors in order of preference with the member's metadata.
    pub protocols: Vec<Protocol>,
    /// A new dynamic member must come back with the id that it is given (KIP-394, version 4).
    pub require_known_member: bool,
    /// The client understands `skip_assignment` (KIP-814, version 9).
    pub can_skip_assignment: bool,
}

/// The answer to a [`JoinRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinAnswer {
    /// NONE or why not.
    pub error: ErrorCode,
    /// The member's id, also with MEMBER_ID_REQUIRED.
    pub member: String,
    /// −1 on errors.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// Id of the leader; empty on errors.
    pub leader: String,
    /// The leader must not assign anew (KIP-814).
    pub skip_assignment: bool,
    /// Id, instance and metadata of every member: for the leader only.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A SyncGroup request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The member and its generation.
    pub caller: Caller,
    /// Checked where given (version 5).
    pub protocol_type: Option<String>,
    /// Checked where given (version 5).
    pub protocol: Option<String>,
    /// Assignments by member id: from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// The answer to a [`SyncRequest`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncAnswer {
    /// NONE or why not.
    pub error: ErrorCode,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The chosen assignor.
    pub protocol: Option<String>,
    /// The member's part.
    pub assignment: Bytes,
}

/// Who a member says it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// Its id.
    pub member: String,
    /// Its instance, if static.
    pub instance: Option<String>,
    /// Its generation; −1 for commits from outside of the group's protocol.
    pub generation: i32,
}

/// What ends a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To JoinGroup.
    Join(JoinAnswer),
    /// To SyncGroup.
    Sync(SyncAnswer),
    /// To ConsumerGroupHeartbeat.
    ConsumerHeartbeat(consumer::HeartbeatAnswer),
    /// To Heartbeat, OffsetCommit (for every partition), DeleteGroups (for one group).
    Code(ErrorCode),
    /// To LeaveGroup: a code for each member named, in order.
    Leave(Vec<ErrorCode>),
}
