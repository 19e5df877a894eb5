//! UDP: sockets for packets.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use rustix::net::{RecvFlags, connect, recv, recvfrom, send, sendto};
use socket2::{Domain, Protocol, Type};

use super::{
    descriptor::{Descriptor, Direction},
    lookup::Patience,
    methods::{
        addresses, close, deadline, debug_with_addresses, descriptor_handle, read_limits, take_error, try_clone,
        write_limits,
    },
    resolve::{ToSocketAddrs, each_address},
    system,
    tcp::from_system,
};
use crate::{context::Context, runtime::wait::Reason};

/// A socket for packets.
///
/// Clones made by [`try_clone`](Self::try_clone) are handles of one socket and share its time limits.
///
/// # Examples
///
/// ```
/// use oxigo::net::UdpSocket;
///
/// let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
/// near.send_to(b"ping", far.local_addr()?)?;
/// let mut packet = [0; 16];
/// let (length, from) = far.recv_from(&mut packet)?;
/// assert_eq!((&packet[..length], from), (&b"ping"[..], near.local_addr()?));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct UdpSocket {
    descriptor: Arc<Descriptor>,
}

impl UdpSocket {
    /// Makes a socket on the first of the addresses that is available.
    ///
    /// # Errors
    ///
    /// As [`std::net::UdpSocket::bind`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine while a name is looked up.
    pub fn bind<A: ToSocketAddrs>(addr: A) -> io::Result<Self> {
        each_address(addr.resolve_own()?, |address| {
            let socket = system::socket(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&address.into())?;
            Ok(Self { descriptor: Arc::new(Descriptor::new(socket.into())) })
        })
    }

    /// Sets the peer of [`send`](Self::send) and [`recv`](Self::recv), to the first of the addresses that can be used. Packets from others are no
    /// longer received.
    ///
    /// # Errors
    ///
    /// As [`std::net::UdpSocket::connect`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine while a name is looked up.
    pub fn connect<A: ToSocketAddrs>(&self, addr: A) -> io::Result<()> {
        each_address(addr.resolve()?, |address| self.descriptor.told(connect(self, &address)))
    }

    /// Receives a packet; returns its length and its sender. What does not fit into `buf` is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::net::UdpSocket;
    ///
    /// let (a, b) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// a.send_to(b"ping", b.local_addr()?)?;
    /// let mut buffer = [0; 1500];
    /// let (length, sender) = b.recv_from(&mut buffer)?;
    /// assert_eq!((&buffer[..length], sender), (&b"ping"[..], a.local_addr()?));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `TimedOut` by the time limits for reading; otherwise as the system says.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, RecvFlags::empty(), None)
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
        self.receive_from(buf, RecvFlags::empty(), Some(ctx))
    }

    /// Like [`recv_from`](Self::recv_from), but leaves the packet to be received again.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn peek_from(&self, buf: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, RecvFlags::PEEK, None)
    }

    /// Like [`peek_from`](Self::peek_from), but gives up when `ctx` ends.
    ///
    /// # Errors
    ///
    /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `peek_from`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn peek_from_ctx(&self, buf: &mut [u8], ctx: &Context) -> io::Result<(usize, SocketAddr)> {
        self.receive_from(buf, RecvFlags::PEEK, Some(ctx))
    }

    fn receive_from(&self, buf: &mut [u8], flags: RecvFlags, ctx: Option<&Context>) -> io::Result<(usize, SocketAddr)> {
        let limit = self.descriptor.limit(Direction::Read, ctx);
        let (length, from) = self.descriptor.perform(Direction::Read, Reason::Read, limit, |fd| {
            let (length, _, from) = recvfrom(fd, &mut *buf, flags)?;
            Ok((length, from))
        })?;
        Ok((length, from_system(from)?))
    }

    /// Receives a packet from the peer that [`connect`](Self::connect) has set, and returns its length. What does not fit into `buf` is lost.
    ///
    /// # Errors
    ///
    /// As [`recv_from`](Self::recv_from); `ConnectionRefused` when an earlier packet found nobody at the peer's port.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, RecvFlags::empty(), None)
    }

    /// Like [`recv`](Self::recv), but gives up when `ctx` ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use oxigo::{context::Context, net::UdpSocket};
    ///
    /// let (near, far) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    /// near.connect(far.local_addr()?)?;
    /// let (ctx, _cancel) = Context::background().with_timeout(Duration::from_millis(2));
    /// assert_eq!(near.recv_ctx(&mut [0; 16], &ctx).unwrap_err().to_string(), "context deadline exceeded");
    /// far.send_to(b"late", near.local_addr()?)?;
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
        self.receive(buf, RecvFlags::empty(), Some(ctx))
    }

    /// Like [`recv`](Self::recv), but leaves the packet to be received again.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.receive(buf, RecvFlags::PEEK, None)
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
        self.receive(buf, RecvFlags::PEEK, Some(ctx))
    }

    fn receive(&self, buf: &mut [u8], flags: RecvFlags, ctx: Option<&Context>) -> io::Result<usize> {
        let limit = self.descriptor.limit(Direction::Read, ctx);
        self.descriptor.perform(Direction::Read, Reason::Read, limit, |fd| Ok(recv(fd, &mut *buf, flags)?.0))
    }

    /// Sends a packet to the first of the addresses.
    ///
    /// # Errors
    ///
    /// `TimedOut` by the time limits for writing; `InvalidInput` without an address; otherwise as the system says.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while the socket's buffer is full or a name is looked up.
    pub fn send_to<A: ToSocketAddrs>(&self, buf: &[u8], addr: A) -> io::Result<usize> {
        self.send_to_first(buf, addr.resolve()?, None)
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
    pub fn send_to_ctx<A: ToSocketAddrs>(&self, buf: &[u8], addr: A, ctx: &Context) -> io::Result<usize> {
        self.send_to_first(buf, addr.resolve_within(&Patience::of_context(ctx))?, Some(ctx))
    }

    fn send_to_first(&self, buf: &[u8], addresses: Vec<SocketAddr>, ctx: Option<&Context>) -> io::Result<usize> {
        let first = addresses.into_iter().next();
        let address = first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to send to"))?;
        let limit = self.descriptor.limit(Direction::Write, ctx);
        self.descriptor
            .perform(Direction::Write, Reason::Write, limit, |fd| Ok(sendto(fd, buf, system::SEND, &address)?))
    }

    /// Sends a packet to the peer that [`connect`](Self::connect) has set.
    ///
    /// # Errors
    ///
    /// As [`send_to`](Self::send_to); `ConnectionRefused` when an earlier packet found nobody at the peer's port.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread, while the socket's buffer is full.
    pub fn send(&self, buf: &[u8]) -> io::Result<usize> {
        self.send_within(buf, None)
    }

    /// Like [`send`](Self::send), but gives up when `ctx` ends.
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
        self.descriptor.perform(Direction::Write, Reason::Write, limit, |fd| Ok(send(fd, buf, system::SEND)?))
    }
}

/// Options that `socket2` sets and tells: a getter and a setter each.
macro_rules! options {
    ($($what:literal: $get:ident as $system_get:ident, $set:ident as $system_set:ident, $value:ty;)*) => {
        impl UdpSocket {$(
            #[doc = concat!("Tells ", $what, ".")]
            ///
            /// # Errors
            ///
            /// When the system cannot tell.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn $get(&self) -> io::Result<$value> {
                self.descriptor.option(|socket| socket.$system_get())
            }

            #[doc = concat!("Sets ", $what, ".")]
            ///
            /// # Errors
            ///
            /// When the system refuses.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn $set(&self, value: $value) -> io::Result<()> {
                self.descriptor.option(|socket| socket.$system_set(value))
            }
        )*}
    };
}

options! {
    "whether packets may go to a broadcast address": broadcast as broadcast, set_broadcast as set_broadcast, bool;
    "the time-to-live of packets": ttl as ttl_v4, set_ttl as set_ttl_v4, u32;
    "whether packets to IPv4 groups come back to this machine":
        multicast_loop_v4 as multicast_loop_v4, set_multicast_loop_v4 as set_multicast_loop_v4, bool;
    "whether packets to IPv6 groups come back to this machine":
        multicast_loop_v6 as multicast_loop_v6, set_multicast_loop_v6 as set_multicast_loop_v6, bool;
    "the time-to-live of packets to IPv4 groups":
        multicast_ttl_v4 as multicast_ttl_v4, set_multicast_ttl_v4 as set_multicast_ttl_v4, u32;
}

impl UdpSocket {
    /// Joins an IPv4 group on the interface with that address.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn join_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.descriptor.option(|socket| socket.join_multicast_v4(group, interface))
    }

    /// Leaves what [`join_multicast_v4`](Self::join_multicast_v4) has joined.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn leave_multicast_v4(&self, group: &Ipv4Addr, interface: &Ipv4Addr) -> io::Result<()> {
        self.descriptor.option(|socket| socket.leave_multicast_v4(group, interface))
    }

    /// Joins an IPv6 group on the interface with that index; zero: any.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn join_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.descriptor.option(|socket| socket.join_multicast_v6(group, interface))
    }

    /// Leaves what [`join_multicast_v6`](Self::join_multicast_v6) has joined.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn leave_multicast_v6(&self, group: &Ipv6Addr, interface: u32) -> io::Result<()> {
        self.descriptor.option(|socket| socket.leave_multicast_v6(group, interface))
    }
}

addresses!(UdpSocket, SocketAddr, from_system);
take_error!(UdpSocket);
try_clone!(UdpSocket);
close!(
    UdpSocket,
    "Its port is free; [`local_addr`](Self::local_addr) goes on telling it. It is the socket that stops: so do duplicates of its descriptor, in \
     other processes too. (A drop of the last handle leaves them as they are.)"
);
read_limits!(UdpSocket);
write_limits!(UdpSocket);
deadline!(UdpSocket);
debug_with_addresses!(UdpSocket, "addr" = local_addr, "peer" = peer_addr);
descriptor_handle!(UdpSocket, std::net::UdpSocket);
