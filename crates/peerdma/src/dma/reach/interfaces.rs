//! Interfaces to confidential guests, as they were stated, and what follows for an owner's memory.

use super::{Peers, Reach, Reached};
use crate::dma::confidential::{self, Case, Interface, MemoryKind, Rule, Way};
use crate::dma::initiator::Initiator;
use crate::dma::owner::Owner;
use crate::topology::FunctionId;

/// An interface as it was stated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stated {
    function: Option<FunctionId>,
    interface: Interface,
    same_guest: bool,
}

impl Peers<'_> {
    /// States what a function's interface is to the confidential guest that is mapped for; plain where
    /// nothing is stated.
    pub fn state_interface(&mut self, function: FunctionId, interface: Interface) {
        self.state_whose(function, interface, true);
    }

    /// States what a function's interface is to another guest.
    pub fn state_foreign_interface(&mut self, function: FunctionId, interface: Interface) {
        self.state_whose(function, interface, false);
    }

    /// States that the guest has bound a protected stream between two interfaces, on which
    /// requests of either may cross a switch (TDISP `BIND_P2P_STREAM_REQUEST`).
    pub fn state_stream(&mut self, one: FunctionId, other: FunctionId) {
        self.streams.push((one, other));
    }

    /// States that an owner's memory is open to all whatever its interface's state is
    /// (`IS_NON_TEE_MEM` of the interface report), such as a doorbell for the host.
    pub fn state_open(&mut self, owner: Owner) {
        self.open.push(owner);
    }

    fn state_whose(&mut self, function: FunctionId, interface: Interface, same_guest: bool) {
        self.interfaces.retain(|known| known.function != Some(function));
        self.interfaces.push(Stated { function: Some(function), interface, same_guest });
    }

    /// The rule of confidential computing that stands between an initiator and an owner.
    pub(super) fn confidential(
        &self,
        initiator: &Initiator,
        owner: Owner,
        reached: &Reached,
        said: Option<(MemoryKind, bool)>,
    ) -> Result<(), Rule> {
        // An exporter's word stands for what nobody stated, and beside what somebody did.
        let silent = self.stated(owner).function.is_none();
        let stated = (said.is_none() || !silent).then(|| self.memory(owner));
        let way = self.way(initiator, owner, reached);
        stated.into_iter().chain(said).try_for_each(|(memory, same_guest)| {
            confidential::check(&Case { initiator: initiator.interface, memory, way, same_guest })
        })
    }

    /// The interface that an owner's memory belongs to, as it was stated.
    fn stated(&self, owner: Owner) -> Stated {
        let plain = Stated { function: None, interface: Interface::Plain, same_guest: true };
        let target = match owner {
            Owner::Bar { function, .. } => self.interfaces.iter().find(|known| known.function == Some(function)),
            _ => None,
        };
        *target.unwrap_or(&plain)
    }

    /// What an owner's memory is to confidential guests, and whether it is of the guest that is mapped for.
    pub(crate) fn memory(&self, owner: Owner) -> (MemoryKind, bool) {
        let target = self.stated(owner);
        let memory = match owner {
            Owner::Private(_) => MemoryKind::PrivateRam,
            Owner::Ram | Owner::Process | Owner::Memfd(_) => MemoryKind::SharedRam,
            Owner::Bar { .. } | Owner::Device(_) if self.open.contains(&owner) => {
                MemoryKind::OpenMmio(target.interface)
            }
            Owner::Bar { .. } | Owner::Device(_) => MemoryKind::Mmio(target.interface),
        };
        (memory, target.same_guest)
    }

    /// By which way, in the words of confidential computing, an initiator reaches an owner.
    fn way(&self, initiator: &Initiator, owner: Owner, reached: &Reached) -> Way {
        let bound = |one, other| self.streams.contains(&(one, other)) || self.streams.contains(&(other, one));
        match reached.reach {
            Reach::Bus { .. }
                if initiator
                    .function()
                    .zip(self.stated(owner).function)
                    .is_some_and(|(one, other)| bound(one, other)) =>
            {
                Way::BoundStream
            }
            Reach::Bus { .. } => Way::Bus,
            Reach::Iova => Way::Iommu,
            Reach::Physical => Way::HostBridge,
        }
    }
}
