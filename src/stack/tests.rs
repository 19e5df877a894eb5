//! Stacks from outside: they do not overlap, their guards fault, their pages come back.

use std::{cell::Cell, collections::BTreeSet};

use rustix::param::page_size;

use super::{overflow::RawStderr, *};

struct Record {
    bounds: Bounds,
    uses: Cell<u32>,
}

// SAFETY: the tests use each record on one thread.
unsafe impl Sync for Record {}

impl Metadata for Record {
    fn new(bounds: Bounds) -> Self {
        Self { bounds, uses: Cell::new(0) }
    }

    fn bounds(&self) -> Bounds {
        self.bounds
    }

    fn report_overflow(&self, out: &mut RawStderr) {
        out.write_str("overflow of test stack\n");
    }
}

fn pool(size: usize) -> &'static Pool<Record> {
    Box::leak(Box::new(Pool::new(size)))
}

fn taken(pool: &'static Pool<Record>, count: usize) -> Vec<&'static Record> {
    (0..count).map(|_| pool.take_one().unwrap()).collect()
}

fn touch(bounds: Bounds, offset_from_top: usize) {
    let address = std::ptr::with_exposed_provenance_mut::<u8>(bounds.top() - offset_from_top);
    // SAFETY: within a stack that the test owns.
    unsafe { address.write_volatile(1) };
}

#[cfg(target_os = "linux")]
fn peek(bounds: Bounds, offset_from_top: usize) -> u8 {
    let address = std::ptr::with_exposed_provenance::<u8>(bounds.top() - offset_from_top);
    // SAFETY: within a stack that the test owns.
    unsafe { address.read_volatile() }
}

/// Where the page begins that [`touch`] touches.
fn page(bounds: Bounds, offset_from_top: usize) -> usize {
    (bounds.top() - offset_from_top) & !(page_size() - 1)
}

#[test]
fn live_stacks_never_overlap_and_tops_are_staggered() {
    let pool = pool(256 * 1024);
    let mut ranges: Vec<_> = taken(pool, 300).iter().map(|r| (r.bounds.start(), r.bounds.top())).collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    let offsets: BTreeSet<_> = ranges.iter().map(|(_, top)| top % 4096).collect();
    assert_eq!(offsets.len(), 16);
    // One page is enough for a goroutine that goes 3 KiB deep.
    assert!(ranges.iter().all(|(_, top)| (top - 1) / 4096 == (top - 3072) / 4096));
}

#[test]
fn a_slot_keeps_its_record() {
    let pool = pool(256 * 1024);
    let mut cache = Cache::new(pool);
    pool.reserve(1).unwrap();
    pool.refill(&mut cache, 1).unwrap();
    let slot = cache.take().unwrap();
    slot.uses.set(7);
    cache.put(slot);
    let again = cache.take().unwrap();
    assert!(std::ptr::eq(slot, again));
    assert_eq!(again.uses.get(), 7);
}

/// Elsewhere pages that are given back keep what is in them until they are taken.
#[cfg(target_os = "linux")]
#[test]
fn trimmed_stacks_read_as_zero_and_their_guards_stay() {
    let pool = pool(256 * 1024);
    let slots = taken(pool, WARM + 100);
    for slot in &slots {
        touch(slot.bounds, 100);
        touch(slot.bounds, 100_000);
    }
    slots.iter().for_each(|slot| pool.put_one(slot));
    let mut trimmed = 0;
    loop {
        match pool.trim(30) {
            0 => break,
            n => trimmed += n,
        }
    }
    assert_eq!(trimmed, 100);
    let zeroes = slots.iter().filter(|slot| peek(slot.bounds, 100) == 0 && peek(slot.bounds, 100_000) == 0).count();
    assert_eq!(zeroes, 100);
    for slot in slots {
        assert!(faults(slot.bounds.limit() - 1), "a guard is gone");
        assert!(faults(slot.bounds.limit() - guard::SIZE), "a guard is gone");
    }
}

/// Whether the kernel refuses to read at `address`: a pipe write from it fails with EFAULT instead of a signal.
fn faults(address: usize) -> bool {
    let (_reader, writer) = rustix::pipe::pipe().unwrap();
    // SAFETY: the kernel checks the address.
    let written =
        unsafe { libc::write(std::os::fd::AsRawFd::as_raw_fd(&writer), std::ptr::with_exposed_provenance(address), 1) };
    written < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
}

#[test]
fn both_kinds_of_guard_fault_and_the_stack_does_not() {
    for guards in [guard::Guards::Markers, guard::Guards::Protection] {
        let pool = pool(256 * 1024);
        let slot = pool.take_one().unwrap();
        if guards.install(slot.bounds.start()).is_err() {
            // A kernel before 6.13 has no markers.
            continue;
        }
        assert!(faults(slot.bounds.limit() - 1));
        assert!(faults(slot.bounds.start()));
        assert!(!faults(slot.bounds.limit()));
        assert!(!faults(slot.bounds.top() - 1));
    }
}

/// S4: a slot whose guard cannot be made is not handed out, is not lost either, and gets its guard later.
#[test]
fn slots_without_a_guard_wait_until_one_can_be_made() {
    let pool = pool(256 * 1024);
    let mut slots = taken(pool, NEW);
    let start = slots.iter().map(|slot| slot.bounds.start()).min().unwrap();
    // Where the guard of a slot will be that has not been made yet. Markers are refused in locked memory.
    let (stride, unmade) = (pool.stack_size(), NEW + 8);
    let locked = std::ptr::with_exposed_provenance(start + unmade * stride);
    // SAFETY: a page of the test's own pool, which nobody uses.
    if unsafe { libc::mlock(locked, page_size()) } != 0 || pool.lock().slabs[0].guards() == Guards::Protection {
        return;
    }
    slots.extend(taken(pool, 8));
    assert_eq!(pool.take_one().map(drop).unwrap_err().kind(), io::ErrorKind::OutOfMemory);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlock(locked, page_size()) }, 0);
    slots.extend(taken(pool, 24));
    let indices: BTreeSet<_> = slots.iter().map(|slot| (slot.bounds.start() - start) / stride).collect();
    assert_eq!(indices, (0..unmade + 24).collect());
    for slot in slots {
        assert!(faults(slot.bounds.start()), "a slot has no guard");
    }
}

#[test]
fn sizes_are_rounded_up_and_have_room_for_the_guard() {
    assert_eq!(pool(1).stack_size(), guard::SIZE + 64 * 1024);
    assert_eq!(pool(256 * 1024).stack_size(), 256 * 1024);
    assert_eq!(pool(256 * 1024 + 1).stack_size(), 320 * 1024);
    let big = pool(8 << 20).take_one().unwrap();
    touch(big.bounds, (8 << 20) - guard::SIZE - 4096);
}

/// As above.
#[cfg(target_os = "linux")]
#[test]
fn advice_about_a_list_ends_with_the_first_range_that_fails() {
    let slots = taken(pool(256 * 1024), 3);
    slots.iter().for_each(|slot| touch(slot.bounds, 20_000));
    let range = |slot: &Record| Range::new(page(slot.bounds, 20_000), page_size());
    // Not at the beginning of a page.
    let bad = Range::new(page(slots[1].bounds, 20_000) + 1, page_size());
    // SAFETY: the stacks are the test's.
    let given = unsafe { advice::give(advice::GIVE_BACK, &[range(slots[0]), bad, range(slots[2])]) };
    assert_eq!(given.unwrap(), 1);
    assert_eq!(slots.iter().map(|slot| peek(slot.bounds, 20_000)).collect::<Vec<_>>(), [0, 1, 1]);
    // SAFETY: as above.
    let none = unsafe { advice::give(advice::GIVE_BACK, &[bad, range(slots[2])]) };
    assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    // SAFETY: as above.
    let all = unsafe { advice::give(advice::GIVE_BACK, &[range(slots[1]), range(slots[2])]) };
    assert_eq!((all.unwrap(), peek(slots[1].bounds, 20_000), peek(slots[2].bounds, 20_000)), (2, 0, 0));
}

/// Somebody may lock a page of a stack and forget it: the pages of the other stacks go back all the same.
#[cfg(target_os = "linux")]
#[test]
fn a_range_that_cannot_be_given_back_does_not_keep_the_others() {
    let slots = taken(pool(256 * 1024), 4);
    slots.iter().for_each(|slot| touch(slot.bounds, 20_000));
    let locked = std::ptr::with_exposed_provenance(page(slots[1].bounds, 20_000));
    // SAFETY: a page of the test's own.
    if unsafe { libc::mlock(locked, page_size()) } != 0 {
        return;
    }
    let ranges: Vec<_> = slots.iter().map(|slot| Range::new(page(slot.bounds, 20_000), page_size())).collect();
    // SAFETY: the stacks are the test's.
    unsafe { advice::give_back(&ranges) };
    assert_eq!(slots.iter().map(|slot| peek(slot.bounds, 20_000)).collect::<Vec<_>>(), [0, 1, 0, 0]);
}

/// More than there are addresses for, and nothing of it is ever made.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
struct TooLarge(#[allow(dead_code, reason = "for its size")] [u8; 1 << 46]);

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
impl Metadata for TooLarge {
    fn new(_: Bounds) -> Self {
        unreachable!("there is no room for it")
    }

    fn bounds(&self) -> Bounds {
        unreachable!("none was made")
    }

    fn report_overflow(&self, _: &mut RawStderr) {}
}

/// Of the process, in bytes.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn address_space() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<usize>().unwrap() * page_size()
}

/// The address space that had been reserved for the stacks stayed reserved.
#[test]
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn a_slab_without_records_gives_its_stacks_back() {
    // More than all other tests of this process use.
    const SIZE: usize = 1 << 40;
    let before = address_space();
    let error = Slab::<TooLarge>::new(SIZE / 4, SIZE).err().expect("no room for the records");
    assert!(error.to_string().contains("the records of goroutines"), "{error}");
    assert!(address_space() < before + SIZE / 2);
}
