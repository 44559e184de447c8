//! A device with BARs of memory and no engine.

use super::{Bus, Device, Layout, Progress};
use crate::memory::Memory;
use peerdma::addr::Bytes;
use std::sync::Arc;

/// Memory behind BARs, and nothing that ever asks for anything.
///
/// What a BAR shows is any [`Memory`]: device memory as it is, a part of a larger one, or a
/// mirror aperture, whose writes stay in a copy that the device's own side does not see.
#[derive(Clone, Debug, Default)]
pub struct Plain {
    layout: Layout,
}

impl Plain {
    /// A device without BARs.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a memory behind the BAR whose first register is `bar`, 0 to 5.
    #[must_use]
    pub fn with(mut self, bar: u8, memory: Arc<dyn Memory>) -> Self {
        self.layout = self.layout.memory(bar, Bytes::ZERO, memory);
        self
    }
}

impl Device for Plain {
    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn step(&mut self, _bus: &mut dyn Bus) -> Progress {
        Progress::Idle
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{FlatDevice, Mmio};
    use crate::memory::Striped;

    #[test]
    fn each_bar_shows_its_memory_and_no_other() {
        let (first, second) = (Arc::new(Striped::new(Bytes::new(64))), Arc::new(Striped::new(Bytes::new(32))));
        let device = Plain::new().with(0, first.clone()).with(2, second.clone());
        let device = FlatDevice::new(device, Arc::new(Striped::new(Bytes::new(8))));
        device.store(0, Bytes::new(8), 1, 8);
        device.store(2, Bytes::new(8), 2, 4);
        device.store(2, Bytes::new(32), 3, 4);
        let read = |memory: &Striped| {
            let mut bytes = [0; 8];
            memory.read(Bytes::new(8), &mut bytes).unwrap();
            u64::from_le_bytes(bytes)
        };
        assert_eq!((read(&first), read(&second)), (1, 2));
        assert_eq!((device.load(0, Bytes::new(8), 8), device.load(1, Bytes::new(8), 8)), (1, 0));
        assert!(!device.pause(), "it has nothing to do, ever");
    }
}
