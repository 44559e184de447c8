//! The PCI Express capability: port type, payload sizes, link.

use super::config::ConfigSpace;
use crate::addr::Bytes;
use core::fmt;

/// Device/Port Type field of the PCI Express capabilities register (PCIe 6.0 §7.5.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum PortType {
    /// PCI Express endpoint.
    Endpoint,
    /// Legacy PCI Express endpoint.
    LegacyEndpoint,
    /// Root port of a root complex.
    RootPort,
    /// Upstream port of a switch.
    UpstreamPort,
    /// Downstream port of a switch.
    DownstreamPort,
    /// Bridge to conventional PCI or PCI-X.
    PciExpressToPci,
    /// Bridge from conventional PCI or PCI-X.
    PciToPciExpress,
    /// Endpoint integrated in the root complex.
    RootComplexIntegrated,
    /// Event collector of the root complex.
    RootComplexEventCollector,
    /// A value without a meaning in PCIe 6.0.
    Reserved(u8),
}

impl PortType {
    /// Reads the four bits.
    pub const fn from_field(field: u8) -> Self {
        match field & 0xf {
            0x0 => Self::Endpoint,
            0x1 => Self::LegacyEndpoint,
            0x4 => Self::RootPort,
            0x5 => Self::UpstreamPort,
            0x6 => Self::DownstreamPort,
            0x7 => Self::PciExpressToPci,
            0x8 => Self::PciToPciExpress,
            0x9 => Self::RootComplexIntegrated,
            0xa => Self::RootComplexEventCollector,
            other => Self::Reserved(other),
        }
    }
}

impl fmt::Display for PortType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Endpoint => "endpoint",
            Self::LegacyEndpoint => "legacy endpoint",
            Self::RootPort => "root port",
            Self::UpstreamPort => "upstream port",
            Self::DownstreamPort => "downstream port",
            Self::PciExpressToPci => "PCIe-to-PCI bridge",
            Self::PciToPciExpress => "PCI-to-PCIe bridge",
            Self::RootComplexIntegrated => "integrated endpoint",
            Self::RootComplexEventCollector => "event collector",
            Self::Reserved(field) => return write!(f, "reserved port type {field}"),
        })
    }
}

/// Speed of a link, in tenths of GT/s (25, 50, 80, 160, 320, 640).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(transparent)]
pub struct LinkSpeed(u16);

impl LinkSpeed {
    /// From the encoding of the link registers, 1 to 6.
    pub const fn from_field(field: u8) -> Option<Self> {
        match field {
            1 => Some(Self(25)),
            2 => Some(Self(50)),
            3 => Some(Self(80)),
            4 => Some(Self(160)),
            5 => Some(Self(320)),
            6 => Some(Self(640)),
            _ => None,
        }
    }

    /// Reads `16.0 GT/s PCIe` (sysfs) or `16GT/s` (lspci).
    pub fn from_text(text: &str) -> Option<Self> {
        let number = text.trim().split_once("GT/s")?.0.trim();
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u16 = whole.parse().ok()?;
        let tenth: u16 = tenth.get(..1)?.parse().ok()?;
        whole.checked_mul(10)?.checked_add(tenth).map(Self)
    }

    /// Tenths of GT/s.
    pub const fn tenths(self) -> u16 {
        self.0
    }
}

impl fmt::Display for LinkSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 10 {
            0 => write!(f, "{} GT/s", self.0 / 10),
            tenth => write!(f, "{}.{tenth} GT/s", self.0 / 10),
        }
    }
}

/// State and ability of the link below a port or above an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Link {
    /// Negotiated speed.
    pub speed: Option<LinkSpeed>,
    /// Negotiated width in lanes; 0 when the link is down.
    pub width: Option<u8>,
    /// Highest speed of this end.
    pub max_speed: Option<LinkSpeed>,
    /// Widest width of this end, in lanes.
    pub max_width: Option<u8>,
}

impl Link {
    /// Whether the link is up and runs below what this end could do.
    pub fn is_degraded(&self) -> bool {
        let up = self.width.is_some_and(|width| width != 0);
        let below = |have: Option<u16>, can: Option<u16>| matches!((have, can), (Some(have), Some(can)) if have < can);
        up && (below(self.speed.map(LinkSpeed::tenths), self.max_speed.map(LinkSpeed::tenths))
            || below(self.width.map(u16::from), self.max_width.map(u16::from)))
    }

    /// This link, with what it lacks taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            speed: self.speed.or(other.speed),
            width: self.width.or(other.width),
            max_speed: self.max_speed.or(other.max_speed),
            max_width: self.max_width.or(other.max_width),
        }
    }
}

/// Operands of AtomicOps that a completer takes (Device Capabilities 2, bits 7 to 9).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AtomicSizes {
    /// FetchAdd, Swap and CAS of 32 bits.
    pub of_4_bytes: bool,
    /// FetchAdd, Swap and CAS of 64 bits.
    pub of_8_bytes: bool,
    /// CAS of 128 bits.
    pub of_16_bytes: bool,
}

impl AtomicSizes {
    /// No AtomicOp at all.
    pub const NONE: Self = Self { of_4_bytes: false, of_8_bytes: false, of_16_bytes: false };
    /// All of them.
    pub const ALL: Self = Self { of_4_bytes: true, of_8_bytes: true, of_16_bytes: true };

    /// Whether operands of this size are taken; of a size that is not said, whether any
    /// that FetchAdd and Swap have is.
    pub fn takes(self, operand: Option<Bytes>) -> bool {
        match operand.map(Bytes::as_u64) {
            None => self.of_4_bytes || self.of_8_bytes,
            Some(4) => self.of_4_bytes,
            Some(8) => self.of_8_bytes,
            Some(16) => self.of_16_bytes,
            Some(_) => false,
        }
    }
}

/// The PCI Express capability, as far as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Express {
    /// Largest payload the function supports.
    pub max_payload_supported: Option<Bytes>,
    /// Largest payload it is programmed to send (MPS).
    pub max_payload: Option<Bytes>,
    /// Largest read it is programmed to request (MRRS).
    pub max_read_request: Option<Bytes>,
    /// Relaxed Ordering enabled.
    pub relaxed_ordering: Option<bool>,
    /// No Snoop enabled.
    pub no_snoop: Option<bool>,
    /// Port number of the link capabilities, which egress vectors count by.
    pub port_number: Option<u8>,
    /// AtomicOp Routing Supported (ports).
    pub atomic_routing: Option<bool>,
    /// AtomicOp Egress Blocking (ports).
    pub atomic_egress_blocked: Option<bool>,
    /// AtomicOp Requester Enable.
    pub atomic_requester: Option<bool>,
    /// AtomicOp Completer Supported: what it takes of others.
    pub atomic_completer: Option<AtomicSizes>,
    /// Link.
    pub link: Link,
}

/// `128 << field` bytes, for the encodings 0 to 5 of MPS and MRRS.
const fn payload(field: u32) -> Option<Bytes> {
    if field <= 5 { Some(Bytes::new(128 << field)) } else { None }
}

/// Reads the capability at `offset`; the port type is known if its first words are.
pub fn decode(config: &impl ConfigSpace, offset: u16) -> (Option<PortType>, Express) {
    let port_type = config.word(offset + 2).map(|flags| PortType::from_field((flags >> 4) as u8));
    let capability = config.dword(offset + 0x04);
    let control = config.word(offset + 0x08).map(u32::from);
    let link_capability = config.dword(offset + 0x0c);
    let link_status = config.word(offset + 0x12);
    let version = config.word(offset + 2).map_or(0, |flags| flags & 0xf);
    // The second set of registers exists from version 2 on; version 1 has other bytes there.
    let second = |at: u16| if version >= 2 { config.dword(offset + at) } else { None };
    let (capability_2, control_2) = (second(0x24), second(0x28));
    let bit = |word: Option<u32>, n: u32| word.map(|word| word & 1 << n != 0);
    let express = Express {
        max_payload_supported: capability.and_then(|word| payload(word & 7)),
        max_payload: control.and_then(|word| payload(word >> 5 & 7)),
        max_read_request: control.and_then(|word| payload(word >> 12 & 7)),
        relaxed_ordering: bit(control, 4),
        no_snoop: bit(control, 11),
        port_number: link_capability.map(|word| (word >> 24) as u8),
        atomic_routing: bit(capability_2, 6),
        atomic_egress_blocked: bit(control_2, 7),
        atomic_requester: bit(control_2, 6),
        atomic_completer: capability_2.map(|word| AtomicSizes {
            of_4_bytes: word & 1 << 7 != 0,
            of_8_bytes: word & 1 << 8 != 0,
            of_16_bytes: word & 1 << 9 != 0,
        }),
        link: Link {
            speed: link_status.and_then(|word| LinkSpeed::from_field((word & 0xf) as u8)),
            width: link_status.map(|word| (word >> 4 & 0x3f) as u8),
            max_speed: link_capability.and_then(|word| LinkSpeed::from_field((word & 0xf) as u8)),
            max_width: link_capability.map(|word| (word >> 4 & 0x3f) as u8),
        },
    };
    (port_type, express)
}

#[cfg(test)]
mod tests {
    use super::super::config::{ConfigBytes, ConfigSize};
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    #[test]
    fn atomic_completers_say_so_for_each_size_and_only_from_version_2_on() {
        let mut bytes = vec![0u8; 256];
        bytes[0x42] = 0x02;
        bytes[0x64..0x68].copy_from_slice(&(1u32 << 6 | 1 << 8).to_le_bytes());
        let (_, express) = decode(&ConfigBytes::new(bytes.clone(), ConfigSize::Unknown), 0x40);
        let sizes = express.atomic_completer.unwrap();
        assert_eq!(sizes, AtomicSizes { of_8_bytes: true, ..AtomicSizes::NONE });
        assert_eq!(express.atomic_routing, Some(true));
        assert!(sizes.takes(None) && sizes.takes(Some(Bytes::new(8))) && !sizes.takes(Some(Bytes::new(4))));
        assert!(!AtomicSizes { of_16_bytes: true, ..AtomicSizes::NONE }.takes(None), "CAS of 128 bits alone");
        bytes[0x42] = 0x01;
        let (_, first) = decode(&ConfigBytes::new(bytes, ConfigSize::Unknown), 0x40);
        assert_eq!(first.atomic_completer, None);
    }

    #[test]
    fn speeds_read_alike_from_sysfs_from_lspci_and_from_the_register() {
        let gen4 = LinkSpeed::from_field(4).unwrap();
        assert_eq!(LinkSpeed::from_text("16.0 GT/s PCIe\n"), Some(gen4));
        assert_eq!(LinkSpeed::from_text("16GT/s"), Some(gen4));
        assert_eq!(LinkSpeed::from_text("2.5GT/s").unwrap().to_string(), "2.5 GT/s");
        assert_eq!(LinkSpeed::from_text("Unknown"), None);
        assert_eq!(LinkSpeed::from_text("99999GT/s"), None);
    }

    #[test]
    fn a_link_that_is_down_is_not_called_degraded() {
        let mut link = Link {
            speed: LinkSpeed::from_field(1),
            width: Some(0),
            max_speed: LinkSpeed::from_field(5),
            max_width: Some(16),
        };
        assert!(!link.is_degraded());
        link.width = Some(8);
        assert!(link.is_degraded());
        link = Link { speed: link.max_speed, width: link.max_width, ..link };
        assert!(!link.is_degraded());
    }
}
