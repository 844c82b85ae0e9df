//! The state machine of one shard.
//!
//! Every event brings the time; what is to be done comes out through [`ShardCore::take_effects`] and
//! [`ShardCore::take_seal`]. Nothing in here blocks, reads a clock or draws a random number.

use super::counters::Counters;
use super::events::{ConnectionId, Effect, Now, ReadToken, Reply, ReplyTo, RequestNumber};
use crate::control::FromControl;
use crate::net::budget::Permit;
use crate::net::frame::Frame;
use bytes::Bytes;
use millrace_storage::env::Mono;
use millrace_storage::ids::ShardIndex;
use millrace_storage::lane::{Seal, ToShard};
use millrace_storage::store_error::StoreError;
use std::net::SocketAddr;

/// What a shard must know of its process.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Which shard of the process it is.
    pub shard: ShardIndex,
    /// Its Kafka node id.
    pub node: i32,
    /// Bytes of memory that recently committed batches may pin.
    pub tail_bytes: usize,
    /// Bytes that reads of write-ahead objects may have under way or waiting to be answered.
    pub read_bytes: usize,
    /// Whether Metadata creates topics that do not exist.
    pub auto_create: bool,
}

/// One shard's partitions, requests in progress, and what it knows of the cluster.
pub struct ShardCore {
    config: ShardConfig,
    counters: Counters,
    effects: Vec<Effect>,
}

impl ShardCore {
    /// A shard that leads nothing and knows of no topic.
    pub fn new(config: ShardConfig) -> ShardCore {
        ShardCore { config, counters: Counters::default(), effects: Vec::new() }
    }

    /// A client connected.
    pub fn on_connection(&mut self, _now: Now, _connection: ConnectionId, _peer: SocketAddr) {}

    /// A request arrived. It ends with exactly one [`Effect::Reply`] to `reply_to`. `permit` (of a produce request) is
    /// given back once its batches are committed or refused.
    pub fn on_request(&mut self, _now: Now, reply_to: ReplyTo, _frame: Frame, _permit: Option<Permit>) {
        self.effects.push(Effect::Reply(reply_to, Reply::Close("no API is served yet")));
    }

    /// The reply to a later request of this connection is ready and waits behind `request`: a parked fetch ends now.
    pub fn on_queued_behind(&mut self, _now: Now, _connection: ConnectionId, _request: RequestNumber) {}

    /// A connection is gone. Its requests still end, with replies that nobody sends.
    pub fn on_disconnect(&mut self, _now: Now, _connection: ConnectionId) {}

    /// A message of this shard's lane.
    pub fn on_lane(&mut self, _now: Now, _message: ToShard) {}

    /// A message of the control task.
    pub fn on_control(&mut self, _now: Now, _message: FromControl) {}

    /// A read asked for by [`Effect::Read`] ended; `None`: no such object.
    pub fn on_read(&mut self, _now: Now, _token: ReadToken, _result: Result<Option<Bytes>, StoreError>) {}

    /// Time passed: call at or after [`ShardCore::next_deadline`].
    pub fn on_time(&mut self, _now: Now) {}

    /// When [`ShardCore::on_time`] has something to do; `None` while nothing waits for time.
    pub fn next_deadline(&self) -> Option<Mono> {
        None
    }

    /// Moves what is to be done to the end of `into`, in order.
    pub fn take_effects(&mut self, into: &mut Vec<Effect>) {
        into.append(&mut self.effects);
    }

    /// What was appended since the last seal, if anything: to be called when the lane's mailbox has a place.
    pub fn take_seal(&mut self, _now: Now) -> Option<Seal> {
        None
    }

    /// What this shard counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Which shard this is.
    pub fn config(&self) -> &ShardConfig {
        &self.config
    }
}
