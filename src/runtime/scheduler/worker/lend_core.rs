//! A worker with nothing to do lends its core to another one that has lost its own, and a worker that has just got up leaves the core to whoever woke
//! it.
//!
//! A worker's connections wait while its thread has no core, since nobody else may run its goroutines. If a peer on the same machine always has
//! something to do, the kernel leaves the two on one core, each for slices of milliseconds, although another core has nothing to do now and then: it
//! balances seldom, and not for pauses as short as a server's. So a worker that is out of work looks for another worker that stands still and does
//! not run, and has the kernel move that one's thread here, by allowing it only this core for a moment.
//!
//! Threads and processes that the moved thread starts would inherit that mask for good, so it must not go on with it. It is interrupted first, and
//! its signal handler lets it go on only with its whole mask ([`Lending`](super::super::lending)). A thread that waits for a core with the signal
//! pending starts nothing before that: the kernel runs the handler before the thread's next instruction, and does not let a thread with a pending signal
//! clone itself. Unless the thread blocks the signal, as the C library does while it starts a thread or a process: so that is checked after the signal
//! was sent, and such a thread is left alone. Two cases remain: a thread that has lost its core inside of `clone` itself, between the kernel's look at
//! signals and its copy of the mask, a few hundred instructions later; and one that has lost it inside of the call by which the C library blocks
//! signals for that, before it took effect. Nobody outside can tell them from others that wait for a core.
//!
//! A worker that is notified may get up on the very core that its notifier runs on, although another core has nothing to do. The notifier then loses
//! its core for a millisecond, most often just when it has too much to do. So the one that gets up goes to another core, by forbidding itself this
//! one for a moment. It does not know which of the other cores has nothing to do; it only avoids those that workers of its runtime use.

#[cfg(target_os = "linux")]
pub(super) use linux::LendCore;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::LendCore;

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        cell::{Cell, RefCell},
        env, fs,
        sync::{OnceLock, atomic::Ordering::Relaxed},
        time::{Duration, Instant},
    };

    use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_getcpu, sched_setaffinity};

    use crate::runtime::{
        scheduler::processor::Processor,
        threads::{self, Tid},
        urgent,
    };

    /// How long a worker stands still before it is looked at. When it was moved in vain, the time doubles.
    const WAIT: Duration = Duration::from_micros(50);
    const WAIT_MAX: Duration = Duration::from_millis(10);

    /// See the module.
    pub(crate) struct LendCore {
        masks: Option<Masks>,
        seen: RefCell<Vec<Seen>>,
        /// Whose turn it is to be looked at. One at a time: where there are many, their words are far.
        turn: Cell<usize>,
        /// The tick in which the worker last left a core to who had notified it.
        left: Cell<u64>,
    }

    /// Which cores the worker's thread may have.
    struct Masks {
        /// Those that it began with. Where a thread's are others now, somebody has chosen them, and it is left alone.
        allowed: CpuSet,
        /// What is set to have them again: all that there may be, if only a cpuset limits them, since the kernel forgets no mask that was set, and the
        /// thread would not follow the cpuset any more.
        restored: CpuSet,
    }

    impl Masks {
        fn of_this_thread() -> Option<Self> {
            let allowed = sched_getaffinity(None).ok()?;
            let mut all = CpuSet::new();
            (0..CpuSet::MAX_CPU).for_each(|core| all.set(core));
            let is_whole =
                sched_setaffinity(None, &all).is_ok() && sched_getaffinity(None).is_ok_and(|mask| mask == allowed);
            let restored = if is_whole { all } else { allowed };
            sched_setaffinity(None, &restored).ok()?;
            Some(Self { allowed, restored })
        }
    }

    /// What was seen of another worker: its count of scheduling points, since when it is so, and how long to wait before a look.
    #[derive(Clone)]
    struct Seen {
        rounds: u64,
        since: Instant,
        wait: Duration,
    }

    impl LendCore {
        /// On the worker's own thread.
        pub(crate) fn new(workers: usize, now: Instant) -> Self {
            let seen = Seen { rounds: 0, since: now, wait: WAIT };
            let masks = if is_wanted() { Masks::of_this_thread() } else { None };
            Self { masks, seen: RefCell::new(vec![seen; workers]), turn: Cell::new(0), left: Cell::new(0) }
        }

        /// Looks whether another one, each in its turn, wants the core that the worker of `me` is about to give up.
        pub(crate) fn offer(&self, me: &Processor, all: &[&'static Processor]) {
            let Some(masks) = &self.masks else { return };
            let turn = self.turn.replace((self.turn.get() + 1) % all.len());
            let other = all[turn];
            if std::ptr::eq(other, me) {
                return;
            }
            let seen = &mut self.seen.borrow_mut()[turn];
            let rounds = other.rounds();
            if rounds != seen.rounds || other.doze().is_resting() {
                *seen = Seen { rounds, since: Instant::now(), wait: WAIT };
            } else if seen.since.elapsed() >= seen.wait {
                if is_off_core(other) {
                    // One that cannot be moved is tried again, but seldom.
                    let _ = move_here(me, other, masks);
                }
                seen.since = Instant::now();
                seen.wait = (seen.wait * 2).min(WAIT_MAX);
            }
        }

        /// Called by a worker that has been notified: if the kernel has put it in the place of whoever notified it, as it may where the two were on one
        /// core before, it goes to another one, on which none of `all` got up. At most once a tick.
        pub(crate) fn leave_to_notifier(&self, me: &Processor, all: &[&'static Processor], now: u64) {
            let Some(Masks { allowed, restored }) = &self.masks else { return };
            let core = sched_getcpu();
            // ORDERING: Relaxed. A hint.
            me.got_up_on.store(core, Relaxed);
            if me.notified_on() != core || self.left.replace(now) == now {
                return;
            }
            let mut others = *allowed;
            let mut awake = 0;
            for other in all.iter().filter(|other| !other.doze().is_asleep()) {
                let taken = other.got_up_on.load(Relaxed);
                if taken < CpuSet::MAX_CPU {
                    others.unset(taken);
                }
                awake += 1;
            }
            // The notifier has been moved since it got up, if there must be a core without any of them.
            if others.count() == 0 && awake <= allowed.count() && core < CpuSet::MAX_CPU {
                others = *allowed;
                others.unset(core);
            }
            if others.count() == 0 || !sched_getaffinity(None).is_ok_and(|mask| mask == *allowed) {
                return;
            }
            // Nothing that is started between the two inherits the narrow mask: signals that come by themselves are blocked, but for SIGPROF, whose
            // handlers start nothing, and ours. If the first call fails, the worker stays; if the second does, for want of memory in the kernel, it goes
            // on without this core.
            let _ = sched_setaffinity(None, &others);
            let _ = sched_setaffinity(None, restored);
        }

        /// In the handler, on the thread that may have been moved.
        pub(crate) fn take(&self, me: &Processor) {
            // rustix leaves `errno` alone.
            me.lending.answer(self.masks.as_ref().map(|masks| || _ = sched_setaffinity(None, &masks.restored)));
        }
    }

    /// `OXIGO_LEND_CORES`, looked up once: `on`, or `off`. Otherwise off where a seccomp filter has been set by then, since it may end a process
    /// that changes masks; systemd's `~@resources` does.
    fn is_wanted() -> bool {
        static WANTED: OnceLock<bool> = OnceLock::new();
        *WANTED.get_or_init(|| match env::var_os("OXIGO_LEND_CORES") {
            Some(value) if value == "on" => true,
            Some(value) if value == "off" => false,
            _ => fs::read_to_string("/proc/self/status").is_ok_and(|status| !is_filtered(&status)),
        })
    }

    /// Whether a status, as `/proc` has it, tells of a seccomp filter, or of the strict mode.
    fn is_filtered(status: &str) -> bool {
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        mode.is_some_and(|mode| mode.trim() != "0")
    }

    /// Whether the worker's thread does not run now, but would. One that a goroutine blocks is left alone: the interruption might end a call
    /// that does not expect it.
    fn is_off_core(other: &Processor) -> bool {
        let ran = || threads::cpu_time(other.thread());
        ran().is_some_and(|before| ran() == Some(before)) && threads::is_blocked(other.thread()) == Some(false)
    }

    fn move_here(me: &Processor, other: &Processor, Masks { allowed, restored }: &Masks) -> rustix::io::Result<()> {
        let number = other.thread();
        let Some(thread) = i32::try_from(number).ok().and_then(Pid::from_raw) else { return Ok(()) };
        let core = sched_getcpu();
        if core >= CpuSet::MAX_CPU || !allowed.is_set(core) || sched_getaffinity(Some(thread))? != *allowed {
            return Ok(());
        }
        let mut here = CpuSet::new();
        here.set(core);
        let set = |mask: &CpuSet| _ = sched_setaffinity(Some(thread), mask);
        // Most often the thread has this core when the lender restores its mask, or comes to that only when the thread is done.
        me.lending.lend_to(&other.lending, || is_interrupted(number), || set(&here), || set(restored));
        Ok(())
    }

    /// Interrupts the thread; whether that comes before all else that it does.
    fn is_interrupted(thread: Tid) -> bool {
        urgent::interrupt(thread) && threads::blocks(thread, libc::SIGURG) == Some(false)
    }

    #[cfg(test)]
    mod tests {
        use super::is_filtered;

        #[test]
        fn a_filter_is_seen_in_the_status() {
            assert!(!is_filtered("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"));
            assert!(is_filtered("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
            assert!(is_filtered("Seccomp:\t1\n"));
            // A kernel without any.
            assert!(!is_filtered("Name:\tx\n"));
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod portable {
    use std::time::Instant;

    use crate::runtime::scheduler::processor::Processor;

    /// Threads stay where the system has them.
    pub(crate) struct LendCore;

    impl LendCore {
        pub(crate) fn new(_workers: usize, _now: Instant) -> Self {
            Self
        }

        pub(crate) fn offer(&self, _me: &Processor, _all: &[&'static Processor]) {}

        pub(crate) fn leave_to_notifier(&self, _me: &Processor, _all: &[&'static Processor], _now: u64) {}

        pub(crate) fn take(&self, _me: &Processor) {}
    }
}
