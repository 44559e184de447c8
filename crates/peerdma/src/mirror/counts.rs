//! What a mirror has done so far.

/// Counts of one mirror, from its beginning on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Page requests.
    pub requests: u64,
    /// Page requests for what is pinned. Such pages are in the table from the beginning, so that anything but zero is a
    /// device which asks without having looked.
    pub requests_in_pinned: u64,
    /// Pages that were brought.
    pub brought: u64,
    /// Pages that were touched in vain, because something happened to their range meanwhile.
    pub again: u64,
    /// Requests that waited for the end of an invalidation.
    pub parked: u64,
    /// Requests that were answered with a no, of either kind.
    pub refused: u64,
    /// Events that took something from the table.
    pub invalidations: u64,
    /// Events that met no registered range.
    pub elsewhere: u64,
}
