//! What is wrong with a kernel command line, for somebody who wants peer traffic.
//!
//! Three kinds of trouble: parameters that do nothing, because they are misspelt, cut
//! off, overridden, or exist in no kernel (`names`); lists of ports that the kernel
//! reads otherwise than they were meant (`lists`), or that miss on this very machine
//! (`ports`); and IOMMU settings that contradict each other or the goal (`iommu`).
//!
//! Nothing is accused on suspicion. An option that is not known here is passed over,
//! unless it is one letter off a known one or in the list of folklore; what depends on
//! the machine is said only where the machine is known.

mod iommu;
mod lists;
mod names;
mod ports;

use crate::pcie::Fact;
use crate::route::acs_boot;
use crate::topology::{CpuVendor, KernelVersion, Machine, Topology};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Severity {
    /// The line does not do what it says.
    Finding,
    /// It does, and could be written better.
    Advice,
}

impl Severity {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::Advice => "advice",
        }
    }
}

/// What kind of trouble.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Code {
    /// A comma ended a list of ports.
    ListCutByComma,
    /// A space ended a list of ports.
    ListCutBySpace,
    /// Several lists of one kind, of which the kernel keeps the last.
    RepeatedList,
    /// A list without a port.
    EmptyList,
    /// An element that is neither a path nor IDs; the list ends there.
    UnreadableElement,
    /// A backslash or quote that a boot loader's configuration left in the list.
    StrayCharacter,
    /// An element of `config_acs=` without flags of its own.
    FlagsMissing,
    /// Flags other than `0`, `1`, `x`, or of a bit above DT.
    FlagsInvalid,
    /// An element that an earlier one makes void.
    ShadowedElement,
    /// An element that no function of the machine is.
    MatchesNothing,
    /// An element whose functions have no ACS capability.
    NoAcs,
    /// An element that writes no bit that its functions have.
    NothingChanges,
    /// Flags for bits that the function's capability lacks.
    BitsNotThere,
    /// Flags for a port whose vendor hook obeys none.
    FlagsNotObeyed,
    /// `config_acs=` takes the place of `disable_acs_redir=` for a function that both name.
    ReplacedByConfigAcs,
    /// A bus number, which the next card may change.
    BusNumber,
    /// A kernel that does not have the parameter yet.
    KernelTooOld,
    /// A kernel that misreads lists of several elements.
    ListMisreadByKernel,
    /// A parameter or value that no kernel has.
    DoesNotExist,
    /// A name or value one slip off a known one.
    Misspelt,
    /// An option of `pci=` that stands alone.
    OutsidePci,
    /// A value that is none of the parameter's.
    InvalidValue,
    /// Behind `--`, where arguments are init's.
    AfterDashes,
    /// A quote that is not closed and swallows what follows.
    OpenQuote,
    /// A parameter of another architecture or vendor.
    OtherHardware,
    /// Settings of the IOMMU that contradict each other.
    IommuContradiction,
    /// Ports are cleared while device addresses stay translated.
    TranslatedWhileCleared,
    /// Passthrough on Arm before Linux 6.11.
    PassthroughOnOldSmmu,
    /// Direct translated requests without translation services.
    DirectTranslatedWithoutAts,
    /// Bouncing forced, which device memory cannot be.
    ForcedBouncing,
}

impl Code {
    /// The word used in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ListCutByComma => "list_cut_by_comma",
            Self::ListCutBySpace => "list_cut_by_space",
            Self::RepeatedList => "repeated_list",
            Self::EmptyList => "empty_list",
            Self::UnreadableElement => "unreadable_element",
            Self::StrayCharacter => "stray_character",
            Self::FlagsMissing => "flags_missing",
            Self::FlagsInvalid => "flags_invalid",
            Self::ShadowedElement => "shadowed_element",
            Self::MatchesNothing => "matches_nothing",
            Self::NoAcs => "no_acs",
            Self::NothingChanges => "nothing_changes",
            Self::BitsNotThere => "bits_not_there",
            Self::FlagsNotObeyed => "flags_not_obeyed",
            Self::ReplacedByConfigAcs => "replaced_by_config_acs",
            Self::BusNumber => "bus_number",
            Self::KernelTooOld => "kernel_too_old",
            Self::ListMisreadByKernel => "list_misread_by_kernel",
            Self::DoesNotExist => "does_not_exist",
            Self::Misspelt => "misspelt",
            Self::OutsidePci => "outside_pci",
            Self::InvalidValue => "invalid_value",
            Self::AfterDashes => "after_dashes",
            Self::OpenQuote => "open_quote",
            Self::OtherHardware => "other_hardware",
            Self::IommuContradiction => "iommu_contradiction",
            Self::TranslatedWhileCleared => "translated_while_cleared",
            Self::PassthroughOnOldSmmu => "passthrough_on_old_smmu",
            Self::DirectTranslatedWithoutAts => "direct_translated_without_ats",
            Self::ForcedBouncing => "forced_bouncing",
        }
    }

    /// Advice for what works and could be written better, a finding for all else.
    pub const fn severity(self) -> Severity {
        match self {
            Self::BusNumber | Self::ShadowedElement => Severity::Advice,
            _ => Severity::Finding,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One thing that is wrong with a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What kind of trouble.
    pub code: Code,
    /// The argument, option or element concerned, as it stands in the line.
    pub argument: String,
    /// What the kernel does with it, and why.
    pub what: String,
    /// What to write instead, where there is something.
    pub fix: Option<String>,
}

impl Finding {
    fn new(code: Code, argument: impl Into<String>, what: impl Into<String>) -> Self {
        Self { code, argument: argument.into(), what: what.into(), fix: None }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// How much it weighs.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.code, self.argument, self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// Finds what is wrong with `line`.
///
/// `topology` is the machine that the line is for, as far as it is known: its kernel and
/// CPU decide which parameters there are, its functions which ports a list names. Without
/// functions or facts the rules that need them are silent.
///
/// Findings come in the order of the line's arguments within each kind of trouble.
///
/// ```
/// use peerdma::route::lint::{Code, lint};
///
/// let findings = lint("quiet pci=disable_acs_redir=0000:00:01.0,0000:00:02.0", None);
/// assert_eq!(findings[0].code, Code::ListCutByComma);
/// assert_eq!(findings[0].fix.as_deref(), Some("pci=disable_acs_redir=0000:00:01.0;0000:00:02.0"));
/// assert!(lint("intel_iommu=on iommu=pt", None).is_empty());
/// ```
pub fn lint(line: &str, topology: Option<&Topology>) -> Vec<Finding> {
    let line = Line::read(line, topology);
    let mut findings = Vec::new();
    names::check(&line, &mut findings);
    let lists = lists::Lists::of(&line);
    lists.check(&line, &mut findings);
    if let Some(topology) = topology.filter(|topology| topology.functions().len() != 0) {
        ports::check(&lists, topology, &mut findings);
    } else {
        ports::advise_without_machine(&lists, &mut findings);
    }
    iommu::check(&line, &lists, &mut findings);
    findings
}

/// The parameter that lets device addresses pass through untranslated on this machine.
pub fn passthrough_parameter(machine: &Machine) -> &'static str {
    iommu::passthrough_word(machine.cpu.as_ref().map(|cpu| &cpu.vendor))
}

/// A command line, cut into arguments, and what is known of the machine it is for.
struct Line<'l> {
    text: &'l str,
    arguments: Vec<Argument<'l>>,
    after_dashes: Vec<Argument<'l>>,
    machine: MachineFacts,
}

/// What rules ask about the machine.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct MachineFacts {
    kernel: Option<KernelVersion>,
    vendor: Option<CpuVendor>,
    in_guest: bool,
}

impl MachineFacts {
    /// Whether the CPU is known to be none of x86's.
    fn is_arm(&self) -> bool {
        self.vendor == Some(CpuVendor::Arm)
    }

    /// Whose IOMMU the machine can have at most. A virtual machine has the one that its monitor
    /// shows, on an AMD CPU often Intel's.
    fn iommu_vendor(&self) -> Option<&CpuVendor> {
        self.vendor.as_ref().filter(|vendor| !self.in_guest || **vendor == CpuVendor::Arm)
    }

    /// Whether the kernel is known to be of an earlier series.
    fn is_before(&self, major: u32, minor: u32) -> bool {
        self.kernel.is_some_and(|kernel| kernel.series() < (major, minor))
    }
}

/// One argument: `name`, or `name=value`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Argument<'l> {
    text: &'l str,
    /// As the kernel compares names: `-` and `_` are one (`parameq`).
    name: String,
    /// Without the quotes around it.
    value: Option<&'l str>,
}

impl<'l> Argument<'l> {
    fn read(text: &'l str) -> Self {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.trim_matches('"'))),
            None => (text, None),
        };
        Self { text, name: name.replace('-', "_"), value }
    }

    /// The options of `pci=`.
    fn pci_options(&self) -> impl Iterator<Item = &'l str> + use<'l> {
        self.value.filter(|_| self.name == "pci").into_iter().flat_map(|value| value.split(','))
    }
}

impl<'l> Line<'l> {
    /// The longest line that is read; kernels take 2048 or 4096 bytes.
    const MAX: usize = 1 << 16;

    fn read(text: &'l str, topology: Option<&Topology>) -> Self {
        let mut end = text.len().min(Self::MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        let before = acs_boot::arguments(text).len();
        let words = acs_boot::words(text);
        let after = words.get(before + 1..).unwrap_or_default();
        let machine = topology.map(|topology| topology.machine());
        Self {
            text,
            arguments: words.iter().take(before).map(|&word| Argument::read(word)).collect(),
            after_dashes: after.iter().map(|&word| Argument::read(word)).collect(),
            machine: MachineFacts {
                kernel: machine.and_then(|machine| machine.kernel),
                vendor: machine.and_then(|machine| machine.cpu.as_ref().map(|cpu| cpu.vendor.clone())),
                in_guest: machine.is_some_and(|machine| machine.in_guest == Fact::Known(true)),
            },
        }
    }

    /// The values of all arguments of this name, with the argument.
    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = (&'s Argument<'l>, &'l str)> + 's {
        self.arguments
            .iter()
            .filter(move |argument| argument.name == name)
            .filter_map(|argument| Some((argument, argument.value?)))
    }
}

/// Writes a list of words the way people do.
fn listed(words: &[&str]) -> String {
    words.join(", ")
}

#[cfg(test)]
mod tests;
