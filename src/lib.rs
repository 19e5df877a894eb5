//! Go's concurrency for Rust: goroutines, channels, `select!`, locks, timers, contexts and sockets, without `async`.
//!
//! A goroutine is a stackful coroutine. It may block anywhere; its thread then runs other goroutines. It starts on any worker thread and from
//! then on stays on that thread, so values made inside it need not be `Send`.
//!
//! ```
//! use oxigo::{WaitGroup, go, unbuffered};
//!
//! let (tx, rx) = unbuffered();
//! let done = WaitGroup::new();
//! for n in 1..=3 {
//!     let tx = tx.clone();
//!     done.go(move || tx.send(n * n).unwrap());
//! }
//! drop(tx);
//! assert_eq!(rx.iter().sum::<i32>(), 14);
//! done.wait();
//! assert_eq!(go(|| 6 * 7).join().unwrap(), 42);
//! ```
//!
//! | here | what | in the manner of |
//! |---|---|---|
//! | the root | [`go`], [`scope`](scope()), [`Runtime`], [`park`], [`blocking`], [`goroutine_local!`] | `std::thread` |
//! | [`chan`] | channels, many values at once ([`recv_many`](Receiver::recv_many), [`send_many`](Sender::send_many)), [`select!`], [`chan::Select`] | the crate `crossbeam-channel`, and Go's `close` |
//! | [`sync`] | [`WaitGroup`], locks, once, semaphore, groups | `parking_lot`, `std::sync`, Go's `sync` |
//! | [`time`] | sleeping, timers, tickers | Go's `time` |
//! | [`context`] | cancellation, deadlines, values | Go's `context` |
//! | [`net`] | sockets | `std::net` |
//! | [`io`] | pipes of the system, copying between descriptors | `std::io`, Go's `io.Copy` |
//! | [`fs`] | files and directories, by [`blocking`] | `std::fs`, Go's `filepath` |
//! | [`process`] | starting processes and waiting for them | `std::process` |
//! | [`signal`] | signals of the system | Go's `os/signal` |
//! | [`future`] | running a future of an `async` crate | `block_on` of the crate `pollster` |
//! | [`synctest`] | tests with a clock that jumps | Go's `testing/synctest` |
//! | [`debug`] | dumps, leaks, suspects, labels, metrics, execution traces | Go's `runtime` and `runtime/trace` |
//!
//! # Blocking
//!
//! Everything works on plain threads too: where a goroutine would be parked, a thread is blocked. The documentation of each function has a section
//! of this name, which says whether the function may wait. For [`sync::Mutex`] and [`sync::RwLock`], whose methods are `lock_api`'s, that of the type
//! has it.
//!
//! # Panics
//!
//! A goroutine's panic is printed at once, as a thread's is, below a line that names the goroutine (`goroutine 17 [name]:`). Its payload is kept
//! for whoever [joins](JoinHandle::join) the goroutine, and the other goroutines go on; [`PanicPolicy::Abort`] ends the process instead.
//!
//! That line comes from a panic hook, which is put around the program's own when the first goroutine is started. A hook that is set later
//! replaces both, and the line is lost; even the first line of a `#[oxigo::main]` function is too late. So set a hook before: in a plain `main`,
//! which then calls [`run`]. Where that is not possible, let the new hook call the one that [`take_hook`](std::panic::take_hook) returns:
//!
//! ```
//! // In a plain `main`:
//! std::panic::set_hook(Box::new(|info| eprintln!("we are sorry: {info}")));
//! oxigo::run(|| {
//!     // Goroutines have started, so this hook calls the previous one, which prints the line.
//!     let before = std::panic::take_hook();
//!     std::panic::set_hook(Box::new(move |info| {
//!         eprintln!("one more panic");
//!         before(info);
//!     }));
//!     assert!(oxigo::go(|| panic!("no luck")).join().is_err());
//! });
//! ```
//!
//! A hook that was set before may also wait: in it, operations of this crate block the thread. In one that is set later a goroutine would park,
//! and the next panic on its worker would end the process.
//!
//! # Features
//!
//! All are off by default.
//!
//! - `arc_lock`: guards that own their lock through an `Arc`, like `parking_lot`'s feature of this name: `lock_arc` of [`sync::Mutex`], `read_arc`,
//!   `write_arc` and `upgradable_read_arc` of [`sync::RwLock`], and their timed forms.
//! - `metrics`: publishes [`debug::metrics`](debug::metrics()) through the facade crate [`metrics`](https://docs.rs/metrics).
//! - `tracing`: spans of the crate [`tracing`](https://docs.rs/tracing) follow the goroutine that has entered them, not its thread. While a
//!   goroutine waits, its spans are exited; when it goes on, they are entered again. A goroutine begins outside of all spans. This works with the
//!   global subscriber: one that is set for a thread serves all goroutines of that thread. A subscriber must not panic when spans are
//!   entered and exited; operations of this crate that it calls block the worker.
//!
//! # Fork
//!
//! A process that has started goroutines may fork in order to `exec`, as [`std::process::Command`] does. In a forked child that goes on without
//! `exec` the workers are missing: whatever would wait or start a goroutine there panics with a message that says so. Fork first, then start.
//!
//! A child that `std::process` starts on a goroutine, inside [`blocking`], or on a thread that one of them has started, inherits that workers block
//! signals: SIGTERM and Ctrl-C do not end it. [`process::Command`] unblocks them in the child.
//!
//! # Allocators and signal handlers
//!
//! A global allocator must not call into this crate: workers allocate memory between goroutines, and a lock that the allocator waited for there may be held by
//! one of their own; operations allocate in the middle of their waits, which would be two waits in one. A signal handler must not either; [`signal`] says
//! what to do in place of one.

#[cfg(not(unix))]
compile_error!("oxigo needs a Unix system");

/// The programs in the README are tested like the examples here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod chan;
mod facade;
pub(crate) mod runtime;
mod util;

#[doc(hidden)]
pub mod __private {
    //! What macros expand to. Not public interface.
    #[cfg(not(loom))]
    pub use crate::attributes::{main, test};
    pub use crate::select::macros;
    pub use oxigo_macros::{select_arms, select_biased_arms};
}

#[cfg(not(loom))]
mod attributes;
pub mod context;
#[cfg(not(loom))]
mod coroutine;
#[cfg(not(loom))]
pub mod debug;
#[cfg(not(loom))]
pub mod fs;
#[cfg(not(loom))]
pub mod future;
#[cfg(not(loom))]
pub mod io;
#[cfg(not(loom))]
mod local;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
pub mod process;
pub(crate) mod select;
#[cfg(all(unix, not(loom)))]
pub mod signal;
#[cfg(not(loom))]
mod stack;
pub mod sync;
#[cfg(not(loom))]
pub mod synctest;
pub mod time;

pub use chan::{Chan, Receiver, Sender, bounded, unbounded, unbuffered};
#[cfg(not(loom))]
pub use context::{JoinCtxError, scope_ctx};
#[cfg(not(loom))]
pub use local::{AccessError, LocalKey};
pub use oxigo_macros::{main, test};
#[cfg(not(loom))]
pub use runtime::{
    Builder, Deadlock, Goroutine, Id, JoinHandle, PanicPolicy, Runtime, RuntimeBuilder, Scope, ScopedJoinHandle,
    blocking, current, exit, go, num_goroutines, park, park_timeout, run, scope, yield_now,
};
pub use sync::WaitGroup;

/// Waits until one of several channel operations can go on, and performs it. Go's `select`.
///
/// ```text
/// select! {
///     recv(receiver) -> result => body,          // result: Result<T, RecvError>
///     send(sender, value) -> result => body,     // result: Result<(), SendError<T>>
///     send(sender, from slot) -> result => body, // slot: Option<T>, emptied only if this arm is chosen
///     default => body,                           // when no arm can go on; default(duration): when none can within that time
/// }
/// ```
///
/// When several can go on, one of them is chosen at random, each with the same chance. Without `default`, `select!` waits. Operands and values are
/// evaluated once, in order, on entry; a value that was not sent is dropped before the chosen arm's body runs, unless it came `from` a slot. Bodies
/// are plain code: `break`, `continue`, `return` and `?` work in them. To disable an arm, receive from [`never()`](chan::never).
///
/// An arm on a closed channel can always go on, with an error, and a channel closes when its last sender is dropped. In a loop, replace such a
/// receiver by `never()`.
///
/// With a plain `default`, `select!` never lets other goroutines run, and nothing preempts a goroutine. So a loop that polls, as Go's
/// `for { select { case <-stop: return; default: } … }` does, calls [`yield_now`] in each round unless it waits for something else there:
///
/// ```
/// let (stop, stopped) = oxigo::unbuffered::<()>();
/// let rounds = oxigo::go(move || {
///     let mut rounds = 0_u64;
///     loop {
///         oxigo::select! {
///             recv(stopped) -> _ => return rounds,
///             default => oxigo::yield_now(),
///         }
///         rounds += 1; // some work
///     }
/// });
/// drop(stop);
/// println!("{} rounds", rounds.join().unwrap());
/// ```
///
/// An operand is an end of a channel, a two-way [`Chan`], a [`Timer`](time::Timer) or a [`Ticker`](time::Ticker), or what dereferences to one, such
/// as a reference or an `Arc`.
///
/// Several arms may share a slot, to offer one value on several channels: at most one of them takes it. Arms share a slot if they write it in the
/// same way, and it is a variable, a field (`self.slot`, `pair.0`), or what such a place refers to (`*slot`). The slot is borrowed when the first
/// of these arms is evaluated, so later operands cannot use it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let (numbers, received) = oxigo::unbuffered();
/// let (quit, stop) = oxigo::unbuffered::<()>();
/// oxigo::go(move || {
///     for n in 1..=3 {
///         numbers.send(n).unwrap();
///     }
///     quit.close().unwrap();
///     # std::mem::forget(numbers);
/// });
/// let mut sum = 0;
/// loop {
///     oxigo::select! {
///         recv(received) -> n => sum += n.unwrap(),
///         recv(stop) -> _ => break,
///         default(Duration::from_secs(60)) => panic!("nothing for a minute"),
///     }
/// }
/// assert_eq!(sum, 6);
/// ```
///
/// One value for whoever takes it first:
///
/// ```
/// use oxigo::{WaitGroup, select, unbuffered};
///
/// let (first, from_first) = unbuffered();
/// let (second, from_second) = unbuffered();
/// let tasks = WaitGroup::new();
/// for requests in [from_first, from_second] {
///     tasks.go(move || requests.iter().for_each(|n| println!("{n}")));
/// }
/// for n in 1..=3 {
///     let mut request = Some(n);
///     select! {
///         send(first, from request) -> sent => sent.unwrap(),
///         send(second, from request) -> sent => sent.unwrap(),
///     }
///     assert_eq!(request, None);
/// }
/// drop((first, second));
/// tasks.wait();
/// ```
///
/// # Panics
///
/// When the slot of a `from` is empty on entry.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread. With a plain `default` it does neither, unless a receive on an unbuffered channel meets a run-time
/// [`Select`](chan::Select) that waits to send: then it waits for that value, as [`try_recv`](chan::Receiver::try_recv) does, even beyond the time
/// of `default(duration)`.
#[macro_export]
macro_rules! select {
    ($($arms:tt)*) => {
        $crate::__private::select_arms!(($crate) $($arms)*)
    };
}

/// Like [`select!`], but of several operations that can go on, it chooses the first.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::bounded(2);
/// tx.send(1).unwrap();
/// // Both arms can go on; the first is taken.
/// oxigo::select_biased! {
///     recv(rx) -> n => assert_eq!(n, Ok(1)),
///     send(tx, 2) -> _ => unreachable!(),
/// }
/// ```
///
/// # Panics
///
/// As [`select!`].
///
/// # Blocking
///
/// As [`select!`].
#[macro_export]
macro_rules! select_biased {
    ($($arms:tt)*) => {
        $crate::__private::select_biased_arms!(($crate) $($arms)*)
    };
}
