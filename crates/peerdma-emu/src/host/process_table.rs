//! The address space of a process outside of the machine, as one context of a device has it.

use super::kernel::{Kernel, Left, NoRoom};
use super::seat::SeatError;
use super::space::DomainSpace;
use crate::device::PageResponse;
use crate::fabric::NodeId;
use crate::iommu::{GroupResponse, PageRequest};
use crate::machine::Machine;
use crate::memory::{LentRam, ProcessMemory};
use crate::wire::Pasid;
use peerdma::access::{Access, MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Iova, PhysAddr, ProcVa};
use peerdma::dma::{IoSpace, Source};
use peerdma::mirror::{Answer, DeviceTable, Token, Wanted};
use peerdma::pcie::PciAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pages are mapped in this size.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests;

/// Why a process has no table on a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessTableError {
    /// The function knows no processes.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// There is no RAM left for frames.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
}

/// What of a group of page requests is not answered yet.
#[derive(Clone, Copy, Default, Debug)]
struct Group {
    waiting: u32,
    complete: bool,
    worst: Option<Answer>,
}

impl Group {
    /// One of its requests has an answer; what the group is answered, if that was the last.
    fn answered(&mut self, answer: Answer) -> Option<PageResponse> {
        self.waiting = self.waiting.saturating_sub(1);
        if answer != Answer::Success {
            let worst = self.worst.filter(|worst| *worst == Answer::Failure || answer != Answer::Failure);
            self.worst = Some(worst.unwrap_or(answer));
        }
        if self.waiting > 0 || !self.complete {
            return None;
        }
        Some(match self.worst {
            None | Some(Answer::Success) => PageResponse::Success,
            Some(Answer::Invalid) => PageResponse::Invalid,
            Some(Answer::Failure) => PageResponse::Failure,
        })
    }
}

/// A device's table for one process: IOMMU page tables under a PASID, which lead to frames that are lent to the process.
///
/// Whoever drives it decides what is in it, and learns from [`asked`](Self::asked) what a device asks for.
///
/// # Concurrency
/// One thread at a time; devices use what is mapped meanwhile. Taking pages out returns when no device uses them.
#[derive(Debug)]
pub struct ProcessTable {
    machine: Arc<Machine>,
    node: NodeId,
    requester: PciAddr,
    pasid: Pasid,
    space: DomainSpace,
    ram: LentRam,
    process: Arc<dyn ProcessMemory>,
    /// Frames that stand for no page just now.
    free: Vec<PhysAddr>,
    /// All frames, until the process is unbound; and the kernel's RAM, which they go back to.
    frames: Option<AddrRange<PhysAddr>>,
    left: Left,
    mapped: BTreeMap<u64, (PhysAddr, Prot)>,
    groups: BTreeMap<u16, Group>,
}

impl ProcessTable {
    /// A table for a process, bound to a PASID of a function, with so many pages at a time.
    ///
    /// # Errors
    /// [`ProcessTableError`].
    pub fn new(
        kernel: &Kernel,
        node: NodeId,
        pasid: Pasid,
        ram: LentRam,
        process: Arc<dyn ProcessMemory>,
        pages: u32,
    ) -> Result<Self, ProcessTableError> {
        let space = kernel.process_space(node, pasid)?;
        let frames = kernel.allocate(Bytes::new(u64::from(pages.max(1)) * PAGE))?.range();
        let start = frames.start();
        let free = (0..u64::from(pages.max(1))).rev().filter_map(|number| start.checked_add(Bytes::new(number * PAGE)));
        let machine = kernel.machine().clone();
        let requester = machine.fabric().tree().node(node).address;
        let (free, mapped, groups) = (free.collect(), BTreeMap::new(), BTreeMap::new());
        let (frames, left) = (Some(frames), kernel.left());
        Ok(Self { machine, node, requester, pasid, space, ram, process, free, frames, left, mapped, groups })
    }

    /// Whose it is: function and PASID, as they stand in page requests.
    pub fn is_of(&self, request: &PageRequest) -> bool {
        (request.requester, request.pasid) == (self.requester, Some(self.pasid))
    }

    /// Takes note of a page request that is this process's; what it is to a mirror.
    ///
    /// Each is to be answered by [`DeviceTable::answer`] with this token. The device is told when all of its group are.
    pub fn asked(&mut self, request: &PageRequest) -> (Token, Wanted) {
        let group = self.groups.entry(request.group).or_default();
        group.waiting += 1;
        group.complete |= request.last;
        let access = if request.write { Access::Write } else { Access::Read };
        (Token(u64::from(request.group)), Wanted { at: ProcVa::new(request.address.as_u64()), access })
    }

    /// Pages that are mapped.
    pub fn mapped(&self) -> usize {
        self.mapped.len()
    }

    /// Takes the process from the device: no request that names its PASID arrives any more when this returns, and those
    /// under way have. Requests for pages that wait are answered, the frames are the kernel's again, and nothing can be mapped
    /// any more.
    pub fn unbind(&mut self) {
        let responses = self.space.unbind(self.requester, self.pasid);
        self.groups.clear();
        for (_, (frame, _)) in std::mem::take(&mut self.mapped) {
            self.ram.take_back(frame);
        }
        self.free.clear();
        // Also those that an entry may still lead to: no request reaches the entries now.
        if let Some(frames) = self.frames.take() {
            self.left.give_back(frames);
        }
        responses.into_iter().for_each(|response| self.deliver(response));
    }

    fn deliver(&self, GroupResponse { group, response, .. }: GroupResponse) {
        self.machine.respond(self.node, group, response);
    }

    fn map_page(&mut self, page: u64, prot: Prot) -> Option<()> {
        let iova = AddrRange::new(Iova::new(page), Bytes::new(PAGE))?;
        if let Some((frame, has)) = self.mapped.get(&page).copied() {
            if has != prot {
                let source = Source::Physical(frame);
                self.space.relink(iova, &source, prot, MemAttrs::empty()).ok()?;
                self.mapped.insert(page, (frame, prot));
            }
            return Some(());
        }
        let frame = self.free.pop()?;
        let lent = self.ram.lend(frame, self.process.clone(), ProcVa::new(page));
        let source = Source::Physical(frame);
        if !lent || self.space.map(iova, &source, prot, MemAttrs::empty()).is_err() {
            self.ram.take_back(frame);
            self.free.push(frame);
            return None;
        }
        self.mapped.insert(page, (frame, prot));
        Some(())
    }
}

/// The pages that a range has a part of.
fn pages(at: AddrRange<ProcVa>) -> impl Iterator<Item = u64> {
    (at.start().as_u64() / PAGE..=at.last().as_u64() / PAGE).map(|number| number * PAGE)
}

impl DeviceTable for ProcessTable {
    fn map(&mut self, at: AddrRange<ProcVa>, prot: Prot) -> bool {
        let whole = pages(at).all(|page| self.map_page(page, prot).is_some());
        if !whole {
            self.unmap(at);
        }
        whole
    }

    fn unmap(&mut self, at: AddrRange<ProcVa>) {
        let own = self.mapped.range(at.start().as_u64() & !(PAGE - 1)..=at.last().as_u64());
        let own: Vec<(u64, PhysAddr)> = own.map(|(page, (frame, _))| (*page, *frame)).collect();
        let (Some((first, _)), Some((last, _))) = (own.first(), own.last()) else { return };
        let all = AddrRange::from_inclusive(Iova::new(*first), Iova::new(*last | (PAGE - 1)));
        let gone = all.is_some_and(|all| self.space.unmap(all).is_ok());
        for (page, frame) in own {
            self.mapped.remove(&page);
            self.ram.take_back(frame);
            // A frame that an entry may still lead to is used for nothing else.
            if gone {
                self.free.push(frame);
            }
        }
    }

    fn quiesce(&mut self) {
        // What waits on its way up is the device's doing too, and whoever reads from the device pushes it: into the next
        // owner's memory, if the page is given away meanwhile.
        self.machine.push_up(self.node);
        self.machine.drain();
    }

    fn answer(&mut self, asked: Token, answer: Answer) {
        let number = asked.0 as u16;
        // An unbinding has answered it already.
        let Some(group) = self.groups.get_mut(&number) else { return };
        let Some(response) = group.answered(answer) else { return };
        self.groups.remove(&number);
        let Some(iommu) = self.machine.fabric().root().iommu() else { return };
        if let Some(response) = iommu.respond(self.requester, Some(self.pasid), number, response) {
            self.deliver(response);
        }
    }
}

impl Drop for ProcessTable {
    fn drop(&mut self) {
        self.unbind();
    }
}
