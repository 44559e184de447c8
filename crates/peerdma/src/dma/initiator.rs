//! What is known of the device that will use a mapping.
//!
//! Everything that decides about its addresses and is no part of the address space: how
//! wide it can count, what it may be handed, whether its accesses are snooped, whether
//! the machine trusts it. Values come from the topology where it tells them, and from
//! the driver's author where it cannot.

use super::confidential::{Guest, Interface};
use super::engine::error::WhyBounce;
use crate::addr::Bytes;
use crate::route::domain::{Domain, Owner as DomainOwner};
use crate::topology::{FunctionId, IommuMode, Origin, Topology};
use alloc::string::{String, ToString};
use core::fmt;

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

impl Segments {
    /// The first limit that no segment can keep.
    pub(crate) fn impossible(&self) -> Option<SegmentLimit> {
        match self {
            Self { longest: Some(Bytes::ZERO), .. } => Some(SegmentLimit::Longest),
            Self { boundary: Some(boundary), .. } if !boundary.as_u64().is_power_of_two() => {
                Some(SegmentLimit::Boundary(*boundary))
            }
            Self { most: Some(0), .. } => Some(SegmentLimit::Most),
            _ => None,
        }
    }

    /// How long the first segment of `len` bytes at the number `start` is; neither is zero.
    #[inline]
    pub(super) fn first(&self, start: u64, len: u64) -> u64 {
        let len = self.longest.map_or(len, |longest| len.min(longest.as_u64()));
        self.boundary.map(Bytes::as_u64).map_or(len, |boundary| len.min(boundary - (start & (boundary - 1))))
    }

    /// How many segments `len` bytes at the number `start` are cut into; costs the same for any length.
    pub(crate) fn count(&self, start: u64, len: u64) -> u64 {
        let pieces = |len: u64| self.longest.map_or(1, |longest| len.div_ceil(longest.as_u64()));
        let Some(boundary) = self.boundary.map(Bytes::as_u64) else { return pieces(len) };
        let before = boundary - (start & (boundary - 1));
        let Some(after) = len.checked_sub(before).filter(|after| *after > 0) else { return pieces(len) };
        let (whole, rest) = (after / boundary, after % boundary);
        let rest = if rest == 0 { 0 } else { pieces(rest) };
        // Each segment has a byte, so there are no more than `len`.
        pieces(before) + whole * pieces(boundary) + rest
    }
}

/// A limit on segments that none can keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SegmentLimit {
    /// The longest segment has no bytes.
    Longest,
    /// The boundary is no power of two.
    Boundary(Bytes),
    /// There are no segments.
    Most,
}

impl fmt::Display for SegmentLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Longest => f.write_str("a longest segment of no bytes"),
            Self::Boundary(boundary) => write!(f, "a boundary of {boundary}, which is no power of two"),
            Self::Most => f.write_str("no segments at all"),
        }
    }
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
    pub(super) guest: Guest,
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
            guest: Guest::None,
            segments: Segments::default(),
            interface: Interface::default(),
            vfio: false,
            bus_addresses: true,
            privileged: false,
        }
    }

    /// A function of a machine: its place, the mode of its domain, and its mask where a driver set one.
    ///
    /// `None` if the input does not tell the mode. Memory can be mapped for one whose mode is stated
    /// ([`new`](Self::new)); routes to other functions are judged by what the topology tells.
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

    /// Stands in a machine that is this sort of guest: where its interface is not accepted, all memory
    /// is copied to what the guest shares, and memory is refused where copies are
    /// ([`Bouncing::Never`]). Without translation only, as [`Bouncing::Forced`].
    #[must_use]
    pub fn in_guest(mut self, guest: Guest) -> Self {
        self.guest = guest;
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

    /// When memory may be copied for it.
    pub fn bouncing(&self) -> Bouncing {
        self.bouncing
    }

    /// State of its interface to a confidential guest.
    pub fn interface(&self) -> Interface {
        self.interface
    }

    /// Why all its memory has to be copied, if it has.
    pub(crate) fn copies_all(&self) -> Option<WhyBounce> {
        if self.guest.bounces(self.interface) {
            return Some(WhyBounce::NotAccepted);
        }
        (self.bouncing == Bouncing::Forced).then_some(WhyBounce::Forced)
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
    fn a_confidential_guest_copies_for_devices_that_it_has_not_accepted() {
        let copied = |initiator: Initiator| initiator.copies_all();
        let nic = Initiator::new("nic", IommuMode::None).in_guest(Guest::Tdx);
        assert_eq!(copied(nic.clone()), Some(WhyBounce::NotAccepted));
        assert_eq!(copied(nic.clone().with_interface(Interface::Run)), None, "in whatever order it is said");
        assert_eq!(copied(nic.clone().with_bouncing(Bouncing::Never)), Some(WhyBounce::NotAccepted));
        assert_eq!(copied(nic.in_guest(Guest::None)), None);
        let forced = Initiator::new("nic", IommuMode::None).with_bouncing(Bouncing::Forced);
        assert_eq!(copied(forced), Some(WhyBounce::Forced));
    }

    proptest::proptest! {
        #[test]
        fn segments_are_as_many_as_cutting_gives(
            start in 0_u64..0x300, len in 1_u64..0x300, longest in proptest::option::of(1_u64..0x50),
            boundary in proptest::option::of(0_u32..10),
        ) {
            let boundary = boundary.map(|bits| Bytes::new(1 << bits));
            let limits = Segments { longest: longest.map(Bytes::new), boundary, most: None };
            let (mut at, end, mut pieces) = (start, start + len, 0);
            while at < end {
                at += limits.first(at, end - at);
                pieces += 1;
            }
            proptest::prop_assert_eq!((at, pieces), (end, limits.count(start, len)));
        }
    }

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
