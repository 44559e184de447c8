//! Which of QEMU's devices stands for a function of a file.
//!
//! Device IDs cannot be chosen in QEMU, so a stand-in is taken by what tests do with it: a
//! BAR of the right size to aim at (`ivshmem-plain`, or an NVMe drive's memory buffer), or an
//! engine that can be driven by hand (`edu`).

use super::{Export, Refusal};
use crate::vm::topology::legal::LARGEST_BAR;
use crate::vm::topology::model::Endpoint;
use crate::vm::topology::place::{Place, What};
use peerdma::addr::Bytes;
use peerdma_emu::platform::{Bar, Function, Model};

impl Export<'_> {
    /// The stand-in of a function, noted as its twin.
    pub(super) fn function(&mut self, function: &Function, place: Place, conventional: bool) -> Endpoint {
        let endpoint = stand_in(function, conventional);
        if conventional && function.address.devfn().device() == 0 {
            self.refusals.push(Refusal::HotPlugController { name: function.name.clone(), address: function.address });
        }
        let device = device_of(&endpoint);
        let acs = self.other_acs("function", &function.name, function.address, &function.acs, device);
        let (shown, _) = shown(function, &endpoint);
        self.twin(&function.name, function.address, &place, acs, shown);
        endpoint
    }
}

/// QEMU's name of a device.
pub(super) fn device_of(endpoint: &Endpoint) -> &'static str {
    What::Endpoint(endpoint).device()
}

/// The device that stands for a function.
pub(super) fn stand_in(function: &Function, conventional: bool) -> Endpoint {
    let fits = |bar: &&Bar, smallest: u64| {
        bar.prefetchable && (smallest..=LARGEST_BAR.as_u64()).contains(&bar.bus.len().as_u64())
    };
    let largest = |smallest| {
        let bars = function.bars.iter().filter(|bar| fits(bar, smallest));
        bars.map(|bar| bar.bus.len()).max()
    };
    match function.model {
        Model::Nvme if !conventional => Endpoint::Nvme { cmb: largest(1 << 20) },
        Model::Dma => Endpoint::Edu,
        _ => largest(4 << 10).map_or(Endpoint::Edu, |bar| Endpoint::Ivshmem { bar }),
    }
}

/// BARs of the stand-in that are of the size of one of the function's, and how many of the
/// function's have none.
pub(super) fn shown(function: &Function, endpoint: &Endpoint) -> (Vec<(u8, Bytes)>, usize) {
    let mut free = endpoint.bars();
    let mut shown = Vec::new();
    for bar in &function.bars {
        if let Some(at) = free.iter().position(|(_, size)| *size == bar.bus.len()) {
            shown.push(free.remove(at));
        }
    }
    let missing = function.bars.len() - shown.len();
    (shown, missing)
}
