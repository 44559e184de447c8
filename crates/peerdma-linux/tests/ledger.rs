//! The ledger beside the kernel's own counter, step by step: `VmPin` of a process that does nothing else.
//!
//! A test program of its own, since every pin of a process counts in its one counter.

use peerdma::addr::{AddrRange, Bytes, Granule};
use peerdma::pin::{Counter, Ledger, OwnerId, OwnerLimits, PinHandle, Request, RingShape, Via};
use peerdma_linux::held::Held;
use peerdma_linux::pin::{Pin, Pinner};
use peerdma_linux::proof::{Fill, Keep, Sample, huge_page_size};
use std::error::Error;
use std::io::Write;
use std::path::Path;

/// What this process has pinned, by the kernel.
fn pinned() -> Result<Bytes, Box<dyn Error>> {
    let held = Held::read(Path::new("/proc"))?;
    let own = held.processes.iter().find(|process| process.pid == std::process::id());
    Ok(own.ok_or("this process is not in /proc")?.pinned)
}

/// One pin in both.
struct Both {
    /// `None` once it is let go.
    kernel: Option<Pin>,
    ledger: PinHandle,
}

/// Slices of two huge pages, pinned and let go in an order in which those go first who paid.
#[test]
fn the_ledger_stands_where_the_kernel_s_counter_does_also_when_that_is_a_lower_bound() -> Result<(), Box<dyn Error>> {
    let skip = |why: &str| writeln!(std::io::stderr(), "SKIPPED ledger-pins: {why}");
    let Some(huge) = huge_page_size().and_then(Granule::new) else {
        return Ok(skip("this kernel has no huge pages to collapse memory into")?);
    };
    let (size, page) = (huge.bytes().as_u64(), peerdma_linux::memory::page_size());
    let pinner = match Pinner::new() {
        Ok(pinner) => pinner,
        Err(error) => return Ok(skip(&error.to_string())?),
    };
    let sample = Sample::new(Keep::Plain, Bytes::new(2 * size), Fill::Distinct)?;
    let collapse = sample.collapse();
    if collapse.done != collapse.asked {
        return Ok(skip("the kernel made too few huge pages, and has no free memory in one piece, most likely")?);
    }
    let small = Sample::new(Keep::Plain, Bytes::new(size), Fill::Distinct)?;

    let owner = OwnerId::new(0);
    let mut ledger = Ledger::new(Granule::new(page).ok_or("pages of no power of two")?);
    ledger.describe_owner(owner, "test", OwnerLimits::NONE);
    let ring = ledger.open_ring(owner, RingShape::new(1))?;
    let before = pinned()?;
    let mut pins: Vec<Both> = Vec::new();
    let slice = |of: &Sample, offset: u64, len: u64| -> Result<AddrRange<_>, &str> {
        of.range().slice(Bytes::new(offset), Bytes::new(len)).ok_or("a slice lies in its sample")
    };
    let slices = [
        (slice(&sample, 0, 1)?, true),
        (slice(&sample, 4096, 8192)?, true),
        // Across both huge pages, of which the first is paid for.
        (slice(&sample, size - 1, 2)?, true),
        (slice(&sample, size, size)?, true),
        // Base pages are charged each time.
        (slice(&small, 100, 4096)?, false),
        (slice(&small, 100, 4096)?, false),
    ];
    let mut inexact = 0;
    let mut compare = |ledger: &Ledger, step: &str| -> Result<(), Box<dyn Error>> {
        let reading = ledger.reading(Counter::MmPinned);
        inexact += usize::from(!reading.is_exact());
        assert_eq!(Bytes::new(pinned()?.as_u64() - before.as_u64()), reading.charged, "{step}");
        Ok(())
    };
    for (at, (range, is_huge)) in slices.into_iter().enumerate() {
        let request = Request::new(Via::IoUring { ring }, range);
        let request = if is_huge { request.in_compound_pages(huge) } else { request };
        let handle = ledger.charge(owner, request)?;
        let pin = pinner.pin_foreign(range.start(), range.len())?;
        pins.push(Both { kernel: Some(pin), ledger: handle });
        compare(&ledger, &format!("pin {at}"))?;
    }
    // The first paid for one page, the third for the other.
    for at in [0, 2, 4, 1, 3, 5] {
        drop(pins[at].kernel.take());
        ledger.release(pins[at].ledger)?;
        compare(&ledger, &format!("unpin {at}"))?;
    }
    assert!(inexact > 0, "no slot took a charge with it, and the test is void");
    assert_eq!(ledger.reading(Counter::MmPinned).held, Bytes::ZERO);
    Ok(())
}
