//! The crate's page tables behind numbers, in frames that can run out.

use super::decoder::{Decoded, Layout, Shape};
use super::{Kind, Rights};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Cursor, Format, Frame, Gather, MapFaultKind, PageSizes,
    PageTable, Pages4K, Pages16K, Pages64K, SplitError, TableMemory, VtdOptions, VtdSecondStage, X86FirstStage,
    X86Options,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where frames begin; a multiple of every alignment that is asked for.
const BASE: u64 = 0x1_2340_0000;
const FRAMES: usize = 1 << 14;
/// What freed frames hold: present entries of every format that lead nowhere.
const POISON: u64 = 0x6000_dead_bee0_0e07;

/// Frames with an account of who has them.
pub(crate) struct Frames {
    frames: Vec<OnceCell<Box<Frame>>>,
    fresh: Cell<usize>,
    /// First frames of freed blocks, by length.
    free: RefCell<BTreeMap<usize, Vec<usize>>>,
    /// First frames of live blocks, and their length.
    live: RefCell<BTreeMap<usize, usize>>,
    /// How many allocations still succeed.
    left: Cell<Option<u32>>,
    refused: Cell<bool>,
    /// What nobody may do to frames, and was done.
    broken: RefCell<Option<String>>,
}

#[derive(Clone)]
pub(crate) struct Memory(Rc<Frames>);

impl Memory {
    fn new() -> Self {
        Self(Rc::new(Frames {
            frames: (0..FRAMES).map(|_| OnceCell::new()).collect(),
            fresh: Cell::new(0),
            free: RefCell::default(),
            live: RefCell::default(),
            left: Cell::new(None),
            refused: Cell::new(false),
            broken: RefCell::default(),
        }))
    }

    fn index(at: PhysAddr) -> Option<usize> {
        let offset = at.as_u64().checked_sub(BASE)?;
        offset.is_multiple_of(4096).then_some((offset / 4096) as usize)
    }

    /// All words of a block.
    fn fill(&self, first: usize, count: usize, value: u64) {
        for frame in &self.0.frames[first..first + count] {
            let frame = frame.get_or_init(|| Box::new([const { AtomicU64::new(0) }; 512]));
            frame.iter().for_each(|word| word.store(value, Ordering::Relaxed));
        }
    }

    pub(crate) fn live_frames(&self) -> usize {
        self.0.live.borrow().values().sum()
    }

    pub(crate) fn broken(&self) -> Option<String> {
        self.0.broken.borrow().clone()
    }

    /// Refuses all allocations after so many; `None` stops that. Answers whether any was refused.
    pub(crate) fn fail_after(&self, allocations: Option<u32>) -> bool {
        self.0.left.set(allocations);
        self.0.refused.replace(false)
    }
}

impl TableMemory for Memory {
    fn allocate(&self, count: usize) -> Option<PhysAddr> {
        let frames = &self.0;
        match frames.left.get() {
            Some(0) => {
                frames.refused.set(true);
                return None;
            }
            left => frames.left.set(left.map(|left| left - 1)),
        }
        let recycled = frames.free.borrow_mut().get_mut(&count).and_then(Vec::pop);
        let first = recycled.unwrap_or_else(|| {
            let first = frames.fresh.get().next_multiple_of(count);
            frames.fresh.set(first + count);
            first
        });
        if first + count > FRAMES {
            return None;
        }
        self.fill(first, count, 0);
        frames.live.borrow_mut().insert(first, count);
        Some(PhysAddr::new(BASE + first as u64 * 4096))
    }

    fn frame(&self, at: PhysAddr) -> Option<&Frame> {
        let index = Self::index(at)?;
        let live = self.0.live.borrow();
        let (first, count) = live.range(..=index).next_back()?;
        if index >= first + count {
            *self.0.broken.borrow_mut() = Some(format!("the frame at {at} was looked at, and is nobody's"));
            return None;
        }
        self.0.frames.get(index)?.get().map(|frame| &**frame)
    }

    fn free(&self, at: PhysAddr, count: usize) {
        let first = Self::index(at).unwrap_or(usize::MAX);
        if self.0.live.borrow_mut().remove(&first) != Some(count) {
            *self.0.broken.borrow_mut() = Some(format!("{count} frames at {at} were freed, and are nobody's"));
            return;
        }
        self.fill(first, count, POISON);
        self.0.free.borrow_mut().entry(count).or_default().push(first);
    }
}

/// Where a walk led.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) pa: u64,
    pub(crate) size: u64,
    pub(crate) entry: u64,
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    pub(crate) privileged: bool,
    /// Whether device memory; `None` where the format does not tell.
    pub(crate) device: Option<bool>,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Failed {
    NoMemory,
    /// Not mapped, for this reason of Linux's, after so many bytes.
    Map(&'static str, u64),
    /// What the types of the crate do not let anybody ask for.
    Unspeakable,
    Other(String),
}

/// One page table of any format.
pub(crate) trait Subject {
    fn map(&self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), Failed>;
    fn unmap(&self, iova: u64, len: u64) -> u64;
    /// Unmaps what is mapped in a range and nothing else.
    fn unmap_exactly(&self, iova: u64, len: u64) -> Result<u64, Failed>;
    fn split(&self, at: u64) -> Result<(), Failed>;
    fn replace(&self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), Failed>;
    fn dirty(&self, iova: u64, len: u64, clear: bool) -> (Result<(), &'static str>, Vec<(u64, u64)>);
    /// Where a walk leads, and the level in which it ends.
    fn walk(&self, iova: u64) -> (Option<Found>, Option<u8>);
    fn tables(&self) -> usize;
    fn table_bytes(&self) -> u64;
    fn root(&self) -> (u64, u8);
    fn reclaim(&mut self) -> usize;
    fn prune(&mut self) -> usize;
    fn memory(&self) -> &Memory;
}

struct Tables<F: Format> {
    layout: Layout,
    table: PageTable<F, Memory>,
    cursor: RefCell<Cursor>,
}

fn range(iova: u64, len: u64) -> Option<AddrRange<Iova>> {
    AddrRange::new(Iova::new(iova), Bytes::new(len))
}

fn split_failed(error: SplitError) -> Failed {
    match error {
        SplitError::NoMemory { .. } => Failed::NoMemory,
        other => Failed::Other(other.to_string()),
    }
}

impl<F: Format> Tables<F> {
    fn leaf(&self, rights: Rights) -> Option<peerdma::iopt::Leaf> {
        let prot = match (rights.read, rights.write) {
            (true, true) => Prot::ReadWrite,
            (true, false) => Prot::Read,
            (false, true) => Prot::Write,
            (false, false) => return None,
        };
        let mut attrs = MemAttrs::empty();
        attrs.set(MemAttrs::MMIO, rights.mmio);
        attrs.set(MemAttrs::NOT_SNOOPED, !rights.cache);
        attrs.set(MemAttrs::NO_EXECUTE, rights.noexec);
        attrs.set(MemAttrs::PRIVILEGED, rights.privileged);
        Some(self.table.leaf(prot, attrs))
    }
}

impl<F: Format> Subject for Tables<F> {
    fn map(&self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), Failed> {
        let (Some(iova), Some(leaf)) = (range(iova, len), self.leaf(rights)) else { return Err(Failed::Unspeakable) };
        let cursor = &mut *self.cursor.borrow_mut();
        // The way with the last frame at hand is taken by half of the calls.
        if pa >> F::PAGE_SHIFT & 1 == 1 {
            let near = self.table.near(cursor, iova.start(), iova);
            if near.is_some_and(|near| self.table.map_near(&near, iova, PhysAddr::new(pa), leaf)) {
                return Ok(());
            }
        }
        let mapped = self.table.map(cursor, iova, PhysAddr::new(pa), leaf);
        mapped.map_err(|fault| match fault.kind {
            MapFaultKind::NoMemory => Failed::NoMemory,
            kind => Failed::Map(kind.linux_errno(F::FAMILY), fault.mapped_before.as_u64()),
        })
    }

    fn unmap(&self, iova: u64, len: u64) -> u64 {
        let Some(iova) = range(iova, len) else { return 0 };
        let mut gather = Gather::new();
        let removed = self.table.unmap(&mut self.cursor.borrow_mut(), iova, &mut gather).as_u64();
        let asked = gather.range();
        let gathers = removed == 0 || asked.is_some_and(|range| range.start() <= iova.start());
        assert!(gathers, "{removed:#x} bytes went and {asked:?} is invalidated");
        removed
    }

    fn unmap_exactly(&self, iova: u64, len: u64) -> Result<u64, Failed> {
        let Some(whole) = range(iova, len) else { return Err(Failed::Unspeakable) };
        let cursor = &mut *self.cursor.borrow_mut();
        let mut removed = 0;
        if iova >> F::PAGE_SHIFT & 1 == 1 {
            let near = self.table.near(cursor, whole.start(), whole);
            removed = near.map_or(0, |near| self.table.unmap_near(&near, whole).as_u64());
        }
        let Some(rest) = range(iova.wrapping_add(removed), len - removed) else { return Ok(removed) };
        let mut gather = Gather::new();
        let gone = self.table.unmap_exactly(cursor, rest, &mut gather).map_err(split_failed)?.as_u64();
        assert!(gone == 0 || gather.range().is_some(), "{gone:#x} bytes went and nothing is invalidated");
        Ok(removed + gone)
    }

    fn split(&self, at: u64) -> Result<(), Failed> {
        self.table.split(Iova::new(at)).map_err(split_failed)
    }

    fn replace(&self, iova: u64, pa: u64, len: u64, rights: Rights) -> Result<(), Failed> {
        let (Some(iova), Some(leaf)) = (range(iova, len), self.leaf(rights)) else { return Err(Failed::Unspeakable) };
        let replaced = self.table.replace(&mut self.cursor.borrow_mut(), iova, PhysAddr::new(pa), leaf);
        replaced.map_err(|error| Failed::Other(error.to_string()))
    }

    fn dirty(&self, iova: u64, len: u64, clear: bool) -> (Result<(), &'static str>, Vec<(u64, u64)>) {
        let Some(iova) = range(iova, len) else { return (Err("EINVAL"), Vec::new()) };
        let mut ranges = Vec::new();
        let mut each = |range: AddrRange<Iova>| ranges.push((range.start().as_u64(), range.len().as_u64()));
        let result = self.table.read_dirty(iova, clear, &mut each);
        (result.map_err(|fault| fault.linux_errno(F::FAMILY)), ranges)
    }

    fn walk(&self, iova: u64) -> (Option<Found>, Option<u8>) {
        let found = match self.table.walk(Iova::new(iova)) {
            Ok(found) => found,
            Err(end) => return (None, end.level),
        };
        let level = found.level;
        let found = Found {
            pa: found.pa.as_u64(),
            size: found.page_size.as_u64(),
            entry: found.entry,
            read: found.prot.reads(),
            write: found.prot.writes(),
            execute: !found.attrs.contains(MemAttrs::NO_EXECUTE),
            privileged: found.attrs.contains(MemAttrs::PRIVILEGED),
            device: self.layout.is_arm().then_some(found.attrs.contains(MemAttrs::MMIO)),
        };
        (Some(found), Some(level))
    }

    fn tables(&self) -> usize {
        self.table.tables()
    }

    fn table_bytes(&self) -> u64 {
        self.table.table_bytes().as_u64()
    }

    fn root(&self) -> (u64, u8) {
        let root = self.table.root();
        (root.at.as_u64(), root.level)
    }

    fn reclaim(&mut self) -> usize {
        self.table.reclaim()
    }

    fn prune(&mut self) -> usize {
        self.table.prune()
    }

    fn memory(&self) -> &Memory {
        self.table.memory()
    }
}

impl Found {
    /// Whether a leaf of the decoder says the same; its entry may be another copy.
    pub(crate) fn agrees_with(&self, leaf: &super::Leaf, iova: u64) -> bool {
        let device = match leaf.kind {
            Kind::Untold => None,
            kind => Some(kind == Kind::Device),
        };
        let expected = Self {
            pa: leaf.pa + (iova - leaf.iova),
            size: leaf.size,
            entry: self.entry,
            read: leaf.read,
            write: leaf.write,
            execute: leaf.execute,
            privileged: leaf.privileged,
            device,
        };
        *self == expected
    }
}

/// Everything below a subject's root, by the decoder.
pub(crate) fn decode(subject: &dyn Subject, shape: &Shape) -> Result<Decoded, String> {
    let (at, level) = subject.root();
    // Words come in order, so the account of frames is asked once for each.
    let last: Cell<Option<(u64, &Frame)>> = Cell::new(None);
    shape.decode(at, level, &|at| {
        let start = at & !0xfff;
        let frame = match last.get() {
            Some((known, frame)) if known == start => frame,
            _ => frame_of(subject, start)?,
        };
        last.set(Some((start, frame)));
        Ok(frame[(at & 0xfff) as usize / 8].load(Ordering::Relaxed))
    })
}

fn frame_of(subject: &dyn Subject, at: u64) -> Result<&Frame, String> {
    subject.memory().frame(PhysAddr::new(at)).ok_or_else(|| format!("no table at {at:#x}"))
}

/// Marks an entry as hardware does where a device writes; `Err` as Linux's own hook has it.
pub(crate) fn device_write(subject: &dyn Subject, shape: &Shape, iova: u64) -> Result<(), String> {
    if !shape.tracks_dirty() {
        return Err("EOPNOTSUPP".into());
    }
    let decoded = decode(subject, shape)?;
    let (Some(_), Some(at)) = (decoded.at(iova), decoded.word_at(shape, iova)) else { return Err("ENOENT".into()) };
    let word = &frame_of(subject, at & !0xfff)?[(at & 0xfff) as usize / 8];
    match shape.layout {
        Layout::Amd => _ = word.fetch_or(1 << 6, Ordering::Relaxed),
        Layout::Vtd => _ = word.fetch_or(1 << 9, Ordering::Relaxed),
        // With DBM set a write takes AP[2] away.
        _ if word.load(Ordering::Relaxed) >> 51 & 1 == 1 => _ = word.fetch_and(!(1 << 7), Ordering::Relaxed),
        _ => {}
    }
    Ok(())
}

/// An empty page table of the crate's of this shape; `Err` if the crate refuses the shape.
pub(crate) fn open(shape: &Shape) -> Result<Box<dyn Subject>, String> {
    let bits = |bits: u32| bits as u8;
    let (input_bits, output_bits) = (bits(shape.input_bits), bits(shape.output_bits));
    let page_sizes = (shape.sizes != 0).then_some(PageSizes::from_bitmap(shape.sizes));
    let encrypted = shape.sme_bit.map(|bit| PhysAddr::new(1 << bit));
    let incoherent_walk = shape.incoherent_walk;
    let arm = ArmOptions {
        input_bits,
        output_bits,
        page_sizes,
        incoherent_walk,
        non_secure: shape.non_secure,
        upper_half: shape.upper,
        hardware_dirty: shape.hardware_dirty,
        forced_write_back: shape.forced_write_back,
        replace_tables: shape.replaces_tables,
    };
    match (shape.layout, shape.granule) {
        (Layout::Vtd, _) => {
            let (force_snoop, force_writeable) = (shape.force_snoop, shape.force_writeable);
            let options =
                VtdOptions { input_bits, output_bits, page_sizes, force_snoop, force_writeable, incoherent_walk };
            boxed(shape, VtdSecondStage::new(options))
        }
        (Layout::X86, _) => {
            let sign_extend = shape.sign_extend;
            let options = X86Options { input_bits, output_bits, page_sizes, sign_extend, encrypted, incoherent_walk };
            boxed(shape, X86FirstStage::new(options))
        }
        (Layout::Amd, _) => boxed(shape, AmdV1::new(AmdOptions { input_bits, output_bits, page_sizes, encrypted })),
        (Layout::ArmStage1, 12) => boxed(shape, ArmStage1::<Pages4K>::new(arm)),
        (Layout::ArmStage1, 14) => boxed(shape, ArmStage1::<Pages16K>::new(arm)),
        (Layout::ArmStage1, _) => boxed(shape, ArmStage1::<Pages64K>::new(arm)),
        (Layout::ArmStage2, 12) => boxed(shape, ArmStage2::<Pages4K>::new(arm)),
        (Layout::ArmStage2, 14) => boxed(shape, ArmStage2::<Pages16K>::new(arm)),
        (Layout::ArmStage2, _) => boxed(shape, ArmStage2::<Pages64K>::new(arm)),
    }
}

fn boxed<F: Format + 'static>(
    shape: &Shape,
    format: Result<F, impl std::error::Error>,
) -> Result<Box<dyn Subject>, String> {
    let format = format.map_err(|error| error.to_string())?;
    let table = PageTable::new(format, Memory::new()).map_err(|error| error.to_string())?;
    Ok(Box::new(Tables { layout: shape.layout, table, cursor: RefCell::new(Cursor::new()) }))
}
