//! The word of a task: how many refer to it, whether it has ended, and who waits for that.
//!
//! | bit | set | when |
//! |---|---|---|
//! | `DONE` | by the runner, in the step that gives up its reference | the task has ended; the stage is for the handle (J2) |
//! | `JOINER` | by a handle that waits; by the runner, for a guest whose wait it has claimed | `joiner` is woken by the step that sets `DONE` |
//! | `GUEST` | by a handle that waits and may give up | `joiner` waits, with a ticket. Never beside `JOINER` |
//! | `DETACHED` | by a handle that gives up the right to join | nobody takes the result any more (J2) |
//! | the rest | | how many references there are, in units of `REFERENCE` |
//!
//! J1 and J2 are those of [`task`](super::task).
//!
//! - J3: count, DONE and JOINER are one word, so the end of a goroutine is one step: it sets DONE, gives up the runner's reference, and
//!   tells whether somebody waits. The joiner writes its unit before it sets JOINER, and holds a reference until it has been woken. There
//!   is at most one joiner, since `join` takes the handle; the step that finds JOINER is the claim (U3).
//! - J8: a *guest* is a joiner that may give up, by a time limit or a context. It waits with a ticket, and sets GUEST in place of JOINER. Two may
//!   take GUEST out of the word:
//!   - the guest, when it gives up; then the runner never hears of it;
//!   - the runner, before it sets DONE. It claims the wait that the guest's unit has open and, with the claim, sets JOINER: from there on it is as
//!     in J3. If no wait is open the guest is giving up at this moment, and finds GUEST gone. If it finds no DONE either, it waits for the end, which
//!     is a few steps away, as JOINER.
//!
//!   The runner knows no ticket. It claims the wait for this task or none, since a guest opens no other wait with a ticket before it has taken GUEST
//!   out itself or has found DONE. No code of the user's runs on the guest meanwhile but a subscriber of `tracing`, and that waits as the thread
//!   (N2 of `spans`).

use std::ptr;

use crate::{
    facade::{
        AtomicPtr, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
        fence,
    },
    runtime::{
        park,
        unit::Unit,
        until::{self, Until},
        wait::Wait,
    },
};

const DONE: usize = 1;
const JOINER: usize = 2;
const DETACHED: usize = 4;
const GUEST: usize = 8;
const REFERENCE: usize = 16;
/// A state beyond this one has more references than anything but a leak makes, and would overflow.
const MOST: usize = isize::MAX as usize;

#[derive(Debug)]
pub(crate) struct JoinState {
    state: AtomicUsize,
    /// Who waits for the end, when JOINER or GUEST is set.
    joiner: AtomicPtr<Unit>,
}

/// The word as the runner has found it: no guest is in it.
#[derive(Clone, Copy)]
pub(crate) struct Seen(usize);

impl Seen {
    /// Whether no handle is left that may join (J2).
    #[inline]
    pub(crate) fn is_alone(self) -> bool {
        self.0 / REFERENCE == 1 || self.0 & DETACHED != 0
    }
}

/// Whether the runner has ended its task.
#[must_use]
pub(crate) enum Step {
    /// It has, and nobody waits.
    Done,
    /// It has, and is to wake this one.
    Wake(&'static Unit),
    /// A handle came or went, or somebody has begun to wait: it has to look again.
    Again,
}

impl JoinState {
    /// Of a task with two references: the runner's, and the handle's.
    #[inline]
    pub(crate) fn new() -> Self {
        Self { state: AtomicUsize::new(2 * REFERENCE), joiner: AtomicPtr::new(ptr::null_mut()) }
    }

    // ---- references ------------------------------------------------------------------------------------------------------

    /// Counts one reference more, for a handle.
    pub(crate) fn count_one(&self) {
        // ORDERING: Relaxed. A new reference is made from one that exists.
        if self.state.fetch_add(REFERENCE, Relaxed) > MOST {
            std::process::abort();
        }
    }

    /// Gives up a reference. On true it was the last: the caller frees the task, which otherwise may be gone already.
    #[inline]
    #[must_use]
    pub(crate) fn release(&self) -> bool {
        // ORDERING: Release. What this reference's holder did comes before the freeing; pairs with the fence below.
        if self.state.fetch_sub(REFERENCE, Release) / REFERENCE != 1 {
            return false;
        }
        // ORDERING: Acquire. Takes over what all other holders did.
        fence(Acquire);
        true
    }

    /// How many references there are. What those that are gone have done is seen.
    pub(crate) fn references(&self) -> usize {
        // ORDERING: Acquire. Pairs with the Release of the handles that are gone.
        self.state.load(Acquire) / REFERENCE
    }

    /// As if there were as many as can be counted.
    #[cfg(all(test, not(loom)))]
    pub(super) fn count_most(&self) {
        self.state.fetch_add(1 << (usize::BITS - 1), Relaxed);
    }

    // ---- the runner ------------------------------------------------------------------------------------------------------

    /// The word, without a guest: one that is there is taken out, and is the joiner if it still waits (J8).
    #[inline]
    pub(crate) fn look(&self) -> Seen {
        loop {
            // ORDERING: Acquire. Pairs with the Release of the last handle's drop.
            let now = self.state.load(Acquire);
            if now & GUEST == 0 {
                return Seen(now);
            }
            self.claim_guest(now);
        }
    }

    /// J8: takes the guest, whom `now` has shown, out of the word, and makes it the joiner by claiming its wait. Does nothing when the word has
    /// changed.
    #[cold]
    fn claim_guest(&self, now: usize) {
        // ORDERING: Acquire. Pairs with the Release of the guest's registration: its unit, whose ticket was armed before.
        if self.state.compare_exchange(now, now & !GUEST, Acquire, Relaxed).is_err() {
            return;
        }
        // SAFETY: a guest was there.
        if unsafe { self.joiner() }.try_claim_open() {
            // ORDERING: Relaxed. For `publish`, on this thread.
            self.state.fetch_or(JOINER, Relaxed);
        }
    }

    /// The unit that was registered last.
    ///
    /// # Safety
    ///
    /// The word has shown a joiner or a guest, by an Acquire.
    #[inline]
    unsafe fn joiner(&self) -> &'static Unit {
        // ORDERING: Relaxed. Published by the joiner's Release.
        let joiner = self.joiner.load(Relaxed);
        // SAFETY: by the caller it was registered: the joiner's own unit, which is type-stable (U2).
        unsafe { &*joiner }
    }

    /// Sets DONE and gives up the runner's reference, when the word is as it was `seen`. After that the task is there only if somebody is to be
    /// woken, and until then.
    #[inline]
    pub(crate) fn publish(&self, seen: Seen) -> Step {
        let Seen(now) = seen;
        // ORDERING: AcqRel. Release publishes the result to the joiner; Acquire pairs with the joiner's registration. DONE was not set.
        if self.state.compare_exchange(now, now - REFERENCE + DONE, AcqRel, Relaxed).is_err() {
            return Step::Again;
        }
        if now & JOINER == 0 {
            return Step::Done;
        }
        // SAFETY: it waits for our wake and has a reference until then (J3), so the task is still there.
        Step::Wake(unsafe { self.joiner() })
    }

    /// As [`publish`](Self::publish), when nobody can join and the stage is empty. On true the runner's was the last reference, as for
    /// [`release`](Self::release).
    #[inline]
    #[must_use]
    pub(crate) fn leave(&self) -> bool {
        // ORDERING: AcqRel. As in `publish`, for handles that are left, or that the result's `Drop` has made; they find an empty stage. Most
        // often there are none, and then nobody can make one.
        self.references() == 1 || self.state.fetch_sub(REFERENCE - DONE, AcqRel) / REFERENCE == 1
    }

    // ---- the handle ------------------------------------------------------------------------------------------------------

    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        // ORDERING: Acquire. Pairs with the AcqRel in `publish`.
        self.state.load(Acquire) & DONE != 0
    }

    /// Waits until DONE is set. Called by the one holder of the right to join (J3).
    #[inline]
    pub(crate) fn wait(&self, wait: Wait) {
        if self.is_done() {
            return park::spend();
        }
        let unit = park::current();
        // ORDERING: Relaxed. Published by the Release below.
        self.joiner.store(ptr::from_ref(unit).cast_mut(), Relaxed);
        // ORDERING: Release publishes the unit; Acquire takes over the result when the end came first.
        if self.state.fetch_or(JOINER, AcqRel) & DONE == 0 {
            unit.park(wait);
            // ORDERING: Acquire. Takes over the result published before the wake.
            fence(Acquire);
        }
    }

    /// As [`wait`](Self::wait), but false when `until` comes first (J8). Unless it waits, it spends nothing of the slice. `bounded` is how the wait is
    /// seen that `until` may end, `wait` the one that only the end does.
    pub(crate) fn wait_until(&self, until: Until<'_>, bounded: Wait, wait: Wait) -> bool {
        if self.is_done() {
            return true;
        }
        let unit = park::current();
        let Some(ticket) = until.arm(unit) else {
            self.wait(wait);
            return true;
        };
        // ORDERING: Relaxed. Published by the Release below.
        self.joiner.store(ptr::from_ref(unit).cast_mut(), Relaxed);
        // ORDERING: AcqRel, as in `wait`; the Release publishes the ticket too.
        if self.state.fetch_or(GUEST, AcqRel) & DONE != 0 {
            until::disarm(unit, Some(ticket));
            return true;
        }
        let _ = until.park_unit(unit, ticket, bounded);
        // ORDERING: Acquire takes over the result when the runner took GUEST out and has set DONE. Nothing is published.
        let before = self.state.fetch_and(!GUEST, Acquire);
        if before & (DONE | GUEST) == 0 {
            // Taken out, and not woken by that.
            self.wait(wait);
        }
        before & GUEST == 0
    }

    /// Gives up the right to join. On true the task has ended, and the stage is the caller's to clear (J2).
    #[must_use]
    pub(crate) fn detach(&self) -> bool {
        // ORDERING: Acquire takes over the result when the end came first; Release, what was done with the handle.
        self.state.fetch_or(DETACHED, AcqRel) & DONE != 0
    }
}

/// A runner against whoever has the handle: the text above, with a task that is only its word and its result. A lost wake is a deadlock, and a
/// result that is read without having been published a race, both of which loom reports.
#[cfg(all(test, loom))]
mod loom_end {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::*;
    use crate::runtime::{
        park::Wake,
        until::model::{Cancel, now, waits_for_nobody},
        wait::{Reason, Wait},
    };

    const WAIT: Wait = Wait { reason: Reason::Join, object: 0 };

    struct Task {
        join_state: JoinState,
        /// Whether the result is there.
        stage: UnsafeCell<bool>,
        /// How often it was taken or dropped, and whether the task was freed.
        gone: UnsafeCell<(u32, bool)>,
    }

    // SAFETY: the cells are used by the rules that the models check; loom sees a race.
    unsafe impl Send for Task {}
    // SAFETY: as above.
    unsafe impl Sync for Task {}

    impl Task {
        fn new() -> (Arc<Self>, Handle) {
            let cells = (UnsafeCell::new(false), UnsafeCell::new((0, false)));
            let task = Arc::new(Self { join_state: JoinState::new(), stage: cells.0, gone: cells.1 });
            (task.clone(), Handle(task))
        }

        /// As a task is run, with `finish`.
        fn run(&self) {
            // SAFETY: the stage is the runner's (J2).
            self.stage.with_mut(|stage| unsafe { *stage = true });
            loop {
                let seen = self.join_state.look();
                if seen.is_alone() {
                    self.clear();
                    if self.join_state.leave() {
                        self.free();
                    }
                    return;
                }
                match self.join_state.publish(seen) {
                    Step::Done => return,
                    Step::Wake(joiner) => return joiner.wake(Wake::Handoff),
                    Step::Again => {}
                }
            }
        }

        /// Takes or drops the result, if it is there. True if it was.
        fn clear(&self) -> bool {
            // SAFETY: the stage is the caller's (J2).
            let was = self.stage.with_mut(|stage| unsafe { std::mem::take(&mut *stage) });
            if was {
                // SAFETY: as above.
                self.gone.with_mut(|gone| unsafe { (*gone).0 += 1 });
            }
            was
        }

        fn free(&self) {
            self.clear();
            self.gone.with_mut(|gone| {
                // SAFETY: nobody else has a reference.
                let gone = unsafe { &mut *gone };
                assert!(!std::mem::replace(&mut gone.1, true), "freed twice");
            });
        }

        /// Called when all is over.
        fn check(&self) {
            // SAFETY: nobody else is there.
            assert_eq!(
                self.gone.with(|gone| unsafe { *gone }),
                (1, true),
                "one result, which went once, and a task that was freed"
            );
        }
    }

    /// The right to join, with its reference.
    struct Handle(Arc<Task>);

    impl Handle {
        fn join(self) {
            self.0.join_state.wait(WAIT);
            assert!(self.0.clear(), "a result is seen once");
        }

        fn join_until(self, until: Until<'_>) -> Result<(), Self> {
            let ended = self.0.join_state.wait_until(until, WAIT, WAIT);
            assert!(!ended || self.0.clear(), "a result is seen once, by whoever was told that it is there");
            waits_for_nobody();
            if ended { Ok(()) } else { Err(self) }
        }

        /// As `Goroutine::detach`, by a handle whose result may borrow.
        fn detach(self) {
            if self.0.join_state.detach() {
                self.0.clear();
            }
        }
    }

    impl Drop for Handle {
        fn drop(&mut self) {
            if self.0.join_state.release() {
                self.0.free();
            }
        }
    }

    fn run(task: &Arc<Task>) -> thread::JoinHandle<()> {
        let task = task.clone();
        thread::spawn(move || task.run())
    }

    #[test]
    fn a_join_waits_for_the_end() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let runner = run(&task);
            handle.join();
            runner.join().unwrap();
            task.check();
        });
    }

    /// J8: gives up, or not, twice, and then waits.
    #[test]
    fn an_end_and_a_time_limit_agree() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let runner = run(&task);
            if let Err(handle) = handle.join_until(now()).or_else(|handle| handle.join_until(now())) {
                handle.join();
            }
            runner.join().unwrap();
            task.check();
        });
    }

    /// J8, with somebody else who claims the guest's wait and wakes.
    #[test]
    fn an_end_and_an_interrupt_agree() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let cancel = Cancel::new();
            let runner = run(&task);
            let canceller = thread::spawn({
                let cancel = cancel.clone();
                move || cancel.cancel()
            });
            if let Err(handle) = handle.join_until(Until::interrupt(&*cancel)) {
                assert!(cancel.has_come(), "nothing else ends it");
                handle.join();
            }
            canceller.join().unwrap();
            runner.join().unwrap();
            task.check();
        });
    }

    /// An interrupt that never comes: only the runner can end the wait.
    #[test]
    fn an_end_wakes_a_guest() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let runner = run(&task);
            let cancel = Cancel::new();
            assert!(handle.join_until(Until::interrupt(&*cancel)).is_ok());
            runner.join().unwrap();
            task.check();
        });
    }

    /// A handle that came back goes to somebody else: the word may be what it was when the runner saw the first guest, whose next wait is not
    /// the runner's to end.
    #[test]
    fn a_join_that_gave_up_goes_on_elsewhere() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let runner = run(&task);
            if let Err(handle) = handle.join_until(now()) {
                let other = thread::spawn(move || {
                    if let Err(handle) = handle.join_until(now()) {
                        handle.join();
                    }
                });
                waits_for_nobody();
                other.join().unwrap();
            }
            runner.join().unwrap();
            task.check();
        });
    }

    /// H3: the right comes back with the handle, and with that the result is the handle's, the runner's or the last reference's.
    #[test]
    fn a_join_that_gave_up_may_be_dropped_or_detached() {
        for detach in [false, true] {
            loom::model(move || {
                let (task, handle) = Task::new();
                let runner = run(&task);
                task.join_state.count_one();
                let other = Handle(task.clone());
                let dropper = thread::spawn(move || drop(other));
                match handle.join_until(now()) {
                    Err(handle) if detach => handle.detach(),
                    result => drop(result),
                }
                dropper.join().unwrap();
                runner.join().unwrap();
                task.check();
            });
        }
    }

    /// A runner that takes the guest out and claims nothing leaves it asleep, which must be caught.
    #[test]
    #[should_panic]
    fn a_guest_that_is_not_claimed_is_caught() {
        loom::model(|| {
            // Leaked, since loom's objects cannot be dropped while a failure unwinds.
            let (task, handle) = Task::new();
            let task: &'static Arc<Task> = Box::leak(Box::new(task));
            let cancel: &'static Arc<Cancel> = Box::leak(Box::new(Cancel::new()));
            let runner = thread::spawn(move || {
                task.join_state.state.fetch_and(!GUEST, AcqRel);
                task.run();
            });
            assert!(handle.join_until(Until::interrupt(&**cancel)).is_ok());
            runner.join().unwrap();
        });
    }

    /// A guest that gives up and leaves GUEST behind has its next wait ended by the runner, which must be caught.
    #[test]
    #[should_panic]
    fn a_guest_that_stays_in_the_word_is_caught() {
        loom::model(|| {
            let (task, handle) = Task::new();
            let task: &'static Arc<Task> = Box::leak(Box::new(task));
            let handle = std::mem::ManuallyDrop::new(handle);
            let runner = thread::spawn(move || task.run());
            let unit = park::current();
            let ticket = unit.arm();
            handle.0.join_state.joiner.store(ptr::from_ref(unit).cast_mut(), Relaxed);
            handle.0.join_state.state.fetch_or(GUEST, AcqRel);
            if unit.try_claim(ticket) {
                waits_for_nobody();
            }
            runner.join().unwrap();
        });
    }
}
