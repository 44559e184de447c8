//! The change at once, by hand.

use super::PortChange;
use crate::pcie::acs;
use crate::topology::Topology;
use alloc::format;
use alloc::string::String;

/// The `setpci` line that changes one port now and leaves its other bits alone.
///
/// Lost at the next reset or boot. IOMMU groups stay as they were formed, and verdicts
/// that drivers asked for stay cached until the target's driver is bound anew.
pub fn setpci(topology: &Topology, port: &PortChange) -> String {
    let function = topology.function(port.function);
    let registers = &function.info().registers;
    // Double words at + 4 and + 8 instead of words at + 4 and + 6.
    let register = match acs::linux_reads_wrong_word(registers.id, registers.port_type) {
        true => "ECAP_ACS+0x8.l",
        false => "ECAP_ACS+0x6.w",
    };
    let mask = port.clear() | port.set();
    format!("setpci -s {} {register}={:x}:{:x}", function.address(), port.set().bits(), mask.bits())
}
