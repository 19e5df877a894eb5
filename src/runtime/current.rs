//! What a goroutine, or a thread, can do about itself.

use std::{cell::Cell, mem::ManuallyDrop, panic::Location, process, thread, time::Duration};

use crate::{
    debug,
    runtime::{
        self, clock, fork,
        goroutine::Goroutine,
        lifecycle, present,
        scheduler::{self, Worker},
        task::TaskRef,
        wait::Reason,
    },
};

/// The handle of the calling goroutine; on a plain thread, a handle of that thread.
///
/// # Examples
///
/// ```
/// let me = oxigo::current();
/// oxigo::go(move || me.unpark());
/// oxigo::park();
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn current() -> Goroutine {
    if let Some(task) = scheduler::current_task() {
        return task.goroutine();
    }
    let mine = THREAD.take().unwrap_or_else(|| ManuallyDrop::new(of_thread()));
    let handle = Goroutine::clone(&mine);
    THREAD.set(Some(mine));
    handle
}

thread_local! {
    // No destructor: a thread has one handle up to the last destructor of its other locals, so that what it parks by is what others unpark.
    static THREAD: Cell<Option<ManuallyDrop<Goroutine>>> = const { Cell::new(None) };
}

#[cold]
fn of_thread() -> Goroutine {
    let name = thread::current().name().map(Into::into);
    // SAFETY: closure and result are 'static.
    let made = unsafe { TaskRef::new(|| (), (), lifecycle::single_id(), name, Location::caller()) };
    let (task, goroutine) = made.expect("memory for a thread's handle");
    task.set_unit(runtime::park::current());
    task.abandon();
    goroutine
}

/// At the end of the calling thread.
pub(super) fn give_up_handle() {
    drop(THREAD.take().map(ManuallyDrop::into_inner));
}

/// Lets other goroutines run; on a plain thread, other threads.
///
/// The caller goes to the end of its worker's run queue. Nothing preempts a goroutine, so one that computes for long, or polls, should call this now
/// and then.
///
/// # Examples
///
/// ```
/// use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
///
/// static READY: AtomicBool = AtomicBool::new(false);
/// oxigo::go(|| READY.store(true, Relaxed));
/// while !READY.load(Relaxed) {
///     oxigo::yield_now();
/// }
/// ```
///
/// # Blocking
///
/// Parks the goroutine for a moment.
pub fn yield_now() {
    fork::check();
    scheduler::yield_now();
}

/// Waits until the handle of the calling goroutine or thread is [unparked](Goroutine::unpark).
///
/// An `unpark` that came before lets it return at once. It returns for no other reason.
///
/// # Examples
///
/// ```
/// let waits = oxigo::go(oxigo::park);
/// waits.goroutine().unpark();
/// waits.join().unwrap();
/// ```
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn park() {
    current().park_self(None);
}

/// Like [`park`], but waits at most `limit`.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, Instant};
///
/// let start = Instant::now();
/// oxigo::park_timeout(Duration::from_millis(2));
/// assert!(start.elapsed() >= Duration::from_millis(2));
/// ```
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn park_timeout(limit: Duration) {
    // A limit beyond what the clock can count is no limit.
    current().park_self(present::after(limit));
}

/// How many goroutines of the caller's runtime are alive, main goroutines included; on a plain thread, of the default runtime.
///
/// # Examples
///
/// ```
/// oxigo::run(|| {
///     let waits = oxigo::go(oxigo::park);
///     assert!(oxigo::num_goroutines() >= 2); // this one and the one that waits
///     waits.goroutine().unpark();
/// });
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn num_goroutines() -> usize {
    match Worker::current() {
        Some(worker) => worker.runtime.alive(),
        None => lifecycle::try_default().map_or(0, |runtime| runtime.alive()),
    }
}

/// Ends the process with `code` at once; no goroutine is unwound and nothing else of the program runs, except what
/// [`std::process::exit`] runs.
///
/// On a goroutine, call this and not `std::process::exit`, which runs the destructors of thread-locals on a worker whose other goroutines may still
/// use those values.
///
/// # Blocking
///
/// Never returns.
pub fn exit(code: i32) -> ! {
    if Worker::current().is_none() {
        process::exit(code);
    }
    debug::deadlock::keep_silent();
    let leave = thread::Builder::new().name("oxigo-exit".into()).spawn(move || process::exit(code));
    if leave.is_err() {
        clock::end_process(code);
    }
    loop {
        runtime::park::current().park(Reason::Forever.alone());
    }
}
