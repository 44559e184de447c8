//! The whole of a `pci.ids` file, by number and by name.
//!
//! ```text
//! 10b5  PLX Technology, Inc.        vendor
//! <tab>8732  PEX 8732 …             its device
//! <tab><tab>10b5 8732  …            a subsystem, not wanted here
//! C 06  Bridge                      class
//! <tab>04  PCI bridge               its subclass
//! ```
//!
//! Nine lines of ten are devices and subsystems of vendors nobody asks for, so only
//! the lines without indentation are looked for at first; a vendor's devices are read
//! when one of them is wanted.

use super::number;
use peerdma::pcie::PciId;
use std::ops::Range;
use std::sync::OnceLock;

/// Names stay where they are in the text; the index holds places.
#[derive(Debug)]
pub(super) struct Index {
    text: String,
    /// Ascending by ID.
    vendors: Vec<Vendor>,
    /// Base class and subclass.
    classes: Vec<Entry>,
}

#[derive(Debug)]
struct Vendor {
    id: u16,
    name: Range<usize>,
    /// The indented lines below it.
    body: Range<usize>,
    /// Ascending by ID.
    devices: OnceLock<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: u16,
    name: Range<usize>,
}

impl Index {
    pub(super) fn new(text: String) -> Self {
        let (mut vendors, mut classes) = (Vec::new(), Vec::new());
        let mut lines = top_lines(text.as_bytes()).into_iter().peekable();
        while let Some(start) = lines.next() {
            let line = first_line(&text[start..]);
            let body = start + line.len()..lines.peek().map_or(text.len(), |&next| next);
            if let Some(id) = line.get(..4).and_then(number) {
                vendors.push(Vendor { id, name: trimmed(line, start, 4), body, devices: OnceLock::new() });
            } else if let Some(base) = line.strip_prefix("C ").and_then(two_digits) {
                classes.extend(indented(&text, body).filter_map(|(start, line)| {
                    let sub = two_digits(line.strip_prefix('\t')?).filter(|_| line.is_char_boundary(3))?;
                    Some(Entry { id: u16::from(base) << 8 | u16::from(sub), name: trimmed(line, start, 3) })
                }));
            }
        }
        // Stable, and without work where the file keeps its promise of being sorted.
        vendors.sort_by_key(|vendor| vendor.id);
        Self { text, vendors, classes }
    }

    fn find_vendor(&self, id: u16) -> Option<&Vendor> {
        let found = self.vendors.binary_search_by_key(&id, |vendor| vendor.id).ok()?;
        Some(&self.vendors[found])
    }

    pub(super) fn vendor(&self, id: u16) -> Option<&str> {
        Some(&self.text[self.find_vendor(id)?.name.clone()])
    }

    /// IDs of the vendors for whose names `wanted` says yes; an empty name is nobody's.
    pub(super) fn vendors_of<'a>(&'a self, wanted: &'a impl Fn(&str) -> bool) -> impl Iterator<Item = u16> + 'a {
        let name = |vendor: &Vendor| &self.text[vendor.name.clone()];
        self.vendors
            .iter()
            .filter(move |vendor| !name(vendor).is_empty() && wanted(name(vendor)))
            .map(|vendor| vendor.id)
    }

    pub(super) fn device(&self, id: PciId) -> Option<&str> {
        let devices = self.devices_of(self.find_vendor(id.vendor)?);
        let found = devices.binary_search_by_key(&id.device, |device| device.id).ok()?;
        Some(&self.text[devices[found].name.clone()])
    }

    /// Base class and subclass of a name.
    pub(super) fn class(&self, name: &str) -> Option<u16> {
        self.classes.iter().find(|class| self.text[class.name.clone()] == *name).map(|class| class.id)
    }

    fn devices_of<'a>(&'a self, vendor: &'a Vendor) -> &'a [Entry] {
        vendor.devices.get_or_init(|| {
            let device = |(start, line): (usize, &str)| {
                let id = line.get(1..5).and_then(number)?;
                Some(Entry { id, name: trimmed(line, start, 5) })
            };
            let mut devices: Vec<Entry> = indented(&self.text, vendor.body.clone()).filter_map(device).collect();
            devices.sort_by_key(|device| device.id);
            devices
        })
    }

    /// Adds to `found[n]` the IDs of each `(n, name)`.
    pub(super) fn ids_of(&self, names: &[(usize, &str)], found: &mut [Vec<PciId>]) {
        let mut names = names.to_vec();
        names.sort_unstable_by_key(|&(n, name)| (name, n));
        let mut prefix = String::new();
        for vendor in &self.vendors {
            // Where a vendor's name ends is not marked in the names; a blank follows it.
            prefix.clear();
            prefix.push_str(&self.text[vendor.name.clone()]);
            prefix.push(' ');
            let first = names.partition_point(|(_, name)| *name < prefix.as_str());
            let count = names[first..].partition_point(|(_, name)| name.starts_with(&prefix));
            if count > 0 {
                self.ids_of_vendor(vendor, prefix.len(), &names[first..first + count], found);
            }
        }
        for (n, _) in names {
            found[n].sort_unstable();
            found[n].dedup();
        }
    }

    /// As [`ids_of`](Self::ids_of), for names that all start with the vendor's and are sorted.
    fn ids_of_vendor(&self, vendor: &Vendor, prefix: usize, names: &[(usize, &str)], found: &mut [Vec<PciId>]) {
        for &(n, name) in names {
            if let Some(device) = name[prefix..].strip_prefix("Device ").and_then(number) {
                found[n].push(PciId { vendor: vendor.id, device });
            }
        }
        for device in self.devices_of(vendor) {
            let known = &self.text[device.name.clone()];
            let first = names.partition_point(|(_, name)| name[prefix..] < *known);
            for &(n, _) in names[first..].iter().take_while(|(_, name)| name[prefix..] == *known) {
                found[n].push(PciId { vendor: vendor.id, device: device.id });
            }
        }
    }
}

/// Where the lines start that are neither indented, nor empty, nor comments.
fn top_lines(text: &[u8]) -> Vec<usize> {
    const BLOCK: usize = 64;
    let is_top = |byte: u8| !matches!(byte, b'\t' | b'#' | b'\n' | b'\r');
    let after = text.get(1..).unwrap_or_default();
    let mut starts = Vec::new();
    if text.first().is_some_and(|&byte| is_top(byte)) {
        starts.push(0);
    }
    let mut search = |from: usize, bytes: &[u8], after: &[u8]| {
        let found = bytes.iter().zip(after).enumerate().filter(|(_, (byte, next))| **byte == b'\n' && is_top(**next));
        starts.extend(found.map(|(at, _)| from + at + 1));
    };
    let ((blocks, _), (blocks_after, _)) = (text.as_chunks::<BLOCK>(), after.as_chunks::<BLOCK>());
    for (n, (block, after)) in blocks.iter().zip(blocks_after).enumerate() {
        // Few blocks hold one, and a loop of known length without exits is quick to tell.
        if block.iter().zip(after).fold(false, |any, (&byte, &next)| any | ((byte == b'\n') & (next != b'\t'))) {
            search(n * BLOCK, block, after);
        }
    }
    let rest = blocks_after.len() * BLOCK;
    search(rest, &text[rest..], after.get(rest..).unwrap_or_default());
    starts
}

/// The lines with one tab in a body, and where they start.
fn indented(text: &str, body: Range<usize>) -> impl Iterator<Item = (usize, &str)> {
    let mut next = body.start;
    text[body].split_inclusive('\n').filter_map(move |line| {
        let start = next;
        next += line.len();
        matches!(line.as_bytes(), [b'\t', second, ..] if *second != b'\t').then_some((start, line))
    })
}

fn first_line(text: &str) -> &str {
    text.split_inclusive('\n').next().unwrap_or_default()
}

/// Place of the name in a line that starts at `start`, after `skip` bytes of number.
fn trimmed(line: &str, start: usize, skip: usize) -> Range<usize> {
    let name = line[skip..].trim_ascii_start();
    let start = start + line.len() - name.len();
    start..start + name.trim_ascii_end().len()
}

fn two_digits(text: &str) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (high, low) = (digit(text.as_bytes().first()?)?, digit(text.as_bytes().get(1)?)?);
    Some((high << 4 | low) as u8)
}
