//! The feature `tracing`: spans belong to the goroutine that has entered them, whoever runs on its thread meanwhile.

mod common;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, Once,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use common::{at_1_2_4, child, is_child, rt};
use oxigo::{Receiver, go, unbuffered};
use tracing::{Subscriber, info, info_span};
use tracing_subscriber::{
    Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

/// What was recorded: each event's message with the names of its spans from the root on.
static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recording;

#[derive(Default)]
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recording {
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let mut line = String::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            line.push_str(span.name());
            line.push('>');
        }
        EVENTS.lock().unwrap().push(line + &message.0);
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recording)).unwrap();
    });
}

/// The events of one test.
fn recorded(prefix: &str) -> Vec<String> {
    EVENTS.lock().unwrap().iter().filter(|event| event.contains(prefix)).cloned().collect()
}

#[test]
fn spans_follow_the_goroutine() {
    install();
    for (round, workers) in [1, 2, 4].into_iter().enumerate() {
        let test = format!("follow{round}");
        rt(workers, || {
            let (tx, rx) = unbuffered::<()>();
            let first = go({
                let test = test.clone();
                move || {
                    let outer = info_span!("first").entered();
                    for _ in 0..20 {
                        let inner = info_span!("inner").entered();
                        rx.recv().unwrap();
                        info!("{test} in");
                        drop(inner);
                        oxigo::yield_now();
                        info!("{test} out");
                    }
                    drop(outer);
                    oxigo::yield_now();
                    info!("{test} bare");
                }
            });
            let second = go({
                let test = test.clone();
                move || {
                    let _span = info_span!("second").entered();
                    for _ in 0..20 {
                        tx.send(()).unwrap();
                        info!("{test} sent");
                        oxigo::time::sleep(std::time::Duration::from_micros(50));
                    }
                }
            });
            first.join().unwrap();
            second.join().unwrap();
        });
        let events = recorded(&test);
        assert_eq!(events.len(), 61);
        for (text, spans, count) in
            [("in", "first>inner>", 20), ("out", "first>", 20), ("bare", "", 1), ("sent", "second>", 20)]
        {
            let wanted = format!("{spans}{test} {text}");
            assert_eq!(events.iter().filter(|event| **event == wanted).count(), count, "{wanted}: {events:?}");
        }
    }
}

#[test]
fn goroutines_begin_outside_of_spans_and_leave_none_behind() {
    install();
    let test = "begin";
    at_1_2_4(|| {
        let _span = info_span!("starter").entered();
        go(move || {
            info!("{test} child");
            // Entered and never left: it goes with the goroutine.
            std::mem::forget(info_span!("forgotten").entered());
            oxigo::yield_now();
            info!("{test} after");
        })
        .join()
        .unwrap();
        go(move || info!("{test} next")).join().unwrap();
        info!("{test} starter");
    });
    let mut events = recorded(test);
    events.sort();
    let each = ["begin child", "begin next", "forgotten>begin after", "starter>begin starter"];
    let wanted: Vec<_> = each.iter().flat_map(|event| [event, event, event]).collect();
    assert_eq!(events.iter().collect::<Vec<_>>(), wanted);
}

#[test]
fn a_span_that_only_being_entered_keeps_is_not_lost() {
    install();
    rt(1, || {
        let test = "kept";
        let outside = tracing::Span::current();
        assert!(outside.is_none());
        go(move || {
            let span = info_span!("kept span");
            // The same span twice, and parked in between.
            let _a = span.enter();
            let _b = span.enter();
            go(|| ()).join().unwrap();
            info!("{test} twice");
            drop(_b);
            oxigo::yield_now();
            info!("{test} once");
        })
        .join()
        .unwrap();
        assert_eq!(recorded(test), ["kept span>kept twice", "kept span>kept once"]);
    });
}

#[test]
fn spans_are_left_and_entered_during_an_unwinding() {
    install();
    struct Waits;
    impl Drop for Waits {
        fn drop(&mut self) {
            oxigo::time::sleep(std::time::Duration::from_millis(1));
            info!("unwinds here");
        }
    }
    rt(1, || {
        let failed = go(|| {
            let _span = info_span!("failing").entered();
            let _waits = Waits;
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(failed.join().is_err());
        info!("unwinds main");
    });
    assert_eq!(recorded("unwinds"), ["failing>unwinds here", "unwinds main"]);
}

/// Others hold addresses of the frames that an unwinding out of a wait would leave; that somebody unwinds already is no excuse.
#[test]
fn a_subscriber_that_panics_ends_the_process_also_during_an_unwinding() {
    const NAME: &str = "a_subscriber_that_panics_ends_the_process_also_during_an_unwinding";
    struct Panics(AtomicBool);
    impl<S: Subscriber> Layer<S> for &'static Panics {
        fn on_exit(&self, _: &tracing::Id, _: Context<'_, S>) {
            assert!(!self.0.swap(false, SeqCst), "on purpose");
        }
    }
    static PANICS: Panics = Panics(AtomicBool::new(false));
    struct Waits(Receiver<u32>);
    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                let _span = info_span!("waits").entered();
                PANICS.0.store(true, SeqCst);
                self.0.recv()
            }));
        }
    }
    if is_child(NAME) {
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(&PANICS)).unwrap();
        rt(1, || {
            let (tx, rx) = unbuffered();
            let unwinds = go(move || {
                let _waits = Waits(rx);
                panic!("unwinds");
            });
            // Only who waits is met.
            while tx.try_send(1).is_err() {
                oxigo::yield_now();
            }
            let _ = unwinds.join();
        });
        return;
    }
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child(NAME).status.signal(), Some(libc::SIGABRT));
}
