//! The reverb server, as a process of its own: many clients at once, and a full table of descriptors.
//!
//! `OXIGO_REVERB_CLIENTS` sets the size of the largest test: otherwise 10,000, or as many as the limit of descriptors allows.
//! `ci/reverb-load` runs it against a release build.

mod common;

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::example;
use oxigo::{Runtime, WaitGroup, bounded, go, net::TcpStream, time, unbuffered};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much later than two delays a connection may close on a machine that does many other things. What would be wrong is far more: one
/// connection after the other, or a wait for the next line of another.
const SLACK: Duration = Duration::from_secs(30);

/// A running server, which ends with this value.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(delay: Duration, descriptors: Option<u64>) -> Self {
        let delay = format!("{}ms", delay.as_millis());
        let mut command = match descriptors {
            None => Command::new(example("reverb")),
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")]).arg(example("reverb"));
                shell
            }
        };
        command.args(["--addr", "127.0.0.1:0", "--delay", &delay]);
        // The delays are the point here, not the machine's size.
        command.env("OXIGO_WORKERS", "2").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("reverb listens on ").expect("it says where").parse().unwrap();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Room for so many connections, in this process and in those it starts.
fn need_descriptors(count: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < count) {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).unwrap();
        assert!(
            limit.maximum.is_none_or(|maximum| maximum >= count),
            "{count} descriptors are needed, and this process may have {:?} (ulimit -Hn)",
            limit.maximum
        );
    }
}

/// Asserts that `heard` is the reverb of `lines` and nothing else: each comes back loud, as it was, soft, in this order.
fn check(heard: &str, lines: &[String]) {
    let heard: Vec<_> = heard.lines().map(|line| line.strip_prefix("\t ").expect("a tab and a blank")).collect();
    assert_eq!(heard.len(), 3 * lines.len(), "{heard:?}");
    for line in lines {
        let place = |text: &str| heard.iter().position(|other| *other == text);
        let (loud, plain, soft) = (place(&line.to_uppercase()), place(line), place(&line.to_lowercase()));
        assert!(loud.is_some() && loud < plain && plain < soft, "{line}: {heard:?}");
    }
}

/// So many clients at once, each with so many lines, half-closed at once; the longest time that one took from its first word to the end.
fn shout_all(server: SocketAddr, clients: usize, lines: usize, delay: Duration) -> Duration {
    need_descriptors(clients as u64 + 100);
    let runtime = Runtime::builder().workers(2).build().unwrap();
    runtime.run(|| {
        let (connected, done) = (Arc::new(WaitGroup::new()), WaitGroup::new());
        let (open, gate) = unbuffered::<()>();
        // Connected a few hundred at a time: a queue of listeners that overflows costs a second each.
        let (enter, leave) = bounded(256);
        let longest = Arc::new(AtomicUsize::new(0));
        for client in 0..clients {
            let (ready, gate, enter, leave) = (connected.guard(), gate.clone(), enter.clone(), leave.clone());
            let longest = longest.clone();
            done.go(move || {
                enter.send(()).unwrap();
                let stream = TcpStream::connect(server).unwrap();
                leave.recv().unwrap();
                drop(ready);
                let _ = gate.recv();
                let lines: Vec<_> = (0..lines).map(|line| format!("Client {client} Line {line}")).collect();
                let begin = Instant::now();
                for line in &lines {
                    (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
                }
                stream.shutdown(Shutdown::Write).unwrap();
                let mut heard = String::new();
                (&stream).read_to_string(&mut heard).unwrap();
                let took = begin.elapsed();
                check(&heard, &lines);
                assert!(took >= 2 * delay, "closed after {took:?}");
                longest.fetch_max(took.as_millis() as usize, SeqCst);
            });
        }
        connected.wait();
        drop(open);
        done.wait();
        Duration::from_millis(longest.load(SeqCst) as u64)
    })
}

#[test]
fn a_thousand_clients_at_once() {
    let delay = Duration::from_millis(400);
    let server = Server::start(delay, None);
    let longest = shout_all(server.address, 1000, 5, delay);
    println!("1000 clients, 5 lines each, delay {delay:?}: the last closed after {longest:?}");
    assert!(longest < 2 * delay + SLACK, "the last connection closed after {longest:?}");
}

#[test]
fn very_many_clients_at_once() {
    let asked = env::var("OXIGO_REVERB_CLIENTS").ok().map(|n| n.parse().expect("a number"));
    let room = getrlimit(Resource::Nofile).maximum.map_or(10_000, |most| most.saturating_sub(200) as usize);
    let clients = asked.unwrap_or(10_000.min(room));
    if asked.is_none() && clients < 10_000 {
        println!("only {clients} clients: this process may not have more descriptors (ulimit -Hn)");
    }
    let delay = Duration::from_secs(1);
    let server = Server::start(delay, None);
    let longest = shout_all(server.address, clients, 2, delay);
    println!("{clients} clients, 2 lines each, delay {delay:?}: the last closed after {longest:?}");
    assert!(longest < 2 * delay + 3 * SLACK, "the last connection closed after {longest:?}");
}

/// A connection ends when its own shouts have died away, while another one goes on and on.
#[test]
fn other_connections_do_not_delay_the_end() {
    let delay = Duration::from_millis(50);
    let server = Server::start(delay, None);
    let address = server.address;
    Runtime::builder().workers(2).build().unwrap().run(move || {
        let endless = Arc::new(TcpStream::connect(address).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let (shouting, stopped) = (endless.clone(), stop.clone());
        let shouter = go(move || {
            while !stopped.load(SeqCst) {
                (&*shouting).write_all(b"And On\n").unwrap();
                time::sleep(Duration::from_millis(2));
            }
            shouting.shutdown(Shutdown::Write).unwrap();
        });
        let hearing = endless.clone();
        let hearer = go(move || BufReader::new(&*hearing).lines().count());
        for n in 0..5 {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_deadline(Some(Instant::now() + SLACK)).unwrap();
            let lines = [format!("Only {n}")];
            let begin = Instant::now();
            (&stream).write_all(format!("{}\n", lines[0]).as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut heard = String::new();
            (&stream).read_to_string(&mut heard).unwrap();
            check(&heard, &lines);
            assert!(begin.elapsed() >= 2 * delay);
            // This is the point: the other one has not ended.
            assert!(!shouter.is_finished() && !hearer.is_finished());
        }
        stop.store(true, SeqCst);
        shouter.join().unwrap();
        assert_eq!(hearer.join().unwrap() % 3, 0);
    });
}

/// Clients that go away without listening do no harm.
#[test]
fn clients_that_vanish_do_no_harm() {
    let delay = Duration::from_millis(30);
    let server = Server::start(delay, None);
    for n in 0..50 {
        let mut gone = std::net::TcpStream::connect(server.address).unwrap();
        gone.write_all(b"Nobody\nListens\nand half a li").unwrap();
        if n % 2 == 0 {
            // Goes with a reset.
            socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    let mut stays = std::net::TcpStream::connect(server.address).unwrap();
    stays.write_all(b"Still There\n").unwrap();
    stays.shutdown(Shutdown::Write).unwrap();
    let mut heard = String::new();
    stays.read_to_string(&mut heard).unwrap();
    check(&heard, &["Still There".to_owned()]);
}

/// More clients than the server may have descriptors: those it has are served, it does not spin, and goes on when some leave.
#[cfg(target_os = "linux")]
#[test]
fn a_full_table_neither_spins_nor_ends_the_server() {
    let delay = Duration::from_millis(20);
    let server = Server::start(delay, Some(64));
    let hear = |stream: &mut std::net::TcpStream, line: &str| {
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        check(&heard, &[line.to_owned()]);
    };
    // The system completes connections that the server has not accepted.
    let mut clients: Vec<_> = (0..120).map(|_| std::net::TcpStream::connect(server.address).unwrap()).collect();
    // One that was accepted is served while the table is full.
    hear(&mut clients[0], "First");
    let (begin, before) = (Instant::now(), common::cpu_time(&server.process));
    std::thread::sleep(Duration::from_secs(1));
    let (used, passed) = (common::cpu_time(&server.process) - before, begin.elapsed());
    println!("CPU time of a server whose table is full: {used:?} in {passed:?}");
    assert!(used < passed / 2, "it spins");
    // As those in front leave, those behind are served, to the last.
    for (n, mut client) in clients.drain(..).enumerate().skip(1) {
        hear(&mut client, &format!("Client {n}"));
    }
}
