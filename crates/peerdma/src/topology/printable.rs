//! Words out of a stranger's file, made safe to print.
//!
//! A device's name or a group's type may hold escape sequences, which a terminal
//! would obey. The builder is the one gate that every input passes, so it takes
//! control characters out there; no printer has to think of it.

use super::{CpuVendor, FunctionInfo, IommuGroup, Machine};
use alloc::string::String;

/// Replaces control characters.
fn clean(text: &mut String) {
    if text.chars().any(char::is_control) {
        *text = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    }
}

pub(super) fn function(info: &mut FunctionInfo) {
    info.names.iter_mut().chain(&mut info.driver).chain(&mut info.label).for_each(clean);
}

pub(super) fn group(group: &mut IommuGroup) {
    group.kind.iter_mut().chain(group.reserved.iter_mut().map(|region| &mut region.kind)).for_each(clean);
}

pub(super) fn machine(machine: &mut Machine) {
    machine.name.iter_mut().chain(&mut machine.command_line).for_each(clean);
    machine.memory_map.iter_mut().map(|region| &mut region.name).for_each(clean);
    machine.modules.iter_mut().flatten().for_each(clean);
    if let Some(CpuVendor::Other(word)) = machine.cpu.as_mut().map(|cpu| &mut cpu.vendor) {
        clean(word);
    }
}

#[cfg(test)]
mod tests {
    use crate::pcie::PciAddr;
    use crate::topology::{Builder, FunctionInfo, Position};
    use alloc::string::ToString;

    #[test]
    fn escape_sequences_of_a_dump_do_not_reach_a_terminal() {
        let address: PciAddr = "00:00.0".parse().unwrap();
        let mut info = FunctionInfo::new(address, Position::RootBus { bus: 0 });
        info.label = Some("\x1b]0;gone\x07 GPU".to_string());
        info.names = vec!["card\x1b[2J0".to_string()];
        let mut builder = Builder::new();
        builder.function(info);
        builder.machine().command_line = Some("quiet \x1b[31m".to_string());
        let topology = builder.build();
        let info = topology.function(topology.at(address).unwrap()).info();
        assert_eq!(info.label.as_deref(), Some("\u{fffd}]0;gone\u{fffd} GPU"));
        assert!(!info.names[0].contains('\x1b'));
        assert!(!topology.machine().command_line.as_ref().unwrap().contains('\x1b'));
    }
}
