//! Whether a worker whose connections are silent gives its core up for a moment before it looks at them for the last time.
//!
//! Who talks to this process from the same machine may be waiting for the core. Let in, it often answers at once, and the worker has the next
//! batch without having slept: nobody had to wake it, and no core went idle in between. But the core may also go to somebody who computes and
//! keeps it for a whole slice of the kernel, where a sleeper would have been woken sooner. The two differ in how much time goes to long
//! absences: with peers less than half, beside one who computes nearly everything. So a worker gives way for as long as it does not
//! lose more than half of its time by that, and each time that it does, the share that it may lose is halved.

use std::time::{Duration, Instant};

/// An absence below this counts for nothing: the core was given to somebody who waits for messages, as we do, or to nobody.
const LONG: Duration = Duration::from_micros(300);
/// What may be lost at once, with peers that have much to do.
const CREDIT: i64 = 100_000_000;
/// The shares of its time that a worker may lose are one in `1 << FIRST` to one in `1 << LAST`.
const FIRST: u32 = 1;
const LAST: u32 = 8;
/// After so long without losing too much the share doubles.
const CALM: Duration = Duration::from_secs(1);
/// A core that is back before has been wanted by nobody.
const WANTED: Duration = Duration::from_micros(2);
/// When nobody has wanted it so many times in a row, it is offered every so many times only: each costs a fifth of a microsecond.
const VAIN: u32 = 64;
const SELDOM: u32 = 8;

/// See the module.
pub(super) struct GiveWay {
    /// The share, as the exponent of its denominator.
    share: u32,
    /// What may be lost, in nanoseconds, when that was reckoned last; negative is a debt.
    credit: i64,
    reckoned: Instant,
    /// When the share was changed last.
    changed: Instant,
    /// How many times in a row nobody has wanted the core, or was not asked.
    vain: u32,
}

impl GiveWay {
    pub(super) fn new(now: Instant) -> Self {
        Self { share: FIRST, credit: CREDIT, reckoned: now, changed: now, vain: 0 }
    }

    /// Gives the core up, unless that has cost too much of late.
    pub(super) fn pass(&mut self) {
        if !self.is_worth_asking() {
            return;
        }
        let now = Instant::now();
        if self.may(now) {
            std::thread::yield_now();
            self.note(now, now.elapsed());
        }
    }

    fn is_worth_asking(&mut self) -> bool {
        if self.vain < VAIN || self.vain.is_multiple_of(SELDOM) {
            return true;
        }
        self.vain = self.vain.wrapping_add(1);
        false
    }

    fn may(&mut self, now: Instant) -> bool {
        self.credit = CREDIT.min(self.credit.saturating_add(nanos(now - self.reckoned) >> self.share));
        self.reckoned = now;
        self.credit > 0
    }

    /// `absence`: for how long the core was gone, from `now` on.
    fn note(&mut self, now: Instant, absence: Duration) {
        self.vain = if absence < WANTED { self.vain.wrapping_add(1) } else { 0 };
        if absence >= LONG {
            self.credit -= nanos(absence);
            if self.credit <= 0 && self.share < LAST {
                self.share += 1;
                self.changed = now;
            }
        } else if self.share > FIRST && now - self.changed >= CALM {
            self.share -= 1;
            self.changed = now;
        }
    }
}

fn nanos(time: Duration) -> i64 {
    time.as_nanos().try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::GiveWay;

    const STEP: Duration = Duration::from_micros(50);

    /// The share of `span` that goes to absences of the given lengths, each after a step of work.
    fn lost(way: &mut GiveWay, mut now: Instant, span: Duration, absences: &[Duration]) -> f64 {
        let (begin, mut lost, mut absences) = (now, Duration::ZERO, absences.iter().cycle());
        while now - begin < span {
            now += STEP;
            if way.is_worth_asking() && way.may(now) {
                let absence = *absences.next().unwrap();
                way.note(now, absence);
                now += absence;
                lost += absence;
            }
        }
        lost.as_secs_f64() / span.as_secs_f64()
    }

    #[test]
    fn beside_one_who_computes_hardly_any_time_is_lost() {
        let now = Instant::now();
        let mut way = GiveWay::new(now);
        let slice = [Duration::from_millis(4)];
        let second = Duration::from_secs(1);
        let first = lost(&mut way, now, 2 * second, &slice);
        assert!((0.03..0.25).contains(&first), "{first}");
        let later = lost(&mut way, now + 2 * second, 10 * second, &slice);
        assert!(later < 0.01, "{later}");
        // He has gone.
        let after = lost(&mut way, now + 12 * second, 20 * second, &[STEP]);
        assert!(after > 0.4, "{after}");
    }

    #[test]
    fn peers_have_the_core_whenever_there_is_nothing_to_do() {
        let now = Instant::now();
        let mut way = GiveWay::new(now);
        // A third of the time goes to absences that are long.
        let mut absences = [STEP; 10];
        absences[9] = Duration::from_micros(450);
        let share = lost(&mut way, now, Duration::from_secs(10), &absences);
        let always = (9 * STEP + absences[9]).as_secs_f64() / (19 * STEP + absences[9]).as_secs_f64();
        assert!((always - share).abs() < 0.01, "{share}, {always} when asked every time");
    }

    #[test]
    fn a_core_that_nobody_wants_is_seldom_offered() {
        let now = Instant::now();
        let mut way = GiveWay::new(now);
        let offered = (0..4096)
            .filter(|round| {
                let now = now + STEP * *round;
                let asked = way.is_worth_asking() && way.may(now);
                if asked {
                    way.note(now, Duration::from_nanos(500));
                }
                asked
            })
            .count();
        assert!((500..600).contains(&offered), "{offered} of 4096");
    }
}
