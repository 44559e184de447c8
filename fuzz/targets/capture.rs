//! Capture files, compressed or not, perhaps edited by hand.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma::topology::Origin;
use peerdma_linux::assemble;
use peerdma_linux::capture::Capture;
use peerdma_linux::pci_names::PciNames;
use std::sync::LazyLock;

static NAMES: LazyLock<PciNames> = LazyLock::new(PciNames::built_in);

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    let _ = Capture::recognises(data);
    let Ok(capture) = Capture::read(data) else { return };
    if let Ok(builder) = assemble::builder(&capture.snapshot, Origin::Capture, &NAMES) {
        peerdma_fuzz::decide_all(&builder.build());
    }
    // What is redacted and written again can be read again.
    let again = Capture::new(capture.snapshot, false).to_bytes().map(|bytes| Capture::read(&bytes).is_ok());
    assert!(matches!(again, Ok(true)), "a capture that was written is a capture");
});
