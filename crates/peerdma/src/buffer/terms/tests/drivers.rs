//! Offers and declarations of Linux' drivers, pair by pair, against what comes of the pairs there.

use super::*;
use crate::pcie::Fact;
use crate::route::compat::{self, Class, Exporter, Importer, Memory, Outcome};

fn offer(exporter: Exporter) -> Option<Offer> {
    let (ranges, place) = match exporter {
        Exporter::Udmabuf | Exporter::DmaHeap => (ranges(MEMFD, &[(0, PAGE)]), Place::Ram),
        _ => (ranges(DEVICE, &[(0, PAGE)]), VRAM),
    };
    let offer = Offer::of_driver(exporter, ranges, place).ok()?;
    Some(match exporter {
        Exporter::Amdgpu | Exporter::Xe => offer.or_at(Place::Ram, Owner::Ram),
        _ => offer,
    })
}

/// The one difference: what Linux moves without a word has to be asked for here.
#[test]
fn every_pair_of_linux_drivers_comes_out_as_there_but_for_the_silent_move() {
    let mut known = 0;
    for &exporter in Exporter::ALL {
        for &importer in Importer::ALL {
            let Fact::Known(outcome) = compat::outcome(None, exporter, importer) else {
                assert_eq!(offer(exporter), None, "{}", exporter.name());
                continue;
            };
            known += 1;
            let pair = format!("{} to {}", exporter.name(), importer.name());
            let offer = offer(exporter).unwrap();
            let mut declaration = Declaration::of_driver(importer, nic(), Prot::ReadWrite);
            if let Outcome::Works { memory: Memory::MovedToSystem, .. } = outcome {
                assert_eq!(rule(&offer, &declaration), Some(Rule::PeerNotTaken), "{pair}");
                declaration = declaration.wanting(Place::Ram);
            }
            match (outcome, negotiate(&offer, &declaration, &peers())) {
                (Outcome::Refused { .. }, Err(_)) => {}
                (Outcome::Works { memory, lifetime, .. }, Ok(terms)) => {
                    let place = match memory {
                        Memory::Device | Memory::DeviceIfAllTakeIt => VRAM,
                        Memory::System | Memory::MovedToSystem => Place::Ram,
                    };
                    assert_eq!(terms.place(), place, "{pair}");
                    let expected = match lifetime {
                        compat::Lifetime::Pinned => Lifetime::Pinned,
                        // irdma could let go, and the exporter of pinned memory never asks it to.
                        compat::Lifetime::UntilRevokedForGood if exporter != Exporter::Vfio => Lifetime::Pinned,
                        compat::Lifetime::UntilRevoked | compat::Lifetime::UntilRevokedForGood => Lifetime::Revocable,
                        compat::Lifetime::UntilMoved => Lifetime::Movable,
                    };
                    assert_eq!(terms.lifetime(), expected, "{pair}");
                }
                (outcome, settled) => panic!("{pair}: {outcome:?}, and here {settled:?}"),
            }
        }
    }
    assert_eq!(known, 5 * Importer::ALL.len());
}

#[test]
fn vfio_refuses_by_name_who_cannot_let_go_and_who_takes_no_peer_memory() {
    let vfio = offer(Exporter::Vfio).unwrap();
    for &importer in Importer::ALL {
        let expected = match importer.class() {
            Class::Static | Class::Pinned => Some(Rule::Revoked),
            Class::MovableInSystemMemory => Some(Rule::PeerNotTaken),
            Class::PinnedRevocable | Class::Movable => None,
        };
        let declaration = Declaration::of_driver(importer, nic(), Prot::ReadWrite);
        assert_eq!(rule(&vfio, &declaration), expected, "{}", importer.name());
    }
}

#[test]
fn iommufd_takes_frames_in_one_range() {
    let iommufd = Declaration::of_driver(Importer::Iommufd, nic(), Prot::ReadWrite);
    for exporter in [Exporter::Udmabuf, Exporter::DmaHeap, Exporter::Amdgpu, Exporter::Xe] {
        assert_eq!(rule(&offer(exporter).unwrap(), &iommufd), Some(Rule::MethodNotOffered), "{}", exporter.name());
    }
    let two = ranges(DEVICE, &[(0, PAGE), (2 * PAGE, PAGE)]);
    let two = Offer::of_driver(Exporter::Vfio, two, VRAM).unwrap();
    assert_eq!(rule(&two, &iommufd), Some(Rule::Pieces));
}

#[test]
fn a_gpu_buffer_stays_in_the_device_as_long_as_somebody_pins_it_there() {
    let mut gpu = offer(Exporter::Amdgpu).unwrap();
    let efa = Declaration::of_driver(Importer::Efa, nic(), Prot::ReadWrite);
    let terms = negotiate(&gpu, &efa, &peers()).unwrap();
    assert_eq!((terms.pin(), terms.place(), terms.moved_from()), (Some(VRAM), VRAM, None));
    gpu.add_pin(AttachmentId::new(7));

    let camera = Declaration::of_driver(Importer::V4l2, nic(), Prot::ReadWrite).wanting(Place::Ram);
    let refusal = negotiate(&gpu, &camera, &peers()).unwrap_err();
    assert_eq!(refusal.rule, Rule::HeldInPlace);
    assert!(refusal.to_string().contains("pins of attachment 7 hold the buffer in device memory"), "{refusal}");
    gpu.remove_pin(AttachmentId::new(7));
    let terms = negotiate(&gpu, &camera, &peers()).unwrap();
    assert_eq!((terms.pin(), terms.moved_from()), (Some(Place::Ram), Some(VRAM)));
}
