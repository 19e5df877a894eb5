//! What cannot be seen from outside: who is on whose list, and which alarms are set.

use std::time::Duration;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn cx_04_who_has_ended_is_on_nobodys_list() {
    let (parent, _cancel) = Context::background().with_cancel();
    let node = parent.node.as_ref().unwrap();
    let (a, cancel_a) = parent.with_cancel();
    let (b, cancel_b) = parent.with_timeout(LONG);
    let f = parent.after_func(|| ());
    let (merged, cancel_merged) = merge(&parent, &a);
    assert_eq!(node.dependants(), 4);
    assert_eq!(a.node.as_ref().unwrap().dependants(), 1);
    cancel_merged.cancel();
    assert_eq!(a.node.as_ref().unwrap().dependants(), 0);
    cancel_a.cancel();
    drop(cancel_b);
    assert!(f.stop());
    assert_eq!(node.dependants(), 0);
    drop((b, merged));
    for _ in 0..1000 {
        let (child, cancel) = parent.with_cancel();
        cancel.forget();
        drop(child);
    }
    assert_eq!(node.dependants(), 0);
}

#[test]
fn cx_04_what_nobody_listens_to_any_more_does_not_pile_up() {
    let (root, _cancel) = Context::background().with_cancel();
    let (other, _other) = Context::background().with_cancel();
    let (middle, handle) = root.with_cancel();
    handle.forget();
    let node = |ctx: &Context| Arc::clone(ctx.node.as_ref().unwrap());
    let listen = |n| {
        let (child, handle) = if n % 2 == 0 { middle.with_cancel() } else { merge(&middle, &other) };
        handle.forget();
        child.done().clone()
    };
    let kept: Vec<_> = (0..100).map(listen).collect();
    let mut most = 0;
    for n in 0..10_000 {
        drop(listen(n));
        most = most.max(node(&middle).dependants()).max(node(&other).dependants());
    }
    assert!((100..=1_000).contains(&most), "{most}");
    drop(middle);
    assert!((100..=1_000).contains(&node(&root).dependants()));
    assert!(!kept.iter().any(crate::Receiver::is_closed));
    drop(kept);
    for _ in 0..1_000 {
        let (child, handle) = root.with_cancel();
        handle.forget();
        drop(child.done().clone());
    }
    assert!(node(&root).dependants() < 1_000);
}

#[test]
fn cx_12_an_end_takes_the_deadlines_alarm_back() {
    let (ctx, cancel) = Context::background().with_timeout(LONG);
    let (child, _forgotten) = ctx.with_timeout(LONG / 2);
    let (later, _later) = ctx.with_timeout(LONG * 2);
    let node = |ctx: &Context| Arc::clone(ctx.node.as_ref().unwrap());
    assert!(node(&ctx).has_alarm() && node(&child).has_alarm());
    assert!(!node(&later).has_alarm(), "the parent's deadline is earlier");
    cancel.cancel();
    assert!(!node(&ctx).has_alarm() && !node(&child).has_alarm());
}
