//! dma-bufs: memory that kernel drivers share by descriptor.
//!
//! A [`DmaBuf`] is any descriptor that the kernel says is one; [`Udmabuf`] makes one of memfds, [`Heap`] takes one from
//! a heap, and a BAR is exported as one by [`VfioDevice::export`](crate::vfio::VfioDevice::export). [`machine`] lists those of this machine.
//!
//! **What a descriptor does not tell** (Linux 7.3, claims of the guests' group `dmabufs`): whether its memory is out of reach. A BAR's
//! dma-buf takes part in everything here after its device was reset or closed, and only an importer is refused, with
//! ENODEV. So a `DmaBuf` that was made of a buffer of ours [knows it](DmaBuf::of_buffer) and asks it; of one that came from elsewhere
//! the answer is unknown.
//!
//! ```
//! use peerdma_linux::dma_buf::{DmaBuf, NotADmaBuf};
//!
//! // What another program sent; here it is none.
//! let received = std::fs::File::open("/dev/null")?.into();
//! assert!(matches!(DmaBuf::from_fd(received), Err(NotADmaBuf::Other { .. })));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Not here: mapping one for a device ([`crate::iommufd`]), showing one to a virtual machine ([`crate::kvm`]).

mod buf;
mod fdinfo;
mod fences;
mod heap;
mod kernel_fence;
pub mod machine;
mod mapping;
mod udmabuf;

pub(crate) use buf::may_be_dma_buf;
pub use buf::{DmaBuf, DmaBufError, DmaBufId, NameError, NotADmaBuf, Standing};
pub use fences::{FenceStatus, Fences, FencesError};
pub use heap::{Heap, HeapError};
pub use kernel_fence::{KernelFence, KernelFenceError};
pub use mapping::{Access, CpuAccess, DmaBufMapping, Kind, Reading, ReadingAndWriting, Reads, Writes, Writing};
pub use udmabuf::{MemfdRange, Udmabuf, UdmabufError};
