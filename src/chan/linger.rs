//! Whether a party looks again for a moment before it parks.
//!
//! Between two workers a park costs a wake from the other side: lines of the unit, of the inbox and of the node go to and fro, and maybe a
//! thread sleeps. When the partner is at work meanwhile, what is waited for is often there a moment later, with more behind it. So on a
//! channel that another worker has used a short while ago a party first lets others of its worker run. Where there are none, or that was not
//! enough, it leaves the channel alone for a moment, unless one of the others computes: its turn is such a moment. What came of that is
//! remembered for the channel: where it does not pay it is tried now and then only. Who has a time limit does not linger: a pass of the run
//! queue may be long.

/// How often one party looks again.
const ROUNDS: u32 = 8;
const MOST_CREDIT: u8 = 8;
const FIRST_CREDIT: u8 = 2;
/// Without credit one in so many parks is preceded by an attempt.
const PROBE: u8 = 64;

/// What has come of lingering on one side of a channel. Under the channel's lock.
#[derive(Debug)]
pub(crate) struct Linger {
    credit: u8,
    skipped: u8,
}

impl Linger {
    pub(crate) const fn new() -> Self {
        Self { credit: FIRST_CREDIT, skipped: 0 }
    }

    /// Whether to look again, after `rounds` times.
    pub(crate) fn again(&mut self, rounds: u32) -> bool {
        if rounds == ROUNDS {
            self.credit = self.credit.saturating_sub(1);
            return false;
        }
        if rounds == 0 && self.credit == 0 {
            self.skipped = (self.skipped + 1) % PROBE;
            return self.skipped == 0;
        }
        true
    }

    /// It paid.
    pub(crate) fn paid(&mut self) {
        self.credit = (self.credit + 1).min(MOST_CREDIT);
    }
}
