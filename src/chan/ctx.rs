//! Channel operations that a context may end.

use std::{error::Error, fmt};

use super::{Chan, Receiver, RecvError, SendError, Sender};
use crate::{
    context::{Context, ContextError},
    select_biased,
};

impl<T> Receiver<T> {
    /// Like [`recv`](Self::recv), but gives up when `ctx` ends. If the context has ended already, that takes precedence over a value that is there.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{chan::RecvCtxError, context::{Context, ContextError}};
    ///
    /// let (tx, rx) = oxigo::bounded(1);
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// tx.send(1).unwrap();
    /// assert_eq!(rx.recv_ctx(&ctx), Ok(1));
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(rx.recv_ctx(&ctx), Err(RecvCtxError::Context(ContextError::Canceled)));
    /// ```
    ///
    /// # Errors
    ///
    /// `Context` when the context has ended, `Disconnected` as `recv`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_ctx(&self, ctx: &Context) -> Result<T, RecvCtxError> {
        select_biased! {
            recv(ctx.done()) -> _ => Err(RecvCtxError::Context(ended(ctx))),
            recv(self) -> value => value.map_err(RecvCtxError::from),
        }
    }
}

impl<T> Sender<T> {
    /// Like [`send`](Self::send), but gives up when `ctx` ends. If the context has ended already, that takes precedence over a receiver that waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{chan::SendCtxError, context::Context};
    /// use std::time::Duration;
    ///
    /// let (tx, _rx) = oxigo::unbuffered();
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
    /// let error = tx.send_ctx("back again", &ctx).unwrap_err();
    /// assert!(matches!(error, SendCtxError::Context("back again", e) if e.is_timeout()));
    /// ```
    ///
    /// # Errors
    ///
    /// With the value: `Context` when the context has ended, `Disconnected` as `send`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_ctx(&self, value: T, ctx: &Context) -> Result<(), SendCtxError<T>> {
        let mut value = Some(value);
        select_biased! {
            recv(ctx.done()) -> _ => {
                let value = value.take().expect("a value that was not sent is still there");
                Err(SendCtxError::Context(value, ended(ctx)))
            }
            send(self, from value) -> result => result.map_err(SendCtxError::from),
        }
    }
}

impl<T> Chan<T> {
    /// See [`Receiver::recv_ctx`].
    ///
    /// # Errors
    ///
    /// `Context` when the context has ended, `Disconnected` as [`recv`](Self::recv).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_ctx(&self, ctx: &Context) -> Result<T, RecvCtxError> {
        self.receiver.recv_ctx(ctx)
    }

    /// See [`Sender::send_ctx`].
    ///
    /// # Errors
    ///
    /// With the value: `Context` when the context has ended, `Disconnected` as [`send`](Self::send).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn send_ctx(&self, value: T, ctx: &Context) -> Result<(), SendCtxError<T>> {
        self.sender.send_ctx(value, ctx)
    }
}

/// Why `ctx`, whose `done` is closed, has ended.
fn ended(ctx: &Context) -> ContextError {
    ctx.err().expect("a context whose done is closed has an error")
}

/// Why [`Receiver::recv_ctx`] received nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvCtxError {
    /// The channel is closed and empty.
    Disconnected,
    /// The context has ended.
    Context(ContextError),
}

impl fmt::Display for RecvCtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected => RecvError.fmt(f),
            Self::Context(error) => error.fmt(f),
        }
    }
}

impl Error for RecvCtxError {}

impl From<ContextError> for RecvCtxError {
    fn from(error: ContextError) -> Self {
        Self::Context(error)
    }
}

impl From<RecvError> for RecvCtxError {
    fn from(_: RecvError) -> Self {
        Self::Disconnected
    }
}

/// Why [`Sender::send_ctx`] sent nothing; with the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendCtxError<T> {
    /// The channel is closed, or no receiver is left.
    Disconnected(T),
    /// The context has ended.
    Context(T, ContextError),
}

impl<T> SendCtxError<T> {
    /// The value that was not sent.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn into_inner(self) -> T {
        match self {
            Self::Disconnected(value) | Self::Context(value, _) => value,
        }
    }
}

impl<T> fmt::Display for SendCtxError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnected(_) => SendError(()).fmt(f),
            Self::Context(_, error) => error.fmt(f),
        }
    }
}

/// The same text as `Display`, so that `unwrap` shows it.
impl<T> fmt::Debug for SendCtxError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> Error for SendCtxError<T> {}

impl<T> From<SendError<T>> for SendCtxError<T> {
    fn from(error: SendError<T>) -> Self {
        Self::Disconnected(error.0)
    }
}
