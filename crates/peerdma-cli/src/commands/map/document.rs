//! A plan as JSON.

use super::plan::{Outcome, Piece};
use super::refused::Refused;
use super::{Answer, SCHEMA};
use crate::chunk::Wanted;
use crate::document::Source;
use crate::document::map::{
    ChunkDocument, InitiatorDocument, MapDocument, PagesDocument, PieceDocument, RangeDocument, RefusalDocument,
    RingDocument, SpanDocument, StepDocument, TablesDocument,
};
use crate::document::whose::host_bridge;
use crate::exit::Exit;
use peerdma::addr::{AddrRange, Address};
use peerdma::dma::{Behind, Bouncing, DeviceAddress, Owner, Span};
use peerdma::topology::Topology;

impl Answer<'_> {
    pub(super) fn document(&self) -> MapDocument {
        let (plan, topology) = (&self.plan, &self.loaded.topology);
        let chunks = plan.rows.iter().zip(&self.resolved.wanted);
        MapDocument {
            schema: SCHEMA,
            source: Source::new(self.loaded),
            outcome: self.word(),
            initiator: self.initiator(),
            tables: self.tables.as_ref().map(|tables| TablesDocument {
                format: tables.word(),
                assumed: tables.assumed,
                evidence: tables.evidence.clone(),
                count: plan.tables.map(|tables| tables.count),
                bytes: plan.tables.map(|tables| tables.bytes.as_u64()),
            }),
            chunks: chunks.map(|(row, wanted)| chunk(topology, wanted, row.route, &row.outcome)).collect(),
            refusal: plan.refused.as_ref().map(refusal),
            bytes: plan.len().as_u64(),
            iovas: plan.iovas.map(|iovas| range(&iovas)),
            segments: plan.segments,
            spans: self.arguments.spans.then(|| plan.spans.iter().map(|segment| span(topology, segment)).collect()),
            ring: self.ring.as_ref().map(|ring| RingDocument {
                steps: ring
                    .steps
                    .iter()
                    .map(|step| StepDocument { step: step.code(), what: step.sentence(), rule: step.citation() })
                    .collect(),
                may_relax: ring.may_relax,
            }),
        }
    }

    fn initiator(&self) -> InitiatorDocument {
        let device = self.device;
        let initiator = device.initiator.as_ref();
        InitiatorDocument {
            function: self.loaded.topology.function(device.function).address().to_string(),
            iommu: device.domain.mode.map(|mode| mode.to_string()),
            iommu_evidence: device.domain.evidence.clone(),
            mask_bits: device.mask.bits,
            mask_is_told: device.mask.is_told(),
            highest: initiator.map(|initiator| format!("{:#x}", initiator.highest())),
            coherent: device.coherent,
            trusted: device.trusted,
            bouncing: match device.bouncing {
                Bouncing::Never => "never",
                Bouncing::AsNeeded => "as_needed",
                Bouncing::Forced => "forced",
            },
            interface: device.interface.word(),
        }
    }
}

fn chunk(topology: &Topology, wanted: &Wanted, route: &'static str, outcome: &Outcome) -> ChunkDocument {
    let (function, bar) = match wanted.chunk.owner() {
        Owner::Bar { function, bar } => (Some(topology.function(function).address().to_string()), Some(bar)),
        _ => (None, None),
    };
    ChunkDocument {
        chunk: wanted.text.clone(),
        owner: match wanted.chunk.owner() {
            Owner::Bar { .. } => "bar",
            Owner::Device(_) => "device",
            Owner::Private(_) => "private",
            _ => "ram",
        },
        function,
        bar,
        cpu: wanted.cpu.map(|cpu| range(&cpu)),
        len: wanted.chunk.len().as_u64(),
        access: wanted.prot.to_string(),
        route,
        outcome: match outcome {
            Outcome::Mapped(_) => "mapped",
            Outcome::Refused(refused) if refused.exit == Exit::Unknown => "unknown",
            Outcome::Refused(_) => "refused",
            Outcome::NotPlaced => "not_placed",
        },
        pieces: match outcome {
            Outcome::Mapped(pieces) => pieces.iter().map(|one| piece(topology, one)).collect(),
            Outcome::Refused(_) | Outcome::NotPlaced => Vec::new(),
        },
        refusal: match outcome {
            Outcome::Refused(refused) => Some(refusal(refused)),
            Outcome::Mapped(_) | Outcome::NotPlaced => None,
        },
    }
}

fn piece(topology: &Topology, piece: &Piece) -> PieceDocument {
    let pages = piece.pages.iter().rev();
    PieceDocument {
        span: span(topology, &piece.span),
        segments: piece.segments,
        pages: pages.map(|(size, count)| PagesDocument { size: size.as_u64(), count: *count }).collect(),
        entry_access: piece.entry.map(|(prot, _)| prot.to_string()),
        entry_attributes: piece.entry.map(|(_, attrs)| attrs.to_string()),
    }
}

fn span(topology: &Topology, span: &Span) -> SpanDocument {
    let first = span.address.as_u64();
    SpanDocument {
        at: span.at.as_u64(),
        kind: span.address.word(),
        host_bridge: match span.address {
            DeviceAddress::Bus { bridge, .. } => bridge.map(|bridge| host_bridge(topology, bridge)),
            DeviceAddress::Iova(_) | DeviceAddress::CpuPhysical(_) => None,
        },
        address: RangeDocument {
            first: format!("{first:#x}"),
            last: format!("{:#x}", first.saturating_add(span.len.as_u64() - 1)),
        },
        len: span.len.as_u64(),
        behind: match span.behind {
            Behind::Memory => "memory",
            Behind::Mmio => "mmio",
        },
        snooped: span.snooped,
        bounced: span.bounced,
    }
}

fn range<A: Address>(range: &AddrRange<A>) -> RangeDocument {
    RangeDocument { first: range.start().to_string(), last: range.last().to_string() }
}

fn refusal(refused: &Refused) -> RefusalDocument {
    RefusalDocument {
        code: refused.code,
        what: refused.what.clone(),
        reasons: refused.reasons.iter().cloned().map(Into::into).collect(),
    }
}
