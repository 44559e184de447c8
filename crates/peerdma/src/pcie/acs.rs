//! Access Control Services: the bits that send peer requests up to the root.
//!
//! Two readings of the same register matter. The hardware obeys the control
//! word; Linux's `p2pdma` obeys whatever it reads at capability + 6. On some Intel
//! root ports ("SPT", Linux `pci_quirk_intel_spt_pch_acs_match`) the capability and
//! control registers are double words at + 4 and + 8, so Linux reads the upper half
//! of the capability instead. [`AcsRegisters`] keeps both.

use super::caps::{self, Lookup, extended, standard};
use super::config::{ConfigSize, ConfigSpace};
use super::express::PortType;
use super::fact::Fact;
use super::ids::{ClassCode, PciId};
use alloc::vec::Vec;
use core::fmt;

bitflags::bitflags! {
    /// Bits of the ACS capability and control registers (PCIe 6.0 §7.7.11).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
    pub struct AcsBits: u16 {
        /// Source Validation.
        const SV = 0x01;
        /// Translation Blocking.
        const TB = 0x02;
        /// P2P Request Redirect.
        const RR = 0x04;
        /// P2P Completion Redirect.
        const CR = 0x08;
        /// Upstream Forwarding.
        const UF = 0x10;
        /// P2P Egress Control.
        const EC = 0x20;
        /// Direct Translated P2P.
        const DT = 0x40;
        /// Bits of later revisions are kept as they were read.
        const _ = !0;
    }
}

impl AcsBits {
    /// What Linux's `pci_bridge_has_acs_redir` looks at.
    pub const REDIRECT: Self = Self::RR.union(Self::CR).union(Self::EC);

    /// Whether Linux counts this control word as redirecting.
    pub const fn redirects(self) -> bool {
        self.intersects(Self::REDIRECT)
    }
}

impl fmt::Display for AcsBits {
    /// Writes `SV+TB-RR+CR+UF+EC-DT-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, bit) in [
            ("SV", Self::SV),
            ("TB", Self::TB),
            ("RR", Self::RR),
            ("CR", Self::CR),
            ("UF", Self::UF),
            ("EC", Self::EC),
            ("DT", Self::DT),
        ] {
            write!(f, "{name}{}", if self.contains(bit) { '+' } else { '-' })?;
        }
        Ok(())
    }
}

/// The ACS registers of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AcsRegisters {
    /// Offset of the capability, where the input tells it.
    pub offset: Option<u16>,
    /// Capability register.
    pub capability: AcsBits,
    /// Control word that the hardware obeys.
    pub control: Fact<AcsBits>,
    /// Word that Linux reads as the control word, at capability + 6.
    pub control_read_by_linux: AcsBits,
    /// Egress control vector, as far as it was read; empty without EC.
    pub egress: Vec<u32>,
}

impl AcsRegisters {
    /// Registers in their standard places, control and Linux's reading of it being one.
    pub fn standard(offset: Option<u16>, capability: AcsBits, control: AcsBits, egress: Vec<u32>) -> Self {
        Self { offset, capability, control: Fact::Known(control), control_read_by_linux: control, egress }
    }

    /// Whether Linux reads something else than the hardware obeys.
    pub fn linux_misreads(&self) -> bool {
        self.control != Fact::Known(self.control_read_by_linux)
    }
}

/// Why a function is known to have no ACS capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcsAbsent {
    /// The extended list was read to its end.
    WholeListRead,
    /// The function has no capability list at all.
    NoCapabilityList,
    /// Neither PCIe nor PCI-X 266/533, so there is no extended space.
    NotExpress,
    /// The kernel says that configuration space ends at 256 bytes.
    SpaceEndsAt256,
    /// A privileged `lspci -vv` lists the function's capabilities, and this is not among them.
    NotListed,
    /// The platform file says `acs = "none"`.
    Declared,
}

/// Why it is not known whether a function redirects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcsUnread {
    /// The bytes at hand end at this offset before the list does.
    Cut(u16),
    /// The text says `<access denied>`.
    Denied,
    /// The text is of a kind that would not show it.
    TextTooTerse,
    /// The text ends inside this function's block.
    TextEnds,
    /// No register of the function was seen.
    NeverSeen,
    /// Two parts of the input contradict each other.
    Contradicted,
    /// The platform file says `acs = "unknown"`.
    Declared,
}

/// What is known about a function's ACS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Acs {
    /// The function has the capability.
    Present(AcsRegisters),
    /// The function is known not to have it.
    Absent(AcsAbsent),
    /// The input cannot tell.
    Unknown(AcsUnread),
}

impl Acs {
    /// Whether Linux counts the function as redirecting
    /// (`pci_bridge_has_acs_redir`: no capability means no).
    pub fn redirects_as_linux_reads(&self) -> Fact<bool> {
        match self {
            Self::Present(registers) => Fact::Known(registers.control_read_by_linux.redirects()),
            Self::Absent(_) => Fact::Known(false),
            Self::Unknown(_) => Fact::Unknown,
        }
    }

    /// The registers, where present.
    pub fn registers(&self) -> Option<&AcsRegisters> {
        match self {
            Self::Present(registers) => Some(registers),
            _ => None,
        }
    }
}

/// Intel root ports that keep ACS in double words (Linux 7.2 `pci_quirk_intel_spt_pch_acs_match`).
pub fn has_dword_registers(id: PciId) -> bool {
    id.vendor == 0x8086
        && matches!(id.device, 0xa110..=0xa11f | 0xa167..=0xa16a | 0xa290..=0xa29f | 0xa2e7..=0xa2ee | 0x9d10..=0x9d1b)
}

/// Switches whose Source Validation does not work, so Linux takes them not to have it
/// (Linux 7.2 `pci_disable_broken_acs_cap`).
pub fn has_broken_source_validation(id: PciId) -> bool {
    id.vendor == 0x111d && matches!(id.device, 0x80b5 | 0x8090)
}

/// Whether the quirk applies: by ID, and only to root ports, as far as the type is known.
pub fn linux_reads_wrong_word(id: Option<PciId>, port_type: Fact<Option<PortType>>) -> bool {
    id.is_some_and(has_dword_registers) && !matches!(port_type, Fact::Known(kind) if kind != Some(PortType::RootPort))
}

/// Reads the capability out of configuration space.
pub fn decode(config: &impl ConfigSpace, class: Option<ClassCode>, dword_registers: bool) -> Acs {
    // Before the list, not after it: bytes past 256 of a function without extended
    // space are nothing that Linux would look at.
    if let Some(proof) = no_extended_space(config, class) {
        return Acs::Absent(proof);
    }
    match caps::extended_list(config).find(extended::ACS) {
        Lookup::At(offset) => registers_at(config, offset, dword_registers),
        Lookup::Absent => Acs::Absent(AcsAbsent::WholeListRead),
        Lookup::Cut(at) => Acs::Unknown(AcsUnread::Cut(at)),
    }
}

fn registers_at(config: &impl ConfigSpace, offset: u16, dword_registers: bool) -> Acs {
    // Offsets are at most 0xffc here, so the sums below stay within u16.
    let (Some(capability), Some(at_6)) = (config.word(offset + 4), config.word(offset + 6)) else {
        return Acs::Unknown(AcsUnread::Cut(offset + 4));
    };
    let capability = AcsBits::from_bits_retain(capability);
    let control_read_by_linux = AcsBits::from_bits_retain(at_6);
    let control = if dword_registers {
        config.word(offset + 8).map(AcsBits::from_bits_retain).into()
    } else {
        Fact::Known(control_read_by_linux)
    };
    // Vector size in bits, 0 standing for 256 (PCIe 6.0 §7.7.11.2).
    let bits = match capability.bits() >> 8 {
        0 => 256,
        bits => bits,
    };
    let egress = if capability.contains(AcsBits::EC) && !dword_registers {
        (0..bits.div_ceil(32)).map_while(|n| config.dword(offset + 8 + 4 * n)).collect()
    } else {
        Vec::new()
    };
    Acs::Present(AcsRegisters { offset: Some(offset), capability, control, control_read_by_linux, egress })
}

/// Proof that a function has no extended space.
///
/// Linux 7.2 `pci_cfg_space_size`: 4096 bytes for PCIe and for PCI-X 266/533, else
/// 256; but for host bridges it probes whatever their capabilities say.
fn no_extended_space(config: &impl ConfigSpace, class: Option<ClassCode>) -> Option<AcsAbsent> {
    match config.size() {
        ConfigSize::Kernel(256) => return Some(AcsAbsent::SpaceEndsAt256),
        ConfigSize::Kernel(_) => return None,
        ConfigSize::Unknown if class?.is_host_bridge() => return None,
        ConfigSize::Unknown | ConfigSize::Copied256 => {}
    }
    let list = caps::standard_list(config);
    if list.end() == caps::ListEnd::NoList {
        return Some(AcsAbsent::NoCapabilityList);
    }
    if list.find(standard::EXPRESS) != Lookup::Absent {
        return None;
    }
    let fast_pcix = match list.find(standard::PCIX) {
        Lookup::Absent => false,
        // PCI-X status: bits 30 and 31 are 266 and 533 MHz capable (`PCI_X_STATUS`).
        Lookup::At(offset) => config.dword(offset + 4)? & 0xc000_0000 != 0,
        Lookup::Cut(_) => return None,
    };
    (!fast_pcix).then_some(AcsAbsent::NotExpress)
}

#[cfg(test)]
mod tests {
    use super::super::config::ConfigBytes;
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    const HOST_BRIDGE: Option<ClassCode> = Some(ClassCode::new(0x060000));
    const NIC: Option<ClassCode> = Some(ClassCode::new(0x020000));

    fn acs_at_148(control: u16) -> Vec<u8> {
        let mut bytes = vec![0u8; 4096];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40] = 0x10;
        bytes[0x100..0x104].copy_from_slice(&0x1481_0001_u32.to_le_bytes());
        bytes[0x148..0x14c].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        bytes[0x14c..0x14e].copy_from_slice(&0x085f_u16.to_le_bytes());
        bytes[0x14e..0x150].copy_from_slice(&control.to_le_bytes());
        bytes
    }

    fn copied(bytes: Vec<u8>) -> ConfigBytes {
        ConfigBytes::new(bytes, ConfigSize::Unknown)
    }

    #[test]
    fn only_rr_cr_and_ec_count_as_redirecting() {
        for bit in 0..7u16 {
            let acs = decode(&copied(acs_at_148(1 << bit)), NIC, false);
            assert_eq!(acs.redirects_as_linux_reads(), Fact::Known(matches!(bit, 2 | 3 | 5)), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_before_the_control_word_is_unknown_at_every_length() {
        let whole = acs_at_148(0x04);
        for len in 64..0x150 {
            let acs = decode(&copied(whole[..len].to_vec()), NIC, false);
            assert!(matches!(acs, Acs::Unknown(AcsUnread::Cut(_))), "{len}: {acs:?}");
        }
        assert!(matches!(decode(&copied(whole[..0x150].to_vec()), NIC, false), Acs::Present(_)));
    }

    #[test]
    fn spt_ports_show_linux_the_upper_half_of_the_capability() {
        let mut bytes = acs_at_148(0);
        bytes[0x14c..0x150].copy_from_slice(&0x0000_005f_u32.to_le_bytes());
        bytes[0x150..0x154].copy_from_slice(&0x0000_001d_u32.to_le_bytes());
        let acs = decode(&copied(bytes), Some(ClassCode::new(0x060400)), true);
        assert_eq!(acs.redirects_as_linux_reads(), Fact::Known(false));
        let registers = acs.registers().unwrap();
        assert_eq!(registers.control, Fact::Known(AcsBits::from_bits_retain(0x1d)));
        assert!(registers.linux_misreads());
    }

    #[test]
    fn no_capability_list_proves_absence_except_for_host_bridges() {
        let bytes = vec![0u8; 64];
        assert_eq!(decode(&copied(bytes.clone()), NIC, false), Acs::Absent(AcsAbsent::NoCapabilityList));
        assert!(matches!(decode(&copied(bytes.clone()), HOST_BRIDGE, false), Acs::Unknown(_)));
        let sized = ConfigBytes::new(bytes, ConfigSize::Copied256);
        assert_eq!(decode(&sized, HOST_BRIDGE, false), Acs::Absent(AcsAbsent::NoCapabilityList));
    }

    #[test]
    fn a_pcie_function_cut_at_256_stays_unknown_unless_the_kernel_says_it_ends_there() {
        let bytes = acs_at_148(0)[..256].to_vec();
        for size in [ConfigSize::Unknown, ConfigSize::Copied256, ConfigSize::Kernel(4096)] {
            assert!(matches!(decode(&ConfigBytes::new(bytes.clone(), size), NIC, false), Acs::Unknown(_)), "{size:?}");
        }
        let live = ConfigBytes::new(bytes, ConfigSize::Kernel(256));
        assert_eq!(decode(&live, NIC, false), Acs::Absent(AcsAbsent::SpaceEndsAt256));
    }

    #[test]
    fn pcix_has_an_extended_space_only_at_266_and_533() {
        let mut bytes = vec![0u8; 256];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x40;
        bytes[0x40] = 0x07;
        assert_eq!(decode(&copied(bytes.clone()), NIC, false), Acs::Absent(AcsAbsent::NotExpress));
        bytes[0x47] = 0x40;
        assert!(matches!(decode(&copied(bytes), NIC, false), Acs::Unknown(_)));
    }

    #[test]
    fn the_egress_vector_is_as_long_as_the_capability_says() {
        let mut bytes = acs_at_148(0x20);
        bytes[0x14c..0x14e].copy_from_slice(&0x2120_u16.to_le_bytes());
        bytes[0x150] = 0x80;
        let acs = decode(&copied(bytes), NIC, false);
        assert_eq!(acs.registers().unwrap().egress, [0x80, 0]);
    }

    #[test]
    fn bits_are_written_as_lspci_writers_know_them() {
        assert_eq!(AcsBits::from_bits_retain(0x1d).to_string(), "SV+TB-RR+CR+UF+EC-DT-");
    }
}
