//! What sysfs says about a function before anybody opens it.
//!
//! The kernel answers EINVAL to a group with a driver too many and ENOENT to a missing
//! node; sysfs tells which driver and which node. So this is read first, from a [`Tree`],
//! which makes the answers testable without a device.
//!
//! Two signs of a noiommu device: its group is called `vfio-noiommu` (Linux 7.2
//! `vfio_noiommu_group_alloc`), and since 7.3 its node is called `noiommu-vfioN`.
//!
//! Not here: opening anything, and whether this user may; see [`super::Nodes`].

use super::error::{Neighbour, OpenError};
use crate::tree::{Tree, resolve};
use peerdma::pcie::PciAddr;

pub(super) const DEVICES: &str = "sys/bus/pci/devices";
pub(super) const GROUPS: &str = "sys/kernel/iommu_groups";
/// Drivers that leave a group's DMA to whoever takes it (they set `driver_managed_dma`).
const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];

/// Where a function stands with VFIO.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its address.
    pub device: PciAddr,
    /// The driver that is bound to it.
    pub driver: Option<String>,
    /// Whether that driver is one of VFIO's: `vfio-pci` or a variant of it.
    pub is_vfio: bool,
    /// Its IOMMU group.
    pub group: Option<Group>,
    /// Name of its node below `/dev/vfio/devices`, where the kernel makes nodes.
    pub node: Option<String>,
}

/// An IOMMU group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its number, which is the name of its node below `/dev/vfio`.
    pub number: u32,
    /// Whether there is no IOMMU behind it.
    pub noiommu: bool,
    /// Its other members whose drivers keep the group from being taken.
    pub in_the_way: Vec<Neighbour>,
}

impl Place {
    /// Reads what sysfs says about `device`.
    ///
    /// # Errors
    /// [`OpenError::Absent`] if it knows no such function; check the address.
    ///
    /// # Examples
    /// ```no_run
    /// use peerdma_linux::{tree::Tree, vfio::place::Place};
    ///
    /// let place = Place::read(&Tree::live(), "0000:05:00.0".parse()?)?;
    /// println!("bound to {:?}", place.driver);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn read(tree: &Tree, device: PciAddr) -> Result<Self, OpenError> {
        let folder = folder(tree, device);
        if tree.list(&folder).is_empty() {
            return Err(OpenError::Absent { device });
        }
        let driver = driver(tree, device);
        // Variant drivers (such as for a NIC's migration) have a VFIO device too.
        let vfio_devices = tree.list(&format!("{folder}/vfio-dev"));
        let is_vfio = is_vfio(driver.as_deref()) || !vfio_devices.is_empty();
        let node = vfio_devices.into_iter().find(|name| tree.read(&format!("{folder}/vfio-dev/{name}/dev")).is_some());
        let group = tree.link_name(&format!("{folder}/iommu_group")).and_then(|name| name.parse().ok());
        let group = group.map(|number| group_of(tree, number, device));
        Ok(Self { device, driver, is_vfio, group, node })
    }

    /// The group's number, if nothing that sysfs shows stands in the way of taking it.
    ///
    /// # Errors
    /// In this order: [`OpenError::OtherDriver`], [`OpenError::NoDriver`],
    /// [`OpenError::NoIommuGroup`], [`OpenError::Noiommu`], [`OpenError::NotViable`]. Each
    /// says what to do.
    pub fn ready_group(&self) -> Result<u32, OpenError> {
        let device = self.device;
        if !self.is_vfio {
            // Without an IOMMU vfio-pci does not bind at all, so that is said first.
            if self.group.is_none() {
                return Err(OpenError::NoIommuGroup { device });
            }
            return Err(match &self.driver {
                Some(driver) => OpenError::OtherDriver { device, driver: driver.clone() },
                None => OpenError::NoDriver { device },
            });
        }
        let group = self.group.as_ref().ok_or(OpenError::NoIommuGroup { device })?;
        if group.noiommu {
            return Err(OpenError::Noiommu { object: format!("IOMMU group {} of {device}", group.number) });
        }
        if !group.in_the_way.is_empty() {
            return Err(OpenError::NotViable { group: group.number.to_string(), others: group.in_the_way.clone() });
        }
        Ok(group.number)
    }

    /// The name of the function's own node, if nothing that sysfs shows stands in the way.
    ///
    /// # Errors
    /// Those of [`ready_group`](Self::ready_group), and [`OpenError::NoDeviceNode`] where the
    /// kernel makes no nodes: use type1.
    pub fn ready_node(&self) -> Result<&str, OpenError> {
        self.ready_group()?;
        let device = self.device;
        let node = self.node.as_deref().ok_or(OpenError::NoDeviceNode { device })?;
        if node.starts_with("noiommu") {
            return Err(OpenError::Noiommu { object: format!("{node}, the node of {device}") });
        }
        Ok(node)
    }
}

pub(crate) fn driver(tree: &Tree, device: PciAddr) -> Option<String> {
    tree.link_name(&format!("{}/driver", folder(tree, device)))
}

/// Where a function's files are: behind a link, which an archive does not follow by itself.
pub(crate) fn folder(tree: &Tree, device: PciAddr) -> String {
    let listed = format!("{DEVICES}/{device}");
    tree.link(&listed).map_or(listed, |target| resolve(DEVICES, &target))
}

fn is_vfio(driver: Option<&str>) -> bool {
    driver == Some("vfio-pci")
}

fn group_of(tree: &Tree, number: u32, device: PciAddr) -> Group {
    let folder = format!("{GROUPS}/{number}");
    let noiommu = tree.text(&format!("{folder}/name")).as_deref() == Some("vfio-noiommu");
    let members = tree.list(&format!("{folder}/devices")).into_iter().filter_map(|name| name.parse().ok());
    let in_the_way = members
        .filter(|&member| member != device)
        .map(|member| Neighbour { device: member, driver: driver(tree, member) })
        .filter(|one| one.driver.as_deref().is_some_and(|driver| !HARMLESS.contains(&driver)))
        .filter(|one| !is_vfio(one.driver.as_deref()) && !has_vfio_device(tree, one.device))
        .collect();
    Group { number, noiommu, in_the_way }
}

fn has_vfio_device(tree: &Tree, device: PciAddr) -> bool {
    !tree.list(&format!("{}/vfio-dev", folder(tree, device))).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Node;

    /// A sysfs of one group with an edu and a neighbour, each with its driver.
    struct Machine(Vec<(String, Node)>);

    impl Machine {
        fn new(driver: Option<&str>, neighbour: Option<&str>) -> Self {
            let mut machine = Self(Vec::new());
            for (device, driver) in [("0000:05:00.0", driver), ("0000:02:02.0", neighbour)] {
                machine.file(&format!("{DEVICES}/{device}/vendor"), "0x1234");
                machine.link(&format!("{DEVICES}/{device}/iommu_group"), "../../kernel/iommu_groups/14");
                machine.link(&format!("{GROUPS}/14/devices/{device}"), &format!("../../../devices/{device}"));
                if let Some(driver) = driver {
                    machine.link(&format!("{DEVICES}/{device}/driver"), &format!("../../bus/pci/drivers/{driver}"));
                }
            }
            machine
        }

        fn file(&mut self, path: &str, text: &str) {
            self.0.push((path.to_string(), Node::File(format!("{text}\n").into_bytes())));
        }

        fn link(&mut self, path: &str, target: &str) {
            self.0.push((path.to_string(), Node::Link(target.to_string())));
        }

        /// What makes a device one of VFIO's whatever its driver is called.
        fn node(mut self, name: &str) -> Self {
            self.file(&format!("{DEVICES}/0000:05:00.0/vfio-dev/{name}/dev"), "248:0");
            self
        }

        fn place(self) -> Result<Place, OpenError> {
            Place::read(&Tree::from_nodes(self.0.into_iter().collect()), "0000:05:00.0".parse().unwrap())
        }
    }

    #[test]
    fn a_function_bound_to_vfio_beside_its_port_is_ready() {
        for neighbour in [Some("pcieport"), Some("pci-stub"), Some("vfio-pci"), None] {
            let place = Machine::new(Some("vfio-pci"), neighbour).place().unwrap();
            assert_eq!(place.ready_group().unwrap(), 14, "{neighbour:?}");
        }
        let variant = Machine::new(Some("mlx5_vfio_pci"), None).node("vfio0").place().unwrap();
        assert_eq!((variant.ready_group().unwrap(), variant.ready_node().unwrap()), (14, "vfio0"));
    }

    #[test]
    fn a_function_of_another_driver_is_refused_with_the_line_to_type() {
        let error = Machine::new(Some("nvme"), None).place().unwrap().ready_group().unwrap_err();
        let line = "echo vfio-pci > /sys/bus/pci/devices/0000:05:00.0/driver_override && \
                    echo 0000:05:00.0 > /sys/bus/pci/drivers/nvme/unbind && \
                    echo 0000:05:00.0 > /sys/bus/pci/drivers_probe";
        let text = error.to_string();
        assert!(text.contains("0000:05:00.0 is bound to nvme") && text.contains(line), "{text}");
        let error = Machine::new(None, None).place().unwrap().ready_group().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, OpenError::NoDriver { .. }) && !text.contains("unbind"), "{text}");
    }

    #[test]
    fn neighbours_with_drivers_are_named() {
        let error = Machine::new(Some("vfio-pci"), Some("nvme")).place().unwrap().ready_group().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("group 14") && text.contains("0000:02:02.0 (nvme)"), "{text}");
    }

    #[test]
    fn a_function_without_an_iommu_is_refused_before_its_driver_is_asked_for() {
        let mut machine = Machine::new(Some("nvme"), None);
        machine.0.retain(|(path, _)| !path.ends_with("iommu_group"));
        let error = machine.place().unwrap().ready_group().unwrap_err();
        assert!(matches!(error, OpenError::NoIommuGroup { .. }), "{error}");
        assert!(error.to_string().contains("intel_iommu=on"), "{error}");
    }

    #[test]
    fn noiommu_groups_and_nodes_are_refused_by_name() {
        let mut machine = Machine::new(Some("vfio-pci"), None).node("vfio0");
        machine.file(&format!("{GROUPS}/14/name"), "vfio-noiommu");
        let error = machine.place().unwrap().ready_group().unwrap_err();
        assert!(matches!(error, OpenError::Noiommu { .. }) && error.to_string().contains("noiommu"), "{error}");
        let place = Machine::new(Some("vfio-pci"), None).node("noiommu-vfio0").place().unwrap();
        assert!(matches!(place.ready_node(), Err(OpenError::Noiommu { .. })));
    }

    #[test]
    fn a_kernel_without_device_nodes_and_an_absent_function_are_named() {
        let place = Machine::new(Some("vfio-pci"), None).place().unwrap();
        assert!(matches!(place.ready_node(), Err(OpenError::NoDeviceNode { .. })));
        let empty = Place::read(&Tree::from_nodes(Default::default()), "0000:05:00.0".parse().unwrap());
        assert!(matches!(empty, Err(OpenError::Absent { .. })));
    }
}
