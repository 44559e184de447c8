//! The address space of a VFIO container with its type1 IOMMU.
//!
//! Takes addresses of this process: memory, which it pins, and mappings of BARs, which it
//! takes as they are. That second half is how one device reaches another's BAR here, and it
//! has three edges (Linux 7.2 `drivers/vfio/vfio_iommu_type1.c`):
//!
//! - **The kernel asks nobody.** Type1 maps pairs that its own P2PDMA code refuses; whether
//!   bytes arrive is decided by the hardware. So a BAR is mapped with a [`Permit`] alone
//!   ([`IoSpace::map_peer`]), which a verdict gives, or the caller who vouches for the route. One that is called
//!   memory is found out by what `/proc/self/maps` says is mapped there.
//! - **Nothing is revoked.** A mapping of a BAR stays when its device is reset, closed, and
//!   even bound to another driver; only unmapping ends it.
//! - **Everything is mapped cacheable**, BARs included.
//!
//! **Who keeps what alive.** Every open device of the container keeps the container, and so
//! all its mappings, alive in the kernel. So dropping a [`Type1Space`] unmaps what it mapped,
//! call by call, and does not leave that to the closing of descriptors. What others mapped
//! through another descriptor of the same container stays.
//!
//! Beside this file: how the module is set ([`settings`]).
//!
//! Not here: files as sources (type1 has no call for them; see [`crate::iommufd`]), and the
//! version 1 of type1, which unmaps more than it is told.

mod of_device;
pub mod settings;

use crate::own::maps::Maps;
use crate::sys::vfio;
use crate::vfio::place::Place;
use crate::vfio::type1_info::Type1Info;
use crate::vfio::{Damage, Nodes, OpenError, ShownGroup, VfioDevice, errno};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::dma::permit::check_unasked;
use peerdma::dma::{
    Abilities, Changes, Granule, IoSpace, IovaRanges, MapError, Mapped, MemAttrs, Mmio, Permit, Prot, Source,
    SourceKind, Sources, UnmapError, WriteOnly,
};
use peerdma::pcie::PciAddr;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use vfio_bindings::bindings::vfio as uapi;

/// An open container: the address space of all devices of its groups.
///
/// # Examples
/// ```no_run
/// use peerdma::addr::{AddrRange, Bytes, Iova};
/// use peerdma::dma::{IoSpace, MemAttrs, Prot, Source};
/// use peerdma_linux::{memory::Pages, type1::Type1Space, vfio::Nodes};
///
/// let device = "0000:05:00.0".parse()?;
/// let mut space = Type1Space::open(&Nodes::live(), &[device])?;
/// let engine = space.device(device)?;
/// let pages = Pages::zeroed(Bytes::new(4096))?;
/// let iova = AddrRange::new(Iova::new(1 << 20), pages.len()).ok_or("wraps")?;
/// space.map(iova, &Source::Process(pages.address()), Prot::ReadWrite, MemAttrs::empty())?;
/// println!("{} reaches {iova} from now on", engine.address());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Type1Space {
    container: OwnedFd,
    /// With their numbers, where those are known.
    groups: Vec<(Option<u32>, OwnedFd)>,
    abilities: Abilities,
    mapped: Mapped,
    /// What this process has mapped; `None` where /proc does not tell.
    maps: Option<Maps>,
}

impl Type1Space {
    /// Opens `/dev/vfio/vfio` with the groups of all `devices`, one address space for them all.
    ///
    /// # Errors
    /// Whatever stands in the way, by name, before anything is opened where sysfs tells it; see
    /// [`OpenError`]. Nothing stays open.
    pub fn open(nodes: &Nodes, devices: &[PciAddr]) -> Result<Self, OpenError> {
        let mut numbers = BTreeSet::new();
        for device in devices {
            numbers.insert(Place::read(nodes.tree(), *device)?.ready_group()?);
        }
        let container = nodes.container()?;
        let groups = numbers.iter().map(|number| Ok((number.to_string(), nodes.group(*number)?)));
        let groups = groups.collect::<Result<Vec<_>, OpenError>>()?;
        Self::assemble(container, groups)
    }

    /// Takes a container and groups that the caller opened, or was sent.
    ///
    /// Groups that are in a container already are left where they are; the container keeps its
    /// IOMMU if it has one.
    ///
    /// # Errors
    /// As [`open`](Self::open); what sysfs would have told is told by the kernel, less well.
    pub fn from_fds(container: OwnedFd, groups: Vec<OwnedFd>) -> Result<Self, OpenError> {
        let named = groups.into_iter().map(|fd| ("of the descriptor given".to_string(), fd));
        Self::assemble(container, named.collect())
    }

    fn assemble(container: OwnedFd, groups: Vec<(String, OwnedFd)>) -> Result<Self, OpenError> {
        let fd = container.as_fd();
        let refused = |call| move |error| OpenError::kernel(call, "the VFIO container", error);
        match vfio::api_version(fd).map_err(refused("VFIO_GET_API_VERSION"))? {
            0 => {}
            found => return Err(OpenError::Version { found }),
        }
        for (name, group) in &groups {
            enter(fd, name, group.as_fd())?;
        }
        let knows = |kind| vfio::has_extension(fd, kind).map_err(refused("VFIO_CHECK_EXTENSION"));
        // With groups in it, a container answers only for IOMMUs that fit them.
        if !knows(uapi::VFIO_TYPE1v2_IOMMU)? {
            if knows(uapi::VFIO_NOIOMMU_IOMMU)? {
                return Err(OpenError::Noiommu { object: "the VFIO container".to_string() });
            }
            return Err(OpenError::NoType1);
        }
        // A container without an IOMMU refuses to describe one.
        if vfio::iommu_info(fd).is_err() {
            vfio::choose_iommu(fd, uapi::VFIO_TYPE1v2_IOMMU).map_err(|error| match error {
                Errno::PERM => {
                    let names: Vec<&str> = groups.iter().map(|(name, _)| name.as_str()).collect();
                    let plural = if names.len() == 1 { "" } else { "s" };
                    let object = format!("IOMMU group{plural} {}", names.join(" and "));
                    OpenError::UnsafeInterrupts { object, module: "vfio_iommu_type1" }
                }
                error => refused("VFIO_SET_IOMMU")(error),
            })?;
        }
        let bytes = vfio::iommu_info(fd).map_err(refused("VFIO_IOMMU_GET_INFO"))?;
        let info = Type1Info::parse(&bytes).map_err(|damage| OpenError::DamagedSpace { damage: damage.into() })?;
        let abilities = abilities(&info)?;
        let groups = groups.into_iter().map(|(name, fd)| (name.parse().ok(), fd)).collect();
        let maps = Maps::of_this_process().ok();
        Ok(Self { container, groups, abilities, mapped: Mapped::new(), maps })
    }

    /// Opens a device of one of the groups.
    ///
    /// # Errors
    /// [`OpenError::NotInContainer`] if it is in none of them; [`OpenError::Kernel`] and those of
    /// [`VfioDevice::from_fd`].
    pub fn device(&self, device: PciAddr) -> Result<VfioDevice, OpenError> {
        let object = || OpenError::kernel("VFIO_GROUP_GET_DEVICE_FD", device, Errno::INVAL);
        let name = CString::new(device.to_string()).map_err(|_| object())?;
        for (_, group) in &self.groups {
            match vfio::device_of_group(group.as_fd(), &name) {
                Ok(fd) => return VfioDevice::from_fd(fd, device),
                Err(Errno::NODEV) => {}
                Err(error) => return Err(OpenError::kernel("VFIO_GROUP_GET_DEVICE_FD", device, error)),
            }
        }
        Err(OpenError::NotInContainer { device })
    }
    /// The open groups, to be shown at a [hot reset](VfioDevice::hot_reset).
    ///
    /// They borrow the space. Where it stands behind a lock that imports take on their way out, clone the descriptors
    /// and give the lock back before.
    pub fn groups(&self) -> impl Iterator<Item = ShownGroup<'_>> {
        self.groups.iter().map(|(number, fd)| ShownGroup { number: *number, group: fd.as_fd() })
    }
}

fn enter(
    container: std::os::fd::BorrowedFd<'_>,
    name: &str,
    group: std::os::fd::BorrowedFd<'_>,
) -> Result<(), OpenError> {
    let object = || format!("IOMMU group {name}");
    let flags = vfio::group_flags(group);
    let flags = flags.map_err(|error| OpenError::kernel("VFIO_GROUP_GET_STATUS", object(), error))?;
    if flags & uapi::VFIO_GROUP_FLAGS_CONTAINER_SET != 0 {
        return Ok(());
    }
    let not_viable = || OpenError::NotViable { group: name.to_string(), others: Vec::new() };
    if flags & uapi::VFIO_GROUP_FLAGS_VIABLE == 0 {
        return Err(not_viable());
    }
    vfio::enter_container(group, container).map_err(|error| match error {
        // A driver came between the two questions.
        Errno::PERM => not_viable(),
        error => OpenError::kernel("VFIO_GROUP_SET_CONTAINER", object(), error),
    })
}

fn abilities(info: &Type1Info) -> Result<Abilities, OpenError> {
    let damaged = |what: &dyn std::fmt::Display| OpenError::DamagedSpace { damage: Damage::new(what) };
    let granule = match info.page_sizes {
        Some(sizes) => Granule::smallest_of(sizes).ok_or_else(|| damaged(&"it names no page size"))?,
        None => Granule::PAGE_4K,
    };
    // A kernel too old to say takes any IOVA and fails later, where the IOMMU ends.
    let ranges = info.ranges.clone().unwrap_or_else(|| vec![(0, u64::MAX)]);
    let ranges = ranges.into_iter().map(|(first, last)| (Iova::new(first), Iova::new(last)));
    Ok(Abilities {
        sources: Sources { process: Some(Mmio::AsMemory), ..Sources::default() },
        granule,
        usable: IovaRanges::from_inclusive(ranges).map_err(|error| damaged(&error))?,
        attrs: MemAttrs::empty(),
        // IOMMU_WRITE alone goes down to the page table, whose format decides.
        placement: peerdma::dma::Placement::Chosen,
        write_only: WriteOnly::MayRead,
        changes: Changes::UNMAP_SEVERAL | Changes::UNMAP_NOTHING,
        max_mappings: info.left,
    })
}

impl IoSpace for Type1Space {
    /// Never used: type1 takes no files. The same type as iommufd's, so that code can be
    /// written for both.
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
        let expected = self.mapped.check_unmap(&self.abilities, iova)?;
        if expected == Bytes::ZERO {
            return Ok(expected);
        }
        let (start, len) = (iova.start().as_u64(), iova.len().as_u64());
        let unmapped = vfio::unmap(self.container.as_fd(), 0, start, len)
            .map_err(|error| UnmapError::Kernel { call: "VFIO_IOMMU_UNMAP_DMA", errno: errno(error) })?;
        self.mapped.remove(iova);
        Ok(Bytes::new(unmapped))
    }
}

impl Type1Space {
    fn map_by(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Arc<OwnedFd>>,
        (prot, attrs): (Prot, MemAttrs),
        permit: Option<&Permit>,
    ) -> Result<(), MapError> {
        self.abilities.check_map(iova, source, prot, attrs)?;
        match (permit, source, &self.maps) {
            (Some(permit), ..) => permit.check(iova, prot)?,
            (None, Source::Process(address), Some(maps)) if !attrs.contains(MemAttrs::MMIO) => {
                let is_device = of_device::is_mapped_at(maps, *address, iova.len());
                check_unasked(iova, if is_device { attrs | MemAttrs::MMIO } else { attrs })?;
            }
            (None, ..) => check_unasked(iova, attrs)?,
        }
        self.mapped.check_map(&self.abilities, iova)?;
        let Source::Process(address) = source else {
            return Err(MapError::SourceNotTaken { kind: source.kind(), taken: self.abilities.sources });
        };
        let mut flags = 0;
        if prot.reads() {
            flags |= uapi::VFIO_DMA_MAP_FLAG_READ;
        }
        if prot.writes() {
            flags |= uapi::VFIO_DMA_MAP_FLAG_WRITE;
        }
        let (start, len) = (iova.start().as_u64(), iova.len().as_u64());
        vfio::map(self.container.as_fd(), flags, address.as_u64(), start, len).map_err(|error| match error {
            Errno::EXIST => MapError::Overlap { iova, existing: None },
            Errno::NOSPC => MapError::TooManyMappings { limit: self.abilities.max_mappings },
            // Nothing mapped there, read-only memory for a writing device, or a mapping of
            // struct pages without reference counts, such as a dma-buf's or p2pmem's.
            Errno::FAULT => MapError::SourceRefused { kind: SourceKind::Process, errno: errno(error) },
            error => MapError::Kernel { call: "VFIO_IOMMU_MAP_DMA", errno: errno(error) },
        })?;
        self.mapped.insert(iova);
        Ok(())
    }
}

impl Drop for Type1Space {
    fn drop(&mut self) {
        for iova in self.mapped.iter() {
            // Nobody is left to tell; the kernel unmaps when the last device is closed.
            let _ = vfio::unmap(self.container.as_fd(), 0, iova.start().as_u64(), iova.len().as_u64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_follow_what_the_kernel_says() {
        let ranges = vec![(0xfef0_0000, 0xffff_ffff_ffff), (0, 0xfedf_ffff)];
        let info = Type1Info { page_sizes: Some(0x4020_1000), ranges: Some(ranges), left: Some(65535) };
        let abilities = abilities(&info).unwrap();
        assert_eq!(abilities.granule, Granule::PAGE_4K);
        assert_eq!(abilities.max_mappings, Some(65535));
        let usable = abilities.usable.as_slice();
        assert_eq!((usable[0].last(), usable[1].start()), (Iova::new(0xfedf_ffff), Iova::new(0xfef0_0000)));
        assert_eq!(abilities.sources.to_string(), "process addresses");
    }

    #[test]
    fn a_container_without_page_sizes_or_with_reversed_ranges_is_refused() {
        let none = Type1Info { page_sizes: Some(0), ..Type1Info::default() };
        assert!(matches!(abilities(&none), Err(OpenError::DamagedSpace { .. })));
        let reversed = Type1Info { ranges: Some(vec![(2, 1)]), ..Type1Info::default() };
        assert!(matches!(abilities(&reversed), Err(OpenError::DamagedSpace { .. })));
    }
}
