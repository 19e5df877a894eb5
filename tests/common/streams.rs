//! The conformance suite for streams: what holds for every pair of connected streams with time limits, whatever carries the bytes.
//!
//! The claims are those of Go's `nettest` and of rows NT of the conformance list; the code is ours. [`conformance!`] makes a test of each.

use std::{
    io::{self, ErrorKind},
    net::Shutdown,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use oxigo::{go, scope, time};

/// A stream under test.
pub(crate) trait Stream: Send + Sync + 'static {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn write(&self, buf: &[u8]) -> io::Result<usize>;
    fn try_write_all(&self, buf: &[u8]) -> io::Result<()>;
    fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;
    fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()>;
    fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()>;
    fn shutdown(&self, how: Shutdown) -> io::Result<()>;

    fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }

    fn write_all(&self, buf: &[u8]) {
        assert_eq!(self.write(buf).expect("a write"), buf.len(), "a write is whole");
    }

    fn read_exact(&self, buf: &mut [u8]) {
        let mut filled = 0;
        while filled < buf.len() {
            let n = self.read(&mut buf[filled..]).expect("a read");
            assert_ne!(n, 0, "the end comes too early");
            filled += n;
        }
    }

    fn read_to_end(&self) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            match self.read(&mut buf).expect("a read") {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }
}

/// Makes a [`Stream`] of a type that has `std`'s traits and our limits.
macro_rules! stream {
    ($type:ty) => {
        impl $crate::streams::Stream for $type {
            fn read(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                std::io::Read::read(&mut &*self, buf)
            }
            fn write(&self, buf: &[u8]) -> std::io::Result<usize> {
                std::io::Write::write(&mut &*self, buf)
            }
            fn try_write_all(&self, buf: &[u8]) -> std::io::Result<()> {
                std::io::Write::write_all(&mut &*self, buf)
            }
            fn set_read_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                <$type>::set_read_deadline(self, deadline)
            }
            fn set_write_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                <$type>::set_write_deadline(self, deadline)
            }
            fn set_read_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                <$type>::set_read_timeout(self, timeout)
            }
            fn set_write_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                <$type>::set_write_timeout(self, timeout)
            }
            fn shutdown(&self, how: std::net::Shutdown) -> std::io::Result<()> {
                <$type>::shutdown(self, how)
            }
        }
    };
}

/// One test for each claim, on the pairs that `$pair` makes, at 1, 2 and 4 workers.
macro_rules! conformance {
    ($kind:ident, $pair:path) => {
        mod $kind {
            use crate::{common::at_1_2_4, streams};

            $crate::streams::conformance! { @ $pair:
                nt_25_basic_io = basic_io,
                nt_25_ping_pong = ping_pong,
                nt_12_racy_reads = racy_reads,
                nt_12_racy_writes = racy_writes,
                nt_10_read_and_write_limits_are_independent = independent_limits,
                nt_06_a_past_deadline_fails_at_once = past_deadline,
                nt_07_a_deadline_ends_operations_that_wait = present_deadline,
                nt_08_no_deadline_waits_on = no_deadline,
                nt_09_a_future_deadline_is_kept = future_deadline,
                nt_11_time_outs_hold_for_each_operation = timeouts,
                nt_01_shutdown_ends_operations_that_wait = shutdown_ends_waits,
                nt_02_a_dropped_peer_is_the_end = peer_gone,
                nt_05_half_close = half_close,
                nt_13_deadlines_of_all_lengths = various_deadlines,
                nt_14_deadlines_change_under_way = deadline_races,
                nt_15_dribbling_does_not_postpone_a_deadline = dribble,
                nt_16_concurrent_methods = concurrent_methods,
                nt_16_writes_are_contiguous = contiguous_writes,
                nt_16_write_all_ends_with_its_time_out = write_all_times_out,
                nt_17_zero_length_operations_do_not_wait = zero_length,
            }
        }
    };
    (@ $pair:path: $($name:ident = $check:ident,)*) => {
        $(
            #[test]
            fn $name() {
                at_1_2_4(|| streams::$check($pair()));
            }
        )*
    };
}

pub(crate) use {conformance, stream};

fn past() -> Option<Instant> {
    Some(Instant::now() - Duration::from_secs(1))
}

fn after(millis: u64) -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(millis))
}

#[track_caller]
fn assert_timed_out<T: std::fmt::Debug>(result: &io::Result<T>) {
    assert_eq!(result.as_ref().map_err(io::Error::kind).expect_err("a time-out"), ErrorKind::TimedOut);
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        bytes.extend_from_slice(&seed.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes until it fails, and gives the error.
fn write_until_error<S: Stream>(stream: &S) -> io::Error {
    let block = vec![0x5A; 256 * 1024];
    loop {
        if let Err(error) = stream.write(&block) {
            return error;
        }
    }
}

/// A message there and back shows that the streams work.
fn round_trip<S: Stream>(near: &S, far: &S) {
    scope(|s| {
        s.go(|| {
            let mut buf = [0; 7];
            far.read_exact(&mut buf);
            far.write_all(&buf);
        });
        near.write_all(b"message");
        let mut buf = [0; 7];
        near.read_exact(&mut buf);
        assert_eq!(&buf, b"message");
    });
}

pub(crate) fn basic_io<S: Stream>((near, far): (S, S)) {
    let data = noise(1 << 20);
    let echoed = scope(|s| {
        s.go(|| {
            let heard = far.read_to_end();
            far.write_all(&heard);
            far.shutdown(Shutdown::Write).unwrap();
        });
        near.write_all(&data);
        near.shutdown(Shutdown::Write).unwrap();
        near.read_to_end()
    });
    assert!(echoed == data, "what comes back is what was sent");
}

pub(crate) fn ping_pong<S: Stream>((near, far): (S, S)) {
    const ROUNDS: u64 = 300;
    let play = |stream: &S, serves: bool| {
        let mut buf = [0; 8];
        for round in 0..ROUNDS {
            if serves {
                stream.write_all(&round.to_le_bytes());
            }
            stream.read_exact(&mut buf);
            assert_eq!(u64::from_le_bytes(buf), round);
            if !serves {
                stream.write_all(&buf);
            }
        }
    };
    scope(|s| {
        s.go(|| play(&far, false));
        play(&near, true);
    });
}

pub(crate) fn racy_reads<S: Stream>((near, far): (S, S)) {
    let stop = AtomicBool::new(false);
    scope(|s| {
        s.go(|| {
            let block = vec![0x5A; 1024];
            while !stop.load(SeqCst) {
                match near.write(&block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::TimedOut => {}
                    Err(error) => assert_eq!(error.kind(), ErrorKind::BrokenPipe),
                }
            }
        });
        let readers: Vec<_> = (0..5)
            .map(|_| {
                s.go(|| {
                    let mut buf = [0xEE; 1024];
                    for _ in 0..10 {
                        far.set_read_deadline(after(1)).unwrap();
                        match far.read(&mut buf) {
                            Ok(n) => assert!(buf[..n].iter().all(|&b| b == 0x5A)),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                        }
                        // The buffer is ours again, whatever the stream does now.
                        buf.fill(0xEE);
                        oxigo::yield_now();
                        assert!(buf.iter().all(|&b| b == 0xEE));
                    }
                })
            })
            .collect();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        stop.store(true, SeqCst);
        near.set_write_deadline(past()).unwrap();
    });
}

pub(crate) fn racy_writes<S: Stream>((near, far): (S, S)) {
    let written = AtomicUsize::new(0);
    scope(|s| {
        let reader = s.go(|| {
            let mut buf = vec![0; 4096];
            let mut total = 0;
            loop {
                match far.read(&mut buf).unwrap() {
                    0 => return total,
                    n => {
                        assert!(buf[..n].iter().all(|&b| b == 0x5A));
                        total += n;
                    }
                }
            }
        });
        let writers: Vec<_> = (0..5)
            .map(|_| {
                s.go(|| {
                    let block = [0x5A; 1024];
                    for _ in 0..10 {
                        near.set_write_deadline(after(1)).unwrap();
                        match near.write(&block) {
                            Ok(n) => {
                                written.fetch_add(n, SeqCst);
                            }
                            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                        }
                    }
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(reader.join().unwrap(), written.load(SeqCst), "what a write counts has been sent, and nothing else");
    });
}

pub(crate) fn independent_limits<S: Stream>((near, far): (S, S)) {
    near.set_read_deadline(past()).unwrap();
    assert_timed_out(&near.read(&mut [0]));
    scope(|s| {
        s.go(|| far.read_exact(&mut [0; 4]));
        near.write_all(b"word");
    });
    near.set_read_deadline(None).unwrap();
    near.set_write_deadline(past()).unwrap();
    assert_timed_out(&near.write(b"word"));
    scope(|s| {
        s.go(|| far.write_all(b"word"));
        near.read_exact(&mut [0; 4]);
    });
}

pub(crate) fn past_deadline<S: Stream>((near, far): (S, S)) {
    scope(|s| {
        // Data that is there, or offered.
        s.go(|| far.write_all(b"data"));
        near.set_deadline(past()).unwrap();
        for _ in 0..3 {
            assert_timed_out(&near.read(&mut [0; 4]));
            assert_timed_out(&near.write(b"word"));
        }
        near.set_deadline(None).unwrap();
        let mut buf = [0; 4];
        near.read_exact(&mut buf);
        assert_eq!(&buf, b"data");
    });
    round_trip(&near, &far);
}

pub(crate) fn present_deadline<S: Stream>((near, far): (S, S)) {
    scope(|s| {
        let reader = s.go(|| near.read(&mut [0]));
        let writer = s.go(|| write_until_error(&near));
        let second = s.go(|| write_until_error(&near));
        // Whether they wait by then or not, all must end.
        time::sleep(Duration::from_millis(20));
        near.set_deadline(past()).unwrap();
        assert_timed_out(&reader.join().unwrap());
        assert_eq!(writer.join().unwrap().kind(), ErrorKind::TimedOut);
        assert_eq!(second.join().unwrap().kind(), ErrorKind::TimedOut);
    });
    drop(far);
}

pub(crate) fn no_deadline<S: Stream>((near, far): (S, S)) {
    for _ in 0..50 {
        let soon = Instant::now() + Duration::from_millis(5);
        near.set_read_deadline(Some(soon)).unwrap();
        let in_time = scope(|s| {
            let reader = s.go(|| near.read(&mut [0; 4]));
            near.set_read_deadline(None).unwrap();
            if Instant::now() >= soon {
                // The five milliseconds had passed before the deadline was taken away: it may have acted.
                near.set_read_deadline(past()).unwrap();
                assert_timed_out(&reader.join().unwrap());
                return false;
            }
            time::sleep(Duration::from_millis(15));
            assert!(!reader.is_finished());
            far.write_all(b"word");
            assert_eq!(reader.join().unwrap().unwrap(), 4);
            true
        });
        if in_time {
            return;
        }
    }
}

pub(crate) fn future_deadline<S: Stream>((near, far): (S, S)) {
    let begin = Instant::now();
    near.set_deadline(after(20)).unwrap();
    scope(|s| {
        let reader = s.go(|| near.read(&mut [0]));
        let writer = s.go(|| write_until_error(&near));
        assert_timed_out(&reader.join().unwrap());
        assert!(begin.elapsed() >= Duration::from_millis(20));
        assert_eq!(writer.join().unwrap().kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(20));
        // It works again: what was written before is still read, and then the end.
        near.set_deadline(None).unwrap();
        let rest = s.go(|| far.read_to_end());
        near.write_all(b"word");
        near.shutdown(Shutdown::Write).unwrap();
        assert!(rest.join().unwrap().ends_with(b"word"));
    });
}

pub(crate) fn timeouts<S: Stream>((near, far): (S, S)) {
    assert_eq!(near.set_read_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(near.set_write_timeout(Some(Duration::ZERO)).unwrap_err().kind(), ErrorKind::InvalidInput);
    let limit = Duration::from_millis(5);
    near.set_read_timeout(Some(limit)).unwrap();
    for _ in 0..3 {
        let begin = Instant::now();
        assert_timed_out(&near.read(&mut [0]));
        assert!(begin.elapsed() >= limit);
    }
    near.set_read_timeout(None).unwrap();
    near.set_write_timeout(Some(limit)).unwrap();
    let begin = Instant::now();
    assert_eq!(write_until_error(&near).kind(), ErrorKind::TimedOut);
    assert!(begin.elapsed() >= limit);
    drop(far);
}

pub(crate) fn shutdown_ends_waits<S: Stream>((near, far): (S, S)) {
    // Time limits that are far away change nothing.
    near.set_deadline(after(60_000)).unwrap();
    scope(|s| {
        let reader = s.go(|| near.read(&mut [0]));
        let writers = [s.go(|| write_until_error(&near)), s.go(|| write_until_error(&near))];
        time::sleep(Duration::from_millis(20));
        near.shutdown(Shutdown::Both).unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), 0);
        for writer in writers {
            assert_eq!(writer.join().unwrap().kind(), ErrorKind::BrokenPipe);
        }
    });
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
    assert_eq!(near.write(b"word").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(far);
}

pub(crate) fn peer_gone<S: Stream>((near, far): (S, S)) {
    let writer = go(move || {
        far.write_all(b"last words");
        drop(far);
    });
    assert_eq!(near.read_to_end(), b"last words");
    assert_eq!(near.read(&mut [0]).unwrap(), 0, "the end stays the end");
    writer.join().unwrap();
    let error = write_until_error(&near);
    assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
}

pub(crate) fn half_close<S: Stream>((near, far): (S, S)) {
    near.shutdown(Shutdown::Write).unwrap();
    assert_eq!(near.write(b"word").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    scope(|s| {
        s.go(|| far.write_all(b"answer"));
        near.read_exact(&mut [0; 6]);
    });
    near.shutdown(Shutdown::Read).unwrap();
    assert_eq!(near.read(&mut [0]).unwrap(), 0);
}

pub(crate) fn various_deadlines<S: Stream>((near, far): (S, S)) {
    for exponent in 0..8 {
        let limit = Duration::from_nanos(10_u64.pow(exponent));
        let begin = Instant::now();
        near.set_read_deadline(Some(begin + limit)).unwrap();
        assert_timed_out(&near.read(&mut [0]));
        assert!(begin.elapsed() >= limit);
    }
    drop(far);
}

pub(crate) fn deadline_races<S: Stream>((near, far): (S, S)) {
    let stop = AtomicBool::new(false);
    scope(|s| {
        let (near, far, stop) = (&near, &far, &stop);
        for turn in 0..2 {
            s.go(move || {
                while !stop.load(SeqCst) {
                    for deadline in [past(), None, after(1), after(60_000)] {
                        if turn == 0 { near.set_read_deadline(deadline) } else { near.set_write_deadline(deadline) }
                            .unwrap();
                        oxigo::yield_now();
                    }
                }
            });
        }
        s.go(move || {
            let mut buf = [0; 64];
            while far.read(&mut buf).unwrap() > 0 {}
        });
        s.go(move || {
            while !stop.load(SeqCst) {
                let _ = far.write(b"word");
                oxigo::yield_now();
            }
        });
        let (mut heard, mut sent) = (0, 0);
        let begin = Instant::now();
        while heard < 20 || sent < 20 {
            assert!(begin.elapsed() < Duration::from_secs(60), "deadlines that change stop the traffic");
            match near.read(&mut [0; 4]) {
                Ok(_) => heard += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
            match near.write(b"word") {
                Ok(_) => sent += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
            oxigo::yield_now();
        }
        stop.store(true, SeqCst);
        near.shutdown(Shutdown::Both).unwrap();
    });
}

pub(crate) fn dribble<S: Stream>((near, far): (S, S)) {
    let begin = Instant::now();
    near.set_read_deadline(after(30)).unwrap();
    scope(|s| {
        s.go(|| {
            far.set_write_deadline(after(60)).unwrap();
            while far.write(b"x").is_ok() {
                time::sleep(Duration::from_millis(1));
            }
        });
        let error = loop {
            match near.read(&mut [0]) {
                Ok(n) => assert_eq!(n, 1),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begin.elapsed() >= Duration::from_millis(30));
    });
}

pub(crate) fn concurrent_methods<S: Stream>((near, far): (S, S)) {
    let (near, far) = (Arc::new(near), Arc::new(far));
    let handles: Vec<_> = (0..20)
        .map(|_| {
            let (near, far) = (Arc::clone(&near), Arc::clone(&far));
            go(move || {
                for stream in [&near, &far] {
                    stream.set_deadline(after(20)).unwrap();
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(5)));
                    let _ = stream.set_write_timeout(Some(Duration::from_millis(5)));
                    let _ = stream.read(&mut [0; 16]);
                    let _ = stream.write(&[0; 16]);
                    stream.set_read_deadline(after(1)).unwrap();
                    stream.set_write_deadline(after(1)).unwrap();
                    let _ = stream.read(&mut [0; 16]);
                }
            })
        })
        .collect();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
    // Afterwards it works as ever: each side reads what was left, and the last word.
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.set_deadline(None).unwrap();
        from.set_write_timeout(None).unwrap();
        to.set_deadline(None).unwrap();
        to.set_read_timeout(None).unwrap();
        scope(|s| {
            let reader = s.go(|| to.read_to_end());
            from.write_all(b"word");
            from.shutdown(Shutdown::Write).unwrap();
            assert!(reader.join().unwrap().ends_with(b"word"));
        });
    }
}

pub(crate) fn contiguous_writes<S: Stream>((near, far): (S, S)) {
    const LENGTH: usize = 300_000;
    scope(|s| {
        let writers: Vec<_> = (1..=3_u8)
            .map(|mark| {
                let near = &near;
                s.go(move || (0..2).for_each(|_| near.write_all(&vec![mark; LENGTH])))
            })
            .collect();
        let reader = s.go(|| far.read_to_end());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        near.shutdown(Shutdown::Write).unwrap();
        let heard = reader.join().unwrap();
        assert_eq!(heard.len(), 6 * LENGTH);
        for part in heard.chunks(LENGTH) {
            assert!(part.iter().all(|&b| b == part[0]), "two writes are mixed");
        }
    });
}

/// `write_all` that ran into its time-out does not go on behind another writer that has come meanwhile.
pub(crate) fn write_all_times_out<S: Stream>((near, far): (S, S)) {
    const LIMIT: Duration = Duration::from_millis(100);
    near.set_write_timeout(Some(LIMIT)).unwrap();
    far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let ended = AtomicBool::new(false);
    scope(|s| {
        let first = s.go(|| {
            let begin = Instant::now();
            // More than any buffer keeps, and nobody reads but the first byte.
            let result = near.try_write_all(&vec![1; 32 << 20]);
            ended.store(true, SeqCst);
            assert_timed_out(&result);
            assert!(begin.elapsed() >= LIMIT);
        });
        let mut byte = [0];
        far.read_exact(&mut byte);
        assert_eq!(byte, [1]);
        // The first has begun. From here on nothing else times out.
        near.set_write_timeout(None).unwrap();
        let second = s.go(|| {
            near.try_write_all(&[2; 1000]).unwrap();
            near.shutdown(Shutdown::Write).unwrap();
        });
        let begin = Instant::now();
        while !ended.load(SeqCst) && begin.elapsed() < Duration::from_secs(10) {
            time::sleep(Duration::from_millis(1));
        }
        let heard = far.read_to_end();
        first.join().unwrap();
        second.join().unwrap();
        let ones = heard.iter().take_while(|byte| **byte == 1).count();
        assert!(heard[ones..] == [2; 1000]);
    });
}

pub(crate) fn zero_length<S: Stream>((near, far): (S, S)) {
    assert_eq!(near.read(&mut []).unwrap(), 0);
    assert_eq!(near.write(&[]).unwrap(), 0);
    round_trip(&near, &far);
}
