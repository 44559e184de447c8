//! Pins that another holder keeps.
//!
//! What is pinned belongs to the ring, and the ring to whoever has a descriptor of it; the last to close it lets
//! everything go, whoever that is. A descriptor passes to another process by inheritance or by `pidfd_getfd`, and not
//! over a socket (`SCM_RIGHTS` of a ring is `EINVAL` since Linux 6.7). A copy of the table
//! (`IORING_REGISTER_CLONE_BUFFERS`) stays in the address space.

use super::{Pinner, RingKind};
use crate::own::ring_info;
use crate::sys::uring::Ring;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;

/// Why pins cannot be handed on, or taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandOnError {
    /// The ring has no descriptor.
    #[error(
        "the pins are in a ring without a descriptor, which ends with its process and cannot be handed on; make the \
         pinner with Ring::Descriptor"
    )]
    RegisteredOnly,
    /// The pins are those of the parent of this process, which holds the rings already.
    #[error("the pinner belongs to the process that this one was forked from; hand its pins on there")]
    Forked,
    /// The kernel cannot copy tables.
    #[error("this kernel copies no tables of buffers between rings (Linux 6.12); hand a descriptor on instead")]
    NoClone,
    /// The descriptor is something else.
    #[error("descriptor {fd} is {is}, and not a ring; take over what the holder of the pins handed on")]
    NotARing {
        /// Which.
        fd: RawFd,
        /// What it is, as `/proc` calls it.
        is: String,
    },
    /// The kernel refuses.
    #[error("the kernel refuses ({doing}: {errno}); see the call's manual for what it asks of this process")]
    Kernel {
        /// Which call.
        doing: &'static str,
        /// What it answered.
        errno: Errno,
    },
    /// A call failed.
    #[error("{doing} failed")]
    Io {
        /// What for.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Pinner {
    /// Descriptors of all rings, closed on exec; who has one of each keeps all that is pinned.
    ///
    /// For `pidfd_getfd` by another process ([`Held::of_process`]), which needs to be told their numbers, and for a
    /// fork. Whoever holds one could empty slots too, so hand them to processes that are trusted with the memory.
    ///
    /// # Errors
    /// [`HandOnError::RegisteredOnly`]; [`HandOnError::Forked`]; [`HandOnError::Io`] where no descriptor is left.
    pub fn descriptors(&self) -> Result<Vec<OwnedFd>, HandOnError> {
        if self.ring_kind() == RingKind::RegisteredOnly {
            return Err(HandOnError::RegisteredOnly);
        }
        if !self.inner.is_of_this_process() {
            return Err(HandOnError::Forked);
        }
        let of = |seat: &super::seat::Seat| {
            let copy = seat.descriptor().ok_or(HandOnError::RegisteredOnly)?;
            copy.map_err(|source| HandOnError::Io { doing: "copying the ring's descriptor", source })
        };
        self.inner.seats().iter().map(|seat| of(seat)).collect()
    }

    /// The same, kept open over exec, so that programs started meanwhile inherit them.
    ///
    /// *All* of them do: other threads that start programs hand the pins to those as well. Close them soon.
    ///
    /// # Errors
    /// As [`descriptors`](Self::descriptors).
    pub fn inheritable(&self) -> Result<Vec<OwnedFd>, HandOnError> {
        let descriptors = self.descriptors()?;
        for descriptor in &descriptors {
            fcntl_setfd(descriptor, FdFlags::empty())
                .map_err(|errno| HandOnError::Kernel { doing: "fcntl(F_SETFD)", errno })?;
        }
        Ok(descriptors)
    }

    /// A holder of its own for what is pinned now; the pages stay when this pinner has gone, and are not charged twice.
    ///
    /// The books of an [`Admission`](super::Admission) know nothing of it: when the pin is dropped they are told that it is
    /// released, and the kernel charges for it until the clone has gone too. Where nothing is pinned it holds nothing.
    ///
    /// # Errors
    /// [`HandOnError::RegisteredOnly`]; [`HandOnError::NoClone`] before Linux 6.12; [`HandOnError::Kernel`] where no other ring can
    /// be made.
    pub fn clone_pins(&self) -> Result<Held, HandOnError> {
        let rings = self.descriptors()?;
        let copy = |ring: &OwnedFd| -> Result<OwnedFd, HandOnError> {
            let kernel = |doing| move |errno| HandOnError::Kernel { doing, errno };
            let mut other = Ring::with_descriptor().map_err(kernel("io_uring_setup"))?;
            other.clone_table(ring.as_fd()).map_err(|errno| match errno {
                Errno::INVAL => HandOnError::NoClone,
                errno => kernel("IORING_REGISTER_CLONE_BUFFERS")(errno),
            })?;
            let descriptor = other.descriptor().ok_or(HandOnError::RegisteredOnly)?;
            descriptor.try_clone().map_err(|source| HandOnError::Io { doing: "copying the ring's descriptor", source })
        };
        Ok(Held { rings: rings.iter().map(copy).collect::<Result<_, _>>()? })
    }
}

/// Pins that somebody else made, and that last while this lives.
///
/// It says what is pinned, and keeps it; nothing can be transferred through it, since the addresses are another
/// process's.
#[derive(Debug)]
#[must_use = "the pins last while the value lives"]
pub struct Held {
    rings: Vec<OwnedFd>,
}

impl Held {
    /// Takes descriptors over that this process inherited.
    ///
    /// # Errors
    /// [`HandOnError::NotARing`].
    pub fn inherited(rings: Vec<OwnedFd>) -> Result<Self, HandOnError> {
        for ring in &rings {
            check(ring.as_fd())?;
            // Not handed on further by accident.
            fcntl_setfd(ring, FdFlags::CLOEXEC)
                .map_err(|errno| HandOnError::Kernel { doing: "fcntl(F_SETFD)", errno })?;
        }
        Ok(Self { rings })
    }

    /// Takes descriptors out of another process by their numbers there (Linux 5.6).
    ///
    /// Needs the right to trace the process: that of the same user, where the Yama module does not forbid it.
    ///
    /// # Errors
    /// [`HandOnError::Kernel`]: `EPERM` without that right, `EBADF` for a wrong number, `ESRCH` for a process that has
    /// ended. [`HandOnError::NotARing`].
    pub fn of_process(process: BorrowedFd<'_>, numbers: &[RawFd]) -> Result<Self, HandOnError> {
        let take = |number: &RawFd| {
            pidfd_getfd(process, *number, PidfdGetfdFlags::empty())
                .map_err(|errno| HandOnError::Kernel { doing: "pidfd_getfd", errno })
        };
        let rings: Vec<OwnedFd> = numbers.iter().map(take).collect::<Result<_, _>>()?;
        rings.iter().try_for_each(|ring| check(ring.as_fd()))?;
        Ok(Self { rings })
    }

    /// What is pinned, by the addresses of the process that pinned it.
    ///
    /// # Errors
    /// What reading `/proc/self/fdinfo` says; [`io::ErrorKind::WouldBlock`] while somebody fills slots of a ring all the time,
    /// since the kernel shows none meanwhile: try again.
    pub fn ranges(&self) -> io::Result<Vec<AddrRange<ProcVa>>> {
        let mut ranges = Vec::new();
        for ring in &self.rings {
            let path = PathBuf::from(format!("/proc/self/fdinfo/{}", ring.as_raw_fd()));
            let slots = ring_info::buffers(|| std::fs::read_to_string(&path))?;
            ranges
                .extend(slots.iter().filter_map(|slot| AddrRange::new(ProcVa::new(slot.start), Bytes::new(slot.len))));
        }
        Ok(ranges)
    }

    /// How many rings it holds.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }
}

fn check(ring: BorrowedFd<'_>) -> Result<(), HandOnError> {
    let fd = ring.as_raw_fd();
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .map_err(|source| HandOnError::Io { doing: "looking at a descriptor in /proc", source })?;
    match link.to_string_lossy() {
        link if link == "anon_inode:[io_uring]" => Ok(()),
        link => Err(HandOnError::NotARing { fd, is: link.into_owned() }),
    }
}
