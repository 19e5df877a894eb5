//! The errors of channels. Every panic of Go's channels is one of these, and their `Debug` shows the same text as their `Display`, so
//! that `unwrap` panics with Go's words and needs no `T: Debug`.

use std::{error::Error, fmt};

macro_rules! value_error {
    ($(#[$doc:meta])* $name:ident $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name<T>(pub T);

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl<T> fmt::Display for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl<T> Error for $name<T> {}

        impl<T> $name<T> {
            /// The value that was not sent.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn into_inner(self) -> T {
                self.0
            }
        }
    };
}

macro_rules! plain_error {
    ($(#[$doc:meta])* $name:ident $text:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub struct $name;

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($text)
            }
        }

        impl Error for $name {}
    };
}

const SEND_CLOSED: &str = "send on closed channel";
const RECV_CLOSED: &str = "receive on closed and empty channel";

value_error! {
    /// The channel is closed, or no receiver is left; the value comes back.
    SendError "send on closed channel"
}

plain_error! {
    /// The channel is closed and everything that was sent has been received.
    RecvError "receive on closed and empty channel"
}

plain_error! {
    /// The channel was closed before.
    CloseError "close of closed channel"
}

plain_error! {
    /// No operation was ready.
    TrySelectError "all operations in select would block"
}

plain_error! {
    /// No operation became ready in time.
    SelectTimeoutError "timed out waiting on select"
}

plain_error! {
    /// No operation was ready.
    TryReadyError "all operations in select would block"
}

plain_error! {
    /// No operation became ready in time.
    ReadyTimeoutError "timed out waiting on select"
}

/// Why a value could not be sent at once; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<T> {
    /// There is no room, or nobody waits to receive.
    Full(T),
    /// The channel is closed, or no receiver is left.
    Disconnected(T),
}

/// Why a value could not be sent in time; it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room, or nobody to receive, until the time had passed.
    Timeout(T),
    /// The channel is closed, or no receiver is left.
    Disconnected(T),
}

/// Why nothing could be received at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryRecvError {
    /// Nothing is there now.
    Empty,
    /// The channel is closed and empty.
    Disconnected,
}

/// Why nothing could be received in time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RecvTimeoutError {
    /// Nothing came until the time had passed.
    Timeout,
    /// The channel is closed and empty.
    Disconnected,
}

impl<T> TrySendError<T> {
    /// The value that was not sent.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(value) | Self::Disconnected(value) => value,
        }
    }

    /// Whether waiting would help.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Whether the channel is closed, or no receiver is left.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }
}

impl<T> fmt::Display for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "sending on a full channel",
            Self::Disconnected(_) => SEND_CLOSED,
        })
    }
}

impl<T> SendTimeoutError<T> {
    /// The value that was not sent.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn into_inner(self) -> T {
        match self {
            Self::Timeout(value) | Self::Disconnected(value) => value,
        }
    }

    /// Whether the time passed.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Whether the channel is closed, or no receiver is left.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected(_))
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(_) => "timed out waiting on send operation",
            Self::Disconnected(_) => SEND_CLOSED,
        })
    }
}

impl TryRecvError {
    /// Whether waiting would help.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "receiving on an empty channel",
            Self::Disconnected => RECV_CLOSED,
        })
    }
}

impl RecvTimeoutError {
    /// Whether the time passed.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }

    /// Whether the channel is closed and empty.
    ///
    /// # Blocking
    ///
    /// Never parks.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::Disconnected)
    }
}

impl fmt::Display for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout => "timed out waiting on receive operation",
            Self::Disconnected => RECV_CLOSED,
        })
    }
}

impl<T> fmt::Debug for TrySendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for RecvTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T> Error for TrySendError<T> {}
impl<T> Error for SendTimeoutError<T> {}
impl Error for TryRecvError {}
impl Error for RecvTimeoutError {}

impl<T> From<SendError<T>> for TrySendError<T> {
    fn from(error: SendError<T>) -> Self {
        Self::Disconnected(error.0)
    }
}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(error: SendError<T>) -> Self {
        Self::Disconnected(error.0)
    }
}

impl From<RecvError> for TryRecvError {
    fn from(_: RecvError) -> Self {
        Self::Disconnected
    }
}

impl From<RecvError> for RecvTimeoutError {
    fn from(_: RecvError) -> Self {
        Self::Disconnected
    }
}
