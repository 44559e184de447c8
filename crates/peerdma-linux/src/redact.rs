//! Takes out of a snapshot what identifies a particular piece of hardware.
//!
//! Serial numbers (PCIe Device Serial Number, which network cards derive from their
//! MAC address; the data register of VPD; disk names by ID on the command line) and
//! MAC addresses (on the command line, in interface names). None of it takes part
//! in a verdict: sizes and offsets of capabilities stay.

use crate::snapshot::{Snapshot, from_hex, to_hex};
use peerdma::pcie::caps;
use peerdma::pcie::config::{ConfigBytes, ConfigSize};

/// Extended capability Device Serial Number (PCIe 6.0 §7.9.3): eight bytes at + 4.
const SERIAL_NUMBER: u16 = 0x0003;
/// Standard capability VPD (PCI 3.0 §I): the data register, four bytes at + 4.
const VPD: u16 = 0x03;
const REDACTED: &str = "redacted";

/// Redacts in place.
pub fn redact(snapshot: &mut Snapshot) {
    for function in &mut snapshot.functions {
        if let Some(bytes) = from_hex(&function.config) {
            function.config = to_hex(&without_serials(bytes));
        }
        for name in &mut function.names {
            *name = without_mac_in_name(name);
        }
    }
    if let Some(line) = &mut snapshot.machine.command_line {
        *line = without_identities(line);
    }
}

fn without_serials(bytes: Vec<u8>) -> Vec<u8> {
    let config = ConfigBytes::new(bytes, ConfigSize::Unknown);
    let standard = caps::standard_list(&config);
    let extended = caps::extended_list(&config);
    let vpd = standard.entries().iter().filter(|entry| entry.id == VPD).map(|entry| (entry.offset, 4));
    let serial = extended.entries().iter().filter(|entry| entry.id == SERIAL_NUMBER).map(|entry| (entry.offset, 8));
    let mut bytes = config.bytes().to_vec();
    for (offset, len) in vpd.chain(serial) {
        let start = (usize::from(offset) + 4).min(bytes.len());
        let end = (start + len).min(bytes.len());
        bytes[start..end].fill(0);
    }
    bytes
}

/// `enx001122334455` is a MAC address with a prefix.
fn without_mac_in_name(name: &str) -> String {
    let digits = name.len().saturating_sub(12);
    match (name.get(..digits), name.get(digits..)) {
        (Some(prefix), Some(tail))
            if !prefix.is_empty() && tail.len() == 12 && tail.bytes().all(|b| b.is_ascii_hexdigit()) =>
        {
            format!("{prefix}-{REDACTED}")
        }
        _ => name.to_string(),
    }
}

/// Blanks MAC addresses and disks by ID.
fn without_identities(line: &str) -> String {
    let blank = |argument: &str| match argument.split_once("by-id/") {
        Some((before, _)) => format!("{before}by-id/{REDACTED}"),
        None => without_macs(argument),
    };
    line.split(' ').map(blank).collect::<Vec<_>>().join(" ")
}

/// Replaces every run of six or more pairs of hexadecimal digits joined by `:` or `-`.
fn without_macs(argument: &str) -> String {
    let is_word = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '-';
    let mut out = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(start) = rest.find(is_word) {
        let (before, tail) = rest.split_at(start);
        let end = tail.find(|c| !is_word(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        out.push_str(before);
        let is_mac = |separator: char| {
            let mut pairs = 0;
            let all = word.split(separator).all(|pair| {
                pairs += 1;
                pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit())
            });
            all && pairs >= 6
        };
        // A letter before it, as in `=`, ends the word; one inside would have too.
        out.push_str(if is_mac(':') || is_mac('-') { REDACTED } else { word });
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_number_goes_and_everything_around_it_stays() {
        let mut bytes = vec![0u8; 4096];
        bytes[0x100..0x104].copy_from_slice(&0x1501_0003_u32.to_le_bytes());
        bytes[0x104..0x10c].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        bytes[0x10c] = 9;
        bytes[0x150..0x154].copy_from_slice(&0x0001_000d_u32.to_le_bytes());
        let redacted = without_serials(bytes.clone());
        assert_eq!(redacted[0x104..0x10c], [0; 8]);
        bytes[0x104..0x10c].fill(0);
        assert_eq!(redacted, bytes);
    }

    #[test]
    fn a_serial_number_at_the_end_of_the_bytes_is_blanked_as_far_as_it_goes() {
        let mut bytes = vec![0xabu8; 0x106];
        bytes[0x06] = 0;
        bytes[0x100..0x104].copy_from_slice(&0x0001_0003_u32.to_le_bytes());
        assert_eq!(without_serials(bytes)[0x104..], [0, 0]);
    }

    #[test]
    fn mac_addresses_go_and_pci_addresses_stay() {
        let line = "BOOTIF=01-52-54-00-12-34-56 ip=::::h:52:54:00:12:34:56 pci=disable_acs_redir=0000:41:00.0;00:1c.0/02:00.0 \
                    root=/dev/disk/by-id/nvme-eui.0025385 ifname=net0:52:54:00:12:34:56";
        let redacted = without_identities(line);
        assert!(!redacted.contains("34-56") && !redacted.contains("eui.0025385"), "{redacted}");
        assert!(redacted.contains("pci=disable_acs_redir=0000:41:00.0;00:1c.0/02:00.0"), "{redacted}");
        assert_eq!(without_mac_in_name("enx525400123456"), "enx-redacted");
        assert_eq!(without_mac_in_name("mlx5_0"), "mlx5_0");
    }
}
