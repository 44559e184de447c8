//! A device's hold on the buffer: what every importer of this story does in the same way.

use super::super::error::ScenarioError;
use super::super::stage::{Desk, Mapped};
use crate::host::wire_address;
use crate::sharing::importer::{Ears, News};
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, Bytes};
use peerdma::buffer::fence::{Fence, Timeline, Usage};
use peerdma::buffer::shared::{self, Attachment, Buffer, Holder};
use peerdma::buffer::terms::Declaration;
use peerdma::buffer::{Enforcement, Lifetime};
use peerdma::dma::Peers;
use std::sync::Arc;

/// What an importer does next, with nothing under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// It lets go, as it was told.
    LetGo,
    /// It maps.
    Map,
    /// It works.
    Work,
    /// It waits to be told that it may map.
    Wait,
}

/// A device's hold on the buffer.
pub(super) struct Hold<'c, 'a> {
    desk: &'c Desk<'a>,
    ears: Arc<Ears>,
    told_to_let_go: bool,
    prot: Prot,
    seat: Attachment,
    // In this order, so that the device's mapping is gone when the buffer hears so.
    mapping: Option<Mapped<'c, 'a>>,
    mapped: Option<shared::Mapped>,
    queue: Timeline,
    fence: Option<Fence>,
}

impl<'c, 'a> Hold<'c, 'a> {
    /// Attaches the device of this desk, which goes along wherever the buffer goes.
    pub(super) fn attach(
        desk: &'c Desk<'a>,
        (buffer, peers): (&Buffer, &Peers<'_>),
        name: &str,
        prot: Prot,
    ) -> Result<Self, ScenarioError> {
        let ears = Ears::new();
        let device = desk.initiator().clone();
        let declaration = Declaration::of_device(device, prot)
            .taking(Lifetime::Movable)
            .taking_peer_memory()
            .enforced(Enforcement::Cooperative);
        let seat = buffer.attach(&declaration, peers, Holder::here(name), ears.clone())?;
        let queue = Timeline::new(&format!("{name} queue 0"));
        Ok(Self { desk, ears, told_to_let_go: false, prot, seat, mapping: None, mapped: None, queue, fence: None })
    }

    /// Takes note of what the exporter says, and looks what that means.
    pub(super) fn turn(&mut self) -> Turn {
        while let Some(news) = self.ears.next() {
            self.told_to_let_go = !matches!(news, News::MayMap(_));
        }
        match (&self.mapped, self.told_to_let_go) {
            (Some(_), true) => Turn::LetGo,
            (Some(_), false) => Turn::Work,
            (None, false) if self.seat.may_map() => Turn::Map,
            (None, _) => Turn::Wait,
        }
    }

    /// Maps the buffer where it is now.
    pub(super) fn map(&mut self) -> Result<&Mapped<'c, 'a>, ScenarioError> {
        let mapped = self.seat.map()?;
        let mapping = self.desk.map(mapped.ranges(), self.prot)?;
        self.mapped = Some(mapped);
        Ok(self.mapping.insert(mapping))
    }

    /// Unmaps it. Nothing is under way.
    pub(super) fn let_go(&mut self) {
        self.mapping = None;
        self.mapped = None;
    }

    /// `len` bytes of the buffer from `at` on, as ranges of numbers for the wire.
    pub(super) fn part(&self, at: Bytes, len: Bytes) -> Vec<AddrRange<BusAddr>> {
        let (start, end) = (at.as_u64(), at.as_u64() + len.as_u64());
        let spans = self.mapping.iter().flat_map(|mapping| mapping.spans());
        let parts = spans.filter_map(|span| {
            let own = span.at.as_u64();
            let (from, to) = (start.max(own), end.min(own + span.len.as_u64()));
            let first = wire_address(&span).as_u64() + from.checked_sub(own)?;
            AddrRange::new(BusAddr::new(first), Bytes::new(to.checked_sub(from)?))
        });
        parts.collect()
    }

    /// A fence stands for what is about to begin.
    pub(super) fn begin(&mut self, usage: Usage) -> Result<(), ScenarioError> {
        let mut reservation = self.seat.reservation().lock();
        reservation.reserve(1)?;
        let fence = self.queue.issue();
        reservation.add(fence.clone(), usage)?;
        self.fence = Some(fence);
        Ok(())
    }

    /// It has ended, and its bytes are where they should be.
    pub(super) fn end(&mut self) {
        if let Some(fence) = self.fence.take() {
            // It was issued above.
            let _ = self.queue.retire_to(fence.sequence());
        }
    }
}
