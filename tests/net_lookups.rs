//! Look-ups of names on plain threads, where no runtime has ever been started. The C library's function is this file's own.
#![cfg(target_os = "linux")]

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::{Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

use oxigo::net::TcpStream;

/// How many slow look-ups are under way, and whether they may end.
static SLOW: Mutex<(usize, bool)> = Mutex::new((0, false));
static CHANGED: Condvar = Condvar::new();

/// "There is no such name": at once, or when `SLOW` says so.
#[unsafe(no_mangle)]
extern "C" fn getaddrinfo(
    name: *const c_char,
    _service: *const c_char,
    _hints: *const c_void,
    _found: *mut *mut c_void,
) -> c_int {
    // SAFETY: the standard library asks for a name.
    if unsafe { CStr::from_ptr(name) }.to_bytes().starts_with(b"slow") {
        let mut slow = SLOW.lock().unwrap();
        slow.0 += 1;
        CHANGED.notify_all();
        drop(CHANGED.wait_while(slow, |(_, may_end)| !*may_end));
    }
    libc::EAI_NONAME
}

fn look_up(name: &str) {
    TcpStream::connect((name, 80)).unwrap_err();
}

/// It was left to the threads that were busy with the slow ones, and nobody looked after it.
#[test]
fn a_quick_look_up_does_not_wait_for_slow_ones() {
    (0..300).for_each(|_| look_up("quick"));
    let slow: Vec<_> = (0..thread::available_parallelism().unwrap().get())
        .map(|number| thread::spawn(move || look_up(&format!("slow{number}"))))
        .collect();
    let all = slow.len();
    drop(CHANGED.wait_while(SLOW.lock().unwrap(), |(begun, _)| *begun < all).unwrap());
    let (done, is_done) = mpsc::channel();
    let quick = thread::spawn(move || {
        look_up("quick");
        done.send(()).unwrap();
    });
    let ended = is_done.recv_timeout(Duration::from_secs(20));
    SLOW.lock().unwrap().1 = true;
    CHANGED.notify_all();
    slow.into_iter().chain([quick]).for_each(|thread| thread.join().unwrap());
    ended.expect("it waited for the slow ones");
}
