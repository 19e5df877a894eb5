//! A worker's deadlines: a timing wheel, and each goroutine knows its place in it.
//!
//! Only the owner touches it: a goroutine arms and disarms on its own worker, so there are neither locks nor dead entries.
//!
//! - H1: the entry at place `p` belongs to an object whose position is `p`; objects that are not in the wheel have position [`NOWHERE`].

use std::{cell::Cell, time::Instant};

use crate::runtime::{
    clock,
    wheel::{Due, Wheel},
};

/// The position of an object that is in no wheel.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// An object that can be in one wheel.
pub(crate) trait Timed: 'static {
    /// Where it is; written by the wheel's owner only.
    fn position(&self) -> &Cell<u32>;
}

/// See the module.
pub(crate) struct Timers<T: Timed> {
    wheel: Wheel<&'static T>,
    /// Empty between calls; kept for its room.
    due: Vec<Due<&'static T>>,
}

/// Room for more is not kept.
const KEPT: usize = 1024;

impl<T: Timed> Timers<T> {
    pub(crate) fn new() -> Self {
        Self { wheel: Wheel::new(), due: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wheel.is_empty()
    }

    /// A time before which nothing is due: the earliest deadline, or, if that is far, an earlier time. None when nothing ever is.
    pub(crate) fn next_look(&mut self) -> Option<Instant> {
        self.wheel.next().and_then(clock::instant)
    }

    /// Whether the first deadline has passed. Reads no clock when there is none.
    pub(crate) fn is_due(&mut self, now: impl FnOnce() -> Instant) -> bool {
        self.next_look().is_some_and(|next| next <= now())
    }

    /// Adds an object that is in no wheel.
    #[inline]
    pub(crate) fn arm(&mut self, deadline: Instant, object: &'static T) {
        debug_assert_eq!(object.position().get(), NOWHERE, "armed twice");
        let place = self.wheel.add(clock::nanos(deadline), object).place();
        object.position().set(place);
    }

    /// Takes an object out, if it is in.
    #[inline]
    pub(crate) fn cancel(&mut self, object: &T) {
        let place = object.position().replace(NOWHERE);
        if place != NOWHERE {
            // H1.
            self.wheel.take_at(place);
        }
    }

    /// Takes out what is due at `now` and gives it to `each`, the earliest first.
    pub(crate) fn fire(&mut self, now: Instant, mut each: impl FnMut(&'static T)) {
        self.wheel.advance(clock::nanos(now), &mut self.due);
        self.due.sort_unstable_by_key(|due| due.turn);
        for due in self.due.drain(..) {
            due.item.position().set(NOWHERE);
            each(due.item);
        }
        self.due.shrink_to(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use std::{ptr, time::Duration};

    use super::*;

    struct Object(Cell<u32>);

    impl Timed for Object {
        fn position(&self) -> &Cell<u32> {
            &self.0
        }
    }

    /// Random arms, cancels and looks against a list.
    #[test]
    fn agrees_with_a_list() {
        let mut seed = 0x1234_5678_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        // The clock begins before the first deadline.
        clock::nanos(Instant::now());
        let mut now = Instant::now();
        let objects: Vec<&'static Object> =
            (0..200).map(|_| &*Box::leak(Box::new(Object(Cell::new(NOWHERE))))).collect();
        let mut timers = Timers::new();
        let mut twin: Vec<(Instant, usize)> = Vec::new();
        for _ in 0..20_000 {
            let object = random() % objects.len();
            match twin.iter().position(|(_, o)| *o == object) {
                None => {
                    let deadline = now + Duration::from_micros(random() as u64 % 20_000);
                    timers.arm(deadline, objects[object]);
                    twin.push((deadline, object));
                }
                Some(at) if random() % 2 == 0 => {
                    timers.cancel(objects[object]);
                    twin.swap_remove(at);
                }
                Some(_) => {
                    now += Duration::from_micros(random() as u64 % 200);
                    let mut fired = Vec::new();
                    timers.fire(now, |object| {
                        let at = twin.iter().position(|(_, o)| ptr::eq(objects[*o], object)).expect("armed");
                        fired.push(twin.swap_remove(at).0);
                    });
                    assert!(fired.is_sorted() && fired.iter().all(|deadline| *deadline <= now));
                    assert!(twin.iter().all(|(deadline, _)| *deadline > now), "one was left");
                }
            }
            assert_eq!(timers.is_empty(), twin.is_empty());
            let least = twin.iter().map(|(deadline, _)| *deadline).min();
            assert!(timers.next_look() <= least.or(timers.next_look()), "looks too late");
        }
    }
}
