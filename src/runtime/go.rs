//! `go`, its builder and the join handle.

use std::{fmt, io, marker::PhantomData, mem, panic::Location, sync::Arc, thread, time::Duration};

use crate::{
    debug,
    runtime::{
        fork,
        goroutine::{Goroutine, Id},
        lifecycle::{self, RuntimeInner},
        options, present,
        scheduler::{Processor, Worker},
        slot::Slot,
        task::{Exit, TaskRef},
        until::Until,
    },
};

/// Starts `f` as a goroutine.
///
/// It runs on the runtime of the caller, or on the process's default runtime, which starts by itself at first use. Any worker may start it; from then
/// on it runs on that worker's thread alone, so values made inside `f` need not be `Send`.
///
/// Dropping the handle does not stop the goroutine. When `main` returns, the process ends without waiting for goroutines.
///
/// # Examples
///
/// ```
/// let answer = oxigo::go(|| 6 * 7);
/// assert_eq!(answer.join().unwrap(), 42);
/// ```
///
/// # Panics
///
/// When no stack is available, or the default runtime cannot be started; the message says why. When called on a goroutine of a
/// runtime that has been dropped. ([`Builder::spawn`] returns an error instead.)
///
/// # Blocking
///
/// Never parks.
#[inline]
#[track_caller]
pub fn go<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(f) {
        Ok(handle) => handle,
        Err(error) => cannot_start(&error),
    }
}

#[cold]
#[track_caller]
pub(crate) fn cannot_start(error: &io::Error) -> ! {
    panic!("cannot start a goroutine: {error}")
}

/// Options for a new goroutine: name, stack size, and hints about where it should start.
///
/// # Examples
///
/// ```
/// let handle = oxigo::Builder::new().name("worker 3".into()).stack_size(1 << 20).spawn(|| {
///     oxigo::current().name().map(str::to_owned)
/// })?;
/// assert_eq!(handle.join().unwrap().as_deref(), Some("worker 3"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    name: Option<Box<str>>,
    stack_size: Option<usize>,
    place: Placement,
}

#[derive(Debug, Default)]
enum Placement {
    #[default]
    Local,
    Near(Goroutine),
    Spread,
}

impl Builder {
    /// The options that [`go`] uses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// A name for panics, dumps and [`Goroutine::name`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name.into_boxed_str());
        self
    }

    /// Bytes of address space for the stack, its guard included; pages of it are used as they are touched.
    ///
    /// Default: the runtime's. However small the size, at least 64 KiB of the stack can be used.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// A hint to start on the worker that `goroutine` lives on, for two that talk to each other.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn near(mut self, goroutine: &Goroutine) -> Self {
        self.place = Placement::Near(goroutine.clone());
        self
    }

    /// A hint to start on the least loaded worker, for a goroutine that works by itself.
    ///
    /// A goroutine stays where it has started. Several that start together and wait are spread over the workers anyway; up to four of different kinds
    /// are not, since those that talk are faster on one worker. So this is for the stages of a short pipeline, for example, if each of them computes.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn spread(mut self) -> Self {
        self.place = Placement::Spread;
        self
    }

    /// Starts `f` as a goroutine with these options; see [`go`].
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a stack size above 2 GiB (small ones are rounded up); `OutOfMemory` when address space, mappings or memory for a stack are
    /// used up (the text names the limit); the error that keeps the default runtime from starting; `Other` on a runtime that has been dropped.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    #[track_caller]
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: closure and result are 'static.
        let goroutine = unsafe { self.start(None, f, (), None)? };
        Ok(JoinHandle { goroutine, result: PhantomData })
    }

    #[track_caller]
    pub(crate) fn spawn_on<F, T>(self, runtime: &Arc<RuntimeInner>, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // SAFETY: closure and result are 'static.
        let goroutine = unsafe { self.start(Some(runtime), f, (), None)? };
        Ok(JoinHandle { goroutine, result: PhantomData })
    }

    /// The one way in for all goroutines.
    ///
    /// # Safety
    ///
    /// As for [`TaskRef::new`].
    #[inline]
    #[track_caller]
    pub(crate) unsafe fn start<F, T, E>(
        self,
        runtime: Option<&Arc<RuntimeInner>>,
        f: F,
        exit: E,
        id: Option<u64>,
    ) -> io::Result<Goroutine>
    where
        F: FnOnce() -> T + Send,
        T: Send,
        E: Exit,
    {
        fork::checked()?;
        let location = Location::caller();
        let worker =
            Worker::current().filter(|worker| runtime.is_none_or(|runtime| Arc::ptr_eq(runtime, &worker.runtime)));
        let plain = self.stack_size.is_none() && matches!(self.place, Placement::Local);
        if let Some(worker) = worker
            && plain
        {
            if worker.runtime.is_closed() {
                return Err(refused());
            }
            worker.reserve()?;
            let id = id.unwrap_or_else(|| worker.new_id());
            // SAFETY: by the caller.
            let made = unsafe { TaskRef::new(f, exit, id, self.name, location) };
            let (task, goroutine) = made.inspect_err(|_| worker.credit())?;
            debug::born(&task);
            worker.push_fresh(task);
            return Ok(goroutine);
        }
        // SAFETY: by the caller.
        unsafe { self.start_elsewhere(runtime, f, exit, id, location) }
    }

    /// From outside the runtime, or with hints.
    ///
    /// # Safety
    ///
    /// As for [`TaskRef::new`].
    #[cold]
    unsafe fn start_elsewhere<F, T, E>(
        self,
        runtime: Option<&Arc<RuntimeInner>>,
        f: F,
        exit: E,
        id: Option<u64>,
        location: &'static Location<'static>,
    ) -> io::Result<Goroutine>
    where
        F: FnOnce() -> T + Send,
        T: Send,
        E: Exit,
    {
        let own;
        let runtime = match runtime {
            Some(runtime) => runtime,
            None => {
                own = lifecycle::current_or_default()?;
                &own
            }
        };
        if runtime.is_closed() {
            return Err(refused());
        }
        let slot = match self.stack_size {
            Some(bytes) if bytes != runtime.options().stack_size => {
                options::check_stack_size(bytes)?;
                Some(lifecycle::own_stack(bytes)?)
            }
            _ => {
                runtime.reserve(1)?;
                None
            }
        };
        let id = id.unwrap_or_else(lifecycle::single_id);
        // SAFETY: by the caller.
        let made = unsafe { TaskRef::new(f, exit, id, self.name, location) };
        let (task, goroutine) = made.inspect_err(|_| match slot {
            Some(slot) => {
                slot.own_stack().take();
                lifecycle::stack_pool_of(slot).put_one(slot);
            }
            None => runtime.give_back_credits(1),
        })?;
        debug::born(&task);
        if let Some(slot) = slot {
            task.set_unit(slot.unit());
        }
        match self.place.processor(runtime) {
            Some(processor) => {
                runtime.count_outside();
                runtime.place(processor, task);
            }
            None => runtime.inject(task),
        }
        Ok(goroutine)
    }
}

impl Placement {
    fn processor(&self, runtime: &Arc<RuntimeInner>) -> Option<&'static Processor> {
        match self {
            Self::Local => {
                Worker::current().filter(|worker| Arc::ptr_eq(runtime, &worker.runtime)).map(|worker| worker.processor)
            }
            Self::Spread => Some(runtime.least_loaded()),
            Self::Near(goroutine) => {
                let unit = goroutine.unit().filter(|unit| !unit.home().is_thread())?;
                // SAFETY: not a thread's.
                let home = unsafe { Slot::of(unit) }.worker_address();
                // A goroutine of another runtime, or one whose slot has moved on: no hint then.
                runtime.processors().iter().copied().find(|p| std::ptr::eq(*p, home))
            }
        }
    }
}

fn refused() -> io::Error {
    io::Error::other("this runtime has been dropped and takes no new goroutines")
}

/// The right to wait for a goroutine and to take its result.
///
/// Dropping it detaches the goroutine.
///
/// # Examples
///
/// ```
/// use std::panic::{catch_unwind, resume_unwind};
///
/// assert_eq!(oxigo::go(|| 6 * 7).join().unwrap(), 42);
///
/// // `unwrap` would panic with "Any { .. }"; this goes on with the goroutine's own panic.
/// let handle = oxigo::go(|| -> i32 { panic!("no luck") });
/// let caught = catch_unwind(|| handle.join().unwrap_or_else(|payload| resume_unwind(payload)));
/// assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"no luck"));
/// ```
pub struct JoinHandle<T> {
    goroutine: Goroutine,
    result: PhantomData<fn() -> T>,
}

impl<T> JoinHandle<T> {
    /// Waits until the goroutine has ended and returns its value, or the payload of its panic.
    ///
    /// # Errors
    ///
    /// The panic's payload; for a goroutine whose runtime was dropped before it started, a payload that says so.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    ///
    /// # Examples
    ///
    /// ```
    /// let failed = oxigo::go(|| panic!("no luck")).join();
    /// assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"no luck"));
    /// ```
    pub fn join(self) -> thread::Result<T> {
        self.goroutine.wait_finished();
        // SAFETY: it has ended, its closure returned `T`, and this handle is used up.
        unsafe { self.goroutine.take() }
    }

    /// Like [`join`](Self::join), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// The handle, if the time has passed before the goroutine has ended. The result inside `Ok` is that of `join`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (tx, rx) = oxigo::unbuffered();
    /// let waits = oxigo::go(move || rx.recv());
    /// let waits = waits.join_timeout(Duration::from_millis(2)).unwrap_err(); // not yet
    /// tx.send("now").unwrap();
    /// assert_eq!(waits.join_timeout(Duration::from_secs(60)).unwrap().unwrap(), Ok("now"));
    /// ```
    pub fn join_timeout(self, timeout: Duration) -> Result<thread::Result<T>, Self> {
        self.join_until(Until::deadline(present::after(timeout)))
    }

    pub(crate) fn join_until(self, until: Until<'_>) -> Result<thread::Result<T>, Self> {
        if self.goroutine.wait_finished_until(until) { Ok(self.join()) } else { Err(self) }
    }

    /// Whether the goroutine has ended.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_finished(&self) -> bool {
        self.goroutine.is_finished()
    }

    /// The goroutine's id.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn id(&self) -> Id {
        self.goroutine.id()
    }

    /// The goroutine itself: its name, its id, `unpark`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn goroutine(&self) -> &Goroutine {
        &self.goroutine
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("goroutine", &self.goroutine).finish_non_exhaustive()
    }
}

/// As a [`JoinHandle`], of a goroutine whose result may borrow: an untaken result does not outlive the handle and the goroutine (J2).
pub(crate) struct RawJoinHandle<T> {
    goroutine: Goroutine,
    result: PhantomData<fn() -> T>,
}

impl<T> RawJoinHandle<T> {
    /// # Safety
    ///
    /// The goroutine's closure returns `T`, and nobody else joins it.
    pub(crate) unsafe fn new(goroutine: Goroutine) -> Self {
        Self { goroutine, result: PhantomData }
    }

    pub(crate) fn join(self) -> thread::Result<T> {
        self.goroutine.wait_finished();
        // SAFETY: it has ended; the rest by `new`.
        unsafe { self.goroutine.take() }
    }

    pub(crate) fn goroutine(&self) -> &Goroutine {
        &self.goroutine
    }
}

impl<T> Drop for RawJoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: by `new`; after `join` the result has been taken.
        unsafe { self.goroutine.detach() };
    }
}

const _: () = assert!(mem::size_of::<JoinHandle<()>>() == mem::size_of::<usize>());
