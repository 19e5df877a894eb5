//! Questions that come at any moment, to workers that are not held at all.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    thread,
};

use super::*;
use crate::{Builder, Runtime, debug, runtime::wait::Reason, unbuffered};

/// A worker whose goroutines start, wait, wake each other and end all the time is asked again and again. The handler comes in the middle of
/// everything, and what it tells of a goroutine is true of that goroutine.
#[test]
fn dg_01_what_is_told_of_a_goroutine_is_its_own() {
    let runtime = Runtime::builder().workers(1).name("asked").build().unwrap();
    let processor = runtime.shared().processors()[0];
    let (over, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let busy = |kind: &'static str, wait: fn(u64)| {
        let (over, rounds) = (Arc::clone(&over), Arc::clone(&rounds));
        runtime.go(move || {
            while !over.load(Relaxed) {
                let round = rounds.fetch_add(1, Relaxed);
                let label = debug::label("of", format!("{kind} {round}"));
                let one = |_| Builder::new().name(format!("{kind} {round}")).spawn(move || wait(round)).unwrap();
                let many: Vec<_> = (0..3).map(one).collect();
                drop(label);
                many.into_iter().for_each(|one| one.join().unwrap());
            }
        })
    };
    let all_busy = [
        busy("sleep", |_| crate::time::sleep(Duration::from_micros(300))),
        busy("recv", |_| {
            let (tx, rx) = unbuffered();
            let sends = Builder::new().name("send 0".into()).spawn(move || tx.send(())).unwrap();
            rx.recv().unwrap();
            _ = sends.goroutine();
        }),
        busy("none", |_| crate::yield_now()),
        busy("join", |round| {
            let inner = Builder::new().name(format!("none {round}")).spawn(crate::yield_now);
            inner.unwrap().join().unwrap();
        }),
    ];
    let (mut told, mut kinds) = (0, HashMap::<String, usize>::new());
    let end = Instant::now() + Duration::from_millis(700);
    while Instant::now() < end || told < 1000 {
        let Some(Told { holder, others }) = all(processor, Program::Ends) else { continue };
        let mut ids: Vec<_> = others.iter().map(|entry| entry.id).chain(holder.map(|holder| holder.id)).collect();
        for entry in others {
            let Some(name) = &entry.name else { continue };
            let (kind, _) = name.split_once(' ').unwrap();
            let allowed: &[Reason] = match kind {
                "sleep" => &[Reason::Sleep],
                "recv" => &[Reason::ChanRecv],
                "send" => &[Reason::ChanSend],
                "join" => &[Reason::Join],
                _ => &[],
            };
            let reason = entry.wait.reason;
            assert!(reason == Reason::None || allowed.contains(&reason), "{entry:?}");
            assert_eq!(entry.joins.is_some(), reason == Reason::Join, "{entry:?}");
            assert!(entry.joins.is_none_or(|joins| joins != entry.id), "{entry:?}");
            assert!(entry.started_at.file().ends_with("question/tests.rs"), "{entry:?}");
            let label = entry.marks.as_ref().and_then(|marks| marks.label("of"));
            // What another kind has started has that one's.
            let inherits = |label: &str| match kind {
                "send" => label.starts_with("recv "),
                "none" => label == name || label.strip_prefix("join ") == name.strip_prefix("none "),
                _ => label == name,
            };
            assert!(label.is_none_or(inherits), "{entry:?}");
            assert!(entry.waited < Duration::from_secs(60), "{entry:?}");
            *kinds.entry(format!("{kind} {reason}, label {}", label.is_some())).or_default() += 1;
            told += 1;
        }
        let before = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), before, "somebody is told of twice");
    }
    over.store(true, Relaxed);
    all_busy.into_iter().for_each(|busy| busy.join().unwrap());
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort();
    println!("{told} in {} rounds: {kinds:?}", rounds.load(Relaxed));
    assert!(LATE.lock().unwrap().iter().all(|late| late.is_done()));
}

/// A question that is taken back leaves the mailbox to the next one, and one that was late gives back what it holds.
#[test]
fn a_thread_that_does_not_answer_costs_patience_only() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let processor = runtime.shared().processors()[0];
    let (begun, over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let deaf = runtime.go({
        let (begun, over) = (Arc::clone(&begun), Arc::clone(&over));
        move || {
            let urgent = |how| {
                let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
                // SAFETY: fills the set.
                unsafe { libc::sigemptyset(set.as_mut_ptr()) };
                // SAFETY: filled above.
                let mut set = unsafe { set.assume_init() };
                // SAFETY: a valid set and signal.
                unsafe { libc::sigaddset(&raw mut set, libc::SIGURG) };
                // SAFETY: a valid set.
                unsafe { libc::pthread_sigmask(how, &raw const set, ptr::null_mut()) };
            };
            urgent(libc::SIG_BLOCK);
            begun.store(true, Relaxed);
            while !over.load(Relaxed) {
                std::hint::spin_loop();
            }
            urgent(libc::SIG_UNBLOCK);
            crate::current().id()
        }
    });
    while !begun.load(Relaxed) {
        thread::sleep(PAUSE);
    }
    assert!(holder(processor).is_none() && holder(processor).is_none());
    assert!(processor.watch.mailbox.load(Relaxed).is_null());
    over.store(true, Relaxed);
    deaf.join().unwrap();
}

/// Of a program that goes on: also where the thread was not blocked yet when the first of many questions was put.
#[test]
fn a_call_that_blocks_is_interrupted_once() {
    const OTHERS: usize = 20 * LOT;
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let processor = runtime.shared().processors()[0];
    let (begun, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tx, rx) = unbuffered::<()>();
    let blocks = runtime.run({
        let (begun, asked) = (Arc::clone(&begun), Arc::clone(&asked));
        move || {
            let wait = |rx: crate::Receiver<()>| move || _ = rx.recv();
            (0..OTHERS).for_each(|_| _ = crate::go(wait(rx.clone())));
            while debug::metrics().parked < OTHERS {
                crate::yield_now();
            }
            crate::go(move || {
                begun.store(true, Relaxed);
                while !asked.load(Relaxed) {
                    std::hint::spin_loop();
                }
                let (mut interrupted, end) = (0, Instant::now() + Duration::from_secs(2));
                while Instant::now() < end {
                    // SAFETY: without descriptors.
                    interrupted += u32::from(unsafe { libc::poll(ptr::null_mut(), 0, 500) } < 0);
                }
                interrupted
            })
        }
    });
    while !begun.load(Relaxed) {
        thread::yield_now();
    }
    let told = thread::scope(|s| {
        s.spawn(|| {
            while processor.watch.mailbox.load(Relaxed).is_null() && !asked.load(Relaxed) {
                std::hint::spin_loop();
            }
            asked.store(true, Relaxed);
        });
        let told = all(processor, Program::GoesOn);
        asked.store(true, Relaxed);
        told
    });
    assert!(blocks.join().unwrap() <= 1);
    assert!(told.is_some());
    drop(tx);
}

/// The bound lies in the middle of a character.
#[test]
fn a_long_name_is_cut() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let processor = runtime.shared().processors()[0];
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let spins = runtime.run(move || {
        let name = format!("n{}", "é".repeat(40));
        Builder::new().name(name).spawn(move || {
            while !ends.load(Relaxed) {
                std::hint::spin_loop();
            }
        })
    });
    let end = Instant::now() + Duration::from_secs(20);
    let name = loop {
        assert!(Instant::now() < end, "nobody answers");
        if let Some(Holder { name: Some(name), .. }) = holder(processor) {
            break name;
        }
    };
    assert_eq!(name, format!("n{}…", "é".repeat(31)));
    over.store(true, Relaxed);
    spins.unwrap().join().unwrap();
}
