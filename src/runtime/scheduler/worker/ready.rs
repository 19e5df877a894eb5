//! Who is ready on a worker, and in which order they run.
//!
//! - B6: *who computes comes after who talks.* A goroutine whose turns are long (`LONG`) is *patient*, all others are *prompt*. The turn of a patient one
//!   comes when those who were prompt at the end of the last such turn have had theirs; of each kind, who came first runs first. So whoever feeds
//!   a pool, or collects what it has done, waits for one of those that compute and not for all of them; and one that computes waits at most twice for
//!   whoever was there. One that computes and wakes a prompt one is interrupted for it, and goes on as the first of the patient ones until its slice is used up.
//!
//! A turn in which a tick of the coarse clock ends is likely to be long: then the turns of that goroutine are measured, until they are short
//! ([`Worker::execute`](super::Worker)).

use std::{cell::Cell, time::Duration};

use super::SLICE;
use crate::runtime::{
    scheduler::{Linked, inbox::Chain, run_queue::RunQueue},
    slot::Slot,
};

/// A turn that is long: hundreds of switches, and more than a few system calls.
pub(super) const LONG: Duration = Duration::from_micros(10);

/// Who stands in a [`Ready`].
pub(super) trait Paced: Linked {
    /// Whether its turns are long.
    fn computes(&self) -> bool;
}

impl Paced for Slot {
    #[inline]
    fn computes(&self) -> bool {
        self.has_long_turns()
    }
}

/// See the module.
pub(super) struct Ready<T: Paced> {
    prompt: RunQueue<T>,
    patient: RunQueue<T>,
    /// How many of the prompt ones come before the next patient one; `UNCOUNTED` when the turn of one has begun.
    before: Cell<u32>,
    /// The tick in which the first turn of whoever was interrupted last has ended, and whether it is the first of the patient ones.
    interrupted: Cell<Option<u64>>,
    resumes: Cell<bool>,
}

const UNCOUNTED: u32 = u32::MAX;

impl<T: Paced> Ready<T> {
    pub(super) fn new() -> Self {
        Self {
            prompt: RunQueue::new(),
            patient: RunQueue::new(),
            before: Cell::new(UNCOUNTED),
            interrupted: Cell::new(None),
            resumes: Cell::new(false),
        }
    }

    #[inline]
    pub(super) fn push(&self, node: &'static T) {
        self.prompt.push_back(node);
    }

    #[inline]
    pub(super) fn append(&self, chain: Chain<T>) {
        self.prompt.append(chain);
    }

    /// Adds one that computes and is interrupted in the tick `now`.
    pub(super) fn push_interrupted(&self, node: &'static T, now: u64) {
        let since = self.interrupted.get().unwrap_or(now);
        if now.wrapping_sub(since) < SLICE {
            self.interrupted.set(Some(since));
            self.resumes.set(true);
            self.patient.push_front(node);
        } else {
            self.interrupted.set(None);
            self.patient.push_back(node);
        }
    }

    /// Whose turn it is.
    #[inline]
    pub(super) fn pop(&self) -> Option<&'static T> {
        if self.patient.is_empty() {
            let node = self.prompt.pop_front()?;
            if !node.computes() {
                return Some(node);
            }
            self.patient.push_back(node);
        }
        self.pop_of_both()
    }

    #[inline(never)]
    fn pop_of_both(&self) -> Option<&'static T> {
        let mut before = self.before.get().min(self.prompt.len());
        while before > 0
            && let Some(node) = self.prompt.pop_front()
        {
            before -= 1;
            if !node.computes() {
                self.before.set(before);
                return Some(node);
            }
            self.patient.push_back(node);
        }
        self.before.set(UNCOUNTED);
        if !self.resumes.take() {
            self.interrupted.set(None);
        }
        self.patient.pop_front()
    }

    /// The one that [`pop`](Self::pop) is about to give, and the address of the one behind it, null for none: a guess where there are both kinds.
    #[inline]
    pub(super) fn first_two(&self) -> (Option<&'static T>, *const T) {
        let longer = if self.prompt.len() >= self.patient.len() { &self.prompt } else { &self.patient };
        longer.first_two()
    }

    /// Whether a prompt one comes next, or after a patient one at the most: a guess, where one that computes stands before it.
    #[inline]
    pub(super) fn begins_prompt(&self) -> bool {
        self.prompt.first_two().0.is_some_and(|first| !first.computes())
    }

    /// Whether a patient one is ready: a guess, where it stands behind a prompt one.
    #[inline]
    pub(super) fn has_patient(&self) -> bool {
        !self.patient.is_empty() || self.prompt.first_two().0.is_some_and(Paced::computes)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.prompt.is_empty() && self.patient.is_empty()
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.prompt.len() + self.patient.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        ptr,
        sync::atomic::{AtomicBool, AtomicPtr, Ordering::Relaxed},
    };

    use super::*;

    struct Node {
        next: AtomicPtr<Self>,
        name: char,
        computes: AtomicBool,
    }

    impl Linked for Node {
        fn link(&self) -> &AtomicPtr<Self> {
            &self.next
        }
    }

    impl Paced for Node {
        fn computes(&self) -> bool {
            self.computes.load(Relaxed)
        }
    }

    /// Those with capital letters compute.
    fn node(name: char) -> &'static Node {
        let computes = AtomicBool::new(name.is_uppercase());
        Box::leak(Box::new(Node { next: AtomicPtr::new(ptr::null_mut()), name, computes }))
    }

    fn push(ready: &Ready<Node>, names: &str) {
        names.chars().for_each(|name| ready.push(node(name)));
    }

    fn pop(ready: &Ready<Node>, many: usize) -> String {
        (0..many).map_while(|_| ready.pop()).map(|node| node.name).collect()
    }

    #[test]
    fn b6_who_computes_comes_after_who_talks() {
        let ready = Ready::new();
        push(&ready, "AbCd");
        assert_eq!((ready.len(), pop(&ready, 3).as_str()), (4, "bdA"));
        // Both came during the turn of A.
        push(&ready, "ef");
        assert_eq!(pop(&ready, 9), "efC");
        assert!(ready.is_empty());
        push(&ready, "ABC");
        assert_eq!(pop(&ready, 9), "ABC");
    }

    #[test]
    fn b6_who_computes_waits_at_most_twice_for_those_who_were_there() {
        let ready = Ready::new();
        push(&ready, "AcdB");
        let mut turns = String::new();
        for _ in 0..16 {
            // Each is ready again at once.
            let turn = ready.pop().unwrap();
            turns.push(turn.name);
            ready.push(turn);
        }
        assert_eq!(turns, "cdAcdBcdAcdBcdAc");
        let ready = Ready::new();
        push(&ready, "cdA");
        let turns: String = (0..10)
            .map(|_| {
                let turn = ready.pop().unwrap();
                ready.push(turn);
                turn.name
            })
            .collect();
        assert_eq!(turns, "cdcdAcdcdA");
    }

    #[test]
    fn b6_who_is_interrupted_goes_on_first_until_its_slice_is_used_up() {
        let ready = Ready::new();
        push(&ready, "AB");
        let a = ready.pop().unwrap();
        for now in 7..7 + SLICE {
            push(&ready, "c");
            ready.push_interrupted(a, now);
            assert_eq!(pop(&ready, 2), "cA");
        }
        ready.push_interrupted(a, 7 + SLICE);
        let b = ready.pop().unwrap();
        assert_eq!(b.name, 'B');
        // Its slice begins anew, also when it had waited meanwhile.
        ready.push_interrupted(b, 8 + SLICE);
        assert_eq!(pop(&ready, 9), "BA");
        ready.push_interrupted(a, 20);
        assert_eq!(pop(&ready, 1), "A");
        push(&ready, "B");
        assert_eq!(pop(&ready, 1), "B");
        push(&ready, "D");
        ready.push_interrupted(b, 30);
        assert_eq!(pop(&ready, 9), "BD");
    }

    /// Against a queue of its own for each kind, with the rule written down as it is said.
    #[test]
    fn b6_random_turns_are_those_of_a_naive_twin() {
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
        let ready = Ready::new();
        let (mut prompt, mut patient) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
        // Those who were prompt when a patient one's turn ended, as far as they are still there.
        let mut before = None;
        let mut names = ('a'..='z').cycle();
        for _ in 0..20_000 {
            if random(2) == 0 {
                let name = names.next().unwrap();
                let name = if random(3) == 0 { name.to_ascii_uppercase() } else { name };
                ready.push(node(name));
                prompt.push_back(name);
                continue;
            }
            let expected = loop {
                if patient.is_empty() && prompt.front().is_none_or(|name| char::is_lowercase(*name)) {
                    break prompt.pop_front();
                }
                let left = before.unwrap_or(prompt.len()).min(prompt.len());
                if patient.is_empty() || left > 0 {
                    let first = prompt.pop_front().unwrap();
                    if !patient.is_empty() {
                        before = Some(left - 1);
                    }
                    if char::is_lowercase(first) {
                        break Some(first);
                    }
                    patient.push_back(first);
                } else {
                    before = None;
                    break patient.pop_front();
                }
            };
            assert_eq!(ready.pop().map(|node| node.name), expected);
            assert_eq!(ready.len() as usize, prompt.len() + patient.len());
        }
    }
}
