//! A load client for the echo servers: one message of 64 bytes in flight on each connection; every byte of every answer is checked.
//!
//! `client RUNTIME ROW --addr A --pid P --connections C --milliseconds M [--slow-open]` prints, for the server with process id P,
//! the rows ROW.rps (round trips a second), ROW.cpu (the server's CPU time for each, in nanoseconds), ROW.p50, ROW.p99, ROW.p999
//! (nanoseconds) and ROW.top (the busiest thread's share of that CPU time). It is one thread with a poller of its own and uses none of the
//! runtimes. --slow-open: the connections are opened one by one, a millisecond apart, and are idle until the last one is there.

use std::{
    collections::HashMap,
    env,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    process, thread,
    time::{Duration, Instant},
};

use oxigo_bench::{Histogram, cpu_of_threads, mix, raise_descriptor_limit};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

const MESSAGE: usize = 64;

struct Connection {
    stream: TcpStream,
    number: u64,
    round: u64,
    sent: Instant,
    got: usize,
    answer: [u8; MESSAGE],
}

/// Connections opened without a pause. A listener's queue may have 128 places, and who finds it full tries again after a second, and then two.
const AT_ONCE: u64 = 64;

/// What connection `number` says in its `round`th message.
fn message(number: u64, round: u64) -> [u8; MESSAGE] {
    let mut bytes = [0; MESSAGE];
    for (k, chunk) in bytes.chunks_exact_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(number << 40 ^ round << 3 ^ k as u64).to_le_bytes());
    }
    bytes
}

impl Connection {
    fn say(&mut self) {
        self.round += 1;
        self.got = 0;
        self.sent = Instant::now();
        // 64 bytes always fit: nothing else is in flight.
        let length = self.stream.write(&message(self.number, self.round)).expect("the server is there");
        assert_eq!(length, MESSAGE);
    }

    /// True when the whole answer is there, and right.
    fn hear(&mut self) -> bool {
        while self.got < MESSAGE {
            match self.stream.read(&mut self.answer[self.got..]) {
                Ok(0) => panic!("connection {} was closed by the server", self.number),
                Ok(length) => self.got += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("connection {}: {error}", self.number),
            }
        }
        assert!(self.answer == message(self.number, self.round), "connection {}: wrong bytes", self.number);
        true
    }
}

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (names, options): (Vec<_>, Vec<_>) = {
        let split = arguments.iter().position(|a| a.starts_with("--")).unwrap_or(arguments.len());
        (arguments[..split].to_vec(), arguments[split..].to_vec())
    };
    let option = |name: &str| {
        let at = options.iter().position(|o| o == name)?;
        options.get(at + 1).cloned()
    };
    let number = |name: &str| option(name).and_then(|value| value.parse::<u64>().ok());
    let (Some([runtime, row]), Some(address), Some(pid), Some(connections), Some(milliseconds)) = (
        names.as_chunks::<2>().0.first(),
        option("--addr").and_then(|a| a.parse::<SocketAddr>().ok()),
        number("--pid"),
        number("--connections"),
        number("--milliseconds"),
    ) else {
        eprintln!("usage: client RUNTIME ROW --addr A --pid P --connections C --milliseconds M [--slow-open]");
        process::exit(64)
    };
    let pause = options.iter().any(|o| o == "--slow-open").then_some(Duration::from_millis(1));
    raise_descriptor_limit();

    let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a poller");
    let mut all: Vec<Connection> = (0..connections)
        .map(|number| {
            if let Some(pause) = pause {
                thread::sleep(pause);
            } else if number % AT_ONCE == AT_ONCE - 1 {
                thread::sleep(Duration::from_millis(1));
            }
            let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connection {number}: {error}"));
            stream.set_nodelay(true).expect("a socket");
            stream.set_nonblocking(true).expect("a socket");
            epoll::add(&poller, &stream, epoll::EventData::new_u64(number), epoll::EventFlags::IN).expect("memory");
            Connection { stream, number, round: 0, sent: Instant::now(), got: 0, answer: [0; MESSAGE] }
        })
        .collect();

    all.iter_mut().for_each(Connection::say);
    // One round trip each to warm up, then for as long as asked.
    let (mut silent, mut histogram) = (connections, Histogram::default());
    let (mut begin, mut before) = (Instant::now(), HashMap::new());
    let mut events = Vec::with_capacity(512);
    let second = Timespec { tv_sec: 10, tv_nsec: 0 };
    loop {
        events.clear();
        epoll::wait(&poller, spare_capacity(&mut events), Some(&second)).expect("no signals");
        assert!(!events.is_empty(), "no answer within ten seconds");
        for event in &events {
            let connection = &mut all[event.data.u64() as usize];
            if !connection.hear() {
                continue;
            }
            if silent > 0 {
                if connection.round == 1 {
                    silent -= 1;
                    if silent == 0 {
                        (begin, before) = (Instant::now(), cpu_of_threads(pid as u32).into_iter().collect());
                    }
                }
            } else {
                histogram.add(connection.sent.elapsed().as_nanos() as u64);
            }
            connection.say();
        }
        if silent == 0 && begin.elapsed() >= Duration::from_millis(milliseconds) {
            break;
        }
    }

    let elapsed = begin.elapsed().as_secs_f64();
    let used = cpu_of_threads(pid as u32).into_iter();
    let used: Vec<u64> = used.map(|(thread, time)| time - before.get(&thread).copied().unwrap_or(0)).collect();
    let (cpu, trips) = (used.iter().sum::<u64>() as f64, histogram.total() as f64);
    let report = |what: &str, value: f64| println!("{row}.{what} {runtime} {value:.3}");
    report("rps", trips / elapsed);
    report("cpu", cpu / trips);
    report("p50", histogram.quantile(0.5));
    report("p99", histogram.quantile(0.99));
    report("p999", histogram.quantile(0.999));
    report("top", used.iter().copied().max().unwrap_or(0) as f64 / cpu);
}
