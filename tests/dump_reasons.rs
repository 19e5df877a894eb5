//! DG-02: each way to wait has its own words in a dump, and they end when the wait does.

mod common;

use std::{
    io::{Read, Write},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{child, is_child, rt, stderr};
use oxigo::{
    Builder, JoinHandle, WaitGroup, bounded,
    chan::never,
    debug,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Barrier, Condvar, Mutex, OnceLock, RwLock, Semaphore},
    time, unbuffered,
};

fn start<T>(name: &str, f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<()> {
    Builder::new().name(name.into()).spawn(move || drop(f())).unwrap()
}

/// Dumps until `good` likes one, or for long enough.
#[track_caller]
fn dump_until(good: impl Fn(&str) -> Result<(), String>) {
    let begin = Instant::now();
    loop {
        let mut text = Vec::new();
        debug::dump(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let Err(what) = good(&text) else { return };
        assert!(begin.elapsed() < Duration::from_secs(20), "{what} in:\n{text}");
        time::sleep(Duration::from_millis(5));
    }
}

#[test]
fn dg_02_every_kind_of_wait_has_its_words() {
    const NAME: &str = "dg_02_every_kind_of_wait_has_its_words";
    if !is_child(NAME) {
        let output = child(NAME);
        assert!(output.status.success(), "{}", stderr(&output));
        return;
    }
    rt(2, || {
        let mut waits = Vec::new();
        macro_rules! wait {
            ($name:literal, $words:literal, $f:expr) => {
                waits.push(($name, $words, start($name, $f)))
            };
        }
        // Dropping it ends what waits for a channel.
        let (tx, rx) = unbuffered::<()>();
        let (full, room) = bounded::<u8>(1);
        full.send(0).unwrap();
        let receiver = rx.clone();
        wait!("receives", "chan receive on 0x", move || receiver.recv());
        let sender = full.clone();
        wait!("sends", "chan send on 0x", move || sender.send(1));
        let (a, b) = (rx.clone(), full.clone());
        // One disabled arm is not the same as no arm.
        wait!("selects", "select,", move || oxigo::select! {
            recv(a) -> _ => (),
            send(b, 2) -> _ => (),
            recv(never::<()>()) -> _ => (),
        });
        let mutex = Arc::new(Mutex::new(()));
        let rwlock = Arc::new(RwLock::new(()));
        let (mutex_guard, write_guard) = (mutex.lock(), rwlock.write());
        let lock = Arc::clone(&mutex);
        wait!("locks", "Mutex.lock on 0x", move || drop(lock.lock()));
        let lock = Arc::clone(&rwlock);
        wait!("reads shared", "RwLock.read on 0x", move || drop(lock.read()));
        let lock = Arc::clone(&rwlock);
        wait!("writes alone", "RwLock.write on 0x", move || drop(lock.write()));
        let condition = Arc::new((Mutex::new(()), Condvar::new()));
        let pair = Arc::clone(&condition);
        wait!("waits for a condition", "Condvar.wait on 0x", move || pair.1.wait(&mut pair.0.lock()));
        let group = Arc::new(WaitGroup::new());
        group.add(1);
        let waiting = Arc::clone(&group);
        wait!("waits for a group", "WaitGroup.wait on 0x", move || waiting.wait());
        let barrier = Arc::new(Barrier::new(2));
        let waiting = Arc::clone(&barrier);
        wait!("waits for another", "Barrier.wait on 0x", move || waiting.wait());
        let semaphore = Arc::new(Semaphore::new(1));
        let permit = semaphore.acquire(1);
        let waiting = Arc::clone(&semaphore);
        wait!("wants a permit", "Semaphore.acquire on 0x", move || drop(waiting.acquire(1)));
        let once = Arc::new(OnceLock::new());
        let (first, second, gate) = (Arc::clone(&once), Arc::clone(&once), rx.clone());
        let runs = start("runs once", move || *first.get_or_init(|| gate.recv().is_ok()));
        while !has("[runs once]: chan receive") {
            time::sleep(Duration::from_millis(1));
        }
        wait!("comes second", "Once on 0x", move || *second.get_or_init(|| true));
        wait!("parks", "park", oxigo::park);
        let joined = start("is joined", {
            let rx = rx.clone();
            move || rx.recv()
        });
        wait!("joins", "join on 0x", move || joined.join().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        let (far, _) = listener.accept().unwrap();
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        wait!("accepts", "accept on 0x", move || accepting.accept());
        let reading = near.try_clone().unwrap();
        wait!("reads", "read on 0x", move || (&reading).read(&mut [0]));
        let writing = near.try_clone().unwrap();
        wait!("writes", "write on 0x", move || (&writing).write_all(&vec![0; 64 << 20]));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let receiving = socket.try_clone().unwrap();
        wait!("receives packets", "read on 0x", move || receiving.recv(&mut [0]));
        let (one, other) = oxigo::net::pipe();
        let (reads, writes) = (one.try_clone().unwrap(), one.try_clone().unwrap());
        wait!("reads in memory", "pipe read on 0x", move || (&reads).read(&mut [0]));
        wait!("writes in memory", "pipe write on 0x", move || (&writes).write(&[0]));
        let gate = rx.clone();
        wait!("is blocked", "blocking call", move || oxigo::blocking(|| gate.recv()));
        let (wakers, kept) = unbuffered::<std::task::Waker>();
        wait!("waits for a future", "future,", move || {
            let mut polls = 0;
            oxigo::future::block_on(std::future::poll_fn(|cx| {
                polls += 1;
                if polls == 2 {
                    return std::task::Poll::Ready(());
                }
                wakers.send(cx.waker().clone()).unwrap();
                std::task::Poll::Pending
            }));
        });
        let waker = kept.recv().unwrap();
        let mut command = oxigo::process::Command::new("sleep");
        let mut sleeper =
            command.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let id = sleeper.id();
        wait!("waits for a process", "wait for a process", move || sleeper.wait());
        // These are left behind: nothing ends them.
        start("sleeps", || time::sleep(Duration::from_secs(600)));
        start("has no cases", || oxigo::select! {});
        start("has never", || never::<()>().recv());
        start("has a future", || oxigo::future::block_on(std::future::pending::<()>()));
        let left = [
            ("sleeps", "sleep"),
            ("has no cases", "select (no cases), for ever"),
            ("has never", "chan receive (never ready), for ever"),
            ("has a future", "future (no waker left), for ever"),
        ];

        let heading = |name: &str, words: &str| format!(" [{name}]: {words}");
        dump_until(|text| {
            let all = waits.iter().map(|(name, words, _)| (*name, *words)).chain(left);
            let mut missing = all.map(|(name, words)| heading(name, words)).filter(|line| !text.contains(line));
            missing.next().map_or(Ok(()), Err)
        });

        waits.iter().filter(|(name, ..)| *name == "parks").for_each(|(.., handle)| handle.goroutine().unpark());
        waker.wake();
        drop((tx, room, mutex_guard, write_guard, permit));
        condition.1.notify_all();
        group.done();
        barrier.wait();
        listener.close().unwrap();
        near.shutdown(std::net::Shutdown::Both).unwrap();
        socket.close().unwrap();
        drop((far, other));
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(id as i32).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let names: Vec<_> = waits.iter().map(|(name, ..)| *name).collect();
        waits.into_iter().for_each(|(.., handle)| handle.join().unwrap());
        runs.join().unwrap();
        // Who has ended is in no dump.
        dump_until(|text| {
            let found = names.iter().find(|name| text.contains(&format!(" [{name}]")));
            found.map_or(Ok(()), |name| Err((*name).to_owned()))
        });
        std::process::exit(0);
    });
}

fn has(line: &str) -> bool {
    let mut text = Vec::new();
    debug::dump(&mut text).unwrap();
    String::from_utf8(text).unwrap().contains(line)
}
