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

/// Blanks the identities in a command line, argument by argument.
fn without_identities(line: &str) -> String {
    line.split(' ').map(without_identity).collect::<Vec<_>>().join(" ")
}

/// Blanks what follows `by-id/`, and every word that can be an identity.
///
/// Words are runs of hexadecimal digits, `:` and `-`. A letter of the word before may
/// stand in front (`eth0:52:54:…`), so what is looked for may start anywhere in it.
fn without_identity(argument: &str) -> String {
    const SECRET: [&str; 8] = ["serial", "machine_id", "nqn", "iqn", "wwn", "wwpn", "passw", "secret"];
    if let Some((key, value)) = argument.split_once('=')
        && SECRET.iter().any(|secret| key.contains(secret) || value.starts_with(secret))
    {
        return format!("{key}={REDACTED}");
    }
    let (argument, by_id) = match argument.split_once("by-id/") {
        Some((before, _)) => (before, Some("by-id/")),
        None => (argument, None),
    };
    let in_word = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '-';
    let mut out = String::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(start) = rest.find(in_word) {
        let (before, tail) = rest.split_at(start);
        let end = tail.find(|c| !in_word(c)).unwrap_or(tail.len());
        let (word, after) = tail.split_at(end);
        out.push_str(before);
        out.push_str(if is_identity(word) { REDACTED } else { word });
        rest = after;
    }
    out.push_str(rest);
    if let Some(by_id) = by_id {
        out.push_str(by_id);
        out.push_str(REDACTED);
    }
    out
}

/// A MAC address in one of its spellings, or something made from one.
fn is_identity(word: &str) -> bool {
    let parts: Vec<&str> = word.split([':', '-']).collect();
    // Six pairs in a row: 52:54:00:12:34:56, also amid other fields. The first may have
    // letters of a name before it.
    let is_pair = |part: &&str| part.len() == 2;
    let six_pairs = parts.windows(6).any(|six| six[0].len() >= 2 && six[1..].iter().all(is_pair));
    // 525400123456, an EUI-64 of 16 digits, the last part of a UUID of version 1.
    let bare = parts.iter().any(|part| matches!(part.len(), 12 | 16));
    // An IPv6 address made from a MAC address has ff:fe in its middle.
    let from_mac = parts.windows(2).any(|two| two[0].ends_with("ff") && two[1].starts_with("fe") && two[1].len() == 4);
    six_pairs || bare || from_mac
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
    fn mac_addresses_go_in_every_spelling() {
        for argument in [
            "BOOTIF=01-52-54-00-12-34-56",
            "ip=::::h:52:54:00:12:34:56",
            "ifname=net0:52:54:00:12:34:56",
            "ifname=eth:52:54:00:12:34:56:dhcp",
            "mac=525400123456",
            "ip=[fe80::5054:ff:fe12:3456]",
            "root=/dev/disk/by-id/nvme-eui.525400fffe123456",
            "root=UUID=6e1b0f80-1dd2-11b2-8000-525400123456",
            "systemd.machine_id=00000000000000000000000000123456",
            "rd.iscsi.initiator=iqn.2004-10.org:01:123456",
        ] {
            let redacted = without_identities(argument).to_lowercase();
            for part in ["12:34:56", "12-34-56", "123456", "12:3456"] {
                assert!(!redacted.contains(part), "{argument} became {redacted}");
            }
        }
    }

    #[test]
    fn what_verdicts_and_readers_need_stays() {
        for line in [
            "console=ttyS0 quiet intel_iommu=on iommu=pt pci=disable_acs_redir=0000:41:00.0;00:1c.0/02:00.0;pci:8086:09a2:0:0",
            "vfio-pci.ids=10de:2330,8086:09a2 hugepages=64 memmap=4G!16G pci=config_acs=xx111x1@0000:40:01.0",
        ] {
            assert_eq!(without_identities(line), line);
        }
        assert_eq!(without_mac_in_name("enx525400123456"), "enx-redacted");
        assert_eq!(without_mac_in_name("mlx5_0"), "mlx5_0");
    }
}
