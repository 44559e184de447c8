//! What a block says about capabilities.

use super::word::{after, decimal, flag, flags, hex, size};
use peerdma::addr::Bytes;
use peerdma::pcie::acs::AcsBits;
use peerdma::pcie::express::{AtomicSizes, Express, LinkSpeed, PortType};
use peerdma::pcie::fact::Fact;
use peerdma::pcie::virt::{Ats, Pasid, Pri, ResizableBar, SrIov};

/// Extended capabilities start here.
const EXTENDED: u64 = 0x100;

/// The capabilities of one function, as far as they are named and described.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    /// Some were not shown for want of privilege.
    pub(super) denied: bool,
    /// At least one is named.
    pub(super) listed: bool,
    /// An extended one is named with its version, as only `-vv` and above do.
    pub(super) versioned: bool,
    /// Port type, if Express is named; unknown where its wording is.
    pub(super) port_type: Option<Fact<PortType>>,
    pub(super) express: Express,
    /// Whether PCI-X runs at 266 or 533 MHz, if PCI-X is named; unknown where it does not say.
    pub(super) fast_pcix: Option<Fact<bool>>,
    pub(super) acs: Option<AcsText>,
    pub(super) sriov: Option<SrIovText>,
    /// The others, if named; unknown where their registers are not described.
    pub(super) ats: Option<Fact<Ats>>,
    pub(super) pri: Option<Fact<Pri>>,
    pub(super) pasid: Option<PasidText>,
    pub(super) resizable: Option<Vec<ResizableBar>>,
}

/// Access Control Services as the text has them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AcsText {
    pub(super) offset: Option<u16>,
    pub(super) capability: Option<AcsBits>,
    pub(super) control: Option<AcsBits>,
}

/// SR-IOV as the text has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SrIovText {
    enabled: Option<bool>,
    total_vfs: Option<u16>,
    num_vfs: Option<u16>,
    first_offset: Option<u16>,
    stride: Option<u16>,
}

/// PASID as the text has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PasidText {
    enabled: Option<bool>,
    width: Option<u8>,
}

/// The capability that deeper lines belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Section {
    Express,
    PciX,
    Acs,
    SrIov,
    Ats,
    Pri,
    Pasid,
    ResizableBar,
    /// One that nothing is read of, or a second of its kind: Linux takes the first.
    #[default]
    Other,
}

impl SrIovText {
    pub(super) fn registers(&self) -> Option<SrIov> {
        Some(SrIov {
            enabled: self.enabled?,
            num_vfs: self.num_vfs?,
            total_vfs: self.total_vfs?,
            first_offset: self.first_offset?,
            stride: self.stride?,
        })
    }
}

impl PasidText {
    pub(super) fn registers(&self) -> Option<Pasid> {
        Some(Pasid { enabled: self.enabled?, width: self.width? })
    }
}

/// Puts a value where none is known yet.
fn learn<T: Copy>(place: &mut Option<Fact<T>>, value: impl FnOnce() -> Option<T>) {
    let known = place.and_then(Fact::known).or_else(value);
    *place = Some(known.into());
}

/// Puts a default where nothing is; whether it did.
fn first<T: Default>(place: &mut Option<T>) -> bool {
    let is_first = place.is_none();
    place.get_or_insert_default();
    is_first
}

impl Capabilities {
    /// Takes what follows `Capabilities: `.
    pub(super) fn open(&mut self, text: &str) -> Section {
        if text.starts_with("<access denied>") {
            self.denied = true;
            return Section::Other;
        }
        self.listed = true;
        let (offset, title) = match text.strip_prefix('[').and_then(|text| text.split_once("] ")) {
            Some((place, title)) => {
                let offset = hex(place);
                self.versioned |= offset.is_some_and(|(at, rest)| at >= EXTENDED && rest.starts_with(" v"));
                (offset.and_then(|(at, _)| u16::try_from(at).ok()), title)
            }
            None => (None, text),
        };
        let (section, is_first) = if let Some(rest) = title.strip_prefix("Express ") {
            (Section::Express, self.port_type.is_none() && self.express(rest))
        } else if title.starts_with("Access Control Services") {
            let is_first = self.acs.is_none();
            self.acs.get_or_insert(AcsText { offset, ..AcsText::default() });
            (Section::Acs, is_first)
        } else if title.starts_with("Single Root I/O Virtualization") {
            (Section::SrIov, first(&mut self.sriov))
        } else if title.starts_with("Address Translation Service") {
            (Section::Ats, first(&mut self.ats))
        } else if title.starts_with("Page Request Interface") {
            (Section::Pri, first(&mut self.pri))
        } else if title.starts_with("Process Address Space ID") {
            (Section::Pasid, first(&mut self.pasid))
        } else if title.starts_with("Physical Resizable BAR") || title.starts_with("Resizable BAR") {
            (Section::ResizableBar, first(&mut self.resizable))
        } else if title.starts_with("PCI-X ") {
            (Section::PciX, first(&mut self.fast_pcix))
        } else {
            (Section::Other, false)
        };
        if is_first { section } else { Section::Other }
    }

    /// Takes what follows `Express `: `(v2) Root Port (Slot+), MSI 00`.
    fn express(&mut self, text: &str) -> bool {
        let text = match text.strip_prefix("(v") {
            Some(version) => version.split_once(") ").map_or("", |(_, rest)| rest),
            None => text,
        };
        let starts = |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        let known = PORT_TYPES.iter().find(|(prefix, _)| starts(prefix)).map(|(_, port_type)| *port_type);
        let reserved = || {
            let (field, _) = decimal(text.strip_prefix("Unknown type ")?)?;
            u8::try_from(field).ok().map(PortType::from_field)
        };
        self.port_type = Some(known.or_else(reserved).into());
        true
    }

    /// Takes a line below a capability.
    pub(super) fn line(&mut self, section: Section, line: &str) {
        match section {
            Section::Express => self.express_line(line),
            Section::Acs => self.acs_line(line),
            Section::SrIov => self.sriov_line(line),
            Section::Ats => {
                if let Some(value) = line.strip_prefix("ATSCtl:") {
                    learn(&mut self.ats, || flag(value, "Enable").map(|enabled| Ats { enabled }));
                }
            }
            Section::Pri => {
                if let Some(value) = line.strip_prefix("PRICtl:") {
                    learn(&mut self.pri, || flag(value, "Enable").map(|enabled| Pri { enabled }));
                }
            }
            Section::Pasid => {
                let pasid = self.pasid.get_or_insert_default();
                if let Some(value) = line.strip_prefix("PASIDCtl:") {
                    pasid.enabled = pasid.enabled.or_else(|| flag(value, "Enable"));
                } else if let Some(value) = line.strip_prefix("PASIDCap:") {
                    pasid.width = pasid.width.or_else(|| pasid_width(value));
                }
            }
            Section::ResizableBar => self.resizable.get_or_insert_default().extend(resizable_bar(line)),
            Section::PciX => {
                if let Some(value) = line.strip_prefix("Status:") {
                    let fast = || flag(value, "266MHz").zip(flag(value, "533MHz")).map(|(a, b)| a || b);
                    learn(&mut self.fast_pcix, fast);
                }
            }
            Section::Other => {}
        }
    }

    fn acs_line(&mut self, line: &str) {
        let acs = self.acs.get_or_insert_default();
        if let Some(value) = line.strip_prefix("ACSCap:") {
            acs.capability = acs.capability.or_else(|| acs_bits(value));
        } else if let Some(value) = line.strip_prefix("ACSCtl:") {
            acs.control = acs.control.or_else(|| acs_bits(value));
        }
    }

    fn sriov_line(&mut self, line: &str) {
        let sriov = self.sriov.get_or_insert_default();
        // The comma after it shows that a number is whole.
        let number = |key: &str| {
            let (number, rest) = decimal(after(line, key)?)?;
            rest.starts_with(',').then(|| u16::try_from(number).ok())?
        };
        if let Some(value) = line.strip_prefix("IOVCtl:") {
            sriov.enabled = sriov.enabled.or_else(|| flag(value, "Enable"));
        } else if line.starts_with("Initial VFs:") {
            sriov.total_vfs = sriov.total_vfs.or_else(|| number("Total VFs: "));
            sriov.num_vfs = sriov.num_vfs.or_else(|| number("Number of VFs: "));
        } else if line.starts_with("VF offset:") {
            sriov.first_offset = sriov.first_offset.or_else(|| number("VF offset: "));
            sriov.stride = sriov.stride.or_else(|| number("stride: "));
        }
    }

    fn express_line(&mut self, line: &str) {
        let express = &mut self.express;
        match line.as_bytes().first() {
            Some(b'D') => {
                if let Some(value) = line.strip_prefix("DevCap:") {
                    express.max_payload_supported = bytes_after(value, "MaxPayload ");
                }
            }
            // Both are continuations of DevCtl.
            Some(b'R') if line.starts_with("RlxdOrd") => {
                express.relaxed_ordering = flag(line, "RlxdOrd");
                express.no_snoop = flag(line, "NoSnoop");
            }
            Some(b'M') if line.starts_with("MaxPayload ") => {
                express.max_payload = bytes_after(line, "MaxPayload ");
                express.max_read_request = bytes_after(line, "MaxReadReq ");
            }
            Some(b'L') => {
                if let Some(value) = line.strip_prefix("LnkCap:") {
                    let port = after(value, "Port #").and_then(decimal).filter(|(_, rest)| rest.starts_with(','));
                    express.port_number = port.and_then(|(port, _)| u8::try_from(port).ok());
                    (express.link.max_speed, express.link.max_width) = link(value);
                } else if let Some(value) = line.strip_prefix("LnkSta:") {
                    (express.link.speed, express.link.width) = link(value);
                }
            }
            Some(b'A') => {
                if let Some(value) = line.strip_prefix("AtomicOpsCap:") {
                    // Only ports show whether they route.
                    express.atomic_routing = flag(value, "Routing");
                    let sizes = (flag(value, "32bit"), flag(value, "64bit"), flag(value, "128bitCAS"));
                    if let (Some(of_4_bytes), Some(of_8_bytes), Some(of_16_bytes)) = sizes {
                        express.atomic_completer = Some(AtomicSizes { of_4_bytes, of_8_bytes, of_16_bytes });
                    }
                } else if let Some(value) = line.strip_prefix("AtomicOpsCtl:") {
                    express.atomic_requester = flag(value, "ReqEn");
                    express.atomic_egress_blocked = flag(value, "EgressBlck");
                }
            }
            _ => {}
        }
    }
}

/// Wordings of `lspci`, the newer ones too; compared without regard to case.
const PORT_TYPES: [(&str, PortType); 13] = [
    ("Endpoint", PortType::Endpoint),
    ("Legacy Endpoint", PortType::LegacyEndpoint),
    ("Root Port", PortType::RootPort),
    ("Upstream Port", PortType::UpstreamPort),
    ("Downstream Port", PortType::DownstreamPort),
    ("PCI-Express to PCI", PortType::PciExpressToPci),
    ("PCI Express to PCI", PortType::PciExpressToPci),
    ("PCIe to PCI", PortType::PciExpressToPci),
    ("PCI/PCI-X to PCI-Express", PortType::PciToPciExpress),
    ("PCI/PCI-X to PCI Express", PortType::PciToPciExpress),
    ("PCI/PCI-X to PCIe", PortType::PciToPciExpress),
    ("Root Complex Integrated Endpoint", PortType::RootComplexIntegrated),
    ("Root Complex Event Collector", PortType::RootComplexEventCollector),
];

/// Seven flags; `None` if one is missing, which then may be set or not.
fn acs_bits(text: &str) -> Option<AcsBits> {
    let mut seen = AcsBits::empty();
    let mut set = AcsBits::empty();
    for (name, value) in flags(text) {
        let bit = match name {
            "SrcValid" => AcsBits::SV,
            "TransBlk" => AcsBits::TB,
            "ReqRedir" => AcsBits::RR,
            "CmpltRedir" => AcsBits::CR,
            "UpstreamFwd" => AcsBits::UF,
            "EgressCtrl" => AcsBits::EC,
            "DirectTrans" => AcsBits::DT,
            _ => continue,
        };
        seen |= bit;
        set.set(bit, value);
    }
    (seen.bits() == 0x7f).then_some(set)
}

/// `Exec- Priv-, Max PASID Width: 14`, in hexadecimal.
fn pasid_width(text: &str) -> Option<u8> {
    let (width, _) = hex(after(text, "Max PASID Width: ")?)?;
    u8::try_from(width).ok().filter(|width| *width <= 20)
}

/// `MaxPayload 256 bytes`.
fn bytes_after(text: &str, key: &str) -> Option<Bytes> {
    let (number, rest) = decimal(after(text, key)?)?;
    rest.starts_with(" bytes").then(|| Bytes::new(number))
}

/// `Speed 16GT/s (ok), Width x16 (downgraded)`.
fn link(text: &str) -> (Option<LinkSpeed>, Option<u8>) {
    let mut speed = None;
    let mut width = None;
    for part in text.split(',') {
        let part = part.trim_ascii_start();
        if let Some(value) = part.strip_prefix("Speed ") {
            speed = LinkSpeed::from_text(value);
        } else if let Some(value) = part.strip_prefix("Width x") {
            width = decimal(value).and_then(|(width, _)| u8::try_from(width).ok());
        }
    }
    (speed, width)
}

/// `BAR 1: current size: 64GB, supported: 64MB 128MB …`.
fn resizable_bar(line: &str) -> Option<ResizableBar> {
    let (index, rest) = decimal(line.strip_prefix("BAR ")?)?;
    let (current, rest) = size(rest.strip_prefix(": current size: ")?)?;
    let mut sizes: Vec<Bytes> =
        rest.strip_prefix(", supported:")?.split_ascii_whitespace().filter_map(|word| Some(size(word)?.0)).collect();
    sizes.sort_unstable();
    Some(ResizableBar { index: u8::try_from(index).ok().filter(|index| *index < 6)?, size: current, sizes })
}
