//! cargo run --release --example netcat -- [--addr 127.0.0.1:8000]
//!
//! The client for `reverb`: standard input goes to the server, what the server says goes to standard output. At the end of input
//! the write half is closed and the rest is heard to its end.

mod common;

use std::{
    io::{self, Write},
    net::Shutdown,
};

use oxigo::net::TcpStream;

#[oxigo::main]
fn main() -> io::Result<()> {
    let mut addr = "127.0.0.1:8000".to_owned();
    common::options("netcat [--addr ADDRESS:PORT]", |name, value| match name {
        "--addr" => {
            addr = value.to_owned();
            Ok(())
        }
        _ => Err(format!("unknown option {name}")),
    });
    let server = TcpStream::connect(&addr)?;
    let mut listening = server.try_clone()?;
    let heard = oxigo::go(move || -> io::Result<()> {
        let mut out = io::stdout();
        let mut buffer = [0; 8192];
        loop {
            let n = io::Read::read(&mut listening, &mut buffer)?;
            if n == 0 {
                return out.flush();
            }
            out.write_all(&buffer[..n])?;
            out.flush()?;
        }
    });

    let mut speaking = &server;
    let mut buffer = vec![0; 8192];
    loop {
        // Standard input blocks a thread, so it is read on one that may be blocked.
        let n = oxigo::blocking(|| io::Read::read(&mut io::stdin(), &mut buffer))?;
        if n == 0 {
            break;
        }
        speaking.write_all(&buffer[..n])?;
    }
    server.shutdown(Shutdown::Write)?;
    heard.join().expect("the listener does not panic")
}
