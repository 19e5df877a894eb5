//! Child processes: the interface of `std::process`, with waits and pipes that park the goroutine.
//!
//! A process is started on a thread of the blocking pool, and the signals that workers block are unblocked in it. It is waited for through its pidfd
//! on Linux, and on the pool elsewhere.
//!
//! ```
//! use oxigo::process::{Command, Stdio};
//! use std::io::Write;
//!
//! let mut child = Command::new("tr").args(["a-z", "A-Z"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//! child.stdin.take().unwrap().write_all(b"hello")?; // and closes it
//! assert_eq!(child.wait_with_output()?.stdout, b"HELLO");
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::{fd::OwnedFd, unix::process::CommandExt},
    panic,
    path::Path,
    process as std_process,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

pub use std::process::{ExitStatus, Output, Stdio};

#[cfg(target_os = "linux")]
use rustix::io::Errno;
use rustix::process::Pid;

use crate::{
    Builder,
    context::Context,
    io::{PipeReader, PipeWriter},
    net::descriptor::{Descriptor, Direction},
    runtime::{blocking::blocking_io, park, present, scheduler, wait::Reason},
    scope,
    signal::Signal,
};

/// How a process is started: [`std::process::Command`] whose children park the goroutine.
///
/// What is not here, such as `process_group`, `pre_exec` and `uid`, is set on a [`std::process::Command`], which turns into this with `from`.
///
/// A process that a goroutine starts begins with no signal blocked, since the thread that starts it lets them in for that moment. A program that blocks a signal in
/// all its threads, to read it with `sigwait` or a `signalfd`, may have it taken there: then it does what is set for it, by default to end the process, and a SIGPIPE or SIGXFSZ that is
/// pending for the process is dropped, as one of a write that was refused. So have one thread that does not block it, use [`signal::notify`](crate::signal::notify)
/// instead, or start processes with `std` on a plain thread.
///
/// # Examples
///
/// ```
/// let output = oxigo::run(|| oxigo::process::Command::new("echo").arg("hello").output())?;
/// assert_eq!(output.stdout, b"hello\n");
///
/// // In a process group of its own, where Ctrl-C does not reach it:
/// use std::os::unix::process::CommandExt;
/// let mut apart = std::process::Command::new("true");
/// apart.process_group(0);
/// assert!(oxigo::process::Command::from(apart).status()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Command {
    inner: std_process::Command,
    /// Which streams have been set, of input, output and errors: `output` sets the others for its one process.
    set: [bool; 3],
}

impl From<std_process::Command> for Command {
    /// For settings of the system's own, such as [`std::os::unix::process::CommandExt`]. Streams are to be set after this: what was set
    /// before cannot be seen, and [`output`](Command::output) takes it for not set.
    fn from(inner: std_process::Command) -> Self {
        Self { inner, set: [false; 3] }
    }
}

impl Command {
    /// A program, which is searched for in `PATH`, with no arguments, and with the environment and the standard streams of this process.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        std_process::Command::new(program).into()
    }

    /// Adds an argument.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn args<S: AsRef<OsStr>>(&mut self, arguments: impl IntoIterator<Item = S>) -> &mut Self {
        self.inner.args(arguments);
        self
    }

    /// Sets a variable of the environment.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(name, value);
        self
    }

    /// Sets variables of the environment.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, variables: impl IntoIterator<Item = (N, V)>) -> &mut Self {
        self.inner.envs(variables);
        self
    }

    /// Takes a variable out of the environment.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env_remove(name);
        self
    }

    /// Takes all variables out of the environment.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn env_clear(&mut self) -> &mut Self {
        self.inner.env_clear();
        self
    }

    /// Sets the directory that the process begins in.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn current_dir(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.inner.current_dir(path);
        self
    }

    /// Sets the standard input. A [`File`](crate::fs::File) can be given as it is; an end of an [`io::pipe`](crate::io::pipe()) has to be turned into
    /// `std`'s type first, which fails while there are other handles of it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Write;
    /// use oxigo::process::Command;
    ///
    /// let (reader, mut writer) = oxigo::io::pipe()?;
    /// let mut cat = Command::new("cat");
    /// cat.stdin(std::io::PipeReader::try_from(reader)?);
    /// writer.write_all(b"by way of a pipe")?;
    /// drop(writer); // the child reads to the end
    /// assert_eq!(cat.output()?.stdout, b"by way of a pipe");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stdin(&mut self, from: impl Into<Stdio>) -> &mut Self {
        self.inner.stdin(from);
        self.set[0] = true;
        self
    }

    /// Sets the standard output; see [`stdin`](Self::stdin) for what can be given.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stdout(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.inner.stdout(to);
        self.set[1] = true;
        self
    }

    /// Sets the standard error; see [`stdin`](Self::stdin) for what can be given.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn stderr(&mut self, to: impl Into<Stdio>) -> &mut Self {
        self.inner.stderr(to);
        self.set[2] = true;
        self
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// As [`std::process::Command::spawn`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, until the program runs or could not be started.
    pub fn spawn(&mut self) -> io::Result<Child> {
        Child::new(start(&mut self.inner)?)
    }

    /// Runs the process to its end.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::process::Command;
    ///
    /// let status = Command::new("sh").arg("-c").arg("exit 3").status()?;
    /// assert_eq!(status.code(), Some(3));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// Runs the process to its end, and collects its standard output and standard error. It has no input, unless one was set; an output that was set
    /// goes where it was set to go.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::process::Command;
    ///
    /// let output = Command::new("echo").arg("hello").output()?;
    /// assert_eq!(output.stdout, b"hello\n");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn output(&mut self) -> io::Result<Output> {
        self.set_others([Stdio::null, Stdio::piped, Stdio::piped]);
        let started = self.spawn();
        // For what is started next.
        self.set_others([Stdio::inherit; 3]);
        started?.wait_with_output()
    }

    /// Replaces this process by the program, as [`CommandExt::exec`] does: Go's `syscall.Exec`. Nothing unwinds, nobody is waited for, and this
    /// returns only when the program could not be started. A [`Stdio::piped`] stream is of no use here.
    ///
    /// The signals that workers block are unblocked in the program. With `std`'s `exec` on a goroutine it would inherit them as blocked, and Ctrl-C
    /// would not end it.
    ///
    /// After an error the process is not as it was: what was set for the program, such as its streams and its directory, now applies to this process,
    /// and a write to a pipe or a socket that nobody reads any more may end it by SIGPIPE, to which `std` has given its default action again. So end
    /// the process.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// let error = oxigo::process::Command::new("ls").args(["-a", "-l", "-h"]).exec();
    /// eprintln!("cannot become ls: {error}");
    /// oxigo::exit(1);
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks; the thread is held until the program has been found.
    pub fn exec(&mut self) -> io::Error {
        if scheduler::has_blocked_signals() {
            return scheduler::with_signals(|| self.inner.exec());
        }
        self.inner.exec()
    }

    /// Sets the streams that have not been set.
    fn set_others(&mut self, [stdin, stdout, stderr]: [fn() -> Stdio; 3]) {
        if !self.set[0] {
            self.inner.stdin(stdin());
        }
        if !self.set[1] {
            self.inner.stdout(stdout());
        }
        if !self.set[2] {
            self.inner.stderr(stderr());
        }
    }
}

/// A child inherits the signals that its parent's thread blocks, and ours block nearly all: workers, threads of the pool, and what those have
/// started.
fn start(command: &mut std_process::Command) -> io::Result<std_process::Child> {
    if scheduler::current_slot().is_some() {
        return blocking_io(|| scheduler::with_signals(|| command.spawn()));
    }
    if scheduler::has_blocked_signals() {
        return scheduler::with_signals(|| command.spawn());
    }
    command.spawn()
}

/// A process that was started. Made by [`Command::spawn`].
///
/// Dropping it neither ends the process nor waits for it, as in `std`.
///
/// # Examples
///
/// ```
/// use oxigo::{context::Context, process::{Command, Stdio}};
/// use std::{io::Write, time::Duration};
///
/// let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
/// child.stdin.take().unwrap().write_all(b"to a child and back")?; // dropped: the child reads to the end
/// assert_eq!(child.wait_with_output()?.stdout, b"to a child and back");
///
/// // In place of Go's `exec.CommandContext`:
/// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(10));
/// let mut child = Command::new("sleep").arg("3600").spawn()?;
/// let status = child.wait_ctx(&ctx).or_else(|_| {
///     child.kill()?;
///     child.wait()
/// })?;
/// assert!(!status.success());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Child {
    inner: std_process::Child,
    /// Becomes readable when the process ends.
    pidfd: Option<Descriptor>,
    /// What the process reads, when that was [`Stdio::piped`].
    pub stdin: Option<PipeWriter>,
    /// What the process writes, when that was [`Stdio::piped`]. Another process reads it from its standard input as
    /// [`Command::stdin`] shows: by `std::io::PipeReader::try_from(stdout)`.
    pub stdout: Option<PipeReader>,
    /// What the process writes to its standard error, when that was [`Stdio::piped`].
    pub stderr: Option<PipeReader>,
}

fn adopt(end: impl Into<OwnedFd>) -> io::Result<Arc<Descriptor>> {
    Ok(Arc::new(Descriptor::take_over(end.into())?))
}

fn pid_of(id: u32) -> Option<Pid> {
    Pid::from_raw(id.try_into().ok()?)
}

#[cfg(target_os = "linux")]
fn open_pidfd(id: u32) -> Option<Descriptor> {
    use rustix::process::{PidfdFlags, pidfd_open};
    // Not waited for yet, so the number still means our child.
    let fd = pidfd_open(pid_of(id)?, PidfdFlags::empty()).ok()?;
    Descriptor::take_over(fd).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_pidfd(_id: u32) -> Option<Descriptor> {
    None
}

impl Child {
    fn new(mut inner: std_process::Child) -> io::Result<Self> {
        let stdin = inner.stdin.take().map(adopt).transpose()?;
        let stdout = inner.stdout.take().map(adopt).transpose()?;
        let stderr = inner.stderr.take().map(adopt).transpose()?;
        Ok(Self {
            pidfd: open_pidfd(inner.id()),
            inner,
            stdin: stdin.map(|descriptor| PipeWriter { descriptor }),
            stdout: stdout.map(|descriptor| PipeReader { descriptor }),
            stderr: stderr.map(|descriptor| PipeReader { descriptor }),
        })
    }

    /// The process id.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn id(&self) -> u32 {
        self.inner.id()
    }

    /// Ends the process by force (SIGKILL). It still has to be waited for. [`signal`](Self::signal) can ask it politely.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut child = oxigo::process::Command::new("sleep").arg("60").spawn()?;
    /// child.kill()?;
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`std::process::Child::kill`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn kill(&mut self) -> io::Result<()> {
        self.inner.kill()
    }

    /// Sends a signal to the process. Does nothing when the process has been waited for, since its number may belong to another one by then.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{process::Command, signal::Signal};
    /// use std::{os::unix::process::ExitStatusExt, time::Duration};
    ///
    /// let mut child = Command::new("sleep").arg("3600").spawn()?;
    /// child.signal(Signal::TERM)?;
    /// let status = match child.wait_timeout(Duration::from_secs(10))? {
    ///     Some(status) => status,
    ///     None => {
    ///         child.kill()?;
    ///         child.wait()?
    ///     }
    /// };
    /// assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a number that has no name, such as those of real-time signals. `PermissionDenied` when the process belongs to another
    /// user by now.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        let signal = rustix::process::Signal::from_named_raw(signal.as_raw())
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a signal without a name cannot be sent"))?;
        #[cfg(target_os = "linux")]
        if let Some(pidfd) = &self.pidfd {
            return match rustix::process::pidfd_send_signal(pidfd, signal) {
                // Waited for.
                Err(Errno::SRCH) => Ok(()),
                sent => Ok(sent?),
            };
        }
        // A process that has ended is waited for with this. One that has not keeps its number, since nobody else waits for it.
        if self.inner.try_wait()?.is_none()
            && let Some(pid) = pid_of(self.id())
        {
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// How the process has ended, or `None` if it is still running.
    ///
    /// # Errors
    ///
    /// As [`std::process::Child::try_wait`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.inner.try_wait()
    }

    /// Closes [`stdin`](Self::stdin) and waits for the end of the process.
    ///
    /// It waits for that process alone: processes that it has started may run on, and hold its pipes open. Reading `stdout` or `stderr` to the end,
    /// as [`wait_with_output`](Self::wait_with_output) does, waits for them too.
    ///
    /// # Errors
    ///
    /// As [`std::process::Child::wait`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        match &self.pidfd {
            Some(pidfd) => wait_until(&mut self.inner, pidfd, None, None),
            None => blocking_io(|| self.inner.wait()),
        }
    }

    /// Like [`wait`](Self::wait), but waits at most `timeout`: `None` when the process is still running.
    ///
    /// It closes [`stdin`](Self::stdin) in any case, also with a `timeout` of zero. [`try_wait`](Self::try_wait) does not.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::process::Command;
    /// use std::time::Duration;
    ///
    /// let mut child = Command::new("sleep").arg("60").spawn()?;
    /// if child.wait_timeout(Duration::from_millis(10))?.is_none() {
    ///     child.kill()?;
    /// }
    /// assert!(!child.wait()?.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As `wait`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(deadline) = present::after(timeout) else { return self.wait().map(Some) };
        self.stdin = None;
        let Some(pidfd) = &self.pidfd else { return self.poll_until(deadline) };
        match wait_until(&mut self.inner, pidfd, Some(deadline), None) {
            // One last look: a process that has ended is told however late.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => self.inner.try_wait(),
            result => result.map(Some),
        }
    }

    /// Like [`wait`](Self::wait), but gives up when `ctx` ends. The process goes on; it is up to the caller to end it.
    ///
    /// If the context has ended already, that takes precedence over a process that has ended, whose status can still be asked for.
    /// [`stdin`](Self::stdin) is closed in any case.
    ///
    /// Processes that this one has started may outlive it, also when it is killed, and hold its pipes open: reading `stdout` or `stderr` to the end
    /// lasts until they have ended as well. For reads that end with the context, use [`with_ctx`](PipeReader::with_ctx).
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, process::Command};
    ///
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// let mut child = Command::new("sleep").arg("3600").spawn()?;
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(child.wait_ctx(&ctx).unwrap_err().to_string(), "context canceled");
    ///
    /// assert_eq!(child.try_wait()?, None); // it runs on
    /// child.kill()?;
    /// assert!(!child.wait_ctx(&Context::background())?.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `wait`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait_ctx(&mut self, ctx: &Context) -> io::Result<ExitStatus> {
        self.stdin = None;
        match &self.pidfd {
            Some(pidfd) => wait_until(&mut self.inner, pidfd, None, Some(ctx)),
            None => self.poll_ctx(ctx),
        }
    }

    /// Without a descriptor to wait for.
    fn poll_ctx(&mut self, ctx: &Context) -> io::Result<ExitStatus> {
        ctx.check().inspect_err(|_| park::spend())?;
        loop {
            if let Some(status) = self.inner.try_wait()? {
                return Ok(status);
            }
            ctx.sleep(PAUSE)?;
        }
    }

    /// Without a descriptor to wait for.
    fn poll_until(&mut self, deadline: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            let status = self.inner.try_wait()?;
            if status.is_some() || deadline <= present::now() {
                return Ok(status);
            }
            crate::time::sleep_until(deadline.min(present::now() + PAUSE));
        }
    }

    /// Collects what the process writes, and waits for its end. The output ends when all processes that can write to it have ended, including those
    /// that this one has started.
    ///
    /// # Errors
    ///
    /// As [`std::process::Child::wait_with_output`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        fn collect(pipe: Option<&PipeReader>) -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            if let Some(mut pipe) = pipe {
                pipe.read_to_end(&mut bytes)?;
            }
            Ok(bytes)
        }
        self.stdin = None;
        let pipes = (self.stdout.take(), self.stderr.take());
        let (stdout, stderr) = (pipes.0.as_ref(), pipes.1.as_ref());
        // Both at once, since the process may fill either.
        let both = scope(|s| {
            let errors = s.spawn(Builder::new(), || collect(stderr)).ok()?;
            let output = collect(stdout);
            Some((output, errors.join().unwrap_or_else(|payload| park::resume_panic(payload))))
        });
        let (stdout, stderr) = match both {
            Some(both) => both,
            // Nothing new starts on a runtime that has been given up.
            None => blocking_io(|| {
                thread::scope(|s| {
                    let errors = thread::Builder::new().spawn_scoped(s, || collect(stderr))?;
                    let output = collect(stdout);
                    Ok((output, errors.join().unwrap_or_else(|payload| panic::resume_unwind(payload))))
                })
            })?,
        };
        // A process that nobody reads from any more is to learn of it, and end.
        drop(pipes);
        Ok(Output { status: self.wait()?, stdout: stdout?, stderr: stderr? })
    }
}

/// Between two looks at a process that cannot be waited for by a descriptor.
const PAUSE: Duration = Duration::from_millis(10);

fn wait_until(
    child: &mut std_process::Child,
    pidfd: &Descriptor,
    deadline: Option<Instant>,
    ctx: Option<&Context>,
) -> io::Result<ExitStatus> {
    pidfd.set_deadline(Direction::Read, deadline);
    pidfd.perform(Direction::Read, Reason::Process, pidfd.limit(Direction::Read, ctx), |_| {
        child.try_wait()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    })
}
