//! Leaks: goroutines that will never end.
//!
//! What is certain without a garbage collector is little, and this module says nothing else. Handles of a channel are counted, but where
//! they are is not known: on the stack of a goroutine that is stuck itself, in a map, lent to a scoped thread. So a receiver that waits
//! while one sender is left looks the same whether that sender is about to send or has been forgotten.
//!
//! - E1: a wait on nothing ([`Reason::Forever`], [`Reason::NeverRecv`]) without a time limit never ends. Nor does one for a future whose waker
//!   nobody has ([`Reason::FutureForgotten`]): wakers are made from wakers.
//! - E2: a `park` ends by an `unpark` only, which needs a handle, and handles are made from handles or by the goroutine itself. So it never
//!   ends once the only references are the runner's and the one that `park` itself holds (J1 of `task`), and the token says that no `unpark`
//!   has come.
//! - E3: a `join` without a time limit or a context that may end ends when its goroutine does. So one that waits for a goroutine which never ends does not
//!   end either, nor do those that wait for each other in a ring.
//!
//! All three are true for ever once they are true, so it does no harm that workers are asked one after another. Goroutines are told apart by
//! id in E3, since the memory of one that has ended serves another.
//!
//! A main goroutine is never called a leak: it may wait for the end of the process on purpose.

use std::{
    collections::HashSet,
    error::Error,
    fmt, io,
    panic::Location,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    census::{Census, CensusEntry, Traces},
    heritage::{self, Check},
};
use crate::{
    runtime::{
        blocking::blocking_io,
        goroutine::Id,
        lifecycle::{self, RuntimeInner},
        panics,
        scheduler::Worker,
        slot::Slot,
        task::TaskRef,
        wait::{Reason, Wait},
    },
    time,
};

/// What a goroutine's wait depends on, as far as this module can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bond {
    /// It does not wait, or may be woken by who knows whom.
    Open,
    /// E1, E2.
    Nothing,
    /// E3: the end of the goroutine with this id.
    EndOf(u64),
}

impl Bond {
    /// Called on the goroutine's worker, between two goroutines.
    pub(crate) fn of(slot: &'static Slot, task: TaskRef) -> Self {
        let Wait { reason, .. } = slot.wait();
        if slot.has_timer() || is_main(task.id()) {
            return Self::Open;
        }
        match reason {
            Reason::Forever | Reason::NeverRecv | Reason::FutureForgotten => Self::Nothing,
            Reason::Park if task.is_parked_alone() => Self::Nothing,
            Reason::Join => slot.joins().map_or(Self::Open, Self::EndOf),
            _ => Self::Open,
        }
    }
}

/// Ids of main goroutines that have not ended.
static MAINS: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Names a main goroutine for as long as it lives.
#[derive(Debug)]
pub(crate) struct Main(pub(crate) u64);

impl Main {
    pub(crate) fn register(id: u64) -> Self {
        MAINS.lock().unwrap_or_else(PoisonError::into_inner).push(id);
        Self(id)
    }
}

impl Drop for Main {
    fn drop(&mut self) {
        MAINS.lock().unwrap_or_else(PoisonError::into_inner).retain(|id| *id != self.0);
    }
}

pub(crate) fn is_main(id: u64) -> bool {
    MAINS.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
}

/// The ids of those of `entries` that never end (E1 to E3).
pub(crate) fn never_end<'a>(entries: impl Iterator<Item = &'a CensusEntry> + Clone) -> HashSet<u64> {
    let bound = entries.clone().filter(|entry| entry.bond != Bond::Open);
    let mut stuck: HashSet<u64> = bound.clone().map(|entry| entry.id).collect();
    // Whoever joins one that may end may end.
    loop {
        let before = stuck.len();
        for entry in bound.clone() {
            if let Bond::EndOf(id) = entry.bond
                && !stuck.contains(&id)
            {
                stuck.remove(&entry.id);
            }
        }
        if stuck.len() == before {
            return stuck;
        }
    }
}

/// Goroutines that [`leaks`] or [`LeakCheck::end`] has found, in the order of their ids. Prints as a list of what each waits for and where it was
/// started.
#[derive(Clone, Default)]
pub struct Goroutines {
    entries: Vec<CensusEntry>,
    /// Goroutines that could not be looked at: not started, or on a worker that one goroutine holds.
    unseen: usize,
}

impl Goroutines {
    fn new(mut entries: Vec<CensusEntry>, unseen: usize) -> Self {
        entries.sort_by_key(|entry| entry.id);
        Self { entries, unseen }
    }

    /// All goroutines of `runtime`. Called on a thread that is no worker of it.
    pub(crate) fn of(runtime: &Arc<RuntimeInner>) -> Self {
        let Census { entries, unseen, .. } = Census::of(runtime, Traces::Left);
        Self::new(entries, unseen)
    }

    /// How many there are.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn len(&self) -> usize {
        self.entries.len() + self.unseen
    }

    /// Whether there are none.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The goroutines, but for those of workers that could not be looked at.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn iter(&self) -> impl Iterator<Item = GoroutineInfo<'_>> {
        self.entries.iter().map(GoroutineInfo)
    }
}

impl fmt::Display for Goroutines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            writeln!(f, "{}: {}", Heading(entry), Waiting(entry))?;
            entry.fmt_start(f)?;
        }
        match (self.entries.len(), self.unseen) {
            (0, 0) => f.write_str("no goroutines\n"),
            (_, 0) => Ok(()),
            (0, unseen) => writeln!(f, "{} that had not started or could not be looked at", counted(unseen)),
            (_, unseen) => writeln!(f, "and {unseen} more that had not started or could not be looked at"),
        }
    }
}

/// So many goroutines, in words.
pub(crate) fn counted(goroutines: usize) -> String {
    format!("{goroutines} goroutine{}", if goroutines == 1 { "" } else { "s" })
}

/// So that a test may end with `check.end()?`.
impl Error for Goroutines {}

impl fmt::Debug for Goroutines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// One of [`Goroutines`].
#[derive(Clone, Copy)]
pub struct GoroutineInfo<'a>(&'a CensusEntry);

impl<'a> GoroutineInfo<'a> {
    pub(crate) fn new(entry: &'a CensusEntry) -> Self {
        Self(entry)
    }

    /// Its id.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn id(&self) -> Id {
        Id(self.0.id)
    }

    /// The name given to its [`Builder`](crate::Builder).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn name(&self) -> Option<&'a str> {
        self.0.name.as_deref()
    }

    /// What it waits for, in the words of a dump: "chan receive", "park" …; "runnable" when it does not wait.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn waits_for(&self) -> &'static str {
        self.0.wait.reason.text()
    }

    /// For how long it has waited.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn waited(&self) -> Duration {
        self.0.waited
    }

    /// Where it was started.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn started_at(&self) -> &'static Location<'static> {
        self.0.started_at
    }

    /// The value of one of its [labels](super::label()).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn label(&self, key: &str) -> Option<&'a str> {
        self.0.marks.as_ref()?.label(key)
    }
}

impl fmt::Debug for GoroutineInfo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoroutineInfo")
            .field("id", &self.id())
            .field("name", &self.name())
            .field("waits_for", &self.waits_for())
            .field("started_at", &format_args!("{}", self.started_at()))
            .finish_non_exhaustive()
    }
}

/// How a goroutine is called: `goroutine 17 [name] {key=value}`.
pub(crate) struct Heading<'a>(pub(crate) &'a CensusEntry);

impl fmt::Display for Heading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "goroutine {}", self.0.id)?;
        if let Some(name) = &self.0.name {
            write!(f, " [{name}]")?;
        }
        let mut before = " {";
        for (key, value) in self.0.marks.iter().flat_map(|marks| marks.labels()) {
            write!(f, "{before}{key}={value}")?;
            before = ", ";
        }
        f.write_str(if before == ", " { "}" } else { "" })
    }
}

/// What a goroutine waits for, with the number that a join's goroutine has in the other headings: `join on 0x… (goroutine 17)`.
pub(crate) struct Waiting<'a>(pub(crate) &'a CensusEntry);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.wait.fmt(f)?;
        match self.0.joins {
            Some(id) => write!(f, " (goroutine {id})"),
            None => Ok(()),
        }
    }
}

impl CensusEntry {
    /// Where it was started, and by whom if that is kept.
    pub(crate) fn fmt_start(&self, f: &mut impl fmt::Write) -> fmt::Result {
        writeln!(f, "    started at {}", self.started_at)?;
        for ancestor in self.marks.iter().flat_map(|marks| marks.ancestors()) {
            writeln!(f, "    {ancestor}")?;
        }
        Ok(())
    }
}

/// The goroutines of the process that will never end, as far as that is certain.
///
/// What it can see, provided that the wait has no time limit: goroutines in a `select!` without arms, in operations on
/// [`never()`](crate::chan::never) and selects that have only those; goroutines in [`park`](crate::park()) when no handle is left by which they could
/// be unparked; those in [`block_on`](crate::future::block_on) whose future has kept no waker; and those that wait in
/// [`join`](crate::JoinHandle::join) for one of these, or for each other. A context that nothing can end, as
/// [`Context::background`](crate::context::Context::background), is no limit. Main goroutines are never among them. Nothing that could still end is ever
/// reported.
///
/// What it cannot see: goroutines that wait on channels, locks, groups and the like which nobody will ever use again. Rust has no garbage collector
/// that knows where the handles of these are. When the last handle of a channel's other side is gone its waiters are woken, so such a leak needs a
/// handle that is kept somewhere: for instance by the waiting goroutine itself. Where the program is known to be done, above all in a test,
/// [`leak_check`] finds these as well; while a program runs, [`suspects`](super::suspects()) names some of them without proof, and
/// [`dump`](super::dump()) shows how long each has waited.
///
/// Dumps and deadlock reports mark these goroutines with "for ever".
///
/// # Examples
///
/// ```
/// let stuck = oxigo::go(|| oxigo::chan::never::<()>().recv());
/// let id = stuck.id();
/// # while !oxigo::debug::leaks().iter().any(|leak| leak.id() == id) { oxigo::time::sleep(std::time::Duration::from_millis(1)) }
/// let leaks = oxigo::debug::leaks();
/// assert!(leaks.iter().any(|leak| leak.id() == id && leak.waits_for() == "chan receive (never ready)"));
/// ```
///
/// # Panics
///
/// When no thread can be started to wait for the answers.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, for the time that looking takes.
#[track_caller]
pub fn leaks() -> Goroutines {
    let entries = match all_entries() {
        Ok(entries) => entries,
        Err(error) => panic!("cannot look at the goroutines: {error}"),
    };
    let stuck = never_end(entries.iter());
    Goroutines::new(entries.into_iter().filter(|entry| stuck.contains(&entry.id)).collect(), 0)
}

/// All goroutines of the process that can be looked at; an error where no thread can be had to wait for the answers.
fn all_entries() -> io::Result<Vec<CensusEntry>> {
    let look = |runtime: &Arc<RuntimeInner>| {
        if runtime.alive() == 0 { Vec::new() } else { Census::of(runtime, Traces::Left).entries }
    };
    // A goroutine that waited here would hold its own worker, which could not answer.
    blocking_io(|| Ok(lifecycle::runtimes().iter().flat_map(look).collect()))
}

/// Begins a leak check: goroutines that the caller starts from now on, and those that these start, have to end before the check does.
///
/// This is for cases that `#[oxigo::test]` does not fit: other harnesses, parts of a test, tests on a runtime that several share. The check ends with
/// [`LeakCheck::end`], or when it is dropped, which panics if a goroutine is still alive (but not during another panic). It looks only at what the
/// calling goroutine or thread starts, so tests that run beside it do not disturb it. A goroutine that a timer's function or work in
/// [`blocking`](crate::blocking) starts is not counted.
///
/// # Examples
///
/// ```
/// fn nothing_is_left_behind() {
///     let _check = oxigo::debug::leak_check();
///     oxigo::go(|| println!("soon over"));
/// } // waits for the end of the goroutine, two seconds at most
/// # nothing_is_left_behind();
/// ```
///
/// # Blocking
///
/// Never parks; the end of the check does.
pub fn leak_check() -> LeakCheck {
    let check = Check::new();
    heritage::begin_check(&check);
    LeakCheck { check, grace: GRACE, ended: false, not_send: std::marker::PhantomData }
}

/// How long goroutines that are about to end may take.
const GRACE: Duration = Duration::from_secs(2);

/// A leak check that is going on; made by [`leak_check`].
#[derive(Debug)]
#[must_use = "the check ends, and looks, when this is dropped"]
pub struct LeakCheck {
    check: Arc<Check>,
    grace: Duration,
    ended: bool,
    /// It belongs to the goroutine that has begun it.
    not_send: std::marker::PhantomData<*const ()>,
}

impl LeakCheck {
    /// How long goroutines may take to end once the check is over. Default: two seconds.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Ends the check.
    ///
    /// # Errors
    ///
    /// Those goroutines that are still alive when the grace period is over.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let check = oxigo::debug::leak_check().grace(Duration::from_millis(20));
    /// let (tx, rx) = oxigo::unbuffered::<()>();
    /// let waits = oxigo::go(move || rx.recv());
    /// # while oxigo::debug::metrics().parked < 1 { std::thread::sleep(Duration::from_millis(1)) }
    /// let left = check.end().unwrap_err();
    /// assert_eq!(left.len(), 1);
    /// assert!(left.to_string().contains("chan receive"));
    /// drop(tx);
    /// assert!(waits.join().unwrap().is_err());
    /// ```
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, until all have ended or the grace period is over.
    pub fn end(mut self) -> Result<(), Goroutines> {
        self.look()
    }

    fn look(&mut self) -> Result<(), Goroutines> {
        self.ended = true;
        heritage::end_check(&self.check);
        let begin = Instant::now();
        let mut pause = Duration::from_micros(50);
        // F3 of `heritage`: what refers to the check beside this guard is a goroutine that has not ended.
        while Arc::strong_count(&self.check) > 1 {
            if begin.elapsed() >= self.grace {
                // That some are left is known without a look.
                let mut left = all_entries().unwrap_or_default();
                left.retain(|entry| entry.heritage.upgrade().is_some_and(|heritage| heritage.has(&self.check)));
                let references = Arc::strong_count(&self.check);
                if references == 1 {
                    // The last has ended meanwhile.
                    return Ok(());
                }
                let unseen = usize::from(left.is_empty());
                return Err(Goroutines::new(left, unseen));
            }
            match Worker::current() {
                Some(_) => time::sleep(pause),
                None => thread::sleep(pause),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for LeakCheck {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if panics::is_unwinding() {
            return heritage::end_check(&self.check);
        }
        if let Err(left) = self.look() {
            let verb = if left.len() == 1 {
                "was started during a leak check and is"
            } else {
                "were started during a leak check and are"
            };
            panic!("{} that {verb} still alive:\n{left}", counted(left.len()));
        }
    }
}
