//! A slab: one reservation of address space for many stacks, and their metadata.

use std::{io, marker::PhantomData, mem, ptr::NonNull};

#[cfg(target_os = "linux")]
use rustix::mm::{Advice, madvise};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::{Bounds, Metadata, guard::Guards, limits, overflow};

pub(crate) const FIRST_SIZE: usize = 16 << 20;
/// Where addresses have 32 bits much less is to be had in one piece.
const LAST_SIZE: usize = if usize::BITS < 64 { 128 << 20 } else { 1 << 30 };
/// The fewest stacks that are worth a slab.
const FEWEST: usize = 4;
/// Tops differ by multiples of a cache line, of which there are this many: all stay within the top page.
const STAGGER: usize = 16;
const LINE: usize = 64;

pub(crate) struct Slab<M: Metadata> {
    start: usize,
    stride: usize,
    slots: usize,
    metadata: NonNull<M>,
    /// Slots whose guard is in place, where that is made ahead.
    prepared: usize,
    /// Slots that were handed out once; their metadata is made.
    used: usize,
    guards: Guards,
    owns: PhantomData<M>,
}

// SAFETY: a slab is a set of addresses; what lies there is shared (`M: Sync`) or idle (S2).
unsafe impl<M: Metadata> Send for Slab<M> {}

impl<M: Metadata> Slab<M> {
    /// Reserves `size` bytes for stacks, or less when there is no room for so much.
    pub(crate) fn new(stride: usize, size: usize) -> io::Result<Self> {
        let mut slots = (size / stride).max(FEWEST);
        let stacks = loop {
            // What cannot be counted is not to be had either.
            match Reservation::new(slots.saturating_mul(stride)) {
                Ok(stacks) => break stacks,
                Err(_) if slots > FEWEST => slots = (slots / 2).max(FEWEST),
                Err(_) => return Err(limits::exhausted("no address space is left for goroutines' stacks")),
            }
        };
        let Ok(records) = Reservation::new(slots * size_of::<M>()) else {
            return Err(limits::exhausted("no memory is left for the records of goroutines"));
        };
        let (start, metadata) = (stacks.start.as_ptr().expose_provenance(), records.start.cast::<M>());
        overflow::register::<M>(start, stride, slots, metadata)?;
        stacks.keep();
        records.keep();
        let guards = Guards::for_slab(start);
        Ok(Self { start, stride, slots, metadata, prepared: 0, used: 0, guards, owns: PhantomData })
    }

    /// The size the next slab should have.
    pub(crate) fn next_size(&self) -> usize {
        (self.slots * self.stride).saturating_mul(2).min(LAST_SIZE)
    }

    /// Slots that can be handed out without fail.
    pub(crate) fn capacity(&self) -> usize {
        match self.guards {
            Guards::Markers => self.slots,
            Guards::Protection => 0,
        }
    }

    /// Puts up to `count` more guards in place, of the kind that may fail; how many more slots can now be handed out.
    pub(crate) fn prepare(&mut self, count: usize) -> io::Result<usize> {
        if matches!(self.guards, Guards::Markers) {
            return Ok(0);
        }
        let before = self.prepared;
        let until = (self.prepared + count).min(self.slots);
        while self.prepared < until {
            match self.guards.install(self.start + self.prepared * self.stride) {
                Ok(()) => self.prepared += 1,
                Err(_) if self.prepared > before => break,
                Err(_) => return Err(limits::exhausted("no memory mapping is left for the guard of a stack")),
            }
        }
        Ok(self.prepared - before)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used < self.slots && (matches!(self.guards, Guards::Markers) || self.used < self.prepared)
    }

    pub(crate) fn is_used_up(&self) -> bool {
        self.used == self.slots
    }

    /// Hands out the next slots for the first time, `count` at most. Those of a slab with markers have no guard yet (S4).
    pub(crate) fn hand_out(&mut self, count: usize) -> Vec<&'static M> {
        let until = match self.guards {
            Guards::Markers => self.slots,
            Guards::Protection => self.prepared,
        };
        let indices = self.used..until.min(self.used + count);
        let make = |index| {
            let bounds = Bounds::new(self.start + index * self.stride, self.stride, (index % STAGGER) * LINE);
            // SAFETY: the mapping has room for one record for each slot, and `index < slots`.
            let place = unsafe { self.metadata.add(index) };
            // SAFETY: the place is mapped, aligned (mappings begin at pages) and has not been used yet.
            unsafe { place.write(M::new(bounds)) };
            // SAFETY: made just now; never freed (S1), and shared from here on.
            unsafe { place.as_ref() }
        };
        let slots: Vec<_> = indices.map(make).collect();
        self.used += slots.len();
        slots
    }

    /// How its guards are made: markers when the slots are handed out, the others before.
    pub(crate) fn guards(&self) -> Guards {
        self.guards
    }

    pub(crate) fn each(&self, each: &mut impl FnMut(&'static M)) {
        for index in 0..self.used {
            // SAFETY: within the mapping.
            let place = unsafe { self.metadata.add(index) };
            // SAFETY: the first `used` records are made, and never freed (S1).
            each(unsafe { place.as_ref() });
        }
    }
}

/// How address space is mapped that gets memory as it is touched. FreeBSD and its kin have no flag for it: they set no memory aside.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "netbsd"))]
pub(crate) const RESERVED: MapFlags = MapFlags::PRIVATE.union(MapFlags::NORESERVE);
#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple", target_os = "netbsd")))]
pub(crate) const RESERVED: MapFlags = MapFlags::PRIVATE;

/// Address space that gets memory as it is touched. Given back when dropped: a slab that was made [keeps](Self::keep) its own for ever (S1).
struct Reservation {
    start: NonNull<u8>,
    size: usize,
}

impl Reservation {
    fn new(size: usize) -> io::Result<Self> {
        let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, RESERVED);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let address = unsafe { mmap_anonymous(std::ptr::null_mut(), size, access, flags)? };
        let start = NonNull::new(address.cast::<u8>()).expect("a mapping does not begin at null");
        // A huge page would commit 2 MiB for one goroutine. Not all kernels know the advice.
        #[cfg(target_os = "linux")]
        // SAFETY: advice about our own new mapping.
        let _ = unsafe { madvise(start.as_ptr().cast(), size, Advice::LinuxNoHugepage) };
        Ok(Self { start, size })
    }

    fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, which nobody has been told of.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.size) };
    }
}
