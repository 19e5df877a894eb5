//! The buffer of a channel: a ring of fixed size, or one that grows.

use std::{collections::VecDeque, mem};

/// Values in the order they came.
pub(crate) struct Ring<T> {
    values: VecDeque<T>,
}

impl<T> Ring<T> {
    /// A ring with room for `capacity` values, allocated at once.
    ///
    /// # Panics
    ///
    /// When so many cannot be allocated.
    #[track_caller]
    pub(crate) fn bounded(capacity: usize) -> Self {
        let mut values = VecDeque::new();
        if mem::size_of::<T>() != 0 && values.try_reserve_exact(capacity).is_err() {
            let each = mem::size_of::<T>();
            panic!("a channel of capacity {capacity} cannot be allocated: the size of a value is {each}");
        }
        Self { values }
    }

    /// A ring that grows.
    pub(crate) fn unbounded() -> Self {
        Self { values: VecDeque::new() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        self.values.push_back(value);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.values.pop_front()
    }

    /// The oldest `count` values, which are there.
    pub(crate) fn drain(&mut self, count: usize) -> impl Iterator<Item = T> {
        self.values.drain(..count)
    }

    pub(crate) fn extend(&mut self, values: impl Iterator<Item = T>) {
        self.values.extend(values);
    }

    /// Gives an unbounded ring's room back when most of it is unused.
    pub(crate) fn relax(&mut self) {
        if self.values.capacity() > 4096 && self.values.len() < self.values.capacity() / 8 {
            self.values.shrink_to(self.values.capacity() / 4);
        }
    }

    /// Everything, to be dropped elsewhere.
    pub(crate) fn take(&mut self) -> VecDeque<T> {
        mem::take(&mut self.values)
    }
}
