//! The barrier of guards by `membarrier`: users pay nothing, the revoker interrupts all processors.
//!
//! `membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED)` makes every processor that runs a thread of this process execute a
//! full barrier before it returns (membarrier(2), Linux 4.14). So a user of memory needs only keep the
//! compiler from swapping its store and its load; what the processor does with them is made up for when memory is taken
//! away. Rejected: signals to all threads, which a library must not send.

#[cfg(test)]
mod litmus;

use peerdma::buffer::guard::{BarrierRefused, HeavyFence, Portable};
use rustix::io::Errno;
use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
use std::sync::atomic::{Ordering, compiler_fence};
use thiserror::Error;

/// Proof that this process may ask for barriers on all its processors.
///
/// ```
/// use peerdma::buffer::guard::Gate;
/// use peerdma_linux::membarrier::CheapestFence;
///
/// let gate = Gate::new(CheapestFence::of_this_kernel());
/// let mut slot = gate.opening()?.slot("copy thread");
/// drop(slot.enter()?);
/// assert!(gate.close().try_drained().is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Membarrier(());

impl Membarrier {
    /// Registers the process, once or again.
    ///
    /// # Errors
    /// [`NoMembarrier`]; [`Portable`] works all the same.
    pub fn new() -> Result<Self, NoMembarrier> {
        // A kernel without the call, or a filter that forbids it, offers nothing.
        if !membarrier_query().contains_command(MembarrierCommand::PrivateExpedited) {
            return Err(NoMembarrier::NotOffered);
        }
        membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .map_err(|errno| NoMembarrier::Refused { code: errno.raw_os_error() })?;
        Ok(Self(()))
    }
}

impl HeavyFence for Membarrier {
    #[inline(always)]
    fn light(&self) {
        compiler_fence(Ordering::SeqCst);
    }

    fn heavy(&self) -> Result<(), BarrierRefused> {
        // Of this thread's own accesses the compiler keeps the order too: a system call is nothing that it sees through.
        let all = || membarrier(MembarrierCommand::PrivateExpedited);
        all()
            .or_else(|errno| match errno {
                // A registration belongs to the address space, and this one may be a child's.
                Errno::PERM => membarrier(MembarrierCommand::RegisterPrivateExpedited).and_then(|()| all()),
                errno => Err(errno),
            })
            .map_err(|errno| BarrierRefused { code: errno.raw_os_error() })
    }
}

/// The kernel does not carry out barriers for this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum NoMembarrier {
    /// It has no such call, or a filter of system calls hides it.
    #[error(
        "the kernel offers no private expedited membarrier (CONFIG_MEMBARRIER, Linux 4.14); use the portable barrier"
    )]
    NotOffered,
    /// It refused the registration.
    #[error(
        "the kernel refused to register the process for membarrier (error number {code}); use the portable barrier"
    )]
    Refused {
        /// What it answered.
        code: i32,
    },
}

/// What costs users least, chosen when the program runs.
///
/// Users pay a branch for the choice, which is always taken the same way.
#[derive(Clone, Copy, Debug)]
pub enum CheapestFence {
    /// The kernel carries the barrier out.
    Membarrier(Membarrier),
    /// Everybody does.
    Portable(Portable),
}

impl CheapestFence {
    /// The first that this kernel supports.
    pub fn of_this_kernel() -> Self {
        Membarrier::new().map_or(Self::Portable(Portable), Self::Membarrier)
    }
}

impl HeavyFence for CheapestFence {
    #[inline]
    fn light(&self) {
        match self {
            Self::Membarrier(fence) => fence.light(),
            Self::Portable(fence) => fence.light(),
        }
    }

    fn heavy(&self) -> Result<(), BarrierRefused> {
        match self {
            Self::Membarrier(fence) => fence.heavy(),
            Self::Portable(fence) => fence.heavy(),
        }
    }
}
