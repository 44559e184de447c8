//! ACS of a file's ports and functions, against what QEMU's have.

use super::{Export, Refusal, TwinAcs, Warning};
use crate::vm::topology::place::Place;
use peerdma::pcie::acs::{Acs, AcsBits};
use peerdma::pcie::{Fact, PciAddr};
use peerdma_emu::platform::Port;

/// Capability of QEMU's root ports: SV, TB, RR, CR, UF and DT.
pub(in crate::vm::topology) const ROOT_PORT_CAPABILITY: AcsBits = AcsBits::from_bits_retain(0x005f);

impl Export<'_> {
    /// Whether the root port gets the capability; notes how its control word comes about.
    pub(super) fn root_port_acs(&mut self, port: &Port, place: &Place) -> bool {
        let (name, address) = (port.name.clone(), port.address);
        let (has, twin) = match &port.acs {
            Acs::Absent(_) => (false, TwinAcs::Absent),
            Acs::Unknown(_) => {
                self.warnings.push(Warning::UnknownAcs { name, address });
                (true, TwinAcs::Any)
            }
            Acs::Present(registers) => {
                let control = match registers.control {
                    Fact::Known(control) => control,
                    Fact::Unknown => registers.control_read_by_linux,
                };
                if registers.capability != ROOT_PORT_CAPABILITY {
                    self.refusals.push(Refusal::RootPortCapability { name, address, found: registers.capability });
                } else if registers.linux_misreads() {
                    self.refusals.push(Refusal::MisreadRootPort { name, address });
                } else if control != self.boot_control {
                    let element = format!("{:07b}@0000:{}", control.bits(), on_root_bus(place));
                    self.config_acs.push(element);
                }
                (true, TwinAcs::Control(control))
            }
        };
        self.twin(&port.name, port.address, place, twin, Vec::new());
        has
    }

    /// ACS of anything else, none of which has it in QEMU.
    pub(super) fn other_acs(
        &mut self,
        kind: &'static str,
        name: &str,
        address: PciAddr,
        acs: &Acs,
        device: &'static str,
    ) -> TwinAcs {
        let name = name.to_string();
        match acs {
            Acs::Absent(_) => TwinAcs::Absent,
            Acs::Unknown(_) => {
                self.warnings.push(Warning::UnknownAcs { name, address });
                TwinAcs::Any
            }
            Acs::Present(registers) => {
                let set = match registers.control {
                    Fact::Known(control) => control | registers.control_read_by_linux,
                    Fact::Unknown => registers.control_read_by_linux,
                };
                if set.is_empty() {
                    self.warnings.push(Warning::ClearAcs { name, address, device });
                } else {
                    self.refusals.push(Refusal::Acs { kind, name, address, set, device });
                }
                TwinAcs::Absent
            }
        }
    }
}

/// Address of a function on a root bus, without the domain. Those are the only bus numbers
/// that are known before the boot for sure.
fn on_root_bus(place: &Place) -> String {
    place
        .steps
        .first()
        .map(|at| format!("{:02x}:{:02x}.{}", place.root_bus, at.device(), at.function()))
        .unwrap_or_default()
}

/// Names of the bits that are set: `RR CR`; bits without a name in hexadecimal.
pub(super) fn bit_names(bits: AcsBits) -> String {
    let known: Vec<&str> = bits.iter_names().map(|(name, _)| name).collect();
    let rest = bits.bits() & !0x7f;
    let rest = (rest != 0).then(|| format!("{rest:#06x}"));
    known.into_iter().map(str::to_string).chain(rest).collect::<Vec<_>>().join(" ")
}
