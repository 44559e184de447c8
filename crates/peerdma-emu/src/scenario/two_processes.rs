//! One accelerator, two address spaces.
//!
//! Two processes each have a context of an accelerator and a linked list at the *same* address, in
//! memory of their own. Each gets the sum of its own list. Then each asks for what only the other has:
//! the page is not there in its address space, the kernel answers the accelerator's page request with
//! no, and nothing changes.

use super::error::ScenarioError;
use super::stage::{Stage, bytes_of, not_there};
use crate::device::accel::{Driver, Error, Operation, Status};
use crate::device::channel::{CallError, Queue};
use crate::device::{Mmio, PageResponse};
use crate::host::{Buffer, DomainSpace, Seat};
use crate::machine::Machine;
use crate::platform::Platform;
use crate::wire::Pasid;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova};
use peerdma::dma::{IoSpace, Source};
use std::cell::Cell;

/// The machine.
const MACHINE: &str = include_str!("accelerator.toml");
const ACCELERATOR: &str = "accel0";
/// Where each process has its queue, its list, and a page of its own that the other has not.
const QUEUE: u64 = 0x7000_0000_0000;
const LIST: u64 = 0x7000_1000_0000;
const OWN: [u64; 2] = [0x7000_2000_0000, 0x7000_3000_0000];
const PAGE: Bytes = Bytes::new(0x1000);
/// Elements of a list, 16 bytes each.
const ELEMENTS: u64 = 200;

/// One of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Process {
    /// Number of its address space.
    pub pasid: Pasid,
    /// Where its list is, in its own addresses.
    pub list: BusAddr,
    /// The sum that the accelerator found.
    pub sum: u64,
    /// The sum as it is.
    pub expected: u64,
    /// The address that only the other has.
    pub foreign: BusAddr,
    /// How a load and a store there were refused; `None` for one that was not.
    pub refused: [Option<Status>; 2],
    /// Whether the other's page is as it was.
    pub left_alone: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TwoProcesses {
    /// The accelerator.
    pub accelerator: String,
    /// Both.
    pub processes: [Process; 2],
    /// Page requests of the accelerator that the kernel answered with no.
    pub page_requests_refused: u64,
}

impl TwoProcesses {
    /// Whether each got its own sum and nothing of the other's.
    pub fn kept_apart(&self) -> bool {
        let apart = |process: &Process| {
            process.sum == process.expected && process.left_alone && process.refused.iter().all(Option::is_some)
        };
        self.processes.iter().all(apart) && self.page_requests_refused > 0
    }
}

/// The accelerator's registers, and a kernel that answers page requests while a driver waits.
struct Answering<'k> {
    seat: &'k Seat<'k>,
    refused: Cell<u64>,
}

impl Answering<'_> {
    fn machine(&self) -> &Machine {
        self.seat.machine()
    }
}

impl Mmio for Answering<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.seat.load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.seat.store(bar, offset, value, len);
    }

    fn pause(&self) -> bool {
        let iommu = self.machine().fabric().root().iommu();
        let asked = iommu.and_then(|iommu| Some((iommu, iommu.next_page_request()?)));
        let Some((iommu, request)) = asked else { return self.seat.pause() };
        // Every page that a process has is mapped, so that what is asked for is not its own.
        let response = iommu.respond(request.requester, request.pasid, request.group, PageResponse::Invalid);
        if let Some(response) = response {
            self.refused.set(self.refused.get() + 1);
            self.machine().respond(self.seat.node(), response.group, response.response);
        }
        true
    }
}

/// A process: its address space, and the memory in it.
struct Space {
    space: DomainSpace,
    pasid: Pasid,
    queue: Buffer,
    own: Buffer,
    expected: u64,
}

impl Space {
    fn new(stage: &Stage, seat: &Seat<'_>, index: usize, seed: u64) -> Result<Self, ScenarioError> {
        let pasid = Pasid::new(1 + index as u32).ok_or_else(|| not_there("a PASID"))?;
        let mut space = stage.kernel.process_space(seat.node(), pasid)?;
        let mut give = |at: u64| -> Result<Buffer, ScenarioError> {
            let buffer = stage.kernel.allocate(PAGE)?;
            let iova = AddrRange::new(Iova::new(at), PAGE).ok_or_else(|| not_there("a page"))?;
            space.map(iova, &Source::Physical(buffer.range().start()), Prot::ReadWrite, MemAttrs::empty())?;
            Ok(buffer)
        };
        let (queue, list, own) = (give(QUEUE)?, give(LIST)?, give(OWN[index])?);
        let mut random = fastrand::Rng::with_seed(seed ^ index as u64);
        let (memory, start) = list.memory();
        let mut expected = 0_u64;
        for n in 0..ELEMENTS {
            let next = if n + 1 == ELEMENTS { 0 } else { LIST + 16 * (n + 1) };
            let value = random.u64(..);
            expected = expected.wrapping_add(value);
            let element = [next.to_le_bytes(), value.to_le_bytes()].concat();
            memory.write(Bytes::new(start.as_u64() + 16 * n), &element)?;
        }
        let (memory, start) = own.memory();
        memory.write(start, &[0x11 + index as u8; 0x1000])?;
        Ok(Self { space, pasid, queue, own, expected })
    }

    fn driver<'m>(&self, mmio: &'m dyn Mmio, context: u16) -> Result<Driver<'m>, ScenarioError> {
        let queue = Queue { pasid: Some(self.pasid), ..Queue::new(self.queue.shared(BusAddr::new(QUEUE))) };
        Ok(Driver::open(mmio, context, queue)?)
    }
}

/// Has two processes use one accelerator, and try to reach each other.
///
/// # Errors
/// [`ScenarioError`] where the accelerator does not work as such.
pub fn two_processes(seed: u64) -> Result<TwoProcesses, ScenarioError> {
    let platform = Platform::parse(MACHINE, "<accelerator>")?;
    let stage = Stage::new(&platform, seed, |builder| builder)?;
    let seat = stage.seat(ACCELERATOR)?;
    let spaces = [Space::new(&stage, &seat, 0, seed)?, Space::new(&stage, &seat, 1, seed)?];
    let mmio = Answering { seat: &seat, refused: Cell::new(0) };
    let mut contexts = [spaces[0].driver(&mmio, 0)?, spaces[1].driver(&mmio, 1)?];
    // Both at work at once, so that whoever mixed them up would be seen.
    let sum = Operation::Sum { head: BusAddr::new(LIST), most: 2 * ELEMENTS };
    let tickets = [contexts[0].submit(sum)?, contexts[1].submit(sum)?];
    let sums = [contexts[0].wait(tickets[0])?, contexts[1].wait(tickets[1])?];
    let mut tried = |index: usize| -> Result<Process, ScenarioError> {
        let (own, other) = (&spaces[index], &spaces[1 - index]);
        let foreign = BusAddr::new(OWN[1 - index]);
        let before = bytes_of(&other.own)?;
        let load = Operation::Copy { from: foreign, to: BusAddr::new(OWN[index]), len: Bytes::new(8) };
        let store = Operation::Store { to: foreign, value: !0 };
        let refused = [refusal(contexts[index].run(load))?, refusal(contexts[index].run(store))?];
        let left_alone = bytes_of(&other.own)? == before;
        let (list, sum) = (BusAddr::new(LIST), sums[index]);
        Ok(Process { pasid: own.pasid, list, sum, expected: own.expected, foreign, refused, left_alone })
    };
    let processes = [tried(0)?, tried(1)?];
    drop(spaces.map(|space| space.space));
    let page_requests_refused = mmio.refused.get();
    Ok(TwoProcesses { accelerator: ACCELERATOR.to_string(), processes, page_requests_refused })
}

/// The status of a command that was refused; `None` for one that was done.
fn refusal(outcome: Result<u64, Error>) -> Result<Option<Status>, ScenarioError> {
    match outcome {
        Ok(_) => Ok(None),
        Err(CallError::Failed { status, .. }) => Ok(Some(status)),
        Err(error) => Err(error.into()),
    }
}
