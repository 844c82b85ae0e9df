//! Whether the brokers around this one answer: what an observer says of them before their leases have ended.
//!
//! Each broker observes the [`OBSERVED`] next ones in the ring of names: it asks each something several times in the time of
//! a lease. What it says is a key under its own lease; what follows when two say the same of a life is the view's and the
//! controller's business.
//!
//! Invariants:
//! 1. However many brokers there are, one observes few, with one question to each at a time, and writes nothing while they
//!    answer.
//! 2. While nobody answers this broker suspects nobody: it is itself that is cut off.
//!    Nor anybody whom it never reached: brokers need not be able to reach each other.
//! 3. Time that this process did not see pass proves nothing: everything is measured anew after it.
//! 4. Keys come and go in one transaction at a time, by what the view shows: one whose outcome is unknown is made good.
//!
//! A broker that leaves is not observed: it stops to answer, and its lease ends by itself.

use super::super::effects::{Effect, Owner, Sink};
use super::view::View;
use millrace_storage::env::Mono;
use millrace_storage::ids::BootId;
use millrace_storage::meta::records::{BrokerRecord, RECORD_VERSION, Record, SuspectRecord};
use millrace_storage::meta::{LeaseId, Op, Txn, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Brokers that one observes at most.
pub(in crate::control) const OBSERVED: usize = 3;
/// Questions to each in the time of a lease.
const ASKED_PER_LEASE: u32 = 8;
/// Who refused connections so many times in a row does not run.
const REFUSALS: u32 = 3;
/// An answer may take at least so long: a busy broker is none that is dead.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
/// Who was silent for less is not suspected.
const LEAST_SILENCE: Duration = Duration::from_secs(2);
/// Failures in a row that silence takes.
const FAILURES: u32 = 3;

/// What came of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pong {
    /// An answer.
    Answered,
    /// Nobody listens there, or the connection was reset.
    Refused,
    /// Nothing, in time.
    Silent,
}

/// A question to another broker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ping {
    /// Its name.
    pub broker: String,
    /// Its life.
    pub boot: BootId,
    /// Where it listens.
    pub host: String,
    /// See `host`.
    pub port: u16,
    /// How long an answer may take.
    pub within: Duration,
}

struct Peer {
    boot: BootId,
    host: String,
    port: u16,
    asked: bool,
    next: Mono,
    /// When it answered last, or was observed first.
    answered: Mono,
    /// Whether it ever answered.
    was_reached: bool,
    failed: u32,
    refused: u32,
}

/// See the module.
pub(in crate::control) struct Observer {
    name: String,
    lease: Duration,
    peers: BTreeMap<String, Peer>,
    looked: Option<Mono>,
    writing: bool,
}

impl Observer {
    /// Observes once it looks.
    pub(in crate::control) fn new(name: String, lease: Duration, sink: &mut Sink) -> Observer {
        sink.wake_after(Owner::Observe, lease / ASKED_PER_LEASE);
        Observer { name, lease, peers: BTreeMap::new(), looked: None, writing: false }
    }

    fn every(&self) -> Duration {
        self.lease / ASKED_PER_LEASE
    }

    fn silence(&self) -> Duration {
        (self.lease / 2).max(LEAST_SILENCE)
    }

    /// The look that comes several times in the time of a lease; `lease`: what this process is registered under.
    pub(in crate::control) fn on_look(&mut self, view: &View, lease: Option<LeaseId>, sink: &mut Sink) {
        sink.wake_after(Owner::Observe, self.every());
        let unseen = self.looked.replace(sink.now).is_some_and(|at| sink.now.since(at) > 3 * self.every());
        self.choose(view, sink.now);
        if unseen {
            for peer in self.peers.values_mut() {
                (peer.answered, peer.failed, peer.refused) = (sink.now, 0, 0);
            }
        }
        let (every, now) = (self.every(), sink.now);
        let within = (self.lease / 4).max(LEAST_PATIENCE);
        for (name, peer) in self.peers.iter_mut().filter(|(_, peer)| !peer.asked && peer.next <= now) {
            (peer.asked, peer.next) = (true, now.plus(every));
            let (broker, host) = (name.clone(), peer.host.clone());
            sink.effect(Effect::Ping(Ping { broker, boot: peer.boot, host, port: peer.port, within }));
        }
        if let Some(lease) = lease {
            self.write(view, lease, sink);
        }
    }

    /// Invariant 1: the next ones in the ring.
    fn choose(&mut self, view: &View, now: Mono) {
        let is_asked = |name: &String| *name != self.name && !view.leaves_by_itself(name);
        let others: Vec<(&String, &BrokerRecord)> = view.brokers().filter(|(name, _)| is_asked(name)).collect();
        let first = others.iter().position(|(name, _)| **name > self.name).unwrap_or(0);
        let chosen = others.iter().cycle().skip(first).take(OBSERVED.min(others.len()));
        let mut before = std::mem::take(&mut self.peers);
        let mut peers = BTreeMap::new();
        for &(name, record) in chosen {
            let Some(shard) = record.shards.first() else { continue };
            let known = before.remove(name);
            let same =
                known.filter(|peer| (peer.boot, &peer.host, peer.port) == (record.boot, &shard.host, shard.port));
            let peer = same.unwrap_or_else(|| Peer {
                boot: record.boot,
                host: shard.host.clone(),
                port: shard.port,
                asked: false,
                next: now,
                answered: now,
                was_reached: false,
                failed: 0,
                refused: 0,
            });
            peers.insert(name.clone(), peer);
        }
        self.peers = peers;
    }

    /// A question came to its end.
    pub(in crate::control) fn on_pong(&mut self, broker: &str, boot: BootId, pong: Pong, now: Mono) {
        let Some(peer) = self.peers.get_mut(broker).filter(|peer| peer.boot == boot) else { return };
        peer.asked = false;
        match pong {
            Pong::Answered => {
                (peer.answered, peer.was_reached) = (now, true);
                (peer.failed, peer.refused) = (0, 0);
            }
            Pong::Refused => (peer.failed, peer.refused) = (peer.failed + 1, peer.refused + 1),
            Pong::Silent => (peer.failed, peer.refused) = (peer.failed + 1, 0),
        }
    }

    /// The lives that do not answer (invariant 2).
    fn suspected(&self, now: Mono) -> BTreeMap<&str, BootId> {
        let silence = self.silence();
        let answers = |peer: &Peer| peer.was_reached && peer.failed == 0 && now.since(peer.answered) <= silence;
        if !self.peers.values().any(answers) {
            return BTreeMap::new();
        }
        let is_silent = |peer: &Peer| peer.failed >= FAILURES && now.since(peer.answered) >= silence;
        let fails = |peer: &Peer| peer.was_reached && (peer.refused >= REFUSALS || is_silent(peer));
        let failing = self.peers.iter().filter(|(_, peer)| fails(peer));
        failing.map(|(name, peer)| (name.as_str(), peer.boot)).collect()
    }

    fn write(&mut self, view: &View, lease: LeaseId, sink: &mut Sink) {
        if self.writing {
            return;
        }
        let wanted = self.suspected(sink.now);
        let said: BTreeMap<&str, BootId> = view.said_by(&self.name).collect();
        let names: BTreeSet<&str> = wanted.keys().chain(said.keys()).copied().collect();
        let mut ops = Vec::new();
        for name in names {
            let key = keys::suspect(name, &self.name);
            match (wanted.get(name), said.get(name)) {
                (wanted, said) if wanted == said => {}
                (Some(&boot), _) => {
                    tracing::warn!(broker = name, "does not answer");
                    ops.push(Op::PutLeased(key, SuspectRecord { v: RECORD_VERSION, boot }.encode(), lease));
                }
                (None, _) => ops.push(Op::Delete(key)),
            }
        }
        if !ops.is_empty() {
            self.writing = true;
            sink.txn(Owner::Suspicions, Txn { compares: Vec::new(), ops });
        }
    }

    /// Keys were written, or not: the view tells.
    pub(in crate::control) fn on_written(&mut self) {
        self.writing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{change, record, view_of};
    use super::*;
    use bytes::Bytes;
    use millrace_storage::meta::Key;
    use millrace_storage::meta::records::DrainRecord;

    const LEASE: Duration = Duration::from_secs(8);
    const EVERY: Duration = Duration::from_secs(1);

    /// The observer "b" among some others.
    struct Desk {
        sink: Sink,
        observer: Observer,
        view: View,
        asked: Vec<String>,
        ops: Vec<Op>,
        /// What each answers; nothing comes from who is not named.
        pongs: BTreeMap<String, Pong>,
        revision: i64,
    }

    impl Desk {
        fn among(names: &[&str]) -> Desk {
            let boots = (1..).zip(names);
            let view = view_of(boots.map(|(boot, name)| (keys::broker(name), record(boot, 10).encode())).collect());
            let mut sink = Sink::default();
            let observer = Observer::new("b".to_owned(), LEASE, &mut sink);
            let pongs = names.iter().map(|name| ((*name).to_owned(), Pong::Answered)).collect();
            let (asked, ops) = (Vec::new(), Vec::new());
            Desk { sink, observer, view, asked, ops, pongs, revision: 100 }
        }

        fn says(&mut self, name: &str, pong: Pong) {
            self.pongs.insert(name.to_owned(), pong);
        }

        /// Looks so many times, in time; what was written in the last of them.
        fn look(&mut self, times: u32) -> Vec<Op> {
            for _ in 0..times {
                self.look_after(EVERY);
            }
            self.ops.clone()
        }

        fn look_after(&mut self, passed: Duration) {
            (self.asked, self.ops) = (Vec::new(), Vec::new());
            self.sink.now = self.sink.now.plus(passed);
            self.observer.on_look(&self.view, Some(LeaseId(7)), &mut self.sink);
            for effect in self.sink.drain(Vec::new()) {
                match effect {
                    Effect::Ping(ping) => {
                        if let Some(pong) = self.pongs.get(&ping.broker) {
                            self.observer.on_pong(&ping.broker, ping.boot, *pong, self.sink.now);
                        }
                        self.asked.push(ping.broker);
                    }
                    Effect::Call(id, super::super::super::effects::StoreCall::Txn(txn)) => {
                        assert_eq!(self.sink.ended(id), Owner::Suspicions);
                        self.ops = txn.ops;
                        self.carry_out();
                        self.observer.on_written();
                    }
                    other => panic!("{other:?}"),
                }
            }
        }

        fn carry_out(&mut self) {
            for op in self.ops.clone() {
                let (key, value): (Key, Option<Bytes>) = match op {
                    Op::PutLeased(key, value, LeaseId(7)) => (key, Some(value)),
                    Op::Delete(key) => (key, None),
                    other => panic!("{other:?}"),
                };
                self.revision += 1;
                change(&mut self.view, key, value, self.revision);
            }
        }
    }

    fn suspects(name: &str, boot: u64) -> Op {
        let record = SuspectRecord { v: RECORD_VERSION, boot: BootId(boot) };
        Op::PutLeased(keys::suspect(name, "b"), record.encode(), LeaseId(7))
    }

    #[test]
    fn the_next_few_in_the_ring_of_names_are_asked_and_no_others() {
        let mut desk = Desk::among(&["a", "b", "c", "d", "e", "f"]);
        desk.look(1);
        assert_eq!(desk.asked, ["c", "d", "e"]);
        let said = DrainRecord { v: RECORD_VERSION, boot: BootId(4) };
        change(&mut desk.view, keys::drain("d"), Some(said.encode()), 12);
        change(&mut desk.view, keys::broker("f"), None, 13);
        desk.look(1);
        assert_eq!(desk.asked, ["a", "c", "e"], "who leaves need not answer");
    }

    #[test]
    fn who_refuses_is_suspected_after_a_few_times_and_who_is_silent_after_half_a_lease() {
        let mut desk = Desk::among(&["a", "b", "c"]);
        desk.look(3);
        desk.says("c", Pong::Refused);
        assert_eq!(desk.look(3), [], "what came of the last question is looked at next");
        assert_eq!(desk.look(1), [suspects("c", 3)]);
        assert_eq!(desk.look(1), [], "it stands");
        desk.says("c", Pong::Answered);
        assert_eq!(desk.look(2), [Op::Delete(keys::suspect("c", "b"))]);
        desk.says("c", Pong::Silent);
        assert_eq!(desk.look(3), []);
        assert_eq!(desk.look(1), [suspects("c", 3)]);
    }

    #[test]
    fn who_was_never_reached_is_not_suspected() {
        let mut desk = Desk::among(&["a", "b", "c"]);
        desk.says("c", Pong::Refused);
        assert_eq!(desk.look(20), []);
    }

    #[test]
    fn who_reaches_nobody_suspects_nobody() {
        let mut desk = Desk::among(&["a", "b", "c"]);
        desk.look(3);
        desk.says("c", Pong::Refused);
        desk.look(4);
        desk.says("a", Pong::Silent);
        assert_eq!(desk.look(2), [Op::Delete(keys::suspect("c", "b"))], "it takes back what it said");
        assert_eq!(desk.look(20), []);
    }

    #[test]
    fn a_question_without_an_end_is_the_only_one_and_a_later_life_is_asked_anew() {
        let mut desk = Desk::among(&["a", "b", "c"]);
        desk.pongs.remove("c");
        desk.look(1);
        assert_eq!(desk.asked, ["a", "c"]);
        desk.look(5);
        assert_eq!(desk.asked, ["a"]);
        change(&mut desk.view, keys::broker("c"), Some(record(9, 30).encode()), 12);
        desk.look(1);
        assert_eq!(desk.asked, ["a", "c"]);
        desk.observer.on_pong("c", BootId(3), Pong::Refused, desk.sink.now);
        desk.look(1);
        assert_eq!(desk.asked, ["a"], "the answer of another life is none");
    }

    #[test]
    fn what_was_measured_before_a_suspend_counts_for_nothing() {
        let mut desk = Desk::among(&["a", "b", "c"]);
        desk.look(2);
        desk.says("c", Pong::Silent);
        desk.look(3);
        desk.look_after(LEASE * 10);
        assert_eq!(desk.ops, []);
        assert_eq!(desk.look(3), []);
        assert_eq!(desk.look(1), [suspects("c", 3)]);
    }
}
