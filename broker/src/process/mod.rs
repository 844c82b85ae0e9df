//! A broker process: opens what it needs, runs shards, lanes and the control task on threads of their own, and ends.
//!
//! Threads: one per shard ([`crate::runtime`]), one per lane, one for the control task, one for signals, and those of
//! the side runtime.
//!
//! Invariants:
//! 1. Nothing of an earlier life is touched before the directory lock is held, and no port is told to anyone before it
//!    is bound.
//! 2. The process shares one fate: a thread that panics, or ends while no stop was asked for, aborts it.
//! 3. SIGTERM and SIGINT stop it gracefully: among others these take what it has, for as long as `--drain-timeout` says;
//!    then shards refuse and finish, lanes seal their logs, and it ends with success.
//!    A store that does not answer holds this up for ten seconds and no longer: the exit code is 0 then too, the log says
//!    `"sealed":false`, and the next start seals what was left open. Five more if it is the journal's last snapshot alone
//!    that the store does not take.
//!    A second signal ends it at once with exit code 130, which is as safe as kill −9.

pub mod assembly;
mod disk_blocks;
pub mod housekeeping;
pub mod open;
mod pinger;
mod probe;

use self::housekeeping::Housekeeping;
use crate::admin::{self, Cells, Exposition, PUBLISH_INTERVAL};
use crate::control::cluster::{self, ClusterConfig};
use crate::control::core::ControlConfig;
use crate::control::pump::{Ended, Pinger};
use crate::control::start::{Identity, Process, StartError};
use crate::control::ticks::Thread;
use crate::net::budget::{Pools, lane_bytes};
use crate::pump::ShardPump;
use crate::runtime;
use crate::settings::{HostPort, Settings};
use assembly::Wiring;
use millrace_storage::compaction::PlannerConfig;
use millrace_storage::env::Env;
use millrace_storage::ids::{BootId, ShardIndex};
use millrace_storage::lane::{LaneCells, LaneConfig, LaneIdentity, LanePump, RollMemory};
use millrace_storage::mailbox::{Receiver, Sender, mailbox};
use millrace_storage::object::url::StoreUrl;
use millrace_storage::object::{OpenError, race};
use millrace_storage::side::{SideRuntime, block_on_local, monotonic_now, wall_now};
use open::{DirectoryLock, Places, SharedStores, StoreKind};
use pinger::TcpPinger;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Partitions of a topic that is created without a number, if there are no more shards than that.
const DEFAULT_PARTITIONS: u32 = 4;
/// Least memory of a shard: its pools must hold a few requests of Kafka's default size.
const LEAST_SHARD_BYTES: usize = 8 << 20;
/// Shards unless the settings say otherwise.
const MOST_DEFAULT_SHARDS: usize = 16;
/// How long a stopping process waits for replies that are on their way out once all else is done.
const LAST_REPLIES: Duration = Duration::from_secs(1);
/// How often a shard of a process among others tells what its partitions cost.
const LOADS_EVERY: Duration = Duration::from_secs(10);
/// How often a shard that recovers publishes.
const READY_LOOK: Duration = Duration::from_millis(10);
/// Messages about the end of threads: one per thread at most, and signals.
const FATES: usize = 256;
/// On the local disk only entries up to this size wait for their roll in memory: the page cache has the others, which are
/// not worth a copy, while a small one would cost as much to read.
const KEPT_OF_LOCAL_ENTRIES: u64 = 64 << 10;
/// Bytes that a local write-ahead log keeps before all of it is rolled (PROTOCOL.md section 2).
const LOCAL_LOG_BYTES: u64 = 4 << 30;
/// References of a lane that may always be there, 8 MiB: a thousand partitions have as many within seconds.
const LEAST_REFERENCES: u64 = 1 << 17;

/// Why a process could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Something could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stores hold what we can't go on from.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The system gave no thread.
    #[error("a thread could not be started: {0}; raise the limit on processes")]
    Thread(#[from] std::io::Error),
}

/// A process that serves, to be told to people and to the admin server.
#[derive(Clone, Debug)]
pub struct Started {
    /// Name of the process.
    pub name: String,
    /// Kafka's cluster id.
    pub cluster_id: String,
    /// What shard i listens on, or the one address that they share.
    pub listening: Vec<HostPort>,
    /// What clients are told for shard i.
    pub advertised: Vec<HostPort>,
    /// Where the admin endpoint listens, if it is on.
    pub admin: Option<HostPort>,
    /// Where the log is.
    pub store: StoreUrl,
    /// What kind of store that is.
    pub kind: StoreKind,
}

/// How a thread came to its end, or a signal.
enum Fate {
    Signal,
    /// The process knows who it is, and the dead are sealed.
    Prepared(Result<Identity, ServeError>),
    Control(Result<Ended, StartError>),
    Lane(u16),
    /// A shard's connections have ended (it runs on).
    ShardQuiet,
    /// A shard's executor could not be made.
    Shard(ShardIndex, OpenError),
}

/// Serves until a signal stops it. `started` is called once the listeners take connections.
pub fn serve(settings: &Settings, started: impl FnOnce(&Started)) -> Result<(), ServeError> {
    probe::check()?;
    let processors = runtime::processors();
    let shards = settings.shards.unwrap_or_else(|| default_shards(processors.len()));
    lanes(settings, shards)?;
    let pools = pools(settings, shards)?;
    let _data_lock = DirectoryLock::take(&settings.data_dir, "--data-dir")?;
    let places = Places::of(settings)?;
    let store_setting = if settings.object_store.is_some() { "--object-store" } else { "--data-dir" };
    let _store_lock = places.to_lock().map(|root| DirectoryLock::take(root, store_setting)).transpose()?;
    let disk_blocks = disk_blocks::plan(settings, &places, &pools, shards)?;
    let listeners = runtime::bind(&settings.listen, if settings.shared_port { 1 } else { shards })?;
    let side = SideRuntime::start()?;
    let stores = SharedStores::open(&places, settings, &side, || {
        (u128::from(runtime::random()) << 64) | u128::from(runtime::random())
    })?;
    let name = open::name(settings, runtime::random())?;
    let boot = BootId(runtime::random());
    let listening = local_addresses(&settings.listen, &listeners)?;
    let admin = settings.admin.as_ref().map(bind_admin).transpose()?;
    let cells: Vec<_> = (0..shards).map(|shard| Cells::new(shard, monotonic_now())).collect();
    let lane_cells: Vec<Arc<LaneCells>> = (0..settings.wal_lanes).map(|_| Arc::default()).collect();
    let housekeeping = Housekeeping {
        segments_every: Duration::from_millis(settings.segment_check_ms),
        segments_grace: Duration::from_millis(settings.segment_grace_ms),
        journal_every: (stores.kind != StoreKind::Memory).then(|| Duration::from_millis(settings.journal_ms)),
        jobs: Arc::default(),
    };
    let advertised = advertised(settings, &listening);

    let (fate, fates) = mpsc::sync_channel(FATES);
    watch_signals(fate.clone())?;
    let Wiring { shards: shard_ends, lanes: lane_ends, control: control_ends, stop, ticks } =
        assembly::wire(shards, settings.wal_lanes, settings.shared_port.then_some(assembly::TO_PEER));
    let exposition = Exposition {
        shards: cells.clone(),
        lanes: lane_cells.clone(),
        store: stores.meter.clone(),
        jobs: housekeeping.jobs.clone(),
        ticks: ticks.clone(),
        started: wall_now(),
    };
    let process = Process {
        name: name.clone(),
        addresses: addresses_of_shards(&advertised, shards),
        zone: settings.zone.clone(),
    };
    let cluster = stores.is_shared().then(|| ClusterConfig {
        zone: settings.zone.clone(),
        lease: settings.lease,
        drain: settings.drain_timeout,
        admin: admin.as_ref().map(|(_, address)| told_admin(address, &advertised)),
    });
    let admin_address = admin.as_ref().map(|(_, address)| address.clone());
    let mut control = ControlThread {
        stores: stores.clone(),
        process,
        boot,
        fate: fate.clone(),
        lanes: settings.wal_lanes,
        max_partitions: settings.max_partitions,
        shared_port: settings.shared_port,
        cluster: cluster.clone(),
        housekeeping,
        admin: admin.map(|(listener, _)| (listener, exposition)),
    };
    let is_shared = cluster.is_some();
    let (go, went) = mailbox(1);
    thread("control", move || control.run(control_ends, went))?;
    let identity = match wait_prepared(&fates)? {
        Some(identity) => identity,
        None => return Ok(()),
    };
    let registered = cluster.as_ref().map(|cluster| {
        let record = cluster::broker_record(cluster, boot, &identity.nodes, settings.shared_port);
        cluster::registration(&name, &record)
    });
    for ((ends, cells), lane) in lane_ends.into_iter().zip(lane_cells).zip(0..) {
        let identity = LaneIdentity { broker: name.clone(), boot, lane };
        let config = LaneConfig { registered: registered.clone(), ..lane_config(settings, &stores) };
        let (stores, fate, ticks) = (stores.clone(), fate.clone(), ticks.clone());
        thread(&format!("lane-{lane}"), move || {
            block_on_local(|env| {
                let stores = stores.handles(&env);
                env.spawn("tick", ticks.keep(Thread::Lane(lane), env.clone()));
                LanePump::new(env, identity, config, stores, ends).counted(cells).run()
            })
            .expect("a runtime of one thread needs a few descriptors only");
            tell(&fate, Fate::Lane(lane));
        })?;
    }
    go.send(()).expect("the control task waits for it");
    let retention_check = Duration::from_millis(settings.retention_check_ms);
    let offset_retention = Duration::from_secs(60 * settings.offsets_retention_minutes);
    let doors = runtime::doors(listeners, shards)?;
    let sharing_port = settings.shared_port.then_some(shards);
    for (((ends, door), node), cells) in shard_ends.into_iter().zip(doors).zip(&identity.nodes).zip(cells) {
        let shard = node.shard.expect("its own nodes are shards of this process");
        let cpu = processors.get(usize::from(shard.0)).copied().filter(|_| usize::from(shards) <= processors.len());
        let node = if settings.shared_port { identity.nodes[0].id } else { node.id };
        let (stores, side, fate, ticks) = (stores.giving_way(), side.clone(), fate.clone(), ticks.clone());
        let disk = disk_blocks.as_ref().map(|blocks| blocks.of(shard));
        thread(&format!("shard-{shard}"), move || {
            let quiet = fate.clone();
            let ran = runtime::run(cpu, Some(side), |env| async move {
                let stores = stores.handles(&env);
                let pump = assembly::start_shard(env.clone(), (shard, node), sharing_port, &stores, pools, disk, ends);
                pump.core().borrow_mut().record_acks_in(cells.acks());
                let looked = cells.clone();
                pump.expire_every(retention_check, move |now| looked.looked_for_expired(now));
                pump.core().borrow_mut().keep_offsets_for(offset_retention);
                env.spawn("tick", ticks.keep(Thread::Shard(shard), env.clone()));
                if is_shared {
                    pump.tell_loads_every(LOADS_EVERY);
                }
                env.spawn("publish", publish(env.clone(), pump.clone(), cells));
                let listener = door.open().expect("the address of a bound socket is known");
                pump.run(listener).await;
                tell(&quiet, Fate::ShardQuiet);
                // The last replies and mail are still taken care of; the process ends this thread.
                std::future::pending::<()>().await;
            });
            if let Err(error) = ran {
                tell(&fate, Fate::Shard(shard, error));
            }
        })?;
    }
    let kind = stores.kind;
    started(&Started {
        name,
        cluster_id: identity.cluster_id,
        listening,
        advertised,
        admin: admin_address,
        store: places.store,
        kind,
    });
    share_fate(&fates, &stop, usize::from(shards));
    Ok(())
}

/// The control task's thread.
struct ControlThread {
    stores: SharedStores,
    process: Process,
    boot: BootId,
    lanes: u16,
    max_partitions: u32,
    shared_port: bool,
    cluster: Option<ClusterConfig>,
    housekeeping: Housekeeping,
    fate: mpsc::SyncSender<Fate>,
    /// The admin endpoint's socket and what it shows.
    admin: Option<(TcpListener, Exposition)>,
}

impl ControlThread {
    /// Prepares, says so, and once the lanes run (`go`) serves.
    fn run(&mut self, ends: crate::control::pump::ControlEnds, mut go: Receiver<()>) {
        let ended = block_on_local(|env| async move {
            if let Some((listener, exposition)) = self.admin.take() {
                let listener = admin::adopt(listener).expect("a bound socket can be registered");
                env.spawn("admin", admin::serve(env.clone(), listener, exposition));
            }
            let stores = self.stores.handles(&env);
            let prepared = async {
                if self.stores.remote {
                    race::check(&*stores.objects, &env, "the object store").await?;
                }
                Ok(assembly::prepare(&env, &stores, self.boot, &self.process, self.cluster.is_none()).await?)
            };
            let identity: Result<Identity, ServeError> = prepared.await;
            let Ok(Identity { cluster_id, nodes, generation }) = &identity else {
                return tell(&self.fate, Fate::Prepared(identity));
            };
            let shards = u32::try_from(nodes.len()).expect("at most 64 shards");
            let config = ControlConfig {
                broker: self.process.name.clone(),
                boot: self.boot,
                cluster_id: cluster_id.clone(),
                nodes: nodes.clone(),
                shared_port: self.shared_port,
                lanes: self.lanes,
                default_partitions: DEFAULT_PARTITIONS.max(shards),
                max_partitions: self.max_partitions,
                cluster: self.cluster.clone(),
            };
            let generation = *generation;
            tell(&self.fate, Fate::Prepared(identity));
            if go.recv().await.is_some() {
                let (housekeeping, pinger) = (self.housekeeping.clone(), Some(Rc::new(TcpPinger) as Rc<dyn Pinger>));
                let ended = assembly::run_control(env, config, generation, stores, ends, housekeeping, pinger).await;
                tell(&self.fate, Fate::Control(ended));
            }
        });
        ended.expect("a runtime of one thread needs a few descriptors only");
    }
}

/// Copies what a shard counts to where the admin endpoint reads it, for as long as the shard runs.
async fn publish(env: Env, pump: ShardPump, cells: Arc<Cells>) {
    loop {
        let pools = admin::levels(&pump);
        let ready = pump.core().borrow().is_ready();
        cells.publish(env.now(), ready, pump.connections(), &pump.counters(), &pools);
        // A service manager that asks for readiness is not told half a second late.
        env.sleep(if ready { PUBLISH_INTERVAL } else { READY_LOOK }).await;
    }
}

/// Where others find the admin endpoint: on every interface it is where clients are told that the process is.
fn told_admin(address: &HostPort, advertised: &[HostPort]) -> String {
    let everywhere = matches!(address.host.as_str(), "0.0.0.0" | "::");
    let host = advertised.first().filter(|_| everywhere).map_or(&address.host, |advertised| &advertised.host);
    HostPort { host: host.clone(), port: address.port }.to_string()
}

fn bind_admin(address: &HostPort) -> Result<(TcpListener, HostPort), OpenError> {
    let refused = |error: std::io::Error| {
        OpenError::new(
            format!("the admin address {address} can't be used: {error}"),
            "choose another with --admin HOST:PORT",
        )
    };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    Ok((listener, HostPort { host: address.host.clone(), port }))
}

/// Waits for the control thread; `None` if a signal came first.
fn wait_prepared(fates: &mpsc::Receiver<Fate>) -> Result<Option<Identity>, ServeError> {
    match fates.recv().expect("the signal thread holds a sender") {
        Fate::Prepared(result) => result.map(Some),
        Fate::Signal => Ok(None),
        Fate::Control(_) | Fate::Lane(_) | Fate::ShardQuiet | Fate::Shard(..) => {
            unreachable!("these threads start after the preparation")
        }
    }
}

/// Waits for the end (invariants 2 and 3).
fn share_fate(fates: &mpsc::Receiver<Fate>, stop: &Sender<()>, shards: usize) {
    let mut stopping = false;
    let mut quiet = 0;
    let sealed = loop {
        match fates.recv().expect("the signal thread holds a sender") {
            Fate::Signal if stopping => {
                tracing::warn!("ended by a second signal; the next start seals what was left open");
                std::process::exit(130);
            }
            Fate::Signal => {
                tracing::info!("stopping");
                stopping = true;
                if stop.send(()).is_err() {
                    fall("the control task is gone");
                }
            }
            Fate::ShardQuiet => quiet += 1,
            Fate::Lane(_) if stopping => {}
            Fate::Control(Ok(Ended::Stopped { sealed })) => break sealed,
            Fate::Control(Ok(Ended::Abandoned)) => fall("a shard or lane is gone"),
            Fate::Control(Ok(Ended::Replaced)) => fall("another process has taken this one's name; give each its own"),
            Fate::Control(Err(error)) => fall(&format!("the control task could not start: {error}")),
            Fate::Lane(lane) => fall(&format!("lane {lane} ended")),
            Fate::Shard(shard, error) => fall(&format!("shard {shard} could not start: {error}")),
            Fate::Prepared(_) => unreachable!("said once, before"),
        }
    };
    while quiet < shards {
        match fates.recv_timeout(LAST_REPLIES) {
            Ok(Fate::ShardQuiet) => quiet += 1,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    tracing::info!(sealed, "stopped");
}

/// One part is gone, so all are.
fn fall(why: &str) -> ! {
    tracing::error!("the process aborts: {why}");
    std::process::abort();
}

fn tell(fate: &mpsc::SyncSender<Fate>, what: Fate) {
    // Nobody listens any more when the process is about to end.
    let _ = fate.send(what);
}

/// Starts a thread whose panic ends the process.
fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let guarded = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            fall("a thread ended by a broken invariant");
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(guarded).map(drop)
}

fn watch_signals(fate: mpsc::SyncSender<Fate>) -> std::io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    thread("signals", move || {
        for _signal in signals.forever() {
            tell(&fate, Fate::Signal);
        }
    })
}

/// Cores, less one for lanes, control task and side runtime above two cores.
fn default_shards(processors: usize) -> u16 {
    let shards = if processors > 2 { processors - 1 } else { processors };
    u16::try_from(shards.min(MOST_DEFAULT_SHARDS)).expect("at most 16")
}

/// The settings' own check knows only a number of shards that was given.
fn lanes(settings: &Settings, shards: u16) -> Result<(), OpenError> {
    if settings.wal_lanes <= shards {
        return Ok(());
    }
    Err(OpenError::new(
        format!("wal-lanes is {}, but there are {shards} shards and the other lanes would idle", settings.wal_lanes),
        "lower --wal-lanes or raise --shards",
    ))
}

fn pools(settings: &Settings, shards: u16) -> Result<Pools, OpenError> {
    let total = usize::try_from(settings.memory_mib << 20).expect("the settings bound it to 1 TiB");
    if total / usize::from(shards) < LEAST_SHARD_BYTES {
        return Err(OpenError::new(
            format!("{} MiB are too little for {shards} shards", settings.memory_mib),
            format!(
                "raise --memory-mib to at least {} or lower --shards",
                usize::from(shards) * (LEAST_SHARD_BYTES >> 20)
            ),
        ));
    }
    Ok(Pools::of_process(total, shards))
}

fn lane_config(settings: &Settings, stores: &SharedStores) -> LaneConfig {
    let (kind, remote) = (stores.kind, stores.remote);
    let total = usize::try_from(settings.memory_mib << 20).expect("the settings bound it to 1 TiB");
    let roll_memory = RollMemory {
        bytes: lane_bytes(total, settings.wal_lanes) as u64,
        entry_bytes: if remote { u64::MAX } else { KEPT_OF_LOCAL_ENTRIES },
    };
    LaneConfig {
        linger: Duration::from_millis(settings.linger_ms.unwrap_or(if remote { 25 } else { 0 })),
        puts_per_second: settings.max_puts_per_second.or(remote.then_some(8)),
        hedge_percent: stores.hedge_percent,
        readers_grace: Duration::from_millis(if kind == StoreKind::Remote { settings.segment_grace_ms } else { 0 }),
        // In memory a checkpoint costs nothing, and the ring lets go of objects with the next one.
        checkpoint_gap: if kind == StoreKind::Memory { Duration::ZERO } else { LaneConfig::default().checkpoint_gap },
        ring_bytes: (kind == StoreKind::Memory).then_some(settings.memory_mib << 20),
        compaction: (settings.roll_segments && kind != StoreKind::Memory)
            .then(|| rolls(settings, remote, roll_memory.bytes)),
        roll_memory,
        ..LaneConfig::default()
    }
}

/// When records are rolled into segments, with so many bytes of memory: half of it for the segment at work, the other for
/// what waits; besides that half as much for references, of 64 bytes each. Extents of this machine's disk are no objects, of which a log may keep so many, and what a roll of them
/// reads costs nothing.
fn rolls(settings: &Settings, remote: bool, memory: u64) -> PlannerConfig {
    let defaults = PlannerConfig::default();
    PlannerConfig {
        roll_bytes: settings.roll_bytes.min(memory / 2),
        roll_after: Duration::from_millis(settings.roll_after_ms),
        held_bytes: if remote { memory / 4 * 3 } else { defaults.held_bytes },
        effect_bytes: memory / 2,
        uncovered_objects: defaults.uncovered_objects.filter(|_| remote),
        uncovered_bytes: if remote { defaults.uncovered_bytes } else { Some(LOCAL_LOG_BYTES) },
        references: Some((memory / 2 / 64).max(LEAST_REFERENCES)),
        ..defaults
    }
}

fn local_addresses(listen: &HostPort, listeners: &[TcpListener]) -> std::io::Result<Vec<HostPort>> {
    let address = |listener: &TcpListener| {
        let port = listener.local_addr()?.port();
        Ok(HostPort { host: listen.host.clone(), port })
    };
    listeners.iter().map(address).collect()
}

/// What clients are told for each shard: the one address for all of them, where they share it.
fn addresses_of_shards(advertised: &[HostPort], shards: u16) -> Vec<(String, u16)> {
    let last = advertised.last().expect("at least one port is bound");
    let told = (0..usize::from(shards)).map(|shard| advertised.get(shard).unwrap_or(last));
    told.map(|address| (address.host.clone(), address.port)).collect()
}

/// Shard i is told as `--advertise` with its port + i; port 0 there means the port that it listens on.
fn advertised(settings: &Settings, listening: &[HostPort]) -> Vec<HostPort> {
    let Some(advertise) = &settings.advertise else { return listening.to_vec() };
    let told = |(shard, listening): (u16, &HostPort)| {
        let port = if advertise.port == 0 { listening.port } else { advertise.port.saturating_add(shard) };
        HostPort { host: advertise.host.clone(), port }
    };
    (0..).zip(listening).map(told).collect()
}
