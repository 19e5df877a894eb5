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
    runtime::{
        driver::source::{Registration, Side},
        park,
        wait::Reason,
    },
    sync::turn::Turn,
    util::Lock,
};

/// Time limits of one direction.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Whether there are any: most sockets have none, and need no lock to know it.
    set: AtomicBool,
    values: Lock<Values>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Values {
    timeout: Option<Duration>,
    deadline: Option<Instant>,
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
        self.set.store(values.timeout.is_some() || values.deadline.is_some(), Release);
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.values().timeout
    }

    /// The limit of an operation that begins now.
    pub(crate) fn begin(&self) -> Limit<'_> {
        let own = self.values().timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Limit { limits: self, own }
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
}

/// When one operation must have ended: its own time-out, counted from its beginning, or the deadline that holds now.
#[derive(Clone, Copy)]
pub(crate) struct Limit<'a> {
    limits: &'a Limits,
    own: Option<Instant>,
}

impl Limit<'_> {
    fn deadline(&self) -> Option<Instant> {
        match (self.limits.values().deadline, self.own) {
            (Some(deadline), Some(own)) => Some(deadline.min(own)),
            (deadline, own) => deadline.or(own),
        }
    }

    /// The time that is left; an error when it has passed.
    pub(crate) fn check(&self) -> io::Result<Option<Instant>> {
        let deadline = self.deadline();
        match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(timed_out()),
            deadline => Ok(deadline),
        }
    }
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the time limit of this operation has passed")
}

/// One direction of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Write,
}

/// A non-blocking descriptor and all that handles of it share.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: OwnedFd,
    registration: OnceLock<Registration>,
    registering: Lock<()>,
    pub(crate) read: Limits,
    pub(crate) write: Limits,
    /// Reads give nothing any more; an accepting descriptor is closed.
    shut: AtomicBool,
    /// Whose turn it is to write.
    pub(crate) writers: Turn,
}

impl Descriptor {
    /// Takes a descriptor that is non-blocking already.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            registration: OnceLock::new(),
            registering: Lock::new(()),
            read: Limits::new(),
            write: Limits::new(),
            shut: AtomicBool::new(false),
            writers: Turn::new(),
        }
    }

    pub(crate) fn limits(&self, direction: Direction) -> &Limits {
        match direction {
            Direction::Read => &self.read,
            Direction::Write => &self.write,
        }
    }

    fn side(&self, direction: Direction) -> io::Result<&'static Side> {
        if self.registration.get().is_none() {
            self.register()?;
        }
        let source = self.registration.get().expect("registered above").source();
        Ok(match direction {
            Direction::Read => &source.read,
            Direction::Write => &source.write,
        })
    }

    #[cold]
    fn register(&self) -> io::Result<()> {
        let _one_at_a_time = self.registering.lock();
        if self.registration.get().is_none() {
            let registration = Registration::new(self.fd.as_fd())?;
            let _ = self.registration.set(registration);
        }
        Ok(())
    }

    /// The limit of an operation that begins now.
    pub(crate) fn limit(&self, direction: Direction) -> Limit<'_> {
        self.limits(direction).begin()
    }

    /// Does `operation` as soon as the descriptor is ready for it.
    #[inline]
    pub(crate) fn perform<R>(
        &self,
        direction: Direction,
        reason: Reason,
        limit: Limit<'_>,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        let mut side = None::<&'static Side>;
        loop {
            let deadline = limit.check()?;
            if side.is_none() && self.registration.get().is_some() {
                side = Some(self.side(direction)?);
            }
            let tick = side.map(Side::tick);
            match operation(self.fd.as_fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => {
                    park::spend();
                    return result;
                }
            }
            match (side, tick) {
                (Some(side), Some(tick)) => {
                    side.clear(tick);
                    if !side.wait(deadline, reason) && limit.deadline().is_some_and(|d| d <= Instant::now()) {
                        return Err(timed_out());
                    }
                }
                // Registered now, and tried once more before waiting.
                _ => side = Some(self.side(direction)?),
            }
        }
    }

    /// Waits until the descriptor is ready in `direction`, without doing anything to it.
    pub(crate) fn wait_ready(&self, direction: Direction, reason: Reason) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let flags = match direction {
            Direction::Read => PollFlags::IN | PollFlags::RDHUP,
            Direction::Write => PollFlags::OUT,
        };
        self.perform(direction, reason, self.limit(direction), |fd| {
            if direction == Direction::Read && self.is_shut() {
                return Ok(());
            }
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match poll(&mut [PollFd::new(&fd, flags)], Some(&now))? {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        })
    }

    /// Has everybody who waits in `direction` look again.
    pub(crate) fn signal(&self, direction: Direction) {
        if self.registration.get().is_some()
            && let Ok(side) = self.side(direction)
        {
            side.signal();
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

    /// No more reads, or accepts.
    pub(crate) fn shut(&self) {
        self.shut.store(true, Relaxed);
        self.signal(Direction::Read);
    }

    /// Ends the registration and gives the descriptor out.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        // The descriptor is duplicated, since dropping `self` deregisters and closes the original.
        self.fd.try_clone()
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Some(registration) = self.registration.take() {
            registration.end(self.fd.as_fd());
        }
    }
}
