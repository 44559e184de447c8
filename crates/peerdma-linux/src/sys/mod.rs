//! System calls that need `unsafe`, behind functions that do not.
//!
//! The only folder of the workspace with `unsafe` in it. Each module names the call
//! that needs it, each block argues why it is sound, and what comes out is safe:
//! descriptors are owned, answers of the kernel are checked where they are used, and
//! memory that a device may change is only ever copied in and out by volatile
//! accesses, never borrowed.
//!
//! One thing these functions cannot promise: a device that is told to write to memory
//! of this process does so behind the compiler's back, as a write to `/proc/self/mem`
//! does. The library maps its own [`map::Mapping`]s, which nobody borrows; whoever
//! hands an address of other memory to an address space vouches for it.
//!
//! Not here: deciding anything, naming errors (errors are the plain ones of the call).

pub(crate) mod direct;
#[cfg(test)]
pub(crate) mod disturb;
pub(crate) mod dma_buf;
pub(crate) mod forced;
pub(crate) mod interrupt;
mod ioctl;
pub(crate) mod iommufd;
pub(crate) mod kvm;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod peer;
pub(crate) mod process_memory;
pub(crate) mod procmap;
#[cfg(feature = "raw")]
pub mod raw;
pub(crate) mod region;
pub(crate) mod uffd;
pub(crate) mod uring;
pub(crate) mod verbs;
pub(crate) mod vfio;
pub(crate) mod window;
