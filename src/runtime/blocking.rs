//! `blocking`: calls that block an OS thread, on threads that exist for that.

use std::{
    io, panic,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use crate::{
    runtime::{
        alarm,
        blocking_pool::Pool,
        clock, cores, panics,
        park::{self, Wake},
        scheduler,
        task::TaskRef,
        threads::Ours,
        unit::Unit,
        wait::Reason,
    },
    stack::overflow::{self, AltStack},
};

/// Ticks after which a thread that could not be started is tried again.
const TRY_AGAIN: u64 = 10;

/// Runs `f` on a thread that it may block, and parks the goroutine until `f` has returned.
///
/// For calls that would hold a worker, and with it every goroutine that lives there: file systems, databases, C libraries,
/// `std::sync` waits. On a goroutine `f` runs on a thread of a pool (at most 512 threads, which end when idle; more calls queue);
/// on a plain thread it runs in place. `f` may borrow, since the caller waits.
///
/// While calls take some microseconds each, about as many threads as there are processors do them all. A call that finds these busy for longer gets a
/// thread of its own, but some milliseconds later.
///
/// The pool's threads have stacks of the standard library's size: 2 MiB, or `RUST_MIN_STACK`. An overflow there is reported as one of the goroutine,
/// and ends the process.
///
/// On the pool `f` is not part of the goroutine: [`current`](crate::current()) and goroutine-locals are those of the pool's thread, which other calls
/// use as well. Capture in `f` what it needs, such as the number of a request. The pool belongs to the process and not to a runtime:
/// [`go`](crate::go()) in `f` starts a goroutine of the default runtime, even if the caller belongs to a runtime of your own (there, use
/// [`Runtime::go`](crate::Runtime::go)).
///
/// # Examples
///
/// ```
/// let text = oxigo::run(|| oxigo::blocking(|| std::fs::read_to_string("Cargo.toml")));
/// assert!(text?.contains("oxigo"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// Resumes a panic of `f`. Panics when the pool has no thread and none can be started.
///
/// # Blocking
///
/// Parks the goroutine. On a plain thread `f` itself may block it.
pub fn blocking<F, T>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    attempt(f).unwrap_or_else(|error| panic!("{error}"))
}

/// As [`blocking`], for a call that can fail: it does where no thread can be started for it.
pub(crate) fn blocking_io<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> io::Result<T> + Send,
    T: Send,
{
    attempt(f)?
}

/// As [`blocking`], with the error when no thread can be started.
fn attempt<F, T>(f: F) -> io::Result<T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    let Some(task) = scheduler::current_task() else { return Ok(f()) };
    let caller = park::current();
    let mut call = Call { f: Some(f), result: None, task, caller };
    // SAFETY: `call` stays in this frame, untouched, until the pool has woken us, which is the last thing it does with it (P3).
    let job = unsafe { Job::new(&raw mut call) };
    submit(job)?;
    // Not by `call`: the pool has that now.
    caller.park(Reason::Blocking.alone());
    match call.result.take().expect("the pool wakes the caller after the call") {
        Ok(value) => Ok(value),
        Err(payload) => panics::resume(payload),
    }
}

/// One call, in the frame of the goroutine that waits for it.
struct Call<F, T> {
    f: Option<F>,
    result: Option<thread::Result<T>>,
    /// Whose call it is. It is there for as long as its goroutine waits.
    task: TaskRef,
    caller: &'static Unit,
}

/// A call with its type forgotten.
struct Job {
    call: *mut (),
    run: unsafe fn(*mut ()),
}

// SAFETY: closure and result are `Send` (bounds of `blocking` and `detached`), and the caller does not look before it is woken.
unsafe impl Send for Job {}

impl Job {
    /// # Safety
    ///
    /// The call must stay where it is, and be left alone, until its unit is woken.
    unsafe fn new<F, T>(call: *mut Call<F, T>) -> Self
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        Self { call: call.cast(), run: run_call::<F, T> }
    }

    fn run(self) {
        // SAFETY: by `new`, and a job runs once.
        unsafe { (self.run)(self.call) }
    }
}

/// Runs `f` on a thread of the pool and does not wait for it. `f` does not panic. Until it has run it may wake anybody.
pub(crate) fn detached<F>(f: F) -> io::Result<()>
where
    F: FnOnce() + Send + 'static,
{
    let expected = Expected::new();
    submit_boxed(move || {
        let _expected = expected;
        f();
    })
}

fn submit_boxed<F>(f: F) -> io::Result<()>
where
    F: FnOnce() + Send + 'static,
{
    let f = Box::into_raw(Box::new(f));
    let result = submit(Job { call: f.cast(), run: run_boxed::<F> });
    if result.is_err() {
        // SAFETY: the pool has not taken the job, so the box is still ours.
        drop(unsafe { Box::from_raw(f) });
    }
    result
}

/// Suppresses the report of a deadlock while it is there.
struct Expected;

impl Expected {
    fn new() -> Self {
        alarm::expect();
        Self
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        alarm::no_longer_expect();
        // The detector has perhaps given up looking.
        clock::active();
    }
}

/// # Safety
///
/// `f` is a boxed `F` that nobody else will use.
unsafe fn run_boxed<F: FnOnce()>(f: *mut ()) {
    // SAFETY: by the caller.
    let f = unsafe { Box::from_raw(f.cast::<F>()) };
    // A panic would end the pool's thread without counting it off.
    panics::quietly(f);
}

/// # Safety
///
/// `call` is a `Call<F, T>` that has not run and whose goroutine waits.
unsafe fn run_call<F, T>(call: *mut ())
where
    F: FnOnce() -> T,
{
    // SAFETY: the waiting goroutine does not touch its call before the wake.
    let call = unsafe { &mut *call.cast::<Call<F, T>>() };
    let f = call.f.take().expect("a job runs once");
    call.result = Some(panics::on_behalf_of(call.task, f));
    let caller = call.caller;
    // Last touch: after this the frame may be gone.
    caller.wake(Wake::Queue);
}

static POOL: Pool<Job> = Pool::new();

fn submit(job: Job) -> io::Result<()> {
    static ENOUGH: OnceLock<usize> = OnceLock::new();
    // Without the clock thread, which the first runtime starts, nobody would come to relieve the pool.
    let enough = if clock::has_begun() { *ENOUGH.get_or_init(cores::available) } else { usize::MAX };
    let left_over = POOL.submit(job, enough, spawn).map_err(|error| {
        let why =
            format!("cannot start a thread for a blocking call: {error}; the limit of threads or memory is reached");
        io::Error::new(io::ErrorKind::OutOfMemory, why)
    })?;
    if left_over {
        clock::active();
    }
    Ok(())
}

/// Called by the clock thread at every tick: threads for the jobs that are left over. Whether some are left over still.
pub(crate) fn relieve(now: u64) -> bool {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    POOL.has_left_over()
        && POOL.relieve(|| {
            // ORDERING: Relaxed. `NEXT` is the clock's alone.
            if now < NEXT.load(Relaxed) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            spawn().inspect_err(|_| NEXT.store(now + TRY_AGAIN, Relaxed))
        })
}

fn spawn() -> io::Result<()> {
    thread::Builder::new().name("oxigo-blocking".into()).spawn(serve).map(drop)
}

/// A thread of the pool.
fn serve() {
    scheduler::block_signals();
    let _ours = Ours::register();
    let _alternate_stack = AltStack::install();
    overflow::watch_thread(panics::report_blocking_overflow);
    POOL.serve(Job::run);
}
