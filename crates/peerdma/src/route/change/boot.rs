//! ACS words after a boot with another command line.
//!
//! What the kernel writes depends on what firmware left, which nobody reads back. Two
//! things help: bits that come out the same whatever firmware left, and bits that the
//! present command line lets through from firmware, so that firmware's are there to be
//! seen. All others are taken to stay as they are, and that is said.

use super::acs::{all_redirects_cleared, note, put, words};
use super::iommu;
use crate::pcie::Fact;
use crate::pcie::acs::{self, Acs, AcsBits, AcsRegisters};
use crate::route::acs_boot::{AcsParameters, Before, DecidedBy, computes_wrong_word};
use crate::route::{Gate, Reason};
use crate::topology::{Builder, FunctionId, Topology};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// What a boot leaves in one control register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AfterBoot {
    /// Whose.
    pub function: FunctionId,
    /// Bits that are set.
    pub set: AcsBits,
    /// Bits that are clear.
    pub clear: AcsBits,
    /// Bits of the capability that hinge on what firmware left, or on what else the input
    /// does not tell.
    pub open: AcsBits,
}

/// All bits that have a meaning.
const ALL: AcsBits = AcsBits::from_bits_retain(0x7f);

/// Boots with `line`.
pub(super) fn boot(topology: &Topology, builder: &mut Builder, line: &str, assumed: &mut Vec<Reason>) {
    let iommu = iommu::boot(topology, builder, line, assumed);
    let present = topology.machine().command_line.as_deref();
    let before =
        present.map(|line| Boot { topology, parameters: AcsParameters::from_command_line(line), asked: iommu.now });
    let after = Boot { topology, parameters: AcsParameters::from_command_line(line), asked: iommu.then };
    if before.is_none() && after.parameters.names_ports() {
        assumed.push(Reason {
            gate: Gate::Assumed,
            object: "kernel".into(),
            evidence:
                "the present command line is not known, so ACS bits that the new one does not name are taken to stay"
                    .to_string(),
            fix: None,
        });
    }
    if after.parameters.names_ports()
        && let Some(kernel) = builder.machine().kernel
        && computes_wrong_word(kernel) != Fact::Known(false)
    {
        assumed.push(Reason {
            gate: Gate::Assumed,
            object: "kernel".into(),
            evidence: format!(
                "Linux {kernel} before April 2025 leaves bits set that firmware had set, whatever disable_acs_redir= and \
                 config_acs= say; taken to write what later ones do"
            ),
            fix: None,
        });
    }
    let mut unasked: Vec<String> = Vec::new();
    for (id, function) in topology.functions() {
        let Some(info) = builder.function_mut(function.address()) else { continue };
        let misread = acs::linux_reads_wrong_word(info.registers.id, info.registers.port_type);
        match &mut info.registers.acs {
            Acs::Absent(_) => {}
            Acs::Unknown(_) => {
                let outcome = after.outcome(id, ALL, Left::UNKNOWN);
                if outcome.named && outcome.clear.contains(AcsBits::REDIRECT) && !misread {
                    info.registers.acs = all_redirects_cleared();
                    assumed.push(note(
                        info,
                        "its ACS was not read; the command line clears RR, CR and EC there, and its other bits are taken \
                         to be clear",
                    ));
                }
            }
            Acs::Present(registers) => {
                let Rewritten { open, undone, named } = rewrite(registers, misread, id, before.as_ref(), &after);
                if !open.is_empty() && !named {
                    unasked.push(info.address.to_string());
                } else if !open.is_empty() {
                    let text = format!(
                        "{} come from firmware at that boot, which is not known, or from what an IOMMU driver asks for; \
                         taken to stay as they are now",
                        words(open)
                    );
                    assumed.push(note(info, &text));
                }
                if !undone.is_empty() {
                    let text = format!(
                        "{} are not what the present boot wrote, so something changed them since; a boot undoes that",
                        words(undone)
                    );
                    assumed.push(note(info, &text));
                }
            }
        }
    }
    if !unasked.is_empty() {
        assumed.push(Reason {
            gate: Gate::Assumed,
            object: unasked.join(" "),
            evidence:
                "what their ACS words become hinges on whether an IOMMU driver asks for ACS at that boot, and on \
                       what firmware leaves; taken to stay as they are now"
                    .into(),
            fix: None,
        });
    }
}

/// What a boot with `line` leaves in the register of one function.
pub fn left_by_boot(topology: &Topology, line: &str, function: FunctionId) -> AfterBoot {
    let iommu = iommu::boot(topology, &mut Builder::new(), line, &mut Vec::new());
    let after = Boot { topology, parameters: AcsParameters::from_command_line(line), asked: iommu.then };
    let before = topology.machine().command_line.as_deref().map(|line| Boot {
        topology,
        parameters: AcsParameters::from_command_line(line),
        asked: iommu.now,
    });
    let registers = topology.function(function).info().registers.acs.registers();
    let capability = registers.map_or(ALL, |registers| registers.capability & ALL);
    let left = match (before, registers.map(|registers| registers.control)) {
        (Some(before), Some(Fact::Known(word))) => {
            Left { known: before.outcome(function, capability, Left::UNKNOWN).from_firmware, word }
        }
        _ => Left::UNKNOWN,
    };
    let Outcome { clear, set, .. } = after.outcome(function, capability, left);
    AfterBoot { function, set: set & capability, clear, open: capability - clear - set }
}

/// What a reader has to know about a register's word after a boot.
struct Rewritten {
    /// Bits that were left as they are because nobody knows better, although the boot
    /// makes a difference to the function.
    open: AcsBits,
    /// Bits that only something after the present boot can have made what they are.
    undone: AcsBits,
    /// Whether a parameter names the function, on the present line or the new one.
    named: bool,
}

/// Gives one register its word after the boot.
fn rewrite(
    registers: &mut AcsRegisters,
    misread: bool,
    id: FunctionId,
    before: Option<&Boot<'_>>,
    after: &Boot<'_>,
) -> Rewritten {
    let capability = registers.capability & ALL;
    let none = AcsBits::empty();
    let earlier = before.map(|before| before.outcome(id, capability, Left::UNKNOWN));
    let control = registers.control.known();
    let left = match (&earlier, control) {
        (Some(earlier), Some(control)) => Left { known: earlier.from_firmware, word: control },
        _ => Left::UNKNOWN,
    };
    let outcome = after.outcome(id, capability, left);
    put(registers, misread, |control| (control - (outcome.clear & capability)) | (outcome.set & capability));
    let named = outcome.named || earlier.is_some_and(|earlier| earlier.named);
    let same = earlier.is_some_and(|earlier| earlier == after.outcome(id, capability, Left::UNKNOWN));
    let mut open = capability - outcome.clear - outcome.set;
    if !earlier.is_some_and(|earlier| earlier.named) {
        // Then it hinges on firmware's tables, which are the same for both boots.
        open -= AcsBits::TB;
    }
    let undone = earlier.zip(control).map_or(none, |(earlier, control)| {
        let changed_since = (control & earlier.clear) | (earlier.set - control);
        changed_since & capability & (registers.control.known().unwrap_or(control) ^ control)
    });
    let differs = if earlier.is_some() { !same } else { named };
    Rewritten { open: if differs { open } else { none }, undone, named }
}

/// What is known of the word that firmware left.
#[derive(Clone, Copy)]
struct Left {
    /// Which bits of `word` are firmware's.
    known: AcsBits,
    word: AcsBits,
}

impl Left {
    const UNKNOWN: Self = Self { known: AcsBits::empty(), word: AcsBits::empty() };
}

/// What a boot makes of one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    /// Bits that are clear whatever is not known.
    clear: AcsBits,
    /// Bits that are set whatever is not known.
    set: AcsBits,
    /// Bits that are what firmware left, whatever else is not known.
    from_firmware: AcsBits,
    /// Whether a parameter names the function.
    named: bool,
}

struct Boot<'t> {
    topology: &'t Topology,
    parameters: AcsParameters,
    /// Whether an IOMMU driver asks for ACS.
    asked: Fact<bool>,
}

impl Boot<'_> {
    /// Predicts for every way of filling in what is not known.
    fn outcome(&self, function: FunctionId, capability: AcsBits, left: Left) -> Outcome {
        let asked: &[bool] = match self.asked {
            Fact::Known(true) => &[true],
            Fact::Known(false) => &[false],
            Fact::Unknown => &[false, true],
        };
        let lowest = left.word & left.known;
        let highest = lowest | (capability - left.known);
        let mut outcome = Outcome { clear: ALL, set: ALL, from_firmware: ALL, named: false };
        for (&iommu_requested, external) in asked.iter().flat_map(|asked| [(asked, false), (asked, true)]) {
            let predict = |firmware| {
                self.parameters.predict(
                    self.topology,
                    function,
                    Before { capability, firmware, iommu_requested, external },
                )
            };
            let (low, high) = (predict(lowest), predict(highest));
            outcome.clear = outcome.clear - low.control - high.control;
            outcome.set &= low.control & high.control;
            outcome.from_firmware &= high.control - low.control;
            outcome.named |= low.decided_by != DecidedBy::Kernel;
        }
        outcome
    }
}
