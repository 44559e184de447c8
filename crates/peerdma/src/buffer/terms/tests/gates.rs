//! One test for each rule, with the neighbour that passes.

use super::*;
use crate::addr::BusAddr;
use crate::dma::confidential::{self, Guest, Interface, MemoryKind};
use crate::dma::{Bouncing, SegmentLimit, Segments};

fn reads(device: Initiator) -> Declaration {
    Declaration::of_device(device, Prot::Read).taking_peer_memory()
}

/// Bus addresses from 4 GiB less a page on.
fn beside() -> Peers<'static> {
    let mut peers = Peers::none();
    peers.state(DEVICE, Reach::Bus { start: BusAddr::new(0xffff_f000), bridge: None });
    peers
}

fn refused(offer: &Offer, declaration: &Declaration, peers: &Peers<'_>) -> Option<(Rule, Evidence)> {
    negotiate(offer, declaration, peers).err().map(|refusal| (refusal.rule, refusal.evidence))
}

#[test]
fn memory_for_devices_alone_is_mapped_by_no_cpu_and_by_no_tables() {
    let offer = memfd();
    assert_eq!(rule(&offer, &reads(nic())), None);
    for declaration in [
        Declaration::of_process("viewer", Prot::Read),
        Declaration::of_tables("vm", Prot::Read),
        reads(nic()).and_by_cpu(),
        reads(nic()).and_by_frames(),
    ] {
        assert_eq!(rule(&offer, &declaration), Some(Rule::MethodNotOffered), "{declaration:?}");
    }
    let open = offer.permitting(Methods::all());
    let terms = negotiate(&open, &reads(nic()), &peers()).unwrap();
    assert_eq!(terms.methods(), Methods::DMA, "what was not asked for is not given");
}

#[test]
fn what_is_offered_for_reading_is_not_written() {
    let offer = memfd().with_prot(Prot::Read);
    assert_eq!(rule(&offer, &reads(nic())), None);
    for prot in [Prot::Write, Prot::ReadWrite] {
        assert_eq!(rule(&offer, &Declaration::of_device(nic(), prot)), Some(Rule::ProtNotOffered));
    }
    assert_eq!(rule(&memfd().with_prot(Prot::Write), &reads(nic())), Some(Rule::ProtNotOffered));
}

#[test]
fn the_second_who_wants_full_control_is_refused_and_told_who_has_it() {
    let wants = reads(nic()).in_full();
    assert_eq!(rule(&memfd(), &wants), Some(Rule::FullNotOffered));
    let mut offer = memfd().in_full();
    assert_eq!(negotiate(&offer, &wants, &peers()).unwrap().control(), Control::Full);
    offer.set_in_full(Some(AttachmentId::new(4)));
    let refusal = negotiate(&offer, &wants, &peers()).unwrap_err();
    assert_eq!(refusal.rule, Rule::FullHeld);
    assert!(refusal.to_string().contains("attachment 4 has the buffer in full"), "{refusal}");
    assert_eq!(rule(&offer, &reads(nic())), None, "who only uses it is not in the way");
}

#[test]
fn the_floor_of_enforcement_holds_in_every_combination() {
    for floor in Enforcement::ALL {
        for has in Enforcement::ALL {
            let answer = rule(&memfd().with_floor(floor), &reads(nic()).enforced(has));
            assert_eq!(answer, (has < floor).then_some(Rule::Unenforced), "{has} under {floor}");
        }
    }
}

#[test]
fn device_memory_takes_two_who_agree_and_a_device_needs_nobody_for_its_own() {
    let offer = |peers: bool| {
        let offer = Offer::new(ranges(DEVICE, &[(0, PAGE)]), Stays::ALWAYS, VRAM).unwrap();
        if peers { offer.to_peers() } else { offer }
    };
    let declaration = |takes: bool| {
        let declaration = Declaration::of_device(nic(), Prot::Read);
        if takes { declaration.taking_peer_memory() } else { declaration }
    };
    assert_eq!(rule(&offer(true), &declaration(true)), None);
    assert_eq!(rule(&offer(true), &declaration(false)), Some(Rule::PeerNotTaken));
    assert_eq!(rule(&offer(false), &declaration(true)), Some(Rule::PeerNotOffered));
    let cpu = Declaration::of_process("driver", Prot::Read);
    assert_eq!(rule(&offer(false).permitting(Methods::CPU), &cpu), None, "a processor is no peer");
}

#[test]
fn every_range_is_asked_and_not_the_first_alone() {
    let hidden = Owner::Device(OwnerId::new(77));
    let offer = Offer::new(list(&[(MEMFD, 0, PAGE), (DEVICE, 0, PAGE), (hidden, 0x3000, PAGE)]), Stays::ALWAYS, VRAM);
    let refusal = negotiate(&offer.unwrap().to_peers(), &reads(nic()), &peers()).unwrap_err();
    assert_eq!(refusal.rule, Rule::Route);
    assert!(refusal.is_unknown(), "nobody stated how it is reached");
    let range = refusal.range.unwrap();
    assert_eq!((range.owner(), range.offset()), (hidden, Bytes::new(0x3000)));
    assert!(refusal.to_string().contains("device 77 at offset 0x3000, 4 KiB"), "{refusal}");
}

#[test]
fn no_process_maps_private_memory_and_tables_of_its_guest_alone_do() {
    let private = [
        MemoryKind::PrivateRam,
        MemoryKind::Mmio(Interface::Locked),
        MemoryKind::Mmio(Interface::Run),
        MemoryKind::Mmio(Interface::Error),
    ];
    for memory in MemoryKind::ALL {
        let offer = memfd().permitting(Methods::CPU | Methods::FRAMES).with_memory(memory);
        let is_private = private.contains(&memory);
        let cpu = Declaration::of_process("viewer", Prot::Read);
        assert_eq!(rule(&offer, &cpu.of_same_guest()), is_private.then_some(Rule::PrivateToCpu), "{memory:?}");
        let vm = Declaration::of_tables("vm", Prot::Read);
        assert_eq!(rule(&offer, &vm), is_private.then_some(Rule::PrivateToOthers), "{memory:?}");
        assert_eq!(rule(&offer, &vm.of_same_guest()), None, "{memory:?}");
    }
}

#[test]
fn a_device_without_the_t_bit_does_not_attach_to_private_device_memory() {
    let offer = vram(Stays::ALWAYS).with_memory(MemoryKind::Mmio(Interface::Run));
    let evidence = Evidence::Confidential(confidential::Rule::PrivateMmio);
    assert_eq!(refused(&offer, &reads(nic()), &beside()), Some((Rule::Confidential, evidence)));
    let accepted = reads(nic().with_interface(Interface::Run));
    let evidence = Evidence::Confidential(confidential::Rule::AnotherGuest);
    assert_eq!(refused(&offer, &accepted, &beside()), Some((Rule::Confidential, evidence)));
    let evidence = Evidence::Confidential(confidential::Rule::NoPeerStream);
    assert_eq!(refused(&offer, &accepted.of_same_guest(), &beside()), Some((Rule::Confidential, evidence)));
}

#[test]
fn what_would_be_copied_and_cannot_be_does_not_attach() {
    let plain = Initiator::new("nic", IommuMode::None);
    let mut peers = Peers::none();
    peers.state(DEVICE, Reach::Physical);
    let forced = reads(plain.clone().with_bouncing(Bouncing::Forced));
    let (rule, evidence) = refused(&vram(Stays::ALWAYS), &forced, &peers).unwrap();
    assert_eq!(rule, Rule::Copies);
    assert!(evidence.to_string().contains("copies are forced"), "{evidence}");
    assert_eq!(refused(&memfd(), &forced, &peers), None, "memory is copied");
    // Nobody copies for a memory region that lives for long.
    let guests = plain.clone().in_guest(Guest::Tdx).with_bouncing(Bouncing::Never);
    assert_eq!(refused(&memfd(), &reads(guests), &peers).map(|(rule, _)| rule), Some(Rule::Copies));
    let unsnooped = nic().not_coherent().with_bouncing(Bouncing::Never);
    assert_eq!(refused(&memfd(), &reads(unsnooped.clone()), &peers), Some((Rule::Copies, Evidence::NotCoherent)));
    assert_eq!(refused(&vram(Stays::ALWAYS), &reads(unsnooped), &beside()), None, "nothing of it lies in caches");
}

#[test]
fn the_last_byte_of_every_range_of_device_memory_lies_below_the_mask() {
    let narrow = reads(nic().with_mask_bits(32));
    assert_eq!(refused(&vram(Stays::ALWAYS), &narrow, &beside()), None, "it ends at 4 GiB");
    let longer = Offer::new(ranges(DEVICE, &[(0, PAGE + 1)]), Stays::ALWAYS, VRAM).unwrap().to_peers();
    let refusal = negotiate(&longer, &narrow, &beside()).unwrap_err();
    assert_eq!(refusal.rule, Rule::Width);
    assert!(refusal.to_string().contains("0x100000000"), "{refusal}");
    let limited = reads(nic().with_bus_limit(0xffff_0000));
    assert_eq!(refused(&vram(Stays::ALWAYS), &limited, &beside()).map(|(rule, _)| rule), Some(Rule::Width));
    assert_eq!(refused(&vram(Stays::ALWAYS), &limited, &peers()), None, "an IOMMU puts it where there is room");
    let tiny = reads(nic().with_mask_bits(11));
    assert_eq!(refused(&vram(Stays::ALWAYS), &tiny, &peers()).map(|(rule, _)| rule), Some(Rule::Width));
}

#[test]
fn no_device_is_so_wide_that_it_reaches_past_the_last_address() {
    let beyond = Offer::new(ranges(DEVICE, &[(0, u64::MAX)]), Stays::ALWAYS, VRAM).unwrap().to_peers();
    assert_eq!(refused(&beyond, &reads(nic()), &beside()).map(|(rule, _)| rule), Some(Rule::Width));
}

#[test]
fn an_iommu_makes_whole_pages_one_and_nothing_else_does() {
    let one = |device| reads(device).in_pieces(Contiguity::AsSeen);
    let of = |parts: &[(u64, u64)]| Offer::new(ranges(MEMFD, parts), Stays::ALWAYS, Place::Ram).unwrap();
    let pages = of(&[(0x800, 0x800), (0x4000, 0x1000), (0x8000, 0x10)]);
    assert_eq!(rule(&pages, &one(nic())), None);
    assert_eq!(rule(&pages, &one(Initiator::new("nic", IommuMode::None))), Some(Rule::Pieces));
    assert_eq!(rule(&of(&[(0, 0x800), (0x4000, 0x1000)]), &one(nic())), Some(Rule::Pieces));
    assert_eq!(rule(&of(&[(0, 0x1000), (0x4800, 0x1000)]), &one(nic())), Some(Rule::Pieces));
    let large = Granule::new(Bytes::new(0x10000)).unwrap();
    assert_eq!(rule(&pages, &one(nic()).with_granule(large)), Some(Rule::Pieces));
    assert_eq!(rule(&pages, &reads(nic()).in_pieces(Contiguity::OneRange)), Some(Rule::Pieces));
    assert_eq!(rule(&pages, &reads(nic())), None);
}

#[test]
fn both_ends_of_every_range_are_aligned() {
    let unit = Granule::PAGE_4K;
    let of = |parts: &[(u64, u64)]| Offer::new(ranges(MEMFD, parts), Stays::ALWAYS, Place::Ram).unwrap();
    let asks = reads(nic()).aligned_to(unit);
    assert_eq!(rule(&of(&[(0, 0x1000), (0x4000, 0x2000)]), &asks), None);
    for (offset, len, at) in [(0x4800, 0x800, 0x4800), (0x4000, 0x800, 0x4800)] {
        let evidence = Evidence::Unaligned { at: Bytes::new(at), unit };
        assert_eq!(refused(&of(&[(0, 0x1000), (offset, len)]), &asks, &peers()), Some((Rule::Alignment, evidence)));
    }
}

#[test]
fn a_list_of_segments_holds_the_buffer_or_there_is_no_attachment() {
    let with = |segments| reads(nic().with_segments(segments));
    let none = Segments { most: Some(0), ..Segments::default() };
    let evidence = Evidence::Limit(SegmentLimit::Most);
    assert_eq!(refused(&memfd(), &with(none), &peers()), Some((Rule::Segments, evidence)));
    let pages = Offer::new(ranges(DEVICE, &[(0, PAGE), (2 * PAGE, PAGE), (4 * PAGE, PAGE)]), Stays::ALWAYS, VRAM);
    let pages = pages.unwrap().to_peers();
    let two = with(Segments { most: Some(2), ..Segments::default() });
    assert_eq!(refused(&pages, &two, &peers()), None, "an IOMMU puts them together");
    let evidence = Evidence::Segments { at_least: 3, most: 2 };
    assert_eq!(refused(&pages, &two, &beside()), Some((Rule::Segments, evidence)));
    let short = with(Segments { most: Some(2), longest: Some(Bytes::new(0x1400)), ..Segments::default() });
    let evidence = Evidence::Segments { at_least: 3, most: 2 };
    assert_eq!(refused(&pages, &short, &peers()), Some((Rule::Segments, evidence)));
}

#[test]
fn rules_are_asked_in_their_order() {
    // Everything is wrong with it.
    let mut offer = vram(Stays::UNTIL_REVOKED).with_prot(Prot::Write).with_floor(Enforcement::Kernel);
    let declaration = Declaration::of_device(nic(), Prot::Read).and_by_cpu().in_full();
    for expected in
        [Rule::MethodNotOffered, Rule::ProtNotOffered, Rule::FullNotOffered, Rule::Unenforced, Rule::Revoked]
    {
        assert_eq!(rule(&offer, &declaration), Some(expected));
        offer = match expected {
            Rule::MethodNotOffered => offer.permitting(Methods::all()),
            Rule::ProtNotOffered => offer.with_prot(Prot::ReadWrite),
            Rule::FullNotOffered => offer.in_full(),
            _ => offer.with_floor(Enforcement::None),
        };
    }
}
