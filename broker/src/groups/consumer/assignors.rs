//! Who shall own what: the assignors that Kafka's coordinator has, by the same names.
//!
//! 1. Every partition of a topic with a subscriber goes to exactly one of its subscribers.
//! 2. `uniform`: no single partition could go over to another subscriber and leave both better balanced, and members keep
//!    what they had as far as that allows.
//! 3. `range`: neighbouring partitions stay together, and partitions of equal number of topics with the same subscribers
//!    and partition count go to the same member.
//!
//! Racks play no part, as in Kafka's since 4.0.

use super::Partitions;
use millrace_storage::ids::{TopicId, TopicPartition};
use std::collections::{BTreeMap, BTreeSet};

/// An assignor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Assignor {
    /// Evenly over all topics together, and sticky.
    Uniform,
    /// In ranges, topic by topic.
    Range,
}

impl Assignor {
    /// All, the default first.
    pub(super) const ALL: [Assignor; 2] = [Assignor::Uniform, Assignor::Range];

    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// The assignor of this name.
    pub(super) fn by_name(name: &str) -> Option<Assignor> {
        Assignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }

    /// What each subscriber shall own, in their order; `counts` has the partitions of every topic that exists.
    pub(super) fn assign(self, subscribers: &[Subscriber<'_>], counts: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
        match self {
            Assignor::Uniform => uniform(subscribers, counts),
            Assignor::Range => range(subscribers, counts),
        }
    }
}

/// A member as assignors see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscriber<'a> {
    /// Instance first, so that static members keep their places while their ids change.
    pub(super) order: (bool, &'a str),
    /// Topics.
    pub(super) topics: BTreeSet<TopicId>,
    /// What it was assigned before.
    pub(super) before: &'a Partitions,
}

/// Topics by who subscribes to them: places in the list of subscribers, ascending.
type Classes = BTreeMap<Vec<usize>, Vec<TopicId>>;

fn classes(subscribers: &[Subscriber<'_>], counts: &BTreeMap<TopicId, u32>) -> Classes {
    let mut by_topic: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (at, subscriber) in subscribers.iter().enumerate() {
        for topic in subscriber.topics.iter().filter(|topic| counts.contains_key(topic)) {
            by_topic.entry(*topic).or_default().push(at);
        }
    }
    let mut classes = Classes::new();
    for (topic, who) in by_topic {
        classes.entry(who).or_default().push(topic);
    }
    classes
}

fn uniform(subscribers: &[Subscriber<'_>], counts: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    let mut parts: Vec<Partitions> = vec![Partitions::new(); subscribers.len()];
    let mut taken = Partitions::new();
    for (part, subscriber) in parts.iter_mut().zip(subscribers) {
        let exists = |p: &&TopicPartition| counts.get(&p.topic).is_some_and(|count| p.index < *count);
        let kept = subscriber.before.iter().filter(exists).filter(|p| subscriber.topics.contains(&p.topic));
        part.extend(kept.filter(|p| taken.insert(**p)));
    }
    // Topics with few subscribers first: they leave the least choice.
    let classes = classes(subscribers, counts);
    let mut ordered: Vec<(&Vec<usize>, &Vec<TopicId>)> = classes.iter().collect();
    ordered.sort_by_key(|(who, _)| who.len());
    for (who, topics) in &ordered {
        let mut loads: BTreeSet<(usize, usize)> = who.iter().map(|at| (parts[*at].len(), *at)).collect();
        for partition in partitions_of(topics, counts).filter(|p| !taken.contains(p)) {
            let (load, at) = loads.pop_first().expect("a class has subscribers");
            parts[at].insert(partition);
            loads.insert((load + 1, at));
        }
    }
    // Every move makes the sum of the squares of all loads smaller, so this ends.
    while ordered.iter().fold(false, |moved, (who, topics)| even_out(&mut parts, who, topics) || moved) {}
    parts
}

/// Moves partitions of these topics from subscribers with many to those with few; whether any was moved.
fn even_out(parts: &mut [Partitions], who: &[usize], topics: &[TopicId]) -> bool {
    let topics: BTreeSet<TopicId> = topics.iter().copied().collect();
    let mut loads: BTreeSet<(usize, usize)> = who.iter().map(|at| (parts[*at].len(), *at)).collect();
    let mut moved = false;
    loop {
        let (least, to) = *loads.first().expect("a class has subscribers");
        let richer = loads.iter().rev().take_while(|(load, _)| *load >= least + 2);
        let mut movable = richer.filter_map(|(load, from)| {
            let partition = parts[*from].iter().rev().find(|p| topics.contains(&p.topic))?;
            Some((*load, *from, *partition))
        });
        let Some((load, from, partition)) = movable.next() else { return moved };
        parts[from].remove(&partition);
        parts[to].insert(partition);
        loads.remove(&(load, from));
        loads.remove(&(least, to));
        loads.insert((load - 1, from));
        loads.insert((least + 1, to));
        moved = true;
    }
}

fn range(subscribers: &[Subscriber<'_>], counts: &BTreeMap<TopicId, u32>) -> Vec<Partitions> {
    let mut parts: Vec<Partitions> = vec![Partitions::new(); subscribers.len()];
    for (mut who, topics) in classes(subscribers, counts) {
        who.sort_by_key(|at| subscribers[*at].order);
        let members = u32::try_from(who.len()).expect("bounded by the members of a group");
        for topic in topics {
            let count = counts[&topic];
            let mut next = 0;
            for (place, at) in (0..).zip(&who) {
                let end = next + count / members + u32::from(place < count % members);
                parts[*at].extend((next..end).map(|index| TopicPartition { topic, index }));
                next = end;
            }
        }
    }
    parts
}

fn partitions_of(topics: &[TopicId], counts: &BTreeMap<TopicId, u32>) -> impl Iterator<Item = TopicPartition> {
    topics.iter().flat_map(|topic| (0..counts[topic]).map(|index| TopicPartition { topic: *topic, index }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic(number: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(number))
    }

    fn all(counts: &BTreeMap<TopicId, u32>) -> Partitions {
        partitions_of(&counts.keys().copied().collect::<Vec<_>>(), counts).collect()
    }

    /// Members by name with topics and what they had.
    type World = Vec<(String, BTreeSet<TopicId>, Partitions)>;

    fn subscribers(world: &World) -> Vec<Subscriber<'_>> {
        world
            .iter()
            .map(|(id, topics, before)| Subscriber { order: (true, id.as_str()), topics: topics.clone(), before })
            .collect()
    }

    fn check_complete_and_disjoint(world: &World, counts: &BTreeMap<TopicId, u32>, parts: &[Partitions]) {
        let mut seen = Partitions::new();
        for ((_, topics, _), part) in world.iter().zip(parts) {
            for partition in part {
                assert!(topics.contains(&partition.topic), "only subscribed topics");
                assert!(seen.insert(*partition), "one owner each");
            }
        }
        let subscribed = |p: &TopicPartition| world.iter().any(|(_, topics, _)| topics.contains(&p.topic));
        assert_eq!(seen, all(counts).into_iter().filter(subscribed).collect());
    }

    prop_compose! {
        fn worlds()(
            counts in prop::collection::btree_map(0u128..6, 0u32..9, 0..6),
            members in prop::collection::vec(prop::collection::btree_set(0u128..6, 0..6), 0..8),
            owners in prop::collection::vec(0usize..10, 54),
        ) -> (World, BTreeMap<TopicId, u32>) {
            let counts: BTreeMap<TopicId, u32> = counts.into_iter().map(|(t, count)| (topic(t), count)).collect();
            let mut world: World = members
                .into_iter()
                .enumerate()
                .map(|(at, topics)| (format!("m{at}"), topics.into_iter().map(topic).collect(), Partitions::new()))
                .collect();
            // Anything may have been assigned before, also what no longer is there.
            for (at, owner) in owners.iter().enumerate() {
                if let Some((_, _, before)) = world.get_mut(*owner) {
                    before.insert(TopicPartition { topic: topic(at as u128 / 9), index: at as u32 % 9 });
                }
            }
            (world, counts)
        }
    }

    proptest! {
        #[test]
        fn uniform_gives_every_partition_one_owner_and_no_single_move_would_balance_better((world, counts) in worlds()) {
            let parts = Assignor::Uniform.assign(&subscribers(&world), &counts);
            check_complete_and_disjoint(&world, &counts, &parts);
            for (from, part) in parts.iter().enumerate() {
                for (to, (_, topics, _)) in world.iter().enumerate() {
                    let movable = part.iter().any(|p| topics.contains(&p.topic));
                    prop_assert!(from == to || !movable || part.len() <= parts[to].len() + 1);
                }
            }
        }

        #[test]
        fn uniform_changes_nothing_while_nothing_changes((mut world, counts) in worlds()) {
            let parts = Assignor::Uniform.assign(&subscribers(&world), &counts);
            for ((_, _, before), part) in world.iter_mut().zip(&parts) {
                before.clone_from(part);
            }
            prop_assert_eq!(Assignor::Uniform.assign(&subscribers(&world), &counts), parts);
        }

        #[test]
        fn range_gives_every_partition_one_owner_and_each_a_range((world, counts) in worlds()) {
            let parts = Assignor::Range.assign(&subscribers(&world), &counts);
            check_complete_and_disjoint(&world, &counts, &parts);
            for part in &parts {
                for topic in counts.keys() {
                    let of: Vec<u32> = part.iter().filter(|p| p.topic == *topic).map(|p| p.index).collect();
                    prop_assert!(of.windows(2).all(|pair| pair[0] + 1 == pair[1]));
                }
            }
        }
    }

    #[test]
    fn a_member_that_comes_takes_no_more_than_its_share() {
        let counts = BTreeMap::from([(topic(1), 6), (topic(2), 6)]);
        let topics: BTreeSet<TopicId> = counts.keys().copied().collect();
        let mut world: World =
            vec![("a".into(), topics.clone(), all(&counts)), ("b".into(), topics, Partitions::new())];
        let parts = Assignor::Uniform.assign(&subscribers(&world), &counts);
        assert_eq!((parts[0].len(), parts[1].len()), (6, 6));
        (world[0].2, world[1].2) = (parts[0].clone(), parts[1].clone());
        let (_, topics, _) = world[0].clone();
        world.push(("c".into(), topics, Partitions::new()));
        let next = Assignor::Uniform.assign(&subscribers(&world), &counts);
        assert!(next[0].is_subset(&parts[0]) && next[1].is_subset(&parts[1]));
        assert_eq!(next.iter().map(BTreeSet::len).collect::<Vec<_>>(), [4, 4, 4]);
    }

    #[test]
    fn equal_partitions_of_topics_with_equal_counts_meet_in_one_member() {
        let counts = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
        let topics: BTreeSet<TopicId> = counts.keys().copied().collect();
        let world: World = ["a", "b"].map(|id| (id.into(), topics.clone(), Partitions::new())).into();
        let parts = Assignor::Range.assign(&subscribers(&world), &counts);
        let of =
            |part: &Partitions, of: TopicId| part.iter().filter(|p| p.topic == of).map(|p| p.index).collect::<Vec<_>>();
        for part in &parts {
            assert_eq!(of(part, topic(1)), of(part, topic(2)));
        }
        assert_eq!(of(&parts[0], topic(1)), [0, 1, 2]);
    }
}
