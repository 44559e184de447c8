//! Output of `lspci`, as people paste it.
//!
//! Any mix of switches is read: `-v` to `-vvv`, `-n`, `-nn`, `-D`, `-P`, `-PP`, `-k`,
//! `-b`, `-x` to `-xxxx`, several outputs one after another, cut and trimmed ones.
//!
//! ```text
//! text -> block -> head                      the line that opens it
//!               -> details -> capabilities   what its other lines say
//!               -> hex                       its bytes
//! blocks -> signs                            what they say about each other
//!        -> silence                          what they prove by not saying it
//!        -> place, merge -> Builder
//! ```
//!
//! Three rules keep the answers honest:
//!
//! 1. **Bytes win over text**, and text fills in where bytes end.
//! 2. **Silence counts only from those who would have spoken** (see `silence`).
//! 3. **What may be half is not believed.** A text that was cut anywhere never yields
//!    another verdict than the whole text, only less of them. So the last line without
//!    its line feed is not read, and nothing follows from what is missing in the last
//!    block without its empty line.
//!
//! ```
//! use peerdma_linux::{lspci, pci_names::PciNames};
//!
//! let text = "00:01.0 PCI bridge [0604]: Intel Corporation Device [8086:4c01]\n\
//!             \tBus: primary=00, secondary=01, subordinate=02, sec-latency=0\n\n\
//!             01:00.0 3D controller [0302]: NVIDIA Corporation Device [10de:2330]\n";
//! let dump = lspci::read(text, &PciNames::built_in())?;
//! assert_eq!(dump.builder.build().functions().len(), 2);
//! # Ok::<(), lspci::NotLspci>(())
//! ```
//!
//! Not here: `lspci -t` and `-mm`, which leave out what decides.

mod block;
mod capabilities;
mod details;
mod head;
mod hex;
mod merge;
mod place;
mod signs;
mod silence;
mod word;

use crate::pci_names::PciNames;
use block::{Block, End};
use peerdma::pcie::acs::Acs;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};
use peerdma::pcie::decode::{HeaderType, Registers, size_of_copy};
use peerdma::pcie::{ClassCode, PciId};
use peerdma::topology::{Builder, FunctionInfo, Origin, Position};
use signs::Signs;

/// What a text told.
#[derive(Clone, Debug)]
pub struct Dump {
    /// All functions of the text.
    pub builder: Builder,
    /// Sentences for the reader about what was left out and why; a few at most.
    pub notes: Vec<String>,
    /// Whether whoever took the dump could see everything (`Some(false)` if something
    /// was denied); `None` where the text does not tell.
    pub privileged: Option<bool>,
}

/// No line of the text opens the description of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "not the output of lspci: no line starts with a PCI address and a blank, such as \"0000:41:00.0 3D controller: …\"; \
     take it with: sudo lspci -vvvnn > FILE (lspci -t and -mm leave out what is needed)"
)]
pub struct NotLspci;

/// Reads a text; `names` gives numbers to functions that it only names.
///
/// # Errors
/// [`NotLspci`] if no line opens a function's description.
pub fn read(text: &str, names: &PciNames) -> Result<Dump, NotLspci> {
    let mut notes = Notes::default();
    let mut blocks = block::split(text.strip_prefix('\u{feff}').unwrap_or(text), &mut notes);
    if blocks.is_empty() {
        return Err(NotLspci);
    }
    let signs = Signs::of(&blocks);
    note_what_is_missing(&blocks, signs, &mut notes);
    let named = ids_by_name(&blocks, names);
    let functions: Vec<FunctionInfo> =
        blocks.iter_mut().zip(named).map(|(block, named)| function(block, named, signs, names)).collect();
    let places = place::of(&blocks, &functions, &mut notes);

    let mut builder = Builder::new();
    let mut placed: Vec<FunctionInfo> = Vec::with_capacity(functions.len());
    for (mut function, place) in functions.into_iter().zip(&places.of_blocks) {
        let Some((address, position)) = *place else { continue };
        (function.address, function.position) = (address, position);
        placed.push(function);
    }
    // Stable, so that of two descriptions the earlier comes first.
    placed.sort_by_key(|function| function.address);
    let mut placed = placed.into_iter().peekable();
    while let Some(mut function) = placed.next() {
        let mut other = None;
        while let Some(again) = placed.next_if(|next| next.address == function.address) {
            if merge::contradict(&function, &again) {
                other = Some(again);
            } else {
                function = merge::functions(function, again);
            }
        }
        infer_header(&mut function.registers);
        builder.function(function);
        // The builder takes back what is contradicted, and reports it.
        if let Some(other) = other {
            builder.function(other);
        }
    }
    for (bridge, position) in places.bridges {
        if !builder.holds(bridge) {
            builder.function(FunctionInfo::new(bridge, position));
        }
    }
    Ok(Dump { builder, notes: notes.into_sentences(), privileged: signs.privileged() })
}

/// Everything that one block tells about its function.
fn function(block: &mut Block<'_>, named: Vec<PciId>, signs: Signs, names: &PciNames) -> FunctionInfo {
    let (head, details) = (block.head, &block.details);
    let code =
        head.class_code.map(|code| ClassCode::new(u32::from(code) << 8)).or_else(|| names.class(head.class_name));
    let class = code.map(|code| ClassCode::new(code.as_u32() | u32::from(head.prog_if.unwrap_or(0))));
    let ids = head.id.map_or(named, |id| vec![id]);
    let text = silence::registers(block, class, &ids, signs);
    let may_be_cut = block.hex.is_broken() || !signs.saw_the_end_of(block);
    let size = match may_be_cut {
        true => ConfigSize::Unknown,
        false => size_of_copy(block.hex.bytes().len(), signs.holds_4096),
    };
    let hex = Registers::decode(&ConfigBytes::new(block.hex.take(), size));
    let from_hex = match (&hex.acs, &text.acs) {
        (Acs::Unknown(_), Acs::Present(_) | Acs::Absent(_)) => false,
        _ => hex.id.is_some(),
    };
    let registers = merge::registers(hex, text);
    FunctionInfo {
        origin: if from_hex { Origin::LspciHex } else { Origin::LspciText },
        vendors_by_name: if registers.id.is_none() && ids.is_empty() {
            names.vendors_of(head.name)
        } else {
            Vec::new()
        },
        ids_by_name: if registers.id.is_some() { Vec::new() } else { ids },
        bars: merge::bars(&registers.bars, &details.bars),
        driver: details.driver.map(str::to_owned),
        label: label(head.name, registers.id),
        numa_node: details.numa_node,
        iommu_group: details.iommu_group,
        registers,
        ..FunctionInfo::new(head.path.first, Position::ByBusNumber)
    }
}

/// The IDs of blocks that give a name and no number, all of them in one look-up.
fn ids_by_name(blocks: &[Block<'_>], names: &PciNames) -> Vec<Vec<PciId>> {
    let mut wanted: Vec<&str> = blocks.iter().filter_map(name_without_number).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let ids = names.ids_of(&wanted);
    let of = |block| {
        let place = wanted.binary_search(&name_without_number(block)?).ok()?;
        Some(ids[place].clone())
    };
    blocks.iter().map(|block| of(block).unwrap_or_default()).collect()
}

fn name_without_number<'a>(block: &Block<'a>) -> Option<&'a str> {
    let bytes_tell = block.hex.bytes().get(..2).is_some_and(|vendor| vendor != [0xff, 0xff]);
    let wanted = block.head.id.is_none() && !bytes_tell && !block.head.name.is_empty();
    wanted.then_some(block.head.name)
}

/// A function whose header nothing shows is a device unless its class says bridge.
fn infer_header(registers: &mut Registers) {
    let is_device = registers.class.is_some_and(|class| !silence::is_bridge(class));
    if registers.header.is_none() && is_device {
        registers.header = Some(HeaderType::Device);
    }
}

/// The name, with the number where lspci found no name for the device.
fn label(name: &str, id: Option<PciId>) -> Option<String> {
    match (name, id) {
        ("" | "Device", _) => None,
        (name, Some(id)) if name.ends_with(" Device") => Some(format!("{name} {:04x}", id.device)),
        _ => Some(name.to_owned()),
    }
}

fn note_what_is_missing(blocks: &[Block<'_>], signs: Signs, notes: &mut Notes) {
    if let Some(last) = blocks.last()
        && (last.end == End::InsideHead || last.end == End::Text && last.is_long())
    {
        notes.push(|| {
            format!(
                "line {}: the text ends before the empty line that closes the description of {}, so nothing follows \
                 from what is missing there",
                last.line, last.head.path.text
            )
        });
    }
    if signs.denied > 0 {
        notes.push(|| {
            format!("capabilities of {} functions were denied to the reader; take the dump with sudo", signs.denied)
        });
    }
}

/// Sentences for the reader, a bounded number of them.
#[derive(Debug, Default)]
struct Notes {
    sentences: Vec<String>,
    left_out: usize,
}

impl Notes {
    const MOST: usize = 12;

    fn push(&mut self, sentence: impl FnOnce() -> String) {
        if self.sentences.len() < Self::MOST {
            self.sentences.push(sentence());
        } else {
            self.left_out += 1;
        }
    }

    fn into_sentences(mut self) -> Vec<String> {
        if self.left_out > 0 {
            self.sentences.push(format!("{} more notes of this kind", self.left_out));
        }
        self.sentences
    }
}

#[cfg(test)]
mod tests;
