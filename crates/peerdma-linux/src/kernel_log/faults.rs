//! Requests that an IOMMU stopped.
//!
//! - VT-d, `dmar_fault_do_one`: `DMAR: [DMA Write NO_PASID] Request device [0000:03:00.0] fault
//!   addr 0x… [fault reason 0x05] …`; older forms lack the domain, `0x`, or the PASID.
//! - AMD-Vi, `amd_iommu_report_page_fault`: `AMD-Vi: Event logged [IO_PAGE_FAULT device=… address=…
//!   flags=…]`, the device before it where a driver is bound.
//! - SMMUv3, `arm_smmu_dump_event`: `event: F_TRANSLATION client: 0000:01:00.0 sid: … iova: …`; before
//!   6.14 only `event 0x10 received:` and four words of hexadecimal.
//! - SMMUv2, `arm_smmu_context_fault`: `Unhandled context fault: fsr=…, iova=…, fsynr=…`.
//! - virtio, `viommu_fault_handler`: `page fault from EP 1280 at 0x… [ W ]`, the endpoint being a routing ID.

use super::line::{Line, hex, word_after};
use super::{Access, Event, Kind, Log};
use peerdma::addr::Iova;
use peerdma::pcie::{DevFn, PciAddr};

pub(super) fn event(line: &Line<'_>) -> Option<Event> {
    vtd(line).or_else(|| amd(line)).or_else(|| smmu_v3(line)).or_else(|| smmu_v2(line)).or_else(|| virtio(line))
}

fn fault(
    line: &Line<'_>,
    device: Option<PciAddr>,
    address: &str,
    access: Option<Access>,
    reason: &str,
) -> Option<Event> {
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let reason = reason.trim().chars().map(clean).collect();
    Some(line.event_of(Kind::IommuFault { access, reason }, device, Some(Iova::new(hex(address)?))))
}

fn vtd(line: &Line<'_>) -> Option<Event> {
    let (_, request) = line.message.split_once("[DMA ")?;
    let access = if request.starts_with("Read") { Access::Read } else { Access::Write };
    // One release wrote the bus and device with 0x.
    let device = word_after(request, "Request device [")?.replace("0x", "");
    let reason = request.split_once("[fault reason ").and_then(|(_, reason)| Some(reason.split_once(']')?.1));
    fault(line, device.parse().ok(), word_after(request, "fault addr ")?, Some(access), reason.unwrap_or_default())
}

fn amd(line: &Line<'_>) -> Option<Event> {
    /// The request was for a page that is present, so that its direction is told.
    const PRESENT: u64 = 0x10;
    const WRITE: u64 = 0x20;
    let (_, fields) = line.message.split_once("IO_PAGE_FAULT ")?;
    let device = word_after(fields, "device=").and_then(|device| device.parse().ok()).or(line.device);
    let flags = word_after(fields, "flags=").and_then(hex);
    let access = flags
        .filter(|flags| flags & PRESENT != 0)
        .map(|flags| if flags & WRITE != 0 { Access::Write } else { Access::Read });
    let reason = match access {
        Some(_) => "the page is mapped, but not for this access",
        None => "no such page is mapped",
    };
    fault(line, device, word_after(fields, "address=")?, access, reason)
}

fn smmu_v3(line: &Line<'_>) -> Option<Event> {
    let name = line.word_after("event: ").filter(|name| name.starts_with("F_"))?;
    let device = line.word_after("client: ").and_then(|client| client.parse().ok());
    fault(line, device, line.word_after("iova: ")?, None, name)
}

fn smmu_v2(line: &Line<'_>) -> Option<Event> {
    /// `ARM_SMMU_CB_FSYNR0_WNR`.
    const WRITE: u64 = 0x10;
    let (_, fields) = line.message.split_once("context fault: fsr=")?;
    let syndrome = word_after(fields, "fsynr=").and_then(hex);
    let access = syndrome.map(|word| if word & WRITE != 0 { Access::Write } else { Access::Read });
    let stream = word_after(fields, "cbfrsynra=").map(|id| format!("stream ID {id}")).unwrap_or_default();
    fault(line, None, word_after(fields, "iova=")?, access, &stream)
}

fn virtio(line: &Line<'_>) -> Option<Event> {
    let (reason, place) = line.message.split_once(" fault from EP ")?;
    let endpoint: u32 = place.split_once(' ')?.0.parse().ok()?;
    let (domain, rid) = (endpoint >> 16, endpoint as u16);
    let device = PciAddr::new(domain, (rid >> 8) as u8, DevFn::new(rid as u8));
    let flags = place.split_once('[').map_or("", |(_, flags)| flags);
    let access = match (flags.contains('R'), flags.contains('W')) {
        (true, false) => Some(Access::Read),
        (false, true) => Some(Access::Write),
        _ => None,
    };
    let reason = reason.rsplit(' ').next().unwrap_or_default();
    fault(line, Some(device), word_after(place, " at ")?, access, reason)
}

/// SMMUv3's event as four words on lines of their own.
#[derive(Default)]
pub(super) struct SmmuWords {
    words: Vec<u64>,
    open: bool,
}

impl SmmuWords {
    /// Takes a line; the event once its four words are there.
    pub(super) fn take(&mut self, line: &Line<'_>) -> Option<Event> {
        /// Bit of the second word: a read (SMMUv3 §7.3.13).
        const READ: u64 = 1 << 35;
        if line.message.starts_with("arm-smmu-v3 ") && line.message.ends_with(" received:") {
            (self.open, self.words) = (true, Vec::new());
            return None;
        }
        if !self.open {
            return None;
        }
        let last = line.message.split_whitespace().next_back().unwrap_or_default();
        match hex(last).filter(|_| last.len() == 18) {
            Some(word) => self.words.push(word),
            None => self.open = false,
        }
        let [first, second, address, _] = self.words[..] else { return None };
        self.open = false;
        let name = match first & 0xff {
            0x10 => "F_TRANSLATION",
            0x11 => "F_ADDR_SIZE",
            0x12 => "F_ACCESS",
            0x13 => "F_PERMISSION",
            _ => return None,
        };
        let access = if second & READ != 0 { Access::Read } else { Access::Write };
        // Which device a stream ID is, firmware tells and the log does not.
        let reason = format!("{name}, stream ID {:#x}", first >> 32);
        Some(line.event_of(Kind::IommuFault { access: Some(access), reason }, None, Some(Iova::new(address))))
    }
}

/// Whether the line says in words what the words of hexadecimal before it said.
pub(super) fn repeats(line: &Line<'_>, log: &Log) -> bool {
    let Some(said) = smmu_v3(line) else { return false };
    log.events.last().is_some_and(|last| {
        let raw = matches!(&last.kind, Kind::IommuFault { reason, .. } if reason.contains("stream ID"));
        raw && last.device.is_none() && last.address == said.address
    })
}
