//! A pair's answer without walking: 32 bytes for each function, read twice.
//!
//! All that [`KernelView::decide`] asks of a known way up fits into a summary (`summary`):
//! which bridges lie on it, how far up its lowest redirecting and its lowest unread step
//! are, and what the host bridge at its top lets through (`hosts`). Where two ways up
//! meet is then the first byte in which two words differ, and "something redirects
//! between here and there" is one comparison.
//!
//! Deeper, wider and hidden trees do not fit. A function has no summary if its way up is
//! not known to the end, has more than [`PairIndex::MOST_BRIDGES`] bridges on it, or one
//! that comes after 255 others with functions below them on the same bus. Pairs with it
//! take the walk, and get the same answer.
//!
//! The index answers map type, distance and unknown. Why is asked of the view it came
//! from ([`PairIndex::view`]), pair by pair, when somebody wants to know.

mod hosts;
mod summary;

use super::{KernelView, MapType};
use crate::addr::Bytes;
use crate::topology::FunctionId;
use alloc::vec::Vec;
use hosts::{Gates, Hosts};
use summary::{Siblings, Summary};

/// What Linux answers for one ordered pair, without the evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Answer {
    /// The answer, or that the input cannot tell.
    pub map_type: MapType,
    /// Hops on both sides added up, as [`Decision::distance`](super::Decision::distance).
    pub distance: u32,
    /// Whether bridges are hidden from the input, so that the distance may be larger.
    pub distance_is_lower_bound: bool,
}

/// Answers for all pairs of one topology, in constant time where both functions are
/// [summed up](Self::is_summed_up).
///
/// Its answers are those of [`KernelView::decide`], always.
///
/// ```
/// use peerdma::route::kernel_view::{KernelView, MapType};
/// use peerdma::topology::{Builder, FunctionInfo, Position};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut builder = Builder::new();
/// for address in ["00:01.0", "00:02.0"] {
///     builder.function(FunctionInfo::new(address.parse()?, Position::RootBus { bus: 0 }));
/// }
/// builder.machine().cpu = Some("amd:0x19".parse()?);
/// let topology = builder.build();
/// let view = KernelView::new(&topology);
/// let index = view.index();
/// let (gpu, nic) = (topology.at("00:01.0".parse()?).unwrap(), topology.at("00:02.0".parse()?).unwrap());
/// let answer = index.answer(gpu, nic);
/// assert_eq!((answer.map_type, answer.distance), (MapType::ThruHostBridge, 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PairIndex<'v> {
    view: &'v KernelView<'v>,
    /// By [`FunctionId::index`].
    summaries: Vec<Summary>,
    gates: Gates,
}

impl KernelView<'_> {
    /// Sums up every way up, so that answers need no walk. Costs a few walks up for each
    /// function once, and [`PairIndex::SUMMARY`] of memory.
    pub fn index(&self) -> PairIndex<'_> {
        let (siblings, hosts) = (Siblings::number(self.topology), Hosts::of(self));
        let summaries = self.chains.iter().map(|chain| Summary::of(self, chain, &siblings, &hosts)).collect();
        PairIndex { view: self, summaries, gates: hosts.gates }
    }
}

impl PairIndex<'_> {
    /// Memory of the summary of one function.
    pub const SUMMARY: Bytes = Bytes::new(size_of::<Summary>() as u64);

    /// Bridges that a summarised way up may pass, the function itself included if
    /// functions are below it.
    pub const MOST_BRIDGES: usize = summary::LEVELS;

    /// The view that the answers are those of, for the evidence.
    pub fn view(&self) -> &KernelView<'_> {
        self.view
    }

    /// Whether this function has a summary. Pairs of two that have one are answered
    /// without walking.
    ///
    /// # Panics
    /// If the ID is another topology's and past this one's end.
    pub fn is_summed_up(&self, function: FunctionId) -> bool {
        self.summaries[function.index()].fits()
    }

    /// Whether and how `client` reaches memory of `provider`, and how far it is.
    ///
    /// # Panics
    /// If an ID is another topology's and past this one's end.
    #[inline]
    pub fn answer(&self, provider: FunctionId, client: FunctionId) -> Answer {
        let (up, down) = (&self.summaries[provider.index()], &self.summaries[client.index()]);
        let steps = u32::from(up.depth) + u32::from(down.depth);
        if up.host != down.host {
            // Nothing lies on both ways up, so all steps are hops and the gate decides.
            let Some(map_type) = self.gates.answer(up.host_row, down.host_class) else {
                return self.walked(provider, client);
            };
            return Answer { map_type, distance: steps, distance_is_lower_bound: false };
        }
        // Either both ways up end at this host bridge, or neither has a summary.
        let Some(gate) = up.gate_of_own_host else { return self.walked(provider, client) };
        let common = up.levels_shared_with(down, provider == client);
        // Steps from both functions up to the common one count, that one included. Where there
        // is none, common is 0, which every number reaches: requests go up to the root.
        let map_type = if u32::from(up.redirects) >= common || u32::from(down.redirects) >= common {
            gate
        } else if u32::from(up.unread) >= common || u32::from(down.unread) >= common {
            // Whether requests stay below is not known, and the gate never answers as a switch would.
            MapType::Unknown
        } else {
            MapType::BusAddr
        };
        // Neither function lies above the common one, so this cannot wrap.
        Answer { map_type, distance: steps.wrapping_sub(2 * common), distance_is_lower_bound: false }
    }

    #[cold]
    #[inline(never)]
    fn walked(&self, provider: FunctionId, client: FunctionId) -> Answer {
        let decision = self.view.decide(provider, client);
        Answer {
            map_type: decision.map_type,
            distance: decision.distance,
            distance_is_lower_bound: !decision.hidden_below.is_empty(),
        }
    }
}
