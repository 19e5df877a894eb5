//! Addresses of Unix sockets, between `std`'s form and the system's.

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, path::Path};

use rustix::net::{SocketAddrAny, SocketAddrUnix};

use super::SocketAddr;

pub(super) fn to_system(address: &SocketAddr) -> io::Result<SocketAddrUnix> {
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

pub(super) fn path_to_system(path: &Path) -> io::Result<SocketAddrUnix> {
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
pub(super) fn from_system(address: Option<SocketAddrAny>) -> io::Result<SocketAddr> {
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
pub(super) fn peer_from_system(address: Option<SocketAddrAny>) -> SocketAddr {
    from_system(address).unwrap_or_else(|_| unnamed())
}
