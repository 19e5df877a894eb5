//! Jobs, and the threads that come for them (`blocking`).
//!
//! - J1: while a thread waits untold, there is for each job one that was told of one and has not looked yet. So no job is left to threads that wait.
//!   Whoever leaves a job tells one that waits, unless there are as many jobs as those; and who was told, is started or comes from another job looks
//!   for one before it waits.
//! - J2: a thread that could not be had is *short*. Whoever has left a job without one says so, and somebody is to come to [`relieve`](Pool::relieve) the
//!   pool until there is none: the threads that there are may be busy for ever.
//! - J3: a thread whose time has passed ends only if there is no job, in the step in which it is counted off.
//!
//! Models: `loom_pool` below.

use std::{collections::VecDeque, io, sync::PoisonError, time::Duration};

use crate::facade::{AtomicBool, Mutex, Ordering::Relaxed, TimedCondvar};

/// The most threads at a time.
const MOST_THREADS: usize = if cfg!(loom) { 2 } else { 512 };
/// How long a thread without work stays.
const LINGER: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Pool<J> {
    state: Mutex<State<J>>,
    work: TimedCondvar,
    /// J2.
    short: AtomicBool,
}

struct State<J> {
    jobs: VecDeque<J>,
    threads: usize,
    idle: usize,
}

impl<J> State<J> {
    const fn new() -> Self {
        Self { jobs: VecDeque::new(), threads: 0, idle: 0 }
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
}

impl<J> Pool<J> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State::new()), work: TimedCondvar::new(), short: AtomicBool::new(false) }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self { state: Mutex::new(State::new()), work: TimedCondvar::new(), short: AtomicBool::new(false) }
    }

    /// Takes in a job. `spawn` starts a thread that [serves](Self::serve). An error says that there is none and none can be started; true, that the caller
    /// is to say that the pool is short.
    pub(super) fn submit(&self, job: J, spawn: impl FnOnce() -> io::Result<()>) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.wants_thread(1) {
            state.jobs.push_back(job);
            drop(state);
            self.work.notify_one();
            return Ok(false);
        }
        let short = match state.start(spawn) {
            Ok(()) => false,
            // Some thread will come to it, or be there later.
            Err(_) if state.threads > 0 => true,
            Err(error) => return Err(error),
        };
        state.jobs.push_back(job);
        if short {
            // ORDERING: Relaxed, as in `is_short`. Written under the lock.
            self.short.store(true, Relaxed);
        }
        Ok(short)
    }

    /// Whether threads are missing.
    pub(super) fn is_short(&self) -> bool {
        // ORDERING: Relaxed. The fences of C2 of `clock` order it: the clock asks once more after its own before it sleeps, and who has left a job wakes
        // it after its own.
        self.short.load(Relaxed)
    }

    /// One thread more at most. Whether others are missing.
    pub(super) fn relieve(&self, spawn: impl FnOnce() -> io::Result<()>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.wants_thread(0) {
            // Tried again later.
            let _ = state.start(spawn);
        }
        // One that has just been started has not taken its job yet.
        let short = state.wants_thread(0);
        // ORDERING: Relaxed, as above. Written under the lock.
        self.short.store(short, Relaxed);
        short
    }

    /// What a thread of the pool does until it ends. `run` does not panic.
    pub(super) fn serve(&self, run: impl Fn(J)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                run(job);
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.idle += 1;
            let (guard, wait) = self.work.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if wait.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
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
        fn new() -> Arc<Self> {
            Arc::new(Self {
                pool: Pool::new(),
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
            let short = self.pool.submit(Box::new(move || this.finish()), || self.spawn());
            assert!(!short.unwrap());
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

    /// J1: of jobs that come from two sides, to threads that are busy, wait, or are about to.
    #[test]
    fn loom_every_job_is_done() {
        loom::model(|| {
            let model = Model::new();
            model.submit();
            let other = Arc::clone(&model);
            let other = thread::spawn(move || other.submit());
            model.submit();
            other.join().unwrap();
            model.wait_for(3);
            model.end();
        });
    }

    /// J3: a job comes while the time of who waits for it passes.
    #[test]
    fn loom_a_job_comes_while_threads_end() {
        loom::model(|| {
            let model = Model::new();
            model.submit();
            let other = Arc::clone(&model);
            let time = thread::spawn(move || other.let_time_pass());
            model.submit();
            model.wait_for(2);
            time.join().unwrap();
            model.end();
        });
    }

    /// J2: a job is left to a thread that waits for it to be done.
    #[test]
    fn loom_a_thread_that_could_not_be_had_is_started_later() {
        loom::model(|| {
            let model = Model::new();
            let busy = Arc::clone(&model);
            let waits = move || {
                busy.wait_for(1);
                busy.finish();
            };
            assert!(!model.pool.submit(Box::new(waits), || model.spawn()).unwrap());
            let other = Arc::clone(&model);
            let submits = thread::spawn(move || {
                let this = Arc::clone(&other);
                let refuses = || Err(io::Error::from(io::ErrorKind::OutOfMemory));
                let short = other.pool.submit(Box::new(move || this.finish()), refuses).unwrap();
                assert!(short, "the only thread is busy");
                other.disturb();
            });
            // As the clock thread does.
            while model.threads.lock().unwrap().len() == 1 {
                let relieve = || model.pool.is_short() && model.pool.relieve(|| model.spawn());
                model.clock.sleep(model.clock.activity(), relieve, || model.sleep());
            }
            submits.join().unwrap();
            model.wait_for(2);
            model.end();
        });
    }
}
