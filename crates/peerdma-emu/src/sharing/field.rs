//! A part of memory that a buffer can lie in.

use super::witness::{PIECE, Witness};
use peerdma::access::MemAttrs;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::terms::Place;
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::Owner;
use peerdma::topology::FunctionId;
use std::sync::Arc;

/// Whose memory it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Home {
    /// A GPU's, shown by a BAR; the number counts the GPUs of the run.
    Vram {
        /// Which GPU of the run.
        gpu: usize,
        /// The function.
        function: FunctionId,
        /// The BAR.
        bar: u8,
    },
    /// The machine's.
    Ram,
}

/// A part of memory, as long as a buffer.
#[derive(Clone, Debug)]
pub struct Field {
    /// Whose memory it is.
    pub home: Home,
    /// Where it starts: from the start of the BAR, or as the CPU counts.
    start: u64,
    /// Who watches, and where in its memory that is.
    witness: Arc<Witness>,
    at: Bytes,
    len: Bytes,
}

impl Field {
    /// `len` bytes of a GPU's memory from `at` on, a multiple of [`PIECE`]; the BAR shows VRAM from its start.
    pub fn vram(home: Home, witness: &Arc<Witness>, at: Bytes, len: Bytes) -> Self {
        Self { home, start: at.as_u64(), witness: witness.clone(), at, len }
    }

    /// `len` bytes of RAM from `start` on, which are at `at` of what the witness watches.
    pub fn ram(witness: &Arc<Witness>, start: PhysAddr, at: Bytes, len: Bytes) -> Self {
        Self { home: Home::Ram, start: start.as_u64(), witness: witness.clone(), at, len }
    }

    /// Where importers find it.
    pub fn place(&self) -> Chunks<Owner> {
        let (owner, attrs) = match self.home {
            Home::Vram { function, bar, .. } => (Owner::Bar { function, bar }, MemAttrs::MMIO),
            Home::Ram => (Owner::Ram, MemAttrs::empty()),
        };
        let chunk = Chunk::new(owner, Bytes::new(self.start), self.len, attrs);
        Chunks::collect_from(chunk).unwrap_or_default()
    }

    /// Whose memory that is for the library.
    pub fn owner(&self) -> Option<Owner> {
        self.place().iter().next().map(|chunk| chunk.owner())
    }

    /// Where that is, as terms name it.
    pub fn residence(&self) -> Place {
        match self.home {
            Home::Vram { gpu, .. } => Place::Device(RegionId::new(gpu as u32)),
            Home::Ram => Place::Ram,
        }
    }

    /// Whether a buffer's ranges begin here.
    pub fn is_at(&self, owner: Owner, offset: Bytes) -> bool {
        let same = match (self.home, owner) {
            (Home::Vram { function, bar, .. }, Owner::Bar { function: other, bar: shown }) => {
                function == other && bar == shown
            }
            (Home::Ram, Owner::Ram) => true,
            _ => false,
        };
        same && offset.as_u64() == self.start
    }

    /// How long it is.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Whether it has no bytes; none is made so.
    pub fn is_empty(&self) -> bool {
        self.len == Bytes::ZERO
    }

    /// Nothing may touch it.
    pub fn close(&self) {
        self.witness.close(self.at, self.len);
    }

    /// It may be used under this epoch.
    pub fn open(&self, epoch: u32) {
        self.witness.open(self.at, self.len, epoch);
    }

    /// It may be read under this epoch, and not written.
    pub fn open_for_reading(&self, epoch: u32) {
        self.witness.open_for_reading(self.at, self.len, epoch);
    }

    /// Under which epoch it may be used.
    pub fn epoch(&self) -> Option<u32> {
        self.witness.epoch(self.at)
    }

    /// All its bytes, as nobody judges.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len.as_u64() as usize];
        // It lies inside, as it was made.
        let _ = self.witness.behind().read(self.at, &mut bytes);
        bytes
    }

    /// Writes all its bytes, as nobody judges.
    pub fn put(&self, bytes: &[u8]) {
        let _ = self.witness.behind().write(self.at, bytes);
    }

    /// How long a field is that holds `len` bytes.
    pub fn whole(len: Bytes) -> Bytes {
        Bytes::new(len.as_u64().next_multiple_of(PIECE.as_u64()))
    }
}
