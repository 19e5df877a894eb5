//! Spans of `tracing` that follow the goroutine: a subscriber keeps the spans that were entered for each thread, so a goroutine that leaves
//! its thread to others exits its own, and enters them again when it goes on.
//!
//! - N1: while the worker itself runs, no span is entered on its thread; a goroutine begins, and ends, so.
//! - N2: the subscriber is user code, called by a goroutine that others may already know as waiting. So it must not park (operations in it
//!   block the thread, as in a panic hook) nor unwind (that ends the process: others hold addresses of the frames below).

use tracing::{Dispatch, dispatcher, span::Id};

use crate::runtime::scheduler::Worker;

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
    let _hook = Hook::enter();
    dispatcher::get_default(|dispatch| {
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
    })
}

impl Left {
    /// Enters them again, on the goroutine that has left them.
    pub(crate) fn enter(mut self) {
        if let Some(dispatch) = &self.dispatch {
            let _hook = Hook::enter();
            while let Some(id) = self.spans.pop() {
                dispatch.enter(&id);
                dispatch.try_close(id);
            }
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(dispatch) = self.dispatch.take() {
            let _hook = Hook::enter();
            for id in self.spans.drain(..) {
                dispatch.try_close(id);
            }
        }
    }
}

/// N2.
struct Hook {
    before: bool,
    /// A goroutine may wait while it unwinds.
    unwinds: bool,
}

impl Hook {
    fn enter() -> Self {
        let before = Worker::current().is_some_and(|worker| worker.in_hook().replace(true));
        Self { before, unwinds: std::thread::panicking() }
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinds {
            std::process::abort();
        }
        if let Some(worker) = Worker::current() {
            worker.in_hook().set(self.before);
        }
    }
}
