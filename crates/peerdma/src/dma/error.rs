//! Why a mapping or an unmapping was refused.
//!
//! Two sorts of refusal stand side by side. Those *by name* follow from the
//! request, the [`Abilities`](super::Abilities) and the ranges that are mapped;
//! every space gives them alike and without asking a kernel. Those *by a kernel*
//! carry its [`Errno`], since EINVAL alone has five meanings in type1.

use super::abilities::Sources;
use super::io_space::SourceKind;
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova, PhysAddr, ProcVa};
use core::fmt;

/// An error number as Linux returned it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Errno(i32);

macro_rules! errnos {
    ($($name:ident = $number:literal, $meaning:literal;)*) => {
        impl Errno {
            $(
                #[doc = concat!($meaning, ".")]
                pub const $name: Self = Self($number);
            )*

            /// Its name, if address spaces are known to answer with it.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

// Numbers of `asm-generic/errno.h`, which x86, Arm and RISC-V share. The names only
// make messages readable; where another architecture numbers differently, the number
// that is printed beside the name is still the kernel's own.
errnos! {
    EPERM = 1, "Not permitted";
    ENOENT = 2, "Nothing is mapped there, or no such object";
    EIO = 5, "Input or output error";
    E2BIG = 7, "The kernel is older than the structure";
    EBADF = 9, "Not an open file";
    ENOMEM = 12, "No memory, or over the limit of locked memory";
    EACCES = 13, "No access";
    EFAULT = 14, "A process range cannot be pinned";
    EBUSY = 16, "In use";
    EEXIST = 17, "Something is mapped there";
    ENODEV = 19, "The device is gone, or revoked its memory";
    EINVAL = 22, "Not valid";
    ENOTTY = 25, "Not a file that knows this request";
    ENOSPC = 28, "No more entries";
    EOVERFLOW = 75, "A sum does not fit";
    EOPNOTSUPP = 95, "Not supported";
    EADDRINUSE = 98, "The address is in use";
}

impl Errno {
    /// Takes a number as returned in `errno`, positive.
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Errno {
    /// Writes `EINVAL (22)`, or `errno 200` for one without a name here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Errno({})", self.0)
    }
}

/// The part of a request that is not a multiple of the granule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Misaligned {
    /// Where the IOVA range starts.
    Iova(Iova),
    /// The length.
    Length(Bytes),
    /// A physical source.
    Physical(PhysAddr),
    /// A process source.
    Process(ProcVa),
    /// Where in its file a source starts.
    FileOffset(Bytes),
}

impl fmt::Display for Misaligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iova(iova) => write!(f, "IOVA {iova}"),
            Self::Length(len) => write!(f, "length {:#x}", len.as_u64()),
            Self::Physical(at) => write!(f, "physical address {at}"),
            Self::Process(at) => write!(f, "process address {at}"),
            Self::FileOffset(offset) => write!(f, "file offset {:#x}", offset.as_u64()),
        }
    }
}

/// Writes what Linux takes of a kind of source, for refusals that do not tell.
struct Takes<'a>(&'a SourceKind);

impl fmt::Display for Takes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SourceKind::Physical => "memory or one device must own all of the range",
            SourceKind::Process => {
                "all of the range must be mapped in this process, writably if the device is to write, \
                 and a mapping of a BAR is taken by type1 alone"
            }
            SourceKind::File => "it must be a memfd, or a dma-buf that VFIO exported from one range",
        })
    }
}

/// Writes the usable range that a refused one missed.
struct Nearest<'a>(&'a Option<AddrRange<Iova>>);

impl fmt::Display for Nearest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(range) => write!(f, "; the one nearest to its start is {range}"),
            None => f.write_str(", since the space has none; attach a device first"),
        }
    }
}

/// Writes the mapping that is in the way.
struct Existing<'a>(&'a Option<AddrRange<Iova>>);

impl fmt::Display for Existing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(range) => write!(f, "the mapping of {range}"),
            None => f.write_str("a mapping that was not made through this handle"),
        }
    }
}

/// Writes where a space shows a source.
struct Shown<'a>(&'a Option<Iova>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "at {at}"),
            None => f.write_str("nowhere"),
        }
    }
}

/// Writes the limit where it is known.
struct Limit<'a>(&'a Option<u32>);

impl fmt::Display for Limit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(limit) => write!(f, ", {limit} are the limit"),
            None => Ok(()),
        }
    }
}

/// Why [`IoSpace::map`](super::IoSpace::map) mapped nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// The space never takes this kind of source; offer another kind, or use another space.
    #[error("this address space takes no {kind}, only {taken}")]
    SourceNotTaken {
        /// What was offered.
        kind: SourceKind,
        /// What it takes.
        taken: Sources,
    },
    /// The space cannot express these attributes for this kind of source; do without them.
    #[error(
        "this address space cannot map {kind} as {attrs}; leave the attribute out, or offer another kind of source"
    )]
    AttrsNotTaken {
        /// The attributes that it cannot express, without those that it can.
        attrs: MemAttrs,
        /// The kind of source.
        kind: SourceKind,
    },
    /// The space cannot let a device write without letting it read; ask for both.
    #[error("this address space has no write-only mappings; ask for rw")]
    WriteOnlyNotTaken,
    /// Something is not a multiple of the granule; map more, or copy head and tail.
    #[error("{what} is not a multiple of the granule of {granule}; map whole granules")]
    Misaligned {
        /// What, and its value.
        what: Misaligned,
        /// Smallest unit of this space.
        granule: Granule,
    },
    /// The source runs past the end of its own address space or of 64-bit file offsets.
    #[error("{len} from the source's start run past the end of all {kind}")]
    SourceWraps {
        /// The kind of source.
        kind: SourceKind,
        /// Length that was asked for.
        len: Bytes,
    },
    /// Some of the range cannot be used; choose one inside a usable range.
    #[error("IOVA {iova} is not inside a usable range{}", Nearest(.nearest))]
    OutsideUsable {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// The usable range at or next to its start; none if there is no usable range.
        nearest: Option<AddrRange<Iova>>,
    },
    /// Nobody has asked whether requests reach this device memory; ask with [`Peers::permit`](super::Peers::permit), or
    /// [vouch](super::Permit::vouched) for it, and map it with [`IoSpace::map_peer`](super::IoSpace::map_peer).
    #[error(
        "nobody has asked whether requests at IOVA {iova} would reach this device's memory, and the kernel does not; map it with the permit of a verdict, or vouch for the route"
    )]
    Unasked {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// The permit is for less; map it for that, or ask for more.
    #[error(
        "IOVA {iova} was to be mapped {asked}, and the route is permitted for {permitted} alone; map it {permitted}"
    )]
    BeyondPermit {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// What was asked for.
        asked: Prot,
        /// What the permit is for.
        permitted: Prot,
    },
    /// The file was opened, or exported, for less, which the kernel does not look at; map it for that, or have it exported for more.
    #[error(
        "the file was given for {given} and was to be mapped {asked}, which the kernel would not refuse; map it {given}, or have it given for {asked}"
    )]
    FileMode {
        /// What was asked for.
        asked: Prot,
        /// What its descriptor is good for.
        given: Prot,
    },
    /// Some of the range is mapped; unmap that first, or choose another range.
    #[error("IOVA {iova} overlaps {}; unmap it first or map elsewhere", Existing(.existing))]
    Overlap {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// The first mapping in the way, or the page of it where a space knows no more; none if
        /// somebody else mapped it in the same space.
        existing: Option<AddrRange<Iova>>,
    },
    /// The file is shorter than the range; map less of it.
    #[error("{len} from offset {offset} are past the end of the file of {file_len}")]
    BeyondFile {
        /// Where the range starts.
        offset: Bytes,
        /// Its length.
        len: Bytes,
        /// The length of the file.
        file_len: Bytes,
    },
    /// No more mappings fit; unmap some, or map larger ranges.
    #[error("no room for another mapping{}; unmap some, map larger ranges, or raise the limit", Limit(.limit))]
    TooManyMappings {
        /// The number that fits, where it is known.
        limit: Option<u32>,
    },
    /// The space changes no mapping in place; unmap it and map anew.
    #[error("this address space cannot point IOVA {iova} elsewhere while it is mapped; unmap it and map it anew")]
    RelinkNotTaken {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// Some of the range leads nowhere, so there is nothing to point elsewhere; map it.
    #[error("nothing is mapped at {at} of IOVA {iova}; map it")]
    NotMapped {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// Where the first hole is.
        at: Iova,
    },
    /// The memory for page tables is used up; unmap something and reclaim, or give it more.
    #[error("no frame is left for a page table of IOVA {iova}; unmap something, or give the tables more memory")]
    NoTableMemory {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// The page tables cannot hold so high an output address.
    #[error("{address} is beyond the {bits} address bits that these page tables hold")]
    SourceTooHigh {
        /// The address.
        address: PhysAddr,
        /// Bits of output address.
        bits: u8,
    },
    /// The space says where a source appears, and that is not there.
    #[error("this address space shows the source {}, not at IOVA {iova}", Shown(.dictated))]
    PlacementDictated {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// Where it appears; `None` if nowhere.
        dictated: Option<Iova>,
    },
    /// The kernel does not take these very bytes; they are of a sort it cannot map, or not there.
    #[error("the kernel cannot map these {kind} ({errno}); {}", Takes(.kind))]
    SourceRefused {
        /// The kind of source.
        kind: SourceKind,
        /// Its answer.
        errno: Errno,
    },
    /// Whoever provides the source revoked it; wait for its device to be enabled, or export anew.
    #[error(
        "the provider of this memory has revoked it ({errno}); enable memory on its device, or export it again if the device was closed"
    )]
    SourceRevoked {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The page tables hold nothing that devices may only read; ask for both.
    #[error("these page tables take no read-only mappings; ask for rw")]
    ReadOnlyNotTaken,
    /// An entry on the way is none of the tables' format; somebody else writes to them.
    #[error("the page tables of IOVA {iova} are damaged; find who else writes to them")]
    TablesDamaged {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} refused with {errno}")]
    Kernel {
        /// The system call or request.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

/// Why [`IoSpace::unmap`](super::IoSpace::unmap) unmapped nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnmapError {
    /// Something is not a multiple of the granule; nothing like that is mapped.
    #[error("{what} is not a multiple of the granule of {granule}; unmap what was mapped")]
    Misaligned {
        /// What, and its value.
        what: Misaligned,
        /// Smallest unit of this space.
        granule: Granule,
    },
    /// Nothing is mapped in the range, and this space calls that an error.
    #[error("nothing is mapped in IOVA {iova}")]
    NothingMapped {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// The range ends inside a mapping; unmap the whole mapping.
    #[error("IOVA {iova} would cut {}; unmap whole mappings", Existing(.existing))]
    Split {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// The mapping that would be cut; none if it is not one of ours.
        existing: Option<AddrRange<Iova>>,
    },
    /// The range holds more than one mapping, or gaps; unmap each by itself.
    #[error("IOVA {iova} is not exactly one mapping; unmap each mapping by itself")]
    NotOneMapping {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// A large page has to be split, and no frame is left for the table of its parts; unmap
    /// something else first, or all of the page.
    #[error(
        "no frame is left to split the large page at {at} of IOVA {iova}; unmap whole pages, or give the tables more memory"
    )]
    NoTableMemory {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
        /// The end of it that lies inside a large page.
        at: Iova,
    },
    /// An entry on the way is none of the tables' format; somebody else writes to them, and a part
    /// of the range may be unmapped.
    #[error("the page tables of IOVA {iova} are damaged; find who else writes to them")]
    TablesDamaged {
        /// The range that was asked for.
        iova: AddrRange<Iova>,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} refused with {errno}; close the address space to be sure that nothing stays mapped")]
    Kernel {
        /// The system call or request.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dma::abilities::Mmio;
    use alloc::string::ToString;

    fn iova() -> AddrRange<Iova> {
        AddrRange::new(Iova::new(0x1000), Bytes::new(0x2000)).unwrap()
    }

    #[test]
    fn an_error_number_is_shown_with_its_name_where_it_has_one() {
        assert_eq!(Errno::new(22).to_string(), "EINVAL (22)");
        assert_eq!(Errno::new(200).to_string(), "errno 200");
        assert_eq!(Errno::new(22), Errno::EINVAL);
    }

    #[test]
    fn a_refusal_names_object_evidence_and_next_step() {
        let taken = Sources { process: Some(Mmio::AsMemory), ..Sources::default() };
        for (error, text) in [
            (
                MapError::SourceNotTaken { kind: SourceKind::File, taken },
                "this address space takes no files, only process addresses",
            ),
            (
                MapError::Misaligned { what: Misaligned::Iova(Iova::new(0x1800)), granule: Granule::PAGE_4K },
                "IOVA 0x1800 is not a multiple of the granule of 4 KiB; map whole granules",
            ),
            (
                MapError::OutsideUsable { iova: iova(), nearest: None },
                "IOVA 0x1000-0x2fff is not inside a usable range, since the space has none; attach a device first",
            ),
            (
                MapError::Overlap { iova: iova(), existing: None },
                "IOVA 0x1000-0x2fff overlaps a mapping that was not made through this handle; unmap it first or map \
                 elsewhere",
            ),
            (
                MapError::TooManyMappings { limit: Some(65535) },
                "no room for another mapping, 65535 are the limit; unmap some, map larger ranges, or raise the limit",
            ),
            (
                MapError::Kernel { call: "VFIO_IOMMU_MAP_DMA", errno: Errno::ENOMEM },
                "VFIO_IOMMU_MAP_DMA refused with ENOMEM (12)",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
        let split = UnmapError::Split { iova: iova(), existing: Some(iova()) };
        assert_eq!(
            split.to_string(),
            "IOVA 0x1000-0x2fff would cut the mapping of 0x1000-0x2fff; unmap whole mappings"
        );
    }

    #[test]
    fn what_linux_takes_is_said_for_each_kind_of_source() {
        for (kind, word) in [(SourceKind::Physical, "own"), (SourceKind::Process, "type1"), (SourceKind::File, "memfd")]
        {
            let error = MapError::SourceRefused { kind, errno: Errno::EFAULT };
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
