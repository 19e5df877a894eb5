//! A worker's idle stacks, the warmest on top.

use super::{
    Metadata, Pool,
    advice::{self, Range},
};

/// Idle slots that a worker keeps.
const HIGH: usize = 256;
/// Bytes at the top of an idle stack that keep their pages.
const KEEP: usize = 16 * 1024;

/// See the module.
pub(crate) struct Cache<M: Metadata> {
    pool: &'static Pool<M>,
    idle: Vec<&'static M>,
    /// How many, from the bottom, have given their deep pages back.
    shallow: usize,
}

impl<M: Metadata> Cache<M> {
    pub(crate) fn new(pool: &'static Pool<M>) -> Self {
        Self { pool, idle: Vec::with_capacity(HIGH + 1), shallow: 0 }
    }

    /// The slot that was used last.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<&'static M> {
        let slot = self.idle.pop()?;
        self.shallow = self.shallow.min(self.idle.len());
        Some(slot)
    }

    #[inline]
    pub(crate) fn put(&mut self, slot: &'static M) {
        self.idle.push(slot);
        if self.idle.len() > HIGH {
            self.spill();
        }
    }

    pub(crate) fn is_warm(&self) -> bool {
        !self.idle.is_empty()
    }

    /// A slot from the pool.
    pub(super) fn accept(&mut self, slot: &'static M) {
        self.idle.push(slot);
    }

    /// Gives the colder half to the pool.
    #[cold]
    fn spill(&mut self) {
        let cold = self.idle.len() / 2;
        self.pool.give_back(self.idle.drain(..cold));
        self.shallow = self.shallow.saturating_sub(cold);
    }

    /// Whether [`trim_deep`](Self::trim_deep) would look at something.
    pub(crate) fn has_deep(&self) -> bool {
        self.shallow < self.idle.len()
    }

    /// Gives back the pages that only deep calls have touched. Once for each use of a slot.
    pub(crate) fn trim_deep(&mut self) {
        let page = rustix::param::page_size();
        let deep = |slot: &&M| {
            let bounds = slot.bounds();
            let keep = (bounds.top() - KEEP) & !(page - 1);
            (keep > bounds.limit()).then(|| Range::new(bounds.limit(), keep - bounds.limit()))
        };
        let ranges: Vec<_> = self.idle[self.shallow..].iter().filter_map(deep).collect();
        // SAFETY: nobody uses the stacks of idle slots, and these are ours (S2, S3).
        unsafe { advice::give_back(&ranges) };
        self.shallow = self.idle.len();
    }

    pub(crate) fn give_back_all(&mut self) {
        self.shallow = 0;
        self.pool.give_back(self.idle.drain(..));
    }
}
