//! Parts of a pool that somebody has, and a thread's stock of them.

use super::Inner;
use super::error::BufferError;
use crate::memory::BeyondPages;
use peerdma::addr::{Bytes, Iova, ProcVa};
use peerdma::pool::{self, Block, Full, Owner};
use std::mem;
use std::sync::Arc;

/// A part of a pool. Put back when dropped; by then no device may use it any more.
#[derive(Debug)]
#[must_use = "a buffer goes back to its pool when dropped"]
pub struct Buffer {
    /// There until it is dropped.
    block: Option<Block>,
    inner: Arc<Inner>,
    address: ProcVa,
    len: Bytes,
}

impl Buffer {
    pub(super) fn new(inner: Arc<Inner>, block: Block) -> Self {
        Self { address: block.address(), len: block.len(), block: Some(block), inner }
    }

    /// Address of the first byte, for the CPU.
    pub fn address(&self) -> ProcVa {
        self.address
    }

    /// Address of the first byte, for every device to whose address space the pool is attached: the same number.
    pub fn iova(&self) -> Iova {
        Iova::new(self.address.as_u64())
    }

    /// How many bytes were asked for.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether none were.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// [`BufferError`], with nothing read.
    pub fn read(&self, offset: Bytes, into: &mut [u8]) -> Result<(), BufferError> {
        self.beyond(offset, into.len())?;
        self.inner.region.read(self.offset(offset), into)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// [`BufferError`], with nothing written.
    pub fn write(&self, offset: Bytes, from: &[u8]) -> Result<(), BufferError> {
        self.beyond(offset, from.len())?;
        self.inner.region.write(self.offset(offset), from)
    }

    fn beyond(&self, offset: Bytes, len: usize) -> Result<(), BeyondPages> {
        let end = offset.as_u64().checked_add(len as u64).filter(|end| *end <= self.len.as_u64());
        end.map(|_| ()).ok_or(BeyondPages { offset, len: Bytes::new(len as u64), size: self.len })
    }

    /// Behind the start of the pool; the buffer has the byte.
    fn offset(&self, offset: Bytes) -> Bytes {
        Bytes::new(self.address.as_u64() - self.inner.region.range().start().as_u64() + offset.as_u64())
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            // Its own pool takes every block back.
            let _ = self.inner.area.put(block);
        }
    }
}

/// A thread's own stock of a pool's blocks; see [`peerdma::pool::Cache`].
#[derive(Debug)]
pub struct Cache {
    stock: pool::Cache,
    inner: Arc<Inner>,
}

impl Cache {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { stock: pool::Cache::new(Arc::clone(&inner.area)), inner }
    }

    /// Takes a block, as [`Pool::take`](super::Pool::take) does, mostly without a lock.
    ///
    /// # Errors
    /// [`Full`], after all that was kept here went back to the pool.
    #[inline]
    pub fn take(&mut self, len: Bytes, owner: Owner) -> Result<Buffer, Full> {
        let block = self.stock.take(len, owner)?;
        Ok(Buffer::new(Arc::clone(&self.inner), block))
    }

    /// Takes a buffer back and keeps its block at hand. One of another pool goes back there.
    #[inline]
    pub fn put(&mut self, mut buffer: Buffer) {
        if !Arc::ptr_eq(&buffer.inner, &self.inner) {
            return;
        }
        if let Some(block) = mem::take(&mut buffer.block) {
            // It is this pool's, as just seen.
            let _ = self.stock.put(block);
        }
    }

    /// What it keeps.
    pub fn held(&self) -> Bytes {
        self.stock.held()
    }

    /// Gives back all that it keeps, for a thread that will rest.
    pub fn drain(&mut self) {
        self.stock.drain();
    }
}
