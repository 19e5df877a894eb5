//! Dumps: what they tell of each goroutine, that they disturb nobody, and that they never hang.

mod common;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{Builder, JoinHandle, Receiver, Runtime, Sender, WaitGroup, debug, go, unbuffered};

fn dump() -> String {
    let mut text = Vec::new();
    let out: &mut dyn Write = &mut text;
    debug::dump(out).unwrap();
    String::from_utf8(text).unwrap()
}

/// Dumps until `found` likes one: what was just started may not wait yet.
#[track_caller]
fn dump_until(found: impl Fn(&str) -> bool) -> String {
    let begin = Instant::now();
    loop {
        let text = dump();
        if found(&text) {
            return text;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{text}");
        oxigo::time::sleep(Duration::from_millis(5));
    }
}

/// Runs the test in a process of its own: a dump is of all runtimes. True in the parent, when the child has passed.
fn alone(name: &str) -> bool {
    if is_child(name) {
        return false;
    }
    let output = child(name);
    assert!(output.status.success(), "{}\n{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
    true
}

#[inline(never)]
fn inner_function(rx: &Receiver<()>) -> bool {
    rx.recv().is_err()
}

/// So many goroutines, parked until the sender is dropped.
fn parked(count: usize) -> (Sender<()>, Vec<JoinHandle<bool>>) {
    let (tx, rx) = unbuffered::<()>();
    let start = |_| {
        let rx = rx.clone();
        go(move || inner_function(&rx))
    };
    let many = (0..count).map(start).collect();
    while debug::metrics().parked < count {
        oxigo::time::sleep(Duration::from_millis(1));
    }
    (tx, many)
}

#[test]
fn dg_01_a_dump_tells_id_name_reason_time_start_and_trace() {
    if alone("dg_01_a_dump_tells_id_name_reason_time_start_and_trace") {
        return;
    }
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<()>();
        let waits = Builder::new().name("the reader".into()).spawn(move || inner_function(&rx)).unwrap();
        let headed = format!("goroutine {} [the reader]: chan receive on 0x", waits.id());
        let text = dump_until(|text| text.contains(&headed));
        let entry = &text[text.find(&headed).unwrap()..];
        let entry = &entry[..entry.find("\n\n").unwrap()];
        // Milliseconds, or seconds where the machine has much else to do.
        let heading = entry.lines().next().unwrap();
        assert!(heading.ends_with(" ms") || heading.ends_with(" s"), "{entry}");
        assert!(entry.contains("started at tests/dump.rs:"), "{entry}");
        assert!(entry.contains("inner_function"), "{entry}");
        assert!(!entry.contains("corosensei") && !entry.contains("scheduler"), "{entry}");
        // Whoever asks is listed, too, and the goroutine goes on as if nothing had been.
        assert!(text.contains("blocking call"), "{text}");
        drop(tx);
        assert!(waits.join().unwrap());
    });
}

#[test]
fn dg_01_the_time_of_a_wait_counts_while_everything_sleeps() {
    if alone("dg_01_the_time_of_a_wait_counts_while_everything_sleeps") {
        return;
    }
    let (tx, rx) = unbuffered::<()>();
    let waits = Builder::new().name("long".into()).spawn(move || rx.recv()).unwrap();
    dump_until(|text| text.contains("[long]: chan receive"));
    // The clock thread falls asleep meanwhile.
    std::thread::sleep(Duration::from_millis(1200));
    let text = dump();
    let line = text.lines().find(|line| line.contains("[long]")).unwrap();
    assert!(line.ends_with(" s"), "{line}");
    drop(tx);
    assert!(waits.join().unwrap().is_err());
}

#[test]
fn dg_02_wait_reasons_are_told_apart() {
    if alone("dg_02_wait_reasons_are_told_apart") {
        return;
    }
    rt(2, || {
        let (tx, rx) = unbuffered::<()>();
        let (full, other) = unbuffered::<()>();
        let group = Arc::new(WaitGroup::new());
        group.add(1);
        let listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        go({
            let rx = rx.clone();
            move || rx.recv()
        });
        go(move || full.send(()));
        go({
            let (a, b) = (rx.clone(), rx);
            move || {
                oxigo::select! { recv(a) -> _ => (), recv(b) -> _ => () }
            }
        });
        go(|| oxigo::select! {});
        go(|| oxigo::time::sleep(Duration::from_secs(600)));
        let parked = go(oxigo::park);
        go(move || parked.join());
        go({
            let group = Arc::clone(&group);
            move || group.wait()
        });
        go(move || listener.accept().map(drop));
        let reasons = [
            "chan receive on",
            "chan send on",
            "select",
            "select (no cases)",
            "sleep",
            "park",
            "join on",
            "WaitGroup.wait",
            "accept on",
            "blocking call",
        ];
        dump_until(|text| reasons.iter().all(|reason| text.contains(&format!(": {reason}"))));
        drop((tx, other));
    });
}

#[test]
fn dg_05_equal_traces_are_grouped_and_no_worker_stands_still() {
    if alone("dg_05_equal_traces_are_grouped_and_no_worker_stands_still") {
        return;
    }
    const MANY: usize = 20_000;
    rt(2, || {
        let (tx, many) = parked(MANY);
        // Beats on the workers that are being asked, and a dump meanwhile.
        let dumped_beside_beats = || {
            let stop = Arc::new(AtomicBool::new(false));
            let beats = go({
                let stop = Arc::clone(&stop);
                move || {
                    let mut worst = Duration::ZERO;
                    while !stop.load(SeqCst) {
                        let begin = Instant::now();
                        oxigo::yield_now();
                        worst = worst.max(begin.elapsed());
                    }
                    worst
                }
            });
            let text = dump();
            stop.store(true, SeqCst);
            (beats.join().unwrap(), text)
        };
        // The target is 10 ms; the machine that runs this may be busy with other things, so the best of several.
        let (worst, text) = (0..5)
            .map(|_| dumped_beside_beats())
            .inspect(|(worst, _)| println!("the longest time between two beats: {worst:?}"))
            .reduce(|best, other| if other.0 < best.0 { other } else { best })
            .unwrap();
        assert!(text.contains(&format!("and {} more like it: goroutines", MANY - 1)), "{text}");
        assert!(text.len() < 20_000, "{}", text.len());
        assert!(worst < Duration::from_millis(500), "{worst:?}");
        drop(tx);
        assert!(many.into_iter().all(|handle| handle.join().unwrap()));
    });
}

/// DG-01: those that wait for the same in the same place are written once, each with its name.
#[test]
fn dg_01_names_are_told_also_of_those_that_are_alike() {
    rt(1, || {
        // The last one has no name.
        let names = (0..=30).map(|n| (n < 30).then(|| format!("the {n}th")));
        let all: Vec<_> = names
            .map(|name| name.into_iter().fold(Builder::new(), Builder::name).spawn(oxigo::park).unwrap())
            .collect();
        common::quiesce();
        let text = dump();
        assert!(text.contains("and 30 more like it: goroutines"), "{text}");
        for n in 0..30 {
            assert!(text.contains(&format!("[the {n}th]")), "the {n}th is missing: {text}");
        }
        let id = format!(" {}, for ", all[30].goroutine().id());
        assert!(text.contains(&id), "{id} is missing: {text}");
        all.iter().for_each(|handle| handle.goroutine().unpark());
        all.into_iter().for_each(|handle| handle.join().unwrap());
    });
}

/// A runtime whose one worker is held by a goroutine.
fn held_until(stop: &Arc<AtomicBool>) -> (Runtime, JoinHandle<()>) {
    let stop = Arc::clone(stop);
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let held = runtime.go(move || {
        while !stop.load(SeqCst) {
            std::hint::spin_loop();
        }
    });
    (runtime, held)
}

#[test]
fn dg_01_a_held_worker_does_not_hold_the_dump() {
    if alone("dg_01_a_held_worker_does_not_hold_the_dump") {
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (_runtime, held) = held_until(&stop);
    let holder = format!("goroutine {}: running\n    started at tests/dump.rs:", held.id());
    // A thread that has no core does not answer in time who holds it.
    dump_until(|text| text.contains("is held") && (!cfg!(target_os = "linux") || text.contains(&holder)));
    stop.store(true, SeqCst);
    held.join().unwrap();
}

/// Whoever held a worker was named, and then counted again among those that could not be looked at.
#[test]
#[cfg(target_os = "linux")]
fn dg_01_who_holds_a_worker_is_not_counted_again() {
    if alone("dg_01_who_holds_a_worker_is_not_counted_again") {
        return;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (runtime, held) = held_until(&stop);
    let text = dump_until(|text| text.contains(": running"));
    assert!(!text.contains("more that"), "{text}");
    let waits = runtime.go(|| ());
    let text = dump_until(|text| text.contains(": running"));
    assert!(text.contains("and 1 more that has not started"), "{text}");
    stop.store(true, SeqCst);
    held.join().unwrap();
    waits.join().unwrap();
}

#[test]
fn sg_03_sigquit_prints_all_goroutines_and_ends_the_process() {
    const NAME: &str = "sg_03_sigquit_prints_all_goroutines_and_ends_the_process";
    if is_child(NAME) {
        let (_tx, rx) = unbuffered::<()>();
        let waits = Builder::new().name("for ever".into()).spawn(move || rx.recv()).unwrap();
        dump_until(|text| text.contains("[for ever]: chan receive"));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::QUIT).unwrap();
        let _ = waits.join();
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("SIGQUIT") && text.contains("[for ever]: chan receive on 0x"), "{text}");
}

/// A dump, a list and `leaks` of 100,000 parked goroutines: how long each takes, and for how long a worker was stopped at most.
///
/// `cargo test --release --test dump -- --ignored --nocapture --test-threads=1`
#[test]
#[ignore = "a measurement"]
fn dg_05_a_hundred_thousand_goroutines() {
    const MANY: usize = 100_000;
    rt(2, || {
        let (tx, many) = parked(MANY);
        // Processor time, since the machine may be busy with other things: what a worker does between two turns of this goroutine.
        let beats = |stop: Arc<AtomicBool>| {
            move || {
                let cpu = || {
                    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
                    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
                };
                let (mut worst, mut all) = (Duration::ZERO, Vec::new());
                while !stop.load(SeqCst) {
                    let begin = cpu();
                    oxigo::yield_now();
                    let beat = cpu() - begin;
                    worst = worst.max(beat);
                    if beat > Duration::from_millis(1) {
                        all.push(beat);
                    }
                }
                all.sort();
                (worst, all.len(), all.get(all.len() / 2).copied().unwrap_or_default())
            }
        };
        let measure = |what: &str, look: &dyn Fn() -> usize| {
            for _ in 0..3 {
                let stop = Arc::new(AtomicBool::new(false));
                let beats: Vec<_> =
                    (0..2).map(|_| Builder::new().spread().spawn(beats(Arc::clone(&stop))).unwrap()).collect();
                let begin = Instant::now();
                let size = look();
                let took = begin.elapsed();
                stop.store(true, SeqCst);
                for (worker, beats) in beats.into_iter().enumerate() {
                    let (worst, turns, median) = beats.join().unwrap();
                    println!(
                        "{what}: {took:?}, {size} in all; worker {worker} stopped {turns} times, median {median:?}, at most {worst:?}"
                    );
                }
            }
        };
        measure("nothing", &|| {
            oxigo::time::sleep(Duration::from_millis(200));
            0
        });
        measure("dump", &|| dump().len());
        measure("leaks", &|| debug::leaks().len());
        let check = debug::leak_check().grace(Duration::ZERO);
        measure("leak check", &|| {
            let inner = debug::leak_check().grace(Duration::ZERO);
            let one = go(oxigo::park);
            let left = inner.end().unwrap_err();
            one.goroutine().unpark();
            left.len()
        });
        check.end().unwrap_or_default();
        drop(tx);
        assert!(many.into_iter().all(|handle| handle.join().unwrap()));
    });
}
