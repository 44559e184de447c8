//! Configuration bytes: decoded whole and cut, and placed on both sides of a bridge.
//!
//! Input: a byte that says what is known of the size, two that say where to cut,
//! then configuration space from offset 0.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma::pcie::Fact;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::Registers;
use peerdma_fuzz::readers::ConfigInput;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let Some(input) = ConfigInput::read(data) else { return };
    cut_copies_lose_knowledge_and_nothing_else(input);
    peerdma_fuzz::decide_all(&input.topology());
});

/// What a cut copy tells for sure, the whole tells too.
fn cut_copies_lose_knowledge_and_nothing_else(input: ConfigInput<'_>) {
    let ConfigInput { cut, config, .. } = input;
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
