//! Registers: words that anybody reads, and whose writes a device hears of.

use super::awake::Waker;
use peerdma::addr::Bytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of one register word.
const WORD: u64 = 8;

/// Who may write a register over the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Only the device; other writes are dropped.
    ReadOnly,
    /// Anybody; the device hears of it.
    ReadWrite,
}

/// A block of registers behind a BAR, as words of 8 bytes.
///
/// What somebody writes is to be read at once, and is told to the device in the order of
/// arrival. A register that is written again before the device has looked is told once, with
/// the last value, at the place of the first: a doorbell says "look", not how often.
///
/// # Concurrency
/// Any number of threads read and write; words are single-copy atomic.
#[derive(Debug)]
pub struct Registers {
    words: Box<[AtomicU64]>,
    read_only: Box<[bool]>,
    unseen: Mutex<Unseen>,
}

/// Writes that the device has not seen, and who is to look at them.
///
/// As many as the block has offsets and lengths at most, as what is written again takes the place
/// of what was written before.
///
/// Writes are numbered, modulo 2^32, and each word knows the number of its last one: those of one word
/// form a list, of as many as a word has offsets and lengths. Numbers of writes that the device has
/// seen stand there still, and may be those of others by now; so what is found is compared.
#[derive(Debug)]
struct Unseen {
    queue: VecDeque<(Written, Number)>,
    /// Of the first in the queue.
    first: Number,
    /// Of the last write to each word.
    last: Box<[Number]>,
    wakers: Vec<Waker>,
}

/// The number of a write, and with a write in the queue that of the one before to its word.
type Number = u32;

impl Unseen {
    /// The write in the queue that has this offset and length.
    fn find(&mut self, offset: u64, len: u8) -> Option<&mut Written> {
        let mut number = *self.last.get((offset / WORD) as usize)?;
        let mut newer = self.queue.len();
        loop {
            let index = number.wrapping_sub(self.first) as usize;
            // What was before is older, if it is there at all.
            let (written, before) = self.queue.get(index).filter(|_| index < newer)?;
            if (written.offset, written.len) == (offset, len) {
                return self.queue.get_mut(index).map(|(written, _)| written);
            }
            (number, newer) = (*before, index);
        }
    }

    fn push(&mut self, written: Written) {
        let number = self.first.wrapping_add(self.queue.len() as Number);
        let Some(last) = self.last.get_mut((written.offset / WORD) as usize) else { return };
        let before = std::mem::replace(last, number);
        self.queue.push_back((written, before));
    }
}

/// A write that the device has not seen yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written {
    /// Offset in the block.
    pub(crate) offset: u64,
    /// The bytes that were written, as a little-endian number.
    pub(crate) value: u64,
    /// How many, 1 to 8.
    pub(crate) len: u8,
}

impl Registers {
    /// Registers that are all zero and writable; `len` is rounded up to whole words, at most 16 MiB.
    pub fn new(len: Bytes) -> Self {
        let words = len.as_u64().min(1 << 24).div_ceil(WORD) as usize;
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            read_only: vec![false; words].into(),
            unseen: Mutex::new(Unseen {
                queue: VecDeque::new(),
                first: 0,
                last: vec![0; words].into(),
                wakers: Vec::new(),
            }),
        }
    }

    /// With the word at `offset` writable by the device alone.
    #[must_use]
    pub fn with(mut self, offset: Bytes, access: Access) -> Self {
        if let Some(read_only) = self.read_only.get_mut((offset.as_u64() / WORD) as usize) {
            *read_only = access == Access::ReadOnly;
        }
        self
    }

    /// How long the block is.
    pub fn len(&self) -> Bytes {
        Bytes::new(self.words.len() as u64 * WORD)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The device's own view of the word at `offset`, rounded down to a word; zero past the end.
    pub fn get(&self, offset: Bytes) -> u64 {
        self.words.get((offset.as_u64() / WORD) as usize).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// The lower or upper half of a word, by offset.
    pub fn get_u32(&self, offset: Bytes) -> u32 {
        (self.get(offset) >> (offset.as_u64() / 4 % 2 * 32)) as u32
    }

    /// Sets the word at `offset` as the device; nobody is told.
    pub fn set(&self, offset: Bytes, value: u64) {
        if let Some(word) = self.words.get((offset.as_u64() / WORD) as usize) {
            word.store(value, Ordering::Release);
        }
    }

    /// Sets half of a word as the device.
    pub fn set_u32(&self, offset: Bytes, value: u32) {
        let shift = offset.as_u64() / 4 % 2 * 32;
        if let Some(word) = self.words.get((offset.as_u64() / WORD) as usize) {
            let merged = |old: u64| old & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
            // The closure never refuses.
            let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(merged(old)));
        }
    }

    /// Reads bytes over the bus, each word once; what lies past the end reads as zeros.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let within = (at % WORD) as usize;
            let len = rest.len().min(WORD as usize - within);
            let (part, later) = rest.split_at_mut(len);
            part.copy_from_slice(&self.get(Bytes::new(at)).to_le_bytes()[within..within + len]);
            at = at.wrapping_add(len as u64);
            rest = later;
        }
    }

    /// Writes bytes over the bus, word by word, and notes what the device has to be told.
    pub(crate) fn write(&self, offset: u64, from: &[u8]) {
        let mut at = offset;
        let mut rest = from;
        while !rest.is_empty() {
            let within = at % WORD;
            let (part, later) = rest.split_at(rest.len().min((WORD - within) as usize));
            self.write_part(at, part);
            at = at.wrapping_add(part.len() as u64);
            rest = later;
        }
    }

    /// Writes bytes of one word.
    fn write_part(&self, at: u64, part: &[u8]) {
        let index = (at / WORD) as usize;
        let (Some(word), Some(false)) = (self.words.get(index), self.read_only.get(index)) else { return };
        let value = part.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        let shift = at % WORD * 8;
        let mask = u64::MAX >> (64 - part.len() * 8);
        let merged = |old: u64| Some(old & !(mask << shift) | value << shift);
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, merged);
        self.tell(Written { offset: at, value, len: part.len() as u8 });
    }

    fn unseen(&self) -> MutexGuard<'_, Unseen> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has every write that is told to the device wake a function too.
    ///
    /// The same block may stand behind several functions, and be put into one machine after another.
    pub(crate) fn wakes(&self, waker: Waker) {
        let mut unseen = self.unseen();
        if !unseen.queue.is_empty() {
            waker.wake();
        }
        unseen.wakers.push(waker);
    }

    /// Notes a write for the device; one that it has not seen yet is replaced.
    fn tell(&self, written: Written) {
        let mut unseen = self.unseen();
        match unseen.find(written.offset, written.len) {
            Some(earlier) => *earlier = written,
            None => unseen.push(written),
        }
        unseen.wakers.iter().for_each(Waker::wake);
    }

    /// The earliest write that the device has not seen.
    pub(crate) fn take_write(&self) -> Option<Written> {
        let mut unseen = self.unseen();
        let (written, _) = unseen.queue.pop_front()?;
        unseen.first = unseen.first.wrapping_add(1);
        Some(written)
    }

    /// Whether there is one.
    pub(crate) fn has_writes(&self) -> bool {
        !self.unseen().queue.is_empty()
    }

    /// An AtomicOp over the bus on an aligned word or half word; the value that stood there before.
    pub(crate) fn atomic(&self, offset: u64, atomic: crate::wire::Atomic) -> u64 {
        let len = atomic.len().as_u64();
        let index = (offset / WORD) as usize;
        let (shift, mask) = (offset % WORD * 8, u64::MAX >> (64 - len * 8));
        let (Some(word), Some(false)) = (self.words.get(index), self.read_only.get(index)) else {
            return self.get(Bytes::new(offset)) >> shift & mask;
        };
        let change = |old: u64| {
            let new = atomic.apply(old >> shift & mask);
            Some(old & !(mask << shift) | (new & mask) << shift)
        };
        let old = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, change).unwrap_or_else(|old| old);
        let old = old >> shift & mask;
        self.tell(Written { offset, value: atomic.apply(old) & mask, len: len as u8 });
        old
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Atomic, Operand};

    #[test]
    fn a_write_is_read_at_once_and_told_in_order() {
        let registers = Registers::new(Bytes::new(0x20));
        registers.write(0x10, &5_u32.to_le_bytes());
        registers.write(0x04, &7_u32.to_le_bytes());
        assert_eq!((registers.get_u32(Bytes::new(0x10)), registers.get(Bytes::ZERO)), (5, 7 << 32));
        assert_eq!(registers.take_write().map(|written| (written.offset, written.value)), Some((0x10, 5)));
        assert_eq!(registers.take_write().map(|written| (written.offset, written.value)), Some((4, 7)));
        assert!(!registers.has_writes());
    }

    #[test]
    fn a_doorbell_that_rings_twice_is_told_once_with_its_last_value() {
        let registers = Registers::new(Bytes::new(8));
        for value in 1..=1000_u32 {
            registers.write(0, &value.to_le_bytes());
        }
        assert_eq!(registers.take_write().map(|written| written.value), Some(1000));
        assert_eq!(registers.take_write(), None);
    }

    /// A block of 16 MiB that is written from end to end is told in order, and again with its last values.
    #[test]
    fn each_of_many_registers_is_told_once_at_the_place_of_its_first_write() {
        const WORDS: u64 = 1 << 16;
        let registers = Registers::new(Bytes::new(WORDS * 8));
        for round in 1..=2_u64 {
            for word in 0..WORDS {
                registers.write((WORDS - 1 - word) * 8, &(word * round).to_le_bytes());
            }
        }
        for word in 0..WORDS {
            let told = registers.take_write().map(|written| (written.offset, written.value, written.len));
            assert_eq!(told, Some(((WORDS - 1 - word) * 8, word * 2, 8)));
        }
        assert!(!registers.has_writes());
    }

    /// Writes of all offsets and lengths come and go, and numbers begin again meanwhile.
    #[test]
    fn what_is_told_is_what_a_plain_list_would_tell() {
        let registers = Registers::new(Bytes::new(32));
        registers.unseen().first = Number::MAX - 100;
        let mut model: Vec<Written> = Vec::new();
        let mut random = fastrand::Rng::with_seed(9);
        for value in 0..20_000_u64 {
            if random.u8(..3) > 0 {
                let offset = random.u64(..32);
                let len = random.u64(1..=WORD - offset % WORD) as u8;
                let value = value & u64::MAX >> (64 - u32::from(len) * 8);
                registers.write(offset, &value.to_le_bytes()[..usize::from(len)]);
                let written = Written { offset, value, len };
                match model.iter_mut().find(|earlier| (earlier.offset, earlier.len) == (offset, len)) {
                    Some(earlier) => *earlier = written,
                    None => model.push(written),
                }
            } else {
                let told = (!model.is_empty()).then(|| model.remove(0));
                assert_eq!(registers.take_write(), told);
            }
            assert_eq!(registers.unseen().queue.len(), model.len());
        }
    }

    #[test]
    fn what_was_written_before_a_machine_had_the_registers_wakes_its_function() {
        use crate::device::awake::Awake;
        let (registers, awake) = (Registers::new(Bytes::new(8)), Awake::new(2));
        registers.wakes(Waker::new(&awake, 0));
        assert_eq!(awake.len(), 0);
        registers.write(0, &[1]);
        registers.wakes(Waker::new(&awake, 1));
        assert_eq!((awake.at(0), awake.at(1)), (Some(0), Some(1)));
    }

    #[test]
    fn what_only_the_device_writes_others_cannot() {
        let registers = Registers::new(Bytes::new(16)).with(Bytes::new(8), Access::ReadOnly);
        registers.write(0, &[0xff; 16]);
        assert_eq!((registers.get(Bytes::ZERO), registers.get(Bytes::new(8))), (u64::MAX, 0));
        registers.set(Bytes::new(8), 3);
        assert_eq!(registers.get(Bytes::new(8)), 3);
    }

    #[test]
    fn accesses_past_the_end_reach_nothing() {
        let registers = Registers::new(Bytes::new(8));
        registers.write(6, &[1, 2, 3, 4]);
        let mut bytes = [9; 6];
        registers.read(6, &mut bytes);
        assert_eq!(bytes, [1, 2, 0, 0, 0, 0]);
        registers.write(u64::MAX - 7, &[1]);
    }

    /// A counter that is written word by word is never seen half old and half new.
    #[test]
    fn a_word_is_read_as_it_was_at_one_moment() {
        let registers = Registers::new(Bytes::new(8));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for value in 0..20_000_u64 {
                    registers.set(Bytes::ZERO, value << 32 | value);
                }
            });
            while !writer.is_finished() {
                let mut bytes = [0; 8];
                registers.read(0, &mut bytes);
                let value = u64::from_le_bytes(bytes);
                assert_eq!(value >> 32, value & 0xffff_ffff);
            }
        });
    }

    #[test]
    fn atomics_that_nobody_looked_at_are_told_once_and_change_nothing_of_the_devices_own() {
        let registers = Registers::new(Bytes::new(16)).with(Bytes::new(8), Access::ReadOnly);
        for _ in 0..1000 {
            registers.atomic(0, Atomic::FetchAdd(Operand::Double(1)));
        }
        assert_eq!(registers.take_write().map(|written| written.value), Some(1000));
        assert_eq!(registers.take_write(), None);
        registers.set(Bytes::new(8), 5 << 32);
        assert_eq!(registers.atomic(12, Atomic::Swap(Operand::Word(1))), 5);
        assert_eq!((registers.get(Bytes::new(8)), registers.has_writes()), (5 << 32, false));
    }

    #[test]
    fn an_atomic_changes_its_half_alone() {
        let registers = Registers::new(Bytes::new(8));
        registers.set(Bytes::ZERO, 0x1_ffff_ffff);
        assert_eq!(registers.atomic(0, Atomic::FetchAdd(Operand::Word(1))), 0xffff_ffff);
        assert_eq!(registers.get(Bytes::ZERO), 0x1_0000_0000);
    }
}
