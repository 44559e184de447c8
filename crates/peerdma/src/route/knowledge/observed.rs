//! Reports, each from a public thread or from reading a driver.
//!
//! An entry says what was seen and no more: a root complex that forwards between two of
//! its ports is not known to forward to another socket, and one CPU model does not speak
//! for its family.

use super::{End, Entry, Finding, Ids, Key};
use crate::topology::CpuVendor;
use alloc::borrow::Cow::Borrowed;
use core::ops::RangeInclusive;

const INTEL: u16 = 0x8086;
const AMD: u16 = 0x1022;
const PLX: u16 = 0x10b5;
/// Broadcom, which makes PLX switches now.
const BROADCOM: u16 = 0x1000;
/// Families of vendors that have none.
const ALL_FAMILIES: RangeInclusive<u32> = 0..=u32::MAX;

/// Boards of two makers with the same switches, laid out alike.
const TWO_VIRTUAL_SWITCHES: &str = "each switch chip is two virtual switches with an uplink each; posted writes from two \
                                    sources to two root ports fall to 2.7 GB/s";

const fn root_complex(vendor: u16, device: u16) -> Key {
    Key::RootComplex(Ids { vendor, device: Some(device) })
}

const fn exporter(name: &'static str) -> Key {
    Key::Driver { name, end: End::Target }
}

static OBSERVED: [Entry; 13] = [
    Entry {
        key: root_complex(INTEL, 0x4c43),
        finding: Finding::AllOnes,
        what: Borrowed(
            "Rocket Lake-S: forced into Linux's list, a copy between root ports succeeds and holds all ones",
        ),
        source: Borrowed("intel/compute-runtime#935"),
        checked: Borrowed("June 2026, two GPUs on CPU root ports, intel_iommu=off"),
    },
    Entry {
        key: root_complex(INTEL, 0x6f00),
        finding: Finding::WorksWhenPatched,
        what: Borrowed(
            "Broadwell-E: Linux does not list it; with the check patched out peers reach each other at 10.2 GB/s",
        ),
        source: Borrowed("ROCm/ROCR-Runtime#355, ROCm/legacy-rocm-build#787"),
        checked: Borrowed("one socket, patched kernel"),
    },
    Entry {
        key: root_complex(AMD, 0x14d8),
        finding: Finding::Forwards,
        what: Borrowed("AM5: two GPUs on two root ports copy both ways, bytes compared"),
        source: Borrowed("a log posted around intel/compute-runtime#935"),
        checked: Borrowed("AMD family 0x1a, Linux's Zen rule in force"),
    },
    Entry {
        key: Key::Cpu { vendor: CpuVendor::Intel, families: 6..=6, models: &[0xc6] },
        finding: Finding::WritesOnly,
        what: Borrowed(
            "Arrow Lake-S: between root ports a NIC writes GPU memory at line rate and every read fails, without AER; the GPU's vendor says of Intel client CPUs in general that they take peer writes only",
        ),
        source: Borrowed("NVIDIA/open-gpu-kernel-modules#1253"),
        checked: Borrowed(
            "July 2026, Core Ultra 9 285K; the CPU's model stands for the root complex, whose ID the report does not give",
        ),
    },
    Entry {
        key: Key::PlatformName("Arrow Lake-S"),
        finding: Finding::WritesOnly,
        what: Borrowed("Arrow Lake-S: between root ports writes arrive and reads fail, without AER"),
        source: Borrowed("NVIDIA/open-gpu-kernel-modules#1253"),
        checked: Borrowed("July 2026, Core Ultra 9 285K on Z890"),
    },
    Entry {
        key: exporter("amdgpu"),
        finding: Finding::NoBusAddresses,
        what: Borrowed(
            "exports device memory mapped with dma_map_resource: importers get CPU addresses or IOVAs, never bus addresses, also below one switch",
        ),
        source: Borrowed("Linux drivers/gpu/drm/amd/amdgpu/amdgpu_vram_mgr.c:amdgpu_vram_mgr_alloc_sgt"),
        checked: Borrowed("Linux 7.2.13"),
    },
    Entry {
        key: exporter("xe"),
        finding: Finding::NoBusAddresses,
        what: Borrowed(
            "exports device memory mapped with dma_map_resource: importers get CPU addresses or IOVAs, never bus addresses, also below one switch",
        ),
        source: Borrowed("Linux drivers/gpu/drm/xe/xe_ttm_vram_mgr.c:xe_ttm_vram_mgr_alloc_sgt"),
        checked: Borrowed("Linux 7.2.13"),
    },
    Entry {
        key: exporter("nvidia"),
        finding: Finding::BusAddressesOnly,
        what: Borrowed(
            "hands importers addresses out of its BAR also where VT-d translates them; every peer write is dropped until the importer maps them itself",
        ),
        source: Borrowed("NVIDIA/open-gpu-kernel-modules#1324"),
        checked: Borrowed("VT-d, translated domains"),
    },
    Entry {
        key: Key::Switch(Ids { vendor: PLX, device: None }),
        finding: Finding::FirmwareNote,
        what: Borrowed(
            "a BIOS that says ACS is off may have left it on in a PLX switch: believe the ports' control words",
        ),
        source: Borrowed("aikitoria/open-gpu-kernel-modules#6"),
        checked: Borrowed("one board"),
    },
    Entry {
        key: Key::Switch(Ids { vendor: BROADCOM, device: Some(0xc030) }),
        finding: Finding::SpeedNote,
        what: Borrowed(
            "PEX890xx: posted writes from two sources to two root ports at once fall to 2.7 GB/s; reads are not affected",
        ),
        source: Borrowed("local-inference-lab/rtx6kpro#32 and that repository's notes"),
        checked: Borrowed("July 2026, chips split into two virtual switches, AMD Turin; the ID is that of pci.ids"),
    },
    Entry {
        key: Key::PlatformName("ESC8000A-E13P"),
        finding: Finding::SpeedNote,
        what: Borrowed(TWO_VIRTUAL_SWITCHES),
        source: Borrowed("local-inference-lab/rtx6kpro#32 and that repository's notes"),
        checked: Borrowed("July 2026"),
    },
    Entry {
        key: Key::PlatformName("G494-ZB4"),
        finding: Finding::SpeedNote,
        what: Borrowed(TWO_VIRTUAL_SWITCHES),
        source: Borrowed("local-inference-lab/rtx6kpro#32 and that repository's notes"),
        checked: Borrowed("July 2026"),
    },
    Entry {
        key: Key::Cpu { vendor: CpuVendor::Arm, families: ALL_FAMILIES, models: &[] },
        finding: Finding::KernelNote,
        what: Borrowed(
            "SMMUv3 before Linux 6.11 has no PASID beside an identity domain: with passthrough and ACS on, no CUDA context comes up, so iommu=pt is the wrong advice there",
        ),
        source: Borrowed("NVIDIA/nodewright-packages#122"),
        checked: Borrowed("August 2026, kernels before 6.11"),
    },
];

/// Everything reported.
pub fn observed() -> &'static [Entry] {
    &OBSERVED
}
