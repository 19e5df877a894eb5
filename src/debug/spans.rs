//! Spans of `tracing` that follow the goroutine: a subscriber keeps the spans that were entered for each thread, so a goroutine that leaves
//! its thread to others exits its own, and enters them again when it goes on.
//!
//! - N1: while the worker itself runs, no span is entered on its thread; a goroutine begins, and ends, so.
//! - N2: the subscriber is user code, called by a goroutine that others may already know as waiting. So it must not park (operations in it
//!   block the thread, as in a panic hook) nor unwind (that ends the process, whoever else unwinds: others hold addresses of the frames
//!   below).

use std::mem;

use tracing::{Dispatch, dispatcher, span::Id};

use crate::{coroutine::AbortOnUnwind, runtime::scheduler::Worker};

/// Spans at most: a subscriber that tells of a span which cannot be exited is left alone.
const MOST: usize = 1024;

/// The spans that a goroutine has left. Each is kept alive until it has been entered again, or for good.
#[must_use]
pub(crate) struct Left {
    dispatch: Option<Dispatch>,
    /// The innermost first.
    spans: Vec<Id>,
}

/// Exits all spans of the calling goroutine.
pub(crate) fn leave() -> Left {
    let ask = |dispatch: &Dispatch| {
        let mut spans = Vec::new();
        while spans.len() < MOST
            && let Some(id) = dispatch.current_span().id()
        {
            // It may be that nothing but being entered keeps the span.
            let id = dispatch.clone_span(id);
            dispatch.exit(&id);
            spans.push(id);
        }
        let dispatch = if spans.is_empty() { None } else { Some(dispatch.clone()) };
        Left { dispatch, spans }
    };
    told(|| dispatcher::get_default(ask))
}

impl Left {
    /// Enters them again, on the goroutine that has left them.
    pub(crate) fn enter(mut self) {
        if let Some(dispatch) = &self.dispatch {
            told(|| {
                while let Some(id) = self.spans.pop() {
                    dispatch.enter(&id);
                    dispatch.try_close(id);
                }
            });
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(dispatch) = self.dispatch.take() {
            told(|| {
                for id in self.spans.drain(..) {
                    dispatch.try_close(id);
                }
            });
        }
    }
}

/// N2: calls the subscriber.
fn told<R>(call: impl FnOnce() -> R) -> R {
    let before = Worker::current().is_some_and(|worker| worker.in_hook().replace(true));
    let broken = AbortOnUnwind;
    let result = call();
    mem::forget(broken);
    if let Some(worker) = Worker::current() {
        worker.in_hook().set(before);
    }
    result
}
