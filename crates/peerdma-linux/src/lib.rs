//! What peerdma needs of Linux: reading machines, and acting on their devices.
//!
//! **Reading.** Three ways in, one out ([`peerdma::topology::Builder`]):
//!
//! ```text
//! live sysfs ─┐
//! folder ─────┼─ tree ─ sysfs ─ snapshot ─┬─ assemble ─┐
//! archive ────┘            │              │            ├─ Builder
//!                       capture ──────────┘            │
//! lspci text ───────────────────────────────── lspci ──┘
//! ```
//!
//! **Acting.** [`vfio`] opens devices, [`type1`] and [`iommufd`] are address spaces in front
//! of them ([`peerdma::dma::IoSpace`]), an [`engine`] such as [`edu`] moves bytes, or a [`drive`] to and from [`p2pmem`], and
//! [`verified`] says whether they arrived. [`share`] hands a buffer to other processes,
//! [`control`] tells others what a process is at. [`kvm`] shows memory to a virtual machine, [`dma_buf`] has
//! memory that kernel drivers share. [`mirror`]
//! has a device use process memory by its addresses, and [`uffd`] tells what becomes of that.
//!
//! Three principles:
//!
//! 1. **Inputs are strangers'.** Nothing here panics, hangs or grows without bound
//!    on a file, however damaged.
//! 2. **Facts first.** A [`snapshot::Snapshot`] is what was read; conclusions are
//!    drawn in one place, so a capture gives what live reading gave.
//! 3. **What was not read is not zero.** 64 bytes of config space stay 64 bytes.
//!
//! Not here: deciding anything about a route, and printing.
//!
//! ```no_run
//! use peerdma_linux::{assemble, pci_names::PciNames, sysfs, tree::Tree};
//!
//! let snapshot = sysfs::read(&Tree::live());
//! let builder = assemble::builder(&snapshot, peerdma::topology::Origin::Sysfs, &PciNames::system())?;
//! println!("{} functions", builder.build().functions().len());
//! # Ok::<(), assemble::BadFact>(())
//! ```

pub mod archive;
pub mod assemble;
mod bell;
pub mod buffer_event;
pub mod capture;
pub mod control;
pub mod dma_buf;
pub mod drive;
pub mod edu;
pub mod engine;
pub mod fence_event;
pub mod held;
pub mod interrupt;
mod iomem;
pub mod iommufd;
mod kernel_config;
pub mod kernel_log;
pub mod kvm;
pub mod lspci;
pub mod membarrier;
pub mod memory;
pub mod mirror;
pub mod mlock;
mod own;
pub mod p2pmem;
pub mod pattern;
pub mod pci_names;
pub mod pin;
pub mod pool;
pub mod proof;
pub mod publish;
pub mod redact;
pub mod share;
pub mod snapshot;
mod sys;
pub mod sysfs;
pub mod tree;
pub mod type1;
pub mod uffd;
pub mod verbs;
pub mod verified;
pub mod vfio;

#[cfg(feature = "raw")]
pub use sys::raw;
