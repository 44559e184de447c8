//! What may be done with memory changes while it is shared, and what moves is what was announced.

use super::{Folder, attached, cooperative, exporter, frames, soon, until};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::Lifetime;
use peerdma::buffer::life::{Answers, Disturbance, Generation, Phase};
use peerdma::buffer::shared::{Attachment, Buffer, Holder, Importer as Hears, Receipt, WhyNot};
use peerdma::buffer::terms::{Declaration, Moves, Stays};
use peerdma::buffer::wire::{Declare, Heard};
use peerdma::dma::{Initiator, Peers};
use peerdma::topology::IommuMode;
use peerdma_linux::share::{AttachError, Exporter, Happened, Importer, MoveError, Shared};
use rustix::fs::{OFlags, fcntl_getfl};
use std::sync::{Arc, mpsc};
use std::thread;

const MOVES: Stays = Stays { moves: Moves::UnlessPinned, revoked: false };

fn permit(exporter: &mut Exporter, prot: Prot) {
    let announced = exporter.buffer().begin(Disturbance::Permission).unwrap();
    exporter.wait(announced, soon()).unwrap().permit(prot);
}

fn is_for_writing(importer: &Importer) -> bool {
    fcntl_getfl(importer.memory()).unwrap() & OFlags::ACCMODE != OFlags::RDONLY
}

/// A newcomer was settled with by what had been offered first, and was sent a descriptor for writing.
#[test]
fn who_attaches_after_a_permission_was_taken_back_gets_no_descriptor_for_writing() {
    let folder = Folder::new("taken-back");
    let mut exporter = exporter(&folder.socket(), frames());
    permit(&mut exporter, Prot::Read);
    let path = folder.socket();
    let writer = thread::spawn(move || Importer::attach(&path, cooperative("writer"), soon()).map(drop));
    until(&mut exporter, |happened| matches!(happened, Happened::Refused { .. }).then_some(()));
    let Err(AttachError::Refused { rule, why }) = writer.join().unwrap() else { unreachable!("it attached") };
    assert!(rule == "prot_not_offered" && why.contains("r is permitted"), "{rule}: {why}");

    let path = folder.socket();
    let declare = Declare { prot: Prot::Read, ..cooperative("reader") };
    let reader = thread::spawn(move || Importer::attach(&path, declare, soon()).unwrap());
    until(&mut exporter, attached);
    exporter.serve(std::time::Instant::now()).unwrap();
    let reader = reader.join().unwrap();
    assert_eq!((reader.offer().prot, reader.terms().prot, is_for_writing(&reader)), (Prot::Read, Prot::Read, false));
}

/// Who was attached all the while has less for a while, also of memory that moved meanwhile, and then all of it again.
#[test]
fn who_may_do_more_again_is_sent_a_descriptor_for_it() {
    let folder = Folder::new("given-back");
    let mut exporter = exporter(&folder.socket(), Shared { stays: MOVES, ..frames() });
    let path = folder.socket();
    let (tell, told) = mpsc::channel();
    let importer = thread::spawn(move || {
        let declare = Declare { takes: Lifetime::Movable, ..cooperative("follower") };
        let mut importer = Importer::attach(&path, declare, soon()).unwrap();
        while let Some(heard) = importer.next(soon()).unwrap() {
            match heard {
                Heard::LetGo { notice, .. } => importer.note(notice).unwrap(),
                Heard::MayMap { notice, .. } => {
                    importer.note(notice).unwrap();
                    let mapped = importer.map(soon()).unwrap();
                    let wrote = mapped.write(Bytes::ZERO, b"x").is_ok();
                    importer.unmap(mapped).unwrap();
                    tell.send((wrote, is_for_writing(&importer))).unwrap();
                }
                Heard::Gone | Heard::Goodbye(_) => break,
                _ => {}
            }
        }
    });
    until(&mut exporter, attached);
    let after = |exporter: &mut Exporter| {
        until(exporter, |happened| matches!(happened, Happened::Unmapped { .. }).then_some(()));
        told.recv().unwrap()
    };
    permit(&mut exporter, Prot::Read);
    assert_eq!(after(&mut exporter), (false, true), "it has its first descriptor yet, and is granted less");
    let announced = exporter.buffer().begin(Disturbance::Move).unwrap();
    let quiet = exporter.wait(announced, soon()).unwrap();
    exporter.move_memory(quiet).unwrap();
    assert_eq!(after(&mut exporter), (false, false), "the new memory's is for reading");
    permit(&mut exporter, Prot::ReadWrite);
    assert_eq!(after(&mut exporter), (true, true));
    let close = exporter.buffer().begin(Disturbance::Close).unwrap();
    exporter.wait(close, soon()).unwrap().done();
    until(&mut exporter, |happened| matches!(happened, Happened::HungUp { .. }).then_some(()));
    importer.join().unwrap();
}

/// Hears, and has nothing to let go of.
struct Hearing;

impl Hears for Hearing {
    fn let_go(&self, _: Disturbance, _: Receipt) {}
    fn may_map(&self, _: Generation, _: Receipt) {}
    fn gone(&self) {}
}

fn nic(buffer: &Buffer, takes: Lifetime) -> Attachment {
    let device = Declaration::of_device(Initiator::new("nic", IommuMode::Translated), Prot::Read);
    let device = device.enforced(peerdma::buffer::Enforcement::Cooperative).taking(takes);
    buffer.attach(&device, &Peers::none(), Holder::here("nic"), Arc::new(Hearing)).unwrap()
}

/// An exporter slept until its deadline, as nothing came through its sockets.
#[test]
fn a_wait_is_woken_by_importers_of_its_own_process() {
    let folder = Folder::new("own-process");
    let mut exporter = exporter(&folder.socket(), frames());
    let seat = nic(exporter.buffer(), Lifetime::Revocable);
    let (has, it_has) = mpsc::channel();
    let mapped = seat.map().unwrap();
    let other = thread::spawn(move || {
        let held = seat.reservation().lock();
        has.send(()).unwrap();
        thread::sleep(std::time::Duration::from_millis(20));
        drop(held);
        thread::sleep(std::time::Duration::from_millis(20));
        drop(mapped);
    });
    it_has.recv().unwrap();
    let (reset, until) = (exporter.buffer().begin(Disturbance::Reset).unwrap(), soon());
    exporter.wait(reset, until).unwrap().done();
    assert!(std::time::Instant::now() < until);
    other.join().unwrap();
}

/// The author's word for what had been announced was taken, and memory was changed before the buffer was asked, which
/// panicked half-way.
#[test]
fn memory_that_cannot_move_is_where_it_was_and_the_disturbance_is_over() {
    let folder = Folder::new("not-moved");
    let mut exporter = exporter(&folder.socket(), Shared { stays: MOVES, ..frames() });
    let (buffer, first) = (exporter.buffer().clone(), exporter.memory().id());
    let other = Buffer::new("other", buffer.offer(), Answers::YES);
    let quiet = |buffers: &[&Buffer], what| {
        let buffers: Vec<Buffer> = buffers.iter().map(|&buffer| buffer.clone()).collect();
        Buffer::begin_all(&buffers, what).unwrap().try_proceed().unwrap()
    };
    let refused = exporter.move_memory(quiet(&[&buffer], Disturbance::Reset)).unwrap_err();
    assert!(matches!(refused, MoveError::NotAMove { announced: Disturbance::Reset }), "{refused}");
    for buffers in [&[&other][..], &[&buffer, &other], &[]] {
        let refused = exporter.move_memory(quiet(buffers, Disturbance::Move)).unwrap_err();
        assert!(matches!(refused, MoveError::NotThis { .. }), "{refused}");
    }
    // Somebody comes while it is quiet, and must have it stay.
    let announced = quiet(&[&buffer], Disturbance::Move);
    let seat = nic(&buffer, Lifetime::Pinned);
    let refused = exporter.move_memory(announced).unwrap_err();
    assert!(matches!(refused, MoveError::Refused(WhyNot::Pinned { .. })), "{refused}");
    assert_eq!((exporter.memory().id(), buffer.phase()), (first, Phase::Live));
    let mapped = seat.map().unwrap();
    assert_eq!(mapped.ranges().iter().next().unwrap().owner(), peerdma::dma::Owner::Memfd(first));
}
