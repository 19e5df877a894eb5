//! `UnixStream`.

use std::{io, net::Shutdown, os::unix::net as std_unix, path::Path, sync::Arc};

use rustix::net::{SocketAddrUnix, connect};
use socket2::Type;

use super::{
    SocketAddr,
    address::{from_system, path_to_system, to_system},
    new_pair, new_socket, until_peer_has_room,
};
use crate::{
    context::Context,
    net::{
        descriptor::{Descriptor, Direction},
        methods::{
            addresses, deadline, debug_with_addresses, descriptor_handle, peeks, read_limits, reads, take_error,
            try_clone, with_ctx, write_limits, writes,
        },
    },
    runtime::{park, wait::Reason},
};

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
}

addresses!(UnixStream, SocketAddr, from_system);
take_error!(UnixStream);
try_clone!(UnixStream);
read_limits!(UnixStream);
write_limits!(UnixStream);
deadline!(UnixStream);
reads!(UnixStream, receive_bytes);
peeks!(UnixStream);
writes!(UnixStream, send_bytes, send_slices);
with_ctx!(UnixStream);
debug_with_addresses!(UnixStream, "addr" = local_addr, "peer" = peer_addr);
descriptor_handle!(UnixStream, std_unix::UnixStream);
