//! An address space of `/dev/iommu`.
//!
//! Takes memory of this process, and files: memfds, and dma-bufs of BARs that VFIO exported
//! ([`VfioDevice::export`]). A process's mapping of a BAR, the way of type1, it refuses with
//! EFAULT. What is different from type1 (Linux 7.2 `drivers/iommu/iommufd`):
//!
//! - **BARs are mapped as device memory** and followed: when their device is reset, closed, or
//!   loses its memory space, the mapping is dead at once. It stays dead and in the way until it
//!   is unmapped, also when the device is back; mapping the same file again then works.
//! - **The kernel asks nobody** here either: its P2PDMA rules are not consulted. So a BAR is mapped with a
//!   [`Permit`] alone ([`IoSpace::map_peer`]), which a verdict gives, or the caller who vouches for the route.
//! - **Nor does it look how a file was opened**: a dma-buf that was exported for reading is mapped for writing
//!   (`iopt_map_file_pages`). Here that is refused.
//! - **Pinning is lazy.** With no device attached, [`map`](IoSpace::map) records and does not
//!   look; what is wrong with the source then shows as a refusal of [`attach`](IommufdSpace::attach).
//!   So attach first.
//!
//! **Who keeps what alive.** A bound device keeps the iommufd and all its address spaces alive
//! in the kernel, so dropping an [`IommufdSpace`] unmaps what it mapped. The space itself is
//! destroyed if no device is attached to it any more, else with the last descriptor.
//!
//! Beside this file: what one space maps of another's ([`copy`]), and how it counts pinned pages and
//! puts pages together ([`options`]).
//!
//! Not here: nested translation, faults, dirty tracking.

pub mod copy;
pub mod options;

use crate::dma_buf::may_be_dma_buf;
use crate::sys::{iommufd, vfio};
use crate::vfio::{Damage, DeviceNode, Nodes, OpenError, VfioDevice, errno};
use iommufd_bindings as uapi;
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::abilities::check_within_file;
use peerdma::dma::permit::check_unasked;
use peerdma::dma::{
    Abilities, Changes, Granule, IoSpace, IovaRanges, MapError, Mapped, MemAttrs, Mmio, Permit, Prot, Source,
    SourceKind, Sources, UnmapError, WriteOnly,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// An I/O address space (IOAS) of an open iommufd.
///
/// # Examples
/// ```no_run
/// use peerdma::addr::{AddrRange, Bytes, Iova};
/// use peerdma::dma::{Initiator, IoSpace, MemAttrs, Owner, Peers, Prot, Source};
/// use peerdma::topology::{FunctionId, Topology};
/// use peerdma_linux::iommufd::IommufdSpace;
/// use peerdma_linux::vfio::{BarIndex, BarRange, DeviceNode, Nodes};
///
/// # fn map(topology: &Topology, engine: FunctionId, memory: FunctionId) -> Result<(), Box<dyn std::error::Error>> {
/// // First whether requests arrive, which nobody asks later.
/// let engine = Initiator::of(topology, engine).ok_or("the mode of its domain is not known")?;
/// let bar2 = Owner::Bar { function: memory, bar: 2 };
/// let permit = Peers::of(topology).permit(&engine, bar2, Prot::ReadWrite)?;
/// let nodes = Nodes::live();
/// let mut space = IommufdSpace::open(&nodes)?;
/// let initiator = space.bind(DeviceNode::open(&nodes, "0000:05:00.0".parse()?)?)?;
/// let target = space.bind(DeviceNode::open(&nodes, "0000:06:00.0".parse()?)?)?;
/// space.attach(&initiator)?;
/// let bar = BarIndex::new(2).ok_or("no such BAR")?;
/// let page = BarRange::new(bar, Bytes::ZERO, Bytes::new(4096)).ok_or("wraps")?;
/// let file = target.export(page)?;
/// let iova = AddrRange::new(Iova::new(1 << 20), page.len()).ok_or("wraps")?;
/// space.map_peer(iova, &Source::File { file, offset: Bytes::ZERO }, Prot::ReadWrite, MemAttrs::MMIO, &permit)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct IommufdSpace {
    iommufd: Arc<OwnedFd>,
    ioas: u32,
    abilities: Abilities,
    mapped: Mapped,
    /// What of that is memory of devices.
    peers: Mapped,
}

impl IommufdSpace {
    /// Opens `/dev/iommu` and makes an address space.
    ///
    /// # Errors
    /// [`OpenError::NoIommufd`], [`OpenError::NoPrivilege`]: use type1, or see what they say.
    pub fn open(nodes: &Nodes) -> Result<Self, OpenError> {
        Self::from_fd(nodes.iommufd()?)
    }

    /// Makes an address space in an iommufd that the caller opened, or was sent.
    ///
    /// # Errors
    /// [`OpenError::Kernel`] if the descriptor is none.
    pub fn from_fd(iommufd: OwnedFd) -> Result<Self, OpenError> {
        Self::within(Arc::new(iommufd))
    }

    /// Makes another address space in the same iommufd, for devices that are to reach something else.
    ///
    /// What is mapped in one can be [copied](Self::copy) to the other. Devices are bound to the iommufd, so that either space
    /// can be [attached](Self::attach) to any of them.
    ///
    /// # Errors
    /// [`OpenError::Kernel`], with ENOMEM.
    pub fn another(&self) -> Result<Self, OpenError> {
        Self::within(self.iommufd.clone())
    }

    fn within(iommufd: Arc<OwnedFd>) -> Result<Self, OpenError> {
        let ioas = iommufd::new_space(iommufd.as_fd());
        let ioas = ioas.map_err(|error| OpenError::kernel("IOMMU_IOAS_ALLOC", "the iommufd", error))?;
        match abilities(&iommufd, ioas) {
            Ok(abilities) => Ok(Self { iommufd, ioas, abilities, mapped: Mapped::new(), peers: Mapped::new() }),
            Err(error) => {
                // The descriptor may be the caller's clone, so the space is not left in it.
                let _ = iommufd::destroy(iommufd.as_fd(), ioas);
                Err(error)
            }
        }
    }

    /// Binds a device to this iommufd, which makes it usable; it reaches nothing yet.
    ///
    /// A device that is only a target of others needs no more than this.
    ///
    /// # Errors
    /// [`OpenError::NotBound`] if another program has bound it, or has its group open through the
    /// container interface; [`OpenError::UnsafeInterrupts`]; those of [`VfioDevice::from_fd`].
    pub fn bind(&self, node: DeviceNode) -> Result<VfioDevice, OpenError> {
        let DeviceNode { device, fd } = node;
        vfio::bind(fd.as_fd(), self.iommufd.as_fd()).map_err(|error| match error {
            Errno::PERM => OpenError::UnsafeInterrupts { object: device.to_string(), module: "iommufd" },
            // A group that is open the other way is EBUSY (Linux 7.2 `vfio_device_block_group`); a
            // node opened twice can be bound once, and the second is EINVAL (`vfio_df_open`).
            Errno::BUSY | Errno::INVAL => OpenError::NotBound { device, errno: errno(error) },
            error => OpenError::kernel("VFIO_DEVICE_BIND_IOMMUFD", device, error),
        })?;
        VfioDevice::from_fd(fd, device)
    }

    /// Gives a bound device this address space; what is mapped here it reaches from now on.
    ///
    /// Usable ranges shrink to what the device's IOMMU and reserved regions leave.
    ///
    /// # Errors
    /// [`OpenError::Kernel`]: with EINVAL the device is not bound to this iommufd, or something
    /// is mapped where it cannot reach; with EFAULT or ENOMEM something mapped earlier cannot be pinned.
    pub fn attach(&mut self, device: &VfioDevice) -> Result<(), OpenError> {
        vfio::attach(device.descriptor(), self.ioas)
            .map_err(|error| OpenError::kernel("VFIO_DEVICE_ATTACH_IOMMUFD_PT", device.address(), error))?;
        self.abilities = abilities(&self.iommufd, self.ioas)?;
        Ok(())
    }
}

fn abilities(iommufd: &OwnedFd, ioas: u32) -> Result<Abilities, OpenError> {
    let (ranges, alignment) = iommufd::iova_ranges(iommufd.as_fd(), ioas)
        .map_err(|error| OpenError::kernel("IOMMU_IOAS_IOVA_RANGES", "the iommufd", error))?;
    described(&ranges, alignment).map_err(|damage| OpenError::DamagedSpace { damage })
}

fn described(ranges: &[(u64, u64)], alignment: u64) -> Result<Abilities, Damage> {
    let granule = Granule::new(Bytes::new(alignment));
    let granule = granule.ok_or_else(|| Damage::new(format_args!("an IOVA alignment of {alignment:#x}")))?;
    let ranges = ranges.iter().map(|(first, last)| (Iova::new(*first), Iova::new(*last)));
    Ok(Abilities {
        sources: Sources { process: Some(Mmio::Refused), file: Some(Mmio::AsMmio), ..Sources::default() },
        granule,
        usable: IovaRanges::from_inclusive(ranges).map_err(Damage::new)?,
        attrs: MemAttrs::empty(),
        placement: peerdma::dma::Placement::Chosen,
        write_only: WriteOnly::MayRead,
        changes: Changes::UNMAP_SEVERAL,
        max_mappings: None,
    })
}

impl IoSpace for IommufdSpace {
    /// A memfd, or a dma-buf of VFIO. The kernel keeps the file open while it is mapped.
    type File = Arc<OwnedFd>;

    fn abilities(&self) -> &Abilities {
        &self.abilities
    }

    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        self.abilities.check_iovas(iova)?;
        self.mapped.check_map(&self.abilities, iova)
    }

    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.map_by(iova, source, (prot, attrs), None)
    }

    fn link_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        self.map_by(iova, source, (prot, attrs), Some(permit))
    }

    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.abilities.check_unmap(iova)?;
        // Checked here and not left to the kernel, which unmaps whole mappings below the one
        // that would be cut before it answers ENOENT.
        self.mapped.check_unmap(&self.abilities, iova)?;
        let (start, len) = (iova.start().as_u64(), iova.len().as_u64());
        let unmapped = iommufd::unmap(self.iommufd.as_fd(), self.ioas, start, len)
            .map_err(|error| UnmapError::Kernel { call: "IOMMU_IOAS_UNMAP", errno: errno(error) })?;
        self.mapped.remove(iova);
        self.peers.remove(iova);
        Ok(Bytes::new(unmapped))
    }
}

impl IommufdSpace {
    fn map_by(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Arc<OwnedFd>>,
        (prot, attrs): (Prot, MemAttrs),
        permit: Option<&Permit>,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        let of_device = attrs.contains(MemAttrs::MMIO) || is_of_device(source);
        let attrs = if of_device { attrs | MemAttrs::MMIO } else { attrs };
        permit.map_or_else(|| check_unasked(iova, attrs), |permit| permit.check(iova, prot))?;
        if let Source::File { file, offset } = source {
            check_mode(file, prot)?;
            // A dma-buf tells its length as any file does; what does not is left to the kernel.
            if let Ok(stat) = rustix::fs::fstat(file)
                && let Ok(file_len) = u64::try_from(stat.st_size)
            {
                check_within_file(*offset, iova.len(), Bytes::new(file_len))?;
            }
        }
        self.mapped.check_map(&self.abilities, iova)?;
        let flags = flags(prot);
        let (fd, ioas) = (self.iommufd.as_fd(), self.ioas);
        let (start, len) = (iova.start().as_u64(), iova.len().as_u64());
        let (call, answer) = match source {
            Source::Process(address) => ("IOMMU_IOAS_MAP", iommufd::map(fd, ioas, flags, address.as_u64(), start, len)),
            Source::File { file, offset } => {
                ("IOMMU_IOAS_MAP_FILE", iommufd::map_file(fd, ioas, flags, file.as_fd(), offset.as_u64(), start, len))
            }
            Source::Physical(_) => {
                return Err(MapError::SourceNotTaken { kind: source.kind(), taken: self.abilities.sources });
            }
        };
        answer.map_err(|error| refusal(call, iova, source.kind(), error))?;
        self.mapped.insert(iova);
        if of_device {
            self.peers.insert(iova);
        }
        Ok(())
    }
}

/// What a device may do, as the kernel's flags.
fn flags(prot: Prot) -> u32 {
    let read = uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE;
    let write = uapi::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE;
    match prot {
        Prot::Read => read,
        Prot::Write => write,
        Prot::ReadWrite => read | write,
    }
}

/// Whether a file is a dma-buf, of which this kernel takes those of BARs alone.
///
/// Memory that it takes is a file of shmem or hugetlbfs, and those have seals (Linux 7.2 `memfd_file_seals_ptr`), so that nothing more
/// is read of them.
fn is_of_device(source: &Source<Arc<OwnedFd>>) -> bool {
    let Source::File { file, .. } = source else { return false };
    rustix::fs::fcntl_get_seals(file).is_err() && may_be_dma_buf(file.as_fd())
}

/// Refuses more than a file was opened for, as no kernel does here.
fn check_mode(file: &OwnedFd, asked: Prot) -> Result<(), MapError> {
    // What does not tell its mode is no open file, and left to the kernel.
    let Ok(flags) = rustix::fs::fcntl_getfl(file) else { return Ok(()) };
    let given = match flags & OFlags::RWMODE {
        OFlags::WRONLY => Prot::Write,
        OFlags::RDWR => Prot::ReadWrite,
        _ => Prot::Read,
    };
    match asked.within(given) == Some(asked) {
        true => Ok(()),
        false => Err(MapError::FileMode { asked, given }),
    }
}

/// What an answer to a mapping means (Linux 7.2 `iommufd_ioas_map_file`, `iopt_map_dmabuf`).
fn refusal(call: &'static str, iova: AddrRange<Iova>, kind: SourceKind, error: Errno) -> MapError {
    let is_file = kind == SourceKind::File;
    match error {
        Errno::EXIST => MapError::Overlap { iova, existing: None },
        // A dma-buf whose device is closed, reset or has its memory space off.
        Errno::NODEV if is_file => MapError::SourceRevoked { errno: errno(error) },
        // No file, neither a memfd nor a dma-buf of VFIO, or a dma-buf of several ranges.
        Errno::BADF | Errno::OPNOTSUPP | Errno::INVAL if is_file => {
            MapError::SourceRefused { kind, errno: errno(error) }
        }
        // Nothing mapped there, or a mapping of a BAR.
        Errno::FAULT => MapError::SourceRefused { kind, errno: errno(error) },
        error => MapError::Kernel { call, errno: errno(error) },
    }
}

impl Drop for IommufdSpace {
    fn drop(&mut self) {
        let fd = self.iommufd.as_fd();
        for iova in self.mapped.iter() {
            // Nobody is left to tell; the kernel unmaps when the space goes.
            let _ = iommufd::unmap(fd, self.ioas, iova.start().as_u64(), iova.len().as_u64());
        }
        // EBUSY while a device is attached; then it goes with the last descriptor.
        let _ = iommufd::destroy(fd, self.ioas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_without_devices_takes_any_alignment_and_a_damaged_one_is_refused() {
        assert_eq!(described(&[(0, u64::MAX)], 1).unwrap().granule.bytes(), Bytes::new(1));
        assert_eq!(described(&[], 4096).unwrap().granule, Granule::PAGE_4K);
        assert!(described(&[(0, 1)], 0).is_err());
        assert!(described(&[(0, 1)], 0x1800).is_err());
        assert!(described(&[(0, 10), (10, 20)], 4096).is_err());
    }

    /// Linux maps a dma-buf that was exported read-only for writing, and writes it.
    #[test]
    fn what_was_opened_for_one_direction_is_not_mapped_for_the_other() {
        let opened = |read, write| {
            let file = std::fs::OpenOptions::new().read(read).write(write).open("/dev/null").unwrap();
            Arc::new(OwnedFd::from(file))
        };
        let reads = opened(true, false);
        assert_eq!(check_mode(&reads, Prot::Read), Ok(()));
        for asked in [Prot::Write, Prot::ReadWrite] {
            assert_eq!(check_mode(&reads, asked), Err(MapError::FileMode { asked, given: Prot::Read }));
        }
        let (asked, given) = (Prot::ReadWrite, Prot::Write);
        assert_eq!(check_mode(&opened(false, true), asked), Err(MapError::FileMode { asked, given }));
        assert_eq!(check_mode(&opened(true, true), asked), Ok(()));
        // Neither memory nor a dma-buf: the kernel says so.
        assert!(!is_of_device(&Source::File { file: reads, offset: Bytes::ZERO }));
    }

    #[test]
    fn a_revoked_file_is_told_from_one_that_was_never_fit() {
        let iova = AddrRange::new(Iova::new(0), Bytes::new(4096)).unwrap();
        let file = |error| refusal("IOMMU_IOAS_MAP_FILE", iova, SourceKind::File, error);
        assert!(matches!(file(Errno::NODEV), MapError::SourceRevoked { .. }));
        assert!(matches!(file(Errno::OPNOTSUPP), MapError::SourceRefused { kind: SourceKind::File, .. }));
        assert!(matches!(file(Errno::NOMEM), MapError::Kernel { .. }));
        let process = refusal("IOMMU_IOAS_MAP", iova, SourceKind::Process, Errno::FAULT);
        assert!(matches!(process, MapError::SourceRefused { kind: SourceKind::Process, .. }));
    }
}
