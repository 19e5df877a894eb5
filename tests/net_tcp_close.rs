//! Group NT for TCP: what closing, shutting down and the end of a stream do to those who wait, and to descriptors and addresses.

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use std::{
    io::{ErrorKind, Read, Write},
    os::fd::AsRawFd,
    sync::Arc,
    time::Instant,
};

use common::{at_1_2_4, rt, successes_of_two_threads};
use oxigo::{
    go,
    net::{Shutdown, TcpListener, TcpStream},
    scope, yield_now,
};
use tcp::{AT_ONCE, TOO_MUCH, kind, listen, narrow_pair, pair, until_parked};

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
        assert_eq!(successes_of_two_threads(|| listener.close().is_ok()), 1);
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
