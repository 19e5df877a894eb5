//! Rows RT-03 to RT-07, RT-09, S-05 and S-17: workers, their threads, and how many there can be.

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::rt;
use oxigo::{bounded, go, time, unbuffered, yield_now};
// For the tests that want Linux.
#[cfg(target_os = "linux")]
use {
    common::{child, is_child, stderr},
    oxigo::{Runtime, RuntimeBuilder, WaitGroup, net::TcpListener},
    std::io::{ErrorKind, Read, Write},
};

/// Every goroutine is what Go calls locked to its thread, and may do all that others do.
#[test]
fn rt_03_rt_04_a_goroutine_keeps_its_thread_whatever_it_waits_for() {
    rt(4, || {
        let lock: &oxigo::sync::Mutex<u32> = Box::leak(Box::new(oxigo::sync::Mutex::new(0)));
        let (tx, rx) = bounded::<usize>(1);
        let goroutines: Vec<_> = (0..40)
            .map(|number| {
                let (tx, rx) = (tx.clone(), rx.clone());
                go(move || {
                    let mut threads = HashSet::from([thread::current().id()]);
                    for _ in 0..20 {
                        yield_now();
                        threads.insert(thread::current().id());
                        tx.send(number).unwrap();
                        threads.insert(thread::current().id());
                        rx.recv().unwrap();
                        threads.insert(thread::current().id());
                        *lock.lock() += 1;
                        threads.insert(thread::current().id());
                        oxigo::blocking(|| ());
                        threads.insert(thread::current().id());
                    }
                    time::sleep(Duration::from_millis(1));
                    threads.insert(thread::current().id());
                    threads.len()
                })
            })
            .collect();
        for goroutine in goroutines {
            assert_eq!(goroutine.join().unwrap(), 1);
        }
        assert_eq!(*lock.lock(), 40 * 20);
    });
}

/// The thread that uses goroutines never becomes a worker: a program's first thread stays free for what must be there, such as a window.
#[test]
fn rt_06_the_calling_thread_stays_its_own() {
    let me = thread::current().id();
    let (tx, rx) = unbuffered();
    let goroutine = go(move || {
        for _ in 0..100 {
            tx.send(thread::current().id()).unwrap();
        }
    });
    assert!(rx.iter().all(|id| id != me));
    goroutine.join().unwrap();
    assert_ne!(oxigo::run(|| thread::current().id()), me);
    rt(1, || (0..100).for_each(|_| assert_ne!(go(|| thread::current().id()).join().unwrap(), me)));
}

/// That the runtime of that name has so many worker threads. A thread bears its parent's name until it has set its own.
#[cfg(target_os = "linux")]
fn assert_threads(runtime: &str, expected: usize) {
    let begin = Instant::now();
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let found = names.filter(|name| name.starts_with(&format!("{runtime}-"))).count();
        if found == expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{found} workers");
        time::sleep(Duration::from_millis(1));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn rt_07_from_1_to_1024_workers_and_no_others() {
    // In a process of its own: meanwhile others would find no descriptors, or no threads.
    const NAME: &str = "rt_07_from_1_to_1024_workers_and_no_others";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    for wrong in [0, 1025, usize::MAX] {
        let error = Runtime::builder().workers(wrong).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{wrong}");
    }
    match Runtime::builder().workers(1024).name("many").build() {
        Ok(runtime) => {
            runtime.run(|| {
                let goroutines: Vec<_> = (0..10_000).map(|_| go(yield_now)).collect();
                goroutines.into_iter().for_each(|goroutine| goroutine.join().unwrap());
                assert_threads("many", 1024);
            });
        }
        // The machine may allow fewer threads or descriptors; then the error says which.
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("cannot start worker thread") || text.contains("cannot make a poller"), "{text}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn rt_07_a_runtime_keeps_its_workers() {
    for workers in [1, 3, 8] {
        let name = format!("keep{workers}");
        let runtime = RuntimeBuilder::default().workers(workers).name(&name).build().unwrap();
        runtime.run(|| {
            let goroutines: Vec<_> = (0..100).map(|_| go(|| oxigo::blocking(|| ()))).collect();
            goroutines.into_iter().for_each(|goroutine| goroutine.join().unwrap());
            assert_threads(&name, workers);
        });
    }
}

/// Go's limit of threads is fatal; here the calls that are too many wait their turn.
#[test]
fn rt_09_blocking_calls_beyond_the_limit_wait_their_turn() {
    const MOST: usize = 512;
    rt(2, || {
        let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let gate = Arc::new((Mutex::new(false), std::sync::Condvar::new()));
        let calls: Vec<_> = (0..MOST + 100)
            .map(|_| {
                let (active, most, gate) = (Arc::clone(&active), Arc::clone(&most), Arc::clone(&gate));
                go(move || {
                    oxigo::blocking(|| {
                        most.fetch_max(active.fetch_add(1, SeqCst) + 1, SeqCst);
                        let open = gate.0.lock().unwrap();
                        drop(gate.1.wait_while(open, |open| !*open).unwrap());
                        active.fetch_sub(1, SeqCst);
                    });
                })
            })
            .collect();
        let begin = Instant::now();
        let mut before = 0;
        // Until all that can be active are; where the system allows fewer threads, until no more come.
        while active.load(SeqCst) < MOST && begin.elapsed() < Duration::from_secs(5) {
            time::sleep(Duration::from_millis(20));
            before = before.max(active.load(SeqCst));
        }
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        calls.into_iter().for_each(|call| call.join().unwrap());
        assert!(before > 0);
        assert!(most.load(SeqCst) <= MOST, "{} at once", most.load(SeqCst));
    });
}

/// Calls that follow many short ones share threads. When they turn out to wait for each other each gets a thread of its own all the same.
#[test]
fn rt_09_blocking_calls_that_wait_for_each_other_after_short_ones_all_get_a_thread() {
    const CALLS: usize = 40;
    rt(2, || {
        for _ in 0..3 {
            let short: Vec<_> = (0..4).map(|_| go(|| (0..100).for_each(|_| oxigo::blocking(|| ())))).collect();
            short.into_iter().for_each(|calls| calls.join().unwrap());
            let all_are_here = Arc::new(Barrier::new(CALLS));
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let all_are_here = Arc::clone(&all_are_here);
                    go(move || oxigo::blocking(|| all_are_here.wait().is_leader()))
                })
                .collect();
            let leaders = calls.into_iter().map(|call| call.join().unwrap()).filter(|leads| *leads);
            assert_eq!(leaders.count(), 1);
        }
    });
}

/// Go's TestThreadExhaustion, with a small address space for the limit.
#[test]
#[cfg(target_os = "linux")]
fn rt_09_too_many_workers_are_a_clear_error() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const NAME: &str = "rt_09_too_many_workers_are_a_clear_error";
    if !is_child(NAME) {
        // A worker that has started may be the one that finds no memory, for which std ends the process: not what is asked here.
        let starved = |output: &std::process::Output| {
            let text = stderr(output);
            text.contains("memory allocation of") || text.contains("failed to allocate an alternative stack")
        };
        let output =
            (0..10).map(|_| child(NAME)).find(|output| !starved(output)).expect("not starved ten times in a row");
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    // What the process has and room for some thirty threads' stacks.
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let now = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * rustix::param::page_size() as u64;
    let free = getrlimit(Resource::As);
    let mut narrow = free;
    narrow.current = Some(now + (64 << 20));
    setrlimit(Resource::As, narrow).unwrap();
    // Their pollers' descriptors are within the 1,024 that a process may have by default.
    let error = Runtime::builder().workers(300).build().unwrap_err().to_string();
    setrlimit(Resource::As, free).unwrap();
    assert!(error.contains("cannot start worker thread") && error.contains("of 300"), "{error}");
    // Those that had started end, and the process goes on.
    rt(2, || go(|| ()).join().unwrap());
}

/// Go's TestStealOrder asks this of the enumerator; here of what it is for: wherever a closure lies, a thief comes to it, while its owner
/// computes and starts nothing.
#[test]
fn s_05_a_thief_comes_to_every_worker() {
    for workers in [2, 3, 5, 8] {
        rt(workers, || {
            let mut owners = HashSet::new();
            for _ in 0..4 * workers {
                // As many at a time as leave one worker to steal.
                let (tx, rx) = mpsc::channel();
                let holders: Vec<_> = (0..workers - 1)
                    .map(|_| {
                        let tx = tx.clone();
                        go(move || {
                            let ran = Arc::new(AtomicBool::new(false));
                            let flag = Arc::clone(&ran);
                            go(move || flag.store(true, SeqCst));
                            let begin = Instant::now();
                            while !ran.load(SeqCst) {
                                assert!(begin.elapsed() < Duration::from_secs(30), "nobody comes");
                                thread::yield_now();
                            }
                            tx.send(thread::current().id()).unwrap();
                        })
                    })
                    .collect();
                holders.into_iter().for_each(|holder| holder.join().unwrap());
                drop(tx);
                owners.extend(rx.iter());
            }
            assert!(!owners.is_empty());
        });
    }
}

/// Goroutines that block their threads leave their cores to other workers, of which there may be more than cores.
#[test]
fn s_01_workers_beyond_the_cores_begin_where_others_are_blocked() {
    let workers = thread::available_parallelism().unwrap().get() + 3;
    rt(workers, || {
        for _ in 0..3 {
            // std's: it holds the thread until all have come.
            let all = Arc::new(Barrier::new(workers));
            let goroutines: Vec<_> = (0..workers)
                .map(|_| {
                    let all = all.clone();
                    go(move || {
                        all.wait();
                        thread::current().id()
                    })
                })
                .collect();
            let threads: HashSet<_> = goroutines.into_iter().map(|goroutine| goroutine.join().unwrap()).collect();
            assert_eq!(threads.len(), workers);
        }
    });
}

/// Who talks is better off near whom it talks to: closures are no reason to wake a worker for which there is no core.
#[test]
fn s_05_closures_start_on_no_more_workers_than_there_are_cores() {
    let cores = thread::available_parallelism().unwrap().get();
    let used = || {
        rt(4 * cores, || {
            let goroutines: Vec<_> = (0..40)
                .map(|_| {
                    go(|| {
                        for _ in 0..20 {
                            let begin = Instant::now();
                            while begin.elapsed() < Duration::from_micros(50) {}
                            yield_now();
                        }
                        thread::current().id()
                    })
                })
                .collect();
            goroutines.into_iter().map(|goroutine| goroutine.join().unwrap()).collect::<HashSet<_>>().len()
        })
    };
    // A worker that has lost its core for a long time is one that others may stand in for: until none has, which may be after tests beside this one.
    let mut found = Vec::new();
    // A quota of less than two cores counts for two.
    while found.last().is_none_or(|used| *used > cores.max(2)) {
        assert!(found.len() < 200, "workers used, on {cores} cores: {found:?}");
        found.push(used());
    }
}

/// A worker that has lost its core is moved to one that another worker has no use for. Its goroutines notice nothing: what they started meanwhile
/// would keep the mask that this takes.
#[cfg(target_os = "linux")]
#[test]
fn goroutines_may_use_all_processors_whoever_else_wants_them() {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let end = Arc::new(AtomicBool::new(false));
    // Somebody computes, so that workers lose their cores.
    let busy = thread::spawn({
        let end = end.clone();
        move || while !end.load(SeqCst) {}
    });
    rt(2, || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            let mut peers: Vec<_> = (0..32).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(700) {
                peers.iter_mut().for_each(|peer| peer.write_all(b"?").unwrap());
                peers.iter_mut().for_each(|peer| peer.read_exact(&mut [0]).unwrap());
            }
        });
        let servers: Vec<_> = (0..32)
            .map(|_| {
                let (mut connection, _) = listener.accept().unwrap();
                go(move || {
                    let mut message = [0];
                    while connection.read(&mut message).is_ok_and(|length| length == 1) {
                        assert!(
                            rustix::thread::sched_getaffinity(None).unwrap() == allowed,
                            "a worker's mask has changed"
                        );
                        connection.write_all(&message).unwrap();
                    }
                })
            })
            .collect();
        servers.into_iter().for_each(|server| server.join().unwrap());
        oxigo::blocking(|| peer.join().unwrap());
    });
    end.store(true, SeqCst);
    busy.join().unwrap();
}

/// Go's TestSemaHandoff: who gets the lock runs before those that were ready already.
#[test]
fn s_17_the_next_owner_of_a_lock_runs_before_the_queue() {
    const ROUNDS: usize = 100;
    rt(1, || {
        let lock: &oxigo::sync::Mutex<()> = Box::leak(Box::new(oxigo::sync::Mutex::new(())));
        let mut first = 0;
        for _ in 0..ROUNDS {
            let order = Arc::new(Mutex::new(Vec::new()));
            let released = Arc::new(AtomicBool::new(false));
            let guard = lock.lock();
            let begun = Arc::new(AtomicUsize::new(0));
            let (log, begins) = (Arc::clone(&order), Arc::clone(&begun));
            let waiter = go(move || {
                begins.fetch_add(1, SeqCst);
                let _guard = lock.lock();
                log.lock().unwrap().push("waiter");
            });
            let others: Vec<_> = (0..5)
                .map(|_| {
                    let (log, released, begins) = (Arc::clone(&order), Arc::clone(&released), Arc::clone(&begun));
                    go(move || {
                        begins.fetch_add(1, SeqCst);
                        while !released.load(SeqCst) {
                            yield_now();
                        }
                        log.lock().unwrap().push("other");
                    })
                })
                .collect();
            while begun.load(SeqCst) < 6 {
                yield_now();
            }
            released.store(true, SeqCst);
            drop(guard);
            waiter.join().unwrap();
            others.into_iter().for_each(|other| other.join().unwrap());
            first += usize::from(order.lock().unwrap()[0] == "waiter");
        }
        assert!(first > ROUNDS * 2 / 3, "first in {first} of {ROUNDS} rounds");
    });
}

/// Memory of a burst goes back to the system though another worker is never idle.
#[test]
#[cfg(target_os = "linux")]
fn memory_falls_back_beside_a_busy_worker() {
    const NAME: &str = "memory_falls_back_beside_a_busy_worker";
    const BURST: usize = 20_000;
    fn resident() -> usize {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    }
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(2, || {
        let both = Arc::new(Barrier::new(2));
        let (full, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (there, size, end) = (both.clone(), full.clone(), ended.clone());
        go(move || {
            // So that each of the two has a worker of its own.
            there.wait();
            let (tx, rx) = unbuffered::<()>();
            let (started, all) = (Arc::new(AtomicUsize::new(0)), WaitGroup::new());
            for _ in 0..BURST {
                let (rx, started) = (rx.clone(), started.clone());
                all.go(move || {
                    started.fetch_add(1, SeqCst);
                    rx.recv().unwrap_err();
                });
            }
            while started.load(SeqCst) < BURST {
                yield_now();
            }
            size.store(resident(), SeqCst);
            tx.close().unwrap();
            all.wait();
            end.store(true, SeqCst);
        });
        both.wait();
        let begin = Instant::now();
        // The stacks' pages, but for those that stay warm.
        let fallen = || resident() + (BURST - 2000) * rustix::param::page_size() < full.load(SeqCst);
        while !(ended.load(SeqCst) && fallen()) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{} of {} bytes stay", resident(), full.load(SeqCst));
            let turn = Instant::now();
            while turn.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            yield_now();
        }
    });
}
