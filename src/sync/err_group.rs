//! `ErrGroup`: goroutines that work on one thing, of which the first failure counts.
//!
//! - E1: a task holds its place in the limit, if there is one, from before it starts until after its outcome is recorded.
//! - E2: the first failure, an error or a panic, ends the context before the task counts itself out. So whoever has seen `wait` return has seen
//!   the context end.
//! - E3: the first error is claimed before its cause is made, so the cause of the context's end, unless that came from elsewhere, is made from
//!   the error that `wait` gives.

use std::{
    any::Any,
    error::Error,
    fmt, io, mem,
    panic::{RefUnwindSafe, UnwindSafe},
    sync::Arc,
};

use crate::{
    chan::{Receiver, Sender, bounded},
    context::{CancelHandle, Context},
    facade::{
        AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
    sync::WaitGroup,
    util::Lock,
};

/// Runs tasks as goroutines, waits for all of them, and returns the first error; Go's `errgroup.Group`.
///
/// Its [context](Self::context) ends with the first error or panic, when [`wait`](Self::wait) returns, and when the group is dropped, in which case
/// tasks that have been started go on by themselves. The [cause](Context::cause) of an end by an error or a panic is [`TaskFailed`]. In Go the cause
/// is the error itself. Here errors need be neither [`Error`] nor `Clone`, so `TaskFailed` only has the text of the error, for some types;
/// [`set_cause`](Self::set_cause) sets another cause.
///
/// If a group is dropped without `wait`, nobody receives its errors and panics: errors are dropped, and a panic has been printed, as every
/// goroutine's is (with [`PanicPolicy::Abort`](crate::PanicPolicy::Abort) it ends the process).
///
/// For tasks that start further tasks, use [`scope_ctx`](crate::context::scope_ctx), whose scope is `Clone`.
///
/// # Examples
///
/// ```
/// use oxigo::sync::ErrGroup;
/// use std::time::Duration;
///
/// let group = ErrGroup::new();
/// for host in ["a", "b", "nowhere"] {
///     let ctx = group.context().clone();
///     group.go(move || match host {
///         "nowhere" => Err(format!("{host}: no such host")),
///         // The others stop when one has failed.
///         _ => ctx.sleep(Duration::from_secs(3600)).map_err(|e| e.to_string()),
///     });
/// }
/// assert_eq!(group.wait(), Err("nowhere: no such host".to_string()));
/// ```
///
/// For a limit together with a context of the caller's, use [`with_context`](Self::with_context) and then [`set_limit`](Self::set_limit).
///
/// ```
/// use oxigo::{context::Context, sync::ErrGroup};
///
/// let (ctx, _cancel) = Context::background().with_cancel();
/// let mut group = ErrGroup::<String>::with_context(&ctx);
/// group.set_limit(8);
/// for _ in 0..100 {
///     group.go(|| Ok(()));
/// }
/// assert_eq!(group.wait(), Ok(()));
/// ```
pub struct ErrGroup<E> {
    tasks: WaitGroup,
    places: Option<Arc<Places>>,
    shared: Arc<Shared<E>>,
    cause: Option<Arc<CauseOf<E>>>,
}

// What `set_cause` was given is called by tasks, whose panics are kept, and by nobody who holds this.
impl<E> UnwindSafe for ErrGroup<E> {}
impl<E> RefUnwindSafe for ErrGroup<E> {}

type CauseOf<E> = dyn Fn(&E) -> Box<dyn Error + Send + Sync> + Send + Sync;

struct Shared<E> {
    ctx: Context,
    cancel: CancelHandle,
    /// A leaf.
    first: Lock<First<E>>,
}

enum First<E> {
    None,
    /// E3: its task is about to put it here.
    Claimed,
    Some(E),
}

/// As many tokens fit into the channel as tasks may be active.
struct Places {
    limit: usize,
    enter: Sender<()>,
    leave: Receiver<()>,
    active: AtomicUsize,
}

impl<E: Send + 'static> ErrGroup<E> {
    /// A group without a limit, whose context has no parent.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[must_use = "dropping the group ends its context"]
    pub fn new() -> Self {
        Self::with_context(&Context::background())
    }

    /// A group in which at most `limit` tasks are active at once, and whose context has no parent. With a parent: `with_context`, then `set_limit`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{num_goroutines, sync::ErrGroup};
    ///
    /// let group = ErrGroup::<String>::with_limit(2);
    /// for n in 0..10 {
    ///     group.go(move || if n == 7 { Err(format!("{n} is bad")) } else { Ok(()) });
    /// }
    /// assert_eq!(group.wait(), Err("7 is bad".to_owned()));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_limit(limit: usize) -> Self {
        let mut group = Self::new();
        group.set_limit(limit);
        group
    }

    /// A group whose context is made from `ctx`.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, sync::ErrGroup};
    /// use std::time::Duration;
    ///
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(1));
    /// let group = ErrGroup::with_context(&ctx);
    /// let tasks = group.context().clone();
    /// group.go(move || tasks.sleep(Duration::from_secs(3600)));
    /// assert!(group.wait().unwrap_err().is_timeout());
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_context(ctx: &Context) -> Self {
        let (ctx, cancel) = ctx.with_cancel();
        let shared = Arc::new(Shared { ctx, cancel, first: Lock::new(First::None) });
        Self { tasks: WaitGroup::new(), places: None, shared, cause: None }
    }

    /// Lets at most `limit` tasks be active at once, from now on. With 0 none can be started.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut group = oxigo::sync::ErrGroup::<()>::new();
    /// group.set_limit(1); // before the first task
    /// group.go(|| Ok(()));
    /// group.go(|| Ok(())); // waits for the end of the first one
    /// assert_eq!(group.wait(), Ok(()));
    /// ```
    ///
    /// # Panics
    ///
    /// While tasks are active that were started under another limit, and when the limit is so large that memory for it cannot be allocated.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn set_limit(&mut self, limit: usize) {
        if let Some(places) = &self.places {
            // ORDERING: Acquire. Pairs with the AcqRel in `Place::drop`.
            let active = places.active.load(Acquire);
            let tasks_are = if active == 1 { "task is" } else { "tasks are" };
            assert!(active == 0, "the limit of an ErrGroup is changed while {active} {tasks_are} active");
        }
        let (enter, leave) = bounded(limit);
        self.places = Some(Arc::new(Places { limit, enter, leave, active: AtomicUsize::new(0) }));
    }

    /// Sets the function that makes the context's [cause](Context::cause) from the first error, for tasks that are started from now on. It is called
    /// in the task that failed; if it panics, that task panics.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::sync::ErrGroup;
    ///
    /// let mut group = ErrGroup::new();
    /// group.set_cause(String::clone);
    /// let ctx = group.context().clone();
    /// group.go(|| Err("disk full".to_string()));
    /// ctx.done().recv().unwrap_err();
    /// assert_eq!(ctx.cause().unwrap().to_string(), "disk full");
    /// assert_eq!(group.wait(), Err("disk full".to_string()));
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_cause<F, C>(&mut self, cause: F)
    where
        F: Fn(&E) -> C + Send + Sync + 'static,
        C: Into<Box<dyn Error + Send + Sync>>,
    {
        self.cause = Some(Arc::new(move |error: &E| cause(error).into()));
    }

    /// The group's context, for tasks to look at.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn context(&self) -> &Context {
        &self.shared.ctx
    }

    /// Starts `task` as a goroutine. Before that it waits while as many tasks as the limit allows are active (with a limit of 0, for ever).
    ///
    /// If a task of the group calls it, it waits in the same way while that task remains active: with a limit of 1, or if all active tasks do so, for
    /// ever, as in Go. [`try_go`](Self::try_go) does not wait.
    ///
    /// # Panics
    ///
    /// When no goroutine can be started.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, when there is a limit; otherwise never.
    #[track_caller]
    pub fn go<F>(&self, task: F)
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
    {
        let place = self.places.as_ref().map(|places| {
            places.enter.send(()).expect("both ends are in one place");
            Place::taken(places)
        });
        self.start(place, task);
    }

    /// Starts `task` as a goroutine if that needs no waiting. Otherwise, when as many tasks as the limit allows are active, drops `task` and returns
    /// false.
    ///
    /// # Examples
    ///
    /// ```
    /// let group = oxigo::sync::ErrGroup::<()>::with_limit(1);
    /// let (tx, rx) = oxigo::unbuffered::<()>();
    /// assert!(group.try_go(move || Ok(rx.recv().unwrap())));
    /// assert!(!group.try_go(|| Ok(()))); // the first one is still active
    /// tx.send(()).unwrap();
    /// assert!(group.wait().is_ok());
    /// ```
    ///
    /// # Panics
    ///
    /// When no goroutine can be started.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[must_use = "false means that the task was not started"]
    #[track_caller]
    pub fn try_go<F>(&self, task: F) -> bool
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
    {
        let place = match &self.places {
            None => None,
            Some(places) => match places.enter.try_send(()) {
                Ok(()) => Some(Place::taken(places)),
                Err(_) => return false,
            },
        };
        self.start(place, task);
        true
    }

    #[track_caller]
    fn start<F>(&self, place: Option<Place>, task: F)
    where
        F: FnOnce() -> Result<(), E> + Send + 'static,
    {
        let (shared, cause) = (Arc::clone(&self.shared), self.cause.clone());
        // The WaitGroup keeps the first panic for `wait`.
        self.tasks.go(move || {
            let _place = place;
            let failing = EndContext(Some(&shared.cancel));
            match task() {
                Err(error) if shared.is_first() => {
                    match cause {
                        Some(cause) => shared.cancel.cancel_with(cause(&error)),
                        None => shared.cancel.cancel_with(TaskFailed { error: text_of(&error) }),
                    }
                    *shared.first.lock() = First::Some(error);
                }
                // Whoever was first ends the context.
                Ok(()) | Err(_) => failing.not_needed(),
            }
        });
    }

    /// Waits until all tasks have ended, and ends the context.
    ///
    /// # Errors
    ///
    /// The first error.
    ///
    /// # Panics
    ///
    /// Re-raises the first panic of a task, whatever errors there were, unless the caller is unwinding already. Where that is in doubt (see
    /// [`WaitGroup::wait`]) the panic is re-raised: a failure is never taken for success.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn wait(self) -> Result<(), E> {
        self.tasks.wait_for_success();
        self.shared.cancel.cancel();
        let first = mem::replace(&mut *self.shared.first.lock(), First::None);
        if let First::Some(error) = first { Err(error) } else { Ok(()) }
    }
}

impl<E: Send + 'static> Default for ErrGroup<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Drop for ErrGroup<E> {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

impl<E> Shared<E> {
    /// E3.
    fn is_first(&self) -> bool {
        let mut first = self.first.lock();
        let is = matches!(*first, First::None);
        if is {
            *first = First::Claimed;
        }
        is
    }
}

impl<E> fmt::Debug for ErrGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ErrGroup")
            .field("tasks", &self.tasks)
            .field("limit", &self.places.as_ref().map(|places| places.limit))
            .field("context", &self.shared.ctx)
            .finish()
    }
}

/// E2: ends the context when it is dropped, by a panic too, unless it is not needed.
struct EndContext<'a>(Option<&'a CancelHandle>);

impl EndContext<'_> {
    fn not_needed(mut self) {
        self.0 = None;
    }
}

impl Drop for EndContext<'_> {
    fn drop(&mut self) {
        if let Some(cancel) = self.0 {
            cancel.cancel_with(TaskFailed { error: None });
        }
    }
}

/// The cause of the context's end when a task of an [`ErrGroup`] failed, unless [`ErrGroup::set_cause`] says otherwise; the error itself comes
/// from [`ErrGroup::wait`].
///
/// Its text contains that of the error if the group's errors are strings, `std::io::Error`s or `Box<dyn Error + Send + Sync>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailed {
    error: Option<Box<str>>,
}

impl fmt::Display for TaskFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "a task of the group has failed: {error}"),
            None => f.pad("a task of the group has failed"),
        }
    }
}

/// What an error of a well-known type says: nothing is asked of the others.
fn text_of(error: &dyn Any) -> Option<Box<str>> {
    let text = error.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| error.downcast_ref::<String>().cloned());
    let text = text.or_else(|| error.downcast_ref::<io::Error>().map(ToString::to_string));
    let text = text.or_else(|| error.downcast_ref::<Box<dyn Error + Send + Sync>>().map(ToString::to_string));
    text.map(Into::into)
}

impl std::error::Error for TaskFailed {}

/// E1: one task's place in the limit.
struct Place(Arc<Places>);

impl Place {
    fn taken(places: &Arc<Places>) -> Self {
        // ORDERING: Relaxed. Looked at by the group's owner, who is also the one who starts tasks or gets to know of those who do.
        places.active.fetch_add(1, Relaxed);
        Self(Arc::clone(places))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // ORDERING: AcqRel. Pairs with the Acquire in `set_limit`.
        self.0.active.fetch_sub(1, AcqRel);
        let token = self.0.leave.try_recv();
        debug_assert!(token.is_ok(), "who holds a place has sent a token");
    }
}
