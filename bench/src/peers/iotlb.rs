//! The software IOTLB of the crate `vm-memory`.

use vm_memory::iommu::Iotlb;
use vm_memory::{GuestAddress, Permissions};

/// Its table, with mappings of 4 KiB at these pairs of IOVA and target.
pub fn filled(pages: &[(u64, u64)]) -> Iotlb {
    let mut iotlb = Iotlb::new();
    for &(iova, target) in pages {
        // Permits whatever it is told; the error is for later versions.
        let _ = iotlb.set_mapping(GuestAddress(iova), GuestAddress(target), 4096, Permissions::ReadWrite);
    }
    iotlb
}

/// Where an access of 8 bytes goes, or 0.
#[inline]
pub fn translate(iotlb: &Iotlb, iova: u64) -> u64 {
    Iotlb::lookup(iotlb, GuestAddress(iova), 8, Permissions::Read)
        .ok()
        .and_then(|mut parts| parts.next())
        .map_or(0, |part| part.base.0)
}
