//! What is known of the device that will use a mapping.
//!
//! Everything that decides about its addresses and is no part of the address space: how
//! wide it can count, what it may be handed, whether its accesses are snooped, whether
//! the machine trusts it. Values come from the topology where it tells them, and from
//! the driver's author where it cannot.

use super::confidential::Interface;
use crate::addr::Bytes;
use crate::route::domain::{Domain, Owner as DomainOwner};
use crate::topology::{FunctionId, IommuMode, Origin, Topology};
use alloc::string::{String, ToString};

/// When memory is copied through buffers that the device reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum Bouncing {
    /// Never: a chunk that would need it refuses the whole region. For consumers that keep a
    /// mapping for long, such as memory regions of RDMA, where nobody would copy in time.
    Never,
    /// Where a chunk cannot be mapped as it is: above the mask, or with parts of granules shared
    /// with an initiator that is not trusted.
    #[default]
    AsNeeded,
    /// Always, as under `swiotlb=force` and in confidential guests. Without translation only
    /// (Linux 7.2 `dma_direct_map_phys`; `iommu_dma_map_phys` does not ask).
    Forced,
}

/// What a device accepts in its list of segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Segments {
    /// Longest segment; for lengths of 32 bits 4 GiB less a granule.
    pub longest: Option<Bytes>,
    /// No segment crosses a multiple of this power of two.
    pub boundary: Option<Bytes>,
    /// How many segments one mapping may have.
    pub most: Option<usize>,
}

/// The device that will use a mapping.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma::dma::{Initiator, Segments};
/// use peerdma::topology::IommuMode;
///
/// let nic = Initiator::new("nic", IommuMode::Translated)
///     .with_mask_bits(48)
///     .with_segments(Segments { longest: Some(Bytes::new(0xffff_f000)), ..Segments::default() });
/// assert_eq!(nic.highest(), (1 << 48) - 1);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Initiator {
    pub(super) name: String,
    pub(super) function: Option<FunctionId>,
    pub(super) mode: IommuMode,
    pub(super) mask_bits: u8,
    pub(super) bus_limit: Option<u64>,
    pub(super) coherent: bool,
    pub(super) trusted: bool,
    pub(super) bouncing: Bouncing,
    pub(super) segments: Segments,
    pub(super) interface: Interface,
    pub(super) vfio: bool,
    pub(super) bus_addresses: bool,
    pub(super) privileged: bool,
}

impl Initiator {
    /// A coherent, trusted device with 64 address bits, in a domain of this mode.
    ///
    /// `name` is what errors call it.
    pub fn new(name: &str, mode: IommuMode) -> Self {
        Self {
            name: name.to_string(),
            function: None,
            mode,
            mask_bits: 64,
            bus_limit: None,
            coherent: true,
            trusted: true,
            bouncing: Bouncing::default(),
            segments: Segments::default(),
            interface: Interface::default(),
            vfio: false,
            bus_addresses: true,
            privileged: false,
        }
    }

    /// A function of a machine: its place, the mode of its domain, and its mask where a driver set one.
    ///
    /// `None` if the input does not tell the mode; ask whoever gave it and state it with
    /// [`new`](Self::new) and [`at`](Self::at).
    pub fn of(topology: &Topology, function: FunctionId) -> Option<Self> {
        let info = topology.function(function).info();
        let domain = Domain::of(topology, function);
        let mut initiator = Self::new(&info.address.to_string(), domain.mode?).at(function);
        initiator.vfio = domain.owner == DomainOwner::Vfio;
        // A bus address escapes the IOMMU, which a VFIO user has to ask for.
        initiator.bus_addresses = !initiator.vfio;
        // The mask of a driver that is not bound is the kernel's default and says nothing.
        let told = info.origin == Origin::Platform || (info.driver.is_some() && !initiator.vfio);
        if let Some(bits) = info.dma_mask_bits.filter(|_| told) {
            initiator.mask_bits = bits;
        }
        Some(initiator)
    }

    /// Places it in the topology, so that routes to other functions can be judged.
    #[must_use]
    pub fn at(mut self, function: FunctionId) -> Self {
        self.function = Some(function);
        self
    }

    /// Addresses it can form, in bits; more than 64 count as 64.
    #[must_use]
    pub fn with_mask_bits(mut self, bits: u8) -> Self {
        self.mask_bits = bits.min(64);
        self
    }

    /// The highest address that a bus above it passes on, inclusive (Linux: `bus_dma_limit`).
    #[must_use]
    pub fn with_bus_limit(mut self, highest: u64) -> Self {
        self.bus_limit = Some(highest);
        self
    }

    /// Says that its accesses are not snooped.
    #[must_use]
    pub fn not_coherent(mut self) -> Self {
        self.coherent = false;
        self
    }

    /// Says that it must not see bytes beside those it is given, as devices on external ports.
    #[must_use]
    pub fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }

    /// When memory may be copied for it.
    #[must_use]
    pub fn with_bouncing(mut self, bouncing: Bouncing) -> Self {
        self.bouncing = bouncing;
        self
    }

    /// What its list of segments accepts.
    #[must_use]
    pub fn with_segments(mut self, segments: Segments) -> Self {
        self.segments = segments;
        self
    }

    /// State of its interface to a confidential guest.
    #[must_use]
    pub fn with_interface(mut self, interface: Interface) -> Self {
        self.interface = interface;
        self
    }

    /// Maps for its privileged contexts only.
    #[must_use]
    pub fn privileged(mut self) -> Self {
        self.privileged = true;
        self
    }

    /// Asks for bus addresses on switch-direct routes although VFIO owns it: they escape the IOMMU.
    #[must_use]
    pub fn with_bus_addresses(mut self) -> Self {
        self.bus_addresses = true;
        self
    }

    /// Stands for a device that a process opened through VFIO, which gets IOVAs unless it asks otherwise.
    #[must_use]
    pub fn owned_by_vfio(mut self) -> Self {
        self.vfio = true;
        self.bus_addresses = false;
        self
    }

    /// What errors call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The mode of its domain.
    pub fn mode(&self) -> IommuMode {
        self.mode
    }

    /// Its place in the topology.
    pub fn function(&self) -> Option<FunctionId> {
        self.function
    }

    /// Whether its accesses are snooped.
    pub fn is_coherent(&self) -> bool {
        self.coherent
    }

    /// What its list of segments accepts.
    pub fn segments(&self) -> Segments {
        self.segments
    }

    /// The highest number that it can put on its bus, inclusive.
    pub fn highest(&self) -> u64 {
        let by_mask = match self.mask_bits {
            0 => 0,
            bits => u64::MAX >> (64 - u32::from(bits.min(64))),
        };
        self.bus_limit.map_or(by_mask, |limit| limit.min(by_mask))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_of_mask_and_bus_limit_counts() {
        let device = Initiator::new("nvme", IommuMode::None);
        assert_eq!(device.highest(), u64::MAX);
        assert_eq!(device.clone().with_mask_bits(32).highest(), 0xffff_ffff);
        assert_eq!(device.clone().with_mask_bits(32).with_bus_limit(0x3fff_ffff).highest(), 0x3fff_ffff);
        assert_eq!(device.clone().with_mask_bits(28).with_bus_limit(0x3fff_ffff).highest(), 0xfff_ffff);
        assert_eq!(device.with_mask_bits(200).highest(), u64::MAX);
    }
}
