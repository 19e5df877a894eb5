//! Readiness: what is known about one direction of a descriptor, and who waits there.
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
//! - D6: *a short read is as good as `WouldBlock`* on a TCP stream: it has emptied what was there, and what comes later is a new edge. So
//!   the side is cleared after it as in R3, and the next read waits without a try; but only one without a limit, whose own worker polls
//!   for it: the others must find what is there now. Not after an event with `LAST`: the end of the stream
//!   may have come with the bytes, and will not be told again.
//! - D7: *an event on a side that was READY already wakes nobody*: whoever has joined the queue found it not READY, so an event after that has
//!   set it, and that one's V2 takes or has taken them. Most events are of this kind: with each that comes in, a socket says that it is still
//!   writable.
//!
//! D3 to D5 are about the sources themselves: [`source`](super::source). Models: `loom_readiness` below.

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
    pub(super) fn begin(&self) {
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
    pub(super) fn count(&self, last: bool) -> bool {
        let bits = if last { READY | LAST } else { READY };
        // ORDERING: AcqRel. V1, before the lock of V2.
        let update = |word: u64| Some((word | bits).wrapping_add(TICK));
        self.word.fetch_update(AcqRel, Acquire, update).is_ok_and(|before| before & READY == 0)
    }

    /// V2. The caller owes `woken` their wake.
    #[inline]
    pub(super) fn claim_into(&self, woken: &mut Claimed) {
        self.waiters.lock().claim_all_into(Outcome::Done, woken);
    }

    /// Asks for the memory that V2 touches.
    #[cfg(not(loom))]
    #[inline]
    pub(super) fn fetch_waiter(&self) {
        self.waiters.lock().fetch_first();
    }
}

#[cfg(all(test, loom))]
mod loom_readiness {
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
