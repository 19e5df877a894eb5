//! The question: what a worker's thread is asked by a signal, when it comes to no scheduling point at which it could be asked otherwise.
//!
//! Who runs on a worker and who waits there is known to its thread alone: the cells of a [`Slot`] are that thread's. So it is interrupted
//! (`runtime/urgent.rs`), and the handler, which runs on that very thread, reads them and answers in words. The watchdog asks who runs; a dump
//! asks for the others as well, a [`LOT`] of slots at a time.
//!
//! - G1: the handler allocates nothing, takes no lock, calls nothing of the user's and comes to an end soon: it copies words of a [`LOT`] of
//!   slots at most, and of a name the first bytes.
//! - G2: a question lies in the mailbox of the worker that it is put to, one at a time. Whoever takes it out, by one exchange, may touch it: the
//!   handler, until it has set `done`; or the asker, whom no answer reaches any more then. A question that was taken and not answered in time is kept
//!   until it is, so a handler that is late writes to what nobody else uses, and nobody takes its answer for that to another question.
//! - G3: a slot names its task only while the runner's reference to it is there (see `runtime::task`), so the handler may follow it.
//! - G4: a slot is the worker's own for as long as the handler runs, if it names the worker then: that is changed by its home worker's thread alone,
//!   which is here. All other slots are passed over, whatever the asker has taken them for.
//! - G5: a goroutine of this worker that is not the one that runs is suspended, or has not begun: it is made the one that runs before it is resumed, and
//!   remains so until it has suspended. So its wait is whole, what its frames hold is there, and nobody changes what it has inherited; of the one
//!   that runs the handler reads only what never changes. Switches are assembly that the compiler moves no write across.
//! - G6: what the handler reads of slots and of the worker are atomics, though only this thread writes them: the handler may come in the
//!   middle of any write. But for the thread's pointer to its worker, which is set before its first goroutine and cleared after the last.
//! - G7: labels are counted references. The census, which the worker's loop runs, borrows where they are; so they are told when a goroutine was
//!   interrupted, and not when the loop was.
//!
//! A signal may end a call that the thread is blocked in, where it is none that goes on by itself (`SA_RESTART`). So a blocked thread is asked once
//! at most by those who let the program go on.

use std::{
    panic::Location,
    ptr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    census::{self, CensusEntry},
    heritage::Marks,
    leaks::Bond,
};
use crate::runtime::{
    lifecycle,
    scheduler::{Processor, Worker},
    slot::{self, Slot},
    task::TaskRef,
    threads, urgent,
    wait::{AtomicReason, Wait},
};

/// Slots that one question is about at most: 10 µs of the thread's time, and 44 at most, were measured on a machine that was busy with other things.
const LOT: usize = 512;
/// For how long one worker is asked for all it knows.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long the clock thread waits, whose other work waits meanwhile.
const SHORT_PATIENCE: Duration = Duration::from_millis(10);
/// For how long a handler that has begun is waited for: only one that has no core takes longer.
const SOON: Duration = Duration::from_millis(20);
/// Between two looks whether the answer has come.
const PAUSE: Duration = Duration::from_micros(200);

/// Bytes of a name that are told, in words.
const NAME_WORDS: usize = 8;

/// Who runs on a worker.
#[derive(Debug)]
pub(crate) struct Holder {
    pub(crate) id: u64,
    pub(crate) name: Option<String>,
    pub(crate) started_at: &'static Location<'static>,
}

/// What a worker that is held has told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) holder: Option<Holder>,
    /// Without back traces.
    pub(crate) others: Vec<CensusEntry>,
}

/// Whether the program goes on after it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    GoesOn,
    Ends,
}

/// Where a worker's next question lies (G2).
pub(crate) type Mailbox = AtomicPtr<Question>;

/// A question with room for the answer.
pub(crate) struct Question {
    holder: TaskWords,
    others: Vec<SlotWords>,
    /// Whoever has taken the question does not touch it any more.
    done: AtomicBool,
}

/// A task, in words. The id is 0 where there is none.
#[derive(Default)]
struct TaskWords {
    id: AtomicU64,
    started_at: AtomicPtr<Location<'static>>,
    name_len: AtomicUsize,
    name: [AtomicU64; NAME_WORDS],
}

/// A goroutine that does not run, in words.
struct SlotWords {
    slot: &'static Slot,
    task: TaskWords,
    reason: AtomicReason,
    object: AtomicUsize,
    since: AtomicU32,
    /// The id of the goroutine whose end it waits for, or 0.
    joins: AtomicU64,
    /// A counted reference, or null (G7).
    marks: AtomicPtr<Marks>,
}

/// Questions that were taken and not answered in time (G2).
static LATE: Mutex<Vec<Arc<Question>>> = Mutex::new(Vec::new());

/// Asks a worker for the goroutine that runs on it. None when it does not answer soon, or nobody runs.
pub(crate) fn holder(processor: &Processor) -> Option<Holder> {
    ask(processor, &[], Instant::now() + SHORT_PATIENCE)?.holder
}

/// Asks a worker for the goroutine that runs on it and for all others that have begun there; fewer, when that takes too long or would interrupt a
/// call of a program that goes on more than once. None when it does not answer.
pub(crate) fn all(processor: &'static Processor, program: Program) -> Option<Told> {
    let mut slots = Vec::new();
    lifecycle::each_slot(|slot| {
        if ptr::eq(slot.worker_address(), processor) {
            slots.push(slot);
        }
    });
    let thread = processor.thread();
    let mut lots = slots.chunks(LOT).chain(slots.is_empty().then_some(&[][..]));
    let end = Instant::now() + PATIENCE;
    let mut told = ask(processor, lots.next()?, end)?;
    for lot in lots {
        // It may be blocked by now in what the last question has interrupted already.
        if program == Program::GoesOn && threads::is_blocked(thread) != Some(false) {
            break;
        }
        let Some(more) = ask(processor, lot, end) else { break };
        // Whoever runs now may be listed already.
        told.holder = told.holder.or(more.holder);
        told.others.extend(more.others);
    }
    Some(told)
}

/// Puts one question and waits for the answer.
fn ask(processor: &Processor, slots: &[&'static Slot], end: Instant) -> Option<Told> {
    LATE.lock().unwrap_or_else(PoisonError::into_inner).retain(|late| !late.is_done());
    let question = Arc::new(Question::about(slots));
    let (mailbox, this) = (&processor.watch.mailbox, Arc::as_ptr(&question).cast_mut());
    // ORDERING: Release. The handler's Acquire finds a question that was made wholly.
    let put = || mailbox.compare_exchange(ptr::null_mut(), this, Release, Relaxed).is_ok();
    // Somebody else asks.
    if !until(end, put) {
        return None;
    }
    let thread = processor.thread();
    let sent = urgent::interrupt(thread);
    let done = || question.is_done();
    // A worker that has ended answers nothing.
    if sent && until(end, || done() || processor.thread() != thread) && done() {
        return Some(question.read());
    }
    // ORDERING: Relaxed. Nothing was written to it if it comes back.
    if mailbox.compare_exchange(this, ptr::null_mut(), Relaxed, Relaxed).is_ok() {
        return None;
    }
    if until(Instant::now() + SOON, done) {
        return Some(question.read());
    }
    LATE.lock().unwrap_or_else(PoisonError::into_inner).push(question);
    None
}

/// Whether it is so, now or before the time is over.
fn until(end: Instant, is_so: impl Fn() -> bool) -> bool {
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(PAUSE);
    }
}

/// In the handler, on the worker's thread: answers the question that is put to it, if one is.
pub(crate) fn answer(worker: &Worker) {
    // ORDERING: Acquire. Pairs with the Release in `ask`.
    let question = worker.processor.watch.mailbox.swap(ptr::null_mut(), Acquire);
    // SAFETY: by G2 it is there until `done` is set, which is the last that happens here.
    let Some(question) = (unsafe { question.as_ref() }) else { return };
    let running = worker.running_or_panicking();
    if let Some(task) = running.and_then(Slot::task) {
        question.holder.write(task);
    }
    for words in &question.others {
        // G4, G5.
        if ptr::eq(words.slot.worker_address(), worker.processor)
            && running.is_none_or(|running| !ptr::eq(running, words.slot))
            && let Some(task) = words.slot.task()
        {
            words.write(task, running.is_some());
        }
    }
    // ORDERING: Release. Publishes the words above; pairs with the Acquire in `is_done`.
    question.done.store(true, Release);
}

impl Question {
    fn about(slots: &[&'static Slot]) -> Self {
        let others = slots.iter().map(|slot| SlotWords::about(slot)).collect();
        Self { holder: TaskWords::default(), others, done: AtomicBool::new(false) }
    }

    fn is_done(&self) -> bool {
        // ORDERING: Acquire. Pairs with the Release in `answer`.
        self.done.load(Acquire)
    }

    /// The answer, when it is done.
    fn read(&self) -> Told {
        let holder = self.holder.read().map(|(id, name, started_at)| Holder { id, name, started_at });
        Told { holder, others: self.others.iter().filter_map(SlotWords::read).collect() }
    }
}

// ORDERING: Relaxed, throughout the words. `done` publishes them.

impl TaskWords {
    fn write(&self, task: TaskRef) {
        self.started_at.store(ptr::from_ref(task.location()).cast_mut(), Relaxed);
        let name = task.name().unwrap_or_default().as_bytes();
        self.name_len.store(name.len(), Relaxed);
        for (word, bytes) in self.name.iter().zip(name.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(padded), Relaxed);
        }
        self.id.store(task.id(), Relaxed);
    }

    /// Id, name and place of start.
    fn read(&self) -> Option<(u64, Option<String>, &'static Location<'static>)> {
        // SAFETY: null, or the address of a `Location` that lives for ever, as `write` stored it.
        let started_at = unsafe { self.started_at.load(Relaxed).as_ref() }?;
        let len = self.name_len.load(Relaxed);
        let bytes: Vec<u8> = self.name.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
        let name = (len > 0).then(|| match bytes.get(..len) {
            Some(whole) => String::from_utf8_lossy(whole).into_owned(),
            // The last character may be cut in two.
            None => String::from_utf8_lossy(&bytes).trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned() + "…",
        });
        Some((self.id.load(Relaxed), name, started_at))
    }
}

impl SlotWords {
    fn about(slot: &'static Slot) -> Self {
        Self {
            slot,
            task: TaskWords::default(),
            reason: AtomicReason::default(),
            object: AtomicUsize::new(0),
            since: AtomicU32::new(0),
            joins: AtomicU64::new(0),
            marks: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// In the handler, with the slot's task. `labels`: G7.
    fn write(&self, task: TaskRef, labels: bool) {
        let Wait { reason, object } = census::named(self.slot.wait());
        self.reason.store(reason);
        self.object.store(object, Relaxed);
        self.since.store(self.slot.wait_since(), Relaxed);
        self.joins.store(self.slot.joins().unwrap_or(0), Relaxed);
        if labels && let Some(marks) = task.marks() {
            self.marks.store(Arc::into_raw(marks).cast_mut(), Relaxed);
        }
        self.task.write(task);
    }

    fn read(&self) -> Option<CensusEntry> {
        let (id, name, started_at) = self.task.read()?;
        let joins = self.joins.load(Relaxed);
        Some(CensusEntry {
            id,
            name,
            wait: Wait { reason: self.reason.load(), object: self.object.load(Relaxed) },
            joins: (joins != 0).then_some(joins),
            waited: slot::waited_since(self.since.load(Relaxed)),
            started_at,
            trace: Vec::new(),
            // Nothing is claimed of it: whether the wait has a time limit, or somebody has a handle, was not asked.
            bond: Bond::Open,
            marks: self.take_marks(),
            heritage: Weak::new(),
            stake: None,
        })
    }

    fn take_marks(&self) -> Option<Arc<Marks>> {
        let marks = self.marks.swap(ptr::null_mut(), Relaxed);
        // SAFETY: from `Arc::into_raw` in `write`, and taken out once.
        (!marks.is_null()).then(|| unsafe { Arc::from_raw(marks) })
    }
}

/// Of an answer that came too late.
impl Drop for SlotWords {
    fn drop(&mut self) {
        drop(self.take_marks());
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
