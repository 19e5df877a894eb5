//! The feature `metrics`: what a recorder is given.

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use common::rt;
use metrics::{Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use oxigo::{debug, go};

/// One value, as a recorder keeps it.
#[derive(Default)]
struct Cell {
    value: AtomicU64,
    times: AtomicU64,
}

impl Cell {
    fn set(&self, value: u64) {
        self.value.store(value, SeqCst);
        self.times.fetch_add(1, SeqCst);
    }
}

impl CounterFn for Cell {
    fn increment(&self, _value: u64) {
        unreachable!("counts are absolute");
    }

    fn absolute(&self, value: u64) {
        self.set(value);
    }
}

impl GaugeFn for Cell {
    fn increment(&self, _value: f64) {
        unreachable!("gauges are set");
    }

    fn decrement(&self, _value: f64) {
        unreachable!("gauges are set");
    }

    fn set(&self, value: f64) {
        Cell::set(self, value as u64);
    }
}

/// What the recorder waits for once.
static HELD: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
static HELD_ENDED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<HashMap<String, Arc<Cell>>>>);

impl Kept {
    fn cell(&self, name: &str) -> Arc<Cell> {
        Arc::clone(self.0.lock().unwrap().entry(name.to_owned()).or_default())
    }
}

impl Recorder for Kept {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.cell(key.name()))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        let held = HELD.lock().unwrap().take();
        if let Some(held) = held {
            assert_eq!(
                held.recv_timeout(Duration::from_secs(20)),
                Err(RecvTimeoutError::Disconnected),
                "the worker is held"
            );
            HELD_ENDED.store(true, SeqCst);
        }
        Gauge::from_arc(self.cell(key.name()))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        unreachable!("nothing is published as a histogram");
    }
}

#[test]
fn what_is_counted_is_published() {
    let kept = Kept::default();
    metrics::set_global_recorder(kept.clone()).unwrap();
    rt(2, || {
        let waiting: Vec<_> = (0..5).map(|_| go(oxigo::park)).collect();
        while debug::metrics().parked < 5 {
            oxigo::time::sleep(Duration::from_millis(1));
        }
        debug::publish_metrics();
        assert_eq!(kept.cell("oxigo_workers").value.load(SeqCst), 2);
        assert_eq!(kept.cell("oxigo_goroutines").value.load(SeqCst), 6);
        assert!(kept.cell("oxigo_goroutines_parked").value.load(SeqCst) >= 5);
        assert_eq!(kept.cell("oxigo_goroutines_started_total").value.load(SeqCst), 6);
        assert!(kept.cell("oxigo_polls_total").value.load(SeqCst) > 0);
        waiting.iter().for_each(|handle| handle.goroutine().unpark());
        waiting.into_iter().for_each(|handle| handle.join().unwrap());

        let before = kept.cell("oxigo_goroutines").times.load(SeqCst);
        let publisher = debug::publish_metrics_every(Duration::from_millis(1)).unwrap();
        let begin = Instant::now();
        while kept.cell("oxigo_goroutines").times.load(SeqCst) < before + 3 {
            assert!(begin.elapsed() < Duration::from_secs(20));
            oxigo::time::sleep(Duration::from_millis(1));
        }
        drop(publisher);
        let after = kept.cell("oxigo_goroutines").times.load(SeqCst);
        oxigo::time::sleep(Duration::from_millis(10));
        assert_eq!(kept.cell("oxigo_goroutines").times.load(SeqCst), after);
    });

    // Whoever drops the publisher waits for the recorder, and leaves the worker to others meanwhile.
    rt(1, || {
        let (goes_on, held) = mpsc::channel();
        *HELD.lock().unwrap() = Some(held);
        let publisher = debug::publish_metrics_every(Duration::from_secs(60)).unwrap();
        while HELD.lock().unwrap().is_some() {
            oxigo::yield_now();
        }
        let other = go(move || drop(goes_on));
        drop(publisher);
        assert!(HELD_ENDED.load(SeqCst));
        other.join().unwrap();
    });
}
