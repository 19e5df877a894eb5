//! The result of a scoped goroutine may borrow from the scope's frame: nothing keeps it longer.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

const INSIDE: usize = 1;
const LATE: usize = 2;

/// Says when it was dropped. What it borrows outlives the whole test, so that a failure is no undefined behaviour.
struct Borrows<'a> {
    scope_has_ended: &'a AtomicBool,
    dropped: &'a AtomicUsize,
}

impl Drop for Borrows<'_> {
    fn drop(&mut self) {
        self.dropped.store(if self.scope_has_ended.load(SeqCst) { LATE } else { INSIDE }, SeqCst);
    }
}

#[test]
fn a_goroutine_that_is_kept_keeps_no_result_of_a_scope() {
    for wait in [false, true] {
        let (scope_has_ended, dropped) = (AtomicBool::new(false), AtomicUsize::new(0));
        let kept = oxigo::scope(|s| {
            let handle = s.go(|| Borrows { scope_has_ended: &scope_has_ended, dropped: &dropped });
            while wait && !handle.is_finished() {
                oxigo::yield_now();
            }
            handle.goroutine().clone()
        });
        scope_has_ended.store(true, SeqCst);
        drop(kept);
        assert_eq!(dropped.load(SeqCst), INSIDE);
    }
}

#[test]
fn nor_does_one_that_the_goroutine_has_given_away() {
    static KEPT: Mutex<Option<oxigo::Goroutine>> = Mutex::new(None);
    let (scope_has_ended, dropped) = (AtomicBool::new(false), AtomicUsize::new(0));
    oxigo::scope(|s| {
        s.go(|| {
            *KEPT.lock().unwrap() = Some(oxigo::current());
            Borrows { scope_has_ended: &scope_has_ended, dropped: &dropped }
        });
    });
    scope_has_ended.store(true, SeqCst);
    *KEPT.lock().unwrap() = None;
    assert_eq!(dropped.load(SeqCst), INSIDE);
}

#[test]
fn a_joined_result_is_the_joiner_s() {
    let (scope_has_ended, dropped) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (kept, result) = oxigo::scope(|s| {
        let handle = s.go(|| Borrows { scope_has_ended: &scope_has_ended, dropped: &dropped });
        (handle.goroutine().clone(), handle.join().ok())
    });
    drop(kept);
    assert_eq!(dropped.load(SeqCst), 0);
    drop(result);
    assert_eq!(dropped.load(SeqCst), INSIDE);
}

/// A child that cannot be started, and whose closure panics when it is dropped for that, is not waited for.
#[test]
fn a_child_that_never_started_is_not_waited_for() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("dropped unrun");
        }
    }
    let text = std::panic::catch_unwind(|| {
        oxigo::scope(|s| {
            let captured = PanicsWhenDropped;
            let _ = s.spawn(oxigo::Builder::new().stack_size(usize::MAX), move || drop(captured));
        });
    });
    assert_eq!(text.unwrap_err().downcast_ref(), Some(&"dropped unrun"));
}
