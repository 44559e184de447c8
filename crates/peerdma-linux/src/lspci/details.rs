//! What the indented lines of a block say, without any conclusion from what they do not.
//!
//! Lines of the first depth belong to the function; deeper ones belong to the
//! capability above them.

use super::capabilities::{Capabilities, Section};
use super::word::{after, decimal, flag, hex, size};
use peerdma::addr::{AddrRange, BusAddr, PhysAddr};
use peerdma::pcie::Fact;
use peerdma::pcie::decode::{BridgeBuses, BridgeWindows, Command, HeaderType};
use peerdma::topology::Bar;

/// Facts of one block.
#[derive(Debug, Default)]
pub(super) struct Details<'a> {
    /// `Flags:` of `-v` or `Control:` of `-vv`.
    pub(super) verbosity: Option<Verbosity>,
    /// Any line at all was there.
    pub(super) any: bool,
    /// A line that a listing (`-k` included) does not have was there.
    verbose: bool,
    /// `Status: Cap+`.
    pub(super) capability_bit: Option<bool>,
    pub(super) command: Option<Command>,
    pub(super) buses: Option<BridgeBuses>,
    pub(super) windows: BridgeWindows,
    pub(super) bars: Vec<Bar>,
    pub(super) numa_node: Option<u32>,
    pub(super) iommu_group: Option<u32>,
    pub(super) driver: Option<&'a str>,
    /// Header type where it is named, which lspci does where it contradicts the class.
    pub(super) header: Option<HeaderType>,
    /// The function answered all ones.
    pub(super) gone: bool,
    pub(super) capabilities: Capabilities,
    section: Section,
    /// A second function's details have begun, whose opening line is missing.
    closed: bool,
}

/// How much `lspci` was asked to show of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verbosity {
    /// `-v`: capabilities by name only.
    Names,
    /// `-vv` and above.
    Registers,
}

impl<'a> Details<'a> {
    /// Whether any line shows that this is not a mere listing.
    pub(super) fn are_verbose(&self) -> bool {
        self.verbose
    }

    /// Takes a line of the first depth.
    ///
    /// What was said first stays: a longer text never takes back what a shorter one says.
    pub(super) fn outer(&mut self, line: &'a str) {
        if self.closed {
            return;
        }
        self.any = true;
        self.section = Section::Other;
        let Some((key, value)) = split(line) else {
            self.verbose = true;
            self.capabilities.denied |= line.starts_with("<access denied");
            if let Some(complaint) = line.strip_prefix("!!! ") {
                self.complaint(complaint);
            }
            return;
        };
        match key {
            "Capabilities" => self.section = self.capabilities.open(value),
            "Control" | "Flags" if self.verbosity.is_some() => {
                self.closed = true;
                return;
            }
            "Control" => {
                self.verbosity = Some(Verbosity::Registers);
                self.control(value);
            }
            "Flags" => {
                self.verbosity = Some(Verbosity::Names);
                self.flags(value);
            }
            "Status" => self.capability_bit = self.capability_bit.or_else(|| flag(value, "Cap")),
            "Bus" => self.buses = self.buses.or_else(|| buses(value)),
            "Memory behind bridge" => self.windows.memory = self.windows.memory.or(window(value)),
            "Prefetchable memory behind bridge" => {
                self.windows.prefetchable = self.windows.prefetchable.or(window(value));
            }
            "NUMA node" => self.numa_node = self.numa_node.or_else(|| number(value)),
            "IOMMU group" => self.iommu_group = self.iommu_group.or_else(|| number(value)),
            "Kernel driver in use" => {
                self.driver.get_or_insert(value.trim_end());
                return;
            }
            "Subsystem" | "DeviceName" | "Kernel modules" => return,
            _ => {
                if let Some(index) = key.strip_prefix("Region ") {
                    self.bars.extend(bar(index, value));
                }
            }
        }
        self.verbose = true;
    }

    /// Takes a deeper line.
    pub(super) fn inner(&mut self, line: &'a str) {
        self.any = true;
        if !self.closed && self.section != Section::Other {
            self.capabilities.line(self.section, line);
        }
    }

    fn control(&mut self, value: &str) {
        if let (Some(memory), Some(bus_master)) = (flag(value, "Mem"), flag(value, "BusMaster")) {
            self.command = Some(Command { memory, bus_master });
        }
    }

    fn flags(&mut self, value: &str) {
        for part in value.split(", ") {
            if let Some(node) = part.strip_prefix("NUMA node ") {
                self.numa_node = number(node);
            } else if let Some(group) = part.strip_prefix("IOMMU group ") {
                self.iommu_group = number(group);
            }
        }
    }

    /// Takes what follows `!!! `: what lspci finds wrong with a function.
    fn complaint(&mut self, line: &str) {
        let Some(header) = after(line, "header type ").and_then(hex) else { return };
        self.header = match header.0 {
            0 => Some(HeaderType::Device),
            1 => Some(HeaderType::Bridge),
            2 => Some(HeaderType::CardBus),
            _ => None,
        };
        // lspci then shows nothing else of the function.
        self.gone = line.starts_with("Unknown header type");
    }
}

/// Key and value of `Key: value`; the value may be missing behind the colon.
pub(super) fn split(line: &str) -> Option<(&str, &str)> {
    let colon = line.find(':')?;
    let value = &line[colon + 1..];
    (value.is_empty() || value.starts_with([' ', '\t'])).then(|| (&line[..colon], value.trim_ascii_start()))
}

/// A number that makes up the whole of a text.
fn number(text: &str) -> Option<u32> {
    let (number, rest) = decimal(text)?;
    rest.trim_end().is_empty().then(|| u32::try_from(number).ok())?
}

/// `primary=00, secondary=0a, subordinate=12, sec-latency=0`.
fn buses(text: &str) -> Option<BridgeBuses> {
    let mut parts = text.split(", ");
    let mut bus = |name: &str| {
        let digits = parts.next()?.trim().strip_prefix(name)?;
        // Two digits always; one may be half of a number.
        (digits.len() == 2).then(|| hex(digits))?.filter(|(_, rest)| rest.is_empty()).map(|(bus, _)| bus as u8)
    };
    Some(BridgeBuses { primary: bus("primary=")?, secondary: bus("secondary=")?, subordinate: bus("subordinate=")? })
}

/// `fda00000-fe1fffff [size=8M] [32-bit]`; closed windows are `[disabled]`, `None` or end below their start.
fn window(text: &str) -> Fact<Option<AddrRange<BusAddr>>> {
    if text.contains("[disabled]") || text.trim_end() == "None" {
        return Fact::Known(None);
    }
    let ends = (|| {
        let (first, rest) = hex(text)?;
        let (last, _) = hex(rest.strip_prefix('-')?)?;
        Some(AddrRange::from_inclusive(BusAddr::new(first), BusAddr::new(last)))
    })();
    ends.into()
}

/// `Memory at 6000000000 (64-bit, prefetchable) [disabled] [size=32G]`.
///
/// The address is the CPU's. Without a size (`lspci -b`, dumps read by `-F`) it may
/// as well be the register's, and says nothing.
fn bar(index: &str, text: &str) -> Option<Bar> {
    let index = index.parse().ok().filter(|index| *index < 6)?;
    let text = text.strip_prefix("[virtual] ").unwrap_or(text).strip_prefix("Memory at ")?;
    let address = hex(text).map(|(address, _)| PhysAddr::new(address)).filter(|address| address.as_u64() != 0);
    let size = after(text, "[size=").and_then(size).filter(|(_, rest)| *rest == "]").map(|(size, _)| size);
    Some(Bar {
        index,
        cpu: address.zip(size).and_then(|(address, size)| AddrRange::new(address, size)),
        bus: None,
        size,
        prefetchable: text.contains(", prefetchable)"),
    })
}
