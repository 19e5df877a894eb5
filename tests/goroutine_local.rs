//! `goroutine_local!`: every goroutine has its own values, dropped at its end.

mod common;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{at_1_2_4, rt};
use oxigo::{AccessError, bounded, go, goroutine_local, yield_now};

goroutine_local! {
    static NUMBER: Cell<u64> = Cell::new(7);
    static LIST: RefCell<Vec<Rc<u64>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn gl_01_every_goroutine_has_its_own_value() {
    at_1_2_4(|| {
        let tasks: Vec<_> = (0..50)
            .map(|n| {
                go(move || {
                    assert_eq!(NUMBER.replace(n), 7);
                    for round in 0..5 {
                        LIST.with_borrow_mut(|list| list.push(Rc::new(n)));
                        yield_now();
                        assert_eq!(NUMBER.get(), n);
                        assert!(LIST.with_borrow(|list| list.len() == round + 1 && list.iter().all(|x| **x == n)));
                    }
                    NUMBER.take() + LIST.take().len() as u64
                })
            })
            .collect();
        let sum: u64 = tasks.into_iter().map(|task| task.join().unwrap()).sum();
        assert_eq!(sum, 49 * 50 / 2 + 250);
        assert_eq!(NUMBER.get(), 7, "nothing is inherited, in no direction");
    });
}

#[test]
fn gl_02_a_value_may_be_used_across_a_park() {
    at_1_2_4(|| {
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                go(move || {
                    LIST.with(|list| {
                        list.borrow_mut().push(Rc::new(n));
                        oxigo::time::sleep(Duration::from_micros(n * 50));
                        // Growing the store does not move what is lent.
                        goroutine_local!(static OTHER: Cell<u64> = Cell::new(1));
                        assert_eq!(OTHER.get() + NUMBER.get(), 8);
                        assert_eq!(*list.borrow()[0], n);
                    });
                })
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().unwrap());
    });
}

#[derive(Clone)]
struct Log(Arc<Mutex<Vec<String>>>, &'static str);

impl Drop for Log {
    fn drop(&mut self) {
        yield_now();
        let id = oxigo::current().id();
        self.0.lock().unwrap().push(format!("{} {id}", self.1));
    }
}

#[test]
fn gl_03_values_are_dropped_on_the_goroutine_before_join_sees_the_end() {
    goroutine_local! {
        static A: RefCell<Option<Log>> = RefCell::new(None);
        static B: RefCell<Option<Log>> = RefCell::new(None);
    }
    at_1_2_4(|| {
        for panics in [false, true] {
            let log = Arc::new(Mutex::new(Vec::new()));
            let task = go({
                let log = Arc::clone(&log);
                move || {
                    A.set(Some(Log(Arc::clone(&log), "a")));
                    B.set(Some(Log(log, "b")));
                    assert!(!panics, "values are dropped after a panic too");
                }
            });
            let id = task.id();
            assert_eq!(task.join().is_err(), panics);
            assert_eq!(*log.lock().unwrap(), [format!("a {id}"), format!("b {id}")]);
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        oxigo::scope(|s| {
            s.go(|| A.set(Some(Log(Arc::clone(&log), "scoped"))));
        });
        assert_eq!(log.lock().unwrap().len(), 1);
    });
}

#[test]
fn gl_04_drops_may_use_values_and_find_dropped_ones_gone() {
    struct UsesOthers(Arc<Mutex<Vec<Result<u64, AccessError>>>>);
    impl Drop for UsesOthers {
        fn drop(&mut self) {
            let mut seen = self.0.lock().unwrap();
            seen.push(FIRST.try_with(Cell::get));
            seen.push(LATER.try_with(Cell::get));
            seen.push(SELF.try_with(|_| 0));
        }
    }
    goroutine_local! {
        static FIRST: Cell<u64> = Cell::new(1);
        static SELF: RefCell<Option<UsesOthers>> = RefCell::new(None);
        static LATER: Cell<u64> = Cell::new(3);
    }
    at_1_2_4(|| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let task = go({
            let seen = Arc::clone(&seen);
            move || {
                FIRST.get();
                SELF.set(Some(UsesOthers(seen)));
            }
        });
        task.join().unwrap();
        assert_eq!(*seen.lock().unwrap(), [Err(AccessError), Ok(3), Err(AccessError)]);
    });
}

#[test]
fn gl_05_on_a_thread_it_is_a_thread_local() {
    let log = Arc::new(Mutex::new(Vec::new()));
    goroutine_local!(static ONE: RefCell<Option<Log>> = RefCell::new(None));
    thread::spawn({
        let log = Arc::clone(&log);
        move || {
            NUMBER.set(1);
            ONE.set(Some(Log(log, "thread")));
            assert_eq!(NUMBER.get(), 1);
            go(|| assert_eq!(NUMBER.get(), 7)).join().unwrap();
        }
    })
    .join()
    .unwrap();
    assert_eq!(log.lock().unwrap().len(), 1);
    assert_eq!(NUMBER.get(), 7);
}

#[test]
fn gl_06_initialisers_run_once_a_goroutine_and_may_park_or_panic() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    goroutine_local! {
        static SLOW: u64 = {
            let n = RUNS.fetch_add(1, SeqCst);
            yield_now();
            n as u64
        };
        static FAILS: u64 = panic!("no value");
        static UNUSED: Cell<u64> = unreachable!("set makes the value");
    }
    rt(1, || {
        let (tx, rx) = bounded(4);
        for _ in 0..2 {
            let tx = tx.clone();
            go(move || (0..2).for_each(|_| tx.send(SLOW.with(|n| *n)).unwrap()));
        }
        let mut seen: Vec<_> = rx.iter().take(4).collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 0, 1, 1]);
        let failing = go(|| {
            UNUSED.set(4);
            let tried = std::panic::catch_unwind(|| FAILS.with(|n| *n));
            (tried.is_err(), UNUSED.get())
        });
        assert_eq!(failing.join().unwrap(), (true, 4));
    });
}

/// A result that nobody takes is dropped on its goroutine, which is a goroutine to the last. It once was dropped with the task already given
/// back: `current` in its `Drop` counted references of a task that was being freed, and freed it twice.
#[test]
fn gl_07_a_result_that_nobody_takes_may_use_everything_in_its_drop() {
    struct Result(Option<oxigo::Sender<(Option<String>, u64)>>);
    impl Drop for Result {
        fn drop(&mut self) {
            yield_now();
            let name = oxigo::current().name().map(str::to_owned);
            oxigo::park_timeout(Duration::from_micros(10));
            NUMBER.set(NUMBER.get() + 1);
            self.0.take().unwrap().send((name, NUMBER.get())).unwrap();
        }
    }
    at_1_2_4(|| {
        let (tx, rx) = bounded(100);
        for n in 0..100 {
            let tx = tx.clone();
            let handle = oxigo::Builder::new().name(format!("task {n}")).spawn(move || Result(Some(tx))).unwrap();
            if n % 2 == 0 {
                yield_now();
            }
            drop(handle);
        }
        drop(tx);
        let mut count = 0;
        for (name, number) in rx.iter() {
            // One that ended before its handle was dropped is dropped by who had the handle.
            assert!(name.is_none() || number == 8, "{name:?} {number}");
            count += 1;
        }
        assert_eq!(count, 100);
    });
}
