//! Runtimes: how they are made, found and given up. What users hold of one is in [`handle`](super::handle).
//!
//! - L1: a runtime's shared part lives as long as one of its workers; its processors are never freed, and serve another runtime only after
//!   the last worker of this one has ended.
//! - L2: giving a runtime up marks it closed ([`closing`](super::scheduler::closing)) and wakes the workers, and never waits. From then on nothing
//!   new starts: closures that were waiting are dropped, each on a goroutine of its own, since their `Drop` is user code (P5). A worker ends when
//!   nothing is left that could run on it. It never ends while it owns a suspended goroutine: that goroutine may have lent thread-locals.
//! - L3: every closure that waits to start has a stack reserved, so that a shortage of address space or mappings is an error of
//!   the `go` that asks, and not of the worker that starts it.

use std::{
    io,
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    thread,
};

use crossbeam_deque::Injector;

use crate::{
    debug::{
        heritage, quit, trace,
        watchdog::{self, Hold},
    },
    runtime::{
        blocking,
        bubble::Bubble,
        clock,
        driver::poller::Events,
        fork,
        options::Options,
        panics,
        scheduler::{FirstTurns, Processor, Worker, closing::Closing, idle::Idle},
        slot::Slot,
        task::TaskRef,
        threads::{self, Ours},
    },
    stack::{self, Metadata, Pool},
};

/// Ticks without a scheduling point after which the clock thread polls in a worker's place, and no longer counts on those who search.
const HELD_FOR: u64 = 2;

/// What the workers of a runtime and its handles share.
pub(crate) struct RuntimeInner {
    /// Never used twice in a process.
    id: u64,
    processors: Box<[&'static Processor]>,
    injector: Injector<TaskRef>,
    idle: Idle,
    closing: Closing,
    spawned_outside: AtomicU64,
    cores: usize,
    /// B5.
    pub(crate) first_turns: FirstTurns,
    /// Whether there were closures from outside when the clock thread looked last.
    left_outside: AtomicBool,
    /// Workers that are awake and whose thread a goroutine blocked, or that a goroutine held which computes, when the clock thread looked last; counted where
    /// there are more workers than cores.
    blocked: AtomicUsize,
    computing: AtomicUsize,
    stacks: &'static Pool<Slot>,
    options: Options,
    bubble: Option<Arc<Bubble>>,
}

impl RuntimeInner {
    pub(crate) fn start(options: Options) -> io::Result<Arc<Self>> {
        Self::start_in(None, options)
    }

    /// With a clock of its own, and one worker.
    pub(super) fn start_in(bubble: Option<Arc<Bubble>>, options: Options) -> io::Result<Arc<Self>> {
        fork::checked()?;
        if options.name.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the name of a runtime cannot contain a zero byte",
            ));
        }
        fork::watch();
        crate::util::biased::prepare();
        stack::overflow::install()?;
        panics::wrap_hook();
        heritage::keep_ancestors(options.ancestors);
        trace::from_environment();
        let cores = super::cores::available();
        let workers = options.workers_on(cores);
        let stacks = stack_pool(options.stack_size);
        let mut processors = Vec::with_capacity(workers);
        for _ in 0..workers {
            match Processor::acquire() {
                Ok(processor) => processors.push(processor),
                Err(error) => {
                    processors.into_iter().for_each(Processor::release);
                    return Err(io::Error::new(error.kind(), format!("cannot make a poller for each worker: {error}")));
                }
            }
        }
        // ORDERING: Relaxed. A number that nobody else gets.
        let id = NEXT_ID.fetch_add(1, Relaxed);
        let shared = Arc::new(Self {
            id,
            processors: processors.into_boxed_slice(),
            injector: Injector::new(),
            idle: Idle::new(workers),
            closing: Closing::new(),
            spawned_outside: AtomicU64::new(0),
            cores,
            first_turns: FirstTurns::default(),
            left_outside: AtomicBool::new(false),
            blocked: AtomicUsize::new(0),
            computing: AtomicUsize::new(0),
            stacks,
            options,
            bubble,
        });
        threads::expect(workers + 2);
        clock::start().map_err(|error| {
            io::Error::new(io::ErrorKind::OutOfMemory, format!("cannot start the clock thread: {error}"))
        })?;
        quit::install();
        for index in 0..workers {
            let runtime = Arc::clone(&shared);
            let name = format!("{}-{index}", shared.options.name);
            let spawned = thread::Builder::new().name(name).spawn(move || {
                super::scheduler::block_signals();
                let _ours = Ours::register();
                let _alternate_stack = stack::overflow::AltStack::install();
                let _whole = AbortOnWorkerPanic;
                Worker::new(runtime, index).run();
            });
            if let Err(error) = spawned {
                // Workers that have started end by themselves.
                shared.close();
                let error = format!("cannot start worker thread {index} of {workers}: {error}; fewer workers may fit");
                return Err(io::Error::new(io::ErrorKind::OutOfMemory, error));
            }
        }
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, runtime)| runtime.strong_count() > 0);
        all.push((id, Arc::downgrade(&shared)));
        Ok(shared)
    }

    /// Processors of the machine that the process may use.
    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// Workers that are awake or have been notified.
    pub(crate) fn awake(&self) -> usize {
        self.processors.iter().filter(|p| !p.doze().is_asleep()).count()
    }

    /// Whether there is a core for one more worker than so many.
    #[inline]
    pub(crate) fn has_core_beside(&self, awake: impl FnOnce() -> usize) -> bool {
        // ORDERING: Relaxed. Hints, a tick old; when they grow, the clock thread wakes somebody.
        let held = || (self.blocked.load(Relaxed), self.computing.load(Relaxed));
        !self.is_oversubscribed() || has_core_beside(self.cores, awake(), held())
    }

    /// Whether there is a core for one more worker than are awake.
    #[inline]
    pub(crate) fn has_free_core(&self) -> bool {
        self.has_core_beside(|| self.awake())
    }

    /// Whether some workers stay without a core, so that it matters which of them get up.
    pub(crate) fn is_oversubscribed(&self) -> bool {
        self.processors.len() > self.cores
    }

    #[inline]
    pub(crate) fn processors(&self) -> &[&'static Processor] {
        &self.processors
    }

    #[inline]
    pub(crate) fn injector(&self) -> &Injector<TaskRef> {
        &self.injector
    }

    #[inline]
    pub(crate) fn idle(&self) -> &Idle {
        &self.idle
    }

    #[inline]
    pub(crate) fn stacks(&self) -> &'static Pool<Slot> {
        self.stacks
    }

    #[inline]
    pub(crate) fn bubble(&self) -> Option<&Bubble> {
        self.bubble.as_deref()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.closing.is_closed()
    }

    pub(crate) fn closing(&self) -> &Closing {
        &self.closing
    }

    /// L2.
    pub(crate) fn close(&self) {
        self.closing.close();
        // Each with a fence before it looks whether the worker sleeps.
        for processor in &self.processors {
            processor.notify();
        }
    }

    /// Takes in a closure from a thread that is not one of this runtime's workers.
    pub(crate) fn inject(&self, task: TaskRef) {
        // ORDERING: Relaxed. A count for `num_goroutines`.
        self.spawned_outside.fetch_add(1, Relaxed);
        self.injector.push(task);
        self.wake_one();
    }

    /// Places a closure with one worker. The caller is on a worker of this runtime, or keeps the runtime open.
    pub(crate) fn place(&self, processor: &Processor, task: TaskRef) {
        processor.give(task);
        // Either that worker sees the closure, or we take back what it may have left behind; the caller's own worker looks at the injector before
        // it ends.
        if self.closing.is_too_late() {
            while let Some(task) = super::scheduler::steal(|| processor.given.steal()) {
                self.injector.push(task);
            }
        }
    }

    /// Wakes a sleeper if a worker that stands still has left closures behind, or somebody outside. Whoever searches finds them, unless it stands still
    /// as well, which shows when they are there for the second time.
    fn look_for_left(&self) {
        let has = |p: &Processor| !(p.stealer.is_empty() && p.given.is_empty());
        let leaves = |p: &&'static Processor| (p.is_late() || !p.doze().is_resting()) && has(p);
        let outside = !self.injector.is_empty();
        // ORDERING: Relaxed. The clock thread's own.
        let again = self.left_outside.swap(outside, Relaxed) && outside;
        let stands_still = |p: &Processor| p.watch.held() >= HELD_FOR || p.is_late();
        let left = self.processors.iter().copied().filter(leaves);
        if again || left.clone().any(stands_still) {
            self.wake_sleeper();
        } else if outside || left.count() > 0 {
            self.wake_one();
        }
    }

    /// Counts a closure placed from outside by a hint.
    pub(crate) fn count_outside(&self) {
        // ORDERING: Relaxed, as in `inject`.
        self.spawned_outside.fetch_add(1, Relaxed);
    }

    pub(crate) fn reserve(&self, stacks: usize) -> io::Result<()> {
        self.stacks.reserve(stacks)
    }

    pub(crate) fn give_back_credits(&self, stacks: u32) {
        self.stacks.unreserve(stacks as usize);
    }

    /// Goroutines that have been started with `go` and have not ended.
    pub(crate) fn alive(&self) -> usize {
        // Ends first: every end counted has its start counted before.
        let ended: u64 = self.processors.iter().map(|p| p.published.ended.load(Relaxed)).sum();
        fence(SeqCst);
        let inside: u64 = self.processors.iter().map(|p| p.published.spawned.load(Relaxed)).sum();
        (self.spawned_outside.load(Relaxed) + inside).saturating_sub(ended) as usize
    }

    /// When every worker sleeps and none of its goroutines waits for something outside the runtime: the sum of all that has
    /// happened so far, by which two standstills can be told apart.
    pub(crate) fn standstill(&self) -> Option<u64> {
        let asleep = |p: &Processor| p.doze().is_asleep() && p.inbox().is_empty() && p.given.is_empty();
        let asleep = self.processors.iter().all(|p| asleep(p));
        fence(SeqCst);
        let published = self.processors.iter().map(|p| &p.published);
        let waits_outside = published.flat_map(|p| [&p.timed, &p.foreign]).any(|waiting| waiting.load(Relaxed) > 0);
        if !asleep || waits_outside || super::alarm::is_expected() || !self.injector.is_empty() {
            return None;
        }
        let rounds: u64 = self.processors.iter().map(|p| p.published.rounds.load(Relaxed)).sum();
        Some(rounds + self.spawned_outside.load(Relaxed))
    }

    /// The least loaded worker: fewest ready or placed there, then fewest living goroutines.
    pub(crate) fn least_loaded(&self) -> &'static Processor {
        let key = |p: &&'static Processor| {
            let placed = p.given.len() as u64;
            (u64::from(p.load()) + placed, p.live() + placed)
        };
        self.processors.iter().copied().min_by_key(key).expect("a runtime has a worker")
    }
}

/// A worker that fails takes its goroutines with it, and whoever waits for them would wait for ever.
struct AbortOnWorkerPanic;

impl Drop for AbortOnWorkerPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            crate::util::stderr::print(
                "oxigo: the worker above has failed, and with it its goroutines: this is a bug in oxigo; please report it\n",
            );
            std::process::abort();
        }
    }
}

impl Drop for RuntimeInner {
    /// The last worker has ended, and no handle is left.
    fn drop(&mut self) {
        // What was injected when the last worker had just looked: its `Drop` is user code, so it is given to a thread that may wait.
        while let Some(task) = super::scheduler::steal(|| self.injector.steal()) {
            if let Some(unit) = task.unit() {
                // SAFETY: a task that has not started and knows a unit has a slot of its own.
                let slot = unsafe { Slot::of(unit) };
                slot.own_stack().take();
                stack_pool_of(slot).put_one(slot);
            } else {
                self.give_back_credits(1);
            }
            // Without a thread for it the closure is leaked.
            let _ = blocking::detached(move || task.refuse());
        }
        self.processors.iter().for_each(|processor| processor.release());
    }
}

/// Every runtime of the process with its id, for the clock thread, for dumps and for what starts later.
static ALL: Mutex<Vec<(u64, Weak<RuntimeInner>)>> = Mutex::new(Vec::new());
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// One look of the clock thread at all workers; whether any is awake. The empty `runtimes` is room to collect them in: who starts or looks up a runtime
/// does not wait for the look.
pub(crate) fn supervise(events: &mut Events, runtimes: &mut Vec<Arc<RuntimeInner>>) -> bool {
    let mut awake = false;
    runtimes.extend(all_alive(&ALL.lock().unwrap_or_else(PoisonError::into_inner)));
    for runtime in runtimes.drain(..) {
        // One that was notified and has not got up may have no core. What it was notified of must not wait for that.
        if runtime.awake() > 0 {
            awake = true;
            let now = clock::now();
            for processor in &runtime.processors {
                watchdog::look(processor, now);
                if processor.watch.held() >= HELD_FOR {
                    processor.poll_in_place(events);
                }
            }
            if runtime.is_oversubscribed() {
                let (mut blocked, mut computing) = (0, 0);
                for processor in &runtime.processors {
                    match watchdog::hold(processor, now) {
                        Hold::Blocks => blocked += 1,
                        Hold::Computes => computing += 1,
                        Hold::No => computing += usize::from(processor.is_late()),
                    }
                }
                // ORDERING: Relaxed. Hints.
                runtime.blocked.store(blocked, Relaxed);
                runtime.computing.store(computing, Relaxed);
            }
            // A worker that stands still may have left closures behind, or those from outside: let a sleeper look.
            if runtime.idle.sleeping() > 0 {
                runtime.look_for_left();
            }
        }
    }
    awake
}

/// The runtimes that have not ended.
pub(crate) fn runtimes() -> Vec<Arc<RuntimeInner>> {
    all_alive(&ALL.lock().unwrap_or_else(PoisonError::into_inner)).collect()
}

fn all_alive(all: &[(u64, Weak<RuntimeInner>)]) -> impl Iterator<Item = Arc<RuntimeInner>> {
    all.iter().filter_map(|(_, runtime)| runtime.upgrade())
}

/// The runtime with this id, if it has not ended.
pub(crate) fn runtime_of(id: u64) -> Option<Arc<RuntimeInner>> {
    let runtimes = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    runtimes.iter().find(|(other, _)| *other == id)?.1.upgrade()
}

static POOLS: Mutex<Vec<&'static Pool<Slot>>> = Mutex::new(Vec::new());

/// Calls `each` with every slot that was ever handed out.
pub(crate) fn each_slot(mut each: impl FnMut(&'static Slot)) {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for pool in pools {
        pool.each(&mut each);
    }
}

/// The pool of stacks of `size`, made at first use and kept for ever.
fn stack_pool(size: usize) -> &'static Pool<Slot> {
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let new = Pool::new(size);
    if let Some(pool) = pools.iter().find(|pool| pool.stack_size() == new.stack_size()) {
        return pool;
    }
    let pool: &'static Pool<Slot> = Box::leak(Box::new(new));
    pools.push(pool);
    pool
}

/// The pool that a stack of its own came from.
pub(crate) fn stack_pool_of(slot: &Slot) -> &'static Pool<Slot> {
    stack_pool(slot.bounds().stride())
}

/// A stack of `bytes` for one goroutine.
pub(crate) fn own_stack(bytes: usize) -> io::Result<&'static Slot> {
    let slot = stack_pool(bytes).take_one()?;
    slot.reserve_for_one();
    Ok(slot)
}

/// Ids for one worker's next goroutines. Id 1 is kept for the first main goroutine.
pub(crate) fn id_block() -> Range<u64> {
    const BLOCK: u64 = 1024;
    static NEXT: AtomicU64 = AtomicU64::new(2);
    // ORDERING: Relaxed. Only uniqueness counts.
    let start = NEXT.fetch_add(BLOCK, Relaxed);
    start..start + BLOCK
}

/// An id for one goroutine or thread outside all workers.
pub(crate) fn single_id() -> u64 {
    static IDS: Mutex<Range<u64>> = Mutex::new(0..0);
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    ids.next().unwrap_or_else(|| {
        *ids = id_block();
        ids.next().expect("a block is not empty")
    })
}

/// The id of a main goroutine: 1 for the first of the process.
pub(crate) fn main_id() -> u64 {
    static FIRST: AtomicBool = AtomicBool::new(true);
    // ORDERING: Relaxed. Only one swap finds true.
    if FIRST.swap(false, Relaxed) { 1 } else { single_id() }
}

static DEFAULT: OnceLock<Arc<RuntimeInner>> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

/// The runtime that everything outside a runtime uses; started by its first use.
pub(crate) fn try_default() -> io::Result<&'static Arc<RuntimeInner>> {
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = DEFAULT.get() {
        return Ok(runtime);
    }
    let runtime = RuntimeInner::start(Options::from_environment()?)?;
    Ok(DEFAULT.get_or_init(|| runtime))
}

/// Starts the default runtime with so many workers; an error when it runs already.
pub(crate) fn start_default(workers: usize) -> io::Result<()> {
    let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if DEFAULT.get().is_some() {
        return Err(io::Error::other("it runs already, so its number of workers cannot be set"));
    }
    let mut options = Options::from_environment()?;
    options.workers = Some(workers);
    let runtime = RuntimeInner::start(options)?;
    DEFAULT.get_or_init(|| runtime);
    Ok(())
}

/// As [`try_default`], for callers that have no way to report an error.
#[track_caller]
pub(crate) fn default_runtime() -> &'static Arc<RuntimeInner> {
    // No closure: it would be the place of the panic.
    match try_default() {
        Ok(runtime) => runtime,
        Err(error) => panic!("cannot start the default runtime: {error}"),
    }
}

/// A processor of the default runtime, for descriptors that plain threads wait for.
pub(crate) fn default_processor() -> io::Result<&'static Processor> {
    let processors = try_default()?.processors();
    Ok(processors.iter().copied().min_by_key(|p| p.sockets()).expect("a runtime has a worker"))
}

/// The id of the calling goroutine's runtime, or of the default one.
pub(crate) fn current_or_default_id() -> io::Result<u64> {
    match Worker::current() {
        Some(worker) => Ok(worker.runtime.id),
        None => Ok(try_default()?.id),
    }
}

/// The runtime of the calling goroutine, or the default one.
pub(crate) fn current_or_default() -> io::Result<Arc<RuntimeInner>> {
    match Worker::current() {
        Some(worker) => Ok(Arc::clone(&worker.runtime)),
        None => try_default().map(Arc::clone),
    }
}

/// Whether there is a core for one more worker beside those that are awake. Of them a goroutine blocks the threads of some, which need none, and holds others
/// while it computes: if it holds all, whatever else is to be done still gets a worker.
fn has_core_beside(cores: usize, awake: usize, (blocked, computing): (usize, usize)) -> bool {
    let wanting = awake.saturating_sub(blocked);
    wanting < cores || wanting <= computing
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::Runtime;

    /// One worker is held, the other sleeps, and a third seems to search: it has lost its core. The clock thread does not count on it for long.
    #[test]
    fn s_10_closures_do_not_wait_for_one_who_searches_and_does_not_come() {
        let runtime = Runtime::builder().workers(2).name("test").build().unwrap();
        let (held, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (holds, until) = (Arc::clone(&held), Arc::clone(&done));
        let holder = runtime.go(move || {
            holds.store(true, SeqCst);
            let begin = Instant::now();
            while !until.load(SeqCst) && begin.elapsed() < Duration::from_secs(20) {
                std::hint::spin_loop();
            }
            until.load(SeqCst)
        });
        let shared = runtime.shared();
        // The other one has ended its naps: it does not look any more.
        let polls = || -> u64 { shared.processors().iter().map(|p| p.published.polls.load(Relaxed)).sum() };
        let mut seen = u64::MAX;
        while !held.load(SeqCst) || shared.idle().sleeping() == 0 || std::mem::replace(&mut seen, polls()) != polls() {
            thread::sleep(Duration::from_millis(50));
        }
        assert!(shared.idle().begin_search(2));
        runtime.go(move || done.store(true, SeqCst));
        let started = holder.join().unwrap();
        shared.idle().end_search();
        assert!(started, "a closure waits beside a sleeper");
    }

    #[test]
    fn another_worker_gets_up_for_a_free_core_or_where_all_others_are_held() {
        let has = |awake, blocked, computing| has_core_beside(2, awake, (blocked, computing));
        assert!(has(0, 0, 0) && has(1, 0, 0) && !has(2, 0, 0));
        // A thread that is blocked leaves its core.
        assert!(has(2, 1, 0) && !has(3, 1, 0) && has(7, 6, 0));
        // One that computes does not, and one worker is left for the others.
        assert!(!has(2, 0, 1) && has(2, 0, 2) && !has(3, 0, 2) && has(3, 0, 3));
        assert!(has(5, 2, 3) && !has(6, 2, 3));
        // Counted a tick ago.
        assert!(has(1, 2, 3));
    }
}
