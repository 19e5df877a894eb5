//! `#[oxigo::main]` and `#[oxigo::test]`: what they run, return and report.

mod common;

use std::sync::atomic::Ordering::SeqCst;

use common::{child, is_child, stderr};
use oxigo::{Builder, go, unbuffered};

#[oxigo::test(workers = 3)]
fn the_test_attribute_gives_a_runtime() -> Result<(), std::num::ParseIntError> {
    assert_eq!(oxigo::num_goroutines(), 1);
    let value: i32 = go(|| "5".parse()).join().unwrap()?;
    assert_eq!(value, 5);
    Ok(())
}

#[oxigo::test]
fn a_panic_that_nobody_joins_does_not_fail_a_test() {
    go(|| std::panic::resume_unwind(Box::new("on purpose")));
}

/// An error of any kind, `Send` or not, as in a `main` of std's.
#[oxigo::test]
fn the_test_attribute_takes_any_error() -> Result<(), Box<dyn std::error::Error>> {
    assert_eq!("5".parse::<i32>()?, 5);
    Ok(())
}

#[oxigo::main]
fn main_that_fails() -> Result<(), Box<dyn std::error::Error>> {
    Err(Box::from("this and that"))
}

#[oxigo::main]
fn main_with_a_status() -> std::process::ExitCode {
    std::process::ExitCode::from(7)
}

/// As a `main` and a test of std's may.
#[oxigo::main]
fn main_with_a_hidden_type() -> impl std::process::Termination {
    std::process::ExitCode::from(8)
}

#[oxigo::test]
fn the_test_attribute_takes_a_hidden_type() -> impl std::process::Termination {
    Ok::<(), std::fmt::Error>(())
}

/// What follows the body is never reached, and no warning says so.
#[oxigo::main]
#[deny(unreachable_code)]
fn main_that_never_returns() -> ! {
    oxigo::exit(9)
}

#[test]
fn the_main_attribute_takes_what_never_returns() {
    const NAME: &str = "the_main_attribute_takes_what_never_returns";
    if is_child(NAME) {
        main_that_never_returns();
        return;
    }
    assert_eq!(child(NAME).status.code(), Some(9));
}

#[test]
fn the_main_attribute_reports_what_is_returned() {
    const NAME: &str = "the_main_attribute_reports_what_is_returned";
    if is_child(NAME) {
        let code = |code| format!("{code:?}");
        assert_eq!(code(main_with_a_status()), code(std::process::ExitCode::from(7)));
        assert_eq!(code(main_with_a_hidden_type()), code(std::process::ExitCode::from(8)));
        assert_eq!(code(main_that_fails()), code(std::process::ExitCode::FAILURE));
        return;
    }
    let output = child(NAME);
    assert!(output.status.success());
    assert!(stderr(&output).contains("Error: \"this and that\""), "{}", stderr(&output));
}

/// Stands for a crate that has oxigo under a name of its own.
mod reexports {
    pub(crate) mod threads {
        pub(crate) mod __private {
            use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

            pub(crate) static ENTERED: AtomicUsize = AtomicUsize::new(0);

            pub(crate) fn main<T: Send>(workers: Option<usize>, body: impl FnOnce() -> T + Send) -> T {
                ENTERED.fetch_add(1, SeqCst);
                oxigo::__private::main(workers, body)
            }

            pub(crate) use oxigo::__private::test;
        }
    }
}

#[oxigo::main(crate = "reexports::threads")]
fn main_of_another_name() -> Result<(), std::fmt::Error> {
    go(|| ()).join().map_err(|_| std::fmt::Error)
}

#[oxigo::test(workers = 1, crate = "crate::reexports::threads")]
fn the_attributes_take_the_path_of_the_crate() {
    use reexports::threads::__private::ENTERED;
    let before = ENTERED.load(SeqCst);
    main_of_another_name();
    assert_eq!(ENTERED.load(SeqCst), before + 1);
}

/// Leaks for the test below, when it is told to.
#[oxigo::test]
fn leaves_one_behind() {
    #[inline(never)]
    fn waits_here(rx: &oxigo::Receiver<()>) {
        let _ = rx.recv();
    }
    if is_child("leaves_one_behind") {
        let (keep, rx) = unbuffered::<()>();
        Builder::new().name("leaked".into()).spawn(move || waits_here(&rx)).unwrap();
        std::mem::forget(keep);
    }
}

#[test]
fn the_test_attribute_finds_leaks_and_where_they_are() {
    let output = child("leaves_one_behind");
    let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(101), "{text}");
    // Frames are not told where AddressSanitizer watches the stacks.
    let frame = if cfg!(oxigo_asan) { "" } else { "waits_here" };
    for words in ["1 goroutine that this test started is still alive", "[leaked]: chan receive", frame] {
        assert!(text.contains(words), "{words} is missing in: {text}");
    }
}

#[oxigo::test(leaks = "allow")]
fn the_test_attribute_allows_leaks_when_told() {
    let (keep, rx) = unbuffered::<()>();
    go(move || rx.recv());
    std::mem::forget(keep);
}

/// A test that is stuck fails with a list of who waits for what, and alone: the others of its process run.
#[test]
fn dd_01_a_stuck_test_is_told_and_ends() {
    const NAME: &str = "stuck";
    let output = child(NAME);
    let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(101), "a test has failed, the process has not been ended: {text}");
    let words = [
        "all goroutines are asleep - deadlock!",
        "[waiting]",
        "chan receive",
        "chan send",
        "main_and_test.rs:",
        "said before",
    ];
    for words in words.iter().chain(&["test result: FAILED. 0 passed; 1 failed"]) {
        assert!(text.contains(words), "{words} is missing in: {text}");
    }
    assert!(!text.contains("attributes.rs:"), "who started the test is the test itself: {text}");
}

#[oxigo::test]
#[should_panic(expected = "all goroutines are asleep - deadlock!")]
fn dd_01_a_stuck_test_fails_alone() {
    oxigo::park();
}

#[oxigo::test]
fn stuck() {
    if !is_child("stuck") {
        return;
    }
    println!("said before");
    let (tx, rx) = unbuffered::<u32>();
    let (tx2, rx2) = (tx.clone(), rx.clone());
    let (other, nobody) = unbuffered::<u32>();
    let (other2, nobody2) = (other.clone(), nobody.clone());
    Builder::new().name("waiting".into()).spawn(move || rx.recv()).unwrap();
    go(move || other.send(1));
    let _keep = (tx, rx2, nobody, other2);
    let _ = nobody2;
    tx2.is_empty();
    oxigo::select! {}
}
