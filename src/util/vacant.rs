//! Descriptors that keep their number without their file.
//!
//! Who closes a socket or a pipe wants the system to take it back now, though handles of it live on. The number must not go back with it: a handle,
//! or whoever has borrowed the descriptor from one, would meet the file that somebody else opens next. So another file takes its place.
//!
//! - F1: *a number belongs to one owner, and is open, from its beginning to the owner's drop.* Only what is behind it changes, once, in one step of the
//!   kernel. Somebody may have borrowed it then. std says of a `BorrowedFd` that "the resource pointed to by `fd` must remain open", and that nobody
//!   closes or uses what they neither own nor have borrowed. That is so that no number comes to stand for somebody else's file, and here none does: an
//!   open file is behind it all the time, put there by its owner. Whether it has to be the same file, std leaves open. rustix safely does the same to
//!   the numbers of standard input and output, which whole programs have borrowed, though its `dup3` wants the owner's exclusive borrow. What a
//!   borrower gets is an error, as from a socket that its owner shuts down.
//! - F2: *the file that takes the place can do nothing*, so an operation that comes too late ends at once, in an error. On Linux it is one that was
//!   opened with `O_PATH`: what reads, writes, waits or is for sockets gives `EBADF`, and `poll` tells `POLLNVAL`. Elsewhere, and where there is no
//!   `/dev`, it is an end of a pipe that is written and has no reader: reading gives `EBADF`, writing `EPIPE`, calls for sockets `ENOTSOCK`, and
//!   `poll` tells an error. (An end that is read would pass for the end of a stream.)
//! - F3: *a call that is in the kernel keeps the file it began with*, and the kernel takes the file back when the last such call leaves. So nobody
//!   has to count them; calls on descriptors that do not block leave soon.
//!
//! The one such file that all numbers share is opened with the first runtime: a table of descriptors that is full later keeps none from being closed.

use std::{
    io,
    mem::ManuallyDrop,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::OnceLock,
};

static NOTHING: OnceLock<OwnedFd> = OnceLock::new();

/// Opens what [`vacate`] wants, if it is not there. An error comes again there.
pub(crate) fn prepare() {
    let _ = nothing();
}

fn nothing() -> io::Result<&'static OwnedFd> {
    if NOTHING.get().is_none() {
        // Of two that come at the same time one is closed again.
        let _ = NOTHING.set(open()?);
    }
    Ok(NOTHING.get().expect("set above, or by another before us"))
}

/// F2.
fn open() -> io::Result<OwnedFd> {
    #[cfg(all(target_os = "linux", not(oxigo_fallback)))]
    {
        use rustix::fs::{Mode, OFlags};
        if let Ok(file) = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            return Ok(file);
        }
    }
    let (_, writer) = io::pipe()?;
    Ok(writer.into())
}

/// Puts `file` behind `number`; it is not inherited.
#[cfg(not(any(target_vendor = "apple", oxigo_fallback)))]
fn put(file: &OwnedFd, number: &mut OwnedFd) -> io::Result<()> {
    use rustix::io::{DupFlags, dup3};
    Ok(dup3(file, number, DupFlags::CLOEXEC)?)
}

/// The same in two steps. A program that is started between them inherits what can do nothing.
#[cfg(any(target_vendor = "apple", oxigo_fallback))]
fn put(file: &OwnedFd, number: &mut OwnedFd) -> io::Result<()> {
    use rustix::io::{FdFlags, dup2, fcntl_setfd};
    dup2(file, number)?;
    Ok(fcntl_setfd(number, FdFlags::CLOEXEC)?)
}

/// Takes its file away from `fd`, whose number stays taken. It must not be registered with a poller.
pub(crate) fn vacate(fd: &OwnedFd) -> io::Result<()> {
    let nothing = nothing()?;
    // SAFETY: the number is open and of the caller, who lends it to us. This second owner of it is never dropped, so the first one closes it (F1).
    let number = unsafe { OwnedFd::from_raw_fd(fd.as_raw_fd()) };
    let mut number = ManuallyDrop::new(number);
    put(nothing, &mut number)
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Read, Write};

    use rustix::{
        event::{PollFd, PollFlags, poll},
        io::{Errno, FdFlags, fcntl_getfd, read, write},
    };

    use super::*;

    /// F1 to F3, as a stranger meets them.
    #[test]
    fn a_vacant_number_is_open_and_does_nothing() {
        let (mut reader, writer) = io::pipe().unwrap();
        (&writer).write_all(b"before").unwrap();
        let writer = OwnedFd::from(writer);
        vacate(&writer).unwrap();
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"before");

        assert_eq!(read(&writer, &mut [0_u8]).unwrap_err(), Errno::BADF);
        let refused = write(&writer, b"x").unwrap_err();
        assert!(matches!(refused, Errno::BADF | Errno::PIPE), "{refused}");
        assert!(socket2::SockRef::from(&writer).local_addr().is_err());
        let mut polled = [PollFd::new(&writer, PollFlags::IN)];
        assert_eq!(poll(&mut polled, None).unwrap(), 1);
        assert!(polled[0].revents().intersects(PollFlags::NVAL | PollFlags::ERR | PollFlags::HUP));
        assert_eq!(fcntl_getfd(&writer).unwrap(), FdFlags::CLOEXEC);
        // Once more does no harm, and neither does a duplicate.
        vacate(&writer).unwrap();
        let mut duplicate = PipeWriter::from(writer.try_clone().unwrap());
        assert!(duplicate.write(b"x").is_err());
    }

    #[test]
    fn a_number_is_not_given_to_others() {
        let (reader, _writer) = io::pipe().unwrap();
        let reader = OwnedFd::from(reader);
        vacate(&reader).unwrap();
        let others: Vec<_> = (0..64).map(|_| io::pipe().unwrap()).collect();
        let number = reader.as_raw_fd();
        assert!(others.iter().all(|(one, other)| one.as_raw_fd() != number && other.as_raw_fd() != number));
    }
}
