//! From what people type to memory that is to be mapped.
//!
//! A chunk's syntax is read before there is a machine to look it up in, so that a typing
//! mistake is told at once; [`Wanted`] is the chunk in the machine.

mod syntax;
#[cfg(test)]
mod tests;

pub(crate) use syntax::{ChunkArgument, InboundArgument, MemoryArgument, Place, StateArgument, Stated};

use crate::args::Need;
use crate::exit::Failure;
use crate::select;
use peerdma::access::{MemAttrs, Prot};
use peerdma::addr::{AddrRange, Bytes, PhysAddr};
use peerdma::chunk::Chunk;
use peerdma::dma::{Owner, OwnerId, Owners, Reach, Source};
use peerdma::route::Target;
use peerdma::topology::{FunctionId, Topology};
use std::convert::Infallible;

/// A chunk of the machine.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As it was typed.
    pub(crate) text: String,
    /// The range.
    pub(crate) chunk: Chunk<Owner>,
    /// What the device does with it.
    pub(crate) prot: Prot,
    /// The range of a BAR.
    pub(crate) target: Option<Target>,
    /// As the CPU addresses it, where known.
    pub(crate) cpu: Option<AddrRange<PhysAddr>>,
}

/// All chunks of one call, and what is known of their owners.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) wanted: Vec<Wanted>,
    pub(crate) owners: Owners<Infallible>,
    /// Routes that the user stated.
    pub(crate) stated: Vec<(Owner, Reach)>,
    /// What to call owners, longest first in the library's words.
    names: Vec<(String, String)>,
}

impl Resolved {
    /// Looks chunks up in the machine.
    pub(crate) fn new(
        topology: &Topology,
        chunks: &[(ChunkArgument, Need)],
        stated: &[StateArgument],
    ) -> Result<Self, Failure> {
        let mut resolved = Self { wanted: Vec::new(), owners: Owners::new(), stated: Vec::new(), names: Vec::new() };
        let devices = Devices::of(chunks);
        for (chunk, need) in chunks {
            let prot = chunk.prot.unwrap_or(match need {
                Need::Read => Prot::Read,
                Need::Write => Prot::Write,
                Need::Both => Prot::ReadWrite,
            });
            let wanted = match &chunk.place {
                Place::Function(text) => resolved.bar(topology, text)?,
                Place::Ram(range) => resolved.memory(Owner::Ram, *range),
                Place::Private(range) => {
                    // One owner for all of it: offsets are addresses, as those of RAM are.
                    let owner = Owner::Private(OwnerId::new(0));
                    resolved.call(owner, "private memory");
                    resolved.memory(owner, *range)
                }
                Place::Device { name, range } => resolved.device(&devices, name, *range),
            };
            let (chunk_of, target, cpu) = wanted.ok_or_else(|| empty(&chunk.text))?;
            resolved.wanted.push(Wanted { text: chunk.text.clone(), chunk: chunk_of, prot, target, cpu });
        }
        for state in stated {
            let Some((number, _)) = devices.find(&state.name) else {
                let name = &state.name;
                return Err(Failure::usage(format!(
                    "--state names {name:?}, and no chunk does; write device:{name}@ADDRESS+LENGTH"
                )));
            };
            let reach = match state.reach {
                Stated::Bus(start) => Reach::Bus { start, bridge: None },
                Stated::Iova => Reach::Iova,
                Stated::Physical => Reach::Physical,
            };
            resolved.stated.push((Owner::Device(OwnerId::new(number)), reach));
        }
        resolved.names.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Ok(resolved)
    }

    /// The library's words with owners called as the user calls them.
    pub(crate) fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_string(), |text, (word, name)| text.replace(word, name))
    }

    fn call(&mut self, owner: Owner, name: &str) {
        let word = owner.to_string();
        if !self.names.iter().any(|(known, _)| *known == word) {
            self.names.push((word, name.to_string()));
        }
    }

    fn bar(&mut self, topology: &Topology, text: &str) -> Result<Option<Found>, Failure> {
        let target = select::target(topology, text)?.target;
        let function = target.function();
        let (Some(bar), Some(len)) = (target.bar(), target.len()) else {
            let address = topology.function(function).address();
            let lacks = if target.bar().is_some() { "the size of that BAR" } else { "any BAR of it" };
            return Err(Failure::usage(format!(
                "{address}: the input does not tell {lacks}; give a range, as in {address}/bar0+0,4KiB"
            )));
        };
        let owner = Owner::Bar { function, bar };
        self.call(owner, &format!("bar{bar} of {}", named_function(topology, function)));
        if let Some(cpu) = target.cpu() {
            self.owners.add(owner, target.offset(), len, Source::Physical(cpu.start()));
        }
        let chunk = Chunk::new(owner, target.offset(), len, MemAttrs::MMIO);
        Ok(chunk.map(|chunk| (chunk, Some(target), target.cpu())))
    }

    fn memory(&mut self, owner: Owner, range: AddrRange<PhysAddr>) -> Option<Found> {
        let at = Bytes::new(range.start().as_u64());
        if owner != Owner::Ram {
            self.owners.add(owner, at, range.len(), Source::Physical(range.start()));
        }
        Some((Chunk::new(owner, at, range.len(), MemAttrs::empty())?, None, Some(range)))
    }

    fn device(&mut self, devices: &Devices<'_>, name: &str, range: AddrRange<PhysAddr>) -> Option<Found> {
        let (number, lowest) = devices.find(name)?;
        let owner = Owner::Device(OwnerId::new(number));
        self.call(owner, &format!("device {name}"));
        let offset = Bytes::new(range.start().as_u64() - lowest.as_u64());
        self.owners.add(owner, offset, range.len(), Source::Physical(range.start()));
        Some((Chunk::new(owner, offset, range.len(), MemAttrs::MMIO)?, None, Some(range)))
    }
}

type Found = (Chunk<Owner>, Option<Target>, Option<AddrRange<PhysAddr>>);

fn empty(text: &str) -> Failure {
    Failure::usage(format!("{text:?} is empty or runs past 2^64"))
}

fn named_function(topology: &Topology, function: FunctionId) -> String {
    let info = topology.function(function).info();
    match info.names.first() {
        Some(name) => format!("{} {name}", info.address),
        None => info.address.to_string(),
    }
}

/// Devices that are no PCI functions, numbered as they come, each with the lowest address named of it.
struct Devices<'a>(Vec<(&'a str, PhysAddr)>);

impl<'a> Devices<'a> {
    fn of(chunks: &'a [(ChunkArgument, Need)]) -> Self {
        let mut devices: Vec<(&str, PhysAddr)> = Vec::new();
        for (chunk, _) in chunks {
            let Place::Device { name, range } = &chunk.place else { continue };
            match devices.iter_mut().find(|(known, _)| known == name) {
                Some((_, lowest)) => *lowest = range.start().min(*lowest),
                None => devices.push((name, range.start())),
            }
        }
        Self(devices)
    }

    fn find(&self, name: &str) -> Option<(u32, PhysAddr)> {
        let index = self.0.iter().position(|(known, _)| *known == name)?;
        Some((u32::try_from(index).ok()?, self.0[index].1))
    }
}
