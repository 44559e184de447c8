//! What is mapped, and what was.

use super::report::{DeviceRange, Misuse, Place};
use crate::access::Prot;
use crate::addr::{BusAddr, Bytes, Iova, PhysAddr};
use crate::dma::span::DeviceAddress;
use crate::topology::HostBridgeId;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// A kind of address, in which a number means one thing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Space {
    Bus(Option<HostBridgeId>),
    Iova,
    CpuPhysical,
}

/// Numbers of one space, both ends inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Numbers {
    space: Space,
    first: u64,
    last: u64,
}

impl Numbers {
    /// `None` if there are none. What would wrap ends at the end of the space.
    fn of(range: DeviceRange) -> Option<Self> {
        let space = match range.address {
            DeviceAddress::Bus { bridge, .. } => Space::Bus(bridge),
            DeviceAddress::Iova(_) => Space::Iova,
            DeviceAddress::CpuPhysical(_) => Space::CpuPhysical,
        };
        let first = range.address.as_u64();
        Some(Self { space, first, last: first.saturating_add(range.len.as_u64().checked_sub(1)?) })
    }

    fn range(self) -> DeviceRange {
        let address = match self.space {
            Space::Bus(bridge) => DeviceAddress::Bus { address: BusAddr::new(self.first), bridge },
            Space::Iova => DeviceAddress::Iova(Iova::new(self.first)),
            Space::CpuPhysical => DeviceAddress::CpuPhysical(PhysAddr::new(self.first)),
        };
        // The whole of a space has one byte more than a length can say.
        DeviceRange { address, len: Bytes::new((self.last - self.first).saturating_add(1)) }
    }

    fn contains(self, inner: Self) -> bool {
        self.space == inner.space && self.first <= inner.first && inner.last <= self.last
    }

    fn touches(self, other: Self) -> bool {
        self.space == other.space && self.first <= other.last && other.first <= self.last
    }
}

/// A mapping, or what is left of it.
#[derive(Clone, Copy, Debug)]
struct Live {
    numbers: Numbers,
    /// Counts mappings, so that the oldest can be told.
    number: u64,
    prot: Prot,
    at: Place,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    numbers: Numbers,
    mapped_at: Place,
    unmapped_at: Place,
}

#[derive(Debug)]
pub(super) struct Ledger {
    live: BTreeMap<(Space, u64, u64), Live>,
    /// `last - first` of the longest mapping there ever was: how far below an address one that
    /// reaches it may start.
    longest: u64,
    next: u64,
    gone: VecDeque<Gone>,
    /// The first misuses that were found.
    pub(super) found: Vec<Misuse>,
    kept: usize,
}

impl Ledger {
    pub(super) fn new(kept: usize) -> Self {
        Self { live: BTreeMap::new(), longest: 0, next: 0, gone: VecDeque::new(), found: Vec::new(), kept }
    }

    pub(super) fn map(&mut self, range: DeviceRange, prot: Prot, at: Place) -> Result<(), Misuse> {
        let Some(numbers) = Numbers::of(range) else { return Ok(()) };
        if numbers.space == Space::Iova
            && let Some(live) = self.touching(numbers).next()
        {
            return Err(Misuse::MappedTwice { range, at, mapping: live.numbers.range(), mapped_at: live.at });
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.insert(Live { numbers, number, prot, at });
        Ok(())
    }

    pub(super) fn unmap(&mut self, range: DeviceRange, at: Place) -> Result<(), Misuse> {
        let Some(numbers) = Numbers::of(range) else { return Ok(()) };
        let holding = self.touching(numbers).filter(|live| live.numbers.contains(numbers));
        let Some(live) = holding.min_by_key(|live| (live.numbers != numbers, live.number)).copied() else {
            return Err(self.missing(range, numbers, at, |gone| Misuse::UnmappedTwice {
                range,
                at,
                mapped_at: gone.mapped_at,
                unmapped_at: gone.unmapped_at,
            }));
        };
        self.live.remove(&(numbers.space, live.numbers.first, live.number));
        if live.numbers.first < numbers.first {
            self.insert(Live { numbers: Numbers { last: numbers.first - 1, ..live.numbers }, ..live });
        }
        if numbers.last < live.numbers.last {
            self.insert(Live { numbers: Numbers { first: numbers.last + 1, ..live.numbers }, ..live });
        }
        if self.gone.len() >= self.kept {
            self.gone.pop_front();
        }
        if self.kept > 0 {
            self.gone.push_back(Gone { numbers, mapped_at: live.at, unmapped_at: at });
        }
        Ok(())
    }

    pub(super) fn access(&self, range: DeviceRange, access: Prot, at: Place) -> Result<(), Misuse> {
        let Some(numbers) = Numbers::of(range) else { return Ok(()) };
        let mut otherwise = None;
        for live in self.touching(numbers).filter(|live| live.numbers.contains(numbers)) {
            if (live.prot.reads() || !access.reads()) && (live.prot.writes() || !access.writes()) {
                return Ok(());
            }
            otherwise = otherwise.or(Some(live));
        }
        Err(match otherwise {
            Some(live) => Misuse::WrongDirection {
                range,
                access,
                at,
                mapping: live.numbers.range(),
                prot: live.prot,
                mapped_at: live.at,
            },
            None => self.missing(range, numbers, at, |gone| Misuse::UsedAfterUnmap {
                range,
                at,
                mapped_at: gone.mapped_at,
                unmapped_at: gone.unmapped_at,
            }),
        })
    }

    pub(super) fn keep(&mut self, misuse: &Misuse) {
        if self.found.len() < self.kept {
            self.found.push(misuse.clone());
        }
    }

    pub(super) fn leaks(&self) -> impl Iterator<Item = Misuse> + '_ {
        let leaked =
            |live: &Live| Misuse::Leaked { mapping: live.numbers.range(), prot: live.prot, mapped_at: live.at };
        self.live.values().map(leaked)
    }

    /// What no mapping holds: partly in one, in none any more, or in none at all.
    fn missing(&self, range: DeviceRange, numbers: Numbers, at: Place, gone: impl FnOnce(&Gone) -> Misuse) -> Misuse {
        if let Some(live) = self.touching(numbers).next() {
            return Misuse::Outside { range, at, mapping: live.numbers.range(), mapped_at: live.at };
        }
        // The youngest that it touches.
        if let Some(found) = self.gone.iter().rev().find(|gone| gone.numbers.touches(numbers)) {
            return gone(found);
        }
        let below = self.live.range((numbers.space, 0, 0)..(numbers.space, numbers.first, 0)).next_back();
        Misuse::NotMapped { range, at, below: below.map(|(_, live)| (live.numbers.range(), live.at)) }
    }

    /// Mappings that share a number with these, by their starts.
    fn touching(&self, numbers: Numbers) -> impl Iterator<Item = &Live> {
        let from = numbers.first.saturating_sub(self.longest);
        let started = self.live.range((numbers.space, from, 0)..=(numbers.space, numbers.last, u64::MAX));
        started.map(|(_, live)| live).filter(move |live| numbers.first <= live.numbers.last)
    }

    fn insert(&mut self, live: Live) {
        self.longest = self.longest.max(live.numbers.last - live.numbers.first);
        self.live.insert((live.numbers.space, live.numbers.first, live.number), live);
    }
}
