//! How far apart two cores are: `line` prints for how many nanoseconds a cache line is on its way from one to the other.
//!
//! A virtual machine's host moves its processors about: now two of them share a cache, now they do not. Whatever two workers do together costs
//! more then, so `run` measures this beside each workload.

use std::{
    hint,
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
    thread,
    time::{Duration, Instant},
};

const ROUNDS: u32 = 20_000;
/// Who has lost its core for a moment spoils some of them only.
const REPEATS: usize = 5;
/// Where the two have one core between them a round takes as long as the kernel likes: then fewer have to do.
const LONGEST: Duration = Duration::from_secs(1);
/// Looks after which the other one may be waiting for this one's core.
const LOOKS: u32 = 10_000;
const END: u32 = u32::MAX;

#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    /// False if it is not to be waited for any more.
    fn wait_for(&self, value: u32, goes_on: impl Fn() -> bool) -> bool {
        let mut looks = 0;
        loop {
            match self.0.load(Acquire) {
                END => return false,
                found if found == value => return true,
                _ => hint::spin_loop(),
            }
            looks += 1;
            if looks % LOOKS == 0 {
                if !goes_on() {
                    return false;
                }
                thread::yield_now();
            }
        }
    }
}

/// Both sides change the line in turn.
fn one_way() -> f64 {
    let line = Line(AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                if !line.wait_for(2 * round + 1, || true) {
                    return;
                }
                line.0.store(2 * round + 2, Release);
            }
        });
        let start = Instant::now();
        let mut rounds = 0;
        while rounds < ROUNDS {
            line.0.store(2 * rounds + 1, Release);
            rounds += 1;
            if !line.wait_for(2 * rounds, || start.elapsed() < LONGEST) {
                line.0.store(END, Release);
                break;
            }
        }
        start.elapsed().as_nanos() as f64 / f64::from(2 * rounds)
    })
}

fn main() {
    let best = (0..REPEATS).map(|_| one_way()).fold(f64::INFINITY, f64::min);
    println!("line machine {best:.3}");
}
