//! A machine with an accelerator, and the memory of this process behind it.

use peerdma::addr::{AddrRange, BusAddr, Bytes, ProcVa};
use peerdma_emu::device::accel::Driver;
use peerdma_emu::device::channel::Queue;
use peerdma_emu::device::{Mmio, PageResponse, Shared};
use peerdma_emu::fabric::NodeId;
use peerdma_emu::host::{Kernel, ProcessTable, Seat};
use peerdma_emu::iommu::PageRequest;
use peerdma_emu::machine::{Builder, Delivery, Machine};
use peerdma_emu::memory::{Gone, LentRam, ProcessMemory, ProcessRange};
use peerdma_emu::platform::Platform;
use peerdma_emu::wire::Pasid;
use peerdma_linux::mirror::{Mirror, copy_in, copy_out};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MACHINE: &str = include_str!("../../../peerdma-emu/src/scenario/accelerator.toml");

/// How long a command may take before it is lost.
const LONG: Duration = Duration::from_secs(60);

/// This process's memory, by its own addresses.
#[derive(Debug)]
pub(crate) struct Own;

impl ProcessMemory for Own {
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
        let len = Bytes::new(into.len() as u64);
        copy_out(at, into).map_err(|_| Gone { at, len })
    }

    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
        let len = Bytes::new(from.len() as u64);
        copy_in(at, from).map_err(|_| Gone { at, len })
    }
}

/// A machine with one accelerator, RAM that can be lent, and a kernel.
pub(crate) struct Bench {
    pub(crate) kernel: Kernel,
    pub(crate) ram: LentRam,
    pub(crate) node: NodeId,
}

impl Bench {
    pub(crate) fn new(delivery: Delivery, seed: u64) -> Self {
        let platform = Platform::parse(MACHINE, "accelerator.toml").unwrap();
        let ram = LentRam::default();
        let builder = Builder::new(&platform).seed(seed).delivery(delivery);
        let machine = builder.ram_behind(|range, memory| ram.behind(range, memory)).build().unwrap();
        let node = machine.named("accel0").unwrap();
        let kernel = Kernel::boot(Arc::new(machine), &platform);
        Self { kernel, ram, node }
    }

    pub(crate) fn machine(&self) -> &Arc<Machine> {
        self.kernel.machine()
    }

    /// The table of a process under a PASID.
    pub(crate) fn table(&self, pasid: u32, process: Arc<dyn ProcessMemory>, pages: u32) -> ProcessTable {
        let pasid = Pasid::new(pasid).unwrap();
        ProcessTable::new(&self.kernel, self.node, pasid, self.ram.clone(), process, pages).unwrap()
    }

    /// The next request for a page, whoever's it is.
    pub(crate) fn next_request(&self) -> Option<PageRequest> {
        self.machine().fabric().root().iommu()?.next_page_request()
    }

    /// Tells the accelerator that there is no such process.
    pub(crate) fn refuse(&self, request: &PageRequest) {
        let PageRequest { requester, pasid, group, .. } = *request;
        let iommu = self.machine().fabric().root().iommu().unwrap();
        if let Some(answer) = iommu.respond(requester, pasid, group, PageResponse::Invalid) {
            self.machine().respond(self.node, answer.group, answer.response);
        }
    }

    /// Serves a mirror and the accelerator's page requests for it until it is over.
    pub(crate) fn serve(&self, mirror: &Mirror<ProcessTable>, over: &AtomicBool) {
        while !over.load(Ordering::Acquire) {
            let mut busy = !mirror.poll().unwrap().heard.is_empty();
            while let Some(request) = self.next_request() {
                busy = true;
                let asked = mirror.with_table(|table| table.is_of(&request).then(|| table.asked(&request)));
                match asked {
                    Some((token, wanted)) => mirror.request(token, wanted),
                    None => self.refuse(&request),
                }
            }
            if !busy {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }

    /// Runs the accelerator until it is over, inside of the mirror's gate.
    pub(crate) fn run(&self, mirror: &Mirror<ProcessTable>, over: &AtomicBool) {
        let mut context = mirror.context("accelerator").unwrap();
        while !over.load(Ordering::Acquire) {
            let moved = context.run(|| (0..32).filter(|_| self.machine().step()).count());
            if moved == 0 {
                std::thread::sleep(Duration::from_micros(20));
            }
        }
    }

    /// The accelerator's registers, for a driver that waits while others move the machine.
    pub(crate) fn registers<'m>(&self, seat: &'m Seat<'m>) -> Registers<'m> {
        Registers { seat, until: std::cell::Cell::new(Instant::now() + LONG) }
    }
}

/// Registers, with waits that end in time.
pub(crate) struct Registers<'m> {
    seat: &'m Seat<'m>,
    until: std::cell::Cell<Instant>,
}

impl Registers<'_> {
    /// Another command is waited for from here on.
    pub(crate) fn renew(&self) {
        self.until.set(Instant::now() + LONG);
    }
}

impl Mmio for Registers<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.seat.load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.seat.store(bar, offset, value, len);
    }

    /// A command that is not done in a minute waits for an answer that was lost: the driver calls that stalled.
    fn pause(&self) -> bool {
        std::thread::sleep(Duration::from_micros(20));
        Instant::now() < self.until.get()
    }
}

/// Opens a context whose rings lie in process memory at these addresses.
pub(crate) fn open<'m>(
    mmio: &'m dyn Mmio,
    context: u16,
    pasid: u32,
    process: Arc<dyn ProcessMemory>,
    rings: AddrRange<ProcVa>,
) -> Driver<'m> {
    let device = BusAddr::new(rings.start().as_u64());
    let memory = Arc::new(ProcessRange::new(process, rings));
    let shared = Shared::new(memory, Bytes::ZERO, rings.len(), device).unwrap();
    let queue = Queue { pasid: Pasid::new(pasid), ..Queue::new(shared) };
    Driver::open(mmio, context, queue).unwrap()
}

/// Ends a loop also when a test fails.
pub(crate) struct Stop<'a>(pub(crate) &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
