//! What happens when a stack overflows: a clear report, and the end of the process.
//!
//! The handler of SIGSEGV and SIGBUS runs on an alternate stack that every worker has for itself. It acts only on faults inside our
//! guards, and those of threads that asked for it, and passes all others on to the handler that stood before, such as the standard library's.
//! It allocates nothing, takes no lock and never returns into the goroutine: frames that have overflowed cannot be dropped, so there is no
//! way to go on.
//!
//! - O1: the table of slabs only grows, and an entry is complete before it is published. So the handler may read it at any moment. A place
//!   whose slab is still being registered is null: it says nothing of those behind it.
//! - O2: a signal that somebody has sent has no address, though its record may look as if it had one. It is passed on as well.

use std::{
    io,
    mem::{self, MaybeUninit},
    ptr::{self, NonNull},
    sync::{
        Once,
        atomic::{
            AtomicPtr, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use super::{Metadata, guard};

const MOST_SLABS: usize = 8192;

struct Entry {
    start: usize,
    stride: usize,
    slots: usize,
    metadata: *const (),
    report: unsafe fn(*const (), usize, &mut RawStderr),
}

static TABLE: [AtomicPtr<Entry>; MOST_SLABS] = [const { AtomicPtr::new(ptr::null_mut()) }; MOST_SLABS];
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

/// Makes a slab known to the handler.
pub(crate) fn register<M: Metadata>(start: usize, stride: usize, slots: usize, metadata: NonNull<M>) -> io::Result<()> {
    let entry = Entry { start, stride, slots, metadata: metadata.as_ptr().cast(), report: report::<M> };
    // ORDERING: Relaxed. The index is claimed; the store below publishes.
    let index = ENTRIES.fetch_add(1, Relaxed);
    let Some(place) = TABLE.get(index) else {
        ENTRIES.fetch_sub(1, Relaxed);
        return Err(io::Error::new(io::ErrorKind::OutOfMemory, format!("more than {MOST_SLABS} slabs of stacks")));
    };
    // ORDERING: Release. Pairs with the Acquire in `find` (O1).
    place.store(Box::leak(Box::new(entry)), Release);
    Ok(())
}

/// # Safety
///
/// `metadata` is the array of a slab's records of type `M`, and slot `index` was handed out.
unsafe fn report<M: Metadata>(metadata: *const (), index: usize, out: &mut RawStderr) {
    // SAFETY: by the caller within the array.
    let record = unsafe { metadata.cast::<M>().add(index) };
    // SAFETY: the record was made before its stack was used, and is never freed (S1).
    unsafe { &*record }.report_overflow(out);
}

/// The slab and slot in whose guard `address` lies.
fn find(address: usize) -> Option<(&'static Entry, usize)> {
    // ORDERING: Relaxed. Whoever runs on a stack of a slab has seen that the slab was registered, and so this count with its index.
    for place in TABLE.iter().take(ENTRIES.load(Relaxed)) {
        // ORDERING: Acquire. Pairs with the Release in `register`.
        let entry = place.load(Acquire);
        // SAFETY: entries are leaked.
        let Some(entry) = (unsafe { entry.as_ref() }) else { continue };
        let Some(offset) = address.checked_sub(entry.start) else { continue };
        if offset < entry.slots * entry.stride {
            return (offset % entry.stride < guard::SIZE).then_some((entry, offset / entry.stride));
        }
    }
    None
}

/// Threads with stacks of the system's.
#[cfg(target_os = "linux")]
mod thread_stack {
    use std::{cell::Cell, mem::MaybeUninit, ops::Range, ptr};

    use super::RawStderr;

    /// Where a thread's guard is, how large its stack, and who tells whose overflow it is.
    #[derive(Clone, Copy)]
    struct Watched {
        guard: (usize, usize),
        size: usize,
        report: fn(usize, &mut RawStderr),
    }

    thread_local! {
        static WATCHED: Cell<Option<Watched>> = const { Cell::new(None) };
    }

    pub(super) fn watch(report: fn(usize, &mut RawStderr)) {
        if let Some((stack, guard)) = own() {
            // Whether the guard is counted among the stack depends on the C library. Nothing else faults in the pages of either side.
            let guard = (stack.start - guard, stack.start + guard);
            WATCHED.set(Some(Watched { guard, size: stack.len(), report }));
        }
    }

    /// Where the calling thread's stack is, and the size of its guard.
    fn own() -> Option<(Range<usize>, usize)> {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: nothing is asked of the caller.
        let thread = unsafe { libc::pthread_self() };
        // SAFETY: a thread that runs, and room for its attributes.
        if unsafe { libc::pthread_getattr_np(thread, attributes) } != 0 {
            return None;
        }
        let (mut start, mut size, mut guard) = (ptr::null_mut(), 0, 0);
        // SAFETY: written by the call above.
        let stack_known = unsafe { libc::pthread_attr_getstack(attributes, &raw mut start, &raw mut size) } == 0;
        // SAFETY: as above.
        let guard_known = unsafe { libc::pthread_attr_getguardsize(attributes, &raw mut guard) } == 0;
        // SAFETY: as above; the last use.
        unsafe { libc::pthread_attr_destroy(attributes) };
        (stack_known && guard_known).then(|| (start.addr()..start.addr() + size, guard))
    }

    /// In the handler: whether `address` lies in the guard of the calling thread's stack; says so if it does.
    pub(super) fn report_overflow(address: usize, out: &mut RawStderr) -> bool {
        // One of these threads has set its thread-local long before, and another one's needs no making.
        let watched = WATCHED.get().filter(|watched| (watched.guard.0..watched.guard.1).contains(&address));
        if let Some(watched) = watched {
            (watched.report)(watched.size, out);
        }
        watched.is_some()
    }
}

/// Elsewhere the standard library tells of them. A thread-local may be made by its first use there, which a handler must not do.
#[cfg(not(target_os = "linux"))]
mod thread_stack {
    use super::RawStderr;

    pub(super) fn watch(_report: fn(usize, &mut RawStderr)) {}

    pub(super) fn report_overflow(_address: usize, _out: &mut RawStderr) -> bool {
        false
    }
}

/// Has an overflow of the calling thread's own stack told by `report`, which gets the size and runs in the handler. Does nothing where the
/// system does not say where the stack is.
pub(crate) fn watch_thread(report: fn(usize, &mut RawStderr)) {
    thread_stack::watch(report);
}

/// The actions that stood before ours.
static BEFORE: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];
const SIGNALS: [libc::c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Installs the handler, once for the process.
pub(crate) fn install() -> io::Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = install_now());
    result
}

fn install_now() -> io::Result<()> {
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks for the present action, into a place of the right type.
        if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: written by the call above; zeroes would be valid as well.
        let old = unsafe { old.assume_init() };
        // ORDERING: Release. The handler, once installed, finds it.
        before.store(Box::leak(Box::new(old)), Release);
        // SAFETY: all zeroes is a valid `sigaction`.
        let mut ours = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
        ours.sa_sigaction = handler as extern "C" fn(_, _, _) as usize;
        ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: a valid action whose handler is async-signal-safe.
        if unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid record.
    let info_ref = unsafe { &*info };
    if was_sent(info_ref) {
        return pass_on(signal, info, context);
    }
    // SAFETY: for faults the record has an address (O2).
    let address = unsafe { info_ref.si_addr() }.addr();
    if let Some((entry, index)) = find(address) {
        let mut out = RawStderr::new();
        // SAFETY: an address in a slot's guard is touched by code on that slot's stack, so the slot was handed out. A stray access may meet a
        // guard that stands ahead of its slot: the record reads as zeroes then, which is a record without a goroutine.
        unsafe { (entry.report)(entry.metadata, index, &mut out) };
        end(out);
    }
    let mut out = RawStderr::new();
    if thread_stack::report_overflow(address, &mut out) {
        end(out);
    }
    pass_on(signal, info, context);
}

fn end(mut out: RawStderr) -> ! {
    out.flush();
    // SAFETY: ends the process; async-signal-safe.
    unsafe { libc::abort() }
}

/// O2: whether somebody has sent the signal, as `kill` does. The codes of faults are small and positive everywhere; the others are not positive
/// on Linux, and above these elsewhere.
fn was_sent(info: &libc::siginfo_t) -> bool {
    !(1..0x1_0000).contains(&info.si_code)
}

/// Has the action that stood before deal with what is none of ours.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let which = usize::from(signal != SIGNALS[0]);
    // ORDERING: Acquire. Pairs with the Release in `install_now`.
    let before = BEFORE[which].load(Acquire);
    // SAFETY: stored before the handler was installed, and leaked.
    let before = unsafe { &*before };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The instruction is tried again and meets the former action.
            // SAFETY: an action that the kernel gave us.
            unsafe { libc::sigaction(signal, before, ptr::null_mut()) };
            // SAFETY: the kernel passed a valid record.
            if was_sent(unsafe { &*info }) {
                // So is the signal, since no instruction would raise it.
                // SAFETY: async-signal-safe; it arrives when the handler has returned.
                unsafe { libc::raise(signal) };
            }
        }
        function if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type WithInfo = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: with SA_SIGINFO the field is such a function.
            let function = unsafe { std::mem::transmute::<usize, WithInfo>(function) };
            function(signal, info, context);
        }
        function => {
            // SAFETY: without SA_SIGINFO the field is such a function.
            let function = unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(function) };
            function(signal);
        }
    }
}

/// The calling thread's alternate signal stack, until dropped.
pub(crate) struct AltStack {
    mapping: *mut libc::c_void,
    before: libc::stack_t,
}

const ALT_SIZE: usize = 64 * 1024;

impl AltStack {
    pub(crate) fn install() -> io::Result<Self> {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        let page = rustix::param::page_size();
        // SAFETY: a new mapping.
        let mapping = unsafe {
            mmap_anonymous(ptr::null_mut(), ALT_SIZE + page, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?
        };
        // Until the signal stack is installed.
        let unused = Unmapped(mapping);
        // SAFETY: the first page of the new mapping becomes its guard.
        unsafe { mprotect(mapping, page, MprotectFlags::empty())? };
        let stack = libc::stack_t { ss_sp: mapping.wrapping_byte_add(page), ss_flags: 0, ss_size: ALT_SIZE };
        let mut before = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: memory that stays mapped until `drop` has put the former stack back.
        if unsafe { libc::sigaltstack(&raw const stack, before.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        mem::forget(unused);
        // SAFETY: written by the call.
        let mut before = unsafe { before.assume_init() };
        if before.ss_flags & libc::SS_DISABLE != 0 {
            // To have none again. macOS looks at the size all the same, and would refuse one that is too small.
            before.ss_size = ALT_SIZE;
        }
        Ok(Self { mapping, before })
    }
}

impl Drop for AltStack {
    fn drop(&mut self) {
        // SAFETY: what stood before on this thread.
        unsafe { libc::sigaltstack(&raw const self.before, ptr::null_mut()) };
        drop(Unmapped(self.mapping));
    }
}

/// The mapping of an [`AltStack`] that no signal uses: given back when dropped.
struct Unmapped(*mut libc::c_void);

impl Drop for Unmapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping, whole, which nobody uses.
        let _ = unsafe { rustix::mm::munmap(self.0, ALT_SIZE + rustix::param::page_size()) };
    }
}

/// Keeps asynchronous signals away from the calling thread, so that a program's handlers run on threads of its own. Faults still
/// arrive, and so do SIGPROF, for profilers, and SIGURG, by which the watchdog asks. A program may have had its threads block all signals, which those
/// that they start inherit: what this crate has handlers for is let in all the same.
pub(crate) fn block_asynchronous_signals() {
    let set = asynchronous_signals();
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    let mut handled = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: empties the set.
    unsafe { libc::sigemptyset(handled.as_mut_ptr()) };
    // SAFETY: emptied above.
    let mut handled = unsafe { handled.assume_init() };
    for signal in SIGNALS.into_iter().chain([libc::SIGURG]) {
        // SAFETY: a valid set and signal.
        unsafe { libc::sigaddset(&raw mut handled, signal) };
    }
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const handled, ptr::null_mut()) };
}

/// Whether the calling thread blocks the signals that [`block_asynchronous_signals`] keeps away, and no others.
pub(crate) fn blocks_asynchronous_signals() -> bool {
    let mut now = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: changes nothing, and fills the set.
    if unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), now.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has succeeded and filled it.
    let now = unsafe { now.assume_init() };
    let set = asynchronous_signals();
    // SAFETY: a valid set. A number that is no signal is in none.
    let is_in = |set: &libc::sigset_t, signal| unsafe { libc::sigismember(set, signal) } == 1;
    // Those from 32 on are the C library's own, or for programs' use; nobody can block the two that end and stop.
    (1..32)
        .filter(|&signal| signal != libc::SIGKILL && signal != libc::SIGSTOP)
        .all(|signal| is_in(&set, signal) == is_in(&now, signal))
}

/// Runs `f` with the signals let in that [`block_asynchronous_signals`] keeps away, for what inherits the mask of the calling thread.
pub(crate) fn with_asynchronous_signals<R>(f: impl FnOnce() -> R) -> R {
    /// Sets the mask back, also when `f` panics.
    struct Restore(libc::sigset_t);
    impl Drop for Restore {
        fn drop(&mut self) {
            // SAFETY: a set that the system has given.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
        }
    }
    let set = asynchronous_signals();
    forget_refusals();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a valid set, and room for another.
    if unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, before.as_mut_ptr()) } != 0 {
        return f();
    }
    // SAFETY: the call has succeeded and filled it.
    let _restore = Restore(unsafe { before.assume_init() });
    f()
}

/// Takes the signals that the calling thread has raised by a write that was refused: to a file that has met its limit, or to a pipe that nobody reads in a
/// program that does not ignore that. The thread blocks them, and whoever wrote has had the error; let in, they would end the process for it. One that is
/// pending for the whole process is taken too: there is one only in a program whose threads all block it, and let in here it would end the process as well.
#[cfg(target_os = "linux")]
fn forget_refusals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in [libc::SIGXFSZ, libc::SIGPIPE] {
        // SAFETY: a set that was filled, and a valid signal.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid set and time; what is taken is told to nobody. It does not wait.
    while unsafe { libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const now) } > 0 {}
}

#[cfg(not(target_os = "linux"))]
fn forget_refusals() {}

fn asynchronous_signals() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: fills the set.
    unsafe { libc::sigfillset(set.as_mut_ptr()) };
    // SAFETY: filled above.
    let mut set = unsafe { set.assume_init() };
    let synchronous = [
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGSYS,
        libc::SIGPROF,
        libc::SIGURG,
    ];
    for signal in synchronous {
        // SAFETY: a valid set and signal.
        unsafe { libc::sigdelset(&raw mut set, signal) };
    }
    set
}

/// Standard error for signal handlers: a buffer on the stack and `write`.
pub(crate) struct RawStderr {
    buffer: [u8; 256],
    len: usize,
}

impl RawStderr {
    fn new() -> Self {
        Self { buffer: [0; 256], len: 0 }
    }

    pub(crate) fn write_str(&mut self, text: &str) {
        for byte in text.bytes() {
            if self.len == self.buffer.len() {
                self.flush();
            }
            self.buffer[self.len] = byte;
            self.len += 1;
        }
    }

    pub(crate) fn write_usize(&mut self, mut number: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        for &digit in &digits[at..] {
            self.write_str(char::from(digit).encode_utf8(&mut [0; 4]));
        }
    }

    fn flush(&mut self) {
        // SAFETY: the buffer's first `len` bytes; `write` is async-signal-safe. There is nobody to tell of an error.
        unsafe { libc::write(2, self.buffer.as_ptr().cast(), self.len) };
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Bounds;

    struct Record;

    impl Metadata for Record {
        fn new(_: Bounds) -> Self {
            Self
        }

        fn bounds(&self) -> Bounds {
            unreachable!("nothing overflows here")
        }

        fn report_overflow(&self, _: &mut RawStderr) {}
    }

    /// O1: several threads register at a time, and one may have got no further than its index.
    #[test]
    fn a_slab_is_found_behind_one_that_is_being_registered() {
        const NOWHERE: usize = 1 << (usize::BITS - 2);
        ENTRIES.fetch_add(1, Relaxed);
        register(NOWHERE, 4 * guard::SIZE, 2, NonNull::<Record>::dangling()).unwrap();
        assert_eq!(find(NOWHERE + 4 * guard::SIZE).map(|(_, index)| index), Some(1));
        assert!(find(NOWHERE + guard::SIZE).is_none(), "on the first stack");
        assert!(find(NOWHERE + 8 * guard::SIZE).is_none(), "behind the last one");
    }
}
