//! cargo run --release --example tour
//!
//! Every idea of Go's goroutines and channels, in the order in which one learns them, each beside the Go it stands for.

use std::time::{Duration, Instant};

use oxigo::{Receiver, Sender, WaitGroup, bounded, chan::TryRecvError, chan::TrySendError, go, time, unbuffered};

fn show(idea: &str, in_go: &str) {
    println!("\n== {idea}");
    for line in in_go.lines() {
        println!("   Go: {line}");
    }
}

fn goroutines() {
    show("goroutines", "go doSomething()");
    let handle = go(|| {
        println!("hello from {:?}", oxigo::current().id());
        6 * 7
    });
    // What Go's `go` lacks: a handle that waits, and brings the result or the panic.
    println!("its result: {}", handle.join().unwrap());
    let handles: Vec<_> = (0..10_000_u64).map(|i| go(move || i)).collect();
    let sum: u64 = handles.into_iter().map(|handle| handle.join().unwrap()).sum();
    println!("ten thousand of them, summed: {sum}");
}

fn synchronisation() {
    show(
        "an unbuffered channel synchronises",
        "done := make(chan struct{})\ngo func() { …; done <- struct{}{} }()\n<-done",
    );
    let (done, finished) = unbuffered();
    go(move || {
        println!("Hello, World!");
        done.send(()).unwrap();
    });
    finished.recv().unwrap();
    println!("main goes on after the greeting");
}

// One-way ends: `Sender<T>` is Go's `chan<- T`, `Receiver<T>` is `<-chan T`. The compiler keeps each to its use.
fn counter(out: Sender<u64>) {
    for n in 0..10 {
        out.send(n).unwrap();
    }
    // Dropping the last sender closes the channel, which ends the next stage's loop.
}

fn squarer(out: Sender<u64>, numbers: Receiver<u64>) {
    for n in numbers {
        out.send(n * n).unwrap();
    }
}

fn printer(squares: Receiver<u64>) {
    for square in squares {
        print!("{square} ");
    }
    println!();
}

fn pipeline() {
    show(
        "a pipeline of one-way ends: counter -> squarer -> printer",
        "func counter(out chan<- int)\nfunc squarer(out chan<- int, in <-chan int)\nfunc printer(in <-chan int)",
    );
    let (naturals, numbers) = unbuffered();
    let (squares, results) = unbuffered();
    go(move || counter(naturals));
    go(move || squarer(squares, numbers));
    printer(results);
}

fn buffered() {
    show("a buffered channel takes what fits without waiting", "ch := make(chan int, 3)");
    let (tx, rx) = bounded(3);
    for n in 1..=3 {
        tx.send(n).unwrap();
        println!("sent {n}, which did not block (len {} of {:?})", tx.len(), tx.capacity());
    }
    match tx.try_send(4) {
        Err(TrySendError::Full(n)) => println!("{n} would block: the buffer is full"),
        other => unreachable!("{other:?}"),
    }
    let start = Instant::now();
    let receiver = go(move || {
        time::sleep(Duration::from_millis(20));
        rx.iter().collect::<Vec<i32>>()
    });
    tx.send(4).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    println!("sent 4, which blocked until there was room");
    drop(tx);
    println!("received in order: {:?}", receiver.join().unwrap());
}

fn reasons_to_close() {
    show("close, reason 1: no more jobs", "close(jobs)\nfor job := range jobs { … }");
    let (jobs, queue) = bounded(5);
    let worker = go(move || {
        for job in &queue {
            println!("received job {job}");
        }
        println!("all jobs received");
    });
    for job in 1..=5 {
        jobs.send(job).unwrap();
    }
    jobs.close().unwrap();
    worker.join().unwrap();

    show("close, reason 2: one signal for many", "close(done)");
    let (done, signal) = unbuffered::<()>();
    let workers: Vec<_> = (1..=3)
        .map(|n| {
            let signal = signal.clone();
            go(move || {
                signal.recv().unwrap_err();
                n
            })
        })
        .collect();
    done.close().unwrap();
    let told: Vec<i32> = workers.into_iter().map(|worker| worker.join().unwrap()).collect();
    println!("workers {told:?} received the done signal");

    show("close, reason 3: loops end by themselves", "for num := range data { … }");
    let (data, numbers) = unbuffered();
    go(move || {
        for n in 0..10 {
            data.send(n).unwrap();
        }
    });
    println!("{:?}, then no more data", numbers.iter().collect::<Vec<i32>>());
}

fn after_close() {
    show("after close", "ch <- 1   // panic: send on closed channel\nclose(ch) // panic: close of closed channel");
    let (tx, rx) = bounded(1);
    tx.send("last").unwrap();
    tx.close().unwrap();
    // Go's panics are errors here; `unwrap` would make them panics with the same words.
    println!("send:  {} (and the value comes back)", tx.send("late").unwrap_err());
    println!("close: {}", tx.close().unwrap_err());
    println!("what was sent before is still there: {:?}", rx.recv());
    println!("then: {} ({:?})", rx.recv().unwrap_err(), rx.try_recv() == Err(TryRecvError::Disconnected));
}

fn wait_group() {
    show("WaitGroup", "var wg sync.WaitGroup\nwg.Add(1)\ngo func() { defer wg.Done(); … }()\nwg.Wait()");
    let wg = WaitGroup::new();
    for n in 1..=3 {
        wg.go(move || println!("task {n} is done"));
    }
    wg.wait();
    println!("all tasks are done");
}

#[oxigo::main]
fn main() {
    goroutines();
    synchronisation();
    pipeline();
    buffered();
    reasons_to_close();
    after_close();
    wait_group();
}
