//! The registers that decide about memory, before a write and after it.

use super::{Change, ConfigWrite, Register, Target, Unread};
use crate::addr::{BusAddr, Bytes};
use crate::pcie::caps::{self, Lookup, standard};
use crate::pcie::config::{ConfigSize, ConfigSpace};
use alloc::vec::Vec;

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u8 = 1 << 1;
const HEADER_TYPE: u16 = 0x0e;
const BARS: u16 = 0x10;
const BRIDGE_CONTROL: u16 = 0x3e;
const SECONDARY_BUS_RESET: u8 = 1 << 6;
/// Where capabilities may lie.
const CAPABILITIES: core::ops::Range<u16> = 0x40..0x100;

/// Registers as a write leaves them, were all of its bits writable.
struct Written<'a, C> {
    config: &'a C,
    write: ConfigWrite<'a>,
}

impl<C: ConfigSpace> ConfigSpace for Written<'_, C> {
    fn byte(&self, offset: u16) -> Option<u8> {
        self.write.byte(offset).or_else(|| self.config.byte(offset))
    }

    fn size(&self) -> ConfigSize {
        self.config.size()
    }
}

/// Whether memory decoding is on.
pub(super) fn decoding(config: &impl ConfigSpace) -> Option<bool> {
    Some(config.byte(COMMAND)? & COMMAND_MEMORY != 0)
}

/// Which power state the function is in, D0 without a capability that tells.
pub(super) fn power(config: &impl ConfigSpace) -> Option<u8> {
    match caps::standard_list(config).find(standard::POWER_MANAGEMENT) {
        Lookup::At(at) => config.byte(at + 4).map(|byte| byte & 3),
        Lookup::Absent => Some(0),
        Lookup::Cut(_) => None,
    }
}

impl<'a> ConfigWrite<'a> {
    /// The byte that it writes there.
    fn byte(&self, offset: u16) -> Option<u8> {
        self.bytes.get(usize::from(offset.checked_sub(self.offset)?)).copied()
    }

    fn touches(&self, registers: core::ops::Range<u16>) -> bool {
        let end = self.offset + self.bytes.len() as u16;
        self.offset < registers.end && registers.start < end
    }

    fn written<'b, C>(&'b self, config: &'b C) -> Written<'b, C> {
        Written { config, write: *self }
    }

    pub(super) fn decoding<C: ConfigSpace>(&self, target: &Target<'_, C>, changes: &mut Vec<Change>) {
        let Some(byte) = self.byte(COMMAND).filter(|_| !target.is_virtual) else { return };
        match (decoding(target.config), byte & COMMAND_MEMORY != 0) {
            (None, _) => changes.push(Change::Unknown(Unread::Decoding)),
            (Some(true), false) => changes.push(Change::DecodeOff),
            (Some(false), true) => changes.push(Change::DecodeOn),
            _ => {}
        }
    }

    pub(super) fn power<C: ConfigSpace>(&self, target: &Target<'_, C>, changes: &mut Vec<Change>) {
        let at = match caps::standard_list(target.config).find(standard::POWER_MANAGEMENT) {
            Lookup::At(at) => at,
            Lookup::Absent => return,
            // It may lie anywhere among the capabilities.
            Lookup::Cut(_) if self.touches(CAPABILITIES) => return changes.push(Change::Unknown(Unread::Power)),
            Lookup::Cut(_) => return,
        };
        let Some(to) = self.byte(at + 4).map(|byte| byte & 3) else { return };
        // A state that the function does not have is not entered (PCIe 6.0 §7.5.2.2).
        let supported = match to {
            1 | 2 => target.config.byte(at + 3).map(|byte| byte & 1 << to != 0),
            _ => Some(true),
        };
        match (target.config.byte(at + 4).map(|byte| byte & 3), supported) {
            (_, Some(false)) => {}
            (Some(from), _) if from == to => {}
            (None, _) | (Some(_), None) => changes.push(Change::Unknown(Unread::Power)),
            (Some(0), Some(true)) => changes.push(Change::PowerDown),
            (Some(_), Some(true)) if to == 0 => changes.push(Change::PowerUp),
            // From one state in which memory does not answer to another.
            _ => {}
        }
    }

    pub(super) fn function_reset<C: ConfigSpace>(&self, target: &Target<'_, C>, changes: &mut Vec<Change>) {
        let list = caps::standard_list(target.config);
        // Device capabilities bit 28 says that device control bit 15 resets (PCIe 6.0 §7.5.3.3, §7.5.3.4);
        // bit 1 of the AF capabilities that bit 0 of the AF control does (PCI, Advanced Capabilities ECN).
        let ways =
            [(standard::EXPRESS, (7, 1u8 << 4), (9, 1u8 << 7)), (standard::ADVANCED_FEATURES, (3, 1 << 1), (4, 1))];
        let found = ways.map(|(id, (able, can), (control, starts))| match list.find(id) {
            Lookup::At(at) => match self.byte(at + control) {
                Some(byte) if byte & starts != 0 => target.config.byte(at + able).map(|byte| byte & can != 0),
                _ => Some(false),
            },
            Lookup::Absent => Some(false),
            Lookup::Cut(_) if self.touches(CAPABILITIES) => None,
            Lookup::Cut(_) => Some(false),
        });
        if found.contains(&Some(true)) {
            changes.push(Change::FunctionReset);
        } else if found.contains(&None) {
            changes.push(Change::Unknown(Unread::FunctionReset));
        }
    }

    /// BARs, the expansion ROM, and a bridge's control, which lie where the type of header says.
    pub(super) fn header<C: ConfigSpace>(&self, target: &Target<'_, C>, changes: &mut Vec<Change>) {
        if !self.touches(BARS..0x40) {
            return;
        }
        let (count, rom) = match target.config.byte(HEADER_TYPE).map(|byte| byte & 0x7f) {
            Some(0) => (6, 0x30),
            Some(1) => (2, 0x38),
            _ => return changes.push(Change::Unknown(Unread::Header)),
        };
        self.bars(target, count, changes);
        if self.touches(rom..rom + 4) {
            let at = Place { register: Register::Rom, at: rom, registers: 1, fixed: 0x7ff };
            changes.extend(self.moves(target, at, target.rom));
        }
        if count == 2
            && let Some(byte) = self.byte(BRIDGE_CONTROL)
        {
            let before = target.config.byte(BRIDGE_CONTROL).map(|byte| byte & SECONDARY_BUS_RESET != 0);
            match (before, byte & SECONDARY_BUS_RESET != 0) {
                (None, _) => changes.push(Change::Unknown(Unread::BusReset)),
                (Some(false), true) => changes.push(Change::HotReset),
                (Some(true), false) => changes.push(Change::HotResetOver),
                _ => {}
            }
        }
    }

    fn bars<C: ConfigSpace>(&self, target: &Target<'_, C>, count: u8, changes: &mut Vec<Change>) {
        let mut index = 0;
        while index < count {
            let at = BARS + 4 * u16::from(index);
            let register = Register::Bar(index);
            // The lowest bits tell what the register is, and nobody can write them.
            let Some(kind) = target.config.byte(at) else {
                // What follows may be its upper half.
                if self.touches(at..BARS + 4 * u16::from(count)) {
                    changes.push(Change::Unknown(Unread::Address(register)));
                }
                return;
            };
            let registers = if kind & 7 == 4 && index + 1 < count { 2 } else { 1 };
            // An I/O BAR holds no memory.
            if kind & 1 == 0 && self.touches(at..at + 4 * registers) {
                let size = target.bars[usize::from(index)];
                changes.extend(self.moves(target, Place { register, at, registers, fixed: 0xf }, size));
            }
            index += registers as u8;
        }
    }

    /// Whether a register that it touches gets another address.
    fn moves<C: ConfigSpace>(&self, target: &Target<'_, C>, place: Place, size: Option<Bytes>) -> Option<Change> {
        let unknown = Some(Change::Unknown(Unread::Address(place.register)));
        let writable = match size.map(Bytes::as_u64) {
            Some(0) => return None,
            // Bits below the size are not there (PCIe 6.0 §7.5.1.2.1).
            Some(size) if size.is_power_of_two() => !(size - 1) & !place.fixed,
            _ => !place.fixed,
        };
        let (Some(from), Some(to)) = (place.read(target.config), place.read(&self.written(target.config))) else {
            return unknown;
        };
        let (from, to) = (from & writable, to & writable);
        if from == to {
            return None;
        }
        let ones = (place.at..place.at + 4 * place.registers).filter_map(|at| self.byte(at)).all(|byte| byte == 0xff);
        match decoding(target.config) {
            // All ones with decoding off ask for the size.
            Some(false) if ones => return None,
            None if ones => return unknown,
            _ => {}
        }
        // Of a BAR whose size is not known, nobody knows which of its lower bits are there.
        if !size.is_some_and(|size| size.as_u64().is_power_of_two()) {
            return unknown;
        }
        Some(Change::BarMove { register: place.register, from: BusAddr::new(from), to: BusAddr::new(to) })
    }
}

/// Where a BAR lies, as its registers say.
pub(super) fn address<C: ConfigSpace>(target: &Target<'_, C>, wanted: u8) -> Option<u64> {
    let count = match target.config.byte(HEADER_TYPE)? & 0x7f {
        0 => 6,
        1 => 2,
        _ => return None,
    };
    let mut index = 0;
    while index < count {
        let at = BARS + 4 * u16::from(index);
        let kind = target.config.byte(at)?;
        let registers = if kind & 7 == 4 && index + 1 < count { 2 } else { 1 };
        if index == wanted {
            let size = target.bars[usize::from(index)]?.as_u64();
            let place = Place { register: Register::Bar(index), at, registers, fixed: 0xf };
            if kind & 1 == 1 || !size.is_power_of_two() {
                return None;
            }
            return Some(place.read(target.config)? & !(size - 1) & !place.fixed);
        }
        index += registers as u8;
    }
    None
}

/// Where an address lies in the header.
#[derive(Clone, Copy)]
struct Place {
    register: Register,
    at: u16,
    /// One, or two of a 64-bit BAR.
    registers: u16,
    /// Bits that hold something else.
    fixed: u64,
}

impl Place {
    fn read(&self, config: &impl ConfigSpace) -> Option<u64> {
        let low = u64::from(config.dword(self.at)?);
        let high = if self.registers == 2 { config.dword(self.at + 4)? } else { 0 };
        Some(u64::from(high) << 32 | low)
    }
}
