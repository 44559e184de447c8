//! Claims about slots that cannot be: each is refused by name, and the guest has what it had.

use super::super::bench::{PAGE, USED};
use super::super::claim::{Claim, Stop};
use super::{MEMORY, Tried, at};
use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::shared::Part;
use peerdma_linux::kvm::{Kvm, KvmError, SlotError, Vm};
use std::fs::File;
use std::os::fd::AsFd;

/// A slot that cannot be: its words, where, which part, and whether the error is the one.
type Row = (&'static str, GuestPhys, Part, fn(&SlotError) -> bool);

fn rows() -> Vec<Row> {
    let part = |at, len| Part::new(Bytes::new(at), Bytes::new(len));
    let (page, used) = (PAGE.as_u64(), USED.as_u64());
    vec![
        ("of no bytes", MEMORY, part(0, 0), |error| matches!(error, SlotError::Empty)),
        ("at an unaligned guest address", at(0x800), part(0, page), |error| {
            matches!(error, SlotError::NotPages { .. })
        }),
        ("of an unaligned part", MEMORY, part(0x800, page), |error| matches!(error, SlotError::NotPages { .. })),
        ("of an unaligned length", MEMORY, part(0, 0x800), |error| matches!(error, SlotError::NotPages { .. })),
        ("longer than its memory", MEMORY, part(0, used + page), |error| {
            matches!(error, SlotError::BeyondMemory { .. })
        }),
        ("behind its memory", MEMORY, part(used, page), |error| matches!(error, SlotError::BeyondMemory { .. })),
        ("longer than any", MEMORY, part(0, 1 << 43), |error| matches!(error, SlotError::TooLong { .. })),
        ("past the last address", GuestPhys::new(u64::MAX - (page - 1)), part(0, page), |error| {
            matches!(error, SlotError::PastEnd { .. })
        }),
        ("past the guest's own last address", GuestPhys::new(1 << 60), part(0, page), |error| {
            matches!(error, SlotError::Kernel { .. })
        }),
    ]
}

pub(super) fn claims() -> Vec<Claim<Tried>> {
    let row = |(words, guest, part, is): Row| {
        Claim::new(format!("a slot {words} is refused by name"), move |tried: &mut Tried| {
            let vm = tried.kvm.create_vm()?;
            refused(is, vm.add(guest, &tried.memory()?, part, Prot::ReadWrite))?;
            // Nothing of it was kept.
            tried.slot(&vm).map(drop)
        })
    };
    let mut claims: Vec<Claim<Tried>> = rows().into_iter().map(row).collect();
    claims.push(Claim::new("a slot in the way of another is refused by name, whoever made that", overlap));
    claims.push(Claim::new("more slots than there are numbers for are refused by name", full));
    claims.push(Claim::new("descriptors of something else are refused by what they are of", strangers));
    claims
}

fn refused<T: std::fmt::Debug>(is: fn(&SlotError) -> bool, seen: Result<T, SlotError>) -> Result<(), Stop> {
    match seen {
        Err(error) if is(&error) => Ok(()),
        other => Err(Stop::broken(format!("expected another refusal, seen {other:?}"))),
    }
}

fn overlap(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let (_slot, memory) = (tried.slot(&vm)?, tried.memory()?);
    let one = Part::new(Bytes::ZERO, PAGE);
    let last = at(USED.as_u64() - PAGE.as_u64());
    refused(
        |error| matches!(error, SlotError::Overlaps { slot: Some(_), .. }),
        vm.add(last, &memory, one, Prot::ReadWrite),
    )?;
    let stranger = Vm::from_fd(vm.as_fd().try_clone_to_owned()?, 100..=101)?;
    refused(
        |error| matches!(error, SlotError::OverlapsForeign { .. }),
        stranger.add(last, &memory, one, Prot::ReadWrite),
    )?;
    let beside = stranger.add(at(USED.as_u64()), &memory, one, Prot::ReadWrite)?;
    drop(beside);
    Ok(())
}

fn full(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let few = Vm::from_fd(vm.as_fd().try_clone_to_owned()?, 3..=4)?;
    let memory = tried.memory()?;
    let add = |nth: u64| few.add(at(nth * PAGE.as_u64()), &memory, Part::new(Bytes::ZERO, PAGE), Prot::ReadWrite);
    let (_one, two) = (add(0)?, add(1)?);
    refused(|error| matches!(error, SlotError::Full { slots: 2 }), add(2))?;
    drop(two);
    drop(add(2)?);
    Ok(())
}

fn strangers(tried: &mut Tried) -> Result<(), Stop> {
    let vm = tried.kvm.create_vm()?;
    let null = || -> Result<_, Stop> { Ok(File::open("/dev/null")?.into()) };
    let kvm = tried.kvm.as_fd().try_clone_to_owned()?;
    let machine = vm.as_fd().try_clone_to_owned()?;
    let all = [
        Kvm::from_fd(null()?).err(),
        Kvm::from_fd(machine.try_clone()?).err(),
        Vm::from_fd(kvm, 0..=1).err(),
        peerdma_linux::kvm::Vcpu::from_fd(&tried.kvm, &vm, machine).err(),
    ];
    match all.iter().find(|error| !matches!(error, Some(KvmError::NotA { .. }))) {
        None => Ok(()),
        Some(other) => Err(Stop::broken(format!("a descriptor of something else: {other:?}"))),
    }
}
