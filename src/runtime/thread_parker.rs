//! How a plain thread waits: one word that the thread sleeps on.
//!
//! - T1: parkers are never freed; a thread takes one at its first wait and gives it back when it ends, after the destructors of its
//!   thread-locals, which may wait too (`thread_end.rs`). A waker that is late with its system call may touch a parker that belongs to another
//!   thread by then, which costs that thread a look.
//! - T2: the word goes EMPTY → NOTIFIED once for each wait (U3), and NOTIFIED → EMPTY by the thread itself. So a wait
//!   returns for no other reason than its wake.
//! - T3: while a thread waits without a time limit, `seen` says for what. A thread *sleeps* when it does and its word says so: nobody has
//!   notified it. The count of waits tells two sleeps apart.

use std::{cell::Cell, time::Instant};

use crate::runtime::{
    park::Parked,
    unit::{Ticket, Unit},
    wait::Wait,
};
#[cfg(not(loom))]
use crate::runtime::{
    thread_end,
    threads::{self, Tid},
};
#[cfg(not(loom))]
use crate::util::Lock;

/// The unit of a plain thread, and what it sleeps on.
#[derive(Debug)]
pub(crate) struct ThreadParker {
    unit: Unit,
    event: Event,
    /// T3. Guards itself; never held across a wait.
    #[cfg(not(loom))]
    seen: Lock<Seen>,
}

/// What others may know of a thread's waits.
#[cfg(not(loom))]
#[derive(Debug, Default)]
struct Seen {
    thread: Tid,
    wait: Option<Wait>,
    waits: u64,
}

/// A thread that sleeps in an operation of ours without a time limit.
#[cfg(not(loom))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sleeper {
    pub(crate) thread: Tid,
    pub(crate) wait: Wait,
    /// Tells this sleep from the thread's others.
    pub(crate) waits: u64,
}

/// All threads that sleep, as far as one look tells.
#[cfg(not(loom))]
pub(crate) fn sleepers() -> Vec<Sleeper> {
    let all = ALL.lock();
    let sleeper = |parker: &&'static ThreadParker| {
        let seen = parker.seen.lock();
        let wait = seen.wait.filter(|_| parker.event.is_asleep())?;
        Some(Sleeper { thread: seen.thread, wait, waits: seen.waits })
    };
    all.iter().filter_map(sleeper).collect()
}

impl ThreadParker {
    fn leak_new() -> &'static Self {
        let parker = Box::leak(Box::new(Self {
            unit: Unit::new(),
            event: Event::new(),
            #[cfg(not(loom))]
            seen: Lock::new(Seen::default()),
        }));
        // From now on only shared references are made, all from this one.
        parker.unit.home().set_parker(std::ptr::from_ref(parker).cast());
        #[cfg(not(loom))]
        ALL.lock().push(parker);
        parker.belongs_to_caller();
        parker
    }

    /// The parker of the calling thread.
    pub(crate) fn current() -> &'static Self {
        MINE.with(|mine| {
            mine.get().unwrap_or_else(|| {
                let parker = take();
                mine.set(Some(parker));
                parker
            })
        })
    }

    #[inline]
    pub(crate) fn unit(&'static self) -> &'static Unit {
        &self.unit
    }

    /// The parker whose unit is `unit`.
    ///
    /// # Safety
    ///
    /// `unit` has no home worker; only parkers have such units.
    #[inline]
    pub(crate) unsafe fn of(unit: &'static Unit) -> &'static Self {
        // SAFETY: by the caller the unit belongs to a parker, which wrote its own address there (`leak_new`) and is never
        // freed (T1).
        unsafe { &*unit.home().whole().cast::<Self>() }
    }

    /// Sleeps until the one wake of this wait.
    pub(crate) fn park(&self, wait: Wait) {
        self.show(Some(wait));
        self.event.wait();
        self.show(None);
    }

    /// T3.
    fn show(&self, wait: Option<Wait>) {
        #[cfg(not(loom))]
        {
            let mut seen = self.seen.lock();
            seen.waits += u64::from(wait.is_some());
            seen.wait = wait;
        }
        #[cfg(loom)]
        let _ = wait;
    }

    fn belongs_to_caller(&self) {
        #[cfg(not(loom))]
        {
            self.seen.lock().thread = threads::current();
        }
    }

    /// Sleeps until the wake, or claims its own wait back at `deadline`.
    pub(crate) fn park_until(&self, ticket: Ticket, deadline: Instant) -> Parked {
        if self.event.wait_until(deadline) {
            return Parked::Woken;
        }
        if self.unit.try_claim(ticket) {
            return Parked::TimedOut;
        }
        // Somebody else has the claim and is about to wake us.
        self.event.wait();
        Parked::Woken
    }

    /// Ends the wait; the caller holds the claim.
    pub(crate) fn notify(&self) {
        self.event.notify();
    }
}

/// Every parker there is.
#[cfg(not(loom))]
static ALL: Lock<Vec<&'static ThreadParker>> = Lock::new(Vec::new());
#[cfg(not(loom))]
static FREE: Lock<Vec<&'static ThreadParker>> = Lock::new(Vec::new());

#[cfg(not(loom))]
thread_local! {
    // No destructor, so it is there for the last destructor of the thread's other locals (T1).
    static MINE: Cell<Option<&'static ThreadParker>> = const { Cell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static MINE: Cell<Option<&'static ThreadParker>> = Cell::new(None);
}

#[cfg(not(loom))]
#[cold]
fn take() -> &'static ThreadParker {
    let spare = FREE.lock().pop();
    let parker = match spare {
        Some(parker) => {
            parker.belongs_to_caller();
            parker
        }
        None => ThreadParker::leak_new(),
    };
    thread_end::ask(parker);
    parker
}

/// At the end of the calling thread, whose parker this is.
#[cfg(not(loom))]
pub(crate) fn give_back(parker: &'static ThreadParker) {
    MINE.set(None);
    FREE.lock().push(parker);
}

/// A model's parkers belong to one execution of it; they leak, a few hundred bytes each.
#[cfg(loom)]
fn take() -> &'static ThreadParker {
    ThreadParker::leak_new()
}

#[cfg(all(not(loom), target_os = "linux"))]
use futex_event::Event;

#[cfg(any(loom, not(target_os = "linux")))]
use condvar_event::Event;

/// One word and a futex.
#[cfg(all(not(loom), target_os = "linux"))]
mod futex_event {
    use std::{
        sync::atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
        time::Instant,
    };

    use rustix::{
        io::Errno,
        thread::futex::{self, Timespec},
    };

    const EMPTY: u32 = 0;
    const NOTIFIED: u32 = 1;
    const SLEEPING: u32 = 2;

    /// How often a thread looks before it sleeps: about a microsecond, less than a futex round trip.
    const LOOKS: u32 = 40;

    #[derive(Debug)]
    pub(super) struct Event(AtomicU32);

    impl Event {
        pub(super) fn new() -> Self {
            Self(AtomicU32::new(EMPTY))
        }

        pub(super) fn wait(&self) {
            self.wait_for(None);
        }

        /// False when `deadline` passed first.
        pub(super) fn wait_until(&self, deadline: Instant) -> bool {
            self.wait_for(Some(deadline))
        }

        fn wait_for(&self, deadline: Option<Instant>) -> bool {
            if !crate::util::backoff::single_core() {
                for _ in 0..LOOKS {
                    if self.take() {
                        return true;
                    }
                    std::hint::spin_loop();
                }
            }
            // ORDERING: Relaxed. Announces a sleeper; the kernel compares the word again before it puts us to sleep.
            if self.0.compare_exchange(EMPTY, SLEEPING, Relaxed, Relaxed).is_err() {
                let taken = self.take();
                debug_assert!(taken, "the word changes from EMPTY only by a notification");
                return taken;
            }
            loop {
                let outcome = match deadline {
                    None => futex::wait(&self.0, futex::Flags::PRIVATE, SLEEPING, None),
                    Some(deadline) => {
                        let left = deadline.saturating_duration_since(Instant::now());
                        match Timespec::try_from(left) {
                            Ok(left) => futex::wait(&self.0, futex::Flags::PRIVATE, SLEEPING, Some(&left)),
                            // Further away than the kernel can count.
                            Err(_) => futex::wait(&self.0, futex::Flags::PRIVATE, SLEEPING, None),
                        }
                    }
                };
                if self.take() {
                    return true;
                }
                let late = matches!(outcome, Err(Errno::TIMEDOUT)) && deadline.is_some_and(|d| Instant::now() >= d);
                // ORDERING: Relaxed. Withdraws the announcement; on failure `take` reads what the notifier published.
                if late {
                    return self.0.compare_exchange(SLEEPING, EMPTY, Relaxed, Relaxed).is_err() && self.take();
                }
            }
        }

        /// Whether a thread sleeps and has not been notified. A hint.
        pub(super) fn is_asleep(&self) -> bool {
            // ORDERING: Relaxed. Whoever looks does so twice, with time between.
            self.0.load(Relaxed) == SLEEPING
        }

        /// Consumes a notification.
        fn take(&self) -> bool {
            // ORDERING: Acquire. Takes over what the waker did before `notify`.
            self.0.compare_exchange(NOTIFIED, EMPTY, Acquire, Relaxed).is_ok()
        }

        pub(super) fn notify(&self) {
            // ORDERING: Release. Publishes what the waker did; pairs with `take`. After this store the waiter may be gone:
            // only the address is used (T1).
            if self.0.swap(NOTIFIED, Release) == SLEEPING {
                let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
            }
        }
    }
}

/// A mutex and a condition variable: portable, and what `loom` checks.
#[cfg(any(loom, not(target_os = "linux")))]
mod condvar_event {
    use std::time::Instant;

    use crate::facade::{Condvar, Mutex};

    #[derive(Debug)]
    pub(super) struct Event {
        notified: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        pub(super) fn new() -> Self {
            Self { notified: Mutex::new(false), changed: Condvar::new() }
        }

        pub(super) fn wait(&self) {
            let mut notified = self.notified.lock().unwrap();
            while !*notified {
                notified = self.changed.wait(notified).unwrap();
            }
            *notified = false;
        }

        #[cfg(not(loom))]
        pub(super) fn wait_until(&self, deadline: Instant) -> bool {
            let mut notified = self.notified.lock().unwrap();
            while !*notified {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                notified = self.changed.wait_timeout(notified, left).unwrap().0;
            }
            *notified = false;
            true
        }

        /// In a model a time limit may pass at any moment: let others run, then say that it has passed.
        #[cfg(loom)]
        pub(super) fn wait_until(&self, _deadline: Instant) -> bool {
            crate::facade::thread::yield_now();
            let mut notified = self.notified.lock().unwrap();
            std::mem::replace(&mut *notified, false)
        }

        /// Whether no notification is there. A hint, about a thread that is known to wait.
        #[cfg(not(loom))]
        pub(super) fn is_asleep(&self) -> bool {
            !*self.notified.lock().unwrap()
        }

        pub(super) fn notify(&self) {
            *self.notified.lock().unwrap() = true;
            self.changed.notify_one();
        }
    }
}
