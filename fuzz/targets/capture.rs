//! Capture files, compressed or not, perhaps edited by hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::readers;
use peerdma_linux::capture::Capture;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let _ = Capture::recognises(data);
    let Some((capture, topology)) = readers::capture(data) else { return };
    peerdma_fuzz::decide_all(&topology);
    // What is redacted and written again can be read again.
    let again = Capture::new(capture.snapshot, false).to_bytes().map(|bytes| Capture::read(&bytes).is_ok());
    assert!(matches!(again, Ok(true)), "a capture that was written is a capture");
});
