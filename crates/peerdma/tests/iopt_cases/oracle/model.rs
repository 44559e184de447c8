//! Which leaves there should be: a sorted list, searched and changed one leaf at a time.

use super::decoder::{Decoded, Layout, Shape};
use super::{Rights, Says, told};
use std::collections::BTreeMap;

/// One leaf, by its first IOVA in [`Model`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) size: u64,
    pub(crate) pa: u64,
    pub(crate) says: Says,
    pub(crate) dirty: bool,
}

/// What should be mapped.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    shape: Shape,
    leaves: BTreeMap<u64, Leaf>,
}

/// Why nothing was mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    Misaligned,
    /// IOVA or memory out of the widths.
    Range,
    ReadOnly,
    /// Something is there, after so many bytes.
    Occupied(u64),
}

impl Model {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self { shape: shape.clone(), leaves: BTreeMap::new() }
    }

    pub(crate) fn leaves(&self) -> impl Iterator<Item = (u64, &Leaf)> {
        self.leaves.iter().map(|(iova, leaf)| (*iova, leaf))
    }

    /// The leaf around an IOVA.
    pub(crate) fn at(&self, iova: u64) -> Option<(u64, Leaf)> {
        let (start, leaf) = self.leaves.range(..=iova).next_back()?;
        (iova - start < leaf.size).then_some((*start, *leaf))
    }

    /// The first leaf at or behind an IOVA that begins before `last`.
    fn first_within(&self, iova: u64, last: u64) -> Option<u64> {
        self.at(iova).map(|(start, _)| start).or_else(|| self.leaves.range(iova..=last).next().map(|(at, _)| *at))
    }

    fn granule(&self) -> u64 {
        1 << self.shape.granule
    }

    /// Sizes of leaves on offer.
    fn sizes(&self) -> u64 {
        match (self.shape.sizes, self.shape.layout) {
            (0, Layout::Amd) => {
                let all = 0x000f_ff7f_ffff_f000;
                if self.shape.input_bits < 64 { all & ((1 << (self.shape.input_bits - 1)) - 1) } else { all }
            }
            (sizes, _) => sizes,
        }
    }

    /// The largest leaf that may begin here: it divides both addresses and fits the length.
    fn largest(&self, iova: u64, pa: u64, left: u64) -> u64 {
        let fits = |size: &u64| (iova | pa) & (size - 1) == 0 && *size <= left;
        let sizes = self.sizes();
        let mut offered = (0..64).rev().map(|bit| 1 << bit).filter(|size| sizes & size != 0);
        offered.find(fits).unwrap_or(self.granule())
    }

    /// The level whose tables hold leaves of this size.
    fn level_of(&self, size: u64) -> u8 {
        let levels = if self.shape.layout.is_arm() { [3, 2, 1, 0, 0] } else { [0, 1, 2, 3, 4] };
        let holds = |level: &u8| self.shape.shift(*level) <= size.trailing_zeros();
        levels.into_iter().rev().find(holds).unwrap_or(levels[0])
    }

    /// Leaves of a run, in order.
    fn cut(&self, iova: u64, pa: u64, len: u64) -> Vec<(u64, u64, u64)> {
        let mut cut = Vec::new();
        let mut done = 0;
        while done < len {
            let size = self.largest(iova + done, pa + done, len - done);
            cut.push((iova + done, pa + done, size));
            done += size;
        }
        cut
    }

    /// Why a run is refused whatever is mapped; several reasons are equally good.
    fn misfits(&self, iova: u64, pa: u64, len: u64, rights: Rights) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if self.shape.force_writeable && !rights.write {
            refusals.push(Refusal::ReadOnly);
        }
        if (iova | pa | len) & (self.granule() - 1) != 0 {
            refusals.push(Refusal::Misaligned);
        }
        let outside = !self.shape.holds(iova, len);
        let beyond = pa.checked_add(len - 1).is_none_or(|last| last >> self.shape.output_bits != 0);
        if outside || beyond {
            refusals.push(Refusal::Range);
        }
        refusals
    }

    /// Maps all of a run or says why not; of several reasons any may be given.
    pub(crate) fn map(&mut self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), Vec<Refusal>> {
        let mut refusals = self.misfits(iova, pa, len, rights);
        // Arm's end of the address space is found on the way there.
        let on_the_way = self.shape.layout.is_arm() && self.shape.reaches(iova, self.shape.input_bits);
        if refusals.is_empty() || (on_the_way && refusals == [Refusal::Range]) {
            let occupied = self.first_within(iova, iova + (len - 1));
            refusals.extend(occupied.map(|at| Refusal::Occupied(self.before(&self.cut(iova, pa, len), at))));
        }
        if !refusals.is_empty() {
            return Err(refusals);
        }
        let says = told(&self.shape, rights);
        // Hardware that tracks by taking a right away starts with pages that may be written.
        let dirty = self.shape.hardware_dirty && rights.write;
        let cut = self.cut(iova, pa, len);
        self.leaves.extend(cut.into_iter().map(|(iova, pa, size)| (iova, Leaf { size, pa, says, dirty })));
        Ok(())
    }

    /// How much was mapped when a leaf at `at` was met, or an entry above that holds it.
    fn before(&self, cut: &[(u64, u64, u64)], at: u64) -> u64 {
        let start = cut[0].0;
        let meets = |&&(iova, _, size): &&(u64, u64, u64)| at <= iova + (size - 1);
        let Some(&(iova, _, size)) = cut.iter().find(meets) else { return 0 };
        if !self.shape.layout.is_arm() {
            return iova - start;
        }
        // Arm's builder looks at all entries of a table that a run takes before it writes one.
        let level = self.level_of(size);
        let table = self.shape.shift(level) + (self.shape.granule - 3);
        let together = |&&(other, _, other_size): &&(u64, u64, u64)| {
            other_size == size && (table >= 64 || other >> table == iova >> table)
        };
        cut.iter().find(together).map_or(0, |(first, _, _)| first - start)
    }

    /// Takes away what the format's own answer to this range is; returns its length.
    ///
    /// `is_table` says whether a table translates just so many bytes from an IOVA on.
    pub(crate) fn unmap(&mut self, iova: u64, len: u64, is_table: impl Fn(u64, u64) -> bool) -> u64 {
        // Arm finds the end of the space on its way, the others before they begin.
        let outside = !self.shape.layout.is_arm() && !self.shape.holds(iova, len);
        if (iova | len) & (self.granule() - 1) != 0 || outside {
            return 0;
        }
        let mut done = 0;
        while done < len {
            let at = iova + done;
            // What begins elsewhere than here ends the call, be it a hole or the middle of a leaf.
            let leaf = self.leaves.get(&at).map(|leaf| leaf.size);
            let gone = if !self.shape.layout.is_arm() {
                // A leaf goes whole, whatever part of it the range holds.
                leaf
            } else {
                // Linux asks Arm's builder for the largest size that fits, as if it were to map.
                let size = self.largest(at, 0, len - done);
                (leaf == Some(size) || is_table(at, size)).then_some(size)
            };
            let Some(gone) = gone else { break };
            while let Some(inside) = self.leaves.range(at..=at + (gone - 1)).next().map(|(inside, _)| *inside) {
                self.leaves.remove(&inside);
            }
            done += gone;
        }
        done
    }

    /// Puts other memory behind all leaves of a range; false, and nothing changed, if they do
    /// not make it up exactly.
    pub(crate) fn replace(&mut self, iova: u64, pa: u64, len: u64, rights: Rights) -> bool {
        if !self.misfits(iova, pa, len, rights).is_empty() {
            return false;
        }
        let mut done = 0;
        while done < len {
            let Some(leaf) = self.leaves.get(&(iova + done)) else { return false };
            if leaf.size > len - done || (pa + done) & (leaf.size - 1) != 0 {
                return false;
            }
            done += leaf.size;
        }
        let says = told(&self.shape, rights);
        let from_the_start = self.shape.hardware_dirty && rights.write;
        // What was written at an IOVA was written, whatever stands behind it now.
        let keeps = self.shape.tracks_dirty() && rights.write;
        for (at, leaf) in self.leaves.range_mut(iova..=iova + (len - 1)) {
            let dirty = from_the_start || (keeps && leaf.dirty);
            *leaf = Leaf { pa: pa + (at - iova), says, dirty, ..*leaf };
        }
        true
    }

    /// A device writes there; false if nothing can notice it.
    pub(crate) fn write(&mut self, iova: u64) -> bool {
        let Some((start, leaf)) = self.at(iova) else { return false };
        if !self.shape.tracks_dirty() || (self.shape.layout.is_arm() && !leaf.says.write) {
            return false;
        }
        self.leaves.entry(start).and_modify(|leaf| leaf.dirty = true);
        true
    }

    /// What is dirty of a range, page after page merged, and no longer if `clear`.
    pub(crate) fn dirty(&mut self, iova: u64, len: u64, clear: bool) -> Vec<(u64, u64)> {
        let last = iova + (len - 1);
        let mut ranges = Vec::new();
        let Some(first) = self.first_within(iova, last) else { return ranges };
        for (at, leaf) in self.leaves.range_mut(first..=last).filter(|(_, leaf)| leaf.dirty) {
            let (from, to) = ((*at).max(iova), (at + (leaf.size - 1)).min(last));
            ranges.push((from, to - from + 1));
            leaf.dirty &= !clear;
        }
        merged(ranges)
    }

    /// Takes just a range away; what is left of leaves stands as it is until
    /// [`take_over_split`](Self::take_over_split). Answers how much that was.
    pub(crate) fn carve(&mut self, iova: u64, len: u64) -> u64 {
        let last = iova + (len - 1);
        let mut gone = 0;
        let Some(first) = self.first_within(iova, last) else { return gone };
        let cut: Vec<(u64, Leaf)> = self.leaves.range(first..=last).map(|(at, leaf)| (*at, *leaf)).collect();
        for (at, leaf) in cut {
            self.leaves.remove(&at);
            let end = at + (leaf.size - 1);
            if at < iova {
                self.leaves.insert(at, Leaf { size: iova - at, ..leaf });
            }
            if end > last {
                let behind = last + 1;
                self.leaves.insert(behind, Leaf { size: end - last, pa: leaf.pa + (behind - at), ..leaf });
            }
            gone += end.min(last) - at.max(iova) + 1;
        }
        gone
    }

    /// Leaves may have become smaller, and nothing else.
    pub(crate) fn take_over_split(&mut self, decoded: &Decoded) -> Result<(), String> {
        let mut leaves = BTreeMap::new();
        for leaf in &decoded.leaves {
            let whole = self.at(leaf.iova).ok_or(format!("{:#x} is mapped by a split", leaf.iova))?;
            let (start, old) = whole;
            let same = leaf.pa == old.pa + (leaf.iova - start) && leaf.says() == old.says;
            if !same || leaf.iova - start + leaf.size > old.size || leaf.dirty != old.dirty {
                return Err(format!("{leaf:x?} is no part of {old:x?} at {start:#x}"));
            }
            leaves.insert(leaf.iova, Leaf { size: leaf.size, pa: leaf.pa, says: old.says, dirty: old.dirty });
        }
        let length = |leaves: &BTreeMap<u64, Leaf>| leaves.values().map(|leaf| u128::from(leaf.size)).sum::<u128>();
        if length(&leaves) != length(&self.leaves) {
            return Err("a split took something away".into());
        }
        self.leaves = leaves;
        Ok(())
    }

    /// Whether tables hold exactly this.
    pub(crate) fn agrees_with(&self, decoded: &Decoded) -> Result<(), String> {
        let mut found = decoded.leaves.iter();
        for (iova, leaf) in self.leaves() {
            let Some(other) = found.next() else { return Err(format!("{iova:#x} is not mapped: {leaf:x?}")) };
            let read = (other.iova, Leaf { size: other.size, pa: other.pa, says: other.says(), dirty: other.dirty });
            if read != (iova, *leaf) {
                return Err(format!("{read:x?} is mapped and not {leaf:x?} at {iova:#x}"));
            }
        }
        found.next().map_or(Ok(()), |leaf| Err(format!("{leaf:x?} is mapped, which nobody asked for")))
    }
}

/// Neighbouring ranges as one.
pub(crate) fn merged(ranges: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, len) in ranges {
        match merged.last_mut() {
            Some((start, so_far)) if start.checked_add(*so_far) == Some(from) => *so_far += len,
            _ => merged.push((from, len)),
        }
    }
    merged
}

impl Shape {
    /// Whether hardware leaves a mark where it wrote.
    pub(crate) fn tracks_dirty(&self) -> bool {
        match self.layout {
            Layout::Vtd | Layout::Amd => true,
            Layout::X86 | Layout::ArmStage2 => false,
            Layout::ArmStage1 => self.hardware_dirty,
        }
    }
}
