//! Machines that come with peerdma.

use super::Platform;

struct BuiltIn {
    name: &'static str,
    description: &'static str,
    text: &'static str,
}

const BUILT_IN: [BuiltIn; 4] = [
    BuiltIn {
        name: "two-socket",
        description: "server: a switch per socket with GPU, NIC and NVMe drives, and one NVMe drive behind the chipset",
        text: include_str!("../../platforms/two-socket.toml"),
    },
    BuiltIn {
        name: "shared-switch",
        description: "one switch: two GPUs, five DMA engines, two NICs and an NVMe drive that share buffers",
        text: include_str!("../../platforms/shared-switch.toml"),
    },
    BuiltIn {
        name: "client",
        description: "desktop: one host bridge that Linux does not list, a GPU and an NVMe drive on root ports of their own",
        text: include_str!("../../platforms/client.toml"),
    },
    BuiltIn {
        name: "arm-slots",
        description: "Arm server: a segment and a root port per slot, ACS on, SMMU",
        text: include_str!("../../platforms/arm-slots.toml"),
    },
];

impl Platform {
    /// The built-in platform of this name.
    pub fn built_in(name: &str) -> Option<Self> {
        // That each of them parses is tested, so `None` is an unknown name.
        Self::parse(Self::built_in_text(name)?, &format!("<{name}>")).ok()
    }

    /// The file of the built-in platform of this name, to start one's own from.
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|platform| platform.name == name).map(|platform| platform.text)
    }

    /// Names of the built-in platforms, each with a description of one line.
    pub fn built_in_names() -> impl ExactSizeIterator<Item = (&'static str, &'static str)> {
        BUILT_IN.iter().map(|platform| (platform.name, platform.description))
    }
}
