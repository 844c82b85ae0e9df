//! How the parts of a broker are put together, without a word about threads: the process runs them on threads of their
//! own, the simulator as tasks of one executor.
//!
//! Order: [`prepare`] → lanes and control task → shards. Mailboxes ([`wire`]) exist before all of them, so that it does
//! not matter who begins first after `prepare`.

use super::housekeeping::Housekeeping;
use crate::cold::disk::DiskPlan;
use crate::cold::reader::{ColdReader, block_bytes};
use crate::control::core::ControlConfig;
use crate::control::pump::{ControlEnds, ControlPump, ControlStores, Ended, LaneEnd, Pinger, ShardEnd};
use crate::control::start::{self, Identity, Process, StartError};
use crate::control::ticks::Ticks;
use crate::journal::task::{self, Cues};
use crate::journal::writer::Journal;
use crate::net::budget::Pools;
use crate::net::connection::Limits;
use crate::pump::{PeerEnds, ShardEnds, ShardParts, ShardPump};
use crate::shard::core::{ShardConfig, ShardCore};
use millrace_storage::env::Env;
use millrace_storage::format::snapshot::generation_base;
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::lane::{self, LaneEnds};
use millrace_storage::mailbox::{Sender, mailbox};
use millrace_storage::recovery::{Stores, seal_all_dead};
use std::rc::Rc;

/// Seals and other messages that wait for a lane, per shard. Few: what can't leave gathers in the shard instead.
const TO_LANE: usize = 16;
/// Messages of a lane that wait for a shard.
const TO_SHARD: usize = 1_024;
/// Questions of a shard that wait for the control task.
const TO_CONTROL: usize = 256;
/// Messages of the control task that wait for a shard.
const FROM_CONTROL: usize = 256;
/// Messages of a shard that wait for another one, where all share a port. Few: what does not fit waits at its sender.
pub const TO_PEER: usize = 64;
/// Commands that wait for a lane, and reports of one.
const COMMANDS: usize = 1_024;
/// Largest answers that fit into a shard's pool of replies: a few clients that do not read leave room for others.
const RESPONSES_PER_POOL: usize = 8;
/// Kafka's `socket.request.max.bytes`.
pub const FRAME_BYTES: usize = 100 << 20;

/// All mailboxes of a process, by owner.
pub struct Wiring {
    /// By shard.
    pub shards: Vec<ShardEnds>,
    /// By lane.
    pub lanes: Vec<LaneEnds>,
    /// The control task's.
    pub control: ControlEnds,
    /// A message here stops the process gracefully.
    pub stop: Sender<()>,
    /// Where shards and lanes write down that they turn, if there are other processes.
    pub ticks: Ticks,
}

/// Makes the mailboxes of a process. Shard i is served by lane i modulo `lanes`. Shards that share a port have mailboxes
/// for each other, with `to_peer` places.
pub fn wire(shards: u16, lanes: u16, to_peer: Option<usize>) -> Wiring {
    let (stop, stopped) = mailbox(1);
    let ticks = Ticks::of(shards, lanes);
    let mut wiring = Wiring {
        shards: Vec::new(),
        lanes: Vec::new(),
        control: ControlEnds { shards: Vec::new(), lanes: Vec::new(), stop: stopped, ticks: ticks.clone() },
        stop,
        ticks,
    };
    for _ in 0..lanes {
        let (commands, from_control) = mailbox(COMMANDS);
        let (to_control, reports) = mailbox(COMMANDS);
        wiring.control.lanes.push(LaneEnd { reports, commands });
        wiring.lanes.push(LaneEnds { shards: Vec::new(), commands: from_control, reports: to_control });
    }
    for index in 0..shards {
        let (to_lane, from_shard) = mailbox(TO_LANE);
        let (to_shard, from_lane) = mailbox(TO_SHARD);
        let (to_control, questions) = mailbox(TO_CONTROL);
        let (answers, from_control) = mailbox(FROM_CONTROL);
        let end = lane::ShardEnd { shard: ShardIndex(index), from: from_shard, to: to_shard };
        wiring.lanes[usize::from(index % lanes)].shards.push(end);
        wiring.control.shards.push(ShardEnd { from: questions, to: answers });
        wiring.shards.push(ShardEnds { to_lane, from_lane, to_control, from_control, peers: Vec::new() });
    }
    if let Some(places) = to_peer {
        for one in 0..shards {
            for other in one + 1..shards {
                let (to_other, from_one) = mailbox(places);
                let (to_one, from_other) = mailbox(places);
                let ends = PeerEnds { peer: ShardIndex(other), to: to_other, from: from_other };
                wiring.shards[usize::from(one)].peers.push(ends);
                let ends = PeerEnds { peer: ShardIndex(one), to: to_one, from: from_one };
                wiring.shards[usize::from(other)].peers.push(ends);
            }
        }
    }
    wiring
}

/// What comes before anything else of this life: the process learns its node ids, and every log that earlier lives left is
/// sealed if it is `alone`, since the lock proves that they are dead.
pub async fn prepare(
    env: &Env,
    stores: &Stores,
    boot: BootId,
    process: &Process,
    alone: bool,
) -> Result<Identity, StartError> {
    let identity = start::identify(env, &*stores.meta, &*stores.objects, process).await?;
    // Before a log is opened: a backup of the metadata from before this is told apart from now on.
    let journal = journal_of(env, stores, &process.name, identity.generation);
    start::until_answered(env, "the journal", async || journal.mark().await).await?;
    if !alone {
        return Ok(identity);
    }
    let sealed = seal_all_dead(env, stores, boot).await?;
    if sealed > 0 {
        tracing::info!(logs = sealed, "sealed the write-ahead logs of an earlier life");
    }
    Ok(identity)
}

fn journal_of(env: &Env, stores: &Stores, name: &str, generation: u64) -> Journal {
    Journal::new(env, stores, name, generation_base(generation))
}

/// Runs the control task, and collection and the journal beside it. `generation`: as [`prepare`] found it. Other processes
/// are asked through `pinger`, if there are any, whether they live.
pub async fn run_control(
    env: Env,
    config: ControlConfig,
    generation: u64,
    stores: Stores,
    ends: ControlEnds,
    housekeeping: Housekeeping,
    pinger: Option<Rc<dyn Pinger>>,
) -> Result<Ended, StartError> {
    let journal = journal_of(&env, &stores, &config.broker, generation);
    let cues: Rc<Cues> = Rc::default();
    let is_journaled = housekeeping.journal_every.is_some();
    housekeeping.start(&env, &stores, &journal, &cues);
    let boot = config.boot;
    let of_control = ControlStores { meta: stores.meta.clone(), objects: stores.objects.clone() };
    let pump = ControlPump::start(env.clone(), config, of_control, ends).await?;
    let ended = pump.sealing(stores, boot).asking(pinger).cueing(cues).run().await;
    // A store that did not take the end of the logs would not take this.
    if is_journaled && ended == (Ended::Stopped { sealed: true }) {
        task::last(&env, &journal).await;
    }
    Ok(ended)
}

/// Starts shard `shard` with node id `node`, which is that of all if `sharing_port` says how many there are; `disk`:
/// where it keeps blocks of segments besides in memory.
pub fn start_shard(
    env: Env,
    (shard, node): (ShardIndex, i32),
    sharing_port: Option<u16>,
    stores: &Stores,
    pools: Pools,
    disk: Option<DiskPlan>,
    ends: ShardEnds,
) -> ShardPump {
    let config = ShardConfig {
        shard,
        node,
        sharing_port,
        tail_bytes: pools.tail,
        read_bytes: pools.reads,
        block_bytes: block_bytes(pools.cold),
        lookup_bytes: pools.lookups,
        response_bytes: pools.replies / RESPONSES_PER_POOL,
        producer_bytes: pools.producers,
        // The other half is for what is on its way to the store.
        group_bytes: pools.groups / 2,
        auto_create: true,
        boot: BootId(env.random()),
    };
    let parts = ShardParts {
        core: ShardCore::new(config),
        wal: stores.wal.clone(),
        cold: ColdReader::with_disk(&env, stores.objects.clone(), pools.cold, disk),
        pools,
        limits: Limits::within(&pools, FRAME_BYTES),
        ends,
    };
    ShardPump::start(env, parts)
}
