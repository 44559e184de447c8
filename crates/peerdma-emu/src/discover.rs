//! Finds out what a machine is by reading its configuration space, as a kernel does.
//!
//! Bus by bus, from the root bus of each host bridge, every device and function number is asked
//! for its vendor; behind a bridge the walk goes on at its secondary bus. What answers is decoded
//! with [`Registers::decode`], sizes of BARs are found by writing ones to them, and all of it
//! becomes a [`Topology`]. What no register tells (the host bridges, RAM, CPU, kernel, IOMMU, and
//! what people call things) is taken from the platform file, as a kernel takes it from firmware.
//!
//! In one respect this is no kernel: function 0 need not be there for the others to be found,
//! since a platform file may leave it out.
//!
//! A scan of the registers says more than the file does where the file leaves something open: see
//! [`describe`](mod@crate::machine::describe) for what is chosen there. Apart from that the topology
//! is that of [`Platform::topology`].

mod requests;
#[cfg(test)]
mod tests;

pub use requests::reached;

use crate::config::Width;
use crate::platform::{HostBridge, Platform};
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::pcie::config::{ConfigSize, ConfigSpace};
use peerdma::pcie::decode::{HeaderType, Registers};
use peerdma::pcie::{DevFn, PciAddr};
use peerdma::topology::{Bar, Builder, FunctionInfo, Origin, Position, Topology};

const COMMAND: u16 = 0x04;
const MEMORY_SPACE: u32 = 2;
const BARS: u16 = 0x10;

/// Configuration requests to the functions of a machine.
pub trait ConfigAccess {
    /// Reads a register; all ones where nobody answers.
    fn read(&self, address: PciAddr, offset: u16, width: Width) -> u32;

    /// Writes a register; dropped where nobody answers.
    fn write(&self, address: PciAddr, offset: u16, width: Width, value: u32);

    /// Size of a memory BAR, by its first register; `None` if there is none.
    ///
    /// Found as Linux finds it (`__pci_size_bars`): memory space is disabled, ones are written,
    /// the lowest bit that stuck is the size, and everything is put back. Meanwhile the BAR does
    /// not answer, so a machine in which devices may be moving bytes tells sizes in another way,
    /// as sysfs' `resource` file does on a live one.
    fn bar_size(&self, address: PciAddr, index: u8, is_64_bit: bool) -> Option<Bytes> {
        let offset = BARS + 4 * u16::from(index);
        let command = self.read(address, COMMAND, Width::Two);
        self.write(address, COMMAND, Width::Two, command & !MEMORY_SPACE);
        let ones = |at: u16| {
            let before = self.read(address, at, Width::Four);
            self.write(address, at, Width::Four, !0);
            let stuck = self.read(address, at, Width::Four);
            self.write(address, at, Width::Four, before);
            u64::from(stuck)
        };
        let low = ones(offset);
        let high = if is_64_bit { ones(offset + 4) } else { 0 };
        self.write(address, COMMAND, Width::Two, command);
        let stuck = high << 32 | low & !0xf;
        let is_memory = low & 1 == 0;
        (is_memory && stuck != 0).then(|| Bytes::new(1 << stuck.trailing_zeros()))
    }
}

impl<A: ConfigAccess + ?Sized> ConfigAccess for &A {
    fn read(&self, address: PciAddr, offset: u16, width: Width) -> u32 {
        (**self).read(address, offset, width)
    }

    fn write(&self, address: PciAddr, offset: u16, width: Width, value: u32) {
        (**self).write(address, offset, width, value);
    }

    fn bar_size(&self, address: PciAddr, index: u8, is_64_bit: bool) -> Option<Bytes> {
        (**self).bar_size(address, index, is_64_bit)
    }
}

/// Enumerates the functions below the host bridges of `platform` and builds their topology.
pub fn discover(access: &impl ConfigAccess, platform: &Platform) -> Topology {
    let stated = platform.topology();
    let mut scan = Scan { access, stated: &stated, builder: Builder::new() };
    for host in platform.host_bridges() {
        scan.host_bridge(host);
    }
    let mut builder = scan.builder;
    for group in stated.groups() {
        builder.group(group.clone());
    }
    for (_, host) in stated.host_bridges() {
        builder.host_bridge(host.domain(), host.bus(), host.facts().clone());
    }
    *builder.machine() = stated.machine().clone();
    builder.build()
}

struct Scan<'a, A> {
    access: &'a A,
    stated: &'a Topology,
    builder: Builder,
}

impl<A: ConfigAccess> Scan<'_, A> {
    fn host_bridge(&mut self, host: &HostBridge) {
        let mut reached = [false; 256];
        let mut buses = vec![(host.root_bus, Position::RootBus { bus: host.root_bus })];
        while let Some((bus, position)) = buses.pop() {
            if std::mem::replace(&mut reached[usize::from(bus)], true) {
                continue;
            }
            for devfn in 0..=u8::MAX {
                let address = PciAddr::new(host.segment, bus, DevFn::new(devfn));
                let Some(info) = self.function(address, position, host) else { continue };
                let below = info.registers.buses.filter(|_| info.registers.header == Some(HeaderType::Bridge));
                // Registers may say anything; numbers that do not grow would lead in circles.
                if let Some(buses_below) = below.filter(|below| below.secondary > bus)
                    && buses_below.secondary <= host.last_bus
                {
                    buses.push((buses_below.secondary, Position::Below(address)));
                }
                self.builder.function(info);
            }
        }
    }

    fn function(&self, address: PciAddr, position: Position, host: &HostBridge) -> Option<FunctionInfo> {
        if self.access.read(address, 0, Width::Two) == Width::Two.ones() {
            return None;
        }
        let mut info = match self.stated.at(address) {
            Some(id) => self.stated.function(id).info().clone(),
            None => FunctionInfo { numa_node: host.node, ..FunctionInfo::new(address, position) },
        };
        info.position = position;
        info.origin = Origin::Platform;
        info.registers = Registers::decode(&Function::new(self.access, address));
        info.bars = self.bars(&info, host);
        Some(info)
    }

    fn bars(&self, info: &FunctionInfo, host: &HostBridge) -> Vec<Bar> {
        let bar = |register: &peerdma::pcie::decode::BarRegister| {
            let bus = register.memory?;
            let size = self.access.bar_size(info.address, register.index, register.is_64_bit);
            let cpu = size.and_then(|size| {
                let range: AddrRange<BusAddr> = AddrRange::new(bus, size)?;
                host.windows.iter().find_map(|window| window.to_cpu(&range))
            });
            Some(Bar { index: register.index, cpu, bus: Some(bus), size, prefetchable: register.prefetchable })
        };
        info.registers.bars.iter().filter_map(bar).collect()
    }
}

/// One function's registers, read as the decoder asks for them.
struct Function<'a, A> {
    access: &'a A,
    address: PciAddr,
    size: u16,
}

impl<'a, A: ConfigAccess> Function<'a, A> {
    /// Extended space is there if its first word is not all ones (Linux `pci_cfg_space_size_ext`).
    fn new(access: &'a A, address: PciAddr) -> Self {
        let first = access.read(address, 0x100, Width::Four);
        Self { access, address, size: if first == Width::Four.ones() { 256 } else { 4096 } }
    }
}

impl<A: ConfigAccess> ConfigSpace for Function<'_, A> {
    fn byte(&self, offset: u16) -> Option<u8> {
        (offset < self.size).then(|| self.access.read(self.address, offset, Width::One) as u8)
    }

    fn size(&self) -> ConfigSize {
        ConfigSize::Kernel(self.size)
    }
}
