//! From the registers that the file states to the fabric's own.
//!
//! What can be written is written, as a kernel does, and read back.

use crate::data::Function;
use peerdma::addr::{BusAddr, Bytes};
use peerdma::pcie::express::{AtomicSizes, PortType};
use peerdma_emu::config::{AcsDescription, BarDescription, Description, Space, Width};

/// The configuration space that the file states.
pub(crate) fn space(function: &Function) -> Space {
    let mut description = match function.port_type {
        Some(field) => Description::express(PortType::from_field(field)),
        None => Description::default(),
    };
    if let Some(express) = &mut description.express {
        let has = |bit: u32| function.device_capabilities_2 >> bit & 1 != 0;
        express.port_number = function.port_number;
        express.atomic_routing = has(6);
        express.atomic_completer = AtomicSizes { of_4_bytes: has(7), of_8_bytes: has(8), of_16_bytes: has(9) };
        // Endpoints may send any AT field; whether the root complex believes it is the case's.
        description.ats = (express.port_type == PortType::Endpoint).then_some(true);
    }
    description.acs = function.acs.map(|[capability, _]| AcsDescription { capability, ..AcsDescription::default() });
    let bar = |&(index, address, size): &(u8, u64, u64)| BarDescription {
        index,
        address: BusAddr::new(0),
        size: Bytes::new(size),
        prefetchable: address >> 32 != 0,
        is_64_bit: address >> 32 != 0,
        resizable: Vec::new(),
    };
    description.bars = function.bars.iter().map(bar).collect();
    let space = Space::new(&description);
    write_header(&space, function);
    write_capabilities(&space, function);
    space
}

fn write_header(space: &Space, function: &Function) {
    write_but(space, 0x04, u32::from(function.command), 0xffff_0000);
    for &(index, address, _) in &function.bars {
        let register = 0x10 + 4 * u16::from(index);
        write_but(space, register, address as u32, 0xf);
        if address >> 32 != 0 {
            write(space, register + 4, (address >> 32) as u32);
        }
    }
    if let Some([primary, secondary, subordinate]) = function.buses {
        write(space, 0x18, u32::from_le_bytes([primary, secondary, subordinate, 0]));
    }
    if let Some([base, limit]) = function.memory {
        write(space, 0x20, u32::from(base) | u32::from(limit) << 16);
    }
    if let Some([base, limit, base_upper, limit_upper]) = function.prefetchable {
        write_but(space, 0x24, base | limit << 16, 0x000f_000f);
        write(space, 0x28, base_upper);
        write(space, 0x2c, limit_upper);
    }
}

fn write_capabilities(space: &Space, function: &Function) {
    if let Some(express) = capability(space, 0x10) {
        // The upper halves are status.
        write_but(space, express + 0x08, u32::from(function.device_control), 0xffff_0000);
        write_but(space, express + 0x28, u32::from(function.device_control_2), 0xffff_0000);
    }
    if let Some([_, control]) = function.acs {
        let acs = extended_capability(space, 0x0d).unwrap();
        assert!(space.write(acs + 6, Width::Two, u32::from(control)) || control == 0, "{}", function.name);
        assert_eq!(space.read(acs + 6, Width::Two), u32::from(control), "{}", function.name);
        for &bit in &function.vector {
            let register = acs + 8 + bit / 32 * 4;
            let word = space.read(register, Width::Four) | 1 << (bit % 32);
            space.write(register, Width::Four, word);
            assert_eq!(space.read(register, Width::Four), word, "{}", function.name);
        }
    }
}

/// Writes a double word, which then reads as it was written.
fn write(space: &Space, register: u16, value: u32) {
    write_but(space, register, value, 0);
}

/// Writes a double word whose `fixed` bits are flags or status and read as they are.
fn write_but(space: &Space, register: u16, value: u32, fixed: u32) {
    space.write(register, Width::Four, value);
    assert_eq!(space.read(register, Width::Four) & !fixed, value & !fixed, "register {register:#x}");
}

/// Where a capability of the standard list lies.
fn capability(space: &Space, id: u32) -> Option<u16> {
    let mut at = space.read(0x34, Width::One) as u16;
    while at != 0 {
        if space.read(at, Width::One) == id {
            return Some(at);
        }
        at = space.read(at + 1, Width::One) as u16;
    }
    None
}

/// Where a capability of the extended list lies.
fn extended_capability(space: &Space, id: u32) -> Option<u16> {
    let mut at = 0x100;
    while at != 0 {
        let header = space.read(at, Width::Four);
        if header & 0xffff == id {
            return Some(at);
        }
        at = (header >> 20) as u16;
    }
    None
}
