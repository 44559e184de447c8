//! A device that writes into pinned memory while everything happens around it: `O_DIRECT` reads of a real file.

use super::*;
use crate::memory::{Backing, Pages};
use crate::pin::{Pin, Standing};
use crate::sys::disturb::{Disturbed, fork_storm};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What the file holds: each word is a function of its place.
fn word(at: u64) -> u64 {
    at.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7065_6572_646d_6121
}

fn bytes(len: u64) -> Vec<u8> {
    (0..len / 8).flat_map(|at| word(at).to_le_bytes()).collect()
}

/// A file whose reads go from its device to memory; nothing where the file system has no such reads.
fn direct(len: u64) -> Option<(Scratch, OwnedFd)> {
    let file = Scratch::new(&std::env::temp_dir(), &bytes(len));
    file.file.sync_all().unwrap();
    match rustix::fs::open(&file.path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()) {
        Ok(direct) => Some((file, direct)),
        Err(error) => {
            skip("pins-direct", &format!("no direct reads in {} ({error})", std::env::temp_dir().display()));
            None
        }
    }
}

/// Reads all of the file into the pinned memory, and says how the bytes there are wrong, as the slot sees them.
fn read_and_check(pin: &Pin, file: &OwnedFd, len: u64) {
    assert_eq!(pin.read_from(file, Bytes::ZERO, Bytes::ZERO, Bytes::new(len)).unwrap(), Bytes::new(len));
    let out = rustix::fs::memfd_create("seen", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(pin.write_to(&out, Bytes::ZERO, Bytes::ZERO, Bytes::new(len)).unwrap(), Bytes::new(len));
    let mut seen = vec![0; len as usize];
    assert_eq!(rustix::io::pread(&out, &mut seen, 0).unwrap(), seen.len());
    assert!(seen == bytes(len), "the pinned pages hold what the device wrote");
}

/// How long the churn takes; longer where somebody asks for it.
fn time() -> Duration {
    let asked = std::env::var("PEERDMA_PINS_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(2))
}

#[test]
fn direct_reads_land_in_pinned_pages_while_other_threads_unmap_discard_and_fork() {
    let len = 64 * page();
    let Some((_kept, file)) = direct(len) else { return };
    let end = Instant::now() + time();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for pinner in both_kinds() {
            let (file, over) = (&file, &over);
            // Memory that stays: what the CPU sees is what the device wrote.
            let (owned, other) = (pinner.clone(), pinner.clone());
            scope.spawn(move || {
                let memory = Arc::new(Pages::backed(Backing::Private, Bytes::new(len)).unwrap());
                let pin = owned.pin(Arc::clone(&memory)).unwrap();
                while !over.load(Ordering::Relaxed) {
                    memory.write(Bytes::ZERO, &vec![0xee; len as usize]).unwrap();
                    read_and_check(&pin, file, len);
                    let mut seen = vec![0; len as usize];
                    memory.read(Bytes::ZERO, &mut seen).unwrap();
                    assert!(seen == bytes(len), "the CPU sees it at the address");
                }
            });
            // Memory that is discarded, replaced and moved under the pin: the device's bytes are in the pinned pages,
            // and in nothing that came to lie at their addresses.
            scope.spawn(move || {
                let mut turn = 0_u64;
                while !over.load(Ordering::Relaxed) {
                    let mut memory = Disturbed::anonymous(Bytes::new(len), true);
                    let pin = other.pin_foreign(memory.range().start(), Bytes::new(len)).unwrap();
                    turn += 1;
                    std::thread::scope(|inner| {
                        let reads = inner.spawn(|| read_and_check(&pin, file, len));
                        match turn % 3 {
                            0 => memory.discard(memory.range()),
                            1 => memory.replace(memory.range(), true),
                            _ => memory.move_away(),
                        }
                        // Nobody wrote to what is there now but the kernel's zeros, while the device reads and afterwards.
                        let untouched = || {
                            let found = (0..len).step_by(8).find(|&at| turn % 3 != 2 && memory.load(at) != 0);
                            assert_eq!(found, None, "a byte of the device's landed in memory that came later");
                        };
                        untouched();
                        reads.join().unwrap();
                        untouched();
                    });
                    if turn % 3 == 2 {
                        assert_eq!(memory.load(8), bytes(16)[8], "what moved was taken along");
                    } else if let Standing::Live = pin.standing() {
                        unreachable!("the pages were parted from their addresses");
                    }
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                fork_storm(3);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn transfers_take_files_and_refuse_what_may_never_answer() {
    let pinner = Pinner::new().unwrap();
    let pin = pinner.pin(Arc::new(Pages::zeroed(pages(1)).unwrap())).unwrap();
    let (reader, _writer) = std::io::pipe().unwrap();
    let refused = pin.read_from(&reader, Bytes::ZERO, Bytes::ZERO, Bytes::new(8)).unwrap_err();
    assert!(refused.to_string().contains("regular files and block devices"), "{refused}");
    let file = Scratch::new(&std::env::temp_dir(), b"short");
    assert_eq!(pin.read_from(&file.file, Bytes::ZERO, Bytes::ZERO, pages(1)).unwrap(), Bytes::new(5), "its end");
    assert_eq!(pin.read_from(&file.file, Bytes::new(5), Bytes::ZERO, pages(1)).unwrap(), Bytes::ZERO);
    assert!(pin.read_from(&file.file, Bytes::ZERO, pages(1), Bytes::new(1)).is_err(), "past the pin");
}
