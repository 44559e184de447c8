//! From what is said here to what is settled, and back.

use super::codes::Carrier;
use super::message::{Declare, Offer, Refusal, Terms};
use super::text::Text;
use crate::access::Prot;
use crate::addr::Bytes;
use crate::buffer::life::{AttachmentId, Phase};
use crate::buffer::terms::{self, Contiguity, Declaration, Methods};
use crate::buffer::{Control, Enforcement, Lifetime};
use crate::chunk::Chunks;
use crate::dma::{Initiator, Owner};
use crate::topology::IommuMode;
use alloc::string::ToString;

impl Declare {
    /// What a process says that maps the buffer for its CPU, and does not say when it has let go.
    ///
    /// Its fields say the rest; what is not said is taken to be the harder, as in [`Declaration`].
    pub fn of_process(name: &str, prot: Prot) -> Self {
        Self {
            name: Text::new(name),
            methods: Methods::CPU,
            prot,
            takes: Lifetime::Pinned,
            enforcement: Enforcement::None,
            control: Control::Use,
            contiguity: Contiguity::Scattered,
            mask_bits: 0,
            iommu: IommuMode::None,
        }
    }

    /// The same, as it is held against an offer.
    ///
    /// A session lets nothing through that reaches the memory in no way, or by a device of which nothing is told.
    pub fn declaration(&self) -> Declaration {
        let name = self.name.as_str();
        let mut said = if self.methods.contains(Methods::DMA) {
            Declaration::of_device(Initiator::new(name, self.iommu).with_mask_bits(self.mask_bits), self.prot)
        } else if self.methods.contains(Methods::CPU) {
            Declaration::of_process(name, self.prot)
        } else {
            Declaration::of_tables(name, self.prot)
        };
        if self.methods.contains(Methods::CPU) {
            said = said.and_by_cpu();
        }
        if self.methods.contains(Methods::FRAMES) {
            said = said.and_by_frames();
        }
        if self.control == Control::Full {
            said = said.in_full();
        }
        said.taking(self.takes).enforced(self.enforcement).in_pieces(self.contiguity)
    }

    /// What is wrong with it in itself.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let device = self.mask_bits > 0;
        if self.methods.is_empty() {
            Some("it reaches the memory in no way")
        } else if self.methods.contains(Methods::DMA) != device || self.mask_bits > 64 {
            Some("a device has 1 to 64 address bits, and nobody else has any")
        } else {
            None
        }
    }
}

/// What an exporter says of itself besides where its memory lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Export {
    /// The buffer's name, for people.
    pub name: Text<64>,
    /// What importers may do with it at most.
    pub prot: Prot,
    /// What may happen to it.
    pub stays: terms::Stays,
    /// The ways in which it can be reached.
    pub methods: Methods,
    /// The least enforcement that is accepted.
    pub floor: Enforcement,
    /// The most enforcement that memory of its sort can have.
    pub strongest: Enforcement,
    /// Whether one importer at a time may have it in full.
    pub control: Control,
}

impl Export {
    /// What is negotiated about.
    ///
    /// # Errors
    /// As [`terms::Offer::new`].
    pub fn offer(&self, ranges: Chunks<Owner>, place: terms::Place) -> Result<terms::Offer, terms::OfferError> {
        let offer = terms::Offer::new(ranges, self.stays, place)?
            .permitting(self.methods)
            .with_prot(self.prot)
            .with_floor(self.floor);
        Ok(if self.control == Control::Full { offer.in_full() } else { offer })
    }

    /// What importers are told of it; `control` is what can be had just now.
    pub fn told(&self, size: Bytes, place: terms::Place, control: Control) -> Offer {
        Offer {
            name: self.name.clone(),
            size,
            prot: self.prot,
            stays: self.stays,
            methods: self.methods,
            place,
            floor: self.floor,
            strongest: self.strongest,
            control,
        }
    }
}

impl Terms {
    /// What was settled, as the importer is told it; the memory is the descriptor's bytes from the second half of `lies` on.
    pub fn of(
        settled: &terms::Terms,
        attachment: AttachmentId,
        size: Bytes,
        phase: Phase,
        lies: (Carrier, Bytes),
    ) -> Self {
        Self {
            attachment,
            lifetime: settled.lifetime(),
            prot: settled.prot(),
            methods: settled.methods(),
            place: settled.place(),
            enforcement: settled.enforcement(),
            control: settled.control(),
            size,
            phase,
            carrier: lies.0,
            start: lies.1,
        }
    }
}

impl Refusal {
    /// A refusal by the rules of negotiation, as the importer is told it.
    pub fn of(refusal: &terms::Refusal) -> Self {
        Self::by(refusal.rule.word(), &refusal.to_string())
    }

    /// A refusal for a reason of the exporter's own.
    pub fn by(rule: &str, why: &str) -> Self {
        Self { rule: Text::new(rule), why: Text::new(why) }
    }
}
