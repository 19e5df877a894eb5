//! Joins that a context may end.

use std::{error::Error, fmt, thread};

use super::{Context, ContextError};
use crate::runtime::{JoinHandle, ScopedJoinHandle, park, until::Until};

impl<T> JoinHandle<T> {
    /// Like [`join`](Self::join), but gives up when `ctx` ends. A context that has ended already comes before a goroutine that has ended.
    ///
    /// The goroutine goes on; it ends with the context only if it looks at the context itself.
    ///
    /// # Errors
    ///
    /// Why the context has ended, with the handle. The result inside `Ok` is that of `join`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::context::{Context, ContextError};
    ///
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let (tx, rx) = oxigo::unbuffered();
    /// let waits = oxigo::go(move || rx.recv());
    /// oxigo::go(move || cancel.cancel());
    /// let given_up = waits.join_ctx(&ctx).unwrap_err();
    /// assert_eq!(given_up.error, ContextError::Canceled);
    /// tx.send("late").unwrap();
    /// assert_eq!(given_up.handle.join().unwrap(), Ok("late"));
    /// ```
    pub fn join_ctx(self, ctx: &Context) -> Result<thread::Result<T>, JoinCtxError<Self>> {
        join_ctx(self, ctx, Self::join_until)
    }
}

impl<T> ScopedJoinHandle<'_, T> {
    /// Like [`join`](Self::join), but gives up when `ctx` ends. See [`JoinHandle::join_ctx`].
    ///
    /// # Errors
    ///
    /// Why the context has ended, with the handle. The result inside `Ok` is that of `join`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn join_ctx(self, ctx: &Context) -> Result<thread::Result<T>, JoinCtxError<Self>> {
        join_ctx(self, ctx, Self::join_until)
    }
}

fn join_ctx<H, R>(
    handle: H,
    ctx: &Context,
    join_until: impl FnOnce(H, Until<'_>) -> Result<R, H>,
) -> Result<R, JoinCtxError<H>> {
    if let Err(error) = ctx.check() {
        park::spend();
        return Err(JoinCtxError { handle, error });
    }
    join_until(handle, ctx.until()).map_err(|handle| JoinCtxError { handle, error: ctx.why_ended() })
}

/// Why [`JoinHandle::join_ctx`] gave up; with the handle, a [`JoinHandle`] or a [`ScopedJoinHandle`].
pub struct JoinCtxError<H> {
    /// The right to join, as it was.
    pub handle: H,
    /// Why the context has ended.
    pub error: ContextError,
}

impl<H> JoinCtxError<H> {
    /// The handle that was not joined.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn into_inner(self) -> H {
        self.handle
    }
}

impl<H> fmt::Display for JoinCtxError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The same text as `Display`, so that `unwrap` shows it.
impl<H> fmt::Debug for JoinCtxError<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<H> Error for JoinCtxError<H> {}
