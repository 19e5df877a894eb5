//! Dialling: a race between the addresses of one name, in the manner of RFC 8305 ("happy eyeballs").
//!
//! - The addresses alternate between the families, beginning with that of the first: a family that is broken as a whole costs one delay.
//! - Each attempt is a goroutine. The next begins when the last one has failed, or after a delay, and does not stop those before it. Where no goroutine
//!   can be started they are made in place, one after the other.
//! - A context ends the attempts that are under way, and the race begins no more of them.
//! - The first connection wins and ends the race: the others' time is up, and what connects all the same is closed. Nothing of the race
//!   is left when it returns.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use super::descriptor::{Descriptor, Direction};
use crate::{Builder, chan, context::Context, current, runtime::present, scope, util::Lock};

/// The "connection attempt delay" that the RFC recommends.
pub(crate) const DELAY: Duration = Duration::from_millis(250);

/// Who takes part.
pub(crate) struct Race(Lock<State>);

struct State {
    over: bool,
    descriptors: Vec<Arc<Descriptor>>,
}

impl Race {
    fn new() -> Self {
        Self(Lock::new(State { over: false, descriptors: Vec::new() }))
    }

    /// An attempt that waits for `descriptor` from now on; its time for writing is up when the race is over.
    pub(crate) fn enter(&self, descriptor: &Arc<Descriptor>) {
        let mut state = self.0.lock();
        if !state.over {
            state.descriptors.push(Arc::clone(descriptor));
            return;
        }
        drop(state);
        descriptor.set_deadline(Direction::Write, Some(present::now()));
    }

    fn end(&self) {
        let descriptors = {
            let mut state = self.0.lock();
            state.over = true;
            std::mem::take(&mut state.descriptors)
        };
        for descriptor in descriptors {
            descriptor.set_deadline(Direction::Write, Some(present::now()));
        }
    }

    #[cfg(test)]
    fn is_over(&self) -> bool {
        self.0.lock().over
    }
}

/// Alternates between the families, beginning with the first one's.
fn interleave(addresses: Vec<SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut next, mut other): (VecDeque<_>, VecDeque<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    std::iter::from_fn(move || {
        if !other.is_empty() {
            std::mem::swap(&mut next, &mut other);
            return other.pop_front().or_else(|| next.pop_front());
        }
        next.pop_front()
    })
}

/// The first connection that `connect` makes to one of the addresses; the last error when it makes none.
pub(crate) fn race<R: Send>(
    addresses: Vec<SocketAddr>,
    delay: Duration,
    ctx: Option<&Context>,
    connect: impl Fn(SocketAddr, &Race) -> io::Result<R> + Sync,
) -> io::Result<R> {
    let race = Race::new();
    if let [address] = addresses[..] {
        return connect(address, &race);
    }
    let mut waiting: VecDeque<_> = interleave(addresses).collect();
    scope(|s| {
        let (race, connect, me) = (&race, &connect, current());
        let (results, outcomes) = chan::unbounded();
        let (mut running, mut last) = (0, io::Error::new(io::ErrorKind::InvalidInput, "no address to use"));
        loop {
            if let Some(ctx) = ctx {
                // Those under way end by the context too, and wake us.
                ctx.check()?;
            }
            let mut limit = None;
            if let Some(address) = waiting.pop_front() {
                let outcome = results.clone();
                // The connection's descriptor is to be watched by the worker of who will use it.
                let attempt = s.spawn(Builder::new().near(&me), move || drop(outcome.send(connect(address, race))));
                match attempt {
                    Ok(_) => {
                        running += 1;
                        limit = Some(delay);
                    }
                    // There is no stack for it, or nothing new starts on this runtime: one after the other then.
                    Err(_) if running == 0 => {
                        running = 1;
                        drop(results.send(connect(address, race)));
                    }
                    // Later, unless one of those under way has connected by then.
                    Err(_) => {
                        waiting.push_front(address);
                        limit = Some(delay);
                    }
                }
            } else if running == 0 {
                return Err(last);
            }
            let outcome = match limit {
                Some(limit) => outcomes.recv_timeout(limit).ok(),
                None => outcomes.recv().ok(),
            };
            match outcome {
                Some(Ok(connection)) => {
                    race.end();
                    return Ok(connection);
                }
                Some(Err(error)) => {
                    running -= 1;
                    last = error;
                }
                None => {}
            }
        }
    })
}

#[cfg(test)]
mod tests;
