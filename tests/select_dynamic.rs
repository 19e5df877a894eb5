//! The run-time `Select`: groups SE-15 and SE-16, operations that are dropped unused, `remove`, `ready*`, limits and misuse.

mod common;

use std::{
    any::Any,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, everywhere, quiesce, rt};
use oxigo::{
    JoinHandle, Receiver, Sender, bounded,
    chan::{RecvError, RecvTimeoutError, Select, SelectedOperation, SendError, TryRecvError, after, never},
    context::Context,
    go, select, select_biased, unbounded, unbuffered, yield_now,
};

fn text(payload: &(dyn Any + Send)) -> String {
    let owned = payload.downcast_ref::<String>().cloned();
    owned.or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string)).expect("a panic with a text")
}

fn panic_of<T>(body: impl FnOnce() -> T) -> String {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(_) => panic!("no panic"),
        Err(payload) => text(&*payload),
    }
}

/// Drops the operation, which has to panic.
fn drop_unused(operation: SelectedOperation<'_>) {
    let text = panic_of(|| drop(operation));
    assert_eq!(text, "dropped `SelectedOperation` without completing the operation");
}

/// Waits until a receiver waits on the other side.
fn wait_for_receiver<T>(tx: &Sender<T>) {
    let mut select = Select::new();
    select.send(tx);
    assert_eq!(select.ready_timeout(Duration::from_secs(60)), Ok(0));
}

/// A generator of random numbers, xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn se_15_up_to_65_536_operations_work() {
    let body = || {
        for count in [1, 2, 1_000, 65_536] {
            let quiet: Vec<_> = (0..count - 1).map(|_| never::<usize>()).collect();
            let (tx, rx) = bounded(1);
            let at = count / 2;
            let mut select = Select::new();
            for i in 0..count {
                let receiver = if i == at { &rx } else { &quiet[i - usize::from(i > at)] };
                assert_eq!(select.recv(receiver), i);
            }
            assert!(select.try_select().is_err());
            tx.send(count).unwrap();
            let operation = select.select();
            assert_eq!(operation.index(), at);
            assert_eq!(operation.recv(&rx), Ok(count));
            assert!(select.try_ready().is_err());
        }
    };
    rt(2, body);
    body();
}

#[test]
fn se_15_a_parked_select_on_very_many_channels_leaves_no_trace() {
    rt(2, || {
        for count in [2, 1_000, 65_536] {
            let channels: Vec<_> = (0..count).map(|_| unbuffered::<usize>()).collect();
            let chosen = count - 1;
            let tx = channels[chosen].0.clone();
            let sender = go(move || tx.send(7));
            let mut select = Select::new();
            for (_, rx) in &channels {
                select.recv(rx);
            }
            let operation = select.select();
            assert_eq!(operation.index(), chosen);
            assert_eq!(operation.recv(&channels[chosen].1), Ok(7));
            sender.join().unwrap().unwrap();
            assert!(channels.iter().all(|(tx, _)| tx.try_send(0).is_err()), "a receiver was left in a queue");
        }
    });
}

#[test]
fn se_15_one_operation_more_panics() {
    let rx = never::<()>();
    let mut select = Select::new();
    for _ in 0..65_536 {
        select.recv(&rx);
    }
    assert_eq!(panic_of(|| select.recv(&rx)), "a select of more than 65536 operations");
}

#[test]
fn se_15_removed_operations_do_not_count() {
    let (tx, rx) = bounded(1);
    let mut select = Select::new();
    for i in 0..200_000 {
        assert_eq!(select.recv(&rx), i);
        select.remove(i);
    }
    let last = select.recv(&rx);
    tx.send(1).unwrap();
    let operation = select.select();
    assert_eq!(operation.index(), last);
    assert_eq!(operation.recv(&rx), Ok(1));
}

/// A goroutine that waits to send.
type Sending = JoinHandle<Result<(), SendError<u32>>>;

/// A channel and what a naive model knows of it.
struct Modelled {
    ends: (Sender<u32>, Receiver<u32>),
    capacity: usize,
    closed: bool,
    queue: VecDeque<u32>,
    senders: VecDeque<(u32, Sending)>,
    receivers: VecDeque<JoinHandle<Result<u32, RecvError>>>,
}

impl Modelled {
    fn new(capacity: usize) -> Self {
        let (queue, senders, receivers) = Default::default();
        Self { ends: bounded(capacity), capacity, closed: false, queue, senders, receivers }
    }

    fn can_send(&self) -> bool {
        self.closed || !self.receivers.is_empty() || self.queue.len() < self.capacity
    }

    fn can_receive(&self) -> bool {
        self.closed || !self.queue.is_empty() || !self.senders.is_empty()
    }

    /// What a send that can go on has to give.
    fn send(&mut self, value: u32) -> Result<(), SendError<u32>> {
        if self.closed {
            return Err(SendError(value));
        }
        match self.receivers.pop_front() {
            Some(receiver) => assert_eq!(receiver.join().unwrap(), Ok(value), "the first receiver gets the value"),
            None => self.queue.push_back(value),
        }
        Ok(())
    }

    /// What a receive that can go on has to give.
    fn receive(&mut self) -> Result<u32, RecvError> {
        let first = self.queue.pop_front();
        let Some((value, sender)) = self.senders.pop_front() else { return first.ok_or(RecvError) };
        assert_eq!(sender.join().unwrap(), Ok(()), "the first sender was served");
        let Some(first) = first else { return Ok(value) };
        self.queue.push_back(value);
        Ok(first)
    }

    fn close(&mut self) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.ends.0.close().unwrap();
        for (value, sender) in self.senders.drain(..) {
            assert_eq!(sender.join().unwrap(), Err(SendError(value)));
        }
        for receiver in self.receivers.drain(..) {
            assert_eq!(receiver.join().unwrap(), Err(RecvError));
        }
    }
}

/// One program of some steps on a few channels, against the model. With `partners`, others wait on the channels: one worker only.
fn against_the_model(random: &mut Random, partners: bool) {
    let mut channels: Vec<_> = (0..1 + random.below(4)).map(|_| Modelled::new(random.below(4))).collect();
    let nil = never::<u32>();
    for step in 0..12 {
        let value = step as u32 * 10;
        let at = random.below(channels.len());
        let channel = &mut channels[at];
        match random.below(6) {
            0 => channel.close(),
            1 if partners && !channel.can_send() => {
                let tx = channel.ends.0.clone();
                channel.senders.push_back((value + 1, go(move || tx.send(value + 1))));
                quiesce();
            }
            2 if partners && !channel.can_receive() => {
                let rx = channel.ends.1.clone();
                channel.receivers.push_back(go(move || rx.recv()));
                quiesce();
            }
            _ => {}
        }

        // The operations: the channel, and whether it is a send; a receive from nil without one.
        let list: Vec<Option<(usize, bool)>> = (0..random.below(9))
            .map(|_| (random.below(8) != 0).then(|| (random.below(channels.len()), random.below(2) == 0)))
            .collect();
        let ends: Vec<_> = channels.iter().map(|channel| channel.ends.clone()).collect();
        let biased = random.below(2) == 0;
        let mut select = if biased { Select::new_biased() } else { Select::new() };
        for operation in &list {
            match operation {
                Some((at, true)) => select.send(&ends[*at].0),
                Some((at, false)) => select.recv(&ends[*at].1),
                None => select.recv(&nil),
            };
        }
        let removed: Vec<bool> = list.iter().map(|_| random.below(10) == 0).collect();
        removed.iter().enumerate().filter(|(_, removed)| **removed).for_each(|(i, _)| select.remove(i));
        let ready: Vec<usize> = (0..list.len())
            .filter(|i| !removed[*i])
            .filter(|i| {
                list[*i]
                    .is_some_and(|(at, sends)| if sends { channels[at].can_send() } else { channels[at].can_receive() })
            })
            .collect();

        let soon = Duration::from_millis(1);
        if ready.is_empty() {
            assert!(select.try_ready().is_err());
            assert!(select.try_select().is_err());
            if random.below(4) == 0 {
                let start = Instant::now();
                assert!(select.select_timeout(soon).is_err());
                assert!(start.elapsed() >= soon);
            }
            continue;
        }
        let told = select.try_ready().unwrap();
        assert!(ready.contains(&told));
        let operation = match random.below(3) {
            0 => select.try_select().unwrap(),
            1 => select.select(),
            _ => select.select_timeout(Duration::from_secs(60)).unwrap(),
        };
        let chosen = operation.index();
        assert!(ready.contains(&chosen), "{chosen} of {list:?} was chosen, {ready:?} are ready");
        assert!(!biased || (chosen == ready[0] && told == ready[0]), "a biased select chooses the first");
        let (at, sends) = list[chosen].unwrap();
        if sends {
            let result = operation.send(&ends[at].0, value);
            assert_eq!(result, channels[at].send(value));
        } else {
            let result = operation.recv(&ends[at].1);
            assert_eq!(result, channels[at].receive());
        }
    }
    for channel in &mut channels {
        channel.close();
        while let Some(value) = channel.queue.pop_front() {
            assert_eq!(channel.ends.1.try_recv(), Ok(value));
        }
        assert_eq!(channel.ends.1.try_recv(), Err(TryRecvError::Disconnected));
    }
}

#[test]
fn se_16_random_selects_agree_with_a_naive_model() {
    let mut random = Random(0x5e16);
    for _ in 0..1000 {
        against_the_model(&mut random, false);
    }
    for workers in [1, 2, 4] {
        rt(workers, || {
            let mut random = Random(0x5e16 + workers as u64);
            for _ in 0..1000 {
                against_the_model(&mut random, false);
            }
        });
    }
}

#[test]
fn se_16_random_selects_with_waiting_partners_agree_with_a_naive_model() {
    rt(1, || {
        let mut random = Random(0x5e17);
        for _ in 0..100 {
            against_the_model(&mut random, true);
        }
    });
}

/// Parties that select between a send and a receive on shared channels: nothing is lost or doubled.
#[test]
fn se_16_parties_that_select_lose_and_double_nothing() {
    const ROUNDS: usize = 500;
    at_1_2_4(|| {
        for capacity in [0, 2] {
            let channels: Arc<Vec<_>> = Arc::new((0..3).map(|_| bounded::<usize>(capacity)).collect());
            let (sent, received) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let producers: Vec<_> = (0..3)
                .map(|party| {
                    let (channels, sent) = (channels.clone(), sent.clone());
                    go(move || {
                        for round in 0..ROUNDS {
                            let mut select = Select::new();
                            for (tx, _) in channels.iter() {
                                select.send(tx);
                            }
                            let operation = select.select();
                            let (at, value) = (operation.index(), party * ROUNDS + round);
                            operation.send(&channels[at].0, value).unwrap();
                            sent.fetch_add(value, SeqCst);
                        }
                    })
                })
                .collect();
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    let (channels, received) = (channels.clone(), received.clone());
                    go(move || {
                        for _ in 0..ROUNDS {
                            let mut select = Select::new();
                            for (_, rx) in channels.iter().rev() {
                                select.recv(rx);
                            }
                            let operation = select.select();
                            let at = operation.index();
                            received.fetch_add(operation.recv(&channels[2 - at].1).unwrap(), SeqCst);
                        }
                    })
                })
                .collect();
            producers.into_iter().chain(consumers).for_each(|party| party.join().unwrap());
            assert_eq!(sent.load(SeqCst), (0..3 * ROUNDS).sum());
            assert_eq!(received.load(SeqCst), sent.load(SeqCst));
            assert!(channels.iter().all(|(_, rx)| rx.is_empty()));
        }
    });
}

#[test]
fn a_send_dropped_unused_panics_and_its_receiver_keeps_its_place() {
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
        for _ in 0..3 {
            let mut select = Select::new();
            select.send(&tx);
            drop_unused(select.try_select().unwrap());
            quiesce();
            assert!(receivers.iter().all(|receiver| !receiver.is_finished()));
        }
        for value in 0..3 {
            tx.send(value).unwrap();
        }
        let got: Vec<_> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        assert_eq!(got, [Ok(0), Ok(1), Ok(2)]);
    });
}

#[test]
fn a_send_dropped_unused_frees_the_room_for_others() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        let mut select = Select::new();
        select.send(&tx);
        let operation = select.select();
        assert!(tx.try_send(1).is_err(), "the room is promised");
        drop_unused(operation);
        tx.try_send(2).unwrap();
        assert_eq!(rx.try_recv(), Ok(2));
        assert!(rx.try_recv().is_err());
    });
}

#[test]
fn a_receive_dropped_unused_gives_the_value_back_in_front() {
    everywhere(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let (tx, rx) = unbounded();
        for i in 0..3 {
            tx.send((i, Counted(drops.clone()))).unwrap();
        }
        let mut select = Select::new();
        select.recv(&rx);
        drop_unused(select.select());
        assert_eq!(drops.load(SeqCst), 0);
        let order: Vec<_> = rx.try_iter().map(|(i, _)| i).collect();
        assert_eq!(order, [0, 1, 2]);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

#[test]
fn the_time_out_of_a_called_receiver_acts_once_the_send_is_dropped() {
    let limit = Duration::from_millis(40);
    let is_called = || {
        oxigo::scope(|s| {
            let (tx, rx) = unbuffered::<u8>();
            let receiver = s.go(move || {
                let start = Instant::now();
                (rx.recv_timeout(limit), start.elapsed(), rx)
            });
            let mut select = Select::new();
            select.send(&tx);
            while select.ready_timeout(Duration::from_millis(1)).is_err() && !receiver.is_finished() {}
            let operation = select.try_select().ok();
            let is_called = operation.is_some();
            oxigo::time::sleep(limit);
            operation.into_iter().for_each(drop_unused);
            let (result, took, _rx) = receiver.join().unwrap();
            assert_eq!(result, Err(RecvTimeoutError::Timeout));
            assert!(took >= limit);
            assert!(tx.try_send(3).is_err(), "the receiver was left in the queue");
            is_called
        })
    };
    // On a busy machine its time may have passed before.
    at_1_2_4(|| assert!((0..100).any(|_| is_called())));
}

/// Whoever meets a sender that has chosen first waits for its value, but not for ever when that one gives up: it looks again as it would have.
#[test]
fn a_receiver_that_did_not_wait_looks_again_once_the_send_is_dropped() {
    type Call = fn(&Receiver<u32>);
    let calls: [(&str, Call); 5] = [
        ("try_recv", |rx| assert_eq!(rx.try_recv(), Err(TryRecvError::Empty))),
        ("recv_timeout", |rx| assert_eq!(rx.recv_timeout(Duration::from_millis(1)), Err(RecvTimeoutError::Timeout))),
        ("recv_ctx", |rx| {
            // One that has ended meets nobody.
            let (context, _cancel) = Context::background().with_timeout(Duration::from_millis(100));
            assert!(rx.recv_ctx(&context).is_err());
        }),
        ("select with default", |rx| {
            select! { recv(rx) -> _ => panic!("nothing was sent"), default => {} }
        }),
        ("select with another arm", |rx| {
            let (other, ready) = bounded(1);
            let sends = go(move || {
                yield_now();
                other.send(7).unwrap();
            });
            // Also when both are ready it is the sender that is met.
            select_biased! { recv(rx) -> _ => panic!("nothing was sent"), recv(ready) -> value => assert_eq!(value, Ok(7)) }
            sends.join().unwrap();
        }),
    ];
    everywhere(|| {
        for (name, call) in calls {
            let (tx, rx) = unbuffered();
            let gives_up = go(move || {
                let mut select = Select::new();
                select.send(&tx);
                drop_unused(select.select());
                tx
            });
            let mut select = Select::new();
            select.recv(&rx);
            assert_eq!(select.ready_timeout(Duration::from_secs(60)), Ok(0), "{name}: a sender waits");
            call(&rx);
            drop(gives_up.join().unwrap());
        }
    });
}

#[test]
fn a_close_while_a_receiver_is_called_acts_once_the_send_is_dropped() {
    everywhere(|| {
        let (tx, rx) = unbuffered::<u8>();
        let receiver = go(move || rx.recv());
        wait_for_receiver(&tx);
        let mut select = Select::new();
        select.send(&tx);
        let operation = select.select();
        tx.close().unwrap();
        drop_unused(operation);
        assert_eq!(receiver.join().unwrap(), Err(RecvError));
    });
}

#[test]
fn a_dropped_operation_of_a_panicking_party_does_not_panic_again() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        tx.send(1).unwrap();
        let text = panic_of(|| {
            let mut select = Select::new();
            select.recv(&rx);
            let _operation = select.select();
            panic!("the first");
        });
        assert_eq!(text, "the first");
        assert_eq!(rx.try_recv(), Ok(1));
    });
}

#[test]
fn the_wrong_end_is_refused_and_nothing_is_lost() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        let (other_tx, other_rx) = bounded::<i32>(1);
        tx.send(1).unwrap();
        let mut select = Select::new();
        select.recv(&rx);
        let expected = "passed an end that this operation was not made from; complete it with the end that was added as operation 0";
        let text = panic_of(|| select.select().recv(&other_rx));
        assert_eq!(text, expected);
        let text = panic_of(|| select.select().send(&tx, 2));
        assert_eq!(text, expected);
        assert_eq!(rx.try_recv(), Ok(1));
        let mut select = Select::new();
        select.send(&tx);
        let text = panic_of(|| select.select().send(&other_tx, 2));
        assert_eq!(text, expected);
        assert!(other_rx.is_empty());
        tx.try_send(3).unwrap();
    });
}

#[test]
fn without_operations_as_in_crossbeam() {
    everywhere(|| {
        let expected = "no operations have been added to `Select`";
        assert_eq!(panic_of(|| Select::new().select()), expected);
        assert_eq!(panic_of(|| Select::new().ready()), expected);
        let rx = never::<()>();
        let mut select = Select::new();
        let index = select.recv(&rx);
        select.remove(index);
        assert_eq!(panic_of(|| select.select()), expected);
        assert!(select.try_select().is_err());
        assert!(select.try_ready().is_err());
        let (start, limit) = (Instant::now(), Duration::from_millis(5));
        assert!(select.select_timeout(limit).is_err());
        assert!(select.ready_timeout(limit).is_err());
        assert!(start.elapsed() >= 2 * limit);
    });
}

#[test]
fn remove_takes_one_operation_and_leaves_the_indices() {
    everywhere(|| {
        let ends: Vec<_> = (0..3).map(bounded::<usize>).map(|(_, rx)| rx).collect();
        let mut select = Select::new_biased();
        for rx in &ends {
            select.recv(rx);
        }
        assert_eq!(select.ready(), 0);
        select.remove(0);
        assert_eq!(select.ready(), 1);
        select.remove(1);
        let operation = select.select();
        assert_eq!(operation.index(), 2);
        assert_eq!(operation.recv(&ends[2]), Err(RecvError));
        assert_eq!(panic_of(|| select.remove(1)), "no operation with this index");
        assert_eq!(panic_of(|| select.remove(3)), "index out of bounds; 3 >= 3");
        assert_eq!(select.recv(&ends[0]), 3, "an index is not given twice");
    });
}

#[test]
fn ready_tells_and_takes_nothing() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        let mut select = Select::new();
        let receive = select.recv(&rx);
        let limit = Duration::from_millis(3);
        let start = Instant::now();
        assert!(select.try_ready().is_err());
        assert!(select.ready_timeout(limit).is_err());
        assert!(select.ready_deadline(start + 2 * limit).is_err());
        assert!(start.elapsed() >= 2 * limit);
        let late = tx.clone();
        let sender = go(move || late.send(1));
        assert_eq!(select.ready(), receive);
        assert_eq!(select.ready_timeout(limit), Ok(receive));
        assert_eq!(select.ready_deadline(start), Ok(receive), "ready wins over a deadline that has passed");
        assert_eq!(select.try_ready(), Ok(receive));
        sender.join().unwrap().unwrap();
        assert_eq!(rx.try_recv(), Ok(1));
        assert!(select.try_ready().is_err());
    });
}

#[test]
fn time_limits_of_select() {
    everywhere(|| {
        let (tx, rx) = bounded(1);
        let mut select = Select::new();
        select.recv(&rx);
        let (start, limit) = (Instant::now(), Duration::from_millis(3));
        assert!(select.select_timeout(limit).is_err());
        assert!(start.elapsed() >= limit);
        assert!(select.select_deadline(start + 3 * limit).is_err());
        assert!(start.elapsed() >= 3 * limit);
        tx.send(1).unwrap();
        let operation = select.select_deadline(start).expect("ready wins over a deadline that has passed");
        assert_eq!(operation.recv(&rx), Ok(1));
        let timer = after(limit);
        let index = select.recv(&timer);
        let operation = select.select_timeout(Duration::MAX).unwrap();
        assert_eq!(operation.index(), index);
        assert!(operation.recv(&timer).unwrap() >= start + limit);
    });
}

#[test]
fn biased_chooses_the_first_and_fair_each() {
    everywhere(|| {
        let (_, first) = unbuffered::<()>();
        let (_, second) = unbuffered::<()>();
        for biased in [true, false] {
            let mut select = if biased { Select::new_biased() } else { Select::new() };
            select.recv(&first);
            select.recv(&second);
            let mut counts = [0; 2];
            for _ in 0..200 {
                let operation = select.select();
                let index = operation.index();
                counts[index] += 1;
                assert_eq!(operation.recv([&first, &second][index]), Err(RecvError));
            }
            // Fewer than 40 of 200: not once in 10¹⁷ fair runs.
            assert!(if biased { counts == [200, 0] } else { counts[0].min(counts[1]) >= 40 }, "{counts:?}");
        }
    });
}
