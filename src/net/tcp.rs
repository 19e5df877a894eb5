//! TCP: listeners and streams.

use std::{
    io,
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::net::SocketAddrAny;
use socket2::{Domain, Protocol, SockRef, Type};

use super::{
    descriptor::{Descriptor, Direction},
    dial::{self, Race},
    listen_options::ListenOptions,
    lookup::Patience,
    methods::{
        addresses, deadline, debug_with_addresses, descriptor_handle, listens, peeks, read_limits, reads, take_error,
        try_clone, with_ctx, write_limits, writes,
    },
    resolve::ToSocketAddrs,
    system,
};
use crate::{
    context::Context,
    runtime::{park, present, wait::Reason},
};

/// The address in `std`'s form.
pub(crate) fn from_system(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    SocketAddr::try_from(address).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not an internet address"))
}

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
    descriptor: Arc<Descriptor>,
}

impl TcpListener {
    /// Listens on the first of the addresses that is available.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::net::TcpListener;
    ///
    /// // Port 0: the system chooses one.
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// println!("listening on {}", listener.local_addr()?);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpListener::bind`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine while a name is looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        ListenOptions::new().bind(addr)
    }

    /// Accepts a connection, waiting until there is one.
    ///
    /// The goroutine that is started next by the caller is taken to be the connection's handler and placed on the worker with the fewest
    /// connections.
    ///
    /// # Errors
    ///
    /// `NotConnected` with "listener closed" after [`close`](Self::close). When the table of descriptors is full, or the system's memory for sockets
    /// is used up, `OutOfMemory` with a text that names the limit. It comes after a pause, so that a loop that just tries again neither spins nor
    /// ends. The [source](std::error::Error::source) of that error is the system's own: an `io::Error` with its code, such as `EMFILE`:
    ///
    /// ```
    /// # fn example(error: &std::io::Error) -> Option<i32> {
    /// use std::{error::Error, io};
    ///
    /// let code = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.raw_os_error());
    /// # code
    /// # }
    /// # assert_eq!(example(&std::io::Error::other("no source")), None);
    /// ```
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_within(None)
    }

    /// Like [`accept`](Self::accept), but gives up when `ctx` ends. If the context has ended already, a connection that waits is left to the next
    /// call.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, net::TcpListener};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let (ctx, cancel) = Context::background().with_cancel();
    /// oxigo::go(move || cancel.cancel());
    /// assert_eq!(listener.accept_ctx(&ctx).unwrap_err().to_string(), "context canceled");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `accept`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn accept_ctx(&self, ctx: &Context) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept_within(Some(ctx))
    }

    fn accept_within(&self, ctx: Option<&Context>) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let (fd, address) = self.descriptor.accept(ctx)?;
            let stream = TcpStream { descriptor: Arc::new(Descriptor::tcp(fd)) };
            match from_system(address).or_else(|_| stream.peer_addr()) {
                Ok(address) => return Ok((stream, address)),
                // What Linux calls `ECONNABORTED`, Apple's systems give out as a connection without a peer. There may be others.
                Err(error)
                    if cfg!(target_vendor = "apple")
                        && matches!(error.kind(), io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn ttl(&self) -> io::Result<u32> {
        self.descriptor.option(|socket| socket.ttl_v4())
    }

    /// Sets the time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.descriptor.option(|socket| socket.set_ttl_v4(ttl))
    }
}

listens!(TcpListener, TcpStream, "");
addresses!(local TcpListener, SocketAddr, from_system);
take_error!(TcpListener);
debug_with_addresses!(TcpListener, "addr" = local_addr);
try_clone!(TcpListener);
descriptor_handle!(TcpListener, std::net::TcpListener);

/// A TCP connection.
///
/// Clones made by [`try_clone`](Self::try_clone) are handles of one connection and share its time limits.
///
/// # Examples
///
/// ```
/// use oxigo::{go, net::{Shutdown, TcpListener, TcpStream}};
/// use std::io::{Read, Write};
/// use std::time::Duration;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let address = listener.local_addr()?;
/// let server = go(move || {
///     let (mut stream, _peer) = listener.accept()?;
///     let mut request = String::new();
///     stream.read_to_string(&mut request)?;
///     stream.write_all(request.to_uppercase().as_bytes())
/// });
///
/// let mut stream = TcpStream::connect(address)?;
/// stream.set_read_timeout(Some(Duration::from_secs(60)))?;
/// stream.write_all(b"hello")?;
/// stream.shutdown(Shutdown::Write)?;
/// let mut reply = String::new();
/// stream.read_to_string(&mut reply)?;
/// assert_eq!(reply, "HELLO");
/// server.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct TcpStream {
    pub(crate) descriptor: Arc<Descriptor>,
}

impl TcpStream {
    /// Connects to the first of the addresses that answers.
    ///
    /// Several addresses are tried one after the other, alternating between IPv6 and IPv4, each a quarter of a second after the one before or as soon
    /// as that has failed. The first connection wins (RFC 8305, "happy eyeballs").
    ///
    /// # Errors
    ///
    /// As [`std::net::TcpStream::connect`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn connect<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        Self::connect_first(addr.resolve()?, None)
    }

    /// Like [`connect`](Self::connect), but gives up when `ctx` ends, also while it looks a name up. If the context has ended already, nothing is
    /// tried. If it ends after the connection is made, that does not affect the connection.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{context::Context, net::{TcpListener, TcpStream}};
    /// use std::time::Duration;
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let (ctx, cancel) = Context::background().with_timeout(Duration::from_secs(60));
    /// let stream = TcpStream::connect_ctx(listener.local_addr()?, &ctx)?;
    /// cancel.cancel();
    /// assert!(stream.peer_addr().is_ok());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `connect`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn connect_ctx<A: ToSocketAddrs>(addr: A, ctx: &Context) -> io::Result<Self> {
        ctx.check().inspect_err(|_| park::spend())?;
        Self::connect_first(addr.resolve_within(&Patience::of_context(ctx))?, Some(ctx))
    }

    fn connect_first(addresses: Vec<SocketAddr>, ctx: Option<&Context>) -> io::Result<Self> {
        let stream = dial::race(addresses, dial::DELAY, ctx, |address, race| {
            Self::connect_until(address, None, Some(race), ctx)
        })?;
        // The end of the race has set it for all who took part.
        stream.descriptor.set_deadline(Direction::Write, None);
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
        Self::connect_until(*addr, present::after(timeout), None, None)
    }

    fn connect_until(
        address: SocketAddr,
        deadline: Option<Instant>,
        race: Option<&Race>,
        ctx: Option<&Context>,
    ) -> io::Result<Self> {
        let socket = system::socket(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP));
        let socket = socket.inspect_err(|_| park::spend_call())?;
        let connected = socket.connect(&address.into());
        park::spend_call();
        let stream = Self { descriptor: Arc::new(Descriptor::tcp(socket.into())) };
        match connected {
            Ok(()) => return Ok(stream),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            // Goes on in the background, as after EINPROGRESS.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        stream.descriptor.set_deadline(Direction::Write, deadline);
        if let Some(race) = race {
            race.enter(&stream.descriptor);
        }
        stream.descriptor.wait_ready(Direction::Write, Reason::Connect, ctx)?;
        stream.descriptor.set_deadline(Direction::Write, None);
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn socket(&self) -> SockRef<'_> {
        SockRef::from(&*self.descriptor)
    }

    /// Shuts down reading, writing or both, for all handles. Wakes whoever waits.
    ///
    /// After `Read`, reads give `Ok(0)`; after `Write`, writes give `BrokenPipe` and the peer reads to the end.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{go, net::{TcpListener, TcpStream}};
    /// use std::{io::{Read, Write}, net::Shutdown};
    ///
    /// let listener = TcpListener::bind("127.0.0.1:0")?;
    /// let address = listener.local_addr()?;
    /// let server = go(move || {
    ///     let (stream, _) = listener.accept()?;
    ///     let mut all = String::new();
    ///     (&stream).read_to_string(&mut all)?; // until the peer shuts down writing
    ///     (&stream).write_all(format!("{} bytes", all.len()).as_bytes())
    /// });
    /// let stream = TcpStream::connect(address)?;
    /// (&stream).write_all(b"hello")?;
    /// stream.shutdown(Shutdown::Write)?;
    /// let mut answer = String::new();
    /// (&stream).read_to_string(&mut answer)?;
    /// assert_eq!(answer, "5 bytes");
    /// server.join().unwrap()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
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

    /// Whether small writes are sent at once.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_nodelay(&self, nodelay: bool) -> io::Result<()> {
        self.socket().set_tcp_nodelay(nodelay)
    }

    /// What [`set_nodelay`](Self::set_nodelay) has set.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.socket().tcp_nodelay()
    }

    /// The time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system cannot tell.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn ttl(&self) -> io::Result<u32> {
        self.socket().ttl_v4()
    }

    /// Sets the time-to-live of packets.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_ttl(&self, ttl: u32) -> io::Result<()> {
        self.socket().set_ttl_v4(ttl)
    }
}

addresses!(TcpStream, SocketAddr, from_system);
take_error!(TcpStream);
try_clone!(TcpStream);
read_limits!(TcpStream);
write_limits!(TcpStream);
deadline!(TcpStream);
reads!(TcpStream, receive_bytes);
peeks!(TcpStream);
writes!(TcpStream, send_bytes, send_slices);
with_ctx!(TcpStream);
debug_with_addresses!(TcpStream, "addr" = local_addr, "peer" = peer_addr);
descriptor_handle!(TcpStream, std::net::TcpStream);
