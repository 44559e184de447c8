//! Commands, as they lie in a submission queue.

use super::status::Status;
use peerdma::addr::{BusAddr, Bytes};

/// Bytes of a command.
pub(super) const COMMAND: usize = 64;
/// Bytes of a completion.
pub(super) const COMPLETION: usize = 16;

/// How a command says where its data is (`PSDT`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pointer {
    /// PRP entry 1 and 2.
    Prps(BusAddr, BusAddr),
    /// The first SGL descriptor.
    Sgl([u8; 16]),
}

/// A command (NVMe Base 2.0 §3.3.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Command {
    pub(super) opcode: u8,
    pub(super) id: u16,
    pub(super) namespace: u32,
    flags: u8,
    pointer: [u8; 16],
    /// Command dwords 10 to 15.
    specific: [u32; 6],
}

impl Command {
    pub(super) fn from_bytes(bytes: &[u8; COMMAND]) -> Self {
        let dword = |index: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[index * 4..index * 4 + 4]);
            u32::from_le_bytes(word)
        };
        let mut pointer = [0; 16];
        pointer.copy_from_slice(&bytes[24..40]);
        Self {
            opcode: bytes[0],
            flags: bytes[1],
            id: u16::from_le_bytes([bytes[2], bytes[3]]),
            namespace: dword(1),
            pointer,
            specific: std::array::from_fn(|index| dword(10 + index)),
        }
    }

    /// Command dword `index`, 10 to 15.
    pub(super) fn dword(&self, index: usize) -> u32 {
        self.specific.get(index.wrapping_sub(10)).copied().unwrap_or(0)
    }

    /// Whether it is one half of a fused operation; no fused operations are supported.
    pub(super) fn is_fused(&self) -> bool {
        self.flags & 3 != 0
    }

    /// The address in PRP entry 1.
    pub(super) fn prp1(&self) -> BusAddr {
        BusAddr::new(self.half(0))
    }

    fn half(&self, index: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.pointer[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    }

    /// Where the data is.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for a `PSDT` that is reserved.
    pub(super) fn pointer(&self) -> Result<Pointer, Status> {
        match self.flags >> 6 {
            0 => Ok(Pointer::Prps(self.prp1(), BusAddr::new(self.half(1)))),
            1 | 2 => Ok(Pointer::Sgl(self.pointer)),
            _ => Err(Status::INVALID_FIELD),
        }
    }
}

/// A stretch of data in memory; without an address it is discarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) at: Option<BusAddr>,
    pub(super) len: u64,
}

/// The data of a command, in order; stretches that continue each other are one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Pieces {
    pieces: Vec<Piece>,
    len: u64,
}

impl Pieces {
    pub(super) fn push(&mut self, piece: Piece) {
        if piece.len == 0 {
            return;
        }
        self.len += piece.len;
        if let Some(last) = self.pieces.last_mut() {
            let continues = match (last.at, piece.at) {
                (Some(last_at), Some(at)) => last_at.checked_add(Bytes::new(last.len)) == Some(at),
                (None, None) => true,
                _ => false,
            };
            if continues {
                last.len += piece.len;
                return;
            }
        }
        self.pieces.push(piece);
    }

    /// Bytes of all of them.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Piece> + '_ {
        self.pieces.iter().copied()
    }
}
