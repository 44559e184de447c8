//! Operations on a page table and on the model, held against each other after each.

use super::decoder::{Decoded, Layout, Shape};
use super::model::{Model, Refusal, merged};
use super::subject::{Failed, Subject, decode, device_write, open};
use super::{Rights, subject};
use std::collections::BTreeSet;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Map {
        iova: u64,
        pa: u64,
        len: u64,
        rights: Rights,
    },
    Unmap {
        iova: u64,
        len: u64,
    },
    UnmapExactly {
        iova: u64,
        len: u64,
    },
    Split {
        at: u64,
    },
    Replace {
        iova: u64,
        pa: u64,
        len: u64,
        rights: Rights,
    },
    /// A device writes, if it may.
    Write {
        iova: u64,
    },
    Dirty {
        iova: u64,
        len: u64,
        clear: bool,
    },
    Reclaim,
    Prune,
}

/// A page table of the crate, and what should be in it.
pub(crate) struct Pair {
    shape: Shape,
    subject: Box<dyn Subject>,
    model: Model,
    /// The tables after the last operation.
    decoded: Decoded,
    /// Tables taken out and not yet given back may hold frames.
    frames_at_least: bool,
}

impl Pair {
    pub(crate) fn new(shape: &Shape) -> Result<Self, String> {
        let (shape, subject, model) = (shape.clone(), open(shape)?, Model::new(shape));
        let decoded = decode(&*subject, &shape)?;
        Ok(Self { shape, subject, model, decoded, frames_at_least: false })
    }

    /// Performs an operation and compares all there is to see.
    pub(crate) fn apply(&mut self, op: Op) -> Result<(), String> {
        self.perform(op).and_then(|()| self.compare()).map_err(|why| format!("{op:x?}: {why}"))
    }

    /// Performs an operation with every allocation refused once: first all, then all but one, and so on.
    pub(crate) fn apply_without_memory(&mut self, op: Op) -> Result<(), String> {
        for allocations in 0.. {
            self.subject.memory().fail_after(Some(allocations));
            self.apply(op)?;
            if !self.subject.memory().fail_after(None) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn perform(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Map { iova, pa, len, rights } => self.map(iova, pa, len, rights),
            Op::Unmap { iova, len } => {
                if iova.checked_add(len.saturating_sub(1)).is_none() || len == 0 {
                    return Ok(());
                }
                let below = self.decoded.tables.iter().skip(1);
                let spans: BTreeSet<(u64, u64)> = below.map(|table| self.shape.span(table)).collect();
                let removed = self.subject.unmap(iova, len);
                let expected = self.model.unmap(iova, len, |at, size| spans.contains(&(at, size)));
                self.frames_at_least = true;
                (removed == expected).then_some(()).ok_or(format!("{removed:#x} bytes went and not {expected:#x}"))
            }
            Op::UnmapExactly { iova, len } => self.unmap_exactly(iova, len),
            Op::Split { at } => self.split(at),
            Op::Replace { iova, pa, len, rights } => {
                if iova.checked_add(len.saturating_sub(1)).is_none() || len == 0 {
                    return Ok(());
                }
                let replaced = self.subject.replace(iova, pa, len, rights);
                if replaced == Err(Failed::Unspeakable) {
                    return Ok(());
                }
                let expected = self.model.replace(iova, pa, len, rights);
                (replaced.is_ok() == expected).then_some(()).ok_or(format!("{replaced:?}, expected: {expected}"))
            }
            Op::Write { iova } => {
                // Hardware marks what it may write.
                if self.model.at(iova).is_some_and(|(_, leaf)| leaf.says.write) && self.model.write(iova) {
                    device_write(&*self.subject, &self.shape, iova)?;
                }
                Ok(())
            }
            Op::Dirty { iova, len, clear } => self.dirty(iova, len, clear),
            Op::Reclaim => {
                self.subject.reclaim();
                self.frames_at_least = false;
                Ok(())
            }
            Op::Prune => {
                self.subject.prune();
                self.frames_at_least = false;
                Ok(())
            }
        }
    }

    fn map(&mut self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), String> {
        let mapped = self.subject.map(iova, pa, len, rights);
        // A run that was undone may have taken an empty table out before.
        self.frames_at_least = true;
        if mapped == Err(Failed::Unspeakable) {
            return Ok(());
        }
        if mapped == Err(Failed::NoMemory) {
            return Ok(());
        }
        let expected = self.model.map(iova, pa, len, rights);
        match (&mapped, &expected) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(Failed::Map(errno, before)), Err(refusals)) => {
                let agrees = |refusal: &Refusal| match *refusal {
                    Refusal::Occupied(after) => (*errno, *before) == (self.errno(*refusal), after),
                    other => *errno == self.errno(other),
                };
                refusals.iter().any(agrees).then_some(()).ok_or(format!("{mapped:x?} and not {refusals:x?}"))
            }
            _ => Err(format!("{mapped:x?} and not {expected:x?}")),
        }
    }

    /// What Linux calls a refusal.
    fn errno(&self, refusal: Refusal) -> &'static str {
        match (refusal, self.shape.layout.is_arm()) {
            (Refusal::Misaligned, false) => "ENXIO",
            (Refusal::Misaligned, true) | (Refusal::ReadOnly, _) => "EINVAL",
            (Refusal::Range, _) => "ERANGE",
            (Refusal::Occupied(_), false) => "EADDRINUSE",
            (Refusal::Occupied(_), true) => "EEXIST",
        }
    }

    fn unmap_exactly(&mut self, iova: u64, len: u64) -> Result<(), String> {
        let removed = self.subject.unmap_exactly(iova, len);
        self.frames_at_least = true;
        let aligned = (iova | len).is_multiple_of(1 << self.shape.granule);
        let expected = match &removed {
            Err(Failed::Unspeakable) => return Ok(()),
            Ok(removed) => Some((*removed, self.model.carve(iova, len))),
            Err(_) => None,
        };
        self.model.take_over_split(&decode(&*self.subject, &self.shape)?)?;
        match (removed, expected) {
            (_, Some((removed, expected))) if removed != expected => {
                Err(format!("{removed:#x} bytes went and not {expected:#x}"))
            }
            // No shape here lacks a size between two others, so that every leaf can be split.
            (Err(Failed::Other(why)), None) if aligned && self.shape.holds(iova, len) => Err(why),
            _ => Ok(()),
        }
    }

    fn split(&mut self, at: u64) -> Result<(), String> {
        let result = self.subject.split(at);
        let decoded = decode(&*self.subject, &self.shape)?;
        self.model.take_over_split(&decoded)?;
        let crossing = self.model.at(at).is_some_and(|(start, _)| start != at);
        match result {
            Ok(()) if crossing => Err("a leaf still reaches over it".into()),
            // Off a page's border, or no page is small enough.
            Err(Failed::Other(why)) if !crossing && at.is_multiple_of(1 << self.shape.granule) => {
                if self.shape.reaches(at, self.shape.input_bits) { Err(why) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn dirty(&mut self, iova: u64, len: u64, clear: bool) -> Result<(), String> {
        if len == 0 || iova.checked_add(len - 1).is_none() {
            return Ok(());
        }
        let (result, ranges) = self.subject.dirty(iova, len, clear);
        let inside = self.shape.holds(iova, len);
        // Arm's first stage has an answer without marks too.
        let answers = self.shape.tracks_dirty() || self.shape.layout == Layout::ArmStage1;
        if result.is_ok() != (inside && answers) {
            return Err(format!("{result:?}"));
        }
        if result.is_err() {
            return if ranges.is_empty() { Ok(()) } else { Err(format!("{result:?} with {ranges:x?}")) };
        }
        let expected = self.model.dirty(iova, len, clear);
        let ranges = merged(ranges);
        (ranges == expected).then_some(()).ok_or(format!("{ranges:x?} is dirty and not {expected:x?}"))
    }

    /// Tables against the model, walks against tables, counts against both.
    fn compare(&mut self) -> Result<(), String> {
        self.decoded = decode(&*self.subject, &self.shape)?;
        let decoded = &self.decoded;
        self.model.agrees_with(decoded)?;
        // Runs of pages are alike; all of a few are looked at, and some of many.
        for leaf in decoded.leaves.iter().step_by(1 + decoded.leaves.len() / 64) {
            let last = leaf.iova + (leaf.size - 1);
            for iova in [leaf.iova, leaf.iova + leaf.size / 2 + 1, last] {
                let (found, _) = self.subject.walk(iova);
                if !found.is_some_and(|found| found.agrees_with(leaf, iova)) {
                    return Err(format!("a walk to {iova:#x} finds {found:x?} and not {leaf:x?}"));
                }
            }
            for iova in [leaf.iova.wrapping_sub(1), last.wrapping_add(1)] {
                if decoded.at(iova).is_none() && self.subject.walk(iova).0.is_some() {
                    return Err(format!("a walk to {iova:#x} finds something"));
                }
            }
        }
        let tables = self.subject.tables();
        if tables != decoded.tables.len() {
            return Err(format!("{tables} tables are counted, and there are {}", decoded.tables.len()));
        }
        let (frames, live) = (self.subject.table_bytes() / 4096, self.subject.memory().live_frames() as u64);
        if live < frames || (live > frames && !self.frames_at_least) {
            return Err(format!("{live} frames are taken for tables of {frames}"));
        }
        self.subject.memory().broken().map_or(Ok(()), Err)
    }

    /// The tables after the last operation.
    pub(crate) fn decoded(&self) -> &Decoded {
        &self.decoded
    }

    /// Unmaps everything, and sees that no frame stays behind.
    pub(crate) fn end(mut self) -> Result<(), String> {
        let leaves: Vec<(u64, u64)> = self.model.leaves().map(|(iova, leaf)| (iova, leaf.size)).collect();
        for (iova, len) in leaves {
            self.perform(Op::Unmap { iova, len })?;
        }
        self.apply(Op::Reclaim)?;
        self.apply(Op::Prune)?;
        let grown = usize::from(self.subject.root().1.abs_diff(self.shape.root_level()));
        // What grew at the top may have kept the way down to the old root.
        if self.subject.tables() > 1 + grown {
            return Err(format!("{} tables hold nothing", self.subject.tables()));
        }
        let memory: subject::Memory = self.subject.memory().clone();
        drop(self.subject);
        match (memory.live_frames(), memory.broken()) {
            (0, None) => Ok(()),
            (frames, broken) => Err(format!("{frames} frames are lost; {broken:?}")),
        }
    }

    pub(crate) fn subject(&self) -> &dyn Subject {
        &*self.subject
    }

    pub(crate) fn shape(&self) -> &Shape {
        &self.shape
    }
}

/// Performs operations on a new table; with `short`, each with every allocation refused once.
pub(crate) fn run(shape: &Shape, ops: &[Op], short: bool) -> Result<(), String> {
    let mut pair = Pair::new(shape)?;
    for (nth, op) in ops.iter().enumerate() {
        let applied = if short { pair.apply_without_memory(*op) } else { pair.apply(*op) };
        applied.map_err(|why| format!("operation {nth}, {why}"))?;
    }
    pair.end().map_err(|why| format!("at the end: {why}"))
}

/// Bytes of which one operation is drawn.
pub(crate) const BYTES: usize = 8;

/// Operations out of arbitrary bytes, near borders of tables and of the space; two in three of
/// those that change mappings fall on what earlier ones map.
pub(crate) fn drawn(shape: &Shape, bytes: impl IntoIterator<Item = [u8; BYTES]>) -> Vec<Op> {
    let mut mapped: Vec<(u64, u64)> = Vec::new();
    let mut ops = Vec::new();
    for bytes in bytes {
        let op = one(shape, bytes, &mapped);
        if let Op::Map { iova, len, .. } = op {
            mapped.push((iova, len));
        }
        ops.push(op);
    }
    ops
}

fn one(shape: &Shape, bytes: [u8; BYTES], mapped: &[(u64, u64)]) -> Op {
    let [kind, place, block, page, long, behind, low, rights] = bytes;
    let granule = 1_u64 << shape.granule;
    let entries = granule / 8;
    let large = granule * entries;
    let end = 1_u64.checked_shl(shape.input_bits).unwrap_or(0);
    let base = match place % 8 {
        0 => 0,
        // The last and the first tables that a root of three levels and more keeps apart.
        1 | 2 => (large * entries).wrapping_sub(large * 2),
        3 => large * 6,
        4 => end.wrapping_sub(large * 2),
        5 if shape.sign_extend => (end / 2).wrapping_sub(large * 2),
        5 => end / 2,
        6 => 0_u64.wrapping_sub(large * 4),
        _ => large * entries * 3,
    };
    let above = if shape.upper { !0 << shape.input_bits } else { 0 };
    let pages = match page % 16 {
        near @ 0..8 => u64::from(near),
        far @ 8..12 => entries - 12 + u64::from(far),
        12 => entries / 2,
        13 => 16,
        _ => 0,
    };
    let iova = (base.wrapping_add(u64::from(block % 4) * large) | above).wrapping_add(pages * granule);
    // Alike in their lower bits, so that large leaves fit, or in fewer, or hardly.
    let alike = match behind % 8 {
        0..5 => large * entries * 2 - 1,
        5 => large - 1,
        6 => granule * 16 - 1,
        _ => granule - 1,
    };
    // Without large leaves this would be very many.
    let huge = alike >= large && (shape.sizes == 0 || shape.sizes & large != 0);
    let memory = u64::from(behind / 8) * large * entries + u64::from(low % 4) * large * 3;
    let top = 1_u64 << shape.output_bits;
    let memory = if low > 250 { top - large } else { memory };
    let len = match long % 16 {
        few @ 0..6 => (1 + u64::from(few)) * granule,
        6 => 16 * granule,
        7 => (entries - pages % entries) * granule,
        8 | 9 => large,
        10 => large + 3 * granule,
        11 => large * 2,
        12 if huge => large * entries,
        13 if huge => large * entries + large + granule,
        14 => 16 * granule - (pages % 16) * granule,
        _ => granule,
    };
    // Now and then off a page's border.
    let off = |die: u8, address: u64| if die == 77 { address ^ (granule / 2) } else { address };
    let (mut iova, mut len) = (off(long, iova), off(block, len));
    if !matches!(kind, 0..110) && !mapped.is_empty() && low % 3 != 0 {
        (iova, len) = mapped[usize::from(block) % mapped.len()];
        match page % 8 {
            // The tail, the head, a page of it, or it and what follows.
            0 if len > granule => (iova, len) = (iova + granule, len - granule),
            1 if len > granule => len -= granule,
            2 => len = granule,
            3 if len > 2 * granule => (iova, len) = (iova + len / 2 / granule * granule, granule),
            4 => len = len.saturating_add(granule),
            _ => {}
        }
    }
    let pa = off(low, (iova & alike).wrapping_add(memory & !alike));
    let rights = Rights {
        read: rights & 3 != 1,
        write: rights & 3 != 2,
        cache: rights & 4 != 0,
        mmio: rights & 8 != 0,
        noexec: rights & 16 != 0,
        privileged: rights & 32 != 0,
    };
    // Ranges have an end in the types of the crate.
    let len = if iova.checked_add(len - 1).is_some() { len } else { iova.wrapping_neg() };
    match kind {
        0..110 => Op::Map { iova, pa, len, rights },
        110..150 => Op::Unmap { iova, len },
        150..170 => Op::UnmapExactly { iova, len },
        170..185 => Op::Split { at: iova },
        185..200 => Op::Replace { iova, pa, len, rights },
        200..225 => Op::Write { iova: iova | 5 },
        225..246 => Op::Dirty { iova, len, clear: rights.cache },
        246..251 => Op::Reclaim,
        251.. => Op::Prune,
    }
}
