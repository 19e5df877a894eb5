//! Sockets with names in the file system: the interface of `std::os::unix::net`, with deadlines.
//!
//! Addresses are `std`'s own, so that abstract names work through [`std::os::linux::net::SocketAddrExt`]. A peer whose path takes all 108 bytes
//! that the kernel has for it, without a zero byte at its end, appears without a name.

mod address;
mod datagram;
mod listener;
mod stream;

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::io::Errno;
use socket2::{Domain, Type};

use super::{
    descriptor::{Descriptor, Limit},
    system,
};
use crate::runtime::{park, present};

#[doc(no_inline)]
pub use std::os::unix::net::SocketAddr;

pub use self::{datagram::UnixDatagram, listener::UnixListener, stream::UnixStream};

/// The first and the longest pause before a full peer is asked again. The kernel tells nobody when there is room.
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

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
