//! Jobs, and the threads that come for them (`blocking`).
//!
//! A thread that *comes* looks for a job, runs one that it has begun just now, or has been *told* of one and has not looked yet. Others wait, or run a job
//! that has been *running long*, since the tick before the last.
//!
//! - J1: where jobs are long there is for each job in the queue one that was told of one, or no thread waits untold. So no job is left to threads that wait:
//!   whoever leaves a job tells one that waits, or starts one; and who was told, is started or comes from another job looks for one before it waits.
//! - J2: jobs that were left with fewer threads told than there are of them are *left over*: to threads that are busy, perhaps for ever. Whoever has left one says
//!   so, and somebody is to come to [`relieve`](Pool::relieve) the pool once a tick until there is none.
//! - J3: a thread whose time has passed ends only if there is no job, in the step in which it is counted off.
//! - J4: where jobs have lately been short, and enough threads come (as many as there are cores), they will come to one more job sooner than another thread could
//!   get up: it is left over. Where none of them has come to a job in a whole tick, jobs are taken to be long.
//!
//! Models: `loom_pool` below.

use std::{
    collections::VecDeque,
    io,
    sync::PoisonError,
    time::{Duration, Instant},
};

use crate::facade::{AtomicBool, AtomicUsize, Mutex, Ordering::Relaxed, TimedCondvar, hint};
#[cfg(not(loom))]
use crate::runtime::clock;

/// The most threads at a time.
const MOST_THREADS: usize = if cfg!(loom) { 2 } else { 512 };
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(10);
/// How often somebody comes to relieve the pool while it has to be.
const TICK: Duration = Duration::from_millis(1);
/// Threads that are started in one tick at most; in each tick more that jobs are left over, twice as many.
const STARTED_AT_ONCE: usize = 16;
/// J4: jobs that took so long on the average are short.
const SHORT: Duration = Duration::from_micros(20);
/// By which part of the difference a longer or a shorter job changes the average, and the longest that counts, from which it begins. So a long one among sixty
/// short ones is too many.
const LONGER: u64 = 8;
const SHORTER: u64 = 32;
const LONGEST: Duration = Duration::from_millis(1);
/// How often a thread looks for the next short job before it waits, with a pause after each look; some microseconds.
const LOOKS: u32 = if cfg!(loom) { 1 } else { 400 };
/// When so many such searches in a row were in vain, one in so many is made.
const VAIN: u32 = 4;
const SELDOM: u32 = 64;

/// See the module.
pub(super) struct Pool<J> {
    state: Mutex<State<J>>,
    work: TimedCondvar,
    /// J2.
    left_over: AtomicBool,
    /// The length of the queue, for who searches.
    waiting: AtomicUsize,
}

struct State<J> {
    jobs: VecDeque<J>,
    threads: usize,
    idle: usize,
    /// Of those that wait, how many were told and have not got up.
    told: usize,
    /// Whether a thread looks for a job that is not counted as told.
    searching: bool,
    /// Searches in a row that were in vain, or not made.
    vain: u32,
    /// How long jobs take, in nanoseconds.
    average: u64,
    /// A tick, and how many of the jobs that run began in it, in the tick before, and earlier.
    tick: u64,
    begun_now: usize,
    begun_before: usize,
    running_long: usize,
    /// Jobs that were taken, and how many those were a tick ago.
    taken: u64,
    taken_before: u64,
    /// How many threads may be started in the next tick.
    may_start: usize,
}

impl<J> State<J> {
    const fn new() -> Self {
        Self {
            jobs: VecDeque::new(),
            threads: 0,
            idle: 0,
            told: 0,
            searching: false,
            vain: 0,
            average: LONGEST.as_nanos() as u64,
            tick: 0,
            begun_now: 0,
            begun_before: 0,
            running_long: 0,
            taken: 0,
            taken_before: 0,
            may_start: STARTED_AT_ONCE,
        }
    }

    fn are_short(&self) -> bool {
        self.average < SHORT.as_nanos() as u64
    }

    /// How many threads come.
    fn coming(&self) -> usize {
        self.threads - self.idle + self.told - self.running_long
    }

    /// Notes that it is that tick now. Jobs that turn out to run long are noted before they end.
    fn look_at_clock(&mut self, tick: u64) {
        let passed = tick - self.tick;
        if passed == 0 {
            return;
        }
        let long = self.begun_before + if passed > 1 { self.begun_now } else { 0 };
        self.begun_before = if passed > 1 { 0 } else { self.begun_now };
        self.begun_now = 0;
        self.running_long += long;
        self.tick = tick;
        (0..long).for_each(|_| self.note(LONGEST));
    }

    /// A job begins in that tick.
    fn begin(&mut self, tick: u64) {
        self.look_at_clock(tick);
        self.begun_now += 1;
    }

    /// One that began in the tick `begun` has ended in that tick, and took so long.
    fn end(&mut self, begun: u64, tick: u64, took: Duration) {
        self.look_at_clock(tick);
        match tick - begun {
            0 => self.begun_now -= 1,
            1 => self.begun_before -= 1,
            // Noted then.
            _ => return self.running_long -= 1,
        }
        self.note(took);
    }

    /// Whether those that wait for work are too few for the jobs and so many more, and there may be more threads.
    fn wants_thread(&self, more: usize) -> bool {
        self.jobs.len() + more > self.idle && self.threads < MOST_THREADS
    }

    fn start(&mut self, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        spawn()?;
        self.threads += 1;
        Ok(())
    }

    /// How many more threads the jobs want: short ones one, if nobody comes, or if those that come would take more than a tick to do them all.
    fn missing(&self) -> usize {
        if self.are_short() {
            let in_a_tick = TICK.as_nanos() as u64 * self.coming() as u64;
            usize::from(self.jobs.len() as u64 * self.average.max(1) > in_a_tick)
        } else {
            self.jobs.len().saturating_sub(self.told)
        }
    }

    /// Whether to look for the next job for a moment before waiting: one thread at a time, where that pays.
    fn may_search(&self) -> bool {
        self.are_short() && !self.searching && (self.vain < VAIN || self.vain.is_multiple_of(SELDOM))
    }

    /// A job took so long.
    fn note(&mut self, took: Duration) {
        // In the models jobs are as the model says.
        if cfg!(loom) {
            return;
        }
        let took = took.min(LONGEST).as_nanos() as u64;
        self.average = match took.checked_sub(self.average) {
            Some(more) => self.average + more / LONGER,
            None => self.average - (self.average - took) / SHORTER,
        };
    }
}

/// The tick that passes now. In the models none does.
fn now() -> u64 {
    #[cfg(not(loom))]
    return clock::now();
    #[cfg(loom)]
    return 0;
}

impl<J> Pool<J> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            work: TimedCondvar::new(),
            left_over: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Takes in a job. `spawn` starts a thread that [serves](Self::serve); `enough`: see J4. An error says that there is none and none can be started;
    /// true, that the caller is to say that a job is left over.
    pub(super) fn submit(&self, job: J, enough: usize, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look_at_clock(now());
        if state.are_short() {
            let found = state.searching && state.jobs.is_empty();
            if found || state.coming() >= enough {
                self.push(&mut state, job);
                self.leave_over();
                // Who searches may lose its core for a while, but nobody has to wake the clock for that.
                return Ok(!found);
            }
        }
        if state.wants_thread(1) {
            let left_over = match state.start(spawn) {
                Ok(()) => false,
                // Some thread will come to it, or be there later.
                Err(_) if state.threads > 0 => {
                    self.leave_over();
                    true
                }
                Err(error) => return Err(error),
            };
            self.push(&mut state, job);
            return Ok(left_over);
        }
        self.push(&mut state, job);
        let tells = state.jobs.len() > state.told && state.told < state.idle;
        state.told += usize::from(tells);
        drop(state);
        if tells {
            self.work.notify_one();
        }
        Ok(false)
    }

    fn push(&self, state: &mut State<J>, job: J) {
        state.jobs.push_back(job);
        // ORDERING: Relaxed, here and in `pop`. Written under the lock; who searches takes the lock before it relies on it.
        self.waiting.store(state.jobs.len(), Relaxed);
    }

    fn pop(&self, state: &mut State<J>) -> Option<J> {
        let job = state.jobs.pop_front()?;
        self.waiting.store(state.jobs.len(), Relaxed);
        state.taken += 1;
        Some(job)
    }

    /// With the lock held.
    fn leave_over(&self) {
        // ORDERING: Relaxed, as in `has_left_over`.
        self.left_over.store(true, Relaxed);
    }

    /// Whether jobs are left over (J2).
    pub(super) fn has_left_over(&self) -> bool {
        // ORDERING: Relaxed. The fences of C2 of `clock` order it: the clock asks once more after its own before it sleeps, and who has left a job wakes
        // it after its own.
        self.left_over.load(Relaxed)
    }

    /// Tells threads, or starts some, for the jobs that are left over: for all but those that threads come to in time (J4). Whether some are left over still.
    pub(super) fn relieve(&self, mut spawn: impl FnMut() -> io::Result<()>) -> bool {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = lock();
        state.look_at_clock(now());
        let stuck = state.taken == state.taken_before && !state.jobs.is_empty();
        state.taken_before = state.taken;
        if stuck {
            state.average = LONGEST.as_nanos() as u64;
        }
        let mut may_start = state.may_start;
        for _ in 0..state.missing() {
            if state.told < state.idle {
                state.told += 1;
                self.work.notify_one();
            } else if may_start == 0 || state.threads == MOST_THREADS || state.start(&mut spawn).is_err() {
                // Tried again later.
                break;
            } else {
                may_start -= 1;
                // It takes long, and others may want to leave their jobs.
                drop(state);
                state = lock();
            }
        }
        // One that has just been started has not taken its job yet.
        let left_over = state.jobs.len() > state.told && (state.told < state.idle || state.threads < MOST_THREADS);
        state.may_start = if left_over { (2 * state.may_start).min(MOST_THREADS) } else { STARTED_AT_ONCE };
        // ORDERING: Relaxed, as above. Written under the lock.
        self.left_over.store(left_over, Relaxed);
        left_over
    }

    /// What a thread of the pool does until it ends. `run` does not panic.
    pub(super) fn serve(&self, run: impl Fn(J)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = self.pop(&mut state) {
                let begun = now();
                state.begin(begun);
                drop(state);
                let begin = Instant::now();
                run(job);
                let took = begin.elapsed();
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.end(begun, now(), took);
                continue;
            }
            if state.may_search() {
                state.searching = true;
                drop(state);
                self.search();
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.searching = false;
                if !state.jobs.is_empty() {
                    state.vain = 0;
                    continue;
                }
            }
            state.vain = state.vain.wrapping_add(1);
            state.idle += 1;
            let (guard, wait) = self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            // Whoever gets up first looks for a job.
            state.told = state.told.saturating_sub(1);
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Looks for a moment whether a job comes.
    fn search(&self) {
        for _ in 0..LOOKS {
            if self.waiting.load(Relaxed) > 0 {
                return;
            }
            hint::spin_loop();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(1);

    /// Of a pool of so many threads that is used for short jobs.
    fn short(threads: usize) -> State<()> {
        let mut state = State { threads, ..State::new() };
        for _ in 0..200 {
            state.begin(1);
            state.end(1, 1, QUICK);
        }
        assert!(state.are_short());
        state
    }

    /// J4: threads that block for long would be waited for again and again.
    #[test]
    fn who_runs_a_job_for_long_does_not_come() {
        let mut state = short(3);
        state.idle = 1;
        state.begin(5);
        state.begin(5);
        assert_eq!(state.coming(), 2);
        state.look_at_clock(6);
        assert_eq!(state.coming(), 2);
        state.look_at_clock(7);
        assert_eq!(state.coming(), 0);
        assert!(!state.are_short(), "they are noted before they end");
        // One job more, and nobody else.
        state.jobs.push_back(());
        assert_eq!(state.missing(), 1);
        state.end(5, 9, Duration::from_millis(4));
        state.end(5, 9, Duration::from_millis(4));
        assert_eq!((state.coming(), state.running_long), (2, 0));
    }

    #[test]
    fn jobs_that_end_in_time_are_counted_off_where_they_are_counted() {
        let mut state = short(4);
        state.begin(5);
        state.begin(6);
        state.end(5, 6, QUICK);
        state.end(6, 6, QUICK);
        state.begin(7);
        state.begin(8);
        state.end(7, 20, QUICK);
        state.end(8, 20, QUICK);
        assert_eq!((state.begun_now, state.begun_before, state.running_long), (0, 0, 0));
    }

    #[test]
    fn a_long_job_among_sixty_short_ones_is_too_many() {
        for (shorts, are_short) in [(50, false), (100, true)] {
            let mut state = short(2);
            for _ in 0..20 {
                (0..shorts).for_each(|_| state.note(QUICK));
                state.note(LONGEST);
            }
            (0..shorts).for_each(|_| state.note(QUICK));
            assert_eq!(state.are_short(), are_short, "{shorts}");
        }
    }

    /// Short jobs get another thread if those that come would take longer than a tick.
    #[test]
    fn a_long_queue_of_short_jobs_gets_one_more_thread() {
        let mut state = short(2);
        state.begin(1);
        state.begin(1);
        let enough = 2 * TICK.as_nanos() as u64 / state.average;
        (0..enough).for_each(|_| state.jobs.push_back(()));
        assert_eq!(state.missing(), 0);
        state.jobs.push_back(());
        assert_eq!(state.missing(), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_pool {
    use std::sync::{Arc, Mutex as StdMutex};

    use loom::{
        sync::Condvar,
        thread::{self, JoinHandle},
    };

    use super::*;
    use crate::runtime::clock_sleep::Sleep;

    type Job = Box<dyn FnOnce() + Send>;

    struct Model {
        pool: Pool<Job>,
        clock: Sleep,
        /// Whether the clock was woken.
        woken: Mutex<bool>,
        wake: Condvar,
        threads: StdMutex<Vec<JoinHandle<()>>>,
        done: Mutex<usize>,
        one_done: Condvar,
    }

    impl Model {
        /// Where jobs have been short, or long.
        fn new(short: bool) -> Arc<Self> {
            let mut state = State::new();
            state.average = if short { 0 } else { LONGEST.as_nanos() as u64 };
            let pool = Pool {
                state: Mutex::new(state),
                work: TimedCondvar::new(),
                left_over: AtomicBool::new(false),
                waiting: AtomicUsize::new(0),
            };
            Arc::new(Self {
                pool,
                clock: Sleep::new(),
                woken: Mutex::new(false),
                wake: Condvar::new(),
                threads: StdMutex::default(),
                done: Mutex::new(0),
                one_done: Condvar::new(),
            })
        }

        fn spawn(self: &Arc<Self>) -> io::Result<()> {
            let this = Arc::clone(self);
            let thread = thread::spawn(move || this.pool.serve(|job| job()));
            self.threads.lock().unwrap().push(thread);
            Ok(())
        }

        fn finish(&self) {
            *self.done.lock().unwrap() += 1;
            self.one_done.notify_all();
            // Whom a job wakes is active.
            self.disturb();
        }

        /// As the clock is, when it sleeps.
        fn disturb(&self) {
            if self.clock.disturb() {
                *self.woken.lock().unwrap() = true;
                self.wake.notify_one();
            }
        }

        fn sleep(&self) {
            let mut woken = self.woken.lock().unwrap();
            while !std::mem::take(&mut *woken) {
                woken = self.wake.wait(woken).unwrap();
            }
        }

        fn submit(self: &Arc<Self>) {
            let this = Arc::clone(self);
            self.submit_job(move || this.finish(), || self.spawn());
        }

        /// One thread that comes is enough for short jobs.
        fn submit_job(&self, job: impl FnOnce() + Send + 'static, spawn: impl FnOnce() -> io::Result<()>) {
            if self.pool.submit(Box::new(job), 1, spawn).unwrap() {
                self.disturb();
            }
        }

        /// What the clock thread does until there are two threads.
        fn relieve_until_two(self: &Arc<Self>) {
            while self.threads.lock().unwrap().len() == 1 {
                let relieve = || self.pool.has_left_over() && self.pool.relieve(|| self.spawn());
                self.clock.sleep(self.clock.activity(), relieve, || self.sleep());
            }
        }

        /// For ever, which loom reports, if a job is left.
        fn wait_for(&self, jobs: usize) {
            let mut done = self.done.lock().unwrap();
            while *done < jobs {
                done = self.one_done.wait(done).unwrap();
            }
        }

        fn let_time_pass(&self) {
            self.pool.work.let_time_pass(&self.pool.state);
        }

        /// Called when no more jobs come.
        fn end(&self) {
            self.let_time_pass();
            let threads = std::mem::take(&mut *self.threads.lock().unwrap());
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            let state = self.pool.state.lock().unwrap();
            assert_eq!((state.threads, state.idle, state.jobs.len()), (0, 0, 0));
        }
    }

    /// Two sides submit three jobs, to threads that are busy, wait, or are about to.
    fn every_job_is_done(short: bool) {
        loom::model(move || {
            let model = Model::new(short);
            model.submit();
            let other = Arc::clone(&model);
            let other = thread::spawn(move || other.submit());
            model.submit();
            other.join().unwrap();
            model.wait_for(3);
            model.end();
        });
    }

    /// J1.
    #[test]
    fn loom_every_long_job_is_done() {
        every_job_is_done(false);
    }

    /// J4: nobody comes to relieve, and no job waits for another.
    #[test]
    fn loom_every_short_job_is_done() {
        every_job_is_done(true);
    }

    /// J3: a job comes while the time of who waits for it passes.
    #[test]
    fn loom_a_job_comes_while_threads_end() {
        for short in [false, true] {
            loom::model(move || {
                let model = Model::new(short);
                model.submit();
                let other = Arc::clone(&model);
                let time = thread::spawn(move || other.let_time_pass());
                model.submit();
                model.wait_for(2);
                time.join().unwrap();
                model.end();
            });
        }
    }

    /// J2: a job is left over to a thread that waits for it to be done, since no other could be had, or since jobs have been short.
    #[test]
    fn loom_a_job_that_another_waits_for_gets_a_thread() {
        for short in [false, true] {
            loom::model(move || {
                let model = Model::new(short);
                let busy = Arc::clone(&model);
                let waits = move || {
                    busy.wait_for(1);
                    busy.finish();
                };
                model.submit_job(waits, || model.spawn());
                let other = Arc::clone(&model);
                let submits = thread::spawn(move || {
                    let this = Arc::clone(&other);
                    other.submit_job(move || this.finish(), || Err(io::ErrorKind::OutOfMemory.into()));
                });
                model.relieve_until_two();
                submits.join().unwrap();
                model.wait_for(2);
                model.end();
            });
        }
    }
}
