//! What can be cancelled: a tree of nodes, in which an end runs downwards.
//!
//! - K1: a child keeps its parents alive; a parent knows its children weakly, and a child that ends or is dropped takes itself out. So a
//!   context without handles costs its parent nothing.
//! - K2: `failure` is set once, and only by whoever then closes `done`, or sees to it that it is closed, before it returns. So does
//!   whoever finds it set and is to tell of it. Readers believe it only when `done` is closed, so an error that can be seen is one whose
//!   `done` is closed.
//! - K3: once a node has a failure it takes no dependants: a child that comes too late ends at its birth, with the node's failure.
//! - K4: a node's list of child nodes is emptied only after all below it are marked and closed. So a second canceller, who finds the mark but
//!   not yet the end of the work, walks the same list and does the same work, and returns no earlier than what it promises.
//! - K5: one lock is held at a time, and for list operations only. Wakes, closures, and drops of what others own happen outside (P6).
//!   The walk is a loop over a list of its own: trees may be deep, and a goroutine's stack is small.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, OnceLock, Weak},
    time::Instant,
};

use super::{Cause, ContextError};
use crate::{
    chan::{Receiver, Sender, unbuffered},
    runtime::{
        alarm::{Alarm, Home},
        park::{self, Wake},
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

/// One cancellable context.
pub(crate) struct Node {
    close: Sender<()>,
    done: Receiver<()>,
    failure: OnceLock<Failure>,
    deadline: Option<Instant>,
    parents: [Option<Parent>; 2],
    /// A leaf: nothing else is taken under it.
    state: Lock<State>,
}

struct Parent {
    node: Arc<Node>,
    key: u64,
}

struct State {
    dependants: BTreeMap<u64, Dependant>,
    next_key: u64,
    alarm: Option<Alarm>,
}

/// What is told of a node's end.
enum Dependant {
    Node(Weak<Node>),
    Func(Home, Box<dyn FnOnce() + Send>),
    Wait(&'static Unit, Ticket),
}

impl Node {
    /// A node below up to two others, of which it takes the earliest deadline, with one of its own.
    pub(super) fn child_of(parents: [Option<&Arc<Self>>; 2], deadline: Option<Instant>) -> Arc<Self> {
        let inherited = parents.iter().flatten().filter_map(|parent| parent.deadline).min();
        // Who has the later deadline needs no alarm: the parent's end reaches it.
        let own = deadline.filter(|own| inherited.is_none_or(|inherited| *own < inherited));
        let (close, done) = unbuffered();
        let node = Arc::new_cyclic(|node: &Weak<Self>| Self {
            close,
            done,
            failure: OnceLock::new(),
            deadline: own.or(inherited),
            parents: parents.map(|parent| {
                let key = parent?.add(Dependant::Node(Weak::clone(node))).ok()?;
                Some(Parent { node: Arc::clone(parent?), key })
            }),
            state: Lock::new(State { dependants: BTreeMap::new(), next_key: 1, alarm: None }),
        });
        // K3, also for a parent whose walk came by before there was anything to upgrade. That walk marks and upgrades under the parent's lock:
        // either we see its mark, or it sees our node.
        for parent in parents.into_iter().flatten() {
            let state = parent.state.lock();
            let failure = parent.failure.get().cloned();
            drop(state);
            if let Some(failure) = failure {
                node.cancel(failure);
            }
        }
        if let Some(own) = own
            && node.failure.get().is_none()
        {
            node.end_at(own);
        }
        node
    }

    fn end_at(self: &Arc<Self>, deadline: Instant) {
        let exceeded = || Failure { error: ContextError::DeadlineExceeded, cause: None };
        if deadline <= Instant::now() {
            return self.cancel(exceeded());
        }
        // Strong: a forgotten context ends at its deadline all the same.
        let node = Arc::clone(self);
        let alarm = Alarm::set(deadline, move || node.cancel(exceeded()));
        self.state.lock().alarm = Some(alarm);
        // Ended meanwhile: either that end found the alarm, or we see its mark.
        if self.failure.get().is_some() {
            self.drop_alarm();
        }
    }

    fn drop_alarm(&self) {
        let alarm = self.state.lock().alarm.take();
        if let Some(alarm) = alarm {
            alarm.cancel();
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
        if self.done.is_closed() { self.failure.get() } else { None }
    }

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

    /// Takes out what was added. False: the end has come to it before.
    pub(super) fn forget(&self, key: u64) -> bool {
        let taken = self.state.lock().dependants.remove(&key);
        taken.is_some()
    }

    /// See [`Interrupt::watch`](crate::runtime::interrupt::Interrupt::watch).
    pub(super) fn watch(&self, unit: &'static Unit, ticket: Ticket) -> Option<u64> {
        let key = self.add(Dependant::Wait(unit, ticket)).ok();
        if key.is_none() {
            // K2: marked, but whoever does it may not have come to closing yet, and the caller is going to say why.
            let _ = self.close.close();
        }
        key
    }

    /// Ends this context and all below it.
    pub(super) fn cancel(self: &Arc<Self>, failure: Failure) {
        let mut found = vec![(Arc::clone(self), failure)];
        let mut told = Vec::new();
        let _p4 = park::no_switch();
        // Mark, parents before their children. The list grows while it is walked.
        let mut at = 0;
        while at < found.len() {
            let (node, failure) = found[at].clone();
            at += 1;
            let mut state = node.state.lock();
            // The first end counts, under the lock (K3).
            let failure = node.failure.get_or_init(|| failure).clone();
            for (key, dependant) in mem::take(&mut state.dependants) {
                match dependant {
                    Dependant::Node(child) => {
                        // One that cannot be upgraded is about to take itself out.
                        found.extend(child.upgrade().map(|child| (child, failure.clone())));
                        state.dependants.insert(key, Dependant::Node(child));
                    }
                    other => told.push(other),
                }
            }
            drop(state);
        }
        for (node, _) in &found {
            let _ = node.close.close();
        }
        for (node, _) in &found {
            let emptied = mem::take(&mut node.state.lock().dependants);
            drop(emptied);
            node.drop_alarm();
            node.leave_parents();
        }
        for dependant in &told {
            if let Dependant::Wait(unit, ticket) = dependant
                && unit.try_claim(*ticket)
            {
                unit.wake(Wake::Queue);
            }
        }
        for dependant in told {
            if let Dependant::Func(home, f) = dependant {
                home.go(f);
            }
        }
    }

    fn leave_parents(&self) {
        for parent in self.parents.iter().flatten() {
            parent.node.forget(parent.key);
        }
    }

    #[cfg(test)]
    pub(super) fn dependants(&self) -> usize {
        self.state.lock().dependants.len()
    }

    #[cfg(test)]
    pub(super) fn has_alarm(&self) -> bool {
        self.state.lock().alarm.is_some_and(|alarm| alarm.is_set())
    }
}

/// K1; a long line of ancestors that goes with it is dropped in a loop.
impl Drop for Node {
    fn drop(&mut self) {
        self.leave_parents();
        let mut ancestors: Vec<Arc<Self>> = self.parents.iter_mut().filter_map(Option::take).map(|p| p.node).collect();
        while let Some(ancestor) = ancestors.pop() {
            if let Some(mut last) = Arc::into_inner(ancestor) {
                last.leave_parents();
                ancestors.extend(last.parents.iter_mut().filter_map(Option::take).map(|p| p.node));
            }
        }
    }
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
        match node.add(Dependant::Func(Home::here(), f)) {
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
