//! `setpci`: carries out what `peerdma fix` prints for a running machine, in a guest that
//! has no pciutils.
//!
//! Only the one form that is printed, `setpci -s ADDRESS ECAP_ACS+OFFSET.w=VALUE:MASK`, all
//! numbers in hexadecimal: the bits of MASK become those of VALUE, the others stay
//! (setpci(8)). One line of JSON per register, with the words before and after.

use crate::acs;
use crate::failure::Failure;
use peerdma::pcie::PciAddr;
use serde::Deserialize;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub(crate) const USAGE: &str = "peerdma-guest setpci FIX.JSON
           FIX.JSON: what `peerdma fix --json` wrote; every line of its `setpci` is carried out";

/// The member of the document that matters here.
#[derive(Deserialize)]
struct Document {
    setpci: Vec<String>,
}

/// One line, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Assignment {
    address: PciAddr,
    /// From the start of the ACS capability.
    offset: u64,
    value: u16,
    mask: u16,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let [file] = arguments else { return Err(Failure::Usage(USAGE.into())) };
    let path = Path::new(file);
    let text = fs::read(path).map_err(Failure::file("read", path))?;
    let document: Document =
        serde_json::from_slice(&text).map_err(io::Error::from).map_err(Failure::file("understand", path))?;
    // All are read before the first is written.
    let lines = document.setpci.iter();
    let assignments = lines.map(|line| Assignment::read(line).ok_or_else(|| Failure::Line { line: line.clone() }));
    let assignments: Vec<Assignment> = assignments.collect::<Result<_, _>>()?;
    let mut out = io::stdout().lock();
    for Assignment { address, offset, value, mask } in assignments {
        let written = acs::assign(address, offset, value, mask)?;
        serde_json::to_writer(&mut out, &written).map_err(io::Error::from)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

impl Assignment {
    /// `None` for every other form: carrying out half of what a line says would prove nothing.
    fn read(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["setpci", "-s", address, assignment] = words[..] else { return None };
        let (register, to) = assignment.split_once('=')?;
        let offset = register.strip_prefix("ECAP_ACS+")?.strip_suffix(".w")?;
        let (value, mask) = to.split_once(':')?;
        let word = |text: &str| u16::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
        Some(Self {
            address: address.parse().ok()?,
            offset: u64::from(word(offset)?),
            value: word(value)?,
            mask: word(mask)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_fix_is_read_whole() {
        let read = Assignment::read("setpci -s 0000:00:04.0 ECAP_ACS+0x6.w=0011:005d").unwrap();
        let address = "00:04.0".parse().unwrap();
        assert_eq!(read, Assignment { address, offset: 6, value: 0x11, mask: 0x5d });
        assert_eq!(Assignment::read("setpci -s 00:04.0 ECAP_ACS+6.w=0:c").map(|read| read.mask), Some(0xc));
    }

    #[test]
    fn a_line_of_another_form_is_refused_and_not_half_done() {
        for line in [
            "",
            "setpci -s 00:04.0",
            "setpci -s 00:04.0 ECAP_ACS+0x6.w",
            "setpci -s 00:04.0 ECAP_ACS+0x6.w=0",
            "setpci -s 00:04.0 ECAP_ACS+0x6.b=0:c",
            "setpci -s 00:04.0 CAP_EXP+0x6.w=0:c",
            "setpci -s 00:04.0 ECAP_ACS+0x6.w=0:c ECAP_ACS+0x6.w=4:4",
            "setpci -s 00:04.0 ECAP_ACS+0x6.w=10000:c",
            "lspci -s 00:04.0 ECAP_ACS+0x6.w=0:c",
        ] {
            assert_eq!(Assignment::read(line), None, "{line}");
        }
    }
}
