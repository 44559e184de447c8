//! Where the CPU finds a BAR: a range of the device's own descriptor.
//!
//! Not here: mapping it. [`BarMapping`](super::BarMapping) does so once; whoever maps again and again, as a slot that follows a buffer,
//! needs the descriptor.

use super::bar::{MapBarError, mapped_window};
use super::device::VfioDevice;
use super::error::errno;
use super::region::{BarIndex, BarRange, Mappable, Region};
use crate::sys::vfio;
use peerdma::addr::Bytes;
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd};

/// Whether a descriptor that came from elsewhere is a device of which a CPU maps these bytes, as of one BAR.
pub(crate) fn holds(device: BorrowedFd<'_>, start: Bytes, len: Bytes) -> Result<bool, Errno> {
    for bar in BarIndex::all() {
        let region = match vfio::region_info(device, bar.region()) {
            Ok(region) => region,
            // This driver has no such region.
            Err(Errno::INVAL) => continue,
            Err(error) => return Err(error),
        };
        if Region::parse(&region).is_ok_and(|region| offers(&region, start, len)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn offers(region: &Region, start: Bytes, len: Bytes) -> bool {
    let at = start.as_u64().checked_sub(region.file_offset);
    let Some((at, end)) = at.and_then(|at| Some((at, at.checked_add(len.as_u64())?))) else { return false };
    match &region.mappable {
        Mappable::No => false,
        Mappable::Whole => end <= region.size.as_u64(),
        Mappable::Areas(areas) => areas.iter().any(|(from, size)| {
            from.as_u64() <= at && from.as_u64().checked_add(size.as_u64()).is_some_and(|last| end <= last)
        }),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_place_in_a_device_is_taken_only_where_all_of_it_can_be_mapped() {
        let page = |count: u64| Bytes::new(count << 12);
        let region = |mappable| Region { size: page(4), mappable, file_offset: 2 << 40 };
        let start = Bytes::new(2 << 40);
        let at = |offset: Bytes| Bytes::new(start.as_u64() + offset.as_u64());
        assert!(offers(&region(Mappable::Whole), start, page(4)));
        assert!(!offers(&region(Mappable::Whole), at(page(1)), page(4)), "past its end");
        assert!(!offers(&region(Mappable::Whole), Bytes::ZERO, page(1)), "another region's");
        assert!(!offers(&region(Mappable::Whole), at(page(1)), Bytes::new(u64::MAX)), "wraps");
        assert!(!offers(&region(Mappable::No), start, page(1)));
        let areas = || region(Mappable::Areas(vec![(Bytes::ZERO, page(1)), (page(2), page(2))]));
        assert!(offers(&areas(), at(page(2)), page(2)));
        assert!(!offers(&areas(), start, page(3)), "a page between is not for the CPU");
    }

    #[test]
    fn what_is_no_device_holds_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(holds(file.as_fd(), Bytes::ZERO, Bytes::new(4096)), Err(Errno::NOTTY) | Ok(false)));
    }
}
