//! Takes apart the chains of capabilities that VFIO appends to its answers.
//!
//! An answer is a structure, and behind it capabilities: 8 bytes of header (id, version,
//! offset of the next one from the start of the answer, 0 at the end) and then a body
//! (Linux 7.2 `vfio_info_cap_add`). Offsets rise along the chain, as the kernel builds
//! it; one that does not is refused, which also bounds the walk.
//!
//! Not here: what the capabilities mean; see [`super::region`] and [`super::type1_info`].

/// Bytes of a capability's header.
const HEADER: usize = 8;

/// One capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Capability<'a> {
    pub(crate) id: u16,
    /// What stands between its header and the next capability, or the end of the answer.
    pub(crate) body: &'a [u8],
}

/// An offset of the chain leads outside the answer, or backwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the kernel's list of capabilities is damaged at offset {at:#x}")]
pub(crate) struct DamagedChain {
    at: u32,
}

/// The capabilities of an answer of `bytes`, the first at offset `first` (0: there are none).
pub(crate) fn capabilities(bytes: &[u8], first: u32) -> Result<Vec<Capability<'_>>, DamagedChain> {
    let mut found = Vec::new();
    let mut at = first;
    while at != 0 {
        let damaged = DamagedChain { at };
        let start = at as usize;
        let header = bytes.get(start..).and_then(|rest| rest.first_chunk::<HEADER>()).ok_or(damaged)?;
        let id = u16::from_ne_bytes([header[0], header[1]]);
        let next = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let end = if next == 0 { bytes.len() } else { next as usize };
        // A next one that starts before this header ends makes this range backwards.
        let body = bytes.get(start + HEADER..end).ok_or(damaged)?;
        found.push(Capability { id, body });
        at = next;
    }
    Ok(found)
}

/// The number at byte `at`, in the machine's own order as ioctls have it.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The number at byte `at`, in the machine's own order as ioctls have it.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// A count at byte 0, four bytes, then from byte 8 as many pairs of 64-bit numbers, the
/// form of both sparse areas and IOVA ranges; `None` if the body is shorter than it says.
pub(crate) fn counted_pairs(body: &[u8]) -> Option<Vec<(u64, u64)>> {
    let count = usize::try_from(u32_at(body, 0)?).ok()?;
    let pairs = body.get(8..)?.get(..count.checked_mul(16)?)?;
    pairs.chunks_exact(16).map(|pair| Some((u64_at(pair, 0)?, u64_at(pair, 8)?))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer of a `structure` and then capabilities, for tests of what reads them.
    pub(crate) fn answer(structure: &[u8], capabilities: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = structure.to_vec();
        for (index, (id, body)) in capabilities.iter().enumerate() {
            let next = if index + 1 == capabilities.len() { 0 } else { bytes.len() + HEADER + body.len() };
            bytes.extend(id.to_ne_bytes());
            bytes.extend(1u16.to_ne_bytes());
            bytes.extend((next as u32).to_ne_bytes());
            bytes.extend(body);
        }
        bytes
    }

    /// A body of [`counted_pairs`].
    pub(crate) fn pairs(pairs: &[(u64, u64)]) -> Vec<u8> {
        let mut body = (pairs.len() as u32).to_ne_bytes().to_vec();
        body.extend([0; 4]);
        for (first, second) in pairs {
            body.extend(first.to_ne_bytes());
            body.extend(second.to_ne_bytes());
        }
        body
    }

    #[test]
    fn every_capability_is_found_with_its_own_body() {
        let bytes = answer(&[0xaa; 24], &[(1, vec![1; 16]), (7, vec![]), (3, vec![3; 4])]);
        let found = capabilities(&bytes, 24).unwrap();
        let bodies: Vec<(u16, &[u8])> = found.iter().map(|capability| (capability.id, capability.body)).collect();
        assert_eq!(bodies, [(1, &[1u8; 16][..]), (7, &[]), (3, &[3; 4])]);
        assert_eq!(capabilities(&bytes, 0), Ok(vec![]));
    }

    #[test]
    fn a_chain_that_turns_back_or_leaves_the_answer_is_refused() {
        let mut bytes = answer(&[0; 24], &[(1, vec![0; 8]), (2, vec![0; 8])]);
        assert_eq!(capabilities(&bytes, 50), Err(DamagedChain { at: 50 }));
        assert_eq!(capabilities(&bytes, u32::MAX), Err(DamagedChain { at: u32::MAX }));
        for next in [24u32, 31, 57, u32::MAX] {
            bytes[28..32].copy_from_slice(&next.to_ne_bytes());
            assert!(capabilities(&bytes, 24).is_err(), "{next}");
        }
    }

    #[test]
    fn a_count_beyond_the_body_is_refused() {
        assert_eq!(counted_pairs(&pairs(&[(1, 2), (3, 4)])), Some(vec![(1, 2), (3, 4)]));
        let mut body = pairs(&[(1, 2)]);
        body[0] = 2;
        assert_eq!(counted_pairs(&body), None);
        body[0..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(counted_pairs(&body), None);
        assert_eq!(counted_pairs(&[0; 3]), None);
    }

    proptest! {
        #[test]
        fn no_answer_whatever_makes_the_walk_panic_or_run_on(bytes in prop::collection::vec(any::<u8>(), 0..256), first in any::<u16>()) {
            if let Ok(found) = capabilities(&bytes, u32::from(first) % 300) {
                prop_assert!(found.len() <= bytes.len() / HEADER);
            }
            let _ = counted_pairs(&bytes);
        }
    }
}
