//! Handlers for signals that this crate answers: installed only where the program has said nothing of its own about them. What programs do with
//! signals is in `src/signal.rs`.

use std::{mem::MaybeUninit, ptr};

/// The present action of `signal`; none when there is no such signal.
pub(crate) fn action(signal: libc::c_int) -> Option<libc::sighandler_t> {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks for the present action, into a place of the right type.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: written by the call above.
    Some(unsafe { old.assume_init() }.sa_sigaction)
}

/// Makes `handler` the action of `signal` if that is still the default. True when it is ours now.
pub(crate) fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> bool {
    if action(signal) != Some(libc::SIG_DFL) {
        return false;
    }
    // SAFETY: all zeroes is a valid `sigaction`.
    let mut ours = unsafe { MaybeUninit::<libc::sigaction>::zeroed().assume_init() };
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: a valid action; handlers given here are async-signal-safe.
    unsafe { libc::sigaction(signal, &raw const ours, ptr::null_mut()) == 0 }
}
