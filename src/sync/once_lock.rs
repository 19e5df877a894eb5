//! `OnceLock` and `LazyLock`: a value that is made once, at first use.
//!
//! - The value is written by the one run of the once that succeeds, and read only after it is done; it is never written again while shared.

use std::{
    cell::UnsafeCell,
    fmt,
    mem::MaybeUninit,
    ops::{Deref, DerefMut},
    panic::{RefUnwindSafe, UnwindSafe},
    time::Duration,
};

use super::once::Once;
use crate::runtime::present;

/// A place that is written once. Like `std::sync::OnceLock`, for goroutines.
///
/// It is not poisoned. When a closure panics, its own caller gets that panic and the place stays empty; the next caller, or one of those that were
/// waiting, runs its own closure.
///
/// # Examples
///
/// ```
/// use oxigo::sync::OnceLock;
///
/// static NAME: OnceLock<String> = OnceLock::new();
/// assert_eq!(NAME.get(), None);
/// assert_eq!(NAME.get_or_init(|| "ada".to_owned()), "ada");
/// assert_eq!(NAME.set("grace".to_owned()), Err("grace".to_owned()));
/// ```
pub struct OnceLock<T> {
    once: Once,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: sharing it shares the value, and lets any party put one in that another one takes out.
unsafe impl<T: Sync + Send> Sync for OnceLock<T> {}
// SAFETY: sending it sends the value.
unsafe impl<T: Send> Send for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    const_new! {
        /// An empty place.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new() -> Self {
            Self { once: Once::new(), value: UnsafeCell::new(MaybeUninit::uninit()) }
        }
    }

    /// The value, if it is there.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if !self.once.is_done() {
            return None;
        }
        // SAFETY: nobody writes while it is shared and done.
        let value = unsafe { &*self.value.get() };
        // SAFETY: done means that the value was written, before us.
        Some(unsafe { value.assume_init_ref() })
    }

    /// The value, if it is there, mutably.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        if !self.once.is_done() {
            return None;
        }
        // SAFETY: done means that the value was written; `&mut self` excludes others.
        Some(unsafe { self.value.get_mut().assume_init_mut() })
    }

    /// Puts `value` in, if the place is empty.
    ///
    /// # Errors
    ///
    /// Returns `value` if there is one already.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while another one makes the value.
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("run once"));
        value.map_or(Ok(()), Err)
    }

    /// Returns the value; if it is not there, `f` makes it. Of several callers one makes it, and the others wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let name = oxigo::sync::OnceLock::new();
    /// assert_eq!(name.get_or_init(|| "ada"), &"ada");
    /// assert_eq!(name.get_or_init(|| "grace"), &"ada");
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of `f` goes through; the place stays empty.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while another one makes the value. A call from within `f` waits for ever.
    pub fn get_or_init<F: FnOnce() -> T>(&self, f: F) -> &T {
        self.once.call_once_force(|_| {
            let value = f();
            // SAFETY: in a run of the once.
            unsafe { self.write(value) };
        });
        self.get().expect("done")
    }

    /// # Safety
    ///
    /// In a run of the once.
    unsafe fn write(&self, value: T) {
        // SAFETY: one run at a time (O1), and nobody reads before it is done.
        let place = unsafe { &mut *self.value.get() };
        place.write(value);
    }

    /// Waits until somebody has put the value in.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::OnceLock;
    ///
    /// static NAME: OnceLock<&str> = OnceLock::new();
    /// oxigo::go(|| NAME.set("ada"));
    /// assert_eq!(*NAME.wait(), "ada");
    /// ```
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait(&self) -> &T {
        self.once.wait_done(None);
        self.get().expect("done")
    }

    /// Like [`wait`](Self::wait), but waits at most `timeout`.
    ///
    /// # Blocking
    ///
    /// As `wait`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<&T> {
        self.once.wait_done(present::after(timeout));
        self.get()
    }

    /// Takes the value out, and leaves the place empty.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn take(&mut self) -> Option<T> {
        if !self.once.is_done() {
            return None;
        }
        self.once = Once::new();
        // SAFETY: it was done, so the value was written; now the place counts as empty.
        Some(unsafe { self.value.get_mut().assume_init_read() })
    }

    /// The value, if it is there.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let lock = Self::new();
        let set = lock.set(value);
        debug_assert!(set.is_ok());
        lock
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        self.get().map_or_else(Self::new, |value| Self::from(value.clone()))
    }
}

/// Two are equal when both are empty, or hold equal values.
impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => tuple.field(value),
            None => tuple.field(&format_args!("<uninit>")),
        }
        .finish()
    }
}

/// A value that is made by a closure at first use. Like `std::sync::LazyLock`, for goroutines.
///
/// # Examples
///
/// ```
/// use oxigo::sync::LazyLock;
///
/// static SQUARES: LazyLock<Vec<u32>> = LazyLock::new(|| (0..10).map(|n| n * n).collect());
/// assert_eq!(SQUARES[3], 9);
/// ```
///
/// # Panics
///
/// When its closure panics, whoever has run it gets that panic, with its payload. From then on using it panics with "LazyLock instance has
/// previously been poisoned", also for those that were waiting: there is no second closure to try. (Go's `sync.OnceValue` gives all callers
/// the first panic's value.)
///
/// # Blocking
///
/// Using it parks the goroutine, or blocks the thread, while another one makes the value.
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    make: UnsafeCell<Option<F>>,
}

// SAFETY: as `OnceLock`; the closure is taken by one party, under the once.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

impl<T, F> LazyLock<T, F> {
    /// The value, if it has been made.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::LazyLock;
    ///
    /// let name = LazyLock::new(|| "ada");
    /// assert_eq!(LazyLock::get(&name), None);
    /// assert_eq!(*name, "ada");
    /// assert_eq!(LazyLock::get(&name), Some(&"ada"));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn get(this: &Self) -> Option<&T> {
        this.value.get()
    }

    /// The value, if it has been made, mutably.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::LazyLock;
    ///
    /// let mut count = LazyLock::new(|| 1);
    /// assert_eq!(LazyLock::get_mut(&mut count), None);
    /// assert_eq!(*count, 1);
    /// assert_eq!(LazyLock::get_mut(&mut count), Some(&mut 1));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        this.value.get_mut()
    }
}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    const_new! {
        /// A value that `make` will make.
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn new(make: F) -> Self {
            Self { value: OnceLock::new(), make: UnsafeCell::new(Some(make)) }
        }
    }

    /// Makes the value, if it is not there, and returns it.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::LazyLock;
    ///
    /// let name = LazyLock::new(|| "ada");
    /// assert_eq!(*LazyLock::force(&name), "ada");
    /// ```
    ///
    /// # Panics
    ///
    /// A panic of the closure goes through. From then on this panics with "LazyLock instance has previously been poisoned": there is no second
    /// closure to try.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while another one makes the value. A call from within the closure waits for ever.
    #[inline]
    #[track_caller]
    pub fn force(this: &Self) -> &T {
        this.value.once.call_once_or_say("LazyLock instance has previously been poisoned", || {
            // SAFETY: one run at a time (O1), so nobody else is in the cell.
            let make = unsafe { &mut *this.make.get() }.take();
            let value = make.expect("a run that has failed poisons the once")();
            // SAFETY: in a run of the once.
            unsafe { this.value.write(value) };
        });
        this.value.get().expect("done")
    }

    /// Makes the value, if it is not there, and returns it mutably.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::LazyLock;
    ///
    /// let mut count = LazyLock::new(|| 1);
    /// *LazyLock::force_mut(&mut count) += 1;
    /// assert_eq!(*count, 2);
    /// ```
    ///
    /// # Panics
    ///
    /// As [`force`](Self::force).
    ///
    /// # Blocking
    ///
    /// Never parks: nobody else can be making the value.
    #[inline]
    #[track_caller]
    pub fn force_mut(this: &mut Self) -> &mut T {
        Self::force(this);
        this.value.get_mut().expect("done")
    }
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;

    /// As [`force`](Self::force).
    ///
    /// # Panics
    ///
    /// As `force`.
    ///
    /// # Blocking
    ///
    /// As `force`.
    #[inline]
    #[track_caller]
    fn deref(&self) -> &T {
        Self::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    /// As [`force_mut`](Self::force_mut).
    ///
    /// # Panics
    ///
    /// As `force_mut`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[inline]
    #[track_caller]
    fn deref_mut(&mut self) -> &mut T {
        Self::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tuple = f.debug_tuple("LazyLock");
        match self.value.get() {
            Some(value) => tuple.field(value),
            None => tuple.field(&format_args!("<uninit>")),
        }
        .finish()
    }
}
