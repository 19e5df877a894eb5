//! Everything at once, as a seed decides: channels, selects, timers, contexts, locks, sockets, files, processes, panics, and runtimes that are made and
//! dropped. Each kind of work checks what it was promised; after each round everything is as it was before.
//!
//! `OXIGO_SOAK_SECONDS` says for how long, `OXIGO_SEED` repeats a run's choices, `OXIGO_KINDS` names the kinds of work, and `OXIGO_FAULTS` says that
//! the system refuses things meanwhile: then an error of the system's is an answer, and a value that is lost or wrong is none. `OXIGO_STORM` has signals
//! come every millisecond, whose handlers do not ask for calls to be restarted.
#![cfg(target_os = "linux")]

mod common;
#[path = "common/split_mix.rs"]
mod split_mix;

use std::{
    any::Any,
    env, fmt, fs as std_fs,
    io::{self as std_io, BufRead, BufReader, Read, Write},
    panic::{self, AssertUnwindSafe, catch_unwind},
    process, ptr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use oxigo::{
    Builder, Runtime, bounded,
    context::Context,
    fs, go, io,
    net::{TcpListener, TcpStream, unix::UnixStream},
    process::{Command, Stdio},
    scope, select,
    sync::{Barrier, Condvar, ErrGroup, Mutex, OnceLock, RwLock, Semaphore},
    time, unbounded, yield_now,
};
use split_mix::SplitMix64;

/// What decides.
#[derive(Clone)]
struct Random(SplitMix64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Another one, which goes its own way.
    fn fork(&mut self) -> Self {
        Self(SplitMix64(self.next()))
    }

    fn micros(&mut self, most: usize) -> Duration {
        Duration::from_micros(self.below(most) as u64)
    }

    /// Lets others run, one way or another, now and then.
    fn dawdle(&mut self) {
        match self.below(40) {
            0 => yield_now(),
            1 => time::sleep(self.micros(2000)),
            2 => common::compute(self.micros(300)),
            _ => {}
        }
    }
}

fn faults() -> bool {
    static FAULTS: OnceLock<bool> = OnceLock::new();
    *FAULTS.get_or_init(|| env::var_os("OXIGO_FAULTS").is_some())
}

static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// What the system has refused is none of ours.
fn allowed<T>(what: impl fmt::Display, result: std_io::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if faults() => {
            if REFUSED.fetch_add(1, SeqCst) < 30 {
                eprintln!("{what}: {error}");
            }
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

type Work = fn(Random);

const KINDS: [(&str, Work); 16] = [
    ("channels", channels),
    ("selects", selects),
    ("contexts", contexts),
    ("locks", locks),
    ("semaphores", semaphores),
    ("barriers", barriers),
    ("timers", timers),
    ("panics", panics),
    ("echoes", echoes),
    ("copies", copies),
    ("deadlines", deadlines),
    ("files", files),
    ("processes", processes),
    ("threads", threads),
    ("stacks", stacks),
    ("runtimes", runtimes),
];

/// Every value that was sent is received once, in its sender's order.
fn channels(mut random: Random) {
    let (senders, receivers, each) = (1 + random.below(4), 1 + random.below(4), random.below(400));
    let (tx, rx) = match random.below(4) {
        0 => oxigo::unbuffered(),
        1 => unbounded(),
        _ => bounded(1 + random.below(70)),
    };
    let received = scope(|s| {
        for sender in 0..senders {
            let (tx, mut random) = (tx.clone(), random.fork());
            s.go(move || {
                let mut n = 0;
                while n < each {
                    random.dawdle();
                    let value = (sender, n);
                    match random.below(4) {
                        0 if tx.try_send(value).is_err() => continue,
                        1 if tx.send_timeout(value, random.micros(500)).is_err() => continue,
                        2 => {
                            let more = (each - n).min(1 + random.below(100));
                            tx.send_many((n..n + more).map(|n| (sender, n)).collect()).unwrap();
                            n += more;
                            continue;
                        }
                        0 | 1 => {}
                        _ => tx.send(value).unwrap(),
                    }
                    n += 1;
                }
            });
        }
        drop(tx);
        let receivers: Vec<_> = (0..receivers)
            .map(|_| {
                let (rx, mut random) = (rx.clone(), random.fork());
                s.go(move || {
                    let mut values = Vec::new();
                    loop {
                        random.dawdle();
                        match random.below(4) {
                            0 => values.extend(rx.try_recv()),
                            1 => values.extend(rx.recv_timeout(random.micros(500))),
                            2 => {
                                if rx.recv_many(&mut values, 1 + random.below(100)).is_err() {
                                    return values;
                                }
                            }
                            _ => match rx.recv() {
                                Ok(value) => values.push(value),
                                Err(_) => return values,
                            },
                        }
                    }
                })
            })
            .collect();
        receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect::<Vec<_>>()
    });
    let mut seen = vec![vec![0; each]; senders];
    for values in received {
        let mut last = vec![None; senders];
        for (sender, n) in values {
            seen[sender][n] += 1;
            assert!(last[sender] < Some(n), "out of order");
            last[sender] = Some(n);
        }
    }
    assert!(seen.iter().flatten().all(|count| *count == 1), "lost or doubled: {seen:?}");
}

/// What goes into three channels comes out, whatever the choice.
fn selects(mut random: Random) {
    let each = random.below(200);
    let ends: Vec<_> = (0..3).map(|n| bounded::<usize>(n * 3)).collect();
    let total: usize = scope(|s| {
        let (quit, quits) = oxigo::unbuffered::<()>();
        let sums: Vec<_> = (0..2)
            .map(|_| {
                let (ends, quits, mut random) = (&ends, quits.clone(), random.fork());
                s.go(move || {
                    let mut sum = 0;
                    loop {
                        random.dawdle();
                        select! {
                            recv(ends[0].1) -> value => sum += value.unwrap_or(0),
                            recv(ends[1].1) -> value => sum += value.unwrap_or(0),
                            recv(ends[2].1) -> value => sum += value.unwrap_or(0),
                            recv(oxigo::chan::after(random.micros(3000))) -> _ => {}
                            recv(quits) -> _ => return sum,
                        }
                    }
                })
            })
            .collect();
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let (ends, mut random) = (&ends, random.fork());
                s.go(move || {
                    for _ in 0..each {
                        random.dawdle();
                        select! {
                            send(ends[0].0, 1) -> sent => sent.unwrap(),
                            send(ends[1].0, 1) -> sent => sent.unwrap(),
                            send(ends[2].0, 1) -> sent => sent.unwrap(),
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        drop(quit);
        sums.into_iter().map(|sum| sum.join().unwrap()).sum()
    });
    let left: usize = ends.iter().map(|(_, rx)| rx.try_iter().sum::<usize>()).sum();
    assert_eq!(total + left, 3 * each);
}

/// All below a context end with it, and not before their time.
fn contexts(mut random: Random) {
    let (root, cancel) = Context::background().with_cancel();
    let ended = AtomicUsize::new(0);
    let count = 1 + random.below(20);
    scope(|s| {
        for _ in 0..count {
            let (root, ended, mut random) = (root.clone(), &ended, random.fork());
            s.go(move || {
                let timeout = random.micros(4000);
                let begin = Instant::now();
                let (ctx, _cancel) = root.with_timeout(timeout);
                let _unused = ctx.after_func(|| ());
                match random.below(3) {
                    0 => drop(ctx.done().recv()),
                    1 => drop(ctx.sleep(Duration::from_secs(3600))),
                    _ => drop(oxigo::sync::WaitGroup::new().wait_ctx(&ctx)),
                }
                if ctx.err().is_none() {
                    ctx.done().recv().unwrap_err();
                }
                assert!(begin.elapsed() >= timeout || root.err().is_some(), "ended early");
                ended.fetch_add(1, SeqCst);
            });
        }
        time::sleep(random.micros(4000));
        cancel.cancel();
    });
    assert_eq!(ended.load(SeqCst), count);
}

/// Counts are exact, and writers alone.
fn locks(mut random: Random) {
    let (mutex, rwlock, changed) = (Mutex::new(0_usize), RwLock::new((0_usize, 0_usize)), Condvar::new());
    let (count, each) = (1 + random.below(6), random.below(100));
    scope(|s| {
        for _ in 0..count {
            let (mutex, rwlock, changed, mut random) = (&mutex, &rwlock, &changed, random.fork());
            s.go(move || {
                for _ in 0..each {
                    let mut guard = mutex.lock();
                    let before = *guard;
                    random.dawdle();
                    *guard = before + 1;
                    changed.notify_all();
                    drop(guard);
                    if random.one_in(2) {
                        let mut pair = rwlock.write();
                        pair.0 += 1;
                        random.dawdle();
                        pair.1 += 1;
                    } else {
                        let pair = rwlock.read();
                        random.dawdle();
                        assert_eq!(pair.0, pair.1);
                    }
                }
            });
        }
        let mut guard = mutex.lock();
        changed.wait_while(&mut guard, |n| *n < count * each);
    });
    assert_eq!(mutex.into_inner(), count * each);
}

/// Never more than there are permits.
fn semaphores(mut random: Random) {
    let size = 1 + random.below(5);
    let (semaphore, held) = (Semaphore::new(size), AtomicUsize::new(0));
    scope(|s| {
        for _ in 0..random.below(10) {
            let (semaphore, held, mut random) = (&semaphore, &held, random.fork());
            s.go(move || {
                for _ in 0..random.below(60) {
                    let n = 1 + random.below(size);
                    let permit = match random.below(3) {
                        0 => semaphore.try_acquire(n),
                        1 => semaphore.acquire_timeout(n, random.micros(1000)),
                        _ => Some(semaphore.acquire(n)),
                    };
                    if let Some(_permit) = permit {
                        assert!(held.fetch_add(n, SeqCst) + n <= size, "more than there are");
                        random.dawdle();
                        held.fetch_sub(n, SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!(semaphore.available(), size);
}

/// One leader a round, one initialisation, the first error of a group.
fn barriers(mut random: Random) {
    let (parties, rounds) = (1 + random.below(5), random.below(30));
    let (barrier, leaders, once) = (Barrier::new(parties), AtomicUsize::new(0), OnceLock::new());
    let made = AtomicUsize::new(0);
    scope(|s| {
        for _ in 0..parties {
            let (barrier, leaders, once, made, mut random) = (&barrier, &leaders, &once, &made, random.fork());
            s.go(move || {
                for _ in 0..rounds {
                    random.dawdle();
                    leaders.fetch_add(usize::from(barrier.wait().is_leader()), SeqCst);
                }
                let _: &usize = once.get_or_init(|| {
                    random.dawdle();
                    made.fetch_add(1, SeqCst)
                });
            });
        }
    });
    assert_eq!((leaders.load(SeqCst), made.load(SeqCst)), (rounds, 1));
    let group = ErrGroup::with_limit(1 + random.below(3));
    let fails = random.one_in(2);
    for n in 0..10 {
        let mut random = random.fork();
        group.go(move || {
            random.dawdle();
            if fails && n == 5 { Err(n) } else { Ok(()) }
        });
    }
    assert_eq!(group.wait(), if fails { Err(5) } else { Ok(()) });
}

/// Nothing comes early, what is stopped does not come, and the rest does.
fn timers(mut random: Random) {
    let fired = Arc::new(AtomicUsize::new(0));
    let mut expected = 0;
    let done = oxigo::WaitGroup::new();
    let begin = Instant::now();
    for _ in 0..random.below(60) {
        let after = random.micros(5000);
        let (fired, guard) = (fired.clone(), done.guard());
        let timer = time::after_func(after, move || {
            assert!(begin.elapsed() >= after, "too early");
            fired.fetch_add(1, SeqCst);
            drop(guard);
        });
        random.dawdle();
        expected += usize::from(!(random.one_in(3) && timer.stop()));
    }
    let (mut last, ticks) = (Instant::now(), oxigo::chan::tick(Duration::from_micros(200)));
    for _ in 0..5 {
        let at = ticks.recv().unwrap();
        assert!(at >= last, "the clock went back");
        last = at;
    }
    let sleep = random.micros(3000);
    let begin = Instant::now();
    time::sleep(sleep);
    assert!(begin.elapsed() >= sleep);
    done.wait();
    // A function for which there is no stack is dropped.
    let fired = fired.load(SeqCst);
    assert!(fired == expected || faults() && fired < expected, "{fired} of {expected}");
}

/// A panic ends its goroutine alone.
fn panics(mut random: Random) {
    let handles: Vec<_> = (0..random.below(10))
        .map(|n| {
            let (mut random, panics) = (random.fork(), random.one_in(2));
            let handle = go(move || {
                struct Waits;
                impl Drop for Waits {
                    fn drop(&mut self) {
                        time::sleep(Duration::from_micros(100));
                    }
                }
                let _waits = random.one_in(2).then_some(Waits);
                random.dawdle();
                assert!(!panics, "meant {n}");
                n
            });
            (n, panics, handle)
        })
        .collect();
    for (n, panics, handle) in handles {
        assert_eq!(handle.join().ok(), (!panics).then_some(n));
    }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random(SplitMix64(seed));
    (0..len).map(|_| random.next() as u8).collect()
}

/// A server and its clients: every line comes back as it was sent.
fn echoes(mut random: Random) {
    let Some(listener) = allowed("bind", TcpListener::bind("127.0.0.1:0")) else { return };
    let address = listener.local_addr().unwrap();
    let clients = 1 + random.below(8);
    scope(|s| {
        let listener = &listener;
        s.go(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        s.go(move || {
                            let mut lines = BufReader::new(&stream);
                            let mut line = Vec::new();
                            while allowed("server read", lines.read_until(b'\n', &mut line)).is_some_and(|n| n > 0) {
                                if allowed("server write", (&stream).write_all(&line)).is_none() {
                                    break;
                                }
                                line.clear();
                            }
                        });
                    }
                    Err(error) if error.to_string() == "listener closed" => return,
                    Err(error) => _ = allowed("accept", Err::<(), _>(error)),
                }
            }
        });
        let clients: Vec<_> = (0..clients)
            .map(|_| {
                let mut random = random.fork();
                s.go(move || {
                    let Some(stream) = allowed("connect", TcpStream::connect(address)) else { return };
                    let mut replies = BufReader::new(&stream);
                    for _ in 0..random.below(30) {
                        let most = if random.one_in(10) { 300_000 } else { 200 };
                        let len = random.below(most);
                        let mut line: Vec<u8> = pattern(random.next(), len).iter().map(|b| b'a' + b % 26).collect();
                        line.push(b'\n');
                        let mut reply = Vec::new();
                        let ok = scope(|s| {
                            let stream = &stream;
                            let line = &line;
                            let writes = s.go(move || {
                                let written = allowed("client write", (&mut &*stream).write_all(line)).is_some();
                                if !written {
                                    // There will be no reply.
                                    let _ = stream.shutdown(oxigo::net::Shutdown::Both);
                                }
                                written
                            });
                            let read = allowed("client read", replies.read_until(b'\n', &mut reply));
                            if read.is_none() {
                                // Nobody reads any more what is being written.
                                let _ = stream.shutdown(oxigo::net::Shutdown::Both);
                            }
                            writes.join().unwrap() && read.is_some_and(|n| n > 0)
                        });
                        if !ok {
                            assert!(faults() && line.starts_with(&reply), "a wrong part of a reply");
                            return;
                        }
                        assert!(reply == line || faults() && line.starts_with(&reply), "a wrong reply");
                        random.dawdle();
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let _ = listener.close();
    });
}

/// What goes in at one end of a row of copies comes out at the other.
fn copies(mut random: Random) {
    let bytes = pattern(random.next(), random.below(400_000));
    let Some((first, mut into)) = allowed("pair", UnixStream::pair()) else { return };
    let Some((mut reader, writer)) = allowed("pipe", io::pipe()) else { return };
    let (copied, whole, read) = scope(|s| {
        let bytes = &bytes;
        let mut dawdles = random.fork();
        let writes = s.go(move || {
            for part in bytes.chunks(1 + dawdles.below(50_000)) {
                if allowed("write", into.write_all(part)).is_none() {
                    return false;
                }
                dawdles.dawdle();
            }
            true
        });
        let copies = s.go(move || allowed("copy", io::copy(&first, &writer)));
        let mut all = Vec::new();
        let read = allowed("read", reader.read_to_end(&mut all));
        drop(reader);
        assert!(bytes.starts_with(&all), "a copy is wrong");
        (copies.join().unwrap(), writes.join().unwrap(), read)
    });
    if copied.is_some() && whole && read.is_some() {
        assert_eq!(read, Some(bytes.len()), "a copy is too short");
    }
}

/// A read with a time limit ends after it, not before, and the stream can be used again.
fn deadlines(mut random: Random) {
    let Some((mut near, mut far)) = allowed("pair", UnixStream::pair()) else { return };
    for n in 0..random.below(10) {
        let limit = Duration::from_micros(100) + random.micros(3000);
        near.set_read_timeout(Some(limit)).unwrap();
        let begin = Instant::now();
        if let Err(error) = near.read(&mut [0])
            && error.kind() != std_io::ErrorKind::TimedOut
        {
            allowed("a timed read", Err::<(), _>(error));
            return;
        }
        assert!(begin.elapsed() >= limit, "too early");
        near.set_read_timeout(None).unwrap();
        let mut byte = [0];
        if allowed("far write", far.write_all(&[n as u8])).is_none()
            || allowed("near read", near.read_exact(&mut byte)).is_none()
        {
            return;
        }
        assert_eq!(byte, [n as u8]);
    }
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// What was written is read.
fn files(mut random: Random) {
    let path = env::temp_dir().join(format!("oxigo-mixed-{}-{}", process::id(), NUMBER.fetch_add(1, SeqCst)));
    let bytes = pattern(random.next(), random.below(100_000));
    let result = (|| {
        allowed("write", fs::write(&path, &bytes))?;
        random.dawdle();
        let read = allowed("read", fs::read(&path))?;
        assert_eq!(read.len(), bytes.len());
        assert!(read == bytes, "a wrong file");
        let file = allowed("open", fs::File::open(&path))?;
        let (mut reader, writer) = allowed("pipe", io::pipe())?;
        scope(|s| {
            let copies = s.go(move || allowed("file copy", io::copy(&file, &writer)));
            let mut all = Vec::new();
            let read = allowed("pipe read", reader.read_to_end(&mut all));
            drop(reader);
            assert!(bytes.starts_with(&all));
            let copied = copies.join().unwrap();
            if let (Some(copied), Some(read)) = (copied, read) {
                assert_eq!((copied as usize, read), (bytes.len(), bytes.len()));
            }
        });
        Some(())
    })();
    let _ = result;
    let _ = std_fs::remove_file(&path);
}

/// A process gets its input and gives it back; one that is killed has been.
fn processes(mut random: Random) {
    if random.one_in(3) {
        let spawned = Command::new("sleep").arg("3600").spawn();
        let Some(mut child) = allowed("sleep", spawned) else { return };
        assert!(allowed("wait", child.wait_timeout(random.micros(3000))).flatten().is_none());
        child.kill().unwrap();
        while allowed("wait for sleep", child.wait()).is_none() {}
        return;
    }
    let spawned = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Some(mut child) = allowed("cat", spawned) else { return };
    let bytes = pattern(random.next(), random.below(200_000));
    let mut stdin = child.stdin.take().unwrap();
    let (bytes, sent) = scope(|s| {
        let writes = s.go(|| {
            let sent = allowed("to cat", stdin.write_all(&bytes)).is_some();
            drop(stdin);
            sent
        });
        let output = allowed("from cat", child.wait_with_output());
        let sent = writes.join().unwrap();
        if let Some(output) = &output {
            assert!(bytes.starts_with(&output.stdout), "cat is wrong");
            assert!(!sent || faults() || output.stdout.len() == bytes.len() && output.status.success());
        }
        (bytes.len(), sent)
    });
    let _ = (bytes, sent);
}

/// Plain threads, calls that block, and goroutines talk.
fn threads(mut random: Random) {
    let (tx, rx) = bounded(random.below(4));
    let (back, comes_back) = unbounded();
    let each = random.below(100);
    let thread = thread::Builder::new().spawn(move || {
        for n in rx.iter() {
            back.send(n).unwrap();
        }
    });
    let Some(thread) = allowed("a thread", thread) else { return };
    for n in 0..each {
        tx.send(n).unwrap();
        if n % 10 == 0
            && catch_unwind(AssertUnwindSafe(|| oxigo::blocking(|| thread::sleep(random.micros(500))))).is_err()
        {
            assert!(faults());
        }
    }
    drop(tx);
    assert!(comes_back.iter().eq(0..each));
    thread.join().unwrap();
}

/// Deep calls, and stacks of other sizes.
fn stacks(mut random: Random) {
    #[inline(never)]
    fn deep(n: usize) -> usize {
        let mut room = [0_u8; 512];
        room[n % 512] = 1;
        if n.is_multiple_of(16) {
            yield_now();
        }
        std::hint::black_box(&mut room);
        if n == 0 { 0 } else { 1 + deep(n - 1) }
    }
    let handles: Vec<_> = (0..random.below(60))
        .filter_map(|_| {
            let builder = match random.below(4) {
                0 => Builder::new().stack_size(1 << 20),
                1 => Builder::new().spread(),
                _ => Builder::new(),
            };
            let depth = random.below(64);
            let handle = allowed("a goroutine", builder.spawn(move || deep(depth)))?;
            Some((depth, handle))
        })
        .collect();
    for (depth, handle) in handles {
        assert_eq!(handle.join().unwrap(), depth);
    }
}

/// Runtimes inside of runtimes, some of them dropped while they work.
fn runtimes(mut random: Random) {
    let built = Runtime::builder().workers(1 + random.below(3)).build();
    let Some(runtime) = allowed("a runtime", built) else { return };
    let kind = random.below(8);
    let fork = random.fork();
    runtime.run(|| KINDS[kind].1(fork));
    let ran = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = random.below(50);
    for _ in 0..count {
        let (ran, counted, mut random) = (ran.clone(), common::Counted(dropped.clone()), random.fork());
        runtime.go(move || {
            let _counted = counted;
            random.dawdle();
            ran.fetch_add(1, SeqCst);
        });
    }
    drop(runtime);
    let begin = Instant::now();
    while dropped.load(SeqCst) < count {
        time::sleep(Duration::from_micros(200));
        assert!(begin.elapsed() < Duration::from_secs(120), "{dropped:?} of {count} closures were dropped");
    }
    assert!(ran.load(SeqCst) <= count);
}

extern "C" fn nothing(_: libc::c_int) {}

/// SIGPROF interrupts workers too, SIGALRM the others.
fn storm() {
    for (signal, timer) in [(libc::SIGPROF, libc::ITIMER_PROF), (libc::SIGALRM, libc::ITIMER_REAL)] {
        // SAFETY: all zeros are a valid sigaction without flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing.
        assert_eq!(unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) }, 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let times = libc::itimerval { it_interval: every, it_value: every };
        // SAFETY: valid times; the signal has a handler.
        assert_eq!(unsafe { libc::setitimer(timer, &raw const times, ptr::null_mut()) }, 0);
    }
}

fn descriptors() -> usize {
    std_fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn resident() -> usize {
    let pages = std_fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * rustix::param::page_size()
}

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().expect(name))
}

#[test]
fn everything_at_once_keeps_its_promises() {
    let seconds = setting("OXIGO_SOAK_SECONDS").unwrap_or(2);
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    let seed = setting("OXIGO_SEED").unwrap_or(clock ^ ptr::from_ref(&clock).addr() as u64);
    eprintln!("OXIGO_SEED={seed}");
    if env::var_os("OXIGO_STORM").is_some() {
        storm();
    }
    let wanted = env::var("OXIGO_KINDS").unwrap_or_default();
    let kinds: Vec<_> =
        KINDS.iter().filter(|(name, _)| wanted.is_empty() || wanted.split(',').any(|w| w == *name)).collect();
    panic::set_hook({
        let ordinary = panic::take_hook();
        Box::new(move |info| {
            let meant = info.payload_as_str().is_some_and(|text| text.starts_with("meant"));
            if !meant {
                ordinary(info);
            }
        })
    });
    let mut random = Random(SplitMix64(seed));
    let workers = setting("OXIGO_WORKERS").map(|n| n as usize);
    let begin = Instant::now();
    let mut before = None;
    let mut rounds = 0_usize;
    while begin.elapsed() < Duration::from_secs(seconds) {
        let count = workers.unwrap_or_else(|| 1 + random.below(4));
        let built = Runtime::builder().workers(count).build();
        let Some(runtime) = allowed("the runtime", built) else { continue };
        let works: Vec<_> = (0..1 + random.below(12)).map(|_| kinds[random.below(kinds.len())]).collect();
        let names: Vec<_> = works.iter().map(|(name, _)| *name).collect();
        let forks: Vec<_> = works.iter().map(|_| random.fork()).collect();
        let text = |why: &(dyn Any + Send)| {
            let text = why.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| why.downcast_ref::<String>().cloned()).unwrap_or_default()
        };
        let work = || {
            let start = |(work, random): (&(&'static str, Work), Random)| {
                let (name, work) = *work;
                (name, go(move || work(random)))
            };
            let handles: Vec<_> = works.into_iter().zip(forks).map(start).collect();
            let join = |(name, handle): (&str, oxigo::JoinHandle<()>)| {
                Some(format!("{name}: {}", text(&*handle.join().err()?)))
            };
            handles.into_iter().filter_map(join).collect::<Vec<_>>()
        };
        let ran = catch_unwind(AssertUnwindSafe(|| runtime.run(work)));
        let failed = ran.unwrap_or_else(|why| vec![text(&*why)]);
        let excuses = ["cannot start", "a scoped goroutine panicked"];
        let excused = |text: &String| faults() && excuses.iter().any(|part| text.contains(part));
        assert!(failed.iter().all(excused), "round {rounds} with {count} workers, {names:?}: {failed:?}");
        drop(runtime);
        rounds += 1;
        if rounds.is_multiple_of(50) {
            // What is kept for later uses has been made by now.
            let wait = Instant::now();
            let most = *before.get_or_insert_with(descriptors) + 8;
            while descriptors() > most && wait.elapsed() < Duration::from_secs(30) {
                thread::sleep(Duration::from_millis(10));
            }
            assert!(descriptors() <= most || setting("OXIGO_FAULTS").is_some(), "{} descriptors", descriptors());
            eprintln!(
                "{rounds} rounds, {} s, {} KiB, {} descriptors",
                begin.elapsed().as_secs(),
                resident() >> 10,
                descriptors()
            );
        }
    }
    eprintln!("{rounds} rounds, {} refused", REFUSED.load(SeqCst));
}
