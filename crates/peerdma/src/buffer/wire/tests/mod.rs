//! Bytes against the table, sessions against each other, and all of it around a life.

mod bytes;
mod document;
mod order;
mod together;

use super::*;
use crate::access::Prot;
use crate::addr::Bytes;
use crate::buffer::life::{AttachmentId, Phase};
use crate::buffer::terms::{Contiguity, Methods, Place, Stays};
use crate::buffer::{Control, Enforcement, Lifetime};
use crate::topology::IommuMode;

/// An offer of memory that may be taken away.
fn offer() -> Offer {
    Offer {
        name: Text::new("memfd"),
        size: Bytes::new(1 << 20),
        prot: Prot::ReadWrite,
        stays: Stays::UNTIL_REVOKED,
        methods: Methods::CPU,
        place: Place::Ram,
        floor: Enforcement::None,
        strongest: Enforcement::Cooperative,
        control: Control::Full,
    }
}

/// What an importer with a CPU mapping declares.
fn declare() -> Declare {
    Declare {
        name: Text::new("importer"),
        methods: Methods::CPU,
        prot: Prot::ReadWrite,
        takes: Lifetime::Revocable,
        enforcement: Enforcement::Cooperative,
        control: Control::Use,
        contiguity: Contiguity::Scattered,
        mask_bits: 0,
        iommu: IommuMode::None,
    }
}

/// What comes of the two.
fn terms(attachment: AttachmentId) -> Terms {
    Terms {
        attachment,
        lifetime: Lifetime::Revocable,
        prot: Prot::ReadWrite,
        methods: Methods::CPU,
        place: Place::Ram,
        enforcement: Enforcement::Cooperative,
        control: Control::Use,
        size: Bytes::new(1 << 20),
        phase: Phase::Live,
        carrier: Carrier::Memfd,
        start: Bytes::ZERO,
    }
}

/// Carries what one side has to say to the other; what the other makes of it.
fn to_importer(from: &mut ExporterSession, to: &mut ImporterSession) -> Option<Result<Heard, Violation>> {
    let message = from.outgoing()?.clone();
    from.sent();
    Some(to.receive(&message.encode(), message.descriptors().count()))
}

/// The same the other way.
fn to_exporter(from: &mut ImporterSession, to: &mut ExporterSession) -> Option<Result<Said, Violation>> {
    let message = from.outgoing()?.clone();
    from.sent();
    Some(to.receive(&message.encode(), message.descriptors().count()))
}

/// Both sides after terms were settled, with nothing under way; `None` if they did not get there.
fn attached() -> Option<(ExporterSession, ImporterSession)> {
    let (mut exporter, mut importer) = (ExporterSession::new(), ImporterSession::new());
    to_exporter(&mut importer, &mut exporter)?.ok()?;
    exporter.offer(offer()).ok()?;
    to_importer(&mut exporter, &mut importer)?.ok()?;
    to_importer(&mut exporter, &mut importer)?.ok()?;
    importer.declare(declare()).ok()?;
    to_exporter(&mut importer, &mut exporter)?.ok()?;
    exporter.settle(terms(AttachmentId::new(1))).ok()?;
    to_importer(&mut exporter, &mut importer)?.ok()?;
    Some((exporter, importer))
}
