//! The physical pages of what an importer has mapped, for importers that take page frames.

use super::membership::Use;
use peerdma::addr::{Bytes, PhysAddr};
use peerdma::dma::Owners;
use peerdma::dma::consumer::stage2::{Access, Guest, GuestFrame, GuestRun, Stage2};
use std::convert::Infallible;

/// Bytes of a page.
pub(super) const PAGE: u64 = 0x1000;

/// The runs of pages of a mapping, as a guest sees them from `first` on.
///
/// # Errors
/// Why they are no pages of a second stage.
pub(super) fn runs(held: &Use, owners: &Owners<Infallible>, first: GuestFrame) -> Result<Vec<GuestRun>, String> {
    let access = if held.writes() { Access::ReadWrite } else { Access::ReadOnly };
    let runs = Stage2::new(held.mapped.ranges(), owners, first, access, Guest::Plain);
    Ok(runs.map_err(|error| error.to_string())?.collect())
}

/// Each page of runs: its number for the guest, and where it is.
pub(super) fn pages(runs: &[GuestRun]) -> impl Iterator<Item = (GuestFrame, PhysAddr)> + '_ {
    runs.iter().flat_map(|run| {
        (0..run.pages()).filter_map(|page| {
            let at = run.host.start().checked_add(Bytes::new(page * PAGE))?;
            Some((GuestFrame::new(run.guest.number() + page), at))
        })
    })
}
