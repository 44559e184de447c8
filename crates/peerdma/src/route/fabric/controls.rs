//! The values that a port's ACS registers may have.
//!
//! One where they were read; several where RR, CR, EC or the vector's bit were not,
//! one for each way of filling them in. The other bits are taken to be clear where
//! they were not read. A function without the capability behaves as if all controls
//! were zero (PCIe 6.0 §6.12.1).

use crate::pcie::Fact;
use crate::pcie::acs::{Acs, AcsBits, AcsRegisters};
use alloc::vec::Vec;

/// One way of filling in what was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Filling {
    /// Controls in force.
    pub(super) controls: AcsBits,
    /// Whether the Enhanced controls exist.
    pub(super) enhanced: bool,
    /// The egress vector's bit for the egress in question.
    pub(super) bit: bool,
}

/// ACS Enhanced Capability, bit 7 of the capability register (PCIe 6.0 §7.7.11.2).
const ENHANCED: AcsBits = AcsBits::from_bits_retain(1 << 7);
/// The controls that only Enhanced has: bits 7 to 12.
const ENHANCED_CONTROLS: AcsBits = AcsBits::from_bits_retain(0x1f80);
/// The seven controls with a capability bit in the same place.
const ORIGINAL: AcsBits = AcsBits::from_bits_retain(0x7f);
/// What a function inside a device may have; SV, TB and UF are for ports (PCIe 6.0 §6.12.1.2).
const OF_FUNCTIONS: AcsBits = AcsBits::RR.union(AcsBits::CR).union(AcsBits::EC).union(AcsBits::DT);

/// All ways of filling in the registers, for an egress of this number (unknown where
/// it was not read, and not asked for where there is none).
pub(super) fn fillings(acs: &Acs, egress: Option<Fact<u32>>) -> Vec<Filling> {
    let none = Filling { controls: AcsBits::empty(), enhanced: false, bit: false };
    match acs {
        Acs::Absent(_) => [none].into(),
        Acs::Unknown(_) => fill(AcsBits::empty(), AcsBits::REDIRECT, false, egress.map(|_| Fact::Unknown)),
        Acs::Present(registers) => {
            let enhanced = registers.capability.contains(ENHANCED);
            let mut existing = registers.capability & ORIGINAL;
            existing.set(ENHANCED_CONTROLS, enhanced);
            let bit = egress.map(|number| vector_bit(registers, number));
            match registers.control {
                Fact::Known(control) => fill(control & existing, AcsBits::empty(), enhanced, bit),
                Fact::Unknown => fill(AcsBits::empty(), AcsBits::REDIRECT & existing, enhanced, bit),
            }
        }
    }
}

/// As [`fillings`], for a function inside a device.
pub(super) fn fillings_of_function(acs: &Acs, egress: Option<Fact<u32>>) -> Vec<Filling> {
    let mut all = fillings(acs, egress);
    for filling in &mut all {
        filling.controls &= OF_FUNCTIONS;
    }
    all
}

/// Whether bits other than RR, CR and EC were not read and are taken to be clear.
pub(super) fn others_are_assumed(acs: &Acs) -> bool {
    match acs {
        Acs::Absent(_) => false,
        Acs::Unknown(_) => true,
        Acs::Present(registers) => registers.control == Fact::Unknown,
    }
}

fn fill(known: AcsBits, open: AcsBits, enhanced: bool, bit: Option<Fact<bool>>) -> Vec<Filling> {
    let mut all = Vec::new();
    for n in 0..8u16 {
        // RR, CR and EC are bits 2, 3 and 5.
        let choice = AcsBits::from_bits_retain((n & 3) << 2 | (n & 4) << 3);
        if !open.contains(choice) {
            continue;
        }
        let controls = known | choice;
        let bits: &[bool] = match bit {
            Some(Fact::Known(true)) => &[true],
            // Without egress control nobody looks at the vector.
            Some(Fact::Unknown) if controls.contains(AcsBits::EC) => &[false, true],
            _ => &[false],
        };
        all.extend(bits.iter().map(|&bit| Filling { controls, enhanced, bit }));
    }
    all
}

/// The vector's bit for the egress of this number; bits past its size read as zero.
fn vector_bit(registers: &AcsRegisters, number: Fact<u32>) -> Fact<bool> {
    // Size in bits, 0 standing for 256 (PCIe 6.0 §7.7.11.2).
    let size = match u32::from(registers.capability.bits() >> 8) {
        0 => 256,
        size => size,
    };
    let word = |n: u32| registers.egress.get((n / 32) as usize);
    match number {
        Fact::Known(n) if n >= size => Fact::Known(false),
        Fact::Known(n) => word(n).map(|word| word & 1 << (n % 32) != 0).into(),
        Fact::Unknown => {
            let clear = (0..size.div_ceil(32)).all(|n| registers.egress.get(n as usize) == Some(&0));
            if clear { Fact::Known(false) } else { Fact::Unknown }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcie::acs::{AcsAbsent, AcsUnread};
    use alloc::vec;

    #[test]
    fn unread_acs_is_every_way_of_filling_in_rr_cr_and_ec_and_nothing_else() {
        let unread = Acs::Unknown(AcsUnread::NeverSeen);
        assert_eq!(fillings(&unread, None).len(), 8);
        // Egress control doubles its four by the vector's bit.
        assert_eq!(fillings(&unread, Some(Fact::Known(2))).len(), 12);
        assert!(fillings(&unread, None).iter().all(|filling| AcsBits::REDIRECT.contains(filling.controls)));
        assert_eq!(fillings(&Acs::Absent(AcsAbsent::WholeListRead), Some(Fact::Unknown)).len(), 1);
    }

    #[test]
    fn a_control_without_its_capability_bit_is_zero() {
        let all = AcsBits::from_bits_retain(0x1fff);
        let acs = |capability| Acs::Present(AcsRegisters::standard(None, capability, all, vec![0; 8]));
        let plain = fillings(&acs(AcsBits::RR | AcsBits::UF), None);
        assert_eq!((plain.len(), plain[0].controls, plain[0].enhanced), (1, AcsBits::RR | AcsBits::UF, false));
        let enhanced = fillings(&acs(ENHANCED), None);
        assert_eq!((enhanced[0].controls, enhanced[0].enhanced), (ENHANCED_CONTROLS, true));
    }

    #[test]
    fn the_vector_is_counted_by_number_and_ends_at_its_size() {
        let capability = AcsBits::from_bits_retain(0x0420);
        let registers = |egress| AcsRegisters::standard(None, capability, AcsBits::EC, egress);
        assert_eq!(vector_bit(&registers(vec![0b100]), Fact::Known(2)), Fact::Known(true));
        assert_eq!(vector_bit(&registers(vec![0xff]), Fact::Known(5)), Fact::Known(false));
        assert_eq!(vector_bit(&registers(vec![]), Fact::Known(2)), Fact::Unknown);
        assert_eq!(vector_bit(&registers(vec![0]), Fact::Unknown), Fact::Known(false));
        assert_eq!(vector_bit(&registers(vec![4]), Fact::Unknown), Fact::Unknown);
    }

    #[test]
    fn a_function_has_no_use_for_the_bits_of_ports() {
        let all = AcsBits::from_bits_retain(0x7f);
        let acs = Acs::Present(AcsRegisters::standard(None, all, all, vec![0; 8]));
        assert_eq!(fillings_of_function(&acs, None)[0].controls, OF_FUNCTIONS);
    }
}
