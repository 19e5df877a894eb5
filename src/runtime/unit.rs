//! A unit is one who can wait: a started goroutine or a plain thread. Its claim word decides who may wake it.
//!
//! - U1 (P1, tickets): every wait that can be ended from more than one side opens with [`Unit::arm`], which makes a ticket
//!   that this unit never had before. Ending the wait is one compare-exchange from exactly that ticket. Whoever comes late
//!   (an `unpark`, an expired timer, a losing partner of a `select`) holds an old ticket and fails without harm.
//! - U2: units live in memory that is never given back ("type-stable"), so a late waker may look at the word at any time.
//! - U3: only the holder of a successful claim, or the one who took the unit's node out of a wait queue under that queue's
//!   lock in a wait without a ticket, may call [`Unit::wake`](super::park), and does so exactly once (P2).
//! - U4: between `arm` and the end of the wait the word is odd; otherwise it is even. Only the unit itself arms.

use std::num::NonZeroU64;

use crate::facade::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed, Release},
};

/// One wait of one unit. Never reused: a 63-bit counter for each unit does not run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroU64);

impl Ticket {
    /// The ticket of the wait during which the claim word is `word`, or one less: tickets are odd.
    #[inline]
    fn of(word: u64) -> Self {
        Self(NonZeroU64::MIN | word)
    }

    /// The ticket as a number that is odd and larger than 1, for packing into a word.
    pub(crate) fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// The ticket that [`to_bits`](Self::to_bits) made `bits` from.
    pub(crate) fn from_bits(bits: u64) -> Self {
        debug_assert!(bits & 1 == 1 && bits > 1, "not a ticket: {bits}");
        Self::of(bits)
    }
}

/// Who the unit is part of: the address of a goroutine's slot, or of a thread's parker, told apart by the lowest bit.
///
/// Not one of the facade's atomics: it is written before the unit is shown to anybody and constant from then on for parkers;
/// a slot writes the same address at each start.
#[derive(Debug)]
pub(crate) struct Home(std::sync::atomic::AtomicPtr<()>);

impl Home {
    const THREAD: usize = 1;

    /// Before [`set_slot`](Self::set_slot) or [`set_parker`](Self::set_parker).
    const fn unknown() -> Self {
        Self(std::sync::atomic::AtomicPtr::new(std::ptr::null_mut()))
    }

    pub(crate) fn set_slot(&self, slot: *const ()) {
        // ORDERING: Relaxed. Published with the unit itself.
        self.0.store(slot.cast_mut(), Relaxed);
    }

    pub(crate) fn set_parker(&self, parker: *const ()) {
        // ORDERING: Relaxed, as above.
        self.0.store(parker.cast_mut().map_addr(|address| address | Self::THREAD), Relaxed);
    }

    #[inline]
    pub(crate) fn is_thread(&self) -> bool {
        // ORDERING: Relaxed, as above.
        self.0.load(Relaxed).addr() & Self::THREAD != 0
    }

    /// The address that was set.
    #[inline]
    pub(crate) fn whole(&self) -> *const () {
        // ORDERING: Relaxed, as above.
        self.0.load(Relaxed).map_addr(|address| address & !Self::THREAD).cast_const()
    }
}

/// The part of a waiting party that others may touch; a field of a goroutine's slot and of a thread's parker.
#[derive(Debug)]
pub(crate) struct Unit {
    claim: AtomicU64,
    home: Home,
}

impl Unit {
    /// A unit that has never waited. The first word is 2, so that a ticket is never 1.
    pub(crate) fn new() -> Self {
        Self { claim: AtomicU64::new(2), home: Home::unknown() }
    }

    /// Who this unit is part of.
    #[inline]
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// Opens a wait that may be ended from several sides. Called by the unit itself, before it tells anybody.
    #[inline]
    pub(crate) fn arm(&self) -> Ticket {
        // ORDERING: Relaxed. While the word is even only the unit itself writes it (U4); the last claimer's write was
        // seen with the wake that followed it.
        let word = self.claim.load(Relaxed);
        debug_assert!(word & 1 == 0, "armed twice: {word}");
        // ORDERING: Release. What the unit did with its queue link before is over for the claimer; pairs with the
        // AcqRel in `try_claim`.
        self.claim.store(word + 1, Release);
        Ticket::of(word)
    }

    /// Ends the wait that `ticket` opened, if nobody has. On true the caller alone decides what happens to the unit (U3).
    #[inline]
    #[must_use]
    pub(crate) fn try_claim(&self, ticket: Ticket) -> bool {
        // ORDERING: AcqRel. Acquire pairs with the Release in `arm`; Release orders the claim before what the owner
        // sees once it finds its own claim lost. A failed look publishes nothing.
        self.claim.compare_exchange(ticket.to_bits(), ticket.to_bits() + 1, AcqRel, Relaxed).is_ok()
    }

    /// As [`try_claim`](Self::try_claim) with the ticket of the wait that is open now, if one is. For whoever the unit opens no other wait
    /// before: its own timer, which is armed with a wait and disarmed before the next one, and the goroutine that it joins (J8 of `join_state`).
    #[must_use]
    pub(crate) fn try_claim_open(&self) -> bool {
        // ORDERING: Relaxed. The compare-exchange decides.
        let word = self.claim.load(Relaxed);
        word & 1 == 1 && self.try_claim(Ticket::of(word))
    }
}
