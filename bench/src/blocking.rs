//! Workloads written once for all runtimes whose calls wait in place: oxigo, may and threads. What each has of its own (a `WaitGroup`, a
//! `select`, places to start at) stays in its program.

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use crate::{
    ACTORS, BURSTS, CROWD, ECHO_BUFFER, HOG, LIMIT, LIMITED, Options, POOL, RPC, STAGES, STEPS, UNEQUAL, access,
    before, compute, leak, nap, resident,
};

/// The sending end of a channel.
pub trait Tx<T>: Clone + Send + 'static {
    /// Panics when nobody receives any more: no workload gives up its receivers early.
    fn put(&self, value: T);
}

/// The receiving end of a channel.
pub trait Rx<T>: Send + 'static {
    /// None when the channel is closed and empty.
    fn take(&self) -> Option<T>;

    /// Until it is closed and empty.
    fn each(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.take())
    }
}

macro_rules! ends {
    ($($tx:path, $rx:path;)*) => {
        $(
            impl<T: Send + 'static> Tx<T> for $tx {
                fn put(&self, value: T) {
                    self.send(value).expect("a receiver");
                }
            }

            impl<T: Send + 'static> Rx<T> for $rx {
                fn take(&self) -> Option<T> {
                    self.recv().ok()
                }
            }
        )*
    };
}

// Here and not in the programs, since the traits are.
ends! {
    oxigo::Sender<T>, oxigo::Receiver<T>;
    crossbeam_channel::Sender<T>, crossbeam_channel::Receiver<T>;
    may::sync::mpsc::Sender<T>, may::sync::mpsc::Receiver<T>;
    may::sync::mpmc::Sender<T>, may::sync::mpmc::Receiver<T>;
}

/// A runtime: what starts, and what carries values.
pub trait Blocking: 'static {
    type Handle<T: Send + 'static>: Send;
    /// Channels with one receiver.
    type Tx<T: Send + 'static>: Tx<T>;
    type Rx<T: Send + 'static>: Rx<T>;
    /// Channels with several.
    type SharedTx<T: Send + 'static>: Tx<T>;
    type SharedRx<T: Send + 'static>: Rx<T> + Clone;

    /// Dropping the handle detaches.
    fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> Self::Handle<T>;
    fn join<T: Send + 'static>(handle: Self::Handle<T>) -> T;
    /// may has unbounded channels only and ignores the capacity.
    fn channel<T: Send + 'static>(capacity: usize) -> (Self::Tx<T>, Self::Rx<T>);
    fn shared<T: Send + 'static>(capacity: usize) -> (Self::SharedTx<T>, Self::SharedRx<T>);
    fn yield_now();
    fn sleep(time: Duration);
}

fn join_all<B: Blocking, T: Send + 'static>(handles: Vec<B::Handle<T>>) -> Vec<T> {
    handles.into_iter().map(B::join).collect()
}

pub fn crowd<B: Blocking>(work: impl FnOnce() + Clone + Send + 'static) {
    join_all::<B, ()>((0..CROWD).map(|_| B::go(work.clone())).collect());
}

pub fn spawn<B: Blocking>(n: u64) {
    join_all::<B, ()>((0..n).map(|_| B::go(|| ())).collect());
}

pub fn spawn_one<B: Blocking>(n: u64) {
    (0..n).for_each(|k| assert_eq!(B::join(B::go(move || k)), k));
}

pub fn pingpong<B: Blocking>(n: u64) {
    let (there, arrives) = B::channel(0);
    let (back, answers) = B::channel(0);
    let other = B::go(move || arrives.each().for_each(|k: u64| back.put(k + 1)));
    let mut k = 0;
    for _ in 0..n {
        there.put(k);
        k = answers.take().expect("an answer");
    }
    drop(there);
    B::join(other);
    assert_eq!(k, n);
}

pub fn stream<B: Blocking>(capacity: usize, n: u64) {
    let (numbers, received) = B::channel(capacity);
    let sender = B::go(move || (0..n).for_each(|k| numbers.put(k)));
    assert_eq!(received.each().sum::<u64>(), n * n.saturating_sub(1) / 2);
    B::join(sender);
}

pub fn mpmc<B: Blocking>(n: u64, parties: u64) {
    let (numbers, received) = B::shared(64);
    let each = n / parties;
    for _ in 0..parties {
        let numbers = numbers.clone();
        B::go(move || (0..each).for_each(|k| numbers.put(k)));
    }
    drop(numbers);
    let receivers = (0..parties)
        .map(|_| {
            let received = received.clone();
            B::go(move || received.each().sum::<u64>())
        })
        .collect();
    let sum: u64 = join_all::<B, u64>(receivers).into_iter().sum();
    assert_eq!(sum, parties * (each * each.saturating_sub(1) / 2));
}

pub fn rpc<B: Blocking>(n: u64) {
    let (servers, clients) = RPC;
    let (requests, received) = B::shared::<(u64, B::Tx<u64>)>(0);
    for _ in 0..servers {
        let received = received.clone();
        B::go(move || received.each().for_each(|(k, reply)| reply.put(k + 1)));
    }
    let clients = (0..clients)
        .map(|_| {
            let requests = requests.clone();
            B::go(move || {
                let (reply, answers) = B::channel(0);
                for k in 0..n / clients {
                    requests.put((k, reply.clone()));
                    assert_eq!(answers.take(), Some(k + 1));
                }
            })
        })
        .collect();
    join_all::<B, ()>(clients);
}

pub fn skynet<B: Blocking>(n: u64) {
    let (result, sum) = B::channel(0);
    B::go(move || node::<B>(&result, 0, n));
    assert_eq!(sum.take(), Some(n * (n - 1) / 2));
}

fn node<B: Blocking>(result: &B::Tx<u64>, first: u64, size: u64) {
    if size == 1 {
        result.put(first);
        return;
    }
    let (results, received) = B::channel(0);
    for child in 0..10 {
        let results = results.clone();
        B::go(move || node::<B>(&results, first + child * (size / 10), size / 10));
    }
    let sum = received.each().take(10).sum();
    result.put(sum);
}

pub fn chain<B: Blocking>(n: u64) {
    let (mut left, last) = B::channel::<u64>(0);
    for _ in 0..n {
        let (right, from_right) = B::channel::<u64>(0);
        B::go(move || left.put(1 + from_right.take().expect("one value")));
        left = right;
    }
    B::go(move || left.put(0));
    assert_eq!(last.take(), Some(n));
}

pub fn parked<B: Blocking>(o: &Options) {
    let (close, closed) = B::shared::<()>(0);
    let (parked, all) = B::channel(o.n as usize);
    let before = resident();
    let start = Instant::now();
    let waiting = (0..o.n)
        .map(|_| {
            let (closed, parked) = (closed.clone(), parked.clone());
            B::go(move || {
                parked.put(());
                assert!(closed.take().is_none(), "nothing is ever sent");
            })
        })
        .collect();
    assert_eq!(all.each().take(o.n as usize).count() as u64, o.n);
    o.report("parked.create", start.elapsed().as_nanos() as f64 / o.n as f64);
    o.report("parked.bytes", resident().saturating_sub(before) as f64 / o.n as f64);
    let start = Instant::now();
    drop(close);
    join_all::<B, ()>(waiting);
    o.report("parked.wake", start.elapsed().as_nanos() as f64 / o.n as f64);
}

pub fn sleepers<B: Blocking>(n: u64) {
    join_all::<B, ()>((0..n).map(|k| B::go(move || B::sleep(nap(k)))).collect());
}

pub fn unequal<B: Blocking>(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            compute(iterations);
            B::yield_now();
        }
    };
    join_all::<B, ()>((1..=UNEQUAL).map(|units| B::go(move || work(units))).collect());
}

pub fn bursts<B: Blocking>(n: u64, iterations: u64) {
    let work = move |units| {
        for _ in 0..units * n {
            B::join(B::go(move || compute(iterations)));
        }
    };
    join_all::<B, ()>((1..=UNEQUAL).map(|units| B::go(move || work(units))).collect());
}

pub fn arrivals<B: Blocking>(n: u64, iterations: u64) {
    let (jobs, arrived) = B::channel(1);
    let source = B::go(move || {
        for job in 0..n * BURSTS {
            jobs.put(job);
            B::yield_now();
        }
    });
    let work = move || {
        for _ in 0..STEPS {
            compute(iterations / STEPS);
            B::yield_now();
        }
    };
    join_all::<B, ()>(arrived.each().map(|_| B::go(work)).collect());
    B::join(source);
}

pub fn pool<B: Blocking>(n: u64, iterations: u64) {
    let ((jobs, taken), (done, results)) = (B::shared(0), B::channel(0));
    for _ in 0..POOL {
        let (taken, done) = (taken.clone(), done.clone());
        B::go(move || {
            for job in taken.each() {
                compute(iterations);
                done.put(job);
            }
        });
    }
    drop(done);
    let jobs_in_all = n * BURSTS;
    let source = B::go(move || (0..jobs_in_all).for_each(|job| jobs.put(job)));
    assert_eq!(results.each().sum::<u64>(), jobs_in_all * (jobs_in_all - 1) / 2);
    B::join(source);
}

pub fn forks<B: Blocking>(n: u64, iterations: u64) {
    for _ in 0..n * BURSTS {
        join_all::<B, ()>((0..2).map(|_| B::go(move || compute(iterations / 2))).collect());
    }
}

pub fn limited<B: Blocking>(n: u64, iterations: u64) {
    let (enter, leave) = B::shared(LIMIT as usize);
    for _ in 0..n * BURSTS * LIMITED {
        enter.put(0);
        let leave = leave.clone();
        B::go(move || {
            compute(iterations / LIMITED);
            leave.take().expect("its own place");
        });
    }
    // Until all have left.
    (0..LIMIT).for_each(|_| enter.put(0));
}

pub fn stages<B: Blocking>(n: u64, iterations: u64) {
    let (items, mut received) = B::channel(16);
    let source = B::go(move || (0..n * BURSTS * STEPS / STAGES).for_each(|item| items.put(item)));
    let mut stages = vec![source];
    for _ in 0..STAGES {
        let (passed, next) = B::channel(16);
        let stage = received;
        stages.push(B::go(move || {
            for item in stage.each() {
                compute(iterations / STEPS);
                passed.put(item);
            }
        }));
        received = next;
    }
    received.each().for_each(drop);
    join_all::<B, ()>(stages);
}

/// Each actor has a mailbox, computes for a while for each letter, and answers it.
pub fn actors<B: Blocking>(n: u64, iterations: u64) {
    let (actors, clients, share) = ACTORS;
    let boxes: Vec<B::Tx<B::Tx<u64>>> = (0..actors)
        .map(|_| {
            let (letters, received) = B::channel::<B::Tx<u64>>(4);
            B::go(move || {
                for reply in received.each() {
                    compute(iterations / share);
                    reply.put(1);
                }
            });
            letters
        })
        .collect();
    let each = n * BURSTS * share / clients;
    let clients = (0..clients)
        .map(|client| {
            let boxes = boxes.clone();
            B::go(move || {
                let (reply, answers) = B::channel(0);
                for k in 0..each {
                    boxes[((client + k) % actors) as usize].put(reply.clone());
                    answers.take().expect("an answer");
                }
            })
        })
        .collect();
    join_all::<B, ()>(clients);
}

/// Each node waits for two of those before it.
pub fn graph<B: Blocking>(n: u64) {
    let mut ready: Vec<B::SharedRx<()>> = Vec::new();
    let nodes = (0..n)
        .map(|node| {
            let (done, waits) = B::shared::<()>(0);
            let before: Vec<_> = before(node).map(|other| ready[other].clone()).collect();
            ready.push(waits);
            B::go(move || {
                for other in before {
                    assert!(other.take().is_none(), "nothing is ever sent");
                }
                drop(done);
            })
        })
        .collect();
    join_all::<B, ()>(nodes);
}

/// A map under a lock that is mostly read.
pub fn readers<B: Blocking, L: Sync + Send + 'static>(n: u64, map: L, look: fn(&L, u64) -> u64, add: fn(&L, u64)) {
    let map = leak(map);
    let parties = (0..CROWD).map(|party| {
        B::go(move || {
            for k in 0..n / CROWD {
                match access(party, k) {
                    (key, true) => add(map, key),
                    (key, false) => assert!(look(map, key) <= n),
                }
            }
        })
    });
    join_all::<B, ()>(parties.collect());
}

/// One connection with both ends here: asks and waits for the answer.
pub fn loopback<B: Blocking, S: Read + Write + Send + 'static>(
    n: u64,
    accept: impl FnOnce() -> S + Send + 'static,
    dial: impl FnOnce() -> S,
) {
    let server = B::go(move || answer(accept()));
    let mut connection = dial();
    let mut buffer = [0; 64];
    for k in 0..n {
        let line = [k as u8; 64];
        connection.write_all(&line).expect("the server reads");
        connection.read_exact(&mut buffer).expect("an answer");
        assert_eq!(buffer, line);
    }
    drop(connection);
    B::join(server);
}

/// Starts what makes an echo server a `hog`, by something that computes for so long.
pub fn compute_half_the_time<B: Blocking>(compute_for: fn(Duration)) {
    B::go(move || {
        loop {
            B::sleep(HOG.1);
            compute_for(HOG.0);
        }
    });
}

/// Sends back what comes until the peer has no more.
pub fn answer(mut connection: impl Read + Write) {
    let mut buffer = [0; ECHO_BUFFER];
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
