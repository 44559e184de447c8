//! How one initiator reaches the memory of one owner.
//!
//! Decided once for each owner, not for each range: the route is the same for all of a
//! BAR, however small the piece. Device memory is judged by both views
//! ([`Judge`]), and what Linux and the hardware make of the pair decides the kind of
//! address. Memory needs no route: it is translated or it is not.
//!
//! Not here: alignment, masks and bouncing, which belong to each range
//! ([`engine`](super::engine)).

mod interfaces;

use super::confidential::{MemoryKind, Rule};
use super::initiator::Initiator;
use super::owner::Owner;
use super::permit::Permit;
use crate::access::Prot;
use crate::addr::{AddrRange, BusAddr, Bytes};
use crate::route::domain::Owner as DomainOwner;
use crate::route::fabric::{Fate, Passage};
use crate::route::kernel_view::MapType;
use crate::route::{Judge, PairVerdict, Permission, Reason, Target, TargetError, Verdict};
use crate::topology::{FunctionId, HostBridgeId, IommuMode, Parent, Topology};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use interfaces::Stated;

/// The kind of address that leads to an owner's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// A bus address; the owner's first byte is at `start`.
    Bus {
        /// Where the owner starts.
        start: BusAddr,
        /// The host bridge below which that means something.
        bridge: Option<HostBridgeId>,
    },
    /// An IOVA that has to be mapped.
    Iova,
    /// Untranslated: CPU-physical, or what the host bridge's windows make of it.
    Physical,
}

/// How an owner is reached, and for what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reached {
    /// The kind of address.
    pub reach: Reach,
    /// Whether reads return the owner's bytes.
    pub read: Permission,
    /// Whether writes arrive.
    pub write: Permission,
    /// How long the owner is, where it is reached by bus address and that is told: a bus address
    /// further on is somebody else's.
    pub len: Option<Bytes>,
}

impl Reached {
    const fn permitted(reach: Reach) -> Self {
        Self { reach, read: Permission::Permitted, write: Permission::Permitted, len: None }
    }

    /// Whether all that `prot` asks for is permitted.
    #[inline]
    pub const fn permits(&self, prot: Prot) -> Permission {
        match prot {
            Prot::Read => self.read,
            Prot::Write => self.write,
            Prot::ReadWrite => self.read.and(self.write),
        }
    }
}

/// Why an owner's memory is not reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The initiator.
    pub initiator: String,
    /// The owner.
    pub owner: Owner,
    /// What stands in the way.
    pub why: Why,
    /// The chain of reasons, where a route was judged.
    pub reasons: Vec<Reason>,
}

/// What stands between an initiator and an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Why {
    /// No request arrives.
    Route,
    /// Reads fail.
    Reads,
    /// Writes are lost.
    Writes,
    /// The input cannot tell whether requests arrive.
    Unknown,
    /// Nothing states how this owner is reached; [`Peers::state`] it.
    Unstated,
    /// The initiator has no place in the topology; give it one with [`Initiator::at`].
    NoPlace,
    /// The topology says another mode of the initiator's domain than the initiator does.
    ModeContradicts,
    /// The owner is stated to be reached by IOVA, and nothing translates for the initiator.
    StatedForAnotherMode,
    /// The bus address that was stated for the owner means nothing below the initiator's host bridge.
    OtherHostBridge,
    /// The function has no such base address register.
    NoSuchBar,
    /// The input does not tell the number of the bus address.
    NoBusAddress,
    /// A rule of confidential computing.
    Confidential(Rule),
}

impl Refusal {
    /// Whether more input could make it a permission.
    pub const fn is_unknown(&self) -> bool {
        matches!(self.why, Why::Unknown | Why::Unstated | Why::NoPlace | Why::NoBusAddress)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { initiator, owner, .. } = self;
        match self.why {
            Why::Route => write!(f, "{initiator} does not reach {owner}")?,
            Why::Reads => write!(f, "reads of {initiator} from {owner} fail; map it for writing only")?,
            Why::Writes => write!(f, "writes of {initiator} to {owner} are lost; map it for reading only")?,
            Why::Unknown => write!(f, "the input cannot tell whether {initiator} reaches {owner}")?,
            Why::Unstated => {
                write!(f, "{owner} is no PCI function, so nobody knows how {initiator} reaches it; state its route")?;
            }
            Why::NoPlace => {
                write!(
                    f,
                    "{initiator} has no place in the topology, so its route to {owner} is unknown; say where it is"
                )?;
            }
            Why::ModeContradicts => {
                write!(f, "the topology tells another IOMMU mode of {initiator} than the one given; scan again")?;
            }
            Why::StatedForAnotherMode => write!(
                f,
                "{owner} is stated to be reached by IOVA, and nothing translates for {initiator}; state the route \
                 that it has"
            )?,
            Why::OtherHostBridge => write!(
                f,
                "the bus address stated for {owner} means nothing below the host bridge of {initiator}; state its \
                 route through the host bridges"
            )?,
            Why::NoSuchBar => write!(f, "the input tells of no {owner}; name a BAR that the function has")?,
            Why::NoBusAddress => {
                write!(f, "the input does not tell bus address and size of {owner}; scan with its device enabled")?;
            }
            Why::Confidential(rule) => write!(f, "{initiator} must not reach {owner}: {rule}")?,
        }
        for reason in &self.reasons {
            write!(f, "; {reason}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Refusal {}

/// What is known of the devices whose memory may be mapped.
#[derive(Clone, Debug, Default)]
pub struct Peers<'t> {
    judge: Option<Judge<'t>>,
    stated: Vec<(Owner, Reach)>,
    interfaces: Vec<Stated>,
    streams: Vec<(FunctionId, FunctionId)>,
    open: Vec<Owner>,
}

impl<'t> Peers<'t> {
    /// No device memory; memory alone can be mapped.
    pub fn none() -> Self {
        Self::default()
    }

    /// The functions of a machine.
    pub fn of(topology: &'t Topology) -> Self {
        Self { judge: Some(Judge::new(topology)), ..Self::default() }
    }

    /// States how an owner that is no PCI function is reached.
    pub fn state(&mut self, owner: Owner, reach: Reach) {
        self.stated.retain(|(known, _)| *known != owner);
        self.stated.push((owner, reach));
    }

    /// What judges pairs, if there is a topology.
    pub fn judge(&self) -> Option<&Judge<'t>> {
        self.judge.as_ref()
    }

    /// How `initiator` reaches the memory of `owner`.
    ///
    /// Costs a verdict for device memory; contexts ask once for each owner.
    ///
    /// # Errors
    /// [`Refusal`], with the chain of reasons.
    pub fn reach(&self, initiator: &Initiator, owner: Owner) -> Result<Reached, Refusal> {
        self.reach_said(initiator, owner, None)
    }

    /// Leave to map the memory of `owner` for `initiator`, whose address space a process fills through VFIO.
    ///
    /// Costs a verdict: on the IOVAs that it is given there, and not on a bus address that Linux would hand to a driver of its own.
    ///
    /// ```
    /// use peerdma::access::Prot;
    /// use peerdma::dma::{Initiator, Owner, OwnerId, Peers, PermittedBy, Reach};
    /// use peerdma::topology::IommuMode;
    ///
    /// let (mut peers, vram) = (Peers::none(), Owner::Device(OwnerId::new(1)));
    /// let nic = Initiator::new("nic", IommuMode::Translated);
    /// assert!(peers.permit(&nic, vram, Prot::Read).unwrap_err().is_unknown());
    /// peers.state(vram, Reach::Iova);
    /// assert_eq!(peers.permit(&nic, vram, Prot::Read)?.by(), PermittedBy::Verdict);
    /// # Ok::<(), peerdma::dma::Refusal>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal`], with the chain of reasons.
    pub fn permit(&self, initiator: &Initiator, owner: Owner, prot: Prot) -> Result<Permit, Refusal> {
        let initiator = initiator.clone().owned_by_vfio();
        let reached = self.reach(&initiator, owner)?;
        match reached.permits(prot) {
            Permission::Permitted => Ok(Permit::of_verdict(prot)),
            _ => Err(self.direction(&initiator, owner, &reached, prot)),
        }
    }

    /// As [`reach`](Self::reach), of memory whose exporter says what it is to confidential guests, and
    /// whether to the initiator's.
    pub(crate) fn reach_said(
        &self,
        initiator: &Initiator,
        owner: Owner,
        said: Option<(MemoryKind, bool)>,
    ) -> Result<Reached, Refusal> {
        let refused = |why, reasons| Refusal { initiator: initiator.name().into(), owner, why, reasons };
        let through = match initiator.mode() {
            IommuMode::Translated => Reach::Iova,
            IommuMode::Identity | IommuMode::None => Reach::Physical,
        };
        let reached = match owner {
            Owner::Ram | Owner::Process | Owner::Memfd(_) | Owner::Private(_) => Reached::permitted(through),
            Owner::Device(_) => {
                let stated = self.stated.iter().find(|(known, _)| *known == owner);
                let (_, reach) = stated.ok_or_else(|| refused(Why::Unstated, Vec::new()))?;
                match *reach {
                    Reach::Bus { bridge: Some(bridge), .. } if self.is_below_another(initiator, bridge) => {
                        return Err(refused(Why::OtherHostBridge, Vec::new()));
                    }
                    // Where nothing translates there are no IOVAs. The other way round whoever states it
                    // vouches that the number passes: mapped one to one, or past the IOMMU.
                    Reach::Iova if through != Reach::Iova => {
                        return Err(refused(Why::StatedForAnotherMode, Vec::new()));
                    }
                    reach => Reached::permitted(reach),
                }
            }
            Owner::Bar { function, bar } => self.judged(initiator, function, bar, through, &refused)?,
        };
        self.confidential(initiator, owner, &reached, said)
            .map_err(|rule| refused(Why::Confidential(rule), Vec::new()))?;
        Ok(reached)
    }

    /// Whether the initiator is known to be below another host bridge than this.
    fn is_below_another(&self, initiator: &Initiator, bridge: HostBridgeId) -> bool {
        let place = self.judge.as_ref().zip(initiator.function());
        place.and_then(|(judge, at)| bridge_of(judge.topology(), at)).is_some_and(|own| own != bridge)
    }

    fn judged(
        &self,
        initiator: &Initiator,
        function: FunctionId,
        bar: u8,
        through: Reach,
        refused: &dyn Fn(Why, Vec<Reason>) -> Refusal,
    ) -> Result<Reached, Refusal> {
        let (Some(judge), Some(place)) = (&self.judge, initiator.function()) else {
            return Err(refused(Why::NoPlace, Vec::new()));
        };
        let topology = judge.topology();
        let target = match Target::of_bar(topology, function, bar, None) {
            Ok(target) => target,
            Err(TargetError::NoSuchBar { .. }) => return Err(refused(Why::NoSuchBar, Vec::new())),
            Err(_) => return Err(refused(Why::NoBusAddress, Vec::new())),
        };
        let pair = judge.judge(place, &target);
        let reasons = || judge.reasons(&pair);
        match pair.domain.mode {
            None => return Err(refused(Why::Unknown, reasons())),
            Some(mode) if mode != initiator.mode() => return Err(refused(Why::ModeContradicts, reasons())),
            Some(_) => {}
        }
        match pair.kernel.map_type {
            MapType::NotSupported => return Err(refused(Why::Route, reasons())),
            MapType::Unknown => return Err(refused(Why::Unknown, reasons())),
            MapType::BusAddr | MapType::ThruHostBridge => {}
        }
        let direct = pair.kernel.map_type == MapType::BusAddr && initiator.bus_addresses;
        let reach = match (direct, target.bus()) {
            (true, Some(bus)) => Reach::Bus { start: bus.start(), bridge: bridge_of(topology, function) },
            (true, None) => return Err(refused(Why::NoBusAddress, reasons())),
            (false, _) => through,
        };
        let (read, write) = permissions(&pair, direct);
        if read == Permission::Refused && write == Permission::Refused {
            return Err(refused(Why::Route, reasons()));
        }
        let len = if direct { target.bus().as_ref().map(AddrRange::len) } else { None };
        Ok(Reached { reach, read, write, len })
    }

    /// Why `prot` is not to be had although the owner is reached.
    pub(crate) fn direction(&self, initiator: &Initiator, owner: Owner, reached: &Reached, prot: Prot) -> Refusal {
        let why = match (reached.permits(prot), prot.reads() && reached.read == Permission::Refused) {
            (Permission::Unknown, _) => Why::Unknown,
            (_, true) => Why::Reads,
            (_, false) => Why::Writes,
        };
        let reasons = match (owner, &self.judge, initiator.function()) {
            (Owner::Bar { function, bar }, Some(judge), Some(place)) => {
                let target = Target::of_bar(judge.topology(), function, bar, None);
                target.map(|target| judge.reasons(&judge.judge(place, &target))).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        Refusal { initiator: initiator.name().into(), owner, why, reasons }
    }
}

/// Whether reads and writes arrive with the address that is handed out.
fn permissions(pair: &PairVerdict, direct: bool) -> (Permission, Permission) {
    let of = |passage: &Passage| match passage.fate {
        Fate::Arrives => Permission::Permitted,
        Fate::Lost => Permission::Refused,
        Fate::Undefined | Fate::Unknown => Permission::Unknown,
    };
    // The verdict is on the address that is usually handed out; another one fares as followed.
    let other = match direct {
        true => &pair.on_request,
        false => &pair.astray,
    };
    match other {
        Some([write, read]) => (of(read), of(write)),
        None if pair.verdict == Verdict::Refused => (Permission::Refused, Permission::Refused),
        // Judged with bus addresses, which are not what will be handed out.
        None if !direct && pair.kernel.map_type == MapType::BusAddr && pair.domain.owner == DomainOwner::Kernel => {
            (Permission::Unknown, Permission::Unknown)
        }
        None => (pair.read, pair.write),
    }
}

/// The host bridge above a function, where the way up is known.
pub(super) fn bridge_of(topology: &Topology, function: FunctionId) -> Option<HostBridgeId> {
    let mut above = function;
    loop {
        match topology.upstream(above) {
            Parent::Bridge(bridge) => above = bridge,
            Parent::Root(host) => return Some(host),
            Parent::Unknown { .. } => return None,
        }
    }
}
