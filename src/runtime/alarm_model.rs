//! What models have in the place of `alarm`: the same names, and an alarm thread that is a thread of the model.
//!
//! No time passes in a model. An alarm goes off when [`ring`] is called, whenever that is, as if it were due just then.

use std::{collections::BTreeMap, time::Instant};

use crate::{facade::thread, util::Lock};

pub(crate) type Action = Box<dyn FnOnce() + Send>;

loom::lazy_static! {
    static ref SET: Lock<Set> = Lock::new(Set { actions: BTreeMap::new(), next_key: 0, rings: None, elsewhere: Vec::new() });
}

struct Set {
    actions: BTreeMap<u64, Action>,
    next_key: u64,
    /// The alarm thread, while it is at work.
    rings: Option<thread::ThreadId>,
    /// What that one has left to others to drop (R2 of `alarm`).
    elsewhere: Vec<Box<dyn Send>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Alarm(u64);

impl Alarm {
    pub(crate) fn set(_when: Instant, action: impl FnOnce() + Send + 'static) -> Self {
        let mut set = SET.lock();
        let key = set.next_key;
        set.next_key += 1;
        set.actions.insert(key, Box::new(action));
        Self(key)
    }

    pub(crate) fn cancel(&self) -> bool {
        self.take().is_some()
    }

    pub(crate) fn take(&self) -> Option<Action> {
        SET.lock().actions.remove(&self.0)
    }
}

/// Runs what is set now, as the alarm thread would.
pub(crate) fn ring() {
    let mut set = SET.lock();
    set.rings = Some(thread::current().id());
    let due = std::mem::take(&mut set.actions);
    drop(set);
    due.into_values().for_each(|action| action());
    SET.lock().rings = None;
}

/// Whether the caller is the alarm thread.
pub(crate) fn rings_here() -> bool {
    SET.lock().rings == Some(thread::current().id())
}

/// Drops what the alarm thread has left, and says how many alarms are set.
pub(crate) fn settle() -> usize {
    let mut set = SET.lock();
    let (left, elsewhere) = (set.actions.len(), std::mem::take(&mut set.elsewhere));
    drop(set);
    drop(elsewhere);
    left
}

pub(crate) fn drop_elsewhere<T: Send + 'static>(value: T) {
    SET.lock().elsewhere.push(Box::new(value));
}

/// A goroutine of a model is a call: it runs at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HomeRuntime;

impl HomeRuntime {
    pub(crate) fn here() -> Self {
        Self
    }

    pub(crate) fn go(self, f: impl FnOnce() + Send + 'static) {
        f();
    }
}
