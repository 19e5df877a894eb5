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
//! - E3: where thread-locals are freed by a destructor of the system's too, as on macOS, ours may come after it and find them as for a new thread.
//!   So the key itself has the parker. The handle of a thread that has asked for one is left there.

use std::{ffi::c_void, ptr, sync::OnceLock};

use crate::runtime::{
    current,
    thread_parker::{self, ThreadParker},
};

/// None: the system has no more keys, so what would be given back is left.
static KEY: OnceLock<Option<libc::pthread_key_t>> = OnceLock::new();

/// In what the key has for a thread, the address of its parker: the destructor has been called once. Null, which it has by itself, asks for no
/// call.
const SECOND: usize = 1;
const _: () = assert!(align_of::<ThreadParker>() > SECOND);

/// Asks for the end of the calling thread. Called when it takes `parker`.
pub(crate) fn ask(parker: &'static ThreadParker) {
    set(ptr::from_ref(parker).cast());
}

fn set(value: *const c_void) {
    let key = KEY.get_or_init(|| {
        let mut key = 0;
        // SAFETY: a place for the key, and a function that does not unwind and is called with what was set below.
        (unsafe { libc::pthread_key_create(&raw mut key, Some(end)) } == 0).then_some(key)
    });
    if let Some(key) = *key {
        // SAFETY: the key is never deleted. An error says that there is no memory, and nothing is given back then.
        let _ = unsafe { libc::pthread_setspecific(key, value) };
    }
}

extern "C" fn end(value: *mut c_void) {
    if value.addr() & SECOND == 0 {
        return set(value.map_addr(|address| address | SECOND));
    }
    current::give_up_handle();
    let parker = value.map_addr(|address| address & !SECOND).cast::<ThreadParker>();
    // SAFETY: from `ask`; a parker is never freed (T1), and shared references are all that there are.
    thread_parker::give_back(unsafe { &*parker });
}
