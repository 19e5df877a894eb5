//! Dumps of workers that a goroutine holds: the others that live there are told of, without back traces. On Linux, where a worker can be asked
//! by a signal.
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::HashSet,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{child, is_child, rt, stderr};
use oxigo::{Builder, Goroutine, debug, go, sync::Mutex, unbuffered};

fn dump() -> String {
    let mut text = Vec::new();
    debug::dump(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Runs the test in a process of its own, as a dump is of all runtimes. True in the parent, when the child has passed.
fn alone(name: &str) -> bool {
    if is_child(name) {
        return false;
    }
    let output = child(name);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{printed}", stderr(&output));
    println!("{printed}");
    true
}

/// Waits as a plain thread does: a goroutine that this is called on holds its worker.
fn until(what: impl Fn() -> bool) {
    let begin = Instant::now();
    while !what() {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not come about");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A goroutine that holds the worker of `beside` until `stop`. It has begun when this returns; called on another goroutine of that worker.
fn hold(beside: &Goroutine, stop: &Arc<AtomicBool>) -> oxigo::JoinHandle<()> {
    let (begun, stop) = (Arc::new(AtomicBool::new(false)), Arc::clone(stop));
    let begins = Arc::clone(&begun);
    let spins = Builder::new().name("spinner".into()).near(beside).spawn(move || {
        begins.store(true, SeqCst);
        while !stop.load(SeqCst) {
            std::hint::spin_loop();
        }
    });
    while !begun.load(SeqCst) {
        oxigo::yield_now();
    }
    spins.unwrap()
}

/// What stands in a dump under this heading, up to the next one.
fn entry<'a>(text: &'a str, heading: &str) -> &'a str {
    let Some(at) = text.find(heading) else { panic!("no {heading} in\n{text}") };
    text[at..].split("\n\n").next().unwrap()
}

/// The number behind `before`; 0 where it is not found.
fn number_behind(text: &str, before: &str) -> usize {
    let Some(at) = text.find(before) else { return 0 };
    text[at + before.len()..].split(' ').next().unwrap().parse().unwrap()
}

/// The goroutines that have a heading of their own.
fn headed(text: &str) -> Vec<u64> {
    let number = |line: &str| line.strip_prefix("goroutine ")?.split([' ', ':']).next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// Whether a goroutine is told of at all: those that the other workers have taken are, in the ordinary way, with others like them.
fn is_listed(text: &str, id: impl ToString) -> bool {
    let id = id.to_string();
    let mut likes = text.lines().filter(|line| line.contains(" more like it: goroutine"));
    headed(text).iter().any(|one| one.to_string() == id) || likes.any(|line| line.split(' ').any(|word| word == id))
}

/// The program of a user who found only "1 more that could not be looked at".
#[test]
fn dg_01_sigquit_names_who_sleeps_beside_one_that_spins() {
    const NAME: &str = "dg_01_sigquit_names_who_sleeps_beside_one_that_spins";
    if is_child(NAME) {
        static BEGUN: AtomicBool = AtomicBool::new(false);
        thread::spawn(|| {
            until(|| BEGUN.load(SeqCst));
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::QUIT).unwrap();
        });
        rt(1, || {
            let spins = Builder::new().name("spinner".into()).spawn(|| {
                BEGUN.store(true, SeqCst);
                loop {
                    std::hint::spin_loop();
                }
            });
            oxigo::time::sleep(Duration::from_secs(1000));
            drop(spins);
        });
    }
    let output = child(NAME);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(entry(&text, "[spinner]: running").contains("started at tests/dump_held.rs:"), "{text}");
    let main = entry(&text, "goroutine 1: sleep, ");
    // Milliseconds, or seconds where the machine has much else to do.
    let heading = main.lines().next().unwrap();
    assert!(heading.ends_with(" ms") || heading.ends_with(" s"), "{text}");
    assert!(main.contains("started at tests/common/mod.rs:"), "{text}");
    assert_eq!(text.matches("without back traces").count(), 1, "{text}");
    assert!(!text.contains("more that"), "{text}");
}

#[test]
fn dg_01_all_reasons_to_wait_beside_one_that_spins() {
    if alone("dg_01_all_reasons_to_wait_beside_one_that_spins") {
        return;
    }
    const KINDS: [&str; 6] =
        ["chan receive on 0x", "sleep, ", "Mutex.lock on 0x", "accept on 0x", "join on 0x", "chan send on 0x"];
    rt(2, || {
        let me = oxigo::current();
        let (tx, rx) = unbuffered::<()>();
        let (full, other) = unbuffered::<()>();
        let lock = Arc::new(Mutex::new(()));
        let locked = lock.lock();
        let listener = Arc::new(oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let labelled = debug::label("request", "17");
        let many: Vec<_> = (0..50)
            .map(|i| {
                let (rx, full, lock, listener) = (rx.clone(), full.clone(), Arc::clone(&lock), Arc::clone(&listener));
                let wait = move || match i % KINDS.len() {
                    0 => assert!(rx.recv().is_err()),
                    // Longer than the test, however slow the machine is.
                    1 => oxigo::time::sleep(Duration::from_secs(600)),
                    2 => drop(lock.lock()),
                    3 => {
                        listener.accept().unwrap();
                    }
                    4 => go(move || rx.recv().is_err()).join().map(drop).unwrap(),
                    _ => assert!(full.send(()).is_err()),
                };
                Builder::new().name(format!("waits {i}")).near(&me).spawn(wait).unwrap()
            })
            .collect();
        drop(labelled);
        // Those that are joined, too.
        while debug::metrics().parked < 50 + 8 {
            oxigo::time::sleep(Duration::from_millis(1));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let dumps = thread::spawn(move || {
            until(|| dump().contains("[spinner]: running"));
            let text = dump();
            stops.store(true, SeqCst);
            text
        });
        let spins = hold(&me, &stop);
        let (text, here) = (dumps.join().unwrap(), spins.id());
        spins.join().unwrap();
        let held = &text[text.find("is held").unwrap()..];
        assert!(entry(held, &format!("goroutine {here} [spinner]: running")).contains("started at"), "{text}");
        let mut beside = 0;
        for (i, waits) in many.iter().enumerate() {
            let kind = KINDS[i % KINDS.len()];
            let heading = format!("goroutine {} [waits {i}] {{request=17}}: ", waits.id());
            if !held.contains(&heading) {
                assert!(is_listed(&text, waits.id()), "{heading} is missing in\n{text}");
                continue;
            }
            beside += 1;
            let entry = entry(held, &format!("{heading}{kind}"));
            assert!(entry.contains("started at tests/dump_held.rs:"), "{entry}");
            assert_eq!(entry.contains(" (goroutine "), kind.starts_with("join"), "{entry}");
        }
        assert!(!text.contains("more that"), "{text}");
        println!("{beside} of {} were beside the one that spins", many.len());
        assert!(beside >= KINDS.len(), "{text}");
        // They have been asked in the middle of their waits, and none has heard of it.
        drop((tx, other, locked));
        let guests: Vec<_> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
        let wakes = |i: usize| i % KINDS.len() != 1;
        many.into_iter().enumerate().filter(|(i, _)| wakes(*i)).for_each(|(_, waits)| waits.join().unwrap());
        drop(guests);
    });
}

#[test]
fn dg_05_many_beside_one_that_spins() {
    if alone("dg_05_many_beside_one_that_spins") {
        return;
    }
    const MANY: usize = 10_000;
    rt(1, || {
        let (tx, rx) = unbuffered::<()>();
        let many: Vec<_> = (0..MANY)
            .map(|_| {
                let rx = rx.clone();
                go(move || rx.recv().is_err())
            })
            .collect();
        while debug::metrics().parked < MANY {
            oxigo::time::sleep(Duration::from_millis(1));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let dumps = thread::spawn(move || {
            // One that begins before the worker is held has asked some of them in the ordinary way.
            until(|| dump().contains("[spinner]: running"));
            let begin = Instant::now();
            let text = dump();
            stops.store(true, SeqCst);
            (begin.elapsed(), text)
        });
        let spins = hold(&oxigo::current(), &stop);
        spins.join().unwrap();
        let (took, text) = dumps.join().unwrap();
        println!("{took:?}");
        let (alike, left) = (number_behind(&text, "\n    and "), number_behind(&text, "\nand "));
        assert!(alike > 0 && alike + left == MANY - 1, "{alike} and {left} of\n{text}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        drop(tx);
        assert!(many.into_iter().all(|handle| handle.join().unwrap()));
    });
}

#[test]
fn dg_01_others_come_and_go_beside_a_worker_that_is_held() {
    if alone("dg_01_others_come_and_go_beside_a_worker_that_is_held") {
        return;
    }
    const WAIT: usize = 20;
    let (over, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let busy = {
        let (over, ended) = (Arc::clone(&over), Arc::clone(&ended));
        move || {
            while !over.load(SeqCst) {
                let short = |i| {
                    let ended = Arc::clone(&ended);
                    Builder::new().name(format!("short {i}")).spawn(move || ended.fetch_add(1, SeqCst)).unwrap()
                };
                (0..10).map(short).collect::<Vec<_>>().into_iter().for_each(|short| _ = short.join().unwrap());
            }
        }
    };
    rt(3, || {
        let me = oxigo::current();
        let (tx, rx) = unbuffered::<()>();
        let waits = |i| {
            let rx = rx.clone();
            Builder::new().name(format!("waits {i}")).near(&me).spawn(move || rx.recv().is_err()).unwrap()
        };
        let many: Vec<_> = (0..WAIT).map(waits).collect();
        while debug::metrics().parked < WAIT {
            oxigo::time::sleep(Duration::from_millis(1));
        }
        let busy: Vec<_> = (0..2).map(|_| Builder::new().spread().spawn(busy.clone()).unwrap()).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stops = Arc::clone(&stop);
        let dumps = thread::spawn(move || {
            until(|| dump().contains("[spinner]: running"));
            let texts: Vec<_> = (0..4).map(|_| dump()).collect();
            stops.store(true, SeqCst);
            texts
        });
        let spins = hold(&me, &stop);
        spins.join().unwrap();
        for text in dumps.join().unwrap() {
            for (i, waits) in many.iter().enumerate() {
                let named = text.contains(&format!("[waits {i}]: chan receive on 0x"));
                assert!(named || is_listed(&text, waits.id()), "waits {i} is missing in\n{text}");
            }
            let ids = headed(&text);
            assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len(), "somebody stands twice in\n{text}");
        }
        over.store(true, SeqCst);
        drop(tx);
        busy.into_iter().for_each(|busy| busy.join().unwrap());
        assert!(many.into_iter().all(|handle| handle.join().unwrap()));
        assert!(ended.load(SeqCst) > 0);
    });
}

/// A dump's patience ends after half a second: here a worker is held for just about as long, and others of it come and go before and after.
#[test]
fn dg_01_a_worker_is_released_while_it_is_asked() {
    if alone("dg_01_a_worker_is_released_while_it_is_asked") {
        return;
    }
    const DUMPS: usize = 10;
    const SHORT: usize = 20;
    let (held, begun, told) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let texts = rt(1, || {
        thread::scope(|scope| {
            let dumps = scope.spawn(|| {
                let dump = |number| {
                    until(|| held.load(SeqCst) == number);
                    begun.store(number, SeqCst);
                    let text = dump();
                    told.store(number, SeqCst);
                    text
                };
                (1..=DUMPS).map(dump).collect::<Vec<_>>()
            });
            for number in 1..=DUMPS {
                let (tx, rx) = unbuffered::<()>();
                let short = |i| {
                    let rx = rx.clone();
                    Builder::new().name(format!("short {i}")).spawn(move || rx.recv().is_err()).unwrap()
                };
                let short: Vec<_> = (0..SHORT).map(short).collect();
                while debug::metrics().parked < SHORT {
                    oxigo::time::sleep(Duration::from_millis(1));
                }
                held.store(number, SeqCst);
                while begun.load(SeqCst) < number {
                    std::hint::spin_loop();
                }
                common::compute(Duration::from_micros(499_900 + 300 * number as u64));
                // The last one finds it held for certain, unless it waits for it.
                let begin = Instant::now();
                while number == DUMPS && told.load(SeqCst) < DUMPS && begin.elapsed() < Duration::from_secs(30) {
                    std::hint::spin_loop();
                }
                drop(tx);
                assert!(short.into_iter().all(|short| short.join().unwrap()));
            }
            dumps.join().unwrap()
        })
    });
    for text in &texts {
        let ids = headed(text);
        assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len(), "somebody stands twice in\n{text}");
    }
    // Some come when the worker is held still, others when it is not any more.
    let beside =
        |text: &&String| text.contains("without back traces") && text.contains("[short 19]: chan receive on 0x");
    println!("{} of {DUMPS} dumps found the worker held", texts.iter().filter(beside).count());
    assert!(texts.iter().any(|text| beside(&text)), "{}", texts[DUMPS - 1]);
}

/// A worker that is blocked in the system may be in a call that a signal ends: one question, and no more.
#[test]
fn dg_01_a_worker_that_is_blocked_is_asked_and_goes_on() {
    if alone("dg_01_a_worker_that_is_blocked_is_asked_and_goes_on") {
        return;
    }
    rt(1, || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut from, _) = listener.accept().unwrap();
        let waits = Builder::new().name("beside".into()).spawn(oxigo::park).unwrap();
        while debug::metrics().parked < 1 {
            oxigo::yield_now();
        }
        let dumps = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            let text = dump();
            to.write_all(b"on").unwrap();
            to.shutdown(Shutdown::Both).unwrap();
            text
        });
        // Blocks the thread.
        let mut read = String::new();
        from.read_to_string(&mut read).unwrap();
        assert_eq!(read, "on");
        let text = dumps.join().unwrap();
        assert!(text.contains(": running\n") && text.contains("[beside]: park"), "{text}");
        waits.goroutine().unpark();
        waits.join().unwrap();
    });
}
