//! A file of the kernel's fences as a fence in a reservation of ours, and back.

use super::fences::{FenceStatus, Fences, FencesError};
use peerdma::buffer::fence::{Failure, Fence, FenceState, Timeline};
use peerdma::dma::Errno;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Why it is not known where the kernel's fences are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelFenceError {
    /// The kernel does not say.
    #[error(transparent)]
    Status(#[from] FencesError),
    /// It cannot be waited for.
    #[error("waiting for fences of the kernel's: {0}")]
    Wait(#[from] std::io::Error),
}

/// Fences of the kernel's as one [`Fence`] of ours, which retires when they do and somebody [looks](Self::look).
///
/// The descriptor is readable when a look retires the fence, so that it goes into the `poll` of whoever hears of completions
/// (Linux 7.2 `sync_file_poll`). No thread is made for it.
///
/// Dropped before, it leaves its fence abandoned, as every timeline does: the kernel's devices may still be at it.
///
/// **The other way** goes what came from the kernel, here or through another dma-buf:
/// [`DmaBuf::import_fences`](super::DmaBuf::import_fences) takes [`kernel`](Self::kernel). A fence that this process retires does not: a
/// kernel that waited for a program could be made to wait for ever (`Documentation/driver-api/dma-buf.rst`, "Indefinite DMA
/// Fences"). Wait for those before the kernel's drivers are told to begin.
///
/// # Examples
/// ```
/// use peerdma::buffer::fence::{Reservation, Usage};
/// use peerdma_linux::dma_buf::{Access, DmaBuf, KernelFence};
/// use std::time::Duration;
///
/// /// Has everybody who is about to write wait for drivers that use `dma_buf`, and drivers of `other` as well.
/// fn bridge(
///     dma_buf: &DmaBuf,
///     other: &DmaBuf,
///     reservation: &mut Reservation,
/// ) -> Result<KernelFence, Box<dyn std::error::Error>> {
///     let drivers = KernelFence::new("drivers", dma_buf.export_fences(Access::Write)?)?;
///     reservation.reserve(1)?;
///     reservation.add(drivers.fence().clone(), Usage::Read)?;
///     other.import_fences(Access::Read, drivers.kernel())?;
///     // Where nobody polls its descriptor:
///     drivers.wait(Duration::from_secs(1))?;
///     Ok(drivers)
/// }
/// ```
pub struct KernelFence {
    kernel: Fences,
    timeline: Timeline,
    fence: Fence,
}

impl KernelFence {
    /// A fence for them, under a name for errors. It has retired at once if they have.
    ///
    /// # Errors
    /// [`KernelFenceError::Status`].
    pub fn new(name: &str, kernel: Fences) -> Result<Self, KernelFenceError> {
        // Files retire in no order, so each has a timeline of its own.
        let timeline = Timeline::new(name);
        let fence = timeline.issue();
        let bridged = Self { kernel, timeline, fence };
        bridged.look()?;
        Ok(bridged)
    }

    /// The fence, for reservations and sets.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// The kernel's own, for another dma-buf.
    pub fn kernel(&self) -> &Fences {
        &self.kernel
    }

    /// Asks the kernel where they are, retires the fence if they have, and says how it stands. Does not block.
    ///
    /// # Errors
    /// [`KernelFenceError::Status`]; nothing has changed.
    pub fn look(&self) -> Result<FenceState, KernelFenceError> {
        match settled(self.kernel.status()?.0) {
            FenceState::Failed(failure) => drop(self.timeline.fail(self.fence.sequence(), failure)),
            FenceState::Retired => drop(self.timeline.retire_to(self.fence.sequence())),
            FenceState::Outstanding | FenceState::Abandoned => {}
        }
        Ok(self.fence.state())
    }

    /// Waits until they have retired, for `patience` at most, and looks.
    ///
    /// # Errors
    /// [`KernelFenceError`]; the fence is as it was.
    pub fn wait(&self, patience: Duration) -> Result<FenceState, KernelFenceError> {
        self.kernel.wait(patience)?;
        self.look()
    }
}

/// What the kernel's word means for the fence.
fn settled(status: FenceStatus) -> FenceState {
    match status {
        FenceStatus::Active => FenceState::Outstanding,
        FenceStatus::Retired => FenceState::Retired,
        // Drivers set what they like; these two are in use for what they say (`drm_sched`, device removal).
        FenceStatus::Failed { errno } if errno == Errno::new(libc::ECANCELED) => FenceState::Failed(Failure::Cancelled),
        FenceStatus::Failed { errno: Errno::ENODEV } => FenceState::Failed(Failure::Gone),
        FenceStatus::Failed { .. } => FenceState::Failed(Failure::Device),
    }
}

impl AsFd for KernelFence {
    /// Readable when a [`look`](KernelFence::look) retires the fence.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.kernel.as_fd()
    }
}

impl fmt::Debug for KernelFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, of the kernel's", self.fence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_kernels_is_a_failure_and_what_is_active_stays_outstanding() {
        let failed = |errno| settled(FenceStatus::Failed { errno: Errno::new(errno) });
        assert_eq!(settled(FenceStatus::Active), FenceState::Outstanding);
        assert_eq!(settled(FenceStatus::Retired), FenceState::Retired);
        assert_eq!(failed(libc::ECANCELED), FenceState::Failed(Failure::Cancelled));
        assert_eq!(failed(libc::ENODEV), FenceState::Failed(Failure::Gone));
        assert_eq!(failed(libc::EIO), FenceState::Failed(Failure::Device));
    }
}
