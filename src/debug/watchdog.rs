//! The watchdog: names the goroutine that has held its worker for too long.
//!
//! The clock thread looks once a tick, while any worker is awake. A worker that comes to no scheduling point is held; how long its
//! thread has really run is asked of the kernel, so that a machine that is merely busy is not blamed on the program; and whether it is blocked,
//! by a lock of `std` for one, which the others of its worker may be waiting to release. Who holds it is
//! known to the worker's thread alone: it is asked by a signal (`runtime/urgent.rs`) and answers from the handler.
//!
//! - G1: the handler allocates nothing, takes no lock and calls nothing of the user's. It copies words.
//! - G2: one question at a time, under `ASKING`: the clock thread asks, and dumps do. Whoever asks waits for the answer, for some ten
//!   milliseconds at most. An answer that comes later is thrown away with the next question, whose number it does not have.
//! - G3: a slot names its task only while the runner's reference to it is there (see `runtime::task`), so the handler may follow it.

use std::{
    collections::HashSet,
    panic::Location,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::Duration,
};

use crate::{
    debug,
    runtime::{
        scheduler::{Processor, Worker},
        threads::{self, Tid},
        urgent,
    },
};

/// Ticks for which a goroutine may hold its worker, and the processor time of which it is then accused, in nanoseconds.
const HELD: u64 = 100;
const HELD_CPU: u64 = 98_000_000;
/// Ticks from which on a worker that is held is looked at more closely.
const SUSPECT: u64 = 2;
/// The processor time after which one that is held is no reason to let others wait, in nanoseconds, and the ticks, for one that has to
/// share its core or gives it up again and again.
const HELD_LONG_CPU: u64 = 8_000_000;
const HELD_LONG: u64 = 20;
/// After this many reports there are no more, so that a program that is wrong throughout is not drowned in them.
const MOST_REPORTS: usize = 1000;
/// Ticks for which a goroutine may block its thread while others live there. Longer than one may compute: blocking code that is short is no mistake.
const BLOCKED: u64 = 1000;

/// What the clock thread remembers of one worker; written by that thread alone, except for `thread`.
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
    /// The most ticks without a scheduling point.
    longest: AtomicU64,
    /// Ticks without one, at the last look.
    held: AtomicU64,
    /// The thread's processor time when `is_held` was last asked.
    ran: AtomicU64,
}

impl Watch {
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_millis(self.longest.load(Relaxed))
    }

    /// For how many ticks the worker had come to no scheduling point at the last look.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    pub(crate) fn reset(&self) {
        for word in [&self.thread, &self.rounds, &self.since, &self.held, &self.ran, &self.cpu, &self.longest] {
            word.store(0, Relaxed);
        }
        self.asked.store(false, Relaxed);
    }
}

/// One look of the clock thread at one worker. All words are the clock thread's own or hints: Relaxed.
pub(crate) fn look(processor: &Processor, now: u64) {
    let watch = &processor.watch;
    let rounds = processor.rounds();
    if processor.doze().is_resting() || rounds != watch.rounds.load(Relaxed) {
        watch.rounds.store(rounds, Relaxed);
        watch.since.store(now, Relaxed);
        watch.cpu.store(0, Relaxed);
        watch.asked.store(false, Relaxed);
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

/// Whether one more worker may run beside this one though there be no core for it: a goroutine blocks its thread, so that it has not run since the
/// clock thread asked the last time and does not wait for a processor; or it has computed for as long as Go lets anybody run.
pub(crate) fn is_held(processor: &Processor) -> bool {
    let (watch, thread) = (&processor.watch, processor.thread());
    let held = watch.held.load(Relaxed);
    if held == 0 || held >= HELD_LONG {
        return held > 0;
    }
    let Some(ran) = threads::cpu_time(thread) else { return true };
    let noted = watch.cpu.load(Relaxed);
    if noted != 0 && ran.saturating_sub(noted) >= HELD_LONG_CPU {
        return true;
    }
    let before = watch.ran.swap(ran, Relaxed);
    before == ran && threads::is_blocked(thread).unwrap_or(true)
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
    } else if cpu.saturating_sub(before) >= HELD_CPU {
        watch.asked.store(true, Relaxed);
        report(thread, held);
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
    debug::write_error(&format!(
        "oxigo: a goroutine has blocked the thread of {worker} for {held} ms, and the others that live there wait. Let it wait with locks \
         and channels of oxigo, or run calls that block the thread in blocking. SIGQUIT and debug::dump name it. OXIGO_WATCHDOG=off silences \
         this.\n",
    ));
}

fn report(thread: Tid, held: u64) {
    static REPORTED: Mutex<Option<HashSet<u64>>> = Mutex::new(None);
    if !is_on() {
        return;
    }
    let Some(holder) = ask(thread) else { return };
    let mut reported = REPORTED.lock().unwrap_or_else(PoisonError::into_inner);
    let reported = reported.get_or_insert_default();
    if reported.len() >= MOST_REPORTS || !reported.insert(holder.id) {
        return;
    }
    debug::write_error(&format!(
        "oxigo: goroutine {}{}, started at {}, has held its worker for {held} ms without a scheduling point; every goroutine of that \
         worker waits. Let it call yield_now now and then, or run calls that block the thread in blocking. \
         OXIGO_WATCHDOG=off silences this.\n",
        holder.id,
        holder.name.map(|name| format!(" [{name}]")).unwrap_or_default(),
        holder.started_at,
    ));
}

/// `OXIGO_WATCHDOG=off`, looked up once.
fn is_on() -> bool {
    static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ON.get_or_init(|| std::env::var_os("OXIGO_WATCHDOG").is_none_or(|value| value != "off"))
}

/// Who runs on a worker.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) started_at: &'static Location<'static>,
}

const NAME_WORDS: usize = 8;

/// The answer, in words (G1). `number` is that of the question once the rest is written.
struct Answer {
    question: AtomicU64,
    /// The thread that it is put to.
    asked: AtomicU32,
    number: AtomicU64,
    id: AtomicU64,
    location: std::sync::atomic::AtomicPtr<Location<'static>>,
    name_len: AtomicU64,
    name: [AtomicU64; NAME_WORDS],
}

static ANSWER: Answer = Answer {
    question: AtomicU64::new(0),
    asked: AtomicU32::new(0),
    number: AtomicU64::new(0),
    id: AtomicU64::new(0),
    location: std::sync::atomic::AtomicPtr::new(std::ptr::null_mut()),
    name_len: AtomicU64::new(0),
    name: [const { AtomicU64::new(0) }; NAME_WORDS],
};
/// G2.
static ASKING: Mutex<()> = Mutex::new(());

/// Asks the worker whose thread this is for the goroutine that runs on it. None when it does not answer, or nobody runs.
pub(crate) fn ask(thread: Tid) -> Option<Holder> {
    let _one_at_a_time = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let question = ANSWER.question.load(Relaxed) + 1;
    ANSWER.asked.store(thread, Relaxed);
    // ORDERING: Release. Nothing of the last answer is read after this; the handler's Acquire pairs with it.
    ANSWER.question.store(question, Release);
    if !urgent::interrupt(thread) {
        return None;
    }
    for _ in 0..50 {
        // ORDERING: Acquire. Pairs with the Release at the end of `answer`.
        if ANSWER.number.load(Acquire) == question {
            return read_answer();
        }
        thread::sleep(Duration::from_micros(200));
    }
    None
}

fn read_answer() -> Option<Holder> {
    // SAFETY: null, or the address of a `Location` that lives for ever, as `answer` stored it.
    let started_at = unsafe { ANSWER.location.load(Relaxed).as_ref() }?;
    let bytes: Vec<u8> = ANSWER.name.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
    let len = ANSWER.name_len.load(Relaxed) as usize;
    let name = (len > 0).then(|| String::from_utf8_lossy(&bytes[..len.min(bytes.len())]).into_owned());
    Some(Holder { id: ANSWER.id.load(Relaxed), name, started_at })
}

/// In the handler, on the worker's thread: answers the question, if it is put to this one.
pub(crate) fn answer(worker: &Worker) {
    // ORDERING: Acquire, as in `ask`.
    let question = ANSWER.question.load(Acquire);
    if ANSWER.asked.load(Relaxed) != worker.processor.thread() {
        return;
    }
    let task = worker.running_or_panicking().and_then(crate::runtime::slot::Slot::task);
    let location = task.map_or(std::ptr::null(), |task| std::ptr::from_ref(task.location()));
    ANSWER.location.store(location.cast_mut(), Relaxed);
    if let Some(task) = task {
        ANSWER.id.store(task.id(), Relaxed);
        let name = task.name().unwrap_or_default().as_bytes();
        ANSWER.name_len.store(name.len() as u64, Relaxed);
        for (word, bytes) in ANSWER.name.iter().zip(name.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
    }
    // ORDERING: Release. Publishes the words above.
    ANSWER.number.store(question, Release);
}
