//! Addresses: literal ones at once, names through [`lookup`](super::lookup).

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    vec,
};

use super::lookup::{Patience, look_up, lookup_host};

/// What can be turned into socket addresses: as [`std::net::ToSocketAddrs`], but names are looked up off the workers.
///
/// Implemented for the same types; not meant to be implemented elsewhere.
pub trait ToSocketAddrs: sealed::Resolve {
    /// The addresses, in the order in which they are tried: [`lookup_host`] as the method of `std`'s trait that it stands in for.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::net::{SocketAddr, ToSocketAddrs};
    ///
    /// let address = ("127.0.0.1", 8080).to_socket_addrs()?.next();
    /// assert_eq!(address, Some(SocketAddr::from(([127, 0, 0, 1], 8080))));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As `lookup_host`.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    fn to_socket_addrs(&self) -> io::Result<vec::IntoIter<SocketAddr>> {
        lookup_host(self)
    }
}

impl<T: sealed::Resolve + ?Sized> ToSocketAddrs for T {}

pub(crate) mod sealed {
    use super::{NoHost, Patience, SocketAddr, io};

    /// Gives the addresses; parks the goroutine when a name has to be looked up.
    pub trait Resolve {
        fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>>;

        fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
            self.resolve_within(&Patience::endless())
        }

        /// For an address of one's own, which says so when the host is missing.
        fn resolve_own(&self) -> io::Result<Vec<SocketAddr>> {
            self.resolve().map_err(|error| match error.get_ref().and_then(|error| error.downcast_ref::<NoHost>()) {
                Some(&NoHost { port, .. }) => NoHost { port, own: true }.into(),
                None => error,
            })
        }
    }
}

use sealed::Resolve;

/// An address such as `:8080`, which Go takes.
#[derive(Debug)]
struct NoHost {
    port: u16,
    /// Whether it is an address to bind to.
    own: bool,
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        if self.own {
            write!(f, "the host is missing: write 0.0.0.0:{port} or [::]:{port} to listen on all addresses")
        } else {
            write!(f, "the host is missing: write localhost:{port} for this machine")
        }
    }
}

impl Error for NoHost {}

impl From<NoHost> for io::Error {
    fn from(error: NoHost) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}

fn named(host: &str, port: u16, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
    if host.is_empty() {
        return Err(NoHost { port, own: false }.into());
    }
    look_up(host, port, patience)
}

impl Resolve for str {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = self.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{text}: {self}"));
        let (host, port) = self.rsplit_once(':').ok_or_else(|| invalid("expected host:port"))?;
        named(host, port.parse().map_err(|_| invalid("not a port number"))?, patience)
    }
}

impl Resolve for String {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        self.as_str().resolve_within(patience)
    }
}

impl Resolve for (&str, u16) {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        named(self.0, self.1, patience)
    }
}

impl Resolve for (String, u16) {
    fn resolve_within(&self, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
        named(&self.0, self.1, patience)
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
