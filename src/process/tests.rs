//! Processes without a descriptor to wait for, as on systems that have none.

use std::os::unix::process::ExitStatusExt;

use super::*;

#[test]
fn a_signal_reaches_a_process_that_has_no_descriptor_until_it_was_waited_for() {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    child.pidfd = None;
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGTERM));
    child.signal(Signal::TERM).unwrap();
    // What has ended and was not waited for: the status is kept.
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let ended = child.pidfd.take().unwrap();
    child.signal(Signal::from_raw(libc::SIGKILL)).unwrap();
    ended.wait_ready(Direction::Read, Reason::Process, None).unwrap();
    child.signal(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}
