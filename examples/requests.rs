//! cargo run --release --example requests
//!
//! A server without a network: requests come on a channel, each is served by a goroutine with a deadline of its own, a value that says which
//! request it is, and helpers that stop when one of them fails. Ctrl-C ends it in order: what has begun may finish.

use std::{cell::Cell, time::Duration};

use oxigo::{
    Receiver, WaitGroup,
    chan::RecvCtxError,
    context::Context,
    go, goroutine_local,
    signal::{self, Signal},
    sync::ErrGroup,
    time::{Ticker, after_func},
    unbuffered,
};

goroutine_local! {
    /// The request that this goroutine works on: every line of the log names it, without being told.
    static REQUEST: Cell<u64> = Cell::new(0);
}

fn log(text: &str) {
    println!("request {}: {text}", REQUEST.get());
}

/// Asks two others at once; every fourth request, one of them fails, and the other one is not waited for.
fn handle(ctx: &Context, id: u64) -> Result<(), String> {
    REQUEST.set(id);
    let group = ErrGroup::with_context(ctx);
    let ctx = group.context().clone();
    group.go(move || match id % 4 {
        3 => Err("the database says no".to_string()),
        _ => ctx.sleep(Duration::from_millis(2)).map_err(|error| error.to_string()),
    });
    let ctx = group.context().clone();
    // Every fifth request takes longer than it may.
    let needs = if id % 5 == 4 { 3_600_000 } else { 3 };
    group.go(move || ctx.sleep(Duration::from_millis(needs)).map_err(|error| error.to_string()));
    let result = group.wait();
    log(&match &result {
        Ok(()) => "served".to_string(),
        Err(error) => format!("failed, {error}"),
    });
    result
}

fn serve(ctx: &Context, requests: &Receiver<u64>) {
    let running = WaitGroup::new();
    loop {
        match requests.recv_ctx(ctx) {
            Ok(id) => running.go(move || {
                // Not made from the server's context: a request that has begun may finish.
                let (ctx, _cancel) = Context::background().with_timeout(Duration::from_secs(1));
                let _ = handle(&ctx, id);
            }),
            Err(RecvCtxError::Disconnected) => break println!("no more requests"),
            Err(RecvCtxError::Context(_)) => break println!("stops: {}", ctx.cause().expect("it has ended")),
        }
    }
    running.wait();
}

#[oxigo::main]
fn main() {
    let (ctx, _until) = signal::context(&[Signal::INT, Signal::TERM]);
    let slow = after_func(Duration::from_secs(10), || println!("still at it after ten seconds"));
    let (send, requests) = unbuffered();
    go({
        let ctx = ctx.clone();
        move || {
            let ticker = Ticker::new(Duration::from_millis(5));
            for id in 1..=20 {
                let _ = ticker.receiver().recv();
                if send.send_ctx(id, &ctx).is_err() {
                    return;
                }
            }
        }
    });
    serve(&ctx, &requests);
    slow.stop();
    println!("all requests are done");
}
