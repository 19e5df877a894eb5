//! Threads of ours that have no core, as on a machine that is busy, or whose host is: here a signal's handler holds them.
#![cfg(target_os = "linux")]

use std::{
    fs, mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use oxigo::{Builder, Runtime, go, time, unbounded, unbuffered};

/// How long a thread is held if nobody lets it go on, and what comes instead takes at most.
const HELD: Duration = Duration::from_secs(20);
const LIMIT: Duration = Duration::from_secs(16);

/// Threads that are held, and whether they are to go on.
static HOLDS: AtomicU32 = AtomicU32::new(0);
static GO_ON: AtomicBool = AtomicBool::new(false);

extern "C" fn hold(_signal: libc::c_int) {
    HOLDS.fetch_add(1, SeqCst);
    let pause = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    for _ in 0..HELD.as_millis() {
        if GO_ON.load(SeqCst) {
            break;
        }
        // SAFETY: a time that is there; what is left of it is not asked for.
        unsafe { libc::nanosleep(&raw const pause, std::ptr::null_mut()) };
    }
    HOLDS.fetch_sub(1, SeqCst);
}

/// A thread that is held until this is dropped.
struct Held;

impl Held {
    /// By its name, of those of this process.
    fn of(name: &str) -> Self {
        // SAFETY: all zeroes is a `sigaction` with an empty mask.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = hold as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        // SAFETY: the handler calls nothing but `nanosleep`. SIGPROF is the one that our threads do not block, and nobody here profiles.
        assert_eq!(unsafe { libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()) }, 0);
        let is_named = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task =
            fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap).find(is_named).expect("a thread of this name");
        let thread: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
        GO_ON.store(false, SeqCst);
        let process = std::process::id().cast_signed();
        // SAFETY: a signal that has a handler.
        assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) }, 0);
        while HOLDS.load(SeqCst) == 0 {
            thread::yield_now();
        }
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        GO_ON.store(true, SeqCst);
        while HOLDS.load(SeqCst) > 0 {
            thread::yield_now();
        }
    }
}

fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whichever worker is notified: also where all has been quiet for so long that the clock thread sleeps.
#[test]
fn s_05_a_closure_from_outside_does_not_wait_for_a_worker_without_a_core() {
    let _one = one_at_a_time();
    for quiet in [5, 500] {
        let runtime = Runtime::builder().workers(2).name("late").build().unwrap();
        runtime.run(|| ());
        for worker in ["late-0", "late-1"] {
            thread::sleep(Duration::from_millis(quiet));
            let held = Held::of(worker);
            let started = runtime.go(|| ()).join_timeout(LIMIT);
            drop(held);
            started.expect("it starts on the other worker").unwrap();
        }
    }
}

/// A pool is shared with a worker that sleeps, and that does not get up. Its goroutines start all the same.
#[test]
fn s_05_what_is_placed_does_not_wait_for_a_worker_without_a_core() {
    const POOL: usize = 8;
    let _one = one_at_a_time();
    let runtime = Runtime::builder().workers(2).name("placed").build().unwrap();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(20));
        let started = Arc::new(AtomicU32::new(0));
        let (tx, rx) = unbuffered::<()>();
        let (home, told) = unbounded();
        let begin = Arc::clone(&started);
        let maker = runtime.go(move || {
            home.send(thread::current().name().unwrap().to_owned()).unwrap();
            // The other one is held by now, or soon.
            while HOLDS.load(SeqCst) == 0 {
                std::hint::spin_loop();
            }
            let waits = || {
                let (rx, started) = (rx.clone(), Arc::clone(&begin));
                go(move || {
                    started.fetch_add(1, SeqCst);
                    assert!(rx.recv().is_err());
                })
            };
            let pool: Vec<_> = (0..POOL).map(|_| waits()).collect();
            pool.into_iter().for_each(|handle| handle.join().unwrap());
        });
        let other = if told.recv().unwrap() == "placed-0" { "placed-1" } else { "placed-0" };
        let held = Held::of(other);
        let begin = Instant::now();
        while started.load(SeqCst) < POOL as u32 && begin.elapsed() < LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
        let all = started.load(SeqCst);
        drop(held);
        drop(tx);
        maker.join().unwrap();
        assert_eq!(all, POOL as u32, "have started beside a worker that is not there");
    }
}

/// A goroutine that yields and is alone looks for nothing but the clock's word; and now and then for the rest.
#[test]
fn s_11_a_timer_fires_beside_one_who_yields_though_the_clock_thread_has_no_core() {
    let _one = one_at_a_time();
    let runtime = Runtime::builder().workers(1).name("alone").build().unwrap();
    let fired = Arc::new(AtomicBool::new(false));
    let fires = Arc::clone(&fired);
    runtime.run(move || {
        let sleeps = Builder::new().spawn(move || {
            time::sleep(Duration::from_millis(20));
            fires.store(true, SeqCst);
        });
        oxigo::yield_now();
        let held = Held::of("oxigo-clock");
        let begin = Instant::now();
        while !fired.load(SeqCst) && begin.elapsed() < LIMIT {
            oxigo::yield_now();
        }
        drop(held);
        assert!(begin.elapsed() < LIMIT, "a timer that is due waits for the clock thread");
        sleeps.unwrap().join().unwrap();
    });
}
