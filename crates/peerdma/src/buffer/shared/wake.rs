//! How somebody who does not block in this crate is woken.

/// Called when a buffer becomes quiet, when it comes within reach, and when its fences can be looked at after somebody has
/// given its reservation up.
///
/// Comes from the thread that made it happen, without a lock of the buffer held; must not wait. An eventfd
/// written here makes the buffer something to wait for in an event loop.
pub trait Wake: Send + Sync {
    /// Something that may have been waited for has happened; look.
    fn wake(&self);
}
