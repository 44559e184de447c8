//! Names of vendors, devices and classes, in both directions.
//!
//! `lspci` without `-nn` writes names where this project needs numbers, so the
//! file its names came from (`pci.ids`) is read backwards: a name stands for every
//! ID that carries it, and a name that nothing carries stands for nothing. It is
//! never guessed.
//!
//! The file has more than a megabyte. It is read at the first name that needs it,
//! once, and `Intel Corporation Device 09a2` does not need it: the vendors that
//! Linux's whitelist mentions are built in, and so are the classes.
//!
//! Not here: what a line of `lspci` looks like (see [`crate::lspci`]).

mod classes;
mod index;

use index::Index;
use peerdma::pcie::{ClassCode, PciId};
use std::io::Read;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Where distributions keep the file; the first that can be read counts.
const SYSTEM_FILES: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// No `pci.ids` is anywhere near this long; whatever is will not fill the memory.
const LONGEST_FILE: u64 = 64 << 20;

/// The vendors of [`peerdma::route::kernel_view::Table::vendors`], as `pci.ids` writes them.
const VENDORS: [(u16, &str); 3] =
    [(0x8086, "Intel Corporation"), (0x1ae0, "Google, Inc."), (0x10de, "NVIDIA Corporation")];

/// Names of vendors, devices and classes.
#[derive(Debug)]
pub struct PciNames {
    files: Vec<PathBuf>,
    index: OnceLock<Index>,
}

impl PciNames {
    /// Only what is built in: classes, and the vendors of Linux's whitelist.
    pub fn built_in() -> Self {
        Self { files: Vec::new(), index: OnceLock::new() }
    }

    /// The names of a text in the format of `pci.ids`; lines in no known form are skipped.
    pub fn from_pci_ids(text: impl Into<String>) -> Self {
        Self { files: Vec::new(), index: OnceLock::from(Index::new(text.into())) }
    }

    /// The names of a file in the format of `pci.ids`, which is read when a name needs
    /// it. One that cannot be read then has no names.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { files: vec![path.into()], index: OnceLock::new() }
    }

    /// The names of this system's `pci.ids`, which is read when a name needs it.
    pub fn system() -> Self {
        Self { files: SYSTEM_FILES.map(PathBuf::from).into(), index: OnceLock::new() }
    }

    /// Whether a file was read, or names were given as text.
    pub fn is_read(&self) -> bool {
        self.index.get().is_some()
    }

    /// The vendor's name.
    pub fn vendor(&self, id: u16) -> Option<&str> {
        let built_in = VENDORS.iter().find(|(vendor, _)| *vendor == id).map(|(_, name)| *name);
        built_in.or_else(|| self.index().vendor(id))
    }

    /// Vendor and device in words, `NVIDIA Corporation GH100 [H100 SXM5 80GB]`; with the
    /// number of a device without a name, as `lspci` does; `None` for a vendor without one.
    pub fn label(&self, id: PciId) -> Option<String> {
        let vendor = self.vendor(id.vendor)?;
        Some(match self.index().device(id) {
            Some(device) => format!("{vendor} {device}"),
            None => format!("{vendor} Device {:04x}", id.device),
        })
    }

    /// All IDs that `lspci` may have meant by `name`, the text after the class.
    pub fn ids(&self, name: &str) -> Vec<PciId> {
        self.ids_of(&[name]).pop().unwrap_or_default()
    }

    /// As [`ids`](Self::ids) for many names, in one pass over the vendors they name.
    pub fn ids_of(&self, names: &[&str]) -> Vec<Vec<PciId>> {
        let mut found: Vec<Vec<PciId>> =
            names.iter().map(|name| without_the_file(name).into_iter().collect()).collect();
        let open: Vec<(usize, &str)> =
            names.iter().copied().enumerate().filter(|(n, name)| found[*n].is_empty() && !name.is_empty()).collect();
        if !open.is_empty() {
            self.index().ids_of(&open, &mut found);
        }
        found
    }

    /// Vendors by whose name `name` starts, for names whose device no list knows.
    pub fn vendors_of(&self, name: &str) -> Vec<u16> {
        let starts_with = |vendor: &str| name.strip_prefix(vendor).is_some_and(|rest| rest.starts_with(' '));
        let built_in = VENDORS.iter().filter(|(_, vendor)| starts_with(vendor)).map(|(id, _)| *id);
        let mut vendors: Vec<u16> = built_in.chain(self.index().vendors_of(&starts_with)).collect();
        vendors.sort_unstable();
        vendors.dedup();
        vendors
    }

    /// The class that `lspci` calls by this name, with programming interface 0.
    pub fn class(&self, name: &str) -> Option<ClassCode> {
        let code = classes::code(name).or_else(|| self.index().class(name));
        code.map(|code| ClassCode::new(u32::from(code) << 8))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| Index::new(self.files.iter().find_map(read).unwrap_or_default()))
    }
}

fn read(path: &PathBuf) -> Option<String> {
    let file = std::fs::File::open(path).ok()?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata().ok()?.len().min(LONGEST_FILE)).ok()? + 1);
    file.take(LONGEST_FILE).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The ID in a name that carries one: `Device 8086:09a2`, `Intel Corporation Device 09a2`.
///
/// A second vendor may call itself by the name of a built-in one; that one is not
/// looked for, since then every Intel host bridge would be of an uncertain vendor.
fn without_the_file(name: &str) -> Option<PciId> {
    if let Some(pair) = name.strip_prefix("Device ") {
        return id(pair);
    }
    let (vendor, rest) = VENDORS.iter().find_map(|(vendor, known)| Some((*vendor, name.strip_prefix(known)?)))?;
    Some(PciId { vendor, device: number(rest.strip_prefix(" Device ")?)? })
}

/// Reads `8086:09a2`.
pub(crate) fn id(text: &str) -> Option<PciId> {
    let (vendor, device) = text.split_at_checked(4)?;
    Some(PciId { vendor: number(vendor)?, device: number(device.strip_prefix(':')?)? })
}

/// Reads exactly four hexadecimal digits.
pub(crate) fn number(text: &str) -> Option<u16> {
    let digits: &[u8; 4] = text.as_bytes().try_into().ok()?;
    digits.iter().try_fold(0, |sum, &digit| Some(sum << 4 | char::from(digit).to_digit(16)? as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_vendor_also_where_no_list_knows_the_device() {
        let names = PciNames::from_pci_ids(TEXT);
        assert_eq!(names.vendors_of("Google, Inc. Something New"), [0x1ae0]);
        assert_eq!(names.vendors_of("PLX Something"), [0x10b5, 0x10b6]);
        assert!(names.vendors_of("Googlesome Thing").is_empty());
    }
    use peerdma::route::kernel_view::Table;

    const TEXT: &str = "# a comment\n\
        10b5  PLX\n\t8732  Switch, cut-through\n\t\t10b5 0001  Board\n\t8733  Switch, cut-through\n\
        10b6  PLX\n\t8732  Switch, cut-through\n\
        10b7  PLX Switch,\n\t0001  cut-through\n\
        8086  Intel Corporation\n\t2020  Sky Lake-E DMI3 Registers\n\
        C 06  Bridge\n\t04  PCI bridge\n\t\t01  Subtractive decode\n\
        C 42  Time machine\n\t01  Flux capacitor\n";

    fn ids(names: &PciNames, name: &str) -> Vec<String> {
        names.ids(name).iter().map(PciId::to_string).collect()
    }

    #[test]
    fn a_name_that_fits_several_ids_stands_for_all_of_them() {
        let names = PciNames::from_pci_ids(TEXT);
        let found = ids(&names, "PLX Switch, cut-through");
        assert_eq!(found, ["10b5:8732", "10b5:8733", "10b6:8732", "10b7:0001"]);
        assert_eq!(ids(&names, "Intel Corporation Sky Lake-E DMI3 Registers"), ["8086:2020"]);
    }

    #[test]
    fn a_device_number_in_a_name_belongs_to_every_vendor_of_that_name() {
        let names = PciNames::from_pci_ids(TEXT);
        assert_eq!(ids(&names, "PLX Device beef"), ["10b5:beef", "10b6:beef"]);
        assert_eq!(ids(&names, "Device dead:beef"), ["dead:beef"]);
    }

    #[test]
    fn a_name_that_nothing_carries_stands_for_nothing() {
        let names = PciNames::from_pci_ids(TEXT);
        for name in ["PLX", "PLX ", "PLX Switch", "Intel Corporation Unheard Of", "Nobody Device 1234", "", " "] {
            assert!(names.ids(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn the_file_is_not_read_for_numbers_after_a_vendor_of_the_whitelist() {
        let names = PciNames::from_file("/nowhere/pci.ids");
        assert_eq!(ids(&names, "Intel Corporation Device 09a2"), ["8086:09a2"]);
        assert_eq!(ids(&names, "Google, Inc. Device 0001"), ["1ae0:0001"]);
        assert_eq!(names.class("Host bridge"), Some(ClassCode::new(0x060000)));
        assert_eq!(names.vendor(0x10de), Some("NVIDIA Corporation"));
        assert!(!names.is_read());
        assert!(names.ids("Broadcom / LSI PEX890xx PCIe Gen 5 Switch").is_empty());
        assert!(names.is_read());
    }

    #[test]
    fn every_vendor_of_the_whitelist_is_built_in() {
        let names = PciNames::built_in();
        for vendor in Table::vendors() {
            assert!(names.vendor(vendor).is_some(), "{vendor:04x}");
        }
    }

    #[test]
    fn labels_read_as_lspci_would_write_them() {
        let names = PciNames::from_pci_ids(TEXT);
        let label = |vendor, device| names.label(PciId { vendor, device });
        assert_eq!(label(0x10b5, 0x8733).unwrap(), "PLX Switch, cut-through");
        assert_eq!(label(0x10b5, 1).unwrap(), "PLX Device 0001");
        assert_eq!(label(0xdead, 1), None);
    }

    #[test]
    fn classes_come_from_the_built_in_table_and_then_from_the_file() {
        let names = PciNames::from_pci_ids(TEXT);
        assert_eq!(names.class("Flux capacitor"), Some(ClassCode::new(0x420100)));
        assert_eq!(names.class("USB Controller"), Some(ClassCode::new(0x0c0300)), "as old versions wrote it");
        assert_eq!(names.class("Subtractive decode"), None);
    }

    #[test]
    fn damaged_files_yield_what_can_be_read() {
        for text in ["\t", "\n\t\n", "8086", "8086  ", "zzzz  Z\n\t0001  one", "C", "C 0", "\t\t\t\t", "808\u{e9}  x\n"]
        {
            let names = PciNames::from_pci_ids(text);
            assert!(names.ids("Z one").is_empty());
            assert_eq!(names.class("one"), None);
        }
        let names =
            PciNames::from_pci_ids("junk\n1234  Vend\u{f6}r \r\n\t0001  Thing \r\nS 00  section\n\t0002  Other\n");
        assert_eq!(ids(&names, "Vend\u{f6}r Thing"), ["1234:0001"]);
        assert!(names.ids("Vend\u{f6}r Other").is_empty());
    }
}
