//! Copying between what has descriptors, in the kernel where it can.
//!
//! - Stream to stream: `splice` into a pipe of our own and out again, so the bytes never come to user space.
//! - File to stream: `sendfile`, on a thread of the blocking pool, since it may wait for the disk.
//! - Everything else, other systems, and what the kernel or a filter of system calls refuses: through a buffer.

use std::{
    io::{self, Read, Write},
    ops::ControlFlow,
};

use super::{PipeReader, PipeWriter};
use crate::{
    fs::File,
    net::{TcpStream, descriptor::Descriptor, unix::UnixStream},
};

/// How much a copy through a buffer moves at a time.
const BUFFER: usize = 64 * 1024;

/// What [`copy`] reads from: [`TcpStream`], [`UnixStream`], [`PipeReader`], [`File`], and references to them.
pub trait Source: sealed::Source {}
/// What [`copy`] writes to: [`TcpStream`], [`UnixStream`], [`PipeWriter`], [`File`], and references to them.
pub trait Sink: sealed::Sink {}

impl<T: sealed::Source + ?Sized> Source for T {}
impl<T: sealed::Sink + ?Sized> Sink for T {}

mod sealed {
    use super::End;

    pub trait Source {
        fn source(&self) -> End<'_>;
    }

    pub trait Sink {
        fn sink(&self) -> End<'_>;
    }

    impl<T: Source + ?Sized> Source for &T {
        fn source(&self) -> End<'_> {
            (**self).source()
        }
    }

    impl<T: Sink + ?Sized> Sink for &T {
        fn sink(&self) -> End<'_> {
            (**self).sink()
        }
    }
}

/// One end of a copy.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "nobody outside can name it")]
pub enum End<'a> {
    Stream(Stream<'a>),
    File(&'a File),
}

/// A descriptor that waits, and whether it is a socket.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "nobody outside can name it")]
pub struct Stream<'a> {
    descriptor: &'a Descriptor,
    is_socket: bool,
}

macro_rules! ends {
    ($($trait:ident $method:ident $type:ty, $is_socket:literal;)*) => {$(
        impl sealed::$trait for $type {
            fn $method(&self) -> End<'_> {
                End::Stream(Stream { descriptor: &self.descriptor, is_socket: $is_socket })
            }
        }
    )*};
}

ends! {
    Source source TcpStream, true;
    Source source UnixStream, true;
    Source source PipeReader, false;
    Sink sink TcpStream, true;
    Sink sink UnixStream, true;
    Sink sink PipeWriter, false;
}

impl sealed::Source for File {
    fn source(&self) -> End<'_> {
        End::File(self)
    }
}

impl sealed::Sink for File {
    fn sink(&self) -> End<'_> {
        End::File(self)
    }
}

impl End<'_> {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match *self {
            End::Stream(stream) => stream.descriptor.read_bytes(None, buf),
            End::File(mut file) => file.read(buf),
        }
    }

    fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        match *self {
            End::Stream(stream) if stream.is_socket => stream.descriptor.send_bytes(None, buf).1,
            End::Stream(stream) => stream.descriptor.write_bytes(None, buf).1,
            End::File(mut file) => file.write_all(buf),
        }
    }
}

/// Copies everything from the reader to the writer until the reader's end, and returns how many bytes that was.
///
/// It reads from [`TcpStream`], [`UnixStream`], [`PipeReader`] and [`File`], and writes to [`TcpStream`], [`UnixStream`], [`PipeWriter`] and
/// [`File`]; on Linux the kernel moves the bytes itself where it can. The time limits of both ends apply. After an error it is not known how much of
/// what was read has been written.
///
/// For all other readers and writers, such as TLS streams and [`net::pipe`](crate::net::pipe()), there is [`std::io::copy`], which works on
/// goroutines as well. With it a context may end the copy, by way of [`with_ctx`](TcpStream::with_ctx):
/// `std::io::copy(&mut from.with_ctx(&ctx), &mut to.with_ctx(&ctx))`.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
/// use oxigo::{io, net::unix::UnixStream};
///
/// let (near, mut far) = UnixStream::pair()?;
/// let (mut reader, writer) = io::pipe()?;
/// far.write_all(b"passed on")?;
/// drop(far);
/// assert_eq!(io::copy(&near, &writer)?, 9);
/// drop(writer);
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "passed on");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// Those of reading and of writing. `OutOfMemory` when no thread can be started to read a file.
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn copy<R, W>(from: &R, to: &W) -> io::Result<u64>
where
    R: Source + ?Sized,
    W: Sink + ?Sized,
{
    let (from, to) = (from.source(), to.sink());
    #[cfg(target_os = "linux")]
    let copied = match (from, to) {
        (End::Stream(from), End::Stream(to)) => kernel::splice_all(from.descriptor, to)?,
        (End::File(from), End::Stream(to)) => kernel::send_file(from, to.descriptor)?,
        (_, End::File(_)) => ControlFlow::Continue(0),
    };
    #[cfg(not(target_os = "linux"))]
    let copied = ControlFlow::Continue(0);
    let mut total = match copied {
        ControlFlow::Break(all) => return Ok(all),
        ControlFlow::Continue(some) => some,
    };
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(total),
            n => {
                to.write_all(&buffer[..n])?;
                total += n as u64;
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use std::{
        fs::File as StdFile,
        io::Read,
        ops::ControlFlow::{self, Break, Continue},
        os::fd::{AsFd, BorrowedFd},
    };

    use rustix::{
        fs::sendfile,
        io::Errno,
        pipe::{SpliceFlags, splice},
    };

    use super::{Descriptor, End, File, Stream, io};
    use crate::{net::system, runtime::blocking::blocking_io};

    /// How much one step moves at most.
    const STEP: usize = 1 << 20;

    /// How many bytes that was; goes on when the kernel cannot do it for these, and the rest is yet to be copied.
    pub(super) fn splice_all(from: &Descriptor, to: Stream<'_>) -> io::Result<ControlFlow<u64, u64>> {
        // The table of descriptors may be full. A buffer takes no place there.
        let Ok((out, into)) = system::pipe() else { return Ok(Continue(0)) };
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let mut total = 0;
        loop {
            // The pipe is empty, so `WouldBlock` is about the source.
            let read = from.read_with(None, false, |fd| Ok(splice(fd, None, &into, None, STEP, flags)?));
            let count = match read {
                Ok(0) => return Ok(Break(total)),
                Ok(count) => count,
                Err(error) if total == 0 && is_refusal(&error) => return Ok(Continue(0)),
                Err(error) => return Err(error),
            };
            let splice_out = |fd: BorrowedFd<'_>, written| Ok(splice(&out, None, fd, None, count - written, flags)?);
            let (written, end) = to.descriptor.write_with(None, count, splice_out);
            total += count as u64;
            match end {
                Ok(()) => {}
                Err(error) if is_refusal(&error) => {
                    // A file that is open for appending, say. What has been read lies in our pipe alone.
                    let mut rest = vec![0; count - written];
                    StdFile::from(out).read_exact(&mut rest)?;
                    End::Stream(to).write_all(&rest)?;
                    return Ok(Continue(total));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`splice_all`].
    pub(super) fn send_file(from: &File, to: &Descriptor) -> io::Result<ControlFlow<u64, u64>> {
        let mut total = 0;
        loop {
            let mut at_end = false;
            let (sent, end) = to.write_with(None, STEP, |fd, written| {
                let sent = blocking_io(|| Ok(sendfile(fd, from.as_fd(), None, STEP - written)?))?;
                at_end = sent == 0;
                Ok(sent)
            });
            total += sent as u64;
            match end {
                Ok(()) => {}
                Err(_) if at_end => return Ok(Break(total)),
                Err(error) if total == 0 && is_refusal(&error) => return Ok(Continue(0)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the kernel cannot do it for these, or a filter of system calls lets nobody ask. An error that was meant comes again.
    fn is_refusal(error: &io::Error) -> bool {
        use Errno as E;
        matches!(Errno::from_io_error(error), Some(E::INVAL | E::NOSYS | E::OPNOTSUPP | E::PERM | E::ACCESS))
    }
}
