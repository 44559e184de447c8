//! What a tree needs of the things that firmware hands out.

use super::model::{Endpoint, OnLink, OnRootBus, Placed, RootPort};
use peerdma::addr::Bytes;

/// A window of a port comes in steps of 1 MiB; each may have one of both kinds.
const WINDOWS: Bytes = Bytes::new(2 << 20);

/// Needs of a part of a tree, added up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Needs {
    /// Buses below the root bus.
    pub(super) buses: usize,
    /// Ports that need a chassis number.
    pub(super) ports: usize,
    /// Memory that BARs and windows take, generously.
    pub(super) memory: Bytes,
    /// Ports with I/O ports right below.
    pub(super) io_windows: usize,
}

impl Default for Needs {
    fn default() -> Self {
        Self { buses: 0, ports: 0, memory: Bytes::ZERO, io_windows: 0 }
    }
}

impl Needs {
    /// Both together.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            buses: self.buses + other.buses,
            ports: self.ports + other.ports,
            // Past 2^64 is past every limit.
            memory: self.memory.checked_add(other.memory).unwrap_or(Bytes::new(u64::MAX)),
            io_windows: self.io_windows + other.io_windows,
        }
    }

    /// What everything on q35's root bus needs.
    pub(super) fn of_q35(functions: &[Placed<OnRootBus>]) -> Self {
        functions.iter().fold(Self::default(), |sum, placed| match &placed.what {
            OnRootBus::Endpoint(endpoint) => sum.and(Self::endpoint(endpoint)),
            OnRootBus::Port(port) => sum.and(Self::port(1, 1)).and(link(&port.below)),
        })
    }

    /// What root ports and all below need.
    pub(super) fn of_ports(ports: &[Placed<RootPort>]) -> Self {
        ports.iter().fold(Self::default(), |sum, port| sum.and(Self::port(1, 1)).and(link(&port.what.below)))
    }

    fn port(buses: usize, ports: usize) -> Self {
        Self { buses, ports, memory: WINDOWS, io_windows: 0 }
    }

    fn endpoint(endpoint: &Endpoint) -> Self {
        let memory = endpoint.bars().into_iter().try_fold(Bytes::ZERO, |sum, (_, size)| sum.checked_add(size));
        Self { memory: memory.unwrap_or(Bytes::new(u64::MAX)), ..Self::default() }
    }
}

fn link(below: &[Placed<OnLink>]) -> Needs {
    let mut sum = Needs::default();
    let mut io = false;
    for placed in below {
        sum = sum.and(match &placed.what {
            OnLink::Endpoint(endpoint) => {
                io |= endpoint.has_io_bar();
                Needs::endpoint(endpoint)
            }
            // An upstream port has no chassis number.
            OnLink::Switch(switch) => switch
                .ports
                .iter()
                .fold(Needs::port(1, 0), |sum, port| sum.and(Needs::port(1, 1)).and(link(&port.what))),
            OnLink::ToPci(devices) => {
                io |= devices.iter().any(|device| device.what.has_io_bar());
                devices.iter().fold(Needs::port(1, 0), |sum, device| sum.and(Needs::endpoint(&device.what)))
            }
        });
    }
    sum.io_windows += usize::from(io);
    sum
}
