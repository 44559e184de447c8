//! CPU, IOMMU and host bridges of a file, and what of the file has no counterpart at all.

use super::devices::{shown, stand_in};
use super::{Export, Iommu, Refusal, Warning};
use peerdma::pcie::acs::AcsBits;
use peerdma::route::kernel_view::{Representative, Table, representative};
use peerdma::topology::{Cpu, CpuVendor, IommuMode};
use peerdma_emu::platform::{Function, FunctionAtomics, HostBridge, IommuKind, Parent, PeerForwarding, PortKind};

/// Largest family that CPUID can show: 0xf in the field and 0xff in its extension.
const LARGEST_FAMILY: u32 = 0x10e;

impl Export<'_> {
    /// QEMU's name for the file's CPU.
    pub(super) fn cpu(&mut self) -> String {
        let Some(Cpu { vendor, family, .. }) = self.platform.cpu() else {
            self.warnings.push(Warning::UnknownCpu);
            return "qemu64".to_string();
        };
        // Each with the family that QEMU's model has of itself.
        let (name, of_itself) = match vendor {
            CpuVendor::Amd if *family >= 0x17 => ("EPYC", 0x17),
            CpuVendor::Amd => ("qemu64", 0xf),
            CpuVendor::Intel => ("Nehalem", 6),
            CpuVendor::Hygon => ("Dhyana", 0x18),
            CpuVendor::Arm | CpuVendor::Other(_) => {
                self.refusals.push(Refusal::Cpu { vendor: vendor.to_string() });
                return String::new();
            }
        };
        if *family > LARGEST_FAMILY {
            self.refusals.push(Refusal::CpuFamily { family: *family });
        }
        if *family == of_itself { name.to_string() } else { format!("{name},family={family}") }
    }

    /// Chooses the IOMMU, from which it follows what Linux writes into ACS control words.
    pub(super) fn choose_iommu(&mut self) {
        let Some(iommu) = self.platform.iommu() else {
            self.warnings.push(Warning::UnknownIommu);
            return;
        };
        self.iommu = match iommu.kind {
            IommuKind::None => Iommu::None,
            IommuKind::Vtd | IommuKind::Amd if iommu.mode == IommuMode::None => {
                self.warnings.push(Warning::IommuOff);
                Iommu::None
            }
            IommuKind::Vtd => Iommu::Intel,
            IommuKind::Amd => {
                if iommu.mode == IommuMode::Translated {
                    self.warnings.push(Warning::AmdPassesThrough);
                }
                Iommu::Amd
            }
            IommuKind::Smmu | IommuKind::Window => {
                self.refusals.push(Refusal::Iommu { kind: iommu.kind.word() });
                Iommu::None
            }
        };
        if self.iommu != Iommu::None {
            self.boot_control = AcsBits::SV | AcsBits::RR | AcsBits::CR | AcsBits::UF;
        }
    }

    /// How the IOMMU is told its mode.
    pub(super) fn iommu_words(&self) -> Vec<String> {
        let words: &[&str] = match (self.iommu, self.platform.iommu().map(|iommu| iommu.mode)) {
            (Iommu::None, _) => &[],
            // Behind QEMU's AMD IOMMU drivers whose DMA Linux has translated find their devices
            // dead (seen with QEMU 10.0 and Linux 7.3: an NVMe controller does not identify).
            (Iommu::Amd, _) | (_, Some(IommuMode::Identity)) => &["iommu=pt"],
            // Kernels are configured for either.
            _ => &["iommu.passthrough=0"],
        };
        words.iter().map(|word| word.to_string()).collect()
    }

    /// Checks a host bridge: where it is, how it passes addresses, and how Linux takes it.
    pub(super) fn host(&mut self, host: &HostBridge) {
        let name = || host.name.clone();
        if host.segment != 0 {
            self.refusals.push(Refusal::Segment { name: name(), segment: host.segment });
        }
        if let Some(window) =
            host.windows.iter().find(|window| window.cpu.start().as_u64() != window.bus.start().as_u64())
        {
            let (cpu, bus) = (window.cpu.start(), window.bus.start());
            self.refusals.push(Refusal::OffsetWindow { name: name(), cpu, bus });
        }
        // On such a CPU Linux looks at no host bridge.
        if self.platform.cpu().is_some_and(Cpu::is_zen_or_newer) {
            return;
        }
        let topology = self.platform.topology();
        let shown = topology.host_bridges().map(|(_, shown)| shown);
        let Some(shown) =
            shown.into_iter().find(|shown| (shown.domain(), shown.bus()) == (host.segment, host.root_bus))
        else {
            return;
        };
        let Representative::Device(first) = representative(&topology, shown) else { return };
        match topology.function(first).info().registers.id {
            None => self.warnings.push(Warning::UnknownHostBridge { name: name() }),
            Some(id) => {
                if let Some(table) = Table::all().iter().find(|table| table.lists(id, true)) {
                    let series = table.to_string();
                    self.refusals.push(Refusal::ListedHostBridge { name: name(), id, series });
                }
            }
        }
    }

    /// What the file says that no device of QEMU shows, summed up by kind.
    pub(super) fn left_out(&mut self) {
        let platform = self.platform;
        let functions = |has: &dyn Fn(&Function) -> bool| -> Vec<String> {
            platform.functions().iter().filter(|function| has(function)).map(|function| function.name.clone()).collect()
        };
        let hosts = |has: &dyn Fn(&HostBridge) -> bool| -> Vec<String> {
            platform.host_bridges().iter().filter(|host| has(host)).map(|host| host.name.clone()).collect()
        };
        let conventional = |function: &Function| match function.parent {
            Parent::Port(port) => platform.port(port).kind == PortKind::PciePci,
            Parent::HostBridge(_) => false,
        };
        let lacks_bar = |function: &Function| shown(function, &stand_in(function, conventional(function))).1 > 0;
        let ports_with_id = platform.ports().iter().filter(|port| port.id.is_some()).map(|port| port.name.clone());
        let found = [
            ("vendor and device", ports_with_id.chain(functions(&|one| one.id.is_some())).collect()),
            ("host bridge's first device", hosts(&|host| host.first_device.is_some())),
            ("some BARs", functions(&lacks_bar)),
            ("resizable BARs", functions(&|one| one.bars.iter().any(|bar| !bar.resizable.is_empty()))),
            ("ATS", functions(&|one| one.ats)),
            ("PASID", functions(&|one| one.pasid_bits.is_some())),
            ("IOMMU mode of its own", functions(&|one| one.iommu_mode.is_some())),
            ("driver", functions(&|one| one.driver.is_some())),
            ("link", functions(&|one| one.link.is_some())),
            ("AtomicOps", functions(&|one| one.atomics != FunctionAtomics::default())),
            ("TDI state", functions(&|one| one.tdi.is_some())),
            ("forwarding between peers", hosts(&|host| host.peer != PeerForwarding::Forwards)),
            ("NUMA node", hosts(&|host| host.node.is_some())),
        ];
        for (what, objects) in found {
            if !objects.is_empty() {
                self.warnings.push(Warning::LeftOut { what, objects });
            }
        }
        if platform.kernel().is_some() {
            self.warnings.push(Warning::Kernel);
        }
        if !platform.ram().is_empty() {
            self.warnings.push(Warning::Ram);
        }
    }
}
