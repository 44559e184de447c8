//! Which format the tables of the machine's IOMMU have.

use crate::args::FormatArgument;
use crate::exit::Failure;
use crate::input::Loaded;
use peerdma::topology::CpuVendor;
use peerdma_emu::platform::IommuKind;

/// A format, and why it is this one.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) format: FormatArgument,
    /// Whether nothing told so.
    pub(super) assumed: bool,
    pub(super) evidence: String,
}

impl Tables {
    /// The format asked for, that of the machine's IOMMU, or that of its CPU's vendor.
    pub(super) fn choose(loaded: &Loaded, asked: Option<FormatArgument>) -> Result<Self, Failure> {
        let told = |format, evidence: &str| Self { format, assumed: false, evidence: evidence.to_string() };
        if let Some(format) = asked {
            return Ok(told(format, "asked for"));
        }
        match loaded.platform.as_ref().and_then(|platform| platform.iommu()).map(|iommu| iommu.kind) {
            Some(IommuKind::Vtd) => return Ok(told(FormatArgument::Vtd, "the platform's IOMMU is VT-d")),
            Some(IommuKind::Amd) => return Ok(told(FormatArgument::AmdV1, "the platform's IOMMU is AMD's")),
            Some(IommuKind::Smmu) => return Ok(told(FormatArgument::ArmS1, "the platform's IOMMU is an SMMU")),
            Some(IommuKind::Window) => {
                return Err(Failure::usage(
                    "the platform's IOMMU is one flat table, whose window the file does not tell; give --format for a plan with another",
                ));
            }
            Some(IommuKind::None) | None => {}
        }
        let cpu = loaded.topology.machine().cpu.as_ref();
        let by_cpu = |format, vendor: &CpuVendor| Self {
            format,
            assumed: false,
            evidence: format!("the CPU is {vendor}; give --format for another"),
        };
        Ok(match cpu.map(|cpu| &cpu.vendor) {
            Some(vendor @ CpuVendor::Intel) => by_cpu(FormatArgument::Vtd, vendor),
            Some(vendor @ (CpuVendor::Amd | CpuVendor::Hygon)) => by_cpu(FormatArgument::AmdV1, vendor),
            Some(vendor @ CpuVendor::Arm) => by_cpu(FormatArgument::ArmS1, vendor),
            Some(CpuVendor::Other(_)) | None => Self {
                format: FormatArgument::Vtd,
                assumed: true,
                evidence: "assumed, since the input tells neither IOMMU nor CPU; give --format or --cpu".to_string(),
            },
        })
    }

    /// What the format is called in text.
    pub(super) const fn name(&self) -> &'static str {
        match self.format {
            FormatArgument::Vtd => "VT-d second stage",
            FormatArgument::AmdV1 => "AMD host tables, version 1",
            FormatArgument::X86FirstStage => "x86-64 first stage",
            FormatArgument::ArmS1 => "Arm LPAE stage 1, 4 KiB granule",
            FormatArgument::ArmS2 => "Arm LPAE stage 2, 4 KiB granule",
        }
    }

    /// What it is called in JSON, as on the command line.
    pub(super) const fn word(&self) -> &'static str {
        match self.format {
            FormatArgument::Vtd => "vtd",
            FormatArgument::AmdV1 => "amd-v1",
            FormatArgument::X86FirstStage => "x86-first-stage",
            FormatArgument::ArmS1 => "arm-s1",
            FormatArgument::ArmS2 => "arm-s2",
        }
    }
}
