//! What becomes of one initiator's requests at guest addresses, of one kind of request.
//!
//! A number is followed below the root complex as it is. What comes up there is for the IOMMU, which
//! leads it where the guest means, if it can hold the address at all; from there the pair's view goes on.

use super::{Finding, Meant, Stray};
use crate::addr::{AddrRange, Address, BusAddr, GuestPhys};
use crate::route::domain::Domain;
use crate::route::fabric::{At, Fate, Handed, Kind, Led, Way};
use crate::route::payload::{Between, Clash, Payload};
use crate::route::verdict::clash_reason;
use crate::route::{Gate, Judge, Reason, Target, whose};
use crate::topology::{FunctionId, IommuMode, MemoryRegion, Topology};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

/// One initiator, and whether its requests carry translations.
#[derive(Clone, Copy)]
pub(super) struct Sender<'j, 't> {
    pub(super) judge: &'j Judge<'t>,
    pub(super) function: FunctionId,
    pub(super) translated: bool,
}

/// A part of a range, and what becomes of requests there instead.
pub(super) type Part = (AddrRange<GuestPhys>, Stray);

impl Sender<'_, '_> {
    fn topology(&self) -> &Topology {
        self.judge.topology()
    }

    /// Parts of RAM that its requests do not reach.
    pub(super) fn ram(&self, range: AddrRange<GuestPhys>) -> Vec<Part> {
        let mut parts = Vec::new();
        for (part, led) in self.led(range) {
            match astray(led) {
                Some(stray) => parts.push((part, stray)),
                None => parts.extend(self.at_iommu(part)),
            }
        }
        if parts.is_empty() && self.translated {
            parts.extend(self.aliased_translation().map(|stray| (range, stray)));
        }
        parts
    }

    /// Parts of a BAR, seen by the guest at `at`, that its requests do not reach.
    pub(super) fn bar(&self, target: &Target, at: AddrRange<GuestPhys>) -> Vec<Part> {
        let is_own =
            |led: &Led| matches!(*led, Led::Function { to, bar } if to == target.function() && bar == target.bar());
        let at_its_number = target.bus() == as_bus(at);
        let mut parts = Vec::new();
        for (part, led) in self.led(at) {
            // A translation request that comes to the BAR is answered with Unsupported Request.
            if !self.translated && at_its_number && is_own(&led) {
                parts.extend(self.fares(target, Handed::Bus).map(|stray| (part, stray)));
                continue;
            }
            if let Some(stray) = astray(led) {
                parts.push((part, stray));
                continue;
            }
            let stopped = self.at_iommu(part);
            if stopped.is_empty() {
                let handed = if self.translated { Handed::Translated } else { Handed::Iova };
                parts.extend(self.fares(target, handed).map(|stray| (part, stray)));
            }
            parts.extend(stopped);
        }
        parts
    }

    /// Whether the target takes requests below the root complex where the guest sees it at its own number.
    pub(super) fn is_direct(&self, at: AddrRange<GuestPhys>) -> bool {
        self.led(at).iter().all(|(_, led)| matches!(led, Led::Function { .. }))
    }

    /// Where guest addresses lead, or the requests that ask for their translation.
    fn led(&self, range: AddrRange<GuestPhys>) -> Vec<(AddrRange<GuestPhys>, Led)> {
        let at = if self.translated { At::TranslationRequest } else { At::Untranslated };
        let Some(numbers) = as_bus(range) else { return Vec::new() };
        let stretches = self.judge.fabric().follow(self.function, at, numbers);
        let as_guest = |range: AddrRange<BusAddr>| AddrRange::new(GuestPhys::new(range.start().as_u64()), range.len());
        stretches.into_iter().filter_map(|stretch| Some((as_guest(stretch.range)?, stretch.led))).collect()
    }

    /// What an IOMMU does not translate of a range that comes up to it.
    fn at_iommu(&self, range: AddrRange<GuestPhys>) -> Vec<Part> {
        if self.has_no_iommu() {
            return vec![(range, Stray::NotTranslated)];
        }
        let mut parts = Vec::new();
        let group = self.topology().function(self.function).info().iommu_group;
        for group in self.topology().groups().iter().filter(|one| Some(one.id) == group) {
            for region in &group.reserved {
                // What firmware used before is free for others (Linux 7.2 `iommufd_group_setup_resv`,
                // `vfio_iommu_resv_exclude`).
                let common = common(range, region.range).filter(|_| region.kind != "direct-relaxable");
                let kind = &region.kind;
                parts.extend(
                    common.map(|part| {
                        (part, Stray::Reserved { group: group.id, kind: kind.clone(), region: region.range })
                    }),
                );
            }
        }
        if let Some(bits) = self.topology().machine().iommu_address_bits
            && let Some(beyond) = 1_u64.checked_shl(u32::from(bits)).map(GuestPhys::new)
            && let Some(part) = AddrRange::from_inclusive(range.start().max(beyond), range.last())
        {
            parts.push((part, Stray::TooWide { bits }));
        }
        parts
    }

    pub(super) fn has_no_iommu(&self) -> bool {
        Domain::of(self.topology(), self.function).mode == Some(IommuMode::None)
    }

    /// What stands against reads and writes of the target by such a number.
    pub(super) fn fares(&self, target: &Target, handed: Handed) -> Option<Stray> {
        let fabric = self.judge.fabric();
        let passages = [Kind::Write, Kind::Read].map(|kind| fabric.pass(self.function, target, kind, handed));
        let mut reasons: Vec<Reason> = Vec::new();
        for passage in passages.iter().filter(|passage| passage.fate != Fate::Arrives) {
            for reason in fabric.explain(self.function, target, passage.kind, handed).reasons {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        }
        let is = |fate| passages.iter().any(|passage| passage.fate == fate);
        if is(Fate::Lost) {
            Some(Stray::Lost(reasons))
        } else if is(Fate::Unknown) {
            Some(Stray::Unknown(reasons))
        } else if is(Fate::Undefined) {
            Some(Stray::Undefined(reasons))
        } else {
            self.does_not_fit(target, passages[0].way)
        }
    }

    /// Payloads that somebody on the way does not take.
    fn does_not_fit(&self, target: &Target, way: Option<Way>) -> Option<Stray> {
        let kernel = self.judge.kernel();
        let between = match way? {
            Way::BelowRoot => Between::below(kernel.decide(target.function(), self.function).common),
            Way::RootComplex => Between::Root,
        };
        let payload = Payload::between(kernel, self.function, target.function(), between);
        let clashes: Vec<(Clash, Reason)> = [(payload.write, "writes"), (payload.read, "completions of reads")]
            .into_iter()
            .filter_map(|(clash, what)| Some((clash?, clash_reason(self.topology(), &clash?, what, way))))
            .collect();
        let reasons = |which: fn(&Clash) -> bool| -> Vec<Reason> {
            clashes.iter().filter(|(clash, _)| which(clash)).map(|(_, reason)| reason.clone()).collect()
        };
        let certain = reasons(Clash::is_certain);
        let avoidable = reasons(|clash| clash.may_be_avoided);
        if !certain.is_empty() {
            Some(Stray::Lost(certain))
        } else {
            (!avoidable.is_empty()).then_some(Stray::Unknown(avoidable))
        }
    }

    /// A translation is an address of this machine's RAM, and windows at an offset may show BARs at the same
    /// numbers; which RAM is behind the guest's, the layout does not tell.
    fn aliased_translation(&self) -> Option<Stray> {
        let topology = self.topology();
        let host = topology.host_bridge(whose::host_of(topology, self.function)?);
        let map = &topology.machine().memory_map;
        let ram = map.iter().filter(|region| region.name == MemoryRegion::SYSTEM_RAM).map(|region| region.range);
        let ram: Vec<_> =
            ram.filter_map(|range| AddrRange::new(BusAddr::new(range.start().as_u64()), range.len())).collect();
        for window in host.facts().windows.iter().filter(|window| !window.is_one_to_one()) {
            let suspects = if map.is_empty() {
                vec![window.bus()]
            } else {
                ram.iter().filter_map(|range| common(*range, window.bus())).collect()
            };
            for suspect in suspects {
                let led = self.judge.fabric().follow(self.function, At::Translated, suspect);
                if let Some(stretch) = led.into_iter().find(|stretch| stretch.led != Led::Root) {
                    return Some(Stray::Unknown(vec![Reason {
                        gate: Gate::FabricPort,
                        object: topology.function(self.function).address().to_string(),
                        evidence: format!(
                            "below its host bridge {} are numbers of windows at an offset: a translation that leads to RAM \
                             with these numbers does not come up to the root complex",
                            stretch.range
                        ),
                        fix: Some("keep this RAM from guests, or let the ports redirect translated requests".into()),
                    }]));
                }
            }
        }
        None
    }
}

/// The findings of both kinds of request, where either may come: what both have is so, what one has is unknown.
pub(super) fn either(
    topology: &Topology,
    function: FunctionId,
    untranslated: Vec<Part>,
    translated: Vec<Part>,
) -> Vec<Part> {
    let only = |one: Vec<Part>, other: &[Part], kind: &str| -> Vec<Part> {
        let doubt = |(range, stray): Part| {
            if other.contains(&(range, stray.clone())) {
                return (range, stray);
            }
            let mut reasons = vec![untold(topology, function, kind)];
            reasons.extend(stray.reasons(topology, function));
            (range, Stray::Unknown(reasons))
        };
        one.into_iter().map(doubt).collect()
    };
    let mut parts = only(untranslated.clone(), &translated, "an untranslated");
    parts.extend(only(
        translated.into_iter().filter(|part| !untranslated.contains(part)).collect(),
        &[],
        "a translated",
    ));
    parts
}

/// That it is not told what an initiator sends.
pub(super) fn untold(topology: &Topology, function: FunctionId, kind: &str) -> Reason {
    Reason {
        gate: Gate::IommuMode,
        object: topology.function(function).address().to_string(),
        evidence: format!(
            "ATS is on or was not read, and no register tells whether it uses translations alone; {kind} request does not \
             arrive there, or is not known to"
        ),
        fix: Some("state which requests it sends".into()),
    }
}

pub(super) fn findings(function: FunctionId, meant: Meant, parts: Vec<Part>) -> impl Iterator<Item = Finding> {
    parts.into_iter().map(move |(range, stray)| Finding { initiator: function, range, meant, stray })
}

/// The numbers of guest addresses, as ports compare them.
pub(super) fn as_bus(range: AddrRange<GuestPhys>) -> Option<AddrRange<BusAddr>> {
    AddrRange::new(BusAddr::new(range.start().as_u64()), range.len())
}

fn common<A: Address, B: Address>(one: AddrRange<A>, other: AddrRange<B>) -> Option<AddrRange<A>> {
    let first = one.start().as_u64().max(other.start().as_u64());
    AddrRange::from_inclusive(A::from_raw(first), A::from_raw(one.last().as_u64().min(other.last().as_u64())))
}

/// What became of a number that did not come up to the root complex.
fn astray(led: Led) -> Option<Stray> {
    match led {
        Led::Root => None,
        Led::Function { to, bar } => Some(Stray::Captured { by: to, bar }),
        Led::Stopped { at } => Some(Stray::Stopped { at }),
        Led::Undefined(reason) => Some(Stray::Undefined(vec![reason])),
        Led::Unknown(reason) => Some(Stray::Unknown(vec![reason])),
    }
}
