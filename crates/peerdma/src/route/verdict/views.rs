//! Where what Linux decides and what the hardware does are two things.

use super::PairVerdict;
use crate::route::fabric::{Fate, Way};
use crate::route::kernel_view::MapType;
use core::fmt;

/// A difference between the two views.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Difference {
    /// Linux refuses what the switch would deliver.
    RefusedButDirect,
    /// Linux refuses what the root complex is known to forward.
    RefusedButForwarded,
    /// Linux maps through the host bridge what the switch delivers itself.
    HostBridgeButDirect,
    /// Linux maps it and the hardware loses it.
    MappedButLost,
    /// Linux maps it, and one of reads and writes is lost.
    MappedButHalfLost,
    /// Linux maps it, and nobody knows or has defined what the hardware does.
    MappedButOpen,
}

impl Difference {
    /// How the views of one pair differ, if they do.
    pub(super) fn of(pair: &PairVerdict) -> Option<Self> {
        let (write, read) = (pair.fabric_write.fate, pair.fabric_read.fate);
        let way = pair.fabric_write.way;
        let arrives = write == Fate::Arrives && read == Fate::Arrives;
        match pair.kernel.map_type {
            MapType::Unknown => None,
            MapType::NotSupported if pair.kernel.configured_out => None,
            MapType::NotSupported => match (arrives, way) {
                (true, Some(Way::BelowRoot)) => Some(Self::RefusedButDirect),
                (true, Some(Way::RootComplex)) => Some(Self::RefusedButForwarded),
                _ => None,
            },
            MapType::BusAddr | MapType::ThruHostBridge => match (write, read) {
                (Fate::Arrives, Fate::Arrives) => (pair.kernel.map_type == MapType::ThruHostBridge
                    && way == Some(Way::BelowRoot))
                .then_some(Self::HostBridgeButDirect),
                (Fate::Lost, Fate::Lost) => Some(Self::MappedButLost),
                (Fate::Lost, _) | (_, Fate::Lost) => Some(Self::MappedButHalfLost),
                _ => Some(Self::MappedButOpen),
            },
        }
    }

    /// The word used in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RefusedButDirect => "refused_but_direct",
            Self::RefusedButForwarded => "refused_but_forwarded",
            Self::HostBridgeButDirect => "host_bridge_but_direct",
            Self::MappedButLost => "mapped_but_lost",
            Self::MappedButHalfLost => "mapped_but_half_lost",
            Self::MappedButOpen => "mapped_but_open",
        }
    }
}

impl fmt::Display for Difference {
    /// One sentence on what it means in practice.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RefusedButDirect => {
                "Linux refuses, although the switch would deliver: drivers that ask Linux fail, and whoever maps without \
                 asking gets through"
            }
            Self::RefusedButForwarded => {
                "Linux refuses, although this root complex is known to forward: a kernel that lists it would map the pair"
            }
            Self::HostBridgeButDirect => {
                "Linux maps this through the host bridge, but the switch claims the same number and delivers it itself: \
                 the bytes arrive, and no IOMMU sees them"
            }
            Self::MappedButLost => "Linux maps this and nobody reports an error, but the bytes do not arrive",
            Self::MappedButHalfLost => {
                "Linux maps this for both directions, but only one of reads and writes gets through"
            }
            Self::MappedButOpen => {
                "Linux maps this without asking what the hardware does with it, which is not settled: try it with data \
                 that you compare at the target"
            }
        })
    }
}
