//! Errors that name a limit which the system has refused something for.

use std::{error::Error, fmt, io};

/// An error of kind `OutOfMemory`, as that of the other limits of this crate, with the system's as its source.
pub(crate) fn limit_reached(limit: &'static str, error: impl Into<io::Error>) -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, LimitReached { limit, error: error.into() })
}

/// Inside an `io::Error`, which has room for a text or for the system's code: the code is that of the source.
#[derive(Debug)]
struct LimitReached {
    limit: &'static str,
    error: io::Error,
}

impl fmt::Display for LimitReached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is reached: {}", self.limit, self.error)
    }
}

impl Error for LimitReached {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}
