//! An allocator that counts, for tests of what things cost. A test file that uses it has a process of its own and runs one test at a time:
//!
//! ```text
//! #[path = "common/alloc.rs"]
//! mod alloc;
//!
//! #[global_allocator]
//! static ALLOCATOR: alloc::Counting = alloc::Counting;
//! ```
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed},
    },
};

static LIVE: AtomicIsize = AtomicIsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct Counting;

// SAFETY: every request goes to the system's allocator as it came; counting does not allocate. `realloc` is the trait's own: an allocation,
// and the end of another.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // ORDERING: Relaxed. A tally; nothing is published by it. So below.
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        // SAFETY: by the caller.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How many bytes are allocated now.
pub(crate) fn live() -> isize {
    LIVE.load(Relaxed)
}

/// How many allocations there have been.
pub(crate) fn calls() -> usize {
    CALLS.load(Relaxed)
}

/// One test at a time: what others allocate meanwhile would be counted as well.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
