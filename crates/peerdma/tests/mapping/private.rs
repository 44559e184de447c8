//! What rules of confidential computing refuse before anything is mapped.

use super::{LISTED, Machinery, chunk};
use peerdma::dma::confidential::{Interface, Rule};
use peerdma::dma::{Initiator, Owner, OwnerId, Peers, Reach, Refusal, Why};
use peerdma::topology::IommuMode;

fn why(answer: Result<peerdma::dma::Reached, Refusal>) -> Option<Rule> {
    match answer.err()?.why {
        Why::Confidential(rule) => Some(rule),
        other => panic!("{other:?}"),
    }
}

#[test]
fn private_memory_is_reached_by_an_interface_that_its_guest_accepted_and_by_no_other() {
    let private = chunk(Owner::Private(OwnerId::new(1)), 0, 0x1000).owner();
    let reach = |interface| {
        let initiator = Initiator::new("nic", IommuMode::Translated).with_interface(interface);
        why(Peers::none().reach(&initiator, private))
    };
    assert_eq!(reach(Interface::Run), None);
    for interface in [Interface::Plain, Interface::Unlocked, Interface::Locked, Interface::Error] {
        assert!(reach(interface).is_some(), "{interface}");
    }
}

/// Linux hands out bus addresses without any look at either interface.
#[test]
fn the_memory_of_a_running_interface_is_out_of_reach_across_a_switch_unless_a_stream_is_bound_or_it_is_open() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let Owner::Bar { function, .. } = machine.near() else { panic!("no BAR") };
    let plain = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let running = plain.clone().with_interface(Interface::Run);
    let mut peers = machine.peers();
    assert_eq!(why(peers.reach(&plain, machine.near())), None);
    peers.state_interface(function, Interface::Run);
    assert!(why(peers.reach(&plain, machine.near())).is_some());
    assert_eq!(why(peers.reach(&running, machine.near())), Some(Rule::NoPeerStream));
    peers.state_stream(function, machine.initiator());
    assert!(matches!(peers.reach(&running, machine.near()).unwrap().reach, Reach::Bus { .. }));
    peers.state_foreign_interface(function, Interface::Run);
    assert!(why(peers.reach(&running, machine.near())).is_some(), "another guest's");
    peers.state_open(machine.near());
    assert_eq!(why(peers.reach(&plain, machine.near())), None);
}
