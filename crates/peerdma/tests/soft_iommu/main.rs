//! The software IOMMU as devices see it: translations, faults, staleness, threads, and a
//! random life against a map of pages.

#![expect(clippy::unwrap_used, reason = "a test's own ranges and formats are well-formed")]

mod faults;
mod random;
mod stale;
mod tables;
#[cfg(feature = "std")]
mod threads;

use core::convert::Infallible;
use peerdma::access::Access;
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::Source;
use peerdma::dma::spaces::{Fault, InitiatorId, SoftIommu, Tlb};
use peerdma::iopt::{
    AmdOptions, AmdV1, ArmOptions, ArmStage1, ArmStage2, Format, FrameArena, Pages4K, TableMemory, VtdOptions,
    VtdSecondStage, X86FirstStage, X86Options,
};

const PAGE: u64 = 0x1000;
const LARGE: u64 = 0x20_0000;

fn arena(frames: usize) -> FrameArena {
    FrameArena::new(PhysAddr::new(0x4000_0000), frames)
}

fn vtd() -> VtdSecondStage {
    VtdSecondStage::new(VtdOptions::default()).unwrap()
}

fn amd() -> AmdV1 {
    AmdV1::new(AmdOptions::default()).unwrap()
}

fn x86() -> X86FirstStage {
    X86FirstStage::new(X86Options::default()).unwrap()
}

fn arm1() -> ArmStage1 {
    ArmStage1::<Pages4K>::new(ArmOptions::default()).unwrap()
}

fn arm2() -> ArmStage2 {
    ArmStage2::<Pages4K>::new(ArmOptions::default()).unwrap()
}

fn iova(start: u64, len: u64) -> AddrRange<Iova> {
    AddrRange::new(Iova::new(start), Bytes::new(len)).unwrap()
}

fn physical(at: u64) -> Source<Infallible> {
    Source::Physical(PhysAddr::new(at))
}

/// A cache of nobody in particular.
fn tlb() -> Tlb {
    Tlb::new(InitiatorId::new(7))
}

/// Where a read ends up.
fn read<F: Format, M: TableMemory>(iommu: &SoftIommu<F, M>, tlb: &mut Tlb, at: u64) -> Result<u64, Fault> {
    iommu.translate(tlb, Iova::new(at), Access::Read).map(PhysAddr::as_u64)
}

/// Where a write ends up.
fn write<F: Format, M: TableMemory>(iommu: &SoftIommu<F, M>, tlb: &mut Tlb, at: u64) -> Result<u64, Fault> {
    iommu.translate(tlb, Iova::new(at), Access::Write).map(PhysAddr::as_u64)
}
