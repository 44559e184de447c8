//! An importer's standing with one buffer after another: attached, told, gone.

use super::exporter::Exporter;
use super::field::Field;
use super::importer::{Ears, News, shown};
use super::party::Broken;
use super::witness::Stamp;
use peerdma::addr::Bytes;
use peerdma::buffer::shared::{AttachError, Attachment, Holder, Mapped, Receipt};
use peerdma::buffer::terms::{Declaration, Rule};
use peerdma::dma::Peers;
use std::sync::Arc;

/// What an importer has mapped.
#[derive(Debug)]
pub struct Use {
    /// The buffer's own record of it; what is mapped by it may be in use until this is dropped.
    pub mapped: Mapped,
    /// Where it lies.
    pub field: Field,
    /// What it writes.
    pub stamp: Stamp,
}

impl Use {
    /// Whether it may be written; a permission may have been taken back since its importer attached.
    pub fn writes(&self) -> bool {
        self.mapped.prot().writes()
    }
}

/// Where an importer stands.
#[derive(Debug)]
pub struct Membership {
    name: String,
    writer: u16,
    declaration: Declaration,
    /// Whether it goes on to the next buffer where the terms are not for it.
    pub choosy: bool,
    ears: Arc<Ears>,
    must_let_go: bool,
    gone: bool,
    seat: Option<Attachment>,
    /// Which of the exporter's buffers it has attached to, or is about to.
    number: usize,
    /// Times that terms were not for it.
    pub refused: u64,
}

impl Membership {
    /// One that is attached to nothing; `writer` is its number in what it writes.
    pub fn new(name: &str, writer: u16, declaration: Declaration) -> Self {
        Self {
            name: name.to_string(),
            writer,
            declaration,
            choosy: false,
            ears: Ears::new(),
            must_let_go: false,
            gone: false,
            seat: None,
            number: 0,
            refused: 0,
        }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which of the exporter's buffers it has attached to, or is about to.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The attachment, if there is one.
    pub fn seat(&self) -> Option<&Attachment> {
        self.seat.as_ref()
    }

    /// Whether it has heard that it must not use what it maps.
    pub fn must_let_go(&self) -> bool {
        self.must_let_go || self.gone
    }

    /// Hears the next thing that it was told. A notice to let go is answered when what is returned is dropped.
    pub fn listen(&mut self) -> Option<Receipt> {
        match self.ears.next()? {
            News::LetGo(receipt) => {
                self.must_let_go = true;
                return Some(receipt);
            }
            News::MayMap(receipt) => {
                self.must_let_go = false;
                receipt.noted();
            }
            News::Gone => self.gone = true,
        }
        None
    }

    /// Attaches where it has not. One with nothing mapped leaves when the buffer is gone, and now and then for no
    /// reason, with notices that it has not answered. Answers whether it is attached.
    ///
    /// # Errors
    /// [`Broken::Refused`]: by terms, and it is not [`choosy`](Self::choosy).
    pub fn join(
        &mut self,
        random: &mut fastrand::Rng,
        has_mapped: bool,
        exporter: &Exporter,
        peers: &Peers<'_>,
    ) -> Result<bool, Broken> {
        if !has_mapped && (self.gone || random.u8(..100) == 0) {
            (self.seat, self.ears) = (None, Ears::new());
            (self.must_let_go, self.gone) = (false, false);
            self.number = random.usize(..exporter.buffers().max(1));
        }
        let Some(offered) = exporter.offered(self.number) else { return Ok(false) };
        if self.seat.is_none() {
            let holder = Holder::here(&self.name);
            match offered.buffer.attach(&self.declaration, peers, holder, self.ears.clone()) {
                Ok(seat) => self.seat = Some(seat),
                // The buffer is about to be gone; there will be another.
                Err(AttachError::Life(_)) => {}
                // A permission was taken back, and a newcomer is offered what is left; there are other buffers.
                Err(AttachError::Terms(refusal))
                    if self.choosy || refusal.rule == Rule::ProtNotOffered && !offered.buffer.permitted().writes() =>
                {
                    self.refused += 1;
                    self.number = random.usize(..exporter.buffers().max(1));
                }
                Err(error) => return Err(self.refused(&error.to_string())),
            }
        }
        Ok(self.seat.is_some())
    }

    /// Maps the buffer, if it may be mapped.
    ///
    /// # Errors
    /// [`Broken::Refused`]: what was mapped is not what its exporter says.
    pub fn map(&self, exporter: &Exporter) -> Result<Option<Use>, Broken> {
        let offered = exporter.offered(self.number);
        let (Some(Ok(mapped)), Some(offered)) = (self.seat.as_ref().map(Attachment::map), offered) else {
            return Ok(None);
        };
        let field =
            shown(offered.fields, mapped.ranges()).ok_or_else(|| self.refused("no field is where the buffer is"))?;
        // The exporter's word, and not what memory says of the place that was mapped: that is what it judges.
        let epoch = offered.epoch.ok_or_else(|| self.refused("the buffer may be mapped and its memory is closed"))?;
        Ok(Some(Use { mapped, field: field.clone(), stamp: Stamp { writer: self.writer, epoch } }))
    }

    /// An error of this importer.
    pub fn refused(&self, why: &str) -> Broken {
        Broken::Refused { who: self.name.clone(), why: why.to_string() }
    }

    /// Whether the bytes of a part of the field are all this stamp.
    ///
    /// # Errors
    /// [`Broken::Lost`]: some are not.
    pub fn all_there(&self, field: &Field, stamp: Stamp, (at, len): (Bytes, Bytes)) -> Result<(), Broken> {
        let bytes = field.bytes();
        let (at, len) = (at.as_u64() as usize, len.as_u64() as usize);
        let bytes = bytes.get(at..at + len).unwrap_or_default();
        let word = stamp.word().to_le_bytes();
        match bytes.chunks_exact(8).filter(|found| **found != word).count() {
            0 => Ok(()),
            missing => Err(Broken::Lost { who: self.name.clone(), missing }),
        }
    }
}
