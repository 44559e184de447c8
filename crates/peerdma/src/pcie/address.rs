//! The address of a PCI function: domain, bus, device, function.

use core::fmt;
use core::str::FromStr;

/// Device and function number on a bus, as one byte (`device << 3 | function`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct DevFn(u8);

impl DevFn {
    /// Takes the byte as the kernel writes it.
    pub const fn new(raw: u8) -> Self {
        Self(raw)
    }

    /// Device 0 to 31 and function 0 to 7; `None` outside.
    pub const fn from_parts(device: u8, function: u8) -> Option<Self> {
        if device < 32 && function < 8 { Some(Self(device << 3 | function)) } else { None }
    }

    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        self.0 >> 3
    }

    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 & 7
    }

    /// The byte.
    pub const fn as_u8(self) -> u8 {
        self.0
    }
}

/// Address of a PCI function, written `dddd:bb:dd.f`.
///
/// Domains have 32 bits: Linux numbers the domains behind Intel VMD from 0x10000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddr {
    domain: u32,
    bus: u8,
    devfn: DevFn,
}

impl PciAddr {
    /// Puts an address together.
    pub const fn new(domain: u32, bus: u8, devfn: DevFn) -> Self {
        Self { domain, bus, devfn }
    }

    /// PCI domain (the specification's segment group, widened as Linux does).
    pub const fn domain(self) -> u32 {
        self.domain
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        self.bus
    }

    /// Device and function number.
    pub const fn devfn(self) -> DevFn {
        self.devfn
    }

    /// Routing ID: bus, device and function in 16 bits, as requests carry it.
    pub const fn routing_id(self) -> u16 {
        (self.bus as u16) << 8 | self.devfn.0 as u16
    }

    /// The function `delta` routing IDs further in the same domain, as SR-IOV
    /// counts its virtual functions; `None` past bus 255.
    pub const fn routing_id_plus(self, delta: u32) -> Option<Self> {
        match (self.routing_id() as u32).checked_add(delta) {
            Some(rid) if rid <= 0xffff => {
                Some(Self { domain: self.domain, bus: (rid >> 8) as u8, devfn: DevFn(rid as u8) })
            }
            _ => None,
        }
    }
}

impl fmt::Display for PciAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.devfn.device(), self.devfn.function())
    }
}

impl fmt::Debug for PciAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `[domain:]bus:device.function` in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a PCI address: expected [domain:]bus:device.function in hexadecimal, such as 0000:41:00.0")]
pub struct NotAnAddress;

/// Hexadecimal digits only; `from_str_radix` alone would also take a sign.
fn hex(text: &str, max_digits: usize) -> Option<u32> {
    let fits = !text.is_empty() && text.len() <= max_digits;
    (fits && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| u32::from_str_radix(text, 16).ok())?
}

impl FromStr for PciAddr {
    type Err = NotAnAddress;

    /// Reads `[dddd[dddd]:]bb:dd.f`; without a domain it is 0.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = match rest.rsplit_once(':') {
                Some((domain, bus)) => (hex(domain, 8)?, bus),
                None => (0, rest),
            };
            let bus = u8::try_from(hex(bus, 2)?).ok()?;
            let device = u8::try_from(hex(device, 2)?).ok()?;
            let function = u8::try_from(hex(function, 1)?).ok()?;
            Some(Self { domain, bus, devfn: DevFn::from_parts(device, function)? })
        };
        parse().ok_or(NotAnAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in ["0000:00:00.0", "0000:ff:1f.7", "10000:e1:00.0", "ffffffff:00:1f.0"] {
            assert_eq!(text.parse::<PciAddr>().unwrap().to_string(), text);
        }
        assert_eq!("41:00.0".parse::<PciAddr>().unwrap().to_string(), "0000:41:00.0");
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in
            ["", "0:0", "00:20.0", "00:00.8", "100:00.0", "+0:00.0", "0000:00:00.0 ", "1ffffffff:00:00.0", "a:b:c:d.0"]
        {
            assert!(text.parse::<PciAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn routing_ids_carry_into_the_bus_and_stop_at_its_end() {
        let pf: PciAddr = "0000:3b:00.1".parse().unwrap();
        assert_eq!(pf.routing_id_plus(0x101).unwrap().to_string(), "0000:3c:00.2");
        assert!("0000:ff:1f.7".parse::<PciAddr>().unwrap().routing_id_plus(1).is_none());
    }
}
