//! What is refused when an importer attaches, on a machine with routes.

use super::{BAR, FAR, LISTED, Machinery, NEAR, UNLISTED, chunk};
use peerdma::access::Prot;
use peerdma::addr::Bytes;
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::terms::{Declaration, Evidence, Offer, Place, Refusal, Rule, Stays, Terms, negotiate};
use peerdma::chunk::Chunks;
use peerdma::dma::confidential::{Interface, MemoryKind};
use peerdma::dma::{Initiator, Owner, Peers, Why};
use peerdma::topology::{HostBridgeFacts, IommuMode, PeerForwarding};

fn offer(parts: &[(Owner, u64, u64)]) -> Offer {
    let chunks = parts.iter().map(|(owner, offset, len)| chunk(*owner, *offset, *len));
    let ranges = Chunks::collect_from(chunks).unwrap();
    Offer::new(ranges, Stays::ALWAYS, Place::Device(RegionId::new(0))).unwrap().to_peers()
}

fn attach(offer: &Offer, device: Initiator, peers: &Peers<'_>) -> Result<Terms, Refusal> {
    negotiate(offer, &Declaration::of_device(device, Prot::ReadWrite).taking_peer_memory(), peers)
}

fn rule(offer: &Offer, device: Initiator, peers: &Peers<'_>) -> Option<Rule> {
    attach(offer, device, peers).err().map(|refusal| refusal.rule)
}

#[test]
fn one_range_without_a_route_keeps_a_whole_buffer_from_being_attached() {
    let machine = Machinery::new(UNLISTED, IommuMode::Translated, false, 0);
    let device = Initiator::of(&machine.topology, machine.initiator()).unwrap();
    assert_eq!(rule(&offer(&[(machine.near(), 0, BAR)]), device.clone(), &machine.peers()), None);
    let both = offer(&[(machine.near(), 0, BAR), (machine.far(), 0x1000, 0x1000)]);
    let refusal = attach(&both, device, &machine.peers()).unwrap_err();
    assert_eq!((refusal.rule, refusal.range.unwrap().owner()), (Rule::Route, machine.far()));
    let Evidence::Route(route) = refusal.evidence else { panic!("{:?}", refusal.evidence) };
    assert_eq!(route.why, Why::Route);
    assert!(!route.reasons.is_empty(), "the chain of reasons comes along");
}

#[test]
fn the_address_that_will_be_handed_out_is_held_against_the_mask() {
    // Bus addresses across the switch, CPU-physical ones through the host bridge; the bus counts lower.
    let offset = 0x40_0000_0000;
    let machine = Machinery::new(LISTED, IommuMode::Identity, false, offset);
    let device = |bits| Initiator::of(&machine.topology, machine.initiator()).unwrap().with_mask_bits(bits);
    let (near, far) = (offer(&[(machine.near(), 0, BAR)]), offer(&[(machine.far(), 0, BAR)]));
    assert_eq!(rule(&near, device(32), &machine.peers()), None, "{:#x} on the bus", NEAR - offset);
    assert_eq!(rule(&near, device(31), &machine.peers()), Some(Rule::Width));
    assert_eq!(rule(&far, device(38), &machine.peers()), Some(Rule::Width), "{FAR:#x} for the host bridge");
    assert_eq!(rule(&far, device(39), &machine.peers()), None);
    let translated = Machinery::new(LISTED, IommuMode::Translated, false, offset);
    let device = Initiator::of(&translated.topology, translated.initiator()).unwrap().with_mask_bits(32);
    assert_eq!(rule(&offer(&[(translated.far(), 0, BAR)]), device, &translated.peers()), None, "an IOVA has room");
}

#[test]
fn a_range_ends_where_its_register_does_by_whichever_route() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let device = || Initiator::of(&machine.topology, machine.initiator()).unwrap();
    for owner in [machine.near(), machine.far()] {
        assert_eq!(rule(&offer(&[(owner, BAR - 0x1000, 0x1000)]), device(), &machine.peers()), None);
        let refusal = attach(&offer(&[(owner, BAR - 0x1000, 0x1001)]), device(), &machine.peers()).unwrap_err();
        assert_eq!((refusal.rule, &refusal.evidence), (Rule::Outside, &Evidence::End(Bytes::new(BAR))));
    }
}

#[test]
fn a_root_complex_that_forwards_writes_alone_takes_importers_that_write() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let mut builder = machine.topology.to_builder();
    let peer = Some(PeerForwarding::WritesOnly);
    builder.host_bridge(0, 0, HostBridgeFacts { peer, ..HostBridgeFacts::default() });
    let topology = builder.build().with_machine(machine.topology.machine().clone());
    let device = || Initiator::of(&topology, machine.initiator()).unwrap();
    let (far, peers) = (offer(&[(machine.far(), 0, BAR)]), Peers::of(&topology));
    let with = |prot| negotiate(&far, &Declaration::of_device(device(), prot).taking_peer_memory(), &peers);
    assert!(with(Prot::Write).is_ok());
    for prot in [Prot::Read, Prot::ReadWrite] {
        let refusal = with(prot).unwrap_err();
        assert_eq!(refusal.rule, Rule::Direction);
        assert!(refusal.to_string().contains("map it for writing only"), "{refusal}");
    }
}

#[test]
fn a_device_needs_no_leave_of_peers_for_its_own_register() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let ranges = Chunks::collect_from([chunk(machine.near(), 0, BAR)]).unwrap();
    let alone = Offer::new(ranges, Stays::ALWAYS, Place::Device(RegionId::new(0))).unwrap();
    let Owner::Bar { function, .. } = machine.near() else { panic!("no BAR") };
    let of = |function| Declaration::of_device(Initiator::of(&machine.topology, function).unwrap(), Prot::ReadWrite);
    let own = negotiate(&alone, &of(function), &machine.peers()).err().map(|refusal| refusal.rule);
    assert!(!matches!(own, Some(Rule::PeerNotOffered | Rule::PeerNotTaken)), "{own:?}");
    let others = negotiate(&alone, &of(machine.initiator()), &machine.peers()).unwrap_err();
    assert_eq!(others.rule, Rule::PeerNotOffered);
}

/// The exporter knows first that its interface was locked; what others stated counts beside its word.
#[test]
fn a_private_register_goes_to_its_guest_s_interfaces_on_a_bound_stream_and_to_no_others() {
    let machine = Machinery::new(LISTED, IommuMode::Translated, false, 0);
    let Owner::Bar { function, .. } = machine.near() else { panic!("no BAR") };
    let private = offer(&[(machine.near(), 0, BAR)]).with_memory(MemoryKind::Mmio(Interface::Run));
    let plain = || Initiator::of(&machine.topology, machine.initiator()).unwrap();
    let with = |device: Initiator, peers: &Peers<'_>| {
        let declaration = Declaration::of_device(device, Prot::ReadWrite).taking_peer_memory().of_same_guest();
        negotiate(&private, &declaration, peers).err().map(|refusal| refusal.rule)
    };
    let mut peers = machine.peers();
    assert_eq!(with(plain(), &peers), Some(Rule::Confidential), "its requests carry no T");
    peers.state_interface(function, Interface::Run);
    peers.state_stream(function, machine.initiator());
    assert_eq!(with(plain().with_interface(Interface::Run), &peers), None);
    peers.state_foreign_interface(function, Interface::Run);
    assert_eq!(with(plain().with_interface(Interface::Run), &peers), Some(Rule::Confidential));
}
