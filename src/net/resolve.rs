//! Addresses: literal ones at once, names through [`lookup`](super::lookup).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
};

use super::lookup::{Patience, look_up};

/// What can be turned into socket addresses: as [`std::net::ToSocketAddrs`], but names are looked up off the workers.
///
/// Implemented for the same types; not meant to be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Resolve {}

impl<T: sealed::Resolve + ?Sized> ToSocketAddrs for T {}

pub(crate) mod sealed {
    use super::{Patience, SocketAddr, io};

    /// Gives the addresses; parks the goroutine when a name has to be looked up.
    pub trait Resolve {
        fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>>;

        fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
            self.resolve_within(&Patience::endless())
        }
    }
}

use sealed::Resolve;

impl Resolve for str {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{text}: {self}"));
        let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("expected host:port"))?;
        look_up(host, port.parse().map_err(|_| invalid("not a port number"))?, patience)
    }
}

impl Resolve for String {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        self.as_str().resolve_within(patience)
    }
}

impl Resolve for (&str, u16) {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        look_up(self.0, self.1, patience)
    }
}

impl Resolve for (String, u16) {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        look_up(&self.0, self.1, patience)
    }
}

macro_rules! literal {
    ($($type:ty),*) => {$(
        impl Resolve for $type {
            fn resolve_within(&self, _: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
                Ok(vec![SocketAddr::from(*self)])
            }
        }
    )*};
}

literal!(SocketAddr, SocketAddrV4, SocketAddrV6, (IpAddr, u16), (Ipv4Addr, u16), (Ipv6Addr, u16));

impl Resolve for [SocketAddr] {
    fn resolve_within(&self, _: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        Ok(self.to_vec())
    }
}

impl<T: Resolve + ?Sized> Resolve for &T {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        (**self).resolve_within(patience)
    }
}

/// Tries each address; the last error when none works.
pub(crate) fn each_address<R>(
    addresses: Vec<SocketAddr>,
    mut attempt: impl FnMut(SocketAddr) -> io::Result<R>,
) -> io::Result<R> {
    let mut last = None;
    for address in addresses {
        match attempt(address) {
            Ok(result) => return Ok(result),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address to use")))
}
