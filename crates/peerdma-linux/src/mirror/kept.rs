//! What children do not inherit because of a mirror, so that it is undone where that was so, and nowhere else.

use crate::own::smaps;
use crate::sys::process_memory;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::mirror::Event;
use rustix::io::Errno;

/// Parts of a foreign range that children inherited before a device used it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    ours: Vec<AddrRange<ProcVa>>,
}

impl Kept {
    /// Keeps children from a range, and notes of which parts they were not kept before.
    ///
    /// Where that cannot be read (no `/proc`) all of it passes for kept before, and stays so.
    ///
    /// # Errors
    /// The kernel's answer; everything is as it was.
    pub(super) fn new(at: AddrRange<ProcVa>) -> Result<Self, Errno> {
        let mut kept = Self::default();
        if let Ok(before) = smaps::kept_from_children(at) {
            kept.ours.push(at);
            before.into_iter().for_each(|before| kept.cut(before));
        }
        // Of a range with a hole the kernel keeps what lies before it, and says no.
        process_memory::keep_from_children(at, true).inspect_err(|_| kept.let_go(at))?;
        Ok(kept)
    }

    /// Takes note of what became of the memory.
    pub(super) fn heard(&mut self, event: &Event) {
        match *event {
            Event::Unmap(at) => self.cut(at),
            // The flag goes along.
            Event::Remap { from, to, len } => {
                let moving: Vec<_> = self.ours.iter().filter_map(|ours| common(*ours, from)).collect();
                self.cut(from);
                if let Some(there) = AddrRange::new(to, len) {
                    self.cut(there);
                }
                self.ours.extend(moving.into_iter().filter_map(|part| {
                    let offset = part.start().as_u64() - from.start().as_u64();
                    AddrRange::new(to.checked_add(Bytes::new(offset))?, part.len())
                }));
            }
            _ => {}
        }
    }

    /// Has children inherit this again, as far as they did.
    pub(super) fn let_go(&self, at: AddrRange<ProcVa>) {
        for part in self.ours.iter().filter_map(|ours| common(*ours, at)) {
            // What was unmapped meanwhile nobody inherits.
            let _ = process_memory::keep_from_children(part, false);
        }
    }

    fn cut(&mut self, at: AddrRange<ProcVa>) {
        let (first, last) = (at.start().as_u64(), at.last().as_u64());
        let parts = |ours: AddrRange<ProcVa>| {
            let before = first.checked_sub(1).map(|end| (0, end));
            let after = last.checked_add(1).map(|start| (start, u64::MAX));
            let outside = [before, after].into_iter().flatten();
            let outside =
                outside.filter_map(|(first, last)| AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last)));
            outside.filter_map(move |outside| common(ours, outside))
        };
        self.ours = self.ours.drain(..).flat_map(parts).collect();
    }
}

fn common(one: AddrRange<ProcVa>, other: AddrRange<ProcVa>) -> Option<AddrRange<ProcVa>> {
    AddrRange::from_inclusive(one.start().max(other.start()), one.last().min(other.last()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(first: u64, count: u64) -> AddrRange<ProcVa> {
        AddrRange::new(ProcVa::new(first << 12), Bytes::new(count << 12)).unwrap()
    }

    #[test]
    fn what_is_ours_goes_along_with_a_move_and_ends_where_it_is_unmapped() {
        let mut kept = Kept { ours: vec![pages(16, 8)] };
        kept.heard(&Event::Unmap(pages(18, 1)));
        assert_eq!(kept.ours, [pages(16, 2), pages(19, 5)]);
        kept.heard(&Event::Remap { from: pages(17, 3), to: ProcVa::new(64 << 12), len: Bytes::new(3 << 12) });
        assert_eq!(kept.ours, [pages(16, 1), pages(20, 4), pages(64, 1), pages(66, 1)]);
        kept.heard(&Event::Discard(pages(0, 100)));
        kept.heard(&Event::Unmap(pages(0, 100)));
        assert_eq!(kept.ours, []);
    }
}
