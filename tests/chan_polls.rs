//! C9 of `chan/glance.rs`: a receive that does not wait finds without the lock what it would find with it, whatever came before.

mod common;

use std::{
    collections::BTreeSet,
    env,
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{at_length, rt};
use oxigo::{
    Receiver, Sender, bounded,
    chan::{Select, SelectedOperation, TryRecvError, never},
    go, select, unbounded, yield_now,
};

/// Drops the operation, which has to panic.
fn drop_unused(operation: SelectedOperation<'_>) {
    assert!(catch_unwind(AssertUnwindSafe(|| drop(operation))).is_err());
}

/// What was sent, and what has become of it.
#[derive(Default)]
struct Sent(Mutex<BTreeSet<usize>>);

impl Sent {
    fn count(&self, value: usize, is_sent: bool) {
        if is_sent {
            assert!(self.0.lock().unwrap().insert(value));
        }
    }
}

/// One channel on one worker, its parties, and the operations that are chosen and not completed.
struct Polls<'a> {
    seed: u64,
    tx: &'a Sender<usize>,
    rx: &'a Receiver<usize>,
    has_buffer: bool,
    made: usize,
    sent: Arc<Sent>,
    got: BTreeSet<usize>,
    chosen_sends: Vec<SelectedOperation<'a>>,
    chosen_receives: Vec<SelectedOperation<'a>>,
    empty: usize,
    full: usize,
}

impl<'a> Polls<'a> {
    fn below(&mut self, end: usize) -> usize {
        // Marsaglia's xorshift.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % end as u64) as usize
    }

    fn value(&mut self) -> usize {
        self.made += 1;
        self.made
    }

    fn got(&mut self, value: usize) {
        assert!(self.got.insert(value), "{value} twice");
    }

    /// Sends on a goroutine of its own, which may wait.
    fn sends(&mut self, send: impl FnOnce(&Sender<usize>, usize) -> bool + Send + 'static) {
        let (tx, value, sent) = (self.tx.clone(), self.value(), Arc::clone(&self.sent));
        go(move || sent.count(value, send(&tx, value)));
    }

    fn choose_send(&mut self) {
        let mut select = Select::new();
        select.send(self.tx);
        self.chosen_sends.extend(select.try_select());
    }

    fn choose_receive(&mut self) {
        let mut select = Select::new();
        select.recv(self.rx);
        self.chosen_receives.extend(select.try_select());
    }

    fn take(&mut self, sends: bool) -> Option<SelectedOperation<'a>> {
        let len = if sends { self.chosen_sends.len() } else { self.chosen_receives.len() };
        let index = if len == 0 { return None } else { self.below(len) };
        Some(if sends { self.chosen_sends.remove(index) } else { self.chosen_receives.remove(index) })
    }

    fn step(&mut self) {
        match self.below(14) {
            0 => {
                let value = self.value();
                self.sent.count(value, self.tx.try_send(value).is_ok());
            }
            1 => self.sends(|tx, value| tx.send(value).is_ok()),
            2 => self.sends(|tx, value| tx.send_timeout(value, Duration::from_micros(1)).is_ok()),
            3 => self.sends(|tx, value| tx.send_timeout(value, Duration::from_secs(60)).is_ok()),
            4 => self.sends(
                |tx, value| select! { send(tx, value) -> sent => sent.is_ok(), recv(never::<()>()) -> _ => false },
            ),
            5 => self.sends(|tx, value| tx.send_many(vec![value]).is_ok()),
            6 => {
                // Without a buffer who polls waits for such a sender, so it never gives up there.
                let gives_up = self.has_buffer && self.below(2) == 0;
                self.sends(move |tx, value| {
                    let mut select = Select::new();
                    select.send(tx);
                    let operation = select.select();
                    if gives_up {
                        drop_unused(operation);
                        return false;
                    }
                    operation.send(tx, value).is_ok()
                });
            }
            7 => self.choose_send(),
            8 => self.choose_receive(),
            9 | 10 => {
                let keeps = self.below(2) == 0;
                if let Some(operation) = self.take(true) {
                    if keeps {
                        let value = self.value();
                        self.sent.count(value, operation.send(self.tx, value).is_ok());
                    } else {
                        drop_unused(operation);
                    }
                }
            }
            11 => {
                let keeps = self.below(2) == 0;
                if let Some(operation) = self.take(false) {
                    if keeps {
                        operation.recv(self.rx).into_iter().for_each(|value| self.got(value));
                    } else {
                        drop_unused(operation);
                    }
                }
            }
            12 => {
                while let Ok(value) = self.rx.try_recv() {
                    self.got(value);
                }
            }
            _ => {
                let mut values = Vec::new();
                if self.ready() && self.rx.recv_many(&mut values, 2).is_ok() {
                    values.into_iter().for_each(|value| self.got(value));
                }
            }
        }
    }

    /// The naive twin: with the lock.
    fn ready(&self) -> bool {
        let mut select = Select::new();
        select.recv(self.rx);
        select.try_ready().is_ok()
    }

    fn poll(&mut self) {
        let ready = self.ready();
        let polled = if self.below(2) == 0 {
            self.rx.try_recv()
        } else {
            select! {
                recv(self.rx) -> value => value.map_err(|_| TryRecvError::Disconnected),
                default => Err(TryRecvError::Empty),
            }
        };
        assert_eq!(ready, polled != Err(TryRecvError::Empty), "{polled:?}");
        match polled {
            Ok(value) => {
                self.full += 1;
                self.got(value);
            }
            Err(_) => self.empty += 1,
        }
    }
}

fn settle() {
    (0..50).for_each(|_| yield_now());
}

#[test]
fn random_polls_agree_with_a_look_under_the_lock() {
    let given = env::var("OXIGO_SEED").ok().and_then(|seed| seed.parse().ok());
    let counts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    for capacity in [Some(0), Some(1), Some(2), Some(4), None] {
        for seed in given.map_or(1..at_length(100, 600) as u64, |seed: u64| seed..seed + 1) {
            let run = || {
                rt(1, || {
                    let (tx, rx) = capacity.map_or_else(unbounded, bounded);
                    let mut polls = Polls {
                        seed: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
                        tx: &tx,
                        rx: &rx,
                        has_buffer: capacity != Some(0),
                        made: 0,
                        sent: Arc::default(),
                        got: BTreeSet::new(),
                        chosen_sends: Vec::new(),
                        chosen_receives: Vec::new(),
                        empty: 0,
                        full: 0,
                    };
                    for _ in 0..40 {
                        polls.step();
                        settle();
                        for _ in 0..polls.below(3) {
                            polls.poll();
                            settle();
                        }
                    }
                    if polls.below(2) == 0 {
                        tx.close().unwrap();
                        polls.poll();
                    }
                    // What is chosen is given up before and after the last polls.
                    while let Some(operation) = polls.take(true).or_else(|| polls.take(false)) {
                        drop_unused(operation);
                        settle();
                        polls.poll();
                    }
                    // Who waits may come to its turn only then.
                    settle();
                    while polls.ready() && polls.rx.try_recv().map(|value| polls.got(value)).is_ok() {
                        settle();
                    }
                    let sent = polls.sent.0.lock().unwrap().clone();
                    assert_eq!(polls.got, sent);
                    counts[0].fetch_add(polls.empty, SeqCst);
                    counts[1].fetch_add(polls.full, SeqCst);
                });
            };
            if let Err(payload) = catch_unwind(run) {
                eprintln!("capacity {capacity:?}, OXIGO_SEED={seed}");
                panic::resume_unwind(payload);
            }
        }
    }
    let [empty, full] = counts.map(AtomicUsize::into_inner);
    assert!(given.is_some() || empty.min(full) > 1000, "{empty} polls found nothing, {full} a value");
}
