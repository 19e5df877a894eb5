//! Group PN: what is printed when a goroutine panics, what is kept, and what ends the process.

mod common;

use std::{
    fmt,
    panic::{self, AssertUnwindSafe, catch_unwind},
    process::{self, Output},
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use common::{Counted, at_1_2_4, child, is_child, quiesce, rt, stderr};
use oxigo::{
    Builder, PanicPolicy, Receiver, Runtime, WaitGroup, bounded, chan::Select, go, scope, sync::ErrGroup, time,
    unbuffered, yield_now,
};

fn aborting(workers: usize) -> Runtime {
    Runtime::builder().workers(workers).panic(PanicPolicy::Abort).build().unwrap()
}

fn aborted(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt;
    output.status.signal() == Some(libc::SIGABRT)
}

/// As decided: by default a panic is printed at once and kept; the goroutine unwinds, and the others go on.
#[test]
fn pn_01_a_panic_is_printed_at_once_and_kept() {
    const NAME: &str = "pn_01_a_panic_is_printed_at_once_and_kept";
    if is_child(NAME) {
        rt(2, || {
            let unwound = Arc::new(AtomicUsize::new(0));
            let counted = Counted(unwound.clone());
            let named = Builder::new().name("billing".into()).spawn(move || {
                let _counted = counted;
                panic!("first words");
            });
            let named = named.unwrap();
            let id = named.id().to_string();
            assert_eq!(named.join().unwrap_err().downcast_ref(), Some(&"first words"));
            assert_eq!(unwound.load(SeqCst), 1);
            eprintln!("named {id}");
            let nameless = go(|| panic!("second words"));
            let id = nameless.id().to_string();
            nameless.join().unwrap_err();
            eprintln!("nameless {id}");
            // Nobody joins this one: it is printed all the same.
            let (tell, told) = unbuffered::<()>();
            go(move || {
                let _tell = tell;
                panic!("unheard words");
            });
            told.recv().unwrap_err();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    let id = |what: &str| text.lines().find_map(|line| line.strip_prefix(what)).unwrap().trim().to_owned();
    // The heading comes right before the ordinary hook's text.
    let named = format!("goroutine {} [billing]:\n", id("named "));
    let after = &text[text.find(&named).expect(&text) + named.len()..];
    assert!(after.trim_start().starts_with("thread '"), "{text}");
    assert!(after.contains("first words"), "{text}");
    let nameless = format!("goroutine {}:\n", id("nameless "));
    assert!(text[text.find(&nameless).expect(&text)..].contains("second words"), "{text}");
    assert!(text.contains("unheard words"), "{text}");
}

/// How a goroutine gets to its closure is not printed: it was more than twenty frames of this crate's.
#[test]
fn pn_01_a_back_trace_ends_with_the_goroutine() {
    const NAME: &str = "pn_01_a_back_trace_ends_with_the_goroutine";
    if is_child(NAME) {
        rt(2, || go(|| panic!("on purpose")).join().unwrap_err());
        process::exit(0);
    }
    let output = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .envs([("OXIGO_TEST_CHILD", NAME), ("RUST_BACKTRACE", "1")])
        .output()
        .unwrap();
    let text = stderr(&output);
    let trace = &text[text.find("stack backtrace:").expect(&text)..];
    assert!(trace.contains(&format!("panics::{NAME}::")), "{text}");
    assert!(!trace.contains("oxigo::runtime::") && !trace.contains("corosensei"), "{text}");
}

/// What cannot be printed is lost, as a thread's panic message is, and the panic goes on. The line with the goroutine's name ended the
/// process, since the hook panicked in its turn.
#[test]
#[cfg(target_os = "linux")]
fn pn_01_a_panic_is_kept_where_standard_error_cannot_be_written() {
    use std::os::fd::{AsRawFd, OwnedFd};
    const NAME: &str = "pn_01_a_panic_is_kept_where_standard_error_cannot_be_written";
    if is_child(NAME) {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, unread) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [OwnedFd::from(full), OwnedFd::from(unread)] {
            // SAFETY: both are descriptors, and the one that is replaced is nobody's in particular.
            assert_eq!(unsafe { libc::dup2(stderr.as_raw_fd(), libc::STDERR_FILENO) }, libc::STDERR_FILENO);
            rt(1, || {
                let named = Builder::new().name("unheard".into()).spawn(|| panic!("lost words")).unwrap();
                assert_eq!(named.join().unwrap_err().downcast_ref(), Some(&"lost words"));
                go(|| oxigo::blocking(|| panic!("more lost words"))).join().unwrap_err();
            });
        }
        process::exit(42);
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(42), "{output:?}");
}

/// A blocking call runs on a thread of the pool, but its panic is the goroutine's, and is printed once.
#[test]
fn pn_01_a_panic_in_a_blocking_call_is_printed_as_the_goroutines() {
    const NAME: &str = "pn_01_a_panic_in_a_blocking_call_is_printed_as_the_goroutines";
    if is_child(NAME) {
        rt(1, || {
            let billing = || oxigo::blocking(|| -> () { panic!("slow words") });
            let payload = Builder::new().name("billing".into()).spawn(billing).unwrap().join().unwrap_err();
            assert_eq!(payload.downcast_ref(), Some(&"slow words"));
            // The thread has served somebody before.
            let id = oxigo::current().id();
            std::panic::catch_unwind(|| oxigo::blocking(|| panic!("more words"))).unwrap_err();
            eprintln!("main {id}");
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    assert_eq!((text.matches("slow words").count(), text.matches("more words").count()), (1, 1), "{text}");
    let heading = text.find(" [billing]:\n").expect(&text);
    assert!(heading < text.find("slow words").unwrap(), "{text}");
    let id = text.lines().find_map(|line| line.strip_prefix("main ")).unwrap();
    let between = &text[text.find("slow words").unwrap()..text.find("more words").unwrap()];
    assert!(between.contains(&format!("goroutine {id}:\n")), "{text}");
}

/// With `PanicPolicy::Abort`: the goroutine's own destructors run, it is printed, the process dies, nobody else unwinds.
#[test]
fn pn_01_with_abort_the_process_dies_of_it() {
    const NAME: &str = "pn_01_with_abort_the_process_dies_of_it";
    struct Say(&'static str);
    impl Drop for Say {
        fn drop(&mut self) {
            eprintln!("dropped: {}", self.0);
        }
    }
    if is_child(NAME) {
        aborting(2).run(|| {
            let (ready, is_ready) = unbuffered();
            let (never, forever) = unbuffered::<()>();
            go(move || {
                let _other = Say("others");
                ready.send(()).unwrap();
                let _ = forever.recv();
            });
            is_ready.recv().unwrap();
            let failed = Builder::new().name("fatal one".into()).spawn(|| {
                let _own = Say("own");
                panic!("all is lost");
            });
            let joined = failed.unwrap().join();
            eprintln!("join returned {}", joined.is_ok());
            drop(never);
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(aborted(&output), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains(" [fatal one]:\n") && text.contains("all is lost"), "{text}");
    assert!(text.contains("dropped: own"), "{text}");
    assert!(!text.contains("dropped: others") && !text.contains("join returned"), "{text}");
}

/// A panic that is caught inside the goroutine has not ended it, whatever the policy.
#[test]
fn pn_01_what_is_caught_does_not_abort() {
    aborting(2).run(|| {
        go(|| catch_unwind(|| panic!("caught")).unwrap_err()).join().unwrap();
    });
}

/// The policy holds for as long as goroutines do, not only as long as the handle of their runtime.
#[test]
fn pn_01_the_policy_outlives_the_runtimes_handle() {
    const NAME: &str = "pn_01_the_policy_outlives_the_runtimes_handle";
    if is_child(NAME) {
        let runtime = aborting(1);
        let (begun, has_begun) = unbuffered();
        let (stop, stopped) = unbuffered::<()>();
        let last = runtime.go(move || {
            begun.send(()).unwrap();
            let _ = stopped.recv();
            panic!("late");
        });
        has_begun.recv().unwrap();
        drop(runtime);
        drop(stop);
        let _ = last.join();
        process::exit(0);
    }
    assert!(aborted(&child(NAME)));
}

#[test]
fn pn_02_a_parent_cannot_catch_its_childs_panic() {
    at_1_2_4(|| {
        let caught = catch_unwind(|| {
            let child = go(|| panic!("the child's own"));
            while !child.is_finished() {
                yield_now();
            }
            child
        });
        let child = caught.expect("nothing is thrown here");
        assert_eq!(child.join().unwrap_err().downcast_ref(), Some(&"the child's own"));
    });
}

/// The print comes before anything that unwinding sets free.
#[test]
fn pn_03_the_report_wins_over_an_exit_that_unwinding_allows() {
    const NAME: &str = "pn_03_the_report_wins_over_an_exit_that_unwinding_allows";
    if is_child(NAME) {
        let (tell, told) = unbuffered::<()>();
        oxigo::run(move || {
            go(move || {
                let _tell = tell;
                panic!("must be seen");
            });
            let _ = told.recv();
            oxigo::exit(7)
        });
    }
    for _ in 0..30 {
        let output = child(NAME);
        assert!(stderr(&output).contains("must be seen"), "{output:?}");
    }
}

/// A value whose text panics: the process ends, as std has it, and neither hangs nor loops.
#[test]
fn pn_05_a_panic_while_printing_ends_the_process() {
    const NAME: &str = "pn_05_a_panic_while_printing_ends_the_process";
    struct Bad;
    impl fmt::Display for Bad {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("printing panics too")
        }
    }
    if is_child(NAME) {
        rt(2, || {
            let _ = go(|| panic!("{}", Bad)).join();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(aborted(&output), "{output:?}");
}

#[test]
fn pn_06_two_at_once_are_both_reported() {
    const NAME: &str = "pn_06_two_at_once_are_both_reported";
    if is_child(NAME) {
        rt(2, || {
            for round in 0..50 {
                let ready = Arc::new(AtomicUsize::new(0));
                let both: Vec<_> = (0..2)
                    .map(|n| {
                        let ready = ready.clone();
                        Builder::new().spread().spawn(move || {
                            ready.fetch_add(1, SeqCst);
                            while ready.load(SeqCst) < 2 {
                                yield_now();
                            }
                            panic!("panic {round}.{n}.");
                        })
                    })
                    .collect();
                both.into_iter().for_each(|one| drop(one.unwrap().join().unwrap_err()));
            }
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    for round in 0..50 {
        assert!(text.contains(&format!("panic {round}.0.")) && text.contains(&format!("panic {round}.1.")), "{text}");
    }
}

#[test]
fn pn_06_with_abort_two_at_once_end_in_one_crash() {
    const NAME: &str = "pn_06_with_abort_two_at_once_end_in_one_crash";
    if is_child(NAME) {
        aborting(2).run(|| {
            let tasks = WaitGroup::new();
            for _ in 0..2 {
                tasks.go(|| panic!("both"));
            }
            tasks.wait();
        });
        process::exit(0);
    }
    for _ in 0..10 {
        let output = child(NAME);
        assert!(aborted(&output) && stderr(&output).contains("both"), "{output:?}");
    }
}

/// PN-07: only the goroutine that panicked is printed; its back trace is std's affair (`RUST_BACKTRACE`).
#[test]
fn pn_07_nobody_else_is_printed() {
    const NAME: &str = "pn_07_nobody_else_is_printed";
    if is_child(NAME) {
        rt(2, || {
            let (never, forever) = unbuffered::<()>();
            for _ in 0..3 {
                let forever = forever.clone();
                Builder::new().name("bystander".into()).spawn(move || forever.recv()).unwrap();
            }
            go(|| panic!("alone")).join().unwrap_err();
            drop(never);
        });
        process::exit(0);
    }
    let text = stderr(&child(NAME));
    assert!(!text.contains("bystander"), "{text}");
    assert_eq!(text.matches("goroutine ").count(), 1, "{text}");
}

#[test]
fn pn_08_exit_ends_at_once_and_unwinds_nothing() {
    const NAME: &str = "pn_08_exit_ends_at_once_and_unwinds_nothing";
    struct Say;
    impl Drop for Say {
        fn drop(&mut self) {
            eprintln!("dropped");
        }
    }
    if is_child(NAME) {
        rt(2, || {
            let _mine = Say;
            let (ready, is_ready) = unbuffered();
            go(move || {
                let _theirs = Say;
                ready.send(()).unwrap();
                time::sleep(Duration::from_secs(60));
            });
            is_ready.recv().unwrap();
            go(|| {
                let _own = Say;
                oxigo::exit(23)
            })
            .join()
            .unwrap();
        });
    }
    let output = child(NAME);
    assert_eq!(output.status.code(), Some(23));
    assert!(!stderr(&output).contains("dropped"), "{output:?}");
}

/// Panics wherever a goroutine may be: at its first instruction, after switches of all kinds, with others waiting for it. The workers go on.
#[test]
fn pn_09_no_panic_reaches_the_scheduler() {
    // Silence: there are thousands of them. Others of this binary use children where they look at the text.
    at_1_2_4(|| {
        let quiet = |n: usize| panic::resume_unwind(Box::new(n));
        let drops = Arc::new(AtomicUsize::new(0));
        let mut seed = 0x2545_F491_4F6C_DD1D_u64;
        let mut handles = Vec::new();
        for n in 0..2000_usize {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let (kind, counted) = (seed % 8, Counted(drops.clone()));
            handles.push(go(move || {
                let _counted = counted;
                let (tx, rx) = bounded::<usize>(1);
                match kind {
                    0 => {}
                    1 => yield_now(),
                    2 => time::sleep(Duration::from_micros(n as u64 % 100)),
                    3 => drop(go(move || tx.send(n)).join()),
                    4 => drop(rx.recv_timeout(Duration::from_micros(50))),
                    5 => oxigo::blocking(|| quiet(n)),
                    6 => scope(|s| drop(s.go(yield_now).join())),
                    _ => {
                        go(move || tx.send(n).unwrap());
                        assert_eq!(rx.recv(), Ok(n));
                    }
                }
                quiet(n)
            }));
        }
        for (n, handle) in handles.into_iter().enumerate() {
            assert_eq!(handle.join().unwrap_err().downcast_ref(), Some(&n));
        }
        assert_eq!(drops.load(SeqCst), 2000);
        assert_eq!(go(|| 5).join().unwrap(), 5);
    });
}

/// Values that panic when they are dropped: captured and never used, results that nobody takes, payloads.
#[test]
fn a_panic_in_a_drop_stays_in_its_goroutine() {
    struct Bad(Arc<AtomicUsize>);
    impl Drop for Bad {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
            panic!("dropped badly");
        }
    }
    at_1_2_4(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let bad = || Bad(drops.clone());
        let captured = bad();
        assert_eq!(go(move || drop(captured)).join().unwrap_err().downcast_ref(), Some(&"dropped badly"));
        let unused = bad();
        go(move || {
            let _unused = &unused;
        })
        .join()
        .unwrap_err();
        // A result and a payload that nobody takes.
        let (result, payload) = (bad(), bad());
        go(move || result);
        go(move || panic::resume_unwind(Box::new(payload)));
        while drops.load(SeqCst) < 4 {
            yield_now();
        }
        // A result that is dropped with its handle, on this goroutine or on that one.
        let result = bad();
        let handle = go(move || result);
        while !handle.is_finished() {
            yield_now();
        }
        let _ = catch_unwind(AssertUnwindSafe(|| drop(handle)));
        while drops.load(SeqCst) < 5 {
            yield_now();
        }
        assert_eq!(go(|| 5).join().unwrap(), 5);
    });
}

/// A destructor may park while its goroutine unwinds; others run meanwhile, and may panic too.
#[test]
fn a_goroutine_may_park_while_it_unwinds() {
    struct Waits(oxigo::Receiver<()>, oxigo::Sender<()>);
    impl Drop for Waits {
        fn drop(&mut self) {
            assert!(thread::panicking());
            self.1.send(()).unwrap();
            self.0.recv().unwrap();
            time::sleep(Duration::from_micros(100));
        }
    }
    at_1_2_4(|| {
        for _ in 0..20 {
            let (open, gate) = unbuffered();
            let (here, is_here) = unbuffered();
            let unwinds = go(move || {
                let _waits = Waits(gate, here);
                panic::resume_unwind(Box::new("outer"));
            });
            is_here.recv().unwrap();
            let inner = go(|| panic::resume_unwind(Box::new("inner")));
            assert_eq!(inner.join().unwrap_err().downcast_ref(), Some(&"inner"));
            assert!(!unwinds.is_finished());
            open.send(()).unwrap();
            assert_eq!(unwinds.join().unwrap_err().downcast_ref(), Some(&"outer"));
            assert!(!thread::panicking());
        }
    });
}

/// Waits when it is dropped.
struct Waits(Receiver<()>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.recv().unwrap_err();
    }
}

/// Waits for a group that has failed when it is dropped.
struct WaitsForFailed;

impl Drop for WaitsForFailed {
    fn drop(&mut self) {
        failed_group().wait();
    }
}

fn failed_group() -> WaitGroup {
    let group = WaitGroup::new();
    group.go(|| panic!("on purpose"));
    group
}

/// What `thread::panicking` says is said of the worker's thread: also when somebody else waits on it in the middle of an unwinding.
#[test]
fn wg_10_eg_06_a_stranger_that_waits_while_it_unwinds_hides_no_failure() {
    at_1_2_4(|| {
        let (end, ends) = unbuffered();
        let strangers: Vec<_> = (0..4)
            .map(|_| {
                let waits = Waits(ends.clone());
                go(move || {
                    let _waits = waits;
                    panic!("on purpose")
                })
            })
            .collect();
        // In goroutines of their own, some of them on the strangers' workers.
        let checks: [(&str, fn()); 5] = [
            ("a group", || failed_group().wait()),
            ("an error group", || {
                let group = ErrGroup::<()>::new();
                group.go(|| panic!("on purpose"));
                let _ = group.wait();
            }),
            ("an operation that is not completed", || {
                let (tx, _rx) = bounded::<()>(1);
                let mut select = Select::new();
                select.send(&tx);
                drop(select.select());
            }),
            // Here a second panic would end the process.
            ("a group, while it unwinds", || {
                let _waits = WaitsForFailed;
                panic!("on purpose");
            }),
            ("a group, while it unwinds because of another", || {
                let _waits = WaitsForFailed;
                failed_group().wait();
            }),
        ];
        let watch = |message: &str| {
            for (name, check) in checks.into_iter().cycle().take(40) {
                assert!(go(check).join().is_err(), "{message}: {name}");
            }
        };
        watch("beside others");
        drop(end);
        for stranger in strangers {
            stranger.join().unwrap_err();
        }
        watch("alone");
    });
}

/// Who has caught a panic of its own beside such a stranger cannot be told from one that unwinds: an `ErrGroup` raises the failure of its task
/// all the same, and a `WaitGroup` tells of it.
#[test]
fn wg_10_eg_06_a_failure_is_not_taken_for_success_where_it_is_in_doubt_who_unwinds() {
    const NAME: &str = "wg_10_eg_06_a_failure_is_not_taken_for_success_where_it_is_in_doubt_who_unwinds";
    if is_child(NAME) {
        return rt(1, || {
            let (end, ends) = unbuffered();
            let waits = Waits(ends);
            let stranger = go(move || {
                let _waits = waits;
                panic!("on purpose")
            });
            quiesce();
            panic::catch_unwind(|| panic!("caught")).unwrap_err();
            let group = ErrGroup::<()>::new();
            group.go(|| panic!("of a task"));
            let raised = panic::catch_unwind(panic::AssertUnwindSafe(|| group.wait())).unwrap_err();
            assert_eq!(raised.downcast_ref(), Some(&"of a task"));
            let group = failed_group();
            group.wait();
            eprintln!("the wait has returned");
            drop(end);
            stranger.join().unwrap_err();
            // Kept for a wait that can raise it.
            yield_now();
            let raised = panic::catch_unwind(panic::AssertUnwindSafe(|| group.wait())).unwrap_err();
            assert_eq!(raised.downcast_ref(), Some(&"on purpose"));
            eprintln!("raised in the end");
        });
    }
    let text = stderr(&child(NAME));
    assert!(text.contains("which is not raised anew"), "{text}");
    assert!(text.contains("the wait has returned") && text.contains("raised in the end"), "{text}");
}

/// In a panic hook operations block the thread instead of parking, so that the next panic on that worker is an ordinary one.
#[test]
fn operations_in_a_hook_block_and_do_not_switch() {
    const NAME: &str = "operations_in_a_hook_block_and_do_not_switch";
    if is_child(NAME) {
        static ANSWERS: Mutex<Option<oxigo::Receiver<u32>>> = Mutex::new(None);
        static SWITCHED: AtomicBool = AtomicBool::new(false);
        static IN_HOOK: AtomicBool = AtomicBool::new(false);
        // Before the first runtime, which wraps it.
        panic::set_hook(Box::new(|_| {
            IN_HOOK.store(true, SeqCst);
            let answers = ANSWERS.lock().unwrap().clone().unwrap();
            let n = answers.recv().unwrap();
            time::sleep(Duration::from_millis(2));
            yield_now();
            let slow = oxigo::chan::never::<()>().recv_timeout(Duration::from_millis(2));
            eprintln!("in the hook: {n}, {}, switched: {}", slow.is_err(), SWITCHED.load(SeqCst));
            IN_HOOK.store(false, SeqCst);
        }));
        let (tx, rx) = unbuffered();
        *ANSWERS.lock().unwrap() = Some(rx);
        thread::spawn(move || {
            for n in 1..=3 {
                thread::sleep(Duration::from_millis(5));
                tx.send(n).unwrap();
            }
            thread::sleep(Duration::from_secs(60));
        });
        rt(1, || {
            // Would run whenever the one worker switches.
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = stop.clone();
            let other = go(move || {
                while !stopped.load(SeqCst) {
                    if IN_HOOK.load(SeqCst) {
                        SWITCHED.store(true, SeqCst);
                    }
                    yield_now();
                }
            });
            for _ in 0..3 {
                go(|| panic!("with a hook that waits")).join().unwrap_err();
            }
            stop.store(true, SeqCst);
            other.join().unwrap();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    for n in 1..=3 {
        assert!(stderr(&output).contains(&format!("in the hook: {n}, true, switched: false")), "{output:?}");
    }
}

/// A hook that the program sets later loses the heading and nothing else.
#[test]
fn a_later_hook_loses_only_the_heading() {
    const NAME: &str = "a_later_hook_loses_only_the_heading";
    if is_child(NAME) {
        rt(2, || {
            static HEARD: AtomicUsize = AtomicUsize::new(0);
            panic::set_hook(Box::new(|info| {
                HEARD.fetch_add(1, Relaxed);
                eprintln!("mine: {:?}", info.payload().downcast_ref::<&str>());
            }));
            go(|| panic!("one")).join().unwrap_err();
            assert_eq!(HEARD.load(Relaxed), 1);
            // The hook of before, with its heading, is what `take_hook` leaves std's own in place of.
            drop(panic::take_hook());
            go(|| panic!("two")).join().unwrap_err();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("mine: Some(\"one\")") && text.contains("two"), "{text}");
    assert!(!text.contains("goroutine "), "{text}");
}

/// As the documentation advises those who set a hook late.
#[test]
fn pn_05_a_hook_that_calls_the_one_before_keeps_the_heading() {
    const NAME: &str = "pn_05_a_hook_that_calls_the_one_before_keeps_the_heading";
    if is_child(NAME) {
        rt(1, || {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                eprintln!("mine");
                before(info);
            }));
            Builder::new().name("late".into()).spawn(|| panic!("words")).unwrap().join().unwrap_err();
        });
        process::exit(0);
    }
    let output = child(NAME);
    let text = stderr(&output);
    let after = text.split_once("mine\ngoroutine ").expect(&text).1;
    assert!(after.contains(" [late]:\n") && after.contains("words"), "{text}");
}

/// Panics of plain threads have no heading.
#[test]
fn plain_threads_panic_as_ever() {
    const NAME: &str = "plain_threads_panic_as_ever";
    if is_child(NAME) {
        rt(1, || ());
        thread::spawn(|| panic!("a thread's")).join().unwrap_err();
        process::exit(0);
    }
    let text = stderr(&child(NAME));
    assert!(text.contains("a thread's") && !text.contains("goroutine "), "{text}");
}

/// PN-04 in Rust's form: panics that follow from each other are printed in the order in which they happen, each under its goroutine, and what
/// is only passed on (`resume_unwind`) is not printed again.
#[test]
fn pn_04_panics_that_follow_from_each_other_are_printed_oldest_first() {
    const NAME: &str = "pn_04_panics_that_follow_from_each_other_are_printed_oldest_first";
    struct Nested;
    impl Drop for Nested {
        fn drop(&mut self) {
            // A panic while the first one unwinds; it is caught here, so the first goes on.
            let inner = catch_unwind(|| panic!("second"));
            assert_eq!(inner.unwrap_err().downcast_ref(), Some(&"second"));
        }
    }
    if is_child(NAME) {
        rt(2, || {
            let inner = Builder::new().name("inner".into()).spawn(|| {
                let _nested = Nested;
                panic!("first")
            });
            let outer = Builder::new().name("outer".into()).spawn(move || {
                let payload = inner.unwrap().join().unwrap_err();
                assert_eq!(payload.downcast_ref(), Some(&"first"));
                let again = catch_unwind(AssertUnwindSafe(|| panic::resume_unwind(payload))).unwrap_err();
                panic!("third, since {}", again.downcast_ref::<&str>().unwrap());
            });
            let text = outer.unwrap().join().unwrap_err();
            assert_eq!(text.downcast_ref::<String>().unwrap(), "third, since first");
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let told: Vec<_> = lines
        .filter_map(|line| match line.split_once(" [") {
            Some((_, name)) if line.starts_with("goroutine ") => Some(name.trim_end_matches("]:")),
            _ => ["first", "second", "third, since first"].into_iter().find(|words| *words == line),
        })
        .collect();
    assert_eq!(told, ["inner", "first", "inner", "second", "outer", "third, since first"], "{text}");
}

/// A hook that panics itself: std ends the process, and says why; nothing hangs, and the text of the first panic is not lost.
#[test]
fn pn_05_a_panic_in_a_panic_hook_ends_the_process() {
    const NAME: &str = "pn_05_a_panic_in_a_panic_hook_ends_the_process";
    if is_child(NAME) {
        panic::set_hook(Box::new(|info| {
            eprintln!("the hook heard: {:?}", info.payload().downcast_ref::<&str>());
            panic!("in the hook");
        }));
        rt(2, || {
            let _ = go(|| panic!("the cause")).join();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(aborted(&output), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("the hook heard: Some(\"the cause\")") && text.contains("in the hook"), "{text}");
    assert!(text.contains("goroutine "), "{text}");
}

/// A `Drop` that panics while its goroutine unwinds: std ends the process, with both panics printed under the goroutine's name.
#[test]
fn pn_05_a_panic_in_a_drop_while_unwinding_ends_the_process() {
    const NAME: &str = "pn_05_a_panic_in_a_drop_while_unwinding_ends_the_process";
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }
    if is_child(NAME) {
        rt(2, || {
            let unlucky = Builder::new().name("unlucky".into()).spawn(|| {
                let _bad = Bad;
                panic!("the cause");
            });
            let _ = unlucky.unwrap().join();
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(aborted(&output), "{output:?}");
    let text = stderr(&output);
    let (cause, drop) = (text.find("the cause"), text.find("in the drop"));
    assert!(cause.is_some() && cause < drop, "{text}");
    assert!(text.matches(" [unlucky]:").count() >= 2, "{text}");
}

/// Two goroutines at once in a hook that takes long: neither text is torn, and both are kept.
#[test]
fn pn_06_two_at_once_in_a_slow_hook() {
    const NAME: &str = "pn_06_two_at_once_in_a_slow_hook";
    if is_child(NAME) {
        static IN_HOOK: AtomicUsize = AtomicUsize::new(0);
        panic::set_hook(Box::new(|info| {
            IN_HOOK.fetch_add(1, SeqCst);
            // Both workers are in their hooks at the same time.
            while IN_HOOK.load(SeqCst) < 2 {
                thread::yield_now();
            }
            eprintln!("heard {:?}", info.payload().downcast_ref::<&str>());
        }));
        rt(2, || {
            let ready = Arc::new(AtomicUsize::new(0));
            let both = ["one", "other"].map(|text| {
                let ready = ready.clone();
                let f = move || {
                    ready.fetch_add(1, SeqCst);
                    // Holds its worker, so that the other one starts elsewhere.
                    while ready.load(SeqCst) < 2 {
                        thread::yield_now();
                    }
                    panic::panic_any(text)
                };
                Builder::new().spread().spawn(f).unwrap()
            });
            let kept = both.map(|handle| *handle.join().unwrap_err().downcast::<&str>().unwrap());
            assert_eq!(kept, ["one", "other"]);
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    let text = stderr(&output);
    assert!(text.contains("heard Some(\"one\")\n") && text.contains("heard Some(\"other\")\n"), "{text}");
}
