//! Sockets with names in the file system: the interface of `std::os::unix::net`, with deadlines.
//!
//! Addresses are `std`'s own, so that abstract names work through [`std::os::linux::net::SocketAddrExt`]. A peer whose path takes all 108 bytes
//! that the kernel has for it, without a zero byte at its end, appears without a name.

use std::{
    ffi::OsStr,
    io,
    net::Shutdown,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, net as std_unix},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{RecvFlags, SocketAddrAny, SocketAddrUnix, bind, connect, listen, recv, recvfrom, send, sendto},
};
use socket2::{Domain, Type};

use super::{
    descriptor::{Descriptor, Direction, Limit},
    methods::{
        addresses, close, deadline, debug_with_addresses, descriptor_handle, listens, read_limits, reads, take_error,
        try_clone, with_ctx, write_limits, writes,
    },
    system,
};
use crate::{
    context::Context,
    runtime::{park, present, wait::Reason},
};

#[doc(no_inline)]
pub use std::os::unix::net::SocketAddr;

/// How many connections the kernel keeps for a listener that does not accept at once; it may keep fewer.
const BACKLOG: i32 = 4096;
/// The first and the longest pause before a full peer is asked again. The kernel tells nobody when there is room.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

fn to_system(address: &SocketAddr) -> io::Result<SocketAddrUnix> {
    if let Some(path) = address.as_pathname() {
        return path_to_system(path);
    }
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
        return Ok(SocketAddrUnix::new_abstract_name(name)?);
    }
    #[cfg(target_os = "linux")]
    return Ok(SocketAddrUnix::new_unnamed());
    #[cfg(not(target_os = "linux"))]
    Err(io::Error::new(io::ErrorKind::InvalidInput, "an address without a name leads nowhere"))
}

fn path_to_system(path: &Path) -> io::Result<SocketAddrUnix> {
    // Instead of making an unnamed address of it.
    if path.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket's path is not empty"));
    }
    // What std refuses, with its error: zero bytes, and what leaves no room for one behind it.
    SocketAddr::from_pathname(path)?;
    Ok(SocketAddrUnix::new(path)?)
}

fn unnamed() -> SocketAddr {
    SocketAddr::from_pathname("").expect("an empty path stands for no name")
}

/// An error says that it is not of this family.
fn from_system(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    let Some(address) = address else { return Ok(unnamed()) };
    // A name for which there was no room with a zero byte behind it, which the kernel counts nevertheless: rustix would look for it, and
    // nothing of std's makes an address of such a name.
    if address.addr_len() as usize > size_of::<libc::sockaddr_un>() {
        return Ok(unnamed());
    }
    let address = SocketAddrUnix::try_from(address)?;
    if let Some(path) = address.path_bytes() {
        // rustix leaves the zero byte where the path and it fill the room.
        let path = path.strip_suffix(&[0]).unwrap_or(path);
        return SocketAddr::from_pathname(OsStr::from_bytes(path));
    }
    #[cfg(target_os = "linux")]
    // rustix reads an unnamed address as an abstract one with an empty name.
    if let Some(name) = address.abstract_name().filter(|name| !name.is_empty()) {
        return <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name);
    }
    Ok(unnamed())
}

/// Who has connected or sent something, which is not lost where that cannot be told.
fn peer_from_system(address: Option<SocketAddrAny>) -> SocketAddr {
    from_system(address).unwrap_or_else(|_| unnamed())
}

fn new_socket(kind: Type) -> io::Result<OwnedFd> {
    Ok(system::socket(Domain::UNIX, kind, None)?.into())
}

fn new_pair(kind: Type) -> io::Result<(Descriptor, Descriptor)> {
    let (one, other) = system::socket_pair(kind)?;
    Ok((Descriptor::new(one.into()), Descriptor::new(other.into())))
}

/// Does `operation` as often as its peer has no room for it, since no event says when it has.
fn until_peer_has_room<R>(limit: Limit<'_>, mut operation: impl FnMut() -> Result<R, Errno>) -> io::Result<R> {
    let mut pause = FIRST_PAUSE;
    loop {
        let deadline = limit.check()?;
        match operation() {
            Err(error) if system::is_peer_full(error) => {}
            Err(Errno::INTR) => continue,
            result => {
                park::spend_call();
                return Ok(result?);
            }
        }
        let next = present::now() + pause;
        let next = deadline.map_or(next, |deadline| deadline.min(next));
        match limit.ctx {
            None => crate::time::sleep_until(next),
            Some(ctx) => ctx.sleep(next.saturating_duration_since(present::now()))?,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A server of connections on a path.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use oxigo::net::unix::{UnixListener, UnixStream};
///
/// let path = std::env::temp_dir().join(format!("oxigo-doc-{}", std::process::id()));
/// # let _ = std::fs::remove_file(&path);
/// let listener = UnixListener::bind(&path)?;
/// oxigo::go(move || -> std::io::Result<()> {
///     let (mut connection, _) = listener.accept()?;
///     connection.write_all(b"welcome")
/// });
/// let mut text = String::new();
/// UnixStream::connect(&path)?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixListener {
    descriptor: Arc<Descriptor>,
}

impl UnixListener {
    /// Listens on `path`, which must not exist.
    ///
    /// # Errors
    ///
    /// As [`std::os::unix::net::UnixListener::bind`].
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn bind<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::bind_system(&path_to_system(path.as_ref())?)
    }

    /// Listens on an address, which may be an abstract one.
    ///
    /// # Errors
    ///
    /// As [`bind`](Self::bind).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn bind_addr(address: &SocketAddr) -> io::Result<Self> {
        Self::bind_system(&to_system(address)?)
    }

    fn bind_system(address: &SocketAddrUnix) -> io::Result<Self> {
        let fd = new_socket(Type::STREAM)?;
        bind(&fd, address)?;
        listen(&fd, BACKLOG)?;
        Ok(Self { descriptor: Arc::new(Descriptor::new(fd)) })
    }

    /// Accepts a connection, waiting until there is one. See [`TcpListener::accept`](crate::net::TcpListener::accept).
    ///
    /// # Errors
    ///
    /// `NotConnected` with "listener closed" after [`close`](Self::close); `OutOfMemory` when the table of descriptors is full, after a pause,
    /// with the system's own error as its source, as [`TcpListener::accept`](crate::net::TcpListener::accept) has it.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn accept(&self) -> io::Result<(UnixStream, SocketAddr)> {
        self.accept_within(None)
    }

    /// Like [`accept`](Self::accept), but gives up when `ctx` ends. See [`TcpListener::accept_ctx`](crate::net::TcpListener::accept_ctx).
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `accept`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn accept_ctx(&self, ctx: &Context) -> io::Result<(UnixStream, SocketAddr)> {
        self.accept_within(Some(ctx))
    }

    fn accept_within(&self, ctx: Option<&Context>) -> io::Result<(UnixStream, SocketAddr)> {
        let (fd, address) = self.descriptor.accept(ctx)?;
        Ok((UnixStream { descriptor: Arc::new(Descriptor::new(fd)) }, peer_from_system(address)))
    }
}

listens!(UnixListener, UnixStream, "The path stays; an abstract name is free.");
addresses!(local UnixListener, SocketAddr, from_system);
take_error!(UnixListener);
debug_with_addresses!(UnixListener, "addr" = local_addr);
try_clone!(UnixListener);
descriptor_handle!(UnixListener, std_unix::UnixListener);

impl<'a> IntoIterator for &'a UnixListener {
    type Item = io::Result<UnixStream>;
    type IntoIter = Incoming<'a>;

    fn into_iter(self) -> Incoming<'a> {
        self.incoming()
    }
}

/// A connection within this machine.
///
/// Clones made by [`try_clone`](Self::try_clone) are handles of one connection and share its time limits.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use oxigo::net::unix::UnixStream;
///
/// let (mut near, mut far) = UnixStream::pair()?;
/// near.write_all(b"ping")?;
/// let mut heard = [0; 4];
/// far.read_exact(&mut heard)?;
/// assert_eq!(&heard, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UnixStream {
    pub(crate) descriptor: Arc<Descriptor>,
}

impl UnixStream {
    /// Connects to the listener at `path`.
    ///
    /// # Errors
    ///
    /// As [`std::os::unix::net::UnixStream::connect`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while the listener's queue is full. Systems other than Linux refuse the connection then.
    pub fn connect<P: AsRef<Path>>(path: P) -> io::Result<Self> {
        Self::connect_system(&path_to_system(path.as_ref())?, None)
    }

    /// Like [`connect`](Self::connect), but gives up when `ctx` ends. See [`TcpStream::connect_ctx`](crate::net::TcpStream::connect_ctx).
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `connect`.
    ///
    /// # Blocking
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_ctx<P: AsRef<Path>>(path: P, ctx: &Context) -> io::Result<Self> {
        Self::connect_system(&path_to_system(path.as_ref())?, Some(ctx))
    }

    /// Connects to a listener's address, which may be an abstract one.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Blocking
    ///
    /// As [`connect`](Self::connect).
    pub fn connect_addr(address: &SocketAddr) -> io::Result<Self> {
        Self::connect_system(&to_system(address)?, None)
    }

    fn connect_system(address: &SocketAddrUnix, ctx: Option<&Context>) -> io::Result<Self> {
        let socket = new_socket(Type::STREAM).inspect_err(|_| park::spend_call())?;
        let stream = Self { descriptor: Arc::new(Descriptor::new(socket)) };
        let limit = stream.descriptor.limit(Direction::Write, ctx);
        match until_peer_has_room(limit, || connect(&stream, address)) {
            // Linux connects at once or not at all; elsewhere the rest is waited for.
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                stream.descriptor.wait_ready(Direction::Write, Reason::Connect, ctx)?;
                match stream.take_error()? {
                    Some(error) => Err(error),
                    None => Ok(stream),
                }
            }
            result => result.map(|()| stream),
        }
    }

    /// Two streams that are connected to each other.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::net::unix::UnixStream;
    /// use std::io::{Read, Write};
    ///
    /// let (a, b) = UnixStream::pair()?;
    /// (&a).write_all(b"ping")?;
    /// let mut buffer = [0; 4];
    /// (&b).read_exact(&mut buffer)?;
    /// assert_eq!(&buffer, b"ping");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When the table of descriptors is full.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = new_pair(Type::STREAM)?;
        Ok((Self { descriptor: Arc::new(one) }, Self { descriptor: Arc::new(other) }))
    }

    /// Shuts down reading, writing or both, for all handles. Wakes whoever waits.
    ///
    /// After `Read`, reads give `Ok(0)`; after `Write`, writes give `BrokenPipe` and the peer reads to the end.
    ///
    /// # Errors
    ///
    /// `NotConnected` when the connection is gone.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.descriptor.shutdown(how)
    }

    /// Reads without taking the data out.
    ///
    /// # Errors
    ///
    /// As a read.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.look(buf, None)
    }

    /// Like [`peek`](Self::peek), but gives up when `ctx` ends.
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `peek`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn peek_ctx(&self, buf: &mut [u8], ctx: &Context) -> io::Result<usize> {
        self.look(buf, Some(ctx))
    }

    fn look(&self, buf: &mut [u8], ctx: Option<&Context>) -> io::Result<usize> {
        self.descriptor.read_with(ctx, buf.is_empty(), |fd| Ok(recv(fd, &mut *buf, RecvFlags::PEEK)?.0))
    }
}

addresses!(UnixStream, SocketAddr, from_system);
take_error!(UnixStream);
try_clone!(UnixStream);
read_limits!(UnixStream);
write_limits!(UnixStream);
deadline!(UnixStream);
reads!(UnixStream, receive_bytes);
writes!(UnixStream, send_bytes, send_slices);
with_ctx!(UnixStream);
debug_with_addresses!(UnixStream, "addr" = local_addr, "peer" = peer_addr);
descriptor_handle!(UnixStream, std_unix::UnixStream);

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
