//! Where systems differ about sockets and pipes.
//!
//! - N1: *a descriptor that is made here does not block, and programs that are started do not inherit it.* Both come with it in one call
//!   (`SOCK_CLOEXEC`, `accept4`, `pipe2`), but not on Apple's systems, which take further calls. A program that another thread starts between them
//!   inherits the descriptor, and the peer does not see its end until that program ends as well. `std` has this race there too; only a lock
//!   that everybody takes who forks could close it.
//! - N2: *a socket raises no SIGPIPE.* `MSG_NOSIGNAL` asks for it in each call; on Apple's systems it is a property of the socket
//!   (`SO_NOSIGPIPE`), which `socket2` sets, and which accepted connections have from their listener. Pipes have neither: Rust programs ignore the
//!   signal from their beginning.
//!
//! `--cfg oxigo_fallback` has the further calls made everywhere.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{SendFlags, SocketAddrAny, getsockname},
};
use socket2::{Domain, Protocol, Socket, Type};

/// How data is sent (N2).
#[cfg(not(target_vendor = "apple"))]
pub(super) const SEND: SendFlags = SendFlags::NOSIGNAL;
#[cfg(target_vendor = "apple")]
pub(super) const SEND: SendFlags = SendFlags::empty();

/// What is waited for before a read. Without `POLLRDHUP` the end of a stream is told as data is.
#[cfg(not(target_vendor = "apple"))]
pub(super) const READABLE: PollFlags = PollFlags::IN.union(PollFlags::RDHUP);
#[cfg(target_vendor = "apple")]
pub(super) const READABLE: PollFlags = PollFlags::IN;

/// Whether a socket for messages becomes ready for writing when its peer's queue has room again. Elsewhere it always is, since what is looked at
/// is a queue of its own, which nothing ever lies in.
pub(super) const TELLS_OF_ROOM: bool = cfg!(target_os = "linux");

/// Whether that is why a message was refused. The BSDs, and so macOS, say that they have no buffers.
pub(super) fn is_peer_full(error: Errno) -> bool {
    error == Errno::AGAIN || !TELLS_OF_ROOM && error == Errno::NOBUFS
}

/// A socket (N1, N2).
pub(super) fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
    calls::socket(domain, kind, protocol)
}

/// Two sockets of this machine that are connected to each other (N1, N2).
pub(super) fn socket_pair(kind: Type) -> io::Result<(Socket, Socket)> {
    calls::socket_pair(kind)
}

/// A connection that `listener` has for us, and whose it is (N1, N2).
pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    calls::accept(listener)
}

/// A pipe: the end that is read, and the one that is written (N1).
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    calls::pipe()
}

/// Has a descriptor that others have made do as ours: it does not block (N1), and if it is a socket raises no signal (N2).
pub(super) fn take_over(fd: BorrowedFd<'_>) -> io::Result<()> {
    // A pipe refuses, and so does a socket that is at its end.
    #[cfg(target_vendor = "apple")]
    let _ = rustix::net::sockopt::set_socket_nosigpipe(fd, true);
    Ok(rustix::io::ioctl_fionbio(fd, true)?)
}

/// The address of a socket itself; none when it has no name.
pub(super) fn own_address(fd: impl AsFd) -> io::Result<Option<SocketAddrAny>> {
    // Apple's systems give a name of zeroes then, which rustix takes for a path.
    #[cfg(target_vendor = "apple")]
    if socket2::SockRef::from(&fd).local_addr()?.is_unnamed() {
        return Ok(None);
    }
    Ok(Some(getsockname(fd)?))
}

/// In one call (N1).
#[cfg(not(any(target_vendor = "apple", oxigo_fallback)))]
mod calls {
    use rustix::{
        net::{SocketFlags, acceptfrom_with},
        pipe::{PipeFlags, pipe_with},
    };

    use super::*;

    #[inline]
    pub(super) fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        Socket::new(domain, kind.nonblocking(), protocol)
    }

    #[inline]
    pub(super) fn socket_pair(kind: Type) -> io::Result<(Socket, Socket)> {
        Socket::pair(Domain::UNIX, kind.nonblocking(), None)
    }

    #[inline]
    pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
        acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    #[inline]
    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
    }
}

/// In several (N1).
#[cfg(any(target_vendor = "apple", oxigo_fallback))]
mod calls {
    use rustix::{
        io::{FdFlags, fcntl_setfd, ioctl_fionbio},
        net::acceptfrom,
    };

    use super::*;

    pub(super) fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>) -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, protocol)?;
        ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }

    pub(super) fn socket_pair(kind: Type) -> io::Result<(Socket, Socket)> {
        let (one, other) = Socket::pair(Domain::UNIX, kind, None)?;
        ioctl_fionbio(&one, true)?;
        ioctl_fionbio(&other, true)?;
        Ok((one, other))
    }

    pub(super) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
        let (connection, peer) = acceptfrom(listener)?;
        fcntl_setfd(&connection, FdFlags::CLOEXEC)?;
        ioctl_fionbio(&connection, true)?;
        Ok((connection, peer))
    }

    pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
        let (reader, writer) = std::io::pipe()?;
        ioctl_fionbio(&reader, true)?;
        ioctl_fionbio(&writer, true)?;
        Ok((reader.into(), writer.into()))
    }
}
