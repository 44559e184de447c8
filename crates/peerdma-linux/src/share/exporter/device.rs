//! A BAR that other processes import, and what is done to its device.

use super::super::lend::{Bar, ShareBarError};
use super::{ASKED_WITHIN, Exporter, Listener, Shared};
use crate::vfio::shared::{Announced, DeedError, Exported, Quiet};
use crate::vfio::{BarRange, SharedDevice, VfioDevice};
use peerdma::access::{MemAttrs, Prot};
use peerdma::buffer::Enforcement;
use peerdma::buffer::pins::RegionId;
use peerdma::buffer::shared::Wake;
use peerdma::buffer::terms::{Methods, Place};
use peerdma::buffer::wire::{Export, Text};
use peerdma::chunk::{Chunk, Chunks};
use peerdma::dma::Owner;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Why a deed may not happen while other processes have the memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitDeedError {
    /// Somebody holds on, or the device does not answer. The deed was given up.
    #[error(transparent)]
    Deed(#[from] DeedError),
    /// The sockets fail, which importers cannot bring about. The deed was given up.
    #[error("cannot speak with importers")]
    Io(#[from] io::Error),
}

impl Exporter<Bar> {
    /// Makes pages of a BAR a buffer and shares it at the listener's path. Nobody attaches before
    /// [`serve`](Self::serve) is called.
    ///
    /// Importers get the device's own descriptor with the terms, as there is no other that a CPU maps (Linux 7.2: mmap
    /// of an exported dma-buf is EINVAL): who may attach may do anything to the device. `owner` is what the range's bytes are
    /// called in this process, as for [`SharedDevice::export`]. Whatever is done to the device is announced through
    /// it, and waited for with [`wait_deed`](Self::wait_deed), for one exporter of the device after another.
    ///
    /// # Errors
    /// [`ShareBarError`].
    pub fn of_bar(
        listener: Listener,
        device: &SharedDevice,
        range: BarRange,
        owner: Owner,
        shared: Shared,
    ) -> Result<Self, ShareBarError> {
        let start = Bar::place(device, range)?;
        let export = Export {
            name: Text::new(&shared.name),
            prot: Prot::ReadWrite,
            stays: shared.stays,
            methods: Methods::CPU | Methods::FRAMES,
            floor: shared.floor,
            strongest: Enforcement::Cooperative,
            control: shared.control,
        };
        let chunk = Chunk::new(owner, range.offset(), range.len(), MemAttrs::MMIO);
        let ranges = Chunks::collect_from(chunk).map_err(io::Error::other)?;
        let place = Place::Device(RegionId::new(u32::from(range.bar().as_u8())));
        let offer = export.offer(ranges, place).map_err(io::Error::other)?;
        let exported = device.export_as(&shared.name, &[range], offer.to_peers())?;
        let buffer = exported.buffer().clone();
        Ok(Self::over(listener, Bar::new(exported, range, start), buffer, export)?)
    }

    /// The buffer with its place in the device, for imports of this process.
    pub fn exported(&self) -> &Exported {
        self.memory.exported()
    }

    /// Serves importers until a deed that was announced to the device may happen, or the moment has passed.
    ///
    /// # Errors
    /// [`WaitDeedError::Deed`] with [`DeedError::Late`] and who holds on; nothing was done, and importers may map again.
    pub fn wait_deed<'d>(
        &mut self,
        announced: Announced<'d, VfioDevice>,
        until: Instant,
    ) -> Result<Quiet<'d, VfioDevice>, WaitDeedError> {
        let wake: Arc<dyn Wake> = self.bell.clone();
        announced.wake(&wake);
        self.waits_until = Some(until);
        let served = loop {
            if announced.is_quiet() || Instant::now() >= until {
                break Ok(());
            }
            if let Err(error) = self.turn(until.min(Instant::now() + ASKED_WITHIN)) {
                break Err(error);
            }
        };
        self.waits_until = None;
        served?;
        Ok(announced.wait(until.saturating_duration_since(Instant::now()))?)
    }
}
