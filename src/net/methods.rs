//! The methods that every handle of a descriptor has, whatever the descriptor is.
//!
//! The macros write methods for a type with a field `descriptor` that is a [`Descriptor`](super::descriptor::Descriptor) or points to one. Each
//! documents what it writes, so that the types differ in their own parts only.

use crate::context::Context;

/// Time limits for reading.
macro_rules! read_limits {
    ($type:ty) => {
        impl $type {
            /// How long one read may take. `None`: for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_read_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.descriptor.set_timeout($crate::net::descriptor::Direction::Read, timeout)
            }

            /// What [`set_read_timeout`](Self::set_read_timeout) has set.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn read_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.descriptor.read.timeout())
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
            pub fn set_read_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.descriptor.set_deadline($crate::net::descriptor::Direction::Read, deadline);
                Ok(())
            }

            /// Waits until there is something to read, or the end, without holding a buffer meanwhile.
            ///
            /// # Errors
            ///
            /// `TimedOut` by the time limits for reading.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn readable(&self) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Read,
                    $crate::runtime::wait::Reason::Read,
                    None,
                )
            }

            /// Like [`readable`](Self::readable), but gives up when `ctx` ends. A context that has ended already comes before what is there to read.
            ///
            /// # Errors
            ///
            /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `readable`.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn readable_ctx(&self, ctx: &$crate::context::Context) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Read,
                    $crate::runtime::wait::Reason::Read,
                    Some(ctx),
                )
            }
        }
    };
}

/// Time limits for writing.
macro_rules! write_limits {
    ($type:ty) => {
        impl $type {
            /// How long one write may take. `None`: for ever.
            ///
            /// # Errors
            ///
            /// `InvalidInput` for zero.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_write_timeout(&self, timeout: Option<std::time::Duration>) -> std::io::Result<()> {
                self.descriptor.set_timeout($crate::net::descriptor::Direction::Write, timeout)
            }

            /// What [`set_write_timeout`](Self::set_write_timeout) has set.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn write_timeout(&self) -> std::io::Result<Option<std::time::Duration>> {
                Ok(self.descriptor.write.timeout())
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
            pub fn set_write_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.descriptor.set_deadline($crate::net::descriptor::Direction::Write, deadline);
                Ok(())
            }

            /// Waits until there is room to write, or a write would fail.
            ///
            /// # Errors
            ///
            /// `TimedOut` by the time limits for writing.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn writable(&self) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Write,
                    $crate::runtime::wait::Reason::Write,
                    None,
                )
            }

            /// Like [`writable`](Self::writable), but gives up when `ctx` ends. A context that has ended already comes before room to write.
            ///
            /// # Errors
            ///
            /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `writable`.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn writable_ctx(&self, ctx: &$crate::context::Context) -> std::io::Result<()> {
                self.descriptor.wait_ready(
                    $crate::net::descriptor::Direction::Write,
                    $crate::runtime::wait::Reason::Write,
                    Some(ctx),
                )
            }
        }
    };
}

/// `Read` for a byte stream, for references to it and for what its `with_ctx` gives, through the method of its descriptor that is named.
macro_rules! reads {
    ($type:ty, $bytes:ident) => {
        impl std::io::Read for &$type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.descriptor.$bytes(None, buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.descriptor.read_slices(None, bufs)
            }
        }

        impl std::io::Read for $type {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                std::io::Read::read(&mut &*self, buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                std::io::Read::read_vectored(&mut &*self, bufs)
            }
        }

        impl std::io::Read for $crate::net::WithCtx<'_, $type> {
            fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.stream.descriptor.$bytes(Some(self.ctx), buf)
            }

            fn read_vectored(&mut self, bufs: &mut [std::io::IoSliceMut<'_>]) -> std::io::Result<usize> {
                self.stream.descriptor.read_slices(Some(self.ctx), bufs)
            }
        }
    };
}

/// Looks at what a stream would read.
macro_rules! peeks {
    ($type:ty) => {
        impl $type {
            /// Reads without taking the data out.
            ///
            /// # Errors
            ///
            /// As a read.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn peek(&self, buf: &mut [u8]) -> std::io::Result<usize> {
                self.descriptor.peek_bytes(None, buf)
            }

            /// Like [`peek`](Self::peek), but gives up when `ctx` ends.
            ///
            /// # Errors
            ///
            /// Why the context has ended, as `TimedOut` or `Other`; otherwise as `peek`.
            ///
            /// # Blocking
            ///
            /// Parks the goroutine, or blocks the thread.
            pub fn peek_ctx(&self, buf: &mut [u8], ctx: &$crate::context::Context) -> std::io::Result<usize> {
                self.descriptor.peek_bytes(Some(ctx), buf)
            }
        }
    };
}

/// `Write` for a byte stream, for references to it and for what its `with_ctx` gives, through the two methods of its descriptor that are named.
macro_rules! writes {
    ($type:ty, $bytes:ident, $slices:ident) => {
        impl std::io::Write for &$type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::net::transfer::how_much(self.descriptor.$bytes(None, buf))
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                self.descriptor.$bytes(None, buf).1
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::transfer::how_much(self.descriptor.$slices(None, bufs))
            }

            /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
            fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> std::io::Result<()> {
                $crate::net::transfer::write_formatted(self, args)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for $type {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                std::io::Write::write(&mut &*self, buf)
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                std::io::Write::write_all(&mut &*self, buf)
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                std::io::Write::write_vectored(&mut &*self, bufs)
            }

            /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
            fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> std::io::Result<()> {
                $crate::net::transfer::write_formatted(self, args)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        impl std::io::Write for $crate::net::WithCtx<'_, $type> {
            fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
                $crate::net::transfer::how_much(self.stream.descriptor.$bytes(Some(self.ctx), buf))
            }

            /// In one turn, with one time-out for all of it: after it has passed, nothing of `buf` is written any more.
            fn write_all(&mut self, buf: &[u8]) -> std::io::Result<()> {
                self.stream.descriptor.$bytes(Some(self.ctx), buf).1
            }

            fn write_vectored(&mut self, bufs: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
                $crate::net::transfer::how_much(self.stream.descriptor.$slices(Some(self.ctx), bufs))
            }

            /// In one write, as `write_all` of the whole text: other writers do not get in between its pieces.
            fn write_fmt(&mut self, args: std::fmt::Arguments<'_>) -> std::io::Result<()> {
                $crate::net::transfer::write_formatted(self, args)
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
    };
}

/// `with_ctx` for a byte stream; [`reads`] and [`writes`] are for what it gives.
macro_rules! with_ctx {
    ($type:ty) => {
        impl $type {
            /// This stream for reads and writes that end with `ctx`: each fails at once when it ends, also one that waits already.
            ///
            /// The stream is left as it is, and other reads and writes go on: only what was called through this ends. A read that ends so
            /// has taken nothing; a `write_all` may have written a part, as with a time limit. The stream's time limits hold as well.
            ///
            /// The error is that of the [context](crate::context::ContextError): of the kind `TimedOut` for a deadline, `Other` for a
            /// cancellation (`Interrupted` would have `read_exact` and `write_all` try again).
            ///
            /// # Examples
            ///
            /// See [`WithCtx`](crate::net::WithCtx).
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn with_ctx<'a>(&'a self, ctx: &'a $crate::context::Context) -> $crate::net::WithCtx<'a, Self> {
                $crate::net::WithCtx { stream: self, ctx }
            }
        }
    };
}

/// A stream whose reads and writes end with a context: made by [`TcpStream::with_ctx`](crate::net::TcpStream::with_ctx),
/// [`UnixStream::with_ctx`](crate::net::unix::UnixStream::with_ctx), [`PipeStream::with_ctx`](crate::net::PipeStream::with_ctx), and of the pipes
/// of the system by [`PipeReader::with_ctx`](crate::io::PipeReader::with_ctx) and [`PipeWriter::with_ctx`](crate::io::PipeWriter::with_ctx).
///
/// It borrows the stream and costs nothing to make; copies are the same.
///
/// # Examples
///
/// ```
/// use std::io::{ErrorKind, Read, Write};
/// use oxigo::{context::Context, net::unix::UnixStream};
///
/// let (near, mut far) = UnixStream::pair()?;
/// let (ctx, cancel) = Context::background().with_cancel();
/// oxigo::go(move || cancel.cancel());
/// let mut heard = [0; 4];
/// let error = near.with_ctx(&ctx).read_exact(&mut heard).unwrap_err();
/// assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Other, "context canceled"));
///
/// // The connection is as it was.
/// far.write_all(b"ping")?;
/// (&near).read_exact(&mut heard)?;
/// assert_eq!(&heard, b"ping");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct WithCtx<'a, S> {
    pub(crate) stream: &'a S,
    pub(crate) ctx: &'a Context,
}

impl<S> Clone for WithCtx<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for WithCtx<'_, S> {}

/// `AsFd`, `AsRawFd`, and `TryFrom` in both directions with the type of `std` that it stands in for and with `OwnedFd`.
macro_rules! descriptor_handle {
    ($type:ty, $std:ty) => {
        impl std::os::fd::AsFd for $type {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.descriptor.as_fd()
            }
        }

        impl std::os::fd::AsRawFd for $type {
            fn as_raw_fd(&self) -> std::os::fd::RawFd {
                std::os::fd::AsFd::as_fd(self).as_raw_fd()
            }
        }

        $crate::net::methods::conversions!($type, $std);
        $crate::net::methods::conversions!($type, std::os::fd::OwnedFd);
    };
}

macro_rules! conversions {
    ($type:ty, $system:ty) => {
        impl TryFrom<$system> for $type {
            type Error = std::io::Error;

            /// Takes it over and makes it non-blocking.
            ///
            /// Duplicates of it, such as those that `std`'s `try_clone` makes, become non-blocking with it. Time-outs that `std` has set do
            /// not hold here: set them again.
            ///
            /// # Errors
            ///
            /// When the system cannot make it non-blocking.
            ///
            /// # Blocking
            ///
            /// Never parks.
            fn try_from(system: $system) -> std::io::Result<Self> {
                let descriptor = $crate::net::descriptor::Descriptor::take_over(system.into())?;
                Ok(Self { descriptor: descriptor.into() })
            }
        }

        impl TryFrom<$type> for $system {
            type Error = std::io::Error;

            /// Gives it away and makes it blocking again.
            ///
            /// The time limits that were set here do not hold there; time-outs that `std` had set before do so again.
            ///
            /// # Errors
            ///
            /// `ResourceBusy` while there are other handles, made by `try_clone`: their calls would block their threads, and the goroutines
            /// that live there. Drop them first, or give up this one and convert the last. `std`'s type has a `try_clone` of its own.
            /// `NotConnected` when it is closed.
            ///
            /// # Blocking
            ///
            /// Never parks.
            fn try_from(ours: $type) -> std::io::Result<Self> {
                Ok($crate::net::descriptor::Descriptor::release(ours.descriptor)?.into())
            }
        }
    };
}

/// What listeners have beside `bind` and `accept`: `incoming` with its iterator, `close`, of which `$closed` is said, and `set_deadline`.
macro_rules! listens {
    ($type:ident, $stream:ty, $closed:literal) => {
        impl $type {
            /// Accepts one connection after another, until [`close`](Self::close): of that it tells by one last error, and then ends.
            ///
            /// Other errors do not end it. `for connection in listener.incoming().flatten()` serves until the listener is closed; with a
            /// [deadline](Self::set_deadline) that has passed it would go round and round.
            ///
            /// # Blocking
            ///
            /// Never parks; the iterator waits as [`accept`](Self::accept) does.
            pub fn incoming(&self) -> Incoming<'_> {
                Incoming { listener: self, over: false }
            }

            /// Stops listening. Every goroutine that waits in [`accept`](Self::accept) is woken with an error, and later calls fail at once;
            /// [`incoming`](Self::incoming) gives that error once and ends.
            #[doc = $closed]
            ///
            /// Connections that nobody has accepted end, and the address is free for others; [`local_addr`](Self::local_addr) goes on telling it. It is the
            /// socket that stops: so do duplicates of its descriptor, in other processes too.
            ///
            #[doc = $crate::net::methods::given_back!()]
            ///
            /// # Errors
            ///
            /// `NotConnected` when it was closed before.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn close(&self) -> std::io::Result<()> {
                self.descriptor.close_listener()
            }

            /// Until when `accept` may wait; acts on calls that wait already. `None`: for ever.
            ///
            /// # Errors
            ///
            /// None now; for an interface like that of the time-outs.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.descriptor.set_deadline($crate::net::descriptor::Direction::Read, deadline);
                Ok(())
            }
        }

        #[doc = concat!("Accepts one connection after another, until the listener is closed. Made by [`", stringify!($type), "::incoming`].")]
        #[derive(Debug)]
        pub struct Incoming<'a> {
            listener: &'a $type,
            /// The error of the close has been given.
            over: bool,
        }

        impl Iterator for Incoming<'_> {
            type Item = std::io::Result<$stream>;

            fn next(&mut self) -> Option<Self::Item> {
                if self.over {
                    return None;
                }
                let accepted = self.listener.accept();
                let told = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotConnected;
                // Another one that came just before the close is not the last.
                self.over = accepted.as_ref().is_err_and(told) && self.listener.descriptor.is_shut();
                Some(accepted.map(|(stream, _)| stream))
            }
        }

        impl std::iter::FusedIterator for Incoming<'_> {}
    };
}

/// `set_deadline`, for handles that read and write.
macro_rules! deadline {
    ($type:ty) => {
        impl $type {
            /// Until when reads and writes may last, those that wait already too. `None`: for ever.
            ///
            /// # Errors
            ///
            /// None now; for an interface like that of the time-outs.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn set_deadline(&self, deadline: Option<std::time::Instant>) -> std::io::Result<()> {
                self.set_read_deadline(deadline)?;
                self.set_write_deadline(deadline)
            }
        }
    };
}

/// `try_clone`, for handles that share their descriptor.
macro_rules! try_clone {
    ($type:ty) => {
        impl $type {
            /// Another handle of the same descriptor, with the same time limits.
            ///
            /// While there are several, none of them converts into the type of `std` or an `OwnedFd`.
            ///
            /// # Errors
            ///
            /// None now; for the interface of `std`.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn try_clone(&self) -> std::io::Result<Self> {
                Ok(Self { descriptor: std::sync::Arc::clone(&self.descriptor) })
            }
        }
    };
}

/// `close`, for handles that share their descriptor, with what comes of it.
macro_rules! close {
    ($type:ty, $then:literal) => {
        impl $type {
            /// Closes it, for all handles: whoever waits is woken with an error, and later calls fail at once.
            ///
            #[doc = $then]
            ///
            #[doc = $crate::net::methods::given_back!()]
            ///
            /// # Errors
            ///
            /// `NotConnected` when it was closed before; that is also what operations on it give from now on, and what turning it into the type of
            /// `std` gives.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn close(&self) -> std::io::Result<()> {
                self.descriptor.close()
            }
        }
    };
}

/// What every `close` does.
macro_rules! given_back {
    () => {
        "It is given back to the system at once, even while handles of it live; if an operation of another thread is just under way, a moment later, \
         when that call returns. Duplicates of the descriptor, for instance in children that have inherited it, keep it open. The descriptor's number \
         stays taken until the last handle is dropped, so whoever has borrowed the number does not meet a file that somebody else opens; what is done \
         with it fails. (If the limit of descriptors left no room for that when the first runtime started, or has been lowered since, it is given back \
         when the last handle is dropped.)"
    };
}

/// `take_error`, for sockets.
macro_rules! take_error {
    ($type:ty) => {
        impl $type {
            /// The error that is pending on the socket, which is cleared.
            ///
            /// # Errors
            ///
            /// When the system cannot tell.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn take_error(&self) -> std::io::Result<Option<std::io::Error>> {
                self.descriptor.option(|socket| socket.take_error())
            }
        }
    };
}

/// `local_addr` and `peer_addr` of sockets through a function that converts the address.
macro_rules! addresses {
    (local $type:ty, $address:ty, $convert:path) => {
        impl $type {
            /// This end's address, also after a `close`.
            ///
            /// # Errors
            ///
            /// When the system cannot tell.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn local_addr(&self) -> std::io::Result<$address> {
                $convert(self.descriptor.own_address()?)
            }
        }
    };
    ($type:ty, $address:ty, $convert:path) => {
        addresses!(local $type, $address, $convert);

        impl $type {
            /// The other end's address.
            ///
            /// # Errors
            ///
            /// `NotConnected` when there is none.
            ///
            /// # Blocking
            ///
            /// Never parks.
            pub fn peer_addr(&self) -> std::io::Result<$address> {
                $convert(self.descriptor.told(rustix::net::getpeername(self))?)
            }
        }
    };
}

/// `Debug` with the addresses of a socket.
macro_rules! debug_with_addresses {
    ($type:ident $(, $field:literal = $method:ident)*) => {
        impl std::fmt::Debug for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut debug = f.debug_struct(stringify!($type));
                $(
                    if let Ok(address) = self.$method() {
                        debug.field($field, &address);
                    }
                )*
                debug.field("fd", &std::os::fd::AsRawFd::as_raw_fd(self)).finish()
            }
        }
    };
}

pub(crate) use {
    addresses, close, conversions, deadline, debug_with_addresses, descriptor_handle, given_back, listens, peeks,
    read_limits, reads, take_error, try_clone, with_ctx, write_limits, writes,
};
