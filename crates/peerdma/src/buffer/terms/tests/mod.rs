//! What comes of offers and declarations.

mod document;
mod drivers;
mod gates;
mod lifetimes;
mod places;
mod whatever;

use super::*;
use crate::access::{MemAttrs, Prot};
use crate::addr::{Bytes, Granule};
use crate::chunk::{Chunk, Chunks};
use crate::dma::{Initiator, Owner, OwnerId, Peers, Reach};
use crate::topology::IommuMode;

use super::super::Enforcement;
use super::super::life::AttachmentId;
use super::super::pins::RegionId;

const VRAM: Place = Place::Device(RegionId::new(0));
const DEVICE: Owner = Owner::Device(OwnerId::new(1));
const MEMFD: Owner = Owner::Memfd(OwnerId::new(2));
const PAGE: u64 = 0x1000;

/// Ranges of one owner: offset and length of each.
fn ranges(owner: Owner, parts: &[(u64, u64)]) -> Chunks<Owner> {
    list(&parts.iter().map(|(offset, len)| (owner, *offset, *len)).collect::<Vec<_>>())
}

fn list(parts: &[(Owner, u64, u64)]) -> Chunks<Owner> {
    let mut chunks = Chunks::new();
    for (owner, offset, len) in parts {
        let attrs = if owner.is_mmio() { MemAttrs::MMIO } else { MemAttrs::empty() };
        let chunk = Chunk::new(*owner, Bytes::new(*offset), Bytes::new(*len), attrs);
        chunks.push(chunk.expect("not empty")).expect("short");
    }
    chunks
}

/// A page of a memfd that stays.
fn memfd() -> Offer {
    Offer::new(ranges(MEMFD, &[(0, PAGE)]), Stays::ALWAYS, Place::Ram).expect("a page")
}

/// A page of a device's memory, for peers.
fn vram(stays: Stays) -> Offer {
    Offer::new(ranges(DEVICE, &[(0, PAGE)]), stays, VRAM).expect("a page").to_peers().or_at(Place::Ram, Owner::Ram)
}

fn nic() -> Initiator {
    Initiator::new("nic", IommuMode::Translated)
}

/// The device of [`DEVICE`] is reached by IOVA.
fn peers() -> Peers<'static> {
    let mut peers = Peers::none();
    peers.state(DEVICE, Reach::Iova);
    peers
}

/// The rule that stands against it.
fn rule(offer: &Offer, declaration: &Declaration) -> Option<Rule> {
    negotiate(offer, declaration, &peers()).err().map(|refusal| refusal.rule)
}
