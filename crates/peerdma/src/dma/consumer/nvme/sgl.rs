//! Scatter gather lists (§4.1.2): the data as ranges of any length.
//!
//! One range stands in the command itself. More stand in segments, arrays of descriptors;
//! the last descriptor of a segment says where the next one is, how long, and whether
//! it is the last, since that one has data descriptors only.

use super::{Controller, ListPage};
use crate::addr::Bytes;
use crate::dma::consumer::joined::Joined;
use crate::dma::span::{DeviceAddress, Span};

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;
/// Data of one descriptor; its length has 32 bits, and a whole number of pages keeps what follows aligned.
const LONGEST_BLOCK: u64 = 0xffff_f000;

/// What a descriptor is about; bits 7:4 of its last byte. The sub type below is zero, an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Data.
    Block = 0x0,
    /// Another segment that ends in one of these two again.
    Segment = 0x2,
    /// The last segment.
    LastSegment = 0x3,
}

/// An SGL descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    address: DeviceAddress,
    len: u32,
    kind: Kind,
}

impl Descriptor {
    /// The 16 bytes, as they lie in memory and in the command.
    pub fn to_bytes(self) -> [u8; 16] {
        let [low, high] = self.words();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&low.to_ne_bytes());
        bytes[8..].copy_from_slice(&high.to_ne_bytes());
        bytes
    }

    /// Two words as they lie in memory.
    fn words(self) -> [u64; 2] {
        [self.address.as_u64().to_le(), (u64::from(self.len) | (self.kind as u64) << 60).to_le()]
    }
}

/// The descriptor of a command, after the segments behind it were written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sgl {
    first: Descriptor,
    segments: usize,
    len: Bytes,
}

impl Sgl {
    /// SGL entry 1 of the command.
    pub fn entry(&self) -> Descriptor {
        self.first
    }

    /// How many of the list pages are in use until the command completes.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of data.
    pub fn len(&self) -> Bytes {
        self.len
    }

    /// Always false; no command without data gets here.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why data cannot be written as an SGL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SglError {
    /// There are no spans.
    #[error("a command without data has no SGL")]
    Empty,
    /// The drive takes multiples of four only, and a range is none.
    #[error("the range of {len} at {address} (byte {at:#x} of the data) is not made of whole dwords, which this controller asks for; move it", at = at.as_u64())]
    NotDwords {
        /// Where in the data.
        at: Bytes,
        /// Where it begins.
        address: DeviceAddress,
        /// Its length.
        len: Bytes,
    },
    /// A span runs past the end of all addresses.
    #[error("the span at byte {at:#x} of the data runs from {address} past the last address", at = at.as_u64())]
    Wraps {
        /// Where in the data.
        at: Bytes,
        /// Where it begins.
        address: DeviceAddress,
    },
    /// The data is longer than one command takes.
    #[error("the data is longer than {longest}, which is all that one command transfers; split it")]
    TooLong {
        /// What a command transfers.
        longest: Bytes,
    },
    /// There is not enough room for the segments.
    #[error("the data takes {needed} descriptors, and the list pages have room for {room}; give more of them")]
    TooFewListPages {
        /// Descriptors of data.
        needed: u64,
        /// How many fit, descriptors of segments deducted.
        room: u64,
    },
    /// A segment does not begin at a multiple of eight.
    #[error("list page {index} is at {address}, and segments begin at multiples of 8")]
    NotQwordAligned {
        /// Which of those given.
        index: usize,
        /// Where the drive finds it.
        address: DeviceAddress,
    },
}

impl Controller {
    /// Writes data as an SGL: the segments into `list`, from its front, one to an element, the command's descriptor
    /// as answer.
    ///
    /// Elements may be of any size from one descriptor on. Spans over 4 GiB take
    /// several descriptors.
    ///
    /// # Errors
    /// [`SglError`]; nothing was written.
    pub fn sgl<I>(&self, spans: I, list: &mut [ListPage<'_>]) -> Result<Sgl, SglError>
    where
        I: Iterator<Item = Span> + Clone,
    {
        let (count, len) = self.count_blocks(spans.clone())?;
        let mut blocks = Blocks::new(spans);
        let sgl = |first, segments| Sgl { first, segments, len };
        if count == 1 {
            return blocks.next().map(|block| sgl(block, 0)).ok_or(SglError::Empty);
        }
        let segments = segments_for(list, count)?;
        let list = &mut list[..segments];
        let mut left = count;
        let first = segment(list, left).ok_or(SglError::Empty)?;
        let mut rest = list;
        while let Some((page, behind)) = rest.split_first_mut() {
            let (blocks_here, next) = match descriptors(page) {
                room if left <= room => (left, None),
                room => (room - 1, segment(behind, left - (room - 1))),
            };
            left -= blocks_here;
            let here = blocks.by_ref().take(blocks_here as usize).chain(next);
            for (words, descriptor) in page.words.chunks_exact_mut(2).zip(here) {
                words.copy_from_slice(&descriptor.words());
            }
            rest = behind;
        }
        Ok(sgl(first, segments))
    }

    /// Number of data descriptors, and bytes of data.
    fn count_blocks(&self, spans: impl Iterator<Item = Span>) -> Result<(u64, Bytes), SglError> {
        let (mut count, mut total) = (0, Bytes::ZERO);
        for Span { at, address, len, .. } in Joined::new(spans) {
            let (raw, bytes) = (address.as_u64(), len.as_u64());
            if raw.checked_add(bytes - 1).is_none() {
                return Err(SglError::Wraps { at, address });
            }
            if self.dword_sgls && (raw | bytes) % 4 != 0 {
                return Err(SglError::NotDwords { at, address, len });
            }
            let sum = total.checked_add(len).filter(|sum| *sum <= self.longest);
            total = sum.ok_or(SglError::TooLong { longest: self.longest })?;
            count += bytes.div_ceil(LONGEST_BLOCK);
        }
        match count {
            0 => Err(SglError::Empty),
            count => Ok((count, total)),
        }
    }
}

/// Descriptors that an element of the list holds; a segment's length has 32 bits.
fn descriptors(page: &ListPage<'_>) -> u64 {
    (page.words.len() as u64 / 2).min(u64::from(u32::MAX) / DESCRIPTOR)
}

/// The descriptor of the segment at the front of `list`, where `left` data descriptors are to come.
fn segment(list: &[ListPage<'_>], left: u64) -> Option<Descriptor> {
    let page = list.first()?;
    let room = descriptors(page);
    let kind = if left <= room { Kind::LastSegment } else { Kind::Segment };
    // Not above the room, which fits.
    Some(Descriptor { address: page.address, len: (left.min(room) * DESCRIPTOR) as u32, kind })
}

/// How many elements of the list hold so many data descriptors, if they are aligned and enough.
fn segments_for(list: &[ListPage<'_>], count: u64) -> Result<usize, SglError> {
    let mut before = 0_u64;
    let mut room = 0;
    for (index, page) in list.iter().enumerate() {
        if page.address.as_u64() % 8 != 0 {
            return Err(SglError::NotQwordAligned { index, address: page.address });
        }
        let here = descriptors(page);
        room = before.saturating_add(here);
        if here == 0 {
            // A segment without descriptors could not lead on.
            return Err(SglError::TooFewListPages { needed: count, room: before });
        }
        if count <= room {
            return Ok(index + 1);
        }
        before = room - 1;
    }
    Err(SglError::TooFewListPages { needed: count, room })
}

/// The data descriptors of spans.
struct Blocks<I> {
    spans: Joined<I>,
    rest: Option<(DeviceAddress, u64)>,
}

impl<I: Iterator<Item = Span>> Blocks<I> {
    fn new(spans: I) -> Self {
        Self { spans: Joined::new(spans), rest: None }
    }
}

impl<I: Iterator<Item = Span>> Iterator for Blocks<I> {
    type Item = Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Descriptor> {
        let (address, left) = match self.rest.take() {
            Some(rest) => rest,
            None => self.spans.next().map(|span| (span.address, span.len.as_u64()))?,
        };
        let len = left.min(LONGEST_BLOCK);
        if len < left {
            self.rest = address.checked_add(Bytes::new(len)).map(|address| (address, left - len));
        }
        Some(Descriptor { address, len: len as u32, kind: Kind::Block })
    }
}
