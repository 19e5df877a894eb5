//! The workloads on oxigo.

use std::{
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use oxigo::{
    Builder, Goroutine, JoinHandle, Receiver, Runtime, Sender, WaitGroup, bounded, go,
    net::{TcpListener, TcpStream},
    park, select,
    sync::RwLock,
    time, unbuffered, yield_now,
};
use oxigo_bench::{
    CROWD, Options, PENDING, RPC,
    blocking::{self, Blocking},
    compute_for, far, keys, leak, mix, nap, nth_prime, resident, serve_until_eof,
};

fn main() {
    let o = Options::read("oxigo");
    let (workers, parties) = (o.workers, o.parties);
    let runtime = Runtime::builder().workers(workers).build().expect("a runtime");
    let on = |work: fn(u64)| {
        let runtime = &runtime;
        move |n| runtime.run(move || work(n))
    };
    match o.workload.as_str() {
        "spawn" => o.each(on(spawn)),
        "spawn_one" => o.each(on(spawn_one)),
        "pingpong" => o.each(on(|n| pingpong(n, &Places::default()))),
        "pingpong_apart" => o.each(|n| runtime.run(|| apart(workers, |places| pingpong(n, places)))),
        "unbuffered" => o.each(on(|n| blocking::stream::<Oxigo>(0, n))),
        "buffered" => o.each(on(|n| blocking::stream::<Oxigo>(128, n))),
        "mpmc" => o.each(|n| runtime.run(move || blocking::mpmc::<Oxigo>(n, parties))),
        "select" => o.each(on(select)),
        "mutex" => o.each(on(mutex)),
        "yield" => o.each(on(yields)),
        "sieve" => o.whole(on(|n| sieve(n, &Places::default()))),
        "sieve_apart" => o.whole(|n| runtime.run(|| apart(workers, |places| sieve(n, places)))),
        "rpc" => o.each(on(|n| rpc(n, &Places::default()))),
        "rpc_apart" => o.each(|n| runtime.run(|| apart(workers, |places| rpc(n, places)))),
        "skynet" => o.whole(on(blocking::skynet::<Oxigo>)),
        "chain" => o.each(on(blocking::chain::<Oxigo>)),
        "parked" => runtime.run(|| parked(&o)),
        "timer" => runtime.run(|| timers(&o)),
        "limit" => o.each(on(limits)),
        "sleepers" => o.whole_cold(on(sleepers)),
        "unequal" => o.share(|n, iterations| runtime.run(|| blocking::unequal::<Oxigo>(n, iterations))),
        "bursts" => o.share(|n, iterations| runtime.run(|| blocking::bursts::<Oxigo>(n, iterations))),
        "arrivals" => o.share(|n, iterations| runtime.run(|| blocking::arrivals::<Oxigo>(n, iterations))),
        "pool" => o.share(|n, iterations| runtime.run(|| blocking::pool::<Oxigo>(n, iterations))),
        "forks" => o.share(|n, iterations| runtime.run(|| blocking::forks::<Oxigo>(n, iterations))),
        "limited" => o.share(|n, iterations| runtime.run(|| blocking::limited::<Oxigo>(n, iterations))),
        "stages" => o.share(|n, iterations| runtime.run(|| blocking::stages::<Oxigo>(n, iterations))),
        "actors" => o.share(|n, iterations| runtime.run(|| blocking::actors::<Oxigo>(n, iterations))),
        "graph" => o.each(on(blocking::graph::<Oxigo>)),
        "readers" => o.each(on(readers)),
        "loopback" => o.each(on(loopback)),
        "echo" => echo(&runtime, None),
        "hog" => echo(&runtime, Some(compute_for)),
        "hog_blocking" => echo(&runtime, Some(|time| oxigo::blocking(|| compute_for(time)))),
        _ => o.none(),
    }
}

struct Oxigo;

impl Blocking for Oxigo {
    type Handle<T: Send + 'static> = JoinHandle<T>;
    type Tx<T: Send + 'static> = Sender<T>;
    type Rx<T: Send + 'static> = Receiver<T>;
    type SharedTx<T: Send + 'static> = Sender<T>;
    type SharedRx<T: Send + 'static> = Receiver<T>;

    fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        go(f)
    }

    fn join<T: Send + 'static>(handle: JoinHandle<T>) -> T {
        handle.join().expect("no panic")
    }

    fn channel<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        bounded(capacity)
    }

    fn shared<T: Send + 'static>(capacity: usize) -> (Sender<T>, Receiver<T>) {
        bounded(capacity)
    }

    fn yield_now() {
        yield_now();
    }

    fn sleep(time: Duration) {
        time::sleep(time);
    }
}

/// Where goroutines start: where the scheduler likes, or each at a random worker.
#[derive(Default)]
struct Places {
    anchors: Vec<Goroutine>,
}

impl Places {
    fn go(&self, number: u64, f: impl FnOnce() + Send + 'static) {
        if self.anchors.is_empty() {
            go(f);
            return;
        }
        // Numbers 0 and 1, a pair, are apart for certain.
        let at = if number < 2 { number } else { mix(number) };
        let anchor = &self.anchors[at as usize % self.anchors.len()];
        Builder::new().near(anchor).spawn(f).expect("a goroutine");
    }
}

/// Runs `work` with a goroutine parked on each of `workers`, to start others near.
fn apart(workers: usize, work: impl FnOnce(&Places)) {
    let met: &(Mutex<usize>, Condvar) = leak(Default::default());
    let anchors: Vec<_> = (0..workers)
        .map(|_| {
            go(move || {
                // Each blocks its worker until all have one.
                let mut count = met.0.lock().expect("nobody panics");
                *count += 1;
                met.1.notify_all();
                drop(met.1.wait_timeout_while(count, Duration::from_secs(1), |count| *count < workers));
                park();
            })
        })
        .collect();
    while *met.0.lock().expect("nobody panics") < workers {
        yield_now();
    }
    work(&Places { anchors: anchors.iter().map(|anchor| anchor.goroutine().clone()).collect() });
    for anchor in anchors {
        anchor.goroutine().unpark();
        anchor.join().expect("only waits");
    }
}

fn spawn(n: u64) {
    let all = leak(WaitGroup::new());
    all.add(n as isize);
    for _ in 0..n {
        go(|| all.done());
    }
    all.wait();
}

fn spawn_one(n: u64) {
    let (results, received) = unbuffered();
    let (results, mut sum) = (leak(results), 0);
    for k in 0..n {
        go(move || results.send(k).expect("received below"));
        sum += received.recv().expect("sent above");
    }
    assert_eq!(sum, n * (n - 1) / 2);
}

fn pingpong(n: u64, places: &Places) {
    let (there, arrives) = unbuffered();
    let (back, answers) = unbuffered();
    places.go(0, move || {
        for k in &arrives {
            back.send(k + 1).expect("the other side waits");
        }
    });
    let (result, done) = unbuffered();
    places.go(1, move || {
        let mut k = 0;
        for _ in 0..n {
            there.send(k).expect("the other side waits");
            k = answers.recv().expect("an answer");
        }
        result.send(k).expect("waited for");
    });
    assert_eq!(done.recv(), Ok(n));
}

fn select(n: u64) {
    let (left, from_left) = unbuffered();
    let (right, from_right) = unbuffered();
    let (quit, stop) = unbuffered::<()>();
    let all = leak(WaitGroup::new());
    all.add(2);
    // The first handles live on, so that neither channel closes.
    for side in [left.clone(), right.clone()] {
        go(move || {
            for k in 0..n / 2 {
                side.send(k).expect("received below");
            }
            all.done();
        });
    }
    go(move || {
        all.wait();
        quit.close().expect("closed once");
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
    let counter = leak(oxigo::sync::Mutex::new(0));
    let all = leak(WaitGroup::new());
    all.add(CROWD as isize);
    for _ in 0..CROWD {
        go(move || {
            for _ in 0..n / CROWD {
                *counter.lock() += 1;
            }
            all.done();
        });
    }
    all.wait();
    assert_eq!(*counter.lock(), n / CROWD * CROWD);
}

fn readers(n: u64) {
    let map = RwLock::new(keys());
    blocking::readers::<Oxigo, _>(
        n,
        map,
        |map, key| map.read()[&key],
        |map, key| *map.write().get_mut(&key).expect("a key") += 1,
    );
}

fn loopback(n: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    let accept = move || listener.accept().expect("a connection").0;
    blocking::loopback::<Oxigo, _>(n, accept, || TcpStream::connect(address).expect("the server listens"));
}

fn yields(n: u64) {
    let all = leak(WaitGroup::new());
    all.add(CROWD as isize);
    for _ in 0..CROWD {
        go(move || {
            for _ in 0..n / CROWD {
                yield_now();
            }
            all.done();
        });
    }
    all.wait();
}

fn sieve(n: u64, places: &Places) {
    let (numbers, mut received) = unbuffered();
    places.go(0, move || {
        // Until nobody receives any more.
        let _ = (2..).try_for_each(|k| numbers.send(k));
    });
    let mut last = 0;
    for number in 1..=n {
        let (passed, next) = unbuffered();
        let prime: u64 = received.recv().expect("more numbers");
        last = prime;
        places.go(number, move || {
            for k in &received {
                if k % prime != 0 && passed.send(k).is_err() {
                    return;
                }
            }
        });
        received = next;
    }
    assert_eq!(last, nth_prime(n));
}

fn rpc(n: u64, places: &Places) {
    let (servers, clients) = RPC;
    let (requests, received) = unbuffered::<(u64, Sender<u64>)>();
    let all = leak(WaitGroup::new());
    for number in 0..servers {
        let received = received.clone();
        places.go(2 + number, move || {
            for (k, reply) in &received {
                reply.send(k + 1).expect("a client waits");
            }
        });
    }
    all.add(clients as isize);
    for number in 0..clients {
        let requests = requests.clone();
        places.go(2 + servers + number, move || {
            let (reply, answers) = unbuffered();
            for k in 0..n / clients {
                requests.send((k, reply.clone())).expect("servers wait");
                assert_eq!(answers.recv(), Ok(k + 1));
            }
            all.done();
        });
    }
    all.wait();
}

fn parked(o: &Options) {
    let (close, closed) = unbuffered::<()>();
    let (parked, ended) = (leak(WaitGroup::new()), leak(WaitGroup::new()));
    let before = resident();
    parked.add(o.n as isize);
    ended.add(o.n as isize);
    let start = Instant::now();
    for _ in 0..o.n {
        let closed = closed.clone();
        go(move || {
            parked.done();
            closed.recv().expect_err("nothing is ever sent");
            ended.done();
        });
    }
    parked.wait();
    o.report("parked.create", start.elapsed().as_nanos() as f64 / o.n as f64);
    o.report("parked.bytes", resident().saturating_sub(before) as f64 / o.n as f64);
    let start = Instant::now();
    close.close().expect("closed once");
    ended.wait();
    o.report("parked.wake", start.elapsed().as_nanos() as f64 / o.n as f64);
}

/// Arms a timer and takes it back, beside others that are pending.
fn timers(o: &Options) {
    let mut others = Vec::new();
    for pending in PENDING {
        others.extend((others.len() as u64..pending).map(|k| time::after_func(far(k), || ())));
        let start = Instant::now();
        for k in 0..o.n {
            let stopped = time::after_func(far(k), || ()).stop();
            assert!(stopped);
        }
        o.report(&format!("timer.{pending}"), start.elapsed().as_nanos() as f64 / o.n as f64);
    }
    others.iter().for_each(|timer| assert!(timer.stop()));
}

/// `pingpong`, with a time limit to each receive.
fn limits(n: u64) {
    let ((to, at), (back, here)) = (unbuffered(), unbuffered());
    go(move || {
        (0..n).for_each(|k| {
            at.recv_timeout(far(k)).expect("sent");
            back.send(()).expect("received");
        });
    });
    for k in 0..n {
        to.send(()).expect("received");
        here.recv_timeout(far(k)).expect("sent");
    }
}

fn sleepers(n: u64) {
    let all = leak(WaitGroup::new());
    all.add(n as isize);
    for k in 0..n {
        go(move || {
            time::sleep(nap(k));
            all.done();
        });
    }
    all.wait();
}

/// Serves until standard input ends; with `hog`, one goroutine computes so half the time.
fn echo(runtime: &Runtime, hog: Option<fn(Duration)>) {
    oxigo_bench::raise_descriptor_limit();
    let listener = runtime.run(|| TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.go(move || {
        loop {
            let (connection, _) = listener.accept().expect("a connection");
            let _ = connection.set_nodelay(true);
            go(move || blocking::answer(connection));
        }
    });
    if let Some(compute_for) = hog {
        runtime.run(move || blocking::compute_half_the_time::<Oxigo>(compute_for));
    }
    serve_until_eof(address);
}
