//! The IOMMU: streams, translations, invalidations, faults.

use super::domain::{Attachment, Domain, DomainId};
use super::fault::{FaultLog, FaultReason, FaultRecord, Faults};
use super::iotlb::Iotlb;
use super::lock::{lock, read, write};
use super::page_request::{GroupResponse, PageQueue};
use super::stream::{Cached, Stream};
use super::walk::Leaf;
use crate::platform::IommuKind;
use crate::wire::{Pasid, Requester};
use peerdma::access::{Access, Prot};
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::pcie::PciAddr;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock, RwLockReadGuard};

/// Where an address leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Output {
    /// Where the byte that was asked for is.
    pub to: PhysAddr,
    /// Input addresses around it that lead to output addresses around it, with the same rights:
    /// its page, or half of all addresses where nothing is translated.
    pub holds: AddrRange<BusAddr>,
    /// What this requester may do there.
    pub prot: Prot,
}

/// The IOMMU of a machine.
///
/// # Concurrency
/// All calls from any thread. Locks are taken in the order passing, streams, walking, IOTLB, page requests,
/// faults; those of streams and the IOTLB are not held while tables are read. An invalidation waits
/// for walks that began before it, and for every [`Passage`].
#[derive(Debug)]
pub struct Iommu {
    kind: IommuKind,
    pub(super) streams: RwLock<BTreeMap<PciAddr, Stream>>,
    /// Shared by walks; an invalidation takes it for a moment, so that no walk from before is left.
    walking: RwLock<()>,
    /// Shared by requests from their translation until they arrived.
    passing: RwLock<()>,
    iotlb: Mutex<Iotlb>,
    pub(super) pages: Mutex<PageQueue>,
    faults: Mutex<FaultLog>,
    generation: AtomicU64,
    losing: AtomicU64,
    lost: AtomicU64,
}

impl Iommu {
    /// An IOMMU to which nothing is attached.
    ///
    /// Of [`IommuKind::None`], which stands also for one that is switched off, everybody's
    /// addresses are passed through, no translations are given, and addresses that call
    /// themselves translated are addresses like any other.
    pub fn new(kind: IommuKind) -> Self {
        Self {
            kind,
            streams: RwLock::default(),
            walking: RwLock::default(),
            passing: RwLock::default(),
            iotlb: Mutex::default(),
            pages: Mutex::default(),
            faults: Mutex::default(),
            generation: AtomicU64::new(0),
            losing: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Which one it is.
    pub const fn kind(&self) -> IommuKind {
        self.kind
    }

    /// Changes whenever an answer of [`translate`](Self::translate), [`translation`](Self::translation)
    /// or [`trusts`](Self::trusts) from before may not hold any more because something was
    /// attached, allowed or invalidated.
    ///
    /// Not when bytes of tables change: whoever keeps answers by this number keeps them as the
    /// IOTLB does. The number is to be read before the question.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes what is known of a requester.
    pub(super) fn change<T>(&self, requester: PciAddr, how: impl FnOnce(&mut Stream) -> T) -> T {
        let answer = how(write(&self.streams).entry(requester).or_default());
        self.changed();
        answer
    }

    /// Attaches a requester's requests without a PASID.
    ///
    /// Answers the device's cache if it may hold translations of the domain that it was attached
    /// to; it has to be told to forget all of them. What the IOTLB remembers stays, tagged by
    /// that domain. Requests that are under a [`Passage`] have arrived when this returns.
    pub fn attach(&self, requester: PciAddr, attachment: Attachment) -> Option<Cached> {
        let cached = self.change(requester, |stream| {
            let before = std::mem::replace(&mut stream.attachment, attachment);
            let cached = stream.ats && !matches!(before, Attachment::Blocked);
            cached.then_some(Cached { requester, pasid: None })
        });
        self.settle();
        cached
    }

    /// What a requester is attached to.
    pub fn attachment(&self, requester: PciAddr) -> Attachment {
        read(&self.streams).get(&requester).map_or(Attachment::Blocked, |stream| stream.attachment.clone())
    }

    /// Binds an address space of a requester to a domain, in the place of what it was bound to.
    ///
    /// Has no effect on a window, whose host bridge knows no PASIDs.
    pub fn bind_pasid(&self, requester: PciAddr, pasid: Pasid, domain: Domain) {
        if self.kind != IommuKind::Window {
            self.change(requester, |stream| stream.pasids.insert(pasid, domain));
        }
    }

    /// Takes an address space from a requester, and answers what is left to be done for it.
    ///
    /// Requests that name the PASID are refused from now on, and those under a [`Passage`] have arrived
    /// when this returns. Groups of page requests that wait for
    /// a response get one here, [`PageResponse::Invalid`](crate::device::PageResponse::Invalid): a
    /// response of failure would end page requests of all address spaces of the function (PCIe 6.0
    /// §10.4.2.1).
    pub fn unbind_pasid(&self, requester: PciAddr, pasid: Pasid) -> Unbound {
        let caches = self.change(requester, |stream| {
            let bound = stream.pasids.remove(&pasid).is_some();
            (bound && stream.ats).then_some(Cached { requester, pasid: Some(pasid) })
        });
        self.settle();
        let responses = lock(&self.pages).drain(requester, pasid);
        Unbound { responses, caches: caches.into_iter().collect() }
    }

    /// Tells every stream where a domain's tables begin now, as when an AMD table has grown.
    pub fn update(&self, domain: &Domain) {
        for stream in write(&self.streams).values_mut() {
            if let Attachment::Translated(own) = &mut stream.attachment
                && own.id == domain.id
            {
                own.tables = domain.tables.clone();
            }
            for bound in stream.pasids.values_mut().filter(|bound| bound.id == domain.id) {
                bound.tables = domain.tables.clone();
            }
        }
        self.changed();
    }

    /// Detaches a domain from all streams, forgets what is remembered of it, and answers whose
    /// caches have to forget it too.
    pub fn remove(&self, id: DomainId) -> Vec<Cached> {
        let mut caches = Vec::new();
        for (requester, stream) in write(&self.streams).iter_mut() {
            if stream.ats {
                caches.extend(stream.spaces_of(id).map(|pasid| Cached { requester: *requester, pasid }));
            }
            if matches!(&stream.attachment, Attachment::Translated(own) if own.id == id) {
                stream.attachment = Attachment::Blocked;
            }
            stream.pasids.retain(|_, bound| bound.id != id);
        }
        self.flush(id, 0, u64::MAX);
        caches
    }

    /// Where an untranslated request of this access leads; atomics have to ask for both.
    ///
    /// # Errors
    /// Why it is refused; recorded as a fault.
    pub fn translate(&self, requester: &Requester, address: BusAddr, access: Access) -> Result<Output, FaultReason> {
        let permits = |prot| access.is_permitted_by(prot);
        self.look_up(requester, address, &permits)
            .inspect_err(|reason| self.record(requester, address, access, *reason))
    }

    /// Where an address leads, if what is permitted there is what is wanted.
    ///
    /// A remembered answer is believed only where it permits: one that does not is asked of the
    /// tables again, as rights that were added need no invalidation.
    pub(super) fn look_up(
        &self,
        requester: &Requester,
        address: BusAddr,
        wanted: &dyn Fn(Prot) -> bool,
    ) -> Result<Output, FaultReason> {
        let Some(domain) = self.domain_of(requester)? else { return unchanged(address) };
        let privileged = requester.pasid.is_some() && requester.privileged;
        let suits = |leaf: &Leaf| leaf.prot(privileged).is_some_and(wanted);
        let at = address.as_u64();
        let (remembered, epoch) = {
            let iotlb = lock(&self.iotlb);
            (iotlb.find(domain.id, at, suits), iotlb.epoch())
        };
        let leaf = match remembered {
            Some(leaf) => leaf,
            None => {
                let _walking = read(&self.walking);
                let leaf = domain.tables.walk(address)?;
                lock(&self.iotlb).fill(domain.id, at, leaf, epoch);
                leaf
            }
        };
        let prot = leaf.prot(privileged).filter(|prot| wanted(*prot)).ok_or(FaultReason::NotPermitted)?;
        let within = (1 << leaf.shift) - 1;
        let holds =
            AddrRange::new(BusAddr::new(at & !within), Bytes::new(within + 1)).ok_or(FaultReason::OutOfRange)?;
        Ok(Output { to: PhysAddr::new(leaf.base | at & within), holds, prot })
    }

    /// What translates for a requester; `None` where nothing does.
    fn domain_of(&self, requester: &Requester) -> Result<Option<Domain>, FaultReason> {
        if self.kind == IommuKind::None {
            return Ok(None);
        }
        let streams = read(&self.streams);
        let stream = streams.get(&requester.id).ok_or(FaultReason::Blocked)?;
        match (requester.pasid, &stream.attachment) {
            (Some(pasid), _) => stream.pasids.get(&pasid).cloned().map(Some).ok_or(FaultReason::NoPasid),
            (None, Attachment::Blocked) => Err(FaultReason::Blocked),
            (None, Attachment::Identity) => Ok(None),
            (None, Attachment::Translated(domain)) => Ok(Some(domain.clone())),
        }
    }

    /// Forgets what is remembered of a range of a domain, and answers whose caches may hold some of
    /// it: the caller tells them, and waits for their answers, before it gives the memory away.
    ///
    /// When it returns, no walk is going on that may have met entries from before, and every request
    /// that was under a [`Passage`] has arrived (VT-d's read and write draining). Not to be called by a
    /// thread that holds one.
    pub fn invalidate(&self, domain: DomainId, range: AddrRange<Iova>) -> Vec<Cached> {
        self.forget(domain, range.start().as_u64(), range.last().as_u64())
    }

    /// The same for all addresses of a domain.
    pub fn invalidate_all(&self, domain: DomainId) -> Vec<Cached> {
        self.forget(domain, 0, u64::MAX)
    }

    /// Makes the next `count` invalidations have no effect: nothing is forgotten and nobody is to be
    /// told. Whoever asked for them believes they were done.
    pub fn lose_invalidations(&self, count: u64) {
        self.losing.store(count, Ordering::Relaxed);
    }

    /// How many invalidations had no effect.
    pub fn lost_invalidations(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn forget(&self, domain: DomainId, first: u64, last: u64) -> Vec<Cached> {
        let lost = self.losing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        if lost.is_ok() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return Vec::new();
        }
        self.flush(domain, first, last);
        // Afterwards, as who is attached meanwhile may still have been given an old answer.
        self.caches_of(domain)
    }

    /// The caches that may hold translations of a domain.
    fn caches_of(&self, domain: DomainId) -> Vec<Cached> {
        let streams = read(&self.streams);
        let with_caches = streams.iter().filter(|(_, stream)| stream.ats);
        let spaces = with_caches.flat_map(|(requester, stream)| {
            stream.spaces_of(domain).map(|pasid| Cached { requester: *requester, pasid })
        });
        spaces.collect()
    }

    /// Has invalidations wait until this request has arrived.
    ///
    /// For a root complex whose requests go on in other threads: taken before the translation, and
    /// dropped when the bytes are where they go. One request takes one; a thread that takes a
    /// second may wait for an invalidation that waits for the first.
    pub fn passage(&self) -> Passage<'_> {
        Passage { _held: read(&self.passing) }
    }

    /// Waits until every request that is under way now has arrived.
    fn settle(&self) {
        drop(write(&self.passing));
    }

    fn flush(&self, domain: DomainId, first: u64, last: u64) {
        lock(&self.iotlb).invalidate(domain, first, last);
        drop(write(&self.walking));
        self.changed();
        self.settle();
    }

    /// Records that a request was refused.
    pub(super) fn record(&self, requester: &Requester, address: BusAddr, access: Access, reason: FaultReason) {
        let record = FaultRecord { requester: requester.id, pasid: requester.pasid, address, access, reason };
        lock(&self.faults).push(record);
    }

    /// Takes the oldest fault record out.
    pub fn take_fault(&self) -> Option<FaultRecord> {
        lock(&self.faults).take()
    }

    /// The fault records as they are, and how many were lost.
    pub fn faults(&self) -> Faults {
        lock(&self.faults).snapshot()
    }
}

/// A request on its way from its translation to where it goes; see [`Iommu::passage`].
#[derive(Debug)]
pub struct Passage<'a> {
    _held: RwLockReadGuard<'a, ()>,
}

/// What is left to be done for an address space that was unbound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unbound {
    /// Responses to be sent to the device.
    pub responses: Vec<GroupResponse>,
    /// Caches that have to forget all of the address space.
    pub caches: Vec<Cached>,
}

/// An address that nothing translates. A half of all addresses, as no range holds all of them.
fn unchanged(address: BusAddr) -> Result<Output, FaultReason> {
    const HALF: u64 = 1 << 63;
    let half = AddrRange::new(BusAddr::new(address.as_u64() & HALF), Bytes::new(HALF));
    let holds = half.ok_or(FaultReason::OutOfRange)?;
    Ok(Output { to: PhysAddr::new(address.as_u64()), holds, prot: Prot::ReadWrite })
}
