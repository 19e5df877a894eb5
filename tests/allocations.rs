//! Rows MA-01 to MA-05 and NT-27: what allocates, and how much. A file of its own, since it counts in the whole process.

#[path = "common/alloc.rs"]
mod alloc;
mod common;

use std::{
    future::poll_fn,
    io::{Read, Write},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    task::{Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use alloc::{alone, calls, live};
use common::rt;
use oxigo::{
    Builder, Receiver, Sender, WaitGroup, bounded,
    future::{block_on, block_on_timeout},
    go,
    net::{TcpListener, TcpStream},
    select,
    sync::{Condvar, Mutex, RwLock, Semaphore},
    unbounded, unbuffered, yield_now,
};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Operations in one turn.
const N: usize = 1000;

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// The fewest allocations of some turns of `work`, after one that may set things up; no more turns than it takes to come to `aim`. What else the
/// process does now and then (a thread that starts, a buffer that grows, a look of the clock thread) may come into many turns where a turn
/// takes long, not into all.
fn fewest(aim: usize, mut work: impl FnMut()) -> usize {
    work();
    let mut least = usize::MAX;
    for _ in 0..20 {
        let before = calls();
        work();
        least = least.min(calls() - before);
        if least <= aim {
            break;
        }
    }
    least
}

/// On one worker, and on two, where the peer stays on the other one.
fn at_1_2(body: impl Fn() + Sync) {
    let _alone = alone();
    for workers in [1, 2] {
        rt(workers, &body);
    }
}

/// A goroutine on another worker, if there is one, that gives back what it gets.
fn echo(there: Receiver<usize>, back: Sender<usize>) {
    Builder::new().spread().spawn(move || there.iter().all(|n| back.send(n).is_ok())).unwrap();
}

#[test]
fn ma_01_channel_operations_allocate_nothing() {
    at_1_2(|| {
        for capacity in [0, 1, 64] {
            let (tx, there) = bounded(capacity);
            let (back, rx) = bounded(capacity);
            echo(there, back);
            let round_trips = || {
                for n in 0..N {
                    tx.send(n).unwrap();
                    assert_eq!(rx.recv(), Ok(n));
                }
            };
            assert_eq!(fewest(0, round_trips), 0, "round trips at capacity {capacity}");
            let tries = || {
                for n in 0..N {
                    assert!(rx.try_recv().is_err());
                    if capacity > 0 {
                        tx.try_send(n).unwrap();
                        assert_eq!(rx.recv(), Ok(n));
                    }
                    assert!(rx.recv_timeout(Duration::from_nanos(1)).is_err());
                }
            };
            assert_eq!(fewest(0, tries), 0, "tries and time-outs at capacity {capacity}");
        }
    });
}

/// Both sides wait in turn, in a stream that fills its buffer.
#[test]
fn ma_01_streams_allocate_nothing() {
    at_1_2(|| {
        for capacity in [0, 64] {
            let (tx, rx) = bounded(capacity);
            let (ask, asked) = bounded(1);
            Builder::new().spread().spawn(move || asked.iter().all(|()| (0..N).all(|n| tx.send(n).is_ok()))).unwrap();
            let stream = || {
                ask.send(()).unwrap();
                for n in 0..N {
                    assert_eq!(rx.recv(), Ok(n));
                }
            };
            assert_eq!(fewest(0, stream), 0, "capacity {capacity}");
        }
    });
}

#[test]
fn ma_01_the_unbounded_channel_allocates_when_it_grows_only() {
    at_1_2(|| {
        let (tx, rx) = unbounded();
        let turn = || {
            (0..N).for_each(|n| tx.send(n).unwrap());
            (0..N).for_each(|n| assert_eq!(rx.recv(), Ok(n)));
        };
        assert_eq!(fewest(0, turn), 0);
    });
}

#[test]
fn ma_02_selects_allocate_nothing() {
    at_1_2(|| {
        let (tx, there) = unbuffered();
        let (back, rx) = unbuffered();
        let (_keep, quiet) = unbuffered::<()>();
        echo(there, back);
        let parked = || {
            for n in 0..N {
                select! {
                    send(tx, n) -> sent => sent.unwrap(),
                    recv(quiet) -> _ => unreachable!("nobody sends"),
                }
                select! {
                    recv(quiet) -> _ => unreachable!("nobody sends"),
                    recv(rx) -> value => assert_eq!(value, Ok(n)),
                }
            }
        };
        assert_eq!(fewest(0, parked), 0);
        let ready = || {
            for _ in 0..N {
                select! {
                    recv(quiet) -> _ => unreachable!("nobody sends"),
                    recv(rx) -> _ => unreachable!("nothing is left"),
                    default => {}
                }
            }
        };
        assert_eq!(fewest(0, ready), 0);
    });
}

/// Two goroutines that each wait for the other, in every way that `sync` has.
#[test]
fn ma_03_waiting_for_locks_and_groups_allocates_nothing() {
    at_1_2(|| {
        let (lock, shared, turn) = (leak(Mutex::new(0)), leak(RwLock::new(0)), leak(Condvar::new()));
        let (one, group) = (leak(Semaphore::new(1)), leak(WaitGroup::new()));
        let (ask, asked) = bounded::<()>(1);
        let work = || {
            for _ in 0..N / 10 {
                {
                    let _guard = lock.lock();
                    yield_now();
                }
                {
                    let _guard = shared.write();
                    yield_now();
                }
                {
                    let _guard = shared.read();
                    yield_now();
                }
                let _permit = one.acquire(1);
                yield_now();
            }
            // Each waits for the other's step.
            let mut guard = lock.lock();
            *guard += 1;
            turn.notify_all();
            while *guard % 2 == 1 {
                turn.wait(&mut guard);
            }
        };
        Builder::new()
            .spread()
            .spawn(move || {
                for () in &asked {
                    work();
                    group.done();
                }
            })
            .unwrap();
        let both = || {
            group.add(1);
            ask.send(()).unwrap();
            work();
            group.wait();
        };
        assert_eq!(fewest(0, both), 0);
    });
}

/// Its closure's and its result's place, where that is large, and nothing else. The deque of closures that wait grows and shrinks now and then.
/// An `Arc` for each future, and nothing for a poll.
#[test]
fn ma_03_a_future_allocates_once() {
    at_1_2(|| {
        let (ask, asked) = bounded::<Waker>(1);
        Builder::new().spread().spawn(move || asked.iter().for_each(Waker::wake)).unwrap();
        let polls = || {
            let mut polls = 0;
            block_on(poll_fn(|cx| {
                polls += 1;
                match polls {
                    N => return Poll::Ready(()),
                    _ if polls % 2 == 0 => cx.waker().wake_by_ref(),
                    _ => ask.send(cx.waker().clone()).unwrap(),
                }
                Poll::Pending
            }));
        };
        assert_eq!(fewest(1, polls), 1);
        let ready = || (0..N).for_each(|n| assert_eq!(block_on_timeout(async { n }, Duration::from_secs(60)), Ok(n)));
        assert_eq!(fewest(N, ready), N);
    });
}

#[test]
fn ma_04_a_goroutine_allocates_once_at_most() {
    let _alone = alone();
    rt(1, || {
        let group = leak(WaitGroup::new());
        let batch = || {
            group.add(N as isize);
            for _ in 0..N {
                go(|| group.done());
            }
            group.wait();
        };
        let allocations = fewest(N / 20, batch);
        // Small ones have blocks of the runtime's own.
        assert!(allocations <= N / 20, "{allocations} allocations for {N} goroutines");
        let large = || (0..N).for_each(|n| assert_eq!(go(move || [n; 100]).join().unwrap()[99], n));
        let allocations = fewest(N + N / 20, large);
        assert!(allocations <= N + N / 20, "{allocations} allocations for {N} goroutines with large results");
        let joined = || (0..N).for_each(|n| assert_eq!(go(move || n).join().unwrap(), n));
        let allocations = fewest(N / 20, joined);
        assert!(allocations <= N / 20, "{allocations} allocations for {N} goroutines that are joined");
    });
}

#[test]
fn ma_05_an_unbuffered_channel_takes_160_bytes() {
    let _alone = alone();
    // The harness may print meanwhile, which allocates and frees: the median counts.
    let heap = |make: fn() -> Box<dyn std::any::Any>| {
        let mut measured: Vec<_> = (0..101)
            .map(|_| {
                let before = (live(), calls());
                let made = make();
                let after = (live(), calls());
                // Without the box that holds the two ends.
                let ends = size_of_val(&*made) as isize;
                drop(made);
                (after.0 - before.0 - ends, after.1 - before.1 - 1)
            })
            .collect();
        measured.sort_unstable();
        measured[measured.len() / 2]
    };
    let (bytes, allocations) = heap(|| Box::new(unbuffered::<u64>()));
    assert!(bytes <= 160, "{bytes} bytes");
    assert_eq!(allocations, 1);
    let (bytes, _) = heap(|| Box::new(unbuffered::<[u64; 100]>()));
    assert!(bytes <= 160, "{bytes} bytes, whatever it carries");
}

/// Go's TestTCPReadWriteAllocs.
#[test]
fn nt_27_a_connection_allocates_nothing_once_it_waits() {
    at_1_2(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = go(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = connection.read(&mut buffer) {
                connection.write_all(&buffer[..length]).unwrap();
            }
        });
        let mut connection = TcpStream::connect(address).unwrap();
        let round_trips = || {
            let mut buffer = [0; 64];
            for n in 0..N {
                let sent = [n as u8; 64];
                connection.write_all(&sent).unwrap();
                connection.read_exact(&mut buffer).unwrap();
                assert_eq!(buffer, sent);
            }
        };
        assert_eq!(fewest(0, round_trips), 0);
        drop(connection);
        server.join().unwrap();
    });
}

/// Where there are more workers than processors the clock thread looks at each of them in every tick: whether its thread is blocked.
#[test]
fn looks_at_a_worker_that_is_blocked_allocate_nothing() {
    let _alone = alone();
    let cores = thread::available_parallelism().unwrap().get();
    rt(cores + 1, || {
        let stop: &AtomicBool = leak(AtomicBool::new(false));
        let blocks = move || {
            while !stop.load(SeqCst) {
                thread::sleep(Duration::from_millis(10));
                yield_now();
            }
        };
        let blocked = Builder::new().spread().spawn(blocks).unwrap();
        let turn = || {
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(20) {
                yield_now();
            }
        };
        assert_eq!(fewest(0, turn), 0);
        stop.store(true, SeqCst);
        blocked.join().unwrap();
    });
}

/// A destructor of a thread-local may wait too, after those of what the thread has used later. Each wait there left a record behind for ever.
#[test]
fn ma_03_waiting_at_the_end_of_a_thread_leaves_nothing() {
    const WAITS: usize = 10;
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            let (_tx, rx) = unbuffered::<()>();
            for _ in 0..WAITS {
                assert!(rx.recv_timeout(Duration::from_nanos(1)).is_err());
            }
            oxigo::current().unpark();
            oxigo::park();
        }
    }
    thread_local!(static LATE: Late = const { Late });
    let _alone = alone();
    let thread = || {
        let thread = std::thread::spawn(|| {
            LATE.with(|_| ());
            oxigo::park_timeout(Duration::from_nanos(1));
        });
        thread.join().unwrap();
    };
    thread();
    let before = live();
    (0..N / WAITS).for_each(|_| thread());
    let left = live() - before;
    assert!(left < 1000, "{N} waits have left {left} bytes");
}
