//! Readiness: what is known about one descriptor, and who waits for it.
//!
//! # Words
//!
//! A *source* has two *sides*, reading and writing. A side's word holds `READY` (the last look did not end in `WouldBlock`, as far as we
//! know), `LAST` (the event may have been the last one: the end of the stream, an error, urgent data), and a *tick* that counts events.
//! Pollers are edge-triggered: an event says that something has changed, once.
//!
//! # Protocol
//!
//! | who wants to read or write | who polls |
//! |---|---|
//! | R1: read the tick | V1: set READY and count the tick up, in one step |
//! | R2: try the system call; done unless `WouldBlock` | V2: lock the side's queue, take all who wait, unlock |
//! | R3: clear READY, if the tick is still that of R1 | V3: wake them |
//! | R4: lock the queue; if READY, or the tick is not that of R1, unlock and try again; else join the queue, unlock, park | |
//!
//! - D1: *no event is lost.* An event after R1 makes R3 fail, so R4 finds READY, or another tick when somebody else has cleared READY since, who
//!   need not have looked for what the caller waits for: a change of deadlines. For one after R3, either its V2 comes after R4's unlock
//!   and finds the waiter, or R4's lock comes after V2's unlock and sees V1, which was before it.
//!   Two may poll at a time, the worker and the clock thread in its place; the kernel gives each event to one of them.
//!   A poller that has several events takes each step for all of them before the next one: more may happen between an event's steps then, nothing else.
//! - D2: an edge wakes everybody who waits on that side, since one edge can stand for many connections to accept. Whoever finds nothing
//!   waits again.
//! - D3: sources are never freed, and used again with a new generation. An event that was fetched before its descriptor was deregistered
//!   carries the old generation and does nothing; one that passes the check in the last moment costs its new owner one look.
//! - D4: a descriptor is deregistered before it is closed, or before another file takes its number; its source is given back when nobody can wait any more.
//! - D5: *a descriptor outlives the worker that watches it.* A worker that ends first says so and then counts an event on all sources
//!   it watched. Whoever waits asks after R1 whether the source is watched, and has its own worker adopt it if not. One who was told that
//!   it is watched, and parks all the same, has read the tick before that event, and is woken by it (D1).
//! - D7: *an event on a side that was READY already wakes nobody*: whoever has joined the queue found it not READY, so an event after that has
//!   set it, and that one's V2 takes or has taken them. Most events are of this kind: with each that comes in, a socket says that it is still
//!   writable.
//! - D6: *a short read is as good as `WouldBlock`* on a TCP stream: it has emptied what was there, and what comes later is a new edge. So
//!   the side is cleared after it as in R3, and the next read waits without a try; but only one without a limit, whose own worker polls
//!   for it: the others must find what is there now. Not after an event with `LAST`: the end of the stream
//!   may have come with the bytes, and will not be told again.
//!
//! Models: `loom_source` below.

use crate::{
    facade::{
        AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    runtime::{
        park,
        until::Until,
        wait::Reason,
        waitq::{Claimed, Node, Outcome, WaitQueue},
    },
    util::Lock,
};

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub(crate) read: bool,
    pub(crate) write: bool,
    /// Maybe no other event follows (D6).
    pub(crate) last: bool,
}

/// One direction of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

const READY: u64 = 1;
const LAST: u64 = 2;
const TICK: u64 = 4;

/// The tick at which a try began, with `LAST`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tick(u64);

/// One direction of a source.
#[derive(Debug)]
pub(crate) struct Side {
    word: AtomicU64,
    waiters: Lock<WaitQueue>,
}

impl Side {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0), waiters: Lock::new(WaitQueue::new()) }
    }

    /// R1.
    #[inline]
    pub(crate) fn tick(&self) -> Tick {
        // ORDERING: Acquire. The system call that follows comes after the event that is counted here.
        Tick(self.word.load(Acquire) & !READY)
    }

    /// R3.
    #[inline]
    pub(crate) fn clear(&self, tick: Tick) {
        // ORDERING: Relaxed. R4 decides under the lock.
        let _ = self.word.compare_exchange(tick.0 | READY, tick.0, Relaxed, Relaxed);
    }

    /// D6: R3 after a short read.
    #[inline]
    pub(crate) fn emptied(&self, tick: Tick) {
        if tick.0 & LAST == 0 {
            self.clear(tick);
        }
    }

    /// Whether a try may find something.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        // ORDERING: Relaxed. Who finds it is not goes on to R4, which looks again.
        self.word.load(Relaxed) & READY != 0
    }

    /// For a new owner of the source.
    #[cfg(not(loom))]
    fn begin(&self) {
        // ORDERING: Relaxed. The registration that follows publishes.
        self.word.fetch_and(!LAST, Relaxed);
    }

    /// R4: waits for an event, or until `until`. False when that has come. May return without an event.
    pub(crate) fn wait(&self, tick: Tick, until: Until<'_>, reason: Reason) -> bool {
        let waiters = self.waiters.lock();
        // ORDERING: Relaxed. The lock orders this after V1 of every event whose V2 has passed (D1).
        if self.word.load(Relaxed) != tick.0 {
            return true;
        }
        let unit = park::current();
        let ticket = until.arm(unit);
        let node = Node::new(unit, ticket, std::ptr::null_mut());
        // SAFETY: the node stays in this frame until it is out of the queue.
        unsafe { waiters.push(&node) };
        drop(waiters);
        let woken = until.park(&node, ticket, reason.on(self));
        if !woken {
            self.waiters.lock().remove(&node);
        }
        woken
    }

    /// V1 to V3: an event, or something else that those who wait should look at.
    pub(crate) fn signal(&self) {
        self.happened(false);
    }

    fn happened(&self, last: bool) {
        let mut woken = Claimed::none();
        if self.count(last) {
            self.claim_into(&mut woken);
        }
        woken.wake();
    }

    /// V1: whether V2 is to follow (D7).
    #[inline]
    fn count(&self, last: bool) -> bool {
        let bits = if last { READY | LAST } else { READY };
        // ORDERING: AcqRel. V1, before the lock of V2.
        let update = |word: u64| Some((word | bits).wrapping_add(TICK));
        self.word.fetch_update(AcqRel, Acquire, update).is_ok_and(|before| before & READY == 0)
    }

    /// V2. The caller owes `woken` their wake.
    #[inline]
    fn claim_into(&self, woken: &mut Claimed) {
        self.waiters.lock().claim_all_into(Outcome::Done, woken);
    }

    /// Asks for the memory that V2 touches.
    #[cfg(not(loom))]
    #[inline]
    fn fetch_waiter(&self) {
        self.waiters.lock().fetch_first();
    }
}

#[cfg(not(loom))]
pub(crate) use table::{dispatch, worker_has_ended};

/// The table of all sources.
#[cfg(not(loom))]
mod table {
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

    use super::{Direction, Ready, Side};
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
        // ORDERING: Release. Pairs with the Acquire in `dispatch`.
        TABLE[chunk].store(ptr::from_ref(sources).cast_mut(), Release);
        Ok(sources)
    }

    /// The source that the key of an event names.
    #[inline]
    fn source(key: u64) -> &'static Source {
        let index = (key & ((1 << INDEX_BITS) - 1)) as usize;
        // ORDERING: Acquire. Pairs with the Release in `take`.
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
            // ORDERING: Acquire. Pairs with the Release in `take`.
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
}

#[cfg(not(loom))]
pub(crate) use table::Registration;

#[cfg(all(test, loom))]
mod loom_source {
    use loom::{
        sync::{Arc, atomic::AtomicUsize},
        thread,
    };

    use super::*;

    /// The kernel's side of it: bytes that are there.
    struct Pipe {
        side: Side,
        bytes: AtomicUsize,
    }

    fn read(pipe: &Pipe) {
        loop {
            let tick = pipe.side.tick();
            if pipe.bytes.fetch_update(AcqRel, Acquire, |n| n.checked_sub(1)).is_ok() {
                return;
            }
            pipe.side.clear(tick);
            assert!(pipe.side.wait(tick, Until::EVER, Reason::Read));
        }
    }

    /// An edge for each byte; the reader, on another thread, gets both.
    #[test]
    fn no_event_is_lost() {
        loom::model(|| {
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let poller = pipe.clone();
            let other = thread::spawn(move || {
                for _ in 0..2 {
                    poller.bytes.fetch_add(1, AcqRel);
                    poller.side.signal();
                }
            });
            read(&pipe);
            read(&pipe);
            other.join().unwrap();
        });
    }

    /// D7: two who signal at the same time, as the poller and a close do. The one whose event finds the side READY leaves the waking to the other.
    #[test]
    fn no_event_of_two_signallers_is_lost() {
        loom::model(|| {
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let others: Vec<_> = (0..2)
                .map(|_| {
                    let poller = pipe.clone();
                    thread::spawn(move || {
                        poller.bytes.fetch_add(1, AcqRel);
                        poller.side.signal();
                    })
                })
                .collect();
            read(&pipe);
            read(&pipe);
            others.into_iter().for_each(|other| other.join().unwrap());
        });
    }

    /// Two wait for the same change, as for an earlier deadline. The one looks, finds that it is still to wait, and clears the side; the other
    /// has looked before the change, and is to look again all the same.
    #[test]
    fn a_change_is_seen_by_both_who_wait() {
        loom::model(|| {
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let (one, changes) = (pipe.clone(), pipe.clone());
            let one = thread::spawn(move || {
                let tick = one.side.tick();
                one.bytes.load(Acquire);
                one.side.clear(tick);
            });
            let changes = thread::spawn(move || {
                changes.bytes.store(1, Relaxed);
                changes.side.signal();
            });
            loop {
                let tick = pipe.side.tick();
                if pipe.bytes.load(Acquire) == 1 {
                    break;
                }
                pipe.side.clear(tick);
                assert!(pipe.side.wait(tick, Until::EVER, Reason::Read));
            }
            one.join().unwrap();
            changes.join().unwrap();
        });
    }

    /// One edge, two readers, two bytes: the edge wakes both.
    #[test]
    fn one_edge_wakes_all_readers() {
        loom::model(|| {
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let second = pipe.clone();
            let reader = thread::spawn(move || read(&second));
            pipe.bytes.fetch_add(2, AcqRel);
            pipe.side.signal();
            read(&pipe);
            reader.join().unwrap();
        });
    }

    /// D1, where the poller has two events: each step is taken for both before the next one.
    #[test]
    fn no_event_of_two_that_come_together_is_lost() {
        loom::model(|| {
            let pipe = || Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let pipes = [pipe(), pipe()];
            let polled = pipes.clone();
            let poller = thread::spawn(move || {
                polled.iter().for_each(|pipe| _ = pipe.bytes.fetch_add(1, AcqRel));
                let heard = [polled[0].side.count(false), polled[1].side.count(false)];
                let mut woken = Claimed::none();
                for (pipe, heard) in polled.iter().zip(heard) {
                    if heard {
                        pipe.side.claim_into(&mut woken);
                    }
                }
                woken.wake();
            });
            let [one, other] = pipes;
            let reader = thread::spawn(move || read(&one));
            read(&other);
            reader.join().unwrap();
            poller.join().unwrap();
        });
    }

    /// D6: one byte and then the end of the stream, in one edge or in two; the reader, who asks for more than a byte, gets both.
    fn read_to_the_end(edges: usize) {
        loom::model(move || {
            const END: usize = 100;
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let poller = pipe.clone();
            let other = thread::spawn(move || {
                poller.bytes.fetch_add(1, AcqRel);
                if edges == 2 {
                    poller.side.happened(false);
                }
                poller.bytes.fetch_add(END, AcqRel);
                poller.side.happened(true);
            });
            let mut skip = false;
            loop {
                let tick = pipe.side.tick();
                if !(std::mem::take(&mut skip) && !pipe.side.is_ready()) {
                    match pipe
                        .bytes
                        .fetch_update(AcqRel, Acquire, |n| Some(if n == END { END } else { n.saturating_sub(1) }))
                    {
                        Ok(END) => break,
                        Ok(0) | Err(_) => {}
                        Ok(_) => {
                            pipe.side.emptied(tick);
                            skip = true;
                            continue;
                        }
                    }
                }
                pipe.side.clear(tick);
                assert!(pipe.side.wait(tick, Until::EVER, Reason::Read));
            }
            other.join().unwrap();
        });
    }

    #[test]
    fn the_end_behind_a_short_read_is_not_lost() {
        read_to_the_end(1);
        read_to_the_end(2);
    }

    /// Reads until told to stop; what tells it is looked at before or after the tick is read.
    fn read_or_stop(pipe: &Pipe, stop: &AtomicUsize, tick_first: bool) {
        loop {
            let early = (!tick_first).then(|| stop.load(Relaxed));
            let tick = pipe.side.tick();
            if early.unwrap_or_else(|| stop.load(Relaxed)) == 1 {
                return;
            }
            pipe.side.clear(tick);
            assert!(pipe.side.wait(tick, Until::EVER, Reason::Read));
        }
    }

    /// Changes of limits, `shutdown` and `close` are signalled as events are (descriptor.rs): whoever waits sees them.
    #[test]
    fn a_change_is_an_event() {
        loom::model(|| {
            let pipe = Arc::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) });
            let stop = Arc::new(AtomicUsize::new(0));
            let (p, s) = (pipe.clone(), stop.clone());
            let reader = thread::spawn(move || read_or_stop(&p, &s, true));
            stop.store(1, Relaxed);
            pipe.side.signal();
            reader.join().unwrap();
        });
    }

    /// Looking before the tick is read loses a change between the two: the check must bite.
    #[test]
    #[should_panic]
    fn looking_before_the_tick_is_caught() {
        loom::model(|| {
            // Leaked, as below.
            let pipe: &'static Pipe = Box::leak(Box::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) }));
            let stop: &'static AtomicUsize = Box::leak(Box::new(AtomicUsize::new(0)));
            let reader = thread::spawn(move || read_or_stop(pipe, stop, false));
            stop.store(1, Relaxed);
            pipe.side.signal();
            reader.join().unwrap();
        });
    }

    /// Clearing whatever tick there is loses the event between the try and the clear: the check must bite.
    #[test]
    #[should_panic]
    fn clearing_without_the_tick_is_caught() {
        loom::model(|| {
            // Leaked, since loom's objects cannot be dropped while a deadlock unwinds.
            let pipe: &'static Pipe = Box::leak(Box::new(Pipe { side: Side::new(), bytes: AtomicUsize::new(0) }));
            let poller = pipe;
            let other = thread::spawn(move || {
                poller.bytes.fetch_add(1, AcqRel);
                poller.side.signal();
            });
            while pipe.bytes.fetch_update(AcqRel, Acquire, |n| n.checked_sub(1)).is_err() {
                let tick = pipe.side.tick();
                pipe.side.clear(tick);
                assert!(pipe.side.wait(tick, Until::EVER, Reason::Read));
            }
            other.join().unwrap();
        });
    }
}
