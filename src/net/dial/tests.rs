//! The race with dialers that are made up.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;
use crate::{
    Runtime, run,
    time::{self, Instant},
    unbuffered,
};

const V4: [&str; 2] = ["192.0.2.1:1", "192.0.2.2:1"];
const V6: [&str; 2] = ["[2001:db8::1]:1", "[2001:db8::2]:1"];

fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn refused() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

#[test]
fn nt_22_families_alternate() {
    let order = |texts: &[&str]| interleave(addresses(texts)).collect::<Vec<_>>();
    assert_eq!(order(&[V6[0], V6[1], V4[0], V4[1]]), addresses(&[V6[0], V4[0], V6[1], V4[1]]));
    assert_eq!(order(&[V4[0], V6[0], V6[1]]), addresses(&[V4[0], V6[0], V6[1]]));
    assert_eq!(order(&[V4[0], V4[1]]), addresses(&V4));
    assert_eq!(order(&[]), []);
}

/// The second begins after the delay, and the first is told that the race is over.
#[test]
fn nt_22_a_slow_address_is_overtaken() {
    run(|| {
        let delay = Duration::from_millis(10);
        let begin = Instant::now();
        let stopped = AtomicUsize::new(0);
        let winner = race(addresses(&[V6[0], V4[0], V6[1]]), delay, None, |address, race| {
            if address.is_ipv6() {
                while !race.is_over() {
                    time::sleep(Duration::from_millis(1));
                }
                stopped.fetch_add(1, SeqCst);
                return Err(refused());
            }
            assert!(begin.elapsed() >= delay);
            Ok(address)
        });
        assert_eq!(winner.unwrap(), addresses(&V4)[0]);
        assert_eq!(stopped.into_inner(), 1, "the race waits for who is under way, and begins no more");
    });
}

/// Where nothing new starts all addresses are tried all the same, one after the other.
#[test]
fn addresses_are_tried_in_place_on_a_runtime_that_has_been_given_up() {
    let runtime = Runtime::builder().workers(1).build().unwrap();
    let (dropped, is_dropped) = unbuffered::<()>();
    let (begun, has_begun) = unbuffered();
    let dials = runtime.go(move || {
        begun.send(()).unwrap();
        is_dropped.recv().unwrap_err();
        let tried = AtomicUsize::new(0);
        let dialled = race(addresses(&[V4[0], V6[0], V4[1]]), Duration::from_secs(3600), None, |address, _| {
            tried.fetch_add(1, SeqCst);
            if address == addresses(&V4)[1] { Ok(address) } else { Err(refused()) }
        });
        (dialled, tried.into_inner())
    });
    has_begun.recv().unwrap();
    drop(runtime);
    drop(dropped);
    let (dialled, tried) =
        dials.join_timeout(Duration::from_secs(60)).expect("nobody waits for what never began").unwrap();
    assert_eq!((dialled.unwrap(), tried), (addresses(&V4)[1], 3));
}

#[test]
fn nt_22_a_failure_starts_the_next_at_once() {
    run(|| {
        let begin = Instant::now();
        let long = Duration::from_secs(3600);
        let winner =
            race(
                addresses(&[V6[0], V4[0]]),
                long,
                None,
                |address, _| {
                    if address.is_ipv6() { Err(refused()) } else { Ok(address) }
                },
            );
        assert_eq!(winner.unwrap(), addresses(&V4)[0]);
        assert!(begin.elapsed() < long);
    });
}

#[test]
fn nt_22_no_address_works() {
    run(|| {
        let tried = AtomicUsize::new(0);
        let nobody =
            race(addresses(&[V6[0], V4[0], V4[1]]), Duration::from_millis(1), None, |_, _| -> io::Result<()> {
                tried.fetch_add(1, SeqCst);
                Err(refused())
            });
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(tried.into_inner(), 3);
        let none = race(Vec::new(), DELAY, None, |_, _| Ok(()));
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    });
}

/// Two connect in the same moment: one is given back, the other dropped.
#[test]
fn nt_22_a_second_winner_is_closed() {
    struct Connection<'a>(&'a AtomicUsize);
    impl Drop for Connection<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    run(|| {
        let closed = AtomicUsize::new(0);
        let winner = race(addresses(&[V6[0], V4[0]]), Duration::from_millis(1), None, |address, race| {
            while address.is_ipv6() && !race.is_over() {
                time::sleep(Duration::from_millis(1));
            }
            Ok(Connection(&closed))
        });
        assert_eq!(closed.load(SeqCst), 1, "the loser is closed before the race returns");
        drop(winner);
        assert_eq!(closed.into_inner(), 2);
    });
}
