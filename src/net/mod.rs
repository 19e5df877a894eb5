//! Sockets that are used like blocking ones and park the goroutine: the interface of `std::net`, with deadlines.
//!
//! Every call that would block parks the goroutine; on a plain thread it blocks that thread. Handles can be shared: all methods take
//! `&self`, and [`Read`](std::io::Read) and [`Write`](std::io::Write) are implemented for references as well.
//!
//! ```
//! use oxigo::{go, net::{TcpListener, TcpStream}};
//! use std::{io::{self, Read, Write}, net::Shutdown};
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let address = listener.local_addr()?;
//! go(move || {
//!     for connection in listener.incoming().flatten() {
//!         // A goroutine for each connection; this one echoes.
//!         go(move || io::copy(&mut &connection, &mut &connection));
//!     }
//! });
//! let stream = TcpStream::connect(address)?;
//! (&stream).write_all(b"hello")?;
//! stream.shutdown(Shutdown::Write)?;
//! let mut echo = String::new();
//! (&stream).read_to_string(&mut echo)?;
//! assert_eq!(echo, "hello");
//! # Ok::<(), io::Error>(())
//! ```
//!
//! - Time-outs ([`TcpStream::set_read_timeout`]) apply to each operation. Deadlines ([`TcpStream::set_read_deadline`]) are absolute, also end
//!   operations that wait already, and once they have passed make operations fail at once, even when data is ready. Both give
//!   [`TimedOut`](std::io::ErrorKind::TimedOut); if both are set, the earlier one acts.
//! - One call of `write` or `write_all`, and one `write!` or `writeln!`, is contiguous: concurrent writers never interleave inside it.
//! - A [`Context`](crate::context::Context) ends the operations that are called with it, and no others: [`TcpStream::connect_ctx`],
//!   [`TcpListener::accept_ctx`], [`UdpSocket::recv_ctx`], [`lookup_host_ctx`], reads and writes through [`TcpStream::with_ctx`]. The error is
//!   `TimedOut` for a deadline, `Other` for a cancellation, with the [`ContextError`](crate::context::ContextError) in it;
//!   [`ContextError::of`](crate::context::ContextError::of) takes that out, and so tells it from a time limit.
//! - Sockets turn into `std`'s types and into `OwnedFd`, and back, with `try_from`: both can fail, so they have no `IntoRawFd` and no
//!   `FromRawFd`; a raw descriptor goes through an `OwnedFd`.
//! - Names are looked up on other threads; [`lookup_host_ctx`] and [`lookup_host_unless`] can be cancelled.
#![forbid(unsafe_code)]

pub(crate) mod descriptor;
mod dial;
mod listen_options;
mod lookup;
pub(crate) mod methods;
mod pipe;
mod resolve;
pub(crate) mod system;
mod tcp;
pub(crate) mod transfer;
mod udp;
pub mod unix;

// What programs import beside the types above; so they need no `std::net`.
#[doc(no_inline)]
pub use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, SocketAddrV6};

pub use self::{
    listen_options::ListenOptions,
    lookup::{lookup_host, lookup_host_ctx, lookup_host_timeout, lookup_host_unless},
    methods::WithCtx,
    pipe::{PipeStream, pipe},
    resolve::ToSocketAddrs,
    tcp::{Incoming, TcpListener, TcpStream},
    udp::UdpSocket,
};
