//! Why KVM did not do as asked.

use super::slot::SlotId;
use peerdma::addr::{AddrRange, Bytes, GuestPhys};
use peerdma::buffer::shared::Part;
use peerdma::dma::Errno;
use std::fmt;

/// What a descriptor of KVM's is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FdKind {
    /// `/dev/kvm` itself.
    System,
    /// A virtual machine.
    Machine,
    /// A processor of one.
    Processor,
}

impl fmt::Display for FdKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "/dev/kvm",
            Self::Machine => "a virtual machine of KVM",
            Self::Processor => "a virtual machine's processor",
        })
    }
}

/// Why there is no virtual machine, processor or guest memory.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KvmError {
    /// The kernel has no KVM, or the processor no virtualisation.
    #[error("there is no /dev/kvm: load kvm-amd or kvm-intel, and see that the firmware leaves virtualisation on")]
    Absent,
    /// This process may not open it.
    #[error("not permitted to open /dev/kvm ({errno}); join its group (mostly `kvm`), or have a descriptor handed in")]
    Permission {
        /// The kernel's answer.
        errno: Errno,
    },
    /// A descriptor is of something else.
    #[error("the descriptor is not of {wanted} but of {seen}; hand in the right one")]
    NotA {
        /// What it is to be.
        wanted: FdKind,
        /// What `/proc/self/fd` says of it.
        seen: String,
    },
    /// The interface is another one.
    #[error("KVM's interface has version {seen}, and this library speaks 12, as all kernels since 2.6.22 do")]
    Version {
        /// Its version.
        seen: i32,
    },
    /// The kernel lacks something.
    #[error("this kernel's KVM has no {what}, which needs {needs}")]
    Lacks {
        /// What it lacks.
        what: &'static str,
        /// Which kernels have it.
        needs: &'static str,
    },
    /// The kernel refused for a reason of its own.
    #[error("{call} refused with {errno}")]
    Kernel {
        /// Which call.
        call: &'static str,
        /// Its answer.
        errno: Errno,
    },
}

/// What does not begin or end at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unaligned {
    /// The address in the guest.
    Guest(GuestPhys),
    /// Where the part begins in its memory, or in this process.
    Memory(Bytes),
    /// The length.
    Length(Bytes),
}

impl fmt::Display for Unaligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(at) => write!(f, "guest address {at}"),
            Self::Memory(at) => write!(f, "start {:#x} in the memory", at.as_u64()),
            Self::Length(len) => write!(f, "length {len}"),
        }
    }
}

/// Why there is no such slot. All but [`Kernel`](Self::Kernel) and [`OverlapsForeign`](Self::OverlapsForeign) are said before the kernel is asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SlotError {
    /// It has no bytes.
    #[error("a slot of no bytes cannot be made (to KVM it would mean to delete one); give it a page at least")]
    Empty,
    /// It is not made of whole pages.
    #[error("{what} is no multiple of {page}; a guest gets whole pages")]
    NotPages {
        /// What is not.
        what: Unaligned,
        /// The page size.
        page: Bytes,
    },
    /// It is longer than any slot.
    #[error("{len} are more than a slot holds ({most}); make several")]
    TooLong {
        /// What was asked for.
        len: Bytes,
        /// The most.
        most: Bytes,
    },
    /// It ends past the guest's last address.
    #[error("{len} from {at} on run past the guest's last address")]
    PastEnd {
        /// Where it begins.
        at: GuestPhys,
        /// Its length.
        len: Bytes,
    },
    /// It ends past its memory.
    #[error("{part} is no part of memory of {memory}; choose a smaller one")]
    BeyondMemory {
        /// What was asked for.
        part: Part,
        /// The memory's length.
        memory: Bytes,
    },
    /// The guest has something there already.
    #[error("{asked} is in the way of {other} ({what}); choose another place, or take that away first",
        what = .slot.map_or_else(|| "reserved".to_string(), |slot| slot.to_string()))]
    Overlaps {
        /// What was asked for.
        asked: AddrRange<GuestPhys>,
        /// What is there.
        other: AddrRange<GuestPhys>,
        /// Its slot; `None` of what was reserved.
        slot: Option<SlotId>,
    },
    /// The kernel knows a slot there that was made by somebody else.
    #[error(
        "{asked} is in the way of a slot that was made through another descriptor of the machine; reserve what is taken"
    )]
    OverlapsForeign {
        /// What was asked for.
        asked: AddrRange<GuestPhys>,
    },
    /// All slots are in use.
    #[error("all {slots} slots of the machine are in use; drop one, or put several ranges into one")]
    Full {
        /// How many there are.
        slots: u32,
    },
    /// The memory cannot be a slot like that.
    #[error("the memory permits no {what}; {next}")]
    NotPermitted {
        /// What.
        what: &'static str,
        /// What to do instead.
        next: &'static str,
    },
    /// The memory could not be mapped.
    #[error("the memory cannot be mapped for the guest: {errno}")]
    NotMapped {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused for a reason of its own.
    #[error(
        "KVM refused a slot at {asked} with {errno}; the guest's addresses may be narrower than that, or there is no memory left"
    )]
    Kernel {
        /// What was asked for.
        asked: AddrRange<GuestPhys>,
        /// The kernel's answer.
        errno: Errno,
    },
}
