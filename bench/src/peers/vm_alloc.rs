//! The crate `vm-allocator`, as virtual machine monitors use it for guest addresses.

use super::Allocates;
use vm_allocator::{AddressAllocator, AllocPolicy, RangeInclusive};

const PAGE_SHIFT: u32 = 12;
const PAGE: u64 = 1 << PAGE_SHIFT;

/// Its allocator, in pages.
pub struct VmAllocator(AddressAllocator);

impl VmAllocator {
    /// All of `start..start + pages` free.
    pub fn new(start: u64, pages: u64) -> Self {
        match AddressAllocator::new(start << PAGE_SHIFT, pages << PAGE_SHIFT) {
            Ok(allocator) => Self(allocator),
            Err(error) => unreachable!("the range holds pages: {error}"),
        }
    }
}

impl Allocates for VmAllocator {
    fn take(&mut self, pages: u64) -> Option<u64> {
        let taken = self.0.allocate(pages << PAGE_SHIFT, PAGE, AllocPolicy::FirstMatch).ok()?;
        Some(taken.start() >> PAGE_SHIFT)
    }

    fn give(&mut self, start: u64, pages: u64) {
        let range = RangeInclusive::new(start << PAGE_SHIFT, ((start + pages) << PAGE_SHIFT) - 1);
        // Nothing was taken twice, so neither step fails; a failure would show as exhaustion.
        let _ = range.and_then(|range| self.0.free(&range));
    }

    fn place(&mut self, start: u64, pages: u64) -> bool {
        self.0.allocate(pages << PAGE_SHIFT, PAGE, AllocPolicy::ExactMatch(start << PAGE_SHIFT)).is_ok()
    }
}
