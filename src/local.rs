//! `goroutine_local!`: values of which every goroutine has its own.
#![forbid(unsafe_code)]

use std::{
    any::Any,
    cell::{Cell, RefCell},
    error::Error,
    fmt,
    rc::Rc,
};

use crate::runtime::locals::{self, Found};

/// Declares statics of which every goroutine has its own value; [`std::thread_local!`] for goroutines.
///
/// Plain thread-locals are shared by all goroutines of a worker. The initialiser makes the value when a goroutine first uses it; the value is dropped
/// on the goroutine when that ends, before a [`join`](crate::JoinHandle::join) returns. A new goroutine inherits nothing. On a plain thread it is a
/// thread-local. The static is a [`LocalKey`].
///
/// # Examples
///
/// ```
/// use std::cell::{Cell, RefCell};
///
/// oxigo::goroutine_local! {
///     /// The request that this goroutine works on.
///     pub static REQUEST: Cell<u64> = Cell::new(0);
///     static LOG: RefCell<Vec<String>> = RefCell::default();
/// }
///
/// let tasks: Vec<_> = (1..=3)
///     .map(|n| {
///         oxigo::go(move || {
///             REQUEST.set(n);
///             LOG.with_borrow_mut(|log| log.push(format!("request {n}")));
///             oxigo::yield_now();
///             assert_eq!(LOG.with_borrow(|log| log.len()), 1);
///             REQUEST.get()
///         })
///     })
///     .collect();
/// let seen: Vec<_> = tasks.into_iter().map(|task| task.join().unwrap()).collect();
/// assert_eq!(seen, [1, 2, 3]);
/// assert_eq!(REQUEST.get(), 0);
/// ```
#[macro_export]
macro_rules! goroutine_local {
    () => {};
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = const $init:block $(; $($rest:tt)*)?) => {
        $(#[$attribute])*
        $visibility static $name: $crate::LocalKey<$type> = $crate::LocalKey::__new(|| $init);
        $($crate::goroutine_local! { $($rest)* })?
    };
    ($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attribute])*
        $visibility static $name: $crate::LocalKey<$type> = $crate::LocalKey::__new(|| $init);
        $($crate::goroutine_local! { $($rest)* })?
    };
}

/// A static of which every goroutine has its own value; made by [`goroutine_local!`](crate::goroutine_local).
///
/// The methods are those of [`std::thread::LocalKey`].
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> Self {
        Self { init }
    }

    /// Statics are told apart by where they are; they are not empty, so no two are in one place.
    fn key(&'static self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// The value, made by `init` if there is none.
    fn get_or_init(&'static self, init: impl FnOnce() -> T) -> Result<Rc<T>, AccessError> {
        if let Some(value) = self.find()? {
            return Ok(value);
        }
        let new = Rc::new(init());
        // The initialiser may have used the key itself: the first value stays.
        if let Some(value) = self.find()? {
            return Ok(value);
        }
        locals::with(|store| match store {
            None => Err(AccessError),
            Some(store) => {
                store.add(self.key(), Rc::clone(&new) as Rc<dyn Any>);
                Ok(new)
            }
        })
    }

    fn find(&'static self) -> Result<Option<Rc<T>>, AccessError> {
        match locals::with(|store| store.map(|store| store.find(self.key()))) {
            None | Some(Found::Dropped) => Err(AccessError),
            Some(Found::Nothing) => Ok(None),
            Some(Found::Value(value)) => Ok(Some(value.downcast().expect("one static has one type"))),
        }
    }

    /// Calls `f` with this goroutine's value, which is made first if there is none yet.
    ///
    /// `f` may park: the value is this goroutine's alone.
    ///
    /// # Panics
    ///
    /// When the value has been dropped already: in the `Drop` of another value, at the end of the goroutine.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser or `f` does.
    #[track_caller]
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        match self.try_with(f) {
            Ok(result) => result,
            Err(error) => panic!("{error}"),
        }
    }

    /// Like [`with`](Self::with), but returns an error in place of the panic.
    ///
    /// # Errors
    ///
    /// When the value has been dropped.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser or `f` does.
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let value = self.get_or_init(self.init)?;
        Ok(f(&value))
    }

    /// Calls `old` to change a value that is there, or makes one of `new`.
    #[track_caller]
    fn replace_with(&'static self, new: T, old: impl FnOnce(&T, T)) {
        let mut new = Some(new);
        match self.get_or_init(|| new.take().expect("called once")) {
            Err(error) => panic!("{error}"),
            Ok(value) => {
                if let Some(new) = new {
                    old(&value, new);
                }
            }
        }
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value, without running the initialiser.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// # Blocking
    ///
    /// Parks only if the `Drop` of the old value does.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.replace_with(Cell::new(value), |cell, new| cell.set(new.into_inner()));
    }

    /// A copy of the value.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser does.
    #[track_caller]
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the value and leaves the default.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser does.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Takes the value and leaves another.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with).
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser does.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Calls `f` with the value, borrowed.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed mutably.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser or `f` does.
    #[track_caller]
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Calls `f` with the value, borrowed mutably.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser or `f` does.
    #[track_caller]
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value, without running the initialiser.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed.
    ///
    /// # Blocking
    ///
    /// Parks only if the `Drop` of the old value does.
    #[track_caller]
    pub fn set(&'static self, value: T) {
        self.replace_with(RefCell::new(value), |cell, new| drop(cell.replace(new.into_inner())));
    }

    /// Takes the value and leaves the default.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser does.
    #[track_caller]
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Takes the value and leaves another.
    ///
    /// # Panics
    ///
    /// As [`with`](Self::with), and when the value is borrowed.
    ///
    /// # Blocking
    ///
    /// Parks only if the initialiser does.
    #[track_caller]
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("LocalKey { .. }")
    }
}

/// The value of a [`LocalKey`] has been dropped, since its goroutine or thread ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("a goroutine-local value is used during or after its destruction")
    }
}

impl Error for AccessError {}
