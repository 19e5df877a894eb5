//! How a listener is set up before it listens.

use std::{io, net::TcpListener as StdListener, os::fd::OwnedFd};

use socket2::{Domain, Protocol, Type};

use super::{
    TcpListener,
    resolve::{ToSocketAddrs, each_address},
    system,
};

/// Options of a [`TcpListener`] that have to be set before it listens.
///
/// # Examples
///
/// Two listeners on one port, between which the kernel shares out the connections:
///
/// ```
/// use oxigo::net::ListenOptions;
///
/// let first = ListenOptions::new().reuse_port(true).backlog(128).bind("127.0.0.1:0")?;
/// let second = ListenOptions::new().reuse_port(true).bind(first.local_addr()?)?;
/// assert_eq!(first.local_addr()?, second.local_addr()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `bind`"]
pub struct ListenOptions {
    backlog: u32,
    reuse_address: bool,
    reuse_port: bool,
    only_v6: Option<bool>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ListenOptions {
    /// The options that [`TcpListener::bind`] uses: a backlog of 4096, and `reuse_address`.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new() -> Self {
        Self { backlog: 4096, reuse_address: true, reuse_port: false, only_v6: None }
    }

    /// How many connections the kernel keeps while nobody accepts; it may keep fewer (`net.core.somaxconn`).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Whether the address may be used while connections of an earlier listener are still in `TIME_WAIT` (`SO_REUSEADDR`).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// Whether other listeners that have set this too may listen on the same address and port (`SO_REUSEPORT`).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// Whether a listener on an IPv6 address does not take IPv4 connections (`IPV6_V6ONLY`). Unless it is set, the system decides.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn only_v6(mut self, only: bool) -> Self {
        self.only_v6 = Some(only);
        self
    }

    /// Listens on the first of the addresses that is available.
    ///
    /// # Errors
    ///
    /// As [`TcpListener::bind`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine while a name is looked up.
    pub fn bind<A: ToSocketAddrs>(&self, addr: A) -> io::Result<TcpListener> {
        each_address(addr.resolve_own()?, |address| {
            let socket = system::socket(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(self.reuse_address)?;
            if self.reuse_port {
                socket.set_reuse_port(true)?;
            }
            if let Some(only) = self.only_v6.filter(|_| address.is_ipv6()) {
                socket.set_only_v6(only)?;
            }
            socket.bind(&address.into())?;
            socket.listen(self.backlog.try_into().unwrap_or(i32::MAX))?;
            TcpListener::try_from(StdListener::from(OwnedFd::from(socket)))
        })
    }
}
