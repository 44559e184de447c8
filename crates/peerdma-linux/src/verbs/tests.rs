//! Odd answers of a library, and what goes in which order.

use super::*;
use crate::memory::Pages;
use crate::sys::verbs::fake::{LIBRARY, OLD_LIBRARY, done, turn};
use crate::sys::verbs::library::Library;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova};
use peerdma::buffer::Lifetime;
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::shared::{Buffer, Holder};
use peerdma::buffer::terms::{Declaration, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Initiator, Owner, OwnerId as MemoryId, Peers};
use peerdma::pin::{Counter, OwnerId, OwnerLimits, SharedLedger};
use peerdma::topology::IommuMode;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

fn context_of(library: &'static Library) -> Context {
    Verbs::of(library).devices().unwrap().first().unwrap().open().unwrap()
}

fn domain() -> Domain {
    context_of(&LIBRARY).domain().unwrap()
}

fn pages() -> Arc<Pages> {
    Arc::new(Pages::zeroed(Bytes::new(8192)).unwrap())
}

#[test]
fn a_list_that_says_more_than_it_has_ends_at_its_null_and_names_end_with_their_field() {
    turn(|knobs| (knobs.says_devices, knobs.endless_names) = (i32::MAX, true));
    let devices = Verbs::of(&LIBRARY).devices().unwrap();
    assert_eq!(devices.iter().map(Device::name).collect::<Vec<_>>(), ["x".repeat(64)]);
    assert_eq!(devices[0].sysfs().as_os_str().len(), 256);
    turn(|knobs| knobs.says_devices = -3);
    assert!(Verbs::of(&LIBRARY).devices().unwrap().is_empty());
}

#[test]
fn a_file_that_may_not_be_opened_is_named() {
    turn(|knobs| knobs.open = libc::EACCES);
    let error = Verbs::of(&LIBRARY).devices().unwrap()[0].open().unwrap_err();
    assert!(error.to_string().contains("/dev/infiniband"), "{error}");
    turn(|knobs| knobs.open = libc::ENODEV);
    let error = Verbs::of(&LIBRARY).devices().unwrap()[0].open().unwrap_err();
    assert!(matches!(error, ObjectError::Gone { .. }), "{error}");
}

#[test]
fn numbers_of_a_port_that_make_no_sense_are_no_panic() {
    let context = context_of(&LIBRARY);
    turn(|knobs| knobs.gids = i32::MIN);
    let port = context.port(1).unwrap();
    assert_eq!((port.state, port.mtu, port.gids), (PortState::Other(77), Mtu::B256, 0));
    assert!(context.gids(1).unwrap().is_empty());
    turn(|knobs| knobs.gids = i32::MAX);
    assert_eq!(context.gids(1).unwrap().len(), 255);
    assert!(matches!(context.port(2).unwrap_err(), ObjectError::Beyond { .. }));
    assert_eq!(context.paging(), Ok(Paging::Unknown));
}

#[test]
fn an_adapter_without_an_active_port_is_not_connected_to_itself() {
    let error = Loopback::open(&context_of(&LIBRARY), "0000:41:00.0".parse().unwrap()).unwrap_err();
    assert!(
        matches!(error, LoopbackError::NoPort { .. }) && error.to_string().contains("bring its link up"),
        "{error}"
    );
}

#[test]
fn every_errno_of_a_registration_has_its_error() {
    let domain = domain();
    let register = |errno| {
        turn(|knobs| knobs.register = errno);
        domain.register(pages(), Rights::local()).unwrap_err()
    };
    let memory = register(libc::ENOMEM);
    assert!(matches!(memory, RegisterError::Memlock { .. } | RegisterError::Exhausted { .. }), "{memory}");
    assert!(matches!(register(libc::EPERM), RegisterError::NotPermitted { errno: Errno::PERM, .. }));
    // Nothing is wrong with the memory, and the text says so.
    assert!(register(libc::EFAULT).to_string().contains("looks like memory that can be pinned"));
    assert!(matches!(register(libc::EBUSY), RegisterError::Other { errno: Errno::BUSY, .. }));
}

#[test]
fn who_does_not_register_dmabufs_is_named() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let asked = |domain: &Domain| {
        let (at, len) = (Bytes::ZERO, Bytes::new(4096));
        let refused = domain.register_dmabuf(file.as_fd(), at, len, Iova::new(0), Rights::local()).err();
        (domain.dmabuf_support(), refused)
    };
    let domain = domain();
    for (errno, support) in
        [(libc::EOPNOTSUPP, DmabufSupport::NotByDevice), (libc::EPROTONOSUPPORT, DmabufSupport::NotByKernel)]
    {
        turn(|knobs| knobs.dmabuf = errno);
        let (said, refused) = asked(&domain);
        assert_eq!(said, support);
        assert!(matches!(refused, Some(RegisterError::NoDmabuf { support: named, .. }) if named == support));
    }
    turn(|knobs| knobs.dmabuf = libc::EBADF);
    let (said, refused) = asked(&domain);
    assert_eq!(said, DmabufSupport::Yes);
    assert!(matches!(refused, Some(RegisterError::Dmabuf { errno: Errno::BADF, .. })));
    let (said, _) = asked(&context_of(&OLD_LIBRARY).domain().unwrap());
    assert_eq!(said, DmabufSupport::NotByLibrary);
    let odd = domain.register_dmabuf(file.as_fd(), Bytes::new(1), Bytes::new(1), Iova::new(0), Rights::local());
    assert!(matches!(odd, Err(RegisterError::Unaligned { .. })));
}

fn booked() -> (Domain, SharedLedger) {
    let owner = OwnerId::new(0);
    let mut ledger = crate::held::of_this_process();
    ledger.describe_owner(owner, "test", OwnerLimits::NONE);
    let ledger = SharedLedger::new(ledger);
    (domain().booked(ledger.clone(), owner), ledger)
}

#[test]
fn a_region_is_charged_while_it_lives_and_one_that_is_refused_is_not() {
    let (domain, ledger) = booked();
    let charged = || ledger.reading(Counter::MmPinned).charged;
    turn(|knobs| knobs.register = libc::EFAULT);
    assert!(domain.register(pages(), Rights::local()).is_err());
    assert_eq!(charged(), Bytes::ZERO);
    turn(|knobs| knobs.register = 0);
    let region = domain.register(pages(), Rights::local()).unwrap();
    assert_eq!(charged(), Bytes::new(8192));
    drop(region);
    assert_eq!(charged(), Bytes::ZERO);
}

/// Memory that an adapter may still write to must be nobody else's.
#[test]
fn a_region_that_is_not_let_go_of_keeps_its_memory_and_its_charge() {
    let (domain, ledger) = booked();
    let memory = pages();
    let region = domain.register(Arc::clone(&memory), Rights::local()).unwrap();
    turn(|knobs| knobs.deregister = libc::EBUSY);
    assert_eq!(region.deregister(), Err(Errno::BUSY));
    assert_eq!(Arc::strong_count(&memory), 2);
    assert_eq!(ledger.reading(Counter::MmPinned).charged, Bytes::new(8192));
}

#[test]
fn what_was_made_last_goes_first() {
    let context = context_of(&LIBRARY);
    let completions = context.completions(4).unwrap();
    let domain = context.domain().unwrap();
    let queue = domain.queue(&completions, Depths::default(), 1, Rights::local()).unwrap();
    let region = domain.register(pages(), Rights::local()).unwrap();
    drop((context, completions, domain));
    done();
    drop(region);
    drop(queue);
    let order = ["deregister", "destroy queue", "free domain", "destroy completions", "destroy channel", "close"];
    assert_eq!(done(), order);
}

#[test]
fn a_provider_that_polls_more_than_was_asked_is_not_believed() {
    let completions = context_of(&LIBRARY).completions(4).unwrap();
    for polled in [33, -1, i32::MAX, i32::MIN] {
        turn(|knobs| knobs.polled = polled);
        assert_eq!(completions.poll().unwrap_err().errno, Errno::IO, "{polled}");
    }
    turn(|knobs| (knobs.polled, knobs.status) = (32, 4711));
    let found = completions.poll().unwrap();
    assert_eq!((found.len(), found[0].status, found[0].kind), (32, Status::Other(4711), Kind::Other(99)));
    assert!(found[0].result().unwrap_err().to_string().contains("4711"));
    // An event of a queue that is another's is not acknowledged for it.
    done();
    assert!(completions.quiet().is_err() && !done().contains(&"acknowledge"));
}

#[test]
fn a_context_without_operations_refuses_work() {
    turn(|knobs| knobs.bare = true);
    let domain = domain();
    let completions = domain.context().completions(4).unwrap();
    let queue = domain.queue(&completions, Depths::default(), 1, Rights::local()).unwrap();
    let region = domain.register(pages(), Rights::local()).unwrap();
    let error = queue.receive(1, region.part(Bytes::ZERO, Bytes::new(8)).unwrap()).unwrap_err();
    assert!(matches!(error, PostError::Refused { errno: Errno::NOSYS, .. }), "{error}");
    assert!(completions.poll().is_err() && completions.arm().is_err());
}

#[test]
fn work_that_does_not_fit_is_not_posted() {
    let domain = domain();
    let completions = domain.context().completions(4).unwrap();
    let queue = domain.queue(&completions, Depths::default(), 1, Rights::local()).unwrap();
    let region = domain.register(pages(), Rights::local()).unwrap();
    let end = Endpoint { gid: [1; 16].into(), gid_index: 0, queue: 1, psn: 1, lid: 0, mtu: Mtu::B1024 };
    let queue = queue.connect(&end, &end, &Options::default()).unwrap();
    let all = region.part(Bytes::ZERO, Bytes::new(8192)).unwrap();
    let short = RemoteRange::new(AddrRange::new(Iova::new(0), Bytes::new(8191)).unwrap(), 1);
    assert!(matches!(queue.write(1, all, short), Err(PostError::Beyond { .. })));
    assert!(region.part(Bytes::new(1), Bytes::new(8192)).is_err());
    turn(|knobs| knobs.post = libc::ENOMEM);
    assert!(matches!(queue.send(1, all), Err(PostError::Full { .. })));
}

#[test]
fn a_disturbance_waits_for_work_that_uses_the_region_and_finds_it_deregistered() {
    let chunk = Chunk::new(Owner::Memfd(MemoryId::new(3)), Bytes::ZERO, Bytes::new(8192), MemAttrs::empty()).unwrap();
    let offer = Offer::new(Chunks::collect_from([chunk]).unwrap(), Stays::UNTIL_REVOKED, Place::Ram).unwrap();
    let buffer = Buffer::new("ring", offer, Answers::YES);
    let (domain, memory) = (domain(), pages());
    let importing = Importing::new(move || domain.register(Arc::clone(&memory), Rights::local()));
    let device = Initiator::new("nic", IommuMode::Translated);
    let declaration = Declaration::of_device(device, Prot::ReadWrite).taking(Lifetime::Revocable);
    let seat = buffer.attach(&declaration, &Peers::none(), Holder::here("nic"), Arc::clone(&importing) as _).unwrap();
    let imported = importing.seated(seat);

    let in_use = imported.region().unwrap();
    assert!(Arc::ptr_eq(&in_use, &imported.region().unwrap()), "registered once");
    done();
    let late = buffer.begin(Disturbance::Reset).unwrap().wait(Duration::from_millis(20)).unwrap_err();
    assert!(done().is_empty(), "work uses it: {late:?}");
    drop(in_use);
    assert_eq!(done(), ["deregister"]);
    drop(late);
    assert!(buffer.attached().iter().all(|attached| attached.mappings == 0));
    drop(imported);
    assert!(buffer.attached().is_empty());
}
