//! A slot that moves with its BAR.

use super::follow::BufferSlot;
use crate::vfio::shared::Placed;
use peerdma::addr::GuestPhys;
use std::error::Error;

impl Placed for BufferSlot {
    fn name(&self) -> String {
        self.id().to_string()
    }

    fn at(&self) -> GuestPhys {
        self.range().start()
    }

    /// The kernel moves it at once; it shows nothing before the next [`restore`](BufferSlot::restore).
    fn place(&self, at: GuestPhys) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.move_to(at)?)
    }
}
