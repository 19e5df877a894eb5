//! Signals of the operating system as values in a channel, or as the end of a context: Go's `os/signal`.
//!
//! Handlers do next to nothing: they note the signal and wake a thread of ours through a pipe (the `signal-hook` crate), and that thread
//! tells the subscribers. Worker threads block asynchronous signals, so no goroutine is ever interrupted. A goroutine that wants to signal its own
//! process does it as below, by `kill`: what C's `raise` sends goes to the calling thread alone, a worker, and waits there for ever.
//!
//! After [`Subscription::stop`] has returned nothing more is delivered to that subscription. A signal that finds no subscriber left does what
//! it did before the first subscription.
//!
//! ```
//! use oxigo::{select, signal::{self, Signal}, time};
//! use std::time::Duration;
//!
//! // A server that Ctrl-C or SIGTERM ends in order.
//! let (stop, _subscription) = signal::context(&[Signal::INT, Signal::TERM]);
//! # rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
//! let ticker = time::Ticker::new(Duration::from_secs(60));
//! loop {
//!     select! {
//!         recv(ticker) -> _ => println!("still here"),
//!         recv(stop.done()) -> _ => break,
//!     }
//! }
//! println!("{}", stop.cause().unwrap());
//! ```
#![forbid(unsafe_code)]

// - N1: subscribers are told under the hub's lock, and a subscription ends under it: after `Subscription::stop` has returned nothing
//   is delivered to it. A signal that was on its way finds the subscribers that are left.
// - N2: a signal that was subscribed to once and finds no subscriber does what it did before the first subscription, as if that had never
//   been. Where that was the default, this module takes it; for SIGQUIT that is the dump of `debug::quit`, whose handler has left the signal
//   to this module. A handler of the program's has been called by ours, each time, and what was ignored is ignored.
// - N3: contexts are ended outside the lock, since that may run code of the user's.
// - N4: the channel of `notify` holds no number twice, so there is room for each. Nobody else sends to it, and the oldest is received
//   first: what has not been received is what was sent last. A signal that finds its number there is told by that one, which will be
//   received after the signal came.
// - N5: a subscriber whose channel has no receiver any more is not known to the hub before the next of its signals, and one whose context
//   has ended stays. The detector of deadlocks asks for the others (`is_listened`).

use std::{
    collections::VecDeque,
    error::Error,
    fmt, io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use signal_hook::{
    iterator::{Handle, Signals},
    low_level,
};

use crate::{
    chan::{Receiver, Sender, TrySendError, bounded},
    context::{CancelHandle, Context},
    debug::{quit, sigaction},
    runtime::{alarm, clock},
};

/// A signal's number, with names for those that programs ask for.
///
/// # Examples
///
/// ```
/// use oxigo::signal::Signal;
///
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The terminal has gone; for daemons: read the configuration again.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// Interrupt: Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);
    /// Quit: `Ctrl-\`.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// The polite request to end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// For the program's own use.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// For the program's own use.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// A child process has changed.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// Going on after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Stop: Ctrl-Z.
    pub const TSTP: Self = Self(libc::SIGTSTP);
    /// The terminal has another size.
    pub const WINCH: Self = Self(libc::SIGWINCH);

    /// The signal of this number.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub const fn from_raw(number: i32) -> Self {
        Self(number)
    }

    /// The number.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match low_level::signal_name(self.0) {
            Some(name) => f.pad(name),
            None => write!(f, "signal {}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Returns a receiver of these signals, which replaces their default action.
///
/// It has room for one of each: a signal that comes while an earlier one of its number has not been received yet is dropped, and takes no room from
/// others. To use a channel of your own, or to stop at a certain moment, use [`notify_to`].
///
/// Dropping the receiver and its clones ends the subscription: the next such signal does again what it did before, which for most signals ends the
/// process. So keep the receiver for as long as signals are to be caught, even if nobody receives from it any more.
///
/// What a signal did before is what holds when it is first subscribed to: its default action; nothing, where it was ignored, as under `nohup`
/// or in the background of a shell; or a handler of the program's, which is called also while there are subscriptions.
///
/// # Examples
///
/// ```
/// use oxigo::signal::{self, Signal};
///
/// let hangups = signal::notify(&[Signal::HUP]);
/// # rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).unwrap();
/// // Elsewhere: kill -HUP
/// assert_eq!(hangups.recv(), Ok(Signal::HUP));
/// ```
///
/// # Panics
///
/// When one of the signals cannot be handled: `SIGKILL`, `SIGSTOP`, `SIGSEGV`, `SIGILL`, `SIGFPE`, or no signal at all. When the thread that
/// takes signals cannot be started.
///
/// # Blocking
///
/// Never parks.
#[must_use = "dropping the receiver gives the signals their former actions again"]
#[track_caller]
pub fn notify(signals: &[Signal]) -> Receiver<Signal> {
    let (tx, rx) = bounded(signals.len().max(1));
    subscribe(signals, Target::OneOfEach { tx, unread: VecDeque::new() });
    rx
}

/// Sends these signals to a channel, until the subscription is stopped or dropped, or the channel closed.
///
/// It never waits: a signal that finds the channel full, or no receiver waiting on an unbuffered one, is dropped.
///
/// # Examples
///
/// ```
/// use oxigo::signal::{self, Signal};
///
/// let (tx, rx) = oxigo::bounded(1);
/// let subscription = signal::notify_to(&tx, &[Signal::USR1]);
/// # rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
/// // Elsewhere: kill -USR1
/// assert_eq!(rx.recv(), Ok(Signal::USR1));
/// subscription.stop();
/// ```
///
/// # Panics
///
/// As [`notify`].
///
/// # Blocking
///
/// Never parks.
#[track_caller]
pub fn notify_to(sender: &Sender<Signal>, signals: &[Signal]) -> Subscription {
    Subscription { id: Some(subscribe(signals, Target::Channel(sender.clone()))), cancel: None }
}

/// Returns a context that ends at the first of these signals, and the subscription, which has to be kept; Go's `signal.NotifyContext`. The
/// [cause](Context::cause) of the end is [`SignalReceived`].
///
/// Further signals of these kinds are ignored until the subscription is stopped or dropped, which also ends the context.
///
/// # Examples
///
/// ```
/// use oxigo::signal::{self, Signal};
///
/// let (ctx, _until) = signal::context(&[Signal::INT, Signal::TERM]);
/// # rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM).unwrap();
/// // Serve until somebody presses Ctrl-C or says: kill
/// ctx.done().recv().unwrap_err();
/// assert_eq!(ctx.cause().unwrap().to_string(), "SIGTERM received");
/// ```
///
/// # Panics
///
/// As [`notify`].
///
/// # Blocking
///
/// Never parks.
#[track_caller]
pub fn context(signals: &[Signal]) -> (Context, Subscription) {
    context_below(&Context::background(), signals)
}

/// Like [`context`], but the context is made from `parent`, and ends with it as well.
///
/// # Examples
///
/// ```
/// use oxigo::{context::Context, signal::{self, Signal}};
/// use std::time::Duration;
///
/// // Ends after a minute, or by Ctrl-C.
/// let (minute, cancel) = Context::background().with_timeout(Duration::from_secs(60));
/// let (ctx, _subscription) = signal::context_below(&minute, &[Signal::INT]);
/// assert!(ctx.err().is_none());
/// cancel.cancel();
/// assert!(ctx.err().is_some());
/// ```
///
/// # Panics
///
/// As [`notify`].
///
/// # Blocking
///
/// Never parks.
#[track_caller]
pub fn context_below(parent: &Context, signals: &[Signal]) -> (Context, Subscription) {
    let (ctx, cancel) = parent.with_cancel();
    let cancel = Arc::new(cancel);
    let id = subscribe(signals, Target::Context { ctx: ctx.clone(), cancel: Arc::clone(&cancel) });
    (ctx, Subscription { id: Some(id), cancel: Some(cancel) })
}

/// A delivery of signals that is going on. Dropping this stops it.
#[must_use = "dropping the subscription stops it"]
pub struct Subscription {
    id: Option<u64>,
    cancel: Option<Arc<CancelHandle>>,
}

impl Subscription {
    /// Stops the delivery, and ends the context if there is one. From then on a signal that nobody else subscribes to does what it did [before the
    /// first subscription](notify): unless the program has changed that, its default action. A signal that came earlier is not lost: it is delivered,
    /// or does the same.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(id) = self.id.take() {
            unsubscribe(id);
        }
        if let Some(cancel) = self.cancel.take() {
            cancel.cancel();
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("Subscription { .. }")
    }
}

/// The cause of a context that a signal has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalReceived(pub Signal);

impl fmt::Display for SignalReceived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} received", self.0)
    }
}

impl Error for SignalReceived {}

static HUB: Mutex<Hub> = Mutex::new(Hub { thread: None, subscribers: Vec::new(), next_id: 0, before: Vec::new() });

struct Hub {
    thread: Option<Handle>,
    subscribers: Vec<Subscriber>,
    next_id: u64,
    /// Each signal that was ever subscribed to, with what it did before (N2).
    before: Vec<(Signal, Before)>,
}

/// What a signal did before it was first subscribed to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Its default action, or that of this crate in its place.
    Default,
    /// It was ignored, or had a handler of the program's, which ours calls.
    Other,
}

impl Before {
    fn ask(signal: Signal) -> Self {
        match sigaction::action(signal.0) {
            Some(action) if action != libc::SIG_DFL && !quit::is_handler(action) => Self::Other,
            _ => Self::Default,
        }
    }
}

struct Subscriber {
    id: u64,
    signals: Box<[Signal]>,
    target: Target,
}

enum Target {
    /// The user's own.
    Channel(Sender<Signal>),
    /// N4; `unread` may also begin with some that have been received.
    OneOfEach {
        tx: Sender<Signal>,
        unread: VecDeque<Signal>,
    },
    Context {
        ctx: Context,
        cancel: Arc<CancelHandle>,
    },
}

impl Target {
    /// Whether a signal may still wake who waits for it.
    fn is_open(&self) -> bool {
        match self {
            Self::Channel(tx) | Self::OneOfEach { tx, .. } => !tx.is_closed(),
            Self::Context { ctx, .. } => ctx.err().is_none(),
        }
    }
}

/// Sends without waiting; false when the channel is closed.
fn offer(tx: &Sender<Signal>, signal: Signal) -> bool {
    !matches!(tx.try_send(signal), Err(TrySendError::Disconnected(_)))
}

/// As [`offer`], unless the channel holds this signal already (N4).
fn offer_one(tx: &Sender<Signal>, unread: &mut VecDeque<Signal>, signal: Signal) -> bool {
    let received = unread.len().saturating_sub(tx.len());
    unread.drain(..received);
    if unread.contains(&signal) {
        return true;
    }
    unread.push_back(signal);
    offer(tx, signal)
}

/// N5: whether a signal may still wake somebody.
fn is_listened() -> bool {
    HUB.lock().unwrap_or_else(PoisonError::into_inner).subscribers.iter().any(|subscriber| subscriber.target.is_open())
}

#[track_caller]
fn subscribe(signals: &[Signal], target: Target) -> u64 {
    let mut hub = HUB.lock().unwrap_or_else(PoisonError::into_inner);
    let subscribed = signals.iter().try_for_each(|signal| hub.take(*signal));
    if let Err(error) = subscribed {
        drop(hub);
        panic!("cannot subscribe to {signals:?}: {error}");
    }
    let id = hub.next_id;
    hub.next_id += 1;
    hub.subscribers.push(Subscriber { id, signals: signals.into(), target });
    drop(hub);
    // A signal may come at any time: nobody waits for it for ever.
    alarm::expect_while(is_listened);
    id
}

fn unsubscribe(id: u64) {
    let mut hub = HUB.lock().unwrap_or_else(PoisonError::into_inner);
    let at = hub.subscribers.iter().position(|subscriber| subscriber.id == id);
    let gone = at.map(|at| hub.subscribers.swap_remove(at));
    drop(hub);
    drop(gone);
}

impl Hub {
    /// Has a signal come to us from now on.
    fn take(&mut self, signal: Signal) -> io::Result<()> {
        // Beyond that signal-hook panics; below, the system says what there is not.
        if !(1..128).contains(&signal.0) || signal_hook::consts::FORBIDDEN.contains(&signal.0) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{signal} cannot be handled")));
        }
        let thread = match &self.thread {
            Some(thread) => thread,
            None => {
                let signals = Signals::new([0_i32; 0])?;
                let handle = signals.handle();
                thread::Builder::new().name("oxigo-signals".into()).spawn(move || deliver(signals))?;
                self.thread.insert(handle)
            }
        };
        // Asked before our handler is there.
        let is_known = self.before.iter().any(|(known, _)| *known == signal);
        let before = (!is_known).then(|| (signal, Before::ask(signal)));
        thread.add_signal(signal.0)?;
        self.before.extend(before);
        if signal == Signal::QUIT {
            // After our handler is there: until then the signal ends the process, as it did.
            quit::subscribed();
        }
        Ok(())
    }
}

/// The signal thread.
fn deliver(mut signals: Signals) {
    let _ours = crate::runtime::threads::Ours::register();
    for signal in signals.forever() {
        let signal = Signal(signal);
        let mut hub = HUB.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contexts = Vec::new();
        let mut found = false;
        hub.subscribers.retain_mut(|subscriber| {
            if !subscriber.signals.contains(&signal) {
                return true;
            }
            let stays = match &mut subscriber.target {
                Target::Channel(tx) => offer(tx, signal),
                Target::OneOfEach { tx, unread } => offer_one(tx, unread, signal),
                Target::Context { cancel, .. } => {
                    contexts.push(Arc::clone(cancel));
                    true
                }
            };
            found |= stays;
            stays
        });
        let falls_back = !found && hub.before.contains(&(signal, Before::Default));
        if contexts.is_empty() {
            drop(hub);
        } else {
            // A context has ended before all who wait for it are woken.
            alarm::expect();
            drop(hub);
            // N3.
            for cancel in contexts {
                crate::runtime::panics::quietly(|| cancel.cancel_with(SignalReceived(signal)));
            }
            alarm::no_longer_expect();
            // Perhaps nobody was woken, and the detector has given up looking meanwhile.
            clock::active();
        }
        if falls_back && signal == Signal::QUIT {
            quit::unclaimed();
        }
        if falls_back {
            // N2. An error says that the default is not known; then nothing is done.
            let _ = low_level::emulate_default_handler(signal.0);
        }
    }
}
