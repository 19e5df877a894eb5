//! `SingleFlight`; group SF of the conformance list.

mod common;

use std::{
    panic::{self, AssertUnwindSafe, catch_unwind, resume_unwind},
    process,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use common::{at_1_2_4, child, is_child, quiesce, rt, stderr};
use oxigo::{go, sync::SingleFlight, unbuffered};

#[test]
fn sf_01_one_call_for_all() {
    rt(1, || {
        let (flight, runs) = (Arc::new(SingleFlight::new()), Arc::new(AtomicUsize::new(0)));
        let (tx, rx) = unbuffered::<u32>();
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let (flight, runs, rx) = (flight.clone(), runs.clone(), rx.clone());
                go(move || {
                    flight.work("key", || {
                        runs.fetch_add(1, SeqCst);
                        rx.recv().unwrap()
                    })
                })
            })
            .collect();
        quiesce();
        tx.send(5).unwrap();
        callers.into_iter().for_each(|caller| assert_eq!(caller.join().unwrap(), (5, true)));
        assert_eq!(runs.load(SeqCst), 1);
        assert_eq!(flight.work("key", || 6), (6, false));
    });
}

#[test]
fn sf_02_forget_runs_anew() {
    rt(1, || {
        let flight = Arc::new(SingleFlight::new());
        let (tx, rx) = unbuffered::<u32>();
        let other = flight.clone();
        let first = go(move || other.work(1, || rx.recv().unwrap()));
        quiesce();
        flight.forget(&1);
        assert_eq!(flight.work(1, || 2), (2, false));
        tx.send(1).unwrap();
        assert_eq!(first.join().unwrap(), (1, false));
    });
}

#[test]
fn sf_03_a_panic_reaches_all() {
    at_1_2_4(|| {
        let flight = Arc::new(SingleFlight::<u32, u32>::new());
        let callers: Vec<_> = (0..5)
            .map(|_| {
                let flight = flight.clone();
                go(move || {
                    catch_unwind(AssertUnwindSafe(|| {
                        flight.work(1, || {
                            oxigo::yield_now();
                            resume_unwind(Box::new("on purpose"))
                        })
                    }))
                    .is_err()
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| assert!(caller.join().unwrap()));
        assert_eq!(flight.work(1, || 3), (3, false));
    });
}

/// The panic of those who share the call names their own place: it was one in the library.
#[test]
fn sf_03_a_shared_panic_names_its_caller() {
    const NAME: &str = "sf_03_a_shared_panic_names_its_caller";
    if is_child(NAME) {
        panic::set_hook(Box::new(|info| eprintln!("at {}", info.location().unwrap().file())));
        rt(1, || {
            let flight = Arc::new(SingleFlight::<u32, u32>::new());
            let (tx, rx) = unbuffered::<()>();
            let other = flight.clone();
            let first = go(move || {
                other.work(1, || {
                    rx.recv().unwrap();
                    panic!("on purpose")
                })
            });
            quiesce();
            let second = go(move || flight.work(1, || 2));
            quiesce();
            tx.send(()).unwrap();
            assert!(first.join().is_err() && second.join().is_err());
        });
        process::exit(0);
    }
    let text = stderr(&child(NAME));
    let places: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("at ")).collect();
    assert_eq!(places, [file!(); 2], "{text}");
}

/// A key whose `Hash` panics after the call leaves nobody waiting for ever.
#[test]
fn sf_03_a_key_that_panics_reaches_every_waiter() {
    use std::{
        hash::{Hash, Hasher},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };
    struct Key(Arc<AtomicBool>);
    impl PartialEq for Key {
        fn eq(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }
    impl Eq for Key {}
    impl Hash for Key {
        fn hash<H: Hasher>(&self, state: &mut H) {
            assert!(!self.0.load(SeqCst), "no hash today");
            0.hash(state);
        }
    }
    impl Key {
        fn new(panics: &Arc<AtomicBool>) -> Self {
            Self(Arc::clone(panics))
        }
    }
    oxigo::run(|| {
        let panics = Arc::new(AtomicBool::new(false));
        let flight = Arc::new(oxigo::sync::SingleFlight::<Key, u32>::new());
        let (started, is_started) = oxigo::unbuffered();
        let (go_on, goes_on) = oxigo::unbuffered::<()>();
        let first = oxigo::go({
            let (flight, panics) = (Arc::clone(&flight), Arc::clone(&panics));
            move || {
                flight.work(Key::new(&panics), || {
                    started.send(()).unwrap();
                    let _ = goes_on.recv();
                    panics.store(true, SeqCst);
                    1
                })
            }
        });
        is_started.recv().unwrap();
        let second = oxigo::go({
            let (flight, panics) = (Arc::clone(&flight), Arc::clone(&panics));
            move || flight.work(Key::new(&panics), || 2)
        });
        // The second has joined the call when nothing else is left to run.
        for _ in 0..1000 {
            oxigo::yield_now();
        }
        drop(go_on);
        assert!(first.join().is_err());
        assert!(second.join().is_err());
    });
}

/// A key that panicked when its call was taken out was dead for ever: the call stayed and was shared by all who came later.
#[test]
fn sf_03_a_key_that_panics_once_can_be_used_again() {
    use std::hash::{Hash, Hasher};
    const HASH: usize = 1;
    const EQ: usize = 2;
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    struct Key;
    impl PartialEq for Key {
        fn eq(&self, _: &Self) -> bool {
            assert_ne!(PANICS.load(SeqCst), EQ, "no comparison today");
            true
        }
    }
    impl Eq for Key {}
    impl Hash for Key {
        fn hash<H: Hasher>(&self, _: &mut H) {
            assert_ne!(PANICS.load(SeqCst), HASH, "no hash today");
        }
    }
    let flight = SingleFlight::new();
    let work = |panics, f: fn() -> u32| {
        let worked = catch_unwind(AssertUnwindSafe(|| {
            flight.work(Key, || {
                PANICS.store(panics, SeqCst);
                f()
            })
        }));
        PANICS.store(0, SeqCst);
        worked
    };
    for panics in [HASH, EQ] {
        assert!(work(panics, || 1).is_err());
        assert_eq!(work(0, || 2).unwrap(), (2, false));
        // Of two panics the call's own counts.
        let payload = work(panics, || resume_unwind(Box::new("mine"))).unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"mine"));
        assert_eq!(work(0, || 3).unwrap(), (3, false));
    }
}
