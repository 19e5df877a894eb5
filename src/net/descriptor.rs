//! A descriptor that goroutines wait for: tries first, registers lazily, honours time limits.

use std::{
    io,
    net::Shutdown,
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

use rustix::net::SocketAddrAny;
use socket2::SockRef;

use super::system;
use crate::{
    context::Context,
    runtime::{driver::source::Registration, fork, interrupt::Interrupt, park, present, until::Until, wait::Reason},
    sync::turn::Turn,
    util::{Lock, vacant},
};

pub(crate) use crate::runtime::driver::readiness::Direction;

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

/// What a listener that has been closed answers.
pub(super) fn listener_closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "listener closed")
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the time limit of this operation has passed")
}

/// A non-blocking descriptor and all that handles of it share.
///
/// Who closes it has the system take back what is behind it, though others may be about to use it, and the number stays taken until the last
/// handle is dropped (F1 to F3 of `vacant`). Nobody counts operations:
///
/// - C1: *what comes later is refused, what is under way finds its object or none.* Each try looks first whether it is closed, which is said before
///   the object goes. One that looked before and tries after that has an error, and [`told`](Self::told) knows of whom; a write tells
///   how far it came before.
/// - C2: *nobody waits for what is gone.* `vacated` is said, and the registration ended, under `registering`; whoever would register it
///   or have it adopted asks there. Those who wait already are signalled after that, as of every change.
#[derive(Debug)]
pub(crate) struct Descriptor {
    /// None only in a descriptor that has given it out.
    fd: Option<OwnedFd>,
    registration: OnceLock<Registration>,
    /// Held while the registration is made, moved or ended by a close, and by [`signal`](Self::signal) while it finds none.
    registering: Lock<()>,
    /// Set when what is behind the number is taken away, before it is: the address of a socket, which can be asked for all the same.
    vacated: OnceLock<Option<Box<SocketAddrAny>>>,
    pub(crate) read: Limits,
    pub(crate) write: Limits,
    /// Reads give nothing any more; an accepting descriptor is closed.
    shut: AtomicBool,
    /// A read that brings less than was asked for has emptied it (D6 of `readiness`).
    is_tcp: bool,
    /// Whose turn it is to write.
    pub(crate) writers: Turn,
}

/// How an operation begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Try,
    /// With the wait, where nothing can be ready (D6 of `readiness`); else as `Try`.
    Skip,
}

impl Descriptor {
    /// Takes a descriptor that is non-blocking already.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            registration: OnceLock::new(),
            registering: Lock::new(()),
            vacated: OnceLock::new(),
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
        self.check_open()?;
        if self.registration.get().is_none() {
            let _ = self.registration.set(Registration::new(self.as_fd())?);
        }
        Ok(self.registration.get().expect("set above, or by another before us"))
    }

    /// The descriptor is to be watched by the caller's worker from now on: the worker that watched it has ended (D5).
    #[cold]
    fn adopt(&self, registration: &Registration) -> io::Result<()> {
        let _one_at_a_time = self.registering.lock();
        self.check_open()?;
        registration.adopt(self.as_fd())
    }

    /// Whether the caller's worker polls for it.
    pub(crate) fn is_watched_here(&self) -> bool {
        self.registration.get().is_some_and(Registration::is_watched_here)
    }

    fn is_vacated(&self) -> bool {
        self.vacated.get().is_some()
    }

    /// An error when it is closed.
    pub(super) fn check_open(&self) -> io::Result<()> {
        if self.read.values().closed {
            return Err(closed());
        }
        if self.is_vacated() { Err(listener_closed()) } else { Ok(()) }
    }

    /// What the system said of an operation, unless that was about a socket that a close had shut down, or about what has taken its place (C1).
    #[inline]
    pub(crate) fn told<R>(&self, result: Result<R, impl Into<io::Error>>) -> io::Result<R> {
        result.map_err(|error| self.check_open().err().unwrap_or_else(|| error.into()))
    }

    /// Sets or tells an option of a socket.
    pub(crate) fn option<R>(&self, option: impl FnOnce(SockRef<'_>) -> io::Result<R>) -> io::Result<R> {
        self.told(option(SockRef::from(self)))
    }

    /// The address of a socket itself, also of one that is closed; none when it has no name.
    pub(crate) fn own_address(&self) -> io::Result<Option<SocketAddrAny>> {
        system::own_address(self).or_else(|error| match self.vacated.get() {
            Some(address) => Ok(address.as_deref().cloned()),
            None => Err(error),
        })
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
        self.perform_or_skip(direction, reason, limit, First::Try, operation, |_| false)
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
        let first = if self.is_tcp { First::Skip } else { First::Try };
        self.perform_or_skip(Direction::Read, Reason::Read, limit, first, read, is_short)
    }

    /// Tries, and waits for events, by R1 to R4 of `readiness`. `empties`: whether a result says that nothing more is there.
    #[inline]
    fn perform_or_skip<R>(
        &self,
        direction: Direction,
        reason: Reason,
        limit: Limit<'_>,
        mut first: First,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
        empties: impl Fn(&R) -> bool,
    ) -> io::Result<R> {
        loop {
            let watched = self.registration.get().map(|registration| (registration, registration.side(direction)));
            // R1. Before the limits are read: a change of theirs is an event too, and D1 holds for what is looked at after R1.
            let tick = watched.map(|(_, side)| side.tick());
            let deadline = limit.check()?;
            let skips = first == First::Skip
                && watched.is_some_and(|(registration, side)| !side.is_ready() && registration.is_watched_here())
                && deadline.is_none()
                && limit.interrupt().is_none()
                && !fork::forked();
            // R2.
            if !skips {
                match operation(self.as_fd()) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => {
                        if let (Some((_, side)), Some(tick), Ok(result)) = (watched, tick, &result)
                            && empties(result)
                        {
                            // R3, for the next operation (D6).
                            side.emptied(tick);
                        }
                        park::spend_call();
                        return self.told(result);
                    }
                }
            }
            first = First::Try;
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
            // R3.
            side.clear(tick);
            // R4.
            if !side.wait(tick, Until::new(deadline, limit.interrupt()), reason)
                && let Err(over) = limit.check()
            {
                return self.try_once_more(over, operation);
            }
        }
    }

    /// How an operation ends whose wait ended with `over`. When it has timed out it is tried once more, since what is there does not time out: its event
    /// may be with the clock thread, which polls for workers that are held (E1 of `poller`).
    #[cold]
    fn try_once_more<R>(
        &self,
        over: io::Error,
        mut operation: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        if over.kind() != io::ErrorKind::TimedOut {
            return Err(over);
        }
        match operation(self.as_fd()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Err(over),
            result => {
                park::spend_call();
                self.told(result)
            }
        }
    }

    /// Waits until the descriptor is ready in `direction`, without doing anything to it.
    pub(crate) fn wait_ready(&self, direction: Direction, reason: Reason, ctx: Option<&Context>) -> io::Result<()> {
        self.perform(direction, reason, self.limit(direction, ctx), |fd| {
            if direction == Direction::Read && self.is_shut() {
                return Ok(());
            }
            let is_ready = poll(fd, direction, Duration::ZERO)?;
            // What has taken its place is always ready, to fail (C1).
            self.check_open()?;
            if is_ready { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
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
        self.give_back();
        self.signal(Direction::Read);
        self.signal(Direction::Write);
        self.writers.look_again();
        Ok(())
    }

    /// Gives back to the system what is behind the number, when it is said that this is closed; those who wait are to be told after that.
    pub(super) fn give_back(&self) {
        // Ends what others do with duplicates, too, and is all that can be done if nothing can take its place. Pipes and sockets without a peer refuse.
        let _ = SockRef::from(self).shutdown(Shutdown::Both);
        let Some(fd) = &self.fd else { return };
        let address = system::own_address(self).ok().flatten().map(Box::new);
        {
            let _nobody_registers = self.registering.lock();
            if self.vacated.set(address).is_err() {
                return;
            }
            self.unwatch(fd);
        }
        // Fails where the limit of descriptors left no room for what is to take its place, or has been lowered below the number: then the last
        // handle that is dropped does it.
        let _ = vacant::vacate(fd);
    }

    /// D4 of `source`.
    fn unwatch(&self, fd: &OwnedFd) {
        // A forked child shares the poller with its parent, whose registration it is.
        if let Some(registration) = self.registration.get()
            && !fork::forked()
        {
            registration.unwatch(fd.as_fd());
        }
    }

    /// Ends the registration and gives the descriptor out; not one that is closed.
    pub(crate) fn into_fd(mut self) -> io::Result<OwnedFd> {
        self.check_open()?;
        self.deregister();
        Ok(self.fd.take().expect("given out once"))
    }

    fn deregister(&mut self) {
        if let Some(fd) = &self.fd
            && !self.is_vacated()
        {
            self.unwatch(fd);
        }
        if let Some(registration) = self.registration.take()
            && !fork::forked()
        {
            registration.end();
        }
    }
}

/// Whether `fd` is ready in `direction`, or becomes so within `time`.
fn poll(fd: BorrowedFd<'_>, direction: Direction, time: Duration) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let flags = match direction {
        Direction::Read => system::READABLE,
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

    /// Each descriptor that was waited for is counted at one poller, and at none when it is dropped, given out or closed.
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

            // Those that are closed though handles live, and duplicates, which keep them in a poller that has not been told.
            let pipes: Vec<_> = (0..20).map(|_| crate::io::pipe().unwrap()).collect();
            let duplicates: Vec<_> =
                pipes.iter().map(|(reader, _)| reader.as_fd().try_clone_to_owned().unwrap()).collect();
            scope(|s| {
                let waiting: Vec<_> = pipes.iter().map(|(reader, _)| s.go(|| (&mut &*reader).read(&mut [0]))).collect();
                expect(20);
                pipes.iter().for_each(|(reader, _)| reader.close().unwrap());
                assert_eq!(counted(), 0);
                waiting.into_iter().for_each(|waiting| drop(waiting.join().unwrap().unwrap_err()));
            });
            // Nobody registers them again.
            pipes.iter().for_each(|(reader, _)| drop(reader.readable().unwrap_err()));
            drop((pipes, duplicates));
            assert_eq!(counted(), 0);
        });
    }
}
