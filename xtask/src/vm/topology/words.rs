//! Short words for writing trees down.

use super::model::{Endpoint, OnLink, OnRootBus, Placed, RootPort, Switch};
use peerdma::addr::Bytes;
use peerdma::pcie::DevFn;

/// `what` at a device and function number; higher bits than there are get lost.
pub(super) fn at<T>(device: u8, function: u8, what: T) -> Placed<T> {
    Placed { at: DevFn::new(device << 3 | function & 7), what }
}

pub(super) const fn mib(n: u64) -> Bytes {
    Bytes::new(n << 20)
}

pub(super) fn ivshmem(n: u64) -> Endpoint {
    Endpoint::Ivshmem { bar: mib(n) }
}

pub(super) fn nvme() -> Endpoint {
    Endpoint::Nvme { cmb: None }
}

pub(super) fn nvme_cmb(n: u64) -> Endpoint {
    Endpoint::Nvme { cmb: Some(mib(n)) }
}

pub(super) fn test_device(n: u64) -> Endpoint {
    Endpoint::TestDevice { bar: Some(mib(n)) }
}

/// A root port of q35 with ACS.
pub(super) fn port(below: Vec<Placed<OnLink>>) -> OnRootBus {
    OnRootBus::Port(with_acs(below))
}

/// A root port of q35 without ACS.
pub(super) fn bare_port(below: Vec<Placed<OnLink>>) -> OnRootBus {
    OnRootBus::Port(without_acs(below))
}

pub(super) fn with_acs(below: Vec<Placed<OnLink>>) -> RootPort {
    RootPort { acs: true, below }
}

pub(super) fn without_acs(below: Vec<Placed<OnLink>>) -> RootPort {
    RootPort { acs: false, below }
}

/// A device of one function.
pub(super) fn alone(endpoint: Endpoint) -> Vec<Placed<OnLink>> {
    functions([endpoint])
}

/// A device of several functions, numbered from 0 on.
pub(super) fn functions(endpoints: impl IntoIterator<Item = Endpoint>) -> Vec<Placed<OnLink>> {
    endpoints.into_iter().zip(0..8).map(|(endpoint, function)| at(0, function, OnLink::Endpoint(endpoint))).collect()
}

/// A switch, its ports at devices 0, 1, 2 and so on.
pub(super) fn switch(ports: impl IntoIterator<Item = Vec<Placed<OnLink>>>) -> Vec<Placed<OnLink>> {
    let ports = ports.into_iter().zip(0..32).map(|(below, device)| at(device, 0, below)).collect();
    vec![at(0, 0, OnLink::Switch(Switch { ports }))]
}

/// A bridge to conventional PCI, devices at 1, 2, 3 and so on.
pub(super) fn to_pci(devices: impl IntoIterator<Item = Endpoint>) -> Vec<Placed<OnLink>> {
    let devices = devices.into_iter().zip(1..32).map(|(endpoint, device)| at(device, 0, endpoint)).collect();
    vec![at(0, 0, OnLink::ToPci(devices))]
}
