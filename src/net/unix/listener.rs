//! `UnixListener`.

use std::{io, os::unix::net as std_unix, path::Path, sync::Arc};

use rustix::net::{SocketAddrUnix, bind, listen};
use socket2::Type;

use super::{
    SocketAddr, UnixStream,
    address::{from_system, path_to_system, peer_from_system, to_system},
    new_socket,
};
use crate::{
    context::Context,
    net::{
        descriptor::Descriptor,
        methods::{addresses, debug_with_addresses, descriptor_handle, listens, take_error, try_clone},
    },
};

/// How many connections the kernel keeps for a listener that does not accept at once; it may keep fewer.
const BACKLOG: i32 = 4096;

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
