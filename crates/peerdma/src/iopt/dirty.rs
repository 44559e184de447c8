//! Which pages devices have written, as the marks in the entries tell.
//!
//! Holes are passed over. A page that the range holds a part of is reported for that part, and
//! its mark, which belongs to the whole, is cleared with it. A page that stands in several
//! entries is dirty if any of them is marked.

use super::entry::Entry;
use super::error::DirtyFault;
use super::format::{Format, shift_of};
use super::memory::TableMemory;
use super::table::PageTable;
use crate::addr::{AddrRange, Iova, PhysAddr};
use crate::sync::atomic::Ordering;

/// Joins neighbours before they are reported.
struct Report<'a> {
    pending: Option<(u64, u64)>,
    each: &'a mut dyn FnMut(AddrRange<Iova>),
}

impl Report<'_> {
    fn add(&mut self, first: u64, last: u64) {
        match &mut self.pending {
            Some((_, end)) if end.checked_add(1) == Some(first) => *end = last,
            _ => {
                self.flush();
                self.pending = Some((first, last));
            }
        }
    }

    fn flush(&mut self) {
        let range =
            self.pending.take().and_then(|(first, last)| AddrRange::from_inclusive(Iova::new(first), Iova::new(last)));
        if let Some(range) = range {
            (self.each)(range);
        }
    }
}

impl<F: Format, M: TableMemory> PageTable<F, M> {
    /// Calls `each` with the ranges of `iova` that devices wrote since the marks were last cleared.
    ///
    /// Ranges ascend, are clipped to `iova`, and neighbours are joined. With `clear` the marks
    /// go; a device that holds an entry in its IOTLB sets none again until that is invalidated.
    ///
    /// An Arm stage 1 without hardware marks answers that nothing is dirty, as Linux does; ask
    /// [`Format::tracks_dirty`] first.
    ///
    /// # Errors
    /// [`DirtyFault`]; after [`DirtyFault::BadEntry`] what was reported stands.
    pub fn read_dirty(
        &self,
        iova: AddrRange<Iova>,
        clear: bool,
        each: &mut dyn FnMut(AddrRange<Iova>),
    ) -> Result<(), DirtyFault> {
        if !self.format().answers_dirty() {
            return Err(DirtyFault::NotTracked);
        }
        let (first, last) = (iova.start(), iova.last());
        if !self.format().shape().contains_range(&iova) {
            return Err(DirtyFault::IovaOutOfRange { at: first });
        }
        let root = self.root();
        let mut last = last.as_u64();
        if F::GROWS {
            // Above what the root reaches there is nothing.
            let reach = shift_of::<F>(root.height) + F::INDEX_BITS;
            let top = 1_u64.checked_shl(reach).map_or(u64::MAX, |end| end - 1);
            if first.as_u64() > top {
                return Ok(());
            }
            last = last.min(top);
        }
        let mut report = Report { pending: None, each };
        let index = self.root_index(root, first.as_u64());
        let result = self.dirty_below(root.at, root.height, index, first.as_u64(), last, clear, &mut report);
        report.flush();
        result
    }

    #[expect(clippy::too_many_arguments, reason = "the state of a descent, without a frame of its own per level")]
    fn dirty_below(
        &self,
        table: PhysAddr,
        height: u8,
        mut index: usize,
        mut at: u64,
        last: u64,
        clear: bool,
        report: &mut Report<'_>,
    ) -> Result<(), DirtyFault> {
        let shift = shift_of::<F>(height);
        loop {
            let bad = DirtyFault::BadEntry { at: Iova::new(at) };
            let slot = self.slot(table, index).ok_or(bad)?;
            let mut end = at | ((1 << shift) - 1);
            match self.format().decode(slot.load(Ordering::Acquire), height) {
                Entry::Empty => {}
                Entry::Leaf { size_shift, .. } => {
                    let entries = 1_usize << (size_shift - shift);
                    let first = index & !(entries - 1);
                    end = at | ((1 << size_shift) - 1);
                    if self.take_dirty(table, first, entries, clear).ok_or(bad)? {
                        report.add(at, end.min(last));
                    }
                    index = first + entries - 1;
                }
                Entry::Table(child) if height > 0 => {
                    let below = Self::index(at, height - 1);
                    self.dirty_below(child, height - 1, below, at, last.min(end), clear, report)?;
                }
                Entry::Table(_) | Entry::Bad => return Err(bad),
            }
            if end >= last {
                return Ok(());
            }
            at = end + 1;
            index += 1;
        }
    }

    /// Whether any entry of a page is marked; `None`: no frame.
    fn take_dirty(&self, table: PhysAddr, first: usize, entries: usize, clear: bool) -> Option<bool> {
        let (unset, set) = self.format().clean();
        let mut dirty = false;
        for index in first..first + entries {
            let slot = self.slot(table, index)?;
            let mut entry = slot.load(Ordering::Relaxed);
            while self.format().is_dirty(entry) {
                dirty = true;
                if !clear {
                    break;
                }
                // Devices may write the entry at any time, and another owner of a part of the page may split it.
                match slot.compare_exchange_weak(entry, entry & !unset | set, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => break,
                    Err(now) => entry = now,
                }
            }
        }
        Some(dirty)
    }
}
