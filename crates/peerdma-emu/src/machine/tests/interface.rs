//! A function's trusted interface: every state under every event, and who may reach what.

use super::faults::BOTH;
use super::*;
use crate::config::Width;
use crate::faults::{Fault, Plan, Spot};

#[test]
fn a_locked_interface_that_is_touched_from_outside_is_in_error_until_unlocked() {
    let bench = bench(Delivery::Queued, 1);
    let node = bench.devices[1];
    bench.machine.function(node).set_tdi(Some(TdiState::Unlocked));
    bench.machine.set_interface(node, TdiState::Locked).unwrap();
    bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 8]).unwrap();
    bench.machine.settle(100);
    assert_eq!((bench.machine.tdi(node), bench.holds(1, 0, 8)), (Some(TdiState::Error), vec![0; 8]));
    assert_eq!(bench.machine.set_interface(node, TdiState::Run), Err(InterfaceError::State(TdiState::Error)));
    bench.machine.set_interface(node, TdiState::Unlocked).unwrap();
    bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 8]).unwrap();
    bench.machine.settle(100);
    assert_eq!(bench.holds(1, 0, 8), [1; 8]);
}

#[test]
fn a_reset_or_a_moved_bar_breaks_a_locked_interface() {
    for moved in [false, true] {
        let bench = bench(Delivery::Queued, 1);
        let node = bench.devices[1];
        bench.machine.function(node).set_tdi(Some(TdiState::Unlocked));
        bench.machine.set_interface(node, TdiState::Locked).unwrap();
        match moved {
            true => bench.machine.cpu().config_write(node, 0x10, crate::config::Width::Four, 0xa000_0000),
            false => bench.machine.reset(node),
        }
        assert_eq!(bench.machine.tdi(node), Some(TdiState::Error));
    }
}

/// Everything that happens to an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    Lock,
    Run,
    Unlock,
    AskForError,
    SharedWrite,
    SharedRead,
    SharedLongWrite,
    SharedLoad,
    TrustedStore,
    TrustedLoad,
    Reset,
    ResetAbove,
    MovedBar,
    MemoryOff,
    MasterOff,
    Sleep,
    Pulled,
    SwitchPulled,
    OtherRegister,
    PeerReset,
}

const EVENTS: [Event; 20] = [
    Event::Lock,
    Event::Run,
    Event::Unlock,
    Event::AskForError,
    Event::SharedWrite,
    Event::SharedRead,
    Event::SharedLongWrite,
    Event::SharedLoad,
    Event::TrustedStore,
    Event::TrustedLoad,
    Event::Reset,
    Event::ResetAbove,
    Event::MovedBar,
    Event::MemoryOff,
    Event::MasterOff,
    Event::Sleep,
    Event::Pulled,
    Event::SwitchPulled,
    Event::OtherRegister,
    Event::PeerReset,
];

/// Lets an event happen; whether it was granted, where somebody is told.
fn happens(bench: &Bench, event: Event) -> Option<bool> {
    let (machine, node) = (&bench.machine, bench.devices[1]);
    let (at, word) = (PhysAddr::new(BAR + STEP), &mut [0; 4]);
    let write = |at, value| machine.cpu().config_write(node, at, Width::Two, value);
    let told = match event {
        Event::Lock => Some(machine.set_interface(node, TdiState::Locked).is_ok()),
        Event::Run => Some(machine.set_interface(node, TdiState::Run).is_ok()),
        Event::Unlock => Some(machine.set_interface(node, TdiState::Unlocked).is_ok()),
        Event::AskForError => Some(machine.set_interface(node, TdiState::Error).is_ok()),
        Event::SharedWrite => bench.port(0).write(How::default(), Bench::at(1, 0), &[1]).err().map(|_| false),
        Event::SharedLongWrite => bench.port(0).write(How::default(), Bench::at(1, 0), &[1; 9000]).err().map(|_| false),
        Event::SharedRead => Some(bench.port(0).read(How::default(), Bench::at(1, 0), word).is_ok()),
        Event::SharedLoad => Some(machine.cpu().try_load(at, word).is_ok()),
        Event::TrustedLoad => Some(machine.cpu().in_trusted_domain().try_load(at, word).is_ok()),
        Event::TrustedStore => {
            machine.cpu().in_trusted_domain().store(at, &[5; 4]);
            machine.settle(1000);
            Some(bench.holds(1, 0, 4) == [5; 4])
        }
        Event::Reset => {
            machine.reset(node);
            None
        }
        Event::ResetAbove => {
            machine.cpu().config_write(bench.root, 0x3e, Width::Two, 1 << 6);
            None
        }
        Event::MovedBar => {
            machine.cpu().config_write(node, 0x10, Width::Four, 0xa000_0000);
            None
        }
        Event::MemoryOff => {
            write(4, 4);
            None
        }
        Event::MasterOff => {
            write(4, 2);
            None
        }
        Event::Sleep => {
            bench.machine.arm(Plan::new(Fault::D3).at(Spot::Node(node))).unwrap();
            None
        }
        Event::Pulled => {
            machine.set_present(node, false);
            None
        }
        Event::SwitchPulled => {
            machine.set_present(bench.ports[1], false);
            None
        }
        // Parity errors are answered, which no interface depends on.
        Event::OtherRegister => {
            write(4, 0x46);
            None
        }
        Event::PeerReset => {
            machine.reset(bench.devices[2]);
            None
        }
    };
    assert!(machine.settle(10_000));
    told
}

/// What the specification and nothing here says (PCIe 6.0 §11.2.6, §11.3.8).
fn expected(state: TdiState, event: Event) -> (TdiState, Option<bool>) {
    use TdiState::{Error, Locked, Run, Unlocked};
    let guarded = matches!(state, Locked | Run);
    let broken = if guarded { Error } else { state };
    match event {
        Event::Lock if state == Unlocked => (Locked, Some(true)),
        Event::Run if state == Locked => (Run, Some(true)),
        Event::Unlock => (Unlocked, Some(true)),
        Event::Lock | Event::Run | Event::AskForError => (state, Some(false)),
        // Nobody is told what became of a write.
        Event::SharedWrite | Event::SharedLongWrite => (broken, None),
        Event::SharedRead | Event::SharedLoad => (broken, Some(state == Unlocked)),
        Event::TrustedStore | Event::TrustedLoad => (state, Some(state == Run)),
        Event::OtherRegister | Event::PeerReset => (state, None),
        _ => (broken, None),
    }
}

#[test]
fn every_state_under_every_event_is_the_one_that_the_specification_says() {
    for delivery in BOTH {
        for &state in TdiState::ALL {
            for event in EVENTS {
                let bench = bench(delivery, 1);
                bench.machine.function(bench.devices[1]).set_tdi(Some(state));
                let told = happens(&bench, event);
                let after = bench.machine.tdi(bench.devices[1]).unwrap();
                assert_eq!((after, told), expected(state, event), "{state} {event:?} {delivery:?}");
            }
        }
    }
}

#[test]
fn nothing_leaves_error_but_an_unlock() {
    for event in EVENTS {
        let bench = bench(Delivery::Queued, 1);
        bench.machine.function(bench.devices[1]).set_tdi(Some(TdiState::Error));
        happens(&bench, event);
        assert_eq!(bench.machine.tdi(bench.devices[1]) == Some(TdiState::Error), event != Event::Unlock, "{event:?}");
    }
}

#[test]
fn a_shared_write_to_a_locked_bar_leaves_no_byte() {
    for state in [TdiState::Locked, TdiState::Run, TdiState::Error] {
        for (delivery, len) in BOTH.into_iter().flat_map(|delivery| [8, 9000].map(|len| (delivery, len))) {
            let bench = bench(delivery, 1);
            bench.machine.function(bench.devices[1]).set_tdi(Some(state));
            assert_eq!(bench.write(0, 1, 1, len), vec![0; len]);
            assert!(bench.machine.counts().contains_key(&Ending::Refused(bench.devices[1])));
        }
    }
}

#[test]
fn the_t_bit_is_sent_from_an_interface_that_runs_and_from_no_other() {
    let trusted = How { trusted: true, ..How::default() };
    let states = TdiState::ALL.iter().copied().map(Some).chain([None]);
    for state in states {
        let bench = bench(Delivery::Queued, 1);
        bench.machine.function(bench.devices[0]).set_tdi(state);
        let sends = |how| bench.port(0).write(how, BusAddr::new(0x1000), &[1]).is_ok();
        assert_eq!(sends(trusted), state == Some(TdiState::Run), "{state:?}");
        assert_eq!(sends(How::default()), state != Some(TdiState::Error), "{state:?}");
    }
}

#[test]
fn interfaces_that_run_reach_each_other_and_memory() {
    for delivery in BOTH {
        let bench = bench(delivery, 1);
        for device in [0, 1] {
            bench.machine.function(bench.devices[device]).set_tdi(Some(TdiState::Run));
        }
        let trusted = How { trusted: true, ..How::default() };
        for at in [Bench::at(1, 0), BusAddr::new(0x1000)] {
            bench.port(0).write(trusted, at, &[9; 9000]).unwrap();
            bench.machine.settle(10_000);
            let mut bytes = [0; 9000];
            bench.port(0).read(trusted, at, &mut bytes).unwrap();
            assert_eq!(bytes, [9; 9000]);
        }
        assert_eq!(bench.machine.tdi(bench.devices[1]), Some(TdiState::Run));
        // A function without an interface takes nothing that carries the bit.
        assert_eq!(bench.port(0).read(trusted, Bench::at(2, 0), &mut [0; 4]), Err(Failure::UnsupportedRequest));
    }
}
