//! What can be set about a runtime, and the environment variables.

use std::{env, ffi::OsString, io, sync::Once};

use crate::debug;

/// The default stack: address space, of which pages are used as they are touched.
const DEFAULT_STACK_SIZE: usize = 256 * 1024;
/// Four gibibytes are addressed with 32 bits; a stack that large is a mistake anyway.
const MOST_STACK_SIZE: usize = 2 << 30;
const MOST_WORKERS: usize = 1024;

/// What happens after a goroutine's panic has been printed.
///
/// It is set for a [`Runtime`](crate::Runtime) that the program builds. It cannot be set for the default runtime, which keeps payloads. To set it for
/// a whole program, run its `main` on a runtime of your own, as here; what [`go`](crate::go) starts there runs on that runtime too.
///
/// # Examples
///
/// ```
/// use oxigo::{PanicPolicy, Runtime, go};
///
/// fn main() -> std::io::Result<()> {
///     // A panic of any goroutine ends the process, as in Go.
///     let runtime = Runtime::builder().panic(PanicPolicy::Abort).build()?;
///     runtime.run(|| go(|| println!("on the same runtime")).join().unwrap());
///     Ok(())
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PanicPolicy {
    /// The payload is kept for the [`JoinHandle`](crate::JoinHandle), and the other goroutines go on.
    #[default]
    Keep,
    /// The process aborts, as a Go program does.
    Abort,
}

/// When to report that all goroutines of a runtime are asleep for ever. The report lists them with what each waits for, and the process ends with
/// status 2.
///
/// Nothing is reported before the first goroutine of the process has started, since nobody looks before that. So a plain `main` that waits on a
/// channel without having started a goroutine hangs.
///
/// # Examples
///
/// ```
/// use oxigo::{Deadlock, Runtime};
///
/// // The program's own threads, such as those of a logger, wake no goroutine.
/// let runtime = Runtime::builder().workers(1).deadlock(Deadlock::ClosedWorld).build()?;
/// assert_eq!(runtime.run(|| 6 * 7), 42);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadlock {
    /// Nothing is reported while the process has a thread that no runtime has started and that is not blocked in an operation of this crate, since
    /// that thread might wake a goroutine.
    #[default]
    Auto,
    /// Other threads are assumed to wake nobody.
    ClosedWorld,
    /// Nothing is ever reported.
    Off,
}

/// All options of one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) workers: Option<usize>,
    pub(crate) stack_size: usize,
    pub(crate) name: String,
    pub(crate) panic: PanicPolicy,
    pub(crate) deadlock: Deadlock,
    pub(crate) ancestors: usize,
}

impl Default for Options {
    fn default() -> Self {
        // A wrong environment is reported where it is first read with an error to return.
        Self {
            workers: None,
            stack_size: stack_size_from_env().ok().flatten().unwrap_or(DEFAULT_STACK_SIZE),
            name: "oxigo".into(),
            panic: PanicPolicy::default(),
            deadlock: Deadlock::default(),
            ancestors: ancestors_from_env().ok().flatten().unwrap_or(0),
        }
    }
}

impl Options {
    /// Defaults and environment, checked.
    pub(crate) fn from_environment() -> io::Result<Self> {
        check_switches();
        let options = Self { workers: workers_from_env()?, ..Self::default() };
        stack_size_from_env()?;
        ancestors_from_env()?;
        Ok(options)
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        check_switches();
        if let Some(workers) = self.workers {
            check_workers(workers)?;
        }
        check_stack_size(self.stack_size)
    }

    /// How many workers there are to be, on a machine with so many cores for them.
    pub(crate) fn workers_on(&self, cores: usize) -> usize {
        self.workers.or_else(|| workers_from_env().ok().flatten()).unwrap_or(cores).clamp(1, MOST_WORKERS)
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn check_workers(workers: usize) -> io::Result<()> {
    match workers {
        0 => Err(invalid("a runtime needs at least one worker".into())),
        1..=MOST_WORKERS => Ok(()),
        _ => Err(invalid(format!("{workers} workers are more than {MOST_WORKERS}"))),
    }
}

/// Less than the least is no error, as with std's threads: the pool rounds it up.
pub(crate) fn check_stack_size(bytes: usize) -> io::Result<()> {
    if bytes > MOST_STACK_SIZE {
        return Err(invalid(format!("a stack of {bytes} bytes is too large: the most is {MOST_STACK_SIZE}")));
    }
    Ok(())
}

fn workers_from_env() -> io::Result<Option<usize>> {
    from_env("OXIGO_WORKERS", "a number", number, check_workers)
}

fn stack_size_from_env() -> io::Result<Option<usize>> {
    from_env("OXIGO_STACK_SIZE", "a size (a positive number of bytes; K, M or G may follow)", size, check_stack_size)
}

fn ancestors_from_env() -> io::Result<Option<usize>> {
    from_env("OXIGO_ANCESTORS", "a number", number, |_| Ok(()))
}

fn number(text: &str) -> Option<usize> {
    text.parse().ok()
}

fn size(text: &str) -> Option<usize> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1 << 10),
        b'm' | b'M' => (&text[..text.len() - 1], 1 << 20),
        b'g' | b'G' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    // One that is too large for the machine is too large for a stack as well, which is said of it.
    digits.parse().ok().filter(|n| *n > 0).map(|n: usize| n.saturating_mul(factor))
}

/// A value from the environment, of which `what` says what it has to be. Errors name the variable.
fn from_env(
    variable: &str,
    what: &str,
    parse: impl Fn(&str) -> Option<usize>,
    check: impl Fn(usize) -> io::Result<()>,
) -> io::Result<Option<usize>> {
    let Some(text) = set(variable) else { return Ok(None) };
    let shown = || format!("{variable}={}", text.to_string_lossy());
    let parsed = text.to_str().and_then(|text| parse(text.trim()));
    let value = parsed.ok_or_else(|| invalid(format!("{} is not {what}", shown())))?;
    check(value).map_err(|error| invalid(format!("{}: {error}", shown())))?;
    Ok(Some(value))
}

/// An empty variable is as good as none.
fn set(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|text| !text.is_empty())
}

/// Says on standard error which of the variables that are `on` or `off` are something else, and so count as not set. Once in a process: there
/// is no error to return where they are read.
fn check_switches() {
    static CHECKED: Once = Once::new();
    CHECKED.call_once(|| {
        for variable in ["OXIGO_WATCHDOG", "OXIGO_LEND_CORES"] {
            if let Some(value) = set(variable).filter(|value| value != "on" && value != "off") {
                let value = value.to_string_lossy();
                debug::write_error(&format!("oxigo: {variable}={value} is neither on nor off, and is ignored\n"));
            }
        }
    });
}
