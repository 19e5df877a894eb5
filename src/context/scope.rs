//! `scope_ctx`: goroutines that borrow from the frame that waits for them, and of which the first failure ends the others' context.

use std::{fmt, sync::Arc};

use super::{CancelHandle, Context};
use crate::{
    runtime::{Scope, ScopedJoinHandle, scope},
    util::Lock,
};

/// Like [`scope`](crate::scope()), but with a context for all goroutines that are started in it. The first failure ends that context.
///
/// A failure is an error or a panic, of a goroutine or of `f`. The others are expected to look at [`ContextScope::context`] and to return;
/// all have ended when this returns. The context also ends with `ctx`.
///
/// # Examples
///
/// ```
/// use oxigo::context::{Context, scope_ctx};
/// use std::time::Duration;
///
/// let text = String::from("shared");
/// let result = scope_ctx(&Context::background(), |s| {
///     s.go(|| Err(format!("{text}: no such file")));
///     let ctx = s.context();
///     s.go(move || {
///         let _ = ctx.sleep(Duration::from_secs(3600));
///         Ok(())
///     });
///     Ok(())
/// });
/// assert_eq!(result, Err("shared: no such file".to_string()));
/// ```
///
/// # Errors
///
/// The first error of a goroutine; without one, `f`'s.
///
/// # Panics
///
/// With "a scoped goroutine panicked" when one panicked; resumes a panic of `f` itself.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, until all have ended.
#[track_caller]
pub fn scope_ctx<'env, F, T, E>(ctx: &Context, f: F) -> Result<T, E>
where
    F: for<'scope> FnOnce(&ContextScope<'scope, 'env, E>) -> Result<T, E>,
    E: Send + 'env,
{
    let (ctx, cancel) = ctx.with_cancel();
    let shared = Arc::new(Shared { ctx, cancel, first: Lock::new(None) });
    let result = scope(|s| {
        let scope = ContextScope { scope: s, shared: Arc::clone(&shared) };
        let failing = EndOnFailure::new(&scope.shared);
        let result = f(&scope);
        failing.settle(result.is_ok());
        result
    });
    let first = shared.first.lock().take();
    match first {
        Some(error) => Err(error),
        None => result,
    }
}

struct Shared<E> {
    ctx: Context,
    cancel: CancelHandle,
    first: Lock<Option<E>>,
}

/// Ends the context unless it is told of a success: a panic tells nothing.
struct EndOnFailure<'a>(Option<&'a CancelHandle>);

impl<'a> EndOnFailure<'a> {
    fn new<E>(shared: &'a Shared<E>) -> Self {
        Self(Some(&shared.cancel))
    }

    fn settle(mut self, success: bool) {
        if success {
            self.0 = None;
        }
    }
}

impl Drop for EndOnFailure<'_> {
    fn drop(&mut self) {
        if let Some(cancel) = self.0 {
            cancel.cancel();
        }
    }
}

/// Where goroutines of a [`scope_ctx`] are started.
///
/// Clones are the same scope. A goroutine that starts others takes a clone with it, and so has the [`context`](Self::context) too; it cannot borrow
/// the scope itself, as it can that of [`scope`](crate::scope()). What else it borrows has to be captured as a reference:
///
/// ```
/// use oxigo::context::{Context, scope_ctx};
///
/// let words = ["borrowed", "words"];
/// let result = scope_ctx(&Context::background(), |s| {
///     let (words, inner) = (&words, s.clone());
///     s.go(move || {
///         for word in words {
///             let ctx = inner.context();
///             inner.go(move || {
///                 ctx.check().map_err(|error| error.to_string())?;
///                 word.chars().all(char::is_alphabetic).then_some(()).ok_or_else(|| format!("{word} is no word"))
///             });
///         }
///         Ok(())
///     });
///     Ok(())
/// });
/// assert_eq!(result, Ok(()));
/// ```
pub struct ContextScope<'scope, 'env: 'scope, E> {
    scope: &'scope Scope<'scope, 'env>,
    shared: Arc<Shared<E>>,
}

impl<'scope, E: Send + 'scope> ContextScope<'scope, '_, E> {
    /// Starts `f`, which may borrow what outlives the scope; its error or panic ends the context.
    ///
    /// # Panics
    ///
    /// When no stack is available; the message names the limit.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn go<F>(&self, f: F) -> ScopedJoinHandle<'scope, ()>
    where
        F: FnOnce() -> Result<(), E> + Send + 'scope,
    {
        let shared = Arc::clone(&self.shared);
        self.scope.go(move || {
            let failing = EndOnFailure::new(&shared);
            let result = f();
            let success = result.is_ok();
            if let Err(error) = result {
                let mut first = shared.first.lock();
                // A later error is dropped outside the lock.
                let later = if first.is_none() { first.replace(error) } else { Some(error) };
                drop(first);
                drop(later);
            }
            failing.settle(success);
        })
    }

    /// The context of this scope.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn context(&self) -> Context {
        self.shared.ctx.clone()
    }
}

impl<E> Clone for ContextScope<'_, '_, E> {
    fn clone(&self) -> Self {
        Self { scope: self.scope, shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for ContextScope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextScope").field("scope", self.scope).field("context", &self.shared.ctx).finish()
    }
}
