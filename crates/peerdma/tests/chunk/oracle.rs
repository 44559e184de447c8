//! The same lists as plain vectors, slowly.

use peerdma::access::MemAttrs;
use peerdma::addr::Bytes;
use peerdma::chunk::Chunk;
use proptest::collection::vec;
use proptest::prelude::*;

/// A range as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) owner: u8,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) attrs: MemAttrs,
}

impl Piece {
    pub(crate) fn chunk(&self) -> Chunk<u8> {
        Chunk::new(self.owner, Bytes::new(self.offset), Bytes::new(self.len), self.attrs).unwrap()
    }

    fn is_of_the_kind_of(&self, other: &Self) -> bool {
        self.owner == other.owner && self.attrs == other.attrs
    }
}

/// A list as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plain {
    pub(crate) ranges: Vec<Piece>,
}

pub(crate) fn plain_of(chunks: impl IntoIterator<Item = Chunk<u8>>) -> Plain {
    let piece = |chunk: Chunk<u8>| Piece {
        owner: chunk.owner(),
        offset: chunk.offset().as_u64(),
        len: chunk.len().as_u64(),
        attrs: chunk.attrs(),
    };
    Plain { ranges: chunks.into_iter().map(piece).collect() }
}

impl Plain {
    pub(crate) fn merged(pieces: &[Piece]) -> Self {
        let mut ranges: Vec<Piece> = Vec::new();
        for piece in pieces {
            match ranges.last_mut() {
                Some(last) if last.is_of_the_kind_of(piece) && last.offset + last.len == piece.offset => {
                    last.len += piece.len;
                }
                _ => ranges.push(*piece),
            }
        }
        Self { ranges }
    }

    pub(crate) fn joined(parts: &[Self]) -> Self {
        Self { ranges: parts.iter().flat_map(|part| part.ranges.clone()).collect() }
    }

    pub(crate) fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.len).sum()
    }

    pub(crate) fn runs(&self) -> Vec<(u8, MemAttrs, Bytes, Bytes)> {
        let (mut runs, mut at): (Vec<(u8, MemAttrs, u64, u64)>, u64) = (Vec::new(), 0);
        for range in &self.ranges {
            match runs.last_mut() {
                Some((owner, attrs, _, len)) if (*owner, *attrs) == (range.owner, range.attrs) => *len += range.len,
                _ => runs.push((range.owner, range.attrs, at, range.len)),
            }
            at += range.len;
        }
        runs.into_iter().map(|(owner, attrs, at, len)| (owner, attrs, Bytes::new(at), Bytes::new(len))).collect()
    }

    pub(crate) fn slice(&self, offset: u64, len: u64) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if len == 0 || end > self.len() {
            return None;
        }
        let (mut ranges, mut at) = (Vec::new(), 0);
        for range in &self.ranges {
            let (from, to) = (offset.max(at), end.min(at + range.len));
            if from < to {
                ranges.push(Piece { offset: range.offset + (from - at), len: to - from, ..*range });
            }
            at += range.len;
        }
        Some(Self { ranges })
    }

    /// Offsets and lengths around the boundaries of ranges, and anywhere.
    pub(crate) fn places(&self, cuts: &[(prop::sample::Index, i8, u64)]) -> Vec<(u64, u64)> {
        let mut boundaries = vec![0];
        for range in &self.ranges {
            boundaries.push(boundaries.last().unwrap() + range.len);
        }
        let points: Vec<u64> = cuts
            .iter()
            .map(|(index, off, raw)| match off {
                -2..=2 => index.get(&boundaries).saturating_add_signed(i64::from(*off)),
                _ => raw % (self.len() + 2),
            })
            .collect();
        points.iter().flat_map(|from| points.iter().map(move |to| (*from, to.saturating_sub(*from)))).collect()
    }
}

pub(crate) fn cuts() -> impl Strategy<Value = Vec<(prop::sample::Index, i8, u64)>> {
    vec((any::<prop::sample::Index>(), -2..=4_i8, any::<u64>()), 1..8)
}

/// Where a piece begins.
#[derive(Clone, Copy, Debug)]
enum Begin {
    BehindTheLast,
    At(u64),
}

/// Pieces of whole pages and of parts of pages, near each other, behind each other and at the limits of a word.
pub(crate) fn drawn() -> impl Strategy<Value = Vec<Piece>> {
    let offset = prop_oneof![
        4 => (0..16_u64).prop_map(|page| page << 12),
        3 => 0..0x8000_u64,
        1 => (0..4_u64, 0..0x2000_u64).prop_map(|(page, byte)| (((1 << 40) - 2 + page) << 12) + byte),
        1 => (0..0x2000_u64).prop_map(|byte| (0xabc << 52) + byte),
    ];
    let begin = prop_oneof![3 => offset.prop_map(Begin::At), 2 => Just(Begin::BehindTheLast)];
    let len = prop_oneof![
        4 => (1..5_u64).prop_map(|pages| pages << 12),
        4 => 1..0x3000_u64,
        1 => (0..0x2000_u64).prop_map(|byte| (1 << 36) - 0x1000 + byte),
    ];
    let attrs = prop_oneof![3 => Just(MemAttrs::empty()), 1 => Just(MemAttrs::MMIO)];
    vec((0..2_u8, begin, len, attrs, any::<bool>()), 0..12).prop_map(|drawn| {
        let mut pieces: Vec<Piece> = Vec::new();
        for (owner, begin, len, attrs, same) in drawn {
            let (owner, attrs) = match pieces.last() {
                Some(last) if same => (last.owner, last.attrs),
                _ => (owner, attrs),
            };
            let offset = match (begin, pieces.last()) {
                (Begin::At(offset), _) => offset,
                (Begin::BehindTheLast, Some(last)) => last.offset + last.len,
                (Begin::BehindTheLast, None) => 0,
            };
            pieces.push(Piece { owner, offset, len, attrs });
        }
        pieces
    })
}
