//! Why an attachment does not come about.

use super::super::life::AttachmentId;
use super::super::{Control, Enforcement, Lifetime};
use super::declaration::Contiguity;
use super::offer::{Methods, Place, Stays};
use super::rule::Rule;
use crate::access::Prot;
use crate::addr::{Bytes, Granule};
use crate::chunk::Chunk;
use crate::dma::confidential::{self, MemoryKind};
use crate::dma::engine::error::{AddressNumber, WhyBounce};
use crate::dma::{self, Owner, SegmentLimit};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// Why an importer is not attached: the rule, what broke it, and what to do.
///
/// Nothing has changed on either side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The rule.
    pub rule: Rule,
    /// The importer.
    pub importer: String,
    /// The range on which it broke, where it is a matter of one.
    pub range: Option<Chunk<Owner>>,
    /// What broke it.
    pub evidence: Evidence,
}

/// What broke a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Evidence {
    /// Ways to reach the memory.
    Methods {
        /// What the importer needs.
        needed: Methods,
        /// What the exporter permits.
        offered: Methods,
    },
    /// Directions.
    Prot {
        /// What the importer wants to do.
        asked: Prot,
        /// What the exporter permits.
        offered: Prot,
    },
    /// What the exporter hands over.
    Control(Control),
    /// Attachments that stand in the way.
    Held {
        /// Whose.
        by: Vec<AttachmentId>,
        /// Where they hold the memory, if they do.
        at: Option<Place>,
    },
    /// Enforcement.
    Enforcement {
        /// What the importer's path has.
        has: Enforcement,
        /// The least that the exporter accepts.
        floor: Enforcement,
    },
    /// A row of the table of lifetimes.
    Lifetime {
        /// What the memory does.
        stays: Stays,
        /// The least promise that the importer can live with.
        takes: Lifetime,
    },
    /// Places.
    Place {
        /// Where the importer wants it.
        asked: Place,
        /// Where the exporter puts it.
        offered: Vec<Place>,
    },
    /// Memory of this owner is a device's.
    DeviceMemory(Owner),
    /// The memory is a guest's, in this state.
    Private(MemoryKind),
    /// What the table of confidential computing says.
    Confidential(confidential::Rule),
    /// Where the owner ends.
    End(Bytes),
    /// What stands between the device and the memory, with the chain of reasons.
    Route(Box<dma::Refusal>),
    /// The device's accesses are not snooped, and it asked for no copies that are.
    NotCoherent,
    /// Why it would have to be copied.
    Copies(WhyBounce),
    /// Addresses.
    Address {
        /// The last one that the buffer needs.
        last: AddressNumber,
        /// The highest one that the device forms.
        highest: AddressNumber,
    },
    /// Pieces.
    Pieces {
        /// In how many ranges the buffer lies.
        ranges: usize,
        /// What the importer takes.
        takes: Contiguity,
    },
    /// Where the range begins or ends between two units.
    Unaligned {
        /// The offset in its owner.
        at: Bytes,
        /// The unit.
        unit: Granule,
    },
    /// A limit that no list of segments keeps.
    Limit(SegmentLimit),
    /// Too many segments.
    Segments {
        /// How many it takes at least.
        at_least: u64,
        /// How many the device's list holds.
        most: usize,
    },
}

impl Refusal {
    /// Whether more input could make it an attachment.
    pub fn is_unknown(&self) -> bool {
        matches!(&self.evidence, Evidence::Route(refusal) if refusal.is_unknown())
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Methods { needed, offered } => write!(f, "it needs {needed}, and {offered} is permitted"),
            Self::Prot { asked, offered } => write!(f, "it asks for {asked}, and {offered} is permitted"),
            Self::Control(offered) => write!(f, "it asks for full control, and the buffer is offered for {offered}"),
            Self::Held { by, at: None } => write!(f, "{} has the buffer in full", Names(by)),
            Self::Held { by, at: Some(place) } => write!(f, "pins of {} hold the buffer in {place}", Names(by)),
            Self::Enforcement { has, floor } => write!(f, "its path has {has}, and the exporter's floor is {floor}"),
            Self::Lifetime { stays, takes } => {
                write!(f, "the memory {stays}, and the least that it can live with is {takes}")
            }
            Self::Place { asked, offered } => {
                write!(f, "it wants the buffer in {asked}, and the exporter puts it in {}", Names(offered))
            }
            Self::DeviceMemory(owner) => write!(f, "{owner} is device memory"),
            Self::Private(MemoryKind::PrivateRam) => f.write_str("the buffer is private memory of a guest"),
            Self::Private(MemoryKind::Mmio(state) | MemoryKind::OpenMmio(state)) => {
                write!(f, "the buffer is memory of a device whose interface is in {state}")
            }
            Self::Private(MemoryKind::SharedRam) => f.write_str("the buffer is shared memory"),
            Self::Confidential(rule) => write!(f, "{rule}"),
            Self::End(end) => write!(f, "its owner ends at {:#x}", end.as_u64()),
            Self::Route(refusal) => write!(f, "{refusal}"),
            Self::NotCoherent => f.write_str("the device's accesses are not snooped, and it takes no copies"),
            Self::Copies(why) => write!(f, "it would have to be copied ({why})"),
            Self::Address { last, highest } => {
                write!(f, "the last address is {last}, and the highest that the device forms is {highest}")
            }
            Self::Pieces { ranges, takes: Contiguity::OneRange } => {
                write!(f, "the buffer is {ranges} ranges, and one is taken")
            }
            Self::Pieces { ranges, .. } => {
                write!(f, "the buffer is {ranges} ranges, which nothing makes one for the device")
            }
            Self::Unaligned { at, unit } => write!(f, "{:#x} is no multiple of {unit}", at.as_u64()),
            Self::Limit(limit) => write!(f, "its list of segments takes {limit}"),
            Self::Segments { at_least, most } => {
                write!(f, "it takes {at_least} segments at least, and {most} are taken")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, importer, range, evidence } = self;
        write!(f, "{importer} cannot attach ({rule}")?;
        if let Some(range) = range {
            write!(f, ", {} at offset {:#x}, {}", range.owner(), range.offset().as_u64(), range.len())?;
        }
        write!(f, "): {evidence}; {}", rule.fix())
    }
}

impl core::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.evidence {
            Evidence::Route(refusal) => Some(refusal.as_ref()),
            Evidence::Confidential(rule) => Some(rule),
            _ => None,
        }
    }
}

/// Names in a row.
struct Names<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Names<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
