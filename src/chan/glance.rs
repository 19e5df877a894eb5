//! What a receiver that does not wait can tell without the lock: loops that poll a channel nobody sends to, such as one that says when to
//! stop, would otherwise pass its lock from core to core.
//!
//! - C9: the word is changed under the channel's lock only. `EMPTY` and `ENDED` are written by a receiver that finds nothing there; whoever adds
//!   something to receive, or closes the channel, writes `UNKNOWN` before it leaves the lock, as does whoever gives back what it had taken in the first
//!   of two steps, also to a channel that is closed. So while the word says so, there is nothing to receive.

use crate::{
    chan::core::Ended,
    facade::{
        AtomicU8,
        Ordering::{Relaxed, Release, SeqCst},
    },
};

/// Only the lock tells.
const UNKNOWN: u8 = 0;
/// Open, without values, and no sender waits.
const EMPTY: u8 = 1;
/// Closed, and without values.
const ENDED: u8 = 2;

/// See the module.
pub(super) struct Glance(AtomicU8);

impl Glance {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(UNKNOWN))
    }

    /// The end of a receive that finds nothing and does not wait.
    #[inline]
    pub(super) fn look(&self) -> Option<Ended> {
        // ORDERING: SeqCst. For two parties of which one sends here and then looks elsewhere, and the other writes there and then looks here: at least one
        // finds what the other wrote, if both accesses elsewhere are SeqCst too, such as those to another channel. (If this took the lock, their
        // ordering would not matter.) A send that finds UNKNOWN stores nothing, but comes after the store that put it there. For ENDED Acquire is
        // enough: pairs with the Release below.
        match self.0.load(SeqCst) {
            EMPTY => Some(Ended::WouldBlock),
            ENDED => Some(Ended::Closed),
            _ => None,
        }
    }

    /// Under the lock: nothing was found to receive, and the channel is open.
    #[inline]
    pub(super) fn is_empty(&self) {
        // ORDERING: Relaxed. Under the lock, which publishes it; nobody takes anything over from this value.
        self.0.store(EMPTY, Relaxed);
    }

    /// Under the lock: nothing was found, and the channel is closed.
    #[inline]
    pub(super) fn has_ended(&self) {
        // ORDERING: Release. Passes on what the one who closed the channel had done before (HB-03), which this one knows by the lock.
        self.0.store(ENDED, Release);
    }

    /// Under the lock: something was added, or the channel was closed.
    #[inline]
    pub(super) fn has_changed(&self) {
        // ORDERING: Relaxed. It is changed under the lock only.
        if self.0.load(Relaxed) != UNKNOWN {
            // ORDERING: SeqCst, as in `look`.
            self.0.store(UNKNOWN, SeqCst);
        }
    }
}
