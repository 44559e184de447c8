//! A pool in address spaces of devices.

use super::{pinned, pinner};
use crate::pool::{NotAttached, PoolError};
use peerdma::addr::{AddrRange, Iova};
use peerdma::dma::IoSpace;
use peerdma::dma::recording::{Call, ProcessKind, Profile, RecordingSpace};
use peerdma::iova::IovaRanges;
use peerdma::pool::{Obstacle, Reach};

const MIB: u64 = 1 << 20;

fn reach(name: &str, space: &RecordingSpace) -> Reach {
    Reach::new(name, space.abilities().usable.clone())
}

fn space(profile: Profile, range: AddrRange<peerdma::addr::ProcVa>) -> RecordingSpace {
    let mut space = RecordingSpace::new(profile);
    space.add_process(range, ProcessKind::Memory);
    space
}

#[test]
fn devices_know_a_pool_by_the_cpus_addresses() {
    let Some(pool) = pinned(4 * MIB, |options| options) else { return };
    for profile in [Profile::Type1, Profile::Iommufd] {
        let space = space(profile, pool.range());
        let nic = reach("nic", &space);
        let attached = pool.attach(space, &nic).unwrap();
        assert_eq!(attached.iova().start().as_u64(), pool.range().start().as_u64());
        let mut space = attached.detach().unwrap();
        assert!(space.mapped().is_empty(), "nothing is left");
        let calls = space.take_calls();
        assert!(matches!(calls.as_slice(), [Call::Map { .. }, Call::Unmap { .. }]), "{calls:?}");
    }
}

#[test]
fn a_device_that_does_not_reach_a_pool_is_refused_before_its_space_is_asked() {
    let Some(pool) = pinned(MIB, |options| options) else { return };
    let space = space(Profile::Type1, pool.range());
    let narrow = reach("old nic", &space).with_mask_bits(32);
    let refused = pool.attach(space, &narrow).unwrap_err();
    assert!(matches!(&refused.why, NotAttached::Unreachable(Obstacle::Mask { .. })));
    assert!(refused.to_string().starts_with("old nic forms no address above 0xffffffff"), "{refused}");
    assert!(refused.space.calls().is_empty());
}

#[test]
fn a_pool_that_is_made_for_its_devices_lies_where_all_of_them_reach_it() {
    let usable = IovaRanges::from_inclusive([(Iova::new(0), Iova::new((1 << 39) - 1))]).unwrap();
    let narrow = Reach::new("nic", usable).with_mask_bits(36);
    let taken = AddrRange::from_inclusive(Iova::new(0xf_0000_0000), Iova::new(0xf_ffff_ffff)).unwrap();
    let narrow = narrow.with_reserved(taken, "what firmware reserved");
    let Some(pool) = pinned(4 * MIB, |options| options.device(narrow.clone())) else { return };
    assert!(pool.range().last().as_u64() < 0xf_0000_0000);
    let attached = pool.attach(space(Profile::Type1, pool.range()), &narrow).unwrap();
    drop(attached);
}

#[test]
fn devices_that_have_no_address_in_common_are_told_before_memory_is_taken() {
    let ranges = |first, last| IovaRanges::from_inclusive([(Iova::new(first), Iova::new(last))]).unwrap();
    let (low, high) = (Reach::new("low", ranges(0, 0xffff_ffff)), Reach::new("high", ranges(1 << 40, 1 << 41)));
    let Some(pinner) = pinner() else { return };
    let options = crate::pool::Options::new(crate::pool::Stay::Pinned(pinner)).device(low).device(high);
    let refused = crate::pool::Pool::new(peerdma::addr::Bytes::new(MIB), options).unwrap_err();
    assert!(matches!(&refused, PoolError::NoPlace(no) if no.to_string().contains("high maps")), "{refused}");
}
