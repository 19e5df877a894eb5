//! The idle protocol: no work waits beside a worker that sleeps.
//!
//! # Words
//!
//! A worker is *awake*, *searching* (awake, out of work, looking everywhere) or *asleep* (about to wait, or waiting, in its
//! poller). [`Doze`] is one worker's word for that; [`Idle`] counts searchers and sleepers of a runtime.
//!
//! # Directed wakes (a started goroutine, into its home's inbox)
//!
//! | waker | sleeper |
//! |---|---|
//! | W1: push to the inbox | S1: `doze := ASLEEP` |
//! | W2: fence (SeqCst) | S2: fence (SeqCst) |
//! | W3: if `doze` is ASLEEP, swap in NOTIFIED; who made that change writes the eventfd | S3: look at the inbox; if there is something, `doze := AWAKE` and stay up |
//! | | S4: wait in the poller |
//!
//! *No wake is lost.* The two fences are in one total order. If W2 comes first, S3 sees the push. If S2 comes first, W3 sees
//! ASLEEP (or that another waker has notified already), and the eventfd, which stays readable until it is read, ends S4 whether
//! or not it has begun.
//!
//! # Undirected wakes (a fresh closure that any worker may start)
//!
//! The publisher pushes, fences, and wakes one sleeper only if nobody is searching: a searcher will find it. A searcher that
//! gives up first leaves the count of searchers, then announces its sleep, fences, and looks everywhere once more (S1 to S3 with
//! "all sources" for "inbox"). *No closure is stranded:* in the order of the fences either the publisher comes first, and the
//! last look finds the closure, or the sleeper does, and then the publisher sees it asleep and no longer searching. A searcher
//! that finds work and was the last one wakes another sleeper when there is more, so that wakes spread without each publisher
//! paying for one.
//!
//! *Where there are more workers than cores* the publisher wakes nobody while as many are awake as there are cores, and in its last look a
//! worker leaves others' closures to the others while so many of them are awake. Still no closure is stranded: of those that announce
//! their sleep at the same time the last one, in the order of the fences, sees the others asleep, and stays up; and a publisher that sees a
//! worker awake comes, in that order, before its announcement. Workers whose threads are blocked do not count, as far as the clock thread knows of
//! them (`watchdog::hold`), and one worker is let in beside those that compute for long, however many they are.
//!
//! Closures that are not yet old enough to be taken by others (see `worker`) are not work in this sense: their owner is awake.
//!
//! Models: `loom_idle` below; `a_waker_that_does_not_fence_is_caught` shows that the check bites.

use crate::facade::{
    AtomicU32, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst},
    fence,
};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const NOTIFIED: u32 = 2;
const ENDED: u32 = 3;

/// Whether one worker sleeps.
pub(crate) struct Doze(AtomicU32);

impl Doze {
    /// The word of a worker that has not begun: it will look everywhere when it does, as one that was notified.
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(NOTIFIED))
    }

    /// The worker has ended; another one may begin later.
    #[cfg(not(loom))]
    pub(crate) fn reset(&self) {
        // ORDERING: Relaxed. The lock of the spare processors publishes it to the next worker.
        self.0.store(NOTIFIED, Relaxed);
    }

    /// S1 and S2. The caller looks at its sources after this and before it waits.
    pub(crate) fn announce(&self) {
        // ORDERING: Relaxed, then fence S2, the partner of W2.
        self.0.store(ASLEEP, Relaxed);
        fence(SeqCst);
    }

    /// The worker ends: to the others it sleeps, but nobody can wake it, so that whoever looks for a sleeper goes on to the next.
    pub(crate) fn end(&self) {
        // ORDERING: as in `announce`.
        self.0.store(ENDED, Relaxed);
        fence(SeqCst);
    }

    /// The end of sleep, or of the attempt. True when somebody notified us meanwhile.
    pub(crate) fn wake_up(&self) -> bool {
        // ORDERING: Acquire. Takes over what the notifier published, in case it was not through an inbox.
        self.0.swap(AWAKE, Acquire) == NOTIFIED
    }

    /// W2 and W3. True when the caller must write the eventfd.
    #[inline]
    #[must_use]
    pub(crate) fn notify(&self) -> bool {
        // Fence W2, the partner of S2.
        fence(SeqCst);
        self.notify_fenced()
    }

    /// W3 alone, for callers that have fenced.
    #[inline]
    #[must_use]
    pub(crate) fn notify_fenced(&self) -> bool {
        // ORDERING: Relaxed look; the exchange is AcqRel to pass on what the caller saw.
        self.0.load(Relaxed) == ASLEEP && self.0.compare_exchange(ASLEEP, NOTIFIED, AcqRel, Relaxed).is_ok()
    }

    /// Whether the worker sleeps, or has not got up or begun yet.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn is_resting(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        self.0.load(Relaxed) != AWAKE
    }

    /// Whether the worker was notified and has not got up, or has not begun.
    #[cfg(not(loom))]
    pub(crate) fn is_notified(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        self.0.load(Relaxed) == NOTIFIED
    }

    #[cfg(not(loom))]
    pub(crate) fn has_ended(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        self.0.load(Relaxed) == ENDED
    }

    /// Whether the worker sleeps, or has ended.
    #[inline]
    pub(crate) fn is_asleep(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        matches!(self.0.load(Relaxed), ASLEEP | ENDED)
    }
}

/// How many workers of a runtime search, sleep, and have not begun.
pub(crate) struct Idle {
    searching: AtomicUsize,
    sleeping: AtomicUsize,
    beginning: AtomicUsize,
}

impl Idle {
    pub(crate) fn new(workers: usize) -> Self {
        let none = || AtomicUsize::new(0);
        Self { searching: none(), sleeping: none(), beginning: AtomicUsize::new(workers) }
    }

    /// A worker has begun.
    #[cfg(not(loom))]
    pub(crate) fn begins(&self) {
        // ORDERING: Relaxed. A count for others' decisions.
        self.beginning.fetch_sub(1, Relaxed);
    }

    /// Becomes a searcher, if fewer than half of `workers` search already.
    pub(crate) fn begin_search(&self, workers: usize) -> bool {
        // ORDERING: Relaxed. A few searchers more or less do no harm; leaving is what must be ordered.
        if 2 * self.searching.load(Relaxed) >= workers {
            return false;
        }
        self.searching.fetch_add(1, AcqRel);
        true
    }

    /// Leaves the searchers; true when it was the last.
    pub(crate) fn end_search(&self) -> bool {
        // ORDERING: AcqRel. Ordered before the announcement of sleep, whose fence publishers partner with.
        self.searching.fetch_sub(1, AcqRel) == 1
    }

    /// S1 and S2 for directed and undirected wakes: who sees the worker asleep by its word sees it by the count as well.
    #[inline]
    pub(crate) fn announce(&self, doze: &Doze) {
        // ORDERING: Release, followed by the fence in `Doze::announce`.
        self.sleeping.fetch_add(1, Release);
        doze.announce();
    }

    /// The end of sleep, or of the attempt. True when somebody notified us meanwhile.
    #[inline]
    pub(crate) fn wake_up(&self, doze: &Doze) -> bool {
        let notified = doze.wake_up();
        // ORDERING: Release. A count for others' decisions.
        self.sleeping.fetch_sub(1, Release);
        notified
    }

    /// A worker ends, and counts as one that sleeps.
    #[inline]
    pub(crate) fn end(&self, doze: &Doze) {
        // ORDERING: as in `announce`.
        self.sleeping.fetch_add(1, Release);
        doze.end();
    }

    /// What the last searcher does that has found something, when there is more, which `left` tells: true when it has to wake a sleeper.
    #[inline]
    pub(crate) fn end_search_with_more(&self, left: impl FnOnce() -> bool) -> bool {
        let last = self.end_search();
        if !last {
            return false;
        }
        // Partner of the fence of a publisher: either it sees that nobody searches any more, or what it has published is seen below.
        fence(SeqCst);
        left()
    }

    /// Whether a publisher has somebody to wake. Call after the publishing push and a SeqCst fence; without the fence the answer
    /// is a hint.
    #[inline]
    pub(crate) fn wants_waking(&self) -> bool {
        // ORDERING: Relaxed, after the caller's fence.
        self.sleeping.load(Relaxed) > 0 && self.searching.load(Relaxed) == 0
    }

    /// As [`wants_waking`](Self::wants_waking), with the fence, for all that the caller has published.
    #[inline]
    pub(crate) fn must_wake(&self) -> bool {
        // Fence W2.
        fence(SeqCst);
        self.wants_waking()
    }

    /// Whether a worker sleeps, searches, or has not begun.
    #[cfg(not(loom))]
    #[inline]
    pub(crate) fn somebody_rests(&self) -> bool {
        // ORDERING: Relaxed. A hint.
        [&self.sleeping, &self.searching, &self.beginning].iter().any(|count| count.load(Relaxed) > 0)
    }

    #[inline]
    pub(crate) fn sleeping(&self) -> usize {
        // ORDERING: Relaxed. A hint.
        self.sleeping.load(Relaxed)
    }
}

#[cfg(all(test, loom))]
mod loom_idle {
    use loom::{
        sync::{Arc, Notify, atomic::AtomicBool},
        thread,
    };

    use super::*;

    struct World {
        doze: Doze,
        idle: Idle,
        work: AtomicBool,
        eventfd: Notify,
    }

    impl World {
        /// As a closure is injected.
        fn publish(&self) {
            self.work.store(true, Release);
            self.wake_one();
        }

        fn wake_one(&self) {
            if self.idle.must_wake() && self.doze.notify_fenced() {
                self.eventfd.notify();
            }
        }
    }

    fn world() -> Arc<World> {
        Arc::new(World { doze: Doze::new(), idle: Idle::new(1), work: AtomicBool::new(false), eventfd: Notify::new() })
    }

    /// Runs until it has seen the work; deadlocks, which loom reports, when a wake is lost.
    fn sleeper(world: &World, searches: bool) {
        loop {
            if world.work.load(Acquire) {
                return;
            }
            if searches && world.idle.begin_search(2) {
                let seen = world.work.load(Acquire);
                world.idle.end_search();
                if seen {
                    return;
                }
            }
            world.idle.announce(&world.doze);
            if !world.work.load(Relaxed) {
                world.eventfd.wait();
            }
            world.idle.wake_up(&world.doze);
        }
    }

    #[test]
    fn a_directed_wake_is_not_lost() {
        loom::model(|| {
            let world = world();
            let waker = world.clone();
            let other = thread::spawn(move || {
                waker.work.store(true, Release);
                if waker.doze.notify() {
                    waker.eventfd.notify();
                }
            });
            sleeper(&world, false);
            other.join().unwrap();
        });
    }

    #[test]
    fn an_undirected_wake_is_not_lost() {
        loom::model(|| {
            let world = world();
            let publisher = world.clone();
            let other = thread::spawn(move || {
                publisher.publish();
            });
            sleeper(&world, true);
            other.join().unwrap();
        });
    }

    /// While one searches the publisher leaves its closure to that one. If an answer ends the search, and whoever was answered has something else to do,
    /// it is left to the one that goes to sleep.
    #[test]
    fn a_search_that_an_answer_ends_leaves_no_closure_beside_a_sleeper() {
        loom::model(|| {
            let world = world();
            assert!(world.idle.begin_search(2));
            let (publisher, searcher) = (world.clone(), world.clone());
            let publisher = thread::spawn(move || publisher.publish());
            let searcher = thread::spawn(move || {
                if searcher.idle.end_search_with_more(|| searcher.work.load(Relaxed)) {
                    searcher.wake_one();
                }
            });
            sleeper(&world, false);
            publisher.join().unwrap();
            searcher.join().unwrap();
        });
    }

    /// The same with the look before the end of the search must be caught.
    #[test]
    #[should_panic]
    fn a_search_that_looks_before_it_ends_is_caught() {
        loom::model(|| {
            let world = world();
            assert!(world.idle.begin_search(2));
            let (publisher, searcher) = (world.clone(), world.clone());
            let publisher = thread::spawn(move || publisher.publish());
            let searcher = thread::spawn(move || {
                let left = searcher.work.load(Relaxed);
                if searcher.idle.end_search() && left {
                    searcher.wake_one();
                }
            });
            sleeper(&world, false);
            publisher.join().unwrap();
            searcher.join().unwrap();
        });
    }

    /// One of two workers ends while the other goes to sleep: the closure is not spent on the one that has ended.
    #[test]
    fn a_wake_is_not_spent_on_a_worker_that_ends() {
        loom::model(|| {
            let world = world();
            let ending = Arc::new(Doze::new());
            let (publisher, seen) = (world.clone(), ending.clone());
            let publisher = thread::spawn(move || {
                publisher.work.store(true, Release);
                if publisher.idle.must_wake() && !seen.notify_fenced() && publisher.doze.notify_fenced() {
                    publisher.eventfd.notify();
                }
            });
            let (other, ends) = (world.clone(), ending);
            let ends = thread::spawn(move || {
                other.idle.end(&ends);
            });
            sleeper(&world, false);
            publisher.join().unwrap();
            ends.join().unwrap();
        });
    }

    /// Two workers and one core: neither may leave to the other what both leave.
    #[test]
    fn a_closure_is_not_left_to_one_who_goes_to_sleep() {
        struct Crowd {
            dozes: [Doze; 2],
            idle: Idle,
            work: AtomicBool,
            taken: AtomicBool,
            eventfds: [Notify; 2],
        }
        const CORES: usize = 1;

        fn worker(crowd: &Crowd, me: usize) {
            let other = 1 - me;
            let other_awake = || usize::from(!crowd.dozes[other].is_asleep());
            while !crowd.taken.load(Acquire) {
                if crowd.work.load(Acquire) {
                    crowd.taken.store(true, Release);
                    // For the model's end only.
                    return crowd.eventfds[other].notify();
                }
                crowd.idle.announce(&crowd.dozes[me]);
                let left = crowd.work.load(Relaxed) && other_awake() < CORES;
                if !left && !crowd.taken.load(Relaxed) {
                    crowd.eventfds[me].wait();
                }
                crowd.idle.wake_up(&crowd.dozes[me]);
            }
        }

        loom::model(|| {
            let crowd = Arc::new(Crowd {
                dozes: [Doze::new(), Doze::new()],
                idle: Idle::new(2),
                work: AtomicBool::new(false),
                taken: AtomicBool::new(false),
                eventfds: [Notify::new(), Notify::new()],
            });
            let second = crowd.clone();
            let second = thread::spawn(move || worker(&second, 1));
            let publisher = crowd.clone();
            let publisher = thread::spawn(move || {
                publisher.work.store(true, Release);
                if publisher.idle.must_wake() && publisher.dozes.iter().filter(|doze| !doze.is_asleep()).count() < CORES
                {
                    for (doze, eventfd) in publisher.dozes.iter().zip(&publisher.eventfds) {
                        if doze.notify_fenced() {
                            return eventfd.notify();
                        }
                    }
                }
            });
            worker(&crowd, 0);
            second.join().unwrap();
            publisher.join().unwrap();
        });
    }

    /// The same without W2 must be caught: the waker's look may pass its push.
    #[test]
    #[should_panic]
    fn a_waker_that_does_not_fence_is_caught() {
        loom::model(|| {
            let world = world();
            let waker = world.clone();
            let other = thread::spawn(move || {
                waker.work.store(true, Relaxed);
                if waker.doze.notify_fenced() {
                    waker.eventfd.notify();
                }
            });
            sleeper(&world, false);
            other.join().unwrap();
        });
    }
}
