//! Uncorrectable errors, with the packet that caused them where its header was logged.
//!
//! Linux 7.2 `aer_print_error`: one line with the severity, one with the registers, one for
//! each error (`   [20] UnsupReq               (First)`), one with the TLP header, each
//! after the name of the function that reports.

use super::line::Line;
use super::{AerError, Kind, Log, Severity};
use peerdma::addr::Iova;
use peerdma::pcie::{DevFn, PciAddr};

/// The report that lines are part of.
#[derive(Default)]
pub(super) struct Reports {
    /// Who reports, and how severe it is; correctable errors are not kept.
    open: Option<(PciAddr, Option<Severity>)>,
    /// Where in the log its errors start.
    first: usize,
}

impl Reports {
    /// Takes a line; true if it was part of a report.
    pub(super) fn take(&mut self, line: &Line<'_>, log: &mut Log) -> bool {
        let Some(device) = line.device else { return false };
        let rest = line.rest.strip_prefix("AER:").unwrap_or(line.rest).trim_start();
        if let Some((_, severity)) = rest.split_once("Bus Error: severity=") {
            // `Uncorrectable (Fatal)`, `Uncorrected (Non-Fatal)`, `Correctable`.
            self.open = severity.starts_with("Unc").then(|| (device, severity_of(severity)));
            self.first = log.events.len();
            return true;
        }
        let Some((_, severity)) = self.open.filter(|(reporter, _)| *reporter == device) else { return false };
        if let Some(error) = error(rest) {
            log.push(line.event(Kind::Aer { severity, error, requester: None }));
            return true;
        }
        if let Some(header) = rest.strip_prefix("TLP Header:") {
            if let Some(packet) = Packet::read(header, device) {
                packet.add_to(log.events.get_mut(self.first..).unwrap_or_default());
            }
            return true;
        }
        false
    }
}

fn severity_of(text: &str) -> Option<Severity> {
    if text.contains("(Non-Fatal)") {
        Some(Severity::NonFatal)
    } else if text.contains("(Fatal)") {
        Some(Severity::Fatal)
    } else {
        None
    }
}

/// `[20] UnsupReq               (First)`; names of Linux 7.2 `aer_uncorrectable_error_string`.
fn error(rest: &str) -> Option<AerError> {
    let (bit, name) = rest.strip_prefix('[')?.split_once(']')?;
    bit.trim().parse::<u8>().ok().filter(|&bit| bit < 32)?;
    Some(match name.split_whitespace().next()? {
        "ACSViol" => AerError::AcsViolation,
        "UnsupReq" => AerError::UnsupportedRequest,
        "MalfTLP" => AerError::MalformedTlp,
        "CmpltTO" => AerError::CompletionTimeout,
        "CmpltAbrt" => AerError::CompleterAbort,
        "TLP" | "PoisonTLPBlocked" => AerError::PoisonedTlp,
        "AtomicOpBlocked" => AerError::AtomicOpBlocked,
        _ => AerError::Other,
    })
}

/// A memory request, from the header that was logged (PCIe 6.0 §2.2.7).
struct Packet {
    requester: PciAddr,
    address: Iova,
}

impl Packet {
    /// Four double words in hexadecimal; `None` for anything but a memory request or AtomicOp.
    fn read(header: &str, reporter: PciAddr) -> Option<Self> {
        let words: Vec<u32> = header
            .split_whitespace()
            .take(4)
            .map(|word| u32::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok())
            .collect::<Option<_>>()?;
        let [first, second, third, fourth] = words[..] else { return None };
        // Type 0 is memory, 0c to 0e are AtomicOps; bit 29 of the first word is a header of four.
        if !matches!(first >> 24 & 0x1f, 0x00 | 0x0c..=0x0e) {
            return None;
        }
        let address = if first & 1 << 29 != 0 { u64::from(third) << 32 | u64::from(fourth) } else { u64::from(third) };
        let rid = (second >> 16) as u16;
        let requester = PciAddr::new(reporter.domain(), (rid >> 8) as u8, DevFn::new(rid as u8));
        Some(Self { requester, address: Iova::new(address & !3) })
    }

    fn add_to(&self, events: &mut [super::Event]) {
        for event in events {
            if let Kind::Aer { requester, .. } = &mut event.kind {
                *requester = Some(self.requester);
                event.address = Some(self.address);
            }
        }
    }
}
