//! A guest that does its worst at the edges of a BAR's page: there, with memory space off, and when the slot was deleted.

use super::super::bench::{PAGE, USED};
use super::super::claim::{Claim, Stop, equal};
use super::inner::{HOSTILE, Inner};
use super::{MEMORY, PORT, Tried};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::shared::Part;
use peerdma_linux::kvm::{Exit, MissedAccess, RunError};
use peerdma_linux::vfio::Command;

/// How many exits of one instruction are looked at: a string instruction has one for each unit that finds a hole.
const EXITS: usize = 80;

/// Bytes from the page's start, on both sides of both edges.
const PLACES: [i64; 7] = [-64, -3, 0, 1, 0xffc, 0xffd, 0x1000];

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![Claim::new(
        "whatever a guest does at the edges of a BAR's page ends in documented exits, and in that page while it is there",
        edges,
    )]
}

fn edges(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    // The second page of the BAR, between two holes.
    let slot = vm.add(MEMORY, &tried.memory()?, Part::new(PAGE, PAGE), Prot::ReadWrite)?;
    let mut inner = Inner::new(&tried.kvm, &vm)?;
    let filled = filled();
    tried.bar.write(Bytes::ZERO, &filled)?;
    everything(&mut inner, "there", |words| {
        let seen = bytes(tried)?;
        let (page, two) = (PAGE.as_u64() as usize, 2 * PAGE.as_u64() as usize);
        let is_so = seen[..page] == filled[..page] && seen[two..] == filled[two..];
        equal(&format!("whether the pages beside are as they were: {words}"), &true, &is_so)?;
        // For one that runs what it wrote.
        Ok(tried.bar.write(PAGE, &filled[page..two])?)
    })?;
    tried.device.clear_command(Command::MEMORY)?;
    everything(&mut inner, "memory off", |_| Ok(()))?;
    tried.device.set_command(Command::MEMORY)?;
    equal("whether the BAR is as it was, memory on again", &true, &(bytes(tried)? == filled))?;
    slot.delete()?;
    everything(&mut inner, "deleted", |_| Ok(()))?;
    equal("whether the BAR is as it was, the slot deleted", &true, &(bytes(tried)? == filled))?;
    let _again = tried.slot(&vm)?;
    inner.stored(MEMORY, 77)?;
    equal("a store after all that", &77, &tried.word(0)?)
}

/// A pattern, and `nop` in the page that the guest may run.
fn filled() -> Vec<u8> {
    let page = PAGE.as_u64() as usize;
    let mut bytes = vec![0xa5; USED.as_u64() as usize];
    bytes[page..2 * page].fill(0x90);
    bytes
}

fn bytes(tried: &Tried) -> Result<Vec<u8>, Stop> {
    let mut seen = vec![0; USED.as_u64() as usize];
    tried.bar.read(Bytes::ZERO, &mut seen)?;
    Ok(seen)
}

fn everything(inner: &mut Inner, when: &str, mut look: impl FnMut(&str) -> Result<(), Stop>) -> Result<(), Stop> {
    for (nth, (name, _)) in HOSTILE.iter().enumerate() {
        for place in PLACES {
            let words = format!("{name} at {place:#x}, {when}");
            inner.does(nth, GuestPhys::new(MEMORY.as_u64().wrapping_add_signed(place)))?;
            runs(inner).map_err(|why| Stop::Broken(format!("{words}: {why}")))?;
            look(&words)?;
        }
    }
    Ok(())
}

/// Runs the guest until it has ended what it was at, or is held up; has KVM finish what it carries out itself then, so that
/// another instruction can begin.
fn runs(inner: &mut Inner) -> Result<(), String> {
    let mut is_over = false;
    for count in 0..2 * EXITS {
        is_over |= count >= EXITS;
        if is_over {
            inner.vcpu.stop_next();
        }
        let answered = match inner.vcpu.run() {
            Ok(Exit::Load { len, .. } | Exit::In { len, .. }) => inner.vcpu.answer(&vec![0; len]),
            Ok(Exit::Missed { access: MissedAccess::Load { len, .. }, .. }) => inner.vcpu.answer(&vec![0; len]),
            Ok(Exit::Missed { .. } | Exit::Store { .. }) => Ok(()),
            Ok(Exit::Out { port: PORT, .. } | Exit::Halted | Exit::ShutDown | Exit::Revoked { .. }) if !is_over => {
                is_over = true;
                Ok(())
            }
            Ok(Exit::Interrupted) if is_over => return Ok(()),
            // What KVM cannot take apart, as code in a hole.
            Err(RunError::Internal { .. }) => return Ok(()),
            // It is tried again, and cannot be.
            Ok(Exit::Revoked { .. } | Exit::ShutDown | Exit::Halted) if is_over => return Ok(()),
            other => return Err(format!("{other:?}")),
        };
        answered.map_err(|error| error.to_string())?;
    }
    Err("it does not come to an end".into())
}
