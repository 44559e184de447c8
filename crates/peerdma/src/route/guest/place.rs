//! Where a guest has to see a BAR so that an initiator's requests arrive there.

use super::arrival::{self, Part, Sender};
use super::{Finding, GuestBar, Initiator, LayoutError, Requests, Stray};
use crate::addr::{AddrRange, GuestPhys};
use crate::route::fabric::{Fate, Handed, Kind, Way};
use crate::route::{Gate, Judge, Permission, Reason, Target};
use crate::topology::FunctionId;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

/// Where a guest has to see a BAR for the sake of one initiator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// At any address that comes up to the IOMMU as it is, which [`check`](super::check) looks at: the IOMMU leads it to
    /// the BAR, or has told the initiator where the BAR is.
    Any {
        /// The address at which requests go to the BAR below the root complex instead, past the IOMMU and
        /// sooner; `None` where there is none.
        direct: Option<GuestPhys>,
    },
    /// At the BAR's own bus address, at which ports below the root complex lead requests there.
    Identity {
        /// That address.
        at: GuestPhys,
        /// What becomes of requests anywhere else: `Refused` where they are lost, `Unknown` where that cannot be told
        /// or is specified nowhere.
        elsewhere: Permission,
    },
    /// Nowhere: requests of this initiator do not reach the BAR at any address, for these reasons.
    Refused(Vec<Reason>),
    /// What decides was not read or is specified nowhere.
    Unknown(Vec<Reason>),
}

impl Place {
    /// Where `initiator` needs the BAR. Reads and writes are both needed.
    pub fn of(judge: &Judge<'_>, initiator: Initiator, target: &Target) -> Self {
        let of = |translated| Sender { judge, function: initiator.function, translated };
        match initiator.requests {
            Requests::Untranslated => of(false).place(target),
            Requests::Translated => of(true).translated_place(target),
            Requests::Untold => {
                let (untranslated, translated) = (of(false).place(target), of(true).translated_place(target));
                let any = |place: &Self| matches!(place, Self::Any { .. });
                if untranslated == translated || any(&untranslated) && any(&translated) {
                    // At the number itself a request for a translation would come to the BAR.
                    return match translated {
                        Self::Any { .. } => Self::Any { direct: None },
                        other => other,
                    };
                }
                let words = if any(&translated) { "an untranslated" } else { "a translated" };
                let mut reasons = vec![arrival::untold(judge.topology(), initiator.function, words)];
                reasons.extend([untranslated, translated].into_iter().flat_map(Self::into_reasons));
                Self::Unknown(reasons)
            }
        }
    }

    fn into_reasons(self) -> Vec<Reason> {
        match self {
            Self::Refused(reasons) | Self::Unknown(reasons) => reasons,
            Self::Any { .. } | Self::Identity { .. } => Vec::new(),
        }
    }

    /// Whether there is an address at which requests are known to arrive.
    pub fn permission(&self) -> Permission {
        match self {
            Self::Any { .. } | Self::Identity { .. } => Permission::Permitted,
            Self::Refused(_) => Permission::Refused,
            Self::Unknown(_) => Permission::Unknown,
        }
    }
}

impl Sender<'_, '_> {
    fn place(&self, target: &Target) -> Place {
        let elsewhere = if self.has_no_iommu() { Some(Stray::NotTranslated) } else { self.fares(target, Handed::Iova) };
        let own = target.bus().and_then(|bus| AddrRange::new(GuestPhys::new(bus.start().as_u64()), bus.len()));
        let at_own = own.map(|own| (own, self.bar(target, own)));
        let direct = at_own.as_ref().filter(|(own, strays)| strays.is_empty() && self.is_direct(*own));
        let direct = direct.map(|(own, _)| own.start());
        match (elsewhere, direct, at_own) {
            (None, direct, _) => Place::Any { direct },
            (Some(stray), Some(at), _) => Place::Identity { at, elsewhere: stray.permission() },
            (Some(stray), None, Some((_, strays))) => {
                let all = strays.iter().map(|(_, stray)| stray).chain([&stray]);
                self.nowhere(all.collect())
            }
            (Some(stray), None, None) => self.unnumbered(target, stray),
        }
    }

    /// A BAR whose bus address is not told, if that matters: it does where ports would lead to it.
    fn unnumbered(&self, target: &Target, elsewhere: Stray) -> Place {
        let at_own = self.judge.fabric().pass(self.function, target, Kind::Write, Handed::Bus);
        if at_own.way == Some(Way::RootComplex) || at_own.fate == Fate::Lost {
            return self.nowhere(vec![&elsewhere]);
        }
        let mut reasons = vec![Reason {
            gate: Gate::FabricPort,
            object: self.judge.topology().function(target.function()).address().to_string(),
            evidence: "ports may lead requests to it at its bus address, which was not read, or its size was not"
                .into(),
            fix: Some("read sysfs, or lspci -vvv with -xxxx".into()),
        }];
        reasons.extend(elsewhere.reasons(self.judge.topology(), self.function));
        Place::Unknown(reasons)
    }

    fn nowhere(&self, strays: Vec<&Stray>) -> Place {
        let mut reasons = Vec::new();
        for reason in strays.iter().flat_map(|stray| stray.reasons(self.judge.topology(), self.function)) {
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        match strays.iter().any(|stray| stray.permission() == Permission::Unknown) {
            true => Place::Unknown(reasons),
            false => Place::Refused(reasons),
        }
    }

    fn translated_place(&self, target: &Target) -> Place {
        let fares =
            if self.has_no_iommu() { Some(Stray::NotTranslated) } else { self.fares(target, Handed::Translated) };
        match fares {
            None => Place::Any { direct: None },
            Some(stray) => self.nowhere(vec![&stray]),
        }
    }
}

/// What becomes of an initiator's requests for a BAR that the guest sees at `at`.
pub(super) fn strays(judge: &Judge<'_>, initiator: Initiator, bar: &GuestBar) -> Vec<Part> {
    by_requests(judge, initiator, |sender| sender.bar(bar.target(), bar.at()))
}

/// What `ask` finds for the requests that an initiator may send.
pub(super) fn by_requests(
    judge: &Judge<'_>,
    initiator: Initiator,
    ask: impl Fn(&Sender<'_, '_>) -> Vec<Part>,
) -> Vec<Part> {
    let of = |translated| ask(&Sender { judge, function: initiator.function, translated });
    match initiator.requests {
        Requests::Untranslated => of(false),
        Requests::Translated => of(true),
        Requests::Untold => arrival::either(judge.topology(), initiator.function, of(false), of(true)),
    }
}

/// Where several initiators of one guest need a BAR.
#[derive(Clone, Debug)]
pub struct NeededPlace<'j, 't> {
    judge: &'j Judge<'t>,
    target: Target,
    /// Each initiator but the BAR's own function, with the place that it needs.
    pub places: Vec<(Initiator, Place)>,
}

/// What a machine monitor is told that is about to place or move a BAR.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Proposal {
    /// Requests of all initiators arrive at this address.
    Fits,
    /// Some initiators reach the BAR at its own bus address only, so whatever else was found, it has to be there.
    MustBe {
        /// That address.
        at: GuestPhys,
        /// Who needs it.
        needed_by: Vec<FunctionId>,
    },
    /// Requests of some initiators would not arrive, for these reasons.
    Refused(Vec<Finding>),
    /// What decides was not read or is specified nowhere.
    Unknown(Vec<Finding>),
}

/// Where the guest has to see `target`, a BAR, for the sake of these initiators. Blocks nobody.
pub fn needed_place<'j, 't>(judge: &'j Judge<'t>, initiators: &[Initiator], target: &Target) -> NeededPlace<'j, 't> {
    let others = initiators.iter().filter(|initiator| initiator.function != target.function());
    let places = others.map(|&initiator| (initiator, Place::of(judge, initiator, target))).collect();
    NeededPlace { judge, target: *target, places }
}

impl NeededPlace<'_, '_> {
    /// What becomes of requests if the guest sees the BAR at `at`.
    ///
    /// # Errors
    /// As [`GuestLayout::new`](super::GuestLayout::new) of a BAR: its size is not told, or the address is none for it.
    pub fn propose(&self, at: GuestPhys) -> Result<Proposal, LayoutError> {
        let bar = GuestBar::new(self.judge.topology(), self.target, at)?;
        let meant = bar.meant(self.judge.topology());
        let (mut findings, mut needed_by, mut own) = (Vec::new(), Vec::new(), None);
        for (initiator, place) in &self.places {
            let strays = strays(self.judge, *initiator, &bar);
            // Where another address may do as well, this one is only a bad one.
            if let Place::Identity { at: needed, elsewhere: Permission::Refused } = *place
                && !strays.is_empty()
            {
                needed_by.push(initiator.function);
                own = Some(needed);
            }
            findings.extend(arrival::findings(initiator.function, meant, strays));
        }
        Ok(match (own, super::permission(&findings)) {
            (Some(at), _) => Proposal::MustBe { at, needed_by },
            (None, Permission::Permitted) => Proposal::Fits,
            (None, Permission::Refused) => Proposal::Refused(findings),
            (None, Permission::Unknown) => Proposal::Unknown(findings),
        })
    }
}
