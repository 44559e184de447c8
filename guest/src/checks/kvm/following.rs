//! Claims about slots that follow a buffer.

use super::super::bench::{PAGE, USED, used};
use super::super::claim::{Claim, Stop, equal};
use super::inner::{Inner, told};
use super::taken_away::stopped_at;
use super::{MEMORY, Tried, at};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::Enforcement;
use peerdma::buffer::life::{Answers, Disturbance};
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::shared::Buffer;
use peerdma::buffer::terms::{Methods, Moves, Offer, Place, Stays};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::{Owner, OwnerId, Owners, Peers, Source};
use peerdma_linux::kvm::{BufferSlot, CpuFile, Exit, NotRestored, Vm};
use peerdma_linux::memory::{Backing, Pages};
use peerdma_linux::vfio::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The target's memory.
const BAR: Owner = Owner::Device(OwnerId::new(1));
/// Memory that a buffer goes to.
const RAM: Owner = Owner::Memfd(OwnerId::new(2));
const SOON: Duration = Duration::from_secs(20);
const NOW: Duration = Duration::ZERO;

/// How often memory is taken from a guest that goes on storing.
const ROUNDS: u32 = 50;

pub(super) fn claims() -> Vec<Claim<Tried>> {
    vec![
        Claim::new(
            "a slot shows a buffer's memory, stops the guest while it is revoked, and the guest goes on after",
            follows,
        ),
        Claim::new("a guest that is told nothing is kept from memory that would still answer", kept_away),
        Claim::new("a buffer that moves is found at its new place, and its old place is not written to", moves),
        Claim::new("a buffer that is closed is gone for the guest, and restoring it says so", closed),
        Claim::new("the slot of a buffer moves with a BAR while the buffer shows, and while it does not", bar_moves),
        Claim::new("while nobody restores, a revoked buffer waits for no guest", nobody_restores),
        Claim::new(
            "a guest's stores stop and go on with a buffer, fifty times, and none lands while it is revoked",
            fifty,
        ),
    ]
}

/// A buffer of the target's memory, and of a file that it may move to.
fn buffer_of(tried: &Tried, ram: &Pages) -> Result<(Buffer, Owners<CpuFile>), Stop> {
    let offer =
        Offer::new(all_of(BAR)?, Stays { moves: Moves::AtWill, revoked: true }, Place::Device(RegionId::new(0)))?
            .permitting(Methods::CPU | Methods::DMA)
            .to_peers();
    let offer = offer.or_at(Place::Ram, RAM);
    let mut files = Owners::new();
    let bar = CpuFile::of_bar(&tried.device, used()?)?;
    files.add(BAR, Bytes::ZERO, USED, Source::File { file: bar, offset: Bytes::ZERO });
    let file = ram.file().ok_or_else(|| Stop::broken("pages of a memfd have no file"))?.try_clone_to_owned()?;
    let file = CpuFile::of_file(Arc::new(file));
    files.add(RAM, Bytes::ZERO, USED, Source::File { file, offset: Bytes::ZERO });
    Ok((Buffer::new("bar2", offer, Answers::YES), files))
}

fn all_of(owner: Owner) -> Result<Chunks<Owner>, Stop> {
    let chunk = Chunk::new(owner, Bytes::ZERO, USED, MemAttrs::empty());
    Ok(Chunks::collect_from([chunk.ok_or_else(|| Stop::broken("no chunk"))?])?)
}

/// A machine with a slot that follows a buffer.
struct Setting {
    buffer: Buffer,
    slot: BufferSlot,
    inner: Inner,
    ram: Pages,
    _vm: Vm,
}

fn setting(tried: &Tried) -> Result<Setting, Stop> {
    let vm = tried.kvm.create_vm()?;
    let ram = Pages::backed(Backing::Memfd, USED)?;
    let (buffer, files) = buffer_of(tried, &ram)?;
    let who = ("inner guest", Prot::ReadWrite, Enforcement::Kernel);
    let slot = vm.follow(MEMORY, &buffer, who, &Peers::none(), files)?;
    let inner = Inner::new(&tried.kvm, &vm)?;
    slot.restore(NOW)?;
    Ok(Setting { buffer, slot, inner, ram, _vm: vm })
}

fn follows(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, .. } = setting(tried)?;
    inner.stored(at(0), 1)?;
    equal("the BAR after a store", &1, &tried.word(0)?)?;
    let reset = buffer.begin(Disturbance::Reset)?.wait(SOON)?;
    equal("whether it shows", &false, &slot.is_there())?;
    stopped_at(slot.id(), &inner.store(at(0), 2)?)?;
    equal("restoring meanwhile", &true, &matches!(slot.restore(NOW), Err(NotRestored::OutOfReach { .. })))?;
    tried.device.reset()?;
    equal("the BAR while it is revoked", &1, &tried.word(0)?)?;
    reset.done();
    stopped_at(slot.id(), &inner.vcpu.run()?)?;
    slot.restore(SOON)?;
    inner.goes_on(2)?;
    equal("the BAR after it came back", &2, &tried.word(0)?)
}

fn kept_away(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, .. } = setting(tried)?;
    // The inner guest has it in its tables.
    inner.stored(at(PAGE.as_u64()), 7)?;
    let disturbed = buffer.begin(Disturbance::FunctionReset)?.wait(SOON)?;
    // Memory space is on all the time.
    for offset in [0, PAGE.as_u64()] {
        stopped_at(slot.id(), &inner.store(at(offset), 8)?)?;
        stopped_at(slot.id(), &inner.load(at(offset))?)?;
    }
    equal("the BAR", &(0, 7), &(tried.word(0)?, tried.word(PAGE.as_u64())?))?;
    disturbed.done();
    Ok(())
}

fn moves(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, ram, .. } = setting(tried)?;
    inner.stored(at(8), 11)?;
    let moving = buffer.begin(Disturbance::Move)?.wait(SOON)?;
    let mut bytes = vec![0; USED.as_u64() as usize];
    tried.bar.read(Bytes::ZERO, &mut bytes)?;
    ram.write(Bytes::ZERO, &bytes)?;
    moving.moved(all_of(RAM)?, Place::Ram, &Peers::none()).map_err(|not| Stop::broken(not.to_string()))?;
    stopped_at(slot.id(), &inner.load(at(8))?)?;
    slot.restore(SOON)?;
    inner.goes_on(11)?;
    inner.stored(at(8), 12)?;
    let mut word = [0; 4];
    ram.read(Bytes::new(8), &mut word)?;
    equal("the new place and the old one", &(12, 11), &(u32::from_le_bytes(word), tried.word(8)?))
}

fn closed(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, .. } = setting(tried)?;
    buffer.begin(Disturbance::Close)?.wait(SOON)?.done();
    stopped_at(slot.id(), &inner.store(at(0), 3)?)?;
    equal("restoring what is gone", &Err(NotRestored::Gone), &slot.restore(SOON))?;
    drop(slot);
    equal("a store after that", &Exit::Store { at: at(0), bytes: vec![3, 0, 0, 0] }, &inner.vcpu.run()?)?;
    equal("the BAR", &0, &tried.word(0)?)
}

fn bar_moves(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, .. } = setting(tried)?;
    let (second, third) = (GuestPhys::new(0x2000_0000), GuestPhys::new(0x3000_0000));
    slot.move_to(second)?;
    inner.stored(second, 21)?;
    let moving = buffer.begin(Disturbance::BarMove)?.wait(SOON)?;
    slot.move_to(third)?;
    stopped_at(slot.id(), &inner.store(third, 22)?)?;
    moving.done();
    slot.restore(SOON)?;
    inner.goes_on(22)?;
    equal("where it is, and what is there", &(third, 22), &(slot.range().start(), tried.word(0)?))
}

fn nobody_restores(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, .. } = setting(tried)?;
    let begun = Instant::now();
    for _ in 0..3 {
        buffer.begin(Disturbance::Reset)?.wait(SOON)?.done();
    }
    equal("whether it waited", &true, &(begun.elapsed() < SOON))?;
    equal("whether it shows", &false, &slot.is_there())
}

/// What the thread that runs the guest and the one that takes its memory away share.
#[derive(Default)]
struct Told {
    /// What the guest stored last, as it says.
    value: AtomicU32,
    /// How often it was stopped.
    stopped: AtomicU32,
    enough: AtomicBool,
}

fn fifty(tried: &mut Tried) -> Result<(), Stop> {
    let Setting { buffer, slot, mut inner, .. } = setting(tried)?;
    let told_here = Told::default();
    inner.count(at(0), 1)?;
    let outcome = thread::scope(|scope| {
        let guest = scope.spawn(|| runs(&mut inner, &slot, &told_here));
        let outcome = rounds(tried, &buffer, &told_here);
        told_here.enough.store(true, Ordering::Release);
        match guest.join() {
            Ok(ran) => outcome.and(ran),
            Err(_) => Err(Stop::broken("the guest's thread panicked")),
        }
    });
    outcome?;
    let stopped = told_here.stopped.load(Ordering::Acquire);
    equal("whether the guest was stopped in most rounds", &true, &(stopped >= ROUNDS / 2))
}

/// Runs the guest until it is enough, and restores its memory when it is stopped.
fn runs(inner: &mut Inner, slot: &BufferSlot, here: &Told) -> Result<(), Stop> {
    while !here.enough.load(Ordering::Acquire) {
        let exit = inner.vcpu.run()?;
        match (told(&exit), &exit) {
            (Some(value), _) => here.value.store(value, Ordering::Release),
            (None, Exit::Revoked { .. }) => {
                here.stopped.fetch_add(1, Ordering::AcqRel);
                slot.restore(SOON)?;
            }
            (None, other) => return Err(Stop::broken(format!("the inner guest left with {other:?}"))),
        }
    }
    Ok(())
}

fn rounds(tried: &Tried, buffer: &Buffer, here: &Told) -> Result<(), Stop> {
    for round in 0..ROUNDS {
        let before = here.value.load(Ordering::Acquire);
        let what = if round % 2 == 0 { Disturbance::DecodeOff } else { Disturbance::FunctionReset };
        let disturbed = buffer.begin(what)?.wait(SOON)?;
        let held = tried.word(0)?;
        thread::sleep(Duration::from_millis(2));
        equal("the BAR while it is revoked", &held, &tried.word(0)?)?;
        match round {
            _ if what == Disturbance::DecodeOff => {
                tried.device.clear_command(Command::MEMORY)?;
                tried.device.set_command(Command::MEMORY)?;
            }
            1 | 25 => tried.device.reset()?,
            _ => {}
        }
        equal("the BAR after what was done to it", &held, &tried.word(0)?)?;
        disturbed.done_answering(Answers::YES);
        let until = Instant::now() + SOON;
        while here.value.load(Ordering::Acquire) <= before.max(held) + 1 {
            if Instant::now() > until {
                return Err(Stop::broken(format!("round {round}: the guest did not go on from {held}")));
            }
            thread::yield_now();
        }
    }
    Ok(())
}
