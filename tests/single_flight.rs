//! `SingleFlight`; group SF of the conformance list.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use common::{at_1_2_4, quiesce, rt};
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
