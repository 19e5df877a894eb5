//! What several tests need.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    env,
    path::PathBuf,
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use oxigo::Runtime;

/// Runs `body` as the main goroutine of a runtime with so many workers.
pub(crate) fn rt<T: Send>(workers: usize, body: impl FnOnce() -> T + Send) -> T {
    let runtime = Runtime::builder().workers(workers).name("test").build().expect("a runtime");
    runtime.run(body)
}

/// Runs `body` at 1, 2 and 4 workers.
pub(crate) fn at_1_2_4(body: impl Fn() + Sync) {
    for workers in [1, 2, 4] {
        rt(workers, &body);
    }
}

/// On one worker: lets all others run until none of them can.
pub(crate) fn quiesce() {
    for _ in 0..1000 {
        oxigo::yield_now();
    }
}

/// A value that counts how often it was dropped.
#[derive(Debug)]
pub(crate) struct Counted(pub(crate) Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// Runs the test `name` of the calling test binary again, in a process of its own that knows it is the child.
pub(crate) fn child(name: &str) -> Output {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("OXIGO_TEST_CHILD", name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap()
}

/// Whether this process is the child for test `name`.
pub(crate) fn is_child(name: &str) -> bool {
    env::var("OXIGO_TEST_CHILD").is_ok_and(|child| child == name)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An example, which `cargo test` builds; built here when a test is run alone.
pub(crate) fn example(name: &str) -> PathBuf {
    // target/PROFILE/deps/TEST-HASH → target/PROFILE/examples/NAME
    let test = env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let example = profile.join("examples").join(name);
    if !example.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--example", name]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example cannot be built");
    }
    example
}
