//! The machine that QEMU plays: processor, IOMMU, devices, command line.
//!
//! Software emulation, so that it runs where no hardware virtualisation is offered and
//! gives the same answers everywhere.

use crate::failure::Failure;

/// Where the ports to the host sit; topologies leave this slot of the first root bus free.
const PORTS_SLOT: &str = "0x2";

/// Which IOMMU the machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Iommu {
    Intel,
    Amd,
    Virtio,
    None,
}

impl Iommu {
    pub(super) const NAMES: [(&str, Self); 4] =
        [("intel", Self::Intel), ("amd", Self::Amd), ("virtio", Self::Virtio), ("none", Self::None)];

    pub(super) fn parse(word: &str) -> Result<Self, Failure> {
        let known = Self::NAMES.iter().find(|(name, _)| *name == word);
        known.map(|&(_, iommu)| iommu).ok_or_else(|| {
            Failure::Usage(format!("no IOMMU is called `{word}`; there are intel, amd, virtio and none"))
        })
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES.iter().find(|&&(_, iommu)| iommu == self).map_or("?", |&(name, _)| name)
    }

    /// The device; it must stand before the devices whose requests it translates.
    fn device(self) -> Option<&'static str> {
        match self {
            Self::Intel => Some("intel-iommu,intremap=on,caching-mode=on,aw-bits=48"),
            Self::Amd => Some("amd-iommu,intremap=on"),
            Self::Virtio => Some("virtio-iommu-pci,addr=0x3"),
            Self::None => None,
        }
    }

    fn cmdline(self) -> Option<&'static str> {
        match self {
            Self::Intel => Some("intel_iommu=on"),
            // QEMU's passes every address through, whatever the kernel writes into its tables: with
            // translation on, drives do not come up and the boot waits a minute for them.
            Self::Amd => Some("iommu=pt"),
            // Its driver is a module that comes late, and until then devices wait, for ten seconds unless told.
            Self::Virtio => Some("deferred_probe_timeout=1"),
            Self::None => None,
        }
    }

    /// Modules that a kernel which does not have them built in needs.
    pub(super) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Virtio => &["virtio-iommu"],
            Self::Intel | Self::Amd | Self::None => &[],
        }
    }
}

/// What the memory of a machine consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// 1 GiB in one piece.
    Usual,
    /// So many MiB in each of two NUMA nodes, with a processor each.
    Nodes([u32; 2]),
}

impl Memory {
    /// Reads two numbers of MiB, as in `768,512`.
    pub(super) fn parse_nodes(word: &str) -> Result<Self, Failure> {
        let nodes = word.split_once(',').and_then(|(first, second)| Some([first.parse().ok()?, second.parse().ok()?]));
        let nodes = nodes.filter(|nodes: &[u32; 2]| nodes.iter().all(|mib| (128..=65_536).contains(mib)));
        let nodes = nodes.ok_or_else(|| {
            Failure::Usage(format!("--nodes takes the MiB of two NUMA nodes from 128 on, as in 768,512, not `{word}`"))
        })?;
        Ok(Self::Nodes(nodes))
    }

    fn mib(self) -> u32 {
        match self {
            Self::Usual => 1024,
            Self::Nodes(nodes) => nodes.iter().sum(),
        }
    }

    /// QEMU's arguments beside the size.
    fn arguments(self) -> Vec<String> {
        let Self::Nodes(nodes) = self else { return Vec::new() };
        let node = |(node, mib): (usize, u32)| {
            let backend = format!("memory-backend-ram,id=node{node},size={mib}M");
            let place = format!("node,nodeid={node},cpus={node},memdev=node{node}");
            ["-object".into(), backend, "-numa".into(), place]
        };
        nodes.into_iter().enumerate().flat_map(node).collect()
    }
}

/// One machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// QEMU's name of the processor, with its flags.
    pub(super) cpu: String,
    pub(super) iommu: Iommu,
    /// QEMU arguments for everything on the buses, in order.
    pub(super) devices: Vec<String>,
    /// Words for the kernel beside those every guest gets.
    pub(super) cmdline: Vec<String>,
    pub(super) memory: Memory,
}

/// Switches itself off after a panic and does not wait for a clock that emulation makes unsteady.
///
/// QEMU loses a timer's interrupt now and then: one that is due while a processor runs an inner guest, or while all of QEMU
/// gets no time. A kernel without ticks waits for that one for ever, with it every sleep and every grace period of its processor
/// (`rcu_preempt kthread timer wakeup didn't happen`); one with a periodic timer waits for a tick.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 oops=panic nokaslr mitigations=off tsc=reliable no_timer_check \
                       random.trust_cpu=on nohz=off highres=off";

impl Machine {
    /// QEMU's arguments up to, not including, the kernel's files and the ports.
    pub(super) fn arguments(&self) -> Vec<String> {
        let memory = format!("{}M", self.memory.mib());
        let fixed = ["-M", "q35,kernel-irqchip=split", "-accel", "tcg,thread=multi", "-cpu", &self.cpu, "-smp", "2"];
        let mut arguments: Vec<String> = fixed.map(Into::into).into();
        arguments.extend(["-m", &memory, "-nodefaults", "-no-reboot", "-display", "none"].map(Into::into));
        arguments.extend(self.memory.arguments());
        if let Some(device) = self.iommu.device() {
            arguments.extend(["-device".into(), device.into()]);
        }
        arguments.extend(["-device".into(), format!("virtio-serial-pci,addr={PORTS_SLOT}")]);
        arguments.extend(self.devices.iter().cloned());
        arguments
    }

    /// The kernel's command line.
    pub(super) fn cmdline(&self) -> String {
        let extra = self.cmdline.iter().map(String::as_str);
        let words: Vec<&str> = [CMDLINE].into_iter().chain(self.iommu.cmdline()).chain(extra).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_iommu_stands_before_every_device() {
        for (_, iommu) in Iommu::NAMES {
            let machine = Machine {
                cpu: "qemu64".into(),
                iommu,
                devices: vec!["-device".into(), "edu".into()],
                cmdline: vec!["iommu=pt".into()],
                memory: Memory::Usual,
            };
            let arguments = machine.arguments();
            let at = |word: &str| arguments.iter().position(|argument| argument.starts_with(word));
            if let Some(device) = iommu.device() {
                assert!(at(device) < at("virtio-serial"));
            }
            assert!(at("virtio-serial") < at("edu"));
            assert!(machine.cmdline().ends_with("iommu=pt"));
        }
    }

    #[test]
    fn nodes_share_the_memory_and_have_a_processor_each() {
        let memory = Memory::parse_nodes("768,512").unwrap();
        assert_eq!(memory.mib(), 1280);
        let arguments = memory.arguments().join(" ");
        assert!(arguments.contains("id=node1,size=512M -numa node,nodeid=1,cpus=1,memdev=node1"), "{arguments}");
        for word in ["", "768", "768,", "768,5", "1,2,3", "-1,512", "768,65537"] {
            assert!(Memory::parse_nodes(word).unwrap_err().to_string().contains("768,512"), "{word}");
        }
    }

    #[test]
    fn an_iommu_of_no_known_name_is_refused() {
        assert!(Iommu::parse("smmu").unwrap_err().to_string().contains("intel, amd, virtio and none"));
        for (name, iommu) in Iommu::NAMES {
            assert_eq!(Iommu::parse(name).unwrap().name(), iommu.name());
        }
    }
}
