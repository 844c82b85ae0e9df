//! Which segments of a partition may be deleted: those that no manifest names and none will name again. Pure.
//!
//! A segment without a name in the manifest is either on its way (its commit is under way), or litter (its commit failed,
//! its writer died), or was replaced or expired. No listing tells these apart, and neither does age: a writer that has not
//! noticed that it was replaced may send a commit at any time, and a request may be applied hours late. What tells them
//! apart is the version of the manifest. Two rules of COMPACT, for every writer:
//! - R1: a commit compares a version that was read before the first byte of any segment was sent that it names and that
//!   version does not. After a 412 the segment is written anew, under a new name.
//! - R2: no version comes back: bounds only grow, names are never used twice, and what a merge replaced stays replaced.
//!
//! So once a listing shows a segment, and the manifest then read has version v without naming it, only commits that compare
//! v can ever add it: those that compare an older version fail, and those that compare a later one name what was put later.
//! Of the commits that compare v a roll's segment begins where v covers nothing, and a merge's begins where one does that v
//! names with another behind it, and is larger than that one. What is neither is *doomed* at once: what was replaced or has
//! expired always is. The rest is doomed under a later version that does not name it either. No commit adds it any more
//! then, whoever sends it and whenever it arrives: neither fact can become false (I9). A put that arrives after the deletion
//! leaves litter that the next pass finds, and nothing that a manifest names.
//!
//! Invariants:
//! 1. What is given out for deletion is doomed, and was when the grace began: readers that took its name from a manifest have
//!    had that long.
//! 2. Every segment that no manifest names is given out: what was replaced or has expired in any case, the litter of a commit
//!    that failed once the manifest has changed after it was seen, and everything when its topic is gone.
//!
//! Not here: logs and checkpoints, which [`crate::recovery::Collector`] and their lane collect. What remains besides: of a partition
//! whose manifest never changes again, the litter of rolls and merges whose writer died.

use super::Segment;
use crate::env::Mono;
use crate::format::manifest::{Manifest, SegmentName};
use crate::ids::{Offset, TopicPartition};
use crate::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A look at what the store holds of one partition, in this order: listed, then the manifest read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The partition.
    pub partition: TopicPartition,
    /// The segments found.
    pub listed: BTreeMap<SegmentName, Listed>,
    /// What its manifest is, or that there is none to come.
    pub manifest: Seen,
}

/// A segment as a listing shows it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Listed {
    /// First offset, by its key.
    pub base: Offset,
    /// Bytes of its file; 0 if only its index is shown, which is put last.
    pub bytes: u64,
}

impl Listed {
    /// Whether no commit in place of a manifest that names `named`, in offset order, and covers what lies below `covered`
    /// can add it: it is neither a roll of what comes next nor a merge that begins with one of `named`.
    pub fn is_out_of_reach(&self, named: impl DoubleEndedIterator<Item = Segment>, covered: Offset) -> bool {
        // Of a merge the first part is not the last that is named. Of a file that a late listing does not show yet, beside
        // its index, nobody knows how large it is.
        let merged = |part: Segment| part.base == self.base && (self.bytes == 0 || self.bytes > part.bytes);
        self.base < covered && !named.rev().skip(1).any(merged)
    }
}

/// The manifest of a partition as a look found it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Its topic is deleted for good: topic ids are never used twice, nobody reads it.
    TopicGone,
    /// There is none yet.
    Absent,
    /// This version of it (its entity tag) names these segments.
    Named {
        /// Compared by commits.
        version: String,
        /// In offset order.
        segments: Vec<(SegmentName, Segment)>,
        /// First offset that none of them holds, nor held.
        covered: Offset,
    },
}

impl Seen {
    /// A manifest of this version.
    pub fn named(version: String, manifest: &Manifest) -> Seen {
        let segments = manifest.segments.iter().map(|named| (named.name, named.segment)).collect();
        Seen::Named { version, segments, covered: manifest.covered }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum State {
    /// A commit that compares this version (`None`: that there is none) may still name it.
    Unnamed { version: Option<String>, since: Mono },
    /// No commit will.
    Doomed { unnamed_since: Mono, since: Mono },
}

/// What is not named, and since when.
#[derive(Debug)]
pub struct Remains {
    grace: Duration,
    partitions: BTreeMap<TopicPartition, BTreeMap<SegmentName, State>>,
}

impl Remains {
    /// None known. Readers get `grace` after a manifest stopped naming what they read.
    pub fn new(grace: Duration) -> Remains {
        Remains { grace, partitions: BTreeMap::new() }
    }

    /// Takes a look in.
    pub fn saw(&mut self, now: Mono, look: Look) {
        let mut before = self.partitions.remove(&look.partition).unwrap_or_default();
        let gone = look.manifest == Seen::TopicGone;
        let (version, segments, covered) = match look.manifest {
            Seen::TopicGone | Seen::Absent => (None, Vec::new(), Offset(0)),
            Seen::Named { version, segments, covered } => (Some(version), segments, covered),
        };
        let names: BTreeSet<SegmentName> = segments.iter().map(|(name, _)| *name).collect();
        let mut found = BTreeMap::new();
        for (name, listed) in look.listed {
            if !gone && names.contains(&name) {
                continue;
            }
            let out_of_reach = gone
                || listed.is_out_of_reach(segments.iter().map(|(_, segment)| *segment), covered)
                || wrong(Wrong::SegmentDeletedOnSight);
            let state = match before.remove(&name) {
                Some(State::Unnamed { version: then, since }) if out_of_reach || then != version => {
                    State::Doomed { unnamed_since: since, since: now }
                }
                Some(state) => state,
                None if out_of_reach => State::Doomed { unnamed_since: now, since: now },
                None => State::Unnamed { version: version.clone(), since: now },
            };
            found.insert(name, state);
        }
        if !found.is_empty() {
            self.partitions.insert(look.partition, found);
        }
    }

    /// What may be deleted now, at most `limit` of it. It stays known until a look no longer finds it, or
    /// [`Remains::deleted`].
    pub fn due(&self, now: Mono, limit: usize) -> Vec<(TopicPartition, SegmentName)> {
        let all =
            self.partitions.iter().flat_map(|(partition, found)| found.iter().map(move |each| (*partition, each)));
        let doomed = all.filter(|(_, (_, state))| match state {
            State::Unnamed { .. } => false,
            State::Doomed { since, .. } => now.since(*since) >= self.grace,
        });
        doomed.map(|(partition, (name, _))| (partition, *name)).take(limit).collect()
    }

    /// All objects of this segment are deleted.
    pub fn deleted(&mut self, partition: TopicPartition, name: SegmentName) {
        if let Some(found) = self.partitions.get_mut(&partition) {
            found.remove(&name);
            if found.is_empty() {
                self.partitions.remove(&partition);
            }
        }
    }

    /// How many segments no manifest names, and for how long the oldest of them has been known.
    pub fn waiting(&self, now: Mono) -> (usize, Duration) {
        let states = || self.partitions.values().flat_map(BTreeMap::values);
        let ages = states().map(|state| match state {
            State::Unnamed { since, .. } | State::Doomed { unnamed_since: since, .. } => now.since(*since),
        });
        (states().count(), ages.max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::WallMs;
    use crate::ids::{TopicId, Wid};
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn partition() -> TopicPartition {
        TopicPartition { topic: TopicId(uuid::Uuid::from_u128(1)), index: 0 }
    }

    fn name(number: u64) -> SegmentName {
        SegmentName { wid: Wid(1), number }
    }

    fn at(seconds: u64) -> Mono {
        Mono(0).plus(Duration::from_secs(seconds))
    }

    fn segment(base: i64, last: i64, bytes: u64) -> Segment {
        Segment { base: Offset(base), last: Offset(last), bytes, max_timestamp: -1, created: WallMs(0) }
    }

    /// What a manifest says.
    #[derive(Clone, Default)]
    struct Says {
        version: u64,
        segments: Vec<(SegmentName, Segment)>,
        covered: i64,
    }

    /// A manifest that a commit would put in place of `compares`.
    #[derive(Clone)]
    struct Commit {
        compares: u64,
        says: Says,
    }

    /// A store with one partition, writers of which any number are zombies, and a collector.
    struct World {
        now: u64,
        stands: Says,
        stored: BTreeMap<SegmentName, Listed>,
        last_named: BTreeMap<SegmentName, u64>,
        next: u64,
        /// What each writer read before it sent what it would name.
        read: Vec<Option<Says>>,
        /// Commits that may be applied at any time, also twice.
        network: Vec<Commit>,
        /// A listing, the manifest not read yet.
        listing: Option<BTreeMap<SegmentName, Listed>>,
        remains: Remains,
    }

    impl World {
        fn new() -> World {
            World {
                now: 0,
                stands: Says::default(),
                stored: BTreeMap::new(),
                last_named: BTreeMap::new(),
                next: 0,
                read: vec![None; 3],
                network: Vec::new(),
                listing: None,
                remains: Remains::new(GRACE),
            }
        }

        fn apply(&mut self, commit: &Commit) {
            if commit.compares != self.stands.version {
                return;
            }
            self.last_named.extend(self.stands.segments.iter().map(|(name, _)| (*name, self.now)));
            self.stands = Says { version: commit.compares + 1, ..commit.says.clone() };
            self.check();
        }

        fn check(&self) {
            for (name, _) in &self.stands.segments {
                assert!(self.stored.contains_key(name), "{name} of {:?}", self.stored);
            }
        }

        /// `which` writer goes on: reads the manifest, or puts a segment and sends its commit.
        fn write(&mut self, which: usize, merge: bool) {
            let Some(read) = self.read[which].take() else {
                self.read[which] = Some(self.stands.clone());
                return;
            };
            let (compares, mut says) = (read.version, read);
            let new = name(self.next);
            self.next += 1;
            let parts = says.segments.len();
            let made = if merge && parts >= 2 {
                let from = which % (parts - 1);
                let taken: Vec<_> = says.segments.drain(from..from + 2).map(|(_, segment)| segment).collect();
                let made = segment(taken[0].base.0, taken[1].last.0, taken[0].bytes + taken[1].bytes);
                says.segments.insert(from, (new, made));
                made
            } else {
                let made = segment(says.covered, says.covered + 9, 1 + self.next % 3);
                says.segments.push((new, made));
                says.covered += 10;
                made
            };
            self.stored.insert(new, Listed { base: made.base, bytes: made.bytes });
            self.network.push(Commit { compares, says });
        }

        /// The manifest lets go of its first segment.
        fn expire(&mut self) {
            let mut says = self.stands.clone();
            if !says.segments.is_empty() {
                says.segments.remove(0);
                self.apply(&Commit { compares: says.version, says });
            }
        }

        fn collect(&mut self) {
            let Some(listed) = self.listing.take() else {
                self.listing = Some(self.stored.clone());
                return;
            };
            let Says { version, segments, covered } = self.stands.clone();
            let manifest = Seen::Named { version: version.to_string(), segments, covered: Offset(covered) };
            self.remains.saw(at(self.now), Look { partition: partition(), listed, manifest });
        }

        fn delete(&mut self) {
            for (partition, name) in self.remains.due(at(self.now), 4) {
                if let Some(last) = self.last_named.get(&name) {
                    assert!(self.now - last >= GRACE.as_secs(), "a reader may hold {name}");
                }
                self.stored.remove(&name);
                self.remains.deleted(partition, name);
                self.check();
            }
        }

        /// What no manifest names.
        fn unnamed(&self) -> BTreeSet<SegmentName> {
            let named: BTreeSet<_> = self.stands.segments.iter().map(|(name, _)| *name).collect();
            self.stored.keys().copied().filter(|name| !named.contains(name)).collect()
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_that_a_manifest_names_or_a_reader_holds_is_deleted_and_everything_else_in_the_end(
            steps in prop::collection::vec((0..7_u8, 0..3_usize, any::<bool>(), 0..400_u64), 1..120),
        ) {
            let mut world = World::new();
            for (step, which, flag, pause) in steps {
                match step {
                    0 | 1 => world.write(which, flag),
                    2 if !world.network.is_empty() => {
                        let index = which % world.network.len();
                        let commit = world.network[index].clone();
                        // A request may be applied again later.
                        if flag {
                            world.network.remove(index);
                        }
                        world.apply(&commit);
                    }
                    3 => world.collect(),
                    4 => world.delete(),
                    5 if pause < 100 => world.expire(),
                    _ => world.now += pause,
                }
            }
            world.listing = None;
            world.collect();
            world.collect();
            world.now += GRACE.as_secs();
            for _ in 0..world.next {
                world.delete();
            }
            let replaced = world.last_named.keys().filter(|name| world.unnamed().contains(name)).count();
            prop_assert_eq!(replaced, 0, "what was named once needs no further change");
            let alive = world.stands.version;
            while world.stands.version < alive + 2 {
                let commit = Commit { compares: world.stands.version, says: world.stands.clone() };
                world.apply(&commit);
                world.collect();
                world.collect();
            }
            world.now += GRACE.as_secs();
            for _ in 0..world.next {
                world.delete();
            }
            prop_assert_eq!(world.unnamed(), BTreeSet::new());
            prop_assert_eq!(world.remains.waiting(at(world.now)).0, 0);
        }
    }

    /// Numbers of segments that are listed, each of ten offsets and of as many bytes as its number says, by tens.
    fn look(version: &str, listed: &[u64], named: &[u64]) -> Look {
        let made = |number: u64| segment(number as i64 / 10 * 10, number as i64 / 10 * 10 + 9, 1 + number % 10);
        let listing = |number: &u64| {
            let Segment { base, bytes, .. } = made(*number);
            (name(*number), Listed { base, bytes })
        };
        let segments: Vec<_> = named.iter().map(|number| (name(*number), made(*number))).collect();
        let covered = segments.last().map_or(Offset(0), |(_, last)| last.last.plus(1));
        let manifest = Seen::Named { version: version.into(), segments, covered };
        Look { partition: partition(), listed: listed.iter().map(listing).collect(), manifest }
    }

    #[test]
    fn a_roll_on_its_way_stays_while_its_commit_may_succeed() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[10, 20], &[10]));
        remains.saw(at(100_000), look("a", &[10, 20], &[10]));
        assert!(remains.due(at(200_000), 9).is_empty(), "however old it is");
        assert_eq!(remains.waiting(at(200_000)), (1, Duration::from_secs(200_000)));
        remains.saw(at(200_000), look("b", &[10, 20], &[10, 20]));
        assert_eq!(remains.waiting(at(200_000)).0, 0, "it came");
    }

    #[test]
    fn so_does_a_merge_which_is_larger_than_the_first_of_those_that_it_replaces() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[11, 12, 20], &[11, 20]));
        assert!(remains.due(at(200_000), 9).is_empty());
        remains.saw(at(200_000), look("b", &[11, 12, 20], &[11, 20, 30]));
        assert_eq!(remains.due(at(200_600), 9), [(partition(), name(12))], "its commit failed");
    }

    #[test]
    fn a_merge_whose_file_a_late_listing_does_not_show_yet_stays_too() {
        let mut remains = Remains::new(GRACE);
        let mut seen = look("a", &[11, 12, 20], &[11, 20]);
        seen.listed.get_mut(&name(12)).expect("listed").bytes = 0;
        remains.saw(at(0), seen);
        assert!(remains.due(at(200_000), 9).is_empty());
    }

    #[test]
    fn litter_goes_a_grace_after_the_manifest_has_changed_without_it() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[10, 20], &[10]));
        remains.saw(at(50), look("b", &[10, 20, 21], &[10, 21]));
        assert!(remains.due(at(649), 9).is_empty());
        assert_eq!(remains.due(at(650), 9), [(partition(), name(20))]);
    }

    #[test]
    fn what_was_replaced_goes_a_grace_after_it_was_seen_whoever_replaced_it() {
        let mut remains = Remains::new(GRACE);
        // 10, 20 and 30 became 15, the last but one of those named; 0 has expired.
        let seen = look("a", &[0, 10, 15, 20, 30, 40], &[15, 40]);
        remains.saw(at(0), seen.clone());
        remains.saw(at(300), seen);
        assert!(remains.due(at(599), 9).is_empty());
        let gone: Vec<_> = [0, 10, 20, 30].map(|number| (partition(), name(number))).into();
        assert_eq!(remains.due(at(600), 9), gone, "seen again is not seen anew");
        assert_eq!(remains.due(at(600), 1).len(), 1, "and no more at once than asked for");
    }

    #[test]
    fn of_a_topic_that_is_gone_nothing_stays() {
        let mut remains = Remains::new(GRACE);
        let gone = Look { manifest: Seen::TopicGone, ..look("a", &[10, 20], &[]) };
        remains.saw(at(0), look("a", &[10], &[10]));
        remains.saw(at(10), gone);
        assert_eq!(remains.due(at(610), 9).len(), 2);
    }
}
