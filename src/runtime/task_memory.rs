//! Memory for tasks: blocks of one size that go from worker to worker in lots.
//!
//! A task is often made by one worker and freed by another. General allocators give it back to where it came from, one at a time and
//! under a lock, and the next one is made elsewhere. Here each worker keeps a few idle blocks, and passes surplus on through the pool by the
//! magazine (Bonwick and Adams, "Magazines and Vmem", USENIX 2001).
//!
//! - M1: a block has one owner: a task, one worker's [`Cache`], or the [`Pool`]. Whoever owns an idle block uses its first words as links. A [`Run`] of
//!   blocks that were never used belongs to one cache, which touches them as it hands them out.
//! - M2: chunks are aligned to their size, so that the address of a block tells its chunk. What stands at the head of a chunk belongs to the
//!   pool, whose lock is held.
//! - M3: a chunk counts the blocks that lie in its own list or were never cut. When all do, it may be unmapped: nobody has one.
//! - M4: in a forked child (`fork`) another thread may have held the lock at the fork, for ever: nothing is given back there, and what is new
//!   comes from the global allocator.
//!
//! Tasks that do not fit into a block come from the global allocator.

use std::{
    alloc::{Layout, alloc, dealloc},
    cell::Cell,
    io,
    ptr::{self, NonNull},
};

use rustix::mm::{ProtFlags, mmap_anonymous, munmap};

use crate::{
    runtime::{fork, scheduler::Worker},
    stack::RESERVED,
    util::{Lock, prefetch},
};

/// Bytes of a block, and its alignment: two cache lines, which no other task touches.
const BLOCK: usize = 128;
/// Bytes of a chunk, and its alignment.
const CHUNK: usize = 512 << 10;
/// Blocks of a chunk: its head takes the place of one.
const BLOCKS: usize = CHUNK / BLOCK - 1;
/// Blocks that change hands at a time.
const MAGAZINE: usize = 64;
/// Blocks that a cache takes where none has come back, 64 KiB of them: the kernel gives their pages in one call, which takes less than an exception for
/// each. More would be memory that most programs never use.
const RUN: usize = 512;
/// Magazines that the pool keeps when it gives memory back, for the next burst.
const WARM: usize = 64;

/// An idle block.
#[repr(C, align(128))]
struct Block {
    next: *mut Block,
    /// Of the first block of a magazine in the pool: the first of the magazine below.
    below: *mut Block,
}

/// The head of a chunk (M2).
#[repr(C, align(128))]
struct Chunk {
    /// Blocks that came back.
    idle: *mut Block,
    /// How many lie in `idle` or were never cut.
    free: usize,
    cut: usize,
    /// Neighbours among the chunks that have free blocks.
    prev: *mut Chunk,
    next: *mut Chunk,
}

const _: () = assert!(size_of::<Block>() == BLOCK && size_of::<Chunk>() == BLOCK);

/// Blocks in a row that were never used.
#[derive(Clone, Copy)]
struct Run {
    first: *mut Block,
    len: usize,
}

impl Run {
    const NONE: Self = Self { first: ptr::null_mut(), len: 0 };

    /// Has the kernel give the memory now.
    #[cfg(all(target_os = "linux", not(oxigo_fallback)))]
    fn populate(self) {
        use rustix::mm::{Advice, madvise};
        const BYTES: usize = RUN * BLOCK;
        let start = self.first.map_addr(|address| address & !(BYTES - 1));
        // SAFETY: within the run's chunk, which is mapped; what has been written there stays. Failing leaves the memory to exceptions, one for each page.
        let _ = unsafe { madvise(start.cast(), BYTES, Advice::LinuxPopulateWrite) };
    }

    #[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
    fn populate(self) {}

    /// Cuts off up to a magazine, linked, and how many they are.
    fn cut(&mut self) -> (*mut Block, usize) {
        let count = self.len.min(MAGAZINE);
        let mut list = ptr::null_mut();
        for index in (0..count).rev() {
            // SAFETY: within the run, whose owner the caller is (M1).
            let block = unsafe { self.first.add(index) };
            // SAFETY: as above.
            unsafe { (*block).next = list };
            list = block;
        }
        // SAFETY: at its end at most.
        self.first = unsafe { self.first.add(count) };
        self.len -= count;
        (list, count)
    }
}

/// What a cache gets from the pool.
enum Lot {
    /// Linked blocks, and how many.
    List(*mut Block, usize),
    /// Whether to ask for the memory ahead: not in a process's first chunk, most of which is never used.
    Run(Run, bool),
}

/// All blocks of the process that no task and no cache has.
struct Pool {
    /// Full magazines, the newest first.
    magazines: *mut Block,
    full: usize,
    /// The chunks that have free blocks.
    partial: *mut Chunk,
    chunks: usize,
}

// SAFETY: what the pointers lead to belongs to the pool alone (M1, M2).
unsafe impl Send for Pool {}

static POOL: Lock<Pool> = Lock::new(Pool::new());

impl Pool {
    const fn new() -> Self {
        Self { magazines: ptr::null_mut(), full: 0, partial: ptr::null_mut(), chunks: 0 }
    }

    /// A magazine, or what of one has come back; else new blocks. None when memory is short.
    fn take_some(&mut self) -> Option<Lot> {
        let first = self.magazines;
        if !first.is_null() {
            // SAFETY: an idle block of the pool's own (M1); so below.
            self.magazines = unsafe { (*first).below };
            self.full -= 1;
            return Some(Lot::List(first, MAGAZINE));
        }
        let (mut list, mut count) = (ptr::null_mut(), 0);
        while count < MAGAZINE && self.has_returned() {
            let block = self.take_one()?;
            // SAFETY: as above.
            unsafe { (*block).next = list };
            (list, count) = (block, count + 1);
        }
        if count > 0 { Some(Lot::List(list, count)) } else { self.take_run() }
    }

    /// Whether the next block to take is one that came back.
    fn has_returned(&self) -> bool {
        // SAFETY: a mapped chunk, whose head is the pool's (M2).
        unsafe { self.partial.as_ref() }.is_some_and(|chunk| !chunk.idle.is_null())
    }

    fn take_run(&mut self) -> Option<Lot> {
        let at = self.first_partial()?;
        // SAFETY: as in `has_returned`.
        let chunk = unsafe { &mut *at };
        // All runs but those that single blocks were taken from end at a multiple of their size, as the chunk does.
        let len = RUN - (chunk.cut + 1) % RUN;
        // SAFETY: what was not cut lies in no list and is free, so this is within the chunk (M3).
        let first = unsafe { at.cast::<Block>().add(chunk.cut + 1) };
        chunk.cut += len;
        chunk.free -= len;
        if chunk.free == 0 {
            self.unlink(at);
        }
        Some(Lot::Run(Run { first, len }, self.chunks > 1))
    }

    /// A chunk with free blocks.
    fn first_partial(&mut self) -> Option<*mut Chunk> {
        if self.partial.is_null() {
            let chunk = map()?;
            self.chunks += 1;
            self.link(chunk);
        }
        Some(self.partial)
    }

    /// Takes over a full magazine.
    fn put_magazine(&mut self, first: *mut Block) {
        // SAFETY: as above.
        unsafe { (*first).below = self.magazines };
        self.magazines = first;
        self.full += 1;
    }

    fn take_one(&mut self) -> Option<*mut Block> {
        if self.partial.is_null() && self.full > 0 {
            // No chunk has a free block, so none becomes whole.
            let whole = self.sort_magazine();
            debug_assert!(whole.is_null());
        }
        let at = self.first_partial()?;
        // SAFETY: a mapped chunk, whose head is the pool's (M2).
        let chunk = unsafe { &mut *at };
        let block = if chunk.idle.is_null() {
            chunk.cut += 1;
            // SAFETY: a free block that does not lie in `idle` has not been cut (M3), so this is within the chunk.
            unsafe { at.cast::<Block>().add(chunk.cut) }
        } else {
            let block = chunk.idle;
            // SAFETY: as in `take_some`.
            chunk.idle = unsafe { (*block).next };
            block
        };
        chunk.free -= 1;
        if chunk.free == 0 {
            self.unlink(at);
        }
        Some(block)
    }

    /// Takes over one block. Its chunk, when that is to be unmapped, or null.
    fn put_one(&mut self, block: *mut Block) -> *mut Chunk {
        let at = block.map_addr(|address| address & !(CHUNK - 1)).cast::<Chunk>();
        // SAFETY: M2.
        let chunk = unsafe { &mut *at };
        // SAFETY: the caller's idle block.
        unsafe { (*block).next = chunk.idle };
        chunk.idle = block;
        chunk.free += 1;
        let free = chunk.free;
        if free == 1 {
            self.link(at);
        }
        if free < BLOCKS || self.chunks == 1 {
            return ptr::null_mut();
        }
        self.unlink(at);
        self.chunks -= 1;
        // SAFETY: as above.
        unsafe { (*at).next = ptr::null_mut() };
        at
    }

    fn link(&mut self, at: *mut Chunk) {
        let next = std::mem::replace(&mut self.partial, at);
        // SAFETY: M2, here and below.
        unsafe { (*at).prev = ptr::null_mut() };
        // SAFETY: as above.
        unsafe { (*at).next = next };
        if !next.is_null() {
            // SAFETY: as above.
            unsafe { (*next).prev = at };
        }
    }

    fn unlink(&mut self, at: *mut Chunk) {
        // SAFETY: as above.
        let Chunk { prev, next, .. } = *unsafe { &*at };
        if prev.is_null() {
            self.partial = next;
        } else {
            // SAFETY: as above.
            unsafe { (*prev).next = next };
        }
        if !next.is_null() {
            // SAFETY: as above.
            unsafe { (*next).prev = prev };
        }
    }

    /// Sorts a full magazine into the chunks; those that are to be unmapped, linked by `next`.
    fn sort_magazine(&mut self) -> *mut Chunk {
        let mut block = self.magazines;
        // SAFETY: as in `take_some`, here and below.
        self.magazines = unsafe { (*block).below };
        self.full -= 1;
        let mut whole = ptr::null_mut();
        while !block.is_null() {
            // SAFETY: as above.
            let next = unsafe { (*block).next };
            let chunk = self.put_one(block);
            if !chunk.is_null() {
                // SAFETY: M2; nobody has a block of it (M3).
                unsafe { (*chunk).next = whole };
                whole = chunk;
            }
            block = next;
        }
        whole
    }
}

/// A new chunk.
fn map() -> Option<*mut Chunk> {
    let (access, flags) = (ProtFlags::READ | ProtFlags::WRITE, RESERVED);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. Twice the size has a chunk in it.
    let mapping = unsafe { mmap_anonymous(ptr::null_mut(), 2 * CHUNK, access, flags) }.ok()?.cast::<u8>();
    let before = mapping.addr().next_multiple_of(CHUNK) - mapping.addr();
    // SAFETY: within the mapping.
    let chunk = unsafe { mapping.add(before) };
    // SAFETY: as above.
    let end = unsafe { chunk.add(CHUNK) };
    for (start, size) in [(mapping, before), (end, CHUNK - before)] {
        if size > 0 {
            // SAFETY: a part of the new mapping that nobody uses. Failing keeps address space.
            let _ = unsafe { munmap(start.cast(), size) };
        }
    }
    let chunk = chunk.cast::<Chunk>();
    let head = Chunk { idle: ptr::null_mut(), free: BLOCKS, cut: 0, prev: ptr::null_mut(), next: ptr::null_mut() };
    // SAFETY: mapped and aligned just now.
    unsafe { chunk.write(head) };
    Some(chunk)
}

/// Unmaps the chunks that are linked by `next`. Without the lock.
fn unmap(mut chunk: *mut Chunk) {
    while !chunk.is_null() {
        // SAFETY: the pool has given it up, and nobody has a block of it (M3).
        let next = unsafe { (*chunk).next };
        // SAFETY: as above. Failing keeps the memory.
        let _ = unsafe { munmap(chunk.cast(), CHUNK) };
        chunk = next;
    }
}

/// A worker's idle blocks: two magazines and a run at most.
pub(crate) struct Cache {
    pool: &'static Lock<Pool>,
    first: Cell<*mut Block>,
    count: Cell<usize>,
    /// A full magazine, or null.
    spare: Cell<*mut Block>,
    run: Cell<Run>,
}

impl Cache {
    pub(crate) fn new() -> Self {
        Self::of(&POOL)
    }

    fn of(pool: &'static Lock<Pool>) -> Self {
        let none = || Cell::new(ptr::null_mut());
        Self { pool, first: none(), count: Cell::new(0), spare: none(), run: Cell::new(Run::NONE) }
    }

    #[inline]
    fn take(&self) -> Option<NonNull<u8>> {
        let Some(block) = NonNull::new(self.first.get()) else { return self.refill() };
        // SAFETY: an idle block of the cache's own (M1).
        let next = unsafe { block.as_ref() }.next;
        self.first.set(next);
        self.count.set(self.count.get() - 1);
        // Whoever makes one task often makes another.
        prefetch::fetch_lines(next, BLOCK / 64);
        Some(block.cast())
    }

    #[cold]
    fn refill(&self) -> Option<NonNull<u8>> {
        let spare = self.spare.replace(ptr::null_mut());
        let (first, count) = if spare.is_null() { self.take_some()? } else { (spare, MAGAZINE) };
        self.first.set(first);
        self.count.set(count);
        self.take()
    }

    /// Some linked blocks, and how many. New ones are touched without the lock.
    fn take_some(&self) -> Option<(*mut Block, usize)> {
        let mut run = self.run.get();
        if run.len == 0 {
            let lot = self.pool.lock().take_some()?;
            match lot {
                Lot::List(first, count) => return Some((first, count)),
                Lot::Run(new, ahead) => {
                    if ahead {
                        new.populate();
                    }
                    run = new;
                }
            }
        }
        let magazine = run.cut();
        self.run.set(run);
        Some(magazine)
    }

    #[inline]
    fn put(&self, block: *mut Block) {
        if self.count.get() == MAGAZINE {
            self.spill();
        }
        // SAFETY: the caller's idle block, now the cache's (M1).
        unsafe { (*block).next = self.first.get() };
        self.first.set(block);
        self.count.set(self.count.get() + 1);
    }

    /// Makes room: the colder magazine goes.
    #[cold]
    fn spill(&self) {
        let cold = self.spare.replace(self.first.replace(ptr::null_mut()));
        self.count.set(0);
        if !cold.is_null() {
            self.pool.lock().put_magazine(cold);
        }
    }

    /// At the end of its worker.
    pub(crate) fn give_back_all(&self) {
        let spare = self.spare.replace(ptr::null_mut());
        if !spare.is_null() {
            self.pool.lock().put_magazine(spare);
        }
        let mut run = self.run.replace(Run::NONE);
        let mut next = self.first.replace(ptr::null_mut());
        self.count.set(0);
        loop {
            while let Some(block) = NonNull::new(next) {
                // SAFETY: as in `take`.
                next = unsafe { block.as_ref() }.next;
                let whole = self.pool.lock().put_one(block.as_ptr());
                unmap(whole);
            }
            if run.len == 0 {
                break;
            }
            (next, _) = run.cut();
        }
    }
}

/// AddressSanitizer is to see every use of a task after its end.
const fn fits(layout: Layout) -> bool {
    cfg!(not(oxigo_asan)) && layout.size() <= BLOCK && layout.align() <= BLOCK
}

/// Memory for a task.
///
/// # Errors
///
/// `OutOfMemory`.
#[inline]
pub(crate) fn allocate(layout: Layout) -> io::Result<NonNull<u8>> {
    let place = if !fits(layout) || fork::forked() {
        // SAFETY: a task is not of size zero.
        NonNull::new(unsafe { alloc(layout) })
    } else if let Some(worker) = Worker::current() {
        worker.tasks().take()
    } else {
        POOL.lock().take_one().and_then(NonNull::new).map(NonNull::cast)
    };
    place.ok_or_else(exhausted)
}

#[cold]
fn exhausted() -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, "no memory is left for the record of a goroutine")
}

/// Gives back what [`allocate`] gave.
///
/// # Safety
///
/// `place` came from [`allocate`] with this layout, and nobody uses it any more.
#[inline]
pub(crate) unsafe fn free(place: NonNull<u8>, layout: Layout) {
    if !fits(layout) {
        // SAFETY: by the caller.
        return unsafe { dealloc(place.as_ptr(), layout) };
    }
    if fork::forked() {
        // M4.
        return;
    }
    let block = place.as_ptr().cast::<Block>();
    match Worker::current() {
        Some(worker) => worker.tasks().put(block),
        None => {
            let whole = POOL.lock().put_one(block);
            unmap(whole);
        }
    }
}

/// Whether [`trim`] would find something.
pub(crate) fn has_surplus() -> bool {
    POOL.lock().full > WARM
}

/// Gives up to `most` surplus magazines back to their chunks, and chunks to the kernel; how many magazines it were.
pub(crate) fn trim(most: usize) -> usize {
    (0..most).take_while(|_| trim_one(&POOL)).count()
}

fn trim_one(pool: &Lock<Pool>) -> bool {
    let mut pool = pool.lock();
    if pool.full <= WARM {
        return false;
    }
    let whole = pool.sort_magazine();
    drop(pool);
    unmap(whole);
    true
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    fn pool() -> &'static Lock<Pool> {
        Box::leak(Box::new(Lock::new(Pool::new())))
    }

    /// Takes blocks and writes the whole of each.
    fn taken(cache: &Cache, count: usize) -> Vec<usize> {
        let take = |_| {
            let block = cache.take().expect("memory");
            // SAFETY: a block of the test's own.
            unsafe { block.as_ptr().write_bytes(0xAA, BLOCK) };
            block.as_ptr().expose_provenance()
        };
        (0..count).map(take).collect()
    }

    fn put(cache: &Cache, blocks: impl IntoIterator<Item = usize>) {
        blocks.into_iter().for_each(|block| cache.put(ptr::with_exposed_provenance_mut(block)));
    }

    #[test]
    fn blocks_are_apart_and_come_again() {
        let cache = Cache::of(pool());
        let mut ever = HashSet::new();
        let mut mine: Vec<usize> = Vec::new();
        let mut random = 7_u64;
        for _ in 0..300 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let count = (random >> 40) as usize % 200;
            if random >> 63 == 0 {
                mine.extend(taken(&cache, count));
            } else {
                mine.drain(mine.len().saturating_sub(count)..).for_each(|block| put(&cache, [block]));
            }
            assert!(mine.iter().all(|block| block % BLOCK == 0));
            let distinct: HashSet<_> = mine.iter().copied().collect();
            assert_eq!(distinct.len(), mine.len(), "a block was handed out twice");
            ever.extend(distinct);
        }
        // What has come back was handed out before anything new.
        let most = cache.pool.lock().chunks * BLOCKS;
        assert!(ever.len() <= most);
    }

    #[test]
    fn memory_goes_back_but_for_a_little() {
        let pool = pool();
        let cache = Cache::of(pool);
        let blocks = taken(&cache, 20 * BLOCKS + 1);
        assert_eq!(pool.lock().chunks, 21);
        let kept = blocks[0];
        put(&cache, blocks[1..].iter().copied());
        while trim_one(pool) {}
        // Those of the blocks that stay warm, of the cache's own and of the one that is in use.
        let left = pool.lock().chunks;
        assert!(left <= 6, "{left} chunks of 21 are left");
        put(&cache, [kept]);
        cache.give_back_all();
        let again = taken(&cache, 2 * BLOCKS);
        assert_eq!(again.iter().collect::<HashSet<_>>().len(), 2 * BLOCKS);
    }

    /// Whoever has no cache takes blocks one at a time, and gets those that caches have given up.
    #[test]
    fn blocks_taken_singly_come_from_what_caches_gave_back() {
        let pool = pool();
        let cache = Cache::of(pool);
        for _ in 0..10 * BLOCKS {
            let block = pool.lock().take_one().expect("memory");
            cache.put(block);
        }
        let chunks = pool.lock().chunks;
        assert_eq!(chunks, 1, "chunks for a few blocks");
    }

    /// One thread makes, another frees, both with caches, and what the one frees the other one gets.
    #[test]
    fn blocks_go_from_thread_to_thread() {
        let pool = pool();
        let (send, receive) = std::sync::mpsc::channel::<Vec<usize>>();
        let frees = thread::spawn(move || {
            let cache = Cache::of(pool);
            receive.iter().for_each(|blocks| put(&cache, blocks));
            cache.give_back_all();
        });
        let cache = Cache::of(pool);
        for _ in 0..1_000 {
            let blocks = taken(&cache, 100);
            assert_eq!(blocks.iter().collect::<HashSet<_>>().len(), 100);
            send.send(blocks).unwrap();
        }
        drop(send);
        frees.join().unwrap();
        cache.give_back_all();
        let pool = pool.lock();
        let mut free = pool.full * MAGAZINE;
        let mut chunk = pool.partial;
        while !chunk.is_null() {
            // SAFETY: M2, under the lock.
            free += unsafe { (*chunk).free };
            // SAFETY: as above.
            chunk = unsafe { (*chunk).next };
        }
        assert_eq!(free, pool.chunks * BLOCKS, "blocks were lost");
    }
}
