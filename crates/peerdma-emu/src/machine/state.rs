//! States of a function that a driver or firmware changes: reset, presence, its trusted interface.
//!
//! Power states are in its configuration registers.

use super::Machine;
use crate::fabric::NodeId;
use crate::platform::TdiState;
use peerdma::addr::{AddrRange, BusAddr};

/// What a function's registers said before one was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Decode {
    ground: Ground,
    /// Of a bridge: what is below is held in reset.
    resets_below: bool,
    /// Whether the function may ask for translations and use them.
    translates: bool,
}

/// What the trusted interface of a function depends on: its BARs, whether they decode, and whether
/// it may ask.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ground {
    enabled: bool,
    bus_master: bool,
    bars: Vec<Option<AddrRange<BusAddr>>>,
}

/// Why an interface did not change its state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InterfaceError {
    /// The function has no trusted interface.
    #[error("the function has no trusted device interface")]
    None,
    /// Not from this state (PCIe 6.0 §11.2.6); unlock it first.
    #[error("the interface is {0} and does not go there from that; unlock it first")]
    State(TdiState),
}

impl Machine {
    pub(super) fn decode(&self, node: NodeId) -> Decode {
        let config = self.fabric.tree().config(node);
        let ground = Ground {
            enabled: config.memory_enabled(),
            bus_master: config.bus_master(),
            bars: (0..6).map(|index| config.bar(index)).collect(),
        };
        Decode { ground, resets_below: config.holds_below_in_reset(), translates: config.ats_enabled() }
    }

    /// Called after a configuration register was written; `before` is what it decoded then.
    pub(super) fn config_written(&self, node: NodeId, before: &Decode) {
        let after = self.decode(node);
        if after.ground != before.ground {
            self.interface_broken(node);
        }
        // A cache holds nothing while it is off, so that what is given after it was on again is
        // all that it knows (PCIe 6.0 §10.5.1.3: Enable).
        if before.translates && !after.translates {
            self.function(node).translations.empty();
        }
        if after.resets_below && !before.resets_below {
            self.below(node).into_iter().for_each(|below| self.reset(below));
        }
    }

    /// Everything below a port that is there.
    fn below(&self, port: NodeId) -> Vec<NodeId> {
        let tree = self.fabric.tree();
        let mut found: Vec<NodeId> = tree.below(port).collect();
        let mut next = 0;
        while let Some(&node) = found.get(next) {
            found.extend(tree.below(node));
            next += 1;
        }
        found
    }

    /// A trusted interface that is locked or runs goes to error where its ground changes (§11.2.6).
    fn interface_broken(&self, node: NodeId) {
        let function = self.function(node);
        if matches!(function.tdi(), Some(TdiState::Locked | TdiState::Run)) {
            function.set_tdi(Some(TdiState::Error));
        }
    }

    /// Locks, starts or unlocks a function's trusted interface.
    ///
    /// # Errors
    /// [`InterfaceError`]; nothing has changed then.
    pub fn set_interface(&self, node: NodeId, to: TdiState) -> Result<(), InterfaceError> {
        let function = self.function(node);
        let from = function.tdi().ok_or(InterfaceError::None)?;
        match (from, to) {
            (TdiState::Unlocked, TdiState::Locked) | (TdiState::Locked, TdiState::Run) | (_, TdiState::Unlocked) => {
                function.set_tdi(Some(to));
                Ok(())
            }
            _ => Err(InterfaceError::State(from)),
        }
    }

    /// Resets a function (PCIe 6.0 §6.6.2): its engine forgets its work, its translations are gone,
    /// its configuration registers are as a reset leaves them, and a trusted interface that was
    /// locked is in error.
    ///
    /// Its memory keeps its bytes. Whoever resets has saved the registers and restores them.
    pub fn reset(&self, node: NodeId) {
        let function = self.function(node);
        function.reset_engine();
        self.fabric.tree().config(node).reset();
        function.translations.empty();
        function.pages.forget();
        self.interface_broken(node);
    }

    /// Pulls a device with everything below it out of its slot, or puts it back.
    ///
    /// What was on its way to it ends at the port above.
    ///
    /// A trusted interface that was locked is in error. Registers keep what they held, as if firmware had
    /// restored them by the time that the device is back.
    pub fn set_present(&self, node: NodeId, present: bool) {
        self.interface_broken(node);
        self.below(node).into_iter().for_each(|below| self.interface_broken(below));
        self.fabric.tree().set_present(node, present);
    }
}
