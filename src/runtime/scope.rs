//! `scope`: goroutines that borrow from the frame that waits for them.
//!
//! - Y1: `running` counts children whose closure, result or payload may still borrow. A child counts itself out in its task's
//!   [`Exit`], after its own reference to the task is gone, and touches only the shared `Arc` after that (P3).
//! - Y2: `scope` returns or unwinds only after `running` is zero, and its wait cannot be interrupted.

use std::{
    fmt,
    marker::PhantomData,
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc,
        atomic::{
            AtomicIsize, AtomicPtr, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    thread,
    time::Duration,
};

use crate::runtime::{
    go::{Builder, RawJoinHandle, cannot_start},
    goroutine::{Goroutine, Id},
    panics,
    park::{self, Wake},
    present,
    task::Exit,
    unit::Unit,
    until::Until,
    wait::Reason,
};

/// `repr(C)`: the count comes first, where [`debug::suspects`](crate::debug) looks for it.
#[repr(C)]
struct Data {
    /// Children, and one for the scope itself.
    running: AtomicUsize,
    /// Panics that no handle took.
    failed: AtomicIsize,
    /// Who waits in `scope`.
    owner: AtomicPtr<Unit>,
}

const _: () = assert!(mem::offset_of!(Data, running) == 0);

impl Data {
    fn leave(&self) {
        // ORDERING: AcqRel. Release: what the child did is done; Acquire for the last one, which wakes the owner.
        if self.running.fetch_sub(1, AcqRel) == 1 {
            let owner = self.owner.load(Relaxed);
            // SAFETY: the owner wrote its unit before it counted itself out, which happened before we found the last one;
            // units are type-stable (U2). We are the only one to find the count at one, so this is the one wake.
            unsafe { &*owner }.wake(Wake::Handoff);
        }
    }
}

/// What a child holds of its scope.
struct Child(Arc<Data>);

impl Exit for Child {
    fn exited(self, panicked: bool) {
        if panicked {
            // ORDERING: Relaxed. Read after the last `leave`.
            self.0.failed.fetch_add(1, Relaxed);
        }
        self.0.leave();
    }
}

/// Where scoped goroutines are started; made by [`scope`].
///
/// # Examples
///
/// ```
/// use oxigo::Scope;
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
///
/// // A function that starts goroutines in its caller's scope: they may borrow what outlives that.
/// fn count<'scope>(s: &'scope Scope<'scope, '_>, words: &'scope [&str], letters: &'scope AtomicUsize) {
///     for word in words {
///         s.go(|| letters.fetch_add(word.len(), Relaxed));
///     }
/// }
///
/// let letters = AtomicUsize::new(0);
/// oxigo::scope(|s| count(s, &["borrowed", "words"], &letters));
/// assert_eq!(letters.into_inner(), 13);
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    data: Arc<Data>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// Lets goroutines borrow from the caller's frame: all that are started in `f` have ended when `scope` returns.
///
/// # Examples
///
/// ```
/// let mut numbers = vec![3, 1, 2];
/// let longest = oxigo::scope(|s| {
///     let max = s.go(|| numbers.iter().copied().max());
///     let len = s.go(|| numbers.len());
///     assert_eq!(len.join().unwrap(), 3);
///     max.join().unwrap()
/// });
/// numbers.push(longest.unwrap());
/// assert_eq!(numbers, [3, 1, 2, 3]);
/// ```
///
/// # Panics
///
/// With "a scoped goroutine panicked" when a child panicked and its handle was not joined; resumes a panic of `f` itself. Both happen only after all
/// children have ended.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, until all children have ended.
#[track_caller]
pub fn scope<'env, F, T>(f: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let scope = Scope {
        data: Arc::new(Data {
            running: AtomicUsize::new(1),
            failed: AtomicIsize::new(0),
            owner: AtomicPtr::new(std::ptr::null_mut()),
        }),
        scope: PhantomData,
        env: PhantomData,
    };
    let result = panic::catch_unwind(AssertUnwindSafe(|| f(&scope)));
    let unit = park::current();
    // ORDERING: Relaxed. Published by the AcqRel below.
    scope.data.owner.store(std::ptr::from_ref(unit).cast_mut(), Relaxed);
    // ORDERING: AcqRel. Release publishes the unit to the last child; Acquire takes over what the children did.
    if scope.data.running.fetch_sub(1, AcqRel) > 1 {
        unit.park(Reason::Scope.on(&*scope.data));
    }
    // ORDERING: Acquire, for the case that the wake came from the last child.
    let failed = scope.data.failed.load(Acquire);
    match result {
        Err(payload) => panics::resume(payload),
        Ok(_) if failed > 0 => panic!("a scoped goroutine panicked"),
        Ok(value) => value,
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Starts `f` as a goroutine that may borrow what outlives the scope; see [`go`](crate::go).
    ///
    /// # Panics
    ///
    /// When no stack is available; the message names the limit.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn go<F, T>(&'scope self, f: F) -> ScopedJoinHandle<'scope, T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        // No closure: it would be the place of the panic.
        match self.spawn(Builder::new(), f) {
            Ok(handle) => handle,
            Err(error) => cannot_start(&error),
        }
    }

    /// Like [`go`](Self::go), but with a builder's name, stack size and hints.
    ///
    /// # Errors
    ///
    /// As [`Builder::spawn`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, builder: Builder, f: F) -> std::io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        // ORDERING: Relaxed. The scope itself, or the child that calls, is counted, so the count cannot reach zero here.
        self.data.running.fetch_add(1, Relaxed);
        // Counted out again when no goroutine comes of it, also when the closure's `Drop` panics then.
        struct NotStarted<'a>(&'a Data);
        impl Drop for NotStarted<'_> {
            fn drop(&mut self) {
                // ORDERING: Relaxed, as above.
                self.0.running.fetch_sub(1, Relaxed);
            }
        }
        let not_started = NotStarted(&self.data);
        let child = Child(Arc::clone(&self.data));
        // SAFETY: `scope` waits for `Child::exited` (Y2) before anything that outlives 'scope ends, and handles cannot outlive
        // 'scope.
        let goroutine = unsafe { builder.start(None, f, child, None)? };
        mem::forget(not_started);
        // SAFETY: the closure returns `T`, and this is the only handle.
        let handle = unsafe { RawJoinHandle::new(goroutine) };
        Ok(ScopedJoinHandle { handle, data: Arc::clone(&self.data), scope: PhantomData })
    }
}

impl Builder {
    /// Starts `f` with these options as a goroutine that may borrow what outlives `scope`; as in `std`. The same as [`Scope::spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// let words = vec!["ab", "cde"];
    /// let letters = oxigo::scope(|s| {
    ///     let builder = oxigo::Builder::new().name("counter".into());
    ///     let counter = builder.spawn_scoped(s, || words.iter().map(|word| word.len()).sum::<usize>())?;
    ///     Ok::<_, std::io::Error>(counter.join().unwrap())
    /// });
    /// assert_eq!(letters?, 5);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> std::io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        scope.spawn(self, f)
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ORDERING: Relaxed. A number to look at.
        f.debug_struct("Scope")
            .field("running", &self.data.running.load(Relaxed).saturating_sub(1))
            .finish_non_exhaustive()
    }
}

/// The right to wait for a scoped goroutine and to take its result. If it is dropped, the scope waits for the goroutine.
///
/// # Examples
///
/// ```
/// let words = ["ab", "cde"];
/// let length = oxigo::scope(|s| {
///     let first = s.go(|| words[0].len());
///     words[1].len() + first.join().unwrap()
/// });
/// assert_eq!(length, 5);
/// ```
pub struct ScopedJoinHandle<'scope, T> {
    handle: RawJoinHandle<T>,
    data: Arc<Data>,
    scope: PhantomData<&'scope ()>,
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Waits until the goroutine has ended and returns its value, or the payload of its panic, which then is no panic of the scope.
    ///
    /// # Errors
    ///
    /// The panic's payload.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn join(self) -> thread::Result<T> {
        let result = self.handle.join();
        if result.is_err() {
            // ORDERING: Relaxed. Read by `scope` after this handle is gone.
            self.data.failed.fetch_sub(1, Relaxed);
        }
        result
    }

    /// Like [`join`](Self::join), but waits at most `timeout`. See [`JoinHandle::join_timeout`](crate::JoinHandle::join_timeout).
    ///
    /// # Errors
    ///
    /// The handle, when the time has passed before the goroutine has ended. The result inside `Ok` is that of `join`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn join_timeout(self, timeout: Duration) -> Result<thread::Result<T>, Self> {
        self.join_until(Until::deadline(present::after(timeout)))
    }

    pub(crate) fn join_until(self, until: Until<'_>) -> Result<thread::Result<T>, Self> {
        if self.handle.goroutine().wait_finished_until(until) { Ok(self.join()) } else { Err(self) }
    }

    /// Whether the goroutine has ended.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_finished(&self) -> bool {
        self.handle.goroutine().is_finished()
    }

    /// The goroutine's id.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn id(&self) -> Id {
        self.handle.goroutine().id()
    }

    /// The goroutine itself: its name, its id, `unpark`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn goroutine(&self) -> &Goroutine {
        self.handle.goroutine()
    }
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("goroutine", self.goroutine()).finish_non_exhaustive()
    }
}
