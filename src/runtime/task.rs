//! The task: one allocation for each `go`, with the header, the closure and later its result. Handles to it are in `goroutine`; the word that
//! counts them and says who waits for the end, with J3 and J8, is in [`join_state`](super::join_state).
//!
//! - J1: a task is reference counted. One reference belongs to whoever is to run it (a deque, an injector, the slot), the others
//!   to handles. Handles, dumps and wakers refer to the task and never to the stack.
//! - J2: the stage (closure, result or nothing) belongs to the runner until DONE is set, and to the one `JoinHandle` after
//!   that; when no handle takes the result, whoever drops the last reference drops it. A handle whose result may borrow sets DETACHED when it
//!   is dropped: before DONE that leaves the stage to the runner, which drops the result before the task's [`Exit`]; after DONE the handle
//!   drops it itself. So a [`Goroutine`], which may be kept for ever, never keeps a result that borrows.
//! - J4: user code that belongs to a task (the closure, a payload's or result's `Drop`) runs on a goroutine or on the thread
//!   that holds the handle, never on a worker's own stack (P5).
//! - J5: [`Exit::exited`] runs after the task's own reference to closure, result and payload is gone (P3 for scopes).
//! - J6: `locals` is the goroutine's own: only it reads and writes the pointer and the store behind it, and takes both away at its end,
//!   after its closure and before its result is published. A thread's own task has none.
//! - J7: nothing of the user's runs on a goroutine after its task may have been freed: the runner gives up its reference last, and drops a
//!   result that nobody can take before that.

use std::{
    alloc::Layout,
    any::Any,
    io,
    mem::ManuallyDrop,
    panic::{self, AssertUnwindSafe, Location},
    ptr::{self, NonNull},
    sync::{
        Arc,
        atomic::{
            AtomicPtr,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
            compiler_fence,
        },
    },
};

use crate::{
    debug::heritage::{Heritage, Marks},
    runtime::{
        fork,
        goroutine::Goroutine,
        join_state::{JoinState, Step},
        locals::Locals,
        panics,
        park::Wake,
        scheduler, task_memory,
        token::Token,
        unit::Unit,
    },
    util::prefetch,
};

/// What a goroutine ended with.
pub(crate) type Ending<T> = Result<T, Box<dyn Any + Send>>;

/// What still has to happen when a goroutine has ended and its task is given up.
pub(crate) trait Exit: Send + 'static {
    /// `panicked`: the closure panicked, or never ran.
    fn exited(self, panicked: bool);
}

impl Exit for () {
    fn exited(self, _panicked: bool) {}
}

/// What all tasks have in common, whatever their closure. Handles ([`goroutine`](super::goroutine)) reach what is open to them.
pub(crate) struct Header {
    pub(super) join_state: JoinState,
    pub(super) vtable: &'static VTable,
    pub(super) id: u64,
    /// The unit of the goroutine once it has started; of the thread, for a thread's own task.
    unit: AtomicPtr<Unit>,
    /// Of `park` and `unpark`.
    pub(super) token: Token,
    /// What the goroutine keeps for itself, made by its first use (J6).
    locals: AtomicPtr<Locals>,
    pub(super) name: Option<Box<str>>,
    location: &'static Location<'static>,
}

impl Header {
    /// As [`TaskRef::unit`].
    pub(super) fn unit(&self) -> Option<&'static Unit> {
        // ORDERING: Acquire. Pairs with the Release in `set_unit`.
        let unit = self.unit.load(Acquire);
        // SAFETY: units are type-stable (U2).
        unsafe { unit.as_ref() }
    }
}

pub(super) struct VTable {
    /// The closure is dropped in place of running when it is refused.
    run: unsafe fn(NonNull<Header>, refused: bool),
    free: unsafe fn(NonNull<Header>),
    /// Moves the result into the `Option<Ending<T>>` at the pointer.
    pub(super) take: unsafe fn(NonNull<Header>, *mut ()),
    /// Drops the result.
    pub(super) clear: unsafe fn(NonNull<Header>),
    /// The bytes of the whole allocation.
    size: usize,
}

/// What it holds may be larger than the stack of whoever gives the task up: that is dropped where it lies, by [`clear`](Self::clear). The type
/// itself drops nothing, so that `Empty` is written without the rest, in release builds.
enum Stage<F, T> {
    Fresh(ManuallyDrop<F>),
    Ended(ManuallyDrop<Ending<T>>),
    Empty,
}

impl<F, T> Stage<F, T> {
    /// Drops what is there, in its place; a panic in it has been printed by the hook and ends here.
    #[inline]
    fn clear(&mut self) {
        match self {
            // SAFETY: not touched again, since the stage is empty afterwards; nothing unwinds out of `quietly`.
            Self::Fresh(closure) => panics::quietly(|| unsafe { ManuallyDrop::drop(closure) }),
            // SAFETY: as above.
            Self::Ended(ending) => panics::quietly(|| unsafe { ManuallyDrop::drop(ending) }),
            Self::Empty => return,
        }
        *self = Self::Empty;
    }
}

/// The whole allocation.
#[repr(C)]
struct Task<F, T, E> {
    header: Header,
    exit: Option<E>,
    stage: Stage<F, T>,
}

/// The reference by which a task is run. Not counted by itself: it is the runner's one reference (J1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRef(NonNull<Header>);

// SAFETY: closure and result are `Send` (bounds of `TaskRef::new`); the header is made of atomics and constants.
unsafe impl Send for TaskRef {}

/// Where a slot keeps its task: changed by one thread, and read by that one and its handlers of signals (G6 of `debug::question`).
#[derive(Debug)]
pub(crate) struct TaskCell(AtomicPtr<Header>);

impl TaskCell {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<TaskRef> {
        // ORDERING: Relaxed. Of one thread.
        NonNull::new(self.0.load(Relaxed)).map(TaskRef)
    }

    #[inline]
    pub(crate) fn set(&self, task: Option<TaskRef>) {
        // ORDERING: Relaxed. Of one thread; `finish` sees to it that a handler finds no task that is freed.
        self.0.store(task.map_or(ptr::null_mut(), |task| task.0.as_ptr()), Relaxed);
    }
}

impl TaskRef {
    /// Makes a task and its two references: the runner's, and the handle's.
    ///
    /// # Errors
    ///
    /// `OutOfMemory`.
    ///
    /// # Safety
    ///
    /// `F` and `T` must stay valid until the task has ended and no handle is left: either they are `'static`, or the caller
    /// waits for [`Exit::exited`] before what they borrow ends, and its handles do not outlive that either.
    #[inline]
    pub(crate) unsafe fn new<F, T, E>(
        closure: F,
        exit: E,
        id: u64,
        name: Option<Box<str>>,
        location: &'static Location<'static>,
    ) -> io::Result<(Self, Goroutine)>
    where
        F: FnOnce() -> T + Send,
        T: Send,
        E: Exit,
    {
        let place = task_memory::allocate(Layout::new::<Task<F, T, E>>())?.cast::<Task<F, T, E>>();
        let task = Task {
            header: Header {
                join_state: JoinState::new(),
                vtable: const {
                    &VTable {
                        run: __rust_begin_short_backtrace::<F, T, E>,
                        free: free::<F, T, E>,
                        take: take::<F, T, E>,
                        clear: clear::<F, T, E>,
                        size: size_of::<Task<F, T, E>>(),
                    }
                },
                id,
                unit: AtomicPtr::new(ptr::null_mut()),
                token: Token::new(),
                locals: AtomicPtr::new(ptr::null_mut()),
                name,
                location,
            },
            exit: Some(exit),
            stage: Stage::Fresh(ManuallyDrop::new(closure)),
        };
        // SAFETY: new memory of this layout.
        unsafe { place.write(task) };
        // SAFETY: the second of its two references.
        let handle = unsafe { Goroutine::counted(place.cast()) };
        Ok((Self(place.cast()), handle))
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the runner's reference keeps the task alive until `run` gives it up.
        unsafe { self.0.as_ref() }
    }

    /// Runs the closure to its end on the calling goroutine, publishes the result and gives up the runner's reference.
    #[inline]
    pub(crate) fn run(self) {
        let run = self.header().vtable.run;
        // SAFETY: the slot holds the runner's reference and runs it once.
        unsafe { run(self.0, scheduler::refuses_new()) }
    }

    /// Ends a task whose runtime has ended without running it. Called on a thread that may run its closure's `Drop`, and is no worker (J4).
    pub(crate) fn refuse(self) {
        let run = self.header().vtable.run;
        // SAFETY: the queue that the task was found in held the runner's reference.
        unsafe { run(self.0, true) }
    }

    #[inline]
    pub(crate) fn set_unit(&self, unit: &'static Unit) {
        // ORDERING: Release. `unpark` finds a unit whose home is set; pairs with the Acquire in `Header::unit`.
        self.header().unit.store(ptr::from_ref(unit).cast_mut(), Release);
    }

    /// The unit that the task runs as: known once it has started, or from the beginning when it has a stack of its own.
    pub(crate) fn unit(&self) -> Option<&'static Unit> {
        self.header().unit()
    }

    /// Gives up the runner's reference of a task that is never run: a thread's own.
    pub(crate) fn abandon(self) {
        // SAFETY: the runner's reference, given up once, by the one who made the task.
        unsafe { release(self.0) };
    }

    /// One more counted reference, for handles.
    pub(crate) fn goroutine(&self) -> Goroutine {
        self.header().join_state.count_one();
        // SAFETY: counted just now.
        unsafe { Goroutine::counted(self.0) }
    }

    /// Calls `f` with the store of goroutine-locals. Called by the goroutine itself only (J6); `f` does not park.
    pub(crate) fn with_locals<R>(&self, f: impl FnOnce(&Locals) -> R) -> R {
        let word = &self.header().locals;
        // ORDERING: Relaxed. Only the goroutine, on its one thread, touches the word.
        let mut locals = word.load(Relaxed);
        if locals.is_null() {
            locals = Box::into_raw(Box::default());
            word.store(locals, Relaxed);
        }
        // SAFETY: made above or earlier by this goroutine, and freed only at its end (J6), which this call is not: `end_locals` takes the pointer
        // away first and nothing of the user's runs between that and the freeing. Shared references only.
        f(unsafe { &*locals })
    }

    /// What the goroutine has inherited. Called on its thread, by itself or while it is suspended.
    pub(crate) fn heritage(&self) -> Option<Arc<Heritage>> {
        self.own_locals()?.heritage()
    }

    /// What is told of that. Called as [`heritage`](Self::heritage); in a handler as G7 of `debug::question` says.
    pub(crate) fn marks(&self) -> Option<Arc<Marks>> {
        self.own_locals()?.marks()
    }

    /// The store of goroutine-locals, if there is one. Called on the goroutine's thread, for no longer than it is suspended or the caller itself.
    fn own_locals(&self) -> Option<&Locals> {
        // ORDERING: Relaxed, as in `with_locals`.
        let locals = self.header().locals.load(Relaxed);
        // SAFETY: as in `with_locals`: only this thread frees it.
        unsafe { locals.as_ref() }
    }

    /// Gives the goroutine its heritage. Called before it can start, by the one who makes it.
    pub(crate) fn inherit(&self, heritage: Arc<Heritage>) {
        let locals = Locals::default();
        let _ = locals.set_heritage(Some(heritage));
        // ORDERING: Relaxed. Published with the task itself.
        self.header().locals.store(Box::into_raw(Box::new(locals)), Relaxed);
    }

    /// Whether the goroutine waits in `park`, has not been notified, and nobody else has a handle to do that. Called on its thread.
    pub(crate) fn is_parked_alone(&self) -> bool {
        // The runner's reference, and the one that `park` itself holds.
        let alone = self.header().join_state.references() == 2;
        // ORDERING: Relaxed. If it is alone, who else wrote the token is seen by `references`; the goroutine itself did so on this thread.
        alone && self.header().token.is_waited_for()
    }

    /// Asks for the task's memory: the common part and what follows.
    #[inline]
    pub(crate) fn fetch(&self) {
        prefetch::fetch_lines(self.0.as_ptr(), 2);
    }

    /// Where the task lies: numbers to compare, not to follow.
    pub(crate) fn extent(&self) -> (usize, usize) {
        (self.0.addr().get(), self.header().vtable.size)
    }

    pub(crate) fn id(&self) -> u64 {
        self.header().id
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.header().name.as_deref()
    }

    pub(crate) fn location(&self) -> &'static Location<'static> {
        self.header().location
    }

    /// Whether `other` has a closure of the same type, started in the same place of the program. A hint: the compiler may have made two vtables for one
    /// type, or one for two.
    pub(crate) fn is_twin_of(&self, other: &Self) -> bool {
        let (one, two) = (self.header(), other.header());
        ptr::eq(one.vtable, two.vtable) && one.location == two.location
    }
}

/// The id of the task whose header `Reason::Join` has named.
///
/// # Safety
///
/// `address` is that of a header, put into a `Wait` by `on`, and the task is alive.
pub(crate) unsafe fn id_at(address: usize) -> u64 {
    // `Wait` exposes the address.
    let header = ptr::with_exposed_provenance::<Header>(address);
    // SAFETY: by the caller.
    unsafe { &*header }.id
}

/// Runs the closure and keeps its result. By its name `std` ends the back trace of a panic here: how a goroutine gets to its closure is the same
/// for all.
///
/// # Safety
///
/// `header` is the runner's reference to a `Task<F, T, E>` that has not run.
unsafe fn __rust_begin_short_backtrace<F, T, E>(header: NonNull<Header>, refused: bool)
where
    F: FnOnce() -> T + Send,
    T: Send,
    E: Exit,
{
    let task = header.cast::<Task<F, T, E>>().as_ptr();
    // SAFETY: by J2 the stage and the exit belong to the runner now.
    let exit = unsafe { &mut (*task).exit }.take();
    // SAFETY: as above.
    let stage = unsafe { &mut (*task).stage };

    let ending = if refused {
        stage.clear();
        Err(Box::new("the runtime was dropped before this goroutine started") as Box<dyn Any + Send>)
    } else {
        let Stage::Fresh(closure) = stage else { unreachable!("a task runs once") };
        // SAFETY: taken once, since the stage is empty afterwards.
        let closure = unsafe { ManuallyDrop::take(closure) };
        *stage = Stage::Empty;
        panic::catch_unwind(AssertUnwindSafe(closure)).inspect_err(|_| panics::policy())
    };
    fork::end_of_goroutine();
    // What was entered and never left.
    #[cfg(feature = "tracing")]
    drop(crate::debug::spans::leave());
    // SAFETY: the runner's reference is still there.
    end_locals(unsafe { header.as_ref() });
    let failed = ending.is_err();
    // SAFETY: as above; the stage is empty.
    unsafe { (*task).stage = Stage::Ended(ManuallyDrop::new(ending)) };

    // SAFETY: the runner's reference, given up once; from here on the task is not touched.
    unsafe { finish::<F, T, E>(header) };
    if let Some(exit) = exit {
        exit.exited(failed);
    }
}

/// J3, J8: sets DONE, gives up the runner's reference and wakes the joiner.
///
/// A result that nobody can take any more is dropped before that, on this goroutine. It still counts as alive meanwhile, since its worker
/// might end otherwise (W1 of `worker`), and the slot still names the task, since the result's `Drop` may ask who runs, or park. Afterwards the
/// slot names no task: nothing keeps it alive, and a signal handler or a panic hook may look at any moment.
///
/// # Safety
///
/// As for `__rust_begin_short_backtrace`, at its end.
#[inline]
unsafe fn finish<F, T, E>(header: NonNull<Header>) {
    // SAFETY: the runner's reference is there until the end of this function.
    let join_state = &unsafe { header.as_ref() }.join_state;
    loop {
        let seen = join_state.look();
        if seen.is_alone() {
            // SAFETY: J2: without a handle that may join the stage belongs to the runner.
            unsafe { clear::<F, T, E>(header) };
            // SAFETY: the runner's reference is still there.
            end_locals(unsafe { header.as_ref() });
            scheduler::ended();
            scheduler::name_task(None);
            // A signal handler on this thread must not find the name of what is freed below.
            compiler_fence(SeqCst);
            if join_state.leave() {
                // SAFETY: ours was the last reference.
                unsafe { free::<F, T, E>(header) };
            }
            return;
        }
        scheduler::ended();
        scheduler::name_task(None);
        match join_state.publish(seen) {
            Step::Done => return,
            Step::Wake(joiner) => return joiner.wake(Wake::Handoff),
            Step::Again => {
                scheduler::name_task(Some(TaskRef(header)));
                scheduler::not_ended();
            }
        }
    }
}

/// Drops the goroutine's own values, on the goroutine (J4, J6).
#[inline]
fn end_locals(header: &Header) {
    // ORDERING: Relaxed, as in `with_locals`.
    let locals = header.locals.load(Relaxed);
    if !locals.is_null() {
        end_locals_slow(header, locals);
    }
}

#[cold]
fn end_locals_slow(header: &Header, locals: *mut Locals) {
    // SAFETY: made by `with_locals` and freed below. `Drop`s of the values come back to it by shared references.
    unsafe { &*locals }.end();
    // ORDERING: Relaxed, as in `with_locals`.
    header.locals.store(ptr::null_mut(), Relaxed);
    // SAFETY: as above; the pointer has been taken away, so nobody comes back. No value is left whose `Drop` could.
    drop(unsafe { Box::from_raw(locals) });
}

/// # Safety
///
/// Gives up one reference to a live task.
#[inline]
pub(super) unsafe fn release(header: NonNull<Header>) {
    // SAFETY: the caller's reference keeps the header alive up to the decrement.
    let task = unsafe { header.as_ref() };
    let free = task.vtable.free;
    if task.join_state.release() {
        // SAFETY: the count is zero, so nobody else has a reference.
        unsafe { free(header) };
    }
}

/// # Safety
///
/// `header` is a `Task<F, T, E>` without references.
unsafe fn free<F, T, E>(header: NonNull<Header>) {
    // SAFETY: nobody has a reference any more, so the stage is ours (J2).
    unsafe { clear::<F, T, E>(header) };
    // SAFETY: as above; the rest of it.
    unsafe { header.cast::<Task<F, T, E>>().drop_in_place() };
    // SAFETY: memory from `TaskRef::new`, for a task of this type.
    unsafe { task_memory::free(header.cast(), Layout::new::<Task<F, T, E>>()) };
}

/// # Safety
///
/// `header` is a `Task<F, T, E>`, and its stage belongs to the caller (J2).
#[inline]
unsafe fn clear<F, T, E>(header: NonNull<Header>) {
    // SAFETY: by the caller.
    unsafe { &mut (*header.cast::<Task<F, T, E>>().as_ptr()).stage }.clear();
}

/// # Safety
///
/// `header` is a `Task<F, T, E>` that has ended, `into` points to an `Option<Ending<T>>`, and the caller holds the right to
/// join (J2).
unsafe fn take<F, T, E>(header: NonNull<Header>, into: *mut ()) {
    let task = header.cast::<Task<F, T, E>>().as_ptr();
    // SAFETY: after the end the stage belongs to the joiner (J2).
    let stage = unsafe { &mut (*task).stage };
    if let Stage::Ended(ending) = stage {
        // SAFETY: taken once, since the stage is empty afterwards.
        let ending = unsafe { ManuallyDrop::take(ending) };
        *stage = Stage::Empty;
        // SAFETY: by the caller; the place holds `None`, which needs no drop.
        unsafe { into.cast::<Option<Ending<T>>>().write(Some(ending)) };
    }
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::process::ExitStatusExt, process::Command};

    use super::*;

    /// In a process of its own, which is told to end by the variable.
    #[test]
    fn more_handles_than_can_be_counted_end_the_process() {
        const CHILD: &str = "OXIGO_TEST_COUNT";
        // SAFETY: closure and result are 'static.
        let (task, handle) = unsafe { TaskRef::new(|| (), (), 0, None, Location::caller()) }.unwrap();
        task.abandon();
        if env::var_os(CHILD).is_none() {
            let name = "runtime::task::tests::more_handles_than_can_be_counted_end_the_process";
            let child =
                Command::new(env::current_exe().unwrap()).args(["--exact", name]).env(CHILD, "").output().unwrap();
            assert_eq!(child.status.signal(), Some(libc::SIGABRT));
            return;
        }
        task.header().join_state.count_most();
        drop((handle.clone(), handle.clone()));
        std::process::exit(0);
    }
}
