//! A descriptor that goroutines wait for: tries first, registers lazily, honours time limits.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use crate::{
    context::Context,
    runtime::{driver::source::Registration, fork, interrupt::Interrupt, park, present, until::Until, wait::Reason},
    sync::turn::Turn,
    util::Lock,
};

pub(crate) use crate::runtime::driver::source::Direction;

/// Time limits of one direction.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Whether there are any, or it is closed: most sockets have none, and need no lock to know it.
    set: AtomicBool,
    values: Lock<Values>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Values {
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    /// No operation may begin or go on. Here, since it is looked at whenever the time limits are, and set as rarely.
    closed: bool,
}

impl Limits {
    pub(crate) fn new() -> Self {
        Self { set: AtomicBool::new(false), values: Lock::new(Values::default()) }
    }

    fn values(&self) -> Values {
        // ORDERING: Acquire. Pairs with the Release in `change`.
        if self.set.load(Acquire) { *self.values.lock() } else { Values::default() }
    }

    fn change(&self, change: impl FnOnce(&mut Values)) {
        let mut values = self.values.lock();
        change(&mut values);
        // ORDERING: Release. Under the lock, so the flag is that of the last change.
        self.set.store(values.timeout.is_some() || values.deadline.is_some() || values.closed, Release);
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.values().timeout
    }

    /// The limit of an operation that begins now.
    pub(crate) fn begin<'a>(&'a self, ctx: Option<&'a Context>) -> Limit<'a> {
        let own = self.values().timeout.and_then(present::after);
        Limit { limits: self, own, ctx }
    }

    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a time-out of zero cannot be kept; use a deadline",
            ));
        }
        self.change(|values| values.timeout = timeout);
        Ok(())
    }

    /// Whoever waits already has to be told by the caller.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.change(|values| values.deadline = deadline);
    }

    /// False when it was so before. Whoever waits already has to be told by the caller.
    fn close(&self) -> bool {
        let mut first = false;
        self.change(|values| first = !std::mem::replace(&mut values.closed, true));
        first
    }
}

/// When one operation must have ended: its own time-out, counted from its beginning, or the deadline that holds now, or with its context.
#[derive(Clone, Copy)]
pub(crate) struct Limit<'a> {
    limits: &'a Limits,
    own: Option<Instant>,
    pub(crate) ctx: Option<&'a Context>,
}

impl<'a> Limit<'a> {
    /// What ends a wait beside the clock. Whoever is woken by it asks [`check`](Self::check) again.
    pub(crate) fn interrupt(&self) -> Option<&'a dyn Interrupt> {
        self.ctx.map(|ctx| ctx as &dyn Interrupt)
    }

    fn deadline(&self, values: Values) -> Option<Instant> {
        match (values.deadline, self.own) {
            (Some(deadline), Some(own)) => Some(deadline.min(own)),
            (deadline, own) => deadline.or(own),
        }
    }

    /// Until when the operation may last; an error when that has passed, the context has ended, or the descriptor is closed.
    ///
    /// With an error the caller has spent something of its slice, and may have let others run: it might have waited (P4), and would hold its
    /// worker for ever if it just tried again.
    pub(crate) fn check(&self) -> io::Result<Option<Instant>> {
        self.look().inspect_err(|_| park::spend())
    }

    fn look(&self) -> io::Result<Option<Instant>> {
        let values = self.limits.values();
        if values.closed {
            return Err(closed());
        }
        if let Some(ctx) = self.ctx {
            ctx.check()?;
        }
        match self.deadline(values) {
            Some(deadline) if deadline <= present::now() => Err(timed_out()),
            deadline => Ok(deadline),
        }
    }
}

/// What a socket or a pipe that has been closed answers.
fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "operation on a closed socket or pipe")
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the time limit of this operation has passed")
}

/// A non-blocking descriptor and all that handles of it share.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// None only in a descriptor that has given it out.
    fd: Option<OwnedFd>,
    registration: OnceLock<Registration>,
    /// Held while the registration is made or moved, and by [`signal`](Self::signal) while it finds none.
    registering: Lock<()>,
    pub(crate) read: Limits,
    pub(crate) write: Limits,
    /// Reads give nothing any more; an accepting descriptor is closed.
    shut: AtomicBool,
    /// A read that brings less than was asked for has emptied it (D6 of `source`).
    is_tcp: bool,
    /// Whose turn it is to write.
    pub(crate) writers: Turn,
}

impl Descriptor {
    /// Takes a descriptor that is non-blocking already.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            registration: OnceLock::new(),
            registering: Lock::new(()),
            read: Limits::new(),
            write: Limits::new(),
            shut: AtomicBool::new(false),
            is_tcp: false,
            writers: Turn::new(),
        }
    }

    /// Takes a TCP stream that is non-blocking already.
    pub(crate) fn tcp(fd: OwnedFd) -> Self {
        let mut descriptor = Self::new(fd);
        descriptor.is_tcp = true;
        descriptor
    }

    fn limits(&self, direction: Direction) -> &Limits {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    #[cold]
    fn register(&self) -> io::Result<&Registration> {
        let _one_at_a_time = self.registering.lock();
        if self.registration.get().is_none() {
            let _ = self.registration.set(Registration::new(self.as_fd())?);
        }
        Ok(self.registration.get().expect("set above, or by another before us"))
    }

    /// The descriptor is to be watched by the caller's worker from now on: the worker that watched it has ended (D5).
    #[cold]
    fn adopt(&self, registration: &Registration) -> io::Result<()> {
        let _one_at_a_time = self.registering.lock();
        registration.adopt(self.as_fd())
    }

    /// The limit of an operation that begins now.
    pub(crate) fn limit<'a>(&'a self, direction: Direction, ctx: Option<&'a Context>) -> Limit<'a> {
        self.limits(direction).begin(ctx)
    }

    /// Does `operation` as soon as the descriptor is ready for it.
    #[inline]
    pub(crate) fn perform<R>(
        &self,
        direction: Direction,
        reason: Reason,
        limit: Limit<'_>,
        operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.perform_or_skip(direction, reason, limit, false, operation, |_| false)
    }

    /// Reads from a stream: `read` is to bring up to `size` bytes, and takes them out.
    #[inline]
    pub(crate) fn drain(
        &self,
        limit: Limit<'_>,
        size: usize,
        read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let is_short = |&count: &usize| self.is_tcp && count != 0 && count < size;
        self.perform_or_skip(Direction::Read, Reason::Read, limit, self.is_tcp, read, is_short)
    }

    /// `skip`: nothing is tried first where nothing can be ready (D6 of `source`). `empties`: whether a result says that nothing more is there.
    #[inline]
    fn perform_or_skip<R>(
        &self,
        direction: Direction,
        reason: Reason,
        limit: Limit<'_>,
        mut skip: bool,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
        empties: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        loop {
            let watched = self.registration.get().map(|registration| (registration, registration.side(direction)));
            // Before the limits are read: a change of theirs is an event too, and D1 holds for what is looked at after R1.
            let tick = watched.map(|(_, side)| side.tick());
            let deadline = limit.check()?;
            let skips = skip
                && watched.is_some_and(|(registration, side)| !side.is_ready() && registration.is_watched_here())
                && deadline.is_none()
                && limit.interrupt().is_none()
                && !fork::forked();
            if !skips {
                match operation(self.as_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => {
                        if let (Some((_, side)), Some(tick), Ok(result)) = (watched, tick, &result)
                            && empties(result)
                        {
                            side.emptied(tick);
                        }
                        park::spend_call();
                        return result;
                    }
                }
            }
            skip = false;
            fork::check();
            if park::holds_worker() {
                poll_for(self.as_fd(), direction, deadline)?;
                continue;
            }
            let (Some((registration, side)), Some(tick)) = (watched, tick) else {
                // Registered now, and tried once more before waiting.
                self.register().inspect_err(|_| park::spend_call())?;
                continue;
            };
            if !registration.is_watched() {
                self.adopt(registration).inspect_err(|_| park::spend_call())?;
            }
            side.clear(tick);
            if !side.wait(tick, Until::new(deadline, limit.interrupt()), reason)
                && let Err(over) = limit.check()
            {
                if over.kind() != io::ErrorKind::TimedOut {
                    return Err(over);
                }
                // What is there does not time out. Its event may be with the clock thread, which polls for workers that are held (E1 of `poller`).
                return match operation(self.as_fd()) {
                    Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                        Err(over)
                    }
                    result => {
                        park::spend_call();
                        result
                    }
                };
            }
        }
    }

    /// Waits until the descriptor is ready in `direction`, without doing anything to it.
    pub(crate) fn wait_ready(&self, direction: Direction, reason: Reason, ctx: Option<&Context>) -> io::Result<()> {
        self.perform(direction, reason, self.limit(direction, ctx), |fd| {
            if direction == Direction::Read && self.is_shut() {
                return Ok(());
            }
            if poll(fd, direction, Duration::ZERO)? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        })
    }

    /// Has everybody who waits in `direction` look again.
    pub(crate) fn signal(&self, direction: Direction) {
        let registration = self.registration.get().or_else(|| {
            // Whoever registers after us has this lock after us, and looks at what we have changed only then.
            let _nobody_registers = self.registering.lock();
            self.registration.get()
        });
        if let Some(registration) = registration {
            registration.side(direction).signal();
        }
    }

    /// `set_read_timeout` and its kin.
    pub(crate) fn set_timeout(&self, direction: Direction, timeout: Option<Duration>) -> io::Result<()> {
        self.limits(direction).set_timeout(timeout)
    }

    /// `set_read_deadline` and its kin: acts on operations that wait already.
    pub(crate) fn set_deadline(&self, direction: Direction, deadline: Option<Instant>) {
        self.limits(direction).set_deadline(deadline);
        self.signal(direction);
        if direction == Direction::Write {
            self.writers.look_again();
        }
    }

    pub(crate) fn is_shut(&self) -> bool {
        // ORDERING: Relaxed. `signal` and the side's lock order the look of those who wait.
        self.shut.load(Relaxed)
    }

    /// No more reads, or accepts. False when it was so before.
    pub(crate) fn shut(&self) -> bool {
        // ORDERING: Relaxed, as above.
        let first = !self.shut.swap(true, Relaxed);
        self.signal(Direction::Read);
        first
    }

    /// `close` of whatever is not a listener.
    pub(crate) fn close(&self) -> io::Result<()> {
        if !self.read.close() {
            return Err(closed());
        }
        self.write.close();
        // Has what a connected peer sends fail. Others are refused, and pipes are no sockets: they end with their last handle.
        let _ = socket2::SockRef::from(self).shutdown(std::net::Shutdown::Both);
        self.signal(Direction::Read);
        self.signal(Direction::Write);
        self.writers.look_again();
        Ok(())
    }

    /// Ends the registration and gives the descriptor out.
    pub(crate) fn into_fd(mut self) -> OwnedFd {
        self.deregister();
        self.fd.take().expect("given out once")
    }

    fn deregister(&mut self) {
        // A forked child shares the poller with its parent, whose registration it is.
        if let (Some(registration), Some(fd)) = (self.registration.take(), &self.fd)
            && !fork::forked()
        {
            registration.end(fd.as_fd());
        }
    }
}

/// Whether `fd` is ready in `direction`, or becomes so within `time`.
fn poll(fd: BorrowedFd<'_>, direction: Direction, time: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let flags = match direction {
        Direction::Read => super::system::READABLE,
        Direction::Write => PollFlags::OUT,
    };
    let time = Timespec::try_from(time).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 });
    Ok(rustix::event::poll(&mut [PollFd::new(&fd, flags)], Some(&time))? > 0)
}

/// Waits on the spot, for a moment: in a panic hook the worker that would poll is the one that waits. Moments are short, since nobody
/// tells us when limits change.
fn poll_for(fd: BorrowedFd<'_>, direction: Direction, deadline: Option<Instant>) -> io::Result<()> {
    const MOMENT: Duration = Duration::from_millis(10);
    let left = deadline.map_or(MOMENT, |deadline| deadline.saturating_duration_since(Instant::now()).min(MOMENT));
    match poll(fd, direction, left) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("there until it is given out").as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.deregister();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::{Runtime, net::unix::UnixStream, scope};

    /// Each descriptor that was waited for is counted at one poller, and at none when it is closed or given out.
    #[test]
    fn nt_24_the_pollers_counts_return_to_zero() {
        let runtime = Runtime::builder().workers(2).build().unwrap();
        let counted = || runtime.shared().processors().iter().map(|processor| processor.sockets()).sum::<i64>();
        let expect = |count: i64| {
            let begin = Instant::now();
            while counted() != count && begin.elapsed() < Duration::from_secs(10) {
                crate::yield_now();
            }
            assert_eq!(counted(), count);
        };
        // All have to wait; then all get a byte.
        let wait_for_all = |pairs: &[(UnixStream, UnixStream)]| {
            scope(|s| {
                for (near, _) in pairs {
                    s.go(|| (&mut &*near).read_exact(&mut [0]).unwrap());
                }
                expect(50);
                pairs.iter().for_each(|(_, far)| (&mut &*far).write_all(&[1]).unwrap());
            });
        };
        runtime.run(|| {
            let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
            // Nobody has waited for one.
            assert_eq!(counted(), 0);
            wait_for_all(&pairs);
            assert_eq!(counted(), 50);
            // Waiting again costs nothing more.
            wait_for_all(&pairs);
            assert_eq!(counted(), 50);
            let (closed, given): (Vec<_>, Vec<_>) = pairs.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
            drop(closed);
            assert_eq!(counted(), 25);
            for (_, (near, _far)) in given {
                std::os::unix::net::UnixStream::try_from(near).unwrap();
            }
            assert_eq!(counted(), 0);
        });
    }
}
