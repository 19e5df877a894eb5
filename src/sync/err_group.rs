//! `ErrGroup`: goroutines that work on one thing, of which the first failure counts.
//!
//! - E1: a task holds its place in the limit, if there is one, from before it starts until after its outcome is recorded.
//! - E2: the first failure, an error or a panic, ends the context before the task counts itself out. So whoever has seen `wait` return has seen
//!   the context end.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
};

use crate::{
    chan::{Receiver, Sender, bounded},
    context::{CancelHandle, Context},
    sync::WaitGroup,
    util::Lock,
};

/// Runs tasks as goroutines, waits for all, and gives the first error; Go's `errgroup.Group`.
///
/// Its [context](Self::context) ends with the first error or panic, when [`wait`](Self::wait) returns, and when the group is dropped; tasks that
/// have been started then go on by themselves.
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
pub struct ErrGroup<E> {
    tasks: WaitGroup,
    places: Option<Arc<Places>>,
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    ctx: Context,
    cancel: CancelHandle,
    /// A leaf; errors are dropped outside it.
    first: Lock<Option<E>>,
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
    pub fn new() -> Self {
        Self::with_context(&Context::background())
    }

    /// A group in which at most `limit` tasks are active at once.
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
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_context(ctx: &Context) -> Self {
        let (ctx, cancel) = ctx.with_cancel();
        Self { tasks: WaitGroup::new(), places: None, shared: Arc::new(Shared { ctx, cancel, first: Lock::new(None) }) }
    }

    /// Lets at most `limit` tasks be active at once, from now on. With 0 none can be started.
    ///
    /// # Panics
    ///
    /// While tasks are active that were started under another limit; when there cannot be room for so many.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn set_limit(&mut self, limit: usize) {
        if let Some(places) = &self.places {
            // ORDERING: Acquire. Pairs with the AcqRel in `Place::drop`.
            let active = places.active.load(Acquire);
            assert!(active == 0, "the limit of an ErrGroup is changed while {active} tasks are active");
        }
        let (enter, leave) = bounded(limit);
        self.places = Some(Arc::new(Places { limit, enter, leave, active: AtomicUsize::new(0) }));
    }

    /// The group's context, for tasks to look at.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn context(&self) -> &Context {
        &self.shared.ctx
    }

    /// Starts `task` as a goroutine, waiting first while the limit's number of tasks are active (with a limit of 0: for ever).
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

    /// Starts `task` as a goroutine if that needs no waiting. False, and `task` dropped, when the limit's number of tasks are active.
    ///
    /// # Panics
    ///
    /// When no goroutine can be started.
    ///
    /// # Blocking
    ///
    /// Never parks.
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
        let shared = Arc::clone(&self.shared);
        // The WaitGroup keeps the first panic for `wait`.
        self.tasks.go(move || {
            let _place = place;
            let failing = EndContext(Some(&shared.cancel));
            match task() {
                Ok(()) => failing.not_needed(),
                Err(error) => {
                    let mut first = shared.first.lock();
                    let later = if first.is_none() { first.replace(error) } else { Some(error) };
                    drop(first);
                    drop(failing);
                    drop(later);
                }
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
    /// Re-raises the first panic of a task, whatever errors there were.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    #[track_caller]
    pub fn wait(self) -> Result<(), E> {
        self.tasks.wait();
        self.shared.cancel.cancel();
        let first = self.shared.first.lock().take();
        first.map_or(Ok(()), Err)
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
            cancel.cancel_with(TaskFailed);
        }
    }
}

/// The cause of the context's end when a task of an [`ErrGroup`] failed; the error itself comes from [`ErrGroup::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskFailed;

impl fmt::Display for TaskFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("a task of the group has failed")
    }
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
