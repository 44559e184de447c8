//! Bulk operations on any memory: copies, fills, readers, comparisons.
//!
//! Between striped memories nothing stands between source and target, which is what a transfer of a
//! megabyte owes to `memcpy`. Every other kind goes through a buffer of a stripe's size.

use super::radix::STRIPE;
use super::{Memory, Outside};
use peerdma::addr::Bytes;
use std::ptr;

/// Copies `len` bytes from one memory, at an offset, to another or to itself.
///
/// Ranges of one memory that overlap are copied as if through a buffer of their length. Stripes of
/// the source that were never written take no memory in the target either.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_emu::memory::{self, Memory, Striped};
///
/// let (ram, vram) = (Striped::new(Bytes::new(1 << 30)), Striped::new(Bytes::new(1 << 30)));
/// ram.write(Bytes::new(0x2000), b"texture")?;
/// memory::copy((&ram, Bytes::new(0x2000)), (&vram, Bytes::new(0x2000)), Bytes::new(1 << 20))?;
///
/// let mut arrived = [0; 7];
/// vram.read(Bytes::new(0x2000), &mut arrived)?;
/// assert_eq!(&arrived, b"texture");
/// assert_eq!(vram.resident(), Bytes::new(64 << 10));
/// # Ok::<(), memory::Outside>(())
/// ```
///
/// # Concurrency
/// At most two stripes are locked at a time, in an order that all copies share, so that copies in
/// circles go on. Others may see the target half copied.
///
/// # Errors
/// [`Outside`] of either memory, and nothing was copied, where not all of the bytes are there.
pub fn copy(from: (&dyn Memory, Bytes), to: (&dyn Memory, Bytes), len: Bytes) -> Result<(), Outside> {
    let ((source, from), (target, to)) = (from, to);
    if let (Some(source), Some(target)) = (source.as_striped(), target.as_striped()) {
        return source.copy_to(from, target, to, len);
    }
    check(source, from, len)?;
    check(target, to, len)?;
    let backwards = ptr::addr_eq(source, target) && from < to;
    let (len, mut done, mut buffer) = (len.as_u64(), 0, Vec::new());
    while done < len {
        let left = len - done;
        // Pieces end where a stripe of the target would, so that no aligned word is cut.
        let (offset, size) = if backwards {
            let size = left.min((to.as_u64() + left - 1) % STRIPE + 1);
            (left - size, size)
        } else {
            (done, left.min(STRIPE - (to.as_u64() + done) % STRIPE))
        };
        buffer.resize(size as usize, 0);
        source.read(further(from, offset), &mut buffer)?;
        target.write(further(to, offset), &buffer)?;
        done += size;
    }
    Ok(())
}

/// Sets `len` bytes from `at` on to `byte`.
///
/// # Errors
/// [`Outside`], and nothing changed, where not all of them are there.
pub fn fill(memory: &dyn Memory, at: Bytes, len: Bytes, byte: u8) -> Result<(), Outside> {
    if let Some(striped) = memory.as_striped() {
        return striped.fill(at, len, byte);
    }
    check(memory, at, len)?;
    let buffer = vec![byte; len.as_u64().min(STRIPE) as usize];
    pieces(at, len, &mut |at, size| memory.write(at, &buffer[..size]))
}

/// Hands `len` bytes from `at` on to `reader`, in order, at most 64 KiB at a time, with their offsets.
///
/// # Concurrency
/// `reader` may run under a lock of the memory: it must not access any memory of the machine, or two
/// threads may wait for each other.
///
/// # Errors
/// [`Outside`], and `reader` saw nothing, where not all of them are there.
pub fn visit(memory: &dyn Memory, at: Bytes, len: Bytes, reader: &mut dyn FnMut(Bytes, &[u8])) -> Result<(), Outside> {
    if let Some(striped) = memory.as_striped() {
        return striped.visit(at, len, reader);
    }
    check(memory, at, len)?;
    let mut buffer = vec![0; len.as_u64().min(STRIPE) as usize];
    pieces(at, len, &mut |at, size| {
        memory.read(at, &mut buffer[..size])?;
        reader(at, &buffer[..size]);
        Ok(())
    })
}

/// The first of `len` bytes that differs between two memories, counted from where each begins.
///
/// ```
/// use peerdma::addr::Bytes;
/// use peerdma_emu::memory::{self, Memory, Striped};
///
/// let (sent, arrived) = (Striped::new(Bytes::new(4096)), Striped::new(Bytes::new(4096)));
/// arrived.write(Bytes::new(100), &[1])?;
/// let found = memory::difference((&sent, Bytes::ZERO), (&arrived, Bytes::new(64)), Bytes::new(1024))?;
/// assert_eq!(found, Some(Bytes::new(36)));
/// # Ok::<(), memory::Outside>(())
/// ```
///
/// # Errors
/// [`Outside`] of either memory where not all of the bytes are there.
pub fn difference(
    one: (&dyn Memory, Bytes),
    other: (&dyn Memory, Bytes),
    len: Bytes,
) -> Result<Option<Bytes>, Outside> {
    let ((one, first), (other, second)) = (one, other);
    check(one, first, len)?;
    check(other, second, len)?;
    let (len, mut done, mut buffer) = (len.as_u64(), 0, Vec::new());
    while done < len {
        let size = (len - done).min(STRIPE - (second.as_u64() + done) % STRIPE);
        // Copied, so that no two locks are held where both are the same stripe.
        buffer.resize(size as usize, 0);
        one.read(further(first, done), &mut buffer)?;
        let mut found = None;
        let (mut rest, mut offset) = (&buffer[..], done);
        visit(other, further(second, done), Bytes::new(size), &mut |_, bytes| {
            let (now, later) = rest.split_at(bytes.len().min(rest.len()));
            if found.is_none() && now != bytes {
                let same = now.iter().zip(bytes).take_while(|(one, other)| one == other).count();
                found = Some(Bytes::new(offset + same as u64));
            }
            offset += bytes.len() as u64;
            rest = later;
        })?;
        if found.is_some() {
            return Ok(found);
        }
        done += size;
    }
    Ok(None)
}

fn check(memory: &dyn Memory, at: Bytes, len: Bytes) -> Result<(), Outside> {
    let size = memory.len();
    match at.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(Outside { at, len, size }),
    }
}

/// `offset` bytes on, within a range that was checked.
fn further(at: Bytes, offset: u64) -> Bytes {
    Bytes::new(at.as_u64() + offset)
}

/// A checked range in pieces that lie in one aligned stripe each.
fn pieces(at: Bytes, len: Bytes, piece: &mut dyn FnMut(Bytes, usize) -> Result<(), Outside>) -> Result<(), Outside> {
    let mut done = 0;
    while done < len.as_u64() {
        let at = further(at, done);
        let size = (len.as_u64() - done).min(STRIPE - at.as_u64() % STRIPE);
        piece(at, size as usize)?;
        done += size;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
