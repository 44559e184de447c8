//! A buffer of another process, followed by importers of this one.

use super::{Folder, attached, cooperative, exporter, frames, mapped, soon, until};
use peerdma::access::Prot;
use peerdma::buffer::life::{Disturbance, Generation, Phase};
use peerdma::buffer::shared::{Attachment, Buffer, Holder, Importer as Local, Mapped, Receipt};
use peerdma::buffer::terms::{Declaration, Moves, Stays};
use peerdma::buffer::wire::Declare;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::{Owner, OwnerId, Peers};
use peerdma_linux::share::{Importer, Relay, RelayError, Relayed, Shared, WaitError};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const OWNER: Owner = Owner::Memfd(OwnerId::new(7));

/// Somebody of this process who has the memory mapped, and lets go at once or when it is told by the test.
#[derive(Default)]
struct Follower {
    held: Mutex<Option<Mapped>>,
    is_slow: bool,
}

impl Local for Follower {
    fn let_go(&self, _: Disturbance, receipt: Receipt) {
        receipt.noted();
        if !self.is_slow {
            drop(self.held.lock().unwrap().take());
        }
    }

    fn may_map(&self, _: Generation, receipt: Receipt) {
        receipt.noted();
    }

    fn gone(&self) {
        drop(self.held.lock().unwrap().take());
    }
}

fn follow(buffer: &Buffer, is_slow: bool) -> (Attachment, Arc<Follower>) {
    let follower = Arc::new(Follower { is_slow, ..Follower::default() });
    let declaration = Declaration::of_process("follower", Prot::ReadWrite)
        .taking(Lifetime::Revocable)
        .enforced(Enforcement::Cooperative);
    let seat = buffer.attach(&declaration, &Peers::none(), Holder::here("follower"), follower.clone()).unwrap();
    (seat, follower)
}

fn relay(path: &Path) -> Relay {
    let mut relay = Relay::new(Importer::attach(path, cooperative("relay"), soon()).unwrap(), OWNER).unwrap();
    assert!(!relay.buffer().phase().is_reachable(), "before it was asked for, nobody may map it");
    next(&mut relay, |relayed| matches!(relayed, Relayed::Within(_)));
    relay
}

fn next(relay: &mut Relay, wanted: impl Fn(&Relayed) -> bool) {
    while let Some(relayed) = relay.serve(soon()).unwrap() {
        if wanted(&relayed) {
            return;
        }
    }
    unreachable!("it did not come");
}

#[test]
fn an_exporter_waits_for_whoever_follows_its_buffer_in_another_process() {
    let folder = Folder::new("relayed");
    let mut exporter = exporter(&folder.socket(), frames());
    let path = folder.socket();
    let relayed = thread::spawn(move || {
        let mut relay = relay(&path);
        let (seat, follower) = follow(relay.buffer(), true);
        *follower.held.lock().unwrap() = Some(seat.map().unwrap());
        next(&mut relay, |relayed| *relayed == Relayed::Leaving(Disturbance::Reset));
        assert_eq!(relay.serve(Instant::now() + Duration::from_millis(20)).unwrap(), None);
        let names: Vec<_> = relay.held().into_iter().filter_map(|held| held.holder).map(|one| one.name).collect();
        assert_eq!(names, ["follower"]);
        drop(follower.held.lock().unwrap().take());
        next(&mut relay, |relayed| *relayed == Relayed::Away);
        assert!(seat.map().is_err());
        next(&mut relay, |relayed| matches!(relayed, Relayed::Within(_)));
        *follower.held.lock().unwrap() = Some(seat.map().unwrap());
        next(&mut relay, |relayed| *relayed == Relayed::Leaving(Disturbance::Removal));
        assert!(!relay.is_gone(), "the exporter says so when all have let go");
        drop(follower.held.lock().unwrap().take());
        next(&mut relay, |relayed| *relayed == Relayed::Gone);
        assert_eq!((relay.buffer().phase(), relay.is_gone()), (Phase::Dead, true));
    });
    until(&mut exporter, mapped);
    let reset = exporter.buffer().begin(Disturbance::Reset).unwrap();
    let reset = exporter.wait(reset, soon()).unwrap();
    reset.done();
    until(&mut exporter, mapped);
    let gone = exporter.buffer().begin(Disturbance::Removal).unwrap();
    while exporter.importers().next().is_some() {
        exporter.serve(soon()).unwrap();
    }
    drop(gone);
    relayed.join().unwrap();
}

/// Its exporter alone knows whether a close happens: another importer may hold on, and the memory be kept.
#[test]
fn a_close_that_is_given_up_leaves_the_relayed_buffer_alive() {
    let folder = Folder::new("kept");
    let mut exporter = exporter(&folder.socket(), frames());
    let path = folder.socket();
    let other = path.clone();
    let relayed = thread::spawn(move || {
        let mut relay = relay(&path);
        let (seat, follower) = follow(relay.buffer(), false);
        *follower.held.lock().unwrap() = Some(seat.map().unwrap());
        next(&mut relay, |relayed| *relayed == Relayed::Away);
        next(&mut relay, |relayed| matches!(relayed, Relayed::Within(_)));
        assert!(seat.map().is_ok());
        next(&mut relay, |relayed| *relayed == Relayed::Gone);
    });
    until(&mut exporter, mapped);
    let holds = thread::spawn(move || {
        let mut importer = Importer::attach(&other, cooperative("other"), soon()).unwrap();
        let mapped = importer.map(soon()).unwrap();
        (importer, mapped)
    });
    until(&mut exporter, mapped);
    let (importer, held) = holds.join().unwrap();
    let close = exporter.buffer().begin(Disturbance::Close).unwrap();
    while exporter.importers().map(|importer| importer.mappings).sum::<u32>() > 1 {
        exporter.serve(soon()).unwrap();
    }
    let Err(WaitError::Late(late)) = exporter.wait(close, Instant::now()) else { unreachable!("the other holds on") };
    drop(late);
    until(&mut exporter, mapped);
    drop((held, importer));
    let close = exporter.buffer().begin(Disturbance::Close).unwrap();
    exporter.wait(close, soon()).unwrap().done();
    while exporter.importers().next().is_some() {
        exporter.serve(soon()).unwrap();
    }
    relayed.join().unwrap();
}

#[test]
fn a_relay_that_is_dropped_takes_the_memory_from_its_followers_before_the_exporter_hears() {
    let folder = Folder::new("dropped");
    let mut exporter = exporter(&folder.socket(), frames());
    let path = folder.socket();
    let relayed = thread::spawn(move || {
        let relay = relay(&path);
        let (seat, follower) = follow(relay.buffer(), false);
        *follower.held.lock().unwrap() = Some(seat.map().unwrap());
        drop(relay);
        assert!(follower.held.lock().unwrap().is_none());
        assert!(seat.map().is_err(), "nobody would tell it of anything any more");
    });
    until(&mut exporter, mapped);
    while exporter.importers().next().is_some() {
        exporter.serve(soon()).unwrap();
    }
    relayed.join().unwrap();
}

#[test]
fn an_attachment_that_cannot_be_relayed_is_refused_with_what_to_declare() {
    let folder = Folder::new("unrelayed");
    let moves = Shared { stays: Stays { moves: Moves::AtWill, ..Stays::UNTIL_REVOKED }, ..frames() };
    let mut exporter = exporter(&folder.socket(), Shared { floor: Enforcement::None, ..moves });
    let path = folder.socket();
    let tried = thread::spawn(move || {
        let attempt = |declare| Relay::new(Importer::attach(&path, declare, soon()).unwrap(), OWNER).unwrap_err();
        let movable = attempt(Declare { takes: Lifetime::Movable, ..cooperative("relay") });
        let silent =
            attempt(Declare { takes: Lifetime::Movable, enforcement: Enforcement::None, ..cooperative("relay") });
        (movable, silent)
    });
    until(&mut exporter, attached);
    until(&mut exporter, attached);
    let (movable, silent) = tried.join().unwrap();
    assert!(matches!(movable, RelayError::Moves), "{movable}");
    assert!(matches!(silent, RelayError::Moves | RelayError::Unenforced), "{silent}");
}
