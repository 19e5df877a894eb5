//! The workloads on OS threads with crossbeam-channel, as far as threads can.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    thread,
    time::Instant,
};

use crossbeam_channel::{Sender, bounded, select};
use oxigo_bench::{
    CROWD, ECHO_BUFFER, HOG, Options, RPC, UNEQUAL, compute, compute_for, leak, nap, resident, serve_until_eof,
};

/// Small stacks, so that many threads fit.
fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::Builder::new().stack_size(64 << 10).spawn(f).expect("a thread")
}

fn join_all<T>(threads: impl IntoIterator<Item = thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}

fn main() {
    let o = Options::read("threads");
    let parties = o.parties;
    match o.workload.as_str() {
        "spawn" => o.each(|n| drop(join_all((0..n).map(|_| go(|| ())).collect::<Vec<_>>()))),
        "spawn_one" => o.each(|n| (0..n).for_each(|k| assert_eq!(go(move || k).join().expect("no panic"), k))),
        "pingpong" => o.each(pingpong),
        "unbuffered" => o.each(|n| stream(0, n)),
        "buffered" => o.each(|n| stream(128, n)),
        "mpmc" => o.each(|n| mpmc(n, parties)),
        "select" => o.each(selects),
        "mutex" => o.each(mutex),
        "yield" => o.each(|n| {
            join_all(
                (0..CROWD).map(|_| go(move || (0..n / CROWD).for_each(|_| thread::yield_now()))).collect::<Vec<_>>(),
            );
        }),
        "rpc" => o.each(rpc),
        "chain" => o.each(chain),
        "parked" => parked(&o),
        "sleepers" => {
            o.whole_cold(|n| drop(join_all((0..n).map(|k| go(move || thread::sleep(nap(k)))).collect::<Vec<_>>())));
        }
        "unequal" => o.share(unequal),
        "bursts" => o.share(bursts),
        "echo" => echo(false),
        "hog" => echo(true),
        _ => o.none(),
    }
}

fn pingpong(n: u64) {
    let (there, arrives) = bounded(0);
    let (back, answers) = bounded(0);
    let other = go(move || arrives.iter().for_each(|k: u64| back.send(k + 1).expect("the other side waits")));
    let mut k = 0;
    for _ in 0..n {
        there.send(k).expect("the other side waits");
        k = answers.recv().expect("an answer");
    }
    drop(there);
    other.join().expect("no panic");
    assert_eq!(k, n);
}

fn stream(capacity: usize, n: u64) {
    let (numbers, received) = bounded(capacity);
    let sender = go(move || (0..n).for_each(|k| numbers.send(k).expect("received below")));
    assert_eq!(received.iter().sum::<u64>(), n * (n - 1) / 2);
    sender.join().expect("no panic");
}

fn mpmc(n: u64, parties: u64) {
    let (numbers, received) = bounded(64);
    let each = n / parties;
    for _ in 0..parties {
        let numbers = numbers.clone();
        go(move || (0..each).for_each(|k| numbers.send(k).expect("received below")));
    }
    drop(numbers);
    let receivers: Vec<_> = (0..parties)
        .map(|_| {
            let received = received.clone();
            go(move || received.iter().sum::<u64>())
        })
        .collect();
    let sum: u64 = join_all(receivers).into_iter().sum();
    assert_eq!(sum, parties * (each * each.saturating_sub(1) / 2));
}

fn selects(n: u64) {
    let (left, from_left) = bounded(0);
    let (right, from_right) = bounded(0);
    let (quit, stop) = bounded::<()>(0);
    let senders = [left.clone(), right.clone()]
        .map(|side| go(move || (0..n / 2).for_each(|k| side.send(k).expect("received below"))));
    go(move || {
        join_all(senders);
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
    let crowd: Vec<_> =
        (0..CROWD).map(|_| go(move || (0..n / CROWD).for_each(|_| *counter.lock().expect("no panic") += 1))).collect();
    join_all(crowd);
    assert_eq!(*counter.lock().expect("no panic"), n / CROWD * CROWD);
}

fn rpc(n: u64) {
    let (servers, clients) = RPC;
    let (requests, received) = bounded::<(u64, Sender<u64>)>(0);
    for _ in 0..servers {
        let received = received.clone();
        go(move || received.iter().for_each(|(k, reply)| reply.send(k + 1).expect("a client waits")));
    }
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let requests = requests.clone();
            go(move || {
                let (reply, answers) = bounded(0);
                for k in 0..n / clients {
                    requests.send((k, reply.clone())).expect("servers wait");
                    assert_eq!(answers.recv(), Ok(k + 1));
                }
            })
        })
        .collect();
    join_all(clients);
}

fn chain(n: u64) {
    let (mut left, last) = bounded::<u64>(0);
    for _ in 0..n {
        let (right, from_right) = bounded::<u64>(0);
        go(move || left.send(1 + from_right.recv().expect("one value")).expect("waited for"));
        left = right;
    }
    go(move || left.send(0).expect("waited for"));
    assert_eq!(last.recv(), Ok(n));
}

fn parked(o: &Options) {
    let (close, closed) = bounded::<()>(0);
    let (parked, all) = bounded::<()>(o.n as usize);
    let before = resident();
    let start = Instant::now();
    let threads: Vec<_> = (0..o.n)
        .map(|_| {
            let (closed, parked) = (closed.clone(), parked.clone());
            go(move || {
                parked.send(()).expect("room");
                closed.recv().expect_err("nothing is ever sent");
            })
        })
        .collect();
    assert_eq!(all.iter().take(o.n as usize).count() as u64, o.n);
    o.report("parked.create", start.elapsed().as_nanos() as f64 / o.n as f64);
    o.report("parked.bytes", resident().saturating_sub(before) as f64 / o.n as f64);
    let start = Instant::now();
    drop(close);
    join_all(threads);
    o.report("parked.wake", start.elapsed().as_nanos() as f64 / o.n as f64);
}

fn unequal(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            compute(iterations);
            thread::yield_now();
        }
    };
    join_all((1..=UNEQUAL).map(|units| go(move || work(units))).collect::<Vec<_>>());
}

fn bursts(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            go(move || compute(iterations)).join().expect("only computes");
        }
    };
    join_all((1..=UNEQUAL).map(|units| go(move || work(units))).collect::<Vec<_>>());
}

fn echo(hog: bool) {
    oxigo_bench::raise_descriptor_limit();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    go(move || {
        for connection in listener.incoming() {
            let connection = connection.expect("a connection");
            go(move || answer(connection));
        }
    });
    if hog {
        go(|| {
            loop {
                thread::sleep(HOG.1);
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
