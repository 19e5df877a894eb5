//! Files: the interface of `std::fs`, with every call that may wait for a disk made on a thread of the blocking pool.
//!
//! A call costs a hand-over to that pool and back, some microseconds: read and write in large pieces, or through
//! [`BufReader`](std::io::BufReader) and [`BufWriter`](std::io::BufWriter). On a plain thread the calls are made in place.
//!
//! ```
//! use oxigo::fs;
//!
//! let path = std::env::temp_dir().join(format!("oxigo-doc-fs-{}", std::process::id()));
//! fs::write(&path, "one\ntwo\n")?;
//! assert_eq!(fs::read_to_string(&path)?.lines().count(), 2);
//! fs::remove_file(&path)?;
//! # Ok::<(), std::io::Error>(())
//! ```
#![forbid(unsafe_code)]

mod dir;
mod file;

use std::{fs as std_fs, io, os::unix::fs as unix, path::Path, path::PathBuf};

pub use std::fs::{FileType, Metadata, Permissions};

pub use self::{
    dir::{DirEntry, ReadDir, Walk, read_dir, walk},
    file::{File, OpenOptions},
};
use crate::runtime::blocking::blocking_io;

/// Functions that are `std`'s, on a thread of the pool.
macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ident),*) -> $result:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        ///
        #[doc = concat!("As [`std::fs::", stringify!($name), "`].")]
        ///
        /// # Blocking
        ///
        /// Parks the goroutine, or blocks the thread.
        pub fn $name($($argument: functions!(@type $kind)),*) -> io::Result<$result> {
            $(functions!(@borrow $kind $argument);)*
            blocking_io(|| std_fs::$name($($argument),*))
        }
    )*};
    (@type path) => { impl AsRef<Path> };
    (@type bytes) => { impl AsRef<[u8]> };
    (@type permissions) => { Permissions };
    (@borrow path $argument:ident) => { let $argument = $argument.as_ref(); };
    (@borrow bytes $argument:ident) => { let $argument = $argument.as_ref(); };
    (@borrow permissions $argument:ident) => {};
}

functions! {
    /// Reads a whole file.
    read(path: path) -> Vec<u8>;
    /// Reads a whole file of text.
    ///
    /// # Examples
    ///
    /// ```
    /// let text = oxigo::run(|| oxigo::fs::read_to_string("Cargo.toml"))?;
    /// assert!(text.contains("oxigo"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    read_to_string(path: path) -> String;
    /// Writes a whole file, and replaces what was in it.
    write(path: path, contents: bytes) -> ();
    /// Copies a file with its permissions, and returns how many bytes it had.
    copy(from: path, to: path) -> u64;
    /// Renames a file or a directory, and replaces a file of the new name.
    rename(from: path, to: path) -> ();
    /// Gives a file a second name.
    hard_link(original: path, link: path) -> ();
    /// Removes a file.
    remove_file(path: path) -> ();
    /// Makes a directory.
    create_dir(path: path) -> ();
    /// Creates a directory and those above it that are missing.
    create_dir_all(path: path) -> ();
    /// Removes an empty directory.
    remove_dir(path: path) -> ();
    /// Removes a directory and all that is in it.
    remove_dir_all(path: path) -> ();
    /// Size, kind and times of what a path leads to.
    metadata(path: path) -> Metadata;
    /// Like [`metadata`], but of a symbolic link itself, which is not followed.
    symlink_metadata(path: path) -> Metadata;
    /// The absolute path, without links and dots.
    canonicalize(path: path) -> PathBuf;
    /// Where a symbolic link leads.
    read_link(path: path) -> PathBuf;
    /// Sets who may do what.
    set_permissions(path: path, permissions: permissions) -> ();
    /// Whether there is something at the path.
    exists(path: path) -> bool;
}

/// Creates a symbolic link to `original`, whether or not there is such a file.
///
/// # Examples
///
/// ```
/// use oxigo::fs;
///
/// let link = std::env::temp_dir().join(format!("oxigo-doc-link-{}", std::process::id()));
/// fs::symlink("where/it/leads", &link)?;
/// assert_eq!(fs::read_link(&link)?.to_str(), Some("where/it/leads"));
/// fs::remove_file(&link)?; // the link itself
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// As [`std::os::unix::fs::symlink`].
///
/// # Blocking
///
/// Parks the goroutine, or blocks the thread.
pub fn symlink(original: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    let (original, link) = (original.as_ref(), link.as_ref());
    blocking_io(|| unix::symlink(original, link))
}
