//! cargo run --release --example countdown -- [--from 10] [--period 1s]
//!
//! Counts down to a launch, once a period; Return aborts it.
//! A `select!` waits for two things at once: the next tick, and word from the goroutine that reads standard input. Reading it blocks a
//! thread for as long as nobody types, so that goroutine reads through `blocking`, and no other one has to wait with it.

mod common;

use std::{io, time::Duration};

use oxigo::{blocking, chan, go, select, unbuffered};

/// Whether there was a line. At the end of the input there is none, and there never will be.
fn read_line() -> bool {
    io::stdin().read_line(&mut String::new()).is_ok_and(|bytes| bytes > 0)
}

#[oxigo::main]
fn main() {
    let mut from = 10;
    let mut period = Duration::from_secs(1);
    common::options("countdown [--from 10] [--period 1s]", |name, value| {
        match name {
            "--from" => from = value.parse::<u32>().map_err(|error| format!("{value}: {error}"))?,
            "--period" => period = common::duration(value)?,
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });

    let (abort, mut aborted) = unbuffered();
    go(move || {
        if blocking(read_line) {
            let _ = abort.send(());
        }
    });

    println!("counting down; press Return to abort");
    let ticks = chan::tick(period);
    let mut left = from;
    while left > 0 {
        select! {
            recv(ticks) -> _ => {
                println!("{left}");
                left -= 1;
            },
            recv(aborted) -> word => match word {
                Ok(()) => {
                    println!("launch aborted");
                    oxigo::exit(1);
                }
                // The input has ended, and with it the sender. This arm would be ready from now on; `never` disables it.
                Err(_) => aborted = chan::never(),
            },
        }
    }
    println!("lift-off");
}
