//! Errors that say which limit was reached.

use std::{fs, io};

use rustix::process::{Resource, getrlimit};

/// An error of kind `OutOfMemory` that names the limits with their values.
#[cold]
pub(crate) fn exhausted(what: &str) -> io::Error {
    let mut text = what.to_owned();
    if let (Some(used), Some(most)) = (mappings(), number("/proc/sys/vm/max_map_count")) {
        text += &format!("; {used} of vm.max_map_count={most} memory mappings are in use");
        if used + 16 > most {
            text += " (raise it with sysctl)";
        }
    }
    if let Some(bytes) = getrlimit(Resource::As).current {
        text += &format!("; the address space is limited to {} MiB (ulimit -v)", bytes >> 20);
    }
    if let Some(bytes) = getrlimit(Resource::Memlock).current.filter(|_| locked()) {
        text += &format!("; memory is locked, of {} KiB at most (ulimit -l)", bytes >> 10);
    }
    if let Some(mode) = number("/proc/sys/vm/overcommit_memory").filter(|mode| *mode == 2) {
        text += &format!("; vm.overcommit_memory={mode} counts every reserved stack");
    }
    io::Error::new(io::ErrorKind::OutOfMemory, text)
}

fn number(path: &str) -> Option<usize> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn mappings() -> Option<usize> {
    Some(fs::read_to_string("/proc/self/maps").ok()?.lines().count())
}

fn locked() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("VmLck:") && !line.contains(" 0 kB"))
}
