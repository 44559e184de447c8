//! Claims about a virtual machine whose memory is taken away by the kernel, or by deleting its slot.

use super::super::bench::USED;
use super::super::claim::{Claim, Stop, equal};
use super::inner::Inner;
use super::{MEMORY, Tried, at};
use peerdma::addr::{Bytes, GuestPhys};
use peerdma_linux::kvm::{Exit, RunError, Slot};
use peerdma_linux::vfio::Command;

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new(
            "with memory space off a store stops as revoked, and the same processor goes on when it is on",
            store,
        ),
        Claim::new("a load that was stopped gets what stands there when memory space is on again", load),
        Claim::new("a store to a deleted slot leaves as one to a hole and is never tried again", hole),
        Claim::new("a load from a deleted slot gets what is answered and is never tried again", hole_load),
        Claim::new("a slot that moves is found at its new place and not at the old one", moved),
        Claim::new("a guest that touches nothing of ours is stopped by an error and not as revoked", not_ours),
    ]
}

/// Breaks the claim unless the processor stopped at this slot's memory.
pub(super) fn stopped_at(slot: peerdma_linux::kvm::SlotId, exit: &Exit) -> Result<(), Stop> {
    match exit {
        Exit::Revoked { slots, .. } => equal("slots that may be away", &vec![slot], slots),
        other => Err(Stop::broken(format!("expected memory that was taken away, seen {other:?}"))),
    }
}

fn store(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (slot, mut inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    inner.stored(at(0), 1)?;
    tried.device.clear_command(Command::MEMORY)?;
    stopped_at(slot.id(), &inner.store(at(0), 2)?)?;
    stopped_at(slot.id(), &inner.vcpu.run()?)?;
    tried.device.set_command(Command::MEMORY)?;
    equal("the BAR while the store waits", &1, &tried.word(0)?)?;
    inner.goes_on(2)?;
    equal("the BAR after the store", &2, &tried.word(0)?)
}

fn load(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (slot, mut inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    tried.device.clear_command(Command::MEMORY)?;
    stopped_at(slot.id(), &inner.load(at(4))?)?;
    tried.device.set_command(Command::MEMORY)?;
    tried.bar.store_u32(Bytes::new(4), 43)?;
    inner.goes_on(43)
}

fn hole(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (slot, mut inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    slot.delete()?;
    equal("a store", &Exit::Store { at: at(0), bytes: vec![9, 0, 0, 0] }, &inner.store(at(0), 9)?)?;
    let _again = tried.slot(&vm)?;
    inner.goes_on(9)?;
    equal("the BAR: the store is lost", &0, &tried.word(0)?)
}

fn hole_load(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (slot, mut inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    tried.bar.store_u32(Bytes::ZERO, 50)?;
    slot.delete()?;
    equal("a load", &Exit::Load { at: at(0), len: 4 }, &inner.load(at(0))?)?;
    equal("running without an answer", &Err(RunError::Unanswered { len: 4 }), &inner.vcpu.run())?;
    let _again = tried.slot(&vm)?;
    inner.vcpu.answer(&51u32.to_le_bytes())?;
    inner.goes_on(51)
}

fn moved(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (mut slot, mut inner): (Slot, Inner) = (tried.slot(&vm)?, Inner::new(&tried.kvm, &vm)?);
    inner.stored(at(0), 3)?;
    let elsewhere = GuestPhys::new(MEMORY.as_u64() + USED.as_u64());
    slot.move_to(elsewhere)?;
    equal("where it is", &elsewhere, &slot.range().start())?;
    equal("what is found at the new place", &3, &inner.loaded(elsewhere)?)?;
    equal("a store to the old place", &Exit::Store { at: at(0), bytes: vec![4, 0, 0, 0] }, &inner.store(at(0), 4)?)?;
    equal("the BAR", &3, &tried.word(0)?)
}

fn not_ours(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    // Another handle of the machine makes a slot that this one knows nothing of, over memory that goes.
    let other = peerdma_linux::kvm::Vm::from_fd(std::os::fd::AsFd::as_fd(&vm).try_clone_to_owned()?, 100..=100)?;
    let _slot = tried.slot(&other)?;
    tried.device.clear_command(Command::MEMORY)?;
    match inner.store(at(0), 5) {
        Err(Stop::Broken(why)) if why.contains("somebody else made") => Ok(()),
        other => Err(Stop::broken(format!("a store to a stranger's memory: {other:?}"))),
    }
}
