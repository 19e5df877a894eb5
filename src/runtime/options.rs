//! What can be set about a runtime, and the environment variables.

use std::{env, io};

use crate::runtime::cores;

/// The default stack: address space, of which pages are used as they are touched.
pub(crate) const DEFAULT_STACK_SIZE: usize = 256 * 1024;
/// Four gibibytes are addressed with 32 bits; a stack that large is a mistake anyway.
const MOST_STACK_SIZE: usize = 2 << 30;
const MOST_WORKERS: usize = 1024;

/// What happens after a goroutine's panic has been printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PanicPolicy {
    /// The payload is kept in the [`JoinHandle`](crate::JoinHandle) and the others go on.
    #[default]
    Keep,
    /// The process aborts, as a Go program does.
    Abort,
}

/// When a runtime reports that all its goroutines are asleep for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deadlock {
    /// While the process has threads that no runtime started, which might wake a goroutine, nothing is said.
    #[default]
    Auto,
    /// Other threads are taken to wake nobody.
    ClosedWorld,
    /// Nothing is ever said.
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
        let stack_size = from_env("OXIGO_STACK_SIZE").ok().flatten().unwrap_or(DEFAULT_STACK_SIZE);
        Self {
            workers: None,
            stack_size,
            name: "oxigo".into(),
            panic: PanicPolicy::default(),
            deadlock: Deadlock::default(),
            ancestors: from_env("OXIGO_ANCESTORS").ok().flatten().unwrap_or(0),
        }
    }
}

impl Options {
    /// Defaults and environment, checked.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let options = Self { workers: from_env("OXIGO_WORKERS")?, ..Self::default() };
        from_env("OXIGO_STACK_SIZE")?;
        from_env("OXIGO_ANCESTORS")?;
        options.check()?;
        Ok(options)
    }

    pub(crate) fn check(&self) -> io::Result<()> {
        let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        match self.workers {
            Some(0) => return invalid("a runtime needs at least one worker".into()),
            Some(n) if n > MOST_WORKERS => return invalid(format!("{n} workers are more than {MOST_WORKERS}")),
            _ => {}
        }
        check_stack_size(self.stack_size)
    }

    pub(crate) fn workers_or_default(&self) -> usize {
        self.workers
            .or_else(|| from_env("OXIGO_WORKERS").ok().flatten())
            .unwrap_or_else(cores::available)
            .clamp(1, MOST_WORKERS)
    }
}

/// Less than the least is no error, as with std's threads: the pool rounds it up.
pub(crate) fn check_stack_size(bytes: usize) -> io::Result<()> {
    if bytes > MOST_STACK_SIZE {
        let text = format!("a stack of {bytes} bytes cannot be had; the most is {MOST_STACK_SIZE}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

/// A positive number from the environment, with K or M for sizes.
fn from_env(variable: &str) -> io::Result<Option<usize>> {
    let Some(text) = env::var_os(variable) else { return Ok(None) };
    let parsed = text.to_str().map(str::trim).and_then(|text| {
        let (digits, factor) = match text.as_bytes().last()? {
            b'k' | b'K' => (&text[..text.len() - 1], 1024),
            b'm' | b'M' => (&text[..text.len() - 1], 1024 * 1024),
            _ => (text, 1),
        };
        digits.parse::<usize>().ok()?.checked_mul(factor).filter(|n| *n > 0)
    });
    match parsed {
        Some(number) => Ok(Some(number)),
        None => {
            let text = format!("{variable}={} is not a positive number (K and M may follow)", text.to_string_lossy());
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}
