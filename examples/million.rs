//! cargo run --release --example million -- [--goroutines 1000000]
//!
//! Starts a million goroutines that all park on one channel, says what each costs in bytes and nanoseconds, and wakes them all by
//! closing the channel.

mod common;

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use oxigo::{WaitGroup, unbuffered};

/// Resident memory and page tables of this process, in bytes.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) + field("VmPTE:").unwrap_or(0)) * 1024
}

#[oxigo::main]
fn main() {
    let mut goroutines = 1_000_000_u32;
    common::options("million [--goroutines N]", |name, value| match name {
        "--goroutines" => {
            goroutines = value.parse().map_err(|_| format!("{value} is not a number"))?;
            Ok(())
        }
        _ => Err(format!("unknown option {name}")),
    });
    let each = |elapsed: Duration| elapsed.as_nanos() / u128::from(goroutines.max(1));

    let before = resident();
    let (close, closed) = unbuffered::<()>();
    let parked = WaitGroup::new();
    let ended = WaitGroup::new();
    parked.add(goroutines as isize);
    let start = Instant::now();
    oxigo::scope(|s| {
        for _ in 0..goroutines {
            let done = ended.guard();
            let (closed, parked) = (closed.clone(), &parked);
            s.go(move || {
                parked.done();
                closed.recv().expect_err("nothing is ever sent");
                drop(done);
            });
        }
        parked.wait();
        println!("{goroutines} goroutines parked: {} ns each", each(start.elapsed()));
        let bytes = resident().saturating_sub(before);
        println!("resident memory: {} bytes each, {} MiB in all", bytes / u64::from(goroutines.max(1)), bytes >> 20);

        let start = Instant::now();
        close.close().expect("closed once");
        ended.wait();
        println!("woken by close, all ended: {} ns each", each(start.elapsed()));
    });

    // Idle workers give the stacks' pages back to the system bit by bit. What stays are page tables, 512 bytes a stack, and the records of
    // the goroutines, 128 bytes each, for the next burst.
    let peak = resident();
    let start = Instant::now();
    let mut now = peak;
    while now > before + (peak - before) / 5 && start.elapsed() < Duration::from_secs(20) {
        oxigo::blocking(|| thread::sleep(Duration::from_millis(20)));
        now = resident();
    }
    println!(
        "resident memory {} ms later: {} MiB above the start",
        start.elapsed().as_millis(),
        now.saturating_sub(before) >> 20
    );
}
