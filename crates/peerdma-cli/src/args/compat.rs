//! Arguments of `peerdma compat`.

use super::{InputArguments, OutputArguments};
use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "\
Two drivers share memory through a dma-buf. What the importer promises when it attaches decides whether \
the exporter agrees, where the memory then is, and how long the mapping holds. The table was read in \
Linux 7.2; of other kernels it says nothing.

Examples:
  peerdma compat                          exporters, importers, and what comes of each pair
  peerdma compat vfio-pci                 who can map a BAR that VFIO exports
  peerdma compat amdgpu efa               one pair
  peerdma compat vfio-pci irdma --kernel 7.2 --json

Exit codes: for a pair 0 it works, 1 the kernel refuses, 3 not known, for this kernel or at all; otherwise \
0; 2 usage, 4 failed. Works is not yet arrives: ask peerdma route about the two devices.")]
pub(crate) struct CompatArguments {
    /// The driver that hands out memory, such as vfio-pci, udmabuf or amdgpu.
    #[arg(value_name = "EXPORTER")]
    pub(crate) exporter: Option<String>,
    /// The driver that maps it for its device, such as irdma, mlx5-mr or iommufd.
    #[arg(value_name = "IMPORTER")]
    pub(crate) importer: Option<String>,
    #[command(flatten)]
    pub(crate) input: InputArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}
