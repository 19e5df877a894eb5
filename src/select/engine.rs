//! How a select runs: look at all at one instant, or wait on all and be completed by one.
//!
//! - X1: locks are taken in the order of their addresses, each once, so two selects in any order never deadlock.
//! - X2: all locks are held while looking, so "nothing was ready" is true of one instant (and `default` may rely on it), and nothing
//!   comes between looking and joining the queues.
//! - X3: of several ready arms one is chosen, each with the same chance; the biased kinds take the first. An unbiased select may first look at one arm
//!   alone, each with the same chance: where that is ready it takes it, and no other lock. Of k arms of which r are ready each is taken so with
//!   chance 1/k, and by the look at all, which follows in (k - r) of k cases, with (k - r)/(k r): together 1/r.
//! - X4: waiting uses one ticket for all nodes, so exactly one partner, or the clock, completes it.
//! - X5: afterwards every node is taken out of its queue, in constant time each; no trace is left.
//! - X6: a select looks before it joins queues, so it never finds its own nodes.

use std::{
    cell::Cell,
    mem::{self, MaybeUninit},
    time::Instant,
};

use super::operation::{Attempt, Enqueue, Operation};
use crate::{
    chan::{core::Ended, two_step::Grant},
    runtime::{
        park::{self, Parked, Wake},
        present,
        unit::{Ticket, Unit},
        wait::Reason,
        waitq::{ClaimedNode, Node, Outcome, TakenAt},
    },
    util::lock::{Raw, RawBiased},
};

/// One operation of a select, and where its value is.
#[allow(missing_debug_implementations, reason = "reached by macro code only")]
pub struct Arm<'a> {
    operation: &'a dyn Operation,
    /// None: nothing ever happens on this arm.
    lock: Option<&'a RawBiased>,
    place: *mut (),
    node: MaybeUninit<Node>,
    state: State,
}

/// How an arm stands after the select.
#[derive(Debug)]
pub(crate) enum State {
    /// Another one was chosen.
    Passed,
    /// The value has been moved, in or out of the place.
    Done,
    Closed,
    /// A two-step send may go on.
    Granted(Grant),
    /// A two-step receive has its value, or waits for it as if it had been taken then.
    Taken(TakenAt),
    /// A two-step receive may go on with this sender.
    Held(ClaimedNode),
}

impl<'a> Arm<'a> {
    /// # Safety
    ///
    /// `place` is what [`Operation`] asks for, and stays valid while the select runs.
    #[inline]
    pub(crate) unsafe fn new(operation: &'a dyn Operation, place: *mut ()) -> Self {
        Self { operation, lock: operation.raw(), place, node: MaybeUninit::uninit(), state: State::Passed }
    }

    /// The select of this arm alone that does not wait: no order of locks, and no choice. Whether the operation was completed.
    #[inline]
    pub(crate) fn attempt_alone(&mut self) -> bool {
        // SAFETY: the place is the arm's, and its owner is told when the value was moved.
        self.state = match unsafe { self.operation.attempt_alone(self.place) } {
            Ended::Done => State::Done,
            Ended::Closed => State::Closed,
            Ended::WouldBlock | Ended::TimedOut => return false,
        };
        true
    }

    /// How the arm stands; afterwards it counts as passed over.
    #[inline]
    pub(crate) fn take_state(&mut self) -> State {
        mem::replace(&mut self.state, State::Passed)
    }

    pub(crate) fn operation(&self) -> &'a dyn Operation {
        self.operation
    }

    pub(crate) fn place(&self) -> *mut () {
        self.place
    }

    /// By which locks are ordered; zero without one.
    #[inline]
    fn address(&self) -> usize {
        self.lock.map_or(0, RawBiased::address)
    }
}

/// Who could complete the select whose wait has named `list`.
///
/// # Safety
///
/// The caller is on the thread of the goroutine that waits, which does not go on meanwhile: so the list is in its frame.
#[cfg(not(loom))]
pub(crate) unsafe fn counterparts(list: usize) -> Vec<super::operation::Counterpart> {
    // `Wait` exposes the address.
    let list = std::ptr::with_exposed_provenance::<&[Arm<'_>]>(list);
    // SAFETY: by the caller; the arms are lent to the frame for longer than it waits.
    unsafe { *list }.iter().map(|arm| arm.operation.counterpart()).collect()
}

/// What a select does when nothing is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// It says so at once.
    Return,
    /// It waits, until a deadline if there is one.
    Wait(Option<Instant>),
}

/// What a select is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To complete one operation.
    Complete,
    /// To do the first step of one that is completed in a second.
    Choose,
    /// To say which is ready.
    Tell,
}

/// The most arms of one select.
pub(crate) const MOST_ARMS: usize = 65_536;

/// Arms for which no memory is allocated.
const INLINE: usize = 8;

/// Runs a select over `arms`; the index of the one that was chosen, if one was.
pub(crate) fn run(arms: &mut [Arm<'_>], biased: bool, otherwise: Otherwise, purpose: Purpose) -> Option<usize> {
    assert!(arms.len() <= MOST_ARMS, "a select of {} operations; {MOST_ARMS} are the most", arms.len());
    let mut how = if purpose == Purpose::Tell { Enqueue::Watch } else { Enqueue::Last };
    if !biased && arms.len() > 1 && Guesses::wants_one() {
        let index = random(arms.len() as u32);
        let looked = Select { order: &[index], duplicates: false, biased, purpose }.look_at_one(arms, index as usize);
        Guesses::came_to(looked.is_some());
        match looked {
            Some(Looked::Chosen(index)) => return Some(index),
            Some(Looked::Again) => how = Enqueue::First,
            None => {}
        }
    }
    let mut inline = [0_u32; INLINE];
    let mut heap;
    let order: &mut [u32] = if arms.len() <= INLINE {
        &mut inline[..arms.len()]
    } else {
        heap = vec![0; arms.len()];
        &mut heap
    };
    for (i, place) in order.iter_mut().enumerate() {
        *place = i as u32;
    }
    order.sort_unstable_by_key(|&i| arms[i as usize].address());
    let address = |i: u32| arms[i as usize].address();
    let duplicates = order.windows(2).any(|pair| address(pair[0]) == address(pair[1]));
    let select = Select { order, duplicates, biased, purpose };
    loop {
        select.lock(arms);
        if let Some(chosen) = select.look(arms) {
            // The locks are left in there.
            match chosen {
                Looked::Chosen(index) => return Some(index),
                Looked::Again => {
                    how = Enqueue::First;
                    continue;
                }
            }
        }
        let deadline = match otherwise {
            Otherwise::Return => {
                select.unlock(arms);
                return None;
            }
            Otherwise::Wait(deadline) => deadline,
        };
        if deadline.is_some_and(|deadline| deadline <= present::now()) {
            select.unlock(arms);
            return None;
        }
        if let Some(index) = select.wait(arms, deadline, how) {
            return Some(index);
        }
    }
}

struct Select<'o> {
    /// Indices of the arms in the order of their locks.
    order: &'o [u32],
    /// Several arms share a channel.
    duplicates: bool,
    biased: bool,
    purpose: Purpose,
}

enum Looked {
    Chosen(usize),
    /// A two-step partner has given up: look again.
    Again,
}

impl Select<'_> {
    /// An arm for each lock, in order: the first of those that share it stands for all.
    #[inline]
    fn each_lock<'a>(&self, arms: &[Arm<'a>], mut each: impl FnMut(&'a RawBiased, &'a dyn Operation)) {
        let mut last = 0;
        for &index in self.order {
            let arm = &arms[index as usize];
            let Some(lock) = arm.lock else { continue };
            if lock.address() != last {
                last = lock.address();
                each(lock, arm.operation);
            }
        }
    }

    #[inline]
    fn lock(&self, arms: &[Arm<'_>]) {
        self.each_lock(arms, |lock, _| lock.lock());
    }

    #[inline]
    fn unlock(&self, arms: &[Arm<'_>]) {
        // SAFETY: `lock` took them.
        self.each_lock(arms, |lock, _| unsafe { lock.unlock() });
    }

    /// Takes the lock of the arm at `index`, which is the select's whole order, and completes the arm if it is ready (X3).
    fn look_at_one(&self, arms: &mut [Arm<'_>], index: usize) -> Option<Looked> {
        arms[index].lock?;
        self.lock(arms);
        // SAFETY: locked.
        let ready = unsafe { arms[index].operation.is_ready() };
        let looked = if ready { self.take(arms, index) } else { None };
        if looked.is_none() {
            self.unlock(arms);
        }
        looked
    }

    /// Under all locks: chooses and completes an arm, and leaves the locks; or finds none, and keeps them.
    fn look(&self, arms: &mut [Arm<'_>]) -> Option<Looked> {
        loop {
            let index = self.choose(arms)?;
            // What looked ready may have been lost to another channel, and has been cleared away then: look at the rest.
            if let Some(looked) = self.take(arms, index) {
                return Some(looked);
            }
        }
    }

    /// Under all locks: completes an arm that is ready, and leaves the locks. None: it was lost to another channel.
    fn take(&self, arms: &mut [Arm<'_>], index: usize) -> Option<Looked> {
        if self.purpose == Purpose::Tell {
            self.unlock(arms);
            return Some(Looked::Chosen(index));
        }
        let (operation, place) = (arms[index].operation, arms[index].place);
        let attempt = if self.purpose == Purpose::Choose {
            // SAFETY: locked; the place is the arm's.
            unsafe { operation.choose(place) }
        } else {
            // SAFETY: as above.
            unsafe { operation.attempt(place) }
        };
        let partner = match attempt {
            Attempt::Done(partner) => {
                arms[index].state = State::Done;
                partner
            }
            Attempt::Taken(partner, taken_at) => {
                arms[index].state = State::Taken(taken_at);
                partner
            }
            Attempt::Held(sender) => {
                arms[index].state = State::Held(sender);
                None
            }
            Attempt::Closed => {
                arms[index].state = State::Closed;
                None
            }
            Attempt::Granted(grant) => {
                arms[index].state = State::Granted(grant);
                None
            }
            Attempt::Promise(sender) => return Some(self.await_value(arms, index, sender)),
            Attempt::WouldBlock => return None,
        };
        // SAFETY: locked.
        let watchers = unsafe { operation.take_watchers() };
        self.unlock(arms);
        if let Some(watchers) = watchers {
            watchers.wake();
        }
        if let Some(partner) = partner {
            partner.wake(Wake::Handoff);
        }
        Some(Looked::Chosen(index))
    }

    /// X3: one of the ready arms.
    fn choose(&self, arms: &[Arm<'_>]) -> Option<usize> {
        let mut chosen = None;
        let mut ready = 0;
        for (index, arm) in arms.iter().enumerate() {
            // SAFETY: locked.
            if arm.lock.is_none() || !unsafe { arm.operation.is_ready() } {
                continue;
            }
            if self.biased {
                return Some(index);
            }
            // The n-th ready one takes the place of what was chosen with chance 1/n: all end up equally likely.
            ready += 1;
            if ready == 1 || random(ready) == 0 {
                chosen = Some(index);
            }
        }
        chosen
    }

    /// The caller, who is about to wait. The locks, which are held, are left where this panics: nothing unwinds them.
    fn unit(&self, arms: &[Arm<'_>]) -> &'static Unit {
        if park::forked() {
            self.unlock(arms);
        }
        park::current()
    }

    /// C5 of `chan::two_step`: the chosen partner will bring its value later.
    #[cold]
    fn await_value(&self, arms: &mut [Arm<'_>], index: usize, sender: ClaimedNode) -> Looked {
        let unit = self.unit(arms);
        // SAFETY: locked.
        let done = self.done(unsafe { arms[index].operation.taken_at() });
        let node = Node::new(unit, None, arms[index].place);
        node.set_outcome(Outcome::Again);
        sender.set_place((&raw const node).cast_mut().cast());
        let partner = sender.complete(Outcome::Done);
        self.unlock(arms);
        partner.wake(Wake::Handoff);
        unit.park(Reason::Select.alone());
        match node.outcome() {
            Outcome::Done => {
                arms[index].state = done;
                Looked::Chosen(index)
            }
            Outcome::Closed => {
                arms[index].state = State::Closed;
                Looked::Chosen(index)
            }
            Outcome::Waiting | Outcome::Again => Looked::Again,
        }
    }

    /// How an arm stands that has its value.
    fn done(&self, taken_at: TakenAt) -> State {
        if self.purpose == Purpose::Choose { State::Taken(taken_at) } else { State::Done }
    }

    /// Under all locks, which it leaves: waits on all arms. None: nothing was completed, look again.
    fn wait(&self, arms: &mut [Arm<'_>], deadline: Option<Instant>, how: Enqueue) -> Option<usize> {
        let unit = self.unit(arms);
        let ticket = unit.arm();
        // SAFETY: the nodes stay in the arms, which are lent to this frame, until they are withdrawn below.
        let limit = unsafe { self.join_queues(arms, unit, ticket, deadline, how) };
        // Who watches is told that somebody waits now.
        if self.purpose != Purpose::Tell {
            self.unlock_telling(arms);
        } else {
            self.unlock(arms);
        }
        let parked = Self::park(arms, unit, ticket, limit);
        // SAFETY: joined above, and the wait is over.
        unsafe { self.withdraw(arms, parked, how) }
    }

    /// Under all locks: joins all queues with one ticket (X4). When the wait ends at the latest: at `deadline`, or when the clock completes an arm.
    ///
    /// # Safety
    ///
    /// The arms stay where they are until [`withdraw`](Self::withdraw) has taken their nodes out.
    #[inline]
    unsafe fn join_queues(
        &self,
        arms: &mut [Arm<'_>],
        unit: &'static Unit,
        ticket: Ticket,
        deadline: Option<Instant>,
        how: Enqueue,
    ) -> Option<Instant> {
        let mut limit = deadline;
        let shuffled = if self.duplicates && !self.biased { Some(self.shuffled()) } else { None };
        for i in 0..arms.len() {
            // X3 for arms that share a channel: whose node is the first in its queue is left to chance.
            let arm = &mut arms[shuffled.as_ref().map_or(i, |order| order[i] as usize)];
            let node = arm.node.write(Node::new(unit, Some(ticket), arm.place));
            if arm.lock.is_none() {
                continue;
            }
            // SAFETY: locked.
            if let Some(due) = unsafe { arm.operation.deadline() } {
                limit = Some(limit.map_or(due, |limit| limit.min(due)));
            }
            if self.purpose == Purpose::Choose {
                // Before the wait: its place among values that are given back (C8 of `chan::two_step`) counts from now, when the channel is locked. Who
                // completes it does not say when that was. `withdraw` looks at this only in an arm that receives and has its value.
                // SAFETY: locked.
                arm.state = State::Taken(unsafe { arm.operation.taken_at() });
            }
            // SAFETY: locked; the node stays where it is until it is withdrawn, by the caller.
            unsafe { arm.operation.enqueue(node, how) };
        }
        limit
    }

    /// Waits until a partner or the clock completes the ticket.
    #[inline]
    fn park(arms: &[Arm<'_>], unit: &'static Unit, ticket: Ticket, limit: Option<Instant>) -> Parked {
        let reason = if arms.iter().all(|arm| arm.lock.is_none()) { Reason::Forever } else { Reason::Select };
        // In this frame, for `counterparts`.
        let list: &[Arm<'_>] = arms;
        let wait = if reason == Reason::Select { reason.on(&list) } else { reason.alone() };
        unit.park_until(ticket, limit, wait)
    }

    /// X5: takes all nodes out, and finds the arm that was completed.
    ///
    /// # Safety
    ///
    /// [`join_queues`](Self::join_queues) has written the nodes, and the wait has ended, by `parked`.
    #[inline]
    unsafe fn withdraw(&self, arms: &mut [Arm<'_>], parked: Parked, how: Enqueue) -> Option<usize> {
        let mut chosen = None;
        for (index, arm) in arms.iter_mut().enumerate() {
            // SAFETY: written, by the caller.
            let node = unsafe { arm.node.assume_init_ref() };
            // Only who wins the ticket writes an outcome, and has taken that node out (Q2, Q3); the others are taken out here.
            if let Some(lock) = arm.lock
                && (parked == Parked::TimedOut || node.outcome() == Outcome::Waiting)
            {
                lock.lock();
                // SAFETY: locked.
                unsafe { arm.operation.withdraw(node, how) };
                // SAFETY: locked above.
                unsafe { lock.unlock() };
            }
            if parked == Parked::TimedOut {
                continue;
            }
            arm.state = match node.outcome() {
                Outcome::Waiting | Outcome::Again => continue,
                Outcome::Closed => State::Closed,
                Outcome::Done if self.purpose == Purpose::Choose => match arm.state {
                    State::Taken(taken_at) if !arm.operation.sends() => State::Taken(taken_at),
                    // SAFETY: a two-step sender that was completed with `Done`. Here alone its place is asked for.
                    _ => State::Granted(unsafe { Grant::from_place(node.place()) }),
                },
                Outcome::Done => State::Done,
            };
            chosen = Some(index);
        }
        chosen
    }

    #[cold]
    fn shuffled(&self) -> Vec<u32> {
        let mut order = self.order.to_vec();
        // Fisher and Yates.
        for i in (1..order.len()).rev() {
            order.swap(i, random(i as u32 + 1) as usize);
        }
        order
    }

    fn unlock_telling(&self, arms: &[Arm<'_>]) {
        let mut told = None;
        self.each_lock(arms, |_, operation| {
            // SAFETY: locked.
            if let Some(watchers) = unsafe { operation.take_watchers() } {
                match &mut told {
                    None => told = Some(watchers),
                    Some(chain) => chain.append(watchers),
                }
            }
        });
        self.unlock(arms);
        if let Some(watchers) = told {
            watchers.wake();
        }
    }
}

/// What has come of looking at one arm first (X3), of the selects of this thread. Where it seldom pays it is done now and then only.
struct Guesses {
    credit: Cell<u8>,
    skipped: Cell<u8>,
}

impl Guesses {
    const MOST_CREDIT: u8 = 8;
    /// Without credit one in so many selects does.
    const PROBE: u8 = 16;

    #[inline]
    fn with<R>(f: impl FnOnce(&Self) -> R) -> R {
        thread_local! {
            static GUESSES: Guesses = const { Guesses { credit: Cell::new(Guesses::MOST_CREDIT), skipped: Cell::new(0) } };
        }
        GUESSES.with(f)
    }

    /// A model says itself.
    #[cfg(loom)]
    fn wants_one() -> bool {
        loom_guess::WANTED.get()
    }

    #[cfg(not(loom))]
    #[inline]
    fn wants_one() -> bool {
        Self::with(|guesses| {
            if guesses.credit.get() > 0 {
                return true;
            }
            guesses.skipped.set((guesses.skipped.get() + 1) % Self::PROBE);
            guesses.skipped.get() == 0
        })
    }

    #[inline]
    fn came_to(paid: bool) {
        Self::with(|guesses| {
            let credit = guesses.credit.get();
            guesses.credit.set(if paid { (credit + 1).min(Self::MOST_CREDIT) } else { credit.saturating_sub(1) });
        });
    }
}

/// Whether the selects of a model look at one arm first: at the first one.
#[cfg(loom)]
pub(crate) mod loom_guess {
    use std::cell::Cell;

    thread_local! {
        /// All threads of a model are one of the system's.
        pub(crate) static WANTED: Cell<bool> = const { Cell::new(false) };
    }
}

/// A number below `below`, good enough to be fair with.
fn random(below: u32) -> u32 {
    #[cfg(not(loom))]
    {
        thread_local! {
            static SEED: Cell<u64> = const { Cell::new(0) };
        }
        let mut seed = SEED.get();
        if seed == 0 {
            seed = (std::ptr::from_ref(&seed).addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        }
        // Marsaglia's xorshift, then the upper bits scaled down.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        SEED.set(seed);
        (((seed >> 32) * u64::from(below)) >> 32) as u32
    }
    #[cfg(loom)]
    {
        let _ = (below, Cell::new(0));
        0
    }
}
