//! Random programs of channel operations and their judge, for tests/oracle.rs and for the fuzz target.
//!
//! A program has one to three channels and one to four parties, each with some ends of them, that send, receive, try, wait for a while,
//! select, close, clone and drop. It follows from what decides ([`Choices`]) alone; how its parties interleave does not.
//!
//! - A program of one party has exact answers: each is compared with a naive twin, a queue with two flags ([`Twin`]).
//! - Of several parties each operation is written down with the time at which it began and ended, on a common clock, and the whole
//!   history has to keep the rules in [`History::judge`]: every value is delivered once or comes back, first in first out, never more in
//!   the buffer than there is room, closed means closed, and "full", "empty" and "closed" were true at some moment of the operation.
//! - Every value is dropped exactly once.

#[path = "split_mix.rs"]
mod split_mix;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use oxigo::{
    Builder, Receiver, Sender, bounded,
    chan::{RecvTimeoutError, Select, SendTimeoutError, TryRecvError, TrySendError},
    go, select, select_biased, unbounded, yield_now,
};
use split_mix::SplitMix64;

/// Most values of one party.
const VALUES: usize = 256;

/// What decides at every turn: the bytes that are given, and behind them the numbers of a seed.
pub(crate) struct Choices {
    bytes: std::vec::IntoIter<u8>,
    seed: SplitMix64,
}

impl Choices {
    pub(crate) fn new(bytes: Vec<u8>, seed: u64) -> Self {
        Self { bytes: bytes.into_iter(), seed: SplitMix64(seed) }
    }

    fn next(&mut self) -> u64 {
        self.bytes.next().map_or_else(|| self.seed.next(), u64::from)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// An index into so many, if there are any.
    fn index(&mut self, of: usize) -> Option<usize> {
        if of == 0 { None } else { Some(self.below(of)) }
    }
}

/// What all parties of a program share.
struct World {
    clock: AtomicU64,
    drops: Vec<AtomicU8>,
}

/// A value; it is known by its number, and its drops are counted.
struct Token {
    id: usize,
    world: Arc<World>,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.world.drops[self.id].fetch_add(1, SeqCst);
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Sent(usize),
    /// The value came back: the channel is closed, or has no receiver.
    Refused(usize),
    /// The same of a run-time select, which may have been promised a place before the channel was closed, and held it meanwhile.
    RefusedLate(usize),
    /// The value came back: no room, at once or in time.
    Full(usize),
    Received(usize),
    Closed,
    Empty,
    CloseOk,
    CloseErr,
    NewSender,
    NewReceiver,
    DropSender,
    DropReceiver,
    Len(usize),
    IsClosed(bool),
}

/// One operation in a history, or one arm of a select.
#[derive(Clone, Copy)]
struct Event {
    party: usize,
    channel: usize,
    what: What,
    start: u64,
    end: u64,
    /// A run-time select has sent, or would have: from its first step to its second it keeps a place in the order.
    in_two_steps: bool,
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} party {}: {:?}", self.start, self.end, self.party, self.what)
    }
}

/// A party's ends of one channel.
#[derive(Default)]
struct Ends {
    senders: Vec<Sender<Token>>,
    receivers: Vec<Receiver<Token>>,
}

struct Party {
    me: usize,
    ends: Vec<Ends>,
    choices: Choices,
    world: Arc<World>,
    log: Vec<Event>,
    made: usize,
    /// Received and not yet dropped.
    kept: Vec<Token>,
    /// Every wait has a limit: nobody is going to close what this party waits on.
    limited: bool,
    /// It is the one that closes all channels in the end, so it keeps a sender of each.
    closes: bool,
    /// Only of a program with one party.
    twins: Option<Vec<Twin>>,
}

/// One arm of a run-time select.
enum ArmKind {
    Send(usize),
    Receive(usize),
}

impl Party {
    fn now(&self) -> u64 {
        self.world.clock.fetch_add(1, SeqCst)
    }

    fn token(&mut self) -> Token {
        let id = self.me * VALUES + self.made;
        self.made += 1;
        Token { id, world: Arc::clone(&self.world) }
    }

    /// Writes down how an operation ended.
    fn note(&mut self, channel: usize, what: What, start: u64) {
        let event = Event { party: self.me, channel, what, start, end: self.now(), in_two_steps: false };
        self.log.push(event);
        if let Some(twins) = &mut self.twins {
            let twin = &mut twins[channel];
            assert!(twin.agrees(what), "{event:?} with {twin:?}, after {:?}", self.log);
        }
    }

    fn sent<E>(
        &mut self,
        channel: usize,
        id: usize,
        start: u64,
        result: Result<(), E>,
        why: impl Fn(E) -> (What, Token),
    ) {
        let what = match result {
            Ok(()) => What::Sent(id),
            Err(error) => {
                let (what, token) = why(error);
                assert_eq!(token.id, id, "another value came back");
                what
            }
        };
        self.note(channel, what, start);
    }

    fn received<E>(&mut self, channel: usize, start: u64, result: Result<Token, E>, why: impl Fn(E) -> What) {
        let what = match result {
            Ok(token) => {
                let id = token.id;
                self.kept.push(token);
                if !self.choices.one_in(3) {
                    self.kept.clear();
                }
                What::Received(id)
            }
            Err(error) => why(error),
        };
        self.note(channel, what, start);
    }

    /// Whether this party must not wait without a limit for an operation of that kind.
    fn must_limit(&self, channel: usize, sends: bool) -> bool {
        let stuck = |twins: &Vec<Twin>| !if sends { twins[channel].can_send() } else { twins[channel].can_receive() };
        self.limited || self.twins.as_ref().is_some_and(stuck)
    }

    fn limit(&mut self) -> Duration {
        Duration::from_micros(if self.choices.one_in(6) { [1, 20, 100][self.choices.below(3)] } else { 0 })
    }

    /// Does something that its ends allow.
    fn step(&mut self) {
        if self.made + 8 > VALUES {
            return;
        }
        let channel = self.choices.below(self.ends.len());
        let tx = self.choices.index(self.ends[channel].senders.len());
        let rx = self.choices.index(self.ends[channel].receivers.len());
        match self.choices.below(20) {
            0..5 => {
                if let Some(tx) = tx {
                    self.send(channel, tx);
                }
            }
            5..10 => {
                if let Some(rx) = rx {
                    self.receive(channel, rx);
                }
            }
            10..13 => self.select_list(),
            13..16 => self.select_macro(),
            16 => {
                if self.choices.one_in(3)
                    && let Some(tx) = tx
                {
                    let start = self.now();
                    let what =
                        if self.ends[channel].senders[tx].close().is_ok() { What::CloseOk } else { What::CloseErr };
                    self.note(channel, what, start);
                }
            }
            17 => self.clone_or_drop(channel),
            18 => self.ask(channel, tx, rx),
            _ => yield_now(),
        }
    }

    fn send(&mut self, channel: usize, tx: usize) {
        let token = self.token();
        let id = token.id;
        let start = self.now();
        match self.choices.below(3) {
            0 => {
                let result = self.ends[channel].senders[tx].try_send(token);
                self.sent(channel, id, start, result, |error| match error {
                    TrySendError::Full(token) => (What::Full(id), token),
                    TrySendError::Disconnected(token) => (What::Refused(id), token),
                });
            }
            1 if !self.must_limit(channel, true) => {
                let result = self.ends[channel].senders[tx].send(token);
                self.sent(channel, id, start, result, |error| (What::Refused(id), error.into_inner()));
            }
            _ => {
                let limit = self.limit();
                let begin = Instant::now();
                let result = self.ends[channel].senders[tx].send_timeout(token, limit);
                let elapsed = begin.elapsed();
                self.sent(channel, id, start, result, |error| match error {
                    SendTimeoutError::Timeout(token) => {
                        assert!(elapsed >= limit, "gave up after {elapsed:?} of {limit:?}");
                        (What::Full(id), token)
                    }
                    SendTimeoutError::Disconnected(token) => (What::Refused(id), token),
                });
            }
        }
    }

    fn receive(&mut self, channel: usize, rx: usize) {
        let start = self.now();
        match self.choices.below(3) {
            0 => {
                let result = self.ends[channel].receivers[rx].try_recv();
                self.received(channel, start, result, |error| match error {
                    TryRecvError::Empty => What::Empty,
                    TryRecvError::Disconnected => What::Closed,
                });
            }
            1 if !self.must_limit(channel, false) => {
                let result = self.ends[channel].receivers[rx].recv();
                self.received(channel, start, result, |_| What::Closed);
            }
            _ => {
                let limit = self.limit();
                let begin = Instant::now();
                let result = self.ends[channel].receivers[rx].recv_timeout(limit);
                let elapsed = begin.elapsed();
                self.received(channel, start, result, |error| match error {
                    RecvTimeoutError::Timeout => {
                        assert!(elapsed >= limit, "gave up after {elapsed:?} of {limit:?}");
                        What::Empty
                    }
                    RecvTimeoutError::Disconnected => What::Closed,
                });
            }
        }
    }

    /// A run-time select over one to five arms, any of which may share a channel.
    fn select_list(&mut self) {
        let mut arms = Vec::new();
        for _ in 0..=self.choices.below(5) {
            let channel = self.choices.below(self.ends.len());
            let ends = &self.ends[channel];
            if self.choices.one_in(2) {
                if !ends.senders.is_empty() {
                    arms.push((channel, ArmKind::Send(self.choices.below(ends.senders.len()))));
                }
            } else if !ends.receivers.is_empty() {
                arms.push((channel, ArmKind::Receive(self.choices.below(ends.receivers.len()))));
            }
        }
        if arms.is_empty() {
            return;
        }
        let must_limit = arms.iter().all(|(channel, kind)| self.must_limit(*channel, matches!(kind, ArmKind::Send(_))));
        let (how, biased, limit) = (self.choices.below(3), self.choices.one_in(4), self.limit());
        let token = self.token();
        let start = self.now();
        // The ends are lent to the select while `self` is written to.
        let ends = std::mem::take(&mut self.ends);
        {
            let mut list = if biased { Select::new_biased() } else { Select::new() };
            for (channel, kind) in &arms {
                match kind {
                    ArmKind::Send(at) => list.send(&ends[*channel].senders[*at]),
                    ArmKind::Receive(at) => list.recv(&ends[*channel].receivers[*at]),
                };
            }
            let chosen = match how {
                0 => list.try_select().ok(),
                1 if !must_limit => Some(list.select()),
                _ => {
                    let begin = Instant::now();
                    let chosen = list.select_timeout(limit).ok();
                    assert!(chosen.is_some() || begin.elapsed() >= limit);
                    chosen
                }
            };
            match chosen {
                None => {
                    for (channel, kind) in &arms {
                        let what = if let ArmKind::Send(_) = kind { What::Full(token.id) } else { What::Empty };
                        self.note(*channel, what, start);
                    }
                }
                Some(chosen) => {
                    let (channel, kind) = &arms[chosen.index()];
                    match kind {
                        ArmKind::Send(at) => {
                            let id = token.id;
                            let result = chosen.send(&ends[*channel].senders[*at], token);
                            self.sent(*channel, id, start, result, |error| (What::RefusedLate(id), error.into_inner()));
                            self.log.last_mut().expect("noted just now").in_two_steps = true;
                        }
                        ArmKind::Receive(at) => {
                            let result = chosen.recv(&ends[*channel].receivers[*at]);
                            self.received(*channel, start, result, |_| What::Closed);
                        }
                    }
                }
            }
        }
        self.ends = ends;
    }

    /// A `select!` of one or two sends and two receives, or of what this party has.
    fn select_macro(&mut self) {
        let [a, b, c] = [(); 3].map(|()| self.choices.below(self.ends.len()));
        let ends = std::mem::take(&mut self.ends);
        let tx = self.choices.index(ends[a].senders.len()).map(|at| &ends[a].senders[at]);
        let [rx, ry] = [b, c]
            .map(|channel| self.choices.index(ends[channel].receivers.len()).map(|at| &ends[channel].receivers[at]));
        let (how, limit) = (self.choices.below(4), self.limit());
        match (tx, rx, ry) {
            (Some(tx), Some(rx), _) => {
                let must_limit = self.must_limit(a, true) && self.must_limit(b, false);
                let token = self.token();
                let id = token.id;
                let mut slot = Some(token);
                let start = self.now();
                let refused = |error: oxigo::chan::SendError<Token>| (What::Refused(id), error.into_inner());
                match how {
                    0 => select! {
                        send(tx, from slot) -> result => self.sent(a, id, start, result, refused),
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        default => {
                            self.note(a, What::Full(id), start);
                            self.note(b, What::Empty, start);
                        }
                    },
                    1 if !must_limit => select! {
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        send(tx, from slot) -> result => self.sent(a, id, start, result, refused),
                    },
                    2 if !must_limit => select_biased! {
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        send(tx, slot.take().unwrap()) -> result => {
                            self.sent(a, id, start, result, refused);
                        }
                    },
                    _ => select! {
                        send(tx, from slot) -> result => self.sent(a, id, start, result, refused),
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        default(limit) => {
                            self.note(a, What::Full(id), start);
                            self.note(b, What::Empty, start);
                        }
                    },
                }
                let gone = self
                    .log
                    .last()
                    .is_some_and(|event| matches!(event.what, What::Sent(sent) | What::Refused(sent) if sent == id));
                // The biased one evaluates its value on entry, as every plain value.
                let plain = how == 2 && !must_limit;
                assert_eq!(slot.is_none(), gone || plain, "a slot is emptied only when its arm is chosen");
            }
            (_, Some(rx), Some(ry)) => {
                let must_limit = self.must_limit(b, false) && self.must_limit(c, false);
                let start = self.now();
                match how {
                    0 => select! {
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        recv(ry) -> result => self.received(c, start, result, |_| What::Closed),
                        default => [b, c].into_iter().for_each(|channel| self.note(channel, What::Empty, start)),
                    },
                    1 if !must_limit => select! {
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        recv(ry) -> result => self.received(c, start, result, |_| What::Closed),
                    },
                    _ => select_biased! {
                        recv(rx) -> result => self.received(b, start, result, |_| What::Closed),
                        recv(ry) -> result => self.received(c, start, result, |_| What::Closed),
                        default(limit) => [b, c].into_iter().for_each(|channel| self.note(channel, What::Empty, start)),
                    },
                }
            }
            _ => {}
        }
        self.ends = ends;
    }

    fn clone_or_drop(&mut self, channel: usize) {
        let start = self.now();
        let ends = &mut self.ends[channel];
        let what = match self.choices.below(4) {
            0 if !ends.senders.is_empty() => {
                ends.senders.push(ends.senders[0].clone());
                What::NewSender
            }
            1 if !ends.receivers.is_empty() => {
                ends.receivers.push(ends.receivers[0].clone());
                What::NewReceiver
            }
            2 if ends.senders.len() > usize::from(self.closes) && ends.senders.pop().is_some() => What::DropSender,
            3 if ends.receivers.pop().is_some() => What::DropReceiver,
            _ => return,
        };
        self.note(channel, what, start);
    }

    fn ask(&mut self, channel: usize, tx: Option<usize>, rx: Option<usize>) {
        let start = self.now();
        let ends = &self.ends[channel];
        let (len, closed) = match (tx, rx) {
            (Some(tx), _) => (ends.senders[tx].len(), ends.senders[tx].is_closed()),
            (None, Some(rx)) => (ends.receivers[rx].len(), ends.receivers[rx].is_closed()),
            (None, None) => return,
        };
        self.note(channel, What::Len(len), start);
        self.note(channel, What::IsClosed(closed), start);
    }

    /// Drops all ends, as written down as any other operation.
    fn leave(mut self) -> Vec<Event> {
        for channel in 0..self.ends.len() {
            while !self.ends[channel].senders.is_empty() {
                let start = self.now();
                self.ends[channel].senders.pop();
                self.note(channel, What::DropSender, start);
            }
            while !self.ends[channel].receivers.is_empty() {
                let start = self.now();
                self.ends[channel].receivers.pop();
                self.note(channel, What::DropReceiver, start);
            }
        }
        self.log
    }
}

/// A channel as simple as can be.
#[derive(Clone, Debug)]
struct Twin {
    queue: VecDeque<usize>,
    /// None: without bound.
    capacity: Option<usize>,
    closed: bool,
    senders: usize,
    receivers: usize,
}

impl Twin {
    fn refuses(&self) -> bool {
        self.closed || self.receivers == 0
    }

    fn has_room(&self) -> bool {
        self.capacity.is_none_or(|capacity| self.queue.len() < capacity)
    }

    fn can_send(&self) -> bool {
        self.refuses() || self.has_room()
    }

    fn can_receive(&self) -> bool {
        self.closed || !self.queue.is_empty()
    }

    /// Whether this is how the operation ends here too; it is done here as well.
    fn agrees(&mut self, what: What) -> bool {
        match what {
            What::Sent(id) => {
                let agrees = !self.refuses() && self.has_room();
                self.queue.push_back(id);
                agrees
            }
            What::Refused(_) | What::RefusedLate(_) => self.refuses(),
            What::Full(_) => !self.can_send(),
            What::Received(id) => self.queue.pop_front() == Some(id),
            What::Closed => self.closed && self.queue.is_empty(),
            What::Empty => !self.can_receive(),
            What::CloseOk => !std::mem::replace(&mut self.closed, true),
            What::CloseErr => self.closed,
            What::NewSender => {
                self.senders += 1;
                true
            }
            What::NewReceiver => {
                self.receivers += 1;
                true
            }
            What::DropSender => {
                self.senders -= 1;
                self.closed |= self.senders == 0;
                true
            }
            What::DropReceiver => {
                self.receivers -= 1;
                if self.receivers == 0 {
                    self.queue.clear();
                }
                true
            }
            What::Len(len) => self.queue.len() == len,
            What::IsClosed(closed) => self.refuses() == closed,
        }
    }
}

/// The history of one channel, which had so many ends when it began.
struct History<'a> {
    capacity: Option<usize>,
    senders: usize,
    receivers: usize,
    events: &'a [Event],
}

impl History<'_> {
    fn all(&self, which: impl Fn(&What) -> bool) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| which(&event.what))
    }

    fn sends(&self) -> impl Iterator<Item = &Event> {
        self.all(|what| matches!(what, What::Sent(_)))
    }

    fn receives(&self) -> impl Iterator<Item = &Event> {
        self.all(|what| matches!(what, What::Received(_)))
    }

    /// Whether all ends of a side are gone, each drop judged by `gone`.
    fn side_gone(&self, first: usize, new: What, dropped: What, gone: impl Fn(&Event) -> bool) -> bool {
        let ends = first + self.all(|what| *what == new).count();
        self.all(|what| *what == dropped).filter(|event| gone(event)).count() == ends
    }

    fn may_be_closed(&self, end: u64) -> bool {
        self.all(|what| *what == What::CloseOk).any(|close| close.start < end)
            || self.side_gone(self.senders, What::NewSender, What::DropSender, |drop| drop.start < end)
    }

    fn is_closed(&self, start: u64) -> bool {
        self.all(|what| *what == What::CloseOk).any(|close| close.end < start)
            || self.side_gone(self.senders, What::NewSender, What::DropSender, |drop| drop.end < start)
    }

    fn may_be_deaf(&self, end: u64) -> bool {
        self.side_gone(self.receivers, What::NewReceiver, What::DropReceiver, |drop| drop.start < end)
    }

    fn is_deaf(&self, start: u64) -> bool {
        self.side_gone(self.receivers, What::NewReceiver, What::DropReceiver, |drop| drop.end < start)
    }

    /// How many values at least, and how many values and promised places at most, may be in the channel at some moment of an operation.
    fn values(&self, event: &Event) -> (usize, usize) {
        let in_before = self.sends().filter(|send| send.end < event.start).count();
        let in_ever = self.sends().filter(|send| send.start < event.end).count();
        let out_before = self.receives().filter(|receive| receive.end < event.start).count();
        let out_ever = self.receives().filter(|receive| receive.start < event.end).count();
        let promised = self
            .all(|what| matches!(what, What::RefusedLate(_)))
            .filter(|refused| refused.start < event.end && event.start < refused.end)
            .count();
        (in_before.saturating_sub(out_ever), in_ever.saturating_sub(out_before) + promised)
    }

    /// How many values at least are there for an operation: not behind a place that is promised meanwhile.
    fn there(&self, event: &Event) -> usize {
        let meanwhile = |send: &&Event| send.in_two_steps && send.start < event.end && event.start < send.end;
        let promised = self.events.iter().filter(meanwhile).map(|send| send.start).min();
        let until = promised.map_or(event.start, |promised| promised.min(event.start));
        let in_before = self.sends().filter(|send| send.end < until).count();
        in_before.saturating_sub(self.receives().filter(|receive| receive.start < event.end).count())
    }

    /// The rules. What is wrong is told.
    fn judge(&self) -> Result<(), String> {
        let rule = |holds: bool, text: &str, events: &[&Event]| {
            if holds { Ok(()) } else { Err(format!("{text}: {events:?}")) }
        };
        rule(self.all(|what| *what == What::CloseOk).count() <= 1, "closed twice", &[])?;
        for event in self.events {
            let (start, end) = (event.start, event.end);
            let refuses = self.is_closed(start) || self.is_deaf(start);
            let may_refuse = self.may_be_closed(end) || self.may_be_deaf(end);
            let (least, most) = self.values(event);
            match event.what {
                What::Sent(id) => {
                    rule(!refuses, "sent on a closed channel", &[event])?;
                    let same = self.all(|what| *what == What::Sent(id)).count();
                    rule(same == 1, "sent twice", &[event])?;
                    let sent = self.sends().filter(|send| send.end <= end).count();
                    let received = self.receives().filter(|receive| receive.start < end).count();
                    let held = sent.saturating_sub(received);
                    rule(
                        self.capacity.is_none_or(|capacity| held <= capacity),
                        "more sent than there is room",
                        &[event],
                    )?;
                }
                What::Refused(_) | What::RefusedLate(_) => rule(may_refuse, "refused by an open channel", &[event])?,
                What::Full(_) => {
                    rule(!refuses, "full, but closed", &[event])?;
                    rule(self.capacity.is_some_and(|capacity| most >= capacity), "full, but there was room", &[event])?;
                }
                What::Received(id) => {
                    let mut sends = self.all(|what| *what == What::Sent(id));
                    let send = sends.next().ok_or_else(|| format!("received, but not sent: {event:?}"))?;
                    rule(send.start < end, "received before it was sent", &[send, event])?;
                    rule(
                        self.capacity != Some(0) || start < send.end,
                        "an unbuffered send ended before its receive began",
                        &[send, event],
                    )?;
                    let same = self.all(|what| *what == What::Received(id)).count();
                    rule(same == 1, "received twice", &[event])?;
                }
                What::Closed => {
                    rule(self.may_be_closed(end), "closed, but it was open", &[event])?;
                    rule(least == 0, "closed, but not empty", &[event])?;
                    let late = self.receives().find(|receive| receive.start > end);
                    rule(late.is_none(), "received after the end", &[event])?;
                    let late = self.sends().find(|send| send.start > end);
                    rule(late.is_none(), "sent after the end", &[event])?;
                }
                What::Empty => {
                    rule(!self.is_closed(start), "empty, but closed", &[event])?;
                    rule(self.there(event) == 0, "empty, but there was a value", &[event])?;
                }
                What::CloseErr => {
                    let closed = self.all(|what| *what == What::CloseOk).any(|close| close.start < end);
                    rule(closed, "closed before, but by nobody", &[event])?;
                }
                What::Len(len) => {
                    rule(self.capacity.is_none_or(|capacity| len <= capacity), "longer than its capacity", &[event])?;
                    rule(len <= most && (len >= least || self.may_be_deaf(end)), "a wrong length", &[event])?;
                }
                What::IsClosed(true) => rule(may_refuse, "closed, but it was open", &[event])?,
                What::IsClosed(false) => rule(!refuses, "open, but it was closed", &[event])?,
                What::CloseOk | What::NewSender | What::NewReceiver | What::DropSender | What::DropReceiver => {}
            }
        }
        // First in, first out: what was sent before is received, and not after.
        let received = |send: &Event| {
            let What::Sent(id) = send.what else { unreachable!("a send") };
            self.all(move |what| *what == What::Received(id)).next()
        };
        for second in self.sends() {
            let Some(second_out) = received(second) else { continue };
            for first in self.sends().filter(|first| first.end < second.start) {
                let text = "overtaken";
                match received(first) {
                    None => return rule(false, "lost", &[first, second, second_out]),
                    Some(first_out) => {
                        let in_order = first_out.start <= second_out.end;
                        rule(in_order, text, &[first, second, first_out, second_out])?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Most parties of a program, the main one not counted.
pub(crate) const PARTIES: usize = 4;

/// Runs a program and judges it. `choices` decide on its shape, `party` gives what decides in each party; the last of them, whose index
/// is the number of the others, is the main one.
pub(crate) fn program(mut choices: Choices, mut party: impl FnMut(usize) -> Choices) {
    let capacities: Vec<_> =
        (0..=choices.below(3)).map(|_| [Some(0), Some(0), Some(1), Some(2), Some(5), None][choices.below(6)]).collect();
    let parties = if choices.one_in(4) { 1 } else { 2 + choices.below(PARTIES - 1) };
    let single = parties == 1;
    // Without a main party that closes all channels in the end, ends disappear by being dropped only.
    let limited = !single && choices.one_in(8);
    let world = Arc::new(World {
        clock: AtomicU64::new(0),
        drops: (0..(parties + 1) * VALUES).map(|_| AtomicU8::new(0)).collect(),
    });
    let mut everybody: Vec<Party> = (0..=parties)
        .map(|me| Party {
            me,
            ends: Vec::new(),
            choices: party(me),
            world: Arc::clone(&world),
            log: Vec::new(),
            made: 0,
            kept: Vec::new(),
            limited: limited || me == parties,
            closes: me == parties,
            twins: None,
        })
        .collect();
    let counts = deal_ends(&capacities, &mut everybody, limited, &mut choices);
    let mut main = everybody.pop().expect("one more than there are parties");
    let mut events = if single {
        run_alone(everybody.pop().expect("one party"), &capacities, &mut choices)
    } else {
        run_together(everybody, &mut main, &mut choices)
    };
    events.extend(main.leave());
    events.sort_by_key(|event| event.start);
    judge_channels(&capacities, &counts, &events);
    judge_drops(&world, &events);
}

/// Makes the channels and gives their ends to the parties, of which the last is the main one; how many senders and receivers each channel has.
fn deal_ends(
    capacities: &[Option<usize>],
    everybody: &mut [Party],
    limited: bool,
    choices: &mut Choices,
) -> Vec<(usize, usize)> {
    let parties = everybody.len() - 1;
    let single = parties == 1;
    let mut counts = Vec::new();
    for capacity in capacities {
        let (tx, rx) = capacity.map_or_else(unbounded, bounded);
        let (mut senders, mut receivers) = (0, 0);
        for party in &mut *everybody {
            let is_main = party.me == parties;
            let mut ends = Ends::default();
            if if is_main { !limited && !single } else { single || !choices.one_in(3) } {
                senders += 1;
                ends.senders.push(tx.clone());
            }
            if if is_main { !limited && !single && choices.one_in(2) } else { single || !choices.one_in(3) } {
                receivers += 1;
                ends.receivers.push(rx.clone());
            }
            party.ends.push(ends);
        }
        counts.push((senders, receivers));
    }
    counts
}

/// A single party, beside whom naive twins of the channels say what each operation has to give.
fn run_alone(mut party: Party, capacities: &[Option<usize>], choices: &mut Choices) -> Vec<Event> {
    let twin = |capacity: &Option<usize>| Twin {
        queue: VecDeque::new(),
        capacity: *capacity,
        closed: false,
        senders: 1,
        receivers: 1,
    };
    party.twins = Some(capacities.iter().map(twin).collect());
    (0..10 + choices.below(40)).for_each(|_| party.step());
    party.leave()
}

/// Several parties on goroutines and threads, and the main one, which closes all channels in the end and receives what is left.
fn run_together(parties: Vec<Party>, main: &mut Party, choices: &mut Choices) -> Vec<Event> {
    let count = parties.len();
    let (done, logs) = bounded(count);
    for mut party in parties {
        let steps = 3 + choices.below(16);
        let done = done.clone();
        let body = move || {
            (0..steps).for_each(|_| party.step());
            let log = party.leave();
            // Not left when a step panics: the main party finds that a log is missing.
            let _ = done.send(log);
        };
        match choices.below(16) {
            0 => drop(thread::spawn(body)),
            1..8 => drop(go(body)),
            _ => drop(Builder::new().spread().spawn(body).expect("a goroutine")),
        }
    }
    drop(done);
    for _ in 0..choices.below(40) {
        if choices.one_in(4) {
            main.step();
        } else {
            yield_now();
        }
    }
    for channel in 0..main.ends.len() {
        let start = main.now();
        if let Some(tx) = main.ends[channel].senders.first() {
            let what = if tx.close().is_ok() { What::CloseOk } else { What::CloseErr };
            main.note(channel, what, start);
        }
    }
    let events = (0..count).flat_map(|_| logs.recv().expect("a party has panicked")).collect();
    for channel in 0..main.ends.len() {
        while !main.ends[channel].receivers.is_empty() && !main.ends[channel].senders.is_empty() {
            let start = main.now();
            let result = main.ends[channel].receivers[0].recv();
            let ended = result.is_err();
            main.received(channel, start, result, |_| What::Closed);
            if ended {
                break;
            }
        }
    }
    events
}

fn judge_channels(capacities: &[Option<usize>], counts: &[(usize, usize)], events: &[Event]) {
    for (channel, (capacity, (senders, receivers))) in capacities.iter().zip(counts).enumerate() {
        let mine: Vec<_> = events.iter().filter(|event| event.channel == channel).copied().collect();
        let history = History { capacity: *capacity, senders: *senders, receivers: *receivers, events: &mine };
        if let Err(text) = history.judge() {
            let lines: Vec<_> = mine.iter().map(|event| format!("  {event:?}")).collect();
            panic!("channel {channel}, capacity {capacity:?}: {text}\n{}", lines.join("\n"));
        }
    }
}

/// Every value that was made is dropped once.
fn judge_drops(world: &World, events: &[Event]) {
    for (id, drops) in world.drops.iter().enumerate() {
        let made = events.iter().any(|event| {
            matches!(event.what, What::Sent(n) | What::Refused(n) | What::RefusedLate(n) | What::Full(n) | What::Received(n) if n == id)
        });
        let drops = drops.load(SeqCst);
        assert!(drops == 1 || drops == 0 && !made, "value {id} was dropped {drops} times\n{events:#?}");
    }
}
