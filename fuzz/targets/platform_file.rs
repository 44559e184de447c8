//! Platform files of the emulated machine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::readers;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    if let Some(topology) = readers::platform_file(data) {
        peerdma_fuzz::decide_all(&topology);
    }
});
