//! Physical region pages, read as the drive reads them (NVMe Base 2.0 §4.1.1).

use super::command::{Piece, Pieces};
use super::reach::Reach;
use super::status::Status;
use peerdma::addr::{BusAddr, Bytes};

/// Entries that are read at once.
const ENTRIES: u64 = 512;

/// The data that two PRP entries and the lists behind them name, `len` bytes in all.
///
/// Each list but the first has to begin with a page, so every one after the first leads on by
/// an entry at least, and a list that points to itself ends with the data.
///
/// # Errors
/// [`Status::PRP_OFFSET_INVALID`] where an entry points into a page and may not; that of the
/// request where a list cannot be read.
pub(super) fn pieces(
    reach: &mut Reach<'_>,
    (first, second): (BusAddr, BusAddr),
    len: u64,
    page: Bytes,
) -> Result<Pieces, Status> {
    let page = page.as_u64();
    let offset = first.as_u64() % page;
    if !first.as_u64().is_multiple_of(4) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut found = Pieces::default();
    found.push(Piece { at: Some(first), len: len.min(page - offset) });
    let left = len - found.len();
    if left == 0 {
        return Ok(found);
    }
    if left <= page {
        found.push(whole(second, left, page)?);
        return Ok(found);
    }
    list(reach, &mut found, second, len, page)?;
    Ok(found)
}

/// A piece at the start of a page.
fn whole(at: BusAddr, len: u64, page: u64) -> Result<Piece, Status> {
    if !at.as_u64().is_multiple_of(page) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    Ok(Piece { at: Some(at), len: len.min(page) })
}

/// Follows lists until all of the data is found.
fn list(reach: &mut Reach<'_>, found: &mut Pieces, start: BusAddr, len: u64, page: u64) -> Result<(), Status> {
    // The first list may begin inside a page, at a whole entry (§4.1.1, figure on PRP lists).
    let mut at = start.as_u64();
    if !at.is_multiple_of(8) {
        return Err(Status::PRP_OFFSET_INVALID);
    }
    let mut words = vec![0; (ENTRIES * 8) as usize];
    loop {
        let needed = (len - found.len()).div_ceil(page);
        let until_page_end = (page - at % page) / 8;
        let count = needed.min(until_page_end).min(ENTRIES);
        let bytes = &mut words[..(count * 8) as usize];
        reach.read(BusAddr::new(at), bytes)?;
        at = at.wrapping_add(count * 8);
        let (entries, _) = bytes.as_chunks::<8>();
        let leads_on = count == until_page_end && needed > count;
        let data = entries.len() - usize::from(leads_on);
        for entry in &entries[..data] {
            let left = len - found.len();
            found.push(whole(BusAddr::new(u64::from_le_bytes(*entry)), left, page)?);
        }
        if found.len() == len {
            return Ok(());
        }
        if let (true, Some(next)) = (leads_on, entries.last()) {
            at = u64::from_le_bytes(*next);
            if !at.is_multiple_of(page) {
                return Err(Status::PRP_OFFSET_INVALID);
            }
        }
    }
}
