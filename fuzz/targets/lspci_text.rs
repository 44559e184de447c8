//! Text and hex dumps of `lspci`, of any verbosity and damage.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_linux::lspci;
use peerdma_linux::pci_names::PciNames;
use std::sync::LazyLock;

static NAMES: LazyLock<PciNames> = LazyLock::new(PciNames::built_in);

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(dump) = lspci::read(&text, &NAMES) {
        peerdma_fuzz::decide_all(&dump.builder.build());
    }
});
