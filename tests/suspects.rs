//! Suspects: the second tier of the leak report. What it finds, and what it must leave alone though as many words of handles lie about.
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::at_1_2_4;
use oxigo::{Chan, JoinHandle, Receiver, Sender, WaitGroup, debug, go, select, unbuffered};

const LEAST: Duration = Duration::from_millis(12);

/// Starts leaks until all goroutines of one are suspected: a word that something left in memory may hide one of them, seldom several.
#[track_caller]
fn suspected<T: Send + 'static>(start: fn() -> Vec<JoinHandle<T>>) -> String {
    let mut last = String::new();
    for _ in 0..20 {
        // On a goroutine of its own that ends, as in a program: what it leaves on its stack is nobody's.
        let handles = go(start).join().unwrap();
        for _ in 0..3 {
            oxigo::time::sleep(LEAST);
            let report = debug::suspects(LEAST).unwrap();
            let named = |handle: &JoinHandle<T>| {
                report.iter().any(|group| group.goroutines().any(|one| one.id() == handle.id()))
            };
            last = report.to_string();
            if handles.iter().all(named) {
                let leaks = debug::leaks();
                assert!(!leaks.iter().any(|leak| handles.iter().any(|handle| handle.id() == leak.id())), "{leaks}");
                return last;
            }
        }
    }
    panic!("not found: {last}");
}

/// Waits until the goroutine has waited for long enough to be judged, and checks that it is not suspected, several times.
#[track_caller]
fn open<T>(handle: &JoinHandle<T>, reason: &str) {
    let begin = Instant::now();
    let headed = format!("goroutine {}: {reason}", handle.id());
    loop {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        if String::from_utf8(text).unwrap().contains(&headed) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "never: {headed}");
        oxigo::time::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    let mut looks = 0;
    while begin.elapsed() < LEAST * 3 || looks < 3 {
        let report = debug::suspects(LEAST).unwrap();
        assert!(!report.iter().any(|group| group.goroutines().any(|one| one.id() == handle.id())), "{report}");
        looks += 1;
    }
}

fn keeps_its_own_sender() -> Vec<JoinHandle<()>> {
    let (tx, rx) = unbuffered::<()>();
    vec![go(move || {
        for () in &rx {}
        drop(tx);
    })]
}

#[test]
fn dg_06_a_receiver_that_keeps_its_own_sender_is_suspected() {
    at_1_2_4(|| {
        let report = suspected(keeps_its_own_sender);
        assert!(report.contains("senders: 1; words on the stacks of these goroutines: "), "{report}");
        assert!(report.contains("started at tests/suspects.rs:"), "{report}");
    });
}

#[test]
fn dg_06_two_that_wait_for_each_other_are_suspected() {
    at_1_2_4(|| {
        suspected(|| {
            let (to_first, first_gets) = unbuffered::<()>();
            let (to_second, second_gets) = unbuffered::<()>();
            let first = go(move || {
                first_gets.recv().unwrap();
                to_second.send(()).unwrap();
            });
            let second = go(move || {
                second_gets.recv().unwrap();
                to_first.send(()).unwrap();
            });
            vec![first, second]
        });
    });
}

#[test]
fn dg_06_a_select_and_who_waits_for_it_are_suspected() {
    at_1_2_4(|| {
        let report = suspected(|| {
            let ((to_a, a), (b, from_b)) = (unbuffered::<i32>(), unbuffered::<i32>());
            let inner = go(move || {
                select! {
                    recv(a) -> _ => (),
                    send(b, 1) -> _ => (),
                }
                drop((to_a, from_b));
            });
            vec![go(move || inner.join().unwrap())]
        });
        assert!(report.contains(": select"), "{report}");
    });
}

#[test]
fn dg_06_a_group_whose_guard_waits_for_it_is_suspected() {
    at_1_2_4(|| {
        suspected(|| {
            let group = WaitGroup::new();
            let guard = group.guard();
            vec![go(move || {
                group.wait();
                drop(guard);
            })]
        });
    });
}

#[test]
fn dg_06_what_was_once_where_a_group_is_does_not_hide_it() {
    at_1_2_4(|| {
        suspected(|| {
            // Of each size that a group may have: it then gets a block that is remembered elsewhere.
            let blocks: Vec<Vec<u64>> = (40..200).map(|index| Vec::with_capacity(index / 8)).collect();
            let remembered: Vec<usize> = blocks.iter().map(|block| block.as_ptr().addr()).collect();
            drop(blocks);
            let group = WaitGroup::new();
            let guard = group.guard();
            remembered.leak();
            vec![go(move || {
                group.wait();
                drop(guard);
            })]
        });
    });
}

#[test]
fn dg_06_a_scope_whose_children_are_stuck_is_suspected() {
    at_1_2_4(|| {
        let report = suspected(|| {
            vec![go(|| {
                let channel = Chan::<()>::unbuffered();
                oxigo::scope(|s| {
                    s.go(|| channel.recv().is_ok());
                    s.go(|| channel.recv().is_ok());
                });
            })]
        });
        assert!(report.contains("goroutines of the scope: 2"), "{report}");
    });
}

/// Makes a channel, gives one end away, and waits on the other: the first end's words are still on the waiter's stack.
fn gives_away(take: impl FnOnce(Sender<()>) + Send + 'static) -> JoinHandle<()> {
    go(move || {
        let (tx, rx) = unbuffered::<()>();
        take(tx);
        let _ = rx.recv();
    })
}

#[test]
fn dg_06_handles_elsewhere_are_seen() {
    at_1_2_4(|| {
        // In a table, as those do who wait for answers.
        let table: Arc<Mutex<HashMap<u32, Sender<()>>>> = Arc::default();
        let waits = gives_away({
            let table = Arc::clone(&table);
            move |tx| drop(table.lock().unwrap().insert(1, tx))
        });
        open(&waits, "chan receive");
        table.lock().unwrap().clear();
        waits.join().unwrap();

        // With a goroutine that sleeps, or has yet to wait for something else.
        let (end, ends) = unbuffered::<()>();
        let waits = gives_away(move |tx| {
            drop(go(move || {
                let _ = ends.recv();
                drop(tx);
            }));
        });
        open(&waits, "chan receive");
        drop(end);
        waits.join().unwrap();

        // On a thread's stack.
        let (end, ends) = mpsc::channel::<()>();
        let waits = gives_away(move |tx| {
            drop(thread::spawn(move || {
                let _ = ends.recv();
                drop(tx);
            }));
        });
        open(&waits, "chan receive");
        drop(end);
        waits.join().unwrap();

        // In a thread-local of a worker.
        thread_local!(static KEPT: std::cell::RefCell<Option<Sender<()>>> = const { std::cell::RefCell::new(None) });
        let (end, ends) = unbuffered::<()>();
        let waits = gives_away(move |tx| {
            drop(go(move || {
                KEPT.set(Some(tx));
                let _ = ends.recv();
                KEPT.take();
            }));
        });
        open(&waits, "chan receive");
        drop(end);
        waits.join().unwrap();

        // In the closure of a timer, and in the buffer of a channel.
        let (held, holds) = oxigo::bounded(1);
        let waits = gives_away(move |tx| held.send(tx).unwrap());
        open(&waits, "chan receive");
        drop(holds);
        waits.join().unwrap();
        let (give, given) = oxigo::bounded(1);
        let waits = gives_away(move |tx| {
            give.send(oxigo::time::after_func(Duration::from_secs(600), move || drop(tx))).unwrap();
        });
        open(&waits, "chan receive");
        given.recv().unwrap().stop();
        waits.join().unwrap();
    });
}

#[test]
fn dg_06_handles_that_are_lent_are_seen() {
    at_1_2_4(|| {
        // To a scoped goroutine that waits for something that may come.
        let (begin, begun) = unbuffered::<()>();
        let outer = go(move || {
            let own = Chan::<i32>::unbuffered();
            oxigo::scope(|s| {
                s.go(|| {
                    begun.recv().unwrap_err();
                    own.send(5).unwrap();
                });
                assert_eq!(own.recv(), Ok(5));
            });
        });
        open(&outer, "chan receive");
        drop(begin);
        outer.join().unwrap();

        // To a thread.
        let (begin, begun) = mpsc::channel::<()>();
        let outer = go(move || {
            let own = Chan::<i32>::unbuffered();
            let lent = &own;
            thread::scope(|s| {
                s.spawn(move || {
                    begun.recv().unwrap_err();
                    lent.send(5).unwrap();
                });
                assert_eq!(own.recv(), Ok(5));
            });
        });
        open(&outer, "chan receive");
        drop(begin);
        outer.join().unwrap();
    });
}

#[test]
fn dg_06_waits_with_another_end_are_not_suspected() {
    at_1_2_4(|| {
        // A time limit, a timer that may be set again, a group that a goroutine counts down, the last receiver.
        let own: (Sender<()>, Receiver<()>) = unbuffered();
        let limited = go(move || {
            let (_tx, rx) = own;
            rx.recv_timeout(Duration::from_secs(600)).is_err()
        });
        // It is left behind: to wait for its end would only take time.
        open(&limited, "chan receive");

        let timer = Arc::new(oxigo::time::Timer::new(Duration::from_secs(600)));
        timer.stop();
        let waits = go({
            let timer = Arc::clone(&timer);
            move || timer.receiver().recv().is_ok()
        });
        open(&waits, "chan receive");
        timer.reset(Duration::from_millis(1));
        waits.join().unwrap();

        let (end, ends) = unbuffered::<()>();
        let waits = go(move || {
            let group = WaitGroup::new();
            group.go(move || assert!(ends.recv().is_err()));
            group.wait();
        });
        open(&waits, "WaitGroup.wait");
        drop(end);
        waits.join().unwrap();

        let over = Arc::new(AtomicBool::new(false));
        let waits = go({
            let over = Arc::clone(&over);
            move || {
                let (tx, rx) = unbuffered();
                let kept = Box::new(rx);
                go(move || {
                    while !over.load(SeqCst) {
                        oxigo::time::sleep(LEAST / 2);
                    }
                    drop(kept);
                });
                assert!(tx.send(()).is_err());
            }
        });
        open(&waits, "chan send");
        over.store(true, SeqCst);
        waits.join().unwrap();
    });
}

#[test]
#[ignore = "a measurement"]
fn the_cost_of_a_look() {
    common::rt(2, || {
        const BYTES: usize = 512 << 20;
        let memory = std::hint::black_box(vec![1_u8; BYTES]);
        let stuck = go(keeps_its_own_sender).join().unwrap();
        oxigo::time::sleep(LEAST * 2);
        let begin = Instant::now();
        let report = debug::suspects(LEAST).unwrap();
        println!("{} MiB: {:?}; {} found", std::hint::black_box(&memory).len() >> 20, begin.elapsed(), report.len());
        drop(stuck);
    });
}
