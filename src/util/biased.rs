//! A lock that leans towards one thread: who alone has used it so far takes it without an atomic exchange, and a fence is paid by the
//! first other one that comes.
//!
//! Goroutines never change their thread, so most channels are used by one worker for their whole life, and an uncontended exchange is
//! most of what a message then costs (7 to 8 ns on the machine of RESULTS.md). Kawachiya, Koseki and Onodera described the idea
//! for Java's monitors (OOPSLA 2002); the fence without cost on the owner's side is Linux's `membarrier`.
//!
//! # Words
//!
//! `owner` is NONE, the token of the thread that the lock leans to, or LEAVING. `inside` says that the owner holds the lock; `held` that
//! somebody holds it in the ordinary way.
//!
//! # Invariants
//!
//! - A1: `owner` goes NONE → token → LEAVING → NONE, once. The first step is made by a holder as it lets go, the others by whoever comes
//!   from another thread. So one thread at most ever writes `inside`, and its late writes disturb nobody.
//! - A2: while somebody holds the lock in the ordinary way, `owner` is NONE: it is looked at again after `held` was taken, and only a
//!   holder changes it from NONE. While the owner holds it, `owner` is its token or LEAVING. So letting go can tell by `owner` how the
//!   lock is held.
//! - A3: the owner writes `inside`, then looks at `owner` again. The leaver writes LEAVING, has every thread pass a full fence, then
//!   waits until `inside` is false. Of the two, one sees the other: either the owner turns back, or the leaver waits for it.
//! - A4: tokens are given to threads for ever; a thread that has ended leaves `inside` false.
//!
//! What the owner wrote is handed on by `inside` (Release, read by the leaver with Acquire) and then by NONE in `owner` (the same again).

use std::cell::Cell;

use crate::{
    facade::{
        AtomicBool, AtomicU8, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    util::{backoff::Backoff, lock::Raw},
};

/// Nobody: the lock is an ordinary one.
const NONE: u32 = 0;
/// The token of threads that no lock leans to.
const STRANGER: u32 = 1;
/// The owner's advantage is being taken away.
const LEAVING: u32 = 2;
const FIRST_TOKEN: u32 = 3;

/// After so many times in a row by one thread the lock leans to it.
const STREAK: u8 = 32;
/// Instead of a streak's length: the lock has leaned once (A1).
const SPENT: u8 = u8::MAX;
/// For so many times after another thread had it the lock counts as shared: more than what one thread does to a channel of usual capacity
/// while the other keeps away.
const MEMORY: u8 = 255;

thread_local! {
    static TOKEN: Cell<u32> = const { Cell::new(STRANGER) };
}

/// To be called before the first thread is started: the system registers a process of one thread in microseconds, and makes one of several
/// wait for ten milliseconds, until it has seen all of them.
pub(crate) fn prepare() {
    let _ = everywhere::is_available();
}

/// Lets locks lean to the calling thread from now on, if the platform can make all threads pass a fence.
pub(crate) fn enlist() {
    if TOKEN.get() != STRANGER || !everywhere::is_available() {
        return;
    }
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(FIRST_TOKEN);
    // A4: the last threads of a process that has started four thousand million get none.
    // ORDERING: Relaxed. Tokens need only differ.
    let token = NEXT.fetch_update(Relaxed, Relaxed, |next| next.checked_add(1));
    TOKEN.set(token.unwrap_or(STRANGER));
}

/// See the module.
pub(crate) struct RawBiased {
    owner: AtomicU32,
    inside: AtomicBool,
    held: AtomicBool,
    /// How often in a row `last` has taken the lock in the ordinary way, or SPENT. The holder's, as the next two.
    streak: AtomicU8,
    /// How many more times the lock counts as shared.
    shared: AtomicU8,
    /// Who took it last in the ordinary way; NONE: nobody yet.
    last: AtomicU32,
}

impl RawBiased {
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            owner: AtomicU32::new(NONE),
            inside: AtomicBool::new(false),
            held: AtomicBool::new(false),
            streak: AtomicU8::new(0),
            shared: AtomicU8::new(0),
            last: AtomicU32::new(NONE),
        }
    }

    /// By which locks that are held in sets are ordered; never zero.
    #[inline]
    pub(crate) fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    #[inline]
    fn lock_as(&self, me: u32) {
        // ORDERING: Relaxed. Only this thread writes its own token's place in the word, and what it guards was written by this thread or
        // before the lock leaned to it; the ordinary way looks again.
        let owner = self.owner.load(Relaxed);
        if owner == me {
            // ORDERING: Relaxed, and a fence that costs nothing here. A3; pairs with `everywhere::fence` in `leave`.
            self.inside.store(true, Relaxed);
            own_fence();
            // ORDERING: Relaxed. A3.
            if self.owner.load(Relaxed) == me {
                return;
            }
            // ORDERING: Release. As in `unlock`: the leaver may go on by it.
            self.inside.store(false, Release);
        } else if owner == NONE && self.try_hold(me) {
            return;
        }
        self.lock_slow(me);
    }

    /// The ordinary way; false when the lock is held or leans to somebody.
    #[inline]
    fn try_hold(&self, me: u32) -> bool {
        // ORDERING: Acquire. Takes over what the last holder wrote; pairs with the Release of `held` in `unlock`.
        if self.held.compare_exchange(false, true, Acquire, Relaxed).is_err() {
            return false;
        }
        // A2.
        // ORDERING: Acquire. Takes over what the owner wrote; pairs with the Release in `leave`.
        if self.owner.load(Acquire) != NONE {
            // ORDERING: Release. Nothing was written, but what the last holder wrote is handed on.
            self.held.store(false, Release);
            return false;
        }
        self.note(me);
        true
    }

    /// Counts one more time by `me`. Called by the holder.
    #[inline]
    fn note(&self, me: u32) {
        // ORDERING: Relaxed, here and below: the holder's words.
        let (last, streak, shared) = (self.last.load(Relaxed), self.streak.load(Relaxed), self.shared.load(Relaxed));
        if last == me {
            if streak != SPENT && me != STRANGER {
                self.streak.store(streak + 1, Relaxed);
            }
            if shared != 0 {
                self.shared.store(shared - 1, Relaxed);
            }
            return;
        }
        self.last.store(me, Relaxed);
        if streak != SPENT {
            self.streak.store(0, Relaxed);
        }
        if last != NONE {
            self.shared.store(MEMORY, Relaxed);
        }
    }

    /// Whether another enlisted thread has had the lock a short while ago. Asked by the holder.
    #[inline]
    pub(crate) fn is_shared(&self) -> bool {
        // ORDERING: Relaxed. A2, and the holder's word.
        self.shared.load(Relaxed) != 0 && self.owner.load(Relaxed) == NONE
    }

    #[cold]
    fn lock_slow(&self, me: u32) {
        let mut backoff = Backoff::new();
        loop {
            // ORDERING: Relaxed. `leave` and `try_hold` look again.
            match self.owner.load(Relaxed) {
                NONE => {
                    if self.try_hold(me) {
                        return;
                    }
                    backoff.wait();
                }
                LEAVING => backoff.wait(),
                owner => self.leave(owner),
            }
        }
    }

    /// Takes the advantage from `owner`, unless somebody else does.
    fn leave(&self, owner: u32) {
        // ORDERING: Relaxed. The fence below orders it before the look at `inside` (A3).
        if self.owner.compare_exchange(owner, LEAVING, Relaxed, Relaxed).is_err() {
            return;
        }
        everywhere::fence();
        let mut backoff = Backoff::new();
        // ORDERING: Acquire. Takes over what the owner wrote under the lock; pairs with the Release of `inside` in `unlock`.
        while self.inside.load(Acquire) {
            backoff.wait();
        }
        // ORDERING: Release. Hands it on; pairs with the Acquire in `try_hold`.
        self.owner.store(NONE, Release);
    }
}

// SAFETY: A2 and A3 let one thread in at a time; the head of the module says how what it wrote is handed on.
unsafe impl Raw for RawBiased {
    #[inline]
    fn lock(&self) {
        self.lock_as(TOKEN.get());
    }

    #[inline]
    unsafe fn unlock(&self) {
        // ORDERING: Relaxed. By A2 the holder knows what it can be.
        if self.owner.load(Relaxed) != NONE {
            // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquire in `leave`.
            self.inside.store(false, Release);
            return;
        }
        // ORDERING: Relaxed: the holder's words; `held` below publishes the owner to those who take the lock next.
        if self.streak.load(Relaxed) == STREAK {
            self.streak.store(SPENT, Relaxed);
            self.owner.store(self.last.load(Relaxed), Relaxed);
        }
        // ORDERING: Release. Publishes what was written under the lock; pairs with the Acquire in `try_hold`.
        self.held.store(false, Release);
    }
}

/// The owner's side of A3: keeps the compiler from changing the order; the processor is told by `everywhere::fence`.
#[cfg(not(loom))]
#[inline]
fn own_fence() {
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
}

#[cfg(loom)]
fn own_fence() {
    crate::facade::fence(crate::facade::Ordering::SeqCst);
}

/// A fence that every running thread of the process passes.
#[cfg(all(target_os = "linux", not(loom), not(oxigo_fallback)))]
mod everywhere {
    use std::sync::OnceLock;

    use rustix::thread::{MembarrierCommand, membarrier};

    /// Registers the process for it, the first time.
    pub(super) fn is_available() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok())
    }

    pub(super) fn fence() {
        let fence = || membarrier(MembarrierCommand::PrivateExpedited);
        if fence().is_ok() {
            return;
        }
        // The process has lost its registration, as a restored one may have.
        let again = membarrier(MembarrierCommand::RegisterPrivateExpedited).and_then(|()| fence());
        if let Err(error) = again {
            // A lock cannot be had without it, and to unwind here would leave nodes in queues: as `eprintln!` does where nobody reads standard error.
            crate::util::stderr::print(&format!(
                "oxigo: the system call membarrier worked before and is refused now ({error}): allow it, or refuse it from the start\n"
            ));
            std::process::abort();
        }
    }
}

/// Where there is no such fence no lock leans.
#[cfg(all(any(not(target_os = "linux"), oxigo_fallback), not(loom)))]
mod everywhere {
    pub(super) fn is_available() -> bool {
        false
    }

    pub(super) fn fence() {
        unreachable!("no lock leans to a thread on this platform");
    }
}

#[cfg(loom)]
mod everywhere {
    pub(super) fn is_available() -> bool {
        false
    }

    pub(super) fn fence() {
        crate::facade::fence(crate::facade::Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::{sync::Arc, thread};

    use super::{NONE, STRANGER, STREAK, TOKEN, enlist};
    use crate::{facade::Ordering::Relaxed, util::BiasedLock};

    /// Takes the lock often enough that it leans to the calling thread.
    fn lean(lock: &BiasedLock<u64>) {
        for _ in 0..=STREAK {
            *lock.lock() += 1;
        }
    }

    #[test]
    fn a_lock_leans_once_and_never_to_a_stranger() {
        let lock = Arc::new(BiasedLock::biased(0));
        lean(&lock);
        assert_eq!(lock.raw().owner.load(Relaxed), NONE, "a thread that has not enlisted");
        let far = lock.clone();
        thread::spawn(move || {
            enlist();
            if TOKEN.get() == STRANGER {
                // No such fence here.
                return;
            }
            lean(&far);
            assert_eq!(far.raw().owner.load(Relaxed), TOKEN.get());
            let mut guard = far.lock();
            assert!(far.raw().inside.load(Relaxed));
            *guard += 1;
        })
        .join()
        .unwrap();
        let before = *lock.lock();
        assert_eq!(lock.raw().owner.load(Relaxed), NONE, "another has come");
        assert!(before >= u64::from(STREAK));
        let far = lock.clone();
        thread::spawn(move || {
            enlist();
            lean(&far);
            assert_eq!(far.raw().owner.load(Relaxed), NONE, "it has leaned before");
        })
        .join()
        .unwrap();
    }

    /// Many locks, each leaning to the first thread when the second comes in the middle of its work.
    #[test]
    fn no_addition_is_lost_while_a_lock_stops_to_lean() {
        const LOCKS: usize = if cfg!(debug_assertions) { 2_000 } else { 20_000 };
        const ADDED: u64 = 200;
        let locks: Arc<Vec<_>> = Arc::new((0..LOCKS).map(|_| BiasedLock::biased(0_u64)).collect());
        let far = locks.clone();
        let first = thread::spawn(move || {
            enlist();
            for lock in far.iter() {
                for _ in 0..ADDED {
                    *lock.lock() += 1;
                }
            }
        });
        for lock in locks.iter() {
            // Comes while the first is at this lock, or near it.
            while lock.raw().owner.load(Relaxed) == NONE && lock.raw().streak.load(Relaxed) == 0 && !first.is_finished()
            {
                std::hint::spin_loop();
            }
            for _ in 0..ADDED {
                *lock.lock() += 1;
            }
        }
        first.join().unwrap();
        assert!(locks.iter().all(|lock| *lock.lock() == 2 * ADDED));
    }
}

/// Tokens are given by hand, and a lock that already leans is what a model begins with: a streak would only add steps.
#[cfg(all(test, loom))]
mod loom_models {
    use loom::{cell::UnsafeCell, sync::Arc, thread};

    use super::{FIRST_TOKEN, NONE, Raw as _, RawBiased, Relaxed, SPENT, STRANGER};
    use crate::facade::{AtomicBool, AtomicU8, AtomicU32};

    struct Guarded {
        raw: RawBiased,
        count: UnsafeCell<u32>,
    }

    // SAFETY: the count is used under the lock only; loom checks that.
    unsafe impl Send for Guarded {}
    // SAFETY: as above.
    unsafe impl Sync for Guarded {}

    impl Guarded {
        fn leaning_to(owner: u32, streak: u8) -> Arc<Self> {
            let raw = RawBiased {
                owner: AtomicU32::new(owner),
                inside: AtomicBool::new(false),
                held: AtomicBool::new(false),
                streak: AtomicU8::new(streak),
                shared: AtomicU8::new(0),
                last: AtomicU32::new(FIRST_TOKEN),
            };
            Arc::new(Self { raw, count: UnsafeCell::new(0) })
        }

        fn add_as(&self, token: u32) {
            self.raw.lock_as(token);
            // SAFETY: locked.
            self.count.with_mut(|count| unsafe { *count += 1 });
            // SAFETY: locked above.
            unsafe { self.raw.unlock() };
        }

        fn check(&self, expected: u32) {
            self.raw.lock_as(STRANGER);
            // SAFETY: locked.
            self.count.with(|count| assert_eq!(unsafe { *count }, expected));
            // SAFETY: locked above.
            unsafe { self.raw.unlock() };
            assert_eq!(self.raw.owner.load(Relaxed), NONE);
        }
    }

    /// A2, A3: the owner and another, while the lock leans.
    #[test]
    fn loom_biased_excludes_the_owner_and_another() {
        loom::model(|| {
            let guarded = Guarded::leaning_to(FIRST_TOKEN, SPENT);
            let far = guarded.clone();
            let owner = thread::spawn(move || {
                far.add_as(FIRST_TOKEN);
                far.add_as(FIRST_TOKEN);
            });
            guarded.add_as(STRANGER);
            owner.join().unwrap();
            guarded.check(3);
        });
    }

    /// A1: two come from elsewhere at once; one of them takes the advantage away, both wait for it. (With the owner there are three that
    /// wait in turns, which loom does not finish.)
    #[test]
    fn loom_biased_excludes_two_others() {
        loom::model(|| {
            let guarded = Guarded::leaning_to(FIRST_TOKEN, SPENT);
            let far = guarded.clone();
            let other = thread::spawn(move || far.add_as(FIRST_TOKEN + 1));
            guarded.add_as(STRANGER);
            other.join().unwrap();
            guarded.check(2);
        });
    }

    /// A1, A2: the lock begins to lean while another comes.
    #[test]
    fn loom_biased_excludes_while_it_begins_to_lean() {
        loom::model(|| {
            let guarded = Guarded::leaning_to(NONE, super::STREAK - 1);
            let far = guarded.clone();
            let owner = thread::spawn(move || {
                far.add_as(FIRST_TOKEN);
                far.add_as(FIRST_TOKEN);
            });
            guarded.add_as(STRANGER);
            owner.join().unwrap();
            guarded.check(3);
        });
    }
}
