//! Group NT for TCP: deadlines and time-outs, alone, moved and raced.

mod common;
#[path = "common/tcp.rs"]
mod tcp;

use std::{
    io::{ErrorKind, Read, Write},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use common::{at_1_2_4, rt};
use oxigo::{
    go,
    net::{Shutdown, TcpStream},
    scope, time, yield_now,
};
use tcp::{AT_ONCE, MS, TOO_MUCH, kind, listen, narrow_pair, pair, until_parked};

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

/// A write has one time-out for all of it, though its reader takes a little again and again.
#[test]
fn nt_15_a_dribbling_reader_does_not_put_a_time_out_off() {
    at_1_2_4(|| {
        // The system tells of room late, a few times in a second.
        const LIMIT: Duration = Duration::from_millis(400);
        // For all of it, at the reader's pace, at least.
        const WHOLE: Duration = Duration::from_secs(10);
        let (near, far) = narrow_pair();
        near.set_write_timeout(Some(LIMIT)).unwrap();
        let over = AtomicBool::new(false);
        scope(|s| {
            s.go(|| {
                let mut some = [0; 4096];
                let begin = Instant::now();
                while !over.load(SeqCst) && begin.elapsed() < 2 * WHOLE && (&far).read_exact(&mut some).is_ok() {
                    time::sleep(10 * MS);
                }
            });
            let begin = Instant::now();
            let error = (&near).write_all(TOO_MUCH).unwrap_err();
            over.store(true, SeqCst);
            // The reader may have read all there was.
            near.shutdown(Shutdown::Write).unwrap();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert!(begin.elapsed() >= LIMIT && begin.elapsed() < WHOLE);
        });
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
