//! Registers that are read and written while the machine runs.

use super::bars::{Bar, Size};
use super::image::{Image, Masks};
use super::layout::{bridge, express, header, power, pri, resizable};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes of a configuration request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Width {
    /// One byte.
    One,
    /// Two bytes.
    Two,
    /// Four bytes.
    Four,
}

impl Width {
    /// How many bytes.
    pub const fn bytes(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// All ones, as a read brings them that nobody answers.
    pub const fn ones(self) -> u32 {
        match self {
            Self::One => 0xff,
            Self::Two => 0xffff,
            Self::Four => 0xffff_ffff,
        }
    }
}

/// Where the capabilities of a space lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    pub(super) power: Option<u16>,
    pub(super) express: Option<u16>,
    pub(super) msi: Option<u16>,
    pub(super) acs: Option<AcsPlace>,
    pub(super) ats: Option<u16>,
    pub(super) pri: Option<u16>,
    pub(super) pasid: Option<u16>,
}

/// Where the ACS registers of a space lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcsPlace {
    /// The double word with the capability in its lower half.
    pub(super) capability: u16,
    /// The double word with the control register.
    pub(super) control: u16,
    pub(super) control_shift: u32,
    /// Bits of the egress vector.
    pub(super) egress_bits: u16,
}

impl AcsPlace {
    /// Where the n-th double word of the egress vector lies: behind the control register.
    pub(super) const fn egress_word(&self, n: u16) -> u16 {
        self.control + 4 + 4 * n
    }
}

/// The configuration space of one function: registers, and what writes to them do.
///
/// The registers are the truth: what a port does is decoded from them at every question
/// ([`window_claims`](Self::window_claims), [`acs`](Self::acs) and the others), so that a write
/// to one takes effect with the next request.
///
/// # Concurrency
/// Any number of threads read and write. A double word is single-copy atomic; a BAR or a window
/// of 64 bits has two, and who asks between two writes finds half of each, as on a bus.
#[derive(Debug)]
pub struct Space {
    words: Box<[AtomicU32]>,
    masks: Box<[Masks]>,
    size: u16,
    pub(super) at: Places,
    pub(super) bars: Box<[Bar]>,
    /// Held by writers, since a write to one register may change another.
    writer: Mutex<Followers>,
}

/// Counters of whoever remembers what follows from registers, raised by every write to one.
#[derive(Debug, Default)]
struct Followers(Vec<Arc<AtomicU64>>);

impl Followers {
    fn tell(&self) {
        self.0.iter().for_each(|counter| {
            counter.fetch_add(1, Ordering::AcqRel);
        });
    }
}

impl Space {
    pub(super) fn from_image(image: Image, at: Places, bars: Box<[Bar]>) -> Self {
        Self {
            words: image.words.into_iter().map(AtomicU32::new).collect(),
            masks: image.masks.into(),
            size: image.size,
            at,
            bars,
            writer: Mutex::default(),
        }
    }

    /// Bytes that there are: 4096 of PCI Express, else 256.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Reads a register.
    ///
    /// All ones past the end, and for an offset that is no multiple of the width: a
    /// configuration request reaches one double word (PCIe 6.0 §2.2.7).
    pub fn read(&self, offset: u16, width: Width) -> u32 {
        if offset >= self.size || !offset.is_multiple_of(width.bytes()) {
            return width.ones();
        }
        self.word(offset & !3) >> (8 * u32::from(offset & 3)) & width.ones()
    }

    /// Writes a register: bits that can be written take `value`, ones clear those that ones
    /// clear, and nothing happens to the others. A value that a field has no meaning for leaves
    /// the field as it is. Writes past the end, and to offsets that are no multiple of the
    /// width, are dropped.
    ///
    /// Returns whether something changed that the way of a request may depend on.
    pub fn write(&self, offset: u16, width: Width, value: u32) -> bool {
        if offset >= self.size || !offset.is_multiple_of(width.bytes()) {
            return false;
        }
        let shift = 8 * u32::from(offset & 3);
        let (written, value) = (width.ones() << shift, value << shift);
        let offset = offset & !3;
        let Some(masks) = self.masks.get(usize::from(offset / 4)) else { return false };
        let followers = self.writer();
        let old = self.word(offset);
        let taken = masks.writable & written;
        let new = self.settled(offset, old, old & !taken | value & taken);
        self.store(offset, new & !(value & written & masks.cleared));
        let changed = (old ^ new) & masks.routing != 0;
        if changed {
            self.resize(offset);
        }
        if old != new {
            followers.tell();
        }
        drop(followers);
        changed
    }

    /// Puts every register to what a reset leaves (PCIe 6.0 §7.4): enables, addresses, windows
    /// and bus numbers zero, payloads 128 bytes, reads 512, sizes of BARs as they were described.
    pub fn reset(&self) {
        let followers = self.writer();
        let control = self.at.express.map(|at| at + express::CONTROL);
        let state = self.at.pri.map(|at| at + pri::CONTROL);
        for (offset, masks) in (0u16..).step_by(4).zip(&self.masks) {
            let size = self.bars.iter().find_map(|bar| match bar.size {
                Size::Resizable { control, reset, .. } if control == offset => Some(reset),
                _ => None,
            });
            let reset = match Some(offset) {
                at if at == control => express::CONTROL_RESET,
                at if at == state => pri::STOPPED,
                _ => size.unwrap_or(0),
            };
            self.store(offset, self.word(offset) & !(masks.writable | masks.cleared) | reset);
        }
        followers.tell();
    }

    /// Has every change of a register that software can write raise a counter too, after the change.
    ///
    /// Whoever remembers what follows from registers asks the counter first, and what it found in an
    /// earlier count is stale. One space may stand in several trees.
    pub(crate) fn followed_by(&self, counter: &Arc<AtomicU64>) {
        self.writer().0.push(counter.clone());
    }

    fn writer(&self) -> MutexGuard<'_, Followers> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The double word at a multiple of 4; zero where the space holds nothing.
    pub(super) fn word(&self, offset: u16) -> u32 {
        self.words.get(usize::from(offset / 4)).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store(&self, offset: u16, value: u32) {
        if let Some(word) = self.words.get(usize::from(offset / 4)) {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets bits of the double word at `offset`, whether software may write them or not.
    pub(super) fn set_bits(&self, offset: u16, bits: u32) {
        let followers = self.writer();
        self.store(offset, self.word(offset) | bits);
        drop(followers);
    }

    /// What a register holds after `new` was written over `old`: fields without a meaning for
    /// the new value keep the old one, and bits follow that follow from others.
    fn settled(&self, offset: u16, old: u32, new: u32) -> u32 {
        let at = Some(offset);
        let keep = |field: u32| new & !field | old & field;
        if let Some(bar) = self.bars.iter().find(|bar| bar.holds(offset)) {
            return self.bar_word(bar, offset, new);
        }
        if self.at.power.map(|place| place + power::CONTROL) == at {
            return if matches!(new & power::STATE, 0 | power::D3_HOT) { new } else { keep(power::STATE) };
        }
        if let Some(place) = self.at.express.filter(|&place| Some(place + express::CONTROL) == at) {
            let supported = self.word(place + express::CAPABILITIES) & 7;
            let field = |shift: u32| new >> shift & 7;
            let mut kept = 0;
            if field(express::PAYLOAD_SHIFT) > supported {
                kept |= 7 << express::PAYLOAD_SHIFT;
            }
            if field(express::READ_SHIFT) > 5 {
                kept |= 7 << express::READ_SHIFT;
            }
            return keep(kept);
        }
        if self.at.pri.map(|place| place + pri::CONTROL) == at {
            return if new & pri::ENABLE != 0 { new & !pri::STOPPED } else { new | pri::STOPPED };
        }
        for bar in &self.bars {
            if let Size::Resizable { control, sizes, .. } = bar.size
                && control == offset
                && sizes >> (new >> resizable::SIZE_SHIFT & 0x3f) & 1 == 0
            {
                return keep(resizable::SIZE);
            }
        }
        new
    }

    /// Cuts the address of the BAR whose size is at `offset`, if any is, to that size.
    fn resize(&self, offset: u16) {
        for bar in &self.bars {
            if !matches!(bar.size, Size::Resizable { control, .. } if control == offset) {
                continue;
            }
            for register in [bar.offset(), bar.offset() + 4] {
                if bar.holds(register) {
                    self.store(register, self.bar_word(bar, register, self.word(register)));
                }
            }
        }
    }

    /// What the register of a BAR at `offset` makes of `value`: the bits below the BAR's size
    /// are zero, apart from its flags.
    fn bar_word(&self, bar: &Bar, offset: u16, value: u32) -> u32 {
        let mask = !(self.bar_size(bar) - 1);
        if offset == bar.offset() { value & mask as u32 | bar.flags } else { value & (mask >> 32) as u32 }
    }

    /// Bytes of a BAR, a power of two.
    pub(super) fn bar_size(&self, bar: &Bar) -> u64 {
        match bar.size {
            Size::Fixed(size) => size,
            Size::Resizable { control, .. } => {
                1 << (resizable::SMALLEST_LOG2 + (self.word(control) >> resizable::SIZE_SHIFT & 0x3f)).min(63)
            }
        }
    }

    /// Whether the header is that of a bridge.
    pub(super) fn is_bridge(&self) -> bool {
        self.word(header::TYPE) & header::TYPE_BRIDGE != 0
    }

    /// Whether the bridge holds what is below it in reset.
    pub fn holds_below_in_reset(&self) -> bool {
        self.is_bridge() && self.word(header::INTERRUPT_AND_BRIDGE_CONTROL) & bridge::SECONDARY_RESET != 0
    }
}
