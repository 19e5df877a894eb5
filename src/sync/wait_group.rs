//! `WaitGroup`: waits until a number of tasks are done.
//!
//! - V1: count and queue are behind one lock. Whoever takes the count to zero releases all who wait, in the same step.
//! - V2: `waiters` counts the parties in the queue, also one whose time has just passed and that is about to leave it (so a count of zero
//!   with waiters is no misuse); `returning` those that were released and have not looked at the state yet.
//! - V3: the inner part is behind an `Arc`, so that a `done` which releases the waiter that then drops the group touches nothing that is
//!   gone.

use std::{
    any::Any,
    fmt, mem,
    ops::Deref,
    panic::{self, AssertUnwindSafe, RefUnwindSafe, UnwindSafe},
    ptr::NonNull,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    context::{Context, ContextError},
    runtime::{
        park, present,
        until::Until,
        wait::Reason,
        waitq::{Node, Outcome, WaitQueue},
    },
    util::Lock,
};

#[cfg(not(loom))]
use crate::runtime::{panics, refuses_new};

/// Waits for a collection of goroutines to finish; Go's `sync.WaitGroup`.
///
/// If a group is dropped without a wait, its goroutines go on, and nobody receives their panics; these have been printed, as every goroutine's are
/// (with [`PanicPolicy::Abort`](crate::PanicPolicy::Abort) a panic ends the process).
///
/// It is not `Clone`: share it by reference in a [`scope`](crate::scope()), by `Arc`, or hand out [guards](Self::guard).
///
/// # Examples
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering}};
///
/// let sum = Arc::new(AtomicU32::new(0));
/// let tasks = oxigo::WaitGroup::new();
/// for n in 1..=4 {
///     let sum = Arc::clone(&sum);
///     tasks.go(move || {
///         sum.fetch_add(n, Ordering::Relaxed);
///     });
/// }
/// tasks.wait();
/// assert_eq!(sum.load(Ordering::Relaxed), 10);
/// ```
///
/// A clone would be a second count:
///
/// ```compile_fail,E0599
/// let tasks = oxigo::WaitGroup::new();
/// let copy = tasks.clone();
/// ```
#[derive(Default)]
pub struct WaitGroup {
    inner: TaggedArc,
}

#[derive(Default)]
struct Inner {
    state: Lock<State>,
}

/// The group and each of its guards: an `Arc`, which lies in memory as an odd address. So a word in memory tells them from references and from
/// whatever else was once at that address (`debug::suspects`), as with the ends of channels. It costs nothing: it is part of the offset
/// in each access.
struct TaggedArc(NonNull<Inner>);

const TAG: usize = 1;
const _: () = assert!(mem::align_of::<Inner>() > TAG);

// SAFETY: it owns and lends what an `Arc` would, and is used as one.
unsafe impl Send for TaggedArc where Arc<Inner>: Send {}
// SAFETY: as above.
unsafe impl Sync for TaggedArc where Arc<Inner>: Sync {}
impl UnwindSafe for TaggedArc where Arc<Inner>: UnwindSafe {}
impl RefUnwindSafe for TaggedArc where Arc<Inner>: RefUnwindSafe {}

impl TaggedArc {
    fn new(inner: Arc<Inner>) -> Self {
        // SAFETY: `into_raw` gives the address of an object.
        let inner = unsafe { NonNull::new_unchecked(Arc::into_raw(inner).cast_mut()) };
        // SAFETY: the tag is less than the bytes of an `Inner`.
        Self(unsafe { inner.byte_add(TAG) })
    }

    #[inline]
    fn get(&self) -> NonNull<Inner> {
        // SAFETY: back to where `new` began.
        unsafe { self.0.byte_sub(TAG) }
    }
}

impl Deref for TaggedArc {
    type Target = Inner;

    #[inline]
    fn deref(&self) -> &Inner {
        // SAFETY: alive while this has its share, which ends in `drop`.
        unsafe { self.get().as_ref() }
    }
}

impl Clone for TaggedArc {
    fn clone(&self) -> Self {
        // SAFETY: from `into_raw`, with one share, which is ours.
        unsafe { Arc::increment_strong_count(self.get().as_ptr()) };
        Self(self.0)
    }
}

impl Drop for TaggedArc {
    fn drop(&mut self) {
        // SAFETY: from `into_raw`; the share is ours, and this is the last use.
        drop(unsafe { Arc::from_raw(self.get().as_ptr()) });
    }
}

impl Default for TaggedArc {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

/// How the group that a wait has named lies in memory: numbers to compare, and nothing to follow.
#[cfg(not(loom))]
#[derive(Clone, Copy)]
pub(crate) struct GroupLayout(usize);

#[cfg(not(loom))]
impl GroupLayout {
    /// An `Arc` counts its shares first, then its weak ones, and has the object behind them. Where that does not hold, nothing is found.
    const BEFORE: usize = 2 * size_of::<usize>();
    /// The bytes of a group's allocation.
    pub(crate) const SPAN: usize = Self::BEFORE + size_of::<Inner>();

    pub(crate) fn of_group(address: usize) -> Self {
        Self(address - Self::BEFORE)
    }

    pub(crate) fn start(self) -> usize {
        self.0
    }

    /// The word of the group and of a guard, and where they are counted.
    pub(crate) fn guards(self) -> (usize, usize) {
        (self.0 + Self::BEFORE + TAG, self.0)
    }
}

struct State {
    count: isize,
    waiters: usize,
    /// Waiters that were released and have not returned yet (misuse: reuse before they have).
    returning: usize,
    queue: WaitQueue,
    /// The first panic of a goroutine started with `go`, and who it was.
    failure: Option<Failure>,
    /// Who failed first, once its payload has been re-raised.
    reported: Option<String>,
}

struct Failure {
    payload: Box<dyn Any + Send>,
    who: String,
}

impl Default for State {
    fn default() -> Self {
        Self { count: 0, waiters: 0, returning: 0, queue: WaitQueue::new(), failure: None, reported: None }
    }
}

impl Default for Lock<State> {
    fn default() -> Self {
        Self::new(State::default())
    }
}

impl WaitGroup {
    /// A group whose count is zero.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `delta`, which may be negative, to the count. When the count becomes zero, all who wait are released.
    ///
    /// Call this before you start the goroutine that calls [`done`](Self::done), not in that goroutine.
    ///
    /// # Panics
    ///
    /// With "negative WaitGroup counter" when the count would fall below zero, and with "WaitGroup counter overflow" when it would exceed
    /// [`isize::MAX`]; it stays as it was. (It is misuse to add from zero before everybody who was released has returned; the `wait` that has not
    /// returned then panics.)
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn add(&self, delta: isize) {
        self.inner.add(delta);
    }

    /// Takes one from the count.
    ///
    /// # Panics
    ///
    /// As [`add`](Self::add).
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn done(&self) {
        self.inner.add(-1);
    }

    /// Adds one to the count; the guard takes it back when it is dropped, wherever and however that happens.
    ///
    /// # Examples
    ///
    /// ```
    /// let tasks = oxigo::WaitGroup::new();
    /// let done = tasks.guard();
    /// oxigo::go(move || {
    ///     // … work …
    ///     drop(done);
    /// });
    /// tasks.wait();
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn guard(&self) -> DoneGuard {
        self.inner.add(1);
        DoneGuard { inner: self.inner.clone() }
    }

    /// Adds one to the count, starts `f` as a goroutine, and takes one back when it has ended.
    ///
    /// If `f` panics, the first [`wait`](Self::wait) re-raises that panic, after all others are done. It counts as a panic, too, if the runtime is
    /// dropped before `f` has started.
    ///
    /// # Panics
    ///
    /// When no goroutine can be started; the count is then as before.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[cfg(not(loom))]
    #[track_caller]
    pub fn go<F>(&self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        if refuses_new() {
            // Not a failure of the group: the caller is told.
            return drop(crate::go(|| ()));
        }
        let member = Member { guard: self.guard(), started: false };
        crate::go(move || member.run(f));
    }

    /// A goroutine of a model is a thread, and does not panic.
    #[cfg(loom)]
    pub(crate) fn go<F>(&self, f: F)
    where
        F: FnOnce() + Send + 'static,
    {
        let guard = self.guard();
        crate::facade::thread::spawn(move || {
            f();
            drop(guard);
        });
    }

    /// Waits until the count is zero.
    ///
    /// # Panics
    ///
    /// Re-raises the first panic of a goroutine that was started with [`go`](Self::go); other waits of the same group panic with a text that names
    /// the goroutine. It does not panic while the caller is unwinding already. Nor does it where that cannot be told: after the caller has caught a
    /// panic of its own with `catch_unwind`, while another goroutine of its worker waits in a `Drop` during a panic. Then a message on standard error
    /// says so.
    ///
    /// Once that panic has been re-raised, every later wait panics with that text too, until an [`add`](Self::add) from zero begins a new round.
    ///
    /// Panics with "WaitGroup is reused before previous wait has returned" when the count was zero and has been raised again before this wait has
    /// returned.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn wait(&self) {
        let done = self.wait_until(Until::EVER);
        debug_assert!(done);
    }

    /// Like [`wait`](Self::wait), but waits at most `timeout`. Returns false if the time has passed before the count was zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let tasks = oxigo::WaitGroup::new();
    /// tasks.add(1);
    /// assert!(!tasks.wait_timeout(Duration::from_millis(1)));
    /// tasks.done();
    /// assert!(tasks.wait_timeout(Duration::from_secs(60)));
    /// ```
    ///
    /// # Panics
    ///
    /// As `wait`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[must_use = "false means that the time has passed"]
    #[track_caller]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_until(Until::deadline(present::after(timeout)))
    }

    /// Like [`wait`](Self::wait), but waits until `deadline` at the latest. Returns false if the time has passed before the count was zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::{Duration, Instant};
    ///
    /// let deadline = Instant::now() + Duration::from_secs(60);
    /// let (first, second) = (oxigo::WaitGroup::new(), oxigo::WaitGroup::new());
    /// first.go(|| ());
    /// second.go(|| ());
    /// assert!(first.wait_deadline(deadline) && second.wait_deadline(deadline));
    /// ```
    ///
    /// # Panics
    ///
    /// As `wait`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[must_use = "false means that the time has passed"]
    #[track_caller]
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.wait_until(Until::deadline(Some(deadline)))
    }

    /// Like [`wait`](Self::wait), but gives up when `ctx` ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    ///
    /// let tasks = oxigo::WaitGroup::new();
    /// let _never_done = tasks.guard();
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(tasks.wait_ctx(&ctx), Err(ContextError::Canceled));
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, if it did so before the count was zero, or before this was called, even if the count is zero then. A panic of a
    /// goroutine is kept for another wait.
    ///
    /// # Panics
    ///
    /// As `wait`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn wait_ctx(&self, ctx: &Context) -> Result<(), ContextError> {
        ctx.check().inspect_err(|_| park::spend())?;
        if self.wait_until(ctx.until()) { Ok(()) } else { Err(ctx.why_ended()) }
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, until: Until<'_>) -> bool {
        self.wait_or(until, InDoubt::Tell)
    }

    /// Like [`wait`](Self::wait), for whoever would take its return for success.
    #[track_caller]
    pub(crate) fn wait_for_success(&self) {
        let done = self.wait_or(Until::EVER, InDoubt::Raise);
        debug_assert!(done);
    }

    #[track_caller]
    fn wait_or(&self, until: Until<'_>, in_doubt: InDoubt) -> bool {
        let inner = &*self.inner;
        // Before, since nothing yields under the lock.
        park::spend();
        let mut state = inner.state.lock();
        if state.count > 0 {
            let unit = park::current();
            let ticket = until.arm(unit);
            let node = Node::new(unit, ticket, std::ptr::null_mut());
            // SAFETY: the node stays in this frame until it is out of the queue.
            unsafe { state.queue.push(&node) };
            state.waiters += 1;
            drop(state);
            if !until.park(&node, ticket, Reason::WaitGroup.on(inner)) {
                let mut state = inner.state.lock();
                state.queue.remove(&node);
                // Whoever released the others in the same moment has counted only those it won.
                state.waiters -= 1;
                return false;
            }
            state = inner.state.lock();
            state.returning -= 1;
            if state.count > 0 {
                drop(state);
                panic!("WaitGroup is reused before previous wait has returned");
            }
        }
        if park::is_unwinding() && !(in_doubt != InDoubt::Tell && park::may_have_caught()) {
            // Kept for a wait that can raise it.
            let is_kept = state.failure.is_some();
            drop(state);
            if is_kept && park::may_have_caught() {
                tell_of_silence();
            }
            return true;
        }
        if let Some(Failure { payload, who }) = state.failure.take() {
            state.reported = Some(who);
            drop(state);
            park::resume_panic(payload);
        }
        if let Some(who) = &state.reported {
            let text = format!("{who}, which this WaitGroup waited for, has panicked");
            drop(state);
            panic!("{text}");
        }
        true
    }
}

/// What becomes of a failure where the caller seems to unwind, and a panic would end the process, but may have caught what it panicked with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InDoubt {
    Tell,
    Raise,
}

/// A failure must not pass for success without a word.
#[cold]
fn tell_of_silence() {
    // In a model nobody is in doubt.
    #[cfg(not(loom))]
    crate::util::stderr::print(
        "oxigo: a goroutine that a WaitGroup waited for has panicked, which is not raised anew: whoever waits seems to unwind, since another \
         goroutine of its worker waits in a `Drop` during a panic\n",
    );
}

impl Inner {
    #[track_caller]
    fn add(&self, delta: isize) {
        let _p4 = park::no_switch();
        let mut state = self.state.lock();
        let misuse = match state.count.checked_add(delta) {
            None => Some("WaitGroup counter overflow"),
            Some(count) if count < 0 => Some("negative WaitGroup counter"),
            Some(_) => None,
        };
        if let Some(text) = misuse {
            drop(state);
            panic!("{text}");
        }
        if delta > 0 && state.count == 0 && state.returning == 0 {
            // A new round begins; what was reported belongs to the last one.
            state.reported = None;
        }
        state.count += delta;
        if state.count > 0 || state.waiters == 0 {
            return;
        }
        let released = state.queue.claim_all(Outcome::Done);
        let count = released.len();
        state.returning += count;
        state.waiters -= count;
        drop(state);
        released.wake();
    }

    #[cfg(not(loom))]
    fn fail(&self, payload: Box<dyn Any + Send>) {
        let me = crate::current();
        let who = match me.name() {
            Some(name) => format!("goroutine {} [{name}]", me.id()),
            None => format!("goroutine {}", me.id()),
        };
        let mut state = self.state.lock();
        if state.failure.is_none() && state.reported.is_none() {
            state.failure = Some(Failure { payload, who });
        } else {
            drop(state);
            drop(payload);
        }
    }
}

impl fmt::Debug for WaitGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, waiting) = {
            let state = self.inner.state.lock();
            (state.count, state.waiters)
        };
        // P6: what is written to may wait, as a socket does.
        f.debug_struct("WaitGroup").field("count", &count).field("waiting", &waiting).finish()
    }
}

/// Counts as one task of a [`WaitGroup`] until it is dropped. Made by [`WaitGroup::guard`].
#[must_use = "dropping the guard says that the task is done"]
pub struct DoneGuard {
    inner: TaggedArc,
}

/// One goroutine of [`WaitGroup::go`].
#[cfg(not(loom))]
struct Member {
    guard: DoneGuard,
    started: bool,
}

#[cfg(not(loom))]
impl Member {
    /// Runs the task; its panic becomes the group's.
    fn run(mut self, f: impl FnOnce()) {
        self.started = true;
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
            panics::policy();
            self.guard.inner.fail(payload);
        }
    }
}

#[cfg(not(loom))]
impl Drop for Member {
    /// A closure that is dropped unrun by its runtime has failed. One that could not be started has not: the caller knows.
    fn drop(&mut self) {
        if !self.started && refuses_new() {
            self.guard.inner.fail(Box::new("the runtime was dropped before this goroutine started"));
        }
    }
}

impl Drop for DoneGuard {
    fn drop(&mut self) {
        self.inner.add(-1);
    }
}

impl fmt::Debug for DoneGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("DoneGuard { .. }")
    }
}
