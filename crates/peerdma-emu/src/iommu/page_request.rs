//! Requests of devices for pages (PRI, PCIe 6.0 §10.4), until somebody responds.
//!
//! A device names a group with each request and marks the last of it; the group gets one
//! response, and not before its last request is there. The queue is bounded, as is the number of
//! groups that wait, so that a device which asks without end is told that it asks too much.

use crate::device::PageResponse;
use crate::wire::{Pasid, Requester};
use peerdma::addr::BusAddr;
use peerdma::pcie::PciAddr;
use std::collections::{BTreeMap, VecDeque};

/// How many requests wait to be taken at most.
const ROOM: usize = 512;

/// How many groups wait for a response at most.
const GROUPS: usize = 4096;

/// A group's index has so many values (nine bits).
const INDICES: u16 = 512;

/// What of an address no page request carries.
const PAGE_OFFSET: u64 = 0xfff;

/// One request for a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct PageRequest {
    /// Who asks.
    pub requester: PciAddr,
    /// In which address space of its own.
    pub pasid: Option<Pasid>,
    /// An address in the page.
    pub address: BusAddr,
    /// It means to read.
    pub read: bool,
    /// It means to write.
    pub write: bool,
    /// With the rights of a supervisor.
    pub privileged: bool,
    /// The last request of its group.
    pub last: bool,
    /// Index of the group, 0 to 511.
    pub group: u16,
}

impl PageRequest {
    /// Whether it asks for nothing and says that no more requests of its PASID follow
    /// (PCIe 6.0 §10.4.1.2.1).
    pub const fn is_stop_marker(&self) -> bool {
        !self.read && !self.write && self.last && self.pasid.is_some()
    }

    /// Bytes 8 to 15 of the message that carries it (PCIe 6.0 §10.4.1): the page's address, then the group's
    /// index, and L, W and R as the lowest bits. `None`: the index does not fit its nine bits.
    pub fn message(&self) -> Option<[u8; 8]> {
        let group = (self.group < INDICES).then_some(u64::from(self.group))?;
        let bits = [(self.last, 4), (self.write, 2), (self.read, 1)];
        let bits: u64 = bits.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum();
        Some((self.address.as_u64() & !PAGE_OFFSET | group << 3 | bits).to_be_bytes())
    }

    /// The request of a requester that such a message carries. Its address is the page's.
    pub fn of_message(requester: &Requester, message: &[u8; 8]) -> Self {
        let word = u64::from_be_bytes(*message);
        Self {
            requester: requester.id,
            pasid: requester.pasid,
            address: BusAddr::new(word & !PAGE_OFFSET),
            read: word & 1 != 0,
            write: word & 2 != 0,
            privileged: requester.privileged,
            last: word & 4 != 0,
            group: (word >> 3) as u16 & (INDICES - 1),
        }
    }
}

/// What a group of page requests came to, to be delivered to the function that asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupResponse {
    /// To whom.
    pub requester: PciAddr,
    /// For which address space of it.
    pub pasid: Option<Pasid>,
    /// Index of the group.
    pub group: u16,
    /// What it came to.
    pub response: PageResponse,
}

/// Function, address space and index.
type Group = (PciAddr, Option<Pasid>, u16);

/// Requests that wait to be taken, and groups that wait for a response.
#[derive(Debug, Default)]
pub(super) struct PageQueue {
    requests: VecDeque<PageRequest>,
    /// Whether the last request of the group is there.
    groups: BTreeMap<Group, bool>,
}

impl PageQueue {
    /// Takes a request in; `false`: there is no room, or its group is complete already.
    pub(super) fn push(&mut self, request: PageRequest) -> bool {
        let group = (request.requester, request.pasid, request.group);
        let known = self.groups.get(&group).copied();
        let room = self.requests.len() < ROOM && (known.is_some() || self.groups.len() < GROUPS);
        if !room || known == Some(true) || request.group >= INDICES {
            return false;
        }
        self.groups.insert(group, request.last);
        self.requests.push_back(request);
        true
    }

    /// The request that waited longest.
    pub(super) fn pop(&mut self) -> Option<PageRequest> {
        self.requests.pop_front()
    }

    /// Ends a group that is complete; `None` where none like that waits.
    pub(super) fn respond(&mut self, group: Group, response: PageResponse) -> Option<GroupResponse> {
        if self.groups.get(&group) != Some(&true) {
            return None;
        }
        Some(self.end(group, response))
    }

    /// Ends all groups of an address space, complete or not.
    pub(super) fn drain(&mut self, requester: PciAddr, pasid: Pasid) -> Vec<GroupResponse> {
        let all = (requester, Some(pasid), 0)..=(requester, Some(pasid), u16::MAX);
        let groups: Vec<Group> = self.groups.range(all).map(|(group, _)| *group).collect();
        groups.into_iter().map(|group| self.end(group, PageResponse::Invalid)).collect()
    }

    fn end(&mut self, group: Group, response: PageResponse) -> GroupResponse {
        self.groups.remove(&group);
        let (requester, pasid, index) = group;
        // Somebody may respond without having taken all of the group's requests.
        self.requests.retain(|request| (request.requester, request.pasid, request.group) != group);
        GroupResponse { requester, pasid, group: index, response }
    }
}
