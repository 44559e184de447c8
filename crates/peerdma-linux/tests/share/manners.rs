//! What importers are held to, and what nobody can hold them to.

use super::child::Other;
use super::{Folder, attached, cooperative, exporter, frames, mapped, soon, until};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::life::Disturbance;
use peerdma::buffer::terms::Stays;
use peerdma::buffer::wire::{Declare, Heard};
use peerdma::buffer::{Control, Enforcement, Lifetime};
use peerdma_linux::share::{AttachError, Exporter, Happened, Importer, Listener, MapError, Memory, Shared, WriteError};
use std::thread;

/// Cooperative enforcement is the importer's word and no more: it is believed while it reads on. An exporter to
/// which that is not good enough sets the floor at `kernel`, and then nobody maps its memfd at all.
#[test]
fn a_liar_is_believed_and_a_floor_keeps_it_out() {
    let folder = Folder::new("liar");
    let mut exporter = exporter(&folder.socket(), frames());
    let mut other = Other::start("liar", &folder.socket());
    until(&mut exporter, mapped);
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let reset = exporter.wait(reset, soon()).unwrap();
    exporter.memory().write(Bytes::ZERO, b"after").unwrap();
    other.tell("read");
    assert_eq!(other.says(), "after", "it still has the memory mapped, and nobody can know");
    reset.done();
}

#[track_caller]
fn refused(exporter: &mut Exporter, declare: Declare) -> (String, String) {
    let path = exporter.listener().path().to_path_buf();
    let importer = thread::spawn(move || Importer::attach(&path, declare, soon()).map(|_| ()));
    let told = until(exporter, |happened| match happened {
        Happened::Refused { rule, why, .. } => Some((rule.clone(), why.clone())),
        _ => None,
    });
    let Err(AttachError::Refused { rule, why }) = importer.join().unwrap() else { unreachable!("{told:?}") };
    assert_eq!(told, (rule, why), "both sides are told the same");
    told
}

#[test]
fn what_can_never_work_fails_at_attach_with_the_rule_and_without_a_descriptor() {
    let folder = Folder::new("floor");
    let strict = Shared { floor: Enforcement::Kernel, ..frames() };
    let mut exporter = exporter(&folder.socket(), strict);
    let (rule, why) = refused(&mut exporter, cooperative("viewer"));
    assert_eq!(rule, "unenforced", "{why}");
    let (rule, why) = refused(&mut exporter, Declare { enforcement: Enforcement::Kernel, ..cooperative("viewer") });
    assert_eq!(rule, "overstated");
    assert!(why.contains("nothing in the kernel takes this memory for good"), "{why}");
    let (rule, _) = refused(&mut exporter, Declare { takes: Lifetime::Pinned, ..cooperative("viewer") });
    assert_eq!(rule, "unenforced", "rules are asked in order");
    let (rule, _) = refused(&mut exporter, Declare { control: Control::Full, ..cooperative("viewer") });
    assert_eq!(rule, "full_not_offered");
    assert_eq!(exporter.importers().count(), 0);
}

#[test]
fn one_importer_at_a_time_has_it_in_full() {
    let folder = Folder::new("full");
    let mut exporter = exporter(&folder.socket(), Shared { control: Control::Full, ..frames() });
    let path = folder.socket();
    let declare = || Declare { control: Control::Full, ..cooperative("keys") };
    let first = declare();
    let first = thread::spawn(move || Importer::attach(&path, first, soon()).unwrap());
    let who = until(&mut exporter, attached);
    let (rule, why) = refused(&mut exporter, declare());
    assert!(rule == "full_held" && why.contains(&who.to_string()), "{rule}: {why}");
    drop(first.join().unwrap());
    until(&mut exporter, |happened| matches!(happened, Happened::HungUp { who: Some(_), .. }).then_some(()));
    let path = folder.socket();
    let second = thread::spawn(move || Importer::attach(&path, declare(), soon()).map(|_| ()));
    until(&mut exporter, attached);
    second.join().unwrap().unwrap();
}

#[test]
fn memory_for_reading_is_read_and_not_written() {
    let folder = Folder::new("reading");
    let memory = Memory::create_read_only("frames", super::SIZE).unwrap();
    memory.write(Bytes::ZERO, b"first").unwrap();
    let mut exporter = Exporter::new(Listener::bind(&folder.socket()).unwrap(), memory, frames()).unwrap();
    let (rule, _) = refused(&mut exporter, cooperative("writer"));
    assert_eq!(rule, "prot_not_offered");
    let path = folder.socket();
    let reader = thread::spawn(move || {
        let mut importer =
            Importer::attach(&path, Declare { prot: Prot::Read, ..cooperative("reader") }, soon()).unwrap();
        let mapped = importer.map(soon()).unwrap();
        let mut bytes = [0; 5];
        mapped.read(Bytes::ZERO, &mut bytes).unwrap();
        assert_eq!((&bytes, mapped.write(Bytes::ZERO, b"x")), (b"first", Err(WriteError::ReadOnly)));
        assert!(importer.next(std::time::Instant::now()).unwrap().is_none());
        importer.unmap(mapped).unwrap();
        importer.detach(soon()).unwrap();
    });
    until(&mut exporter, |happened| matches!(happened, Happened::Detached { .. }).then_some(()));
    reader.join().unwrap();
}

/// Bytes that move are found again, at a place that the importer was told of.
#[test]
fn bytes_move_to_other_memory_and_importers_follow() {
    let folder = Folder::new("moves");
    let moves = Stays { moves: peerdma::buffer::terms::Moves::UnlessPinned, revoked: false };
    let mut exporter = exporter(&folder.socket(), Shared { stays: moves, ..frames() });
    let path = folder.socket();
    let follower = thread::spawn(move || {
        let mut importer =
            Importer::attach(&path, Declare { takes: Lifetime::Movable, ..cooperative("follower") }, soon()).unwrap();
        let mut held = Some(importer.map(soon()).unwrap());
        let mut moved = false;
        loop {
            match importer.next(soon()).unwrap().unwrap() {
                Heard::LetGo { notice, .. } => {
                    importer.note(notice).unwrap();
                    importer.unmap(held.take().unwrap()).unwrap();
                    assert!(matches!(importer.map(soon()), Err(MapError::Ended(_))), "not before it may");
                }
                Heard::Moved { .. } => moved = true,
                Heard::MayMap { notice, .. } => {
                    importer.note(notice).unwrap();
                    let mapped = importer.map(soon()).unwrap();
                    let mut bytes = [0; 5];
                    mapped.read(Bytes::ZERO, &mut bytes).unwrap();
                    importer.unmap(mapped).unwrap();
                    return (moved, bytes);
                }
                other => unreachable!("{other:?}"),
            }
        }
    });
    until(&mut exporter, mapped);
    let first = exporter.memory().id();
    let announced = exporter.buffer().begin(Disturbance::Move).unwrap();
    let quiet = exporter.wait(announced, soon()).unwrap();
    exporter.move_memory(quiet).unwrap();
    assert_ne!(exporter.memory().id(), first);
    exporter.memory().write(Bytes::new(4), b"T").unwrap();
    until(&mut exporter, |happened| {
        matches!(happened, Happened::HungUp { .. } | Happened::Detached { .. }).then_some(())
    });
    assert_eq!(follower.join().unwrap(), (true, *b"firsT"), "the new memory, with what the old one held");
}
