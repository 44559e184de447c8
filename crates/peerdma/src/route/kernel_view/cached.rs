//! What Linux remembers of its own decisions, and what it does with clients that
//! are not PCI functions.
//!
//! `pci_p2pdma_map_type` computes a pair once and never again, so an ACS word that
//! is changed later is not noticed; `pci_p2pdma_distance_many` computes every time
//! and refreshes what is remembered. A driver that only asks the first keeps the
//! old answer. The key is `domain << 16 | bus << 8 | devfn` of the client, in a
//! map of the provider (Linux 7.2 `map_types_idx`).

use super::{KernelView, MapType};
use crate::pcie::PciAddr;
use crate::topology::FunctionId;
use alloc::collections::BTreeMap;

/// What asks for a mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Client {
    /// A PCI function.
    Function(FunctionId),
    /// A device below a PCI function, such as a network interface.
    ChildOf(FunctionId),
    /// A device with no PCI function above it.
    NotPci,
}

/// Answer of `pci_p2pdma_distance_many`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distance {
    /// Sum of hops.
    Hops(u32),
    /// -1: no clients, or one that is refused.
    Refused,
    /// The input cannot tell.
    Unknown,
}

/// Linux's cache of map types over changing registers.
#[derive(Clone, Debug, Default)]
pub struct CachedView {
    map_types: BTreeMap<(PciAddr, u64), MapType>,
}

impl CachedView {
    /// Nothing asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// `pci_p2pdma_map_type`: remembered, or decided now with `view`'s registers.
    pub fn map_type(&mut self, view: &KernelView<'_>, provider: FunctionId, client: Client) -> MapType {
        let Client::Function(client) = client else { return MapType::NotSupported };
        let key = key(view, provider, client);
        *self.map_types.entry(key).or_insert_with(|| view.decide(provider, client).map_type)
    }

    /// `pci_p2pdma_distance_many`: decided now for each client, and remembered.
    pub fn distance_many(&mut self, view: &KernelView<'_>, provider: FunctionId, clients: &[Client]) -> Distance {
        if clients.is_empty() {
            return Distance::Refused;
        }
        let (mut sum, mut unknown) = (0u32, false);
        for &client in clients {
            let (Client::Function(client) | Client::ChildOf(client)) = client else { return Distance::Refused };
            let decision = view.decide(provider, client);
            self.map_types.insert(key(view, provider, client), decision.map_type);
            match decision.map_type {
                MapType::NotSupported => return Distance::Refused,
                MapType::Unknown => unknown = true,
                MapType::BusAddr | MapType::ThruHostBridge => sum = sum.saturating_add(decision.distance),
            }
        }
        if unknown { Distance::Unknown } else { Distance::Hops(sum) }
    }
}

fn key(view: &KernelView<'_>, provider: FunctionId, client: FunctionId) -> (PciAddr, u64) {
    let client = view.topology().function(client).address();
    let index = u64::from(client.domain()) << 16 | u64::from(client.bus()) << 8 | u64::from(client.devfn().as_u8());
    (view.topology().function(provider).address(), index)
}
