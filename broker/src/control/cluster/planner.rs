//! Where partitions, or coordinator slots, shall be: a pure function of who lives, who owns what, and what it costs.
//!
//! What is placed is an *item*; it belongs to a *group* (a topic), whose items are spread. A *seat* is a shard of a broker.
//!
//! Invariants:
//! 1. The same picture gives the same plan.
//! 2. An item without a living owner gets a seat at once; others move only for a reason: their broker is to be left, a seat
//!    has at least two more than another, or a swap evens out measured load. At most [`Limits::moves`] move in one plan.
//! 3. Each move or swap brings the picture strictly nearer to even, so that planning again after the plan was carried out
//!    ends: with one more of every seat at most than of any other, and no swap left that pays.
//! 4. An item whose wish was not yet carried out is taken to be where it is wished, if that seat lives.
//!
//! It does not know how a move is made, nor whether one is under way.

use std::collections::{BTreeMap, BTreeSet};

/// A shard of a broker.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seat {
    /// Name of the broker.
    pub broker: String,
    /// Index of the shard.
    pub shard: u16,
}

/// A broker that lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Shards that it has.
    pub shards: u16,
    /// Where it stands.
    pub zone: Option<String>,
    /// Whether it is to be left: it gets nothing, and what it has goes elsewhere.
    pub leaving: bool,
}

/// Something to be placed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Item {
    /// What it belongs to.
    pub group: u128,
    /// Who has it now, living or not.
    pub owner: Option<Seat>,
    /// Who was wished to have it last.
    pub wish: Option<Seat>,
    /// What it costs: bytes a second, or 0 if nobody knows.
    pub load: u64,
}

/// Bounds of one plan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Items that may leave a living owner.
    pub moves: usize,
    /// A swap must even out so many per cent of a seat's mean load, and
    pub worth_percent: u64,
    /// so many bytes a second.
    pub worth_bytes: u64,
    /// Swaps at most.
    pub swaps: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { moves: 64, worth_percent: 10, worth_bytes: 1, swaps: 32 }
    }
}

/// Seats for items that are not to stay where they are, or are wished to be; empty: all is well.
pub fn plan<I: Copy + Ord>(
    members: &BTreeMap<String, Member>,
    items: &BTreeMap<I, Item>,
    limits: Limits,
) -> BTreeMap<I, Seat> {
    let mut board = Board::new(members, items, limits.moves);
    if board.seats.is_empty() {
        return BTreeMap::new();
    }
    board.seat_homeless();
    board.empty_leaving();
    board.even_counts();
    board.even_loads(limits);
    board.planned
}

/// What a seat holds.
#[derive(Default)]
struct Held<I> {
    items: BTreeSet<I>,
    load: u64,
}

struct Board<'a, I> {
    members: &'a BTreeMap<String, Member>,
    items: &'a BTreeMap<I, Item>,
    /// Seats that may be given more.
    seats: BTreeMap<Seat, Held<I>>,
    /// Where each item is taken to be; a seat that is to be left is none of `seats`.
    at: BTreeMap<I, Seat>,
    /// Items of a group by zone, by broker, by seat: for spreading.
    by_zone: BTreeMap<(u128, Option<&'a str>), u32>,
    by_broker: BTreeMap<(u128, &'a str), u32>,
    by_seat: BTreeMap<(u128, Seat), u32>,
    homeless: Vec<I>,
    moves_left: usize,
    moved: BTreeSet<I>,
    planned: BTreeMap<I, Seat>,
}

impl<'a, I: Copy + Ord> Board<'a, I> {
    fn new(members: &'a BTreeMap<String, Member>, items: &'a BTreeMap<I, Item>, moves: usize) -> Board<'a, I> {
        // Where all are to be left, somebody must have it all the same.
        let nobody_stays = members.values().all(|member| member.leaving);
        let staying = members.iter().filter(|(_, member)| nobody_stays || !member.leaving);
        let seats = staying.flat_map(|(name, member)| {
            (0..member.shards)
                .map(|shard| (Seat { broker: name.clone(), shard }, Held { items: BTreeSet::new(), load: 0 }))
        });
        let mut board = Board {
            members,
            items,
            seats: seats.collect(),
            at: BTreeMap::new(),
            by_zone: BTreeMap::new(),
            by_broker: BTreeMap::new(),
            by_seat: BTreeMap::new(),
            homeless: Vec::new(),
            moves_left: moves,
            moved: BTreeSet::new(),
            planned: BTreeMap::new(),
        };
        for (&item, what) in items {
            let lives = |seat: &&Seat| members.get(&seat.broker).is_some_and(|member| seat.shard < member.shards);
            match what.wish.as_ref().filter(lives).or(what.owner.as_ref().filter(lives)) {
                Some(seat) => board.put(item, seat.clone()),
                None => board.homeless.push(item),
            }
        }
        board
    }

    fn zone(&self, broker: &str) -> Option<&'a str> {
        self.members[broker].zone.as_deref()
    }

    fn put(&mut self, item: I, seat: Seat) {
        let Item { group, load, .. } = self.items[&item];
        let (name, member) = self.members.get_key_value(&seat.broker).expect("only living brokers have seats");
        *self.by_zone.entry((group, member.zone.as_deref())).or_default() += 1;
        *self.by_broker.entry((group, name.as_str())).or_default() += 1;
        *self.by_seat.entry((group, seat.clone())).or_default() += 1;
        if let Some(held) = self.seats.get_mut(&seat) {
            held.items.insert(item);
            held.load = held.load.saturating_add(load);
        }
        self.at.insert(item, seat);
    }

    fn take(&mut self, item: I) {
        let Item { group, load, .. } = self.items[&item];
        let seat = self.at.remove(&item).expect("only what has a seat is taken from it");
        let (name, member) = self.members.get_key_value(&seat.broker).expect("only living brokers have seats");
        let fewer = |count: Option<&mut u32>| *count.expect("it was counted") -= 1;
        fewer(self.by_zone.get_mut(&(group, member.zone.as_deref())));
        fewer(self.by_broker.get_mut(&(group, name.as_str())));
        fewer(self.by_seat.get_mut(&(group, seat.clone())));
        if let Some(held) = self.seats.get_mut(&seat) {
            held.items.remove(&item);
            held.load = held.load.saturating_sub(load);
        }
    }

    /// A plan that ends where the item is already wished, or is without a wish, is none.
    fn give(&mut self, item: I, seat: Seat) {
        let what = &self.items[&item];
        let stands = what.wish.as_ref().or(what.owner.as_ref()) == Some(&seat);
        if stands {
            self.planned.remove(&item);
        } else {
            self.planned.insert(item, seat.clone());
        }
        self.put(item, seat);
    }

    /// How a group's items stand around a seat, fewest first: in its zone, at its broker, at the seat.
    fn neighbours(&self, group: u128, seat: &Seat) -> (u32, u32, u32) {
        let zone = self.by_zone.get(&(group, self.zone(&seat.broker))).copied().unwrap_or(0);
        let broker = self.by_broker.get(&(group, seat.broker.as_str())).copied().unwrap_or(0);
        (zone, broker, self.by_seat.get(&(group, seat.clone())).copied().unwrap_or(0))
    }

    /// The seat with the fewest items, of those the one farthest from the group's others, of those the least loaded.
    fn best_seat(&self, group: u128) -> Seat {
        let fewest = self.seats.values().map(|held| held.items.len()).min().expect("there are seats");
        let emptiest = self.seats.iter().filter(|(_, held)| held.items.len() == fewest);
        let best = emptiest.min_by_key(|(seat, held)| (self.neighbours(group, seat), held.load, *seat));
        best.map(|(seat, _)| seat.clone()).expect("one of them has the fewest")
    }

    /// Invariant 2: whoever lost its owner is not counted as moved.
    fn seat_homeless(&mut self) {
        for item in std::mem::take(&mut self.homeless) {
            let seat = self.best_seat(self.items[&item].group);
            self.give(item, seat);
        }
    }

    /// One of the moves that are left.
    fn move_to_best_seat(&mut self, item: I) {
        self.moves_left -= 1;
        self.take(item);
        let seat = self.best_seat(self.items[&item].group);
        self.give(item, seat);
        self.moved.insert(item);
    }

    fn empty_leaving(&mut self) {
        let leaving: Vec<I> =
            self.at.iter().filter(|(_, seat)| !self.seats.contains_key(seat)).map(|(&item, _)| item).collect();
        for item in leaving {
            if self.moves_left == 0 {
                return;
            }
            self.move_to_best_seat(item);
        }
    }

    /// Moves one item at a time from a fullest seat to an emptiest, while they differ by two or more.
    fn even_counts(&mut self) {
        loop {
            let count = |seat: &Seat| self.seats[seat].items.len();
            let fullest =
                self.seats.keys().max_by_key(|seat| (count(seat), self.seats[*seat].load, std::cmp::Reverse(*seat)));
            let fullest = fullest.expect("there are seats").clone();
            let fewest = self.seats.values().map(|held| held.items.len()).min().expect("there are seats");
            if count(&fullest) < fewest + 2 || self.moves_left == 0 {
                return;
            }
            // What was placed in this very plan moves for nothing.
            let free = |item: &&I| !self.planned.contains_key(item) && !self.moved.contains(item);
            let crowd = |item: &I| self.by_seat.get(&(self.items[item].group, fullest.clone())).copied().unwrap_or(0);
            let items = &self.seats[&fullest].items;
            // Of the groups that crowd here most; of those what costs most, since the seat has more than others.
            let Some(&item) = items.iter().filter(free).max_by_key(|item| (crowd(item), self.items[item].load)) else {
                return;
            };
            self.move_to_best_seat(item);
        }
    }

    /// Swaps an item of the most loaded seat with one of the least loaded, while that evens out enough.
    fn even_loads(&mut self, limits: Limits) {
        let total: u64 = self.seats.values().map(|held| held.load).fold(0, u64::saturating_add);
        let worth = (total / self.seats.len() as u64).saturating_mul(limits.worth_percent) / 100;
        let worth = worth.max(limits.worth_bytes).max(1);
        for _ in 0..limits.swaps {
            if total == 0 || self.moves_left < 2 {
                return;
            }
            let key = |seat: &&Seat| (self.seats[*seat].load, (*seat).clone());
            let hot = self.seats.keys().max_by_key(key).expect("there are seats").clone();
            let cold = self.seats.keys().min_by_key(key).expect("there are seats").clone();
            let gap = self.seats[&hot].load - self.seats[&cold].load;
            let Some((from_hot, from_cold)) = self.best_swap(&hot, &cold, gap, worth) else { return };
            self.moves_left -= 2;
            self.take(from_hot);
            self.take(from_cold);
            self.give(from_hot, cold);
            self.give(from_cold, hot);
            self.moved.extend([from_hot, from_cold]);
        }
    }

    /// The pair whose difference is nearest to half of the gap, if swapping it brings both seats nearer to each other by
    /// at least `worth`.
    fn best_swap(&self, hot: &Seat, cold: &Seat, gap: u64, worth: u64) -> Option<(I, I)> {
        let free = |item: &&I| !self.planned.contains_key(item) && !self.moved.contains(item);
        let load = |item: &I| self.items[item].load;
        let by_load = |seat: &Seat| {
            let mut items: Vec<(u64, I)> = self.seats[seat].items.iter().filter(free).map(|i| (load(i), *i)).collect();
            items.sort_unstable();
            items
        };
        let (hots, colds) = (by_load(hot), by_load(cold));
        let mut best: Option<(u64, I, I)> = None;
        for &(heavy, from_hot) in &hots {
            // The two lighter ones whose difference to it lies around half of the gap.
            let wanted = heavy.saturating_sub(gap / 2);
            let at = colds.partition_point(|(light, _)| *light < wanted);
            for &(light, from_cold) in colds[at.saturating_sub(1)..].iter().take(2) {
                let moved = heavy.saturating_sub(light);
                let gain = moved.min(gap.saturating_sub(moved));
                if gain >= worth && best.is_none_or(|(most, ..)| gain > most) {
                    best = Some((gain, from_hot, from_cold));
                }
            }
        }
        best.map(|(_, from_hot, from_cold)| (from_hot, from_cold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seat(broker: &str, shard: u16) -> Seat {
        Seat { broker: broker.to_owned(), shard }
    }

    fn member(shards: u16, zone: &str) -> Member {
        Member { shards, zone: Some(zone.to_owned()), leaving: false }
    }

    fn three() -> BTreeMap<String, Member> {
        ["a", "b", "c"].map(|name| (name.to_owned(), member(2, name))).into()
    }

    /// `plan` as carried out: the wish stands, and has become true.
    fn carried_out(items: &mut BTreeMap<u32, Item>, planned: &BTreeMap<u32, Seat>) {
        for (item, seat) in planned {
            let item = items.get_mut(item).expect("only items are planned");
            (item.wish, item.owner) = (Some(seat.clone()), Some(seat.clone()));
        }
    }

    fn counts(members: &BTreeMap<String, Member>, items: &BTreeMap<u32, Item>) -> Vec<usize> {
        let seats = members.iter().filter(|(_, member)| !member.leaving);
        let seats = seats.flat_map(|(name, member)| (0..member.shards).map(|shard| seat(name, shard)));
        seats.map(|seat| items.values().filter(|item| item.owner.as_ref() == Some(&seat)).count()).collect()
    }

    #[test]
    fn new_items_are_spread_over_seats_and_those_of_a_topic_over_zones() {
        let mut items: BTreeMap<u32, Item> =
            (0..12).map(|i| (i, Item { group: u128::from(i / 3), ..Item::default() })).collect();
        let planned = plan(&three(), &items, Limits::default());
        carried_out(&mut items, &planned);
        assert_eq!(counts(&three(), &items), [2; 6]);
        for group in 0..4 {
            let brokers = items.values().filter(|item| item.group == group);
            let brokers: BTreeSet<&str> = brokers.map(|item| item.owner.as_ref().unwrap().broker.as_str()).collect();
            assert_eq!(brokers.len(), 3, "topic {group} stands at {brokers:?}");
        }
    }

    #[test]
    fn what_a_dead_broker_had_goes_to_the_survivors_at_once_and_nothing_else_moves() {
        let mut items: BTreeMap<u32, Item> = (0..300)
            .map(|i| (i, Item { owner: Some(seat(["a", "b", "c"][i as usize % 3], 0)), ..Item::default() }))
            .collect();
        let mut members = three();
        members.values_mut().for_each(|member| member.shards = 1);
        members.remove("b");
        let planned = plan(&members, &items, Limits { moves: 0, ..Limits::default() });
        assert_eq!(planned.len(), 100);
        assert!(planned.keys().all(|item| item % 3 == 1));
        carried_out(&mut items, &planned);
        assert_eq!(counts(&members, &items), [150, 150]);
    }

    #[test]
    fn a_broker_that_leaves_hands_over_a_bounded_number_a_round_until_it_has_nothing() {
        let mut items: BTreeMap<u32, Item> = (0..60).map(|i| (i, Item::default())).collect();
        let mut members = three();
        let planned = plan(&members, &items, Limits::default());
        carried_out(&mut items, &planned);
        members.get_mut("a").unwrap().leaving = true;
        let mut rounds = 0;
        loop {
            let planned = plan(&members, &items, Limits { moves: 7, ..Limits::default() });
            if planned.is_empty() {
                break;
            }
            assert!(planned.len() <= 7);
            rounds += 1;
            carried_out(&mut items, &planned);
        }
        assert_eq!((rounds, counts(&members, &items)), (3, vec![15; 4]));
    }

    #[test]
    fn a_wish_that_was_not_carried_out_yet_is_not_planned_again() {
        let items =
            BTreeMap::from([(1, Item { wish: Some(seat("c", 1)), owner: Some(seat("gone", 0)), ..Item::default() })]);
        assert_eq!(plan(&three(), &items, Limits::default()), BTreeMap::new());
        let items =
            BTreeMap::from([(1, Item { wish: Some(seat("c", 2)), owner: Some(seat("gone", 0)), ..Item::default() })]);
        assert_eq!(plan(&three(), &items, Limits::default()).len(), 1, "it has no such shard");
    }

    #[test]
    fn measured_load_is_evened_out_by_swaps_that_keep_the_counts() {
        let two: BTreeMap<String, Member> = ["a", "b"].map(|name| (name.to_owned(), member(1, "z"))).into();
        let loads = [900, 800, 700, 600, 10, 20, 30, 40];
        let mut items: BTreeMap<u32, Item> = (0..8)
            .map(|i| {
                (
                    i,
                    Item {
                        owner: Some(seat(["a", "b"][i as usize / 4], 0)),
                        load: loads[i as usize],
                        ..Item::default()
                    },
                )
            })
            .collect();
        while let planned @ 1.. = {
            let planned = plan(&two, &items, Limits { moves: 2, ..Limits::default() });
            carried_out(&mut items, &planned);
            planned.len()
        } {
            assert_eq!(planned, 2, "a swap a round");
        }
        assert_eq!(counts(&two, &items), [4, 4]);
        let of =
            |broker: &str| items.values().filter(|i| i.owner == Some(seat(broker, 0))).map(|i| i.load).sum::<u64>();
        assert!(of("a").abs_diff(of("b")) <= 310, "{} and {}", of("a"), of("b"));
    }

    #[test]
    fn nobody_alive_means_no_plan_and_everybody_leaving_means_that_nobody_is() {
        let items = BTreeMap::from([(1, Item::default())]);
        assert!(plan(&BTreeMap::new(), &items, Limits::default()).is_empty());
        let mut members = three();
        members.values_mut().for_each(|member| member.leaving = true);
        assert_eq!(plan(&members, &items, Limits::default()).len(), 1);
    }

    prop_compose! {
        fn any_picture()(
            sizes in proptest::collection::vec((1u16..4, 0u8..3, proptest::bool::weighted(0.2)), 1..6),
            items in proptest::collection::vec((0u128..5, proptest::option::of((0usize..7, 0u16..4)),
                proptest::option::weighted(0.2, (0usize..7, 0u16..4)), 0u64..1_000), 0..120),
            loaded in proptest::bool::ANY,
        ) -> (BTreeMap<String, Member>, BTreeMap<u32, Item>) {
            let name = |index: usize| format!("b{index}");
            let members = sizes.into_iter().enumerate().map(|(index, (shards, zone, leaving))| {
                (name(index), Member { shards, zone: (zone > 0).then(|| zone.to_string()), leaving })
            });
            let place = |place: Option<(usize, u16)>| place.map(|(broker, shard)| Seat { broker: name(broker), shard });
            let items = (0..).zip(items).map(|(index, (group, owner, wish, load))| {
                (index, Item { group, owner: place(owner), wish: place(wish), load: if loaded { load } else { 0 } })
            });
            (members.collect(), items.collect())
        }
    }

    proptest! {
        #[test]
        fn rounds_end_with_everything_seated_evenly_and_a_further_one_changes_nothing(
            (members, mut items) in any_picture(), moves in 2usize..20,
        ) {
            let limits = Limits { moves, ..Limits::default() };
            let staying = members.values().any(|member| !member.leaving);
            let mut rounds = 0;
            loop {
                let planned = plan(&members, &items, limits);
                prop_assert_eq!(&planned, &plan(&members, &items, limits), "the same picture gives the same plan");
                if planned.is_empty() {
                    break;
                }
                let lives = |seat: &Option<Seat>| {
                    seat.as_ref().is_some_and(|s| members.get(&s.broker).is_some_and(|m| s.shard < m.shards))
                };
                let moved = planned.keys().filter(|item| lives(&items[item].wish) || lives(&items[item].owner)).count();
                prop_assert!(moved <= moves, "{} moves", moved);
                carried_out(&mut items, &planned);
                rounds += 1;
                prop_assert!(rounds <= 400, "it goes on and on");
            }
            // Where a wish stands that nobody carried out, it counts.
            items.values_mut().for_each(|item| item.owner = item.wish.take().filter(|seat| {
                members.get(&seat.broker).is_some_and(|member| seat.shard < member.shards)
            }).or(item.owner.take()));
            if staying {
                let counts = counts(&members, &items);
                prop_assert_eq!(counts.iter().sum::<usize>(), items.len(), "each has a seat that stays");
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{:?}", counts);
            }
        }

        #[test]
        fn no_more_moves_are_made_than_evenness_takes(sizes in proptest::collection::vec(0usize..40, 2..6)) {
            let members: BTreeMap<String, Member> = (0..sizes.len()).map(|i| (format!("b{i}"), member(1, "z"))).collect();
            let owners = sizes.iter().enumerate().flat_map(|(i, count)| (0..*count).map(move |_| seat(&format!("b{i}"), 0)));
            let items: BTreeMap<u32, Item> = (0..).zip(owners.map(|owner| Item { owner: Some(owner), ..Item::default() })).collect();
            let planned = plan(&members, &items, Limits { moves: usize::MAX, ..Limits::default() });
            // Those that have most may keep one more than the others.
            let (floor, over) = (items.len() / sizes.len(), items.len() % sizes.len());
            let mut sorted = sizes.clone();
            sorted.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
            let kept = |(place, count): (usize, &usize)| count.saturating_sub(floor + usize::from(place < over));
            prop_assert_eq!(planned.len(), sorted.iter().enumerate().map(kept).sum::<usize>());
        }
    }
}
