//! Words for standard error, from threads that others wait for.
//!
//! Standard error may be a pipe that is full, and whoever writes to it waits until somebody reads. So what the clock thread, the alarm thread or a goroutine
//! has to tell is written by a thread that is there for that, and that ends when all is written.

use std::{
    mem,
    sync::{Mutex, PoisonError},
    thread,
};

use crate::{
    debug,
    runtime::{scheduler, threads::Ours},
};

/// More than this is not kept for a reader who does not come.
const MOST: usize = 64 * 1024;

/// What is not written yet; none while nobody writes. The lock is a leaf, and nobody writes under it.
static UNWRITTEN: Mutex<Option<String>> = Mutex::new(None);

/// Has `text` written to standard error soon, after what was given before; not at all where too much waits already. Waits for it only where no thread can be started.
pub(crate) fn write_aside(text: String) {
    let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(before) = &mut *unwritten {
        if before.len() + text.len() <= MOST {
            before.push_str(&text);
        }
        return;
    }
    *unwritten = Some(text);
    drop(unwritten);
    let write = || {
        scheduler::block_signals();
        let _ours = Ours::register();
        write_all();
    };
    if thread::Builder::new().name("oxigo-report".into()).spawn(write).is_err() {
        write_all();
    }
}

fn write_all() {
    loop {
        let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        let text = mem::take(unwritten.get_or_insert_default());
        if text.is_empty() {
            *unwritten = None;
            return;
        }
        drop(unwritten);
        debug::write_error(&text);
    }
}
