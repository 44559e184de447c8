//! Text and hex dumps of `lspci`, of any verbosity and damage.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::readers;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    if let Some(topology) = readers::lspci_text(data) {
        peerdma_fuzz::decide_all(&topology);
    }
});
