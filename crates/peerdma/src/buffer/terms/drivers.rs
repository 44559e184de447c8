//! What drivers of Linux say, as offers and declarations.
//!
//! Read in Linux 7.2 ([`compat`](crate::route::compat) holds what comes of their pairs there), for exporters that
//! wrap such a driver's buffer and importers that stand for one.

use super::declaration::{Contiguity, Declaration};
use super::offer::{Methods, Offer, OfferError, Place, Stays};
use super::{Enforcement, Lifetime};
use crate::access::Prot;
use crate::chunk::Chunks;
use crate::dma::{Initiator, Owner};
use crate::route::compat::{Class, Exporter, Importer};

impl Offer {
    /// Offers ranges of a buffer that a driver of Linux exports, as that driver treats it.
    ///
    /// VFIO's registers are mapped by its own file, not by the dma-buf, and iommufd asks it for frames by a
    /// private call; both count as permitted. A GPU's buffer gets the places to which its driver moves it
    /// with [`or_at`](Self::or_at).
    ///
    /// # Errors
    /// As [`new`](Self::new); [`OfferError::DriverUnknown`] for a driver that nobody has read: say what it
    /// does with `new`.
    pub fn of_driver(exporter: Exporter, ranges: Chunks<Owner>, place: Place) -> Result<Self, OfferError> {
        let by_cpu = Methods::DMA | Methods::CPU;
        let (stays, methods, peers) = match exporter {
            // `vfio_pci_dma_buf_move`: revoked by reset, D3, memory decoding and close; never moved.
            Exporter::Vfio => (Stays::UNTIL_REVOKED, by_cpu | Methods::FRAMES, true),
            // `memfd_pin_folios` for as long as the buffer lives; the heap's pages are the buffer's own.
            Exporter::Udmabuf | Exporter::DmaHeap => (Stays::ALWAYS, by_cpu, false),
            // `amdgpu_dma_buf_pin`, `xe_dma_buf_pin`: the buffer object is evicted unless it is pinned.
            Exporter::Amdgpu | Exporter::Xe => (Stays::UNLESS_PINNED, by_cpu, true),
            Exporter::Uverbs => return Err(OfferError::DriverUnknown { exporter: exporter.name() }),
        };
        let offer = Self::new(ranges, stays, place)?.permitting(methods);
        Ok(if peers { offer.to_peers() } else { offer })
    }
}

impl Declaration {
    /// What a driver of Linux says when it maps a buffer for `device`.
    ///
    /// iommufd maps for an I/O address space and whatever hangs on it, so `device` lends it its name alone.
    pub fn of_driver(importer: Importer, device: Initiator, prot: Prot) -> Self {
        let class = importer.class();
        let declaration = match importer {
            // `iopt_map_dmabuf` takes exactly one range, and its physical address.
            Importer::Iommufd => Self::of_tables(device.name(), prot).in_pieces(Contiguity::OneRange),
            _ => Self::of_device(device, prot),
        };
        let declaration = declaration.taking(match class {
            Class::Static | Class::Pinned => Lifetime::Pinned,
            Class::PinnedRevocable => Lifetime::Revocable,
            Class::Movable | Class::MovableInSystemMemory => Lifetime::Movable,
        });
        // A driver of the kernel that has `invalidate_mappings` lets go whatever its user does.
        let declaration = declaration.enforced(match class.lets_go() {
            true => Enforcement::Kernel,
            false => Enforcement::None,
        });
        if class.takes_peer_memory() { declaration.taking_peer_memory() } else { declaration }
    }
}
