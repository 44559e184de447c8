//! Chunk by chunk through the engine, and what came of each.

use super::refused::Refused;
use crate::chunk::{Resolved, Wanted};
use crate::exit::Exit;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, Granule, Iova};
use peerdma::chunk::Chunks;
use peerdma::dma::engine::{Context, Mapping, SyncError};
use peerdma::dma::reach::Reach;
use peerdma::dma::{DeviceAddress, IoSpace, Owner, Span};
use peerdma::iova::Depot;
use std::collections::BTreeMap;

/// What came of a list.
#[derive(Debug)]
pub(super) struct Plan {
    /// One a chunk.
    pub(super) rows: Vec<Row>,
    /// What stands against the list as a whole.
    pub(super) refused: Option<Refused>,
    /// IOVAs in use, in whole granules.
    pub(super) iovas: Option<AddrRange<Iova>>,
    /// What the tables take; `None` where nothing translates.
    pub(super) tables: Option<TableUse>,
    /// How many segments the device gets.
    pub(super) segments: u64,
    /// All of them, where they were asked for.
    pub(super) spans: Vec<Span>,
}

/// Tables that a mapping needs, the root among them.
#[derive(Clone, Copy, Debug)]
pub(super) struct TableUse {
    pub(super) count: usize,
    pub(super) bytes: Bytes,
}

/// What came of a chunk.
#[derive(Debug)]
pub(super) struct Row {
    /// `memory`, `stated`, or the verdict of the pair.
    pub(super) route: &'static str,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// In these pieces, in order.
    Mapped(Vec<Piece>),
    Refused(Refused),
    /// Nothing stands against it, but the list as a whole is not mapped.
    NotPlaced,
}

/// A part of a chunk that the device sees contiguously, before segments are cut.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) span: Span,
    pub(super) segments: u64,
    /// Pages by size that hold it, read back from the tables.
    pub(super) pages: BTreeMap<Bytes, u64>,
    /// What the tables' entries permit and say, the same for all of them.
    pub(super) entry: Option<(Prot, MemAttrs)>,
}

/// What tables say of a range.
pub(super) trait Look {
    /// Pages by size that hold a range, and what their entries say.
    fn pages(&self, iova: AddrRange<Iova>) -> (BTreeMap<Bytes, u64>, Option<(Prot, MemAttrs)>);

    /// The smallest unit of IOVAs.
    fn granule(&self) -> Granule;

    /// What they take.
    fn tables(&self) -> Option<TableUse>;
}

/// Nothing translates.
pub(super) struct NoTables;

impl Look for NoTables {
    fn pages(&self, _: AddrRange<Iova>) -> (BTreeMap<Bytes, u64>, Option<(Prot, MemAttrs)>) {
        (BTreeMap::new(), None)
    }

    fn granule(&self) -> Granule {
        Granule::PAGE_4K
    }

    fn tables(&self) -> Option<TableUse> {
        None
    }
}

impl Plan {
    /// A list of which nothing was mapped.
    pub(super) fn not_placed(rows: Vec<Row>, refused: Refused) -> Self {
        Self { rows, refused: Some(refused), iovas: None, tables: None, segments: 0, spans: Vec::new() }
    }

    /// Refused weighs more than unknown.
    pub(super) fn exit(&self) -> Exit {
        let refused = self.refusals().map(|(_, refused)| refused.exit);
        refused.fold(Exit::Done, |all, one| if all == Exit::Refused { all } else { one })
    }

    /// What is refused: chunks by their index, and the list as a whole.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (Option<usize>, &Refused)> {
        let of_rows = self.rows.iter().enumerate().filter_map(|(index, row)| match &row.outcome {
            Outcome::Refused(refused) => Some((Some(index), refused)),
            Outcome::Mapped(_) | Outcome::NotPlaced => None,
        });
        of_rows.chain(self.refused.iter().map(|refused| (None, refused)))
    }

    /// Bytes that are mapped.
    pub(super) fn len(&self) -> Bytes {
        let pieces = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Mapped(pieces) => Some(pieces),
            Outcome::Refused(_) | Outcome::NotPlaced => None,
        });
        Bytes::new(pieces.flatten().fold(0_u64, |sum, piece| sum.saturating_add(piece.span.len.as_u64())))
    }
}

/// Maps what can be, in one mapping, and says of each chunk what came of it.
///
/// `spans` asks for every segment.
pub(super) fn make<S: IoSpace, D: Depot>(
    context: &Context<'_, S, D>,
    resolved: &Resolved,
    look: &dyn Look,
    refused_route: &dyn Fn(&Wanted) -> &'static str,
    spans: bool,
) -> Plan {
    let wanted = &resolved.wanted;
    let mut list = Chunks::new();
    let mut rows: Vec<Row> = Vec::with_capacity(wanted.len());
    for one in wanted {
        rows.push(match context.reach(one.chunk.owner()) {
            Ok(reached) => Row { route: route(one.chunk.owner(), reached.reach), outcome: Outcome::NotPlaced },
            Err(refusal) => {
                let outcome = Outcome::Refused(Refused::by_refusal(resolved, refusal));
                Row { route: refused_route(one), outcome }
            }
        });
        if matches!(rows.last(), Some(Row { outcome: Outcome::NotPlaced, .. }))
            && let Err(error) = list.push(one.chunk)
        {
            return Plan::not_placed(rows, Refused::new("too_long", error.to_string()));
        }
    }
    let mut plan = Plan { rows, refused: None, iovas: None, tables: None, segments: 0, spans: Vec::new() };
    if list.is_empty() {
        return plan;
    }
    let mut staged = match context.reserve_for(list.view()) {
        Ok(reservation) => reservation.stage(),
        Err(error) => {
            plan.refused = Some(Refused::by_ranges(resolved, error));
            return plan;
        }
    };
    for (row, one) in plan.rows.iter_mut().zip(wanted) {
        if matches!(row.outcome, Outcome::NotPlaced) {
            row.outcome = match staged.link(one.chunk, one.prot) {
                Ok(()) => Outcome::Mapped(Vec::new()),
                Err(error) => Outcome::Refused(Refused::by_link(resolved, error)),
            };
        }
    }
    match staged.sync() {
        Ok(mapping) => plan.read_back(wanted, &mapping, look, spans),
        // Every chunk has its own refusal then.
        Err(SyncError::Empty) => {}
        Err(error) => {
            for row in plan.rows.iter_mut().filter(|row| matches!(row.outcome, Outcome::Mapped(_))) {
                row.outcome = Outcome::NotPlaced;
            }
            let code = match error {
                SyncError::TooManySegments { .. } => TOO_MANY_SEGMENTS,
                _ => "refused",
            };
            plan.refused = Some(Refused::new(code, resolved.named(&error.to_string())));
        }
    }
    plan
}

/// The code of a list that is cut into more segments than the device takes.
pub(super) const TOO_MANY_SEGMENTS: &str = "too_many_segments";

impl Plan {
    /// Gives each chunk its pieces, and reads pages and tables back.
    fn read_back<S: IoSpace, D: Depot>(
        &mut self,
        wanted: &[Wanted],
        mapping: &Mapping<'_, '_, S, D>,
        look: &dyn Look,
        spans: bool,
    ) {
        let mut mapped = self.rows.iter_mut().zip(wanted).filter_map(|(row, one)| match &mut row.outcome {
            Outcome::Mapped(pieces) => Some((pieces, one.chunk.len().as_u64())),
            Outcome::Refused(_) | Outcome::NotPlaced => None,
        });
        let mut current = mapped.next();
        for span in mapping.spans() {
            self.segments += 1;
            if spans {
                self.spans.push(span);
            }
            // Chunks that the device sees contiguously share a segment.
            let mut rest = Some(span);
            while let (Some(span), Some((pieces, left))) = (rest, &mut current) {
                let (part, next) = cut(span, *left);
                *left -= part.len.as_u64();
                put(pieces, part);
                rest = next;
                if *left == 0 {
                    current = mapped.next();
                }
            }
        }
        for row in &mut self.rows {
            let Outcome::Mapped(pieces) = &mut row.outcome else { continue };
            for piece in pieces {
                let DeviceAddress::Iova(start) = piece.span.address else { continue };
                let Some(range) = AddrRange::new(start, piece.span.len) else { continue };
                (piece.pages, piece.entry) = look.pages(range);
                let within = look.granule().bytes().as_u64() - 1;
                let first = Iova::new(range.start().as_u64() & !within);
                let last = Iova::new(range.last().as_u64() | within);
                let whole = self.iovas.map_or((first, last), |all| (all.start().min(first), all.last().max(last)));
                self.iovas = AddrRange::from_inclusive(whole.0, whole.1);
            }
        }
        self.tables = look.tables();
    }
}

/// The first `len` bytes of a span, and the rest.
fn cut(span: Span, len: u64) -> (Span, Option<Span>) {
    let whole = span.len.as_u64();
    if len >= whole {
        return (span, None);
    }
    let by = Bytes::new(len);
    let rest = span.at.checked_add(by).zip(span.address.checked_add(by));
    let rest = rest.map(|(at, address)| Span { at, address, len: Bytes::new(whole - len), ..span });
    (Span { len: by, ..span }, rest)
}

/// Adds a segment to pieces, as a part of the last where only the device's limits cut it.
fn put(pieces: &mut Vec<Piece>, span: Span) {
    if let Some(last) = pieces.last_mut() {
        let continues = last.span.address.checked_add(last.span.len) == Some(span.address)
            && last.span.bounced == span.bounced
            && last.span.behind == span.behind
            && last.span.prot == span.prot;
        if continues && let Some(len) = last.span.len.checked_add(span.len) {
            last.span.len = len;
            last.segments += 1;
            return;
        }
    }
    pieces.push(Piece { span, segments: 1, pages: BTreeMap::new(), entry: None });
}

/// The word for a route that exists.
const fn route(owner: Owner, reach: Reach) -> &'static str {
    match (owner, reach) {
        (Owner::Bar { .. }, Reach::Bus { .. }) => "direct",
        (Owner::Bar { .. }, Reach::Iova | Reach::Physical) => "host_bridge",
        (Owner::Device(_), _) => "stated",
        _ => "memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::addr::BusAddr;

    #[test]
    fn a_refused_chunk_weighs_more_than_an_unknown_one() {
        let row = |exit| {
            let refused = Refused { exit, ..Refused::new("route", "") };
            Row { route: "refused", outcome: Outcome::Refused(refused) }
        };
        let exit_of = |rows: Vec<Row>| {
            Plan { rows, refused: None, iovas: None, tables: None, segments: 0, spans: Vec::new() }.exit()
        };
        assert_eq!(exit_of(vec![row(Exit::Unknown), row(Exit::Refused)]), Exit::Refused);
        assert_eq!(exit_of(vec![row(Exit::Refused), row(Exit::Unknown)]), Exit::Refused);
        assert_eq!(exit_of(vec![row(Exit::Unknown)]), Exit::Unknown);
        assert_eq!(exit_of(Vec::new()), Exit::Done);
    }

    #[test]
    fn routes_of_bars_are_told_by_the_address_that_leads_there() {
        let bus = Reach::Bus { start: BusAddr::new(0x1000), bridge: None };
        let device = Owner::Device(peerdma::dma::OwnerId::new(0));
        assert_eq!((route(Owner::Ram, Reach::Iova), route(device, bus)), ("memory", "stated"));
    }
}
