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

use super::spread::Around;
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
    if board.by_count.is_empty() {
        return BTreeMap::new();
    }
    board.seat_homeless();
    board.empty_leaving();
    board.even_counts();
    board.even_loads(limits);
    board.planned.iter().map(|(&item, &seat)| (item, board.seats[seat].name())).collect()
}

/// A seat and what it holds.
struct Held<'a, I> {
    broker: &'a str,
    shard: u16,
    /// Number of its broker, in the order of names, and of its zone.
    broker_at: usize,
    zone_at: usize,
    /// Whether it may be given more.
    stays: bool,
    items: BTreeSet<I>,
    load: u64,
}

impl<I> Held<'_, I> {
    fn name(&self) -> Seat {
        Seat { broker: self.broker.to_owned(), shard: self.shard }
    }
}

/// Seats have numbers here, in the order of names: what is done for each item looks at many of them.
struct Board<'a, I> {
    items: &'a BTreeMap<I, Item>,
    /// All seats of brokers that live.
    seats: Vec<Held<'a, I>>,
    /// Number of a broker's first seat.
    first_seats: BTreeMap<&'a str, usize>,
    /// Seats that may be given more, by how many items they hold.
    by_count: BTreeMap<usize, BTreeSet<usize>>,
    /// How many of those seats there are.
    staying: usize,
    /// Where each item is taken to be.
    at: BTreeMap<I, usize>,
    around: Around,
    homeless: Vec<I>,
    moves_left: usize,
    moved: BTreeSet<I>,
    planned: BTreeMap<I, usize>,
}

impl<'a, I: Copy + Ord> Board<'a, I> {
    fn new(members: &'a BTreeMap<String, Member>, items: &'a BTreeMap<I, Item>, moves: usize) -> Board<'a, I> {
        // Where all are to be left, somebody must have it all the same.
        let nobody_stays = members.values().all(|member| member.leaving);
        let zones: BTreeSet<Option<&str>> = members.values().map(|member| member.zone.as_deref()).collect();
        let zones: BTreeMap<Option<&str>, usize> = zones.into_iter().zip(0..).collect();
        let (mut seats, mut first_seats) = (Vec::new(), BTreeMap::new());
        for (broker_at, (name, member)) in members.iter().enumerate() {
            first_seats.insert(name.as_str(), seats.len());
            let (zone_at, stays) = (zones[&member.zone.as_deref()], nobody_stays || !member.leaving);
            let (broker, items) = (name.as_str(), BTreeSet::new());
            let held = |shard| Held { broker, shard, broker_at, zone_at, stays, items: items.clone(), load: 0 };
            seats.extend((0..member.shards).map(held));
        }
        let staying = seats.iter().filter(|held: &&Held<'a, I>| held.stays).count();
        let around = Around::new(zones.len(), members.len(), seats.len());
        let mut board = Board {
            items,
            seats,
            first_seats,
            staying,
            by_count: BTreeMap::new(),
            at: BTreeMap::new(),
            around,
            homeless: Vec::new(),
            moves_left: moves,
            moved: BTreeSet::new(),
            planned: BTreeMap::new(),
        };
        for (&item, what) in items {
            let number = |seat: &Option<Seat>| seat.as_ref().and_then(|seat| board.number(members, seat));
            match number(&what.wish).or_else(|| number(&what.owner)) {
                Some(seat) => {
                    board.hold(item, seat);
                    board.at.insert(item, seat);
                }
                None => board.homeless.push(item),
            }
        }
        for (seat, held) in board.seats.iter().enumerate().filter(|(_, held)| held.stays) {
            board.by_count.entry(held.items.len()).or_default().insert(seat);
        }
        board
    }

    /// The number of a seat, if that lives.
    fn number(&self, members: &BTreeMap<String, Member>, seat: &Seat) -> Option<usize> {
        let first = *self.first_seats.get(seat.broker.as_str())?;
        (seat.shard < members[&seat.broker].shards).then(|| first + usize::from(seat.shard))
    }

    fn put(&mut self, item: I, seat: usize) {
        let before = self.seats[seat].items.len();
        self.hold(item, seat);
        self.recount(seat, before);
        self.at.insert(item, seat);
    }

    fn hold(&mut self, item: I, seat: usize) {
        let what = &self.items[&item];
        let held = &mut self.seats[seat];
        self.around.count(what.group, (held.zone_at, held.broker_at, seat), 1);
        held.items.insert(item);
        held.load = held.load.saturating_add(what.load);
    }

    fn take(&mut self, item: I) {
        let seat = self.at.remove(&item).expect("only what has a seat is taken from it");
        let what = &self.items[&item];
        let held = &mut self.seats[seat];
        let before = held.items.len();
        self.around.count(what.group, (held.zone_at, held.broker_at, seat), -1);
        held.items.remove(&item);
        held.load = held.load.saturating_sub(what.load);
        self.recount(seat, before);
    }

    /// What a seat holds has changed; what is to be left is not compared with others.
    fn recount(&mut self, seat: usize, before: usize) {
        let Held { stays: true, ref items, .. } = self.seats[seat] else { return };
        let of_before = self.by_count.get_mut(&before).expect("it was counted");
        of_before.remove(&seat);
        if of_before.is_empty() {
            self.by_count.remove(&before);
        }
        self.by_count.entry(items.len()).or_default().insert(seat);
    }

    /// A plan that ends where the item is already wished, or is without a wish, is none.
    fn give(&mut self, item: I, seat: usize) {
        let what = &self.items[&item];
        let held = &self.seats[seat];
        let stands = what.wish.as_ref().or(what.owner.as_ref());
        if stands.is_some_and(|stands| stands.broker == held.broker && stands.shard == held.shard) {
            self.planned.remove(&item);
        } else {
            self.planned.insert(item, seat);
        }
        self.put(item, seat);
    }

    /// The seat with the fewest items, of those the one farthest from the group's others, of those the least loaded.
    fn best_seat(&mut self, group: u128) -> usize {
        self.around.turn_to(group);
        let least = self.around.least();
        let (_, emptiest) = self.by_count.first_key_value().expect("there are seats");
        let mut best: Option<((u32, u32, u32, u64), usize)> = None;
        for &seat in emptiest {
            let Held { zone_at, broker_at, load, .. } = self.seats[seat];
            let (zone, broker, here) = self.around.of((zone_at, broker_at, seat));
            let key = (zone, broker, here, load);
            if best.is_none_or(|(known, _)| key < known) {
                best = Some((key, seat));
                // None is better, and of equals the first is taken.
                if key == (least, 0, 0, 0) {
                    break;
                }
            }
        }
        best.map(|(_, seat)| seat).expect("one of them has the fewest")
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
        if self.staying == self.seats.len() {
            return;
        }
        let is_left = |seat: usize| !self.seats[seat].stays;
        let leaving = self.at.iter().filter(|(_, seat)| is_left(**seat)).map(|(&item, _)| item);
        let leaving: Vec<I> = leaving.take(self.moves_left).collect();
        leaving.into_iter().for_each(|item| self.move_to_best_seat(item));
    }

    /// Moves one item at a time from a fullest seat to an emptiest, while they differ by two or more.
    fn even_counts(&mut self) {
        loop {
            let (&fewest, _) = self.by_count.first_key_value().expect("there are seats");
            let (&most, fullest) = self.by_count.last_key_value().expect("there are seats");
            if most < fewest + 2 || self.moves_left == 0 {
                return;
            }
            let hottest = fullest.iter().max_by_key(|seat| (self.seats[**seat].load, std::cmp::Reverse(**seat)));
            let fullest = *hottest.expect("one of them has the most");
            // What was placed in this very plan moves for nothing.
            let free = |item: &&I| !self.planned.contains_key(item) && !self.moved.contains(item);
            let crowd = |item: &I| self.around.at_seat(self.items[item].group, fullest);
            let items = &self.seats[fullest].items;
            // Of the groups that crowd here most; of those what costs most, since the seat has more than others.
            let Some(&item) = items.iter().filter(free).max_by_key(|item| (crowd(item), self.items[item].load)) else {
                return;
            };
            self.move_to_best_seat(item);
        }
    }

    /// Swaps an item of the most loaded seat with one of the least loaded, while that evens out enough.
    fn even_loads(&mut self, limits: Limits) {
        let staying: Vec<usize> = (0..self.seats.len()).filter(|seat| self.seats[*seat].stays).collect();
        let total: u64 = staying.iter().map(|seat| self.seats[*seat].load).fold(0, u64::saturating_add);
        let worth = (total / staying.len() as u64).saturating_mul(limits.worth_percent) / 100;
        let worth = worth.max(limits.worth_bytes).max(1);
        for _ in 0..limits.swaps {
            if total == 0 || self.moves_left < 2 {
                return;
            }
            let key = |seat: &&usize| (self.seats[**seat].load, **seat);
            let hot = *staying.iter().max_by_key(key).expect("there are seats");
            let cold = *staying.iter().min_by_key(key).expect("there are seats");
            let gap = self.seats[hot].load - self.seats[cold].load;
            let Some((from_hot, from_cold)) = self.best_swap(hot, cold, gap, worth) else { return };
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
    fn best_swap(&self, hot: usize, cold: usize, gap: u64, worth: u64) -> Option<(I, I)> {
        let free = |item: &&I| !self.planned.contains_key(item) && !self.moved.contains(item);
        let load = |item: &I| self.items[item].load;
        let by_load = |seat: usize| {
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
