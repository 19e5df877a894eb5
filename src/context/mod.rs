//! Cancellation, deadlines and values that belong to a task and to all it starts: Go's `context`.
//!
//! A [`Context`] is handed down to whatever works for the same purpose. It is made from another one, and ends when that one ends, when its
//! own [`CancelHandle`] is used or dropped, or when its deadline comes.
//!
//! Operations that wait have forms that take one:
//!
//! | of | form |
//! |---|---|
//! | time | [`Context::sleep`] |
//! | channels | [`Receiver::recv_ctx`], [`Sender::send_ctx`](crate::Sender::send_ctx), the same of [`Chan`](crate::Chan) |
//! | goroutines | [`JoinHandle::join_ctx`](crate::JoinHandle::join_ctx), [`WaitGroup::wait_ctx`](crate::WaitGroup::wait_ctx), [`scope_ctx`] |
//! | locks | [`MutexCtx::lock_ctx`](crate::sync::MutexCtx::lock_ctx), [`RwLockCtx`](crate::sync::RwLockCtx)'s `read_ctx`, `upgradable_read_ctx` and `write_ctx`: import the trait |
//! | conditions | [`Condvar::wait_ctx`](crate::sync::Condvar::wait_ctx), [`wait_while_ctx`](crate::sync::Condvar::wait_while_ctx) |
//! | permits | [`Semaphore::acquire_ctx`](crate::sync::Semaphore::acquire_ctx), [`acquire_owned_ctx`](crate::sync::Semaphore::acquire_owned_ctx) |
//! | listeners, new connections | [`TcpListener::accept_ctx`](crate::net::TcpListener::accept_ctx), [`TcpStream::connect_ctx`](crate::net::TcpStream::connect_ctx); the same of Unix sockets |
//! | streams and pipes | [`TcpStream::with_ctx`](crate::net::TcpStream::with_ctx) for reading and writing, [`peek_ctx`](crate::net::TcpStream::peek_ctx), `readable_ctx`, `writable_ctx` |
//! | datagrams | [`UdpSocket::recv_from_ctx`](crate::net::UdpSocket::recv_from_ctx), `recv_ctx`, `peek_from_ctx`, `peek_ctx`, `send_to_ctx`, `send_ctx`; the same of Unix sockets, but for the two that peek |
//! | host names | [`lookup_host_ctx`](crate::net::lookup_host_ctx) |
//! | processes | [`Child::wait_ctx`](crate::process::Child::wait_ctx) |
//!
//! `select!` with [`Context::done`] as one of its channels is for waits on several channels.
//!
//! | Go | here |
//! |---|---|
//! | `context.Background()` | [`Context::background()`] |
//! | `ctx, cancel := context.WithCancel(parent)` | `let (ctx, cancel) =` [`parent.with_cancel()`](Context::with_cancel) |
//! | `defer cancel()` | dropping the handle |
//! | `context.WithTimeout(parent, d)` | [`parent.with_timeout(d)`](Context::with_timeout) |
//! | `context.WithTimeoutCause(parent, d, err)` | [`parent.with_timeout_cause(d, err)`](Context::with_timeout_cause) |
//! | `context.WithValue(parent, key, v)` | [`parent.with_value(v)`](Context::with_value): the type is the key |
//! | `<-ctx.Done()` | [`ctx.done().recv()`](Context::done) |
//! | `ctx.Err()`, `context.Cause(ctx)` | [`ctx.err()`](Context::err), [`ctx.cause()`](Context::cause) |
//! | `context.AfterFunc(ctx, f)` | [`ctx.after_func(f)`](Context::after_func) |
//!
//! ```
//! use oxigo::{context::{Context, ContextError}, go, unbuffered};
//! use std::time::Duration;
//!
//! fn answer(ctx: &Context) -> Result<u32, ContextError> {
//!     ctx.sleep(Duration::from_secs(3600))?; // a slow database, say
//!     Ok(42)
//! }
//!
//! // The handle has to be kept: dropping it ends the context.
//! let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
//! let request = go(move || answer(&ctx));
//! assert_eq!(request.join().unwrap(), Err(ContextError::DeadlineExceeded));
//! ```
#![forbid(unsafe_code)]

#[cfg(not(loom))]
mod join;
#[cfg(all(test, loom))]
mod loom_models;
mod node;
#[cfg(not(loom))]
mod scope;
#[cfg(all(test, not(loom)))]
mod tests;
mod values;

use std::{
    error::Error,
    fmt, io,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

pub(crate) use self::node::Registration;
#[cfg(not(loom))]
pub use self::{
    join::JoinCtxError,
    scope::{ContextScope, scope_ctx},
};
use self::{
    node::{Failure, Node},
    values::Values,
};
#[cfg(not(loom))]
use crate::time::AfterFunc;
use crate::{
    chan::{Receiver, RecvTimeoutError, never},
    runtime::{
        interrupt::Interrupt,
        park, present,
        unit::{Ticket, Unit},
        until::Until,
    },
};

/// What a task and all that it starts share: whether it has been cancelled and why, its deadline, and values.
///
/// Clones are the same context. See the [module](self).
///
/// # Examples
///
/// ```
/// use oxigo::context::{Context, ContextError};
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// let worker = oxigo::go({
///     let ctx = ctx.clone();
///     move || {
///         ctx.done().recv().unwrap_err();
///         ctx.err()
///     }
/// });
/// cancel.cancel();
/// assert_eq!(worker.join().unwrap(), Some(ContextError::Canceled));
/// ```
#[derive(Clone)]
pub struct Context {
    /// None: it cannot be cancelled.
    node: Option<Arc<Node>>,
    values: Values,
}

// Every change of a context is one step, whoever panics around it.
impl UnwindSafe for Context {}
impl RefUnwindSafe for Context {}
impl UnwindSafe for CancelHandle {}
impl RefUnwindSafe for CancelHandle {}

/// A cause of a cancellation.
pub type Cause = Arc<dyn Error + Send + Sync>;

impl Context {
    /// The context that is never cancelled, has no deadline and no values: where others begin.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ctx, _cancel) = oxigo::context::Context::background().with_cancel();
    /// assert!(ctx.err().is_none());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn background() -> Self {
        Self { node: None, values: Values::default() }
    }

    /// A context that ends when this one does, or when the handle is used or dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::Context;
    ///
    /// let (parent, cancel) = Context::background().with_cancel();
    /// let (child, _cancel) = parent.with_cancel();
    /// cancel.cancel();
    /// assert!(parent.err().is_some() && child.err().is_some());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_cancel(&self) -> (Self, CancelHandle) {
        self.derive(None, None)
    }

    /// Like [`with_deadline`](Self::with_deadline), with a deadline that is `timeout` from now.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    /// use std::time::Duration;
    ///
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
    /// assert_eq!(ctx.sleep(Duration::from_secs(3600)), Err(ContextError::DeadlineExceeded));
    /// ```
    ///
    /// # Panics
    ///
    /// As `with_deadline`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_timeout(&self, timeout: Duration) -> (Self, CancelHandle) {
        self.derive(after(timeout), None)
    }

    /// Like [`with_timeout`](Self::with_timeout), but with a reason. [`cause`](Self::cause) returns that reason if this timeout has ended the
    /// context, rather than the handle, a parent or a parent's earlier deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    /// use std::time::Duration;
    ///
    /// let (ctx, _cancel) = Context::background().with_timeout_cause(Duration::from_millis(2), "the server is slow");
    /// assert_eq!(ctx.sleep(Duration::from_secs(3600)), Err(ContextError::DeadlineExceeded));
    /// assert_eq!(ctx.cause().unwrap().to_string(), "the server is slow");
    /// ```
    ///
    /// # Panics
    ///
    /// As `with_deadline`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_timeout_cause(
        &self,
        timeout: Duration,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Self, CancelHandle) {
        self.derive(after(timeout), Some(Arc::from(cause.into())))
    }

    /// A context that ends when this one does, when the handle is used or dropped, or at `deadline`. It can shorten this one's deadline, not extend
    /// it.
    ///
    /// If the deadline has passed already, the context has ended when this returns.
    ///
    /// # Panics
    ///
    /// When the thread that keeps the deadlines cannot be started.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_deadline(&self, deadline: Instant) -> (Self, CancelHandle) {
        self.derive(Some(deadline), None)
    }

    /// Like [`with_deadline`](Self::with_deadline), but with a reason as in [`with_timeout_cause`](Self::with_timeout_cause).
    ///
    /// # Panics
    ///
    /// As `with_deadline`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_deadline_cause(
        &self,
        deadline: Instant,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> (Self, CancelHandle) {
        self.derive(Some(deadline), Some(Arc::from(cause.into())))
    }

    /// The cause is that of the deadline.
    fn derive(&self, deadline: Option<Instant>, cause: Option<Cause>) -> (Self, CancelHandle) {
        let node = Node::child_of([self.node.as_ref(), None], deadline.map(|deadline| (deadline, cause)));
        (Self { node: Some(Arc::clone(&node)), values: self.values.clone() }, CancelHandle { node: Some(node) })
    }

    /// This context with one more value, which [`value`](Self::value) finds by its type. It hides a value of the same type that was there before.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::Context;
    ///
    /// struct RequestId(u64);
    ///
    /// let ctx = Context::background().with_value(RequestId(17));
    /// assert_eq!(ctx.value::<RequestId>().unwrap().0, 17);
    /// assert!(ctx.value::<String>().is_none());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_value<T: Send + Sync + 'static>(&self, value: T) -> Self {
        Self { node: self.node.clone(), values: self.values.with(value) }
    }

    /// The values of this context, without its cancellation and its deadline.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn without_cancel(&self) -> Self {
        Self { node: None, values: self.values.clone() }
    }

    /// A channel that closes when the context ends; nothing is ever sent on it. It is the same channel each time.
    ///
    /// A clone of the receiver works even after the context itself has been dropped. If nothing can end the context any more, it stays open for ever.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, go, select, unbuffered};
    ///
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let (_jobs, queue) = unbuffered::<String>();
    /// let worker = go(move || loop {
    ///     select! {
    ///         recv(queue) -> job => println!("{job:?}"),
    ///         recv(ctx.done()) -> _ => return ctx.err(),
    ///     }
    /// });
    /// cancel.cancel();
    /// assert!(worker.join().unwrap().is_some());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn done(&self) -> &Receiver<()> {
        static NEVER: OnceLock<Receiver<()>> = OnceLock::new();
        match &self.node {
            Some(node) => node.done(),
            None => NEVER.get_or_init(never),
        }
    }

    /// Why the context has ended, or `None` while it has not. Once this returns an error, [`done`](Self::done) is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    ///
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// assert_eq!(ctx.err(), None);
    /// cancel.cancel();
    /// assert_eq!(ctx.err(), Some(ContextError::Canceled));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn err(&self) -> Option<ContextError> {
        self.failure().map(|failure| failure.error)
    }

    /// The reason that was given to [`cancel_with`](CancelHandle::cancel_with), or to [`with_timeout_cause`](Self::with_timeout_cause), of this
    /// context or of the one whose end has ended this one; if none was given, the same as [`err`](Self::err). `None` while the context has not ended.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn cause(&self) -> Option<Cause> {
        let failure = self.failure()?;
        Some(failure.cause.clone().unwrap_or_else(|| Arc::new(failure.error)))
    }

    /// Why the context, which has ended a wait, has ended.
    pub(crate) fn why_ended(&self) -> ContextError {
        self.err().expect("a context that ends a wait has ended itself")
    }

    /// Until when a wait lasts that this may end: for ever, where nothing can end this. Such a wait is then known as one that only its partner ends.
    pub(crate) fn until(&self) -> Until<'_> {
        if self.node.is_some() { Until::interrupt(self) } else { Until::EVER }
    }

    /// Waits by `wait`, unless this has ended or ends first; false from `wait` says that it has.
    pub(crate) fn within(&self, wait: impl FnOnce(Until<'_>) -> bool) -> Result<(), ContextError> {
        self.check().inspect_err(|_| park::spend())?;
        if wait(self.until()) { Ok(()) } else { Err(self.why_ended()) }
    }

    fn failure(&self) -> Option<&Failure> {
        self.node.as_ref()?.failure()
    }

    /// When the context will end by itself, if it has a deadline.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::Context;
    /// use std::time::Duration;
    ///
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_secs(60));
    /// assert!(ctx.deadline().is_some());
    /// assert!(Context::background().deadline().is_none());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn deadline(&self) -> Option<Instant> {
        self.node.as_ref()?.deadline()
    }

    /// The value of type `T`; of several, the one that was added last.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn value<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.values.get()
    }

    /// Starts `f` in a goroutine of its own when the context ends; at once if it has ended.
    ///
    /// It runs on the runtime of the caller, or on the default one. Cancelling does not wait for it. Dropping the returned handle does not keep `f`
    /// from running, nor does dropping the context, which still ends with the one that it was made from. `f` is dropped without having run when the
    /// context can no longer end, because nobody holds it, a parent or a handle of either, when its runtime has been dropped, and when
    /// there is no stack for it; then standard error tells which limit was reached.
    ///
    /// # Examples
    ///
    /// ```
    /// let (tx, rx) = oxigo::bounded(1);
    /// let (ctx, cancel) = oxigo::context::Context::background().with_cancel();
    /// ctx.after_func(move || tx.send("cleaned up").unwrap());
    /// drop(cancel);
    /// assert_eq!(rx.recv(), Ok("cleaned up"));
    /// ```
    ///
    /// # Panics
    ///
    /// When the default runtime cannot be started.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[cfg(not(loom))]
    pub fn after_func<F>(&self, f: F) -> AfterFunc
    where
        F: FnOnce() + Send + 'static,
    {
        AfterFunc::of_context(Registration::new(self.node.as_ref(), Box::new(f)))
    }

    /// Waits for `duration`, or until the context ends.
    ///
    /// A sleep that would last until the context's deadline or longer ends with the context's error, however late the clock is, also when both are
    /// due at the same time.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    /// use std::time::Duration;
    ///
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
    /// assert_eq!(ctx.sleep(Duration::from_secs(3600)), Err(ContextError::DeadlineExceeded));
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended; also if the duration is zero.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn sleep(&self, duration: Duration) -> Result<(), ContextError> {
        let end = present::after(duration);
        if self.deadline().is_some_and(|deadline| end.is_none_or(|end| deadline <= end)) {
            // Its own time would be told by the worker, the deadline by another thread, and either may be late.
            let _ = self.done().recv();
            return Err(self.why_ended());
        }
        match self.done().recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            _ => self.check(),
        }
    }

    /// Returns an error if the context has ended: for loops that do not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    ///
    /// fn sum(ctx: &Context, numbers: &[u64]) -> Result<u64, ContextError> {
    ///     let mut sum = 0;
    ///     for chunk in numbers.chunks(1000) {
    ///         ctx.check()?;
    ///         sum += chunk.iter().sum::<u64>();
    ///     }
    ///     Ok(sum)
    /// }
    /// assert_eq!(sum(&Context::background(), &[1, 2, 3]), Ok(6));
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn check(&self) -> Result<(), ContextError> {
        self.err().map_or(Ok(()), Err)
    }
}

/// A timeout that the clock cannot count to is none.
fn after(timeout: Duration) -> Option<Instant> {
    present::after(timeout)
}

/// A context that ends when either of two ends, or when the handle is used or dropped. Its values are those of `a` and of `b`; where both have a
/// value of one type, `a`'s.
///
/// # Examples
///
/// ```
/// use oxigo::context::{Context, merge};
///
/// let (request, _cancel) = Context::background().with_cancel();
/// let (server, shutdown) = Context::background().with_cancel();
/// let (ctx, _both) = merge(&request, &server);
/// shutdown.cancel_with("the server shuts down");
/// assert_eq!(ctx.cause().unwrap().to_string(), "the server shuts down");
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn merge(a: &Context, b: &Context) -> (Context, CancelHandle) {
    let node = Node::child_of([a.node.as_ref(), b.node.as_ref()], None);
    let context = Context { node: Some(Arc::clone(&node)), values: a.values.or(&b.values) };
    (context, CancelHandle { node: Some(node) })
}

impl Default for Context {
    fn default() -> Self {
        Self::background()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.node.is_none() && self.values.is_empty() {
            return f.pad("Context::background()");
        }
        f.debug_struct("Context").field("err", &self.err()).field("deadline", &self.deadline()).finish_non_exhaustive()
    }
}

impl Interrupt for Context {
    fn watch(&self, unit: &'static Unit, ticket: Ticket) -> Option<u64> {
        // What cannot be cancelled has nothing to forget either.
        self.node.as_ref().map_or(Some(0), |node| node.watch(unit, ticket))
    }

    fn unwatch(&self, key: u64) {
        if let Some(node) = &self.node {
            node.forget(key);
        }
    }
}

/// The right to end a context. Dropping it ends the context.
///
/// Bind the handle to a name (`_cancel`): a plain `_` drops it at once, and that cancels.
///
/// It is not `Clone`, since a copy that goes out of scope would end the context for the others: to share it, use a reference or an `Arc`.
///
/// # Examples
///
/// ```
/// use oxigo::context::Context;
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// drop(cancel);
/// assert!(ctx.err().is_some());
/// ```
#[must_use = "dropping the handle cancels the context"]
pub struct CancelHandle {
    node: Option<Arc<Node>>,
}

impl CancelHandle {
    /// Ends the context and all that were made from it. Of several calls only the first counts. When this returns, all these contexts have ended and
    /// their `done` is closed. It does not wait for the tasks that use them.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn cancel(&self) {
        self.end(None);
    }

    /// Like [`cancel`](Self::cancel), but with a reason, which [`Context::cause`] returns.
    ///
    /// # Examples
    ///
    /// ```
    /// let (ctx, cancel) = oxigo::context::Context::background().with_cancel();
    /// cancel.cancel_with("no disk space");
    /// assert_eq!(ctx.cause().unwrap().to_string(), "no disk space");
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn cancel_with(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) {
        self.end(Some(Arc::from(cause.into())));
    }

    fn end(&self, cause: Option<Cause>) {
        if let Some(node) = &self.node {
            node.cancel(Failure { error: ContextError::Canceled, cause });
        }
    }

    /// Drops the handle without ending the context, which then ends with the one that it was made from, or at its deadline.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn forget(mut self) {
        self.node = None;
    }
}

impl Drop for CancelHandle {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("CancelHandle { .. }")
    }
}

/// Why a context has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextError {
    /// Its handle, or one of a parent, was used or dropped.
    Canceled,
    /// Its deadline, or one of a parent, has passed.
    DeadlineExceeded,
}

impl ContextError {
    /// The context's error inside the error of a network or process operation, if a context has ended that operation; also if the error was wrapped
    /// by [`io::Error::new`] or `other`.
    ///
    /// # Examples
    ///
    /// The deadline of a context and the time limit of a socket both give `TimedOut`; this tells them apart:
    ///
    /// ```
    /// use std::{io::{ErrorKind, Read}, time::Duration};
    /// use oxigo::{context::{Context, ContextError}, net::unix::UnixStream};
    ///
    /// let (near, _far) = UnixStream::pair()?;
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
    /// let error = near.with_ctx(&ctx).read(&mut [0]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// assert_eq!(ContextError::of(&error), Some(ContextError::DeadlineExceeded));
    ///
    /// near.set_read_timeout(Some(Duration::from_millis(1)))?;
    /// let error = near.with_ctx(&Context::background()).read(&mut [0]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TimedOut);
    /// assert_eq!(ContextError::of(&error), None);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn of(error: &io::Error) -> Option<Self> {
        let inner = error.get_ref()?;
        match inner.downcast_ref::<io::Error>() {
            Some(wrapped) => Self::of(wrapped),
            None => inner.downcast_ref().copied(),
        }
    }

    /// Whether it is [`DeadlineExceeded`](Self::DeadlineExceeded).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_timeout(self) -> bool {
        self == Self::DeadlineExceeded
    }
}

impl fmt::Display for ContextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Canceled => "context canceled",
            Self::DeadlineExceeded => "context deadline exceeded",
        })
    }
}

impl Error for ContextError {}

/// `TimedOut` for a deadline; `Other` for a cancellation (not `Interrupted`, which `std` takes as a reason to try again).
impl From<ContextError> for io::Error {
    fn from(error: ContextError) -> Self {
        let kind = if error.is_timeout() { io::ErrorKind::TimedOut } else { io::ErrorKind::Other };
        Self::new(kind, error)
    }
}
