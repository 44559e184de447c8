//! What QEMU would refuse, or take and not show to the guest.
//!
//! QEMU's own messages come late, name no path, and some mistakes it does not notice at all:
//! functions without a function 0 are there and never found, and firmware that runs out of
//! bus numbers or address space leaves devices out or stops. Hence the check is here.

use super::model::{Draft, Endpoint, OWN_DEVICES, OnLink, OnRootBus, Placed};
use super::needs::Needs;
use super::place::Place;
use peerdma::addr::Bytes;
use peerdma::pcie::DevFn;

/// Largest BAR taken, so that a dozen of them and the machine's memory fit below 4 GiB of
/// guest and into the memory of a build machine.
pub(super) const LARGEST_BAR: Bytes = Bytes::new(256 << 20);
/// A page, the smallest piece of memory that QEMU puts behind a BAR.
const SMALLEST_BAR: Bytes = Bytes::new(4 << 10);
/// QEMU counts the memory buffer of an NVMe drive in MiB.
const SMALLEST_CMB: Bytes = Bytes::new(1 << 20);
/// Address space that firmware hands out below 4 GiB, with room to spare for alignment.
const MEMORY: Bytes = Bytes::new(768 << 20);
/// Ports that can have a window of I/O ports: SeaBIOS stops for good after 36 KiB, and
/// each window takes 4 KiB.
const IO_WINDOWS: usize = 8;
/// Virtual functions that fit beside their physical one without ARI.
const MOST_VIRTUAL_FUNCTIONS: u8 = 7;
/// Chassis numbers have eight bits, and 0 stands for none.
const MOST_PORTS: usize = 255;

/// Why a tree is not a machine that QEMU can be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Illegal {
    #[error("two functions at {0}; give one of them another device or function number")]
    Taken(Place),
    #[error("{0} has no function 0 beside it, so no guest would look for it; put something at function 0")]
    NoFunctionZero(Place),
    #[error("{0}: QEMU's machine uses that device of bus 0 itself; devices 0x04 to 0x1e are free")]
    OwnDevice(Place),
    #[error("{0}: only device 0 is at the end of a link; use function numbers 0 to 7")]
    BeyondLink(Place),
    #[error("{0}: device 0 below a PCIe-to-PCI bridge is its hot-plug controller's; use devices 1 to 31")]
    HotPlugController(Place),
    #[error("{place}: {device} is a PCI Express device, which cannot stand on a conventional bus")]
    ExpressOnly { place: Place, device: &'static str },
    #[error("host bridge at device {device:#x} of bus 0: there are devices 0 to 31 only")]
    NoSuchDevice { device: u8 },
    #[error("{place}: a BAR of {size} is not a power of two of {smallest} to {LARGEST_BAR}")]
    BarSize { place: Place, size: Bytes, smallest: Bytes },
    #[error("{place}: {found} virtual functions; 1 to {MOST_VIRTUAL_FUNCTIONS} fit beside the physical one")]
    VirtualFunctions { place: Place, found: u8 },
    #[error("{0}: virtual functions take the function numbers after it, so it must be alone at the end of a link")]
    NotAlone(Place),
    #[error(
        "{0}: igb says by ARI that no function follows it, so Linux would find none beside it; put another at function 0"
    )]
    HidesOthers(Place),
    #[error("root bus {bus:#04x} is taken or out of order; list host bridges by their bus, after 0")]
    RootBus { bus: u8 },
    #[error(
        "host bridge {bus:#04x} needs buses up to {last:#x}, and {limit:#x} is not its own; spread root buses wider"
    )]
    OutOfBuses { bus: u8, last: usize, limit: usize },
    #[error("{found} ports; QEMU can tell {MOST_PORTS} apart")]
    TooManyPorts { found: usize },
    #[error("BARs and windows need {found}, and firmware has {MEMORY}; make BARs smaller")]
    OutOfMemory { found: Bytes },
    #[error("{found} ports lead to I/O ports, and firmware has room for {IO_WINDOWS}; use fewer pci-testdev and igb")]
    OutOfIo { found: usize },
}

/// Checks a whole tree.
pub(super) fn check(draft: &Draft) -> Result<(), Illegal> {
    let mut at_root: Vec<(Place, DevFn)> = Vec::new();
    for expander in &draft.expanders {
        let at = DevFn::from_parts(expander.device, 0).ok_or(Illegal::NoSuchDevice { device: expander.device })?;
        at_root.push((Place::on(0, at), at));
    }
    at_root.extend(draft.q35.iter().map(|placed| (Place::on(0, placed.at), placed.at)));
    if let Some((own, _)) = at_root.iter().find(|(_, at)| OWN_DEVICES.contains(&at.device())) {
        return Err(Illegal::OwnDevice(own.clone()));
    }
    one_bus(&at_root)?;
    q35(&draft.q35)?;
    for expander in &draft.expanders {
        let place = |at| Place::on(expander.bus, at);
        one_bus(&places(expander.ports.iter().map(|placed| placed.at), place))?;
        for port in &expander.ports {
            link(&place(port.at), &port.what.below)?;
        }
    }
    resources(draft)
}

fn q35(functions: &[Placed<OnRootBus>]) -> Result<(), Illegal> {
    for placed in functions {
        let place = Place::on(0, placed.at);
        match &placed.what {
            OnRootBus::Port(port) => link(&place, &port.below)?,
            OnRootBus::Endpoint(found) => {
                endpoint(&place, found)?;
                if found.virtual_functions() > 0 {
                    return Err(Illegal::NotAlone(place));
                }
            }
        }
    }
    Ok(())
}

fn link(parent: &Place, below: &[Placed<OnLink>]) -> Result<(), Illegal> {
    one_bus(&places(below.iter().map(|placed| placed.at), |at| parent.below(at)))?;
    for placed in below {
        let place = parent.below(placed.at);
        if placed.at.device() != 0 {
            return Err(Illegal::BeyondLink(place));
        }
        match &placed.what {
            OnLink::Endpoint(found) => {
                endpoint(&place, found)?;
                if found.virtual_functions() > 0 && below.len() > 1 {
                    return Err(Illegal::NotAlone(place));
                }
                // On a root bus nothing enables ARI, so there it hides nothing.
                if *found == Endpoint::Igb && placed.at.function() == 0 && below.len() > 1 {
                    return Err(Illegal::HidesOthers(place));
                }
            }
            OnLink::Switch(switch) => {
                one_bus(&places(switch.ports.iter().map(|port| port.at), |at| place.below(at)))?;
                for port in &switch.ports {
                    link(&place.below(port.at), &port.what)?;
                }
            }
            OnLink::ToPci(devices) => conventional(&place, devices)?,
        }
    }
    Ok(())
}

fn conventional(bridge: &Place, devices: &[Placed<Endpoint>]) -> Result<(), Illegal> {
    one_bus(&places(devices.iter().map(|device| device.at), |at| bridge.below(at)))?;
    for device in devices {
        let place = bridge.below(device.at);
        if device.at.device() == 0 {
            return Err(Illegal::HotPlugController(place));
        }
        if device.what.is_express_only() {
            let device = if matches!(device.what, Endpoint::Igb) { "igb" } else { "nvme" };
            return Err(Illegal::ExpressOnly { place, device });
        }
        endpoint(&place, &device.what)?;
    }
    Ok(())
}

fn endpoint(place: &Place, endpoint: &Endpoint) -> Result<(), Illegal> {
    if let Endpoint::NvmeSriov { virtual_functions: found } = *endpoint
        && !(1..=MOST_VIRTUAL_FUNCTIONS).contains(&found)
    {
        return Err(Illegal::VirtualFunctions { place: place.clone(), found });
    }
    let smallest = if matches!(endpoint, Endpoint::Nvme { .. }) { SMALLEST_CMB } else { SMALLEST_BAR };
    match endpoint.chosen_bar() {
        Some(size) if !size.as_u64().is_power_of_two() || !(smallest..=LARGEST_BAR).contains(&size) => {
            Err(Illegal::BarSize { place: place.clone(), size, smallest })
        }
        _ => Ok(()),
    }
}

fn places(at: impl Iterator<Item = DevFn>, place: impl Fn(DevFn) -> Place) -> Vec<(Place, DevFn)> {
    at.map(|at| (place(at), at)).collect()
}

/// No place twice, and a function 0 for every device.
fn one_bus(functions: &[(Place, DevFn)]) -> Result<(), Illegal> {
    for (index, (place, at)) in functions.iter().enumerate() {
        if functions[..index].iter().any(|(_, other)| other == at) {
            return Err(Illegal::Taken(place.clone()));
        }
        let is_zero_of_it = |other: DevFn| other.device() == at.device() && other.function() == 0;
        if !functions.iter().any(|(_, other)| is_zero_of_it(*other)) {
            return Err(Illegal::NoFunctionZero(place.clone()));
        }
    }
    Ok(())
}

/// Bus numbers, chassis numbers and address space.
fn resources(draft: &Draft) -> Result<(), Illegal> {
    let mut before = 0;
    for expander in &draft.expanders {
        if expander.bus <= before {
            return Err(Illegal::RootBus { bus: expander.bus });
        }
        before = expander.bus;
    }
    let roots = std::iter::once((0, Needs::of_q35(&draft.q35)))
        .chain(draft.expanders.iter().map(|expander| (expander.bus, Needs::of_ports(&expander.ports))));
    let limits = draft.expanders.iter().map(|expander| usize::from(expander.bus)).chain([0x100]);
    let mut all = Needs::default();
    for ((bus, one), limit) in roots.zip(limits) {
        let last = usize::from(bus) + one.buses;
        if last >= limit {
            return Err(Illegal::OutOfBuses { bus, last, limit });
        }
        all = all.and(one);
    }
    if all.ports > MOST_PORTS {
        return Err(Illegal::TooManyPorts { found: all.ports });
    }
    if all.memory > MEMORY {
        return Err(Illegal::OutOfMemory { found: all.memory });
    }
    if all.io_windows > IO_WINDOWS {
        return Err(Illegal::OutOfIo { found: all.io_windows });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::model::{Expander, Switch};
    use super::super::words::{
        alone, at, functions, ivshmem, mib, nvme, nvme_cmb, port, switch, test_device, to_pci, with_acs,
    };
    use super::*;
    use Endpoint::Edu;

    fn refused(draft: Draft) -> String {
        draft.check().unwrap_err().to_string()
    }

    fn on_bus_0(q35: Vec<Placed<OnRootBus>>) -> Draft {
        Draft { q35, expanders: Vec::new() }
    }

    /// A tree whose only root port has `below` at the end of its link.
    fn below(below: Vec<Placed<OnLink>>) -> Draft {
        on_bus_0(vec![at(4, 0, port(below))])
    }

    #[test]
    fn two_functions_in_one_place_are_refused_wherever_that_is() {
        assert!(
            refused(on_bus_0(vec![at(4, 0, port(vec![])), at(4, 0, port(vec![]))]))
                .starts_with("two functions at 00/04.0")
        );
        let twice = Switch { ports: vec![at(3, 0, vec![]), at(3, 0, vec![])] };
        assert!(
            refused(below(vec![at(0, 0, OnLink::Switch(twice))])).starts_with("two functions at 00/04.0/00.0/03.0")
        );
        let expander = Expander { device: 4, bus: 0x40, ports: vec![] };
        let draft = Draft { q35: vec![at(4, 0, port(vec![]))], expanders: vec![expander] };
        assert!(refused(draft).starts_with("two functions at 00/04.0"));
    }

    #[test]
    fn a_device_that_no_guest_would_look_for_is_refused() {
        let hidden = below(vec![at(0, 1, OnLink::Endpoint(Edu))]);
        assert!(refused(hidden).starts_with("00/04.0/00.1 has no function 0 beside it"));
    }

    #[test]
    fn the_machine_s_own_devices_are_refused() {
        for own in OWN_DEVICES {
            let draft = on_bus_0(vec![at(own, 0, port(vec![]))]);
            assert!(matches!(draft.check(), Err(Illegal::OwnDevice(_))), "{own}");
        }
        // On another root bus nobody has them.
        let expander = Expander { device: 4, bus: 1, ports: vec![at(0, 0, with_acs(vec![]))] };
        assert!(Draft { q35: vec![], expanders: vec![expander] }.check().is_ok());
    }

    #[test]
    fn a_link_ends_at_device_0_and_a_conventional_bus_starts_at_1() {
        assert!(refused(below(vec![at(1, 0, OnLink::Endpoint(Edu))])).starts_with("00/04.0/01.0: only device 0"));
        let on_controller = vec![at(0, 0, OnLink::ToPci(vec![at(0, 0, Edu)]))];
        assert!(refused(below(on_controller)).starts_with("00/04.0/00.0/00.0: device 0 below a PCIe-to-PCI bridge"));
        assert!(refused(below(to_pci([nvme()]))).contains("nvme is a PCI Express device"));
    }

    #[test]
    fn a_bar_is_a_power_of_two_that_qemu_and_firmware_can_take() {
        for wrong in [Bytes::ZERO, Bytes::new(2048), mib(3), mib(512)] {
            assert!(
                refused(below(alone(Endpoint::Ivshmem { bar: wrong }))).contains("is not a power of two"),
                "{wrong}"
            );
        }
        // An NVMe drive counts in MiB.
        let small = Endpoint::Nvme { cmb: Some(Bytes::new(4096)) };
        assert!(refused(below(alone(small))).contains("4 KiB is not a power of two of 1 MiB to 256 MiB"));
        assert!(below(functions([ivshmem(256), nvme_cmb(1)])).check().is_ok());
        assert!(
            refused(below(functions([ivshmem(256), ivshmem(256), ivshmem(256)]))).starts_with("BARs and windows need")
        );
    }

    #[test]
    fn virtual_functions_need_the_numbers_after_their_physical_one() {
        let physical = |virtual_functions| Endpoint::NvmeSriov { virtual_functions };
        assert!(below(alone(physical(7))).check().is_ok());
        assert!(refused(below(alone(physical(8)))).contains("8 virtual functions; 1 to 7"));
        assert!(refused(below(functions([physical(1), Edu]))).contains("must be alone"));
        assert!(refused(on_bus_0(vec![at(4, 0, OnRootBus::Endpoint(physical(1)))])).contains("must be alone"));
    }

    /// Seen in a guest: with `igb` as function 0 Linux listed that function alone.
    #[test]
    fn functions_that_igb_would_hide_are_refused() {
        use Endpoint::Igb;
        assert!(refused(below(functions([Igb, Edu]))).starts_with("00/04.0/00.0: igb says by ARI"));
        assert!(below(functions([Edu, Igb])).check().is_ok());
        assert!(below(alone(Igb)).check().is_ok());
    }

    #[test]
    fn bus_numbers_end_where_the_next_host_bridge_begins() {
        let machine = |bus| Draft {
            q35: vec![at(4, 0, port(switch([alone(Edu), alone(Edu)])))],
            expanders: vec![Expander { device: 5, bus, ports: vec![] }],
        };
        // Bus 1 for the link, 2 inside the switch, 3 and 4 for its ports.
        assert!(machine(5).check().is_ok());
        assert_eq!(machine(4).check(), Err(Illegal::OutOfBuses { bus: 0, last: 4, limit: 4 }));
        assert_eq!(machine(0).check(), Err(Illegal::RootBus { bus: 0 }));
        let last = Expander { device: 5, bus: 0xff, ports: vec![at(0, 0, with_acs(vec![]))] };
        let draft = Draft { q35: vec![], expanders: vec![last] };
        assert_eq!(draft.check(), Err(Illegal::OutOfBuses { bus: 0xff, last: 0x100, limit: 0x100 }));
    }

    #[test]
    fn io_windows_run_out_before_the_firmware_stops() {
        let machine =
            |ports: u8| on_bus_0((4..4 + ports).map(|device| at(device, 0, port(alone(test_device(1))))).collect());
        assert!(machine(8).check().is_ok());
        assert_eq!(machine(9).check(), Err(Illegal::OutOfIo { found: 9 }));
    }
}
