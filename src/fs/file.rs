//! Open files.

use std::{
    fs::{self as std_fs, Metadata, Permissions},
    io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    path::Path,
    process::Stdio,
};

use crate::runtime::blocking::blocking_io;

/// An open file: [`std::fs::File`] whose calls park the goroutine.
///
/// # Examples
///
/// ```
/// use std::io::{Read, Seek, Write};
/// use oxigo::fs::{self, File, OpenOptions};
///
/// let path = std::env::temp_dir().join(format!("oxigo-doc-file-{}", std::process::id()));
/// let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
/// file.write_all(b"on disk")?;
/// file.rewind()?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "on disk");
/// fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct File {
    inner: std_fs::File,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::open`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(path)
    }

    /// Creates a file, or empties one that exists, and opens it for writing.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::create`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a file that must not exist yet, and opens it for reading and writing.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::create_new`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// Options for opening a file in another way. None is set yet; the same as [`OpenOptions::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::fs::File;
    ///
    /// let manifest = File::options().read(true).open("Cargo.toml")?;
    /// assert!(manifest.metadata()?.is_file());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Size, kind and times of the file.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::metadata`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn metadata(&self) -> io::Result<Metadata> {
        blocking_io(|| self.inner.metadata())
    }

    /// Waits until content and metadata are on the disk.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::sync_all`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn sync_all(&self) -> io::Result<()> {
        blocking_io(|| self.inner.sync_all())
    }

    /// Waits until the content is on the disk.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::sync_data`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn sync_data(&self) -> io::Result<()> {
        blocking_io(|| self.inner.sync_data())
    }

    /// Truncates the file to `size` bytes, or extends it with zeros.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::set_len`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        blocking_io(|| self.inner.set_len(size))
    }

    /// Sets who may do what.
    ///
    /// # Errors
    ///
    /// As [`std::fs::File::set_permissions`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        blocking_io(|| self.inner.set_permissions(permissions))
    }

    /// Another handle of the same open file, which shares the position of reads and writes.
    ///
    /// # Errors
    ///
    /// When the table of descriptors is full.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { inner: self.inner.try_clone()? })
    }

    /// Reads at `offset`, without using or changing the file's position.
    ///
    /// # Errors
    ///
    /// As [`FileExt::read_at`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        blocking_io(|| self.inner.read_at(buf, offset))
    }

    /// Reads at `offset` until `buf` is full, without using or changing the file's position.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut name = [0; 9];
    /// oxigo::fs::File::open("Cargo.toml")?.read_exact_at(&mut name, 1)?;
    /// assert_eq!(&name, b"workspace");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`FileExt::read_exact_at`]: `UnexpectedEof` when the file ends before.
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        blocking_io(|| self.inner.read_exact_at(buf, offset))
    }

    /// Writes at `offset`, without using or changing the file's position.
    ///
    /// # Errors
    ///
    /// As [`FileExt::write_at`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        blocking_io(|| self.inner.write_at(buf, offset))
    }

    /// Writes all of `buf` at `offset`, without using or changing the file's position.
    ///
    /// # Errors
    ///
    /// As [`FileExt::write_all_at`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        blocking_io(|| self.inner.write_all_at(buf, offset))
    }
}

impl Read for &File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        blocking_io(|| (&self.inner).read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        blocking_io(|| (&self.inner).read_vectored(bufs))
    }

    // One hand-over for the whole, and room for it at once.
    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        blocking_io(|| (&self.inner).read_to_end(buf))
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        blocking_io(|| (&self.inner).read_to_string(buf))
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        blocking_io(|| (&self.inner).read_exact(buf))
    }
}

impl Write for &File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        blocking_io(|| (&self.inner).write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        blocking_io(|| (&self.inner).write_vectored(bufs))
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        blocking_io(|| (&self.inner).write_all(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for &File {
    /// In place: the kernel only moves a number, except from the end, where it asks for the size.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::End(_) => blocking_io(|| (&self.inner).seek(to)),
            SeekFrom::Start(_) | SeekFrom::Current(_) => (&self.inner).seek(to),
        }
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        (&*self).read_exact(buf)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        (&*self).write_all(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self).seek(to)
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for File {
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl From<std_fs::File> for File {
    fn from(inner: std_fs::File) -> Self {
        Self { inner }
    }
}

impl From<File> for std_fs::File {
    fn from(file: File) -> Self {
        file.inner
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.inner.into()
    }
}

impl From<File> for Stdio {
    /// For a process that is to read the file or to write to it.
    ///
    /// # Examples
    ///
    /// ```
    /// use oxigo::{fs::File, process::Command};
    ///
    /// let sorted = Command::new("sort").stdin(File::open("Cargo.toml")?).output()?;
    /// assert!(sorted.status.success());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    fn from(file: File) -> Self {
        file.inner.into()
    }
}

/// How a file is opened: [`std::fs::OpenOptions`] whose `open` parks the goroutine.
///
/// # Examples
///
/// ```
/// use oxigo::fs::{self, OpenOptions};
/// use std::io::Write;
///
/// let path = std::env::temp_dir().join(format!("oxigo-log-{}", std::process::id()));
/// for line in ["one\n", "two\n"] {
///     let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
///     log.write_all(line.as_bytes())?;
/// }
/// assert_eq!(fs::read_to_string(&path)?, "one\ntwo\n");
/// fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    inner: std_fs::OpenOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

macro_rules! switches {
    ($($name:ident $what:literal;)*) => {$(
        #[doc = concat!("Whether ", $what, ".")]
        ///
        /// # Blocking
        ///
        /// Never parks.
        pub fn $name(&mut self, $name: bool) -> &mut Self {
            self.inner.$name($name);
            self
        }
    )*};
}

impl OpenOptions {
    /// No option is set.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn new() -> Self {
        Self { inner: std_fs::OpenOptions::new() }
    }

    switches! {
        read "the file can be read";
        write "the file can be written";
        append "all writes go to the end";
        truncate "a file that exists is emptied";
        create "a file that does not exist is created";
        create_new "the file is created, and must not exist yet";
    }

    /// Opens the file.
    ///
    /// # Errors
    ///
    /// As [`std::fs::OpenOptions::open`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        Ok(File { inner: blocking_io(|| self.inner.open(path))? })
    }
}

impl From<std_fs::OpenOptions> for OpenOptions {
    /// For options of the system's own, such as [`std::os::unix::fs::OpenOptionsExt`].
    fn from(inner: std_fs::OpenOptions) -> Self {
        Self { inner }
    }
}
