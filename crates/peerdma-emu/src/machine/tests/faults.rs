//! Each fault by name: what arrives without it, and what hardware shows with it.

use super::*;
use crate::config::{Detected, Width};
use crate::faults::{ArmError, Damage, Fault, FaultId, Plan, Spot};
use crate::host::{DeviceCaches, DomainSpace, For, SpaceOptions};
use crate::iommu::{Cached, DomainId};
use crate::platform::Platform;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::Iova;
use peerdma::dma::{IoSpace, Source};

pub(super) const BOTH: [Delivery; 2] = [Delivery::Queued, Delivery::AtOnce];
/// Of one packet, and of many.
const LENGTHS: [usize; 2] = [100, 10_000];

impl Bench {
    pub(super) fn arm(&self, plan: Plan) -> FaultId {
        self.machine.log().keep(true);
        self.machine.arm(plan).unwrap()
    }

    /// Writes so many bytes of a value from one device to another and says what is there then.
    pub(super) fn write(&self, from: usize, to: usize, value: u8, len: usize) -> Vec<u8> {
        self.port(from).write(How::default(), Bench::at(to as u64, 0), &vec![value; len]).unwrap();
        assert!(self.machine.settle(100_000));
        self.holds(to, 0, len)
    }

    fn read(&self, from: usize, to: usize, len: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; len];
        self.port(from).read(How::default(), Bench::at(to as u64, 0), &mut bytes).map(|()| bytes)
    }

    /// Ends a fault, and compares what it counted with the log.
    pub(super) fn disarm(&self, id: FaultId) -> u64 {
        let armed = self.machine.disarm(id).unwrap();
        let word = armed.fault.word();
        let logged = self.machine.log().take().iter().filter(|event| event.what == Happened::Struck(word)).count();
        assert_eq!(armed.strikes, logged as u64, "{word}");
        assert!(self.machine.disarm(id).is_none());
        armed.strikes
    }

    fn counted(&self, ending: Ending) -> bool {
        self.machine.counts().contains_key(&ending)
    }
}

#[test]
fn all_ones_are_what_peers_read_through_the_root_complex_and_writes_end_there() {
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        let bench = bench(delivery, 1);
        bench.set_acs(bench.ports[0], 0x04);
        bench.set_acs(bench.root, 0x10);
        assert_eq!(bench.write(0, 1, 7, len), vec![7; len]);
        assert_eq!(bench.read(0, 1, len).unwrap(), vec![7; len]);
        let host = HostId::new(0);
        let armed = bench.arm(Plan::new(Fault::AllOnes).between(bench.devices[0], bench.devices[1]));
        assert_eq!(bench.write(0, 1, 8, len), vec![7; len]);
        assert_eq!(bench.read(0, 1, len).unwrap(), vec![0xff; len]);
        assert_eq!(bench.write(2, 1, 9, len), vec![9; len], "which stays below the switch");
        assert!(bench.disarm(armed) >= 2 && bench.counted(Ending::NotForwarded(host)));
        assert_eq!(bench.write(0, 1, 8, len), vec![8; len]);
    }
}

#[test]
fn dropped_writes_are_those_of_peers_and_nobody_is_told() {
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        for spot in [0, 1].map(|port: usize| move |bench: &Bench| bench.ports[port]) {
            let bench = bench(delivery, 1);
            assert_eq!(bench.write(0, 1, 7, len), vec![7; len]);
            let armed = bench.arm(Plan::new(Fault::DropWrites).at(Spot::Node(spot(&bench))));
            assert_eq!(bench.write(0, 1, 8, len), vec![7; len]);
            assert_eq!(bench.read(0, 1, len).unwrap(), vec![7; len]);
            bench.port(0).write(How::default(), BusAddr::new(0x1000), &vec![5; len]).unwrap();
            bench.machine.cpu().store(PhysAddr::new(BAR + STEP), &[6; 8]);
            bench.machine.settle(100_000);
            let mut ram = vec![0; len];
            bench.ram.read(Bytes::new(0x1000), &mut ram).unwrap();
            assert_eq!((ram, bench.holds(1, 0, 8)), (vec![5; len], vec![6; 8]), "memory and processors are no peers");
            assert!(bench.disarm(armed) > 0 && bench.counted(Ending::Lost(spot(&bench))));
            assert_eq!(bench.write(0, 1, 8, len), vec![8; len]);
        }
    }
}

#[test]
fn a_write_that_waits_while_the_fault_is_armed_is_dropped_too() {
    let bench = bench(Delivery::Queued, 1);
    bench.port(0).write(How::default(), Bench::at(1, 0), &[7; 8]).unwrap();
    bench.arm(Plan::new(Fault::DropWrites).at(Spot::Node(bench.ports[0])));
    bench.machine.settle(100);
    assert_eq!(bench.holds(1, 0, 8), [0; 8]);
}

#[test]
fn dead_reads_time_out_while_writes_arrive() {
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        let bench = bench(delivery, 1);
        assert_eq!(bench.read(0, 1, len).unwrap(), vec![0; len]);
        let armed = bench.arm(Plan::new(Fault::DeadReads).at(Spot::Node(bench.devices[1])));
        assert_eq!(bench.read(0, 1, len), Err(Failure::Timeout));
        assert_eq!(bench.write(0, 1, 8, len), vec![8; len]);
        assert_eq!(bench.port(0).read(How::default(), BusAddr::new(0), &mut vec![0; len]), Ok(()));
        assert!(bench.disarm(armed) > 0 && bench.counted(Ending::Lost(bench.devices[1])));
        assert_eq!(bench.read(0, 1, len).unwrap(), vec![8; len]);
    }
}

#[test]
fn a_mirror_reads_back_what_the_device_never_sees() {
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        let bench = bench(delivery, 1);
        assert_eq!(bench.write(0, 1, 7, len), vec![7; len]);
        let armed = bench.arm(Plan::new(Fault::MirrorBar).at(Spot::Node(bench.devices[1])));
        assert_eq!(bench.write(0, 1, 8, len), vec![7; len]);
        assert_eq!(bench.read(2, 1, len).unwrap(), vec![8; len], "another sees it too, and so proves nothing");
        assert_eq!(bench.write(0, 2, 3, len), vec![3; len]);
        assert!(bench.disarm(armed) > 0);
        assert_eq!(bench.read(2, 1, len).unwrap(), vec![7; len]);
    }
}

#[test]
fn access_control_that_is_switched_on_sends_requests_up_or_ends_them_and_stays() {
    let mut ends = [false; 2];
    for seed in 0..8 {
        let bench = bench(Delivery::Queued, 1);
        assert_eq!(bench.write(0, 1, 7, 10_000), vec![7; 10_000]);
        let plan = Plan::new(Fault::AcsChange).between(bench.devices[0], bench.devices[1]).seed(seed);
        let armed = bench.arm(plan);
        assert_eq!(bench.machine.armed()[0].spot, Spot::Node(bench.ports[0]));
        assert_eq!(bench.write(0, 1, 8, 10_000), vec![7; 10_000]);
        assert_eq!(bench.disarm(armed), 1);
        assert_eq!(bench.write(0, 1, 8, 10_000), vec![7; 10_000], "registers stay as they were written");
        let redirected = bench.counted(Ending::Undefined(bench.root));
        assert!(redirected != bench.counted(Ending::Violation(bench.ports[0])));
        ends[usize::from(redirected)] = true;
    }
    assert_eq!(ends, [true; 2]);
}

#[test]
fn a_card_that_was_pulled_sends_and_takes_nothing_more() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        let armed = bench.arm(Plan::new(Fault::SurpriseRemoval).at(Spot::Node(bench.devices[1])));
        assert_eq!(bench.write(0, 1, 8, 10_000), vec![0; 10_000]);
        assert_eq!(bench.read(0, 1, 4), Err(Failure::UnsupportedRequest));
        let to_memory = bench.port(1).write(How::default(), BusAddr::new(0), &[1]);
        assert_eq!((to_memory, bench.disarm(armed)), (Err(Failure::NotSent), 1));
        assert!(bench.counted(Ending::LinkDown(bench.ports[1])));
        bench.machine.set_present(bench.devices[1], true);
        assert_eq!(bench.write(0, 1, 8, 10_000), vec![8; 10_000]);
    }
}

#[test]
fn a_sender_that_is_pulled_in_the_middle_of_a_transfer_has_sent_its_beginning() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        let plan = Plan::new(Fault::SurpriseRemoval).at(Spot::Node(bench.devices[0]));
        bench.arm(plan.when(crate::faults::When::AfterRequests(10)));
        let arrived = bench.write(0, 1, 8, 10_000);
        let len = arrived.iter().take_while(|byte| **byte == 8).count();
        assert_eq!((len, &arrived[len..]), (10 * 128, &[0; 10_000 - 1280][..]));
    }
}

#[test]
fn a_bar_that_is_off_a_sleeping_function_and_one_that_was_reset_answer_nothing() {
    for fault in [Fault::BarOff, Fault::D3, Fault::Reset] {
        for delivery in BOTH {
            let bench = bench(delivery, 1);
            assert_eq!(bench.write(0, 1, 7, 10_000), vec![7; 10_000]);
            let armed = bench.arm(Plan::new(fault).at(Spot::Node(bench.devices[1])));
            assert_eq!(bench.write(0, 1, 8, 10_000), vec![7; 10_000], "{fault}: memory keeps its bytes");
            assert_eq!(bench.read(0, 1, 8), Err(Failure::UnsupportedRequest));
            let sends = bench.port(1).write(How::default(), BusAddr::new(0), &[1]);
            assert_eq!(sends.is_ok(), fault == Fault::BarOff, "{fault}");
            assert_eq!(bench.disarm(armed), 1);
            assert_eq!(bench.read(0, 1, 8), Err(Failure::UnsupportedRequest), "{fault}: nobody wrote the registers");
        }
    }
}

#[test]
fn a_completion_that_is_late_is_a_timeout_and_then_unexpected() {
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        let bench = bench(delivery, 1);
        bench.write(0, 1, 7, len);
        let armed = bench.arm(Plan::new(Fault::LateCompletion).at(Spot::Node(bench.ports[1])));
        let mut bytes = vec![1; len];
        let read = bench.port(0).read(How::default(), Bench::at(1, 0), &mut bytes);
        assert_eq!((read, bytes), (Err(Failure::Timeout), vec![1; len]), "what comes late is nobody's");
        assert!(bench.counted(Ending::Unexpected(bench.devices[0])));
        let mut word = [0; 4];
        bench.machine.cpu().load(PhysAddr::new(BAR + STEP), &mut word);
        assert_eq!(word, [0xff; 4], "processors wait no longer");
        assert_eq!(bench.write(0, 1, 8, len), vec![8; len]);
        assert_eq!(bench.disarm(armed), 2);
        assert_eq!(bench.read(0, 1, len).unwrap(), vec![8; len]);
    }
}

#[test]
fn stray_bytes_land_where_nobody_sent_them() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        let victim = BusAddr::new(0x5_0000);
        let armed = bench.arm(Plan::new(Fault::StrayWrite).at(Spot::Node(bench.devices[2])).to(victim));
        bench.machine.settle(100);
        let mut bytes = [0; 8];
        bench.ram.read(Bytes::new(0x5_0000), &mut bytes).unwrap();
        assert_ne!(bytes, [0; 8]);
        assert_eq!(bench.disarm(armed), 1);
    }
    let address = |seed| {
        let bench = bench(Delivery::Queued, 1);
        bench.arm(Plan::new(Fault::StrayWrite).seed(seed));
        let log = bench.machine.log().take();
        log.iter().find_map(|event| match event.what {
            Happened::Sent { from, head } => Some((from, head.address)),
            _ => None,
        })
    };
    assert!(address(3).is_some() && address(3) == address(3) && address(3) != address(4));
}

#[test]
fn a_function_without_bus_mastering_strays_nowhere_and_counts_nothing() {
    let bench = bench(Delivery::Queued, 1);
    bench.machine.cpu().config_write(bench.devices[2], 4, Width::Two, 2);
    let armed = bench.arm(Plan::new(Fault::StrayWrite).at(Spot::Node(bench.devices[2])));
    assert_eq!(bench.disarm(armed), 0);
}

#[test]
fn a_bit_that_turns_arrives_silently_or_marked() {
    let turned = |bytes: &[u8], was: u8| bytes.iter().map(|byte| (byte ^ was).count_ones()).sum::<u32>();
    for (delivery, len) in BOTH.into_iter().flat_map(|delivery| LENGTHS.map(|len| (delivery, len))) {
        let bench = bench(delivery, 1);
        let plan = Plan::new(Fault::BitFlip).at(Spot::Node(bench.ports[0]));
        let armed = bench.arm(plan.times(1));
        assert_eq!(turned(&bench.write(0, 1, 7, len), 7), 1);
        assert_eq!(bench.disarm(armed), 1);
        bench.write(0, 1, 7, len);
        let armed = bench.arm(plan.times(1).seed(4));
        assert_eq!(turned(&bench.read(0, 1, len).unwrap(), 7), 1);
        assert_eq!(bench.disarm(armed), 1);

        let armed = bench.arm(plan.damage(Damage::Poisoned));
        assert_eq!(bench.write(0, 1, 8, len), vec![7; len], "poisoned data is not written");
        assert_eq!(bench.read(0, 1, len), Err(Failure::Poisoned));
        assert!(bench.disarm(armed) >= 2);
        for device in [0, 1] {
            let status = bench.machine.cpu().config_read(bench.devices[device], 6, Width::Two);
            assert_ne!(status & 1 << 15, 0, "{:?} is noted", Detected::Poisoned);
        }
    }
}

#[test]
fn a_payload_that_is_lowered_on_the_way_makes_packets_malformed() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        let tree = bench.machine.fabric().tree();
        for node in tree.ids() {
            let at = tree.config(node).device_control_at().unwrap();
            let control = tree.config(node).read(at, Width::Two);
            bench.machine.cpu().config_write(node, at, Width::Two, control & !0xe0 | 2 << 5);
        }
        assert_eq!(bench.write(0, 1, 7, 10_000), vec![7; 10_000]);
        let armed = bench.arm(Plan::new(Fault::Mps).at(Spot::Node(bench.ports[0])));
        assert_eq!(bench.write(0, 1, 8, 512), vec![7; 512]);
        assert!(bench.counted(Ending::Malformed(bench.ports[0])));
        assert_eq!(bench.write(0, 1, 8, 128), vec![8; 128], "short packets pass");
        assert_eq!(bench.disarm(armed), 1);
        assert_eq!(bench.write(0, 1, 9, 512)[..], [vec![8; 128], vec![7; 384]].concat());
    }
}

/// No device of these remembers translations.
struct Nobody;

impl DeviceCaches for Nobody {
    fn invalidate(&self, _: Cached, _: AddrRange<Iova>) {}
}

#[test]
fn an_invalidation_that_is_lost_leaves_the_old_way_open() {
    for lost in [false, true] {
        let platform = Platform::built_in("client").unwrap();
        let machine = Builder::new(&platform).build().unwrap();
        let node = machine.named("gpu0").unwrap();
        let iommu = machine.fabric().root().iommu().unwrap().clone();
        let tables = machine.tables().unwrap().clone();
        let options = SpaceOptions { whose: For::Device, ..SpaceOptions::default() };
        let mut space = DomainSpace::new(iommu, DomainId::new(900), tables, Arc::new(Nobody), &options).unwrap();
        space.attach(machine.fabric().tree().node(node).address);
        let iova = AddrRange::new(Iova::new(0x70_0000), Bytes::new(0x1000)).unwrap();
        let to = PhysAddr::new(0x40_0000);
        space.map(iova, &Source::Physical(to), Prot::ReadWrite, MemAttrs::empty()).unwrap();
        space.sync(iova);
        let write = |value: u8| {
            machine.port(node).write(How::default(), BusAddr::new(0x70_0000), &[value; 8]).unwrap();
            machine.settle(1000);
            let mut bytes = [0; 8];
            machine.cpu().load(to, &mut bytes);
            bytes
        };
        assert_eq!(write(7), [7; 8]);
        let armed = lost.then(|| machine.arm(Plan::new(Fault::LostInvalidation)).unwrap());
        space.unmap(iova).unwrap();
        assert_eq!(write(8), if lost { [8; 8] } else { [7; 8] });
        if let Some(armed) = armed {
            assert_eq!(machine.disarm(armed).map(|armed| (armed.strikes, armed.spot)), Some((1, Spot::Iommu)));
        }
    }
}

#[test]
fn what_needs_buffers_with_lifetimes_or_another_place_is_refused() {
    let bench = bench(Delivery::Queued, 1);
    for &fault in Fault::ALL {
        let refused = bench.machine.arm(Plan::new(fault));
        match refused {
            Err(ArmError::NeedsLifetimes { .. }) => assert!(fault.needs_lifetimes()),
            Err(ArmError::NoPlace { .. }) => {
                assert!(matches!(fault, Fault::LostInvalidation | Fault::Mps), "{fault}: no IOMMU, and 128 bytes");
            }
            _ => assert!(refused.is_ok() && !fault.needs_lifetimes(), "{fault}: {refused:?}"),
        }
    }
    let place = |fault, spot| bench.machine.arm(Plan::new(fault).at(spot));
    for (fault, spot) in [
        (Fault::AllOnes, Spot::Node(bench.ports[0])),
        (Fault::AllOnes, Spot::Host(HostId::new(1))),
        (Fault::AcsChange, Spot::Node(bench.devices[0])),
        (Fault::MirrorBar, Spot::Node(bench.ports[0])),
        (Fault::SurpriseRemoval, Spot::Node(bench.root)),
        (Fault::Reset, Spot::Node(NodeId::new(1000))),
    ] {
        assert!(matches!(place(fault, spot), Err(ArmError::WrongPlace { .. })), "{fault} {spot:?}");
    }
    let stranger = Plan::new(Fault::DropWrites).between(bench.devices[0], NodeId::new(1000));
    assert!(matches!(bench.machine.arm(stranger), Err(ArmError::NoPlace { .. })));
}
