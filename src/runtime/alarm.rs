//! Alarms: closures that run at a time, wherever they were set and whatever the workers do meanwhile.
//!
//! A goroutine that waits has its deadline in its own worker's wheel. What has no goroutine yet (`after_func`, a context's deadline) lives
//! here: what it starts is a fresh closure, so any thread may start it, and one thread of ours does, at once even if a worker is held.
//!
//! - R1: an alarm is in its shard's wheel until it is cancelled or fires. Taking it out, under the shard's lock, is the right to run or drop
//!   its action, so exactly one side gets it.
//! - R2: actions run on the alarm thread, one after the other. They are short code of this crate that never parks; the user's closures
//!   start as goroutines. Actions are dropped outside the lock.
//! - R3: the thread sleeps until `wake_at`, or for ever. Each shard knows when it is to be looked at again, `look_at`; whoever sets an alarm
//!   for before that makes it earlier, and says so under the keeper's lock. While the thread looks through the shards `wake_at` is never, so
//!   that it looks again before it sleeps. Other alarms say nothing: the thread comes by no later than they are due. Cancelling says
//!   nothing either: then it comes by for nothing, once (`alarm_keeper.rs`).
//!
//! Setting and cancelling cost one lock that few share and a constant time (see [`wheel`](super::wheel)).

use std::{
    cell::Cell,
    sync::{
        OnceLock,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    debug,
    runtime::{
        alarm_keeper::{Keeper, SHARDS},
        blocking, bubble, clock, fork,
        go::Builder,
        lifecycle, panics, present,
        wheel::{Due, Key},
    },
    util::Service,
};

pub(crate) type Action = Box<dyn FnOnce() + Send>;

static KEEPER: Keeper<Action> = Keeper::new();

/// What may still start or wake goroutines from outside all runtimes, beside the alarms that are set.
static EXPECTED: AtomicUsize = AtomicUsize::new(0);

/// What tells whether such a thing is left, where that cannot be counted.
static EXPECTED_WHILE: OnceLock<fn() -> bool> = OnceLock::new();

/// An alarm that was set. Dropping this leaves it set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm {
    key: Key,
    keeper: KeptBy,
}

/// Where it is set.
#[derive(Clone, Copy, Debug)]
enum KeptBy {
    Shard(usize),
    /// The number of a bubble: it has alarms of its own.
    Bubble(u64),
}

impl Alarm {
    /// Has `action` run at `when`, not earlier.
    ///
    /// # Panics
    ///
    /// When the thread that does it cannot be started.
    pub(crate) fn set(when: Instant, action: impl FnOnce() + Send + 'static) -> Self {
        fork::check();
        let (at, action) = (clock::nanos(when), Box::new(action));
        if let Some(bubble) = bubble::current() {
            return Self { key: bubble.set_alarm(at, action), keeper: KeptBy::Bubble(bubble.number()) };
        }
        start_thread();
        let shard = shard();
        let key = KEEPER.set(shard, at, action);
        Self { key, keeper: KeptBy::Shard(shard) }
    }

    /// Takes the alarm back and drops its action. False when it has fired or was cancelled before.
    pub(crate) fn cancel(&self) -> bool {
        self.take().is_some()
    }

    /// As [`cancel`](Self::cancel); the action is the caller's.
    pub(crate) fn take(&self) -> Option<Action> {
        // R2: the lock is released before the action is dropped.
        let action = match self.keeper {
            KeptBy::Shard(shard) => KEEPER.take(shard, self.key),
            KeptBy::Bubble(number) => bubble::numbered(number).and_then(|bubble| bubble.take_alarm(self.key)),
        };
        if action.is_some() && super::scheduler::current_slot().is_none() {
            // The detector has perhaps given up looking because of this alarm. A worker that is awake has let it look again.
            clock::active();
        }
        action
    }

    /// Whether it is still going to fire.
    #[cfg(test)]
    pub(crate) fn is_set(&self) -> bool {
        matches!(self.keeper, KeptBy::Shard(shard) if KEEPER.contains(shard, self.key))
    }
}

/// Counts one more thing that may wake goroutines from outside: no standstill is for ever while there is one.
pub(crate) fn expect() {
    // ORDERING: Relaxed. A standstill is judged by two looks some time apart.
    EXPECTED.fetch_add(1, Relaxed);
}

/// Takes back one [`expect`], after what it may have woken has been woken.
pub(crate) fn no_longer_expect() {
    // ORDERING: AcqRel. Who finds nothing expected finds what was started; pairs with `is_expected`.
    EXPECTED.fetch_sub(1, AcqRel);
}

/// As [`expect`], for as long as `condition` says. It is asked by whoever looks for a standstill, and tells nobody when it changes. There is
/// one such condition, the same each time.
pub(crate) fn expect_while(condition: fn() -> bool) {
    let _ = EXPECTED_WHILE.set(condition);
}

/// Whether anything is expected.
pub(crate) fn is_expected() -> bool {
    // First what is set: what has been taken out to run meanwhile was counted before.
    // ORDERING: Acquire, see `no_longer_expect`.
    KEEPER.is_any_set() || EXPECTED.load(Acquire) > 0 || may_lapse()
}

/// Whether something is expected that may come to nothing without anybody being told.
pub(crate) fn may_lapse() -> bool {
    EXPECTED_WHILE.get().is_some_and(|condition| condition())
}

/// The calling thread's shard.
fn shard() -> usize {
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mine = MINE.get();
    if mine < SHARDS {
        return mine;
    }
    // ORDERING: Relaxed. Spreads threads over shards, no more.
    let mine = NEXT.fetch_add(1, Relaxed) % SHARDS;
    MINE.set(mine);
    mine
}

fn start_thread() {
    static SERVICE: Service = Service::new();
    let started = SERVICE.start(|| thread::Builder::new().name("oxigo-alarm".into()).spawn(keep).map(drop));
    if let Err(error) = started {
        panic!("cannot start the thread for timers: {error}");
    }
}

/// The alarm thread.
fn keep() {
    let _ours = crate::runtime::threads::Ours::register();
    super::scheduler::block_signals();
    loop {
        KEEPER.begins_to_look();
        let next = fire(Instant::now());
        let at = clock::instant(next);
        KEEPER.sleep_until(next, || at.map(|at| at.saturating_duration_since(Instant::now())));
    }
}

/// Runs what is due, in the order of the deadlines, and says when to look again.
fn fire(now: Instant) -> u64 {
    let now = clock::nanos(now);
    let mut due = Vec::new();
    // Until what is taken out below has run.
    expect();
    let next = KEEPER.look(now, &mut due);
    let fired = !due.is_empty();
    due.sort_unstable_by_key(|due| due.turn);
    for Due { item: action, .. } in due {
        // A closure that cannot be started any more is dropped in there, and its `Drop` may panic; the hook has printed it.
        panics::quietly(action);
    }
    no_longer_expect();
    if fired {
        // As in `cancel`: it may have woken nobody.
        clock::active();
    }
    next
}

/// The deadline `after` from now; if the clock cannot count to it, one that nobody lives to see.
pub(crate) fn deadline(after: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    let now = present::now();
    now.checked_add(after).unwrap_or_else(|| now + CENTURY)
}

/// The runtime on which closures are to be started later, by its id: this does not keep it alive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomeRuntime(u64);

impl HomeRuntime {
    /// The caller's runtime, or the default one.
    ///
    /// # Panics
    ///
    /// When the default runtime cannot be started.
    pub(crate) fn here() -> Self {
        Self(
            lifecycle::current_or_default_id()
                .unwrap_or_else(|error| panic!("cannot start the default runtime: {error}")),
        )
    }

    /// Starts `f` as a goroutine there. Dropped unrun when the runtime has been given up or has no stack left, which is told on standard error, since
    /// there is nobody to return an error to; not here, since its `Drop` may wait and the caller may be the alarm thread (R2).
    pub(crate) fn go(self, f: impl FnOnce() + Send + 'static) {
        let mut f = DroppedElsewhere(Some(f));
        let run = move || {
            if let Some(f) = f.0.take() {
                f();
            }
        };
        if let Some(runtime) = lifecycle::runtime_of(self.0)
            && let Err(error) = Builder::new().spawn_on(&runtime, run)
            && !runtime.is_closed()
        {
            debug::write_aside(format!(
                "oxigo: a function given to after_func cannot be started, and is dropped: {error}\n"
            ));
        }
    }
}

/// Drops a value of the user's, or with one of the user's in it, on a thread that may wait: for actions (R2).
pub(crate) fn drop_elsewhere<T: Send + 'static>(value: T) {
    drop(DroppedElsewhere(Some(value)));
}

/// A value of the user's that is dropped on a thread that may wait.
struct DroppedElsewhere<F: Send + 'static>(Option<F>);

impl<F: Send + 'static> Drop for DroppedElsewhere<F> {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            // Without a thread for it the closure has been dropped in there all the same.
            let _ = blocking::detached(move || drop(f));
        }
    }
}
