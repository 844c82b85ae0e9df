//! What goes into a shard's core and what comes out of it.

use super::lookup::Source;
use super::search::Seek;
use crate::cold::reader::ColdRead;
use crate::control::ToControl;
use bytes::Bytes;
use millrace_storage::env::{Mono, WallMs};
use millrace_storage::format::manifest::Manifest;
use millrace_storage::ids::{LeaderEpoch, Seq, ShardIndex, TopicPartition, Wid};
use millrace_storage::lane::ToLane;
use std::ops::Range;
use std::rc::Rc;

/// The time, as every event brings it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For deadlines.
    pub mono: Mono,
    /// For timestamps.
    pub wall: WallMs,
}

/// A connection of this shard, or of another one that sends parts of requests; never reused within a process life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Where the home of a connection stands in its id; below it there is room for a connection a microsecond for years.
const HOME_BITS: u32 = 48;

impl ConnectionId {
    /// What other shards call this connection of `home`.
    pub fn at(self, home: ShardIndex) -> ConnectionId {
        assert!(self.home().is_none(), "a connection has one home");
        ConnectionId(self.0 | (u64::from(home.0) + 1) << HOME_BITS)
    }

    /// The shard whose connection this is, if it came with a part of a request; `None`: one of our own.
    pub fn home(self) -> Option<ShardIndex> {
        let home = (self.0 >> HOME_BITS).checked_sub(1)?;
        Some(ShardIndex(u16::try_from(home).expect("it was made of a shard's index")))
    }
}

/// Which request of a connection: from 0, in order of arrival. Replies leave in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RequestNumber(pub u64);

/// A request's way back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReplyTo {
    /// The connection.
    pub connection: ConnectionId,
    /// The request.
    pub request: RequestNumber,
}

/// How a request ends. The core ends every request exactly once, also after its connection has gone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// Send these slices as one frame: they start with the 4-byte length and go out without joining.
    Frame(Vec<Bytes>),
    /// Nothing is sent (acks = 0).
    Silent,
    /// Close the connection once earlier replies have left (a broken or unsupported request, an acks = 0 error).
    Close(&'static str),
}

/// Names a read of a write-ahead object or of segments.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadToken(pub u64);

/// Names a search of batches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LookupToken(pub u64);

/// What the core wants done. The pump carries effects out in order.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// A request ended.
    Reply(ReplyTo, Reply),
    /// Take no further request of a connection until then: its client is above a quota.
    Mute {
        /// The connection.
        connection: ConnectionId,
        /// When it may go on.
        until: Mono,
    },
    /// To this shard's lane. Seals come from `ShardCore::take_seal` instead, which the pump calls when the lane's
    /// mailbox has a place.
    ToLane(ToLane),
    /// To the control task.
    ToControl(ToControl),
    /// Read a range of a write-ahead object, answer with `ShardCore::on_read`.
    Read {
        /// Names it.
        token: ReadToken,
        /// The log.
        wid: Wid,
        /// The object.
        seq: Seq,
        /// Bytes.
        range: Range<u64>,
    },
    /// Read batches from segments, answer with `ShardCore::on_cold_read`.
    ColdRead {
        /// Names it.
        token: ReadToken,
        /// What.
        read: ColdRead,
    },
    /// Read the manifest of a partition, answer with `ShardCore::on_manifest`.
    ReadManifest {
        /// Which.
        partition: TopicPartition,
        /// The epoch that it is led at.
        epoch: LeaderEpoch,
    },
    /// Find the segments of a partition for a lookup, answer with `ShardCore::on_segments`.
    FindSegments {
        /// Names the lookup's step.
        token: LookupToken,
        /// Which.
        partition: TopicPartition,
        /// A manifest that has turned out to be out of date.
        stale: Option<Rc<Manifest>>,
    },
    /// Search batches beside the shard's thread, answer with `ShardCore::on_searched`.
    Search {
        /// Names it.
        token: LookupToken,
        /// Where they are.
        source: Source,
        /// What is looked for.
        seek: Seek,
    },
}
