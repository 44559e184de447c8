//! The server: a machine that works for whoever shares memory with it.

use super::client::Other;
use super::{BASE, BELL, PRIVATE, RESULT, RINGS, SIZE, all, at, soon};
use crate::device::{Bench, open};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, Bytes, Granule, ProcVa};
use peerdma::buffer::wire::Declare;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::mirror::{Answer, Brought, DeviceTable, Fault, Finished, Keeping, MirrorState};
use peerdma_emu::device::Mmio;
use peerdma_emu::device::channel::doorbell;
use peerdma_emu::host::ProcessTable;
use peerdma_emu::machine::Delivery;
use peerdma_emu::memory::{Gone, ProcessMemory};
use peerdma_linux::share::{Importer, Mapped};
use std::path::PathBuf;
use std::sync::Arc;

/// Memory of a client, by the client's addresses.
#[derive(Debug)]
struct Remote {
    mapped: Mapped,
    /// Where it alone has the page of results once more.
    private: u64,
}

impl Remote {
    fn offset(&self, at: ProcVa, len: usize) -> Result<Bytes, Gone> {
        let gone = Gone { at, len: Bytes::new(len as u64) };
        let within = |start: u64, size: u64| {
            let offset = at.as_u64().checked_sub(start)?;
            (offset + len as u64 <= size).then_some(offset)
        };
        let offset = within(BASE, SIZE).or_else(|| Some(RESULT + within(self.private, 0x1000)?));
        offset.map(Bytes::new).ok_or(gone)
    }
}

impl ProcessMemory for Remote {
    fn read(&self, at: ProcVa, into: &mut [u8]) -> Result<(), Gone> {
        let gone = Gone { at, len: Bytes::new(into.len() as u64) };
        self.mapped.read(self.offset(at, into.len())?, into).map_err(|_| gone)
    }

    fn write(&self, at: ProcVa, from: &[u8]) -> Result<(), Gone> {
        let gone = Gone { at, len: Bytes::new(from.len() as u64) };
        self.mapped.write(self.offset(at, from.len())?, from).map_err(|_| gone)
    }
}

/// A client as the server has it.
struct Guest {
    importer: Option<Importer>,
    memory: Arc<Remote>,
    state: MirrorState,
    table: ProcessTable,
    rung: u64,
}

/// The machine, and whoever it works for; contexts and PASIDs in the order in which they came.
pub(super) struct Server {
    bench: Bench,
    folder: PathBuf,
    guests: Vec<Guest>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Server {
    pub(super) fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("peerdma-accel-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        Self { bench: Bench::new(Delivery::Queued, 11), folder, guests: Vec::new() }
    }

    /// Starts a client, takes its memory in, and gives it a context.
    pub(super) fn client(&mut self, role: &str) -> Other {
        let number = self.guests.len();
        let path = self.folder.join(format!("client{number}"));
        let mut other = Other::start(role, number, &path);
        assert_eq!(other.says(), "listening");
        let mut declare = Declare::of_process("accelerator", Prot::ReadWrite);
        (declare.takes, declare.enforcement) = (Lifetime::Revocable, Enforcement::Cooperative);
        let mut importer = Importer::attach(&path, declare, soon()).unwrap();
        let mapped = importer.map(soon()).unwrap();
        let memory = Arc::new(Remote { mapped, private: PRIVATE[number] });
        let pasid = 1 + number as u32;
        let table = self.bench.table(pasid, memory.clone(), 1100);
        let mut state = MirrorState::new(Granule::new(Bytes::new(0x1000)).unwrap());
        let private = AddrRange::new(ProcVa::new(PRIVATE[number]), Bytes::new(0x1000)).unwrap();
        for range in [all(), private] {
            state.register(range, Prot::ReadWrite, Keeping::Faulting).unwrap();
        }
        self.guests.push(Guest { importer: Some(importer), memory: memory.clone(), state, table, rung: 0 });
        // Which address space a context works in is the server's to say, and not the client's.
        {
            let seat = self.bench.kernel.seat(self.bench.node).unwrap();
            let registers = Moving { server: self, seat: &seat };
            let rings = AddrRange::new(at(RINGS), Bytes::new(0x1000)).unwrap();
            drop(open(&registers, number as u16, pasid, memory, rings));
        }
        other.tell(&format!("open {number}"));
        other
    }

    /// Lets the machine go on, and does for each client what is to be done.
    fn turn(&mut self) {
        (0..64).filter(|_| self.bench.machine().step()).count();
        let seat = self.bench.kernel.seat(self.bench.node).unwrap();
        while let Some(request) = self.bench.next_request() {
            match self.guests.iter_mut().find(|guest| guest.importer.is_some() && guest.table.is_of(&request)) {
                Some(guest) => guest.serve(&request),
                None => self.bench.refuse(&request),
            }
        }
        for (number, guest) in self.guests.iter_mut().enumerate() {
            let Some(importer) = &mut guest.importer else { continue };
            if importer.next(std::time::Instant::now()).is_err() {
                guest.end();
                continue;
            }
            let mut word = [0; 8];
            guest.memory.mapped.read(Bytes::new(BELL), &mut word).unwrap();
            let rung = u64::from_le_bytes(word);
            if rung != guest.rung {
                guest.rung = rung;
                seat.store(0, doorbell(number as u16), rung & u64::from(u32::MAX), 4);
            }
        }
    }

    pub(super) fn wait_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let until = soon();
        while !done(self) {
            assert!(std::time::Instant::now() < until, "it does not come to that");
            self.turn();
        }
    }

    /// Works until a client says this; sums that it did meanwhile are passed over.
    pub(super) fn wait_for(&mut self, client: &Other, line: &str) {
        self.wait_until(|_| {
            let said = client.said_already();
            assert!(said.as_deref().is_none_or(|said| [line, "summed"].contains(&said)), "{said:?} instead of {line}");
            said.as_deref() == Some(line)
        });
    }

    /// Works until a client has begun and ended sums that it had not begun before.
    pub(super) fn wait_for_more_of(&mut self, client: &Other) {
        while client.said_already().is_some() {}
        // The first may have been under way.
        for _ in 0..3 {
            self.wait_for(client, "summed");
        }
    }

    /// Takes a client from the accelerator.
    pub(super) fn unbind(&mut self, number: usize) {
        self.guests[number].end();
    }

    pub(super) fn is_gone(&self, number: usize) -> bool {
        self.guests[number].importer.is_none()
    }

    pub(super) fn brought(&self, number: usize) -> u64 {
        self.guests[number].state.counts().brought
    }

    pub(super) fn refused(&self, number: usize) -> u64 {
        self.guests[number].state.counts().refused
    }

    pub(super) fn bytes(&self, number: usize, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; len as usize];
        self.guests[number].memory.mapped.read(Bytes::new(offset), &mut bytes).unwrap();
        bytes
    }
}

impl Guest {
    /// Brings a page of the client's memory, all of which is there.
    fn serve(&mut self, request: &peerdma_emu::iommu::PageRequest) {
        let (token, wanted) = self.table.asked(request);
        let answer = match self.state.fault(wanted, token) {
            Fault::Answer(answer) => answer,
            Fault::Parked => unreachable!("nothing is taken from a client but everything"),
            Fault::Bring(ticket) => match self.state.finish(ticket, Brought::Page(Prot::ReadWrite)) {
                Finished::Map { page, prot } if self.table.map(page, prot) => Answer::Success,
                Finished::Answer(answer) => answer,
                _ => Answer::Failure,
            },
        };
        self.table.answer(token, answer);
    }

    /// Nothing of the accelerator's arrives in its memory any more when this returns.
    fn end(&mut self) {
        self.table.unbind();
        self.importer = None;
    }
}

/// Registers while a context is opened; the machine goes on with the client's pages meanwhile.
struct Moving<'a> {
    server: &'a Server,
    seat: &'a peerdma_emu::host::Seat<'a>,
}

impl Mmio for Moving<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.seat.load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.seat.store(bar, offset, value, len);
    }

    fn pause(&self) -> bool {
        self.server.bench.machine().step()
    }
}
