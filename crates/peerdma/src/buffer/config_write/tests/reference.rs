//! A function that is written to byte by byte, with a mask for each, and looked at before and after.

use super::super::{Change, Register, Target};
use crate::addr::{BusAddr, Bytes};
use crate::pcie::config::{ConfigBytes, ConfigSize};
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Address, logarithm of the size, whether it takes 64 bits.
type Bar = Option<(u64, u32, bool)>;

/// What a function is like.
#[derive(Clone, Debug)]
pub(super) struct Function {
    pub(super) is_virtual: bool,
    pub(super) is_bridge: bool,
    pub(super) decoding: bool,
    pub(super) power: u8,
    pub(super) has_d1: bool,
    pub(super) has_d2: bool,
    pub(super) can_reset: bool,
    pub(super) can_reset_advanced: bool,
    pub(super) bus_reset: bool,
    /// Each at its first register: of a device the first, third and fifth, of a bridge the first.
    pub(super) bars: [Bar; 3],
    pub(super) rom: Bar,
    pub(super) power_at: u16,
    pub(super) express_at: u16,
    pub(super) advanced_at: u16,
}

/// What decides about memory.
#[derive(PartialEq, Clone, Copy)]
struct Looks {
    decoding: bool,
    power: u8,
    bus_reset: bool,
    bars: [u64; 3],
    rom: u64,
}

impl Function {
    pub(super) fn plain() -> Self {
        Self {
            is_virtual: false,
            is_bridge: false,
            decoding: false,
            power: 0,
            has_d1: false,
            has_d2: false,
            can_reset: false,
            can_reset_advanced: false,
            bus_reset: false,
            bars: [None; 3],
            rom: None,
            power_at: 0x40,
            express_at: 0x60,
            advanced_at: 0xc0,
        }
    }

    fn rom_at(&self) -> usize {
        if self.is_bridge { 0x38 } else { 0x30 }
    }

    fn bars(&self) -> impl Iterator<Item = (usize, (u64, u32, bool))> {
        let count = if self.is_bridge { 1 } else { 3 };
        self.bars.into_iter().take(count).enumerate().filter_map(|(nth, bar)| Some((nth, bar?)))
    }

    /// Its registers, and which of their bits can be written.
    fn image(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut bytes, mut mask) = (vec![0u8; 256], vec![0u8; 256]);
        let mut put = |at: usize, value: &[u8], writable: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            mask[at..at + writable.len()].copy_from_slice(writable);
        };
        put(0x04, &[u8::from(self.decoding) << 1, 0, 0x10, 0], &[0x47, 0x05]);
        put(0x0e, &[u8::from(self.is_bridge)], &[]);
        put(0x34, &[self.power_at as u8], &[]);
        for (nth, (address, size_log2, wide)) in self.bars() {
            let writable = !((1u64 << size_log2) - 1);
            let length = if wide { 8 } else { 4 };
            let value = address & writable | if wide { 0xc } else { 0 };
            put(0x10 + 8 * nth, &value.to_le_bytes()[..length], &writable.to_le_bytes()[..length]);
        }
        if let Some((address, size_log2, _)) = self.rom {
            let writable = !((1u32 << size_log2) - 1) | 1;
            put(self.rom_at(), &(address as u32 & writable).to_le_bytes(), &writable.to_le_bytes());
        }
        put(0x3c, &[0xff], &[0xff]);
        if self.is_bridge {
            put(0x3e, &[u8::from(self.bus_reset) << 6, 0], &[0x5b, 0x0f]);
        }
        let supported = u8::from(self.has_d1) << 1 | u8::from(self.has_d2) << 2;
        put(
            self.power_at.into(),
            &[0x01, self.express_at as u8, 0x03, supported, self.power],
            &[0, 0, 0, 0, 0x03, 0x01],
        );
        let mut express = [0u8; 10];
        (express[0], express[1], express[7]) = (0x10, self.advanced_at as u8, u8::from(self.can_reset) << 4);
        put(self.express_at.into(), &express, &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0x7f]);
        put(self.advanced_at.into(), &[0x13, 0, 6, 1 | u8::from(self.can_reset_advanced) << 1, 0, 0], &[]);
        (bytes, mask)
    }

    pub(super) fn config(&self) -> ConfigBytes {
        ConfigBytes::new(self.image().0, ConfigSize::Unknown)
    }

    pub(super) fn target<'a>(&self, config: &'a ConfigBytes) -> Target<'a, ConfigBytes> {
        let mut bars = [Some(Bytes::new(0)); 6];
        for (nth, (_, size_log2, _)) in self.bars() {
            bars[2 * nth] = Some(Bytes::new(1 << size_log2));
        }
        let rom = Some(Bytes::new(self.rom.map_or(0, |(_, size_log2, _)| 1 << size_log2)));
        Target { config, is_virtual: self.is_virtual, bars, rom }
    }

    fn looks(&self, bytes: &[u8]) -> Looks {
        let word = |at: usize, length: usize| {
            bytes[at..at + length].iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte))
        };
        let mut bars = [0; 3];
        for (nth, (_, size_log2, wide)) in self.bars() {
            bars[nth] = word(0x10 + 8 * nth, if wide { 8 } else { 4 }) >> size_log2 << size_log2;
        }
        Looks {
            decoding: bytes[0x04] & 2 != 0,
            power: bytes[usize::from(self.power_at) + 4] & 3,
            bus_reset: self.is_bridge && bytes[0x3e] & 0x40 != 0,
            bars,
            rom: self.rom.map_or(0, |(_, size_log2, _)| word(self.rom_at(), 4) >> size_log2 << size_log2),
        }
    }

    /// What is different once it has been written to.
    pub(super) fn after(&self, offset: u16, written: &[u8]) -> Vec<Change> {
        let (bytes, mask) = self.image();
        let mut later = bytes.clone();
        let places = usize::from(offset)..usize::from(offset) + written.len();
        for (at, &byte) in places.clone().zip(written).filter(|(at, _)| *at < bytes.len()) {
            later[at] = later[at] & !mask[at] | byte & mask[at];
        }
        let (old, mut new) = (self.looks(&bytes), self.looks(&later));
        if (new.power == 1 && !self.has_d1) || (new.power == 2 && !self.has_d2) {
            new.power = old.power;
        }

        let mut changes = Vec::new();
        match (old.decoding, new.decoding) {
            (true, false) if !self.is_virtual => changes.push(Change::DecodeOff),
            (false, true) if !self.is_virtual => changes.push(Change::DecodeOn),
            _ => {}
        }
        match (old.power, new.power) {
            (0, 1..) => changes.push(Change::PowerDown),
            (1.., 0) => changes.push(Change::PowerUp),
            _ => {}
        }
        let sets = |at: u16, bit: u8| {
            let at = usize::from(at);
            places.contains(&at) && written[at - usize::from(offset)] & bit != 0
        };
        if (self.can_reset && sets(self.express_at + 9, 0x80))
            || (self.can_reset_advanced && sets(self.advanced_at + 4, 1))
        {
            changes.push(Change::FunctionReset);
        }
        // All of what is written into the register is ones, while nothing is decoded.
        let sizes = |at: usize, length: usize| {
            let mut inside = places.clone().zip(written).filter(|(place, _)| (at..at + length).contains(place));
            !old.decoding && inside.all(|(_, byte)| *byte == 0xff)
        };
        for (nth, (_, _, wide)) in self.bars() {
            if old.bars[nth] != new.bars[nth] && !sizes(0x10 + 8 * nth, if wide { 8 } else { 4 }) {
                let (from, to) = (BusAddr::new(old.bars[nth]), BusAddr::new(new.bars[nth]));
                changes.push(Change::BarMove { register: Register::Bar(2 * nth as u8), from, to });
            }
        }
        if old.rom != new.rom && !sizes(self.rom_at(), 4) {
            let (from, to) = (BusAddr::new(old.rom), BusAddr::new(new.rom));
            changes.push(Change::BarMove { register: Register::Rom, from, to });
        }
        match (old.bus_reset, new.bus_reset) {
            (false, true) => changes.push(Change::HotReset),
            (true, false) => changes.push(Change::HotResetOver),
            _ => {}
        }
        changes
    }
}

impl Arbitrary for Function {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        let bar = || prop::option::of((any::<u64>(), 4u32..31, any::<bool>()));
        let rom = prop::option::of((any::<u64>(), 11u32..24, Just(false)));
        let places = prop::sample::select(vec![[0x40u16, 0x60, 0xc0], [0xf0, 0x50, 0x44], [0x80, 0xa0, 0x40]]);
        (any::<[bool; 8]>(), 0u8..4, [bar(), bar(), bar()], rom, places)
            .prop_map(|(flags, power, bars, rom, [power_at, express_at, advanced_at])| {
                let [is_virtual, is_bridge, decoding, has_d1, has_d2, can_reset, can_reset_advanced, bus_reset] = flags;
                Self {
                    is_virtual,
                    is_bridge,
                    decoding,
                    power,
                    has_d1,
                    has_d2,
                    can_reset,
                    can_reset_advanced,
                    bus_reset,
                    bars,
                    rom,
                    power_at,
                    express_at,
                    advanced_at,
                }
            })
            .boxed()
    }
}
