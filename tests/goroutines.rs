//! Groups G and RT: creation, results and lifetime of goroutines; ids and counts; `run`, scopes, `park`, `blocking`, and the options of runtimes.

mod common;

use std::{
    cell::Cell,
    process,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{Counted, at_1_2_4, child, is_child, quiesce, rt, stderr};
use oxigo::{Builder, Runtime, go, unbuffered};

#[test]
fn g_01_joins_bring_results() {
    let handles: Vec<_> = (0..1000).map(|i| go(move || i * 2)).collect();
    for (i, handle) in handles.into_iter().enumerate() {
        assert_eq!(handle.join().unwrap(), i * 2);
    }
}

#[test]
fn g_01_the_closure_owns_what_was_there_at_the_call() {
    at_1_2_4(|| {
        let mut text = String::from("before");
        let copy = text.clone();
        let handle = go(move || copy);
        text.push_str(" and after");
        assert_eq!(handle.join().unwrap(), "before");
    });
}

#[test]
fn g_02_go_never_waits_for_the_child() {
    rt(1, || {
        let ran = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ran);
        let handle = go(move || flag.store(true, SeqCst));
        assert!(!ran.load(SeqCst), "on one worker a child cannot have run before the parent waits");
        handle.join().unwrap();
        assert!(ran.load(SeqCst));
    });
}

#[test]
fn g_04_returning_ends_just_that_goroutine() {
    at_1_2_4(|| {
        let before = oxigo::num_goroutines();
        let (stop, stopped) = unbuffered::<()>();
        let stays = go(move || stopped.recv().is_err());
        go(|| ()).join().unwrap();
        assert_eq!(oxigo::num_goroutines(), before + 1);
        drop(stop);
        assert!(stays.join().unwrap());
        assert_eq!(oxigo::num_goroutines(), before);
    });
}

#[test]
fn g_05_when_main_returns_nobody_else_is_waited_for_or_unwound() {
    const NAME: &str = "g_05_when_main_returns_nobody_else_is_waited_for_or_unwound";
    struct Shout;
    impl Drop for Shout {
        fn drop(&mut self) {
            eprintln!("dropped");
        }
    }
    if is_child(NAME) {
        oxigo::run(|| {
            let (tx, rx) = unbuffered::<()>();
            let (ready, is_ready) = unbuffered();
            go(move || {
                let _shout = Shout;
                ready.send(()).unwrap();
                let _ = rx.recv();
            });
            is_ready.recv().unwrap();
            std::mem::forget(tx);
        });
        process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success());
    assert!(!stderr(&output).contains("dropped"));
}

/// Go's `test/chan/goroutines.go`.
#[test]
fn g_06_a_chain_of_many_goroutines_passes_a_value() {
    at_1_2_4(|| {
        let before = oxigo::num_goroutines();
        let (first, mut last) = unbuffered::<u32>();
        let mut handles = Vec::new();
        for _ in 0..10_000 {
            let (tx, rx) = unbuffered();
            let from = std::mem::replace(&mut last, rx);
            handles.push(go(move || tx.send(from.recv().unwrap() + 1).unwrap()));
        }
        first.send(0).unwrap();
        assert_eq!(last.recv(), Ok(10_000));
        handles.into_iter().for_each(|handle| handle.join().unwrap());
        assert_eq!(oxigo::num_goroutines(), before);
    });
}

/// Go's TestStopTheWorldDeadlock, with `num_goroutines` and new runtimes as what needs everybody.
#[test]
fn g_07_goroutines_may_start_goroutines_without_end() {
    fn again(stop: Arc<AtomicBool>) {
        if !stop.load(SeqCst) {
            go(move || again(stop));
        }
    }
    rt(2, || {
        let stop = Arc::new(AtomicBool::new(false));
        again(Arc::clone(&stop));
        for _ in 0..1000 {
            assert!(oxigo::num_goroutines() >= 1);
            oxigo::yield_now();
        }
        stop.store(true, SeqCst);
    });
}

#[test]
fn g_08_a_goroutine_blocked_for_ever_stays() {
    rt(1, || {
        let (keep, rx) = unbuffered::<()>();
        let handle = go(move || rx.recv());
        quiesce();
        assert!(!handle.is_finished());
        assert_eq!(oxigo::num_goroutines(), 2);
        drop(keep);
        assert!(handle.join().unwrap().is_err());
    });
}

/// G-09 does not hold here by design: a started goroutine never changes its thread, whatever it waits for.
#[test]
fn g_09_started_goroutines_stay_on_their_thread() {
    use std::io::{Read, Write};
    rt(4, || {
        let listener = oxigo::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let echo = Builder::new()
            .spread()
            .spawn(move || {
                let here = thread::current().id();
                let (mut peer, _) = listener.accept().unwrap();
                let mut byte = [0];
                while peer.read(&mut byte).unwrap() == 1 {
                    peer.write_all(&byte).unwrap();
                    assert_eq!(thread::current().id(), here);
                }
            })
            .unwrap();
        let (tx, rx) = unbuffered();
        let (back, returned) = oxigo::bounded(3);
        let partner =
            Builder::new().spread().spawn(move || rx.iter().for_each(|v: u32| back.send(v).unwrap())).unwrap();
        let here = thread::current().id();
        let local = Rc::new(Cell::new(0));
        let mut connection = oxigo::net::TcpStream::connect(address).unwrap();
        for i in 0..500 {
            tx.send(i).unwrap();
            assert_eq!(returned.recv(), Ok(i));
            oxigo::yield_now();
            oxigo::park_timeout(Duration::from_micros(1));
            oxigo::time::sleep(Duration::from_micros(1));
            connection.write_all(&[1]).unwrap();
            connection.read_exact(&mut [0]).unwrap();
            go(|| ()).join().unwrap();
            if i % 50 == 0 {
                oxigo::blocking(thread::yield_now);
            }
            oxigo::select! {
                recv(returned) -> _ => unreachable!(),
                default => {}
            }
            assert_eq!(thread::current().id(), here);
            local.set(local.get() + 1);
        }
        drop((tx, connection));
        partner.join().unwrap();
        echo.join().unwrap();
        assert_eq!(local.get(), 500);
    });
}

/// Rust's stacks do not move: a pointer into one stays good while its goroutine waits. Deep calls use what the stack has.
#[test]
fn g_10_pointers_into_a_stack_stay_good() {
    fn deep(n: u32, rx: &oxigo::Receiver<u32>, at_the_bottom: &mut u32) -> u32 {
        let here = [n; 16];
        if n == 0 {
            *at_the_bottom = rx.recv().unwrap();
            return 0;
        }
        deep(n - 1, rx, at_the_bottom) + std::hint::black_box(here)[7] / n
    }
    at_1_2_4(|| {
        let (tx, rx) = unbuffered();
        let handle = go(move || {
            let mut value = 0;
            let sum = deep(200, &rx, &mut value);
            (sum, value)
        });
        tx.send(42).unwrap();
        assert_eq!(handle.join().unwrap(), (200, 42));
    });
}

#[test]
fn rt_01_the_count_is_one_in_a_fresh_main() {
    at_1_2_4(|| {
        assert_eq!(oxigo::num_goroutines(), 1);
        let (tx, rx) = unbuffered::<()>();
        let handles: Vec<_> = (0..10)
            .map(|_| {
                go({
                    let rx = rx.clone();
                    move || rx.recv().is_err()
                })
            })
            .collect();
        assert_eq!(oxigo::num_goroutines(), 11);
        drop(tx);
        handles.into_iter().for_each(|handle| assert!(handle.join().unwrap()));
        assert_eq!(oxigo::num_goroutines(), 1);
    });
}

#[test]
fn rt_02_ids_are_never_used_twice_and_main_is_1() {
    const NAME: &str = "rt_02_ids_are_never_used_twice_and_main_is_1";
    if is_child(NAME) {
        oxigo::run(|| assert_eq!(oxigo::current().id().to_string(), "1"));
        println!("main is 1");
        return;
    }
    assert!(String::from_utf8_lossy(&child(NAME).stdout).contains("main is 1"));
    rt(4, || {
        let mut ids: Vec<_> = (0..5000).map(|_| go(|| oxigo::current().id()).join().unwrap()).collect();
        ids.push(oxigo::current().id());
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count);
    });
}

/// RT-03 and RT-04: every goroutine is locked to its thread; there is nothing to lock (see g_09).
#[test]
fn values_made_inside_need_not_be_send() {
    at_1_2_4(|| {
        let handle = go(|| {
            let shared = Rc::new(Cell::new(1));
            for _ in 0..100 {
                oxigo::yield_now();
                shared.set(shared.get() + 1);
            }
            shared.get()
        });
        assert_eq!(handle.join().unwrap(), 101);
    });
}

#[test]
fn go_and_channels_work_from_plain_threads_without_set_up() {
    let (tx, rx) = unbuffered();
    let threads: Vec<_> = (0..4_u32)
        .map(|i| {
            let tx = tx.clone();
            thread::spawn(move || go(move || tx.send(i).unwrap()).join().unwrap())
        })
        .collect();
    drop(tx);
    let mut got: Vec<_> = rx.iter().collect();
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3]);
    threads.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
fn run_borrows_returns_and_resumes_panics() {
    let text = String::from("borrowed");
    assert_eq!(oxigo::run(|| text.len()), 8);
    let caught = std::panic::catch_unwind(|| oxigo::run(|| panic!("main's own")));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"main's own"));
    let nested = oxigo::run(|| std::panic::catch_unwind(|| oxigo::run(|| ())).unwrap_err());
    assert!(nested.downcast_ref::<&str>().unwrap().contains("go(f).join()"));
    // On another runtime's goroutine it parks.
    assert_eq!(rt(1, || oxigo::run(|| 5)), 5);
}

#[test]
fn run_and_scope_borrow() {
    let count = AtomicUsize::new(0);
    oxigo::run(|| {
        oxigo::scope(|s| {
            for _ in 0..100 {
                s.go(|| {
                    oxigo::yield_now();
                    count.fetch_add(1, SeqCst);
                });
            }
        });
    });
    assert_eq!(count.load(SeqCst), 100);
}

#[test]
fn several_threads_may_run_at_once() {
    let (tx, rx) = unbuffered();
    thread::scope(|s| {
        s.spawn(move || oxigo::run(|| tx.send(1).unwrap()));
        s.spawn(move || assert_eq!(oxigo::run(|| rx.recv()), Ok(1)));
    });
}

#[test]
fn scope_joins_all_and_re_raises() {
    at_1_2_4(|| {
        let mut values = vec![0; 100];
        oxigo::scope(|s| {
            for (i, value) in values.iter_mut().enumerate() {
                s.go(move || {
                    oxigo::yield_now();
                    *value = i;
                });
            }
        });
        assert!(values.iter().enumerate().all(|(i, v)| i == *v));

        let ended = AtomicUsize::new(0);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            oxigo::scope(|s| {
                s.go(|| panic!("child"));
                s.go(|| {
                    (0..100).for_each(|_| oxigo::yield_now());
                    ended.fetch_add(1, SeqCst);
                });
            });
        }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"a scoped goroutine panicked"));
        assert_eq!(ended.load(SeqCst), 1);

        // A panic that the handle took is not the scope's.
        oxigo::scope(|s| {
            let failed = s.go(|| panic!("taken")).join();
            assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"taken"));
        });
    });
}

#[test]
fn a_builder_starts_scoped_goroutines_as_in_std() {
    at_1_2_4(|| {
        let mut value = 1;
        let name = oxigo::scope(|s| {
            let named = oxigo::Builder::new().name("borrower".into()).stack_size(1 << 20).spawn_scoped(s, || {
                value += 1;
                oxigo::current().name().map(str::to_owned)
            });
            named.unwrap().join().unwrap()
        });
        assert_eq!((value, name.as_deref()), (2, Some("borrower")));
        let refused =
            oxigo::scope(|s| oxigo::Builder::new().stack_size(usize::MAX).spawn_scoped(s, || value += 1).map(drop));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert_eq!(value, 2);
    });
}

#[test]
fn park_and_unpark_keep_one_token() {
    at_1_2_4(|| {
        let me = oxigo::current();
        me.unpark();
        me.unpark();
        oxigo::park();
        let start = Instant::now();
        oxigo::park_timeout(Duration::from_millis(5));
        assert!(start.elapsed() >= Duration::from_millis(5), "two unparks count once");
        let parked = go(|| {
            oxigo::park();
            7
        });
        parked.goroutine().unpark();
        assert_eq!(parked.join().unwrap(), 7);
    });
}

/// Destructors of thread-locals run in an order that depends on what was used first, and some wait.
#[test]
fn a_thread_has_one_handle_up_to_its_last_destructor() {
    const LIMIT: Duration = Duration::from_secs(20);
    struct Late(Cell<Option<Box<dyn FnOnce()>>>);
    impl Drop for Late {
        fn drop(&mut self) {
            self.0.take().unwrap()();
        }
    }
    thread_local!(static LATE: Late = const { Late(Cell::new(None)) });
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Used before anything of ours is.
        LATE.with(|late| {
            late.0.set(Some(Box::new(move || {
                let me = oxigo::current();
                let wakes = thread::spawn(move || me.unpark());
                oxigo::park();
                tell.send(oxigo::current()).unwrap();
                oxigo::park();
                tell.send(oxigo::current()).unwrap();
                wakes.join().unwrap();
            })))
        });
        oxigo::current()
    });
    let late = told.recv_timeout(LIMIT).expect("the handle that was made late has no effect");
    late.unpark();
    assert_eq!(told.recv_timeout(LIMIT).expect("a handle has no effect the next time").id(), late.id());
    assert_eq!(thread.join().unwrap().id(), late.id());
}

/// CQ-08 and the ticket rule: an `unpark` ends nothing but a `park`.
#[test]
fn an_unpark_disturbs_no_other_wait() {
    at_1_2_4(|| {
        let (tx, rx) = unbuffered::<u32>();
        let waits = go(move || {
            let value = rx.recv().unwrap();
            let start = Instant::now();
            oxigo::time::sleep(Duration::from_millis(3));
            assert!(start.elapsed() >= Duration::from_millis(3));
            oxigo::park();
            value
        });
        for _ in 0..100 {
            waits.goroutine().unpark();
            oxigo::yield_now();
        }
        tx.send(9).unwrap();
        assert_eq!(waits.join().unwrap(), 9);
    });
}

#[test]
fn park_works_on_plain_threads() {
    let me = oxigo::current();
    let waker = thread::spawn(move || me.unpark());
    oxigo::park();
    waker.join().unwrap();
}

#[test]
fn blocking_borrows_and_leaves_the_worker_to_others() {
    rt(1, || {
        let (ask, answer) = std::sync::mpsc::channel::<u32>();
        let other = go(move || ask.send(5).unwrap());
        let text = String::from("x");
        // Blocks its thread until the other goroutine, on the only worker, has run.
        let borrowed = &text;
        let got = oxigo::blocking(move || answer.recv().unwrap() as usize + borrowed.len());
        assert_eq!(got, 6);
        other.join().unwrap();
        let caught = std::panic::catch_unwind(|| oxigo::blocking(|| panic!("in the pool")));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the pool"));
    });
    assert_eq!(oxigo::blocking(|| 3), 3);
}

#[test]
fn dropping_a_runtime_drops_what_has_not_started() {
    let drops = Arc::new(AtomicUsize::new(0));
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let (started, is_started) = unbuffered();
    let (release, held) = std::sync::mpsc::channel::<()>();
    let holds = runtime.go(move || {
        started.send(()).unwrap();
        // Holds the only worker.
        held.recv().unwrap();
        std::panic::catch_unwind(|| go(|| ())).is_err()
    });
    is_started.recv().unwrap();
    let value = Counted(Arc::clone(&drops));
    let never = runtime.go(move || drop(value));
    let begin = Instant::now();
    drop(runtime);
    assert!(begin.elapsed() < Duration::from_secs(30), "never blocks");
    release.send(()).unwrap();
    assert!(holds.join().unwrap(), "go panics on a runtime that is gone");
    let payload = never.join().unwrap_err();
    assert!(payload.downcast_ref::<&str>().unwrap().contains("before this goroutine started"));
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn wrong_options_are_refused_with_words() {
    for builder in
        [Runtime::builder().workers(0), Runtime::builder().workers(100_000), Runtime::builder().stack_size(usize::MAX)]
    {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    }
}

/// A runtime of one's own falls back; the default one says what is wrong, and in which variable. An empty variable is as good as none.
#[test]
fn wrong_variables_are_named_and_empty_ones_are_none() {
    const NAME: &str = "wrong_variables_are_named_and_empty_ones_are_none";
    if is_child(NAME) {
        let own = Runtime::builder().build().unwrap();
        println!("{own:?}");
        assert_eq!(own.run(|| 1), 1);
        let default = std::panic::catch_unwind(|| oxigo::run(|| 1));
        oxigo::exit(if default.is_ok() { 0 } else { 2 });
    }
    let run = |variables: &[(&str, &str)]| {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env("OXIGO_TEST_CHILD", NAME)
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    };
    let wrong = [
        ("OXIGO_WORKERS", "many", "OXIGO_WORKERS=many is not a number\n"),
        ("OXIGO_WORKERS", "2K", "OXIGO_WORKERS=2K is not a number\n"),
        ("OXIGO_WORKERS", "0", "OXIGO_WORKERS=0: a runtime needs at least one worker"),
        ("OXIGO_WORKERS", "99999999", "OXIGO_WORKERS=99999999: 99999999 workers are more than 1024"),
        ("OXIGO_STACK_SIZE", "lots", "OXIGO_STACK_SIZE=lots is not a size (a positive number"),
        ("OXIGO_STACK_SIZE", "0", "OXIGO_STACK_SIZE=0 is not a size"),
        ("OXIGO_STACK_SIZE", "G", "OXIGO_STACK_SIZE=G is not a size"),
        ("OXIGO_STACK_SIZE", "3G", "OXIGO_STACK_SIZE=3G: a stack of 3221225472 bytes is too large"),
        ("OXIGO_STACK_SIZE", "3072M", "OXIGO_STACK_SIZE=3072M: a stack of 3221225472 bytes is too large"),
        ("OXIGO_ANCESTORS", "all", "OXIGO_ANCESTORS=all is not a number\n"),
        ("OXIGO_ANCESTORS", "-1", "OXIGO_ANCESTORS=-1 is not a number\n"),
    ];
    for (variable, value, words) in wrong {
        let output = run(&[(variable, value)]);
        let text = stderr(&output);
        assert!(output.status.code() == Some(2) && text.contains(words), "{variable}={value}: {text}");
        // It is the caller's place that is told.
        assert!(text.contains("tests/goroutines.rs:"), "{text}");
        let own = String::from_utf8_lossy(&output.stdout);
        assert!(own.contains("workers: ") && !own.contains("workers: 1024"), "{own}");
    }
    let all =
        ["WORKERS", "STACK_SIZE", "ANCESTORS", "TRACE", "WATCHDOG", "LEND_CORES"].map(|name| format!("OXIGO_{name}"));
    let output = run(&all.each_ref().map(|name| (name.as_str(), "")));
    assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
    let right =
        [("ANCESTORS", "0"), ("STACK_SIZE", " 2G "), ("STACK_SIZE", "512k"), ("WATCHDOG", "on"), ("LEND_CORES", "off")];
    for (variable, value) in right {
        let output = run(&[(&format!("OXIGO_{variable}"), value)]);
        assert!(output.status.success() && stderr(&output).is_empty(), "{variable}={value}: {}", stderr(&output));
    }
    // Switches have no error to return: one line, and they count as not set.
    for variable in ["OXIGO_WATCHDOG", "OXIGO_LEND_CORES"] {
        let output = run(&[(variable, "OFF")]);
        let text = stderr(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(text, format!("oxigo: {variable}=OFF is neither on nor off, and is ignored\n"));
    }
}

#[test]
fn exit_ends_the_process_from_a_goroutine() {
    const NAME: &str = "exit_ends_the_process_from_a_goroutine";
    if is_child(NAME) {
        oxigo::run(|| {
            go(|| oxigo::exit(7)).join().unwrap();
        });
    }
    assert_eq!(child(NAME).status.code(), Some(7));
}

/// The result of a goroutine without a handle is dropped while the goroutine still knows itself. Once its task was already being freed
/// then: the handle made here was one to memory that was gone.
#[test]
fn g_05_a_dropped_result_may_ask_who_drops_it() {
    struct Asks(std::sync::mpsc::Sender<oxigo::Goroutine>);
    impl Drop for Asks {
        fn drop(&mut self) {
            drop(oxigo::current());
            let _ = self.0.send(oxigo::current());
        }
    }
    at_1_2_4(|| {
        let (tx, rx) = std::sync::mpsc::channel();
        let handle = Builder::new().name("asks".into()).spawn(move || Asks(tx)).unwrap();
        let id = handle.id();
        drop(handle);
        let asked = loop {
            match rx.try_recv() {
                Ok(asked) => break asked,
                Err(_) => oxigo::yield_now(),
            }
        };
        assert_eq!((asked.id(), asked.name()), (id, Some("asks")));
        asked.unpark();
    });
}

/// A result that nobody takes is dropped on its goroutine, which is a goroutine to the last. It once was dropped when the task was on its way
/// out already: `current` in its `Drop` counted a reference to a task that was being freed, and freed it twice.
#[test]
fn g_20_the_drop_of_a_result_that_nobody_takes_may_ask_who_it_is() {
    struct Asks(oxigo::Sender<Option<String>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            oxigo::yield_now();
            let name = oxigo::current().name().map(str::to_owned);
            oxigo::park_timeout(Duration::from_micros(10));
            self.0.send(name).unwrap();
        }
    }
    at_1_2_4(|| {
        let (tx, rx) = oxigo::bounded(100);
        for _ in 0..100 {
            let tx = tx.clone();
            drop(Builder::new().name("asks".into()).spawn(move || Asks(tx)).unwrap());
        }
        drop(tx);
        // One that ended before its handle was dropped is dropped by who had the handle.
        assert_eq!(rx.iter().filter(|name| name.as_ref().is_none_or(|name| name == "asks")).count(), 100);
    });
}
