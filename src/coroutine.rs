//! A goroutine's machine context: create on a stack, resume, suspend. A thin typed layer over `corosensei`.
//!
//! - K1: a coroutine is created, resumed and finished by one thread. `corosensei::Coroutine` is `!Send` for that reason.
//! - K2: the root function catches every panic, so [`Coroutine::resume`] never unwinds into the scheduler.
//! - K3: a suspended coroutine is never dropped: dropping would unwind frames that others may borrow from
//!   (SOUNDNESS in ARCHITECTURE.md). Only finished ones are.

use std::num::NonZeroUsize;

use corosensei::{
    CoroutineResult, Yielder as RawYielder,
    stack::{Stack, StackPointer},
};

/// Where the stack of a coroutine lies: `limit..top`, with a guard below `limit`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackRange {
    top: NonZeroUsize,
    limit: NonZeroUsize,
}

impl StackRange {
    /// # Safety
    ///
    /// `limit..top` is mapped readable and writable for as long as a coroutine uses it, used by nothing else meanwhile,
    /// aligned as the platform's stacks are, and followed downwards by a guard.
    pub(crate) unsafe fn new(top: usize, limit: usize) -> Self {
        let top = NonZeroUsize::new(top).expect("a stack lies above address zero");
        let limit = NonZeroUsize::new(limit).expect("a stack lies above address zero");
        Self { top, limit }
    }
}

// SAFETY: `StackRange::new` is given a range that has these properties.
unsafe impl Stack for StackRange {
    #[inline]
    fn base(&self) -> StackPointer {
        self.top
    }

    #[inline]
    fn limit(&self) -> StackPointer {
        self.limit
    }
}

/// The handle by which the code on a coroutine suspends it.
pub(crate) type Yielder = RawYielder<(), ()>;

/// What a resume came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// The coroutine suspended itself.
    Suspended,
    /// Its root function returned; the stack is free.
    Finished,
}

/// One coroutine.
pub(crate) struct Coroutine(corosensei::Coroutine<(), (), (), StackRange>);

impl Coroutine {
    /// Puts `root` on the stack, to run at the first resume. `root` must not unwind (K2).
    #[inline]
    pub(crate) fn new<F>(stack: StackRange, root: F) -> Self
    where
        F: FnOnce(&Yielder) + 'static,
    {
        Self(corosensei::Coroutine::with_stack(stack, move |yielder, ()| root(yielder)))
    }

    /// Runs the coroutine on the calling thread until it suspends or finishes.
    #[inline]
    pub(crate) fn resume(&mut self) -> Resumed {
        match self.0.resume(()) {
            CoroutineResult::Yield(()) => Resumed::Suspended,
            CoroutineResult::Return(()) => Resumed::Finished,
        }
    }
}
