//! What is done through a descriptor, whatever it is: reading, whole writes in turn, accepting; and how one is taken over and given out.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut, Write},
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SocketAddrAny},
};

use super::{
    descriptor::{Descriptor, Direction, listener_closed},
    system,
};
use crate::{
    context::Context,
    runtime::{
        park::{self, Accepted},
        wait::Reason,
    },
    util::limit_reached,
};

/// The kernel takes so many buffers in one call.
const MOST_SLICES: usize = 1024;

/// How far a write came, and what stopped it before its end.
pub(crate) type Written = (usize, io::Result<()>);

/// What `write` returns: what has been written is told first; what stopped it comes again with the next call.
#[inline]
pub(crate) fn how_much((written, end): Written) -> io::Result<usize> {
    match end {
        Err(error) if written == 0 => Err(error),
        _ => Ok(written),
    }
}

/// What `write!` does to a stream: all of the format in one write, which no other gets into, and not in one for each of its pieces.
pub(crate) fn write_formatted(stream: &mut impl Write, args: fmt::Arguments<'_>) -> io::Result<()> {
    match args.as_str() {
        Some(text) => stream.write_all(text.as_bytes()),
        None => stream.write_all(fmt::format(args).as_bytes()),
    }
}

impl Descriptor {
    /// Reads, unless there is no room or reading has been shut down.
    #[inline]
    pub(crate) fn read_with(
        &self,
        ctx: Option<&Context>,
        empty: bool,
        read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.read_or_drain(ctx, empty, None, read)
    }

    /// As [`read_with`](Self::read_with); by [`drain`](Self::drain) if `most` bytes are asked for and fewer mean something.
    #[inline]
    fn read_or_drain(
        &self,
        ctx: Option<&Context>,
        empty: bool,
        most: Option<usize>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if empty {
            park::spend();
            return self.check_open().map(|()| 0);
        }
        let limit = self.limit(Direction::Read, ctx);
        let read = |fd: BorrowedFd<'_>| if self.is_shut() { Ok(0) } else { read(fd) };
        match most {
            Some(most) => self.drain(limit, most, read),
            None => self.perform(Direction::Read, Reason::Read, limit, read),
        }
    }

    /// Writes `total` bytes in one turn; `write` is told how many have been written.
    pub(crate) fn write_with(
        &self,
        ctx: Option<&Context>,
        total: usize,
        mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> Written {
        if total == 0 {
            // A turn that is free is all that this takes.
            park::spend();
            if let Err(error) = self.check_open() {
                return (0, Err(error));
            }
        }
        let limit = self.limit(Direction::Write, ctx);
        let _turn = match self.writers.take(Reason::Write, limit.interrupt(), || limit.check()) {
            Ok(turn) => turn,
            Err(error) => return (0, Err(error)),
        };
        let mut written = 0;
        while written < total {
            match self.perform(Direction::Write, Reason::Write, limit, |fd| write(fd, written)) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(n) => written += n,
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    /// Reads from pipes.
    #[inline]
    pub(crate) fn read_bytes(&self, ctx: Option<&Context>, buf: &mut [u8]) -> io::Result<usize> {
        self.drain_into(ctx, buf, |fd, buf| Ok(rustix::io::read(fd, buf)?))
    }

    /// Reads from sockets: past the layer of files, which costs a hundredth of an answer.
    #[inline]
    pub(crate) fn receive_bytes(&self, ctx: Option<&Context>, buf: &mut [u8]) -> io::Result<usize> {
        self.drain_into(ctx, buf, |fd, buf| Ok(rustix::net::recv(fd, buf, RecvFlags::empty())?.0))
    }

    /// As [`receive_bytes`](Self::receive_bytes), and leaves the bytes there.
    pub(crate) fn peek_bytes(&self, ctx: Option<&Context>, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(ctx, buf.is_empty(), |fd| Ok(rustix::net::recv(fd, &mut *buf, RecvFlags::PEEK)?.0))
    }

    #[inline]
    fn drain_into(
        &self,
        ctx: Option<&Context>,
        buf: &mut [u8],
        mut read: impl FnMut(BorrowedFd<'_>, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.read_or_drain(ctx, buf.is_empty(), Some(buf.len()), |fd| read(fd, buf))
    }

    pub(crate) fn read_slices(&self, ctx: Option<&Context>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let empty = bufs.iter().all(|buf| buf.is_empty());
        self.read_with(ctx, empty, |fd| Ok(rustix::io::readv(fd, bufs)?))
    }

    /// Writes to sockets, which never raises a signal.
    #[inline]
    pub(crate) fn send_bytes(&self, ctx: Option<&Context>, buf: &[u8]) -> Written {
        self.write_with(ctx, buf.len(), |fd, written| Ok(rustix::net::send(fd, &buf[written..], system::SEND)?))
    }

    pub(crate) fn send_slices(&self, ctx: Option<&Context>, bufs: &[IoSlice<'_>]) -> Written {
        self.write_slices_with(
            ctx,
            bufs,
            |fd, buf| Ok(rustix::net::send(fd, buf, system::SEND)?),
            |fd, bufs| Ok(rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), system::SEND)?),
        )
    }

    /// Writes to pipes. A pipe without readers gives `BrokenPipe`, since Rust programs ignore the signal.
    #[inline]
    pub(crate) fn write_bytes(&self, ctx: Option<&Context>, buf: &[u8]) -> Written {
        self.write_with(ctx, buf.len(), |fd, written| Ok(rustix::io::write(fd, &buf[written..])?))
    }

    pub(crate) fn write_slices(&self, ctx: Option<&Context>, bufs: &[IoSlice<'_>]) -> Written {
        self.write_slices_with(
            ctx,
            bufs,
            |fd, buf| Ok(rustix::io::write(fd, buf)?),
            |fd, bufs| Ok(rustix::io::writev(fd, bufs)?),
        )
    }

    /// Writes the rest of a buffer that has been written in part, or all buffers that are left whole.
    fn write_slices_with(
        &self,
        ctx: Option<&Context>,
        bufs: &[IoSlice<'_>],
        mut one: impl FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<usize>,
        mut many: impl FnMut(BorrowedFd<'_>, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> Written {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.write_with(ctx, total, |fd, mut written| {
            let mut rest = bufs;
            while let Some(first) = rest.first().filter(|first| written >= first.len()) {
                written -= first.len();
                rest = &rest[1..];
            }
            if written > 0 { one(fd, &rest[0][written..]) } else { many(fd, &rest[..rest.len().min(MOST_SLICES)]) }
        })
    }

    /// `shutdown` of connected sockets.
    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let result = self.option(|socket| socket.shutdown(how));
        if how != Shutdown::Write {
            self.shut();
        }
        if how != Shutdown::Read {
            self.signal(Direction::Write);
        }
        result
    }

    /// `accept` of listeners.
    pub(crate) fn accept(&self, ctx: Option<&Context>) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        let limit = self.limit(Direction::Read, ctx);
        let accepted = self.perform(Direction::Read, Reason::Accept, limit, |fd| {
            if self.is_shut() {
                return Err(listener_closed());
            }
            loop {
                match system::accept(fd) {
                    // The peer gave up before it was accepted; there may be others.
                    Err(Errno::CONNABORTED) => {}
                    Err(Errno::INVAL) if self.is_shut() => return Err(listener_closed()),
                    result => return Ok(result?),
                }
            }
        });
        match accepted {
            Ok(accepted) => {
                park::accepted(Accepted { listener_is_here: self.is_watched_here() });
                Ok(accepted)
            }
            // Not that a time limit has passed as well: who goes on after that would do so for ever.
            Err(_) if self.is_shut() => Err(listener_closed()),
            Err(error) => Err(back_off_when_full(error)),
        }
    }

    /// `close` of listeners.
    pub(crate) fn close_listener(&self) -> io::Result<()> {
        if !self.shut() {
            return Err(listener_closed());
        }
        // Refuses whoever connects from now on and whoever waits to be accepted, and frees the address for others.
        self.give_back();
        self.signal(Direction::Read);
        Ok(())
    }

    /// Takes over what may be blocking.
    pub(crate) fn take_over(fd: OwnedFd) -> io::Result<Self> {
        system::take_over(fd.as_fd())?;
        Ok(Self::new(fd))
    }

    /// Gives the descriptor out, blocking again; refused while there are other handles: whether calls block is a property of what all of
    /// them share, and theirs would hold their workers. A duplicate shares it as well.
    pub(crate) fn release(shared: Arc<Self>) -> io::Result<OwnedFd> {
        // Of several handles that are converted at the same time, the last one is not refused.
        let Some(descriptor) = Arc::into_inner(shared) else {
            let text = "other handles of it, made by try_clone, are still there: drop them first, and clone what this gives instead";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
        };
        let fd = descriptor.into_fd()?;
        rustix::io::ioctl_fionbio(&fd, false)?;
        Ok(fd)
    }
}

/// A full table of descriptors is no reason to end or to spin: waits a little, and says which limit it is.
fn back_off_when_full(error: io::Error) -> io::Error {
    const PAUSE: Duration = Duration::from_millis(10);
    let limit = match Errno::from_io_error(&error) {
        Some(Errno::MFILE) => "this process's limit of descriptors (ulimit -n)",
        Some(Errno::NFILE) => "the system's limit of descriptors (fs.file-max)",
        Some(Errno::NOBUFS | Errno::NOMEM) => "the system's memory for sockets",
        // The listener could not be watched.
        None if error.kind() == io::ErrorKind::OutOfMemory => {
            crate::time::sleep(PAUSE);
            return error;
        }
        _ => return error,
    };
    crate::time::sleep(PAUSE);
    limit_reached(limit, error)
}
