//! Whole programs of many goroutines with known answers: a lost, doubled or misplaced value, or a lost wake, changes the answer or hangs.

mod common;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use common::at_1_2_4;
use oxigo::{Chan, Receiver, Sender, WaitGroup, bounded, chan::never, go, select, unbuffered};

#[test]
fn the_sieve_finds_the_hundredth_prime() {
    at_1_2_4(|| {
        let (numbers, mut rest) = unbuffered();
        go(move || (2_u32..).take_while(|&n| numbers.send(n).is_ok()).for_each(drop));
        let mut primes = Vec::new();
        for _ in 0..100 {
            let prime = rest.recv().unwrap();
            primes.push(prime);
            let (out, filtered) = unbuffered();
            let from = std::mem::replace(&mut rest, filtered);
            go(move || {
                for n in from {
                    if n % prime != 0 && out.send(n).is_err() {
                        return;
                    }
                }
            });
        }
        assert_eq!(primes[..10], [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
        assert_eq!(primes[99], 541);
    });
}

/// A fraction in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratio(i128, i128);

impl Ratio {
    fn new(above: i128, below: i128) -> Self {
        let (mut a, mut b) = (above.abs(), below);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        Self(above / a, below / a)
    }

    fn plus(self, other: Self) -> Self {
        Self::new(self.0 * other.1 + other.0 * self.1, self.1 * other.1)
    }

    fn times(self, other: Self) -> Self {
        Self::new(self.0 * other.0, self.1 * other.1)
    }
}

/// A power series: its coefficients, each made when it is asked for.
struct Series {
    ask: Sender<()>,
    get: Receiver<Ratio>,
}

/// The other end of a series.
struct Maker {
    asked: Receiver<()>,
    put: Sender<Ratio>,
}

fn series() -> (Maker, Series) {
    let (ask, asked) = unbuffered();
    let (put, get) = unbuffered();
    (Maker { asked, put }, Series { ask, get })
}

impl Series {
    fn next(&self) -> Option<Ratio> {
        self.ask.send(()).ok()?;
        self.get.recv().ok()
    }

    fn first(&self, n: usize) -> Vec<Ratio> {
        (0..n).map(|_| self.next().unwrap()).collect()
    }
}

impl Maker {
    /// Makes coefficient after coefficient, until nobody asks any more.
    fn make(self, mut coefficient: impl FnMut(usize) -> Option<Ratio> + Send + 'static) {
        go(move || {
            for n in 0.. {
                if self.asked.recv().is_err() {
                    return;
                }
                let Some(value) = coefficient(n) else { return };
                if self.put.send(value).is_err() {
                    return;
                }
            }
        });
    }

    /// The integral of `of`, with a constant.
    fn integrate(self, constant: Ratio, of: Series) {
        self.make(move |n| match n {
            0 => Some(constant),
            _ => Some(of.next()?.times(Ratio::new(1, n as i128))),
        });
    }
}

fn multiply(f: Series, g: Series) -> Series {
    let (maker, product) = series();
    let (mut fs, mut gs) = (Vec::new(), Vec::new());
    maker.make(move |_| {
        fs.push(f.next()?);
        gs.push(g.next()?);
        let terms = fs.iter().zip(gs.iter().rev()).map(|(a, b)| a.times(*b));
        Some(terms.fold(Ratio(0, 1), Ratio::plus))
    });
    product
}

fn plus_one(f: Series) -> Series {
    let (maker, sum) = series();
    maker.make(move |n| f.next().map(|c| if n == 0 { c.plus(Ratio(1, 1)) } else { c }));
    sum
}

/// Two series out of one. What one side has asked for waits for the other. While the source is being asked both sides are served with
/// what there is, since the source may be defined by one of them.
fn split(source: Series) -> [Series; 2] {
    let ((left, a), (right, b)) = (series(), series());
    go(move || {
        let puts = [left.put, right.put];
        let mut asked = [left.asked, right.asked];
        let mut hungry = [false; 2];
        let mut kept = [VecDeque::new(), VecDeque::new()];
        let mut fetching = false;
        let mut open = 2;
        while open > 0 {
            let word = select! {
                recv(asked[0]) -> word => Some((0, word)),
                recv(asked[1]) -> word => Some((1, word)),
                recv(source.get) -> value => {
                    let Ok(value) = value else { return };
                    kept.iter_mut().for_each(|kept| kept.push_back(value));
                    fetching = false;
                    None
                },
            };
            match word {
                Some((side, Ok(()))) => hungry[side] = true,
                Some((side, Err(_))) => {
                    asked[side] = never();
                    open -= 1;
                }
                None => {}
            }
            for side in 0..2 {
                if !hungry[side] {
                    continue;
                }
                if let Some(value) = kept[side].pop_front() {
                    let _ = puts[side].send(value);
                    hungry[side] = false;
                } else if !fetching {
                    fetching = source.ask.send(()).is_ok();
                }
            }
        }
    });
    [a, b]
}

/// `exp` is its own integral, with constant 1.
fn exp() -> Series {
    let (maker, result) = series();
    let [result, own] = split(result);
    maker.integrate(Ratio(1, 1), own);
    result
}

/// `tan` is the integral of `1 + tan²`.
fn tan() -> Series {
    let (maker, result) = series();
    let [result, own] = split(result);
    let [f, g] = split(own);
    maker.integrate(Ratio(0, 1), plus_one(multiply(f, g)));
    result
}

#[test]
fn power_series_that_are_defined_by_themselves_have_the_known_coefficients() {
    at_1_2_4(|| {
        let factorials = (0..15_i128).map(|n| (1..=n).product::<i128>());
        let known: Vec<_> = factorials.clone().map(|below| Ratio(1, below)).collect();
        assert_eq!(exp().first(15), known);

        let known: Vec<_> = factorials.enumerate().map(|(n, below)| Ratio::new(1 << n, below)).collect();
        assert_eq!(multiply(exp(), exp()).first(15), known, "exp(x)² = exp(2x)");

        let odd = [(1, 1), (1, 3), (2, 15), (17, 315), (62, 2835), (1382, 155_925)];
        let known: Vec<_> = odd.iter().flat_map(|&(a, b)| [Ratio(0, 1), Ratio(a, b)]).collect();
        assert_eq!(tan().first(12), known);
    });
}

#[test]
fn doubleselect_sends_each_number_through_one_of_four_channels() {
    const NUMBERS: usize = 3000;
    at_1_2_4(|| {
        let (ends, outs): (Vec<_>, Vec<_>) = (0..4).map(|_| unbuffered()).unzip();
        let (all, merged) = unbuffered();
        for out in outs {
            let all = all.clone();
            go(move || out.iter().for_each(|n: usize| all.send(n).unwrap()));
        }
        drop(all);
        go(move || {
            for n in 0..NUMBERS {
                select! {
                    send(ends[0], n) -> sent => sent.unwrap(),
                    send(ends[1], n) -> sent => sent.unwrap(),
                    send(ends[2], n) -> sent => sent.unwrap(),
                    send(ends[3], n) -> sent => sent.unwrap(),
                }
            }
        });
        assert_each_once(merged.iter(), NUMBERS);
    });
}

fn assert_each_once(values: impl Iterator<Item = usize>, count: usize) {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    assert_eq!(values, (0..count).collect::<Vec<_>>());
}

#[test]
fn values_keep_their_order_through_a_chain_of_buffers() {
    at_1_2_4(|| {
        let (first, mut last) = unbuffered();
        for stage in 0..200 {
            let (out, next) = bounded(stage % 4);
            let from = std::mem::replace(&mut last, next);
            go(move || from.iter().for_each(|n: usize| out.send(n + 1).unwrap()));
        }
        go(move || (0..100).for_each(|n| first.send(n).unwrap()));
        assert_eq!(last.iter().collect::<Vec<_>>(), (200..300).collect::<Vec<_>>());
    });
}

#[test]
fn philosophers_all_eat_and_no_fork_is_in_two_hands() {
    const MEALS: usize = 100;
    at_1_2_4(|| {
        let forks: Arc<[Chan<()>; 5]> = Arc::new(std::array::from_fn(|_| Chan::bounded(1)));
        let held: Arc<[AtomicBool; 5]> = Arc::default();
        let meals = Arc::new(AtomicUsize::new(0));
        forks.iter().for_each(|fork| fork.send(()).unwrap());
        let table = WaitGroup::new();
        for seat in 0..5 {
            let (forks, held, meals) = (Arc::clone(&forks), Arc::clone(&held), Arc::clone(&meals));
            // The lower fork first: no circle of waiters.
            let (low, high) = (seat.min((seat + 1) % 5), seat.max((seat + 1) % 5));
            table.go(move || {
                for _ in 0..MEALS {
                    for fork in [low, high] {
                        forks[fork].recv().unwrap();
                        assert!(!held[fork].swap(true, SeqCst));
                    }
                    oxigo::yield_now();
                    meals.fetch_add(1, SeqCst);
                    for fork in [high, low] {
                        assert!(held[fork].swap(false, SeqCst));
                        forks[fork].send(()).unwrap();
                    }
                }
            });
        }
        table.wait();
        assert_eq!(meals.load(SeqCst), 5 * MEALS);
    });
}

#[test]
fn plain_and_selecting_parties_mixed_bring_each_value_once() {
    const EACH: usize = 500;
    for capacity in [0, 1, 10] {
        at_1_2_4(|| {
            let (a, from_a) = bounded(capacity);
            let (b, from_b) = bounded(capacity);
            let (all, results) = unbuffered();
            for party in 0..4 {
                let (a, b) = (a.clone(), b.clone());
                go(move || {
                    for n in party * EACH..(party + 1) * EACH {
                        match (party + n) % 3 {
                            0 => a.send(n).unwrap(),
                            1 => b.send(n).unwrap(),
                            _ => select! {
                                send(a, n) -> sent => sent.unwrap(),
                                send(b, n) -> sent => sent.unwrap(),
                            },
                        }
                    }
                });
                let (mut from_a, mut from_b, all) = (from_a.clone(), from_b.clone(), all.clone());
                go(move || match party {
                    0 => from_a.iter().for_each(|n| all.send(n).unwrap()),
                    1 => from_b.iter().for_each(|n| all.send(n).unwrap()),
                    _ => {
                        let mut open = 2;
                        while open > 0 {
                            select! {
                                recv(from_a) -> n => match n {
                                    Ok(n) => all.send(n).unwrap(),
                                    Err(_) => { from_a = never(); open -= 1; }
                                },
                                recv(from_b) -> n => match n {
                                    Ok(n) => all.send(n).unwrap(),
                                    Err(_) => { from_b = never(); open -= 1; }
                                },
                            }
                        }
                    }
                });
            }
            drop((a, b, all));
            assert_each_once(results.iter(), 4 * EACH);
        });
    }
}
