//! The workloads on tokio: channels by kanal; flume where values must survive a `select!`.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering::AcqRel},
    task::Poll,
    time::Instant,
};

use kanal::{AsyncReceiver, AsyncSender, bounded_async as bounded};
use oxigo_bench::{
    ACTORS, BURSTS, CROWD, ECHO_BUFFER, HOG, LIMIT, LIMITED, Options, PENDING, POOL, RPC, STAGES, STEPS, UNEQUAL,
    access, before, compute, compute_for, far, keys, leak, nap, nth_prime, resident, serve_until_eof,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{self, Runtime},
    select, spawn,
    sync::{Mutex, Notify, RwLock},
    task::{spawn_blocking, yield_now},
    time,
};

fn main() {
    let o = Options::read("tokio");
    let (workers, parties) = (o.workers, o.parties);
    let runtime = runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime");
    macro_rules! on {
        ($work:expr) => {
            // As a task of its own: `block_on`'s future runs on no worker.
            |n| runtime.block_on(runtime.spawn($work(n))).expect("no panic")
        };
    }
    match o.workload.as_str() {
        "spawn" => o.each(on!(spawn_many)),
        "spawn_one" => o.each(on!(spawn_one)),
        "pingpong" => o.each(on!(pingpong)),
        "unbuffered" => o.each(on!(|n| stream(0, n))),
        "buffered" => o.each(on!(|n| stream(128, n))),
        "buffered_mpsc" => o.each(on!(stream_mpsc)),
        "mpmc" => o.each(on!(|n| mpmc(n, parties))),
        "select" => o.each(on!(selects)),
        "mutex" => o.each(on!(mutex)),
        "yield" => o.each(on!(yields)),
        "sieve" => o.whole(on!(sieve)),
        "rpc" => o.each(on!(rpc)),
        "skynet" => o.whole(on!(skynet)),
        "chain" => o.each(on!(chain)),
        "parked" => {
            let o = o.clone();
            runtime.block_on(runtime.spawn(parked(o))).expect("no panic");
        }
        "timer" => {
            let o = o.clone();
            runtime.block_on(runtime.spawn(timers(o))).expect("no panic");
        }
        "limit" => o.each(on!(limits)),
        "sleepers" => o.whole_cold(on!(sleepers)),
        "unequal" => {
            o.share(|n, iterations| runtime.block_on(runtime.spawn(unequal(n, iterations))).expect("no panic"))
        }
        "bursts" => o.share(|n, iterations| runtime.block_on(runtime.spawn(bursts(n, iterations))).expect("no panic")),
        "arrivals" => {
            o.share(|n, iterations| runtime.block_on(runtime.spawn(arrivals(n, iterations))).expect("no panic"))
        }
        "pool" => o.share(|n, iterations| runtime.block_on(runtime.spawn(pool(n, iterations))).expect("no panic")),
        "forks" => o.share(|n, iterations| runtime.block_on(runtime.spawn(forks(n, iterations))).expect("no panic")),
        "limited" => {
            o.share(|n, iterations| runtime.block_on(runtime.spawn(limited(n, iterations))).expect("no panic"))
        }
        "stages" => o.share(|n, iterations| runtime.block_on(runtime.spawn(stages(n, iterations))).expect("no panic")),
        "actors" => o.share(|n, iterations| runtime.block_on(runtime.spawn(actors(n, iterations))).expect("no panic")),
        "graph" => o.each(on!(graph)),
        "readers" => o.each(on!(readers)),
        "loopback" => o.each(on!(loopback)),
        "echo" => echo(&runtime, None),
        "hog" => echo(&runtime, Some(Hog::Here)),
        "hog_blocking" => echo(&runtime, Some(Hog::Blocking)),
        _ => o.none(),
    }
}

/// Go's `WaitGroup`, for one use: tokio has none that costs less.
struct Group {
    left: AtomicU64,
    done: Notify,
}

impl Group {
    fn of(n: u64) -> &'static Self {
        leak(Self { left: AtomicU64::new(n), done: Notify::new() })
    }

    fn done(&self) {
        if self.left.fetch_sub(1, AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    async fn wait(&self) {
        self.done.notified().await;
    }
}

async fn spawn_many(n: u64) {
    let all = Group::of(n);
    for _ in 0..n {
        spawn(async { all.done() });
    }
    all.wait().await;
}

/// By joining, which costs less than a channel.
async fn spawn_one(n: u64) {
    let mut sum = 0;
    for k in 0..n {
        sum += spawn(async move { k }).await.expect("no panic");
    }
    assert_eq!(sum, n * (n - 1) / 2);
}

async fn pingpong(n: u64) {
    let (there, arrives) = bounded(0);
    let (back, answers) = bounded(0);
    spawn(async move {
        while let Ok(k) = arrives.recv().await {
            back.send(k + 1).await.expect("the other side waits");
        }
    });
    let mut k = 0_u64;
    for _ in 0..n {
        there.send(k).await.expect("the other side waits");
        k = answers.recv().await.expect("an answer");
    }
    assert_eq!(k, n);
}

async fn stream(capacity: usize, n: u64) {
    let (numbers, received) = bounded(capacity);
    spawn(async move {
        for k in 0..n {
            numbers.send(k).await.expect("received below");
        }
    });
    let mut sum = 0;
    while let Ok(k) = received.recv().await {
        sum += k;
    }
    assert_eq!(sum, n * (n - 1) / 2);
}

async fn stream_mpsc(n: u64) {
    let (numbers, mut received) = tokio::sync::mpsc::channel(128);
    spawn(async move {
        for k in 0..n {
            numbers.send(k).await.expect("received below");
        }
    });
    let mut sum = 0;
    while let Some(k) = received.recv().await {
        sum += k;
    }
    assert_eq!(sum, n * (n - 1) / 2);
}

async fn mpmc(n: u64, parties: u64) {
    let (numbers, received) = bounded(64);
    let each = n / parties;
    for _ in 0..parties {
        let numbers = numbers.clone();
        spawn(async move {
            for k in 0..each {
                numbers.send(k).await.expect("received below");
            }
        });
    }
    drop(numbers);
    let receivers: Vec<_> = (0..parties)
        .map(|_| {
            let received = received.clone();
            spawn(async move {
                let mut sum = 0;
                while let Ok(k) = received.recv().await {
                    sum += k;
                }
                sum
            })
        })
        .collect();
    let mut sum = 0;
    for receiver in receivers {
        sum += receiver.await.expect("no panic");
    }
    assert_eq!(sum, parties * (each * each.saturating_sub(1) / 2));
}

/// kanal loses values when a receive is dropped by `select!`; flume does not, but keeps a value sent to a receiver that has been woken in the
/// channel and lets the sender go on. So both senders may have ended, and `quit` be closed, with values still to take.
async fn selects(n: u64) {
    let (left, from_left) = flume::bounded(0);
    let (right, from_right) = flume::bounded(0);
    let (quit, stop) = flume::bounded::<()>(0);
    let all = Group::of(2);
    for side in [left.clone(), right.clone()] {
        spawn(async move {
            for k in 0..n / 2 {
                side.send_async(k).await.expect("received below");
            }
            all.done();
        });
    }
    spawn(async move {
        all.wait().await;
        drop(quit);
    });
    let mut sum = 0;
    loop {
        select! {
            k = from_left.recv_async() => sum += k.expect("open"),
            k = from_right.recv_async() => sum += k.expect("open"),
            _ = stop.recv_async() => break,
        }
    }
    sum += from_left.try_iter().chain(from_right.try_iter()).sum::<u64>();
    drop((left, right));
    let half = n / 2;
    assert_eq!(sum, half * half.saturating_sub(1));
}

async fn mutex(n: u64) {
    let counter = leak(Mutex::new(0));
    let all = Group::of(CROWD);
    for _ in 0..CROWD {
        spawn(async move {
            for _ in 0..n / CROWD {
                *counter.lock().await += 1;
            }
            all.done();
        });
    }
    all.wait().await;
    assert_eq!(*counter.lock().await, n / CROWD * CROWD);
}

async fn yields(n: u64) {
    let all = Group::of(CROWD);
    for _ in 0..CROWD {
        spawn(async move {
            for _ in 0..n / CROWD {
                yield_now().await;
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn sieve(n: u64) {
    let (numbers, mut received) = bounded(0);
    spawn(async move {
        for k in 2_u64.. {
            if numbers.send(k).await.is_err() {
                return;
            }
        }
    });
    let mut last = 0;
    for _ in 0..n {
        let (passed, next) = bounded(0);
        let prime = received.recv().await.expect("more numbers");
        last = prime;
        spawn(async move {
            while let Ok(k) = received.recv().await {
                if k % prime != 0 && passed.send(k).await.is_err() {
                    return;
                }
            }
        });
        received = next;
    }
    assert_eq!(last, nth_prime(n));
}

async fn rpc(n: u64) {
    let (servers, clients) = RPC;
    let (requests, received) = bounded::<(u64, AsyncSender<u64>)>(0);
    for _ in 0..servers {
        let received = received.clone();
        spawn(async move {
            while let Ok((k, reply)) = received.recv().await {
                reply.send(k + 1).await.expect("a client waits");
            }
        });
    }
    let all = Group::of(clients);
    for _ in 0..clients {
        let requests = requests.clone();
        spawn(async move {
            let (reply, answers) = bounded(0);
            for k in 0..n / clients {
                requests.send((k, reply.clone())).await.expect("servers wait");
                assert_eq!(answers.recv().await, Ok(k + 1));
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn skynet(n: u64) {
    let (result, sum) = bounded(0);
    spawn(node(result, 0, n));
    assert_eq!(sum.recv().await, Ok(n * (n - 1) / 2));
}

fn node(result: AsyncSender<u64>, first: u64, size: u64) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        if size == 1 {
            result.send(first).await.expect("the parent waits");
            return;
        }
        let (results, received) = bounded(0);
        for child in 0..10 {
            spawn(node(results.clone(), first + child * (size / 10), size / 10));
        }
        let mut sum = 0;
        for _ in 0..10 {
            sum += received.recv().await.expect("ten children");
        }
        result.send(sum).await.expect("the parent waits");
    })
}

async fn chain(n: u64) {
    let (mut left, last) = bounded::<u64>(0);
    for _ in 0..n {
        let (right, from_right) = bounded::<u64>(0);
        spawn(async move {
            left.send(1 + from_right.recv().await.expect("one value")).await.expect("waited for");
        });
        left = right;
    }
    spawn(async move { left.send(0).await.expect("waited for") });
    assert_eq!(last.recv().await, Ok(n));
}

async fn parked(o: Options) {
    let (close, closed) = bounded::<()>(0);
    let (parked, ended) = (Group::of(o.n), Group::of(o.n));
    let before = resident();
    let start = Instant::now();
    for _ in 0..o.n {
        let closed = closed.clone();
        spawn(async move {
            parked.done();
            closed.recv().await.expect_err("nothing is ever sent");
            ended.done();
        });
    }
    parked.wait().await;
    o.report("parked.create", start.elapsed().as_nanos() as f64 / o.n as f64);
    o.report("parked.bytes", resident().saturating_sub(before) as f64 / o.n as f64);
    let start = Instant::now();
    close.close().expect("closed once");
    ended.wait().await;
    o.report("parked.wake", start.elapsed().as_nanos() as f64 / o.n as f64);
}

/// Arms a timer and takes it back, beside others that are pending. A sleep is armed when it is polled first.
async fn timers(o: Options) {
    async fn armed(k: u64) -> Pin<Box<time::Sleep>> {
        let mut sleep = Box::pin(time::sleep(far(k)));
        poll_fn(|context| {
            assert!(sleep.as_mut().poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        sleep
    }
    let mut others = Vec::new();
    for pending in PENDING {
        for k in others.len() as u64..pending {
            others.push(armed(k).await);
        }
        let start = Instant::now();
        for k in 0..o.n {
            let mut sleep = pin!(time::sleep(far(k)));
            poll_fn(|context| {
                assert!(sleep.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        o.report(&format!("timer.{pending}"), start.elapsed().as_nanos() as f64 / o.n as f64);
    }
}

/// `pingpong`, with a time limit to each receive.
async fn limits(n: u64) {
    let ((to, at), (back, here)) = (bounded(0), bounded(0));
    spawn(async move {
        for k in 0..n {
            time::timeout(far(k), at.recv()).await.expect("in time").expect("sent");
            back.send(()).await.expect("received");
        }
    });
    for k in 0..n {
        to.send(()).await.expect("received");
        time::timeout(far(k), here.recv()).await.expect("in time").expect("sent");
    }
}

async fn sleepers(n: u64) {
    let all = Group::of(n);
    for k in 0..n {
        spawn(async move {
            time::sleep(nap(k)).await;
            all.done();
        });
    }
    all.wait().await;
}

async fn unequal(n: u64, iterations: u64) {
    let all = Group::of(UNEQUAL);
    for units in 1..=UNEQUAL {
        spawn(async move {
            for _ in 0..units * n {
                compute(iterations);
                yield_now().await;
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn bursts(n: u64, iterations: u64) {
    let all = Group::of(UNEQUAL);
    for units in 1..=UNEQUAL {
        spawn(async move {
            for _ in 0..units * n {
                spawn(async move { compute(iterations) }).await.expect("only computes");
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn arrivals(n: u64, iterations: u64) {
    let (jobs, arrived) = bounded(1);
    let source = spawn(async move {
        for job in 0..n * BURSTS {
            jobs.send(job).await.expect("a receiver");
            yield_now().await;
        }
    });
    let all = Group::of(n * BURSTS);
    while arrived.recv().await.is_ok() {
        spawn(async move {
            for _ in 0..STEPS {
                compute(iterations / STEPS);
                yield_now().await;
            }
            all.done();
        });
    }
    all.wait().await;
    source.await.expect("only sends");
}

async fn pool(n: u64, iterations: u64) {
    let ((jobs, taken), (done, results)) = (bounded(0), bounded(0));
    for _ in 0..POOL {
        let (taken, done) = (taken.clone(), done.clone());
        spawn(async move {
            while let Ok(job) = taken.recv().await {
                compute(iterations);
                done.send(job).await.expect("received below");
            }
        });
    }
    drop(done);
    let jobs_in_all = n * BURSTS;
    spawn(async move {
        for job in 0..jobs_in_all {
            jobs.send(job).await.expect("a receiver");
        }
    });
    let mut sum = 0;
    while let Ok(job) = results.recv().await {
        sum += job;
    }
    assert_eq!(sum, jobs_in_all * (jobs_in_all - 1) / 2);
}

async fn forks(n: u64, iterations: u64) {
    for _ in 0..n * BURSTS {
        let [one, other] = [0; 2].map(|_| spawn(async move { compute(iterations / 2) }));
        one.await.expect("only computes");
        other.await.expect("only computes");
    }
}

async fn limited(n: u64, iterations: u64) {
    let (enter, leave) = bounded(LIMIT as usize);
    for _ in 0..n * BURSTS * LIMITED {
        enter.send(0).await.expect("a receiver");
        let leave = leave.clone();
        spawn(async move {
            compute(iterations / LIMITED);
            leave.recv().await.expect("its own place");
        });
    }
    // Until all have left.
    for _ in 0..LIMIT {
        enter.send(0).await.expect("a receiver");
    }
}

async fn stages(n: u64, iterations: u64) {
    let (items, mut received) = bounded(16);
    spawn(async move {
        for item in 0..n * BURSTS * STEPS / STAGES {
            items.send(item).await.expect("a receiver");
        }
    });
    for _ in 0..STAGES {
        let (passed, next) = bounded(16);
        let stage = received;
        spawn(async move {
            while let Ok(item) = stage.recv().await {
                compute(iterations / STEPS);
                passed.send(item).await.expect("a receiver");
            }
        });
        received = next;
    }
    while received.recv().await.is_ok() {}
}

async fn actors(n: u64, iterations: u64) {
    let (actors, clients, share) = ACTORS;
    let boxes: Vec<AsyncSender<AsyncSender<u64>>> = (0..actors)
        .map(|_| {
            let (letters, received) = bounded::<AsyncSender<u64>>(4);
            spawn(async move {
                while let Ok(reply) = received.recv().await {
                    compute(iterations / share);
                    reply.send(1).await.expect("a client waits");
                }
            });
            letters
        })
        .collect();
    let each = n * BURSTS * share / clients;
    let all = Group::of(clients);
    for client in 0..clients {
        let boxes = boxes.clone();
        spawn(async move {
            let (reply, answers) = bounded(0);
            for k in 0..each {
                boxes[((client + k) % actors) as usize].send(reply.clone()).await.expect("an actor");
                answers.recv().await.expect("an answer");
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn graph(n: u64) {
    let mut ready: Vec<AsyncReceiver<()>> = Vec::new();
    let all = Group::of(n);
    for node in 0..n {
        let (done, waits) = bounded::<()>(0);
        let before: Vec<_> = before(node).map(|other| ready[other].clone()).collect();
        ready.push(waits);
        spawn(async move {
            for other in before {
                assert!(other.recv().await.is_err(), "nothing is ever sent");
            }
            drop(done);
            all.done();
        });
    }
    all.wait().await;
}

async fn readers(n: u64) {
    let map = leak(RwLock::new(keys()));
    let all = Group::of(CROWD);
    for party in 0..CROWD {
        spawn(async move {
            for k in 0..n / CROWD {
                match access(party, k) {
                    (key, true) => *map.write().await.get_mut(&key).expect("a key") += 1,
                    (key, false) => assert!(map.read().await[&key] <= n),
                }
            }
            all.done();
        });
    }
    all.wait().await;
}

async fn loopback(n: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let server = spawn(async move { answer(listener.accept().await.expect("a connection").0).await });
    let mut connection = TcpStream::connect(address).await.expect("the server listens");
    let mut buffer = [0; 64];
    for k in 0..n {
        let line = [k as u8; 64];
        connection.write_all(&line).await.expect("the server reads");
        connection.read_exact(&mut buffer).await.expect("an answer");
        assert_eq!(buffer, line);
    }
    drop(connection);
    server.await.expect("no panic");
}

/// Where what makes a server a `hog` computes.
#[derive(Clone, Copy)]
enum Hog {
    Here,
    Blocking,
}

fn echo(runtime: &Runtime, hog: Option<Hog>) {
    oxigo_bench::raise_descriptor_limit();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let address = listener.local_addr().expect("bound");
    runtime.spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("a connection");
            spawn(answer(connection));
        }
    });
    if let Some(place) = hog {
        runtime.spawn(async move {
            loop {
                time::sleep(HOG.1).await;
                match place {
                    Hog::Here => compute_for(HOG.0),
                    Hog::Blocking => spawn_blocking(|| compute_for(HOG.0)).await.expect("only computes"),
                }
            }
        });
    }
    serve_until_eof(address);
}

async fn answer(mut connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let mut buffer = [0; ECHO_BUFFER];
    while let Ok(length @ 1..) = connection.read(&mut buffer).await {
        if connection.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
