//! The workloads on may. Its channels are all unbounded: what needs a rendezvous it has not.

use std::{
    io::{Read, Write},
    time::Instant,
};

use may::{
    config,
    coroutine::{self, yield_now},
    go,
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpmc, mpsc},
};
use oxigo_bench::{
    CROWD, ECHO_BUFFER, HOG, Options, RPC, UNEQUAL, compute, compute_for, leak, nap, resident, serve_until_eof,
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
        "spawn" => o.each(on!(spawn)),
        "spawn_one" => o.each(on!(spawn_one)),
        "pingpong" => o.each(on!(pingpong)),
        "buffered" => o.each(on!(buffered)),
        "mpmc" => o.each(on!(|n| mpmc(n, parties))),
        "mutex" => o.each(on!(mutex)),
        "yield" => o.each(on!(|n| {
            crowd(move || (0..n / CROWD).for_each(|_| yield_now()));
        })),
        "rpc" => o.each(on!(rpc)),
        "skynet" => o.whole(on!(skynet)),
        "parked" => {
            let o = o.clone();
            go!(move || parked(&o)).join().expect("no panic");
        }
        "sleepers" => o.whole_cold(on!(sleepers)),
        "unequal" => o.share(|n, iterations| go!(move || unequal(n, iterations)).join().expect("no panic")),
        "bursts" => o.share(|n, iterations| go!(move || bursts(n, iterations)).join().expect("no panic")),
        "echo" => echo(false),
        "hog" => echo(true),
        _ => o.none(),
    }
}

fn join_all<T>(coroutines: Vec<coroutine::JoinHandle<T>>) -> Vec<T> {
    coroutines.into_iter().map(|coroutine| coroutine.join().expect("no panic")).collect()
}

fn crowd(work: impl FnOnce() + Clone + Send + 'static) {
    join_all((0..CROWD).map(|_| go!(work.clone())).collect());
}

fn spawn(n: u64) {
    join_all((0..n).map(|_| go!(|| ())).collect());
}

fn spawn_one(n: u64) {
    (0..n).for_each(|k| assert_eq!(go!(move || k).join().expect("no panic"), k));
}

fn pingpong(n: u64) {
    let (there, arrives) = mpsc::channel();
    let (back, answers) = mpsc::channel();
    let other = go!(move || arrives.iter().for_each(|k: u64| back.send(k + 1).expect("the other side waits")));
    let mut k = 0;
    for _ in 0..n {
        there.send(k).expect("the other side waits");
        k = answers.recv().expect("an answer");
    }
    drop(there);
    other.join().expect("no panic");
    assert_eq!(k, n);
}

fn buffered(n: u64) {
    let (numbers, received) = mpsc::channel();
    let sender = go!(move || (0..n).for_each(|k| numbers.send(k).expect("received below")));
    assert_eq!(received.iter().sum::<u64>(), n * (n - 1) / 2);
    sender.join().expect("no panic");
}

fn mpmc(n: u64, parties: u64) {
    let (numbers, received) = mpmc::channel();
    let each = n / parties;
    let senders: Vec<_> = (0..parties)
        .map(|_| {
            let numbers = numbers.clone();
            go!(move || (0..each).for_each(|k| numbers.send(k).expect("received below")))
        })
        .collect();
    drop(numbers);
    let receivers: Vec<_> = (0..parties)
        .map(|_| {
            let received = received.clone();
            go!(move || received.iter().sum::<u64>())
        })
        .collect();
    join_all(senders);
    let sum: u64 = join_all(receivers).into_iter().sum();
    assert_eq!(sum, parties * (each * each.saturating_sub(1) / 2));
}

fn mutex(n: u64) {
    let counter = leak(Mutex::new(0));
    crowd(move || (0..n / CROWD).for_each(|_| *counter.lock().expect("no panic") += 1));
    assert_eq!(*counter.lock().expect("no panic"), n / CROWD * CROWD);
}

fn rpc(n: u64) {
    let (servers, clients) = RPC;
    let (requests, received) = mpmc::channel::<(u64, mpsc::Sender<u64>)>();
    for _ in 0..servers {
        let received = received.clone();
        go!(move || received.iter().for_each(|(k, reply)| reply.send(k + 1).expect("a client waits")));
    }
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let requests = requests.clone();
            go!(move || {
                let (reply, answers) = mpsc::channel();
                for k in 0..n / clients {
                    requests.send((k, reply.clone())).expect("servers wait");
                    assert_eq!(answers.recv(), Ok(k + 1));
                }
            })
        })
        .collect();
    join_all(clients);
}

fn skynet(n: u64) {
    let (result, sum) = mpsc::channel();
    go!(move || node(&result, 0, n));
    assert_eq!(sum.recv(), Ok(n * (n - 1) / 2));
}

fn node(result: &mpsc::Sender<u64>, first: u64, size: u64) {
    if size == 1 {
        result.send(first).expect("the parent waits");
        return;
    }
    let (results, received) = mpsc::channel();
    for child in 0..10 {
        let results = results.clone();
        go!(move || node(&results, first + child * (size / 10), size / 10));
    }
    let sum = received.iter().take(10).sum();
    result.send(sum).expect("the parent waits");
}

fn parked(o: &Options) {
    let (close, closed) = mpmc::channel::<()>();
    let (parked, all) = mpsc::channel();
    let before = resident();
    let start = Instant::now();
    let waiting: Vec<_> = (0..o.n)
        .map(|_| {
            let (closed, parked) = (closed.clone(), parked.clone());
            go!(move || {
                parked.send(()).expect("waited for");
                closed.recv().expect_err("nothing is ever sent");
            })
        })
        .collect();
    assert_eq!(all.iter().take(o.n as usize).count() as u64, o.n);
    o.report("parked.create", start.elapsed().as_nanos() as f64 / o.n as f64);
    o.report("parked.bytes", resident().saturating_sub(before) as f64 / o.n as f64);
    let start = Instant::now();
    drop(close);
    join_all(waiting);
    o.report("parked.wake", start.elapsed().as_nanos() as f64 / o.n as f64);
}

fn sleepers(n: u64) {
    join_all((0..n).map(|k| go!(move || coroutine::sleep(nap(k)))).collect());
}

fn unequal(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            compute(iterations);
            yield_now();
        }
    };
    join_all((1..=UNEQUAL).map(|units| go!(move || work(units))).collect());
}

fn bursts(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            go!(move || compute(iterations)).join().expect("only computes");
        }
    };
    join_all((1..=UNEQUAL).map(|units| go!(move || work(units))).collect());
}

fn echo(hog: bool) {
    oxigo_bench::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    go!(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            go!(move || answer(connection));
        }
    });
    if hog {
        go!(|| {
            loop {
                coroutine::sleep(HOG.1);
                compute_for(HOG.0);
            }
        });
    }
    serve_until_eof(address);
}

fn answer(mut connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let mut buffer = [0; ECHO_BUFFER];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
