//! Scatter gather lists, read as the drive reads them (NVMe Base 2.0 §4.1.2).

use super::command::{Piece, Pieces};
use super::reach::Reach;
use super::status::Status;
use peerdma::addr::{BusAddr, Bytes};

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Descriptors that are read at once.
const AT_ONCE: u64 = 256;
/// Descriptors that are followed in one command; a list that goes on longer, or round, is refused.
const MOST_DESCRIPTORS: u64 = 1 << 16;
/// Segments that are followed in one command.
const MOST_SEGMENTS: usize = 1024;

/// What a descriptor is, by bits 7:4 of its last byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Data,
    BitBucket,
    Segment,
    LastSegment,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Descriptor {
    at: BusAddr,
    len: u64,
    kind: Kind,
}

impl Descriptor {
    fn from_bytes(bytes: &[u8; 16]) -> Result<Self, Status> {
        let word = u128::from_le_bytes(*bytes);
        // Sub type 0 is an address; offsets are for fabrics.
        let kind = match (word >> 124) as u8 {
            _ if (word >> 120) as u8 & 15 != 0 => return Err(Status::SGL_TYPE_INVALID),
            0 => Kind::Data,
            1 => Kind::BitBucket,
            2 => Kind::Segment,
            3 => Kind::LastSegment,
            _ => return Err(Status::SGL_TYPE_INVALID),
        };
        Ok(Self { at: BusAddr::new(word as u64), len: u64::from((word >> 64) as u32), kind })
    }

    fn is_segment(self) -> bool {
        matches!(self.kind, Kind::Segment | Kind::LastSegment)
    }
}

/// Which way the data of a command goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    ToHost,
    FromHost,
}

/// The data that the descriptor of a command and the segments behind it name, `len` bytes in all.
///
/// A bit bucket takes bytes of a read and stands for none in a write.
///
/// # Errors
/// The status that the descriptor at fault has; that of the request where a segment cannot be read.
pub(super) fn pieces(
    reach: &mut Reach<'_>,
    first: &[u8; 16],
    len: u64,
    direction: Direction,
) -> Result<Pieces, Status> {
    let mut walk = Walk { found: Pieces::default(), len, direction, descriptors: 0 };
    let mut next = Descriptor::from_bytes(first)?;
    if !next.is_segment() {
        walk.take(next)?;
    }
    let mut segments = 0;
    while next.is_segment() {
        segments += 1;
        if segments > MOST_SEGMENTS {
            return Err(Status::INVALID_SGL_COUNT);
        }
        match walk.segment(reach, next)? {
            Some(segment) => next = segment,
            None => break,
        }
    }
    if walk.found.len() != len {
        return Err(Status::SGL_LENGTH_INVALID);
    }
    Ok(walk.found)
}

struct Walk {
    found: Pieces,
    len: u64,
    direction: Direction,
    descriptors: u64,
}

impl Walk {
    /// Takes a descriptor of data.
    fn take(&mut self, descriptor: Descriptor) -> Result<(), Status> {
        match (descriptor.kind, self.direction) {
            (Kind::BitBucket, Direction::FromHost) => return Ok(()),
            (Kind::BitBucket, Direction::ToHost) => self.found.push(Piece { at: None, len: descriptor.len }),
            (Kind::Data, _) => self.found.push(Piece { at: Some(descriptor.at), len: descriptor.len }),
            (Kind::Segment | Kind::LastSegment, _) => return Err(Status::INVALID_SGL_SEGMENT),
        }
        if self.found.len() > self.len { Err(Status::SGL_LENGTH_INVALID) } else { Ok(()) }
    }

    /// Reads a segment; the next one, if its last descriptor says that there is one.
    fn segment(&mut self, reach: &mut Reach<'_>, segment: Descriptor) -> Result<Option<Descriptor>, Status> {
        if segment.len == 0 || !segment.len.is_multiple_of(DESCRIPTOR) {
            return Err(Status::INVALID_SGL_SEGMENT);
        }
        self.descriptors += segment.len / DESCRIPTOR;
        if self.descriptors > MOST_DESCRIPTORS {
            return Err(Status::INVALID_SGL_COUNT);
        }
        let mut bytes = vec![0; segment.len.min(AT_ONCE * DESCRIPTOR) as usize];
        let mut done = 0;
        while done < segment.len {
            let piece = &mut bytes[..(segment.len - done).min(AT_ONCE * DESCRIPTOR) as usize];
            let at = segment.at.checked_add(Bytes::new(done)).ok_or(Status::INVALID_SGL_SEGMENT)?;
            reach.read(at, piece)?;
            done += piece.len() as u64;
            let (descriptors, _) = piece.as_chunks::<16>();
            for (index, bytes) in descriptors.iter().enumerate() {
                let descriptor = Descriptor::from_bytes(bytes)?;
                let is_last = done == segment.len && index + 1 == descriptors.len();
                match (segment.kind, is_last, descriptor.is_segment()) {
                    // All segments but the last end in the way to the next one.
                    (Kind::Segment, true, true) => return Ok(Some(descriptor)),
                    (Kind::Segment, true, false) | (_, _, true) => return Err(Status::INVALID_SGL_SEGMENT),
                    _ => self.take(descriptor)?,
                }
            }
        }
        Ok(None)
    }
}
