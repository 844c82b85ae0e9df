//! Drives a [`super::core::LaneCore`]: mailboxes and store answers in, store operations and messages out.

use super::config::{LaneConfig, LaneIdentity};
use super::messages::{LaneCommand, LaneReport, ToLane, ToShard};
use crate::env::Env;
use crate::ids::ShardIndex;
use crate::mailbox::{Receiver, Sender};
use crate::recovery::Stores;

/// The lane's ends of the mailboxes to one shard.
pub struct ShardEnd {
    /// Which shard.
    pub shard: ShardIndex,
    /// From it.
    pub from: Receiver<ToLane>,
    /// To it.
    pub to: Sender<ToShard>,
}

/// All mailboxes of a lane.
pub struct LaneEnds {
    /// The shards that it serves, by index.
    pub shards: Vec<ShardEnd>,
    /// From the control task.
    pub commands: Receiver<LaneCommand>,
    /// To the control task.
    pub reports: Sender<LaneReport>,
}

/// A lane at work on its thread.
pub struct LanePump {
    env: Env,
    stores: Stores,
    ends: LaneEnds,
    identity: LaneIdentity,
    config: LaneConfig,
}

impl LanePump {
    /// A lane that will open a write-ahead log of its own and lead nothing yet.
    pub fn new(env: Env, identity: LaneIdentity, config: LaneConfig, stores: Stores, ends: LaneEnds) -> LanePump {
        LanePump { env, stores, ends, identity, config }
    }

    /// Runs until a graceful stop is done or the mailboxes close.
    pub async fn run(self) {
        let _ = (self.env, self.stores, self.ends, self.identity, self.config);
    }
}
