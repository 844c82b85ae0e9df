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
//! v or an older version can ever add it. Under a later version that does not name it either, it is *doomed*: no commit
//! adds it any more, whoever sends it and whenever it arrives. What a commit removed is doomed with that commit: any other
//! that names it compares an older version. Neither fact can become false (I9). A put that arrives after the deletion leaves
//! litter that the next pass finds, and nothing that a manifest names.
//!
//! Invariants:
//! 1. What is given out for deletion is doomed, and was when the grace began: readers that took its name from a manifest have
//!    had that long.
//! 2. Every segment that no manifest names is given out, once the manifest has changed after it was seen, and in any case
//!    when its topic is gone.
//!
//! Not here: logs and checkpoints, which [`crate::recovery::Collector`] and their lane collect. What remains besides: of a partition
//! whose manifest never changes again, the litter of writers that died and that lies beyond its log start.

use crate::env::Mono;
use crate::format::manifest::SegmentName;
use crate::ids::TopicPartition;
use crate::wrong::{Wrong, wrong};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A look at what the store holds of one partition, in this order: listed, then the manifest read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Look {
    /// The partition.
    pub partition: TopicPartition,
    /// Names of the segments found.
    pub listed: BTreeSet<SegmentName>,
    /// What its manifest is, or that there is none to come.
    pub manifest: Seen,
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
        /// Names.
        names: BTreeSet<SegmentName>,
    },
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

    /// The manifest of `partition` was committed by this process without `names`, which the version before it named.
    pub fn replaced(&mut self, now: Mono, partition: TopicPartition, names: impl IntoIterator<Item = SegmentName>) {
        let found = self.partitions.entry(partition).or_default();
        found.extend(names.into_iter().map(|name| (name, State::Doomed { unnamed_since: now, since: now })));
    }

    /// No commit names these segments of `partition` any more, and none of its readers begins with them: they begin below
    /// the first segment that its manifest names (without one, below what it covers), while rolls append and merges begin
    /// where a segment that is named does. Older versions never come back (R2).
    pub fn left_behind(&mut self, now: Mono, partition: TopicPartition, names: impl IntoIterator<Item = SegmentName>) {
        let found = self.partitions.entry(partition).or_default();
        for name in names {
            let unnamed_since = match found.get(&name) {
                Some(State::Doomed { .. }) => continue,
                Some(State::Unnamed { since, .. }) => *since,
                None => now,
            };
            found.insert(name, State::Doomed { unnamed_since, since: now });
        }
    }

    /// Takes a look in.
    pub fn saw(&mut self, now: Mono, look: Look) {
        let mut before = self.partitions.remove(&look.partition).unwrap_or_default();
        let (version, names) = match look.manifest {
            Seen::TopicGone => (None, None),
            Seen::Absent => (None, Some(BTreeSet::new())),
            Seen::Named { version, names } => (Some(version), Some(names)),
        };
        let mut found = BTreeMap::new();
        for name in look.listed {
            if names.as_ref().is_some_and(|names| names.contains(&name)) {
                continue;
            }
            let state = match before.remove(&name) {
                Some(State::Unnamed { version: then, since }) if names.is_none() || then != version => {
                    State::Doomed { unnamed_since: since, since: now }
                }
                Some(state) => state,
                None if names.is_none() || wrong(Wrong::SegmentDeletedOnSight) => {
                    State::Doomed { unnamed_since: now, since: now }
                }
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

    /// A manifest that a commit would put in place of `compares`.
    #[derive(Clone)]
    struct Commit {
        compares: u64,
        names: BTreeSet<SegmentName>,
    }

    /// A store with one partition, writers of which any number are zombies, and a collector.
    struct World {
        now: u64,
        version: u64,
        named: BTreeSet<SegmentName>,
        stored: BTreeSet<SegmentName>,
        last_named: BTreeMap<SegmentName, u64>,
        next: u64,
        /// What each writer read before it sent what it would name.
        read: Vec<Option<(u64, BTreeSet<SegmentName>)>>,
        /// Commits that may be applied at any time, also twice.
        network: Vec<Commit>,
        /// A listing, the manifest not read yet.
        listing: Option<BTreeSet<SegmentName>>,
        remains: Remains,
    }

    impl World {
        fn new() -> World {
            World {
                now: 0,
                version: 0,
                named: BTreeSet::new(),
                stored: BTreeSet::new(),
                last_named: BTreeMap::new(),
                next: 0,
                read: vec![None; 3],
                network: Vec::new(),
                listing: None,
                remains: Remains::new(GRACE),
            }
        }

        fn apply(&mut self, commit: &Commit) {
            if commit.compares != self.version {
                return;
            }
            let dropped: Vec<_> = self.named.difference(&commit.names).copied().collect();
            self.last_named.extend(self.named.iter().map(|name| (*name, self.now)));
            self.named.clone_from(&commit.names);
            self.version += 1;
            // Some of the writers hear of it and share a process with the collector.
            if self.version.is_multiple_of(2) {
                self.remains.replaced(at(self.now), partition(), dropped);
            }
            self.check();
        }

        fn check(&self) {
            assert!(self.named.is_subset(&self.stored), "{:?} of {:?}", self.named, self.stored);
        }

        /// `which` writer goes on: reads the manifest, or puts a segment and sends its commit.
        fn write(&mut self, which: usize, merge: bool) {
            let Some((compares, mut names)) = self.read[which].take() else {
                self.read[which] = Some((self.version, self.named.clone()));
                return;
            };
            let new = name(self.next);
            self.next += 1;
            self.stored.insert(new);
            if merge {
                let gone: Vec<_> = names.iter().take(2).copied().collect();
                names.retain(|name| !gone.contains(name));
            }
            names.insert(new);
            self.network.push(Commit { compares, names });
        }

        fn collect(&mut self) {
            let Some(listed) = self.listing.take() else {
                self.listing = Some(self.stored.clone());
                return;
            };
            let manifest = Seen::Named { version: self.version.to_string(), names: self.named.clone() };
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
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn nothing_that_a_manifest_names_or_a_reader_holds_is_deleted_and_everything_else_in_the_end(
            steps in prop::collection::vec((0..6_u8, 0..3_usize, any::<bool>(), 0..400_u64), 1..120),
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
                    _ => world.now += pause,
                }
            }
            let alive = world.version;
            world.collect();
            world.collect();
            while world.version < alive + 2 {
                let commit = Commit { compares: world.version, names: world.named.clone() };
                world.apply(&commit);
                world.collect();
                world.collect();
            }
            world.now += GRACE.as_secs();
            for _ in 0..world.next {
                world.delete();
            }
            prop_assert_eq!(&world.stored, &world.named);
            prop_assert_eq!(world.remains.waiting(at(world.now)).0, 0);
        }
    }

    fn look(version: &str, listed: &[u64], named: &[u64]) -> Look {
        let names = |numbers: &[u64]| numbers.iter().copied().map(name).collect();
        let manifest = Seen::Named { version: version.into(), names: names(named) };
        Look { partition: partition(), listed: names(listed), manifest }
    }

    #[test]
    fn what_is_on_its_way_stays_while_its_commit_may_succeed() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[1, 2], &[1]));
        remains.saw(at(100_000), look("a", &[1, 2], &[1]));
        assert!(remains.due(at(200_000), 9).is_empty(), "however old it is");
        assert_eq!(remains.waiting(at(200_000)), (1, Duration::from_secs(200_000)));
        remains.saw(at(200_000), look("b", &[1, 2], &[1, 2]));
        assert_eq!(remains.waiting(at(200_000)).0, 0, "it came");
    }

    #[test]
    fn litter_goes_a_grace_after_the_manifest_has_changed_without_it() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[1, 2], &[1]));
        remains.saw(at(50), look("b", &[1, 2, 3], &[1, 3]));
        assert!(remains.due(at(649), 9).is_empty());
        assert_eq!(remains.due(at(650), 9), [(partition(), name(2))]);
    }

    #[test]
    fn what_this_process_replaced_needs_no_second_look() {
        let mut remains = Remains::new(GRACE);
        remains.replaced(at(0), partition(), [name(1), name(2)]);
        assert!(remains.due(at(599), 9).is_empty());
        assert_eq!(remains.due(at(600), 1), [(partition(), name(1))], "and no more at once than asked for");
    }

    #[test]
    fn what_lies_below_the_first_segment_goes_a_grace_after_it_was_seen() {
        let mut remains = Remains::new(GRACE);
        remains.saw(at(0), look("a", &[1, 2], &[2]));
        remains.left_behind(at(0), partition(), [name(1)]);
        remains.saw(at(300), look("a", &[1, 2], &[2]));
        remains.left_behind(at(300), partition(), [name(1)]);
        assert!(remains.due(at(599), 9).is_empty());
        assert_eq!(remains.due(at(600), 9), [(partition(), name(1))], "seen again is not seen anew");
    }

    #[test]
    fn of_a_topic_that_is_gone_nothing_stays() {
        let mut remains = Remains::new(GRACE);
        let gone = Look { manifest: Seen::TopicGone, ..look("a", &[1, 2], &[]) };
        remains.saw(at(0), look("a", &[1], &[1]));
        remains.saw(at(10), gone);
        assert_eq!(remains.due(at(610), 9).len(), 2);
    }
}
