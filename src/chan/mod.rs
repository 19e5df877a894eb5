//! Channels: typed conduits between goroutines, and between goroutines and threads.
//!
//! Names and signatures are those of the crate `crossbeam-channel`; [`unbuffered`], [`close`](Sender::close) and [`Chan`] are added, as
//! in Go. Everything works from goroutines, which it parks, and from plain threads, which it blocks.
//!
//! ```
//! use oxigo::{bounded, go};
//!
//! let (jobs, queue) = bounded(8);
//! let (results, sums) = bounded(8);
//! for _ in 0..3 {
//!     let (queue, results) = (queue.clone(), results.clone());
//!     // Each worker takes jobs until the channel is closed and empty.
//!     go(move || queue.iter().for_each(|n: u64| results.send(n * n).unwrap()));
//! }
//! drop(results); // the workers have clones
//! for n in 1..=10 {
//!     jobs.send(n).unwrap();
//! }
//! drop(jobs); // closes the channel
//! assert_eq!(sums.iter().sum::<u64>(), 385);
//! ```
//!
//! | Go | here |
//! |---|---|
//! | `make(chan T)` | [`unbuffered()`] |
//! | `make(chan T, n)` | [`bounded(n)`](bounded) |
//! | `chan T`, `chan<- T`, `<-chan T` | [`Chan<T>`], [`Sender<T>`], [`Receiver<T>`] |
//! | `ch <- v` | [`tx.send(v)`](Sender::send): an error instead of a panic when the channel is closed |
//! | `v, ok := <-ch` | [`rx.recv()`](Receiver::recv) |
//! | `for v := range ch` | `for v in rx` |
//! | `close(ch)` | [`tx.close()`](Sender::close), or dropping the last sender |
//! | none: many values at once | [`rx.recv_many(&mut values, limit)`](Receiver::recv_many), [`tx.send_many(values)`](Sender::send_many) |

// The protocol is described in `chan/state.rs` and `chan/two_step.rs`.

pub(crate) mod allocation;
mod batch;
pub(crate) mod core;
mod ctx;
mod detour;
mod err;
mod glance;
mod iter;
mod linger;
#[cfg(all(test, loom))]
mod loom_models;
pub(crate) mod make;
pub(crate) mod receiver;
pub(crate) mod ring;
mod sender;
pub(crate) mod state;
pub(crate) mod timer;
pub(crate) mod two_step;
pub(crate) mod two_way;

pub use self::{
    ctx::{RecvCtxError, SendCtxError},
    err::{
        CloseError, ReadyTimeoutError, RecvError, RecvTimeoutError, SelectTimeoutError, SendError, SendTimeoutError,
        TryReadyError, TryRecvError, TrySelectError, TrySendError,
    },
    iter::{IntoIter, Iter, TryIter},
    make::{after, at, bounded, never, tick, unbounded, unbuffered},
    receiver::Receiver,
    sender::Sender,
    two_way::Chan,
};
pub use crate::{
    select,
    select::{Select, SelectedOperation},
    select_biased,
};
