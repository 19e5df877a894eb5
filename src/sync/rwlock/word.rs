//! The word of a [`RawRwLock`](super::RawRwLock): its bits, and what may be done by looking at it. What always holds is in the module above.
//!
//! | bit | set | when |
//! |---|---|---|
//! | `WRITER` | by the writer, or by the one who hands over | a writer holds the lock; excludes readers and the upgradable reader |
//! | `READERS_WAIT` | under the gate, with the push of a node | the queue of readers may hold nodes |
//! | `WRITERS_WAIT` | under the gate, with the push of a node | the queue of writers may hold nodes |
//! | `WOKEN` | by a writer's unlock, or the last reader's, that woke a writer | that one is on its way, and holds new readers back: it takes the lock, or goes back to the front of the queue, and clears the bit in that step |
//! | `STARVING` | under the gate, by a woken writer that came too late and has waited for more than 1 ms | the lock is handed over to the first writer in the queue. A last reader that does so clears it |
//! | `UPGRADABLE` | by the upgradable reader, or by the one who lets it in | a reader that may become the writer holds the lock; excludes writers and its own kind, not readers |
//! | `UPGRADING` | under the gate, by the upgradable reader | it waits for the readers to leave. Never without `UPGRADABLE` |
//! | `UPGRADABLES_WAIT` | under the gate, with the push of a node | the queue of upgradable readers may hold nodes |
//! | `UPGRADED` | with `WRITER`, when the upgradable reader becomes the writer and writers wait | it has been served before a writer: when it lets go, no other upgradable reader comes in before a writer |
//! | `LENIENT` | under the gate, by a writer's unlock that has let readers in and called a writer that waits | that one is on its way, and does not hold new readers back before it comes: then it takes the lock, or goes back to the front of the queue, and clears the bit in that step |
//! | the rest | by readers | how many readers hold the lock, the upgradable one not counted |
//!
//! Who holds the lock: nobody; the writer; any number of readers, with an upgradable one or without. `WRITER` and `UPGRADABLE` meet only
//! while the last reader, under the gate, looks whether the upgrade still waits (R6).

pub(super) const WRITER: usize = 1;
pub(super) const READERS_WAIT: usize = 2;
pub(super) const WRITERS_WAIT: usize = 4;
pub(super) const WOKEN: usize = 8;
pub(super) const STARVING: usize = 16;
pub(super) const UPGRADABLE: usize = 32;
pub(super) const UPGRADING: usize = 64;
pub(super) const UPGRADABLES_WAIT: usize = 128;
pub(super) const UPGRADED: usize = 256;
pub(super) const LENIENT: usize = 512;
/// One reader.
pub(super) const READER: usize = 1024;

/// A writer that was called has not come by yet.
pub(super) const CALLED: usize = WOKEN | LENIENT;
/// No writer is called while one of these is set: the first in the queue starves, and is to be handed the lock; or another has been called.
pub(super) const NO_CALL: usize = STARVING | CALLED;
/// The queues that may hold nodes.
pub(super) const QUEUES: usize = READERS_WAIT | WRITERS_WAIT | UPGRADABLES_WAIT;

/// How many readers there are, the upgradable one not counted.
#[inline]
pub(super) fn readers(word: usize) -> usize {
    word / READER
}

/// How the lock is held together with readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::sync) enum Read {
    Plain,
    /// Heeds no writer that waits.
    Recursive,
    /// May become the writer; one at a time.
    Upgradable,
}

impl Read {
    /// Whether such a reader may come in (R2).
    #[inline]
    pub(super) fn may_enter(self, word: usize) -> bool {
        let excluded = match self {
            Self::Plain => WRITER | WRITERS_WAIT | WOKEN | UPGRADING,
            Self::Recursive => WRITER,
            Self::Upgradable => WRITER | WRITERS_WAIT | CALLED | UPGRADABLE,
        };
        word & excluded == 0
    }

    /// Whether such a reader comes in rather than wait, beside writers that wait: the one whose turn it is has been called (R8).
    #[inline]
    pub(super) fn enters_meanwhile(self, word: usize) -> bool {
        self == Self::Plain && word & (LENIENT | WRITER | WOKEN | UPGRADING) == LENIENT
    }

    /// The word when it has come in.
    #[inline]
    pub(super) fn enter(self, word: usize) -> usize {
        match self {
            Self::Plain | Self::Recursive => {
                // The other half is for those who wait and are let in together: no more than have a stack.
                assert!(word <= usize::MAX / 2, "too many readers");
                word + READER
            }
            Self::Upgradable => word | UPGRADABLE,
        }
    }

    /// The bit of its queue.
    #[inline]
    pub(super) fn waits(self) -> usize {
        match self {
            Self::Plain | Self::Recursive => READERS_WAIT,
            Self::Upgradable => UPGRADABLES_WAIT,
        }
    }
}

/// Whether a writer may take the lock: one that was called (`mine` is not 0) whenever nobody holds it, others if no readers wait either, or it is the turn of
/// one that is on its way.
pub(super) fn can_write(word: usize, mine: usize) -> bool {
    let excluded = WRITER | UPGRADABLE | if mine == 0 && !is_on_its_way(word) { READERS_WAIT } else { 0 };
    word & excluded == 0 && readers(word) == 0
}

/// Whether a writer has been woken that others may still overtake.
pub(super) fn is_on_its_way(word: usize) -> bool {
    word & (WOKEN | STARVING) == WOKEN
}

/// The word when the upgradable reader has become the writer.
#[inline]
pub(super) fn upgraded(word: usize) -> usize {
    let mark = if word & (WRITERS_WAIT | LENIENT) != 0 { UPGRADED } else { 0 };
    (word & !(UPGRADABLE | UPGRADING)) | WRITER | mark
}

/// Who gets the write lock when a reader, upgradable or not, leaves `rest` behind. `is_overdue` says it of a writer that is on its way.
#[inline]
pub(super) fn heir(rest: usize, is_overdue: impl FnOnce() -> bool) -> Option<Heir> {
    if rest & (WRITERS_WAIT | UPGRADING) == 0 || readers(rest) > 0 {
        None
    } else if rest & UPGRADING != 0 {
        Some(Heir::Upgrader)
    } else {
        // A writer on its way comes by.
        (rest & UPGRADABLE == 0 && (rest & CALLED == 0 || is_overdue())).then_some(Heir::Writer)
    }
}

/// See [`heir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heir {
    /// The upgradable reader.
    Upgrader,
    /// The first writer in the queue.
    Writer,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where addresses have 32 bits, 4 million guards that were forgotten filled the count, and those let in beside them made it wrap.
    #[test]
    #[should_panic = "too many readers"]
    fn readers_that_are_let_in_together_find_room_in_the_count() {
        let most_waiting = 1 << 20;
        Read::Plain.enter(usize::MAX - most_waiting * READER);
    }
}
