//! A refusal is a completion, and comes back as every completion does.

use super::*;
use crate::device::How;

const MEMORY: u32 = 1;
const BUS_MASTER: u32 = 2;
const SOURCE_VALIDATION: u16 = 1 << 0;
const COMPLETION_REDIRECT: u16 = 1 << 3;
const UPSTREAM_FORWARDING: u16 = 1 << 4;
/// Lengths of a read of one packet, of several, and of a stroke.
const LENGTHS: [usize; 3] = [4, 1000, 10_000];

/// What device 0 is told of reads of device 1, which takes none.
fn told(prepare: impl Fn(&Bench)) -> Vec<Failure> {
    LENGTHS
        .into_iter()
        .map(|len| {
            let bench = bench(Delivery::Queued, 1);
            bench.disable(bench.devices[1], MEMORY);
            prepare(&bench);
            bench.port(0).read(How::default(), Bench::at(1, 0), &mut vec![0; len]).unwrap_err()
        })
        .collect()
}

#[test]
fn a_refusal_comes_back_like_data_and_is_seen() {
    assert_eq!(told(|_| {}), [Failure::UnsupportedRequest; 3]);
}

#[test]
fn a_refusal_that_a_port_turns_back_without_upstream_forwarding_is_a_timeout() {
    let redirected = |forwards: u16| {
        told(move |bench| {
            bench.set_acs(bench.ports[1], COMPLETION_REDIRECT);
            bench.set_acs(bench.root, forwards);
        })
    };
    assert_eq!(redirected(0), [Failure::Timeout; 3]);
    assert_eq!(redirected(UPSTREAM_FORWARDING), [Failure::UnsupportedRequest; 3]);
}

#[test]
fn a_refusal_that_bus_numbers_do_not_lead_back_is_a_timeout() {
    assert_eq!(told(|bench| bench.set_buses(bench.ports[0], 2, 9, 9)), [Failure::Timeout; 3]);
}

/// Bus Master Enable and Memory Space Enable of a port are about requests (PCIe 6.0 §7.5.1.1.3).
#[test]
fn no_enable_of_a_port_stops_a_refusal() {
    assert_eq!(told(|bench| bench.disable(bench.ports[1], BUS_MASTER)), [Failure::UnsupportedRequest; 3]);
    assert_eq!(told(|bench| bench.disable(bench.ports[0], MEMORY)), [Failure::UnsupportedRequest; 3]);
    // Redirected, it passes every port up to the root port, and comes down again.
    let redirected = |bench: &Bench| {
        bench.set_acs(bench.ports[1], COMPLETION_REDIRECT);
        bench.set_acs(bench.root, UPSTREAM_FORWARDING);
        bench.disable(bench.root, BUS_MASTER);
        bench.disable(bench.root, MEMORY);
    };
    assert_eq!(told(redirected), [Failure::UnsupportedRequest; 3]);
}

#[test]
fn a_port_that_finds_a_violation_answers_to_the_name_in_the_request() {
    let read = |prepare: &dyn Fn(&Bench)| {
        let bench = bench(Delivery::Queued, 1);
        prepare(&bench);
        bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; 4]).unwrap_err()
    };
    // Egress control blocks everything across, and the port below which the requester is answers.
    let blocked = |bench: &Bench| {
        bench.set_acs(bench.ports[0], 1 << 5);
        let config = bench.machine.fabric().tree().config(bench.ports[0]);
        let (_, vector) = config.acs_control_at().unwrap();
        vector.for_each(|word| {
            bench.machine.cpu().config_write(bench.ports[0], word, crate::config::Width::Four, u32::MAX);
        });
    };
    assert_eq!(read(&blocked), Failure::CompleterAbort);
    // Here it is a violation because the name is none of the buses below, where the answer would have to go.
    let misnamed = |bench: &Bench| {
        bench.set_acs(bench.ports[0], SOURCE_VALIDATION);
        bench.set_buses(bench.ports[0], 2, 9, 9);
    };
    assert_eq!(read(&misnamed), Failure::Timeout);
}

#[test]
fn what_is_refused_inside_the_root_complex_and_on_the_way_down_is_told_too() {
    let bench = bench(Delivery::Queued, 1);
    let nowhere = BusAddr::new(1 << 40);
    assert_eq!(bench.port(0).read(How::default(), nowhere, &mut [0; 4]), Err(Failure::UnsupportedRequest));
    let load = |at: u64| bench.machine.cpu().try_load(PhysAddr::new(at), &mut [0; 4]);
    assert_eq!(load(BAR + 3 * STEP), Err(Failure::UnsupportedRequest), "a hole in the switch");
    assert_eq!(load(BAR + 0x0f00_0000), Err(Failure::UnsupportedRequest), "nobody on the root bus");
    bench.machine.set_present(bench.devices[1], false);
    assert_eq!(load(BAR + STEP), Err(Failure::UnsupportedRequest), "nothing below the port");
}

#[test]
fn a_refusal_pushes_what_its_completer_wrote_before() {
    for seed in 0..20 {
        let bench = bench(Delivery::Queued, seed);
        bench.disable(bench.devices[1], MEMORY);
        bench.port(1).write(How::default(), Bench::at(0, 0), &[7; 8]).unwrap();
        bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; 4]).unwrap_err();
        assert_eq!(bench.holds(0, 0, 8), [7; 8]);
    }
}

#[test]
fn both_ends_of_a_lost_refusal_are_counted() {
    let bench = bench(Delivery::Queued, 1);
    bench.disable(bench.devices[1], MEMORY);
    bench.set_acs(bench.ports[1], COMPLETION_REDIRECT);
    bench.machine.log().keep(true);
    bench.port(0).read(How::default(), Bench::at(1, 0), &mut [0; 4]).unwrap_err();
    let (request, completion) = (Ending::Unsupported(bench.devices[1]), Ending::Undefined(bench.root));
    assert_eq!(bench.machine.counts(), [(request, 1), (completion, 1)].into());
    let what: Vec<Happened> = bench.machine.log().take().into_iter().map(|event| event.what).collect();
    assert!(what.contains(&Happened::CompletionEnded(completion)));
    assert_eq!(what.last(), Some(&Happened::Failed(Failure::Timeout)));
}
