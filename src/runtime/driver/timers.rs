//! A worker's deadlines: a heap in which every entry knows where its goroutine is, and the goroutine where its entry is.
//!
//! Only the owner touches it: a goroutine arms and disarms on its own worker, so there are neither locks nor dead entries. Four
//! children a node: the tree is half as deep as a binary one and a node's children share a cache line.
//!
//! - H1: no entry's deadline is later than its children's.
//! - H2: entry `i` belongs to an object whose position is `i`; objects that are not in the heap have position [`NOWHERE`].

use std::{cell::Cell, time::Instant};

/// The position of an object that is not in a heap.
pub(crate) const NOWHERE: u32 = u32::MAX;

const CHILDREN: usize = 4;

/// An object that can be in one heap.
pub(crate) trait Timed: 'static {
    /// Where it is; written by the heap only.
    fn position(&self) -> &Cell<u32>;
}

struct Entry<T: Timed> {
    deadline: Instant,
    object: &'static T,
}

impl<T: Timed> Clone for Entry<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Timed> Copy for Entry<T> {}

/// See the module.
pub(crate) struct Timers<T: Timed> {
    heap: Vec<Entry<T>>,
}

impl<T: Timed> Timers<T> {
    pub(crate) fn new() -> Self {
        Self { heap: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Whether the first deadline has passed. Reads no clock when there is none.
    pub(crate) fn is_due(&self) -> bool {
        self.next_deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Adds an object that is in no heap.
    pub(crate) fn arm(&mut self, deadline: Instant, object: &'static T) {
        debug_assert_eq!(object.position().get(), NOWHERE, "armed twice");
        assert!(self.heap.len() < NOWHERE as usize, "too many timers on one worker");
        let at = self.heap.len();
        self.heap.push(Entry { deadline, object });
        self.sift_up(at);
    }

    /// Takes an object out, if it is in.
    pub(crate) fn cancel(&mut self, object: &T) {
        let at = object.position().get();
        if at != NOWHERE {
            self.remove(at as usize);
        }
    }

    /// Takes out the object whose deadline is earliest, if that is not after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<&'static T> {
        let first = self.heap.first()?;
        if first.deadline > now {
            return None;
        }
        let object = first.object;
        self.remove(0);
        Some(object)
    }

    fn remove(&mut self, at: usize) {
        let removed = self.heap.swap_remove(at);
        removed.object.position().set(NOWHERE);
        if at < self.heap.len() {
            // What came from the end belongs further up or further down, not both.
            if self.sift_up(at) == at {
                self.sift_down(at);
            }
        }
        if self.heap.capacity() > 1024 && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.capacity() / 2);
        }
    }

    fn sift_up(&mut self, mut at: usize) -> usize {
        let entry = self.heap[at];
        while at > 0 {
            let parent = (at - 1) / CHILDREN;
            if self.heap[parent].deadline <= entry.deadline {
                break;
            }
            self.put(at, self.heap[parent]);
            at = parent;
        }
        self.put(at, entry);
        at
    }

    fn sift_down(&mut self, mut at: usize) {
        let entry = self.heap[at];
        loop {
            let first = at * CHILDREN + 1;
            let last = (first + CHILDREN).min(self.heap.len());
            let Some(least) = (first..last).min_by_key(|&child| self.heap[child].deadline) else { break };
            if entry.deadline <= self.heap[least].deadline {
                break;
            }
            self.put(at, self.heap[least]);
            at = least;
        }
        self.put(at, entry);
    }

    fn put(&mut self, at: usize, entry: Entry<T>) {
        entry.object.position().set(at as u32);
        self.heap[at] = entry;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Object(Cell<u32>);

    impl Timed for Object {
        fn position(&self) -> &Cell<u32> {
            &self.0
        }
    }

    /// Random arms, cancels and pops against a sorted list.
    #[test]
    fn agrees_with_a_sorted_list() {
        let mut seed = 0x1234_5678_u64;
        let mut random = move || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        let base = Instant::now();
        let objects: Vec<&'static Object> =
            (0..200).map(|_| &*Box::leak(Box::new(Object(Cell::new(NOWHERE))))).collect();
        let mut timers = Timers::new();
        let mut twin: Vec<(Duration, usize)> = Vec::new();
        for _ in 0..20_000 {
            let object = random() % objects.len();
            let delay = Duration::from_micros(random() as u64 % 1000);
            match twin.iter().position(|(_, o)| *o == object) {
                None => {
                    timers.arm(base + delay, objects[object]);
                    twin.push((delay, object));
                }
                Some(at) if random() % 2 == 0 => {
                    timers.cancel(objects[object]);
                    twin.swap_remove(at);
                }
                Some(_) => {
                    let earliest = twin.iter().filter(|(d, _)| *d <= delay).min_by_key(|(d, _)| *d).copied();
                    match (timers.pop_due(base + delay), earliest) {
                        (None, None) => {}
                        (Some(popped), Some((least, _))) => {
                            let at = twin.iter().position(|(_, o)| std::ptr::eq(objects[*o], popped)).unwrap();
                            assert_eq!(twin.swap_remove(at).0, least);
                        }
                        (popped, expected) => panic!("popped {}, expected {expected:?}", popped.is_some()),
                    }
                }
            }
            assert_eq!(timers.next_deadline(), twin.iter().map(|(d, _)| base + *d).min());
        }
    }
}
