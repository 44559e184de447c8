//! Commands of the NVM command set (NVMe NVM Command Set 1.0 §3.2).

use super::command::Command;
use super::data;
use super::media::Media;
use super::reach::Reach;
use super::sgl::Direction;
use super::status::Status;
use peerdma::addr::Bytes;

/// Flush.
pub(super) const FLUSH: u8 = 0x00;
/// Write.
pub(super) const WRITE: u8 = 0x01;
/// Read.
pub(crate) const READ: u8 = 0x02;
/// Compare.
pub(crate) const COMPARE: u8 = 0x05;
/// Write Zeroes.
pub(super) const WRITE_ZEROES: u8 = 0x08;

/// Bytes of data that one command moves at most, in memory pages of 4 KiB (`MDTS`): 4 MiB.
pub(super) const LONGEST_LOG2_PAGES: u8 = 10;
/// The same in bytes.
pub(super) const LONGEST: u64 = 4096 << LONGEST_LOG2_PAGES;
/// Zeros that are written at once.
const ZEROS: usize = 64 << 10;

/// How far a command has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// It is done.
    All,
    /// It goes on in steps to come.
    Begun(Zeroing),
}

/// Does one command, with memory pages of `page` bytes.
pub(super) fn execute(reach: &mut Reach<'_>, media: &Media, command: &Command, page: Bytes) -> Result<Done, Status> {
    if command.is_fused() {
        return Err(Status::INVALID_FIELD);
    }
    if !matches!(command.opcode, FLUSH | WRITE | READ | COMPARE | WRITE_ZEROES) {
        return Err(Status::INVALID_OPCODE);
    }
    // Flush alone may speak of all namespaces.
    if command.namespace != 1 && (command.opcode, command.namespace) != (FLUSH, u32::MAX) {
        return Err(Status::INVALID_NAMESPACE);
    }
    if command.opcode == FLUSH {
        // There is no write cache: what is complete is in the medium.
        return Ok(Done::All);
    }
    let first = u64::from(command.dword(10)) | u64::from(command.dword(11)) << 32;
    let count = u64::from(command.dword(12) & 0xffff) + 1;
    let (start, len) = media.range(first, count).ok_or(Status::LBA_OUT_OF_RANGE)?;
    if command.opcode == WRITE_ZEROES {
        return Ok(Done::Begun(Zeroing { at: start.as_u64(), left: len }));
    }
    if len > LONGEST {
        return Err(Status::INVALID_FIELD);
    }
    let direction = if command.opcode == READ { Direction::ToHost } else { Direction::FromHost };
    let pieces = data::pieces(reach, command, len, page, direction)?;
    let memory = &*media.memory;
    match command.opcode {
        READ => data::to_host(reach, memory, start, &pieces),
        WRITE => data::from_host(reach, memory, start, &pieces),
        _ => data::compare(reach, memory, start, &pieces),
    }?;
    Ok(Done::All)
}

/// Blocks that are being filled with zeros, which no limit of a command bounds, so that it takes
/// several steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Zeroing {
    at: u64,
    left: u64,
}

impl Zeroing {
    /// Fills a piece of as many bytes as a command moves at most; whether that was the last.
    pub(super) fn advance(&mut self, media: &Media) -> Result<bool, Status> {
        let zeros = [0; ZEROS];
        let end = self.at + self.left.min(LONGEST);
        while self.at < end {
            let count = (end - self.at).min(ZEROS as u64);
            media.memory.write(Bytes::new(self.at), &zeros[..count as usize]).map_err(|_| Status::WRITE_FAULT)?;
            self.at += count;
            self.left -= count;
        }
        Ok(self.left == 0)
    }
}
