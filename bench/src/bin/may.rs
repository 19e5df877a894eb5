//! The workloads on may. Its channels are all unbounded: what needs a rendezvous it has not.

use std::{collections::HashMap, time::Duration};

use may::{
    config,
    coroutine::{self, JoinHandle, yield_now},
    go,
    net::{TcpListener, TcpStream},
    sync::{Mutex, RwLock, mpmc, mpsc},
};
use oxigo_bench::{
    CROWD, Options,
    blocking::{self, Blocking},
    compute_for, keys, leak, serve_until_eof,
};

fn main() {
    let o = Options::read("may");
    let parties = o.parties;
    config().set_workers(o.workers);
    macro_rules! on {
        ($work:expr) => {
            |n| go!(move || $work(n)).join().expect("no panic")
        };
    }
    match o.workload.as_str() {
        "spawn" => o.each(on!(blocking::spawn::<May>)),
        "spawn_one" => o.each(on!(blocking::spawn_one::<May>)),
        "pingpong" => o.each(on!(blocking::pingpong::<May>)),
        "buffered" => o.each(on!(|n| blocking::stream::<May>(128, n))),
        "mpmc" => o.each(on!(|n| blocking::mpmc::<May>(n, parties))),
        "mutex" => o.each(on!(mutex)),
        "yield" => o.each(on!(|n| blocking::crowd::<May>(move || (0..n / CROWD).for_each(|_| yield_now())))),
        "rpc" => o.each(on!(blocking::rpc::<May>)),
        "skynet" => o.whole(on!(blocking::skynet::<May>)),
        "parked" => {
            let o = o.clone();
            go!(move || blocking::parked::<May>(&o)).join().expect("no panic");
        }
        "sleepers" => o.whole_cold(on!(blocking::sleepers::<May>)),
        "unequal" => o.share(|n, iterations| May::join(May::go(move || blocking::unequal::<May>(n, iterations)))),
        "bursts" => o.share(|n, iterations| May::join(May::go(move || blocking::bursts::<May>(n, iterations)))),
        "arrivals" => o.share(|n, iterations| May::join(May::go(move || blocking::arrivals::<May>(n, iterations)))),
        "pool" => o.share(|n, iterations| May::join(May::go(move || blocking::pool::<May>(n, iterations)))),
        "forks" => o.share(|n, iterations| May::join(May::go(move || blocking::forks::<May>(n, iterations)))),
        "stages" => o.share(|n, iterations| May::join(May::go(move || blocking::stages::<May>(n, iterations)))),
        "actors" => o.share(|n, iterations| May::join(May::go(move || blocking::actors::<May>(n, iterations)))),
        "graph" => o.each(on!(blocking::graph::<May>)),
        "readers" => o.each(on!(readers)),
        "loopback" => o.each(on!(loopback)),
        "echo" => echo(false),
        "hog" => echo(true),
        _ => o.none(),
    }
}

struct May;

impl Blocking for May {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Tx<T: Send + 'static> = mpsc::Sender<T>;
    type Rx<T: Send + 'static> = mpsc::Receiver<T>;
    type SharedTx<T: Send + 'static> = mpmc::Sender<T>;
    type SharedRx<T: Send + 'static> = mpmc::Receiver<T>;

    fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        go!(f)
    }

    fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.join().expect("no panic")
    }

    fn channel<T: Send + 'static>(_: usize) -> (mpsc::Sender<T>, mpsc::Receiver<T>) {
        mpsc::channel()
    }

    fn shared<T: Send + 'static>(_: usize) -> (mpmc::Sender<T>, mpmc::Receiver<T>) {
        mpmc::channel()
    }

    fn yield_now() {
        yield_now();
    }

    fn sleep(time: Duration) {
        coroutine::sleep(time);
    }
}

fn mutex(n: u64) {
    let counter = leak(Mutex::new(0));
    blocking::crowd::<May>(move || (0..n / CROWD).for_each(|_| *counter.lock().expect("no panic") += 1));
    assert_eq!(*counter.lock().expect("no panic"), n / CROWD * CROWD);
}

fn readers(n: u64) {
    let add = |map: &RwLock<HashMap<_, _>>, key| *map.write().expect("no panic").get_mut(&key).expect("a key") += 1;
    blocking::readers::<May, _>(n, RwLock::new(keys()), |map, key| map.read().expect("no panic")[&key], add);
}

fn loopback(n: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let accept = move || listener.accept().expect("a connection").0;
    blocking::loopback::<May, _>(n, accept, || TcpStream::connect(address).expect("the server listens"));
}

fn echo(hog: bool) {
    oxigo_bench::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    go!(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            let _ = connection.set_nodelay(true);
            go!(move || blocking::answer(connection));
        }
    });
    if hog {
        blocking::compute_half_the_time::<May>(compute_for);
    }
    serve_until_eof(address);
}
