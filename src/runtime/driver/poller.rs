//! A worker's view of the kernel: which descriptors are ready, and how another thread ends its sleep.
//!
//! - E1: the worker polls, and the clock thread in its place while a goroutine holds it. Any thread may register, deregister and notify.
//! - E2: an event carries a key, which names a source and its generation; sources are type-stable and check the generation, so an event
//!   that was fetched before its descriptor was deregistered does nothing.
//! - E3: `notify` is remembered: the worker's next poll returns at once. Callers use it only on the change from asleep to notified. Whoever polls in
//!   the worker's place notifies it anew after having taken a notification.

#[cfg(all(target_os = "linux", not(oxigo_fallback)))]
pub(crate) use epoll::{Events, KEY_BITS, Poller};
#[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
pub(crate) use portable::{Events, KEY_BITS, Poller};

/// What a descriptor's poller calls back.
pub(crate) use super::{readiness::Ready, source::dispatch};

#[cfg(all(target_os = "linux", not(oxigo_fallback)))]
mod epoll {
    use std::{
        io,
        mem::MaybeUninit,
        os::fd::{AsFd, BorrowedFd, OwnedFd},
        time::{Duration, Instant},
    };

    use rustix::{
        event::{
            EventfdFlags, PollFd, PollFlags, Timespec,
            epoll::{self, CreateFlags, Event, EventData, EventFlags},
            eventfd, poll,
        },
        io::Errno,
    };

    use super::{Ready, dispatch};
    use crate::util::limit_reached;

    /// So much of a key comes back with its events.
    pub(crate) const KEY_BITS: u32 = u64::BITS;

    /// No source has this key.
    const NOTIFICATION: u64 = u64::MAX;
    const BATCH: usize = 256;
    /// So many of them are passed on together.
    const TOGETHER: usize = 16;
    const NOTHING: Ready = Ready { read: false, write: false, last: false };

    /// Room for one batch of events.
    pub(crate) struct Events(Box<[MaybeUninit<Event>; BATCH]>);

    impl Events {
        pub(crate) fn new() -> Self {
            Self(Box::new([const { MaybeUninit::uninit() }; BATCH]))
        }
    }

    /// See the module.
    #[derive(Debug)]
    pub(crate) struct Poller {
        epoll: OwnedFd,
        wake: OwnedFd,
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<Self> {
            let epoll = epoll::create(CreateFlags::CLOEXEC)?;
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Edge-triggered: each write is one edge, so the count need not be read back.
            add(&epoll, wake.as_fd(), NOTIFICATION, EventFlags::IN | EventFlags::ET)?;
            Ok(Self { epoll, wake })
        }

        /// Waits for `timeout` at most (none: for ever) and passes every event on; how many there were.
        pub(crate) fn poll(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
            Ok(self.poll_for(events, timeout)?.0)
        }

        /// Passes on the events that are there, in the worker's place (E1, E3).
        pub(crate) fn poll_in_place(&self, events: &mut Events) -> io::Result<()> {
            let (_, notified) = self.poll_for(events, Some(Duration::ZERO))?;
            if notified {
                self.notify();
            }
            Ok(())
        }

        /// How many events there were, and whether one was a notification.
        fn poll_for(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<(usize, bool)> {
            let ready = match wait(self.epoll.as_fd(), &mut events.0[..], timeout) {
                Ok(ready) => ready,
                Err(Errno::INTR) => return Ok((0, false)),
                Err(error) => return Err(error.into()),
            };
            let (count, mut notified) = (ready.len(), false);
            for few in ready.chunks(TOGETHER) {
                let mut heard = [(0, NOTHING); TOGETHER];
                let mut len = 0;
                for event in few {
                    let (flags, key) = (event.flags, event.data.u64());
                    if key == NOTIFICATION {
                        notified = true;
                    } else {
                        heard[len] = (key, readiness(flags));
                        len += 1;
                    }
                }
                dispatch(&mut heard[..len]);
            }
            Ok((count, notified))
        }

        /// Ends the worker's wait, now or when it begins.
        pub(crate) fn notify(&self) {
            // A full counter is as good as an increment: the descriptor is readable and an edge is due. Nothing interrupts a write that does not wait, but
            // who supervises system calls may, and a wake that is lost is lost for ever.
            while rustix::io::write(&self.wake, &1_u64.to_ne_bytes()) == Err(Errno::INTR) {}
        }

        pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            let flags = EventFlags::IN | EventFlags::PRI | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            add(&self.epoll, fd, key, flags)
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
            // Fails only when it was never there.
            let _ = epoll::delete(&self.epoll, fd);
        }
    }

    fn add(epoll: &OwnedFd, fd: BorrowedFd<'_>, key: u64, flags: EventFlags) -> io::Result<()> {
        epoll::add(epoll, fd, EventData::new_u64(key), flags).map_err(|error| match error {
            // The system's own word is about a device that is full.
            Errno::NOSPC => limit_reached("the limit of watched descriptors (fs.epoll.max_user_watches)", error),
            _ => error.into(),
        })
    }

    fn readiness(flags: EventFlags) -> Ready {
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        Ready {
            read: broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI),
            write: broken || flags.intersects(EventFlags::OUT),
            last: broken || flags.intersects(EventFlags::RDHUP | EventFlags::PRI),
        }
    }

    const MILLISECOND: Duration = Duration::from_millis(1);
    /// The longest that `epoll_wait` counts; who waits for longer looks again.
    const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);

    /// Waits for events, in whole milliseconds as far as those go, and for the rest by `poll`, which counts nanoseconds. (`epoll_pwait2` counts
    /// them in one call, but there is none before Linux 5.11, and older filters of system calls end a process that tries. rustix has it
    /// only for programs that ask for such a kernel.)
    fn wait<'a>(
        epoll: BorrowedFd<'_>,
        events: &'a mut [MaybeUninit<Event>],
        timeout: Option<Duration>,
    ) -> Result<&'a mut [Event], Errno> {
        let Some(timeout) = timeout else { return Ok(epoll::wait(epoll, events, None)?.0) };
        let mut rest = timeout.min(LONGEST);
        if rest >= MILLISECOND {
            let whole = Duration::from_millis(rest.as_millis() as u64);
            let begin = Instant::now();
            let count = epoll::wait(epoll, &mut *events, Some(&timespec(whole)))?.0.len();
            rest = rest.saturating_sub(begin.elapsed());
            if count != 0 || rest.is_zero() {
                // SAFETY: the kernel has filled this many.
                return Ok(unsafe { events[..count].assume_init_mut() });
            }
        }
        if !rest.is_zero() && poll(&mut [PollFd::from_borrowed_fd(epoll, PollFlags::IN)], Some(&timespec(rest)))? == 0 {
            return Ok(&mut []);
        }
        Ok(epoll::wait(epoll, events, Some(&timespec(Duration::ZERO)))?.0)
    }

    fn timespec(duration: Duration) -> Timespec {
        Timespec::try_from(duration).expect("no longer than LONGEST")
    }
}

/// The same over the `polling` crate, which does not tell whether an event is the last one, nor of notifications.
#[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
mod portable {
    use std::{
        io,
        os::fd::{AsRawFd, BorrowedFd},
        time::Duration,
    };

    use polling::{Event, PollMode};

    use super::{Ready, dispatch};

    pub(crate) struct Events(polling::Events);

    impl Events {
        pub(crate) fn new() -> Self {
            Self(polling::Events::new())
        }
    }

    /// So much of a key comes back with its events. `usize::MAX` is refused: where addresses have 32 bits the last of all sources could have it, which no
    /// such machine has room for.
    pub(crate) const KEY_BITS: u32 = usize::BITS;

    #[derive(Debug)]
    pub(crate) struct Poller(polling::Poller);

    impl Poller {
        pub(crate) fn new() -> io::Result<Self> {
            polling::Poller::new().map(Self)
        }

        pub(crate) fn poll(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
            events.0.clear();
            let count = self.0.wait(&mut events.0, timeout)?;
            for event in events.0.iter() {
                let ready = Ready { read: event.readable, write: event.writable, last: true };
                dispatch(&mut [(event.key as u64, ready)]);
            }
            Ok(count)
        }

        /// Passes on the events that are there, in the worker's place (E1, E3): whether there was a notification is not told.
        pub(crate) fn poll_in_place(&self, events: &mut Events) -> io::Result<()> {
            let polled = self.poll(events, Some(Duration::ZERO));
            self.notify();
            polled.map(drop)
        }

        pub(crate) fn notify(&self) {
            // A poller that cannot be notified has lost its descriptor; time-outs keep the worker going.
            let _ = self.0.notify();
        }

        pub(crate) fn add(&self, fd: BorrowedFd<'_>, key: u64) -> io::Result<()> {
            // SAFETY: `remove` is called before the descriptor is closed (source.rs, D4).
            unsafe { self.0.add_with_mode(fd.as_raw_fd(), Event::all(key as usize), PollMode::Edge) }
        }

        pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
            // Fails only when it was never there.
            let _ = self.0.delete(fd);
        }
    }
}
