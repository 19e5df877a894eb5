//! `Runtime` and its builder: what users hold of a runtime. How one lives and ends is in [`lifecycle`](super::lifecycle).

use std::{io, sync::Arc};

use crate::runtime::{
    bubble::Bubble,
    lifecycle::RuntimeInner,
    options::{Deadlock, Options, PanicPolicy},
};

/// A runtime: worker threads and their goroutines, separate from other runtimes.
///
/// Most programs need none: [`go`](crate::go) and [`run`](crate::run) use the process's default runtime, which starts by itself.
///
/// Dropping a `Runtime` never blocks. From then on the runtime refuses new goroutines (`go` panics, `Builder::spawn` returns an error), drops
/// closures that have not started, and ends each worker thread when its last goroutine has ended. So wait for what has to run before you drop it:
/// with `run`, by joining, or with a [`WaitGroup`](crate::WaitGroup). Closures are dropped by workers; if a goroutine holds the only worker, they
/// wait until it yields or parks. The descriptors of a worker (an epoll and an eventfd) are kept for later runtimes.
///
/// Goroutines that are started from a goroutine of this runtime belong to it too. What [`go`](crate::go) starts on a plain thread, or inside
/// [`blocking`](crate::blocking), which runs on one, belongs to the default runtime: use [`Runtime::go`] there.
///
/// # Examples
///
/// ```
/// let runtime = oxigo::Runtime::builder().workers(2).name("billing").build()?;
/// let sum = runtime.run(|| {
///     let half = oxigo::go(|| (1..=50).sum::<u32>());
///     (51..=100).sum::<u32>() + half.join().unwrap()
/// });
/// assert_eq!(sum, 5050);
///
/// let bills = oxigo::WaitGroup::new();
/// let sent = bills.guard();
/// runtime.go(move || {
///     // … send a bill …
///     drop(sent);
/// });
/// // Without this wait the goroutine may never run: dropping the runtime drops what has not started.
/// bills.wait();
/// drop(runtime);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Runtime {
    shared: Arc<RuntimeInner>,
}

impl Runtime {
    /// Options for a new runtime.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder { options: Options::default() }
    }

    /// Starts `f` as a goroutine of this runtime; see [`go`](crate::go). If the runtime is dropped before `f` has started, `f` never runs.
    ///
    /// # Panics
    ///
    /// When no stack is available; the message names the limit.
    ///
    /// # Blocking
    ///
    /// Never parks.
    #[track_caller]
    pub fn go<F, T>(&self, f: F) -> crate::JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        // No closure: it would be the place of the panic.
        match crate::Builder::new().spawn_on(&self.shared, f) {
            Ok(handle) => handle,
            Err(error) => crate::runtime::go::cannot_start(&error),
        }
    }

    /// Runs `f` as a main goroutine of this runtime and returns its value; see [`run`](crate::run()).
    ///
    /// # Panics
    ///
    /// Resumes a panic of `f`. Panics on a goroutine of this runtime, and when no stack is available; then the message names the limit.
    ///
    /// # Blocking
    ///
    /// Blocks the calling thread; parks a goroutine of another runtime.
    #[track_caller]
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        super::run::run_on(&self.shared, f)
    }

    /// One of one worker whose clock is the bubble's, and that says nothing of standstills: the bubble's conductor does.
    pub(crate) fn of_bubble(bubble: Arc<Bubble>) -> io::Result<Self> {
        let options = Options {
            workers: Some(1),
            name: "oxigo-bubble".into(),
            deadlock: Deadlock::Off,
            ..Options::from_environment()?
        };
        Ok(Self { shared: RuntimeInner::start_in(Some(bubble), options)? })
    }

    pub(crate) fn shared(&self) -> &Arc<RuntimeInner> {
        &self.shared
    }
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("name", &self.shared.options().name)
            .field("workers", &self.shared.processors().len())
            .field("goroutines", &self.shared.alive())
            .finish()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Options of a [`Runtime`]; made by [`Runtime::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RuntimeBuilder {
    options: Options,
}

impl RuntimeBuilder {
    /// How many worker threads run goroutines. The default is `OXIGO_WORKERS`, or else the number of processors that the process may use: those in
    /// its affinity mask, limited by its cgroup's quota, which is rounded up and counts as two at least. The number never changes.
    ///
    /// If there are more workers than such processors, the surplus workers start goroutines only while other workers are held by goroutines that
    /// block the thread or compute for milliseconds; and they start those that are placed there by [`spread`](crate::Builder::spread),
    /// [`near`](crate::Builder::near), or as the handlers of connections.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn workers(mut self, workers: usize) -> Self {
        self.options.workers = Some(workers);
        self
    }

    /// Bytes of address space for each goroutine's stack, its guard included. The default is `OXIGO_STACK_SIZE`, or else 256 KiB.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.options.stack_size = bytes;
        self
    }

    /// The name of the worker threads: `name-0`, `name-1` …
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// What happens after a goroutine's panic has been printed.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn panic(mut self, policy: PanicPolicy) -> Self {
        self.options.panic = policy;
        self
    }

    /// When a deadlock is reported.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn deadlock(mut self, deadlock: Deadlock) -> Self {
        self.options.deadlock = deadlock;
        self
    }

    /// How many ancestors of a goroutine dumps and leak reports name: who started it, who started that one, and so on. The default is
    /// `OXIGO_ANCESTORS`, or else none.
    ///
    /// It applies to the whole process from now on; of several settings the largest counts. It makes starting a goroutine slower.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn ancestors(mut self, levels: usize) -> Self {
        self.options.ancestors = levels;
        self
    }

    /// Starts the workers.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no workers, more than 1,024, a stack size above 2 GiB or a name with a zero byte; otherwise what the system refused:
    /// threads, descriptors or memory.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn build(self) -> io::Result<Runtime> {
        self.options.check()?;
        Ok(Runtime { shared: RuntimeInner::start(self.options)? })
    }
}
