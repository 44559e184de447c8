//! `peerdma map`: the plan of a mapping.
//!
//! The plan is made by making the mapping: the library's engine maps the chunks for the
//! initiator, over a software IOMMU in the machine's table format or over nothing that
//! translates, and what is printed is read back from there.
//!
//! - [`device`]: the initiator, from the input and the options.
//! - [`tables`]: which format the IOMMU's tables have.
//! - [`space`]: the address space of the plan.
//! - [`plan`]: chunk by chunk through the engine.
//! - [`refused`]: errors of the library as answers.
//! - [`ring`]: what has to happen before a doorbell.
//! - [`mod@print`], [`mod@document`]: text and JSON.

mod device;
mod document;
mod plan;
mod print;
mod refused;
mod ring;
mod space;
mod tables;

use crate::args::{MapArguments, Need};
use crate::chunk::{Place, Resolved};
use crate::document::SCHEMA;
use crate::document::map::MapDocument;
use crate::exit::{Exit, Failure};
use crate::input::{self, Loaded};
use crate::{output, select};
use device::Device;
use peerdma::addr::{AddrRange, Bytes, PhysAddr};
use peerdma::dma::reach::Peers;
use peerdma::route::whose::{self, Thing};
use peerdma::topology::{MemoryRegion, Topology};
use plan::{Outcome, Plan};
use ring::Ring;
use space::Setup;
use tables::Tables;

/// Most segments that a plan may be cut into.
const MOST_SEGMENTS: u64 = 1 << 24;

/// Everything that is printed.
struct Answer<'a> {
    arguments: &'a MapArguments,
    loaded: &'a Loaded,
    resolved: &'a Resolved,
    device: &'a Device,
    /// What translates; `None` where nothing does, or the mode is not told.
    tables: Option<Tables>,
    plan: Plan,
    ring: Option<Ring>,
}

pub(crate) fn run(arguments: &MapArguments) -> Result<Exit, Failure> {
    if arguments.output.schema {
        output::schema::<MapDocument>()?;
        return Ok(Exit::Done);
    }
    if input::platform_help(&arguments.input)? {
        return Ok(Exit::Done);
    }
    let Some(initiator) = arguments.initiator.as_ref().filter(|_| !arguments.chunks.is_empty()) else {
        return Err(Failure::usage(
            "map needs --initiator FUNCTION and a CHUNK, such as peerdma map --initiator mlx5_0 ram:0x100000000+2M",
        ));
    };
    with_answer(arguments, initiator, |answer| {
        let printed = if arguments.output.json {
            output::json(&answer.document())
        } else {
            output::notes(&answer.loaded.notes).and_then(|()| answer.print())
        };
        output::concluded(answer.plan.exit(), printed)
    })
}

/// Prints a plan.
pub(crate) fn print(arguments: &MapArguments) -> Result<(), Failure> {
    with_answer(arguments, arguments.initiator.as_deref().unwrap_or_default(), |answer| answer.print())
}

/// A plan as a document.
pub(crate) fn document(arguments: &MapArguments) -> Result<MapDocument, Failure> {
    with_answer(arguments, arguments.initiator.as_deref().unwrap_or_default(), |answer| Ok(answer.document()))
}

/// Makes a plan.
fn with_answer<T>(
    arguments: &MapArguments,
    initiator: &str,
    tell: impl FnOnce(&Answer<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut loaded = input::load(&arguments.input)?;
    let function = select::function(&loaded.topology, initiator)?;
    let chunks = arguments.chunks.iter().map(|chunk| (chunk.clone(), arguments.need));
    let chunks: Vec<_> = chunks.chain(arguments.doorbell.iter().map(|chunk| (chunk.clone(), Need::Write))).collect();
    let resolved = Resolved::new(&loaded.topology, &chunks, &arguments.way.state)?;
    for (chunk, _) in &chunks {
        if let Place::Ram(range) | Place::Private(range) = &chunk.place {
            loaded.notes.extend(not_memory(&loaded.topology, &chunk.text, *range));
        }
    }
    not_too_many(arguments, &resolved)?;
    let device = Device::new(&loaded, function, &arguments.device)?;
    let mut peers = Peers::of(&loaded.topology);
    resolved.stated.iter().for_each(|(owner, reach)| peers.state(*owner, *reach));
    device::state_interfaces(&loaded, &mut peers);
    let setup = Setup::new(&loaded, arguments, function, &resolved, &peers)?;
    let (tables, plan) = setup.plan(&device)?;
    let ring = arguments.doorbell.as_ref().and_then(|_| Ring::of(&loaded.topology, function, &resolved, &plan));
    tell(&Answer { arguments, loaded: &loaded, resolved: &resolved, device: &device, tables, plan, ring })
}

/// Cutting ranges into bytes is no plan but a way to wait for one.
fn not_too_many(arguments: &MapArguments, resolved: &Resolved) -> Result<(), Failure> {
    let device = &arguments.device;
    let Some(shortest) = device.max_segment.into_iter().chain(device.boundary).min() else { return Ok(()) };
    let longest = resolved.wanted.iter().map(|wanted| wanted.chunk.len()).max().unwrap_or_default();
    if longest.as_u64() / shortest.as_u64() <= MOST_SEGMENTS {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{longest} in segments of {shortest} are more than {MOST_SEGMENTS}; give a longer segment, a larger boundary or a shorter chunk"
    )))
}

/// What speaks against a range being memory, as far as the input tells.
fn not_memory(topology: &Topology, text: &str, range: AddrRange<PhysAddr>) -> Option<String> {
    let bar = whose::at_cpu(topology, range).owners.into_iter().find_map(|owner| match owner.what {
        Thing::Bar { function, bar, .. } => Some((function, bar)),
        _ => None,
    });
    if let Some((function, bar)) = bar {
        let address = topology.function(function).address();
        return Some(format!("{text} lies in bar{bar} of {address}, which is no memory; name it {address}/bar{bar}"));
    }
    let map = &topology.machine().memory_map;
    let ram = map.iter().filter(|region| region.name == MemoryRegion::SYSTEM_RAM);
    let held = |from: PhysAddr| {
        ram.clone().find_map(|region| {
            (region.range.start() <= from && from <= region.range.last()).then(|| region.range.last())
        })
    };
    let mut from = range.start();
    while !map.is_empty() {
        match held(from) {
            Some(last) if last >= range.last() => break,
            Some(last) => from = last.checked_add(Bytes::new(1))?,
            None => return Some(format!("{text}: by the input's memory map there is no RAM at {from}")),
        }
    }
    None
}

impl Answer<'_> {
    /// `planned`, `refused` or `unknown`.
    fn word(&self) -> &'static str {
        match self.plan.exit() {
            Exit::Done => "planned",
            Exit::Refused => "refused",
            Exit::Unknown => "unknown",
        }
    }

    /// A chunk with the BAR that was chosen where none was named.
    fn label(&self, index: usize) -> String {
        let wanted = &self.resolved.wanted[index];
        match wanted.target.and_then(|target| target.bar()).filter(|_| !wanted.text.contains('/')) {
            Some(bar) => {
                let (name, access) = wanted
                    .text
                    .rsplit_once(':')
                    .filter(|(_, access)| access.len() == 2)
                    .map_or((wanted.text.as_str(), String::new()), |(name, access)| (name, format!(":{access}")));
                // The two hex digits behind a colon of an address are followed by a dot, so these are none.
                format!("{name}/bar{bar}{access}")
            }
            None => wanted.text.clone(),
        }
    }

    fn rows(&self) -> impl Iterator<Item = (usize, &Outcome)> {
        self.plan.rows.iter().map(|row| &row.outcome).enumerate()
    }
}
