//! The change for good: parameters of the kernel.
//!
//! Two exist (Linux 7.2 `pci_enable_acs`, `__pci_config_acs`). `disable_acs_redir=` clears
//! RR, CR and EC, and everything else falls back to what firmware left, so the kernel's
//! own SV and UF are lost. `config_acs=` writes what it names, and what it does not name
//! falls back the same way; so all bits are named here, and nothing but the wanted ones
//! changes. The kernel keeps one list of each, so lists on the present command line
//! are taken over into the new ones.

use super::{PlannedPair, PortChange, selector};
use crate::pcie::Fact;
use crate::pcie::acs::{self, AcsBits};
use crate::route::Judge;
use crate::route::acs_boot::{
    AcsParameters, CONFIG_ACS_SINCE, ConfigElement, DISABLE_ACS_REDIR_SINCE, computes_wrong_word, is_device,
};
use crate::route::change::{self, AfterBoot, Change};
use crate::topology::{FunctionId, KernelVersion, Topology};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Longest command line of x86 and arm64 kernels, in bytes (`COMMAND_LINE_SIZE`, its end
/// mark left out).
const LONGEST_LINE: usize = 2047;
/// The series whose writing of control words was read.
const READ_IN: (u32, u32) = (7, 2);

/// One parameter with its list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parameter {
    /// As it stands on a command line.
    pub argument: String,
    /// The option on the present line whose list it takes over: only one of each counts,
    /// so the old one comes off.
    pub replaces: Option<String>,
    /// The whole command line with it, the present lists taken over; `None` where the
    /// present line is not known.
    pub line: Option<String>,
    /// What it leaves in the registers of the ports to change.
    pub leaves: Vec<AfterBoot>,
    /// Whether the bits are what is wanted and every pair is judged as planned, whatever firmware
    /// left.
    pub suffices: bool,
    /// Whether the machine's kernel knows the parameter; `None` where its version is not told.
    pub known_to_kernel: Option<bool>,
}

/// Both ways of writing a change down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootParameters {
    /// `pci=disable_acs_redir=…`; `None` where bits are to be set, which it cannot.
    pub disable_acs_redir: Option<Parameter>,
    /// `pci=config_acs=…`.
    pub config_acs: Parameter,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

impl BootParameters {
    /// Writes the change of `ports` down, which is to make of `pairs` what they are then; `None`
    /// without ports.
    pub fn for_ports(topology: &Topology, ports: &[PortChange], pairs: &[PlannedPair]) -> Option<Self> {
        if ports.is_empty() {
            return None;
        }
        let present = topology.machine().command_line.as_deref();
        let lists = AcsParameters::from_command_line(present.unwrap_or_default());
        let kernel = topology.machine().kernel;
        let mut notes = Vec::new();
        for port in ports.iter().filter(|port| selector(topology, port.function).is_none()) {
            let address = topology.function(port.function).address();
            notes.push(format!(
                "what lies above {address} is not known, so it is named by its bus number, which may change when cards \
                 come and go"
            ));
        }
        let parameter = |option: &str, elements: Vec<String>, present_list: Option<&str>, since| {
            let kept = present_list.iter().flat_map(|list| list.split(';')).take_while(|element| is_read(element));
            // The first match counts, so the new ones stand first.
            let mut all = elements;
            for old in kept {
                if !all.iter().any(|new| new == old) {
                    all.push(old.to_string());
                }
            }
            let argument = format!("pci={option}={}", all.join(";"));
            let line = present.map(|line| with_argument(line, option, &argument));
            let replaces = present_list.map(|list| format!("{option}={list}"));
            finish(topology, ports, pairs, Written { argument, replaces, line }, kernel, since)
        };
        let clears_only = ports.iter().all(|port| port.set().is_empty());
        let disable_acs_redir = clears_only.then(|| {
            let elements = ports.iter().map(|port| named(topology, port.function)).collect();
            parameter("disable_acs_redir", elements, lists.disable_redir(), DISABLE_ACS_REDIR_SINCE)
        });
        let elements = ports.iter().map(|port| format!("{}@{}", flags(topology, port), named(topology, port.function)));
        let config_acs = parameter("config_acs", elements.collect(), lists.config(), CONFIG_ACS_SINCE);
        if present.is_none() {
            notes.push(
                "the present command line is not known: the kernel keeps one list of each of these options, so merge \
                 with what is there"
                    .into(),
            );
        }
        let length = |parameter: &Parameter| parameter.line.as_ref().unwrap_or(&parameter.argument).len();
        if length(&config_acs) > LONGEST_LINE {
            notes.push(format!(
                "the command line with config_acs= has {} bytes; kernels of x86 and arm64 cut it off after {LONGEST_LINE}",
                length(&config_acs)
            ));
        }
        notes.extend(kernel_notes(kernel, clears_only));
        if kernel.is_some_and(|version| version.series() != READ_IN) {
            notes.push(format!(
                "what each parameter leaves behind was read in Linux {}.{}; other kernels may leave other bits",
                READ_IN.0, READ_IN.1
            ));
        }
        Some(Self { disable_acs_redir, config_acs, notes })
    }

    /// The one to use: that which the kernel knows and which does what is wanted; of two,
    /// `config_acs=`, since it keeps the other bits and so more isolation. Where the kernel's
    /// version is not told, `disable_acs_redir=`: more kernels know it, and one that does not
    /// know an option ignores it. `None` where neither does it.
    pub fn preferred(&self) -> Option<&Parameter> {
        let (config, disable) = (Some(&self.config_acs), self.disable_acs_redir.as_ref());
        let works = |known| move |parameter: &&Parameter| parameter.suffices && parameter.known_to_kernel == known;
        let mut sure = [config, disable].into_iter().flatten();
        let mut likely = [disable, config].into_iter().flatten();
        sure.find(works(Some(true))).or_else(|| likely.find(works(None)))
    }
}

/// What the kernel's version has to do with the choice.
fn kernel_notes(kernel: Option<KernelVersion>, both: bool) -> Option<String> {
    let since = format!("{}.{}", CONFIG_ACS_SINCE.0, CONFIG_ACS_SINCE.1);
    let wrong = "computes the words of disable_acs_redir= and config_acs= from what firmware left, so bits that firmware \
                 set stay set, and reads only the first element of config_acs=";
    let Some(version) = kernel else {
        let choice = if both { ", so disable_acs_redir=, which older ones know too, comes first" } else { "" };
        return Some(format!(
            "the kernel's version is not told, and config_acs= is known from {since} on{choice}; give it with --kernel"
        ));
    };
    match computes_wrong_word(version) {
        Fact::Known(false) => None,
        Fact::Known(true) => Some(format!("Linux {version} {wrong}; a release from after April 2025 does not")),
        Fact::Unknown => {
            Some(format!("Linux {version} before April 2025 {wrong}; give the release, such as --kernel {version}.30"))
        }
    }
}

/// The line for the end of `/etc/default/grub`, or for a file below `/etc/default/grub.d`
/// where a distribution reads those.
///
/// Both are read by a shell, which leaves the `\` before a `;` alone inside double quotes;
/// GRUB's own language then needs it, since a bare `;` ends a command there.
pub fn grub_default_line(argument: &str) -> String {
    format!("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX {}\"", grub_quoted(argument))
}

/// An argument with what GRUB's language would take for its own escaped.
pub fn grub_quoted(argument: &str) -> String {
    argument.replace(';', "\\;")
}

/// Whether the kernel can read an element of either list. At the first that it cannot it
/// stops, so nothing from there on ever counted. What is left of a stranger's command line
/// is hexadecimal digits and separators: nothing that a shell would run.
fn is_read(element: &str) -> bool {
    is_device(element) || ConfigElement::read(element).is_some_and(|element| is_device(element.device))
}

/// A function by its path, else by its address.
fn named(topology: &Topology, function: FunctionId) -> String {
    selector(topology, function).unwrap_or_else(|| topology.function(function).address().to_string())
}

/// All bits that the capability offers, as they are wanted; `x` for those it does not.
fn flags(topology: &Topology, port: &PortChange) -> String {
    let registers = topology.function(port.function).info().registers.acs.registers();
    let (capability, control) = registers.map_or((AcsBits::empty(), AcsBits::empty()), |registers| {
        (registers.capability, registers.control.known().unwrap_or(AcsBits::empty()))
    });
    let wanted = (control - port.clear()) | port.set();
    let flag = |bit: AcsBits| match (capability.contains(bit), wanted.contains(bit)) {
        (false, _) => 'x',
        (true, true) => '1',
        (true, false) => '0',
    };
    // The last character is bit 0.
    (0..7).rev().map(|n| flag(AcsBits::from_bits_retain(1 << n))).collect()
}

/// `line` with every `option=` inside its `pci=` arguments taken out and `argument` added
/// before what is for init.
fn with_argument(line: &str, option: &str, argument: &str) -> String {
    let prefix = format!("{option}=");
    let mut words: Vec<String> = Vec::new();
    let mut for_init = false;
    for word in words_with_quotes(line) {
        if word == "--" && !for_init {
            words.push(argument.to_string());
            for_init = true;
        }
        let bare = word.trim_matches('"');
        let options = bare.strip_prefix("pci=").filter(|_| !for_init).map(|options| options.trim_matches('"'));
        let Some(options) = options.filter(|options| options.split(',').any(|option| option.starts_with(&prefix)))
        else {
            words.push(word.to_string());
            continue;
        };
        let kept: Vec<&str> = options.split(',').filter(|option| !option.starts_with(&prefix)).collect();
        if !kept.is_empty() {
            words.push(format!("pci={}", kept.join(",")));
        }
    }
    if !for_init {
        words.push(argument.to_string());
    }
    words.join(" ")
}

/// Splits at white space outside double quotes, and leaves the quotes where they are.
fn words_with_quotes(line: &str) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let parts = line.split(move |character: char| {
        quoted ^= character == '"';
        character.is_ascii_whitespace() && !quoted
    });
    parts.filter(|part| !part.is_empty())
}

/// A parameter in words.
struct Written {
    argument: String,
    replaces: Option<String>,
    line: Option<String>,
}

/// What a boot with the parameter leaves behind.
fn finish(
    topology: &Topology,
    ports: &[PortChange],
    pairs: &[PlannedPair],
    Written { argument, replaces, line }: Written,
    kernel: Option<KernelVersion>,
    since: (u32, u32),
) -> Parameter {
    let booted = line.as_deref().unwrap_or(&argument);
    let leaves: Vec<AfterBoot> =
        ports.iter().map(|port| change::left_by_boot(topology, booted, port.function)).collect();
    let suffices = ports.iter().zip(&leaves).all(|(port, left)| {
        let info = topology.function(port.function).info();
        // The hook for these clears RR, CR and EC whatever bits a parameter names.
        let only_redirects = AcsBits::REDIRECT.contains(port.clear()) && port.set().is_empty();
        let hooked = acs::linux_reads_wrong_word(info.registers.id, info.registers.port_type);
        left.clear.contains(port.clear()) && left.set.contains(port.set()) && (!hooked || only_redirects)
    });
    let suffices = suffices && kernel.is_none_or(|kernel| computes_wrong_word(kernel) != Fact::Known(true));
    let suffices = suffices && holds_whatever_is_left(topology, &leaves, pairs);
    let known_to_kernel = kernel.map(|version| version.series() >= since);
    Parameter { argument, replaces, line, leaves, suffices, known_to_kernel }
}

/// Whether the pairs come out as planned for every filling in of the bits that firmware decides.
///
/// All ports are filled in alike. Losing the kernel's own UF matters where a pair turns
/// round at the port: undefined then.
fn holds_whatever_is_left(topology: &Topology, leaves: &[AfterBoot], pairs: &[PlannedPair]) -> bool {
    let open = leaves.iter().fold(0, |open, left| open | left.open.bits());
    // Every part of the open bits, from none to all.
    let mut fills =
        core::iter::successors(Some(0_u16), |&fill| (fill != open).then(|| (fill | !open).wrapping_add(1) & open));
    fills.all(|fill| {
        let changes: Vec<Change> =
            leaves.iter().map(|left| filled(topology, left, AcsBits::from_bits_retain(fill))).collect();
        let Ok(changed) = change::apply(topology, &changes) else { return false };
        let judge = Judge::new(&changed.topology);
        pairs.iter().all(|PlannedPair { then, .. }| {
            let now = judge.judge(then.initiator, &then.target);
            (now.verdict, now.read, now.write) == (then.verdict, then.read, then.write)
        })
    })
}

/// The word that a boot leaves, the open bits filled in.
fn filled(topology: &Topology, left: &AfterBoot, fill: AcsBits) -> Change {
    let registers = topology.function(left.function).info().registers.acs.registers();
    let (capability, control) = registers.map_or((AcsBits::empty(), AcsBits::empty()), |registers| {
        (registers.capability, registers.control.known().unwrap_or(AcsBits::empty()))
    });
    let set = (left.set | (left.open & fill)) & capability;
    let clear = (left.clear | (left.open - fill)) & capability;
    Change::Acs { function: left.function, clear: clear & control, set: set - control }
}
