//! What a goroutine has from the one that started it: labels, leak checks, and who its ancestors were.
//!
//! - F1: a heritage is never changed. A goroutine that sets a label gets a new one; those that it started before keep theirs.
//! - F2: it is kept with the goroutine's (or thread's) locals, so a program that uses none of this pays nothing for it: no field in a
//!   task, and one look at [`hooks`] for each `go`. Where there is something to inherit, whoever starts the goroutine makes its store of locals.
//! - F3: a goroutine gives up its heritage at its end, before its end can be seen by whoever joins it. So a leak check is referred to by
//!   its own guard and by goroutines that have not ended. What a list or a dump keeps of a goroutine, perhaps for long after that one's end, are its
//!   [`Marks`], which refer to no check.

use std::{
    fmt,
    marker::PhantomData,
    panic::Location,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use super::hooks;
use crate::runtime::{goroutine::Id, locals, scheduler::Worker, slot::Slot, task::TaskRef};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heritage {
    marks: Arc<Marks>,
    checks: Vec<Arc<Check>>,
}

/// What is told of a goroutine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// The innermost last.
    labels: Vec<Entry>,
    ancestors: Vec<Ancestor>,
}

/// A label, and which guard has set it: guards may be dropped in any order.
#[derive(Clone, Debug)]
struct Entry {
    guard: u64,
    key: String,
    value: String,
}

/// What tells one leak check from the others: where it lies.
#[derive(Debug)]
pub(crate) struct Check(#[expect(dead_code, reason = "an address of its own")] u8);

impl Check {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(0))
    }
}

/// One of those through whom a goroutine came to be.
#[derive(Clone, Debug)]
pub(crate) struct Ancestor {
    /// None: a plain thread.
    pub(crate) id: Option<u64>,
    pub(crate) started_at: Option<&'static Location<'static>>,
}

impl fmt::Display for Ancestor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.id, self.started_at) {
            (Some(id), Some(at)) => write!(f, "by goroutine {}, started at {at}", Id(id)),
            (Some(id), None) => write!(f, "by goroutine {}", Id(id)),
            _ => f.write_str("by a thread"),
        }
    }
}

impl Heritage {
    pub(crate) fn marks(&self) -> &Arc<Marks> {
        &self.marks
    }

    /// To be changed before anybody else has this heritage.
    fn marks_mut(&mut self) -> &mut Marks {
        Arc::make_mut(&mut self.marks)
    }

    pub(crate) fn has(&self, check: &Arc<Check>) -> bool {
        self.checks.iter().any(|one| Arc::ptr_eq(one, check))
    }
}

impl Marks {
    /// Keys with their values, in the order in which they were set; the innermost value of each.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let is_innermost = move |at: usize| self.labels[at + 1..].iter().all(|inner| inner.key != self.labels[at].key);
        let innermost = self.labels.iter().enumerate().filter(move |&(at, _)| is_innermost(at));
        innermost.map(|(_, entry)| (&*entry.key, &*entry.value))
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().rfind(|entry| entry.key == key).map(|entry| &*entry.value)
    }

    pub(crate) fn ancestors(&self) -> &[Ancestor] {
        &self.ancestors
    }
}

/// How many ancestors are kept for each new goroutine.
static DEPTH: AtomicUsize = AtomicUsize::new(0);

/// Keeps at least so many ancestors from now on.
pub(crate) fn keep_ancestors(depth: usize) {
    if depth > 0 {
        // ORDERING: Relaxed. H1 of `hooks`.
        DEPTH.fetch_max(depth, Relaxed);
        hooks::switch_on(hooks::HERITAGE);
    }
}

fn caller() -> Option<TaskRef> {
    Worker::current().and_then(Worker::running_or_panicking).and_then(Slot::task)
}

/// The heritage of the calling goroutine or thread.
fn current() -> Option<Arc<Heritage>> {
    match caller() {
        Some(task) => task.heritage(),
        None => locals::with(|locals| locals?.heritage()),
    }
}

fn set(heritage: Option<Arc<Heritage>>) {
    // What was there before is dropped outside of the store.
    let _before = locals::with(|locals| locals?.set_heritage(heritage));
}

/// Changes the heritage of the calling goroutine or thread (F1).
fn change(by: impl FnOnce(&mut Heritage)) {
    hooks::switch_on(hooks::HERITAGE);
    let mut heritage = current().map_or_else(Heritage::default, |heritage| Heritage::clone(&heritage));
    by(&mut heritage);
    set(Some(Arc::new(heritage)));
}

/// Gives `task`, which the caller is about to start, what it inherits. Called when [`hooks::HERITAGE`] is on.
pub(crate) fn pass_on(task: &TaskRef) {
    let own = current();
    let depth = DEPTH.load(Relaxed);
    if depth == 0 {
        if let Some(own) = own {
            task.inherit(own);
        }
        return;
    }
    let caller = caller();
    let parent = Ancestor { id: caller.map(|task| task.id()), started_at: caller.map(|task| task.location()) };
    let mut heritage = own.map_or_else(Heritage::default, |own| Heritage::clone(&own));
    let ancestors = &mut heritage.marks_mut().ancestors;
    ancestors.insert(0, parent);
    ancestors.truncate(depth);
    task.inherit(Arc::new(heritage));
}

pub(crate) fn begin_check(check: &Arc<Check>) {
    change(|heritage| heritage.checks.push(Arc::clone(check)));
}

pub(crate) fn end_check(check: &Arc<Check>) {
    change(|heritage| heritage.checks.retain(|one| !Arc::ptr_eq(one, check)));
}

/// Sets a label of the calling goroutine or thread until the guard is dropped. Goroutines started meanwhile inherit it, and those that
/// they start.
///
/// Dumps and lists show labels beside the goroutine. The innermost value of a key counts. A goroutine that is started by something else (a timer's
/// function, work in [`blocking`](crate::blocking)) inherits nothing.
///
/// # Examples
///
/// ```
/// use oxigo::debug;
///
/// let request = debug::label("request", "GET /");
/// let inherited = oxigo::go(|| debug::label_value("request")).join().unwrap();
/// assert_eq!(inherited.as_deref(), Some("GET /"));
/// drop(request);
/// assert_eq!(debug::label_value("request"), None);
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn label(key: impl Into<String>, value: impl Into<String>) -> Label {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // ORDERING: Relaxed. Numbers need only differ.
    let guard = NEXT.fetch_add(1, Relaxed);
    let entry = Entry { guard, key: key.into(), value: value.into() };
    change(|heritage| heritage.marks_mut().labels.push(entry));
    Label { guard, not_send: PhantomData }
}

/// The value of a label of the calling goroutine or thread.
///
/// # Examples
///
/// See [`label`].
///
/// # Blocking
///
/// Never parks.
pub fn label_value(key: &str) -> Option<String> {
    if !hooks::on(hooks::HERITAGE) {
        return None;
    }
    current()?.marks().label(key).map(str::to_owned)
}

/// Removes its label when it is dropped; made by [`label`]. Of several labels with one key, the newest that is left counts.
#[derive(Debug)]
#[must_use = "the label is taken away when this is dropped"]
pub struct Label {
    guard: u64,
    /// It belongs to the goroutine that has made it.
    not_send: PhantomData<*const ()>,
}

impl Drop for Label {
    fn drop(&mut self) {
        change(|heritage| heritage.marks_mut().labels.retain(|entry| entry.guard != self.guard));
    }
}
