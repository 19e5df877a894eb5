//! What is given back at the very end of a plain thread: its handle and its parker.
//!
//! A thread-local that has a destructor is gone for destructors that run later, and which those are depends on what the thread has used first.
//! Users' destructors may wait too. So handle and parker lie in thread-locals without a destructor, and are given back by one of the system's
//! (`pthread_key_create`), which comes after the language's.
//!
//! - E1: both are given back in one step, the handle first, since a handle wakes by the parker that its thread had when it was made.
//! - E2: where the language's destructors are run by one of the system's themselves, the order of the two is not defined. Each may ask for
//!   another round, though, and ours acts in the second. Who waits later still, in other libraries' destructors, gets new ones, which are
//!   given back in a further round if the system has one, and are left otherwise.

use std::{ffi::c_void, ptr, sync::OnceLock};

use crate::runtime::{current, thread_parker};

/// None: the system has no more keys, so what would be given back is left.
static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

/// What the key has for a thread: the round in which its destructor is called. Null, which it has by itself, asks for no call.
const FIRST: usize = 1;
const SECOND: usize = 2;

/// Asks for the end of the calling thread. Called when it takes a parker.
pub(crate) fn ask() {
    ask_for(FIRST);
}

fn ask_for(round: usize) {
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a place for the key, and a function that may be called with any value and does not unwind.
        (unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0).then_some(key)
    });
    if let Some(key) = *key {
        // SAFETY: the key is never deleted. An error says that there is no memory, and nothing is given back then.
        let _ = unsafe { libc::pthread_setspecific(key, ptr::without_provenance(round)) };
    }
}

extern "C" fn end(round: *mut c_void) {
    if round.addr() == FIRST {
        return ask_for(SECOND);
    }
    current::give_up_handle();
    thread_parker::give_back();
}
