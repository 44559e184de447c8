//! Linux's list of host bridges that are known to forward peer traffic, per version.
//!
//! Read in Debian's source packages 6.1.192, 6.12.107, 7.2.13 and 7.3.4
//! (`drivers/pci/p2pdma.c`, `pci_p2pdma_whitelist`). A table holds for its whole
//! x.y series. At which release between two tables an entry came is not known
//! here, so between them a bridge on which they differ is unknown. Rejected:
//! taking the older table in between, which would refuse what works.

use crate::pcie::{Fact, PciId};
use crate::topology::KernelVersion;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;

/// One entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Vendor of the device that stands for the host bridge.
    pub vendor: u16,
    /// Its device ID; `None` for any device of the vendor (`PCI_ANY_ID`).
    pub device: Option<u16>,
    /// Only where both functions are below this very host bridge (`REQ_SAME_HOST_BRIDGE`).
    pub same_only: bool,
}

const fn intel(device: u16) -> Listed {
    Listed { vendor: 0x8086, device: Some(device), same_only: false }
}

const fn intel_same(device: u16) -> Listed {
    Listed { vendor: 0x8086, device: Some(device), same_only: true }
}

const fn nvidia(device: u16) -> Listed {
    Listed { vendor: 0x10de, device: Some(device), same_only: false }
}

/// 6.1 and 6.12: Xeon E5 and E7 v3 within one host bridge, Skylake-E and later.
const TO_6_12: [Listed; 10] = [
    intel_same(0x3c00),
    intel_same(0x3c01),
    intel_same(0x2f00),
    intel_same(0x2f01),
    intel(0x2030),
    intel(0x2031),
    intel(0x2032),
    intel(0x2033),
    intel(0x2020),
    intel(0x09a2),
];

/// New in 7.2: accelerators that stand at 00.0 of their own root bus, and Google's SoCs.
const NEW_IN_7_2: [Listed; 11] = [
    intel(0x0b25),
    intel(0x0cfe),
    intel(0x11fb),
    intel(0x1212),
    intel(0x1216),
    intel(0x4940),
    intel(0x4942),
    intel(0x4944),
    intel(0x4946),
    intel(0x4948),
    Listed { vendor: 0x1ae0, device: None, same_only: false },
];

/// New in 7.3.
const NEW_IN_7_3: [Listed; 4] = [nvidia(0x2f95), nvidia(0x2f96), nvidia(0x2f97), nvidia(0x2f98)];

/// The whitelist of one kernel series.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    series: (u32, u32),
    parts: &'static [&'static [Listed]],
}

/// All tables, oldest first.
const TABLES: [Table; 4] = [
    Table { series: (6, 1), parts: &[&TO_6_12] },
    Table { series: (6, 12), parts: &[&TO_6_12] },
    Table { series: (7, 2), parts: &[&TO_6_12, &NEW_IN_7_2] },
    Table { series: (7, 3), parts: &[&TO_6_12, &NEW_IN_7_2, &NEW_IN_7_3] },
];

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.series == other.series
    }
}

impl Eq for Table {}

impl Table {
    /// Whether the table lets a host bridge with this ID forward; `same` tells
    /// whether both functions are below it. Linux returns on the first entry that
    /// matches, so a later one cannot lift an earlier one's condition.
    pub fn lists(&self, id: PciId, same: bool) -> bool {
        let mut entries = self.parts.iter().copied().flatten();
        let matched =
            entries.find(|entry| entry.vendor == id.vendor && entry.device.is_none_or(|device| device == id.device));
        matched.is_some_and(|entry| same || !entry.same_only)
    }

    /// As [`lists`](Self::lists) for a device of a vendor of which only that is known:
    /// whether the answer is the same for all its devices.
    pub fn lists_of_vendor(&self, vendor: u16, same: bool) -> Fact<bool> {
        let of_vendor = || self.parts.iter().copied().flatten().filter(|entry| entry.vendor == vendor);
        let lets_through = |entry: &Listed| same || !entry.same_only;
        // No table mixes an entry for any device with entries for single ones.
        if of_vendor().any(|entry| entry.device.is_none() && lets_through(entry)) {
            Fact::Known(true)
        } else if of_vendor().any(lets_through) {
            Fact::Unknown
        } else {
            Fact::Known(false)
        }
    }

    /// Its entries, in the kernel's order.
    pub fn entries(&self) -> impl Iterator<Item = Listed> + use<> {
        self.parts.iter().copied().flatten().copied()
    }

    /// All tables, oldest first.
    pub fn all() -> &'static [Self] {
        &TABLES
    }

    /// Vendors whose names a reader of names must know, since tables mention them.
    pub fn vendors() -> impl Iterator<Item = u16> {
        let mut seen = alloc::vec::Vec::new();
        for entry in TABLES[TABLES.len() - 1].parts.iter().copied().flatten() {
            if !seen.contains(&entry.vendor) {
                seen.push(entry.vendor);
            }
        }
        seen.into_iter()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.series.0, self.series.1)
    }
}

/// Which tables may hold for a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableChoice {
    /// This one, of the kernel's own series.
    Exact(Table),
    /// No version was told; the newest is taken.
    NewestAssumed(Table),
    /// The kernel is newer than the newest table, which is taken.
    NewerThanNewest(Table),
    /// The kernel lies between these two.
    Between(Table, Table),
    /// The kernel is older than the oldest table.
    OlderThanOldest(Table),
}

impl TableChoice {
    /// Chooses for a kernel version, or for none told.
    pub fn for_kernel(version: Option<KernelVersion>) -> Self {
        let newest = TABLES[TABLES.len() - 1];
        let Some(version) = version else { return Self::NewestAssumed(newest) };
        let series = version.series();
        let above = TABLES.partition_point(|table| table.series < series);
        match (above.checked_sub(1), TABLES.get(above)) {
            (_, Some(&table)) if table.series == series => Self::Exact(table),
            (Some(below), Some(&table)) => Self::Between(TABLES[below], table),
            (None, _) => Self::OlderThanOldest(TABLES[0]),
            (Some(_), None) => Self::NewerThanNewest(newest),
        }
    }

    /// The tables of which one holds; none if nothing is known.
    pub fn candidates(&self) -> impl Iterator<Item = Table> + use<> {
        let (first, second) = match *self {
            Self::Exact(table) | Self::NewestAssumed(table) | Self::NewerThanNewest(table) => (Some(table), None),
            Self::Between(older, newer) => (Some(older), Some(newer)),
            Self::OlderThanOldest(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// The table's series for machines to read: `7.2`, or `6.12..7.2` between two;
    /// `None` where no table holds.
    pub fn label(&self) -> Option<String> {
        match self {
            Self::Exact(table) | Self::NewestAssumed(table) | Self::NewerThanNewest(table) => Some(table.to_string()),
            Self::Between(older, newer) => Some(format!("{older}..{newer}")),
            Self::OlderThanOldest(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(version: &str) -> TableChoice {
        TableChoice::for_kernel(Some(version.parse().unwrap()))
    }

    fn id(vendor: u16, device: u16) -> PciId {
        PciId { vendor, device }
    }

    #[test]
    fn a_table_holds_for_its_whole_series_and_no_further() {
        assert!(matches!(choice("6.1"), TableChoice::Exact(table) if table.series == (6, 1)));
        assert!(matches!(choice("6.1.500"), TableChoice::Exact(_)));
        assert!(matches!(choice("6.2"), TableChoice::Between(a, b) if a.series == (6, 1) && b.series == (6, 12)));
        assert!(matches!(choice("6.18.5"), TableChoice::Between(a, b) if a.series == (6, 12) && b.series == (7, 2)));
        assert!(matches!(choice("5.10"), TableChoice::OlderThanOldest(_)));
        assert!(matches!(choice("8.0"), TableChoice::NewerThanNewest(table) if table.series == (7, 3)));
        assert!(matches!(TableChoice::for_kernel(None), TableChoice::NewestAssumed(table) if table.series == (7, 3)));
    }

    #[test]
    fn a_vendor_alone_decides_where_all_its_devices_fare_alike() {
        let newest = TABLES[TABLES.len() - 1];
        assert_eq!(newest.lists_of_vendor(0x1ae0, false), Fact::Known(true));
        assert_eq!(newest.lists_of_vendor(0x1022, true), Fact::Known(false));
        assert_eq!(newest.lists_of_vendor(0x8086, false), Fact::Unknown);
        assert_eq!(TABLES[0].lists_of_vendor(0x1ae0, false), Fact::Known(false));
        for vendor in Table::vendors() {
            let mut entries = newest.parts.iter().copied().flatten().filter(|entry| entry.vendor == vendor);
            assert!(entries.clone().all(|entry| entry.device.is_some()) || entries.all(|entry| entry.device.is_none()));
        }
    }

    #[test]
    fn the_tables_grow_as_the_sources_did() {
        let in_table = |series: (u32, u32), id: PciId, same: bool| {
            TABLES.iter().find(|table| table.series == series).unwrap().lists(id, same)
        };
        for series in [(6, 1), (6, 12), (7, 2), (7, 3)] {
            assert!(in_table(series, id(0x8086, 0x09a2), false));
            assert!(in_table(series, id(0x8086, 0x3c00), true));
            assert!(!in_table(series, id(0x8086, 0x3c00), false));
            assert!(!in_table(series, id(0x1022, 0x14d8), true), "AMD goes by the CPU alone");
            let from_7_2 = series >= (7, 2);
            assert_eq!(in_table(series, id(0x8086, 0x0b25), false), from_7_2);
            assert_eq!(in_table(series, id(0x1ae0, 0x1234), false), from_7_2);
            assert_eq!(in_table(series, id(0x10de, 0x2f95), false), series == (7, 3));
        }
        assert_eq!(Table::vendors().collect::<alloc::vec::Vec<_>>(), [0x8086, 0x1ae0, 0x10de]);
    }
}
