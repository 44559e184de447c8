//! Linux's list and its rule for AMD, as entries.

use super::super::kernel_view::{Listed, Table};
use super::{Entry, Finding, Ids, Key};
use crate::topology::CpuVendor;
use alloc::borrow::Cow;
use alloc::format;

/// What Linux takes to forward peer requests: the newest list this program knows, and
/// the rule that any CPU of AMD family 0x17 and later does.
///
/// Linux lists what somebody vouched for, so this is knowledge about hardware too,
/// whichever kernel runs.
pub fn listed_by_linux() -> impl Iterator<Item = Entry> {
    let newest = Table::all().last().copied();
    let zen = Entry {
        key: Key::Cpu { vendor: CpuVendor::Amd, families: 0x17..=u32::MAX, models: &[] },
        finding: Finding::Forwards,
        what: Cow::Borrowed("Linux takes every root complex of AMD family 0x17 and later to forward peer requests"),
        source: Cow::Borrowed("Linux drivers/pci/p2pdma.c:cpu_supports_p2pdma"),
        checked: Cow::Borrowed("all kernels known here"),
    };
    newest.into_iter().flat_map(|table| table.entries()).map(listed).chain([zen])
}

fn listed(entry: Listed) -> Entry {
    let ids = Ids { vendor: entry.vendor, device: entry.device };
    // Every entry of the newest table stands in at least that one.
    let since = Table::all().iter().find(|table| table.entries().any(|other| other == entry));
    let within = if entry.same_only { " between two functions below it, not to another host bridge" } else { "" };
    Entry {
        key: Key::RootComplex(ids),
        finding: Finding::Forwards,
        what: Cow::Owned(format!("Linux lists {ids} as one that forwards peer requests{within}")),
        source: Cow::Borrowed("Linux drivers/pci/p2pdma.c:pci_p2pdma_whitelist"),
        checked: match since {
            Some(table) => Cow::Owned(format!("read in {table} and later")),
            None => Cow::Borrowed("newest kernel known here"),
        },
    }
}
