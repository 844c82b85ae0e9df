//! What keeps an etcd from filling up: its history is compacted, its size is watched.
//!
//! Every process does this by itself. Compacting what another one has compacted is no error, so none needs to know of the
//! others. etcd's file does not shrink by it, but what was freed is used again; giving space back to the disk
//! (defragmenting) stops a member for a while and is left to who runs the etcd.
//!
//! etcd compacts some 50,000 revisions of keys a second, and takes writes faster than that. What clients write as often as
//! they like, committed offsets, is therefore held back while it fills up ([`Filling`]), the more the fuller it is
//! ([`Size::offsets_wait_micros`]): at most to what it surely compacts. What others need of it they get.
//!
//! Invariants:
//! 1. History younger than [`SHORTEST_HISTORY`] is not compacted: a watch whose stream broke finds what it missed. An etcd
//!    that fills up comes first, as it takes no writes at all when it is full: then history is kept for
//!    [`PRESSED_HISTORY`], and a watch that missed more lists again.
//! 2. [`Schedule`] keeps at most [`MARKS`] marks.

use super::client::{COMPACT, STATUS};
use super::proto::{CompactionRequest, CompactionResponse, StatusRequest, StatusResponse};
use super::{EtcdMeta, Shared};
use crate::env::Mono;
use crate::side::{monotonic_now, pause};
use crate::store_error::StoreError;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// The same while the etcd fills up.
const LOOK_PRESSED: Duration = Duration::from_secs(5);
/// Watches find what they missed for at least so long.
const SHORTEST_HISTORY: Duration = Duration::from_secs(60);
/// The same while the etcd fills up. As many bytes as clients can write in this time must be a small part of the quota.
const PRESSED_HISTORY: Duration = Duration::from_secs(10);
/// At least so long between two compactions, of an etcd that does not fill up.
const COMPACT_APART: Duration = Duration::from_secs(60);
/// More revisions than this are compacted before their time.
const MANY_REVISIONS: i64 = 100_000;
/// Marks of a schedule: an hour of looks.
const MARKS: usize = 240;
/// etcd's own default, where it does not say.
const DEFAULT_QUOTA: u64 = 2 << 30;
/// An etcd of which less than this share of the quota is in use does not fill up, percent.
const FILLING_FROM_PERCENT: u64 = 25;
/// One that grows by no more than this share between two looks does not either, percent.
const GROWTH_PERCENT: u64 = 1;
/// One that has grown fills up for so long.
const FILLING_FOR: Duration = Duration::from_secs(60);
/// Share of the quota, percent, from which commits of offsets wait before they are sent while it fills up, ...
const SLOW_FROM_PERCENT: u64 = 35;
/// ... and from which they wait for [`SLOWEST_MICROS`].
const SLOWEST_FROM_PERCENT: u64 = 65;
/// The longest wait of a commit, microseconds: those of 64 slots one after the other, each with as much as a transaction
/// takes, are some 38,000 keys a second then.
const SLOWEST_MICROS: u64 = 200_000;
/// Share of the quota from which a warning is logged, percent.
const WARN_PERCENT: u64 = 70;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Upkeep {
    /// How much history is kept, at most an hour; `None`: somebody else compacts.
    pub history: Option<Duration>,
    /// The etcd's `--quota-backend-bytes`, where it does not tell it (before 3.6); `None`: its default.
    pub quota: Option<u64>,
}

/// The etcd's size as last seen; 0: not yet.
#[derive(Debug, Default)]
pub struct EtcdGauges {
    /// Bytes of its file, which the quota is about.
    pub file: AtomicU64,
    /// Bytes of those in use.
    pub used: AtomicU64,
    /// What the file may become.
    pub quota: AtomicU64,
    /// Compactions that this process asked for.
    pub compactions: AtomicU64,
    /// How long a commit of offsets waits before it is sent, microseconds.
    offsets_wait: AtomicU64,
}

impl EtcdMeta {
    /// Starts the upkeep; it ends with the last handle on the store.
    pub fn keep_up(&self, upkeep: Upkeep) -> Arc<EtcdGauges> {
        let gauges = self.0.gauges.clone();
        drop(self.0.side.run(run(Arc::downgrade(&self.0), upkeep, gauges.clone())));
        gauges
    }

    /// Compacts the history up to `revision`.
    ///
    /// # Errors
    /// The etcd refuses, or does not answer.
    pub async fn compact(&self, revision: super::Revision) -> Result<(), StoreError> {
        let shared = self.0.clone();
        self.0.side.run(async move { compact(&shared, revision.0).await }).await
    }
}

async fn run(shared: Weak<Shared>, upkeep: Upkeep, gauges: Arc<EtcdGauges>) {
    let (mut schedule, mut filling) = (Schedule::default(), Filling::default());
    let mut warned = false;
    while let Some(shared) = shared.upgrade() {
        let mut look_again = LOOK_EVERY;
        match shared.client.call::<_, StatusResponse>(&STATUS, StatusRequest {}).await {
            Ok(status) => {
                let size = Size::of(&status, upkeep.quota);
                let now = monotonic_now();
                let is_filling = filling.look(now, &size);
                size.show(&gauges);
                let wait = if is_filling { size.offsets_wait_micros() } else { 0 };
                gauges.offsets_wait.store(wait, Ordering::Relaxed);
                if is_filling {
                    look_again = LOOK_PRESSED;
                }
                warned = size.warn(warned);
                let newest = super::revision(status.header.as_ref()).0.max(shared.client.guard.revision());
                let target = upkeep.history.and_then(|keep| schedule.look(now, keep, newest, &size, is_filling));
                if let Some(revision) = target {
                    match compact(&shared, revision).await {
                        Ok(()) => {
                            gauges.compactions.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => tracing::warn!(%error, "etcd's history was not compacted; it is tried again"),
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the size of etcd is not known"),
        }
        drop(shared);
        pause(look_again).await;
    }
}

async fn compact(shared: &Shared, revision: i64) -> Result<(), StoreError> {
    let asked = CompactionRequest { revision };
    match shared.client.call::<_, CompactionResponse>(&COMPACT, asked).await {
        // Somebody was faster, or this is the answer to a second attempt.
        Err(error) if error.detail.contains("has been compacted") => Ok(()),
        answered => answered.map(drop),
    }
}

impl EtcdGauges {
    /// Waits until a commit of offsets may be sent.
    pub(super) async fn room_for_offsets(&self) {
        let wait = self.offsets_wait.load(Ordering::Relaxed);
        if wait > 0 {
            pause(Duration::from_micros(wait)).await;
        }
    }
}

/// How large the etcd is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Size {
    file: u64,
    used: u64,
    quota: u64,
}

impl Size {
    fn of(status: &StatusResponse, quota: Option<u64>) -> Size {
        let told = u64::try_from(status.db_size_quota).ok().filter(|told| *told > 0);
        Size {
            file: u64::try_from(status.db_size).unwrap_or(0),
            used: u64::try_from(status.db_size_in_use).unwrap_or(0),
            quota: told.or(quota).unwrap_or(DEFAULT_QUOTA),
        }
    }

    fn show(&self, gauges: &EtcdGauges) {
        gauges.file.store(self.file, Ordering::Relaxed);
        gauges.used.store(self.used, Ordering::Relaxed);
        gauges.quota.store(self.quota, Ordering::Relaxed);
    }

    /// Warns when the file has grown beyond the share, once until it is below it again.
    fn warn(&self, warned: bool) -> bool {
        let percent = self.percent(self.file);
        if percent >= WARN_PERCENT && !warned {
            tracing::warn!(
                file_bytes = self.file,
                used_bytes = self.used,
                quota_bytes = self.quota,
                "etcd has used {percent} % of its quota, and takes no writes at all when it is used up: defragment it if \
                 much less is in use, else raise --quota-backend-bytes"
            );
        }
        percent >= WARN_PERCENT
    }

    /// How long a commit of offsets waits before it is sent while it fills up.
    fn offsets_wait_micros(&self) -> u64 {
        let range = SLOWEST_FROM_PERCENT - SLOW_FROM_PERCENT;
        let over = self.percent(self.used).saturating_sub(SLOW_FROM_PERCENT).min(range);
        SLOWEST_MICROS * over * over / (range * range)
    }

    /// What share of the quota so many bytes are.
    fn percent(&self, bytes: u64) -> u64 {
        bytes.saturating_mul(100) / self.quota
    }

    /// Early enough that what comes until the next compaction keeps clear of the warning.
    fn is_much(&self) -> bool {
        self.percent(self.used) >= FILLING_FROM_PERCENT
    }
}

/// Whether it fills up, and not only holds much: pure.
#[derive(Default)]
struct Filling {
    /// What was in use at the last look.
    used: Option<u64>,
    until: Option<Mono>,
}

impl Filling {
    /// A look at `now`.
    fn look(&mut self, now: Mono, size: &Size) -> bool {
        let before = self.used.replace(size.used);
        if before.is_some_and(|before| size.used > before + size.quota / 100 * GROWTH_PERCENT) {
            self.until = Some(now.plus(FILLING_FOR));
        }
        size.is_much() && self.until.is_some_and(|until| now < until)
    }
}

/// Which revision to compact to: pure.
#[derive(Default)]
struct Schedule {
    /// What the newest revision was at earlier looks.
    marks: VecDeque<(Mono, i64)>,
    compacted: Option<(Mono, i64)>,
}

impl Schedule {
    /// A look at `now`, when `revision` is the newest.
    fn look(&mut self, now: Mono, keep: Duration, revision: i64, size: &Size, is_filling: bool) -> Option<i64> {
        self.marks.push_back((now, revision));
        if self.marks.len() > MARKS {
            self.marks.pop_front();
        }
        let (apart, shortest) =
            if is_filling { (PRESSED_HISTORY, PRESSED_HISTORY) } else { (COMPACT_APART, SHORTEST_HISTORY) };
        if self.compacted.is_some_and(|(at, _)| now.since(at) < apart) {
            return None;
        }
        let keep = keep.max(SHORTEST_HISTORY);
        let older =
            |age: Duration| self.marks.iter().rev().find(|(at, _)| now.since(*at) >= age).map(|(_, mark)| *mark);
        let floor = self.compacted.map_or(0, |(_, floor)| floor);
        let kept = revision - floor.max(self.marks.front().map_or(0, |(_, oldest)| *oldest));
        let is_much = kept > MANY_REVISIONS || size.is_much();
        let target = older(if is_much { shortest } else { keep })?;
        if target <= floor {
            return None;
        }
        self.compacted = Some((now, target));
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Size = Size { file: 10, used: 5, quota: 1_000 };
    const KEEP: Duration = Duration::from_secs(600);

    /// Looks every 15 s for `seconds`, a revision each `step`; what was compacted, with the second it was.
    fn looks(schedule: &mut Schedule, seconds: std::ops::Range<u64>, step: i64, size: Size) -> Vec<(u64, i64)> {
        looks_at(schedule, seconds, step, (size, false))
    }

    fn looks_at(
        schedule: &mut Schedule,
        seconds: std::ops::Range<u64>,
        step: i64,
        (size, is_filling): (Size, bool),
    ) -> Vec<(u64, i64)> {
        let at = |second: u64| Mono(second * 1_000_000_000);
        let revision = |second: u64| i64::try_from(second / 15).unwrap() * step;
        seconds
            .step_by(15)
            .filter_map(|second| Some((second, schedule.look(at(second), KEEP, revision(second), &size, is_filling)?)))
            .collect()
    }

    #[test]
    fn history_is_compacted_when_it_is_old_enough_and_not_more_often_than_a_minute() {
        let mut schedule = Schedule::default();
        assert_eq!(looks(&mut schedule, 0..615, 10, SMALL), [], "all of it is young");
        let compacted = looks(&mut schedule, 615..1_200, 10, SMALL);
        assert_eq!(compacted[0], (615, 10));
        for pair in compacted.windows(2) {
            assert_eq!((pair[1].0 - pair[0].0, pair[1].1 - pair[0].1), (60, 40));
        }
    }

    #[test]
    fn much_history_is_compacted_down_to_a_minute() {
        let mut schedule = Schedule::default();
        let compacted = looks(&mut schedule, 0..300, 30_000, SMALL);
        // 4 looks of 30,000 are beyond the limit; the newest that is a minute old is the first.
        assert_eq!(compacted[0], (75, 30_000));
    }

    #[test]
    fn an_etcd_that_fills_up_is_compacted_at_every_look_down_to_what_is_older_than_ten_seconds() {
        let much = Size { used: 250, ..SMALL };
        assert_eq!(looks(&mut Schedule::default(), 0..90, 10, much), [(75, 10)]);
        let compacted = looks_at(&mut Schedule::default(), 0..90, 10, (much, true));
        assert_eq!(compacted, [(30, 10), (45, 20), (60, 30), (75, 40)]);
    }

    #[test]
    fn an_etcd_fills_up_while_it_grows_and_a_minute_longer_but_not_by_what_it_holds() {
        let mut filling = Filling::default();
        let mut look = |second: u64, used| filling.look(Mono(second * 1_000_000_000), &Size { used, ..SMALL });
        assert!(![look(0, 800), look(15, 810), look(30, 800)].contains(&true), "much, and no more");
        assert!(look(35, 811) && look(40, 700) && look(94, 250));
        assert!(!look(95, 250), "it has not grown for a minute");
        assert!(![look(100, 100), look(105, 249)].contains(&true), "little");
        assert!(look(110, 260));
    }

    #[test]
    fn commits_wait_the_longer_the_fuller_the_etcd_is() {
        let wait = |used| Size { used, ..SMALL }.offsets_wait_micros();
        assert_eq!([wait(0), wait(350), wait(500), wait(650), wait(999)], [0, 0, 50_000, 200_000, 200_000]);
    }

    #[test]
    fn an_idle_store_is_not_compacted_again_and_again() {
        let mut schedule = Schedule::default();
        let mut compacted = looks(&mut schedule, 0..900, 10, SMALL);
        let last = compacted.pop().unwrap();
        assert_eq!(last.1, 170);
        let at = |second: u64| Mono(second * 1_000_000_000);
        let idle = (900..2_000).step_by(15).filter_map(|second| schedule.look(at(second), KEEP, 590, &SMALL, false));
        let idle: Vec<i64> = idle.collect();
        assert_eq!(idle.last(), Some(&590));
        assert_eq!(idle.iter().filter(|target| **target == 590).count(), 1);
    }

    #[test]
    fn the_quota_is_what_etcd_tells_else_what_was_set_else_its_default() {
        let told = StatusResponse { db_size_quota: 7, ..StatusResponse::default() };
        assert_eq!(Size::of(&told, Some(9)).quota, 7);
        assert_eq!(Size::of(&StatusResponse::default(), Some(9)).quota, 9);
        assert_eq!(Size::of(&StatusResponse::default(), None).quota, DEFAULT_QUOTA);
        let nearly = Size { file: 700, ..SMALL };
        assert!(nearly.warn(false) && !SMALL.warn(true));
    }
}
