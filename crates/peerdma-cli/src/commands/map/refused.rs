//! Errors of the library as answers of a plan.

use crate::chunk::Resolved;
use crate::exit::Exit;
use peerdma::dma::engine::{LinkError, MapRangesError};
use peerdma::dma::reach::{Refusal, Why};
use peerdma::dma::{MapError, ResolveError};
use peerdma::route::Reason;

/// The code of a plan whose tables ran out of memory.
pub(super) const NO_TABLE_MEMORY: &str = "no_table_memory";

/// Why something is not mapped.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// [`Exit::Refused`], or [`Exit::Unknown`] where more input could make it a permission.
    pub(super) exit: Exit,
    /// What stands in the way, in a word.
    pub(super) code: &'static str,
    /// One sentence.
    pub(super) what: String,
    /// The chain of a route's reasons.
    pub(super) reasons: Vec<Reason>,
}

impl Refused {
    pub(super) fn new(code: &'static str, what: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, code, what: what.into(), reasons: Vec::new() }
    }

    pub(super) fn unknown(code: &'static str, what: impl Into<String>) -> Self {
        Self { exit: Exit::Unknown, ..Self::new(code, what) }
    }

    pub(super) fn by_refusal(resolved: &Resolved, refusal: Refusal) -> Self {
        let exit = if refusal.is_unknown() { Exit::Unknown } else { Exit::Refused };
        let code = match refusal.why {
            Why::Route => "route",
            Why::Reads => "reads",
            Why::Writes => "writes",
            Why::Unknown => "unknown",
            Why::Unstated => "unstated",
            Why::NoPlace => "no_place",
            Why::ModeContradicts => "mode_contradicts",
            Why::NoBusAddress => "no_bus_address",
            Why::Confidential(_) => "confidential",
            _ => "refused",
        };
        // The reasons are shown below, each with what would change it.
        let sentence = Refusal { reasons: Vec::new(), ..refusal.clone() };
        Self { exit, code, what: resolved.named(&sentence.to_string()), reasons: refusal.reasons }
    }

    pub(super) fn by_link(resolved: &Resolved, error: LinkError) -> Self {
        let code = match &error {
            LinkError::Refused(refusal) => return Self::by_refusal(resolved, refusal.clone()),
            LinkError::Unresolvable(ResolveError::NoSuchForm { owner, .. }) => {
                let owner = resolved.named(&owner.to_string());
                let what = format!("the input does not tell where the CPU sees {owner}, which is what tables point at");
                return Self::unknown("no_cpu_address", what);
            }
            LinkError::Unresolvable(_) => "outside",
            LinkError::Unaligned { .. } => "unaligned",
            LinkError::OutOfRoom { .. } => "out_of_room",
            LinkError::AboveMask { .. } => "above_mask",
            LinkError::NotShown { .. } => "not_shown",
            LinkError::MmioNeverBounces { .. } => "mmio_never_bounces",
            LinkError::NoBounce { .. } => "no_bounce",
            LinkError::NoPool { .. } => "no_pool",
            LinkError::NotCoherent { .. } => "not_coherent",
            LinkError::Pool(_) => "pool_exhausted",
            LinkError::Space(MapError::NoTableMemory { .. }) => NO_TABLE_MEMORY,
            LinkError::Space(_) => "address_space",
            LinkError::Stuck { .. } => "stuck",
            _ => "refused",
        };
        Self::new(code, resolved.named(&error.to_string()))
    }

    pub(super) fn by_ranges(resolved: &Resolved, error: MapRangesError) -> Self {
        match error {
            MapRangesError::Refused(refusal) => Self::by_refusal(resolved, refusal),
            MapRangesError::Link(error) => Self::by_link(resolved, error),
            MapRangesError::LinkMany(error) => Self::by_link(resolved, error.cause),
            MapRangesError::Reserve(error) => Self::new("no_iovas", resolved.named(&error.to_string())),
            error => Self::new("refused", resolved.named(&error.to_string())),
        }
    }
}
