//! What handles of descriptors have in common, whatever the descriptor is: whole writes in turn, and the methods that every one of them has.
//!
//! The macros write methods for a type with a field `descriptor` that is a [`Descriptor`] or points to one. Each documents what it
//! writes, so that the types differ in their own parts only.

use std::{
    error::Error,
    fmt,
    io::{self, IoSlice, IoSliceMut},
    net::Shutdown,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrAny, SocketFlags},
};
use socket2::SockRef;

use super::descriptor::{Descriptor, Direction};
use crate::{
    context::Context,
    runtime::{park, wait::Reason},
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

/// What a listener that has been closed answers.
pub(crate) fn listener_closed() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "listener closed")
}

impl Descriptor {
    /// Reads, unless there is no room or reading has been shut down.
    #[inline]
    pub(crate) fn read_with(
        &self,
        ctx: Option<&Context>,
        empty: bool,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if empty {
            park::spend();
            return Ok(0);
        }
        self.perform(Direction::Read, Reason::Read, self.limit(Direction::Read, ctx), |fd| {
            if self.is_shut() {
                return Ok(0);
            }
            read(fd)
        })
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

    #[inline]
    fn drain_into(
        &self,
        ctx: Option<&Context>,
        buf: &mut [u8],
        mut read: impl FnMut(BorrowedFd<'_>, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if buf.is_empty() {
            park::spend();
            return Ok(0);
        }
        self.drain(self.limit(Direction::Read, ctx), buf.len(), |fd| if self.is_shut() { Ok(0) } else { read(fd, buf) })
    }

    pub(crate) fn read_slices(&self, ctx: Option<&Context>, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let empty = bufs.iter().all(|buf| buf.is_empty());
        self.read_with(ctx, empty, |fd| Ok(rustix::io::readv(fd, bufs)?))
    }

    /// Writes to sockets, which never raises a signal.
    #[inline]
    pub(crate) fn send_bytes(&self, ctx: Option<&Context>, buf: &[u8]) -> Written {
        self.write_with(ctx, buf.len(), |fd, written| Ok(rustix::net::send(fd, &buf[written..], SendFlags::NOSIGNAL)?))
    }

    pub(crate) fn send_slices(&self, ctx: Option<&Context>, bufs: &[IoSlice<'_>]) -> Written {
        self.write_slices_with(
            ctx,
            bufs,
            |fd, buf| Ok(rustix::net::send(fd, buf, SendFlags::NOSIGNAL)?),
            |fd, bufs| Ok(rustix::net::sendmsg(fd, bufs, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?),
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
        let result = SockRef::from(self).shutdown(how);
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
                match rustix::net::acceptfrom_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    // The peer gave up before it was accepted; there may be others.
                    Err(Errno::CONNABORTED) => {}
                    Err(Errno::INVAL) if self.is_shut() => return Err(listener_closed()),
                    result => return Ok(result?),
                }
            }
        });
        match accepted {
            Ok(accepted) => {
                park::accepted();
                Ok(accepted)
            }
            Err(error) => Err(back_off_when_full(error)),
        }
    }

    /// `close` of listeners.
    pub(crate) fn close_listener(&self) -> io::Result<()> {
        if !self.shut() {
            return Err(listener_closed());
        }
        // Refuses whoever connects from now on, and frees a port for others; systems that cannot do this to a listener do it when the last
        // handle is dropped.
        let _ = SockRef::from(self).shutdown(Shutdown::Both);
        self.signal(Direction::Read);
        Ok(())
    }

    /// Takes over what may be blocking.
    pub(crate) fn take_over(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
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
        let fd = descriptor.into_fd();
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
        _ => return error,
    };
    crate::time::sleep(PAUSE);
    // The kind of the other limits of this crate.
    io::Error::new(io::ErrorKind::OutOfMemory, LimitReached { limit, error })
}

/// Inside an `io::Error`, which has room for a text or for the system's code: the code is that of the source.
#[derive(Debug)]
struct LimitReached {
    limit: &'static str,
    error: io::Error,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is reached: {}", self.limit, self.error)
    }
}

impl Error for LimitReached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

/// Time limits for reading.
macro_rules! read_limits {
    ($type:ty) => {
        impl $type {
            /// How long one read may take. `None`: for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_read_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.descriptor.set_timeout($crate::net::descriptor::Direction::Read, timeout)
            }

            /// What [`set_read_timeout`](Self::set_read_timeout) has set.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.descriptor.read.timeout())
            }

            /// Until when reads may last, those that wait already too. `None`: for ever.
            ///
            /// # Errors
            ///
            /// None now; for an interface like that of the time-outs.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_read_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.descriptor.set_deadline($crate::net::descriptor::Direction::Read, deadline);
                Ok(())
            }

            /// Waits until there is something to read, or the end, without holding a buffer meanwhile.
            ///
            /// # Errors
            ///
            /// `TimedOut` by the time limits for reading.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn readable(&self) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Read,
                    $crate::runtime::wait::Reason::Read,
                    None,
                )
            }
        }
    };
}

/// Time limits for writing.
macro_rules! write_limits {
    ($type:ty) => {
        impl $type {
            /// How long one write may take. `None`: for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_write_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.descriptor.set_timeout($crate::net::descriptor::Direction::Write, timeout)
            }

            /// What [`set_write_timeout`](Self::set_write_timeout) has set.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.descriptor.write.timeout())
            }

            /// Until when writes may last, those that wait already too. `None`: for ever.
            ///
            /// # Errors
            ///
            /// None now; for an interface like that of the time-outs.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_write_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.descriptor.set_deadline($crate::net::descriptor::Direction::Write, deadline);
                Ok(())
            }

            /// Waits until there is room to write, or a write would fail.
            ///
            /// # Errors
            ///
            /// `TimedOut` by the time limits for writing.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn writable(&self) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Write,
                    $crate::runtime::wait::Reason::Write,
                    None,
                )
            }
        }
    };
}

/// `Read` for a byte stream and for references to it, through the method of its descriptor that is named.
macro_rules! reads {
    ($type:ty, $bytes:ident) => {
        impl std::io::Read for &$type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.descriptor.$bytes(None, buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.descriptor.read_slices(None, bufs)
            }
        }

        impl std::io::Read for $type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.descriptor.$bytes(None, buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.descriptor.read_slices(None, bufs)
            }
        }
    };
}

/// `Write` for a byte stream and for references to it, through the two methods of its descriptor that are named.
macro_rules! writes {
    ($type:ty, $bytes:ident, $slices:ident) => {
        impl std::io::Write for &$type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.descriptor.$bytes(None, buf))
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                self.descriptor.$bytes(None, buf).1
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.descriptor.$slices(None, bufs))
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for $type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.descriptor.$bytes(None, buf))
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                self.descriptor.$bytes(None, buf).1
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.descriptor.$slices(None, bufs))
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// `with_ctx` for a byte stream, and `Read` and `Write` for what it gives, through the methods of its descriptor that are named.
macro_rules! with_ctx {
    ($type:ident, $bytes:ident, $slices:ident) => {
        impl $type {
            /// This stream for reads and writes that end with `ctx`: each fails at once when it ends, also one that waits already.
            ///
            /// The connection is left as it is, and other reads and writes go on: only what was called through this ends. A read that ends so
            /// has taken nothing; a `write_all` may have written a part, as with a time limit. The stream's time limits hold as well.
            ///
            /// The error is that of the [context](crate::context::ContextError): of the kind `TimedOut` for a deadline, `Other` for a
            /// cancellation (`Interrupted` would have `read_exact` and `write_all` try again).
            ///
            /// # Examples
            ///
            /// See [`WithCtx`](crate::net::WithCtx).
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn with_ctx<'a>(&'a self, ctx: &'a $crate::context::Context) -> $crate::net::WithCtx<'a, Self> {
                $crate::net::WithCtx { stream: self, ctx }
            }
        }

        impl std::io::Read for $crate::net::WithCtx<'_, $type> {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.stream.descriptor.receive_bytes(Some(self.ctx), buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.stream.descriptor.read_slices(Some(self.ctx), bufs)
            }
        }

        impl std::io::Write for $crate::net::WithCtx<'_, $type> {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.stream.descriptor.$bytes(Some(self.ctx), buf))
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                self.stream.descriptor.$bytes(Some(self.ctx), buf).1
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::handle::how_much(self.stream.descriptor.$slices(Some(self.ctx), bufs))
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// A stream whose reads and writes end with a context: made by [`TcpStream::with_ctx`](crate::net::TcpStream::with_ctx),
/// [`UnixStream::with_ctx`](crate::net::unix::UnixStream::with_ctx) and [`PipeStream::with_ctx`](crate::net::PipeStream::with_ctx).
///
/// It borrows the stream and costs nothing to make; copies are the same.
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use oxigo::{context::Context, net::unix::UnixStream};
///
/// let (near, mut far) = UnixStream::pair()?;
/// let (ctx, cancel) = Context::background().with_cancel();
/// oxigo::go(move || cancel.cancel());
/// let mut heard = [0; 4];
/// let error = near.with_ctx(&ctx).read_exact(&mut heard).unwrap_err();
/// assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Other, "context canceled"));
///
/// // The connection is as it was.
/// far.write_all(b"ping")?;
/// (&near).read_exact(&mut heard)?;
/// assert_eq!(&heard, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct WithCtx<'a, S> {
    pub(crate) stream: &'a S,
    pub(crate) ctx: &'a Context,
}

impl<S> Clone for WithCtx<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for WithCtx<'_, S> {}

/// `AsFd`, `AsRawFd`, and `TryFrom` in both directions with the type of `std` that it stands in for and with `OwnedFd`.
macro_rules! descriptor_handle {
    ($type:ty, $std:ty) => {
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.descriptor.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsFd::as_fd(self).as_raw_fd()
            }
        }

        $crate::net::handle::conversions!($type, $std);
        $crate::net::handle::conversions!($type, std::os::fd::OwnedFd);
    };
}

macro_rules! conversions {
    ($type:ty, $system:ty) => {
        impl TryFrom<$system> for $type {
            type Error = std::io::Error;

            /// Takes it over and makes it non-blocking.
            ///
            /// Duplicates of it, such as those that `std`'s `try_clone` makes, become non-blocking with it. Time-outs that `std` has set do
            /// not hold here: set them again.
            ///
            /// # Errors
            ///
            /// When the system cannot make it non-blocking.
            ///
            /// # Blocking
            ///
            /// Never parks.
            fn try_from(system: $system) -> std::io::Result<Self> {
                let descriptor = $crate::net::descriptor::Descriptor::take_over(system.into())?;
                Ok(Self { descriptor: descriptor.into() })
            }
        }

        impl TryFrom<$type> for $system {
            type Error = std::io::Error;

            /// Gives it away and makes it blocking again.
            ///
            /// The time limits that were set here do not hold there; time-outs that `std` had set before do so again.
            ///
            /// # Errors
            ///
            /// `ResourceBusy` while there are other handles, made by `try_clone`: their calls would block their threads, and the goroutines
            /// that live there. Drop them first, or give up this one and convert the last. `std`'s type has a `try_clone` of its own.
            ///
            /// # Blocking
            ///
            /// Never parks.
            fn try_from(ours: $type) -> std::io::Result<Self> {
                Ok($crate::net::descriptor::Descriptor::release(ours.descriptor)?.into())
            }
        }
    };
}

/// `try_clone`, for handles that share their descriptor.
macro_rules! try_clone {
    ($type:ty) => {
        impl $type {
            /// Another handle of the same descriptor, with the same time limits.
            ///
            /// While there are several, none of them converts into the type of `std` or an `OwnedFd`.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                Ok(Self { descriptor: std::sync::Arc::clone(&self.descriptor) })
            }
        }
    };
}

/// `close`, for handles that share their descriptor.
macro_rules! close {
    ($type:ty) => {
        impl $type {
            /// Closes it, for all handles: whoever waits is woken with an error, and later calls fail at once.
            ///
            /// The system takes it back, and the peer of a pipe sees the end, when the last handle is dropped.
            ///
            /// # Errors
            ///
            /// `NotConnected` when it was closed before; that is also what operations on it give from now on.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn close(&self) -> std::io::Result<()> {
                self.descriptor.close()
            }
        }
    };
}

/// `take_error`, for sockets.
macro_rules! take_error {
    ($type:ty) => {
        impl $type {
            /// The error that is pending on the socket, which is cleared.
            ///
            /// # Errors
            ///
            /// When the system cannot tell.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                socket2::SockRef::from(self).take_error()
            }
        }
    };
}

/// `local_addr` and `peer_addr` of sockets through a function that converts the address.
macro_rules! addresses {
    (local $type:ty, $address:ty, $convert:path) => {
        impl $type {
            /// This end's address.
            ///
            /// # Errors
            ///
            /// When the system cannot tell.
            pub fn local_addr(&self) -> std::io::Result<$address> {
                $convert(Some(rustix::net::getsockname(self)?))
            }
        }
    };
    ($type:ty, $address:ty, $convert:path) => {
        addresses!(local $type, $address, $convert);

        impl $type {
            /// The other end's address.
            ///
            /// # Errors
            ///
            /// `NotConnected` when there is none.
            pub fn peer_addr(&self) -> std::io::Result<$address> {
                $convert(rustix::net::getpeername(self)?)
            }
        }
    };
}

/// `Debug` with the addresses of a socket.
macro_rules! debug_with_addresses {
    ($type:ident $(, $field:literal = $method:ident)*) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                $(
                    if let Ok(address) = self.$method() {
                        debug.field($field, &address);
                    }
                )*
                debug.field("fd", &std::os::fd::AsRawFd::as_raw_fd(self)).finish()
            }
        }
    };
}

pub(crate) use {
    addresses, close, conversions, debug_with_addresses, descriptor_handle, read_limits, reads, take_error, try_clone,
    with_ctx, write_limits, writes,
};
