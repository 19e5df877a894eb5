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
    time::Instant,
};

const ROUNDS: u32 = 20_000;
/// Who has lost its core for a moment spoils some of them only.
const REPEATS: usize = 5;

#[repr(align(128))]
struct Line(AtomicU32);

impl Line {
    fn wait_for(&self, value: u32) {
        while self.0.load(Acquire) != value {
            hint::spin_loop();
        }
    }
}

/// Both sides change the line in turn.
fn one_way() -> f64 {
    let line = Line(AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                line.wait_for(2 * round + 1);
                line.0.store(2 * round + 2, Release);
            }
        });
        let start = Instant::now();
        for round in 0..ROUNDS {
            line.0.store(2 * round + 1, Release);
            line.wait_for(2 * round + 2);
        }
        start.elapsed().as_nanos() as f64 / f64::from(2 * ROUNDS)
    })
}

fn main() {
    let best = (0..REPEATS).map(|_| one_way()).fold(f64::INFINITY, f64::min);
    println!("line machine {best:.3}");
}
