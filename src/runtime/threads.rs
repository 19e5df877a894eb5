//! The process's threads: which of them this crate has started, and which there are.
//!
//! - N1: a thread of ours is registered by itself, from its first to its last instruction of ours. So a thread that is about to begin
//!   or has nearly ended looks foreign, which errs on the side of saying nothing.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    str,
    sync::{Mutex, PoisonError},
};

/// How the system calls a thread.
pub(crate) type Tid = u32;

static OURS: Mutex<Vec<Tid>> = Mutex::new(Vec::new());

/// Marks the calling thread as one that this crate has started, until dropped.
pub(crate) struct Ours(Tid);

impl Ours {
    pub(crate) fn register() -> Self {
        let thread = current();
        OURS.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Self(thread)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let mut ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = ours.iter().position(|thread| *thread == self.0) {
            ours.swap_remove(at);
        }
    }
}

/// Makes room for so many more, so that the threads themselves need not: their first allocation reserves address space.
pub(crate) fn expect(count: usize) {
    OURS.lock().unwrap_or_else(PoisonError::into_inner).reserve(count);
}

/// The threads that are registered.
pub(crate) fn ours() -> Vec<Tid> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The calling thread; 0 where the system's list cannot be read anyway.
pub(crate) fn current() -> Tid {
    #[cfg(target_os = "linux")]
    return rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    #[cfg(not(target_os = "linux"))]
    0
}

/// All threads of the process in the order of their numbers, as the system tells; none where it does not.
pub(crate) fn all() -> Option<Vec<Tid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc/self/task").ok()? {
        threads.push(entry.ok()?.file_name().to_str()?.parse().ok()?);
    }
    threads.sort_unstable();
    Some(threads)
}

/// These, in the order of their numbers, if they are all threads of the process; none where there are others, or the system does not tell. It takes
/// no descriptor, which [`all`] does: the table may be full.
pub(crate) fn all_if(mut known: Vec<Tid>) -> Option<Vec<Tid>> {
    known.sort_unstable();
    known.dedup();
    // A folder's links are its name, itself, and its folders: here one for each thread. Who was known before the count and is there after it was counted.
    let count = fs::metadata("/proc/self/task").ok()?.nlink().checked_sub(2)?;
    let exists = |thread: &Tid| fs::metadata(format!("/proc/self/task/{thread}")).is_ok();
    (count == known.len() as u64 && known.iter().all(exists)).then_some(known)
}

/// The name of a thread, cut to what the system keeps of it.
pub(crate) fn name(thread: Tid) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Nanoseconds for which a thread has run on a processor; none when it has ended, or where the system does not tell.
#[cfg(target_os = "linux")]
pub(crate) fn cpu_time(thread: Tid) -> Option<u64> {
    // The kernel's numbering of clocks: the complement of the thread's number, "of one thread", "as the scheduler counts".
    let clock: libc::clockid_t = (!thread.cast_signed() << 3) | 4 | 2;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place of the right type; a clock that does not exist is an error.
    let answer = unsafe { libc::clock_gettime(clock, &raw mut time) };
    (answer == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn cpu_time(_thread: Tid) -> Option<u64> {
    None
}

/// Whether a thread waits in the kernel, so that it uses no processor and asks for none; none when it has ended, or where the system does
/// not tell. Allocates nothing: where there are more workers than processors the clock thread may ask this of each in every tick.
pub(crate) fn is_blocked(thread: Tid) -> Option<bool> {
    let mut path = [0; 48];
    let mut unused = &mut path[..];
    write!(unused, "/proc/self/task/{thread}/stat").ok()?;
    let length = 48 - unused.len();
    // "42 (any name) S ...", where R is on a processor or in line for one, and T stopped from outside. Numbers follow, which are left out.
    let mut stat = [0; 64];
    let read = File::open(str::from_utf8(&path[..length]).ok()?).ok()?.read(&mut stat).ok()?;
    let name_ends = stat[..read].iter().rposition(|byte| *byte == b')')?;
    let state = stat[..read].get(name_ends + 2)?;
    Some(!matches!(state, b'R' | b'T' | b't'))
}

/// Whether a thread blocks a signal; none when it has ended.
#[cfg(target_os = "linux")]
pub(crate) fn blocks(thread: Tid, signal: libc::c_int) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/self/task/{thread}/status")).ok()?;
    let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"))?;
    let blocked = u128::from_str_radix(blocked.trim(), 16).ok()?;
    Some(blocked >> (signal - 1) & 1 == 1)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn the_calling_thread_is_listed_and_its_time_runs() {
        let me = current();
        assert!(all().unwrap().contains(&me));
        let registered = Ours::register();
        assert!(ours().contains(&me));
        drop(registered);
        assert!(!ours().contains(&me));
        let before = cpu_time(me).unwrap();
        while cpu_time(me).unwrap() == before {
            std::hint::spin_loop();
        }
    }

    /// In a process of this test alone nobody comes or goes meanwhile; beside other tests it may have to be asked again.
    #[test]
    fn threads_that_are_known_are_counted() {
        let found = (0..1000).any(|_| {
            let listed = all().unwrap();
            all_if(listed.iter().rev().copied().chain([current()]).collect()) == Some(listed)
        });
        assert!(found);
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || ended.recv());
        assert_eq!(all_if(vec![current()]), None, "there is another one");
        drop(end);
        other.join().unwrap().unwrap_err();
    }

    /// Of the signals that threads of ours keep away SIGPROF is let in.
    #[test]
    fn signals_that_a_thread_blocks_are_seen() {
        let ours = thread::spawn(|| {
            crate::runtime::scheduler::block_signals();
            [libc::SIGTERM, libc::SIGHUP, libc::SIGURG, libc::SIGPROF].map(|signal| blocks(current(), signal))
        });
        assert_eq!(ours.join().unwrap(), [Some(true), Some(true), Some(false), Some(false)]);
    }

    #[test]
    fn who_runs_is_not_blocked_and_who_waits_is() {
        assert_eq!(is_blocked(current()), Some(false));
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::Builder::new().name("a) R (".into());
        let other = other.spawn(move || {
            tell.send(current()).unwrap();
            let _ = ended.recv();
        });
        let waits = told.recv().unwrap();
        while is_blocked(waits) != Some(true) {
            thread::yield_now();
        }
        drop(end);
        other.unwrap().join().unwrap();
        while is_blocked(waits).is_some() {
            thread::yield_now();
        }
    }
}
