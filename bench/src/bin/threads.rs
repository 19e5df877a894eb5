//! The workloads on OS threads with crossbeam-channel, as far as threads can.

use std::{
    collections::HashMap,
    net::{TcpListener, TcpStream},
    sync::{Mutex, RwLock},
    thread,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use oxigo_bench::{
    CROWD, Options,
    blocking::{self, Blocking},
    compute_for, keys, leak, serve_until_eof,
};

fn main() {
    let o = Options::read("threads");
    let parties = o.parties;
    match o.workload.as_str() {
        "spawn" => o.each(blocking::spawn::<Threads>),
        "spawn_one" => o.each(blocking::spawn_one::<Threads>),
        "pingpong" => o.each(blocking::pingpong::<Threads>),
        "unbuffered" => o.each(|n| blocking::stream::<Threads>(0, n)),
        "buffered" => o.each(|n| blocking::stream::<Threads>(128, n)),
        "mpmc" => o.each(|n| blocking::mpmc::<Threads>(n, parties)),
        "select" => o.each(selects),
        "mutex" => o.each(mutex),
        "yield" => o.each(|n| blocking::crowd::<Threads>(move || (0..n / CROWD).for_each(|_| thread::yield_now()))),
        "rpc" => o.each(blocking::rpc::<Threads>),
        "chain" => o.each(blocking::chain::<Threads>),
        "parked" => blocking::parked::<Threads>(&o),
        "sleepers" => o.whole_cold(blocking::sleepers::<Threads>),
        "unequal" => o.share(blocking::unequal::<Threads>),
        "bursts" => o.share(blocking::bursts::<Threads>),
        "arrivals" => o.share(blocking::arrivals::<Threads>),
        "pool" => o.share(blocking::pool::<Threads>),
        "forks" => o.share(blocking::forks::<Threads>),
        "limited" => o.share(blocking::limited::<Threads>),
        "stages" => o.share(blocking::stages::<Threads>),
        "actors" => o.share(blocking::actors::<Threads>),
        "graph" => o.each(blocking::graph::<Threads>),
        "readers" => o.each(readers),
        "loopback" => o.each(loopback),
        "echo" => echo(false),
        "hog" => echo(true),
        _ => o.none(),
    }
}

struct Threads;

impl Blocking for Threads {
    type Handle<T: Send + 'static> = thread::JoinHandle<T>;
    type Tx<T: Send + 'static> = Sender<T>;
    type Rx<T: Send + 'static> = Receiver<T>;
    type SharedTx<T: Send + 'static> = Sender<T>;
    type SharedRx<T: Send + 'static> = Receiver<T>;

    /// Small stacks, so that many threads fit.
    fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        thread::Builder::new().stack_size(64 << 10).spawn(f).expect("a thread")
    }

    fn join<T: Send + 'static>(handle: thread::JoinHandle<T>) -> T {
        handle.join().expect("no panic")
    }

    fn channel<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        bounded(capacity)
    }

    fn shared<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        bounded(capacity)
    }

    fn yield_now() {
        thread::yield_now();
    }

    fn sleep(time: Duration) {
        thread::sleep(time);
    }
}

fn selects(n: u64) {
    let (left, from_left) = bounded(0);
    let (right, from_right) = bounded(0);
    let (quit, stop) = bounded::<()>(0);
    let senders = [left.clone(), right.clone()]
        .map(|side| Threads::go(move || (0..n / 2).for_each(|k| side.send(k).expect("received below"))));
    Threads::go(move || {
        senders.into_iter().for_each(Threads::join);
        drop(quit);
    });
    let mut sum = 0;
    loop {
        select! {
            recv(from_left) -> k => sum += k.expect("open"),
            recv(from_right) -> k => sum += k.expect("open"),
            recv(stop) -> _ => break,
        }
    }
    drop((left, right));
    let half = n / 2;
    assert_eq!(sum, half * half.saturating_sub(1));
}

fn mutex(n: u64) {
    let counter = leak(Mutex::new(0));
    blocking::crowd::<Threads>(move || (0..n / CROWD).for_each(|_| *counter.lock().expect("no panic") += 1));
    assert_eq!(*counter.lock().expect("no panic"), n / CROWD * CROWD);
}

fn readers(n: u64) {
    let add = |map: &RwLock<HashMap<_, _>>, key| *map.write().expect("no panic").get_mut(&key).expect("a key") += 1;
    blocking::readers::<Threads, _>(n, RwLock::new(keys()), |map, key| map.read().expect("no panic")[&key], add);
}

fn loopback(n: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let accept = move || listener.accept().expect("a connection").0;
    blocking::loopback::<Threads, _>(n, accept, || TcpStream::connect(address).expect("the server listens"));
}

fn echo(hog: bool) {
    oxigo_bench::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    Threads::go(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            let _ = connection.set_nodelay(true);
            Threads::go(move || blocking::answer(connection));
        }
    });
    if hog {
        blocking::compute_half_the_time::<Threads>(compute_for);
    }
    serve_until_eof(address);
}
