//! The same requests of the library, which refuses by name what it can know, and before the kernel is asked.

use super::super::bench::{MEMORY_BAR, PAGE};
use super::super::claim::{Claim, Stop, equal};
use super::Exporters;
use super::inputs::At::{self, End, Start};
use peerdma::addr::Bytes;
use peerdma_linux::vfio::{BarIndex, BarRange, Command, ExportError, MapBarError};
use rustix::io::FdFlags;

const P: u64 = PAGE.as_u64();

/// A range of one of the target's BARs, and whether what is said of it is right.
struct Row {
    what: &'static str,
    bar: u8,
    offset: At,
    len: At,
    said: Said,
}

/// What the library says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Exported,
    /// There is no such BAR to name, or no such range.
    NoRange,
    NotPages,
    Outside,
    Absent,
}

const fn row(what: &'static str, bar: u8, offset: At, len: At, said: Said) -> Row {
    Row { what, bar, offset, len, said }
}

/// A BAR of 256 bytes, one that is not there, and what VFIO calls the ROM, config space and VGA.
const SMALL: u8 = 0;
const NONE: u8 = 4;

const ROWS: [Row; 18] = [
    row("a whole BAR", MEMORY_BAR, Start(0), End(0), Said::Exported),
    row("a page of a BAR", MEMORY_BAR, Start(P), Start(P), Said::Exported),
    row("the last page of a BAR", MEMORY_BAR, End(P), Start(P), Said::Exported),
    row("a page from half a page on", MEMORY_BAR, Start(P / 2), Start(P), Said::NotPages),
    row("half a page", MEMORY_BAR, Start(0), Start(P / 2), Said::NotPages),
    row("no bytes", MEMORY_BAR, Start(0), Start(0), Said::NoRange),
    row("a page from the end of a BAR on", MEMORY_BAR, End(0), Start(P), Said::Outside),
    row("two pages across the end of a BAR", MEMORY_BAR, End(P), Start(2 * P), Said::Outside),
    row("one page more than the BAR has", MEMORY_BAR, Start(0), End(0u64.wrapping_sub(P)), Said::Outside),
    row("a length with its highest bit set", MEMORY_BAR, Start(0), Start(1 << 63), Said::Outside),
    row("a range over the end of offsets", MEMORY_BAR, Start(u64::MAX - (P - 1)), Start(2 * P), Said::NoRange),
    row("all of a BAR that is smaller than a page", SMALL, Start(0), Start(256), Said::NotPages),
    row("a page of a BAR that is smaller", SMALL, Start(0), Start(P), Said::Outside),
    row("a BAR that is not there", NONE, Start(0), Start(P), Said::Absent),
    row("the ROM", 6, Start(0), Start(P), Said::NoRange),
    row("config space", 7, Start(0), Start(P), Said::NoRange),
    row("VGA's memory", 8, Start(0), Start(P), Said::NoRange),
    row("the last region that a number names", 0xff, Start(0), Start(P), Said::NoRange),
];

pub(super) fn claims() -> Vec<Claim<Exporters>> {
    let claim = |row: &'static Row| {
        let is = match row.said {
            Said::Exported => "exports",
            Said::NoRange => "has no words for an export of",
            Said::NotPages | Said::Outside | Said::Absent => "refuses by name to export",
        };
        Claim::new(format!("the library {is} {}", row.what), |on: &mut Exporters| row.tries(on))
    };
    let mut claims: Vec<_> = ROWS.iter().map(claim).collect();
    claims.push(Claim::new("the library exports with memory space off, and a BAR with an MSI-X table in it", both));
    claims.push(Claim::new("the library's descriptors are closed on exec, and opened for what was asked", modes));
    claims
}

impl Row {
    fn tries(&self, on: &mut Exporters) -> Result<(), Stop> {
        let (offset, len) = (self.offset.bytes(on.size), self.len.bytes(on.size));
        let bar = BarIndex::new(self.bar);
        let range = bar.and_then(|bar| BarRange::new(bar, Bytes::new(offset), Bytes::new(len)));
        let Some(range) = range else { return equal("what the library says", &self.said, &Said::NoRange) };
        let said = match on.device()?.export(range) {
            Ok(_) => Said::Exported,
            Err(ExportError::NotPages { .. }) => Said::NotPages,
            Err(ExportError::Range(MapBarError::Outside { .. })) => Said::Outside,
            Err(ExportError::Range(MapBarError::Absent { .. })) => Said::Absent,
            Err(other) => return Err(other.into()),
        };
        equal("what the library says", &self.said, &said)
    }
}

fn page_of(bar: u8) -> Result<BarRange, Stop> {
    let range = BarIndex::new(bar).and_then(|bar| BarRange::new(bar, Bytes::ZERO, PAGE));
    range.ok_or_else(|| Stop::broken("the range does not exist"))
}

fn both(on: &mut Exporters) -> Result<(), Stop> {
    on.device()?.clear_command(Command::MEMORY)?;
    on.device()?.export(page_of(MEMORY_BAR)?)?;
    let nvme = on.nvme.as_ref().ok_or_else(|| Stop::DoesNotApply("no --nvme has such a BAR".into()))?;
    nvme.export(page_of(0)?)?;
    Ok(())
}

fn modes(on: &mut Exporters) -> Result<(), Stop> {
    let range = page_of(MEMORY_BAR)?;
    for (file, mode) in [(on.device()?.export(range)?, super::O_RDWR), (on.device()?.export_read_only(range)?, 0)] {
        equal("close-on-exec", &true, &rustix::io::fcntl_getfd(&file)?.contains(FdFlags::CLOEXEC))?;
        equal("access mode", &mode, &(rustix::fs::fcntl_getfl(&file)?.bits() & 3))?;
    }
    Ok(())
}
