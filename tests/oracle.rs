//! Random programs of channel operations, judged by a specification; both are in common/programs.rs.
//!
//! `OXIGO_PROGRAMS` is how many programs are run for each number of workers. `OXIGO_SEED` runs the program of that seed again and again.

mod common;
#[path = "common/programs.rs"]
mod programs;

use std::{
    env,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::rt;
use programs::{Choices, program};

/// Programs for each number of workers, unless the environment says otherwise.
const PROGRAMS: u64 = 400;
/// A program that makes no progress for so many seconds hangs. Counted in looks: a machine may be stopped for as long, and goes on then.
const PATIENCE: u32 = 60;

/// Tells the seed when its program fails.
struct Tell {
    seed: u64,
    place: &'static str,
    state: Arc<(AtomicU64, AtomicU64)>,
}

impl Drop for Tell {
    fn drop(&mut self) {
        if thread::panicking() {
            // The watch ends as if all were done.
            self.state.1.store(u64::MAX, SeqCst);
            eprintln!(
                "oracle: the program of seed {0} has failed {1}; run it again with OXIGO_SEED={0}",
                self.seed, self.place
            );
        }
    }
}

/// Runs programs, and ends the process when one of them hangs.
fn run_programs(place: &'static str, run: impl FnOnce(&(dyn Fn() + Sync))) {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let fixed = number("OXIGO_SEED");
    let programs = number("OXIGO_PROGRAMS").unwrap_or(PROGRAMS);
    let first = fixed.unwrap_or_else(|| RandomState::new().hash_one(place));
    // The seed that is run, and whether all are done.
    let state = Arc::new((AtomicU64::new(first), AtomicU64::new(0)));
    let watched = Arc::clone(&state);
    let watch = thread::spawn(move || {
        let mut last = (u64::MAX, 0);
        loop {
            thread::park_timeout(Duration::from_secs(1));
            let (seed, count) = (watched.0.load(SeqCst), watched.1.load(SeqCst));
            if count >= programs {
                return;
            }
            if count != last.0 {
                last = (count, 0);
                continue;
            }
            last.1 += 1;
            if last.1 > PATIENCE {
                // Not `eprintln`, which the harness keeps until the test ends.
                let told =
                    format!("oracle: the program of seed {seed} hangs {place}; run it again with OXIGO_SEED={seed}\n");
                let _ = io::stderr().write_all(told.as_bytes());
                std::process::exit(101);
            }
        }
    });
    run(&|| {
        for n in 0..programs {
            let seed = fixed.unwrap_or_else(|| first.wrapping_add(n));
            state.0.store(seed, SeqCst);
            let tell = Tell { seed, place, state: Arc::clone(&state) };
            let of_party = |me: usize| seed ^ (me as u64 + 1).wrapping_mul(0xD134_2543_DE82_EF95);
            program(Choices::new(Vec::new(), seed), |me| Choices::new(Vec::new(), of_party(me)));
            drop(tell);
            state.1.store(n + 1, SeqCst);
        }
    });
    watch.thread().unpark();
    watch.join().unwrap();
}

#[test]
fn random_programs_at_1_worker() {
    run_programs("at 1 worker", |body| rt(1, body));
}

#[test]
fn random_programs_at_2_workers() {
    run_programs("at 2 workers", |body| rt(2, body));
}

#[test]
fn random_programs_at_4_workers() {
    run_programs("at 4 workers", |body| rt(4, body));
}

/// The main party is a thread that knows no runtime; the others run on the default one.
#[test]
fn random_programs_from_a_plain_thread() {
    run_programs("from a plain thread", |body| body());
}
