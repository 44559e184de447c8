//! From what a block's text says, and what it does not say, to registers.
//!
//! Silence proves something only if the block was seen to its end, and was of a
//! kind that would have spoken:
//!
//! - no list of capabilities: neither Express nor extended ones;
//! - a list without Express and without fast PCI-X: no extended ones;
//! - text of `-vv` and above in a dump that shows extended ones somewhere, with
//!   nothing denied to the reader: what is not listed is not there.
//!
//! Linux looks for extended capabilities of host bridges (class 0600) even without
//! Express, so for them only the last proves anything.

use super::block::{Block, End};
use super::signs::Signs;
use peerdma::pcie::acs::{self, Acs, AcsAbsent, AcsRegisters, AcsUnread};
use peerdma::pcie::decode::{HeaderType, Registers};
use peerdma::pcie::express::PortType;
use peerdma::pcie::{ClassCode, Fact, PciId};

/// Everything the text of one block tells. `ids` are all that the function may have.
pub(super) fn registers(block: &Block<'_>, class: Option<ClassCode>, ids: &[PciId], signs: Signs) -> Registers {
    let text = Text { block, class, signs };
    let details = &block.details;
    let capabilities = &details.capabilities;
    let port_type = text.port_type();
    let acs = text.acs(port_type, ids);
    let no_extended = matches!(acs, Acs::Absent(AcsAbsent::NoCapabilityList | AcsAbsent::NotExpress))
        || details.verbosity.is_some() && signs.tells_all(block);
    Registers {
        id: block.head.id,
        class,
        header: text.header(),
        command: details.command,
        buses: details.buses,
        windows: details.windows,
        port_type,
        express: capabilities.express,
        acs,
        sriov: extended(no_extended, capabilities.sriov.map(|sriov| sriov.registers().into())),
        ats: extended(no_extended, capabilities.ats),
        pri: extended(no_extended, capabilities.pri),
        pasid: extended(no_extended, capabilities.pasid.map(|pasid| pasid.registers().into())),
        resizable: capabilities.resizable.clone().unwrap_or_default(),
        ..Registers::unread()
    }
}

/// A capability that is named, or is not there, or may be either.
fn extended<T>(none: bool, named: Option<Fact<T>>) -> Fact<Option<T>> {
    match named {
        Some(registers) => registers.map(Some),
        None if none => Fact::Known(None),
        None => Fact::Unknown,
    }
}

struct Text<'a> {
    block: &'a Block<'a>,
    class: Option<ClassCode>,
    signs: Signs,
}

impl Text<'_> {
    /// Whether every standard capability is named.
    fn names_all(&self) -> bool {
        let details = &self.block.details;
        let capabilities = &details.capabilities;
        // With a list announced and none of it shown, somebody cut it away.
        let cut_away = details.capability_bit == Some(true) && !capabilities.listed;
        let denied = capabilities.denied || details.gone;
        details.verbosity.is_some() && !denied && !cut_away && self.signs.saw_all_text_of(self.block)
    }

    fn has_no_list(&self) -> bool {
        let details = &self.block.details;
        details.capability_bit == Some(false) || self.names_all() && !details.capabilities.listed
    }

    fn port_type(&self) -> Fact<Option<PortType>> {
        match self.block.details.capabilities.port_type {
            Some(port_type) => port_type.map(Some),
            None if self.has_no_list() || self.names_all() => Fact::Known(None),
            None => Fact::Unknown,
        }
    }

    /// What the text shows; the class alone is weighed when all blocks are known.
    fn header(&self) -> Option<HeaderType> {
        let details = &self.block.details;
        let code = self.class.map(ClassCode::base_and_sub);
        match details.buses {
            Some(_) if code == Some(0x0607) => Some(HeaderType::CardBus),
            Some(_) => Some(HeaderType::Bridge),
            None if details.header.is_some() => details.header,
            None => {
                let is_bridge = self.class.is_some_and(is_bridge);
                let told = details.verbosity.is_some() && self.signs.saw_all_text_of(self.block);
                (told && !is_bridge).then_some(HeaderType::Device)
            }
        }
    }

    fn acs(&self, port_type: Fact<Option<PortType>>, ids: &[PciId]) -> Acs {
        if let Some(named) = self.block.details.capabilities.acs {
            let Some(control) = named.control else { return Acs::Unknown(self.unread()) };
            // The control word never has a bit that the capability has not.
            let capability = named.capability.unwrap_or(control);
            let mut registers = AcsRegisters::standard(named.offset, capability, control, Vec::new());
            if ids.iter().any(|&id| acs::linux_reads_wrong_word(Some(id), port_type)) {
                // lspci reads where Linux does, and so it does not show the control word.
                registers.control = Fact::Unknown;
            }
            return Acs::Present(registers);
        }
        let is_host_bridge = self.class.is_none_or(ClassCode::is_host_bridge);
        if self.signs.tells_all(self.block) {
            Acs::Absent(AcsAbsent::NotListed)
        } else if self.has_no_list() && !is_host_bridge {
            Acs::Absent(AcsAbsent::NoCapabilityList)
        } else if self.names_all() && !self.may_be_extended() && !is_host_bridge {
            Acs::Absent(AcsAbsent::NotExpress)
        } else {
            Acs::Unknown(self.unread())
        }
    }

    /// Whether the capabilities that are named allow for extended ones.
    fn may_be_extended(&self) -> bool {
        let capabilities = &self.block.details.capabilities;
        let fast_pcix = capabilities.fast_pcix.is_some_and(|fast| fast != Fact::Known(false));
        capabilities.port_type.is_some() || fast_pcix
    }

    fn unread(&self) -> AcsUnread {
        let details = &self.block.details;
        // A line of a listing says as little where the text goes on.
        let listing = match self.block.end {
            End::EmptyLine | End::NextBlock => !details.are_verbose(),
            End::Text => !self.signs.verbose,
            End::InsideHead => false,
        };
        if details.gone {
            AcsUnread::NeverSeen
        } else if details.capabilities.denied {
            AcsUnread::Denied
        } else if listing || self.signs.saw_all_text_of(self.block) {
            AcsUnread::TextTooTerse
        } else {
            AcsUnread::TextEnds
        }
    }
}

/// The classes of functions that other functions sit below.
pub(super) fn is_bridge(class: ClassCode) -> bool {
    class.has_buses_below()
}
