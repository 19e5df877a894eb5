//! Directories: their entries, fetched many at a time, and walking trees.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self as std_fs, FileType, Metadata},
    io,
    path::{Path, PathBuf},
};

use crate::runtime::blocking::blocking_io;

/// How many entries one hand-over to the pool fetches.
const BATCH: usize = 256;

/// The entries of a directory, in no particular order.
///
/// # Examples
///
/// ```
/// let mut names = Vec::new();
/// for entry in oxigo::fs::read_dir("src")? {
///     names.push(entry?.file_name());
/// }
/// assert!(names.iter().any(|name| name == "lib.rs"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As [`std::fs::read_dir`].
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread; so does the iterator.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path = path.as_ref();
    blocking_io(|| {
        let mut entries = ReadDir { rest: Some(std_fs::read_dir(path)?), fetched: VecDeque::new() };
        entries.fetch();
        Ok(entries)
    })
}

/// The entries of a directory. Made by [`read_dir`].
#[derive(Debug)]
pub struct ReadDir {
    /// None after the last entry.
    rest: Option<std_fs::ReadDir>,
    fetched: VecDeque<io::Result<DirEntry>>,
}

impl ReadDir {
    /// May block the thread.
    fn fetch(&mut self) {
        let Some(rest) = &mut self.rest else { return };
        for entry in rest.by_ref().take(BATCH) {
            self.fetched.push_back(entry.and_then(DirEntry::new));
        }
        if self.fetched.len() < BATCH {
            self.rest = None;
        }
    }
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.fetched.is_empty() && self.rest.is_some() {
            let fetched = blocking_io(|| {
                self.fetch();
                Ok(())
            });
            if let Err(error) = fetched {
                self.rest = None;
                return Some(Err(error));
            }
        }
        self.fetched.pop_front()
    }
}

/// One entry of a directory.
#[derive(Debug)]
pub struct DirEntry {
    inner: std_fs::DirEntry,
    kind: FileType,
}

impl DirEntry {
    /// May block the thread.
    fn new(inner: std_fs::DirEntry) -> io::Result<Self> {
        let kind = inner.file_type()?;
        Ok(Self { inner, kind })
    }

    /// The directory's path and the entry's name.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn path(&self) -> PathBuf {
        self.inner.path()
    }

    /// The name alone.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn file_name(&self) -> OsString {
        self.inner.file_name()
    }

    /// Whether it is a file, a directory or a link. Links are not followed.
    ///
    /// # Errors
    ///
    /// None now; for the interface of `std`.
    ///
    /// # Blocking
    ///
    /// Never parks: it was fetched with the entry.
    pub fn file_type(&self) -> io::Result<FileType> {
        Ok(self.kind)
    }

    /// Size, kind and times. Links are not followed.
    ///
    /// # Errors
    ///
    /// As [`std::fs::DirEntry::metadata`].
    ///
    /// # Blocking
    ///
    /// Parks the goroutine, or blocks the thread.
    pub fn metadata(&self) -> io::Result<Metadata> {
        blocking_io(|| self.inner.metadata())
    }
}

/// All entries below a directory: each directory before its contents, otherwise in no particular order. Links are not followed.
///
/// For a directory that cannot be read the iterator yields an error, and then goes on with the next entry.
///
/// # Examples
///
/// ```
/// let sources = oxigo::fs::walk("src").filter_map(Result::ok).filter(|entry| entry.path().extension().is_some_and(|e| e == "rs"));
/// assert!(sources.count() > 10);
/// ```
///
/// # Blocking
///
/// Never parks; the iterator does.
pub fn walk(root: impl AsRef<Path>) -> Walk {
    Walk { open: Vec::new(), next: Some(root.as_ref().to_owned()) }
}

/// An iterator over a tree. Made by [`walk`].
#[derive(Debug)]
pub struct Walk {
    /// The directories from the root down to where we are.
    open: Vec<ReadDir>,
    /// A directory to be opened first.
    next: Option<PathBuf>,
}

impl Iterator for Walk {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(path) = self.next.take() {
            match read_dir(path) {
                Ok(entries) => self.open.push(entries),
                Err(error) => return Some(Err(error)),
            }
        }
        while let Some(entries) = self.open.last_mut() {
            match entries.next() {
                None => drop(self.open.pop()),
                Some(Ok(entry)) => {
                    if entry.kind.is_dir() {
                        self.next = Some(entry.path());
                    }
                    return Some(Ok(entry));
                }
                error => return error,
            }
        }
        None
    }
}
