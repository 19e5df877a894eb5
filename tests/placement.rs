//! Where goroutines start, and in which order: by the rules B1 to B5 and B7 of ARCHITECTURE.md, and by hints.
//!
//! Rules of placement are hints to a scheduler on a machine that others use as well, and no worker comes where it has no core: each is asserted
//! of most of several tries, or of the best, in one of some rounds.

mod common;

use std::{
    collections::{HashMap, HashSet},
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{compute, rt};
use oxigo::{Builder, WaitGroup, bounded, go, sync::Mutex, time, unbuffered, yield_now};

/// Asserts that one of some rounds is good.
#[track_caller]
fn comes_about<T: Debug>(round: impl Fn() -> T, is_good: impl Fn(&T) -> bool) {
    let mut found = Vec::new();
    for _ in 0..30 {
        found.push(round());
        if is_good(&found[found.len() - 1]) {
            return;
        }
    }
    panic!("{found:?}");
}

/// Un-started closures reach other workers, and two equal halves keep both busy.
#[test]
fn two_equal_halves_run_side_by_side() {
    rt(2, || {
        let meet = Arc::new(AtomicUsize::new(0));
        let half = |meet: Arc<AtomicUsize>| {
            // Ends only when both have begun: needs two workers at once.
            meet.fetch_add(1, SeqCst);
            while meet.load(SeqCst) < 2 {
                std::hint::spin_loop();
            }
            thread::current().id()
        };
        let here = thread::current().id();
        for parent_helps in [true, false] {
            meet.store(0, SeqCst);
            let (a, b) = (Arc::clone(&meet), Arc::clone(&meet));
            let first = go(move || half(a));
            let (one, other) = if parent_helps {
                // The parent computes without a scheduling point; the closure must be taken from it all the same.
                (half(b), first.join().unwrap())
            } else {
                let second = go(move || half(b));
                (second.join().unwrap(), first.join().unwrap())
            };
            assert_ne!(one, other);
        }
        assert_eq!(thread::current().id(), here);
    });
}

#[test]
fn a_pair_that_talks_stays_on_one_worker() {
    let together = || {
        rt(2, || {
            let mut together = 0;
            for _ in 0..20 {
                let (tx, rx) = unbuffered::<thread::ThreadId>();
                // To the end, whatever it finds: the sender relies on it.
                let child = go(move || rx.iter().fold(true, |all, there| all & (there == thread::current().id())));
                for _ in 0..200 {
                    tx.send(thread::current().id()).unwrap();
                }
                drop(tx);
                together += u32::from(child.join().unwrap());
            }
            together
        })
    };
    comes_about(together, |of_20_pairs| *of_20_pairs >= 15);
}

/// Jobs that come one at a time, each of many short steps; how many of them the less busy of two workers has done.
fn jobs_of_the_less_busy(jobs: usize, steps: u32, pauses: u32) -> usize {
    rt(2, || {
        let (tx, rx) = bounded(1);
        go(move || {
            for job in 0..jobs {
                tx.send(job).unwrap();
                (0..pauses).for_each(|_| yield_now());
            }
        });
        let done_by_main = Arc::new(AtomicUsize::new(0));
        let group = WaitGroup::new();
        let main = thread::current().id();
        for _ in &rx {
            let done_by_main = Arc::clone(&done_by_main);
            group.go(move || {
                done_by_main.fetch_add(usize::from(thread::current().id() == main), SeqCst);
                for _ in 0..steps {
                    compute(Duration::from_micros(3));
                    yield_now();
                }
            });
        }
        group.wait();
        let here = done_by_main.load(SeqCst);
        here.min(jobs - here)
    })
}

/// B4: there are never many that have not started, and each would soon be started where its maker is, which has no time for it.
#[test]
fn jobs_that_come_one_at_a_time_are_shared() {
    if thread::available_parallelism().unwrap().get() > 1 {
        comes_about(|| jobs_of_the_less_busy(400, 200, 5), |of_400| *of_400 >= 80);
    }
}

/// B1: they come faster than they are done. What starts beside their maker slows it down, and the other worker would have too few.
#[test]
fn jobs_that_come_fast_are_shared() {
    if thread::available_parallelism().unwrap().get() > 1 {
        comes_about(|| jobs_of_the_less_busy(2000, 32, 1), |of_2000| *of_2000 >= 450);
    }
}

/// How many of `parties` goroutines, all of which wait at first, are on each of two workers, if it has any.
fn homes_of_waiting(parties: usize) -> Vec<usize> {
    rt(2, || {
        let (report, reports) = oxigo::unbounded();
        let group = WaitGroup::new();
        let (tx, mut first) = bounded::<()>(1);
        for _ in 0..parties {
            let (passed, next) = bounded(1);
            let report = report.clone();
            group.go(move || {
                report.send(thread::current().id()).unwrap();
                for () in &first {
                    passed.send(()).unwrap();
                }
            });
            first = next;
        }
        drop(report);
        tx.send(()).unwrap();
        first.recv().unwrap();
        drop(tx);
        group.wait();
        let mut homes = HashMap::new();
        reports.iter().for_each(|home| *homes.entry(home).or_insert(0) += 1);
        homes.into_values().collect()
    })
}

/// B5: they would all start where they are made, long before another worker has got up, and stay there.
#[test]
fn stages_of_a_pipeline_are_shared() {
    if thread::available_parallelism().unwrap().get() > 1 {
        let homes = || (0..10).map(|_| homes_of_waiting(16)).collect::<Vec<_>>();
        comes_about(homes, |of_10| of_10.iter().filter(|homes| homes.iter().all(|home| *home <= 12)).count() >= 3);
    }
}

/// B5: a few that talk stay together.
#[test]
fn a_few_that_talk_stay_on_one_worker() {
    let parted = || {
        rt(2, || {
            let ((to_one, one), (to_two, two), (back, answers)) = (bounded(1), bounded(1), bounded(1));
            let first = go(move || {
                one.iter().for_each(|k: u32| to_two.send(k + 1).unwrap());
                thread::current().id()
            });
            let second = go(move || {
                two.iter().for_each(|k| back.send(k + 1).unwrap());
                thread::current().id()
            });
            for k in 0..100 {
                to_one.send(k).unwrap();
                assert_eq!(answers.recv(), Ok(k + 2));
            }
            drop(to_one);
            first.join().unwrap() != second.join().unwrap()
        })
    };
    comes_about(|| (0..20).filter(|_| parted()).count(), |of_20_groups| *of_20_groups <= 8);
}

/// How many of a few goroutines are on each of the two workers, in the most even of some tries. Each reports its thread.
fn most_even(parties: usize, start: impl Fn(oxigo::Sender<thread::ThreadId>) + Clone + Send + 'static) -> Vec<usize> {
    // Until the other worker has had a core for as long as that takes.
    const TRIES: usize = 300;
    let homes = || {
        let start = start.clone();
        rt(2, move || {
            let (report, reports) = oxigo::unbounded();
            start(report);
            let mut homes = HashMap::new();
            reports.iter().for_each(|home| *homes.entry(home).or_insert(0) += 1);
            let mut homes: Vec<usize> = homes.into_values().collect();
            homes.sort_unstable();
            homes
        })
    };
    let apart = |homes: &Vec<usize>| if homes.len() < 2 { parties } else { homes[1] - homes[0] };
    let mut best = homes();
    for _ in 1..TRIES {
        assert_eq!(best.iter().sum::<usize>(), parties);
        if apart(&best) <= parties % 2 {
            break;
        }
        best = [best, homes()].into_iter().min_by_key(apart).unwrap();
    }
    best
}

/// B5: a pool's goroutines begin by waiting for jobs. All of them would be where they were made before another worker has got up.
#[test]
fn a_small_pool_is_shared() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    // Whoever has made them waits as well, or has something else to do first, while another worker takes what it finds.
    let waits = || time::sleep(Duration::from_millis(2));
    let computes = || compute(Duration::from_millis(2));
    let works: [fn(); 2] = [waits, computes];
    for work in works {
        for (parties, even) in [(2, [1, 1]), (3, [1, 2]), (4, [2, 2])] {
            let homes = most_even(parties, move |report| {
                let (jobs, taken) = unbuffered::<()>();
                for _ in 0..parties {
                    let (report, taken) = (report.clone(), taken.clone());
                    go(move || {
                        taken.recv().expect_err("no job");
                        report.send(thread::current().id()).unwrap();
                    });
                }
                work();
                drop(jobs);
            });
            assert_eq!(homes, even);
        }
    }
}

/// B5: whoever has made a pool has come to a scheduling point since, and stands still then, as it does when it loses its core. Another worker
/// would have started all of them before it is back.
#[test]
fn a_pool_is_shared_with_a_worker_that_stands_still() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let homes = most_even(8, |report| {
        let (jobs, taken) = unbuffered::<()>();
        let (hold, held) = unbuffered();
        let holder = go(move || {
            held.recv().unwrap();
            compute(Duration::from_millis(2));
        });
        // It waits now.
        yield_now();
        for _ in 0..8 {
            let (report, taken) = (report.clone(), taken.clone());
            go(move || {
                taken.recv().expect_err("no job");
                report.send(thread::current().id()).unwrap();
            });
        }
        hold.send(()).unwrap();
        holder.join().unwrap();
        drop(jobs);
    });
    assert_eq!(homes, [4, 4]);
}

/// B1: the first has used up its slice, and has not waited; nor will the others.
#[test]
fn a_few_that_compute_are_shared() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let yields = || {
        for _ in 0..150 {
            compute(Duration::from_micros(100));
            yield_now();
        }
    };
    let locks = || {
        let (mutex, start) = (Mutex::new(0), Instant::now());
        while start.elapsed() < Duration::from_millis(15) {
            (0..100).for_each(|_| *mutex.lock() += 1);
        }
    };
    let works: [fn(); 2] = [yields, locks];
    for work in works {
        for (parties, even) in [(2, [1, 1]), (3, [1, 2]), (4, [2, 2])] {
            let homes = most_even(parties, move |report| {
                for _ in 0..parties {
                    let report = report.clone();
                    go(move || {
                        work();
                        report.send(thread::current().id()).unwrap();
                    });
                }
            });
            assert_eq!(homes, even);
        }
    }
}

/// B1: behind goroutines that only yield nobody waits long for another worker, which has as many of them.
#[test]
fn closures_start_soon_behind_those_that_yield() {
    const PARTIES: usize = 120;
    let started_in_100_ms = || {
        rt(2, || {
            let started = Arc::new(AtomicUsize::new(0));
            let stop = Arc::new(AtomicBool::new(false));
            let (all, ends) = (WaitGroup::new(), Arc::clone(&stop));
            for _ in 0..PARTIES {
                let (started, stop) = (Arc::clone(&started), Arc::clone(&stop));
                all.go(move || {
                    started.fetch_add(1, SeqCst);
                    while !stop.load(SeqCst) {
                        yield_now();
                    }
                });
            }
            time::sleep(Duration::from_millis(100));
            let found = started.load(SeqCst);
            ends.store(true, SeqCst);
            all.wait();
            found
        })
    };
    comes_about(started_in_100_ms, |started| *started == PARTIES);
}

/// B2: of jobs that compute for less than a worker has to stand still before a few are taken from it, and of which a few are alive at once.
#[test]
fn a_few_jobs_at_a_time_are_shared() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    const JOBS: usize = 4_000;
    let are_shared = || {
        rt(2, || {
            let here = thread::current().id();
            let elsewhere = Arc::new(AtomicUsize::new(0));
            let (enter, leave) = bounded(4);
            let all = WaitGroup::new();
            for _ in 0..JOBS {
                enter.send(()).unwrap();
                let (leave, elsewhere) = (leave.clone(), Arc::clone(&elsewhere));
                all.go(move || {
                    compute(Duration::from_micros(8));
                    elsewhere.fetch_add(usize::from(thread::current().id() != here), SeqCst);
                    leave.recv().unwrap();
                });
            }
            all.wait();
            (JOBS / 3..JOBS * 2 / 3).contains(&elsewhere.load(SeqCst))
        })
    };
    comes_about(|| (0..12).filter(|_| are_shared()).count(), |of_12_rounds| *of_12_rounds >= 6);
}

/// B5: once others have taken such closures, two that compute are not started one after the other.
#[test]
fn two_that_compute_run_side_by_side_when_such_have_before() {
    if thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    let apart = || {
        rt(2, || {
            let work = || {
                compute(Duration::from_micros(100));
                thread::current().id()
            };
            let both = || {
                let (one, other) = (go(work), go(work));
                one.join().unwrap() != other.join().unwrap()
            };
            (0..1000).filter(|_| both()).count()
        })
    };
    comes_about(apart, |of_1000_pairs| *of_1000_pairs >= 300);
}

/// 300 connections opened one by one on an idle machine do not all end up on one worker. Both their ends are within the 1,024 descriptors that a
/// process may have by default.
#[test]
fn connections_are_spread_over_the_workers() {
    let spread = || {
        let runtime = oxigo::Runtime::builder().workers(2).build().unwrap();
        let (report, reports) = oxigo::unbounded();
        let listener = runtime.run(|| oxigo::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let server = runtime.go(move || {
            for connection in listener.incoming().take(300) {
                let mut connection = connection.unwrap();
                let report = report.clone();
                go(move || {
                    use std::io::Read;
                    report.send(thread::current().id()).unwrap();
                    let _ = connection.read(&mut [0]);
                });
            }
        });
        let mut connections = Vec::new();
        let mut by_worker = HashMap::new();
        for _ in 0..300 {
            connections.push(std::net::TcpStream::connect(address).unwrap());
            *by_worker.entry(reports.recv().unwrap()).or_insert(0) += 1;
        }
        server.join().unwrap();
        by_worker.into_values().collect::<Vec<_>>()
    };
    comes_about(spread, |by_worker| by_worker.len() == 2 && by_worker.iter().all(|n| *n >= 90));
}

/// Where the first connection's handler runs: with the one that accepts, or on the other worker. A crowd of goroutines waits on one of the two.
fn first_connection_is_handled_here(crowd_is_here: bool) -> bool {
    let runtime = oxigo::Runtime::builder().workers(2).build().unwrap();
    let (report, reports) = oxigo::unbounded();
    let (listener, stop) = runtime.run(move || {
        let (stop, stopped) = unbuffered::<()>();
        let park = |builder: Builder| {
            let (tell, told) = unbuffered();
            let stopped = stopped.clone();
            let parked = builder
                .spawn(move || {
                    tell.send(thread::current().id()).unwrap();
                    let _ = stopped.recv();
                })
                .unwrap();
            (told.recv().unwrap(), parked.goroutine().clone())
        };
        let (place, here) = park(Builder::new());
        let there = (0..200)
            .map(|_| park(Builder::new().spread()))
            .find(|there| there.0 != place)
            .expect("spread uses all workers")
            .1;
        for _ in 0..40 {
            park(Builder::new().near(if crowd_is_here { &here } else { &there }));
        }
        let listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let accepts = listener.try_clone().unwrap();
        let server = move || {
            let (mut connection, _) = accepts.accept().unwrap();
            let acceptor = thread::current().id();
            go(move || {
                use std::io::Read;
                report.send(thread::current().id() == acceptor).unwrap();
                let _ = connection.read(&mut [0]);
            });
        };
        Builder::new().near(&here).spawn(server).unwrap();
        (listener, stop)
    });
    let _connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let is_here = reports.recv().unwrap();
    drop(stop);
    is_here
}

/// Where there are as many connections, a handler goes to the worker with fewer goroutines.
#[test]
fn a_connection_keeps_off_a_crowd() {
    for crowd_is_here in [false, true] {
        let kept_off = || (0..10).filter(|_| first_connection_is_handled_here(crowd_is_here) != crowd_is_here).count();
        comes_about(kept_off, |of_10| *of_10 >= 7);
    }
}

/// Each waits for the one that was started before it: few of them have begun and not ended at any time.
#[test]
fn those_that_wait_for_older_ones_do_not_all_begin_before_them() {
    const PARTIES: usize = 2000;
    rt(1, || {
        let (begun, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        oxigo::scope(|s| {
            let (last, mut before) = unbuffered::<()>();
            for _ in 0..PARTIES {
                let (ends, ended) = unbuffered();
                let waits_for = std::mem::replace(&mut before, ended);
                let (begun, most) = (&begun, &most);
                s.go(move || {
                    most.fetch_max(begun.fetch_add(1, SeqCst) + 1, SeqCst);
                    waits_for.recv().expect_err("nothing is ever sent");
                    begun.fetch_sub(1, SeqCst);
                    drop(ends);
                });
            }
            drop(last);
        });
        assert!(most.load(SeqCst) < PARTIES / 8, "{most:?}");
    });
}

#[test]
fn near_starts_on_the_same_worker() {
    let hits = || {
        let (stop, done) = unbuffered::<()>();
        let (tell, told) = unbuffered();
        let anchor = Builder::new()
            .spread()
            .spawn(move || {
                tell.send(thread::current().id()).unwrap();
                let _ = done.recv();
            })
            .unwrap();
        let there = told.recv().unwrap();
        let hits = (0..20)
            .filter(|_| {
                let near = Builder::new().near(anchor.goroutine()).spawn(|| thread::current().id()).unwrap();
                near.join().unwrap() == there
            })
            .count();
        drop(stop);
        anchor.join().unwrap();
        hits
    };
    // A hint that mostly holds.
    comes_about(|| rt(4, hits), |of_20| *of_20 >= 10);
}

#[test]
fn spread_uses_all_workers() {
    let threads = || {
        let (stop, done) = unbuffered::<()>();
        let (tell, told) = unbuffered();
        let handles: Vec<_> = (0..16)
            .map(|_| {
                let (tell, done) = (tell.clone(), done.clone());
                Builder::new()
                    .spread()
                    .spawn(move || {
                        tell.send(thread::current().id()).unwrap();
                        let _ = done.recv();
                    })
                    .unwrap()
            })
            .collect();
        let threads: HashSet<_> = (0..16).map(|_| told.recv().unwrap()).collect();
        drop(stop);
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        threads.len()
    };
    comes_about(|| rt(4, threads), |threads| *threads >= 2);
}
