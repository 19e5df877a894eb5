//! Rows S-07, S-13 and S-16: a goroutine that computes holds up those who live on its worker, and nobody else who waits for a descriptor which that
//! worker watches.

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{child, is_child, rt, stderr};
use oxigo::{Builder, JoinHandle, bounded, debug, go, net::TcpListener, net::unix::UnixStream, time};

/// Computes until it is told that the other has been served; false when that took too long.
fn hold_until(served: &AtomicBool) -> bool {
    let begin = Instant::now();
    while !served.load(SeqCst) {
        if begin.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::hint::spin_loop();
    }
    true
}

/// Starts `body` on another worker than the caller's.
fn elsewhere<T: Send + 'static>(body: impl FnOnce() -> T + Clone + Send + 'static) -> JoinHandle<Option<T>> {
    let here = thread::current().id();
    loop {
        let (body, (tx, rx)) = (body.clone(), bounded(1));
        let started = Builder::new().spread().spawn(move || {
            let is_elsewhere = thread::current().id() != here;
            tx.send(is_elsewhere).unwrap();
            is_elsewhere.then(body)
        });
        let started = started.unwrap();
        if rx.recv().unwrap() {
            return started;
        }
        started.join().unwrap();
    }
}

/// The other worker watches the socket, since its goroutine has waited for it first.
#[test]
fn s_16_a_socket_is_heard_though_the_worker_that_watches_it_is_held() {
    rt(2, || {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (near, served) = (Arc::new(near), Arc::new(AtomicBool::new(false)));
        let (tx, waited) = bounded(1);
        let (first, told) = (near.clone(), served.clone());
        let holder = elsewhere(move || {
            first.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            (&*first).read(&mut [0]).unwrap_err();
            first.set_read_timeout(None).unwrap();
            tx.send(()).unwrap();
            hold_until(&told)
        });
        waited.recv().unwrap();
        let writer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            far.write_all(b"x").unwrap();
            far
        });
        (&*near).read_exact(&mut [0]).unwrap();
        served.store(true, SeqCst);
        assert_eq!(holder.join().unwrap(), Some(true), "it was heard only when nobody computed any more");
        writer.join().unwrap();
    });
}

/// Two accept; the one that waited first computes for the connection it got.
#[test]
fn s_13_the_next_connection_is_accepted_while_the_first_is_computed_for() {
    rt(2, || {
        let listener = Arc::new(TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicBool::new(false));
        let (tx, started) = bounded(1);
        let (first, told) = (listener.clone(), served.clone());
        let holder = elsewhere(move || {
            tx.send(()).unwrap();
            let _connection = first.accept().unwrap();
            hold_until(&told)
        });
        started.recv().unwrap();
        time::sleep(Duration::from_millis(20));
        let _one = TcpStream::connect(address).unwrap();
        time::sleep(Duration::from_millis(20));
        let second = thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            TcpStream::connect(address).unwrap()
        });
        listener.accept().unwrap();
        served.store(true, SeqCst);
        assert_eq!(holder.join().unwrap(), Some(true), "it was accepted only when nobody computed any more");
        second.join().unwrap();
    });
}

/// A plain thread has no worker; one of the default runtime's watches for it.
#[test]
fn s_07_a_threads_socket_is_heard_though_goroutines_compute() {
    const NAME: &str = "s_07_a_threads_socket_is_heard_though_goroutines_compute";
    if is_child(NAME) {
        let (near, mut far) = UnixStream::pair().unwrap();
        let served = Arc::new(AtomicBool::new(false));
        let told = served.clone();
        let reader = thread::spawn(move || {
            (&near).read_exact(&mut [0]).unwrap();
            told.store(true, SeqCst);
        });
        thread::sleep(Duration::from_millis(50));
        // As many as there are workers, which may be a single one: another goroutine would begin only when the first has given up.
        let holders: Vec<_> = (0..debug::metrics().workers)
            .map(|_| {
                let (served, (tx, begun)) = (served.clone(), bounded(1));
                let holder = go(move || {
                    tx.send(()).unwrap();
                    hold_until(&served)
                });
                begun.recv().unwrap();
                holder
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        far.write_all(b"x").unwrap();
        reader.join().unwrap();
        assert!(
            holders.into_iter().all(|holder| holder.join().unwrap()),
            "it was heard only when nobody computed any more"
        );
        return;
    }
    let output = child(NAME);
    assert!(output.status.success(), "{}", stderr(&output));
}
