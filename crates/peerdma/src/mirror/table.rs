//! The device's table, as whoever drives a mirror sees it.

use super::request::{Answer, Token};
use crate::access::Prot;
use crate::addr::{AddrRange, ProcVa};

/// The table through which a device context reaches process memory by its addresses.
///
/// Called by one thread at a time. While [`unmap`](Self::unmap) and [`quiesce`](Self::quiesce) run, no access of the device's
/// begins: whoever drives the mirror has closed a gate before. `()` is the table of a device that has none and asks
/// the mirror itself.
pub trait DeviceTable {
    /// Puts pages in that are not in it, or permit less.
    ///
    /// Whether they are in it now; where not, the device is answered with [`Answer::Failure`].
    fn map(&mut self, at: AddrRange<ProcVa>, prot: Prot) -> bool;

    /// Takes pages out, whether or not they are in it; returns once no access through them is under way any more.
    fn unmap(&mut self, at: AddrRange<ProcVa>);

    /// Brings to memory what the device has sent and what has not arrived.
    fn quiesce(&mut self);

    /// Tells the device what its request came to.
    fn answer(&mut self, asked: Token, answer: Answer);
}

impl DeviceTable for () {
    fn map(&mut self, _at: AddrRange<ProcVa>, _prot: Prot) -> bool {
        true
    }

    fn unmap(&mut self, _at: AddrRange<ProcVa>) {}

    fn quiesce(&mut self) {}

    fn answer(&mut self, _asked: Token, _answer: Answer) {}
}
