//! Guards: a stretch below each stack that faults when it is touched. Two ways to make one.

use std::{io, ptr};

use super::advice::Range;

/// rustc probes every page of a large frame on these CPUs; elsewhere a frame may jump further.
const PROBED: bool = cfg!(any(
    target_arch = "x86",
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "loongarch64"
));

/// More than the largest frame that is likely to be left unprobed.
pub(crate) const SIZE: usize = if PROBED { 64 * 1024 } else { 256 * 1024 };

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
            Self::Markers => markers::install(&[Range::new(start, SIZE)]).map(drop),
            Self::Protection => {
                use rustix::mm::{MprotectFlags, mprotect};
                let address = ptr::with_exposed_provenance_mut(start);
                // SAFETY: the guard's pages belong to a slab of ours, and nobody uses them.
                Ok(unsafe { mprotect(address, SIZE, MprotectFlags::empty()) }?)
            }
        }
    }

    /// Makes the guards that begin at `starts`, in turn up to the first that fails; how many, or the error when it was none.
    pub(crate) fn install_all(self, starts: impl Iterator<Item = usize>) -> io::Result<usize> {
        match self {
            Self::Markers => markers::install(&starts.map(|start| Range::new(start, SIZE)).collect::<Vec<_>>()),
            Self::Protection => {
                let mut made = 0;
                for start in starts {
                    match self.install(start) {
                        Ok(()) => made += 1,
                        Err(error) if made == 0 => return Err(error),
                        Err(_) => break,
                    }
                }
                Ok(made)
            }
        }
    }
}

#[cfg(all(target_os = "linux", not(oxigo_fallback)))]
mod markers {
    use std::{io, ptr, sync::OnceLock};

    use crate::stack::advice::{self, Range};

    /// From `linux/mman.h`; libc does not name it on every target yet.
    const MADV_GUARD_INSTALL: libc::c_int = 102;
    /// No kernel has it.
    const UNKNOWN: libc::c_int = libc::c_int::MAX;

    pub(super) fn install(guards: &[Range]) -> io::Result<usize> {
        if !refuses_unknown_advice() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: the guards' pages belong to a slab of ours, and nobody uses them.
        unsafe { advice::give(MADV_GUARD_INSTALL, guards) }
    }

    /// Whether success means anything. An emulator of system calls, as QEMU has for single programs, may take advice that it does not know for a
    /// hint and say that all is well: there would be no guard.
    fn refuses_unknown_advice() -> bool {
        static REFUSES: OnceLock<bool> = OnceLock::new();
        // SAFETY: about no memory at all.
        *REFUSES.get_or_init(|| unsafe { libc::madvise(ptr::null_mut(), 0, UNKNOWN) } != 0)
    }
}

#[cfg(not(all(target_os = "linux", not(oxigo_fallback))))]
mod markers {
    use std::io;

    pub(super) fn install(_guards: &[crate::stack::advice::Range]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
