//! The dump: every goroutine, what it waits for and for how long, where it was started, and its back trace.
//!
//! A parked goroutine is looked at by its own worker ([`census`](super::census)): it is resumed for just as long as it takes to walk its
//! frames (on the worker's stack), and parks again. Addresses become names on the thread that asked. A worker that makes no progress (Z1 of
//! `census`) is asked by a signal who holds it and who waits there ([`question`]): those are listed without back traces.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io::{self, Write},
    panic::Location,
    path::Path,
    sync::Arc,
    time::Duration,
};

use crate::{
    coroutine::Trace,
    debug::{
        census::{Census, CensusEntry, Traces},
        heritage::Ancestor,
        leaks::{self, Heading, Waiting},
        question::{self, Holder, Program, Told},
    },
    runtime::{
        blocking::blocking_io,
        lifecycle::{self, RuntimeInner},
        scheduler::Processor,
        wait::Reason,
    },
};

/// How many ids of a group's goroutines without names are printed.
const MOST_IDS: usize = 16;

/// Writes a list of all goroutines of the process: id, name, what each waits for and for how long, where it was started, and its back
/// trace. Those with equal traces are written once, with their number, their names, and some ids of those without names.
///
/// The program goes on: no worker is stopped for longer than a few milliseconds at a time. A worker that one goroutine has held for half a second
/// gives no back traces: on Linux that goroutine is named, and the others of the worker are listed without theirs. If the goroutine is blocked in a
/// system call, a signal interrupts that call once. A goroutine that has been woken and has not run since is listed with what it waited for.
///
/// `SIGQUIT` prints the same and ends the process with status 2, unless the program handles that signal itself. If the process was started with the
/// signal ignored, as shells do with what a script puts into the background with `&`, it stays ignored.
///
/// # Examples
///
/// ```
/// let (tx, rx) = oxigo::unbuffered::<()>();
/// let waits = oxigo::Builder::new().name("reader".into()).spawn(move || rx.recv())?;
/// let mut text = Vec::new();
/// # while oxigo::debug::metrics().parked < 1 { std::thread::sleep(std::time::Duration::from_millis(1)) }
/// oxigo::debug::dump(&mut text)?;
/// assert!(String::from_utf8_lossy(&text).contains("[reader]: chan receive"));
/// drop(tx);
/// assert!(waits.join().unwrap().is_err());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of `out`. `OutOfMemory` on a goroutine when no thread can be started to look.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread, for the time that looking takes.
pub fn dump<W: Write + ?Sized>(out: &mut W) -> io::Result<()> {
    // A goroutine that waited here would hold its own worker, which could not answer.
    let text = blocking_io(|| Ok(gather(&lifecycle::runtimes())))?;
    out.write_all(text.as_bytes())
}

/// All goroutines of `runtimes`, as text. Called on a thread that is no worker of theirs.
pub(crate) fn gather(runtimes: &[Arc<RuntimeInner>]) -> String {
    gather_before(Program::GoesOn, runtimes)
}

/// As [`gather`], for a program that ends next.
pub(crate) fn gather_last(runtimes: &[Arc<RuntimeInner>]) -> String {
    gather_before(Program::Ends, runtimes)
}

fn gather_before(program: Program, runtimes: &[Arc<RuntimeInner>]) -> String {
    let mut text = String::new();
    for runtime in runtimes.iter().filter(|runtime| runtime.alive() > 0) {
        gather_one(runtime, program, &mut text);
    }
    text
}

fn gather_one(runtime: &Arc<RuntimeInner>, program: Program, text: &mut String) {
    let Census { entries, held, mut unseen, .. } = Census::of(runtime, Traces::Taken);
    let mut listed: HashSet<u64> = entries.iter().map(|entry| entry.id).collect();
    let stands_still = runtime.bubble().is_some() && entries.iter().any(|entry| entry.wait.reason.is_foreign());
    render(entries, text);
    if stands_still {
        text.push_str("time stands still in this bubble while goroutines wait for a future or for something outside, as above\n\n");
    }
    for processor in held {
        let before = listed.len();
        gather_held(processor, program, &mut listed, text);
        unseen = unseen.saturating_sub(listed.len() - before);
    }
    if unseen > 0 {
        let have = if unseen == 1 { "has" } else { "have" };
        let _ =
            writeln!(text, "and {unseen} more that {have} not started, {have} just begun, or could not be looked at\n");
    }
}

/// A worker that could not be asked for back traces. `listed`: who has been told of.
fn gather_held(processor: &'static Processor, program: Program, listed: &mut HashSet<u64>, text: &mut String) {
    let thread = processor.thread();
    let Some(Told { holder, mut others }) = question::all(processor, program) else {
        // It may have ended, after all of its goroutines, before it came to what it was asked.
        if processor.live() != 0 {
            let _ = writeln!(text, "worker thread {thread} is held and could not be asked\n");
        }
        return;
    };
    let _ = writeln!(text, "worker thread {thread} is held; its goroutines without back traces:");
    if let Some(Holder { id, name, started_at }) = holder {
        let name = name.map(|name| format!(" [{name}]")).unwrap_or_default();
        let _ = writeln!(text, "goroutine {id}{name}: running\n    started at {started_at}\n");
        listed.insert(id);
    }
    // The worker may have come to a part of what was asked before.
    others.retain(|entry| listed.insert(entry.id));
    render(others, text);
}

/// What the goroutines of a group have in common: their name, where there are no traces; trace, reason, where they were started, labels, whether
/// they wait for ever, and the place where their parent was started.
type Group = (
    Option<String>,
    Trace,
    Reason,
    *const Location<'static>,
    Vec<(String, String)>,
    bool,
    Option<*const Location<'static>>,
);

fn render(entries: Vec<CensusEntry>, text: &mut String) {
    let stuck = leaks::never_end(entries.iter());
    let mut groups: HashMap<Group, Vec<CensusEntry>> = HashMap::new();
    for mut entry in entries {
        let marks = entry.marks.as_ref();
        let parent = marks.and_then(|marks| marks.ancestors().first()).and_then(|parent: &Ancestor| parent.started_at);
        // Who is told from the others by the place where it waits needs no name.
        let name = entry.name.clone().filter(|_| entry.trace.is_empty());
        let key = (
            name,
            std::mem::take(&mut entry.trace),
            entry.wait.reason,
            std::ptr::from_ref(entry.started_at),
            marks.map_or_else(Vec::new, |marks| {
                marks.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
            }),
            stuck.contains(&entry.id),
            parent.map(std::ptr::from_ref),
        );
        groups.entry(key).or_default().push(entry);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.iter_mut().for_each(|(_, entries)| entries.sort_unstable_by_key(|entry| entry.id));
    groups.sort_unstable_by_key(|(_, entries)| entries[0].id);
    let mut frames = Frames::default();
    for ((_, trace, _, _, _, for_ever, _), entries) in groups {
        let first = &entries[0];
        let _ = write!(text, "{}: {}", Heading(first), Waiting(first));
        if for_ever {
            text.push_str(", for ever");
        }
        if first.wait.reason != Reason::None {
            let _ = write!(text, ", {}", duration(first.waited));
        }
        if entries.len() > 1 {
            others(&entries[1..], text);
        }
        text.push('\n');
        let _ = first.fmt_start(text);
        frames.render(&trace, text);
        text.push('\n');
    }
}

/// Those whose traces are as the first one's: all that have names, and some ids of the others; and for how long they have waited.
fn others(entries: &[CensusEntry], text: &mut String) {
    let goroutines = if entries.len() == 1 { "goroutine" } else { "goroutines" };
    let _ = write!(text, "\n    and {} more like it: {goroutines}", entries.len());
    for entry in entries.iter().filter(|entry| entry.name.is_some()) {
        let _ = write!(text, " {} [{}]", entry.id, entry.name.as_deref().unwrap_or_default());
    }
    let nameless = || entries.iter().filter(|entry| entry.name.is_none());
    for entry in nameless().take(MOST_IDS) {
        let _ = write!(text, " {}", entry.id);
    }
    text.push_str(if nameless().count() > MOST_IDS { " ..." } else { "" });
    if entries[0].wait.reason == Reason::None {
        return;
    }
    let waited = || entries.iter().map(|entry| entry.waited);
    let [least, most] = [waited().min(), waited().max()].map(|time| duration(time.unwrap_or_default()));
    let _ = if least == most { write!(text, ", for {least}") } else { write!(text, ", for {least} to {most}") };
}

/// A time that people read.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{} ms", time.as_millis()),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3600 => format!("{} min", seconds / 60),
        seconds => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A function of a trace.
#[derive(Clone)]
struct Function {
    /// With its path; where debug information is of lines only (`debug = "line-tables-only"`), often the last part alone.
    name: String,
    /// The source, where it is known.
    file: String,
    /// What is printed: file and line, or the address.
    place: String,
}

/// The functions at one address, inlined ones first.
type Functions = Vec<Function>;

/// Names of addresses, each looked up once.
#[derive(Default)]
struct Frames(HashMap<usize, Functions>);

impl Frames {
    fn functions(&mut self, address: usize) -> &Functions {
        self.0.entry(address).or_insert_with(|| {
            let mut functions = Vec::new();
            backtrace::resolve(std::ptr::without_provenance_mut(address), |symbol| {
                let name = symbol.name().map_or_else(|| "?".to_owned(), |name| format!("{name:#}"));
                let file = symbol.filename().map(|file| file.display().to_string()).unwrap_or_default();
                let place = match symbol.lineno() {
                    Some(line) if !file.is_empty() => format!("{file}:{line}"),
                    _ => format!("{address:#x}"),
                };
                functions.push(Function { name, file, place });
            });
            functions
        })
    }

    /// From the operation that waits, down to the goroutine's closure: how it got to the worker's loop is the same for all.
    fn render(&mut self, trace: &Trace, text: &mut String) {
        let mut functions: Functions = Vec::new();
        for &address in trace {
            let found = self.functions(address);
            match found.iter().position(Function::is_entry) {
                Some(end) => {
                    functions.extend_from_slice(&found[..end]);
                    break;
                }
                None => functions.extend_from_slice(found),
            }
        }
        let switch = functions.iter().rposition(Function::is_switch).map_or(0, |at| at + 1);
        let mut rest = &functions[switch..];
        // Of what is this crate's only the function that the program called tells its reader anything.
        let inner = rest.iter().take_while(|function| function.is_ours()).count().saturating_sub(1);
        rest = &rest[inner..];
        while let Some((function, before)) = rest.split_last()
            && (function.is_root() || (function.is_ours() && !before.is_empty()))
        {
            rest = before;
        }
        for Function { name, place, .. } in rest {
            let _ = writeln!(text, "  {name}\n        at {place}");
        }
    }
}

impl Function {
    /// Whether this is the one that calls a goroutine's closure, in `runtime::task`.
    fn is_entry(&self) -> bool {
        self.name.starts_with("oxigo::runtime::task::__rust_begin_short_backtrace")
            || (self.is_in("runtime/task.rs") && self.name.starts_with("__rust_begin_short_backtrace"))
    }

    /// Whether it is part of leaving the thread to others.
    fn is_switch(&self) -> bool {
        // What is generic over types of ours, as the frames below the entry are, only mentions these.
        let name = self.name.trim_start_matches('<');
        ["oxigo::coroutine::", "oxigo::runtime::slot::", "oxigo::runtime::scheduler::", "oxigo::runtime::park::"]
            .iter()
            .any(|module| name.starts_with(module))
            || ["coroutine.rs", "runtime/slot.rs", "runtime/scheduler/", "runtime/park.rs"]
                .iter()
                .any(|file| self.is_in(file))
    }

    /// Whether it is part of catching panics below a goroutine's closure.
    fn is_root(&self) -> bool {
        ["std::panic", "core::panic", "core::ops::function", "__rust_try", "<core::panic"]
            .iter()
            .any(|path| self.name.starts_with(path))
            || ["/library/std/src/panic", "/library/core/src/panic", "/library/core/src/ops/function.rs"]
                .iter()
                .any(|path| self.file.contains(path))
    }

    /// Whether it is this crate's, or that of the guards of its locks.
    fn is_ours(&self) -> bool {
        self.is_ours_below(sources())
    }

    fn is_ours_below(&self, sources: &str) -> bool {
        let name = self.name.trim_start_matches('<');
        if name.starts_with("lock_api::") || self.file.contains("/lock_api-") {
            return true;
        }
        if self.file.is_empty() {
            // Without debug information the name has its whole path. One that begins with a type may be another crate's, for a type of ours.
            return self.name.starts_with("oxigo::");
        }
        // Where this crate is a dependency its path tells enough. Its own tests and examples are below `src/` as other crates' sources are.
        self.is_below(sources, "/") && (name.starts_with("oxigo::") || Path::new(sources).is_absolute())
    }

    /// Whether it is in this file of ours, or one of this directory if that ends in a slash; alone it means all.
    fn is_in(&self, path: &str) -> bool {
        self.is_below(sources(), path)
    }

    fn is_below(&self, sources: &str, path: &str) -> bool {
        match self.file.rfind(sources) {
            Some(at) => {
                let inside = &self.file[at + sources.len()..];
                inside == path || path == "/" || (path.ends_with('/') && inside.starts_with(path))
            }
            None => false,
        }
    }
}

/// Where this crate's sources are, as the compiler was given it: the debug information has it behind the directory in which it ran.
fn sources() -> &'static str {
    file!().strip_suffix("debug/dump.rs").expect("the path of this file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Runtime;

    fn is_ours(name: &str, file: &str, sources: &str) -> bool {
        Function { name: name.into(), file: file.into(), place: String::new() }.is_ours_below(sources)
    }

    /// Below the operation that the program called, a dump listed all functions that this one had called where debug information has no
    /// paths in its names, or where there is none.
    #[test]
    fn functions_of_this_crate_are_told_by_path_or_name() {
        let sources = "/home/me/oxigo/src/";
        assert!(is_ours("oxigo::chan::receiver::Receiver<T>::recv", "/home/me/oxigo/src/chan/receiver.rs", sources));
        assert!(is_ours("receive_waiting<u32>", "/home/me/oxigo/src/chan/core.rs", sources));
        assert!(is_ours("lock<oxigo::sync::RawMutex, ()>", "/registry/lock_api-0.4.14/src/mutex.rs", sources));
        assert!(!is_ours("program::main", "/home/me/program/src/main.rs", sources));
        assert!(!is_ours("<oxigo::Receiver<T> as program::Stream>::map", "/home/me/program/src/main.rs", sources));

        assert!(is_ours("oxigo::chan::receiver::Receiver<T>::recv", "/home/me/oxigo/src/chan/receiver.rs", "src/"));
        assert!(!is_ours("receive", "/home/me/oxigo/src/main.rs", "src/"));

        assert!(is_ours("oxigo::chan::receiver::Receiver<T>::recv", "", sources));
        assert!(!is_ours("<oxigo::Receiver<T> as program::Stream>::map", "", sources));
        assert!(!is_ours("program::main", "", sources));
    }

    /// It was asked when it had goroutines, and ended before it came to the errand.
    #[test]
    fn a_worker_that_has_ended_is_not_called_held() {
        let runtime = Runtime::builder().workers(1).build().unwrap();
        let shared = Arc::clone(runtime.shared());
        runtime.run(|| ());
        drop(runtime);
        let processor = shared.processors()[0];
        while processor.thread() != 0 {
            std::thread::yield_now();
        }
        let mut text = String::new();
        gather_held(processor, Program::GoesOn, &mut HashSet::new(), &mut text);
        assert_eq!(text, "");
    }
}
