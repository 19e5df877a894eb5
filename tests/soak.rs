//! The reverb server under clients that come, shout, reset, stall, dawdle and half-close at random. It ends as it began: memory,
//! descriptors and goroutines are flat, and nobody's reply was late because another client was killed.
//!
//! `OXIGO_SOAK_SECONDS` and `OXIGO_SOAK_CLIENTS` say how long and how many; `OXIGO_SOAK_LATEST`, in milliseconds, is the limit for a reply.
//! `ci/soak` runs it against a release build. `OXIGO_SOAK_IDLE` is the number of connections of the second test, which do nothing at all.
#![cfg(target_os = "linux")]

mod common;

use std::{
    env, fs,
    io::{self, BufRead, BufReader, ErrorKind, Lines, Read, Write},
    net::{Shutdown, SocketAddr},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use common::{cpu_time, example};
use oxigo::{Runtime, WaitGroup, net::TcpStream, time};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};

/// Between the parts of a shout.
const DELAY: Duration = Duration::from_millis(50);
const KINDS: [&str; 7] =
    ["shout", "reset", "stall", "byte by byte", "half-close at once", "listen to nothing", "vanish"];

fn setting(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |value| value.parse().expect(name))
}

/// A running server, which ends with this value.
struct Server {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

/// What is to stay as it is.
#[derive(Clone, Copy, Debug)]
struct Figures {
    resident: usize,
    descriptors: usize,
    goroutines: usize,
}

impl Server {
    fn start() -> Self {
        let mut command = Command::new(example("reverb"));
        command.args(["--addr", "127.0.0.1:0", "--delay", &format!("{}ms", DELAY.as_millis())]);
        let mut process = command.env("OXIGO_WORKERS", "2").stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = output.next().unwrap().unwrap();
        let address = line.strip_prefix("reverb listens on ").expect("it says where").parse().unwrap();
        Self { process, output, address }
    }

    fn figures(&mut self) -> Figures {
        let process = format!("/proc/{}", self.process.id());
        let status = fs::read_to_string(format!("{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
        let descriptors = fs::read_dir(format!("{process}/fd")).unwrap().count();
        kill_process(Pid::from_child(&self.process), Signal::USR1).unwrap();
        let line = self.output.next().unwrap().unwrap();
        let goroutines = line.strip_suffix(" goroutines").expect(&line).parse().unwrap();
        Figures { resident, descriptors, goroutines }
    }
}

impl Server {
    /// Where `/proc` tells of its workers.
    fn workers(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let tasks = tasks.map(|task| task.unwrap().path().to_str().unwrap().to_owned());
        let is_worker = |task: &String| {
            let name = fs::read_to_string(format!("{task}/comm")).unwrap_or_default();
            name.trim().strip_prefix("oxigo-").is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let workers: Vec<_> = tasks.filter(is_worker).collect();
        assert_eq!(workers.len(), 2);
        workers
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Xorshift: the same clients each time, as far as the machine allows it.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    Ok(stream)
}

/// Reads to the end; so many shouts must have come back whole.
fn hear(mut stream: &TcpStream, shouts: usize) -> io::Result<()> {
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    assert_eq!(heard.lines().count(), 3 * shouts, "{heard:?}");
    assert!(heard.lines().all(|line| line.to_lowercase() == "\t so it goes"), "{heard:?}");
    Ok(())
}

/// What the next `drop` does is a reset.
fn kill(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

/// One client, from its coming to its going.
fn visit(server: SocketAddr, kind: usize, random: &mut Random) -> io::Result<()> {
    let shouts = random.below(5) as usize;
    match KINDS[kind] {
        "shout" => {
            let mut stream = connect(server)?;
            for _ in 0..shouts {
                stream.write_all(b"So It Goes\n")?;
                time::sleep(random.millis(100));
            }
            stream.shutdown(Shutdown::Write)?;
            hear(&stream, shouts)
        }
        "reset" => {
            let mut stream = connect(server)?;
            stream.write_all(b"So It Goes\nand ha")?;
            time::sleep(random.millis(200));
            kill(stream)
        }
        "stall" => {
            let mut stream = connect(server)?;
            stream.write_all(b"So It")?;
            time::sleep(Duration::from_secs(1) + random.millis(3000));
            stream.write_all(b" Goes\n")?;
            stream.shutdown(Shutdown::Write)?;
            hear(&stream, 1)
        }
        "byte by byte" => {
            let mut stream = connect(server)?;
            stream.set_nodelay(true)?;
            for byte in b"So It Goes\nSo It Goes\n" {
                stream.write_all(&[*byte])?;
                time::sleep(random.millis(20));
            }
            stream.shutdown(Shutdown::Write)?;
            hear(&stream, 2)
        }
        "half-close at once" => {
            let stream = connect(server)?;
            stream.shutdown(Shutdown::Write)?;
            hear(&stream, 0)
        }
        "listen to nothing" => {
            // More than the system keeps for one who does not read: the server's writes stall.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_recv_buffer_size(4096)?;
            oxigo::blocking(|| socket.connect(&server.into()))?;
            let mut stream = TcpStream::try_from(std::net::TcpStream::from(socket))?;
            let mut line = vec![b'x'; 100_000];
            line.push(b'\n');
            stream.set_write_timeout(Some(Duration::from_secs(2)))?;
            for _ in 0..3 {
                stream.write_all(&line)?;
            }
            time::sleep(Duration::from_secs(1) + random.millis(1000));
            kill(stream)
        }
        _ => connect(server).map(drop),
    }
}

/// What the clients have done.
#[derive(Default)]
struct Done {
    visits: [AtomicUsize; KINDS.len()],
    /// Those that found no free port, and other failures of their own making.
    failed: AtomicUsize,
}

fn client(server: SocketAddr, mut random: Random, stop: &AtomicBool, done: &Done) {
    while !stop.load(Relaxed) {
        // One in a hundred listens to nothing: they cost memory for as long as they stay.
        let kind = match random.below(100) {
            0 => 5,
            n => [0, 1, 2, 3, 4, 6][n as usize % 6],
        };
        match visit(server, kind, &mut random) {
            Ok(()) => done.visits[kind].fetch_add(1, Relaxed),
            // Ports run out when connections come and go faster than the system forgets them.
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable => done.failed.fetch_add(1, Relaxed),
            Err(error) => panic!("{}: {error}", KINDS[kind]),
        };
        time::sleep(random.millis(500));
    }
}

/// For how long a thread of this name in `/proc` has been ready to run and had no processor.
fn without_processor(task: &str) -> Duration {
    let text = fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').nth(1).map_or(0, |field| field.parse().unwrap()))
}

/// The latest replies, in calm and while clients were killed: as they came, and without the time for which the machine gave no processor
/// to the server's workers or to who listens.
#[derive(Default)]
struct Latest {
    count: usize,
    raw: [Duration; 2],
    net: [Duration; 2],
}

/// Shouts again and again over one connection and notes when the first answer comes. On a thread of its own: the clients' runtime is no part
/// of what is measured.
fn probe(server: SocketAddr, workers: &[String], stop: &AtomicBool, killing: &AtomicBool, latest: &Mutex<Latest>) {
    let mut stream = std::net::TcpStream::connect(server).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut heard = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while !stop.load(Relaxed) {
        let before = killing.load(Relaxed);
        let waited: Vec<_> = workers.iter().map(|worker| without_processor(worker)).collect();
        let own = without_processor("/proc/thread-self");
        let begin = Instant::now();
        stream.write_all(b"Are You There\n").unwrap();
        line.clear();
        heard.read_line(&mut line).unwrap();
        let took = begin.elapsed();
        let excused = workers.iter().zip(waited).map(|(worker, before)| without_processor(worker) - before);
        let excused = excused.max().unwrap_or_default() + (without_processor("/proc/thread-self") - own);
        let kind = usize::from(before || killing.load(Relaxed));
        let mut latest = latest.lock().unwrap();
        latest.count += 1;
        latest.raw[kind] = latest.raw[kind].max(took);
        latest.net[kind] = latest.net[kind].max(took.saturating_sub(excused));
        drop(latest);
        assert_eq!(line, "\t ARE YOU THERE\n");
        for expected in ["\t Are You There\n", "\t are you there\n"] {
            line.clear();
            heard.read_line(&mut line).unwrap();
            assert_eq!(line, expected);
        }
    }
}

/// In every other second, kills clients in the middle of a shout, many at a time.
fn killer(server: SocketAddr, stop: &AtomicBool, killing: &AtomicBool) -> usize {
    let mut killed = 0;
    while !stop.load(Relaxed) {
        killing.store(true, Relaxed);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) && !stop.load(Relaxed) {
            let mut victims = Vec::new();
            for _ in 0..20 {
                let Ok(mut victim) = std::net::TcpStream::connect(server) else { continue };
                let _ = victim.write_all(b"Help\nHelp\nHel");
                SockRef::from(&victim).set_linger(Some(Duration::ZERO)).unwrap();
                victims.push(victim);
            }
            thread::sleep(Duration::from_millis(20));
            killed += victims.len();
            drop(victims);
            thread::sleep(Duration::from_millis(30));
        }
        killing.store(false, Relaxed);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(1) && !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(20));
        }
    }
    killed
}

#[test]
fn a_server_among_bad_clients_ends_as_it_began() {
    let seconds = setting("OXIGO_SOAK_SECONDS", 6);
    let clients = setting("OXIGO_SOAK_CLIENTS", 200);
    let latest = Duration::from_millis(setting("OXIGO_SOAK_LATEST", 3000));
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();

    let mut server = Server::start();
    let address = server.address;
    // Both workers have had something to do.
    for _ in 0..10 {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        (&stream).read_to_end(&mut Vec::new()).unwrap();
    }
    let before = settled(&mut server, None);
    println!("before: {before:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let killing = Arc::new(AtomicBool::new(false));
    let (workers, replies) = (server.workers(), Mutex::new(Latest::default()));
    let done = Arc::new(Done::default());
    let (samples, killed) = thread::scope(|s| {
        let _stop = StopAtEnd(&stop);
        for _ in 0..16 {
            s.spawn(|| probe(address, &workers, &stop, &killing, &replies));
        }
        let killed = s.spawn(|| killer(address, &stop, &killing));
        let crowd = s.spawn(|| {
            Runtime::builder().workers(2).build().unwrap().run(|| {
                let all = WaitGroup::new();
                for n in 0..clients {
                    let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
                    let random = Random(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(n + 1));
                    all.go(move || client(address, random, &stop, &done));
                }
                all.wait();
            });
        });
        let mut samples = Vec::new();
        for tenth in 1..=10 {
            thread::sleep(Duration::from_millis(seconds * 100));
            let figures = server.figures();
            println!("{:>4} s: {figures:?}", seconds * tenth / 10);
            samples.push(figures);
            assert!(!crowd.is_finished(), "the clients have failed");
        }
        stop.store(true, SeqCst);
        crowd.join().unwrap();
        (samples, killed.join().unwrap())
    });
    let after = settled(&mut server, Some(before));
    println!("after: {after:?}");
    for (kind, count) in KINDS.iter().zip(&done.visits) {
        println!("{kind}: {}", count.load(Relaxed));
    }
    println!("killed: {killed}, without a free port: {}", done.failed.load(Relaxed));
    let replies = replies.into_inner().unwrap();
    for (what, [calm, kills]) in [("as they came", replies.raw), ("less time without a processor", replies.net)] {
        println!(
            "the latest of {} replies, {what}: {calm:?} in calm, {kills:?} while clients were killed",
            replies.count
        );
    }

    assert_eq!((after.descriptors, after.goroutines), (before.descriptors, before.goroutines));
    // Warm by the third sample; from then on it goes up and down with those who listen to nothing.
    let highest = |part: &[Figures]| part.iter().map(|figures| figures.resident).max().unwrap();
    let (early, late) = (highest(&samples[2..6]), highest(&samples[6..]));
    assert!(late <= early + early / 4 + 8192, "resident memory grows: {samples:?}");
    let late = replies.net[1];
    assert!(late <= latest, "a reply came after {late:?}, time without a processor not counted");
}

/// Connections that do nothing: what each costs, and that they cost no time.
#[test]
fn idle_connections_cost_memory_and_nothing_else() {
    let count = setting("OXIGO_SOAK_IDLE", 500) as usize;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    assert!(
        most.is_none_or(|most| most > count as u64 + 100),
        "this process may have {most:?} descriptors (ulimit -Hn)"
    );
    let mut server = Server::start();
    let before = settled(&mut server, None);
    let connections: Vec<_> = (0..count).map(|_| std::net::TcpStream::connect(server.address).unwrap()).collect();
    let full = Figures { descriptors: before.descriptors + count, goroutines: before.goroutines + count, ..before };
    settled(&mut server, Some(full));
    // Counted is not yet run: each has its stack to touch.
    wait_until_idle(&mut server);
    let full = server.figures();
    assert_eq!(full.goroutines, before.goroutines + count);
    let each = (full.resident - before.resident) as f64 / count as f64;
    println!("{count} idle connections: {each:.1} KiB each, the kernel's part not counted");
    // The reader's buffer has 8 KiB, the stack a page. Without optimization frames are larger.
    let pages = rustix::param::page_size() as f64 / 4096.0;
    let most = pages * if cfg!(debug_assertions) { 24.0 } else { 18.0 };
    assert!(each < most, "{each} KiB for one connection");

    let (begin, cpu) = (Instant::now(), cpu_time(&server.process));
    thread::sleep(Duration::from_secs(1));
    let (passed, used) = (begin.elapsed(), cpu_time(&server.process) - cpu);
    println!("CPU time for them: {used:?} in {passed:?}");
    assert!(used < passed / 4, "{used:?} in {passed:?}");
    // The last one, and one in the middle, are served as if they were alone.
    for mut stream in [&connections[count - 1], &connections[count / 2]] {
        let begin = Instant::now();
        stream.write_all(b"Awake\n").unwrap();
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"\t AWAKE\n");
        println!("woken one: {:?}", begin.elapsed());
    }
    drop(connections);
    let after = settled(&mut server, Some(before));
    assert_eq!((after.descriptors, after.goroutines), (before.descriptors, before.goroutines));
    println!("resident before, with all, after: {}, {}, {} KiB", before.resident, full.resident, after.resident);
}

/// Ends the threads, however the test ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Until the server has used hardly any time for a while; not for ever.
fn wait_until_idle(server: &mut Server) {
    for _ in 0..100 {
        let cpu = cpu_time(&server.process);
        thread::sleep(Duration::from_millis(100));
        if cpu_time(&server.process) - cpu <= Duration::from_millis(10) {
            return;
        }
    }
}

/// The server's figures, once connections that have been closed are gone there, too: as `expected`, or after a while as they are.
fn settled(server: &mut Server, expected: Option<Figures>) -> Figures {
    let begin = Instant::now();
    let mut last = server.figures();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = server.figures();
        let same = |a: Figures, b: Figures| (a.descriptors, a.goroutines) == (b.descriptors, b.goroutines);
        if same(now, expected.unwrap_or(last)) || begin.elapsed() > Duration::from_secs(20) {
            return now;
        }
        last = now;
    }
}
