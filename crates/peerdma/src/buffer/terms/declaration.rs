//! What an importer says of itself.

use super::super::{Control, Enforcement, Lifetime};
use super::offer::{Methods, Place};
use crate::access::Prot;
use crate::addr::Granule;
use crate::dma::Initiator;
use alloc::string::String;
use alloc::string::ToString;

/// In how many pieces an importer takes a buffer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub enum Contiguity {
    /// In any number.
    #[default]
    Scattered,
    /// In one, as its device sees it: what an IOMMU puts together will do.
    AsSeen,
    /// In one range of one owner.
    OneRange,
}

impl Contiguity {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Scattered => "scattered",
            Self::AsSeen => "as_seen",
            Self::OneRange => "one_range",
        }
    }
}

/// What an importer says of itself when it attaches: what it needs, and what it can live with.
///
/// What is not said is taken to be the harder: an importer that says nothing of revocation crashes on
/// one and takes pinned memory alone, one that says nothing of peers takes no device memory, and nobody
/// is sure that it lets go. It reaches the buffer in one way at least; a device, if there is one,
/// brings its mask, its segments and the state of its interface along.
///
/// ```
/// use peerdma::access::Prot;
/// use peerdma::buffer::terms::{Declaration, Methods};
/// use peerdma::buffer::{Enforcement, Lifetime};
/// use peerdma::dma::Initiator;
/// use peerdma::topology::IommuMode;
///
/// let nic = Initiator::new("nic", IommuMode::Translated).with_mask_bits(48);
/// let declaration = Declaration::of_device(nic, Prot::ReadWrite)
///     .taking(Lifetime::Revocable)
///     .taking_peer_memory()
///     .enforced(Enforcement::Cooperative);
/// assert_eq!(declaration.methods(), Methods::DMA);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Declaration {
    pub(super) name: String,
    pub(super) device: Option<Initiator>,
    pub(super) methods: Methods,
    pub(super) prot: Prot,
    pub(super) takes: Lifetime,
    pub(super) peers: bool,
    pub(super) place: Option<Place>,
    pub(super) contiguity: Contiguity,
    pub(super) alignment: Option<Granule>,
    pub(super) granule: Granule,
    pub(super) same_guest: bool,
    pub(super) control: Control,
    pub(super) enforcement: Enforcement,
}

impl Declaration {
    /// A device that maps the buffer for DMA.
    pub fn of_device(device: Initiator, prot: Prot) -> Self {
        Self { device: Some(device.clone()), ..Self::of(device.name(), Methods::DMA, prot) }
    }

    /// A process that maps the buffer for its CPU. `name` is what refusals call it.
    pub fn of_process(name: &str, prot: Prot) -> Self {
        Self::of(name, Methods::CPU, prot)
    }

    /// Tables that take page frames and no addresses of a device: a virtual machine's second stage, an
    /// I/O address space that serves whatever hangs on it. `name` is what refusals call it.
    pub fn of_tables(name: &str, prot: Prot) -> Self {
        Self::of(name, Methods::FRAMES, prot)
    }

    fn of(name: &str, methods: Methods, prot: Prot) -> Self {
        Self {
            name: name.to_string(),
            device: None,
            methods,
            prot,
            takes: Lifetime::Pinned,
            peers: false,
            place: None,
            contiguity: Contiguity::default(),
            alignment: None,
            granule: Granule::PAGE_4K,
            same_guest: false,
            control: Control::Use,
            enforcement: Enforcement::None,
        }
    }

    /// Also reaches it by a CPU.
    #[must_use]
    pub fn and_by_cpu(mut self) -> Self {
        self.methods |= Methods::CPU;
        self
    }

    /// Also takes page frames.
    #[must_use]
    pub fn and_by_frames(mut self) -> Self {
        self.methods |= Methods::FRAMES;
        self
    }

    /// The least promise that it can live with; it takes every better one too.
    #[must_use]
    pub fn taking(mut self, least: Lifetime) -> Self {
        self.takes = least;
        self
    }

    /// Its device takes memory of other devices (Linux 7.2 `allow_peer2peer`).
    #[must_use]
    pub fn taking_peer_memory(mut self) -> Self {
        self.peers = true;
        self
    }

    /// Where it wants the memory; the exporter moves it there before it is mapped, or refuses.
    #[must_use]
    pub fn wanting(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// In how many pieces it takes the buffer.
    #[must_use]
    pub fn in_pieces(mut self, contiguity: Contiguity) -> Self {
        self.contiguity = contiguity;
        self
    }

    /// Every range has to begin and end at a multiple of this.
    #[must_use]
    pub fn aligned_to(mut self, alignment: Granule) -> Self {
        self.alignment = Some(alignment);
        self
    }

    /// The smallest page of the tables that it fills, where that is not 4 KiB.
    #[must_use]
    pub fn with_granule(mut self, granule: Granule) -> Self {
        self.granule = granule;
        self
    }

    /// Belongs to the confidential guest whose memory is offered.
    #[must_use]
    pub fn of_same_guest(mut self) -> Self {
        self.same_guest = true;
        self
    }

    /// Wants to change cache attributes, keys or ownership, and not only to use.
    #[must_use]
    pub fn in_full(mut self) -> Self {
        self.control = Control::Full;
        self
    }

    /// Who sees to it that it lets go.
    #[must_use]
    pub fn enforced(mut self, by: Enforcement) -> Self {
        self.enforcement = by;
        self
    }

    /// What refusals call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The device, where there is one.
    pub fn device(&self) -> Option<&Initiator> {
        self.device.as_ref()
    }

    /// In which ways it reaches the buffer.
    pub fn methods(&self) -> Methods {
        self.methods
    }
}
