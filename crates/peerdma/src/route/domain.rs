//! How the IOMMU treats one initiator, and so which addresses it understands.
//!
//! The mode belongs to the initiator's IOMMU group, not to the machine: one device
//! may sit in an identity domain beside another whose addresses are translated. Of a
//! group that VFIO owns sysfs shows the default domain, not the one in use (Linux 7.2
//! `iommu_group_show_type`), so there the driver's name decides.

use crate::topology::{FunctionId, IommuMode, Topology};
use alloc::format;
use alloc::string::String;

/// Who decides about the initiator's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Owner {
    /// A kernel driver, by way of the kernel's DMA mapping.
    Kernel,
    /// Whoever opened it through VFIO; addresses are what that process mapped.
    Vfio,
}

/// The domain that an initiator's requests meet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Domain {
    /// What becomes of its addresses; `None` where the input does not tell.
    pub mode: Option<IommuMode>,
    /// Who hands out its addresses.
    pub owner: Owner,
    /// What was read, and where.
    pub evidence: String,
}

impl Domain {
    /// The domain of `initiator`.
    ///
    /// In this order: VFIO owns it; its group's type; it has no group although all
    /// groups are listed; what is stated for the machine as a whole.
    pub fn of(topology: &Topology, initiator: FunctionId) -> Self {
        let info = topology.function(initiator).info();
        if info.is_vfio_owned() {
            let driver = info.driver.as_deref().unwrap_or_default();
            let evidence = format!("bound to {driver}: its addresses are IOVAs of whoever opened it");
            return Self { mode: Some(IommuMode::Translated), owner: Owner::Vfio, evidence };
        }
        let kernel = |mode, evidence| Self { mode, owner: Owner::Kernel, evidence };
        let group = info.iommu_group.and_then(|id| topology.groups().iter().find(|group| group.id == id));
        if let Some((group, kind)) = group.and_then(|group| Some((group, group.kind.as_deref()?))) {
            // What a domain that nobody named understands is not told; one that blocks, no address at all.
            let mode = match kind {
                "DMA" | "DMA-FQ" => Some(Some(IommuMode::Translated)),
                "identity" => Some(Some(IommuMode::Identity)),
                "blocked" => Some(None),
                _ => None,
            };
            if let Some(mode) = mode {
                return kernel(mode, format!("IOMMU group {} has a default domain of type {kind}", group.id));
            }
        }
        let machine = topology.machine();
        if info.iommu_group.is_none() && machine.groups_are_complete {
            return kernel(Some(IommuMode::None), "in no IOMMU group, so no IOMMU stands in front of it".into());
        }
        match machine.iommu {
            Some(mode) => kernel(Some(mode), format!("IOMMU mode {mode}, stated for the whole machine")),
            None => kernel(None, "the input does not tell the type of its IOMMU group".into()),
        }
    }

    /// Whether its addresses are translated; `None` where not told.
    pub fn translates(&self) -> Option<bool> {
        self.mode.map(|mode| mode == IommuMode::Translated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{Builder, FunctionInfo, IommuGroup, Position};
    use alloc::string::ToString;
    use alloc::vec::Vec;

    fn with(change: impl FnOnce(&mut FunctionInfo, &mut Builder)) -> Domain {
        let mut info = FunctionInfo::new("00:01.0".parse().unwrap(), Position::RootBus { bus: 0 });
        let mut builder = Builder::new();
        change(&mut info, &mut builder);
        let address = info.address;
        builder.function(info);
        let topology = builder.build();
        Domain::of(&topology, topology.at(address).unwrap())
    }

    fn in_group(kind: &str) -> impl FnOnce(&mut FunctionInfo, &mut Builder) {
        let kind = Some(kind.to_string());
        move |info, builder| {
            info.iommu_group = Some(4);
            builder.group(IommuGroup { id: 4, kind, reserved: Vec::new() });
        }
    }

    #[test]
    fn the_group_decides_and_not_the_machine() {
        for (kind, mode) in [
            ("DMA", Some(IommuMode::Translated)),
            ("DMA-FQ", Some(IommuMode::Translated)),
            ("identity", Some(IommuMode::Identity)),
            ("blocked", None),
        ] {
            assert_eq!(with(in_group(kind)).mode, mode, "{kind}");
        }
        for (kind, mode) in
            [("DMA", Some(IommuMode::Translated)), ("blocked", None), ("unmanaged", Some(IommuMode::None))]
        {
            let stated = with(|info, builder| {
                builder.machine().iommu = Some(IommuMode::None);
                in_group(kind)(info, builder);
            });
            assert_eq!(stated.mode, mode, "{kind}");
        }
    }

    /// sysfs shows the type of the default domain, which VFIO has put aside.
    #[test]
    fn a_function_that_vfio_owns_gets_iovas_whatever_its_group_says() {
        for driver in ["vfio-pci", "mlx5_vfio_pci", "nvgrace-gpu-vfio-pci"] {
            let domain = with(|info, builder| {
                in_group("identity")(info, builder);
                info.driver = Some(driver.to_string());
            });
            assert_eq!((domain.mode, domain.owner), (Some(IommuMode::Translated), Owner::Vfio), "{driver}");
        }
    }

    #[test]
    fn no_group_means_no_iommu_only_where_all_groups_are_listed() {
        assert_eq!(with(|_, _| {}).mode, None);
        let listed = with(|_, builder| builder.machine().groups_are_complete = true);
        assert_eq!(listed.mode, Some(IommuMode::None));
    }
}
