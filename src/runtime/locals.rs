//! What a goroutine, or a thread, keeps for itself: the values of its `goroutine_local!`s.
//!
//! - O1: a store belongs to one goroutine, or to one thread outside all goroutines, and only that one reaches it, from its own frames. A
//!   goroutine's store is made at its first use, or before its start when it inherits something (`debug::heritage`); a goroutine that has none
//!   pays a null pointer in its task.
//! - O2: user code (initialisers, `Drop`, what is done with a value) runs while the store is not borrowed, so it may use the store again, and
//!   may park. A value is shared (`Rc`) with whoever works with it, so it outlives that.
//! - O3: at the end values are dropped one by one, oldest first; a value made by a `Drop` joins the end of the line. A key whose value was
//!   dropped stays dead, so the line ends.

use std::{any::Any, cell::RefCell, rc::Rc, sync::Arc};

use crate::{
    debug::heritage::{Heritage, Marks},
    runtime::{panics, scheduler::Worker, slot::Slot},
};

/// See the module.
#[derive(Default)]
pub(crate) struct Locals {
    values: RefCell<Vec<Entry>>,
    heritage: RefCell<Option<Arc<Heritage>>>,
}

struct Entry {
    key: usize,
    /// None: dropped (O3).
    value: Option<Rc<dyn Any>>,
}

/// What a store has under a key.
pub(crate) enum Found {
    Value(Rc<dyn Any>),
    Nothing,
    Dropped,
}

impl Locals {
    pub(crate) const fn new() -> Self {
        Self { values: RefCell::new(Vec::new()), heritage: RefCell::new(None) }
    }

    pub(crate) fn find(&self, key: usize) -> Found {
        let entries = self.values.borrow();
        match entries.iter().find(|entry| entry.key == key) {
            None => Found::Nothing,
            Some(Entry { value: None, .. }) => Found::Dropped,
            Some(Entry { value: Some(value), .. }) => Found::Value(Rc::clone(value)),
        }
    }

    /// Adds the first value under a key.
    pub(crate) fn add(&self, key: usize, value: Rc<dyn Any>) {
        self.values.borrow_mut().push(Entry { key, value: Some(value) });
    }

    pub(crate) fn heritage(&self) -> Option<Arc<Heritage>> {
        self.heritage.borrow().clone()
    }

    pub(crate) fn marks(&self) -> Option<Arc<Marks>> {
        self.heritage.borrow().as_ref().map(|heritage| Arc::clone(heritage.marks()))
    }

    /// Sets what is inherited; what was there before.
    #[must_use]
    pub(crate) fn set_heritage(&self, heritage: Option<Arc<Heritage>>) -> Option<Arc<Heritage>> {
        self.heritage.replace(heritage)
    }

    /// Drops all values (O3). A panic in a `Drop` has been printed by the hook and ends here.
    pub(crate) fn end(&self) {
        let mut at = 0;
        loop {
            let value = match self.values.borrow_mut().get_mut(at) {
                None => return,
                Some(entry) => entry.value.take(),
            };
            at += 1;
            panics::quietly(move || drop(value));
        }
    }
}

/// For threads: std drops the store at the thread's end.
impl Drop for Locals {
    fn drop(&mut self) {
        self.end();
    }
}

/// Calls `f` with the store of the calling goroutine, or thread; none at the very end of a thread. `f` does not park.
pub(crate) fn with<R>(f: impl FnOnce(Option<&Locals>) -> R) -> R {
    thread_local! {
        // A const initialiser: nothing runs at first use.
        static OF_THREAD: Locals = const { Locals::new() };
    }
    // In a panic hook too: the hook runs on the goroutine that panics.
    match Worker::current().and_then(Worker::running_or_panicking).and_then(Slot::task) {
        Some(task) => task.with_locals(|locals| f(Some(locals))),
        None => {
            let mut f = Some(f);
            let done = OF_THREAD.try_with(|locals| f.take().map(|f| f(Some(locals))));
            match (done, f) {
                (Ok(Some(result)), _) => result,
                (_, Some(f)) => f(None),
                _ => unreachable!("either it was called or it is left"),
            }
        }
    }
}
