//! Advice to the kernel about many ranges of memory in one call.
//!
//! Linux 6.15 takes a list of ranges about the caller's own memory: one entry into the kernel for all of them, and one interruption of the
//! other cores where pages are taken away. Elsewhere each range is a call of its own.

use std::{io, ptr};

/// The pages go back. On Linux at once, and they read as zero when they are touched next.
#[cfg(not(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd")))]
pub(super) const GIVE_BACK: libc::c_int = libc::MADV_DONTNEED;
/// The pages go back. When the system is short of memory, that is, and until then they keep what is in them: there `MADV_DONTNEED` says only that
/// they will not be touched for long, and not that what is in them may be lost.
#[cfg(any(target_vendor = "apple", target_os = "freebsd", target_os = "netbsd", target_os = "openbsd"))]
pub(super) const GIVE_BACK: libc::c_int = libc::MADV_FREE;

/// A range of addresses that the caller owns: no Rust reference leads into it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Range(libc::iovec);

impl Range {
    pub(super) fn new(start: usize, size: usize) -> Self {
        Self(libc::iovec { iov_base: ptr::with_exposed_provenance_mut(start), iov_len: size })
    }
}

/// Gives `advice` about each range in turn, up to the first for which it fails. How many it was given for, or the error when it was none.
///
/// # Safety
///
/// The ranges are the caller's, of whole pages, and what the advice does to their contents does no harm to anybody.
pub(super) unsafe fn give(advice: libc::c_int, ranges: &[Range]) -> io::Result<usize> {
    let mut given = 0;
    while given < ranges.len() {
        // SAFETY: by the caller.
        let more = match unsafe { list::give(advice, &ranges[given..]) } {
            Some(more) => more,
            // SAFETY: by the caller.
            None => match unsafe { one(advice, &ranges[given]) } {
                Ok(()) => 1,
                Err(error) if given == 0 => return Err(error),
                Err(_) => break,
            },
        };
        given += more;
    }
    Ok(given)
}

/// Gives the pages of all ranges back for which the kernel does; it refuses those that are locked into memory. The rest is just kept.
///
/// # Safety
///
/// As for [`give`]; nobody needs what is in the ranges.
pub(super) unsafe fn give_back(mut ranges: &[Range]) {
    while !ranges.is_empty() {
        // SAFETY: by the caller.
        let given = unsafe { give(GIVE_BACK, ranges) }.unwrap_or(0);
        // The one for which it failed is passed over.
        ranges = ranges.get(given + 1..).unwrap_or(&[]);
    }
}

/// # Safety
///
/// As for [`give`].
unsafe fn one(advice: libc::c_int, range: &Range) -> io::Result<()> {
    // SAFETY: by the caller.
    match unsafe { libc::madvise(range.0.iov_base, range.0.iov_len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(target_os = "linux", not(oxigo_fallback)))]
mod list {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::Range;

    /// From `linux/pidfd.h`: the calling thread's own process. Kernels that do not know it find no such descriptor.
    const PIDFD_SELF_THREAD: libc::c_int = -10_000;
    /// The longest list the kernel takes is 1,024; the locks that it holds meanwhile are everybody's.
    const LONGEST: usize = 64;

    /// Whether the kernel takes lists.
    static TAKES_LISTS: AtomicBool = AtomicBool::new(true);

    /// How many of the first ranges the advice was given for; none when it has to be tried one by one.
    ///
    /// # Safety
    ///
    /// As for [`give`](super::give).
    pub(super) unsafe fn give(advice: libc::c_int, ranges: &[Range]) -> Option<usize> {
        // ORDERING: Relaxed. A thread that learns of a refusal late is refused as well.
        if ranges.len() < 2 || !TAKES_LISTS.load(Relaxed) {
            return None;
        }
        let list = &ranges[..ranges.len().min(LONGEST)];
        // SAFETY: by the caller; a `Range` is an `iovec`, and the kernel only reads the list.
        let bytes = unsafe {
            libc::syscall(libc::SYS_process_madvise, PIDFD_SELF_THREAD, list.as_ptr(), list.len(), advice, 0_u32)
        };
        let Ok(mut bytes) = usize::try_from(bytes) else {
            // What is wrong with the first range alone is no refusal of lists, and is told when it is tried by itself: memory that is short
            // or locked. Kernels that do not take lists about the own process find no such descriptor.
            if !matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOMEM | libc::EINVAL)) {
                TAKES_LISTS.store(false, Relaxed);
            }
            return None;
        };
        // The kernel tells bytes, and stops where it fails.
        let whole = list.iter().take_while(|range| match bytes.checked_sub(range.0.iov_len) {
            Some(rest) => {
                bytes = rest;
                true
            }
            None => false,
        });
        Some(whole.count()).filter(|count| *count > 0)
    }
}

#[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
mod list {
    /// # Safety
    ///
    /// None.
    pub(super) unsafe fn give(_advice: libc::c_int, _ranges: &[super::Range]) -> Option<usize> {
        None
    }
}
