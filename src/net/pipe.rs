//! Streams in memory: what one end writes the other reads, without a descriptor and without a buffer between them.
//!
//! Each direction is a [`Half`]. Its writer, who has the turn, *offers* a piece and waits until all of it was taken; readers take from the
//! piece that is offered.
//!
//! - I1: `piece` is not empty only while the writer that offered it waits for its end, so no byte outlives the call that wrote it. The
//!   writer takes the rest back when its time is up.
//! - I2: only the holder of the turn offers, and waits on `given`.
//! - I3: every change is made under the lock and then signalled on the side of those whom it may concern; they wait as for a
//!   descriptor (see `runtime::driver::readiness`), so no signal is lost.

use std::{
    error::Error,
    fmt,
    io::{self, Read, Write},
    net::Shutdown,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    descriptor::{Limit, Limits},
    methods::WithCtx,
    transfer::{Written, how_much, write_formatted},
};
use crate::{
    context::Context,
    runtime::{driver::readiness::Side, park, until::Until, wait::Reason},
    sync::turn::Turn,
    util::Lock,
};

/// What is offered at once: bounds the time for which the lock is held.
const MOST_OFFERED: usize = 16 * 1024;

/// Two streams that are connected to each other, in memory. Go's `net.Pipe`.
///
/// Nothing is buffered: a write ends when all its bytes have been read, or by an error or its time limit. So a test sees each step of a protocol when
/// it happens. Otherwise the streams behave like TCP connections, time limits included.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut near, mut far) = oxigo::net::pipe();
/// oxigo::go(move || near.write_all(b"through memory"));
/// let mut text = String::new();
/// far.read_to_string(&mut text)?;
/// assert_eq!(text, "through memory");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Blocking
///
/// Never parks.
pub fn pipe() -> (PipeStream, PipeStream) {
    let (one, other) = (Arc::new(Half::new()), Arc::new(Half::new()));
    let near = Ends { incoming: Arc::clone(&one), outgoing: Arc::clone(&other) };
    let far = Ends { incoming: other, outgoing: one };
    (PipeStream { ends: Arc::new(near) }, PipeStream { ends: Arc::new(far) })
}

/// Why one side of a half will do nothing any more.
#[derive(Clone, Debug)]
enum Gone {
    Closed,
    Failed(Arc<dyn Error + Send + Sync>),
}

#[derive(Debug)]
struct State {
    piece: Vec<u8>,
    taken: usize,
    reader: Option<Gone>,
    writer: Option<Gone>,
}

/// One direction.
#[derive(Debug)]
struct Half {
    state: Lock<State>,
    /// Readers wait here for a piece or the end.
    offered: Side,
    /// The writer waits here for the end of its piece.
    given: Side,
    read: Limits,
    write: Limits,
    writers: Turn,
}

/// Does `operation` as soon as it can be done; waits on `side` until then.
fn perform<R>(
    side: &Side,
    limit: Limit<'_>,
    reason: Reason,
    mut operation: impl FnMut() -> Option<io::Result<R>>,
) -> io::Result<R> {
    loop {
        // Before the limits are read: a change of theirs is signalled as well (I3).
        let tick = side.tick();
        let deadline = limit.check()?;
        if let Some(result) = operation() {
            park::spend();
            return result;
        }
        side.clear(tick);
        // When the time is up the check above says so.
        let _ = side.wait(tick, Until::new(deadline, limit.interrupt()), reason);
    }
}

impl Half {
    fn new() -> Self {
        Self {
            state: Lock::new(State { piece: Vec::new(), taken: 0, reader: None, writer: None }),
            offered: Side::new(),
            given: Side::new(),
            read: Limits::new(),
            write: Limits::new(),
            writers: Turn::new(),
        }
    }

    fn read(&self, ctx: Option<&Context>, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            park::spend();
            return Ok(0);
        }
        let (count, all) = perform(&self.offered, self.read.begin(ctx), Reason::PipeRead, || {
            let mut state = self.state.lock();
            if state.reader.is_some() {
                return Some(Ok((0, false)));
            }
            let rest = &state.piece[state.taken..];
            if !rest.is_empty() {
                let count = rest.len().min(buf.len());
                buf[..count].copy_from_slice(&rest[..count]);
                state.taken += count;
                return Some(Ok((count, state.taken == state.piece.len())));
            }
            match &state.writer {
                None => None,
                Some(Gone::Closed) => Some(Ok((0, false))),
                Some(Gone::Failed(error)) => Some(Err(PeerError::of(error))),
            }
        })?;
        if all {
            self.given.signal();
        }
        Ok(count)
    }

    fn write(&self, ctx: Option<&Context>, buf: &[u8]) -> Written {
        if buf.is_empty() {
            park::spend();
        }
        let limit = self.write.begin(ctx);
        let _turn = match self.writers.take(Reason::PipeWrite, limit.interrupt(), || limit.check()) {
            Ok(turn) => turn,
            Err(error) => return (0, Err(error)),
        };
        let mut written = 0;
        for piece in buf.chunks(MOST_OFFERED) {
            if let Err(error) = self.offer(piece, limit) {
                return (written, Err(error));
            }
            let (taken, end) = self.taken(limit);
            written += taken;
            if end.is_err() {
                return (written, end);
            }
        }
        (written, Ok(()))
    }

    /// Shows a piece to readers.
    fn offer(&self, piece: &[u8], limit: Limit<'_>) -> io::Result<()> {
        limit.check()?;
        let mut state = self.state.lock();
        debug_assert!(state.piece.is_empty(), "I1");
        if let Err(error) = state.error_for_writer() {
            drop(state);
            park::spend();
            return Err(error);
        }
        state.piece.extend_from_slice(piece);
        state.taken = 0;
        drop(state);
        self.offered.signal();
        Ok(())
    }

    /// Waits until all of the piece that is offered was read, and takes back what was not.
    fn taken(&self, limit: Limit<'_>) -> Written {
        let result = perform(&self.given, limit, Reason::PipeWrite, || {
            let state = self.state.lock();
            if state.taken == state.piece.len() {
                return Some(Ok(()));
            }
            state.error_for_writer().err().map(Err)
        });
        let mut state = self.state.lock();
        let taken = state.taken;
        state.piece.clear();
        state.taken = 0;
        (taken, result)
    }

    /// The reading side will read no more.
    fn end_reading(&self, why: Gone) {
        self.state.lock().reader.get_or_insert(why);
        self.offered.signal();
        self.given.signal();
    }

    /// The writing side will write no more.
    fn end_writing(&self, why: Gone) {
        self.state.lock().writer.get_or_insert(why);
        self.offered.signal();
        self.given.signal();
    }
}

impl State {
    fn error_for_writer(&self) -> io::Result<()> {
        match (&self.writer, &self.reader) {
            (None, None) => Ok(()),
            (None, Some(Gone::Failed(error))) => Err(PeerError::of(error)),
            _ => Err(io::Error::new(io::ErrorKind::BrokenPipe, "write on closed pipe")),
        }
    }
}

/// What the peer gave to [`PipeStream::close_with`]: inside an `io::Error`, each time anew.
#[derive(Debug)]
struct PeerError(Arc<dyn Error + Send + Sync>);

impl PeerError {
    fn of(error: &Arc<dyn Error + Send + Sync>) -> io::Error {
        io::Error::other(Self(Arc::clone(error)))
    }
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for PeerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

/// What all handles of one stream share. The last one that is dropped closes it.
#[derive(Debug)]
struct Ends {
    incoming: Arc<Half>,
    outgoing: Arc<Half>,
}

impl Ends {
    fn close(&self, how: Shutdown, why: &Gone) {
        if how != Shutdown::Write {
            self.incoming.end_reading(why.clone());
        }
        if how != Shutdown::Read {
            self.outgoing.end_writing(why.clone());
        }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.close(Shutdown::Both, &Gone::Closed);
    }
}

/// A stream in memory. Made by [`pipe`].
///
/// Clones made by [`try_clone`](Self::try_clone) are handles of one stream and share its time limits. When the last is dropped, the other
/// end reads to the end, and its writes give `BrokenPipe`.
///
/// # Examples
///
/// ```
/// use oxigo::{go, net::pipe};
/// use std::io::{Read, Write};
///
/// // A peer for what speaks a protocol, without a network.
/// let (mut near, mut far) = pipe();
/// let server = go(move || {
///     let mut request = [0; 4];
///     far.read_exact(&mut request)?;
///     far.write_all(b"pong")
/// });
/// near.write_all(b"ping")?;
/// let mut reply = String::new();
/// near.read_to_string(&mut reply)?;
/// assert_eq!(reply, "pong");
/// server.join().unwrap()?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct PipeStream {
    ends: Arc<Ends>,
}

impl PipeStream {
    /// Another handle of the same stream.
    ///
    /// # Errors
    ///
    /// None; for the interface of `std`'s streams.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { ends: Arc::clone(&self.ends) })
    }

    /// Shuts down reading, writing or both, for all handles. Wakes whoever waits, here and there.
    ///
    /// After `Read`, reads give `Ok(0)` and the peer's writes `BrokenPipe`; after `Write`, writes give `BrokenPipe` and the peer reads to
    /// the end.
    ///
    /// # Errors
    ///
    /// None; for the interface of `std`'s streams.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.ends.close(how, &Gone::Closed);
        Ok(())
    }

    /// Shuts down both directions, and has the peer's reads and writes fail with `error` instead of ending plainly. What was shut down
    /// before stays as it is.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    ///
    /// let (near, mut far) = oxigo::net::pipe();
    /// near.close_with("the disk is on fire");
    /// assert_eq!(far.read(&mut [0]).unwrap_err().to_string(), "the disk is on fire");
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn close_with(&self, error: impl Into<Box<dyn Error + Send + Sync>>) {
        self.ends.close(Shutdown::Both, &Gone::Failed(error.into().into()));
    }

    /// How long one read may take. `None`: for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.ends.incoming.read.set_timeout(timeout)
    }

    /// How long one write may take. `None`: for ever.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for zero.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.ends.outgoing.write.set_timeout(timeout)
    }

    /// What [`set_read_timeout`](Self::set_read_timeout) has set.
    ///
    /// # Errors
    ///
    /// None; for the interface of `std`'s streams.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.ends.incoming.read.timeout())
    }

    /// What [`set_write_timeout`](Self::set_write_timeout) has set.
    ///
    /// # Errors
    ///
    /// None; for the interface of `std`'s streams.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
        Ok(self.ends.outgoing.write.timeout())
    }

    /// Until when reads may last, those that wait already too. `None`: for ever.
    ///
    /// # Errors
    ///
    /// None now; for an interface like that of the time-outs.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_read_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.ends.incoming.read.set_deadline(deadline);
        self.ends.incoming.offered.signal();
        Ok(())
    }

    /// Until when writes may last, those that wait already too. `None`: for ever.
    ///
    /// # Errors
    ///
    /// None now; for an interface like that of the time-outs.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_write_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        let outgoing = &self.ends.outgoing;
        outgoing.write.set_deadline(deadline);
        outgoing.given.signal();
        outgoing.writers.look_again();
        Ok(())
    }

    /// Until when reads and writes may last, those that wait already too. `None`: for ever.
    ///
    /// # Errors
    ///
    /// None now; for an interface like that of the time-outs.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn set_deadline(&self, deadline: Option<Instant>) -> io::Result<()> {
        self.set_read_deadline(deadline)?;
        self.set_write_deadline(deadline)
    }
}

impl PipeStream {
    /// This stream for reads and writes that end with `ctx`. See [`TcpStream::with_ctx`](crate::net::TcpStream::with_ctx).
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn with_ctx<'a>(&'a self, ctx: &'a Context) -> WithCtx<'a, Self> {
        WithCtx { stream: self, ctx }
    }
}

impl Read for WithCtx<'_, PipeStream> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.ends.incoming.read(Some(self.ctx), buf)
    }
}

impl Write for WithCtx<'_, PipeStream> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        how_much(self.stream.ends.outgoing.write(Some(self.ctx), buf))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.stream.ends.outgoing.write(Some(self.ctx), buf).1
    }

    /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        write_formatted(self, args)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for &PipeStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.ends.incoming.read(None, buf)
    }
}

impl Write for &PipeStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        how_much(self.ends.outgoing.write(None, buf))
    }

    /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` can be read any more.
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        self.ends.outgoing.write(None, buf).1
    }

    /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        write_formatted(self, args)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for PipeStream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl Write for PipeStream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` can be read any more.
    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        (&*self).write_all(buf)
    }

    /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
    fn write_fmt(&mut self, args: fmt::Arguments<'_>) -> io::Result<()> {
        write_formatted(self, args)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for PipeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("PipeStream { .. }")
    }
}
