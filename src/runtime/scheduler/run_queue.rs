//! The private run queue: started goroutines that are ready, first in, first out.
//!
//! Only the owner touches it, so links and ends are plain cells; the link is the slot's own (P2: one queue at a time).

use std::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::atomic::Ordering::Relaxed,
};

use super::inbox::{Chain, Linked};

pub(crate) struct RunQueue<T: Linked> {
    head: Cell<Option<&'static T>>,
    tail: Cell<Option<&'static T>>,
    len: Cell<u32>,
}

impl<T: Linked> RunQueue<T> {
    pub(crate) fn new() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None), len: Cell::new(0) }
    }

    #[inline]
    pub(crate) fn push_back(&self, node: &'static T) {
        // ORDERING: Relaxed, here and below. Links of queued nodes belong to this queue's owner.
        node.link().store(ptr::null_mut(), Relaxed);
        match self.tail.replace(Some(node)) {
            None => self.head.set(Some(node)),
            Some(last) => last.link().store(ptr::from_ref(node).cast_mut(), Relaxed),
        }
        self.len.set(self.len.get() + 1);
    }

    #[inline]
    pub(crate) fn push_front(&self, node: &'static T) {
        let first = self.head.replace(Some(node));
        node.link().store(first.map_or(ptr::null_mut(), |first| ptr::from_ref(first).cast_mut()), Relaxed);
        if first.is_none() {
            self.tail.set(Some(node));
        }
        self.len.set(self.len.get() + 1);
    }

    /// Adds nodes that are linked already.
    #[inline]
    pub(crate) fn append(&self, chain: Chain<T>) {
        match self.tail.replace(Some(chain.last)) {
            None => self.head.set(Some(chain.first)),
            Some(last) => last.link().store(ptr::from_ref(chain.first).cast_mut(), Relaxed),
        }
        self.len.set(self.len.get() + chain.len);
    }

    #[inline]
    pub(crate) fn pop_front(&self) -> Option<&'static T> {
        let first = self.head.get()?;
        let next = NonNull::new(first.link().load(Relaxed));
        // SAFETY: nodes are `'static`.
        let next = next.map(|next| unsafe { next.as_ref() });
        if next.is_none() {
            self.tail.set(None);
        }
        self.head.set(next);
        self.len.set(self.len.get() - 1);
        Some(first)
    }

    /// The node that [`pop_front`](Self::pop_front) would give, and the address of the one behind it, null for none.
    #[inline]
    pub(crate) fn first_two(&self) -> (Option<&'static T>, *const T) {
        let first = self.head.get();
        (first, first.map_or(ptr::null(), |first| first.link().load(Relaxed)))
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.len.get()
    }
}
