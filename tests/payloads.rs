//! Payloads whose `Drop` panics with a payload of the same kind: no such panic comes out of a goroutine.

use std::{panic::panic_any, time::Duration};

struct Nested(u32);

impl Drop for Nested {
    fn drop(&mut self) {
        if self.0 > 0 {
            panic_any(Nested(self.0 - 1));
        }
    }
}

oxigo::goroutine_local! { static LOCAL: Option<Nested> = Some(Nested(3)) }

/// One worker, on which another goroutine waits meanwhile: the worker must survive.
fn survives(kill: impl FnOnce(&oxigo::Runtime)) {
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    let (sender, receiver) = oxigo::unbuffered::<u32>();
    let waits = runtime.go(move || receiver.recv());
    kill(&runtime);
    sender.send_timeout(5, Duration::from_secs(10)).expect("the worker runs others");
    assert_eq!(waits.join().unwrap(), Ok(5));
}

#[test]
fn a_payload_that_nobody_takes() {
    survives(|runtime| drop(runtime.go(|| panic_any(Nested(3)))));
}

#[test]
fn a_result_that_nobody_takes() {
    survives(|runtime| drop(runtime.go(|| Nested(3))));
}

#[test]
fn a_goroutine_local() {
    survives(|runtime| drop(runtime.go(|| LOCAL.with(|_| ()))));
}

#[test]
fn a_child_of_a_scope() {
    survives(|runtime| {
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.run(|| oxigo::scope(|s| drop(s.go(|| panic_any(Nested(3))))));
        }));
        assert!(failed.is_err());
    });
}
