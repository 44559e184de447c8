//! Memory that changes behind a mirror's back, as that of code which knows nothing of mirrors.
//!
//! Not here: what a mirror is told of it; see [`mirror`](crate::mirror).

use crate::sys::region::Region;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, ProcVa};
use std::io;

/// Zeroed private memory at an address of one's choice, unmapped when dropped. Its bytes are copied by the kernel.
///
/// Where somebody watches it, each change waits until the message is read.
#[derive(Debug)]
pub struct Foreign(Region);

impl Foreign {
    /// Maps zeroed pages, at an address if one is given.
    ///
    /// # Errors
    /// `EEXIST` where something is there already.
    pub fn map(at: Option<ProcVa>, size: Bytes) -> io::Result<Self> {
        Ok(Self(Region::map(at, size)?))
    }

    /// Where it is.
    pub fn at(&self) -> AddrRange<ProcVa> {
        self.0.at()
    }

    /// Throws away what stands there (`MADV_DONTNEED`).
    ///
    /// # Errors
    /// The kernel's answer; `EINVAL` outside of it.
    pub fn discard(&self, at: AddrRange<ProcVa>) -> io::Result<()> {
        Ok(self.0.discard(at)?)
    }

    /// Permits other accesses (`mprotect`).
    ///
    /// # Errors
    /// The kernel's answer; `EINVAL` outside of it.
    pub fn protect(&self, at: AddrRange<ProcVa>, prot: Option<Prot>) -> io::Result<()> {
        Ok(self.0.protect(at, prot)?)
    }

    /// Moves it to where nothing is (`mremap`).
    ///
    /// # Errors
    /// The kernel's answer; it is where it was.
    pub fn remap(&mut self, to: ProcVa) -> io::Result<()> {
        let place = Region::map(Some(to), self.0.at().len())?;
        Ok(self.0.remap(place)?)
    }

    /// Puts other memory in its place (`mmap` with `MAP_FIXED`).
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn replace(&self) -> io::Result<()> {
        Ok(self.0.replace()?)
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// `EINVAL` outside of it, `EFAULT` where it is closed.
    pub fn read(&self, at: ProcVa, into: &mut [u8]) -> io::Result<()> {
        Ok(self.0.read(at, into)?)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, at: ProcVa, from: &[u8]) -> io::Result<()> {
        Ok(self.0.write(at, from)?)
    }
}
