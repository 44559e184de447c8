//! What cannot be pinned: one errno of the kernel, and a name for each.

use super::*;
use crate::pin::{PinError, Refusal, why};
use crate::sys::disturb::{self, Disturbed};
use peerdma::addr::{AddrRange, ProcVa};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::mm::{MprotectFlags, ProtFlags};
use std::os::fd::AsFd;

const BOTH: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// Where and why a pin of a whole range is refused.
fn refusal(range: AddrRange<ProcVa>) -> (AddrRange<ProcVa>, Refusal) {
    let pinner = Pinner::new().unwrap();
    match pinner.pin_foreign(range.start(), range.len()) {
        Err(PinError::Refused { at, why, .. }) => (at, why),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn mappings_that_may_not_be_written_are_refused_and_never_forced() {
    let memory = Disturbed::anonymous(pages(2), true);
    memory.store(0, 1);
    memory.protect(MprotectFlags::READ);
    assert_eq!(refusal(memory.range()), (memory.range(), Refusal::ReadOnly { private: true }));
    memory.protect(MprotectFlags::empty());
    assert_eq!(refusal(memory.range()), (memory.range(), Refusal::NoAccess));
    let file = memfd_create("readable", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, page()).unwrap();
    let shared = Disturbed::of_file(file.as_fd(), pages(1), false, ProtFlags::READ).unwrap();
    assert_eq!(refusal(shared.range()).1, Refusal::ReadOnly { private: false });
}

#[test]
fn a_shared_mapping_of_a_file_is_refused_by_the_name_of_the_file_and_its_file_system() {
    let file = Scratch::new(&std::env::temp_dir(), &[1; 100]);
    let shared = Disturbed::of_file(file.file.as_fd(), pages(1), false, BOTH).unwrap();
    let pinner = Pinner::new().unwrap();
    let refused = match pinner.pin_foreign(shared.range().start(), pages(1)) {
        Ok(_) => {
            return skip(
                "pins-shared-file",
                "the folder for temporary files is in memory, or the kernel is older than 6.5",
            );
        }
        Err(error) => error,
    };
    let PinError::Refused { why: Refusal::SharedFile { name, filesystem }, .. } = &refused else {
        unreachable!("{refused:?}")
    };
    assert_eq!(name.as_str(), file.path.to_str().unwrap());
    assert!(filesystem.is_some(), "{refused}");
    assert!(refused.to_string().ends_with("map it private, or use a memfd"), "{refused}");
}

#[test]
fn holes_and_addresses_of_the_kernel_are_refused_with_the_part_that_is_none() {
    // Nobody maps anything at the lowest addresses.
    let low = AddrRange::new(ProcVa::new(0), Bytes::new(page())).unwrap();
    assert_eq!(refusal(low), (low, Refusal::Hole));
    let kernel = AddrRange::new(ProcVa::new(0xffff_8880_0000_0000), Bytes::new(page())).unwrap();
    assert_eq!(refusal(kernel), (kernel, Refusal::KernelAddress));
}

#[test]
fn secret_memory_is_named() {
    let Ok(file) = disturb::secret_file() else { return skip("pins-secretmem", "this kernel makes no secret memory") };
    ftruncate(&file, page()).unwrap();
    let secret = Disturbed::of_file(file.as_fd(), pages(1), false, BOTH);
    let Ok(secret) = secret else { return skip("pins-secretmem", "no secret memory within the limit") };
    assert_eq!(refusal(secret.range()).1, Refusal::Secret);
}

#[test]
fn addresses_without_pages_are_named_with_what_they_are_of() {
    let Ok(file) = disturb::file_without_pages() else {
        return skip("pins-pfnmap", "performance counters are not for this process");
    };
    let Ok(mapping) = Disturbed::of_file(file.as_fd(), pages(2), false, BOTH) else {
        return skip("pins-pfnmap", "performance counters cannot be mapped within the limit");
    };
    let (_, why) = refusal(mapping.range());
    let Refusal::DeviceMemory { name } = why else { unreachable!("{why:?}") };
    assert_eq!(name, "anon_inode:[perf_event]");
}

#[test]
fn a_guard_page_is_named() {
    let memory = Disturbed::anonymous(pages(3), true);
    if let Err(error) = memory.guard(memory.range().slice(pages(1), pages(1)).unwrap()) {
        return skip("pins-guard-page", &format!("this kernel makes no guard pages ({error})"));
    }
    match refusal(memory.range()).1 {
        Refusal::GuardPage => (),
        // Before Linux 6.15 nothing shows them.
        Refusal::Unexplained => skip("pins-guard-page", "this kernel does not show guard pages"),
        why => unreachable!("{why:?}"),
    }
}

#[test]
fn a_mapping_past_the_end_of_its_file_is_named_where_the_file_can_be_seen() {
    let file = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, page()).unwrap();
    let mapping = Disturbed::of_file(file.as_fd(), pages(3), false, BOTH).unwrap();
    match refusal(mapping.range()).1 {
        Refusal::BeyondFile { size, name } => {
            assert_eq!((size, name.as_str()), (pages(1), "/memfd:short (deleted)"));
        }
        Refusal::Unexplained => skip("pins-beyond-file", "only privileged processes see the file of a mapping"),
        why => unreachable!("{why:?}"),
    }
}

#[test]
fn pages_that_a_userfaultfd_serves_to_the_cpu_alone_are_named() {
    let memory = Disturbed::anonymous(pages(2), true);
    memory.store(0, 1);
    let _uffd = match disturb::leave_to_a_userfaultfd(memory.range()) {
        Ok(uffd) => uffd,
        Err(error) => return skip("pins-userfaultfd", &format!("this process has no userfaultfd ({error})")),
    };
    assert_eq!(refusal(memory.range()).1, Refusal::UserFault);
    memory.discard(memory.range());
    assert_eq!(refusal(memory.range()).1, Refusal::UserFault);
}

#[test]
fn a_refused_pin_leaves_nothing_pinned_of_what_comes_before_the_refused_part() {
    let pinner = Pinner::new().unwrap();
    let memory = Disturbed::anonymous(pages(4), true);
    if memory.guard(memory.range().slice(pages(3), pages(1)).unwrap()).is_err() {
        return skip("pins-guard-page", "this kernel makes no guard pages");
    }
    assert!(pinner.pin_foreign(memory.range().start(), pages(4)).is_err());
    assert!(pinner.pins().is_empty());
    let whole = pinner.pin_foreign(memory.range().start(), pages(3)).unwrap();
    assert_eq!(whole.range().len(), pages(3));
}

#[test]
fn a_pin_of_several_slots_that_is_refused_at_the_last_leaves_none_of_them_filled() {
    if !may_pin_much("pins-large") {
        return;
    }
    let pinner = Pinner::with(Options::default().ring(Ring::Descriptor).slots_per_ring(4)).unwrap();
    let len = Bytes::new((1 << 30) + 2 * page());
    let memory = Disturbed::anonymous(len, true);
    let last = memory.range().slice(Bytes::new((1 << 30) + page()), pages(1)).unwrap();
    if memory.guard(last).is_err() {
        return skip("pins-guard-page", "this kernel makes no guard pages");
    }
    assert!(matches!(pinner.pin_foreign(memory.range().start(), len), Err(PinError::Refused { .. })));
    let rings = crate::pin::Held::inherited(pinner.descriptors().unwrap()).unwrap();
    assert_eq!(rings.ranges().unwrap(), [], "the first slot was filled, and emptied again");
}

/// Memory of neither kind is on most machines; what the kernel says of it is told apart by its answer alone.
#[test]
fn answers_that_name_the_kind_of_pages_are_named() {
    let memory = crate::memory::Pages::zeroed(pages(2)).unwrap();
    let range = AddrRange::new(memory.address(), memory.len()).unwrap();
    let (at, peer) = why::explained(range, Errno::REMOTEIO);
    assert!(matches!(peer, Refusal::PeerMemory { .. }) && at == range, "{peer:?}");
    assert!(peer.to_string().contains("give the device its bus address"), "{peer}");
    let (_, dax) = why::explained(range, Errno::OPNOTSUPP);
    assert!(matches!(dax, Refusal::Dax { .. }) && dax.to_string().contains("fsdax"), "{dax:?}");
    assert!([Errno::REMOTEIO, Errno::OPNOTSUPP, Errno::FAULT].into_iter().all(why::is_one_of_many));
    assert!(!why::is_one_of_many(Errno::NOMEM), "the limit has a name of its own");
}
