//! Sessions about a shared buffer with a peer that says anything at any time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::sharing;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    _ = sharing::session(data);
});
