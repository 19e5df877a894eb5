//! `RwLock`: many readers or one writer; a waiting writer holds back new readers, and those are let in before the next writer. One of the
//! readers at a time may be upgradable: it may become the writer without letting go.
//!
//! As in `mutex`, a word says how things stand ([`word`] has its bits), and the queues stand beside it behind a gate: one of readers, one
//! of writers, one of upgradable readers, and the place of the upgradable reader that waits to become the writer. What the parties do is in
//! `readers`, `upgrade` and `writer`.
//!
//! # What always holds
//!
//! - R1: while `WRITER` is set, others than the writer change the word only under the gate. So the writer, once it has the gate, is the only
//!   one who writes it.
//! - R2: a reader comes in only while none of `WRITER`, `WRITERS_WAIT`, `WOKEN`, `UPGRADING` is set (RW-02); recursive readers look at
//!   `WRITER` only. An upgradable one heeds the same, and others of its kind. R8 is the exception.
//! - R3: *readers and writers take turns*, so nobody starves.
//!   - A writer's unlock lets in all readers that wait (RW-03) and the first upgradable one; if there are none, it is the first writer's turn.
//!     So it is when the last reader of either kind leaves.
//!   - A writer that was the upgradable reader went before those that wait. So it lets no other upgradable one in before them (`UPGRADED`):
//!     parties that upgrade one after the other would keep writers out.
//!   - A writer whose turn it is is *called*: woken, to take the lock by itself. Until it comes other writers may overtake it, and with it
//!     the readers that wait for it, for about 1 ms: otherwise the lock would lie idle for each wake. After that it is handed the lock.
//!   - One that has not come by then may be stuck behind a goroutine that holds its worker. It keeps its turn, but unlocks wait for it no longer:
//!     they let in who waits, as if nobody were on its way (`called_at`).
//!   - Between upgradable readers none overtakes, not even for that long: who leaves hands over to the first, or leaves it to the next writer to
//!     let it in.
//! - R4 (P3, last touch): as M3 of `mutex`. An unlock that finds nobody to wake leaves the gate first; the compare-exchange on the word is its
//!   last touch. One that wakes touches the lock only while it holds a claim on somebody that it has not woken yet.
//! - R5: no wake is lost: who waits sets its bit in the same step in which it sees that it has to. While a queue of readers or of upgradable
//!   ones has anybody to let in, one of the bits that hold them back is set, and whoever clears the last of these lets them in or hands
//!   on. The writer does so when it lets go or steps down, the writer and the upgrade that give up when they leave their queue.
//! - R6: an upgrade goes before all writers that wait, since none of them can have the lock before the upgradable reader lets go. While it
//!   waits no reader comes in but recursive ones, so it ends. The last reader becomes the writer for the upgrade in the step in which it
//!   leaves, with the gate, and passes the lock on. If the upgrade has given up in that very moment, the last reader takes that step back;
//!   the one that gave up holds its upgradable lock as before, and has still to come by the gate, which keeps the lock alive for the last
//!   reader (R4).
//! - R7: an upgrade that gives up ends a turn of writing like an unlock: all readers that wait come in, those that a queue of writers holds
//!   back too. None of the writers could have had the lock now, and some reader may be a recursive one that met with R6's step.
//! - R8: *a writer that is called behind readers makes no plain reader wait before it comes.* Where writers still wait when a writer lets readers in, the
//!   first of them is called as well, and until it comes by `LENIENT` is set. Otherwise each reader that was let in would wait again after one turn, for
//!   as long as there are writers. No writer is called so where one starves (`STARVING`).
//!   - Other plain readers come in rather than wait, whether or not more writers wait. Those that only try do so unless more writers wait.
//!   - Upgradable readers wait, as for any writer, and a writer's unlock with no readers to let in leaves the lock to it.
//!   - When it comes, finds the lock held and looks again a few times in vain, it goes back to the front of the queue, and clears `LENIENT` in that step:
//!     from then on `WRITERS_WAIT` holds readers back. So it waits for those that its worker lets run before it, and for one turn of the readers.
//!   - Whoever else holds the write lock may clear `LENIENT` at any time: that only holds readers back earlier.

#[cfg(not(loom))]
mod api;
mod readers;
mod upgrade;
mod word;
mod writer;

pub(super) use self::word::Read;
use self::word::{CALLED, READERS_WAIT, UPGRADABLE, UPGRADABLES_WAIT, UPGRADING, WRITER, WRITERS_WAIT, readers};
use crate::{
    facade::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    runtime::{park, until::Until, waitq::WaitQueue},
    util::{Lock, backoff::Backoff, lock::Guard},
};

#[cfg(all(feature = "arc_lock", not(loom)))]
pub use api::{ArcRwLockReadGuard, ArcRwLockUpgradableReadGuard, ArcRwLockWriteGuard};
#[cfg(not(loom))]
pub use api::{
    MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLock, RwLockReadGuard, RwLockUpgradableReadGuard,
    RwLockWriteGuard, const_rwlock,
};

/// How often a party tries before it queues. Fewer times than for a mutex: who holds this lock may hold it long.
const ROUNDS: u32 = 4;

type Gate<'a> = Guard<'a, ()>;

/// The lock without a value, for the types of [`lock_api`](https://docs.rs/lock_api/0.4/lock_api/). What programs use is [`RwLock`].
pub struct RawRwLock {
    word: AtomicUsize,
    /// Guards the queues. Under it: a few loads and stores, claims, no wake (L1).
    gate: Lock<()>,
    waiting_readers: WaitQueue,
    waiting_writers: WaitQueue,
    waiting_upgradables: WaitQueue,
    /// The upgradable reader, while it waits to become the writer: one at most.
    upgrader: WaitQueue,
    /// The tick of the coarse clock in which the last writer was called.
    called_at: AtomicU32,
}

// SAFETY: the queues are reached under the gate only; their nodes belong to parties that wait until they are out of them (Q1).
unsafe impl Send for RawRwLock {}
// SAFETY: as above.
unsafe impl Sync for RawRwLock {}

impl RawRwLock {
    const_new! {
        /// Not locked.
        pub(crate) fn new() -> Self {
            Self {
                word: AtomicUsize::new(0),
                gate: Lock::new(()),
                waiting_readers: WaitQueue::new(),
                waiting_writers: WaitQueue::new(),
                waiting_upgradables: WaitQueue::new(),
                upgrader: WaitQueue::new(),
                called_at: AtomicU32::new(0),
            }
        }
    }
}

/// Tries, and leaves the lock alone for a moment in between: others of this worker run, who may be those that are waited for. Where there is no other
/// worker they are, and it is left to them to wake the caller. Who may give up lets nobody run: a pass of the run queue may be long.
fn spin(until: Until<'_>, mut attempt: impl FnMut() -> bool) -> bool {
    let mut backoff = Backoff::new();
    for _ in 0..ROUNDS {
        if attempt() {
            return true;
        }
        if park::is_on_only_worker() {
            break;
        }
        if until.is_ever() {
            park::linger(0);
        } else if !backoff.pause() {
            break;
        }
    }
    false
}

impl std::fmt::Debug for RawRwLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // ORDERING: Relaxed. Says how it was.
        let word = self.word.load(Relaxed);
        f.debug_struct("RawRwLock")
            .field("readers", &readers(word))
            .field("upgradable", &(word & UPGRADABLE != 0))
            .field("writer", &(word & WRITER != 0))
            .field("waiting_readers", &(word & READERS_WAIT != 0))
            .field("waiting_upgradables", &(word & UPGRADABLES_WAIT != 0))
            .field("waiting_writers", &(word & (WRITERS_WAIT | CALLED | UPGRADING) != 0))
            .finish()
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<RawRwLock>() == 8 + 9 * size_of::<usize>(), "the tick lies beside the gate");

/// Whether in a model all writers that were called are late.
#[cfg(loom)]
pub(super) mod loom_overdue {
    use std::cell::Cell;

    thread_local! {
        /// All threads of a model are one of the system's.
        pub(in crate::sync) static ALWAYS: Cell<bool> = const { Cell::new(false) };
    }
}

#[cfg(loom)]
impl RawRwLock {
    /// What R5 forbids, for the model that must fail: looks for writers that wait and lets go in two steps.
    ///
    /// # Safety
    ///
    /// As [`release_shared`](Self::release_shared).
    pub(super) unsafe fn release_shared_broken(&self) {
        if self.word.load(Relaxed) & WRITERS_WAIT == 0 {
            self.word.fetch_sub(word::READER, crate::facade::Ordering::Release);
        } else {
            // SAFETY: passed on.
            unsafe { self.release_shared() };
        }
    }
}
