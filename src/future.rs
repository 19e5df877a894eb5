//! Running futures: [`block_on`] polls one on the calling goroutine and parks the goroutine, never its worker, while the future waits.
//!
//! ```
//! use oxigo::future::block_on;
//! use std::{future::poll_fn, mem, sync::{Arc, Mutex}, task::{Poll, Waker}, thread};
//!
//! // What crates that are `async` do inside: somebody answers, and wakes who waits.
//! #[derive(Default)]
//! struct Place {
//!     answer: Option<u32>,
//!     waker: Option<Waker>,
//! }
//!
//! let place: Arc<Mutex<Place>> = Arc::default();
//! let elsewhere = place.clone();
//! thread::spawn(move || {
//!     let Place { waker, .. } = mem::replace(&mut *elsewhere.lock().unwrap(), Place { answer: Some(42), waker: None });
//!     waker.inspect(Waker::wake_by_ref);
//! });
//! let answer = poll_fn(move |cx| {
//!     let mut place = place.lock().unwrap();
//!     place.waker = Some(cx.waker().clone());
//!     place.answer.map_or(Poll::Pending, Poll::Ready)
//! });
//! assert_eq!(oxigo::run(|| block_on(async { answer.await + 1 })), 43);
//! ```
//!
//! # What works
//!
//! Futures that need no runtime around them: `async` blocks, those of the crates `futures`, `async-channel` and `event-listener`, tokio's channels,
//! locks and join handles. They need be neither `Send` nor `'static`.
//!
//! This is no executor and no reactor. There is no `spawn` here: to run two futures at a time, start two goroutines with a `block_on` each. Futures
//! that need the sockets, timers or tasks of a runtime, as tokio's `TcpStream` and `sleep`, hyper, reqwest, tonic and sqlx do, need that runtime
//! beside this one. It runs on threads of its own, and there are two ways to use it.
//!
//! **The future runs there**, and the goroutine waits for its end. This is the simple way; the future has to be `Send` and `'static`:
//!
//! ```text
//! use oxigo::{future::block_on, sync::LazyLock};
//! use tokio::runtime::{Builder, Runtime};
//!
//! static TOKIO: LazyLock<Runtime> =
//!     LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
//!
//! oxigo::go(|| {
//!     let page = block_on(TOKIO.spawn(async { reqwest::get("http://example.org").await?.text().await }));
//!     println!("{}", page.unwrap().unwrap());
//! });
//! ```
//!
//! **The future runs here**, and the runtime provides only sockets and timers. The future finds the runtime through a thread-local, so each poll has
//! to enter the runtime and leave it again:
//!
//! ```text
//! fn within<F: IntoFuture>(runtime: &tokio::runtime::Handle, future: F) -> F::Output {
//!     let mut future = std::pin::pin!(future.into_future());
//!     block_on(std::future::poll_fn(|cx| {
//!         let _entered = runtime.enter();
//!         future.as_mut().poll(cx)
//!     }))
//! }
//!
//! let stream = within(TOKIO.handle(), async { tokio::net::TcpStream::connect("127.0.0.1:80").await })?;
//! ```
//!
//! Never hold the guard that `enter` returns across a wait, and so never around `block_on`: the thread-local is the worker's, and other goroutines of
//! the worker would find themselves inside that runtime; and if the guards of two goroutines are not dropped in reverse order, tokio panics. For the
//! same reason, although operations of this crate that may wait are allowed while a future is polled, do not use them in a future that is polled
//! inside something that belongs to the thread: inside `within`, tokio's `task_local!` scopes, `unconstrained` or `LocalSet`. Use `.await` there.
//!
//! Do not call tokio's `Runtime::block_on` or `Handle::block_on` on a goroutine: they block the worker. A tokio `Runtime` also blocks the thread that
//! drops it, and its threads inherit the signal mask of the thread that creates it: if it is to start processes, create it in a plain `main`, before
//! [`run`](crate::run()).
//!
//! # Cancelling
//!
//! [`block_on_timeout`], [`block_on_deadline`] and [`block_on_ctx`] give up by dropping the future before they return, as everywhere in `async` Rust:
//! the future ends at the `.await` that it has reached, and its local values are dropped there. A task that it has spawned goes on. When the limit
//! comes, the future is polled once more, so a result that is ready by then is not lost.
//!
//! # Turns
//!
//! A future that is woken while it is polled is polled again after the other goroutines of its worker have had their turn; so one that always wakes
//! itself starves nobody. One that computes for long in one poll holds its worker, as any goroutine does that computes.
//!
//! The future lies in the stack frame of the call. Futures of long `async` functions may be large, above all in debug builds: if `size_of_val` says
//! more than a few KiB, pass it as [`Box::pin`]`(future)`.
//!
//! # How it is seen
//!
//! In dumps such a wait is called `future`. Anybody may hold the waker, so the goroutine counts as one that waits for something outside, as in
//! [`blocking`](crate::blocking): the process is not in a deadlock meanwhile, and in a [bubble](crate::synctest) time stands still. So in a bubble,
//! do not wait for a future that another goroutine of the bubble wakes after some time, nor with a limit that has to pass: use channels.
//!
//! If nobody holds the waker when the goroutine parks, nobody will ever wake it. Then the wait is called `future (no waker left)`, counts as a wait
//! for nothing, and appears in the deadlock report and, unless it has a limit, in [`debug::leaks`](crate::debug::leaks()). It is not noticed if the
//! waker is dropped later, or is kept by the future itself.
#![forbid(unsafe_code)]
// Nothing here crosses threads but the token, whose protocol is modelled with it (`runtime/token.rs`), and the count of wakers.

use std::{
    error::Error,
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{Ordering::Acquire, fence},
    },
    task::{Context as PollContext, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use crate::{
    context::{Context, ContextError},
    runtime::{
        fork, park, present,
        token::Token,
        unit::Unit,
        until::Until,
        wait::{Reason, Wait},
    },
};

/// Runs `future` to its end, here, and parks the goroutine while it waits.
///
/// See the [module](self) for which futures run so, and how to run those that need tokio.
///
/// # Examples
///
/// ```
/// use oxigo::future::block_on;
///
/// let text = String::from("neither Send nor 'static");
/// let borrows = async { text.len() };
/// assert_eq!(block_on(borrows), 24);
/// ```
///
/// # Panics
///
/// Passes on a panic of the future.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    drive(future.into_future(), Until::EVER, || false).expect("nothing else ends it")
}

/// Like [`block_on`], but drops the future when it is not ready within `timeout`. The future is polled at least once, even if `timeout` is zero.
///
/// # Errors
///
/// When the time has passed.
///
/// # Examples
///
/// ```
/// use oxigo::future::block_on_timeout;
/// use std::{future::{pending, ready}, time::Duration};
///
/// assert_eq!(block_on_timeout(ready(1), Duration::ZERO), Ok(1));
/// assert!(block_on_timeout(pending::<()>(), Duration::from_millis(2)).is_err());
/// ```
///
/// # Panics
///
/// Passes on a panic of the future.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn block_on_timeout<F: IntoFuture>(future: F, timeout: Duration) -> Result<F::Output, BlockOnTimeoutError> {
    within(future, present::after(timeout))
}

/// Like [`block_on`], but drops the future when it is not ready at `deadline`. The future is polled at least once, even if the deadline has passed
/// already.
///
/// # Errors
///
/// When the deadline has passed.
///
/// # Examples
///
/// ```
/// use oxigo::future::block_on_deadline;
/// use std::{future::pending, time::{Duration, Instant}};
///
/// let deadline = Instant::now() + Duration::from_millis(2);
/// assert!(block_on_deadline(pending::<()>(), deadline).is_err());
/// assert!(Instant::now() >= deadline);
/// ```
///
/// # Panics
///
/// Passes on a panic of the future.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn block_on_deadline<F: IntoFuture>(future: F, deadline: Instant) -> Result<F::Output, BlockOnTimeoutError> {
    within(future, Some(deadline))
}

/// A limit that the clock cannot count to is none.
fn within<F: IntoFuture>(future: F, deadline: Option<Instant>) -> Result<F::Output, BlockOnTimeoutError> {
    let is_over = || deadline.is_some_and(|deadline| present::now() >= deadline);
    drive(future.into_future(), Until::deadline(deadline), is_over).ok_or(BlockOnTimeoutError)
}

/// Like [`block_on`], but drops the future when `ctx` ends. If the context has ended already, the future is dropped without a poll.
///
/// # Errors
///
/// Why the context has ended.
///
/// # Examples
///
/// ```
/// use oxigo::{context::{Context, ContextError}, future::block_on_ctx};
/// use std::future::pending;
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// assert_eq!(block_on_ctx(&ctx, async { 1 }), Ok(1));
/// oxigo::go(move || cancel.cancel());
/// assert_eq!(block_on_ctx(&ctx, pending::<()>()), Err(ContextError::Canceled));
/// ```
///
/// # Panics
///
/// Passes on a panic of the future.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn block_on_ctx<F: IntoFuture>(ctx: &Context, future: F) -> Result<F::Output, ContextError> {
    ctx.check().inspect_err(|_| park::spend())?;
    let output = drive(future.into_future(), ctx.until(), || ctx.check().is_err());
    output.ok_or_else(|| ctx.why_ended())
}

/// The future was not ready in time, and was dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockOnTimeoutError;

impl fmt::Display for BlockOnTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out waiting on future")
    }
}

/// The same text as `Display`, so that `unwrap` shows it.
impl fmt::Debug for BlockOnTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for BlockOnTimeoutError {}

/// Polls until the future is ready, or has not been at a poll after `is_over`, which is what ends `until`.
fn drive<F: Future>(future: F, until: Until<'_>, is_over: impl Fn() -> bool) -> Option<F::Output> {
    park::spend();
    let signal = Signal::new();
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = PollContext::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        let is_last = is_over();
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        if is_last {
            return None;
        }
        // Here, since the caller's unit is known from before the poll, which may have forked.
        fork::check();
        if signal.token.take() {
            // Woken while it was polled, by itself perhaps: the others come first.
            park::yield_now();
        } else {
            // Its end is looked at above, whatever it was.
            let _ = signal.token.wait(signal.unit, &until, signal.why(&until));
        }
    }
}

/// What a waker is: wakers may outlive the call, and then set a token that nobody waits for.
struct Signal {
    token: Token,
    /// The caller's.
    unit: &'static Unit,
}

impl Signal {
    fn new() -> Arc<Self> {
        Arc::new(Self { token: Token::new(), unit: park::current() })
    }

    /// Why a wait begins now. Called by `drive`, which holds two references: its own, and its waker's.
    fn why(self: &Arc<Self>, until: &Until<'_>) -> Wait {
        let is_kept = Arc::strong_count(self) > 2;
        // ORDERING: Acquire. What a waker did before it was dropped is seen: if it has set the token, the wait finds that. Pairs with the Release
        // in the `Drop` of `Arc`.
        fence(Acquire);
        let reason = match (is_kept, until.is_ever()) {
            (true, _) => Reason::Future,
            (false, false) => Reason::FutureLimited,
            (false, true) => Reason::FutureForgotten,
        };
        reason.alone()
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.token.set(|| self.unit);
    }
}
