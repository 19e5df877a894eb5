//! Stacks: address space in large slabs, a guard below each stack, metadata beside them, caches for reuse.
//!
//! - S1: slabs and their metadata are never unmapped, so a `&'static M` stays good whatever happens to its goroutine. Memory is given
//!   back page by page, address space never.
//! - S2: a slot has one owner at a time: the pool (unused, clean or dirty), one cache, or one goroutine. Only idle slots change hands.
//! - S3: pages are given back of idle slots only. The frames of a suspended goroutine may be borrowed from other threads
//!   (`std::thread::scope`), so its stack is never touched, moved, reused or unmapped.
//! - S4: below every stack lies a guard larger than the frames that compilers leave unprobed. It is in place before the slot is
//!   handed out for the first time, and stays.
//! - S5: a closure reserves its stack when it is made, not when it starts, so that whoever asks for too much gets the error.
//!
//! A slot of the default size takes 256 KiB of address space: 64 KiB guard and 192 KiB stack, of which a goroutine that does not
//! recurse touches one page. The stride is a power of two to keep page tables small: eight stacks share one page of them.
//! The tops are staggered by a few cache lines. With equal tops the hot lines of all stacks fall into the same cache sets.
//!
//! This layer does not know that there is a scheduler.

mod advice;
mod cache;
mod guard;
mod limits;
pub(crate) mod overflow;
mod slab;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use self::{advice::Range, guard::Guards, overflow::RawStderr, slab::Slab};
pub(crate) use self::{cache::Cache, slab::RESERVED};

/// What the runtime keeps beside each stack.
pub(crate) trait Metadata: Sync + Sized + 'static {
    /// The record of a slot that is handed out for the first time.
    fn new(bounds: Bounds) -> Self;

    fn bounds(&self) -> Bounds;

    /// Says whose stack overflowed. Called in a signal handler: no allocation, no lock.
    fn report_overflow(&self, out: &mut RawStderr);
}

/// Where a stack lies: usable from `limit()` up to `top()`; the guard lies directly below `limit()`. Small, since every goroutine's
/// record has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    limit: usize,
    /// Bytes from the limit to the top.
    usable: u32,
    /// Address space of the slot, in units of 4 KiB.
    stride: u32,
}

impl Bounds {
    fn new(start: usize, stride: usize, stagger: usize) -> Self {
        let usable = u32::try_from(stride - guard::SIZE - stagger).expect("a stack is smaller than 4 GiB");
        Self { limit: start + guard::SIZE, usable, stride: (stride / 4096) as u32 }
    }

    /// Staggered, aligned to a cache line.
    #[inline]
    pub(crate) fn top(&self) -> usize {
        self.limit + self.usable as usize
    }

    #[inline]
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Address space of the slot, its guard included.
    pub(crate) fn stride(&self) -> usize {
        self.stride as usize * 4096
    }

    /// Bytes of the guard.
    pub(crate) fn guard(&self) -> usize {
        guard::SIZE
    }

    /// The first byte of the guard.
    fn start(&self) -> usize {
        self.limit - guard::SIZE
    }
}

/// Dirty slots that keep their pages, so that the next burst finds warm stacks.
const WARM: usize = 512;
/// New slots that are made in one go, with one call for their guards.
const NEW: usize = 32;

/// All stacks of one size. Lives as long as the process.
pub(crate) struct Pool<M: Metadata> {
    stride: usize,
    state: Mutex<State<M>>,
}

struct State<M: Metadata> {
    slabs: Vec<Slab<M>>,
    /// The slab that hands out its next unused slot; those before it are used up.
    cursor: usize,
    /// Idle, with pages; the coldest in front.
    dirty: VecDeque<&'static M>,
    /// Idle, without pages.
    clean: Vec<&'static M>,
    /// New, without a guard, for which the kernel had no memory (S4).
    bare: Vec<&'static M>,
    /// Slots that the slabs can hand out in all.
    capacity: usize,
    /// Slots promised to closures (S5).
    reserved: usize,
}

impl<M: Metadata> Pool<M> {
    /// A pool of stacks of `size` bytes of address space each, rounded up to 64 KiB, with room for the guard at least.
    pub(crate) fn new(size: usize) -> Self {
        let least = guard::SIZE + 64 * 1024;
        let stride = size.next_multiple_of(64 * 1024).max(least);
        let state = State {
            slabs: Vec::new(),
            cursor: 0,
            dirty: VecDeque::new(),
            clean: Vec::new(),
            bare: Vec::new(),
            capacity: 0,
            reserved: 0,
        };
        Self { stride, state: Mutex::new(state) }
    }

    pub(crate) fn stack_size(&self) -> usize {
        self.stride
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that `count` more slots can be handed out.
    pub(crate) fn reserve(&self, count: usize) -> io::Result<()> {
        let mut state = self.lock();
        let wanted = state.reserved + count;
        state.grow_to(wanted, self.stride)?;
        state.reserved += count;
        Ok(())
    }

    /// Takes back a promise.
    pub(crate) fn unreserve(&self, count: usize) {
        let mut state = self.lock();
        debug_assert!(state.reserved >= count);
        state.reserved -= count;
    }

    /// Moves idle slots into `cache`, warm ones first, about `want` of them; an error when not even one could be had, which with slots reserved
    /// happens only when the kernel itself is out of memory.
    pub(crate) fn refill(&self, cache: &mut Cache<M>, want: usize) -> io::Result<()> {
        self.take(want)?.into_iter().for_each(|slot| cache.accept(slot));
        Ok(())
    }

    /// Reserves and takes one slot.
    pub(crate) fn take_one(&self) -> io::Result<&'static M> {
        self.reserve(1)?;
        let mut slots = self.take(1).map_err(|error| {
            self.unreserve(1);
            // The kernel's own word says nothing of what was wanted.
            if error.raw_os_error().is_none() {
                return error;
            }
            limits::exhausted("no memory is left for the guard of a stack")
        })?;
        let slot = slots.pop().expect("at least one is taken");
        if !slots.is_empty() {
            self.lock().clean.append(&mut slots);
        }
        Ok(slot)
    }

    /// Takes up to `want` idle slots, or some new ones when none is idle; at least one.
    ///
    /// The idle slots may all be in the caches of other workers, of this runtime or another one, which do not give them back: the pool
    /// grows then.
    fn take(&self, want: usize) -> io::Result<Vec<&'static M>> {
        let (slots, guards) = {
            let mut state = self.lock();
            if !state.has_one() {
                let wanted = state.capacity + 1;
                state.grow_to(wanted, self.stride)?;
            }
            let idle = state.take_idle(want);
            if !idle.is_empty() {
                return Ok(idle);
            }
            state.take_new()?
        };
        match guards {
            Guards::Markers => self.guard(slots),
            Guards::Protection => Ok(slots),
        }
    }

    /// S4: puts markers below new slots. Without the lock, so that workers do it side by side: it takes longer than all else here.
    fn guard(&self, mut slots: Vec<&'static M>) -> io::Result<Vec<&'static M>> {
        let made = Guards::Markers.install_all(slots.iter().map(|slot| slot.bounds().start()));
        let mut bare = slots.split_off(*made.as_ref().unwrap_or(&0));
        if !bare.is_empty() {
            self.lock().bare.append(&mut bare);
        }
        made.map(|_| slots)
    }

    /// Takes back what [`take_one`](Self::take_one) gave.
    pub(crate) fn put_one(&self, slot: &'static M) {
        let mut state = self.lock();
        state.dirty.push_back(slot);
        state.reserved -= 1;
    }

    /// Takes idle slots from a cache.
    fn give_back(&self, slots: impl Iterator<Item = &'static M>) {
        self.lock().dirty.extend(slots);
    }

    /// Gives the pages of up to `most` idle slots back to the kernel; how many it were. A few stay warm.
    pub(crate) fn trim(&self, most: usize) -> usize {
        let mut batch = {
            let mut state = self.lock();
            let surplus = state.dirty.len().saturating_sub(WARM).min(most);
            // From the cold end.
            state.dirty.drain(..surplus).collect::<Vec<_>>()
        };
        batch.sort_unstable_by_key(|slot| slot.bounds().start());
        let runs = batch.chunk_by(|a, b| a.bounds().start() + a.bounds().stride() == b.bounds().start());
        let ranges: Vec<_> = runs.map(|run| Range::new(run[0].bounds().start(), run.len() * self.stride)).collect();
        // Guards stay.
        // SAFETY: nobody uses the stacks of idle slots, and these were taken from the pool (S2, S3).
        unsafe { advice::give_back(&ranges) };
        let count = batch.len();
        self.lock().clean.extend(batch);
        count
    }

    /// Whether [`trim`](Self::trim) would find something.
    pub(crate) fn has_surplus(&self) -> bool {
        self.lock().dirty.len() > WARM
    }

    /// Calls `each` with every slot that was ever handed out.
    pub(crate) fn each(&self, mut each: impl FnMut(&'static M)) {
        let state = self.lock();
        state.slabs.iter().for_each(|slab| slab.each(&mut each));
    }
}

impl<M: Metadata> State<M> {
    /// Prepares slots until the slabs can hand out `wanted` in all.
    fn grow_to(&mut self, wanted: usize, stride: usize) -> io::Result<()> {
        while self.capacity < wanted {
            let missing = wanted - self.capacity;
            let more = match self.slabs.last_mut().map(|slab| slab.prepare(missing)) {
                // The last slab has guards of the kind that costs mappings: they are made ahead, so that failing is ours to report.
                Some(Ok(more)) if more > 0 => more,
                Some(Err(error)) => return Err(error),
                _ => {
                    let size = self.slabs.last().map_or(slab::FIRST_SIZE, Slab::next_size);
                    let slab = Slab::new(stride, size)?;
                    let capacity = slab.capacity();
                    self.slabs.push(slab);
                    capacity
                }
            };
            self.capacity += more;
        }
        Ok(())
    }

    /// Whether there is a slot to take.
    fn has_one(&self) -> bool {
        !self.dirty.is_empty()
            || !self.clean.is_empty()
            || !self.bare.is_empty()
            || self.slabs[self.cursor..].iter().any(Slab::has_room)
    }

    /// Up to `want`, the warmest first.
    fn take_idle(&mut self, want: usize) -> Vec<&'static M> {
        let (warm, cold) = (&mut self.dirty, &mut self.clean);
        std::iter::from_fn(|| warm.pop_back().or_else(|| cold.pop())).take(want).collect()
    }

    /// Some, and how the guards are made that they have, or with markers are still to get.
    fn take_new(&mut self) -> io::Result<(Vec<&'static M>, Guards)> {
        if !self.bare.is_empty() {
            return Ok((self.bare.split_off(self.bare.len().saturating_sub(NEW)), Guards::Markers));
        }
        while self.cursor + 1 < self.slabs.len() && self.slabs[self.cursor].is_used_up() {
            self.cursor += 1;
        }
        match self.slabs.get_mut(self.cursor) {
            Some(slab) if slab.has_room() => Ok((slab.hand_out(NEW), slab.guards())),
            _ => Err(limits::exhausted("no stack is left")),
        }
    }
}
