//! What exports refuse by name before the kernel is asked, and what the kernel takes.

use super::{Stop, Tried, Via, claim, equal, range};
use crate::checks::bench::{MEMORY_BAR, PAGE};
use crate::checks::claim::Claim;
use peerdma::buffer::life::Phase;
use peerdma_linux::vfio::{Deed, ExportError, MapBarError, VfioDevice};

const P: u64 = PAGE.as_u64();

/// What comes of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Taken,
    NotPages,
    Outside,
    Absent,
    Otherwise,
}

/// BAR, where from, how long; lengths count back from the memory's end where they are negative.
struct Row {
    what: &'static str,
    bar: u8,
    at: u64,
    len: u64,
    fate: Fate,
}

const fn row(what: &'static str, bar: u8, at: u64, len: u64, fate: Fate) -> Row {
    Row { what, bar, at, len, fate }
}

const END: u64 = 16 << 20;

const ROWS: [Row; 11] = [
    row("all of a BAR", MEMORY_BAR, 0, END, Fate::Taken),
    row("a page of a BAR", MEMORY_BAR, P, P, Fate::Taken),
    row("the last page of a BAR", MEMORY_BAR, END - P, P, Fate::Taken),
    row("half a page from its start on", MEMORY_BAR, 0, P / 2, Fate::NotPages),
    row("a page from half a page on", MEMORY_BAR, P / 2, P, Fate::NotPages),
    row("a page past the end", MEMORY_BAR, END, P, Fate::Outside),
    row("two pages across the end", MEMORY_BAR, END - P, 2 * P, Fate::Outside),
    row("pages up to the end of addresses", MEMORY_BAR, P, u64::MAX - P, Fate::Outside),
    row("a BAR that is not there", 5, 0, P, Fate::Absent),
    row("a BAR smaller than a page, as it is", 0, 0, 256, Fate::NotPages),
    row("the page around a BAR smaller than one", 0, 0, P, Fate::Outside),
];

pub(super) fn claims<S: Via>() -> Vec<Claim<Tried<S>>> {
    vec![
        claim("ranges that cannot be exported are refused by name, and others are taken", ranges),
        claim("a BAR with an MSI-X table in it is exported", msi_x),
        claim("a dma-buf and a buffer of memory that is off are had, and out of reach", off),
    ]
}

fn fate(device: &VfioDevice, row: &Row) -> Result<Fate, Stop> {
    Ok(match device.export(range(row.bar, row.at, row.len)?) {
        Ok(_) => Fate::Taken,
        Err(ExportError::NotPages { .. }) => Fate::NotPages,
        Err(ExportError::Range(MapBarError::Outside { .. })) => Fate::Outside,
        Err(ExportError::Range(MapBarError::Absent { .. })) => Fate::Absent,
        Err(_) => Fate::Otherwise,
    })
}

fn ranges<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    for row in &ROWS {
        let seen = on.device.with(|device| fate(device, row)).ok_or_else(|| Stop::broken("it is closed"))??;
        equal(row.what, &row.fate, &seen)?;
    }
    Ok(())
}

fn msi_x<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    on.nvme.export(range(0, 0, P)?).map(drop).map_err(Stop::from)
}

fn off<S: Via>(on: &mut Tried<S>) -> Result<(), Stop> {
    on.device.perform(Deed::config(0x04, &[0, 0])?, super::LONG)?;
    let exported = on.export()?;
    equal("the buffer", &Phase::Revoked, &exported.buffer().phase())?;
    let file = on.device.with(|device| device.export(super::used().ok()?).ok());
    equal("whether there is a dma-buf", &true, &file.flatten().is_some())?;
    on.device.perform(Deed::config(0x04, &[2, 0])?, super::LONG)?;
    equal("the buffer when it is on", &Phase::Live, &exported.buffer().phase())
}
