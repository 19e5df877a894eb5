//! The watchdog: names the goroutine that has held its worker for too long.
//!
//! The clock thread looks once a tick, while any worker is awake. A worker that comes to no scheduling point is held; how long its
//! thread has really run is asked of the kernel, so that a machine that is merely busy is not blamed on the program; and whether it is blocked,
//! by a lock of `std` for one, which the others of its worker may be waiting to release. Who holds it is
//! known to the worker's thread alone: it is asked by a signal ([`question`]).

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    debug::{
        self,
        question::{self, Mailbox},
    },
    runtime::{
        clock,
        scheduler::Processor,
        threads::{self, Tid},
    },
};

/// Ticks for which a goroutine may hold its worker, and the processor time of which it is then accused, in nanoseconds.
const HELD: u64 = 100;
const HELD_CPU: u64 = 98_000_000;
/// How often the latter is doubled at most, where nobody answers: to a quarter of an hour.
const MOST_DOUBLINGS: u32 = 13;
/// Ticks from which on a worker that is held is looked at more closely.
const SUSPECT: u64 = 2;
/// The processor time after which one that is held is no reason to let others wait, in nanoseconds, and the ticks, for one that has to
/// share its core or gives it up again and again; and after how many ticks from then on the kernel is asked once more what the thread does.
const HELD_LONG_CPU: u64 = 8_000_000;
const HELD_LONG: u64 = 20;
const HELD_LOOKS: u64 = 16;
/// A tick, in nanoseconds.
const TICK: u64 = clock::TICK.as_nanos() as u64;
/// After this many reports there are no more, so that a program that is wrong throughout is not drowned in them.
const MOST_REPORTS: usize = 1000;
/// Ticks for which a goroutine may block its thread while others live there. Longer than one may compute: blocking code that is short is no mistake.
const BLOCKED: u64 = 1000;
/// Looks after which a worker that was notified and does not get up is late: its thread has no core.
const LATE: u64 = 10;

/// What the clock thread remembers of one worker; written by that thread alone, except for `thread` and `mailbox`.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The worker's thread.
    pub(crate) thread: AtomicU64,
    /// The count of scheduling points at the last look, and the tick in which it was first seen so.
    rounds: AtomicU64,
    since: AtomicU64,
    /// The thread's processor time soon after that, and 0 before.
    cpu: AtomicU64,
    asked: AtomicBool,
    /// How often the worker was asked who holds it, and did not answer.
    unanswered: AtomicU32,
    /// The most ticks without a scheduling point.
    longest: AtomicU64,
    /// Ticks without one, at the last look.
    held: AtomicU64,
    /// Looks in a row that have found it notified and not got up.
    late: AtomicU64,
    /// The tick in which `hold` last asked what the thread does, its processor time then, and whether it was blocked.
    asked_in: AtomicU64,
    ran: AtomicU64,
    blocked: AtomicBool,
    /// What the worker's thread is asked (G2 of `question`).
    pub(super) mailbox: Mailbox,
}

impl Watch {
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Relaxed))
    }

    /// For how many ticks the worker had come to no scheduling point at the last look.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    /// Whether the worker had been notified long before the last look, and had not got up.
    pub(crate) fn late(&self) -> bool {
        self.late.load(Relaxed) >= LATE
    }

    pub(crate) fn reset(&self) {
        for word in [
            &self.thread,
            &self.rounds,
            &self.since,
            &self.held,
            &self.late,
            &self.asked_in,
            &self.ran,
            &self.cpu,
            &self.longest,
        ] {
            word.store(0, Relaxed);
        }
        self.asked.store(false, Relaxed);
        self.blocked.store(false, Relaxed);
        self.unanswered.store(0, Relaxed);
    }
}

/// One look of the clock thread at one worker. All words are the clock thread's own or hints: Relaxed.
pub(crate) fn look(processor: &Processor, now: u64) {
    let watch = &processor.watch;
    let rounds = processor.rounds();
    // Getting up counts as a scheduling point.
    let late = if processor.doze().is_notified() && rounds == watch.rounds.load(Relaxed) {
        watch.late.load(Relaxed) + 1
    } else {
        0
    };
    watch.late.store(late, Relaxed);
    if processor.doze().is_resting() || rounds != watch.rounds.load(Relaxed) {
        watch.rounds.store(rounds, Relaxed);
        watch.since.store(now, Relaxed);
        watch.cpu.store(0, Relaxed);
        watch.asked.store(false, Relaxed);
        watch.unanswered.store(0, Relaxed);
        watch.held.store(0, Relaxed);
        return;
    }
    let held = now.saturating_sub(watch.since.load(Relaxed));
    watch.held.store(held, Relaxed);
    if held > watch.longest.load(Relaxed) {
        watch.longest.store(held, Relaxed);
    }
    if held >= SUSPECT && !watch.asked.load(Relaxed) {
        suspect(processor, held);
    }
}

/// How a worker is held, for those who ask whether others have to take its place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// It is not, or not for long.
    No,
    /// A goroutine blocks its thread, which needs no core.
    Blocks,
    /// A goroutine has computed for as long as Go lets anybody run.
    Computes,
}

/// As the clock thread finds it after its `look`. Blocked is a thread that does not wait for a processor, and has not run for half of the time since it was last
/// looked at: a goroutine may block it again and again.
pub(crate) fn hold(processor: &Processor, now: u64) -> Hold {
    let (watch, thread) = (&processor.watch, processor.thread());
    let held = watch.held.load(Relaxed);
    if held == 0 {
        return Hold::No;
    }
    let long = held >= HELD_LONG;
    let passed = now.saturating_sub(watch.asked_in.load(Relaxed));
    if !long || passed >= HELD_LOOKS {
        watch.asked_in.store(now, Relaxed);
        let blocked = match threads::cpu_time(thread) {
            Some(ran) => {
                let in_each_tick = ran.saturating_sub(watch.ran.swap(ran, Relaxed)) / passed.max(1);
                in_each_tick < TICK / 2 && threads::is_blocked(thread).unwrap_or(true)
            }
            None => true,
        };
        watch.blocked.store(blocked, Relaxed);
    }
    let noted = watch.cpu.load(Relaxed);
    if watch.blocked.load(Relaxed) {
        Hold::Blocks
    } else if long || (noted != 0 && watch.ran.load(Relaxed).saturating_sub(noted) >= HELD_LONG_CPU) {
        Hold::Computes
    } else {
        Hold::No
    }
}

#[cold]
fn suspect(processor: &Processor, held: u64) {
    let watch = &processor.watch;
    let thread = processor.thread();
    // A thread that waits for something costs a call a few times a second only.
    if thread == 0 || held > HELD && !held.is_multiple_of(16) {
        return;
    }
    if held >= BLOCKED && processor.live() > 1 && threads::is_blocked(thread) == Some(true) {
        watch.asked.store(true, Relaxed);
        report_blocked(thread, held);
        return;
    }
    let before = watch.cpu.load(Relaxed);
    if before != 0 && held < HELD {
        return;
    }
    let Some(cpu) = threads::cpu_time(thread) else { return };
    if before == 0 {
        watch.cpu.store(cpu.max(1), Relaxed);
    } else if cpu.saturating_sub(before) >= HELD_CPU << watch.unanswered.load(Relaxed) {
        let answered = report(processor, held);
        watch.asked.store(answered, Relaxed);
        // One that waits for a core answers late, and one that blocks the signal never: it is asked again, after twice the time.
        if !answered {
            watch.cpu.store(cpu, Relaxed);
            watch.unanswered.store((watch.unanswered.load(Relaxed) + 1).min(MOST_DOUBLINGS), Relaxed);
        }
    }
}

/// Once for each worker. Its thread is not asked who runs: what it is blocked in may be a call that a signal ends.
fn report_blocked(thread: Tid, held: u64) {
    static REPORTED: Mutex<Option<HashSet<Tid>>> = Mutex::new(None);
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = reported.get_or_insert_default();
    if !is_on() || reported.len() >= MOST_REPORTS || !reported.insert(thread) {
        return;
    }
    let worker = threads::name(thread).unwrap_or_else(|| "a worker".into());
    debug::write_aside(format!(
        "oxigo: a goroutine has blocked the thread of {worker} for {held} ms, and the other goroutines of that worker wait. Use locks and \
         channels of oxigo, or make calls that block the thread inside oxigo::blocking. SIGQUIT and debug::dump show which goroutine it is. \
         OXIGO_WATCHDOG=off silences this.\n",
    ));
}

/// False when the worker has not told who holds it.
fn report(processor: &Processor, held: u64) -> bool {
    static REPORTED: Mutex<Option<HashSet<u64>>> = Mutex::new(None);
    if !is_on() {
        return true;
    }
    let Some(holder) = question::holder(processor) else { return false };
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = reported.get_or_insert_default();
    if reported.len() >= MOST_REPORTS || !reported.insert(holder.id) {
        return true;
    }
    debug::write_aside(format!(
        "oxigo: goroutine {}{}, started at {}, has held its worker for {held} ms without a scheduling point; the other goroutines \
         of that worker wait. Call yield_now in it now and then, or make calls that block the thread inside oxigo::blocking. \
         OXIGO_WATCHDOG=off silences this.\n",
        holder.id,
        holder.name.map(|name| format!(" [{name}]")).unwrap_or_default(),
        holder.started_at,
    ));
    true
}

/// `OXIGO_WATCHDOG=off`, looked up once.
fn is_on() -> bool {
    static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("OXIGO_WATCHDOG").is_none_or(|value| value != "off"))
}
