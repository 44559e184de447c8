//! Vendor, device and class numbers.

use core::fmt;

/// Vendor and device ID, written `8086:09a2`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciId {
    /// Vendor ID as assigned by the PCI-SIG.
    pub vendor: u16,
    /// Device ID as assigned by the vendor.
    pub device: u16,
}

impl fmt::Display for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl fmt::Debug for PciId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Class code: base class, subclass and programming interface in 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ClassCode(u32);

impl ClassCode {
    /// Takes the low 24 bits, `0x030200` for a 3D controller.
    pub const fn new(raw: u32) -> Self {
        Self(raw & 0x00ff_ffff)
    }

    /// All 24 bits.
    pub const fn as_u32(self) -> u32 {
        self.0
    }

    /// Base class, such as 0x02 for network controllers.
    pub const fn base(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Base class and subclass, such as 0x0604 for PCI-to-PCI bridges.
    pub const fn base_and_sub(self) -> u16 {
        (self.0 >> 8) as u16
    }

    /// Host bridge (0600); Linux looks for extended config space behind these
    /// even without a PCIe capability (`pci_cfg_space_size`).
    pub const fn is_host_bridge(self) -> bool {
        self.base_and_sub() == 0x0600
    }

    /// A bridge with buses below it: to PCI, to CardBus, or a semi-transparent one.
    pub const fn has_buses_below(self) -> bool {
        matches!(self.base_and_sub(), 0x0604 | 0x0607 | 0x0609)
    }

    /// The words of [`word`](Self::word).
    pub const WORDS: [&'static str; 8] =
        ["display", "network", "storage", "accelerator", "bridge", "processor", "system", "serial"];

    /// What people call the kind of device.
    pub const fn word(self) -> Option<&'static str> {
        match self.base_and_sub() {
            // Co-processors, as which accelerators without a screen used to pass.
            0x0b40 => return Some("accelerator"),
            // InfiniBand, before it became a network controller's subclass.
            0x0c06 => return Some("network"),
            _ => {}
        }
        match self.base() {
            0x01 => Some("storage"),
            0x02 => Some("network"),
            0x03 => Some("display"),
            0x06 => Some("bridge"),
            0x12 => Some("accelerator"),
            0x0b => Some("processor"),
            0x08 => Some("system"),
            0x0c => Some("serial"),
            _ => None,
        }
    }
}

impl fmt::Display for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06x}", self.0)
    }
}

impl fmt::Debug for ClassCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
