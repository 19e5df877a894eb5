//! The inbox: how other threads hand a woken goroutine to its home worker.
//!
//! - I1: any thread pushes; only the owner takes, and always everything. So there is no ABA: the head is only ever compared
//!   with what a pusher has just read, and a node comes back to the list only after the owner took it out.
//! - I2: whoever pushes holds the claim on each node, and with it the right to write its link; the push passes both on to the
//!   owner.
//!
//! Pushes form a stack; the owner turns it round, so that wakes are served first come, first served.
//! Model: `loom_inbox` below.

use std::ptr::{self, NonNull};

use crate::facade::{
    AtomicPtr,
    Ordering::{Acquire, Relaxed, Release},
};

/// A node that carries its own link.
pub(crate) trait Linked: Sync + Sized + 'static {
    fn link(&self) -> &AtomicPtr<Self>;
}

/// See the module.
pub(crate) struct Inbox<T: Linked> {
    head: AtomicPtr<T>,
}

impl<T: Linked> Inbox<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Adds the chain that starts with `newest` and ends with `oldest`, linked already. The caller holds the claims (I2).
    #[inline]
    pub(crate) fn push_chain(&self, newest: &'static T, oldest: &'static T) {
        // ORDERING: Relaxed. Only the compare-exchange publishes.
        let mut head = self.head.load(Relaxed);
        loop {
            // ORDERING: Relaxed. Published by the Release below.
            oldest.link().store(head, Relaxed);
            // ORDERING: Release. Publishes the links and all that the waker did; pairs with the Acquire in `take`.
            match self.head.compare_exchange_weak(head, ptr::from_ref(newest).cast_mut(), Release, Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// Whether there is nothing: a hint, except after the fence of the idle protocol.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: Relaxed. `take` synchronises; the idle protocol puts its own fence before this.
        self.head.load(Relaxed).is_null()
    }

    /// Takes everything, linked from the oldest to the newest. Called by the owner only.
    #[inline]
    pub(crate) fn take(&self) -> Option<Chain<T>> {
        // ORDERING: Acquire. Takes over links and what the wakers did.
        let last = NonNull::new(self.head.swap(ptr::null_mut(), Acquire))?;
        let (mut newest, mut oldest, mut len) = (Some(last), ptr::null_mut(), 0);
        while let Some(node) = newest {
            // SAFETY: nodes are `'static`, and the push gave them to us (I2).
            let link = unsafe { node.as_ref() }.link();
            // ORDERING: Relaxed. Ours now.
            newest = NonNull::new(link.load(Relaxed));
            link.store(oldest, Relaxed);
            oldest = node.as_ptr();
            len += 1;
        }
        // SAFETY: the node that was taken last; as above.
        let first = unsafe { &*oldest };
        // SAFETY: as above.
        let last = unsafe { last.as_ref() };
        Some(Chain { first, last, len })
    }
}

/// Nodes that are linked, each to the next; the last to none.
pub(crate) struct Chain<T: 'static> {
    pub(crate) first: &'static T,
    pub(crate) last: &'static T,
    pub(crate) len: u32,
}

#[cfg(all(test, loom))]
mod loom_inbox {
    use loom::{sync::Arc, thread};

    use super::*;

    struct Node {
        link: AtomicPtr<Node>,
        value: usize,
    }

    impl Linked for Node {
        fn link(&self) -> &AtomicPtr<Self> {
            &self.link
        }
    }

    fn node(value: usize) -> &'static Node {
        Box::leak(Box::new(Node { link: AtomicPtr::new(ptr::null_mut()), value }))
    }

    /// Two pushers and a taker: everything arrives once, and each pusher's nodes in order.
    #[test]
    fn every_push_is_taken_once_and_in_order() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::<Node>::new());
            let pushers: Vec<_> = [10, 20]
                .into_iter()
                .map(|base| {
                    let inbox = inbox.clone();
                    thread::spawn(move || {
                        for n in [node(base), node(base + 1)] {
                            inbox.push_chain(n, n);
                        }
                    })
                })
                .collect();
            let mut seen = Vec::new();
            let mut take = || {
                let Some(Chain { first, last, len }) = inbox.take() else { return };
                let begin = seen.len();
                let mut next: *const Node = first;
                while let Some(node) = unsafe { next.as_ref() } {
                    seen.push(node.value);
                    assert!(!node.link().load(Relaxed).is_null() || ptr::eq(node, last));
                    next = node.link().load(Relaxed);
                }
                assert_eq!(seen.len() - begin, len as usize);
            };
            take();
            for pusher in pushers {
                pusher.join().unwrap();
            }
            take();
            let order = |base| seen.iter().copied().filter(|v| v / 10 == base).collect::<Vec<_>>();
            assert_eq!(order(1), [10, 11]);
            assert_eq!(order(2), [20, 21]);
            assert_eq!(seen.len(), 4);
        });
    }
}
