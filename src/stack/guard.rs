//! Guards: a stretch below each stack that faults when it is touched. Two ways to make one, and giving pages back.

use std::{io, ptr};

/// More than the largest frame that is likely to be left unprobed. rustc probes every page on the CPUs below; elsewhere a frame may
/// jump further.
#[cfg(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "loongarch64"
))]
pub(crate) const SIZE: usize = 64 * 1024;
#[cfg(not(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "loongarch64"
)))]
pub(crate) const SIZE: usize = 256 * 1024;

/// How the guards of one slab are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guards {
    /// `MADV_GUARD_INSTALL` (Linux 6.13): markers in the page tables. They do not split the mapping and survive giving pages back.
    Markers,
    /// `mprotect`: works everywhere and costs two mappings a stack.
    Protection,
}

impl Guards {
    /// What works for the slab at `start`; locked mappings, for one, refuse markers. Makes the first guard.
    pub(crate) fn for_slab(start: usize) -> Self {
        match Self::Markers.install(start) {
            Ok(()) => Self::Markers,
            Err(_) => Self::Protection,
        }
    }

    /// Makes the guard that begins at `start`.
    pub(crate) fn install(self, start: usize) -> io::Result<()> {
        match self {
            Self::Markers => markers::install(start),
            Self::Protection => {
                use rustix::mm::{MprotectFlags, mprotect};
                let address = ptr::with_exposed_provenance_mut(start);
                // SAFETY: the guard's pages belong to a slab of ours, and nobody uses them.
                Ok(unsafe { mprotect(address, SIZE, MprotectFlags::empty()) }?)
            }
        }
    }
}

#[cfg(all(target_os = "linux", not(oxigo_fallback)))]
mod markers {
    use std::{io, ptr};

    /// From `linux/mman.h`; libc does not name it on every target yet.
    const MADV_GUARD_INSTALL: libc::c_int = 102;

    pub(super) fn install(start: usize) -> io::Result<()> {
        let address = ptr::with_exposed_provenance_mut(start);
        // SAFETY: the guard's pages belong to a slab of ours, and nobody uses them.
        match unsafe { libc::madvise(address, super::SIZE, MADV_GUARD_INSTALL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
mod markers {
    use std::io;

    pub(super) fn install(_start: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Gives the pages of `start..start + size` back: they read as zero when they are touched next. Guards in the range stay.
///
/// The caller owns the range: idle slots (S3).
pub(crate) fn discard(start: usize, size: usize) {
    let address = ptr::with_exposed_provenance_mut(start);
    // Linux gives the pages back at once; elsewhere the call is advice. Memory that could not be given back is just kept.
    // SAFETY: an own range of private anonymous memory that nobody uses.
    unsafe { libc::madvise(address, size, libc::MADV_DONTNEED) };
}
