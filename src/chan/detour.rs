//! What a ring cannot express: places that have been promised, with what has come behind them, and values that were given back.
//!
//! The order of a buffer is: `returned`, the ring, `line`. Almost always the first and the last are empty, and the ring is all there is.
//!
//! - G1: `line` is empty or begins with a promise that is still open. What comes to its front moves on into the ring.
//! - G2: while something is `returned`, the channel's own ring is empty and its values lie in `aside`. So who receives finds the ring empty, and
//!   looks here only then.
//! - G3: a promise is known by a number, from which its place in `line` follows. It is kept or given up once.
//! - G4: `returned` is in the order in which its values were taken. What is taken twice counts as taken the first time.

use std::{collections::VecDeque, mem, ptr};

use super::ring::Ring;
use crate::runtime::waitq::TakenAt;

/// A promised place: an odd number, so that it is told from the address of a node. It is not copied (G3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Promise(usize);

impl Promise {
    /// As what a node has for its place.
    pub(crate) fn into_place(self) -> *mut () {
        ptr::without_provenance_mut(self.0)
    }

    /// None: the place is an address.
    pub(crate) fn from_place(place: *mut ()) -> Option<Self> {
        (place.addr() & 1 == 1).then_some(Self(place.addr()))
    }
}

enum Entry<T> {
    Promised,
    Value(T),
    /// A promise that was given up.
    Void,
}

/// See the module. Guarded by the channel's lock.
pub(crate) struct Detour<T> {
    returned: VecDeque<(TakenAt, T)>,
    aside: Ring<T>,
    line: VecDeque<Entry<T>>,
    /// The number of the promise that the first entry of `line` is, or would be.
    first: usize,
    promised: usize,
    void: usize,
}

impl<T> Detour<T> {
    pub(crate) fn new() -> Self {
        Self {
            returned: VecDeque::new(),
            aside: Ring::unbounded(),
            line: VecDeque::new(),
            first: 1,
            promised: 0,
            void: 0,
        }
    }

    /// Whether the ring is all there is.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.returned.is_empty()
    }

    /// How many places of the buffer are taken here: by values, and by promises that are open.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.aside.len() + self.line.len() - self.void
    }

    /// How many values there are.
    pub(crate) fn values(&self) -> usize {
        self.len() - self.promised
    }

    /// Whether what comes next has been promised, once the ring is empty and nothing is returned.
    pub(crate) fn has_line(&self) -> bool {
        !self.line.is_empty()
    }

    pub(crate) fn promise(&mut self) -> Promise {
        let promise = Promise(self.first.wrapping_add(2 * self.line.len()));
        self.line.push_back(Entry::Promised);
        self.promised += 1;
        promise
    }

    /// Keeps a promise, or gives it up for want of a value.
    pub(crate) fn settle(&mut self, promise: Promise, value: Option<T>) {
        let at = promise.0.wrapping_sub(self.first) / 2;
        let entry = &mut self.line[at];
        debug_assert!(matches!(entry, Entry::Promised));
        self.promised -= 1;
        self.void += usize::from(value.is_none());
        *entry = value.map_or(Entry::Void, Entry::Value);
    }

    /// Gives all open promises up.
    pub(crate) fn void(&mut self) {
        for entry in &mut self.line {
            if matches!(entry, Entry::Promised) {
                *entry = Entry::Void;
            }
        }
        self.void += mem::take(&mut self.promised);
    }

    /// Adds a value behind all others; gives it back when the end of the ring is that place.
    pub(crate) fn push(&mut self, value: T) -> Option<T> {
        if !self.line.is_empty() {
            self.line.push_back(Entry::Value(value));
        } else if !self.returned.is_empty() {
            self.aside.push(value);
        } else {
            return Some(value);
        }
        None
    }

    /// G1: moves what has come to the front of the line into the ring, which is the channel's own unless G2 holds.
    pub(crate) fn advance(&mut self, ring: &mut Ring<T>) {
        let ring = if self.returned.is_empty() { ring } else { &mut self.aside };
        while let Some(Entry::Value(_) | Entry::Void) = self.line.front() {
            self.first = self.first.wrapping_add(2);
            match self.line.pop_front() {
                Some(Entry::Value(value)) => ring.push(value),
                _ => self.void -= 1,
            }
        }
        if self.line.is_empty() && self.line.capacity() > 64 {
            self.line = VecDeque::new();
        }
    }

    /// Puts a value back where it was (G4).
    pub(crate) fn give_back(&mut self, taken_at: TakenAt, value: T, ring: &mut Ring<T>) {
        if self.returned.is_empty() {
            // G2.
            mem::swap(&mut self.aside, ring);
        }
        let at = self.returned.partition_point(|(earlier, _)| earlier.is_before(taken_at));
        self.returned.insert(at, (taken_at, value));
    }

    /// When the first of the returned values was taken.
    pub(crate) fn returned(&self) -> Option<TakenAt> {
        self.returned.front().map(|(taken_at, _)| *taken_at)
    }

    /// The first of the returned values.
    pub(crate) fn pop_returned(&mut self, ring: &mut Ring<T>) -> Option<T> {
        let (_, value) = self.returned.pop_front()?;
        if self.returned.is_empty() {
            // G2.
            mem::swap(&mut self.aside, ring);
        }
        Some(value)
    }

    /// All values, with those of the ring in their place; to be dropped elsewhere. Promises are void.
    pub(crate) fn take(&mut self, ring: &mut Ring<T>) -> VecDeque<T> {
        self.void();
        self.advance(ring);
        let mut values: VecDeque<T> = self.returned.drain(..).map(|(_, value)| value).collect();
        values.append(&mut ring.take());
        values.append(&mut self.aside.take());
        values
    }
}
