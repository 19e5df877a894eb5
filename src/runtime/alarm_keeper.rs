//! The alarms that are set, and the sleep of the thread that keeps them (R1 and R3 of [`alarm`](super::alarm)).
//!
//! Models: `loom_keeper` below.

use std::{sync::PoisonError, time::Duration};

use crate::{
    facade::{Mutex, TimedCondvar},
    runtime::wheel::{Due, Key, Wheel},
    util::Lock,
};

pub(super) const SHARDS: usize = if cfg!(loom) { 2 } else { 8 };

/// Times are the wheels'; the greatest number is never.
pub(super) struct Keeper<T> {
    /// The locks are leaves: nothing else is taken under them.
    set: [Lock<Shard<T>>; SHARDS],
    sleep: Mutex<Sleep>,
    changed: TimedCondvar,
}

struct Shard<T> {
    wheel: Wheel<T>,
    /// R3.
    look_at: u64,
}

impl<T> Shard<T> {
    const fn new() -> Self {
        Self { wheel: Wheel::new(), look_at: u64::MAX }
    }
}

/// R3.
struct Sleep {
    wake_at: u64,
    changed: bool,
}

impl Sleep {
    const fn new() -> Self {
        Self { wake_at: u64::MAX, changed: false }
    }
}

impl<T> Keeper<T> {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        Self {
            set: [const { Lock::new(Shard::new()) }; SHARDS],
            sleep: Mutex::new(Sleep::new()),
            changed: TimedCondvar::new(),
        }
    }

    #[cfg(loom)]
    fn new() -> Self {
        Self {
            set: std::array::from_fn(|_| Lock::new(Shard::new())),
            sleep: Mutex::new(Sleep::new()),
            changed: TimedCondvar::new(),
        }
    }

    pub(super) fn set(&self, shard: usize, at: u64, item: T) -> Key {
        let mut set = self.set[shard].lock();
        let key = set.wheel.add(at, item);
        let sooner = at < set.look_at;
        if sooner {
            set.look_at = at;
        }
        drop(set);
        if sooner {
            let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            if at < sleep.wake_at {
                sleep.changed = true;
                drop(sleep);
                self.changed.notify_one();
            }
        }
        key
    }

    /// R1.
    pub(super) fn take(&self, shard: usize, key: Key) -> Option<T> {
        self.set[shard].lock().wheel.take(key)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, shard: usize, key: Key) -> bool {
        self.set[shard].lock().wheel.contains(key)
    }

    pub(super) fn is_any_set(&self) -> bool {
        self.set.iter().any(|shard| !shard.lock().wheel.is_empty())
    }

    // ---- what the thread does, in this order ----------------------------------------------------------------------------------

    /// Whoever sets an alarm from here on has the thread look again, unless it is seen before.
    pub(super) fn begins_to_look(&self) {
        let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        sleep.wake_at = u64::MAX;
        sleep.changed = false;
    }

    /// Takes out what is due, and says when to look again.
    pub(super) fn look(&self, now: u64, due: &mut Vec<Due<T>>) -> u64 {
        let mut next = u64::MAX;
        for shard in &self.set {
            let mut set = shard.lock();
            if set.look_at <= now {
                set.wheel.advance(now, due);
                set.look_at = set.wheel.next().unwrap_or(u64::MAX);
            }
            next = next.min(set.look_at);
        }
        next
    }

    /// Sleeps until `next`, to which `left` counts, or until an earlier alarm is set.
    pub(super) fn sleep_until(&self, next: u64, left: impl Fn() -> Option<Duration>) {
        let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        sleep.wake_at = next;
        while !sleep.changed {
            match left() {
                None => sleep = self.changed.wait(sleep).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => break,
                Some(left) => {
                    sleep = self.changed.wait_timeout(sleep, left).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_keeper {
    use loom::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::SeqCst},
        },
        thread,
    };

    use super::*;

    const NOW: u64 = 1 << 30;
    /// What does not come in a model.
    const LATER: u64 = 1 << 40;

    /// The thread, until `fire` says that it was the last. It sleeps for ever, which loom reports, if one is slept over.
    fn keep(keeper: &Keeper<&'static str>, fire: impl Fn(&'static str) -> bool) {
        loop {
            keeper.begins_to_look();
            let mut due = Vec::new();
            let next = keeper.look(NOW, &mut due);
            if due.into_iter().any(|due| fire(due.item)) {
                return;
            }
            keeper.sleep_until(next, || (next < u64::MAX).then_some(Duration::from_secs(1)));
        }
    }

    /// R3: of two who set an alarm each, one relies on the other where that one's is earlier; and the thread sleeps already, or goes to sleep, for ever or
    /// for a later alarm.
    fn no_alarm_is_slept_over(shards: [usize; 2], later: bool) {
        loom::model(move || {
            let keeper = Arc::new(Keeper::new());
            if later {
                keeper.set(0, LATER, "later");
            }
            let parties = [0, 1].map(|n| {
                let keeper = keeper.clone();
                thread::spawn(move || _ = keeper.set(shards[n], NOW - n as u64, "now"))
            });
            let fired = std::cell::Cell::new(0);
            keep(&keeper, |which| {
                assert_eq!(which, "now");
                fired.set(fired.get() + 1);
                fired.get() == 2
            });
            parties.into_iter().for_each(|party| party.join().unwrap());
            assert_eq!(keeper.is_any_set(), later);
        });
    }

    #[test]
    fn loom_no_alarm_of_one_shard_is_slept_over() {
        no_alarm_is_slept_over([0, 0], false);
        no_alarm_is_slept_over([0, 0], true);
    }

    #[test]
    fn loom_no_alarm_of_two_shards_is_slept_over() {
        no_alarm_is_slept_over([0, 1], false);
        no_alarm_is_slept_over([0, 1], true);
    }

    /// R3: the thread has woken because it was time, and looks; who sets an alarm for later than that tells it all the same.
    #[test]
    fn loom_no_alarm_that_is_set_meanwhile_is_slept_over() {
        loom::model(|| {
            let keeper = Arc::new(Keeper::new());
            keeper.set(0, NOW - 1, "first");
            keeper.begins_to_look();
            let next = keeper.look(0, &mut Vec::new());
            keeper.sleep_until(next, || Some(Duration::ZERO));
            let other = keeper.clone();
            let sets = thread::spawn(move || _ = other.set(0, NOW, "last"));
            keep(&keeper, |which| which == "last");
            sets.join().unwrap();
            assert!(!keeper.is_any_set());
        });
    }

    /// R1: an alarm that is taken back while it comes due fires or is taken back, and those beside it fire.
    #[test]
    fn loom_an_alarm_that_is_taken_back_fires_or_not() {
        loom::model(|| {
            let keeper = Arc::new(Keeper::new());
            let fired = Arc::new(AtomicUsize::new(0));
            let thread = {
                let (keeper, fired) = (keeper.clone(), fired.clone());
                thread::spawn(move || {
                    keep(&keeper, |which| {
                        fired.fetch_add(usize::from(which == "first"), SeqCst);
                        which == "last"
                    });
                })
            };
            let first = keeper.set(0, NOW - 1, "first");
            let taken = keeper.take(0, first).is_some();
            // Not sooner than what the shard is looked at for.
            keeper.set(0, NOW, "last");
            thread.join().unwrap();
            assert_eq!(fired.load(SeqCst), usize::from(!taken));
        });
    }
}
