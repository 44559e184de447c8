use super::*;
use crate::platform::Platform;
use peerdma::addr::Bytes;
use peerdma::dma::publish::Step;
use std::ops::ControlFlow;

fn two_socket() -> (Platform, Cast) {
    let platform = Platform::built_in("two-socket").unwrap();
    let cast = Cast::of(&platform).unwrap();
    (platform, cast)
}

#[test]
fn what_a_drive_sends_through_two_gpus_and_two_nics_comes_back_with_its_mark() {
    let (platform, cast) = two_socket();
    let done = pipeline(&platform, &cast, Bytes::new(0x4_1001), 7).unwrap();
    assert!(done.verified(), "{done:?}");
    let kinds: Vec<_> = done
        .legs
        .iter()
        .map(|leg| (leg.initiator.as_str(), leg.target.as_deref().unwrap_or("ram"), leg.address.word()))
        .collect();
    let direct = [
        ("nvme0", "gpu0", "bus"),
        ("nic0", "gpu0", "bus"),
        ("nic1", "gpu1", "bus"),
        ("nic1", "gpu1", "bus"),
        ("nic0", "gpu0", "bus"),
        ("nvme0", "gpu0", "bus"),
    ];
    assert_eq!(kinds, [&direct[..], &[("gpu0", "gpu1", "iova"), ("nvme0", "ram", "iova")]].concat());
    assert!(done.legs.iter().all(|leg| leg.len == Bytes::new(0x4_2000)));
}

#[test]
fn a_platform_without_the_cast_is_told_what_it_lacks() {
    let client = Platform::built_in("client").unwrap();
    assert_eq!(
        Cast::of(&client).unwrap_err().to_string(),
        "the platform lacks two GPUs, which the built-in two-socket has"
    );
}

#[test]
fn a_peer_rings_over_two_links_and_an_interrupt_with_a_store_takes_four() {
    let (platform, cast) = two_socket();
    let doorbell = doorbell(&platform, &cast, 7).unwrap();
    assert_eq!(doorbell.heard, [true, true]);
    assert_eq!((doorbell.by_peer.places.join(" "), doorbell.by_peer.links), ("gpu0 a1 nic0".to_string(), 2));
    assert_eq!(doorbell.interrupt.places.join(" "), "gpu0 switch-a socket0 cpu");
    assert_eq!(doorbell.by_cpu.places.join(" "), "cpu rp0 a1 nic0");
    assert_eq!((doorbell.interrupt.links, doorbell.by_cpu.links), (2, 2));
    assert!([doorbell.by_peer, doorbell.interrupt, doorbell.by_cpu].iter().all(|journey| journey.arrived));
}

#[test]
fn the_engine_s_address_arrives_and_other_numbers_do_what_was_reported() {
    let (platform, cast) = two_socket();
    let quiet = wrong_kind(&platform, &cast, 7, false).unwrap();
    assert_eq!((quiet.given.word(), quiet.arrived, quiet.mistakes.len()), ("iova", true, 0));
    let shown = wrong_kind(&platform, &cast, 7, true).unwrap();
    let [lost, astray, caught] = &shown.mistakes[..] else { panic!("{shown:?}") };
    // Devices take their writes for done in each case.
    assert!(shown.mistakes.iter().all(|mistake| mistake.reported_done));
    assert!(matches!(lost.landed, Landed::Nowhere { faults } if faults > 0), "{lost:?}");
    assert_eq!((astray.landed, astray.overwritten.as_deref()), (Landed::Elsewhere, Some("a buffer in RAM")));
    assert_eq!((caught.landed, caught.overwritten.as_deref()), (Landed::Elsewhere, Some("VRAM of gpu0")));
}

#[test]
fn a_route_that_is_refused_gives_all_ones_when_it_is_taken() {
    let refused = forced_route(7, false).unwrap();
    assert!(refused.refused.is_some() && refused.forced.is_none());
    let forced = forced_route(7, true).unwrap().forced.unwrap();
    assert!(forced.reported_done);
    assert_eq!(forced.ones, forced.len.as_u64());
    assert!(forced.right < forced.len.as_u64() / 64);
}

#[test]
fn a_doorbell_overtakes_its_payload_in_some_runs_and_never_after_the_read() {
    let (platform, cast) = two_socket();
    let seen = overtaken(&platform, &cast, 0, 16).unwrap();
    assert!(seen.advice.contains(Step::FlushByRead));
    assert!((1..16).contains(&seen.without) && seen.seed.is_some(), "{seen:?}");
    assert_eq!(seen.with, 0);
    // The seed that was found shows it again.
    let again = overtaken(&platform, &cast, seen.seed.unwrap(), 1).unwrap();
    assert_eq!(again.without, 1);
}

#[test]
fn two_processes_on_one_accelerator_get_their_own_sums_and_nothing_of_each_other() {
    for seed in 0..4 {
        let apart = two_processes(seed).unwrap();
        assert!(apart.kept_apart(), "{apart:?}");
        let [first, second] = apart.processes;
        assert_eq!(first.list, second.list);
        assert_ne!(first.sum, second.sum);
    }
}

#[test]
fn a_buffer_that_is_moved_and_reset_under_traffic_loses_nothing() {
    let (platform, cast) = two_socket();
    let mut seen = std::collections::BTreeSet::new();
    let life = buffer_life(&platform, &cast, (Bytes::new(16 << 10), 48), 7, &mut |buffer| {
        let report = buffer.report();
        assert!(report.fences.len() <= 2 && report.attached.len() <= 2);
        seen.insert(report.phase);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(life.is_good(), "{life:#?}");
    assert_eq!((life.sent, life.deeds.len()), (48, 5));
    assert!(life.deeds.iter().all(|deed| !deed.held.is_empty()), "{life:#?}");
    let places: Vec<_> = life.deeds.iter().map(|deed| deed.to.as_deref().unwrap_or("reset")).collect();
    assert_eq!(places, ["VRAM of gpu1", "reset", "RAM", "VRAM of gpu0", "reset"]);
    use peerdma::buffer::life::Phase::{Draining, Invalidating, Live};
    assert!([Live, Invalidating, Draining].iter().all(|phase| seen.contains(phase)), "{seen:?}");
}
