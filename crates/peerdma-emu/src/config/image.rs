//! Registers under construction: what they hold, and what a write does to each bit.

use super::layout::{CONVENTIONAL, EXTENDED, FIRST_EXTENDED, FIRST_STANDARD, header};

/// What a write does to the bits of one double word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Masks {
    /// Bits that take what is written.
    pub(super) writable: u32,
    /// Bits that a one clears.
    pub(super) cleared: u32,
    /// Writable bits that the way of a request may depend on.
    pub(super) routing: u32,
}

/// A configuration space that is being laid out.
///
/// Only as many words are kept as hold something; what lies behind them, up to the end of the
/// space, reads as zero. Four thousand functions of 4096 bytes would be many megabytes of zeros.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) words: Vec<u32>,
    pub(super) masks: Vec<Masks>,
    /// Bytes of the whole space.
    pub(super) size: u16,
    /// Where the pointer to the next standard capability goes.
    pointer: (u16, u32),
    next_standard: u16,
    last_extended: Option<u16>,
    next_extended: u16,
}

impl Image {
    pub(super) fn new(is_express: bool) -> Self {
        Self {
            words: zeros(0),
            masks: zeros(Masks::default()),
            size: if is_express { EXTENDED } else { CONVENTIONAL },
            pointer: (header::CAPABILITIES, 0),
            next_standard: FIRST_STANDARD,
            last_extended: None,
            next_extended: FIRST_EXTENDED,
        }
    }

    /// Sets bits of the double word at `offset`, and which of its bits take what is written.
    pub(super) fn put(&mut self, offset: u16, value: u32, writable: u32) {
        let index = usize::from(offset / 4);
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
            self.masks.resize(index + 1, Masks::default());
        }
        self.words[index] |= value;
        self.masks[index].writable |= writable;
        self.masks[index].routing |= writable;
    }

    /// Makes ones clear bits of the double word at `offset`.
    pub(super) fn cleared_by_ones(&mut self, offset: u16, bits: u32) {
        self.put(offset, 0, 0);
        self.masks[usize::from(offset / 4)].cleared |= bits;
    }

    /// Says that no request's way depends on the writable bits of the double word at `offset`.
    pub(super) fn routes_nothing(&mut self, offset: u16) {
        self.put(offset, 0, 0);
        self.masks[usize::from(offset / 4)].routing = 0;
    }

    /// Appends a capability of `len` bytes to the standard list; returns where it is.
    pub(super) fn standard(&mut self, id: u8, len: u16) -> u16 {
        let at = self.next_standard;
        self.next_standard += len.next_multiple_of(4);
        let (pointer, shift) = self.pointer;
        self.put(pointer, u32::from(at) << shift, 0);
        self.put(header::COMMAND, header::HAS_CAPABILITIES, 0);
        self.put(at, u32::from(id), 0);
        self.put(at + len.next_multiple_of(4) - 4, 0, 0);
        self.pointer = (at, 8);
        at
    }

    /// Appends a capability of `len` bytes to the extended list; returns where it is.
    pub(super) fn extended(&mut self, id: u16, len: u16) -> u16 {
        let at = self.next_extended;
        self.next_extended += len.next_multiple_of(4);
        if let Some(last) = self.last_extended {
            self.put(last, u32::from(at) << 20, 0);
        }
        self.put(at, u32::from(id) | 1 << 16, 0);
        self.put(at + len.next_multiple_of(4) - 4, 0, 0);
        self.last_extended = Some(at);
        at
    }
}

/// The header, with room for the capabilities that most functions have.
fn zeros<T: Copy>(zero: T) -> Vec<T> {
    let mut words = Vec::with_capacity(0x180 / 4);
    words.resize(usize::from(FIRST_STANDARD / 4), zero);
    words
}
