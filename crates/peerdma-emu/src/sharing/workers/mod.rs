//! Devices that work on buffers for a [`Driver`](super::driver::Driver).

mod dma;

pub use dma::DmaWorker;

use crate::host::Space;
use peerdma::dma::engine::{Context, Mapping};
use peerdma::iova::Allocator;
use std::cell::RefCell;

/// What a device's mappings are made from.
pub type Desk<'a> = Context<'a, Space, RefCell<Allocator>>;
/// One of them.
pub type Mapped<'c, 'a> = Mapping<'c, 'a, Space, RefCell<Allocator>>;
