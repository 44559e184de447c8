//! A platform that runs.

use crate::exit::Failure;
use crate::input::{self, Loaded};
use crate::select;
use peerdma::addr::Bytes;
use peerdma::topology::FunctionId;
use peerdma_emu::device::nvme::{BlockSize, Media};
use peerdma_emu::fabric::NodeId;
use peerdma_emu::host::Kernel;
use peerdma_emu::machine::{Builder, Machine};
use peerdma_emu::memory::{Memory, Striped};
use peerdma_emu::platform::{Model, Platform};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What each drive holds; it takes memory as it is written.
const MEDIUM: Bytes = Bytes::new(4 << 30);

/// A machine with its kernel.
pub(crate) struct Booted {
    /// Where it came from, with the topology that was found by its registers.
    pub(crate) loaded: Loaded,
    pub(crate) platform: Platform,
    pub(crate) kernel: Kernel,
    /// The blocks of each drive.
    media: BTreeMap<String, Arc<dyn Memory>>,
}

impl Booted {
    /// Builds what a platform's name or file describes, and finds its devices.
    pub(crate) fn start(platform: &str, seed: u64) -> Result<Self, Failure> {
        let (mut loaded, platform) = input::machine(platform)?;
        let mut builder = Builder::new(&platform).seed(seed);
        let mut media = BTreeMap::new();
        for drive in platform.functions().iter().filter(|function| function.model == Model::Nvme) {
            let medium: Arc<dyn Memory> = Arc::new(Striped::new(MEDIUM));
            media.insert(drive.name.clone(), medium.clone());
            builder = builder.media(&drive.name, Media::new(medium, BlockSize::Short));
        }
        let machine = builder.build().map_err(|error| Failure::input("the machine cannot run", error))?;
        let kernel = Kernel::boot(Arc::new(machine), &platform);
        loaded.topology = kernel.topology().clone();
        Ok(Self { loaded, platform, kernel, media })
    }

    pub(crate) fn machine(&self) -> &Machine {
        self.kernel.machine()
    }

    /// The function that an address or a name of the platform means.
    pub(crate) fn function(&self, text: &str) -> Result<(NodeId, FunctionId), Failure> {
        let id = select::function(self.kernel.topology(), text)?;
        let address = self.kernel.topology().function(id).address();
        let node = self.machine().fabric().tree().at(address);
        // What was found by its registers is in the tree.
        node.map(|node| (node, id)).ok_or_else(|| Failure::usage(format!("nothing answers at {address}")))
    }

    /// What a node behaves like; `None` of a port.
    pub(crate) fn model(&self, node: NodeId) -> Option<Model> {
        let address = self.machine().fabric().tree().node(node).address;
        self.platform.functions().iter().find(|function| function.address == address).map(|function| function.model)
    }

    /// The blocks of a drive, as whoever takes it out of the machine finds them.
    pub(crate) fn medium(&self, node: NodeId) -> Option<&Arc<dyn Memory>> {
        self.media.get(self.machine().name(node)?)
    }

    /// Lets the machine go on until nothing in it has anything to do.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        /// More than any transfer of the commands takes.
        const STEPS: u64 = 50_000_000;
        if self.machine().settle(STEPS) {
            return Ok(());
        }
        let what = format!("the machine is still at work after {STEPS} steps; a device or a register keeps it busy");
        Err(Failure::Device { what, source: None })
    }

    /// How a node is called in text.
    pub(crate) fn called(&self, node: NodeId) -> String {
        let address = self.machine().fabric().tree().node(node).address;
        match self.machine().name(node) {
            Some(name) => format!("{name} ({address})"),
            None => address.to_string(),
        }
    }
}
