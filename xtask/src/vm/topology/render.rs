//! A model as arguments of QEMU.
//!
//! Parents come before children, and what a device refers to comes before the device, since
//! QEMU resolves names as it reads. IDs are places (`q-04.0-00.0`), so that a message of QEMU
//! names the object, and are unique because places are.

use super::model::{Endpoint, Model, OnLink, OnRootBus, Placed, RootPort};
use peerdma::pcie::DevFn;

impl Model {
    /// The arguments, in order; the machine's IOMMU goes before them.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut out = Arguments { list: Vec::new(), ports: 0, objects: 0 };
        let draft = self.draft();
        for placed in &draft.q35 {
            let seat = Seat::new("pcie.0", "q", placed.at, shares_device(&draft.q35, placed.at));
            match &placed.what {
                OnRootBus::Endpoint(endpoint) => out.endpoint(&seat, endpoint),
                OnRootBus::Port(port) => out.root_port(&seat, port),
            }
        }
        for expander in &draft.expanders {
            let id = format!("h{:02x}", expander.bus);
            let (device, bus) = (expander.device, expander.bus);
            out.device(format!("pxb-pcie,id={id},bus=pcie.0,addr={device:02x}.0,bus_nr={bus}"));
            for port in &expander.ports {
                out.root_port(&Seat::new(&id, &id, port.at, shares_device(&expander.ports, port.at)), &port.what);
            }
        }
        out.list
    }
}

struct Arguments {
    list: Vec<String>,
    ports: usize,
    objects: usize,
}

/// Where a device goes, as the end of its argument.
struct Seat {
    id: String,
    suffix: String,
}

impl Seat {
    fn new(bus: &str, prefix: &str, at: DevFn, multifunction: bool) -> Self {
        let (device, function) = (at.device(), at.function());
        let multifunction = if multifunction { ",multifunction=on" } else { "" };
        Self {
            id: format!("{prefix}-{device:02x}.{function}"),
            suffix: format!(
                "id={prefix}-{device:02x}.{function},bus={bus},addr={device:02x}.{function}{multifunction}"
            ),
        }
    }
}

impl Arguments {
    fn device(&mut self, words: String) {
        self.list.extend(["-device".to_string(), words]);
    }

    fn root_port(&mut self, seat: &Seat, port: &RootPort) {
        let acs = if port.acs { "" } else { ",disable-acs=on" };
        self.port("pcie-root-port", seat, acs);
        self.link(&seat.id, &port.below);
    }

    /// Hot plug is off: a port that may get a device later reserves I/O ports and memory for
    /// it, and a machine with thirty of them runs out.
    fn port(&mut self, kind: &str, seat: &Seat, more: &str) {
        self.ports += 1;
        let number = self.ports;
        self.device(format!("{kind},{},chassis={number},slot={number},hotplug=off{more}", seat.suffix));
    }

    fn link(&mut self, port: &str, below: &[Placed<OnLink>]) {
        for placed in below {
            let seat = Seat::new(port, port, placed.at, shares_device(below, placed.at));
            match &placed.what {
                OnLink::Endpoint(endpoint) => self.endpoint(&seat, endpoint),
                OnLink::Switch(switch) => {
                    self.device(format!("x3130-upstream,{}", seat.suffix));
                    for port in &switch.ports {
                        let shares = shares_device(&switch.ports, port.at);
                        let below = Seat::new(&seat.id, &seat.id, port.at, shares);
                        self.port("xio3130-downstream", &below, "");
                        self.link(&below.id, &port.what);
                    }
                }
                OnLink::ToPci(devices) => {
                    self.device(format!("pcie-pci-bridge,{}", seat.suffix));
                    for device in devices {
                        let shares = shares_device(devices, device.at);
                        self.endpoint(&Seat::new(&seat.id, &seat.id, device.at, shares), &device.what);
                    }
                }
            }
        }
    }

    fn endpoint(&mut self, seat: &Seat, endpoint: &Endpoint) {
        let Seat { suffix, .. } = seat;
        match endpoint {
            // By default edu forms addresses of 28 bits, too few for a peer's BAR.
            Endpoint::Edu => self.device(format!("edu,{suffix},dma_mask=0xffffffffffffffff")),
            Endpoint::Ivshmem { bar } => {
                let memory = self.object("m");
                let size = bar.as_u64();
                let words = format!("memory-backend-memfd,id={memory},size={size},share=on");
                self.list.extend(["-object".to_string(), words]);
                self.device(format!("ivshmem-plain,{suffix},memdev={memory}"));
            }
            Endpoint::Nvme { cmb } => {
                let drive = self.object("d");
                // Numbers of a block device take no suffix.
                let disk = format!("driver=null-co,node-name={drive},size={},read-zeroes=on", 64 << 20);
                self.list.extend(["-blockdev".to_string(), disk]);
                let cmb = cmb.map(|size| format!(",cmb_size_mb={}", size.as_u64() >> 20)).unwrap_or_default();
                self.device(format!("nvme,{suffix},serial={drive},drive={drive}{cmb}"));
            }
            Endpoint::NvmeSriov { virtual_functions: most } => {
                let subsystem = self.object("s");
                self.device(format!("nvme-subsys,id={subsystem}"));
                // A queue pair for administration and one for I/O, and an interrupt, for each.
                let queues = 2 * u16::from(*most);
                self.device(format!(
                    "nvme,{suffix},serial={subsystem},subsys={subsystem},sriov_max_vfs={most},sriov_vq_flexible={queues},sriov_vi_flexible={most}"
                ));
            }
            Endpoint::TestDevice { bar } => {
                let bar = bar.map(|size| format!(",membar={}", size.as_u64())).unwrap_or_default();
                self.device(format!("pci-testdev,{suffix}{bar}"));
            }
            Endpoint::Igb => self.device(format!("igb,{suffix}")),
            // Behind the IOMMU like every other device, which QEMU's virtio devices are only if told.
            Endpoint::Gpu => {
                self.device(format!("virtio-gpu-pci,{suffix},blob=on,iommu_platform=on,disable-legacy=on"));
            }
        }
    }

    fn object(&mut self, letter: &str) -> String {
        self.objects += 1;
        format!("{letter}{}", self.objects)
    }
}

/// Whether another function has the same device number.
fn shares_device<T>(functions: &[Placed<T>], at: DevFn) -> bool {
    functions.iter().filter(|placed| placed.at.device() == at.device()).count() > 1
}

#[cfg(test)]
mod tests {
    use super::super::model::{Draft, Expander};
    use super::super::named::{NAMES, named};
    use super::super::random::random;
    use super::super::words::{alone, at, bare_port, functions, ivshmem, nvme_cmb, switch, with_acs};
    use std::collections::BTreeSet;

    fn model() -> super::Model {
        let q35 =
            vec![at(4, 0, bare_port(switch([alone(nvme_cmb(8)), functions([ivshmem(1), super::Endpoint::Edu])])))];
        let expander = Expander { device: 5, bus: 0x40, ports: vec![at(0, 0, with_acs(vec![]))] };
        Draft { q35, expanders: vec![expander] }.check().unwrap()
    }

    #[test]
    fn a_tree_reads_from_its_root_down() {
        let lines = model().arguments();
        assert_eq!(
            lines
                .iter()
                .filter(|line| !matches!(line.as_str(), "-device" | "-object" | "-blockdev"))
                .collect::<Vec<_>>(),
            [
                "pcie-root-port,id=q-04.0,bus=pcie.0,addr=04.0,chassis=1,slot=1,hotplug=off,disable-acs=on",
                "x3130-upstream,id=q-04.0-00.0,bus=q-04.0,addr=00.0",
                "xio3130-downstream,id=q-04.0-00.0-00.0,bus=q-04.0-00.0,addr=00.0,chassis=2,slot=2,hotplug=off",
                "driver=null-co,node-name=d1,size=67108864,read-zeroes=on",
                "nvme,id=q-04.0-00.0-00.0-00.0,bus=q-04.0-00.0-00.0,addr=00.0,serial=d1,drive=d1,cmb_size_mb=8",
                "xio3130-downstream,id=q-04.0-00.0-01.0,bus=q-04.0-00.0,addr=01.0,chassis=3,slot=3,hotplug=off",
                "memory-backend-memfd,id=m2,size=1048576,share=on",
                "ivshmem-plain,id=q-04.0-00.0-01.0-00.0,bus=q-04.0-00.0-01.0,addr=00.0,multifunction=on,memdev=m2",
                "edu,id=q-04.0-00.0-01.0-00.1,bus=q-04.0-00.0-01.0,addr=00.1,multifunction=on,dma_mask=0xffffffffffffffff",
                "pxb-pcie,id=h40,bus=pcie.0,addr=05.0,bus_nr=64",
                "pcie-root-port,id=h40-00.0,bus=h40,addr=00.0,chassis=4,slot=4,hotplug=off",
            ]
        );
    }

    #[test]
    fn every_id_is_given_once_and_only_known_ones_are_used() {
        let models = NAMES.iter().filter_map(|name| named(name)).chain((0..200).map(random));
        for model in models {
            let mut known = BTreeSet::from(["pcie.0".to_string()]);
            for line in model.arguments() {
                let value = |key: &str| line.split(',').find_map(|part| part.strip_prefix(key)).map(str::to_string);
                for used in ["bus=", "memdev=", "drive=", "subsys="].into_iter().filter_map(value) {
                    assert!(known.contains(&used), "{line}");
                }
                for given in ["id=", "node-name="].into_iter().filter_map(value) {
                    assert!(known.insert(given), "{line}");
                }
            }
        }
    }
}
