//! When and where faults strike, and that a seed decides it.

use super::faults::BOTH;
use super::*;
use crate::faults::{Fault, Plan, Spot, When};

/// What of a long write arrives while writes are dropped by a plan.
fn arrived(delivery: Delivery, plan: impl Fn(Plan) -> Plan) -> (Vec<u8>, u64) {
    let bench = bench(delivery, 1);
    let armed = bench.arm(plan(Plan::new(Fault::DropWrites).at(Spot::Node(bench.ports[1]))));
    let bytes = bench.write(0, 1, 8, 128 * 64);
    (bytes.chunks(128).map(|packet| packet[0]).collect(), bench.disarm(armed))
}

#[test]
fn chance_strikes_single_packets_of_a_long_write_as_its_seed_says() {
    for delivery in BOTH {
        let run = |seed| arrived(delivery, |plan| plan.when(When::OneIn(4)).seed(seed));
        let (packets, strikes) = run(5);
        let lost = packets.iter().filter(|packet| **packet == 0).count();
        assert!((5..30).contains(&lost) && lost as u64 == strikes, "{lost} {strikes}");
        assert_eq!(run(5), (packets.clone(), strikes));
        assert_ne!(run(6).0, packets);
    }
}

#[test]
fn a_plan_begins_after_so_many_requests_and_ends_after_so_many_strikes() {
    for delivery in BOTH {
        let (packets, strikes) = arrived(delivery, |plan| plan.when(When::AfterRequests(10)).times(3));
        // The last packet waits, and is moved when all others have arrived.
        let expected = [vec![8; 10], vec![0; 3], vec![8; 51]].concat();
        assert_eq!((packets, strikes), (expected, 3));
    }
}

#[test]
fn a_plan_begins_after_so_many_steps() {
    let bench = bench(Delivery::Queued, 1);
    let armed = bench.arm(Plan::new(Fault::BarOff).at(Spot::Node(bench.devices[1])).when(When::AfterSteps(3)));
    for before in [0, 0, 1, 1] {
        bench.port(0).write(How::default(), Bench::at(1, 0), &[1]).unwrap();
        bench.machine.step();
        assert_eq!(bench.machine.armed()[0].strikes, before);
    }
    assert_eq!(bench.disarm(armed), 1);
}

#[test]
fn what_changes_the_machine_by_chance_does_so_at_a_request() {
    let when = |seed| {
        let bench = bench(Delivery::Queued, 1);
        bench.arm(Plan::new(Fault::D3).at(Spot::Node(bench.devices[1])).when(When::OneIn(20)).seed(seed));
        (0..1000_u64).find(|_| bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; 4]).is_err())
    };
    assert!(when(1).is_some() && when(1) == when(1));
    assert!((0..20).any(|seed| when(seed) != when(1)));
}

#[test]
fn a_seed_chooses_a_place_on_the_way_and_no_other() {
    let bench = bench(Delivery::Queued, 1);
    let (from, to) = (bench.devices[0], bench.devices[1]);
    let chosen = |fault, seed| {
        let id = bench.machine.arm(Plan::new(fault).between(from, to).seed(seed)).unwrap();
        bench.machine.disarm(id).unwrap().spot
    };
    let way = [from, bench.ports[0], bench.ports[1], to].map(Spot::Node);
    let spots: Vec<Spot> = (0..40).map(|seed| chosen(Fault::DropWrites, seed)).collect();
    assert!(spots.iter().all(|spot| way.contains(spot)) && way.iter().all(|spot| spots.contains(spot)));
    assert_eq!(chosen(Fault::MirrorBar, 9), Spot::Node(to));
    assert_eq!(chosen(Fault::AllOnes, 9), Spot::Host(HostId::new(0)));
}

#[test]
fn every_place_on_the_way_drops_what_passes_it() {
    for seed in 0..20 {
        let bench = bench(Delivery::Queued, seed);
        let plan = Plan::new(Fault::DropWrites).between(bench.devices[0], bench.devices[1]).seed(seed);
        bench.arm(plan);
        assert_eq!(bench.write(0, 1, 8, 5000), vec![0; 5000], "{:?}", bench.machine.armed());
    }
}

#[test]
fn interrupts_come_as_before_while_something_is_armed() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        bench.arm(Plan::new(Fault::DropWrites).at(Spot::Node(bench.ports[0])));
        bench.port(0).write(How::default(), BusAddr::new(0xfee0_1000), &0x41_u32.to_le_bytes()).unwrap();
        assert!(bench.machine.settle(100));
        let expected = Interrupt { from: Some(bench.devices[0]), at: BusAddr::new(0xfee0_1000), data: 0x41 };
        assert_eq!(bench.machine.take_interrupts(), [expected]);
    }
}

#[test]
fn faults_strike_beside_devices_in_threads_and_nobody_waits_for_ever() {
    let bench = bench(Delivery::AtOnce, 1);
    bench.machine.with_threads(|| {
        std::thread::scope(|scope| {
            for device in 0..3_usize {
                let bench = &bench;
                scope.spawn(move || {
                    let mut port = bench.port(device);
                    for round in 0..200_u64 {
                        let peer = (device as u64 + 1 + round % 2) % 3;
                        let _ = port.write(How::default(), Bench::at(peer, 0x100), &[1; 5000]);
                        let _ = port.read(How::default(), Bench::at(peer, 0x100), &mut [0; 5000]);
                    }
                });
            }
            for seed in 0..40 {
                for &fault in Fault::ALL {
                    if let Ok(id) = bench.machine.arm(Plan::new(fault).seed(seed).when(When::OneIn(3))) {
                        std::thread::yield_now();
                        bench.machine.disarm(id);
                    }
                }
            }
        });
    });
    assert_eq!(bench.machine.armed(), []);
}

/// How many requests a long read is, by the log: one for a stroke, one for each packet else.
fn requests(bench: &Bench, from: usize, to: u64) -> usize {
    bench.machine.log().take();
    let mut bytes = [0; 64 << 10];
    bench.port(from).read(How::default(), Bench::at(to, 0), &mut bytes).unwrap();
    let sent = |event: &&Event| matches!(event.what, Happened::Sent { .. });
    bench.machine.log().take().iter().filter(sent).count()
}

#[test]
fn long_transfers_go_in_strokes_where_nothing_that_is_armed_can_strike_them() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        bench.machine.log().keep(true);
        let alone = requests(&bench, 0, 2);
        let armed = |plan: Plan, from, to| {
            let id = bench.arm(plan);
            let count = requests(&bench, from, to);
            bench.machine.disarm(id);
            count
        };
        let there = Spot::Node(bench.devices[1]);
        // In packets to where it may strike, and in strokes beside it.
        for fault in [Fault::DeadReads, Fault::BitFlip, Fault::LateCompletion, Fault::MirrorBar] {
            let plan = Plan::new(fault).at(there).when(When::OneIn(1 << 20)).seed(1);
            assert!(armed(plan, 0, 1) > 8 * alone, "{fault}");
            assert_eq!(armed(plan, 0, 2), alone, "{fault}");
            assert!(armed(Plan::new(fault).at(there).when(When::AfterRequests(1 << 20)), 0, 2) > 8 * alone, "{fault}");
        }
        // Writes are dropped, and reads are none.
        assert_eq!(armed(Plan::new(Fault::DropWrites).at(there), 0, 1), alone);
        // What may yet change the machine counts every request; what has is over.
        assert!(armed(Plan::new(Fault::D3).at(there).when(When::OneIn(1 << 20)), 0, 2) > 8 * alone);
        assert_eq!(armed(Plan::new(Fault::D3).at(there).when(When::AfterSteps(1 << 20)), 0, 2), alone);
        assert_eq!(armed(Plan::new(Fault::D3).at(there), 0, 2), alone);
    }
}
