//! Requests to export, and what becomes of each (Linux 7.3 `vfio_pci_core_feature_dma_buf`).
//!
//! Ranges are data with `END` standing for the length of the BAR, which the guest tells.

use super::super::answer::{Answer, Refused, Taken};
use super::super::bench::PAGE;
use super::super::claim::{Claim, Stop, equal};
use super::{Exporters, O_CLOEXEC, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY, request};
use peerdma::addr::Bytes;
use peerdma::dma::Errno;
use peerdma_linux::raw::{self, Ask, ExportRequest};
use peerdma_linux::vfio::BarIndex;
use rustix::io::FdFlags;
use std::fs::File;

const P: u64 = PAGE.as_u64();

/// A number of bytes, counted from the start of the BAR or from its end.
#[derive(Clone, Copy)]
pub(super) enum At {
    Start(u64),
    End(u64),
}

use At::{End, Start};

impl At {
    pub(super) fn bytes(self, size: Bytes) -> u64 {
        match self {
            Start(bytes) => bytes,
            End(before) => size.as_u64().wrapping_sub(before),
        }
    }
}

/// Ranges of the target's memory.
struct Ranges {
    what: &'static str,
    ranges: &'static [(At, At)],
    answer: Answer,
}

const EINVAL: Answer = Refused(Errno::EINVAL);
const EOVERFLOW: Answer = Refused(Errno::EOVERFLOW);

const fn ranges(what: &'static str, ranges: &'static [(At, At)], answer: Answer) -> Ranges {
    Ranges { what, ranges, answer }
}

const RANGES: [Ranges; 17] = [
    ranges("an export of a whole BAR", &[(Start(0), End(0))], Taken),
    ranges("an export of a page of a BAR", &[(Start(P), Start(P))], Taken),
    ranges("an export of the last page of a BAR", &[(End(P), Start(P))], Taken),
    ranges("an export of ranges out of order", &[(Start(2 * P), Start(P)), (Start(0), Start(P))], Taken),
    ranges("an export of ranges that overlap", &[(Start(0), Start(2 * P)), (Start(P), Start(2 * P))], Taken),
    ranges("an export of one range twice", &[(Start(P), Start(P)), (Start(P), Start(P))], Taken),
    ranges("an export from half a page on", &[(Start(P / 2), Start(P))], EINVAL),
    ranges("an export of half a page", &[(Start(0), Start(P / 2))], EINVAL),
    ranges("an export of no bytes", &[(Start(0), Start(0))], EINVAL),
    ranges("an export from the end of a BAR on", &[(End(0), Start(P))], EINVAL),
    ranges("an export across the end of a BAR", &[(End(P), Start(2 * P))], EINVAL),
    ranges("an export of one page more than the BAR has", &[(Start(0), End(0u64.wrapping_sub(P)))], EINVAL),
    ranges("an export of a bad range behind a good one", &[(Start(0), Start(P)), (End(0), Start(P))], EINVAL),
    ranges("an export of no ranges at all", &[], EINVAL),
    ranges(
        "an export of ranges whose lengths overflow in sum",
        &[(Start(0), Start(1 << 63)), (Start(0), Start(1 << 63))],
        EINVAL,
    ),
    ranges("an export of a length with its highest bit set", &[(Start(0), Start(1 << 63))], EINVAL),
    ranges(
        "an export from an offset that overflows the BAR's address",
        &[(Start(0u64.wrapping_sub(P)), Start(P))],
        EOVERFLOW,
    ),
];

/// A request for one page that is wrong in another way.
struct Request {
    what: &'static str,
    spoil: fn(&mut ExportRequest),
    answer: Answer,
}

const ENODEV: Answer = Refused(Errno::ENODEV);

const fn spoiled(what: &'static str, spoil: fn(&mut ExportRequest), answer: Answer) -> Request {
    Request { what, spoil, answer }
}

const REQUESTS: [Request; 15] = [
    spoiled("a probe for exporting", |request| request.ask = Ask::Probe, Taken),
    spoiled("a probe for setting", |request| request.ask = Ask::ProbeSet, EINVAL),
    spoiled("setting", |request| request.ask = Ask::Set, EINVAL),
    spoiled("a request with a flag", |request| request.flags = 1, EINVAL),
    spoiled("a request one byte shorter than its structure", |request| request.claimed_len = Some(23), EINVAL),
    spoiled("a request whose length does not cover its ranges", |request| request.claimed_len = Some(24), Taken),
    spoiled("a request shorter than its header", |request| request.claimed_len = Some(4), EINVAL),
    spoiled("an export of a BAR that the device does not have", |request| request.region = 1, ENODEV),
    spoiled("an export of the ROM", |request| request.region = 6, ENODEV),
    spoiled("an export of config space", |request| request.region = 7, ENODEV),
    spoiled("an export of the VGA region", |request| request.region = 8, ENODEV),
    spoiled("an export of the first device-specific region", |request| request.region = 9, ENODEV),
    spoiled("an export of the region of the highest number", |request| request.region = u32::MAX, ENODEV),
    spoiled("an export of a BAR smaller than a page", |request| request.region = 0, EINVAL),
    spoiled("an export with open flags that mean nothing", |request| request.open_flags = 0xffff_0000, Taken),
];

/// Flags of a descriptor.
struct OpenFlags {
    sentence: &'static str,
    flags: u32,
    close_on_exec: bool,
    /// What `F_GETFL` gives of access mode and `O_NONBLOCK`.
    status: u32,
}

const fn open_flags(sentence: &'static str, flags: u32, close_on_exec: bool, status: u32) -> OpenFlags {
    OpenFlags { sentence, flags, close_on_exec, status }
}

const OPEN_FLAGS: [OpenFlags; 4] = [
    open_flags("O_CLOEXEC is set on the new descriptor", O_RDWR | O_CLOEXEC, true, O_RDWR),
    open_flags("O_RDONLY and no O_CLOEXEC are as asked for", O_RDONLY, false, O_RDONLY),
    open_flags("O_WRONLY is as asked for", O_WRONLY, false, O_WRONLY),
    open_flags("O_NONBLOCK is as asked for", O_RDWR | O_NONBLOCK, false, O_RDWR | O_NONBLOCK),
];

/// So many ranges are far past any limit that could have been meant; none was seen.
const MANY: usize = 70_000;

pub(super) fn claims() -> Vec<Claim<Exporters>> {
    let ranges = |row: &'static Ranges| {
        Claim::new(format!("{} {}", row.what, row.answer.words()), |on: &mut Exporters| row.tries(on))
    };
    let request = |row: &'static Request| {
        Claim::new(format!("{} {}", row.what, row.answer.words()), |on: &mut Exporters| row.tries(on))
    };
    let mut claims: Vec<Claim<Exporters>> = RANGES.iter().map(ranges).chain(REQUESTS.iter().map(request)).collect();
    claims.extend(OPEN_FLAGS.iter().map(|row| Claim::new(row.sentence, |on: &mut Exporters| row.tries(on))));
    claims.push(Claim::new("an export of seventy thousand ranges is taken", many));
    claims.push(Claim::new("an export of a whole BAR with an MSI-X table in it is taken", msi_x));
    claims
}

impl Ranges {
    fn tries(&self, on: &mut Exporters) -> Result<(), Stop> {
        let bytes = |at: At| at.bytes(on.size);
        let ranges: Vec<(u64, u64)> = self.ranges.iter().map(|(offset, len)| (bytes(*offset), bytes(*len))).collect();
        let file = self.answer.expect("the export", raw::export(on.device()?, &request(&ranges)))?.flatten();
        let Some(file) = file else { return Ok(()) };
        let sum = ranges.iter().map(|(_, len)| len).sum();
        equal("length of the dma-buf", &sum, &File::from(file).metadata()?.len())
    }
}

impl Request {
    fn tries(&self, on: &mut Exporters) -> Result<(), Stop> {
        let mut asked = super::one_page();
        (self.spoil)(&mut asked);
        self.answer.expect("the request", raw::export(on.device()?, &asked)).map(drop)
    }
}

impl OpenFlags {
    fn tries(&self, on: &mut Exporters) -> Result<(), Stop> {
        let asked = ExportRequest { open_flags: self.flags, ..super::one_page() };
        let Some(file) = Taken.expect("the export", raw::export(on.device()?, &asked))?.flatten() else {
            return Err(Stop::broken("the export gave no descriptor"));
        };
        equal("close-on-exec", &self.close_on_exec, &rustix::io::fcntl_getfd(&file)?.contains(FdFlags::CLOEXEC))?;
        let status = rustix::fs::fcntl_getfl(&file)?.bits() & (3 | O_NONBLOCK);
        equal("access mode and O_NONBLOCK", &self.status, &status)
    }
}

fn many(on: &mut Exporters) -> Result<(), Stop> {
    let asked = request(&vec![(0, P); MANY]);
    let file = Taken.expect("the export", raw::export(on.device()?, &asked))?.flatten();
    let file = file.ok_or_else(|| Stop::broken("the export gave no descriptor"))?;
    equal("length of the dma-buf", &(MANY as u64 * P), &File::from(file).metadata()?.len())
}

fn msi_x(on: &mut Exporters) -> Result<(), Stop> {
    let nvme = on.nvme.as_ref().ok_or_else(|| Stop::DoesNotApply("no --nvme has such a BAR".into()))?;
    let bar =
        BarIndex::new(0).and_then(|bar| nvme.bar(bar)).ok_or_else(|| Stop::broken("the controller has no BAR 0"))?;
    let asked = ExportRequest { region: 0, ..request(&[(0, bar.size.as_u64())]) };
    Taken.expect("the export of all of BAR 0", raw::export(nvme, &asked)).map(drop)
}
