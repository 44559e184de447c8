//! An engine and a target, with an address space in front of the engine.
//!
//! The engine is QEMU's `edu`, the target is BAR 2 of an `ivshmem-plain`, which is plain
//! memory. Whether bytes arrive is not asked of the engine, since it reports success
//! whatever the IOMMU does: the target's own mapping is compared, byte by byte, with what
//! was there before and with what was sent.
//!
//! Spaces are asked without the library's checks (`peerdma_linux::raw`), as the claims are about the
//! kernel's answers.

use super::answer::taken;
use super::claim::Stop;
use super::kernel_log::KernelLog;
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::dma::{Errno, Prot};
use peerdma::pcie::PciAddr;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::memory::Pages;
use peerdma_linux::vfio::{BarIndex, BarMapping, BarRange, Command, VfioDevice};

/// Smallest page, and the unit of everything here.
pub(crate) const PAGE: Bytes = Bytes::new(4096);

/// Where claims map: above 32 bits, far from every reserved range.
pub(super) const HERE: Iova = Iova::new(0x2_0000_0000);

/// Where else claims map.
pub(super) const ELSEWHERE: Iova = Iova::new(0x3_0000_0000);

/// Where the memory lies through which bytes get into the engine and out of it.
pub(super) const STAGING: Iova = Iova::new(0x1_0000_0000);

/// How much of the target's BAR claims use.
pub(crate) const USED: Bytes = Bytes::new(4 * 4096);

/// BAR 2: that is where `ivshmem-plain` has its memory.
pub(crate) const MEMORY_BAR: u8 = 2;

/// An address space that maps what it is told.
pub(super) trait Space {
    /// Maps memory of this process.
    fn map_memory(&self, prot: Prot, from: ProcVa, iova: Iova, len: Bytes) -> Result<(), Errno>;

    /// Unmaps a range; the bytes that were mapped.
    fn unmap(&self, iova: Iova, len: Bytes) -> Result<Bytes, Errno>;

    /// Unmaps everything.
    fn unmap_all(&self) -> Result<Bytes, Errno>;

    /// Opens a device so that it can be used with this space.
    fn device(&self, address: PciAddr) -> Result<VfioDevice, Stop>;
}

/// The engine, the target and the space.
pub(super) struct Bench<S> {
    pub(super) space: S,
    pub(super) engine: Edu,
    pub(super) staging: Pages,
    target: PciAddr,
    /// `None` while a claim has closed it.
    opened: Option<Opened>,
    /// Counts transfers, so that no two of them send the same bytes.
    seed: u64,
}

/// The target while it is open. Fields are dropped in this order: a mapping keeps its device open.
struct Opened {
    bar: BarMapping,
    device: VfioDevice,
}

/// What became of a transfer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Every byte arrived, and none beside them changed.
    Arrived,
    /// Not one did.
    Lost,
    /// Some did, or others changed: the first offset that is wrong.
    Damaged(usize),
}

impl<S: Space> Bench<S> {
    /// Takes an initiator that has been opened and given the space.
    pub(super) fn new(space: S, initiator: VfioDevice, target: PciAddr) -> Result<Self, Stop> {
        let staging = Pages::zeroed(PAGE)?;
        let engine = Edu::new(initiator)?;
        let mut bench = Self { space, engine, staging, target, opened: None, seed: 0 };
        bench.clear()?;
        Ok(bench)
    }

    /// Unmaps everything and sees to it that the target is open and switched on.
    pub(super) fn clear(&mut self) -> Result<(), Stop> {
        taken("unmapping everything", self.space.unmap_all())?;
        let from = self.staging.address();
        taken("mapping the staging memory", self.space.map_memory(Prot::ReadWrite, from, STAGING, PAGE))?;
        if self.opened.is_none() {
            self.open_target()?;
        }
        self.device()?.set_command(Command::MEMORY)?;
        Ok(())
    }

    /// The target.
    pub(super) fn device(&self) -> Result<&VfioDevice, Stop> {
        self.opened.as_ref().map(|opened| &opened.device).ok_or_else(closed)
    }

    /// The target's memory in the CPU's reach.
    pub(super) fn bar(&self) -> Result<&BarMapping, Stop> {
        self.opened.as_ref().map(|opened| &opened.bar).ok_or_else(closed)
    }

    /// Where the target's memory is in this process.
    pub(super) fn bar_address(&self) -> Result<ProcVa, Stop> {
        let range = self.bar()?.process_range(used()?);
        Ok(range.ok_or_else(|| Stop::broken("the BAR's mapping does not hold what was mapped"))?.start())
    }

    /// Closes the target, and its mapping, which would keep it open.
    pub(super) fn close_target(&mut self) {
        self.opened = None;
    }

    /// Opens it again.
    pub(super) fn open_target(&mut self) -> Result<(), Stop> {
        let device = self.space.device(self.target)?;
        device.set_command(Command::MEMORY)?;
        let bar = device.map(used()?)?;
        self.opened = Some(Opened { bar, device });
        Ok(())
    }

    /// Unmaps the target's memory from this process, and maps it anew somewhere.
    pub(super) fn remap_bar(&mut self) -> Result<(), Stop> {
        let Opened { bar, device } = self.opened.take().ok_or_else(closed)?;
        drop(bar);
        let bar = device.map(used()?)?;
        self.opened = Some(Opened { bar, device });
        Ok(())
    }

    /// The engine writes a page to `iova`; what became of it at `offset` of the target's memory.
    pub(super) fn write(&mut self, iova: Iova, offset: Bytes) -> Result<Fate, Stop> {
        let (before, sent) = (self.pattern(USED), self.pattern(PAGE));
        self.fill_target(&before)?;
        self.send(&sent, iova)?;
        self.fate_in_target(&before, &sent, offset)
    }

    /// Breaks the claim unless a write to `iova` goes nowhere and the IOMMU logs that it stopped it.
    ///
    /// Written again where the log says nothing, since not every fault gets there; by the last
    /// time the kernel's limit of lines has been lifted again.
    pub(super) fn expect_fault(&mut self, what: &str, iova: Iova) -> Result<(), Stop> {
        const TIMES: usize = 20;
        let mut log = KernelLog::from_now()?;
        for _ in 0..TIMES {
            expect(what, Fate::Lost, self.write(iova, Bytes::ZERO)?)?;
            if log.shows_fault_of(self.engine.device().address())? {
                return Ok(());
            }
        }
        let (device, seen) = (self.engine.device().address(), log.summary());
        Err(Stop::Broken(format!("{what}: expected a fault of {device} in the kernel's log, seen {seen:?}")))
    }

    /// Fills the target's used memory.
    pub(super) fn fill_target(&self, bytes: &[u8]) -> Result<(), Stop> {
        Ok(self.bar()?.write(Bytes::ZERO, bytes)?)
    }

    /// The engine writes `sent` to `iova`.
    pub(super) fn send(&mut self, sent: &[u8], iova: Iova) -> Result<(), Stop> {
        self.staging.write(Bytes::ZERO, sent)?;
        let len = Bytes::new(sent.len() as u64);
        self.engine.fetch(STAGING, len)?;
        Ok(self.engine.store(iova, len)?)
    }

    /// What became of `sent` at `offset` of the target's memory, which held `before`.
    pub(super) fn fate_in_target(&self, before: &[u8], sent: &[u8], offset: Bytes) -> Result<Fate, Stop> {
        let mut after = vec![0; before.len()];
        self.bar()?.read(Bytes::ZERO, &mut after)?;
        Ok(fate(before, sent, offset.as_u64() as usize, &after))
    }

    /// The engine reads a page from `iova`; whether it is what stands at `offset` of the target's memory.
    ///
    /// A read that the IOMMU stops gives the engine something (QEMU: zeros), hence
    /// [`Fate::Lost`] is anything in which no aligned word is right.
    pub(super) fn read(&mut self, iova: Iova, offset: Bytes) -> Result<Fate, Stop> {
        let bytes = self.pattern(USED);
        self.fill_target(&bytes)?;
        self.engine.fetch(iova, PAGE)?;
        let seen = self.buffer(PAGE)?;
        let start = offset.as_u64() as usize;
        let expected =
            bytes.get(start..start + seen.len()).ok_or_else(|| Stop::broken("the claim reads past what it uses"))?;
        Ok(fate_of_read(expected, &seen))
    }

    /// What the engine's buffer holds.
    pub(super) fn buffer(&mut self, len: Bytes) -> Result<Vec<u8>, Stop> {
        self.engine.store(STAGING, len)?;
        let mut seen = vec![0; len.as_u64() as usize];
        self.staging.read(Bytes::ZERO, &mut seen)?;
        Ok(seen)
    }

    /// Bytes that were never sent before, no word of which is zero or stands twice.
    pub(crate) fn pattern(&mut self, len: Bytes) -> Vec<u8> {
        self.seed += 1;
        pattern(self.seed, len.as_u64() as usize)
    }
}

/// The part of the target's memory that claims use.
pub(super) fn used() -> Result<BarRange, Stop> {
    memory(Bytes::ZERO, USED)
}

/// A part of the target's memory.
pub(super) fn memory(offset: Bytes, len: Bytes) -> Result<BarRange, Stop> {
    let range = BarIndex::new(MEMORY_BAR).and_then(|bar| BarRange::new(bar, offset, len));
    range.ok_or_else(|| Stop::broken("the claim names a range that does not exist"))
}

fn closed() -> Stop {
    Stop::broken("the claim uses the target after closing it")
}

/// `len` bytes for a seed: words that no other seed gives.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let words = (1..).map(|word: u64| (seed << 32 | word).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.flatten().take(len).collect()
}

/// What became of `sent` at `offset` in memory that held `before`.
fn fate(before: &[u8], sent: &[u8], offset: usize, after: &[u8]) -> Fate {
    if after == before {
        return Fate::Lost;
    }
    let mut expected = before.to_vec();
    if let Some(part) = expected.get_mut(offset..offset + sent.len()) {
        part.copy_from_slice(sent);
    }
    match after.iter().zip(&expected).position(|(seen, expected)| seen != expected) {
        None => Fate::Arrived,
        Some(at) => Fate::Damaged(at),
    }
}

fn fate_of_read(expected: &[u8], seen: &[u8]) -> Fate {
    if seen == expected {
        return Fate::Arrived;
    }
    let right = seen.chunks(8).zip(expected.chunks(8)).position(|(seen, expected)| seen == expected);
    match right {
        None => Fate::Lost,
        Some(_) => Fate::Damaged(seen.iter().zip(expected).position(|(seen, expected)| seen != expected).unwrap_or(0)),
    }
}

/// Breaks the claim unless the transfer ended so.
pub(super) fn expect(what: &str, expected: Fate, seen: Fate) -> Result<(), Stop> {
    super::claim::equal(what, &expected, &seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_patterns_share_a_word() {
        let (one, other) = (pattern(1, 4096), pattern(2, 4096));
        let words: std::collections::BTreeSet<_> = one.chunks(8).chain(other.chunks(8)).collect();
        assert_eq!(words.len(), 1024);
        assert!(!words.contains(&[0; 8][..]));
        assert_eq!(pattern(3, 13).len(), 13);
    }

    #[test]
    fn a_byte_too_many_or_too_few_is_damage() {
        let before = vec![1; 16];
        let arrived = [vec![1; 4], vec![2; 4], vec![1; 8]].concat();
        assert_eq!(fate(&before, &[2; 4], 4, &arrived), Fate::Arrived);
        assert_eq!(fate(&before, &[2; 4], 4, &before), Fate::Lost);
        let beside = [vec![1; 4], vec![2; 5], vec![1; 7]].concat();
        assert_eq!(fate(&before, &[2; 4], 4, &beside), Fate::Damaged(8));
        let short = [vec![1; 4], vec![2; 3], vec![1; 9]].concat();
        assert_eq!(fate(&before, &[2; 4], 4, &short), Fate::Damaged(7));
        assert_eq!(fate(&before, &[2; 4], 8, &arrived), Fate::Damaged(4));
    }

    #[test]
    fn a_read_that_gives_zeros_is_lost_and_half_a_read_is_damage() {
        let expected = pattern(1, 32);
        assert_eq!(fate_of_read(&expected, &expected), Fate::Arrived);
        assert_eq!(fate_of_read(&expected, &[0; 32]), Fate::Lost);
        let half = [&expected[..16], &[0; 16]].concat();
        assert_eq!(fate_of_read(&expected, &half), Fate::Damaged(16));
    }
}
