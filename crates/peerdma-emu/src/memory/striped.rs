//! Memory in stripes, each behind a lock of its own.
//!
//! Safe Rust has no bytes that two threads may write at once, which is what devices do. One lock for
//! all of RAM would let one device at a time move; a lock for each 64 KiB costs a copy of a megabyte
//! sixteen pairs of locks, which is nothing beside the copy, and accesses to different stripes do not
//! meet. Rejected: atomic words throughout, which no compiler turns into a fast copy.

use super::radix::{Radix, STRIPE, Stripe};
use super::{Memory, Outside};
use crate::wire::Atomic;
use peerdma::addr::Bytes;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// RAM, device memory, or media: bytes that take memory once they are written.
///
/// Bytes that were never written read as zeros and cost nothing, so that 512 GiB of RAM are made in
/// no time. What is first written takes a stripe of 64 KiB.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_emu::memory::{Memory, Striped};
///
/// let ram = Striped::new(Bytes::new(512 << 30));
/// ram.write(Bytes::new(0x1234_5678), b"payload")?;
///
/// let mut read = [0; 8];
/// ram.read(Bytes::new(0x1234_5677), &mut read)?;
/// assert_eq!(&read, b"\0payload");
/// assert_eq!(ram.resident(), Bytes::new(64 << 10));
/// # Ok::<(), peerdma_emu::memory::Outside>(())
/// ```
///
/// # Concurrency
/// An access that stays in one aligned stripe of 64 KiB happens as a whole or not at all; so an aligned
/// one of 8 bytes does. A longer one takes one stripe after the other. A thread that ended while it
/// held a lock leaves whole bytes behind, and others go on.
pub struct Striped {
    stripes: Radix,
    len: Bytes,
    /// Orders the locks of two memories.
    number: u64,
    /// Bytes of stripes that take memory.
    resident: AtomicU64,
}

/// How many memories were made in this process.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A run of bytes within one stripe.
#[derive(Clone, Copy)]
struct Piece {
    at: u64,
    len: usize,
}

impl Piece {
    fn range(self) -> std::ops::Range<usize> {
        let start = (self.at % STRIPE) as usize;
        start..start + self.len
    }
}

fn shared(stripe: &Stripe) -> RwLockReadGuard<'_, Box<[u8]>> {
    stripe.read().unwrap_or_else(PoisonError::into_inner)
}

fn exclusive(stripe: &Stripe) -> RwLockWriteGuard<'_, Box<[u8]>> {
    stripe.write().unwrap_or_else(PoisonError::into_inner)
}

impl Striped {
    /// Makes `len` bytes of zeros, none of which takes memory yet.
    pub fn new(len: Bytes) -> Self {
        Self {
            stripes: Radix::new(len.as_u64()),
            len,
            number: MADE.fetch_add(1, Ordering::Relaxed),
            resident: AtomicU64::new(0),
        }
    }

    /// How many bytes take memory, in whole stripes.
    pub fn resident(&self) -> Bytes {
        Bytes::new(self.resident.load(Ordering::Relaxed))
    }

    /// Turns `len` bytes from `at` on into zeros, and gives back the memory of whole stripes.
    ///
    /// # Errors
    /// [`Outside`], and nothing changed, where not all of them are there.
    pub fn discard(&self, at: Bytes, len: Bytes) -> Result<(), Outside> {
        self.fill(at, len, 0)
    }

    /// Sets `len` bytes from `at` on to `byte`; whole stripes of zeros give their memory back.
    ///
    /// # Errors
    /// [`Outside`], and nothing changed, where not all of them are there.
    pub fn fill(&self, at: Bytes, len: Bytes, byte: u8) -> Result<(), Outside> {
        let end = self.end(at, len)?;
        let mut at = at.as_u64();
        while at < end {
            let piece = self.piece(at, end);
            if byte != 0 {
                if let Some(stripe) = self.stripes.make(at) {
                    self.written(&mut exclusive(stripe), at)[piece.range()].fill(byte);
                }
            } else {
                match self.stripes.next(at) {
                    Ok(stripe) => self.clear(&mut exclusive(stripe), piece),
                    Err(Some(next)) => {
                        at = next;
                        continue;
                    }
                    Err(None) => break,
                }
            }
            at += piece.len as u64;
        }
        Ok(())
    }

    /// Hands `len` bytes from `at` on to `reader`, in order, a stripe at a time, with their offsets.
    ///
    /// # Concurrency
    /// `reader` runs under the lock of the stripe: it must not access any memory of the machine, or
    /// two threads may wait for each other.
    ///
    /// # Errors
    /// [`Outside`], and `reader` saw nothing, where not all of them are there.
    pub fn visit(&self, at: Bytes, len: Bytes, reader: &mut dyn FnMut(Bytes, &[u8])) -> Result<(), Outside> {
        const ZEROS: &[u8] = &[0; STRIPE as usize];
        let end = self.end(at, len)?;
        let mut at = at.as_u64();
        while at < end {
            let piece = self.piece(at, end);
            let stripe = self.stripes.find(at).map(shared);
            let bytes = stripe.as_ref().and_then(|bytes| bytes.get(piece.range()));
            reader(Bytes::new(at), bytes.unwrap_or(&ZEROS[..piece.len]));
            at += piece.len as u64;
        }
        Ok(())
    }

    /// Copies `len` bytes from `from` here on to `target` from `to` on; see [`copy`](super::copy).
    pub(super) fn copy_to(&self, from: Bytes, target: &Self, to: Bytes, len: Bytes) -> Result<(), Outside> {
        self.end(from, len)?;
        target.end(to, len)?;
        let (from, to, len) = (from.as_u64(), to.as_u64(), len.as_u64());
        let backwards = self.number == target.number && from < to;
        let mut done = 0;
        while done < len {
            let left = len - done;
            let (offset, size) = if backwards {
                // What is left ends at `left`; both sides stay within the stripe of their last byte.
                let room = |start: u64| (start + left - 1) % STRIPE + 1;
                let size = left.min(room(from)).min(room(to));
                (left - size, size)
            } else {
                let room = |start: u64| STRIPE - (start + done) % STRIPE;
                (done, left.min(room(from)).min(room(to)))
            };
            let piece = |start: u64| Piece { at: start + offset, len: size as usize };
            self.copy_piece(piece(from), target, piece(to));
            done += size;
        }
        Ok(())
    }

    /// Copies within one stripe, or from one to one other, whose locks it takes in their order.
    fn copy_piece(&self, from: Piece, target: &Self, to: Piece) {
        let Some(source) = self.stripes.find(from.at) else {
            if let Some(stripe) = target.stripes.find(to.at) {
                target.clear(&mut exclusive(stripe), to);
            }
            return;
        };
        let Some(stripe) = target.stripes.make(to.at) else { return };
        let (here, there) = ((self.number, from.at / STRIPE), (target.number, to.at / STRIPE));
        if here == there {
            let mut bytes = exclusive(source);
            if !bytes.is_empty() {
                bytes.copy_within(from.range(), to.range().start);
            }
            return;
        }
        let (read, mut write);
        if here < there {
            read = shared(source);
            write = exclusive(stripe);
        } else {
            write = exclusive(stripe);
            read = shared(source);
        }
        match read.get(from.range()) {
            Some(bytes) => target.store(&mut write, to, bytes),
            None => target.clear(&mut write, to),
        }
    }

    /// Writes a piece; one that is a whole stripe is never set to zeros first.
    #[inline]
    fn store(&self, stripe: &mut Box<[u8]>, piece: Piece, bytes: &[u8]) {
        if stripe.is_empty() && bytes.len() == self.stripes.length_at(piece.at) {
            *stripe = bytes.into();
            self.resident.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        } else {
            self.written(stripe, piece.at)[piece.range()].copy_from_slice(bytes);
        }
    }

    /// Sets a piece to zeros; one that is a whole stripe gives its memory back.
    fn clear(&self, stripe: &mut Box<[u8]>, piece: Piece) {
        if stripe.len() == piece.len {
            self.resident.fetch_sub(stripe.len() as u64, Ordering::Relaxed);
            *stripe = Box::default();
        } else if let Some(bytes) = stripe.get_mut(piece.range()) {
            bytes.fill(0);
        }
    }

    /// The stripe's bytes, which take memory from here on.
    #[inline]
    fn written<'a>(&self, stripe: &'a mut Box<[u8]>, at: u64) -> &'a mut [u8] {
        if stripe.is_empty() {
            *stripe = vec![0; self.stripes.length_at(at)].into();
            self.resident.fetch_add(stripe.len() as u64, Ordering::Relaxed);
        }
        stripe
    }

    #[inline]
    fn end(&self, at: Bytes, len: Bytes) -> Result<u64, Outside> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(end.as_u64()),
            _ => Err(Outside { at, len, size: self.len }),
        }
    }

    /// What lies in the stripe of `at`, up to `end`.
    #[inline]
    fn piece(&self, at: u64, end: u64) -> Piece {
        Piece { at, len: (end - at).min(STRIPE - at % STRIPE) as usize }
    }

    /// Reads a word of a stripe that was written; `None` leaves it to [`read_pieces`](Self::read_pieces).
    ///
    /// Doorbells and flags are words. A stripe has no more bytes than the memory, so that nothing
    /// outside of it is found here.
    #[inline]
    fn read_word<const N: usize>(&self, at: Bytes, into: &mut [u8]) -> Option<()> {
        let stripe = shared(self.stripes.find(at.as_u64())?);
        *into.first_chunk_mut::<N>()? = *stripe.get((at.as_u64() % STRIPE) as usize..)?.first_chunk()?;
        Some(())
    }

    /// Writes a word of a stripe that was written; `None` leaves it to [`write_pieces`](Self::write_pieces).
    #[inline]
    fn write_word<const N: usize>(&self, at: Bytes, from: &[u8]) -> Option<()> {
        let mut stripe = exclusive(self.stripes.find(at.as_u64())?);
        *stripe.get_mut((at.as_u64() % STRIPE) as usize..)?.first_chunk_mut::<N>()? = *from.first_chunk()?;
        Some(())
    }

    fn read_pieces(&self, at: Bytes, mut into: &mut [u8]) -> Result<(), Outside> {
        let end = self.end(at, Bytes::new(into.len() as u64))?;
        let mut at = at.as_u64();
        while at < end {
            let piece = self.piece(at, end);
            let (now, rest) = into.split_at_mut(piece.len);
            let stripe = self.stripes.find(at).map(shared);
            match stripe.as_ref().and_then(|bytes| bytes.get(piece.range())) {
                Some(bytes) => now.copy_from_slice(bytes),
                None => now.fill(0),
            }
            into = rest;
            at += piece.len as u64;
        }
        Ok(())
    }

    fn write_pieces(&self, at: Bytes, mut from: &[u8]) -> Result<(), Outside> {
        let end = self.end(at, Bytes::new(from.len() as u64))?;
        let mut at = at.as_u64();
        while at < end {
            let piece = self.piece(at, end);
            let (now, rest) = from.split_at(piece.len);
            if let Some(stripe) = self.stripes.make(at) {
                self.store(&mut exclusive(stripe), piece, now);
            }
            from = rest;
            at += piece.len as u64;
        }
        Ok(())
    }
}

impl Memory for Striped {
    fn len(&self) -> Bytes {
        self.len
    }

    #[inline]
    fn read(&self, at: Bytes, into: &mut [u8]) -> Result<(), Outside> {
        let done = match into.len() {
            8 => self.read_word::<8>(at, into),
            4 => self.read_word::<4>(at, into),
            _ => None,
        };
        done.map_or_else(|| self.read_pieces(at, into), Ok)
    }

    #[inline]
    fn write(&self, at: Bytes, from: &[u8]) -> Result<(), Outside> {
        let done = match from.len() {
            8 => self.write_word::<8>(at, from),
            4 => self.write_word::<4>(at, from),
            _ => None,
        };
        done.map_or_else(|| self.write_pieces(at, from), Ok)
    }

    fn atomic(&self, at: Bytes, atomic: Atomic) -> Result<u64, Outside> {
        let len = atomic.len();
        if !at.as_u64().is_multiple_of(len.as_u64()) {
            return Err(Outside { at, len, size: self.len });
        }
        // An operand that lies on a multiple of its length crosses no stripe.
        let piece = Piece { at: at.as_u64(), len: len.as_u64() as usize };
        if let Some(stripe) = self.stripes.find(piece.at)
            && let Some(bytes) = exclusive(stripe).get_mut(piece.range())
        {
            return Ok(apply(bytes, atomic));
        }
        self.end(at, len)?;
        let Some(stripe) = self.stripes.make(piece.at) else { return Ok(0) };
        let mut stripe = exclusive(stripe);
        Ok(apply(&mut self.written(&mut stripe, piece.at)[piece.range()], atomic))
    }

    fn as_striped(&self) -> Option<&Striped> {
        Some(self)
    }
}

/// Applies an AtomicOp to the bytes of its operand, least significant first.
pub(super) fn apply(bytes: &mut [u8], atomic: Atomic) -> u64 {
    if let Ok(word) = <&mut [u8; 8]>::try_from(&mut *bytes) {
        let found = u64::from_le_bytes(*word);
        *word = atomic.apply(found).to_le_bytes();
        return found;
    }
    let found = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
    let after = atomic.apply(found).to_le_bytes();
    bytes.iter_mut().zip(after).for_each(|(byte, after)| *byte = after);
    found
}

impl fmt::Debug for Striped {
    /// Writes how much there is and how much of it takes memory, not the bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Striped").field("len", &self.len).field("resident", &self.resident()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
