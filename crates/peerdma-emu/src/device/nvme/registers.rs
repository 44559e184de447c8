//! Registers of the controller (NVMe Base 2.0 §3.1.3), at their places in BAR 0.

use crate::device::{Access, Registers};
use peerdma::addr::{BusAddr, Bytes};
use std::sync::Arc;

/// Controller Capabilities, 8 bytes.
pub const CAP: Bytes = Bytes::new(0x00);
/// Version.
pub const VS: Bytes = Bytes::new(0x08);
/// Controller Configuration.
pub const CC: Bytes = Bytes::new(0x14);
/// Controller Status.
pub const CSTS: Bytes = Bytes::new(0x1c);
/// Admin Queue Attributes.
pub const AQA: Bytes = Bytes::new(0x24);
/// Admin Submission Queue Base Address, 8 bytes.
pub const ASQ: Bytes = Bytes::new(0x28);
/// Admin Completion Queue Base Address, 8 bytes.
pub const ACQ: Bytes = Bytes::new(0x30);
/// Controller Memory Buffer Location.
pub const CMBLOC: Bytes = Bytes::new(0x38);
/// Controller Memory Buffer Size.
pub const CMBSZ: Bytes = Bytes::new(0x3c);
/// Controller Memory Buffer Memory Space Control, 8 bytes.
pub const CMBMSC: Bytes = Bytes::new(0x50);
/// Controller Memory Buffer Status.
pub const CMBSTS: Bytes = Bytes::new(0x58);
/// The doorbell of the admin submission queue; all others follow, 4 bytes each.
pub const DOORBELLS: Bytes = Bytes::new(0x1000);

/// `CC.EN`.
pub const CC_ENABLE: u32 = 1;
/// `CSTS.RDY`.
pub const CSTS_READY: u32 = 1;
/// `CSTS.CFS`.
pub const CSTS_FATAL: u32 = 1 << 1;
/// `CSTS.SHST`: shutdown complete.
pub const CSTS_SHUT: u32 = 2 << 2;
/// `CMBMSC.CRE`: shows `CMBLOC` and `CMBSZ`.
pub const CMB_SHOWN: u64 = 1;
/// `CMBMSC.CMSE`: the buffer answers at the address in bits 63:12 for the controller's own requests.
pub const CMB_USED: u64 = 2;

/// Version 1.4.
pub(super) const VERSION: u32 = 0x0001_0400;
/// Entries of the longest queue.
pub(super) const MOST_ENTRIES: u32 = 1024;
/// `CAP.MPSMAX`: memory pages of 64 KiB.
const LARGEST_PAGE: u32 = 4;
/// `CAP.TO`: 10 seconds, in units of 500 ms.
const TIMEOUT: u64 = 20;

/// Where the doorbell of a queue is.
pub fn doorbell(queue: u16, completion: bool) -> Bytes {
    Bytes::new(DOORBELLS.as_u64() + u64::from(queue) * 8 + if completion { 4 } else { 0 })
}

/// A doorbell, by its offset; `None` for other registers.
pub(super) fn doorbell_at(offset: u64) -> Option<(u16, bool)> {
    let index = offset.checked_sub(DOORBELLS.as_u64())?;
    let queue = u16::try_from(index / 8).ok()?;
    index.is_multiple_of(4).then_some((queue, index % 8 == 4))
}

/// What `CC` holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Config(u32);

impl Config {
    pub(super) fn enabled(self) -> bool {
        self.0 & CC_ENABLE != 0
    }

    /// Whether the host wants a shutdown, normal or abrupt (`CC.SHN`).
    pub(super) fn shuts_down(self) -> bool {
        matches!(self.0 >> 14 & 3, 1 | 2)
    }

    /// The memory page, where it and the other choices are supported.
    pub(super) fn page(self) -> Option<Bytes> {
        let (set, page, arbitration) = (self.0 >> 4 & 7, self.0 >> 7 & 15, self.0 >> 11 & 7);
        (set == 0 && arbitration == 0 && page <= LARGEST_PAGE).then(|| Bytes::new(4096 << page))
    }

    /// Whether entries of I/O queues have the lengths that are supported.
    pub(super) fn entry_lengths(self) -> bool {
        (self.0 >> 16 & 15, self.0 >> 20 & 15) == (6, 4)
    }
}

/// The controller's registers, and which bits of them say what.
#[derive(Clone, Debug)]
pub(super) struct Face(pub(super) Arc<Registers>);

impl Face {
    /// Registers with doorbells for `queues` queues besides the admin queue.
    pub(super) fn new(queues: u16) -> Self {
        let writable = [CC, AQA, ASQ, ACQ, CMBMSC].map(|at| at.as_u64() & !7);
        let len = DOORBELLS.as_u64() + (u64::from(queues) + 1) * 8;
        let read_only = (0..DOORBELLS.as_u64()).step_by(8).filter(|at| !writable.contains(at));
        let block = Registers::new(Bytes::new(len));
        Self(Arc::new(read_only.fold(block, |block, at| block.with(Bytes::new(at), Access::ReadOnly))))
    }

    /// Sets all as after a reset.
    pub(super) fn reset(&self, cmb: bool) {
        while self.0.take_write().is_some() {}
        for at in (0..self.0.len().as_u64()).step_by(8) {
            self.0.set(Bytes::new(at), 0);
        }
        let contiguous_queues = 1 << 16;
        let nvm_commands = 1 << 37;
        let cap = u64::from(MOST_ENTRIES - 1)
            | contiguous_queues
            | TIMEOUT << 24
            | nvm_commands
            | u64::from(LARGEST_PAGE) << 52
            | u64::from(cmb) << 57;
        self.0.set(CAP, cap);
        self.0.set_u32(VS, VERSION);
    }

    pub(super) fn config(&self) -> Config {
        Config(self.0.get_u32(CC))
    }

    pub(super) fn set_status(&self, status: u32) {
        self.0.set_u32(CSTS, status);
    }

    /// Where the admin queues are, and how many entries they have: submission, completion.
    /// `None` where a length is not supported.
    pub(super) fn admin_queues(&self) -> Option<[(BusAddr, u32); 2]> {
        let lengths = self.0.get_u32(AQA);
        let [submission, completion] = [lengths & 0xfff, lengths >> 16 & 0xfff].map(|zero_based| zero_based + 1);
        let base = |at| BusAddr::new(self.0.get(at) & !0xfff);
        let queues = [(base(ASQ), submission), (base(ACQ), completion)];
        queues.iter().all(|(_, entries)| *entries >= 2).then_some(queues)
    }

    /// Shows the memory buffer if it is to be shown; where the controller's own requests find
    /// it, if they are to.
    pub(super) fn cmb(&self, bar: u8, len: Bytes) -> Option<BusAddr> {
        let control = self.0.get(CMBMSC);
        let shown = control & CMB_SHOWN != 0;
        // Queues and data may be mixed with memory elsewhere, at any alignment (bits 8:3); all
        // five uses are supported (bits 4:0), in units of 4 KiB.
        let location = u32::from(bar) | 0x1f8;
        let pages = u32::try_from(len.as_u64() >> 12).unwrap_or(u32::MAX).min(0xf_ffff);
        let base = BusAddr::new(control & !0xfff);
        let used = shown && control & CMB_USED != 0;
        let fits = base.checked_add(len).is_some();
        // CMBSTS.CBAI: the base address is invalid.
        self.0.set_u32(CMBSTS, u32::from(used && !fits));
        self.0.set_u32(CMBLOC, if shown { location } else { 0 });
        // Last, since who waits for it looks at the others then.
        self.0.set_u32(CMBSZ, if shown { 0x1f | pages << 12 } else { 0 });
        (used && fits).then_some(base)
    }
}
