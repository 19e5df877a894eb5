//! Why a goroutine waits: what a dump prints beside it.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// What kind of operation parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Reason {
    /// Not waiting: running or in a run queue.
    None,
    ChanSend,
    ChanRecv,
    /// From a timer's channel.
    TimerRecv,
    /// From `never()`.
    NeverRecv,
    Select,
    /// A select without arms, or with `never()` in all of them.
    Forever,
    Sleep,
    Join,
    /// The end of a scope's children.
    Scope,
    Park,
    WaitGroup,
    Mutex,
    RwLockRead,
    RwLockUpgradable,
    RwLockUpgrade,
    RwLockWrite,
    Condvar,
    Once,
    Barrier,
    Semaphore,
    Accept,
    Connect,
    Read,
    Write,
    PipeRead,
    PipeWrite,
    Process,
    Blocking,
    /// For a future, by those who have its waker.
    Future,
    /// For a future whose waker nobody has; what limits the wait may end it.
    FutureLimited,
    /// As above, and nothing limits it.
    FutureForgotten,
    /// Until all other goroutines of a bubble wait; the second, to move its clock.
    Settle,
    Conduct,
}

impl Reason {
    /// Each at its own number.
    const ALL: &[Self] = &[
        Self::None,
        Self::ChanSend,
        Self::ChanRecv,
        Self::TimerRecv,
        Self::NeverRecv,
        Self::Select,
        Self::Forever,
        Self::Sleep,
        Self::Join,
        Self::Scope,
        Self::Park,
        Self::WaitGroup,
        Self::Mutex,
        Self::RwLockRead,
        Self::RwLockUpgradable,
        Self::RwLockUpgrade,
        Self::RwLockWrite,
        Self::Condvar,
        Self::Once,
        Self::Barrier,
        Self::Semaphore,
        Self::Accept,
        Self::Connect,
        Self::Read,
        Self::Write,
        Self::PipeRead,
        Self::PipeWrite,
        Self::Process,
        Self::Blocking,
        Self::Future,
        Self::FutureLimited,
        Self::FutureForgotten,
        Self::Settle,
        Self::Conduct,
    ];

    /// The words a dump shows.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::None => "runnable",
            Self::ChanSend => "chan send",
            Self::ChanRecv | Self::TimerRecv => "chan receive",
            Self::NeverRecv => "chan receive (never ready)",
            Self::Select => "select",
            Self::Forever => "select (no cases)",
            Self::Sleep => "sleep",
            Self::Join => "join",
            Self::Scope => "scope",
            Self::Park => "park",
            Self::WaitGroup => "WaitGroup.wait",
            Self::Mutex => "Mutex.lock",
            Self::RwLockRead => "RwLock.read",
            Self::RwLockUpgradable => "RwLock.upgradable_read",
            Self::RwLockUpgrade => "RwLock.upgrade",
            Self::RwLockWrite => "RwLock.write",
            Self::Condvar => "Condvar.wait",
            Self::Once => "Once",
            Self::Barrier => "Barrier.wait",
            Self::Semaphore => "Semaphore.acquire",
            Self::Accept => "accept",
            Self::Connect => "connect",
            Self::Read => "read",
            Self::Write => "write",
            Self::PipeRead => "pipe read",
            Self::PipeWrite => "pipe write",
            Self::Process => "wait for a process",
            Self::Blocking => "blocking call",
            Self::Future => "future",
            Self::FutureLimited | Self::FutureForgotten => "future (no waker left)",
            Self::Settle => "synctest.wait",
            Self::Conduct => "synctest.test",
        }
    }

    /// Whether the wait may end by something that no goroutine does.
    #[inline]
    pub(crate) fn ends_outside(self) -> bool {
        self == Self::Sleep || self.is_foreign()
    }

    /// Whether the wait may end by something that happens outside the process's goroutines, and is not the clock.
    #[inline]
    pub(crate) fn is_foreign(self) -> bool {
        matches!(
            self,
            Self::Accept | Self::Connect | Self::Read | Self::Write | Self::Process | Self::Blocking | Self::Future
        )
    }

    /// Whether a goroutine that begins with such a wait most likely is to be given work.
    pub(crate) fn is_for_work(self) -> bool {
        matches!(self, Self::ChanRecv | Self::Select | Self::Condvar)
    }

    /// Whether the wait is for what is held for a short while, perhaps by somebody outside the runtime.
    #[inline]
    pub(crate) fn is_lock(self) -> bool {
        matches!(
            self,
            Self::Mutex
                | Self::RwLockRead
                | Self::RwLockUpgradable
                | Self::RwLockUpgrade
                | Self::RwLockWrite
                | Self::Once
        )
    }

    /// This reason, on the object at `object`.
    #[inline]
    pub(crate) fn on<T: ?Sized>(self, object: &T) -> Wait {
        Wait { reason: self, object: std::ptr::from_ref(object).cast::<()>().expose_provenance() }
    }

    /// This reason, on no object in particular.
    #[inline]
    pub(crate) fn alone(self) -> Wait {
        Wait { reason: self, object: 0 }
    }
}

const _: () = {
    let mut at = 0;
    while at < Reason::ALL.len() {
        assert!(Reason::ALL[at] as usize == at, "a reason is not at its number");
        at += 1;
    }
    assert!(Reason::Conduct as usize + 1 == at, "the last reason is missing");
};

/// A reason that a handler of signals may look at while its thread changes it.
#[derive(Debug, Default)]
pub(crate) struct AtomicReason(AtomicU8);

impl AtomicReason {
    #[inline]
    pub(crate) fn store(&self, reason: Reason) {
        // ORDERING: Relaxed. The same thread reads it, or whoever it is published to by other means.
        self.0.store(reason as u8, Relaxed);
    }

    pub(crate) fn load(&self) -> Reason {
        // ORDERING: Relaxed, as above.
        let number = usize::from(self.0.load(Relaxed));
        Reason::ALL.get(number).copied().unwrap_or(Reason::None)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// A reason and the address of the object it is about (0: none), as a name and nothing to follow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) reason: Reason,
    pub(crate) object: usize,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        // The object of a select is a list in its frame.
        if !matches!(self.reason, Reason::None | Reason::Select) && self.object != 0 {
            write!(f, " on {:#x}", self.object)?;
        }
        Ok(())
    }
}
