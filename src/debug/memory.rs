//! Reads this process's own memory as a debugger would: through the kernel.
//!
//! The words of other goroutines' stacks, of heap blocks and of other threads are nobody's to read in Rust: they change, they may be padding,
//! they may be unmapped at any moment. The kernel copies them into a buffer, or says that there is nothing. So there is no unsafe code here,
//! and no assumption about what lies where.
//!
//! - Y1: what is kept here of addresses that are searched for is kept [`Hidden`]: a search that found its own notes would prove nothing.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

const WORD: usize = size_of::<usize>();
/// Bytes that are read at a time: a page, or several.
const RUN: usize = 256 * 1024;
/// Bytes of a page's record.
const RECORD: usize = 8;
/// The most records of one run: no page is smaller.
const RECORDS: usize = RUN / 4096;
/// Of a page's record: it is in memory, or in the swap.
const PRESENT: u64 = 3 << 62;

/// An address that is not to be found in our own tables (Y1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hidden(usize);

impl Hidden {
    #[inline]
    pub(crate) fn new(address: usize) -> Self {
        Self(!address)
    }

    #[inline]
    pub(crate) fn get(self) -> usize {
        !self.0
    }
}

/// Overwrites what earlier calls have left on the stack below the caller's frame.
#[inline(never)]
pub(crate) fn wipe() {
    std::hint::black_box(&mut [0_usize; 2048]);
}

/// A range of addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    start: Hidden,
    pub(crate) len: usize,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        Self { start: Hidden::new(start), len: end.saturating_sub(start) }
    }

    #[inline]
    pub(crate) fn start(&self) -> usize {
        self.start.get()
    }

    #[inline]
    pub(crate) fn end(&self) -> usize {
        self.start.get() + self.len
    }

    #[inline]
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.start()) < self.len
    }
}

/// The memory of this process.
#[derive(Debug)]
pub(crate) struct Memory {
    bytes: File,
    pages: File,
    /// Bytes of a page: 4, 16 or 64 KiB on aarch64, as the kernel was built.
    page: usize,
    /// Holds one run.
    buffer: Box<[u8]>,
}

impl Memory {
    /// An error where the system does not show a process its memory.
    pub(crate) fn open() -> io::Result<Self> {
        let page = rustix::param::page_size();
        if page > RUN || page * RECORDS < RUN {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        let bytes = File::open("/proc/self/mem")?;
        let pages = File::open("/proc/self/pagemap")?;
        Ok(Self { bytes, pages, page, buffer: vec![0; RUN].into_boxed_slice() })
    }

    /// Where the words are copied to.
    pub(crate) fn buffer(&self) -> Span {
        let start = self.buffer.as_ptr().addr();
        Span::new(start, start + self.buffer.len())
    }

    /// The regions that the program can write to and that are its own: heap, statics, stacks.
    pub(crate) fn regions() -> io::Result<Vec<Span>> {
        let maps = fs::read_to_string("/proc/self/maps")?;
        let region = |line: &str| {
            let mut fields = line.split(' ');
            let (start, end) = fields.next()?.split_once('-')?;
            let access = fields.next()?;
            let number = |text| usize::from_str_radix(text, 16).ok();
            (access.starts_with("rw") && access.ends_with('p')).then_some(Span::new(number(start)?, number(end)?))
        };
        Ok(maps.lines().filter_map(region).collect())
    }

    /// One word, if it can be read.
    pub(crate) fn word(&self, address: usize) -> Option<usize> {
        let mut word = [0; WORD];
        self.bytes.read_exact_at(&mut word, address as u64).ok()?;
        Some(usize::from_ne_bytes(word))
    }

    /// Calls `each` for every aligned word from `start` to `end` that lies in memory. Pages that have never been touched are passed over, and
    /// get no memory by this.
    pub(crate) fn scan(&mut self, start: usize, end: usize, mut each: impl FnMut(usize)) {
        let (start, end) = (start.next_multiple_of(WORD), end / WORD * WORD);
        let page = self.page;
        let mut at = start;
        let mut records = [0; RECORDS * RECORD];
        while at < end {
            let first = at / page;
            let count = (RUN / page).min(end.div_ceil(page) - first);
            let records = &mut records[..count * RECORD];
            let known = self.pages.read_exact_at(records, (first * RECORD) as u64).is_ok();
            let present = |index: usize| {
                let record = records[index * RECORD..][..RECORD].try_into().unwrap_or([0; RECORD]);
                known && u64::from_ne_bytes(record) & PRESENT != 0
            };
            let mut index = 0;
            while index < count {
                if !present(index) {
                    index += 1;
                    continue;
                }
                let last = (index..count).find(|&next| !present(next)).unwrap_or(count);
                self.read((first + index) * page, (first + last) * page, start, end, &mut each);
                index = last;
            }
            at = (first + count) * page;
        }
    }

    /// The words of some pages, as far as they lie within the limits.
    fn read(&mut self, from: usize, to: usize, start: usize, end: usize, each: &mut impl FnMut(usize)) {
        let (mut from, to) = (from.max(start), to.min(end));
        while from < to {
            let room = &mut self.buffer[..to - from];
            let Ok(read @ WORD..) = self.bytes.read_at(room, from as u64) else {
                // A guard, or gone meanwhile.
                from = (from / self.page + 1) * self.page;
                continue;
            };
            for word in room[..read].chunks_exact(WORD) {
                each(usize::from_ne_bytes(word.try_into().unwrap_or_default()));
            }
            from += read / WORD * WORD;
        }
    }
}
