//! Which types may be sent, shared and carried over a caught panic. Most of it passes by being compiled.

use std::{
    fmt::Debug,
    iter::FusedIterator,
    panic::{RefUnwindSafe, UnwindSafe},
};

use oxigo::{
    Builder, Chan, Deadlock, Goroutine, Id, JoinCtxError, JoinHandle, PanicPolicy, Receiver, Runtime, RuntimeBuilder,
    Sender, WaitGroup,
    chan::CloseError,
    context::{CancelHandle, Context, ContextError},
    net::{
        Incoming, TcpListener, TcpStream, UdpSocket,
        unix::{UnixDatagram, UnixListener, UnixStream},
    },
    sync::{
        Barrier, Condvar, DoneGuard, ErrGroup, LazyLock, Mutex, Once, OnceLock, OwnedPermit, Permit, RwLock, Semaphore,
        SingleFlight,
    },
    time::{AfterFunc, Ticker, Timer},
};

fn shared<T: Send + Sync + Unpin + Debug>() {}
fn survives<T: UnwindSafe>() {}
fn survives_shared<T: RefUnwindSafe>() {}

macro_rules! all_of {
    ($($type:ty),* $(,)?) => {$(
        shared::<$type>();
        survives::<$type>();
        survives_shared::<$type>();
    )*};
}

/// As std's, crossbeam's and parking_lot's types: a panic leaves none of them half changed.
#[test]
fn whole_after_a_panic() {
    all_of!(
        Sender<Box<dyn Send>>,
        Receiver<Box<dyn Send>>,
        Chan<Box<dyn Send>>,
        CloseError,
        Runtime,
        RuntimeBuilder,
        Builder,
        Goroutine,
        Id,
        PanicPolicy,
        Deadlock,
        WaitGroup,
        DoneGuard,
        Semaphore,
        Permit<'static>,
        OwnedPermit,
        Barrier,
        Condvar,
        Once,
        OnceLock<u8>,
        LazyLock<u8>,
        ErrGroup<u8>,
        SingleFlight<u8, u8>,
        Timer,
        Ticker,
        AfterFunc,
        Context,
        CancelHandle,
        ContextError,
        TcpListener,
        TcpStream,
        UdpSocket,
        UnixListener,
        UnixStream,
        UnixDatagram,
    );
    shared::<JoinHandle<std::cell::Cell<u8>>>();
    shared::<JoinCtxError<JoinHandle<std::cell::Cell<u8>>>>();
}

/// Locks hand the value on after a panic, so they may be moved over one, and shared over one only with a promise. As parking_lot's.
#[test]
fn locks_may_be_moved_over_a_panic() {
    shared::<Mutex<u8>>();
    shared::<RwLock<u8>>();
    survives::<Mutex<u8>>();
    survives::<RwLock<u8>>();
    let mutex = Mutex::new(1);
    assert!(std::panic::catch_unwind(move || assert_eq!(*mutex.lock(), 1)).is_ok());
}

/// As std's.
#[test]
fn incoming_is_fused() {
    fn fused<T: FusedIterator + Debug>() {}
    fused::<Incoming<'static>>();
}
