//! Wait queues: who waits for one thing, a channel or a lock, first come, first served. Each queue is guarded by the lock of what has it.
//!
//! - Q1: a node lives in the frame of the party that waits, which does not leave that frame before the node is out of every queue
//!   and its wait has ended.
//! - Q2: links, `linked` and `outcome` are written under the lock of the queue that the node is in, or was in; the waiter
//!   itself reads `outcome` after its wake, which is ordered after the write. In a wait with a ticket only the one who won it writes an
//!   outcome, so the nodes that lost are read without the lock.
//! - Q3: whoever takes a node out of a queue to complete it has the claim on its wait: without a ticket by having taken it out, with
//!   one by winning it. A node whose ticket is lost is just taken out; its owner finds that when it withdraws.
//! - Q4: the completer writes `outcome` and, for values, the place, before it wakes; afterwards it touches nothing of the node (P3).
//! - Q5: the claim on a node's wait is a value, [`ClaimedNode`]. While there is one the node's owner waits, so the node may be looked at
//!   through it. Completing the node uses it up and gives the unit to wake, which is to be had from it in no other way.

use std::{cell::Cell, marker::PhantomPinned, ptr, ptr::NonNull};

use crate::{
    runtime::unit::{Ticket, Unit},
    util::prefetch,
};

/// How a node's wait stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody has completed it.
    Waiting,
    /// The value has been moved, in or out of the place.
    Done,
    /// What was waited for will never come. A value in the place is still there.
    Closed,
    /// Something has changed: look again.
    Again,
}

/// When something was taken out that may yet be put back: a count that may wrap, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenAt(u32);

impl TakenAt {
    pub(crate) const NEVER: Self = Self(0);

    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1).max(1))
    }

    /// Of two things that are out, or were put back, at one time.
    pub(crate) fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0).cast_signed() < 0
    }
}

/// One party's place in one queue.
#[derive(Debug)]
pub(crate) struct Node {
    prev: Cell<*const Node>,
    next: Cell<*const Node>,
    /// About the nodes that were two and three places before it when it joined, which may be gone: asked for in a walk from the end, and
    /// never followed.
    further: [Cell<*const Node>; 2],
    linked: Cell<bool>,
    outcome: Cell<Outcome>,
    /// When it was first taken out by a party that may put it back.
    taken_at: Cell<TakenAt>,
    unit: &'static Unit,
    ticket: Cell<Option<Ticket>>,
    /// What else the two sides have to know: for channels where a sender's value is, or a receiver's value goes; null if there is none yet.
    place: Cell<*mut ()>,
    _pinned: PhantomPinned,
}

impl Node {
    /// A node for a wait of `unit`: without a ticket when all wakers come through one lock.
    #[inline]
    pub(crate) fn new(unit: &'static Unit, ticket: Option<Ticket>, place: *mut ()) -> Self {
        Self {
            prev: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            further: [const { Cell::new(ptr::null()) }; 2],
            linked: Cell::new(false),
            outcome: Cell::new(Outcome::Waiting),
            taken_at: Cell::new(TakenAt::NEVER),
            unit,
            ticket: Cell::new(ticket),
            place: Cell::new(place),
            _pinned: PhantomPinned,
        }
    }

    #[inline]
    pub(crate) fn outcome(&self) -> Outcome {
        self.outcome.get()
    }

    #[inline]
    pub(crate) fn set_outcome(&self, outcome: Outcome) {
        self.outcome.set(outcome);
    }

    #[inline]
    pub(crate) fn place(&self) -> *mut () {
        self.place.get()
    }

    #[inline]
    pub(crate) fn taken_at(&self) -> TakenAt {
        self.taken_at.get()
    }

    /// Notes when the node was taken out, unless it was before.
    pub(crate) fn set_taken_at(&self, taken_at: TakenAt) {
        if self.taken_at.get() == TakenAt::NEVER {
            self.taken_at.set(taken_at);
        }
    }

    #[inline]
    pub(crate) fn unit(&self) -> &'static Unit {
        self.unit
    }

    /// Wins the node's wait (Q3).
    #[inline]
    fn claim(&self) -> bool {
        self.ticket.get().is_none_or(|ticket| self.unit.try_claim(ticket))
    }
}

/// A node that has been taken out of its queue with the claim on its wait (Q5). It is to be completed, or put back.
#[derive(Debug)]
#[must_use]
pub(crate) struct ClaimedNode(NonNull<Node>);

impl ClaimedNode {
    /// # Safety
    ///
    /// The caller has the claim on the node's wait (Q3), and makes no other `ClaimedNode` of it.
    #[inline]
    pub(crate) unsafe fn new(node: NonNull<Node>) -> Self {
        Self(node)
    }

    /// Kept private: who has the unit could wake it, and the node would be gone (Q5).
    #[inline]
    fn node(&self) -> &Node {
        // SAFETY: its wait is claimed and has not ended, so its owner keeps it in its frame (Q1).
        unsafe { self.0.as_ref() }
    }

    /// For channels: where a sender's value is, or a receiver's value goes.
    #[inline]
    pub(crate) fn place(&self) -> *mut () {
        self.node().place()
    }

    #[inline]
    pub(crate) fn set_place(&self, place: *mut ()) {
        self.node().place.set(place);
    }

    #[inline]
    pub(crate) fn outcome(&self) -> Outcome {
        self.node().outcome()
    }

    /// Notes when the node was taken out, unless it was before.
    pub(crate) fn set_taken_at(&self, taken_at: TakenAt) {
        self.node().set_taken_at(taken_at);
    }

    /// Whether the node's wait needs no ticket to be won.
    pub(crate) fn is_plain(&self) -> bool {
        self.node().ticket.get().is_none()
    }

    /// Completes the node: who waits is to be woken with the unit, and nothing of the node is touched any more (Q4).
    #[inline]
    #[must_use]
    pub(crate) fn complete(self, outcome: Outcome) -> &'static Unit {
        let node = self.node();
        node.set_outcome(outcome);
        node.unit
    }

    /// Lets the node wait again, where it was.
    ///
    /// # Safety
    ///
    /// `queue` is the one that the node was taken out of, its lock is held, and the wait is [plain](Self::is_plain): a ticket is won once.
    pub(crate) unsafe fn put_back(self, queue: &WaitQueue) {
        debug_assert!(self.is_plain() && self.outcome() == Outcome::Waiting);
        // SAFETY: its owner goes on waiting, in the frame that has the node; it was taken out.
        unsafe { queue.put_back(self.node()) };
    }
}

/// A queue of nodes, oldest first. Guarded by the lock of what has it.
#[derive(Debug)]
pub(crate) struct WaitQueue {
    head: Cell<*const Node>,
    tail: Cell<*const Node>,
}

// SAFETY: the nodes are reached under the queue's lock only (Q2).
unsafe impl Send for WaitQueue {}
// Whoever owns it changes it in steps that run no user code, so no panic leaves one half done.
impl std::panic::UnwindSafe for WaitQueue {}
impl std::panic::RefUnwindSafe for WaitQueue {}

impl WaitQueue {
    pub(crate) const fn new() -> Self {
        Self { head: Cell::new(ptr::null()), tail: Cell::new(ptr::null()) }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_null()
    }

    /// Adds a node at the end.
    ///
    /// # Safety
    ///
    /// The node stays where it is until it is out of the queue (Q1) and is in no queue now.
    #[inline]
    pub(crate) unsafe fn push(&self, node: &Node) {
        debug_assert!(!node.linked.get());
        let last = self.tail.replace(node);
        node.prev.set(last);
        node.next.set(ptr::null());
        node.linked.set(true);
        // SAFETY: nodes in the queue are alive (Q1).
        match unsafe { at(last) } {
            None => self.head.set(node),
            Some(last) => {
                last.next.set(node);
                node.further[0].set(last.prev.get());
                node.further[1].set(last.further[0].get());
            }
        }
    }

    /// Adds a node at the front: it was the first before.
    ///
    /// # Safety
    ///
    /// As [`push`](Self::push).
    pub(crate) unsafe fn push_front(&self, node: &Node) {
        debug_assert!(!node.linked.get());
        let first = self.head.replace(node);
        node.prev.set(ptr::null());
        node.next.set(first);
        node.linked.set(true);
        // SAFETY: nodes in the queue are alive (Q1).
        match unsafe { at(first) } {
            None => self.tail.set(node),
            Some(first) => first.prev.set(node),
        }
    }

    /// Puts a node that was taken out back where it was: in front, but behind those put back that were taken out before it.
    ///
    /// # Safety
    ///
    /// As [`push`](Self::push).
    pub(crate) unsafe fn put_back(&self, node: &Node) {
        let (mut before, mut after) = (ptr::null(), self.head.get());
        // SAFETY: nodes in the queue are alive (Q1).
        while let Some(other) = unsafe { at(after) }
            && other.taken_at.get() != TakenAt::NEVER
            && other.taken_at.get().is_before(node.taken_at.get())
        {
            (before, after) = (after, other.next.get());
        }
        // SAFETY: as above.
        let (Some(last), Some(next)) = (unsafe { at(before) }, unsafe { at(after) }) else {
            // SAFETY: by the caller.
            return if before.is_null() { unsafe { self.push_front(node) } } else { unsafe { self.push(node) } };
        };
        debug_assert!(!node.linked.get());
        node.linked.set(true);
        node.prev.set(last);
        node.next.set(next);
        last.next.set(node);
        next.prev.set(node);
    }

    /// When the oldest node was taken out for the first time, if there is one.
    pub(crate) fn first_taken_at(&self) -> Option<TakenAt> {
        // SAFETY: nodes in the queue are alive (Q1).
        unsafe { at(self.head.get()) }.map(Node::taken_at)
    }

    /// Asks for the memory of the oldest node.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn fetch_first(&self) {
        // Two, as a node need not begin where a line does.
        prefetch::fetch_lines(self.head.get(), 2);
    }

    /// Takes `node` out, if it is in.
    #[inline]
    pub(crate) fn remove(&self, node: &Node) {
        if !node.linked.replace(false) {
            return;
        }
        let (prev, next) = (node.prev.get(), node.next.get());
        // SAFETY: neighbours are in the queue, so alive (Q1).
        match unsafe { at(prev) } {
            None => self.head.set(next),
            Some(prev) => prev.next.set(next),
        }
        // SAFETY: as above.
        match unsafe { at(next) } {
            None => self.tail.set(prev),
            Some(next) => next.prev.set(prev),
        }
    }

    /// Takes out the oldest node whose wait can be won; it is the caller's to complete (Q3). Lost ones on the way are taken out too.
    #[inline]
    pub(crate) fn claim_first(&self) -> Option<ClaimedNode> {
        loop {
            // SAFETY: as above.
            let first = unsafe { at(self.head.get()) }?;
            self.remove(first);
            if first.claim() {
                // SAFETY: claimed just now.
                return Some(unsafe { ClaimedNode::new(NonNull::from(first)) });
            }
        }
    }

    /// The place of the oldest node, which may have lost its wait already.
    pub(crate) fn first_place(&self) -> Option<*mut ()> {
        // SAFETY: nodes in the queue are alive (Q1).
        unsafe { at(self.head.get()) }.map(Node::place)
    }

    /// Takes the oldest node out; if its wait can be won, gives it its outcome, chains it for waking, and returns true.
    pub(crate) fn claim_front_into(&self, outcome: Outcome, chain: &mut Claimed) -> bool {
        // SAFETY: as above.
        let Some(first) = (unsafe { at(self.head.get()) }) else { return false };
        self.remove(first);
        let won = first.claim();
        if won {
            // SAFETY: claimed just now.
            chain.push(unsafe { ClaimedNode::new(NonNull::from(first)) }, outcome);
        }
        won
    }

    /// Takes out all whose waits can be won, gives each its outcome, and chains them for waking.
    pub(crate) fn claim_all(&self, outcome: Outcome) -> Claimed {
        let mut chain = Claimed::none();
        self.claim_all_into(outcome, &mut chain);
        chain
    }

    /// As [`claim_all_into`](Self::claim_all_into), but `count` at most; whether some may be left.
    pub(crate) fn claim_some(&self, outcome: Outcome, count: usize, chain: &mut Claimed) -> bool {
        for _ in 0..count {
            let Some(node) = self.claim_first() else { return false };
            chain.push(node, outcome);
        }
        true
    }

    /// As [`claim_some`](Self::claim_some), the newest nodes first. In a long queue, whose nodes are far from each other and out of the
    /// caches, this is several times as fast: a node tells which one comes three places later, where its link to the next one alone
    /// would have each wait for the memory of the one before.
    pub(crate) fn claim_some_from_the_end(&self, outcome: Outcome, count: usize, chain: &mut Claimed) -> bool {
        for _ in 0..count {
            // SAFETY: nodes in the queue are alive (Q1).
            let Some(last) = (unsafe { at(self.tail.get()) }) else { return false };
            // Two, as a node need not begin where a line does.
            prefetch::fetch_lines(last.further[1].get(), 2);
            self.remove(last);
            if last.claim() {
                // SAFETY: claimed just now.
                chain.push(unsafe { ClaimedNode::new(NonNull::from(last)) }, outcome);
            }
        }
        true
    }

    /// As [`claim_all`](Self::claim_all), behind those in `chain`.
    pub(crate) fn claim_all_into(&self, outcome: Outcome, chain: &mut Claimed) {
        while let Some(node) = self.claim_first() {
            chain.push(node, outcome);
        }
    }
}

/// The node that a link of a queue leads to; none behind the last one.
///
/// # Safety
///
/// The link is one of a queue whose lock is held: nodes in a queue are alive (Q1).
#[inline]
unsafe fn at<'a>(link: *const Node) -> Option<&'a Node> {
    #[cfg(test)]
    tests::FOLLOWED.set(tests::FOLLOWED.get() + 1);
    // SAFETY: by the caller.
    unsafe { link.as_ref() }
}

/// Nodes that have been completed and wait to be woken, after the lock has been left. Until then they link each other.
#[must_use]
pub(crate) struct Claimed {
    head: *const Node,
    tail: *const Node,
}

impl Claimed {
    /// None yet.
    pub(crate) fn none() -> Self {
        Self { head: ptr::null(), tail: ptr::null() }
    }

    /// Completes a node that has been claimed.
    pub(crate) fn push(&mut self, claimed: ClaimedNode, outcome: Outcome) {
        let node = claimed.node();
        node.outcome.set(outcome);
        node.next.set(ptr::null());
        // The wake begins there.
        prefetch::fetch_lines(node.unit, 1);
        // SAFETY: the chain's nodes are claimed and not woken.
        match unsafe { self.tail.as_ref() } {
            None => self.head = node,
            Some(last) => last.next.set(node),
        }
        self.tail = node;
    }

    /// The unit to wake, if it is one; else itself.
    pub(crate) fn into_only(self) -> Result<&'static Unit, Self> {
        // SAFETY: claimed and not woken, so alive.
        let only = unsafe { self.head.as_ref() }.filter(|_| self.head == self.tail).map(Node::unit);
        only.ok_or(self)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        let (mut count, mut node) = (0, self.head);
        // SAFETY: claimed and not woken, so alive.
        while let Some(waiting) = unsafe { node.as_ref() } {
            (count, node) = (count + 1, waiting.next.get());
        }
        count
    }

    /// Puts another chain behind this one.
    pub(crate) fn append(&mut self, other: Self) {
        // SAFETY: claimed and not woken, so alive.
        match unsafe { self.tail.as_ref() } {
            None => *self = other,
            Some(last) if !other.head.is_null() => {
                last.next.set(other.head);
                self.tail = other.tail;
            }
            Some(_) => {}
        }
    }

    /// Wakes all, one push for each home worker in a row. Called without locks (P6).
    pub(crate) fn wake(mut self) {
        if self.head.is_null() {
            return;
        }
        let mut batch = crate::runtime::park::WakeBatch::new();
        // SAFETY: claimed and not woken, so alive; what is needed is read before the wake (P3).
        while let Some(node) = unsafe { self.head.as_ref() } {
            self.head = node.next.get();
            let unit = node.unit;
            batch.push(unit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        /// How many links this thread has followed.
        pub(super) static FOLLOWED: Cell<usize> = const { Cell::new(0) };
    }

    /// CQ-05 in steps instead of time: `selects` wait on one channel that they share and on one of their own, and each is woken four
    /// times through its own. How many links that takes to follow.
    #[cfg(not(loom))]
    fn followed_for(selects: usize) -> usize {
        use crate::{Runtime, WaitGroup, select, unbuffered, yield_now};

        /// Primes, so that each select is woken once for each.
        const STRIDES: [usize; 4] = [617, 421, 233, 787];
        let runtime = Runtime::builder().workers(1).build().expect("a runtime");
        runtime.run(|| {
            let (keep, shared) = unbuffered::<()>();
            let group = WaitGroup::new();
            let ends: Vec<_> = (0..selects)
                .map(|_| {
                    let shared = shared.clone();
                    let (tx, rx) = unbuffered();
                    group.go(move || {
                        for _ in STRIDES {
                            select! {
                                recv(shared) -> _ => unreachable!("nobody sends"),
                                recv(rx) -> value => value.unwrap(),
                            }
                        }
                    });
                    tx
                })
                .collect();
            // One worker: all of them wait after that.
            (0..3).for_each(|_| yield_now());
            let before = FOLLOWED.get();
            for stride in STRIDES {
                // Another order than the one in which they have joined the shared queue: neither of its ends is near.
                for i in 0..selects {
                    ends[i * stride % selects].send(()).unwrap();
                }
            }
            group.wait();
            drop(keep);
            FOLLOWED.get() - before
        })
    }

    #[cfg(not(loom))]
    #[test]
    fn cq_05_leaving_a_queue_takes_a_constant_number_of_steps() {
        let (once, twice) = (followed_for(500), followed_for(1_000));
        assert!(twice * 10 <= once * 21, "{once} links for 500 selects, {twice} for 1,000");
    }
}
