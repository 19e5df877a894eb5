//! Pipes of the operating system: the interface of `std::io::pipe`, with deadlines and contexts.

use std::{io, sync::Arc};

use crate::net::{
    descriptor::Descriptor,
    methods::{close, descriptor_handle, read_limits, reads, try_clone, with_ctx, write_limits, writes},
    system,
};

/// A pipe of the operating system, like [`std::io::pipe`]: bytes that are written to the second end come out of the first.
///
/// The kernel keeps some bytes (64 KiB on Linux), so a write may end before anybody has read. To hand an end to another process, turn it
/// into `std`'s type with `try_into`, which makes it blocking again, and that into a [`Stdio`](std::process::Stdio).
///
/// # Examples
///
/// ```
/// use std::io::{Read, Write};
///
/// let (mut reader, mut writer) = oxigo::io::pipe()?;
/// oxigo::go(move || writer.write_all(b"through the kernel"));
/// let mut text = String::new();
/// reader.read_to_string(&mut text)?;
/// assert_eq!(text, "through the kernel");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// When the table of descriptors is full.
///
/// # Blocking
///
/// Never parks.
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = system::pipe()?;
    let (reader, writer) = (Descriptor::new(reader), Descriptor::new(writer));
    Ok((PipeReader { descriptor: Arc::new(reader) }, PipeWriter { descriptor: Arc::new(writer) }))
}

/// The end of a pipe that is read. Made by [`pipe`].
///
/// Reads give `Ok(0)` when the pipe is empty and all writers are gone.
///
/// # Examples
///
/// ```
/// use std::io::{BufRead, BufReader, Write};
///
/// let (reader, mut writer) = oxigo::io::pipe()?;
/// let lines = oxigo::go(move || BufReader::new(reader).lines().collect::<Result<Vec<_>, _>>());
/// writer.write_all(b"one\ntwo\n")?;
/// drop(writer);
/// assert_eq!(lines.join().unwrap()?, ["one", "two"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeReader {
    pub(crate) descriptor: Arc<Descriptor>,
}

try_clone!(PipeReader);
close!(
    PipeReader,
    "Writers at the other end get `BrokenPipe` from now on; what they have written and nobody has read is lost."
);
read_limits!(PipeReader);
reads!(PipeReader, read_bytes);
with_ctx!(PipeReader);
descriptor_handle!(PipeReader, std::io::PipeReader);

/// The end of a pipe that is written. Made by [`pipe`].
///
/// Writes give `BrokenPipe` when all readers are gone.
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Write};
///
/// let (reader, mut writer) = oxigo::io::pipe()?;
/// writer.write_all(b"kept by the kernel until it is read")?;
/// drop(reader);
/// assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PipeWriter {
    pub(crate) descriptor: Arc<Descriptor>,
}

try_clone!(PipeWriter);
close!(
    PipeWriter,
    "Readers at the other end see the end behind what has been written. A write that is under way tells how far it came."
);
write_limits!(PipeWriter);
writes!(PipeWriter, write_bytes, write_slices);
with_ctx!(PipeWriter);
descriptor_handle!(PipeWriter, std::io::PipeWriter);
