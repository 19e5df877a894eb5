//! TCP: listeners and streams.

use std::{
    fmt,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    net::{Shutdown, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::net::{SendFlags, SocketFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{
    descriptor::{Descriptor, Direction},
    dial::{self, Race},
    resolve::{ToSocketAddrs, each_address},
};
use crate::runtime::{park, wait::Reason};

/// How many connections the kernel keeps for a listener that does not accept at once; it may keep fewer.
const BACKLOG: i32 = 4096;

/// A TCP server: accepts connections.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use oxigo::net::{TcpListener, TcpStream};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// oxigo::go(move || -> std::io::Result<()> {
///     let (mut connection, _) = listener.accept()?;
///     connection.write_all(b"welcome")
/// });
/// let mut text = String::new();
/// TcpStream::connect(address)?.read_to_string(&mut text)?;
/// assert_eq!(text, "welcome");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpListener {
    descriptor: Descriptor,
}

impl TcpListener {
    /// Listens on the first of the addresses that can be had.
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpListener::bind`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine while a name is looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each_address(addr.resolve()?, |address| {
            let socket = new_socket(address)?;
            // As std does: a restarted server gets its address back at once.
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(Self { descriptor: Descriptor::new(socket.into()) })
        })
    }

    /// Accepts a connection, waiting until there is one.
    ///
    /// The goroutine that is started next by the caller is taken to be the connection's handler and placed on the worker with the fewest
    /// connections.
    ///
    /// # Errors
    ///
    /// `NotConnected` with "listener closed" after [`close`](Self::close). When the table of descriptors is full, an error that names the
    /// limit, after a pause, so that a loop that just tries again neither spins nor ends.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let limit = self.descriptor.limit(Direction::Read);
        let accepted = self.descriptor.perform(Direction::Read, Reason::Accept, limit, |fd| {
            if self.descriptor.is_shut() {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "listener closed"));
            }
            loop {
                match rustix::net::acceptfrom_with(fd, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                    // The peer gave up before it was accepted; there may be others.
                    Err(rustix::io::Errno::CONNABORTED) => {}
                    Err(rustix::io::Errno::INVAL) if self.descriptor.is_shut() => {
                        return Err(io::Error::new(io::ErrorKind::NotConnected, "listener closed"));
                    }
                    result => return Ok(result?),
                }
            }
        });
        match accepted {
            Ok((fd, address)) => {
                park::accepted();
                let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                let stream = TcpStream::from_fd(fd);
                let address = match address {
                    Some(address) => address,
                    None => stream.peer_addr()?,
                };
                Ok((stream, address))
            }
            Err(error) => Err(back_off_when_full(error)),
        }
    }

    /// Accepts one connection after another.
    pub fn incoming(&self) -> Incoming<'_> {
        Incoming { listener: self }
    }

    /// The address that this listens on.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        address_of(SockRef::from(&self.descriptor).local_addr()?)
    }

    /// Stops listening. Every goroutine that waits in [`accept`](Self::accept) is woken with an error, and later calls fail at once.
    ///
    /// # Errors
    ///
    /// `NotConnected` when it was closed before.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn close(&self) -> io::Result<()> {
        if self.descriptor.is_shut() {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "listener closed"));
        }
        self.descriptor.shut();
        // Frees the address for others; systems that cannot do this to a listener free it when the last handle is dropped.
        let _ = SockRef::from(&self.descriptor).shutdown(Shutdown::Both);
        self.descriptor.signal(Direction::Read);
        Ok(())
    }

    /// Until when `accept` may wait; acts on calls that wait already. `None`: for ever.
    pub fn set_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_deadline(Direction::Read, deadline);
    }

    /// The time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn ttl(&self) -> io::Result<u32> {
        SockRef::from(&self.descriptor).ttl_v4()
    }

    /// Sets the time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        SockRef::from(&self.descriptor).set_ttl_v4(ttl)
    }

    /// The error that is pending on the socket, which is cleared.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        SockRef::from(&self.descriptor).take_error()
    }
}

/// A full table of descriptors is no reason to end or to spin: waits a little, and says which limit it is.
fn back_off_when_full(error: io::Error) -> io::Error {
    const PAUSE: Duration = Duration::from_millis(10);
    let limit = match error.raw_os_error() {
        Some(code) if code == libc::EMFILE => "this process's limit of descriptors (ulimit -n)",
        Some(code) if code == libc::ENFILE => "the system's limit of descriptors (fs.file-max)",
        Some(code) if code == libc::ENOBUFS || code == libc::ENOMEM => "the system's memory for sockets",
        _ => return error,
    };
    crate::time::sleep(PAUSE);
    io::Error::new(error.kind(), format!("{limit} is reached: {error}"))
}

fn new_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    Ok(socket)
}

fn address_of(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an internet address"))
}

/// Accepts one connection after another. Made by [`TcpListener::incoming`].
#[derive(Debug)]
pub struct Incoming<'a> {
    listener: &'a TcpListener,
}

impl Iterator for Incoming<'_> {
    type Item = io::Result<TcpStream>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.listener.accept().map(|(stream, _)| stream))
    }
}

/// A TCP connection.
///
/// Clones made by [`try_clone`](Self::try_clone) are handles of one connection and share its time limits.
pub struct TcpStream {
    descriptor: Arc<Descriptor>,
}

impl TcpStream {
    fn from_fd(fd: OwnedFd) -> Self {
        Self { descriptor: Arc::new(Descriptor::new(fd)) }
    }

    /// Connects to the first of the addresses that answers.
    ///
    /// Several addresses are tried in turn between the families, each a quarter of a second after the last one or as soon as that has
    /// failed, and the first connection wins (RFC 8305, "happy eyeballs").
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpStream::connect`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        let stream =
            dial::race(addr.resolve()?, dial::DELAY, |address, race| Self::connect_until(address, None, Some(race)))?;
        // The end of the race has set it for all who took part.
        stream.set_write_deadline(None);
        Ok(stream)
    }

    /// Connects to `addr`, in `timeout` at most.
    ///
    /// # Errors
    ///
    /// `TimedOut` when the time has passed; `InvalidInput` for a time-out of zero; otherwise as [`connect`](Self::connect).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn connect_timeout(addr: &SocketAddr, timeout: Duration) -> io::Result<Self> {
        if timeout.is_zero() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a time-out of zero cannot be kept"));
        }
        Self::connect_until(*addr, Instant::now().checked_add(timeout), None)
    }

    fn connect_until(address: SocketAddr, deadline: Option<Instant>, race: Option<&Race>) -> io::Result<Self> {
        let socket = new_socket(address)?;
        match socket.connect(&address.into()) {
            Ok(()) => return Ok(Self::from_fd(socket.into())),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            // Goes on in the background, as after EINPROGRESS.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        let stream = Self::from_fd(socket.into());
        stream.set_write_deadline(deadline);
        if let Some(race) = race {
            race.enter(&stream.descriptor);
        }
        stream.descriptor.wait_ready(Direction::Write, Reason::Connect)?;
        stream.set_write_deadline(None);
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// The other end's address.
    ///
    /// # Errors
    ///
    /// When the connection is gone.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        address_of(self.socket().peer_addr()?)
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        address_of(self.socket().local_addr()?)
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&*self.descriptor)
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
        let result = self.socket().shutdown(how);
        if how != Shutdown::Write {
            self.descriptor.shut();
        }
        if how != Shutdown::Read {
            self.descriptor.signal(Direction::Write);
        }
        result
    }

    /// Another handle of the same connection.
    ///
    /// # Errors
    ///
    /// None now; for the interface of `std`.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { descriptor: Arc::clone(&self.descriptor) })
    }

    /// How long one read may take. `None`: for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.descriptor.set_timeout(Direction::Read, timeout)
    }

    /// How long one write may take. `None`: for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.descriptor.set_timeout(Direction::Write, timeout)
    }

    /// What [`set_read_timeout`](Self::set_read_timeout) has set.
    ///
    /// # Errors
    ///
    /// None now; for the interface of `std`.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.descriptor.read.timeout())
    }

    /// What [`set_write_timeout`](Self::set_write_timeout) has set.
    ///
    /// # Errors
    ///
    /// None now; for the interface of `std`.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.descriptor.write.timeout())
    }

    /// Until when reads may last, those that wait already too. `None`: for ever.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_deadline(Direction::Read, deadline);
    }

    /// Until when writes may last, those that wait already too. `None`: for ever.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) {
        self.descriptor.set_deadline(Direction::Write, deadline);
    }

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket().set_tcp_nodelay(nodelay)
    }

    /// What [`set_nodelay`](Self::set_nodelay) has set.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket().tcp_nodelay()
    }

    /// The time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket().ttl_v4()
    }

    /// Sets the time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket().set_ttl_v4(ttl)
    }

    /// The error that is pending on the socket, which is cleared.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket().take_error()
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
        self.read_with(buf.is_empty(), |fd| Ok(rustix::net::recv(fd, &mut *buf, rustix::net::RecvFlags::PEEK)?.0))
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
    pub fn readable(&self) -> io::Result<()> {
        self.descriptor.wait_ready(Direction::Read, Reason::Read)
    }

    /// Waits until there is room to write, or the connection has failed.
    ///
    /// # Errors
    ///
    /// `TimedOut` by the time limits for writing.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn writable(&self) -> io::Result<()> {
        self.descriptor.wait_ready(Direction::Write, Reason::Write)
    }

    #[inline]
    fn read_with(&self, empty: bool, mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<usize>) -> io::Result<usize> {
        if empty {
            return Ok(0);
        }
        let limit = self.descriptor.limit(Direction::Read);
        self.descriptor.perform(Direction::Read, Reason::Read, limit, |fd| {
            if self.descriptor.is_shut() {
                return Ok(0);
            }
            read(fd)
        })
    }

    /// Writes all that `write` has to write, in one turn; it is told how much has been written.
    fn write_with(
        &self,
        total: usize,
        mut write: impl FnMut(BorrowedFd<'_>, usize) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let limit = self.descriptor.limit(Direction::Write);
        let _turn = self.descriptor.writers.take(Reason::Write, || limit.check())?;
        let mut written = 0;
        while written < total {
            let result = self.descriptor.perform(Direction::Write, Reason::Write, limit, |fd| write(fd, written));
            match result {
                Ok(0) => break,
                Ok(n) => written += n,
                // What has been written is told first; the error comes again.
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }
}

impl Read for &TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_with(buf.is_empty(), |fd| Ok(rustix::io::read(fd, &mut *buf)?))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let empty = bufs.iter().all(|buf| buf.is_empty());
        self.read_with(empty, |fd| Ok(rustix::io::readv(fd, bufs)?))
    }
}

impl Write for &TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_with(buf.len(), |fd, written| Ok(rustix::net::send(fd, &buf[written..], SendFlags::NOSIGNAL)?))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        self.write_with(total, |fd, mut written| {
            // Skip what has been written, then send the rest of one buffer, or all the buffers that are left whole.
            let mut rest = bufs;
            while let Some(first) = rest.first().filter(|first| written >= first.len()) {
                written -= first.len();
                rest = &rest[1..];
            }
            if written > 0 {
                return Ok(rustix::net::send(fd, &rest[0][written..], SendFlags::NOSIGNAL)?);
            }
            let mut control = rustix::net::SendAncillaryBuffer::default();
            let rest = &rest[..rest.len().min(1024)];
            Ok(rustix::net::sendmsg(fd, rest, &mut control, SendFlags::NOSIGNAL)?)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for TcpStream {
    #[inline]
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }
}

impl Write for TcpStream {
    #[inline]
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpStream");
        if let Ok(address) = self.local_addr() {
            debug.field("addr", &address);
        }
        if let Ok(address) = self.peer_addr() {
            debug.field("peer", &address);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("TcpListener");
        if let Ok(address) = self.local_addr() {
            debug.field("addr", &address);
        }
        debug.field("fd", &self.as_raw_fd()).finish()
    }
}

impl AsFd for TcpStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for TcpStream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for TcpListener {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl TryFrom<std::net::TcpStream> for TcpStream {
    type Error = io::Error;

    /// Takes over a connection of `std`'s and makes it non-blocking.
    fn try_from(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::from_fd(stream.into()))
    }
}

impl TryFrom<TcpStream> for std::net::TcpStream {
    type Error = io::Error;

    /// Gives a connection to `std` and makes it blocking again; other handles of it must not be used any more.
    fn try_from(stream: TcpStream) -> io::Result<Self> {
        let fd = match Arc::try_unwrap(stream.descriptor) {
            Ok(descriptor) => descriptor.into_fd()?,
            Err(shared) => shared.as_fd().try_clone_to_owned()?,
        };
        let stream = Self::from(fd);
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

impl TryFrom<std::net::TcpListener> for TcpListener {
    type Error = io::Error;

    /// Takes over a listener of `std`'s and makes it non-blocking.
    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { descriptor: Descriptor::new(listener.into()) })
    }
}

impl TryFrom<TcpListener> for std::net::TcpListener {
    type Error = io::Error;

    /// Gives a listener to `std` and makes it blocking again.
    fn try_from(listener: TcpListener) -> io::Result<Self> {
        let listener = Self::from(listener.descriptor.into_fd()?);
        listener.set_nonblocking(false)?;
        Ok(listener)
    }
}
