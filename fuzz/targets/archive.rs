//! Archives of copied sysfs trees.
//!
//! Headers of a tar get their checksums put right first; else every change to a
//! name, a size or a link would be turned away at the door.

#![no_main]

use libfuzzer_sys::fuzz_target;
use peerdma_fuzz::readers;

fuzz_target!(|data: &[u8]| {
    peerdma_fuzz::planted(data);
    for topology in [readers::archive(data), with_checksums(data).and_then(|mended| readers::archive(&mended))] {
        let Some(topology) = topology else { continue };
        peerdma_fuzz::decide_all(&topology);
    }
});

/// The archive with good checksums, if it holds a header with a bad one.
fn with_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let mut mended = data.to_vec();
    for header in mended.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    (mended != data).then_some(mended)
}
