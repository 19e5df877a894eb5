//! A goroutine that cannot be started is a panic, and its place is the caller's line, not one of ours.

use std::{
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

use oxigo::{Runtime, WaitGroup, go, scope, unbuffered};

/// In `scope` the panic was said to be at a line of this crate.
#[test]
fn pn_01_a_start_that_is_refused_panics_at_the_callers_line() {
    let places = Arc::new(Mutex::new(Vec::new()));
    panic::set_hook(Box::new({
        let places = Arc::clone(&places);
        move |info| places.lock().unwrap().push(info.location().unwrap().file().to_owned())
    }));
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let (begun, has_begun) = unbuffered();
    let (dropped, is_dropped) = unbuffered::<()>();
    let refused = runtime.go(move || {
        begun.send(()).unwrap();
        is_dropped.recv().unwrap_err();
        let group = WaitGroup::new();
        let starts: [&dyn Fn(); 3] = [&|| drop(go(|| ())), &|| group.go(|| ()), &|| scope(|s| drop(s.go(|| ())))];
        starts.map(|start| catch_unwind(AssertUnwindSafe(start)).is_err())
    });
    has_begun.recv().unwrap();
    drop(runtime);
    drop(dropped);
    let refused = refused.join();
    drop(panic::take_hook());
    assert_eq!(refused.unwrap(), [true; 3]);
    assert_eq!(*places.lock().unwrap(), [file!(); 3]);
}
