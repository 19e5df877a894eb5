//! The execution trace: what ran where and when, who woke whom, and what for; in the format of Chrome's trace viewer, which Perfetto
//! (<https://ui.perfetto.dev>) opens.
//!
//! `OXIGO_TRACE=file.json` traces a program from its first runtime to its end, unless it is killed or aborts. [`start`] and [`stop`] trace a
//! part.
//!
//! # What is in it
//!
//! Each worker is a track (a "thread"), and so are all threads outside together.
//!
//! | name | what | arguments |
//! |---|---|---|
//! | the goroutine's name, or `goroutine 17` | a slice: it runs | `goroutine`; `then`: what it waits for next, `yields` or `ends`; `object` |
//! | `go` | an instant: a goroutine is started | `goroutine`, `at`: where |
//! | `wake` | an instant: a wait is over. An arrow leads to the slice that follows | `goroutine`; `waker`: a goroutine, `timer`, `poller` or a thread |
//! | `poll`, `sleep` | a slice: the worker looks at its poller, or sleeps in it | |
//! | `steal` | an instant: a fresh goroutine is taken from another worker | `goroutine`, `from`; `more`: how many with it |
//!
//! A trace keeps the last quarter of a million events (ten megabytes) of each track. Earlier events are dropped, and the trace says how many. Nothing
//! is formatted or written before the trace is stopped.

// - T1: each track has a recorder of its own, written under a lock that nobody else wants until the trace is stopped. A recorder keeps the
//   last quarter of a million events (ten megabytes); what was before is dropped, and the trace says how much. A slice is one event, recorded
//   at its end, so every slice that is in the trace is whole.
// - T2: nothing is formatted or written before the trace is stopped.
// - T3: while no trace is on, the scheduler pays for one look at `debug::hooks` at each of these places.
// - T4: a recorder belongs to a processor, which is never freed, or is static. It enrolls with its first event of a session; what it has from
//   an earlier one it throws away then.

use std::{
    collections::{HashMap, VecDeque},
    fmt::Write as _,
    fs::File,
    io::{self, BufWriter, Write},
    mem,
    panic::Location,
    path::{Path, PathBuf},
    sync::{
        Mutex, Once, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::hooks::{self, TRACE};
use crate::{
    runtime::{
        blocking::blocking_io,
        scheduler::{Processor, Worker},
        slot::Slot,
        task::TaskRef,
        threads,
        wait::{Reason, Wait},
    },
    util::Lock,
};

/// T1: events in a chunk, chunks of a recorder, and names that a recorder keeps.
const CHUNK: usize = 4096;
const MOST_CHUNKS: usize = 64;
const MOST_NAMES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug)]
struct Event {
    /// When, and for how long, in ticks of [`now`].
    at: u64,
    length: u64,
    goroutine: u64,
    kind: EventKind,
}

#[derive(Clone, Copy, Debug)]
enum EventKind {
    Ran(Then),
    Started(&'static Location<'static>),
    Woken(Waker),
    Polled,
    Slept,
    /// From the worker with this thread, and how many more with it.
    Stolen(u32, u32),
}

/// How a slice ended.
#[derive(Clone, Copy, Debug)]
enum Then {
    Waits(Reason, usize),
    Yields,
    Ends,
    /// The trace was stopped meanwhile.
    Open,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waker {
    Goroutine(u64),
    Timer,
    /// The worker, between goroutines: it has found a descriptor ready.
    Poller,
    Thread(u32),
}

/// One track's events (T1).
pub(crate) struct Recorder(Lock<Ring>);

struct Ring {
    /// T4: the session that `chunks` are of.
    session: u64,
    chunks: VecDeque<Vec<Event>>,
    dropped: u64,
    names: Vec<(u64, Box<str>)>,
    /// The goroutine that runs, and since when.
    running: Option<(u64, u64)>,
}

impl Recorder {
    pub(crate) const fn new() -> Self {
        Self(Lock::new(Ring { session: 0, chunks: VecDeque::new(), dropped: 0, names: Vec::new(), running: None }))
    }

    fn with(&'static self, f: impl FnOnce(&mut Ring)) {
        let session = SESSION.load(Relaxed);
        let enrolls = {
            let mut ring = self.0.lock();
            let enrolls = ring.session != session;
            if enrolls {
                *ring = Ring { session, chunks: VecDeque::new(), dropped: 0, names: Vec::new(), running: None };
            }
            f(&mut ring);
            enrolls
        };
        if enrolls {
            self.enroll(session);
        }
    }

    #[cold]
    fn enroll(&'static self, session: u64) {
        let others = std::ptr::eq(self, &raw const OTHERS);
        let name = if others { None } else { std::thread::current().name().map(str::to_owned) };
        let name = name.unwrap_or_else(|| if others { "other threads" } else { "worker" }.to_owned());
        let mut tracks = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
        if tracks.session == session {
            tracks.enrolled.push(Track { recorder: self, name });
        }
    }
}

/// A worker begins. Its processor may have had another one in this trace, under whose name the track runs.
#[cold]
pub(crate) fn begins(processor: &'static Processor) {
    let mut tracks = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
    let track = tracks.enrolled.iter_mut().find(|track| std::ptr::eq(track.recorder, &raw const processor.recorder));
    if let Some(track) = track
        && let Some(name) = std::thread::current().name()
        && track.name.rsplit(", ").next() != Some(name)
    {
        track.name.push_str(", ");
        track.name.push_str(name);
    }
}

impl Ring {
    fn push(&mut self, at: u64, length: u64, goroutine: u64, kind: EventKind) {
        let event = Event { at, length, goroutine, kind };
        match self.chunks.back_mut() {
            Some(last) if last.len() < CHUNK => last.push(event),
            _ => self.push_slow(event),
        }
    }

    #[cold]
    fn push_slow(&mut self, event: Event) {
        let mut chunk = Vec::new();
        if self.chunks.len() >= MOST_CHUNKS
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.dropped += oldest.len() as u64;
            chunk = oldest;
            chunk.clear();
        } else {
            chunk.reserve_exact(CHUNK);
        }
        chunk.push(event);
        self.chunks.push_back(chunk);
    }

    fn name(&mut self, task: &TaskRef) {
        if let Some(name) = task.name()
            && self.names.len() < MOST_NAMES
            && !self.names.iter().rev().take(64).any(|(id, _)| *id == task.id())
        {
            self.names.push((task.id(), name.into()));
        }
    }
}

/// For everybody who is no worker.
static OTHERS: Recorder = Recorder::new();
/// Counts traces; T4.
static SESSION: AtomicU64 = AtomicU64::new(0);
static TRACKS: Mutex<Tracks> = Mutex::new(Tracks { session: 0, enrolled: Vec::new(), output: None });

/// The trace that is on, if one is.
struct Tracks {
    session: u64,
    enrolled: Vec<Track>,
    output: Option<Output>,
}

struct Track {
    recorder: &'static Recorder,
    name: String,
}

struct Output {
    file: File,
    path: PathBuf,
    began: Anchor,
}

/// A moment by the precise clock and by [`now`].
#[derive(Clone, Copy)]
struct Anchor {
    instant: Instant,
    ticks: u64,
}

impl Anchor {
    fn new() -> Self {
        Self { instant: Instant::now(), ticks: now() }
    }

    /// How many nanoseconds make a tick, when `later` is the end.
    fn scale(self, later: Self) -> f64 {
        let ticks = later.ticks.saturating_sub(self.ticks).max(1);
        (later.instant - self.instant).as_nanos() as f64 / ticks as f64
    }
}

/// Whether the processor's own counter may be read: it takes a third of the time that the precise clock takes, which is half of what a trace
/// costs. Linux has checked that it is constant and equal on all cores when it uses it itself.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn counter_is_good() -> bool {
    static GOOD: OnceLock<bool> = OnceLock::new();
    *GOOD.get_or_init(|| {
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        std::fs::read_to_string(source).is_ok_and(|source| source.trim() == "tsc")
    })
}

/// The time, in ticks of a length that [`Anchor::scale`] tells.
#[inline]
fn now() -> u64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    if counter_is_good() {
        // SAFETY: every processor of this architecture has the instruction, and Linux lets programs use it.
        return unsafe { core::arch::x86_64::_rdtsc() };
    }
    static BEGIN: OnceLock<Instant> = OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// The recorder of the calling thread, and whether a goroutine of a worker runs on it.
fn here() -> (&'static Recorder, bool) {
    match Worker::current() {
        Some(worker) => (&worker.processor.recorder, worker.running_or_panicking().is_some()),
        None => (&OTHERS, false),
    }
}

// ---- what the scheduler calls, when `TRACE` is on ------------------------------------------------------------------------

/// The goroutine of `slot` begins, or goes on.
#[cold]
pub(crate) fn resumes(processor: &'static Processor, slot: &'static Slot) {
    let Some(task) = slot.task() else { return };
    processor.recorder.with(|ring| {
        ring.name(&task);
        ring.running = Some((task.id(), now()));
    });
}

/// It has left its worker to others.
#[cold]
pub(crate) fn suspends(processor: &'static Processor, slot: &'static Slot, ended: bool) {
    processor.recorder.with(|ring| {
        // Without it the slice began before the trace did.
        let Some((goroutine, since)) = ring.running.take() else { return };
        let Wait { reason, object } = slot.wait();
        let then = match reason {
            _ if ended => Then::Ends,
            Reason::None => Then::Yields,
            reason => Then::Waits(reason, object),
        };
        ring.push(since, now().saturating_sub(since), goroutine, EventKind::Ran(then));
    });
}

/// `task` has been made and has not begun.
#[cold]
pub(crate) fn starts(task: &TaskRef) {
    let (recorder, _) = here();
    recorder.with(|ring| {
        ring.name(task);
        ring.push(now(), 0, task.id(), EventKind::Started(task.location()));
    });
}

/// The caller ends the wait of `slot`'s goroutine, whose claim it holds.
#[cold]
pub(crate) fn wakes(slot: &'static Slot) {
    // The goroutine waits for the caller's wake, so its task is there, and nobody writes the word that names it.
    let Some(task) = slot.task() else { return };
    let (recorder, runs) = here();
    let worker = Worker::current();
    recorder.with(|ring| {
        let own = || worker.and_then(Worker::running_or_panicking).and_then(Slot::task).map(|task| task.id());
        let waker = match ring.running {
            // One that has ended has no task any more when it wakes who joins it.
            Some((goroutine, _)) if runs => Waker::Goroutine(goroutine),
            _ if worker.is_some() => own().map_or(Waker::Poller, Waker::Goroutine),
            _ => Waker::Thread(threads::current()),
        };
        ring.push(now(), 0, task.id(), EventKind::Woken(waker));
    });
}

/// The time limit of `slot`'s wait has passed.
#[cold]
pub(crate) fn timer_wakes(slot: &'static Slot) {
    let Some(task) = slot.task() else { return };
    here().0.with(|ring| ring.push(now(), 0, task.id(), EventKind::Woken(Waker::Timer)));
}

/// Runs `poll`, and records it.
#[cold]
pub(crate) fn polls<R>(processor: &'static Processor, timeout: Option<Duration>, poll: impl FnOnce() -> R) -> R {
    let since = now();
    let result = poll();
    let kind = if timeout == Some(Duration::ZERO) { EventKind::Polled } else { EventKind::Slept };
    processor.recorder.with(|ring| ring.push(since, now().saturating_sub(since), 0, kind));
    result
}

#[cold]
pub(crate) fn steals(task: &TaskRef, from: &Processor, more: u32) {
    let thread = from.thread();
    here().0.with(|ring| ring.push(now(), 0, task.id(), EventKind::Stolen(thread, more)));
}

// ---- for users -----------------------------------------------------------------------------------------------------------

/// Begins to record. The file at `path` is created now and written by [`stop`].
///
/// # Examples
///
/// ```
/// # let path = std::env::temp_dir().join(format!("oxigo-doc-{}.json", std::process::id()));
/// use oxigo::debug::trace;
///
/// trace::start(&path)?;
/// oxigo::go(|| println!("traced")).join().unwrap();
/// trace::stop()?;
/// assert!(std::fs::read_to_string(&path)?.contains("\"traceEvents\""));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `AlreadyExists` when a trace is on; otherwise those of creating the file.
///
/// # Blocking
///
/// Blocks the thread for the time that it takes to create a file.
pub fn start(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut tracks = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
    if tracks.output.is_some() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a trace is being recorded already"));
    }
    let output = Output { file: File::create(path)?, path: path.to_owned(), began: Anchor::new() };
    // ORDERING: Relaxed. A recorder that reads the old number records for nobody; whoever is started from here reads the new one.
    tracks.session = SESSION.fetch_add(1, Relaxed) + 1;
    tracks.enrolled.clear();
    tracks.output = Some(output);
    hooks::switch_on(TRACE);
    Ok(())
}

/// Ends the trace and writes its file.
///
/// # Examples
///
/// See [`start`].
///
/// # Errors
///
/// `NotFound` when no trace is on; otherwise those of writing. `OutOfMemory` on a goroutine when no thread can be started to write: the trace
/// goes on.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, until the file has been written.
pub fn stop() -> io::Result<()> {
    blocking_io(finish)
}

fn finish() -> io::Result<()> {
    let (output, enrolled) = {
        let mut tracks = TRACKS.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(output) = tracks.output.take() else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no trace is being recorded"));
        };
        hooks::switch_off(TRACE);
        (output, mem::take(&mut tracks.enrolled))
    };
    let end = Anchor::new();
    let mut written = Written::default();
    for (number, Track { recorder, name }) in enrolled.iter().enumerate() {
        let (chunks, dropped, names, running) = {
            let mut ring = recorder.0.lock();
            let ring = &mut *ring;
            let names = mem::take(&mut ring.names);
            (mem::take(&mut ring.chunks), mem::take(&mut ring.dropped), names, ring.running.take())
        };
        written.names.extend(names);
        written.dropped += dropped;
        written.tracks.push(name.clone());
        written.events.extend(chunks.into_iter().flatten().map(|event| (number, event)));
        if let Some((goroutine, since)) = running {
            let length = end.ticks.saturating_sub(since);
            written.events.push((number, Event { at: since, length, goroutine, kind: EventKind::Ran(Then::Open) }));
        }
    }
    // A short trace is too short to tell how long a tick is.
    let measured = output.began.instant.elapsed();
    std::thread::sleep(Duration::from_millis(20).saturating_sub(measured));
    let scale = output.began.scale(Anchor::new());
    let Output { file, path, began } = output;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    written.write(file, began, scale).map_err(named)
}

/// Begins the trace that the environment asks for, once; it ends with the process.
pub(crate) fn from_environment() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(path) = std::env::var_os("OXIGO_TRACE").filter(|path| !path.is_empty()) else { return };
        match start(&path) {
            Ok(()) => {
                // SAFETY: the function may be called at the process's end, on any thread.
                unsafe { libc::atexit(at_exit) };
            }
            Err(error) => super::write_error(&format!("oxigo: OXIGO_TRACE={}: {error}\n", path.display())),
        }
    });
}

extern "C" fn at_exit() {
    // The program may have stopped it itself.
    if let Err(error) = finish()
        && error.kind() != io::ErrorKind::NotFound
    {
        super::write_error(&format!("oxigo: the trace could not be written: {error}\n"));
    }
}

// ---- writing -------------------------------------------------------------------------------------------------------------

/// All that is written of one trace.
#[derive(Default)]
struct Written {
    tracks: Vec<String>,
    events: Vec<(usize, Event)>,
    names: HashMap<u64, Box<str>>,
    dropped: u64,
}

impl Written {
    fn write(mut self, file: File, began: Anchor, scale: f64) -> io::Result<()> {
        for (_, event) in &mut self.events {
            // Both ends are rounded alike, so that what does not overlap does not begin to.
            let [at, end] =
                [event.at, event.at + event.length].map(|t| (t.saturating_sub(began.ticks) as f64 * scale) as u64);
            (event.at, event.length) = (at, end - at);
        }
        // A slice before what happens in it.
        self.events.sort_by_key(|(_, event)| (event.at, std::cmp::Reverse(event.length)));
        let mut out = BufWriter::with_capacity(1 << 16, file);
        let process = std::process::id();
        write!(
            out,
            "{{\"displayTimeUnit\":\"ns\",\"otherData\":{{\"dropped\":\"{}\"}},\"traceEvents\":[",
            self.dropped
        )?;
        write!(
            out,
            "\n{{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":{process},\"tid\":0,\"args\":{{\"name\":\"oxigo\"}}}}"
        )?;
        for (number, name) in self.tracks.iter().enumerate() {
            let name = quoted(name);
            write!(
                out,
                ",\n{{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{process},\"tid\":{},\"args\":{{\"name\":{name}}}}}",
                number + 1
            )?;
        }
        // Arrows: from the wake to the next slice of the one that was woken.
        let mut arrows: HashMap<u64, u64> = HashMap::new();
        let mut next_arrow = 0_u64;
        let mut line = String::new();
        for (track, event) in &self.events {
            line.clear();
            let at = Micros(event.at);
            let place = format_args!("\"pid\":{process},\"tid\":{},\"ts\":{at}", track + 1);
            self.describe(&mut line, event, &place);
            match event.kind {
                EventKind::Woken(waker) if waker != Waker::Timer => {
                    next_arrow += 1;
                    arrows.insert(event.goroutine, next_arrow);
                    let _ = write!(
                        line,
                        ",\n{{\"ph\":\"s\",\"cat\":\"wake\",\"name\":\"wake\",\"id\":{next_arrow},{place}}}"
                    );
                }
                EventKind::Ran(_) => {
                    if let Some(arrow) = arrows.remove(&event.goroutine) {
                        let _ = write!(
                            line,
                            ",\n{{\"ph\":\"f\",\"bp\":\"e\",\"cat\":\"wake\",\"name\":\"wake\",\"id\":{arrow},{place}}}"
                        );
                    }
                }
                _ => {}
            }
            write!(out, ",\n{line}")?;
        }
        out.write_all(b"\n]}\n")?;
        out.flush()
    }

    /// Writes one event as an object. Writing to a string does not fail.
    fn describe(&self, line: &mut String, event: &Event, place: &std::fmt::Arguments<'_>) {
        let Event { length, goroutine, .. } = *event;
        let length = Micros(length);
        let _ = match event.kind {
            EventKind::Ran(then) => {
                let name = self
                    .names
                    .get(&goroutine)
                    .map_or_else(|| format!("\"goroutine {goroutine}\""), |name| quoted(name));
                let _ = write!(
                    line,
                    "{{\"ph\":\"X\",\"cat\":\"run\",\"name\":{name},{place},\"dur\":{length},\"args\":{{\"goroutine\":{goroutine},\"then\":"
                );
                match then {
                    Then::Waits(reason, 0) => write!(line, "\"{reason}\"}}}}"),
                    Then::Waits(reason, object) => write!(line, "\"{reason}\",\"object\":\"{object:#x}\"}}}}"),
                    Then::Yields => line.write_str("\"yields\"}}"),
                    Then::Ends => line.write_str("\"ends\"}}"),
                    Then::Open => line.write_str("\"runs on\"}}"),
                }
            }
            EventKind::Started(location) => {
                let at = quoted(&location.to_string());
                write!(
                    line,
                    "{{\"ph\":\"i\",\"s\":\"t\",\"cat\":\"go\",\"name\":\"go\",{place},\"args\":{{\"goroutine\":{goroutine},\"at\":{at}}}}}"
                )
            }
            EventKind::Woken(waker) => {
                let _ = write!(
                    line,
                    "{{\"ph\":\"i\",\"s\":\"t\",\"cat\":\"wake\",\"name\":\"wake\",{place},\"args\":{{\"goroutine\":{goroutine},\"waker\":"
                );
                match waker {
                    Waker::Goroutine(id) => write!(line, "{id}}}}}"),
                    Waker::Timer => line.write_str("\"timer\"}}"),
                    Waker::Poller => line.write_str("\"poller\"}}"),
                    Waker::Thread(thread) => write!(line, "\"thread {thread}\"}}}}"),
                }
            }
            EventKind::Polled => {
                write!(line, "{{\"ph\":\"X\",\"cat\":\"poll\",\"name\":\"poll\",{place},\"dur\":{length}}}")
            }
            EventKind::Slept => {
                write!(line, "{{\"ph\":\"X\",\"cat\":\"poll\",\"name\":\"sleep\",{place},\"dur\":{length}}}")
            }
            EventKind::Stolen(from, more) => write!(
                line,
                "{{\"ph\":\"i\",\"s\":\"t\",\"cat\":\"steal\",\"name\":\"steal\",{place},\"args\":{{\"goroutine\":{goroutine},\"from\":\"thread {from}\",\"more\":{more}}}}}"
            ),
        };
    }
}

/// Nanoseconds, written as microseconds with three places.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{0}'..='\u{1f}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}
