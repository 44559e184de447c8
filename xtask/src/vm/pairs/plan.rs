//! The guests to compare in, as data.
//!
//! Each differs from the others in something that a decision hangs on: the shape of the
//! tree, the processor (Linux lets any AMD processor from Zen on forward), who asked for
//! ACS (an IOMMU does, a machine without one does not), what the command line does to ACS,
//! and what was written to it since. A round costs little more than the asking, a guest
//! some seconds, so states of ACS are rounds of one guest.

use super::kernel::MapType::{self, BusAddr, NotSupported, ThruHostBridge};
use crate::failure::Failure;
use crate::vm::machine::Iommu;
use crate::vm::topology::{self, Model};

/// Where a guest's devices stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// One of the topologies with a name.
    Named(&'static str),
    /// The one of this seed.
    Random(u64),
}

/// One guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GuestPlan {
    pub(crate) name: String,
    pub(crate) layout: Layout,
    /// QEMU's name of the processor.
    pub(crate) cpu: &'static str,
    pub(crate) iommu: Iommu,
    /// Words for the kernel's command line.
    pub(crate) cmdline: &'static [&'static str],
    /// Virtual functions to make of each function that can have them.
    pub(crate) virtual_functions: Option<u16>,
    /// ACS control words that the boot must have left, so that a parameter without effect
    /// is noticed.
    pub(crate) after_boot: &'static [(&'static str, u16)],
    /// Answers of the kernel that must occur: a guest without refusals on Zen, say, would
    /// otherwise pass for one below.
    pub(crate) occur: &'static [MapType],
    /// What to write to the ACS control words, in turn, for each further round.
    pub(crate) acs: &'static [&'static [u16]],
}

/// AMD, but before Zen: Linux asks the whitelist.
const BELOW_ZEN: &str = "qemu64";
/// AMD family 0x17.
const ZEN: &str = "EPYC";
/// Hygon's vendor word with Zen's family: not AMD to Linux.
const HYGON: &str = "Dhyana";
const INTEL: &str = "Nehalem";

/// Everything off, then every bit that counts alone and beside those that do not.
const OFF_AND_EACH: &[&[u16]] = &[&[0x00], &[0x1d, 0x00, 0x04, 0x11, 0x08, 0x53]];
/// Every bit that does not count, then one port of two redirecting.
const IDLE_AND_EVERY_SECOND: &[&[u16]] = &[&[0x53], &[0x00, 0x0c]];
/// On where no IOMMU asked for it.
const ON: &[&[u16]] = &[&[0x1d], &[0x08, 0x00]];

/// The guests of every run.
pub(crate) fn plan() -> Vec<GuestPlan> {
    let guest = |name: &str, topology, cpu, iommu, acs| GuestPlan {
        name: name.into(),
        layout: Layout::Named(topology),
        cpu,
        iommu,
        occur: if cpu == ZEN { &[BusAddr, ThruHostBridge] } else { &[BusAddr, NotSupported] },
        cmdline: &[],
        virtual_functions: None,
        after_boot: &[],
        acs,
    };
    let mut plans = vec![
        guest("default-intel", "default", BELOW_ZEN, Iommu::Intel, OFF_AND_EACH),
        guest("default-zen", "default", ZEN, Iommu::Amd, IDLE_AND_EVERY_SECOND),
        guest("pxb-none", "pxb", INTEL, Iommu::None, ON),
        guest("pxb-zen", "pxb", ZEN, Iommu::Virtio, ON),
        guest("multifunction-intel", "multifunction", INTEL, Iommu::Intel, OFF_AND_EACH),
        guest("deep-zen", "deep", ZEN, Iommu::Intel, OFF_AND_EACH),
        guest("deep-hygon", "deep", HYGON, Iommu::None, ON),
    ];
    // An IOMMU asks for ACS at boot, so what is 0 here was made 0.
    plans[0].after_boot = &[("0000:00:04.0", 0x1d), ("0000:00:05.0", 0x1d)];
    plans.extend([
        GuestPlan {
            cmdline: &["pci=disable_acs_redir=0000:00:04.0;pci:1b36:000c"],
            after_boot: &[("0000:00:04.0", 0x00), ("0000:00:06.0", 0x00)],
            ..guest("multifunction-disable", "multifunction", BELOW_ZEN, Iommu::Intel, ON)
        },
        GuestPlan {
            cmdline: &["pci=config_acs=1111111@0000:00:04.0;xx011x1@0000:00:06.0;0000000@0000:00:09.2"],
            after_boot: &[
                ("0000:00:04.0", 0x5f),
                ("0000:00:06.0", 0x0d),
                ("0000:00:07.0", 0x1d),
                ("0000:00:09.2", 0x00),
            ],
            ..guest("multifunction-config", "multifunction", BELOW_ZEN, Iommu::Intel, OFF_AND_EACH)
        },
        GuestPlan { virtual_functions: Some(3), ..guest("sriov-intel", "sriov", INTEL, Iommu::Intel, OFF_AND_EACH) },
        GuestPlan { virtual_functions: Some(2), ..guest("sriov-zen", "sriov", ZEN, Iommu::Amd, IDLE_AND_EVERY_SECOND) },
    ]);
    plans
}

/// The guest of a seed: its topology, and processor and IOMMU in turn.
pub(crate) fn random_plan(seed: u64) -> GuestPlan {
    const CPUS: [&str; 4] = [BELOW_ZEN, ZEN, INTEL, HYGON];
    const IOMMUS: [Iommu; 4] = [Iommu::Intel, Iommu::None, Iommu::Amd, Iommu::Virtio];
    const STATES: [&[&[u16]]; 3] = [OFF_AND_EACH, IDLE_AND_EVERY_SECOND, ON];
    let turn = |from: u64, of: usize| usize::try_from(from % of as u64).unwrap_or(0);
    GuestPlan {
        name: format!("random-{seed}"),
        layout: Layout::Random(seed),
        cpu: CPUS[turn(seed, CPUS.len())],
        // Not in step with the processors, or two of them would never meet one IOMMU.
        iommu: IOMMUS[turn(seed / 4, IOMMUS.len())],
        cmdline: &[],
        virtual_functions: (topology::random(seed).expected_virtual_functions() > 0).then_some(2),
        after_boot: &[],
        occur: &[],
        acs: STATES[turn(seed, STATES.len())],
    }
}

impl GuestPlan {
    /// States in which the guest is asked.
    pub(crate) fn rounds(&self) -> usize {
        1 + self.acs.len()
    }

    /// Where the devices stand.
    ///
    /// # Errors
    ///
    /// No topology of this name.
    pub(crate) fn model(&self) -> Result<Model, Failure> {
        match self.layout {
            Layout::Named(name) => topology::named(name).ok_or_else(|| {
                Failure::Stopped(format!("no topology is called {name}, which guest {} names", self.name))
            }),
            Layout::Random(seed) => Ok(topology::random(seed)),
        }
    }

    /// What the guest is to run, as root. It finds both programs in `/job/bin` and the
    /// module as `/job/p2p_oracle.ko`.
    pub(crate) fn argv(&self) -> Vec<String> {
        let fixed = "peerdma-guest oracle --peerdma /job/bin/peerdma --module /job/p2p_oracle.ko --out /out";
        let mut argv: Vec<String> = fixed.split(' ').map(Into::into).collect();
        if let Some(count) = self.virtual_functions {
            argv.extend(["--virtual-functions".into(), count.to_string()]);
        }
        for words in self.acs {
            let words: Vec<String> = words.iter().map(|word| format!("{word:x}")).collect();
            argv.extend(["--acs".into(), words.join(",")]);
        }
        argv
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn guests_have_names_of_their_own_and_topologies_that_exist() {
        let plans = plan();
        let names: BTreeSet<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names.len(), plans.len());
        for plan in &plans {
            assert!(plan.model().is_ok(), "{}", plan.name);
        }
    }

    #[test]
    fn every_topology_iommu_and_kind_of_processor_has_a_guest() {
        let plans = plan();
        for name in topology::NAMES.into_iter().filter(|name| *name != topology::IMPORTERS) {
            assert!(plans.iter().any(|plan| plan.layout == Layout::Named(name)), "{name}");
        }
        for (_, iommu) in Iommu::NAMES {
            assert!(plans.iter().any(|plan| plan.iommu == iommu), "{}", iommu.name());
        }
        for cpu in [BELOW_ZEN, ZEN, HYGON, INTEL] {
            assert!(plans.iter().any(|plan| plan.cpu == cpu), "{cpu}");
        }
        let told_of_acs = plans.iter().filter(|plan| plan.cmdline.iter().any(|word| word.starts_with("pci=")));
        assert!(told_of_acs.clone().count() > 1);
        assert!(told_of_acs.clone().all(|plan| !plan.after_boot.is_empty()));
    }

    #[test]
    fn sixteen_seeds_in_a_row_bring_every_processor_to_every_iommu() {
        let met: BTreeSet<(&str, &str)> =
            (1000..1016).map(random_plan).map(|plan| (plan.cpu, plan.iommu.name())).collect();
        assert_eq!(met.len(), 16);
        assert_eq!(random_plan(u64::MAX), random_plan(u64::MAX));
    }
}
