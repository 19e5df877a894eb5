//! Sockets with contexts: dialling, accepting, reading and writing that end with one; rows NT-20, NT-21, NT-23, CX-26.

mod common;

use std::{
    fmt,
    io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{at_1_2_4, quiesce, rt};
use oxigo::{
    context::{
        CancelHandle, Context,
        ContextError::{self, Canceled, DeadlineExceeded},
    },
    go,
    net::{
        TcpListener, TcpStream, UdpSocket, lookup_host_ctx, pipe,
        unix::{UnixDatagram, UnixListener, UnixStream},
    },
    process::{Command, Stdio},
};

const MS: Duration = Duration::from_millis(1);

fn context() -> (Context, CancelHandle) {
    Context::background().with_cancel()
}

/// The context's error in that of an operation; its kind agrees.
#[track_caller]
fn ended<T: fmt::Debug>(result: io::Result<T>) -> ContextError {
    let error = result.expect_err("the context ends it");
    let inner = *error.get_ref().and_then(|inner| inner.downcast_ref::<ContextError>()).expect("the context's error");
    let kind = match inner {
        Canceled => ErrorKind::Other,
        DeadlineExceeded => ErrorKind::TimedOut,
    };
    assert_eq!(error.kind(), kind);
    inner
}

/// On one worker: `operation`, in a goroutine of its own, waits, and ends when its context is cancelled.
#[track_caller]
fn ends_when_parked<T: fmt::Debug + Send + 'static>(
    operation: impl FnOnce(&Context) -> io::Result<T> + Send + 'static,
) {
    let (ctx, cancel) = context();
    let parked = go(move || operation(&ctx));
    quiesce();
    assert!(!parked.is_finished());
    cancel.cancel();
    assert_eq!(ended(parked.join().unwrap()), Canceled);
}

fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// Keeps a listener's queue full, so that dialling it waits.
struct Full {
    _listener: socket2::Socket,
    _queued: Vec<TcpStream>,
    address: SocketAddr,
}

impl Full {
    fn new() -> Self {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let (mut queued, mut in_vain) = (Vec::new(), 0);
        // On a busy machine one attempt may take too long though there is room.
        while in_vain < 3 {
            match TcpStream::connect_timeout(&address, 50 * MS) {
                Ok(stream) => {
                    queued.push(stream);
                    in_vain = 0;
                }
                Err(_) => in_vain += 1,
            }
            assert!(queued.len() < 64);
        }
        Self { _listener: listener, _queued: queued, address }
    }
}

#[test]
fn nt_20_nt_23_a_dial_ends_with_its_context() {
    rt(1, || {
        let full = Full::new();
        let address = full.address;
        ends_when_parked(move |ctx| TcpStream::connect_ctx(address, ctx));
        // Several addresses: a race, all of whose attempts end.
        let several = [address, address, address];
        ends_when_parked(move |ctx| TcpStream::connect_ctx(&several[..], ctx));

        let begin = Instant::now();
        let (ctx, _cancel) = Context::background().with_timeout(20 * MS);
        assert_eq!(ended(TcpStream::connect_ctx(address, &ctx)), DeadlineExceeded);
        assert!(begin.elapsed() >= 20 * MS);
    });
}

#[test]
fn nt_20_an_ended_context_fails_at_once() {
    at_1_2_4(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (past, _cancel) = Context::background().with_deadline(Instant::now());
        assert_eq!(ended(TcpStream::connect_ctx(address, &past)), DeadlineExceeded);
        assert_eq!(ended(lookup_host_ctx("localhost:1", &past).map(drop)), DeadlineExceeded);
        let (ctx, cancel) = context();
        cancel.cancel();
        assert_eq!(ended(TcpStream::connect_ctx(("localhost", address.port()), &ctx)), Canceled);
        assert_eq!(ended(listener.accept_ctx(&ctx).map(drop)), Canceled);

        // A time-out that the clock cannot count to is none.
        let (endless, _cancel) = Context::background().with_timeout(Duration::MAX);
        let near = TcpStream::connect_ctx(address, &endless).unwrap();
        let (far, _) = listener.accept_ctx(&endless).unwrap();
        far.with_ctx(&endless).write_all(b"x").unwrap();
        near.with_ctx(&endless).read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn nt_21_a_cancellation_after_the_dial_leaves_the_connection_alone() {
    at_1_2_4(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        // By one address, and by a race of several.
        for address in [&[port][..], &[port, port]] {
            let addresses: Vec<SocketAddr> = address.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
            let (ctx, cancel) = context();
            let (mut near, mut far) = {
                let near = TcpStream::connect_ctx(&addresses[..], &ctx).unwrap();
                let (far, from) = listener.accept().unwrap();
                // The second of a race may have connected as well, and been closed.
                if from == near.local_addr().unwrap() { (near, far) } else { (near, listener.accept().unwrap().0) }
            };
            let mut heard = [0; 4];
            oxigo::scope(|s| {
                let reading = s.go(|| near.read_exact(&mut heard));
                cancel.cancel();
                far.write_all(b"ping").unwrap();
                reading.join().unwrap().unwrap();
            });
            assert_eq!(&heard, b"ping");
            near.write_all(b"pong").unwrap();
            far.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, b"pong");
        }
    });
}

#[test]
fn cx_26_a_read_and_a_write_end_and_the_connection_goes_on() {
    rt(1, || {
        let (near, far) = connected();
        let ping = {
            let (near, far) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            move || {
                (&far).write_all(b"ping")?;
                let mut heard = [0; 4];
                (&near).read_exact(&mut heard)?;
                Ok::<_, io::Error>(heard)
            }
        };
        let stream = near.try_clone().unwrap();
        ends_when_parked(move |ctx| stream.with_ctx(ctx).read(&mut [0; 8]));
        assert_eq!(&ping().unwrap(), b"ping");

        // Fills the way to the peer, who does not read; whoever waits for the turn behind ends as well.
        let (stream, behind) = (near.try_clone().unwrap(), near.try_clone().unwrap());
        let (ctx, cancel) = context();
        let other = ctx.clone();
        let big = vec![7; 64 << 20];
        let first = go(move || stream.with_ctx(&ctx).write_all(&big));
        quiesce();
        let second = go(move || behind.with_ctx(&other).write(b"behind"));
        quiesce();
        assert!(!first.is_finished() && !second.is_finished());
        assert_eq!(&ping().unwrap(), b"ping");
        cancel.cancel();
        assert_eq!(ended(first.join().unwrap()), Canceled);
        assert_eq!(ended(second.join().unwrap()), Canceled);
        drop(near);
        let mut rest = Vec::new();
        drop(ping);
        (&far).read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty() && rest.iter().all(|byte| *byte == 7), "nothing of the second, who had no turn");
    });
}

/// One of two who read ends; the other waits on, and gets what comes.
#[test]
fn cx_26_only_the_caller_with_the_context_ends() {
    rt(1, || {
        let (near, far) = connected();
        let plain = near.try_clone().unwrap();
        let plain = go(move || {
            let mut heard = [0; 4];
            (&plain).read_exact(&mut heard).map(|()| heard)
        });
        quiesce();
        ends_when_parked(move |ctx| near.with_ctx(ctx).read_exact(&mut [0; 4]));
        assert!(!plain.is_finished());
        (&far).write_all(b"ping").unwrap();
        assert_eq!(&plain.join().unwrap().unwrap(), b"ping");
    });
}

#[test]
fn cx_26_the_time_limits_of_the_stream_hold_as_well() {
    at_1_2_4(|| {
        let (near, _far) = connected();
        let (ctx, _cancel) = Context::background().with_timeout(Duration::from_secs(3600));
        near.set_read_timeout(Some(2 * MS)).unwrap();
        let error = near.with_ctx(&ctx).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        near.set_read_timeout(None).unwrap();
        let begin = Instant::now();
        let (ctx, _cancel) = ctx.with_timeout(2 * MS);
        assert_eq!(ended(near.with_ctx(&ctx).read(&mut [0])), DeadlineExceeded);
        assert!(begin.elapsed() >= 2 * MS);
    });
}

#[test]
fn cx_26_listeners_datagrams_and_pipes_end_too() {
    rt(1, || {
        let path = std::env::temp_dir().join(format!("oxigo-net-ctx-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        ends_when_parked(move |ctx| {
            let ended = tcp.accept_ctx(ctx).map(drop);
            // It listens on.
            let _near = TcpStream::connect(address)?;
            tcp.accept()?;
            ended
        });
        let again = std::sync::Arc::new(listener);
        let other = std::sync::Arc::clone(&again);
        ends_when_parked(move |ctx| other.accept_ctx(ctx).map(drop));
        let near = UnixStream::connect_ctx(&path, &Context::background()).unwrap();
        let (far, _) = again.accept().unwrap();
        std::fs::remove_file(&path).unwrap();
        ends_when_parked(move |ctx| near.with_ctx(ctx).read(&mut [0]));
        drop(far);

        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        ends_when_parked(move |ctx| udp.recv_from_ctx(&mut [0], ctx));
        let datagram = UnixDatagram::unbound().unwrap();
        ends_when_parked(move |ctx| datagram.recv_from_ctx(&mut [0], ctx).map(drop));

        let (near, far) = pipe();
        ends_when_parked(move |ctx| near.with_ctx(ctx).write_all(b"nobody reads"));
        drop(far);
        let (near, far) = pipe();
        ends_when_parked(move |ctx| near.with_ctx(ctx).read(&mut [0]));
        drop(far);
    });
}

/// A peek ends with its context and leaves everything in its place.
#[test]
fn cx_26_peeks_end_with_their_context() {
    rt(1, || {
        let endless = Context::background();
        let (near, mut far) = connected();
        let near = Arc::new(near);
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.peek_ctx(&mut [0; 8], ctx));
        far.write_all(b"tcp").unwrap();
        assert_eq!((near.peek_ctx(&mut [0; 8], &endless).unwrap(), near.peek(&mut [0; 8]).unwrap()), (3, 3));

        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Arc::new(near);
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.peek_ctx(&mut [0; 8], ctx));
        far.write_all(b"unix").unwrap();
        assert_eq!((near.peek_ctx(&mut [0; 8], &endless).unwrap(), near.peek(&mut [0; 8]).unwrap()), (4, 4));

        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let near = Arc::new(near);
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.peek_from_ctx(&mut [0; 8], ctx));
        near.connect(far.local_addr().unwrap()).unwrap();
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.peek_ctx(&mut [0; 8], ctx));
        far.send_to_ctx(b"datagram", near.local_addr().unwrap(), &endless).unwrap();
        assert_eq!(near.peek_ctx(&mut [0; 8], &endless).unwrap(), 8);
        assert_eq!(near.peek_from_ctx(&mut [0; 8], &endless).unwrap(), (8, far.local_addr().unwrap()));
        assert_eq!(near.recv(&mut [0; 8]).unwrap(), 8);
    });
}

/// Sends of datagrams wait while the queue is full, and end with their context.
#[test]
fn cx_26_sends_of_datagrams_end_with_their_context() {
    rt(1, || {
        /// Sends until there is no room; how often it could. On a busy machine one attempt may take too long though there is room.
        fn fill(send: impl Fn(&Context) -> io::Result<usize>) -> usize {
            let (mut sent, mut in_vain) = (0, 0);
            while in_vain < 3 {
                let (ctx, _cancel) = Context::background().with_timeout(20 * MS);
                match send(&ctx) {
                    Ok(_) => {
                        sent += 1;
                        in_vain = 0;
                    }
                    Err(error) => {
                        assert_eq!(ended::<()>(Err(error)), DeadlineExceeded);
                        in_vain += 1;
                    }
                }
            }
            sent
        }
        let (near, far) = UnixDatagram::pair().unwrap();
        fill(|ctx| near.send_ctx(b"x", ctx));
        ends_when_parked(move |ctx| near.send_ctx(b"x", ctx));
        drop(far);

        let path = std::env::temp_dir().join(format!("oxigo-send-ctx-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let far = UnixDatagram::bind(&path).unwrap();
        let near = Arc::new(UnixDatagram::unbound().unwrap());
        let sent = fill(|ctx| near.send_to_ctx(b"x", &path, ctx));
        let (other, to) = (Arc::clone(&near), path.clone());
        ends_when_parked(move |ctx| other.send_to_ctx(b"x", to, ctx));
        let address = far.local_addr().unwrap();
        ends_when_parked(move |ctx| near.send_to_addr_ctx(b"x", &address, ctx));
        // None of those that ended has sent anything.
        far.set_read_timeout(Some(MS)).unwrap();
        let received = std::iter::from_fn(|| far.recv(&mut [0]).ok()).count();
        assert_eq!(received, sent);
        std::fs::remove_file(&path).unwrap();

        // UDP has no queue that stays full.
        let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        let (ctx, cancel) = context();
        assert_eq!(near.send_ctx(b"one", &ctx).unwrap(), 3);
        assert_eq!(far.send_to_ctx(b"two", near.local_addr().unwrap(), &ctx).unwrap(), 3);
        cancel.cancel();
        assert_eq!(ended(near.send_ctx(b"x", &ctx)), Canceled);
        assert_eq!(ended(far.send_to_ctx(b"x", near.local_addr().unwrap(), &ctx)), Canceled);
    });
}

/// Data and a cancellation at once: the read either has the bytes, or they are still there.
/// Waits until something is ready end with their context, and leave it as it is.
#[test]
fn cx_26_waits_until_ready_end_with_their_context() {
    rt(1, || {
        let endless = Context::background();
        let (over, cancel) = context();
        cancel.cancel();

        let (near, mut far) = connected();
        let near = Arc::new(near);
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.readable_ctx(ctx));
        far.write_all(b"tcp").unwrap();
        near.readable_ctx(&endless).unwrap();
        near.writable_ctx(&endless).unwrap();
        assert_eq!(ended(near.readable_ctx(&over)), Canceled, "though there is something");
        assert_eq!(ended(near.writable_ctx(&over)), Canceled, "though there is room");
        assert_eq!(near.peek(&mut [0; 8]).unwrap(), 3);

        let (near, mut far) = UnixStream::pair().unwrap();
        let near = Arc::new(near);
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.readable_ctx(ctx));
        near.set_write_timeout(Some(20 * MS)).unwrap();
        let mut filled = 0;
        while let Ok(count) = (&*near).write(&[0; 10_000]) {
            filled += count;
        }
        assert_eq!(near.writable_ctx(&endless).unwrap_err().kind(), ErrorKind::TimedOut, "its own limit holds");
        near.set_write_timeout(None).unwrap();
        let other = Arc::clone(&near);
        ends_when_parked(move |ctx| other.writable_ctx(ctx));
        let (soon, _cancel) = Context::background().with_timeout(5 * MS);
        assert_eq!(ended(near.writable_ctx(&soon)), DeadlineExceeded);
        far.read_exact(&mut vec![0; filled]).unwrap();
        near.writable_ctx(&endless).unwrap();
    });
}

#[test]
fn cx_26_a_cancelled_read_takes_nothing() {
    at_1_2_4(|| {
        let (near, far) = connected();
        for round in 0..100u8 {
            let (ctx, cancel) = context();
            oxigo::scope(|s| {
                let reading = s.go(|| {
                    let mut byte = [0];
                    near.with_ctx(&ctx).read_exact(&mut byte).map(|()| byte[0])
                });
                oxigo::yield_now();
                s.go(|| (&far).write_all(&[round]).unwrap());
                cancel.cancel();
                let byte = match reading.join().unwrap() {
                    Ok(byte) => byte,
                    Err(error) => {
                        assert_eq!(ended::<()>(Err(error)), Canceled);
                        let mut byte = [0];
                        (&near).read_exact(&mut byte).unwrap();
                        byte[0]
                    }
                };
                assert_eq!(byte, round);
            });
        }
    });
}

#[test]
fn cx_26_nt_28_an_os_pipe_ends_with_a_context_and_goes_on() {
    rt(1, || {
        let (reader, writer) = oxigo::io::pipe().unwrap();
        let end = reader.try_clone().unwrap();
        ends_when_parked(move |ctx| end.with_ctx(ctx).read(&mut [0; 8]));
        let end = reader.try_clone().unwrap();
        ends_when_parked(move |ctx| end.with_ctx(ctx).read_vectored(&mut [IoSliceMut::new(&mut [0; 8])]));
        (&writer).write_all(b"ping").unwrap();
        let mut heard = [0; 4];
        (&reader).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ping");

        // Fills the pipe; whoever waits for the turn behind ends as well.
        let (ctx, cancel) = context();
        oxigo::scope(|s| {
            let first = s.go(|| writer.with_ctx(&ctx).write_all(&vec![7; 8 << 20]));
            quiesce();
            let second = s.go(|| writer.with_ctx(&ctx).write_vectored(&[IoSlice::new(b"behind")]));
            quiesce();
            assert!(!first.is_finished() && !second.is_finished());
            cancel.cancel();
            assert_eq!(ended(first.join().unwrap()), Canceled);
            assert_eq!(ended(second.join().unwrap()), Canceled);
        });
        drop(writer);
        let mut rest = Vec::new();
        (&reader).read_to_end(&mut rest).unwrap();
        assert!(!rest.is_empty() && rest.len() < 8 << 20 && rest.iter().all(|byte| *byte == 7));
    });
}

#[test]
fn cx_26_nt_28_an_os_pipe_keeps_contexts_and_its_own_limits() {
    at_1_2_4(|| {
        let (reader, writer) = oxigo::io::pipe().unwrap();
        let begin = Instant::now();
        let (soon, _cancel) = Context::background().with_timeout(2 * MS);
        assert_eq!(ended(reader.with_ctx(&soon).read(&mut [0])), DeadlineExceeded);
        assert!(begin.elapsed() >= 2 * MS);

        // A context that has ended comes before what is there, and before room.
        (&writer).write_all(b"kept").unwrap();
        let (ctx, cancel) = context();
        cancel.cancel();
        assert_eq!(ended(reader.with_ctx(&ctx).read(&mut [0])), Canceled);
        assert_eq!(ended(writer.with_ctx(&ctx).write(b"not")), Canceled);
        let (endless, _cancel) = Context::background().with_timeout(Duration::MAX);
        writer.with_ctx(&endless).write_all(b" whole").unwrap();
        let mut heard = [0; 10];
        reader.with_ctx(&endless).read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"kept whole");

        reader.set_read_timeout(Some(2 * MS)).unwrap();
        let error = reader.with_ctx(&endless).read(&mut [0]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("context")), (ErrorKind::TimedOut, false));
        drop(reader);
        assert_eq!(writer.with_ctx(&endless).write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

/// The pipes of a child are of that kind.
#[test]
fn cx_26_a_read_of_a_childs_output_ends_with_its_context() {
    rt(1, || {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let end = stdout.try_clone().unwrap();
        ends_when_parked(move |ctx| end.with_ctx(ctx).read(&mut [0]));
        stdin.with_ctx(&Context::background()).write_all(b"and back").unwrap();
        drop(stdin);
        let mut text = String::new();
        stdout.with_ctx(&Context::background()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "and back");
        assert!(child.wait().unwrap().success());
    });
}

type Receive<'a> = &'a (dyn Fn(&mut [u8], &Context) -> io::Result<usize> + Sync);

/// `recv_ctx` of both kinds of sockets for packets, with what sends to it.
fn receives(test: impl Fn(Receive<'_>, &(dyn Fn(&[u8]) + Sync))) {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    test(&|buf, ctx| near.recv_ctx(buf, ctx), &|packet| assert_eq!(far.send(packet).unwrap(), packet.len()));
    let (near, far) = UnixDatagram::pair().unwrap();
    test(&|buf, ctx| near.recv_ctx(buf, ctx), &|packet| assert_eq!(far.send(packet).unwrap(), packet.len()));
}

#[test]
fn cx_26_a_receive_from_a_peer_ends_with_its_context() {
    rt(1, || {
        receives(|receive, send| {
            let mut packet = [0; 8];
            let (ctx, cancel) = context();
            oxigo::scope(|s| {
                let parked = s.go(|| receive(&mut [0; 8], &ctx));
                quiesce();
                assert!(!parked.is_finished());
                cancel.cancel();
                assert_eq!(ended(parked.join().unwrap()), Canceled);
            });

            let begin = Instant::now();
            let (soon, _cancel) = Context::background().with_timeout(2 * MS);
            assert_eq!(ended(receive(&mut packet, &soon)), DeadlineExceeded);
            assert!(begin.elapsed() >= 2 * MS);

            // A context that has ended comes before a packet that is there, which stays.
            send(b"kept");
            assert_eq!(ended(receive(&mut packet, &ctx)), Canceled);
            assert_eq!(ended(receive(&mut packet, &soon)), DeadlineExceeded);
            let (endless, _cancel) = Context::background().with_timeout(Duration::MAX);
            assert_eq!(receive(&mut packet, &endless).unwrap(), 4);
            assert_eq!(&packet[..4], b"kept");
            oxigo::scope(|s| {
                let parked = s.go(|| receive(&mut packet, &endless));
                quiesce();
                send(b"waited for");
                assert_eq!(parked.join().unwrap().unwrap(), 8, "what does not fit is lost");
            });
            assert_eq!(&packet, b"waited f");
        });
    });
}

/// A packet and a cancellation at once: it is received, or still there.
#[test]
fn cx_26_a_cancelled_receive_from_a_peer_takes_nothing() {
    at_1_2_4(|| {
        receives(|receive, send| {
            for round in 0..100u8 {
                let (ctx, cancel) = context();
                let mut packet = [0; 2];
                // The later the end comes, the more often the packet has been received.
                let received = std::thread::scope(|s| {
                    s.spawn(|| {
                        send(&[round]);
                        (0..20 * u32::from(round)).for_each(|_| std::hint::spin_loop());
                        cancel.cancel();
                    });
                    receive(&mut packet, &ctx)
                });
                let length = received.or_else(|error| {
                    assert_eq!(ended::<()>(Err(error)), Canceled);
                    receive(&mut packet, &Context::background())
                });
                assert_eq!((length.unwrap(), packet[0]), (1, round));
            }
        });
    });
}

#[test]
fn cx_26_sockets_with_a_context_work_from_a_plain_thread() {
    let (near, _far) = connected();
    let (ctx, cancel) = context();
    let thread = std::thread::spawn(move || near.with_ctx(&ctx).read(&mut [0]));
    std::thread::yield_now();
    cancel.cancel();
    assert_eq!(ended(thread.join().unwrap()), Canceled);

    let (reader, _writer) = oxigo::io::pipe().unwrap();
    let (ctx, cancel) = context();
    let thread = std::thread::spawn(move || reader.with_ctx(&ctx).read(&mut [0]));
    std::thread::yield_now();
    cancel.cancel();
    assert_eq!(ended(thread.join().unwrap()), Canceled);

    receives(|receive, send| {
        let (ctx, cancel) = context();
        std::thread::scope(|s| {
            let thread = s.spawn(|| receive(&mut [0], &ctx));
            std::thread::yield_now();
            cancel.cancel();
            assert_eq!(ended(thread.join().unwrap()), Canceled);
            let thread = s.spawn(|| receive(&mut [0], &Context::background()));
            send(b"x");
            assert_eq!(thread.join().unwrap().unwrap(), 1);
        });
    });
}
