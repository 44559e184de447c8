//! What has to happen between a payload and the doorbell that tells of it.

use super::plan::{Outcome, Plan};
use crate::chunk::{Resolved, Wanted};
use peerdma::dma::publish::{Device, End, Leg, Publish, Sender, publish};
use peerdma::dma::{Owner, Span};
use peerdma::pcie::Fact;
use peerdma::topology::{FunctionId, Topology};

/// Steps before the doorbell, in order.
#[derive(Debug)]
pub(super) struct Ring {
    pub(super) steps: Publish,
    /// Whether the initiator may mark its writes as relaxed in order, which adds steps where it does.
    pub(super) may_relax: bool,
}

impl Ring {
    /// For the last chunk as the doorbell of all that the device writes before it; `None` unless all are mapped.
    pub(super) fn of(topology: &Topology, initiator: FunctionId, resolved: &Resolved, plan: &Plan) -> Option<Self> {
        let registers = &topology.function(initiator).info().registers;
        let ats = matches!(registers.ats, Fact::Known(Some(ats)) if ats.enabled);
        let sender = Sender::Device(Device { ats, ..Device::default() });
        let mut legs = Vec::new();
        for (row, wanted) in plan.rows.iter().zip(&resolved.wanted) {
            let Outcome::Mapped(pieces) = &row.outcome else { return None };
            let of_chunk = pieces.iter().map(|piece| leg(wanted, &piece.span));
            legs.push((wanted.prot.writes(), of_chunk.collect::<Vec<_>>()));
        }
        let (_, doorbell) = legs.pop()?;
        let payload = legs.into_iter().filter(|(written, _)| *written).flat_map(|(_, legs)| legs);
        let pairs = payload.flat_map(|payload| doorbell.iter().map(move |ring| publish(&payload, ring, sender)));
        let steps = pairs.fold(Publish::nothing(), Publish::and);
        Some(Self { steps, may_relax: registers.express.relaxed_ordering != Some(false) })
    }
}

fn leg(wanted: &Wanted, span: &Span) -> Leg {
    let leg = Leg::of(span);
    match wanted.chunk.owner() {
        Owner::Bar { function, .. } => leg.ending_at(End::Function(function)),
        _ => leg,
    }
}
