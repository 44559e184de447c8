//! Where registers lie, and which bits they have (PCIe 6.0 §7.5 and §7.7).

/// Bytes of a conventional configuration space.
pub(super) const CONVENTIONAL: u16 = 256;
/// Bytes of a PCI Express configuration space.
pub(super) const EXTENDED: u16 = 4096;
/// Where the extended capabilities begin.
pub(super) const FIRST_EXTENDED: u16 = 0x100;
/// Where the first standard capability is put.
pub(super) const FIRST_STANDARD: u16 = 0x40;

/// The header, both types (§7.5.1).
pub(super) mod header {
    pub(in super::super) const COMMAND: u16 = 0x04;
    pub(in super::super) const CLASS: u16 = 0x08;
    /// The double word whose third byte is the header type.
    pub(in super::super) const TYPE: u16 = 0x0c;
    pub(in super::super) const BARS: u16 = 0x10;
    pub(in super::super) const CAPABILITIES: u16 = 0x34;
    pub(in super::super) const INTERRUPT_AND_BRIDGE_CONTROL: u16 = 0x3c;

    pub(in super::super) const MEMORY_SPACE: u32 = 1 << 1;
    pub(in super::super) const BUS_MASTER: u32 = 1 << 2;
    /// The two above, parity and system errors, and interrupts by wire.
    pub(in super::super) const COMMAND_WRITABLE: u32 = 0x0546;
    pub(in super::super) const HAS_CAPABILITIES: u32 = 0x10 << 16;
    /// Bits of the status register that a one clears.
    pub(in super::super) const STATUS_CLEARED: u32 = 0xf900 << 16;
    pub(in super::super) const TYPE_BRIDGE: u32 = 1 << 16;
    pub(in super::super) const MULTIFUNCTION: u32 = 0x80 << 16;
}

/// What only bridges have in their headers (§7.5.1.3).
pub(super) mod bridge {
    pub(in super::super) const BUSES: u16 = 0x18;
    pub(in super::super) const SECONDARY_STATUS: u16 = 0x1c;
    pub(in super::super) const MEMORY: u16 = 0x20;
    pub(in super::super) const PREFETCHABLE: u16 = 0x24;
    pub(in super::super) const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
    pub(in super::super) const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;

    pub(in super::super) const BUSES_WRITABLE: u32 = 0x00ff_ffff;
    pub(in super::super) const WINDOW_WRITABLE: u32 = 0xfff0_fff0;
    /// Both halves say that the prefetchable window has 64 bits.
    pub(in super::super) const WINDOW_64_BIT: u32 = 0x0001_0001;
    pub(in super::super) const VGA_ENABLE: u32 = 1 << (16 + 3);
    pub(in super::super) const SECONDARY_RESET: u32 = 1 << (16 + 6);
    /// Errors, VGA, abort mode and secondary bus reset.
    pub(in super::super) const CONTROL_WRITABLE: u32 = 0x007b << 16;
}

/// Power management (PCI Power Management 1.2, §3.2).
pub(super) mod power {
    pub(in super::super) const ID: u8 = 0x01;
    pub(in super::super) const LEN: u16 = 8;
    pub(in super::super) const CONTROL: u16 = 4;
    pub(in super::super) const STATE: u32 = 3;
    pub(in super::super) const D3_HOT: u32 = 3;
    /// Registers keep what they hold on the way from D3 to D0.
    pub(in super::super) const NO_SOFT_RESET: u32 = 1 << 3;
}

/// Message signalled interrupts, with an address of 64 bits and without masks (§7.7.1).
pub(super) mod msi {
    pub(in super::super) const ID: u8 = 0x05;
    pub(in super::super) const LEN: u16 = 0x10;
    pub(in super::super) const ADDRESS: u16 = 4;
    pub(in super::super) const ADDRESS_UPPER: u16 = 8;
    pub(in super::super) const DATA: u16 = 0xc;
    pub(in super::super) const ENABLE: u32 = 1 << 16;
    pub(in super::super) const CAPABLE_SHIFT: u32 = 17;
    pub(in super::super) const ENABLED_SHIFT: u32 = 20;
    pub(in super::super) const IS_64_BIT: u32 = 1 << 23;
}

/// The PCI Express capability, second version (§7.5.3).
pub(super) mod express {
    pub(in super::super) const ID: u8 = 0x10;
    pub(in super::super) const LEN: u16 = 0x3c;
    pub(in super::super) const VERSION: u32 = 2 << 16;
    pub(in super::super) const TYPE_SHIFT: u32 = 20;
    pub(in super::super) const CAPABILITIES: u16 = 0x04;
    pub(in super::super) const CONTROL: u16 = 0x08;
    pub(in super::super) const LINK_CAPABILITIES: u16 = 0x0c;
    pub(in super::super) const LINK_CONTROL: u16 = 0x10;
    pub(in super::super) const CAPABILITIES_2: u16 = 0x24;
    pub(in super::super) const CONTROL_2: u16 = 0x28;

    /// Tags of 8 bits, and errors reported by role.
    pub(in super::super) const CAPABILITIES_FIXED: u32 = 1 << 5 | 1 << 15;
    pub(in super::super) const RELAXED: u32 = 1 << 4;
    pub(in super::super) const PAYLOAD_SHIFT: u32 = 5;
    pub(in super::super) const NO_SNOOP: u32 = 1 << 11;
    pub(in super::super) const READ_SHIFT: u32 = 12;
    pub(in super::super) const CONTROL_WRITABLE: u32 = 0x79ff;
    pub(in super::super) const STATUS_CLEARED: u32 = 0xf << 16;
    /// Reads of 512 bytes, both hints.
    pub(in super::super) const CONTROL_RESET: u32 = 0x2810;
    pub(in super::super) const PORT_NUMBER_SHIFT: u32 = 24;
    pub(in super::super) const ROUTES_ATOMICS: u32 = 1 << 6;
    pub(in super::super) const COMPLETES_4: u32 = 1 << 7;
    pub(in super::super) const COMPLETES_8: u32 = 1 << 8;
    pub(in super::super) const COMPLETES_16: u32 = 1 << 9;
    /// Prefixes from end to end, one of them, as PASIDs need.
    pub(in super::super) const PREFIXES: u32 = 1 << 21 | 1 << 22;
    pub(in super::super) const ATOMIC_REQUESTER: u32 = 1 << 6;
    pub(in super::super) const ATOMIC_EGRESS_BLOCKED: u32 = 1 << 7;
    /// Timeouts and AtomicOps.
    pub(in super::super) const CONTROL_2_WRITABLE: u32 = 0x00df;
}

/// Access control services (§7.7.11).
pub(super) mod acs {
    pub(in super::super) const ID: u16 = 0x000d;
    /// SV to DT, each of which has its own capability bit.
    pub(in super::super) const PAIRED: u16 = 0x007f;
    pub(in super::super) const EGRESS_CONTROL: u16 = 0x0020;
    pub(in super::super) const ENHANCED: u16 = 0x0080;
    /// I/O Request Blocking, Memory Targets, Unclaimed Request Redirect.
    pub(in super::super) const ENHANCED_CONTROL: u16 = 0x1f80;
}

/// Address translation services (§10.5.1).
pub(super) mod ats {
    pub(in super::super) const ID: u16 = 0x000f;
    /// Queue of 32 invalidations, untranslated addresses aligned to pages, global invalidation.
    pub(in super::super) const CAPABILITY: u32 = 1 << 5 | 1 << 6;
    pub(in super::super) const ENABLE: u32 = 1 << 31;
    /// The enable and the smallest translation unit.
    pub(in super::super) const WRITABLE: u32 = ENABLE | 0x1f << 16;
}

/// Page requests (§10.5.2).
pub(super) mod pri {
    pub(in super::super) const ID: u16 = 0x0013;
    pub(in super::super) const LEN: u16 = 0x10;
    pub(in super::super) const CONTROL: u16 = 4;
    pub(in super::super) const ENABLE: u32 = 1;
    pub(in super::super) const STATUS_CLEARED: u32 = 3 << 16;
    pub(in super::super) const STOPPED: u32 = 1 << (16 + 8);
    pub(in super::super) const NEEDS_PASID: u32 = 1 << (16 + 15);
    pub(in super::super) const CAPACITY: u32 = 64;
    pub(in super::super) const ALLOCATION: u16 = 12;
}

/// Process address space IDs (§7.8.8).
pub(super) mod pasid {
    pub(in super::super) const ID: u16 = 0x001b;
    /// Execute and privileged requests.
    pub(in super::super) const CAPABILITY: u32 = 0x6;
    pub(in super::super) const WIDTH_SHIFT: u32 = 8;
    pub(in super::super) const ENABLE: u32 = 1 << 16;
    /// The enable and the two permissions.
    pub(in super::super) const WRITABLE: u32 = 7 << 16;
}

/// Resizable BARs (§7.8.6).
pub(super) mod resizable {
    pub(in super::super) const ID: u16 = 0x0015;
    pub(in super::super) const SIZE_SHIFT: u32 = 8;
    pub(in super::super) const SIZE: u32 = 0x3f << SIZE_SHIFT;
    /// Size 0 is 2^20 bytes.
    pub(in super::super) const SMALLEST_LOG2: u32 = 20;
}
