//! Moves a command's data.

use super::command::{Command, Pieces, Pointer};
use super::reach::Reach;
use super::sgl::Direction;
use super::status::Status;
use super::{prp, sgl};
use crate::memory::Memory;
use peerdma::addr::{BusAddr, Bytes};

/// Bytes that are compared at once.
const COMPARE_PIECE: u64 = 64 << 10;

/// Where a command's data is.
pub(super) fn pieces(
    reach: &mut Reach<'_>,
    command: &Command,
    len: u64,
    page: Bytes,
    direction: Direction,
) -> Result<Pieces, Status> {
    match command.pointer()? {
        Pointer::Prps(first, second) => prp::pieces(reach, (first, second), len, page),
        Pointer::Sgl(descriptor) => sgl::pieces(reach, &descriptor, len, direction),
    }
}

/// Writes bytes that the controller made up to where an admin command wants them; admin
/// commands use PRPs alone.
pub(super) fn answer(reach: &mut Reach<'_>, command: &Command, page: Bytes, bytes: &[u8]) -> Result<(), Status> {
    let Pointer::Prps(first, second) = command.pointer()? else { return Err(Status::INVALID_FIELD) };
    let pieces = prp::pieces(reach, (first, second), bytes.len() as u64, page)?;
    let mut rest = bytes;
    for piece in pieces.iter() {
        let (part, later) = rest.split_at(rest.len().min(piece.len as usize));
        rest = later;
        if let Some(at) = piece.at {
            reach.write(at, part)?;
        }
    }
    Ok(())
}

/// Writes the medium from `start` on into the pieces.
pub(super) fn to_host(reach: &mut Reach<'_>, medium: &dyn Memory, start: Bytes, pieces: &Pieces) -> Result<(), Status> {
    each(start, pieces, |at, offset, len| reach.send((medium, offset), at, len))
}

/// Reads the pieces into the medium.
pub(super) fn from_host(
    reach: &mut Reach<'_>,
    medium: &dyn Memory,
    start: Bytes,
    pieces: &Pieces,
) -> Result<(), Status> {
    each(start, pieces, |at, offset, len| reach.fetch(at, (medium, offset), len))
}

/// Reads the pieces, and finds whether the medium holds the same.
pub(super) fn compare(reach: &mut Reach<'_>, medium: &dyn Memory, start: Bytes, pieces: &Pieces) -> Result<(), Status> {
    let mut theirs = vec![0; COMPARE_PIECE as usize];
    let mut ours = vec![0; COMPARE_PIECE as usize];
    each(start, pieces, |at, offset, len| {
        let mut done = 0;
        while done < len {
            let count = (len - done).min(COMPARE_PIECE) as usize;
            let at = at.checked_add(Bytes::new(done)).ok_or(Status::DATA_TRANSFER_ERROR)?;
            reach.read(at, &mut theirs[..count])?;
            let offset = Bytes::new(offset.as_u64() + done);
            medium.read(offset, &mut ours[..count]).map_err(|_| Status::READ_ERROR)?;
            if theirs[..count] != ours[..count] {
                return Err(Status::COMPARE_FAILURE);
            }
            done += count as u64;
        }
        Ok(())
    })
}

/// Each piece with its place in the medium; those without an address are passed over.
fn each(
    start: Bytes,
    pieces: &Pieces,
    mut act: impl FnMut(BusAddr, Bytes, u64) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut offset = start.as_u64();
    for piece in pieces.iter() {
        if let Some(at) = piece.at {
            act(at, Bytes::new(offset), piece.len)?;
        }
        offset += piece.len;
    }
    Ok(())
}
