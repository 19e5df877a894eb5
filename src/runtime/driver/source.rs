//! Sources: the descriptors that pollers watch. A source has two sides, reading and writing; what each knows and who waits there is in
//! [`readiness`](super::readiness), with R1 to R4, V1 to V3, D1, D2, D6 and D7.
//!
//! - D3: sources are never freed, and used again with a new generation. An event that was fetched before its descriptor was deregistered
//!   carries the old generation and does nothing; one that passes the check in the last moment costs its new owner one look.
//! - D4: a descriptor is deregistered before it is closed, or before another file takes its number; its source is given back when nobody can wait any more.
//! - D5: *a descriptor outlives the worker that watches it.* A worker that ends first says so and then counts an event on all sources
//!   it watched. Whoever waits asks after R1 whether the source is watched, and has its own worker adopt it if not. One who was told that
//!   it is watched, and parks all the same, has read the tick before that event, and is woken by it (D1).

use std::{
    io,
    os::fd::BorrowedFd,
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicPtr, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::readiness::{Direction, Ready, Side};
use crate::{
    runtime::{
        driver::poller::KEY_BITS,
        scheduler::{self, Processor},
        waitq::Claimed,
    },
    util::prefetch,
};

/// One registered descriptor.
#[derive(Debug)]
pub(crate) struct Source {
    index: u32,
    generation: AtomicU32,
    /// Whose poller watches it; null for a source that is not in use.
    watcher: AtomicPtr<Processor>,
    read: Side,
    write: Side,
}

impl Source {
    /// The key of its events (E2): the index, and above it as much of the generation as the poller keeps. The lowest 8 bits are the least, where
    /// addresses have 32: an event that is late by 256 generations passes for a new one, and costs one look (D3).
    fn key(&self) -> u64 {
        // ORDERING: Relaxed. The pool's lock has ordered us after the last owner; and `dispatch` may err (D3).
        let generation = u64::from(self.generation.load(Relaxed));
        (generation << INDEX_BITS | u64::from(self.index)) & KEPT
    }
}

const CHUNK: usize = 256;
const CHUNKS: usize = 1 << 16;
/// An index fits.
const INDEX_BITS: u32 = (CHUNK * CHUNKS).trailing_zeros();
/// What the poller keeps of a key.
const KEPT: u64 = u64::MAX >> (u64::BITS - KEY_BITS);

static TABLE: [AtomicPtr<[Source; CHUNK]>; CHUNKS] = [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS];
static FREE: Mutex<(Vec<&'static Source>, usize)> = Mutex::new((Vec::new(), 0));

fn take() -> io::Result<&'static Source> {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if free.0.is_empty() {
        let sources = new_chunk(free.1)?;
        free.1 += 1;
        free.0.extend(sources);
    }
    Ok(free.0.pop().expect("a chunk has sources"))
}

/// Made in the heap and by a function of its own: an array of them in the caller's frame would cost every goroutine that registers a descriptor five
/// more pages of stack.
#[cold]
#[inline(never)]
fn new_chunk(chunk: usize) -> io::Result<&'static [Source]> {
    if chunk == CHUNKS {
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, "too many descriptors are registered"));
    }
    let source = |i| Source {
        index: (chunk * CHUNK + i) as u32,
        generation: AtomicU32::new(0),
        watcher: AtomicPtr::new(ptr::null_mut()),
        read: Side::new(),
        write: Side::new(),
    };
    let sources: Box<[Source; CHUNK]> =
        (0..CHUNK).map(source).collect::<Box<[_]>>().try_into().expect("so many were made");
    let sources: &'static [Source; CHUNK] = Box::leak(sources);
    // ORDERING: Release. Pairs with the Acquires in `source` and `worker_has_ended`.
    TABLE[chunk].store(ptr::from_ref(sources).cast_mut(), Release);
    Ok(sources)
}

/// The source that the key of an event names.
#[inline]
fn source(key: u64) -> &'static Source {
    let index = (key & ((1 << INDEX_BITS) - 1)) as usize;
    // ORDERING: Acquire. Pairs with the Release in `new_chunk`.
    let chunk = TABLE[index / CHUNK].load(Acquire);
    // SAFETY: a key names a source of a chunk that was published before; chunks are leaked.
    unsafe { &(&*chunk)[index % CHUNK] }
}

/// Passes events on to their sources, each if it is still the one that was registered (D3). With thousands of connections the sources, the
/// nodes of those who wait, and their units lie in no cache: all are asked for before any is needed. So a few events come in one call, and
/// each step is taken for all of them. What they say is used up.
pub(crate) fn dispatch(events: &mut [(u64, Ready)]) {
    let ahead = events.len() > 1;
    if ahead {
        for (key, _) in events.iter() {
            prefetch::fetch_lines(ptr::from_ref(source(*key)), size_of::<Source>().div_ceil(64));
        }
    }
    // V1.
    for (key, ready) in events.iter_mut() {
        let source = source(*key);
        // One that changes hands at this moment gets a look for nothing (D3).
        let same = source.key() == *key;
        for (side, happened) in [(&source.read, &mut ready.read), (&source.write, &mut ready.write)] {
            *happened = *happened && same && side.count(ready.last);
            if ahead && *happened {
                side.fetch_waiter();
            }
        }
    }
    // V2.
    let mut woken = Claimed::none();
    for (key, ready) in events {
        let source = source(*key);
        for (side, happened) in [(&source.read, ready.read), (&source.write, ready.write)] {
            if happened {
                side.claim_into(&mut woken);
            }
        }
    }
    // V3.
    woken.wake();
}

/// A source that watches one descriptor. [`Registration::unwatch`] comes before the descriptor is closed, and then [`Registration::end`] (D4).
#[derive(Debug)]
pub(crate) struct Registration {
    source: &'static Source,
}

impl Registration {
    /// Registers `fd` with the poller of the calling goroutine's worker; for plain threads, with one of the default runtime's.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let processor = scheduler::driver_for_current()?;
        let source = take()?;
        source.read.begin();
        source.write.begin();
        if let Err(error) = processor.poller().add(fd, source.key()) {
            give_back(source);
            return Err(error);
        }
        processor.sockets_changed(1);
        let registration = Self { source };
        registration.set_watcher(processor);
        Ok(registration)
    }

    #[inline]
    pub(crate) fn side(&self, direction: Direction) -> &'static Side {
        match direction {
            Direction::Read => &self.source.read,
            Direction::Write => &self.source.write,
        }
    }

    fn watcher(&self) -> &'static Processor {
        // ORDERING: Acquire. Pairs with the Release in `set_watcher`.
        let processor = self.source.watcher.load(Acquire);
        // SAFETY: set by `new` and not null before `end`; processors are never freed.
        unsafe { &*processor }
    }

    /// Whether the caller's own worker polls for it: what there is to know it knows as soon as the caller parks, or the clock thread is about to
    /// pass on what it has found in the worker's place.
    #[inline]
    pub(crate) fn is_watched_here(&self) -> bool {
        scheduler::is_of(self.watcher())
    }

    fn set_watcher(&self, processor: &'static Processor) {
        // ORDERING: Release. Whoever finds the watcher finds the descriptor in its poller.
        self.source.watcher.store(ptr::from_ref(processor).cast_mut(), Release);
    }

    /// Whether a worker polls for it (D5).
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watcher().is_polled()
    }

    /// Moves the registration to the caller's worker, unless it is watched. Not called twice at a time.
    pub(crate) fn adopt(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let old = self.watcher();
        if old.is_polled() {
            return Ok(());
        }
        let new = scheduler::driver_for_current()?;
        if ptr::eq(old, new) {
            // Its worker is about to begin.
            return Ok(());
        }
        // What is ready already comes as an event of the new poller. Twice is better than never: the old one comes out last.
        new.poller().add(fd, self.source.key())?;
        old.poller().remove(fd);
        old.sockets_changed(-1);
        new.sockets_changed(1);
        self.set_watcher(new);
        Ok(())
    }

    /// D4: nobody polls for it any more. Those who wait have to be told by the caller. Called once, and not while it is adopted.
    pub(crate) fn unwatch(&self, fd: BorrowedFd<'_>) {
        let processor = self.watcher();
        processor.poller().remove(fd);
        processor.sockets_changed(-1);
    }

    /// D4: nobody waits any more.
    pub(crate) fn end(&self) {
        give_back(self.source);
    }
}

/// D5: called by a worker that ends, after it has said so.
pub(crate) fn worker_has_ended(processor: &'static Processor) {
    let chunks = FREE.lock().unwrap_or_else(PoisonError::into_inner).1;
    for chunk in &TABLE[..chunks] {
        // ORDERING: Acquire. Pairs with the Release in `new_chunk`.
        let chunk = chunk.load(Acquire);
        // SAFETY: a chunk that is counted was published before; chunks are leaked.
        let sources = unsafe { &*chunk };
        for source in sources {
            // ORDERING: Relaxed. What this worker watched it has registered itself, or for threads that use the default
            // runtime, whose workers do not end. A source that changes hands at this moment gets a look for nothing.
            if ptr::eq(source.watcher.load(Relaxed), processor) {
                source.read.signal();
                source.write.signal();
            }
        }
    }
}

fn give_back(source: &'static Source) {
    // ORDERING: Relaxed. See `worker_has_ended`.
    source.watcher.store(ptr::null_mut(), Relaxed);
    // ORDERING: Relaxed. See `dispatch`; the pool's lock orders owners.
    source.generation.fetch_add(1, Relaxed);
    FREE.lock().unwrap_or_else(PoisonError::into_inner).0.push(source);
}
