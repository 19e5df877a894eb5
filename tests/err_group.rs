//! Group EG: groups of tasks of which the first failure counts.

mod common;

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{at_1_2_4, rt};
use oxigo::{
    context::{Context, ContextError},
    sync::{ErrGroup, TaskFailed},
    unbuffered,
};

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn eg_01_wait_waits_for_all_and_gives_the_first_error() {
    at_1_2_4(|| {
        let ended = Arc::new(AtomicUsize::new(0));
        let group = ErrGroup::new();
        let ctx = group.context().clone();
        for n in 0..20 {
            let (ended, ctx) = (Arc::clone(&ended), ctx.clone());
            group.go(move || {
                if n != 7 {
                    let _ = ctx.done().recv();
                }
                ended.fetch_add(1, SeqCst);
                Err(n)
            });
        }
        assert_eq!(group.wait(), Err(7));
        assert_eq!(ended.load(SeqCst), 20);
    });
}

#[test]
fn eg_02_the_context_ends_with_the_first_error_and_when_wait_returns() {
    at_1_2_4(|| {
        let group = ErrGroup::with_context(&Context::background().with_value(5_u8));
        let ctx = group.context().clone();
        assert_eq!(*ctx.value::<u8>().unwrap(), 5);
        group.go(|| Err("no"));
        ctx.done().recv().unwrap_err();
        assert!(ctx.cause().unwrap().is::<TaskFailed>());
        assert_eq!(ctx.cause().unwrap().to_string(), "a task of the group has failed: no");
        assert_eq!(group.wait(), Err("no"));

        let group = ErrGroup::<()>::new();
        let ctx = group.context().clone();
        group.go(|| Ok(()));
        oxigo::yield_now();
        assert!(ctx.err().is_none());
        group.wait().unwrap();
        assert!(ctx.cause().unwrap().is::<ContextError>());

        let (outer, cancel) = Context::background().with_cancel();
        let group = ErrGroup::with_context(&outer);
        let ctx = group.context().clone();
        group.go(move || ctx.sleep(LONG));
        cancel.cancel();
        assert_eq!(group.wait(), Err(ContextError::Canceled));

        let group = ErrGroup::<()>::new();
        let ctx = group.context().clone();
        drop(group);
        assert!(ctx.err().is_some());
    });
}

/// Of what the cause says something: of errors whose types are well known.
#[test]
fn eg_02_the_cause_says_what_the_error_says() {
    fn cause_of<E: Send + 'static>(error: E) -> String {
        let group = ErrGroup::new();
        let ctx = group.context().clone();
        group.go(move || Err(error));
        assert!(group.wait().is_err());
        ctx.cause().unwrap().to_string()
    }
    struct Opaque;
    at_1_2_4(|| {
        assert_eq!(cause_of("a"), "a task of the group has failed: a");
        assert_eq!(cause_of(String::from("b")), "a task of the group has failed: b");
        assert_eq!(cause_of(std::io::Error::other("c")), "a task of the group has failed: c");
        assert_eq!(
            cause_of::<Box<dyn std::error::Error + Send + Sync>>("d".into()),
            "a task of the group has failed: d"
        );
        assert_eq!(cause_of(Opaque), "a task of the group has failed");
    });
}

#[test]
fn eg_02_the_cause_is_made_from_the_first_error() {
    #[derive(Clone, Debug, PartialEq)]
    struct Failed(usize);
    impl fmt::Display for Failed {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "task {} failed", self.0)
        }
    }
    impl Error for Failed {}

    at_1_2_4(|| {
        for _ in 0..50 {
            let mut group = ErrGroup::new();
            group.set_cause(Failed::clone);
            let ctx = group.context().clone();
            (0..4).for_each(|n| group.go(move || Err(Failed(n))));
            let first = group.wait().unwrap_err();
            assert_eq!(ctx.cause().unwrap().downcast_ref(), Some(&first));
        }

        let mut group = ErrGroup::<u8>::new();
        group.set_cause(|_| -> String { panic!("no cause") });
        let ctx = group.context().clone();
        group.go(|| Err(1));
        let payload = catch_unwind(AssertUnwindSafe(|| group.wait())).unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "no cause");
        assert!(ctx.cause().unwrap().is::<TaskFailed>());
    });
}

#[test]
fn eg_03_no_more_than_the_limit_are_active() {
    at_1_2_4(|| {
        let group = ErrGroup::<()>::with_limit(10);
        let active = Arc::new(AtomicUsize::new(0));
        for _ in 0..1025 {
            let active = Arc::clone(&active);
            group.go(move || {
                assert!(active.fetch_add(1, SeqCst) < 10);
                oxigo::yield_now();
                active.fetch_sub(1, SeqCst);
                Ok(())
            });
        }
        group.wait().unwrap();
    });
}

#[test]
fn eg_04_try_go_refuses_instead_of_waiting() {
    at_1_2_4(|| {
        let group = ErrGroup::<()>::with_limit(2);
        let (release, held) = unbuffered::<()>();
        for _ in 0..2 {
            let held = held.clone();
            assert!(group.try_go(move || {
                let _ = held.recv();
                Ok(())
            }));
        }
        assert!(!group.try_go(|| unreachable!()));
        release.send(()).unwrap();
        // Waits for the place that is left now.
        group.go(|| Ok(()));
        drop(release);
        group.wait().unwrap();

        let none = ErrGroup::<()>::with_limit(0);
        assert!(!none.try_go(|| unreachable!()));
        let unlimited = ErrGroup::<()>::default();
        assert!((0..100).all(|_| unlimited.try_go(|| Ok(()))));
        unlimited.wait().unwrap();
    });
}

#[test]
fn eg_05_changing_the_limit_while_tasks_are_active_panics() {
    rt(1, || {
        let mut group = ErrGroup::<()>::with_limit(1);
        let (release, held) = unbuffered::<()>();
        group.go(move || {
            let _ = held.recv();
            Ok(())
        });
        let payload = catch_unwind(AssertUnwindSafe(|| group.set_limit(2))).unwrap_err();
        assert!(payload.downcast_ref::<String>().unwrap().ends_with("while 1 task is active"));
        drop(release);
        // Waits until the first one's place is free.
        group.go(|| Ok(()));
        group.wait().unwrap();
    });
}

#[test]
fn eg_06_a_panic_ends_the_context_and_is_raised_by_wait() {
    at_1_2_4(|| {
        let group = ErrGroup::with_limit(2);
        let ctx = group.context().clone();
        let inner = ctx.clone();
        group.go(move || inner.sleep(LONG));
        group.go(|| panic!("a task panics"));
        let payload = catch_unwind(AssertUnwindSafe(|| group.wait())).unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "a task panics");
        assert!(ctx.err().is_some());
    });
}

#[test]
fn eg_07_an_empty_group_is_done() {
    assert_eq!(ErrGroup::<()>::default().wait(), Ok(()));
}
