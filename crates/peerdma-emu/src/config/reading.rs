//! The fabric's own reading of the registers.
//!
//! Written from the specification, and not by way of `peerdma::pcie::decode`: that one serves
//! the resolver, and where the two read one register differently a comparison of the resolver
//! with the fabric shows it.

use super::bars::Bar;
use super::description::Header;
use super::layout::{acs, ats, bridge, express, header, msi, pasid, power, pri};
use super::space::Space;
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::express::PortType;

/// What VGA Enable adds to the windows of a bridge (PCIe 6.0 §7.5.1.3.13), first and last address.
const VGA: (u64, u64) = (0xa_0000, 0xb_ffff);
/// Low address bits that windows do not say: the base has zeros there, the limit ones.
const BELOW_GRANULE: u64 = 0xf_ffff;

/// An address in a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct BarHit {
    /// Which BAR, by its first register.
    pub index: u8,
    /// Bytes from its start to the address.
    pub offset: Bytes,
    /// Bytes from the address to its end, one at least.
    pub left: Bytes,
}

/// The two ACS registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Acs {
    /// Capability register.
    pub capability: u16,
    /// Control register, as the hardware obeys it.
    pub control: u16,
}

impl Space {
    /// Layout of the header.
    pub fn header(&self) -> Header {
        if self.is_bridge() { Header::Bridge } else { Header::Device }
    }

    /// What the PCI Express capability says that it is; `None` without one.
    pub fn port_type(&self) -> Option<PortType> {
        let at = self.at.express?;
        Some(PortType::from_field((self.word(at) >> express::TYPE_SHIFT) as u8))
    }

    /// Whether the function is in D0; in D3 it answers configuration requests alone.
    pub fn is_awake(&self) -> bool {
        self.at.power.is_none_or(|at| self.word(at + power::CONTROL) & power::STATE == 0)
    }

    /// Whether BARs and windows answer: Memory Space Enable, and awake.
    pub fn memory_enabled(&self) -> bool {
        self.word(header::COMMAND) & header::MEMORY_SPACE != 0 && self.is_awake()
    }

    /// Whether a function sends requests, and a bridge passes them up: Bus Master Enable, and
    /// awake.
    pub fn bus_master(&self) -> bool {
        self.word(header::COMMAND) & header::BUS_MASTER != 0 && self.is_awake()
    }

    /// Secondary and subordinate bus of a bridge, both inclusive; `None` of a device, and while
    /// they are unassigned.
    pub fn buses_below(&self) -> Option<(u8, u8)> {
        let word = self.word(bridge::BUSES);
        let (secondary, subordinate) = ((word >> 8) as u8, (word >> 16) as u8);
        (self.is_bridge() && secondary != 0).then_some((secondary, subordinate))
    }

    /// Whether a bridge's windows hold an address, Memory Space Enable left aside.
    pub fn window_claims(&self, address: BusAddr) -> bool {
        let address = address.as_u64();
        self.bounds().into_iter().flatten().any(|(first, last)| (first..=last).contains(&address))
    }

    /// A bridge's windows that are open, and what VGA Enable adds, Memory Space Enable left aside.
    ///
    /// A window over all 2^64 addresses, which no range can say, comes without its last byte.
    pub fn windows(&self) -> impl Iterator<Item = AddrRange<BusAddr>> + use<> {
        let range = |(first, last): (u64, u64)| {
            let len = (last - first).saturating_add(1);
            AddrRange::new(BusAddr::new(first), Bytes::new(len))
        };
        self.bounds().into_iter().flatten().filter_map(range)
    }

    /// First and last address of each window.
    fn bounds(&self) -> [Option<(u64, u64)>; 3] {
        if !self.is_bridge() {
            return [None; 3];
        }
        let open = |(first, last): (u64, u64)| (first <= last).then_some((first, last));
        let low = |word: u32| (u64::from(word & 0xfff0) << 16, u64::from(word >> 16 & 0xfff0) << 16 | BELOW_GRANULE);
        let memory = low(self.word(bridge::MEMORY));
        let (first, last) = low(self.word(bridge::PREFETCHABLE));
        let upper = |offset: u16| u64::from(self.word(offset)) << 32;
        let prefetchable =
            (first | upper(bridge::PREFETCHABLE_BASE_UPPER), last | upper(bridge::PREFETCHABLE_LIMIT_UPPER));
        let vga = self.word(header::INTERRUPT_AND_BRIDGE_CONTROL) & bridge::VGA_ENABLE != 0;
        [open(memory), open(prefetchable), vga.then_some(VGA)]
    }

    /// Whether it can be put to sleep: the power management capability.
    pub fn has_power_management(&self) -> bool {
        self.at.power.is_some()
    }

    /// Where the power state is written; its lowest two bits hold it.
    pub(crate) fn power_control_at(&self) -> Option<u16> {
        self.at.power.map(|at| at + power::CONTROL)
    }

    /// Where the device control register is.
    pub(crate) fn device_control_at(&self) -> Option<u16> {
        self.at.express.map(|at| at + express::CONTROL)
    }

    /// Where the ACS control register is, and each double word of the egress vector.
    pub(crate) fn acs_control_at(&self) -> Option<(u16, impl Iterator<Item = u16> + use<>)> {
        let at = self.at.acs?;
        let words = (0..at.egress_bits.div_ceil(32)).map(move |n| at.egress_word(n));
        Some((at.control + (at.control_shift / 8) as u16, words))
    }

    /// Where in which BAR an address lies, Memory Space Enable left aside.
    pub fn bar_hit(&self, address: BusAddr) -> Option<BarHit> {
        self.bars.iter().find_map(|bar| {
            let size = self.bar_size(bar);
            let offset = address.as_u64().checked_sub(self.bar_address(bar)).filter(|&offset| offset < size)?;
            Some(BarHit { index: bar.index, offset: Bytes::new(offset), left: Bytes::new(size - offset) })
        })
    }

    /// The addresses of the BAR with this first register, Memory Space Enable left aside.
    pub fn bar(&self, index: u8) -> Option<AddrRange<BusAddr>> {
        let bar = self.bars.iter().find(|bar| bar.index == index)?;
        AddrRange::new(BusAddr::new(self.bar_address(bar)), Bytes::new(self.bar_size(bar)))
    }

    /// First registers of all BARs.
    pub fn bar_indices(&self) -> impl Iterator<Item = u8> + '_ {
        self.bars.iter().map(|bar| bar.index)
    }

    fn bar_address(&self, bar: &Bar) -> u64 {
        let low = u64::from(self.word(bar.offset()) & !0xf);
        let high = if bar.is_64_bit { u64::from(self.word(bar.offset() + 4)) << 32 } else { 0 };
        (low | high) & !(self.bar_size(bar) - 1)
    }

    /// The ACS registers; `None` without the capability.
    pub fn acs(&self) -> Option<Acs> {
        let at = self.at.acs?;
        let control = self.word(at.control) >> at.control_shift;
        Some(Acs { capability: self.word(at.capability) as u16, control: control as u16 })
    }

    /// The n-th bit of the ACS egress vector; false past its size.
    pub fn egress_bit(&self, n: u8) -> bool {
        let n = u16::from(n);
        let Some(at) = self.at.acs.filter(|at| n < at.egress_bits) else { return false };
        self.word(at.egress_word(n / 32)) >> (n % 32) & 1 != 0
    }

    /// Whether the egress vector counts: P2P Egress Control of the capability.
    pub fn has_egress_vector(&self) -> bool {
        self.acs().is_some_and(|registers| registers.capability & acs::EGRESS_CONTROL != 0)
    }

    /// Port number; 0 without a PCI Express capability.
    pub fn port_number(&self) -> u8 {
        (self.express_word(express::LINK_CAPABILITIES) >> express::PORT_NUMBER_SHIFT) as u8
    }

    /// Largest payload that it sends and takes (MPS); `None` on conventional PCI.
    pub fn max_payload(&self) -> Option<Bytes> {
        self.payload(express::PAYLOAD_SHIFT)
    }

    /// Largest read that it requests (MRRS); `None` on conventional PCI.
    pub fn max_read_request(&self) -> Option<Bytes> {
        self.payload(express::READ_SHIFT)
    }

    fn payload(&self, shift: u32) -> Option<Bytes> {
        self.at.express?;
        // No write leaves a reserved encoding here.
        Some(Bytes::new(128 << (self.express_word(express::CONTROL) >> shift & 7)))
    }

    /// Whether its requests may ask for relaxed ordering; never on conventional PCI.
    pub fn relaxed_ordering(&self) -> bool {
        self.express_word(express::CONTROL) & express::RELAXED != 0
    }

    /// Whether its requests may ask for caches not to be looked at; never on conventional PCI.
    pub fn no_snoop(&self) -> bool {
        self.express_word(express::CONTROL) & express::NO_SNOOP != 0
    }

    /// Whether a port passes AtomicOps on.
    pub fn atomic_routing(&self) -> bool {
        self.express_word(express::CAPABILITIES_2) & express::ROUTES_ATOMICS != 0
    }

    /// Whether a port keeps AtomicOps from leaving by it.
    pub fn atomic_egress_blocked(&self) -> bool {
        self.express_word(express::CONTROL_2) & express::ATOMIC_EGRESS_BLOCKED != 0
    }

    /// Whether a function sends AtomicOps.
    pub fn atomic_requester(&self) -> bool {
        self.express_word(express::CONTROL_2) & express::ATOMIC_REQUESTER != 0
    }

    /// Whether a function's memory answers AtomicOps with operands of `len`: 4, 8 or, of
    /// compare-and-swap alone, 16 bytes.
    pub fn atomic_completes(&self, len: Bytes) -> bool {
        let bit = match len.as_u64() {
            4 => express::COMPLETES_4,
            8 => express::COMPLETES_8,
            16 => express::COMPLETES_16,
            _ => 0,
        };
        self.express_word(express::CAPABILITIES_2) & bit != 0
    }

    fn express_word(&self, offset: u16) -> u32 {
        self.at.express.map_or(0, |at| self.word(at + offset))
    }

    /// Whether the function may ask for translations and use them.
    pub fn ats_enabled(&self) -> bool {
        self.at.ats.is_some_and(|at| self.word(at + 4) & ats::ENABLE != 0)
    }

    /// Whether the function may ask for pages.
    pub fn pri_enabled(&self) -> bool {
        self.at.pri.is_some_and(|at| self.word(at + pri::CONTROL) & pri::ENABLE != 0)
    }

    /// How many page requests without a response the function may have; zero without the capability.
    pub fn page_requests_allocated(&self) -> u32 {
        self.at.pri.map_or(0, |at| self.word(at + pri::ALLOCATION).min(pri::CAPACITY))
    }

    /// Width in bits of the PASIDs that requests may carry; `None` unless they may.
    pub fn pasid_width(&self) -> Option<u8> {
        let word = self.word(self.at.pasid? + 4);
        (word & pasid::ENABLE != 0).then_some((word >> pasid::WIDTH_SHIFT & 0x1f) as u8)
    }

    /// What interrupt `vector` writes where; `None` unless messages are enabled and software
    /// granted as many (PCIe 6.0 §7.7.1.2: the lowest bits of the data count the messages).
    pub fn message(&self, vector: u16) -> Option<(BusAddr, u32)> {
        let at = self.at.msi?;
        let control = self.word(at);
        let granted_log2 = (control >> msi::ENABLED_SHIFT & 7).min(control >> msi::CAPABLE_SHIFT & 7);
        if control & msi::ENABLE == 0 || u32::from(vector) >> granted_log2 != 0 {
            return None;
        }
        let address = u64::from(self.word(at + msi::ADDRESS_UPPER)) << 32 | u64::from(self.word(at + msi::ADDRESS));
        let data = self.word(at + msi::DATA) & !((1 << granted_log2) - 1) | u32::from(vector);
        Some((BusAddr::new(address), data))
    }
}
