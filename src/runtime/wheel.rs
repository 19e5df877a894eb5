//! A set of deadlines to which adding and from which taking out costs the same however many there are: a hierarchical timing wheel.
//!
//! Time is cut into ticks. A level has 64 slots; those of level 0 are one tick wide, those of the next level are as wide as all of the last.
//! A deadline lies at the level of the highest group of six bits in which its tick differs from the wheel's, in the slot that this group
//! names. When the wheel comes to a slot, the slot's entries move down, those of its own tick into a heap, `near`. What is due is told by
//! the deadline itself, not by its tick, so nothing is early, and many deadlines within a tick cost no more than their heap.
//!
//! Places cannot move, so a wheel keeps the room of its peak until it is empty: 40 or 48 bytes an entry.
//!
//! - Y1: an entry's tick and the wheel's agree in all groups above the entry's level, and the entry's slot comes after the wheel's own there.
//!   What is in the wheel's tick, or was late when it was added, is in `near`.
//! - Y2: the bit of a slot is set if and only if its list is not empty.
//! - Y3: numbers are never given twice, so a key finds its own entry or none, also after the place is used again. So does what is in
//!   `near`: it stays there when its entry is taken out, and finds none when its turn comes.

use std::{cmp::Reverse, collections::BinaryHeap, mem};

/// A tick is about a millisecond: 2^20 ns.
const TICK_BITS: u32 = 20;
const GROUP_BITS: u32 = 6;
const SLOTS: usize = 1 << GROUP_BITS;
/// As many groups as the ticks of 64 bits of nanoseconds have.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(GROUP_BITS) as usize;
const NONE: u32 = u32::MAX;
/// The level of what is in `near`.
const NEAR: u8 = u8::MAX;
/// A list of so many entries is looked through for the least deadline.
const SHORT: usize = 4;
/// So much room is not given back.
const KEPT: usize = 1024;

/// Where an entry is, and its number (Y3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    place: u32,
    number: u64,
}

impl Key {
    #[inline]
    pub(crate) fn place(self) -> u32 {
        self.place
    }
}

/// What was due: its deadline and its number, which say its turn, and the item.
#[derive(Debug)]
pub(crate) struct Due<T> {
    pub(crate) turn: (u64, u64),
    pub(crate) item: T,
}

struct Entry<T> {
    /// Nanoseconds.
    deadline: u64,
    number: u64,
    /// Neighbours in the slot's list, or `next` in that of free places.
    prev: u32,
    next: u32,
    level: u8,
    slot: u8,
    /// None: the place is free.
    item: Option<T>,
}

/// See the module. Times are nanoseconds since a moment that the owner chooses.
pub(crate) struct Wheel<T> {
    tick: u64,
    first: [[u32; SLOTS]; LEVELS],
    occupied: [u64; LEVELS],
    /// Deadline, number and place.
    near: BinaryHeap<Reverse<(u64, u64, u32)>>,
    entries: Vec<Entry<T>>,
    free: u32,
    live: usize,
    next_number: u64,
}

impl<T> Wheel<T> {
    pub(crate) const fn new() -> Self {
        Self {
            tick: 0,
            first: [[NONE; SLOTS]; LEVELS],
            occupied: [0; LEVELS],
            near: BinaryHeap::new(),
            entries: Vec::new(),
            free: NONE,
            live: 0,
            next_number: 0,
        }
    }

    /// Adds an item that is due at `deadline`.
    pub(crate) fn add(&mut self, deadline: u64, item: T) -> Key {
        let number = self.next_number;
        self.next_number += 1;
        self.live += 1;
        let entry = Entry { deadline, number, prev: NONE, next: NONE, level: 0, slot: 0, item: Some(item) };
        let place = self.free;
        let place = if place == NONE {
            let place = u32::try_from(self.entries.len()).ok().filter(|place| *place != NONE).expect("too many alarms");
            self.entries.push(entry);
            place
        } else {
            self.free = mem::replace(&mut self.entries[place as usize], entry).next;
            place
        };
        self.link(place);
        Key { place, number }
    }

    /// Takes an item out, if it is still in.
    pub(crate) fn take(&mut self, key: Key) -> Option<T> {
        if !self.contains(key) {
            return None;
        }
        Some(self.take_at(key.place))
    }

    /// As [`take`](Self::take), of an item that is in: at the place its key had.
    #[inline]
    pub(crate) fn take_at(&mut self, place: u32) -> T {
        self.unlink(place);
        let item = self.free_place(place).item;
        self.tidy();
        item
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        self.entries.get(key.place as usize).is_some_and(|e| e.number == key.number && e.item.is_some())
    }

    /// Moves to `now` and takes out what is due.
    pub(crate) fn advance(&mut self, now: u64, due: &mut Vec<Due<T>>) {
        let target = now >> TICK_BITS;
        while let Some((level, slot, start)) = self.first_slot().filter(|(_, _, start)| *start <= target) {
            self.tick = start;
            let mut place = mem::replace(&mut self.first[level][slot], NONE);
            self.occupied[level] &= !(1 << slot);
            while place != NONE {
                let entry = &self.entries[place as usize];
                let next = entry.next;
                if entry.deadline <= now {
                    due.push(self.free_place(place));
                } else {
                    self.link(place);
                }
                place = next;
            }
        }
        self.tick = self.tick.max(target);
        while let Some((_, _, place)) = self.nearest().filter(|(deadline, ..)| *deadline <= now) {
            self.near.pop();
            due.push(self.free_place(place));
        }
        self.tidy();
    }

    /// An empty wheel keeps little room, and nothing in `near` whose turn would never come: an owner may look at it only while it is not
    /// empty.
    #[inline]
    fn tidy(&mut self) {
        if self.live > 0 {
            return;
        }
        self.near.clear();
        self.near.shrink_to(KEPT);
        if self.entries.len() > KEPT {
            (self.entries, self.free) = (Vec::new(), NONE);
        }
    }

    /// The first in `near` that has not been taken out.
    fn nearest(&mut self) -> Option<(u64, u64, u32)> {
        loop {
            let &Reverse(first) = self.near.peek()?;
            let (_, number, place) = first;
            if self.contains(Key { place, number }) {
                return Some(first);
            }
            self.near.pop();
        }
    }

    /// A time before which nothing is due: that of the earliest deadline, or, if it is far, an earlier one.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if let Some((deadline, ..)) = self.nearest() {
            // All else lies in later ticks (Y1).
            return Some(deadline);
        }
        // At any level nothing is due before what lies in this slot (Y1). Who gets up at its beginning has got up for nothing most often.
        let (level, slot, start) = self.first_slot()?;
        let (mut place, mut least) = (self.first[level][slot], u64::MAX);
        for _ in 0..SHORT {
            let entry = &self.entries[place as usize];
            least = least.min(entry.deadline);
            place = entry.next;
            if place == NONE {
                return Some(least);
            }
        }
        Some(start << TICK_BITS)
    }

    /// The slot that comes first and is not empty, and the tick at which it begins. A lower level's slots come before a higher one's (Y1).
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|bits| *bits != 0)?;
        // Y1: all lie after the wheel's own.
        let slot = self.occupied[level].trailing_zeros();
        let shift = level as u32 * GROUP_BITS;
        let above = self.tick.checked_shr(shift + GROUP_BITS).unwrap_or(0);
        let above = above.checked_shl(shift + GROUP_BITS).unwrap_or(0);
        Some((level, slot as usize, above | u64::from(slot) << shift))
    }

    /// Puts the entry at `place`, which is in no list, into the one it belongs to.
    fn link(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        let tick = entry.deadline >> TICK_BITS;
        if tick <= self.tick {
            entry.level = NEAR;
            self.near.push(Reverse((entry.deadline, entry.number, place)));
            return;
        }
        let level = (tick ^ self.tick).ilog2() / GROUP_BITS;
        let slot = (tick >> (level * GROUP_BITS)) as usize % SLOTS;
        let next = mem::replace(&mut self.first[level as usize][slot], place);
        self.occupied[level as usize] |= 1 << slot;
        let entry = &mut self.entries[place as usize];
        (entry.prev, entry.next) = (NONE, next);
        (entry.level, entry.slot) = (level as u8, slot as u8);
        if next != NONE {
            self.entries[next as usize].prev = place;
        }
    }

    fn unlink(&mut self, place: u32) {
        let entry = &self.entries[place as usize];
        if entry.level == NEAR {
            return;
        }
        let (prev, next, level, slot) = (entry.prev, entry.next, usize::from(entry.level), usize::from(entry.slot));
        match prev {
            NONE => self.first[level][slot] = next,
            prev => self.entries[prev as usize].next = next,
        }
        match next {
            NONE if prev == NONE => self.occupied[level] &= !(1 << slot),
            NONE => {}
            next => self.entries[next as usize].prev = prev,
        }
    }

    /// Empties a place that is in no list.
    fn free_place(&mut self, place: u32) -> Due<T> {
        let entry = &mut self.entries[place as usize];
        let item = entry.item.take().expect("the place is taken");
        entry.next = mem::replace(&mut self.free, place);
        self.live -= 1;
        Due { turn: (entry.deadline, entry.number), item }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(seed: &mut u64) -> u64 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *seed >> 20
    }

    /// Random additions, withdrawals and moves against a plain list, with deadlines near and far.
    #[test]
    fn agrees_with_a_list() {
        for start in 1..20_u64 {
            let mut seed = start;
            let mut wheel = Wheel::new();
            let mut twin: Vec<(u64, u64, Key)> = Vec::new();
            let mut gone: Vec<Key> = Vec::new();
            let mut now = random(&mut seed) << (start * 2);
            let mut items = 0;
            for _ in 0..3000 {
                match random(&mut seed) % 4 {
                    0 | 1 => {
                        let reach = random(&mut seed) % 50;
                        let ahead = random(&mut seed) % (1 << reach);
                        let deadline =
                            if random(&mut seed).is_multiple_of(20) { now / 2 } else { now.saturating_add(ahead) };
                        twin.push((deadline, items, wheel.add(deadline, items)));
                        items += 1;
                    }
                    2 if !twin.is_empty() => {
                        let at = random(&mut seed) as usize % twin.len();
                        let (_, item, key) = twin.swap_remove(at);
                        assert!(wheel.contains(key));
                        assert_eq!(wheel.take(key), Some(item));
                        gone.push(key);
                    }
                    _ => {
                        let least = twin.iter().map(|(deadline, ..)| *deadline).min();
                        match (wheel.next(), least) {
                            (None, None) => {}
                            (Some(next), Some(least)) => assert!(next <= least, "{next} is after {least}"),
                            (next, least) => panic!("{next:?} and {least:?}"),
                        }
                        // To the next look that the wheel asks for, or somewhere.
                        let step = random(&mut seed) % (1 << (random(&mut seed) % 45));
                        let to = wheel.next().filter(|_| step.is_multiple_of(2)).unwrap_or(now.saturating_add(step));
                        now = now.max(to);
                        let mut due = Vec::new();
                        wheel.advance(now, &mut due);
                        let mut found: Vec<_> = due.iter().map(|due| (due.turn.0, due.item)).collect();
                        let mut expected: Vec<_> = twin.extract_if(.., |(deadline, ..)| *deadline <= now).collect();
                        gone.extend(expected.iter().map(|(.., key)| *key));
                        found.sort_unstable();
                        expected.sort_unstable_by_key(|(deadline, item, _)| (*deadline, *item));
                        assert_eq!(found, expected.into_iter().map(|(d, item, _)| (d, item)).collect::<Vec<_>>());
                    }
                }
                assert_eq!(wheel.live, twin.len());
            }
            assert!(gone.iter().all(|key| wheel.take(*key).is_none()), "a key that is gone finds nothing");
        }
    }

    /// Who sleeps until `next` again and again comes to a far deadline in few steps: one, where there are few.
    #[test]
    fn a_far_deadline_takes_few_looks() {
        let mut crowd = Wheel::new();
        (0..100).for_each(|n| _ = crowd.add(40 * 24 * 3600 * 1_000_000_000 + n, ()));
        let (mut looks, mut due) = (0, Vec::new());
        while due.is_empty() {
            looks += 1;
            let next = crowd.next().unwrap();
            crowd.advance(next, &mut due);
        }
        assert!(looks <= LEVELS + 1, "{looks}");

        let mut wheel = Wheel::new();
        let deadline = 40 * 24 * 3600 * 1_000_000_000;
        wheel.add(deadline, ());
        let (mut looks, mut due) = (0, Vec::new());
        while due.is_empty() {
            looks += 1;
            let next = wheel.next().unwrap();
            wheel.advance(next, &mut due);
        }
        assert!(looks <= 1, "{looks}");
        assert_eq!(due[0].turn, (deadline, 0));
        assert_eq!(wheel.next(), None);
    }

    /// Many deadlines within a tick come out one by one, in order, those that were taken out meanwhile not at all.
    #[test]
    fn deadlines_within_a_tick_are_told_apart() {
        let mut wheel = Wheel::new();
        let base = 5 << TICK_BITS;
        let keys: Vec<_> = (0..1000).rev().map(|n| wheel.add(base + 1 + n * 1000, n)).collect();
        wheel.advance(base, &mut Vec::new());
        for key in keys.iter().step_by(2) {
            assert!(wheel.take(*key).is_some());
        }
        let mut found = Vec::new();
        while let Some(next) = wheel.next() {
            let mut due = Vec::new();
            wheel.advance(next, &mut due);
            found.extend(due.iter().map(|due| due.item));
            assert!(due.len() <= 1);
        }
        assert_eq!(found, (0..1000).step_by(2).collect::<Vec<u64>>());
    }

    /// What is taken out before its time leaves no room behind either, whether or not the wheel ever moves.
    #[test]
    fn room_is_given_back_when_all_have_been_taken_out() {
        let mut wheel = Wheel::new();
        let places: Vec<_> = (0..3 * KEPT as u64).map(|n| wheel.add(n << TICK_BITS, n).place()).collect();
        for (n, place) in places.into_iter().enumerate() {
            assert_eq!(wheel.take_at(place), n as u64);
        }
        assert_eq!(wheel.entries.capacity(), 0);
        for _ in 0..3 * KEPT {
            // Late when it is added.
            let key = wheel.add(0, 0);
            assert_eq!(wheel.take(key), Some(0));
        }
        assert!(wheel.near.capacity() <= KEPT, "{}", wheel.near.capacity());
    }

    #[test]
    fn room_is_given_back_and_old_handles_find_nothing() {
        let mut wheel = Wheel::new();
        let old: Vec<_> = (0..3 * KEPT as u64).map(|n| wheel.add(n, n)).collect();
        wheel.advance(u64::MAX, &mut Vec::new());
        assert_eq!(wheel.entries.capacity(), 0);
        let new: Vec<_> = (0..3 * KEPT as u64).map(|n| wheel.add(n, n)).collect();
        assert!(old.iter().all(|key| wheel.take(*key).is_none()));
        assert!(new.iter().all(|key| wheel.take(*key).is_some()));
    }
}
