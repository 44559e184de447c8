//! From two views to one verdict.

use super::address::Address;
use super::views::Difference;
use super::{Need, Permission, Verdict};
use crate::addr::{AddrRange, PhysAddr};
use crate::pcie::Fact;
use crate::route::Target;
use crate::route::domain::{Domain, Owner};
use crate::route::fabric::{FabricView, Fate, Handed, Kind, Passage, Way};
use crate::route::kernel_view::{Common, Decision, KernelView, MapType};
use crate::route::payload::{Between, Clash, Payload};
use crate::topology::{FunctionId, IommuMode, MemoryRegion, Topology};
use alloc::vec::Vec;

/// Judges pairs of one topology.
#[derive(Clone, Debug)]
pub struct Judge<'t> {
    pub(super) kernel: KernelView<'t>,
    pub(super) fabric: FabricView<'t>,
}

/// Everything about one ordered pair.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairVerdict {
    /// Who sends the requests.
    pub initiator: FunctionId,
    /// What it reaches for.
    pub target: Target,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether reads return the target's bytes.
    pub read: Permission,
    /// Whether writes arrive.
    pub write: Permission,
    /// Whether atomic operations do.
    pub atomic: Permission,
    /// The address to hand out.
    pub address: Address,
    /// What Linux decides.
    pub kernel: Decision,
    /// How the IOMMU treats the initiator.
    pub domain: Domain,
    /// What the hardware does with a write of that address.
    pub fabric_write: Passage,
    /// With a read.
    pub fabric_read: Passage,
    /// With an atomic operation.
    pub fabric_atomic: Passage,
    /// What it does with bus addresses, where the initiator is handed others although
    /// Linux's rules give the switch-direct route: writes, then reads.
    pub on_request: Option<[Passage; 2]>,
    /// What it does with translated addresses, of initiators with ATS enabled: writes, then reads.
    pub translated: Option<[Passage; 2]>,
    /// What it does with IOVAs, where a kernel driver's domain translates and the route takes
    /// bus addresses: writes, then reads. Drivers that do not ask Linux hand those out.
    pub astray: Option<[Passage; 2]>,
    /// Payload sizes on the way, and its narrowest link.
    pub payload: Payload,
    /// Whether the initiator cannot form the address: bits it has, and bits it needs.
    pub too_narrow: Option<(u8, u8)>,
    /// RAM that the CPU addresses by the numbers of the target's bus address, where a window
    /// at an offset makes those another thing than its CPU address.
    pub aliased_ram: Option<AddrRange<PhysAddr>>,
    /// Where the two views differ.
    pub difference: Option<Difference>,
}

impl PairVerdict {
    /// Whether what is needed is permitted.
    pub fn permits(&self, need: Need) -> Permission {
        let verdict = match self.verdict {
            Verdict::Refused => Permission::Refused,
            Verdict::Unknown => Permission::Unknown,
            Verdict::Direct | Verdict::HostBridge => Permission::Permitted,
        };
        verdict.and(match need {
            Need::Read => self.read,
            Need::Write => self.write,
            Need::Both => self.read.and(self.write),
        })
    }
}

impl<'t> Judge<'t> {
    /// Prepares both views.
    pub fn new(topology: &'t Topology) -> Self {
        Self { kernel: KernelView::new(topology), fabric: FabricView::new(topology) }
    }

    /// The topology judged.
    pub fn topology(&self) -> &'t Topology {
        self.kernel.topology()
    }

    /// Linux's view.
    pub fn kernel(&self) -> &KernelView<'t> {
        &self.kernel
    }

    /// The hardware's view.
    pub fn fabric(&self) -> &FabricView<'t> {
        &self.fabric
    }

    /// Whether, by which route and at which address `initiator` reaches `target`.
    pub fn judge(&self, initiator: FunctionId, target: &Target) -> PairVerdict {
        let kernel = self.kernel.decide(target.function(), initiator);
        let domain = Domain::of(self.topology(), initiator);
        let address = Address::on_route(kernel.map_type, &domain, target);
        let [fabric_write, fabric_read, fabric_atomic] = self.best(initiator, target, &kernel, &domain);
        let pass = |kind, handed| self.fabric.pass(initiator, target, kind, handed);
        let both = |handed| [pass(Kind::Write, handed), pass(Kind::Read, handed)];
        let on_request =
            (kernel.map_type == MapType::BusAddr && domain.owner == Owner::Vfio).then(|| both(Handed::Bus));
        let has_ats = self.topology().function(initiator).info().registers.ats.known().flatten();
        let sends_translated = has_ats.is_some_and(|ats| ats.enabled) && domain.translates() == Some(true);
        let may_stray = matches!(address, Address::Bus(_)) && domain.translates() == Some(true);
        let between = between(&kernel, &fabric_write);
        let mut pair = PairVerdict {
            initiator,
            target: *target,
            verdict: Verdict::Unknown,
            read: Permission::Unknown,
            write: Permission::Unknown,
            atomic: Permission::Unknown,
            address,
            too_narrow: self.too_narrow(initiator, address, &domain),
            payload: Payload::between(&self.kernel, initiator, target.function(), between),
            on_request,
            translated: sends_translated.then(|| both(Handed::Translated)),
            astray: may_stray.then(|| both(Handed::Iova)),
            aliased_ram: self.aliased_ram(target),
            difference: None,
            kernel,
            domain,
            fabric_write,
            fabric_read,
            fabric_atomic,
        };
        pair.decide();
        pair.difference = Difference::of(&pair);
        pair
    }

    /// What the hardware does with the address that the route takes; where the mode is
    /// not told, in the mode in which more arrives.
    fn best(&self, initiator: FunctionId, target: &Target, kernel: &Decision, domain: &Domain) -> [Passage; 3] {
        let with = |handed| {
            [Kind::Write, Kind::Read, Kind::Atomic].map(|kind| self.fabric.pass(initiator, target, kind, handed))
        };
        let vfio = domain.owner == Owner::Vfio;
        let handed: &[Handed] = match (kernel.map_type, domain.mode) {
            (MapType::BusAddr, _) if !vfio => &[Handed::Bus],
            (_, Some(IommuMode::Translated)) => &[Handed::Iova],
            (_, Some(IommuMode::Identity | IommuMode::None)) => &[Handed::CpuPhysical],
            (_, None) => &[Handed::Iova, Handed::CpuPhysical],
        };
        let mut all: Vec<[Passage; 3]> = handed.iter().map(|&handed| with(handed)).collect();
        let rank = |passages: &[Passage; 3]| -> u32 {
            let weight = |passage: &Passage| match passage.fate {
                Fate::Arrives => 2,
                Fate::Unknown | Fate::Undefined => 1,
                Fate::Lost => 0,
            };
            passages[..2].iter().map(weight).sum()
        };
        // The first of equals, so that translation, the default of most kernels, is described.
        let best = (0..all.len()).max_by_key(|&index| (rank(&all[index]), core::cmp::Reverse(index)));
        let mut best = all.swap_remove(best.unwrap_or(0));
        // What a root complex loses is lost only if it gets there: Linux may yet hand out bus addresses.
        if kernel.map_type == MapType::Unknown && kernel.goes_up != Fact::Known(true) && !vfio {
            for passage in best.iter_mut().filter(|passage| passage.fate == Fate::Lost) {
                *passage = self.fabric.pass(initiator, target, passage.kind, Handed::Bus);
            }
        }
        best
    }

    fn aliased_ram(&self, target: &Target) -> Option<AddrRange<PhysAddr>> {
        let (bus, cpu) = target.bus().zip(target.cpu())?;
        if bus.start().as_u64() == cpu.start().as_u64() {
            return None;
        }
        let [first, last] = [bus.start(), bus.last()].map(|address| PhysAddr::new(address.as_u64()));
        let regions = self.topology().machine().memory_map.iter();
        regions.filter(|region| region.name == MemoryRegion::SYSTEM_RAM).find_map(|region| {
            AddrRange::from_inclusive(first.max(region.range.start()), last.min(region.range.last()))
        })
    }

    /// The mask of a driver that is not bound says nothing: it is the kernel's default.
    fn too_narrow(&self, initiator: FunctionId, address: Address, domain: &Domain) -> Option<(u8, u8)> {
        let info = self.topology().function(initiator).info();
        let stated = info.origin == crate::topology::Origin::Platform;
        let bound = info.driver.is_some() && domain.owner == Owner::Kernel;
        let has = info.dma_mask_bits.filter(|_| stated || bound)?;
        let needs = u64::BITS - address.highest()?.leading_zeros();
        let needs = u8::try_from(needs).ok()?;
        (needs > has).then_some((has, needs))
    }
}

/// How the data goes: as the hardware does it, where that is known, else as Linux decides.
fn between(kernel: &Decision, write: &Passage) -> Between {
    match write.way {
        Some(Way::BelowRoot) => Between::below(kernel.common),
        Some(Way::RootComplex) => Between::Root,
        None if kernel.map_type == MapType::BusAddr => Between::below(kernel.common),
        None if kernel.common == Common::Unknown => Between::Unknown,
        None => Between::Root,
    }
}

impl PairVerdict {
    fn decide(&mut self) {
        let permission = |fate| match fate {
            Fate::Arrives => Permission::Permitted,
            Fate::Lost => Permission::Refused,
            Fate::Undefined | Fate::Unknown => Permission::Unknown,
        };
        let by_kernel = match self.kernel.map_type {
            MapType::NotSupported => Permission::Refused,
            MapType::Unknown => Permission::Unknown,
            MapType::BusAddr | MapType::ThruHostBridge => Permission::Permitted,
        };
        let formable = if self.too_narrow.is_some() { Permission::Refused } else { Permission::Permitted };
        let all = by_kernel.and(formable);
        // A root complex may split what it forwards; a switch never does, nor does anybody on the way up.
        let fits = |clash: Option<Clash>| match clash {
            Some(clash) if clash.is_certain() => Permission::Refused,
            Some(Clash { may_be_avoided: true, .. }) => Permission::Unknown,
            Some(_) | None => Permission::Permitted,
        };
        let (write_fits, read_fits) = (fits(self.payload.write), fits(self.payload.read));
        self.write = all.and(permission(self.fabric_write.fate)).and(write_fits);
        self.read = all.and(permission(self.fabric_read.fate)).and(read_fits);
        self.atomic = all.and(permission(self.fabric_atomic.fate));
        let vfio_past_the_switch = self.kernel.map_type == MapType::BusAddr && self.domain.owner == Owner::Vfio;
        self.verdict = match (self.write, self.read) {
            (Permission::Refused, Permission::Refused) => Verdict::Refused,
            _ if by_kernel == Permission::Unknown => Verdict::Unknown,
            // What leads past the switch is known to go up; whether it comes down again is
            // what `read` and `write` say.
            _ if vfio_past_the_switch => Verdict::HostBridge,
            (Permission::Permitted, _) | (_, Permission::Permitted) => match self.kernel.map_type {
                MapType::BusAddr => Verdict::Direct,
                _ => Verdict::HostBridge,
            },
            _ => Verdict::Unknown,
        };
        if self.verdict == Verdict::Refused {
            self.address = Address::None;
        }
    }
}
