//! One exporter, one importer and one place, held against the rules.

use super::declaration::{Contiguity, Declaration};
use super::lifetimes::{self, Answer};
use super::offer::{Methods, Offer, Place};
use super::reached::Reached;
use super::refusal::{Evidence, Refusal};
use super::rule::{RULES, Rule};
use crate::chunk::Chunk;
use crate::dma::confidential::{Interface, MemoryKind};
use crate::dma::{Owner, Peers};
use core::cell::OnceCell;

/// Where the importer would find the memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// Where it lies; its ranges are known.
    Here,
    /// Where it would be moved; whose memory it would be there is known, and its ranges are not.
    There(Owner),
}

/// What broke a rule, and on which range.
pub(super) type Broken = (Option<Chunk<Owner>>, Evidence);

/// What is held against the rules.
pub(super) struct Question<'a> {
    pub(super) offer: &'a Offer,
    pub(super) declaration: &'a Declaration,
    peers: &'a Peers<'a>,
    place: Place,
    /// `None` if the exporter does not put it in that place.
    site: Option<Site>,
    /// Judged when a rule asks for it, since a verdict costs more than what the two say of themselves.
    reached: OnceCell<Reached<'a>>,
}

impl<'a> Question<'a> {
    pub(super) fn new(offer: &'a Offer, declaration: &'a Declaration, peers: &'a Peers<'a>, place: Place) -> Self {
        let there = || offer.elsewhere.iter().find(|other| other.place == place).map(|other| Site::There(other.owner));
        let site = if place == offer.place { Some(Site::Here) } else { there() };
        Self { offer, declaration, peers, place, site, reached: OnceCell::new() }
    }

    /// The first of the rules from `first` on that is broken.
    pub(super) fn refused(&self, first: Rule) -> Option<Refusal> {
        let rules = RULES.iter().map(|about| about.rule).filter(|rule| *rule >= first);
        let mut broken = rules.filter_map(|rule| self.breaks(rule).map(|broken| (rule, broken)));
        let (rule, (range, evidence)) = broken.next()?;
        Some(Refusal { rule, importer: self.declaration.name.clone(), range, evidence })
    }

    fn breaks(&self, rule: Rule) -> Option<Broken> {
        match rule {
            Rule::MethodNotOffered => self.method_not_offered().map(whole),
            Rule::ProtNotOffered => self.prot_not_offered().map(whole),
            Rule::FullNotOffered => self.full_not_offered().map(whole),
            Rule::FullHeld => self.full_held().map(whole),
            Rule::Unenforced => self.unenforced().map(whole),
            Rule::Revoked | Rule::Moved => self.no_lifetime(rule).map(whole),
            Rule::PlaceNotOffered => self.place_not_offered().map(whole),
            Rule::HeldInPlace => self.held_in_place().map(whole),
            Rule::PeerNotOffered => {
                if self.offer.peers {
                    None
                } else {
                    self.peer_memory()
                }
            }
            Rule::PeerNotTaken => {
                if self.declaration.peers {
                    None
                } else {
                    self.peer_memory()
                }
            }
            Rule::PrivateToCpu => self.private(Methods::CPU, true),
            Rule::PrivateToOthers => self.private(Methods::FRAMES, false),
            Rule::Confidential => self.reached()?.confidential(),
            Rule::Outside => self.reached()?.outside(),
            Rule::Route => self.reached()?.route(),
            Rule::Direction => self.reached()?.direction(self.declaration.prot),
            Rule::Copies => self.reached()?.copies(),
            Rule::Width => self.reached()?.width(),
            Rule::Pieces => self.pieces().map(whole),
            Rule::Alignment => self.unaligned(),
            Rule::Segments => self.reached()?.segments().map(whole),
        }
    }

    fn method_not_offered(&self) -> Option<Evidence> {
        let (needed, offered) = (self.declaration.methods, self.offer.methods);
        (!offered.contains(needed)).then_some(Evidence::Methods { needed, offered })
    }

    fn prot_not_offered(&self) -> Option<Evidence> {
        let asked = self.declaration.prot;
        let narrower = [self.offer.prot, self.offer.permitted].into_iter().find(|by| asked.within(*by) != Some(asked));
        narrower.map(|offered| Evidence::Prot { asked, offered })
    }

    fn full_not_offered(&self) -> Option<Evidence> {
        (self.declaration.control > self.offer.control).then_some(Evidence::Control(self.offer.control))
    }

    fn full_held(&self) -> Option<Evidence> {
        let holder = self.offer.in_full.filter(|_| self.declaration.control == super::Control::Full)?;
        Some(Evidence::Held { by: [holder].into(), at: None })
    }

    fn unenforced(&self) -> Option<Evidence> {
        let (has, floor) = (self.declaration.enforcement, self.offer.floor);
        (has < floor).then_some(Evidence::Enforcement { has, floor })
    }

    /// What the table of lifetimes answers.
    pub(super) fn lifetime(&self) -> Answer {
        lifetimes::lifetime(self.offer.stays, self.declaration.takes)
    }

    fn no_lifetime(&self, rule: Rule) -> Option<Evidence> {
        let (stays, takes) = (self.offer.stays, self.declaration.takes);
        (self.lifetime() == Answer::Refuses(rule)).then_some(Evidence::Lifetime { stays, takes })
    }

    fn place_not_offered(&self) -> Option<Evidence> {
        let elsewhere = self.offer.elsewhere.iter().map(|other| other.place);
        let offered = || core::iter::once(self.offer.place).chain(elsewhere).collect();
        self.site.is_none().then(|| Evidence::Place { asked: self.place, offered: offered() })
    }

    fn held_in_place(&self) -> Option<Evidence> {
        let held = self.site != Some(Site::Here) && !self.offer.pinned.is_empty();
        held.then(|| Evidence::Held { by: self.offer.pinned.clone(), at: Some(self.offer.place) })
    }

    /// Ranges of this site, as far as they are known, each with its owner.
    fn ranges(&self) -> impl Iterator<Item = (Owner, Option<Chunk<Owner>>)> + '_ {
        let (here, there) = match self.site {
            Some(Site::Here) => (Some(self.offer.ranges.iter()), None),
            Some(Site::There(owner)) => (None, Some((owner, None))),
            None => (None, None),
        };
        here.into_iter().flatten().map(|chunk| (chunk.owner(), Some(chunk))).chain(there)
    }

    /// Device memory that is not the importing device's own.
    fn peer_memory(&self) -> Option<Broken> {
        let own = self.declaration.device.as_ref()?.function();
        let is_own = |owner| matches!(owner, Owner::Bar { function, .. } if Some(function) == own);
        let (owner, range) = self.ranges().find(|(owner, _)| owner.is_mmio() && !is_own(*owner))?;
        Some((range, Evidence::DeviceMemory(owner)))
    }

    /// Memory that a guest keeps to itself, for one who reaches it by this method.
    fn private(&self, method: Methods, whoever: bool) -> Option<Broken> {
        if !self.declaration.methods.contains(method) {
            return None;
        }
        self.ranges().find_map(|(owner, range)| {
            let (stated, theirs) = self.peers.memory(owner);
            let memory = self.offer.memory.unwrap_or(stated);
            let own = self.declaration.same_guest && (self.offer.memory.is_some() || theirs);
            (is_private(memory) && (whoever || !own)).then_some((range, Evidence::Private(memory)))
        })
    }

    /// What the device reaches; `None` where there is no device.
    fn reached(&self) -> Option<&Reached<'a>> {
        let device = self.declaration.device.as_ref()?;
        let there = match self.site? {
            Site::Here => None,
            Site::There(owner) => Some(owner),
        };
        let (ranges, granule) = (self.offer.ranges.view(), self.declaration.granule);
        let said = self.offer.memory.map(|memory| (memory, self.declaration.same_guest));
        Some(self.reached.get_or_init(|| Reached::judge(device, self.peers, ranges, there, said, granule)))
    }

    fn pieces(&self) -> Option<Evidence> {
        let (ranges, takes) = (self.offer.ranges.ranges(), self.declaration.contiguity);
        if self.site != Some(Site::Here) || ranges == 1 {
            return None;
        }
        let broken = match takes {
            Contiguity::Scattered => false,
            // Tables put page frames wherever they like; only a device needs help.
            Contiguity::AsSeen => self.reached().is_some_and(|reached| !reached.is_seen_as_one()),
            Contiguity::OneRange => true,
        };
        broken.then_some(Evidence::Pieces { ranges, takes })
    }

    fn unaligned(&self) -> Option<Broken> {
        let unit = self.declaration.alignment?;
        self.ranges().filter_map(|(_, range)| range).find_map(|range| {
            // A chunk's end fits in 64 bits.
            let ends = [Some(range.offset()), range.offset().checked_add(range.len())];
            let at = ends.into_iter().flatten().find(|end| !unit.divides(*end))?;
            Some((Some(range), Evidence::Unaligned { at, unit }))
        })
    }
}

const fn whole(evidence: Evidence) -> Broken {
    (None, evidence)
}

/// Whether memory is a guest's alone, or would be if its interface had not failed.
const fn is_private(memory: MemoryKind) -> bool {
    matches!(memory, MemoryKind::PrivateRam | MemoryKind::Mmio(Interface::Locked | Interface::Run | Interface::Error))
}
