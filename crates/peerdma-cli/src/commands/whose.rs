//! `peerdma whose`: what an address belongs to.

use crate::args::{AddressArgument, WhoseArguments};
use crate::commands::route::naming;
use crate::document::whose::{AlsoDocument, RangeDocument, ReadingDocument, WhoseDocument, host_bridge, lacking};
use crate::document::{SCHEMA, Source};
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::output;
use crate::select;
use peerdma::addr::{AddrRange, BusAddr, Bytes, Iova, PhysAddr};
use peerdma::route::whose::{self, Owner, Reading, Thing};
use peerdma::topology::{HostBridgeId, Topology};
use std::io::Write;

pub(crate) fn run(arguments: &WhoseArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<WhoseDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let Some(text) = &arguments.address else {
        return Err(Failure::usage("whose needs an ADDRESS, such as peerdma whose 0x380000000000"));
    };
    let asked = Asked::parse(text)?;
    let loaded = input::load(&arguments.input)?;
    let answer = Answer::new(&loaded.topology, asked, arguments.kind);
    let printed = if arguments.output.json {
        output::json(&answer.document(&loaded))
    } else {
        output::notes(&loaded.notes).and_then(|()| answer.print(&loaded))
    };
    output::concluded(answer.exit(), printed)
}

/// A number with a length, before anybody says what kind of address it is.
#[derive(Clone, Copy)]
struct Asked {
    cpu: AddrRange<PhysAddr>,
    bus: AddrRange<BusAddr>,
    iova: AddrRange<Iova>,
}

impl Asked {
    fn parse(text: &str) -> Result<Self, Failure> {
        let form = || {
            Failure::usage(format!(
                "{text:?} is not an address; write 0x… or a decimal number below 2^64, and optionally +LENGTH, such as 0x90000000+4KiB"
            ))
        };
        let (start, len) = match text.split_once('+') {
            Some((start, len)) => (start, select::size(len).ok_or_else(form)?),
            None => (text, Bytes::new(1)),
        };
        let start = select::number(start).ok_or_else(form)?;
        let range = (
            AddrRange::new(PhysAddr::new(start), len),
            AddrRange::new(BusAddr::new(start), len),
            AddrRange::new(Iova::new(start), len),
        );
        match range {
            (Some(cpu), Some(bus), Some(iova)) => Ok(Self { cpu, bus, iova }),
            _ => Err(Failure::usage(format!("{text:?} is empty or runs past 2^64"))),
        }
    }
}

struct Answer {
    asked: Asked,
    kind: Option<AddressArgument>,
    cpu: Option<Reading>,
    bus: Vec<(HostBridgeId, Reading)>,
    iova: Option<Reading>,
}

impl Answer {
    fn new(topology: &Topology, asked: Asked, kind: Option<AddressArgument>) -> Self {
        let wanted = |one: AddressArgument| kind.is_none_or(|kind| kind == one);
        let hosts = topology.host_bridges().filter(|_| wanted(AddressArgument::Bus));
        Self {
            asked,
            kind,
            cpu: wanted(AddressArgument::Cpu).then(|| whose::at_cpu(topology, asked.cpu)),
            bus: hosts.map(|(host, _)| (host, whose::at_bus(topology, host, asked.bus))).collect(),
            iova: wanted(AddressArgument::Iova).then(|| whose::at_iova(topology, asked.iova)),
        }
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        self.cpu.iter().chain(self.bus.iter().map(|(_, reading)| reading)).chain(&self.iova)
    }

    /// Without a kind, the CPU's side decides whether nothing is there: a machine whose buses
    /// or IOMMU were not read is still asked about its memory map.
    fn exit(&self) -> Exit {
        let decides = |reading: &&Reading| match (&self.kind, &self.cpu) {
            (None, Some(cpu)) => core::ptr::eq(*reading, cpu),
            _ => true,
        };
        if self.readings().any(Reading::is_owned) {
            Exit::Done
        } else if self.readings().filter(decides).all(Reading::is_free) && self.readings().next().is_some() {
            Exit::Refused
        } else {
            Exit::Unknown
        }
    }

    const fn word(exit: Exit) -> &'static str {
        match exit {
            Exit::Done => "something",
            Exit::Refused => "nothing",
            Exit::Unknown => "unknown",
        }
    }

    fn document(&self, loaded: &Loaded) -> WhoseDocument {
        let topology = &loaded.topology;
        let mut readings = Vec::new();
        if let Some(reading) = &self.cpu {
            let below = whose::below_host_bridges(topology, self.asked.cpu).map(|(host, bus)| AlsoDocument {
                kind: "bus",
                host_bridge: host_bridge(topology, host),
                address: bus.start().to_string(),
            });
            readings.push(ReadingDocument::new(topology, "cpu", None, reading, below.collect()));
        }
        for (host, reading) in &self.bus {
            let above = whose::above_host_bridge(topology, *host, self.asked.bus).map(|cpu| AlsoDocument {
                kind: "cpu",
                host_bridge: host_bridge(topology, *host),
                address: cpu.start().to_string(),
            });
            readings.push(ReadingDocument::new(topology, "bus", Some(*host), reading, above.into_iter().collect()));
        }
        if let Some(reading) = &self.iova {
            readings.push(ReadingDocument::new(topology, "iova", None, reading, Vec::new()));
        }
        WhoseDocument {
            schema: SCHEMA,
            source: Source::new(loaded),
            asked: RangeDocument::new(self.asked.cpu),
            answer: Self::word(self.exit()),
            readings,
        }
    }

    fn print(&self, loaded: &Loaded) -> Result<(), Failure> {
        let topology = &loaded.topology;
        let mut out = anstream::stdout().lock();
        let heading = output::heading();
        let shown = match self.asked.cpu.len() == Bytes::new(1) {
            true => self.asked.cpu.start().to_string(),
            false => self.asked.cpu.to_string(),
        };
        if let Some(reading) = &self.cpu {
            writeln!(out, "{heading}{shown} as a CPU address{heading:#}")?;
            print_reading(&mut out, topology, reading)?;
            for (host, bus) in whose::below_host_bridges(topology, self.asked.cpu) {
                let host = host_bridge(topology, host);
                writeln!(out, "  {:<9} bus address {} below host bridge {host}", "also", bus.start())?;
            }
        }
        for (host, reading) in &self.bus {
            // Where nothing is below a host bridge, only somebody who asked for buses wants to know.
            if reading.owners.is_empty() && self.kind.is_none() {
                continue;
            }
            let name = host_bridge(topology, *host);
            writeln!(out, "{heading}{shown} as a bus address below host bridge {name}{heading:#}")?;
            let cpu = whose::above_host_bridge(topology, *host, self.asked.bus);
            if self.cpu.is_some() && cpu == Some(self.asked.cpu) {
                writeln!(out, "  {:<9} one to one with the CPU's addresses, so the same", "")?;
                continue;
            }
            print_reading(&mut out, topology, reading)?;
            if let Some(cpu) = cpu {
                writeln!(out, "  {:<9} CPU address {}", "also", cpu.start())?;
            }
        }
        if let Some(reading) = &self.iova
            && (!reading.owners.is_empty() || self.kind.is_some())
        {
            writeln!(out, "{heading}{shown} as an address that an IOMMU translates{heading:#}")?;
            print_reading(&mut out, topology, reading)?;
        }
        Ok(())
    }
}

fn print_reading(out: &mut impl Write, topology: &Topology, reading: &Reading) -> Result<(), Failure> {
    for owner in &reading.owners {
        let (title, words) = describe(topology, owner);
        let part = if owner.all { "" } else { ", in part" };
        writeln!(out, "  {title:<9} {}{part}", output::printable(&words))?;
    }
    if reading.owners.is_empty() && reading.missing.is_empty() {
        writeln!(out, "  {:<9} nothing is there", "nothing")?;
    }
    if reading.owners.is_empty() {
        let warning = output::warning();
        for missing in &reading.missing {
            writeln!(out, "  {warning}{:<9}{warning:#} {}", "unknown", lacking(topology, *missing))?;
        }
    }
    Ok(())
}

fn describe(topology: &Topology, owner: &Owner) -> (&'static str, String) {
    match &owner.what {
        &Thing::Bar { function, bar, offset, cpu, bus } => {
            let mut words = format!("{} bar{bar}", naming(topology, function));
            if let Some(offset) = offset {
                words.push_str(&format!(" at offset {:#x}", offset.as_u64()));
            }
            if let Some(cpu) = cpu {
                words.push_str(&format!(", CPU {cpu}"));
            }
            if let Some(bus) = bus {
                words.push_str(&format!(", bus {bus}"));
            }
            ("BAR", words)
        }
        &Thing::PortWindow { port, prefetchable, bus } => {
            let kind = if prefetchable { "prefetchable" } else { "non-prefetchable" };
            ("window", format!("{} {kind}, bus {bus}", naming(topology, port)))
        }
        &Thing::HostWindow { host, window } => (
            "window",
            format!("host bridge {}, CPU {}, bus {}", host_bridge(topology, host), window.cpu(), window.bus()),
        ),
        Thing::Region(region) => ("memory", format!("{}, CPU {}", region.name, region.range)),
        Thing::Reserved { group, kind, range } => ("reserved", format!("{kind} of IOMMU group {group}, {range}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_hexadecimal_or_decimal_with_or_without_a_length() {
        let parsed = |text: &str| Asked::parse(text).map(|asked| asked.cpu.to_string()).ok();
        assert_eq!(parsed("0x1000").as_deref(), Some("0x1000-0x1000"));
        assert_eq!(parsed("4096+4KiB").as_deref(), Some("0x1000-0x1fff"));
        assert_eq!(parsed("0xffffffffffffffff+1").as_deref(), Some("0xffffffffffffffff-0xffffffffffffffff"));
        for text in [
            "",
            "0x",
            "1000h",
            "-1",
            "0x+1",
            "+1",
            "0x1000+",
            "0x1000+0",
            "0xffffffffffffffff+2",
            "0x1_0",
            "99999999999999999999",
        ] {
            assert!(parsed(text).is_none(), "{text}");
        }
    }
}
