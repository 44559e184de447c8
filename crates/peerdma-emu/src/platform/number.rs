//! Numbers of a platform file against what their keys take.

use super::error::{PlatformError, Source};
use super::problem::{Problem, RegisterProblem};
use super::raw::{Integer, Size};
use peerdma::addr::{AddrRange, Address, Bytes};
use toml::Spanned;

/// The number, if it lies in `min..=max`.
pub(super) fn in_range<T: TryFrom<i128>>(
    source: Source<'_>,
    key: &'static str,
    (min, max): (u64, u64),
    number: &Spanned<Integer>,
) -> Result<T, PlatformError> {
    let found = number.get_ref().0;
    let inside = (i128::from(min)..=i128::from(max)).contains(&found);
    let value = inside.then(|| T::try_from(found).ok()).flatten();
    value.ok_or_else(|| source.error(&number.span(), Problem::OutOfRange { key, found, min, max }))
}

/// A size of at least one byte.
pub(super) fn size(source: Source<'_>, key: &'static str, size: &Spanned<Size>) -> Result<Bytes, PlatformError> {
    match size.get_ref().0 {
        0 => Err(source.error(&size.span(), Problem::Zero { key })),
        bytes => Ok(Bytes::new(bytes)),
    }
}

/// A range of addresses given by its start, under `key`, and its size.
pub(super) fn range<A: Address>(
    source: Source<'_>,
    key: &'static str,
    start: &Spanned<Integer>,
    len: &Spanned<Size>,
) -> Result<AddrRange<A>, PlatformError> {
    let first = A::from_raw(in_range(source, key, (0, u64::MAX), start)?);
    let len = size(source, "size", len)?;
    AddrRange::new(first, len).ok_or_else(|| source.error(&start.span(), Problem::Wraps { key }))
}

/// A NUMA node.
pub(super) fn node(source: Source<'_>, node: Option<&Spanned<Integer>>) -> Result<Option<u32>, PlatformError> {
    // Linux numbers nodes with an int.
    node.map(|node| in_range(source, "node", (0, i32::MAX as u64), node)).transpose()
}

/// A payload size, or `default` where none is written.
pub(super) fn payload(
    source: Source<'_>,
    key: &'static str,
    number: Option<&Spanned<Integer>>,
    default: Bytes,
) -> Result<Bytes, PlatformError> {
    let Some(number) = number else { return Ok(default) };
    match number.get_ref().0 {
        // PCIe 6.0 §7.5.3.4: 128 << 0 to 128 << 5.
        found @ (128 | 256 | 512 | 1024 | 2048 | 4096) => Ok(Bytes::new(found as u64)),
        found => Err(source.error(&number.span(), RegisterProblem::Payload { key, found })),
    }
}

/// The earlier of two overlapping ranges for every range that overlaps one before it
/// in ascending order; the first such pair, as indices into `ranges`.
pub(super) fn first_overlap<A: Address>(ranges: &[AddrRange<A>]) -> Option<(usize, usize)> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|&index| (ranges[index].start(), index));
    order.windows(2).find_map(|pair| {
        let &[a, b] = pair else { return None };
        // In ascending order of starts some overlap shows between neighbours, if there is any.
        (ranges[b].start() <= ranges[a].last()).then_some((a.min(b), a.max(b)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::addr::PhysAddr;

    #[test]
    fn an_overlap_is_found_whatever_the_order_and_touching_is_none() {
        let range = |start, len| AddrRange::new(PhysAddr::new(start), Bytes::new(len)).unwrap();
        assert_eq!(first_overlap(&[range(0x2000, 0x1000), range(0x1000, 0x1000)]), None);
        assert_eq!(first_overlap(&[range(0x2000, 0x1000), range(0x1000, 0x1001)]), Some((0, 1)));
        assert_eq!(first_overlap(&[range(0, 0x10), range(0x9000, 1), range(0, 0x9001)]), Some((0, 2)));
    }
}
