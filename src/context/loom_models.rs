//! Models of the tree: two or three parties, every order that matters.
//!
//! The `Arc`s are the standard library's, of which loom knows nothing. A count matters only to who finds that its one was the last, and then
//! drops a node or a core. What that does to others is done under locks, before each of which loom lets others come, and what it looks at is under
//! locks too, or may be found late. So all that is not tried is that of two who give up the last ones just after one another, the other one does the
//! work; it is the same work.

use loom::{
    sync::{
        Arc as LoomArc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};

use super::*;
use crate::runtime::{alarm, interrupt, park, wait::Reason};

const LONG: Duration = Duration::from_secs(3600);

fn root() -> (Context, Arc<CancelHandle>) {
    shared(Context::background().with_cancel())
}

/// With a handle that several may use.
fn shared((ctx, handle): (Context, CancelHandle)) -> (Context, Arc<CancelHandle>) {
    (ctx, Arc::new(handle))
}

/// A context that only those it was made from end.
fn forgotten((ctx, handle): (Context, CancelHandle)) -> Context {
    handle.forget();
    ctx
}

fn has_ended(ctx: &Context) -> bool {
    ctx.err().is_some()
}

fn dependants(ctx: &Context) -> usize {
    ctx.node.as_ref().unwrap().dependants()
}

/// Ends a context in a thread of its own, which then looks at what is promised of that.
fn ends(handle: &Arc<CancelHandle>, promise: impl Fn() -> bool + 'static) -> thread::JoinHandle<()> {
    let handle = Arc::clone(handle);
    thread::spawn(move || {
        handle.cancel();
        assert!(promise(), "`cancel` has returned before its work was done");
    })
}

/// K4: the child may find itself marked by the other thread, which has not come to closing.
#[test]
fn loom_a_child_is_born_while_its_parent_ends() {
    loom::model(|| {
        let (parent, cancel) = root();
        let other = ends(&cancel, || true);
        let (child, _handle) = parent.with_cancel();
        cancel.cancel();
        assert!(has_ended(&child));
        other.join().unwrap();
        assert_eq!(dependants(&parent), 0);
    });
}

/// K3: who can see the end makes nothing that has not ended.
#[test]
fn loom_a_child_that_comes_too_late_has_ended() {
    loom::model(|| {
        let (parent, cancel) = root();
        let other = ends(&cancel, || true);
        let before = has_ended(&parent);
        // K2.
        assert!(!before || parent.done().is_closed());
        let (child, _handle) = parent.with_cancel();
        assert!(!before || has_ended(&child));
        other.join().unwrap();
        assert!(has_ended(&child));
        assert_eq!(dependants(&parent), 0);
    });
}

/// K1, K4: one of the parents ends, perhaps before the child is on the other's list, which it leaves.
#[test]
fn loom_a_merge_is_born_while_a_parent_ends() {
    for ended_is_first in [false, true] {
        loom::model(move || {
            let (mortal, cancel) = root();
            let (other, _other) = root();
            let ends = ends(&cancel, || true);
            let (a, b) = if ended_is_first { (&mortal, &other) } else { (&other, &mortal) };
            let (merged, _handle) = merge(a, b);
            cancel.cancel();
            assert!(has_ended(&merged));
            ends.join().unwrap();
            assert_eq!((dependants(&mortal), dependants(&other)), (0, 0));
            assert!(!has_ended(&other));
        });
    }
}

/// The same while both parents end.
#[test]
fn loom_a_merge_is_born_while_both_parents_end() {
    loom::model(|| {
        let ((a, cancel_a), (b, cancel_b)) = (root(), root());
        let first = ends(&cancel_a, || true);
        let second = ends(&cancel_b, || true);
        let (merged, _handle) = merge(&a, &b);
        cancel_b.cancel();
        assert!(has_ended(&merged));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!((dependants(&a), dependants(&b)), (0, 0));
    });
}

/// K4: each of the cancellers has the merged context ended when it returns; the first one's reason counts.
#[test]
fn loom_both_parents_of_a_merge_end() {
    loom::model(|| {
        let ((a, cancel_a), (b, cancel_b)) = (root(), root());
        let (merged, _handle) = merge(&a, &b);
        let promise = |ctx: &Context| {
            let ctx = ctx.clone();
            move || has_ended(&ctx)
        };
        let first = ends(&cancel_a, promise(&merged));
        let second = ends(&cancel_b, promise(&merged));
        let seen = merged.err();
        first.join().unwrap();
        second.join().unwrap();
        assert!(seen.is_none() || seen == merged.err());
        assert_eq!((dependants(&a), dependants(&b)), (0, 0));
    });
}

/// K4: who finds the mark returns no earlier than what is below has ended.
#[test]
fn loom_two_cancellers() {
    loom::model(|| {
        let (parent, cancel) = root();
        let child = forgotten(parent.with_cancel());
        let grandchild = forgotten(child.with_cancel());
        let below = grandchild.clone();
        let other = ends(&cancel, move || has_ended(&below));
        cancel.cancel();
        assert!(has_ended(&child) && has_ended(&grandchild));
        other.join().unwrap();
        assert_eq!((dependants(&parent), dependants(&child)), (0, 0));
    });
}

/// K4, of one who ends the child while the other ends the parent.
#[test]
fn loom_cancellers_of_parent_and_child() {
    loom::model(|| {
        let (parent, cancel) = root();
        let (child, cancel_child) = shared(parent.with_cancel());
        let grandchild = forgotten(child.with_cancel());
        let below = grandchild.clone();
        let other = ends(&cancel, move || has_ended(&below));
        cancel_child.cancel();
        assert!(has_ended(&child) && has_ended(&grandchild));
        other.join().unwrap();
        assert_eq!((dependants(&parent), dependants(&child)), (0, 0));
    });
}

/// K1, K5: a line of nodes is dropped while an end runs down, and takes nobody with it who listens.
#[test]
fn loom_orphans_are_left_while_the_parent_ends() {
    loom::model(|| {
        let (parent, cancel) = root();
        let middle = forgotten(parent.with_cancel());
        let leaf = forgotten(middle.with_cancel());
        let done = leaf.done().clone();
        let listener = done.clone();
        let other = ends(&cancel, move || listener.is_closed());
        drop(leaf);
        drop(middle);
        cancel.cancel();
        assert!(done.is_closed());
        other.join().unwrap();
        assert_eq!(dependants(&parent), 0);
    });
}

/// K1, K5: two leave their orphans to a node that goes with the last of them.
#[test]
fn loom_two_orphans_are_left_at_once() {
    loom::model(|| {
        let (parent, cancel) = root();
        let middle = forgotten(parent.with_cancel());
        let leaves = [forgotten(middle.with_cancel()), forgotten(middle.with_cancel())];
        drop(middle);
        let done = leaves.each_ref().map(|leaf| leaf.done().clone());
        let [first, second] = leaves;
        let other = thread::spawn(move || drop(first));
        drop(second);
        cancel.cancel();
        assert!(done.iter().all(Receiver::is_closed));
        other.join().unwrap();
        assert_eq!(dependants(&parent), 0);
    });
}

/// K1: an orphan of two parents, of which one ends while it is left to them.
#[test]
fn loom_an_orphan_of_two_parents() {
    loom::model(|| {
        let ((a, cancel_a), (b, cancel_b)) = (root(), root());
        let merged = forgotten(merge(&a, &b));
        let done = merged.done().clone();
        let listener = done.clone();
        let other = ends(&cancel_a, move || listener.is_closed());
        drop(merged);
        cancel_b.cancel();
        assert!(done.is_closed());
        other.join().unwrap();
        assert_eq!((dependants(&a), dependants(&b)), (0, 0));
    });
}

/// K1: what has been left to one of two parents that end goes on to both of its own.
#[test]
fn loom_an_orphan_below_two_parents() {
    loom::model(|| {
        let ((a, cancel_a), (b, cancel_b)) = (root(), root());
        let merged = forgotten(merge(&a, &b));
        let leaf = forgotten(merged.with_cancel());
        let done = leaf.done().clone();
        drop(leaf);
        let listener = done.clone();
        let other = ends(&cancel_a, move || listener.is_closed());
        drop(merged);
        cancel_b.cancel();
        assert!(done.is_closed());
        other.join().unwrap();
        assert_eq!((dependants(&a), dependants(&b)), (0, 0));
    });
}

/// K1: a function waits at an orphan, and is started once.
#[test]
fn loom_a_function_at_an_orphan() {
    loom::model(|| {
        let (parent, cancel) = root();
        let ctx = forgotten(parent.with_cancel());
        let runs = LoomArc::new(AtomicUsize::new(0));
        let counted = LoomArc::clone(&runs);
        let f = Box::new(move || _ = counted.fetch_add(1, SeqCst));
        let registration = Registration::new(ctx.node.as_ref(), f);
        let other = ends(&cancel, || true);
        drop((ctx, registration));
        other.join().unwrap();
        assert_eq!(runs.load(SeqCst), 1);
        assert_eq!(dependants(&parent), 0);
    });
}

/// K2: what nothing can end any more stays open for who listens, whoever goes last.
#[test]
fn loom_who_listens_to_what_cannot_end_finds_it_open() {
    loom::model(|| {
        let parent = forgotten(Context::background().with_cancel());
        let child = forgotten(parent.with_cancel());
        let done = child.done().clone();
        let other = thread::spawn(move || drop(parent));
        drop(child);
        assert!(!done.is_closed());
        other.join().unwrap();
        assert!(!done.is_closed());
    });
}

/// K2: whoever is told of the end can say why, also one that came when the mark was there already.
#[test]
fn loom_a_wait_is_ended_by_who_can_be_asked_why() {
    loom::model(|| {
        let (ctx, cancel) = root();
        let other = ends(&cancel, || true);
        let unit = park::current();
        let _ = interrupt::park_until(unit, unit.arm(), None, &ctx, Reason::Join.alone());
        assert_eq!(ctx.why_ended(), ContextError::Canceled);
        other.join().unwrap();
        assert_eq!(dependants(&ctx), 0);
    });
}

/// K2, K4: the same below the one that ends, of a wait that somebody else may end as well.
#[test]
fn loom_a_wait_that_two_may_end() {
    loom::model(|| {
        let (parent, cancel) = root();
        let ctx = forgotten(parent.with_cancel());
        let other = ends(&cancel, || true);
        let unit = park::current();
        let ticket = unit.arm();
        let partner = thread::spawn(move || {
            let claimed = unit.try_claim(ticket);
            if claimed {
                unit.wake(park::Wake::Queue);
            }
            claimed
        });
        let _ = interrupt::park_until(unit, ticket, None, &ctx, Reason::Join.alone());
        let by_partner = partner.join().unwrap();
        assert!(by_partner || has_ended(&ctx));
        other.join().unwrap();
        assert_eq!((dependants(&parent), dependants(&ctx)), (0, 0));
        // P2: one wake, and none is left over for the next wait.
        let over = LoomArc::new(AtomicUsize::new(0));
        let next = thread::spawn({
            let over = LoomArc::clone(&over);
            move || {
                over.store(1, SeqCst);
                unit.wake(park::Wake::Queue);
            }
        });
        unit.park(Reason::Join.alone());
        assert_eq!(over.load(SeqCst), 1, "woken twice");
        next.join().unwrap();
    });
}

/// K2: a function that is started finds the context ended, however late it was registered; it is started once, or taken back.
#[test]
fn loom_a_function_is_registered_while_the_context_ends() {
    for stops in [false, true] {
        loom::model(move || {
            let (ctx, cancel) = root();
            let other = ends(&cancel, || true);
            let runs = LoomArc::new(AtomicUsize::new(0));
            let registration = Registration::new(ctx.node.as_ref(), {
                let (ctx, runs) = (ctx.clone(), LoomArc::clone(&runs));
                Box::new(move || {
                    assert!(has_ended(&ctx), "started by an end that cannot be seen");
                    runs.fetch_add(1, SeqCst);
                })
            });
            let stopped = stops && registration.remove();
            other.join().unwrap();
            assert_eq!(runs.load(SeqCst), usize::from(!stopped));
            assert_eq!(dependants(&ctx), 0);
        });
    }
}

/// The deadline comes while the handle is used: one of the two counts, and no alarm is left.
#[test]
fn loom_a_deadline_comes_while_the_context_ends() {
    loom::model(|| {
        let (parent, cancel) = root();
        let alarms = thread::spawn(alarm::ring);
        let ends = ends(&cancel, || true);
        let (ctx, handle) = parent.with_timeout_cause(LONG, "late");
        handle.cancel();
        let (error, cause) = (ctx.err(), ctx.cause().unwrap().to_string());
        let expected = match error.unwrap() {
            ContextError::Canceled => "context canceled",
            ContextError::DeadlineExceeded => "late",
        };
        assert_eq!(cause, expected);
        alarms.join().unwrap();
        ends.join().unwrap();
        assert_eq!(ctx.err(), error, "the first end counts");
        assert_eq!((dependants(&parent), alarm::settle()), (0, 0));
    });
}

/// A reason that is a user's, and so is its `Drop`.
#[derive(Debug)]
struct DroppedByNoAlarm;

impl fmt::Display for DroppedByNoAlarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("a reason")
    }
}

impl Error for DroppedByNoAlarm {}

impl Drop for DroppedByNoAlarm {
    fn drop(&mut self) {
        assert!(!alarm::rings_here(), "the alarm thread drops what is the user's");
    }
}

/// R2 of `alarm`: the alarm thread drops no cause, though all others who had it are gone.
#[test]
fn loom_an_alarm_drops_no_cause() {
    // All that this makes is dropped while the alarm goes off.
    fn model(make: impl Fn() + Sync + Send + 'static) {
        loom::model(move || {
            let alarms = thread::spawn(alarm::ring);
            make();
            alarms.join().unwrap();
            // It may have come before there was an alarm.
            alarm::ring();
            alarm::settle();
        });
    }
    // Its own.
    model(|| drop(forgotten(Context::background().with_timeout_cause(LONG, DroppedByNoAlarm))));
    // Of a deadline below that does not come any more.
    model(|| {
        let ctx = forgotten(Context::background().with_timeout(LONG));
        drop(forgotten(ctx.with_timeout_cause(LONG / 2, DroppedByNoAlarm)));
    });
    // Of an end below.
    model(|| {
        let ctx = forgotten(Context::background().with_timeout(LONG));
        let (_child, cancel) = ctx.with_cancel();
        cancel.cancel_with(DroppedByNoAlarm);
    });
    // Of a parent's end, where the other one's deadline ends the same child.
    model(|| {
        let ctx = forgotten(Context::background().with_timeout(LONG));
        let (other, cancel) = Context::background().with_cancel();
        let _merged = forgotten(merge(&ctx, &other));
        cancel.cancel_with(DroppedByNoAlarm);
    });
}
