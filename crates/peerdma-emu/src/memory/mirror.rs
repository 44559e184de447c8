//! An aperture that keeps to itself what is written to it.
//!
//! On some machines a BAR reads back what the CPU or a peer wrote to it, and yet the device never
//! sees those bytes (NVIDIA/nccl#2335). Reading back through the same aperture therefore proves
//! nothing; whoever verifies has to ask the device.

use super::striped::apply;
use super::{Memory, Outside, Striped};
use crate::wire::Atomic;
use peerdma::addr::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Bytes that are copied when the first of them is written.
const PAGE: u64 = 4096;

/// Private pages by their numbers.
type Pages = BTreeMap<u64, Vec<u8>>;

/// An aperture over another memory: passes through, or engaged, keeps all writes to itself.
///
/// Engaged, a page of 4 KiB is copied from behind when it is first written, and from then on all
/// accesses to it stay in the copy. Pages that were not written are read from behind.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_emu::memory::{Memory, Mirror, Striped};
/// use std::sync::Arc;
///
/// let vram = Arc::new(Striped::new(Bytes::new(1 << 20)));
/// let bar = Mirror::new(vram.clone());
/// bar.engage();
/// bar.write(Bytes::new(16), b"lost")?;
///
/// let mut read = [0; 4];
/// bar.read(Bytes::new(16), &mut read)?;
/// assert_eq!(&read, b"lost");
/// vram.read(Bytes::new(16), &mut read)?;
/// assert_eq!(read, [0; 4]);
/// # Ok::<(), peerdma_emu::memory::Outside>(())
/// ```
///
/// # Concurrency
/// No write that begins after [`engage`](Self::engage) returned reaches the memory behind; a bulk
/// copy that is under way may.
#[derive(Debug)]
pub struct Mirror {
    behind: Arc<dyn Memory>,
    /// None while it passes through.
    pages: RwLock<Option<Pages>>,
}

impl Mirror {
    /// An aperture over all of `behind`, which passes through at first.
    pub fn new(behind: Arc<dyn Memory>) -> Self {
        Self { behind, pages: RwLock::new(None) }
    }

    /// Keeps writes from the memory behind, from here on; changes nothing if it does so already.
    pub fn engage(&self) {
        self.exclusive().get_or_insert_default();
    }

    /// Passes through again; what was written meanwhile is lost.
    pub fn release(&self) {
        *self.exclusive() = None;
    }

    /// Whether writes are kept from the memory behind.
    pub fn is_engaged(&self) -> bool {
        self.shared().is_some()
    }

    fn shared(&self) -> RwLockReadGuard<'_, Option<Pages>> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, Option<Pages>> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the private copy of `len` bytes from `at` on, which are there, a page at a time.
    fn change(&self, pages: &mut Pages, at: u64, len: usize, mut change: impl FnMut(&mut [u8])) -> Result<(), Outside> {
        let (mut at, end) = (at, at + len as u64);
        while at < end {
            let (start, within) = (at - at % PAGE, (at % PAGE) as usize);
            let size = (end - at).min(PAGE - at % PAGE) as usize;
            let page = match pages.entry(at / PAGE) {
                std::collections::btree_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    let mut page = vec![0; (self.len().as_u64() - start).min(PAGE) as usize];
                    self.behind.read(Bytes::new(start), &mut page)?;
                    place.insert(page)
                }
            };
            change(&mut page[within..within + size]);
            at += size as u64;
        }
        Ok(())
    }
}

impl Memory for Mirror {
    fn len(&self) -> Bytes {
        self.behind.len()
    }

    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        let pages = self.shared();
        self.behind.read(at, into)?;
        let Some(pages) = &*pages else { return Ok(()) };
        if into.is_empty() {
            return Ok(());
        }
        let (start, end) = (at.as_u64(), at.as_u64() + into.len() as u64);
        for (number, page) in pages.range(start / PAGE..=(end - 1) / PAGE) {
            let first = number * PAGE;
            let (from, to) = (start.max(first), end.min(first + page.len() as u64));
            into[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&page[(from - first) as usize..(to - first) as usize]);
        }
        Ok(())
    }

    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        // Passing through holds the lock shared, so that `engage` waits for such writes.
        {
            let pages = self.shared();
            if pages.is_none() {
                return self.behind.write(at, from);
            }
        }
        let mut pages = self.exclusive();
        let Some(pages) = &mut *pages else { return self.behind.write(at, from) };
        Outside::check(at, from.len(), self.len())?;
        let mut rest = from;
        self.change(pages, at.as_u64(), from.len(), |bytes| {
            let (now, later) = rest.split_at(bytes.len());
            bytes.copy_from_slice(now);
            rest = later;
        })
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        {
            let pages = self.shared();
            if pages.is_none() {
                return self.behind.atomic(at, atomic);
            }
        }
        let mut pages = self.exclusive();
        let Some(pages) = &mut *pages else { return self.behind.atomic(at, atomic) };
        let (len, size) = (atomic.len(), self.len());
        Outside::check(at, len.as_u64() as usize, size)?;
        if !at.as_u64().is_multiple_of(len.as_u64()) {
            return Err(Outside { at, len, size });
        }
        let mut found = 0;
        self.change(pages, at.as_u64(), len.as_u64() as usize, |bytes| found = apply(bytes, atomic))?;
        Ok(found)
    }

    /// What lies behind, while this passes through.
    fn as_striped(&self) -> Option<&Striped> {
        if self.is_engaged() { None } else { self.behind.as_striped() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Operand;

    fn over(bytes: &[u8]) -> (Arc<Striped>, Mirror) {
        let behind = Arc::new(Striped::new(Bytes::new(3 * PAGE + 5)));
        behind.write(Bytes::ZERO, bytes).unwrap();
        (behind.clone(), Mirror::new(behind))
    }

    fn read(memory: &dyn Memory, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        memory.read(Bytes::new(at), &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_written_is_read_back_and_the_memory_behind_never_changes() {
        let (behind, mirror) = over(b"before");
        mirror.engage();
        let long = vec![7; 2 * PAGE as usize];
        mirror.write(Bytes::new(PAGE - 3), &long).unwrap();
        assert_eq!(read(&mirror, PAGE - 3, long.len()), long);
        assert_eq!(read(&mirror, 0, 6), b"before");
        assert!(read(&*behind, 6, 3 * PAGE as usize - 6).iter().all(|&byte| byte == 0));
        mirror.engage();
        assert_eq!(read(&mirror, PAGE, 1), [7]);
        mirror.release();
        assert_eq!(read(&mirror, PAGE - 3, 8), [0; 8]);
    }

    #[test]
    fn an_atomic_operation_stays_in_the_copy_too() {
        let (behind, mirror) = over(&[5]);
        let add = Atomic::FetchAdd(Operand::Double(2));
        assert_eq!(mirror.atomic(Bytes::ZERO, add), Ok(5));
        mirror.engage();
        assert_eq!((mirror.atomic(Bytes::ZERO, add), mirror.atomic(Bytes::ZERO, add)), (Ok(7), Ok(9)));
        assert_eq!((read(&*behind, 0, 1), read(&mirror, 0, 1)), (vec![7], vec![11]));
        assert!(mirror.atomic(Bytes::new(4), add).is_err() && mirror.atomic(Bytes::new(3 * PAGE), add).is_err());
    }

    #[test]
    fn what_is_not_written_is_what_stands_behind() {
        let (behind, mirror) = over(b"old");
        mirror.engage();
        behind.write(Bytes::ZERO, b"new").unwrap();
        assert_eq!(read(&mirror, 0, 3), b"new");
        mirror.write(Bytes::new(1), b"i").unwrap();
        behind.write(Bytes::ZERO, b"odd").unwrap();
        assert_eq!(read(&mirror, 0, 3), b"niw");
    }

    #[test]
    fn a_copy_passes_through_only_while_released() {
        let (behind, mirror) = over(b"x");
        let source = Striped::new(Bytes::new(16));
        source.fill(Bytes::ZERO, Bytes::new(16), 3).unwrap();
        let put = || super::super::copy((&source, Bytes::ZERO), (&mirror, Bytes::new(PAGE)), Bytes::new(8)).unwrap();
        mirror.engage();
        put();
        assert_eq!((read(&mirror, PAGE, 8), read(&*behind, PAGE, 8)), (vec![3; 8], vec![0; 8]));
        mirror.release();
        put();
        assert_eq!(read(&*behind, PAGE, 8), [3; 8]);
    }

    #[test]
    fn nothing_is_outside_of_what_lies_behind() {
        let (_, mirror) = over(b"x");
        for engaged in [false, true] {
            if engaged {
                mirror.engage();
            }
            assert!(mirror.write(Bytes::new(3 * PAGE + 5), &[1]).is_err());
            assert!(mirror.write(Bytes::new(u64::MAX), &[1, 2]).is_err());
            assert!(mirror.read(Bytes::new(3 * PAGE), &mut [0; 6]).is_err());
            assert_eq!(mirror.write(Bytes::new(3 * PAGE + 5), &[]), Ok(()));
        }
    }
}
