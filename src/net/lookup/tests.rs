//! Look-ups with resolvers that are made up.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
};

use super::*;
use crate::{WaitGroup, chan, go, run, time};

const ANSWER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

type Resolver = Box<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// A resolver that answers when it is let, and counts its calls.
struct Fake {
    flights: &'static Flights<Resolver>,
    calls: Arc<AtomicUsize>,
    /// One value for each call that may go on.
    gate: chan::Sender<()>,
}

fn fake() -> Fake {
    let calls = Arc::new(AtomicUsize::new(0));
    let (gate, passes) = chan::unbounded::<()>();
    let counted = Arc::clone(&calls);
    let resolver = move |host: &str| {
        counted.fetch_add(1, SeqCst);
        passes.recv().map_err(io::Error::other)?;
        match host {
            "good" => Ok(vec![ANSWER]),
            "bad" => Err(io::Error::new(io::ErrorKind::NotFound, "no such host")),
            _ => panic!("a resolver's own bug"),
        }
    };
    let flights = Box::leak(Box::new(Flights::new(Box::new(resolver) as Resolver)));
    Fake { flights, calls, gate }
}

fn until(condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not come to pass");
        time::sleep(Duration::from_millis(1));
    }
}

#[test]
fn nt_29_equal_look_ups_at_the_same_time_are_one() {
    run(|| {
        let fake = fake();
        let tasks = Arc::new(WaitGroup::new());
        for _ in 0..10 {
            let flights = fake.flights;
            tasks.go(move || {
                assert_eq!(flights.look_up("good", &Patience::endless()).unwrap(), [ANSWER]);
            });
        }
        let flying = || fake.flights.table.lock().unwrap().get("good").map_or(0, Arc::strong_count);
        // The table, the job, and ten who wait.
        until(|| flying() == 12);
        fake.gate.send(()).unwrap();
        tasks.wait();
        assert_eq!(fake.calls.load(SeqCst), 1);
        // Later ones ask anew.
        fake.gate.send(()).unwrap();
        assert_eq!(fake.flights.look_up("good", &Patience::endless()).unwrap(), [ANSWER]);
        assert_eq!(fake.calls.load(SeqCst), 2);
        assert!(fake.flights.table.lock().unwrap().is_empty());
    });
}

/// Who cancels, or has no more time, leaves; the others get the answer.
#[test]
fn nt_29_a_look_up_is_cancelled_alone() {
    run(|| {
        let fake = fake();
        let flights = fake.flights;
        let patient = go(move || flights.look_up("good", &Patience::endless()));
        until(|| fake.calls.load(SeqCst) == 1);

        let (cancel, cancelled) = chan::unbuffered::<()>();
        let leaves = go(move || {
            flights
                .look_up("good", &Patience { cancelled: Some(&cancelled), ..Patience::endless() })
                .unwrap_err()
                .to_string()
        });
        cancel.close().unwrap();
        assert_eq!(leaves.join().unwrap(), "the look-up was cancelled");

        let begin = Instant::now();
        let deadline = Some(begin + Duration::from_millis(10));
        let error = flights.look_up("good", &Patience { deadline, ..Patience::endless() }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(10));

        assert!(!patient.is_finished());
        fake.gate.send(()).unwrap();
        assert_eq!(patient.join().unwrap().unwrap(), [ANSWER]);
        assert_eq!(fake.calls.load(SeqCst), 1);
    });
}

/// One worker: while the resolver stands still, other goroutines run.
#[test]
fn nt_23_nt_29_a_look_up_ends_with_its_context() {
    run(|| {
        let fake = fake();
        let (ctx, cancel) = Context::background().with_cancel();
        let (flights, other) = (fake.flights, ctx.clone());
        let waiter = go(move || flights.look_up("good", &Patience::of_context(&other)));
        let patient = go(move || flights.look_up("good", &Patience::of_context(&Context::background())));
        let flying = || fake.flights.table.lock().unwrap().get("good").map_or(0, Arc::strong_count);
        // The table, the job, and the two who wait.
        until(|| fake.calls.load(SeqCst) == 1 && flying() == 4);
        cancel.cancel();
        let error = waiter.join().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::Other, "context canceled"));
        let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
        let error = flights.look_up("good", &Patience::of_context(&ctx)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The flight itself goes on, for others.
        fake.gate.send(()).unwrap();
        assert_eq!(patient.join().unwrap().unwrap(), [ANSWER]);
        assert_eq!(fake.calls.load(SeqCst), 1);
    });
}

#[test]
fn nt_29_a_slow_look_up_holds_nobody_else() {
    let runtime = crate::Runtime::builder().workers(1).build().unwrap();
    runtime.run(|| {
        let fake = fake();
        let flights = fake.flights;
        let slow = go(move || flights.look_up("good", &Patience::endless()));
        until(|| fake.calls.load(SeqCst) == 1);
        assert_eq!(go(|| 7).join().unwrap(), 7);
        fake.gate.send(()).unwrap();
        assert!(slow.join().unwrap().is_ok());
    });
}

#[test]
fn nt_29_errors_and_panics_reach_all_who_wait() {
    let fake = fake();
    fake.gate.send(()).unwrap();
    let error = fake.flights.look_up("bad", &Patience::endless()).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such host".to_owned()));
    fake.gate.send(()).unwrap();
    let thread = thread::spawn(move || fake.flights.look_up("ugly", &Patience::endless()));
    assert_eq!(thread.join().unwrap().unwrap_err().to_string(), "the resolver has panicked");
}
