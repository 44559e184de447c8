//! What an input says about a host bridge beside the devices below it.

use crate::addr::{AddrRange, BusAddr, Bytes, PhysAddr};
use alloc::vec::Vec;
use core::fmt;

/// Addresses that a host bridge passes down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct HostWindow {
    cpu: AddrRange<PhysAddr>,
    bus: AddrRange<BusAddr>,
}

impl HostWindow {
    /// The window that shows `cpu` from `bus` on below the host bridge; `None` if it
    /// would pass the end of the address space there.
    pub fn new(cpu: AddrRange<PhysAddr>, bus: BusAddr) -> Option<Self> {
        AddrRange::new(bus, cpu.len()).map(|bus| Self { cpu, bus })
    }

    /// As the CPU addresses it.
    pub fn cpu(&self) -> AddrRange<PhysAddr> {
        self.cpu
    }

    /// As it is addressed below the host bridge; of the same length.
    pub fn bus(&self) -> AddrRange<BusAddr> {
        self.bus
    }

    /// Whether both sides use the same numbers.
    pub fn is_one_to_one(&self) -> bool {
        self.cpu.start().as_u64() == self.bus.start().as_u64()
    }

    /// Where the CPU sees `bus`; `None` if any of it is outside the window.
    pub fn to_cpu(&self, bus: &AddrRange<BusAddr>) -> Option<AddrRange<PhysAddr>> {
        let offset = bus.start().as_u64().checked_sub(self.bus.start().as_u64())?;
        self.cpu.slice(Bytes::new(offset), bus.len())
    }

    /// Where `cpu` appears below the host bridge; `None` if any of it is outside the window.
    pub fn to_bus(&self, cpu: &AddrRange<PhysAddr>) -> Option<AddrRange<BusAddr>> {
        let offset = cpu.start().as_u64().checked_sub(self.cpu.start().as_u64())?;
        self.bus.slice(Bytes::new(offset), cpu.len())
    }
}

/// What a host bridge does with a request from below for another device below a host bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PeerForwarding {
    /// Delivers reads and writes.
    Forwards,
    /// Delivers writes; reads fail.
    WritesOnly,
    /// Drops writes and answers reads with all ones.
    AllOnes,
    /// Delivers nothing.
    Nothing,
}

impl PeerForwarding {
    /// Whether writes are delivered.
    pub const fn delivers_writes(self) -> bool {
        matches!(self, Self::Forwards | Self::WritesOnly)
    }

    /// Whether reads come back with the target's bytes.
    pub const fn delivers_reads(self) -> bool {
        matches!(self, Self::Forwards)
    }
}

impl fmt::Display for PeerForwarding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwards => "forwards reads and writes",
            Self::WritesOnly => "forwards writes, fails reads",
            Self::AllOnes => "drops writes and answers reads with all ones",
            Self::Nothing => "forwards nothing",
        })
    }
}

/// What an input says about one host bridge.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostBridgeFacts {
    /// Windows; empty where the input tells none.
    pub windows: Vec<HostWindow>,
    /// What it does with peer requests, where the input states it.
    pub peer: Option<PeerForwarding>,
    /// What the input calls it.
    pub name: Option<alloc::string::String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_at_an_offset_translates_both_ways_and_only_inside() {
        let cpu = AddrRange::new(PhysAddr::new(0x50_9100_0000), Bytes::new(0x100_0000)).unwrap();
        let window = HostWindow::new(cpu, BusAddr::new(0x9100_0000)).unwrap();
        let bar = AddrRange::new(BusAddr::new(0x9180_0000), Bytes::new(0x1000)).unwrap();
        assert_eq!(window.to_cpu(&bar).unwrap().start(), PhysAddr::new(0x50_9180_0000));
        assert_eq!(window.to_bus(&window.to_cpu(&bar).unwrap()), Some(bar));
        let beyond = AddrRange::new(BusAddr::new(0x91ff_f000), Bytes::new(0x2000)).unwrap();
        assert_eq!(window.to_cpu(&beyond), None);
        assert!(!window.is_one_to_one());
    }

    #[test]
    fn a_window_that_would_wrap_below_the_host_bridge_cannot_be_made() {
        let cpu = AddrRange::new(PhysAddr::new(0), Bytes::new(0x2000)).unwrap();
        assert_eq!(HostWindow::new(cpu, BusAddr::new(u64::MAX - 0xfff)), None);
    }
}
