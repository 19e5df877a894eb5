//! Execution traces: well-formed for a viewer, and true to a known program.

mod common;

use std::{
    collections::HashMap,
    fs, hint,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use common::{child, is_child, rt, stderr};
use oxigo::{Builder, debug::trace, go, unbuffered};
use serde_json::Value;

/// One trace at a time, and one runtime at a time in it.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("oxigo-trace-{}-{name}.json", std::process::id()))
}

/// Traces `body` and returns the events.
fn traced(name: &str, body: impl FnOnce()) -> Vec<Value> {
    let path = file(name);
    trace::start(&path).unwrap();
    body();
    trace::stop().unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    events(&text)
}

fn events(text: &str) -> Vec<Value> {
    let trace: Value = serde_json::from_str(text).expect("well-formed JSON");
    assert_eq!(trace["otherData"]["dropped"], "0");
    trace["traceEvents"].as_array().expect("a list of events").clone()
}

fn goroutine(event: &Value) -> u64 {
    event["args"]["goroutine"].as_u64().unwrap_or_else(|| panic!("{event}"))
}

fn named<'a>(events: &'a [Value], phase: &str, name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["ph"] == phase && event["name"] == name).collect()
}

fn slices(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["cat"] == "run").collect()
}

/// What holds in every trace.
fn check(events: &[Value]) {
    // Slices of a track do not overlap: what a worker does, it does one after another.
    let mut tracks: HashMap<u64, Vec<(f64, f64)>> = HashMap::new();
    for event in events {
        assert!(event["pid"].is_u64() && event["tid"].is_u64(), "{event}");
        match event["ph"].as_str().unwrap() {
            "X" => {
                let (at, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((at, at + length));
            }
            "M" => {}
            "i" | "s" | "f" => assert!(event["ts"].as_f64().unwrap() >= 0.0, "{event}"),
            other => panic!("an event of the kind {other}"),
        }
    }
    for spans in tracks.values_mut() {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        for pair in spans.windows(2) {
            // Times are rounded down to nanoseconds, and sums of floats are not exact.
            assert!(pair[1].0 >= pair[0].1 - 0.002, "{pair:?}");
        }
    }
    // Every wake has a waker; a goroutine that wakes runs at that time on that track.
    let runs: Vec<_> = slices(events).iter().map(|run| (run["tid"].clone(), goroutine(run), span(run))).collect();
    for wake in named(events, "i", "wake") {
        goroutine(wake);
        let waker = &wake["args"]["waker"];
        match waker.as_str() {
            Some(text) => assert!(["timer", "poller"].contains(&text) || text.starts_with("thread "), "{wake}"),
            None => {
                let waker = waker.as_u64().unwrap_or_else(|| panic!("{wake}"));
                let at = wake["ts"].as_f64().unwrap();
                let runs_then = |(track, id, (begin, end)): &(Value, u64, (f64, f64))| {
                    *track == wake["tid"] && *id == waker && *begin - 0.002 <= at && at <= *end + 0.002
                };
                assert!(runs.iter().any(runs_then), "{wake}");
            }
        }
    }
    // Every arrow that arrives has begun.
    let begun: Vec<_> = events.iter().filter(|event| event["ph"] == "s").map(|event| event["id"].clone()).collect();
    let arrived: Vec<_> = events.iter().filter(|event| event["ph"] == "f").map(|event| event["id"].clone()).collect();
    assert!(arrived.iter().all(|id| begun.contains(id)));
    // Of a goroutine that began and ended in the trace everything is known: it waited as often as it was woken.
    let started: Vec<u64> = named(events, "i", "go").iter().map(|event| goroutine(event)).collect();
    for id in &started {
        let own: Vec<_> = slices(events).into_iter().filter(|run| goroutine(run) == *id).collect();
        let ends = own.iter().filter(|run| run["args"]["then"] == "ends").count();
        assert!(ends <= 1, "{own:?}");
        if ends == 1 {
            let waits =
                own.iter().filter(|run| !["ends", "yields"].contains(&run["args"]["then"].as_str().unwrap())).count();
            let wakes = named(events, "i", "wake").into_iter().filter(|wake| goroutine(wake) == *id).count();
            assert_eq!(waits, wakes, "goroutine {id}: {own:?}");
            // It ran on one worker from its first slice on.
            assert!(own.iter().all(|run| run["tid"] == own[0]["tid"]), "{own:?}");
        }
    }
}

fn span(event: &Value) -> (f64, f64) {
    let at = event["ts"].as_f64().unwrap();
    (at, at + event["dur"].as_f64().unwrap())
}

#[test]
fn a_known_program_has_the_known_events() {
    /// Long enough for a worker to go to sleep meanwhile, however late it gets its core.
    const SLEEP: Duration = Duration::from_millis(50);
    let _alone = alone();
    for workers in [1, 2, 4] {
        let events = traced("known", || {
            rt(workers, || {
                let (ping, pinged) = unbuffered();
                let (pong, ponged) = unbuffered();
                let player = Builder::new().name("the \"player\"\n".into());
                let player = player
                    .spawn(move || {
                        for n in &pinged {
                            pong.send(n).unwrap();
                        }
                    })
                    .unwrap();
                for n in 0..100_u32 {
                    ping.send(n).unwrap();
                    assert_eq!(ponged.recv(), Ok(n));
                }
                drop(ping);
                player.join().unwrap();
                go(|| oxigo::time::sleep(SLEEP)).join().unwrap();
            });
        });
        check(&events);
        // Main, the player and the sleeper.
        let started = named(&events, "i", "go");
        assert_eq!(started.len(), 3, "{started:?}");
        assert!(started[1]["args"]["at"].as_str().unwrap().starts_with("tests/trace.rs:"), "{started:?}");
        let player = goroutine(started[1]);
        let runs = named(&events, "X", "the \"player\"\n");
        assert!(runs.iter().all(|run| goroutine(run) == player));
        // On one worker it waits for each ball at least once, for one or the other channel. Elsewhere the ball may be there when it comes.
        let waits = |reason: &str| runs.iter().filter(|run| run["args"]["then"] == reason).count();
        let least = if workers == 1 { 100 } else { 1 };
        assert!(waits("chan receive") + waits("chan send") >= least, "{}", runs.len());
        assert_eq!(waits("ends"), 1);
        assert!(runs.iter().any(|run| run["args"]["object"].as_str().is_some_and(|object| object.starts_with("0x"))));
        let woken = named(&events, "i", "wake").into_iter().filter(|wake| goroutine(wake) == player);
        assert!(
            woken.clone().count() >= least
                && woken.into_iter().all(|wake| wake["args"]["waker"] == goroutine(started[0]))
        );
        // The sleeper sleeps once, and a timer wakes it, so long after it began: it may lose its core before it suspends.
        let sleeper = goroutine(started[2]);
        let sleeps: Vec<_> = slices(&events)
            .into_iter()
            .filter(|run| goroutine(run) == sleeper && run["args"]["then"] == "sleep")
            .collect();
        assert_eq!(sleeps.len(), 1, "{sleeps:?}");
        let wakes: Vec<_> = named(&events, "i", "wake").into_iter().filter(|wake| goroutine(wake) == sleeper).collect();
        assert_eq!(wakes.len(), 1);
        assert_eq!(wakes[0]["args"]["waker"], "timer");
        assert!(
            span(sleeps[0]).0 + SLEEP.as_micros() as f64 <= wakes[0]["ts"].as_f64().unwrap() + 0.002,
            "{sleeps:?} {wakes:?}"
        );
        // Workers are named, and slept while they waited for that timer.
        let tracks: Vec<_> =
            events.iter().filter(|event| event["ph"] == "M").map(|event| &event["args"]["name"]).collect();
        assert!(tracks.iter().any(|name| name.as_str().unwrap().contains("test-")), "{tracks:?}");
        assert!(!named(&events, "X", "sleep").is_empty());
    }
}

#[test]
fn wakes_by_sockets_and_threads_have_their_wakers() {
    use std::io::{Read, Write};

    use oxigo::net::{TcpListener, TcpStream};

    let _alone = alone();
    let events = traced("wakers", || {
        rt(2, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let echo = go(move || {
                let (mut connection, _) = listener.accept().unwrap();
                let mut byte = [0];
                while connection.read_exact(&mut byte).is_ok() {
                    connection.write_all(&byte).unwrap();
                }
            });
            let mut client = TcpStream::connect(address).unwrap();
            // On a busy machine the byte may be there before it is waited for.
            for _ in 0..30 {
                oxigo::time::sleep(Duration::from_millis(2));
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
            }
            drop(client);
            echo.join().unwrap();
            let waits = go(oxigo::park);
            let goroutine = waits.goroutine().clone();
            oxigo::blocking(move || std::thread::spawn(move || goroutine.unpark()).join().unwrap());
            waits.join().unwrap();
        });
    });
    check(&events);
    let wakers: Vec<_> = named(&events, "i", "wake").iter().map(|wake| wake["args"]["waker"].clone()).collect();
    assert!(wakers.iter().any(|waker| waker == "poller"), "{wakers:?}");
    assert!(wakers.iter().any(|waker| waker.as_str().is_some_and(|text| text.starts_with("thread "))), "{wakers:?}");
}

#[test]
fn traces_are_one_at_a_time_and_may_be_begun_again() {
    let _alone = alone();
    assert_eq!(trace::stop().unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(trace::start("/nowhere/at/all.json").unwrap_err().kind(), std::io::ErrorKind::NotFound);
    rt(2, || {
        for round in 0..3 {
            let events = traced("again", || {
                assert_eq!(trace::start(file("second")).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
                (0..=round).for_each(|_| go(|| ()).join().unwrap());
            });
            check(&events);
            // Nothing of an earlier trace.
            assert_eq!(named(&events, "i", "go").len(), round + 1);
        }
    });
    assert!(!file("second").exists());
}

#[test]
fn a_goroutine_that_runs_on_is_in_the_trace() {
    let _alone = alone();
    let path = file("open2");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runtime = oxigo::Runtime::builder().workers(1).build().unwrap();
    trace::start(&path).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let spins = runtime.go({
        let stop = stop.clone();
        move || {
            tell.send(oxigo::current().id().to_string()).unwrap();
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                std::hint::spin_loop();
            }
        }
    });
    let id: u64 = told.recv().unwrap().parse().unwrap();
    trace::stop().unwrap();
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    spins.join().unwrap();
    let events = events(&fs::read_to_string(&path).unwrap());
    fs::remove_file(&path).unwrap();
    let runs: Vec<_> = slices(&events).into_iter().filter(|run| goroutine(run) == id).collect();
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["args"]["then"], "runs on");
}

#[test]
fn the_environment_traces_the_whole_program() {
    const NAME: &str = "the_environment_traces_the_whole_program";
    if is_child(NAME) {
        oxigo::run(|| (0..10).map(|n| go(move || n)).for_each(|handle| drop(handle.join())));
        oxigo::run(|| oxigo::exit(0));
    }
    let path = file("environment");
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env("OXIGO_TEST_CHILD", NAME)
        .env("OXIGO_TRACE", &path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let events = events(&fs::read_to_string(&path).unwrap());
    fs::remove_file(&path).unwrap();
    check(&events);
    // Two mains and ten others.
    assert_eq!(named(&events, "i", "go").len(), 12);
}

#[test]
fn a_trace_that_cannot_be_written_says_so_and_the_program_runs() {
    const NAME: &str = "a_trace_that_cannot_be_written_says_so_and_the_program_runs";
    if is_child(NAME) {
        oxigo::run(|| go(|| ()).join().unwrap());
        return;
    }
    let own = child(NAME);
    assert!(own.status.success() && !stderr(&own).contains("OXIGO_TRACE"));
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env("OXIGO_TEST_CHILD", NAME)
        .env("OXIGO_TRACE", "/nowhere/at/all.json")
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains("oxigo: OXIGO_TRACE=/nowhere/at/all.json: "), "{}", stderr(&output));
}

/// What a trace costs a server: connections on each of which a line goes to and fro. Prints the times without and with one.
///
/// `cargo test --release --test trace -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn the_cost_of_a_trace() {
    use std::{
        io::{BufRead, BufReader, Write},
        time::Instant,
    };

    use oxigo::net::{TcpListener, TcpStream};

    fn load() -> Duration {
        const CLIENTS: usize = 50;
        const LINES: usize = 400;
        rt(2, || {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            go(move || {
                for _ in 0..CLIENTS {
                    let (connection, _) = listener.accept().unwrap();
                    go(move || {
                        let (lines, shouts) = unbuffered::<String>();
                        let out = connection.try_clone().unwrap();
                        let shouter = go(move || {
                            for line in &shouts {
                                (&out).write_all(line.to_uppercase().as_bytes()).unwrap();
                            }
                        });
                        let mut reader = BufReader::new(connection);
                        let mut line = String::new();
                        while reader.read_line(&mut line).unwrap() > 0 {
                            lines.send(std::mem::take(&mut line)).unwrap();
                        }
                        drop(lines);
                        shouter.join().unwrap();
                    });
                }
            });
            let begin = Instant::now();
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| {
                    go(move || {
                        let connection = TcpStream::connect(address).unwrap();
                        let mut reader = BufReader::new(connection.try_clone().unwrap());
                        let mut line = String::new();
                        for _ in 0..LINES {
                            (&connection).write_all(b"hello, mountains\n").unwrap();
                            line.clear();
                            reader.read_line(&mut line).unwrap();
                        }
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
            begin.elapsed()
        })
    }

    let path = file("cost");
    let (mut off, mut on) = (Vec::new(), Vec::new());
    load();
    for _ in 0..15 {
        off.push(load());
        trace::start(&path).unwrap();
        on.push(load());
        trace::stop().unwrap();
    }
    fs::remove_file(&path).unwrap();
    off.sort();
    on.sort();
    for (which, times) in [("without", &off), ("with", &on)] {
        println!("{which} a trace: best {:?}, median {:?}", times[0], times[times.len() / 2]);
    }
}

/// One runtime after another may have the same track, which has the names of both.
#[test]
fn a_track_has_the_names_of_all_its_threads() {
    let _alone = alone();
    let events = traced("names", || {
        for name in ["first", "second"] {
            let runtime = oxigo::Runtime::builder().workers(1).name(name).build().unwrap();
            runtime.run(|| go(|| {}).join().unwrap());
        }
    });
    let tracks: Vec<_> =
        events.iter().filter(|event| event["ph"] == "M").map(|event| event["args"]["name"].as_str().unwrap()).collect();
    for name in ["first-0", "second-0"] {
        assert_eq!(tracks.iter().filter(|track| track.split(", ").any(|part| part == name)).count(), 1, "{tracks:?}");
    }
}

/// Of very many closures thieves take a batch at a time: the trace tells of all of them, in one event for each batch.
#[test]
fn goroutines_that_are_stolen_in_a_batch_are_counted() {
    const CLOSURES: usize = 2_000;
    let _alone = alone();
    let events = traced("batch", || {
        rt(2, || {
            let ran = Arc::new(AtomicUsize::new(0));
            for _ in 0..CLOSURES {
                let ran = ran.clone();
                go(move || ran.fetch_add(1, Relaxed));
            }
            // The other worker has to take all of them.
            while ran.load(Relaxed) < CLOSURES {
                hint::spin_loop();
            }
        });
    });
    let steals = named(&events, "i", "steal");
    let taken: u64 = steals.iter().map(|steal| 1 + steal["args"]["more"].as_u64().unwrap()).sum();
    assert!(taken >= CLOSURES as u64, "{taken} in {} steals", steals.len());
    assert!(steals.len() < CLOSURES, "no batch");
}
