//! The two capability lists of a configuration space.
//!
//! Both are linked lists in memory that a device controls, so both walks bound
//! their steps, tolerate loops and say whether they saw the end. A list that
//! runs past the bytes at hand is *cut*: nothing may be concluded from a
//! capability that was not met on it.

use super::config::{ConfigSize, ConfigSpace};
use alloc::vec::Vec;

/// Where a standard capability list starts (types 0 and 1; type 2 keeps it at 0x14).
const POINTER: u16 = 0x34;
const POINTER_CARDBUS: u16 = 0x14;
const STATUS: u16 = 0x06;
const STATUS_HAS_LIST: u16 = 0x10;
const HEADER_TYPE: u16 = 0x0e;
/// Start of the extended list (PCIe 6.0 §7.6.1).
const EXTENDED_START: u16 = 0x100;

/// Standard capability IDs that are decoded here.
pub mod standard {
    /// PCI Power Management (PCIe 6.0 §7.5.2).
    pub const POWER_MANAGEMENT: u16 = 0x01;
    /// PCI-X (PCI-X addendum).
    pub const PCIX: u16 = 0x07;
    /// PCI Express (PCIe 6.0 §7.5.3).
    pub const EXPRESS: u16 = 0x10;
    /// Advanced Features, of functions without PCI Express (PCI, Advanced Capabilities ECN).
    pub const ADVANCED_FEATURES: u16 = 0x13;
}

/// Extended capability IDs that are decoded here.
pub mod extended {
    /// Access Control Services (PCIe 6.0 §7.7.11).
    pub const ACS: u16 = 0x000d;
    /// Address Translation Services (PCIe 6.0 §10.5.1).
    pub const ATS: u16 = 0x000f;
    /// Single Root I/O Virtualization (PCIe 6.0 §9.3.3).
    pub const SRIOV: u16 = 0x0010;
    /// Page Request Interface (PCIe 6.0 §10.5.2).
    pub const PRI: u16 = 0x0013;
    /// Resizable BAR (PCIe 6.0 §7.8.6).
    pub const RESIZABLE_BAR: u16 = 0x0015;
    /// Process Address Space ID (PCIe 6.0 §7.8.8).
    pub const PASID: u16 = 0x001b;
}

/// One entry of either list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// Capability ID.
    pub id: u16,
    /// Offset of its header in configuration space.
    pub offset: u16,
}

/// How far a walk came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListEnd {
    /// To the end; what was not met is not there.
    Complete,
    /// There is no list.
    NoList,
    /// The next entry, at this offset, is not among the bytes at hand.
    Cut(u16),
    /// Back to an entry already met; everything reachable was met.
    Loop(u16),
}

/// A capability list as far as it can be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapabilityList {
    entries: Vec<Capability>,
    end: ListEnd,
}

/// Looking for a capability has three answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// At this offset.
    At(u16),
    /// The whole list was read and does not hold it.
    Absent,
    /// The list is cut at this offset.
    Cut(u16),
}

impl CapabilityList {
    /// The entries met, in the order of the list.
    pub fn entries(&self) -> &[Capability] {
        &self.entries
    }

    /// How far the walk came.
    pub fn end(&self) -> ListEnd {
        self.end
    }

    /// The first entry with this ID, as Linux picks it.
    pub fn find(&self, id: u16) -> Lookup {
        match self.entries.iter().find(|entry| entry.id == id) {
            Some(entry) => Lookup::At(entry.offset),
            None => match self.end {
                ListEnd::Complete | ListEnd::NoList | ListEnd::Loop(_) => Lookup::Absent,
                ListEnd::Cut(at) => Lookup::Cut(at),
            },
        }
    }

    fn visit(&mut self, seen: &mut Seen, id: u16, offset: u16) -> bool {
        if !seen.insert(offset) {
            self.end = ListEnd::Loop(offset);
            return false;
        }
        self.entries.push(Capability { id, offset });
        true
    }
}

/// The double words of a configuration space that a walk came by: a device may chain all of them.
#[derive(Default)]
struct Seen([u64; 16]);

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, offset: u16) -> bool {
        let (word, bit) = (usize::from(offset >> 8), 1u64 << (offset >> 2 & 0x3f));
        match self.0.get_mut(word) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }
}

/// Walks the standard list (Linux 7.2 `__pci_find_next_cap`).
pub fn standard_list(config: &impl ConfigSpace) -> CapabilityList {
    let mut list = CapabilityList { entries: Vec::new(), end: ListEnd::Complete };
    let (Some(status), Some(header)) = (config.word(STATUS), config.byte(HEADER_TYPE)) else {
        list.end = ListEnd::Cut(STATUS);
        return list;
    };
    if status & STATUS_HAS_LIST == 0 {
        list.end = ListEnd::NoList;
        return list;
    }
    let mut seen = Seen::default();
    let mut pointer_at = if header & 0x7f == 2 { POINTER_CARDBUS } else { POINTER };
    loop {
        let Some(pointer) = config.byte(pointer_at) else {
            list.end = ListEnd::Cut(pointer_at);
            return list;
        };
        // The low two bits are reserved; below 0x40 lies the header, which ends the list.
        let offset = u16::from(pointer & !3);
        if offset < 0x40 {
            return list;
        }
        let Some(id) = config.byte(offset) else {
            list.end = ListEnd::Cut(offset);
            return list;
        };
        if id == 0xff || !list.visit(&mut seen, u16::from(id), offset) {
            return list;
        }
        pointer_at = offset + 1;
    }
}

/// Walks the extended list (Linux 7.2 `pci_find_next_ext_capability`).
///
/// A space known to the kernel to end at 256 bytes has none. So has one whose
/// first header reads as all ones: Linux then takes the space to end at 256
/// (`pci_cfg_space_size_ext`).
pub fn extended_list(config: &impl ConfigSpace) -> CapabilityList {
    let mut list = CapabilityList { entries: Vec::new(), end: ListEnd::Complete };
    if config.size() == ConfigSize::Kernel(256) || config.dword(EXTENDED_START) == Some(u32::MAX) {
        list.end = ListEnd::NoList;
        return list;
    }
    let mut seen = Seen::default();
    let mut offset = EXTENDED_START;
    loop {
        let Some(header) = config.dword(offset) else {
            list.end = ListEnd::Cut(offset);
            return list;
        };
        if header == 0 {
            return list;
        }
        if !list.visit(&mut seen, header as u16, offset) {
            return list;
        }
        offset = (header >> 20) as u16 & 0xffc;
        if offset < EXTENDED_START {
            return list;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::ConfigBytes;
    use super::*;
    use alloc::vec;

    fn with_list(len: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; len];
        bytes[0x06] = 0x10;
        bytes[0x34] = 0x50;
        bytes
    }

    fn config(bytes: Vec<u8>) -> ConfigBytes {
        ConfigBytes::new(bytes, ConfigSize::Unknown)
    }

    #[test]
    fn a_standard_list_of_64_bytes_is_cut_where_it_leaves_them() {
        let list = standard_list(&config(with_list(64)));
        assert_eq!(list.end(), ListEnd::Cut(0x50));
        assert_eq!(list.find(standard::EXPRESS), Lookup::Cut(0x50));
    }

    #[test]
    fn a_loop_ends_the_walk_and_everything_on_it_was_met() {
        let mut bytes = with_list(256);
        bytes[0x50..0x52].copy_from_slice(&[0x01, 0x60]);
        bytes[0x60..0x62].copy_from_slice(&[0x05, 0x53]);
        let list = standard_list(&config(bytes));
        assert_eq!(list.end(), ListEnd::Loop(0x50));
        assert_eq!(list.find(standard::EXPRESS), Lookup::Absent);
        assert_eq!(list.find(0x05), Lookup::At(0x60));
    }

    #[test]
    fn an_extended_list_that_points_past_the_bytes_is_cut_but_what_it_met_counts() {
        let mut bytes = vec![0u8; 0x110];
        bytes[0x100..0x104].copy_from_slice(&0x1481_000d_u32.to_le_bytes());
        let list = extended_list(&config(bytes));
        assert_eq!(list.find(extended::ACS), Lookup::At(0x100));
        assert_eq!(list.find(extended::ATS), Lookup::Cut(0x148));
    }

    #[test]
    fn all_ones_at_the_first_extended_header_mean_no_extended_space() {
        // Cut right behind it: taken for a pointer, it would lead past the bytes.
        let mut bytes = vec![0u8; 0x104];
        bytes[0x100..].fill(0xff);
        assert_eq!(extended_list(&config(bytes)).find(extended::ACS), Lookup::Absent);
    }

    #[test]
    fn an_empty_extended_space_is_a_complete_list() {
        assert_eq!(extended_list(&config(vec![0u8; 4096])).find(extended::ACS), Lookup::Absent);
        assert_eq!(extended_list(&config(vec![0u8; 256])).find(extended::ACS), Lookup::Cut(0x100));
    }
}
