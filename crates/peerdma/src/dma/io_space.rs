//! The interface of an address space that devices see through an IOMMU.
//!
//! Three kinds of source exist because three kinds of space do: a software IOMMU
//! resolves owners to physical ranges, VFIO type1 takes process addresses, and
//! iommufd takes process addresses or files. A space says in its
//! [`Abilities`] which of them it takes and refuses the others by name,
//! so callers choose before they ask and tests hold every space to the same claims
//! ([`contract`](super::contract)).
//!
//! Rejected: one trait per kind of space, which moves the choice into every
//! caller; and page-wise calls, since cost follows ranges and never pages.
//!
//! Not here: choosing IOVAs, keeping what a mapping points at alive, and waiting
//! for devices. A caller that unmaps under running DMA gets IOMMU faults, which
//! the device may or may not report.

use super::abilities::Abilities;
use super::error::{MapError, UnmapError};
use super::permit::Permit;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Iova, PhysAddr, ProcVa};
use core::fmt;

/// An address space that one or more devices see through an IOMMU.
///
/// All calls take effect before they return: after [`map`](Self::map) the devices
/// of the space reach the source, after [`unmap`](Self::unmap) they do not and the
/// IOTLB holds nothing of the range. Both may block while pages are pinned or
/// translations are invalidated; neither waits for a device.
///
/// Implementations call [`Abilities::check_map`], [`Abilities::check_unmap`] and,
/// for what they have mapped themselves, the checks of [`Mapped`](super::Mapped)
/// before they ask the kernel, so that equal requests are refused with equal errors
/// everywhere and a refused request changes nothing.
///
/// ```
/// use peerdma::addr::{AddrRange, Bytes, Iova, ProcVa};
/// use peerdma::dma::{IoSpace, MapError, MemAttrs, Prot, Source, UnmapError};
///
/// /// Lets a device read a buffer for as long as `transfer` runs.
/// fn lend<S: IoSpace>(
///     space: &mut S,
///     buffer: ProcVa,
///     iova: AddrRange<Iova>,
///     transfer: impl FnOnce(AddrRange<Iova>),
/// ) -> Result<(), Box<dyn std::error::Error>> {
///     space.map(iova, &Source::Process(buffer), Prot::Read, MemAttrs::empty())?;
///     transfer(iova);
///     let unmapped = space.unmap(iova)?;
///     assert_eq!(unmapped, iova.len());
///     Ok(())
/// }
/// ```
pub trait IoSpace {
    /// What stands for an open file: `Arc<OwnedFd>` on Linux, a number in fakes.
    ///
    /// A space may keep a clone for as long as the mapping lasts, or none: the
    /// mapping itself outlives the descriptor in iommufd.
    type File: Clone + fmt::Debug;

    /// What this space takes; changes only when devices are attached or detached.
    ///
    /// Costs nothing; the answer was read when the space was opened or last attached.
    fn abilities(&self) -> &Abilities;

    /// Refuses by name a place at which nothing can be mapped now, for whoever has nothing to map yet.
    ///
    /// What this lets pass may be refused when it comes to mapping: others map meanwhile, and spaces that keep no record of
    /// what is mapped look at their abilities alone, as written here.
    ///
    /// # Errors
    /// [`MapError::Misaligned`], [`MapError::OutsideUsable`], [`MapError::Overlap`] and [`MapError::TooManyMappings`].
    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        self.abilities().check_iovas(iova)
    }

    /// Maps all of `iova` to as many bytes of `source`.
    ///
    /// With [`Source::Process`] the caller vouches for the memory behind the address: from this
    /// call until [`unmap`](Self::unmap) returns, the devices of the space read and (with
    /// [`Prot::writes`]) write it whatever this program's references say, as a write to
    /// `/proc/self/mem` would. So it is memory of which nothing is borrowed meanwhile, and which
    /// holds nothing but plain bytes; the space does not know its owner and checks none of this.
    /// Nor does it keep the range mapped in the process: pages that the process gives back
    /// while they are pinned stay the device's and are no longer seen through that address.
    ///
    /// # Errors
    /// Nothing is mapped after any of them. See [`MapError`] for what to do; its
    /// variants up to [`MapError::TooManyMappings`] follow from the request, the
    /// abilities and what is mapped, the others from an answer of the kernel.
    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError>;

    /// Maps like [`map`](Self::map), but devices may reach it only after [`sync`](Self::sync).
    ///
    /// The second of two steps of a mapping of many ranges, which are made visible once. As
    /// written here it maps at once, as spaces behind a system call do.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    fn link(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.map(iova, source, prot, attrs)
    }

    /// Makes visible to the devices what was linked in `iova`.
    ///
    /// Nothing to do as written here.
    fn sync(&mut self, iova: AddrRange<Iova>) {
        let _ = iova;
    }

    /// Links as [`link`](Self::link) does, with leave to reach another device's memory.
    ///
    /// Spaces of a kernel that does not ask whether the two devices reach each other take device memory in no other way.
    /// As written here the permit is not looked at, as by spaces to which all of a machine is one range of addresses.
    ///
    /// # Errors
    /// As [`map`](Self::map), and [`MapError::BeyondPermit`].
    fn link_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        let _ = permit;
        self.link(iova, source, prot, attrs)
    }

    /// Maps as [`map`](Self::map) does, with leave to reach another device's memory.
    ///
    /// # Errors
    /// As [`link_peer`](Self::link_peer).
    fn map_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        self.link_peer(iova, source, prot, attrs, permit)?;
        self.sync(iova);
        Ok(())
    }

    /// Points a part of what is mapped elsewhere, page by page, without a moment in which a page
    /// leads nowhere.
    ///
    /// All of `iova` is mapped before; mappings may reach out of it and keep their ends.
    ///
    /// # Errors
    /// [`MapError::RelinkNotTaken`] in spaces without
    /// [`Changes::RELINK`](super::Changes::RELINK), which is what is written here: unmap and map
    /// instead. [`MapError::NotMapped`] where some of `iova` leads nowhere; else as
    /// [`map`](Self::map). Nothing is changed after any of them.
    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        let _ = (source, prot, attrs);
        Err(MapError::RelinkNotTaken { iova })
    }

    /// Unmaps what is mapped in `iova` and returns how many bytes that were.
    ///
    /// The result is `iova.len()` where `iova` is exactly what was mapped, and less
    /// where it holds gaps.
    ///
    /// # Errors
    /// Nothing is unmapped after any of them but [`UnmapError::Kernel`], after which
    /// the space should be closed. See [`UnmapError`].
    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError>;
}

/// Hands every question of [`IoSpace`] on to another space.
///
/// For a reference to a space, and for a type that is one of several kinds of space; whoever adds
/// something to an answer implements [`IoSpace`] itself.
///
/// ```
/// use peerdma::addr::Iova;
/// use peerdma::dma::spaces::DirectSpace;
/// use peerdma::dma::{Delegate, IoSpace, Windows};
///
/// struct Named {
///     name: &'static str,
///     space: DirectSpace,
/// }
///
/// impl Delegate for Named {
///     type Space = DirectSpace;
///
///     fn space(&self) -> &DirectSpace {
///         &self.space
///     }
///
///     fn space_mut(&mut self) -> &mut DirectSpace {
///         &mut self.space
///     }
/// }
///
/// let space = DirectSpace::new(Windows::one_to_one(), Iova::new(0xffff_ffff));
/// let named = Named { name: "nic0", space: space.clone() };
/// assert_eq!((named.abilities(), named.name), (space.abilities(), "nic0"));
/// ```
pub trait Delegate {
    /// Who answers.
    type Space: IoSpace + ?Sized;

    /// Who is asked.
    fn space(&self) -> &Self::Space;

    /// Who is changed; the same as [`space`](Self::space).
    fn space_mut(&mut self) -> &mut Self::Space;
}

/// A space that somebody else keeps.
impl<S: IoSpace + ?Sized> Delegate for &mut S {
    type Space = S;

    #[inline]
    fn space(&self) -> &S {
        self
    }

    #[inline]
    fn space_mut(&mut self) -> &mut S {
        self
    }
}

impl<D: Delegate + ?Sized> IoSpace for D {
    type File = <D::Space as IoSpace>::File;

    #[inline]
    fn abilities(&self) -> &Abilities {
        self.space().abilities()
    }

    #[inline]
    fn check_place(&self, iova: AddrRange<Iova>) -> Result<(), MapError> {
        self.space().check_place(iova)
    }

    #[inline]
    fn map(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.space_mut().map(iova, source, prot, attrs)
    }

    #[inline]
    fn link(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.space_mut().link(iova, source, prot, attrs)
    }

    #[inline]
    fn link_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        self.space_mut().link_peer(iova, source, prot, attrs, permit)
    }

    #[inline]
    fn map_peer(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
        permit: &Permit,
    ) -> Result<(), MapError> {
        self.space_mut().map_peer(iova, source, prot, attrs, permit)
    }

    #[inline]
    fn sync(&mut self, iova: AddrRange<Iova>) {
        self.space_mut().sync(iova);
    }

    #[inline]
    fn relink(
        &mut self,
        iova: AddrRange<Iova>,
        source: &Source<Self::File>,
        prot: Prot,
        attrs: MemAttrs,
    ) -> Result<(), MapError> {
        self.space_mut().relink(iova, source, prot, attrs)
    }

    #[inline]
    fn unmap(&mut self, iova: AddrRange<Iova>) -> Result<Bytes, UnmapError> {
        self.space_mut().unmap(iova)
    }
}

/// What a mapping points at; its length is that of the IOVA range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Source<F> {
    /// A physical range, from this address on.
    Physical(PhysAddr),
    /// A range of the calling process, from this address on.
    ///
    /// Whoever passes one to [`IoSpace::map`] vouches for what is there: a device writes to it
    /// regardless of what Rust code has borrowed.
    Process(ProcVa),
    /// A range of a file: a memfd, or a dma-buf.
    File {
        /// The open file.
        file: F,
        /// Where in it the range starts.
        offset: Bytes,
    },
}

impl<F> Source<F> {
    /// Which kind this is.
    pub const fn kind(&self) -> SourceKind {
        match self {
            Self::Physical(_) => SourceKind::Physical,
            Self::Process(_) => SourceKind::Process,
            Self::File { .. } => SourceKind::File,
        }
    }
}

/// Kind of a [`Source`], for abilities and errors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum SourceKind {
    /// [`Source::Physical`].
    Physical,
    /// [`Source::Process`].
    Process,
    /// [`Source::File`].
    File,
}

impl fmt::Display for SourceKind {
    /// Writes `physical ranges`, `process addresses` or `files`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Physical => "physical ranges",
            Self::Process => "process addresses",
            Self::File => "files",
        })
    }
}
