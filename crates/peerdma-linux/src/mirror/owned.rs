//! Memory that is changed through its mirror alone.

use super::error::{ChangeError, RangeError};
use super::{Holds, Mirror, Shared};
use crate::memory::page_size;
use crate::sys::process_memory;
use crate::sys::region::Region;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use peerdma::mirror::{DeviceTable, Event, RangeId, RegisterError};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long dropping memory waits for the device. Memory that is used for longer is not unmapped.
const DROPPING: Duration = Duration::from_secs(10);

/// Zeroed private memory of this process that a device uses by its addresses.
///
/// The mirror is told of every change before it: the device is stopped, its table forgets, and then the kernel is called. Children do not
/// inherit it (`MADV_DONTFORK`), so that no page of it becomes a copy; a child may drop this, which does nothing, and not change it. Bytes are copied in and out by the kernel, so that
/// a page which is closed is an error.
pub struct Owned<T: DeviceTable> {
    shared: Arc<Shared<T>>,
    /// `None` once it is unmapped.
    region: Option<Region>,
    id: RangeId,
    range: AddrRange<ProcVa>,
    pin: Option<Box<dyn Holds>>,
}

impl<T: DeviceTable + Send> Mirror<T> {
    /// Makes memory that the device may read and write, of whole pages, rounded up.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn create(&self, size: Bytes) -> Result<Owned<T>, RangeError> {
        self.make(None, size, |_| Ok(None))
    }

    /// The same at an address where nothing is.
    ///
    /// # Errors
    /// [`RangeError`]; [`RangeError::NoMemory`] with `EEXIST` if something is there.
    pub fn create_at(&self, at: ProcVa, size: Bytes) -> Result<Owned<T>, RangeError> {
        self.make(Some(at), size, |_| Ok(None))
    }

    /// Makes memory that `pin` then pins; all of it is in the device's table from the beginning.
    ///
    /// # Errors
    /// [`RangeError`], or what `pin` fails with.
    pub fn create_pinned<P: Holds + 'static, E: From<RangeError>>(
        &self,
        size: Bytes,
        pin: impl FnOnce(AddrRange<ProcVa>) -> Result<P, E>,
    ) -> Result<Owned<T>, E> {
        self.make(None, size, |at| Ok(Some(Box::new(pin(at)?) as Box<dyn Holds>)))
    }

    fn make<E: From<RangeError>>(
        &self,
        at: Option<ProcVa>,
        size: Bytes,
        pin: impl FnOnce(AddrRange<ProcVa>) -> Result<Option<Box<dyn Holds>>, E>,
    ) -> Result<Owned<T>, E> {
        let no_memory = |error: Errno| RangeError::NoMemory { size, source: error.into() };
        let whole = size.as_u64().checked_next_multiple_of(page_size().as_u64()).map(Bytes::new);
        let whole = whole.ok_or_else(|| no_memory(Errno::NOMEM))?;
        let region = Region::map(at, whole).map_err(no_memory)?;
        let range = region.at();
        let kept = process_memory::keep_from_children(range, true);
        kept.map_err(|error| RangeError::Children { at: range, source: error.into() })?;
        let pin = pin(range)?;
        let id = self.shared.inner().register(range, Prot::ReadWrite, pin.as_deref())?;
        Ok(Owned { shared: Arc::clone(&self.shared), region: Some(region), id, range, pin })
    }
}

impl<T: DeviceTable> Owned<T> {
    /// Where it is.
    pub fn range(&self) -> AddrRange<ProcVa> {
        self.range
    }

    /// Its name at the mirror.
    pub fn id(&self) -> RangeId {
        self.id
    }

    /// Copies bytes out, as the CPU.
    ///
    /// # Errors
    /// `EINVAL` outside of it, `EFAULT` where it is closed, and in a forked child.
    pub fn read(&self, at: ProcVa, into: &mut [u8]) -> io::Result<()> {
        Ok(self.mapped()?.read(at, into)?)
    }

    /// Copies bytes in, as the CPU.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, at: ProcVa, from: &[u8]) -> io::Result<()> {
        Ok(self.mapped()?.write(at, from)?)
    }

    /// Permits the CPU and the device this, and nothing else.
    ///
    /// Blocks until `until` at most, for the device to stop.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn protect(&self, at: AddrRange<ProcVa>, prot: Option<Prot>, until: Instant) -> Result<(), ChangeError> {
        self.within(at)?;
        let region = self.mapped().map_err(kernel(at))?;
        let event = Event::Protect { at, prot };
        self.shared.announce(&event, until, || region.protect(at, prot))?.map_err(kernel(at))
    }

    /// Throws away what stands there; zeros come in its place.
    ///
    /// Of pinned memory the device loses what is thrown away: the pin holds the old pages.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub fn discard(&self, at: AddrRange<ProcVa>, until: Instant) -> Result<(), ChangeError> {
        self.within(at)?;
        let region = self.mapped().map_err(kernel(at))?;
        self.shared.announce(&Event::Discard(at), until, || region.discard(at))?.map_err(kernel(at))
    }

    /// Moves it, to an address where nothing is or wherever there is room, and makes it as long as this.
    ///
    /// The device is stopped throughout, and asks for its pages anew, at the new place or, after an error, at the old one.
    /// Memory whose parts were [closed](Self::protect) differently cannot be moved before they are alike.
    ///
    /// # Errors
    /// [`ChangeError`]; it is where it was. [`ChangeError::Pinned`] for pinned memory: a device knows that by its old address.
    pub fn remap(&mut self, to: Option<ProcVa>, size: Bytes, until: Instant) -> Result<(), ChangeError> {
        let from = self.range;
        if self.pin.is_some() {
            return Err(ChangeError::Pinned { at: from });
        }
        let whole = size.as_u64().checked_next_multiple_of(page_size().as_u64()).map(Bytes::new);
        let whole = whole.ok_or(Errno::NOMEM).map_err(kernel(from))?;
        // Taken beforehand, so that where it goes is known before it goes there.
        let place = Region::map(to, whole).map_err(kernel(from))?;
        let there = place.at();
        let region = self.region.as_mut().ok_or(Errno::INVAL).map_err(kernel(from))?;
        // The message of its end would take the new one.
        if let Some((other, id)) = self.shared.inner().state.registered_in(there) {
            return Err(RegisterError::Overlap { at: there, other, id }.into());
        }
        let event = Event::Remap { from, to: there.start(), len: there.len() };
        self.shared.move_over(from, &event, until, || region.remap(place))?.map_err(kernel(from))?;
        self.range = there;
        Ok(())
    }

    /// Takes it from the device and unmaps it.
    ///
    /// # Errors
    /// [`ChangeError::StillInUse`]; it is dropped then, which waits once more and leaves the memory alone if that is
    /// in vain.
    pub fn unmap(mut self, until: Instant) -> Result<(), ChangeError> {
        self.take_down(until)
    }

    pub(super) fn take_down(&mut self, until: Instant) -> Result<(), ChangeError> {
        let Some(region) = self.region.take() else { return Ok(()) };
        let mut region = Some(region);
        let taken = self.shared.announce(&Event::Unmap(self.range), until, || region.take().map(Region::unmap));
        if let Err(error) = taken {
            self.region = region;
            return Err(error.into());
        }
        self.pin = None;
        Ok(())
    }

    fn mapped(&self) -> Result<&Region, Errno> {
        self.region.as_ref().ok_or(Errno::INVAL)
    }

    fn within(&self, at: AddrRange<ProcVa>) -> Result<(), ChangeError> {
        let page = page_size().as_u64();
        let whole = at.start().as_u64().is_multiple_of(page) && at.len().as_u64().is_multiple_of(page);
        match whole && self.range.contains_range(&at) {
            true => Ok(()),
            false => Err(ChangeError::Outside { at, own: self.range }),
        }
    }
}

fn kernel(at: AddrRange<ProcVa>) -> impl Fn(Errno) -> ChangeError {
    move |error| ChangeError::Kernel { at, source: error.into() }
}

impl<T: DeviceTable> Drop for Owned<T> {
    fn drop(&mut self) {
        // A forked child has neither memory nor device, and locks that nobody will open.
        let forked = self.region.as_ref().is_some_and(|region| !region.is_here());
        if forked || self.take_down(Instant::now() + DROPPING).is_err() {
            // A device that does not stop goes on in memory which nobody else gets.
            std::mem::forget((self.region.take(), self.pin.take()));
        }
    }
}

impl<T: DeviceTable> std::fmt::Debug for Owned<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owned").field("id", &self.id).field("range", &self.range).finish_non_exhaustive()
    }
}
