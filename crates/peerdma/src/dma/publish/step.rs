//! Steps between payload and doorbell.

use core::fmt;

/// Something to do before the doorbell; of several, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Step {
    /// Have the device send the payload without Relaxed Ordering.
    StrictPayload,
    /// Have the device send payload and read alike: all translated (ATS), or none.
    OneWay,
    /// Copy the payload to where the device reads it.
    SyncForDevice,
    /// Write the payload back from the CPU's caches.
    CacheClean,
    /// Drain the stores of the payload.
    StoreBarrier,
    /// The sender reads from where the payload went, and waits for the data.
    FlushByRead,
    /// Drop what the CPU's caches hold of the payload.
    CacheInvalidate,
    /// Copy the payload from where the device wrote it.
    SyncForCpu,
    /// Let software ring, after it has been told that the device is done.
    RingBySoftware,
    /// Have the device ring without Relaxed Ordering.
    StrictDoorbell,
}

impl Step {
    /// All, in order.
    pub const ALL: [Self; 10] = [
        Self::StrictPayload,
        Self::OneWay,
        Self::SyncForDevice,
        Self::CacheClean,
        Self::StoreBarrier,
        Self::FlushByRead,
        Self::CacheInvalidate,
        Self::SyncForCpu,
        Self::RingBySoftware,
        Self::StrictDoorbell,
    ];

    /// The word used in text and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::StrictPayload => "strict_payload",
            Self::OneWay => "one_way",
            Self::SyncForDevice => "sync_for_device",
            Self::CacheClean => "cache_clean",
            Self::StoreBarrier => "store_barrier",
            Self::FlushByRead => "flush_by_read",
            Self::CacheInvalidate => "cache_invalidate",
            Self::SyncForCpu => "sync_for_cpu",
            Self::RingBySoftware => "ring_by_software",
            Self::StrictDoorbell => "strict_doorbell",
        }
    }

    /// What is to be done, in one sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::StrictPayload => "send the payload without Relaxed Ordering, or nothing proves its arrival",
            Self::OneWay => "send the payload and the read after it with translated addresses alike, or both without",
            Self::SyncForDevice => "copy the payload to the buffer that the device reads (Mapping::sync_for_device)",
            Self::CacheClean => {
                "write the payload back from the CPU's caches, which the device's reads do not look into"
            }
            Self::StoreBarrier => "drain the stores of the payload (sfence on x86, dsb st on Arm)",
            Self::FlushByRead => "read from where the payload went, by the same way, and wait for the data",
            Self::CacheInvalidate => "invalidate the payload in the CPU's caches, which the device's writes passed by",
            Self::SyncForCpu => "copy the payload from the buffer that the device wrote (Mapping::sync_for_cpu)",
            Self::RingBySoftware => "let software ring, after the device has told it that it is done",
            Self::StrictDoorbell => "ring without Relaxed Ordering, which lets the doorbell pass the payload",
        }
    }

    /// The rule that asks for it.
    pub const fn citation(self) -> &'static str {
        match self {
            Self::StrictPayload => {
                "PCIe 6.0 §2.4.1: a completed read proves those writes before it that carry no Relaxed Ordering"
            }
            Self::OneWay => {
                "PCIe 6.0 §6.12.6: direct translated P2P sends translated requests across and redirects others, so two ways lead to one end"
            }
            Self::SyncForDevice => "Linux 7.2 dma_sync_single_for_device, swiotlb: the device reads the copy",
            Self::CacheClean => "PCIe 6.0 §2.2.6.5: No Snoop; Linux 7.2 arch_sync_dma_for_device",
            Self::StoreBarrier => {
                "Linux Documentation/memory-barriers.txt: writel() orders stores to memory before it, but not gathered ones"
            }
            Self::FlushByRead => {
                "PCIe 6.0 §2.4.1: order exists only along one way to one end; a completed read proves the writes before it by that way"
            }
            Self::CacheInvalidate => "PCIe 6.0 §2.2.6.5: No Snoop; Linux 7.2 arch_sync_dma_for_cpu",
            Self::SyncForCpu => "Linux 7.2 dma_sync_single_for_cpu, swiotlb: the device wrote the copy",
            Self::RingBySoftware => "no request of the device can copy or touch the CPU's caches",
            Self::StrictDoorbell => {
                "PCIe 6.0 §2.4.1, entry A2b: a posted write with Relaxed Ordering may pass posted writes"
            }
        }
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What must happen between payload and doorbell: steps, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub struct Publish {
    steps: u16,
}

impl Publish {
    /// Nothing: the doorbell does not overtake the payload.
    pub const fn nothing() -> Self {
        Self { steps: 0 }
    }

    /// Whether nothing has to happen.
    pub const fn is_nothing(self) -> bool {
        self.steps == 0
    }

    /// Whether this is one of the steps.
    pub const fn contains(self, step: Step) -> bool {
        self.steps & step.bit() != 0
    }

    /// The steps, in order.
    pub fn iter(self) -> impl Iterator<Item = Step> {
        Step::ALL.into_iter().filter(move |step| self.contains(*step))
    }

    /// What both ask for, as for a payload of several spans.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { steps: self.steps | other.steps }
    }

    pub(super) const fn with_if(self, asked: bool, step: Step) -> Self {
        Self { steps: if asked { self.steps | step.bit() } else { self.steps } }
    }
}

impl fmt::Display for Publish {
    /// Writes `nothing`, or codes joined by `, then`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        let mut separator = "";
        for step in self.iter() {
            write!(f, "{separator}{step}")?;
            separator = ", then ";
        }
        Ok(())
    }
}
