//! Claims about private registers, with importers that hold real attachments.

use super::super::tests::{LONG, Nic, SHORT, attach_as};
use super::super::{AttachError, MapRefused};
use super::*;
use crate::access::{MemAttrs, Prot};
use crate::addr::Bytes;
use crate::buffer::Lifetime;
use crate::buffer::confidential::Barred;
use crate::buffer::life::{Disturbance, Phase};
use crate::buffer::terms::{Declaration, Place, Rule, Stays};
use crate::chunk::{Chunk, Chunks};
use crate::dma::{Initiator, Owner};
use crate::topology::IommuMode;
use alloc::sync::Arc;

/// Writes down what it was asked to do, and fails at one thing.
#[derive(Default)]
struct Device {
    done: Vec<Action>,
    fails_at: Option<Action>,
    answers: Option<Answers>,
}

#[derive(Debug, thiserror::Error)]
#[error("the device is out of order")]
struct OutOfOrder;

impl Interface for Device {
    type Error = OutOfOrder;

    fn perform(&mut self, action: Action) -> Result<(), OutOfOrder> {
        if self.fails_at == Some(action) {
            return Err(OutOfOrder);
        }
        self.done.push(action);
        Ok(())
    }

    fn answers(&mut self) -> Option<Answers> {
        self.answers
    }
}

fn offer() -> Offer {
    let chunk = Chunk::new(Owner::Ram, Bytes::new(0x10_0000), Bytes::new(0x2000), MemAttrs::empty());
    Offer::new(Chunks::collect_from(chunk).unwrap_or_default(), Stays::UNTIL_REVOKED, Place::Ram)
        .expect("there are ranges")
        .permitting(Methods::DMA | Methods::CPU | Methods::FRAMES)
}

/// The guest's own tables, into which its memory goes as private.
fn tables() -> Declaration {
    Declaration::of_tables("guest", Prot::ReadWrite).taking(Lifetime::Revocable).of_same_guest()
}

fn bar() -> PrivateBar<Device> {
    PrivateBar::new(Answers::YES, Device::default())
}

/// A device of the guest, accepted or not.
fn device(interface: confidential::Interface) -> Declaration {
    let nic = Initiator::new("nic0", IommuMode::Translated).with_interface(interface);
    Declaration::of_device(nic, Prot::ReadWrite).taking(Lifetime::Revocable).of_same_guest()
}

fn process() -> Declaration {
    Declaration::of_process("viewer", Prot::ReadWrite).taking(Lifetime::Revocable)
}

fn locked() -> PrivateBar<Device> {
    let mut bar = bar();
    bar.attach_viommu().unwrap();
    bar.prepare().unwrap();
    bar.lock(LONG).unwrap();
    bar
}

fn rule(refused: AttachError) -> Option<Rule> {
    match refused {
        AttachError::Terms(refusal) => Some(refusal.rule),
        _ => None,
    }
}

/// From the lock on, the memory is the guest's, and nobody outside attaches on what it was before.
#[test]
fn a_lock_takes_the_memory_from_processes_and_from_devices_without_t_until_it_is_closed() {
    let (mut bar, nic) = (bar(), Arc::new(Nic::default()));
    let shared = bar.export("frames", offer()).unwrap();
    let plain = device(confidential::Interface::Plain);
    let seat = attach_as(&shared, &nic, &plain).unwrap();
    let by_cpu = attach_as(&shared, &Arc::new(Nic::default()), &process()).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    bar.prepare().unwrap();
    bar.attach_viommu().unwrap();
    bar.lock(LONG).unwrap();
    assert!(bar.device().done.ends_with(&[Action::LockInterface]), "after all have let go");
    for seat in [&seat, &by_cpu] {
        assert!(matches!(seat.map(), Err(MapRefused::Life(_))), "attached before");
    }
    bar.start_guest().unwrap();
    bar.run().unwrap();
    let late = Arc::new(Nic::default());
    assert_eq!(rule(attach_as(&shared, &late, &process()).unwrap_err()), Some(Rule::PrivateToCpu));
    assert_eq!(rule(attach_as(&shared, &late, &plain).unwrap_err()), Some(Rule::Confidential));
    let born = bar.export("more frames", offer()).unwrap();
    assert_eq!(born.phase(), Phase::Revoked);
    assert_eq!(rule(attach_as(&born, &late, &process()).unwrap_err()), Some(Rule::PrivateToCpu));
    bar.close(LONG).unwrap();
    assert_eq!(bar.device().done.last(), Some(&Action::Reset), "nothing of the guest's is left when it is returned");
    assert!(seat.map().is_ok() && by_cpu.map().is_ok());
    assert!(attach_as(&born, &late, &process()).is_ok());
}

#[test]
fn the_guest_maps_while_the_interface_runs_and_no_cpu_of_a_process_ever_does() {
    let mut bar = locked();
    let too_early = bar.export_private("frames", offer()).unwrap_err();
    assert!(matches!(too_early, PrivateError::Refused(refusal) if refusal.why == Barred::NotRunning));
    bar.start_guest().unwrap();
    bar.run().unwrap();
    let own = bar.export_private("frames", offer()).unwrap();
    let nic = Arc::new(Nic::default());
    let seat = attach_as(&own, &nic, &tables()).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    let another = Declaration::of_tables("another", Prot::ReadWrite).taking(Lifetime::Revocable);
    let refused = [
        (process(), Rule::MethodNotOffered),
        (another, Rule::PrivateToOthers),
        // Accepted, and on no stream that the guest has bound between the two.
        (device(confidential::Interface::Run), Rule::Confidential),
        (device(confidential::Interface::Locked), Rule::Confidential),
        (device(confidential::Interface::Plain), Rule::Confidential),
    ];
    for (declaration, expected) in refused {
        assert_eq!(rule(attach_as(&own, &Arc::new(Nic::default()), &declaration).unwrap_err()), Some(expected));
    }
    bar.unlock(LONG).unwrap();
    assert_eq!((own.phase(), bar.stage()), (Phase::Dead, Stage::Prepared));
    assert_eq!(*nic.told.lock().unwrap(), ["let go: close", "gone"]);
}

#[test]
fn a_lock_waits_for_who_holds_on_and_can_be_given_up() {
    let (mut bar, nic) = (bar(), Arc::new(Nic::that_keeps()));
    let shared = bar.export("frames", offer()).unwrap();
    let seat = attach_as(&shared, &nic, &device(confidential::Interface::Plain)).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    bar.prepare().unwrap();
    bar.attach_viommu().unwrap();
    for _ in 0..2 {
        let PrivateError::Late { held, .. } = bar.lock(SHORT).unwrap_err() else { unreachable!("it is mapped") };
        assert_eq!(held.len(), 1);
        assert_eq!(bar.stage(), Stage::Locking);
        assert!(!bar.device().done.contains(&Action::LockInterface));
    }
    bar.unlock(LONG).unwrap();
    assert_eq!((bar.stage(), shared.phase()), (Stage::Prepared, Phase::Live));
    nic.hold(None);
    bar.lock(LONG).unwrap();
    assert_eq!((bar.stage(), shared.phase()), (Stage::Locked, Phase::Revoked));
}

#[test]
fn a_device_that_fails_leaves_the_memory_to_nobody_and_the_step_can_be_taken_again() {
    let mut bar = locked();
    let shared = bar.export("frames", offer()).unwrap();
    bar.device.fails_at = Some(Action::Unbind);
    let PrivateError::Undone(undone) = bar.close(LONG).unwrap_err() else { unreachable!("it fails") };
    assert_eq!((undone.action, undone.done), (Action::Unbind, [Action::StopInterface].to_vec()));
    assert_eq!((bar.stage(), shared.phase()), (Stage::Locked, Phase::Revoked));
    bar.device.fails_at = None;
    bar.device.answers = Some(Answers { decoding: false, powered: true });
    bar.close(LONG).unwrap();
    assert_eq!(shared.phase(), Phase::Revoked, "the reset left decoding off");
    bar.shared().disturb(Disturbance::DecodeOff).unwrap().wait(LONG).unwrap().done_answering(Answers::YES);
    assert_eq!(shared.phase(), Phase::Live);
}

#[test]
fn an_interface_in_error_ends_what_the_guest_had_whoever_holds_on() {
    let mut bar = locked();
    bar.start_guest().unwrap();
    bar.run().unwrap();
    let own = bar.export_private("frames", offer()).unwrap();
    let nic = Arc::new(Nic::that_keeps());
    let seat = attach_as(&own, &nic, &tables()).unwrap();
    nic.hold(Some(seat.map().unwrap()));
    bar.fail().unwrap();
    assert_eq!(bar.stage(), Stage::Failed);
    assert!(own.phase() != Phase::Live && seat.map().is_err());
    assert!(matches!(bar.run(), Err(PrivateError::Refused(refusal)) if refusal.why == Barred::InError));
    bar.unlock(LONG).unwrap();
    bar.lock(LONG).unwrap();
    bar.run().unwrap();
}

/// Early: locked before the guest starts. Late: when it asks for it. An IOMMU that comes after the start is late for both.
#[test]
fn early_and_late_binding_both_work_and_a_late_iommu_is_refused_by_name() {
    let early = |bar: &mut PrivateBar<Device>| {
        bar.attach_viommu()?;
        bar.prepare()?;
        bar.lock(LONG)?;
        bar.start_guest()?;
        bar.run()
    };
    let late = |bar: &mut PrivateBar<Device>| {
        bar.attach_viommu()?;
        bar.start_guest()?;
        bar.prepare()?;
        bar.lock(LONG)?;
        bar.run()
    };
    for binding in [early as fn(&mut PrivateBar<Device>) -> _, late] {
        let mut bar = bar();
        let bound: Result<(), PrivateError<OutOfOrder>> = binding(&mut bar);
        bound.unwrap();
        assert_eq!(bar.stage(), Stage::Running);
    }
    let mut bar = bar();
    bar.start_guest().unwrap();
    let refused = bar.attach_viommu().unwrap_err();
    assert!(refused.to_string().contains("viommu_after_start"), "{refused}");
}
