//! Platform files of the emulated machine.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_emu::platform::Platform;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let text = String::from_utf8_lossy(data);
    if let Ok(platform) = Platform::parse(&text, "fuzz.toml") {
        peerdma_fuzz::decide_all(&platform.topology());
    }
});
