//! What the IOMMU did not let through, as a bounded record.
//!
//! As in the fault recording registers of VT-d 4.1 §7.3 the oldest records stay until
//! somebody takes them, and what finds no room is counted, so that a device in a loop does not
//! push out the fault that began it.

use crate::wire::Pasid;
use peerdma::access::Access;
use peerdma::addr::BusAddr;
use peerdma::pcie::PciAddr;
use std::collections::VecDeque;
use std::fmt;

/// How many records there is room for.
const ROOM: usize = 64;

/// Why a request was not let through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, thiserror::Error)]
pub enum FaultReason {
    /// No entry is present there.
    #[error("nothing is mapped there")]
    NotMapped,
    /// An entry, or a table above it, does not permit this.
    #[error("it is not mapped for this kind of access")]
    NotPermitted,
    /// The entry's access flag is clear, and that faults (Arm).
    #[error("the access flag of its entry is clear")]
    AccessFlag,
    /// The tables translate no such address: too wide, not sign-extended, outside the window.
    #[error("the tables translate no such address")]
    OutOfRange,
    /// An entry has bits that its format reserves, or leads to where no table can be.
    #[error("an entry on the way has reserved bits set, or leads outside of the tables' memory")]
    BadEntry,
    /// No address space of this PASID is bound to the requester.
    #[error("no address space of that PASID is bound")]
    NoPasid,
    /// The requester is attached to nothing.
    #[error("the requester is blocked")]
    Blocked,
    /// It came as translated, or asked for a translation, and the requester may not.
    #[error("translated addresses of this requester are not taken")]
    NotTrusted,
}

/// One request that was not let through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FaultRecord {
    /// Who sent it.
    pub requester: PciAddr,
    /// In which address space of its own.
    pub pasid: Option<Pasid>,
    /// The address in the request.
    pub address: BusAddr,
    /// What it asked for.
    pub access: Access,
    /// Why it was stopped.
    pub reason: FaultReason,
}

impl fmt::Display for FaultRecord {
    /// Writes `write of 0000:03:00.0, pasid 5, at 0x1000: WHY`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requester, pasid, address, access, reason } = self;
        write!(f, "{access} of {requester}")?;
        if let Some(pasid) = pasid {
            write!(f, ", {pasid},")?;
        }
        write!(f, " at {address}: {reason}")
    }
}

/// Fault records as they were at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Oldest first.
    pub records: Vec<FaultRecord>,
    /// How many found no room beside these and those that were taken.
    pub lost: u64,
}

/// The records.
#[derive(Debug, Default)]
pub(super) struct FaultLog {
    records: VecDeque<FaultRecord>,
    lost: u64,
}

impl FaultLog {
    pub(super) fn push(&mut self, record: FaultRecord) {
        if self.records.len() < ROOM {
            self.records.push_back(record);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(super) fn take(&mut self) -> Option<FaultRecord> {
        self.records.pop_front()
    }

    pub(super) fn snapshot(&self) -> Faults {
        Faults { records: self.records.iter().copied().collect(), lost: self.lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerdma::pcie::DevFn;

    fn record(n: u64) -> FaultRecord {
        FaultRecord {
            requester: PciAddr::new(0, 3, DevFn::new(0)),
            pasid: Pasid::new(5),
            address: BusAddr::new(n),
            access: Access::Write,
            reason: FaultReason::NotMapped,
        }
    }

    #[test]
    fn the_oldest_faults_stay_and_the_others_are_counted() {
        let mut log = FaultLog::default();
        (0..ROOM as u64 + 3).for_each(|n| log.push(record(n)));
        let seen = log.snapshot();
        assert_eq!((seen.records.len(), seen.lost), (ROOM, 3));
        assert_eq!(log.take(), Some(record(0)));
        log.push(record(99));
        assert_eq!(log.snapshot().records.last(), Some(&record(99)));
    }

    #[test]
    fn a_record_reads_as_a_sentence() {
        assert_eq!(record(0x1000).to_string(), "write of 0000:03:00.0, pasid 5, at 0x1000: nothing is mapped there");
    }
}
