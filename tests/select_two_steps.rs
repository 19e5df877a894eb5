//! The two steps of the run-time `Select`: what holds between them, and when the second is not taken. CQ-01, CB-03, CU-02, CL-01.

mod common;

use std::{
    collections::BTreeMap,
    env, panic,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, child, everywhere, is_child, lets_others_run, quiesce, rt, stderr};
use oxigo::{
    JoinHandle, Receiver, Sender, bounded,
    chan::{
        RecvError, RecvTimeoutError, Select, SelectedOperation, SendError, SendTimeoutError, TryRecvError, after, never,
    },
    go, select,
    time::Timer,
    unbounded, unbuffered, yield_now,
};

const LONG: Duration = Duration::from_secs(60);

/// Chooses to send.
fn choose_send<T>(tx: &Sender<T>) -> SelectedOperation<'_> {
    let mut select = Select::new();
    select.send(tx);
    select.select()
}

/// Chooses to receive what is there.
fn choose_receive<T>(rx: &Receiver<T>) -> SelectedOperation<'_> {
    let mut select = Select::new();
    select.recv(rx);
    select.try_select().unwrap()
}

/// Drops the operation, which has to panic.
fn drop_unused(operation: SelectedOperation<'_>) {
    assert!(catch_unwind(AssertUnwindSafe(|| drop(operation))).is_err());
}

/// Waits until somebody receives from the channel of `tx`: a select that does so waits on all its channels.
fn wait_for_receiver(tx: &Sender<()>) {
    let mut select = Select::new();
    select.send(tx);
    assert_eq!(select.ready_timeout(LONG), Ok(0));
}

/// Two send to a full channel, first a run-time select and then a `select!`; each is known to wait.
fn two_wait_behind_the_head(
    start: impl Fn(Box<dyn FnOnce() + Send>),
    capacity: usize,
    between: impl Fn() + Copy + Send + 'static,
) -> Receiver<&'static str> {
    let (tx, rx) = bounded(capacity);
    (0..capacity).for_each(|_| tx.send("head").unwrap());
    let (first, first_waits) = (tx.clone(), unbuffered::<()>());
    let (keep, waits) = first_waits;
    start(Box::new(move || {
        let mut select = Select::new();
        let send = select.send(&first);
        select.recv(&waits);
        let operation = select.select();
        assert_eq!(operation.index(), send);
        between();
        operation.send(&first, "first").unwrap();
    }));
    wait_for_receiver(&keep);
    let (signal, waits) = unbuffered::<()>();
    start(Box::new(move || {
        select! {
            send(tx, "second") -> sent => sent.unwrap(),
            recv(waits) -> _ => unreachable!("nobody sends"),
        }
    }));
    wait_for_receiver(&signal);
    // Their ends would close the channels, and complete the selects.
    std::mem::forget((keep, signal));
    rx
}

#[test]
fn cq_01_cb_03_a_select_that_waits_to_send_is_not_overtaken() {
    fn in_order(start: impl Fn(Box<dyn FnOnce() + Send>) + Copy) {
        for capacity in [0, 1, 2, 3] {
            // `second` has had the time to overtake, or has not.
            for between in [|| {}, || (0..100).for_each(|_| yield_now())] {
                let rx = two_wait_behind_the_head(start, capacity, between);
                let got: Vec<_> = (0..capacity + 2).map(|_| rx.recv().unwrap()).collect();
                assert_eq!(got[..capacity], vec!["head"; capacity]);
                assert_eq!(got[capacity..], ["first", "second"], "capacity {capacity}");
            }
        }
    }
    at_1_2_4(|| {
        in_order(|body| drop(go(body)));
    });
    in_order(|body| drop(thread::spawn(body)));
}

#[test]
fn cq_01_cb_03_every_way_to_receive_waits_for_the_promised_value() {
    type Receive = fn(&Receiver<&'static str>) -> &'static str;
    let ways: [Receive; 7] = [
        |rx| rx.recv().unwrap(),
        |rx| rx.recv_timeout(LONG).unwrap(),
        |rx| rx.recv_ctx(&oxigo::context::Context::background()).unwrap(),
        |rx| rx.iter().next().unwrap(),
        |rx| select! { recv(rx) -> value => value.unwrap(), recv(after(LONG)) -> _ => "late" },
        |rx| {
            let mut select = Select::new();
            select.recv(rx);
            select.select().recv(rx).unwrap()
        },
        |rx| {
            loop {
                match rx.try_recv() {
                    Ok(value) => return value,
                    Err(error) => assert_eq!(error, TryRecvError::Empty),
                }
                yield_now();
            }
        },
    ];
    everywhere(|| {
        for receive in ways {
            let rx = two_wait_behind_the_head(|body| drop(go(body)), 1, || (0..20).for_each(|_| yield_now()));
            assert_eq!([receive(&rx), receive(&rx), receive(&rx)], ["head", "first", "second"]);
        }
    });
}

/// What is behind a promise is not there for anybody, and limits hold.
#[test]
fn cq_01_behind_a_promise_nothing_is_received_and_nobody_waits_too_long() {
    everywhere(|| {
        for (tx, rx) in [bounded(2), bounded(3), unbounded()] {
            let promised = choose_send(&tx);
            tx.send(2).unwrap();
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(rx.try_iter().next(), None);
            assert_eq!(rx.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
            let (start, limit) = (Instant::now(), Duration::from_millis(3));
            assert_eq!(rx.recv_timeout(limit), Err(RecvTimeoutError::Timeout));
            assert!(start.elapsed() >= limit);
            select! { recv(rx) -> _ => panic!("overtaken"), default => {} }
            select! { recv(rx) -> _ => panic!("overtaken"), default(limit) => {} }
            let mut select = Select::new();
            select.recv(&rx);
            assert!(select.try_ready().is_err());
            assert!(select.try_select().is_err());
            assert!(select.ready_timeout(limit).is_err());
            assert!(select.select_timeout(limit).is_err());
            assert_eq!(rx.len(), 1, "a promise is no value");
            promised.send(&tx, 1).unwrap();
            assert_eq!(select.try_ready(), Ok(0));
            assert_eq!([rx.recv(), rx.recv()], [Ok(1), Ok(2)]);
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
        }
    });
}

#[test]
fn cq_01_promises_are_kept_and_given_up_in_any_order() {
    everywhere(|| {
        for (tx, rx) in [bounded(6), unbounded()] {
            let [a, b, c] = [(); 3].map(|()| choose_send(&tx));
            tx.send(4).unwrap();
            let d = choose_send(&tx);
            tx.send(6).unwrap();
            c.send(&tx, 3).unwrap();
            drop_unused(b);
            assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            assert_eq!(rx.len(), 3);
            a.send(&tx, 1).unwrap();
            assert_eq!(rx.try_iter().collect::<Vec<_>>(), [1, 3, 4]);
            drop_unused(d);
            assert_eq!(rx.recv(), Ok(6));
            (0..6).for_each(|n| tx.try_send(n).unwrap());
            assert_eq!(tx.try_send(6).is_ok(), tx.capacity().is_none());
        }
    });
}

/// Receivers that wait behind a promise get what is behind it when it is given up, and senders move up.
#[test]
fn cq_01_a_promise_that_is_given_up_lets_the_others_go_on() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        let promised = choose_send(&tx);
        let (signal, waits) = unbuffered::<()>();
        let late = tx.clone();
        let sender = go(move || {
            select! { send(late, 2) -> sent => sent.unwrap(), recv(waits) -> _ => unreachable!() }
        });
        wait_for_receiver(&signal);
        let (other_signal, waits) = unbuffered::<()>();
        let receiver = go(move || select! { recv(rx) -> value => value.unwrap(), recv(waits) -> _ => unreachable!() });
        wait_for_receiver(&other_signal);
        assert!(!sender.is_finished() && !receiver.is_finished());
        drop_unused(promised);
        assert_eq!(receiver.join().unwrap(), 2);
        sender.join().unwrap();
    });
}

#[test]
fn cc_01_a_close_ends_promises_and_delivers_what_is_behind() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        for waits in [false, true] {
            let (tx, rx) = bounded(5);
            let [a, b] = [(); 2].map(|()| choose_send(&tx));
            tx.send((1, Counted(drops.clone()))).unwrap();
            let c = choose_send(&tx);
            tx.try_send((2, Counted(drops.clone()))).unwrap();
            let (signal, signalled) = unbuffered::<()>();
            let from = rx.clone();
            let receiver = waits.then(|| {
                let receiver = go(
                    move || select! { recv(from) -> value => value.unwrap().0, recv(signalled) -> _ => unreachable!() },
                );
                wait_for_receiver(&signal);
                receiver
            });
            tx.close().unwrap();
            if let Some(receiver) = receiver {
                assert_eq!(receiver.join().unwrap(), 1);
            } else {
                assert_eq!(rx.recv().unwrap().0, 1);
            }
            assert!(a.send(&tx, (0, Counted(drops.clone()))).is_err());
            assert_eq!(rx.recv().unwrap().0, 2);
            assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
            drop_unused(b);
            assert!(c.send(&tx, (0, Counted(drops.clone()))).is_err());
            assert!(matches!(rx.recv(), Err(RecvError)));
        }
        assert_eq!(drops.swap(0, SeqCst), 8);
    });
}

#[test]
fn cc_01_the_last_receiver_drops_what_is_behind_a_promise() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = bounded(4);
        let [a, b] = [(); 2].map(|()| choose_send(&tx));
        tx.send(Counted(drops.clone())).unwrap();
        b.send(&tx, Counted(drops.clone())).unwrap();
        drop(rx);
        assert_eq!(drops.load(SeqCst), 2);
        assert!(a.send(&tx, Counted(drops.clone())).is_err());
        assert_eq!(drops.load(SeqCst), 3);
    });
}

/// How a two-step sender is to go on once it has chosen.
#[derive(Clone, Copy)]
enum Then {
    Send,
    GiveUp,
}

/// A value: its number, which tells when it came.
type Value = (usize, Counted);

/// Random parties on one channel, on one worker, and a twin that knows the order in which they came: values are their numbers.
struct Order {
    seed: u64,
    capacity: usize,
    drops: Arc<AtomicUsize>,
    ends: (Sender<Value>, Receiver<Value>),
    /// Numbers of values, ascending: what is sent and not given up; false while a two-step sender is not told how to go on.
    came: BTreeMap<usize, bool>,
    made: usize,
    senders: Vec<JoinHandle<Option<usize>>>,
    undecided: BTreeMap<usize, Sender<Then>>,
    receives: usize,
    receivers: Vec<JoinHandle<()>>,
    /// What each receive has got.
    got: Arc<Mutex<BTreeMap<usize, Option<usize>>>>,
}

impl Order {
    fn below(&mut self, end: usize) -> usize {
        // Marsaglia's xorshift.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % end as u64) as usize
    }

    fn new(seed: u64, capacity: usize) -> Self {
        Self {
            seed,
            capacity,
            drops: Arc::default(),
            ends: bounded(capacity),
            came: BTreeMap::new(),
            made: 0,
            senders: Vec::new(),
            undecided: BTreeMap::new(),
            receives: 0,
            receivers: Vec::new(),
            got: Arc::default(),
        }
    }

    fn value(&mut self) -> Value {
        self.made += 1;
        (self.made, Counted(self.drops.clone()))
    }

    fn send(&mut self, in_two_steps: bool) {
        let (tx, value) = (self.ends.0.clone(), self.value());
        let number = value.0;
        self.came.insert(number, !in_two_steps);
        let (tell, told) = bounded(1);
        if in_two_steps {
            self.undecided.insert(number, tell);
        }
        let timed = self.below(2) == 0;
        self.senders.push(go(move || {
            if in_two_steps {
                let mut select = Select::new();
                select.send(&tx);
                let operation = select.select();
                return match told.recv().unwrap() {
                    Then::Send => operation.send(&tx, value).is_ok().then_some(number),
                    Then::GiveUp => {
                        drop_unused(operation);
                        None
                    }
                };
            }
            if timed { tx.send_timeout(value, LONG).is_ok() } else { tx.send(value).is_ok() }.then_some(number)
        }));
    }

    fn decide(&mut self, number: usize, then: Then) {
        self.undecided.remove(&number).unwrap().send(then).unwrap();
        match then {
            Then::Send => self.came.insert(number, true),
            Then::GiveUp => self.came.remove(&number),
        };
    }

    fn receive(&mut self) {
        let (number, rx, got) = (self.receives, self.ends.1.clone(), self.got.clone());
        self.receives += 1;
        let way = self.below(4);
        self.receivers.push(go(move || {
            let value = match way {
                0 => rx.recv().ok(),
                1 => rx.recv_timeout(LONG).ok(),
                2 => select! { recv(rx) -> value => value.ok(), recv(never::<()>()) -> _ => unreachable!() },
                _ => {
                    let mut select = Select::new();
                    select.recv(&rx);
                    select.select().recv(&rx).ok()
                }
            };
            got.lock().unwrap().insert(number, value.map(|(number, _)| number));
        }));
    }

    /// Those whose turn it is once all before them have said their values.
    fn there(&self) -> usize {
        self.came.values().take_while(|said| **said).count()
    }

    /// What somebody who does not wait finds, if nobody waits before it. Without a buffer it would wait for an undecided sender.
    fn look(&mut self) {
        let missing = self.receives >= self.there();
        if self.receives > self.there() || self.capacity == 0 && missing && self.came.len() > self.receives {
            return;
        }
        if self.below(2) == 0 {
            let mut select = Select::new();
            select.recv(&self.ends.1);
            match select.try_select() {
                Ok(operation) if !missing => drop_unused(operation),
                found => assert!(found.is_err() && missing, "{found:?}"),
            }
            return;
        }
        let found = self.ends.1.try_recv().ok().map(|(number, _)| number);
        assert_eq!(found, self.came.keys().nth(self.receives).copied().filter(|_| !missing));
        if found.is_some() {
            self.got.lock().unwrap().insert(self.receives, found);
            self.receives += 1;
        }
    }

    /// Every receive has its value if that is there, in the order in which they came.
    fn check(&self) {
        let got: Vec<_> = self.got.lock().unwrap().clone().into_iter().collect();
        let want: Vec<_> = self.came.keys().map(|number| Some(*number)).enumerate().collect();
        // Without a buffer the second of two receivers need not wait for the first one's sender.
        if self.capacity != 0 {
            assert_eq!(got, want[..self.receives.min(self.there())]);
        }
        assert!(got.iter().all(|(receive, value)| want[*receive].1 == *value), "{got:?} of {want:?}");
        assert!(self.ends.1.len() <= self.capacity);
    }

    fn step(&mut self) {
        match self.below(6) {
            0 => self.send(false),
            1 => self.send(true),
            2 => self.receive(),
            3 => self.look(),
            _ => {
                let undecided: Vec<_> = self.undecided.keys().copied().collect();
                if !undecided.is_empty() {
                    let number = undecided[self.below(undecided.len())];
                    // Without a buffer a receiver that was claimed is out of the order when its sender gives up.
                    let gives_up = self.capacity != 0 && self.below(2) == 0;
                    self.decide(number, if gives_up { Then::GiveUp } else { Then::Send });
                }
            }
        }
        (0..50).for_each(|_| yield_now());
        self.check();
    }

    /// Closes the channel, or lets all end in order.
    fn end(mut self) {
        let closes = self.below(2) == 0;
        if closes {
            self.ends.0.close().unwrap();
        }
        while let Some(number) = self.undecided.keys().next().copied() {
            self.decide(number, Then::Send);
        }
        while self.receives < self.came.len() {
            self.receive();
            // Goroutines do not start in order.
            (0..50).for_each(|_| yield_now());
        }
        self.ends.0.close().is_ok().then(|| assert!(!closes));
        let sent: Vec<_> = self.senders.drain(..).filter_map(|sender| sender.join().unwrap()).collect();
        self.receivers.drain(..).for_each(|receiver| receiver.join().unwrap());
        let got: Vec<_> = self.got.lock().unwrap().values().flatten().copied().collect();
        assert!(got.is_sorted(), "{got:?}");
        assert_eq!(got, sent, "sent and received are one event");
        assert_eq!(self.drops.load(SeqCst), self.made);
    }
}

#[test]
fn cq_01_cb_03_random_two_step_senders_agree_with_a_naive_twin() {
    let given = env::var("OXIGO_SEED").ok().and_then(|seed| seed.parse().ok());
    for capacity in [0, 1, 2, 3] {
        for seed in given.map_or(1..150, |seed: u64| seed..seed + 1) {
            let run = || {
                rt(1, || {
                    let mut order = Order::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, capacity);
                    for _ in 0..30 {
                        order.step();
                    }
                    order.end();
                });
            };
            if let Err(payload) = catch_unwind(run) {
                eprintln!("capacity {capacity}, OXIGO_SEED={seed}");
                panic::resume_unwind(payload);
            }
        }
    }
}

#[test]
fn cu_02_a_send_returns_when_a_chosen_receive_is_completed() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let sender = go(move || tx.send(1));
        quiesce();
        let operation = choose_receive(&rx);
        quiesce();
        assert!(!sender.is_finished(), "nobody has received");
        assert_eq!(operation.recv(&rx), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(()));
    });
}

/// Waits until a sender waits on the other side.
fn wait_for_sender<T>(rx: &Receiver<T>) {
    let mut select = Select::new();
    select.recv(rx);
    assert_eq!(select.ready_timeout(LONG), Ok(0));
}

#[test]
fn cu_02_the_sender_of_a_dropped_receive_waits_again_or_gets_its_value_back() {
    everywhere(|| {
        type Send = fn(&Sender<u32>) -> Result<(), SendError<u32>>;
        let ways: [Send; 4] = [
            |tx| tx.send(1),
            |tx| tx.send_timeout(1, LONG).map_err(|error| SendError(error.into_inner())),
            |tx| select! { send(tx, 1) -> sent => sent, recv(never::<()>()) -> _ => unreachable!() },
            |tx| choose_send(tx).send(tx, 1),
        ];
        for (way, send) in ways.into_iter().enumerate() {
            for end in 0..3 {
                let (tx, rx) = unbuffered();
                let closer = tx.clone();
                let sender = go(move || send(&tx));
                wait_for_sender(&rx);
                let operation = choose_receive(&rx);
                if end == 2 {
                    closer.close().unwrap();
                }
                drop_unused(operation);
                // A sender that selects in two steps has had its second.
                let held = way != 3;
                match end {
                    0 => {
                        assert_eq!(rx.recv(), Ok(1));
                        assert_eq!(sender.join().unwrap(), Ok(()));
                    }
                    1 => {
                        drop(rx);
                        assert_eq!(sender.join().unwrap(), if held { Err(SendError(1)) } else { Ok(()) });
                    }
                    _ => {
                        assert_eq!(sender.join().unwrap(), if held { Err(SendError(1)) } else { Ok(()) });
                        assert_eq!(rx.recv(), if held { Err(RecvError) } else { Ok(1) });
                    }
                }
            }
        }
    });
}

#[test]
fn cu_02_a_limit_that_passes_while_a_receive_is_chosen_acts_once_that_is_dropped() {
    everywhere(|| {
        for completes in [true, false] {
            let limit = Duration::from_millis(20);
            let (tx, rx) = unbuffered();
            let late = tx.clone();
            let sender = go(move || late.send_timeout(1, limit));
            let mut select = Select::new();
            select.recv(&rx);
            while select.ready_timeout(Duration::from_millis(1)).is_err() && !sender.is_finished() {}
            let Ok(operation) = select.try_select() else {
                // The time had passed before.
                assert_eq!(sender.join().unwrap(), Err(SendTimeoutError::Timeout(1)));
                continue;
            };
            oxigo::time::sleep(limit);
            assert!(!sender.is_finished());
            if completes {
                assert_eq!(operation.recv(&rx), Ok(1));
                assert_eq!(sender.join().unwrap(), Ok(()));
            } else {
                drop_unused(operation);
                assert_eq!(sender.join().unwrap(), Err(SendTimeoutError::Timeout(1)));
                assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
            }
            drop(tx);
        }
    });
}

/// Who waits with a time limit is called and goes back to wait as often as operations are dropped, on a stack of the same depth.
#[test]
fn cu_02_cq_01_any_number_of_dropped_operations_leave_the_stack_as_it_is() {
    const DROPPED: usize = 1000;
    everywhere(|| {
        let (tx, rx) = unbuffered();
        let late = tx.clone();
        let sender = go(move || late.send_timeout(1, LONG));
        for _ in 0..DROPPED {
            let mut select = Select::new();
            select.recv(&rx);
            drop_unused(select.select());
        }
        assert_eq!(rx.recv(), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(()));
        let receiver = go(move || rx.recv_timeout(LONG));
        for _ in 0..DROPPED {
            drop_unused(choose_send(&tx));
        }
        tx.send(2).unwrap();
        assert_eq!(receiver.join().unwrap(), Ok(2));
    });
}

/// The value of a dropped receive goes to a receiver that has come meanwhile.
#[test]
fn cu_02_who_waits_meanwhile_gets_the_value() {
    everywhere(|| {
        let (tx, rx) = unbuffered();
        let sender = go(move || tx.send(1));
        wait_for_sender(&rx);
        let operation = choose_receive(&rx);
        let (signal, waits) = unbuffered::<()>();
        let from = rx.clone();
        let receiver = go(move || select! { recv(from) -> value => value, recv(waits) -> _ => unreachable!() });
        wait_for_receiver(&signal);
        drop_unused(operation);
        assert_eq!(receiver.join().unwrap(), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(()));
    });
}

/// It is one that nobody else can have: whoever waited for it waited for ever.
#[test]
fn the_value_of_a_timer_is_given_back_unless_that_has_been_set_meanwhile() {
    everywhere(|| {
        let drops = |operation| catch_unwind(AssertUnwindSafe(|| drop(operation))).unwrap_err();
        let timer = Timer::new(Duration::ZERO);
        let begin = Instant::now();
        drops(choose_receive(timer.receiver()));
        assert_eq!(timer.receiver().len(), 1);
        assert!(timer.receiver().recv_timeout(LONG).unwrap() <= begin);
        assert!(!timer.stop());

        // Given back, it is unread; and who waits gets it.
        timer.reset(Duration::ZERO);
        drops(choose_receive(timer.receiver()));
        assert!(timer.stop());
        timer.reset(Duration::ZERO);
        let chosen = choose_receive(timer.receiver());
        let waits = timer.receiver().clone();
        let waits = go(move || waits.recv_timeout(LONG));
        // On one worker it waits by now; elsewhere it may come later.
        quiesce();
        drops(chosen);
        waits.join().unwrap().unwrap();

        // After `stop` and `reset` nothing stale can be received.
        timer.reset(Duration::ZERO);
        let chosen = choose_receive(timer.receiver());
        assert!(!timer.stop());
        drops(chosen);
        assert!(timer.receiver().try_recv().is_err());
        timer.reset(Duration::ZERO);
        let chosen = choose_receive(timer.receiver());
        assert!(!timer.reset(LONG));
        drops(chosen);
        assert!(timer.receiver().try_recv().is_err());
        assert!(timer.stop());
    });
}

/// Values in the buffer and those of three that wait, so many of them taken by operations that are then dropped in every order.
#[test]
fn cl_01_values_given_back_come_first_in_their_order() {
    for capacity in [Some(0), Some(1), Some(2), Some(3), None] {
        for orders in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            rt(1, || {
                let (tx, rx) = capacity.map_or_else(unbounded, bounded);
                let senders: Vec<_> = (0..6)
                    .map(|n| {
                        let tx = tx.clone();
                        let sender = go(move || tx.send(n).unwrap());
                        quiesce();
                        sender
                    })
                    .collect();
                let most = capacity.unwrap_or(6);
                let mut operations = [(); 3].map(|()| Some(choose_receive(&rx)));
                for at in orders {
                    quiesce();
                    drop_unused(operations[at].take().unwrap());
                    assert!(rx.len() <= most);
                    assert_eq!(rx.is_full(), rx.len() == most && capacity.is_some());
                }
                // One more time, with one of them taken twice.
                let mut operations = [(); 3].map(|()| Some(choose_receive(&rx)));
                drop_unused(operations[orders[0]].take().unwrap());
                operations[orders[0]] = Some(choose_receive(&rx));
                orders.into_iter().for_each(|at| drop_unused(operations[at].take().unwrap()));
                quiesce();
                assert!(rx.len() <= most);
                let mut got = Vec::new();
                for _ in 0..6 {
                    got.push(rx.recv().unwrap());
                    quiesce();
                    assert!(rx.len() <= most);
                }
                assert_eq!(got, [0, 1, 2, 3, 4, 5], "capacity {capacity:?}, dropped as {orders:?}");
                assert_eq!(rx.try_recv(), Err(TryRecvError::Empty));
                senders.into_iter().for_each(|sender| sender.join().unwrap());
            });
        }
    }
}

/// A value that went straight to an operation that had waited: its sender has gone on, others have filled the buffer since.
#[test]
fn cl_01_a_value_given_back_to_a_full_buffer_does_not_count() {
    for capacity in [0, 1, 2] {
        rt(1, || {
            let (tx, rx) = bounded(capacity);
            let (give_up, told) = unbuffered::<()>();
            let from = rx.clone();
            let drops = go(move || {
                let mut select = Select::new();
                select.recv(&from);
                let operation = select.select();
                told.recv().unwrap();
                drop_unused(operation);
            });
            quiesce();
            (0..=capacity).for_each(|n| tx.try_send(n).unwrap());
            assert!(tx.try_send(9).is_err());
            give_up.send(()).unwrap();
            drops.join().unwrap();
            assert_eq!((rx.len(), rx.is_full()), (capacity, true));
            assert!(tx.try_send(9).is_err());
            assert_eq!(rx.recv(), Ok(0));
            assert!(tx.try_send(9).is_err(), "there is room for {capacity} only");
            assert_eq!(rx.try_iter().collect::<Vec<_>>(), (1..=capacity).collect::<Vec<_>>());
            assert_eq!(tx.try_send(9).is_ok(), capacity > 0);
        });
    }
}

#[test]
fn cl_01_values_given_back_are_dropped_with_the_last_receiver_or_received_after_the_close() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        for closes in [true, false] {
            let (tx, rx) = bounded(3);
            (0..3).for_each(|n| tx.send((n, Counted(drops.clone()))).unwrap());
            let [a, b] = [(); 2].map(|()| choose_receive(&rx));
            drop_unused(a);
            if closes {
                tx.close().unwrap();
                drop_unused(b);
                assert_eq!(rx.try_iter().map(|(n, _)| n).collect::<Vec<_>>(), [0, 1, 2]);
                assert!(matches!(rx.recv(), Err(RecvError)));
            } else {
                drop_unused(b);
                drop(rx);
            }
            assert_eq!(drops.swap(0, SeqCst), 3);
        }
    });
}

/// Receivers that were chosen for sends that are dropped, in the order in which they were, stand in their order.
#[test]
fn cq_01_receivers_of_dropped_sends_keep_their_order() {
    rt(1, || {
        let (tx, rx) = unbuffered();
        let receivers: Vec<_> = (0..3)
            .map(|_| {
                let rx = rx.clone();
                let receiver = go(move || rx.recv());
                quiesce();
                receiver
            })
            .collect();
        let [a, b] = [(); 2].map(|()| choose_send(&tx));
        drop_unused(a);
        drop_unused(b);
        (0..3).for_each(|n| tx.send(n).unwrap());
        let got: Vec<_> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        assert_eq!(got, [Ok(0), Ok(1), Ok(2)]);
    });
}

/// Why `try_recv` waits for a select that has been chosen to send: who only tries would never receive from it otherwise.
#[test]
fn cu_05_who_only_tries_receives_from_a_select_that_waits_to_send() {
    type Try = fn(&Receiver<u32>) -> Option<u32>;
    let tries: [Try; 5] = [
        |rx| rx.try_recv().ok(),
        |rx| rx.recv_timeout(Duration::ZERO).ok(),
        |rx| rx.try_iter().next(),
        |rx| select! { recv(rx) -> value => value.ok(), default => None },
        |rx| {
            let mut select = Select::new();
            select.recv(rx);
            select.try_select().ok().and_then(|operation| operation.recv(rx).ok())
        },
    ];
    everywhere(|| {
        for look in tries {
            let (tx, rx) = unbuffered();
            let sender = go(move || choose_send(&tx).send(&tx, 7));
            let begin = Instant::now();
            let value = loop {
                if let Some(value) = look(&rx) {
                    break value;
                }
                assert!(begin.elapsed() < LONG, "never received");
                yield_now();
            };
            assert_eq!(value, 7);
            sender.join().unwrap().unwrap();
        }
    });
}

/// Operations that could have waited give way to others, also where they end at once: a loop of them held its worker.
#[test]
fn s_06_channel_operations_that_end_at_once_let_others_run() {
    rt(1, || {
        let (tx, closed) = bounded::<u32>(1);
        tx.close().unwrap();
        let (full, _full) = bounded(0);
        let (_open, empty) = bounded::<u32>(1);
        let past = Instant::now();
        lets_others_run("send to a closed channel", || tx.send(1));
        lets_others_run("send_timeout to a closed channel", || tx.send_timeout(1, LONG));
        lets_others_run("send_timeout", || full.send_timeout(1, Duration::ZERO));
        lets_others_run("send_ctx", || tx.send_ctx(1, &oxigo::context::Context::background()));
        lets_others_run("recv from a closed channel", || closed.recv());
        lets_others_run("iter", || closed.iter().next());
        lets_others_run("recv_ctx", || closed.recv_ctx(&oxigo::context::Context::background()));
        lets_others_run("recv_timeout", || empty.recv_timeout(Duration::ZERO));
        lets_others_run("recv_deadline", || empty.recv_deadline(past));
        lets_others_run("recv_timeout of never", || never::<()>().recv_timeout(Duration::ZERO));
        lets_others_run("recv_deadline of never", || never::<()>().recv_deadline(past));
        lets_others_run("recv_timeout of a timer", || after(LONG).recv_timeout(Duration::ZERO));
        lets_others_run("recv of a timer", || after(Duration::ZERO).recv());
        lets_others_run("select", || select! { recv(closed) -> value => value });
        lets_others_run("select with a limit", || select! { recv(empty) -> _ => {}, default(Duration::ZERO) => {} });
        let mut select = Select::new();
        select.recv(&closed);
        let select = Mutex::new(select);
        let select = || select.lock().unwrap();
        lets_others_run("Select::select", || select().select().recv(&closed));
        lets_others_run("Select::select_timeout", || select().select_timeout(LONG).unwrap().recv(&closed));
        lets_others_run("Select::ready", || select().ready());
        lets_others_run("Select::ready_timeout", || select().ready_timeout(LONG));
        lets_others_run("Select::ready_deadline", || select().ready_deadline(past));
        let mut nothing = Select::new();
        nothing.recv(&empty);
        let nothing = Mutex::new(nothing);
        lets_others_run("Select::ready_timeout of nothing", || nothing.lock().unwrap().ready_timeout(Duration::ZERO));
        lets_others_run("Select::select_timeout of nothing", || {
            nothing.lock().unwrap().select_timeout(Duration::ZERO).is_err()
        });
    });
}

/// P4: what only tries never gives way.
#[test]
fn s_06_what_only_tries_never_gives_way() {
    rt(1, || {
        let ran = Arc::new(AtomicBool::new(false));
        let other = Arc::clone(&ran);
        let other = go(move || other.store(true, SeqCst));
        let (tx, closed) = unbounded::<u32>();
        tx.close().unwrap();
        let (_open, empty) = bounded::<u32>(1);
        let mut select = Select::new();
        select.recv(&closed);
        for _ in 0..100_000 {
            let _ = (tx.send(1), tx.try_send(1), closed.try_recv(), empty.try_recv(), select.try_ready());
            let _ = select.try_select().unwrap().recv(&closed);
            select! { recv(empty) -> _ => {}, default => {} }
        }
        assert!(!ran.load(SeqCst));
        other.join().unwrap();
    });
}

/// The panics that a misuse ends with point at the user's line.
#[test]
fn misuse_is_reported_where_it_is() {
    const NAME: &str = "misuse_is_reported_where_it_is";
    if is_child(NAME) {
        panic::set_hook(Box::new(|info| {
            eprintln!("at {}: {}", info.location().unwrap(), info.payload_as_str().unwrap())
        }));
        let (tx, rx) = bounded(1);
        let (other_tx, other_rx) = bounded::<u32>(1);
        tx.send(1).unwrap();
        let misuses: [&dyn Fn(); 7] = [
            &|| choose_receive(&rx).recv(&other_rx).map(|_| ()).unwrap(),
            &|| choose_receive(&rx).send(&tx, 1).unwrap(),
            &|| choose_send(&other_tx).send(&tx, 1).unwrap(),
            &|| drop(Select::new().select()),
            &|| assert_eq!(Select::new().ready(), 0),
            &|| Select::new().remove(0),
            &|| drop(bounded::<u64>(usize::MAX)),
        ];
        for misuse in misuses {
            assert!(catch_unwind(AssertUnwindSafe(misuse)).is_err());
        }
        return;
    }
    let output = child(NAME);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let panics: Vec<_> = said.lines().filter(|line| line.starts_with("at ")).collect();
    assert_eq!(panics.len(), 7, "{said}");
    assert!(panics.iter().all(|line| line.contains("select_two_steps.rs")), "{said}");
    let advice = "complete it with the end that was added as operation 0";
    assert_eq!(panics.iter().filter(|line| line.ends_with(advice)).count(), 3, "{said}");
}
