//! One queue of one initiator, over one address space.

use super::error::{ContextError, MapRangesError, ReserveError, WhyBounce};
use super::mapping::Mapping;
use super::reservation::Reservation;
use super::staged::Staged;
use super::{LinkError, Lists};
use crate::access::{MemAttrs, Prot};
use crate::addr::{AddrRange, Bytes, Granule, Iova};
use crate::chunk::{Chunk, View};
use crate::dma::abilities::{Abilities, Changes, Placement, Sources};
use crate::dma::bounce::Bouncer;
use crate::dma::initiator::Initiator;
use crate::dma::io_space::IoSpace;
use crate::dma::misuse::Watch;
use crate::dma::owner::{Owner, Owners};
use crate::dma::reach::{Peers, Reach, Reached, Refusal, bridge_of};
use crate::dma::windows::Windows;
use crate::iova::{Arena, Depot, Want};
use crate::route::Permission;
use crate::topology::{HostBridgeId, IommuMode};
use alloc::vec::Vec;
use core::cell::{RefCell, RefMut};

/// How many sets of lists a context keeps for later mappings.
const SPARE: usize = 16;

/// One queue of one initiator, over one address space: what mappings are made from.
///
/// A context belongs to one thread at a time; queues on several threads have a context
/// each, over one domain (`SoftIommu::attach`) and one shared allocator of IOVAs (`depot`).
///
/// # Examples
/// ```
/// use core::cell::RefCell;
/// use peerdma::access::{MemAttrs, Prot};
/// use peerdma::addr::{Bytes, Granule, PhysAddr};
/// use peerdma::chunk::{Chunk, Chunks};
/// use peerdma::dma::{Context, Initiator, IoSpace, Owner, Owners, Peers, SoftIommu};
/// use peerdma::iopt::{FrameArena, VtdOptions, VtdSecondStage};
/// use peerdma::iova::Allocator;
/// use peerdma::topology::IommuMode;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let frames = FrameArena::new(PhysAddr::new(1 << 30), 64);
/// let domain = SoftIommu::new(VtdSecondStage::new(VtdOptions::default())?, &frames)?;
/// let depot = RefCell::new(Allocator::new(Granule::PAGE_4K, &domain.abilities().usable)?);
/// let (owners, peers) = (Owners::new(), Peers::none());
/// let nic = Initiator::new("nic", IommuMode::Translated).with_mask_bits(48);
/// let context = Context::new(nic, domain.attach(), &owners, &peers, &depot)?;
///
/// let mut list = Chunks::new();
/// for page in [0x7000, 0x3000, 0x9000] {
///     let chunk = Chunk::new(Owner::Ram, Bytes::new(page), Bytes::new(0x1000), MemAttrs::empty());
///     list.push(chunk.unwrap())?;
/// }
/// let mut staged = context.reserve(list.len())?.stage();
/// staged.link_many(list.view(), Prot::ReadWrite)?;
/// let mapping = staged.sync()?;
/// // Scattered pages, one contiguous range for the device.
/// assert_eq!(mapping.spans().count(), 1);
/// let reservation = mapping.unlink()?; // to be used again
/// reservation.release();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Context<'a, S: IoSpace, D: Depot> {
    pub(super) initiator: Initiator,
    pub(super) owners: &'a Owners<S::File>,
    pub(super) peers: &'a Peers<'a>,
    depot: &'a D,
    pub(super) bouncer: Option<&'a dyn Bouncer>,
    pub(super) watch: Option<&'a Watch>,
    pub(super) fixed: Fixed,
    pub(super) inner: RefCell<Inner<S>>,
}

/// What does not change while a context lives.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) granule: Granule,
    pub(super) taken: Sources,
    /// Highest address of the initiator, inclusive.
    pub(super) highest: u64,
    /// How memory appears where nothing translates; `None` where IOVAs are chosen.
    pub(super) windows: Option<Windows>,
    /// Attributes of memory and of device memory for this initiator.
    pub(super) memory: MemAttrs,
    pub(super) mmio: MemAttrs,
    /// What can be said of memory where nothing translates.
    pub(super) expressed: MemAttrs,
    /// Why all memory is copied where nothing translates, if it is.
    pub(super) copies_all: Option<WhyBounce>,
    /// The host bridge above the initiator.
    pub(super) bridge: Option<HostBridgeId>,
}

#[derive(Debug)]
pub(super) struct Inner<S> {
    pub(super) space: S,
    arena: Arena,
    reached: Vec<(Owner, Reached)>,
    spare: Vec<Lists>,
    lost: Vec<AddrRange<Iova>>,
}

impl<'a, S: IoSpace, D: Depot> Context<'a, S, D> {
    /// A queue of `initiator`, whose requests meet `space`.
    ///
    /// `depot` hands out the IOVAs of the space, see
    /// [`iovas_for`](crate::dma::aperture::iovas_for); it is asked for nothing where the space
    /// dictates addresses.
    ///
    /// # Errors
    /// [`ContextError`]: what the initiator needs and the space cannot give, by name; nothing
    /// that could be found out early is left to a link.
    pub fn new(
        initiator: Initiator,
        space: S,
        owners: &'a Owners<S::File>,
        peers: &'a Peers<'a>,
        depot: &'a D,
    ) -> Result<Self, ContextError> {
        let fixed = Fixed::of(&initiator, peers, space.abilities())?;
        let inner = Inner { space, arena: Arena::new(), reached: Vec::new(), spare: Vec::new(), lost: Vec::new() };
        let inner = RefCell::new(inner);
        Ok(Self { initiator, owners, peers, depot, bouncer: None, watch: None, fixed, inner })
    }

    /// Copies through `pool` what the initiator cannot be given as it is.
    #[must_use]
    pub fn with_bouncer(mut self, pool: &'a dyn Bouncer) -> Self {
        self.bouncer = Some(pool);
        self
    }

    /// Tells `watch` of everything that is mapped and unmapped, with the caller's place.
    #[must_use]
    pub fn with_watch(mut self, watch: &'a Watch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The initiator.
    pub fn initiator(&self) -> &Initiator {
        &self.initiator
    }

    /// The address space, for calls beside mappings; keep it no longer than that.
    ///
    /// # Panics
    /// If it is still held when the context is used.
    pub fn space(&self) -> RefMut<'_, S> {
        RefMut::map(self.inner.borrow_mut(), |inner| &mut inner.space)
    }

    /// IOVAs that the space failed to unmap, and that are therefore not handed out again.
    pub fn lost(&self) -> Vec<AddrRange<Iova>> {
        self.inner.borrow().lost.clone()
    }

    /// How the initiator reaches `owner`; decided once and remembered.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn reach(&self, owner: Owner) -> Result<Reached, Refusal> {
        self.inner.borrow_mut().reach(self, owner)
    }

    /// Forgets how owners are reached, after something in the topology's place changed.
    pub fn forget(&self) {
        self.inner.borrow_mut().reached.clear();
    }

    /// Reserves IOVAs for `len` bytes whose first byte starts a granule, and maps nothing.
    ///
    /// # Errors
    /// [`ReserveError::Exhausted`] carries the largest gap below the initiator's highest address.
    #[inline]
    pub fn reserve(&self, len: Bytes) -> Result<Reservation<'_, 'a, S, D>, ReserveError> {
        self.reserve_from(Bytes::ZERO, len)
    }

    /// Reserves IOVAs for `len` bytes whose first byte lies `head` bytes into a granule.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve).
    pub fn reserve_from(&self, head: Bytes, len: Bytes) -> Result<Reservation<'_, 'a, S, D>, ReserveError> {
        if len == Bytes::ZERO {
            return Err(ReserveError::Empty);
        }
        let mut inner = self.inner.borrow_mut();
        if self.fixed.windows.is_some() {
            let lists = inner.spare.pop().unwrap_or_default();
            return Ok(Reservation::new(self, None, len, lists));
        }
        let mask = self.fixed.granule.bytes().as_u64() - 1;
        let head = head.as_u64() & mask;
        let rounded = len.as_u64().checked_add(head).and_then(|sum| sum.checked_add(mask)).map(|sum| sum & !mask);
        let whole = Bytes::new(rounded.ok_or(ReserveError::TooLong { len })?);
        let want = Want::new(whole).below(Iova::new(self.fixed.highest));
        match inner.arena.allocate(self.depot, &want) {
            Ok(iova) => {
                let lists = inner.spare.pop().unwrap_or_default();
                Ok(Reservation::new(self, Some(iova), len, lists))
            }
            Err(exhausted) => Err(ReserveError::Exhausted { initiator: self.initiator.name().into(), exhausted }),
        }
    }

    /// Reserves as many IOVAs as `list` needs; what is reached by other addresses needs none.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve); [`MapRangesError::Refused`] for an owner that is not reached.
    pub fn reserve_for(&self, list: View<'_, Owner>) -> Result<Reservation<'_, 'a, S, D>, MapRangesError> {
        let (mut len, mut head) = (0_u64, None);
        let mask = self.fixed.granule.bytes().as_u64() - 1;
        for run in list.runs() {
            let reached = self.reach(run.owner()).map_err(MapRangesError::Refused)?;
            if reached.reach == Reach::Iova {
                head.get_or_insert_with(|| {
                    let offset = run.ranges().next().map_or(0, |(offset, _)| offset.as_u64());
                    self.head_of(run.owner(), Bytes::new(offset)) & mask
                });
                len = len.checked_add(run.len().as_u64()).ok_or(ReserveError::TooLong { len: list.len() })?;
            }
        }
        match head {
            Some(head) => Ok(self.reserve_from(Bytes::new(head), Bytes::new(len))?),
            None if list.is_empty() => Err(ReserveError::Empty.into()),
            None => {
                let lists = self.inner.borrow_mut().spare.pop().unwrap_or_default();
                Ok(Reservation::new(self, None, list.len(), lists))
            }
        }
    }

    /// Maps a list in one call: reserve, link, sync.
    ///
    /// # Errors
    /// [`MapRangesError`]; nothing is mapped after any of them.
    #[track_caller]
    pub fn map(&self, list: View<'_, Owner>, prot: Prot) -> Result<Mapping<'_, 'a, S, D>, MapRangesError> {
        let mut staged = self.reserve_for(list)?.stage();
        staged.link_many(list, prot)?;
        Ok(staged.sync()?)
    }

    /// Maps one contiguous range in one call; costs what reserving, linking and syncing it costs.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    #[track_caller]
    #[inline]
    pub fn map_one(&self, chunk: Chunk<Owner>, prot: Prot) -> Result<Mapping<'_, 'a, S, D>, MapRangesError> {
        let head = match chunk.owner() {
            Owner::Ram if self.fixed.taken.physical.is_some() => chunk.offset().as_u64(),
            owner => self.head_of(owner, chunk.offset()),
        };
        let reached = self.reach(chunk.owner()).map_err(MapRangesError::Refused)?;
        let reservation = match reached.reach {
            Reach::Iova => self.reserve_from(Bytes::new(head), chunk.len())?,
            Reach::Bus { .. } | Reach::Physical => {
                let lists = self.inner.borrow_mut().spare.pop().unwrap_or_default();
                Reservation::new(self, None, chunk.len(), lists)
            }
        };
        let mut staged = reservation.stage();
        staged.link(chunk, prot)?;
        Ok(staged.sync()?)
    }

    /// Maps a range of another device's memory for this initiator: the one call for one peer range.
    ///
    /// # Errors
    /// As [`map`](Self::map); the refusal carries the chain of reasons of the pair's verdict.
    #[track_caller]
    pub fn map_p2p(&self, target: Chunk<Owner>, prot: Prot) -> Result<Mapping<'_, 'a, S, D>, MapRangesError> {
        if !target.owner().is_mmio() {
            return Err(MapRangesError::NotPeer { owner: target.owner() });
        }
        self.map_one(target, prot)
    }

    /// Stages a list that the caller says is of one kind; the word is checked once for each run.
    ///
    /// # Errors
    /// [`MapRangesError::NotUniform`] names the first run that is reached by another kind of address or has
    /// other attributes; nothing is mapped then.
    #[track_caller]
    pub fn stage_uniform(&self, list: View<'_, Owner>, prot: Prot) -> Result<Staged<'_, 'a, S, D>, MapRangesError> {
        let mut first = None;
        for run in list.runs() {
            let reached = self.reach(run.owner()).map_err(MapRangesError::Refused)?;
            let kind = (core::mem::discriminant(&reached.reach), run.attrs(), run.owner().is_mmio());
            if *first.get_or_insert(kind) != kind {
                return Err(MapRangesError::NotUniform { owner: run.owner(), at: run.at() });
            }
        }
        let mut staged = self.reserve_for(list)?.stage();
        staged.link_many(list, prot)?;
        Ok(staged)
    }

    /// How far into a granule a byte of an owner lies, as far as the owner tells.
    fn head_of(&self, owner: Owner, offset: Bytes) -> u64 {
        let stretch = self.owners.resolve(owner, offset, Bytes::new(1), self.fixed.taken);
        stretch.map_or(offset.as_u64(), |stretch| super::place::start_of(&stretch.source))
    }

    /// Takes IOVAs back.
    pub(super) fn give_back(&self, iova: Option<AddrRange<Iova>>, lists: Lists) {
        let mut inner = self.inner.borrow_mut();
        if let Some(iova) = iova {
            let freed = inner.arena.free(self.depot, iova);
            assert!(freed.is_ok(), "a reservation holds what the allocator handed out: {freed:?}");
        }
        inner.keep(lists);
    }

    /// Keeps IOVAs out of circulation, since something is still mapped there.
    pub(super) fn lose(&self, iova: AddrRange<Iova>) {
        self.inner.borrow_mut().lost.push(iova);
    }
}

impl<S: IoSpace, D: Depot> Drop for Context<'_, S, D> {
    fn drop(&mut self) {
        // A range that the allocator does not know was freed by somebody else; the others are back.
        let _ = self.inner.get_mut().arena.drain(self.depot);
    }
}

impl<S: IoSpace> Inner<S> {
    #[inline]
    pub(super) fn reach<D: Depot>(&mut self, context: &Context<'_, S, D>, owner: Owner) -> Result<Reached, Refusal> {
        match self.reached.first() {
            Some((known, reached)) if *known == owner => Ok(*reached),
            _ => self.look_up(context, owner),
        }
    }

    /// The owner that was asked for last comes first.
    fn look_up<D: Depot>(&mut self, context: &Context<'_, S, D>, owner: Owner) -> Result<Reached, Refusal> {
        if let Some(at) = self.reached.iter().position(|(known, _)| *known == owner) {
            self.reached.swap(0, at);
            return Ok(self.reached[0].1);
        }
        let reached = context.peers.reach(&context.initiator, owner)?;
        self.reached.insert(0, (owner, reached));
        Ok(reached)
    }

    pub(super) fn may<D: Depot>(
        &mut self,
        context: &Context<'_, S, D>,
        owner: Owner,
        prot: Prot,
    ) -> Result<Reached, LinkError> {
        let reached = self.reach(context, owner)?;
        match reached.permits(prot) {
            Permission::Permitted => Ok(reached),
            _ => Err(context.peers.direction(&context.initiator, owner, &reached, prot).into()),
        }
    }

    fn keep(&mut self, mut lists: Lists) {
        lists.spans.clear();
        lists.bounced.clear();
        if self.spare.len() < SPARE && lists.spans.capacity() > 0 {
            self.spare.push(lists);
        }
    }
}

impl Fixed {
    fn of(initiator: &Initiator, peers: &Peers<'_>, abilities: &Abilities) -> Result<Self, ContextError> {
        let name = || initiator.name().into();
        let translated = initiator.mode() == IommuMode::Translated;
        let windows = match &abilities.placement {
            Placement::Chosen => None,
            Placement::Dictated(windows) => Some(windows.clone()),
        };
        if translated == windows.is_some() {
            return Err(ContextError::ModeMismatch { initiator: name(), mode: initiator.mode() });
        }
        if translated && !abilities.changes.contains(Changes::UNMAP_SEVERAL) {
            return Err(ContextError::OneAtATime { initiator: name() });
        }
        if let Some(limit) = initiator.segments.impossible() {
            return Err(ContextError::Segments { initiator: name(), limit });
        }
        // A space that dictates addresses knows which of them there are.
        let there = abilities.usable.as_slice().last().map_or(0, |range| range.last().as_u64());
        let highest = if translated { initiator.highest() } else { initiator.highest().min(there) };
        let snooped = if initiator.is_coherent() { MemAttrs::empty() } else { MemAttrs::NOT_SNOOPED };
        let privileged = if initiator.privileged { MemAttrs::PRIVILEGED } else { MemAttrs::empty() };
        let missing = snooped.union(privileged).difference(abilities.attrs);
        if !missing.is_empty() {
            return Err(ContextError::AttrsNotTaken { initiator: name(), attrs: missing });
        }
        Ok(Self {
            granule: abilities.granule,
            taken: abilities.sources,
            highest,
            windows,
            memory: snooped.union(privileged),
            mmio: MemAttrs::MMIO.union(privileged),
            expressed: abilities.attrs.union(MemAttrs::MMIO),
            copies_all: initiator.copies_all(),
            bridge: peers.judge().zip(initiator.function()).and_then(|(judge, at)| bridge_of(judge.topology(), at)),
        })
    }
}
