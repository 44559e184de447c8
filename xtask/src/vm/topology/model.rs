//! The tree of host bridges, ports and devices that QEMU can express.
//!
//! The types follow what may hang where: root ports on a root bus, and on q35's own integrated
//! devices too; a device, a switch or a bridge to conventional PCI on a link; downstream ports
//! below a switch. So a downstream port on a root bus does not compile. What types do not say (two devices in
//! one place, bus numbers that run out) is refused by [`Draft::check`].
//!
//! A function stands at a device and function number, never at a bus number: those are the
//! firmware's to hand out, except that of a root bus.

use super::legal::{self, Illegal};
use peerdma::addr::Bytes;
use peerdma::pcie::{DevFn, PciId};

/// Devices of bus 0 that are not for a model: q35's own (0x00 and 0x1f), the PCI half of
/// QEMU's AMD IOMMU, which takes the first that is free (0x01), and two that the rest of
/// the machine uses.
pub(crate) const OWN_DEVICES: [u8; 5] = [0x00, 0x01, 0x02, 0x03, 0x1f];

/// A tree that nobody has checked yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Draft {
    /// What stands on bus 0, below the host bridge that q35 brings.
    pub(crate) q35: Vec<Placed<OnRootBus>>,
    /// Further host bridges.
    pub(crate) expanders: Vec<Expander>,
}

/// A further host bridge (`pxb-pcie`), on whose root bus QEMU takes ports only.
///
/// Unlike q35 it puts nothing at 00.0 of its root bus, so its first port stands for it in
/// Linux's whitelist.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expander {
    /// Device on bus 0 that QEMU represents it by, which the guest sees as a function.
    pub(crate) device: u8,
    /// Number of its root bus.
    pub(crate) bus: u8,
    /// The root ports on its root bus.
    pub(crate) ports: Vec<Placed<RootPort>>,
}

/// Something at a device and function number of a bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placed<T> {
    /// Where.
    pub(crate) at: DevFn,
    /// What.
    pub(crate) what: T,
}

/// What may stand on the root bus of q35.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OnRootBus {
    /// A root port.
    Port(RootPort),
    /// A device integrated in the root complex.
    Endpoint(Endpoint),
}

/// A root port, the only port of QEMU that has ACS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RootPort {
    /// Whether it has the capability, with SV, TB, RR, CR, UF and DT.
    pub(crate) acs: bool,
    /// What is at the other end of its link: functions of device 0.
    pub(crate) below: Vec<Placed<OnLink>>,
}

/// What may be at the far end of a link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum OnLink {
    /// A device.
    Endpoint(Endpoint),
    /// The upstream port of a switch, and all below.
    Switch(Switch),
    /// A bridge to conventional PCI and the devices there, at device 1 or above: device 0 is
    /// the bridge's hot-plug controller's.
    ToPci(Vec<Placed<Endpoint>>),
}

/// A switch; none of its ports has ACS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Switch {
    /// Its downstream ports, each with what is at the other end of its link.
    pub(crate) ports: Vec<Placed<Vec<Placed<OnLink>>>>,
}

/// A device that QEMU brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint {
    /// `edu`: a DMA engine that a test can drive by hand. Conventional PCI wherever it stands.
    Edu,
    /// `ivshmem-plain`: memory behind BAR 2.
    Ivshmem {
        /// Size of BAR 2.
        bar: Bytes,
    },
    /// `nvme` without SR-IOV, with a disk of zeros that forgets what is written.
    Nvme {
        /// Controller memory buffer in BAR 2, in whole MiB.
        cmb: Option<Bytes>,
    },
    /// `nvme` with SR-IOV, which QEMU has neither with a memory buffer nor with a disk of its own.
    NvmeSriov {
        /// Most virtual functions.
        virtual_functions: u8,
    },
    /// `pci-testdev`: registers that do nothing, and a BAR 2 with nothing behind it.
    TestDevice {
        /// Size of BAR 2.
        bar: Option<Bytes>,
    },
    /// `igb`: a network controller whose driver can make up to seven virtual functions.
    Igb,
    /// `virtio-gpu` that takes the guest's own memory, so that its driver imports dma-bufs.
    Gpu,
}

impl Endpoint {
    /// Whether it is a PCI Express device only, which no conventional bus takes.
    pub(crate) fn is_express_only(&self) -> bool {
        matches!(self, Self::Nvme { .. } | Self::NvmeSriov { .. } | Self::Igb)
    }

    /// Whether it has an I/O BAR.
    pub(crate) fn has_io_bar(&self) -> bool {
        matches!(self, Self::TestDevice { .. } | Self::Igb)
    }

    /// Most virtual functions that the guest can make without a driver that QEMU's device is
    /// made for: 0 for all but NVMe.
    pub(crate) fn virtual_functions(&self) -> u8 {
        match self {
            Self::NvmeSriov { virtual_functions } => *virtual_functions,
            _ => 0,
        }
    }

    /// Vendor and device that it shows.
    pub(crate) fn id(&self) -> PciId {
        let (vendor, device) = match self {
            Self::Edu => (0x1234, 0x11e8),
            Self::Ivshmem { .. } => (0x1af4, 0x1110),
            Self::Nvme { .. } | Self::NvmeSriov { .. } => (0x1b36, 0x0010),
            Self::TestDevice { .. } => (0x1b36, 0x0005),
            Self::Igb => (0x8086, 0x10c9),
            Self::Gpu => (0x1af4, 0x1050),
        };
        PciId { vendor, device }
    }

    /// Its memory BARs: first register and size.
    pub(crate) fn bars(&self) -> Vec<(u8, Bytes)> {
        const KIB: u64 = 1 << 10;
        let fixed: &[(u8, u64)] = match self {
            Self::Edu => &[(0, 1024 * KIB)],
            Self::Ivshmem { .. } => &[(0, 256)],
            Self::Nvme { .. } | Self::NvmeSriov { .. } => &[(0, 16 * KIB)],
            Self::TestDevice { .. } => &[(0, 4 * KIB)],
            Self::Igb => &[(0, 128 * KIB), (1, 128 * KIB), (3, 16 * KIB)],
            Self::Gpu => &[(1, 4 * KIB), (4, 16 * KIB)],
        };
        let fixed = fixed.iter().map(|&(index, size)| (index, Bytes::new(size)));
        fixed.chain(self.chosen_bar().map(|size| (2, size))).collect()
    }

    /// Size of BAR 2, of devices that have one of a size to choose.
    pub(crate) fn chosen_bar(&self) -> Option<Bytes> {
        match self {
            Self::Ivshmem { bar } => Some(*bar),
            Self::Nvme { cmb } => *cmb,
            Self::TestDevice { bar } => *bar,
            Self::Edu | Self::NvmeSriov { .. } | Self::Igb | Self::Gpu => None,
        }
    }
}

impl Draft {
    /// Checks that QEMU takes it and that firmware finds room for all of it.
    ///
    /// # Errors
    /// The first thing that QEMU or the firmware would refuse, or silently not show: see [`Illegal`].
    pub(crate) fn check(self) -> Result<Model, Illegal> {
        legal::check(&self)?;
        Ok(Model(self))
    }
}

/// A tree that QEMU takes and whose functions the guest sees, all of them. The default is q35 alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Model(Draft);

impl Model {
    /// The tree.
    pub(crate) fn draft(&self) -> &Draft {
        &self.0
    }
}
