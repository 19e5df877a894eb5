//! An allocator that counts. A test file that includes this counts what its whole process allocates; take [`alone`] in each test.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed},
    },
};

/// Bytes that are allocated now.
static LIVE: AtomicIsize = AtomicIsize::new(0);
/// Calls so far that gave memory.
static CALLS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every request goes to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed, here and below. A tally; nothing is published by it.
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: by the caller.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as isize - layout.size() as isize, Relaxed);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: by the caller.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALONE: Mutex<()> = Mutex::new(());

/// One test at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many calls that gave memory there have been.
pub(crate) fn calls() -> usize {
    CALLS.load(Relaxed)
}

/// How many bytes are allocated.
pub(crate) fn live() -> isize {
    LIVE.load(Relaxed)
}

/// The fewest allocations of several turns of `work`, after one that may set things up. What else the process does now and then (a thread
/// that starts, a buffer that grows) may come into one turn, not into all.
pub(crate) fn fewest(mut work: impl FnMut()) -> usize {
    work();
    let mut counted = (0..5).map(|_| {
        let before = calls();
        work();
        calls() - before
    });
    let first = counted.next().unwrap();
    counted.fold(first, usize::min)
}
