//! The line that opens a function's block.
//!
//! ```text
//! 0000:00:1c.0/02:00.0 3D controller [0302]: NVIDIA Corporation Device [10de:2330] (rev a1) (prog-if 00 [x])
//! 00:1c.0/00.0 0302: 10de:2330 (rev a1)
//! ```

use crate::pci_names::{id, number};
use peerdma::pcie::{ClassCode, DevFn, PciAddr, PciId};

/// A bus number has eight bits and every bridge leads to a higher one.
const DEEPEST: usize = 256;

/// What the opening line says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub(super) path: Path<'a>,
    /// Class in words, empty where only the number is given.
    pub(super) class_name: &'a str,
    /// Base class and subclass in numbers.
    pub(super) class_code: Option<u16>,
    pub(super) prog_if: Option<u8>,
    pub(super) id: Option<PciId>,
    /// Vendor and device in words, without numbers in brackets.
    pub(super) name: &'a str,
}

/// An address as `lspci` writes it, with the bridges above it where `-P` was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<'a> {
    pub(super) text: &'a str,
    pub(super) first: PciAddr,
    /// What follows the first element, `02:00.0/03:01.0` or `00.0/01.0`.
    below: Option<&'a str>,
}

/// One element of a path after the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Element {
    /// Missing with a single `-P`.
    pub(super) bus: Option<u8>,
    pub(super) devfn: DevFn,
}

impl<'a> Head<'a> {
    /// Reads a line; `None` if it does not open a block.
    pub(super) fn read(line: &'a str) -> Option<Self> {
        let (path, rest) = Path::read(line)?;
        let (class, name) = super::details::split(rest).unwrap_or((rest, ""));
        let (class_name, class_code) = class_of(class);
        let (name, prog_if) = without_suffixes(name.trim_end());
        let mut head = Self { path, class_name, class_code, prog_if, id: None, name };
        head.split_numbers();
        Some(head)
    }

    /// Reads only the address of a line whose end is missing; the blank after it
    /// shows that it is whole.
    pub(super) fn address_only(line: &'a str) -> Option<Self> {
        let (path, _) = Path::read(line)?;
        Some(Self { path, class_name: "", class_code: None, prog_if: None, id: None, name: "" })
    }

    /// Takes the numbers out of the name.
    fn split_numbers(&mut self) {
        if let Some(number) = id(self.name) {
            (self.id, self.name) = (Some(number), "");
            return;
        }
        let Some((name, last)) = self.name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) else { return };
        if let Some(number) = id(last) {
            (self.id, self.name) = (Some(number), name.trim_end());
        } else if let Some(class) = number(last)
            && self.class_code.is_none()
            && crate::pci_names::PciNames::built_in().class(self.class_name).map(ClassCode::base_and_sub) == Some(class)
        {
            // Posts that were put together by hand have the class behind the name.
            (self.class_code, self.name) = (Some(class), name.trim_end());
        }
    }
}

/// Splits `3D controller [0302]`, `Class 0302`, `0302`.
fn class_of(text: &str) -> (&str, Option<u16>) {
    if let Some(code) = number(text.strip_prefix("Class ").unwrap_or(text)) {
        return ("", Some(code));
    }
    let split = text.strip_suffix(']').and_then(|text| text.rsplit_once('['));
    match split.and_then(|(name, code)| Some((name, number(code)?))) {
        Some((name, code)) => (name.trim_end(), Some(code)),
        None => (text, None),
    }
}

/// Takes `(rev a1)` and `(prog-if 02 [NVM Express])` off the end.
fn without_suffixes(mut name: &str) -> (&str, Option<u8>) {
    let mut prog_if = None;
    // A programming interface's name may hold parentheses of its own.
    if name.ends_with(')')
        && let Some((rest, suffix)) = name.rsplit_once(" (prog-if ")
    {
        prog_if = suffix.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        name = rest;
    }
    if name.ends_with(')')
        && let Some((rest, _)) = name.rsplit_once(" (rev ")
    {
        name = rest;
    }
    (name.trim_end(), prog_if)
}

impl<'a> Path<'a> {
    /// Reads the path that a line starts with, and what follows the blank after it.
    fn read(line: &'a str) -> Option<(Self, &'a str)> {
        let bytes = line.as_bytes();
        let len =
            bytes.iter().take_while(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'/')).count();
        if bytes.get(len) != Some(&b' ') {
            return None;
        }
        let text = &line[..len];
        let (first, below) = match text.split_once('/') {
            Some((first, below)) => (first, Some(below)),
            None => (text, None),
        };
        // Always with leading zeros, unlike the times of day in front of log lines.
        if !matches!(first.len(), 7 | 12..=16) {
            return None;
        }
        let path = Self { text, first: first.parse().ok()?, below };
        let mut count = 0;
        for element in path.raw_elements() {
            Element::read(element)?;
            count += 1;
        }
        (count < DEEPEST).then_some((path, &line[len + 1..]))
    }

    fn raw_elements(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.below.into_iter().flat_map(|below| below.split('/'))
    }

    /// The elements after the first.
    pub(super) fn elements(&self) -> impl Iterator<Item = Element> + use<'a> {
        self.raw_elements().filter_map(Element::read)
    }

    /// Whether bridges stand before the function.
    pub(super) fn is_below(&self) -> bool {
        self.below.is_some()
    }
}

impl Element {
    fn read(text: &str) -> Option<Self> {
        let (bus, devfn) = match text.split_once(':') {
            Some((bus, devfn)) => (Some(two_digits(bus)?), devfn),
            None => (None, text),
        };
        let (device, function) = devfn.split_once('.')?;
        let function = function.parse().ok().filter(|_| function.len() == 1)?;
        Some(Self { bus, devfn: DevFn::from_parts(two_digits(device)?, function)? })
    }
}

fn two_digits(text: &str) -> Option<u8> {
    let whole = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| u8::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(line: &str) -> Head<'_> {
        Head::read(line).unwrap()
    }

    #[test]
    fn numbers_are_found_in_every_form_that_lspci_and_people_write() {
        for (line, class, id, name) in [
            (
                "00:00.0 Host bridge: Intel Corporation Device 09a2 (rev 20)",
                None,
                None,
                "Intel Corporation Device 09a2",
            ),
            ("00:00.0 0600: 8086:29c0 (rev 01)", Some(0x0600), Some("8086:29c0"), ""),
            ("0000:00:00.0 Class 0600: 8086:29c0", Some(0x0600), Some("8086:29c0"), ""),
            (
                "00:00.0 Host bridge [0600]: Intel Corporation Device [8086:4c43]",
                Some(0x0600),
                Some("8086:4c43"),
                "Intel Corporation Device",
            ),
            ("00:00.0 Host bridge [0600]: Device [8086:4c43]", Some(0x0600), Some("8086:4c43"), "Device"),
            (
                "00:01.0 PCI bridge: Some Root Port [0604] (prog-if 00 [Normal decode])",
                Some(0x0604),
                None,
                "Some Root Port",
            ),
            ("00:02.0 VGA compatible controller: Some GPU [0604]", None, None, "Some GPU [0604]"),
            (
                "1a:00.0 Ethernet controller: Mellanox Technologies MT2910 Family [ConnectX-7]",
                None,
                None,
                "Mellanox Technologies MT2910 Family [ConnectX-7]",
            ),
            (
                "00:03.0 Generic system peripheral [0807]: X Y [abcd:0001] (rev 01) (prog-if 10 [CXL (CXL 2.x)])",
                Some(0x0807),
                Some("abcd:0001"),
                "X Y",
            ),
        ] {
            let head = head(line);
            assert_eq!(
                (head.class_code, head.id.map(|id| id.to_string()).as_deref(), head.name),
                (class, id, name),
                "{line}"
            );
        }
    }

    #[test]
    fn the_programming_interface_is_read_past_parentheses_in_its_name() {
        assert_eq!(head("00:03.0 CXL: X Y (rev 01) (prog-if 10 [CXL Memory Device (CXL 2.x)])").prog_if, Some(0x10));
        assert_eq!(head("00:03.0 PCI bridge: X Y (prog-if 00 [Normal decode])").prog_if, Some(0));
        assert_eq!(head("00:03.0 PCI bridge: X Y (rev 01)").prog_if, None);
    }

    #[test]
    fn lines_that_open_no_block_are_told_from_those_that_do() {
        for line in [
            "",
            "00: 86 80 c0 29",
            "100: 01 00",
            "00:1f.2",
            "00:20.0 x",
            "00:00.8 x",
            "abc",
            "$ lspci",
            "1:2:3:4:5.0 x",
            "00:1c.0/ x",
            "00:1c.0//00.0 x",
            "00:1c.0/0:00.0 x",
            "/00:1c.0 x",
            "00:1c.0/00.+1 x",
            "12:10:05.1 x",
        ] {
            assert!(Head::read(line).is_none(), "{line}");
        }
        assert!(Head::read("10000:e1:00.0 x").is_some());
    }

    #[test]
    fn a_path_lists_the_functions_from_the_root_down() {
        let path = head("0001:00:1c.0/02:00.0/03:01.7 x: y").path;
        assert_eq!(path.first.to_string(), "0001:00:1c.0");
        let elements: Vec<_> = path.elements().map(|e| (e.bus, e.devfn.device(), e.devfn.function())).collect();
        assert_eq!(elements, [(Some(2), 0, 0), (Some(3), 1, 7)]);
        let bare: Vec<_> = head("00:1c.0/00.0 x: y").path.elements().collect();
        assert_eq!(bare, [Element { bus: None, devfn: DevFn::new(0) }]);
    }
}
