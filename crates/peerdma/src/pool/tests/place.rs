//! Where pools can lie.

use crate::addr::{AddrRange, Bytes, Granule, Iova, ProcVa};
use crate::iova::IovaRanges;
use crate::pool::{NoPlace, Obstacle, Reach, place};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn gap(first: u64, last: u64) -> AddrRange<ProcVa> {
    AddrRange::from_inclusive(ProcVa::new(first), ProcVa::new(last)).unwrap()
}

fn window(first: u64, last: u64) -> AddrRange<Iova> {
    AddrRange::from_inclusive(Iova::new(first), Iova::new(last)).unwrap()
}

fn device(name: &str, first: u64, last: u64) -> Reach {
    Reach::new(name, IovaRanges::from_inclusive([(Iova::new(first), Iova::new(last))]).unwrap())
}

fn found(len: u64, gaps: &[AddrRange<ProcVa>], devices: &[Reach]) -> Result<u64, NoPlace> {
    let range = place(Bytes::new(len), Granule::new(Bytes::new(2 * MIB)).unwrap(), gaps, devices)?;
    assert_eq!(range.len(), Bytes::new(len));
    Ok(range.start().as_u64())
}

#[test]
fn a_pool_lies_as_high_as_all_its_devices_reach() {
    let gaps = [gap(0x1_0000, 0x7fff_ffff_efff)];
    let gpu = device("gpu", 0, (1 << 47) - 1);
    assert_eq!(found(4 * MIB, &gaps, std::slice::from_ref(&gpu)), Ok(0x7fff_ffa0_0000));
    let nic = device("nic", 0, (1 << 39) - 1);
    assert_eq!(found(4 * MIB, &gaps, &[gpu.clone(), nic.clone()]), Ok((1 << 39) - 4 * MIB));
    let old = device("old", 0, u64::MAX - 1).with_mask_bits(32);
    assert_eq!(found(4 * MIB, &gaps, &[gpu, nic, old.clone()]), Ok((1 << 32) - 4 * MIB));
    let beside = old.with_reserved(window(0xfee0_0000, 0xfeef_ffff), "where interrupts are taken");
    assert_eq!(found(16 * MIB, &gaps, std::slice::from_ref(&beside)), Ok((1 << 32) - 16 * MIB));
    assert_eq!(found(32 * MIB, &gaps, &[beside]), Ok(0xfce0_0000));
}

#[test]
fn the_device_that_leaves_no_room_is_named_with_the_reason() {
    let gaps = [gap(0x7f00_0000_0000, 0x7fff_ffff_efff)];
    let refused = |devices: &[Reach]| found(4 * MIB, &gaps, devices).unwrap_err();
    let nic = device("nic", 0, (1 << 39) - 1);
    assert_eq!(
        refused(&[nic]).to_string(),
        "no address for a pool of 4 MiB: nic maps 0x0-0x7fffffffff, and not there; place the pool for its devices, or \
         leave nic out"
    );
    let narrow = device("edu", 0, u64::MAX - 1).with_mask_bits(28);
    assert_eq!(refused(&[narrow]).obstacle, Obstacle::Mask { device: "edu".into(), limit: Iova::new((1 << 28) - 1) });
    let taken = device("gpu", 0, u64::MAX - 1).with_reserved(window(0, u64::MAX - 1), "reserved by firmware");
    assert!(refused(&[taken]).to_string().contains("is reserved by firmware for gpu"));
    assert_eq!(found(4 * MIB, &[], &[]).unwrap_err().obstacle, Obstacle::Process);
    assert!(device("none", 0, 0).obstacle(&gap(0, 0xfff)).is_some());
}

#[test]
fn a_mask_of_no_bits_reaches_one_address_and_of_64_all() {
    let all = device("all", 0, u64::MAX - 1);
    assert_eq!(all.clone().with_mask_bits(64).obstacle(&gap(0, 0xffff_ffff_ffff)), None);
    assert_eq!(all.clone().with_mask_bits(255).obstacle(&gap(0, 0xffff_ffff_ffff)), None);
    assert!(all.clone().with_mask_bits(0).obstacle(&gap(0, 1)).is_some());
    assert_eq!(all.with_mask_bits(0).obstacle(&gap(0, 0)), None);
}

proptest! {
    /// The place that is found has no obstacle, and where none is found none is there.
    #[test]
    fn a_place_is_found_exactly_where_there_is_one(
        gaps in proptest::collection::btree_set(0_u64..64, 2..8),
        apertures in proptest::collection::vec((0_u64..64, 0_u64..64), 1..3),
        reserved in 0_u64..64,
        mask in 20_u8..28,
        len in 1_u64..5,
    ) {
        let cuts: Vec<u64> = gaps.into_iter().collect();
        let gaps: Vec<_> = cuts.chunks_exact(2).map(|pair| gap(pair[0] * MIB, pair[1] * MIB - 1)).collect();
        let devices: Vec<Reach> = apertures
            .iter()
            .map(|(a, b)| device("d", a.min(b) * MIB, a.max(b) * MIB + MIB - 1).with_mask_bits(mask))
            .map(|reach| reach.with_reserved(window(reserved * MIB, reserved * MIB + MIB - 1), "taken"))
            .collect();
        let align = Granule::new(Bytes::new(MIB)).unwrap();
        let fits = |start: u64| {
            let range = gap(start * MIB, (start + len) * MIB - 1);
            gaps.iter().any(|gap| gap.contains_range(&range)) && devices.iter().all(|it| it.obstacle(&range).is_none())
        };
        let oracle = (0..64).rev().find(|start| fits(*start)).map(|start| start * MIB);
        let found = place(Bytes::new(len * MIB), align, &gaps, &devices).ok().map(|range| range.start().as_u64());
        prop_assert_eq!(found, oracle);
    }
}
