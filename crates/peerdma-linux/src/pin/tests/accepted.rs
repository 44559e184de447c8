//! What can be pinned, as the kernel that runs this says.

use super::*;
use crate::memory::{Backing, Pages, huge_page_size};
use crate::sys::disturb::Disturbed;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::ProtFlags;
use std::os::fd::AsFd;
use std::sync::Arc;

const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

#[test]
fn anonymous_memory_and_memfds_are_pinned_private_and_shared() {
    for pinner in both_kinds() {
        for backing in [Backing::Shared, Backing::Private, Backing::Transparent, Backing::Memfd, Backing::MemfdPrivate]
        {
            let memory = Arc::new(Pages::backed(backing, pages(5)).unwrap());
            let pin = pinner.pin(Arc::clone(&memory)).unwrap();
            assert_eq!((pin.range().len(), pin.slots()), (memory.len(), 1), "{backing:?}");
        }
    }
}

#[test]
fn a_base_and_a_length_of_any_alignment_are_pinned() {
    let pinner = Pinner::new().unwrap();
    let memory = Arc::new(Pages::zeroed(pages(4)).unwrap());
    for (offset, len, touched) in [(1, 1, 1), (page() - 1, 2, 2), (7, 2 * page(), 3)] {
        let pin = pinner.pin_part(Arc::clone(&memory), Bytes::new(offset), Bytes::new(len)).unwrap();
        assert_eq!(pinner.pinned(pin.id()).unwrap().charge, pages(touched));
    }
}

#[test]
fn sealed_memfds_files_of_dev_shm_and_private_mappings_of_files_are_pinned() {
    let pinner = Pinner::new().unwrap();
    let sealed = memfd_create("sealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&sealed, page()).unwrap();
    fcntl_add_seals(&sealed, SealFlags::SHRINK | SealFlags::GROW).unwrap();
    let shared = Disturbed::of_file(sealed.as_fd(), pages(1), false, BOTH).unwrap();
    let _pin = pinner.pin_foreign(shared.range().start(), pages(1)).unwrap();
    for (folder, private) in [(std::path::PathBuf::from("/dev/shm"), false), (std::env::temp_dir(), true)] {
        let file = Scratch::new(&folder, &vec![7; page() as usize]);
        let mapping = Disturbed::of_file(file.file.as_fd(), pages(1), private, BOTH).unwrap();
        let pin = pinner.pin_foreign(mapping.range().start(), pages(1));
        assert!(pin.is_ok(), "{}: {pin:?}", folder.display());
    }
}

#[test]
fn one_pin_reaches_across_several_mappings() {
    let pinner = Pinner::new().unwrap();
    let memory = Disturbed::anonymous(pages(3), true);
    memory.replace(memory.range().slice(pages(1), pages(1)).unwrap(), false);
    let pin = pinner.pin_foreign(memory.range().start(), pages(3)).unwrap();
    assert_eq!(pin.slots(), 1);
}

#[test]
fn a_pin_of_more_than_a_slot_takes_takes_several() {
    if !may_pin_much("pins-large") {
        return;
    }
    let pinner = Pinner::with(Options::default().slots_per_ring(1)).unwrap();
    // Transparent huge pages make it a matter of milliseconds where there are some.
    let memory = Arc::new(Pages::backed(Backing::Transparent, Bytes::new((1 << 30) + page())).unwrap());
    let pin = pinner.pin(Arc::clone(&memory)).unwrap();
    assert_eq!((pin.slots(), pinner.rings()), (2, 2), "1 GiB a slot, and a slot a ring");
    // A transfer goes across the seam.
    memory.write(Bytes::new((1 << 30) - 4), b"seamless").unwrap();
    let file = memfd_create("seam", MemfdFlags::CLOEXEC).unwrap();
    let moved = pin.write_to(&file, Bytes::ZERO, Bytes::new((1 << 30) - 4), Bytes::new(8)).unwrap();
    let mut back = [0; 8];
    rustix::io::pread(&file, &mut back, 0).unwrap();
    assert_eq!((moved, &back), (Bytes::new(8), b"seamless"));
    drop(pin);
    assert!(pinner.pins().is_empty());
}

#[test]
fn pages_of_the_pool_are_pinned_and_charged_whole() {
    if !may_pin_much("pins-large") {
        return;
    }
    let _more = settings::MoreHugePages::of(3);
    let memory = match huge_page_size() {
        None => return skip("hugetlb-pins", "this kernel has no huge pages"),
        Some(size) => Pages::backed(Backing::Huge(size), Bytes::new(2 * size.as_u64())).map(Arc::new),
    };
    let Ok(memory) = memory else { return skip("hugetlb-pins", settings::REASON) };
    let size = huge_page_size().unwrap();
    for pinner in both_kinds() {
        let all = pinner.pin(Arc::clone(&memory)).unwrap();
        assert_eq!(pinner.pinned(all.id()).unwrap().charge, memory.len());
        let small = pinner.pin_part(Arc::clone(&memory), Bytes::new(page()), pages(1)).unwrap();
        assert_eq!(pinner.pinned(small.id()).unwrap().charge, size, "a slice of one is charged whole");
    }
}
