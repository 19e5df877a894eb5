//! Panics of goroutines: what is printed, and what happens next; the report of an overflowing stack.

use std::{
    any::Any,
    cell::Cell,
    mem,
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    process,
    sync::Once,
    thread,
};

use crate::{
    runtime::{options::PanicPolicy, scheduler::Worker, slot::Slot, task::TaskRef},
    stack::{Metadata, overflow::RawStderr},
    util::stderr,
};

/// Makes the panic hook print whose panic it is before the ordinary hook's text. A hook set later loses that line, and parks where it waits;
/// the crate's documentation says what to do.
pub(crate) fn wrap_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let ordinary = panic::take_hook();
        panic::set_hook(Box::new(move |info| in_hook(info, &ordinary)));
    });
}

/// While the hook runs on a goroutine, operations of ours block the thread instead of parking: a goroutine that parked in a hook
/// would make the next panic on its worker abort the process.
fn in_hook(info: &PanicHookInfo<'_>, ordinary: &(dyn Fn(&PanicHookInfo<'_>) + Sync + Send)) {
    let Some(worker) = Worker::current() else {
        if let Some(task) = CALLER.get() {
            head(task);
        }
        return ordinary(info);
    };
    let Some(task) = worker.running_or_panicking().and_then(Slot::task) else { return ordinary(info) };
    let nested = worker.in_hook().replace(true);
    mark_unwinding(true);
    head(task);
    ordinary(info);
    worker.in_hook().set(nested);
}

fn head(task: TaskRef) {
    stderr::print(&match task.name() {
        Some(name) => format!("goroutine {} [{name}]:\n", task.id()),
        None => format!("goroutine {}:\n", task.id()),
    });
}

/// Whether the caller unwinds: the goroutine, or the plain thread. `thread::panicking` says so as well while another goroutine of the worker
/// waits in a `Drop` while it unwinds.
///
/// While there is such a one, a goroutine that has caught a panic of its own since then is taken for one that unwinds still; and one whose
/// panic went past our hook is not known to unwind.
pub(crate) fn is_unwinding() -> bool {
    if !thread::panicking() {
        return false;
    }
    let Some(worker) = Worker::current() else { return true };
    let Some(slot) = worker.running_or_panicking() else { return true };
    slot.unwinds().get() || worker.parked_unwinding().get() == 0
}

/// Whether [`is_unwinding`] says so of a goroutine that may have caught its panic: somebody else of its worker waits in the middle of an
/// unwinding.
pub(crate) fn may_have_caught() -> bool {
    is_unwinding() && Worker::current().is_some_and(|worker| worker.parked_unwinding().get() != 0)
}

/// Remembers whether the calling goroutine unwinds, until its worker sees that it does not (`Worker::execute`).
fn mark_unwinding(unwinds: bool) {
    if let Some(slot) = Worker::current().and_then(Worker::running_or_panicking) {
        slot.unwinds().set(unwinds);
    }
}

/// Raises a panic anew where somebody has waited for it.
#[cold]
pub(crate) fn resume(payload: Box<dyn Any + Send>) -> ! {
    mark_unwinding(true);
    panic::resume_unwind(payload)
}

thread_local! {
    /// On a thread of the pool: the task of the goroutine that waits for what it runs.
    static CALLER: Cell<Option<TaskRef>> = const { Cell::new(None) };
}

/// Runs a blocking call for `caller`, which waits meanwhile. A panic in it is printed here as the caller's: the hook is not told a second
/// time when it goes on there.
pub(crate) fn on_behalf_of<T>(caller: TaskRef, f: impl FnOnce() -> T) -> thread::Result<T> {
    CALLER.set(Some(caller));
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CALLER.set(None);
    result
}

/// Called where a goroutine's panic ends, after it was printed: at its root, or where it is kept for somebody who waits.
#[cold]
pub(crate) fn policy() {
    let Some(worker) = Worker::current() else { return };
    if worker.runtime.options().panic == PanicPolicy::Abort {
        process::abort();
    }
}

/// Runs what the user's code may do while something of ours ends, such as a `Drop`; a panic in it has been printed by the hook and ends here.
pub(crate) fn quietly(f: impl FnOnce()) {
    let unwinds = is_unwinding();
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(f)) {
        discard(payload);
        mark_unwinding(unwinds);
    }
}

/// Drops the payload of a panic, whose `Drop` may panic in its turn; what that one is raised with is leaked, since this could go on for ever.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = panic::catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        mem::forget(again);
    }
}

/// Says whose stack overflowed. Runs in a signal handler: no allocation, no lock.
pub(crate) fn report_overflow(slot: &Slot, out: &mut RawStderr) {
    let bounds = slot.bounds();
    match slot.task() {
        Some(task) => tell(task, out),
        None => out.write_str("\ngoroutine (ended)"),
    }
    out.write_str(",\nhas overflowed its stack of ");
    out.write_usize(bounds.stride() / 1024);
    out.write_str(" KiB, of which ");
    out.write_usize(bounds.guard() / 1024);
    out.write_str(
        " KiB are the guard\nfatal: stack overflow; raise it with Builder::stack_size, Runtime::builder().stack_size or OXIGO_STACK_SIZE\n",
    );
}

/// The same for a thread of the pool, whose stack has so many bytes.
pub(crate) fn report_blocking_overflow(size: usize, out: &mut RawStderr) {
    match CALLER.get() {
        Some(task) => tell(task, out),
        None => out.write_str("\na call that no goroutine waits for"),
    }
    out.write_str(",\nhas overflowed the stack of the thread that runs its `blocking` call, ");
    out.write_usize(size / 1024);
    out.write_str(" KiB\nfatal: stack overflow; raise it with RUST_MIN_STACK, or call on a thread of your own with a larger stack\n");
}

fn tell(task: TaskRef, out: &mut RawStderr) {
    out.write_str("\ngoroutine ");
    out.write_usize(task.id() as usize);
    if let Some(name) = task.name() {
        out.write_str(" [");
        out.write_str(name);
        out.write_str("]");
    }
    let location = task.location();
    out.write_str(", started at ");
    out.write_str(location.file());
    out.write_str(":");
    out.write_usize(location.line() as usize);
}
