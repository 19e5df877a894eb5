//! Looking names up: on threads of the blocking pool, each name once at a time, however many ask for it.
//!
//! A *flight* is one call of the system's resolver. Whoever asks for a name that is in flight waits for that flight. A flight cannot be
//! stopped, as the system's resolver cannot; one that gives up waiting leaves it to the others, or to nobody.
//!
//! - F1: a flight is in the table from before its job is submitted until its answer is known, and is taken out before the answer is told,
//!   so whoever asks after an answer gets a new one.
//! - F2: its channel closes after the answer is set: the close is what wakes all who wait.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as StdToSocketAddrs},
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
    vec,
};

use super::{descriptor::timed_out, resolve::ToSocketAddrs};
use crate::{
    chan::{Receiver, Select, unbuffered},
    context::Context,
    runtime::{
        blocking,
        park::{self, WaitsOutside},
        present,
    },
};

/// Looks a name up: the addresses of `"host:port"`, or of a pair `(host, port)`.
///
/// The system's resolver is asked on another thread. Equal look-ups at the same time are one.
///
/// # Examples
///
/// ```
/// let addresses: Vec<_> = oxigo::net::lookup_host("localhost:80")?.collect();
/// assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// `InvalidInput` when it is not a host and a port; otherwise what the resolver says.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn lookup_host<A: ToSocketAddrs>(host: A) -> io::Result<vec::IntoIter<SocketAddr>> {
    addresses_of(host, &Patience::endless())
}

/// Like [`lookup_host`], but waits at most `timeout`.
///
/// # Errors
///
/// `TimedOut` when the time has passed; otherwise as `lookup_host`.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn lookup_host_timeout<A: ToSocketAddrs>(host: A, timeout: Duration) -> io::Result<vec::IntoIter<SocketAddr>> {
    let patience = Patience { deadline: present::after(timeout), ..Patience::endless() };
    addresses_of(host, &patience)
}

/// Like [`lookup_host`], but gives up when `cancelled` has a value, which is left there, or is closed.
///
/// # Examples
///
/// ```
/// let (cancel, cancelled) = oxigo::unbuffered::<()>();
/// cancel.close()?;
/// let error = oxigo::net::lookup_host_unless("localhost:80", &cancelled).unwrap_err();
/// assert_eq!(error.to_string(), "the look-up was cancelled");
/// # Ok::<(), oxigo::chan::CloseError>(())
/// ```
///
/// # Errors
///
/// `Other` with the text "the look-up was cancelled"; otherwise as `lookup_host`.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn lookup_host_unless<A: ToSocketAddrs, T>(
    host: A,
    cancelled: &Receiver<T>,
) -> io::Result<vec::IntoIter<SocketAddr>> {
    let patience = Patience { cancelled: Some(cancelled), ..Patience::endless() };
    addresses_of(host, &patience)
}

/// Like [`lookup_host`], but gives up when `ctx` ends. If the context has ended already, that takes precedence over an answer.
///
/// # Examples
///
/// ```
/// use oxigo::context::Context;
///
/// let (ctx, cancel) = Context::background().with_cancel();
/// assert!(oxigo::net::lookup_host_ctx("localhost:80", &ctx)?.all(|address| address.ip().is_loopback()));
/// cancel.cancel();
/// let error = oxigo::net::lookup_host_ctx("localhost:80", &ctx).unwrap_err();
/// assert_eq!(error.to_string(), "context canceled");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Why the context has ended, as `TimedOut` or `Other`; otherwise as `lookup_host`.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn lookup_host_ctx<A: ToSocketAddrs>(host: A, ctx: &Context) -> io::Result<vec::IntoIter<SocketAddr>> {
    ctx.check().inspect_err(|_| park::spend())?;
    addresses_of(host, &Patience::of_context(ctx))
}

fn addresses_of<A: ToSocketAddrs>(host: A, patience: &Patience<'_>) -> io::Result<vec::IntoIter<SocketAddr>> {
    // An address is known at once.
    park::spend();
    Ok(host.resolve_within(patience)?.into_iter())
}

/// Until when an answer is waited for.
#[allow(missing_debug_implementations, reason = "nobody outside can name it")]
pub struct Patience<'a> {
    deadline: Option<Instant>,
    cancelled: Option<&'a dyn Watched>,
    ctx: Option<&'a Context>,
}

impl<'a> Patience<'a> {
    pub(crate) fn endless() -> Self {
        Self { deadline: None, cancelled: None, ctx: None }
    }

    pub(crate) fn of_context(ctx: &'a Context) -> Self {
        Self { deadline: None, cancelled: Some(ctx.done()), ctx: Some(ctx) }
    }

    /// Why it has ended, when it was cancelled.
    fn cancelled(&self) -> io::Error {
        match self.ctx {
            Some(ctx) => ctx.why_ended().into(),
            None => io::Error::other("the look-up was cancelled"),
        }
    }
}

/// A receiver of whatever type.
trait Watched {
    fn watch<'a>(&'a self, select: &mut Select<'a>);
}

impl<T> Watched for Receiver<T> {
    fn watch<'a>(&'a self, select: &mut Select<'a>) {
        select.recv(self);
    }
}

/// The addresses of one host, or the kind and the text of an error.
type Answer = Result<Vec<IpAddr>, (io::ErrorKind, String)>;

struct Flight {
    answer: OnceLock<Answer>,
    /// Closes when the answer is there (F2).
    landed: Receiver<()>,
}

/// All flights of one resolver.
struct Flights<F> {
    resolver: F,
    /// Guards nothing but itself; nobody parks while holding it.
    table: Mutex<HashMap<String, Arc<Flight>>>,
}

type System = fn(&str) -> io::Result<Vec<IpAddr>>;

fn ask_system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok(StdToSocketAddrs::to_socket_addrs(&(host, 0))?.map(|address| address.ip()).collect())
}

/// Looks `host` up, unless it is an address already.
pub(crate) fn look_up(host: &str, port: u16, patience: &Patience<'_>) -> io::Result<Vec<SocketAddr>> {
    static FLIGHTS: OnceLock<Flights<System>> = OnceLock::new();
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let ips = FLIGHTS.get_or_init(|| Flights::new(ask_system)).look_up(host, patience)?;
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

impl<F> Flights<F>
where
    F: Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static,
{
    fn new(resolver: F) -> Self {
        Self { resolver, table: Mutex::new(HashMap::new()) }
    }

    fn look_up(&'static self, host: &str, patience: &Patience<'_>) -> io::Result<Vec<IpAddr>> {
        /// The wait has a time limit in any case: what ends it comes from outside, and without a limit it would pass for a deadlock.
        const LOOK_AGAIN: Duration = Duration::from_secs(3600);
        let flight = self.join(host)?;
        let mut select = Select::new_biased();
        if let Some(cancelled) = patience.cancelled {
            cancelled.watch(&mut select);
        }
        let landed = select.recv(&flight.landed);
        let _outside = WaitsOutside::begin();
        loop {
            let deadline = patience.deadline.unwrap_or_else(|| present::now() + LOOK_AGAIN);
            match select.ready_deadline(deadline) {
                Ok(index) if index == landed => break,
                Ok(_) => return Err(patience.cancelled()),
                Err(_) if patience.deadline.is_some() => return Err(timed_out()),
                Err(_) => {}
            }
        }
        match flight.answer.get() {
            Some(Ok(ips)) => Ok(ips.clone()),
            Some(Err((kind, text))) => Err(io::Error::new(*kind, text.clone())),
            // No thread could be had for it; who asked first has been told why.
            None => Err(io::Error::other("no thread could be started for the look-up")),
        }
    }

    /// The flight of `host`, a new one if there is none.
    fn join(&'static self, host: &str) -> io::Result<Arc<Flight>> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = table.get(host) {
            return Ok(Arc::clone(flight));
        }
        let (landing, landed) = unbuffered();
        let flight = Arc::new(Flight { answer: OnceLock::new(), landed });
        table.insert(host.to_owned(), Arc::clone(&flight));
        drop(table);
        let (name, answered) = (host.to_owned(), Arc::clone(&flight));
        let submitted = blocking::detached(move || {
            let answer = panic::catch_unwind(AssertUnwindSafe(|| (self.resolver)(&name)));
            self.take_out(&name);
            let answer = answer.unwrap_or_else(|_| Err(io::Error::other("the resolver has panicked")));
            let _ = answered.answer.set(answer.map_err(|error| (error.kind(), error.to_string())));
            drop(landing);
        });
        if let Err(error) = submitted {
            self.take_out(host);
            return Err(error);
        }
        Ok(flight)
    }

    /// F1.
    fn take_out(&self, host: &str) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}

#[cfg(test)]
mod tests;
