//! Which kernel drivers export device memory, which import it, and for how long it holds.
//!
//! Two drivers share memory through a dma-buf, and what comes of it is decided by what
//! the importer promises when it attaches: whether it takes peer memory, and whether it
//! lets go when told. VFIO hands a BAR only to importers that can be told; a GPU driver
//! moves its buffer into system memory for one that cannot take device memory, and says
//! nothing.
//!
//! Read in Linux 7.2 ([`SERIES`]) and claimed of no other: drivers change their class from
//! release to release. For another kernel everything here is unknown. Not here: whether
//! the two devices reach each other, which [`super::verdict`] answers.

use crate::pcie::Fact;
use crate::topology::KernelVersion;

/// The kernel series that this table was read in.
pub const SERIES: (u32, u32) = (7, 2);

/// Whether the table holds for a kernel; for one that is not told it is taken to.
pub fn holds_for(kernel: Option<KernelVersion>) -> bool {
    kernel.is_none_or(|kernel| kernel.series() == SERIES)
}

/// What an importer promises when it attaches (Linux 7.2 `struct dma_buf_attach_ops`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Class {
    /// No promise: the memory stays where it is while mapped, and peer memory is not taken.
    Static,
    /// Takes peer memory, pins it and cannot let go before it is done.
    Pinned,
    /// Takes peer memory, pins it, and lets go for good when told.
    PinnedRevocable,
    /// Takes peer memory, lets go when told, and maps it again.
    Movable,
    /// As movable, but peer memory was not agreed on: the importer did not ask for it, or
    /// amdgpu or xe as exporter found no route between the two (`pci_p2pdma_distance`).
    MovableInSystemMemory,
}

impl Class {
    /// The words used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Pinned => "pinned",
            Self::PinnedRevocable => "pinned_revocable",
            Self::Movable => "movable",
            Self::MovableInSystemMemory => "movable_in_system_memory",
        }
    }

    /// Whether the importer lets go when told (`dma_buf_attach_revocable`).
    pub const fn lets_go(self) -> bool {
        matches!(self, Self::PinnedRevocable | Self::Movable | Self::MovableInSystemMemory)
    }

    /// Whether the importer takes memory of a device (`allow_peer2peer`).
    pub const fn takes_peer_memory(self) -> bool {
        matches!(self, Self::Pinned | Self::PinnedRevocable | Self::Movable)
    }
}

/// Declares a closed set of drivers, each with the name people type and a line about it.
macro_rules! drivers {
    ($(#[$doc:meta])* $set:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal, $what:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum $set {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $set {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name used in text, JSON and on command lines.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it is, in a line.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)+
                }
            }

            /// The one of this name, `-` and `_` being one.
            pub fn from_name(name: &str) -> Option<Self> {
                let plain = |text: &str| text.to_ascii_lowercase().replace('_', "-");
                Self::ALL.iter().copied().find(|one| plain(one.name()) == plain(name))
            }
        }
    };
}

drivers! {
    /// A driver that hands out memory.
    Exporter {
        /// `vfio_pci_dmabuf.c`.
        Vfio = "vfio-pci", "BARs of a device that a process owns; revoked by reset, disabled memory decode, D3 and close";
        /// `udmabuf.c`.
        Udmabuf = "udmabuf", "pages of a memfd; pinned as long as the buffer lives";
        /// `dma-heap.c` and the system heap.
        DmaHeap = "dma-heap", "pages of the kernel; stay as long as the buffer lives";
        /// `amdgpu_vram_mgr_alloc_sgt`.
        Amdgpu = "amdgpu", "GPU memory; mapped with dma_map_resource, so never with bus addresses";
        /// `xe_ttm_vram_mgr_alloc_sgt`.
        Xe = "xe", "GPU memory; mapped with dma_map_resource, so never with bus addresses";
        /// `uverbs_std_types_dmabuf.c`.
        Uverbs = "uverbs", "doorbells and other mappable pages of RDMA devices; revoked when the object goes";
    }
}

drivers! {
    /// A driver that maps memory of others for its device.
    Importer {
        /// `net/core/devmem.c`.
        NetDevmem = "net-devmem", "TCP payload straight into device memory";
        /// `io_uring/zcrx.c`.
        IoUringZcrx = "io_uring-zcrx", "zero-copy receive of io_uring";
        /// videobuf2.
        V4l2 = "v4l2", "cameras and codecs";
        /// Drivers of `drivers/accel`.
        Accel = "accel", "compute accelerators of drivers/accel";
        /// EFA.
        Efa = "efa", "RDMA, Amazon";
        /// MANA.
        Mana = "mana", "RDMA, Microsoft";
        /// ionic.
        Ionic = "ionic", "RDMA, AMD Pensando";
        /// bnxt_re.
        BnxtRe = "bnxt_re", "RDMA, Broadcom";
        /// DEVX of `mlx5_ib`.
        Mlx5Devx = "mlx5-devx", "RDMA, NVIDIA: user memory of DEVX objects";
        /// Data Direct of `mlx5_ib`, which pins (KSM).
        Mlx5DataDirect = "mlx5-data-direct", "RDMA, NVIDIA: regions on a Data Direct path";
        /// `ib_umem_get_desc`.
        IbUmem = "ib-umem", "RDMA core: user memory that a verb names by a descriptor";
        /// `ib_umem_dmabuf_get_pinned_revocable_and_lock`.
        Irdma = "irdma", "RDMA, Intel";
        /// `iopt_map_dmabuf`.
        Iommufd = "iommufd", "mapping into an address space of user space (IOMMU_IOAS_MAP_FILE)";
        /// `mlx5_ib_dmabuf_attach_ops`.
        Mlx5Mr = "mlx5-mr", "RDMA, NVIDIA: memory regions, faulted in again after a move";
        /// amdgpu and xe as importers, peer memory agreed on.
        Gpu = "gpu", "amdgpu and xe";
        /// Any other that can move.
        MovableNoP2p = "movable-no-p2p", "any movable importer that takes no peer memory";
    }
}

impl Importer {
    /// What it promises.
    pub const fn class(self) -> Class {
        match self {
            Self::NetDevmem | Self::IoUringZcrx | Self::V4l2 | Self::Accel => Class::Static,
            Self::Efa
            | Self::Mana
            | Self::Ionic
            | Self::BnxtRe
            | Self::Mlx5Devx
            | Self::Mlx5DataDirect
            | Self::IbUmem => Class::Pinned,
            Self::Irdma | Self::Iommufd => Class::PinnedRevocable,
            Self::Mlx5Mr | Self::Gpu => Class::Movable,
            Self::MovableNoP2p => Class::MovableInSystemMemory,
        }
    }
}

/// Where the memory is while it is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Memory {
    /// In the device.
    Device,
    /// In the device if every importer attached to the buffer takes peer memory; in
    /// system memory as soon as one does not.
    DeviceIfAllTakeIt,
    /// In system memory, where it always was.
    System,
    /// Moved out of the device into system memory, without an error.
    MovedToSystem,
}

impl Memory {
    /// The words used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::DeviceIfAllTakeIt => "device_if_all_take_it",
            Self::System => "system",
            Self::MovedToSystem => "moved_to_system",
        }
    }
}

/// How long a mapping holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Lifetime {
    /// As long as the importer wants.
    Pinned,
    /// Until the exporter revokes it; the importer can map it again once that is over.
    UntilRevoked,
    /// Until the exporter revokes it; what the importer made of it is then dead.
    UntilRevokedForGood,
    /// Until the exporter moves the memory; the importer maps it again by itself.
    UntilMoved,
}

impl Lifetime {
    /// The words used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::UntilRevoked => "until_revoked",
            Self::UntilRevokedForGood => "until_revoked_for_good",
            Self::UntilMoved => "until_moved",
        }
    }
}

/// What comes of one exporter and one importer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It works.
    Works {
        /// Where the memory is.
        memory: Memory,
        /// How long the mapping holds.
        lifetime: Lifetime,
        /// What else to know.
        note: &'static str,
    },
    /// The kernel refuses.
    Refused {
        /// Its error.
        error: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// What comes of a pair; unknown for a kernel that this was not read in, and for the
/// exporter whose pairs nobody has read.
pub fn outcome(kernel: Option<KernelVersion>, exporter: Exporter, importer: Importer) -> Fact<Outcome> {
    if !holds_for(kernel) {
        return Fact::Unknown;
    }
    Fact::Known(match exporter {
        Exporter::Vfio => of_vfio(importer),
        Exporter::Udmabuf | Exporter::DmaHeap if importer == Importer::Iommufd => ONLY_VFIO,
        Exporter::Udmabuf | Exporter::DmaHeap => Outcome::Works {
            memory: Memory::System,
            lifetime: Lifetime::Pinned,
            note: "the pages stay put, and the importer is never told of anything",
        },
        Exporter::Amdgpu | Exporter::Xe => of_gpu(importer),
        Exporter::Uverbs => return Fact::Unknown,
    })
}

/// `iopt_map_dmabuf` asks VFIO for the address by a private call.
const ONLY_VFIO: Outcome = Outcome::Refused { error: "EOPNOTSUPP", why: "iommufd takes the dma-bufs of VFIO alone" };

/// `vfio_pci_dma_buf_attach`.
fn of_vfio(importer: Importer) -> Outcome {
    let class = importer.class();
    if !class.takes_peer_memory() {
        let why = "VFIO exports device memory, and this importer does not take any";
        return Outcome::Refused { error: "EOPNOTSUPP", why };
    }
    if !class.lets_go() {
        let why = "VFIO revokes its BARs on reset, and this importer cannot let go when told";
        return Outcome::Refused { error: "EOPNOTSUPP", why };
    }
    let (lifetime, note) = match importer {
        Importer::Iommufd => (
            Lifetime::UntilRevokedForGood,
            "one contiguous range only; no P2P check is made, so ask for the route first; after a revocation the range stays empty until it is unmapped and mapped anew",
        ),
        Importer::Irdma => (
            Lifetime::UntilRevokedForGood,
            "ENODEV while revoked, EINVAL where Linux refuses the route; a revoked region must be registered anew",
        ),
        _ => (Lifetime::UntilRevoked, "ENODEV while revoked, EINVAL where Linux refuses the route"),
    };
    Outcome::Works { memory: Memory::Device, lifetime, note }
}

/// `amdgpu_dma_buf_pin` and `_map`, `xe_dma_buf_pin` and `_map`.
fn of_gpu(importer: Importer) -> Outcome {
    if importer == Importer::Iommufd {
        return ONLY_VFIO;
    }
    let (memory, lifetime, note) = match importer.class() {
        Class::Static => (
            Memory::MovedToSystem,
            Lifetime::Pinned,
            "the driver moves the buffer out of the GPU when it is mapped; nothing says so",
        ),
        Class::Pinned => (
            Memory::DeviceIfAllTakeIt,
            Lifetime::Pinned,
            "one other importer that takes no peer memory makes the driver move the buffer out of the GPU",
        ),
        Class::PinnedRevocable => (
            Memory::DeviceIfAllTakeIt,
            Lifetime::UntilRevokedForGood,
            "one other importer that takes no peer memory makes the driver move the buffer out of the GPU",
        ),
        Class::Movable => (
            Memory::Device,
            Lifetime::UntilMoved,
            "the driver may move the buffer at any time and tells the importer; where it finds no route between the two, that is into system memory",
        ),
        Class::MovableInSystemMemory => (
            Memory::MovedToSystem,
            Lifetime::UntilMoved,
            "no peer memory was agreed on, so it goes through system memory",
        ),
    };
    Outcome::Works { memory, lifetime, note }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(exporter: Exporter, importer: Importer) -> Outcome {
        outcome(None, exporter, importer).known().unwrap()
    }

    #[test]
    fn vfio_exports_to_importers_that_let_go_and_to_no_others() {
        for &importer in Importer::ALL {
            let works = matches!(known(Exporter::Vfio, importer), Outcome::Works { memory: Memory::Device, .. });
            let expected = matches!(importer, Importer::Mlx5Mr | Importer::Irdma | Importer::Iommufd | Importer::Gpu);
            assert_eq!(works, expected, "{}", importer.name());
        }
    }

    #[test]
    fn iommufd_takes_the_dma_bufs_of_vfio_alone() {
        for &exporter in Exporter::ALL {
            let Fact::Known(outcome) = outcome(None, exporter, Importer::Iommufd) else {
                assert_eq!(exporter, Exporter::Uverbs);
                continue;
            };
            assert_eq!(matches!(outcome, Outcome::Works { .. }), exporter == Exporter::Vfio, "{}", exporter.name());
        }
    }

    /// ScaleX-IO/uGDS#18 and ROCm/rocm-xio#181: I/O succeeds, and the data is in host memory.
    #[test]
    fn a_gpu_buffer_goes_to_system_memory_for_an_importer_without_peer_memory() {
        for importer in [Importer::NetDevmem, Importer::IoUringZcrx, Importer::V4l2, Importer::MovableNoP2p] {
            let outcome = known(Exporter::Amdgpu, importer);
            assert!(matches!(outcome, Outcome::Works { memory: Memory::MovedToSystem, .. }), "{}", importer.name());
        }
        assert!(matches!(known(Exporter::Xe, Importer::Efa), Outcome::Works { memory: Memory::DeviceIfAllTakeIt, .. }));
        assert!(matches!(known(Exporter::Xe, Importer::Mlx5Mr), Outcome::Works { lifetime: Lifetime::UntilMoved, .. }));
    }

    #[test]
    fn of_another_kernel_nothing_is_said() {
        for version in ["6.12", "7.1", "7.3.4", "8.2"] {
            let kernel = Some(version.parse().unwrap());
            assert!(!holds_for(kernel));
            assert_eq!(outcome(kernel, Exporter::Udmabuf, Importer::Efa), Fact::Unknown, "{version}");
        }
        assert!(holds_for(Some("7.2.13".parse().unwrap())) && holds_for(None));
    }

    #[test]
    fn names_are_read_with_either_dash_and_are_used_once() {
        assert_eq!(Importer::from_name("io-uring_zcrx"), Some(Importer::IoUringZcrx));
        assert_eq!(Importer::from_name("BNXT-RE"), Some(Importer::BnxtRe));
        assert_eq!(Importer::from_name("mlx5"), None, "which of three is not said");
        for (index, importer) in Importer::ALL.iter().enumerate() {
            assert_eq!(Importer::from_name(importer.name()), Some(*importer));
            assert!(Importer::ALL[..index].iter().all(|other| other.name() != importer.name()));
        }
        assert_eq!(Exporter::from_name("vfio_pci"), Some(Exporter::Vfio));
    }
}
