//! A goroutine's machine context: create on a stack, resume, suspend. A thin typed layer over `corosensei`.
//!
//! - K1: a coroutine is created, resumed and finished by one thread. `corosensei::Coroutine` is `!Send` for that reason.
//! - K2: the root function catches every panic, so [`Coroutine::resume`] never unwinds into the scheduler.
//! - K3: a suspended coroutine is never dropped: dropping would unwind frames that others may borrow from
//!   ("What stackful code must not do" in ARCHITECTURE.md). Only finished ones are.

use std::{num::NonZeroUsize, ops::RangeInclusive, ptr};

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

/// Return addresses of a stack's frames, the innermost first.
pub(crate) type Trace = Vec<usize>;

/// Frames of one trace at most: a goroutine that recurses is told by its first ones.
const MOST_FRAMES: usize = 128;

/// The handle by which the code on a coroutine suspends it. A resume gives null, to run on, or asks for a trace.
pub(crate) type Yielder = RawYielder<*mut Tracing, ()>;

/// A trace that is asked for.
pub(crate) struct Tracing {
    frames: Trace,
    /// Set when only this is asked for: an address below the frames that are suspended.
    bottom: Option<usize>,
    /// The coroutine's stack: what lies below it, on the stack of whoever resumes it, differs from time to time.
    stack: RangeInclusive<usize>,
}

/// Suspends the coroutine that `yielder` belongs to, and takes a trace of it as often as one is asked for before it runs on.
#[inline]
pub(crate) fn suspend(yielder: &Yielder) {
    let mut trace = yielder.suspend(());
    while !trace.is_null() {
        capture(yielder, TracingPtr(trace));
        trace = yielder.suspend(());
    }
}

/// Where a trace is to be written, which stays where it is until the coroutine suspends again.
struct TracingPtr(*mut Tracing);

// SAFETY: `on_parent_stack` runs its closure on the calling thread.
unsafe impl Send for TracingPtr {}

/// Walks the frames of the coroutine, on the stack of the one who resumed it: this may be deep, and pages of the coroutine's own stack
/// that it has never touched would stay with it.
#[cold]
#[inline(never)]
fn capture(yielder: &Yielder, tracing: TracingPtr) {
    // SAFETY: `Coroutine::trace` or `bottom` holds it exclusively and waits.
    if let Some(bottom) = &mut unsafe { &mut *tracing.0 }.bottom {
        *bottom = (&raw const tracing).addr();
        return;
    }
    yielder.on_parent_stack(move || {
        let TracingPtr(tracing) = { tracing };
        // SAFETY: `Coroutine::trace` holds it exclusively and waits.
        let Tracing { frames, stack, .. } = unsafe { &mut *tracing };
        let frame = |frame: &backtrace::Frame| {
            // Not all platforms tell where a frame lies.
            let at = frame.sp().addr();
            let inside = at == 0 || stack.contains(&at);
            if inside {
                frames.push(frame.ip().addr());
            }
            // The first frames are those of this walk.
            (inside || frames.is_empty()) && frames.len() < MOST_FRAMES
        };
        // SAFETY: what is unsynchronized is Windows's library; the unwinder of other platforms may run on many threads.
        unsafe { backtrace::trace_unsynchronized(frame) };
    });
}

/// What a resume came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resumed {
    /// The coroutine suspended itself.
    Suspended,
    /// Its root function returned; the stack is free.
    Finished,
}

/// K2, kept by force: an unwinding that came to the worker's loop would end a thread that owns suspended goroutines. Forgotten where nothing has
/// unwound.
pub(crate) struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        std::process::abort();
    }
}

/// One coroutine.
pub(crate) struct Coroutine(corosensei::Coroutine<*mut Tracing, (), (), StackRange>);

impl Coroutine {
    /// Puts `root` on the stack, to run at the first resume. `root` must not unwind (K2).
    #[inline]
    pub(crate) fn new<F>(stack: StackRange, root: F) -> Self
    where
        F: FnOnce(&Yielder) + 'static,
    {
        Self(corosensei::Coroutine::with_stack(stack, move |yielder, _| {
            let broken = AbortOnUnwind;
            root(yielder);
            std::mem::forget(broken);
        }))
    }

    /// Runs the coroutine on the calling thread until it suspends or finishes.
    #[inline]
    pub(crate) fn resume(&mut self) -> Resumed {
        match self.0.resume(ptr::null_mut()) {
            CoroutineResult::Yield(()) => Resumed::Suspended,
            CoroutineResult::Return(()) => Resumed::Finished,
        }
    }

    /// The frames of the coroutine, whose stack is `stack`, and which has run and is suspended. It stays suspended.
    pub(crate) fn trace(&mut self, stack: RangeInclusive<usize>) -> Trace {
        let mut tracing = Tracing { frames: Trace::new(), bottom: None, stack };
        let resumed = self.0.resume(&raw mut tracing);
        debug_assert!(matches!(resumed, CoroutineResult::Yield(())), "a trace runs nothing of the coroutine's");
        tracing.frames
    }

    /// From where on the stack of the coroutine, which has run and is suspended, may hold what it still needs: a little too low. It stays
    /// suspended.
    pub(crate) fn bottom(&mut self) -> usize {
        // Registers are saved below the frame that measures.
        const SAVED: usize = 256;
        let mut tracing = Tracing { frames: Trace::new(), bottom: Some(0), stack: 0..=0 };
        let resumed = self.0.resume(&raw mut tracing);
        debug_assert!(matches!(resumed, CoroutineResult::Yield(())), "as in `trace`");
        tracing.bottom.unwrap_or(0).saturating_sub(SAVED)
    }
}
