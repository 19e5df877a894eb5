//! `UnixDatagram`.

use std::{
    io,
    net::Shutdown,
    os::{fd::BorrowedFd, unix::net as std_unix},
    path::Path,
    sync::Arc,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SocketAddrUnix, bind, connect, recv, recvfrom, send, sendto},
};
use socket2::Type;

use super::{
    SocketAddr,
    address::{from_system, path_to_system, peer_from_system, to_system},
    new_pair, new_socket, until_peer_has_room,
};
use crate::{
    context::Context,
    net::{
        descriptor::{Descriptor, Direction, Limit},
        methods::{
            addresses, close, deadline, debug_with_addresses, descriptor_handle, read_limits, take_error, try_clone,
            write_limits,
        },
        system,
    },
    runtime::wait::Reason,
};

/// A socket for messages within this machine, which are neither lost nor joined.
///
/// # Examples
///
/// ```
/// use oxigo::net::unix::UnixDatagram;
///
/// let (near, far) = UnixDatagram::pair()?;
/// near.send(b"one")?;
/// near.send(b"two")?;
/// let mut message = [0; 16];
/// assert_eq!(far.recv(&mut message)?, 3);
/// assert_eq!(&message[..3], b"one");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixDatagram {
    pub(crate) descriptor: Arc<Descriptor>,
}

impl UnixDatagram {
    /// A socket at `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// As [`std::os::unix::net::UnixDatagram::bind`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::unbound()?.bound_to(&path_to_system(path.as_ref())?)
    }

    /// A socket with an address, which may be an abstract one.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<Self> {
        Self::unbound()?.bound_to(&to_system(address)?)
    }

    fn bound_to(self, address: &SocketAddrUnix) -> io::Result<Self> {
        bind(&self, address)?;
        Ok(self)
    }

    /// A socket without an address.
    ///
    /// # Errors
    ///
    /// When the table of descriptors is full.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn unbound() -> io::Result<Self> {
        Ok(Self { descriptor: Arc::new(Descriptor::new(new_socket(Type::DGRAM)?)) })
    }

    /// Two sockets that are connected to each other.
    ///
    /// # Errors
    ///
    /// When the table of descriptors is full.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = new_pair(Type::DGRAM)?;
        Ok((Self { descriptor: Arc::new(one) }, Self { descriptor: Arc::new(other) }))
    }

    /// Sets the peer of [`send`](Self::send) and [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// When nobody is at `path`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn connect<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        self.descriptor.told(connect(self, &path_to_system(path.as_ref())?))
    }

    /// Like [`connect`](Self::connect), but takes an address in place of a path.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn connect_addr(&self, address: &SocketAddr) -> io::Result<()> {
        self.descriptor.told(connect(self, &to_system(address)?))
    }

    /// Receives a message; returns its length and its sender. What does not fit into `buf` is lost.
    ///
    /// # Errors
    ///
    /// `TimedOut` by the time limits for reading; otherwise as the system says.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, None)
    }

    /// Like [`recv_from`](Self::recv_from), but gives up when `ctx` ends.
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `recv_from`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_from_ctx(&self, buf: &mut [u8], ctx: &Context) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, Some(ctx))
    }

    fn receive_from(&self, buf: &mut [u8], ctx: Option<&Context>) -> io::Result<(usize, SocketAddr)> {
        let limit = self.descriptor.limit(Direction::Read, ctx);
        let (length, from) = self.take(limit, (0, None), |fd| {
            let (length, _, from) = recvfrom(fd, &mut *buf, RecvFlags::empty())?;
            Ok((length, from))
        })?;
        Ok((length, peer_from_system(from)))
    }

    /// Receives a message, and returns its length. What does not fit into `buf` is lost.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, None)
    }

    /// Like [`recv`](Self::recv), but gives up when `ctx` ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, net::unix::UnixDatagram};
    ///
    /// let (near, far) = UnixDatagram::pair()?;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(near.recv_ctx(&mut [0; 16], &ctx).unwrap_err().to_string(), "context canceled");
    /// far.send(b"late")?;
    /// assert_eq!(near.recv_ctx(&mut [0; 16], &Context::background())?, 4);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `recv`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_ctx(&self, buf: &mut [u8], ctx: &Context) -> io::Result<usize> {
        self.receive(buf, Some(ctx))
    }

    fn receive(&self, buf: &mut [u8], ctx: Option<&Context>) -> io::Result<usize> {
        let limit = self.descriptor.limit(Direction::Read, ctx);
        self.take(limit, 0, |fd| Ok(recv(fd, &mut *buf, RecvFlags::empty())?.0))
    }

    /// Takes a message as soon as there is one; `end` when there is none and receiving has been shut down. The system tells that to calls that
    /// block only.
    fn take<R>(
        &self,
        limit: Limit<'_>,
        end: R,
        mut receive: impl FnMut(BorrowedFd<'_>) -> Result<R, Errno>,
    ) -> io::Result<R> {
        let mut end = Some(end);
        self.descriptor.perform(Direction::Read, Reason::Read, limit, |fd| {
            // Asked before the last look: what was sent until then is received.
            let is_shut = self.descriptor.is_shut();
            match receive(fd) {
                Err(Errno::AGAIN) if is_shut => Ok(end.take().expect("given once")),
                result => Ok(result?),
            }
        })
    }

    /// Sends a message to the socket at `path`.
    ///
    /// # Errors
    ///
    /// `TimedOut` by the time limits for writing; otherwise as the system says.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while that socket's queue is full.
    pub fn send_to<P: AsRef<Path>>(&self, buf: &[u8], path: P) -> io::Result<usize> {
        self.send_to_system(buf, &path_to_system(path.as_ref())?, None)
    }

    /// Like [`send_to`](Self::send_to), but gives up when `ctx` ends.
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `send_to`.
    ///
    /// # Blocking
    ///
    /// As [`send_to`](Self::send_to).
    pub fn send_to_ctx<P: AsRef<Path>>(&self, buf: &[u8], path: P, ctx: &Context) -> io::Result<usize> {
        self.send_to_system(buf, &path_to_system(path.as_ref())?, Some(ctx))
    }

    /// Like [`send_to`](Self::send_to), but takes an address in place of a path.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to).
    ///
    /// # Blocking
    ///
    /// As [`send_to`](Self::send_to).
    pub fn send_to_addr(&self, buf: &[u8], address: &SocketAddr) -> io::Result<usize> {
        self.send_to_system(buf, &to_system(address)?, None)
    }

    /// Like [`send_to_addr`](Self::send_to_addr), but gives up when `ctx` ends.
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `send_to_addr`.
    ///
    /// # Blocking
    ///
    /// As [`send_to`](Self::send_to).
    pub fn send_to_addr_ctx(&self, buf: &[u8], address: &SocketAddr, ctx: &Context) -> io::Result<usize> {
        self.send_to_system(buf, &to_system(address)?, Some(ctx))
    }

    fn send_to_system(&self, buf: &[u8], address: &SocketAddrUnix, ctx: Option<&Context>) -> io::Result<usize> {
        // Linux wakes senders to a full queue only when they are connected to it.
        let limit = self.descriptor.limit(Direction::Write, ctx);
        self.descriptor.told(until_peer_has_room(limit, || sendto(self, buf, system::SEND, address)))
    }

    /// Sends a message to the peer that [`connect`](Self::connect) has set.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to); `NotConnected` without a peer.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while the peer's queue is full.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.send_within(buf, None)
    }

    /// Like [`send`](Self::send), but gives up when `ctx` ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, net::unix::UnixDatagram};
    /// use std::time::Duration;
    ///
    /// let (near, _far) = UnixDatagram::pair()?;
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(5));
    /// // Nobody receives, so the queue is full some time.
    /// let error = loop {
    ///     if let Err(error) = near.send_ctx(&[0; 1000], &ctx) {
    ///         break error;
    ///     }
    /// };
    /// assert_eq!(error.to_string(), "context deadline exceeded");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `send`.
    ///
    /// # Blocking
    ///
    /// As [`send`](Self::send).
    pub fn send_ctx(&self, buf: &[u8], ctx: &Context) -> io::Result<usize> {
        self.send_within(buf, Some(ctx))
    }

    fn send_within(&self, buf: &[u8], ctx: Option<&Context>) -> io::Result<usize> {
        let limit = self.descriptor.limit(Direction::Write, ctx);
        if !system::TELLS_OF_ROOM {
            return self.descriptor.told(until_peer_has_room(limit, || send(self, buf, system::SEND)));
        }
        self.descriptor.perform(Direction::Write, Reason::Write, limit, |fd| Ok(send(fd, buf, system::SEND)?))
    }

    /// Shuts down receiving, sending or both, for all handles. Wakes whoever waits.
    ///
    /// After `Read`, what has been sent before is still received; then `recv` and `recv_from` give a length of 0, the latter without a name.
    /// After `Write`, sends give `BrokenPipe`.
    ///
    /// # Errors
    ///
    /// As the system says.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.descriptor.shutdown(how)
    }
}

addresses!(UnixDatagram, SocketAddr, from_system);
take_error!(UnixDatagram);
try_clone!(UnixDatagram);
close!(
    UnixDatagram,
    "Those who send to it get `ConnectionRefused`. Its file, if it has one, stays; an abstract name is free. It is the socket that stops: so do \
     duplicates of its descriptor, in other processes too. (A drop of the last handle leaves them as they are.)"
);
read_limits!(UnixDatagram);
write_limits!(UnixDatagram);
deadline!(UnixDatagram);
debug_with_addresses!(UnixDatagram, "addr" = local_addr, "peer" = peer_addr);
descriptor_handle!(UnixDatagram, std_unix::UnixDatagram);
