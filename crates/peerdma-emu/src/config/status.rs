//! Errors that a function notes in its status registers until software clears them.

use super::layout::{express, header, pri};
use super::space::Space;

/// What a function noted (PCIe 6.0 §7.5.1.1.4, §7.5.3.5 and §10.5.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Detected {
    /// Device Status: a correctable error.
    Correctable,
    /// Device Status: an uncorrectable error that left the link usable, as an ACS violation is.
    NonFatal,
    /// Device Status: an uncorrectable error that did not, as a malformed request is.
    Fatal,
    /// Device Status: a request that it does not support.
    UnsupportedRequest,
    /// Status: it refused a request with Completer Abort.
    SignalledAbort,
    /// Status: a request of its own was refused with Completer Abort.
    ReceivedAbort,
    /// Status: a request of its own was not supported by anyone.
    ReceivedUnsupported,
    /// Status: it was sent poisoned data.
    Poisoned,
    /// Page Request Status: a response named a group that it does not wait for (§10.5.2.3).
    UnexpectedPageResponse,
}

impl Space {
    /// Notes an error; a function without the register that has a bit for it notes nothing.
    pub fn note(&self, error: Detected) {
        let device = |bit: u32| (self.at.express.map(|at| at + express::CONTROL), bit);
        let status = |bit: u32| (Some(header::COMMAND), bit);
        let (offset, bit) = match error {
            Detected::Correctable => device(0),
            Detected::NonFatal => device(1),
            Detected::Fatal => device(2),
            Detected::UnsupportedRequest => device(3),
            Detected::SignalledAbort => status(11),
            Detected::ReceivedAbort => status(12),
            Detected::ReceivedUnsupported => status(13),
            Detected::Poisoned => status(15),
            Detected::UnexpectedPageResponse => (self.at.pri.map(|at| at + pri::CONTROL), 1),
        };
        if let Some(offset) = offset {
            self.set_bits(offset, 1 << (16 + bit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Description, Width};
    use super::*;
    use peerdma::pcie::express::PortType;

    #[test]
    fn what_was_noted_stays_until_a_one_clears_it() {
        let port = Space::new(&Description::express(PortType::DownstreamPort));
        let before = port.read(0x50, Width::Four);
        for error in [Detected::UnsupportedRequest, Detected::Fatal, Detected::ReceivedAbort] {
            port.note(error);
        }
        assert_eq!(port.read(0x52, Width::Two), 0xc);
        assert_eq!(port.read(0x06, Width::Two), 0x1010);
        port.write(0x52, Width::Two, 0);
        assert_eq!(port.read(0x52, Width::Two), 0xc, "zeros clear nothing");
        assert!(!port.write(0x52, Width::Two, 8), "no request's way depends on it");
        assert_eq!(port.read(0x52, Width::Two), 4);
        port.write(0x50, Width::Four, before | 0xf << 16);
        assert_eq!(port.read(0x50, Width::Four), before);
        port.write(0x06, Width::One, 0xff);
        assert_eq!(port.read(0x06, Width::Two), 0x1010, "the bit is in the other byte");
        port.write(0x07, Width::One, 0xff);
        assert_eq!(port.read(0x06, Width::Two), 0x10);
    }

    #[test]
    fn conventional_pci_has_no_device_status() {
        let device = Space::new(&Description::default());
        device.note(Detected::Fatal);
        device.note(Detected::Poisoned);
        assert_eq!(device.read(0x06, Width::Two), 0x8000);
    }
}
