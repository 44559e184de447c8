//! Spans as a device counts them: those whose numbers continue are one.

use crate::addr::Bytes;
use crate::dma::span::Span;
use core::iter::{Fuse, FusedIterator};

/// Puts spans together where a device sees no boundary, and drops those without bytes.
///
/// A device's lists hold numbers: whether memory or device memory lies there makes no
/// boundary in them. The first span of a stretch speaks for it.
#[derive(Clone, Debug)]
pub(super) struct Joined<I> {
    spans: Fuse<I>,
    next: Option<Span>,
}

impl<I: Iterator<Item = Span>> Joined<I> {
    pub(super) fn new(spans: I) -> Self {
        Self { spans: spans.fuse(), next: None }
    }
}

impl<I: Iterator<Item = Span>> Iterator for Joined<I> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let mut stretch: Option<Span> = self.next.take();
        for span in self.spans.by_ref().filter(|span| span.len != Bytes::ZERO) {
            match &mut stretch {
                None => stretch = Some(span),
                Some(first) => match continued(first, &span) {
                    Some(len) => first.len = len,
                    None => {
                        self.next = Some(span);
                        break;
                    }
                },
            }
        }
        stretch
    }
}

impl<I: Iterator<Item = Span>> FusedIterator for Joined<I> {}

/// Length of both as one stretch; `None` if the second's address does not continue the first's.
fn continued(first: &Span, second: &Span) -> Option<Bytes> {
    let continues = first.bounced == second.bounced && first.address.checked_add(first.len) == Some(second.address);
    if continues { first.len.checked_add(second.len) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Prot;
    use crate::addr::{BusAddr, Iova};
    use crate::dma::span::{Behind, DeviceAddress};
    use alloc::vec::Vec;

    fn span(address: DeviceAddress, len: u64, behind: Behind) -> Span {
        Span {
            at: Bytes::ZERO,
            address,
            len: Bytes::new(len),
            behind,
            snooped: false,
            prot: Prot::Read,
            bounced: false,
        }
    }

    #[test]
    fn spans_of_one_kind_whose_numbers_continue_are_one() {
        let iova = |at| DeviceAddress::Iova(Iova::new(at));
        let bus = DeviceAddress::Bus { address: BusAddr::new(0x4000), bridge: None };
        let spans = [
            span(iova(0x1000), 0x1000, Behind::Memory),
            span(iova(0x2000), 0, Behind::Memory),
            span(iova(0x2000), 0x2000, Behind::Mmio),
            span(bus, 0x1000, Behind::Mmio),
            span(iova(u64::MAX), 2, Behind::Memory),
            span(iova(1), 1, Behind::Memory),
        ];
        let stretches: Vec<_> = Joined::new(spans.into_iter()).map(|span| (span.address, span.len.as_u64())).collect();
        assert_eq!(stretches, [(iova(0x1000), 0x3000), (bus, 0x1000), (iova(u64::MAX), 2), (iova(1), 1)]);
    }
}
