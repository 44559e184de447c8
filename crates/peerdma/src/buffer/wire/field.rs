//! Fields of messages: how each lies in bytes, little endian and without gaps.

use super::super::life::{AttachmentId, Generation, NoticeId};
use super::RequestId;
use crate::addr::Bytes;
use alloc::vec::Vec;

/// How a field lies in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// The name of its sort, which [`CODES`](super::CODES) may explain.
    pub name: &'static str,
    /// Fewest bytes.
    pub shortest: usize,
    /// Most bytes.
    pub longest: usize,
}

impl Shape {
    pub(super) const fn fixed(name: &'static str, len: usize) -> Self {
        Self { name, shortest: len, longest: len }
    }
}

/// Why a field could not be taken; the message's reader adds where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadField {
    Cut,
    Meaningless(u64),
    Unprintable,
    TooLong { got: usize, max: usize },
}

/// Bytes from which fields are taken one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], BadField> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(BadField::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadField> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(BadField::Cut)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// A value with one encoding; whatever else stands in its place is refused.
pub(super) trait Field: Sized {
    const SHAPE: Shape;

    fn put(&self, out: &mut Vec<u8>);

    fn take(input: &mut Reader<'_>) -> Result<Self, BadField>;
}

macro_rules! word {
    ($($word:ty),+) => {$(
        impl Field for $word {
            const SHAPE: Shape = Shape::fixed(stringify!($word), size_of::<$word>());

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
                Ok(Self::from_le_bytes(input.array()?))
            }
        }
    )+};
}

word!(u8, u16, u32, u64);

macro_rules! number {
    ($($number:ty, $name:literal, $read:ident;)+) => {$(
        impl Field for $number {
            const SHAPE: Shape = Shape::fixed($name, 8);

            fn put(&self, out: &mut Vec<u8>) {
                self.$read().put(out);
            }

            fn take(input: &mut Reader<'_>) -> Result<Self, BadField> {
                Ok(Self::new(u64::take(input)?))
            }
        }
    )+};
}

number! {
    AttachmentId, "u64", number;
    Generation, "u64", number;
    NoticeId, "u64", number;
    RequestId, "u64", number;
    Bytes, "u64", as_u64;
}
