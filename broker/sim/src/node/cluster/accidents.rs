//! What happens to a cluster: to processes, machines, clocks, the ways between them, the stores, and by operators.
//!
//! One accident begins after the other, but most of them last while the next ones begin: a process may be suspended while
//! another is cut off and the metadata store starts again.

use super::{Cluster, HOURS, Host, LIVENESS, MAX_POLLS, MOST_HOSTS};
use crate::node::{address_of, number_of};
use bytes::Bytes;
use millrace_broker::control::messages::COORDINATOR_SLOTS;
use millrace_broker::control::ticks::Thread;
use millrace_storage::ids::ShardIndex;
use millrace_storage::meta::records::{BrokerRecord, RECORD_VERSION, Record, SuspectRecord, WishRecord};
use millrace_storage::meta::{Key, MetaStore, Op, Txn, keys};
use millrace_storage::sim::{Cut, ProcessId, ThreadId};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// What there is; as often as each is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accident {
    /// A process is killed at some await.
    Kill,
    /// A process gets no time for a while (SIGSTOP).
    Stop,
    /// One thread of a process is stuck for a while, and its others are not.
    Stall,
    /// A machine stands still for a while: its timers are late when it goes on.
    Suspend,
    /// A process is suspended, and another of its name is started meanwhile.
    Twin,
    /// A process stops in order, or is killed while it does.
    Shutdown,
    /// A store answers nobody, or has no room, for a while.
    Outage,
    /// The metadata store is started again.
    Restart,
    /// One process is cut off from one store.
    CutFromStore,
    /// Clients are cut off from one host.
    CutFromClients,
    /// The wall clock of one machine is set.
    Clock,
    /// A host comes, or goes for a while.
    Scale,
    /// A host goes for good.
    ScaleIn,
    /// An operator has a broker left for a while.
    Drain,
    /// Partitions and slots are wished elsewhere.
    Move,
    /// Two observers say of a living process that it does not answer.
    Suspicion,
}

const ALL: [Accident; 19] = [
    Accident::Kill,
    Accident::Kill,
    Accident::Stop,
    Accident::Stop,
    Accident::Stall,
    Accident::Suspend,
    Accident::Twin,
    Accident::Shutdown,
    Accident::Outage,
    Accident::Restart,
    Accident::CutFromStore,
    Accident::CutFromStore,
    Accident::CutFromClients,
    Accident::Clock,
    Accident::Scale,
    Accident::ScaleIn,
    Accident::Drain,
    Accident::Move,
    Accident::Suspicion,
];

impl Accident {
    /// Whether a process may live on beside its successors, not knowing of them, or with a clock of its own.
    fn makes_zombies(self) -> bool {
        use Accident::*;
        matches!(self, Stop | Stall | Suspend | Twin | CutFromStore | Clock | Suspicion)
    }

    /// Whether it is what a careful operator does.
    fn is_orderly(self) -> bool {
        use Accident::*;
        matches!(self, Shutdown | Scale | ScaleIn | Drain | Move)
    }
}

/// Longest time that most accidents last: several leases.
const LONG_MS: Range<u64> = 0..20_000;
/// A wall clock is set so far away at most, either way.
const MOST_AWAY_MS: u64 = 600_000;
/// Partitions and slots that are wished elsewhere at once, at most.
const MOST_MOVES: u64 = 8;

impl Cluster {
    /// Hosts that were not taken away.
    fn staying(&self) -> usize {
        self.hosts.borrow().iter().filter(|host| !host.is_gone.get()).count()
    }

    fn ms(&self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.sim.dice(|d| d.below(range)))
    }

    /// One of them, and a pause.
    pub(super) async fn accident(self: &Rc<Self>) {
        if self.plan.is_orderly {
            self.settle().await;
        }
        let host = self.any_host();
        let accident = ALL[self.sim.dice(|d| d.index(ALL.len()))];
        let may_be = if self.plan.is_orderly {
            // The last one has nobody to hand over to.
            accident.is_orderly() && (accident != Accident::Shutdown || self.staying() > 1)
        } else {
            self.plan.zombies || !accident.makes_zombies()
        };
        if may_be {
            self.sim.note(format_args!("an accident of {}: {accident:?}", host.name()));
            self.happen(accident, &host).await;
        }
        self.sim.sleep(self.ms(0..10_000)).await;
    }

    /// As who restarts brokers one by one does: the next one when all are there.
    async fn settle(&self) {
        let serves = |host: &Rc<Host>| {
            host.is_gone.get() || host.life().is_some() && self.meta.peek(&keys::broker(&host.name())).is_some()
        };
        let all_serve = || self.hosts.borrow().iter().all(serves);
        assert!(self.sim.within(LIVENESS, all_serve).await, "FINDING liveness: a broker does not come back");
    }

    async fn happen(self: &Rc<Self>, accident: Accident, host: &Rc<Host>) {
        match accident {
            Accident::Kill => self.kill(host).await,
            Accident::Stop | Accident::Suspend => self.pause(host, accident == Accident::Suspend),
            Accident::Stall => self.stall(host),
            Accident::Twin => {
                self.pause(host, self.sim.dice(|d| d.index(2)) == 0);
                self.sim.sleep(self.ms(0..8_000)).await;
                self.start_twin(host);
            }
            Accident::Shutdown => self.shut_down(host).await,
            Accident::Outage => self.outage().await,
            Accident::Restart => {
                let length = self.ms(0..8_000);
                self.meta.restart(length);
                self.sim.sleep(length).await;
            }
            Accident::CutFromStore => self.cut_from_store(host),
            Accident::CutFromClients => self.network.cut(address_of(host.number, 0).ip(), self.ms(LONG_MS)),
            Accident::Clock => self.set_clock(host),
            Accident::Scale => self.scale(host).await,
            Accident::ScaleIn => self.scale_in(host).await,
            Accident::Drain => self.drain(host).await,
            Accident::Move => self.move_some().await,
            Accident::Suspicion => self.suspect(host).await,
        }
    }

    // ---- processes and machines ----

    async fn kill(&self, host: &Host) {
        let Some(life) = host.life() else { return };
        self.sim.kill_after(life.process, self.sim.dice(|d| d.below(1..MAX_POLLS)));
        self.sim.within(Duration::from_secs(20), || !self.sim.is_alive(life.process)).await;
        self.sim.kill(life.process);
    }

    /// Longer than its lease, mostly: it wakes up beside its successors.
    fn pause(&self, host: &Host, stands_still: bool) {
        let Some(life) = host.life() else { return };
        let length = self.ms(LONG_MS);
        host.stands_at_least(self.sim.now() + length.as_nanos() as u64);
        match stands_still {
            true => self.sim.suspend(life.process, length),
            false => self.sim.pause(life.process, length),
        }
    }

    /// Longer than its lease, mostly: others take over what its process has.
    fn stall(&self, host: &Host) {
        let Some(life) = host.life() else { return };
        let threads = 1 + u64::from(self.node.lanes) + u64::from(self.node.shards);
        let (thread, length) = (self.sim.dice(|d| d.below(0..threads)) as u32, self.ms(LONG_MS));
        host.stands_at_least(self.sim.now() + length.as_nanos() as u64);
        self.sim.stall(life.process, ThreadId(thread), length);
    }

    /// A shard of one of several processes comes back no more, so that the others must do without it.
    pub(super) fn stall_for_good(&self) {
        let host = self.any_host();
        let Some(life) = host.life() else { return };
        // Whom it was to replace would live on in its place.
        let is_alive = |(of, process): &(u16, ProcessId)| *of == host.number && self.sim.is_alive(*process);
        if self.replaced.borrow().iter().any(is_alive) {
            return;
        }
        let shard = ShardIndex(self.sim.dice(|d| d.below(0..u64::from(self.node.shards))) as u16);
        self.sim.stall(life.process, number_of(Thread::Shard(shard), self.node.lanes), HOURS);
    }

    fn start_twin(&self, host: &Host) {
        if let (Some(life), Some(given_up)) = (host.life(), host.given_up.borrow_mut().take()) {
            self.replaced.borrow_mut().push((host.number, life.process));
            _ = given_up.send(());
        }
    }

    async fn shut_down(&self, host: &Host) {
        let Some(life) = host.life() else { return };
        if let Some(stop) = life.stop.borrow().as_ref() {
            drop(stop.send(()));
        }
        let patience = if self.plan.is_orderly { LIVENESS } else { self.ms(0..15_000) };
        let ended = self.sim.within(patience, || !self.sim.is_alive(life.process)).await;
        assert!(ended || !self.plan.is_orderly, "FINDING liveness: a process does not end that was told to");
        self.sim.kill(life.process);
    }

    fn set_clock(&self, host: &Host) {
        let Some(life) = host.life() else { return };
        let away = self.sim.dice(|d| d.below(0..2 * MOST_AWAY_MS)) as i64 - MOST_AWAY_MS as i64;
        self.sim.set_wall(life.process, away);
    }

    // ---- stores and the ways to them ----

    async fn outage(&self) {
        let length = self.ms(LONG_MS);
        match self.sim.dice(|d| d.index(3)) {
            0 => self.bucket.outage(length),
            1 => self.bucket.fill(length),
            _ => self.meta.outage(length),
        }
        self.sim.sleep(length).await;
    }

    fn cut_from_store(&self, host: &Host) {
        let Some(life) = host.life() else { return };
        let (length, cut) = (self.ms(LONG_MS), [Cut::Off, Cut::Deaf][self.sim.dice(|d| d.index(2))]);
        match self.sim.dice(|d| d.index(3)) {
            0 => self.bucket.cut(life.process, cut, length),
            1 => self.meta.cut(life.process, cut, length),
            _ => {
                self.bucket.cut(life.process, cut, length);
                self.meta.cut(life.process, cut, length);
            }
        }
    }

    // ---- operators ----

    async fn scale(self: &Rc<Self>, host: &Host) {
        if self.hosts.borrow().len() < usize::from(MOST_HOSTS) {
            return self.add_host();
        }
        let Some(life) = host.life().filter(|_| !self.plan.is_orderly) else { return };
        host.is_kept.set(false);
        self.sim.kill(life.process);
        self.sim.sleep(self.ms(LONG_MS)).await;
        host.is_kept.set(true);
    }

    async fn scale_in(&self, host: &Host) {
        if self.staying() < 2 {
            return;
        }
        if self.plan.is_orderly || self.sim.dice(|d| d.index(2)) == 0 {
            self.put(keys::drain(&host.name()), Some(Bytes::new())).await;
            self.sim.sleep(self.ms(LONG_MS)).await;
        }
        host.is_gone.set(true);
        host.is_kept.set(false);
        self.shut_down(host).await;
        let replaced = self.replaced.borrow().clone();
        replaced.iter().filter(|(of, _)| *of == host.number).for_each(|(_, process)| self.sim.kill(*process));
        self.put(keys::drain(&host.name()), None).await;
    }

    async fn drain(&self, host: &Host) {
        self.put(keys::drain(&host.name()), Some(Bytes::new())).await;
        self.sim.sleep(self.ms(LONG_MS)).await;
        self.put(keys::drain(&host.name()), None).await;
    }

    /// Wherever the dice say, which need not be a seat that exists.
    async fn move_some(&self) {
        let partitions = self.meta.contents(keys::PARTITIONS);
        for _ in 0..self.sim.dice(|d| d.below(1..MOST_MOVES + 1)) {
            let (host, shard) = (self.any_host(), ShardIndex(self.sim.dice(|d| d.below(0..3)) as u16));
            let wish = WishRecord { v: RECORD_VERSION, broker: host.name(), shard }.encode();
            let slot = self.sim.dice(|d| d.below(0..u64::from(COORDINATOR_SLOTS))) as u16;
            let key = match partitions.len() {
                0 => keys::slot_wish(slot),
                count => match self.sim.dice(|d| d.index(2 * count)) {
                    at if at < count => {
                        keys::wish(keys::parse_partition(&partitions[at].0).expect("listed under its prefix"))
                    }
                    _ => keys::slot_wish(slot),
                },
            };
            self.put(key, Some(wish)).await;
        }
    }

    /// Its log is ended while its lease is as fresh as ever.
    async fn suspect(&self, host: &Host) {
        let Some(record) = self.meta.peek(&keys::broker(&host.name())) else { return };
        let boot = BrokerRecord::decode(&record).expect("our own record").boot;
        let observers: Vec<String> =
            self.hosts.borrow().iter().map(|other| other.name()).filter(|name| *name != host.name()).collect();
        let suspicion = SuspectRecord { v: RECORD_VERSION, boot }.encode();
        for observer in &observers {
            self.put(keys::suspect(&host.name(), observer), Some(suspicion.clone())).await;
        }
        self.sim.sleep(self.ms(0..5_000)).await;
        for observer in &observers {
            self.put(keys::suspect(&host.name(), observer), None).await;
        }
    }

    /// Perhaps: the store may be away.
    pub(super) async fn put(&self, key: Key, value: Option<Bytes>) {
        let op = match value {
            Some(value) => Op::Put(key, value),
            None => Op::Delete(key),
        };
        drop(self.meta.txn(Txn { compares: Vec::new(), ops: vec![op] }).await);
    }
}
