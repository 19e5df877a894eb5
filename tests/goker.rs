//! Blocking bugs of real Go programs, and what becomes of them here. Each test is named by its case in GoKer, the kernels of GoBench (Yuan et
//! al., CGO 2021: docker, kubernetes, etcd, grpc-go, cockroach, hugo, istio, syncthing); the programs are our own, written from what the cases
//! are about, and show the same kind of bug in the way that comes natural with this crate; cases that differ in Go by names only share one. `docs/diagnostics.md` has the counts.
//!
//! The outcomes: the bug cannot be written or ends by disconnection ([`ENDS`]); goroutines stay, and [`debug::leaks`] proves it
//! ([`PROVEN`]); [`debug::suspects`] names them ([`SUSPECTED`]); neither does ([`UNSEEN`]). In the last three `leak_check` finds them, and
//! where nothing else goes on the deadlock report does.
#![cfg(target_os = "linux")]

mod common;

use std::{collections::HashSet, sync::Arc, time::Duration};

use common::rt;
use oxigo::{
    WaitGroup, bounded,
    context::Context,
    debug, go, select,
    sync::{Condvar, Mutex, Once, RwLock},
    unbuffered, yield_now,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ends,
    Proven,
    Suspected,
    Unseen,
}
use Outcome::{Ends as ENDS, Proven as PROVEN, Suspected as SUSPECTED, Unseen as UNSEEN};

/// What goroutines wait for that the case leaves behind, and what the reports say of them.
fn look(body: fn(), grace: Duration) -> (Vec<&'static str>, Outcome) {
    const LEAST: Duration = Duration::from_millis(10);
    let check = debug::leak_check().grace(grace);
    drop(go(body));
    let Err(left) = check.end() else { return (Vec::new(), ENDS) };
    let ids: HashSet<_> = left.iter().map(|one| one.id()).collect();
    let reasons: Vec<_> = left.iter().map(|one| one.waits_for()).collect();
    let proven = debug::leaks().iter().any(|one| ids.contains(&one.id()));
    let suspects = debug::suspects(LEAST).unwrap();
    let suspected = suspects.iter().any(|group| group.goroutines().any(|one| ids.contains(&one.id())));
    let outcome = match (proven, suspected) {
        (true, _) => PROVEN,
        (_, true) => SUSPECTED,
        _ => UNSEEN,
    };
    (reasons, outcome)
}

/// `reason`: what one of those that stay waits for.
#[track_caller]
fn case(body: fn(), outcome: Outcome, reason: &str) {
    rt(1, || {
        let tries = if outcome == SUSPECTED { 20 } else { 2 };
        let mut grace = Duration::from_millis(if outcome == ENDS { 60_000 } else { 25 });
        let mut seen = HashSet::new();
        for _ in 0..tries {
            let (reasons, found) = loop {
                let (reasons, found) = look(body, grace);
                // Without a core for a while they may be on their way to their waits still.
                let early = !reasons.contains(&reason) || outcome == PROVEN && found != PROVEN;
                if outcome == ENDS || !early || grace > Duration::from_secs(5) {
                    break (reasons, found);
                }
                grace *= 2;
            };
            assert_eq!(reasons.is_empty(), outcome == ENDS, "{reasons:?}");
            assert!(reasons.is_empty() || reasons.contains(&reason), "{reasons:?}");
            seen.insert(found);
            // A word that something left in memory may hide a leak; nothing may make one up.
            assert!(found == outcome || (outcome, found) == (SUSPECTED, UNSEEN), "{found:?}: {reasons:?}");
            if found == outcome && outcome == SUSPECTED {
                return;
            }
        }
        assert!(seen.contains(&outcome), "{seen:?}");
    });
}

impl std::hash::Hash for Outcome {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (*self as u8).hash(state);
    }
}

macro_rules! cases {
    ($($name:ident: $outcome:ident $reason:literal $body:block)*) => {
        $(#[test] fn $name() { case(|| $body, $outcome, $reason); })*
    };
}

/// Runs the others until they wait.
fn let_others_run() {
    for _ in 0..20 {
        yield_now();
    }
}

/// Two goroutines that take two locks in opposite order.
fn opposite_order() {
    let locks = Arc::new((Mutex::new(()), Mutex::new(())));
    let other = Arc::clone(&locks);
    go(move || {
        let _first = locks.0.lock();
        let_others_run();
        let _second = locks.1.lock();
    });
    go(move || {
        let _second = other.1.lock();
        let_others_run();
        let _first = other.0.lock();
    });
}

/// Reads, and reads again while a writer waits.
fn reads_twice() {
    let lock = Arc::new(RwLock::new(0));
    let writer = Arc::clone(&lock);
    let first = lock.read();
    go(move || *writer.write() += 1);
    let_others_run();
    let second = lock.read();
    drop((first, second));
}

/// Takes a lock again in something that is called while it is held.
fn locks_twice() {
    let lock = Arc::new(Mutex::new(0));
    let held = lock.lock();
    *lock.lock() += *held;
}

/// One holds a lock and sends; who receives wants the lock first.
fn sends_under_a_lock(capacity: usize) {
    let lock = Arc::new(Mutex::new(()));
    let (tx, rx) = bounded(capacity);
    let receiver = Arc::clone(&lock);
    go(move || {
        let_others_run();
        loop {
            let _held = receiver.lock();
            if rx.recv().is_err() {
                return;
            }
        }
    });
    let _held = lock.lock();
    for n in 0..=capacity {
        tx.send(n).unwrap();
    }
}

/// One holds a lock and receives; who sends, or closes, wants the lock first.
fn receives_under_a_lock() {
    let lock = Arc::new(Mutex::new(()));
    let (tx, rx) = unbuffered::<()>();
    let _held = lock.lock();
    go({
        let lock = Arc::clone(&lock);
        move || {
            let _held = lock.lock();
            tx.close().unwrap();
        }
    });
    let _ = rx.recv();
}

/// Waits for a condition that nobody signals.
fn waits_unsignalled() {
    let pair = Arc::new((Mutex::new(false), Condvar::new()));
    let mut done = pair.0.lock();
    while !*done {
        pair.1.wait(&mut done);
    }
}

// ---- resources: locks --------------------------------------------------------------------------------------------------------

cases! {
    // An unlock that was forgotten on the way out of a loop or function: a guard unlocks.
    cockroach_584: ENDS "" {
        let lock = Mutex::new(0);
        for _ in 0..2 {
            let mut closed = lock.lock();
            *closed += 1;
            if *closed == 1 { continue }
            break;
        }
        *lock.lock() += 1;
    }
    etcd_5509: ENDS "" {
        let client = RwLock::new(None::<u32>);
        let remote = || -> Result<u32, ()> { (*client.read()).ok_or(()) };
        assert_eq!(remote(), Err(()));
        *client.write() = Some(1);
    }
    grpc_795: ENDS "" {
        let server = Mutex::new(vec![1]);
        let graceful_stop = || server.lock().clear();
        graceful_stop();
        graceful_stop();
    }
    grpc_3017: ENDS "" {
        let cache = Arc::new(Mutex::new(Some(1)));
        let remove = |cache: &Mutex<Option<i32>>| -> bool {
            let mut entry = cache.lock();
            if entry.is_none() { return false }
            *entry = None;
            true
        };
        let timer = oxigo::time::after_func(Duration::from_millis(1), { let cache = Arc::clone(&cache); move || drop(cache.lock()) });
        assert!(remove(&cache));
        assert!(!remove(&cache));
        timer.stop();
    }
    moby_7559: ENDS "" {
        let table = Mutex::new(0);
        for failed in [true, false] {
            let mut table = table.lock();
            if failed { continue }
            *table += 1;
        }
    }
    moby_17176: ENDS "" {
        let devices = Mutex::new(vec![1, 2]);
        let reserve = || -> Option<i32> { devices.lock().iter().copied().find(|n| *n > 5) };
        assert_eq!((reserve(), reserve()), (None, None));
    }

    cockroach_9935: UNSEEN "Mutex.lock" { locks_twice(); }
    etcd_6708: UNSEEN "RwLock.read" {
        let client = RwLock::new(1);
        let held = client.write();
        let refresh = || *client.read();
        assert_eq!(refresh(), *held);
    }
    etcd_10492: UNSEEN "Mutex.lock" {
        let lessor = Arc::new(Mutex::new(0));
        let checkpoint = { let lessor = Arc::clone(&lessor); move || *lessor.lock() += 1 };
        let held = lessor.lock();
        checkpoint();
        drop(held);
    }
    hugo_5379: UNSEEN "Mutex.lock" {
        let (lock, once) = (Mutex::new(0), Once::new());
        let content = || *lock.lock();
        let _held = lock.lock();
        once.call_once(|| assert_eq!(content(), 0));
    }
    kubernetes_13135: UNSEEN "Mutex.lock" { opposite_order(); }
    moby_36114: UNSEEN "Mutex.lock" { locks_twice(); }
    cockroach_7504: UNSEEN "Mutex.lock" { opposite_order(); }
    cockroach_10214: UNSEEN "Mutex.lock" { opposite_order(); }
    hugo_3251: UNSEEN "Mutex.lock" { opposite_order(); }
    kubernetes_30872: UNSEEN "Mutex.lock" { opposite_order(); }
    moby_4951: UNSEEN "Mutex.lock" { opposite_order(); }
    cockroach_3710: UNSEEN "RwLock.read" { reads_twice(); }
    cockroach_6181: UNSEEN "RwLock.read" { reads_twice(); }
    cockroach_16167: UNSEEN "RwLock.read" { reads_twice(); }
    kubernetes_62464: UNSEEN "RwLock.read" { reads_twice(); }
    syncthing_4829: UNSEEN "RwLock.read" {
        let mapping = Arc::new(RwLock::new(1));
        let notify = { let mapping = Arc::clone(&mapping); move || *mapping.read() };
        let held = mapping.write();
        assert_eq!(notify(), *held);
    }
    kubernetes_58107: UNSEEN "RwLock.write" {
        let lock = Arc::new(RwLock::new(()));
        let (first, second, writer) = (Arc::clone(&lock), Arc::clone(&lock), lock);
        go(move || { let _held = first.read(); waits_unsignalled(); });
        let_others_run();
        go(move || drop(writer.write()));
        let_others_run();
        go(move || drop(second.read()));
    }
}

// ---- communication: channels, contexts, groups, conditions -----------------------------------------------------------------------

cases! {
    // Who was to receive has returned: its receiver is gone, and the send fails.
    cockroach_18101: ENDS "" {
        let (ctx, cancel) = Context::background().with_cancel();
        let (tx, rx) = unbuffered();
        go(move || while tx.send(1).is_ok() {});
        rx.recv().unwrap();
        cancel.cancel();
        select! { recv(ctx.done()) -> _ => () }
    }
    cockroach_35073: ENDS "" {
        let (tx, rows) = bounded(1);
        go(move || while tx.send(1).is_ok() {});
        rows.recv().unwrap();
    }
    grpc_660: ENDS "" {
        let (done, stopped) = unbuffered();
        go(move || done.send(true).is_err());
        drop(stopped);
    }
    cockroach_1462: ENDS "" {
        let (stop, (events, all_events)) = (WaitGroup::new(), unbuffered());
        let (stopper, stopped) = unbuffered::<()>();
        stop.go(move || while events.send(0).is_ok() {});
        stop.go(move || loop { select! { recv(all_events) -> _ => (), recv(stopped) -> _ => return } });
        drop(stopper);
        stop.wait();
    }
    istio_17860: ENDS "" {
        let (status, statuses) = unbuffered();
        for epoch in 0..2 { let status = status.clone(); go(move || status.send(epoch).is_ok()); }
        drop(status);
        statuses.recv().unwrap();
    }
    kubernetes_5316: ENDS "" {
        let ((ok, oks), (error, errors)) = (unbuffered::<i32>(), unbuffered::<&str>());
        let (go_on, wait) = unbuffered::<()>();
        go(move || { let _ = wait.recv(); let _ = error.send("late"); drop(ok); });
        select! { recv(oks) -> _ => unreachable!(), recv(errors) -> _ => unreachable!(), default => () }
        drop(go_on);
    }
    kubernetes_25331: ENDS "" {
        let (ctx, cancel) = Context::background().with_cancel();
        let (error, errors) = unbuffered();
        go(move || { assert!(ctx.done().recv().is_err()); error.send(ctx.err()).is_err() });
        drop(errors);
        cancel.cancel();
    }
    moby_4395: ENDS "" {
        let (result, results) = unbuffered();
        go(move || result.send(Ok::<_, ()>(())).is_err());
        select! { recv(results) -> _ => (), default => () }
    }
    moby_33293: ENDS "" {
        let (error, errors) = unbuffered();
        go(move || error.send("no process").is_err());
        drop(errors);
    }
    moby_33781: ENDS "" {
        let ((stop, stops), (result, results)) = (unbuffered::<()>(), unbuffered());
        go(move || result.send(1).is_err());
        drop(stop);
        select! { recv(stops) -> _ => (), recv(results) -> _ => () }
    }
    // Who was to send or to close has returned: its sender is gone, and the receive ends.
    etcd_6857: ENDS "" {
        let ((status, requests), (stop, stopped)) = (unbuffered::<i32>(), unbuffered::<()>());
        go(move || loop { select! { recv(requests) -> _ => (), recv(stopped) -> _ => return } });
        drop(stop);
        let_others_run();
        assert!(status.send(1).is_err());
    }
    grpc_1275: ENDS "" {
        let (data, reads) = unbuffered::<u8>();
        go(move || reads.recv().is_err());
        drop(data);
    }
    grpc_1424: ENDS "" {
        let (notify, addresses) = unbuffered::<&str>();
        go(move || for _ in addresses {});
        notify.send("one").unwrap();
    }
    kubernetes_70277: ENDS "" {
        let ((after, afters), (done, dones)) = (unbuffered::<()>(), unbuffered::<()>());
        go(move || select! { recv(afters) -> _ => (), recv(dones) -> _ => () });
        drop((after, done));
    }
    cockroach_10790: ENDS "" {
        let (ctx, cancel) = Context::background().with_cancel();
        let (tx, rx) = unbuffered();
        go(move || loop { select! { send(tx, 1) -> _ => (), recv(ctx.done()) -> _ => return } });
        rx.recv().unwrap();
        go(move || while rx.recv().is_ok() {});
        cancel.cancel();
    }
    kubernetes_38669: ENDS "" {
        let (event, events) = bounded::<i32>(0);
        drop(event);
        assert!(events.recv().is_err());
    }
    moby_21233: ENDS "" {
        let (progress, watch) = unbuffered();
        go(move || { for n in 0..3 { progress.send(n).unwrap(); } });
        assert_eq!(watch.iter().count(), 3);
    }
    // A context that nobody cancels: its handle cancels when it is dropped.
    cockroach_13197: ENDS "" {
        let (ctx, _cancel) = Context::background().with_cancel();
        go(move || ctx.done().recv().is_err());
    }
    cockroach_13755: ENDS "" {
        let (ctx, cancel) = Context::background().with_cancel();
        let rows = (cancel, go(move || ctx.done().recv().is_err()));
        assert!(!rows.1.is_finished());
    }
    grpc_862: ENDS "" {
        let (ctx, _cancel) = Context::background().with_cancel();
        go(move || select! { recv(ctx.done()) -> _ => () });
        let_others_run();
    }

    // Each waits for the other, with the other's handle in hand.
    cockroach_1055: SUSPECTED "WaitGroup.wait" {
        let drain = WaitGroup::new();
        let (stopper, stopped) = unbuffered::<()>();
        for _ in 0..2 {
            let (stopped, working) = (stopped.clone(), drain.guard());
            go(move || { assert!(stopped.recv().is_err()); drop(working); });
        }
        go(move || { drain.wait(); stopper.close().unwrap(); });
    }
    cockroach_2448: SUSPECTED "select" {
        let ((event, events), (call, calls)) = (unbuffered::<i32>(), unbuffered::<i32>());
        go(move || { select! { send(event, 1) -> _ => () } calls.recv().unwrap(); });
        go(move || { select! { send(call, 1) -> _ => () } events.recv().unwrap(); });
    }
    cockroach_24808: SUSPECTED "chan send" {
        let (signal, signals) = bounded(1);
        go(move || {
            signal.send(()).unwrap();
            signal.send(()).unwrap();
            go(move || for () in signals {}).join().unwrap();
        });
    }
    cockroach_25456: SUSPECTED "chan receive" {
        let (quiesce, quiesced) = unbuffered::<()>();
        go(move || { let _ = quiesced.recv(); quiesce.close().unwrap(); });
    }
    cockroach_35931: SUSPECTED "chan send" {
        let ((full, from_full), (empty, from_empty)) = (bounded(1), bounded(1));
        full.send(0).unwrap();
        go(move || { full.send(1).unwrap(); empty.send(1).unwrap(); });
        go(move || { from_empty.recv().unwrap(); from_full.recv().unwrap(); });
    }
    moby_25384: SUSPECTED "WaitGroup.wait" {
        go(|| {
            let group = WaitGroup::new();
            group.add(2);
            oxigo::scope(|s| for _ in 0..2 {
                s.go(|| group.done());
                group.wait();
            });
        });
    }
    syncthing_5795: SUSPECTED "chan receive" {
        let (stopped, dispatcher_stopped) = unbuffered::<()>();
        go(move || {
            let close = || dispatcher_stopped.recv().is_err();
            assert!(close());
            drop(stopped);
        });
    }
    // The group is behind an `Arc`, as it is where both sides have it from one struct: a heap is not followed.
    not_of_the_set_shared_group: UNSEEN "WaitGroup.wait" {
        let group = Arc::new(WaitGroup::new());
        let (stopper, stopped) = unbuffered::<()>();
        group.add(1);
        let worker = Arc::clone(&group);
        go(move || { assert!(stopped.recv().is_err()); worker.done(); });
        group.wait();
        drop(stopper);
    }
    // A condition that nobody signals.
    kubernetes_11298: UNSEEN "Condvar.wait" { waits_unsignalled(); }
    moby_29733: UNSEEN "Condvar.wait" { waits_unsignalled(); }
    moby_30408: UNSEEN "Condvar.wait" { waits_unsignalled(); }
    // Not of the set, which has none of these: a nil channel, on which nothing ever comes: the context without an end was taken for one that ends.
    not_of_the_set_nil_channel: PROVEN "chan receive (never ready)" {
        let ctx = Context::background();
        go(move || ctx.done().recv().is_err());
    }
}

// ---- mixed: a channel and a lock ---------------------------------------------------------------------------------------------------

cases! {
    etcd_6873: UNSEEN "chan receive" { receives_under_a_lock(); }
    etcd_7902: UNSEEN "chan receive" { receives_under_a_lock(); }
    etcd_7492: UNSEEN "chan send" { sends_under_a_lock(1); }
    grpc_1460: UNSEEN "chan receive" { receives_under_a_lock(); }
    istio_16224: UNSEEN "chan send" { sends_under_a_lock(0); }
    kubernetes_1321: UNSEEN "Mutex.lock" { sends_under_a_lock(0); }
    kubernetes_6632: UNSEEN "Mutex.lock" { sends_under_a_lock(0); }
    kubernetes_10182: UNSEEN "Mutex.lock" { sends_under_a_lock(2); }
    kubernetes_26980: UNSEEN "chan send" { sends_under_a_lock(3); }
    moby_28462: UNSEEN "chan send" { sends_under_a_lock(0); }
}
