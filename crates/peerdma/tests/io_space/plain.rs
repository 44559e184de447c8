//! Spaces without page tables: no IOMMU, and a small window.

use crate::contract::assert_kept;
use core::convert::Infallible;
use peerdma::access::Access;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::dma::contract::{AREA_UNITS, Fixture, Lent, Verdict};
use peerdma::dma::spaces::{DirectSpace, TcePage, TceSpace};
use peerdma::dma::{MemAttrs, Source, SourceKind, Windows};
use peerdma::iopt::{FrameArena, TableMemory};
use peerdma::sync::atomic::Ordering;
use peerdma::topology::HostWindow;

const LENT: PhysAddr = PhysAddr::new(0x8000_0000);

/// The machine without an IOMMU. What the CPU finds at an address, devices find `shift` lower.
pub(crate) struct Direct {
    space: DirectSpace,
    shift: u64,
    attrs: MemAttrs,
}

impl Direct {
    pub(crate) fn new(shift: u64, attrs: MemAttrs) -> Self {
        let memory = AddrRange::new(LENT, Bytes::new(0x4000_0000)).expect("a gibibyte far from the end");
        let window = HostWindow::new(memory, BusAddr::new(LENT.as_u64() - shift)).expect("as far from the end there");
        let windows = if shift == 0 { Windows::one_to_one() } else { Windows::new([window].into()) };
        Self { space: DirectSpace::new(windows, Iova::new(0xffff_ffff)), shift, attrs }
    }
}

impl Fixture for Direct {
    type Space = DirectSpace;

    fn space(&mut self) -> &mut DirectSpace {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<Infallible>> {
        let len = Bytes::new(AREA_UNITS * 4096);
        (kind == SourceKind::Physical).then_some(Lent { source: Source::Physical(LENT), len, attrs: self.attrs })
    }

    /// Where the wires lead, whatever is mapped.
    fn reaches(&mut self, iova: Iova, source: &Source<Infallible>, _access: Access) -> Option<bool> {
        let shift = if self.attrs.contains(MemAttrs::MMIO) { 0 } else { self.shift };
        Some(*source == Source::Physical(PhysAddr::new(iova.as_u64() + shift)))
    }
}

#[test]
fn without_an_iommu_the_contract_is_kept_with_and_without_an_offset() {
    for shift in [0, LENT.as_u64()] {
        for attrs in [MemAttrs::empty(), MemAttrs::MMIO] {
            let outcomes = assert_kept(&mut Direct::new(shift, attrs), 14);
            let choice = outcomes.iter().find(|outcome| outcome.claim.contains("several IOVAs")).unwrap();
            assert!(matches!(choice.verdict, Verdict::DoesNotApply { .. }), "{choice}");
        }
    }
}

/// A window, looked at by reading its table as the host bridge would.
struct Tce<'a> {
    space: TceSpace<&'a FrameArena>,
    arena: &'a FrameArena,
    shift: u32,
    attrs: MemAttrs,
}

impl<'a> Fixture for Tce<'a> {
    type Space = TceSpace<&'a FrameArena>;

    fn space(&mut self) -> &mut Self::Space {
        &mut self.space
    }

    fn lend(&mut self, kind: SourceKind) -> Option<Lent<Infallible>> {
        let len = Bytes::new(4 << self.shift);
        (kind == SourceKind::Physical).then_some(Lent { source: Source::Physical(LENT), len, attrs: self.attrs })
    }

    fn reaches(&mut self, iova: Iova, source: &Source<Infallible>, access: Access) -> Option<bool> {
        let number = (iova.as_u64() - self.space.window().start().as_u64()) >> self.shift;
        let frame = PhysAddr::new(self.space.root().as_u64() + (number / 512) * 4096);
        let bytes = self.arena.frame(frame)?[number as usize % 512].load(Ordering::Relaxed).to_ne_bytes();
        let right = match access {
            Access::Read => 1,
            Access::Write => 2,
        };
        let page = u64::from_be_bytes(bytes) & !0xfff;
        Some(bytes[7] & right != 0 && *source == Source::Physical(PhysAddr::new(page)))
    }
}

#[test]
fn a_small_window_keeps_the_contract_with_both_page_sizes() {
    for (page, shift, attrs) in
        [(TcePage::K4, 12, MemAttrs::empty()), (TcePage::K64, 16, MemAttrs::empty()), (TcePage::K4, 12, MemAttrs::MMIO)]
    {
        let arena = FrameArena::new(PhysAddr::new(0x10_0000), 64);
        let window = AddrRange::new(Iova::new(0x8000_0000), Bytes::new(0x200_0000)).unwrap();
        let space = TceSpace::new(&arena, window, page).unwrap();
        assert_kept(&mut Tce { space, arena: &arena, shift, attrs }, 20);
    }
}
