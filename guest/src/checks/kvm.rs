//! What KVM does with slots over BARs, files and guest memory, and with slots that follow a buffer.
//!
//! A real virtual machine runs in the guest, a page of code long. What it stores is looked for through the mapping
//! that the library has of the same memory, and what it loads it says at a port.

mod backings;
mod following;
mod hostile;
mod inner;
mod inputs;
mod one_memfd;
mod taken_away;

use inner::PORT;
pub(crate) use inner::{Inner, told};

use super::asked::Asked;
use super::bench::{PAGE, USED, used};
use super::claim::Stop;
use super::worker::Worker;
use peerdma::access::Prot;
use peerdma::addr::{Bytes, GuestPhys};
use peerdma::buffer::shared::Part;
use peerdma::pcie::PciAddr;
use peerdma_linux::kvm::{Kvm, Slot, SlotMemory, Vm};
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::{BarMapping, Command, Nodes, VfioDevice};
use std::sync::Arc;

/// Where the inner guest sees what a claim is about.
const MEMORY: GuestPhys = GuestPhys::new(0x1000_0000);

/// The target, and KVM.
struct Tried {
    kvm: Kvm,
    // A mapping keeps its device open, and a device its container.
    bar: Arc<BarMapping>,
    device: Arc<VfioDevice>,
    _space: Type1Space,
    /// A graphics device whose driver imports dma-bufs, and a drive, where the guest has them.
    importer: Option<PciAddr>,
    drive: Option<PciAddr>,
}

pub(super) fn run(asked: &Asked, worker: &mut Worker<'_>) {
    let (target, importer, drive) = (asked.target, asked.importer, asked.shared);
    let mut claims = backings::claims();
    claims.extend(taken_away::claims());
    claims.extend(following::claims());
    claims.extend(inputs::claims());
    claims.extend(one_memfd::claims());
    claims.extend(hostile::claims());
    worker.claims(move || set_up(target, importer, drive), Tried::clear, claims);
}

fn set_up(target: Option<PciAddr>, importer: Option<PciAddr>, drive: Option<PciAddr>) -> Result<Tried, Stop> {
    let target = target.ok_or_else(|| Stop::broken("name a target with --target"))?;
    let kvm = Kvm::open()?;
    let space = Type1Space::open(&Nodes::live(), &[target])?;
    let device = space.device(target)?;
    device.set_command(Command::MEMORY)?;
    let bar = Arc::new(device.map(used()?)?);
    Ok(Tried { kvm, bar, device: Arc::new(device), _space: space, importer, drive })
}

impl Tried {
    /// Memory space on, and zeros in it.
    fn clear(&mut self) -> Result<(), Stop> {
        self.device.set_command(Command::MEMORY)?;
        Ok(self.bar.write(Bytes::ZERO, &[0; USED.as_u64() as usize])?)
    }

    fn memory(&self) -> Result<SlotMemory, Stop> {
        Ok(SlotMemory::of_bar(&self.bar, used()?)?)
    }

    /// A slot of all of the BAR that claims use.
    fn slot(&self, vm: &Vm) -> Result<Slot, Stop> {
        Ok(vm.add(MEMORY, &self.memory()?, Part::new(Bytes::ZERO, USED), Prot::ReadWrite)?)
    }

    /// The word at an offset of the BAR.
    fn word(&self, at: u64) -> Result<u32, Stop> {
        Ok(self.bar.load_u32(Bytes::new(at))?)
    }
}

/// A page of the guest.
fn page() -> Part {
    Part::new(Bytes::ZERO, PAGE)
}

/// The address `offset` bytes behind where memory is.
fn at(offset: u64) -> GuestPhys {
    GuestPhys::new(MEMORY.as_u64() + offset)
}
