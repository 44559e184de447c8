//! Writing ACS control registers.

use super::ChangeError;
use crate::pcie::Fact;
use crate::pcie::acs::{self, Acs, AcsBits, AcsRegisters};
use crate::route::{Gate, Reason};
use crate::topology::FunctionInfo;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The bits by name, such as `RR, CR`.
pub(crate) fn words(bits: AcsBits) -> String {
    let words: Vec<&str> = bits.iter_names().map(|(word, _)| word).collect();
    if words.is_empty() { format!("{:#x}", bits.bits()) } else { words.join(", ") }
}

/// Writes one register.
pub(super) fn write(
    info: &mut FunctionInfo,
    clear: AcsBits,
    set: AcsBits,
    assumed: &mut Vec<Reason>,
) -> Result<(), ChangeError> {
    let function = info.address;
    if clear.intersects(set) {
        return Err(ChangeError::BothWays { function, bits: clear & set });
    }
    let misread = acs::linux_reads_wrong_word(info.registers.id, info.registers.port_type);
    match &mut info.registers.acs {
        Acs::Absent(_) => return Err(ChangeError::NoAcs { function }),
        Acs::Unknown(_) if clear.contains(AcsBits::REDIRECT) && set.is_empty() => {
            info.registers.acs = all_redirects_cleared();
            assumed.push(note(
                info,
                "its ACS was not read; RR, CR and EC are clear after this, or it has none of them, and its other bits \
                 are taken to be clear",
            ));
        }
        Acs::Unknown(_) => assumed.push(note(
            info,
            "its ACS was not read, and stays unknown: only clearing RR, CR and EC together settles whether it redirects",
        )),
        Acs::Present(registers) => {
            let capability = registers.capability;
            if !capability.contains(set) {
                return Err(ChangeError::NotOffered { function, bits: set - capability, capability });
            }
            let wired = registers.control.known().map_or(AcsBits::empty(), |control| (control & clear) - capability);
            if !wired.is_empty() {
                return Err(ChangeError::HardWired { function, bits: wired, capability });
            }
            put(registers, misread, |control| (control - clear) | set);
            if misread {
                assumed.push(note(
                    info,
                    "Linux reads another word than the register that the hardware obeys; the word it reads stays as it is",
                ));
            }
        }
    }
    Ok(())
}

/// Gives the register that the hardware obeys a new word, and Linux's reading of it too
/// where that is the same register.
pub(super) fn put(registers: &mut AcsRegisters, misread: bool, word: impl Fn(AcsBits) -> AcsBits) {
    registers.control = registers.control.map(&word);
    if let (false, Fact::Known(control)) = (misread, registers.control) {
        registers.control_read_by_linux = control;
    }
}

/// A register of which only that nothing redirects is known.
pub(super) fn all_redirects_cleared() -> Acs {
    Acs::Present(AcsRegisters::standard(None, AcsBits::REDIRECT, AcsBits::empty(), Vec::new()))
}

pub(super) fn note(info: &FunctionInfo, evidence: &str) -> Reason {
    Reason { gate: Gate::Assumed, object: info.address.to_string(), evidence: evidence.into(), fix: None }
}
