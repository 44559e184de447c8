//! Configuration bytes: decoded whole and cut, and placed on both sides of a bridge.
//!
//! Input: a byte that says what is known of the size, two that say where to cut,
//! then configuration space from offset 0.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::Registers;
use peerdma::pcie::{Fact, PciAddr};
use peerdma::topology::{Builder, FunctionInfo, Position};

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let [size, cut_low, cut_high, config @ ..] = data else { return };
    let size = match size % 4 {
        0 => ConfigSize::Unknown,
        1 => ConfigSize::Copied256,
        2 => ConfigSize::Kernel(256),
        _ => ConfigSize::Kernel(4096),
    };
    let cut = usize::from(u16::from_le_bytes([*cut_low, *cut_high])).clamp(64, 4096);
    cut_copies_lose_knowledge_and_nothing_else(config, cut);

    let whole = Registers::decode(&ConfigBytes::new(config.to_vec(), size));
    let copied = Registers::decode(&ConfigBytes::from_copied_file(config.to_vec()));
    let mut builder = Builder::new();
    for (address, position, registers) in [
        ("00:00.0", Position::ByBusNumber, &whole),
        ("00:01.0", Position::ByBusNumber, &copied),
        ("01:00.0", Position::ByBusNumber, &whole),
        ("02:00.0", Position::ByBusNumber, &copied),
    ] {
        let Ok(address) = address.parse::<PciAddr>() else { return };
        let mut function = FunctionInfo::new(address, position);
        function.registers = registers.clone();
        builder.function(function);
    }
    peerdma_fuzz::decide_all(&builder.build());
});

/// What a cut copy tells for sure, the whole tells too.
fn cut_copies_lose_knowledge_and_nothing_else(config: &[u8], cut: usize) {
    if config.len() <= cut {
        return;
    }
    let decode = |bytes: &[u8]| Registers::decode(&ConfigBytes::new(bytes.to_vec(), ConfigSize::Unknown));
    let (whole, part) = (decode(config), decode(&config[..cut]));
    if let Fact::Known(redirects) = part.acs.redirects_as_linux_reads() {
        assert_eq!(whole.acs.redirects_as_linux_reads(), Fact::Known(redirects));
    }
    if let Fact::Known(port_type) = part.port_type {
        assert_eq!(whole.port_type, Fact::Known(port_type));
    }
    assert_eq!((part.id, part.class, part.header), (whole.id, whole.class, whole.header), "all of it lies below 64");
}
