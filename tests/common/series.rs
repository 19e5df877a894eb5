//! Power series as goroutines that compute coefficients on demand, after Doug McIlroy's design.

use oxigo::{Receiver, Sender, go, select, unbuffered};

/// An endless row of coefficients: a request on one channel brings the next on the other.
pub(crate) struct Series {
    ask: Sender<()>,
    next: Receiver<i64>,
}

impl Series {
    /// A series whose goroutine answers each request with what `step` gives. It ends when the series is dropped.
    fn from_fn(mut step: impl FnMut() -> Option<i64> + Send + 'static) -> Self {
        let (ask, asked) = unbuffered();
        let (tx, next) = unbuffered();
        go(move || {
            while asked.recv().is_ok() {
                let Some(coefficient) = step() else { return };
                if tx.send(coefficient).is_err() {
                    return;
                }
            }
        });
        Self { ask, next }
    }

    pub(crate) fn repeating(coefficient: i64) -> Self {
        Self::from_fn(move || Some(coefficient))
    }

    /// These coefficients, then zeros.
    pub(crate) fn of<const N: usize>(coefficients: [i64; N]) -> Self {
        let mut rest = coefficients.into_iter();
        Self::from_fn(move || Some(rest.next().unwrap_or(0)))
    }

    fn get(&self) -> Option<i64> {
        self.ask.send(()).ok()?;
        self.next.recv().ok()
    }

    pub(crate) fn take(self, terms: usize) -> Vec<i64> {
        (0..terms).map(|_| self.get().expect("series do not end")).collect()
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self::from_fn(move || Some(self.get()? + other.get()?))
    }

    fn scaled(self, factor: i64) -> Self {
        Self::from_fn(move || Some(self.get()? * factor))
    }

    /// Multiplied by x.
    fn shifted(self) -> Self {
        let mut first = true;
        Self::from_fn(move || if std::mem::take(&mut first) { Some(0) } else { self.get() })
    }

    pub(crate) fn derivative(self) -> Self {
        let mut n = 0;
        Self::from_fn(move || {
            if n == 0 {
                self.get()?;
            }
            n += 1;
            Some(n * self.get()?)
        })
    }

    /// (f + xF)(g + xG) = fg + x(fG + gF + xFG)
    pub(crate) fn times(self, other: Self) -> Self {
        let mut start = Some((self, other));
        let mut rest: Option<Self> = None;
        Self::from_fn(move || {
            if let Some(rest) = &rest {
                return rest.get();
            }
            let (left, right) = start.take()?;
            let (f, g) = (left.get()?, right.get()?);
            let (left_a, left_b) = left.split();
            let (right_a, right_b) = right.split();
            rest = Some(right_a.scaled(f).plus(left_a.scaled(g)).plus(left_b.times(right_b).shifted()));
            Some(f * g)
        })
    }

    /// 1/s for a series s that begins with 1: r = 1 - x·S·r, where s = 1 + x·S.
    pub(crate) fn reciprocal(self) -> Self {
        let mut known: Vec<i64> = Vec::new();
        let mut seen: Vec<i64> = Vec::new();
        Self::from_fn(move || {
            seen.push(self.get()?);
            assert_eq!(seen[0], 1);
            let tail = seen.iter().skip(1).zip(known.iter().rev()).map(|(s, r)| s * r).sum::<i64>();
            let next = i64::from(known.is_empty()) - tail;
            known.push(next);
            Some(next)
        })
    }

    /// Two series with the same coefficients. One goroutine serves both, by a select over their requests, and keeps what the slower one
    /// has not yet asked for.
    pub(crate) fn split(self) -> (Self, Self) {
        let (ask_a, mut asked_a) = unbuffered();
        let (ask_b, mut asked_b) = unbuffered();
        let (tx_a, next_a) = unbuffered();
        let (tx_b, next_b) = unbuffered();
        go(move || {
            let (mut queue_a, mut queue_b) = (std::collections::VecDeque::new(), std::collections::VecDeque::new());
            let (mut alive_a, mut alive_b) = (true, true);
            while alive_a || alive_b {
                let is_a = select! {
                    recv(asked_a) -> asked => { alive_a &= asked.is_ok(); true }
                    recv(asked_b) -> asked => { alive_b &= asked.is_ok(); false }
                };
                if is_a && !alive_a {
                    asked_a = oxigo::chan::never();
                    continue;
                }
                if !is_a && !alive_b {
                    asked_b = oxigo::chan::never();
                    continue;
                }
                let mine = if is_a { &mut queue_a } else { &mut queue_b };
                if mine.is_empty() {
                    let Some(coefficient) = self.get() else { return };
                    queue_a.push_back(coefficient);
                    queue_b.push_back(coefficient);
                }
                let (mine, tx) = if is_a { (&mut queue_a, &tx_a) } else { (&mut queue_b, &tx_b) };
                let _ = tx.send(mine.pop_front().expect("filled above"));
            }
        });
        (Self { ask: ask_a, next: next_a }, Self { ask: ask_b, next: next_b })
    }
}
