//! Pages that devices ask for, brought as a kernel's fault handler brings them.
//!
//! A process is promised memory at its addresses, and has none of it mapped at first. A device that
//! works in its address space finds no translation, asks for the page (PCIe 6.0 §10.4), and waits;
//! the pager maps the page and responds. What was not promised is answered with
//! [`PageResponse::Invalid`].

use super::kernel::Kernel;
use super::space::DomainSpace;
use crate::device::{Mmio, PageResponse};
use crate::fabric::NodeId;
use crate::iommu::PageRequest;
use crate::wire::Pasid;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr};
use peerdma::dma::{IoSpace, MapError, Source};
use peerdma::pcie::PciAddr;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Pages are brought in this size.
const PAGE: u64 = 4096;

/// Memory that a process is to find when somebody touches it.
#[derive(Clone, Copy, Debug)]
struct Promise {
    at: AddrRange<Iova>,
    memory: PhysAddr,
    prot: Prot,
}

/// A process with the function that works for it.
#[derive(Debug)]
struct Process {
    requester: PciAddr,
    pasid: Pasid,
    space: DomainSpace,
    promises: Vec<Promise>,
}

#[derive(Debug, Default)]
struct State {
    processes: Vec<Process>,
    /// Groups of requests of which one was in vain, until their last request is there.
    failed: BTreeSet<(PciAddr, Option<Pasid>, u16)>,
    brought: u64,
}

/// Serves the page requests of a machine's devices.
///
/// There is to be one for a machine, since it takes whatever request is next.
///
/// # Concurrency
/// Any number of threads; requests are served one at a time.
#[derive(Debug)]
pub struct Pager<'k> {
    kernel: &'k Kernel,
    state: Mutex<State>,
}

impl<'k> Pager<'k> {
    /// A pager that knows no process, and refuses all pages.
    pub fn new(kernel: &'k Kernel) -> Self {
        Self { kernel, state: Mutex::default() }
    }

    /// Takes in a process whose space, as [`Kernel::process_space`] gives it, is bound to a PASID of a function.
    pub fn add(&self, node: NodeId, pasid: Pasid, space: DomainSpace) {
        let requester = self.kernel.machine().fabric().tree().node(node).address;
        let process = Process { requester, pasid, space, promises: Vec::new() };
        self.state.lock().unwrap_or_else(PoisonError::into_inner).processes.push(process);
    }

    /// Promises a process memory from a physical address on; nothing is mapped before it is touched.
    ///
    /// Where two promises overlap the earlier one counts. A process that was not added is promised nothing.
    pub fn promise(&self, node: NodeId, pasid: Pasid, at: AddrRange<Iova>, memory: PhysAddr, prot: Prot) {
        let requester = self.kernel.machine().fabric().tree().node(node).address;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut processes = state.processes.iter_mut();
        if let Some(process) = processes.find(|process| (process.requester, process.pasid) == (requester, pasid)) {
            process.promises.push(Promise { at, memory, prot });
        }
    }

    /// Unmaps a range of a process; what of it is promised comes back when it is touched.
    ///
    /// Returns when no device uses what was there any more; `false` where the process is not known.
    pub fn take_away(&self, node: NodeId, pasid: Pasid, at: AddrRange<Iova>) -> bool {
        let requester = self.kernel.machine().fabric().tree().node(node).address;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut processes = state.processes.iter_mut();
        let process = processes.find(|process| (process.requester, process.pasid) == (requester, pasid));
        process.is_some_and(|process| process.space.unmap(at).is_ok())
    }

    /// How many pages were brought.
    pub fn brought(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).brought
    }

    /// Serves the requests that wait; whether there was one.
    pub fn serve(&self) -> bool {
        let machine = self.kernel.machine();
        let Some(iommu) = machine.fabric().root().iommu() else { return false };
        let mut served = false;
        while let Some(request) = iommu.next_page_request() {
            served = true;
            let Some(response) = self.state.lock().unwrap_or_else(PoisonError::into_inner).answer(&request) else {
                continue;
            };
            let PageRequest { requester, pasid, group, .. } = request;
            // A group that was ended meanwhile, as by an unbinding, has had its response.
            if let Some(answer) = iommu.respond(requester, pasid, group, response)
                && let Some(node) = machine.fabric().tree().at(requester)
            {
                machine.respond(node, answer.group, answer.response);
            }
        }
        served
    }

    /// The registers behind `mmio`, with waits during which pages are brought.
    pub fn beside<'a>(&'a self, mmio: &'a dyn Mmio) -> Paged<'a> {
        Paged { pager: self, mmio }
    }
}

impl State {
    /// Serves one request; the response to its group, if it is the last of it.
    fn answer(&mut self, request: &PageRequest) -> Option<PageResponse> {
        let group = (request.requester, request.pasid, request.group);
        match self.bring(request) {
            Some(new) => self.brought += u64::from(new),
            None => {
                self.failed.insert(group);
            }
        }
        request.last.then(|| match self.failed.remove(&group) {
            true => PageResponse::Invalid,
            false => PageResponse::Success,
        })
    }

    /// Maps the page; whether it was not there before, or `None` where it was not promised so.
    fn bring(&mut self, request: &PageRequest) -> Option<bool> {
        let mut processes = self.processes.iter_mut();
        let process =
            processes.find(|process| process.requester == request.requester && Some(process.pasid) == request.pasid)?;
        let page = AddrRange::new(Iova::new(request.address.as_u64() & !(PAGE - 1)), Bytes::new(PAGE))?;
        let promise = process.promises.iter().find(|promise| promise.at.contains_range(&page))?;
        if request.write && !promise.prot.writes() || request.read && !promise.prot.reads() {
            return None;
        }
        let offset = Bytes::new(page.start().as_u64() - promise.at.start().as_u64());
        let source = Source::Physical(promise.memory.checked_add(offset)?);
        match process.space.map(page, &source, promise.prot, MemAttrs::empty()) {
            Ok(()) => Some(true),
            // Two that touched it at once asked both.
            Err(MapError::Overlap { .. }) => Some(false),
            Err(_) => None,
        }
    }
}

/// A device's registers, with waits during which pages are brought.
pub struct Paged<'a> {
    pager: &'a Pager<'a>,
    mmio: &'a dyn Mmio,
}

impl Mmio for Paged<'_> {
    fn load(&self, bar: u8, offset: Bytes, len: u8) -> u64 {
        self.mmio.load(bar, offset, len)
    }

    fn store(&self, bar: u8, offset: Bytes, value: u64, len: u8) {
        self.mmio.store(bar, offset, value, len);
    }

    fn pause(&self) -> bool {
        // In this order: a device that is idle has sent its request before.
        let moved = self.mmio.pause();
        self.pager.serve() || moved
    }
}
