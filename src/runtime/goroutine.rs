//! What users see of a goroutine: [`Goroutine`], a handle to its task, and [`Id`].
//!
//! - H1: a handle is a counted reference (J1 of `task`). So what it reads of the header is there, and nothing of the stack is kept by it.
//! - H2: `park` waits for the task's [`Token`](super::token), and `unpark` sets it. So an `unpark` that comes first is not lost (V1 there).
//! - H3: `JoinHandle`s hold the right to join, one for a task, and use it up: by waiting and taking the result, or by giving it up (J2, J3). A
//!   wait that ends before the goroutine does leaves the right where it is (J8).

use std::{fmt, mem::ManuallyDrop, panic, ptr::NonNull, time::Instant};

use crate::runtime::{
    park,
    task::{self, Ending, Header},
    unit::Unit,
    until::Until,
    wait::Reason,
};

/// A handle to a goroutine: its name, its id, and `unpark`.
///
/// Handles are cheap to clone and keep neither the goroutine nor its stack alive.
///
/// # Examples
///
/// ```
/// let waits = oxigo::Builder::new().name("waits".into()).spawn(oxigo::park)?;
/// let goroutine = waits.goroutine().clone();
/// assert_eq!(goroutine.name(), Some("waits"));
/// goroutine.unpark();
/// waits.join().unwrap();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Goroutine(NonNull<Header>);

// SAFETY: a handle reads constants and atomics of the header, and frees a task whose closure and result are `Send`.
unsafe impl Send for Goroutine {}
// SAFETY: as above.
unsafe impl Sync for Goroutine {}
impl panic::UnwindSafe for Goroutine {}
impl panic::RefUnwindSafe for Goroutine {}

impl Goroutine {
    /// The id, which no other goroutine of this process ever has.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn id(&self) -> Id {
        Id(self.header().id)
    }

    /// The name given with [`Builder::name`](crate::Builder::name), if any.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn name(&self) -> Option<&str> {
        self.header().name.as_deref()
    }

    /// Makes the goroutine's present or next [`park`](crate::park) return.
    ///
    /// As with [`std::thread::Thread::unpark`], several calls before one `park` count as one. It does not end any other wait.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn unpark(&self) {
        self.header().token.set(|| self.unit().expect("a goroutine that waits has started"));
    }

    /// A handle to the task.
    ///
    /// # Safety
    ///
    /// One reference of the task is counted for this handle (J1).
    #[inline]
    pub(super) unsafe fn counted(task: NonNull<Header>) -> Self {
        Self(task)
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: a handle is a counted reference.
        unsafe { self.0.as_ref() }
    }

    /// The unit of this goroutine, once it has started.
    pub(crate) fn unit(&self) -> Option<&'static Unit> {
        self.header().unit()
    }

    /// `park` of the calling goroutine or thread, whose handle this is. True when a notification ended it.
    pub(crate) fn park_self(&self, deadline: Option<Instant>) -> bool {
        let token = &self.header().token;
        if token.take() {
            park::spend();
            return true;
        }
        token.wait(park::current(), &Until::deadline(deadline), Reason::Park.alone())
    }

    /// Whether the goroutine has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.header().join_state.is_done()
    }

    /// Waits until the goroutine has ended. Called by the one holder of the right to join (J3).
    pub(crate) fn wait_finished(&self) {
        let header = self.header();
        header.join_state.wait(Reason::Join.on(header));
    }

    /// As [`wait_finished`](Self::wait_finished), but false when `until` comes first (J8). Unless it waits, it spends nothing of the slice.
    ///
    /// The wait names no task, as a plain join does: it may end though that one never does (E3 of `leaks`).
    pub(crate) fn wait_finished_until(&self, until: Until<'_>) -> bool {
        let header = self.header();
        header.join_state.wait_until(until, Reason::Join.alone(), Reason::Join.on(header))
    }

    /// Takes the result.
    ///
    /// # Safety
    ///
    /// The goroutine has ended, its closure returns `T`, and the caller holds the right to join and takes once (J2).
    pub(crate) unsafe fn take<T>(&self) -> Ending<T> {
        // The closure's type is not known here, but the place of the result is told by the task itself.
        let mut ending: ManuallyDrop<Option<Ending<T>>> = ManuallyDrop::new(None);
        let take = self.header().vtable.take;
        // SAFETY: by the caller the task's result type is `T`, so `ending` is the type that `take` writes.
        unsafe { take(self.0, (&raw mut ending).cast()) };
        ManuallyDrop::into_inner(ending).expect("a result is taken once")
    }

    /// Gives up the right to join: the result is dropped by the goroutine before its [`Exit`](task::Exit), or here when it has ended (J2).
    ///
    /// # Safety
    ///
    /// The caller holds the right to join and uses it up with this call; a result that was taken before is no obstacle.
    pub(crate) unsafe fn detach(&self) {
        if self.header().join_state.detach() {
            let clear = self.header().vtable.clear;
            // SAFETY: after the end the stage belongs to the caller.
            unsafe { clear(self.0) };
        }
    }
}

impl Clone for Goroutine {
    fn clone(&self) -> Self {
        self.header().join_state.count_one();
        // SAFETY: counted just now.
        unsafe { Self::counted(self.0) }
    }
}

impl Drop for Goroutine {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this handle's reference, given up once.
        unsafe { task::release(self.0) };
    }
}

impl fmt::Debug for Goroutine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Goroutine").field("id", &self.id()).field("name", &self.name()).finish()
    }
}

/// The id of a goroutine: a number that is never used twice in a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub(crate) u64);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
