//! Sets of pins that others hold.

use super::*;
use crate::memory::Pages;
use crate::pin::{HandOnError, Held};
use std::os::fd::AsFd;
use std::sync::Arc;

fn with_descriptor() -> Pinner {
    Pinner::with(Options::default().ring(Ring::Descriptor)).unwrap()
}

#[test]
fn a_ring_without_a_descriptor_cannot_be_handed_on_and_says_what_to_do() {
    let pinner = Pinner::new().unwrap();
    if pinner.ring_kind() == RingKind::Descriptor {
        return;
    }
    for refused in [pinner.descriptors().unwrap_err(), pinner.clone_pins().unwrap_err()] {
        assert!(matches!(refused, HandOnError::RegisteredOnly));
        assert!(refused.to_string().ends_with("make the pinner with Ring::Descriptor"));
    }
}

#[test]
fn a_copy_of_the_table_holds_the_same_pages_after_its_source_has_gone() {
    let pinner = with_descriptor();
    let memory = Arc::new(Pages::zeroed(pages(3)).unwrap());
    let pin = pinner.pin(Arc::clone(&memory)).unwrap();
    let held = pinner.clone_pins().unwrap();
    assert_eq!(held.ranges().unwrap(), [pin.range()]);
    drop((pin, pinner));
    assert_eq!(held.ranges().unwrap().len(), 1);
}

/// It was said to be refused.
#[test]
fn a_copy_of_nothing_holds_nothing() {
    assert_eq!(with_descriptor().clone_pins().unwrap().ranges().unwrap(), []);
}

/// While somebody fills slots the kernel shows none, and a holder of two pins seemed to hold nothing.
#[test]
fn what_a_holder_has_is_told_while_another_thread_pins() {
    let pinner = with_descriptor();
    let memory = Arc::new(Pages::zeroed(pages(3)).unwrap());
    let _pin = pinner.pin(Arc::clone(&memory)).unwrap();
    let held = Held::inherited(pinner.descriptors().unwrap()).unwrap();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let large = Arc::new(Pages::zeroed(pages(256)).unwrap());
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                drop(pinner.pin(Arc::clone(&large)));
            }
        });
        for _ in 0..200 {
            match held.ranges() {
                Ok(ranges) => assert!(!ranges.is_empty(), "one pin is there all the time"),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn descriptors_of_other_things_are_not_taken_over() {
    let file = rustix::fs::memfd_create("none", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let Err(HandOnError::NotARing { is, .. }) = Held::inherited(vec![file]) else { unreachable!("a memfd is no ring") };
    assert!(is.starts_with("/memfd:none"), "{is}");
}

#[test]
fn a_ring_cannot_be_sent_over_a_socket() {
    use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType};
    let rings = with_descriptor().descriptors().unwrap();
    let (one, _other) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [rings[0].as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = rustix::net::sendmsg(&one, &[std::io::IoSlice::new(b"x")], &mut ancillary, SendFlags::empty());
    assert_eq!(sent, Err(rustix::io::Errno::INVAL), "the kernel sends a ring after all; documentation says not");
}
