//! Pairs of ways, and what each asks for.

use super::*;
use crate::access::Prot;
use crate::addr::{BusAddr, Bytes, Iova, PhysAddr};

const DRIVE: FunctionId = FunctionId::at_index(1);
const GPU: FunctionId = FunctionId::at_index(2);

fn leg(address: DeviceAddress, end: End) -> Leg {
    let behind = if end == End::Memory { Behind::Memory } else { Behind::Mmio };
    let snooped = end == End::Memory;
    let len = Bytes::new(64);
    Leg::of(&Span { at: Bytes::ZERO, address, len, behind, snooped, prot: Prot::ReadWrite, bounced: false })
        .ending_at(end)
}

fn iova(end: End) -> Leg {
    leg(DeviceAddress::Iova(Iova::new(0x1000)), end)
}

fn bus(end: End) -> Leg {
    leg(DeviceAddress::Bus { address: BusAddr::new(0x1000), bridge: None }, end)
}

fn steps(payload: &Leg, doorbell: &Leg, sender: Sender) -> Vec<Step> {
    publish(payload, doorbell, sender).iter().collect()
}

fn device(relaxed_payload: bool, relaxed_doorbell: bool, ats: bool) -> Sender {
    Sender::Device(Device { relaxed_payload, relaxed_doorbell, ats })
}

#[test]
fn one_way_to_one_end_needs_nothing() {
    let plain = Sender::device();
    for leg in [bus(End::Function(GPU)), iova(End::Function(GPU)), iova(End::Memory)] {
        assert!(publish(&leg, &leg, plain).is_nothing(), "{leg:?}");
    }
    let untranslated = leg(DeviceAddress::CpuPhysical(PhysAddr::new(0x1000)), End::Memory);
    assert!(publish(&iova(End::Memory), &untranslated, plain).is_nothing());
}

#[test]
fn two_ends_or_two_ways_to_one_end_need_a_read_of_the_payload() {
    let (gpu, drive) = (End::Function(GPU), End::Function(DRIVE));
    for (payload, doorbell) in [
        (iova(End::Memory), bus(drive)),
        (bus(gpu), iova(End::Memory)),
        (bus(gpu), bus(drive)),
        (iova(gpu), iova(drive)),
        (bus(gpu), iova(gpu)),
        (iova(End::Unknown), iova(End::Unknown)),
        (iova(End::Memory), bus(End::Unknown)),
    ] {
        assert_eq!(steps(&payload, &doorbell, Sender::device()), [Step::FlushByRead], "{payload:?} {doorbell:?}");
    }
}

#[test]
fn memory_behind_windows_is_up_although_its_address_is_a_bus_address() {
    assert!(publish(&bus(End::Memory), &iova(End::Memory), Sender::device()).is_nothing());
    assert_eq!(steps(&bus(End::Memory), &bus(End::Function(GPU)), Sender::device()), [Step::FlushByRead]);
}

#[test]
fn a_relaxed_doorbell_may_pass_its_payload_and_a_relaxed_payload_is_not_proved() {
    let (gpu, drive) = (bus(End::Function(GPU)), bus(End::Function(DRIVE)));
    assert_eq!(steps(&gpu, &gpu, device(false, true, false)), [Step::StrictDoorbell]);
    assert_eq!(steps(&gpu, &gpu, device(true, false, false)), [], "the passer's attribute counts");
    assert_eq!(steps(&gpu, &drive, device(false, true, false)), [Step::FlushByRead], "sent after the read");
    assert_eq!(steps(&gpu, &drive, device(true, false, false)), [Step::StrictPayload, Step::FlushByRead]);
    let unknown = bus(End::Unknown);
    assert_eq!(steps(&unknown, &drive, device(true, false, false)), [Step::StrictPayload, Step::FlushByRead]);
}

#[test]
fn with_ats_requests_for_a_peer_may_take_either_way() {
    let (ats, gpu) = (device(false, false, true), iova(End::Function(GPU)));
    assert_eq!(steps(&gpu, &gpu, ats), [Step::OneWay, Step::FlushByRead]);
    assert!(publish(&iova(End::Memory), &iova(End::Memory), ats).is_nothing(), "memory has one way");
    assert!(publish(&bus(End::Function(GPU)), &bus(End::Function(GPU)), ats).is_nothing());
}

#[test]
fn what_a_device_wrote_to_a_copy_or_past_the_caches_is_told_by_software() {
    let drive = bus(End::Function(DRIVE));
    let copy = Leg { bounced: true, ..iova(End::Memory) };
    assert_eq!(steps(&copy, &drive, Sender::device()), [Step::SyncForCpu, Step::RingBySoftware]);
    let unsnooped = Leg { snooped: false, ..iova(End::Memory) };
    let told = [Step::CacheInvalidate, Step::RingBySoftware];
    assert_eq!(steps(&unsnooped, &drive, Sender::device()), told);
    assert_eq!(steps(&unsnooped, &drive, device(true, true, false)), told, "software's doorbell is not relaxed");
    let both = Leg { snooped: false, ..copy };
    let all = [Step::CacheInvalidate, Step::SyncForCpu, Step::RingBySoftware];
    assert_eq!(steps(&both, &iova(End::Memory), Sender::device()), all);
}

#[test]
fn a_cpu_copies_then_cleans_then_drains_before_it_rings() {
    let (memory, drive) = (iova(End::Memory), bus(End::Function(DRIVE)));
    assert!(publish(&memory, &drive, Sender::cpu()).is_nothing(), "writel() orders earlier stores");
    let gathered = Sender::Cpu { payload: CpuMapping::WriteCombining };
    let worst = Leg { bounced: true, snooped: false, ..memory };
    assert_eq!(steps(&worst, &drive, gathered), [Step::SyncForDevice, Step::CacheClean, Step::StoreBarrier]);
    assert_eq!(steps(&memory, &memory, Sender::cpu()), [Step::StoreBarrier], "two stores to memory");
}

#[test]
fn a_cpu_flushes_a_payload_that_lies_in_another_device() {
    let (gpu, drive) = (bus(End::Function(GPU)), bus(End::Function(DRIVE)));
    let uncached = Sender::Cpu { payload: CpuMapping::Uncached };
    assert!(publish(&gpu, &gpu, uncached).is_nothing());
    assert_eq!(steps(&gpu, &drive, uncached), [Step::FlushByRead]);
    let gathered = Sender::Cpu { payload: CpuMapping::WriteCombining };
    assert_eq!(steps(&gpu, &gpu, gathered), [Step::StoreBarrier]);
    assert_eq!(steps(&gpu, &drive, gathered), [Step::StoreBarrier, Step::FlushByRead]);
}

#[test]
fn steps_of_several_spans_add_up_in_order_and_are_written_so() {
    let (memory, drive) = (iova(End::Memory), bus(End::Function(DRIVE)));
    let copy = Leg { bounced: true, ..memory };
    let of = |payload: &Leg| publish(payload, &drive, Sender::device());
    let both = of(&copy).and(of(&memory));
    assert_eq!(both.to_string(), "flush_by_read, then sync_for_cpu, then ring_by_software");
    assert_eq!(Publish::nothing().to_string(), "nothing");
    for (at, step) in Step::ALL.into_iter().enumerate() {
        assert_eq!(step as usize, at, "in order");
        assert!(!step.sentence().is_empty() && !step.citation().is_empty() && !step.code().is_empty());
    }
}
