//! Memory of an exporter in this process.

use super::errors::WriteError;
use crate::memory::BeyondPages;
use crate::sys::map::{Mapping, Outside, ReadOnly};
use peerdma::addr::Bytes;
use peerdma::buffer::life::Generation;

/// Memory of an exporter, mapped into this process. Give it to [`Importer::unmap`](super::Importer::unmap) when nothing uses it any more.
///
/// Dropping it takes it down too, but the exporter is not told, and counts it until the attachment ends.
#[derive(Debug)]
#[must_use = "the exporter counts it until it is given to `unmap`"]
pub struct Mapped {
    pub(super) view: View,
    pub(super) generation: Generation,
}

#[derive(Debug)]
pub(super) enum View {
    ReadWrite(Mapping),
    ReadOnly(ReadOnly),
}

impl Mapped {
    /// Its length.
    pub fn len(&self) -> Bytes {
        match &self.view {
            View::ReadWrite(mapping) => mapping.len(),
            View::ReadOnly(mapping) => mapping.len(),
        }
    }

    /// Always false; memory that is shared is one page at least.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// What it belongs to.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BeyondPages`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BeyondPages> {
        let beyond = self.beyond(offset, into.len());
        let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
        let read = match &self.view {
            View::ReadWrite(mapping) => mapping.read(at, into),
            View::ReadOnly(mapping) => mapping.read(at, into),
        };
        read.map_err(|Outside| beyond)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`WriteError`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), WriteError> {
        let beyond = self.beyond(offset, from.len());
        let at = usize::try_from(offset.as_u64()).map_err(|_| beyond)?;
        match &self.view {
            View::ReadWrite(mapping) => Ok(mapping.write(at, from).map_err(|Outside| beyond)?),
            View::ReadOnly(_) => Err(WriteError::ReadOnly),
        }
    }

    fn beyond(&self, offset: Bytes, len: usize) -> BeyondPages {
        BeyondPages { offset, len: Bytes::new(len as u64), size: self.len() }
    }
}
