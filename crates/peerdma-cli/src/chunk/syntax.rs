//! The syntax of chunks and of what is said about them, without a machine.

use crate::select;
use peerdma::access::Prot;
use peerdma::addr::{AddrRange, BusAddr, PhysAddr};
use peerdma::topology::HostWindow;
use std::str::FromStr;

/// Memory that somebody wants mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChunkArgument {
    /// As it was typed.
    pub(crate) text: String,
    /// Where it is.
    pub(crate) place: Place,
    /// What the device does with it, where that is said.
    pub(crate) prot: Option<Prot>,
}

/// Where a chunk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A function's BAR, in the words that [`select::target`] reads.
    Function(String),
    /// Memory.
    Ram(AddrRange<PhysAddr>),
    /// Memory of a confidential guest.
    Private(AddrRange<PhysAddr>),
    /// Memory of a device that is no PCI function.
    Device {
        /// What the user calls it.
        name: String,
        /// As the CPU addresses it.
        range: AddrRange<PhysAddr>,
    },
}

/// The text is no chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum NotAChunk {
    #[error("nothing is named; write ram:ADDRESS+LENGTH, or a function such as 0000:41:00.0/bar1+0x1000,4KiB")]
    Empty,
    #[error("expected ADDRESS+LENGTH, such as 0x100000000+2M, not empty and not past 2^64")]
    Range,
    #[error("expected device:NAME@ADDRESS+LENGTH, such as device:accel@0x90000000+1M")]
    Device,
}

impl FromStr for ChunkArgument {
    type Err = NotAChunk;

    fn from_str(text: &str) -> Result<Self, NotAChunk> {
        let access = [(":ro", Prot::Read), (":wo", Prot::Write), (":rw", Prot::ReadWrite)];
        let said = access.into_iter().find_map(|(word, prot)| Some((text.strip_suffix(word)?, prot)));
        let (rest, prot) = said.map_or((text, None), |(rest, prot)| (rest, Some(prot)));
        let place = if let Some(rest) = rest.strip_prefix("ram:") {
            Place::Ram(range(rest).ok_or(NotAChunk::Range)?)
        } else if let Some(rest) = rest.strip_prefix("private:") {
            Place::Private(range(rest).ok_or(NotAChunk::Range)?)
        } else if let Some(rest) = rest.strip_prefix("device:") {
            let (name, rest) = rest.split_once('@').filter(|(name, _)| is_name(name)).ok_or(NotAChunk::Device)?;
            Place::Device { name: name.to_string(), range: range(rest).ok_or(NotAChunk::Range)? }
        } else if rest.is_empty() {
            return Err(NotAChunk::Empty);
        } else {
            Place::Function(rest.to_string())
        };
        Ok(Self { text: text.to_string(), place, prot })
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Reads `ADDRESS+LENGTH`.
fn range(text: &str) -> Option<AddrRange<PhysAddr>> {
    let (start, len) = text.split_once('+')?;
    let range = AddrRange::new(PhysAddr::new(select::number(start)?), select::size(len)?)?;
    // A chunk counts to its end, exclusive.
    range.start().checked_add(range.len()).map(|_| range)
}

/// `ADDRESS+LENGTH` of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryArgument(pub(crate) AddrRange<PhysAddr>);

impl FromStr for MemoryArgument {
    type Err = NotAChunk;

    fn from_str(text: &str) -> Result<Self, NotAChunk> {
        range(text.strip_prefix("ram:").unwrap_or(text)).map(Self).ok_or(NotAChunk::Range)
    }
}

/// `CPU=BUS+SIZE`: memory as devices below a host bridge see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InboundArgument(pub(crate) HostWindow);

/// The text is not that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected CPU=BUS+SIZE, such as 0x80000000=0x0+1G, ending below 2^64 on both sides")]
pub(crate) struct NotInbound;

impl FromStr for InboundArgument {
    type Err = NotInbound;

    fn from_str(text: &str) -> Result<Self, NotInbound> {
        let window = || {
            let (cpu, rest) = text.split_once('=')?;
            let (bus, size) = rest.split_once('+')?;
            let cpu = AddrRange::new(PhysAddr::new(select::number(cpu)?), select::size(size)?)?;
            HostWindow::new(cpu, BusAddr::new(select::number(bus)?))
        };
        window().map(Self).ok_or(NotInbound)
    }
}

/// `NAME=bus:ADDRESS|iova|physical`: how a device's memory is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StateArgument {
    pub(crate) name: String,
    pub(crate) reach: Stated,
}

/// A route in the user's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stated {
    /// By bus address; the lowest byte named is here.
    Bus(BusAddr),
    /// Through the IOMMU.
    Iova,
    /// At the address that the CPU uses.
    Physical,
}

/// The text is not that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected NAME=bus:ADDRESS, NAME=iova or NAME=physical, such as accel=bus:0x90000000")]
pub(crate) struct NotAState;

impl FromStr for StateArgument {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        let (name, route) = text.split_once('=').filter(|(name, _)| is_name(name)).ok_or(NotAState)?;
        let reach = match route {
            "iova" => Stated::Iova,
            "physical" => Stated::Physical,
            _ => {
                let address = route.strip_prefix("bus:").and_then(select::number);
                Stated::Bus(BusAddr::new(address.ok_or(NotAState)?))
            }
        };
        Ok(Self { name: name.to_string(), reach })
    }
}
