//! How somebody who does not block in this crate is woken.

/// Called when a buffer becomes quiet, and when it comes within reach.
///
/// Comes from the thread that made it happen, without any lock held; must not wait. An eventfd
/// written here makes the buffer something to wait for in an event loop.
pub trait Wake: Send + Sync {
    /// Something that may have been waited for has happened; look.
    fn wake(&self);
}
