//! `disable_acs_redir=` and `config_acs=`: lists of ports inside `pci=`.
//!
//! Linux 7.2 `pci_setup` cuts `pci=` at commas and keeps one pointer for each list, so
//! a list ends at the first comma and the last list of a kind is the only one.
//! `__pci_config_acs` walks it, elements apart by `;`, anew for every function, and
//! stops for good at the first element that it cannot read.

use super::{Argument, Code, Finding, Line, listed};
use crate::pcie::Fact;
use crate::pcie::acs::AcsBits;
use crate::route::acs_boot::{
    CONFIG_ACS_SINCE, ConfigElement, DISABLE_ACS_REDIR_SINCE, computes_wrong_word, is_device,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Which parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    DisableRedir,
    Config,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::DisableRedir, Self::Config];

    /// The option inside `pci=`.
    pub(super) const fn option(self) -> &'static str {
        match self {
            Self::DisableRedir => "disable_acs_redir=",
            Self::Config => "config_acs=",
        }
    }

    /// The series that first had it.
    const fn since(self) -> (u32, u32) {
        match self {
            Self::DisableRedir => DISABLE_ACS_REDIR_SINCE,
            Self::Config => CONFIG_ACS_SINCE,
        }
    }

    /// Whether `text` has the form of one element.
    fn is_element(self, text: &str) -> bool {
        match self {
            Self::DisableRedir => is_device(text),
            Self::Config => text.split_once('@').is_some_and(|(_, device)| is_device(device)) || is_device(text),
        }
    }
}

/// One list as it stands in the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct List<'l> {
    pub(super) kind: Kind,
    argument: &'l str,
    text: &'l str,
    /// What a comma or a space cut off.
    lost: Vec<&'l str>,
    by_space: bool,
}

impl<'l> List<'l> {
    /// The elements that the kernel sees; one after a last `;` is none.
    pub(super) fn elements(&self) -> impl Iterator<Item = &'l str> + use<'l> {
        /// More than any command line holds.
        const MAX: usize = 1024;
        let text = self.text.strip_suffix(';').unwrap_or(self.text);
        text.split(';').take(MAX)
    }
}

/// The arguments that hold lists of one kind as a single one: `elements` are the list, and what
/// else stands in those arguments stays.
fn rewritten(lists: &[&List<'_>], elements: &[&str]) -> String {
    let mut options: Vec<String> = Vec::new();
    let mut is_placed = false;
    for (nth, list) in lists.iter().enumerate() {
        // Two lists of one argument share its text.
        if lists[..nth].iter().any(|before| core::ptr::eq(before.argument, list.argument)) {
            continue;
        }
        for option in Argument::read(list.argument).pci_options() {
            if option.starts_with(list.kind.option()) {
                if !is_placed {
                    options.push(format!("{}{}", list.kind.option(), elements.join(";")));
                }
                is_placed = true;
            } else if !option.split(';').all(|part| list.kind.is_element(part)) {
                options.push(option.to_string());
            }
        }
    }
    format!("pci={}", options.join(","))
}

/// All lists of a line, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lists<'l> {
    all: Vec<List<'l>>,
}

impl<'l> Lists<'l> {
    pub(super) fn of(line: &Line<'l>) -> Self {
        let mut all: Vec<List<'l>> = Vec::new();
        // Whether the argument before ended with a list.
        let mut at_list = false;
        for argument in &line.arguments {
            let is_lost = |list: &List<'_>, text: &str| list.kind.is_element(text.trim_matches(';'));
            if at_list
                && argument.value.is_none()
                && let Some(list) = all.last_mut()
                && is_lost(list, argument.text)
            {
                list.lost.push(argument.text.trim_matches(';'));
                list.by_space = true;
                continue;
            }
            at_list = false;
            let before = all.len();
            for option in argument.pci_options() {
                let kind = Kind::ALL.into_iter().find(|kind| option.starts_with(kind.option()));
                let in_argument = all.len() > before;
                match (kind, all.last_mut().filter(|_| in_argument)) {
                    (Some(kind), _) => {
                        let text = &option[kind.option().len()..];
                        all.push(List { kind, argument: argument.text, text, lost: Vec::new(), by_space: false });
                        at_list = true;
                    }
                    (None, Some(list)) if option.split(';').all(|part| is_lost(list, part)) => {
                        list.lost.extend(option.split(';'));
                        at_list = true;
                    }
                    _ => at_list = false,
                }
            }
        }
        Self { all }
    }

    /// The list of a kind that counts: the last.
    pub(super) fn effective(&self, kind: Kind) -> Option<&List<'l>> {
        self.all.iter().rfind(|list| list.kind == kind)
    }

    /// Whether any list that counts clears a redirecting bit, as far as its text tells.
    pub(super) fn clears_redirects(&self) -> bool {
        let disables = self.effective(Kind::DisableRedir).is_some_and(|list| list.elements().any(is_device));
        let config = self.effective(Kind::Config).into_iter().flat_map(List::elements);
        let mut read = config.map_while(ConfigElement::read).filter(|element| is_device(element.device));
        disables || read.any(|element| (element.mask - element.value).intersects(AcsBits::REDIRECT))
    }

    /// The first element that asks for direct translated requests.
    pub(super) fn direct_translated(&self) -> Option<&'l str> {
        let elements = self.effective(Kind::Config)?.elements();
        elements
            .into_iter()
            .find(|text| ConfigElement::read(text).is_some_and(|element| element.value.contains(AcsBits::DT)))
    }

    pub(super) fn check(&self, line: &Line<'_>, findings: &mut Vec<Finding>) {
        for list in self.all.iter().filter(|list| !list.lost.is_empty()) {
            findings.push(cut(list));
        }
        for kind in Kind::ALL {
            let lists: Vec<&List<'l>> = self.all.iter().filter(|list| list.kind == kind).collect();
            let Some(last) = lists.last() else { continue };
            if lists.len() > 1 {
                findings.push(repeated(&lists));
            }
            let (major, minor) = kind.since();
            if line.machine.is_before(major, minor)
                && let Some(kernel) = line.machine.kernel
            {
                let option = kind.option();
                let what = format!("Linux {kernel} does not have {option} yet, it came with {major}.{minor}");
                findings.push(Finding::new(Code::KernelTooOld, last.argument, what));
            }
            check_elements(last, findings);
            if let Some(finding) = misread(last, line) {
                findings.push(finding);
            }
        }
    }
}

/// A list that ended too early, with what belongs to it.
fn cut(list: &List<'_>) -> Finding {
    let whole: Vec<&str> = list.elements().chain(list.lost.iter().copied()).collect();
    let lost = listed(&list.lost);
    let (code, what) = if list.by_space {
        (Code::ListCutBySpace, format!("a space ends an argument, so the list ends before {lost}"))
    } else {
        let what = format!("commas separate options of pci=, so the list ends before {lost}, which the kernel ignores");
        (Code::ListCutByComma, what)
    };
    Finding::new(code, list.argument, what).fix(rewritten(&[list], &whole))
}

fn repeated(lists: &[&List<'_>]) -> Finding {
    let (kind, last) = (lists[0].kind, lists[lists.len() - 1]);
    let mut merged: Vec<&str> = Vec::new();
    for element in lists.iter().flat_map(|list| list.elements().chain(list.lost.iter().copied())) {
        if !element.is_empty() && !merged.contains(&element) {
            merged.push(element);
        }
    }
    let what = format!(
        "{} stands {} times; the kernel keeps one list, the last, so only {} counts",
        kind.option(),
        lists.len(),
        if last.text.is_empty() { "an empty list" } else { last.text }
    );
    Finding::new(Code::RepeatedList, lists[0].argument, what).fix(rewritten(lists, &merged))
}

/// Reads the elements as the kernel does, up to the first that it cannot read.
fn check_elements(list: &List<'_>, findings: &mut Vec<Finding>) {
    let elements: Vec<&str> = list.elements().collect();
    if elements == [""] {
        let what = format!("{} names no port", list.kind.option());
        findings.push(Finding::new(Code::EmptyList, list.argument, what));
        return;
    }
    for (nth, &element) in elements.iter().enumerate() {
        if elements[..nth].contains(&element) {
            let what = "stands in the list before, and the first match counts";
            findings.push(Finding::new(Code::ShadowedElement, element, what));
            continue;
        }
        let Some((code, trouble, fix)) = trouble(list.kind, element) else {
            if list.kind == Kind::Config && ConfigElement::read(element).is_some_and(|element| element.mask.is_empty())
            {
                // The word starts from the firmware's (`__pci_config_acs`).
                let what = "writes no bit, and takes back what the kernel itself enabled for the IOMMU";
                findings.push(Finding::new(Code::NothingChanges, element, what));
            }
            continue;
        };
        let after = elements.len() - nth - 1;
        let rest = match after {
            0 => String::new(),
            1 => format!("; the element after it, {}, is not read either", elements[nth + 1]),
            _ => format!("; the {after} elements after it are not read either"),
        };
        let argument = if element.is_empty() { list.argument } else { element };
        let mut finding = Finding::new(code, argument, format!("{trouble}{rest}"));
        finding.fix = fix;
        findings.push(finding);
        return;
    }
}

/// Why the kernel cannot read an element.
fn trouble(kind: Kind, element: &str) -> Option<(Code, String, Option<String>)> {
    let stray = |c: &char| matches!(c, '\\' | '\'' | '"');
    if let Some(c) = element.chars().find(stray) {
        let what = format!("{c} belongs to a boot loader's or shell's quoting and was left in the list");
        let clean: String = element.chars().filter(|c| !stray(c)).collect();
        return Some((Code::StrayCharacter, what, Some(clean)));
    }
    let device = match (kind, element.split_once('@')) {
        (Kind::DisableRedir, None) => element,
        (Kind::DisableRedir, Some(_)) => {
            let what = "flags belong to config_acs=; disable_acs_redir= takes devices alone".to_string();
            return Some((Code::UnreadableElement, what, Some(format!("pci=config_acs={element}"))));
        }
        (Kind::Config, None) => {
            let what =
                "every element of config_acs= needs flags of its own (x0x00xx clears what redirects)".to_string();
            let fix = is_device(element).then(|| format!("x0x00xx@{element}"));
            return Some((Code::FlagsMissing, what, fix));
        }
        (Kind::Config, Some((flags, device))) => {
            if ConfigElement::read(element).is_none() {
                return Some((Code::FlagsInvalid, flag_trouble(flags), None));
            }
            device
        }
    };
    (!is_device(device)).then(|| {
        let what =
            format!("{device:?} is neither [domain:]bus:device.function[/device.function]* nor pci:vendor:device");
        (Code::UnreadableElement, what, None)
    })
}

fn flag_trouble(flags: &str) -> String {
    match flags.chars().find(|c| !matches!(c, '0' | '1' | 'x' | 'X')) {
        Some(c) => format!("{c:?} is no flag: each is 0, 1 or x, from DT on the left to SV on the right"),
        None => "flags are DT EC UF CR RR TB SV from left to right; a 0 or 1 before those is of no bit".to_string(),
    }
}

/// Kernels that lose the elements after the first.
fn misread(list: &List<'_>, line: &Line<'_>) -> Option<Finding> {
    let kernel = line.machine.kernel?;
    let affected = computes_wrong_word(kernel) == Fact::Known(true);
    (affected && list.elements().nth(1).is_some()).then(|| {
        let what =
            format!("Linux {kernel} misreads lists of several elements, so not all of these ports are configured");
        Finding::new(Code::ListMisreadByKernel, list.argument, what)
            .fix("boot 6.15 or a stable release from after April 2025, or clear the ports with setpci")
    })
}

impl<'l> Argument<'l> {
    /// An option of `pci=` that stands as an argument of its own, which the kernel hands to init.
    pub(super) fn as_list_outside_pci(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.option().strip_suffix('=') == Some(&self.name))
    }
}
