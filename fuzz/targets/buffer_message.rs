//! Messages about a shared buffer, as another process sends them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::sharing;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    _ = sharing::message(data);
});
