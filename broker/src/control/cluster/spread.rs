//! How many items of a group stand in each zone, at each broker, at each seat: what the planner spreads by.
//!
//! Invariants:
//! 1. [`Around::of`] and [`Around::least`] answer for the group turned to last, from arrays: a planner asks them for every seat
//!    and every item. Turning to another group takes time by how many seats the two have items at.
//! 2. The arrays and the counts of all groups say the same of it.

use std::collections::BTreeMap;

/// Numbers of a zone, of a broker in it and of a seat of that.
pub(super) type Spot = (usize, usize, usize);

/// See the module.
pub(super) struct Around {
    /// Items of each group at each seat where it has any; the zone and the broker are the seat's.
    all: BTreeMap<(u128, usize), (u32, Spot)>,
    group: Option<u128>,
    zones: Vec<u32>,
    brokers: Vec<u32>,
    seats: Vec<u32>,
}

impl Around {
    /// So many zones, brokers and seats, and no items.
    pub(super) fn new(zones: usize, brokers: usize, seats: usize) -> Around {
        let none = |length| vec![0; length];
        Around { all: BTreeMap::new(), group: None, zones: none(zones), brokers: none(brokers), seats: none(seats) }
    }

    /// One item more (1) or less (-1) of a group stands there.
    pub(super) fn count(&mut self, group: u128, spot: Spot, by: i32) {
        let added = |count: &mut u32| *count = count.checked_add_signed(by).expect("what is taken was counted");
        let (count, _) = self.all.entry((group, spot.2)).or_insert((0, spot));
        added(count);
        if *count == 0 {
            self.all.remove(&(group, spot.2));
        }
        if self.group == Some(group) {
            [&mut self.zones[spot.0], &mut self.brokers[spot.1], &mut self.seats[spot.2]].into_iter().for_each(added);
        }
    }

    /// From now on of this group.
    pub(super) fn turn_to(&mut self, group: u128) {
        if self.group == Some(group) {
            return;
        }
        if let Some(before) = self.group {
            for (_, (zone, broker, seat)) in self.all.range((before, 0)..=(before, usize::MAX)).map(|(_, known)| known)
            {
                (self.zones[*zone], self.brokers[*broker], self.seats[*seat]) = (0, 0, 0);
            }
        }
        for (count, (zone, broker, seat)) in self.all.range((group, 0)..=(group, usize::MAX)).map(|(_, known)| known) {
            self.zones[*zone] += count;
            self.brokers[*broker] += count;
            self.seats[*seat] += count;
        }
        self.group = Some(group);
    }

    /// How its items stand around a seat: in the zone, at the broker, at the seat.
    pub(super) fn of(&self, (zone, broker, seat): Spot) -> (u32, u32, u32) {
        (self.zones[zone], self.brokers[broker], self.seats[seat])
    }

    /// How many stand in the zone with the fewest.
    pub(super) fn least(&self) -> u32 {
        self.zones.iter().copied().min().unwrap_or(0)
    }

    /// How many items of any group stand at a seat.
    pub(super) fn at_seat(&self, group: u128, seat: usize) -> u32 {
        self.all.get(&(group, seat)).map_or(0, |(count, _)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_was_turned_away_from_is_counted_on_and_the_arrays_say_nothing_of_it() {
        let mut around = Around::new(2, 3, 4);
        let (here, there) = ((0, 0, 0), (1, 2, 3));
        around.count(1, here, 1);
        around.turn_to(1);
        around.count(1, here, 1);
        around.count(2, there, 1);
        assert_eq!((around.of(here), around.of(there), around.least()), ((2, 2, 2), (0, 0, 0), 0));
        around.turn_to(2);
        around.count(1, there, 1);
        around.count(1, here, -1);
        assert_eq!((around.of(here), around.of(there)), ((0, 0, 0), (1, 1, 1)));
        around.turn_to(1);
        assert_eq!((around.of(here), around.of(there), around.least()), ((1, 1, 1), (1, 1, 1), 1));
        assert_eq!((around.at_seat(1, 3), around.at_seat(2, 3), around.at_seat(2, 0)), (1, 1, 0));
    }
}
