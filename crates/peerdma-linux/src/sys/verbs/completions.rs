//! Completion queues, each with a channel of its own.

#![expect(unsafe_code)]

use super::answer::{of_pointer, of_status, of_thread};
use super::layout;
use super::objects::Context;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use std::ffi::c_int;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::ptr::NonNull;

pub(crate) use super::layout::WorkCompletion;

/// How many completions are taken at once at most.
pub(crate) const BATCH: usize = 32;

struct Channel {
    context: Context,
    raw: NonNull<layout::Channel>,
    /// As it was when the channel was made: the structure is the provider's, who may write there.
    fd: RawFd,
}

impl Channel {
    fn create(context: &Context) -> Result<Self, Errno> {
        // SAFETY: the context is open.
        let raw = of_pointer(unsafe { (context.library().create_channel)(context.raw()) })?;
        // SAFETY: the channel was just made, and nobody has destroyed it.
        let fd = unsafe { (*raw.as_ptr()).fd };
        let channel = Self { context: context.clone(), raw, fd };
        if fd < 0 {
            return Err(Errno::BADF);
        }
        // An event that somebody else has taken must not block.
        fcntl_setfl(&channel, fcntl_getfl(&channel)? | OFlags::NONBLOCK)?;
        Ok(channel)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: 1. It is no negative number (`create`). 2. It is open while the channel lives, which the borrow is bound to.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: it was created once and is destroyed once, after its queue.
        let _ = unsafe { (self.context.library().destroy_channel)(self.raw.as_ptr()) };
    }
}

/// A completion queue; destroyed before its channel.
pub(crate) struct Completions {
    raw: NonNull<layout::CompletionQueue>,
    channel: Channel,
}

// SAFETY: the verbs may be called by any number of threads at once.
unsafe impl Send for Completions {}
// SAFETY: as for `Send`.
unsafe impl Sync for Completions {}

impl Completions {
    pub(crate) fn create(context: &Context, entries: u32) -> Result<Self, Errno> {
        let channel = Channel::create(context)?;
        let entries = c_int::try_from(entries).map_err(|_| Errno::INVAL)?;
        let owner = std::ptr::null_mut();
        // SAFETY: context and channel live as long as this value.
        let raw = of_pointer(unsafe {
            (context.library().create_completions)(context.raw(), entries, owner, channel.raw.as_ptr(), 0)
        })?;
        Ok(Self { raw, channel })
    }

    pub(super) fn raw(&self) -> *mut layout::CompletionQueue {
        self.raw.as_ptr()
    }

    pub(crate) fn context(&self) -> &Context {
        &self.channel.context
    }

    /// How many it holds.
    pub(crate) fn entries(&self) -> i32 {
        // SAFETY: it lives as long as this value.
        unsafe { (*self.raw()).entries }
    }

    /// Takes what has completed, `BATCH` at most. A provider that says it gave more is not believed.
    pub(crate) fn poll(&self, into: &mut [WorkCompletion; BATCH]) -> Result<usize, Errno> {
        let poll = self.context().operations().poll_cq.ok_or(Errno::NOSYS)?;
        // SAFETY: the pointer is good for as many entries as are asked for.
        let found = unsafe { poll(self.raw(), BATCH as c_int, into.as_mut_ptr()) };
        match usize::try_from(found) {
            Ok(found) if found <= BATCH => Ok(found),
            _ => Err(Errno::IO),
        }
    }

    /// Asks for an event with the next completion.
    pub(crate) fn arm(&self) -> Result<(), Errno> {
        let request = self.context().operations().request_notify.ok_or(Errno::NOSYS)?;
        // SAFETY: the queue lives as long as this value.
        of_status(unsafe { request(self.raw(), 0) })
    }

    /// Takes one event and acknowledges it; whether there was one.
    pub(crate) fn take_event(&self) -> Result<bool, Errno> {
        let (mut queue, mut owner) = (std::ptr::null_mut(), std::ptr::null_mut());
        let library = self.context().library();
        // SAFETY: both pointers are good during the call; the channel lives as long as this value.
        if unsafe { (library.event)(self.channel.raw.as_ptr(), &raw mut queue, &raw mut owner) } != 0 {
            return match of_thread() {
                Errno::AGAIN | Errno::INTR => Ok(false),
                errno => Err(errno),
            };
        }
        // The channel has one queue.
        if queue != self.raw() {
            return Err(Errno::IO);
        }
        // SAFETY: the event was just taken, and its queue is this one.
        unsafe { (library.acknowledge)(queue, 1) };
        Ok(true)
    }
}

impl AsFd for Completions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Drop for Completions {
    fn drop(&mut self) {
        // SAFETY: 1. It was created once and is destroyed once; queue pairs of it hold it. 2. Every event that was taken
        // is acknowledged, so that it does not wait.
        let _ = unsafe { (self.channel.context.library().destroy_completions)(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Completions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Completions of {}", self.entries())
    }
}
