//! How a function is reset: through VFIO where that has it, else by a file of sysfs.

use crate::exit::Failure;
use peerdma_linux::iommufd::IommufdSpace;
use peerdma_linux::tree::Tree;
use peerdma_linux::type1::Type1Space;
use peerdma_linux::vfio::binding::Obstacle;
use peerdma_linux::vfio::standing::{Standing, Use};
use peerdma_linux::vfio::{DeviceNode, Nodes};
use std::path::Path;

/// What a reset takes.
pub(super) struct Plan {
    pub(super) obstacles: Vec<Obstacle>,
    pub(super) steps: Vec<String>,
    /// Files that are opened or written.
    pub(super) files: Vec<String>,
    way: Way,
}

enum Way {
    /// Nobody can.
    None,
    Group,
    Node,
    Sysfs,
}

impl Plan {
    pub(super) fn new(tree: &Tree, standing: &Standing) -> Self {
        let (place, device) = (&standing.place, standing.place.device);
        let mut obstacles = Vec::new();
        if standing.is_bridge() {
            obstacles.push(Obstacle::Bridge { device });
        }
        if let Some(driver) = place.driver.as_ref().filter(|_| !place.is_vfio) {
            obstacles.push(Obstacle::OtherDriver { device, driver: driver.clone() });
        }
        obstacles.extend(standing.uses.iter().cloned().map(|user| match user {
            Use::Open { .. } => Obstacle::Open { user },
            user => Obstacle::InUse { user },
        }));
        let group = place.ready_group().ok();
        let has_group_node =
            group.is_some_and(|group| !tree.is_live() || Path::new(&format!("/dev/vfio/{group}")).exists());
        let ways = standing.reset_methods.as_ref().map_or("?".into(), |methods| methods.join(" "));
        let (way, steps, files) = match (group, &place.node) {
            _ if ways.is_empty() => (Way::None, Vec::new(), Vec::new()),
            (Some(group), _) if has_group_node => (
                Way::Group,
                vec![
                    format!("open /dev/vfio/vfio and /dev/vfio/{group}"),
                    format!("VFIO_GROUP_GET_DEVICE_FD {device}"),
                    format!("VFIO_DEVICE_RESET ({ways})"),
                ],
                vec!["/dev/vfio/vfio".into(), format!("/dev/vfio/{group}")],
            ),
            (Some(_), Some(node)) => (
                Way::Node,
                vec![
                    format!("open /dev/iommu and /dev/vfio/devices/{node}"),
                    "VFIO_DEVICE_BIND_IOMMUFD".into(),
                    format!("VFIO_DEVICE_RESET ({ways})"),
                ],
                vec!["/dev/iommu".into(), format!("/dev/vfio/devices/{node}")],
            ),
            _ => {
                let file = format!("/sys/bus/pci/devices/{device}/reset");
                (Way::Sysfs, vec![format!("echo 1 > {file} ({ways})")], vec![file])
            }
        };
        Self { obstacles, steps, files, way }
    }

    /// Whether there is any way.
    pub(super) fn is_possible(&self) -> bool {
        !matches!(self.way, Way::None)
    }

    pub(super) fn carry_out(&self, standing: &Standing) -> Result<(), Failure> {
        let device = standing.place.device;
        let nodes = Nodes::live();
        let failed = |error| Failure::device(format!("cannot open {device}"), error);
        let opened = match self.way {
            Way::Group => Type1Space::open(&nodes, &[device]).and_then(|space| space.device(device)).map_err(failed)?,
            Way::Node => {
                let bound = IommufdSpace::open(&nodes).and_then(|space| space.bind(DeviceNode::open(&nodes, device)?));
                bound.map_err(failed)?
            }
            Way::Sysfs | Way::None => {
                let path = Path::new(&self.files.first().cloned().unwrap_or_default()).to_path_buf();
                return std::fs::write(&path, "1").map_err(|source| Failure::Write { path, source });
            }
        };
        opened.reset().map_err(|error| Failure::device(format!("cannot reset {device}"), error))
    }
}
