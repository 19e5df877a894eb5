//! `RwLock`: readers together, writers alone, in turns; group RW of the conformance list.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, quiesce, rt};
use oxigo::{
    Builder,
    context::{Context, ContextError},
    go,
    sync::{Mutex, RwLock, RwLockCtx, RwLockUpgradableReadGuard, RwLockWriteGuard},
    yield_now,
};

/// HB-07 as well: the values are plain.
#[test]
fn rw_01_readers_together_writers_alone() {
    at_1_2_4(|| {
        let (lock, active) = (RwLock::new((0u32, 0u32)), AtomicI64::new(0));
        oxigo::scope(|s| {
            for i in 0..12 {
                let (lock, active) = (&lock, &active);
                s.go(move || {
                    for round in 0..300 {
                        if i < 3 {
                            let mut pair = lock.write();
                            assert_eq!(active.fetch_add(10_000, SeqCst), 0);
                            pair.0 += 1;
                            if round % 16 == 0 {
                                yield_now();
                            }
                            pair.1 += 1;
                            active.fetch_sub(10_000, SeqCst);
                        } else {
                            let pair = lock.read();
                            let now = active.fetch_add(1, SeqCst);
                            assert!((0..10_000).contains(&now));
                            assert_eq!(pair.0, pair.1);
                            if round % 16 == 0 {
                                yield_now();
                            }
                            active.fetch_sub(1, SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.try_write().expect("all are gone"), (900, 900));
    });
}

#[test]
fn rw_02_a_waiting_writer_holds_back_new_readers() {
    rt(1, || {
        let lock = Arc::new(RwLock::new(0));
        let reader = lock.read();
        let other = lock.clone();
        let writer = go(move || *other.write() = 1);
        quiesce();
        assert!(lock.try_read().is_none());
        assert!(lock.try_read_recursive().is_some());
        let other = lock.clone();
        let late = go(move || *other.read());
        quiesce();
        assert!(!late.is_finished());
        drop(reader);
        writer.join().unwrap();
        assert_eq!(late.join().unwrap(), 1, "the writer went first");
    });
}

#[test]
fn rw_03_readers_come_in_before_the_next_writer() {
    rt(1, || {
        let (lock, order) = (Arc::new(RwLock::new(())), Arc::new(Mutex::new(String::new())));
        let first = lock.write();
        let mut parties = Vec::new();
        for name in ['r', 'w', 'r', 'w', 'r'] {
            let (lock, order) = (lock.clone(), order.clone());
            parties.push(go(move || {
                if name == 'r' {
                    let _guard = lock.read();
                    order.lock().push(name);
                } else {
                    let _guard = lock.write();
                    order.lock().push(name);
                }
            }));
            quiesce();
        }
        drop(first);
        parties.into_iter().for_each(|party| party.join().unwrap());
        assert_eq!(*order.lock(), "rrrww");
    });
}

/// A writer whose turn is next holds nobody back before it has come for it: what else runs on its worker goes on reading, as in Go.
#[test]
fn rw_02_rw_03_readers_go_on_until_the_next_writer_comes() {
    for another_writes in [false, true] {
        rt(1, || {
            let lock = Arc::new(RwLock::new(0));
            let first = lock.write();
            let other = lock.clone();
            let reader = go(move || {
                assert_eq!(*other.read(), 0);
                // Both writers wait, and the first one has been called.
                assert_eq!(*other.read(), 0, "comes in without waiting");
                if another_writes {
                    let _written = other.try_write().expect("nobody holds it");
                    assert!(other.try_read_for(Duration::ZERO).is_none(), "a writer is alone");
                } else {
                    let read = other.read();
                    quiesce();
                    assert_eq!(*read, 0);
                    assert!(other.try_read_for(Duration::ZERO).is_none(), "now it waits");
                }
            });
            quiesce();
            let writers = [1, 2].map(|_| {
                let other = lock.clone();
                let writer = go(move || *other.write() += 1);
                quiesce();
                writer
            });
            drop(first);
            reader.join().unwrap();
            writers.into_iter().for_each(|writer| writer.join().unwrap());
            assert_eq!(*lock.try_read().expect("nobody waits"), 2);
        });
    }
}

/// Two goroutines that read and write in turn do not pass over a writer that waits, whichever of them is let in. Some thousand writes are done in the
/// millisecond after which it starves.
#[test]
fn rw_03_a_writer_is_not_passed_over_for_long() {
    rt(1, || {
        let lock = Arc::new(RwLock::new(()));
        let (written, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let others = [1, 2].map(|_| {
            let (lock, written, stop) = (lock.clone(), written.clone(), stop.clone());
            go(move || {
                while !stop.load(SeqCst) {
                    drop(lock.read());
                    let guard = lock.write();
                    written.fetch_add(1, SeqCst);
                    yield_now();
                    drop(guard);
                    yield_now();
                }
            })
        });
        for _ in 0..20 {
            quiesce();
            let before = written.load(SeqCst);
            drop(lock.write());
            let passed = written.load(SeqCst) - before;
            assert!(passed < 50_000, "{passed}");
        }
        stop.store(true, SeqCst);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

#[test]
fn rw_04_what_try_gives() {
    at_1_2_4(|| {
        let lock = RwLock::new(());
        let reader = lock.read();
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
        drop(reader);
        let writer = lock.write();
        assert!(lock.try_read().is_none() && lock.try_write().is_none() && lock.is_locked_exclusive());
        let reader = RwLockWriteGuard::downgrade(writer);
        assert!(lock.try_read().is_some() && lock.try_write().is_none());
        drop(reader);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_time_limits() {
    at_1_2_4(|| {
        let lock = Arc::new(RwLock::new(()));
        let reader = lock.read();
        let begin = Instant::now();
        assert!(lock.try_write_for(Duration::from_millis(10)).is_none());
        assert!(begin.elapsed() >= Duration::from_millis(10));
        // The writer that gave up holds nobody back.
        assert!(lock.try_read().is_some());
        drop(reader);
        let writer = lock.write();
        assert!(lock.try_read_for(Duration::from_millis(5)).is_none());
        assert!(lock.try_read_until(begin).is_none());
        drop(writer);
        assert!(lock.try_write_for(Duration::ZERO).is_some());
    });
}

/// Readers that wait behind a writer come in when it gives up.
#[test]
fn rwlock_a_writer_that_gives_up_lets_readers_in() {
    at_1_2_4(|| {
        let lock = Arc::new(RwLock::new(()));
        let held = lock.read();
        let (a, b) = (lock.clone(), lock.clone());
        let writer = go(move || a.try_write_for(Duration::from_millis(30)).is_none());
        while lock.try_read().is_some() && !writer.is_finished() {
            yield_now();
        }
        let reader = go(move || drop(b.read()));
        assert!(writer.join().unwrap());
        reader.join().unwrap();
        drop(held);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_time_limits_in_a_fight() {
    at_1_2_4(|| {
        let (lock, taken) = (RwLock::new(0usize), AtomicUsize::new(0));
        oxigo::scope(|s| {
            for i in 0..12u64 {
                let (lock, taken) = (&lock, &taken);
                s.go(move || {
                    for _ in 0..100 {
                        match i % 4 {
                            0 => drop(lock.try_read_for(Duration::from_micros(20 * i))),
                            1 => drop(lock.read()),
                            2 => {
                                if let Some(mut value) = lock.try_write_for(Duration::from_micros(20 * i)) {
                                    *value += 1;
                                    taken.fetch_add(1, SeqCst);
                                    yield_now();
                                }
                            }
                            _ => {
                                *lock.write() += 1;
                                taken.fetch_add(1, SeqCst);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(*lock.try_read().expect("all are gone"), taken.load(SeqCst));
        assert!(lock.try_write().is_some());
    });
}

// ---- upgradable locks --------------------------------------------------------------------------------------------------

/// Where the parties of a test run.
#[derive(Clone, Copy)]
enum Home {
    Goroutines,
    Threads,
}

impl Home {
    /// Runs all `parties` beside `main`, and returns when they have ended.
    fn together<'a>(self, parties: Vec<Box<dyn FnOnce() + Send + 'a>>, main: impl FnOnce()) {
        match self {
            Self::Goroutines => oxigo::scope(|s| {
                parties.into_iter().for_each(|party| drop(s.go(party)));
                main();
            }),
            Self::Threads => std::thread::scope(|s| {
                parties.into_iter().for_each(|party| drop(s.spawn(party)));
                main();
            }),
        }
    }
}

/// Runs `test` with goroutines at 1, 2 and 4 workers, and with plain threads.
fn everywhere(test: impl Fn(Home) + Sync) {
    at_1_2_4(|| test(Home::Goroutines));
    test(Home::Threads);
}

fn party<'a>(body: impl FnOnce() + Send + 'a) -> Box<dyn FnOnce() + Send + 'a> {
    Box::new(body)
}

/// Until `condition` holds, which another party is about to see to.
fn wait_until(mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < Duration::from_secs(60), "this does not come about");
        yield_now();
    }
}

#[test]
fn rwlock_one_upgradable_beside_readers() {
    everywhere(|_| {
        let lock = RwLock::new(1);
        let upgradable = lock.upgradable_read();
        assert!(lock.is_locked() && !lock.is_locked_exclusive());
        assert!(lock.try_upgradable_read().is_none() && lock.try_write().is_none());
        assert_eq!(*lock.try_read().expect("readers may share") + *lock.read() + *upgradable, 3);
        drop(upgradable);
        let reader = lock.read();
        let upgradable = lock.try_upgradable_read().expect("it shares with readers");
        drop(reader);
        assert!(lock.try_write().is_none());
        drop(upgradable);
        let writer = lock.write();
        assert!(lock.try_upgradable_read().is_none());
        drop(writer);
        assert!(!lock.is_locked());
    });
}

#[test]
fn rwlock_an_upgrade_waits_for_the_readers_and_holds_back_new_ones() {
    everywhere(|home| {
        let (lock, turned_away, late) = (RwLock::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let reader = lock.read();
        let upgrades = party(|| {
            let upgradable = lock.upgradable_read();
            let mut writer = RwLockUpgradableReadGuard::upgrade(upgradable);
            assert!(lock.is_locked_exclusive());
            *writer = 1;
            yield_now();
            *writer = 2;
        });
        let reads = party(|| {
            wait_until(|| lock.try_read().is_none());
            turned_away.store(1, SeqCst);
            late.store(*lock.read(), SeqCst);
        });
        home.together(vec![upgrades, reads], || {
            wait_until(|| turned_away.load(SeqCst) == 1);
            assert_eq!(*reader + *lock.try_read_recursive().expect("recursive readers come in"), 0);
            drop(reader);
        });
        assert_eq!(late.load(SeqCst), 2, "the upgrade went first");
    });
}

#[test]
fn rwlock_an_upgrade_goes_before_a_writer_that_waits() {
    everywhere(|home| {
        let lock = RwLock::new("nobody");
        let reader = lock.read();
        let upgrades = party(|| {
            let upgradable = lock.upgradable_read();
            // Only a writer that waits turns readers away now.
            wait_until(|| lock.try_read().is_none());
            let mut writer = RwLockUpgradableReadGuard::upgrade(upgradable);
            assert_eq!(*writer, "nobody");
            *writer = "upgrade";
        });
        let writes = party(|| {
            wait_until(|| lock.try_upgradable_read().is_none());
            let mut writer = lock.write();
            assert_eq!(*writer, "upgrade");
            *writer = "writer";
        });
        home.together(vec![upgrades, writes], || {
            wait_until(|| lock.try_read().is_none());
            // Lets the upgrade begin, at least on one worker.
            (0..10).for_each(|_| yield_now());
            drop(reader);
        });
        assert_eq!(*lock.read(), "writer");
    });
}

#[test]
fn rwlock_an_upgrade_that_fails_keeps_the_lock() {
    everywhere(|_| {
        let lock = RwLock::new(0);
        let (reader, upgradable) = (lock.read(), lock.upgradable_read());
        let upgradable = RwLockUpgradableReadGuard::try_upgrade(upgradable).expect_err("a reader is there");
        let begin = Instant::now();
        let upgradable = RwLockUpgradableReadGuard::try_upgrade_for(upgradable, Duration::from_millis(5))
            .expect_err("a reader is there");
        assert!(begin.elapsed() >= Duration::from_millis(5));
        let mut upgradable =
            RwLockUpgradableReadGuard::try_upgrade_until(upgradable, begin).expect_err("a reader is there");
        assert!(upgradable.try_with_upgraded(|_| ()).is_none());
        assert!(upgradable.try_with_upgraded_for(Duration::from_millis(1), |_| ()).is_none());
        assert!(lock.try_read().is_some(), "an upgrade that gave up holds nobody back");
        assert!(lock.try_upgradable_read().is_none() && lock.try_write().is_none(), "it holds the lock as before");
        drop(reader);
        *RwLockUpgradableReadGuard::try_upgrade(upgradable).expect("alone") += 1;
        assert_eq!(*lock.try_write().expect("nobody"), 1);
        let upgradable = lock.upgradable_read();
        assert!(RwLockUpgradableReadGuard::try_upgrade_for(upgradable, Duration::ZERO).is_ok());
    });
}

/// Readers that wait for an upgrade come in when it gives up, not when it lets go of what it still holds.
#[test]
fn rwlock_an_upgrade_that_gives_up_lets_readers_in() {
    everywhere(|home| {
        let (lock, begun, read) = (RwLock::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let held = lock.read();
        let upgrades = party(|| {
            let upgradable = lock.upgradable_read();
            begun.store(1, SeqCst);
            let upgradable =
                RwLockUpgradableReadGuard::try_upgrade_for(upgradable, Duration::from_millis(30)).unwrap_err();
            begun.store(2, SeqCst);
            wait_until(|| read.load(SeqCst) == 1);
            drop(upgradable);
        });
        let reads = party(|| {
            wait_until(|| begun.load(SeqCst) == 2 || lock.try_read().is_none());
            drop(lock.read());
            read.store(1, SeqCst);
        });
        home.together(vec![upgrades, reads], || wait_until(|| read.load(SeqCst) == 1));
        drop(held);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_upgradable_time_limits() {
    everywhere(|home| {
        let lock = RwLock::new(());
        let held = lock.upgradable_read();
        let others = party(|| {
            let begin = Instant::now();
            assert!(lock.try_upgradable_read_for(Duration::from_millis(5)).is_none());
            assert!(begin.elapsed() >= Duration::from_millis(5));
            assert!(lock.try_upgradable_read_until(begin).is_none());
            assert!(lock.try_write_for(Duration::from_millis(1)).is_none());
            assert!(lock.try_read_for(Duration::ZERO).is_some());
        });
        home.together(vec![others], || ());
        drop(held);
        assert!(lock.try_upgradable_read_for(Duration::ZERO).is_some());
    });
}

#[test]
fn rwlock_upgradable_with_a_context() {
    everywhere(|home| {
        let lock = RwLock::new(());
        let held = lock.upgradable_read();
        let (ctx, cancel) = Context::background().with_cancel();
        let waits = party(|| assert_eq!(lock.upgradable_read_ctx(&ctx).map(drop), Err(ContextError::Canceled)));
        home.together(vec![waits], || cancel.cancel());
        assert!(lock.try_read().is_some() && lock.try_upgradable_read().is_none());
        drop(held);
        assert!(lock.upgradable_read_ctx(&ctx).is_err(), "the context comes first");
        assert!(lock.upgradable_read_ctx(&Context::background()).is_ok());
    });
}

/// A writer was called whose worker another goroutine holds: others that write meanwhile kept readers out for as long as that lasted.
#[test]
fn rwlock_a_called_writer_that_does_not_come_holds_nobody_up() {
    const TURNS: usize = 3;
    rt(2, || {
        let (lock, reads, queued) = (Arc::new(RwLock::new(0)), AtomicUsize::new(0), AtomicUsize::new(0));
        let (reads, queued, begin) = (&reads, &queued, Instant::now());
        let goes_on = || reads.load(SeqCst) < TURNS && begin.elapsed() < Duration::from_secs(10);
        let held = lock.write();
        oxigo::scope(|s| {
            let holder = lock.clone();
            let holds = move || {
                let called = go(move || *holder.write() += 1);
                // It runs, and queues.
                oxigo::time::sleep(Duration::from_millis(5));
                queued.store(1, SeqCst);
                while goes_on() {
                    std::hint::spin_loop();
                }
                called.join().unwrap();
            };
            s.spawn(Builder::new().spread(), holds).unwrap();
            while queued.load(SeqCst) == 0 {
                yield_now();
            }
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    while goes_on() {
                        drop(lock.read());
                        reads.fetch_add(1, SeqCst);
                    }
                });
                drop(held);
                while goes_on() {
                    // Who queued would have to wait for that one.
                    if let Some(mut value) = lock.try_write() {
                        *value += 1;
                    }
                    std::thread::sleep(Duration::from_micros(50));
                }
            });
        });
        assert!(reads.load(SeqCst) >= TURNS, "{} in {:?}", reads.load(SeqCst), begin.elapsed());
    });
}

/// A writer that gives up lets in the upgradable reader that it held back.
#[test]
fn rwlock_a_writer_that_gives_up_lets_the_upgradable_in() {
    everywhere(|home| {
        let (lock, gone) = (RwLock::new(()), AtomicUsize::new(0));
        let held = lock.read();
        let writes = party(|| {
            assert!(lock.try_write_for(Duration::from_millis(30)).is_none());
            gone.store(1, SeqCst);
        });
        let (first, second) = (
            party(|| {
                wait_until(|| gone.load(SeqCst) == 1 || lock.try_read().is_none());
                drop(lock.upgradable_read());
            }),
            party(|| {
                wait_until(|| gone.load(SeqCst) == 1 || lock.try_read().is_none());
                drop(lock.upgradable_read());
            }),
        );
        home.together(vec![writes, first, second], || ());
        drop(held);
        assert!(lock.try_write().is_some());
    });
}

#[test]
fn rwlock_upgradables_come_in_order_and_in_turn_with_writers() {
    let cases: [(&str, &[usize]); 4] = [
        ("uuu", &[0, 1, 2]),
        ("uwu", &[1, 0, 2]),
        // The first reader comes in beside the lock that is held.
        ("urwru", &[1, 2, 3, 0, 4]),
        // The first upgrade goes before the second writer, the second one does not.
        ("wuruw", &[0, 2, 1, 4, 3]),
    ];
    for (arrive, served) in cases {
        rt(1, || {
            let (lock, order) = (Arc::new(RwLock::new(())), Arc::new(Mutex::new(Vec::new())));
            let held = lock.upgradable_read();
            let mut parties = Vec::new();
            for (i, kind) in arrive.chars().enumerate() {
                let (lock, order) = (lock.clone(), order.clone());
                // `lock` would let others run first, where the slice is over: of those who hold it together another might come before.
                let served = move || order.try_lock().expect("one worker").push(i);
                parties.push(go(move || match kind {
                    'u' => {
                        let guard = lock.upgradable_read();
                        served();
                        drop(RwLockUpgradableReadGuard::upgrade(guard));
                    }
                    'w' => {
                        let _guard = lock.write();
                        served();
                    }
                    _ => {
                        let _guard = lock.read();
                        served();
                    }
                }));
                quiesce();
            }
            drop(held);
            parties.into_iter().for_each(|party| party.join().unwrap());
            assert_eq!(*order.lock(), served, "{arrive}");
        });
    }
}

/// Parties that upgrade all the time, two of them always in the queue, do not keep a writer out; nor readers.
#[test]
fn rwlock_upgrades_starve_nobody() {
    everywhere(|home| {
        let (lock, served) = (RwLock::new(()), AtomicUsize::new(0));
        let upgrades = || {
            wait_until(|| {
                let upgradable = lock.upgradable_read();
                yield_now();
                let writer = RwLockUpgradableReadGuard::upgrade(upgradable);
                yield_now();
                drop(writer);
                served.load(SeqCst) == 2
            });
        };
        let mut parties: Vec<_> = (0..3).map(|_| party(upgrades)).collect();
        parties.push(party(|| {
            (0..10).for_each(|_| drop(lock.write()));
            served.fetch_add(1, SeqCst);
        }));
        parties.push(party(|| {
            (0..10).for_each(|_| drop(lock.read()));
            served.fetch_add(1, SeqCst);
        }));
        home.together(parties, || ());
    });
}

#[test]
fn rwlock_downgrading() {
    everywhere(|home| {
        let lock = RwLock::new(1);
        // Upgradable to plain: the next upgradable one comes in beside it.
        let upgradable = lock.upgradable_read();
        let waits = party(|| assert_eq!(*lock.upgradable_read(), 1));
        home.together(vec![waits], || {
            let reader = RwLockUpgradableReadGuard::downgrade(upgradable);
            wait_until(|| lock.try_upgradable_read().is_some());
            assert!(lock.try_write().is_none());
            drop(reader);
        });
        // The writer to upgradable: readers come in, nobody else.
        let mut writer = lock.write();
        let begun = AtomicUsize::new(0);
        let reads = party(|| {
            begun.store(1, SeqCst);
            assert_eq!(*lock.read(), 2);
            begun.store(2, SeqCst);
        });
        home.together(vec![reads], || {
            wait_until(|| begun.load(SeqCst) == 1);
            *writer += 1;
            let upgradable = RwLockWriteGuard::downgrade_to_upgradable(writer);
            wait_until(|| begun.load(SeqCst) == 2);
            assert!(lock.try_write().is_none() && lock.try_upgradable_read().is_none() && lock.try_read().is_some());
            drop(upgradable);
        });
        // The writer to plain: the upgradable one that waits comes in.
        let writer = lock.write();
        let waits = party(|| {
            begun.store(3, SeqCst);
            drop(lock.upgradable_read());
            begun.store(4, SeqCst);
        });
        home.together(vec![waits], || {
            wait_until(|| begun.load(SeqCst) == 3);
            let reader = RwLockWriteGuard::downgrade(writer);
            wait_until(|| begun.load(SeqCst) == 4);
            drop(reader);
        });
        let mut upgradable = lock.upgradable_read();
        assert_eq!(upgradable.with_upgraded(|value| std::mem::replace(value, 7)), 2);
        assert!(lock.try_read().is_some() && lock.try_upgradable_read().is_none(), "upgradable again");
        assert_eq!(*upgradable, 7);
        RwLockUpgradableReadGuard::unlock_fair(upgradable);
        assert!(lock.try_write().is_some());
    });
}

/// A generator of numbers that need not be good.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % sides
    }
}

/// `OXIGO_SEED`, or another seed each time; printed, so that a failure shows it.
fn seed() -> u64 {
    let seed = std::env::var("OXIGO_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos()) | (now.as_secs() << 32)
    });
    eprintln!("OXIGO_SEED={seed}");
    seed
}

/// Who holds a lock, as anybody would write it down.
#[derive(Clone, Copy, Debug, Default)]
struct Twin {
    readers: u32,
    upgradable: bool,
    writer: bool,
}

impl Twin {
    fn may_read(self) -> bool {
        !self.writer
    }

    fn may_be_upgradable(self) -> bool {
        !self.writer && !self.upgradable
    }

    fn may_write(self) -> bool {
        self.may_be_upgradable() && self.readers == 0
    }

    fn may_upgrade(self) -> bool {
        self.readers == 0
    }
}

/// One party that holds any number of guards: nobody waits, so each attempt gives what the twin says.
#[test]
fn rwlock_tries_give_what_a_naive_twin_says() {
    let mut dice = Dice::new(seed());
    let (lock, mut twin, mut value) = (RwLock::new(0u64), Twin::default(), 0);
    let (mut readers, mut upgradable, mut writer) = (Vec::new(), None, None);
    for step in 0..20_000 {
        match dice.roll(14) {
            0 | 1 => {
                let guard = if dice.roll(2) == 0 { lock.try_read() } else { lock.try_read_recursive() };
                assert_eq!(guard.is_some(), twin.may_read(), "step {step}: {twin:?}");
                readers.extend(guard);
            }
            2 => {
                let guard = if dice.roll(2) == 0 {
                    lock.try_upgradable_read()
                } else {
                    lock.try_upgradable_read_for(Duration::ZERO)
                };
                assert_eq!(guard.is_some(), twin.may_be_upgradable(), "step {step}: {twin:?}");
                upgradable = upgradable.or(guard);
            }
            3 => {
                let guard = if dice.roll(2) == 0 { lock.try_write() } else { lock.try_write_for(Duration::ZERO) };
                assert_eq!(guard.is_some(), twin.may_write(), "step {step}: {twin:?}");
                writer = writer.or(guard);
            }
            4..=7 => {
                if !readers.is_empty() {
                    drop(readers.swap_remove(dice.roll(readers.len() as u64) as usize));
                }
            }
            8 => drop(upgradable.take()),
            9 => drop(writer.take()),
            10 => {
                if let Some(guard) = upgradable.take() {
                    let result = if dice.roll(2) == 0 {
                        RwLockUpgradableReadGuard::try_upgrade(guard)
                    } else {
                        RwLockUpgradableReadGuard::try_upgrade_for(guard, Duration::ZERO)
                    };
                    assert_eq!(result.is_ok(), twin.may_upgrade(), "step {step}: {twin:?}");
                    match result {
                        Ok(guard) => writer = Some(guard),
                        Err(guard) => upgradable = Some(guard),
                    }
                }
            }
            11 => {
                if let Some(guard) = &mut upgradable {
                    let done = guard.try_with_upgraded(|value| *value += 1).is_some();
                    assert_eq!(done, twin.may_upgrade(), "step {step}: {twin:?}");
                    value += u64::from(done);
                }
            }
            12 => {
                if let Some(mut guard) = writer.take() {
                    *guard += 1;
                    value += 1;
                    upgradable = Some(RwLockWriteGuard::downgrade_to_upgradable(guard));
                }
            }
            _ => {
                readers.extend(upgradable.take().map(RwLockUpgradableReadGuard::downgrade));
                readers.extend(writer.take().map(RwLockWriteGuard::downgrade));
            }
        }
        twin = Twin { readers: readers.len() as u32, upgradable: upgradable.is_some(), writer: writer.is_some() };
        let seen =
            readers.first().map(|guard| **guard).or(upgradable.as_deref().copied()).or(writer.as_deref().copied());
        assert!(seen.is_none_or(|seen| seen == value), "step {step}: {seen:?} for {value}");
        let free = twin.may_write();
        assert_eq!((lock.is_locked(), lock.is_locked_exclusive()), (!free, twin.writer), "step {step}: {twin:?}");
    }
}

/// Many parties at once. Each writes down what it holds after it got it and before it lets go of it, so that the twin never has too much.
#[test]
fn rwlock_a_fight_that_a_naive_twin_watches() {
    let seed = seed();
    everywhere(|home| {
        let (lock, twin) = (RwLock::new(0usize), std::sync::Mutex::new(Twin::default()));
        let note = |change: &dyn Fn(&mut Twin)| change(&mut twin.lock().unwrap());
        let enter_upgradable = |twin: &mut Twin| {
            assert!(twin.may_be_upgradable(), "{twin:?}");
            twin.upgradable = true;
        };
        let enter_writer = |twin: &mut Twin| {
            assert!(twin.may_write(), "{twin:?}");
            twin.writer = true;
        };
        let enter_reader = |twin: &mut Twin| {
            assert!(twin.may_read(), "{twin:?}");
            twin.readers += 1;
        };
        let upgraded = |twin: &mut Twin| {
            assert!(twin.upgradable && twin.may_upgrade(), "{twin:?}");
            *twin = Twin { readers: 0, upgradable: false, writer: true };
        };
        let written = AtomicUsize::new(0);
        let fight = |i: u64| {
            let mut dice = Dice::new(seed.wrapping_mul(2 * i + 1));
            let write = |value: &mut usize, dice: &mut Dice| {
                *value += 1;
                written.fetch_add(1, SeqCst);
                if dice.roll(4) == 0 {
                    yield_now();
                }
            };
            for _ in 0..150 {
                let limit = Duration::from_micros(dice.roll(100));
                match dice.roll(8) {
                    0..=2 => {
                        let guard = if dice.roll(2) == 0 { Some(lock.read()) } else { lock.try_read_for(limit) };
                        if let Some(guard) = guard {
                            note(&enter_reader);
                            if dice.roll(4) == 0 {
                                yield_now();
                            }
                            note(&|twin| twin.readers -= 1);
                            drop(guard);
                        }
                    }
                    3 | 4 => {
                        let guard = if dice.roll(2) == 0 { Some(lock.write()) } else { lock.try_write_for(limit) };
                        let Some(mut guard) = guard else { continue };
                        note(&enter_writer);
                        write(&mut guard, &mut dice);
                        match dice.roll(3) {
                            0 => {
                                note(&|twin| *twin = Twin { upgradable: true, ..Twin::default() });
                                let guard = RwLockWriteGuard::downgrade_to_upgradable(guard);
                                yield_now();
                                note(&|twin| twin.upgradable = false);
                                drop(guard);
                            }
                            1 => {
                                note(&|twin| *twin = Twin { readers: 1, ..Twin::default() });
                                let guard = RwLockWriteGuard::downgrade(guard);
                                note(&|twin| twin.readers -= 1);
                                drop(guard);
                            }
                            _ => {
                                note(&|twin| twin.writer = false);
                                drop(guard);
                            }
                        }
                    }
                    _ => {
                        let guard = if dice.roll(2) == 0 {
                            Some(lock.upgradable_read())
                        } else {
                            lock.try_upgradable_read_for(limit)
                        };
                        let Some(guard) = guard else { continue };
                        note(&enter_upgradable);
                        let seen = *guard;
                        if dice.roll(4) == 0 {
                            yield_now();
                        }
                        let result = match dice.roll(4) {
                            0 => Err(guard),
                            1 => RwLockUpgradableReadGuard::try_upgrade(guard),
                            2 => RwLockUpgradableReadGuard::try_upgrade_for(guard, limit),
                            _ => Ok(RwLockUpgradableReadGuard::upgrade(guard)),
                        };
                        match result {
                            Ok(mut guard) => {
                                note(&upgraded);
                                assert_eq!(*guard, seen, "nobody wrote in between");
                                write(&mut guard, &mut dice);
                                note(&|twin| twin.writer = false);
                                drop(guard);
                            }
                            Err(guard) if dice.roll(2) == 0 => {
                                note(&|twin| *twin = Twin { readers: twin.readers + 1, upgradable: false, ..*twin });
                                let guard = RwLockUpgradableReadGuard::downgrade(guard);
                                assert_eq!(*guard, seen, "still no writer");
                                note(&|twin| twin.readers -= 1);
                                drop(guard);
                            }
                            Err(guard) => {
                                assert_eq!(*guard, seen, "still no writer");
                                note(&|twin| twin.upgradable = false);
                                drop(guard);
                            }
                        }
                    }
                }
            }
        };
        let fight = &fight;
        home.together((0..8).map(|i| party(move || fight(i))).collect(), || ());
        assert_eq!(*lock.try_write().expect("all are gone"), written.load(SeqCst));
        assert!(lock.try_upgradable_read().is_some());
    });
}

#[cfg(feature = "arc_lock")]
#[test]
fn rwlock_upgradable_guards_that_own_the_lock() {
    use oxigo::sync::ArcRwLockUpgradableReadGuard;
    everywhere(|_| {
        let lock = Arc::new(RwLock::new(1));
        let mut guard: ArcRwLockUpgradableReadGuard<i32> = lock.upgradable_read_arc();
        assert!(lock.try_upgradable_read_arc().is_none());
        guard.with_upgraded(|value| *value += 1);
        let writer = ArcRwLockUpgradableReadGuard::upgrade(guard);
        assert!(lock.is_locked_exclusive());
        drop(writer);
        assert_eq!(*lock.try_write().expect("nobody"), 2);
    });
}
