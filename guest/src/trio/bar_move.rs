//! A BAR that a virtual machine moves: slot, the engine's mapping and the register go together, or none of them.
//!
//! No other process has part in it: one has the device, the engine and the machine.

use super::LONG;
use super::owner::Target;
use crate::checks::{Inner, PAGE, Stop, USED, Via, equal, pattern};
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, GuestPhys, Iova};
use peerdma::buffer::Enforcement;
use peerdma::buffer::shared::Part;
use peerdma::buffer::terms::Declaration;
use peerdma::dma::{self, OwnerId, Owners, Peers, Permit, Source};
use peerdma::pcie::PciAddr;
use peerdma::pcie::config::ConfigSpace;
use peerdma_linux::edu::Edu;
use peerdma_linux::engine::Engine;
use peerdma_linux::kvm::{BufferSlot, CpuFile, Exit, Kvm, SlotMemory};
use peerdma_linux::memory::Pages;
use peerdma_linux::vfio::shared::{CpuWindow, DmaImport, GuestBars, ImportRoute, Need, PlacingError};
use peerdma_linux::vfio::{Command, Deed, SharedDevice, VfioDevice};
use std::sync::{Arc, Mutex};

/// The registers of BAR 2, which is one of 64 bits, and the Command register.
const BAR_2: u16 = 0x18;
const COMMAND: u16 = 0x04;

/// Where the machine puts the BAR, and where it has memory of its own that the engine reaches too.
const FIRST: u64 = 0x1000_0000;
const SECOND: u64 = 0x2000_0000;
const THIRD: u64 = 0x5000_0000;
const MEMORY: u64 = 0x3000_0000;
/// Where nothing of the machine's is and the engine has something mapped.
const STAGING: u64 = 0x4000_0000;

/// The machine, and what it sees of the device.
struct Setting {
    inner: Inner,
    slot: Arc<BufferSlot>,
    engine: Edu,
    staging: Pages,
    window: CpuWindow<VfioDevice>,
    device: SharedDevice,
    bars: GuestBars,
    sent: u64,
}

pub(super) fn all<S: Via>(edu: PciAddr, target: Target) -> Result<(), Stop> {
    let mut space = S::open(&[edu, target.function])?;
    let initiator = space.take(edu, true)?;
    let staging = Pages::zeroed(PAGE)?;
    space.map(iovas(STAGING, PAGE)?, &Source::Process(staging.address()), Prot::ReadWrite, MemAttrs::empty())?;
    let opened = space.take(target.function, false)?;
    opened.set_command(Command::MEMORY)?;
    let device = SharedDevice::new(opened)?;
    let kvm = Kvm::open()?;
    let vm = kvm.create_vm()?;
    let inner = Inner::new(&kvm, &vm)?;
    let memory = SlotMemory::of_pages(&Arc::new(Pages::zeroed(PAGE)?));
    let _memory = vm.add(GuestPhys::new(MEMORY), &memory, Part::new(Bytes::ZERO, PAGE), Prot::ReadWrite)?;

    let used = target.used()?;
    let owner = dma::Owner::Device(OwnerId::new(1));
    let exported = device.export("memory", used, owner)?;
    let mut files = Owners::new();
    let file = device.with(|function| CpuFile::of_bar(function, used));
    let file = file.ok_or_else(|| Stop::broken("the device is closed"))??;
    files.add(owner, Bytes::ZERO, USED, Source::File { file, offset: Bytes::ZERO });
    let who = ("inner guest", Prot::ReadWrite, Enforcement::Kernel);
    let slot = Arc::new(vm.follow(GuestPhys::new(FIRST), exported.buffer(), who, &Peers::none(), files)?);
    let tables = (Declaration::of_tables("the engine's tables", Prot::ReadWrite), Prot::ReadWrite);
    let (space, route) = (Arc::new(Mutex::new(space)), ImportRoute::Permitted(Permit::vouched(Prot::ReadWrite)));
    let iova = iovas(FIRST, USED)?;
    let import = DmaImport::attach("engine", &exported, space, iova, tables, route, Need::Required, ())?;
    let mut bars = GuestBars::by_registers();
    bars.show(used, slot.clone()).show(used, Arc::new(import));
    let window = device.window("owner", used)?;
    let engine = Edu::new(initiator)?;
    let mut setting = Setting { inner, slot, engine, staging, window, device, bars, sent: 0 };
    setting.moves()
}

fn iovas(at: u64, len: Bytes) -> Result<AddrRange<Iova>, Stop> {
    AddrRange::new(Iova::new(at), len).ok_or_else(|| Stop::broken("the IOVAs wrap"))
}

impl Setting {
    fn moves(&mut self) -> Result<(), Stop> {
        // As a guest does when it begins: with decoding off, in two halves, after it asked for the size.
        self.switch(false)?;
        for (offset, value) in [(BAR_2, u32::MAX), (BAR_2 + 4, u32::MAX), (BAR_2, FIRST as u32), (BAR_2 + 4, 0)] {
            self.write(offset, value)?;
        }
        self.switch(true)?;
        self.is_at(FIRST, &[SECOND, THIRD])?;

        // With decoding on it is there at once.
        self.write(BAR_2, SECOND as u32)?;
        self.is_at(SECOND, &[FIRST, THIRD])?;

        // Neither over the machine's memory nor over what the engine has mapped.
        for (taken, stays) in [(MEMORY, "slot "), (STAGING, "the import engine")] {
            match self.write(BAR_2, taken as u32) {
                Err(Refused::Place(PlacingError::NoPlace { part, astray, .. })) => {
                    equal("who stays", &true, &part.starts_with(stays))?;
                    equal("what is astray", &Vec::<String>::new(), &astray)?;
                }
                other => return Err(Stop::broken(format!("expected no place at {taken:#x}, seen {other:?}"))),
            }
            self.is_at(SECOND, &[FIRST, THIRD])?;
        }

        self.switch(false)?;
        self.write(BAR_2, THIRD as u32)?;
        self.switch(true)?;
        self.is_at(THIRD, &[FIRST, SECOND])?;
        self.device.perform_placing(Deed::Reset, &self.bars, LONG).map_err(|error| Stop::broken(error.to_string()))?;
        self.is_at(THIRD, &[FIRST, SECOND])
    }

    fn write(&self, offset: u16, value: u32) -> Result<(), Refused> {
        self.perform(offset, &value.to_le_bytes())
    }

    fn perform(&self, offset: u16, bytes: &[u8]) -> Result<(), Refused> {
        let deed = Deed::config(offset, bytes).map_err(|error| Refused::Stop(error.into()))?;
        let outcome = self.device.perform_placing(deed, &self.bars, LONG).map_err(Refused::Place)?;
        let out = equal("imports that are not back", &0, &outcome.unrestored.len());
        out.map_err(Refused::Stop)
    }

    /// Turns memory decoding on or off.
    fn switch(&self, on: bool) -> Result<(), Stop> {
        let config = self.device.with(|function| function.config_space());
        let config = config.ok_or_else(|| Stop::broken("the device is closed"))??;
        let seen = config.byte(COMMAND).ok_or_else(|| Stop::broken("the Command register is not read"))?;
        let memory = Command::MEMORY.bits() as u8;
        Ok(self.perform(COMMAND, &[if on { seen | memory } else { seen & !memory }])?)
    }

    /// Breaks the claim unless the machine and the engine reach the memory at `base` and nowhere else, and the CPU sees both.
    fn is_at(&mut self, base: u64, not: &[u64]) -> Result<(), Stop> {
        self.sent += 1;
        let value = self.sent as u32;
        if let Exit::Revoked { .. } = self.inner.store(GuestPhys::new(base), value)? {
            self.slot.restore(LONG)?;
            self.inner.goes_on(value)?;
        }
        equal("what the machine stored", &value, &self.window.load_u32(Bytes::ZERO)?)?;
        let bytes = pattern(self.sent, PAGE.as_u64() as usize);
        self.staging.write(Bytes::ZERO, &bytes)?;
        self.engine.fetch(Iova::new(STAGING), PAGE)?;
        self.engine.store(Iova::new(base + PAGE.as_u64()), PAGE)?;
        equal("whether what the engine sent is there", &true, &(self.look()? == bytes))?;

        for old in not {
            let hole = Exit::Store { at: GuestPhys::new(*old), bytes: vec![0xff; 4] };
            equal("a store of the machine's elsewhere", &hole, &self.inner.store(GuestPhys::new(*old), u32::MAX)?)?;
            self.inner.goes_on(u32::MAX)?;
        }
        self.staging.write(Bytes::ZERO, &pattern(u64::MAX, PAGE.as_u64() as usize))?;
        self.engine.fetch(Iova::new(STAGING), PAGE)?;
        for old in not {
            self.engine.store(Iova::new(old + PAGE.as_u64()), PAGE)?;
        }
        let seen = (self.window.load_u32(Bytes::ZERO)?, self.look()? == bytes);
        equal("what is there after stores and DMA elsewhere", &(value, true), &seen)
    }

    fn look(&mut self) -> Result<Vec<u8>, Stop> {
        let mut seen = vec![0; PAGE.as_u64() as usize];
        self.window.read(PAGE, &mut seen)?;
        Ok(seen)
    }
}

/// Why a register was not written.
#[derive(Debug)]
enum Refused {
    Place(PlacingError),
    Stop(Stop),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Place(error) => Self::broken(error.to_string()),
            Refused::Stop(stop) => stop,
        }
    }
}
