//! The initiator of a plan, from the input and the options.

use crate::args::DeviceArguments;
use crate::exit::Failure;
use crate::input::Loaded;
use peerdma::addr::{Bytes, Granule};
use peerdma::dma::bounce::{BouncePool, Memory, MemoryError, Place};
use peerdma::dma::reach::Peers;
use peerdma::dma::{Bouncing, Initiator, Interface, Owner, Segments};
use peerdma::route::domain::{Domain, Owner as DomainOwner};
use peerdma::topology::{FunctionId, IommuMode, Origin};
use peerdma_emu::platform::TdiState;

/// The initiator, and what is known of it.
#[derive(Debug)]
pub(super) struct Device {
    /// `None` where the input does not tell the mode of its domain.
    pub(super) initiator: Option<Initiator>,
    pub(super) domain: Domain,
    pub(super) pool: Option<BouncePool<NoBytes>>,
    pub(super) bouncing: Bouncing,
    pub(super) interface: Interface,
    pub(super) trusted: bool,
    pub(super) coherent: bool,
    pub(super) mask: Mask,
    pub(super) function: FunctionId,
}

/// Address bits that the initiator forms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mask {
    pub(super) bits: u8,
    pub(super) evidence: &'static str,
    /// Whether a bus above it passes less on.
    pub(super) is_limited: bool,
}

impl Mask {
    const ASSUMED: &str = "assumed, since the input tells no mask of a driver";

    /// Whether somebody said so.
    pub(super) fn is_told(&self) -> bool {
        self.evidence != Self::ASSUMED
    }
}

impl Device {
    pub(super) fn new(loaded: &Loaded, function: FunctionId, arguments: &DeviceArguments) -> Result<Self, Failure> {
        let topology = &loaded.topology;
        let info = topology.function(function).info();
        let domain = Domain::of(topology, function);
        let vfio = domain.owner == DomainOwner::Vfio;
        // The mask of a driver that is not bound is the kernel's default and says nothing.
        let stated = info.origin == Origin::Platform;
        let told = info.dma_mask_bits.filter(|_| stated || (info.driver.is_some() && !vfio));
        let (bits, evidence) = match (arguments.mask_bits, told) {
            (Some(bits), _) => (bits, "given"),
            (None, Some(bits)) => (bits, "told by the input"),
            (None, None) => (64, Mask::ASSUMED),
        };
        let mask = Mask { bits, evidence, is_limited: arguments.bus_limit.is_some() };
        let bouncing = match (arguments.no_bounce, arguments.force_bounce) {
            (true, _) => Bouncing::Never,
            (false, true) => Bouncing::Forced,
            (false, false) => Bouncing::AsNeeded,
        };
        let segments = Segments {
            longest: arguments.max_segment,
            boundary: arguments.boundary,
            most: arguments.max_segments.and_then(|most| usize::try_from(most).ok()),
        };
        let interface = arguments.interface.map(Into::into).or(interface_of(loaded, function)).unwrap_or_default();
        let initiator = Initiator::of(topology, function).map(|initiator| {
            let mut initiator = initiator
                .with_mask_bits(bits)
                .with_bouncing(bouncing)
                .with_segments(segments)
                .with_interface(interface);
            if let Some(limit) = arguments.bus_limit {
                initiator = initiator.with_bus_limit(limit);
            }
            if arguments.untrusted {
                initiator = initiator.untrusted();
            }
            if arguments.not_coherent {
                initiator = initiator.not_coherent();
            }
            if arguments.bus_addresses {
                initiator = initiator.with_bus_addresses();
            }
            initiator
        });
        let pool = arguments.bounce_pool.map(|area| {
            let at = Bytes::new(area.0.start().as_u64());
            BouncePool::new(NoBytes, (Owner::Ram, at), area.0.len(), Granule::PAGE_4K)
        });
        let pool = pool.transpose().map_err(|error| Failure::usage(format!("--bounce-pool: {error}")))?;
        let (trusted, coherent) = (!arguments.untrusted, !arguments.not_coherent);
        Ok(Self { initiator, domain, pool, bouncing, interface, trusted, coherent, mask, function })
    }

    /// Whether its addresses are translated.
    pub(super) fn is_translated(&self) -> bool {
        self.domain.mode == Some(IommuMode::Translated)
    }
}

/// A plan moves no bytes, so there are none to copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoBytes;

impl Memory for NoBytes {
    fn copy(&self, _: Place, _: Place, _: Bytes) -> Result<(), MemoryError> {
        Ok(())
    }

    fn zero(&self, _: Place, _: Bytes) -> Result<(), MemoryError> {
        Ok(())
    }
}

/// The state of a function's interface that a platform file states.
fn interface_of(loaded: &Loaded, function: FunctionId) -> Option<Interface> {
    let address = loaded.topology.function(function).address();
    let described = loaded.platform.as_ref()?.functions().iter().find(|known| known.address == address)?;
    described.tdi.map(interface)
}

const fn interface(state: TdiState) -> Interface {
    match state {
        TdiState::Unlocked => Interface::Unlocked,
        TdiState::Locked => Interface::Locked,
        TdiState::Run => Interface::Run,
        TdiState::Error => Interface::Error,
    }
}

/// States the interfaces of all functions that a platform file describes.
pub(super) fn state_interfaces(loaded: &Loaded, peers: &mut Peers<'_>) {
    let described = loaded.platform.iter().flat_map(|platform| platform.functions());
    for (function, state) in described.filter_map(|function| Some((function, function.tdi?))) {
        if let Some(id) = loaded.topology.at(function.address) {
            peers.state_interface(id, interface(state));
        }
    }
}
