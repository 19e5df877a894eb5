//! What can be cancelled: a tree, in which an end runs downwards.
//!
//! A context is two things. Its [`Node`] is what contexts, handles, alarms and the nodes below hold: who has it may yet end it, or make
//! something from it. Its [`Core`] is what an end has to reach.
//!
//! - K1: a node keeps its parents alive. A core knows only the cores below, which it keeps, so there are no circles. A child that ends takes its
//!   core out of its parents' lists, and so does one whose node is dropped: a context without handles costs its parent nothing. But where
//!   somebody still has its `done`, or a function waits for its end, the core of a dropped node is left to its parents as an *orphan*, and so
//!   are the orphans that were left to it: they end with those parents.
//! - K2: `failure` is set once, and only by whoever then closes `done`, or sees to it that it is closed, before it returns. So does
//!   whoever finds it set and is to tell of it. Readers believe it only when `done` is closed, so an error that can be seen is one whose
//!   `done` is closed. Nothing but an end closes `done`: of a core that can no longer end the sender is kept for whoever listens (`keep_open`).
//! - K3: once a core has a failure it takes no dependants: a child that comes too late ends at its birth, with the core's failure.
//! - K4: a core's lists of cores are emptied only after all below it are marked and closed, and neither a node that is dropped meanwhile nor one
//!   that is being made takes out what is not closed. So a second canceller, who finds the mark but not yet the end of the work, walks the same
//!   lists and does the same work, and returns no earlier than what it promises.
//! - K5: one lock is held at a time, and for list operations only. The one exception: who leaves orphans to a parent holds the lock of the child
//!   that has them and then takes the parent's, so that a walk, which goes downwards, misses none. Wakes, closures, and drops of what others own
//!   happen outside of locks (P6).
//!   The walk is a loop over a list of its own: trees may be deep, and a goroutine's stack is small. It enters a core with two parents once: where
//!   such cores stand below each other, the ways through them are too many to go them all.
//! - K6: an orphan is dropped when it has nothing to do any more, since it has ended or nobody listens. Nobody tells of that, so a list of orphans
//!   is looked through whenever it has doubled.
//!
//! Models: `context::loom_models`.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Arc, Weak},
    time::Instant,
};

use super::{Cause, ContextError};
use crate::{
    chan::{Receiver, Sender, never, unbuffered},
    facade::OnceLock,
    runtime::{
        alarm::{self, Alarm, HomeRuntime},
        park::{self, Wake},
        present,
        unit::{Ticket, Unit},
    },
    util::Lock,
};

/// How a context has ended.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) error: ContextError,
    pub(super) cause: Option<Cause>,
}

impl Failure {
    /// Whether the other's cause, if it has one, is in here too.
    fn has_cause_of(&self, other: &Self) -> bool {
        match (&self.cause, &other.cause) {
            (_, None) => true,
            (Some(mine), Some(its)) => Arc::ptr_eq(mine, its),
            (None, Some(_)) => false,
        }
    }
}

/// One cancellable context, for those who may end it or be below it.
pub(crate) struct Node {
    core: Arc<Core>,
    done: Receiver<()>,
    deadline: Option<Instant>,
    parents: [Option<Parent>; 2],
}

struct Parent {
    node: Arc<Node>,
    key: u64,
}

/// One cancellable context, for an end to reach.
struct Core {
    close: Sender<()>,
    failure: OnceLock<Failure>,
    /// A leaf, but for K5.
    state: Lock<State>,
}

struct State {
    dependants: BTreeMap<u64, Dependant>,
    next_key: u64,
    /// By their addresses: one that had two parents may be left twice to the same core.
    orphans: BTreeMap<usize, Arc<Core>>,
    /// K6: with more of them it is worth to look through them.
    most_orphans: usize,
    alarm: Option<Alarm>,
    /// Of a core with two parents that has not ended: which they are, and the keys by which they have it.
    merged: Option<[(Weak<Core>, u64); 2]>,
}

/// K6: fewer orphans are not looked through.
const FEW: usize = 32;

/// What is told of a core's end.
enum Dependant {
    Core(Arc<Core>),
    Func(HomeRuntime, Box<dyn FnOnce() + Send>),
    Wait(&'static Unit, Ticket),
}

/// What an end came through, for the caller to drop: others may have dropped the rest of it meanwhile, and there are causes in it.
#[derive(Default)]
struct Walked {
    /// With how the one above has ended.
    cores: Vec<(Arc<Core>, Failure)>,
    /// Other parents, which nobody has any more.
    parents: Vec<Core>,
    /// The alarms of deadlines that do not come any more.
    alarms: Vec<alarm::Action>,
}

impl Dependant {
    /// Wakes those who wait, and starts the functions. A child is told by the walk.
    fn tell_all(all: Vec<Self>) {
        for dependant in &all {
            if let Self::Wait(unit, ticket) = dependant
                && unit.try_claim(*ticket)
            {
                unit.wake(Wake::Queue);
            }
        }
        for dependant in all {
            if let Self::Func(home, f) = dependant {
                home.go(f);
            }
        }
    }
}

impl Walked {
    /// Closes what was marked (K2).
    fn close_all(&self) {
        for (core, _) in &self.cores {
            let _ = core.close.close();
        }
    }

    /// Takes the cores out of each other's lists (K4), and of those of other parents too. To be called when all are closed.
    fn empty_lists(&mut self) {
        for (core, _) in &self.cores {
            let mut state = core.state.lock();
            let emptied = (mem::take(&mut state.dependants), mem::take(&mut state.orphans));
            let (alarm, merged) = (state.alarm.take(), state.merged.take());
            drop(state);
            // Each of them was found.
            drop(emptied);
            self.alarms.extend(alarm.and_then(|alarm| alarm.take()));
            for (parent, key) in merged.into_iter().flatten() {
                if let Some(parent) = parent.upgrade() {
                    parent.forget(key);
                    self.parents.extend(Arc::into_inner(parent));
                }
            }
        }
    }

    /// Whether all causes in here are such.
    fn has_only(&self, such: impl Fn(&Failure) -> bool) -> bool {
        self.parents.is_empty()
            && self.alarms.is_empty()
            && self.cores.iter().all(|(core, above)| such(above) && core.failure.get().is_some_and(&such))
    }
}

impl Node {
    /// A node below up to two others, of which it takes the earliest deadline, with one of its own and the cause that counts if that one comes.
    pub(super) fn child_of(parents: [Option<&Arc<Self>>; 2], deadline: Option<(Instant, Option<Cause>)>) -> Arc<Self> {
        let inherited = parents.iter().flatten().filter_map(|parent| parent.deadline).min();
        // Who has the later deadline needs no alarm: the parent's end reaches it.
        let own = deadline.filter(|(own, _)| inherited.is_none_or(|inherited| *own < inherited));
        let (close, done) = unbuffered();
        let core = Arc::new(Core { close, failure: OnceLock::new(), state: Lock::new(State::new()) });
        let mut node =
            Self { core, done, deadline: own.as_ref().map(|(own, _)| *own).or(inherited), parents: [None, None] };
        for (at, parent) in parents.into_iter().enumerate() {
            let Some(parent) = parent else { continue };
            match parent.core.add(Dependant::Core(Arc::clone(&node.core))) {
                Ok(key) => node.parents[at] = Some(Parent { node: Arc::clone(parent), key }),
                // K3.
                Err(_) => drop(node.core.cancel(parent.core.failure.get().expect("it takes no dependants").clone())),
            }
        }
        if let [Some(a), Some(b)] = &node.parents {
            let place = |parent: &Parent| (Arc::downgrade(&parent.node.core), parent.key);
            let merged = [place(a), place(b)];
            node.core.state.lock().merged = Some(merged);
        }
        if node.core.failure.get().is_some() {
            // The end may have come from one parent, before we were on the list of the other. K4: whoever marked us may not have come to closing
            // yet, and a second canceller does not find us on the list any more.
            let _ = node.core.close.close();
            node.leave_lists();
        }
        let node = Arc::new(node);
        if let Some((own, cause)) = own
            && node.core.failure.get().is_none()
        {
            node.end_at(own, Failure { error: ContextError::DeadlineExceeded, cause });
        }
        node
    }

    fn end_at(self: &Arc<Self>, deadline: Instant, failure: Failure) {
        if deadline <= present::now() {
            return self.cancel(failure);
        }
        // Strong: a forgotten context ends at its deadline all the same.
        let node = Arc::clone(self);
        let alarm = Alarm::set(deadline, move || node.is_over(failure));
        self.core.state.lock().alarm = Some(alarm);
        // Ended meanwhile: either that end found the alarm, or we see its mark.
        if self.core.failure.get().is_some() {
            self.core.drop_alarm();
        }
    }

    /// The deadline has passed. A cause is the user's, and so is its `Drop`, which this thread does not run (R2 of `alarm`).
    fn is_over(self: Arc<Self>, failure: Failure) {
        let walked = self.core.cancel(failure.clone());
        self.leave_lists();
        // While we have the node nothing that is dropped here is the last to have the same cause.
        let same = |other: &Failure| self.core.failure.get().is_some_and(|first| first.has_cause_of(other));
        if same(&failure) {
            drop(failure);
        } else {
            alarm::drop_elsewhere(failure);
        }
        if walked.has_only(same) {
            drop(walked);
        } else {
            alarm::drop_elsewhere(walked);
        }
        if let Some(last) = Arc::into_inner(self) {
            alarm::drop_elsewhere(last);
        }
    }

    pub(super) fn done(&self) -> &Receiver<()> {
        &self.done
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How the context has ended, if it has (K2).
    pub(super) fn failure(&self) -> Option<&Failure> {
        if self.done.is_closed() { self.core.failure.get() } else { None }
    }

    /// Takes out what was added. False: the end has come to it before.
    pub(super) fn forget(&self, key: u64) -> bool {
        self.core.forget(key)
    }

    /// See [`Interrupt::watch`](crate::runtime::interrupt::Interrupt::watch).
    pub(super) fn watch(&self, unit: &'static Unit, ticket: Ticket) -> Option<u64> {
        self.tell(Dependant::Wait(unit, ticket)).ok()
    }

    /// Adds who is to be told of the end, and then asks how it came; given back when that is now.
    fn tell(&self, dependant: Dependant) -> Result<u64, Dependant> {
        let added = self.core.add(dependant);
        if added.is_err() {
            // K2: marked, but whoever does it may not have come to closing yet.
            let _ = self.core.close.close();
        }
        added
    }

    /// Ends this context and all below it.
    pub(super) fn cancel(&self, failure: Failure) {
        drop(self.core.cancel(failure));
        self.leave_lists();
    }

    /// Takes the core, which has ended, out of the parents' lists.
    fn leave_lists(&self) {
        for parent in self.parents.iter().flatten() {
            parent.node.core.forget(parent.key);
        }
    }

    /// Leaves the parents, once; they are given back for the caller to drop.
    fn leave(&mut self) -> impl Iterator<Item = Arc<Self>> {
        let parents = mem::take(&mut self.parents);
        // From here on the channel is deaf unless somebody listens.
        drop(mem::replace(&mut self.done, never()));
        self.core.leave_to(&parents);
        parents.into_iter().flatten().map(|parent| parent.node)
    }

    #[cfg(test)]
    pub(super) fn dependants(&self) -> usize {
        let state = self.core.state.lock();
        state.dependants.len() + state.orphans.len()
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn has_alarm(&self) -> bool {
        self.core.state.lock().alarm.is_some_and(|alarm| alarm.is_set())
    }
}

/// K1; a long line of ancestors that goes with it is dropped in a loop.
impl Drop for Node {
    fn drop(&mut self) {
        let mut ancestors: Vec<Arc<Self>> = self.leave().collect();
        while let Some(ancestor) = ancestors.pop() {
            if let Some(mut last) = Arc::into_inner(ancestor) {
                ancestors.extend(last.leave());
            }
        }
    }
}

impl State {
    fn new() -> Self {
        Self {
            dependants: BTreeMap::new(),
            next_key: 1,
            orphans: BTreeMap::new(),
            most_orphans: FEW,
            alarm: None,
            merged: None,
        }
    }

    fn take_orphans(&mut self, mut orphans: BTreeMap<usize, Arc<Core>>, most: usize) {
        self.most_orphans = self.most_orphans.max(most);
        if orphans.len() > self.orphans.len() {
            mem::swap(&mut orphans, &mut self.orphans);
        }
        // What is there already is dropped here and stays there, so this drops nothing for good.
        self.orphans.extend(orphans);
    }
}

impl Core {
    /// Adds what is to be told of the end; given back when the end has come (K3).
    fn add(&self, dependant: Dependant) -> Result<u64, Dependant> {
        let mut state = self.state.lock();
        if self.failure.get().is_some() {
            return Err(dependant);
        }
        let key = state.next_key;
        state.next_key += 1;
        state.dependants.insert(key, dependant);
        Ok(key)
    }

    fn forget(&self, key: u64) -> bool {
        let taken = self.state.lock().dependants.remove(&key);
        taken.is_some()
    }

    fn drop_alarm(&self) {
        let alarm = self.state.lock().alarm.take();
        if let Some(alarm) = alarm {
            alarm.cancel();
        }
    }

    /// Ends this and all below it.
    fn cancel(self: &Arc<Self>, failure: Failure) -> Walked {
        if self.failure.get().is_some() && self.has_nothing_below() {
            // K4: what there was has been closed; the rest of the work is that of whoever marked this.
            let _ = self.close.close();
            return Walked::default();
        }
        let _p4 = park::no_switch();
        let (mut walked, told) = self.mark_all(failure);
        walked.close_all();
        walked.empty_lists();
        Dependant::tell_all(told);
        walked
    }

    /// Marks this and all below it as ended (K3), parents before their children. What it came through, and whom to tell.
    fn mark_all(self: &Arc<Self>, failure: Failure) -> (Walked, Vec<Dependant>) {
        let mut found = vec![(Arc::clone(self), failure)];
        let mut told = Vec::new();
        // Of the cores with two parents (K5).
        let mut entered = BTreeSet::new();
        // The list grows while it is walked.
        let mut at = 0;
        while at < found.len() {
            let (core, failure) = found[at].clone();
            at += 1;
            let mut state = core.state.lock();
            if state.merged.is_some() && !entered.insert(core.address()) {
                continue;
            }
            // The first end counts, under the lock (K3).
            let failure = core.failure.get_or_init(|| failure).clone();
            found.extend(state.orphans.values().map(|orphan| (Arc::clone(orphan), failure.clone())));
            for (key, dependant) in mem::take(&mut state.dependants) {
                match dependant {
                    Dependant::Core(child) => {
                        found.push((Arc::clone(&child), failure.clone()));
                        state.dependants.insert(key, Dependant::Core(child));
                    }
                    other => told.push(other),
                }
            }
            drop(state);
        }
        (Walked { cores: found, ..Walked::default() }, told)
    }

    /// Takes this out of its parents' lists, or leaves it and its orphans to them (K1). Nobody can add to it any more.
    fn leave_to(self: &Arc<Self>, parents: &[Option<Parent>; 2]) {
        if let [None, None] = parents {
            return;
        }
        // Open means that somebody listens.
        let listened = !self.close.is_closed();
        let mut state = self.state.lock();
        // Whether anybody would be told of an end: who listens, or what is on the list. Then this is an orphan from now on.
        let is_awaited = listened || !state.dependants.is_empty();
        let leaves_any = is_awaited || !state.orphans.is_empty();
        if !leaves_any && self.failure.get().is_some() {
            // Whoever ended it has taken it out, or is about to.
            return;
        }
        // Whether the end of a parent comes by here, to which this and its orphans have to stay where they are.
        let mut end_comes = false;
        let mut each = parents.iter().flatten().peekable();
        while let Some(parent) = each.next() {
            let core = &parent.node.core;
            let mut above = core.state.lock();
            if leaves_any && core.failure.get().is_some() {
                // K4: whoever ends it finds us on its list, which it empties.
                end_comes = true;
                continue;
            }
            above.dependants.remove(&parent.key);
            if is_awaited {
                above.orphans.insert(self.address(), Arc::clone(self));
            }
            let needed_here = end_comes || each.peek().is_some();
            let orphans = if needed_here { state.orphans.clone() } else { mem::take(&mut state.orphans) };
            above.take_orphans(orphans, state.most_orphans);
        }
        drop(state);
        if leaves_any {
            parents.iter().flatten().for_each(|parent| parent.node.core.drop_idle_orphans());
        }
    }

    /// K6.
    fn drop_idle_orphans(&self) {
        let state = self.state.lock();
        if state.orphans.len() <= state.most_orphans {
            return;
        }
        let mut orphans: Vec<_> = state.orphans.values().cloned().collect();
        drop(state);
        orphans.retain(|orphan| orphan.is_idle());
        let mut state = self.state.lock();
        for orphan in &orphans {
            state.orphans.remove(&orphan.address());
        }
        state.most_orphans = FEW.max(2 * state.orphans.len());
        drop(state);
        drop(orphans);
    }

    /// Whether nobody waits for the end of this, an orphan.
    fn is_idle(&self) -> bool {
        // Closed: it has ended, or nobody listens.
        self.close.is_closed() && self.has_nothing_below()
    }

    fn has_nothing_below(&self) -> bool {
        let state = self.state.lock();
        state.dependants.is_empty() && state.orphans.is_empty()
    }

    fn address(&self) -> usize {
        self.state.raw().address()
    }
}

/// K2: it can no longer end, and whoever listens is to find it open.
impl Drop for Core {
    fn drop(&mut self) {
        if self.failure.get().is_none() && !self.close.is_closed() {
            keep_open(self.close.clone());
        }
    }
}

#[cfg(not(loom))]
static KEPT_OPEN: Lock<(Vec<Sender<()>>, usize)> = Lock::new((Vec::new(), FEW));
#[cfg(loom)]
loom::lazy_static! {
    static ref KEPT_OPEN: Lock<(Vec<Sender<()>>, usize)> = Lock::new((Vec::new(), FEW));
}

/// Keeps a channel open for as long as somebody listens; as K6.
fn keep_open(sender: Sender<()>) {
    let mut kept = KEPT_OPEN.lock();
    kept.0.push(sender);
    if kept.0.len() <= kept.1 {
        return;
    }
    let mut senders = mem::take(&mut kept.0);
    drop(kept);
    senders.retain(|sender| !sender.is_closed());
    let mut kept = KEPT_OPEN.lock();
    kept.0.append(&mut senders);
    kept.1 = FEW.max(2 * kept.0.len());
}

/// A function that is to run when a context ends.
pub(crate) struct Registration(Kind);

enum Kind {
    /// Started already.
    Started,
    /// On a context that never ends: kept until it is stopped.
    Never(Lock<Option<Box<dyn FnOnce() + Send>>>),
    Pending(Arc<Node>, u64),
}

impl Registration {
    pub(super) fn new(node: Option<&Arc<Node>>, f: Box<dyn FnOnce() + Send>) -> Self {
        let Some(node) = node else { return Self(Kind::Never(Lock::new(Some(f)))) };
        match node.tell(Dependant::Func(HomeRuntime::here(), f)) {
            Ok(key) => Self(Kind::Pending(Arc::clone(node), key)),
            Err(Dependant::Func(home, f)) => {
                home.go(f);
                Self(Kind::Started)
            }
            Err(_) => unreachable!("what was given comes back"),
        }
    }

    /// Takes the function back and drops it; false when it was started or taken back before.
    pub(crate) fn remove(&self) -> bool {
        match &self.0 {
            Kind::Started => false,
            Kind::Never(f) => {
                let taken = f.lock().take();
                taken.is_some()
            }
            Kind::Pending(node, key) => node.forget(*key),
        }
    }
}
