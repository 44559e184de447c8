//! How a device reaches each range of a buffer, as far as that is known before it is mapped.

use super::question::Broken;
use super::refusal::Evidence;
use crate::access::{MemAttrs, Prot};
use crate::addr::{Bytes, Granule};
use crate::chunk::{Chunk, View};
use crate::dma::confidential::MemoryKind;
use crate::dma::engine::error::AddressNumber;
use crate::dma::{self, Bouncing, Initiator, Owner, Peers, Reach, Why};
use crate::route::{Permission, Target};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// What comes of one owner.
struct Way {
    owner: Owner,
    answer: Result<dma::Reached, dma::Refusal>,
}

/// What a device reaches of a buffer.
///
/// Where memory is mapped through copies or windows is settled when it is mapped, so that its addresses are
/// not held against the mask here; those of device memory are, since nothing helps it.
pub(super) struct Reached<'a> {
    device: &'a Initiator,
    peers: &'a Peers<'a>,
    /// Empty where the buffer is to be moved first.
    ranges: View<'a, Owner>,
    /// Each owner once.
    ways: Vec<Way>,
    granule: Granule,
}

impl<'a> Reached<'a> {
    /// Judges each owner of `ranges`, or of where the buffer would be moved; `said` is what the exporter says
    /// that it is to confidential guests, and whether to the device's.
    pub(super) fn judge(
        device: &'a Initiator,
        peers: &'a Peers<'a>,
        ranges: View<'a, Owner>,
        there: Option<Owner>,
        said: Option<(MemoryKind, bool)>,
        granule: Granule,
    ) -> Self {
        let mut ways: Vec<Way> = Vec::new();
        let owners = ranges.runs().map(|run| run.owner()).filter(|_| there.is_none()).chain(there);
        for owner in owners {
            if ways.iter().all(|way| way.owner != owner) {
                ways.push(Way { owner, answer: peers.reach_said(device, owner, said) });
            }
        }
        let ranges = if there.is_some() { View::empty() } else { ranges };
        Self { device, peers, ranges, ways, granule }
    }

    /// Ranges with how they are reached; for a place where no ranges are known its owner alone.
    fn found(&self) -> impl Iterator<Item = (Option<Chunk<Owner>>, &Way)> {
        let of = |owner| self.ways.iter().find(move |way| way.owner == owner);
        let ranges = self.ranges.iter().filter_map(move |chunk| Some((Some(chunk), of(chunk.owner())?)));
        ranges.chain(self.ways.iter().filter(|_| self.ranges.is_empty()).map(|way| (None, way)))
    }

    fn arrived(&self) -> impl Iterator<Item = (Option<Chunk<Owner>>, Owner, &dma::Reached)> {
        self.found().filter_map(|(range, way)| Some((range, way.owner, way.answer.as_ref().ok()?)))
    }

    /// What the table of confidential computing has against it.
    pub(super) fn confidential(&self) -> Option<Broken> {
        self.found().find_map(|(range, way)| match &way.answer {
            Err(dma::Refusal { why: Why::Confidential(rule), .. }) => Some((range, Evidence::Confidential(*rule))),
            _ => None,
        })
    }

    /// A range that ends after its owner, where that is known to end.
    pub(super) fn outside(&self) -> Option<Broken> {
        self.arrived().find_map(|(range, owner, reached)| {
            let range = range?;
            let whole = reached.len.or_else(|| self.target(owner, None)?.len())?;
            let ends = range.offset().checked_add(range.len())?;
            (ends > whole).then_some((Some(range), Evidence::End(whole)))
        })
    }

    pub(super) fn route(&self) -> Option<Broken> {
        self.found().find_map(|(range, way)| {
            let refusal = way.answer.as_ref().err()?;
            Some((range, Evidence::Route(Box::new(refusal.clone()))))
        })
    }

    pub(super) fn direction(&self, prot: Prot) -> Option<Broken> {
        self.arrived().find_map(|(range, owner, reached)| {
            let refused = reached.permits(prot) != Permission::Permitted;
            let refusal = || Box::new(self.peers.direction(self.device, owner, reached, prot));
            refused.then(|| (range, Evidence::Route(refusal())))
        })
    }

    /// What would have to be copied and cannot be.
    pub(super) fn copies(&self) -> Option<Broken> {
        let never = self.device.bouncing() == Bouncing::Never;
        self.arrived().find_map(|(range, owner, reached)| {
            let mmio = owner.is_mmio() || range.is_some_and(|range| range.attrs().contains(MemAttrs::MMIO));
            let evidence = match reached.reach {
                // Nothing of a peer's memory lies in caches; all else would be synchronised by copies.
                Reach::Iova | Reach::Physical if never && !mmio && !self.device.is_coherent() => Evidence::NotCoherent,
                Reach::Physical if mmio || never => Evidence::Copies(self.device.copies_all()?),
                _ => return None,
            };
            Some((range, evidence))
        })
    }

    /// Addresses that the device cannot form.
    pub(super) fn width(&self) -> Option<Broken> {
        let highest = self.device.highest();
        // Nobody forms an address past the last that there is, however wide.
        let above = |last: u128| {
            let evidence = || Evidence::Address {
                last: AddressNumber(u64::try_from(last).unwrap_or(u64::MAX)),
                highest: AddressNumber(highest),
            };
            (last > u128::from(highest)).then(evidence)
        };
        let device_memory = self.arrived().find_map(|(range, owner, reached)| {
            let range = range?;
            let last = match reached.reach {
                Reach::Bus { start, .. } => {
                    let end = [start.as_u64(), range.offset().as_u64(), range.len().as_u64()].map(u128::from);
                    end.iter().sum::<u128>() - 1
                }
                Reach::Physical => {
                    u128::from(self.target(owner, Some((range.offset(), range.len())))?.cpu()?.last().as_u64())
                }
                Reach::Iova => return None,
            };
            Some((Some(range), above(last)?))
        });
        // IOVAs lie wherever there is room, and there is none for more bytes than the device counts.
        let translated = || {
            let of = |(range, _, reached): (Option<Chunk<Owner>>, Owner, &dma::Reached)| {
                range.filter(|_| reached.reach == Reach::Iova).map_or(0, |range| u128::from(range.len().as_u64()))
            };
            let last = self.arrived().map(of).sum::<u128>().checked_sub(1)?;
            Some((None, above(last)?))
        };
        device_memory.or_else(translated)
    }

    /// Whether the device sees all ranges as one.
    pub(super) fn is_seen_as_one(&self) -> bool {
        let mut before: Option<(Chunk<Owner>, Reach)> = None;
        for (range, _, reached) in self.arrived() {
            let Some(range) = range else { continue };
            let joined = before.is_none_or(|(last, by)| self.joins((&last, by), (&range, reached.reach)));
            if !joined {
                return false;
            }
            before = Some((range, reached.reach));
        }
        true
    }

    /// Whether the device sees the second range right after the first.
    fn joins(&self, (one, by): (&Chunk<Owner>, Reach), (other, then): (&Chunk<Owner>, Reach)) -> bool {
        let end = one.offset().checked_add(one.len());
        match (by, then) {
            // Tables put whole granules side by side.
            (Reach::Iova, Reach::Iova) => {
                end.is_some_and(|end| self.granule.divides(end)) && self.granule.divides(other.offset())
            }
            (Reach::Bus { start, bridge }, Reach::Bus { start: next, bridge: below }) => {
                let end = end.and_then(|end| start.checked_add(end));
                bridge == below && end.is_some() && end == next.checked_add(other.offset())
            }
            // Where each of them appears is not known here; neighbours of one owner are one range.
            _ => false,
        }
    }

    /// Segments that no list of the device's holds.
    pub(super) fn segments(&self) -> Option<Evidence> {
        let limits = self.device.segments();
        if let Some(limit) = limits.impossible() {
            return Some(Evidence::Limit(limit));
        }
        let most = limits.most?;
        let longest = [limits.longest, limits.boundary].into_iter().flatten().map(Bytes::as_u64).min();
        // What lies behind tables, windows or copies may come together, so it counts as if it did.
        let (mut at_least, mut together) = (0_u64, 0_u64);
        let mut before: Option<(Chunk<Owner>, Reach)> = None;
        let close = |together: u64| match longest {
            _ if together == 0 => 0,
            Some(longest) => together.div_ceil(longest.max(1)),
            None => 1,
        };
        for (range, _, reached) in self.arrived() {
            let Some(range) = range else { continue };
            let continues = match (before, reached.reach) {
                (Some((last, by)), Reach::Bus { .. }) => self.joins((&last, by), (&range, reached.reach)),
                (Some((_, Reach::Bus { .. })), _) => false,
                _ => true,
            };
            if !continues {
                at_least = at_least.saturating_add(close(together));
                together = 0;
            }
            together = together.saturating_add(range.len().as_u64());
            before = Some((range, reached.reach));
        }
        let at_least = at_least.saturating_add(close(together));
        (at_least > most as u64).then_some(Evidence::Segments { at_least, most })
    }

    /// A BAR, or a part of it, as the topology knows it.
    fn target(&self, owner: Owner, part: Option<(Bytes, Bytes)>) -> Option<Target> {
        let Owner::Bar { function, bar } = owner else { return None };
        Target::of_bar(self.peers.judge()?.topology(), function, bar, part).ok()
    }
}
