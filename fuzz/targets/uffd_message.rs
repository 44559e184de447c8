//! Messages of userfaultfd, and what a mirror makes of them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::readers;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    _ = readers::uffd_messages(data);
});
