//! Group NT for TCP: closing, ends, deadlines, concurrent use, and what readiness must survive.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashMap,
    error::Error,
    io::{ErrorKind, IoSlice, IoSliceMut, Read, Write},
    os::fd::{AsFd, AsRawFd},
    panic,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::{Duration, Instant},
};

use common::{at_1_2_4, child, is_child, rt, stderr};
use oxigo::{
    JoinHandle, WaitGroup, go,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    scope, time, yield_now,
};

const MS: Duration = Duration::from_millis(1);
/// What must happen at once has happened after this long, on any machine.
const AT_ONCE: Duration = Duration::from_secs(5);

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let (listener, address) = listen();
    let near = TcpStream::connect(address).unwrap();
    let (far, _) = listener.accept().unwrap();
    (near, far)
}

/// Both ends of a connection whose buffers do not grow.
fn narrow_pair() -> (TcpStream, TcpStream) {
    let (near, far) = pair();
    for stream in [&near, &far] {
        let socket = socket2::SockRef::from(stream);
        socket.set_send_buffer_size(32 << 10).unwrap();
        socket.set_recv_buffer_size(32 << 10).unwrap();
    }
    (near, far)
}

/// More than a narrow pair has room for, however the system packs it.
const TOO_MUCH: &[u8] = &[0; 4 << 20];

/// Writes until nothing more fits: what was written.
fn fill(stream: &TcpStream) -> usize {
    stream.set_write_timeout(Some(20 * MS)).unwrap();
    let block = [0x5A; 65536];
    let mut filled = 0;
    loop {
        match (&*stream).write(&block) {
            Ok(n) => filled += n,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                stream.set_write_timeout(None).unwrap();
                return filled;
            }
        }
    }
}

/// Waits, by a clock, until the goroutine is seen to wait in `operation`.
fn until_parked<T>(goroutine: &JoinHandle<T>) {
    // There is no public way to see it parked; on a busy machine this only makes the test weaker, never wrong.
    for _ in 0..20 {
        time::sleep(MS);
        assert!(!goroutine.is_finished(), "it should wait");
    }
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    match result {
        Ok(_) => panic!("an error was expected"),
        Err(error) => error.kind(),
    }
}

#[test]
fn nt_01_close_wakes_all_who_accept() {
    at_1_2_4(|| {
        let (listener, _) = listen();
        let listener = Arc::new(listener);
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let listener = Arc::clone(&listener);
                go(move || listener.accept().map(drop))
            })
            .collect();
        until_parked(&waiting[3]);
        let begin = Instant::now();
        listener.close().unwrap();
        for goroutine in waiting {
            let error = goroutine.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotConnected);
            assert_eq!(error.to_string(), "listener closed");
        }
        assert!(begin.elapsed() < AT_ONCE);
    });
}

#[test]
fn nt_01_shutdown_wakes_those_who_read_and_write() {
    at_1_2_4(|| {
        let (near, _far) = narrow_pair();
        let near = Arc::new(near);
        let (reader, writer) = (Arc::clone(&near), Arc::clone(&near));
        let reader = go(move || (&*reader).read(&mut [0; 8]));
        let writer = go(move || (&*writer).write_all(TOO_MUCH));
        until_parked(&reader);
        until_parked(&writer);
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        assert_eq!(kind(writer.join().unwrap()), ErrorKind::BrokenPipe);
    });
}

#[test]
fn nt_02_the_peers_close_is_the_end_of_what_is_read() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let reader = go(move || {
            let mut text = String::new();
            (&near).read_to_string(&mut text).map(|_| text)
        });
        until_parked(&reader);
        (&far).write_all(b"last words").unwrap();
        drop(far);
        assert_eq!(reader.join().unwrap().unwrap(), "last words");
    });
}

#[test]
fn nt_03_what_is_closed_stays_closed_and_closes_once() {
    rt(2, || {
        let (listener, address) = listen();
        listener.close().unwrap();
        assert_eq!(kind(listener.close()), ErrorKind::NotConnected);
        assert_eq!(kind(listener.accept()), ErrorKind::NotConnected);
        let mut incoming = listener.incoming();
        assert_eq!(kind(incoming.next().unwrap()), ErrorKind::NotConnected);
        assert!(incoming.next().is_none() && incoming.next().is_none());
        assert_eq!(kind(TcpStream::connect(address)), ErrorKind::ConnectionRefused);

        let (near, _far) = pair();
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(kind((&near).write(b"x")), ErrorKind::BrokenPipe);
    });
}

/// A server's loop that goes on after errors. It went on for ever, with the same error.
#[test]
fn nt_01_close_ends_the_loop_over_incoming() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        listener.set_deadline(Some(Instant::now())).unwrap();
        scope(|s| {
            let server = s.go(|| {
                let mut errors = Vec::new();
                for connection in listener.incoming() {
                    match connection {
                        Ok(mut connection) => connection.write_all(b"served").unwrap(),
                        Err(error) => errors.push(error),
                    }
                    assert!(errors.len() < 1000, "it does not end");
                    // The error of a deadline is one to go on after.
                    listener.set_deadline(None).unwrap();
                }
                errors
            });
            let mut text = String::new();
            TcpStream::connect(address).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "served");
            listener.close().unwrap();
            let errors: Vec<_> = server.join().unwrap().iter().map(std::io::Error::kind).collect();
            assert_eq!(errors, [ErrorKind::TimedOut, ErrorKind::NotConnected]);
        });
    });
}

/// Of several who close at once, exactly one is told that it did it.
#[test]
fn nt_03_one_of_many_closers_wins() {
    for _ in 0..500 {
        let (listener, _) = listen();
        let (closed, arrived) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    arrived.fetch_add(1, SeqCst);
                    while arrived.load(SeqCst) < 2 {
                        std::hint::spin_loop();
                    }
                    if listener.close().is_ok() {
                        closed.fetch_add(1, SeqCst);
                    }
                });
            }
        });
        assert_eq!(closed.load(SeqCst), 1);
    }
}

/// A handle keeps the descriptor: its number is given to nobody else while an operation is under way.
#[test]
fn nt_04_the_descriptor_lives_as_long_as_an_operation() {
    rt(2, || {
        let (near, far) = pair();
        let number = near.as_raw_fd();
        let clone = near.try_clone().unwrap();
        let reader = go(move || {
            let mut byte = [0];
            (&clone).read_exact(&mut byte).map(|()| byte[0])
        });
        until_parked(&reader);
        drop(near);
        // The lowest free number is what the system gives out next.
        let others: Vec<_> = (0..64).map(|_| pair()).collect();
        assert!(others.iter().all(|(a, b)| a.as_raw_fd() != number && b.as_raw_fd() != number));
        (&far).write_all(&[7]).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 7);
    });
}

/// Connections that come and go use descriptors and table entries again; events of the old ones do not reach the new ones wrongly, and no
/// event is lost.
#[test]
fn nt_04_descriptors_are_used_again_without_mixing_up() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let server = go(move || {
            for _ in 0..300 {
                let (connection, _) = listener.accept().unwrap();
                go(move || {
                    let mut number = [0; 4];
                    (&connection).read_exact(&mut number).unwrap();
                    (&connection).write_all(&number).unwrap();
                });
            }
        });
        let clients: Vec<_> = (0..3_u32)
            .map(|client| {
                go(move || {
                    for n in 0..100 {
                        let stream = TcpStream::connect(address).unwrap();
                        let number = (client << 16 | n).to_le_bytes();
                        yield_now();
                        (&stream).write_all(&number).unwrap();
                        let mut back = Vec::new();
                        (&stream).read_to_end(&mut back).unwrap();
                        assert_eq!(back, number);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        server.join().unwrap();
    });
}

#[test]
fn nt_05_each_half_closes_for_itself() {
    at_1_2_4(|| {
        let (near, far) = pair();
        (&near).write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        (&far).read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "question");
        assert_eq!(kind((&near).write(b"more")), ErrorKind::BrokenPipe);
        (&far).write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        (&near).read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer");

        // Reading ends at once, for all handles, even where something waits to be read.
        (&far).write_all(b"too late").unwrap();
        let clone = near.try_clone().unwrap();
        clone.readable().unwrap();
        near.shutdown(Shutdown::Read).unwrap();
        assert_eq!((&clone).read(&mut [0; 8]).unwrap(), 0);
        assert_eq!(clone.peek(&mut [0; 8]).unwrap(), 0);
        clone.readable().unwrap();
    });
}

#[test]
fn nt_06_a_past_deadline_fails_even_where_data_is_ready() {
    at_1_2_4(|| {
        let (near, far) = pair();
        (&far).write_all(b"ready").unwrap();
        near.readable().unwrap();
        let now = Instant::now();
        near.set_read_deadline(Some(now)).unwrap();
        near.set_write_deadline(Some(now)).unwrap();
        assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind(near.peek(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind(near.readable()), ErrorKind::TimedOut);
        assert_eq!(kind((&near).write(b"room")), ErrorKind::TimedOut);
        assert_eq!(kind(near.writable()), ErrorKind::TimedOut);
        near.set_deadline(None).unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 5);
        near.set_deadline(Some(now)).unwrap();
        assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
        assert_eq!(kind((&near).write(b"room")), ErrorKind::TimedOut);

        let (listener, address) = listen();
        let _client = TcpStream::connect(address).unwrap();
        listener.set_deadline(Some(now)).unwrap();
        assert_eq!(kind(listener.accept()), ErrorKind::TimedOut);
        listener.set_deadline(None).unwrap();
        listener.accept().unwrap();
    });
}

#[test]
fn nt_07_a_deadline_ends_what_waits_already() {
    at_1_2_4(|| {
        let (near, _far) = narrow_pair();
        let (listener, _) = listen();
        let (near, listener) = (Arc::new(near), Arc::new(listener));
        let (n, l) = (Arc::clone(&near), Arc::clone(&listener));
        let reader = go(move || kind((&*n).read(&mut [0; 8])));
        let n = Arc::clone(&near);
        let writer = go(move || kind((&*n).write_all(TOO_MUCH)));
        // Behind the writer, waiting for its turn.
        let n = Arc::clone(&near);
        let second = go(move || kind((&*n).write_all(TOO_MUCH)));
        let acceptor = go(move || kind(l.accept()));
        until_parked(&reader);
        let past = Instant::now();
        near.set_read_deadline(Some(past)).unwrap();
        near.set_write_deadline(Some(past)).unwrap();
        listener.set_deadline(Some(past)).unwrap();
        for goroutine in [reader, writer, second, acceptor] {
            assert_eq!(goroutine.join().unwrap(), ErrorKind::TimedOut);
        }
        assert!(past.elapsed() < AT_ONCE);
    });
}

/// A change that comes between the look at the limits and the wait: the tick has to be read first. Found by reading: a goroutine had read
/// the old limit, the change was counted, then the tick was read, and the wait had no end. The moment is short; the loom models
/// `a_change_is_an_event` and `a_change_of_limits_is_not_missed` are what catches it.
#[test]
fn nt_07_no_change_of_a_deadline_is_lost() {
    at_1_2_4(|| {
        let (near, _far) = narrow_pair();
        for _ in 0..300 {
            scope(|s| {
                for _ in 0..2 {
                    s.go(|| assert_eq!(kind((&near).write_all(TOO_MUCH)), ErrorKind::TimedOut));
                }
                s.go(|| assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut));
                yield_now();
                near.set_read_deadline(Some(Instant::now())).unwrap();
                near.set_write_deadline(Some(Instant::now())).unwrap();
            });
            near.set_read_deadline(None).unwrap();
            near.set_write_deadline(None).unwrap();
        }
    });
}

/// The same while the descriptor is being registered: a fresh one each time.
#[test]
fn nt_07_no_change_is_lost_while_registering() {
    rt(2, || {
        for _ in 0..300 {
            let (near, _far) = pair();
            let (listener, _) = listen();
            scope(|s| {
                s.go(|| assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut));
                s.go(|| assert_eq!(kind(listener.accept()), ErrorKind::NotConnected));
                near.set_read_deadline(Some(Instant::now())).unwrap();
                listener.close().unwrap();
            });
        }
    });
}

#[test]
fn nt_08_without_a_deadline_the_wait_goes_on() {
    rt(2, || {
        let (far, reader) = loop {
            let (near, far) = pair();
            let soon = Instant::now() + 30 * MS;
            near.set_read_deadline(Some(soon)).unwrap();
            let clone = near.try_clone().unwrap();
            let reader = go(move || (&clone).read(&mut [0; 8]));
            near.set_read_deadline(None).unwrap();
            // Otherwise it may have acted, on a busy machine.
            if Instant::now() < soon {
                break (far, reader);
            }
        };
        let begin = Instant::now();
        while begin.elapsed() < 60 * MS {
            time::sleep(5 * MS);
        }
        assert!(!reader.is_finished());
        (&far).write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn nt_09_a_connection_works_again_after_a_time_out() {
    at_1_2_4(|| {
        let (near, far) = pair();
        near.set_read_deadline(Some(Instant::now() + 5 * MS)).unwrap();
        assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
        near.set_read_deadline(Some(Instant::now() + Duration::from_secs(3600))).unwrap();
        (&far).write_all(b"ping").unwrap();
        let mut four = [0; 4];
        (&near).read_exact(&mut four).unwrap();
        near.set_write_deadline(Some(Instant::now())).unwrap();
        assert_eq!(kind((&near).write(&four)), ErrorKind::TimedOut);
        near.set_write_deadline(None).unwrap();
        (&near).write_all(&four).unwrap();
        (&far).read_exact(&mut four).unwrap();
        assert_eq!(&four, b"ping");
    });
}

#[test]
fn nt_10_the_directions_have_their_own_deadlines() {
    rt(2, || {
        let (near, far) = pair();
        near.set_read_deadline(Some(Instant::now())).unwrap();
        (&near).write_all(b"x").unwrap();
        near.set_read_deadline(None).unwrap();
        near.set_write_deadline(Some(Instant::now())).unwrap();
        (&far).write_all(b"y").unwrap();
        assert_eq!((&near).read(&mut [0; 8]).unwrap(), 1);
        assert_eq!(kind((&near).write(b"x")), ErrorKind::TimedOut);

        near.set_read_timeout(Some(10 * MS)).unwrap();
        assert_eq!((near.read_timeout().unwrap(), near.write_timeout().unwrap()), (Some(10 * MS), None));
    });
}

#[test]
fn nt_11_time_outs_are_timed_out_and_read_nothing() {
    at_1_2_4(|| {
        let (near, far) = pair();
        near.set_read_timeout(Some(20 * MS)).unwrap();
        let mut buffer = [1; 8];
        let begin = Instant::now();
        assert_eq!(kind((&near).read(&mut buffer)), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= 20 * MS);
        assert_eq!(buffer, [1; 8]);
        // Each operation has the whole time.
        for _ in 0..3 {
            let begin = Instant::now();
            assert_eq!(kind((&near).read(&mut buffer)), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= 20 * MS);
        }
        assert_eq!(kind(near.set_read_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!(kind(near.set_write_timeout(Some(Duration::ZERO))), ErrorKind::InvalidInput);
        assert_eq!(near.read_timeout().unwrap(), Some(20 * MS));
        // With both set the earlier acts.
        near.set_read_timeout(Some(Duration::from_secs(3600))).unwrap();
        near.set_read_deadline(Some(Instant::now() + 10 * MS)).unwrap();
        assert_eq!(kind((&near).read(&mut buffer)), ErrorKind::TimedOut);
        near.set_read_deadline(Some(Instant::now() + Duration::from_secs(3600))).unwrap();
        near.set_read_timeout(Some(10 * MS)).unwrap();
        assert_eq!(kind((&near).read(&mut buffer)), ErrorKind::TimedOut);
        // Times that nobody lives to see.
        near.set_read_deadline(None).unwrap();
        near.set_read_timeout(Some(Duration::MAX)).unwrap();
        (&far).write_all(b"x").unwrap();
        assert_eq!((&near).read(&mut buffer).unwrap(), 1);
    });
}

/// After a time-out nothing is written into the buffer any more, and nothing read was lost.
#[test]
fn nt_12_the_buffer_is_free_after_a_time_out() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let writer = go(move || {
            for n in 0..500_u32 {
                (&far).write_all(&n.to_le_bytes()).unwrap();
                if n % 7 == 0 {
                    time::sleep(MS / 4);
                }
            }
        });
        let mut heard = Vec::new();
        let mut buffer = [0xEE_u8; 256];
        loop {
            near.set_read_deadline(Some(Instant::now() + MS / 8)).unwrap();
            match (&near).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => heard.extend_from_slice(&buffer[..n]),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    buffer.fill(0xEE);
                    yield_now();
                    assert_eq!(buffer, [0xEE; 256]);
                }
            }
            buffer.fill(0xEE);
        }
        writer.join().unwrap();
        assert!(heard.iter().copied().eq((0..500_u32).flat_map(u32::to_le_bytes)));
    });
}

#[test]
fn nt_13_deadlines_of_all_lengths() {
    at_1_2_4(|| {
        let (near, _far) = pair();
        for nanos in [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000] {
            let time = Duration::from_nanos(nanos);
            let begin = Instant::now();
            near.set_read_deadline(Some(begin + time)).unwrap();
            assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
            let took = begin.elapsed();
            assert!(took >= time && took < time + AT_ONCE, "{time:?}: {took:?}");
        }
    });
}

#[test]
fn nt_14_deadlines_change_while_others_read_and_write() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let (changed, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        scope(|s| {
            for _ in 0..2 {
                s.go(|| {
                    while !stop.load(SeqCst) {
                        let soon = Instant::now() + MS / 4;
                        near.set_read_deadline((changed.load(Relaxed) % 3 != 0).then_some(soon)).unwrap();
                        near.set_write_deadline((changed.fetch_add(1, Relaxed) % 3 != 1).then_some(soon)).unwrap();
                        far.set_read_deadline(Some(soon)).unwrap();
                        yield_now();
                    }
                });
            }
            // Everything that is sent arrives, once and in order, whatever times out meanwhile.
            let sender = s.go(|| {
                for n in 0..200_u8 {
                    let mut rest: &[u8] = &[n; 64];
                    while !rest.is_empty() {
                        match (&near).write(rest) {
                            Ok(written) => rest = &rest[written..],
                            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                        }
                    }
                }
            });
            let mut heard = Vec::new();
            while heard.len() < 200 * 64 {
                let mut buffer = [0; 100];
                match (&far).read(&mut buffer) {
                    Ok(n) => heard.extend_from_slice(&buffer[..n]),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                }
            }
            sender.join().unwrap();
            stop.store(true, SeqCst);
            assert!(heard.iter().copied().eq((0..200_u8).flat_map(|n| [n; 64])));
        });
    });
}

/// A deadline that is moved on again and again, each time before it passes, never acts.
#[test]
fn nt_14_a_prolonged_deadline_does_not_act_early() {
    rt(2, || {
        let (near, far) = pair();
        let far_away = || Instant::now() + Duration::from_secs(60);
        near.set_read_deadline(Some(far_away())).unwrap();
        let clone = near.try_clone().unwrap();
        let reader = go(move || (&clone).read(&mut [0; 8]));
        for _ in 0..200 {
            near.set_read_deadline(Some(far_away())).unwrap();
            yield_now();
        }
        assert!(!reader.is_finished());
        (&far).write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn nt_15_dribbling_does_not_put_a_deadline_off() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let begin = Instant::now();
        near.set_read_deadline(Some(begin + 50 * MS)).unwrap();
        let dribble = go(move || {
            while (&far).write(b".").is_ok() {
                time::sleep(MS);
            }
        });
        let error = (&near).read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= 50 * MS && begin.elapsed() < AT_ONCE);
        // Unread bytes make this a reset, which ends the dribble.
        drop(near);
        dribble.join().unwrap();

        // The same for one big write to a peer that reads a little now and then.
        let (near, far) = narrow_pair();
        let begin = Instant::now();
        near.set_write_deadline(Some(begin + 50 * MS)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sipping = go(move || {
            while !stopped.load(SeqCst) {
                let _ = (&far).read(&mut [0; 512]).unwrap();
                time::sleep(MS);
            }
        });
        assert_eq!(kind((&near).write_all(TOO_MUCH)), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= 50 * MS && begin.elapsed() < AT_ONCE);
        stop.store(true, SeqCst);
        // It may have read all there was.
        drop(near);
        sipping.join().unwrap();
    });
}

const BIG: usize = 1 << 20;

/// Reads `count` blocks of `BIG` bytes; asserts that each is of one value, and counts how many of which.
fn whole_blocks(stream: &TcpStream, count: usize) -> HashMap<u8, usize> {
    let mut blocks = HashMap::new();
    let mut block = vec![0; BIG];
    for _ in 0..count {
        (&*stream).read_exact(&mut block).unwrap();
        let first = block[0];
        if block.iter().any(|byte| *byte != first) {
            // Ends those who wait for room, too.
            let _ = stream.shutdown(Shutdown::Both);
            panic!("writes are interleaved");
        }
        *blocks.entry(first).or_default() += 1;
    }
    blocks
}

#[test]
fn nt_16_concurrent_writes_do_not_interleave() {
    at_1_2_4(|| {
        // Room for a part of one write only, so that each takes many steps.
        let (near, far) = narrow_pair();
        scope(|s| {
            for byte in 1..=3 {
                let near = &near;
                s.go(move || {
                    let block = vec![byte; BIG];
                    match byte {
                        1 => assert_eq!((&*near).write(&block).unwrap(), BIG),
                        2 => (&*near).write_all(&block).unwrap(),
                        _ => {
                            // Empty parts, and more parts than the system takes at a time.
                            let part = BIG / 2048;
                            let parts: Vec<_> =
                                block.chunks(part).flat_map(|part| [IoSlice::new(part), IoSlice::new(&[])]).collect();
                            assert_eq!((&*near).write_vectored(&parts).unwrap(), BIG);
                        }
                    }
                });
            }
            let blocks = whole_blocks(&far, 3);
            assert_eq!(blocks, HashMap::from([(1, 1), (2, 1), (3, 1)]));
        });
    });
}

/// A write has one time-out for all of it, though its reader takes a little again and again.
#[test]
fn nt_15_a_dribbling_reader_does_not_put_a_time_out_off() {
    at_1_2_4(|| {
        // The system tells of room late, a few times in a second.
        const LIMIT: Duration = Duration::from_millis(400);
        let (near, far) = narrow_pair();
        near.set_write_timeout(Some(LIMIT)).unwrap();
        let over = AtomicBool::new(false);
        scope(|s| {
            s.go(|| {
                let mut some = [0; 4096];
                let begin = Instant::now();
                // At this pace the whole would take ten seconds at least.
                while !over.load(SeqCst) && begin.elapsed() < 2 * AT_ONCE && (&far).read_exact(&mut some).is_ok() {
                    time::sleep(10 * MS);
                }
            });
            let begin = Instant::now();
            let error = (&near).write_all(TOO_MUCH).unwrap_err();
            over.store(true, SeqCst);
            // The reader may have read all there was.
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= LIMIT && begin.elapsed() < AT_ONCE);
        });
    });
}

/// `write_all` that runs into its time-out has lost its turn: it does not go on behind another writer, which has come meanwhile.
#[test]
fn nt_16_write_all_does_not_go_on_after_a_time_out() {
    at_1_2_4(|| {
        let (near, far) = narrow_pair();
        near.set_write_timeout(Some(30 * MS)).unwrap();
        let clone = near.try_clone().unwrap();
        let first = go(move || {
            let begin = Instant::now();
            // Nobody reads.
            assert_eq!(kind((&clone).write_all(&vec![1; TOO_MUCH.len()])), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= 30 * MS);
        });
        // It has begun, with its limit.
        far.readable().unwrap();
        // From here on nothing times out any more.
        near.set_write_timeout(None).unwrap();
        let second = go(move || {
            (&near).write_all(&[2; 1000]).unwrap();
            near
        });
        time::sleep(40 * MS);
        let mut heard = vec![0; 1];
        while heard.last() != Some(&2) {
            let mut some = [0; 4096];
            let n = (&far).read(&mut some).unwrap();
            heard.extend_from_slice(&some[..n]);
        }
        first.join().unwrap();
        second.join().unwrap().shutdown(Shutdown::Write).unwrap();
        (&far).read_to_end(&mut heard).unwrap();
        let ones = heard[1..].iter().take_while(|byte| **byte == 1).count();
        assert!(heard[1 + ones..] == [2; 1000]);
    });
}

/// `write` is short on a time-out only, and then tells how much was written.
#[test]
fn nt_16_a_short_write_tells_the_truth() {
    rt(2, || {
        let (near, far) = pair();
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let written = (&near).write(&vec![1; 32 << 20]).unwrap();
        assert!(written > 0 && written < 32 << 20);
        near.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        (&far).read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), written);
    });
}

#[test]
fn nt_16_all_methods_from_several_goroutines_at_once() {
    at_1_2_4(|| {
        let (near, far) = pair();
        scope(|s| {
            for _ in 0..3 {
                s.go(|| {
                    for _ in 0..50 {
                        let _ = (&near).write(b"some bytes").unwrap();
                        let _ = (&far).write(b"some bytes").unwrap();
                        near.readable().unwrap();
                        near.writable().unwrap();
                        assert!(near.peek(&mut [0; 4]).unwrap() > 0);
                        near.set_nodelay(true).unwrap();
                        near.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                        near.set_write_deadline(Some(Instant::now() + Duration::from_secs(60))).unwrap();
                        assert_eq!(near.peer_addr().unwrap(), far.local_addr().unwrap());
                        let _ = near.try_clone().unwrap();
                        // As many bytes as were written; three times as many are there at most.
                        let mut four = [0; 4];
                        assert!((&near).read(&mut four).unwrap() > 0);
                    }
                });
            }
        });
    });
}

#[test]
fn nt_17_nothing_to_read_into_returns_at_once() {
    at_1_2_4(|| {
        let (near, _far) = pair();
        // Nothing has been sent, and the time is over: still at once.
        near.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!((&near).read(&mut []).unwrap(), 0);
        assert_eq!(near.peek(&mut []).unwrap(), 0);
        assert_eq!((&near).read_vectored(&mut [IoSliceMut::new(&mut []), IoSliceMut::new(&mut [])]).unwrap(), 0);
        assert_eq!((&near).write(&[]).unwrap(), 0);
        assert_eq!((&near).write_vectored(&[]).unwrap(), 0);
    });
}

#[test]
fn nt_18_many_may_accept_on_one_listener() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let accepted = AtomicUsize::new(0);
        scope(|s| {
            for _ in 0..8 {
                s.go(|| {
                    while listener.accept().is_ok() {
                        accepted.fetch_add(1, SeqCst);
                    }
                });
            }
            for _ in 0..10 {
                // A burst, so that one edge stands for many.
                let burst: Vec<_> = (0..10).map(|_| TcpStream::connect(address).unwrap()).collect();
                drop(burst);
            }
            while accepted.load(SeqCst) < 100 {
                time::sleep(MS);
            }
            listener.close().unwrap();
        });
    });
}

#[test]
fn nt_19_the_address_is_free_after_close() {
    at_1_2_4(|| {
        let (first, address) = listen();
        // A connection that has been served, so that the address is busy in other ways too.
        let client = TcpStream::connect(address).unwrap();
        let served = first.accept().unwrap();
        for _ in 0..10 {
            first.close().ok();
            let next = TcpListener::bind(address).unwrap();
            let _client = TcpStream::connect(address).unwrap();
            next.accept().unwrap();
            next.close().unwrap();
        }
        drop((client, served, first));
    });
}

/// Requests and answers over many connections, and a megabyte through each of a few, both ways at once.
#[test]
fn nt_25_echo_without_loss() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let server = go(move || {
            while let Ok((connection, _)) = accepting.accept() {
                go(move || {
                    let mut buffer = [0; 4096];
                    loop {
                        match (&connection).read(&mut buffer).unwrap() {
                            0 => break,
                            n => (&connection).write_all(&buffer[..n]).unwrap(),
                        }
                    }
                });
            }
        });
        let clients = WaitGroup::new();
        for client in 0..40_u64 {
            clients.go(move || {
                let stream = TcpStream::connect(address).unwrap();
                for n in 0..20 {
                    let message = (client << 32 | n).to_le_bytes();
                    let mut back = [0; 8];
                    (&stream).write_all(&message).unwrap();
                    (&stream).read_exact(&mut back).unwrap();
                    assert_eq!(back, message);
                }
            });
        }
        for seed in 1..=2_u64 {
            clients.go(move || {
                let stream = TcpStream::connect(address).unwrap();
                let mut state = seed;
                let payload: Vec<u8> = (0..BIG)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        (state >> 56) as u8
                    })
                    .collect();
                let mut back = Vec::new();
                scope(|s| {
                    s.go(|| {
                        (&stream).write_all(&payload).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    (&stream).read_to_end(&mut back).unwrap();
                });
                assert!(back == payload);
            });
        }
        clients.wait();
        listener.close().unwrap();
        server.join().unwrap();
    });
}

/// Counts allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn nt_27_reads_and_writes_allocate_nothing() {
    rt(1, || {
        let (near, far) = pair();
        let echo = go(move || {
            let mut buffer = [0; 64];
            loop {
                match (&far).read(&mut buffer).unwrap() {
                    0 => break,
                    n => (&far).write_all(&buffer[..n]).unwrap(),
                }
            }
        });
        let round = || {
            let mut back = [0; 8];
            (&near).write_all(b"12345678").unwrap();
            (&near).read_exact(&mut back).unwrap();
        };
        near.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (0..100).for_each(|_| round());
        // One worker: both ends and the worker's own loop run on this thread.
        let before = ALLOCATIONS.get();
        (0..1000).for_each(|_| round());
        assert_eq!(ALLOCATIONS.get(), before);
        drop(near);
        echo.join().unwrap();
    });
}

#[test]
fn clones_share_their_limits() {
    rt(2, || {
        let (near, _far) = pair();
        let clone = near.try_clone().unwrap();
        clone.set_read_timeout(Some(10 * MS)).unwrap();
        assert_eq!(near.read_timeout().unwrap(), Some(10 * MS));
        assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
        clone.set_read_timeout(None).unwrap();
        let reader = go(move || kind((&near).read(&mut [0; 8])));
        until_parked(&reader);
        clone.set_read_deadline(Some(Instant::now())).unwrap();
        assert_eq!(reader.join().unwrap(), ErrorKind::TimedOut);
        drop(clone);
    });
}

#[test]
fn readable_and_writable_wait_and_take_nothing() {
    at_1_2_4(|| {
        let (near, far) = narrow_pair();
        let (near, far) = (Arc::new(near), Arc::new(far));
        near.writable().unwrap();
        let waits = Arc::clone(&near);
        let reader = go(move || waits.readable());
        until_parked(&reader);
        (&*far).write_all(b"here").unwrap();
        reader.join().unwrap().unwrap();
        near.readable().unwrap();
        let mut four = [0; 4];
        assert_eq!(near.peek(&mut four[..2]).unwrap(), 2);
        assert_eq!(&four[..2], b"he");
        assert_eq!((&*near).read(&mut four).unwrap(), 4);
        assert_eq!(&four, b"here");

        // Full, and full for a while: the system may make room by packing what it has.
        let mut filled = fill(&near);
        near.set_write_timeout(Some(20 * MS)).unwrap();
        while near.writable().is_ok() {
            filled += fill(&near);
            near.set_write_timeout(Some(20 * MS)).unwrap();
        }
        near.set_write_timeout(None).unwrap();
        let waits = Arc::clone(&near);
        let writer = go(move || waits.writable());
        time::sleep(5 * MS);
        (&*far).read_exact(&mut vec![0; filled]).unwrap();
        writer.join().unwrap().unwrap();

        // The end is readable too.
        let waits = Arc::clone(&near);
        let reader = go(move || waits.readable());
        until_parked(&reader);
        far.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap().unwrap();
        assert_eq!(near.peek(&mut four).unwrap(), 0);
    });
}

#[test]
fn std_types_convert_both_ways() {
    rt(2, || {
        let std_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = TcpListener::try_from(std_listener).unwrap();
        let address = listener.local_addr().unwrap();
        let near = TcpStream::connect(address).unwrap();
        let (far, peer) = listener.accept().unwrap();
        assert_eq!(peer, near.local_addr().unwrap());
        // Registered, so that it has to be taken out again.
        far.set_read_deadline(Some(Instant::now() + 5 * MS)).unwrap();
        assert_eq!(kind((&far).read(&mut [0; 8])), ErrorKind::TimedOut);
        let number = far.as_raw_fd();
        let std_far = std::net::TcpStream::try_from(far).unwrap();
        assert_eq!(std_far.as_raw_fd(), number, "moved, not copied");

        let echo = thread::spawn(move || {
            let mut four = [0; 4];
            // Blocking again: nothing is there yet.
            (&std_far).read_exact(&mut four).unwrap();
            (&std_far).write_all(&four).unwrap();
            std_far
        });
        time::sleep(10 * MS);
        (&near).write_all(b"ping").unwrap();
        let mut four = [0; 4];
        (&near).read_exact(&mut four).unwrap();
        assert_eq!(&four, b"ping");
        let far = TcpStream::try_from(echo.join().unwrap()).unwrap();
        let reader = go(move || (&far).read(&mut [0; 8]));
        until_parked(&reader);
        drop(near);
        assert_eq!(reader.join().unwrap().unwrap(), 0);

        let std_listener = std::net::TcpListener::try_from(listener).unwrap();
        let client = thread::spawn(move || std::net::TcpStream::connect(address).unwrap());
        std_listener.accept().unwrap();
        client.join().unwrap();
    });
}

/// As std's: shared and sent between threads, and used in `catch_unwind`.
#[test]
fn the_types_have_the_auto_traits_of_std() {
    fn has<T: Send + Sync + Unpin + panic::UnwindSafe + panic::RefUnwindSafe + std::fmt::Debug + AsFd>() {}
    has::<TcpListener>();
    has::<TcpStream>();
}

#[test]
fn everything_works_on_plain_threads() {
    let (listener, address) = listen();
    let listener = Arc::new(listener);
    let accepting = Arc::clone(&listener);
    let server = thread::spawn(move || {
        while let Ok((connection, _)) = accepting.accept() {
            thread::spawn(move || std::io::copy(&mut &connection, &mut &connection).unwrap());
        }
    });
    thread::scope(|s| {
        for n in 0..8_u8 {
            s.spawn(move || {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(10 * MS)).unwrap();
                let begin = Instant::now();
                assert_eq!(kind((&stream).read(&mut [0; 8])), ErrorKind::TimedOut);
                assert!(begin.elapsed() >= 10 * MS);
                stream.set_read_timeout(None).unwrap();
                let mut back = Vec::new();
                thread::scope(|s| {
                    s.spawn(|| {
                        (&stream).write_all(&vec![n; BIG]).unwrap();
                        stream.shutdown(Shutdown::Write).unwrap();
                    });
                    (&stream).read_to_end(&mut back).unwrap();
                });
                assert!(back == vec![n; BIG]);
            });
        }
    });
    listener.close().unwrap();
    server.join().unwrap();
}

#[test]
fn nt_20_connect_reaches_names_and_tells_what_went_wrong() {
    at_1_2_4(|| {
        let (listener, address) = listen();
        let port = address.port();
        for stream in [
            TcpStream::connect(("127.0.0.1", port)),
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)),
            TcpStream::connect(format!("127.0.0.1:{port}")),
            TcpStream::connect(("localhost", port)),
            TcpStream::connect(&[address][..]),
            TcpStream::connect_timeout(&address, Duration::MAX),
        ] {
            let stream = stream.unwrap();
            listener.accept().unwrap();
            // The time for connecting is not a time for writing.
            (&stream).write_all(b"x").unwrap();
        }
        assert_eq!(kind(TcpStream::connect_timeout(&address, Duration::ZERO)), ErrorKind::InvalidInput);
        assert_eq!(kind(TcpStream::connect("no port")), ErrorKind::InvalidInput);
        let to_bind = "the host is missing: write 0.0.0.0:8080 or [::]:8080 to listen on all addresses";
        let to_reach = "the host is missing: write localhost:8080 for this machine";
        for (error, text) in [
            (TcpListener::bind(":8080").unwrap_err(), to_bind),
            (TcpListener::bind(("", 8080)).unwrap_err(), to_bind),
            (UdpSocket::bind(":8080".to_owned()).unwrap_err(), to_bind),
            (TcpStream::connect(":8080").unwrap_err(), to_reach),
        ] {
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidInput, text));
        }
        drop(listener);
        assert_eq!(kind(TcpStream::connect(address)), ErrorKind::ConnectionRefused);
        assert_eq!(kind(TcpStream::connect_timeout(&address, AT_ONCE)), ErrorKind::ConnectionRefused);
    });
}

/// A listener whose queue is full does not answer: the one address here that makes `connect` wait.
#[test]
fn nt_20_connect_timeout_acts_and_not_early() {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    rt(2, || {
        let mut queued = Vec::new();
        loop {
            let begin = Instant::now();
            match TcpStream::connect_timeout(&address, 50 * MS) {
                Ok(stream) => queued.push(stream),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    assert!(begin.elapsed() >= 50 * MS);
                    break;
                }
            }
            assert!(queued.len() < 64);
        }
    });
}

/// The limit is for connecting only, and has passed when the connection is used.
#[test]
fn nt_21_what_limited_the_connecting_does_not_limit_the_connection() {
    const LIMIT: Duration = Duration::from_millis(100);
    at_1_2_4(|| {
        let (_listener, address) = listen();
        // On a busy machine the first attempt may take longer.
        let stream = (0..50).find_map(|_| TcpStream::connect_timeout(&address, LIMIT).ok()).expect("connected");
        time::sleep(LIMIT);
        (&stream).write_all(b"on").unwrap();
        stream.writable().unwrap();
    });
}

/// The worker that watches a socket ends with its runtime; the socket goes on elsewhere. Told as it was found: a connection that had waited
/// in a runtime was handed out of it, the runtime was dropped, and the next read waited for ever.
#[test]
fn a_socket_outlives_the_runtime_that_registered_it() {
    let make = || {
        rt(1, || {
            let (listener, address) = listen();
            let near = TcpStream::connect(address).unwrap();
            let (far, _) = listener.accept().unwrap();
            for stream in [&near, &far] {
                stream.set_read_deadline(Some(Instant::now() + MS)).unwrap();
                assert_eq!(kind((&*stream).read(&mut [0; 8])), ErrorKind::TimedOut);
                stream.set_read_deadline(None).unwrap();
            }
            (near, far)
        })
    };
    let talk = |near: TcpStream, far: TcpStream| {
        let reader = go(move || {
            let mut text = String::new();
            (&far).read_to_string(&mut text).map(|_| text)
        });
        time::sleep(5 * MS);
        let big = "x".repeat(8 << 20);
        (&near).write_all(big.as_bytes()).unwrap();
        drop(near);
        assert!(reader.join().unwrap().unwrap() == big);
    };
    for _ in 0..5 {
        // Plain threads and the default runtime, then another runtime.
        let (near, far) = make();
        talk(near, far);
        let (near, far) = make();
        rt(2, move || talk(near, far));
    }
}

/// The same for one who waits already when the watching worker ends.
#[test]
fn whoever_waits_when_the_watching_worker_ends_is_not_forgotten() {
    for round in 0..20 {
        let (to_us, from_it) = oxigo::unbounded();
        let runtime = oxigo::Runtime::builder().workers(2).build().unwrap();
        runtime.run(move || {
            let (near, far) = pair();
            near.set_read_deadline(Some(Instant::now() + MS / 2)).unwrap();
            assert_eq!(kind((&near).read(&mut [0; 8])), ErrorKind::TimedOut);
            near.set_read_deadline(None).unwrap();
            to_us.send((near, far)).unwrap();
        });
        let (near, far) = from_it.recv().unwrap();
        let reader = move || (&near).read(&mut [0; 8]).unwrap();
        let waits: Box<dyn FnOnce() -> usize> = if round % 2 == 0 {
            let thread = thread::spawn(reader);
            Box::new(move || thread.join().unwrap())
        } else {
            let goroutine = go(reader);
            Box::new(move || goroutine.join().unwrap())
        };
        thread::sleep(2 * MS);
        drop(runtime);
        thread::sleep(2 * MS);
        (&far).write_all(b"still here?").unwrap();
        assert_eq!(waits(), 8);
    }
}

/// In a panic hook operations block the thread, which is the one that would poll.
#[test]
fn sockets_can_be_waited_for_in_a_panic_hook() {
    const NAME: &str = "sockets_can_be_waited_for_in_a_panic_hook";
    if is_child(NAME) {
        static PEER: Mutex<Option<TcpStream>> = Mutex::new(None);
        // Set before the first runtime, which wraps it.
        panic::set_hook(Box::new(|_| {
            let peer = PEER.lock().unwrap().take();
            if let Some(peer) = peer {
                let mut answer = [0; 6];
                (&peer).write_all(b"a panic").unwrap();
                (&peer).read_exact(&mut answer).unwrap();
                peer.set_read_timeout(Some(20 * MS)).unwrap();
                let error = (&peer).read(&mut answer).unwrap_err();
                eprintln!("answer: {}, then {:?}", String::from_utf8_lossy(&answer), error.kind());
            }
        }));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _collector = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            connection.read_exact(&mut [0; 7]).unwrap();
            thread::sleep(30 * MS);
            connection.write_all(b"got it").unwrap();
            thread::sleep(Duration::from_secs(20));
        });
        let peer = TcpStream::connect(address).unwrap();
        rt(1, move || {
            // Registered with the very worker that is to block.
            peer.set_read_deadline(Some(Instant::now() + MS)).unwrap();
            assert_eq!(kind((&peer).read(&mut [0; 8])), ErrorKind::TimedOut);
            peer.set_read_deadline(None).unwrap();
            *PEER.lock().unwrap() = Some(peer);
            go(|| panic!("tell the collector")).join().unwrap_err();
        });
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
    assert!(stderr(&output).contains("answer: got it, then TimedOut"), "{output:?}");
}

/// Signals that interrupt system calls are nothing that a program sees.
#[test]
fn interrupted_calls_go_on() {
    const NAME: &str = "interrupted_calls_go_on";
    if is_child(NAME) {
        extern "C" fn nothing(_: i32) {}
        // SAFETY: all zeroes are an empty mask and no flags: without SA_RESTART.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        // SAFETY: a handler that does nothing, for a signal that nobody else uses.
        unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) };
        // SAFETY: takes nothing.
        let me = unsafe { libc::pthread_self() } as usize;
        let (listener, address) = listen();
        let stop = AtomicBool::new(false);
        let ended = AtomicBool::new(false);
        thread::scope(|s| {
            s.spawn(|| {
                while !stop.load(SeqCst) {
                    // SAFETY: the thread is alive: it waits for this one.
                    unsafe { libc::pthread_kill(me as libc::pthread_t, libc::SIGUSR1) };
                    thread::sleep(MS / 10);
                }
                ended.store(true, SeqCst);
            });
            s.spawn(|| {
                let mut late = TcpStream::connect(address).unwrap();
                for _ in 0..50 {
                    thread::sleep(MS);
                    late.write_all(&[1; 10]).unwrap();
                }
            });
            // This thread is the one that is interrupted, in all it does.
            let (mut connection, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            connection.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 500);
            connection.set_read_timeout(Some(20 * MS)).unwrap();
            stop.store(true, SeqCst);
        });
        assert!(ended.load(SeqCst));
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
}

/// A full table of descriptors: accept says which limit it is, pauses, and goes on when there is room again.
#[test]
fn a_full_table_neither_spins_nor_ends_accept() {
    const NAME: &str = "a_full_table_neither_spins_nor_ends_accept";
    if is_child(NAME) {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        rt(2, || {
            let (listener, address) = listen();
            let first = TcpStream::connect(address).unwrap();
            listener.accept().unwrap();
            let maximum = getrlimit(Resource::Nofile).maximum;
            let limit = Rlimit { current: Some(first.as_raw_fd() as u64 + 20), maximum };
            setrlimit(Resource::Nofile, limit).unwrap();
            // One is left for a client that is not accepted.
            let mut hoard = Vec::new();
            // Several times: somebody may have had one open for a moment.
            for _ in 0..20 {
                while let Ok(fd) = first.as_fd().try_clone_to_owned() {
                    hoard.push(fd);
                }
                time::sleep(MS);
            }
            hoard.pop();
            let waiting = TcpStream::connect(address).unwrap();
            let begin = Instant::now();
            for _ in 0..5 {
                let error = listener.accept().unwrap_err();
                assert!(error.to_string().contains("limit of descriptors"), "{error}");
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                let source = error.source().expect("the system's error").downcast_ref::<std::io::Error>();
                assert_eq!(source.unwrap().raw_os_error(), Some(libc::EMFILE));
            }
            assert!(begin.elapsed() >= 50 * MS, "five pauses");
            // With the table full a connection can still be given to std.
            let std_waiting = std::net::TcpStream::try_from(waiting).unwrap();
            hoard.pop();
            listener.accept().unwrap();
            drop(std_waiting);
        });
        std::process::exit(0);
    }
    let output = child(NAME);
    assert!(output.status.success(), "{output:?}");
}

/// One worker, many goroutines, little of everything: what is left of a wait must not disturb the next one.
#[test]
fn time_outs_and_events_at_the_same_moment() {
    at_1_2_4(|| {
        let (near, far) = pair();
        let echo = go(move || {
            let mut byte = [0];
            while (&far).read(&mut byte).unwrap() == 1 {
                (0..3).for_each(|_| yield_now());
                (&far).write_all(&byte).unwrap();
            }
        });
        let mut late = 0;
        for n in 0..300_u64 {
            (&near).write_all(&[n as u8]).unwrap();
            near.set_read_deadline(Some(Instant::now() + Duration::from_micros(n % 60))).unwrap();
            let mut byte = [0];
            match (&near).read(&mut byte) {
                Ok(1) => {}
                Ok(n) => panic!("{n} bytes"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TimedOut);
                    late += 1;
                    near.set_read_deadline(None).unwrap();
                    (&near).read_exact(&mut byte).unwrap();
                }
            }
            assert_eq!(byte[0], n as u8);
        }
        assert!(late > 0, "none was late: the test shows nothing");
        drop(near);
        echo.join().unwrap();
    });
}

/// A read stops at urgent data, though more lies behind it: what is short there is not all.
#[test]
#[cfg(target_os = "linux")]
fn a_read_behind_urgent_data_finds_what_is_there() {
    use rustix::net::{SendFlags, send};
    rt(2, || {
        for _ in 0..5 {
            let (near, far) = pair();
            // The poller has told of nothing yet.
            near.set_read_deadline(Some(Instant::now() + Duration::from_millis(1))).unwrap();
            assert_eq!(kind((&near).read(&mut [0])), ErrorKind::TimedOut);
            near.set_read_deadline(None).unwrap();
            let reader = go(move || {
                let (mut all, mut some) = (Vec::new(), [0; 64]);
                near.set_read_deadline(Some(Instant::now() + Duration::from_secs(10))).unwrap();
                while all.len() < 4 {
                    let n = (&near).read(&mut some).unwrap();
                    all.extend_from_slice(&some[..n]);
                }
                all
            });
            // All is there before the first read.
            let pieces: [(&[u8], SendFlags); 3] =
                [(b"ab", SendFlags::empty()), (b"!", SendFlags::OOB), (b"cd", SendFlags::empty())];
            for (bytes, flags) in pieces {
                send(&far, bytes, flags).unwrap();
            }
            assert_eq!(reader.join().unwrap(), b"abcd");
        }
    });
}

/// The end of the stream comes in one piece with the last bytes: a reader with room for more is told both.
#[test]
fn nt_02_the_end_that_came_with_the_last_bytes_is_not_lost() {
    at_1_2_4(|| {
        for round in 0..50 {
            let (near, far) = pair();
            let reader = go(move || {
                let mut all = Vec::new();
                (&near).read_to_end(&mut all).unwrap();
                all
            });
            if round % 2 == 0 {
                until_parked(&reader);
            }
            (&far).write_all(b"all").unwrap();
            drop(far);
            assert_eq!(reader.join().unwrap(), b"all");
        }
    });
}

/// A stream that its worker has told of, emptied by a read that brought less than it asked for.
fn emptied() -> (TcpStream, TcpStream) {
    let (near, far) = pair();
    near.set_read_deadline(Some(Instant::now() + Duration::from_millis(1))).unwrap();
    assert_eq!(kind((&near).read(&mut [0])), ErrorKind::TimedOut);
    near.set_read_deadline(None).unwrap();
    (&far).write_all(b"x").unwrap();
    assert_eq!((&near).read(&mut [0; 64]).unwrap(), 1);
    (near, far)
}

/// What is there when a read begins is read, however late the worker is to hear of it.
#[test]
fn nt_06_a_time_limit_that_passes_meanwhile_does_not_hide_what_is_there() {
    rt(1, || {
        let (near, far) = emptied();
        for _ in 0..5 {
            (&far).write_all(b"y").unwrap();
            near.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
            let others = WaitGroup::new();
            others.go(|| {
                let begin = Instant::now();
                while begin.elapsed() < Duration::from_millis(5) {
                    std::hint::spin_loop();
                }
            });
            assert_eq!((&near).read(&mut [0; 64]).unwrap(), 1);
            others.wait();
        }
    });
}

/// A plain thread reads, while the worker that watches the stream stands still.
#[test]
fn nt_06_who_reads_elsewhere_finds_what_is_there() {
    rt(1, || {
        let (near, far) = emptied();
        (&far).write_all(b"y").unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let read = std::thread::scope(|s| s.spawn(|| (&near).read(&mut [0; 64])).join().unwrap());
        assert_eq!(read.unwrap(), 1);
    });
}

#[test]
fn nt_18_clones_of_a_listener_share_it() {
    at_1_2_4(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clone = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(clone.local_addr().unwrap(), address);
        for _ in 0..2 {
            let _peer = TcpStream::connect(address).unwrap();
            clone.accept().unwrap();
        }
        let waits = go(move || clone.accept().unwrap_err().kind());
        yield_now();
        listener.close().unwrap();
        assert_eq!(waits.join().unwrap(), ErrorKind::NotConnected);
    });
}
