//! What may go wrong with one request to a store, and how often.
//!
//! A request is sent, travels, is applied at one instant by the store, and its answer travels back. Each step may fail in
//! every way that PROTOCOL.md section 4 names; the sender then gets an error that says no more than a real client would
//! know. What was sent belongs to the world: it is applied whether or not the sender still lives.

use super::dice::{Chance, Dice};
use super::executor::{ProcessId, Sim};
use crate::store_error::{FailureKind, StoreError};
use crate::wal::StoreFuture;
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

/// How bad a run's stores are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temper {
    /// Nothing fails; only latencies vary.
    Calm,
    /// One request in a hundred or so fails.
    Fair,
    /// One in ten.
    Rough,
}

/// Fault rates of one store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// One way.
    pub latency: Range<Duration>,
    /// A request that takes much longer, still answered.
    pub slow: Chance,
    /// 503 before anything was done.
    pub refused: Chance,
    /// Never arrives: unknown to the sender.
    pub lost_request: Chance,
    /// Applied, but the answer is lost.
    pub lost_response: Chance,
    /// The sender times out; applied later than that.
    pub late: Chance,
    /// Applied twice, the second time later.
    pub duplicate: Chance,
    /// How much later.
    pub late_by: Range<Duration>,
    /// When a sender that hears nothing gives up.
    pub timeout: Range<Duration>,
    /// A listing shows a change only this long after it happened.
    pub list_lag: Range<Duration>,
    /// A watch shows a change only this long after it happened.
    pub watch_lag: Range<Duration>,
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Faults {
    /// Rates of this temper, varied by the dice.
    pub fn drawn(temper: Temper, dice: &mut Dice) -> Faults {
        let per_fault = match temper {
            Temper::Calm => return Faults::none(),
            Temper::Fair => 40,
            Temper::Rough => 500,
        };
        let mut rate = || Chance(u32::try_from(dice.below(0..per_fault)).expect("a small number"));
        let (slow, refused, lost_request) = (rate(), rate(), rate());
        let (lost_response, late, duplicate) = (rate(), rate(), rate());
        let hours = dice.below(0..3);
        Faults {
            latency: ms(dice.below(1..10))..ms(dice.below(11..80)),
            slow,
            refused,
            lost_request,
            lost_response,
            late,
            duplicate,
            late_by: ms(1)..match hours {
                0 => ms(500),
                1 => ms(60_000),
                _ => ms(3 * 3_600_000),
            },
            timeout: ms(200)..ms(dice.below(300..5_000)),
            list_lag: ms(0)..ms(dice.below(1..3_000)),
            watch_lag: ms(0)..ms(dice.below(1..500)),
        }
    }

    /// Nothing fails.
    pub fn none() -> Faults {
        Faults {
            latency: ms(1)..ms(20),
            slow: Chance::NEVER,
            refused: Chance::NEVER,
            lost_request: Chance::NEVER,
            lost_response: Chance::NEVER,
            late: Chance::NEVER,
            duplicate: Chance::NEVER,
            late_by: ms(1)..ms(2),
            timeout: ms(1_000)..ms(1_001),
            list_lag: ms(0)..ms(1),
            watch_lag: ms(0)..ms(5),
        }
    }
}

/// Whether a request may be applied a second time by the network (metadata transactions are not: their transport
/// numbers them).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    Never,
    MayRepeat,
}

/// How one process is cut off from one store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// No request gets through.
    Off,
    /// Requests get through, answers do not.
    Deaf,
}

/// One store's way to fail.
pub(super) struct Service {
    pub(super) sim: Sim,
    faults: RefCell<Faults>,
    outage_until: Cell<u64>,
    full_until: Cell<u64>,
    /// Processes that are cut off, and until when.
    cuts: RefCell<BTreeMap<ProcessId, (Cut, u64)>>,
}

impl Service {
    pub(super) fn new(sim: Sim, faults: Faults) -> Service {
        let (outage_until, full_until, cuts) = Default::default();
        Service { sim, faults: RefCell::new(faults), outage_until, full_until, cuts }
    }

    pub(super) fn heal(&self) {
        self.outage_until.set(0);
        self.full_until.set(0);
        self.cuts.borrow_mut().clear();
        *self.faults.borrow_mut() = Faults::none();
    }

    pub(super) fn outage(&self, length: Duration) {
        self.outage_until.set(self.sim.now() + length.as_nanos() as u64);
    }

    pub(super) fn cut(&self, process: ProcessId, cut: Cut, length: Duration) {
        self.sim.note(format_args!("p{} is cut off for {length:?}: {cut:?}", process.0));
        self.cuts.borrow_mut().insert(process, (cut, self.sim.now() + length.as_nanos() as u64));
    }

    /// How the process is cut off now.
    fn cut_of(&self, process: Option<ProcessId>) -> Option<Cut> {
        let (cut, until) = self.cuts.borrow().get(&process?).copied()?;
        (until > self.sim.now()).then_some(cut)
    }

    /// Until when nothing is heard of the store by this process.
    pub(super) fn silent_until(&self, process: Option<ProcessId>) -> u64 {
        let cut = process.and_then(|process| self.cuts.borrow().get(&process).map(|(_, until)| *until));
        self.outage_until.get().max(cut.unwrap_or(0))
    }

    /// Until when something is heard of the store by nobody, or not by everybody.
    pub(super) fn last_silence(&self) -> u64 {
        let cuts = self.cuts.borrow().values().map(|(_, until)| *until).max();
        self.outage_until.get().max(cuts.unwrap_or(0))
    }

    pub(super) fn fill(&self, length: Duration) {
        self.full_until.set(self.sim.now() + length.as_nanos() as u64);
    }

    pub(super) fn is_full(&self) -> bool {
        self.full_until.get() > self.sim.now()
    }

    pub(super) fn draw(&self, of: impl Fn(&Faults) -> &Range<Duration>) -> Duration {
        let range = of(&self.faults.borrow()).clone();
        self.sim.dice(|d| d.latency(&range))
    }

    fn chance(&self, of: impl Fn(&Faults) -> Chance) -> bool {
        let chance = of(&self.faults.borrow());
        self.sim.dice(|d| d.happens(chance))
    }

    /// Sends a request whose effect and answer are what `apply` does and returns when it arrives.
    pub(super) fn request<T: 'static>(
        self: &Rc<Self>,
        repeats: Repeats,
        apply: impl Fn() -> Result<T, StoreError> + 'static,
    ) -> StoreFuture<T> {
        let (answer, answered) = oneshot::channel();
        let sender = self.sim.current_task().map(|(process, _)| process);
        let sent = Request { service: self.clone(), sender, apply: Rc::new(apply), answer };
        sent.send(repeats);
        Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(StoreError::unknown(FailureKind::Timeout, "no answer")))
        })
    }
}

struct Request<T> {
    service: Rc<Service>,
    sender: Option<ProcessId>,
    apply: Rc<dyn Fn() -> Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

impl<T: 'static> Request<T> {
    fn send(self, repeats: Repeats) {
        let service = self.service.clone();
        let sim = &service.sim;
        let mut travel = service.draw(|f| &f.latency);
        let timeout = service.draw(|f| &f.timeout);
        let late = timeout + service.draw(|f| &f.late_by);
        let slow = service.chance(|f| f.slow);
        let refused = service.chance(|f| f.refused);
        let lost_request = service.chance(|f| f.lost_request);
        let lost_response = service.chance(|f| f.lost_response);
        let delayed = service.chance(|f| f.late);
        let repeated = service.chance(|f| f.duplicate) && repeats == Repeats::MayRepeat;
        if slow {
            travel += service.draw(|f| &f.timeout);
        }
        let is_off = service.outage_until.get() > sim.now() || service.cut_of(self.sender) == Some(Cut::Off);
        if is_off || lost_request {
            self.fail_after(timeout, StoreError::unknown(FailureKind::Timeout, "the request got lost"));
        } else if refused {
            self.fail_after(travel * 2, StoreError::not_done(FailureKind::Throttled, "slow down"));
        } else if delayed {
            let apply = self.apply.clone();
            sim.after(late, move || drop(apply()));
            self.fail_after(timeout, StoreError::unknown(FailureKind::Timeout, "the request is under way"));
        } else {
            if repeated {
                let apply = self.apply.clone();
                sim.after(travel + service.draw(|f| &f.late_by), move || drop(apply()));
            }
            self.deliver(travel, lost_response);
        }
    }

    fn fail_after(self, delay: Duration, error: StoreError) {
        let sim = self.service.sim.clone();
        sim.after(delay, move || drop(self.answer.send(Err(error))));
    }

    fn deliver(self, travel: Duration, lost_response: bool) {
        let sim = self.service.sim.clone();
        sim.after(travel, move || {
            let result = (self.apply)();
            let back = self.service.draw(|f| &f.latency);
            if lost_response || self.service.cut_of(self.sender).is_some() {
                // Half of them are seen at once as a broken connection, half as silence.
                let wait = if self.service.sim.dice(|d| d.happens(Chance(Chance::WHOLE / 2))) {
                    back
                } else {
                    self.service.draw(|f| &f.timeout)
                };
                self.fail_after(wait, StoreError::unknown(FailureKind::Unavailable, "the response got lost"));
            } else {
                let after = self.service.sim.clone();
                after.after(back, move || drop(self.answer.send(result)));
            }
        });
    }
}
