//! cargo run --release --example reverb -- [--addr 127.0.0.1:8000] [--delay 1s]
//!
//! The reverb server: what a client shouts comes back three times, fainter each time, as between mountains.
//! Every connection has a goroutine, and so has every shout. Each connection has a `WaitGroup` of its own, so that its write half
//! closes when its own shouts have died away, and nobody else's. Try it with `cargo run --release --example netcat`.
//! `kill -USR1` has it print how many goroutines there are.

mod common;

use std::{
    io::{self, BufRead, BufReader, Write},
    net::Shutdown,
    sync::Arc,
    time::Duration,
};

use oxigo::{
    WaitGroup,
    net::{TcpListener, TcpStream},
    signal::{self, Signal},
    time,
};

/// One shout: loud, as it was, soft. A peer that has gone away hears nothing.
fn shout(mut connection: &TcpStream, text: &str, delay: Duration) -> io::Result<()> {
    connection.write_all(format!("\t {}\n", text.to_uppercase()).as_bytes())?;
    time::sleep(delay);
    connection.write_all(format!("\t {text}\n").as_bytes())?;
    time::sleep(delay);
    connection.write_all(format!("\t {}\n", text.to_lowercase()).as_bytes())
}

fn handle(connection: TcpStream, delay: Duration) {
    let connection = Arc::new(connection);
    let shouts = WaitGroup::new();
    for line in BufReader::new(&*connection).lines() {
        let Ok(line) = line else { break };
        let connection = Arc::clone(&connection);
        shouts.go(move || {
            // Whoever does not listen any more is not an error of ours.
            let _ = shout(&connection, &line, delay);
        });
    }
    shouts.wait();
    let _ = connection.shutdown(Shutdown::Write);
}

#[oxigo::main]
fn main() -> io::Result<()> {
    let mut addr = "127.0.0.1:8000".to_owned();
    let mut delay = Duration::from_secs(1);
    common::options("reverb [--addr ADDRESS:PORT] [--delay 1s]", |name, value| {
        match name {
            "--addr" => addr = value.to_owned(),
            "--delay" => delay = common::duration(value)?,
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    });
    common::raise_descriptor_limit();

    let listener = TcpListener::bind(&addr)?;
    let questions = signal::notify(&[Signal::USR1]);
    oxigo::go(move || questions.iter().for_each(|_| println!("{} goroutines", oxigo::num_goroutines())));
    println!("reverb listens on {}", listener.local_addr()?);
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                oxigo::go(move || handle(connection, delay));
            }
            // A connection that was aborted, or a full descriptor table: the others go on.
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}
