//! Base address registers: which there are, and how large each is at the moment.

use super::description::{BarDescription, Description, Header};
use super::image::Image;
use super::layout::{header, resizable};
use peerdma::addr::Bytes;

/// A register holds its address above its four lowest bits, which are flags.
const SMALLEST: u64 = 16;
const LARGEST_32_BIT: u64 = 1 << 31;
const LARGEST: u64 = 1 << 63;
const IS_64_BIT: u32 = 0x4;
const PREFETCHABLE: u32 = 0x8;

/// A BAR in the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bar {
    pub(super) index: u8,
    pub(super) is_64_bit: bool,
    /// The read-only bits of its first register.
    pub(super) flags: u32,
    pub(super) size: Size,
}

/// How large a BAR is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Size {
    Fixed(u64),
    /// What the control register at this offset says; `sizes` has bit n for 2^(20+n) bytes, and
    /// a reset brings the register back to `reset`.
    Resizable {
        control: u16,
        sizes: u64,
        reset: u32,
    },
}

impl Bar {
    /// Where its first register lies.
    pub(super) const fn offset(&self) -> u16 {
        header::BARS + 4 * self.index as u16
    }

    /// Whether the double word at `offset` is one of its registers.
    pub(super) const fn holds(&self, offset: u16) -> bool {
        offset == self.offset() || self.is_64_bit && offset == self.offset() + 4
    }
}

/// Lays out the BARs and, where there are such, the capability that resizes them.
pub(super) fn lay_out(image: &mut Image, description: &Description) -> Box<[Bar]> {
    let count = match description.header {
        Header::Device => 6,
        Header::Bridge => 2,
    };
    let mut taken = [false; 6];
    let mut chosen: Vec<(&BarDescription, u64)> = Vec::new();
    for bar in &description.bars {
        let registers = bar.index..bar.index.saturating_add(if bar.is_64_bit { 2 } else { 1 });
        if registers.end > count || registers.clone().any(|register| taken[usize::from(register)]) {
            continue;
        }
        registers.for_each(|register| taken[usize::from(register)] = true);
        let largest = if bar.is_64_bit { LARGEST } else { LARGEST_32_BIT };
        let size = bar.size.as_u64().checked_next_power_of_two().unwrap_or(LARGEST).clamp(SMALLEST, largest);
        chosen.push((bar, size));
    }
    let resizes = |&(bar, size): &(&BarDescription, u64)| {
        let smallest = 1 << resizable::SMALLEST_LOG2;
        description.express.is_some() && !bar.resizable.is_empty() && size >= smallest
    };
    let count = chosen.iter().filter(|entry| resizes(entry)).count();
    // Six at most: as many as there are registers.
    let capability = (count > 0).then(|| image.extended(resizable::ID, 4 + 8 * count as u16));
    let mut next_entry = capability;
    let bars = chosen.iter().map(|entry @ &(description, size)| {
        let is_64_bit = description.is_64_bit;
        let flags = if is_64_bit { IS_64_BIT } else { 0 } | if description.prefetchable { PREFETCHABLE } else { 0 };
        let entry = next_entry.filter(|_| resizes(entry));
        let size_of = match entry {
            None => Size::Fixed(size),
            Some(at) => {
                next_entry = Some(at + 8);
                let sizes = sizes(description, size);
                let control = u32::from(description.index)
                    | if Some(at) == capability { (count as u32) << 5 } else { 0 }
                    | (size.trailing_zeros() - resizable::SMALLEST_LOG2) << resizable::SIZE_SHIFT
                    | ((sizes >> 28) as u32) << 16;
                image.put(at + 4, (sizes as u32) << 4, 0);
                image.put(at + 8, control, resizable::SIZE);
                Size::Resizable { control: at + 8, sizes, reset: control }
            }
        };
        let bar = Bar { index: description.index, is_64_bit, flags, size: size_of };
        let address = description.address.as_u64() & !(size - 1);
        image.put(bar.offset(), address as u32 | flags, !0xf);
        if is_64_bit {
            image.put(bar.offset() + 4, (address >> 32) as u32, !0);
        }
        bar
    });
    bars.collect()
}

/// Bit n for each size of 2^(20+n) bytes, the present one among them.
fn sizes(bar: &BarDescription, present: u64) -> u64 {
    let largest = if bar.is_64_bit { LARGEST } else { LARGEST_32_BIT };
    let offered = bar.resizable.iter().copied().map(Bytes::as_u64).chain([present]);
    let fitting = offered.filter(|size| size.is_power_of_two() && (1 << 20..=largest).contains(size));
    fitting.fold(0, |mask, size| mask | 1 << (size.trailing_zeros() - resizable::SMALLEST_LOG2))
}
