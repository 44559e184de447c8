//! ACS registers as a file states them, against what registers can hold.

use super::error::{PlatformError, Source};
use super::number::in_range;
use super::problem::RegisterProblem;
use super::raw;
use peerdma::pcie::acs::{self, Acs, AcsAbsent, AcsBits, AcsRegisters, AcsUnread};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{Fact, PciId};
use toml::Spanned;

/// SV to DT, each of which needs its own capability bit.
const PAIRED: u16 = 0x007f;
/// I/O Request Blocking, the two Memory Target fields and Unclaimed Request Redirect.
const ENHANCED_CONTROL: u16 = 0x1f80;
/// ACS Enhanced Capability, which those need (PCIe 6.0 §7.7.11.2).
const ENHANCED: u16 = 0x0080;

/// Checks what a file says about ACS; nothing said means that there is none.
pub(super) fn registers(
    source: Source<'_>,
    raw: Option<&Spanned<raw::Acs>>,
    id: Option<PciId>,
    port_type: Option<PortType>,
) -> Result<Acs, PlatformError> {
    let raw = match raw.map(Spanned::get_ref) {
        None | Some(raw::Acs::None) => return Ok(Acs::Absent(AcsAbsent::Declared)),
        Some(raw::Acs::Unknown) => return Ok(Acs::Unknown(AcsUnread::Declared)),
        Some(raw::Acs::Registers(registers)) => registers,
    };
    let capability: u16 = in_range(source, "acs.cap", (0, 0xffff), &raw.cap)?;
    let control: u16 = in_range(source, "acs.ctl", (0, 0xffff), &raw.ctl)?;
    let can_be_set = capability & PAIRED | if capability & ENHANCED != 0 { ENHANCED_CONTROL } else { 0 };
    let extra = control & !can_be_set;
    if extra != 0 {
        return Err(source.error(&raw.ctl.span(), RegisterProblem::AcsControl { control: extra, capability }));
    }
    let egress = match &raw.egress {
        Some(vector) => {
            let value: u64 = in_range(source, "acs.egress", (0, u64::MAX), vector)?;
            egress(capability, value).map_err(|problem| source.error(&vector.span(), problem))?
        }
        None => egress(capability, 0).unwrap_or_default(),
    };
    let (capability, control) = (AcsBits::from_bits_retain(capability), AcsBits::from_bits_retain(control));
    let mut registers = AcsRegisters::standard(None, capability, control, egress);
    if acs::linux_reads_wrong_word(id, Fact::Known(port_type)) {
        // The file states the registers as they are. On these ports each is a double
        // word, and Linux finds the upper half of the capability, which has no bits.
        registers.control_read_by_linux = AcsBits::empty();
    }
    Ok(Acs::Present(registers))
}

/// The vector in the double words that the capability makes it take.
fn egress(capability: u16, vector: u64) -> Result<Vec<u32>, RegisterProblem> {
    if !AcsBits::from_bits_retain(capability).contains(AcsBits::EC) {
        return if vector == 0 { Ok(Vec::new()) } else { Err(RegisterProblem::EgressWithoutControl { capability }) };
    }
    // 0 stands for 256 (PCIe 6.0 §7.7.11.2).
    let bits = match capability >> 8 {
        0 => 256,
        bits => bits,
    };
    if bits < 64 && vector >> bits != 0 {
        return Err(RegisterProblem::EgressTooLong { vector, bits });
    }
    let words = [vector as u32, (vector >> 32) as u32];
    Ok((0..usize::from(bits.div_ceil(32))).map(|n| words.get(n).copied().unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_takes_the_words_that_the_capability_says() {
        assert_eq!(egress(0x0020, 1 << 40).unwrap(), [0, 1 << 8, 0, 0, 0, 0, 0, 0]);
        assert_eq!(egress(0x0420, 0xf).unwrap(), [0xf]);
        assert_eq!(egress(0x2120, 1 << 32).unwrap(), [0, 1]);
        assert_eq!(egress(0x005f, 0).unwrap(), []);
    }

    #[test]
    fn a_vector_needs_egress_control_and_stays_inside_its_size() {
        assert_eq!(egress(0x005f, 1), Err(RegisterProblem::EgressWithoutControl { capability: 0x5f }));
        assert_eq!(egress(0x0420, 0x10), Err(RegisterProblem::EgressTooLong { vector: 0x10, bits: 4 }));
    }
}
