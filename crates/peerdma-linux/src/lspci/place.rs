//! From paths of `lspci -P` and `-PP` to places.
//!
//! ```text
//! 00:1c.0/02:00.0/03:01.0    -PP: every element with its bus
//! 00:1c.0/00.0/01.0          -P: the bus is the secondary bus of the element before
//! ```

use super::Notes;
use super::block::Block;
use super::head::{Element, Path};
use peerdma::pcie::PciAddr;
use peerdma::topology::{FunctionInfo, Position};
use std::collections::{BTreeMap, BTreeSet};

/// What the paths of a dump tell.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Of each block; `None` where the path leads nowhere.
    pub(super) of_blocks: Vec<Option<(PciAddr, Position)>>,
    /// Bridges on the way to some function.
    pub(super) bridges: BTreeMap<PciAddr, Position>,
}

/// Finds the address and place of every block; `functions` holds what the blocks say.
pub(super) fn of(blocks: &[Block<'_>], functions: &[FunctionInfo], notes: &mut Notes) -> Places {
    let mut places = Places::default();
    if !blocks.iter().any(|block| block.head.path.is_below()) {
        // The common case costs nothing.
        places.of_blocks = blocks.iter().map(|block| Some((block.head.path.first, Position::ByBusNumber))).collect();
        return places;
    }
    let mut secondary = BTreeMap::new();
    let learn = |secondary: &mut BTreeMap<PciAddr, u8>, address: PciAddr, function: &FunctionInfo| {
        if let Some(buses) = function.registers.buses {
            secondary.entry(address).or_insert(buses.secondary);
        }
    };
    for (block, function) in blocks.iter().zip(functions) {
        let path = block.head.path;
        if let Some(address) = path.elements().last().map_or(Some(path.first), |last| at(path.first.domain(), last)) {
            learn(&mut secondary, address, function);
        }
    }
    // Functions that a listing with paths shows without one sit on a root bus.
    let mut root_buses = BTreeSet::new();
    let mut runs_with_paths = BTreeSet::new();
    for (block, function) in blocks.iter().zip(functions) {
        let path = block.head.path;
        let place = if path.is_below() {
            runs_with_paths.insert(block.run);
            root_buses.insert((path.first.domain(), path.first.bus()));
            walk(path, &secondary, &mut places.bridges)
        } else {
            Some((path.first, Position::ByBusNumber))
        };
        match place {
            Some((address, _)) => learn(&mut secondary, address, function),
            None => notes.push(|| {
                format!(
                    "line {}: {} leaves out bus numbers that no bridge in the input tells, so the function is left \
                     out; lspci -PP writes them",
                    block.line, path.text
                )
            }),
        }
        places.of_blocks.push(place);
    }
    for (block, place) in blocks.iter().zip(&mut places.of_blocks) {
        let first = block.head.path.first;
        let on_root = runs_with_paths.contains(&block.run) || root_buses.contains(&(first.domain(), first.bus()));
        if let Some((_, position @ Position::ByBusNumber)) = place
            && on_root
        {
            *position = Position::RootBus { bus: first.bus() };
        }
    }
    places
}

/// Walks a path down; `None` where a bus number is missing, or is not above the one before.
fn walk(
    path: Path<'_>,
    secondary: &BTreeMap<PciAddr, u8>,
    bridges: &mut BTreeMap<PciAddr, Position>,
) -> Option<(PciAddr, Position)> {
    let mut above = Vec::new();
    let mut here = (path.first, Position::RootBus { bus: path.first.bus() });
    for element in path.elements() {
        above.push(here);
        let parent = here.0;
        let bus = element.bus.or_else(|| secondary.get(&parent).copied())?;
        if bus <= parent.bus() {
            return None;
        }
        here = (PciAddr::new(parent.domain(), bus, element.devfn), Position::Below(parent));
    }
    for (bridge, position) in above {
        bridges.entry(bridge).or_insert(position);
    }
    Some(here)
}

fn at(domain: u32, element: Element) -> Option<PciAddr> {
    Some(PciAddr::new(domain, element.bus?, element.devfn))
}
