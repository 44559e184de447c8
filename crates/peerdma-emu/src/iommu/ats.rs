//! Address translation services (PCIe 6.0 §10): translations given, and taken at their word.

use super::fault::FaultReason;
use super::lock::read;
use super::unit::{Iommu, Output};
use crate::platform::IommuKind;
use crate::wire::{Failure, Requester};
use peerdma::access::{Access, Prot};
use peerdma::addr::BusAddr;
use peerdma::pcie::PciAddr;

impl Iommu {
    /// Lets a requester ask for translations and send translated addresses, or not.
    ///
    /// VT-d's device-TLB enable, AMD's I bit, an SMMU's `EATS` of 1. Has no effect on a window and
    /// where there is no IOMMU: neither gives translations.
    pub fn allow_ats(&self, requester: PciAddr, allowed: bool) {
        let has_ats = matches!(self.kind(), IommuKind::Vtd | IommuKind::Amd | IommuKind::Smmu);
        self.change(requester, |stream| stream.ats = allowed && has_ats);
    }

    /// Whether a translated address (AT of 10) of this requester is taken at its word.
    ///
    /// Where there is no IOMMU nobody looks at the field, and it is. A refusal is to be told to
    /// [`refuse_translated`](Self::refuse_translated), so that it is recorded.
    pub fn trusts(&self, requester: PciAddr) -> bool {
        if self.kind() == IommuKind::None {
            return true;
        }
        let streams = read(&self.streams);
        // A translated address names no PASID, so one that is bound is enough.
        streams.get(&requester).is_some_and(|stream| stream.ats && !stream.is_blocked())
    }

    /// Records that a translated address was not taken.
    pub fn refuse_translated(&self, requester: &Requester, address: BusAddr, access: Access) {
        self.record(requester, address, access, FaultReason::NotTrusted);
    }

    /// Answers a translation request (AT of 01): where the address leads, and whether writes are
    /// permitted (W). With `write` the device said that it means to write.
    ///
    /// `Ok(None)` stands for a completion without R and W: nothing is mapped there, or not for this
    /// requester. It is no fault, as the device can ask for the page. A requester that is passed
    /// through is told its own address, as VT-d's scalable mode does.
    ///
    /// # Errors
    /// [`Failure::UnsupportedRequest`] where this requester gets no translations, after which it
    /// should not ask again; [`Failure::CompleterAbort`] where its PASID is not bound or tables
    /// are damaged. Both are recorded as faults.
    pub fn translation(
        &self,
        requester: &Requester,
        address: BusAddr,
        write: bool,
    ) -> Result<Option<(Output, bool)>, Failure> {
        let access = if write { Access::Write } else { Access::Read };
        let has_ats = read(&self.streams).get(&requester.id).is_some_and(|stream| stream.ats);
        if !has_ats {
            self.record(requester, address, access, FaultReason::NotTrusted);
            return Err(Failure::UnsupportedRequest);
        }
        // A remembered answer without W is asked of the tables again before it is given to a device
        // that means to write.
        let found = self.look_up(requester, address, &|prot: Prot| !write || prot.writes());
        let found = match found {
            Err(FaultReason::NotPermitted) => self.look_up(requester, address, &|_| true),
            found => found,
        };
        match found {
            Ok(output) => Ok(Some((output, output.prot.writes()))),
            Err(
                FaultReason::NotMapped
                | FaultReason::NotPermitted
                | FaultReason::AccessFlag
                | FaultReason::OutOfRange
                | FaultReason::NotTrusted,
            ) => Ok(None),
            Err(reason) => {
                self.record(requester, address, access, reason);
                let blocked = reason == FaultReason::Blocked;
                Err(if blocked { Failure::UnsupportedRequest } else { Failure::CompleterAbort })
            }
        }
    }
}
