//! Where the CPU finds a BAR: a range of the device's own descriptor.
//!
//! Not here: mapping it. [`BarMapping`](super::BarMapping) does so once; whoever maps again and again, as a slot that follows a buffer,
//! needs the descriptor.

use super::bar::{MapBarError, mapped_window};
use super::device::VfioDevice;
use super::error::errno;
use super::region::BarRange;
use std::os::fd::OwnedFd;

impl VfioDevice {
    /// A descriptor of the device that keeps it open, and where in it the range begins.
    pub(crate) fn cpu_file(&self, range: BarRange) -> Result<(OwnedFd, u64), MapBarError> {
        let device = self.address();
        let region = self.present(range.bar())?;
        mapped_window(device, region, range)?;
        let refused = |errno| MapBarError::Kernel { device, range, errno };
        let file = self.descriptor().try_clone_to_owned();
        let file = file.map_err(|error| refused(peerdma::dma::Errno::new(error.raw_os_error().unwrap_or(0))))?;
        // `Region::parse` checked that the region's end fits 64 bits.
        let start = region.file_offset.checked_add(range.offset().as_u64());
        Ok((file, start.ok_or_else(|| refused(errno(rustix::io::Errno::OVERFLOW)))?))
    }
}
